//! What a relay may carry in 30 days, or a volunteer in a day, counted over restarts.
//!
//! A period begins with the first byte relayed after the one before has ended, by the wall clock, which is told now and
//! then. What is to be kept is counted ahead by [`AHEAD_SHARE`] of the quota: a crash never makes the count smaller.

use core::time::Duration;

use crate::api::Relayed;
use crate::time::{Instant, WallTime};

/// The period of a supernode.
pub(super) const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// This part of the quota is kept ahead of its use: 256 small writes in a period, at most.
const AHEAD_SHARE: u64 = 256;

/// The bytes of the present period: most, used, and counted ahead in what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    max: u64,
    period_s: u64,
    used: Relayed,
    kept: u64,
    wall_s: u64,
    to_keep: bool,
    /// It is used up; the relay's channels close then.
    close_at: Option<Instant>,
    is_exhausted: bool,
}

impl Quota {
    /// As an earlier run left it.
    pub(super) fn new(max: u64, period: Duration, used: Relayed) -> Self {
        let is_exhausted = used.bytes >= max;
        let period_s = period.as_secs();
        Self { max, period_s, used, kept: used.bytes, wall_s: 0, to_keep: false, close_at: None, is_exhausted }
    }

    /// Whether it is used up.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// A packet did not fit any more: it is used up, and that has its consequence at this moment.
    pub(super) fn exhaust(&mut self, close_at: Instant) {
        if !self.is_exhausted {
            (self.is_exhausted, self.close_at) = (true, Some(close_at));
        }
    }

    /// When that is.
    pub(super) fn close_at(&self) -> Option<Instant> {
        self.close_at
    }

    /// Whether it is now. Says so once.
    pub(super) fn is_closing(&mut self, now: Instant) -> bool {
        self.close_at.take_if(|at| *at <= now).is_some() && self.is_exhausted
    }

    /// What was used in this period.
    pub(super) fn used(&self) -> Relayed {
        self.used
    }

    /// The wall clock says so; a period may be over.
    pub(super) fn on_wall_clock(&mut self, wall: WallTime) {
        self.wall_s = wall.as_secs();
        let since = self.used.since_s;
        if since != 0 && self.wall_s >= since.saturating_add(self.period_s) {
            self.used = Relayed::default();
            (self.kept, self.to_keep) = (0, true);
            self.is_exhausted = false;
        } else if since > self.wall_s {
            // The clock was ahead when the period began.
            self.used.since_s = self.wall_s.max(1);
        }
    }

    /// When the period is over, from now.
    pub(super) fn over_after(&self) -> Duration {
        Duration::from_secs(self.used.since_s.saturating_add(self.period_s).saturating_sub(self.wall_s))
    }

    /// Whether there is room for so many bytes.
    pub(super) fn has(&self, bytes: u64) -> bool {
        self.used.bytes.saturating_add(bytes) <= self.max
    }

    /// They were relayed.
    pub(super) fn take(&mut self, bytes: u64) {
        if self.used.since_s == 0 {
            self.used.since_s = self.wall_s.max(1);
        }
        self.used.bytes = self.used.bytes.saturating_add(bytes);
        if self.used.bytes > self.kept {
            self.kept = self.used.bytes.saturating_add(self.max / AHEAD_SHARE).min(self.max.max(self.used.bytes));
            self.to_keep = true;
        }
    }

    /// What is to be kept for the next run, if that changed.
    #[inline]
    pub(super) fn poll_keep(&mut self) -> Option<Relayed> {
        core::mem::take(&mut self.to_keep).then_some(Relayed { since_s: self.used.since_s, bytes: self.kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;

    fn wall(s: u64) -> WallTime {
        WallTime::from_micros(s * 1_000_000)
    }

    #[test]
    fn a_period_begins_with_its_first_byte_and_lasts_30_days() {
        let mut quota = Quota::new(1_000, MONTH, Relayed::default());
        quota.on_wall_clock(wall(100 * DAY_S));
        assert!(quota.has(1_000) && !quota.has(1_001));
        quota.take(600);
        quota.on_wall_clock(wall(129 * DAY_S));
        assert!(!quota.has(500));
        assert_eq!(quota.used(), Relayed { since_s: 100 * DAY_S, bytes: 600 });
        quota.on_wall_clock(wall(130 * DAY_S));
        assert!(quota.has(1_000));
        quota.on_wall_clock(wall(140 * DAY_S));
        quota.take(1);
        assert_eq!(quota.used().since_s, 140 * DAY_S);
    }

    #[test]
    fn a_restart_never_makes_the_count_smaller_and_little_larger() {
        let mut kept = Relayed::default();
        let mut used = 0;
        for _ in 0..50 {
            let mut quota = Quota::new(1_000_000, MONTH, kept);
            quota.on_wall_clock(wall(100 * DAY_S));
            assert!(quota.used().bytes >= used);
            for _ in 0..10 {
                quota.take(1_000);
                kept = quota.poll_keep().unwrap_or(kept);
            }
            used = quota.used().bytes;
        }
        assert!((500_000..=500_000 + 50 * 4_000).contains(&used), "{used}");
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_end_the_period_late() {
        let mut quota = Quota::new(1_000, MONTH, Relayed { since_s: 1_000 * DAY_S, bytes: 900 });
        quota.on_wall_clock(wall(100 * DAY_S));
        assert!(!quota.has(200));
        quota.on_wall_clock(wall(130 * DAY_S));
        assert!(quota.has(1_000));
    }
}
