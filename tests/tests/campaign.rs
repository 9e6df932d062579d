//! Everything at once: worlds drawn from a seed, in which all that can go wrong does, and which then calm down.
//!
//! During the storm only the invariants must hold, and every byte that arrives must be right. After it every pair
//! must talk again. A campaign that never reached the states it is about proves nothing, so those are counted too.
//! `HANDFAST_SEED=…` runs one world; `HANDFAST_WORLDS=…` runs so many.

use std::collections::BTreeMap;

use handfast_core::Event;
use handfast_tests::{
    Behavior, Chance, FaultCounts, Faults, HostId, NatSpec, Place, PortAssignment, TransferId, World, XFER, ms, secs,
};

/// Worlds in an ordinary test run.
const WORLDS: u64 = 8;
const ROUNDS: u32 = 40;
/// Longest back-off of anything.
const BACK_OFF_MAX_SECS: u64 = 300;

#[derive(Default)]
struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    fn count(&mut self, state: &'static str) {
        *self.0.entry(state).or_default() += 1;
    }
}

fn any_spec(w: &mut World) -> NatSpec {
    let dice = w.dice();
    let mut spec = NatSpec::new(dice.pick(&Behavior::ALL), dice.pick(&Behavior::ALL));
    spec.ports = dice.pick(&[PortAssignment::Preserving, PortAssignment::Random]);
    spec.hairpinning = dice.below(2) == 0;
    spec.inbound_refresh = dice.below(2) == 0;
    spec.binding_timeout = secs(30 + dice.below(120));
    spec
}

fn any_place(w: &mut World) -> Place {
    match w.dice().below(8) {
        0 => Place::Public,
        1 => {
            let spec = any_spec(w);
            Place::DualStack(w.add_router(spec))
        }
        2 if !w.wire.routers.is_empty() => {
            let n = w.wire.routers.len() as u64;
            let outer = handfast_tests::RouterId(w.dice().below(n) as usize);
            let spec = any_spec(w);
            Place::Behind(w.add_router_behind(outer, spec))
        }
        _ => {
            let spec = any_spec(w);
            Place::Behind(w.add_router(spec))
        }
    }
}

fn any_faults(w: &mut World) -> Faults {
    let dice = w.dice();
    let mut percent = |max: u64| Chance::percent(if dice.below(2) == 0 { 0 } else { dice.below(max + 1) as u32 });
    Faults {
        loss: percent(30),
        duplicate: percent(20),
        reorder: percent(30),
        corrupt: percent(3),
        truncate: percent(3),
        replay: percent(100),
        corrupt_copy: percent(100),
        truncate_copy: percent(100),
        reflect: percent(100),
        jitter: ms(w.dice().below(200)),
        ..Faults::none()
    }
}

struct Storm {
    w: World,
    leaves: Vec<HostId>,
    transfers: Vec<TransferId>,
    reached: Reached,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut w = World::new(seed);
        let supernodes = 2 + w.dice().below(4) as usize;
        w.add_supernodes(supernodes);
        let mut leaves = Vec::new();
        for _ in 0..4 + w.dice().below(4) {
            let place = any_place(&mut w);
            leaves.push(w.add_leaf(place));
        }
        Self { w, leaves, transfers: Vec::new(), reached: Reached::default() }
    }

    fn any_leaf(&mut self) -> HostId {
        self.w.dice().pick(&self.leaves)
    }

    fn any_host(&mut self) -> HostId {
        let all = [&self.w.supernodes[..], &self.leaves[..]].concat();
        self.w.dice().pick(&all)
    }

    fn transfer(&mut self) {
        let (from, to) = (self.any_leaf(), self.any_leaf());
        let (up, down) = (self.w.dice().size(300_000), self.w.dice().size(300_000));
        if from == to || !self.w.is_up(from) {
            return;
        }
        let peer = self.w.peer(to);
        match self.w.try_transfer(from, peer, XFER, up, down) {
            Ok(t) => self.transfers.push(t),
            Err(error) => {
                assert_eq!(error, handfast_core::CommandError::Limit);
                self.reached.count("limit");
            }
        }
    }

    fn round(&mut self) {
        for _ in 0..self.w.dice().below(4) {
            self.transfer();
        }
        match self.w.dice().below(13) {
            0 | 1 => {
                let host = self.any_host();
                if self.w.is_up(host) {
                    self.w.crash(host);
                    self.reached.count("crash");
                }
            }
            2..=4 => {
                let down: Vec<HostId> = (0..self.w.hosts.len()).map(HostId).filter(|h| !self.w.is_up(*h)).collect();
                if !down.is_empty() {
                    let host = self.w.dice().pick(&down);
                    self.w.start(host);
                    self.reached.count("restart");
                }
            }
            5 => {
                let routers = self.w.wire.routers.len() as u64;
                if routers > 0 {
                    let router = handfast_tests::RouterId(self.w.dice().below(routers) as usize);
                    // One behind another keeps its address: it would need one of that LAN.
                    if self.w.dice().below(2) == 0
                        && self.w.wire.routers[router.0].outer == handfast_tests::wire::INTERNET
                    {
                        self.w.renumber(router);
                    } else {
                        self.w.reboot_router(router);
                    }
                    self.reached.count("router reboot");
                }
            }
            6 => {
                let leaf = self.any_leaf();
                let place = any_place(&mut self.w);
                self.w.move_host(leaf, place);
                if self.w.dice().below(2) == 0 && self.w.is_up(leaf) {
                    self.w.tell_network(leaf);
                }
                self.reached.count("roaming");
            }
            7 => {
                let (from, to) = (self.any_host(), self.any_host());
                self.w.cut_one_way(from, to);
                self.reached.count("cut");
            }
            8 => {
                let island = [self.any_host(), self.any_host(), self.any_host()];
                self.w.partition(&island);
                self.reached.count("partition");
            }
            9 => {
                let faults = any_faults(&mut self.w);
                self.w.wire.faults = faults;
            }
            10 => {
                let host = self.any_host();
                let by = self.w.dice().below(20 * 365 * 24 * 3600 * 1_000_000).cast_signed();
                if self.w.is_up(host) {
                    self.w.jump_wall(host, by - 10 * 365 * 24 * 3600 * 1_000_000);
                    self.reached.count("wall clock jump");
                }
            }
            11 => {
                let leaf = self.any_leaf();
                if self.w.is_up(leaf) {
                    self.w.with(leaf, handfast_core::Node::leave);
                    self.w.run_for(secs(1));
                    self.w.crash(leaf);
                    self.reached.count("leave");
                }
            }
            _ => self.w.calm(),
        }
        self.w.lateness = ms(self.w.dice().below(50));
        let time = self.w.dice().duration(secs(25));
        self.w.run_for(time);
        for (n, a) in self.leaves.clone().into_iter().enumerate() {
            for b in self.leaves.clone().into_iter().skip(n + 1) {
                if self.w.is_direct(a, b) {
                    self.reached.count("direct");
                }
                if self.w.is_relayed(a, b) {
                    self.reached.count("relayed");
                }
            }
        }
    }

    fn calm_down(&mut self) {
        self.w.calm();
        for host in (0..self.w.hosts.len()).map(HostId) {
            if !self.w.is_up(host) {
                self.w.start(host);
            }
            self.w.tell_network(host);
            // Only as long as most supernodes know the time do records hold.
            let skew = self.w.hosts[host.0].wall_skew;
            self.w.jump_wall(host, -skew);
        }
        self.w.run_for(secs(BACK_OFF_MAX_SECS + 30));
        let leaves = self.leaves.clone();
        self.w.settle_homes(&leaves);
        let pairs: Vec<(HostId, HostId)> =
            leaves.iter().flat_map(|a| leaves.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect();
        self.w.expect_all_talk(&pairs);
        for t in &self.transfers {
            let client = self.w.client(*t);
            assert!(client.is_over(), "a transfer hangs: {client:?}");
            if let Some(server) = self.w.server(*t) {
                assert!(server.is_over(), "the server of a transfer hangs: {server:?}");
            }
            self.reached.count(if client.done.is_some() { "transfer done" } else { "transfer ended" });
        }
        for host in &self.w.hosts {
            for (_, event) in &host.events {
                match event {
                    Event::Homeless => self.reached.count("homeless"),
                    Event::PeerGone { .. } => self.reached.count("peer gone"),
                    Event::ConnectFailed { .. } => self.reached.count("connect failed"),
                    _ => {}
                }
            }
        }
    }
}

fn add(total: &mut FaultCounts, one: &FaultCounts) {
    total.lost += one.lost;
    total.duplicated += one.duplicated;
    total.reordered += one.reordered;
    total.corrupted += one.corrupted;
    total.truncated += one.truncated;
    total.replayed += one.replayed;
    total.corrupted_copies += one.corrupted_copies;
    total.truncated_copies += one.truncated_copies;
    total.reflected += one.reflected;
    total.cut += one.cut;
    total.no_route += one.no_route;
    total.too_long += one.too_long;
    total.filtered += one.filtered;
    total.nobody_home += one.nobody_home;
}

#[test]
fn storms_pass_and_everybody_talks_again() {
    let worlds = std::env::var("HANDFAST_WORLDS").ok().map_or(WORLDS, |n| n.parse().expect("a number"));
    let seeds = handfast_tests::seeds(worlds);
    let (mut faults, mut reached) = (FaultCounts::default(), Reached::default());
    for seed in &seeds {
        let mut storm = Storm::new(*seed);
        for _ in 0..ROUNDS {
            storm.round();
        }
        storm.calm_down();
        add(&mut faults, &storm.w.wire.counts);
        for (state, n) in storm.reached.0 {
            *reached.0.entry(state).or_default() += n;
        }
    }
    eprintln!("{} worlds: {faults:?}\n{:?}", seeds.len(), reached.0);
    if seeds.len() < WORLDS as usize {
        return;
    }
    let fired = [faults.lost, faults.duplicated, faults.reordered, faults.corrupted, faults.truncated, faults.replayed];
    assert!(fired.iter().all(|n| *n > 20), "faults that did not fire: {faults:?}");
    let fired = [faults.corrupted_copies, faults.truncated_copies, faults.reflected, faults.cut, faults.filtered];
    assert!(fired.iter().all(|n| *n > 20), "faults that did not fire: {faults:?}");
    for state in [
        "crash",
        "restart",
        "router reboot",
        "roaming",
        "cut",
        "partition",
        "wall clock jump",
        "leave",
        "direct",
        "relayed",
        "transfer done",
        "transfer ended",
        "homeless",
        "peer gone",
        "connect failed",
    ] {
        assert!(reached.0.contains_key(state), "never reached: {state}; {:?}", reached.0);
    }
}
