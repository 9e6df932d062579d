//! The records that a supernode keeps: of leaves that are registered here, and of others because it is one of the
//! supernodes nearest to them.
//!
//! Anyone can make up peers and sign for them, so what others put is charged to the [`Putter`]'s prefix: while there is
//! plenty of room anything goes; from half full on, nobody may have more than a share, and in a full store whoever has
//! most makes room. What was put is forgotten when it is not put again, and so is what a leaf leaves behind that was
//! registered here; one that is has its place as long as its record holds.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::{RECORD_LIFETIME_MAX, Record};
use crate::account::Source;
use crate::identity::PeerId;
use crate::overlay::advert::shelf::{Refused, Shelf, id_prefix};
use crate::overlay::advert::statement::subject;
use crate::time::{Instant, WallTime};
use crate::wire::message::{Message, Renewal};

/// Most records that others put, by default.
pub(crate) const RECORDS_MAX: usize = 100_000;
/// From half full on, one putter may have at most this part of all places.
const PUTTER_SHARE: usize = 8;
/// What was put is forgotten after this, unless it is put again.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(2 * 3_600);

/// The number of those whose records nobody is charged for.
const OURS: u32 = 0;

/// Who brought a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Putter {
    /// Its leaf, which is registered here.
    Leaf,
    /// A supernode, or all of its prefix.
    Supernode(Source),
    /// Leaves that were registered here.
    Gone,
}

/// How a record is named. None: it is none.
pub(super) fn renewal_of(bytes: &[u8]) -> Option<Renewal> {
    let hash = *blake3::hash(bytes).as_bytes().first_chunk()?;
    Some(Renewal { place: id_prefix(&subject(bytes)?), hash })
}

/// Records, each charged to the one who brought it.
pub(crate) struct RecordStore {
    held_max: usize,
    /// Beside each record its putter, by number: ids would double what a record weighs. Leaves of ours have
    /// [`OURS`].
    shelf: Shelf<Record, u32>,
    putters: BTreeMap<Putter, u32>,
    /// What each has put.
    put: BTreeMap<u32, (Putter, BTreeSet<PeerId>)>,
    next_number: u32,
    held: usize,
}

impl RecordStore {
    /// An empty store, with room for so many records that others put.
    pub(crate) fn new(held_max: usize) -> Self {
        Self { held_max, shelf: Shelf::new(), putters: BTreeMap::new(), put: BTreeMap::new(), next_number: 0, held: 0 }
    }

    /// Takes signed bytes that came from there. The same record again is kept longer.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
        putter: Putter,
    ) -> Result<PeerId, Refused> {
        let (has, held, max) = (self.records_of(putter), self.held, self.held_max);
        let (half, share) = (max / 2, max / PUTTER_SHARE);
        let most = if held < max { max } else { self.put.values().map(|(_, put)| put.len()).max().unwrap_or(0) };
        let checked = self.shelf.examine(now, from, wall, bytes, |shelf, record: &Record| {
            let is_free = putter == Putter::Leaf || shelf.contains(&record.id) || held < half;
            let has_room = is_free || (has < share && has + 1 < most);
            if has_room { Ok(()) } else { Err(Refused::Crowded) }
        });
        let checked = match checked {
            Ok(checked) if self.is_ours(putter, &checked.statement.id) => checked,
            Ok(checked) => checked.until(now + HELD_FOR),
            Err(Refused::Known) => return self.keep(now, wall, bytes, putter),
            Err(refused) => return Err(refused),
        };
        let id = checked.statement.id;
        let is_ours = self.is_ours(putter, &id);
        if !is_ours && self.held >= self.held_max && !self.shelf.contains(&id) {
            self.make_room();
        }
        self.discharge(&id);
        let number = if is_ours { OURS } else { self.charge(putter, id) };
        self.shelf.put(&checked, bytes, number);
        debug_assert!(self.held <= self.held_max.max(1));
        Ok(id)
    }

    /// Whether it is the record of a leaf of ours, which keeps its place, whoever brings a newer one.
    fn is_ours(&self, putter: Putter, id: &PeerId) -> bool {
        putter == Putter::Leaf || self.shelf.value(id) == Some(&OURS)
    }

    /// Once more the same: whoever put it still means it. It is as good as new if it is a leaf's of ours from now on.
    fn keep(&mut self, now: Instant, wall: Option<WallTime>, bytes: &[u8], putter: Putter) -> Result<PeerId, Refused> {
        let same = subject(bytes).filter(|id| self.shelf.bytes(id) == Some(bytes));
        let id = same.ok_or(Refused::Known)?;
        if putter != Putter::Leaf || self.shelf.value(&id) == Some(&OURS) {
            self.shelf.keep_until(now, wall, &id, now + HELD_FOR);
            return Err(Refused::Known);
        }
        self.discharge(&id);
        self.set_number(&id, OURS);
        self.shelf.keep_until(now, wall, &id, now + RECORD_LIFETIME_MAX);
        Ok(id)
    }

    /// Whoever put this very record still means it. Says whether it is here, or one that will do.
    pub(crate) fn renew(&mut self, now: Instant, wall: Option<WallTime>, renewal: Renewal) -> bool {
        let Some(id) = self.named(renewal).and_then(subject) else { return false };
        if renewal.hash == Renewal::ANY {
            return true;
        }
        self.shelf.keep_until(now, wall, &id, now + HELD_FOR);
        true
    }

    /// The record that is named so.
    pub(crate) fn named(&self, renewal: Renewal) -> Option<&[u8]> {
        let is_it = |bytes: &&[u8]| renewal.hash == Renewal::ANY || renewal_of(bytes) == Some(renewal);
        self.shelf.by_place(renewal.place).filter(is_it)
    }

    /// A leaf is registered here no longer: its record stays for a while, where such do not take too much room.
    pub(crate) fn let_go(&mut self, now: Instant, id: &PeerId) {
        if self.shelf.value(id) != Some(&OURS) {
            return;
        }
        if self.records_of(Putter::Gone) >= self.held_max / PUTTER_SHARE {
            return self.remove(id);
        }
        if self.held >= self.held_max {
            self.make_room();
        }
        let number = self.charge(Putter::Gone, *id);
        self.set_number(id, number);
        self.shelf.end_at(id, now + HELD_FOR);
    }

    fn set_number(&mut self, id: &PeerId, number: u32) {
        if let Some(value) = self.shelf.value_mut(id) {
            *value = number;
        }
    }

    fn records_of(&self, putter: Putter) -> usize {
        let number = self.putters.get(&putter);
        number.and_then(|number| self.put.get(number)).map_or(0, |(_, records)| records.len())
    }

    fn charge(&mut self, putter: Putter, id: PeerId) -> u32 {
        let next = &mut self.next_number;
        let number = *self.putters.entry(putter).or_insert_with(|| {
            *next = next.wrapping_add(1).max(OURS + 1);
            *next
        });
        self.put.entry(number).or_insert_with(|| (putter, BTreeSet::new())).1.insert(id);
        self.held += 1;
        number
    }

    /// Nobody is charged for a record any more.
    fn discharge(&mut self, id: &PeerId) {
        if let Some(number) = self.shelf.value(id).copied() {
            self.give_back(number, id);
        }
    }

    fn give_back(&mut self, number: u32, id: &PeerId) {
        let Some((putter, records)) = self.put.get_mut(&number) else { return };
        self.held -= usize::from(records.remove(id));
        if records.is_empty() {
            self.putters.remove(putter);
            self.put.remove(&number);
        }
    }

    /// Who has put most loses one.
    fn make_room(&mut self) {
        let most = self.put.values().max_by_key(|(_, records)| records.len());
        if let Some(id) = most.and_then(|(_, records)| records.first().copied()) {
            self.remove(&id);
        }
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, id: &PeerId) {
        self.discharge(id);
        self.shelf.remove(id);
    }

    /// The signed record of a peer.
    pub(crate) fn get(&self, id: &PeerId) -> Option<&[u8]> {
        self.shelf.bytes(id)
    }

    /// What is kept at these places, in order: nothing, where it is not the record of a leaf that is registered here.
    pub(crate) fn leaves(&self, places: RangeInclusive<u64>) -> impl Iterator<Item = (u64, Option<&[u8]>)> {
        let leaf = |(place, number, bytes): (_, &u32, _)| (place, (*number == OURS).then_some(bytes));
        self.shelf.within(places).map(leaf)
    }

    /// The answer to a [`Message::Lookup`].
    pub(crate) fn answer(&self, peer: PeerId) -> Message<'_> {
        Message::LookupReply { peer, record: self.get(&peer) }
    }

    /// How many records are kept.
    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }

    /// How many of them others put, and how many others, in both tables.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.held, self.put.len(), self.putters.len())
    }

    /// The `max` records whose peers' places are nearest to that of `id`, nearest first.
    pub(crate) fn nearest(&self, id: &PeerId, max: usize) -> Vec<&[u8]> {
        self.shelf.nearest(id, max)
    }

    /// Forgets what has expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, number)) = self.shelf.pop_expired_id(now) {
            self.give_back(number, &id);
        }
    }

    /// When the next one expires.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shelf.next_expiry()
    }
}
