//! A tiny network of rooms for tests: links that come up or do not, packets that arrive late or not at all, virtual
//! time. It composes the rooms the way a node does, without cryptography and paths.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Homes, Means, Registrations};
use crate::account::Source;
use crate::api::{Event, Save, Saved};
use crate::identity::{PeerId, SecretKey};
use crate::link::Identity;
use crate::overlay::advert::{LEAF_ADVERTS_MAX, MembershipTable, OwnAdvert, Sequence};
use crate::overlay::directory::{Placing, RECORDS_MAX, RecordStore};
use crate::overlay::gossip::{Gossip, Stores};
use crate::overlay::output::Output;
use crate::overlay::pack::Packer;
use crate::random::{ChoiceRng, Generators, Seed};
use crate::time::{Instant, WallTime, earliest};
use crate::wire::message::{Load, Message, Refusal, decode_next};

const DELAY: Duration = Duration::from_millis(20);
const DIAL_FAILS_AFTER: Duration = Duration::from_secs(5);
const WALL_AT_START: u64 = 1_800_000_000;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

pub(crate) fn ms(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

pub(crate) fn s(s: u64) -> Instant {
    ms(s * 1000)
}

pub(crate) fn wall_at(now: Instant) -> WallTime {
    WallTime::from_micros(WALL_AT_START * 1_000_000 + now.as_micros())
}

pub(crate) fn generators(n: u8) -> Generators {
    Generators::new(&Seed::new([n; 32]), "test")
}

pub(crate) struct TestNode {
    pub key: SecretKey,
    pub me: Identity,
    /// What it answers to whoever has it make a trial, and those that it was to make.
    pub trial: Option<Refusal>,
    pub trials: Vec<(PeerId, Box<[u8]>)>,
    pub address: SocketAddr,
    pub gossip: Option<Gossip>,
    pub registrations: Option<Registrations>,
    pub placing: Option<Placing>,
    pub homes: Option<Homes>,
    pub members: MembershipTable,
    pub records: RecordStore,
    pub sequence: Sequence,
    pub random: Generators,
    pub load: Load,
    pub saved: Saved,
    pub events: Vec<(Instant, Event)>,
    /// Bytes and packets sent, by the message that comes first in them.
    pub sent_bytes: usize,
    pub is_up: bool,
}

enum Delivery {
    Packet { from: PeerId, to: PeerId, bytes: Box<[u8]> },
    Up { a: PeerId, b: PeerId, address: SocketAddr },
    Down { at: PeerId, of: PeerId },
    Alive { at: PeerId, of: PeerId },
}

pub(crate) struct TestNet {
    pub now: Instant,
    pub nodes: BTreeMap<PeerId, TestNode>,
    pub loss_percent: usize,
    /// Places in the tables of supernodes that start from now on.
    pub table_max: usize,
    /// How long a link stands after the other end crashed.
    pub notice_after: Duration,
    pub dials: Vec<(Instant, PeerId, PeerId)>,
    pub vets: Vec<(Instant, PeerId, PeerId)>,
    links: BTreeSet<(PeerId, PeerId)>,
    wire: BTreeMap<(Instant, u64), Delivery>,
    next: u64,
    chance: ChoiceRng,
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}

impl TestNet {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            now: s(1),
            nodes: BTreeMap::new(),
            loss_percent: 0,
            table_max: 1_024,
            notice_after: Duration::from_secs(60),
            dials: Vec::new(),
            vets: Vec::new(),
            links: BTreeSet::new(),
            wire: BTreeMap::new(),
            next: 0,
            chance: ChoiceRng::new([seed; 32]),
        }
    }

    fn node(&mut self, n: u8, address: SocketAddr, saved: Saved, adverts_max: usize) -> TestNode {
        let key = key(n);
        TestNode {
            address,
            gossip: None,
            registrations: None,
            placing: None,
            homes: None,
            members: MembershipTable::new(key.peer_id(), adverts_max),
            records: RecordStore::new(RECORDS_MAX),
            sequence: Sequence::new(saved.sequence),
            random: Generators::new(&Seed::new(self.chance.bytes()), "test"),
            load: Load::default(),
            saved,
            events: Vec::new(),
            sent_bytes: 0,
            is_up: true,
            me: Identity::new(key.clone()),
            trial: Some(Refusal::Busy),
            trials: Vec::new(),
            key,
        }
    }

    pub(crate) fn address_of(n: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, n, 1], 4000))
    }

    /// Starts, or starts again, the supernode `n`.
    pub(crate) fn supernode(&mut self, n: u8, known: &[(PeerId, SocketAddr)]) -> PeerId {
        let saved = self.nodes.get(&key(n).peer_id()).map(|node| node.saved.clone()).unwrap_or_default();
        let anchors = saved.anchors.clone();
        let mut node = self.node(n, Self::address_of(n), saved, self.table_max);
        let id = node.key.peer_id();
        let own = OwnAdvert::new(self.now, &[node.address], 1000, 0);
        node.gossip = Some(Gossip::new(self.now, id, own, &mut node.random));
        node.registrations = Some(Registrations::new(self.now, id, 1000));
        node.placing = Some(Placing::new(self.now, id));
        self.nodes.insert(id, node);
        self.fire(id);
        self.with(id, |node, now, out| {
            let TestNode { gossip, members, records, random, .. } = node;
            let mut stores = Stores { wall: Some(wall_at(now)), random, members, records, out };
            if let Some(gossip) = gossip {
                gossip.join(now, &anchors, &mut stores);
                gossip.join(now, known, &mut stores);
            }
        });
        id
    }

    /// Starts, or starts again, the leaf `n`.
    pub(crate) fn leaf(&mut self, n: u8, known: &[(PeerId, SocketAddr)]) -> PeerId {
        let saved = self.nodes.get(&key(n).peer_id()).map(|node| node.saved.clone()).unwrap_or_default();
        let anchors = saved.anchors.clone();
        let mut node = self.node(n, SocketAddr::from(([198, 51, 100, n], 5000)), saved, LEAF_ADVERTS_MAX);
        let id = node.key.peer_id();
        node.homes = Some(Homes::new(id, crate::overlay::home::DRAWN_MAX));
        self.nodes.insert(id, node);
        self.with(id, |node, now, out| {
            node.homes(now, out, |homes, m| {
                homes.join(now, &anchors, m);
                homes.join(now, known, m);
            });
        });
        id
    }

    pub(crate) fn get_mut(&mut self, id: &PeerId) -> &mut TestNode {
        self.nodes.get_mut(id).unwrap()
    }

    pub(crate) fn get(&self, id: &PeerId) -> &TestNode {
        &self.nodes[id]
    }

    pub(crate) fn homes_of(&self, leaf: &PeerId) -> Vec<PeerId> {
        self.get(leaf).homes.as_ref().unwrap().registered().map(|(peer, _)| peer).collect()
    }

    /// The node is gone without a word; others notice after `notice_after`.
    pub(crate) fn crash(&mut self, id: PeerId) {
        self.nodes.get_mut(&id).unwrap().is_up = false;
        let links: Vec<_> = self.links.iter().filter(|(a, b)| *a == id || *b == id).copied().collect();
        for (a, b) in links {
            self.links.remove(&(a, b));
            let at = if a == id { b } else { a };
            self.post(self.notice_after, Delivery::Down { at, of: id });
        }
    }

    fn post(&mut self, after: Duration, delivery: Delivery) {
        self.next += 1;
        self.wire.insert((self.now + after, self.next), delivery);
    }

    /// Calls into one node and carries out what it wants.
    pub(crate) fn with(&mut self, id: PeerId, call: impl FnOnce(&mut TestNode, Instant, &mut VecDeque<Output>)) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_up) else { return };
        let mut out = VecDeque::new();
        call(node, self.now, &mut out);
        for output in out {
            self.act(id, output);
        }
    }

    fn act(&mut self, me: PeerId, output: Output) {
        match output {
            Output::Send { to, messages } => {
                assert!(messages.len() <= 1100);
                self.nodes.get_mut(&me).unwrap().sent_bytes += messages.len() + 25 + 28;
                let is_lost = self.chance.below(100) < self.loss_percent;
                if self.links.contains(&pair(me, to)) && !is_lost {
                    self.post(DELAY, Delivery::Packet { from: me, to, bytes: messages });
                }
            }
            Output::SendAt { to, address, messages } => {
                let is_there = self.nodes.get(&to).is_some_and(|n| n.is_up && n.address == address);
                if is_there && !self.links.contains(&pair(me, to)) {
                    self.post(DELAY * 2, Delivery::Up { a: me, b: to, address });
                    self.post(DELAY * 3, Delivery::Packet { from: me, to, bytes: messages });
                } else if is_there {
                    self.act(me, Output::Send { to, messages });
                }
            }
            Output::Dial { peer, address } => {
                self.dials.push((self.now, me, peer));
                let answers = self.nodes.get(&peer).is_some_and(|n| n.is_up && n.address == address);
                if self.links.contains(&pair(me, peer)) {
                    self.link_up(me, peer);
                } else if answers {
                    self.post(DELAY * 2, Delivery::Up { a: me, b: peer, address });
                } else {
                    self.post(DIAL_FAILS_AFTER, Delivery::Down { at: me, of: peer });
                }
            }
            Output::AskAlive { peer } => {
                self.nodes.get_mut(&me).unwrap().sent_bytes += 17 + 28;
                let is_lost = self.chance.below(100) < self.loss_percent;
                if self.links.contains(&pair(me, peer)) && !is_lost {
                    self.post(DELAY * 2, Delivery::Alive { at: me, of: peer });
                }
            }
            Output::Vet { peer, address } => {
                self.vets.push((self.now, me, peer));
                if self.nodes.get(&peer).is_some_and(|n| n.is_up && n.address == address) {
                    self.post(DELAY * 2, Delivery::Up { a: me, b: peer, address });
                }
            }
            Output::Release { peer } => {
                if !self.nodes[&me].needs(&peer) && self.links.remove(&pair(me, peer)) {
                    self.post(DELAY, Delivery::Down { at: peer, of: me });
                }
            }
            Output::Event(event) => {
                let node = self.nodes.get_mut(&me).unwrap();
                match &event {
                    Event::Save(Save::Sequence(n)) => node.saved.sequence = *n,
                    Event::Save(Save::Anchors(anchors)) => node.saved.anchors.clone_from(anchors),
                    _ => node.events.push((self.now, event)),
                }
            }
            Output::DialBack { .. } | Output::Keep { .. } | Output::Rest { .. } => {}
            Output::Review
            | Output::Dismiss { .. }
            | Output::CloseChannels
            | Output::Duty(_)
            | Output::Locate { .. }
            | Output::Attested { .. }
            | Output::AtHome
            | Output::Seen
            | Output::Examine(_)
            | Output::Serving
            | Output::Ceased => panic!("no part alone wants that"),
        }
    }

    fn reached(&mut self, at: PeerId, peer: PeerId, address: SocketAddr) {
        self.with(at, |node, now, out| {
            let TestNode { gossip, members, records, random, .. } = node;
            if let Some(gossip) = gossip {
                let wall = Some(wall_at(now));
                gossip.on_reached(now, peer, address, &mut Stores { wall, random, members, records, out });
            }
        });
    }

    fn link_up(&mut self, at: PeerId, peer: PeerId) {
        self.with(at, |node, now, out| {
            let TestNode { gossip, registrations, homes, members, records, random, me, sequence, .. } = node;
            let wall = Some(wall_at(now));
            if let Some(gossip) = gossip {
                gossip.on_link_up(now, peer, &mut Stores { wall, random, members, records, out });
            }
            if let Some(registrations) = registrations {
                registrations.on_link_up(now, &peer);
            }
            if let Some(homes) = homes {
                homes.on_link_up(now, peer, &mut Means { me, wall, random, members, sequence, out });
            }
        });
    }

    fn link_down(&mut self, at: PeerId, peer: PeerId) {
        self.with(at, |node, now, out| {
            let TestNode { gossip, registrations, homes, members, records, random, me, sequence, .. } = node;
            let wall = Some(wall_at(now));
            if let Some(gossip) = gossip {
                gossip.on_link_down(now, peer, &mut Stores { wall, random, members, records, out });
            }
            if let Some(registrations) = registrations
                && registrations.on_link_down(&peer, out)
            {
                records.let_go(now, &peer);
            }
            if let Some(homes) = homes {
                homes.on_link_down(now, peer, &mut Means { me, wall, random, members, sequence, out });
            }
        });
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Up { a, b, address } => {
                if self.nodes[&a].is_up && self.nodes[&b].is_up {
                    let is_new = self.links.insert(pair(a, b));
                    self.reached(a, b, address);
                    if is_new {
                        self.link_up(a, b);
                        self.link_up(b, a);
                    }
                } else {
                    self.link_down(a, b);
                }
            }
            Delivery::Alive { at, of } => {
                if self.nodes[&of].is_up && self.links.contains(&pair(at, of)) {
                    self.with(at, |node, now, out| {
                        let TestNode { gossip, registrations, members, records, random, .. } = node;
                        if let (Some(gossip), Some(registrations)) = (gossip, registrations) {
                            let wall = Some(wall_at(now));
                            gossip.on_heard(now, &of, &mut Stores { wall, random, members, records, out });
                            registrations.on_heard(now, &of);
                        }
                    });
                }
            }
            Delivery::Down { at, of } => {
                if !self.links.contains(&pair(at, of)) {
                    self.link_down(at, of);
                }
            }
            Delivery::Packet { from, to, bytes } => {
                if self.links.contains(&pair(from, to)) {
                    let ip = self.nodes.get(&from).map(|n| n.address.ip());
                    self.with(to, |node, now, out| {
                        let mut rest = &*bytes;
                        while !rest.is_empty() {
                            let message = decode_next(&mut rest).unwrap();
                            node.on_message(now, (from, ip), message, out);
                        }
                    });
                }
            }
        }
    }

    fn fire(&mut self, id: PeerId) {
        self.with(id, TestNode::handle_timeout);
        if let Some(node) = self.nodes.get(&id).filter(|node| node.is_up) {
            assert!(node.poll_timeout().is_none_or(|at| at > self.now), "a deadline is left after handle_timeout");
        }
    }

    /// Jumps from one thing due to the next, until `end`.
    pub(crate) fn run_until(&mut self, end: Instant) {
        loop {
            let due = |(id, n): (&PeerId, &TestNode)| n.poll_timeout().filter(|_| n.is_up).map(|at| (at, *id));
            let timer = self.nodes.iter().filter_map(due).min();
            let packet = self.wire.first_key_value().map(|(key, _)| *key);
            let Some(at) = earliest(timer.map(|t| t.0), packet.map(|p| p.0)).filter(|at| *at <= end) else { break };
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            if let Some(key) = packet.filter(|p| p.0 == at) {
                let delivery = self.wire.remove(&key).unwrap();
                self.deliver(delivery);
            } else if let Some((_, id)) = timer {
                self.fire(id);
            }
        }
        self.now = end;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }
}

impl TestNode {
    pub(crate) fn homes(
        &mut self,
        now: Instant,
        out: &mut VecDeque<Output>,
        call: impl FnOnce(&mut Homes, &mut Means<'_>),
    ) {
        let Self { homes, members, random, me, sequence, .. } = self;
        if let Some(homes) = homes {
            call(homes, &mut Means { me, wall: Some(wall_at(now)), random, members, sequence, out });
        }
    }

    fn needs(&self, peer: &PeerId) -> bool {
        self.gossip.as_ref().is_some_and(|g| g.needs(peer))
            || self.registrations.as_ref().is_some_and(|r| r.needs(peer))
            || self.homes.as_ref().is_some_and(|h| h.needs(peer))
    }

    fn on_message(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        message: Message<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let load = self.load;
        let Self { gossip, registrations, placing, homes, members, records, random, me, sequence, .. } = self;
        let wall = Some(wall_at(now));
        if let (Some(gossip), Some(registrations)) = (gossip, registrations) {
            let s = &mut Stores { wall, random, members, records, out };
            gossip.on_heard(now, &from, s);
            registrations.on_heard(now, &from);
            match message {
                Message::AdvertsRequest => gossip.on_adverts_request(now, (from, None), s),
                Message::Signed { kind, bytes } => {
                    gossip.on_signed(now, (from, ip), kind, bytes, s);
                }
                Message::Digest { kind, pull, entries } => gossip.on_digest(now, from, kind, pull, &entries, s),
                Message::Hints(hints) => gossip.on_hints(now, from, &hints, s),
                Message::LoadReply { load, .. } => gossip.on_load_reply(now, from, load, s),
                Message::LoadRequest => {
                    let partners = registrations.partners(&mut s.random.peer_choice);
                    let mut packer = Packer::new(from, s.out);
                    packer.push(&Message::LoadReply { load, time_s: 0 });
                    if !partners.is_empty() {
                        packer.push(&Message::Partners(partners));
                    }
                    packer.push(&Message::Places(registrations.places()));
                }
                Message::Places(places) => s.members.on_places(now, &from, places),
                // It cannot be known yet that this is no leaf.
                Message::Partners(_) | Message::Rooms(_) => {}
                Message::Register { other_home, record } => {
                    let registered =
                        registrations.on_register(now, (from, Source::Peer(from)), other_home, record, load, s);
                    if let Some(placing) = placing.as_mut().filter(|_| registered.is_record_new) {
                        placing.put(now, record, s.members, &mut s.random.jitter, s.out);
                    }
                }
                Message::Neighbour(word) => gossip.on_neighbour(now, from, word, s),
                Message::Renew(renewals) => gossip.on_renew(now, (from, ip), &renewals, s),
                Message::Wanted(renewals) => {
                    if let Some(placing) = placing.as_mut() {
                        placing.on_wanted(now, from, &renewals, s.records, s.out);
                    }
                }
                Message::PingFor { peer } => gossip.on_ping_for(now, from, peer, s),
                Message::Alive { peer } => gossip.on_alive(&from, &peer),
                Message::Trial { init } => {
                    self.trials.push((from, init.into()));
                    crate::overlay::pack::send(s.out, from, &Message::TrialReply { refused: self.trial });
                }
                Message::Deregister => registrations.on_deregister(now, &from, s),
                Message::Lookup { peer } => crate::overlay::pack::send(s.out, from, &s.records.answer(peer)),
                other => panic!("not for a supernode: {other:?}"),
            }
        } else if let Some(homes) = homes {
            let m = &mut Means { me, wall, random, members, sequence, out };
            match message {
                Message::Signed { bytes, .. } => homes.on_advert(now, (from, ip), bytes, m),
                Message::LoadReply { load, .. } => homes.on_load_reply(now, from, load, (Some(DELAY * 2), true), m),
                Message::RegisterReply { refused, load } => homes.on_register_reply(now, from, refused, load, m),
                Message::TrialReply { refused } => homes.on_trial_reply(now, &from, refused, m),
                Message::HomeDown { home } => homes.on_silent(now, home, Some(from), m),
                Message::Places(places) => homes.on_places(now, from, places, m),
                Message::Rooms(rooms) => homes.on_rooms(now, &from, &rooms, m),
                Message::Partners(partners) => homes.on_partners(now, (from, ip), &partners, m),
                Message::Elsewhere { retry_after_s, supernodes } => {
                    homes.on_elsewhere(now, (from, ip), retry_after_s, &supernodes, m);
                }
                // A supernode asks or tells everybody it is linked to, before it knows who that is.
                _ => {}
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        let Self { gossip, registrations, placing, homes, members, records, random, key, me, sequence, .. } = self;
        let wall = Some(wall_at(now));
        members.handle_timeout(now);
        records.handle_timeout(now);
        if let Some(gossip) = gossip {
            gossip.set_load(self.load, registrations.as_ref().map(Registrations::places).unwrap_or_default());
            gossip.handle_timeout(now, key, sequence, &mut Stores { wall, random, members, records, out });
        }
        if let Some(registrations) = registrations {
            registrations.handle_timeout(now, &mut Stores { wall, random, members, records, out });
            for home in registrations.take_found_dead() {
                if let Some(gossip) = gossip {
                    gossip.look_for(now, home, &mut Stores { wall, random, members, records, out });
                }
            }
            if let Some(placing) = placing {
                if gossip.as_mut().is_some_and(Gossip::take_suspicion) {
                    placing.on_suspicion(now, members);
                }
                placing.handle_timeout(now, records, members, out);
            }
        }
        if let Some(homes) = homes {
            homes.handle_timeout(now, &mut Means { me, wall, random, members, sequence, out });
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.members.poll_timeout(),
            self.records.poll_timeout(),
            self.gossip.as_ref().and_then(Gossip::poll_timeout),
            self.registrations.as_ref().and_then(Registrations::poll_timeout),
            self.placing.as_ref().map(Placing::poll_timeout),
            self.homes.as_ref().and_then(Homes::poll_timeout),
        ];
        timers.into_iter().fold(None, earliest)
    }
}
