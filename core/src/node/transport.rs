//! Carries [`Transports`](crate::transport::Transports): requests for sockets to io and its answers to whoever asked,
//! what it must know of links to it, and what it wants of them.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::Node;
use crate::api::{Event, StreamEnd};
use crate::identity::PeerId;
use crate::net::{PeerKey, SocketId, SocketKind, SocketRefused, SocketRequest, Transport};
use crate::path::Route;
use crate::peer::{AttemptRoute, Peer};
use crate::time::Instant;
use crate::transport::{Link, Lost, Output, Purpose, Survey, Transports, Tried, Use, Waiting, Why};
use crate::wire::message::InitBody;

// ---- sockets ----

impl Node {
    /// Asks io for a socket; nothing when there are too many.
    pub(crate) fn open_socket(&mut self, purpose: Purpose, kind: SocketKind) -> Option<SocketRequest> {
        let request = self.transports.ask(purpose)?;
        self.report.tell(Event::OpenSocket { request, kind });
        Some(request)
    }

    /// io's answer.
    pub(crate) fn on_socket(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) {
        let opened = result.ok();
        let socket = opened.map(|(socket, _)| socket);
        match (self.transports.handle_socket(request, result), socket) {
            (Some(Purpose::Punch(key)), _) => self.on_punch_socket(now, key, socket),
            (Some(Purpose::Connection), _) => self.on_tcp_opened(now, request, socket.ok_or(SocketRefused)),
            (Some(Purpose::Reach), _) => self.on_reach_socket(now, opened),
            (Some(Purpose::Lifetime), Some(socket)) => self.on_lifetime_socket(now, request, socket),
            // Not asked for, or asked for no longer: given back.
            (None, Some(socket)) => self.report.tell(Event::CloseSocket(socket)),
            // It is there when a probe asks for it; and whoever measures waits only so long.
            (Some(Purpose::Alternate | Purpose::Lifetime), _) | (None, None) => {}
        }
    }

    /// Has a socket closed; links lose their paths through it.
    pub(crate) fn close_socket(&mut self, now: Instant, socket: SocketId) {
        self.close_sockets(now, &BTreeSet::from([socket]));
    }

    /// Has sockets closed; links lose their paths through them.
    pub(crate) fn close_sockets(&mut self, now: Instant, sockets: &BTreeSet<SocketId>) {
        let closed = self.transports.close(sockets);
        if closed.is_empty() {
            return;
        }
        self.report.tell_all(closed.into_iter().map(Event::CloseSocket));
        self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if sockets.contains(socket)));
    }
}

// ---- UDP and TCP ----

impl Node {
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
        self.tell_transports(now, |transports| transports.on_heard(now, key, route, is_outside));
    }

    /// A handshake of ours that began at `since` has its Response, on `route`.
    pub(crate) fn transport_answered(&mut self, now: Instant, key: PeerKey, route: &Route, since: Instant) {
        let is_outside = self.peers.get(key).is_some_and(Peer::is_outside);
        self.tell_transports(now, |transports| transports.on_answered(now, key, route, since, is_outside));
    }

    /// An Init left over UDP.
    pub(crate) fn transport_asked(&mut self, now: Instant) {
        self.tell_transports(now, |transports| transports.on_asked(now));
    }

    /// Another network: what was true of UDP may be so no longer.
    pub(crate) fn transport_network(&mut self, now: Instant) {
        self.tell_transports(now, Transports::on_network);
    }

    /// A dial to a supernode where UDP is known not to work: by TCP at once. Whether that is all.
    pub(crate) fn dial_blocked(&mut self, now: Instant, id: PeerId, udp: SocketAddr, body: &InitBody<'_>) -> bool {
        let asking = self.peers.by_id(&id).map(Peer::asking_sockets).unwrap_or_default();
        self.tell_transports(now, |transports| transports.dial_blocked(now, (id, udp), &asking, body))
    }

    /// A link does not answer.
    pub(crate) fn stand_in(&mut self, now: Instant, key: PeerKey) {
        let Some(link) = self.link_to(key) else { return };
        self.tell_transports(now, |transports| transports.on_silent(now, &link));
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
        self.tell_transports(now, |transports| transports.on_opened(now, request, result, heard));
    }

    /// Somebody opened a connection to us.
    pub(crate) fn on_tcp_accepted(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        self.tell_transports(now, |transports| transports.on_accepted(now, socket, remote));
    }

    /// A connection is no more.
    pub(crate) fn on_tcp_closed(&mut self, now: Instant, socket: SocketId) {
        self.tell_transports(now, |transports| transports.on_closed(socket));
    }

    /// Everything of it that is due.
    pub(crate) fn on_transports_due(&mut self, now: Instant) {
        while self.tell_transports(now, |transports| transports.handle_timeout(now)) {}
    }

    /// Tells it something, and on which side we are; then carries out what it wants.
    fn tell_transports<R>(&mut self, now: Instant, tell: impl FnOnce(&mut Transports) -> R) -> R {
        self.transports.set_serving(self.overlay.is_serving());
        let result = tell(&mut self.transports);
        for output in self.transports.take_outputs() {
            self.carry_transport(now, output);
        }
        result
    }

    fn link_to(&self, key: PeerKey) -> Option<Link> {
        let p = self.peers.get(key)?;
        Some(Link {
            key,
            peer: p.id(),
            is_up: p.is_up(),
            current: p.current(),
            asking: p.asking_sockets(),
            is_supernode: self.overlay.is_supernode(&p.id()),
        })
    }

    // ---- what it wants ----

    fn carry_transport(&mut self, now: Instant, output: Output) {
        match output {
            Output::Open { request, remote } => {
                self.report.tell(Event::OpenSocket { request, kind: SocketKind::Tcp { remote } });
            }
            Output::Close(socket) => self.report.tell(Event::CloseSocket(socket)),
            Output::Refuse(socket) => {
                self.report.on_connection_refused();
                self.report.tell(Event::CloseSocket(socket));
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
            Output::GiveUp(peer) => {
                if let Some(tried) = self.tried(&peer) {
                    self.tell_transports(now, |transports| transports.on_given_up(&tried));
                }
            }
            Output::Unreachable(peer) => self.on_dial_failed(now, peer),
            Output::Drop(peer) => self.drop_peer(now, peer, StreamEnd::PeerGone),
            Output::Survey(why) => self.survey_links(now, why),
            Output::Look { socket, peer, route } => self.look_at_connection(now, socket, peer, route),
            Output::Abandon(lost) => self.abandon_connection(now, &lost),
        }
    }

    fn challenge_udp(&mut self, now: Instant, key: PeerKey, udp: SocketAddr) {
        let Some(socket) = self.transports.network().socket_for(udp) else { return };
        let route = Route::Direct { socket, remote: udp };
        if self.peers.add_path(now, key, route) {
            self.challenge(now, key, Some(route));
        }
    }

    /// How a peer stands, unless a handshake with it is under way.
    fn tried(&self, id: &PeerId) -> Option<Tried> {
        let key = self.peers.key_of(id)?;
        let peer = self.peers.get(key).filter(|p| p.is_at_rest())?;
        Some(Tried { key, is_up: peer.is_up(), is_stranded: peer.is_stranded() })
    }

    fn survey_links(&mut self, now: Instant, why: Why) {
        let over_udp = self.peers.wanted().filter(|(_, p)| p.is_kept_over_udp()).map(|(key, _)| key).collect();
        let waiting = self.peers.iter().filter_map(|(_, p)| {
            let (udp, body) = p.asking_over_udp()?;
            Some(Waiting { peer: p.id(), udp, body: body.into(), asking: p.asking_sockets() })
        });
        let is_current = |key, route| self.peers.get(key).is_some_and(|p| p.current() == Some(route));
        let in_use = self.transports.in_links().filter(|(_, key, route)| is_current(*key, *route));
        let in_use = in_use.map(|(socket, ..)| socket).collect();
        let survey = Survey { over_udp, waiting: waiting.collect(), in_use };
        self.tell_transports(now, |transports| transports.on_survey(now, why, &survey));
    }

    fn look_at_connection(&mut self, now: Instant, socket: SocketId, key: PeerKey, route: Route) {
        let used = match self.peers.get(key).filter(|p| p.is_up()) {
            Some(peer) if peer.current() == Some(route) => Use::Current,
            Some(peer) if peer.paths().is_proven(&route) => Use::Spare,
            _ => Use::None,
        };
        self.tell_transports(now, |transports| transports.on_looked_at(now, socket, used));
    }

    fn abandon_connection(&mut self, now: Instant, lost: &Lost) {
        let opener = self.peers.drop_attempts_by(lost.socket);
        let Some(link) = lost.peer.or(opener).and_then(|key| self.link_to(key)) else { return };
        self.peers.touch(link.key);
        self.tell_transports(now, |transports| transports.on_abandoned(now, lost, &link));
    }
}
