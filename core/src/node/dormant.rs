//! Sessions that nobody uses: what is kept of them, and how they wake.
//!
//! A user link without a stream goes *dormant* [`DORMANT_AFTER`](super::peer::DORMANT_AFTER) its last use. From then on
//! neither side sends anything to keep its paths, and neither takes the other's silence for trouble. Both sides find
//! this by their own clocks; where one still sees use, the other answers as ever. The keys stay until
//! [`USER_IDLE_MAX`](super::peer::USER_IDLE_MAX) after the last use, when both forget the link without a word; what is
//! kept is bounded by that, and by the number of peers.
//!
//! The next use wakes the link ([`Node::wake`]). Routers may have forgotten its direct paths meanwhile, and a packet
//! that is lost there would cost seconds. So the paths are dropped, and a new introduction is asked for, with which
//! checks start as on a first call; meanwhile user bytes take the relayed path, if the channel still stands. The other
//! side does the same with its old direct paths when the first packet comes by relay. What finds no path at all waits
//! ([`Node::on_path_found`]).

use super::Node;
use super::peer::PeerKey;
use crate::keepalive::{BEAT_INTERVAL, Beats, Duty};
use crate::path::Route;
use crate::time::Instant;

impl Node {
    /// The application uses a link that slept: its paths are made anew.
    pub(crate) fn wake(&mut self, now: Instant, key: PeerKey) {
        self.forget_direct(now, key);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.beats = Beats::new(now);
            let id = peer.id;
            // Too many calls at once: the bytes go by relay, or wait for the watch.
            let _ = self.call(now, id);
        }
    }

    /// A packet came on `route` for a link: if it slept, the peer found its direct paths doubtful, and so do we.
    pub(crate) fn wake_by_peer(&mut self, now: Instant, key: PeerKey, route: &Route) {
        if !route.is_direct() && self.is_asleep(now, key) {
            self.forget_direct(now, key);
        }
    }

    /// Whether a link is dormant, and nothing came for so long that routers may have forgotten it.
    pub(crate) fn is_asleep(&self, now: Instant, key: PeerKey) -> bool {
        self.peers
            .get(key)
            .is_some_and(|p| p.is_up() && p.is_dormant(now) && now.since(p.beats.heard()) >= BEAT_INTERVAL)
    }

    fn forget_direct(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.paths.remove(Route::is_direct);
        peer.watch.on_heard();
        self.choose_path(now, key);
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
