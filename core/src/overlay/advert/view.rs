//! Which supernodes a table keeps when there are more than it has places.
//!
//! There is no other mode for that: while all fit, all are here, and nothing below decides anything. In a full table
//! everybody stands in a *bucket*, by how many first bits of its place are those of this node's own. The deepest
//! buckets, those nearest to this node, are kept whole, up to [`NEAR`] supernodes: this node is asked for what lies
//! there. Of every other bucket the oldest [`View::bucket_max`] are sure of their places: who has lived long lives
//! longest, and whoever makes up a thousand supernodes today comes after all of them. What is left over stays, too, but
//! for the youngest quarter of each bucket: that is the sample, in which the longest there makes room when a newcomer
//! is drawn. So a stranger who watches never knows for long whom this node knows, and no part of the network is out of
//! sight.
//!
//! A newcomer is let in when its bucket lacks one, at the cost of the fullest bucket's sample, or when it is drawn, at
//! the cost of its own bucket's.

use std::collections::BTreeSet;

use arrayvec::ArrayVec;

use super::shelf::id_prefix;
use crate::identity::PeerId;
use crate::time::Instant;

/// So many of the nearest are kept, and at least half of them where buckets end: twice as many as keep a record.
const NEAR: usize = 32;
/// Most that are sure of their places in one bucket, as in Kademlia with k = 16,
const BUCKET_MAX: usize = 16;
/// and fewer in a small table, of which one part in so many.
const BUCKET_PART: usize = 64;
/// But no fewer than this.
const BUCKET_MIN: usize = 4;
/// One part in so many of a bucket is the sample.
const SAMPLE_PART: usize = 4;
/// A newcomer for the sample is drawn by the last bits of the first four bytes of its place, so that not everybody who
/// is heard of is asked whether it is there.
const DRAWS: u32 = 64;
/// One part in so many of the places is free for newcomers of one draw.
const RENEWED_PART: usize = 64;
// They are the ends of places.
const _: () = assert!(DRAWS.is_power_of_two());

/// In which bucket a place is, by its first bytes: how many first bits it shares.
pub(super) type Bucket = u32;

/// Of places that are compared by 32 bits.
const BUCKETS: usize = 33;

/// See [the module](self).
pub(super) struct View {
    me: u32,
    max: usize,
    /// The places of all that are here, by buckets, oldest first. One tree and not one for each bucket: a leaf has few, and an empty
    /// place weighs as much as one that is taken.
    all: BTreeSet<(Bucket, Instant, u32)>,
    /// How many each bucket has.
    lens: [u16; BUCKETS],
    /// Those that seem dead: they go first.
    dead: BTreeSet<PeerId>,
    /// Whoever's place ends so may be let in where its bucket does not lack it: in place of one that seems dead,
    drawn: u32,
    /// and so many times in place of one of the sample.
    renewals: usize,
}

impl View {
    /// Of nobody, by the node `me`.
    pub(super) fn new(me: &PeerId, max: usize) -> Self {
        Self {
            me: place(me),
            max,
            all: BTreeSet::new(),
            lens: [0; BUCKETS],
            dead: BTreeSet::new(),
            drawn: 0,
            renewals: 0,
        }
    }

    /// How many places there are.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    fn bucket_max(&self) -> usize {
        (self.max / BUCKET_PART).clamp(BUCKET_MIN, BUCKET_MAX)
    }

    /// The bucket of `id`.
    pub(super) fn bucket_of(&self, id: &PeerId) -> Bucket {
        self.bucket(place(id))
    }

    fn bucket(&self, place: u32) -> Bucket {
        (place ^ self.me).leading_zeros()
    }

    /// It came, at that moment.
    pub(super) fn insert(&mut self, since: Instant, id: PeerId) {
        let bucket = self.bucket_of(&id);
        if self.all.insert((bucket, since, place(&id))) {
            self.change(bucket, 1);
        }
    }

    /// It went.
    pub(super) fn remove(&mut self, since: Instant, id: &PeerId) {
        let bucket = self.bucket_of(id);
        self.dead.remove(id);
        if self.all.remove(&(bucket, since, place(id))) {
            self.change(bucket, -1);
        }
    }

    fn change(&mut self, bucket: Bucket, by: i16) {
        if let Some(len) = self.lens.get_mut(bucket as usize) {
            *len = len.saturating_add_signed(by);
        }
    }

    fn len(&self, bucket: Bucket) -> usize {
        self.lens.get(bucket as usize).map_or(0, |len| usize::from(*len))
    }

    /// Whether it seems dead.
    pub(super) fn set_dead(&mut self, id: &PeerId, is_dead: bool) {
        if is_dead {
            self.dead.insert(*id);
        } else {
            self.dead.remove(id);
        }
    }

    /// Those that seem dead.
    pub(super) fn dead(&self) -> impl Iterator<Item = &PeerId> {
        self.dead.iter()
    }

    /// From which bucket on all are near.
    fn near(&self) -> Bucket {
        let mut count = 0;
        let fits = |(_, len): &(Bucket, &u16)| {
            count += usize::from(**len);
            count <= NEAR
        };
        let deepest_first = (0..).zip(&self.lens).collect::<ArrayVec<_, BUCKETS>>().into_iter().rev();
        deepest_first.take_while(fits).last().map_or(Bucket::MAX, |(bucket, _)| bucket)
    }

    /// How many of a bucket are not sure of their places.
    fn surplus(&self, bucket: Bucket, near: Bucket) -> usize {
        if bucket >= near { 0 } else { self.len(bucket).saturating_sub(self.bucket_max()) }
    }

    /// Whether a supernode that is not here would be let into the full table, by the first bytes of its place.
    pub(super) fn admits(&self, prefix: [u8; 4]) -> bool {
        let place = u32::from_be_bytes(prefix);
        self.is_sure(place) || self.is_drawn(place)
    }

    /// Whether its bucket lacks it.
    fn is_sure(&self, place: u32) -> bool {
        let (bucket, near) = (self.bucket(place), self.near());
        bucket >= near || self.len(bucket) < self.bucket_max()
    }

    fn is_drawn(&self, place: u32) -> bool {
        let has_room = || self.renewals > 0 && self.surplus(self.bucket(place), self.near()) > 0;
        self.drawn == place % DRAWS && (!self.dead.is_empty() || has_room())
    }

    /// Some more newcomers are let into the sample: of those whose places end in the number drawn.
    pub(super) fn renew_sample(&mut self, draw: impl FnOnce(usize) -> usize) {
        self.drawn = u32::try_from(draw(DRAWS as usize)).unwrap_or(0);
        self.renewals = (self.max / RENEWED_PART).max(1);
    }

    /// Who goes for `id`, by the first bytes of its place. None: nobody is to.
    pub(super) fn make_room_for(&mut self, id: &PeerId) -> Option<[u8; 4]> {
        if let Some(dead) = self.dead.first() {
            return Some(id_prefix(dead));
        }
        let place = place(id);
        if self.is_sure(place) {
            return self.longest_in_fullest();
        }
        if !self.is_drawn(place) {
            return None;
        }
        self.renewals = self.renewals.saturating_sub(1);
        self.longest_in_sample(self.bucket(place))
    }

    /// Who has been in the fullest bucket's sample for longest.
    pub(super) fn longest_in_fullest(&self) -> Option<[u8; 4]> {
        let near = self.near();
        let fullest = (0..near.min(32)).max_by_key(|bucket| self.surplus(*bucket, near))?;
        self.longest_in_sample(fullest)
    }

    /// Who has been in a bucket's sample for longest.
    fn longest_in_sample(&self, bucket: Bucket) -> Option<[u8; 4]> {
        let surplus = self.surplus(bucket, self.near());
        if surplus == 0 {
            return None;
        }
        let sample = (self.len(bucket) / SAMPLE_PART).clamp(1, surplus);
        // Behind these in the order of all.
        let deeper: usize = self.lens.iter().skip(bucket as usize + 1).map(|len| usize::from(*len)).sum();
        self.all.iter().rev().nth(deeper + sample - 1).map(|(.., place)| place.to_be_bytes())
    }
}

fn place(id: &PeerId) -> u32 {
    u32::from_be_bytes(id_prefix(id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::ChoiceRng;

    fn at(s: usize) -> Instant {
        Instant::from_micros(s as u64 * 1_000_000)
    }

    fn id(n: usize) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        crate::identity::SecretKey::from_bytes(&seed).peer_id()
    }

    /// A view that has met so many, one after the other, with a draw after each; and when it let each in.
    fn met(max: usize, count: usize) -> (View, BTreeMap<PeerId, Instant>) {
        let mut view = View::new(&id(1_000_000), max);
        let (mut here, mut chance) = (BTreeMap::new(), ChoiceRng::new([7; 32]));
        for n in 0..count {
            let (peer, now) = (id(n), at(n));
            if here.len() >= max {
                view.renew_sample(|below| chance.below(below));
                if !view.admits(id_prefix(&peer)) {
                    continue;
                }
                let gone = view.make_room_for(&peer).expect("who is let in has a place");
                let gone = *here.keys().find(|peer| id_prefix(peer) == gone).expect("it is here");
                view.remove(here.remove(&gone).expect("it is here"), &gone);
            }
            view.insert(now, peer);
            here.insert(peer, now);
            assert_eq!(view.lens.iter().map(|len| usize::from(*len)).sum::<usize>(), here.len());
            assert_eq!(view.all.len(), here.len());
        }
        (view, here)
    }

    #[test]
    fn while_all_fit_all_are_known() {
        assert_eq!(met(64, 64).1.len(), 64);
    }

    #[test]
    fn beyond_that_the_nearest_the_oldest_of_each_bucket_and_a_sample_are_known() {
        for (max, count) in [(64, 1_500), (256, 3_000)] {
            let (view, here) = met(max, count);
            assert_eq!(here.len(), max);
            let distance = |peer: &PeerId| place(peer) ^ view.me;
            let mut all: Vec<PeerId> = (0..count).map(id).collect();
            all.sort_by_key(distance);
            let nearest = all.iter().take_while(|peer| here.contains_key(peer)).count();
            assert!(nearest >= NEAR / 2, "{nearest} of the nearest");
            for bucket in 0..view.near() {
                let mut of: Vec<usize> = (0..count).filter(|n| view.bucket_of(&id(*n)) == bucket).collect();
                let known: Vec<usize> = of.iter().filter(|n| here.contains_key(&id(**n))).copied().collect();
                of.truncate(view.bucket_max());
                assert!(known.len() >= of.len(), "bucket {bucket} has {} of {}", known.len(), of.len());
            }
            let first: Vec<usize> =
                (0..count).filter(|n| view.bucket_of(&id(*n)) == 0).take(view.bucket_max()).collect();
            assert!(first.iter().all(|n| here.contains_key(&id(*n))), "the oldest stay");
            let young = here.values().filter(|since| **since > at(count / 2)).count();
            assert!((max / 32..=max / 2).contains(&young), "{young} are of the later half");
        }
    }

    #[test]
    fn who_seems_dead_goes_first() {
        let (mut view, here) = met(64, 64);
        let dead = *here.keys().next().expect("some");
        view.set_dead(&dead, true);
        let fits = |peer: &PeerId| view.bucket_of(peer) == 0 && place(peer).is_multiple_of(DRAWS);
        let newcomer = (64..10_000).map(id).find(fits).expect("one of 128");
        assert!(view.admits(id_prefix(&newcomer)));
        assert_eq!(view.make_room_for(&newcomer), Some(id_prefix(&dead)));
        view.set_dead(&dead, false);
        assert!(!view.admits(id_prefix(&newcomer)) && view.make_room_for(&newcomer).is_none());
    }
}
