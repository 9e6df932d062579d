//! One neighbour: whether there is a link to it, when it is dialled next, and what doubts there are.

use core::time::Duration;

use crate::random::ChoiceRng;
use crate::time::Instant;

/// First back-off between dials; doubles to [`BACKOFF_MAX`], with full jitter.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`BACKOFF_MIN`]. For each that is away: one of them is dialled as often however many have died. When one is back
/// the others are dialled, too, once in half a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// After so many dials in vain, some half minute, a neighbour was away.
const AWAY_FAILURES: u8 = 5;

/// Most neighbours, with those that do not answer: these go first.
pub(super) const NEIGHBOURS_MAX: usize = 64;

/// Of the link to a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// There is none; it is dialled when `due`.
    Down,
    /// Asked for.
    Dialling,
    /// There is one.
    Up,
}

pub(super) struct Neighbour {
    pub(super) state: State,
    /// When it is dialled, or greeted again.
    pub(super) due: Option<Instant>,
    /// Greetings on this link so far.
    pub(super) greetings: u8,
    /// It sent a digest, so it knows us as a supernode.
    pub(super) knows_us: bool,
    /// When it had no place for us and was told that we have hardly any neighbours.
    pub(super) begged_at: Option<Instant>,
    /// Dials that failed since the last link.
    pub(super) failures: u8,
    pub(super) heard_at: Instant,
}

impl Neighbour {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Down,
            due: None,
            greetings: 0,
            knows_us: false,
            begged_at: None,
            failures: 0,
            heard_at: now,
        }
    }

    /// Whether it has a place: it is linked, or has not failed yet.
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Up || self.failures == 0
    }

    /// Whether it was away for so long that others may have been, too, and are back as well.
    pub(super) fn was_away(&self) -> bool {
        self.failures >= AWAY_FAILURES
    }

    pub(super) fn on_up(&mut self) {
        self.state = State::Up;
        self.failures = 0;
        self.greetings = 0;
        self.knows_us = false;
        self.begged_at = None;
    }

    /// Returns how long to wait before the next dial, where so many are away.
    pub(super) fn on_down(&mut self, away: u32, jitter: &mut ChoiceRng) -> Duration {
        self.state = State::Down;
        let max = (BACKOFF_MAX * away.max(1)).min(BACKOFF_MIN * (1 << self.failures.min(12)));
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(1) + jitter.jitter(max)
    }
}
