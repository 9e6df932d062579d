//! What a room of the node wants done: small intents that the node carries out.

use core::net::SocketAddr;

use crate::api::Event;
use crate::identity::PeerId;

/// One intent. Rooms push them to a queue that they are handed; the node drains it before its call returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Send encoded messages over the link to this peer, as one Data packet; dropped if there is no link.
    Send {
        /// To whom.
        to: PeerId,
        /// One or more encoded [`Message`](crate::wire::message::Message)s, at most 1 100 bytes.
        messages: Box<[u8]>,
    },
    /// Open a link to a supernode at this address if there is none; `on_link_up` or `on_link_down` follows. Where a
    /// link is up already, `on_link_up` comes at once.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
    },
    /// Open a link to this address, from which no packet of the peer ever came here, with
    /// [`Message::DialBack`](crate::wire::message::Message::DialBack) as its early message. Nobody waits for it; the
    /// node closes it when nothing else needs it.
    DialBack {
        /// Whom.
        peer: PeerId,
        /// Where another supernode sees it.
        address: SocketAddr,
        /// What it waits for.
        nonce: [u8; 8],
    },
    /// The room needs the link to this peer no longer; the node closes it when nothing else does.
    Release {
        /// Whose.
        peer: PeerId,
    },
    /// Tell the caller.
    Event(Event),
}
