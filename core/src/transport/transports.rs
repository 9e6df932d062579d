//! Where UDP does not work: links over TCP, when they stand in, and how UDP comes back.
//!
//! Some networks let no UDP out. Supernodes therefore take TCP connections at the port number of their UDP socket, and
//! some at 443 as well; a connection carries the same packets in [frames](crate::wire::frame), and to a link it is a
//! path like any other. Only leaves open connections, and only to supernodes.
//!
//! A leaf falls back in two ways. *Starting*: Inits over UDP stay without any answer for [`FALL_BACK_AFTER`]; then it
//! dials supernodes by TCP, [`PARALLEL_MAX`] at a time ([`Transports::on_asked`]). *Running*: a link to a supernode
//! falls silent; then a connection to it is opened beside ([`Transports::on_silent`]), an Init goes over it, and if UDP
//! is still silent when the Response comes, the link moves there. Where the port of UDP does not answer within
//! [`PORT_443_AFTER`], 443 is tried too.
//!
//! Once a Response came by TCP while UDP had said nothing, UDP counts as blocked ([`Transports::udp_works`]): new dials
//! go by TCP at once, other links are asked whether they still work, and no connectivity checks are sent beyond the
//! LAN. UDP is asked again at [`RETRY_WAITS`], and whenever the network changes, by a Challenge to each supernode that
//! is linked over TCP. Its answer proves the path over UDP, which is then chosen as the better one; the connection ends
//! when it has not been used for a while (`connections.rs`).
//!
//! # From outside
//!
//! It is told what io says of connections, what is heard and what stays silent; of links it is shown what a call is
//! about, and where it must look at all of them it asks for that ([`Output::Survey`]) and goes on with the answer.
//! After each call [`Transports::take_outputs`] has what is to be done. Handshakes, paths and packets are others'
//! business, and whether somebody is a supernode it is told.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::connections::Connections;
use super::output::{Link, Lost, Output, Survey, Tried, Use, Why};
use super::sockets::{ExtraSockets, Purpose};
use crate::identity::PeerId;
use crate::net::{Network, Path, PeerKey, SocketId, SocketRefused, SocketRequest};
use crate::path::Route;
use crate::time::{Instant, earliest};
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::{Prefix, canonical};
use crate::wire::message::InitBody;

/// Inits over UDP wait so long for the first answer from anybody before TCP is tried: a second Init left 1 s before.
pub(super) const FALL_BACK_AFTER: Duration = Duration::from_millis(1_500);
/// Supernodes dialled by TCP at a time while falling back.
pub(super) const PARALLEL_MAX: usize = 2;
/// Most connections being opened. At the limit none is.
pub(super) const DIALS_MAX: usize = 8;
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
/// A connection that broke is opened again at once only if it had lived so long; otherwise the supernode counts as
/// gone.
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

/// TCP in UDP's place: whether UDP works, the connections there are, and those being opened.
#[derive(Debug, Default)]
pub(crate) struct Transports {
    /// The main sockets, and the addresses around them.
    pub(super) network: Network,
    /// Those beside them.
    pub(super) sockets: ExtraSockets,
    connections: Connections,
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
    is_serving: bool,
    is_leaving: bool,
    outputs: Vec<Output>,
}

impl Transports {
    // ---- what it is ----

    /// Whether UDP gets through to supernodes; nothing while that is not known.
    pub(crate) fn udp_works(&self) -> Option<bool> {
        self.udp_works
    }

    /// Whether a connection to this peer is being opened.
    pub(crate) fn is_opening(&self, peer: &PeerId) -> bool {
        self.dials.values().any(|dial| dial.peer == *peer)
    }

    /// Whom a connection that is being opened is for.
    pub(crate) fn dialled(&self, request: SocketRequest) -> Option<PeerId> {
        self.dials.get(&request).map(|dial| dial.peer)
    }

    /// Connections that links came through: which, whose, and the path that it is.
    pub(crate) fn in_links(&self) -> impl Iterator<Item = (SocketId, PeerKey, Route)> {
        self.connections.iter().filter_map(|(socket, c)| Some((socket, c.peer?, c.route(socket))))
    }

    /// Supernodes are where TCP goes to; they do not open connections themselves.
    fn opens(&self) -> bool {
        !self.is_leaving && !self.is_serving
    }

    // ---- what becomes of us ----

    /// Whether we serve others.
    pub(crate) fn set_serving(&mut self, is_serving: bool) {
        self.is_serving = is_serving;
    }

    /// Nothing is opened any more.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
        self.sockets.leave();
    }

    /// Another network: what was true of UDP may be so no longer.
    pub(crate) fn on_network(&mut self) {
        self.udp_works = None;
        if self.retry.take().is_some() {
            self.outputs.push(Output::Survey(Why::Retry(0)));
        }
    }

    // ---- what is heard, and what is not ----

    /// Something authentic came on `route`. `is_outside`: what this peer is heard by shows the way out; those on the
    /// LAN say nothing of it.
    pub(crate) fn on_heard(&mut self, now: Instant, key: PeerKey, route: &Route, is_outside: bool) {
        let Route::Direct { socket, .. } = route else { return };
        if socket.is_tcp() {
            self.connections.on_heard(*socket, key);
        } else if is_outside {
            self.udp_heard = Some(now);
            self.fall_back_at = None;
            if self.udp_works.replace(true) == Some(false) {
                // Peers that were told that nothing would help are told otherwise.
                self.outputs.push(Output::TellCandidates);
            }
        }
    }

    /// A handshake of ours that began at `since` has its Response, on `route`.
    pub(crate) fn on_answered(&mut self, now: Instant, key: PeerKey, route: &Route, since: Instant, is_outside: bool) {
        self.on_heard(now, key, route, is_outside);
        if !route.is_tcp() {
            return;
        }
        self.outputs.push(Output::StandIn { peer: key, route: *route, since });
        self.retry.get_or_insert((now + RETRY_WAITS[0], 0));
        let is_heard = self.udp_heard.is_some_and(|at| at >= since);
        if !is_heard && self.udp_works != Some(false) {
            self.udp_works = Some(false);
            self.fall_back_at = None;
            self.outputs.push(Output::Survey(Why::Blocked(key)));
        }
    }

    /// An Init left over UDP.
    pub(crate) fn on_asked(&mut self, now: Instant) {
        if self.opens() && self.fall_back_at.is_none() {
            self.fall_back_at = Some(now + FALL_BACK_AFTER);
            self.tried.clear();
        }
    }

    /// A link does not answer: if it is to a supernode, TCP may.
    pub(crate) fn on_silent(&mut self, now: Instant, link: &Link) {
        let is_for_tcp = link.is_supernode && link.is_up && self.opens();
        let Some(Route::Direct { socket, remote }) = link.current.filter(|_| is_for_tcp) else { return };
        let udp = if socket.is_tcp() { self.connections.get(socket).and_then(|c| c.udp) } else { Some(remote) };
        let Some(udp) = udp else { return };
        if socket.is_tcp() {
            self.outputs.push(Output::ChallengeUdp { peer: link.key, udp });
        }
        self.dial_again(now, link, udp);
    }

    // ---- time ----

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let at = earliest(self.connections.poll_timeout(), self.fall_back_at);
        let at = earliest(at, self.retry.map(|(at, _)| at));
        self.dials.values().filter_map(|dial| dial.other_port_at).fold(at, |at, other| earliest(at, Some(other)))
    }

    /// Does one thing that is due, and says whether there was any: what it wants may make another one needless.
    #[must_use]
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if let Some(socket) = self.connections.pop_due(now) {
            self.look_at(socket);
        } else if self.fall_back_at.take_if(|at| *at <= now).is_some() {
            self.outputs.push(Output::Survey(Why::Silent));
        } else if let Some(request) = self.other_port_due(now) {
            self.try_other_port(request);
        } else if let Some((_, tries)) = self.retry.take_if(|(at, _)| *at <= now) {
            self.outputs.push(Output::Survey(Why::Retry(tries)));
        } else {
            return false;
        }
        true
    }

    // ---- outputs ----

    /// What is to be done after a call, in this order. What a call within wants is carried out whole before the rest.
    #[must_use]
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.outputs)
    }

    /// How the links stand, which was asked for.
    pub(crate) fn on_survey(&mut self, now: Instant, why: Why, survey: &Survey) {
        match why {
            Why::Blocked(key) => {
                let others = survey.over_udp.iter().filter(|other| **other != key);
                self.outputs.extend(others.map(|other| Output::Probe(*other)));
                self.fall_back(now, survey);
                // Peers need not try what cannot work.
                self.outputs.push(Output::TellCandidates);
            }
            // Each link that there is watches for its answer by itself.
            Why::Silent if !survey.over_udp.is_empty() => {
                self.outputs.extend(survey.over_udp.iter().map(|key| Output::Probe(*key)));
            }
            Why::Silent => {
                self.fall_back(now, survey);
                if !survey.waiting.is_empty() {
                    self.fall_back_at = Some(now + FALL_BACK_AFTER);
                }
            }
            Why::Failed => self.fall_back(now, survey),
            Why::Retry(tries) => self.retry_udp(now, tries + 1, survey),
        }
    }

    /// Dials by TCP some of those whose Inits over UDP are not answered.
    fn fall_back(&mut self, now: Instant, survey: &Survey) {
        for waiting in &survey.waiting {
            if self.dials.values().filter(|dial| dial.remote == dial.udp).count() >= PARALLEL_MAX {
                break;
            }
            if self.tried.insert(waiting.peer) {
                self.dial(now, waiting.peer, waiting.udp, &waiting.asking, waiting.body.clone());
            }
        }
    }

    /// Asks supernodes that are linked over TCP whether they hear us over UDP.
    fn retry_udp(&mut self, now: Instant, tries: usize, survey: &Survey) {
        let wait = RETRY_WAITS[if tries < RETRY_WAITS.len() { tries } else { RETRY_WAITS.len() - 2 + tries % 2 }];
        let in_use = self.connections.iter().filter(|(socket, _)| survey.in_use.contains(socket));
        let asked = in_use.filter_map(|(_, c)| Some(Output::ChallengeUdp { peer: c.peer?, udp: c.udp? }));
        let asked: Vec<Output> = asked.collect();
        self.retry = (!asked.is_empty()).then(|| (now + wait, tries));
        self.outputs.extend(asked);
    }

    // ---- opening ----

    /// A dial to a supernode where UDP is known not to work: by TCP at once. Whether that is all: on the LAN both are
    /// tried, since what does not get out may well get there.
    pub(crate) fn dial_blocked(
        &mut self,
        now: Instant,
        (peer, udp): (PeerId, SocketAddr),
        asking: &[SocketId],
        body: &InitBody<'_>,
    ) -> bool {
        if !self.opens() || self.udp_works != Some(false) {
            return false;
        }
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let Ok(body) = postcard::to_slice(body, &mut bytes) else { return false };
        self.dial(now, peer, udp, asking, (&*body).into()) && !Prefix::is_exempt(udp.ip())
    }

    fn dial_again(&mut self, now: Instant, link: &Link, udp: SocketAddr) {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        if let Ok(body) = postcard::to_slice(&InitBody::Direct { early: None }, &mut bytes) {
            self.dial(now, link.peer, udp, &link.asking, (&*body).into());
        }
    }

    /// Opens a connection to a supernode, with an Init of this body for it, unless that is under way already: `asking`
    /// has the sockets of Inits to it. Whether one is on its way.
    fn dial(&mut self, now: Instant, peer: PeerId, udp: SocketAddr, asking: &[SocketId], body: Box<[u8]>) -> bool {
        // Over one that has carried the link it may be in vain: it may have died with the network that it went through.
        let is_bare = |socket: &SocketId| self.connections.get(*socket).is_some_and(|c| c.peer.is_none());
        let other_port_at = (udp.port() != PORT_443).then(|| now + PORT_443_AFTER);
        asking.iter().any(is_bare)
            || self.is_opening(&peer)
            || self.open(Dial { peer, udp, remote: udp, body, since: now, other_port_at })
    }

    fn open(&mut self, dial: Dial) -> bool {
        if self.dials.len() >= DIALS_MAX {
            return false;
        }
        let Some(request) = self.sockets.ask(Purpose::Connection) else { return false };
        self.outputs.push(Output::Open { request, remote: dial.remote });
        self.dials.insert(request, dial);
        true
    }

    fn other_port_due(&self, now: Instant) -> Option<SocketRequest> {
        let is_due = |dial: &Dial| dial.other_port_at.is_some_and(|at| at <= now);
        self.dials.iter().find(|(_, dial)| is_due(dial)).map(|(request, _)| *request)
    }

    /// The first port says nothing, or no: port 443. The dial goes on unless it has ended.
    fn try_other_port(&mut self, request: SocketRequest) {
        let Some(dial) = self.dials.get_mut(&request) else { return };
        if dial.other_port_at.take().is_some() {
            let remote = SocketAddr::new(dial.udp.ip(), PORT_443);
            let other = Dial { remote, body: dial.body.clone(), ..*dial };
            self.open(other);
        }
    }

    /// io's answer to the request for a connection. `heard`: when the peer that it is for was last heard over UDP, if
    /// that is the path in use of its link.
    pub(crate) fn on_opened(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<SocketId, SocketRefused>,
        heard: Option<Instant>,
    ) {
        let Ok(socket) = result else {
            self.try_other_port(request);
            if let Some(dial) = self.dials.remove(&request) {
                self.failed(dial.peer);
            }
            return;
        };
        assert!(socket.is_tcp(), "connections have numbers of their own");
        let dial = self.dials.remove(&request);
        // The link that it was for may be there, and well, over UDP.
        let is_wanted = |dial: &Dial| !self.is_leaving && heard.is_none_or(|at| at < dial.since);
        let Some(dial) = dial.filter(is_wanted) else {
            self.outputs.push(Output::Close(socket));
            return;
        };
        self.connections.add_dialled(now, socket, dial.remote, dial.udp);
        let path = Path { socket, remote: dial.remote, local: None };
        self.outputs.push(Output::Attempt { peer: dial.peer, path, body: dial.body });
    }

    /// A dial by TCP led nowhere.
    fn failed(&mut self, peer: PeerId) {
        if self.is_opening(&peer) {
            return;
        }
        if self.fall_back_at.is_some() {
            self.outputs.push(Output::Survey(Why::Failed));
        }
        self.outputs.push(Output::GiveUp(peer));
    }

    /// It is known now how the peer stands that was [given up](Output::GiveUp).
    pub(crate) fn on_given_up(&mut self, tried: &Tried) {
        if !tried.is_up {
            self.outputs.push(Output::Unreachable(tried.key));
        } else if tried.is_stranded {
            self.outputs.push(Output::Drop(tried.key));
        }
    }

    // ---- connections ----

    /// Somebody opened a connection to us.
    pub(crate) fn on_accepted(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        assert!(socket.is_tcp(), "connections have numbers of their own");
        let is_open = !self.is_leaving && self.is_serving;
        let gone = if is_open { self.connections.accept(now, socket, canonical(remote)) } else { Some(socket) };
        if let Some(gone) = gone {
            self.outputs.push(Output::Refuse(gone));
            self.on_closed(gone);
        }
    }

    /// A connection is no more.
    pub(crate) fn on_closed(&mut self, socket: SocketId) {
        let Some(connection) = self.connections.remove(socket) else { return };
        if let Some(peer) = connection.peer {
            self.outputs.push(Output::RemovePath { peer, route: connection.route(socket) });
        }
        if let Some(udp) = connection.udp {
            let lost = Lost { socket, peer: connection.peer, udp, since: connection.since };
            self.outputs.push(Output::Abandon(lost));
        }
    }

    /// The link that a lost connection was for, as it stands without.
    pub(crate) fn on_abandoned(&mut self, now: Instant, lost: &Lost, link: &Link) {
        let is_stranded = link.is_up && link.current.is_none();
        if is_stranded && self.opens() && now.since(lost.since) >= SOUND_AFTER {
            self.outputs.push(Output::ChallengeUdp { peer: link.key, udp: lost.udp });
            self.dial_again(now, link, lost.udp);
        } else {
            self.failed(link.peer);
        }
    }

    /// A connection has been there for a while: is it of use?
    fn look_at(&mut self, socket: SocketId) {
        let Some(connection) = self.connections.get(socket) else { return };
        match connection.peer {
            Some(peer) => self.outputs.push(Output::Look { socket, peer, route: connection.route(socket) }),
            None => self.end(socket),
        }
    }

    /// That was asked, and is answered.
    pub(crate) fn on_looked_at(&mut self, now: Instant, socket: SocketId, used: Use) {
        let Some(connection) = self.connections.get(socket) else { return };
        let is_kept = used == Use::Current || (used == Use::Spare && !connection.was_idle);
        if is_kept {
            self.connections.look_again(now, socket, used == Use::Current);
        } else {
            self.end(socket);
        }
    }

    /// We end a connection.
    fn end(&mut self, socket: SocketId) {
        self.outputs.push(Output::Close(socket));
        self.on_closed(socket);
    }

    /// How many connections there are and how many are being opened.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.connections.iter().count(), self.dials.len())
    }
}
