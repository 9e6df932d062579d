//! Inits that relays and homes bring. They need no cookie: they count against the link that they come through.

use std::collections::BTreeMap;

use crate::net::PeerKey;
use crate::time::Instant;

/// Most Inits a second that one relay or home may bring: twice what a home lets through to one leaf.
const INNER_INITS_MAX: u32 = 40;

/// Those of the current second, by link.
#[derive(Debug, Default)]
pub(super) struct InnerInits {
    second: u64,
    by_link: BTreeMap<PeerKey, u32>,
}

impl InnerInits {
    /// Counts one; whether it is within the limit.
    pub(super) fn take(&mut self, now: Instant, via: PeerKey) -> bool {
        let second = now.as_secs();
        if self.second != second {
            (self.second, self.by_link) = (second, BTreeMap::new());
        }
        let count = self.by_link.entry(via).or_insert(0);
        *count += 1;
        *count <= INNER_INITS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn each_link_has_its_own_count_and_each_second_begins_anew() {
        let mut inits = InnerInits::default();
        let [a, b] = [0, 1].map(|index| PeerKey { index, generation: 1 });
        let taken = |inits: &mut InnerInits, now, via| (0..100).filter(|_| inits.take(now, via)).count();
        assert_eq!(taken(&mut inits, Instant::ZERO, a), INNER_INITS_MAX as usize);
        assert_eq!(taken(&mut inits, Instant::ZERO, b), INNER_INITS_MAX as usize);
        assert_eq!(taken(&mut inits, Instant::ZERO + Duration::from_millis(999), a), 0);
        assert_eq!(taken(&mut inits, Instant::ZERO + Duration::from_secs(1), a), INNER_INITS_MAX as usize);
    }
}
