//! Does a packet that nobody asked for reach this node's main socket?
//!
//! Once two supernodes are linked, one is asked to have us dialled by another. The request names those that we have
//! sent to, so that it picks one for which no router has reason to let a packet in. If [`Message::DialBack`] then
//! arrives, over a new link, with the nonce of the request, from an IP address that nothing was sent to: reachable. If
//! two tries that were taken on bring nothing: not reachable. If no supernode is left that could try: unknown.
//!
//! One such packet tells a leaf what it wants to know. A node that would serve others wants it
//! [confirmed](DialBack::confirmed) by [`WITNESSES`], in different prefixes, or by as many as there are: somebody who
//! can make it believe that it is reachable could have others register where they are never found.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::random::Generators;
use crate::time::Instant;
use crate::wire::address::{Prefix, canonical};
use crate::wire::message::{CONTACTED_MAX, Message, Refusal};

/// Supernodes that must have dialled us before we serve others.
pub(crate) const WITNESSES: usize = 3;
/// Linked supernodes before a dial-back is asked for: one to ask, and one more so that the mapping is known by then.
const LINKED_MIN: usize = 2;
/// How long a try takes; also time enough for a supernode's limit of one order in ten seconds after two tries.
const TRY_FOR: Duration = Duration::from_secs(5);
/// Between two requests, when a supernode said that there were too many.
const BUSY_FOR: Duration = Duration::from_secs(10);
/// Tries in a row, taken on and without a dial, before the answer is no.
const TRIES_MAX: u8 = 2;
/// Requests in a row that no supernode took on, or that got lost, before we give up for [`AGAIN_SOON`].
const REQUESTS_MAX: u8 = 4;
/// The question is asked again after this: routers are reconfigured, supernodes come and go.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// And after this, doubling, where too few could try.
const AGAIN_SOON: Duration = Duration::from_secs(300);
/// Both double with each answer in a row that is not yes, up to this: to ask costs an idle leaf as much as to stay
/// reachable for ten minutes.
const AGAIN_MAX: Duration = Duration::from_secs(16 * 3600);
/// Most addresses remembered as contacted. At the limit a conclusion would be unsound, so none is
/// drawn until some are forgotten.
const REMEMBERED_MAX: usize = 1_024;
/// Nothing sent there for so long: no router remembers (RFC 4787 §4.3 speaks of minutes).
const CONTACT_AGE: Duration = Duration::from_secs(3600);
/// What was sent to one address within this counts once.
const CONTACT_GRAIN: Duration = Duration::from_secs(60);

struct Try {
    nonce: [u8; 8],
    asked: PeerId,
    was_taken_on: bool,
}

/// What dial-backs have shown of this node's address, the try under way, and whom it has sent something to: they are no
/// witnesses.
#[derive(Default)]
pub(crate) struct DialBack {
    /// Whether to find [`WITNESSES`] rather than one.
    thorough: bool,
    /// The port to be dialled where it is not the one that we are seen at: one that our router maps to us.
    port: u16,
    /// Supernodes linked now.
    linked: BTreeSet<PeerId>,
    /// Other supernodes that were sent something, as they are named in a request.
    stale: Box<[[u8; 4]]>,
    /// Where something was sent to, and when last.
    addresses: BTreeMap<IpAddr, Instant>,
    last_sent: Option<(IpAddr, Instant)>,
    /// Until then, something that was sent to may have been forgotten too early.
    blind_until: Option<Instant>,
    /// Supernodes that could still be witnesses; none if that is not known.
    fresh: Option<usize>,
    /// There were none, so nobody was asked.
    starved: bool,
    /// Packets did come in here not long ago: worth asking every hour whether they do again.
    has_served: bool,
    witnesses: ArrayVec<IpAddr, WITNESSES>,
    current: Option<Try>,
    asked: BTreeSet<PeerId>,
    requests: u8,
    taken_on: u8,
    reachable: Option<bool>,
    confirmed: bool,
    /// Answers in a row that were not yes.
    in_vain: u8,
    due: Option<Instant>,
}

impl DialBack {
    /// The room of a node that would serve others, or that only wants to know.
    pub(crate) fn new(thorough: bool) -> Self {
        Self { thorough, ..Self::default() }
    }

    /// A leaf that was here before has time for this.
    pub(crate) fn put_off(&mut self, now: Instant) {
        if !self.thorough {
            self.due = Some(now + AGAIN_SOON);
        }
    }

    /// Whether unasked packets arrive, as far as is known.
    pub(crate) fn reachable(&self) -> Option<bool> {
        self.reachable
    }

    /// Whether enough supernodes have shown that they do.
    pub(crate) fn confirmed(&self) -> bool {
        self.confirmed
    }

    /// The port asked for, where it is not the one that we are seen at.
    pub(crate) fn port(&self) -> Option<u16> {
        Some(self.port).filter(|port| *port != 0)
    }

    /// This node serves others now, and somebody else watches whether packets come in. What is under way goes on.
    pub(crate) fn on_serving(&mut self) {
        self.thorough = false;
    }

    /// It serves no longer, and would do so again: [`WITNESSES`] are to be found from now on, rather than one.
    pub(crate) fn on_ceased(&mut self) {
        (self.thorough, self.has_served) = (true, true);
    }

    /// Whether a try is under way, or there was one and another is to follow.
    pub(crate) fn is_trying(&self) -> bool {
        self.current.is_some() || self.requests > 0
    }

    /// Whether this is the nonce of the try under way.
    pub(crate) fn awaits(&self, nonce: [u8; 8]) -> bool {
        self.current.as_ref().is_some_and(|t| t.nonce == nonce)
    }

    /// How many known supernodes could be witnesses, and whether others there are none; and those that could not be.
    pub(crate) fn set_fresh(&mut self, now: Instant, fresh: usize, are_all: bool, stale: Vec<[u8; 4]>) {
        self.stale = stale.into();
        self.fresh = (are_all || fresh > 0).then_some(fresh);
        if self.starved && fresh > 0 {
            self.due = Some(now);
        }
    }

    /// Something was sent to this address, from any socket.
    pub(crate) fn on_sent(&mut self, now: Instant, to: IpAddr) {
        if self.last_sent.is_some_and(|(ip, at)| ip == to && now - at < CONTACT_GRAIN) {
            return;
        }
        self.last_sent = Some((to, now));
        if self.addresses.len() >= REMEMBERED_MAX && !self.addresses.contains_key(&to) {
            if self.blind_until.is_some_and(|until| until > now + (CONTACT_AGE - CONTACT_GRAIN)) {
                // Looked through a moment ago.
                return;
            }
            self.addresses.retain(|_, at| now - *at < CONTACT_AGE);
            if self.addresses.len() >= REMEMBERED_MAX {
                self.blind(now);
                return;
            }
        }
        self.addresses.insert(to, now);
    }

    /// Much was sent that was not noted: nothing is concluded for a while.
    pub(crate) fn blind(&mut self, now: Instant) {
        self.blind_until = Some(now + CONTACT_AGE);
    }

    /// Whether this supernode, at these addresses, was sent nothing for an hour.
    pub(crate) fn is_fresh(&self, now: Instant, peer: &PeerId, mut addresses: impl Iterator<Item = IpAddr>) -> bool {
        let is_recent = |ip: IpAddr| self.addresses.get(&ip).is_some_and(|at| now - *at < CONTACT_AGE);
        !self.linked.contains(peer) && !addresses.any(is_recent)
    }

    /// A link to a supernode is up.
    pub(crate) fn on_link_up(
        &mut self,
        now: Instant,
        supernode: PeerId,
        random: &mut Generators,
        out: &mut VecDeque<Output>,
    ) {
        self.linked.insert(supernode);
        if self.linked.len() >= LINKED_MIN && self.due.is_none() {
            self.step(now, random, out);
        }
    }

    /// Whether somebody who is linked now may be of use: nothing is under way or due, or nobody was there to ask. Otherwise
    /// it is nothing to this room who could be a witness, and a look at all supernodes would be for nothing.
    pub(crate) fn is_open(&self) -> bool {
        self.due.is_none() || self.starved
    }

    /// A link to a supernode ended.
    pub(crate) fn on_link_down(&mut self, supernode: &PeerId) {
        self.linked.remove(supernode);
    }

    /// The host's network, or the main socket, changed: all is open again.
    pub(crate) fn reset(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Output>) {
        let linked = core::mem::take(&mut self.linked);
        // What leaves for those that are linked will be noted as it does.
        *self = Self { linked, thorough: self.thorough, ..Self::default() };
        self.step(now, random, out);
    }

    /// A router maps this port to the main socket, or none any more: what was found of another one says nothing.
    pub(crate) fn set_port(
        &mut self,
        now: Instant,
        port: Option<u16>,
        random: &mut Generators,
        out: &mut VecDeque<Output>,
    ) {
        if self.port() == port {
            return;
        }
        self.port = port.unwrap_or(0);
        (self.reachable, self.confirmed, self.current) = (None, false, None);
        self.begin_anew();
        self.step(now, random, out);
    }

    fn begin_anew(&mut self) {
        self.asked.clear();
        self.witnesses.clear();
        (self.requests, self.taken_on) = (0, 0);
    }

    /// A supernode that we asked has, or has not, ordered another one to dial us.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        from: &PeerId,
        nonce: [u8; 8],
        refused: Option<Refusal>,
        random: &mut Generators,
        out: &mut VecDeque<Output>,
    ) {
        let Some(current) = self.current.as_mut().filter(|t| t.asked == *from && t.nonce == nonce) else { return };
        match refused {
            None => current.was_taken_on = true,
            // Its rate is one in so long.
            Some(Refusal::Busy) => {
                self.current = None;
                self.due = Some(now + BUSY_FOR);
            }
            Some(_) => self.step(now, random, out),
        }
    }

    /// An Init came from `remote` with [`Message::DialBack`] as its early message. Nothing has been answered yet.
    pub(crate) fn on_dial_back(
        &mut self,
        now: Instant,
        from: &PeerId,
        remote: SocketAddr,
        nonce: [u8; 8],
        random: &mut Generators,
        out: &mut VecDeque<Output>,
    ) {
        let ip = canonical(remote).ip();
        let is_blind = self.blind_until.is_some_and(|until| now < until);
        if !self.awaits(nonce) || is_blind {
            return;
        }
        if !self.is_fresh(now, from, core::iter::once(ip)) {
            // It was dialled while the request was on its way. That shows nothing, and nothing else will come.
            self.current = None;
            return self.step(now, random, out);
        }
        // It will be answered.
        self.on_sent(now, ip);
        self.reachable = Some(true);
        let near = |other: &IpAddr| *other == ip || (!Prefix::is_exempt(ip) && Prefix::of(*other) == Prefix::of(ip));
        if !self.witnesses.iter().any(near) {
            self.fresh = self.fresh.map(|fresh| fresh.saturating_sub(1));
            let _ = self.witnesses.try_push(ip);
        }
        (self.taken_on, self.requests) = (0, 0);
        self.current = None;
        if self.witnesses.len() >= self.wanted() {
            self.conclude(now, Some(true));
        } else {
            self.step(now, random, out);
        }
    }

    /// How many witnesses are enough.
    fn wanted(&self) -> usize {
        if self.thorough { WITNESSES.min(self.witnesses.len() + self.fresh.unwrap_or(0)).max(1) } else { 1 }
    }

    /// A link came in, not through a channel, from an address to which this socket never sent anything: that shows
    /// as much as a dial-back does, to a leaf.
    pub(crate) fn on_unasked_link(&mut self, now: Instant) {
        if self.thorough {
            self.reachable = Some(true);
        } else {
            self.conclude(now, Some(true));
        }
    }

    fn conclude(&mut self, now: Instant, reachable: Option<bool>) {
        self.confirmed = reachable == Some(true) && self.thorough && self.witnesses.len() >= self.wanted();
        self.reachable = reachable;
        self.current = None;
        self.begin_anew();
        let is_open = reachable.is_none() || (self.thorough && !self.confirmed && reachable == Some(true));
        let wait = if is_open { AGAIN_SOON } else { AGAIN_AFTER };
        self.in_vain = if reachable == Some(true) { 0 } else { self.in_vain.saturating_add(1) };
        let doublings = self.in_vain.saturating_sub(1).min(8);
        let longest = if self.has_served { AGAIN_AFTER } else { AGAIN_MAX };
        self.due = Some(now + (wait * (1 << doublings)).min(longest));
    }

    /// Counts a try that ended, begins the next.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Output>) {
        if self.due.is_some_and(|due| due <= now) {
            self.step(now, random, out);
        }
    }

    fn step(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Output>) {
        self.due = None;
        self.starved = false;
        if let Some(ended) = self.current.take() {
            self.taken_on += u8::from(ended.was_taken_on);
        }
        let found = (!self.witnesses.is_empty()).then_some(true);
        if self.taken_on >= TRIES_MAX {
            return self.conclude(now, found.or(Some(false)));
        }
        if self.linked.len() < LINKED_MIN {
            // Goes on when there are enough links again.
            return;
        }
        if self.fresh == Some(0) {
            // Nobody was asked, so what was found before still holds.
            self.conclude(now, found.or(self.reachable));
            self.starved = true;
            return;
        }
        // Somebody not asked yet, before somebody asked before.
        let fresh: Vec<PeerId> = self.linked.difference(&self.asked).copied().collect();
        let pool = if fresh.is_empty() { self.linked.iter().copied().collect() } else { fresh };
        let asked = pool.get(random.peer_choice.below(pool.len())).copied();
        let Some(asked) = asked.filter(|_| self.requests < REQUESTS_MAX) else {
            return self.conclude(now, found);
        };
        self.requests += 1;
        self.asked.insert(asked);
        // Unguessable: who knows it could make us believe that we are reachable.
        let nonce = random.keys.bytes();
        let linked = self.linked.iter().map(id_prefix);
        let contacted: ArrayVec<_, CONTACTED_MAX> =
            linked.chain(self.stale.iter().copied()).take(CONTACTED_MAX).collect();
        self.current = Some(Try { nonce, asked, was_taken_on: false });
        self.due = Some(now + TRY_FOR);
        send(out, asked, &Message::DialBackRequest { nonce, contacted, port: self.port });
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}
