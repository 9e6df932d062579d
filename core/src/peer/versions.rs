//! Those with whom this node has no version in common: both sides are told, and nobody waits in vain.

use core::time::Duration;

use super::attempt::AttemptRoute;
use super::outgoing::Outgoing;
use super::output::Output;
use super::peers::Peers;
use crate::api::Event;
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

impl Peers {
    /// An Init came that is made by other rules than ours, from an address or through a home.
    pub(crate) fn on_foreign_init(&mut self, now: Instant, path: Option<Path>, version: u8, sender: u32) -> DropReason {
        if let Some(path) = path.filter(|_| self.foreign_answered <= now) {
            self.foreign_answered = now + ANSWER_EVERY;
            self.push(Outgoing::Raw { path, bytes: versions_packet(sender).as_slice().into() });
        }
        self.tell_of_versions(now, path, version, version)
    }

    /// Whoever got our Init there says that it reads others only. Anybody on the way can say so: the Init is repeated
    /// all the same.
    pub(crate) fn on_versions(
        &mut self,
        now: Instant,
        path: Path,
        receiver: u32,
        (lowest, highest): (u8, u8),
    ) -> DropReason {
        if lowest > highest || (lowest..=highest).contains(&INIT_VERSION) {
            return DropReason::Malformed;
        }
        let Some(peer) = self.owner(receiver).and_then(|key| self.get(key)) else { return DropReason::UnknownReceiver };
        if !peer.attempts.iter().any(|a| a.index == receiver && a.route == AttemptRoute::Direct(path)) {
            return DropReason::WrongPath;
        }
        self.tell_of_versions(now, Some(path), lowest, highest)
    }

    fn tell_of_versions(&mut self, now: Instant, path: Option<Path>, lowest: u8, highest: u8) -> DropReason {
        if self.foreign_told <= now {
            self.foreign_told = now + TELL_EVERY;
            let remote = path.map(|path| path.remote);
            self.want(Output::Event(Event::OtherVersion { remote, lowest, highest }));
        }
        DropReason::OtherVersion
    }
}
