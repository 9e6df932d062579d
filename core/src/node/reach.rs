//! What stands between this node and the internet: this file carries what [`crate::reach`] wants to know, and tells it
//! what comes of it. Which supernodes are asked, over which of their addresses, from which socket.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use super::Node;
use super::rooms::Side;
use super::sockets::Purpose;
use crate::api::{Reachability, Role};
use crate::identity::PeerId;
use crate::nat::{Ask, Examination, MappingBehavior, Outcome, Subject, second_nat};
use crate::net::{DropReason, Family, Path, SocketId, SocketKind};
use crate::overlay::action::Action;
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::gossip::LISTING_LEAF_MAX;
use crate::path::Route;
use crate::peer::Outgoing;
use crate::time::Instant;
use crate::wire::address::{Prefix, canonical};
use crate::wire::message::CONTACTED_MAX;
use crate::wire::packet::loop_packet;

/// Supernodes that an examination asks: three, so that one that lies is outvoted.
const TARGETS: usize = 3;
/// Of which so many are asked over IPv6, where only the firewall is in question.
const TARGETS_V6: usize = 2;
/// Time for the links to those that are dialled for an examination alone, and between two looks whether a dial-back that
/// goes first is over.
const WAIT: Duration = Duration::from_secs(2);
/// A node that may serve dials supernodes for an examination only if that leaves so many to be its witnesses.
const WITNESSES_LEFT: usize = 4;

impl Node {
    // ---- news ----

    /// A link to a supernode that we dialled is up.
    pub(super) fn reach_link_up(&mut self, now: Instant, id: PeerId) {
        // A supernode that is reached by TCP sees nothing of how UDP leaves.
        if self.peers.by_id(&id).and_then(|p| p.paths.current()).is_some_and(|route| route.is_tcp()) {
            return;
        }
        self.count_fresh(now);
        let rooms = &mut self.rooms;
        rooms.dial_back.on_link_up(now, id, &mut self.rng.overlay, &mut rooms.out);
        rooms.examiner.on_supernode(now);
    }

    /// The host's network changed: nothing that is known of the way out holds.
    pub(super) fn reach_network(&mut self, now: Instant) {
        self.end_examination();
        self.check_address(now);
        self.count_fresh(now);
        let rooms = &mut self.rooms;
        rooms.dial_back.reset(now, &mut self.rng.overlay, &mut rooms.out);
        rooms.examiner.reset(now);
    }

    /// A router maps other ports than before.
    pub(super) fn reach_mappings(&mut self, now: Instant) {
        self.check_address(now);
        let rooms = &mut self.rooms;
        let mapped = mapped_port(&self.network, main_socket(&self.network, Family::V4).map(|(socket, _)| socket));
        if rooms.dial_back.port().is_some() || rooms.dial_back.reachable() == Some(false) {
            rooms.dial_back.set_port(now, mapped, &mut self.rng.overlay, &mut rooms.out);
        }
    }

    /// A supernode saw us somewhere; perhaps where none did before.
    pub(super) fn reach_observed(&mut self, now: Instant, is_elsewhere: bool) {
        let known = self.rooms.examiner.known();
        // A router that maps by destination shows every supernode another address.
        let was_one = known.is_some_and(|k| k.findings.mapping == Some(MappingBehavior::EndpointIndependent));
        if is_elsewhere && was_one {
            self.rooms.examiner.on_disagreement(now);
        }
        self.consider_serving(now);
    }

    /// What is known of the router does not agree with what happened: a traversal that should have worked did not, say.
    /// It is examined again soon, but not often.
    pub(crate) fn on_disagreement(&mut self, now: Instant) {
        self.rooms.examiner.on_disagreement(now);
    }

    /// Whether this peer, at this address, was sent nothing that could have opened a router for it.
    pub(super) fn is_unasked(&self, now: Instant, key: crate::net::PeerKey, ip: IpAddr) -> bool {
        self.peers.get(key).is_some_and(|p| self.rooms.dial_back.is_fresh(now, &p.id, core::iter::once(ip)))
    }

    /// Something leaves for this address: nobody there can be a witness for a while.
    pub(super) fn reach_sent(&mut self, now: Instant, to: SocketAddr) {
        if matches!(self.rooms.side, Side::Leaf(_)) {
            self.rooms.dial_back.on_sent(now, to.ip());
        }
    }

    /// An Init came with the nonce of a dial-back, and has not been answered.
    pub(super) fn on_dialled_back(&mut self, now: Instant, id: &PeerId, remote: SocketAddr, nonce: [u8; 8]) {
        self.count_fresh(now);
        let rooms = &mut self.rooms;
        rooms.dial_back.on_dial_back(now, id, remote, nonce, &mut self.rng.overlay, &mut rooms.out);
        self.consider_serving(now);
    }

    /// How many known supernodes could be witnesses: of different prefixes, and sent nothing.
    pub(super) fn count_fresh(&mut self, now: Instant) {
        let rooms = &mut self.rooms;
        let (mut prefixes, mut fresh, mut stale) = (BTreeSet::new(), 0, Vec::new());
        for (id, advert) in rooms.book.iter() {
            let ips = || advert.addresses.iter().map(|a| SocketAddr::from(*a).ip());
            if !rooms.dial_back.is_fresh(now, id, ips()) {
                stale.push(id_prefix(id));
            } else if ips().next().is_some_and(|ip| Prefix::is_exempt(ip) || prefixes.insert(Prefix::of(ip))) {
                fresh += 1;
            }
        }
        if let Side::Leaf(homes) = &rooms.side {
            // Those that were named, and have not said yet who they are.
            let named = homes.known().filter(|(id, ..)| rooms.book.get(id).is_none());
            let is_fresh = |id: &PeerId, at: SocketAddr| rooms.dial_back.is_fresh(now, id, core::iter::once(at.ip()));
            stale.extend(named.filter(|(id, at, _)| !is_fresh(id, *at)).map(|(id, ..)| id_prefix(&id)));
        }
        stale.truncate(CONTACTED_MAX);
        // A leaf is told of so many at a time; as long as it knows fewer, it knows them all.
        let are_all = match &rooms.side {
            Side::Leaf(homes) => homes.had_listing() && rooms.book.len() < LISTING_LEAF_MAX,
            Side::Supernode(_) => true,
        };
        rooms.dial_back.set_fresh(now, fresh, are_all, stale);
    }

    // ---- time ----

    /// What is due.
    pub(super) fn reach_timeout(&mut self, now: Instant) {
        if self.rooms.dial_back.poll_timeout().is_some_and(|at| at <= now) {
            self.count_fresh(now);
            let before = self.rooms.dial_back.reachable();
            let rooms = &mut self.rooms;
            rooms.dial_back.handle_timeout(now, &mut self.rng.overlay, &mut rooms.out);
            if rooms.dial_back.reachable() == Some(false) && before != Some(false) {
                // The way in may be another port, which the router maps.
                let main = main_socket(&self.network, Family::V4);
                let mapped = mapped_port(&self.network, main.map(|(socket, _)| socket));
                if rooms.dial_back.port().is_none() && mapped.is_some() {
                    rooms.dial_back.set_port(now, mapped, &mut self.rng.overlay, &mut rooms.out);
                }
            }
            self.consider_serving(now);
        }
        if self.rooms.role.handle_timeout(now) {
            // What dial-backs confirmed before may be so again.
            self.rooms.examiner.postpone(now, Duration::ZERO);
            self.consider_serving(now);
        }
        if self.rooms.examiner.is_due(now) {
            self.begin_examination(now);
        }
        self.run_examination(now);
    }

    fn begin_examination(&mut self, now: Instant) {
        self.rooms.examiner.rest();
        if self.leaving {
            return;
        }
        let is_serving = self.is_serving();
        let is_auto = matches!(self.config.role, Role::Auto);
        if is_serving && !is_auto {
            return;
        }
        let is_known = self.rooms.examiner.known().is_some();
        if is_serving && is_known && self.rooms.examiner.had_unasked(now) {
            self.rooms.role.on_check(true);
            return self.rooms.examiner.check_again(now, false);
        }
        // Being asked for witnesses comes first: the examination may use some up.
        if is_auto && !is_serving && self.rooms.dial_back.is_trying() {
            return self.rooms.examiner.postpone(now, WAIT);
        }
        let targets = self.targets(Family::V4, TARGETS);
        if targets.len() < TARGETS
            && self.rooms.examiner.helpers.is_empty()
            && !is_serving
            && !self.rooms.examiner.was_helped
        {
            self.rooms.examiner.was_helped = true;
            self.dial_helpers(now, &targets);
            if !self.rooms.examiner.helpers.is_empty() {
                return self.rooms.examiner.postpone(now, WAIT);
            }
        }
        if !self.examine(now, Family::V4, &targets, is_serving && is_known)
            && !self.examine(now, Family::V6, &self.targets(Family::V6, TARGETS_V6), true)
        {
            if is_serving {
                self.rooms.examiner.check_again(now, false);
            } else {
                self.release_helpers();
            }
        }
    }

    /// Begins, if there is somebody to ask.
    fn examine(&mut self, now: Instant, family: Family, targets: &[(PeerId, SocketAddr)], filter_only: bool) -> bool {
        let Some((socket, bound)) = main_socket(&self.network, family).filter(|_| !targets.is_empty()) else {
            return false;
        };
        let own = self.network.interfaces.clone();
        let subject = Subject { socket, port: bound.port(), own, filter_only };
        let mut asks = Vec::new();
        let examination = Examination::new(now, subject, targets, &mut self.rng.nat, &mut asks);
        self.rooms.examiner.begin(family, examination);
        self.carry_asks(now, asks);
        true
    }

    fn run_examination(&mut self, now: Instant) {
        let mut asks = Vec::new();
        let Some(current) = self.rooms.examiner.current.as_mut() else { return };
        let over = current.handle_timeout(now, &mut self.rng.nat, &mut asks);
        self.carry_asks(now, asks);
        if let Some(outcome) = over {
            self.on_examined(now, &outcome);
        }
    }

    /// It is over, or the last part of it is.
    fn on_examined(&mut self, now: Instant, outcome: &Outcome) {
        if self.is_serving() && self.rooms.examiner.known().is_some() {
            return self.on_checked(now, outcome);
        }
        let is_open = self.is_open();
        let family = self.rooms.examiner.on_over(now, outcome, is_open);
        if family == Some(Family::V4) {
            let targets = self.targets(Family::V6, TARGETS_V6);
            if self.examine(now, Family::V6, &targets, true) {
                return;
            }
        }
        self.release_helpers();
        if self.is_serving() {
            self.rooms.examiner.check_again(now, false);
        }
        self.consider_serving(now);
    }

    /// Gives up the one under way.
    pub(super) fn end_examination(&mut self) {
        let mut asks = Vec::new();
        if let Some(mut current) = self.rooms.examiner.current.take() {
            let _ = current.end(&mut asks);
        }
        for ask in asks {
            if let Ask::Close(socket) = ask {
                self.close_socket(self.now, socket);
            }
        }
    }

    // ---- what an examination wants ----

    fn carry_asks(&mut self, now: Instant, asks: Vec<Ask>) {
        for ask in asks {
            match ask {
                Ask::Probe { to, from, remote, token, alternate } => {
                    if let Some(key) = self.peers.up_key(&to) {
                        let from = Path { socket: from, remote, local: None };
                        self.send_probe(now, key, from, token, Duration::ZERO, alternate);
                    }
                }
                Ask::Loop { from, remote, token } => {
                    if self.account.unasked(now, remote) {
                        let path = Path { socket: from, remote, local: None };
                        self.peers.push(Outgoing::Raw { path, bytes: loop_packet(token).into() });
                    }
                }
                Ask::Open(family) => {
                    if self.open_socket(Purpose::Reach, SocketKind::Udp(family)).is_none() {
                        self.on_reach_socket(now, None);
                    }
                }
                Ask::Close(socket) => self.close_socket(now, socket),
            }
        }
    }

    /// A socket asked for is there, or could not be opened.
    pub(super) fn on_reach_socket(&mut self, now: Instant, opened: Option<(SocketId, SocketAddr)>) {
        let mut asks = Vec::new();
        match (self.rooms.examiner.current.as_mut(), opened) {
            (Some(current), _) => current.on_socket(now, opened, &mut self.rng.nat, &mut asks),
            (None, Some((socket, _))) => asks.push(Ask::Close(socket)),
            (None, None) => {}
        }
        self.carry_asks(now, asks);
    }

    /// An answer to a probe came: whether it was for the examination.
    pub(super) fn on_reach_reply(
        &mut self,
        now: Instant,
        path: Path,
        token: [u8; 8],
        seen: SocketAddr,
        alternate_port: u16,
    ) -> bool {
        let Some(current) = self.rooms.examiner.current.as_mut() else { return false };
        current.on_reply(now, path.socket, canonical(path.remote), token, seen, alternate_port)
    }

    /// A Loop packet came.
    pub(super) fn on_loop(&mut self, now: Instant, token: &[u8; 16]) -> Result<(), DropReason> {
        let is_awaited = self.rooms.examiner.current.as_mut().is_some_and(|current| current.on_loop(now, token));
        if is_awaited { Ok(()) } else { Err(DropReason::UnknownReceiver) }
    }

    // ---- whom to ask ----

    /// Supernodes that links are up to, with an address of this family: different ones first.
    fn targets(&self, family: Family, max: usize) -> Vec<(PeerId, SocketAddr)> {
        let linked: Vec<PeerId> = match &self.rooms.side {
            Side::Leaf(homes) => homes.linked().chain(self.rooms.examiner.helpers.iter().copied()).collect(),
            Side::Supernode(s) => s.gossip.linked().copied().collect(),
        };
        let mut all: Vec<(PeerId, SocketAddr)> = Vec::new();
        for id in linked {
            let Some(peer) = self.peers.by_id(&id).filter(|p| p.is_up()) else { continue };
            let in_use = match peer.paths.current() {
                Some(Route::Direct { remote, .. }) => Some(remote),
                _ => None,
            };
            let mut addresses = in_use.into_iter().chain(self.supernode_addresses(&id));
            if let Some(address) = addresses.find(|a| Family::of(a) == family)
                && all.iter().all(|(other, _)| *other != id)
            {
                all.push((id, address));
            }
        }
        let mut ips = BTreeSet::new();
        let (mut first, again): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, a)| ips.insert(a.ip()));
        first.extend(again);
        first.truncate(max);
        first
    }

    /// Links to more supernodes, for this examination alone.
    fn dial_helpers(&mut self, now: Instant, targets: &[(PeerId, SocketAddr)]) {
        let (mut unlinked, mut left) = (Vec::new(), 0);
        for (id, advert) in self.rooms.book.iter() {
            let Some(address) = advert.address().filter(SocketAddr::is_ipv4) else { continue };
            if self.peers.up_key(id).is_none() && targets.iter().all(|(_, a)| a.ip() != address.ip()) {
                unlinked.push((*id, address));
            }
            let is_fresh = self.rooms.dial_back.is_fresh(now, id, core::iter::once(address.ip()));
            left += usize::from(is_fresh);
        }
        let wants_witnesses = matches!(self.config.role, Role::Auto) && self.rooms.dial_back.reachable() != Some(false);
        if wants_witnesses && left < WITNESSES_LEFT {
            return;
        }
        let missing = if wants_witnesses { 1 } else { TARGETS - targets.len() };
        for _ in 0..missing {
            if unlinked.is_empty() {
                return;
            }
            let (peer, address) = unlinked.swap_remove(self.rng.overlay.peer_choice.below(unlinked.len()));
            self.rooms.examiner.helpers.push(peer);
            self.rooms.out.push_back(Action::Dial { peer, address });
        }
    }

    fn release_helpers(&mut self) {
        for peer in core::mem::take(&mut self.rooms.examiner.helpers) {
            self.rooms.out.push_back(Action::Release { peer });
        }
    }

    // ---- what is known ----

    /// Whether a packet came in to where we are seen, not to a mapped port, from somebody whom nothing was sent to.
    pub(super) fn is_open(&self) -> bool {
        self.rooms.dial_back.reachable() == Some(true) && self.rooms.dial_back.port().is_none()
    }

    /// All that is known of the way in and out.
    pub(super) fn reachability(&self, now: Instant) -> Reachability {
        let profile = self.nat_profile();
        let known = self.rooms.examiner.known();
        let main = main_socket(&self.network, Family::V4);
        let seen = main.and_then(|(socket, _)| self.rooms.observations.agreed(socket));
        let seen = seen.or(known.and_then(|k| k.seen));
        let claimed = main.and_then(|(socket, _)| mapped_address(&self.network, socket));
        let mut public_addresses: Vec<(SocketAddr, usize)> =
            self.network.sockets.iter().flat_map(|(socket, _)| self.rooms.observations.counted(*socket)).collect();
        public_addresses.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        Reachability {
            translated: known.and_then(|k| k.translated),
            mapping: profile.mapping,
            filtering: profile.filtering,
            ports: profile.ports,
            pooled: known.and_then(|k| k.findings.pooled),
            hairpinning: known.and_then(|k| k.hairpinning),
            second_nat: second_nat(claimed.map(|a| a.ip()), seen),
            udp: self.udp_works(),
            v6: known.and_then(|k| k.v6),
            public_addresses,
            reachable: self.reachable(),
            witnesses: known.map_or(0, |k| k.witnesses),
            age: known.map(|k| now - k.at),
        }
    }
}

/// The first socket of a family.
pub(super) fn main_socket(network: &crate::net::Network, family: Family) -> Option<(SocketId, SocketAddr)> {
    network.sockets.iter().find(|(_, bound)| Family::of(bound) == family).copied()
}

/// The address at which a router says that it maps a port to this socket.
pub(super) fn mapped_address(network: &crate::net::Network, socket: SocketId) -> Option<SocketAddr> {
    network.mappings.iter().find(|m| m.socket == socket && m.external.is_ipv4()).map(|m| m.external)
}

fn mapped_port(network: &crate::net::Network, socket: Option<SocketId>) -> Option<u16> {
    Some(mapped_address(network, socket?)?.port()).filter(|port| *port != 0)
}

/// Whether an address is one of the host's own.
pub(super) fn is_own(network: &crate::net::Network, ip: IpAddr) -> bool {
    network.interfaces.contains(&ip) || network.sockets.iter().any(|(_, bound)| bound.ip() == ip)
}
