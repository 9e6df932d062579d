//! How a node is set up: what it is to others, what it offers, and within what limits.

use core::fmt;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::identity::PeerId;
use crate::wire::ServiceName;

/// What a node is to others.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
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

/// Who may use a service. Exhaustive: nobody who passes on who is let in may pass over a case.
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
///
/// Exhaustive, so that it can be written as what differs from these: `Config { lan: true, ..Config::leaf() }`. Whoever
/// names all fields has to look again when one is added. Programs that use io set it up by `Options`, which have no
/// fields to name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What the node is to others.
    pub role: Role,
    /// What it offers, and to whom.
    pub services: BTreeMap<ServiceName, Access>,
    /// Who may link to this node where no service lets them in: enough for `ping`, and for datagrams.
    pub contacts: Access,
    /// Most bits per second that a pair of peers may have relayed, both ways together; 0 is unlimited.
    pub relay_rate_bps: u64,
    /// Most bytes that a pair of peers may have relayed in a day, both ways together and whatever the number of its
    /// channels; 0 is unlimited.
    pub relay_quota_bytes: u64,
    /// Most registered leaves.
    pub leaves_max: usize,
    /// Most supernodes that a supernode knows: while there are no more, all of them; at least 64.
    pub table_max: usize,
    /// Whether io announces this node on the local network and listens there for others, whom it tells by
    /// [`Node::handle_lan_node`](crate::Node::handle_lan_node): then a call that knows no other way waits for them a
    /// moment. The announcement shows everybody on the LAN who this is.
    pub lan: bool,
    /// Most bits per second that this node relays for all together; 0 is unlimited. Pairs that want more than there is
    /// share it fairly.
    pub relay_total_rate_bps: u64,
    /// Most bytes that this node relays in 30 days; 0 is unlimited. They begin with the first byte relayed after the 30
    /// days before have ended, by the wall clock.
    pub relay_total_quota_bytes: u64,
    /// Whether a node that is no supernode relays for strangers all the same, where its router maps
    /// endpoint-independently. They learn its address as its homes see it, and get nothing else.
    pub volunteer: bool,
    /// Most bits per second that it relays then, for all together; 0 is unlimited.
    pub volunteer_rate_bps: u64,
    /// Most bytes that it relays then in a day; 0 is unlimited.
    pub volunteer_quota_bytes: u64,
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
            table_max: 1_024,
            lan: false,
            relay_total_rate_bps: 0,
            relay_total_quota_bytes: 0,
            volunteer: false,
            volunteer_rate_bps: 1_000_000,
            volunteer_quota_bytes: 1_000_000_000,
        }
    }

    /// A node that serves others if it can, with small caps since nobody set it up for that: 20 Mbit/s, and 200 GB in
    /// 30 days.
    pub fn auto() -> Self {
        Self {
            role: Role::Auto,
            relay_total_rate_bps: 20_000_000,
            relay_total_quota_bytes: 200_000_000_000,
            ..Self::leaf()
        }
    }

    /// A supernode reachable at these addresses.
    pub fn supernode(advertise: Vec<SocketAddr>) -> Self {
        Self { role: Role::Supernode { advertise }, ..Self::leaf() }
    }
}

/// Why a node cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A supernode without an address, or with one that nobody can send to.
    Advertise,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Advertise => "a supernode needs an address that others can send to",
        })
    }
}
impl core::error::Error for ConfigError {}
