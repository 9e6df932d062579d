//! A home's part of volunteering: which of its leaves relay for strangers, and whom it names to those who ask.
//!
//! A leaf says so itself, and nothing shows that it is true: its word costs the home an entry, and whoever is named it
//! two round trips. So the places of one prefix are few, each prefix is named in its turn, and of one answer all are
//! of different prefixes as long as there are so many: who makes up volunteers is named as often as it has prefixes.

use core::net::IpAddr;
use core::ops::Bound;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::wire::address::Prefix;
use crate::wire::message::{Refusal, VOLUNTEERS_NAMED_MAX};

/// Most volunteers of one home. At the limit further ones are refused as busy.
pub(super) const VOLUNTEERS_MAX: usize = 4_096;
/// Most of one prefix that is not exempt. At the limit further ones are refused as busy.
pub(super) const VOLUNTEERS_OF_PREFIX_MAX: usize = 8;

/// Most of a prefix that are passed over to begin somewhere: only exempt ones have more.
const SKIPPED: usize = 64;

/// The leaves that relay for strangers, by the prefix that this home sees them in.
#[derive(Debug, Default)]
pub(super) struct Volunteers {
    by_prefix: BTreeMap<Prefix, BTreeMap<PeerKey, PeerId>>,
    prefix_of: BTreeMap<PeerKey, Prefix>,
    /// The prefix that was named last.
    last: Option<Prefix>,
}

impl Volunteers {
    /// A leaf relays for strangers, at this address.
    pub(super) fn add(&mut self, leaf: PeerKey, id: PeerId, ip: IpAddr) -> Result<(), Refusal> {
        self.remove(leaf);
        let prefix = Prefix::of(ip);
        let of_prefix = self.by_prefix.get(&prefix).map_or(0, BTreeMap::len);
        let is_crowded = of_prefix >= VOLUNTEERS_OF_PREFIX_MAX && !Prefix::is_exempt(ip);
        if is_crowded || self.prefix_of.len() >= VOLUNTEERS_MAX {
            return Err(Refusal::Busy);
        }
        self.by_prefix.entry(prefix).or_default().insert(leaf, id);
        self.prefix_of.insert(leaf, prefix);
        Ok(())
    }

    /// It does no longer, or its link is gone.
    pub(super) fn remove(&mut self, leaf: PeerKey) {
        let Some(prefix) = self.prefix_of.remove(&leaf) else { return };
        if let Some(of_prefix) = self.by_prefix.get_mut(&prefix) {
            of_prefix.remove(&leaf);
            if of_prefix.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
        if self.prefix_of.is_empty() {
            // An empty tree would keep its root.
            *self = Self::default();
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.prefix_of.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.prefix_of.len()
    }

    /// Whom to name to `asker`: one of each prefix, in turn, and further ones only when all had theirs. `random` says
    /// where in a prefix to begin.
    pub(super) fn name(
        &mut self,
        asker: &PeerId,
        mut random: impl FnMut() -> u32,
    ) -> ArrayVec<PeerId, VOLUNTEERS_NAMED_MAX> {
        let mut named: ArrayVec<PeerId, VOLUNTEERS_NAMED_MAX> = ArrayVec::new();
        for _ in 0..2 * VOLUNTEERS_NAMED_MAX {
            if named.is_full() {
                break;
            }
            let start = self.last.map_or(Bound::Unbounded, Bound::Excluded);
            let next =
                self.by_prefix.range((start, Bound::Unbounded)).next().or_else(|| self.by_prefix.first_key_value());
            let Some((prefix, leaves)) = next else { break };
            self.last = Some(*prefix);
            // Outside exempt ranges a prefix has few.
            let begin = random() as usize % leaves.len().clamp(1, SKIPPED);
            let from = leaves.values().skip(begin).chain(leaves.values().take(begin)).copied();
            // Of the others at most so many come before one that can be named.
            let mut from = from.take(VOLUNTEERS_NAMED_MAX + 2);
            named.extend(from.find(|id| id != asker && !named.contains(id)));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn key(n: u8) -> PeerKey {
        PeerKey { index: n.into(), generation: 1 }
    }

    fn ip(prefix: u8, host: u8) -> IpAddr {
        IpAddr::from([198, 51, prefix, host])
    }

    #[test]
    fn who_has_many_leaves_in_one_prefix_is_named_no_more_often_than_others() {
        let mut volunteers = Volunteers::default();
        for n in 0..20 {
            let is_taken = volunteers.add(key(n), id(n), ip(1, n)).is_ok();
            assert_eq!(is_taken, usize::from(n) < VOLUNTEERS_OF_PREFIX_MAX);
        }
        for n in 20..28 {
            assert_eq!(volunteers.add(key(n), id(n), ip(n, 1)), Ok(()));
        }
        let (mut times, mut random) = ([0; 28], 0);
        for _ in 0..900 {
            random += 1;
            let named = volunteers.name(&id(99), || random * 7 % 20);
            assert_eq!(named.len(), VOLUNTEERS_NAMED_MAX);
            let crowd = named.iter().filter(|named| (0..20).any(|n| **named == id(n))).count();
            assert!(crowd <= 1, "{crowd} of one prefix");
            named.iter().for_each(|named| times[(0..28).position(|n| *named == id(n)).expect("one of them")] += 1);
        }
        assert_eq!(times[..20].iter().sum::<i32>(), 400, "a ninth");
        assert!(times[20..].iter().all(|times| *times == 400), "{times:?}");
        assert!(times[..8].iter().all(|times| *times > 0), "each of the crowd has its turn: {times:?}");
    }

    #[test]
    fn where_there_are_few_all_are_named_but_the_asker() {
        let mut volunteers = Volunteers::default();
        assert!(volunteers.name(&id(1), || 0).is_empty());
        for n in 1..=3 {
            volunteers.add(key(n), id(n), ip(1, n)).expect("there is room");
        }
        let mut named = volunteers.name(&id(1), || 2);
        named.sort();
        let mut others = [id(2), id(3)];
        others.sort();
        assert_eq!(named.as_slice(), others);
        volunteers.remove(key(2));
        assert_eq!(volunteers.name(&id(1), || 2).as_slice(), [id(3)]);
        volunteers.add(key(3), id(3), ip(2, 1)).expect("it has moved");
        assert_eq!(volunteers.len(), 2);
        volunteers.remove(key(3));
        volunteers.remove(key(1));
        assert!(volunteers.is_empty() && volunteers.by_prefix.is_empty());
    }

    #[test]
    fn all_together_are_bounded_too() {
        let mut volunteers = Volunteers::default();
        let private = IpAddr::from([10, 0, 0, 1]);
        for n in 0..=VOLUNTEERS_MAX as u32 {
            let is_taken = volunteers.add(PeerKey { index: n, generation: 1 }, id(1), private).is_ok();
            assert_eq!(is_taken, (n as usize) < VOLUNTEERS_MAX);
        }
    }
}
