//! What a leaf has in mind: where it moves, and whom its first home names for the other one.

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::time::Instant;
use crate::wire::message::PARTNERS_MAX;

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
