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

/// One limit for all sources together, and one per source.
#[derive(Debug)]
pub(crate) struct RateTable<K: Ord> {
    each: Rate,
    all: Rate,
    sources_max: usize,
    used: BTreeMap<K, Instant>,
    /// From then on no source owes anything.
    owed_until: Instant,
    all_used: Instant,
}

impl<K: Ord> RateTable<K> {
    /// At the limit `sources_max`, sources that owe nothing are forgotten; if none does, new ones are refused.
    pub(crate) fn new(each: Rate, all: Rate, sources_max: usize) -> Self {
        Self { each, all, sources_max, used: BTreeMap::new(), owed_until: Instant::ZERO, all_used: Instant::ZERO }
    }

    /// Forgets all sources once none of them owes anything. Costs a comparison: call it whenever time passes.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.owed_until <= now {
            self.used.clear();
        }
    }

    /// Whether `source` may make a request now. Charges nothing.
    pub(crate) fn allows(&mut self, now: Instant, source: &K) -> bool {
        if !self.all.allows(self.all_used, now) {
            return false;
        }
        if let Some(&used) = self.used.get(source) {
            return self.each.allows(used, now);
        }
        if self.used.len() >= self.sources_max {
            self.used.retain(|_, used| *used > now);
        }
        self.used.len() < self.sources_max
    }

    /// Charges `source` for one request that [`allows`](Self::allows) let pass.
    pub(crate) fn charge(&mut self, now: Instant, source: K) {
        let used = self.used.entry(source).or_insert(now);
        *used = self.each.charge(*used, now);
        self.owed_until = self.owed_until.max(*used);
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
