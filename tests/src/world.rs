//! The world: one clock, and every host's calls in one order.
//!
//! [`World::step`] jumps to the next delivery or deadline, makes the one call that is due, drains what it caused and
//! checks the invariants. [`World::until`] and [`World::run_for`] repeat that; between steps the test acts, by what
//! [`script`](crate::script) offers. How datagrams get from a node to the wire and back is in `carry.rs`.
//!
//! A [`World::lean`] one is for numbers in which keeping everything is too much: it keeps neither the trace nor what
//! each node has sent to whom nor a host's events, which it hands to whoever runs it instead. What happens in it is the
//! same.
//!
//! Deliveries come before deadlines at the same moment, as in io's loop; among hosts the smaller number first.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use handfast_core::time::Deadlines;
use handfast_core::{Event, Family, Instant, Node, PeerId, SocketId, SocketKind, Status, WallTime};

use crate::fault::Faults;
use crate::host::{Host, HostId, Traffic};
use crate::invariant::{self, Invariants};
use crate::nat::NatSpec;
use crate::random::{Dice, derive};
use crate::secs;
use crate::tcp::Tcp;
use crate::trace::{Entry, Trace};
use crate::wire::Wire;

/// Where the clock starts: not at zero, so that nothing takes zero for "never".
const START: Instant = Instant::from_micros(1_000_000_000);
/// Wall time at [`Instant::ZERO`]: a day in 2026.
const WALL_START_US: u64 = 1_780_000_000_000_000;
/// io tells the wall time so often.
const WALL_EVERY: Duration = Duration::from_secs(3600);
/// io's send buffer: 64 segments of the longest datagram.
pub(crate) const BUF_LEN: usize = 64 * 1472;
/// Calls at one moment; more means that somebody spins.
const CALLS_PER_MOMENT_MAX: u32 = 200_000;

/// Everything there is.
pub struct World {
    /// The seed of it all.
    pub seed: u64,
    /// Hosts, by [`HostId`].
    pub hosts: Vec<Host>,
    /// Those that run supernodes.
    pub supernodes: Vec<HostId>,
    /// What is between them.
    pub wire: Wire,
    /// Their TCP connections.
    pub tcp: Tcp,
    /// What happened.
    pub trace: Trace,
    /// A deadline is served up to this late, as by a busy machine.
    pub lateness: Duration,
    /// New leaves are told of three supernodes: this one and the two after it.
    pub first_contact: usize,
    /// In a lean world, what nodes said since this was last emptied.
    pub news: VecDeque<(Instant, HostId, Event)>,
    pub(crate) is_lean: bool,
    pub(crate) by_peer: BTreeMap<PeerId, HostId>,
    pub(crate) addresses: u32,
    pub(crate) now: Instant,
    origin: std::time::Instant,
    steps: u64,
    calls_now: u32,
    deadlines: Deadlines<HostId>,
    pub(crate) checks: Invariants,
    pub(crate) io_dice: Dice,
    script_dice: Dice,
    pub(crate) transfers: u64,
    pub(crate) buf: Vec<u8>,
}

impl World {
    /// An empty world. `HANDFAST_SEED` replaces the seed.
    pub fn new(seed: u64) -> Self {
        let seed = crate::seed_from_env().unwrap_or(seed);
        Self {
            seed,
            hosts: Vec::new(),
            supernodes: Vec::new(),
            wire: Wire::new(seed),
            tcp: Tcp::default(),
            trace: Trace::default(),
            lateness: Duration::ZERO,
            first_contact: 0,
            news: VecDeque::new(),
            is_lean: false,
            by_peer: BTreeMap::new(),
            addresses: 0,
            now: START,
            // Only translates; the core never asks a clock, so its value changes nothing.
            origin: std::time::Instant::now(),
            steps: 0,
            calls_now: 0,
            deadlines: Deadlines::default(),
            checks: Invariants::default(),
            io_dice: Dice::new(seed, "io"),
            script_dice: Dice::new(seed, "script"),
            transfers: 0,
            buf: vec![0; BUF_LEN],
        }
    }

    /// An empty world that keeps little, with room for so many hosts. Its seed is this one whatever the environment says.
    pub fn lean(seed: u64, hosts: usize) -> Self {
        let mut world = Self::new(seed);
        world.seed = seed;
        world.wire = Wire::new(seed);
        world.io_dice = Dice::new(seed, "io");
        world.script_dice = Dice::new(seed, "script");
        world.is_lean = true;
        world.hosts.reserve_exact(hosts);
        world
    }

    /// A busy life of two minutes: three leaves, transfers, crashes, a router that gets another address.
    pub fn busy(seed: u64, faults: Faults) -> Self {
        let mut w = Self::new(seed);
        w.wire.faults = faults;
        w.add_supernodes(3);
        let a = w.add_leaf_behind(NatSpec::port_restricted());
        let b = w.add_leaf_behind(NatSpec::fully_dependent());
        let c = w.add_leaf_behind(NatSpec::port_restricted());
        w.run_for(secs(20));
        w.transfer(a, b, 20_000, 10_000);
        w.transfer(c, a, 100, 200_000);
        w.run_for(secs(5));
        w.crash(a);
        let s = w.supernodes[1];
        w.crash(s);
        w.run_for(secs(7));
        w.start(a);
        w.start(s);
        let router = w.router_of(c);
        w.renumber(router);
        w.run_for(secs(60));
        w.transfer(b, c, 5000, 5000);
        w.run_for(secs(30));
        w
    }

    /// The clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The generator for the test's own choices.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.script_dice
    }

    /// A host.
    pub fn host(&self, host: HostId) -> &Host {
        &self.hosts[host.0]
    }

    /// A host's node, which must be up.
    pub fn node(&self, host: HostId) -> &Node {
        self.hosts[host.0].node.as_ref().expect("the node is up")
    }

    /// A host's identity.
    pub fn peer(&self, host: HostId) -> PeerId {
        self.hosts[host.0].peer
    }

    /// The host of an identity.
    pub fn host_of(&self, peer: PeerId) -> HostId {
        *self.by_peer.get(&peer).expect("a host of this world")
    }

    /// A node's status.
    pub fn status(&self, host: HostId) -> Status {
        let node = self.node(host);
        let status = node.status(self.now);
        for peer in &status.peers {
            assert_eq!(node.peer_status(self.now, &peer.peer).as_ref(), Some(peer), "asked for alone");
        }
        status
    }

    /// All packets of a host so far; subtract an earlier value to get an interval.
    pub fn traffic(&self, host: HostId) -> Traffic {
        self.hosts[host.0].traffic
    }

    /// The wall clock of a host.
    pub fn wall(&self, host: HostId) -> WallTime {
        let us = WALL_START_US + self.now.as_micros();
        WallTime::from_micros(us.saturating_add_signed(self.hosts[host.0].wall_skew))
    }

    // ---- time ----

    /// When something happens next.
    pub fn next_moment(&self) -> Option<Instant> {
        let next = handfast_core::time::earliest(self.wire.next(), self.tcp.next());
        handfast_core::time::earliest(next, self.deadlines.next()).map(|at| at.max(self.now))
    }

    /// Jumps to the next moment and makes the call that is due.
    pub fn step(&mut self) {
        let Some(at) = self.next_moment() else { return };
        self.advance(at);
        self.steps += 1;
        self.calls_now += 1;
        assert!(self.calls_now < CALLS_PER_MOMENT_MAX, "time stands still at {at:?}");
        if self.wire.next().is_some_and(|due| due <= at) {
            if let Some((host, datagram)) = self.wire.pop(at) {
                self.deliver(host, datagram);
            }
            return;
        }
        if self.tcp.next().is_some_and(|due| due <= at) {
            if let Some((host, news)) = self.tcp.pop(at, &self.wire, &self.hosts) {
                self.on_tcp(host, news);
            }
            return;
        }
        if let Some(host) = self.deadlines.pop_due(at) {
            self.hosts[host.0].deadline = None;
            self.on_deadline(host);
        }
    }

    pub(crate) fn advance(&mut self, to: Instant) {
        if to > self.now {
            self.now = to;
            self.calls_now = 0;
        }
    }

    fn on_deadline(&mut self, id: HostId) {
        let now = self.now;
        if !self.is_lean {
            self.trace.timeout(now, id.0);
        }
        let wall = self.wall(id);
        let host = &mut self.hosts[id.0];
        let Some(node) = &mut host.node else { return };
        if host.wall_due.is_some_and(|due| due <= now) {
            host.wall_due = Some(now + WALL_EVERY);
            node.handle_wall_clock(now, wall);
        }
        node.handle_timeout(now);
        self.drain(id, true);
    }

    // ---- nodes ----

    /// Starts a host's node, as its process does: sockets, wall clock, network, known supernodes.
    pub fn start(&mut self, id: HostId) {
        self.note(id, "starts");
        let (now, origin, wall) = (self.now, self.origin, self.wall(id));
        let host = &mut self.hosts[id.0];
        assert!(host.node.is_none(), "{id:?} runs already");
        host.incarnation += 1;
        host.events_before = host.events.len();
        host.bind();
        let seed = derive(self.seed, &format!("node {}", id.0), host.incarnation);
        let (key, config, saved) = (host.key.clone(), host.config.clone(), host.saved.clone());
        let mut node = Node::new(now, origin, seed, key, config, saved).expect("the configuration is good");
        assert_eq!(node.id(), host.peer, "the id is the key's");
        host.app.on_start(now, host.incarnation);
        node.handle_wall_clock(now, wall);
        node.handle_network(now, &host.network());
        node.join(now, &host.known).expect("join");
        host.wall_due = Some(now + WALL_EVERY);
        host.node = Some(Box::new(node));
        self.checks.on_start(id);
        self.drain(id, false);
    }

    /// Kills a host's node without a word.
    pub fn crash(&mut self, id: HostId) {
        self.note(id, "crashes");
        let host = &mut self.hosts[id.0];
        host.node = None;
        host.sockets.clear();
        self.tcp.on_crash(self.now, id);
        let old = &mut host.deadline;
        self.deadlines.set(id, old, None);
    }

    /// Whether a host's node runs.
    pub fn is_up(&self, id: HostId) -> bool {
        self.hosts[id.0].node.is_some()
    }

    /// Makes a call to a node and drains what it caused.
    pub fn with<R>(&mut self, id: HostId, call: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let node = self.hosts[id.0].node.as_mut().expect("the node is up");
        let result = call(node, self.now);
        self.drain(id, false);
        result
    }

    /// Tells a node its addresses again.
    pub fn tell_network(&mut self, id: HostId) {
        let network = self.hosts[id.0].network();
        self.with(id, |node, now| node.handle_network(now, &network));
    }

    /// Moves a host's wall clock and tells its node.
    pub fn jump_wall(&mut self, id: HostId, by_us: i64) {
        self.note(id, "wall clock jumps");
        self.hosts[id.0].wall_skew += by_us;
        let wall = self.wall(id);
        self.with(id, |node, now| node.handle_wall_clock(now, wall));
    }

    /// Drains a host whose draining the test has switched off.
    pub fn drain_now(&mut self, id: HostId) {
        let before = core::mem::replace(&mut self.hosts[id.0].draining, true);
        self.drain(id, false);
        self.hosts[id.0].draining = before;
    }

    pub(crate) fn drain(&mut self, id: HostId, after_timeout: bool) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        let Some(mut node) = host.node.take() else { return };
        assert!(now >= host.last_now);
        host.last_now = now;
        let draining = host.draining;
        if draining {
            self.drain_outputs(id, &mut node);
        }
        let mut deadline = node.poll_timeout();
        let mut late = self.io_dice.duration(self.lateness);
        if draining {
            invariant::check_deadline(now, deadline, after_timeout);
        } else {
            // A caller that does not drain may well be told the same deadline again; it must not spin on it.
            late = late.max(Duration::from_millis(1));
            deadline = deadline.map(|at| at.max(now));
        }
        let host = &mut self.hosts[id.0];
        let due = handfast_core::time::earliest(deadline.map(|at| at + late), host.wall_due);
        self.deadlines.set(id, &mut host.deadline, due);
        host.node = Some(node);
    }

    fn drain_outputs(&mut self, id: HostId, node: &mut Node) {
        let now = self.now;
        let mut outputs = 0;
        loop {
            let mut idle = true;
            loop {
                let segments_max = [1, 2, 16, 64][self.io_dice.below(4) as usize];
                let Some(transmit) = node.poll_transmit(now, segments_max, &mut self.buf) else { break };
                idle = false;
                let segment = transmit.segment.map(|s| usize::from(s.get()));
                invariant::check_train(transmit.len, segment, segments_max, self.buf.len());
                outputs += transmit.len.div_ceil(segment.unwrap_or(transmit.len));
                let bytes = core::mem::take(&mut self.buf);
                self.transmit(id, &transmit, &bytes[..transmit.len], Entry::Sent);
                self.buf = bytes;
                assert!(outputs < invariant::OUTPUTS_MAX, "{id:?} never stops sending");
            }
            while let Some(event) = node.poll_event() {
                idle = false;
                outputs += 1;
                assert!(outputs < invariant::OUTPUTS_MAX, "{id:?} never stops telling");
                self.on_event(id, node, event);
            }
            if idle {
                break;
            }
        }
    }

    fn on_event(&mut self, id: HostId, node: &mut Node, event: Event) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        if !self.is_lean {
            self.trace.note(now, Entry::Event, id.0, &format!("{event:?}"));
        }
        match &event {
            Event::Save(item) => host.save(item.clone()),
            Event::OpenSocket { request, kind: SocketKind::Udp(family) } => {
                // A number is never used twice.
                host.sockets_made += 1;
                let socket = SocketId(1 + host.sockets_made);
                let port = 45_000 + (socket.0 % 10_000) as u16;
                let bound = match family {
                    Family::V4 => SocketAddr::from(([0, 0, 0, 0], port)),
                    Family::V6 => SocketAddr::from(([0u16; 8], port)),
                };
                host.sockets.insert(socket, bound);
                node.handle_socket(now, *request, Ok((socket, bound)));
            }
            Event::OpenSocket { request, kind: SocketKind::Tcp { remote } } => {
                self.tcp.connect(now, &self.wire, host, *request, *remote);
            }
            Event::CloseSocket(socket) if socket.is_tcp() => self.tcp.close(now, *socket),
            Event::CloseSocket(socket) => {
                assert!(host.sockets.remove(socket).is_some(), "{socket:?} is not open");
            }
            _ => host.app.on_event(now, node, &event),
        }
        if self.is_lean {
            self.news.push_back((now, id, event));
        } else if !matches!(event, Event::Readable { .. } | Event::Writable { .. }) {
            host.events.push((now, event));
        }
    }

    pub(crate) fn note(&mut self, id: HostId, what: &str) {
        if !self.is_lean {
            self.trace.note(self.now, Entry::Script, id.0, what);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("the test");
            eprintln!("world: seed {}, step {}, time {:?}, {:?}", self.seed, self.steps, self.now, self.wire.counts);
            eprintln!("world: replay with HANDFAST_SEED={} cargo test -p handfast-tests {test}", self.seed);
            for host in self.hosts.iter().take(12) {
                let Some(node) = &host.node else { continue };
                let status = node.status(self.now);
                eprintln!("world: {:?} {:?} homes {:?}", host.id, host.peer, status.homes);
                for peer in status.peers {
                    eprintln!(
                        "world:   {:?} {:?} rtt {:?} rx {} tx {}",
                        peer.peer, peer.path, peer.rtt, peer.rx_bytes, peer.tx_bytes
                    );
                }
            }
        }
    }
}
