//! Handshakes that other nodes begin: their Inits and our answers.
//!
//! A link that is up changes only when the other side has shown that it holds the new keys: the first packet under them
//! arrives ([`Peers::take_confirmed`], [`Peers::install_confirmed`]). Between the two the node tells whoever hangs on a
//! link that is replaced.

use core::time::Duration;
use std::collections::VecDeque;

use super::attempt::Pending;
use super::outgoing::Outgoing;
use super::peers::Peers;
use super::state::{Peer, UNCONFIRMED_AGE_MAX};
use super::traffic::LinkUse;
use crate::account::Account;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::link::{self, Accepted, Admission, Epoch, ResponseFixed};
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::dialect::Dialect;
use crate::wire::message::{self, ResponseBody, Whereabouts};
use crate::wire::packet::{NOISE_2_OVERHEAD, RESPONSE_HEADER_LEN};

/// Most answered handshakes of one peer. At the limit the oldest goes, unless the new one looks replayed.
pub(super) const PENDING_MAX: usize = 3;
/// Most peers whose handshake we answered but who have not confirmed it. At the limit the oldest goes.
pub(super) const UNCONFIRMED_MAX: usize = 1_024;
/// Two Inits cross when ours is younger than this.
const CROSSING: Duration = Duration::from_secs(1);
/// A newer handshake that waits to be confirmed is not pushed out by an older Init for so long.
const REPLAY_GUARD: Duration = Duration::from_secs(5);

/// How another node's Init reached us.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// From an address.
    Direct(Path),
    /// Through a channel that exists, or brought by a home.
    Relayed(Route),
}

impl Arrival {
    /// The way that an answer takes.
    pub(crate) fn route(&self) -> Route {
        match self {
            Self::Direct(path) => Route::from(*path),
            Self::Relayed(route) => *route,
        }
    }
}

/// A handshake that we answered and whose keys were used: it is the link from now on.
pub(crate) struct Confirmed {
    pending: Pending,
    /// New keys for the same link.
    pub(crate) same: bool,
    /// A link was up before.
    pub(crate) was_up: bool,
    /// It came in although nothing was sent there.
    pub(crate) unasked: bool,
}

/// What an answer to an Init depends on beside the Init.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// The answer is no longer than this.
    pub(crate) init_len: usize,
    /// Its early message was taken.
    pub(crate) fresh: bool,
    /// What the link is for.
    pub(crate) link_use: LinkUse,
    /// Where the Init came from and the Response goes.
    pub(crate) route: Route,
    /// Nothing was sent there before, as far as is known.
    pub(crate) unasked: bool,
}

/// Length of a Response with a body of this length: header, Noise, fixed part.
const fn response_len(body: usize) -> usize {
    RESPONSE_HEADER_LEN + NOISE_2_OVERHEAD + link::RESPONSE_FIXED_LEN + body
}

impl Peers {
    /// Whether an Init from an address may cost a handshake. If not, it was answered with a cookie, or is dropped.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        account: &mut Account,
        path: Path,
        packet: &[u8],
    ) -> Result<bool, DropReason> {
        match self.gate.admit(now, &self.me, path.remote, packet, &mut self.keys) {
            Admission::Pass => {
                account.received(now, path.remote, packet.len());
                Ok(true)
            }
            Admission::Cookie(bytes) => {
                debug_assert!(bytes.len() <= packet.len(), "a cookie is no longer than the Init");
                self.push(Outgoing::Raw { path, bytes: bytes.as_slice().into() });
                Ok(false)
            }
            Admission::Drop(reason) => Err(reason),
        }
    }

    /// The same Init again: the same Response again, without any Diffie-Hellman, if it comes from the same place.
    ///
    /// From anywhere else it may be a copy. Whoever confirms the handshake proves that the Response arrived where it
    /// was sent first, so it is sent nowhere else.
    pub(crate) fn answer_again(
        &mut self,
        now: Instant,
        account: &mut Account,
        arrival: Arrival,
        packet: &[u8],
    ) -> bool {
        let Some(pending) = self.pending_of(packet) else { return false };
        let route = arrival.route();
        if pending.route == route || !(pending.route.is_direct() || route.is_direct()) {
            let response = pending.response.clone();
            self.answer(now, account, arrival, response);
        }
        true
    }

    /// Where the Init went whose answer is not confirmed yet, if this is that very Init, and that answer.
    pub(crate) fn answered_init(&self, packet: &[u8]) -> Option<(Route, &[u8])> {
        self.pending_of(packet).map(|pending| (pending.route, &*pending.response))
    }

    /// The same Init came again; if by another way, the answer goes by that now. Whose it is then.
    pub(crate) fn answer_by(&mut self, packet: &[u8], route: Route) -> Option<PeerKey> {
        let (key, ephemeral) = self.begun_by(packet)?;
        self.get_mut(key)?.pending.iter_mut().find(|p| p.ephemeral == ephemeral && p.route != route)?.route = route;
        Some(key)
    }

    /// The peer with whom this very Init began a handshake that is not confirmed yet, and the key that names it.
    fn begun_by(&self, packet: &[u8]) -> Option<(PeerKey, [u8; 32])> {
        let ephemeral = *packet.get(6..38)?.first_chunk::<32>()?;
        Some((*self.by_ephemeral.get(&ephemeral)?, ephemeral))
    }

    /// The handshake that this very Init began, if it is not confirmed yet.
    fn pending_of(&self, packet: &[u8]) -> Option<&Pending> {
        let (key, ephemeral) = self.begun_by(packet)?;
        self.get(key)?.pending.iter().find(|p| p.ephemeral == ephemeral)
    }

    /// Opens an Init; its body is then in `plain`. Changes nothing.
    pub(crate) fn accept(&self, packet: &[u8], macs: bool, plain: &mut [u8]) -> Result<(Accepted, usize), DropReason> {
        // Whose link is up has passed the check for torsion, on its Init or on ours.
        let known = |id: &PeerId| self.by_id(id).is_some_and(Peer::is_up);
        link::accept_unless(&self.me, packet, macs, known, plain).map_err(|_| DropReason::Unauthentic)
    }

    /// Crossing Inits: the one from the smaller id survives, so the other side's is left unanswered while ours is new.
    /// That a link is up changes nothing: it may be one that the other side no longer has, and two that each replace it
    /// would go on to replace each other's.
    pub(crate) fn is_crossing(&self, now: Instant, id: &PeerId) -> bool {
        let is_new = |peer: &Peer| peer.attempts.iter().any(|a| now.since(a.first) < CROSSING);
        self.me.id() < *id && self.by_id(id).is_some_and(is_new)
    }

    /// Whether an Init is new and not a replay, as far as can be told.
    pub(crate) fn is_fresh(&self, now: Instant, accepted: &Accepted) -> bool {
        let id = &accepted.peer;
        let known = self.by_id(id).map_or(0, |p| p.last_init_us);
        self.freshness.is_fresh(now, id, known, accepted.fixed.time_us)
    }

    /// Answers a direct Init, with the reply to its early message where that fits: `reply`, encoded.
    #[expect(clippy::too_many_arguments, reason = "what came, what is answered and who is asked, from one caller")]
    pub(crate) fn respond_direct(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        path: Path,
        accepted: Accepted,
        reply: Option<&[u8]>,
        mut request: Request,
    ) -> Result<(), DropReason> {
        let seen = path.remote.into();
        let mut body =
            ResponseBody::Direct { seen, reply: reply.and_then(|mut bytes| message::decode_next(&mut bytes).ok()) };
        let mut buf = [0; DATAGRAM_LEN_MAX];
        if Dialect::OWN.write(&body, &mut buf).is_none_or(|len| response_len(len) > request.init_len) {
            body = ResponseBody::Direct { seen, reply: None };
            request.fresh = false;
        }
        let bytes = self.respond(now, key, accepted, &body, request)?;
        self.answer(now, account, Arrival::Direct(path), bytes);
        Ok(())
    }

    /// Answers an Init for a user link or a leg, with as much of where we are as fits. Returns the Response, and whether it
    /// tells of any address.
    pub(crate) fn respond_introduced(
        &mut self,
        now: Instant,
        key: PeerKey,
        accepted: Accepted,
        mut whereabouts: Whereabouts,
        request: Request,
    ) -> Result<(Box<[u8]>, bool), DropReason> {
        let mut buf = [0; DATAGRAM_LEN_MAX];
        // Never longer than the Init, and the header of the answer that carries it is shorter than the introduction's.
        while let Some(len) =
            Dialect::OWN.write(&ResponseBody::Introduced { whereabouts: whereabouts.clone() }, &mut buf)
            && response_len(len) > request.init_len
            && whereabouts.candidates.pop().is_some()
        {}
        let (is_told, link_use) = (!whereabouts.candidates.is_empty(), request.link_use);
        let bytes = self.respond(now, key, accepted, &ResponseBody::Introduced { whereabouts }, request)?;
        self.serve(now, key, link_use);
        Ok((bytes, is_told))
    }

    /// Answers an Init that was accepted, and keeps the keys until they are used. Returns the Response.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        key: PeerKey,
        accepted: Accepted,
        body: &ResponseBody<'_>,
        request: Request,
    ) -> Result<Box<[u8]>, DropReason> {
        let peer = self.get(key).ok_or(DropReason::Limited)?;
        let fixed = accepted.fixed;
        let resumed = peer.is_up() && peer.session == fixed.session;
        self.make_room_for_pending(now, key, fixed.time_us)?;
        let index = self.indices.allocate(key).ok_or(DropReason::Limited)?;
        let (sender, ephemeral, dialect) = (accepted.sender, accepted.ephemeral, accepted.dialect);
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let mut out = [0; DATAGRAM_LEN_MAX];
        let response = ResponseFixed { early_accepted: request.fresh, resumed, session: fixed.session };
        let built = Dialect::OWN
            .write(body, &mut plain)
            .and_then(|len| plain.get(..len))
            .and_then(|body| accepted.respond(&mut self.keys, index, response, body, &mut out).ok());
        let Some((keys, len)) = built else {
            self.indices.free(index);
            return Err(DropReason::Unauthentic);
        };
        if len > request.init_len {
            self.indices.free(index);
            return Err(DropReason::Limited);
        }
        let bytes: Box<[u8]> = out[..len].into();
        let pending = Pending {
            epoch: Epoch::new(keys, index, sender),
            ephemeral,
            session: fixed.session,
            dialect,
            time_us: fixed.time_us,
            at: now,
            route: request.route,
            unasked: request.unasked,
            response: bytes.clone(),
            link_use: request.link_use,
        };
        if let Some(peer) = self.table.get_mut(key) {
            peer.pending.push(pending);
        }
        self.by_ephemeral.insert(ephemeral, key);
        self.unconfirmed.push_back((now, key));
        self.touch(key);
        Ok(bytes)
    }

    /// A replayed older Init must not push out a newer handshake that is about to be confirmed.
    fn make_room_for_pending(&mut self, now: Instant, key: PeerKey, time_us: u64) -> Result<(), DropReason> {
        let Some(peer) = self.get(key).filter(|p| p.pending.len() >= PENDING_MAX) else { return Ok(()) };
        let Some(oldest) = peer.pending.iter().min_by_key(|p| p.time_us) else { return Ok(()) };
        if oldest.time_us > time_us && now.since(oldest.at) < REPLAY_GUARD {
            return Err(DropReason::Replayed);
        }
        let ephemeral = oldest.ephemeral;
        self.drop_pending_if(key, |p| p.ephemeral == ephemeral);
        Ok(())
    }

    /// Sends a Response to where its Init came from, as far as the account allows.
    pub(crate) fn answer(&mut self, now: Instant, account: &mut Account, arrival: Arrival, bytes: Box<[u8]>) {
        match arrival {
            Arrival::Direct(path) => {
                if account.answer(now, path.remote, bytes.len()) {
                    self.push(Outgoing::Raw { path, bytes });
                }
            }
            Arrival::Relayed(Route::Relayed { channel, via }) => {
                self.push(Outgoing::RawRelayed { channel, via, bytes });
            }
            Arrival::Relayed(Route::Direct { .. }) => {}
        }
    }

    /// Whether a packet under these keys is the first of a handshake that we answered.
    pub(super) fn is_unconfirmed(&self, key: PeerKey, receiver: u32) -> bool {
        self.get(key).is_some_and(|peer| peer.pending.iter().any(|p| p.epoch.local_index() == receiver))
    }

    /// The first packet under a handshake's keys arrived, on `route`.
    pub(crate) fn take_confirmed(&mut self, key: PeerKey, receiver: u32, route: &Route) -> Option<Confirmed> {
        let peer = self.table.get_mut(key)?;
        let at = peer.pending.iter().position(|p| p.epoch.local_index() == receiver)?;
        let pending = peer.pending.remove(at);
        let was_up = peer.is_up();
        let same = was_up && peer.session == pending.session;
        let unasked = !was_up && peer.attempts.is_empty() && pending.unasked && pending.route == *route;
        self.by_ephemeral.remove(&pending.ephemeral);
        self.forget_confirmed();
        Some(Confirmed { pending, same, was_up, unasked })
    }

    /// Its keys are the link's from now on, and the route that the Response went to is proven.
    ///
    /// Whoever holds these keys has the Response, which went there. Where the packet that confirms came from is another
    /// matter: it may be forged, and is challenged like any other new address.
    pub(crate) fn install_confirmed(&mut self, now: Instant, key: PeerKey, confirmed: Confirmed) {
        let Confirmed { pending, same, .. } = confirmed;
        let Some(peer) = self.table.get_mut(key) else { return };
        for attempt in core::mem::take(&mut peer.attempts) {
            self.indices.free(attempt.index);
        }
        self.drop_pending_if(key, |other| other.time_us <= pending.time_us);
        self.rotate_epoch(now, key, pending.epoch);
        let own_duty = self.own_duty();
        let Some(peer) = self.table.get_mut(key) else { return };
        peer.session = pending.session;
        peer.set_dialect(pending.dialect);
        peer.last_init_us = peer.last_init_us.max(pending.time_us);
        if !same {
            peer.quic_client = false;
            peer.serve(now, pending.link_use);
            if pending.link_use != LinkUse::Network {
                peer.duty = own_duty;
            } else if !peer.wanted {
                peer.duty = Duty::None;
            }
        }
        peer.paths.on_handshake(now, pending.route);
        if pending.route.is_tcp() {
            peer.paths.on_stand_in(&pending.route, pending.at);
        }
    }

    /// Forgets the handshakes that we answered.
    pub(super) fn drop_pending(&mut self, key: PeerKey) {
        self.drop_pending_if(key, |_| true);
    }

    /// Forgets those that nobody confirmed in time; whether there were any.
    pub(super) fn drop_pending_if_due(&mut self, now: Instant, key: PeerKey) -> bool {
        let is_due = |p: &Pending| now.since(p.at) >= UNCONFIRMED_AGE_MAX;
        let any = self.get(key).is_some_and(|peer| peer.pending.iter().any(is_due));
        if any {
            self.drop_pending_if(key, is_due);
        }
        any
    }

    fn drop_pending_if(&mut self, key: PeerKey, gone: impl Fn(&Pending) -> bool) {
        let Some(peer) = self.table.get_mut(key) else { return };
        let (indices, by_ephemeral) = (&mut self.indices, &mut self.by_ephemeral);
        peer.pending.retain(|pending| {
            let gone = gone(pending);
            if gone {
                indices.free(pending.epoch.local_index());
                by_ephemeral.remove(&pending.ephemeral);
            }
            !gone
        });
        if peer.pending.is_empty() {
            peer.pending = Vec::new();
        }
    }

    /// Makes room for another handshake to be answered: who lost its own for that, and may have nothing left.
    pub(crate) fn evict_unconfirmed(&mut self) -> Option<PeerKey> {
        self.forget_confirmed();
        if self.unconfirmed.len() < UNCONFIRMED_MAX {
            return None;
        }
        let (_, key) = self.unconfirmed.pop_front()?;
        self.drop_pending(key);
        Some(key)
    }

    /// Strikes from the front of the queue what is confirmed or forgotten.
    fn forget_confirmed(&mut self) {
        while let Some(&(at, key)) = self.unconfirmed.front() {
            let live = self.get(key).is_some_and(|p| p.pending.iter().any(|pending| pending.at == at));
            if live {
                return;
            }
            self.unconfirmed.pop_front();
        }
        // What a crowd took is given back when it is gone.
        self.unconfirmed = VecDeque::new();
    }
}
