//! Carries out what [`crate::quality`] wants: samples, changes of path, and the nudge.

use core::time::Duration;

use super::Node;
use super::send::Outgoing;
use crate::net::PeerKey;
use crate::path::{Route, Want};
use crate::time::Instant;
use crate::wire::message::Message;
use crate::wire::packet::Kind;

/// Bytes of a link are counted over so long.
const BULK_EVERY: Duration = Duration::from_secs(1);
/// What a relay carries where nothing is known of its limits, in kilobits per second.
const RELAY_KBPS: u32 = 2_000;

impl Node {
    /// The peer wanted something on this route.
    pub(crate) fn on_lively(&mut self, now: Instant, key: PeerKey, route: &Route) {
        let Some(peer) = self.peers.get_mut(key).filter(|p| p.is_up()) else { return };
        if peer.paths.current() == Some(*route)
            && let Some(traffic) = peer.traffic.as_mut()
        {
            traffic.quality.on_lively(now);
            self.touched.push(key);
        }
    }

    /// Does what the measurement of a user link wants done now.
    pub(crate) fn on_quality_due(&mut self, now: Instant, key: PeerKey) {
        self.judge_bulk(now, key);
        loop {
            let Some(peer) = self.peers.get_mut(key) else { return };
            let Some(view) = peer.quality_view() else { return };
            let Some(want) = peer.traffic.as_mut().and_then(|t| t.quality.handle_timeout(now, &view)) else { return };
            match want {
                Want::Sample(route) => self.sample(now, key, route),
                Want::Leave => {
                    peer.paths.set_worse(&view.using, true);
                    peer.watch.on_heard();
                    self.choose_path(now, key);
                }
                Want::TakeBack(route) => {
                    peer.paths.set_worse(&route, false);
                    self.choose_path(now, key);
                }
                Want::Recheck(route) => {
                    self.challenge(now, key, route);
                }
                Want::Dead(route) => self.on_route_dead(now, key, route),
                Want::Nudge => {
                    peer.watch.on_sent(now);
                    self.push(Outgoing::Beat { peer: key, kind: Kind::BeatAsk, route: None });
                }
                Want::WakeRelays => self.probe_relays(now, key),
            }
        }
    }

    /// The path in use is given up: perhaps the peer, which uses another one, had left it as the worse one.
    pub(crate) fn note_left(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(current) = peer.paths.current().filter(Route::is_direct)
            && peer.traffic.as_mut().is_some_and(|t| t.quality.has_left(now))
        {
            peer.paths.set_worse(&current, true);
        }
    }

    fn sample(&mut self, now: Instant, key: PeerKey, route: Route) {
        let token = self.rng.links.bytes();
        let remote = Self::path_of_route(&route).map(|p| p.remote);
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.quality.on_sample_sent(now, route, token);
            self.send_on(key, Some(route), &Message::sample(token, remote), false);
        }
    }

    fn on_route_dead(&mut self, now: Instant, key: PeerKey, route: Route) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.paths.on_dead(&route);
        peer.paths.set_worse(&route, true);
        peer.watch.on_heard();
        let direct = peer.paths.has_direct();
        if let Some(traffic) = peer.traffic.as_mut().filter(|_| !direct) {
            traffic.retry.get_or_insert((now + super::traverse::retry_wait(0), 0));
        }
        self.choose_path(now, key);
    }

    /// Notes whether more flows than half of what a relay would carry for this pair.
    fn judge_bulk(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let carried = peer.rx_bytes + peer.tx_bytes;
        let Some(traffic) = peer.traffic.as_mut() else { return };
        let (since, before, _) = traffic.bulk;
        let time = now.since(since);
        if time < BULK_EVERY {
            return;
        }
        let limit = traffic.limits.map_or(RELAY_KBPS, |limits| limits.rate_kbps);
        let kbps = u128::from(carried.saturating_sub(before)) * 8_000 / time.as_micros().max(1);
        // A limit of 0 is none.
        traffic.bulk = (now, carried, limit > 0 && kbps * 2 > u128::from(limit));
    }
}
