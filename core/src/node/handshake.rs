//! Links coming up: our Inits and their answers, other nodes' Inits and ours to them, cookies, rekeys.
//!
//! A handshake never changes a link that is up until the other side has shown that it holds the new keys: as initiator
//! when the Response is authentic, as responder when the first packet under them arrives ([`Node::confirm`]).

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::Node;
use super::peer::{
    ATTEMPTS_MAX, Attempt, AttemptRoute, PENDING_MAX, Peer, Pending, Standing, Traffic, UNCONFIRMED_MAX,
};
use super::send::Outgoing;
use crate::api::{Event, Save, StreamEnd};
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::link::{self, Accepted, Admission, Epoch, InitFixed, Macs, PeerKeys, ResponseFixed};
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::Address;
use crate::wire::message::{InitBody, Message, ResponseBody, Whereabouts};
use crate::wire::packet::{ChannelId, NOISE_2_OVERHEAD, RESPONSE_HEADER_LEN};

/// With nothing remembered of a peer, its Init is fresh within this of our wall clock.
const FRESH_WINDOW: Duration = Duration::from_secs(600);
/// The clock mark is saved so far ahead.
const CLOCK_AHEAD_US: u64 = 600 * 1_000_000;
/// Two Inits cross when ours is younger than this.
const CROSSING: Duration = Duration::from_secs(1);
/// Most peers whose last Init time is remembered after their link ended. At the limit the smallest id goes.
const INIT_TIMES_MAX: usize = 4_096;

/// How another node's Init reached us.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// From an address.
    Direct(Path),
    /// Through a channel that exists, or brought by a home.
    Relayed(Route),
}

impl Arrival {
    fn route(&self) -> Route {
        match self {
            Self::Direct(path) => Route::Direct { socket: path.socket, remote: path.remote },
            Self::Relayed(route) => *route,
        }
    }
}

impl Node {
    // ---- initiator ----

    /// A time for an Init: never lower than any before, in this run or an earlier one.
    fn init_time(&mut self, now: Instant) -> u64 {
        let wall = self.wall_us(now).unwrap_or(0);
        self.clock_us = wall.max(self.clock_us.saturating_add(1));
        if self.clock_us >= self.clock_saved_us {
            self.clock_saved_us = self.clock_us.saturating_add(CLOCK_AHEAD_US);
            self.events.push_back(Event::Save(Save::ClockMark(self.clock_saved_us)));
        }
        self.clock_us
    }

    /// Builds an Init for a peer and notes the attempt; the packet comes back for introductions, which carry it.
    pub(crate) fn attempt(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: AttemptRoute,
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let body = postcard::to_slice(body, &mut bytes).ok()?;
        let (attempt, packet) = self.build_attempt(now, key, route, body, None)?;
        let peer = self.peers.get_mut(key)?;
        if peer.attempts.len() >= ATTEMPTS_MAX {
            let old = peer.attempts.remove(0);
            self.indices.free(old.index);
        }
        self.peers.get_mut(key)?.attempts.push(attempt);
        self.touched.push(key);
        self.send_attempt(now, key, route, &packet);
        Some(packet)
    }

    fn build_attempt(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: AttemptRoute,
        body: &[u8],
        cookie: Option<&[u8; 16]>,
    ) -> Option<(Attempt, Box<[u8]>)> {
        let time_us = self.init_time(now);
        let peer = self.peers.get(key)?;
        let keys = PeerKeys::new(peer.id).ok()?;
        let session = if peer.is_up() { peer.session } else { self.rng.links.u64() };
        let index = self.indices.allocate(key)?;
        let macs = match (route, cookie) {
            (AttemptRoute::Direct(_), None) => Macs::Plain,
            (AttemptRoute::Direct(_), Some(cookie)) => Macs::Cookie(cookie),
            _ => Macs::None,
        };
        let mut out = [0; DATAGRAM_LEN_MAX];
        let fixed = InitFixed { time_us, session };
        let built = link::initiate(&self.me, &keys, &mut self.rng.links, index, fixed, body, macs, &mut out);
        let Ok((initiation, len)) = built else {
            self.indices.free(index);
            return None;
        };
        let packet: Box<[u8]> = out[..len].into();
        let attempt = Attempt {
            initiation,
            index,
            route,
            packet: packet.clone(),
            body: body.into(),
            sent: 1,
            at: now,
            first: now,
            cookie_used: cookie.is_some(),
        };
        Some((attempt, packet))
    }

    fn send_attempt(&mut self, now: Instant, key: PeerKey, route: AttemptRoute, packet: &[u8]) {
        match route {
            AttemptRoute::Direct(path) => {
                let known = Route::Direct { socket: path.socket, remote: path.remote };
                let proven = self.peers.get(key).is_some_and(|p| p.paths.is_proven(&known));
                if proven || path.socket.is_tcp() || self.account.unasked(now, path.remote) {
                    self.push(Outgoing::Raw { path, bytes: packet.into() });
                }
            }
            AttemptRoute::Relayed(Route::Relayed { channel, via }) => {
                if Self::fits_relayed(packet.len()) {
                    self.push(Outgoing::RawRelayed { channel, via, bytes: packet.into() });
                }
            }
            AttemptRoute::Relayed(Route::Direct { .. }) | AttemptRoute::Introduced(_) => {}
        }
    }

    /// Opens a link to a known address, unless one is up or under way there.
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        id: PeerId,
        address: SocketAddr,
        early: Option<Message<'_>>,
    ) -> Option<PeerKey> {
        if id == self.me.id() || !crate::wire::address::is_sendable(address) {
            return None;
        }
        let key = self.ensure_peer(now, id)?;
        let body = InitBody::Direct { early };
        if self.dial_blocked(now, id, address, &body) {
            return Some(key);
        }
        let socket = self.socket_for(address)?;
        let path = Path { socket, remote: address, local: None };
        let peer = self.peers.get_mut(key)?;
        let route = AttemptRoute::Direct(path);
        if peer.attempts.iter().any(|a| a.route == route) {
            return Some(key);
        }
        self.attempt(now, key, route, &body)?;
        self.transport_asked(now);
        Some(key)
    }

    /// The entry of a peer, made if there is none.
    pub(crate) fn ensure_peer(&mut self, now: Instant, id: PeerId) -> Option<PeerKey> {
        if let Some(key) = self.peers.key_of(&id) {
            return Some(key);
        }
        let mut peer = Peer::new(now, id, Duty::None);
        peer.last_init_us = self.init_times.remove(&id).unwrap_or(0);
        self.peers.insert(peer)
    }

    /// Repeats or gives up our Inits that are due.
    pub(crate) fn on_attempts_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut due = Vec::new();
        let mut over = Vec::new();
        for (i, attempt) in peer.attempts.iter_mut().enumerate() {
            if attempt.due() > now {
                continue;
            }
            if usize::from(attempt.sent) >= super::peer::ATTEMPT_WAITS.len()
                || matches!(attempt.route, AttemptRoute::Introduced(_))
            {
                over.push(i);
            } else {
                attempt.sent += 1;
                attempt.at = now;
                due.push((attempt.route, attempt.packet.clone()));
            }
        }
        let gave_up = !over.is_empty();
        for i in over.into_iter().rev() {
            let attempt = peer.attempts.remove(i);
            self.indices.free(attempt.index);
        }
        let failed = peer.attempts.is_empty() && !peer.is_up() && peer.pending.is_empty();
        let rekey_failed = gave_up && peer.attempts.is_empty() && peer.is_up();
        if rekey_failed {
            // Try again a minute later rather than at once: the watch decides whether the peer is gone.
            peer.epoch_since = peer.epoch_since.max(now - super::peer::REKEY_ACTIVE + Duration::from_secs(60));
        }
        for (route, packet) in due {
            self.send_attempt(now, key, route, &packet);
        }
        if failed {
            self.on_dial_failed(now, key);
        }
    }

    /// The responder is under load and wants to see that our address is ours.
    pub(crate) fn on_cookie(
        &mut self,
        now: Instant,
        path: Path,
        receiver: u32,
        nonce: &[u8; 24],
        sealed: &[u8; 32],
    ) -> Result<(), DropReason> {
        let key = self.indices.get(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let at = peer
            .attempts
            .iter()
            .position(|a| a.index == receiver && a.route == AttemptRoute::Direct(path))
            .ok_or(DropReason::WrongPath)?;
        let attempt = peer.attempts.get(at).ok_or(DropReason::UnknownReceiver)?;
        if attempt.cookie_used && attempt.sent > 2 {
            return Err(DropReason::Limited);
        }
        let mac1 = attempt.initiation.mac1().ok_or(DropReason::Unauthentic)?;
        let cookie = link::open_cookie(&peer.id, &mac1, nonce, sealed).ok_or(DropReason::Unauthentic)?;
        let old = peer.attempts.remove(at);
        self.indices.free(old.index);
        let (mut attempt, packet) =
            self.build_attempt(now, key, old.route, &old.body, Some(&cookie)).ok_or(DropReason::Limited)?;
        attempt.sent = old.sent + 1;
        attempt.first = old.first;
        if let Some(peer) = self.peers.get_mut(key) {
            peer.attempts.push(attempt);
        }
        self.touched.push(key);
        self.send_attempt(now, key, old.route, &packet);
        Ok(())
    }

    /// A Response came from an address or through a channel.
    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        route: Route,
        receiver: u32,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let key = self.indices.get(receiver).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.get(key).ok_or(DropReason::UnknownReceiver)?;
        let attempt = peer.attempts.iter().find(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let matches = match attempt.route {
            AttemptRoute::Direct(path) => route == Route::Direct { socket: path.socket, remote: path.remote },
            AttemptRoute::Relayed(sent) => route == sent,
            AttemptRoute::Introduced(_) => false,
        };
        if !matches {
            return Err(DropReason::WrongPath);
        }
        self.on_answer(now, key, receiver, route, packet)
    }

    /// A Response to the Init with this index, on a route that it may come on.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        route: Route,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let attempt = peer.attempts.iter_mut().find(|a| a.index == receiver).ok_or(DropReason::UnknownReceiver)?;
        let (keys, remote_index, fixed, len) =
            attempt.initiation.finish(packet, &mut plain).map_err(|_| DropReason::Unauthentic)?;
        let rtt = (attempt.sent == 1).then(|| now.since(attempt.at));
        let id = peer.id;
        let early = attempt.body.clone();
        let first = attempt.first;
        let body: ResponseBody<'_> = postcard::from_bytes(&plain[..len]).map_err(|_| DropReason::BadContents)?;

        let same = fixed.resumed && peer.is_up() && fixed.session == peer.session;
        if !same && peer.is_up() {
            self.on_link_replaced(now, key, StreamEnd::PeerRestarted);
        }
        self.drop_pending(key);
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        for attempt in core::mem::take(&mut peer.attempts) {
            if attempt.index != receiver {
                self.indices.free(attempt.index);
            }
        }
        self.rotate_epoch(now, key, Epoch::new(keys, receiver, remote_index));
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        peer.session = fixed.session;
        if !same {
            peer.quic_client = true;
            peer.duty = self.own_duty;
        }
        peer.paths.on_handshake(now, route);
        if let Some(rtt) = rtt {
            peer.paths.on_check_answered(now, route, rtt);
        }
        peer.beats.on_heard(now);
        peer.watch.on_heard();
        self.transport_answered(now, key, &route, first);
        self.choose_path(now, key);
        // The responder changes keys only when it sees the new ones used.
        self.send(key, &Message::Confirm);
        self.challenge_relayed(now, key);
        self.flush_waiting(key);
        if same {
            // Another way to the peer was looked for, and is found.
            self.finish_call(&id);
        } else {
            self.on_link_up(now, key);
        }
        match body {
            ResponseBody::Direct { seen, reply } => {
                if let Route::Direct { socket, remote } = route {
                    self.on_observed(now, key, remote, socket, seen.into());
                }
                match reply {
                    Some(reply) => {
                        let _ = self.on_message(now, key, route, reply);
                    }
                    None if !fixed.early_accepted => self.repeat_early(key, &early),
                    None => {}
                }
            }
            ResponseBody::Introduced { whereabouts } => self.on_whereabouts(now, key, whereabouts),
        }
        Ok(())
    }

    /// The responder did not take the early message: it goes again as Data.
    fn repeat_early(&mut self, key: PeerKey, body: &[u8]) {
        if let Ok(InitBody::Direct { early: Some(message) }) = postcard::from_bytes::<InitBody<'_>>(body) {
            self.send(key, &message);
        }
    }

    // ---- responder ----

    /// An Init from an address: gate first, then the handshake.
    pub(crate) fn on_init(&mut self, now: Instant, path: Path, packet: &[u8]) -> Result<(), DropReason> {
        match self.gate.admit(now, &self.me, path.remote, packet, &mut self.rng.links) {
            Admission::Pass => {}
            Admission::Cookie(bytes) => {
                debug_assert!(bytes.len() <= packet.len(), "a cookie is no longer than the Init");
                self.push(Outgoing::Raw { path, bytes: bytes.as_slice().into() });
                return Ok(());
            }
            Admission::Drop(reason) => return Err(reason),
        }
        self.account.received(now, path.remote, packet.len());
        self.on_admitted(now, Arrival::Direct(path), packet, true)
    }

    /// An Init through a channel: the link to the relay limits it, no cookie needed.
    pub(crate) fn on_relayed_init(&mut self, now: Instant, route: Route, packet: &[u8]) -> Result<(), DropReason> {
        if let Route::Relayed { via, .. } = route
            && !self.account.take_inner_init(now, via)
        {
            return Err(DropReason::Limited);
        }
        self.on_admitted(now, Arrival::Relayed(route), packet, false)
    }

    fn on_admitted(&mut self, now: Instant, arrival: Arrival, packet: &[u8], macs: bool) -> Result<(), DropReason> {
        if self.answer_again(now, arrival, packet) {
            return Ok(());
        }
        let mut plain = [0; DATAGRAM_LEN_MAX];
        // Whose link is up has passed the check for torsion, on its Init or on ours.
        let known = |id: &PeerId| self.peers.by_id(id).is_some_and(Peer::is_up);
        let (accepted, len) =
            link::accept_unless(&self.me, packet, macs, known, &mut plain).map_err(|_| DropReason::Unauthentic)?;
        let body: InitBody<'_> = postcard::from_bytes(&plain[..len]).map_err(|_| DropReason::BadContents)?;
        match body {
            InitBody::Direct { early } => self.on_direct_init(now, arrival, accepted, early, packet.len()),
            // Candidates come only inside introductions.
            InitBody::Introduced { .. } => {
                let response = self.on_introduced_init(now, arrival.route(), accepted, body, packet.len());
                let bytes = response.map_err(|_| DropReason::Limited)?;
                if let Route::Relayed { channel, via } = arrival.route() {
                    self.push(Outgoing::RawRelayed { channel, via, bytes });
                    return Ok(());
                }
                Err(DropReason::WrongPath)
            }
        }
    }

    /// The same Init again: the same Response again, without any Diffie-Hellman, if it comes from the same place.
    ///
    /// From anywhere else it may be a copy. Whoever confirms the handshake proves that the Response arrived where it was
    /// sent first, so it is sent nowhere else.
    fn answer_again(&mut self, now: Instant, arrival: Arrival, packet: &[u8]) -> bool {
        let Some(pending) = self.answered_init(packet) else { return false };
        let route = arrival.route();
        if pending.route == route || !(pending.route.is_direct() || route.is_direct()) {
            let response = pending.response.clone();
            self.answer(now, arrival, response);
        }
        true
    }

    /// The handshake that this very Init began, if it is not confirmed yet.
    pub(crate) fn answered_init(&self, packet: &[u8]) -> Option<&Pending> {
        let ephemeral: &[u8; 32] = packet.get(6..38)?.try_into().ok()?;
        let key = *self.pending_by_ephemeral.get(ephemeral)?;
        self.peers.get(key)?.pending.iter().find(|p| p.ephemeral == *ephemeral)
    }

    fn answer(&mut self, now: Instant, arrival: Arrival, bytes: Box<[u8]>) {
        match arrival {
            Arrival::Direct(path) => {
                if self.account.answer(now, path.remote, bytes.len()) {
                    self.push(Outgoing::Raw { path, bytes });
                }
            }
            Arrival::Relayed(Route::Relayed { channel, via }) => {
                self.push(Outgoing::RawRelayed { channel, via, bytes });
            }
            Arrival::Relayed(Route::Direct { .. }) => {}
        }
    }

    fn on_direct_init(
        &mut self,
        now: Instant,
        arrival: Arrival,
        accepted: Accepted,
        early: Option<Message<'_>>,
        init_len: usize,
    ) -> Result<(), DropReason> {
        let id = accepted.peer;
        self.check_crossing(now, &id)?;
        if !self.may_link(&id, early.as_ref()) {
            return Err(DropReason::Limited);
        }
        if let (Some(Message::DialBack { nonce }), Arrival::Direct(path)) = (&early, arrival) {
            // Before anything is answered: what counts is that nothing was sent there. Whoever knows the nonce may be
            // believed, fresh or not.
            self.on_dialled_back(now, &id, path.remote, *nonce);
        }
        let fresh = self.is_fresh(now, &id, accepted.fixed.time_us);
        let key = self.ensure_peer(now, id).ok_or(DropReason::Limited)?;
        let Arrival::Direct(path) = arrival else {
            // A rekey through a channel.
            let seen = Address::V4([0; 4], [0; 2]);
            let user = self.standing_of(&id) != Standing::Refused;
            let body = ResponseBody::Direct { seen, reply: None };
            let bytes = self.respond(now, key, accepted, &body, init_len, fresh, user, arrival.route())?;
            self.answer(now, arrival, bytes);
            return Ok(());
        };
        if let (Some(Message::Introduce { peer, init }), true) = (&early, fresh) {
            return self.on_early_introduce(now, key, path, accepted, *peer, init, init_len);
        }
        let reply = match early {
            Some(early) if fresh => self.on_early(now, early),
            _ => None,
        };
        self.answer_init(now, key, path, accepted, reply, init_len, fresh)
    }

    /// Answers a direct Init, with the reply to its early message where that fits.
    pub(crate) fn answer_init(
        &mut self,
        now: Instant,
        key: PeerKey,
        path: Path,
        accepted: Accepted,
        reply: Option<Box<[u8]>>,
        init_len: usize,
        fresh: bool,
    ) -> Result<(), DropReason> {
        let user = false;
        let seen = path.remote.into();
        let mut buf = [0; DATAGRAM_LEN_MAX];
        let fits = |body: &ResponseBody<'_>, buf: &mut [u8]| {
            postcard::to_slice(body, buf).is_ok_and(|used| response_len(used.len()) <= init_len)
        };
        let message = reply.as_deref().and_then(|bytes| crate::wire::message::decode_next(&mut &*bytes).ok());
        let body = ResponseBody::Direct { seen, reply: message };
        let (body, taken) =
            if fits(&body, &mut buf) { (body, fresh) } else { (ResponseBody::Direct { seen, reply: None }, false) };
        let route = Arrival::Direct(path).route();
        let bytes = self.respond(now, key, accepted, &body, init_len, taken, user, route)?;
        self.answer(now, Arrival::Direct(path), bytes);
        Ok(())
    }

    /// An Init for a user link, brought by a home or through a channel: the Response, or the reason for none.
    pub(crate) fn on_introduced_init(
        &mut self,
        now: Instant,
        route: Route,
        accepted: Accepted,
        body: InitBody<'_>,
        init_len: usize,
    ) -> Result<Box<[u8]>, DropReason> {
        let InitBody::Introduced { whereabouts } = body else { return Err(DropReason::BadContents) };
        let id = accepted.peer;
        self.check_crossing(now, &id)?;
        let standing = self.standing_of(&id);
        if standing == Standing::Refused {
            return Err(DropReason::Unauthentic);
        }
        let fresh = self.is_fresh(now, &id, accepted.fixed.time_us);
        let key = self.ensure_peer(now, id).ok_or(DropReason::Limited)?;
        if let Route::Relayed { channel, via } = route {
            self.add_channel_end(key, channel, via);
        }
        let mut mine =
            if standing == Standing::Accepted { self.whereabouts(whereabouts.attempt) } else { Whereabouts::default() };
        let mut buf = [0; DATAGRAM_LEN_MAX];
        // Never longer than the Init, and the header of the answer that carries it is shorter than the introduction's.
        while let Ok(used) = postcard::to_slice(&ResponseBody::Introduced { whereabouts: mine.clone() }, &mut buf)
            && response_len(used.len()) > init_len
            && mine.candidates.pop().is_some()
        {}
        let told = !mine.candidates.is_empty();
        let body = ResponseBody::Introduced { whereabouts: mine };
        let bytes = self.respond(now, key, accepted, &body, init_len, fresh, true, route)?;
        if let Some(peer) = self.peers.get_mut(key) {
            let traffic = peer.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, standing)));
            traffic.standing = traffic.standing.max(standing);
            traffic.told = told;
            traffic.whereabouts = whereabouts;
        }
        if fresh && standing == Standing::Accepted {
            self.start_checks(now, key);
        }
        Ok(bytes)
    }

    /// The second half of a handshake as responder: the Response, and the keys kept until they are confirmed.
    fn respond(
        &mut self,
        now: Instant,
        key: PeerKey,
        accepted: Accepted,
        body: &ResponseBody<'_>,
        init_len: usize,
        fresh: bool,
        user: bool,
        route: Route,
    ) -> Result<Box<[u8]>, DropReason> {
        let peer = self.peers.get(key).ok_or(DropReason::Limited)?;
        let fixed = accepted.fixed;
        let resumed = peer.is_up() && peer.session == fixed.session;
        if peer.pending.len() >= PENDING_MAX {
            // A replayed older Init must not push out a newer handshake that is about to be confirmed.
            let oldest = peer.pending.iter().min_by_key(|p| p.time_us).map(|p| (p.ephemeral, p.time_us, p.at));
            match oldest {
                Some((_, time_us, at)) if time_us > fixed.time_us && now.since(at) < Duration::from_secs(5) => {
                    return Err(DropReason::Replayed);
                }
                Some((oldest, ..)) => self.drop_pending_if(key, |p| p.ephemeral == oldest),
                None => {}
            }
        }
        let unasked =
            matches!(route, Route::Direct { remote, .. } if !route.is_tcp() && self.is_unasked(now, key, remote.ip()));
        self.make_room_for_unconfirmed(now);
        let index = self.indices.allocate(key).ok_or(DropReason::Limited)?;
        let (sender, ephemeral) = (accepted.sender, accepted.ephemeral);
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let mut out = [0; DATAGRAM_LEN_MAX];
        let response = ResponseFixed { early_accepted: fresh, resumed, session: fixed.session };
        let built = postcard::to_slice(body, &mut plain)
            .ok()
            .and_then(|body| accepted.respond(&mut self.rng.links, index, response, body, &mut out).ok());
        let Some((keys, len)) = built else {
            self.indices.free(index);
            return Err(DropReason::Unauthentic);
        };
        if len > init_len {
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
            route,
            unasked,
            response: bytes.clone(),
            user,
        };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.pending.push(pending);
        }
        self.pending_by_ephemeral.insert(ephemeral, key);
        self.unconfirmed.push_back((now, key));
        self.touched.push(key);
        Ok(bytes)
    }

    /// The first packet under a handshake's keys arrived: it is the link now.
    pub(crate) fn confirm(&mut self, now: Instant, key: PeerKey, index: u32, route: Route) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(at) = peer.pending.iter().position(|p| p.epoch.local_index() == index) else { return };
        let pending = peer.pending.remove(at);
        let same = peer.is_up() && peer.session == pending.session;
        let was_up = peer.is_up();
        let unasked = !was_up && peer.attempts.is_empty() && pending.unasked && pending.route == route;
        self.pending_by_ephemeral.remove(&pending.ephemeral);
        self.forget_confirmed();
        if was_up && !same {
            self.on_link_replaced(now, key, StreamEnd::PeerRestarted);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        for attempt in core::mem::take(&mut peer.attempts) {
            self.indices.free(attempt.index);
        }
        self.drop_pending_if(key, |other| other.time_us <= pending.time_us);
        self.rotate_epoch(now, key, pending.epoch);
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.session = pending.session;
        peer.last_init_us = peer.last_init_us.max(pending.time_us);
        if !same {
            peer.quic_client = false;
            if pending.user {
                peer.duty = self.own_duty;
                let standing = peer.traffic.as_ref().map_or(Standing::Accepted, |t| t.standing);
                peer.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, standing)));
            } else if !peer.wanted {
                peer.duty = Duty::None;
            }
        }
        // Whoever holds these keys has the Response, which went there. Where this packet came from is another matter: it
        // may be forged, and is challenged like any other new address.
        peer.paths.on_handshake(now, pending.route);
        if pending.route.is_tcp() {
            peer.paths.on_stand_in(&pending.route, pending.at);
        }
        self.choose_path(now, key);
        if unasked {
            self.rooms_unasked_link(now);
        }
        if !same {
            self.on_link_up(now, key);
        }
        self.flush_waiting(key);
    }

    /// New keys come into use; the ones before are accepted for a while.
    fn rotate_epoch(&mut self, now: Instant, key: PeerKey, epoch: Epoch) {
        let Some(peer) = self.peers.get_mut(key) else { return };
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
        self.touched.push(key);
    }

    /// Forgets the handshakes that we answered.
    pub(crate) fn drop_pending(&mut self, key: PeerKey) {
        self.drop_pending_if(key, |_| true);
    }

    /// Forgets those of them that `gone` names.
    pub(crate) fn drop_pending_if(&mut self, key: PeerKey, gone: impl Fn(&Pending) -> bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (indices, by_ephemeral) = (&mut self.indices, &mut self.pending_by_ephemeral);
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

    fn make_room_for_unconfirmed(&mut self, now: Instant) {
        self.forget_confirmed();
        if self.unconfirmed.len() >= UNCONFIRMED_MAX
            && let Some((_, key)) = self.unconfirmed.pop_front()
        {
            self.drop_pending(key);
            self.drop_if_idle(now, key);
        }
    }

    /// Strikes from the front of the queue what is confirmed or forgotten.
    fn forget_confirmed(&mut self) {
        while let Some(&(at, key)) = self.unconfirmed.front() {
            let live = self.peers.get(key).is_some_and(|p| p.pending.iter().any(|pending| pending.at == at));
            if live {
                return;
            }
            self.unconfirmed.pop_front();
        }
        // What a crowd took is given back when it is gone.
        self.unconfirmed = VecDeque::new();
    }

    /// Crossing Inits: the one from the smaller id survives, so the other side's is left unanswered while ours is new.
    /// That a link is up changes nothing: it may be one that the other side no longer has, and two that each replace it
    /// would go on to replace each other's.
    fn check_crossing(&self, now: Instant, id: &PeerId) -> Result<(), DropReason> {
        let is_new = |peer: &Peer| peer.attempts.iter().any(|a| now.since(a.first) < CROSSING);
        let crossing = self.me.id() < *id && self.peers.by_id(id).is_some_and(is_new);
        if crossing { Err(DropReason::Limited) } else { Ok(()) }
    }

    /// Whether we answer a direct Init of this peer at all.
    fn may_link(&self, id: &PeerId, early: Option<&Message<'_>>) -> bool {
        self.is_serving()
            || self.peers.key_of(id).is_some()
            || matches!(early, Some(Message::DialBack { .. }))
            || self.is_supernode(id)
            || self.standing_of(id) != Standing::Refused
    }

    /// Whether an Init is new and not a replay, as far as can be told.
    fn is_fresh(&self, now: Instant, id: &PeerId, time_us: u64) -> bool {
        let known = self.peers.by_id(id).map_or(0, |p| p.last_init_us);
        let last = known.max(self.init_times.get(id).copied().unwrap_or(0));
        if last > 0 {
            return time_us > last;
        }
        let window = u64::try_from(FRESH_WINDOW.as_micros()).unwrap_or(u64::MAX);
        self.wall_us(now).is_some_and(|wall| wall.abs_diff(time_us) <= window)
    }

    /// Remembers when a peer's last Init was made, beyond its link.
    pub(crate) fn remember_init_time(&mut self, id: PeerId, time_us: u64) {
        if time_us == 0 {
            return;
        }
        if self.init_times.len() >= INIT_TIMES_MAX && !self.init_times.contains_key(&id) {
            self.init_times.pop_first();
        }
        self.init_times.insert(id, time_us);
    }

    /// A channel of which we are an end now.
    pub(crate) fn add_channel_end(&mut self, key: PeerKey, channel: ChannelId, via: PeerKey) {
        if self.channel_ends.len() < super::CHANNEL_ENDS_MAX {
            self.channel_ends.insert(channel, (key, via));
        }
    }

    /// Messages that waited for the link.
    pub(crate) fn flush_waiting(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        for bytes in core::mem::take(&mut peer.waiting) {
            self.send_bytes(key, None, bytes, false);
        }
    }
}

/// Length of a Response with a body of this length: header, Noise, fixed part.
const fn response_len(body: usize) -> usize {
    RESPONSE_HEADER_LEN + NOISE_2_OVERHEAD + link::RESPONSE_FIXED_LEN + body
}
