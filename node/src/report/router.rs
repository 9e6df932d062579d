//! What the status says of the router: how it maps and filters, where it shows this node, which port it maps.

use std::net::{IpAddr, SocketAddr};

use handfast_core::api::Reachability;
use handfast_core::wire::nat::{FilteringBehavior, MappingBehavior, PortAssignment};
use handfast_io::{PortMappingOutcome, PortMappingReport};
use serde::{Deserialize, Serialize};

/// What is between this node and the internet, in the terms of RFC 4787; null is not known (yet).
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub(crate) struct NatReport {
    /// Whether the examination is complete.
    pub(crate) examined: bool,
    /// Whether there is no router that translates.
    pub(crate) none: bool,
    /// `endpoint-independent`, `address-dependent` or `address-and-port-dependent`.
    pub(crate) filtering: Option<String>,
    /// `preserving`, `sequential`, `block` or `random`.
    pub(crate) ports: Option<String>,
    /// From one sequential port to the next.
    pub(crate) step: Option<i8>,
    /// The first port of the block, and how many there are.
    pub(crate) block: Option<(u16, u16)>,
    pub(crate) hairpinning: Option<bool>,
    /// Whether the router uses several public addresses.
    pub(crate) pooled: Option<bool>,
    /// Whether there is a second NAT beyond the router (CGN).
    pub(crate) second_nat: Option<bool>,
    /// Where supernodes saw us, and how many agree.
    pub(crate) addresses: Vec<AddressReport>,
}

impl From<&Reachability> for NatReport {
    fn from(reach: &Reachability) -> Self {
        let (ports, step, block) = match reach.ports {
            PortAssignment::Unknown => (None, None, None),
            PortAssignment::Preserving => (Some("preserving"), None, None),
            PortAssignment::Sequential { step, .. } => (Some("sequential"), Some(step), None),
            PortAssignment::Block { first, width } => (Some("block"), None, Some((first, width))),
            PortAssignment::Random => (Some("random"), None, None),
        };
        Self {
            examined: reach.age.is_some() || reach.witnesses > 0,
            none: reach.translated == Some(false),
            filtering: reach.filtering.map(|filtering| filtering_word(filtering).into()),
            ports: ports.map(Into::into),
            step,
            block,
            hairpinning: reach.hairpinning,
            pooled: reach.pooled,
            second_nat: reach.second_nat,
            addresses: reach
                .public_addresses
                .iter()
                .map(|(address, witnesses)| AddressReport { address: *address, witnesses: *witnesses })
                .collect(),
        }
    }
}

impl From<&Reachability> for Ipv6Report {
    fn from(reach: &Reachability) -> Self {
        let filtering = reach.v6.and_then(|v6| v6.filtering);
        Self {
            address: reach.v6.map(|v6| v6.address),
            open: filtering.map(|filtering| filtering == FilteringBehavior::EndpointIndependent),
        }
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddressReport {
    pub(crate) address: SocketAddr,
    pub(crate) witnesses: usize,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ipv6Report {
    /// Where supernodes saw us.
    pub(crate) address: Option<SocketAddr>,
    /// Whether packets that nobody asked for come in.
    pub(crate) open: Option<bool>,
}

/// What became of the wish for a mapped port, by protocol.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PortMapping {
    /// The router that is asked.
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) pcp: MappingOutcome,
    pub(crate) nat_pmp: MappingOutcome,
    pub(crate) upnp: MappingOutcome,
    /// IPv6: own addresses for which PCP was asked to open the firewall.
    #[serde(default)]
    pub(crate) pinholes: Vec<Pinhole>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pinhole {
    pub(crate) internal: SocketAddr,
    #[serde(flatten)]
    pub(crate) outcome: MappingOutcome,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct MappingOutcome {
    /// `none` (nobody speaks it), `refused`, `mapped`, or `unknown`: not asked, or not answered yet.
    pub(crate) outcome: String,
    /// Why it was refused, in the protocol's own numbers.
    pub(crate) code: Option<u16>,
    /// What the router says that it mapped.
    pub(crate) address: Option<SocketAddr>,
}

impl Default for MappingOutcome {
    fn default() -> Self {
        Self { outcome: "none".into(), code: None, address: None }
    }
}

impl From<PortMappingOutcome> for MappingOutcome {
    fn from(outcome: PortMappingOutcome) -> Self {
        let (word, code, address) = match outcome {
            PortMappingOutcome::None => ("none", None, None),
            // 0: without a number.
            PortMappingOutcome::Refused(code) => ("refused", Some(code).filter(|code| *code != 0), None),
            PortMappingOutcome::Mapped(address) => ("mapped", None, Some(address)),
            _ => ("unknown", None, None),
        };
        Self { outcome: word.into(), code, address }
    }
}

impl From<PortMappingReport> for PortMapping {
    fn from(report: PortMappingReport) -> Self {
        let pinhole = |(internal, outcome): (_, PortMappingOutcome)| Pinhole { internal, outcome: outcome.into() };
        Self {
            gateway: report.gateway,
            pcp: report.pcp.into(),
            nat_pmp: report.nat_pmp.into(),
            upnp: report.upnp.into(),
            pinholes: report.pinholes.into_iter().map(pinhole).collect(),
        }
    }
}

impl PortMapping {
    /// The mapped address, if there is one.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        [&self.pcp, &self.nat_pmp, &self.upnp].iter().find(|o| o.outcome == "mapped").and_then(|o| o.address)
    }

    /// Whether a port is mapped, or everybody has been asked.
    pub(crate) fn is_settled(&self) -> bool {
        self.mapped().is_some() || [&self.pcp, &self.nat_pmp, &self.upnp].iter().all(|o| o.outcome != "unknown")
    }
}

pub(super) fn mapping_word(mapping: MappingBehavior) -> &'static str {
    match mapping {
        MappingBehavior::EndpointIndependent => "endpoint-independent",
        MappingBehavior::AddressDependent => "address-dependent",
        MappingBehavior::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn filtering_word(filtering: FilteringBehavior) -> &'static str {
    match filtering {
        FilteringBehavior::EndpointIndependent => "endpoint-independent",
        FilteringBehavior::AddressDependent => "address-dependent",
        FilteringBehavior::AddressAndPortDependent => "address-and-port-dependent",
    }
}
