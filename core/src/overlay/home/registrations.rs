//! The supernode's side: who is registered here, and do the other homes of those leaves live?
//!
//! A registration is a leaf's id and the number of its other home: a node may hold a million. It stands while the
//! link to the leaf does. Each other home that is a supernode we know is asked every few seconds whether it lives; when
//! it stays silent, every leaf that shares it is told, a few at a time.

use core::num::NonZeroU32;
use core::ops::Bound;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::identity::PeerId;
use crate::overlay::directory::{Putter, Record};
use crate::overlay::gossip::Stores;
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::random::ChoiceRng;
use crate::time::{Deadlines, Instant, earliest};
use crate::wire::message::{Load, Message, Refusal};

/// Most other homes watched; leaves whose other home is beyond that are registered all the same.
const WATCHED_MAX: usize = 1024;
/// Time between two questions, together with up to [`ASK_JITTER`].
const ASK_EVERY_MIN: Duration = Duration::from_secs(4);
/// See [`ASK_EVERY_MIN`].
const ASK_JITTER: Duration = Duration::from_secs(1);
/// Questions unanswered until a home counts as dead.
const MISSED_MAX: u8 = 3;
/// A dead home is asked again after this, and as much again at random.
const DEAD_ASK_EVERY: Duration = Duration::from_secs(30);
/// Leaves told in one go that a home is dead.
const TELL_MAX: usize = 64;
/// Leaves looked at in one go to find those: a look is cheap, a million are not.
const LOOK_MAX: usize = 16_384;
/// Time between two goes.
const TELL_EVERY: Duration = Duration::from_millis(10);

/// What came of a [`Message::Register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Registered {
    /// Why not, if not; the leaf has been told.
    pub refused: Option<Refusal>,
    /// Whether the record was new: then it is to be pushed to other supernodes.
    pub is_record_new: bool,
    /// Whether the leaf was registered before: where it was found, it still is.
    pub was_here: bool,
}

struct Registration {
    /// Number of the other home among the watched ones. Zero is no number, so that none takes no room of its own.
    other: Option<NonZeroU32>,
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
    deadline: Option<Instant>,
}

/// Telling leaves that a home is dead, or was, goes through the registrations in order; this is how far it has come.
struct Telling {
    number: NonZeroU32,
    after: Option<PeerId>,
}

/// The leaves registered here, and their other homes, which are watched.
pub(crate) struct Registrations {
    me: PeerId,
    leaves_max: usize,
    leaves: BTreeMap<PeerId, Registration>,
    watched: BTreeMap<NonZeroU32, Watched>,
    numbers: BTreeMap<PeerId, NonZeroU32>,
    next_number: NonZeroU32,
    deadlines: Deadlines<NonZeroU32>,
    telling: VecDeque<Telling>,
    tell_at: Option<Instant>,
}

impl Registrations {
    /// No leaf, and room for `leaves_max`.
    pub(crate) fn new(me: PeerId, leaves_max: usize) -> Self {
        Self {
            me,
            leaves_max,
            leaves: BTreeMap::new(),
            watched: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: NonZeroU32::MIN,
            deadlines: Deadlines::default(),
            telling: VecDeque::new(),
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

    /// Those registered here whose ids come after this one.
    pub(crate) fn after(&self, leaf: Option<PeerId>) -> Box<dyn Iterator<Item = PeerId> + '_> {
        let start = leaf.map_or(Bound::Unbounded, Bound::Excluded);
        Box::new(self.leaves.range((start, Bound::Unbounded)).map(|(leaf, _)| *leaf))
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
        leaf: PeerId,
        other_home: Option<PeerId>,
        record: &[u8],
        load: Load,
        s: &mut Stores<'_>,
    ) -> Registered {
        let is_new = !self.leaves.contains_key(&leaf);
        if leaf == self.me || (is_new && self.leaves.len() >= self.leaves_max) {
            let refused = Some(Refusal::Busy);
            send(s.out, leaf, &Message::RegisterReply { refused, load });
            return Registered { refused, is_record_new: false, was_here: false };
        }
        let other = other_home.filter(|home| *home != self.me && *home != leaf && s.members.contains(home));
        let number = other.and_then(|home| self.watch(now, home, &mut s.random.jitter));
        match self.leaves.get_mut(&leaf) {
            Some(registration) => {
                let old = core::mem::replace(&mut registration.other, number);
                self.unwatch(old, s.out);
            }
            None => {
                self.leaves.insert(leaf, Registration { other: number });
            }
        }
        let is_record_new = self.keep_record(now, leaf, record, s);
        send(s.out, leaf, &Message::RegisterReply { refused: None, load });
        Registered { refused: None, is_record_new, was_here: !is_new }
    }

    fn keep_record(&self, now: Instant, leaf: PeerId, record: &[u8], s: &mut Stores<'_>) -> bool {
        let me = self.me;
        // Its own, and naming us: a leaf is a home for nobody else's record. Parsing once more is what that costs.
        let is_ours = Record::parse(record).is_ok_and(|r| r.id == leaf && r.names(&me));
        is_ours && s.records.insert(now, &leaf, s.wall, record, Putter::Leaf).is_ok()
    }

    /// A leaf says goodbye. Its record goes: whoever asks for it should hear so at once.
    pub(crate) fn on_deregister(&mut self, leaf: &PeerId, s: &mut Stores<'_>) {
        if self.remove(leaf, s.out) {
            s.records.remove(leaf);
        }
    }

    fn remove(&mut self, leaf: &PeerId, out: &mut VecDeque<Output>) -> bool {
        let Some(registration) = self.leaves.remove(leaf) else { return false };
        self.unwatch(registration.other, out);
        true
    }

    /// One more leaf has this other home.
    fn watch(&mut self, now: Instant, home: PeerId, jitter: &mut ChoiceRng) -> Option<NonZeroU32> {
        if let Some(number) = self.numbers.get(&home) {
            self.watched.get_mut(number)?.leaves += 1;
            return Some(*number);
        }
        if self.watched.len() >= WATCHED_MAX {
            return None;
        }
        let number = self.next_number;
        self.next_number = number.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let mut watched =
            Watched { home, leaves: 1, is_linked: false, was_linked: false, is_dead: false, missed: 0, deadline: None };
        self.deadlines.set(number, &mut watched.deadline, Some(now + jitter.jitter(ASK_EVERY_MIN)));
        self.watched.insert(number, watched);
        self.numbers.insert(home, number);
        Some(number)
    }

    /// One leaf less has this other home.
    fn unwatch(&mut self, number: Option<NonZeroU32>, out: &mut VecDeque<Output>) {
        let Some(number) = number else { return };
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.leaves -= 1;
        if watched.leaves == 0 {
            self.deadlines.set(number, &mut watched.deadline, None);
            out.push_back(Output::Release { peer: watched.home });
            self.numbers.remove(&watched.home);
            self.watched.remove(&number);
        }
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

    fn tell_about(&mut self, now: Instant, number: NonZeroU32) {
        // Who is in the queue already, from the beginning, need not be there twice.
        if self.telling.iter().all(|t| t.number != number || t.after.is_some()) && self.telling.len() < WATCHED_MAX {
            self.telling.push_back(Telling { number, after: None });
            self.tell_at.get_or_insert(now);
        }
    }

    /// A link ended, or could not be opened: a leaf is registered no longer; another home is dialled when its next
    /// question is due.
    pub(crate) fn on_link_down(&mut self, peer: &PeerId, out: &mut VecDeque<Output>) {
        self.remove(peer, out);
        if let Some(watched) = self.watched_mut(peer) {
            watched.is_linked = false;
        }
    }

    /// Anything authentic came from `peer`: it lives.
    pub(crate) fn on_heard(&mut self, peer: &PeerId) {
        if let Some(watched) = self.watched_mut(peer) {
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
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.deadlines.next(), self.tell_at)
    }

    fn ask(&mut self, now: Instant, number: NonZeroU32, s: &mut Stores<'_>) {
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.deadline = None;
        if watched.missed >= MISSED_MAX && !core::mem::replace(&mut watched.is_dead, true) {
            self.tell_about(now, number);
        }
        let Some(watched) = self.watched.get_mut(&number) else { return };
        watched.missed = watched.missed.saturating_add(1).min(MISSED_MAX);
        let delay = if watched.is_dead {
            DEAD_ASK_EVERY + s.random.jitter.jitter(DEAD_ASK_EVERY)
        } else {
            ASK_EVERY_MIN + s.random.jitter.jitter(ASK_JITTER)
        };
        self.deadlines.set(number, &mut watched.deadline, Some(now + delay));
        // There may well be a link that was opened for gossip: the first question tries that.
        if watched.is_linked || watched.missed == 1 {
            s.out.push_back(Output::AskAlive { peer: watched.home });
        } else if let Some(address) = s.members.address(&watched.home) {
            s.out.push_back(Output::Dial { peer: watched.home, address });
        }
    }

    /// Tells some more leaves of the first dead home in the queue.
    fn tell(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        self.tell_at = None;
        let Some(telling) = self.telling.front_mut() else { return };
        let watched = self.watched.get(&telling.number);
        let mut is_done = true;
        if let Some(watched) = watched {
            let start = telling.after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut told = 0;
            for (looked, (leaf, registration)) in self.leaves.range((start, Bound::Unbounded)).enumerate() {
                if told == TELL_MAX || looked == LOOK_MAX {
                    is_done = false;
                    break;
                }
                telling.after = Some(*leaf);
                if registration.other == Some(telling.number) {
                    told += 1;
                    send(out, *leaf, &Message::HomeDown { home: watched.home });
                }
            }
        }
        if is_done {
            self.telling.pop_front();
        }
        self.tell_at = (!self.telling.is_empty()).then(|| now + TELL_EVERY);
    }
}
