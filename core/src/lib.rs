//! The handfast protocol as pure state machines.
//!
//! One public machine, [`Node`], composes the rooms below. It owns no socket, clock, thread or file: everything it
//! knows it was told by a call, and everything it wants it says through its `poll_*` methods. Same seed, same calls,
//! same bytes.
#![forbid(unsafe_code)]
#![warn(clippy::too_many_lines, clippy::too_many_arguments, clippy::missing_errors_doc, clippy::missing_panics_doc)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "numbers that tests make small"))]

pub mod api;
pub mod identity;
pub mod net;
pub mod ticket;
pub mod time;
pub mod wire;

pub mod portmap;

mod account;
mod introduce;
mod keepalive;
mod lan;
mod link;
mod nat;
mod node;
#[cfg(any(test, feature = "operations"))]
mod operations;
mod overlay;
mod path;
mod peer;
mod queue;
mod random;
mod relay;
mod report;
mod stream;
mod transport;
mod traverse;

pub use api::{
    Access, CommandError, Config, ConfigError, ConnectError, Counters, Event, LimitedRelay, PathInfo, PeerStatus, Read,
    RelayReason, Relayed, Role, Save, Saved, Serving, Status, StreamEnd, StreamError, StreamKey, SupernodeStatus,
    VolunteerStatus,
};
pub use identity::{PeerId, SecretKey};
pub use net::{
    DropReason, Ecn, Family, LanNode, Mapping, MappingProtocol, Network, Path, Received, SocketId, SocketKind,
    SocketRefused, SocketRequest, Transmit, Transport,
};
pub use node::{DATAGRAM_DATA_MAX, Node};
pub use ticket::Ticket;
pub use time::{Instant, WallTime};
pub use wire::message::RelayLimit;
pub use wire::{DATAGRAM_LEN_MAX, ServiceName};

/// What only fuzz targets, benches and tests of single parts need. No promise holds for it.
#[doc(hidden)]
pub mod internal {
    pub use crate::link::{
        Accepted, Admission, Epoch, Gate, Identity, InitFixed, Initiation, Macs, PeerKeys, ResponseFixed,
        TransportKeys, accept, initiate, open_cookie,
    };
    pub use crate::overlay::advert::{Advert, Capabilities};
    pub use crate::overlay::directory::Record;
    pub use crate::random::KeyRng;
    pub use crate::stream::{LinkEvent, LinkStreams, LocalStream, PACKET_LEN_MIN, Side};

    /// Each machine driven alone: bytes are operations.
    #[cfg(any(test, feature = "operations"))]
    pub mod operations {
        pub use crate::account::operations::drive as account;
        pub use crate::introduce::operations::{drive_calls as calls, drive_introductions as introductions};
        pub use crate::keepalive::operations::drive as measuring;
        pub use crate::lan::operations::drive as lan;
        pub use crate::nat::operations::drive as nat;
        pub use crate::nat::probe_replies::operations::drive as probe_replies;
        pub use crate::overlay::operations::drive as overlay;
        pub use crate::peer::operations::drive as peers;
        pub use crate::relay::operations::drive as relay;
        pub use crate::stream::operations::drive as application;
        pub use crate::transport::operations::drive as transport;
        pub use crate::traverse::operations::drive as traverse;
    }
}
