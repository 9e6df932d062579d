//! Rate limits by the generic cell rate algorithm: one moment per source instead of a token count and a clock.
//!
//! The moment kept is the one at which the source would have used exactly what it was given. A source whose moment
//! has passed is as good as one never seen, so it can be forgotten: that is what bounds the table.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

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
pub(crate) struct RateTable<K> {
    each: Rate,
    all: Rate,
    sources_max: usize,
    used: BTreeMap<K, Instant>,
    /// The same, so that those who owe nothing are found first.
    order: BTreeSet<(Instant, K)>,
    all_used: Instant,
}

impl<K: Ord + Copy> RateTable<K> {
    /// At the limit `sources_max`, sources that owe nothing are forgotten; if none does, new ones are refused.
    pub(crate) fn new(each: Rate, all: Rate, sources_max: usize) -> Self {
        Self { each, all, sources_max, used: BTreeMap::new(), order: BTreeSet::new(), all_used: Instant::ZERO }
    }

    /// Forgets the sources that owe nothing any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, source)) = self.order.first().filter(|(used, _)| *used <= now).copied() {
            self.order.pop_first();
            self.used.remove(&source);
        }
        if self.used.is_empty() {
            // An empty tree would keep its root.
            (self.used, self.order) = (BTreeMap::new(), BTreeSet::new());
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
            self.handle_timeout(now);
        }
        self.used.len() < self.sources_max
    }

    /// Charges `source` for one request that [`allows`](Self::allows) let pass.
    pub(crate) fn charge(&mut self, now: Instant, source: K) {
        let used = self.used.entry(source).or_insert(now);
        self.order.remove(&(*used, source));
        *used = self.each.charge(*used, now);
        self.order.insert((*used, source));
        self.all_used = self.all.charge(self.all_used, now);
        debug_assert!(self.used.len() <= self.sources_max && self.order.len() == self.used.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    /// As a plain list has it: until when each source has used what it was given.
    #[derive(Default)]
    struct Naive {
        used: Vec<(u8, Instant)>,
        all_used: Option<Instant>,
    }

    const EACH: Rate = Rate { interval: Duration::from_secs(10), burst: 2 };
    const ALL: Rate = Rate { interval: Duration::from_secs(1), burst: 4 };
    const SOURCES_MAX: usize = 8;

    impl Naive {
        fn take(&mut self, now: Instant, source: u8) -> bool {
            let all_used = self.all_used.unwrap_or(Instant::ZERO);
            self.used.retain(|(_, used)| *used > now);
            let known = self.used.iter().position(|(other, _)| *other == source);
            let used = known.map_or(now, |at| self.used[at].1);
            if !ALL.allows(all_used, now)
                || !EACH.allows(used, now)
                || (known.is_none() && self.used.len() >= SOURCES_MAX)
            {
                return false;
            }
            if let Some(at) = known {
                self.used.remove(at);
            }
            self.used.push((source, EACH.charge(used, now)));
            self.all_used = Some(ALL.charge(all_used, now));
            true
        }
    }

    #[test]
    fn what_is_allowed_is_what_a_plain_list_would_allow() {
        let mut choices = Seed::new([8; 32]).choices("test");
        let mut table = RateTable::new(EACH, ALL, SOURCES_MAX);
        let (mut naive, mut now) = (Naive::default(), Instant::ZERO);
        let mut given = 0;
        for _ in 0..20_000 {
            now += Duration::from_millis(choices.below(2_000) as u64);
            if choices.below(10) == 0 {
                table.handle_timeout(now);
            }
            let source = choices.below(20) as u8;
            let is_given = table.take(now, source);
            assert_eq!(is_given, naive.take(now, source));
            given += u32::from(is_given);
        }
        assert!((5_000..19_000).contains(&given), "{given}");
    }
}
