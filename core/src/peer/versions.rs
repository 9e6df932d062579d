//! Those with whom this node has no version in common: both sides are told, and nobody waits in vain.

use core::time::Duration;

use super::attempt::AttemptRoute;
use super::outgoing::Outgoing;
use super::peers::Peers;
use crate::net::{DropReason, Path};
use crate::time::Instant;
use crate::wire::dialect::INIT_VERSION;
use crate::wire::packet::{INIT_HEADER_LEN, NOISE_1_OVERHEAD, VERSIONS_LEN, versions_packet};

/// An Init that cannot be read is answered at most so often: nothing in it can be checked.
const ANSWER_EVERY: Duration = Duration::from_millis(100);
/// The user is told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

// The answer is shorter than whatever it answers.
const _: () = assert!(VERSIONS_LEN < INIT_HEADER_LEN + NOISE_1_OVERHEAD);

/// When the next one is answered, and when the user is told again.
#[derive(Default)]
pub(super) struct Versions {
    answer_at: Instant,
    tell_at: Instant,
}

impl Peers {
    /// An Init came from an address that is made by other rules than ours.
    pub(crate) fn on_foreign_init(&mut self, now: Instant, path: Path, sender: u32) {
        if self.versions.answer_at <= now {
            self.versions.answer_at = now + ANSWER_EVERY;
            self.push(Outgoing::Raw { path, bytes: versions_packet(sender).as_slice().into() });
        }
    }

    /// Whoever got our Init there says that it reads others only. Anybody on the way can say so: the Init is repeated
    /// all the same.
    pub(crate) fn on_versions(&self, path: Path, receiver: u32, lowest: u8, highest: u8) -> Result<(), DropReason> {
        if lowest > highest || (lowest..=highest).contains(&INIT_VERSION) {
            return Err(DropReason::Malformed);
        }
        let peer = self.owner(receiver).and_then(|key| self.get(key)).ok_or(DropReason::UnknownReceiver)?;
        let is_asked = peer.attempts.iter().any(|a| a.index == receiver && a.route == AttemptRoute::Direct(path));
        if is_asked { Ok(()) } else { Err(DropReason::WrongPath) }
    }

    /// Whether the user is to be told of one more.
    pub(crate) fn tells_of_versions(&mut self, now: Instant) -> bool {
        let is_due = self.versions.tell_at <= now;
        if is_due {
            self.versions.tell_at = now + TELL_EVERY;
        }
        is_due
    }
}
