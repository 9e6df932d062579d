//! Beginning to serve others, and ceasing to: how a node in role [`Role::Auto`] changes sides while it runs.
//!
//! Links to peers, their streams and channels that others relay for this node live through both changes; what changes
//! hands is the duty. [`RoleWatch`](crate::reach::RoleWatch) says when; this file checks whether the address still holds
//! and carries the change out: homes are told goodbye and supernodes greeted, or the other way round.

use core::net::SocketAddr;
use core::time::Duration;

use super::Node;
use super::reach::{is_own, main_socket, mapped_address};
use super::rooms::{Side, leaf};
use crate::api::{Event, Role};
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::nat::{FilteringBehavior, Outcome};
use crate::net::Family;
use crate::overlay::advert::{LEAF_ADVERTS_MAX, SUPERNODE_ADVERTS_MAX};
use crate::overlay::directory::{RECORDS_MAX, RecordStore};
use crate::overlay::role::Way;
use crate::time::Instant;
use crate::wire::message::{Load, Message, Refusal};

/// What an examination said of the router's filter counts for so long where it is to decide.
const CHECK_HOLDS: Duration = Duration::from_secs(60);

impl Node {
    /// Whether this node serves others now.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.rooms.side, Side::Supernode(_))
    }

    /// What this node is to others now.
    pub(super) fn present_role(&self) -> Role {
        match &self.rooms.side {
            Side::Leaf(_) => Role::Leaf,
            Side::Supernode(s) => Role::Supernode { advertise: s.advertise.clone() },
        }
    }

    // ---- whether ----

    /// Begins to serve, if it may and can.
    pub(super) fn consider_serving(&mut self, now: Instant) {
        if !matches!(self.config.role, Role::Auto) || self.leaving || self.is_serving() {
            return;
        }
        if !self.rooms.role.may_serve(now) || self.channels.is_exhausted() {
            return;
        }
        if let Some(address) = self.confirmed_address(now) {
            self.begin_serving(now, address);
        }
    }

    /// The address that others could reach us at, if enough of them did.
    fn confirmed_address(&self, now: Instant) -> Option<SocketAddr> {
        let main = [Family::V4, Family::V6].into_iter().find_map(|family| main_socket(&self.network, family));
        let seen = self.rooms.observations.agreed(main?.0)?;
        let port = self.rooms.dial_back.port().unwrap_or(seen.port());
        let address = SocketAddr::new(seen.ip(), port);
        if self.rooms.dial_back.confirmed() {
            return Some(address);
        }
        // Confirmed not long ago, and everybody has been sent something since: then it must do that packets come in from
        // ports that nothing was sent to. It was seen before that the router does not look at addresses.
        let known = self.rooms.examiner.known()?;
        let lets_in = matches!(
            known.findings.filtering,
            Some(FilteringBehavior::EndpointIndependent | FilteringBehavior::AddressDependent)
        );
        let is_new = now - known.at < CHECK_HOLDS;
        (lets_in && is_new && self.rooms.role.was_confirmed(now, address)).then_some(address)
    }

    /// Whether the address that is advertised is still ours, as far as this host can tell.
    pub(super) fn check_address(&mut self, now: Instant) {
        let Side::Supernode(s) = &self.rooms.side else { return };
        if !matches!(self.config.role, Role::Auto) {
            return;
        }
        let Some(address) = s.advertise.first().copied() else { return };
        let is_lost = match s.way {
            Way::Own => !is_own(&self.network, address.ip()),
            Way::Mapped => {
                let main = main_socket(&self.network, Family::of(&address));
                main.and_then(|(socket, _)| mapped_address(&self.network, socket)).map(|a| a.port())
                    != Some(address.port())
            }
            // Only those outside can tell.
            Way::Open => false,
        };
        if is_lost {
            self.cease_serving(now);
        } else {
            self.rooms.examiner.check_again(now, true);
        }
    }

    /// Supernodes were asked whether unasked packets still come in, and where they see us.
    pub(super) fn on_checked(&mut self, now: Instant, outcome: &Outcome) {
        self.rooms.examiner.current = None;
        if !matches!(self.config.role, Role::Auto) {
            return;
        }
        let advertised = match &self.rooms.side {
            Side::Supernode(s) => s.advertise.first().copied(),
            Side::Leaf(_) => None,
        };
        let is_elsewhere = outcome
            .seen_by_two()
            .zip(advertised)
            .is_some_and(|(seen, own)| seen.is_ipv4() == own.is_ipv4() && seen.ip() != own.ip());
        let came_in = outcome.came_in();
        let must_stop = came_in.is_some_and(|came_in| self.rooms.role.on_check(came_in));
        if is_elsewhere || must_stop {
            self.cease_serving(now);
        } else {
            self.rooms.examiner.check_again(now, came_in == Some(false));
        }
    }

    /// All that was to be relayed in these 30 days has been.
    pub(super) fn on_relay_exhausted(&mut self, now: Instant) {
        let closed = self.channels.close_all(now);
        self.tell_closed(closed);
        if matches!(self.config.role, Role::Auto) {
            // Whoever is registered here could not be called any more.
            self.cease_serving(now);
        }
    }

    // ---- how ----

    fn begin_serving(&mut self, now: Instant, address: SocketAddr) {
        let me = self.me.id();
        let way = if self.rooms.dial_back.port().is_some() {
            Way::Mapped
        } else if is_own(&self.network, address.ip()) {
            Way::Own
        } else {
            Way::Open
        };
        let mut named = Vec::new();
        let mut was_ready = false;
        leaf!(self, now, |homes, m| {
            was_ready = homes.is_ready();
            named.extend(homes.known().filter(|(.., is_named)| *is_named).map(|(peer, at, _)| (peer, at)));
            homes.leave(m.out);
        });
        self.rooms_settle(now);
        self.rooms.book.set_max(SUPERNODE_ADVERTS_MAX);
        self.rooms.records = RecordStore::new(RECORDS_MAX);
        let mut side = Side::supernode(now, me, &self.config, &[address], &mut self.rng.overlay);
        if let Side::Supernode(s) = &mut side {
            s.way = way;
        }
        self.rooms.side = side;
        // A router that merely lets everybody in forgets like any other.
        self.peers.set_own_duty(if way == Way::Open { Duty::Binding } else { Duty::Liveness });
        let load = self.own_load(now);
        let key = self.me.secret();
        let wall = self.wall_time(now);
        let rooms = &mut self.rooms;
        if let Side::Supernode(s) = &mut rooms.side {
            let mut stores = crate::overlay::gossip::Stores {
                wall,
                random: &mut self.rng.overlay,
                book: &mut rooms.book,
                records: &mut rooms.records,
                out: &mut rooms.out,
            };
            s.gossip.set_load(load);
            // The own advert first: it is what neighbours are greeted with.
            s.gossip.handle_timeout(now, key, &mut rooms.sequence, &mut stores);
            s.gossip.join(now, &named, &mut stores);
            s.gossip.meet_all(now, &mut stores);
        }
        self.rooms.role.on_began(now, address);
        self.rooms.dial_back.on_serving();
        self.rooms.examiner.on_serving(now);
        self.events.push_back(Event::RoleChanged { supernode: true, addresses: vec![address] });
        if !was_ready {
            self.events.push_back(Event::Ready);
        }
        self.rooms_settle(now);
        self.update_wanted(now);
    }

    /// Becomes a leaf again. Those registered here are told, and find another home at once.
    pub(super) fn cease_serving(&mut self, now: Instant) {
        let me = self.me.id();
        let (mut neighbours, mut leaves, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        let key = self.me.secret();
        let wall = self.wall_time(now);
        let rooms = &mut self.rooms;
        let Side::Supernode(s) = &mut rooms.side else { return };
        let mut stores = crate::overlay::gossip::Stores {
            wall,
            random: &mut self.rng.overlay,
            book: &mut rooms.book,
            records: &mut rooms.records,
            out: &mut rooms.out,
        };
        s.gossip.withdraw(key, &mut rooms.sequence, &mut stores);
        neighbours.extend(s.gossip.addresses(&rooms.book));
        leaves.extend(s.registrations.leaves().copied());
        addresses.append(&mut s.advertise);
        self.end_examination();
        self.rooms_settle(now);
        self.rooms.side = Side::leaf(me, &self.config.role);
        self.rooms.book.set_max(LEAF_ADVERTS_MAX);
        self.rooms.records = RecordStore::new(0);
        self.peers.set_own_duty(Duty::Binding);
        self.dismiss(now, &leaves);
        let closed = self.channels.close_all(now);
        self.tell_closed(closed);
        leaf!(self, now, |homes, m| homes.join(now, &neighbours, m));
        self.rooms.role.on_stopped(now);
        self.rooms.dial_back.on_ceased();
        // What a supernode sends to whom is not noted.
        self.rooms.dial_back.blind(now);
        self.rooms.examiner.reset(now);
        self.events.push_back(Event::RoleChanged { supernode: false, addresses });
        self.events.push_back(Event::Homeless);
        self.rooms_settle(now);
        self.update_wanted(now);
    }

    /// Tells leaves that they are at home here no longer. A link that also carries user traffic stays.
    fn dismiss(&mut self, now: Instant, leaves: &[PeerId]) {
        for id in leaves {
            let Some(key) = self.peers.up_key(id) else { continue };
            if self.peers.get(key).is_some_and(|p| p.traffic.is_some()) {
                let refused = Some(Refusal::NotASupernode);
                self.peers.send(key, &Message::RegisterReply { refused, load: Load::FULL });
            } else {
                self.close_link(now, key);
            }
        }
    }

    /// Another side needs other links.
    fn update_wanted(&mut self, now: Instant) {
        let all: Vec<_> = self.peers.iter().map(|(key, p)| (key, p.id, p.wanted)).collect();
        for (key, id, was_wanted) in all {
            let wanted = self.rooms_need(&id);
            if wanted != was_wanted {
                self.set_wanted_key(key, wanted);
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.needed = now;
                }
            }
        }
    }
}
