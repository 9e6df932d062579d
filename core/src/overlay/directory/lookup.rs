//! Asking supernodes for a record.
//!
//! A leaf asks its homes, and a home asks those that keep the record ([`Whom`]), best first. One is asked at a time; an
//! answer that does not help, or none in time, moves on to the next. A record ends the lookup at once, if it is
//! authentic and speaks of the peer asked for. "Unknown" is believed only of several, or of all there are: one alone
//! may be new, or lie. Where not all supernodes can be known, those asked also name the nearest that they know, and these
//! are asked in turn, until the nearest that anybody knows have answered. Each lookup ends as one [`LookupOutcome`], for
//! this node and for all that asked it meanwhile.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use super::Record;
use super::placing::HOLDERS_MAX;
use crate::identity::PeerId;
use crate::overlay::advert::shelf::distance;
use crate::overlay::advert::statement;
use crate::overlay::output::Output;
use crate::overlay::pack::{Packer, send};
use crate::time::{Aged, Deadlines, Instant, WallTime, earliest};
use crate::wire::address::{Address, Prefix, Range, is_sendable};
use crate::wire::message::Message;

/// Most lookups at one time; a further one is refused.
const PENDING_MAX: usize = 256;
/// Most supernodes asked for one record.
pub(crate) const ASKED_MAX: usize = HOLDERS_MAX;
/// Most that are remembered of those named; the farthest have no place.
const FOUND_MAX: usize = 24;
/// Most of them that are in one prefix, where prefixes count: somebody may name whom he likes.
const FOUND_IN_PREFIX_MAX: usize = 2;
/// Most of them that a leaf asks.
pub(crate) const LEAF_ASKED_MAX: usize = 4;
/// Most peers that wait here for one answer; others ask again.
const ASKERS_MAX: usize = 16;
/// How often each of them is asked before the lookup fails.
const TRIES_MAX: u8 = 2;
/// First retransmission time-out; doubles when all have been asked once (RFC 8489 §6.2.1 has the doubling). A leaf's
/// home may have to ask others first.
const LEAF_RTO: Duration = Duration::from_secs(1);
/// The same of a home, which has the answer of some before its leaf asks the other home.
const HOME_RTO: Duration = Duration::from_millis(300);
/// So many homes must say no, if there are so many. Of those that keep records all must: some may sit around one place
/// to deny what is there.
const NO_MIN: usize = 2;
/// That there is no record is remembered for so long.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Most answers remembered; at the limit the one that ends first goes.
const CACHE_MAX: usize = 1024;
/// How long an answer is remembered.
const CACHE_FOR: Duration = Duration::from_secs(600);

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    /// Supernodes that a leaf is linked to, homes first; behind a stranger, which has an address, where homes were asked
    /// before in vain.
    Homes(Vec<(PeerId, Option<SocketAddr>)>),
    /// The supernodes that keep the record, and where they are.
    Holders(Vec<(PeerId, SocketAddr)>),
    /// All of them at once, and the newest record counts: what one of them had, or this node itself, did not help.
    AllHolders(Vec<(PeerId, SocketAddr)>),
}

impl Whom {
    fn list(&self) -> ArrayVec<(PeerId, Option<SocketAddr>), ASKED_MAX> {
        match self {
            Self::Homes(homes) => homes.iter().take(LEAF_ASKED_MAX).copied().collect(),
            Self::Holders(all) | Self::AllHolders(all) => {
                all.iter().take(ASKED_MAX).map(|(holder, at)| (*holder, Some(*at))).collect()
            }
        }
    }
}

/// How a lookup ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LookupOutcome {
    /// With a record.
    Found(Record),
    /// Supernodes agree that there is none.
    Unknown,
    /// No supernode answered.
    NoAnswer,
}

/// How a lookup began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LookupStart {
    /// The answer is known.
    Cached(Record),
    /// There was none a moment ago.
    Unknown,
    /// An outcome will follow.
    Pending,
    /// There is nobody to ask.
    Nobody,
    /// Too many lookups are under way.
    Full,
}

struct Asked {
    supernode: PeerId,
    address: Option<SocketAddr>,
    tries: u8,
    said_no: bool,
    /// Another one named it, and this node has not been there.
    is_named: bool,
}

struct Pending {
    /// Nearest first, where they name nearer ones.
    asked: Vec<Asked>,
    /// They are to.
    seeks: bool,
    /// The node itself wants to know.
    is_own: bool,
    /// Others that do.
    askers: Vec<PeerId>,
    no_min: usize,
    rto: Duration,
    /// All are asked at once; the newest record so far, and how long it holds.
    newest: Option<Newest>,
    /// Whose answer is awaited.
    current: Option<PeerId>,
    deadline: Option<Instant>,
}

#[derive(Default)]
struct Newest {
    answers: usize,
    found: Option<(Record, Box<[u8]>, Duration)>,
}

struct Cached {
    record: Record,
    /// As it travels, where it may be passed on.
    bytes: Option<Box<[u8]>>,
    deadline: Option<Instant>,
}

/// Lookups under way, their outcomes, and the records that earlier ones found.
#[derive(Default)]
pub(crate) struct Lookups {
    pending: BTreeMap<PeerId, Box<Pending>>,
    pending_deadlines: Deadlines<PeerId>,
    cache: BTreeMap<PeerId, Cached>,
    cache_deadlines: Deadlines<PeerId>,
    unknown: Aged<PeerId, (), CACHE_MAX>,
    /// Homes that did not answer in time, and were not asked for yet.
    silent: Vec<PeerId>,
    outcomes: VecDeque<(PeerId, LookupOutcome)>,
    /// There may be holders of records that this node does not know.
    pub(crate) is_seeking: bool,
}

impl Lookups {
    /// Begins to look for the record of `peer`, or says that it is known.
    pub(crate) fn start(&mut self, now: Instant, peer: PeerId, whom: &Whom, out: &mut VecDeque<Output>) -> LookupStart {
        if let Some(cached) = self.cache.get(&peer) {
            return LookupStart::Cached(cached.record.clone());
        }
        let start = self.begin(now, peer, whom, out);
        if let Some(pending) = self.pending.get_mut(&peer) {
            pending.is_own = true;
        }
        start
    }

    /// The same where an earlier answer did not help: what all of `whom` have that is newest.
    pub(crate) fn start_newest(
        &mut self,
        now: Instant,
        peer: PeerId,
        whom: &Whom,
        out: &mut VecDeque<Output>,
    ) -> LookupStart {
        self.forget(&peer);
        self.start(now, peer, whom, out)
    }

    /// The same for `asker`, who is answered at once or when the lookup ends; where nobody answers, neither is it. Where
    /// all are asked, the answer is not older than `own`, the record that is at hand.
    pub(crate) fn start_for(
        &mut self,
        now: Instant,
        asker: PeerId,
        peer: PeerId,
        whom: &Whom,
        own: Option<(Option<WallTime>, &[u8])>,
        out: &mut VecDeque<Output>,
    ) {
        let is_known = |_: &&Cached| !matches!(whom, Whom::AllHolders(_));
        if let Some(cached) = self.cache.get(&peer).filter(is_known) {
            return send(out, asker, &Message::LookupReply { peer, record: cached.bytes.as_deref() });
        }
        match self.begin(now, peer, whom, out) {
            LookupStart::Pending => {
                let Some(pending) = self.pending.get_mut(&peer) else { return };
                if let Some(newest) = pending.newest.as_mut().filter(|newest| newest.found.is_none()) {
                    let checked = own.and_then(|(wall, bytes)| Some((check(peer, wall, bytes)?, bytes)));
                    newest.found = checked.map(|((record, left), bytes)| (record, bytes.into(), left));
                }
                if pending.askers.len() < ASKERS_MAX && !pending.askers.contains(&asker) {
                    pending.askers.push(asker);
                }
            }
            // Nobody has a newer one.
            LookupStart::Unknown | LookupStart::Nobody => {
                send(out, asker, &Message::LookupReply { peer, record: own.map(|(_, bytes)| bytes) });
            }
            // It asks again, or another one.
            LookupStart::Full | LookupStart::Cached(_) => {}
        }
    }

    fn begin(&mut self, now: Instant, peer: PeerId, whom: &Whom, out: &mut VecDeque<Output>) -> LookupStart {
        if self.pending.contains_key(&peer) {
            return LookupStart::Pending;
        }
        self.unknown.forget_while(|at| now.since(at) >= UNKNOWN_FOR);
        if self.unknown.get(&peer).is_some() && !matches!(whom, Whom::AllHolders(_)) {
            return LookupStart::Unknown;
        }
        let list = whom.list();
        if list.is_empty() {
            return LookupStart::Nobody;
        }
        if self.pending.len() >= PENDING_MAX {
            return LookupStart::Full;
        }
        let list_len = list.len();
        let asked = |(supernode, address)| Asked { supernode, address, tries: 0, said_no: false, is_named: false };
        let mut asked: Vec<Asked> = list.into_iter().map(asked).collect();
        let seeks = self.is_seeking && !matches!(whom, Whom::Homes(_));
        if seeks {
            asked.sort_by_key(|a| distance(&peer, &a.supernode));
        }
        let (no_min, rto) = match whom {
            Whom::Homes(_) => (NO_MIN, LEAF_RTO),
            Whom::Holders(_) => (ASKED_MAX, HOME_RTO),
            Whom::AllHolders(_) => (ASKED_MAX, 2 * HOME_RTO),
        };
        let newest = matches!(whom, Whom::AllHolders(_)).then(Newest::default);
        let all = if newest.is_some() { list_len } else { 1 };
        let pending = Pending {
            asked,
            seeks,
            is_own: false,
            askers: Vec::new(),
            no_min,
            rto,
            newest,
            current: None,
            deadline: None,
        };
        self.pending.insert(peer, Box::new(pending));
        (0..all).for_each(|index| self.ask(now, peer, index, out));
        LookupStart::Pending
    }

    fn ask(&mut self, now: Instant, peer: PeerId, index: usize, out: &mut VecDeque<Output>) {
        let Some(pending) = self.pending.get_mut(&peer) else { return };
        let Some(asked) = pending.asked.get_mut(index) else { return };
        asked.tries += 1;
        pending.current = Some(asked.supernode);
        let deadline = Some(now + pending.rto * u32::from(asked.tries));
        self.pending_deadlines.set(peer, &mut pending.deadline, deadline);
        let question = if pending.seeks { Message::Seek { peer, record: true } } else { Message::Lookup { peer } };
        match asked.address {
            None => send(out, asked.supernode, &question),
            Some(address) => Packer::dialling(asked.supernode, address, out).push(&question),
        }
    }

    /// The next one that has neither said no nor been asked too often, the nearest of those asked least; or the end.
    fn advance(&mut self, now: Instant, peer: PeerId, out: &mut VecDeque<Output>) {
        let Some(pending) = self.pending.get(&peer) else { return };
        let no = pending.asked.iter().filter(|a| a.said_no).count();
        let is_silent = |a: &Asked| !a.said_no && a.tries >= TRIES_MAX;
        // The farther ones count only where nearer ones do not answer.
        let nearest = pending.asked.iter().enumerate().filter(|(_, a)| !is_silent(a)).take(ASKED_MAX);
        let next = nearest.filter(|(_, a)| !a.said_no).min_by_key(|(_, a)| a.tries).map(|(index, _)| index);
        let all_said_no = !pending.asked.iter().any(is_silent);
        match next {
            Some(index) if no < pending.no_min || pending.seeks => self.ask(now, peer, index, out),
            // All were asked, or two said no. One that said no while others are silent is all there is to believe.
            _ if no > 0 => {
                // Where some were silent, they may know better.
                if pending.no_min > NO_MIN && all_said_no {
                    self.unknown.insert(now, peer, ());
                }
                self.finish(peer, LookupOutcome::Unknown, out);
            }
            _ => self.finish(peer, LookupOutcome::NoAnswer, out),
        }
    }

    fn finish(&mut self, peer: PeerId, outcome: LookupOutcome, out: &mut VecDeque<Output>) {
        let Some(mut pending) = self.pending.remove(&peer) else { return };
        if self.pending.is_empty() {
            // An empty tree would keep its root.
            self.pending = BTreeMap::new();
        }
        self.pending_deadlines.set(peer, &mut pending.deadline, None);
        let record = self.cache.get(&peer).and_then(|cached| cached.bytes.as_deref());
        if outcome != LookupOutcome::NoAnswer {
            for asker in pending.askers {
                send(out, asker, &Message::LookupReply { peer, record });
            }
        }
        if pending.is_own {
            self.outcomes.push_back((peer, outcome));
        }
    }

    /// A supernode answered. Only those that were asked are listened to.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        from: &PeerId,
        wall: Option<WallTime>,
        peer: PeerId,
        record: Option<&[u8]>,
        out: &mut VecDeque<Output>,
    ) {
        let record_bytes = record;
        let Some(pending) = self.pending.get_mut(&peer) else { return };
        let Some(index) = pending.asked.iter().position(|a| a.supernode == *from && a.tries > 0) else { return };
        if let Some(newest) = &mut pending.newest {
            let is_first = pending.asked.get_mut(index).is_some_and(|a| !core::mem::replace(&mut a.said_no, true));
            newest.answers += usize::from(is_first);
            let newer = |record: &Record| newest.found.as_ref().is_none_or(|(old, ..)| old.sequence < record.sequence);
            if let Some((record, left)) = record.and_then(|bytes| check(peer, wall, bytes)).filter(|(r, _)| newer(r)) {
                newest.found = Some((record, record_bytes.unwrap_or_default().into(), left));
            }
            if newest.answers == pending.asked.iter().filter(|a| a.tries > 0).count() {
                self.finish_newest(now, peer, out);
            }
            return;
        }
        if let Some((record, left)) = record.and_then(|bytes| check(peer, wall, bytes)) {
            let bytes = if pending.no_min > NO_MIN { record_bytes } else { None };
            self.remember(now, record.clone(), bytes, left);
            self.finish(peer, LookupOutcome::Found(record), out);
            return;
        }
        // A forged or stale record is worth as much as none.
        if pending.asked.get_mut(index).is_some_and(|asked| !core::mem::replace(&mut asked.said_no, true)) {
            self.advance(now, peer, out);
        }
    }

    /// A supernode that was asked has no record, and names the nearest that it knows.
    pub(crate) fn on_nearest(
        &mut self,
        now: Instant,
        (from, ip): (&PeerId, Option<IpAddr>),
        me: &PeerId,
        peer: PeerId,
        supernodes: &[(PeerId, Address)],
        out: &mut VecDeque<Output>,
    ) {
        let Some(pending) = self.pending.get_mut(&peer).filter(|pending| pending.seeks) else { return };
        if !pending.asked.iter().any(|a| a.supernode == *from && a.tries > 0 && !a.said_no) {
            return;
        }
        let prefix_of = |at: &SocketAddr| Prefix::counted(at.ip());
        for (id, address) in supernodes {
            let at = SocketAddr::from(*address);
            let same = |a: &&Asked| a.address.as_ref().and_then(prefix_of).is_some_and(|p| Some(p) == prefix_of(&at));
            let is_known = pending.asked.iter().any(|a| a.supernode == *id) || id == me || *id == peer;
            let is_right = is_sendable(at) && Range::is_heard_right(at.ip(), ip);
            if is_known || !is_right || pending.asked.iter().filter(same).count() >= FOUND_IN_PREFIX_MAX {
                continue;
            }
            let far = distance(&peer, id);
            let place = pending.asked.partition_point(|a| distance(&peer, &a.supernode) < far);
            if place < FOUND_MAX {
                pending.asked.insert(
                    place,
                    Asked { supernode: *id, address: Some(at), tries: 0, said_no: false, is_named: true },
                );
            }
            // Who was asked already keeps its place, and so does whom this node has been to.
            let is_word = |a: &Asked| a.tries == 0 && a.is_named;
            if pending.asked.len() > FOUND_MAX
                && let Some(last) = pending.asked.iter().rposition(is_word)
            {
                pending.asked.remove(last);
            }
        }
        if pending.newest.is_some() {
            let new = pending.asked.iter().enumerate().take(ASKED_MAX).filter(|(_, a)| a.tries == 0);
            let new: Vec<usize> = new.map(|(index, _)| index).collect();
            for index in new {
                self.ask(now, peer, index, out);
            }
        }
        self.on_reply(now, from, None, peer, None, out);
    }

    /// All have answered, or had time to.
    fn finish_newest(&mut self, now: Instant, peer: PeerId, out: &mut VecDeque<Output>) {
        let Some(newest) = self.pending.get_mut(&peer).and_then(|pending| pending.newest.take()) else { return };
        match newest.found {
            Some((record, bytes, left)) => {
                self.remember(now, record.clone(), Some(&bytes), left);
                self.finish(peer, LookupOutcome::Found(record), out);
            }
            None if newest.answers > 0 => self.finish(peer, LookupOutcome::Unknown, out),
            None => self.finish(peer, LookupOutcome::NoAnswer, out),
        }
    }

    fn remember(&mut self, now: Instant, record: Record, bytes: Option<&[u8]>, left: Duration) {
        let peer = record.id;
        self.forget(&peer);
        if self.cache.len() >= CACHE_MAX {
            let soonest = self.cache_deadlines.next().and_then(|at| self.cache_deadlines.pop_due(at));
            if let Some(soonest) = soonest {
                self.cache.remove(&soonest);
            }
        }
        let mut cached = Cached { record, bytes: bytes.map(Into::into), deadline: None };
        self.cache_deadlines.set(peer, &mut cached.deadline, Some(now + left.min(CACHE_FOR)));
        self.cache.insert(peer, cached);
    }

    /// Forgets a cached answer: the homes that it names did not know the peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        if let Some(mut cached) = self.cache.remove(peer) {
            self.cache_deadlines.set(*peer, &mut cached.deadline, None);
        }
    }

    /// A link to a supernode ended: what it was asked, others are asked.
    pub(crate) fn on_link_down(&mut self, now: Instant, supernode: &PeerId, out: &mut VecDeque<Output>) {
        let is_current = |p: &Pending| p.newest.is_none() && p.current == Some(*supernode);
        let waiting: Vec<PeerId> = self.pending.iter().filter(|(_, p)| is_current(p)).map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.advance(now, peer, out);
        }
    }

    /// Asks the next ones, forgets old answers.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        while let Some(peer) = self.pending_deadlines.pop_due(now) {
            let Some(pending) = self.pending.get_mut(&peer) else { continue };
            pending.deadline = None;
            if pending.newest.is_some() {
                self.finish_newest(now, peer, out);
            } else {
                let current = pending.current;
                let asked = pending.asked.iter().find(|a| Some(a.supernode) == current && a.address.is_none());
                self.silent.extend(asked.map(|asked| asked.supernode));
                self.advance(now, peer, out);
            }
        }
        while let Some(peer) = self.cache_deadlines.pop_due(now) {
            self.cache.remove(&peer);
        }
    }

    /// Homes that did not answer in time: they may be dead.
    pub(crate) fn take_silent(&mut self) -> Vec<PeerId> {
        core::mem::take(&mut self.silent)
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.pending_deadlines.next(), self.cache_deadlines.next())
    }

    /// A lookup that ended.
    pub(crate) fn poll_outcome(&mut self) -> Option<(PeerId, LookupOutcome)> {
        self.outcomes.pop_front()
    }
}

fn check(peer: PeerId, wall: Option<WallTime>, bytes: &[u8]) -> Option<(Record, Duration)> {
    if !statement::speaks_of(bytes, &peer) {
        return None;
    }
    let record = Record::verify(bytes).ok()?;
    let left = statement::time_left(&record, wall).ok()?;
    Some((record, left))
}
