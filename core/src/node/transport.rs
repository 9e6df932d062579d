//! Carries [`Transports`](crate::transport::Transports): what it must know of links to it, what it wants of them, and
//! to io.

use core::net::SocketAddr;

use super::Node;
use crate::api::{Event, StreamEnd};
use crate::identity::PeerId;
use crate::net::{PeerKey, SocketId, SocketKind, SocketRefused, SocketRequest, Transport};
use crate::path::Route;
use crate::peer::{AttemptRoute, Peer};
use crate::time::Instant;
use crate::transport::{ExtraSockets, Link, Lost, Output, Survey, Transports, Use, Waiting, Why};
use crate::wire::message::InitBody;

impl Node {
    /// Whether UDP gets through to supernodes; nothing while that is not known.
    pub(crate) fn udp_works(&self) -> Option<bool> {
        self.transports.udp_works()
    }

    /// Whether a connection to this peer is being opened.
    pub(crate) fn is_opening_tcp(&self, id: &PeerId) -> bool {
        self.transports.is_opening(id)
    }

    /// What carries packets on a route: to the peer, or to the relay.
    pub(crate) fn transport_of(&self, route: &Route) -> Transport {
        let leg = match route {
            Route::Direct { .. } => Some(*route),
            Route::Relayed { via, .. } => self.peers.get(*via).and_then(Peer::current),
        };
        if leg.is_some_and(|leg| leg.is_tcp()) { Transport::Tcp } else { Transport::Udp }
    }

    // ---- what it is told ----

    /// Something authentic came on `route`.
    pub(crate) fn transport_heard(&mut self, now: Instant, key: PeerKey, route: &Route) {
        let is_outside = self.peers.get(key).is_some_and(Peer::is_outside);
        self.tell_transports(now, |transports, _| transports.on_heard(now, key, route, is_outside));
    }

    /// A handshake of ours that began at `since` has its Response, on `route`.
    pub(crate) fn transport_answered(&mut self, now: Instant, key: PeerKey, route: &Route, since: Instant) {
        let is_outside = self.peers.get(key).is_some_and(Peer::is_outside);
        self.tell_transports(now, |transports, _| transports.on_answered(now, key, route, since, is_outside));
    }

    /// An Init left over UDP.
    pub(crate) fn transport_asked(&mut self, now: Instant) {
        self.tell_transports(now, |transports, _| transports.on_asked(now));
    }

    /// Another network: what was true of UDP may be so no longer.
    pub(crate) fn transport_network(&mut self, now: Instant) {
        self.tell_transports(now, |transports, _| transports.on_network());
    }

    /// A dial to a supernode where UDP is known not to work: by TCP at once. Whether that is all.
    pub(crate) fn dial_blocked(&mut self, now: Instant, id: PeerId, udp: SocketAddr, body: &InitBody<'_>) -> bool {
        let asking = self.peers.by_id(&id).map(Peer::asking_sockets).unwrap_or_default();
        self.tell_transports(now, |transports, sockets| transports.dial_blocked(now, sockets, (id, udp), &asking, body))
    }

    /// A link to a supernode does not answer: TCP may.
    pub(crate) fn stand_in(&mut self, now: Instant, key: PeerKey) {
        let Some(link) = self.link_to(key).filter(|link| self.is_supernode(&link.peer)) else { return };
        self.tell_transports(now, |transports, sockets| transports.on_silent(now, sockets, &link));
    }

    /// io's answer to the request for a connection.
    pub(crate) fn on_tcp_opened(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<SocketId, SocketRefused>,
    ) {
        let peer = self.transports.dialled(request).and_then(|id| self.peers.by_id(&id));
        let heard = peer.and_then(Peer::heard_over_udp);
        self.tell_transports(now, |transports, sockets| transports.on_opened(now, sockets, request, result, heard));
    }

    /// Somebody opened a connection to us.
    pub(crate) fn on_tcp_accepted(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        self.tell_transports(now, |transports, _| transports.on_accepted(now, socket, remote));
    }

    /// A connection is no more.
    pub(crate) fn on_tcp_closed(&mut self, now: Instant, socket: SocketId) {
        self.tell_transports(now, |transports, _| transports.on_closed(socket));
    }

    /// Everything of it that is due.
    pub(crate) fn on_transports_due(&mut self, now: Instant) {
        while self.tell_transports(now, |transports, sockets| transports.handle_timeout(now, sockets)) {}
    }

    /// Tells it something, and on which side we are; then carries out what it wants.
    fn tell_transports<R>(&mut self, now: Instant, tell: impl FnOnce(&mut Transports, &mut ExtraSockets) -> R) -> R {
        let is_serving = self.is_serving();
        self.transports.set_serving(is_serving);
        let result = tell(&mut self.transports, &mut self.sockets);
        for output in self.transports.take_outputs() {
            self.carry_transport(now, output);
        }
        result
    }

    fn link_to(&self, key: PeerKey) -> Option<Link> {
        let p = self.peers.get(key)?;
        Some(Link { key, peer: p.id(), is_up: p.is_up(), current: p.current(), asking: p.asking_sockets() })
    }

    // ---- what it wants ----

    fn carry_transport(&mut self, now: Instant, output: Output) {
        match output {
            Output::Open { request, remote } => {
                self.events.push_back(Event::OpenSocket { request, kind: SocketKind::Tcp { remote } });
            }
            Output::Close(socket) => self.events.push_back(Event::CloseSocket(socket)),
            Output::Refuse(socket) => {
                self.counters.refused_connections += 1;
                self.events.push_back(Event::CloseSocket(socket));
            }
            Output::Attempt { peer, path, body } => {
                let key = self.peers.enter(now, peer);
                if let (Some(key), Ok(body)) = (key, postcard::from_bytes::<InitBody<'_>>(&body)) {
                    self.attempt(now, key, AttemptRoute::Direct(path), &body);
                }
            }
            Output::Probe(key) => self.challenge(now, key, None),
            Output::ChallengeUdp { peer, udp } => self.challenge_udp(now, peer, udp),
            Output::StandIn { peer, route, since } => self.peers.on_stand_in(peer, &route, since),
            Output::RemovePath { peer, route } => self.remove_paths_of(now, peer, |r| *r == route),
            Output::TellCandidates => self.on_candidates_changed(now),
            Output::GiveUp(peer) => self.give_up_dial(now, &peer),
            Output::Survey(why) => self.survey_links(now, why),
            Output::Look { socket, peer, route } => self.look_at_connection(now, socket, peer, route),
            Output::Abandon(lost) => self.abandon_connection(now, &lost),
        }
    }

    fn challenge_udp(&mut self, now: Instant, key: PeerKey, udp: SocketAddr) {
        let Some(socket) = self.socket_for(udp) else { return };
        let route = Route::Direct { socket, remote: udp };
        if self.peers.add_path(now, key, route) {
            self.challenge(now, key, Some(route));
        }
    }

    fn give_up_dial(&mut self, now: Instant, id: &PeerId) {
        let Some(key) = self.peers.key_of(id) else { return };
        let Some(peer) = self.peers.get(key).filter(|p| p.is_at_rest()) else { return };
        if !peer.is_up() {
            self.on_dial_failed(now, key);
        } else if peer.is_stranded() {
            self.drop_peer(now, key, StreamEnd::PeerGone);
        }
    }

    fn survey_links(&mut self, now: Instant, why: Why) {
        let over_udp = self.peers.iter().filter(|(_, p)| p.is_kept_over_udp()).map(|(key, _)| key).collect();
        let waiting = self.peers.iter().filter_map(|(_, p)| {
            let (udp, body) = p.asking_over_udp()?;
            Some(Waiting { peer: p.id(), udp, body: body.into(), asking: p.asking_sockets() })
        });
        let is_current = |key, route| self.peers.get(key).is_some_and(|p| p.current() == Some(route));
        let in_use = self.transports.in_links().filter(|(_, key, route)| is_current(*key, *route));
        let in_use = in_use.map(|(socket, ..)| socket).collect();
        let survey = Survey { over_udp, waiting: waiting.collect(), in_use };
        self.tell_transports(now, |transports, sockets| transports.on_survey(now, sockets, why, &survey));
    }

    fn look_at_connection(&mut self, now: Instant, socket: SocketId, key: PeerKey, route: Route) {
        let used = match self.peers.get(key).filter(|p| p.is_up()) {
            Some(peer) if peer.current() == Some(route) => Use::Current,
            Some(peer) if peer.paths().is_proven(&route) => Use::Spare,
            _ => Use::None,
        };
        self.tell_transports(now, |transports, _| transports.on_looked_at(now, socket, used));
    }

    fn abandon_connection(&mut self, now: Instant, lost: &Lost) {
        let opener = self.peers.drop_attempts_by(lost.socket);
        let Some(link) = lost.peer.or(opener).and_then(|key| self.link_to(key)) else { return };
        self.peers.touch(link.key);
        self.tell_transports(now, |transports, sockets| transports.on_abandoned(now, sockets, lost, &link));
    }
}
