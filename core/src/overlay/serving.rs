//! Beginning to serve others, and ceasing to: how a node in role [`Role::Auto`](crate::api::Role::Auto) changes sides
//! while it runs.
//!
//! Links to peers, their streams and channels that others relay for this node live through both changes; what changes
//! hands is the duty. [`RoleWatch`](super::role::RoleWatch) says when; this file checks whether the address still holds
//! and makes the change: homes are told goodbye and supernodes greeted, or the other way round. It goes in steps
//! ([`Turn`]). Between two of them all that is wanted is carried out, since what was wanted by one side is to be judged
//! by that side.

use core::net::SocketAddr;
use core::time::Duration;

use super::output::{Output, When};
use super::state::{Acting, Overlay};
use super::turn::{Move, Turn};
use crate::api::Event;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::net::{Family, Network};
use crate::overlay::advert::LEAF_ADVERTS_MAX;
use crate::overlay::directory::{RECORDS_MAX, RecordStore};
use crate::overlay::home::Carried;
use crate::overlay::role::Way;
use crate::time::Instant;

/// What an examination said of the router's filter counts for so long where it is to decide.
const CHECK_HOLDS: Duration = Duration::from_secs(60);

/// What others know that decides whether this node can serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    /// Sockets, interfaces, mappings.
    pub network: &'a Network,
    /// Where supernodes agree that they see the main socket.
    pub seen: Option<SocketAddr>,
    /// When an examination found that the router lets packets in from ports that nothing was sent to.
    pub lets_in: Option<Instant>,
    /// What this node does for others.
    pub carried: Carried,
}

impl Overlay {
    // ---- whether ----

    /// Begins to serve, if it may and can.
    pub(crate) fn consider_serving(&mut self, now: Instant, situation: &Situation<'_>) {
        if !self.terms.is_auto() || self.is_leaving || self.is_serving() || self.turn.is_some() {
            return;
        }
        if !self.role.may_serve(now) || situation.carried.is_exhausted {
            return;
        }
        if let Some(address) = self.confirmed_address(now, situation) {
            self.begin_serving(now, address, situation);
        }
    }

    /// The address that others could reach us at, if enough of them did.
    fn confirmed_address(&self, now: Instant, situation: &Situation<'_>) -> Option<SocketAddr> {
        let seen = situation.seen?;
        let address = SocketAddr::new(seen.ip(), self.dial_back.port().unwrap_or(seen.port()));
        if self.dial_back.confirmed() {
            return Some(address);
        }
        // Confirmed not long ago, and everybody has been sent something since: then it must do that packets come in
        // from ports that nothing was sent to. It was seen before that the router does not look at addresses.
        let is_new = now - situation.lets_in? < CHECK_HOLDS;
        (is_new && self.role.was_confirmed(now, address)).then_some(address)
    }

    /// Ceases to serve where the address that is advertised is not ours any more, as far as this host can tell.
    pub(crate) fn check_address(&mut self, now: Instant, network: &Network) {
        let Acting::Supernode(s) = &self.acting else { return };
        let Some(address) = s.advertise.first().copied().filter(|_| self.terms.is_auto()) else { return };
        let is_lost = match s.way {
            Way::Own => !network.has(address.ip()),
            Way::Mapped => {
                let main = network.main_socket(Family::of(&address));
                let mapped = main.and_then(|(socket, _)| network.mapped_address(socket));
                mapped.map(|a| a.port()) != Some(address.port())
            }
            // Only those outside can tell.
            Way::Open => false,
        };
        if is_lost {
            self.cease_serving(now);
        } else {
            self.out.push_back(Output::Examine(When::Soon));
            self.is_pressing = true;
        }
    }

    /// Supernodes were asked whether unasked packets still come in, and where they see us. `seen` is what two of them
    /// agree on; where nobody could tell, nothing is said of packets.
    pub(crate) fn on_checked(&mut self, now: Instant, seen: Option<SocketAddr>, came_in: Option<bool>) {
        if !self.terms.is_auto() {
            return;
        }
        let advertised = match &self.acting {
            Acting::Supernode(s) => s.advertise.first().copied(),
            Acting::Leaf(_) => None,
        };
        let is_elsewhere =
            seen.zip(advertised).is_some_and(|(seen, own)| seen.is_ipv4() == own.is_ipv4() && seen.ip() != own.ip());
        let must_stop = came_in.is_some_and(|came_in| self.role.on_check(came_in));
        if is_elsewhere || must_stop {
            self.cease_serving(now);
        }
    }

    /// All that was to be relayed in these 30 days has been.
    pub(crate) fn on_relay_exhausted(&mut self, now: Instant) {
        if self.terms.is_auto() {
            // Whoever is registered here could not be called any more.
            self.cease_serving(now);
        }
    }

    // ---- how ----

    fn begin_serving(&mut self, now: Instant, address: SocketAddr, situation: &Situation<'_>) {
        let Acting::Leaf(homes) = &mut self.acting else { return };
        let way = if self.dial_back.port().is_some() {
            Way::Mapped
        } else if situation.network.has(address.ip()) {
            Way::Own
        } else {
            Way::Open
        };
        let was_ready = homes.is_ready();
        let named = homes.known().filter(|(.., is_named)| *is_named).map(|(peer, at, _)| (peer, at)).collect();
        homes.leave(&mut self.out);
        self.turn_next(now, Move::Begin { address, way, carried: situation.carried, named, was_ready });
    }

    /// Becomes a leaf again. Those registered here are told, and find another home at once.
    fn cease_serving(&mut self, now: Instant) {
        if self.turn.is_some() {
            return;
        }
        let Some((s, mut stores, key, sequence)) = self.signing(now) else { return };
        s.gossip.withdraw(key, sequence, &mut stores);
        let neighbours = s.gossip.addresses(stores.members);
        let leaves = s.registrations.leaves().copied().collect();
        let addresses = s.advertise.clone();
        stores.out.extend(s.gossip.resting().map(|peer| Output::Release { peer: *peer }));
        self.turn_next(now, Move::Cease { addresses, neighbours, leaves });
    }

    fn turn_next(&mut self, at: Instant, step: Move) {
        self.turn = Some(Turn { at, step });
        self.is_pressing = true;
    }

    /// All that was wanted before has been carried out.
    pub(super) fn go_on(&mut self, turn: Turn) {
        let now = turn.at;
        match turn.step {
            Move::Begin { address, way, carried, named, was_ready } => {
                self.become_supernode(now, address, way);
                self.out.push_back(Output::Serving);
                self.out.push_back(Output::Event(Event::RoleChanged { supernode: true, addresses: vec![address] }));
                if !was_ready {
                    self.out.push_back(Output::Event(Event::Ready));
                }
                self.greet(now, carried, &named);
                self.turn_next(now, Move::Review);
            }
            Move::Cease { addresses, neighbours, leaves } => {
                self.acting = self.terms.leaf(self.me.id());
                self.members.set_max(LEAF_ADVERTS_MAX);
                self.records = RecordStore::new(0);
                self.out.push_back(Output::Duty(Duty::Binding));
                self.out.extend(leaves.into_iter().map(|leaf| Output::Dismiss { leaf }));
                self.out.push_back(Output::CloseChannels);
                self.turn_next(now, Move::Ceased { addresses, neighbours });
            }
            Move::Ceased { addresses, neighbours } => {
                self.role.on_stopped(now);
                self.dial_back.on_ceased();
                // What a supernode sends to whom is not noted.
                self.dial_back.blind(now);
                self.out.push_back(Output::Ceased);
                self.out.push_back(Output::Event(Event::RoleChanged { supernode: false, addresses }));
                self.out.push_back(Output::Event(Event::Homeless));
                self.join(now, &neighbours);
                self.turn_next(now, Move::Review);
            }
            Move::Review => self.out.push_back(Output::Review),
        }
    }

    fn become_supernode(&mut self, now: Instant, address: SocketAddr, way: Way) {
        self.members.set_max(self.terms.table_max);
        self.records = RecordStore::new(RECORDS_MAX);
        self.acting = self.terms.supernode(now, self.me.id(), &[address], way, &mut self.random);
        // A router that merely lets everybody in forgets like any other.
        self.out.push_back(Output::Duty(if way == Way::Open { Duty::Binding } else { Duty::Liveness }));
        self.role.on_began(now, address);
        self.dial_back.on_serving();
    }

    fn greet(&mut self, now: Instant, carried: Carried, named: &[(PeerId, SocketAddr)]) {
        let load = self.load(carried);
        // As a leaf it took their word; who passes an advert on has been there.
        let told = self.members.drain();
        let Some((s, mut stores, key, sequence)) = self.signing(now) else { return };
        s.gossip.set_load(load, s.registrations.places());
        // The own advert first: it is what neighbours are greeted with.
        s.gossip.handle_timeout(now, key, sequence, &mut stores);
        s.gossip.join(now, named, &mut stores);
        s.gossip.hear_again(now, &told, &mut stores);
    }
}
