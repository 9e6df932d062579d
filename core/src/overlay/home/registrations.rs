//! The supernode's side: who is registered here, and do the other homes of those leaves live?
//!
//! A registration is a leaf's id and two numbers, of its other home and of what its prefix is counted by: a node may hold
//! a million. It stands while the link to the leaf does. Each other home that is a supernode we know is asked every few
//! seconds whether it lives; when it stays silent, every leaf that shares it is told, a few at a time.

use core::num::NonZeroU16;
use core::ops::Bound;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::balance::{Applicant, Balance, Named};
use super::shares::{Counter, Shares};
use crate::account::{Rate, RateTable, Source};
use crate::api::Serving;
use crate::identity::PeerId;
use crate::overlay::advert::shelf::Refused;
use crate::overlay::directory::{Putter, Record};
use crate::overlay::gossip::Stores;
use crate::overlay::output::Output;
use crate::overlay::pack::{Packer, send};
use crate::random::ChoiceRng;
use crate::time::{Deadlines, Instant, earliest};
use crate::wire::message::{Load, Message, PARTNERS_MAX, Refusal};
use crate::wire::places::Places;

/// Most other homes watched; leaves whose other home is beyond that are registered all the same.
const WATCHED_MAX: usize = 1024;
/// Time between two questions, together with up to [`ASK_JITTER`].
const ASK_EVERY_MIN: Duration = Duration::from_secs(9);
/// A question that is not answered is repeated after this, and up to [`ASK_JITTER`] more.
const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// See [`ASK_EVERY_MIN`].
const ASK_JITTER: Duration = Duration::from_secs(1);
/// Questions unanswered until a home counts as dead.
const MISSED_MAX: u8 = 3;
/// A dead home is asked again after this, and as much again at random.
const DEAD_ASK_EVERY: Duration = Duration::from_secs(30);
/// Leaves that share a home with us are told that it is dead in so many goes,
const TELL_GOES: usize = 100;
/// so far apart: they are to look for another one within ten seconds, and not all at once.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Leaves looked at in one go to find those: a look is cheap, a million are not.
const LOOK_MAX: usize = 16_384;
/// So many dead homes are told of at once; further ones wait for their turn a little longer.
const TELL_AT_ONCE: u32 = 32;

/// A leaf registers when a home of its changes and every few hours, each time with a signature to be checked: all
/// together, and those of one [`Source`].
const REGISTER_ALL: Rate = Rate { interval: Duration::from_micros(100), burst: 10_000 };
/// See [`REGISTER_ALL`].
const REGISTER: Rate = Rate { interval: Duration::from_micros(400), burst: 2_500 };
/// Most sources of which it is remembered how often leaves there registered lately.
const REGISTERING_MAX: usize = 65_536;

/// What came of a [`Message::Register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Registered {
    /// Why not, if not; the leaf has been told, unless there was no time to look at what it brings: then it asks again.
    pub refused: Option<Refusal>,
    /// Whether the record was new: then it is to be pushed to other supernodes.
    pub is_record_new: bool,
    /// Whether the leaf was registered before: where it was found, it still is.
    pub was_here: bool,
}

struct Registration {
    other: Option<Other>,
    /// What it counts for among the [`Shares`].
    counter: Option<Counter>,
}

/// Number of the other home among the watched ones, twice, and one more if that is the leaf's first home. Zero is none,
/// so that none takes no room of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Other(NonZeroU16);

impl Other {
    /// Most numbers there are.
    const NUMBER_MAX: u16 = u16::MAX >> 1;

    fn new(number: NonZeroU16, is_first: bool) -> Self {
        // The number is not zero.
        Self(NonZeroU16::new(number.get() << 1 | u16::from(is_first)).unwrap_or(NonZeroU16::MAX))
    }

    fn number_after(number: NonZeroU16) -> NonZeroU16 {
        number.checked_add(1).filter(|n| n.get() <= Self::NUMBER_MAX).unwrap_or(NonZeroU16::MIN)
    }

    fn number(self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.0.get() >> 1)
    }

    fn is_first(self) -> bool {
        self.0.get() & 1 == 1
    }
}

// What a million of them weigh.
const _: () = assert!(size_of::<(PeerId, Registration)>() <= 36);

struct Watched {
    home: PeerId,
    leaves: usize,
    is_linked: bool,
    /// Was linked at any time since it is watched.
    was_linked: bool,
    is_dead: bool,
    missed: u8,
    heard_at: Option<Instant>,
    deadline: Option<Instant>,
}

/// Telling leaves that a home is dead, or was, goes through the registrations in order; this is how far it has come.
struct Telling {
    number: NonZeroU16,
    after: Option<PeerId>,
}

/// The leaves registered here, and their other homes, which are watched.
pub(crate) struct Registrations {
    me: PeerId,
    balance: Balance,
    leaves: BTreeMap<PeerId, Registration>,
    /// Of how many of them this is the second home.
    seconds: usize,
    shares: Shares,
    /// Who of those was sent elsewhere last.
    sent_after: Option<PeerId>,
    watched: BTreeMap<NonZeroU16, Watched>,
    numbers: BTreeMap<PeerId, NonZeroU16>,
    next_number: NonZeroU16,
    deadlines: Deadlines<NonZeroU16>,
    telling: VecDeque<Telling>,
    /// Homes found dead since this was asked last.
    found_dead: Vec<PeerId>,
    /// How often leaves bring something lately.
    taken: RateTable<Source>,
    tell_at: Option<Instant>,
}

impl Registrations {
    /// No leaf, and room for `leaves_max`.
    pub(crate) fn new(now: Instant, me: PeerId, leaves_max: usize) -> Self {
        Self {
            me,
            balance: Balance::new(now, me, u32::try_from(leaves_max).unwrap_or(u32::MAX)),
            leaves: BTreeMap::new(),
            seconds: 0,
            shares: Shares::new(me),
            sent_after: None,
            watched: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: NonZeroU16::MIN,
            deadlines: Deadlines::default(),
            telling: VecDeque::new(),
            found_dead: Vec::new(),
            taken: RateTable::new(REGISTER, REGISTER_ALL, REGISTERING_MAX),
            tell_at: None,
        }
    }

    /// How many leaves are registered.
    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Who is registered here.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &PeerId> {
        self.leaves.keys()
    }

    /// Whether `leaf` is registered here.
    pub(crate) fn contains(&self, leaf: &PeerId) -> bool {
        self.leaves.contains_key(leaf)
    }

    /// Whether the link to `peer` is wanted here.
    pub(crate) fn needs(&self, peer: &PeerId) -> bool {
        self.leaves.contains_key(peer) || self.numbers.contains_key(peer)
    }

    /// A leaf asks to be registered, over a confirmed link. It is answered; its record, if it names this home, is
    /// kept.
    pub(crate) fn on_register(
        &mut self,
        now: Instant,
        (leaf, source): (PeerId, Source),
        other_home: Option<PeerId>,
        record: &[u8],
        load: Load,
        s: &mut Stores<'_>,
    ) -> Registered {
        let is_new = !self.leaves.contains_key(&leaf);
        let counter = self.shares.counter(source);
        let applicant = Applicant { source, from_there: self.shares.of(counter), has_other_home: other_home.is_some() };
        if leaf == self.me || (is_new && !self.balance.admits(now, self.leaves.len(), &applicant)) {
            let refused = Some(Refusal::Busy);
            let retry_after_s = Balance::retry_after_s(&mut s.random.jitter);
            let supernodes = self.balance.elsewhere(&mut s.random.peer_choice);
            let mut packer = Packer::new(leaf, s.out);
            packer.push(&Message::RegisterReply { refused, load });
            packer.push(&Message::Elsewhere { retry_after_s, supernodes });
            return Registered { refused, is_record_new: false, was_here: false };
        }
        if !self.taken.take(now, source) {
            // They repeat themselves faster than any leaves do.
            return Registered { refused: Some(Refusal::Busy), is_record_new: false, was_here: !is_new };
        }
        // Its own, and naming us: a leaf is a home for nobody else's record.
        let parsed = Record::read_unchecked(record).filter(|r| r.id == leaf && r.names(&self.me));
        let kept = parsed.as_ref().map(|_| s.records.insert(now, source, s.wall, record, Putter::Leaf));
        if matches!(kept, Some(Err(Refused::Budget))) {
            // No time to look at it now: it asks again.
            return Registered { refused: Some(Refusal::Busy), is_record_new: false, was_here: !is_new };
        }
        let is_record_new = matches!(kept, Some(Ok(_)));
        let other = other_home.filter(|home| *home != self.me && *home != leaf && s.members.contains(home));
        let is_other_first =
            other.is_some_and(|other| parsed.as_ref().is_some_and(|r| r.homes.first().is_some_and(|h| h.0 == other)));
        let number = other.and_then(|home| self.watch(now, home, &mut s.random.jitter));
        let other = number.map(|number| Other::new(number, is_other_first));
        self.seconds += usize::from(other.is_some_and(Other::is_first));
        self.shares.enter(counter);
        if let Some(old) = self.leaves.insert(leaf, Registration { other, counter }) {
            self.unwatch(old.other, s.out);
            self.shares.leave(old.counter);
        }
        let mut packer = Packer::new(leaf, s.out);
        packer.push(&Message::RegisterReply { refused: None, load });
        packer.push(&Message::Places(self.places()));
        Registered { refused: None, is_record_new, was_here: !is_new }
    }

    /// How much room there is.
    pub(crate) fn places(&self) -> Places {
        self.balance.places(self.leaves.len())
    }

    /// For the operator.
    pub(crate) fn report(&self, serving: &mut Serving) {
        self.balance.report(serving);
    }

    /// Who had best be the other home of a leaf whose first home this is.
    pub(crate) fn partners(&self, choice: &mut ChoiceRng) -> Named<PARTNERS_MAX> {
        self.balance.partners(choice)
    }

    /// A leaf says goodbye. Its record goes if it names this home: whoever asks for it should hear so at once.
    pub(crate) fn on_deregister(&mut self, now: Instant, leaf: &PeerId, s: &mut Stores<'_>) {
        let names_us = |bytes: &[u8]| Record::read_unchecked(bytes).is_some_and(|r| r.names(&self.me));
        let is_ours = s.records.get(leaf).is_some_and(names_us);
        if !self.remove(leaf, s.out) {
            return;
        }
        if is_ours {
            s.records.remove(leaf);
        } else {
            s.records.let_go(now, leaf);
        }
    }

    fn remove(&mut self, leaf: &PeerId, out: &mut VecDeque<Output>) -> bool {
        let Some(registration) = self.leaves.remove(leaf) else { return false };
        self.unwatch(registration.other, out);
        self.shares.leave(registration.counter);
        true
    }

    /// One more leaf has this other home.
    fn watch(&mut self, now: Instant, home: PeerId, jitter: &mut ChoiceRng) -> Option<NonZeroU16> {
        if let Some(number) = self.numbers.get(&home) {
            self.watched.get_mut(number)?.leaves += 1;
            return Some(*number);
        }
        if self.watched.len() >= WATCHED_MAX {
            return None;
        }
        // Fewer are watched than there are numbers.
        while self.watched.contains_key(&self.next_number) {
            self.next_number = Other::number_after(self.next_number);
        }
        let number = self.next_number;
        self.next_number = Other::number_after(number);
        let mut watched = Watched {
            home,
            leaves: 1,
            is_linked: false,
            was_linked: false,
            is_dead: false,
            missed: 0,
            heard_at: None,
            deadline: None,
        };
        self.deadlines.set(number, &mut watched.deadline, Some(now + jitter.jitter(ASK_EVERY_MIN)));
        self.watched.insert(number, watched);
        self.numbers.insert(home, number);
        Some(number)
    }

    /// One leaf less has this other home.
    fn unwatch(&mut self, other: Option<Other>, out: &mut VecDeque<Output>) {
        let Some(other) = other else { return };
        self.seconds -= usize::from(other.is_first());
        let Some(number) = other.number() else { return };
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.leaves -= 1;
        if watched.leaves == 0 {
            self.deadlines.set(number, &mut watched.deadline, None);
            out.push_back(Output::Release { peer: watched.home });
            self.numbers.remove(&watched.home);
            self.watched.remove(&number);
        }
    }

    /// Those that were found dead since this was asked last.
    pub(crate) fn take_found_dead(&mut self) -> Vec<PeerId> {
        core::mem::take(&mut self.found_dead)
    }

    fn watched_mut(&mut self, home: &PeerId) -> Option<&mut Watched> {
        self.watched.get_mut(self.numbers.get(home)?)
    }

    /// A link is up (not one that was merely rekeyed): if it is to another home, questions go over it. If there was
    /// one before, that home may have restarted and forgotten its leaves; they are told, and will see for themselves.
    pub(crate) fn on_link_up(&mut self, now: Instant, peer: &PeerId) {
        let Some(number) = self.numbers.get(peer).copied() else { return };
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.is_linked = true;
        if core::mem::replace(&mut watched.was_linked, true) {
            self.tell_about(now, number);
        }
    }

    fn tell_about(&mut self, now: Instant, number: NonZeroU16) {
        // Who is in the queue already, from the beginning, need not be there twice.
        if self.telling.iter().all(|t| t.number != number || t.after.is_some()) && self.telling.len() < WATCHED_MAX {
            self.telling.push_back(Telling { number, after: None });
            self.tell_at.get_or_insert(now);
        }
    }

    /// A link ended, or could not be opened: a leaf is registered no longer; another home is dialled when its next
    /// question is due. Whether it was a leaf of ours.
    #[must_use]
    pub(crate) fn on_link_down(&mut self, peer: &PeerId, out: &mut VecDeque<Output>) -> bool {
        let was_leaf = self.remove(peer, out);
        if let Some(watched) = self.watched_mut(peer) {
            watched.is_linked = false;
        }
        was_leaf
    }

    /// Anything authentic came from `peer`: it lives.
    pub(crate) fn on_heard(&mut self, now: Instant, peer: &PeerId) {
        if let Some(watched) = self.watched_mut(peer) {
            watched.heard_at = Some(now);
            watched.is_linked = true;
            watched.was_linked = true;
            watched.is_dead = false;
            watched.missed = 0;
        }
    }

    /// Asks other homes whether they live, and tells leaves of those that do not.
    pub(crate) fn handle_timeout(&mut self, now: Instant, s: &mut Stores<'_>) {
        while let Some(number) = self.deadlines.pop_due(now) {
            self.ask(now, number, s);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell(now, s.out);
        }
        self.taken.handle_timeout(now);
        let shared = self.watched.values().map(|w| (&w.home, u32::try_from(w.leaves).unwrap_or(u32::MAX)));
        let counts = (self.leaves.len(), self.seconds);
        let due = self.balance.handle_timeout(now, counts, shared, s.members, &mut s.random.peer_choice);
        self.send_elsewhere(due, s);
    }

    /// Sends so many leaves elsewhere that have their second home here: each in turn.
    fn send_elsewhere(&mut self, due: usize, s: &mut Stores<'_>) {
        let mut sent = 0;
        for looked in 0.. {
            if sent == due || looked == LOOK_MAX {
                return;
            }
            let start = self.sent_after.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((leaf, registration)) = self.leaves.range((start, Bound::Unbounded)).next() else {
                // The first one again, next time.
                self.sent_after = None;
                return;
            };
            self.sent_after = Some(*leaf);
            if registration.other.is_some_and(Other::is_first) {
                sent += 1;
                self.balance.on_sent();
                let supernodes = self.balance.elsewhere(&mut s.random.peer_choice);
                send(s.out, *leaf, &Message::Elsewhere { retry_after_s: 0, supernodes });
            }
        }
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(earliest(self.deadlines.next(), self.tell_at), Some(self.balance.poll_timeout()))
    }

    fn ask(&mut self, now: Instant, number: NonZeroU16, s: &mut Stores<'_>) {
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.deadline = None;
        // It watches this node for the same leaves: the question of one is as good as an answer to the other.
        let heard_at = watched.heard_at.filter(|at| watched.missed == 0 && now.since(*at) < ASK_EVERY_MIN);
        if let Some(heard_at) = heard_at {
            let next = heard_at + ASK_EVERY_MIN + s.random.jitter.jitter(ASK_JITTER);
            return self.deadlines.set(number, &mut watched.deadline, Some(next));
        }
        if watched.missed >= MISSED_MAX && !core::mem::replace(&mut watched.is_dead, true) {
            self.found_dead.push(watched.home);
            self.tell_about(now, number);
        }
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.missed = watched.missed.saturating_add(1).min(MISSED_MAX);
        let delay = if watched.is_dead {
            DEAD_ASK_EVERY + s.random.jitter.jitter(DEAD_ASK_EVERY)
        } else {
            REPEAT_AFTER + s.random.jitter.jitter(ASK_JITTER)
        };
        self.deadlines.set(number, &mut watched.deadline, Some(now + delay));
        // There may well be a link that was opened for gossip: the first question tries that.
        if watched.is_linked || watched.missed == 1 {
            s.out.push_back(Output::AskAlive { peer: watched.home });
        } else if let Some(address) = s.members.address(&watched.home) {
            s.out.push_back(Output::Dial { peer: watched.home, address });
        }
    }

    /// Tells some more leaves of the first dead home in the queue, which goes to its end: each is gone through in the
    /// same time, however many there are.
    fn tell(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        self.tell_at = None;
        let Some(mut telling) = self.telling.pop_front() else { return };
        let watched = self.watched.get(&telling.number);
        let mut is_done = true;
        if let Some(watched) = watched {
            let start = telling.after.map_or(Bound::Unbounded, Bound::Excluded);
            let (mut told, max) = (0, watched.leaves.div_ceil(TELL_GOES));
            for (looked, (leaf, registration)) in self.leaves.range((start, Bound::Unbounded)).enumerate() {
                if told == max || looked == LOOK_MAX {
                    is_done = false;
                    break;
                }
                telling.after = Some(*leaf);
                if registration.other.and_then(Other::number) == Some(telling.number) {
                    told += 1;
                    send(out, *leaf, &Message::HomeDown { home: watched.home });
                }
            }
        }
        if !is_done {
            self.telling.push_back(telling);
        }
        let waiting = u32::try_from(self.telling.len()).unwrap_or(u32::MAX);
        self.tell_at = (waiting > 0).then(|| now + TELL_EVERY / waiting.min(TELL_AT_ONCE));
    }
}
