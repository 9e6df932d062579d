//! From relayed to direct, and back: candidates, connectivity checks and retries of user links.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Node;
use crate::account::Exposure;
use crate::net::{Path, PeerKey};
use crate::path::Route;
use crate::peer::Standing;
use crate::time::Instant;
use crate::traverse::{self, Checks, Strategy};
use crate::wire::address::{CandidateKind, Prefix, is_sendable};
use crate::wire::message::{Message, Whereabouts};

/// How long after the n-th failure a relayed link tries to become direct again.
pub(crate) fn retry_wait(tries: u32) -> Duration {
    const WAITS: [u64; 6] = [4, 12, 30, 60, 120, 300];
    Duration::from_secs(WAITS[(tries as usize).min(WAITS.len() - 1)])
}

/// Addresses behind our own router are tried from outside only when the way inside has not worked for so long.
const HAIRPIN_AFTER: Duration = Duration::from_millis(200);

/// What a candidate costs, cheapest first; the router's strategy concerns those from [`Cost::Reflexive`] on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cost {
    Host,
    Ipv6,
    Mapped,
    Reflexive,
    /// On our own external address.
    Hairpin,
}

impl Cost {
    fn of(kind: CandidateKind, address: SocketAddr, own: &[IpAddr]) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            _ if address.is_ipv6() => Self::Ipv6,
            _ if own.contains(&address.ip()) => Self::Hairpin,
            CandidateKind::Mapped => Self::Mapped,
            CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => Self::Reflexive,
        }
    }
}

impl Node {
    /// Where peers may try to reach us, and what that takes, for the given attempt.
    pub(crate) fn whereabouts(&self, attempt: u8) -> Whereabouts {
        Whereabouts { nat: self.nat_profile(), attempt, candidates: traverse::gather(&self.network, &self.reflexive()) }
    }

    /// The main socket of the address's family.
    pub(crate) fn socket_for(&self, remote: SocketAddr) -> Option<crate::net::SocketId> {
        self.network.sockets.iter().find(|(_, bound)| bound.is_ipv4() == remote.is_ipv4()).map(|(socket, _)| *socket)
    }

    /// The peer told us where it is.
    pub(crate) fn on_whereabouts(&mut self, now: Instant, key: PeerKey, whereabouts: Whereabouts) {
        let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) else { return };
        if whereabouts.candidates.is_empty() {
            return;
        }
        traffic.attempt = traffic.attempt.max(whereabouts.attempt);
        traffic.whereabouts = whereabouts;
        if traffic.standing == Standing::Accepted {
            self.start_checks(now, key);
        }
    }

    /// The peer told us where it is and asks the same.
    pub(crate) fn on_upgrade(&mut self, now: Instant, key: PeerKey, whereabouts: Whereabouts) {
        let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) else { return };
        if traffic.standing == Standing::Accepted {
            traffic.told = true;
            let mine = self.whereabouts(whereabouts.attempt);
            self.peers.send(key, &Message::Candidates(mine));
        }
        self.on_whereabouts(now, key, whereabouts);
    }

    /// Offers our candidates and asks for the peer's; checks start on both sides.
    pub(crate) fn upgrade(&mut self, now: Instant, key: PeerKey) {
        let Some(traffic) = self.peers.get_mut(key).filter(|p| p.is_up()).and_then(|p| p.traffic.as_mut()) else {
            return;
        };
        if traffic.standing != Standing::Accepted {
            return;
        }
        traffic.told = true;
        let tries = traffic.retry.map_or(0, |(_, tries)| u8::try_from(tries).unwrap_or(u8::MAX));
        traffic.attempt = traffic.attempt.max(tries);
        let attempt = traffic.attempt;
        let mine = self.whereabouts(attempt);
        self.peers.send(key, &Message::Upgrade(mine));
        self.start_checks(now, key);
    }

    /// A service took the peer in.
    pub(crate) fn accept_peer(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let direct = peer.paths.has_direct();
        let Some(traffic) = peer.traffic.as_mut() else { return };
        if traffic.standing != Standing::Accepted {
            traffic.standing = Standing::Accepted;
            if !direct {
                self.upgrade(now, key);
            }
        }
    }

    /// Starts a check list over the peer's candidates, unless a direct path works.
    pub(crate) fn start_checks(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.paths.current().is_some_and(|r| r.is_direct()) && peer.paths.has_direct() {
            return;
        }
        let Some(traffic) = &peer.traffic else { return };
        let reflexive_too = self.strategy_of(key).is_none_or(|strategy| strategy.checks_reflexive());
        let own: Vec<IpAddr> = self.reflexive().iter().map(SocketAddr::ip).collect();
        let candidates = traffic.whereabouts.candidates.iter().map(|c| (c.kind, SocketAddr::from(c.address)));
        let mut known: Vec<(Cost, SocketAddr)> = candidates
            .map(|(kind, addr)| (Cost::of(kind, addr, &own), addr))
            .filter(|(cost, _)| reflexive_too || *cost < Cost::Reflexive)
            .collect();
        // Where the peer was before may work again.
        known.extend(peer.paths.proven().filter_map(|route| match route {
            Route::Direct { remote, socket } => (!socket.is_tcp()).then_some((Cost::Reflexive, remote)),
            Route::Relayed { .. } => None,
        }));
        // Where UDP does not get out, the LAN is all that there is to try.
        let is_blocked = self.udp_works() == Some(false);
        known.retain(|(_, addr)| !is_blocked || Prefix::is_exempt(addr.ip()));
        known.retain(|(_, addr)| is_sendable(*addr) && self.socket_for(*addr).is_some() && !self.is_own(*addr));
        known.sort_unstable();
        let running = traffic.checks.clone().filter(|checks| checks.is_young(now));
        if let Some(checks) = &running {
            known.retain(|(_, addr)| !checks.contains(*addr));
        }
        let granted = self.account.take_attempts(now, known.iter().map(|(_, addr)| *addr));
        let mut checks = running.unwrap_or_else(|| Checks::new(now));
        for (cost, remote) in known.into_iter().filter(|(_, addr)| granted.contains(addr)) {
            let start = if cost == Cost::Hairpin { now + HAIRPIN_AFTER } else { now };
            checks.add(start, remote, self.rng.traverse.bytes());
        }
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.checks = Some(checks);
        }
        self.run_checks(now, key);
        self.start_effort(now, key);
    }

    /// Whether an address is one of this node's own sockets.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.network.sockets.iter().any(|(_, bound)| {
            bound.port() == address.port()
                && (bound.ip() == address.ip()
                    || (bound.ip().is_unspecified() && self.network.interfaces.contains(&address.ip())))
        })
    }

    /// Sends the checks that are due.
    pub(crate) fn run_checks(&mut self, now: Instant, key: PeerKey) {
        self.peers.touch(key);
        loop {
            let Some(peer) = self.peers.get_mut(key) else { return };
            let direct = peer.paths.has_direct();
            let Some(traffic) = peer.traffic.as_mut() else { return };
            let Some(checks) = traffic.checks.as_mut() else { return };
            if direct || checks.is_over(now) {
                traffic.checks = None;
                return;
            }
            let Some((remote, token)) = checks.pop_due(now, &mut traffic.exposure) else { return };
            let Some(socket) = self.socket_for(remote) else { continue };
            if self.is_attested(now, key, remote.ip()) || self.account.unasked(now, remote) {
                let route = Route::Direct { socket, remote };
                self.peers.send_on(key, Some(route), &Message::sample(token, Some(remote)), false);
            }
        }
    }

    /// A challenge came: it is answered on the path it came on.
    pub(crate) fn on_challenge(&mut self, now: Instant, key: PeerKey, route: Route, token: [u8; 8], room: usize) {
        if self.peers.queued() >= crate::peer::ANSWERS_MAX {
            return;
        }
        let seen = match route {
            Route::Direct { remote, .. } => Some(remote),
            Route::Relayed { .. } => None,
        };
        let proven = self.peers.get(key).is_some_and(|p| p.paths.is_proven(&route));
        if !proven && let Some(remote) = seen {
            // What the answer takes; the challenge that we send beside it is unasked, and counted as such.
            let needed = if remote.is_ipv4() { 7 } else { 19 };
            if room < needed || !self.account.answer(now, remote, 42) {
                return;
            }
        }
        self.peers.send_on(key, Some(route), &Message::ChallengeReply { token, seen: seen.map(Into::into) }, false);
        self.keepalive_on_challenge(now, key, &route);
    }

    /// A challenge of ours was answered on `route`.
    pub(crate) fn on_challenge_reply(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: Route,
        token: [u8; 8],
        seen: Option<SocketAddr>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut rtt = peer.paths.on_reply(now, &route, token);
        if rtt.is_none()
            && let Route::Direct { remote, .. } = route
            && let Some(checks) = peer.traffic.as_mut().and_then(|t| t.checks.as_mut())
            && let Some(sample) = checks.on_reply(now, remote, token)
        {
            peer.paths.on_check_answered(now, route, sample);
            rtt = Some(sample);
        }
        if rtt.is_none()
            && let Some(sample) = peer.traffic.as_mut().and_then(|t| t.quality.on_reply(now, &route, token))
        {
            peer.paths.on_check_answered(now, route, sample);
            rtt = Some(sample);
        }
        if rtt.is_some() {
            if let Route::Direct { remote, socket } = route {
                self.account.proven(remote);
                if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
                    traffic.exposure.attest(now, remote.ip());
                }
                if let Some(seen) = seen {
                    self.on_observed(now, key, remote, socket, seen);
                }
            }
            let patience = if self.peers.get(key).is_some_and(|p| p.traffic.is_some()) {
                Duration::from_secs(1)
            } else {
                Duration::ZERO
            };
            if let Some(peer) = self.peers.get_mut(key)
                && peer.paths.current().is_some_and(|c| c.is_direct())
                && peer.duty == crate::keepalive::Duty::None
            {
                // A leaf of ours moved: its newest address is the one that counts.
                peer.paths.on_peer_moved(now, &route, patience);
            }
            self.choose_path(now, key);
        }
        self.on_pong(now, key, token, &route);
    }

    /// Our addresses changed, as supernodes see us: peers that we reach only by relay are told.
    pub(crate) fn on_candidates_changed(&mut self, now: Instant) {
        let relayed: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_up() && !p.paths.has_direct() && !p.is_dormant(now))
            .filter(|(_, p)| p.traffic.as_ref().is_some_and(|t| t.standing == Standing::Accepted && t.told))
            .map(|(key, _)| key)
            .collect();
        for key in relayed {
            self.upgrade(now, key);
        }
    }

    /// Sockets, interfaces or routes changed: paths through sockets that are gone are gone, all others are doubtful.
    /// Those of user links are all asked whether they still work, and what is in use has a second to answer. The links
    /// that we keep up for the network are shaken hands with anew: that moves them here in one round trip, and brings
    /// them back where the other side has forgotten us while we slept.
    pub(crate) fn on_network_changed(&mut self, now: Instant) {
        let mut sockets: Vec<crate::net::SocketId> = self.network.sockets.iter().map(|(socket, _)| *socket).collect();
        sockets.extend(self.sockets.open());
        // TCP connections end by themselves.
        let is_gone = |socket: crate::net::SocketId| !sockets.contains(&socket) && !socket.is_tcp();
        self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if is_gone(*socket)));
        self.transport_network(now);
        self.counter_rushed = None;
        let is_leaf = !self.is_serving();
        // First those that relay for others.
        let up = self.peers.iter().filter(|(_, p)| p.is_up() && !p.is_dormant(now));
        let up = up.map(|(key, p)| (p.traffic.is_some(), !p.wanted, key));
        let mut up: Vec<(bool, bool, PeerKey)> = up.collect();
        up.sort_unstable();
        for (is_user, is_unwanted, key) in up {
            if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
                // From here the same addresses may be reached.
                traffic.exposure = Exposure::default();
            }
            self.challenge_all(now, key);
            if is_leaf && !is_unwanted {
                self.revive(now, key);
            }
            if is_user && let Some(peer) = self.peers.get_mut(key) {
                peer.watch.on_peer_elsewhere(now);
                self.peers.touch(key);
            }
        }
    }

    /// A relay knows where we are from now on: what goes through it may work again, and shows the peer that we moved.
    pub(crate) fn challenge_relayed(&mut self, now: Instant, relay: PeerKey) {
        let route = |channel| Route::Relayed { channel, via: relay };
        let ends: Vec<(PeerKey, Route)> =
            self.ends.through(relay).map(|(channel, end)| (end, route(channel))).collect();
        for (end, route) in ends {
            if !self.peers.get(end).is_some_and(|p| p.is_up() && p.paths.is_proven(&route)) {
                continue;
            }
            let token = self.peers.token();
            if let Some(peer) = self.peers.get_mut(end) {
                peer.paths.on_challenge_sent(now, &route, token);
            }
            // No sample: that we are heard there is what the peer is to notice.
            self.peers.send_on(end, Some(route), &Message::challenge(token, None), false);
        }
    }

    /// A relayed link tries again.
    pub(crate) fn on_retry_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let is_over = peer.paths.has_direct() || peer.is_dormant(now);
        let Some(traffic) = peer.traffic.as_mut() else { return };
        let tries = traffic.retry.map_or(0, |(_, n)| n) + 1;
        if is_over {
            traffic.retry = None;
            return;
        }
        if traffic.effort.is_some() {
            // One attempt at a time.
            traffic.retry = Some((now + retry_wait(0), tries - 1));
            return;
        }
        traffic.retry = Some((now + retry_wait(tries), tries));
        if matches!(self.strategy_of(key), Some(Strategy::RelayOnly(_)))
            && let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut())
        {
            // Unless a router turns out to be another, nothing will help.
            traffic.retry = Some((now + retry_wait(u32::MAX), tries));
        }
        self.upgrade(now, key);
    }

    /// A direct path as io's [`Path`].
    pub(crate) fn path_of_route(route: &Route) -> Option<Path> {
        match *route {
            Route::Direct { socket, remote } => Some(Path { socket, remote, local: None }),
            Route::Relayed { .. } => None,
        }
    }
}
