//! Handshakes: our Inits and what answers them, other nodes' Inits and our answers.
//!
//! A handshake never changes a link that is up until the other side has shown that it holds the new keys: as initiator
//! when the Response is authentic ([`Peers::finish`], [`Peers::install_finished`]), as responder when the first packet
//! under them arrives ([`Peers::take_confirmed`], [`Peers::install_confirmed`]). Between the two halves of each pair the
//! node tells whoever hangs on a link that is replaced.

use core::time::Duration;
use std::collections::VecDeque;

use super::attempt::{ATTEMPT_WAITS, Attempt, AttemptRoute, Pending};
use super::outbox::fits_relayed;
use super::outgoing::Outgoing;
use super::peers::Peers;
use super::state::{Peer, REKEY_ACTIVE};
use super::traffic::{Standing, Traffic};
use crate::account::Account;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::link::{self, Accepted, Admission, Epoch, InitFixed, Macs, PeerKeys, ResponseFixed, TransportKeys};
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{InitBody, ResponseBody};
use crate::wire::packet::{NOISE_2_OVERHEAD, RESPONSE_HEADER_LEN};

/// Most answered handshakes of one peer. At the limit the oldest goes, unless the new one looks replayed.
pub(crate) const PENDING_MAX: usize = 3;
/// Most peers whose handshake we answered but who have not confirmed it. At the limit the oldest goes.
pub(super) const UNCONFIRMED_MAX: usize = 1_024;
/// Most handshakes of ours under way with one peer. At the limit the oldest is given up.
pub(super) const ATTEMPTS_MAX: usize = 12;
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
            Self::Direct(path) => Route::Direct { socket: path.socket, remote: path.remote },
            Self::Relayed(route) => *route,
        }
    }
}

/// A Response that is authentic: our handshake is finished.
pub(crate) struct Finished {
    keys: TransportKeys,
    receiver: u32,
    remote_index: u32,
    session: u64,
    /// How long the body of the Response is.
    pub(crate) body_len: usize,
    /// The peer took the early message for fresh.
    pub(crate) early_accepted: bool,
    /// The body of our Init, encoded.
    pub(crate) body: Box<[u8]>,
    /// When the attempt began.
    pub(crate) first: Instant,
    /// The round trip, where the Init was sent only once.
    rtt: Option<Duration>,
    /// New keys for the same link: not another link to the same peer.
    pub(crate) same: bool,
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
    /// The link is for user traffic.
    pub(crate) user: bool,
    /// Where the Init came from and the Response goes.
    pub(crate) route: Route,
    /// Nothing was sent there before, as far as is known.
    pub(crate) unasked: bool,
}

/// Length of a Response with a body of this length: header, Noise, fixed part.
pub(crate) const fn response_len(body: usize) -> usize {
    RESPONSE_HEADER_LEN + NOISE_2_OVERHEAD + link::RESPONSE_FIXED_LEN + body
}

// ---- initiator ----

impl Peers {
    /// Begins a handshake: builds an Init, sends it, and repeats it until it is answered. `time_us` is the moment that it
    /// carries. The packet comes back for introductions, which carry it.
    pub(crate) fn attempt(
        &mut self,
        now: Instant,
        account: &mut Account,
        time_us: u64,
        key: PeerKey,
        route: AttemptRoute,
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let body = postcard::to_slice(body, &mut bytes).ok()?;
        let attempt = self.build_attempt(now, time_us, key, route, body, None)?;
        let packet = attempt.packet.clone();
        let peer = self.table.get_mut(key)?;
        if peer.attempts.len() >= ATTEMPTS_MAX {
            let old = peer.attempts.remove(0);
            self.indices.free(old.index);
        }
        peer.attempts.push(attempt);
        self.touch(key);
        self.send_attempt(now, account, key, route, &packet);
        Some(packet)
    }

    fn build_attempt(
        &mut self,
        now: Instant,
        time_us: u64,
        key: PeerKey,
        route: AttemptRoute,
        body: &[u8],
        cookie: Option<&[u8; 16]>,
    ) -> Option<Attempt> {
        let peer = self.table.get(key)?;
        let keys = PeerKeys::new(peer.id).ok()?;
        let session = if peer.is_up() { peer.session } else { self.keys.u64() };
        let index = self.indices.allocate(key)?;
        let macs = match (route, cookie) {
            (AttemptRoute::Direct(_), None) => Macs::Plain,
            (AttemptRoute::Direct(_), Some(cookie)) => Macs::Cookie(cookie),
            _ => Macs::None,
        };
        let mut out = [0; DATAGRAM_LEN_MAX];
        let fixed = InitFixed { time_us, session };
        let built = link::initiate(&self.me, &keys, &mut self.keys, index, fixed, body, macs, &mut out);
        let Ok((initiation, len)) = built else {
            self.indices.free(index);
            return None;
        };
        Some(Attempt {
            initiation,
            index,
            route,
            packet: out[..len].into(),
            body: body.into(),
            sent: 1,
            at: now,
            first: now,
            cookie_used: cookie.is_some(),
        })
    }

    fn send_attempt(&mut self, now: Instant, account: &mut Account, key: PeerKey, route: AttemptRoute, packet: &[u8]) {
        match route {
            AttemptRoute::Direct(path) => {
                let known = Route::Direct { socket: path.socket, remote: path.remote };
                let proven = self.get(key).is_some_and(|p| p.paths.is_proven(&known));
                if proven || path.socket.is_tcp() || account.unasked(now, path.remote) {
                    self.push(Outgoing::Raw { path, bytes: packet.into() });
                }
            }
            AttemptRoute::Relayed(Route::Relayed { channel, via }) => {
                if fits_relayed(packet.len()) {
                    self.push(Outgoing::RawRelayed { channel, via, bytes: packet.into() });
                }
            }
            AttemptRoute::Relayed(Route::Direct { .. }) | AttemptRoute::Introduced(_) => {}
        }
    }

    /// Repeats or gives up our Inits that are due; whether the last one to a peer without a link was given up.
    pub(crate) fn on_attempts_due(&mut self, now: Instant, account: &mut Account, key: PeerKey) -> bool {
        let Some(peer) = self.table.get_mut(key) else { return false };
        let (mut again, mut over) = (Vec::new(), Vec::new());
        peer.attempts.retain_mut(|attempt| {
            if attempt.due() > now {
                return true;
            }
            let is_over = usize::from(attempt.sent) >= ATTEMPT_WAITS.len()
                || matches!(attempt.route, AttemptRoute::Introduced(_));
            if is_over {
                over.push(attempt.index);
            } else {
                attempt.sent += 1;
                attempt.at = now;
                again.push((attempt.route, attempt.packet.clone()));
            }
            !is_over
        });
        let is_last = peer.attempts.is_empty();
        let gave_up = !over.is_empty();
        let failed = is_last && !peer.is_up() && peer.pending.is_empty();
        if gave_up && is_last && peer.is_up() {
            // Try again a minute later rather than at once: the failure detector decides whether the peer is gone.
            peer.epoch_since = peer.epoch_since.max(now - REKEY_ACTIVE + Duration::from_secs(60));
        }
        for index in over.into_iter().rev() {
            self.indices.free(index);
        }
        for (route, packet) in again {
            self.send_attempt(now, account, key, route, &packet);
        }
        failed
    }

    /// Gives up those of our Inits to a peer that `is_void` names.
    pub(super) fn drop_attempts(&mut self, key: PeerKey, is_void: impl Fn(&Attempt) -> bool) {
        let Some(peer) = self.table.get_mut(key) else { return };
        let indices = &mut self.indices;
        peer.attempts.retain(|attempt| {
            let is_void = is_void(attempt);
            if is_void {
                indices.free(attempt.index);
            }
            !is_void
        });
    }

    /// The responder is under load and wants to see that our address is ours: the cookie, if this is one of an Init of
    /// ours that went there.
    pub(crate) fn open_cookie(
        &self,
        path: Path,
        receiver: u32,
        nonce: &[u8; 24],
        sealed: &[u8; 32],
    ) -> Result<[u8; 16], DropReason> {
        let peer = self.owner(receiver).and_then(|key| self.get(key)).ok_or(DropReason::UnknownReceiver)?;
        let is_asked = |a: &&Attempt| a.index == receiver && a.route == AttemptRoute::Direct(path);
        let attempt = peer.attempts.iter().find(is_asked).ok_or(DropReason::WrongPath)?;
        if attempt.cookie_used && attempt.sent > 2 {
            return Err(DropReason::Limited);
        }
        let mac1 = attempt.initiation.mac1().ok_or(DropReason::Unauthentic)?;
        link::open_cookie(&peer.id, &mac1, nonce, sealed).ok_or(DropReason::Unauthentic)
    }

    /// Sends the Init with this index anew, with the cookie that [`Self::open_cookie`] gave.
    pub(crate) fn attempt_with_cookie(
        &mut self,
        now: Instant,
        account: &mut Account,
        time_us: u64,
        receiver: u32,
        cookie: &[u8; 16],
    ) -> Result<(), DropReason> {
        let key = self.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.table.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let at = peer.attempts.iter().position(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let old = peer.attempts.remove(at);
        self.indices.free(old.index);
        let mut attempt =
            self.build_attempt(now, time_us, key, old.route, &old.body, Some(cookie)).ok_or(DropReason::Limited)?;
        attempt.sent = old.sent + 1;
        attempt.first = old.first;
        let packet = attempt.packet.clone();
        if let Some(peer) = self.table.get_mut(key) {
            peer.attempts.push(attempt);
        }
        self.touch(key);
        self.send_attempt(now, account, key, old.route, &packet);
        Ok(())
    }

    /// Whose Response comes on `route`, if it may come there.
    pub(crate) fn awaits_response(&self, receiver: u32, route: &Route) -> Result<PeerKey, DropReason> {
        let key = self.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.get(key).ok_or(DropReason::UnknownReceiver)?;
        let attempt = peer.attempts.iter().find(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let matches = match attempt.route {
            AttemptRoute::Direct(path) => *route == Route::Direct { socket: path.socket, remote: path.remote },
            AttemptRoute::Relayed(sent) => *route == sent,
            AttemptRoute::Introduced(_) => false,
        };
        if matches { Ok(key) } else { Err(DropReason::WrongPath) }
    }

    /// Whose Response a home brings, if it answers an Init for `id` that this home carried.
    pub(crate) fn awaits_introduced(&self, receiver: u32, id: &PeerId, home: &PeerId) -> Result<PeerKey, DropReason> {
        let key = self.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.get(key).filter(|p| p.id == *id).ok_or(DropReason::UnknownReceiver)?;
        let by_this_home = |a: &Attempt| a.index == receiver && a.route == AttemptRoute::Introduced(*home);
        if peer.attempts.iter().any(by_this_home) { Ok(key) } else { Err(DropReason::WrongPath) }
    }

    /// Opens a Response; its body is then in `plain`. Changes nothing.
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        packet: &[u8],
        plain: &mut [u8],
    ) -> Result<Finished, DropReason> {
        let peer = self.table.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let attempt = peer.attempts.iter_mut().find(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let (keys, remote_index, fixed, body_len) =
            attempt.initiation.finish(packet, plain).map_err(|_| DropReason::Unauthentic)?;
        Ok(Finished {
            keys,
            receiver,
            remote_index,
            session: fixed.session,
            body_len,
            early_accepted: fixed.early_accepted,
            body: attempt.body.clone(),
            first: attempt.first,
            rtt: (attempt.sent == 1).then(|| now.since(attempt.at)),
            same: fixed.resumed && peer.epoch.is_some() && fixed.session == peer.session,
        })
    }

    /// Its keys are the link's from now on, and `route` is proven.
    pub(crate) fn install_finished(&mut self, now: Instant, key: PeerKey, route: Route, finished: Finished) {
        self.drop_pending(key);
        let Some(peer) = self.table.get_mut(key) else { return };
        for attempt in core::mem::take(&mut peer.attempts) {
            if attempt.index != finished.receiver {
                self.indices.free(attempt.index);
            }
        }
        self.rotate_epoch(now, key, Epoch::new(finished.keys, finished.receiver, finished.remote_index));
        let own_duty = self.own_duty();
        let Some(peer) = self.table.get_mut(key) else { return };
        peer.session = finished.session;
        if !finished.same {
            peer.quic_client = true;
            peer.duty = own_duty;
        }
        peer.paths.on_handshake(now, route);
        if let Some(rtt) = finished.rtt {
            peer.paths.on_check_answered(now, route, rtt);
        }
        peer.beats.on_heard(now);
        peer.detector.on_heard();
    }
}

// ---- responder ----

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
    /// From anywhere else it may be a copy. Whoever confirms the handshake proves that the Response arrived where it was
    /// sent first, so it is sent nowhere else.
    pub(crate) fn answer_again(
        &mut self,
        now: Instant,
        account: &mut Account,
        arrival: Arrival,
        packet: &[u8],
    ) -> bool {
        let Some(pending) = self.answered_init(packet) else { return false };
        let route = arrival.route();
        if pending.route == route || !(pending.route.is_direct() || route.is_direct()) {
            let response = pending.response.clone();
            self.answer(now, account, arrival, response);
        }
        true
    }

    /// The handshake that this very Init began, if it is not confirmed yet.
    pub(crate) fn answered_init(&self, packet: &[u8]) -> Option<&Pending> {
        let ephemeral: &[u8; 32] = packet.get(6..38)?.try_into().ok()?;
        let key = *self.by_ephemeral.get(ephemeral)?;
        self.get(key)?.pending.iter().find(|p| p.ephemeral == *ephemeral)
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
        let (sender, ephemeral) = (accepted.sender, accepted.ephemeral);
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let mut out = [0; DATAGRAM_LEN_MAX];
        let response = ResponseFixed { early_accepted: request.fresh, resumed, session: fixed.session };
        let built = postcard::to_slice(body, &mut plain)
            .ok()
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
            time_us: fixed.time_us,
            at: now,
            route: request.route,
            unasked: request.unasked,
            response: bytes.clone(),
            user: request.user,
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
    pub(crate) fn is_unconfirmed(&self, key: PeerKey, receiver: u32) -> bool {
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
        peer.last_init_us = peer.last_init_us.max(pending.time_us);
        if !same {
            peer.quic_client = false;
            if pending.user {
                peer.duty = own_duty;
                let standing = peer.traffic.as_ref().map_or(Standing::Accepted, |t| t.standing);
                peer.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, standing)));
            } else if !peer.wanted {
                peer.duty = Duty::None;
            }
        }
        peer.paths.on_handshake(now, pending.route);
        if pending.route.is_tcp() {
            peer.paths.on_stand_in(&pending.route, pending.at);
        }
    }

    /// New keys come into use; the ones before are accepted for a while.
    fn rotate_epoch(&mut self, now: Instant, key: PeerKey, epoch: Epoch) {
        let Some(peer) = self.table.get_mut(key) else { return };
        if let Some(old) = peer.old_epoch.take() {
            self.indices.free(old.0.local_index());
        }
        if let Some(mut old) = peer.epoch.take() {
            old.rest();
            peer.old_epoch = Some(Box::new((*old, now)));
        }
        peer.epoch = Some(Box::new(epoch));
        peer.epoch_since = now;
        peer.newest = 0;
        self.touch(key);
    }

    /// The link is another one from now on: its keys are void.
    pub(crate) fn drop_epochs(&mut self, key: PeerKey) {
        let Some(peer) = self.table.get_mut(key) else { return };
        let epoch = peer.epoch.take().map(|epoch| epoch.local_index());
        let old = peer.old_epoch.take().map(|old| old.0.local_index());
        for index in epoch.into_iter().chain(old) {
            self.indices.free(index);
        }
    }

    /// Keys that were replaced long enough ago are void.
    pub(crate) fn drop_old_epoch_if_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.table.get_mut(key) else { return };
        if peer.old_epoch.as_ref().is_some_and(|old| now.since(old.1) >= super::OLD_EPOCH_AGE_MAX)
            && let Some(old) = peer.old_epoch.take()
        {
            self.indices.free(old.0.local_index());
        }
    }

    /// Forgets the handshakes that we answered.
    pub(crate) fn drop_pending(&mut self, key: PeerKey) {
        self.drop_pending_if(key, |_| true);
    }

    /// Forgets those that nobody confirmed in time; whether there were any.
    pub(crate) fn drop_pending_if_due(&mut self, now: Instant, key: PeerKey) -> bool {
        let is_due = |p: &Pending| now.since(p.at) >= super::UNCONFIRMED_AGE_MAX;
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
