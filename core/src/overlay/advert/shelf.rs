//! Where signed statements are kept: in the order of the BLAKE3 hash of their ids, by expiry, and by recency.
//!
//! One shelf serves adverts and records. What is common is here: no bytes are verified that are known already or
//! that come faster than their source's [budget](verify_budget); a sequence number only grows; everything ends. What
//! differs (how many, from whom, what goes first when full) is decided by the owner between [`Shelf::examine`] and
//! [`Shelf::put`].
//!
//! It also speaks gossip's language: [`DigestEntry`] says "I have this id at this sequence number", with zero for
//! "nothing of it"; whoever has a newer one sends it.

use core::cmp::Ordering;
use core::marker::PhantomData;
use core::ops::{Bound, RangeInclusive};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::statement::{self, Statement, StatementError};
use crate::account::{Rate, RateTable, Source};
use crate::identity::PeerId;
use crate::time::{Instant, WallTime};
use crate::wire::message::{DIGEST_MAX, DigestEntry};

/// So many of the newest changes can be listed in a digest: as many as one has room for.
const CHANGES_MAX: usize = DIGEST_MAX;

/// Most sources whose verify budget is kept.
const SOURCES_MAX: usize = 2048;

/// Signature checks: 39 µs each, so 1 250 a second are 5 % of a core, and the shelves of adverts and records together
/// keep the 10 % that a flood of junk signatures may cost. One source gets at most 40 % of that.
fn verify_budget() -> RateTable<Source> {
    let each = Rate { interval: Duration::from_millis(2), burst: 500 };
    let all = Rate { interval: Duration::from_micros(800), burst: 1250 };
    RateTable::new(each, all, SOURCES_MAX)
}

/// The order on the shelf: the first half of BLAKE3 of the id. Two ids with one place take 2^64 work to find, and
/// whoever finds them has two ids of which only one is kept.
type Place = [u8; 16];

/// Where `id` stands, to `N` bytes.
pub(crate) fn id_prefix<const N: usize>(id: &PeerId) -> [u8; N] {
    let hash = blake3::hash(id.as_bytes());
    const { assert!(N <= 32) };
    hash.as_bytes().first_chunk().copied().unwrap_or([0; N])
}

fn place(id: &PeerId) -> Place {
    id_prefix(id)
}

/// How far the places of two ids are from each other.
pub(crate) fn distance(a: &PeerId, b: &PeerId) -> u128 {
    u128::from_be_bytes(place(a)) ^ u128::from_be_bytes(place(b))
}

/// The first place that begins with `prefix`.
fn start_of<const N: usize>(prefix: [u8; N]) -> Place {
    let mut start = [0; 16];
    start.iter_mut().zip(prefix).for_each(|(to, from)| *to = from);
    start
}

/// Why a statement was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Refused {
    /// We have it, or a newer one: nothing to do, and no sign of ill will.
    Known,
    /// It speaks of this node itself.
    Own,
    /// Bad in itself.
    Bad(StatementError),
    /// The neighbour has used up its share of signature checks.
    Budget,
    /// This node has not been at an address that it names.
    Unproven,
    /// The table is full.
    Full,
    /// Too many of one prefix, or of one home.
    Crowded,
}

impl From<StatementError> for Refused {
    fn from(error: StatementError) -> Self {
        Self::Bad(error)
    }
}

/// A statement that is in time and new, and authentic if it passed [`Shelf::examine`] and not only [`Shelf::skim`].
pub(crate) struct Checked<S> {
    pub statement: S,
    expires: Instant,
}

impl<S> Checked<S> {
    /// It goes at that moment, unless it ends sooner.
    pub(crate) fn until(mut self, at: Instant) -> Self {
        self.expires = self.expires.min(at);
        self
    }
}

/// Whose it is stands in its bytes, and in the value where that is needed.
struct Item<T> {
    bytes: Box<[u8]>,
    sequence: u64,
    expires: Instant,
    changed: u64,
    value: T,
}

/// Statements of kind `S`, each with what its owner remembers beside it.
pub(crate) struct Shelf<S, T> {
    /// Boxed, since a third of a tree's places are empty.
    items: BTreeMap<Place, Box<Item<T>>>,
    expiries: BTreeSet<(Instant, Place)>,
    /// The last [`CHANGES_MAX`] to arrive that are still here, newest last.
    changes: BTreeMap<u64, Place>,
    next_change: u64,
    /// Where the next digest goes on listing what is not new.
    cursor: Option<Place>,
    budget: RateTable<Source>,
    kind: PhantomData<S>,
}

impl<S: Statement, T> Shelf<S, T> {
    pub(crate) fn new() -> Self {
        Self {
            items: BTreeMap::new(),
            expiries: BTreeSet::new(),
            changes: BTreeMap::new(),
            next_change: 0,
            cursor: None,
            budget: verify_budget(),
            kind: PhantomData,
        }
    }

    /// Decides whether bytes from there are worth keeping. `admit` looks at the parsed statement before its signature is
    /// checked, so that what has no place costs no check.
    pub(crate) fn examine(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
        admit: impl FnOnce(&Self, &S) -> Result<(), Refused>,
    ) -> Result<Checked<S>, Refused> {
        let checked = self.skim(now, from, wall, bytes, admit)?;
        self.budget.charge(now, from);
        statement::verify(&checked.statement, bytes)?;
        Ok(checked)
    }

    /// The same without its signature, which is the more expensive half.
    pub(crate) fn skim(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
        admit: impl FnOnce(&Self, &S) -> Result<(), Refused>,
    ) -> Result<Checked<S>, Refused> {
        // The same again needs no look.
        if statement::subject(bytes).is_some_and(|id| self.bytes(&id) == Some(bytes)) {
            return Err(Refused::Known);
        }
        if !self.budget.allows(now, &from) {
            return Err(Refused::Budget);
        }
        // Reading costs a point decompression, so junk is charged for as well.
        let statement: S = statement::parse(bytes).inspect_err(|_| self.budget.charge(now, from))?;
        if self.items.get(&place(&statement.id())).is_some_and(|item| item.sequence >= statement.sequence()) {
            return Err(Refused::Known);
        }
        let left = statement::time_left(&statement, wall)?;
        admit(self, &statement)?;
        Ok(Checked { statement, expires: now + left })
    }

    /// Whether the statement of `id` that is kept is signed, where it was taken without a look at that.
    pub(crate) fn verify_kept(&mut self, now: Instant, from: Source, id: &PeerId) -> Result<bool, Refused> {
        if !self.budget.allows(now, &from) {
            return Err(Refused::Budget);
        }
        self.budget.charge(now, from);
        let bytes = self.bytes(id).ok_or(Refused::Unproven)?;
        Ok(statement::parse::<S>(bytes).is_ok_and(|statement| statement::verify(&statement, bytes).is_ok()))
    }

    /// Takes a statement; returns what was remembered beside the one it replaces.
    pub(crate) fn put(&mut self, checked: &Checked<S>, bytes: &[u8], value: T) -> Option<T> {
        let place = place(&checked.statement.id());
        let old = self.take(&place);
        let changed = self.next_change;
        self.next_change += 1;
        self.changes.insert(changed, place);
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_first();
        }
        self.expiries.insert((checked.expires, place));
        let sequence = checked.statement.sequence();
        let expires = checked.expires;
        let item = Item { bytes: bytes.into(), sequence, expires, changed, value };
        self.items.insert(place, Box::new(item));
        debug_assert!(self.items.len() == self.expiries.len() && self.items.len() >= self.changes.len());
        old
    }

    /// Takes a statement of our own making.
    pub(crate) fn put_own(&mut self, now: Instant, statement: S, bytes: &[u8], value: T) {
        let expires = now + Duration::from_secs(statement.lifetime_s().into());
        self.put(&Checked { statement, expires }, bytes, value);
    }

    fn take(&mut self, place: &Place) -> Option<T> {
        let item = self.items.remove(place)?;
        self.expiries.remove(&(item.expires, *place));
        self.changes.remove(&item.changed);
        Some(item.value)
    }

    pub(crate) fn remove(&mut self, id: &PeerId) -> Option<T> {
        self.take(&place(id))
    }

    /// Removes and returns one whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<T> {
        self.budget.handle_timeout(now);
        let &(at, place) = self.expiries.first()?;
        if at > now {
            return None;
        }
        self.take(&place)
    }

    /// The same, with whose it is.
    pub(crate) fn pop_expired_id(&mut self, now: Instant) -> Option<(PeerId, T)> {
        self.budget.handle_timeout(now);
        let &(_, place) = self.expiries.first().filter(|(at, _)| *at <= now)?;
        // What is here was read before.
        let id = self.items.get(&place).and_then(|item| statement::subject(&item.bytes))?;
        Some((id, self.take(&place)?))
    }

    /// The moment at which the next one ends.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn contains(&self, id: &PeerId) -> bool {
        self.items.contains_key(&place(id))
    }

    pub(crate) fn bytes(&self, id: &PeerId) -> Option<&[u8]> {
        self.items.get(&place(id)).map(|item| &*item.bytes)
    }

    pub(crate) fn value(&self, id: &PeerId) -> Option<&T> {
        self.items.get(&place(id)).map(|item| &item.value)
    }

    pub(crate) fn value_mut(&mut self, id: &PeerId) -> Option<&mut T> {
        self.items.get_mut(&place(id)).map(|item| &mut item.value)
    }

    /// All, in order of their places, with the signed bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&T, &[u8])> {
        self.items.values().map(|item| (&item.value, &*item.bytes))
    }

    /// All, in order of their places, from this one on and round to it.
    pub(crate) fn from(&self, place: Place) -> impl Iterator<Item = &T> {
        let ring = self.items.range(place..).chain(self.items.range(..place));
        ring.map(|(_, item)| &item.value)
    }

    /// Those whose places begin with these numbers, in order.
    pub(crate) fn within(&self, prefixes: RangeInclusive<u64>) -> impl Iterator<Item = (u64, &T, &[u8])> {
        let (first, last) = prefixes.into_inner();
        let last = u128::from(last) << 64 | u128::from(u64::MAX);
        let number = |place: &Place| u64::from_be_bytes(*place.first_chunk().expect("a place is longer"));
        let all = self.items.range(start_of(first.to_be_bytes())..=last.to_be_bytes());
        all.map(move |(place, item)| (number(place), &item.value, &*item.bytes))
    }

    /// Those whose places are nearest to that of `id` by XOR, nearest first, until `take` has enough.
    pub(crate) fn nearest_until<'a>(&'a self, id: &PeerId, mut has_enough: impl FnMut(&'a T, &'a [u8]) -> bool) {
        let target = u128::from_be_bytes(place(id));
        // All that share exactly so many first bits with the target lie in one stretch, and are nearer than all that
        // share fewer. Where the table is sparse, most stretches are empty: those longer than any shared prefix.
        let shared = |other: &Place| (u128::from_be_bytes(*other) ^ target).leading_zeros();
        let at = target.to_be_bytes();
        let (after, before) = (self.items.range(at..).next(), self.items.range(..at).next_back());
        let longest = after.into_iter().chain(before).map(|(place, _)| shared(place)).max();
        for bits in (0..=longest.unwrap_or(0)).rev() {
            let (first, last) = stretch(target, bits);
            let mut stretch: Vec<_> = self.items.range(first..=last).collect();
            stretch.sort_unstable_by_key(|(place, _)| u128::from_be_bytes(**place) ^ target);
            if stretch.into_iter().any(|(_, item)| has_enough(&item.value, &item.bytes)) {
                return;
            }
        }
    }

    /// The `max` whose places are nearest to that of `id`, nearest first.
    pub(crate) fn nearest(&self, id: &PeerId, max: usize) -> Vec<&[u8]> {
        let mut nearest = Vec::new();
        if max > 0 {
            self.nearest_until(id, |_, bytes| {
                nearest.push(bytes);
                nearest.len() >= max
            });
        }
        nearest
    }

    /// The statement of `id` is kept at least until then, or as long as it holds.
    pub(crate) fn keep_until(&mut self, now: Instant, wall: Option<WallTime>, id: &PeerId, at: Instant) {
        let place = place(id);
        let Some(item) = self.items.get(&place) else { return };
        let Ok(left) = statement::time_left_of::<S>(&item.bytes, wall) else { return };
        let expires = at.min(now + left).max(item.expires);
        self.expire_at(place, expires);
    }

    /// The statement of `id` goes then, unless it ends sooner.
    pub(crate) fn end_at(&mut self, id: &PeerId, at: Instant) {
        let place = place(id);
        if let Some(expires) = self.items.get(&place).map(|item| item.expires.min(at)) {
            self.expire_at(place, expires);
        }
    }

    fn expire_at(&mut self, place: Place, at: Instant) {
        let Some(item) = self.items.get_mut(&place) else { return };
        self.expiries.remove(&(item.expires, place));
        item.expires = at;
        self.expiries.insert((at, place));
    }

    /// The one whose place begins with these eight bytes.
    pub(crate) fn by_prefix_mut(&mut self, prefix: [u8; 8]) -> Option<&mut T> {
        let (place, item) = self.items.range_mut(start_of(prefix)..).next()?;
        place.starts_with(&prefix).then_some(&mut item.value)
    }

    /// The bytes of the one whose place begins so.
    pub(crate) fn by_place(&self, prefix: [u8; 8]) -> Option<&[u8]> {
        let (place, item) = self.items.range(start_of(prefix)..).next()?;
        place.starts_with(&prefix).then_some(&*item.bytes)
    }

    /// What to list in a digest: the newest changes, and a stretch of the rest that moves on with each call, so that
    /// in time every difference between two nodes is seen, however old.
    pub(crate) fn digest(&mut self, newest_max: usize, others_max: usize) -> Vec<DigestEntry> {
        let mut places: BTreeSet<Place> = self.changes.values().rev().take(newest_max).copied().collect();
        let start = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.items.range((start, Bound::Unbounded)).map(|(place, _)| *place);
        let rest: Vec<Place> = rest.filter(|place| !places.contains(place)).take(others_max).collect();
        // Fewer than asked for: the end was reached, begin again.
        self.cursor = if rest.len() < others_max { None } else { rest.last().copied() };
        places.extend(rest);
        let entry = |place: &Place| self.items.get(place).map(|item| entry(place, item.sequence));
        places.iter().filter_map(entry).collect()
    }

    /// Compares with what another node says it has: `send` is called for those of which we have a newer one; what
    /// comes back is said of those of which we have an older one, or none and want one.
    pub(crate) fn compare(
        &self,
        theirs: &[DigestEntry],
        wants: impl Fn([u8; 4]) -> bool,
        mut send: impl FnMut(&[u8]),
    ) -> Vec<DigestEntry> {
        let mut lacking = Vec::new();
        for entry in theirs {
            let theirs = u32::from_le_bytes(entry.sequence_low);
            let near = self.items.range(start_of(entry.id_prefix)..);
            let mut same = near.take_while(|(place, _)| place.starts_with(&entry.id_prefix)).map(|(_, item)| item);
            // Two ids with the same four bytes are rare, and one of them then waits for its maker's own push.
            let ours = same.next();
            let low = ours.map_or(0, |item| u32::from_le_bytes(low_bytes(item.sequence)));
            match (ours, order(low, theirs)) {
                (Some(item), Ordering::Greater) => send(&item.bytes),
                (ours, Ordering::Less) if ours.is_some() || wants(entry.id_prefix) => {
                    lacking.push(DigestEntry { sequence_low: low.to_le_bytes(), ..*entry });
                }
                (_, Ordering::Equal | Ordering::Less) | (None, Ordering::Greater) => {}
            }
        }
        lacking
    }
}

/// The first and the last place that share exactly so many first bits with the target; where these are all, itself.
fn stretch(target: u128, bits: u32) -> (Place, Place) {
    let Some(rest) = 127_u32.checked_sub(bits) else { return (target.to_be_bytes(), target.to_be_bytes()) };
    let flipped = target ^ (1 << rest);
    let low = (1_u128 << rest) - 1;
    ((flipped & !low).to_be_bytes(), (flipped | low).to_be_bytes())
}

/// Serial number arithmetic (RFC 1982), since only the low bytes travel; zero stands for having nothing.
fn order(ours: u32, theirs: u32) -> Ordering {
    match (ours, theirs) {
        (0, 0) => Ordering::Equal,
        (0, _) => Ordering::Less,
        (_, 0) => Ordering::Greater,
        (ours, theirs) => ours.wrapping_sub(theirs).cast_signed().cmp(&0),
    }
}

fn entry(place: &Place, sequence: u64) -> DigestEntry {
    let [a, b, c, d, ..] = *place;
    DigestEntry { id_prefix: [a, b, c, d], sequence_low: low_bytes(sequence) }
}

/// What travels of a sequence number.
fn low_bytes(sequence: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = sequence.to_le_bytes();
    [a, b, c, d]
}
