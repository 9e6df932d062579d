//! Handshakes that this side begins: our Inits and what answers them.
//!
//! The link changes when the Response is authentic ([`Peers::finish`], [`Peers::install_finished`]); between the two
//! the node tells whoever hangs on a link that is replaced.

use core::time::Duration;

use super::attempt::{Attempt, AttemptRoute, Manner, Origin};
use super::outbox::fits_relayed;
use super::outgoing::Outgoing;
use super::output::Output;
use super::peers::Peers;
use super::respond::PENDING_MAX;
use super::state::{Peer, REKEY_ACTIVE};
use crate::account::Account;
use crate::api::Save;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::link::{self, Epoch, InitFixed, Macs, PeerKeys, TransportKeys};
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::dialect::Dialect;
use crate::wire::message::InitBody;

/// Most handshakes of ours under way with one peer. At the limit the oldest is given up.
pub(super) const ATTEMPTS_MAX: usize = 12;

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
    /// What the peer speaks, as its Response says behind its body.
    pub(crate) dialect: Dialect,
}

impl Peers {
    /// The entry of a peer, made if there is none; nothing when there are too many.
    pub(crate) fn enter(&mut self, now: Instant, id: PeerId) -> Option<PeerKey> {
        if let Some(key) = self.key_of(&id) {
            return Some(key);
        }
        let mut peer = Peer::new(now, id, Duty::None);
        peer.last_init_us = self.freshness.recall(&id);
        self.insert(peer)
    }

    /// A time for an Init: never lower than any before, in this run or an earlier one.
    fn init_time(&mut self, now: Instant) -> u64 {
        let time_us = self.freshness.next_time(now);
        if let Some(mark) = self.freshness.poll_mark() {
            self.want(Output::Save(Save::ClockMark(mark)));
        }
        time_us
    }

    /// Begins a handshake: builds an Init, sends it, and repeats it until it is answered. The packet comes back for
    /// introductions, which carry it.
    pub(crate) fn attempt(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        route: AttemptRoute,
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        self.attempt_in(now, account, key, (route, Manner::by(Origin::Own)), body)
    }

    /// The same, sent in this manner.
    pub(crate) fn attempt_in(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        (route, manner): (AttemptRoute, Manner),
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        let time_us = self.init_time(now);
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let len = Dialect::OWN.write(body, &mut bytes)?;
        let body = bytes.get(..len)?;
        let attempt = self.build_attempt(now, time_us, key, (route, manner), body, None)?;
        let packet = attempt.packet.clone();
        let peer = self.table.get_mut(key)?;
        if peer.attempts.len() >= ATTEMPTS_MAX {
            let old = peer.attempts.remove(0);
            self.indices.free(old.index);
        }
        peer.attempts.push(attempt);
        self.touch(key);
        self.send_attempt(now, account, key, (route, manner.origin), &packet);
        Some(packet)
    }

    fn build_attempt(
        &mut self,
        now: Instant,
        time_us: u64,
        key: PeerKey,
        (route, manner): (AttemptRoute, Manner),
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
            manner,
            packet: out[..len].into(),
            body: body.into(),
            sent: 1,
            at: now,
            first: now,
            cookie_used: cookie.is_some(),
        })
    }

    fn send_attempt(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        (route, origin): (AttemptRoute, Origin),
        packet: &[u8],
    ) {
        match route {
            AttemptRoute::Direct(path) => {
                let proven = self.get(key).is_some_and(|p| p.paths.is_proven(&Route::from(path)));
                let mut may_be_sent = || match origin {
                    Origin::Own => account.unasked(now, path.remote),
                    Origin::Hearsay => account.take_hearsay(now, path.remote, packet.len()),
                };
                if proven || path.socket.is_tcp() || may_be_sent() {
                    self.push(Outgoing::Raw { path, bytes: packet.into() });
                } else if origin == Origin::Hearsay
                    && !account.has_room_for_hearsay(now, path.remote.ip(), packet.len())
                    && let Some(peer) = self.id_of(key)
                {
                    self.want(Output::Withheld { peer, ip: path.remote.ip() });
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
    pub(super) fn on_attempts_due(&mut self, now: Instant, account: &mut Account, key: PeerKey) -> bool {
        let Some(peer) = self.table.get_mut(key) else { return false };
        let (mut again, mut over) = (Vec::new(), Vec::new());
        peer.attempts.retain_mut(|attempt| {
            if attempt.due() > now {
                return true;
            }
            let is_over =
                attempt.sent >= attempt.manner.sends_max || matches!(attempt.route, AttemptRoute::Introduced(_));
            if is_over {
                over.push(attempt.index);
            } else {
                attempt.sent += 1;
                attempt.at = now;
                again.push(((attempt.route, attempt.manner.origin), attempt.packet.clone()));
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
        for (to, packet) in again {
            self.send_attempt(now, account, key, to, &packet);
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

    /// Whether an Init is on its way to this path.
    pub(crate) fn is_asking(&self, key: PeerKey, path: Path) -> bool {
        let route = AttemptRoute::Direct(path);
        self.get(key).is_some_and(|peer| peer.attempts.iter().any(|a| a.route == route))
    }

    /// New handshakes on the paths of a link that is silent or may have moved, and a new introduction for a user link.
    pub(crate) fn revive(&mut self, now: Instant, account: &mut Account, key: PeerKey) {
        let Some(peer) = self.get(key) else { return };
        let call = peer.is_user().then_some(peer.id);
        // The peer keeps so many answered handshakes, and one is the introduction's: another would push out the very
        // one that comes to be confirmed.
        let mut routes: Vec<Route> = peer.paths.proven().collect();
        routes.sort_by_key(|route| core::cmp::Reverse(peer.paths.heard_at(route)));
        routes.truncate(PENDING_MAX - 1);
        let under_way: Vec<AttemptRoute> = peer.attempts.iter().map(|a| a.route).collect();
        for to in routes.into_iter().map(AttemptRoute::along).filter(|to| !under_way.contains(to)) {
            self.attempt(now, account, key, to, &InitBody::Direct { early: None });
        }
        if let Some(peer) = call {
            self.want(Output::Call { peer });
        }
    }

    /// The responder is under load and wants to see that our address is ours: the Init goes again, with its cookie.
    pub(crate) fn on_cookie(
        &mut self,
        now: Instant,
        account: &mut Account,
        path: Path,
        receiver: u32,
        nonce: &[u8; 24],
        sealed: &[u8; 32],
    ) -> Result<(), DropReason> {
        let cookie = self.open_cookie(path, receiver, nonce, sealed)?;
        let time_us = self.init_time(now);
        self.attempt_with_cookie(now, account, time_us, receiver, &cookie)
    }

    /// The cookie, if this is one of an Init of ours that went there.
    fn open_cookie(
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
    fn attempt_with_cookie(
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
        let mut attempt = self
            .build_attempt(now, time_us, key, (old.route, old.manner), &old.body, Some(cookie))
            .ok_or(DropReason::Limited)?;
        attempt.sent = old.sent + 1;
        attempt.first = old.first;
        let packet = attempt.packet.clone();
        if let Some(peer) = self.table.get_mut(key) {
            peer.attempts.push(attempt);
        }
        self.touch(key);
        self.send_attempt(now, account, key, (old.route, old.manner.origin), &packet);
        Ok(())
    }

    /// Whose Response comes on `route`, if it may come there.
    pub(crate) fn awaits_response(&self, receiver: u32, route: &Route) -> Result<PeerKey, DropReason> {
        let key = self.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.get(key).ok_or(DropReason::UnknownReceiver)?;
        let attempt = peer.attempts.iter().find(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let matches = match attempt.route {
            AttemptRoute::Direct(path) => *route == Route::from(path),
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
            dialect: Dialect::FIRST,
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
        peer.set_dialect(finished.dialect);
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
    /// The responder did not take the early message of our Init, whose body this is: it goes again as Data.
    pub(crate) fn repeat_early(&mut self, key: PeerKey, body: &[u8]) {
        if let Ok(InitBody::Direct { early: Some(message) }) = postcard::from_bytes::<InitBody<'_>>(body) {
            self.send(key, &message);
        }
    }
}
