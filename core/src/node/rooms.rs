//! The rooms that make a network of single links: adverts, gossip, homes, directory, reach. This file joins them to
//! the rest of the node: it hands them messages, link news and time, and carries out what they want ([`Action`]).

use core::net::SocketAddr;
use std::collections::VecDeque;

use super::Node;
use crate::api::{Config, Role, Saved, SupernodeStatus};
use crate::identity::PeerId;
use crate::introduce::{LookupFailure, RATE_MAX};
use crate::keepalive::Duty;
use crate::link::Identity;
use crate::nat::{Examiner, MappingBehavior, NatProfile, Observations};
use crate::net::{PeerKey, SocketId};
use crate::overlay::NetworkClock;
use crate::overlay::action::Action;
use crate::overlay::advert::{
    Advert, AdvertBook, Capabilities, LEAF_ADVERTS_MAX, OwnAdvert, SUPERNODE_ADVERTS_MAX, Sequence, statement,
};
use crate::overlay::directory::{LookupOutcome, LookupStart, Lookups, RECORDS_MAX, Record, RecordStore};
use crate::overlay::gossip::{Gossip, Stores};
use crate::overlay::home::{DRAWN_AUTO_MAX, DRAWN_MAX, Homes, LoadCounts, Registrations};
use crate::overlay::pack::send;
use crate::overlay::role::{DialBack, DialBackDuty, OrderTo, RoleWatch, Way};
use crate::path::Route;
use crate::peer::Outgoing;
use crate::random::Generators;
use crate::time::{Instant, WallTime, earliest};
use crate::wire::message::{self, Load, Message, Refusal, SignedKind};

/// Introductions per second at which a supernode counts as full: what one core carries with room to spare.
const INTRODUCTIONS_FULL: u64 = RATE_MAX as u64 * 50;
/// Relayed bytes per second at which a supernode counts as full: 100 Mbit/s.
const RELAY_FULL: u64 = 12_500_000;
/// Most actions carried out in one call: what rooms want of each other settles in a few steps.
const ACTIONS_MAX: usize = 1 << 20;

/// What this node does for others.
pub(super) enum Side {
    Leaf(Box<Homes>),
    Supernode(Box<Supernode>),
}

impl Side {
    /// That of a leaf.
    pub(super) fn leaf(me: PeerId, role: &Role) -> Self {
        // One that may serve leaves a supernode more alone: those that nothing was sent to are its witnesses.
        let drawn = if matches!(role, Role::Auto) { DRAWN_AUTO_MAX } else { DRAWN_MAX };
        Self::Leaf(Box::new(Homes::new(me, drawn)))
    }

    /// That of a supernode.
    pub(super) fn supernode(
        now: Instant,
        me: PeerId,
        config: &Config,
        advertise: &[SocketAddr],
        rng: &mut Generators,
    ) -> Self {
        let leaves = u32::try_from(config.leaves_max).unwrap_or(u32::MAX);
        let relay_kbps = u32::try_from(config.relay_rate_bps.div_ceil(1_000)).unwrap_or(u32::MAX);
        let own = OwnAdvert::new(now, advertise, leaves, relay_kbps);
        Self::Supernode(Box::new(Supernode {
            advertise: advertise.to_vec(),
            way: Way::Own,
            gossip: Gossip::new(now, me, own, rng),
            registrations: Registrations::new(me, config.leaves_max),
            dial_backs: DialBackDuty::new(),
        }))
    }
}

pub(super) struct Supernode {
    pub(super) advertise: Vec<SocketAddr>,
    /// Where this node decided to serve: why it can.
    pub(super) way: Way,
    pub(super) gossip: Gossip,
    pub(super) registrations: Registrations,
    pub(super) dial_backs: DialBackDuty,
}

/// See the module.
pub(crate) struct Rooms {
    pub(super) side: Side,
    pub(super) out: VecDeque<Action>,
    pub(super) sequence: Sequence,
    pub(super) book: AdvertBook,
    pub(super) records: RecordStore,
    lookups: Lookups,
    pub(super) observations: Observations,
    clock: NetworkClock,
    pub(super) dial_back: DialBack,
    pub(super) examiner: Examiner,
    pub(super) role: RoleWatch,
    anchors: Vec<(PeerId, SocketAddr)>,
}

impl Rooms {
    pub(crate) fn new(now: Instant, me: &Identity, config: &Config, saved: &Saved, rng: &mut Generators) -> Self {
        let id = me.id();
        let (side, adverts_max, records_max) = match &config.role {
            Role::Leaf | Role::Auto => (Side::leaf(id, &config.role), LEAF_ADVERTS_MAX, 0),
            Role::Supernode { advertise } => {
                (Side::supernode(now, id, config, advertise, rng), SUPERNODE_ADVERTS_MAX, RECORDS_MAX)
            }
        };
        Self {
            side,
            out: VecDeque::new(),
            sequence: Sequence::new(saved.sequence),
            book: AdvertBook::new(id, adverts_max),
            records: RecordStore::new(records_max),
            lookups: Lookups::default(),
            observations: Observations::default(),
            clock: NetworkClock::default(),
            dial_back: DialBack::new(matches!(config.role, Role::Auto)),
            examiner: Examiner::default(),
            role: RoleWatch::default(),
            anchors: saved.anchors.clone(),
        }
    }
}

/// Calls the leaf's side with what it works on.
macro_rules! leaf {
    ($node:expr, $now:expr, |$homes:ident, $means:ident| $call:expr) => {{
        let wall = $node.wall_time($now);
        let $crate::node::rooms::Rooms { side, out, sequence, book, .. } = &mut $node.rooms;
        if let $crate::node::rooms::Side::Leaf($homes) = side {
            let mut means = $crate::overlay::home::Means {
                key: $node.me.secret(),
                wall,
                random: &mut $node.rng.overlay,
                book,
                sequence,
                out,
            };
            let $means = &mut means;
            Some($call)
        } else {
            None
        }
    }};
}

/// Calls the supernode's side with what it works on.
macro_rules! supernode {
    ($node:expr, $now:expr, |$supernode:ident, $stores:ident| $call:expr) => {{
        let wall = $node.wall_time($now);
        let $crate::node::rooms::Rooms { side, out, book, records, .. } = &mut $node.rooms;
        if let $crate::node::rooms::Side::Supernode($supernode) = side {
            let mut stores =
                $crate::overlay::gossip::Stores { wall, random: &mut $node.rng.overlay, book, records, out };
            let $stores = &mut stores;
            Some($call)
        } else {
            None
        }
    }};
}

pub(super) use leaf;

impl Node {
    // ---- news for the rooms ----

    pub(crate) fn rooms_join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) {
        leaf!(self, now, |homes, m| homes.join(now, known, m));
        supernode!(self, now, |s, stores| s.gossip.join(now, known, stores));
    }

    /// Supernodes that somebody on the LAN claims to be.
    pub(crate) fn rooms_hear_of(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) {
        leaf!(self, now, |homes, m| homes.hear_of(now, known, m));
    }

    pub(crate) fn rooms_network(&mut self, now: Instant) {
        self.rooms.observations.clear();
        self.reach_network(now);
        leaf!(self, now, |homes, m| homes.on_network(now, m));
        let anchors = core::mem::take(&mut self.rooms.anchors);
        if !anchors.is_empty() {
            leaf!(self, now, |homes, m| homes.rejoin(now, &anchors, m));
            supernode!(self, now, |s, stores| s.gossip.join(now, &anchors, stores));
        }
    }

    /// A link is up that was not: not a rekey.
    pub(crate) fn rooms_link_up(&mut self, now: Instant, id: &PeerId) {
        supernode!(self, now, |s, _stores| s.registrations.on_link_up(now, id));
        self.rooms_link_there(now, *id);
    }

    /// There is a link, new or as good as new to the room that asked for it.
    fn rooms_link_there(&mut self, now: Instant, id: PeerId) {
        let dialled = self.peers.by_id(&id).is_some_and(|p| p.quic_client);
        leaf!(self, now, |homes, m| homes.on_link_up(now, id, m));
        supernode!(self, now, |s, stores| s.gossip.on_link_up(now, id, stores));
        if dialled && self.is_supernode(&id) {
            self.reach_link_up(now, id);
        }
        self.set_wanted(&id);
    }

    pub(crate) fn rooms_link_down(&mut self, now: Instant, id: &PeerId) {
        let id = *id;
        leaf!(self, now, |homes, m| homes.on_link_down(now, id, m));
        supernode!(self, now, |s, stores| {
            s.gossip.on_link_down(now, id, stores);
            s.registrations.on_link_down(&id, stores.out);
        });
        self.rooms.lookups.on_link_down(now, &id, &mut self.rooms.out);
        self.rooms.dial_back.on_link_down(&id);
        self.rooms.examiner.helpers.retain(|helper| *helper != id);
        self.rooms.clock.forget(&id);
    }

    /// Something authentic came from this peer.
    pub(crate) fn rooms_heard(&mut self, now: Instant, id: &PeerId) {
        let Rooms { side, book, .. } = &mut self.rooms;
        if let Side::Supernode(s) = side {
            s.gossip.on_heard(now, id, book);
            s.registrations.on_heard(id);
        }
    }

    /// A link came in from an address that we never sent anything to.
    pub(crate) fn rooms_unasked_link(&mut self, now: Instant) {
        self.rooms.dial_back.on_unasked_link(now);
        self.rooms.examiner.on_unasked(now);
    }

    pub(crate) fn rooms_leave(&mut self, now: Instant) {
        leaf!(self, now, |homes, m| homes.leave(m.out));
        self.rooms_settle(now);
    }

    pub(crate) fn rooms_timeout(&mut self, now: Instant) {
        let load = self.own_load(now);
        leaf!(self, now, |homes, m| homes.handle_timeout(now, m));
        {
            let wall = self.wall_time(now);
            let Rooms { side, out, sequence, book, records, .. } = &mut self.rooms;
            if let Side::Supernode(s) = side {
                let mut stores = Stores { wall, random: &mut self.rng.overlay, book, records, out };
                s.gossip.set_load(load);
                s.gossip.handle_timeout(now, self.me.secret(), sequence, &mut stores);
                s.registrations.handle_timeout(now, &mut stores);
                s.dial_backs.handle_timeout(now);
            }
        }
        let Rooms { out, book, records, lookups, .. } = &mut self.rooms;
        book.handle_timeout(now);
        records.handle_timeout(now);
        lookups.handle_timeout(now, out);
        self.reach_timeout(now);
    }

    pub(crate) fn rooms_poll_timeout(&self) -> Option<Instant> {
        let rooms = &self.rooms;
        let side = match &rooms.side {
            Side::Leaf(homes) => homes.poll_timeout(),
            Side::Supernode(s) => earliest(s.gossip.poll_timeout(), s.registrations.poll_timeout()),
        };
        [
            rooms.book.poll_timeout(),
            rooms.records.poll_timeout(),
            rooms.lookups.poll_timeout(),
            rooms.dial_back.poll_timeout(),
            rooms.examiner.poll_timeout(),
            rooms.role.poll_timeout(),
        ]
        .into_iter()
        .fold(side, earliest)
    }

    /// Carries out what the rooms want, until they want nothing more.
    pub(crate) fn rooms_settle(&mut self, now: Instant) {
        for _ in 0..ACTIONS_MAX {
            if let Some(action) = self.rooms.out.pop_front() {
                self.carry_out(now, action);
            } else if let Some((id, outcome)) = self.rooms.lookups.poll_outcome() {
                match outcome {
                    LookupOutcome::Found(record) => self.on_record_found(now, id, &record),
                    LookupOutcome::Unknown => self.on_lookup_failed(now, id, LookupFailure::Unknown),
                    LookupOutcome::NoAnswer => self.on_lookup_failed(now, id, LookupFailure::NoAnswer),
                }
            } else {
                return;
            }
        }
        debug_assert!(false, "rooms never stop wanting");
    }

    fn carry_out(&mut self, now: Instant, action: Action) {
        match action {
            Action::Send { to, messages } => {
                if let Some(key) = self.peers.up_key(&to) {
                    self.peers.push(Outgoing::Messages { peer: key, route: None, bytes: messages, awaits: false });
                }
            }
            Action::Dial { peer, address } => {
                if self.leaving {
                    return;
                }
                let up = self.peers.up_key(&peer).is_some();
                let key = if up { self.peers.key_of(&peer) } else { self.dial(now, peer, address, None) };
                let Some(key) = key else {
                    self.rooms_link_down(now, &peer);
                    return;
                };
                self.set_wanted_key(key, true);
                if up {
                    self.rooms_link_there(now, peer);
                }
            }
            Action::DialBack { peer, address, nonce } => {
                self.dial(now, peer, address, Some(Message::DialBack { nonce }));
            }
            Action::Release { peer } => self.release(now, &peer),
            Action::Event(event) => self.events.push_back(event),
        }
    }

    /// A room needs the link no longer; it stays while another room does.
    fn release(&mut self, now: Instant, id: &PeerId) {
        let needed = self.rooms_need(id);
        let is_leaf_here = self.is_registered(id);
        let Some(key) = self.peers.key_of(id) else { return };
        self.set_wanted_key(key, needed);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.needed = now;
            // Perhaps because it did not answer: a dead link must not be taken for one when the peer is dialled again.
            peer.beats.doubt(now);
            if !needed && is_leaf_here && peer.traffic.is_none() {
                // It was a supernode, and is a leaf of ours now: it keeps the link alive.
                peer.duty = Duty::None;
            }
        }
    }

    pub(super) fn rooms_need(&self, id: &PeerId) -> bool {
        if self.rooms.examiner.helpers.contains(id) {
            return true;
        }
        match &self.rooms.side {
            Side::Leaf(homes) => homes.needs(id),
            Side::Supernode(s) => s.gossip.needs(id) || (s.registrations.needs(id) && !s.registrations.contains(id)),
        }
    }

    fn set_wanted(&mut self, id: &PeerId) {
        let needed = self.rooms_need(id);
        if needed && let Some(key) = self.peers.key_of(id) {
            self.set_wanted_key(key, true);
        }
    }

    pub(super) fn set_wanted_key(&mut self, key: PeerKey, wanted: bool) {
        let own_duty = self.peers.own_duty();
        if let Some(peer) = self.peers.get_mut(key) {
            peer.wanted = wanted;
            if wanted && peer.duty == Duty::None {
                peer.duty = own_duty;
            }
        }
        self.peers.touch(key);
    }

    // ---- messages ----

    pub(crate) fn on_room_message(
        &mut self,
        now: Instant,
        key: PeerKey,
        id: &PeerId,
        route: Route,
        message: Message<'_>,
    ) {
        let id = *id;
        match message {
            Message::Lookup { peer } => {
                if matches!(self.rooms.side, Side::Supernode(_)) {
                    // Who serves others has no home, and is found by its advert. It may have been a leaf when it was
                    // looked for last.
                    if let Some(bytes) = self.rooms.book.bytes(&peer) {
                        send(&mut self.rooms.out, id, &Message::Signed { kind: SignedKind::Advert, bytes });
                    }
                    self.rooms_settle(now);
                    let mut buf = [0; crate::peer::MESSAGES_LEN_MAX];
                    if let Some(len) = message::encode(&self.rooms.records.answer(peer), &mut buf) {
                        self.peers.send_bytes(key, None, buf[..len].into(), false);
                    }
                }
            }
            Message::LookupReply { peer, record } => {
                let wall = self.wall_time(now);
                self.rooms.lookups.on_reply(now, &id, wall, peer, record, &mut self.rooms.out);
            }
            Message::Register { other_home, record } => self.on_register(now, id, other_home, record),
            Message::RegisterReply { refused, load } => {
                leaf!(self, now, |homes, m| homes.on_register_reply(now, id, refused, load, m));
                self.keepalive_on_home(now);
                self.set_wanted(&id);
            }
            Message::Deregister => {
                supernode!(self, now, |s, stores| s.registrations.on_deregister(&id, stores));
            }
            Message::HomeDown { home } => {
                leaf!(self, now, |homes, m| homes.on_home_down(now, id, home, m));
            }
            Message::AdvertsRequest => {
                // The answer is long: only over a path that is proven.
                if self.peers.get(key).is_some_and(|p| p.paths.is_proven(&route)) {
                    supernode!(self, now, |s, stores| s.gossip.on_adverts_request(now, id, stores));
                }
            }
            Message::Signed { kind, bytes } => {
                supernode!(self, now, |s, stores| s.gossip.on_signed(now, id, kind, bytes, stores));
                if kind == SignedKind::Advert {
                    leaf!(self, now, |homes, m| homes.on_advert(now, id, bytes, m));
                    self.on_callee_advert(now, bytes);
                    if !self.is_serving() && self.rooms.dial_back.reachable().is_none() {
                        self.count_fresh(now);
                    }
                }
                self.set_wanted(&id);
            }
            Message::Digest { kind, pull, entries } => {
                supernode!(self, now, |s, stores| s.gossip.on_digest(now, id, kind, pull, &entries, stores));
            }
            Message::Hints(hints) => {
                supernode!(self, now, |s, stores| s.gossip.on_hints(now, id, &hints, stores));
                if matches!(self.rooms.side, Side::Leaf(_)) {
                    self.rooms.book.on_hints(now, &id, &hints);
                }
                leaf!(self, now, |homes, m| homes.on_listed(now, id, m));
                self.set_wanted(&id);
            }
            Message::LoadRequest => {
                let reply = self.load_reply(now);
                self.peers.send(key, &reply);
            }
            Message::LoadReply { load, time_s } => {
                if self.is_supernode(&id) {
                    self.rooms.clock.on_told(now, id, time_s);
                }
                let rtt = self.peers.get(key).and_then(|p| p.paths.rtt_of(&route));
                leaf!(self, now, |homes, m| homes.on_load_reply(now, id, load, rtt, m));
                supernode!(self, now, |s, stores| {
                    s.gossip.on_load_reply(now, id, load, stores);
                    s.registrations.on_heard(&id);
                });
            }
            Message::DialBackRequest { nonce, contacted, port } => {
                let Route::Direct { remote, .. } = route else { return };
                if route.is_tcp() || !self.peers.get(key).is_some_and(|p| p.paths.is_proven(&route)) {
                    return;
                }
                let Rooms { side, out, .. } = &mut self.rooms;
                if let Side::Supernode(s) = side {
                    let linked: Vec<PeerId> = s.gossip.linked().copied().collect();
                    let to = OrderTo { linked: &linked, choice: &mut self.rng.overlay.peer_choice };
                    s.dial_backs.on_request(now, id, remote, nonce, &contacted, port, to, out);
                }
            }
            Message::DialBackOrder { peer, address, nonce } => {
                let has_link = self.peers.up_key(&peer).is_some();
                let Rooms { side, out, book, .. } = &mut self.rooms;
                if let Side::Supernode(s) = side {
                    s.dial_backs.on_order(now, &id, peer, address.into(), nonce, has_link, book, out);
                }
            }
            Message::DialBackReply { nonce, refused } => {
                self.count_fresh(now);
                let Rooms { dial_back, out, .. } = &mut self.rooms;
                dial_back.on_reply(now, &id, nonce, refused, &mut self.rng.overlay, out);
            }
            // It was an early message, and taken as such.
            Message::DialBack { .. } => {}

            // The rest is not for these rooms; `on_message` has taken it.
            Message::Confirm
            | Message::Challenge { .. }
            | Message::ChallengeReply { .. }
            | Message::Candidates(_)
            | Message::Close
            | Message::Introduce { .. }
            | Message::Introduced { .. }
            | Message::IntroducedReply { .. }
            | Message::IntroduceReply { .. }
            | Message::ChannelClosed { .. }
            | Message::Upgrade(_)
            | Message::Datagram(_)
            | Message::Probe { .. }
            | Message::ProbeReply { .. }
            | Message::Punch(_)
            | Message::Vouch { .. }
            | Message::Vouched { .. } => debug_assert!(false, "taken before"),
        }
    }

    /// The early message of an Init that is fresh: the answer, if it has one.
    pub(crate) fn on_early(&mut self, now: Instant, early: Message<'_>) -> Option<Box<[u8]>> {
        let mut buf = [0; crate::peer::MESSAGES_LEN_MAX];
        let reply = match early {
            Message::Lookup { peer } if matches!(self.rooms.side, Side::Supernode(_)) => {
                message::encode(&self.rooms.records.answer(peer), &mut buf)
            }
            Message::LoadRequest => message::encode(&self.load_reply(now), &mut buf),
            // Nothing else may be repeated safely, or is worth it.
            _ => None,
        };
        reply.map(|len| buf[..len].into())
    }

    fn on_register(&mut self, now: Instant, id: PeerId, other_home: Option<PeerId>, record: &[u8]) {
        if !self.is_serving() {
            // It was a supernode when the leaf heard of it.
            let refused = Some(Refusal::NotASupernode);
            send(&mut self.rooms.out, id, &Message::RegisterReply { refused, load: Load::FULL });
            return;
        }
        let load = self.own_load(now);
        supernode!(self, now, |s, stores| {
            let registered = s.registrations.on_register(now, id, other_home, record, load, stores);
            if registered.is_record_new {
                s.gossip.push_record(record, stores.out);
            }
        });
    }

    // ---- what other parts of the node ask ----

    /// A supernode told where it sees us.
    pub(crate) fn on_observed(
        &mut self,
        now: Instant,
        key: PeerKey,
        reporter_address: SocketAddr,
        socket: SocketId,
        seen: SocketAddr,
    ) {
        let Some(id) = self.peers.get(key).map(|p| p.id) else { return };
        // The source of a TCP connection is nowhere that a datagram could be sent to.
        if socket.is_tcp() || !self.is_supernode(&id) {
            return;
        }
        let before = self.rooms.observations.candidates(socket);
        let is_elsewhere = self.rooms.observations.on_observed(id, reporter_address, socket, seen);
        // Only a home is sent enough to be remembered for. Another supernode, asked again after an hour, sees another port
        // of a router that maps by destination, and that says nothing.
        if is_elsewhere && self.own_homes().iter().any(|(home, _)| *home == id) {
            self.keepalive_on_forgotten(now);
        }
        let after = self.rooms.observations.candidates(socket);
        if after.iter().any(|a| !before.contains(a)) {
            self.on_candidates_changed(now);
        }
        self.reach_observed(now, !before.is_empty() && before != after);
    }

    /// Where this supernode saw a socket of ours, if that is remembered.
    pub(crate) fn seen_from(&self, id: &PeerId, remote: SocketAddr, socket: SocketId) -> Option<SocketAddr> {
        self.rooms.observations.seen_from(id, remote, socket)
    }

    /// Addresses that supernodes see us at, per socket, the most agreed on first.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        self.network
            .sockets
            .iter()
            .flat_map(|(socket, _)| self.rooms.observations.candidates(*socket).into_iter().take(2))
            .collect()
    }

    /// Whether this peer is known to be a supernode: by its advert, or because the user or an earlier run says so.
    pub(crate) fn is_supernode(&self, id: &PeerId) -> bool {
        self.rooms.book.contains(id) || self.rooms_need(id)
    }

    /// Where a supernode says that it is.
    pub(crate) fn supernode_addresses(&self, id: &PeerId) -> Vec<SocketAddr> {
        match self.rooms.book.get(id) {
            Some(advert) => advert.addresses.iter().map(|a| (*a).into()).collect(),
            None => Vec::new(),
        }
    }

    /// Where a peer is at home, as far as is known without asking.
    pub(crate) fn known_homes_of(&self, id: &PeerId) -> Vec<(PeerId, SocketAddr)> {
        if let Side::Supernode(s) = &self.rooms.side
            && s.registrations.contains(id)
        {
            return s.advertise.first().map(|address| (self.me.id(), *address)).into_iter().collect();
        }
        if let Some(homes) = self.known_homes.get(id) {
            return homes.clone();
        }
        let record = self.rooms.records.get(id).and_then(|bytes| Record::parse(bytes).ok());
        record.map(|r| homes_of(&r)).unwrap_or_default()
    }

    /// Asks supernodes for a peer's record.
    pub(crate) fn start_lookup(&mut self, now: Instant, id: PeerId) {
        let supernodes: Vec<PeerId> = match &self.rooms.side {
            Side::Leaf(homes) => homes.linked().collect(),
            Side::Supernode(s) => s.gossip.linked().copied().collect(),
        };
        match self.rooms.lookups.start(now, id, &supernodes, &mut self.rooms.out) {
            LookupStart::Cached(record) => self.on_record_found(now, id, &record),
            LookupStart::Pending => {}
            LookupStart::Nobody => {
                let why = if self.is_lost() { LookupFailure::Lost } else { LookupFailure::Nobody };
                self.on_lookup_failed(now, id, why);
            }
            LookupStart::Full => self.on_lookup_failed(now, id, LookupFailure::NoAnswer),
        }
    }

    /// Whether this leaf knows no supernode at all.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(&self.rooms.side, Side::Leaf(homes) if homes.is_lost())
    }

    /// Homes from an earlier lookup did not help: the next one asks anew.
    pub(crate) fn forget_homes(&mut self, id: &PeerId) {
        self.known_homes.remove(id);
        self.rooms.lookups.forget(id);
    }

    /// An advert of somebody whom this leaf calls: it is found where that says, whether there is room for it in the book
    /// or not.
    fn on_callee_advert(&mut self, now: Instant, bytes: &[u8]) {
        if self.calls.is_empty() || self.is_serving() {
            return;
        }
        let Ok(advert) = statement::parse::<Advert>(bytes) else { return };
        let is_good = self.calls.contains_key(&advert.id)
            && advert.capabilities.has(Capabilities::HOME)
            && statement::time_left(&advert, self.wall_time(now)).is_ok()
            && statement::verify(&advert, bytes).is_ok();
        if is_good {
            let homes: Vec<_> = advert.addresses.iter().map(|address| (advert.id, (*address).into())).collect();
            self.remember_homes(advert.id, homes.clone());
            self.on_located(now, advert.id, homes);
        }
    }

    fn on_record_found(&mut self, now: Instant, id: PeerId, record: &Record) {
        self.on_located(now, id, homes_of(record));
    }

    /// Whether a leaf is registered here.
    pub(crate) fn is_registered(&self, id: &PeerId) -> bool {
        matches!(&self.rooms.side, Side::Supernode(s) if s.registrations.contains(id))
    }

    fn load_reply(&self, now: Instant) -> Message<'static> {
        Message::LoadReply { load: self.own_load(now), time_s: self.own_wall(now).map_or(0, WallTime::as_secs) }
    }

    /// The time for statements: by the own wall clock, unless that is wrong.
    pub(super) fn wall_time(&self, now: Instant) -> Option<WallTime> {
        self.rooms.clock.time(now, self.own_wall(now), matches!(self.rooms.side, Side::Leaf(_)))
    }

    pub(crate) fn own_load(&self, now: Instant) -> Load {
        let Side::Supernode(s) = &self.rooms.side else { return Load::default() };
        let mut load = LoadCounts {
            leaves: s.registrations.len() as u64,
            leaves_max: self.config.leaves_max as u64,
            introductions: self.duties.per_second(now).into(),
            introductions_max: INTRODUCTIONS_FULL,
            relay_bytes: self.channels.bytes_per_second(now),
            relay_bytes_max: match self.config.duty_rate_bps / 8 {
                0 => RELAY_FULL,
                capped => capped.min(RELAY_FULL),
            },
        }
        .load();
        if self.channels.is_exhausted() {
            load.relay = u8::MAX;
        }
        load
    }

    pub(crate) fn observed(&self) -> Vec<(PeerId, SocketAddr)> {
        self.rooms.observations.list().collect()
    }

    pub(crate) fn mapping(&self) -> Option<MappingBehavior> {
        let (socket, _) = self.network.sockets.first()?;
        self.rooms.observations.mapping(*socket)
    }

    /// What was found out about our router.
    pub(crate) fn examined_profile(&self) -> NatProfile {
        self.rooms.examiner.profile(self.mapping(), self.is_open())
    }

    pub(crate) fn reachable(&self) -> Option<bool> {
        self.rooms.dial_back.reachable()
    }

    pub(crate) fn own_homes(&self) -> Vec<(PeerId, SocketAddr)> {
        match &self.rooms.side {
            Side::Leaf(homes) => homes.registered().collect(),
            Side::Supernode(_) => Vec::new(),
        }
    }

    /// Homes that are linked directly now: which, from what socket, to where.
    pub(crate) fn direct_homes(&self) -> impl Iterator<Item = (PeerKey, SocketId, SocketAddr)> + '_ {
        self.own_homes().into_iter().filter_map(|(home, _)| {
            let key = self.peers.up_key(&home)?;
            match self.peers.get(key)?.paths.current()? {
                Route::Direct { socket, remote } => Some((key, socket, remote)),
                Route::Relayed { .. } => None,
            }
        })
    }

    pub(crate) fn supernodes(&self, now: Instant) -> Vec<SupernodeStatus> {
        self.rooms
            .book
            .iter()
            .filter(|(id, _)| **id != self.me.id())
            .filter_map(|(id, advert)| {
                Some(SupernodeStatus { peer: *id, address: advert.address()?, load: self.rooms.book.load(now, id) })
            })
            .collect()
    }

    pub(crate) fn leaves(&self) -> usize {
        match &self.rooms.side {
            Side::Leaf(_) => 0,
            Side::Supernode(s) => s.registrations.len(),
        }
    }
}

fn homes_of(record: &Record) -> Vec<(PeerId, SocketAddr)> {
    record.homes.iter().map(|(home, address)| (*home, (*address).into())).collect()
}
