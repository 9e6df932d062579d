//! Port mapping: asks this host's router to let the internet in at a port of ours, by PCP (RFC 6887), NAT-PMP
//! (RFC 6886) or UPnP-IGD, for IPv4 a mapped port, for IPv6 a hole in the firewall.
//!
//! [`Mapper`] is handed [`Wish`]es (which port of which own address, behind which gateway), the datagrams that came
//! from a gateway, what UPnP gave (an HTTP affair on a thread of io's, told as one more protocol's [`UpnpAnswer`]) and
//! the time. It gives back datagrams to send, [`UpnpOrder`]s, [`Event`]s, the [`Mapping`]s that stand, and a [`Report`]
//! of what each protocol said.
//!
//! Each wish is one `Lease`, and its life is this: PCP is asked; if it is silent for [`NAT_PMP_AFTER`], or refuses, or
//! the server speaks NAT-PMP only, then NAT-PMP, which shares the port; if both fail, UPnP; if all fail, all of it
//! again after a while. What was granted is asked for again at half its time, and at least every [`LOOK_EVERY`]: a
//! router that was rebooted or has another address says so in no other way that can be relied on. What is no more
//! granted is lost, and sought anew. At the end mappings are given back, within [`RELEASE_MAX`].
//!
//! The mapper only reports. A router may lie about its address, or stand behind another router: whether anybody gets
//! in at the address it claims is found out by dial-backs, and supernodes say which address they see. Only the
//! gateway itself is believed, at its port [`PORT`]; PCP's answers need the mapping's nonce besides.

mod lease;
mod mapper;
pub mod natpmp;
pub mod pcp;
#[cfg(test)]
mod tests;

use core::fmt;
use core::net::{IpAddr, SocketAddr, SocketAddrV4};
use core::time::Duration;

use arrayvec::ArrayVec;

pub use mapper::Mapper;

use crate::net::SocketId;
pub use crate::net::{Mapping, MappingProtocol};

/// Where routers listen for PCP and NAT-PMP (RFC 6887 §19.1).
pub const PORT: u16 = 5351;
/// Where they announce that they lost their mappings, to 224.0.0.1 (RFC 6886 §3.2.1, RFC 6887 §14.1.3).
pub const ANNOUNCE_PORT: u16 = 5350;
/// Most wishes heeded; further ones are ignored.
pub const WISHES_MAX: usize = 8;
/// How long mappings are asked for, in seconds: RFC 6886 §3.3 recommends two hours.
pub const LIFETIME_S: u32 = 7_200;
/// A silent PCP server is given this start before NAT-PMP is asked too. A router on the same wire answers at once.
pub const NAT_PMP_AFTER: Duration = Duration::from_secs(1);
/// A mapping is asked for again at least this often, whatever its lifetime: that is how a reboot or another external
/// address is noticed. Some hundred bytes that never leave the LAN.
pub const LOOK_EVERY: Duration = Duration::from_secs(120);
/// The same for UPnP, where it takes two HTTP requests.
pub const LOOK_EVERY_UPNP: Duration = Duration::from_secs(600);
/// How long giving mappings back may take.
pub const RELEASE_MAX: Duration = Duration::from_millis(600);

/// A port that the internet shall reach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wish {
    /// The socket that is bound to the port.
    pub socket: SocketId,
    /// The own address that the gateway sees, and the port. IPv4 is mapped, IPv6 gets a hole in the firewall.
    pub internal: SocketAddr,
    /// The router, with port [`PORT`]. `None` where it is not known: then only UPnP is asked, which finds it by
    /// itself.
    pub gateway: Option<SocketAddr>,
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Transmit {
    /// For the wish with this internal address: PCP insists that requests come from there.
    pub internal: SocketAddr,
    /// The gateway.
    pub to: SocketAddr,
    /// The bytes.
    pub data: ArrayVec<u8, { pcp::MAP_LEN }>,
}

/// Something for UPnP to do; each is answered once by [`Mapper::handle_upnp`]. Exhaustive: a new order must not go
/// unanswered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum UpnpOrder {
    /// Map a UDP port, or keep it mapped. Any answer but [`UpnpAnswer::Unmapped`] ends it.
    Map {
        /// Own address and port.
        internal: SocketAddrV4,
        /// The external port wished for; any other will do if it is taken.
        external_port: u16,
        /// For how long, in seconds.
        lifetime_s: u32,
    },
    /// End a mapping. Answer [`UpnpAnswer::Unmapped`].
    Unmap {
        /// Own address and port.
        internal: SocketAddrV4,
        /// The external port.
        external_port: u16,
    },
}

/// What UPnP gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpnpAnswer {
    /// The port is mapped.
    Mapped {
        /// External address and port, as the router claims.
        external: SocketAddrV4,
        /// For how long, in seconds; 0 is until it is ended.
        lifetime_s: u32,
    },
    /// There is no such router, or it gives no usable answer.
    NoGateway,
    /// The router refuses, with UPnP's error code; 0 if it gave none.
    Refused(u16),
    /// The mapping was ended, or could not be.
    Unmapped,
}

/// What one protocol came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Outcome {
    /// Not asked (another one worked), or not answered yet.
    #[default]
    Unknown,
    /// Nobody speaks it.
    None,
    /// The router refuses, with the protocol's own code; see [`MappingProtocol::refusal`].
    Refused(u16),
    /// The router has mapped a port, and claims that this is its address.
    Mapped(SocketAddr),
}

/// What became of the wishes, for `doctor` and `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The IPv4 gateway asked.
    pub gateway: Option<IpAddr>,
    /// What UPnP-IGD came to.
    pub upnp: Outcome,
    /// What NAT-PMP came to.
    pub nat_pmp: Outcome,
    /// What PCP came to.
    pub pcp: Outcome,
    /// IPv6: own addresses for which PCP was asked to open the firewall, and what it came to.
    pub pinholes: Vec<(SocketAddr, Outcome)>,
}

impl Report {
    /// The external address that the router claims, if it mapped a port.
    pub fn external(&self) -> Option<SocketAddr> {
        [self.pcp, self.nat_pmp, self.upnp].into_iter().find_map(|outcome| match outcome {
            Outcome::Mapped(external) => Some(external),
            Outcome::Unknown | Outcome::None | Outcome::Refused(_) => None,
        })
    }

    /// Whether IPv4 is decided: a port is mapped, or every protocol was asked in vain, or there is nothing to ask.
    pub fn is_settled(&self) -> bool {
        self.external().is_some() || ![self.pcp, self.nat_pmp, self.upnp].contains(&Outcome::Unknown)
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A port is mapped, or mapped elsewhere now.
    Mapped {
        /// The mapping.
        mapping: Mapping,
        /// Own address and port.
        internal: SocketAddr,
        /// For how long; `None` is until it is ended.
        lifetime: Option<Duration>,
    },
    /// A mapping is gone.
    Lost {
        /// What it was.
        mapping: Mapping,
    },
    /// A router refuses.
    Refused {
        /// By which protocol.
        protocol: MappingProtocol,
        /// With which code.
        code: u16,
    },
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

impl MappingProtocol {
    /// What a code of a refusal says, in a few words.
    pub const fn refusal(self, code: u16) -> &'static str {
        match (self, code) {
            // RFC 6887 §7.4.
            (Self::Pcp | Self::NatPmp, 1) => "another version",
            (Self::Pcp | Self::NatPmp, 2) => "not authorized",
            (Self::Pcp, 3 | 6) => "malformed request",
            (Self::Pcp, 4) | (Self::NatPmp, 5) => "mapping is not offered",
            (Self::Pcp, 5) => "unsupported option",
            (Self::Pcp, 7) | (Self::NatPmp, natpmp::NETWORK_FAILURE) => "the router has no network",
            (Self::Pcp, 8) | (Self::NatPmp, 4) => "out of resources",
            (Self::Pcp, 9) => "UDP is not offered",
            (Self::Pcp, 10) => "quota exceeded",
            (Self::Pcp, 11) => "no external port",
            (Self::Pcp, 12) => "another router stands between",
            (Self::Pcp, 13) => "too many peers",
            // UPnP Device Architecture §3.2.2, WANIPConnection:1 §2.4.16.
            (Self::Upnp, 401) => "mapping is not offered",
            (Self::Upnp, 402) => "malformed request",
            (Self::Upnp, 501) => "action failed",
            (Self::Upnp, 606) => "not authorized",
            (Self::Upnp, 718) => "conflict with another mapping",
            (Self::Upnp, 724) => "external and internal port must be the same",
            (Self::Upnp, 725) => "only permanent mappings",
            (Self::Upnp, 728) => "no ports left",
            _ => "refused",
        }
    }
}
