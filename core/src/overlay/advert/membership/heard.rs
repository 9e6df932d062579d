//! What was heard of how full supernodes are, and for how long that counts.

use core::time::Duration;

use crate::time::Instant;
use crate::wire::places::Places;

/// What is older than this says nothing any more.
pub(super) const LOAD_HOLDS: Duration = Duration::from_secs(300);

/// What was said of one supernode's room, and what is seen of it.
#[derive(Clone, Copy, Default)]
pub(super) struct HeardRoom {
    /// By itself, or of it by the one who listed it; and when.
    pub(super) said: Option<(Places, Instant)>,
    /// At least so many are taken, whatever it says, and of so many places it need not be doubted; and when that was seen.
    pub(super) seen: Option<(Places, Instant)>,
}

impl HeardRoom {
    pub(super) fn said(&self, now: Instant) -> Option<Places> {
        self.said.filter(|(_, at)| now.since(*at) < LOAD_HOLDS).map(|(places, _)| places)
    }

    pub(super) fn seen(&self, now: Instant) -> Places {
        self.seen.filter(|(_, at)| now.since(*at) < LOAD_HOLDS).map_or(Places::default(), |(places, _)| places)
    }
}

/// How full supernodes are, all that this node knows of together: shares in 65 536ths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Market {
    /// Of how many that is known.
    pub known: usize,
    /// Leaves by places.
    pub mean: u32,
    /// Of the utilisation of each.
    pub median: u32,
}
