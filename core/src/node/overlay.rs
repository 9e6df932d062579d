//! Carries links, messages, time and what others know to the [overlay](crate::overlay), and out what it wants.

use core::net::SocketAddr;

use super::Node;
use crate::account::BARE_INIT_LEN;
use crate::identity::PeerId;
use crate::nat::Nat;
use crate::net::{Network, PeerKey};
use crate::overlay::{About, Carried, LinkUp, Output, Situation, When, advertiser, dismissal};
use crate::path::Route;
use crate::peer::{Manner, Origin, Peer};
use crate::time::Instant;
use crate::wire::dialect::Dialect;
use crate::wire::message::Message;

/// Most outputs carried out in one call: what machines want of each other settles in a few steps.
const OUTPUTS_MAX: usize = 1 << 20;

// ---- what it is told ----

fn situation<'a>(network: &'a Network, nat: &Nat, carried: Carried) -> Situation<'a> {
    Situation { network, seen: nat.agreed(network), lets_in: nat.lets_in(), carried }
}

impl Node {
    pub(super) fn carried(&self, now: Instant) -> Carried {
        Carried {
            introductions: self.account.introductions_per_second(now),
            relay_bytes: self.relay.bytes_per_second(now),
            is_exhausted: self.relay.is_exhausted(),
        }
    }

    pub(super) fn rooms_network(&mut self, now: Instant) {
        self.overlay.check_address(now, self.transports.network());
        self.settle_if_pressing(now);
        self.nat.handle_network(now);
        self.carry_nat(now);
        self.overlay.handle_network(now);
    }

    pub(super) fn reach_mappings(&mut self, now: Instant) {
        self.overlay.check_address(now, self.transports.network());
        self.settle_if_pressing(now);
        self.overlay.on_mappings(now, self.transports.network());
    }

    pub(super) fn link_there(&mut self, now: Instant, id: PeerId, is_new: bool) {
        let dialled = self.peers.by_id(&id).filter(|p| p.is_client());
        let shows_us = dialled.is_some_and(|p| !p.current().is_some_and(|route| route.is_tcp()));
        self.overlay.on_link_up(now, id, LinkUp { is_new, shows_us });
    }

    pub(crate) fn rooms_unasked_link(&mut self, now: Instant) {
        self.overlay.on_unasked_link(now);
        self.nat.on_unasked(now);
    }

    pub(super) fn on_dialled_back(&mut self, now: Instant, id: &PeerId, remote: SocketAddr, nonce: [u8; 8]) {
        let situation = situation(self.transports.network(), &self.nat, self.carried(now));
        self.overlay.on_dialled_back(now, id, remote, nonce, &situation);
        self.settle_if_pressing(now);
    }

    pub(super) fn consider_serving(&mut self, now: Instant) {
        let situation = situation(self.transports.network(), &self.nat, self.carried(now));
        self.overlay.consider_serving(now, &situation);
        self.settle_if_pressing(now);
    }

    pub(super) fn on_relay_exhausted(&mut self, now: Instant) {
        self.close_channels(now);
        self.overlay.on_relay_exhausted(now);
        self.settle_if_pressing(now);
    }

    fn close_channels(&mut self, now: Instant) {
        let closed = self.relay.close_all(now);
        self.tell_closed(closed);
    }

    pub(super) fn rooms_timeout(&mut self, now: Instant) {
        let situation = situation(self.transports.network(), &self.nat, self.carried(now));
        self.overlay.handle_timeout(now, &situation);
        self.settle_if_pressing(now);
        self.nat.handle_timeout(now);
        self.carry_nat(now);
    }

    pub(crate) fn on_room_message(
        &mut self,
        now: Instant,
        key: PeerKey,
        id: &PeerId,
        route: Route,
        message: Message<'_>,
    ) {
        let paths = self.peers.get(key).map(Peer::paths);
        let is_proven = paths.is_some_and(|paths| paths.is_proven(&route));
        let is_called = !self.calls.is_empty() && advertiser(&message).is_some_and(|peer| self.calls.contains(&peer));
        let about = About {
            remote: route.remote().filter(|_| !route.is_tcp()),
            ip: route.remote().filter(|_| is_proven).map(|remote| remote.ip()),
            is_proven,
            rtt: paths.and_then(|paths| paths.rtt_of(&route)),
            is_linked: matches!(&message, Message::DialBackOrder { peer, .. } if self.peers.up_key(peer).is_some()),
            is_called,
            dialect: self.peers.get(key).map_or(Dialect::FIRST, Peer::dialect),
            carried: self.carried(now),
        };
        if let Some(reply) = self.overlay.handle_message(now, *id, message, &about) {
            self.peers.send_bytes(key, None, reply, false);
        }
        self.settle_if_pressing(now);
    }

    // ---- what it wants ----

    pub(super) fn settle_if_pressing(&mut self, now: Instant) {
        if self.overlay.is_pressing() {
            self.rooms_settle(now);
        }
    }

    /// Carries out what overlay and NAT want, until they want nothing more.
    pub(super) fn rooms_settle(&mut self, now: Instant) {
        for _ in 0..OUTPUTS_MAX {
            self.carry_nat(now);
            let Some(output) = self.overlay.poll_output(now) else { return };
            self.carry_output(now, output);
        }
        debug_assert!(false, "the overlay never stops wanting");
    }

    fn carry_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send { to, messages } => self.peers.send_to(&to, messages),
            Output::SendAt { to, address, messages } => {
                let up = self.peers.up_key(&to);
                if let Some(key) = up.or_else(|| self.dial(now, to, address, Origin::Hearsay, None)) {
                    // What is asked is answered over this link.
                    self.peers.need(now, key);
                    self.peers.send_bytes(key, None, messages, false);
                }
            }
            Output::AskAlive { peer } => self.peers.ask_alive(&peer),
            Output::Dial { peer, address } => self.carry_dial(now, peer, address),
            Output::DialBack { peer, address, nonce } => {
                self.dial(now, peer, address, Origin::Hearsay, Some(Message::DialBack { nonce }));
            }
            Output::Vet { peer, address } => self.carry_vet(now, peer, address),
            Output::Keep { peer } => self.peers.keep(&peer),
            // Where another part needs it, it does not rest.
            Output::Rest { peer } if self.overlay.may_rest(&peer) => self.peers.rest(&peer),
            Output::Rest { .. } => {}
            Output::Release { peer } => {
                let (needed, is_leaf_here) = (self.overlay.needs(&peer), self.overlay.is_registered(&peer));
                self.peers.release(now, &peer, needed, is_leaf_here);
            }
            Output::Review => {
                let all: Vec<_> = self.peers.iter().map(|(key, p)| (key, p.id())).collect();
                for (key, id) in all {
                    self.peers.review(now, key, self.overlay.needs(&id));
                }
            }
            Output::Dismiss { leaf } => self.carry_dismiss(now, &leaf),
            Output::CloseChannels => self.close_channels(now),
            Output::Duty(duty) => self.peers.set_own_duty(duty),
            Output::Locate { peer, location } => self.on_location(now, peer, location),
            Output::Attested { ip } => self.account.on_attested(ip),
            Output::AtHome => self.measuring.on_home(now),
            Output::Seen => self.nat.on_supernode(now),
            Output::Examine(When::Now) => self.nat.examine_now(now),
            Output::Examine(When::Soon) => self.nat.check_soon(now),
            Output::Serving => {
                self.nat.on_serving(now);
                self.relay.set_serving(now, true);
            }
            Output::Ceased => {
                self.nat.on_ceased(now);
                self.relay.set_serving(now, false);
            }
            Output::Event(event) => self.report.tell(event),
        }
    }

    fn carry_dial(&mut self, now: Instant, peer: PeerId, address: SocketAddr) {
        let up = self.peers.up_key(&peer);
        match up.or_else(|| self.dial(now, peer, address, Origin::Hearsay, None)) {
            Some(key) => self.peers.set_wanted(key, true),
            None => return self.overlay.on_link_down(now, &peer),
        }
        if up.is_some() {
            self.link_there(now, peer, false);
        }
    }

    /// Asks a supernode, once, whether it is where it says, whatever link there is to it.
    fn carry_vet(&mut self, now: Instant, peer: PeerId, address: SocketAddr) {
        let has_room = self.account.has_room_for_hearsay(now, address.ip(), BARE_INIT_LEN);
        if !has_room || self.dial_in(now, peer, address, Manner::ONCE, None).is_none() {
            self.overlay.on_vet_refused(now, &peer);
        }
    }

    fn carry_dismiss(&mut self, now: Instant, leaf: &PeerId) {
        let Some(key) = self.peers.up_key(leaf) else { return };
        match dismissal(self.peers.get(key).is_some_and(Peer::is_user)) {
            Some(message) => self.peers.send(key, &message),
            None => self.close_link(now, key),
        }
    }
}
