//! One neighbour: whether there is a link to it, when it is dialled next, and what doubts there are.

use core::net::SocketAddr;
use core::time::Duration;

use crate::random::ChoiceRng;
use crate::time::Instant;

/// First back-off between dials; doubles to [`BACKOFF_MAX`], with full jitter.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`BACKOFF_MIN`].
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// After so many dials in vain, some half minute, a neighbour was away.
const AWAY_FAILURES: u8 = 5;

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
    /// Where we were told to join it; such a neighbour is kept without an advert.
    pub(super) joined: Option<SocketAddr>,
    /// When it is dialled, or greeted again.
    pub(super) due: Option<Instant>,
    /// Greetings on this link so far.
    pub(super) greetings: u8,
    /// It sent a digest, so it knows us as a supernode.
    pub(super) knows_us: bool,
    /// Dials that failed since the last link.
    pub(super) failures: u8,
    /// Questions since it was last heard from.
    pub(super) missed: u8,
    pub(super) heard_at: Instant,
    pub(super) suspect_since: Option<Instant>,
}

impl Neighbour {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Down,
            joined: None,
            due: None,
            greetings: 0,
            knows_us: false,
            failures: 0,
            missed: 0,
            heard_at: now,
            suspect_since: None,
        }
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
    }

    /// Returns how long to wait before the next dial.
    pub(super) fn on_down(&mut self, jitter: &mut ChoiceRng) -> Duration {
        self.state = State::Down;
        self.missed = self.missed.saturating_add(1);
        let max = BACKOFF_MAX.min(BACKOFF_MIN * (1 << self.failures.min(9)));
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(1) + jitter.jitter(max)
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.missed = 0;
        self.suspect_since = None;
    }
}
