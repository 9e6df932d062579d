//! The words in which a [`Node`](super::Node) and its caller talk: what goes in, what comes out.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::identity::PeerId;
use crate::wire::ServiceName;
use crate::wire::message::Load;

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

/// What became of received datagrams.
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
    /// A channel's rate or quota is used up.
    Quota,
    /// Authentic, but its contents make no sense.
    BadContents,
}

/// Addresses of this host, as far as io can tell.
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
pub struct Neighbor {
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

/// What kind of socket the core asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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

/// What a node is to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Registers at homes; does no duty for others.
    Leaf,
    /// Does handshake duty and relays. `advertise` are the addresses at which the internet reaches it.
    Supernode {
        /// Addresses for the advert; the first is the preferred one.
        advertise: Vec<SocketAddr>,
    },
    /// Begins as a leaf, and serves others as a supernode while dial-backs show that the internet can reach it.
    Auto,
}

/// Who may use a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everybody.
    Any,
    /// These peers. Nobody, when empty.
    Peers(BTreeSet<PeerId>),
}

impl Access {
    /// Whether `peer` is among them.
    pub fn allows(&self, peer: &PeerId) -> bool {
        match self {
            Self::Any => true,
            Self::Peers(peers) => peers.contains(peer),
        }
    }
}

/// How a node is set up. `Config::auto()`, `Config::leaf()` and `Config::supernode(..)` give the defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What the node is to others.
    pub role: Role,
    /// What it offers, and to whom.
    pub services: BTreeMap<ServiceName, Access>,
    /// Who may link to this node where no service lets them in: enough for `ping`, and for datagrams.
    pub contacts: Access,
    /// Most bits per second that a pair may have relayed, both ways together; 0 is unlimited.
    pub relay_rate_bps: u64,
    /// Most bytes that a channel may carry in a day for strangers; 0 is unlimited.
    pub relay_quota_bytes: u64,
    /// Most registered leaves.
    pub leaves_max: usize,
    /// Whether io announces this node on the local network and listens there for others, whom it tells by
    /// [`Node::handle_neighbor`](super::Node::handle_neighbor): then a call that knows no other way waits for them a
    /// moment. The announcement shows everybody on the LAN who this is.
    pub lan: bool,
    /// Most bits per second that this node relays for all together; 0 is unlimited. Pairs that want more than there is
    /// share it fairly.
    pub duty_rate_bps: u64,
    /// Most bytes that this node relays in 30 days; 0 is unlimited. They begin with the first byte relayed after the 30
    /// days before have ended, by the wall clock.
    pub duty_quota_bytes: u64,
}

impl Config {
    /// A leaf that offers nothing.
    pub fn leaf() -> Self {
        Self {
            role: Role::Leaf,
            services: BTreeMap::new(),
            contacts: Access::Peers(BTreeSet::new()),
            relay_rate_bps: 2_000_000,
            relay_quota_bytes: 1 << 30,
            leaves_max: 100_000,
            lan: false,
            duty_rate_bps: 0,
            duty_quota_bytes: 0,
        }
    }

    /// A node that serves others if it can, with small caps since nobody set it up for that: 20 Mbit/s, and 200 GB in 30
    /// days.
    pub fn auto() -> Self {
        Self { role: Role::Auto, duty_rate_bps: 20_000_000, duty_quota_bytes: 200_000_000_000, ..Self::leaf() }
    }

    /// A supernode reachable at these addresses.
    pub fn supernode(advertise: Vec<SocketAddr>) -> Self {
        Self { role: Role::Supernode { advertise }, ..Self::leaf() }
    }
}

/// Why a node cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// A supernode without an address, or with one that nobody can send to.
    Advertise,
    /// Saved state that is damaged. Nothing was changed.
    Saved,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Advertise => "a supernode needs an address that others can send to (--advertise HOST:PORT)",
            Self::Saved => "the saved state is damaged",
        })
    }
}
impl core::error::Error for ConfigError {}

/// One thing to keep for the next run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Save {
    /// The clock mark: no Init of an earlier run carried a later time. Microseconds of wall time.
    ClockMark(u64),
    /// The sequence number of the own advert and record.
    Sequence(u64),
    /// Supernodes worth trying first after a restart.
    Anchors(Vec<(PeerId, SocketAddr)>),
    /// What was relayed in the present 30 days; counted ahead, so that a crash forgets nothing.
    Relayed(Relayed),
    /// How long the router of a network keeps an idle UDP binding: the newest word on this network.
    Binding {
        /// The network, by a hash.
        network: [u8; 8],
        /// Milliseconds.
        lifetime_ms: u32,
    },
}

/// What a node relayed in a period of 30 days.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Relayed {
    /// When the period began: seconds since the Unix epoch.
    pub since_s: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What an earlier run asked to keep. `Saved::default()` on the first run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    /// See [`Save::ClockMark`].
    pub clock_mark: u64,
    /// See [`Save::Sequence`].
    pub sequence: u64,
    /// See [`Save::Anchors`].
    pub anchors: Vec<(PeerId, SocketAddr)>,
    /// See [`Save::Relayed`].
    pub relayed: Relayed,
    /// See [`Save::Binding`]: network and milliseconds, the newest last. [`Saved::keep_binding`] adds one.
    pub bindings: Vec<([u8; 8], u32)>,
}

/// Most networks in [`Saved::bindings`]. At the limit the oldest goes.
pub const BINDINGS_MAX: usize = 16;

impl Saved {
    /// Takes in a [`Save::Binding`].
    pub fn keep_binding(&mut self, network: [u8; 8], lifetime_ms: u32) {
        super::keepalive::keep_binding(&mut self.bindings, network, lifetime_ms);
    }
}

/// A stream of this node. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey(pub u64);

/// What a read gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// The peer finished: no more bytes will come.
    End,
    /// Nothing now; `Event::Readable` will tell.
    Blocked,
}

/// Why a stream call failed. The stream is unchanged unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// No such stream, or forgotten already.
    Unknown,
    /// The call does not fit: writing after `finish`, say.
    Finished,
    /// The stream has ended; the reason came as [`Event::StreamEnded`] or is this.
    Ended(StreamEnd),
    /// Nothing can be taken now; `Event::Writable` will tell.
    Blocked,
}

/// Why a stream ended before both sides finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// The peer could not be reached.
    Connect(ConnectError),
    /// The peer offers no such service.
    UnknownService,
    /// The peer offers the service, but not to us.
    NotAllowed,
    /// The peer could not reach the program behind the service.
    Unavailable,
    /// The peer reset the stream (its program closed hard) with this code.
    Reset(u32),
    /// The peer restarted: its streams are gone.
    PeerRestarted,
    /// The peer left or vanished.
    PeerGone,
}

/// Why a peer could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// This node knows no supernode: it needs a ticket or a `--bootstrap`.
    NoSupernode,
    /// No supernode asked knows the peer.
    UnknownPeer,
    /// The peer is known, but does not answer.
    Unreachable,
    /// The peer refuses us.
    Refused,
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// The peer is this node itself.
    OwnId,
    /// A weak key.
    WeakKey,
    /// A table is full.
    Limit,
    /// No such link.
    NotConnected,
    /// The datagram is too long, or its queue full.
    Datagram,
    /// The node is leaving.
    Leaving,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSupernode => "no supernode is known or answers",
            Self::UnknownPeer => "no supernode has a record of the peer",
            Self::Unreachable => "the peer does not answer",
            Self::Refused => "the peer refuses us",
        })
    }
}

impl core::error::Error for ConnectError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnId => "the peer is this node itself",
            Self::WeakKey => "the peer's key is weak",
            Self::Limit => "this node has too much open",
            Self::NotConnected => "there is no link to the peer",
            Self::Datagram => "the datagram is too long, or too many wait",
            Self::Leaving => "this node is leaving",
        })
    }
}
impl core::error::Error for CommandError {}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::UnknownService => f.write_str("the peer offers no such service"),
            Self::NotAllowed => f.write_str("the peer does not let us use this service"),
            Self::Unavailable => f.write_str("the program behind the service does not answer"),
            Self::Reset(code) => write!(f, "the peer reset the stream (code {code})"),
            Self::PeerRestarted => f.write_str("the peer restarted"),
            Self::PeerGone => f.write_str("the peer is gone"),
        }
    }
}
impl core::error::Error for StreamEnd {}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such stream"),
            Self::Finished => f.write_str("the stream is finished in this direction"),
            Self::Ended(end) => end.fmt(f),
            Self::Blocked => f.write_str("nothing can be taken now"),
        }
    }
}
impl core::error::Error for StreamError {}

/// How a link's packets travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathInfo {
    /// Straight to the peer.
    Direct {
        /// Its address.
        remote: SocketAddr,
    },
    /// Through a supernode.
    Relay {
        /// Which one.
        via: PeerId,
    },
}

impl PathInfo {
    /// Whether it is direct.
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

/// What happened, for the application and for io.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Event {
    /// The node can be used: a supernode is up, a leaf has its first home.
    Ready,
    /// A leaf lost its last home; it keeps trying.
    Homeless,
    /// A node in role [`Role::Auto`] began to serve others, or stopped.
    RoleChanged {
        /// Whether it is a supernode now.
        supernode: bool,
        /// The addresses that it advertises, or advertised.
        addresses: Vec<SocketAddr>,
    },
    /// A link to a peer is up, or moved to another path.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// The path in use now.
        path: PathInfo,
    },
    /// A link to a peer is gone.
    PeerGone {
        /// The peer.
        peer: PeerId,
    },
    /// `connect` or `ping` could not reach the peer.
    ConnectFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        error: ConnectError,
    },
    /// Answer to one `ping`.
    Pong {
        /// The peer.
        peer: PeerId,
        /// The number that `ping` gave.
        sequence: u64,
        /// Round trip.
        rtt: Duration,
        /// The path it took.
        path: PathInfo,
    },
    /// A peer that is allowed to opened a stream to a service. Answer with `accept` or `refuse`.
    StreamIncoming {
        /// The stream.
        stream: StreamKey,
        /// Who.
        peer: PeerId,
        /// What.
        service: ServiceName,
    },
    /// The peer accepted a stream of ours.
    StreamOpened {
        /// The stream.
        stream: StreamKey,
    },
    /// `read` has something to say.
    Readable {
        /// The stream.
        stream: StreamKey,
    },
    /// `write` takes bytes again.
    Writable {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer wants no more bytes of this stream (its reader closed); the reading side lives on.
    StreamStopped {
        /// The stream.
        stream: StreamKey,
    },
    /// The stream is over before both sides finished. It is forgotten.
    StreamEnded {
        /// The stream.
        stream: StreamKey,
        /// Why.
        end: StreamEnd,
    },
    /// A datagram waits: `recv_datagram`.
    Datagram {
        /// From whom.
        peer: PeerId,
    },
    /// io should open another socket and answer with `handle_socket`.
    OpenSocket {
        /// To be named in the answer.
        request: SocketRequest,
        /// What kind.
        kind: SocketKind,
    },
    /// io should close a socket that it opened on request.
    CloseSocket(SocketId),
    /// Keep this for the next run.
    Save(Save),
    /// `leave` has said its goodbyes: the caller may stop.
    Left,
}

/// Counters since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Bytes received, UDP payload.
    pub rx_bytes: u64,
    /// Datagrams sent, forwarded ones not included.
    pub tx_datagrams: u64,
    /// Bytes sent, UDP payload.
    pub tx_bytes: u64,
    /// Datagrams forwarded between legs of channels.
    pub forwarded_datagrams: u64,
    /// Bytes forwarded.
    pub forwarded_bytes: u64,
    /// Datagrams dropped, by [`DropReason`] in order of declaration.
    pub dropped: [u64; 10],
    /// TCP connections ended because there were too many, or because nobody accepts any here.
    pub refused_connections: u64,
    /// Introductions carried as a home.
    pub introductions: u64,
    /// Datagrams and UDP payload bytes, both ways, that introductions cost as a home.
    pub introduction_datagrams: u64,
    /// See `introduction_datagrams`.
    pub introduction_bytes: u64,
}

/// One peer, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// The path in use.
    pub path: PathInfo,
    /// Why the path is relayed; none where it is direct, or serves only the network.
    pub why: Option<crate::punch::RelayReason>,
    /// What carries packets on it: to the peer, or to the relay.
    pub transport: Transport,
    /// Smoothed round-trip time of the path in use, when measured.
    pub rtt: Option<Duration>,
    /// UDP payload bytes received on this link.
    pub rx_bytes: u64,
    /// UDP payload bytes sent on this link.
    pub tx_bytes: u64,
    /// Of these, bytes that went or came through a relay.
    pub relayed_bytes: u64,
    /// Whether the link only serves the network: a home, a registered leaf, another supernode.
    pub control: bool,
}

/// One supernode, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SupernodeStatus {
    /// Who.
    pub peer: PeerId,
    /// Its preferred address.
    pub address: SocketAddr,
    /// Its load, as last heard.
    pub load: Option<Load>,
}

/// What a node knows of itself, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// This node.
    pub id: PeerId,
    /// What it is to others at present: a leaf or a supernode.
    pub role: Role,
    /// Whether it chose that itself ([`Role::Auto`]).
    pub auto: bool,
    /// What stands between it and the internet.
    pub reachability: crate::reach::Reachability,
    /// What it relayed in the present 30 days, where [`Config::duty_quota_bytes`] counts that.
    pub relayed: Relayed,
    /// Addresses that supernodes saw us at, newest last, with who saw it.
    pub observed: Vec<(PeerId, SocketAddr)>,
    /// RFC 4787 mapping behaviour, when at least two supernodes gave evidence.
    pub mapping: Option<crate::reach::MappingBehavior>,
    /// Whether UDP gets through to supernodes, when that is known. Where it does not, TCP stands in.
    pub udp_works: Option<bool>,
    /// Whether a dial-back from a supernode that we never contacted arrived.
    pub reachable: Option<bool>,
    /// Homes at which we are registered.
    pub homes: Vec<(PeerId, SocketAddr)>,
    /// Nodes that announced themselves on the local network, each with an address that it named.
    pub neighbors: Vec<(PeerId, SocketAddr)>,
    /// Links.
    pub peers: Vec<PeerStatus>,
    /// Supernodes known.
    pub supernodes: Vec<SupernodeStatus>,
    /// Own load, as told to others.
    pub load: Load,
    /// Leaves registered here.
    pub leaves: usize,
    /// How long the router keeps an idle UDP binding, when it has been measured.
    pub binding_lifetime: Option<Duration>,
    /// After how much silence a keep-alive leaves.
    pub keepalive_interval: Duration,
    /// Channels open here.
    pub channels: usize,
    /// Counters.
    pub counters: Counters,
}
