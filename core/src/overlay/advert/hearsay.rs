//! Adverts of supernodes that this node has not been to: what others say.
//!
//! Anybody can make a thousand keys and sign for each of them, so a signature gives no standing. What is heard of a
//! supernode that is not in the [`MembershipTable`](super::MembershipTable) waits here, apart and few, and is told to
//! nobody. [`Hearsay::poll_ask`] says whom to ask at the address that the advert names: with one Init, for one advert
//! costs its address no more than it cost its sender. Who answers there has shown that the address is its own
//! ([`Hearsay::on_reached`]), and goes over to the table; who is silent is forgotten.
//!
//! When is asked: at once, where the supernode says so itself over a link of its own; in a moment, where this node
//! knows few; otherwise when two supernodes of different prefixes that it knows have passed the advert on, by which
//! they say that they have been there, and then some time within ten minutes, so that a newcomer is not dialled by
//! everybody at once.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use super::Advert;
use super::shelf::{Refused, Shelf};
use super::statement::{StatementError, subject};
use crate::account::{Rate, RateTable, Source};
use crate::identity::PeerId;
use crate::random::ChoiceRng;
use crate::time::{Deadlines, Instant, WallTime, earliest};
use crate::wire::address::Prefix;

/// Most adverts that wait, those that supernodes tell of themselves counted apart.
const HEARD_MAX: usize = 256;
/// Most of them of one [`Source`].
const HEARD_OF_SOURCE_MAX: usize = 32;
/// Most of them that claim to be in one prefix.
const HEARD_IN_PREFIX_MAX: usize = 8;
/// Supernodes of different prefixes that must have passed an advert on.
const VOUCHERS: usize = 2;
/// Within this time one is asked of whom enough have told.
const ASK_SPREAD: Duration = Duration::from_secs(600);
/// And within this where few are known, so that not everybody asks a newcomer at once.
const ASK_SPREAD_FEW: Duration = Duration::from_secs(2);
/// Who tells of itself again is asked again, but not sooner: two Inits that cross are answered on one side only.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Who has not answered then is forgotten.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Where nothing may be sent now, that is tried again after this, and as much again at random.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Then it is forgotten.
const REFUSALS_MAX: u8 = 3;
/// Who is asked on the word of one [`Source`]: a network of some dozens may start behind one prefix at once; nobody has
/// this node look at a thousand addresses.
const ASKS_OF_SOURCE: Rate = Rate { interval: Duration::from_secs(1), burst: 64 };
/// And in all.
const ASKS: Rate = Rate { interval: Duration::from_millis(20), burst: 512 };
/// Most sources whose rate is kept.
const SOURCES_MAX: usize = 1_024;

/// Who tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller {
    /// The peer.
    pub id: PeerId,
    /// Where its words come from, if straight.
    pub ip: Option<IpAddr>,
    /// It is in the membership table.
    pub is_member: bool,
}

impl Teller {
    fn source(&self) -> Source {
        Source::of(self.id, self.ip)
    }
}

/// How much others must say before somebody is asked whom this node has not heard itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    /// Few supernodes are known: one word will do.
    pub is_urgent: bool,
    /// In how many different prefixes those are that could tell.
    pub tellers: usize,
}

/// What comes of an advert that waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// Its supernode is to be asked there.
    There(PeerId, SocketAddr),
    /// One that told of itself did not answer there.
    InVain(PeerId, SocketAddr),
}

struct Heard {
    id: PeerId,
    source: Source,
    /// It told of itself.
    is_own: bool,
    address: SocketAddr,
    /// Who passed it on, all different and of different prefixes.
    vouchers: ArrayVec<(PeerId, Source), VOUCHERS>,
    asked_at: Option<Instant>,
    /// It told of itself right after it was asked: if it does not answer, the two Inits may have crossed.
    speaks: bool,
    refusals: u8,
    due: Option<Instant>,
}

/// See [the module](self).
pub(crate) struct Hearsay {
    me: PeerId,
    shelf: Shelf<Advert, Heard>,
    sources: BTreeMap<Source, usize>,
    prefixes: BTreeMap<Prefix, usize>,
    /// How many told of themselves.
    own: usize,
    deadlines: Deadlines<PeerId>,
    /// How many are asked on whose word.
    asks: RateTable<Source>,
}

impl Hearsay {
    /// Nobody has told the node `me` anything.
    pub(crate) fn new(me: PeerId) -> Self {
        Self {
            me,
            shelf: Shelf::new(),
            sources: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            own: 0,
            deadlines: Deadlines::default(),
            asks: RateTable::new(ASKS_OF_SOURCE, ASKS, SOURCES_MAX),
        }
    }

    /// An advert came whose supernode this node has not been to, or that names none of the addresses at which it was.
    /// `has_place`: whether there would be one for it in the table.
    #[expect(clippy::too_many_arguments, reason = "what is said, by whom, and what it is judged by")]
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        teller: &Teller,
        wall: Option<WallTime>,
        bytes: &[u8],
        need: Need,
        has_place: impl Fn(&PeerId) -> bool,
        jitter: &mut ChoiceRng,
    ) -> Result<PeerId, Refused> {
        let source = teller.source();
        match self.take(now, teller, wall, bytes, has_place) {
            Ok(id) => self.count_word(now, id, source, teller, need, jitter),
            // Once more the same: one more who says so.
            Err(Refused::Known) => {
                let known = subject(bytes).filter(|id| self.shelf.bytes(id) == Some(bytes)).ok_or(Refused::Known)?;
                self.count_word(now, known, source, teller, need, jitter)
            }
            Err(refused) => Err(refused),
        }
    }

    fn take(
        &mut self,
        now: Instant,
        teller: &Teller,
        wall: Option<WallTime>,
        bytes: &[u8],
        has_place: impl Fn(&PeerId) -> bool,
    ) -> Result<PeerId, Refused> {
        let (source, me, own) = (teller.source(), self.me, self.own);
        let (sources, prefixes) = (&self.sources, &self.prefixes);
        let checked = self.shelf.examine(now, source, wall, bytes, |shelf, advert: &Advert| {
            let Some(address) = advert.way(teller.ip) else {
                return Err(Refused::Bad(StatementError::BadValue));
            };
            if advert.id == me {
                return Err(Refused::Own);
            }
            if advert.is_withdrawn() {
                // There is nothing to take back.
                return Err(Refused::Known);
            }
            if !has_place(&advert.id) {
                return Err(Refused::Full);
            }
            let old = shelf.value(&advert.id);
            let is_own = advert.id == teller.id;
            let among = if is_own { own } else { shelf.len() - own };
            if among >= HEARD_MAX && old.is_none() {
                return Err(Refused::Full);
            }
            let of_source = sources.get(&source).copied().unwrap_or(0);
            let prefix = Prefix::counted(address.ip());
            let in_prefix = prefix.and_then(|prefix| prefixes.get(&prefix)).copied().unwrap_or(0);
            let is_new = old.is_none_or(|old| old.source != source);
            if is_new && (of_source >= HEARD_OF_SOURCE_MAX || (!is_own && in_prefix >= HEARD_IN_PREFIX_MAX)) {
                return Err(Refused::Crowded);
            }
            Ok(())
        })?;
        let id = checked.statement.id;
        let address = checked.statement.way(teller.ip).ok_or(StatementError::BadValue)?;
        // A newer one is not asked for sooner.
        let asked_at = self.shelf.value(&id).and_then(|old| old.asked_at);
        self.forget(&id);
        let is_own = id == teller.id;
        let heard = Heard {
            id,
            source,
            is_own,
            address,
            vouchers: ArrayVec::new(),
            asked_at,
            speaks: false,
            refusals: 0,
            due: None,
        };
        self.count(&heard, 1);
        self.shelf.put(&checked, bytes, heard);
        if let (Some(at), Some(heard)) = (asked_at, self.shelf.value_mut(&id)) {
            self.deadlines.set(id, &mut heard.due, Some(at + SILENT_AFTER));
        }
        Ok(id)
    }

    /// Somebody says that this supernode is where its advert says.
    fn count_word(
        &mut self,
        now: Instant,
        id: PeerId,
        source: Source,
        teller: &Teller,
        need: Need,
        jitter: &mut ChoiceRng,
    ) -> Result<PeerId, Refused> {
        let heard = self.shelf.value_mut(&id).ok_or(Refused::Known)?;
        let is_counted = heard.vouchers.iter().any(|(voucher, other)| *voucher == teller.id || *other == source);
        if teller.is_member && !is_counted {
            let _ = heard.vouchers.try_push((teller.id, source));
        }
        let is_vouched = !heard.vouchers.is_empty() && heard.vouchers.len() >= VOUCHERS.min(need.tellers);
        let was_asked = heard.asked_at;
        if let Some(asked) = was_asked.filter(|at| teller.id == id && now.since(*at) < ASK_AGAIN) {
            if !heard.speaks && self.asks.take(now, source) {
                heard.speaks = true;
                self.deadlines.set(id, &mut heard.due, Some(asked + ASK_AGAIN));
            }
            return Ok(id);
        }
        let at = if teller.id == id {
            Some(now).filter(|_| was_asked.is_none_or(|at| now.since(at) >= ASK_AGAIN))
        } else if was_asked.is_some() {
            None
        } else if need.is_urgent {
            Some(now + jitter.jitter(ASK_SPREAD_FEW))
        } else if is_vouched {
            Some(now + jitter.jitter(ASK_SPREAD))
        } else {
            None
        };
        if let Some(at) = at
            && heard.due.is_none_or(|due| due > at || was_asked.is_some())
            && self.asks.take(now, source)
        {
            heard.asked_at = None;
            self.deadlines.set(id, &mut heard.due, Some(at));
        }
        Ok(id)
    }

    /// Whom to ask now, and where. Who was asked and did not answer is forgotten, and given back if it told of itself.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(heard) = self.shelf.value_mut(&id) else { continue };
            heard.due = None;
            if heard.asked_at.replace(now).is_some() && !core::mem::take(&mut heard.speaks) {
                let (is_own, address) = (heard.is_own, heard.address);
                self.forget(&id);
                if is_own {
                    return Some(Ask::InVain(id, address));
                }
                continue;
            }
            self.deadlines.set(id, &mut heard.due, Some(now + SILENT_AFTER));
            return Some(Ask::There(id, heard.address));
        }
        None
    }

    /// Nothing may be sent there at the moment.
    pub(crate) fn on_refused(&mut self, now: Instant, id: &PeerId, jitter: &mut ChoiceRng) {
        let Some(heard) = self.shelf.value_mut(id) else { return };
        heard.asked_at = None;
        heard.refusals += 1;
        // Who tells of itself does so again; others must not hold places for ever.
        if heard.is_own || heard.refusals >= REFUSALS_MAX {
            return self.forget(id);
        }
        let again = now + REFUSED_FOR + jitter.jitter(REFUSED_FOR);
        self.deadlines.set(*id, &mut heard.due, Some(again));
    }

    /// This peer answered an Init of ours at this address. Gives its advert, if it names that.
    pub(crate) fn on_reached(&mut self, id: &PeerId, address: SocketAddr) -> Option<Box<[u8]>> {
        let bytes = self.shelf.bytes(id)?;
        let is_named = Advert::parse(bytes).is_ok_and(|advert| advert.prefers(address));
        let bytes = is_named.then(|| bytes.into())?;
        self.forget(id);
        Some(bytes)
    }

    fn forget(&mut self, id: &PeerId) {
        if let Some(mut heard) = self.shelf.remove(id) {
            self.deadlines.set(*id, &mut heard.due, None);
            self.count(&heard, -1);
        }
    }

    fn count(&mut self, heard: &Heard, by: isize) {
        fn add<K: Ord + Copy>(counts: &mut BTreeMap<K, usize>, key: K, by: isize) {
            let count = counts.entry(key).or_insert(0);
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                counts.remove(&key);
            }
        }
        add(&mut self.sources, heard.source, by);
        if !Prefix::is_exempt(heard.address.ip()) {
            add(&mut self.prefixes, Prefix::of(heard.address.ip()), by);
        }
        if heard.is_own {
            self.own = self.own.saturating_add_signed(by);
        }
    }

    /// Forgets what has expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.asks.handle_timeout(now);
        while let Some(mut heard) = self.shelf.pop_expired(now) {
            self.deadlines.set(heard.id, &mut heard.due, None);
            self.count(&heard, -1);
        }
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.deadlines.next(), self.shelf.next_expiry())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }
}

#[cfg(test)]
#[path = "hearsay_tests.rs"]
mod tests;
