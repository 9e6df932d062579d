//! Links that came up, moved, were replaced, or ended: what that means for everything that hangs on them.

use std::collections::BTreeSet;

use super::Node;
use crate::api::{CommandError, Event, StreamEnd};
use crate::identity::PeerId;
use crate::net::{PeerKey, SocketId};
use crate::path::Route;
use crate::peer::{Ended, Output};
use crate::relay::Closed;
use crate::time::Instant;
use crate::wire::message::Message;
use crate::wire::packet::ChannelId;

impl Node {
    // ---- what the peers' room wants ----

    /// Carries out what it wants, and what one thing causes before the next.
    pub(super) fn carry_peers(&mut self, now: Instant) {
        let outputs: Vec<Output> = core::iter::from_fn(|| self.peers.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Challenge { peer, route } => self.challenge(now, peer, route),
                Output::Choose { peer } => self.choose_path(now, peer),
                Output::WakeRelays { peer } => {
                    let homes = self.overlay.own_homes();
                    self.peers.wake_relays(peer, homes.into_iter().map(|(home, _)| home));
                    self.carry_peers(now);
                }
                Output::Revive { peer } => self.revive(now, peer),
                Output::Call { peer } => {
                    // Where it is refused there is nobody to be told.
                    let _ = self.call(now, peer);
                }
                Output::Upgrade { peer } => self.upgrade(now, peer),
                Output::Retry { peer } => self.traversal.retry_soon(now, peer),
                Output::StandIn { peer } => self.stand_in(now, peer),
                Output::Withheld { peer, ip } => self.overlay.inquire(now, peer, ip),
                Output::Gone { peer } => self.drop_peer(now, peer, StreamEnd::PeerGone),
                Output::Close { peer } => self.close_link(now, peer),
                Output::Event(event) => self.report.tell(event),
                Output::Save(save) => self.report.tell(Event::Save(save)),
            }
        }
    }

    /// Asks on a route, or on the path in use, whether a peer is there.
    pub(super) fn challenge(&mut self, now: Instant, key: PeerKey, route: Option<Route>) {
        let is_attested = |ip| self.traversal.is_attested(now, key, ip);
        self.peers.challenge(now, &mut self.account, key, route, is_attested);
    }

    /// Chooses a link's path anew, and tells everybody whom a change concerns.
    pub(super) fn choose_path(&mut self, now: Instant, key: PeerKey) {
        let Some(chosen) = self.peers.choose(now, &mut self.account, key) else { return };
        let Some(peer) = self.peers.get(key) else { return };
        let is_direct = chosen.new.is_some_and(|route| route.is_direct());
        if let (Some(change), true) = (chosen.change, peer.is_user()) {
            self.streams.on_path(now, key, change);
            self.traversal.on_path_changed(now, key, is_direct);
            self.relay.on_path(now, key, is_direct);
        } else if chosen.change.is_some() && peer.is_leg() {
            self.traversal.on_path_changed(now, key, is_direct);
        }
        self.relay.set_path(key, peer.direct_path());
        self.streams.mark_ready(key);
        self.carry_peers(now);
    }

    /// New handshakes on every path, and a new introduction for a user link.
    pub(super) fn revive(&mut self, now: Instant, key: PeerKey) {
        self.peers.revive(now, &mut self.account, key);
        self.carry_peers(now);
    }

    /// Everything of one peer that is due.
    pub(super) fn on_peer_timeout(&mut self, now: Instant, key: PeerKey) {
        match self.peers.on_handshakes_due(now, &mut self.account, key) {
            Ended::Unanswered => self.on_dial_failed(now, key),
            Ended::Unconfirmed => self.drop_if_idle(now, key),
            Ended::Nothing => {}
        }
        if self.peers.get(key).is_none() {
            return;
        }
        self.on_streams(now, |streams| streams.handle_timeout_of(now, key));
        self.peers.on_beats_due(now, key);
        self.carry_peers(now);
        self.peers.on_silence_due(now, key);
        self.carry_peers(now);
        while self.peers.on_quality_due(now, key) {
            self.carry_peers(now);
        }
        self.peers.on_keys_due(now, &mut self.account, key);
        self.carry_peers(now);
        self.peers.on_idle_due(now, key, self.relay.needs(key));
        self.carry_peers(now);
        self.on_traversal_due(now, key);
    }

    // ---- up ----

    /// Brings a user link up: at once if a link is there, by a call otherwise.
    pub(super) fn reach_peer(&mut self, now: Instant, id: PeerId) -> Result<(), CommandError> {
        if id == self.id() {
            return Err(CommandError::OwnId);
        }
        if self.overlay.is_leaving() {
            return Err(CommandError::Leaving);
        }
        let Some(key) = self.peers.up_key(&id) else { return self.call(now, id) };
        self.make_user_link(now, key);
        self.peers.announce(key);
        self.carry_peers(now);
        Ok(())
    }

    /// The link carries user traffic from now on.
    pub(super) fn make_user_link(&mut self, now: Instant, key: PeerKey) {
        self.peers.make_user_link(now, key);
        self.carry_peers(now);
    }

    /// A link is up that was not.
    pub(super) fn on_link_up(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.peers.id_of(key) else { return };
        if self.calls.wants_user(&id) || self.streams.waits_for(&id) || self.peers.has_pings_for(&id) {
            self.make_user_link(now, key);
        }
        self.calls.finish(&id);
        self.peers.announce(key);
        self.carry_peers(now);
        self.open_waiting(now, &id);
        self.traverse_up(now, key);
        self.peers.send_waiting_pings(now, key);
        self.release_parked(now, key);
        self.link_there(now, id, true);
    }

    // ---- moved ----

    /// Sockets, interfaces or routes changed: paths through sockets that are gone are gone, all others are doubtful.
    pub(super) fn on_network_changed(&mut self, now: Instant) {
        let sockets: Vec<SocketId> = self.transports.udp_sockets().collect();
        // TCP connections end by themselves.
        let is_gone = |socket: SocketId| !sockets.contains(&socket) && !socket.is_tcp();
        self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if is_gone(*socket)));
        self.transport_network(now);
        self.traversal.on_network_changed();
        let is_leaf = !self.overlay.is_serving();
        for key in self.peers.in_use(now) {
            self.traversal.forget_exposure(key);
            self.peers.on_moved(now, key, is_leaf);
            self.carry_peers(now);
        }
    }

    /// A relay knows where we are from now on: what goes through it may work again, and shows the peer that we moved.
    pub(super) fn challenge_relayed(&mut self, now: Instant, relay: PeerKey) {
        for (channel, end) in self.relay.ends_through(relay) {
            self.peers.challenge_relayed(now, end, Route::Relayed { channel, via: relay });
        }
    }

    /// Removes paths from all links that have them; a link without any left looks for another way.
    pub(super) fn remove_paths(&mut self, now: Instant, gone: impl Fn(&Route) -> bool) {
        for key in self.peers.with_paths(&gone) {
            self.remove_paths_of(now, key, &gone);
        }
    }

    /// The same where only these links can have one.
    fn remove_paths_among(&mut self, now: Instant, keys: &BTreeSet<PeerKey>, gone: impl Fn(&Route) -> bool) {
        for key in keys {
            if self.peers.has_path(*key, &gone) {
                self.remove_paths_of(now, *key, &gone);
            }
        }
    }

    /// The same for one link.
    pub(super) fn remove_paths_of(&mut self, now: Instant, key: PeerKey, gone: impl Fn(&Route) -> bool) {
        self.peers.remove_paths(key, gone);
        self.choose_path(now, key);
        if self.peers.is_cut_off(now, key) {
            self.revive(now, key);
        }
    }

    /// A relay says that a channel is gone.
    pub(super) fn on_channel_closed(&mut self, now: Instant, relay: PeerKey, channel: ChannelId) {
        if let Some(end) = self.relay.on_closed(relay, channel) {
            let is_gone = |route: &Route| *route == Route::Relayed { channel, via: relay };
            self.remove_paths_among(now, &BTreeSet::from([end]), is_gone);
        }
    }

    /// Tells the legs of closed channels.
    pub(super) fn tell_closed(&mut self, closed: Vec<Closed>) {
        for Closed { channel, leg } in closed {
            self.peers.send(leg, &Message::ChannelClosed { channel });
        }
    }

    // ---- replaced, ended ----

    /// The other side is new under the same key, or we are to it: nothing of the old link holds.
    pub(super) fn on_link_replaced(&mut self, now: Instant, key: PeerKey, end: StreamEnd) {
        self.on_streams(now, |streams| streams.on_link_gone(key, end));
        let Some(id) = self.peers.id_of(key) else { return };
        self.peers.on_replaced(now, key);
        self.traversal.restart(now, key);
        // The Init of the new link may have brought an introduction, whose channel is the new link's.
        let closed = self.relay.close_leg(now, key, |channel| self.introductions.is_early(key, channel));
        self.tell_closed(closed);
        self.overlay.on_link_down(now, &id);
    }

    /// Forgets a peer and all that hangs on its link.
    pub(super) fn drop_peer(&mut self, now: Instant, key: PeerKey, end: StreamEnd) {
        self.on_streams(now, |streams| streams.on_link_gone(key, end));
        let Some(gone) = self.peers.forget(key) else { return };
        self.forget_traversal(now, key);
        self.nat.forget(key);
        // A supernode has links by the thousand, and few of them, if any, go through this one.
        let ends = self.relay.ends_through(key).map(|(_, end)| end).collect();
        let closed = self.relay.forget(now, key);
        self.tell_closed(closed);
        self.remove_paths_among(now, &ends, |route| matches!(route, Route::Relayed { via, .. } if *via == key));
        if gone.was_up && gone.was_user {
            self.report.tell(Event::PeerGone { peer: gone.id });
        }
        if gone.was_up || gone.was_wanted {
            self.overlay.on_link_down(now, &gone.id);
        }
    }

    /// Forgets a peer whose link never came up, when nothing is under way any more.
    pub(super) fn drop_if_idle(&mut self, now: Instant, key: PeerKey) {
        if self.peers.is_idle(key) {
            self.drop_peer(now, key, StreamEnd::PeerGone);
        }
    }

    /// All our Inits to a peer stayed unanswered.
    pub(super) fn on_dial_failed(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.peers.id_of(key) else { return };
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

    /// Says goodbye and forgets the peer.
    pub(super) fn close_link(&mut self, now: Instant, key: PeerKey) {
        self.peers.say_goodbye(now, key);
        self.drop_peer(now, key, StreamEnd::PeerGone);
    }

    /// Tells everybody goodbye.
    pub(super) fn leave_all(&mut self, now: Instant) {
        if self.overlay.is_leaving() {
            return;
        }
        self.overlay.leave(now);
        self.rooms_settle(now);
        for key in self.peers.in_order_of_leaving() {
            self.on_streams(now, |streams| streams.close(now, key));
            self.peers.say_goodbye(now, key);
        }
        self.report.tell(Event::Left);
    }
}
