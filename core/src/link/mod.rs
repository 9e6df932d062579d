//! The authenticated channel between two nodes: keys, counters and a replay window, and nothing of addresses.
//!
//! A link begins with a handshake, `Noise_IK_25519_ChaChaPoly_BLAKE2s`. [`initiate`] writes an Init for a peer of whom
//! only the `PeerId` is known; [`accept`] opens it at the peer, which learns who calls and what the caller wants;
//! [`Accepted::respond`] writes the Response, and [`Initiation::finish`] opens that. Both sides then have the same
//! [`TransportKeys`], which an [`Epoch`] uses until the next handshake replaces it: [`Epoch::seal`] and
//! [`Epoch::open`] for Data and Stream packets, [`Epoch::seal_beat`] and [`Epoch::open_beat`] for keep-alives.
//!
//! Before an Init that came from outside any link costs more than a keyed hash, the [`Gate`] looks at it: whether it
//! names our key at all, and under load, whether its sender can be reached where it seems to be. [`Freshness`] says
//! whether one is new by the time that it carries, and what time ours carry.
//!
//! What is handed in is checked here and trusted nowhere: a packet that is not authentic leaves every state as it was.
//! What the room leaves to others: which path a packet takes, when a handshake starts or is repeated, whether an Init
//! was seen before ([`Accepted::ephemeral`]), and what the payloads mean.
//!
//! Deliberate, and to be known: one key serves Ed25519 signatures and X25519 agreement. An Init is not forward secret
//! against theft of the responder's key. Who knows a `PeerId` can recognise the Inits addressed to it. snow keeps
//! copies of its chaining key on the stack, which safe code cannot clear; everything that outlives a call is.

mod admission;
mod crypto;
mod epoch;
mod freshness;
mod handshake;
mod keys;
mod replay;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Gate, open_cookie};
pub use epoch::{Epoch, TransportKeys};
pub(crate) use freshness::Freshness;
pub use handshake::{Accepted, InitFixed, Initiation, Macs, ResponseFixed, accept, initiate};
pub(crate) use handshake::{INIT_FIXED_LEN, RESPONSE_FIXED_LEN, accept_unless};
pub use keys::{Identity, PeerKeys};

/// Whether two byte strings of the same length are equal, in a time that depends on the length alone.
fn equal<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    // Without the barrier the compiler may see that only one bit of the answer matters and stop early.
    core::hint::black_box(difference) == 0
}
