//! Does a packet that nobody asked for reach this node's main socket?
//!
//! Once two supernodes are linked, one is asked to have us dialled by another. The request names those that we have
//! sent to, so that it picks one for which no router has reason to let a packet in. If [`Message::DialBack`] then
//! arrives, over a new link, with the nonce of the request, from an IP address that nothing was sent to: reachable. If
//! two tries that were taken on bring nothing: not reachable. If no supernode is left that could try: unknown.
//!
//! One such packet tells a leaf what it wants to know. A node that would serve others wants it [confirmed](DialBack::confirmed)
//! by [`WITNESSES`], in different prefixes, or by as many as there are: somebody who can make it believe that it is
//! reachable could have others register where they are never found.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arrayvec::ArrayVec;

use crate::action::Action;
use crate::advert::shelf::id_prefix;
use crate::gossip::pack::send;
use crate::identity::PeerId;
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
/// Tries in a row, taken on and without a dial, before the answer is no.
const TRIES_MAX: u8 = 2;
/// Requests for each witness that no supernode took on, or that got lost, before we give up for [`AGAIN_AFTER`].
const REQUESTS_MAX: u8 = 4;
/// The question is asked again after this: routers are reconfigured, supernodes come and go.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// And after this by a node that would serve, if nothing speaks against it but that too few could try.
const AGAIN_SOON: Duration = Duration::from_secs(300);
/// Most supernodes, and most addresses, remembered as contacted. At the limit a conclusion would be unsound, so none is
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

/// See the module.
#[derive(Default)]
pub(crate) struct DialBack {
    /// Whether to find [`WITNESSES`] rather than one.
    thorough: bool,
    /// The port to be dialled where it is not the one that we are seen at: one that our router maps to us.
    port: u16,
    /// Supernodes linked now.
    linked: BTreeSet<PeerId>,
    /// Whom we have sent to, and when last.
    contacted: BTreeMap<PeerId, Instant>,
    /// The same, by address.
    addresses: BTreeMap<IpAddr, Instant>,
    last_sent: Option<(IpAddr, Instant)>,
    /// Until then, something that was sent to may have been forgotten too early.
    blind_until: Option<Instant>,
    /// Supernodes that could still be witnesses, as far as we know.
    fresh: usize,
    witnesses: ArrayVec<IpAddr, WITNESSES>,
    current: Option<Try>,
    asked: BTreeSet<PeerId>,
    requests: u8,
    taken_on: u8,
    reachable: Option<bool>,
    confirmed: bool,
    due: Option<Instant>,
}

impl DialBack {
    /// The room of a node that would serve others, or that only wants to know.
    pub(crate) fn new(thorough: bool) -> Self {
        Self { thorough, ..Self::default() }
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

    /// Whether to find [`WITNESSES`] from now on, rather than one. What is under way goes on.
    pub(crate) fn set_thorough(&mut self, thorough: bool) {
        self.thorough = thorough;
    }

    /// Whether a try is under way.
    pub(crate) fn is_trying(&self) -> bool {
        self.current.is_some()
    }

    /// How many known supernodes could be witnesses.
    pub(crate) fn set_fresh(&mut self, fresh: usize) {
        self.fresh = fresh;
    }

    /// Something was sent to `peer`: it cannot be a witness any more.
    pub(crate) fn on_contacted(&mut self, now: Instant, peer: PeerId) {
        remember(&mut self.contacted, now, peer, &mut self.blind_until);
    }

    /// Something was sent to this address, from any socket.
    pub(crate) fn on_sent(&mut self, now: Instant, to: IpAddr) {
        if self.last_sent.is_some_and(|(ip, at)| ip == to && now - at < CONTACT_GRAIN) {
            return;
        }
        self.last_sent = Some((to, now));
        remember(&mut self.addresses, now, to, &mut self.blind_until);
    }

    /// Much was sent that was not noted: nothing is concluded for a while.
    pub(crate) fn blind(&mut self, now: Instant) {
        self.blind_until = Some(now + CONTACT_AGE);
    }

    /// Whether this supernode, at these addresses, was sent nothing for an hour.
    pub(crate) fn is_fresh(&self, now: Instant, peer: &PeerId, mut addresses: impl Iterator<Item = IpAddr>) -> bool {
        let recent = |at: &Instant| now - *at < CONTACT_AGE;
        !self.linked.contains(peer)
            && !self.contacted.get(peer).is_some_and(recent)
            && !addresses.any(|ip| self.addresses.get(&ip).is_some_and(recent))
    }

    /// A link to a supernode is up.
    pub(crate) fn on_link_up(
        &mut self,
        now: Instant,
        supernode: PeerId,
        random: &mut Generators,
        out: &mut VecDeque<Action>,
    ) {
        self.on_contacted(now, supernode);
        self.linked.insert(supernode);
        if self.linked.len() >= LINKED_MIN && self.due.is_none() {
            self.step(now, random, out);
        }
    }

    /// A link to a supernode ended.
    pub(crate) fn on_link_down(&mut self, now: Instant, supernode: &PeerId) {
        if self.linked.remove(supernode) {
            self.on_contacted(now, *supernode);
        }
    }

    /// The host's network, or the main socket, changed: all is open again.
    pub(crate) fn reset(&mut self, now: Instant, random: &mut Generators, out: &mut VecDeque<Action>) {
        let linked = core::mem::take(&mut self.linked);
        let contacted = linked.iter().map(|peer| (*peer, now)).collect();
        // What leaves for those that are linked will be noted as it does.
        *self = Self { contacted, linked, thorough: self.thorough, ..Self::default() };
        self.step(now, random, out);
    }

    /// A router maps this port to the main socket, or none any more: what was found of another one says nothing.
    pub(crate) fn set_port(
        &mut self,
        now: Instant,
        port: Option<u16>,
        random: &mut Generators,
        out: &mut VecDeque<Action>,
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
        out: &mut VecDeque<Action>,
    ) {
        let Some(current) = self.current.as_mut().filter(|t| t.asked == *from && t.nonce == nonce) else { return };
        if refused.is_none() {
            current.was_taken_on = true;
        } else {
            self.step(now, random, out);
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
        out: &mut VecDeque<Action>,
    ) {
        let is_awaited = self.current.as_ref().is_some_and(|t| t.nonce == nonce);
        let ip = canonical(remote).ip();
        let is_blind = self.blind_until.is_some_and(|until| now < until);
        if !is_awaited || is_blind || !self.is_fresh(now, from, core::iter::once(ip)) {
            return;
        }
        self.on_contacted(now, *from);
        self.reachable = Some(true);
        let near = |other: &IpAddr| *other == ip || (!Prefix::is_exempt(ip) && Prefix::of(*other) == Prefix::of(ip));
        if !self.witnesses.iter().any(near) {
            self.fresh = self.fresh.saturating_sub(1);
            let _ = self.witnesses.try_push(ip);
        }
        self.taken_on = 0;
        self.current = None;
        if self.witnesses.len() >= self.wanted() {
            self.conclude(now, Some(true));
        } else {
            self.step(now, random, out);
        }
    }

    /// How many witnesses are enough.
    fn wanted(&self) -> usize {
        if self.thorough { WITNESSES.min(self.witnesses.len() + self.fresh).max(1) } else { 1 }
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
        let soon = self.thorough && !self.confirmed && reachable != Some(false);
        self.due = Some(now + if soon { AGAIN_SOON } else { AGAIN_AFTER });
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
        let found = (!self.witnesses.is_empty()).then_some(true);
        if self.taken_on >= TRIES_MAX {
            return self.conclude(now, found.or(Some(false)));
        }
        if self.linked.len() < LINKED_MIN {
            // Goes on when there are enough links again.
            return;
        }
        // Somebody not asked yet, before somebody asked before.
        let fresh: Vec<PeerId> = self.linked.difference(&self.asked).copied().collect();
        let pool = if fresh.is_empty() { self.linked.iter().copied().collect() } else { fresh };
        let asked = pool.get(random.peer_choice.below(pool.len())).copied();
        let requests_max = if self.thorough { REQUESTS_MAX * WITNESSES as u8 } else { REQUESTS_MAX };
        let Some(asked) = asked.filter(|_| self.requests < requests_max) else {
            return self.conclude(now, found);
        };
        self.requests += 1;
        self.asked.insert(asked);
        // Unguessable: who knows it could make us believe that we are reachable.
        let nonce = random.keys.bytes();
        // The latest first: they are the likeliest that a router still remembers.
        let recent = self.contacted.iter().map(|(peer, at)| (*at, peer));
        let mut recent: Vec<(Instant, &PeerId)> = recent.filter(|(at, _)| now - *at < CONTACT_AGE).collect();
        recent.sort_unstable_by(|a, b| b.cmp(a));
        let linked_first =
            self.linked.iter().chain(recent.iter().map(|(_, p)| *p).filter(|p| !self.linked.contains(p)));
        let contacted: ArrayVec<_, CONTACTED_MAX> = linked_first.map(id_prefix).take(CONTACTED_MAX).collect();
        self.current = Some(Try { nonce, asked, was_taken_on: false });
        self.due = Some(now + TRY_FOR);
        send(out, asked, &Message::DialBackRequest { nonce, contacted, port: self.port });
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// Notes a contact; at the limit forgets what is too old to matter, or says that it could not be noted.
fn remember<K: Ord>(table: &mut BTreeMap<K, Instant>, now: Instant, key: K, blind_until: &mut Option<Instant>) {
    if table.len() >= REMEMBERED_MAX && !table.contains_key(&key) {
        if blind_until.is_some_and(|until| until > now + (CONTACT_AGE - CONTACT_GRAIN)) {
            // Looked through a moment ago.
            return;
        }
        table.retain(|_, at| now - *at < CONTACT_AGE);
        if table.len() >= REMEMBERED_MAX {
            *blind_until = Some(now + CONTACT_AGE);
            return;
        }
    }
    table.insert(key, now);
}
