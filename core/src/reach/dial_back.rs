//! Does a packet that nobody asked for reach this node's main socket?
//!
//! Once two supernodes are linked, one is asked to have us dialled by another. The request names those that we have
//! sent to, so that it picks one for which no router has reason to let a packet in. If [`Message::DialBack`] then
//! arrives, over a new link, with the nonce of the request: reachable. If two tries that were taken on bring nothing:
//! not reachable. If no supernode is left that could try: unknown.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use arrayvec::ArrayVec;

use crate::action::Action;
use crate::advert::shelf::id_prefix;
use crate::gossip::pack::send;
use crate::identity::PeerId;
use crate::random::Generators;
use crate::time::Instant;
use crate::wire::message::{CONTACTED_MAX, Message, Refusal};

/// Linked supernodes before a dial-back is asked for: one to ask, and one more so that the mapping is known by then.
const LINKED_MIN: usize = 2;
/// How long a try takes; also time enough for a supernode's limit of one order in ten seconds after two tries.
const TRY_FOR: Duration = Duration::from_secs(5);
/// Tries before the answer is no.
const TRIES_MAX: u8 = 2;
/// Requests that no supernode took on, or that got lost, before we give up for [`AGAIN_AFTER`].
const REQUESTS_MAX: u8 = 4;
/// The question is asked again after this: routers are reconfigured, supernodes come and go.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// After each answer but yes it waits twice as long, so often: to ask costs as much as to stay reachable for ten minutes.
const DOUBLINGS: u8 = 4;
/// Most supernodes remembered as contacted. At the limit the conclusion would be unsound, so none is drawn.
const REMEMBERED_MAX: usize = 256;

struct Try {
    nonce: [u8; 8],
    asked: PeerId,
    was_taken_on: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct DialBack {
    /// Supernodes linked now.
    linked: BTreeSet<PeerId>,
    /// Whom this socket has sent to.
    contacted: BTreeSet<PeerId>,
    current: Option<Try>,
    asked: BTreeSet<PeerId>,
    requests: u8,
    taken_on: u8,
    reachable: Option<bool>,
    /// Answers in a row that were not yes.
    in_vain: u8,
    due: Option<Instant>,
}

impl DialBack {
    /// Whether unasked packets arrive, as far as is known.
    pub(crate) fn reachable(&self) -> Option<bool> {
        self.reachable
    }

    /// Something was sent to `peer` from the main socket: it cannot be a witness any more.
    pub(crate) fn on_contacted(&mut self, peer: PeerId) {
        if self.contacted.len() < REMEMBERED_MAX {
            self.contacted.insert(peer);
        }
    }

    /// A link to a supernode is up.
    pub(crate) fn on_link_up(
        &mut self,
        now: Instant,
        supernode: PeerId,
        random: &mut Generators,
        out: &mut VecDeque<Action>,
    ) {
        self.on_contacted(supernode);
        self.linked.insert(supernode);
        if self.linked.len() >= LINKED_MIN && self.due.is_none() {
            self.step(now, random, out);
        }
    }

    /// A link to a supernode ended.
    pub(crate) fn on_link_down(&mut self, supernode: &PeerId) {
        self.linked.remove(supernode);
    }

    /// The host's network, or the main socket, changed: all is open again.
    pub(crate) fn reset(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Action>) {
        let linked = core::mem::take(&mut self.linked);
        *self = Self { contacted: linked.clone(), linked, ..Self::default() };
        self.step(now, random, out);
    }

    /// A supernode that we asked has, or has not, ordered another one to dial us.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        from: &PeerId,
        nonce: [u8; 8],
        refused: Option<Refusal>,
        random: &mut Generators,
        out: &mut VecDeque<Action>,
    ) {
        let Some(current) = self.current.as_mut().filter(|t| t.asked == *from && t.nonce == nonce) else { return };
        if refused.is_none() {
            current.was_taken_on = true;
        } else {
            self.step(now, random, out);
        }
    }

    /// A link came in with [`Message::DialBack`] as its early message.
    pub(crate) fn on_dial_back(&mut self, now: Instant, from: &PeerId, nonce: [u8; 8]) {
        let is_awaited = self.current.as_ref().is_some_and(|t| t.nonce == nonce);
        if is_awaited && !self.contacted.contains(from) && self.contacted.len() < REMEMBERED_MAX {
            self.conclude(now, Some(true));
        }
    }

    /// A link came in, not through a channel, from an address to which this socket never sent anything: that shows
    /// as much as a dial-back does.
    pub(crate) fn on_unasked_link(&mut self, now: Instant) {
        self.conclude(now, Some(true));
    }

    fn conclude(&mut self, now: Instant, reachable: Option<bool>) {
        self.reachable = reachable;
        self.current = None;
        self.asked.clear();
        (self.requests, self.taken_on) = (0, 0);
        let doublings = if reachable == Some(true) { 0 } else { self.in_vain };
        self.in_vain = (doublings + u8::from(reachable != Some(true))).min(DOUBLINGS);
        self.due = Some(now + AGAIN_AFTER * (1 << doublings));
    }

    /// Counts a try that ended, begins the next.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Action>) {
        if self.due.is_some_and(|due| due <= now) {
            self.step(now, random, out);
        }
    }

    fn step(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Action>) {
        self.due = None;
        if let Some(ended) = self.current.take() {
            self.taken_on += u8::from(ended.was_taken_on);
        }
        if self.taken_on >= TRIES_MAX {
            return self.conclude(now, Some(false));
        }
        if self.linked.len() < LINKED_MIN {
            // Goes on when there are enough links again.
            return;
        }
        // Somebody not asked yet, before somebody asked before.
        let fresh: Vec<PeerId> = self.linked.difference(&self.asked).copied().collect();
        let pool = if fresh.is_empty() { self.linked.iter().copied().collect() } else { fresh };
        let asked = pool.get(random.peer_choice.below(pool.len())).copied();
        let Some(asked) = asked.filter(|_| self.requests < REQUESTS_MAX) else {
            return self.conclude(now, None);
        };
        self.requests += 1;
        self.asked.insert(asked);
        // Unguessable: who knows it could make us believe that we are reachable.
        let nonce = random.keys.bytes();
        let contacted: ArrayVec<_, CONTACTED_MAX> = self.contacted.iter().map(id_prefix).take(CONTACTED_MAX).collect();
        self.current = Some(Try { nonce, asked, was_taken_on: false });
        self.due = Some(now + TRY_FOR);
        send(out, asked, &Message::DialBackRequest { nonce, contacted });
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}
