//! Carries handshakes: what an Init may ask for before there is a link, and what a finished one changes around it.

use core::net::SocketAddr;

use super::Node;
use crate::api::{Event, Save, StreamEnd};
use crate::identity::PeerId;
use crate::introduce::HeldInit;
use crate::keepalive::Duty;
use crate::link::Accepted;
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::peer::{Arrival, AttemptRoute, Peer, Request, Standing, Traffic, response_len};
use crate::relay::Way;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::{Address, is_sendable};
use crate::wire::message::{self, InitBody, Message, ResponseBody, Whereabouts};

impl Node {
    // ---- initiator ----

    /// A time for an Init: never lower than any before, in this run or an earlier one.
    fn init_time(&mut self, now: Instant) -> u64 {
        let time_us = self.freshness.next_time(now);
        self.report.tell_all(self.freshness.poll_mark().map(|mark| Event::Save(Save::ClockMark(mark))));
        time_us
    }

    /// Begins a handshake with a peer; the packet comes back for introductions, which carry it.
    pub(crate) fn attempt(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: AttemptRoute,
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        let time_us = self.init_time(now);
        self.peers.attempt(now, &mut self.account, time_us, key, route, body)
    }

    /// Opens a link to a known address, unless one is up or under way there.
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        id: PeerId,
        address: SocketAddr,
        early: Option<Message<'_>>,
    ) -> Option<PeerKey> {
        if id == self.id() || !is_sendable(address) {
            return None;
        }
        let key = self.ensure_peer(now, id)?;
        let body = InitBody::Direct { early };
        if self.dial_blocked(now, id, address, &body) {
            return Some(key);
        }
        let socket = self.transports.network().socket_for(address)?;
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
        peer.last_init_us = self.freshness.recall(&id);
        self.peers.insert(peer)
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
        let cookie = self.peers.open_cookie(path, receiver, nonce, sealed)?;
        let time_us = self.init_time(now);
        self.peers.attempt_with_cookie(now, &mut self.account, time_us, receiver, &cookie)
    }

    /// A Response came from an address or through a channel.
    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        route: Route,
        receiver: u32,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let key = self.peers.awaits_response(receiver, &route)?;
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
        let mut finished = self.peers.finish(now, key, receiver, packet, &mut plain)?;
        let body: ResponseBody<'_> =
            postcard::from_bytes(&plain[..finished.body_len]).map_err(|_| DropReason::BadContents)?;
        let (same, first, early_accepted) = (finished.same, finished.first, finished.early_accepted);
        let early = core::mem::take(&mut finished.body);
        if !same && self.peers.is_up(key) {
            self.on_link_replaced(now, key, StreamEnd::PeerRestarted);
        }
        self.peers.install_finished(now, key, route, finished);
        self.transport_answered(now, key, &route, first);
        self.choose_path(now, key);
        // The responder changes keys only when it sees the new ones used.
        self.peers.send(key, &Message::Confirm);
        self.challenge_relayed(now, key);
        self.peers.flush_waiting(key);
        if same {
            // Another way to the peer was looked for, and is found.
            if let Some(id) = self.peers.get(key).map(|p| p.id) {
                self.calls.finish(&id);
            }
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
                    None if !early_accepted => self.repeat_early(key, &early),
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
            self.peers.send(key, &message);
        }
    }

    // ---- responder ----

    /// An Init from an address: gate first, then the handshake.
    pub(crate) fn on_init(&mut self, now: Instant, path: Path, packet: &[u8]) -> Result<(), DropReason> {
        if self.peers.admit(now, &mut self.account, path, packet)? {
            self.on_admitted(now, Arrival::Direct(path), packet, true)?;
        }
        Ok(())
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
        if self.peers.answer_again(now, &mut self.account, arrival, packet) {
            return Ok(());
        }
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let (accepted, len) = self.peers.accept(packet, macs, &mut plain)?;
        let body: InitBody<'_> = postcard::from_bytes(&plain[..len]).map_err(|_| DropReason::BadContents)?;
        match body {
            InitBody::Direct { early } => self.on_direct_init(now, arrival, accepted, early, packet.len()),
            // Candidates come only inside introductions.
            InitBody::Introduced { .. } => {
                let response = self.on_introduced_init(now, arrival.route(), accepted, body, packet.len());
                let bytes = response.map_err(|_| DropReason::Limited)?;
                if let Arrival::Relayed(_) = arrival {
                    self.peers.answer(now, &mut self.account, arrival, bytes);
                    return Ok(());
                }
                Err(DropReason::WrongPath)
            }
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
        self.refuse_crossing(now, &id)?;
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
            self.peers.answer(now, &mut self.account, arrival, bytes);
            return Ok(());
        };
        if let (Some(Message::Introduce { peer, init }), true) = (&early, fresh) {
            return self.on_early_introduce(now, key, HeldInit { accepted, path, init_len }, *peer, init);
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
        let message = reply.as_deref().and_then(|bytes| message::decode_next(&mut &*bytes).ok());
        let body = ResponseBody::Direct { seen, reply: message };
        let (body, taken) =
            if fits(&body, &mut buf) { (body, fresh) } else { (ResponseBody::Direct { seen, reply: None }, false) };
        let route = Arrival::Direct(path).route();
        let bytes = self.respond(now, key, accepted, &body, init_len, taken, user, route)?;
        self.peers.answer(now, &mut self.account, Arrival::Direct(path), bytes);
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
        self.refuse_crossing(now, &id)?;
        let standing = self.standing_of(&id);
        if standing == Standing::Refused {
            return Err(DropReason::Unauthentic);
        }
        let fresh = self.is_fresh(now, &id, accepted.fixed.time_us);
        let key = self.ensure_peer(now, id).ok_or(DropReason::Limited)?;
        if let Route::Relayed { channel, via } = route {
            self.relay.add_end(channel, Way { end: key, via });
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
        }
        self.traversal.on_introduced(key, told, whereabouts);
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
        let from = route.remote().filter(|_| !route.is_tcp());
        let unasked = from.is_some_and(|from| self.overlay.is_unasked(now, &accepted.peer, from.ip()));
        if let Some(evicted) = self.peers.evict_unconfirmed() {
            self.drop_if_idle(now, evicted);
        }
        self.peers.respond(now, key, accepted, body, Request { init_len, fresh, user, route, unasked })
    }

    /// The first packet under a handshake's keys arrived: it is the link now.
    pub(crate) fn confirm(&mut self, now: Instant, key: PeerKey, receiver: u32, route: Route) {
        let Some(confirmed) = self.peers.take_confirmed(key, receiver, &route) else { return };
        let (same, unasked) = (confirmed.same, confirmed.unasked);
        if confirmed.was_up && !same {
            self.on_link_replaced(now, key, StreamEnd::PeerRestarted);
        }
        self.peers.install_confirmed(now, key, confirmed);
        self.choose_path(now, key);
        if unasked {
            self.rooms_unasked_link(now);
        }
        if !same {
            self.on_link_up(now, key);
        }
        self.peers.flush_waiting(key);
    }

    fn refuse_crossing(&self, now: Instant, id: &PeerId) -> Result<(), DropReason> {
        if self.peers.is_crossing(now, id) { Err(DropReason::Limited) } else { Ok(()) }
    }

    /// Whether we answer a direct Init of this peer at all.
    fn may_link(&self, id: &PeerId, early: Option<&Message<'_>>) -> bool {
        self.overlay.is_serving()
            || self.peers.key_of(id).is_some()
            || matches!(early, Some(Message::DialBack { .. }))
            || self.overlay.is_supernode(id)
            || self.standing_of(id) != Standing::Refused
    }

    /// Whether an Init is new and not a replay, as far as can be told.
    fn is_fresh(&self, now: Instant, id: &PeerId, time_us: u64) -> bool {
        let known = self.peers.by_id(id).map_or(0, |p| p.last_init_us);
        self.freshness.is_fresh(now, id, known, time_us)
    }
}
