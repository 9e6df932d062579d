//! The words in which a [`Node`](crate::Node) and its caller talk, by subject. They stand below all machines, which say
//! what happened in the same words.
//!
//! What the core says and will say more of is `#[non_exhaustive]`: events, reasons, errors, reports. What a caller
//! makes (`Config`), and what has no further case by its nature, is not, and says why.

mod config;
mod error;
mod event;
mod saved;
mod status;
mod stream;

pub use config::{Access, Config, ConfigError, Role};
pub use error::{CommandError, ConnectError};
pub use event::{Event, PathInfo};
pub(crate) use saved::keep_of_network;
pub use saved::{BINDINGS_MAX, Relayed, Save, Saved};
pub use status::{
    Counters, Ipv6, LimitedRelay, PeerStatus, Reachability, RelayReason, Serving, Status, SupernodeStatus,
    VolunteerStatus,
};
pub use stream::{Read, StreamEnd, StreamError, StreamKey};
