//! Asking supernodes for a record.
//!
//! [`Lookups::start`] is handed the supernodes to ask, best first: home 1, home 2, then others that are linked. One
//! is asked at a time; an answer that does not help, or none in time, moves on to the next. A record ends the lookup
//! at once, if it is authentic and speaks of the peer asked for. "Unknown" is believed only of two supernodes, or of
//! all there are: one alone may be new, or lie. Each lookup ends as one [`LookupOutcome`].

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use super::Record;
use crate::identity::PeerId;
use crate::overlay::advert::statement;
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::time::{Deadlines, Instant, WallTime, earliest};
use crate::wire::message::Message;

/// Most lookups at one time; a further one is refused.
const PENDING_MAX: usize = 256;
/// Most supernodes asked for one record.
pub(crate) const ASKED_MAX: usize = 4;
/// How often each of them is asked before the lookup fails.
const TRIES_MAX: u8 = 2;
/// First retransmission time-out; doubles when all have been asked once (RFC 8489 §6.2.1 has the doubling).
const RTO: Duration = Duration::from_secs(1);
/// So many supernodes must say no, if there are so many.
const NO_MIN: usize = 2;
/// Most answers remembered; at the limit the one that ends first goes.
const CACHE_MAX: usize = 1024;
/// How long an answer is remembered.
const CACHE_FOR: Duration = Duration::from_secs(600);

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
    /// An outcome will follow.
    Pending,
    /// There is nobody to ask.
    Nobody,
    /// Too many lookups are under way.
    Full,
}

struct Asked {
    supernode: PeerId,
    tries: u8,
    said_no: bool,
}

struct Pending {
    asked: ArrayVec<Asked, ASKED_MAX>,
    /// Index of the one whose answer is awaited.
    current: usize,
    deadline: Option<Instant>,
}

struct Cached {
    record: Record,
    deadline: Option<Instant>,
}

/// Lookups under way, their outcomes, and the records that earlier ones found.
#[derive(Default)]
pub(crate) struct Lookups {
    pending: BTreeMap<PeerId, Pending>,
    pending_deadlines: Deadlines<PeerId>,
    cache: BTreeMap<PeerId, Cached>,
    cache_deadlines: Deadlines<PeerId>,
    outcomes: VecDeque<(PeerId, LookupOutcome)>,
}

impl Lookups {
    /// Begins to look for the record of `peer`, or says that it is known. Of `supernodes`, the first
    /// [`ASKED_MAX`] are asked, in turn.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        peer: PeerId,
        supernodes: &[PeerId],
        out: &mut VecDeque<Output>,
    ) -> LookupStart {
        if let Some(cached) = self.cache.get(&peer) {
            return LookupStart::Cached(cached.record.clone());
        }
        if self.pending.contains_key(&peer) {
            return LookupStart::Pending;
        }
        if supernodes.is_empty() {
            return LookupStart::Nobody;
        }
        if self.pending.len() >= PENDING_MAX {
            return LookupStart::Full;
        }
        let asked = |supernode: &PeerId| Asked { supernode: *supernode, tries: 0, said_no: false };
        let asked = supernodes.iter().take(ASKED_MAX).map(asked).collect();
        self.pending.insert(peer, Pending { asked, current: 0, deadline: None });
        self.ask(now, peer, 0, out);
        LookupStart::Pending
    }

    fn ask(&mut self, now: Instant, peer: PeerId, index: usize, out: &mut VecDeque<Output>) {
        let Some(pending) = self.pending.get_mut(&peer) else { return };
        let Some(asked) = pending.asked.get_mut(index) else { return };
        asked.tries += 1;
        pending.current = index;
        let deadline = Some(now + RTO * u32::from(asked.tries));
        self.pending_deadlines.set(peer, &mut pending.deadline, deadline);
        send(out, asked.supernode, &Message::Lookup { peer });
    }

    /// The next one after the current that has neither said no nor been asked too often; or the end.
    fn advance(&mut self, now: Instant, peer: PeerId, out: &mut VecDeque<Output>) {
        let Some(pending) = self.pending.get(&peer) else { return };
        let no = pending.asked.iter().filter(|a| a.said_no).count();
        let open = |i: &usize| pending.asked.get(*i).is_some_and(|a| !a.said_no && a.tries < TRIES_MAX);
        let count = pending.asked.len();
        let next = (1..=count).map(|step| (pending.current + step) % count).find(open);
        match next {
            Some(index) if no < NO_MIN => self.ask(now, peer, index, out),
            // All were asked, or two said no. One that said no while others are silent is all there is to believe.
            _ if no > 0 => self.finish(peer, LookupOutcome::Unknown),
            _ => self.finish(peer, LookupOutcome::NoAnswer),
        }
    }

    fn finish(&mut self, peer: PeerId, outcome: LookupOutcome) {
        if let Some(mut pending) = self.pending.remove(&peer) {
            self.pending_deadlines.set(peer, &mut pending.deadline, None);
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
        let Some(pending) = self.pending.get_mut(&peer) else { return };
        let Some(index) = pending.asked.iter().position(|a| a.supernode == *from && a.tries > 0) else { return };
        if let Some((record, left)) = record.and_then(|bytes| check(peer, wall, bytes)) {
            self.remember(now, record.clone(), left);
            self.finish(peer, LookupOutcome::Found(record));
            return;
        }
        // A forged or stale record is worth as much as none.
        if pending.asked.get_mut(index).is_some_and(|asked| !core::mem::replace(&mut asked.said_no, true)) {
            self.advance(now, peer, out);
        }
    }

    fn remember(&mut self, now: Instant, record: Record, left: Duration) {
        let peer = record.id;
        self.forget(&peer);
        if self.cache.len() >= CACHE_MAX {
            let soonest = self.cache_deadlines.next().and_then(|at| self.cache_deadlines.pop_due(at));
            if let Some(soonest) = soonest {
                self.cache.remove(&soonest);
            }
        }
        let mut cached = Cached { record, deadline: None };
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
        let is_current = |p: &Pending| p.asked.get(p.current).is_some_and(|a| a.supernode == *supernode);
        let waiting: Vec<PeerId> = self.pending.iter().filter(|(_, p)| is_current(p)).map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.advance(now, peer, out);
        }
    }

    /// Asks the next ones, forgets old answers.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        while let Some(peer) = self.pending_deadlines.pop_due(now) {
            if let Some(pending) = self.pending.get_mut(&peer) {
                pending.deadline = None;
                self.advance(now, peer, out);
            }
        }
        while let Some(peer) = self.cache_deadlines.pop_due(now) {
            self.cache.remove(&peer);
        }
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
