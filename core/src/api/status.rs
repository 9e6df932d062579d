//! What a node knows of itself, its router, its peers and the network, for people and programs that ask.

use core::net::SocketAddr;
use core::time::Duration;

use super::config::Role;
use super::event::PathInfo;
use super::saved::Relayed;
use crate::identity::PeerId;
use crate::net::Transport;
use crate::wire::message::Load;
use crate::wire::nat::{FilteringBehavior, MappingBehavior, PortAssignment};

/// What is known of the way in by IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ipv6 {
    /// Where supernodes see us.
    pub address: SocketAddr,
    /// What the firewall lets in; `AddressAndPortDependent` is the usual stateful one. None is not known.
    pub filtering: Option<FilteringBehavior>,
}

/// What stands between this node and the internet, as far as it has found out. `None` is not known (yet).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Reachability {
    /// Whether a router changes our address on the way.
    pub translated: Option<bool>,
    /// RFC 4787 §4.1.
    pub mapping: Option<MappingBehavior>,
    /// RFC 4787 §5.
    pub filtering: Option<FilteringBehavior>,
    /// RFC 4787 §4.2.
    pub ports: PortAssignment,
    /// Whether it uses several external addresses for us at a time.
    pub pooled: Option<bool>,
    /// RFC 4787 §6: whether what we send to our own external address comes back.
    pub hairpinning: Option<bool>,
    /// Whether the router next to us is behind another one: the address that it claims is not where we are seen.
    pub second_nat: Option<bool>,
    /// Whether UDP works at all.
    pub udp: Option<bool>,
    /// The way in by IPv6; none if IPv6 does not work, or was not tried.
    pub v6: Option<Ipv6>,
    /// Where supernodes see the main sockets, and how many of them, most first.
    pub public_addresses: Vec<(SocketAddr, usize)>,
    /// Whether packets arrive that nobody here asked for.
    pub reachable: Option<bool>,
    /// How many supernodes the last examination rests on; with two it is provisional, from three on one may lie.
    pub witnesses: usize,
    /// How long ago that was; none if it was in an earlier run, or never.
    pub age: Option<Duration>,
}

/// Why a link is relayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum RelayReason {
    /// Nothing has been tried yet, or the peer has not told where it is.
    NotTriedYet,
    /// A direct path is being tried.
    Trying,
    /// Too many attempts at the peer's addresses, or at others near them, were not answered lately: it waits its turn.
    BudgetHeld {
        /// Its turn comes after this at the latest, unless others are before it. Sooner, if what is under way succeeds.
        wait: Duration,
    },
    /// Both routers use another port for every packet, and neither's can be foreseen: trying would be a waste.
    BothRandom,
    /// One of the two gets no UDP out, and they are not on one LAN.
    UdpBlocked,
    /// Everything that may help was tried, and nothing worked; it is tried again now and then.
    TriedInVain,
}

/// Counters since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
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
    /// Bytes forwarded, UDP payload.
    pub forwarded_bytes: u64,
    /// Datagrams dropped, by [`DropReason`](crate::net::DropReason) in order of declaration.
    pub dropped: [u64; 11],
    /// TCP connections ended because there were too many, or because nobody accepts any here.
    pub refused_connections: u64,
    /// Introductions carried as a home.
    pub introductions: u64,
    /// Datagrams, both ways, that introductions cost as a home.
    pub introduction_datagrams: u64,
    /// UDP payload bytes, both ways, that introductions cost as a home.
    pub introduction_bytes: u64,
}

/// One peer, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// The path in use.
    pub path: PathInfo,
    /// Why the path is relayed; none where it is direct, or serves only the network.
    pub why: Option<RelayReason>,
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

impl PeerStatus {
    /// A peer on this path, of whose link nothing else is known.
    pub const fn new(peer: PeerId, path: PathInfo, transport: Transport) -> Self {
        Self { peer, path, why: None, transport, rtt: None, rx_bytes: 0, tx_bytes: 0, relayed_bytes: 0, control: false }
    }
}

/// One supernode, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SupernodeStatus {
    /// Who.
    pub peer: PeerId,
    /// Its preferred address.
    pub address: SocketAddr,
    /// Its load, as last heard.
    pub load: Option<Load>,
}

impl SupernodeStatus {
    /// A supernode at this address, of whose load nothing was heard.
    pub const fn new(peer: PeerId, address: SocketAddr) -> Self {
        Self { peer, address, load: None }
    }
}

/// A relay that has said that it carries no more for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LimitedRelay {
    /// The relay.
    pub relay: PeerId,
    /// For this node and this peer, since their bytes of the day are used up; for nobody, where none is named, since its
    /// own are: of 30 days, or of a volunteer's day.
    pub peer: Option<PeerId>,
    /// It carries again after this.
    pub retry_after: Duration,
}

impl LimitedRelay {
    /// One that carries again after so long.
    pub const fn new(relay: PeerId, peer: Option<PeerId>, retry_after: Duration) -> Self {
        Self { relay, peer, retry_after }
    }
}

/// What a node does that is to relay for strangers although it is a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VolunteerStatus {
    /// Whether it does now: its router allows it, it is no supernode, and its day's bytes are not used up.
    pub on: bool,
    /// How many strangers have a link to it for that.
    pub guests: usize,
    /// What it relayed in its present day.
    pub relayed: Relayed,
}

/// What a supernode does as a home and as one among others, for its operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Serving {
    /// Leaves that it takes, at most.
    pub places: u32,
    /// How full all supernodes are together of whom that is known, this one among them: leaves by places, in millionths.
    pub mean_utilisation_ppm: u32,
    /// Leaves that were refused since the start, because there was no room or others had more.
    pub refused: u64,
    /// Leaves that were asked to go to another home since the start.
    pub sent_elsewhere: u64,
    /// Supernodes that it gossips with, and is linked to.
    pub neighbours: usize,
    /// Other supernodes that it is linked to.
    pub resting: usize,
    /// Records that it keeps, of its own leaves and of others'.
    pub records: usize,
    /// Adverts that it was told of and passes on to nobody, since it has not been where they say.
    pub unvisited: usize,
    /// An address of its own at which others say that they have been in vain within the last hour, and in how many networks
    /// they are.
    pub unreached: Option<(SocketAddr, usize)>,
}

/// What a node knows of itself, for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This node.
    pub id: PeerId,
    /// What it is to others at present: a leaf or a supernode.
    pub role: Role,
    /// Whether it chose that itself ([`Role::Auto`]).
    pub auto: bool,
    /// What stands between it and the internet.
    pub reachability: Reachability,
    /// What it relayed in the present 30 days, where that is counted
    /// ([`Config::relay_total_quota_bytes`](super::Config::relay_total_quota_bytes)).
    pub relayed: Relayed,
    /// Addresses that supernodes saw us at, newest last, with who saw it.
    pub observed: Vec<(PeerId, SocketAddr)>,
    /// RFC 4787 mapping behaviour, when at least two supernodes gave evidence.
    pub mapping: Option<MappingBehavior>,
    /// Whether UDP gets through to supernodes, when that is known. Where it does not, TCP stands in.
    pub udp_works: Option<bool>,
    /// Whether a dial-back from a supernode that we never contacted arrived.
    pub reachable: Option<bool>,
    /// Homes at which we are registered.
    pub homes: Vec<(PeerId, SocketAddr)>,
    /// Nodes that announced themselves on the local network, each with an address that it named.
    pub lan_nodes: Vec<(PeerId, SocketAddr)>,
    /// Links.
    pub peers: Vec<PeerStatus>,
    /// Supernodes known.
    pub supernodes: Vec<SupernodeStatus>,
    /// Relays that carry no more for now.
    pub limited_relays: Vec<LimitedRelay>,
    /// Own load, as told to others.
    pub load: Load,
    /// Leaves registered here.
    pub leaves: usize,
    /// What else it does as a supernode, if it is one.
    pub serving: Option<Serving>,
    /// How long the router keeps an idle UDP binding, when it has been measured.
    pub binding_lifetime: Option<Duration>,
    /// After how much silence a keep-alive leaves.
    pub keepalive_interval: Duration,
    /// What this node does as a volunteer, if it is to be one.
    pub volunteer: Option<VolunteerStatus>,
    /// Leaves registered here that volunteer.
    pub volunteers: usize,
    /// Channels open here.
    pub channels: usize,
    /// Counters.
    pub counters: Counters,
}

impl Status {
    /// A node that knows nothing yet.
    pub fn new(id: PeerId, role: Role, keepalive_interval: Duration) -> Self {
        Self {
            id,
            role,
            auto: false,
            reachability: Reachability::default(),
            relayed: Relayed::default(),
            observed: Vec::new(),
            mapping: None,
            udp_works: None,
            reachable: None,
            homes: Vec::new(),
            lan_nodes: Vec::new(),
            peers: Vec::new(),
            supernodes: Vec::new(),
            limited_relays: Vec::new(),
            load: Load::default(),
            leaves: 0,
            serving: None,
            binding_lifetime: None,
            keepalive_interval,
            volunteer: None,
            volunteers: 0,
            channels: 0,
            counters: Counters::default(),
        }
    }
}
