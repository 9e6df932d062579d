//! The handfast protocol as pure state machines.
//!
//! One public machine, [`Node`], composes the rooms below. It owns no socket, clock, thread or file: everything it
//! knows it was told by a call, and everything it wants it says through its `poll_*` methods. Same seed, same calls,
//! same bytes.
#![forbid(unsafe_code)]

mod action;
pub mod identity;
pub mod link;
pub mod random;
pub mod ticket;
pub mod time;
pub mod wire;

pub mod advert;
pub mod directory;
pub mod gossip;
pub mod home;
pub mod introduce;
pub mod keepalive;
pub mod path;
pub mod portmap;
pub mod punch;
pub mod quality;
pub mod reach;
pub mod relay;
pub mod stream;

pub mod node;

pub use identity::{PeerId, SecretKey};
pub use node::{
    Access, CommandError, Config, ConfigError, ConnectError, Counters, DropReason, Ecn, Event, Family, Mapping,
    MappingProtocol, Neighbor, Network, Node, Path, PathInfo, PeerStatus, Read, Received, Relayed, Role, Save, Saved,
    SocketId, SocketKind, SocketRefused, SocketRequest, Status, StreamEnd, StreamError, StreamKey, SupernodeStatus,
    Transmit, Transport,
};
pub use punch::RelayReason;
pub use ticket::Ticket;
pub use time::{Instant, WallTime};
pub use wire::{DATAGRAM_LEN_MAX, ServiceName};
