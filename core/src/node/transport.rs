//! Where UDP does not work: links over TCP, when they stand in, and how UDP comes back.
//!
//! Some networks let no UDP out. Supernodes therefore take TCP connections at the port number of their UDP socket, and
//! some at 443 as well; a connection carries the same packets in [frames](crate::wire::frame), and to a link it is a
//! path like any other. Only leaves open connections, and only to supernodes.
//!
//! A leaf falls back in two ways. *Starting*: Inits over UDP stay without any answer for [`FALL_BACK_AFTER`]; then it
//! dials supernodes by TCP, [`PARALLEL_MAX`] at a time ([`Node::transport_asked`]). *Running*: a link to a supernode
//! falls silent; then a connection to it is opened beside ([`Node::stand_in`]), an Init goes over it, and if UDP is
//! still silent when the Response comes, the link moves there. Where the port of UDP does not answer within
//! [`PORT_443_AFTER`], 443 is tried too.
//!
//! Once a Response came by TCP while UDP had said nothing, UDP counts as blocked ([`Node::udp_works`]): new dials go by
//! TCP at once, other links are asked whether they still work, and no connectivity checks are sent beyond the LAN. UDP
//! is asked again at [`RETRY_WAITS`], and whenever the network changes, by a Challenge to each supernode that is linked
//! over TCP. Its answer proves the path over UDP, which is then chosen as the better one; the connection ends when it
//! has not been used for a while ([`super::connections`]).

use crate::peer::AttemptRoute;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use super::connections::Connections;
use super::sockets::Purpose;
use crate::api::{Event, StreamEnd};
use crate::identity::PeerId;
use crate::net::{Path, PeerKey, SocketId, SocketKind, SocketRefused, SocketRequest, Transport};
use crate::path::Route;
use crate::peer::{Attempt, Peer};
use crate::time::{Instant, earliest};
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::Prefix;
use crate::wire::message::InitBody;

/// Inits over UDP wait so long for the first answer from anybody before TCP is tried: a second Init left 1 s before.
const FALL_BACK_AFTER: Duration = Duration::from_millis(1_500);
/// Supernodes dialled by TCP at a time while falling back.
const PARALLEL_MAX: usize = 2;
/// Most connections being opened. At the limit none is.
const DIALS_MAX: usize = 8;
/// A firewall that lets few ports out often says nothing of the others: then this one is tried beside the first.
const PORT_443: u16 = 443;
/// So long after it.
const PORT_443_AFTER: Duration = Duration::from_secs(1);
/// Waits before each Challenge that asks whether UDP works again: two each time, since one may be lost; the last two
/// waits go on and on.
const RETRY_WAITS: [Duration; 10] = [
    Duration::from_secs(10),
    Duration::from_secs(1),
    Duration::from_secs(29),
    Duration::from_secs(1),
    Duration::from_secs(59),
    Duration::from_secs(1),
    Duration::from_secs(119),
    Duration::from_secs(1),
    Duration::from_secs(299),
    Duration::from_secs(1),
];
/// A connection that broke is opened again at once only if it had lived so long; otherwise the supernode counts as gone.
const SOUND_AFTER: Duration = Duration::from_secs(5);

/// A connection being opened.
#[derive(Debug)]
struct Dial {
    peer: PeerId,
    /// Where its UDP is.
    udp: SocketAddr,
    /// Where this connection goes.
    remote: SocketAddr,
    /// The body of the Init that is to go over it, encoded.
    body: Box<[u8]>,
    since: Instant,
    /// When port 443 is tried beside.
    other_port_at: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Transports {
    pub(crate) connections: Connections,
    dials: BTreeMap<SocketRequest, Dial>,
    /// When a supernode was last heard over UDP.
    udp_heard: Option<Instant>,
    udp_works: Option<bool>,
    /// When to fall back, if no supernode is heard over UDP before.
    fall_back_at: Option<Instant>,
    /// Who was dialled by TCP since Inits over UDP wait.
    tried: BTreeSet<PeerId>,
    /// When UDP is asked again, and how often it was.
    retry: Option<(Instant, usize)>,
}

impl Transports {
    /// When [`Node::on_transports_due`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let at = earliest(self.connections.poll_timeout(), self.fall_back_at);
        let at = earliest(at, self.retry.map(|(at, _)| at));
        self.dials.values().filter_map(|dial| dial.other_port_at).fold(at, |at, other| earliest(at, Some(other)))
    }
}

impl Node {
    /// Whether UDP gets through to supernodes; nothing while that is not known.
    pub(crate) fn udp_works(&self) -> Option<bool> {
        self.transports.udp_works
    }

    /// What carries packets on a route: to the peer, or to the relay.
    pub(crate) fn transport_of(&self, route: &Route) -> Transport {
        let is_tcp = match route {
            Route::Direct { socket, .. } => socket.is_tcp(),
            Route::Relayed { via, .. } => {
                self.peers.get(*via).and_then(|relay| relay.paths.current()).is_some_and(|leg| leg.is_tcp())
            }
        };
        if is_tcp { Transport::Tcp } else { Transport::Udp }
    }

    /// Supernodes are where TCP goes to; they do not open connections themselves.
    fn opens_tcp(&self) -> bool {
        !self.leaving && !self.is_serving()
    }

    // ---- what is heard, and what is not ----

    /// Something authentic came on `route`.
    pub(crate) fn transport_heard(&mut self, now: Instant, key: PeerKey, route: &Route) {
        let Route::Direct { socket, .. } = route else { return };
        if socket.is_tcp() {
            self.transports.connections.on_heard(*socket, key);
            return;
        }
        // Peers on the LAN say nothing of the way out.
        if self.peers.get(key).is_some_and(|p| p.wanted || p.traffic.is_none()) {
            self.transports.udp_heard = Some(now);
            self.transports.fall_back_at = None;
            if self.transports.udp_works.replace(true) == Some(false) {
                // Peers that were told that nothing would help are told otherwise.
                self.on_candidates_changed(now);
            }
        }
    }

    /// A handshake of ours that began at `since` has its Response, on `route`.
    pub(crate) fn transport_answered(&mut self, now: Instant, key: PeerKey, route: &Route, since: Instant) {
        self.transport_heard(now, key, route);
        if !route.is_tcp() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.paths.on_stand_in(route, since);
        }
        if self.transports.retry.is_none() {
            self.transports.retry = Some((now + RETRY_WAITS[0], 0));
        }
        let is_heard = self.transports.udp_heard.is_some_and(|at| at >= since);
        if !is_heard && self.transports.udp_works != Some(false) {
            self.transports.udp_works = Some(false);
            self.transports.fall_back_at = None;
            self.ask_udp_links(now, Some(key));
            self.fall_back(now);
            // Peers need not try what cannot work.
            self.on_candidates_changed(now);
        }
    }

    /// An Init left over UDP.
    pub(crate) fn transport_asked(&mut self, now: Instant) {
        if self.opens_tcp() && self.transports.fall_back_at.is_none() {
            self.transports.fall_back_at = Some(now + FALL_BACK_AFTER);
            self.transports.tried.clear();
        }
    }

    /// Another network: what was true of UDP may be so no longer.
    pub(crate) fn transport_network(&mut self, now: Instant) {
        self.transports.udp_works = None;
        if self.transports.retry.is_some() {
            self.transports.retry = Some((now, 0));
            self.retry_udp(now);
        }
    }

    /// Links to supernodes, but for one, are asked whether UDP still works for them; each watches for its answer by
    /// itself. Whether there are any.
    fn ask_udp_links(&mut self, now: Instant, but: Option<PeerKey>) -> bool {
        let is_asked =
            |p: &Peer| p.is_up() && p.wanted && p.paths.current().is_some_and(|r| r.is_direct() && !r.is_tcp());
        let links = self.peers.iter().filter(|(key, p)| Some(*key) != but && is_asked(p)).map(|(key, _)| key);
        let links: Vec<PeerKey> = links.collect();
        for key in &links {
            self.probe_current(now, *key);
        }
        !links.is_empty()
    }

    // ---- falling back ----

    /// Everything of this file that is due.
    pub(crate) fn on_transports_due(&mut self, now: Instant) {
        while let Some(socket) = self.transports.connections.pop_due(now) {
            self.look_at_connection(now, socket);
        }
        if self.transports.fall_back_at.is_some_and(|at| at <= now) {
            self.transports.fall_back_at = None;
            if !self.ask_udp_links(now, None) && self.fall_back(now) {
                self.transports.fall_back_at = Some(now + FALL_BACK_AFTER);
            }
        }
        let is_due = |dial: &Dial| dial.other_port_at.is_some_and(|at| at <= now);
        let due: Vec<SocketRequest> =
            self.transports.dials.iter().filter(|(_, dial)| is_due(dial)).map(|(request, _)| *request).collect();
        for request in due {
            self.try_other_port(request);
        }
        if self.transports.retry.is_some_and(|(at, _)| at <= now) {
            self.retry_udp(now);
        }
    }

    /// Dials by TCP some of those whose Inits over UDP are not answered; whether any wait.
    fn fall_back(&mut self, now: Instant) -> bool {
        let waiting: Vec<(PeerId, SocketAddr, Box<[u8]>)> = self
            .peers
            .iter()
            .filter(|(_, p)| !p.is_up())
            .filter_map(|(_, p)| {
                let udp = p.attempts.iter().find_map(|attempt| match attempt.route {
                    AttemptRoute::Direct(path) if !path.socket.is_tcp() => Some((path.remote, attempt.body.clone())),
                    _ => None,
                })?;
                Some((p.id, udp.0, udp.1))
            })
            .collect();
        for (peer, udp, body) in &waiting {
            if self.transports.dials.values().filter(|dial| dial.remote == dial.udp).count() >= PARALLEL_MAX {
                break;
            }
            if self.transports.tried.insert(*peer) {
                self.dial_tcp(now, *peer, *udp, body.clone());
            }
        }
        !waiting.is_empty()
    }

    /// A dial to a supernode where UDP is known not to work: by TCP at once. Whether that is all: on the LAN both are
    /// tried, since what does not get out may well get there.
    pub(crate) fn dial_blocked(&mut self, now: Instant, id: PeerId, udp: SocketAddr, body: &InitBody<'_>) -> bool {
        if !self.opens_tcp() || self.udp_works() != Some(false) {
            return false;
        }
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let Ok(body) = postcard::to_slice(body, &mut bytes) else { return false };
        self.dial_tcp(now, id, udp, (&*body).into()) && !Prefix::is_exempt(udp.ip())
    }

    /// A link to a supernode does not answer: TCP may.
    pub(crate) fn stand_in(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key).filter(|p| p.is_up()) else { return };
        let (id, current) = (peer.id, peer.paths.current());
        if !self.opens_tcp() || !self.is_supernode(&id) {
            return;
        }
        let Some(Route::Direct { socket, remote }) = current else { return };
        let udp =
            if socket.is_tcp() { self.transports.connections.get(socket).and_then(|c| c.udp) } else { Some(remote) };
        let Some(udp) = udp else { return };
        if socket.is_tcp() {
            self.challenge_udp(now, key, udp);
        }
        self.dial_tcp_again(now, id, udp);
    }

    fn dial_tcp_again(&mut self, now: Instant, id: PeerId, udp: SocketAddr) {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        if let Ok(body) = postcard::to_slice(&InitBody::Direct { early: None }, &mut bytes) {
            self.dial_tcp(now, id, udp, (&*body).into());
        }
    }

    /// Whether a connection to this peer is being opened.
    pub(crate) fn is_opening_tcp(&self, id: &PeerId) -> bool {
        self.transports.dials.values().any(|dial| dial.peer == *id)
    }

    /// Opens a connection to a supernode, with an Init of this body for it, unless that is under way already.
    fn dial_tcp(&mut self, now: Instant, peer: PeerId, udp: SocketAddr, body: Box<[u8]>) -> bool {
        // Over one that has carried the link it may be in vain: it may have died with the network that it went through.
        let is_bare = |socket| self.transports.connections.get(socket).is_some_and(|c| c.peer.is_none());
        let is_new = |a: &Attempt| matches!(a.route, AttemptRoute::Direct(path) if is_bare(path.socket));
        let is_asking = self.peers.by_id(&peer).is_some_and(|p| p.attempts.iter().any(is_new));
        let other_port_at = (udp.port() != PORT_443).then(|| now + PORT_443_AFTER);
        is_asking
            || self.is_opening_tcp(&peer)
            || self.open_tcp(Dial { peer, udp, remote: udp, body, since: now, other_port_at })
    }

    fn open_tcp(&mut self, dial: Dial) -> bool {
        if self.transports.dials.len() >= DIALS_MAX {
            return false;
        }
        let Some(request) = self.open_socket(Purpose::Connection, SocketKind::Tcp { remote: dial.remote }) else {
            return false;
        };
        self.transports.dials.insert(request, dial);
        true
    }

    /// The first port says nothing, or no: port 443. The dial goes on unless it has ended.
    fn try_other_port(&mut self, request: SocketRequest) {
        let Some(dial) = self.transports.dials.get_mut(&request) else { return };
        if dial.other_port_at.take().is_some() {
            let remote = SocketAddr::new(dial.udp.ip(), PORT_443);
            let other = Dial { remote, body: dial.body.clone(), ..*dial };
            self.open_tcp(other);
        }
    }

    // ---- connections ----

    /// io's answer to the wish for a connection.
    pub(crate) fn on_tcp_opened(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<SocketId, SocketRefused>,
    ) {
        let Ok(socket) = result else {
            self.try_other_port(request);
            if let Some(dial) = self.transports.dials.remove(&request) {
                self.on_tcp_failed(now, dial.peer);
            }
            return;
        };
        assert!(socket.is_tcp(), "connections have numbers of their own");
        let dial = self.transports.dials.remove(&request);
        let Some(dial) = dial.filter(|dial| !self.leaving && !self.is_heard_over_udp(dial)) else {
            self.events.push_back(Event::CloseSocket(socket));
            return;
        };
        self.transports.connections.add_dialled(now, socket, dial.remote, dial.udp);
        let path = Path { socket, remote: dial.remote, local: None };
        let key = self.ensure_peer(now, dial.peer);
        let body = postcard::from_bytes::<InitBody<'_>>(&dial.body);
        if let (Some(key), Ok(body)) = (key, body) {
            self.attempt(now, key, AttemptRoute::Direct(path), &body);
        }
    }

    /// Whether the link that a dial was for is there, and well, over UDP.
    fn is_heard_over_udp(&self, dial: &Dial) -> bool {
        let Some(peer) = self.peers.by_id(&dial.peer).filter(|p| p.is_up()) else { return false };
        let current = peer.paths.current().filter(|route| route.is_direct() && !route.is_tcp());
        current.and_then(|route| peer.paths.heard_at(&route)).is_some_and(|at| at >= dial.since)
    }

    /// A dial by TCP led nowhere.
    fn on_tcp_failed(&mut self, now: Instant, id: PeerId) {
        if self.is_opening_tcp(&id) {
            return;
        }
        if self.transports.fall_back_at.is_some() {
            self.fall_back(now);
        }
        let Some(key) = self.peers.key_of(&id) else { return };
        let Some(peer) = self.peers.get(key) else { return };
        let is_idle = peer.attempts.is_empty() && peer.pending.is_empty();
        if is_idle && !peer.is_up() {
            self.on_dial_failed(now, key);
        } else if is_idle && peer.paths.current().is_none() && peer.traffic.is_none() {
            // A link without a way to its peer; a user link has its call.
            self.drop_peer(now, key, StreamEnd::PeerGone);
        }
    }

    /// Somebody opened a connection to us.
    pub(crate) fn on_tcp_accepted(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        assert!(socket.is_tcp(), "connections have numbers of their own");
        let remote = crate::wire::address::canonical(remote);
        let is_open = !self.leaving && self.is_serving();
        let gone = if is_open { self.transports.connections.accept(now, socket, remote) } else { Some(socket) };
        if let Some(gone) = gone {
            self.counters.refused_connections += 1;
            self.end_connection(now, gone);
        }
    }

    /// We end a connection.
    fn end_connection(&mut self, now: Instant, socket: SocketId) {
        self.events.push_back(Event::CloseSocket(socket));
        self.on_tcp_closed(now, socket);
    }

    /// A connection is no more.
    pub(crate) fn on_tcp_closed(&mut self, now: Instant, socket: SocketId) {
        let Some(connection) = self.transports.connections.remove(socket) else { return };
        let route = connection.route(socket);
        if let Some(key) = connection.peer {
            self.remove_paths_of(now, key, |r| *r == route);
        }
        let Some(udp) = connection.udp else { return };
        // An Init that left on it gets no Response any more.
        let is_void = |a: &Attempt| matches!(a.route, AttemptRoute::Direct(path) if path.socket == socket);
        let opener = self.peers.iter().find(|(_, p)| p.attempts.iter().any(is_void)).map(|(key, _)| key);
        if let Some(key) = opener {
            self.peers.drop_attempts(key, is_void);
        }
        let Some(key) = connection.peer.or(opener) else { return };
        let Some(peer) = self.peers.get(key) else { return };
        let (id, is_stranded) = (peer.id, peer.is_up() && peer.paths.current().is_none());
        self.peers.touch(key);
        if is_stranded && self.opens_tcp() && now.since(connection.since) >= SOUND_AFTER {
            self.challenge_udp(now, key, udp);
            self.dial_tcp_again(now, id, udp);
        } else {
            self.on_tcp_failed(now, id);
        }
    }

    /// A connection has been there for a while: is it of use?
    fn look_at_connection(&mut self, now: Instant, socket: SocketId) {
        let Some(connection) = self.transports.connections.get(socket) else { return };
        let route = connection.route(socket);
        let peer = connection.peer.and_then(|key| self.peers.get(key)).filter(|p| p.is_up());
        let in_use = peer.is_some_and(|p| p.paths.current() == Some(route));
        let is_spare = !connection.was_idle && peer.is_some_and(|p| p.paths.is_proven(&route));
        if in_use || is_spare {
            self.transports.connections.look_again(now, socket, in_use);
        } else {
            self.end_connection(now, socket);
        }
    }

    // ---- back to UDP ----

    /// Asks supernodes that are linked over TCP whether they hear us over UDP.
    fn retry_udp(&mut self, now: Instant) {
        let links: Vec<(PeerKey, SocketAddr)> = self
            .transports
            .connections
            .iter()
            .filter_map(|(socket, c)| Some((c.peer?, c.udp?, c.route(socket))))
            .filter(|(key, _, route)| self.peers.get(*key).is_some_and(|p| p.paths.current() == Some(*route)))
            .map(|(key, udp, _)| (key, udp))
            .collect();
        let tries = self.transports.retry.map_or(0, |(_, tries)| tries) + 1;
        let wait = RETRY_WAITS[if tries < RETRY_WAITS.len() { tries } else { RETRY_WAITS.len() - 2 + tries % 2 }];
        self.transports.retry = (!links.is_empty()).then(|| (now + wait, tries));
        for (key, udp) in links {
            self.challenge_udp(now, key, udp);
        }
    }

    fn challenge_udp(&mut self, now: Instant, key: PeerKey, udp: SocketAddr) {
        let Some(socket) = self.socket_for(udp) else { return };
        let route = Route::Direct { socket, remote: udp };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.paths.add(now, route);
            self.challenge(now, key, route);
        }
    }
}
