//! Pings as they leave and are answered; which there are, [`Pings`](super::pings::Pings) knows.

use super::output::Output;
use super::peers::Peers;
use crate::api::Event;
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::Message;

impl Peers {
    /// A ping to a peer: at once where there is a path, later where `is_called`, since then one is being looked for;
    /// else never. Its number.
    pub(crate) fn ping(&mut self, now: Instant, peer: PeerId, is_called: bool) -> u64 {
        let number = self.pings.next_number();
        match self.up_key(&peer) {
            Some(key) if self.get(key).is_some_and(|p| p.paths.current().is_some()) => self.send_ping(now, key, number),
            // The call may have failed at once; then the event has told so.
            _ if !is_called => {}
            _ => self.pings.wait(peer, number),
        }
        number
    }

    /// Whether pings wait for a path to this peer.
    pub(crate) fn has_pings_for(&self, peer: &PeerId) -> bool {
        self.pings.waits_for(peer)
    }

    /// They wait in vain.
    pub(crate) fn drop_pings(&mut self, peer: &PeerId) {
        self.pings.take_waiting(peer);
    }

    /// They leave.
    pub(crate) fn send_waiting_pings(&mut self, now: Instant, key: PeerKey) {
        let Some(id) = self.get(key).map(|peer| peer.id) else { return };
        for number in self.pings.take_waiting(&id) {
            self.send_ping(now, key, number);
        }
    }

    fn send_ping(&mut self, now: Instant, key: PeerKey, number: u64) {
        let Some(peer) = self.get_mut(key) else { return };
        let Some(route) = peer.paths.current() else { return };
        peer.on_used(now);
        let token = self.token();
        self.pings.on_sent(now, key, number, token);
        self.send_on(key, Some(route), &Message::challenge(token, route.remote()), true);
    }

    /// A challenge was answered: if that was a ping, the application is told.
    pub(crate) fn on_pong(&mut self, now: Instant, key: PeerKey, token: [u8; 8], route: &Route) {
        let Some((sequence, rtt)) = self.pings.on_reply(now, key, token) else { return };
        let Some(path) = self.path_info(route) else { return };
        let Some(peer) = self.get(key).map(|peer| peer.id) else { return };
        self.want(Output::Event(Event::Pong { peer, sequence, rtt, path }));
    }
}
