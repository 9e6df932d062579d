//! What the room wants done.

use core::net::SocketAddr;

use crate::api::{Event, StreamEnd};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::wire::message::{ChannelLimits, Message};
use crate::wire::packet::ChannelId;

/// What the room wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// A message for a peer, on the path in use.
    Send {
        /// Its link.
        peer: PeerKey,
        /// The message.
        message: Message<'static>,
    },
    /// The token for a relay, over a link to it that is there, or is opened at this address.
    Join {
        /// The relay.
        relay: PeerId,
        /// Where it is, as far as that is known.
        address: Option<SocketAddr>,
        /// The token.
        token: [u8; 16],
    },
    /// A channel leads to a peer: ask whether the peer is at its other end.
    Try {
        /// The peer.
        peer: PeerKey,
        /// The relay.
        via: PeerKey,
        /// The channel.
        channel: ChannelId,
        /// What it may carry.
        limits: ChannelLimits,
    },
    /// This channel has met a limit: any other path is better.
    Avoid {
        /// The peer at its other end.
        peer: PeerKey,
        /// The relay.
        via: PeerKey,
        /// The channel.
        channel: ChannelId,
    },
    /// Give the channel up: another way to the peer has to be found by others.
    Leave {
        /// The peer at its other end.
        peer: PeerKey,
        /// The relay.
        via: PeerKey,
        /// The channel.
        channel: ChannelId,
    },
    /// No relay carries for the two any more: the link ends.
    End {
        /// The peer.
        peer: PeerKey,
        /// Why.
        end: StreamEnd,
    },
    /// Tell the application.
    Event(Event),
}
