//! Words that every room shares: sockets and paths, what io hands in and takes out, verdicts on datagrams, the key of a
//! peer. They stand below all machines, so that none has to import another one for a word.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;
use core::ops::Range;

use crate::identity::PeerId;

/// A socket that io holds and the core knows by number.
///
/// The number tells the transport: those from [`SocketId::TCP_FIRST`] on are TCP connections, all others UDP sockets.
/// So whoever sees a path knows what it is made of, and io and core cannot disagree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u32);

impl SocketId {
    /// The lowest number of a TCP connection.
    pub const TCP_FIRST: Self = Self(1 << 31);

    /// Whether it is a TCP connection.
    pub const fn is_tcp(self) -> bool {
        self.0 >= Self::TCP_FIRST.0
    }
}

/// What carries packets between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// UDP, what everything is made for.
    Udp,
    /// TCP, to a supernode, where UDP does not work.
    Tcp,
}

/// One use of the network: from which socket to which remote address.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The socket.
    pub socket: SocketId,
    /// The other end, canonical (a v4-mapped IPv6 address is the IPv4 address).
    pub remote: SocketAddr,
    /// The local address to answer from; not part of equality.
    pub local: Option<IpAddr>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.socket == other.socket && self.remote == other.remote
    }
}
impl Eq for Path {}

/// Explicit congestion notification, as in the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ecn {
    /// ECT(0).
    Ect0,
    /// ECT(1).
    Ect1,
    /// Congestion experienced.
    Ce,
}

/// A datagram, or a train of equal ones, to be sent: the bytes are `buf[..len]` of the `poll_transmit` call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// How many bytes.
    pub len: usize,
    /// If set, the bytes are several datagrams of this size each (the last may be shorter): one GSO send.
    pub segment: Option<NonZeroU16>,
    /// ECN to put on them.
    pub ecn: Option<Ecn>,
}

/// What became of received datagrams. Exhaustive: io has to do what it says, so a new case must not pass unseen.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Received {
    /// Handled; drain the polls.
    Consumed,
    /// Relay: send `data[range]` of the call's own buffer to `path`, in datagrams of `stride` bytes (the last may be
    /// shorter), at most 64 of them.
    Forward {
        /// Where to.
        path: Path,
        /// Which bytes.
        range: Range<usize>,
        /// Size of each datagram but the last.
        stride: usize,
    },
    /// Not for us, not valid, or over a limit; counted, never an error.
    Dropped(DropReason),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// Empty, or cut short.
    Truncated,
    /// Larger than any datagram of ours.
    TooLong,
    /// Its header does not parse.
    Malformed,
    /// No link, handshake or channel has this index.
    UnknownReceiver,
    /// Its mac, tag or handshake is wrong.
    Unauthentic,
    /// Seen before, or too old to tell.
    Replayed,
    /// Over a rate or table limit.
    Limited,
    /// Came on a path where it may not.
    WrongPath,
    /// The rate or quota of a pair of peers, or of the relay as a whole, is used up.
    Quota,
    /// Authentic, but its contents make no sense.
    BadContents,
    /// An Init of a version that is not read here, or word that the receiver reads none of ours.
    OtherVersion,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "empty, or cut short",
            Self::TooLong => "longer than any datagram of the protocol",
            Self::Malformed => "its header cannot be read",
            Self::UnknownReceiver => "no link, handshake or channel has its index",
            Self::Unauthentic => "its mac, tag or handshake is wrong",
            Self::Replayed => "it came before, or is too old to tell",
            Self::Limited => "a rate or a table is at its limit",
            Self::WrongPath => "it came where it may not",
            Self::Quota => "the rate or the quota of a relay is used up",
            Self::BadContents => "its contents make no sense",
            Self::OtherVersion => "it is of another version of the protocol",
        })
    }
}

/// Addresses of this host, as far as io can tell. Exhaustive, since io makes it: of what it has found and
/// `..Network::default()`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// Bound UDP sockets and the addresses they are bound to. The first is the main one.
    pub sockets: Vec<(SocketId, SocketAddr)>,
    /// Addresses of own interfaces, loopback included, without ports.
    pub interfaces: Vec<IpAddr>,
    /// Ports that a router maps to the sockets. That they come and go is no change of the network: paths stay.
    pub mappings: Vec<Mapping>,
    /// Grows when the network may be another one although all addresses are the same: the host slept, or its default
    /// route moved.
    pub epoch: u32,
}

impl Network {
    /// The first socket of a family.
    pub(crate) fn main_socket(&self, family: Family) -> Option<(SocketId, SocketAddr)> {
        self.sockets.iter().find(|(_, bound)| Family::of(bound) == family).copied()
    }

    /// The address at which a router says that it maps a port to this socket.
    pub(crate) fn mapped_address(&self, socket: SocketId) -> Option<SocketAddr> {
        self.mappings.iter().find(|m| m.socket == socket && m.external.is_ipv4()).map(|m| m.external)
    }

    /// Whether an address is one of the host's own.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.interfaces.contains(&ip) || self.sockets.iter().any(|(_, bound)| bound.ip() == ip)
    }

    /// The main socket of the address's family.
    pub(crate) fn socket_for(&self, remote: SocketAddr) -> Option<SocketId> {
        self.main_socket(Family::of(&remote)).map(|(socket, _)| socket)
    }

    /// Whether an address is one of this node's own sockets.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.sockets.iter().any(|(_, bound)| {
            bound.port() == address.port()
                && (bound.ip() == address.ip()
                    || (bound.ip().is_unspecified() && self.interfaces.contains(&address.ip())))
        })
    }
}

/// A port that a router lets the internet use to reach a socket, as the router claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mapping {
    /// The socket.
    pub socket: SocketId,
    /// The address that it has for the internet.
    pub external: SocketAddr,
    /// How it was mapped.
    pub protocol: MappingProtocol,
}

/// How a router was asked to map a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MappingProtocol {
    /// PCP (RFC 6887).
    Pcp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

/// A node that announced itself on the local network. All of it is hearsay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LanNode {
    /// Who it says that it is.
    pub peer: PeerId,
    /// Where it says that it is.
    pub addresses: Vec<SocketAddr>,
    /// Whether it says that it is a supernode.
    pub is_supernode: bool,
}

/// A socket that the core asks io to open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SocketRequest(pub u32);

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What kind of socket the core asks for. For a kind that it does not know, io answers [`SocketRefused`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum SocketKind {
    /// UDP, on a port of the system's choice, where the main socket of the family is bound.
    Udp(Family),
    /// A TCP connection to this address, which carries packets as [`wire::frame`](crate::wire::frame) says. io gives up
    /// after 4 s.
    Tcp {
        /// Where to.
        remote: SocketAddr,
    },
}

/// io could not open the socket asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketRefused;

impl fmt::Display for SocketRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the socket could not be opened")
    }
}
impl core::error::Error for SocketRefused {}

/// A peer of this node: a slot and its generation, so that a late event never hits the next tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PeerKey {
    /// The slot.
    pub(crate) index: u32,
    /// How often the slot was used before.
    pub(crate) generation: u32,
}
