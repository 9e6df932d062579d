//! Introductions that a home does for its leaves, by whom they are for and where they come from.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use crate::identity::PeerId;
use crate::time::Instant;
use crate::wire::address::Prefix;

/// Introductions per second and callee, and per second and caller prefix; questions to a relay per second and asker. At
/// the limit further ones are refused as busy.
const PER_SECOND_MAX: u32 = 20;
/// Those of one prefix per second and callee: it leaves others their half.
const OF_PREFIX_MAX: u32 = PER_SECOND_MAX / 2;

/// Those of the current second.
#[derive(Debug, Default)]
pub(super) struct IntroductionRates {
    second: u64,
    by_callee: BTreeMap<PeerId, u32>,
    by_asker: BTreeMap<PeerId, u32>,
    by_prefix: BTreeMap<Prefix, u32>,
    by_both: BTreeMap<(PeerId, Prefix), u32>,
    in_second: u32,
    in_last_second: u32,
}

impl IntroductionRates {
    /// Counts an introduction, if it is within the limits; whether it is. What one of them refuses takes nothing from the
    /// others.
    pub(super) fn take(&mut self, now: Instant, callee: PeerId, caller: Option<SocketAddr>) -> bool {
        self.begin(now);
        let prefix = caller.and_then(|caller| Prefix::counted(caller.ip()));
        let both = prefix.map(|prefix| (callee, prefix));
        let fits = has(&self.by_callee, Some(&callee), PER_SECOND_MAX)
            && has(&self.by_prefix, prefix.as_ref(), PER_SECOND_MAX)
            && has(&self.by_both, both.as_ref(), OF_PREFIX_MAX);
        if fits {
            count(&mut self.by_callee, Some(callee));
            count(&mut self.by_prefix, prefix);
            count(&mut self.by_both, both);
            self.in_second += 1;
        }
        fits
    }

    /// The same for a question to a relay, which is nobody's introduction.
    pub(super) fn take_question(&mut self, now: Instant, asker: PeerId, from: Option<SocketAddr>) -> bool {
        self.begin(now);
        let prefix = from.and_then(|from| Prefix::counted(from.ip()));
        let fits =
            has(&self.by_asker, Some(&asker), PER_SECOND_MAX) && has(&self.by_prefix, prefix.as_ref(), PER_SECOND_MAX);
        if fits {
            count(&mut self.by_asker, Some(asker));
            count(&mut self.by_prefix, prefix);
            self.in_second += 1;
        }
        fits
    }

    fn begin(&mut self, now: Instant) {
        let second = now.as_secs();
        if second == self.second {
            return;
        }
        self.in_last_second = if self.second + 1 == second { self.in_second } else { 0 };
        (self.second, self.in_second) = (second, 0);
        self.by_callee.clear();
        self.by_asker.clear();
        self.by_prefix.clear();
        self.by_both.clear();
    }

    /// How many were within them in the last full second.
    pub(super) fn per_second(&self, now: Instant) -> u32 {
        match now.as_secs().saturating_sub(self.second) {
            0 => self.in_last_second,
            1 => self.in_second,
            _ => 0,
        }
    }
}

fn has<K: Ord>(counts: &BTreeMap<K, u32>, key: Option<&K>, most: u32) -> bool {
    key.and_then(|key| counts.get(key)).is_none_or(|count| *count < most)
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u32>, key: Option<K>) {
    if let Some(key) = key {
        *counts.entry(key).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn each_callee_and_each_prefix_has_a_limit_and_each_second_begins_anew() {
        let mut account = IntroductionRates::default();
        let caller: SocketAddr = "192.0.2.1:7".parse().expect("an address");
        let near: SocketAddr = "192.0.2.200:8".parse().expect("an address");
        let taken = |account: &mut IntroductionRates, ms, callee, from| {
            (0..100).filter(|_| account.take(at(ms), callee, from)).count()
        };
        let other = "198.51.100.1:7".parse().ok();
        assert_eq!(taken(&mut account, 0, id(1), Some(caller)), 10, "a prefix leaves others their half");
        assert_eq!(taken(&mut account, 0, id(1), other), 10);
        assert_eq!(taken(&mut account, 999, id(1), None), 0, "the callee has had enough");
        assert_eq!(taken(&mut account, 999, id(2), Some(near)), 10);
        assert_eq!(taken(&mut account, 999, id(5), Some(near)), 0, "the prefix has");
        assert_eq!(taken(&mut account, 999, id(5), None), 20, "what it may not takes nothing from the callee");
        let asked = (0..100).filter(|_| account.take_question(at(999), id(1), None)).count();
        assert_eq!(asked, 20, "who asks is not called by that");
        assert_eq!(taken(&mut account, 999, id(3), None), 20, "a caller through a relay has no prefix");
        let private = "10.0.0.1:7".parse().ok();
        assert_eq!(taken(&mut account, 999, id(4), private), 20);
        assert_eq!(taken(&mut account, 1_000, id(1), Some(caller)), 10);
    }

    #[test]
    fn the_last_full_second_is_told() {
        let mut account = IntroductionRates::default();
        assert_eq!(account.per_second(at(0)), 0);
        assert_eq!((0..30).filter(|_| account.take(at(5_000), id(1), None)).count(), 20);
        assert_eq!(account.per_second(at(5_999)), 0, "it is not over");
        assert_eq!(account.per_second(at(6_000)), 20);
        assert!(account.take(at(6_500), id(1), None));
        assert_eq!((account.per_second(at(6_999)), account.per_second(at(7_000))), (20, 1));
        assert_eq!(account.per_second(at(8_000)), 0);
        assert!(account.take(at(9_000), id(1), None));
        assert_eq!(account.per_second(at(9_000)), 0, "nothing in the second before");
    }
}
