//! Path validation: questions whether a peer is on a path, its answers, its own questions, and which paths are in
//! doubt.
//!
//! What is asked of an address that is not proven is paid for: either the [`Account`] lets so much go there unasked, or
//! something else, of which the node tells, attests that the peer is there.

use core::net::IpAddr;
use core::time::Duration;

use super::outbox::ANSWERS_MAX;
use super::output::Output;
use super::peers::Peers;
use crate::account::Account;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::net::PeerKey;
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::{self, Message};

impl Peers {
    // ---- our questions ----

    /// Asks on a route, or on the path in use, whether the peer is there: to prove it or to see whether it still works.
    /// `is_attested`: whether something else says that it is at this address.
    pub(crate) fn challenge(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        route: Option<Route>,
        is_attested: impl FnOnce(IpAddr) -> bool,
    ) {
        let Some(route) = route.or_else(|| self.get(key)?.paths.current()) else { return };
        let token = self.token();
        let Some(peer) = self.get_mut(key) else { return };
        let is_proven = peer.paths.is_proven(&route);
        let on_current = peer.paths.current() == Some(route);
        peer.paths.on_challenge_sent(now, &route, token);
        let remote = route.remote();
        // What a TCP connection leads to has proven its address in opening it.
        if is_proven || route.is_tcp() || remote.is_none_or(|to| is_attested(to.ip()) || account.unasked(now, to)) {
            // Where else we ask says nothing of where we send.
            let message = if on_current { Message::challenge(token, remote) } else { Message::sample(token, remote) };
            self.send_on(key, Some(route), &message, on_current);
        }
    }

    /// Has every proven path asked.
    pub(crate) fn challenge_all(&mut self, key: PeerKey) {
        let Some(peer) = self.get(key) else { return };
        let routes: Vec<Route> = peer.paths.proven().collect();
        for route in routes {
            self.want(Output::Challenge { peer: key, route: Some(route) });
        }
    }

    /// Asks through a relay that knows from now on where we are. No sample: that we are heard there is what the peer is
    /// to notice.
    pub(crate) fn challenge_relayed(&mut self, now: Instant, key: PeerKey, route: Route) {
        if !self.get(key).is_some_and(|p| p.is_up() && p.paths.is_proven(&route)) {
            return;
        }
        let token = self.token();
        if let Some(peer) = self.get_mut(key) {
            peer.paths.on_challenge_sent(now, &route, token);
        }
        self.send_on(key, Some(route), &Message::challenge(token, None), false);
    }

    /// The relays of a silent link must know where we are now: our router may have moved us. Our homes too, since what
    /// they see is what the peer is told. Has them asked, but those that are silent themselves.
    pub(crate) fn wake_relays(&mut self, key: PeerKey, homes: impl Iterator<Item = PeerId>) {
        let Some(peer) = self.get(key) else { return };
        let via = |route| match route {
            Route::Relayed { via, .. } => Some(via),
            Route::Direct { .. } => None,
        };
        let mut relays: Vec<PeerKey> = peer.paths.routes().filter_map(via).collect();
        relays.extend(homes.filter_map(|home| self.up_key(&home)));
        relays.sort_unstable();
        relays.dedup();
        for relay in relays {
            if self.get(relay).is_some_and(|p| !p.detector.is_troubled()) {
                self.want(Output::Challenge { peer: relay, route: None });
            }
        }
    }

    /// A challenge of ours was answered on this route; `checked`: it was a check, and that is how long it took. Whether
    /// the path is proven by it.
    pub(crate) fn on_challenge_reply(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        route: &Route,
        token: [u8; 8],
        checked: Option<Duration>,
    ) -> bool {
        let Some(peer) = self.get_mut(key) else { return false };
        let is_proof = peer.on_challenge_reply(now, route, token, checked);
        if is_proof {
            route.remote().into_iter().for_each(|remote| account.proven(now, remote));
            peer.on_path_answered(now, route);
        }
        is_proof
    }

    // ---- the peer's questions ----

    /// A challenge came: it is answered on the route it came on, as far as `room` and the account allow. Whether it
    /// shows that a home did not know us there.
    pub(crate) fn on_challenge(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        route: Route,
        token: [u8; 8],
        room: &[u8],
    ) -> bool {
        let is_answered = self.answer_challenge(now, account, key, route, token, room.len());
        let was_moved = is_answered && self.get(key).is_some_and(|peer| peer.was_moved(now, &route));
        if let Some(peer) = self.get_mut(key) {
            peer.on_asked(now, &route, message::is_sample(room));
        }
        // Samples too: while the peer measures, it uses the link.
        self.on_lively(now, key, &route);
        was_moved
    }

    fn answer_challenge(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        route: Route,
        token: [u8; 8],
        room: usize,
    ) -> bool {
        if self.queued() >= ANSWERS_MAX {
            return false;
        }
        let seen = route.remote();
        let is_proven = self.get(key).is_some_and(|peer| peer.paths.is_proven(&route));
        if !is_proven && let Some(remote) = seen {
            // What the answer takes; the challenge that we send beside it is unasked, and counted as such.
            let needed = if remote.is_ipv4() { 7 } else { 19 };
            if room < needed || !account.answer(now, remote, 42) {
                return false;
            }
        }
        self.send_on(key, Some(route), &Message::ChallengeReply { token, seen: seen.map(Into::into) }, false);
        true
    }

    // ---- doubt ----

    /// The links that are up and used, those first that relay for others.
    pub(crate) fn in_use(&self, now: Instant) -> Vec<PeerKey> {
        let up = self.iter().filter(|(_, p)| p.is_up() && !p.is_dormant(now) && p.duty != Duty::Rest);
        let mut up: Vec<_> = up.map(|(key, p)| (p.is_user(), !p.wanted, key)).collect();
        up.sort_unstable();
        up.into_iter().map(|(.., key)| key).collect()
    }

    /// We are in another network: has all paths asked whether they still work. What a user link uses has a second to
    /// answer. Where we are a leaf, one that is kept up for the network's sake is shaken hands with anew: that moves it
    /// here in one round trip, and brings it back where the other side has forgotten us while we slept.
    pub(crate) fn on_moved(&mut self, now: Instant, key: PeerKey, is_leaf: bool) {
        self.challenge_all(key);
        let Some(peer) = self.get_mut(key) else { return };
        let is_kept = is_leaf && peer.wanted;
        if peer.is_user() {
            peer.detector.on_peer_elsewhere(now);
            self.touch(key);
        }
        if is_kept {
            self.want(Output::Revive { peer: key });
        }
    }

    /// Routers may have forgotten its direct paths: none is used until it has answered.
    pub(super) fn doubt_direct(&mut self, key: PeerKey) {
        let Some(peer) = self.get_mut(key) else { return };
        let doubtful = peer.doubt_direct();
        self.want(Output::Choose { peer: key });
        for route in doubtful {
            self.want(Output::Challenge { peer: key, route: Some(route) });
        }
    }
}
