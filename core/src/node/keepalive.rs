//! The node's keep-alive: it has the router's memory measured, keeps what came out per network, and sets the pace.
//!
//! A leaf that has a home and is behind something measures through that home: [`Lifetime`] says what to send, this file
//! gives it sockets and a link. What comes out sets the [`Pace`] of all beats and is kept for the network that the leaf
//! is in, so that coming back there costs nothing. It is checked daily, and measured anew when the home is heard to see
//! us elsewhere although our network is the same: then the router had forgotten us.
//!
//! Where supernodes see our own address, or one that is mapped to us, and packets come in that nobody asked for,
//! nothing forgets us and nothing is measured.

use crate::api::{BINDINGS_MAX, Event, Save, keep_binding};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Node;
use super::sockets::Purpose;
use crate::keepalive::{Do, Duty, Lifetime, Outcome, Pace};
use crate::net::{Family, Path, PeerKey, SocketId, SocketKind, SocketRequest};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::address::Prefix;

/// A home was found: the measurement waits until its link is at rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Our own address is seen, and a dial-back has yet to show whether packets come in: so long at most, so often.
const DIAL_BACK_WAIT: (Duration, u8) = (Duration::from_secs(10), 6);
/// What is known is looked at again after this, and as much again at random.
const CHECK_AFTER: Duration = Duration::from_secs(12 * 3_600);
/// Where no router is to be measured, this is looked at again: mappings come and go.
const OPEN_CHECK_AFTER: Duration = Duration::from_secs(3_600);
/// A measurement failed: the next one waits this long, and doubles it to a day.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// A router that forgets, or is restarted, more often than this is measured no sooner.
const MISS_EVERY: Duration = Duration::from_secs(600);

/// A measurement under way.
#[derive(Debug)]
struct Running {
    home: PeerKey,
    remote: SocketAddr,
    lifetime: Lifetime,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    pace: Pace,
    known: Option<Duration>,
    running: Option<Box<Running>>,
    due: Option<Instant>,
    waited: u8,
    failed: u8,
    /// When a measurement last began.
    began: Option<Instant>,
    /// By network, in milliseconds, the one used last at the end.
    bindings: Vec<([u8; 8], u32)>,
}

impl KeepAlive {
    pub(crate) fn new(bindings: &[([u8; 8], u32)]) -> Self {
        Self {
            pace: Pace::UNKNOWN,
            known: None,
            running: None,
            due: None,
            waited: 0,
            failed: 0,
            began: None,
            bindings: bindings[bindings.len().saturating_sub(BINDINGS_MAX)..].to_vec(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        crate::time::earliest(self.due, self.running.as_ref().and_then(|r| r.lifetime.poll_timeout()))
    }
}

impl Node {
    /// Sockets or interfaces changed: this may be another network.
    pub(crate) fn keepalive_on_network(&mut self, now: Instant) {
        self.stop_measuring(now);
        let keepalive = &mut self.keepalive;
        (keepalive.known, keepalive.began) = (None, None);
        (keepalive.waited, keepalive.failed) = (0, 0);
        keepalive.due = Some(now + SETTLE);
        self.set_pace(Pace::UNKNOWN);
    }

    /// A home took us.
    pub(crate) fn keepalive_on_home(&mut self, now: Instant) {
        let keepalive = &mut self.keepalive;
        if keepalive.due.is_none() && keepalive.running.is_none() {
            keepalive.due = Some(now + SETTLE);
        }
    }

    /// The router gave us another address, although our network is the same: it had forgotten us.
    pub(crate) fn keepalive_on_forgotten(&mut self, now: Instant) {
        let keepalive = &mut self.keepalive;
        if keepalive.pace == Pace::OPEN || keepalive.running.is_some() {
            return;
        }
        keepalive.known = None;
        keepalive.due = Some(keepalive.began.map_or(now, |began| began + MISS_EVERY).max(now + SETTLE));
        self.set_pace(Pace::UNKNOWN);
        if let Some(network) = self.network_id() {
            self.keepalive.bindings.retain(|(other, _)| *other != network);
        }
    }

    /// A home asks whether we are where a packet of ours came from: that was not where it knew us. A question of our own
    /// tells where that is.
    pub(crate) fn keepalive_on_challenge(&mut self, now: Instant, key: PeerKey, route: &Route) {
        let pace = self.keepalive.pace;
        let Some(peer) = self.peers.get(key) else { return };
        let is_home = peer.wanted && peer.traffic.is_none() && peer.duty == Duty::Binding;
        if is_home
            && pace != Pace::OPEN
            && peer.paths.current() == Some(*route)
            && peer.paths.wants_challenge(now, route)
        {
            self.challenge(now, key, *route);
        }
    }

    /// io opened a socket for the measurement.
    pub(crate) fn on_lifetime_socket(&mut self, now: Instant, request: SocketRequest, socket: SocketId) {
        let is_wanted = self.keepalive.running.as_mut().is_some_and(|r| r.lifetime.on_socket(now, request, socket));
        if !is_wanted {
            self.close_socket(now, socket);
        }
        self.run_measurement(now);
    }

    /// A probe was answered, perhaps one of these.
    pub(crate) fn on_lifetime_reply(&mut self, now: Instant, key: PeerKey, socket: SocketId, token: [u8; 8]) -> bool {
        let running = self.keepalive.running.as_mut().filter(|r| r.home == key);
        let is_ours = running.is_some_and(|r| r.lifetime.on_reply(now, socket, token));
        if is_ours {
            self.run_measurement(now);
        }
        is_ours
    }

    pub(crate) fn keepalive_timeout(&mut self, now: Instant) {
        if self.keepalive.due.is_some_and(|due| due <= now) {
            self.keepalive.due = None;
            self.begin_measuring(now);
        }
        if let Some(running) = &mut self.keepalive.running
            && running.lifetime.poll_timeout().is_some_and(|at| at <= now)
        {
            running.lifetime.handle_timeout(now);
            self.run_measurement(now);
        }
    }

    // ---- measuring ----

    /// The time has come to measure, or to check, if there is something to measure and somebody to help.
    fn begin_measuring(&mut self, now: Instant) {
        if self.leaving || self.keepalive.running.is_some() || self.is_serving() {
            return;
        }
        // The next home that takes us begins it otherwise.
        let Some((home, socket, remote)) = self.measuring_home() else { return };
        let Some(seen) = self.seen_by(home, remote, socket) else {
            // Others told since, and so many are not remembered. A question tells.
            self.challenge(now, home, Route::Direct { socket, remote });
            self.keepalive.due = Some(now + SETTLE);
            return;
        };
        let is_at_home = self.is_own_address(socket, seen);
        if is_at_home && self.reachable() == Some(true) {
            self.keepalive.known = None;
            self.keepalive.due = Some(now + OPEN_CHECK_AFTER);
            return self.set_pace(Pace::OPEN);
        }
        if is_at_home && self.reachable().is_none() && self.keepalive.waited < DIAL_BACK_WAIT.1 {
            self.keepalive.waited += 1;
            self.keepalive.due = Some(now + DIAL_BACK_WAIT.0);
            return;
        }
        if self.keepalive.pace == Pace::OPEN {
            self.set_pace(Pace::UNKNOWN);
        }
        let kept = self.network_id().and_then(|id| self.keepalive.bindings.iter().find(|(other, _)| *other == id));
        let lifetime = match (self.keepalive.known, kept) {
            (None, Some((_, kept_ms))) => {
                let kept = Duration::from_millis((*kept_ms).into());
                self.keepalive.known = Some(kept);
                self.set_pace(Pace::for_lifetime(kept));
                return self.check_later(now);
            }
            (Some(known), _) => Lifetime::check(known),
            (None, None) => Lifetime::new(),
        };
        self.keepalive.began = Some(now);
        self.keepalive.running = Some(Box::new(Running { home, remote, lifetime }));
        self.run_measurement(now);
    }

    fn check_later(&mut self, now: Instant) {
        self.keepalive.due = Some(now + CHECK_AFTER + self.rng.keepalive_jitter.jitter(CHECK_AFTER));
    }

    /// A home with a direct link over the main socket.
    fn measuring_home(&self) -> Option<(PeerKey, SocketId, SocketAddr)> {
        let is_main = |socket| self.network.sockets.iter().any(|(main, _)| *main == socket);
        self.direct_homes().find(|(_, socket, _)| is_main(*socket))
    }

    /// Does what the measurement wants, and takes what came out.
    fn run_measurement(&mut self, now: Instant) {
        let is_serving = self.is_serving();
        if self.keepalive.running.as_ref().is_some_and(|r| is_serving || !self.peers.is_up(r.home)) {
            // Another home goes on, if there is one.
            self.stop_measuring(now);
            self.keepalive.due = Some(now + SETTLE);
            return;
        }
        let Some(mut running) = self.keepalive.running.take() else { return };
        loop {
            // Unguessable: an answer made up would lengthen the interval.
            let next = running.lifetime.poll(now, || self.rng.keepalive.bytes());
            match next {
                None => break,
                Some(Do::Open) => {
                    let kind = SocketKind::Udp(Family::of(&running.remote));
                    let request = self.open_socket(Purpose::Lifetime, kind);
                    running.lifetime.on_asked(now, request);
                }
                Some(Do::Probe { socket, token, delay }) => {
                    let from = Path { socket, remote: running.remote, local: None };
                    self.send_probe(now, running.home, from, token, delay, false);
                }
                Some(Do::Close(socket)) => self.close_socket(now, socket),
            }
        }
        match running.lifetime.outcome() {
            None => {
                // While a known value is checked it goes on to hold.
                if self.keepalive.known.is_none()
                    && let Some(at_least) = running.lifetime.at_least()
                {
                    self.set_pace(Pace::at_least(at_least));
                }
                self.keepalive.running = Some(running);
            }
            Some(Outcome::Known(lifetime)) => {
                (self.keepalive.known, self.keepalive.failed) = (Some(lifetime), 0);
                self.set_pace(Pace::for_lifetime(lifetime));
                if let Some(network) = self.network_id() {
                    let lifetime_ms = u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX);
                    keep_binding(&mut self.keepalive.bindings, network, lifetime_ms);
                    self.events.push_back(Event::Save(Save::Binding { network, lifetime_ms }));
                }
                self.check_later(now);
            }
            Some(Outcome::Failed) => {
                // What was hit is certain, and holds until more is known.
                let wait = RETRY_AFTER * (1 << self.keepalive.failed.min(7));
                self.keepalive.failed = self.keepalive.failed.saturating_add(1);
                self.keepalive.due = Some(now + wait + self.rng.keepalive_jitter.jitter(wait / 2));
            }
        }
    }

    fn stop_measuring(&mut self, now: Instant) {
        if let Some(mut running) = self.keepalive.running.take() {
            running.lifetime.abort();
            while let Some(next) = running.lifetime.poll(now, || [0; 8]) {
                if let Do::Close(socket) = next {
                    self.close_socket(now, socket);
                }
            }
        }
    }

    /// All links on which beats leave are looked at anew.
    fn set_pace(&mut self, pace: Pace) {
        self.keepalive.pace = pace;
        self.peers.set_pace(pace);
    }

    // ---- which network this is ----

    /// Whether this address, where a home sees us, is our own, or at one that our router maps to us.
    fn is_own_address(&self, socket: SocketId, seen: SocketAddr) -> bool {
        let is_port = |bound: &SocketAddr| bound.port() == seen.port();
        let is_bound = self.network.sockets.iter().any(|(s, bound)| *s == socket && is_port(bound));
        (is_bound && self.network.interfaces.contains(&seen.ip()))
            || self.network.mappings.iter().any(|m| m.socket == socket && m.external == seen)
    }

    fn seen_by(&self, home: PeerKey, remote: SocketAddr, socket: SocketId) -> Option<SocketAddr> {
        self.seen_from(&self.peers.get(home)?.id, remote, socket)
    }

    /// Names the network that we are in: by the prefix that a home sees us in, and those of our interfaces. A hash,
    /// since the list of networks that somebody was in is nobody's business.
    fn network_id(&self) -> Option<[u8; 8]> {
        let (home, socket, remote) = self.measuring_home()?;
        let seen = self.seen_by(home, remote, socket)?;
        let mut inside: Vec<Prefix> = self
            .network
            .interfaces
            .iter()
            .filter(|ip: &&IpAddr| !ip.is_loopback() && ip.is_ipv4() == seen.is_ipv4())
            .map(|ip| Prefix::of(*ip))
            .collect();
        inside.sort_unstable();
        inside.dedup();
        let mut hash = blake3::Hasher::new_derive_key("handfast v1 network");
        for prefix in [Prefix::of(seen.ip())].iter().chain(&inside) {
            match prefix {
                Prefix::V4(bytes) => hash.update(&[4]).update(bytes),
                Prefix::V6(bytes) => hash.update(&[6]).update(bytes),
            };
        }
        hash.finalize().as_bytes().first_chunk().copied()
    }
}

/// What `status` tells of it.
impl Node {
    pub(crate) fn binding_lifetime(&self) -> Option<Duration> {
        self.keepalive.known.filter(|_| self.peers.own_duty() == Duty::Binding)
    }

    pub(crate) fn keepalive_interval(&self) -> Duration {
        let interval = self.keepalive.pace.interval().filter(|_| self.peers.own_duty() == Duty::Binding);
        interval.unwrap_or(crate::keepalive::PROOF_AGE_MAX)
    }
}
