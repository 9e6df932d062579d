//! Everything at once: a world drawn from its seed, in which all that can go wrong does, and which then calms down.
//!
//! During the storm only the invariants must hold, and every byte that arrives must be right. After it every pair must
//! talk again.

use std::collections::BTreeMap;

use handfast_core::{CommandError, Event, Node};

use crate::nat::{Behavior, NatSpec, PortAssignment};
use crate::wire::{INTERNET, RouterId};
use crate::{Chance, Faults, HostId, Place, TransferId, World, XFER, ms, secs};

/// Longest back-off of anything.
const BACK_OFF_MAX_SECS: u64 = 300;

/// How often each state was reached.
#[derive(Default)]
pub struct Reached(pub BTreeMap<&'static str, u64>);

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
            let outer = RouterId(w.dice().below(n) as usize);
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

/// See the module.
pub struct Storm {
    /// The world.
    pub w: World,
    leaves: Vec<HostId>,
    transfers: Vec<TransferId>,
    /// The states that it went through.
    pub reached: Reached,
}

impl Storm {
    /// Some supernodes and leaves, as the seed says.
    pub fn new(seed: u64) -> Self {
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
                assert_eq!(error, CommandError::Limit);
                self.reached.count("limit");
            }
        }
    }

    /// One thing goes wrong, and some seconds pass.
    pub fn round(&mut self) {
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
                    let router = RouterId(self.w.dice().below(routers) as usize);
                    // One behind another keeps its address: it would need one of that LAN.
                    if self.w.dice().below(2) == 0 && self.w.wire.routers[router.0].outer == INTERNET {
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
                    self.w.with(leaf, Node::leave);
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

    /// All faults end: everybody talks again.
    pub fn calm_down(&mut self) {
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
