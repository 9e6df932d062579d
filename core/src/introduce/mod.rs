//! Introductions: how two peers that know only each other's keys get a link.
//!
//! Three parts play, each in a file of its own. The **caller** ([`Calls`]) finds out where the peer is at home, wraps
//! its Init for the peer (with its candidates inside, sealed) in an introduction, and repeats it, home by home, until
//! an answer comes. The **home** ([`Introductions`]) opens a channel for the two, carries the Init to its leaf and the
//! Response back, and sees neither. When the introduction came as the early message of the caller's own Init, the home
//! keeps its Response back for a moment, so that one round trip brings both answers. The **callee** ([`judge`],
//! [`reply`]) decides by the caller's identity: an accepted peer gets its candidates, a refused one a reason.
//!
//! Everything may be lost, so everything may come twice: the ephemeral key of the inner Init names a call, at the home
//! and at the callee, and the same call gets the same answer.
//!
//! The parts never touch one another, since they are at different nodes; one node may be all three at the same time.
//! Links, handshakes, channels and lookups belong to others: the parts say what they want of them, and the node tells
//! what came of it.

mod callee;
mod caller;
mod home;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod output;

use core::net::SocketAddr;

pub(crate) use self::callee::{Answered, Judgement, judge, reply, wanted};
pub(crate) use self::caller::{Calls, answered_index};
pub(crate) use self::home::{Asked, HomeOutput, Introductions, View};
pub(crate) use self::output::{AfterFailure, CallOutput, Known, LinkLeft, LookupFailure};
use crate::identity::PeerId;
use crate::link::Accepted;
use crate::net::Path;
use crate::peer::MESSAGES_LEN_MAX;
use crate::wire::message::{self, Message};
use crate::wire::packet::Packet;

/// A home of a peer, and where it is.
pub(crate) type Home = (PeerId, SocketAddr);

/// The caller's own Init, kept while the callee is asked: what it takes to answer it.
pub(crate) struct HeldInit {
    /// It was opened.
    pub(crate) accepted: Accepted,
    /// Where it came from.
    pub(crate) path: Path,
    /// How long it was.
    pub(crate) init_len: usize,
}

/// The ephemeral key in a Noise message 1, which names a call.
pub(crate) fn ephemeral_of(init: &[u8]) -> Option<[u8; 32]> {
    match Packet::decode(init) {
        Ok(Packet::Init { rest, .. }) => rest.first_chunk::<32>().copied(),
        _ => None,
    }
}

/// A message as it goes over a link; none if it is too long.
fn encoded(message: &Message<'_>) -> Option<Box<[u8]>> {
    let mut buf = [0; MESSAGES_LEN_MAX];
    message::encode(message, &mut buf).map(|len| buf[..len].into())
}
