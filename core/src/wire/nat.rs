//! What a node says of its router, in the terms of RFC 4787: two bytes beside its candidates, a few more where its
//! ports can be foretold.
//!
//! Both peers of an introduction hear both profiles, so both know without another word what is worth trying:
//! `punch::Strategy` is a function of the two and of the number of the attempt.

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::identity::PeerId;

/// RFC 4787 §4.1: how a router maps an internal address and port to an external one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MappingBehavior {
    /// The same external address and port for every destination.
    EndpointIndependent,
    /// Another one for each destination address.
    AddressDependent,
    /// Another one for each destination address and port.
    AddressAndPortDependent,
}

/// RFC 4787 §5: which packets a router lets in through a mapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FilteringBehavior {
    /// From everywhere.
    EndpointIndependent,
    /// From addresses that were sent to.
    AddressDependent,
    /// From addresses and ports that were sent to.
    AddressAndPortDependent,
}

/// RFC 4787 §4.2: which external ports a router gives to new mappings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum PortAssignment {
    /// Not known.
    #[default]
    Unknown,
    /// The internal port, where it is free.
    Preserving,
    /// One after the other.
    Sequential {
        /// From one new mapping to the next.
        step: i8,
        /// The newest port seen.
        newest: u16,
    },
    /// Any within a block that belongs to this subscriber.
    Block {
        /// Its lowest port.
        first: u16,
        /// How many ports.
        width: u16,
    },
    /// Any.
    Random,
}

/// What is known of a router. `None` is not known (yet).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(from = "WireProfile", into = "WireProfile")]
pub struct NatProfile {
    /// Which mapping a packet leaves through.
    pub mapping: Option<MappingBehavior>,
    /// Which packets come in.
    pub filtering: Option<FilteringBehavior>,
    /// Which ports new mappings get.
    pub ports: PortAssignment,
    /// No UDP gets out: only who is on the same LAN can be reached without a relay.
    pub udp_blocked: bool,
}

/// The two behaviours in two bits each (0 is unknown, 1 to 3 in order of declaration), lowest bits first; then a bit
/// for UDP that is blocked. Higher bits are ignored.
#[derive(Serialize, Deserialize)]
struct WireProfile(u8, PortAssignment);

impl From<NatProfile> for WireProfile {
    fn from(profile: NatProfile) -> Self {
        let mapping = profile.mapping.map_or(0, |m| m as u8 + 1);
        let filtering = profile.filtering.map_or(0, |f| f as u8 + 1);
        Self(mapping | filtering << 2 | u8::from(profile.udp_blocked) << 4, profile.ports)
    }
}

impl From<WireProfile> for NatProfile {
    fn from(WireProfile(bits, ports): WireProfile) -> Self {
        let mapping = match bits & 3 {
            1 => Some(MappingBehavior::EndpointIndependent),
            2 => Some(MappingBehavior::AddressDependent),
            3 => Some(MappingBehavior::AddressAndPortDependent),
            _ => None,
        };
        let filtering = match bits >> 2 & 3 {
            1 => Some(FilteringBehavior::EndpointIndependent),
            2 => Some(FilteringBehavior::AddressDependent),
            3 => Some(FilteringBehavior::AddressAndPortDependent),
            _ => None,
        };
        Self { mapping, filtering, ports, udp_blocked: bits >> 4 & 1 == 1 }
    }
}

/// How far one side is with an attempt to become direct that takes more than checks. A state, not an event: it may come
/// twice, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PunchState {
    /// Which attempt.
    pub attempt: u8,
    /// Which round of it: each has a fresh socket behind a router that counts.
    pub round: u8,
    /// Whether the sender begins as soon as the receiver is ready too.
    pub ready: bool,
    /// The port that the sender's router, which counts, gave in this round; 0 if there is none (yet).
    pub newest: u16,
    /// The receiver should have itself vouched for at this supernode, a home of the sender.
    pub vouch: Option<(PeerId, Address)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_easy_router_takes_two_bytes_and_every_profile_comes_back() {
        let mappings = [
            None,
            Some(MappingBehavior::EndpointIndependent),
            Some(MappingBehavior::AddressDependent),
            Some(MappingBehavior::AddressAndPortDependent),
        ];
        let filterings = [
            None,
            Some(FilteringBehavior::EndpointIndependent),
            Some(FilteringBehavior::AddressDependent),
            Some(FilteringBehavior::AddressAndPortDependent),
        ];
        let assignments = [
            PortAssignment::Unknown,
            PortAssignment::Preserving,
            PortAssignment::Sequential { step: -2, newest: 65_535 },
            PortAssignment::Block { first: 1_024, width: 512 },
            PortAssignment::Random,
        ];
        for mapping in mappings {
            for filtering in filterings {
                for ports in assignments {
                    let udp_blocked = ports == PortAssignment::Unknown;
                    let profile = NatProfile { mapping, filtering, ports, udp_blocked };
                    let mut buf = [0; 16];
                    let used = postcard::to_slice(&profile, &mut buf).expect("fits");
                    assert!(used.len() <= 7);
                    if ports == PortAssignment::Preserving {
                        assert_eq!(used.len(), 2);
                    }
                    assert_eq!(postcard::from_bytes::<NatProfile>(used), Ok(profile));
                }
            }
        }
    }
}
