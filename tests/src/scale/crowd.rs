//! A crowd of real nodes, and what their owners do: supernodes that come and go, leaves that start, call and stop.
//!
//! [`Crowd`] owns a lean [`World`] and an agenda of what people do next, drawn from dice of its own. [`Crowd::run_for`]
//! brings both forward in one order of time, and hears what nodes say. It knows of the overlay what any program knows:
//! events and `Node::status`.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use handfast_core::{Access, Config, Event, Instant, Node, PeerId};

use super::args::{Args, Bindings};
use super::calls::{self, Calls, Ended, PATIENCE};
use super::chance::exponential;
use super::meter::{self, Meter};
use crate::app::XFER;
use crate::host::HostId;
use crate::kinds::BINDINGS;
use crate::nat::NatSpec;
use crate::random::Dice;
use crate::topology::Place;
use crate::world::World;

/// A supernode every so often, while the network is built.
const FOUNDED_EVERY: Duration = Duration::from_millis(100);
/// A leaf that stopped starts again after so long, in the mean.
const PAUSE: Duration = Duration::from_secs(60);
/// A leaf is called by those of whom it can be known for so long that it is there.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// A call is over after so long, and its link closed; one that a scenario makes to see whether calls work, sooner.
const CALL_LASTS: Duration = Duration::from_secs(60);
const PROBE_LASTS: Duration = Duration::from_secs(3);
/// Supernodes that somebody who starts is told of.
const TOLD: usize = 3;
/// Progress is told every so many steps at most.
const STEPS_BETWEEN_LINES: u64 = 500_000;

/// Which parts of the traffic model are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Doings {
    /// Leaves stop and start.
    pub sessions: bool,
    /// Leaves call one another.
    pub calls: bool,
    /// Supernodes die, and others come in their place.
    pub lives: bool,
}

/// One leaf of the crowd.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// Its host.
    pub host: HostId,
    /// Since when its process runs.
    pub up: Option<Instant>,
    /// Since when it is at home in this run.
    pub home: Option<Instant>,
    /// How often it lost its last home.
    pub lost: u32,
}

/// How long a start took until the first home was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Of which leaf.
    pub leaf: usize,
    /// When.
    pub at: Instant,
    /// None: it never was at home until the leaf stopped.
    pub took: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Start(usize),
    /// The end of the run that began then.
    Stop(usize, Instant),
    Gone(usize, Instant),
    Call,
    GiveUp(HostId, PeerId, Instant),
    HangUp(HostId, PeerId),
    Die(HostId),
    Sample,
}

/// See [the module](self).
pub struct Crowd {
    /// The nodes.
    pub w: World,
    /// All leaves.
    pub leaves: Vec<Leaf>,
    /// Supernodes that are up.
    pub serving: Vec<HostId>,
    /// What they carry.
    pub meter: Meter,
    /// Calls.
    pub calls: Calls,
    /// Starts of leaves.
    pub starts: Vec<Start>,
    /// What its owners do.
    pub doings: Doings,
    /// How many supernodes died of themselves.
    pub deaths: usize,
    /// Leaves that the supernodes have room for, in turn; none: as a node has by itself.
    pub rooms: Vec<usize>,
    /// Streams that ended before their time.
    pub broken: Vec<(HostId, Instant)>,
    /// How many starts each leaf is in.
    current: Vec<usize>,
    of_host: BTreeMap<HostId, usize>,
    pub(super) args: Args,
    agenda: BTreeMap<(Instant, u64), Deed>,
    seq: u64,
    dice: Dice,
    prefix: Option<(Ipv4Addr, usize)>,
    start: Instant,
    began: std::time::Instant,
    told: u64,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(args: &Args, doings: Doings) -> Self {
        let hosts = args.supernodes + args.leaves;
        let mut this = Self {
            w: World::lean(args.seed, hosts + hosts / 8),
            leaves: Vec::with_capacity(args.leaves),
            serving: Vec::new(),
            meter: Meter::default(),
            calls: Calls::default(),
            starts: Vec::new(),
            doings,
            deaths: 0,
            rooms: Vec::new(),
            broken: Vec::new(),
            current: Vec::new(),
            of_host: BTreeMap::new(),
            args: args.clone(),
            agenda: BTreeMap::new(),
            seq: 0,
            dice: Dice::new(args.seed, "scale"),
            prefix: None,
            start: Instant::ZERO,
            began: std::time::Instant::now(),
            told: 0,
        };
        this.start = this.w.now();
        this.plan(meter::EVERY, Deed::Sample);
        this
    }

    /// The supernodes and leaves of the arguments, all at home where they can be, two minutes after the last started.
    pub fn settled(args: &Args, doings: Doings, rooms: Vec<usize>) -> Self {
        let mut crowd = Self::new(args, doings);
        crowd.rooms = rooms;
        crowd.found(args.supernodes);
        crowd.run_for(Duration::from_secs(60));
        crowd.add_leaves(args.leaves, args.ramp());
        crowd.run_for(args.ramp() + Duration::from_secs(120));
        crowd
    }

    /// The internet falls apart in two halves, of which one still reaches the other where that is one way. On which side
    /// each leaf is. [`World::calm`] heals it.
    pub fn part(&mut self, is_one_way: bool) -> Vec<bool> {
        // Who is with whom goes by the numbers of hosts, which mean nothing to nodes: even ones on one side.
        let is_odd = |host: HostId| host.0 % 2 == 1;
        let odd = self.w.hosts.iter().map(|host| host.id).filter(|host| is_odd(*host));
        self.w.wire.groups = odd.map(|host| (host, 1)).collect();
        if is_one_way {
            self.w.wire.passable.insert((0, 1));
        }
        self.leaves.iter().map(|leaf| is_odd(leaf.host)).collect()
    }

    // ---- time ----

    /// Runs for so long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.w.now() + time;
        loop {
            let deed = self.agenda.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            // What people do comes before what nodes do at the same moment.
            let last = deed.map_or(end, |at| Instant::from_micros(at.as_micros() - 1));
            if self.w.next_moment().is_some_and(|at| at <= last) {
                self.w.window(last);
            } else if let Some(at) = deed {
                self.w.advance(at);
                let (_, deed) = self.agenda.pop_first().expect("looked");
                self.carry_out(deed);
            } else {
                break;
            }
            self.hear();
        }
        self.w.advance(end);
    }

    /// Runs until it is done, which is asked so often, or for so long: how long it took, if it was done.
    pub fn until(
        &mut self,
        limit: Duration,
        every: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let began = self.w.now();
        while self.w.now().since(began) < limit {
            if done(self) {
                return Some(self.w.now().since(began));
            }
            self.run_for(every);
        }
        done(self).then(|| self.w.now().since(began))
    }

    fn plan(&mut self, after: Duration, deed: Deed) {
        self.plan_at(self.w.now() + after, deed);
    }

    fn plan_at(&mut self, at: Instant, deed: Deed) {
        self.seq += 1;
        self.agenda.insert((at, self.seq), deed);
    }

    fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Start(leaf) => self.start_leaf(leaf),
            Deed::Stop(leaf, run) => self.say_goodbye(leaf, run),
            Deed::Gone(leaf, run) => {
                if self.leaves[leaf].up == Some(run) {
                    self.stop_leaf(leaf);
                    let pause = exponential(&mut self.dice, PAUSE);
                    self.plan(pause, Deed::Start(leaf));
                }
            }
            Deed::Call => self.next_call(),
            Deed::GiveUp(from, peer, began) => self.calls.give_up(self.w.now(), from, peer, began),
            Deed::HangUp(host, peer) => {
                if self.w.is_up(host) {
                    // The link may be gone already.
                    let _ = self.w.with(host, |node, now| node.disconnect(now, &peer));
                }
            }
            Deed::Die(host) => self.die(host),
            Deed::Sample => {
                self.meter.sample(&self.w);
                self.tell_progress();
                self.plan(meter::EVERY, Deed::Sample);
            }
        }
    }

    /// What nodes said.
    fn hear(&mut self) {
        while let Some((at, host, event)) = self.w.news.pop_front() {
            match event {
                Event::Ready => self.on_ready(at, host),
                Event::Homeless => {
                    if let Some(leaf) = self.of_host.get(&host) {
                        self.leaves[*leaf].lost += 1;
                    }
                }
                Event::Pong { peer, path, .. } => {
                    let how = if path.is_direct() { Ended::Direct } else { Ended::Relayed };
                    if let Some(call) = self.calls.end(at, host, peer, how) {
                        let lasts = if call.tag == 0 { CALL_LASTS } else { PROBE_LASTS };
                        self.plan_at(at + lasts, Deed::HangUp(host, peer));
                    }
                }
                Event::StreamEnded { .. } => self.broken.push((host, at)),
                Event::ConnectFailed { peer, error } => {
                    self.calls.end(at, host, peer, calls::result_of(error));
                }
                _ => {}
            }
        }
    }

    // ---- supernodes ----

    /// So many supernodes, one after the other, each told of some that were there before.
    pub fn found(&mut self, count: usize) -> Vec<HostId> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.add_supernode());
            self.run_for(FOUNDED_EVERY);
        }
        all
    }

    /// One more supernode, at an address of its own.
    pub fn add_supernode(&mut self) -> HostId {
        let ip = IpAddr::V4(self.next_address());
        let known = self.contacts();
        let nth = self.w.supernodes.len();
        let room = self.rooms.get(nth % self.rooms.len().max(1)).copied();
        let table_max = self.args.table_max;
        let host = self.w.add_supernode_down(ip, known, |config| {
            config.leaves_max = room.unwrap_or(config.leaves_max);
            config.table_max = table_max;
        });
        self.w.hosts[host.0].ledger = Some(Box::default());
        self.start_supernode(host);
        if self.doings.lives && !self.args.life.median.is_zero() {
            let first = nth < self.args.supernodes;
            let life = self.args.life;
            let life = if first { life.rest(&mut self.dice) } else { life.whole(&mut self.dice) };
            self.plan(life, Deed::Die(host));
        }
        host
    }

    /// Starts a supernode that is down.
    pub fn start_supernode(&mut self, host: HostId) {
        self.w.start(host);
        self.meter.watch(host);
        self.serving.push(host);
    }

    /// Kills a supernode without a word.
    pub fn crash_supernode(&mut self, host: HostId) {
        self.w.crash(host);
        self.serving.retain(|h| *h != host);
    }

    fn die(&mut self, host: HostId) {
        if self.w.is_up(host) {
            self.deaths += 1;
            self.crash_supernode(host);
            self.add_supernode();
        }
    }

    /// The plan of prefixes: so many supernodes in each /24.
    fn next_address(&mut self) -> Ipv4Addr {
        match &mut self.prefix {
            Some((base, used)) if *used < self.args.per_prefix => {
                *used += 1;
                let [a, b, c, _] = base.octets();
                Ipv4Addr::new(a, b, c, *used as u8)
            }
            prefix => {
                let base = self.w.next_public(20);
                *prefix = Some((base, 1));
                base
            }
        }
    }

    /// Some supernodes that are up, as a friend's ticket names them.
    fn contacts(&mut self) -> Vec<(PeerId, SocketAddr)> {
        let some = self.draw(&self.serving.clone(), TOLD);
        some.into_iter().map(|host| self.w.contact(host)).collect()
    }

    /// So many of these, or all, in the order drawn.
    pub fn draw<T: Copy>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut rest = of.to_vec();
        let mut drawn = Vec::new();
        while drawn.len() < count && !rest.is_empty() {
            let nth = self.dice.below(rest.len() as u64) as usize;
            drawn.push(rest.swap_remove(nth));
        }
        drawn
    }

    /// Registered leaves of each supernode that is up.
    pub fn registered(&self) -> Vec<(HostId, usize)> {
        self.serving.iter().map(|host| (*host, self.w.node(*host).status(self.w.now()).leaves)).collect()
    }

    // ---- leaves ----

    /// So many leaves, each behind a router of its own, that start at moments drawn from the time to come.
    pub fn add_leaves(&mut self, count: usize, within: Duration) {
        if self.leaves.is_empty() && self.doings.calls {
            self.plan_call();
        }
        for _ in 0..count {
            let binding = Duration::from_secs(self.draw_binding());
            let router = self.w.add_router(NatSpec::port_restricted().binding_timeout(binding));
            let host = self.w.add_leaf_down(Place::Behind(router), |config| {
                *config = Config { contacts: Access::Any, ..Config::leaf() };
            });
            let leaf = self.leaves.len();
            self.of_host.insert(host, leaf);
            self.leaves.push(Leaf { host, up: None, home: None, lost: 0 });
            self.current.push(0);
            let after = self.dice.duration(within);
            self.plan(after, Deed::Start(leaf));
        }
    }

    fn draw_binding(&mut self) -> u64 {
        match self.args.bindings {
            Bindings::All(secs) => secs,
            Bindings::Mix => {
                let mut at = self.dice.unit() * 100.0;
                let share = BINDINGS.iter().find(|(_, share, _)| {
                    at -= share;
                    at <= 0.0
                });
                share.map_or(BINDINGS[0].0, |(secs, ..)| *secs)
            }
        }
    }

    /// Starts a leaf that is down, with what it saved, told of some supernodes.
    pub fn start_leaf(&mut self, leaf: usize) {
        let now = self.w.now();
        let host = self.leaves[leaf].host;
        self.w.hosts[host.0].known = self.contacts();
        self.leaves[leaf].up = Some(now);
        self.current[leaf] = self.starts.len();
        self.starts.push(Start { leaf, at: now, took: None });
        self.w.start(host);
        if self.doings.sessions && !self.args.session.is_zero() {
            let session = exponential(&mut self.dice, self.args.session);
            self.plan(session, Deed::Stop(leaf, now));
        }
    }

    /// Half of all sessions end with a word, half without one.
    fn say_goodbye(&mut self, leaf: usize, run: Instant) {
        if self.leaves[leaf].up != Some(run) {
            return;
        }
        if self.dice.below(2) == 0 {
            self.w.with(self.leaves[leaf].host, Node::leave);
            self.leaves[leaf].home = None;
        }
        self.plan(Duration::from_secs(1), Deed::Gone(leaf, run));
    }

    /// Kills a leaf.
    pub fn stop_leaf(&mut self, leaf: usize) {
        let host = self.leaves[leaf].host;
        self.calls.on_end(self.w.now(), host);
        self.w.crash(host);
        self.leaves[leaf].up = None;
        self.leaves[leaf].home = None;
    }

    fn on_ready(&mut self, at: Instant, host: HostId) {
        let Some(leaf) = self.of_host.get(&host).copied() else { return };
        let start = &mut self.starts[self.current[leaf]];
        start.took.get_or_insert(at.since(start.at));
        self.leaves[leaf].home.get_or_insert(at);
    }

    /// At how many homes a leaf is; none while it is down.
    pub fn homes(&self, leaf: usize) -> usize {
        let node = self.w.hosts[self.leaves[leaf].host.0].node.as_ref();
        node.map_or(0, |node| node.ticket(None).homes.len())
    }

    /// Which homes a leaf has.
    pub fn homes_of(&self, leaf: usize) -> Vec<HostId> {
        let node = self.w.hosts[self.leaves[leaf].host.0].node.as_ref();
        let homes = node.map(|node| node.status(self.w.now()).homes).unwrap_or_default();
        homes.into_iter().map(|(peer, _)| self.w.host_of(peer)).collect()
    }

    /// Leaves that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> {
        self.leaves.iter().enumerate().filter(|(_, leaf)| leaf.up.is_some()).map(|(n, _)| n)
    }

    // ---- sessions that stay ----

    /// So many of the leaves, two by two, get what it takes to keep a session: a service. Before they start.
    pub fn keepers(&mut self, pairs: usize) -> Vec<(usize, usize)> {
        let pairs = pairs.min(self.leaves.len() / 2);
        for leaf in 0..2 * pairs {
            let config = &mut self.w.hosts[self.leaves[leaf].host.0].config;
            config.services.insert(XFER.parse().expect("a service name"), Access::Any);
        }
        (0..pairs).map(|n| (2 * n, 2 * n + 1)).collect()
    }

    /// Opens a session between two keepers.
    pub fn hold(&mut self, (from, to): (usize, usize)) {
        let peer = self.w.peer(self.leaves[to].host);
        let service = XFER.parse().expect("a service name");
        // Where it is refused, the session is not there when it is looked for.
        let _ = self.w.with(self.leaves[from].host, |node, now| node.open(now, peer, &service));
    }

    /// Whether the session between two keepers has a direct path.
    pub fn is_held(&self, (from, to): (usize, usize)) -> bool {
        self.w.is_direct(self.leaves[from].host, self.leaves[to].host)
    }

    // ---- calls ----

    fn plan_call(&mut self) {
        let a_day = self.args.calls_a_day * self.args.leaves as f64;
        if a_day > 0.0 {
            let wait = exponential(&mut self.dice, Duration::from_secs_f64(24.0 * 3600.0 / a_day));
            self.plan(wait, Deed::Call);
        }
    }

    fn next_call(&mut self) {
        if !self.doings.calls {
            return;
        }
        self.plan_call();
        self.call_somebody(0, None, |_, _| true);
    }

    /// A leaf, this one or any, calls another one, both among those that have been at home for a while and are meant;
    /// whether two were found.
    pub fn call_somebody(&mut self, tag: u8, from: Option<usize>, meant: impl Fn(usize, usize) -> bool) -> bool {
        let count = self.leaves.len() as u64;
        for _ in 0..64 {
            let (any, to) = (self.dice.below(count) as usize, self.dice.below(count) as usize);
            let from = from.unwrap_or(any);
            if from != to && meant(from, to) && self.is_settled(from) && self.is_settled(to) {
                let (host, peer) = (self.leaves[from].host, self.w.peer(self.leaves[to].host));
                if self.w.node(host).path_of(&peer).is_none() && self.call(from, to, tag) {
                    return true;
                }
            }
        }
        false
    }

    fn call(&mut self, from: usize, to: usize, tag: u8) -> bool {
        let now = self.w.now();
        let (host, other) = (self.leaves[from].host, self.leaves[to].host);
        let peer = self.w.peer(other);
        if !self.calls.begin(now, host, other, peer, tag) {
            return false;
        }
        self.plan(PATIENCE, Deed::GiveUp(host, peer, now));
        if self.w.with(host, |node, now| node.ping(now, peer)).is_err() {
            self.calls.end(now, host, peer, Ended::NotReached);
        }
        true
    }

    fn is_settled(&self, leaf: usize) -> bool {
        let leaf = self.leaves[leaf];
        leaf.up.is_some() && leaf.home.is_some_and(|at| self.w.now().since(at) >= SETTLED_AFTER)
    }

    fn tell_progress(&mut self) {
        let steps = self.w.steps();
        if self.args.progress && steps - self.told >= STEPS_BETWEEN_LINES {
            self.told = steps;
            eprintln!(
                "{:>6.1} virtual minutes, {:>4} s, {} M calls of nodes, {} leaves up, {} supernodes, {} in flight, {} MiB",
                self.w.now().since(self.start).as_secs_f64() / 60.0,
                self.began.elapsed().as_secs(),
                steps / 1_000_000,
                self.up().count(),
                self.serving.len(),
                self.w.wire.in_flight(),
                resident_mib(),
            );
        }
    }
}

/// What the process weighs now.
pub(crate) fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
