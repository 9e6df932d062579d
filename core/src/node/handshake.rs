//! Carries handshakes: what an Init may ask for before there is a link, and what a finished one changes around it.

use core::net::SocketAddr;

use super::Node;
use crate::api::StreamEnd;
use crate::identity::PeerId;
use crate::introduce::{self, HeldInit};
use crate::link::Accepted;
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::peer::{Arrival, AttemptRoute, LinkUse, Manner, Origin, Request};
use crate::relay::Way;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::{Address, is_sendable};
use crate::wire::dialect::Dialect;
use crate::wire::message::{InitBody, Message, ResponseBody};

// ---- initiator ----

impl Node {
    /// Begins a handshake with a peer; the packet comes back for introductions, which carry it.
    pub(super) fn attempt(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: AttemptRoute,
        body: &InitBody<'_>,
    ) -> Option<Box<[u8]>> {
        let packet = self.peers.attempt(now, &mut self.account, key, route, body);
        self.carry_peers(now);
        packet
    }

    /// Opens a link at an address: unless this node knows better, by the word of whoever named it.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        id: PeerId,
        address: SocketAddr,
        named_by: Origin,
        early: Option<Message<'_>>,
    ) -> Option<PeerKey> {
        let origin = if self.overlay.is_at(&id, address) { Origin::Own } else { named_by };
        self.dial_in(now, id, address, Manner::by(origin), early)
    }

    /// The same in this manner, unless an Init is under way there.
    pub(super) fn dial_in(
        &mut self,
        now: Instant,
        id: PeerId,
        address: SocketAddr,
        manner: Manner,
        early: Option<Message<'_>>,
    ) -> Option<PeerKey> {
        if id == self.id() || !is_sendable(address) {
            return None;
        }
        let socket = self.transports.network().socket_for(address);
        let key = self.peers.key_of(&id).or_else(|| socket.and_then(|_| self.peers.enter(now, id)))?;
        let body = InitBody::Direct { early };
        if self.dial_blocked(now, id, address, &body) {
            return Some(key);
        }
        let path = Path { socket: socket?, remote: address, local: None };
        if self.peers.is_asking(key, path) {
            return Some(key);
        }
        self.peers.attempt_in(now, &mut self.account, key, (AttemptRoute::Direct(path), manner), &body)?;
        self.carry_peers(now);
        self.transport_asked(now);
        Some(key)
    }

    /// A Response to the Init with this index, on a route that it may come on.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        route: Route,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let mut finished = self.peers.finish(now, key, receiver, packet, &mut plain)?;
        let (body, rest): (ResponseBody<'_>, _) =
            postcard::take_from_bytes(&plain[..finished.body_len]).map_err(|_| DropReason::BadContents)?;
        finished.dialect = Dialect::read(rest);
        let (same, first, early_accepted) = (finished.same, finished.first, finished.early_accepted);
        let early = core::mem::take(&mut finished.body);
        if !same && self.peers.is_up(key) {
            self.on_link_replaced(now, key, StreamEnd::PeerRestarted);
        }
        self.peers.install_finished(now, key, route, finished);
        self.transport_answered(now, key, &route, first);
        if let (Some(remote), false) = (route.remote(), route.is_tcp()) {
            self.account.proven(now, remote);
            self.peers.id_of(key).inspect(|id| self.overlay.on_reached(now, *id, remote));
        }
        self.choose_path(now, key);
        // The responder changes keys only when it sees the new ones used.
        self.peers.send(key, &Message::Confirm);
        self.challenge_relayed(now, key);
        self.peers.flush_waiting(key);
        if !same {
            self.on_link_up(now, key);
        } else if let Some(peer) = self.peers.get(key) {
            // Another way to the peer was looked for, and is found.
            self.calls.finish(&peer.id());
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
                    None if !early_accepted => self.peers.repeat_early(key, &early),
                    None => {}
                }
            }
            ResponseBody::Introduced { whereabouts } => self.on_whereabouts(now, key, whereabouts),
        }
        Ok(())
    }
}

// ---- responder ----

impl Node {
    /// An Init from an address: gate first, then the handshake.
    pub(super) fn on_init(&mut self, now: Instant, path: Path, packet: &[u8]) -> Result<(), DropReason> {
        if self.peers.admit(now, &mut self.account, path, packet)? {
            self.on_admitted(now, Arrival::Direct(path), packet, true)?;
        }
        Ok(())
    }

    /// An Init through a channel: the link to the relay limits it, no cookie needed.
    pub(super) fn on_relayed_init(&mut self, now: Instant, route: Route, packet: &[u8]) -> Result<(), DropReason> {
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
        let (accepted, body) = self.open_init(packet, macs, &mut plain)?;
        match body {
            InitBody::Direct { early } => self.on_direct_init(now, arrival, accepted, early, packet.len()),
            InitBody::Introduced { .. } | InitBody::Leg { .. } => {
                // Candidates come only inside introductions.
                let Arrival::Relayed(route) = arrival else { return Err(DropReason::WrongPath) };
                let response = self.on_introduced_init(now, route, accepted, body, packet.len());
                self.peers.answer(now, &mut self.account, arrival, response.map_err(|_| DropReason::Limited)?);
                Ok(())
            }
        }
    }

    /// Opens an Init, whose body lies in `plain` then.
    pub(super) fn open_init<'a>(
        &self,
        packet: &[u8],
        macs: bool,
        plain: &'a mut [u8],
    ) -> Result<(Accepted, InitBody<'a>), DropReason> {
        let (mut accepted, len) = self.peers.accept(packet, macs, plain)?;
        let (body, rest) = postcard::take_from_bytes(&plain[..len]).map_err(|_| DropReason::BadContents)?;
        accepted.dialect = Dialect::read(rest);
        Ok((accepted, body))
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
        if self.peers.is_crossing(now, &id) || !self.may_link(&id, early.as_ref()) {
            return Err(DropReason::Limited);
        }
        if let (Some(Message::DialBack { nonce }), Arrival::Direct(path)) = (&early, arrival) {
            // Before anything is answered: what counts is that nothing was sent there. Whoever knows the nonce may be
            // believed, fresh or not.
            self.on_dialled_back(now, &id, path.remote, *nonce);
        }
        let fresh = self.peers.is_fresh(now, &accepted);
        let key = self.peers.enter(now, id).ok_or(DropReason::Limited)?;
        let Arrival::Direct(path) = arrival else {
            // A rekey through a channel.
            let body = ResponseBody::Direct { seen: Address::V4([0; 4], [0; 2]), reply: None };
            let link_use = if self.is_let_in(&id) { LinkUse::User } else { LinkUse::Network };
            let request = self.request(now, key, arrival.route(), init_len, fresh, link_use);
            let bytes = self.peers.respond(now, key, accepted, &body, request)?;
            self.peers.answer(now, &mut self.account, arrival, bytes);
            return Ok(());
        };
        if let (Some(Message::Introduce { peer, init }), true) = (&early, fresh) {
            return self.on_early_introduce(now, key, HeldInit { accepted, path, init_len }, *peer, init);
        }
        let reply = match early {
            Some(early) if fresh => self.overlay.answer_early(now, &early, self.carried(now)),
            _ => None,
        };
        self.answer_init(now, key, HeldInit { accepted, path, init_len }, reply.as_deref(), fresh)
    }

    /// Answers a direct Init, with the reply to its early message where that fits.
    pub(super) fn answer_init(
        &mut self,
        now: Instant,
        key: PeerKey,
        held: HeldInit,
        reply: Option<&[u8]>,
        fresh: bool,
    ) -> Result<(), DropReason> {
        let HeldInit { accepted, path, init_len } = held;
        let request = self.request(now, key, path.into(), init_len, fresh, LinkUse::Network);
        self.peers.respond_direct(now, &mut self.account, key, path, accepted, reply, request)
    }

    /// An Init for a user link or a leg, brought by a home or through a channel: the Response, or the reason for none.
    pub(super) fn on_introduced_init(
        &mut self,
        now: Instant,
        route: Route,
        accepted: Accepted,
        body: InitBody<'_>,
        init_len: usize,
    ) -> Result<Box<[u8]>, DropReason> {
        let (whereabouts, link_use) = introduce::wanted(body)?;
        let id = accepted.peer;
        if self.peers.is_crossing(now, &id) {
            return Err(DropReason::Limited);
        }
        if link_use == LinkUse::User && !self.is_let_in(&id) {
            return Err(DropReason::Unauthentic);
        }
        let fresh = self.peers.is_fresh(now, &accepted);
        let key = self.peers.enter(now, id).ok_or(DropReason::Limited)?;
        if link_use == LinkUse::Leg {
            self.relay.take_guest(key, &whereabouts).inspect_err(|_| self.drop_if_idle(now, key))?;
        }
        if let Route::Relayed { channel, via } = route {
            self.relay.add_end(channel, Way { end: key, via });
        }
        let mine = self.whereabouts(whereabouts.attempt, link_use);
        let request = self.request(now, key, route, init_len, fresh, link_use);
        let (bytes, told) = self.peers.respond_introduced(now, key, accepted, mine, request)?;
        self.traversal.on_introduced(key, told, whereabouts);
        if fresh {
            self.start_checks(now, key);
        }
        Ok(bytes)
    }

    /// What the answer to an Init depends on. Makes room for that answer.
    fn request(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: Route,
        init_len: usize,
        fresh: bool,
        link_use: LinkUse,
    ) -> Request {
        let from = self.peers.id_of(key).zip(route.remote().filter(|_| !route.is_tcp()));
        let unasked = from.is_some_and(|(id, from)| self.overlay.is_unasked(now, &id, from.ip()));
        if let Some(evicted) = self.peers.evict_unconfirmed() {
            self.drop_if_idle(now, evicted);
        }
        Request { init_len, fresh, link_use, route, unasked }
    }

    /// A packet came under these keys of a peer: if it is the first under a handshake's, that is the link now.
    pub(super) fn confirm(&mut self, now: Instant, key: PeerKey, receiver: u32, route: Route) {
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
        if same {
            self.release_parked(now, key);
        } else {
            self.on_link_up(now, key);
        }
        self.peers.flush_waiting(key);
    }

    /// Whether we answer a direct Init of this peer at all.
    fn may_link(&self, id: &PeerId, early: Option<&Message<'_>>) -> bool {
        self.overlay.is_serving()
            || self.peers.key_of(id).is_some()
            || matches!(early, Some(Message::DialBack { .. }))
            || self.overlay.is_supernode(id)
            || self.is_let_in(id)
    }
}
