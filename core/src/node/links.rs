//! Links that came up, moved, were replaced, or ended: what that means for everything that hangs on them.

use crate::path::{Output, Remedy, Route};
use core::time::Duration;

use super::Node;
use crate::api::{CommandError, Event, PathInfo, StreamEnd};
use crate::identity::PeerId;
use crate::keepalive::{Due, Duty};
use crate::net::PeerKey;
use crate::peer::{AttemptRoute, Outgoing, Standing, Traffic};
use crate::relay::Closed;
use crate::time::Instant;
use crate::wire::message::{InitBody, Message};
use crate::wire::packet::{ChannelId, Kind};

impl Node {
    /// Brings a user link up: at once if a link is there, by a call otherwise.
    pub(crate) fn reach_peer(&mut self, now: Instant, id: PeerId) -> Result<(), CommandError> {
        if id == self.id() {
            return Err(CommandError::OwnId);
        }
        if self.overlay.is_leaving() {
            return Err(CommandError::Leaving);
        }
        if let Some(key) = self.peers.key_of(&id)
            && self.peers.is_up(key)
        {
            self.make_user_link(now, key);
            self.announce_path(key);
            return Ok(());
        }
        self.call(now, id)
    }

    /// The link carries user traffic from now on.
    pub(crate) fn make_user_link(&mut self, now: Instant, key: PeerKey) {
        let is_asleep = self.peers.get(key).is_some_and(|p| p.is_asleep(now));
        let own_duty = self.peers.own_duty();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let traffic = peer.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, Standing::Accepted)));
        traffic.used = now;
        let newly = traffic.standing != Standing::Accepted;
        traffic.standing = Standing::Accepted;
        if peer.duty == Duty::None {
            peer.duty = own_duty;
        }
        self.peers.touch(key);
        if newly {
            self.upgrade(now, key);
        }
        if is_asleep {
            self.wake(now, key);
        }
    }

    /// A link is up that was not.
    pub(crate) fn on_link_up(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let id = peer.id;
        let called = self.calls.contains(&id);
        if called || self.streams.waits_for(&id) || self.pings.waits_for(&id) {
            self.make_user_link(now, key);
        }
        self.calls.finish(&id);
        self.announce_path(key);
        self.open_waiting(now, &id);
        self.traverse_up(now, key);
        for sequence in self.pings.take_waiting(&id) {
            self.send_ping(now, key, sequence);
        }
        self.release_parked(now, key);
        self.rooms_link_up(now, &id);
    }

    /// The other side is new under the same key, or we are to it: nothing of the old link holds.
    pub(crate) fn on_link_replaced(&mut self, now: Instant, key: PeerKey, end: StreamEnd) {
        self.on_streams(now, |streams| streams.on_link_gone(key, end));
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        peer.paths.remove(|_| true);
        peer.detector.on_heard();
        if let Some(traffic) = &mut peer.traffic {
            let standing = traffic.standing;
            **traffic = Traffic::new(now, standing);
        }
        self.traversal.restart(now, key);
        self.peers.drop_epochs(key);
        let closed = self.relay.close_leg(now, key);
        self.tell_closed(closed);
        self.overlay.on_link_down(now, &id);
    }

    /// Forgets a peer and all that hangs on its link.
    pub(crate) fn drop_peer(&mut self, now: Instant, key: PeerKey, end: StreamEnd) {
        self.on_streams(now, |streams| streams.on_link_gone(key, end));
        self.peers.drop_pending(key);
        let Some(peer) = self.peers.remove(key) else { return };
        self.forget_traversal(now, key);
        self.nat.forget(key);
        self.freshness.remember(peer.id, peer.last_init_us);
        let closed = self.relay.forget(now, key);
        self.tell_closed(closed);
        self.remove_paths(now, |route| matches!(route, Route::Relayed { via, .. } if *via == key));
        if peer.is_up() {
            if peer.traffic.is_some() {
                self.report.tell(Event::PeerGone { peer: peer.id });
            }
            self.overlay.on_link_down(now, &peer.id);
        } else if peer.wanted {
            self.overlay.on_link_down(now, &peer.id);
        }
    }

    /// Forgets a peer whose link never came up, when nothing is under way any more.
    pub(crate) fn drop_if_idle(&mut self, now: Instant, key: PeerKey) {
        let idle = self.peers.get(key).is_some_and(|p| !p.is_up() && p.pending.is_empty() && p.attempts.is_empty());
        if idle {
            self.drop_peer(now, key, StreamEnd::PeerGone);
        }
    }

    /// All our Inits to a peer stayed unanswered.
    pub(crate) fn on_dial_failed(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.peers.get(key).map(|p| p.id) else { return };
        if self.transports.is_opening(&id) {
            // The last word is not spoken.
            return;
        }
        if self.calls.contains(&id) {
            // The call has its own deadline and its own error; the rooms are told.
            self.overlay.on_link_down(now, &id);
            return;
        }
        self.drop_if_idle(now, key);
    }

    /// Removes paths from all links that have them; a link without any left looks for another way.
    pub(crate) fn remove_paths(&mut self, now: Instant, gone: impl Fn(&Route) -> bool) {
        let hit: Vec<PeerKey> =
            self.peers.iter().filter(|(_, p)| p.paths.routes().any(|r| gone(&r))).map(|(key, _)| key).collect();
        for key in hit {
            self.remove_paths_of(now, key, &gone);
        }
    }

    /// The same for one link.
    pub(crate) fn remove_paths_of(&mut self, now: Instant, key: PeerKey, gone: impl Fn(&Route) -> bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.paths.remove(gone);
        self.choose_path(now, key);
        if self.peers.get(key).is_some_and(|p| p.is_up() && p.paths.current().is_none() && !p.is_dormant(now)) {
            self.revive(now, key);
        }
    }

    /// Tells the legs of closed channels.
    pub(crate) fn tell_closed(&mut self, closed: Vec<Closed>) {
        for Closed { channel, leg } in closed {
            self.peers.send(leg, &Message::ChannelClosed { channel });
        }
    }

    /// A relay says that a channel is gone.
    pub(crate) fn on_channel_closed(&mut self, now: Instant, relay: PeerKey, channel: ChannelId) {
        if self.relay.on_closed(relay, channel) {
            self.remove_paths(now, |route| *route == Route::Relayed { channel, via: relay });
        }
    }

    /// New handshakes on every path, and a new introduction for a user link.
    pub(crate) fn revive(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let id = peer.id;
        let user = peer.traffic.is_some();
        // The peer keeps so many answered handshakes, and one is the introduction's: another would push out the very one
        // that comes to be confirmed.
        let mut routes: Vec<Route> = peer.paths.proven().collect();
        routes.sort_by_key(|route| core::cmp::Reverse(peer.paths.heard_at(route)));
        routes.truncate(crate::peer::PENDING_MAX - 1);
        let in_flight: Vec<AttemptRoute> = peer.attempts.iter().map(|a| a.route).collect();
        for route in routes {
            let to = match Self::path_of_route(&route) {
                Some(path) => AttemptRoute::Direct(path),
                None => AttemptRoute::Relayed(route),
            };
            if !in_flight.contains(&to) {
                self.attempt(now, key, to, &InitBody::Direct { early: None });
            }
        }
        if user {
            let _ = self.call(now, id);
        }
    }

    /// Everything of one peer that is due.
    pub(crate) fn on_peer_timeout(&mut self, now: Instant, key: PeerKey) {
        self.peers.touch(key);
        if self.peers.on_attempts_due(now, &mut self.account, key) {
            self.on_dial_failed(now, key);
        }
        if self.peers.drop_pending_if_due(now, key) {
            self.drop_if_idle(now, key);
        }
        self.peers.drop_old_epoch_if_due(now, key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.rest_if_due(now);
        self.on_streams(now, |streams| streams.handle_timeout_of(now, key));
        let pace = self.peers.pace();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let duty = peer.duty_at(now, pace);
        if peer.is_up() {
            let user = peer.traffic.is_some();
            match peer.beats.handle_timeout(now, duty, pace) {
                Some(Due::Beat) => self.peers.push(Outgoing::Beat { peer: key, kind: Kind::Beat, route: None }),
                // A user link has other paths to go to: its failure detector decides what silence means.
                Some(Due::Ask | Due::Dead) if user => self.probe_current(now, key),
                Some(Due::Ask) => {
                    let is_overdue = peer.beats.is_overdue();
                    self.peers.push(Outgoing::Beat { peer: key, kind: Kind::BeatAsk, route: None });
                    if is_overdue {
                        self.stand_in(now, key);
                    }
                }
                Some(Due::Dead) => {
                    self.drop_peer(now, key, StreamEnd::PeerGone);
                    return;
                }
                None => {}
            }
            self.on_watch_due(now, key);
            self.on_quality_due(now, key);
            self.on_rekey_due(now, key);
            self.on_idle_due(now, key);
        }
        self.on_traversal_due(now, key);
    }

    /// Challenges the path in use.
    pub(crate) fn probe_current(&mut self, now: Instant, key: PeerKey) {
        let Some(current) = self.peers.get(key).and_then(|p| p.paths.current()) else { return };
        self.challenge(now, key, current);
    }

    fn on_watch_due(&mut self, now: Instant, key: PeerKey) {
        let Some(step) = self.peers.get_mut(key).and_then(|p| p.detector.handle_timeout(now)) else { return };
        match step {
            Remedy::Probe => {
                self.probe_current(now, key);
                // If it was we who moved, they have to know by the time they are needed.
                self.probe_relays(now, key);
                self.stand_in(now, key);
            }
            Remedy::Failover => {
                self.challenge_all(now, key);
                self.probe_relays(now, key);
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.on_silence(now);
                }
                self.choose_path(now, key);
                self.upgrade(now, key);
            }
            Remedy::Revive => {
                self.challenge_all(now, key);
                self.probe_relays(now, key);
                self.revive(now, key);
                self.upgrade(now, key);
                self.stand_in(now, key);
            }
            Remedy::Gone => self.drop_peer(now, key, StreamEnd::PeerGone),
        }
    }

    /// Challenges every proven path.
    pub(crate) fn challenge_all(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let routes: Vec<Route> = peer.paths.proven().collect();
        for route in routes {
            self.challenge(now, key, route);
        }
    }

    /// The relays of a silent link must know where we are now: our router may have moved us. Our homes too, since what
    /// they see is what the peer is told.
    pub(crate) fn probe_relays(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let mut relays: Vec<PeerKey> = peer
            .paths
            .routes()
            .filter_map(|route| match route {
                Route::Relayed { via, .. } => Some(via),
                Route::Direct { .. } => None,
            })
            .collect();
        relays.extend(self.overlay.own_homes().iter().filter_map(|(home, _)| self.peers.up_key(home)));
        relays.sort_unstable();
        relays.dedup();
        for relay in relays {
            if self.peers.get(relay).is_some_and(|p| !p.detector.is_troubled()) {
                self.probe_current(now, relay);
            }
        }
    }

    fn on_rekey_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !peer.is_rekey_due(now) {
            return;
        }
        let Some(route) = peer.paths.current() else {
            peer.epoch_since = now;
            return;
        };
        let to = match Self::path_of_route(&route) {
            Some(path) => AttemptRoute::Direct(path),
            None => AttemptRoute::Relayed(route),
        };
        if self.attempt(now, key, to, &InitBody::Direct { early: None }).is_none()
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.epoch_since = now;
        }
    }

    fn on_idle_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.idle_at().is_none_or(|at| at > now) {
            return;
        }
        let relays_for_us = self.relay.relays_for_us(key);
        if relays_for_us && peer.duty != Duty::None {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.needed = now;
            }
            return;
        }
        if peer.is_dormant(now) {
            // Its paths are not what they were, and the other side does the same.
            self.drop_peer(now, key, StreamEnd::PeerGone);
        } else if peer.duty != Duty::None || peer.traffic.is_some() {
            self.close_link(now, key);
        } else {
            self.drop_peer(now, key, StreamEnd::PeerGone);
        }
    }

    /// Says goodbye on the path in use and forgets the peer. The goodbye is sealed before the keys go.
    pub(crate) fn close_link(&mut self, now: Instant, key: PeerKey) {
        self.say_goodbye(now, key);
        self.drop_peer(now, key, StreamEnd::PeerGone);
    }

    /// Queues a sealed goodbye: the keys will be gone when it is polled.
    pub(crate) fn say_goodbye(&mut self, now: Instant, key: PeerKey) {
        let Some(route) = self.peers.get(key).filter(|p| p.is_up()).and_then(|p| p.paths.current()) else { return };
        self.peers.send_sealed(now, key, route, &Message::Close);
    }

    /// The peer said goodbye.
    pub(crate) fn on_close(&mut self, now: Instant, key: PeerKey) {
        self.drop_peer(now, key, StreamEnd::PeerGone);
    }

    /// How a route is shown.
    pub(crate) fn path_info(&self, route: &Route) -> Option<PathInfo> {
        Some(match route {
            Route::Direct { remote, .. } => PathInfo::Direct { remote: *remote },
            Route::Relayed { via, .. } => PathInfo::Relay { via: self.peers.get(*via)?.id },
        })
    }

    // ---- quality ----

    /// The peer wanted something on this route.
    pub(crate) fn on_lively(&mut self, now: Instant, key: PeerKey, route: &Route) {
        if self.peers.get_mut(key).is_some_and(|peer| peer.on_lively(now, route)) {
            self.peers.touch(key);
        }
    }

    /// Does what the measurement of a user link wants done now.
    fn on_quality_due(&mut self, now: Instant, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.judge_bulk(now);
        }
        while let Some(want) = self.peers.get_mut(key).and_then(|peer| peer.poll_quality(now)) {
            match want {
                Output::Sample(route) => self.sample(now, key, route),
                Output::Leave | Output::TakeBack(_) => self.choose_path(now, key),
                Output::Recheck(route) => {
                    self.challenge(now, key, route);
                }
                Output::Dead(_) => {
                    self.retry_soon(now, key);
                    self.choose_path(now, key);
                }
                Output::Nudge => self.peers.push(Outgoing::Beat { peer: key, kind: Kind::BeatAsk, route: None }),
                Output::WakeRelays => self.probe_relays(now, key),
            }
        }
    }

    fn sample(&mut self, now: Instant, key: PeerKey, route: Route) {
        let token = self.peers.token();
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.quality.on_sample_sent(now, route, token);
            self.peers.send_on(key, Some(route), &Message::sample(token, route.remote()), false);
        }
    }

    /// A direct path is gone: another one is looked for.
    fn retry_soon(&mut self, now: Instant, key: PeerKey) {
        if self.peers.get(key).is_some_and(|p| p.traffic.is_some() && !p.paths.has_direct()) {
            self.traversal.retry_soon(now, key);
        }
    }

    // ---- dormant links ----

    /// The application uses a link that slept: its direct paths are asked first, and a new introduction is begun beside,
    /// with which checks start as on a first call. User bytes take whichever path shows itself first.
    fn wake(&mut self, now: Instant, key: PeerKey) {
        self.doubt_direct(now, key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.on_woken(now);
        let (id, current) = (peer.id, peer.paths.current());
        // A channel may stand although the peer is gone.
        if let Some(route) = current {
            self.challenge(now, key, route);
        }
        // Too many calls at once: the bytes go by relay, or when the failure detector revives the link.
        let _ = self.call(now, id);
    }

    /// A packet came on `route` for a link: if it slept, the peer found its direct paths doubtful, and so do we.
    pub(crate) fn wake_by_peer(&mut self, now: Instant, key: PeerKey, route: &Route) {
        if !route.is_direct() && self.peers.get(key).is_some_and(|p| p.is_asleep(now)) {
            self.doubt_direct(now, key);
        }
    }

    fn doubt_direct(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let doubtful = peer.doubt_direct();
        self.choose_path(now, key);
        for route in doubtful {
            self.challenge(now, key, route);
        }
    }

    /// A link has a path that had none: what waited for it goes.
    pub(crate) fn on_path_found(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.peers.get(key).filter(|p| p.is_up()).map(|p| p.id) else { return };
        self.peers.flush_waiting(key);
        for sequence in self.pings.take_waiting(&id) {
            self.send_ping(now, key, sequence);
        }
    }

    // ---- pings ----

    /// Measures a round trip on the path in use.
    pub(crate) fn send_ping(&mut self, now: Instant, key: PeerKey, sequence: u64) {
        let Some(route) = self.peers.get(key).and_then(|p| p.paths.current()) else { return };
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.used = now;
        }
        let token = self.peers.token();
        let remote = route.remote();
        self.pings.on_sent(now, key, sequence, token);
        self.peers.send_on(key, Some(route), &Message::challenge(token, remote), true);
    }

    pub(crate) fn on_pong(&mut self, now: Instant, key: PeerKey, token: [u8; 8], route: &Route) {
        let Some((sequence, rtt)) = self.pings.on_reply(now, key, token) else { return };
        let Some(path) = self.path_info(route) else { return };
        let Some(peer) = self.peers.get(key) else { return };
        self.report.tell(Event::Pong { peer: peer.id, sequence, rtt, path });
    }

    // ---- leaving ----

    /// Tells everybody goodbye.
    pub(crate) fn leave_all(&mut self, now: Instant) {
        if self.overlay.is_leaving() {
            return;
        }
        self.rooms_leave(now);
        let all: Vec<PeerKey> = self.peers.iter().map(|(key, _)| key).collect();
        // User links first: a relayed goodbye needs the link to the relay.
        let (user, control): (Vec<PeerKey>, Vec<PeerKey>) =
            all.into_iter().partition(|k| self.peers.get(*k).is_some_and(|p| p.traffic.is_some()));
        for key in user.into_iter().chain(control) {
            self.on_streams(now, |streams| streams.close(now, key));
            self.say_goodbye(now, key);
        }
        self.report.tell(Event::Left);
    }
}

/// How long `leave` may take at most, from the caller's view.
pub const LEAVE_MAX: Duration = Duration::from_secs(1);
