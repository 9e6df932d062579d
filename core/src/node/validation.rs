//! Path validation: challenges that peers send, answers to ours, and what is doubtful after the network changed.

use core::net::SocketAddr;

use super::Node;
use crate::net::{Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::Message;

impl Node {
    /// A challenge came: it is answered on the path it came on.
    pub(crate) fn on_challenge(&mut self, now: Instant, key: PeerKey, route: Route, token: [u8; 8], room: usize) {
        if self.peers.queued() >= crate::peer::ANSWERS_MAX {
            return;
        }
        let seen = route.remote();
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
        let checked =
            route.remote().and_then(|remote| self.traversal.on_check_reply(now, key, remote, token, &mut self.account));
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.on_challenge_reply(now, &route, token, checked) {
            let is_user = peer.traffic.is_some();
            if let Route::Direct { remote, socket } = route {
                self.account.proven(remote);
                if is_user {
                    self.traversal.attest(now, key, remote.ip(), &mut self.account);
                }
                if let Some(seen) = seen {
                    self.on_observed(now, key, remote, socket, seen);
                }
            }
            if let Some(peer) = self.peers.get_mut(key) {
                peer.on_path_answered(now, &route);
            }
            self.choose_path(now, key);
        }
        self.on_pong(now, key, token, &route);
    }

    /// Sockets, interfaces or routes changed: paths through sockets that are gone are gone, all others are doubtful.
    /// Those of user links are all asked whether they still work, and what is in use has a second to answer. The links
    /// that we keep up for the network are shaken hands with anew: that moves them here in one round trip, and brings
    /// them back where the other side has forgotten us while we slept.
    pub(crate) fn on_network_changed(&mut self, now: Instant) {
        let sockets: Vec<crate::net::SocketId> = self.transports.udp_sockets().collect();
        // TCP connections end by themselves.
        let is_gone = |socket: crate::net::SocketId| !sockets.contains(&socket) && !socket.is_tcp();
        self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if is_gone(*socket)));
        self.transport_network(now);
        self.traversal.on_network_changed();
        let is_leaf = !self.overlay.is_serving();
        // First those that relay for others.
        let up = self.peers.iter().filter(|(_, p)| p.is_up() && !p.is_dormant(now));
        let up = up.map(|(key, p)| (p.traffic.is_some(), !p.wanted, key));
        let mut up: Vec<(bool, bool, PeerKey)> = up.collect();
        up.sort_unstable();
        for (is_user, is_unwanted, key) in up {
            self.traversal.forget_exposure(key);
            self.challenge_all(now, key);
            if is_leaf && !is_unwanted {
                self.revive(now, key);
            }
            if is_user && let Some(peer) = self.peers.get_mut(key) {
                peer.detector.on_peer_elsewhere(now);
                self.peers.touch(key);
            }
        }
    }

    /// A relay knows where we are from now on: what goes through it may work again, and shows the peer that we moved.
    pub(crate) fn challenge_relayed(&mut self, now: Instant, relay: PeerKey) {
        let route = |channel| Route::Relayed { channel, via: relay };
        let ends: Vec<(PeerKey, Route)> =
            self.relay.ends_through(relay).map(|(channel, end)| (end, route(channel))).collect();
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

    /// A direct path as io's [`Path`].
    pub(crate) fn path_of_route(route: &Route) -> Option<Path> {
        match *route {
            Route::Direct { socket, remote } => Some(Path { socket, remote, local: None }),
            Route::Relayed { .. } => None,
        }
    }
}
