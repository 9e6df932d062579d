//! The peers of this node: for each the link to it and its paths, and the tables that find it.
//!
//! [`Peer`] is one of them: keys, paths, keep-alive and idleness (`state.rs`, `ways.rs`), changed only in here.
//! [`Peers`] holds them all. It begins handshakes and answers them (`initiate.rs`, `respond.rs`), opens what arrives
//! under their keys (`peers.rs`), asks and answers whether paths work (`validation.rs`), and seals what leaves
//! (`outbox.rs`), when it leaves, with the keys and on the path of that moment.
//!
//! What it wants of others it returns where it is one thing, and else says as [`Output`]s, in the order in which they
//! are to be carried out. Some of these come back to it: a question that is due after another one, or after a path is
//! chosen, is asked on the path of that moment. What is due of a peer comes in parts for the same reason (`due.rs`).
//!
//! A peer's life: it is entered when it is dialled, called, or its Init was admitted. Its link is up once a handshake
//! is finished: as initiator when the Response is authentic, as responder when the first packet under the new keys
//! comes. It goes when it is silent for too long, when nothing needs it, or with a goodbye. What hangs on a link
//! (channels, streams, a traversal, a registration) is other machines' business: the node tells them.

mod attempt;
mod carried;
mod due;
mod epochs;
mod indices;
mod initiate;
mod links;
#[cfg(test)]
mod links_tests;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod outbox;
mod outgoing;
mod output;
mod peers;
mod pinging;
mod pings;
mod respond;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod traffic;
mod validation;
mod versions;
mod ways;

pub(crate) use attempt::{AttemptRoute, Manner, Origin};
pub(crate) use due::Ended;
pub(crate) use outbox::MESSAGES_LEN_MAX;
pub(crate) use outgoing::{OUTGOING_MAX, Outgoing};
pub(crate) use output::Output;
pub(crate) use peers::Peers;
pub(crate) use respond::{Arrival, Request};
pub(crate) use state::Peer;
pub(crate) use traffic::LinkUse;
pub(crate) use ways::Arrived;
