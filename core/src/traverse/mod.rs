//! Hole punching: which addresses to try for a peer, how, when, and how often.
//!
//! Both peers know each other's candidates and router profiles from the introduction. [`choose`] makes a [`Strategy`]
//! of the two profiles and the number of the attempt, the same one on both sides, cheapest first:
//!
//! - *Plain*: both send connectivity checks to all candidates at the same time, over the main sockets ([`Checks`], RFC
//!   8445 §6.1.2.5). A check is a Data packet with a challenge, sealed under the new link's keys, so what arrives is
//!   authentic; its source may be an address nobody named (a peer-reflexive candidate, RFC 8445 §7.3.1.3), which is
//!   then checked too.
//! - *Predict*: a router that counts its ports up is looked at an instant before the checks leave ([`prediction`]).
//! - *Birthday*: one side holds many sockets open, the other guesses ports ([`birthday`]).
//! - *Relay only*: nothing would help, and nothing is sent.
//!
//! The first path that answers a challenge wins; [`crate::path`] does the rest, and data flows by the relay all the
//! while. What is more than plain is an [`Effort`], which both sides agree on, step by step, through the relay.
//!
//! A peer could name a victim's address as its own. [`Exposure`](crate::account::Exposure) gives an address ten packets
//! and one KiB; beyond that a home of ours must have attested that the peer is there, and
//! [`Account`](crate::account::Account) counts the attempts per prefix.
//!
//! # The machine
//!
//! [`Traversal`] does all this for all user links. For each it keeps, from the first word of the peer's addresses to
//! the end of the link, what the peer said, which traversal attempt it is, the check list and the effort under way,
//! when to try again, and what the addresses that the peer named have got. For every call about a peer it is told in a
//! [`Case`] how the link is and what this node knows of itself; it answers with [`Output`]s, to be carried out in their
//! order, and with a deadline for the peer ([`Traversal::poll_timeout_of`]). A relayed link tries again after 4 s, then
//! less and less often ([`Target`](target::Target)); a direct one forgets that it ever tried.
//!
//! Bounds: a check list has as many addresses as [`Account`](crate::account::Account) says, an effort ends by itself,
//! one peer at a time gets a birthday. Which path is used in the end, and when a link is up, is not its business.

mod attestation;
mod birthday;
mod candidates;
mod case;
mod checking;
mod checks;
mod effort;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod prediction;
mod step;
mod strategy;
mod target;
#[cfg(test)]
mod tests;
mod traversal;
mod waiting;
mod working;

pub(crate) use attestation::Named;
pub(crate) use case::{Around, Case, Home, Output, View};
pub(crate) use traversal::Traversal;
