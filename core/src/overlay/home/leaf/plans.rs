//! What a leaf has in mind: where it moves, whom its first home names for the other one, and who tries its homes.

use core::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::time::{Instant, earliest};
use crate::wire::address::Prefix;
use crate::wire::message::{PARTNERS_MAX, RECORD_HOMES_MAX};

/// The home that is being left, and for whom.
#[derive(Default)]
pub(super) struct Moving {
    pub(super) now: Option<(PeerId, PeerId)>,
    /// The new one is named first, and the old one was not.
    pub(super) is_reversed: bool,
    /// Not again before.
    pub(super) after: Instant,
}

impl Moving {
    /// Whether a move is from or to there.
    pub(super) fn is_of(&self, peer: &PeerId) -> bool {
        self.now.is_some_and(|(from, to)| from == *peer || to == *peer)
    }
}

/// What was named while homes are looked for.
#[derive(Default)]
pub(super) struct Partners {
    pub(super) named: Vec<(PeerId, ArrayVec<PeerId, PARTNERS_MAX>)>,
    /// The home for which one of them was dialled.
    pub(super) dialled_for: Option<PeerId>,
}

impl Partners {
    /// Those of one supernode.
    pub(super) fn of(&self, home: Option<&PeerId>) -> &[PeerId] {
        self.named.iter().find(|(by, _)| Some(by) == home).map_or(&[], |(_, partners)| partners)
    }
}

/// The trial under way, and when the next one is due.
#[derive(Default)]
pub(super) struct Trials {
    pub(super) at: Option<Instant>,
    /// Of the homes for which that was planned.
    pub(super) verdicts: ArrayVec<Verdict, RECORD_HOMES_MAX>,
    /// Records of other homes, this one's included, before there were two for the first time.
    pub(super) records: u8,
    /// Trials in a row that showed of no home that it is good.
    pub(super) in_vain: u32,
    pub(super) running: Option<Box<Running>>,
    /// Who made the last one.
    pub(super) last: Option<Teller>,
}

/// Who makes a trial, by first bytes of a hash: all in a prefix are one, where that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Teller([u8; 4]);

impl Teller {
    pub(super) fn of(peer: &PeerId, address: SocketAddr) -> Self {
        let mut hasher = blake3::Hasher::new();
        match Prefix::counted(address.ip()) {
            Some(Prefix::V4(bytes)) => hasher.update(&bytes),
            Some(Prefix::V6(bytes)) => hasher.update(&bytes),
            None => hasher.update(peer.as_bytes()),
        };
        let mut first = [0; 4];
        hasher.finalize_xof().fill(&mut first);
        Self(first)
    }
}

/// What trials have shown of a home.
pub(super) struct Verdict {
    pub(super) home: PeerId,
    /// It brought one.
    pub(super) has_brought: bool,
    /// What those count that it did not bring, since then, and who made the last of them.
    pub(super) missed: u8,
    pub(super) missed_by: Option<Teller>,
}

/// A trial that was begun.
pub(super) struct Running {
    pub(super) by: PeerId,
    /// The key that names the call, once it was sent.
    pub(super) call: Option<[u8; 32]>,
    pub(super) until: Instant,
    /// As they were named when it was sent.
    pub(super) homes: ArrayVec<PeerId, RECORD_HOMES_MAX>,
    pub(super) brought: ArrayVec<PeerId, RECORD_HOMES_MAX>,
}

impl Trials {
    /// Whether this one makes a trial for us now.
    pub(super) fn is_by(&self, peer: &PeerId) -> bool {
        self.running.as_ref().is_some_and(|running| running.by == *peer)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.at, self.running.as_ref().map(|running| running.until))
    }
}
