//! Hole punching: which addresses to try for a peer, how, when, and how often.
//!
//! Both peers know each other's candidates and router profiles from the introduction. [`choose`] makes a [`Strategy`] of
//! the two profiles and the number of the attempt, the same one on both sides, cheapest first:
//!
//! - *Plain*: both send connectivity checks to all candidates at the same time, over the main sockets ([`Checks`], RFC
//!   8445 §6.1.2.5). A check is a Data packet with a challenge, sealed under the new link's keys, so what arrives is
//!   authentic; its source may be an address nobody named (a peer-reflexive candidate, RFC 8445 §7.3.1.3), which is then
//!   checked too.
//! - *Predict*: a router that counts its ports up is looked at an instant before the checks leave ([`prediction`]).
//! - *Birthday*: one side holds many sockets open, the other guesses ports ([`birthday`]).
//! - *Relay only*: nothing would help, and nothing is sent.
//!
//! The first path that answers a challenge wins; [`crate::path`] does the rest, and data flows by the relay all the
//! while. What is more than plain is an [`Effort`], which both sides agree on, step by step, through the relay.
//!
//! A peer could name a victim's address as its own. [`Exposure`](crate::account::Exposure) gives an address ten packets and one KiB; beyond that
//! a home of ours must have attested that the peer is there, and [`Account`](crate::account::Account) counts the attempts per prefix.
//!
//! [`gather`] lists this node's own candidates. Sockets, links and messages are the business of `node/traverse.rs` and
//! `node/effort.rs`.

pub(crate) mod birthday;
mod checks;
mod effort;
mod gather;
pub(crate) mod prediction;
mod step;
mod strategy;

pub(crate) use checks::Checks;
pub(crate) use effort::Effort;
pub(crate) use gather::gather;
pub(crate) use step::Step;
pub(crate) use strategy::{Strategy, choose};
