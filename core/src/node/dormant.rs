//! Sessions that nobody uses: what is kept of them, and how they wake.
//!
//! A user link without a stream goes *dormant* [`DORMANT_AFTER`](super::peer::DORMANT_AFTER) its last use. From then on
//! neither side sends anything to keep its paths, and neither takes the other's silence for trouble. Both sides find
//! this by their own clocks; where one still sees use, the other answers as ever. The keys stay until
//! [`USER_IDLE_MAX`](super::peer::USER_IDLE_MAX) after the last use, when both forget the link without a word; what is
//! kept is bounded by that, and by the number of peers.
//!
//! The next use wakes the link ([`Node::wake`]). Routers may have forgotten its direct paths meanwhile, and a packet
//! that is lost there would cost seconds. So these paths are asked first, and at the same time a new introduction is
//! begun, with which checks start as on a first call. User bytes take whichever path shows itself first, or at once the
//! relayed one, if the channel still stands; until there is one they wait ([`Node::on_path_found`]). The other side
//! does the same with its old direct paths when the first packet comes by relay.

use super::Node;
use crate::keepalive::{BEAT_INTERVAL, Beats, Duty};
use crate::net::PeerKey;
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message;

impl Node {
    /// The application uses a link that slept: its paths are made anew.
    pub(crate) fn wake(&mut self, now: Instant, key: PeerKey) {
        self.doubt_direct(now, key);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.beats = Beats::new(now);
            // It may have no path at all now: then the watch sees to it that one is found, or the peer given up.
            peer.watch.on_sent(now);
            let id = peer.id;
            // A channel may stand although the peer is gone.
            if let Some(route) = peer.paths.current() {
                self.challenge(now, key, route);
            }
            // Too many calls at once: the bytes go by relay, or when the watch revives the link.
            let _ = self.call(now, id);
        }
    }

    /// A packet came on `route` for a link: if it slept, the peer found its direct paths doubtful, and so do we.
    pub(crate) fn wake_by_peer(&mut self, now: Instant, key: PeerKey, route: &Route) {
        if !route.is_direct() && self.is_asleep(now, key) {
            self.doubt_direct(now, key);
        }
    }

    /// The peer asked whether we are there. A ping is use of the link; a sample is not, or two ends that measure would keep
    /// each other awake.
    pub(crate) fn used_by_peer(&mut self, now: Instant, key: PeerKey, route: &Route, room: &[u8]) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.paths.current() == Some(*route)
            && !message::is_sample(room)
            && let Some(traffic) = peer.traffic.as_mut()
        {
            traffic.used = now;
        }
    }

    /// Whether a link is dormant, and nothing came for so long that routers may have forgotten it.
    pub(crate) fn is_asleep(&self, now: Instant, key: PeerKey) -> bool {
        self.peers
            .get(key)
            .is_some_and(|p| p.is_up() && p.is_dormant(now) && now.since(p.beats.heard()) >= BEAT_INTERVAL)
    }

    fn doubt_direct(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let doubtful = peer.paths.doubt_direct();
        peer.watch.on_heard();
        self.choose_path(now, key);
        for route in doubtful {
            self.challenge(now, key, route);
        }
    }

    /// A link has a path that had none: what waited for it goes.
    pub(crate) fn on_path_found(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.peers.get(key).filter(|p| p.is_up()).map(|p| p.id) else { return };
        self.flush_waiting(key);
        for sequence in self.pending_pings.remove(&id).unwrap_or_default() {
            self.send_ping(now, key, sequence);
        }
    }

    /// A beat to this peer left: the next one of another home is to be half an interval away.
    pub(crate) fn keep_beats_apart(&mut self, now: Instant, key: PeerKey) {
        let pace = self.keepalive.pace();
        let Some(interval) = pace.interval() else { return };
        let is_home = |p: &super::peer::Peer| p.is_up() && p.wanted && p.duty_at(now, pace) == Duty::Binding;
        if !self.peers.get(key).is_some_and(is_home) {
            return;
        }
        let other = self.peers.iter().find(|(other, p)| *other != key && is_home(p)).map(|(other, _)| other);
        if let Some(other) = other
            && let Some(peer) = self.peers.get_mut(other)
        {
            peer.beats.keep_apart(now, interval);
            self.touched.push(other);
        }
    }
}
