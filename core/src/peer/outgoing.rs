//! What waits to be sent.

use crate::net::{Path, PeerKey};
use crate::path::Route;
use crate::wire::packet::{ChannelId, Kind};

/// Most intents queued. At the limit new ones are dropped: every one of them is repeated by whoever needs it.
pub(crate) const OUTGOING_MAX: usize = 65_536;

/// One thing to send, encoded only when it is polled: what leaves carries the keys and the path of that moment.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A packet that is complete already: a handshake's, a goodbye, a probe, a Loop.
    Raw { path: Path, bytes: Box<[u8]> },
    /// The same through a channel.
    RawRelayed { channel: ChannelId, via: PeerKey, bytes: Box<[u8]> },
    /// Encoded messages; on the path in use where `route` is none.
    Messages {
        peer: PeerKey,
        route: Option<Route>,
        bytes: Box<[u8]>,
        /// An answer is awaited: silence means trouble.
        awaits: bool,
    },
    /// A keep-alive; on the path in use where `route` is none.
    Beat { peer: PeerKey, kind: Kind, route: Option<Route> },
}
