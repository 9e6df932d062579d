//! Putting the records of this supernode's leaves where they are looked for.
//!
//! A record is kept by the supernodes nearest to its leaf's place. Its homes put it there: at once when it is new, in ten
//! minutes when it replaces one that still leads to the leaf, and again in turn, all leaves within [`ROUND`], so that
//! what has got lost comes back and new holders learn of it: then it is only named ([`Message::Renew`]), and sent to
//! those that say that they do not have it; sooner where holders [seem dead](super::repair). The one that it names first,
//! or seems to live, puts it to all of them, and the other one, lest the first should lie, to the nearest few. What may
//! wait is put together ([`TOGETHER`]). A supernode that becomes known, or that a link is up to again, may have lost what
//! it held: homes put to it at once what it is to keep, some leaves at a time ([`Placing::on_met`]), and the nearest of
//! those that hold a record hand it over. Where this node cannot know all supernodes, the nearest are
//! [searched](super::search) for each record that is put.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::Record;
use super::repair::Repair;
use super::search::Search;
use super::store::{HELD_FOR, RecordStore, renewal_of};
use crate::account::{Rate, RateTable};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::advert::statement::subject;
use crate::overlay::output::Output;
use crate::overlay::pack::Packer;
use crate::random::ChoiceRng;
use crate::time::{Deadlines, Instant};
use crate::wire::address::Address;
use crate::wire::message::{Message, RENEWALS_MAX, Renewal, SignedKind};

/// Supernodes that a record is put to. Five would do for leaves that are looked for while supernodes live two hours on
/// average; where some deny, or sit around one place, it is looked for at all of these.
pub(crate) const HOLDERS_MAX: usize = 8;
/// A record in place of an older one goes at once to so many; the old one at the others names a home that lives, and they
/// get the new one with the round, which comes once however often homes have changed.
const CHANGED_HOLDERS: usize = 5;
/// The home that is not to put it to all of them puts it to so many, which are asked first.
const OTHER_HOLDERS: usize = 3;
/// So many holders of a record have to be suspect or dead for others to be named it before the round. Who comes in for
/// fewer is among the farthest, and holds it no more when as many others have come into being nearby. Half of them would
/// be safer where those that are left lie, but after a half-crash more is then put in a minute than anybody should carry.
const REPAIRED_FROM: usize = HOLDERS_MAX / 2 + 1;
/// Where more supernodes than this are known, most deaths are noticed minutes later, one by one: then two are a sign.
const NOTICED_AT_ONCE: usize = 64;
/// See [`NOTICED_AT_ONCE`].
const REPAIRED_FROM_LATE: usize = 2;
/// All records are put once in this time.
const ROUND: Duration = Duration::from_secs(55 * 60);
// A round may fail.
const _: () = assert!((ROUND.as_secs() + TOGETHER.as_secs()) * 2 < HELD_FOR.as_secs());
/// So often it is looked whose turn it is.
const TICK: Duration = Duration::from_secs(10);
/// In order of their places, so that those whose turn comes together have the same holders, and fit one packet to each: so
/// much of all places in one tick.
const TURN: u64 = u64::MAX.div_ceil(ROUND.as_secs() / TICK.as_secs());
/// Most whose turn comes in one go; where there are more in a tick it takes several.
const TURNS_MAX: usize = 512;
/// What may wait is put together with what else may, since a packet costs as much as a fourth of a record and twice a
/// name: so many leaves' at once, or fewer after so long.
const TOGETHER_MAX: usize = 64;
/// See [`TOGETHER_MAX`].
const TOGETHER: Duration = Duration::from_secs(60);
/// Most records that a supernode which becomes known is handed at once; more come with the round.
const HANDED_MAX: usize = 64;

/// The record of a leaf that has changed one of its homes is put within this time, and [`TOGETHER`]; and so much later by
/// the other home.
const LATER_SPREAD: Duration = Duration::from_secs(540);
/// That of a leaf that is new here, and names another home first, after this: if that one has not taken it, the record is
/// another one by then.
const SOON: Duration = Duration::from_secs(10);
/// And up to so much later.
const SOON_SPREAD: Duration = Duration::from_secs(5);
/// Most that wait for that; others are put with the round.
const LATER_MAX: usize = 65_536;
/// Leaves looked at in one go for somebody who was met, or for the dead, and the time between two goes.
const LOOK_MAX: usize = 256;
/// See [`LOOK_MAX`].
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most records that are passed by in one go: those of others, too.
const PASSED_MAX: usize = 16_384;
/// Most who were met at one time; others get theirs with the round.
const MET_MAX: usize = 64;
/// How often somebody gets that: whoever comes back again and again does so by no accident.
const SERVE: Rate = Rate { interval: Duration::from_secs(120), burst: 2 };
/// And all together.
const SERVE_ALL: Rate = Rate { interval: Duration::from_secs(1), burst: 1_024 };
/// How often somebody gets what it says that it lacks,
const WANTED: Rate = Rate { interval: Duration::from_secs(1), burst: 64 };
/// and all together.
const WANTED_ALL: Rate = Rate { interval: Duration::from_millis(10), burst: 1_024 };
/// Most of whom that is remembered.
const SERVED_MAX: usize = 1_024;

/// Most searches at one time; others wait.
const SEARCHES_MAX: usize = 32;
/// Most that wait; others come with the round.
const SEARCHES_WAIT_MAX: usize = 65_536;

/// Somebody who is put what it is to keep.
#[derive(Debug)]
struct Met {
    peer: PeerId,
    address: SocketAddr,
    /// The place from which it goes on.
    from: u64,
}

/// How far the present round has come, and who gets its records out of turn.
#[derive(Debug)]
pub(crate) struct Placing {
    me: PeerId,
    /// The place whose turn is next. Each supernode begins at its own, so that they do not all come to one holder at once.
    turn: u64,
    /// Where the present turn ends, if there is more of it.
    turn_last: Option<u64>,
    /// When the next one begins.
    turn_at: Instant,
    at: Instant,
    /// Leaves whose new record is put a little later.
    later: BTreeMap<(Instant, PeerId), How>,
    /// When that of each is.
    later_at: BTreeMap<PeerId, Instant>,
    /// Leaves whose record is put with the others here.
    together: BTreeMap<PeerId, How>,
    /// When they are put, at the latest.
    together_at: Option<Instant>,
    met: VecDeque<Met>,
    met_at: Option<Instant>,
    repair: Repair,
    /// Who was given what it is to keep.
    served: RateTable<PeerId>,
    /// Whose holders are being searched, and whose will be.
    searches: BTreeMap<PeerId, (Search, How)>,
    deadlines: Deadlines<PeerId>,
    waiting: BTreeMap<PeerId, How>,
    /// Who asked for records that it was named.
    wanted: RateTable<PeerId>,
}

/// How records are put.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum How {
    /// By name, and any record of that peer's will do: an older one, perhaps, which still names a home of its.
    Any,
    /// By name: whoever has it needs no more.
    Named,
    /// As it is, to the nearest [`CHANGED_HOLDERS`].
    Changed,
    /// As it is.
    Whole,
}

impl How {
    /// So that both are done.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            // Those that are beyond the reach of the one are named by the other.
            (Self::Named, Self::Changed) | (Self::Changed, Self::Named) => Self::Whole,
            _ => self.max(other),
        }
    }

    /// The most who are put it so.
    const fn reach(self) -> usize {
        match self {
            Self::Changed => CHANGED_HOLDERS,
            Self::Any | Self::Named | Self::Whole => HOLDERS_MAX,
        }
    }
}

/// What is put to whom, gathered so that one packet holds as many as fit.
type Puts<'a> = BTreeMap<PeerId, (SocketAddr, Vec<&'a [u8]>)>;

impl Placing {
    /// The room of the supernode `me`.
    pub(crate) fn new(now: Instant, me: PeerId) -> Self {
        Self {
            me,
            turn: u64::from_be_bytes(id_prefix(&me)),
            turn_last: None,
            turn_at: now + TICK,
            at: now + TICK,
            later: BTreeMap::new(),
            later_at: BTreeMap::new(),
            together: BTreeMap::new(),
            together_at: None,
            met: VecDeque::new(),
            met_at: None,
            repair: Repair::default(),
            served: RateTable::new(SERVE, SERVE_ALL, SERVED_MAX),
            searches: BTreeMap::new(),
            deadlines: Deadlines::default(),
            waiting: BTreeMap::new(),
            wanted: RateTable::new(WANTED, WANTED_ALL, SERVED_MAX),
        }
    }

    /// A leaf that was registered here brought a new record: one of its homes is another one now. Those who find the old
    /// one still find this home by it, so that it may wait: where many lose a home at once, not all holders are told
    /// at once.
    pub(crate) fn put_later(&mut self, now: Instant, leaf: PeerId, jitter: &mut ChoiceRng) {
        self.put_at(now + jitter.jitter(LATER_SPREAD), leaf, How::Changed);
    }

    /// Once, however often it is to be put: as soon, and as much of it, as any of these times.
    fn put_at(&mut self, at: Instant, leaf: PeerId, how: How) {
        let before = self.later_at.get(&leaf).copied();
        if before.is_none() && self.later.len() >= LATER_MAX {
            return;
        }
        let (at, how) = match before.and_then(|before| Some((before, self.later.remove(&(before, leaf))?))) {
            Some((before, had)) => (at.min(before), how.and(had)),
            None => (at, how),
        };
        self.later.insert((at, leaf), how);
        self.later_at.insert(leaf, at);
    }

    /// A leaf that was not registered here brought a record. Where another home is to put it to all, this one has time, and
    /// sends it to those that have none by then.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        bytes: &[u8],
        members: &MembershipTable,
        jitter: &mut ChoiceRng,
        out: &mut VecDeque<Output>,
    ) {
        let Some(record) = Record::read_unchecked(bytes) else { return };
        if self.holders_of(&record, members) < HOLDERS_MAX {
            return self.put_at(now + SOON + jitter.jitter(SOON_SPREAD), record.id, How::Any);
        }
        self.put_all(now, How::Whole, core::iter::once(bytes), members, out);
    }

    /// The same for some: to those that are known to be nearest, or to those that a search finds.
    fn put_all<'a>(
        &mut self,
        now: Instant,
        how: How,
        records: impl Iterator<Item = &'a [u8]>,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        let mut puts = Puts::new();
        for record in records {
            if members.is_partial() {
                let has_room = self.waiting.len() < SEARCHES_WAIT_MAX;
                if let Some(record) = Record::read_unchecked(record).filter(|_| has_room) {
                    let waits = self.waiting.entry(record.id).or_insert(how);
                    *waits = how.and(*waits);
                }
            } else {
                self.gather(record, how, members, &mut puts);
            }
        }
        send(how, puts, out);
        self.search_next(now, members, out);
    }

    fn search_next(&mut self, now: Instant, members: &MembershipTable, out: &mut VecDeque<Output>) {
        while self.searches.len() < SEARCHES_MAX {
            let Some((leaf, how)) = self.waiting.pop_first() else { return };
            if let Some((_, before)) = self.searches.get_mut(&leaf) {
                *before = how.and(*before);
                continue;
            }
            let mut search = Search::new(leaf, &self.me, members.holders(&leaf, HOLDERS_MAX));
            // Where nobody else is known there is nobody to put it to.
            if let Some(due) = search.go_on(now, out) {
                self.deadlines.set(leaf, &mut search.due, Some(due));
                self.searches.insert(leaf, (search, how));
            }
        }
    }

    /// A supernode that was asked names those that it knows.
    #[expect(clippy::too_many_arguments, reason = "an answer, and what the overlay lends")]
    pub(crate) fn on_nearest(
        &mut self,
        now: Instant,
        (from, ip): (&PeerId, Option<IpAddr>),
        leaf: PeerId,
        supernodes: &[(PeerId, Address)],
        records: &RecordStore,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        let me = self.me;
        if self.searches.get_mut(&leaf).is_some_and(|(search, _)| search.on_nearest((from, ip), &me, supernodes)) {
            self.go_on(now, leaf, records, members, out);
            self.search_next(now, members, out);
        }
    }

    /// All who were asked have answered, or had time to.
    fn go_on(
        &mut self,
        now: Instant,
        leaf: PeerId,
        records: &RecordStore,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        let Some((search, _)) = self.searches.get_mut(&leaf) else { return };
        let next = search.go_on(now, out);
        self.deadlines.set(leaf, &mut search.due, next);
        if next.is_some() {
            return;
        }
        let Some((search, how)) = self.searches.remove(&leaf) else { return };
        let Some(record) = records.get(&leaf) else { return };
        let count = Record::read_unchecked(record).map_or(0, |record| self.holders_of(&record, members));
        let holders = search.holders(count.min(how.reach()));
        let others = holders.into_iter().filter(|(holder, _)| *holder != self.me);
        send(how, others.map(|(holder, address)| (holder, (address, vec![record]))).collect(), out);
    }

    /// Puts those that are next.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        records: &RecordStore,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        while let Some(leaf) = self.deadlines.pop_due(now) {
            if let Some((search, _)) = self.searches.get_mut(&leaf) {
                search.due = None;
                self.go_on(now, leaf, records, members, out);
            }
        }
        self.search_next(now, members, out);
        self.served.handle_timeout(now);
        if self.repair.at.is_some_and(|at| at <= now) {
            let (leaves, rest) = next_leaves(records, self.repair.from..=u64::MAX, LOOK_MAX);
            self.name_to_newcomers(&leaves, members, out);
            self.repair.end(now, rest, LOOK_EVERY);
        }
        if self.met_at.is_some_and(|at| at <= now)
            && let Some(met) = self.met.front_mut()
        {
            let (leaves, rest) = next_leaves(records, met.from..=u64::MAX, LOOK_MAX);
            met.from = rest.unwrap_or(0);
            let (to, address, is_done) = (met.peer, met.address, rest.is_none());
            let mut puts = Puts::new();
            for record in leaves {
                self.gather(record, How::Named, members, &mut puts);
            }
            puts.retain(|holder, _| *holder == to);
            puts.entry(to).and_modify(|(at, _)| *at = address);
            send(How::Named, puts, out);
            if is_done {
                self.met.pop_front();
            }
            self.met_at = (!self.met.is_empty()).then(|| now + LOOK_EVERY);
        }
        if self.at <= now {
            // A stretch that takes several goes still ends where it was to, and the next one begins when it was to: how
            // many are in one is nothing to the others.
            let last = self.turn_last.take().unwrap_or_else(|| {
                self.turn_at = now + TICK;
                self.turn.saturating_add(TURN - 1)
            });
            let (leaves, rest) = next_leaves(records, self.turn..=last, TURNS_MAX);
            self.turn = rest.unwrap_or(last.wrapping_add(1));
            self.turn_last = rest.map(|_| last);
            self.at = if rest.is_some() { now + LOOK_EVERY } else { self.turn_at.max(now + LOOK_EVERY) };
            for leaf in leaves.into_iter().filter_map(subject) {
                self.put_together(now, leaf, How::Named);
            }
        }
        self.put_due(now, records, members, out);
    }

    /// Where most holders of some leaves' records are lost, those that come in for them are named these.
    fn name_to_newcomers(&mut self, leaves: &[&[u8]], members: &MembershipTable, out: &mut VecDeque<Output>) {
        self.repair.begin();
        let from = if members.len() > NOTICED_AT_ONCE { REPAIRED_FROM_LATE } else { REPAIRED_FROM };
        let mut puts = Puts::new();
        for bytes in leaves {
            let Some(record) = Record::read_unchecked(bytes) else { continue };
            let (lost, newcomers) = members.lost_holders(&record.id, HOLDERS_MAX);
            if lost >= from {
                let first = newcomers.into_iter().take(self.holders_of(&record, members));
                self.put_to(first.collect(), bytes, &mut puts);
            }
        }
        send(How::Named, puts, out);
    }

    /// A supernode became suspect: it may be one too many of the holders of some record. Where this node cannot know who
    /// comes in for them, they come with the round.
    pub(crate) fn on_suspicion(&mut self, now: Instant, members: &MembershipTable) {
        if !members.is_partial() {
            self.repair.on_suspicion(now);
        }
    }

    /// It is put with others before long.
    fn put_together(&mut self, now: Instant, leaf: PeerId, how: How) {
        let had = self.together.entry(leaf).or_insert(how);
        *had = how.and(*had);
        let at = if self.together.len() < TOGETHER_MAX { now + TOGETHER } else { now };
        self.together_at = Some(self.together_at.map_or(at, |before| at.min(before)));
    }

    /// Puts those that were to be put later and whose time it is, and those that have waited for others.
    fn put_due(&mut self, now: Instant, records: &RecordStore, members: &MembershipTable, out: &mut VecDeque<Output>) {
        let mut urgent: Vec<&[u8]> = Vec::new();
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, leaf), how) = first.remove_entry();
            self.later_at.remove(&leaf);
            if how == How::Any {
                urgent.extend(records.get(&leaf));
                // By then the other home has put this very one, where there was an older one.
                self.put_at(now + LATER_SPREAD, leaf, How::Named);
            } else {
                self.put_together(now, leaf, how);
            }
        }
        self.put_all(now, How::Any, urgent.into_iter(), members, out);
        if self.together_at.is_none_or(|at| at > now) {
            return;
        }
        self.together_at = None;
        let mut due: BTreeMap<How, Vec<&[u8]>> = BTreeMap::new();
        for (leaf, how) in core::mem::take(&mut self.together) {
            let Some(bytes) = records.get(&leaf) else { continue };
            let is_others =
                || Record::read_unchecked(bytes).is_some_and(|r| self.holders_of(&r, members) < HOLDERS_MAX);
            if how > How::Named && is_others() {
                // The home that is to send it to all of them needs as long.
                self.put_at(now + LATER_SPREAD + TOGETHER, leaf, How::Named);
            } else {
                due.entry(how).or_default().push(bytes);
            }
        }
        for (how, records) in due {
            self.put_all(now, how, records.into_iter(), members, out);
        }
    }

    /// When that is next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        [self.met_at, self.repair.at, later, self.together_at, self.deadlines.next()]
            .into_iter()
            .flatten()
            .fold(self.at, Instant::min)
    }

    /// A supernode became known, or there is a link to it again. Whether it is given what it is to keep.
    #[must_use]
    pub(crate) fn on_met(&mut self, now: Instant, peer: PeerId, address: SocketAddr) -> bool {
        if !self.served.take(now, peer) {
            return false;
        }
        // Who waits already is given all from the beginning.
        self.met.retain(|met| met.peer != peer);
        if self.met.len() < MET_MAX {
            self.met.push_back(Met { peer, address, from: 0 });
        }
        self.met_at.get_or_insert(now);
        true
    }

    /// A supernode does not have these records, which it was named: they are put to it.
    pub(crate) fn on_wanted(
        &mut self,
        now: Instant,
        from: PeerId,
        renewals: &[Renewal],
        records: &RecordStore,
        out: &mut VecDeque<Output>,
    ) {
        if !self.wanted.take(now, from) {
            return;
        }
        let mut packer = Packer::new(from, out);
        for bytes in renewals.iter().filter_map(|renewal| records.named(*renewal)) {
            packer.push(&Message::Signed { kind: SignedKind::Record, bytes });
        }
    }

    /// To how many this node puts the record of a leaf that is registered here.
    fn holders_of(&self, record: &Record, members: &MembershipTable) -> usize {
        let mut homes = record.homes.iter().map(|(home, _)| home);
        let first = homes.find(|home| **home == self.me || members.is_alive(home));
        if first == Some(&self.me) { HOLDERS_MAX } else { OTHER_HOLDERS }
    }

    fn gather<'a>(&self, bytes: &'a [u8], how: How, members: &MembershipTable, puts: &mut Puts<'a>) {
        let Some(record) = Record::read_unchecked(bytes) else { return };
        let count = self.holders_of(&record, members).min(how.reach());
        self.put_to(members.holders(&record.id, count), bytes, puts);
    }

    /// A record goes to these, but for this node.
    fn put_to<'a>(&self, holders: Vec<(PeerId, SocketAddr)>, bytes: &'a [u8], puts: &mut Puts<'a>) {
        for (holder, address) in holders.into_iter().filter(|(holder, _)| *holder != self.me) {
            puts.entry(holder).or_insert((address, Vec::new())).1.push(bytes);
        }
    }

    /// A supernode became known: it is handed those records that it is to keep, where this one is the nearest of those
    /// that do.
    pub(crate) fn hand_over(
        &self,
        to: PeerId,
        address: SocketAddr,
        records: &RecordStore,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        let is_due = |record: &&[u8]| {
            let Some(Record { id, .. }) = Record::read_unchecked(record) else { return false };
            let holders = members.holders(&id, HOLDERS_MAX);
            let is_its = holders.iter().any(|(holder, _)| *holder == to);
            is_its && holders.iter().find(|(holder, _)| *holder != to).is_some_and(|(holder, _)| *holder == self.me)
        };
        let near = records.nearest(&to, HANDED_MAX).into_iter().filter(is_due).collect();
        send(How::Named, Puts::from([(to, (address, near))]), out);
    }
}

/// The records of the leaves at these places, so many at most, and from where there may be more.
fn next_leaves(records: &RecordStore, places: RangeInclusive<u64>, max: usize) -> (Vec<&[u8]>, Option<u64>) {
    let mut leaves = Vec::new();
    for (passed, (place, leaf)) in records.leaves(places).enumerate() {
        if passed == PASSED_MAX || leaves.len() == max {
            return (leaves, Some(place));
        }
        leaves.extend(leaf);
    }
    (leaves, None)
}

fn send(how: How, puts: Puts<'_>, out: &mut VecDeque<Output>) {
    for (holder, (address, records)) in puts {
        let mut packer = Packer::dialling(holder, address, out);
        match how {
            How::Changed | How::Whole => {
                for bytes in records {
                    packer.push(&Message::Signed { kind: SignedKind::Record, bytes });
                }
            }
            How::Any | How::Named => {
                let name = |bytes: &&[u8]| {
                    let renewal = renewal_of(bytes)?;
                    Some(if how == How::Any { Renewal { hash: Renewal::ANY, ..renewal } } else { renewal })
                };
                for some in records.chunks(RENEWALS_MAX) {
                    packer.push(&Message::Renew(some.iter().filter_map(name).collect()));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "placing_tests.rs"]
mod tests;
