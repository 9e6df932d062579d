//! Rate limits by the generic cell rate algorithm: one moment per source instead of a token count and a clock.
//!
//! The moment kept is the one at which the source would have used exactly what it was given. A source whose moment
//! has passed is as good as one never seen, so it can be forgotten: that is what bounds the table.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Instant;

/// A rate and how far ahead of it a source may run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Time that one request costs.
    pub interval: Duration,
    /// How many may come at once.
    pub burst: u32,
}

impl Rate {
    fn allows(self, used_until: Instant, now: Instant) -> bool {
        used_until <= now + self.interval * self.burst.saturating_sub(1)
    }

    fn charge(self, used_until: Instant, now: Instant) -> Instant {
        used_until.max(now) + self.interval
    }
}

/// Fewer sources than this are not worth a sweep.
const SWEEP_MIN: usize = 16;

/// One limit for all sources together, and one per source.
#[derive(Debug)]
pub(crate) struct RateTable<K: Ord> {
    each: Rate,
    all: Rate,
    sources_max: usize,
    used: BTreeMap<K, Instant>,
    /// At so many, those that owe nothing are looked for.
    sweep_at: usize,
    all_used: Instant,
}

impl<K: Ord> RateTable<K> {
    /// Sources that owe nothing are forgotten now and then. At the limit `sources_max` they are looked for each time;
    /// if there are none, new ones are refused.
    pub(crate) fn new(each: Rate, all: Rate, sources_max: usize) -> Self {
        Self { each, all, sources_max, used: BTreeMap::new(), sweep_at: SWEEP_MIN, all_used: Instant::ZERO }
    }

    /// Whether `source` may make a request now. Charges nothing.
    pub(crate) fn allows(&mut self, now: Instant, source: &K) -> bool {
        if !self.all.allows(self.all_used, now) {
            return false;
        }
        if let Some(&used) = self.used.get(source) {
            return self.each.allows(used, now);
        }
        if self.used.len() >= self.sweep_at {
            self.used.retain(|_, used| *used > now);
            // Twice what is left: a sweep then costs each source a step or two.
            self.sweep_at = (2 * self.used.len()).clamp(SWEEP_MIN, self.sources_max.max(SWEEP_MIN));
        }
        self.used.len() < self.sources_max
    }

    /// Charges `source` for one request that [`allows`](Self::allows) let pass.
    pub(crate) fn charge(&mut self, now: Instant, source: K) {
        let used = self.used.entry(source).or_insert(now);
        *used = self.each.charge(*used, now);
        self.all_used = self.all.charge(self.all_used, now);
        debug_assert!(self.used.len() <= self.sources_max);
    }

    /// Both at once.
    pub(crate) fn take(&mut self, now: Instant, source: K) -> bool {
        let allowed = self.allows(now, &source);
        if allowed {
            self.charge(now, source);
        }
        allowed
    }
}
