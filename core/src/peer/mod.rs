//! The peers of this node: for each the link to it and its paths, and the tables that find it.
//!
//! [`Peer`] is one of them: keys, paths, keep-alive and idleness, changed by its methods, which return what they want
//! done. [`Peers`] holds them all and does what needs no other machine: it begins handshakes and answers them
//! (`handshake.rs`), opens what arrives under their keys (`table.rs`), and seals what leaves (`outbox.rs`), when it
//! leaves, with the keys and on the path of that moment.
//!
//! A peer's life: it is entered when it is dialled, called, or its Init was admitted. Its link is up once a handshake is
//! finished: as initiator when the Response is authentic, as responder when the first packet under the new keys comes.
//! It goes when it is silent for too long, when nothing needs it, or with a goodbye. What hangs on a link (channels,
//! streams, a traversal, a registration) is other machines' business: the node tells them.

mod attempt;
mod carried;
mod handshake;
mod indices;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod outbox;
mod outgoing;
mod peers;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod traffic;

pub(crate) use attempt::AttemptRoute;
pub(crate) use handshake::{Arrival, PENDING_MAX, Request, response_len};
pub(crate) use outbox::{ANSWERS_MAX, MESSAGES_LEN_MAX};
pub(crate) use outgoing::{OUTGOING_MAX, Outgoing};
pub(crate) use peers::Peers;
pub(crate) use state::{Arrived, OLD_EPOCH_AGE_MAX, Peer, UNCONFIRMED_AGE_MAX};
pub(crate) use traffic::{Standing, Traffic};
