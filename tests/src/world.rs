//! The world: one clock, and every host's calls in one order.
//!
//! [`World::step`] jumps to the next delivery or deadline, makes the one call that is due, drains what it caused and
//! checks the invariants. [`World::until`] and [`World::run_for`] repeat that; between steps the test acts, by what
//! [`script`](crate::script) offers. How datagrams get from a node to the wire and back is in `carry.rs`.
//!
//! A [`World::lean`] one is for numbers in which keeping everything is too much: it keeps neither the trace nor what
//! each node has sent to whom nor a host's events, which it hands to whoever runs it instead. In single steps what
//! happens in it is the same; it can also be brought forward a window at a time (`window.rs`).
//!
//! Deliveries come before deadlines at the same moment, as in io's loop; among hosts the smaller number first.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use handfast_core::time::Deadlines;
use handfast_core::{Event, Instant, Node, PeerId, Status, WallTime};

use crate::fault::Faults;
use crate::host::{Host, HostId, Traffic};
use crate::invariant::Invariants;
use crate::nat::NatSpec;
use crate::random::{Dice, derive};
use crate::secs;
use crate::site::{BUF_LEN, Effect, WALL_EVERY};
use crate::tcp::Tcp;
use crate::trace::{Entry, Trace};
use crate::wire::Wire;

/// Where the clock starts: not at zero, so that nothing takes zero for "never".
const START: Instant = Instant::from_micros(1_000_000_000);
/// Calls at one moment; more means that somebody spins.
pub(crate) const CALLS_PER_MOMENT_MAX: u32 = 200_000;

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
    pub(crate) steps: u64,
    calls_now: u32,
    pub(crate) deadlines: Deadlines<HostId>,
    pub(crate) checks: Invariants,
    script_dice: Dice,
    pub(crate) transfers: u64,
    /// Send buffers, one for each thread.
    pub(crate) bufs: Vec<Vec<u8>>,
    pub(crate) effects: Vec<Effect>,
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
            script_dice: Dice::new(seed, "script"),
            transfers: 0,
            bufs: vec![vec![0; BUF_LEN]],
            effects: Vec::new(),
        }
    }

    /// An empty world that keeps little, with room for so many hosts. Its seed is this one whatever the environment says.
    pub fn lean(seed: u64, hosts: usize) -> Self {
        let mut world = Self::new(seed);
        world.seed = seed;
        world.wire = Wire::new(seed);
        world.script_dice = Dice::new(seed, "script");
        world.is_lean = true;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        world.bufs.resize(threads, vec![0; BUF_LEN]);
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
        self.hosts[host.0].wall(self.now)
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
            self.hosts[host.0].listed = None;
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
        if !self.is_lean {
            self.trace.timeout(self.now, id.0);
        }
        self.at(id, |site| {
            site.on_deadline();
        });
    }

    /// Notes when a host is due.
    pub(crate) fn list(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        self.deadlines.set(id, &mut host.listed, host.due);
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
        self.drain(id);
    }

    /// Kills a host's node without a word.
    pub fn crash(&mut self, id: HostId) {
        self.note(id, "crashes");
        let host = &mut self.hosts[id.0];
        host.node = None;
        host.sockets.clear();
        self.tcp.on_crash(self.now, id);
        host.due = None;
        self.list(id);
    }

    /// Whether a host's node runs.
    pub fn is_up(&self, id: HostId) -> bool {
        self.hosts[id.0].node.is_some()
    }

    /// Makes a call to a node and drains what it caused.
    pub fn with<R>(&mut self, id: HostId, call: impl FnOnce(&mut Node, Instant) -> R) -> R {
        self.at(id, |site| site.with(call))
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
        self.drain(id);
        self.hosts[id.0].draining = before;
    }

    pub(crate) fn drain(&mut self, id: HostId) {
        self.at(id, |site| site.drain(false));
    }

    /// A node said something.
    pub(crate) fn hear(&mut self, at: Instant, id: HostId, event: Event) {
        if self.is_lean {
            self.news.push_back((at, id, event));
            return;
        }
        self.trace.note(at, Entry::Event, id.0, &format!("{event:?}"));
        if !matches!(event, Event::Readable { .. } | Event::Writable { .. }) {
            self.hosts[id.0].events.push((at, event));
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
