//! The supernodes that this node knows, with what they said of themselves and what was seen of them.
//!
//! A supernode fills it with those that it has been to: they answered a handshake that this node began at an address
//! that their advert prefers ([`Found::Here`]), and stay while newer ones do ([`MembershipTable::renew`]).
//! All others are [hearsay](super::Hearsay). A leaf, which passes nothing on, fills it with what it is told, to draw
//! from ([`Found::Told`], or [`Found::Rumoured`] without a look at the signature). Time empties it. Where more are met
//! than have places, the [view](super::view) says who stays.
//! Limits keep one network prefix from filling it: they bind when it is more than half full, so that in a small network
//! all agree on who is there. Load comes from the supernode itself or, worth less, from hints of others; suspicion is what
//! this node's own gossip found, or, worth less again, what others say.
//!
//! An advert that [offers nothing](Advert::is_withdrawn) takes back those before it. It is kept and passed on like any other, so
//! that none of those comes back, but whom it speaks of is no supernode.

mod heard;
mod near;
mod rooms;
#[cfg(test)]
mod rooms_tests;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use arrayvec::ArrayVec;

pub(crate) use self::heard::Market;
use self::heard::{HeardRoom, LOAD_HOLDS};
use super::Advert;
use super::shelf::{Refused, Shelf, id_prefix};
use super::statement::{StatementError, subject};
use super::view::{Bucket, View};
use crate::account::Source;
use crate::identity::PeerId;
use crate::random::ChoiceRng;
use crate::time::{Instant, WallTime};
use crate::wire::address::Prefix;
use crate::wire::message::{DigestEntry, HINTS_MAX, Load, LoadHint};

/// A supernode's table has no fewer places than this, whatever it is set up with.
pub(crate) const TABLE_MIN: usize = 64;
/// Most that a leaf keeps: plenty to choose two homes from.
pub(crate) const LEAF_ADVERTS_MAX: usize = 64;
/// Most supernodes of one [`Prefix`] in the membership table (as geth does per table), once it is more than half full.
const PREFIX_MAX: u16 = 10;
/// Most of them in one bucket of the [view](super::view).
const PREFIX_IN_BUCKET_MAX: u16 = 2;
/// What a supernode said itself is not overruled by hints of others for so long.
const LOAD_FIRST_HAND: Duration = Duration::from_secs(60);
/// How full those are taken for that claim much, where nothing is known: half.
const UTILISATION_UNKNOWN: u32 = 1 << 15;
/// So many times as many as a listing names are looked at for it.
const LISTING_LOOK: usize = 8;

/// How sure we are that a supernode is gone. The numbers are those of [`LoadHint::suspicion`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Suspicion {
    /// Heard from, or no reason for doubt.
    Alive = 0,
    /// Did not answer lately.
    Suspect = 128,
    /// Has not answered for minutes: not offered as a home, replaced first when the membership table is full.
    Dead = 255,
}

#[derive(Clone, Copy)]
struct HeardLoad {
    load: Load,
    sequence: u32,
    at: Instant,
    first_hand: bool,
}

/// How this node comes to know where a supernode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// It answered there.
    Here(SocketAddr),
    /// Somebody at this IP address says so, or says it through others.
    Told(Option<IpAddr>),
    /// The same, of one that this node was not told to join and has not been linked to: who it is, is seen when it is
    /// dialled; whether it signed, when another advert of it comes.
    Rumoured(Option<IpAddr>),
}

/// Who may go for a newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    /// One that seems dead.
    OfDead,
    /// Whom the view names.
    OfView,
}

struct Known {
    advert: Advert,
    /// Which of its addresses is dialled: where it was found, or where it prefers to be.
    at: u8,
    /// That it is its supernode's was checked.
    is_signed: bool,
    /// When it came here.
    since: Instant,
    load: Option<HeardLoad>,
    /// Of most nothing is heard.
    room: Option<Box<HeardRoom>>,
    suspicion: Suspicion,
}

/// Adverts of supernodes, each with the load heard and the suspicion against it.
pub(crate) struct MembershipTable {
    me: PeerId,
    shelf: Shelf<Advert, Known>,
    view: View,
    /// How many of a prefix are in each bucket.
    prefixes: BTreeMap<(Prefix, Bucket), u16>,
    /// How many prefixes there are.
    distinct: usize,
    /// How many are where prefixes do not count.
    exempt: usize,
    /// Of how many leaves the adverts say that they are taken: the middle one.
    claim_median: Option<u32>,
    /// How full they are believed to be, in 65 536ths: the lower one of the middle two.
    utilisation_median: u32,
}

impl MembershipTable {
    /// An empty table of the node `me`.
    pub(crate) fn new(me: PeerId, adverts_max: usize) -> Self {
        Self {
            view: View::new(&me, adverts_max),
            me,
            shelf: Shelf::new(),
            prefixes: BTreeMap::new(),
            distinct: 0,
            exempt: 0,
            claim_median: None,
            utilisation_median: UTILISATION_UNKNOWN,
        }
    }

    /// Another limit from now on. What is there beyond it expires.
    pub(crate) fn set_max(&mut self, adverts_max: usize) {
        self.view.set_max(adverts_max);
    }

    /// Takes signed bytes that came from there. When the membership table is full, a dead one makes room, or, for one
    /// that this node has been to, whom the view names; otherwise the newcomer is refused.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
        found: Found,
    ) -> Result<Advert, Refused> {
        let address = |advert: &Advert, _: Option<&Known>| match found {
            Found::Here(address) => Ok(address),
            Found::Told(over) | Found::Rumoured(over) => advert.way(over).ok_or(Refused::Bad(StatementError::BadValue)),
        };
        let room = if matches!(found, Found::Here(_)) { Room::OfView } else { Room::OfDead };
        let mut needs_signature = !matches!(found, Found::Rumoured(_));
        let is_other = |id: &PeerId| self.shelf.bytes(id).is_some_and(|kept| kept != bytes);
        if let Some(id) = subject(bytes).filter(is_other) {
            // What is kept may have been taken without a look.
            let was_checked = self.is_signed(&id);
            if was_checked || self.shelf.verify_kept(now, from, &id)? {
                needs_signature = true;
                self.shelf.value_mut(&id).into_iter().for_each(|known| known.is_signed = true);
            } else if let Some(known) = self.shelf.remove(&id) {
                self.uncount(&known);
            }
        }
        self.take(now, from, wall, bytes, (room, needs_signature), address)
    }

    /// Whether there is an advert of this supernode that it signed itself: with any other, somebody else says so.
    pub(crate) fn is_signed(&self, id: &PeerId) -> bool {
        self.shelf.value(id).is_some_and(|known| known.is_signed)
    }

    /// Takes a newer advert of a supernode that is here, if it still prefers the address where that is, or takes all
    /// back.
    pub(crate) fn renew(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
    ) -> Result<Advert, Refused> {
        let address = |advert: &Advert, old: Option<&Known>| {
            let stays = |old: &&Known| advert.prefers(old.address()) || advert.is_withdrawn();
            old.filter(stays).map(Known::address).ok_or(Refused::Unproven)
        };
        self.take(now, from, wall, bytes, (Room::OfDead, true), address)
    }

    fn take(
        &mut self,
        now: Instant,
        from: Source,
        wall: Option<WallTime>,
        bytes: &[u8],
        (room, needs_signature): (Room, bool),
        address: impl Fn(&Advert, Option<&Known>) -> Result<SocketAddr, Refused>,
    ) -> Result<Advert, Refused> {
        let (me, is_full, is_limited) = (self.me, self.is_full(), self.is_limited());
        let (view, prefixes) = (&self.view, &self.prefixes);
        let admit = |shelf: &Shelf<Advert, Known>, advert: &Advert| {
            if advert.id == me {
                return Err(Refused::Own);
            }
            let old = shelf.value(&advert.id);
            if advert.is_withdrawn() && old.is_none() {
                // There is nothing to take back.
                return Err(Refused::Known);
            }
            let prefix = Prefix::counted(address(advert, old)?.ip());
            let has_room = match room {
                Room::OfDead => view.dead().next().is_some(),
                Room::OfView => view.admits(id_prefix(&advert.id)),
            };
            if old.is_none() && is_full && !has_room {
                return Err(Refused::Full);
            }
            let is_crowded = prefix.is_some_and(|prefix| {
                let in_bucket = prefixes.get(&(prefix, view.bucket_of(&advert.id)));
                of_prefix(prefixes, prefix) >= PREFIX_MAX
                    || in_bucket.is_some_and(|count| *count >= PREFIX_IN_BUCKET_MAX)
            });
            if is_limited && is_crowded && old.is_none_or(|known| Prefix::counted(known.address().ip()) != prefix) {
                return Err(Refused::Crowded);
            }
            Ok(())
        };
        let checked = if needs_signature {
            self.shelf.examine(now, from, wall, bytes, admit)
        } else {
            self.shelf.skim(now, from, wall, bytes, admit)
        }?;
        let advert = checked.statement.clone();
        let old = self.shelf.value(&advert.id);
        let mut known = Known::new(now, advert.clone(), address(&advert, old)?);
        known.is_signed = needs_signature;
        if let Some(old) = old {
            known.since = old.since;
            (known.load, known.room) = (old.load, old.room.clone());
            known.suspicion = old.suspicion;
        }
        if is_full && !self.shelf.contains(&advert.id) {
            let gone = self.view.make_room_for(&advert.id).ok_or(Refused::Full)?;
            self.forget_at(gone);
        }
        if let Some(old) = self.shelf.put(&checked, bytes, known) {
            self.uncount(&old);
        }
        self.count_new(&advert.id);
        Ok(advert)
    }

    fn is_full(&self) -> bool {
        self.shelf.len() >= self.view.max()
    }

    /// Whether limits per prefix bind.
    fn is_limited(&self) -> bool {
        self.view.max() >= TABLE_MIN && self.shelf.len() * 2 > self.view.max()
    }

    /// Whether there may be supernodes that have no place here: whoever looks for the nearest to something then has to
    /// ask others. From three quarters on, so that a network that shrinks is whole again before that is relied on.
    pub(crate) fn is_partial(&self) -> bool {
        self.shelf.len() * 4 >= self.view.max() * 3
    }

    /// Whether there is a place for a supernode that is not here, by the first bytes of its place.
    pub(crate) fn admits(&self, id: &PeerId) -> bool {
        !self.is_full() || self.view.admits(id_prefix(id))
    }

    /// Has a place for one that comes next, whoever it is.
    pub(crate) fn make_room(&mut self) {
        if self.is_full()
            && let Some(gone) = self.view.longest_in_fullest()
        {
            self.forget_at(gone);
        }
    }

    /// Some that this node has not met are let in, if the table is full.
    pub(crate) fn renew_sample(&mut self, choice: &mut ChoiceRng) {
        self.view.renew_sample(|max| choice.below(max));
    }

    /// Takes the own advert: others may ask for it like for any other. It is no candidate for anything here.
    pub(crate) fn put_own(&mut self, now: Instant, advert: Advert, bytes: &[u8]) {
        debug_assert_eq!(advert.id, self.me);
        let Some(address) = advert.usable(None).chain(advert.addresses.iter().map(|a| (*a).into())).next() else {
            return;
        };
        let known = Known::new(now, advert.clone(), address);
        self.shelf.put_own(now, advert, bytes, known);
    }

    fn count_new(&mut self, id: &PeerId) {
        if let Some(known) = self.shelf.value(id) {
            let (since, is_dead, at) = (known.since, known.suspicion == Suspicion::Dead, known.address());
            self.view.insert(since, *id);
            self.view.set_dead(id, is_dead);
            self.count_at(id, at, true);
        }
    }

    fn uncount(&mut self, known: &Known) {
        if known.advert.id != self.me {
            self.view.remove(known.since, &known.advert.id);
            self.count_at(&known.advert.id, known.address(), false);
        }
    }

    fn count_at(&mut self, id: &PeerId, at: SocketAddr, add: bool) {
        let change = |count: usize| if add { count + 1 } else { count.saturating_sub(1) };
        let Some(prefix) = Prefix::counted(at.ip()) else {
            self.exempt = change(self.exempt);
            return;
        };
        let was_here = of_prefix(&self.prefixes, prefix) > 0;
        let key = (prefix, self.view.bucket_of(id));
        let count = self.prefixes.get(&key).copied().unwrap_or(0);
        match if add { count + 1 } else { count.saturating_sub(1) } {
            0 => self.prefixes.remove(&key),
            count => self.prefixes.insert(key, count),
        };
        if was_here != (of_prefix(&self.prefixes, prefix) > 0) {
            self.distinct = change(self.distinct);
        }
    }

    /// In how many different prefixes those here are, where prefixes count, and how many are elsewhere.
    pub(crate) fn spread(&self) -> usize {
        self.distinct + self.exempt
    }

    /// Takes all adverts out, as they travel, each with where its supernode is.
    pub(crate) fn drain(&mut self) -> Vec<(Box<[u8]>, SocketAddr)> {
        let all = self.shelf.iter().map(|(known, bytes)| (bytes.into(), known.address())).collect();
        *self = Self::new(self.me, self.view.max());
        all
    }

    /// Forgets the one whose place begins so.
    fn forget_at(&mut self, prefix: [u8; 4]) {
        let [a, b, c, d] = prefix;
        let first = self.shelf.from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).next();
        let id = first.map(|known| known.advert.id).filter(|id| id_prefix(id) == prefix);
        if let Some(known) = id.and_then(|id| self.shelf.remove(&id)) {
            self.uncount(&known);
        }
    }

    /// How many supernodes are known, this one not counted.
    pub(crate) fn len(&self) -> usize {
        self.shelf.len() - usize::from(self.shelf.contains(&self.me))
    }

    /// Whether `id` is a supernode that we know, other than this one.
    pub(crate) fn contains(&self, id: &PeerId) -> bool {
        *id != self.me && self.get(id).is_some()
    }

    /// Its advert, unless it has taken that back.
    pub(crate) fn get(&self, id: &PeerId) -> Option<&Advert> {
        self.shelf.value(id).map(|known| &known.advert).filter(|advert| !advert.is_withdrawn())
    }

    /// From which address a peer speaks: whom this node has been to from there, whatever way its words take.
    pub(crate) fn speaks_from(&self, peer: &PeerId, ip: Option<IpAddr>) -> Option<IpAddr> {
        self.address(peer).map(|at| at.ip()).or(ip)
    }

    /// Where it is: where it was found, or where it prefers to be.
    pub(crate) fn address(&self, id: &PeerId) -> Option<SocketAddr> {
        let known = self.shelf.value(id)?;
        (!known.advert.is_withdrawn()).then(|| known.address())
    }

    /// All supernodes but this one, and where each is.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&PeerId, SocketAddr)> {
        let all = self.shelf.iter().map(|(known, _)| known);
        let others = all.filter(|known| known.advert.id != self.me && !known.advert.is_withdrawn());
        others.map(|known| (&known.advert.id, known.address()))
    }

    /// Its advert as it travels.
    pub(crate) fn bytes(&self, id: &PeerId) -> Option<&[u8]> {
        self.shelf.bytes(id)
    }

    /// All supernodes but this one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Advert)> {
        let adverts = self.shelf.iter().map(|(known, _)| (&known.advert.id, &known.advert));
        adverts.filter(|(id, advert)| **id != self.me && !advert.is_withdrawn())
    }

    /// At most `max` adverts as they travel, the own one among them and dead ones not, beginning at a random one; of each
    /// prefix one before a second.
    pub(crate) fn listing(&self, max: usize, choice: &mut ChoiceRng) -> impl Iterator<Item = (PeerId, &[u8])> {
        let skip = if self.shelf.len() > max { choice.below(self.shelf.len()) } else { 0 };
        let ring = self.shelf.iter().skip(skip).chain(self.shelf.iter().take(skip));
        let mut prefixes = BTreeSet::new();
        let is_other = |(known, _): &(&Known, _)| {
            Prefix::counted(known.address().ip()).is_none_or(|prefix| prefixes.insert(prefix))
        };
        // Of so many there are enough in different prefixes, or there are few.
        let living = ring.filter(|(known, _)| known.suspicion != Suspicion::Dead).take(LISTING_LOOK * max);
        let (firsts, others): (Vec<_>, Vec<_>) = living.partition(is_other);
        firsts.into_iter().chain(others).map(|(known, bytes)| (known.advert.id, bytes)).take(max)
    }

    /// Whether a supernode is known and does not seem dead.
    pub(crate) fn is_alive(&self, id: &PeerId) -> bool {
        self.contains(id) && self.shelf.value(id).is_some_and(|known| known.suspicion != Suspicion::Dead)
    }

    fn is_other(&self, known: &Known) -> bool {
        known.advert.id != self.me && !known.advert.is_withdrawn()
    }

    /// A supernode at random.
    pub(crate) fn draw(&self, choice: &mut ChoiceRng) -> Option<PeerId> {
        let mut place = [0; 16];
        place.iter_mut().zip(choice.u64().to_be_bytes()).for_each(|(to, from)| *to = from);
        let drawn = self.shelf.from(place).find(|known| self.is_other(known));
        drawn.map(|known| known.advert.id)
    }

    /// The supernode whose place comes after that of this one; after the last, the first.
    pub(crate) fn next_after(&self, id: Option<&PeerId>) -> Option<PeerId> {
        let start = id.map_or([0; 16], id_prefix);
        let next = self.shelf.from(start).find(|known| self.is_other(known) && Some(&known.advert.id) != id);
        next.map(|known| known.advert.id)
    }

    /// Nobody seems dead any more, only doubtful: what seemed so may have been on this side.
    pub(crate) fn forgive(&mut self) {
        let dead: Vec<PeerId> = self.view.dead().copied().collect();
        for id in dead {
            self.set_suspicion(&id, Suspicion::Suspect);
        }
    }

    /// Forgets what has expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(known) = self.shelf.pop_expired(now) {
            self.uncount(&known);
        }
    }

    /// When the next one expires.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shelf.next_expiry()
    }

    /// A supernode told its own load.
    pub(crate) fn on_load(&mut self, now: Instant, from: &PeerId, load: Load) {
        if let Some(known) = self.shelf.value_mut(from) {
            let sequence = known.load.map_or(0, |heard| heard.sequence);
            known.load = Some(HeardLoad { load, sequence, at: now, first_hand: true });
        }
    }

    /// A neighbour told what it heard of others' loads. Unsigned, so it never overrules what was heard first-hand,
    /// and the suspicion in it is only passed on by those who have a doubt of their own.
    pub(crate) fn on_hints(&mut self, now: Instant, from: &PeerId, hints: &[LoadHint]) {
        for hint in hints {
            let Some(known) = self.shelf.by_prefix_mut(hint.id_prefix) else { continue };
            if known.advert.id == self.me {
                continue;
            }
            let sequence = u32::from_le_bytes(hint.sequence);
            let first_hand = known.advert.id == *from;
            let outranked = known.load.is_some_and(|heard| {
                let age = now - heard.at;
                let stale = sequence.wrapping_sub(heard.sequence).cast_signed() <= 0;
                !first_hand && ((heard.first_hand && age < LOAD_FIRST_HAND) || (stale && age < LOAD_HOLDS))
            });
            if !outranked {
                known.load = Some(HeardLoad { load: hint.load, sequence, at: now, first_hand });
            }
        }
    }

    /// What to tell of others' loads: those heard most recently.
    pub(crate) fn hints(&self, now: Instant) -> ArrayVec<LoadHint, HINTS_MAX> {
        let fresh = |heard: &HeardLoad| now - heard.at < LOAD_HOLDS;
        let mut heard: Vec<_> = self
            .shelf
            .iter()
            .filter_map(|(known, _)| Some((known.load.filter(fresh)?, &known.advert.id, known.suspicion)))
            .collect();
        heard.sort_by_key(|(heard, id, _)| (core::cmp::Reverse(heard.at), **id));
        let hint = |(heard, id, suspicion): (HeardLoad, &PeerId, Suspicion)| LoadHint {
            id_prefix: id_prefix(id),
            sequence: heard.sequence.to_le_bytes(),
            load: heard.load,
            suspicion: suspicion as u8,
        };
        // One place stays free for the sender's own.
        heard.into_iter().take(HINTS_MAX - 1).map(hint).collect()
    }

    /// The load of a supernode, as last heard, unless that is long ago.
    pub(crate) fn load(&self, now: Instant, id: &PeerId) -> Option<Load> {
        let heard = self.shelf.value(id)?.load?;
        (now - heard.at < LOAD_HOLDS).then_some(heard.load)
    }

    /// How sure we are that a supernode is gone.
    pub(crate) fn suspicion(&self, id: &PeerId) -> Suspicion {
        self.shelf.value(id).map_or(Suspicion::Alive, |known| known.suspicion)
    }

    /// What own measurements say.
    pub(crate) fn set_suspicion(&mut self, id: &PeerId, suspicion: Suspicion) {
        if let Some(known) = self.shelf.value_mut(id) {
            known.suspicion = suspicion;
            self.view.set_dead(id, suspicion == Suspicion::Dead);
        }
    }

    /// See [`Shelf::digest`].
    pub(crate) fn digest(&mut self, newest_max: usize, others_max: usize) -> Vec<DigestEntry> {
        self.shelf.digest(newest_max, others_max)
    }

    /// See [`Shelf::compare`]: what has no place here is not said to be lacking.
    pub(crate) fn compare(&self, theirs: &[DigestEntry], send: impl FnMut(&[u8])) -> Vec<DigestEntry> {
        let is_full = self.is_full();
        self.shelf.compare(theirs, |prefix| !is_full || self.view.admits(prefix), send)
    }
}

impl Known {
    /// At one of the addresses that it names, or, where it takes all back, at any.
    fn new(now: Instant, advert: Advert, address: SocketAddr) -> Self {
        let at = advert.addresses.iter().position(|a| SocketAddr::from(*a) == address).unwrap_or(0);
        let at = u8::try_from(at).unwrap_or(0);
        Self { advert, at, is_signed: true, since: now, load: None, room: None, suspicion: Suspicion::Alive }
    }

    fn address(&self) -> SocketAddr {
        let at = self.advert.addresses.get(usize::from(self.at)).or(self.advert.addresses.first());
        // An advert without addresses is not taken.
        at.map_or(SocketAddr::from(([0; 4], 0)), |at| (*at).into())
    }
}

/// How many there are of a prefix, in all buckets.
fn of_prefix(prefixes: &BTreeMap<(Prefix, Bucket), u16>, prefix: Prefix) -> u16 {
    prefixes.range((prefix, Bucket::MIN)..=(prefix, Bucket::MAX)).map(|(_, count)| *count).sum()
}
