//! Time as the core sees it: numbers that the caller passes in.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// A moment on a monotonic clock: microseconds since an origin that the caller picks.
///
/// An own type and not std's, because std's cannot be built from a number: runs would be neither loggable nor
/// comparable byte for byte. There is deliberately no `now()`.
///
/// The number is kept one higher than it is, so that an `Option` of a moment takes no more room than the moment: a
/// supernode keeps a handful of these for each of a million leaves.
///
/// ```
/// use core::time::Duration;
/// use handfast_core::Instant;
///
/// let start = Instant::from_micros(5);
/// let later = start + Duration::from_millis(1);
/// assert_eq!(later.as_micros(), 1_005);
/// assert_eq!(later - start, Duration::from_millis(1));
/// assert_eq!(start - later, Duration::ZERO, "never negative");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

const _: () = assert!(size_of::<Option<Instant>>() == 8);

impl Instant {
    /// The origin itself.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The moment `us` microseconds after the origin. Saturates one below the highest number.
    pub const fn from_micros(us: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(us))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole seconds since the origin.
    pub const fn as_secs(self) -> u64 {
        self.as_micros() / 1_000_000
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.as_micros().saturating_sub(earlier.as_micros()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self::from_micros(self.as_micros().saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Saturates: time since a later moment is zero.
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self::from_micros(self.as_micros().saturating_sub(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.as_secs(), self.as_micros() % 1_000_000)
    }
}

/// A moment on the wall clock: microseconds since the Unix epoch. Used for expiry and freshness, never for timers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// The moment `us` microseconds after the Unix epoch.
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How far apart two moments are, whichever is the earlier.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0))
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// One ordered set of deadlines, so that asking for the next one scans nothing.
///
/// A key has at most one deadline. The owner keeps the current deadline beside the thing it belongs to and passes it
/// back when it moves; this keeps the set a plain `BTreeSet` without a second index.
#[derive(Debug, Clone)]
pub struct Deadlines<K: Ord + Copy> {
    set: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self { set: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Moves the deadline of `key` from `old` to `new`, and `old` with it.
    pub fn set(&mut self, key: K, old: &mut Option<Instant>, new: Option<Instant>) {
        if *old == new {
            return;
        }
        if let Some(at) = *old {
            self.set.remove(&(at, key));
        }
        if let Some(at) = new {
            self.set.insert((at, key));
        }
        *old = new;
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    /// Removes and returns one key whose deadline has come (`at <= now`), earliest first.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.set.first()?;
        if at > now {
            return None;
        }
        self.set.remove(&(at, key));
        Some(key)
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

/// A map of at most `MAX` entries, each with a moment: at the limit the oldest is struck for a new one.
///
/// The entries are kept in the order of their moments too, so that neither this nor forgetting the old ones costs more
/// as the map grows. Deliberately it cannot be iterated.
#[derive(Debug)]
pub(crate) struct Aged<K, V, const MAX: usize> {
    map: BTreeMap<K, (Instant, V)>,
    order: BTreeSet<(Instant, K)>,
}

impl<K, V, const MAX: usize> Default for Aged<K, V, MAX> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Copy, V, const MAX: usize> Aged<K, V, MAX> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether a new entry strikes an old one.
    pub(crate) fn is_full(&self) -> bool {
        self.map.len() >= MAX
    }

    /// The entry of `key`, and its moment.
    pub(crate) fn get(&self, key: &K) -> Option<&(Instant, V)> {
        self.map.get(key)
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.map.keys()
    }

    /// Enters `key` with this moment, whether it was there or not.
    pub(crate) fn insert(&mut self, at: Instant, key: K, value: V) {
        self.remove(&key);
        self.get_or_insert(at, key, value);
    }

    /// The entry of `key`, which keeps the moment that it has; a new one, with this moment, if there is none.
    pub(crate) fn get_or_insert(&mut self, at: Instant, key: K, value: V) -> &mut V {
        if !self.map.contains_key(&key) {
            if self.is_full() {
                self.pop_oldest_if(|_| true);
            }
            self.order.insert((at, key));
        }
        &mut self.map.entry(key).or_insert((at, value)).1
    }

    /// Removes the entry of `key`.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (at, value) = self.map.remove(key)?;
        self.order.remove(&(at, *key));
        if self.map.is_empty() {
            // An empty tree would keep its root.
            *self = Self::default();
        }
        Some(value)
    }

    /// The moment of the oldest entry.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes and returns the oldest entry, if its moment is one of these.
    pub(crate) fn pop_oldest_if(&mut self, is_meant: impl FnOnce(Instant) -> bool) -> Option<(K, V)> {
        let (_, key) = *self.order.first().filter(|(at, _)| is_meant(*at))?;
        Some((key, self.remove(&key)?))
    }

    /// Removes the oldest entries, as long as their moments are these.
    pub(crate) fn forget_while(&mut self, is_old: impl Fn(Instant) -> bool) {
        while self.pop_oldest_if(&is_old).is_some() {}
    }
}

/// The earlier of two optional moments; `None` is never.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ChoiceRng;

    const MAX: usize = 40;
    type Entries = Vec<(u8, (Instant, usize))>;

    /// What [`Aged`] does, by looking through all entries.
    fn insert_naively(model: &mut Entries, at: Instant, key: u8, value: usize) {
        if model.len() >= MAX {
            let oldest = (0..model.len()).min_by_key(|i| (model[*i].1.0, model[*i].0)).expect("it is full");
            model.remove(oldest);
        }
        model.push((key, (at, value)));
    }

    #[test]
    fn aged_entries_are_those_of_a_map_that_is_searched_for_its_oldest() {
        let mut chance = ChoiceRng::new([7; 32]);
        let (mut aged, mut model) = (Aged::<u8, usize, MAX>::default(), Entries::new());
        for n in 0..5_000 {
            let key = u8::try_from(chance.below(2 * MAX)).expect("small");
            // Often the same moment, and not always a later one than before.
            let at = Instant::from_micros((n / 8 + chance.below(20)) as u64);
            let known = model.iter().position(|(other, _)| *other == key);
            match chance.below(40) {
                0..=19 => {
                    known.map(|place| model.remove(place));
                    insert_naively(&mut model, at, key, n);
                    aged.insert(at, key, n);
                }
                20..=34 => {
                    if known.is_none() {
                        insert_naively(&mut model, at, key, n);
                    }
                    let value = aged.get_or_insert(at, key, n);
                    assert_eq!(model.iter().find(|(other, _)| *other == key).map(|(_, (_, n))| *n), Some(*value));
                }
                35..=38 => assert_eq!(aged.remove(&key), known.map(|place| model.remove(place).1.1)),
                _ => {
                    model.retain(|(_, (moment, _))| *moment >= at);
                    aged.forget_while(|moment| moment < at);
                }
            }
            for key in 0..2 * MAX as u8 {
                assert_eq!(aged.get(&key), model.iter().find(|(other, _)| *other == key).map(|(_, entry)| entry));
            }
            assert_eq!(aged.oldest(), model.iter().map(|(_, (at, _))| *at).min());
            assert_eq!((aged.map.len(), aged.order.len()), (model.len(), model.len()));
            assert_eq!(aged.is_full(), model.len() == MAX);
        }
    }
}
