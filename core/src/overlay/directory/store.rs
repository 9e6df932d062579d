//! The records that a supernode keeps for everybody.
//!
//! Anyone can make up peers and sign for them, so what fills the store is charged to the home that a record names
//! first: while there is plenty of room anything goes; from half full on, only records at a home that is a known
//! supernode are taken, and no home may have more than its share.

use std::collections::BTreeMap;

use super::Record;
use crate::identity::PeerId;
use crate::overlay::advert::shelf::{Refused, Shelf};
use crate::time::{Instant, WallTime};
use crate::wire::message::{DigestEntry, Message};

/// Most records kept by default.
pub(crate) const RECORDS_MAX: usize = 100_000;
/// From half full on, one home may have at most this part of all places.
const HOME_SHARE: usize = 4;

/// Records of leaves, each charged to the home that it names first.
pub(crate) struct RecordStore {
    records_max: usize,
    /// Beside each record the home that it is charged to, by number: ids would double what a record weighs.
    shelf: Shelf<Record, u32>,
    homes: BTreeMap<PeerId, HomeShare>,
    home_ids: BTreeMap<u32, PeerId>,
    next_home: u32,
}

struct HomeShare {
    number: u32,
    records: usize,
}

impl RecordStore {
    /// An empty store.
    pub(crate) fn new(records_max: usize) -> Self {
        Self { records_max, shelf: Shelf::new(), homes: BTreeMap::new(), home_ids: BTreeMap::new(), next_home: 0 }
    }

    /// Takes signed bytes that came from `from`: a leaf that registers, or another supernode. `is_home` says whether
    /// an id is a supernode that we know, or ourselves. In a full store, the record that ends first makes room.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        from: &PeerId,
        wall: Option<WallTime>,
        bytes: &[u8],
        is_home: impl FnOnce(&PeerId) -> bool,
    ) -> Result<Record, Refused> {
        let (homes, half, share) = (&self.homes, self.records_max / 2, self.records_max / HOME_SHARE);
        let checked = self.shelf.examine(now, from, wall, bytes, |shelf, record: &Record| {
            let Some((home, _)) = record.homes.first() else { return Err(Refused::Crowded) };
            if shelf.len() < half || shelf.contains(&record.id) {
                return Ok(());
            }
            let has = homes.get(home).map_or(0, |h| h.records);
            if has >= share || !is_home(home) { Err(Refused::Crowded) } else { Ok(()) }
        })?;
        let record = checked.statement.clone();
        let is_full = self.shelf.len() >= self.records_max && !self.shelf.contains(&record.id);
        if is_full && let Some(number) = self.shelf.pop_soonest() {
            self.discharge(number);
        }
        // `examine` has seen that there is a first home.
        let Some((home, _)) = record.homes.first() else { return Err(Refused::Crowded) };
        let number = self.charge(*home);
        if let Some(old) = self.shelf.put(&checked, bytes, number) {
            self.discharge(old);
        }
        debug_assert!(self.shelf.len() <= self.records_max.max(1));
        Ok(record)
    }

    fn charge(&mut self, home: PeerId) -> u32 {
        let next = &mut self.next_home;
        let share = self.homes.entry(home).or_insert_with(|| {
            *next += 1;
            HomeShare { number: *next, records: 0 }
        });
        share.records += 1;
        self.home_ids.insert(share.number, home);
        share.number
    }

    fn discharge(&mut self, number: u32) {
        let Some(home) = self.home_ids.get(&number).copied() else { return };
        let Some(share) = self.homes.get_mut(&home) else { return };
        share.records -= 1;
        if share.records == 0 {
            self.homes.remove(&home);
            self.home_ids.remove(&number);
        }
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, id: &PeerId) {
        if let Some(number) = self.shelf.remove(id) {
            self.discharge(number);
        }
    }

    /// The signed record of a peer.
    pub(crate) fn get(&self, id: &PeerId) -> Option<&[u8]> {
        self.shelf.bytes(id)
    }

    /// The answer to a [`Message::Lookup`].
    pub(crate) fn answer(&self, peer: PeerId) -> Message<'_> {
        Message::LookupReply { peer, record: self.get(&peer) }
    }

    /// How many records are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Forgets what has expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(number) = self.shelf.pop_expired(now) {
            self.discharge(number);
        }
    }

    /// When the next one expires.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shelf.next_expiry()
    }

    /// See [`Shelf::digest`].
    pub(crate) fn digest(&mut self, newest_max: usize, others_max: usize) -> Vec<DigestEntry> {
        self.shelf.digest(newest_max, others_max)
    }

    /// See [`Shelf::compare`].
    pub(crate) fn compare(&self, theirs: &[DigestEntry], send: impl FnMut(&[u8])) -> Vec<DigestEntry> {
        self.shelf.compare(theirs, send)
    }
}
