//! How many leaves are registered here from each prefix: who has many keys has few of these.
//!
//! There may be a million leaves, each with a prefix of its own, so prefixes share counters, and a leaf keeps the number
//! of its counter. Who wants the counter of a certain prefix has to try some thousand of his own.

use core::net::IpAddr;
use core::num::NonZeroU16;

use crate::account::Source;
use crate::identity::PeerId;
use crate::wire::address::Prefix;

/// So many counters. Of them the first is of those that are not seen where they are.
const COUNTERS: u16 = 4_096;

/// The number of a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counter(NonZeroU16);

/// Leaves by where they come from.
pub(super) struct Shares {
    me: PeerId,
    /// None, until a leaf comes.
    leaves: Vec<u32>,
}

impl Shares {
    /// No leaf, at the node `me`: others share their counters otherwise.
    pub(super) const fn new(me: PeerId) -> Self {
        Self { me, leaves: Vec::new() }
    }

    /// What a leaf counts for: nothing, if it stands for itself alone.
    pub(super) fn counter(&self, source: Source) -> Option<Counter> {
        match source {
            Source::Prefix(prefix) => Some(self.counter_of(prefix)),
            Source::Unseen => Some(Counter(NonZeroU16::MIN)),
            Source::Peer(_) => None,
        }
    }

    fn counter_of(&self, prefix: Prefix) -> Counter {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.me.as_bytes());
        match prefix.first() {
            IpAddr::V4(ip) => hasher.update(&ip.octets()),
            IpAddr::V6(ip) => hasher.update(&ip.octets()),
        };
        let [a, b, ..] = *hasher.finalize().as_bytes();
        let number = u16::from_be_bytes([a, b]) % (COUNTERS - 1) + 2;
        Counter(NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN))
    }

    /// How many leaves count there.
    pub(super) fn of(&self, counter: Option<Counter>) -> usize {
        let leaves = counter.and_then(|counter| self.leaves.get(usize::from(counter.0.get())));
        leaves.map_or(0, |leaves| *leaves as usize)
    }

    /// One more does.
    pub(super) fn enter(&mut self, counter: Option<Counter>) {
        if self.leaves.is_empty() {
            self.leaves = vec![0; usize::from(COUNTERS) + 1];
        }
        if let Some(leaves) = self.at(counter) {
            *leaves += 1;
        }
    }

    /// One less does.
    pub(super) fn leave(&mut self, counter: Option<Counter>) {
        if let Some(leaves) = self.at(counter) {
            *leaves -= 1;
        }
    }

    fn at(&mut self, counter: Option<Counter>) -> Option<&mut u32> {
        self.leaves.get_mut(usize::from(counter?.0.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::home::testnet::key;
    use crate::random::Seed;

    fn source(n: usize) -> Source {
        match u8::try_from(n).expect("small") {
            0 => Source::Unseen,
            n => Source::Prefix(Prefix::of(IpAddr::from([198, 51, n, 1]))),
        }
    }

    #[test]
    fn as_many_are_counted_as_there_are_and_nothing_is_left_when_they_have_gone() {
        let mut choices = Seed::new([7; 32]).choices("test");
        let (mut shares, mut here) = (Shares::new(key(1).peer_id()), Vec::new());
        for _ in 0..5_000 {
            if choices.below(2) == 0 && !here.is_empty() {
                let (_, counter) = here.swap_remove(choices.below(here.len()));
                shares.leave(counter);
            } else {
                let n = choices.below(20);
                let counter = shares.counter(source(n));
                shares.enter(counter);
                here.push((n, counter));
            }
            let n = choices.below(20);
            let counted = shares.of(shares.counter(source(n)));
            assert_eq!(counted, here.iter().filter(|(other, _)| *other == n).count());
        }
        for (_, counter) in here {
            shares.leave(counter);
        }
        assert!(shares.leaves.iter().all(|leaves| *leaves == 0));
    }

    #[test]
    fn every_prefix_has_a_counter_and_those_unseen_one_of_their_own() {
        let shares = Shares::new(key(1).peer_id());
        let numbers = (0..=u16::MAX).map(|n| {
            let [a, b] = n.to_be_bytes();
            shares.counter_of(Prefix::of(IpAddr::from([11, a, b, 1]))).0.get()
        });
        let numbers: std::collections::BTreeSet<u16> = numbers.collect();
        // Of 65 536 prefixes at random none misses one counter but by a chance of 1 in 9 million, for each.
        assert_eq!((numbers.first(), numbers.last(), numbers.len()), (Some(&2), Some(&COUNTERS), 4_095));
        assert_eq!(shares.counter(Source::Unseen), Some(Counter(NonZeroU16::MIN)));
        assert_eq!(shares.counter(Source::Peer(key(2).peer_id())), None);
    }
}
