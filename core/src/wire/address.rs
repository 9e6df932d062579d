//! Socket addresses and candidates on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// Most candidates a peer may name.
pub const CANDIDATES_MAX: usize = 8;
/// Most of them that may be IPv6.
pub const CANDIDATES_V6_MAX: usize = 4;

/// A socket address: a tag, 4 or 16 address bytes, and the port, big-endian as everywhere on the internet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Address {
    /// IPv4.
    V4([u8; 4], [u8; 2]),
    /// IPv6. Never a v4-mapped one: addresses are made canonical once, at the edge.
    V6([u8; 16], [u8; 2]),
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let port = addr.port().to_be_bytes();
        match canonical(addr).ip() {
            IpAddr::V4(ip) => Self::V4(ip.octets(), port),
            IpAddr::V6(ip) => Self::V6(ip.octets(), port),
        }
    }
}

impl From<Address> for SocketAddr {
    fn from(addr: Address) -> Self {
        canonical(match addr {
            Address::V4(ip, port) => Self::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(port)),
            Address::V6(ip, port) => Self::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes(port)),
        })
    }
}

/// One form per address: a v4-mapped IPv6 address becomes the IPv4 address it means, and flow labels and scope ids
/// are dropped except the scope of a link-local address, which it cannot be reached without.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None if v6.ip().is_unicast_link_local() => {
                core::net::SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
            }
            None => SocketAddr::new((*v6.ip()).into(), v6.port()),
        },
    }
}

/// Whether anything may ever be sent to `addr` because a peer named it: a real unicast address and a port.
///
/// Loopback and private addresses pass: two peers may well live there. What keeps a peer from aiming us at a victim
/// is the limit per address, not this test.
pub fn is_sendable(addr: SocketAddr) -> bool {
    addr.port() != 0
        && match addr.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && ip.octets()[0] != 0,
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        }
}

/// A prefix that limits count by: IPv4 /24, IPv6 /48.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Prefix {
    /// The first 24 bits.
    V4([u8; 3]),
    /// The first 48 bits.
    V6([u8; 6]),
}

impl Prefix {
    /// The prefix of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let mut prefix = [0; 6];
                prefix.copy_from_slice(&ip.octets()[..6]);
                Self::V6(prefix)
            }
        }
    }

    /// The first address of it.
    pub fn first(self) -> IpAddr {
        self.with_rest(0)
    }

    /// The last one.
    pub fn last(self) -> IpAddr {
        self.with_rest(0xff)
    }

    fn with_rest(self, rest: u8) -> IpAddr {
        match self {
            Self::V4([a, b, c]) => IpAddr::from([a, b, c, rest]),
            Self::V6(prefix) => {
                let mut ip = [rest; 16];
                ip.iter_mut().zip(prefix).for_each(|(to, from)| *to = from);
                IpAddr::from(ip)
            }
        }
    }

    /// Whether limits per prefix are lifted: loopback and private ranges, where a whole test network may live.
    pub fn is_exempt(ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }

    /// The prefix that an address counts for, unless it [is exempt](Self::is_exempt).
    pub fn counted(ip: IpAddr) -> Option<Self> {
        (!Self::is_exempt(ip)).then(|| Self::of(ip))
    }
}

/// Which of the ranges an address is in that mean something else in each network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Range {
    /// None of them: it means the same everywhere.
    Public,
    /// This host.
    Loopback,
    /// This link.
    LinkLocal,
    /// RFC 1918, told apart by the first octet of the range, and RFC 4193, by 0.
    Private(u8),
}

impl Range {
    /// The range of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_link_local() => Self::LinkLocal,
            IpAddr::V4(ip) if ip.is_private() => Self::Private(ip.octets()[0]),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::LinkLocal,
            IpAddr::V6(ip) if ip.is_unique_local() => Self::Private(0),
            IpAddr::V4(_) | IpAddr::V6(_) => Self::Public,
        }
    }

    /// Whether an address may be believed that was heard from somebody at `over`, or through others where there is
    /// none: a private one means something only where it is said.
    pub fn is_heard_right(ip: IpAddr, over: Option<IpAddr>) -> bool {
        let range = Self::of(ip);
        range == Self::Public || over.is_some_and(|over| Self::of(over) == range)
    }
}

/// Where a candidate comes from (RFC 8445 §5.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of an own interface.
    Host,
    /// The address a supernode saw us at.
    ServerReflexive,
    /// An address at which the router maps a port for us by request.
    Mapped,
    /// An address a peer saw packets come from.
    PeerReflexive,
}

/// One place where a peer may be reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address.
    pub address: Address,
}

/// At most [`CANDIDATES_MAX`] candidates.
pub type Candidates = ArrayVec<Candidate, CANDIDATES_MAX>;

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Past cases: coturn, restund and others let other spellings of an address reach what its plain form could not.
    #[test]
    fn one_form_per_address() {
        assert_eq!(canonical(addr("[::ffff:192.0.2.1]:80")), addr("192.0.2.1:80"));
        assert_eq!(canonical(addr("192.0.2.1:80")), addr("192.0.2.1:80"));
        assert_eq!(canonical(addr("[2001:db8::1]:80")), addr("[2001:db8::1]:80"));
        // v4-compatible addresses are obsolete and mean nothing.
        assert_eq!(canonical(addr("[::192.0.2.1]:80")), addr("[::192.0.2.1]:80"));

        let v6 = |text: &str, flow, scope| {
            SocketAddr::from(core::net::SocketAddrV6::new(text.parse().expect("an address"), 80, flow, scope))
        };
        assert_eq!(canonical(v6("2001:db8::1", 7, 8)), v6("2001:db8::1", 0, 0));
        assert_eq!(canonical(v6("fe80::1", 7, 8)), v6("fe80::1", 0, 8));
        for text in ["[::ffff:10.0.0.1]:1", "[fe80::1%3]:2", "[2001:db8::9]:3", "127.0.0.1:4"] {
            let once = canonical(addr(text));
            assert_eq!(canonical(once), once);
        }
    }

    #[test]
    fn the_wire_has_one_form_too() {
        assert_eq!(Address::from(addr("[::ffff:192.0.2.1]:258")), Address::V4([192, 0, 2, 1], [1, 2]));
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xFF, 0xFF, 127, 0, 0, 1]);
        assert_eq!(SocketAddr::from(Address::V6(mapped, [0, 80])), addr("127.0.0.1:80"));
        for text in ["192.0.2.1:1", "[2001:db8::1]:65535", "0.0.0.0:0", "[::]:0"] {
            assert_eq!(SocketAddr::from(Address::from(addr(text))), addr(text));
        }
    }

    #[test]
    fn nothing_is_sent_where_nobody_is() {
        for text in [
            "192.0.2.1:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "239.9.9.9:1",
            "[::]:1",
            "[ff02::1]:1",
            "[2001:db8::1]:0",
        ] {
            assert!(!is_sendable(addr(text)), "{text}");
        }
        for text in ["192.0.2.1:1", "127.0.0.1:1", "10.0.0.1:1", "[::1]:1", "[fe80::1]:1", "[2001:db8::1]:1"] {
            assert!(is_sendable(addr(text)), "{text}");
        }
    }

    /// Whoever names an address in its mapped form gets no further than with the plain one.
    #[test]
    fn mapped_forms_are_judged_as_what_they_mean() {
        for text in ["[::ffff:0.0.0.0]:1", "[::ffff:224.0.0.1]:1", "[::ffff:255.255.255.255]:1"] {
            assert!(!is_sendable(canonical(addr(text))), "{text}");
        }
    }

    #[test]
    fn prefixes() {
        let prefix = |text: &str| Prefix::of(text.parse().expect("an address"));
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.255"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.77"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8:1::1"), prefix("2001:db8:1:ffff::2"));
        assert_ne!(prefix("2001:db8:1::1"), prefix("2001:db8:2::1"));
        assert_eq!(prefix("2001:db8:1::1"), Prefix::V6([0x20, 0x01, 0x0D, 0xB8, 0, 1]));
    }

    #[test]
    fn private_ranges_are_exempt_and_no_others() {
        let exempt = |text: &str| Prefix::is_exempt(text.parse().expect("an address"));
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.1",
            "192.168.1.1",
            "169.254.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.0.1",
        ] {
            assert!(exempt(text), "{text}");
        }
        for text in ["192.0.2.1", "172.32.0.1", "100.64.0.1", "2001:db8::1", "::ffff:8.8.8.8", "ff02::1", "::"] {
            assert!(!exempt(text), "{text}");
        }
    }
}
