//! What nodes do, bit for bit, against what they did when `traces.txt` was written.
//!
//! `determinism` compares two runs of one build; this compares builds. A commit that is meant to change no behaviour
//! changes no line of that file. One that is meant to runs this with `HANDFAST_TRACES=write` and says why in its
//! message. The worlds together go through most of what a node can do: a change that none of them notices is small.

use std::fmt::Write as _;

use handfast_core::{LanNode, Mapping, MappingProtocol, Network, Role, SocketId};
use handfast_tests::storm::Storm;
use handfast_tests::wire::Way;
use handfast_tests::{Chance, Faults, HostId, NatSpec, Place, PortAssignment, World, kinds, ms, secs};

/// The file, beside this one.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces.txt");

fn storm(seed: u64, rounds: u32) -> World {
    let mut storm = Storm::new(seed);
    for _ in 0..rounds {
        storm.round();
    }
    storm.w.calm();
    storm.w.run_for(secs(60));
    storm.w
}

/// Every kind of router calls the next two kinds.
fn every_router() -> World {
    let mut w = World::new(11);
    w.add_supernodes(6);
    let leaves: Vec<HostId> = kinds::all().iter().map(|kind| w.add_leaf_on(&kind.side)).collect();
    w.run_for(secs(60));
    for n in 0..leaves.len() {
        for step in [1, 2] {
            w.transfer(leaves[n], leaves[(n + step) % leaves.len()], 3_000, 3_000);
            w.run_for(secs(4));
        }
    }
    w.run_for(secs(60));
    w
}

/// Ports that have to be foreseen or guessed.
fn hard_routers() -> World {
    let mut w = World::new(12);
    w.add_supernodes(4);
    let sequential = NatSpec::dependent(PortAssignment::Sequential { delta: 1 });
    let block = NatSpec::dependent(PortAssignment::Block { width: 64 });
    let random = NatSpec::dependent(PortAssignment::Random);
    let specs = [sequential, block, random, NatSpec::port_restricted(), sequential.background(3)];
    let leaves = specs.map(|spec| w.add_leaf_behind(spec));
    w.run_for(secs(60));
    for a in leaves {
        for b in leaves {
            if a != b {
                w.transfer(a, b, 2_000, 2_000);
                w.run_for(secs(8));
            }
        }
    }
    w.run_for(secs(120));
    w
}

/// Nodes that find their role: one in public, one that loses its address, one behind a mapped port, one behind nothing
/// but a router.
fn roles() -> World {
    let mut w = World::new(13);
    w.add_supernodes(6);
    let auto = |config: &mut handfast_core::Config| config.role = Role::Auto;
    let public = w.add_leaf_with(Place::Public, auto);
    let router = w.add_router(NatSpec::port_restricted());
    let moves = w.add_leaf_with(Place::Public, auto);
    w.add_leaf_with(Place::Behind(router), auto);
    let leaf = w.add_leaf_behind(NatSpec::port_restricted());
    w.run_for(secs(120));
    w.transfer(leaf, public, 10_000, 10_000);
    w.move_host(moves, Place::Behind(router));
    w.tell_network(moves);
    let mapped = w.add_leaf_with(Place::Behind(router), auto);
    let external = std::net::SocketAddr::new(w.wire.routers[router.0].nat.externals()[0], 40_000);
    let mapping = Mapping { socket: SocketId(0), external, protocol: MappingProtocol::Pcp };
    let network = Network { mappings: vec![mapping], ..w.host(mapped).network() };
    w.with(mapped, |node, now| node.handle_network(now, &network));
    w.run_for(secs(400));
    w.transfer(mapped, moves, 10_000, 10_000);
    w.run_for(secs(60));
    w
}

fn tcp() -> World {
    let (mut w, a, b) = World::pair(14, NatSpec::udp_blocked(), NatSpec::port_restricted());
    w.transfer(a, b, 100_000, 50_000);
    w.run_for(secs(30));
    let router = w.router_of(a);
    for blocked in [false, true] {
        w.wire.routers[router.0].nat.spec.blocks_udp = blocked;
        w.wire.routers[router.0].firewall.spec.blocks_udp = blocked;
        w.run_for(secs(400));
        w.transfer(b, a, 50_000, 50_000);
        w.run_for(secs(30));
    }
    w.tcp.break_all(w.now(), a);
    w.run_for(secs(60));
    w
}

fn lan() -> World {
    let mut w = World::new(15);
    let router = w.add_router(NatSpec::port_restricted());
    let leaves = [(); 3].map(|()| w.add_leaf_with(Place::Behind(router), |config| config.lan = true));
    w.transfer(leaves[0], leaves[1], 1_000, 1_000);
    w.run_for(ms(800));
    for to in leaves {
        for of in leaves.into_iter().filter(|of| *of != to) {
            let (peer, address) = w.contact(of);
            let announced = LanNode { peer, addresses: vec![address], is_supernode: false };
            w.with(to, |node, now| node.handle_lan_node(now, &announced));
        }
    }
    w.transfer(leaves[2], leaves[1], 100_000, 1_000);
    w.run_for(secs(20));
    w
}

/// A pair that rests for a day, on a router with a short memory, and is woken now and then.
fn idle_day() -> World {
    let short = NatSpec::port_restricted().binding_timeout(secs(45));
    let (mut w, a, b) = World::pair(16, short, NatSpec::port_restricted().binding_timeout(secs(300)));
    for hours in [1, 5, 8, 10] {
        w.transfer(a, b, 500, 500);
        w.run_for(secs(hours * 3_600));
    }
    w.transfer(b, a, 500, 500);
    w.run_for(secs(60));
    w
}

/// A path that becomes bad, and good again, in the middle of bulk.
fn bad_paths() -> World {
    let (mut w, a, b) = World::pair(17, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.transfer(a, b, 2_000_000, 2_000_000);
    w.run_for(secs(3));
    w.degrade(a, b, Way { loss: Chance::percent(40), delay: ms(60) });
    w.run_for(secs(20));
    w.calm();
    w.run_for(secs(60));
    w.cut_one_way(a, b);
    w.transfer(b, a, 100_000, 100_000);
    w.run_for(secs(30));
    w
}

/// Many leaves at few supernodes, half of which crash and come back.
fn crowd() -> World {
    let mut w = World::new(18);
    w.add_supernodes(8);
    let leaves: Vec<HostId> = (0..60).map(|_| w.add_leaf_behind(NatSpec::port_restricted())).collect();
    w.run_for(secs(30));
    for n in 0..leaves.len() {
        w.transfer(leaves[n], leaves[(n * 7 + 1) % leaves.len()], 1_000, 1_000);
    }
    w.run_for(secs(20));
    for s in w.supernodes.clone().into_iter().take(4) {
        w.crash(s);
    }
    w.run_for(secs(300));
    for s in w.supernodes.clone().into_iter().take(4) {
        w.start(s);
    }
    w.run_for(secs(120));
    for leaf in leaves.iter().step_by(5) {
        w.with(*leaf, handfast_core::Node::leave);
    }
    w.run_for(secs(30));
    w
}

/// Relays with small caps, and pairs that must use them.
fn small_relays() -> World {
    let mut w = World::new(19);
    for _ in 0..3 {
        w.add_supernode_with(|config| {
            config.relay_rate_bps = 1_000_000;
            config.relay_quota_bytes = 1_000_000;
            config.relay_total_rate_bps = 2_000_000;
            config.relay_total_quota_bytes = 5_000_000;
            config.leaves_max = 5;
        });
    }
    let hard = NatSpec::dependent(PortAssignment::Random);
    let leaves: Vec<HostId> = (0..8).map(|_| w.add_leaf_behind(hard)).collect();
    w.run_for(secs(30));
    for pair in leaves.chunks(2) {
        w.transfer(pair[0], pair[1], 400_000, 400_000);
    }
    w.run_for(secs(120));
    w
}

fn dual_stack() -> World {
    let mut w = World::new(20);
    w.add_supernodes(3);
    let routers = [(); 2].map(|()| w.add_router(NatSpec::port_restricted()));
    let leaves = routers.map(|router| w.add_leaf(Place::DualStack(router)));
    w.settle_homes(&leaves);
    w.transfer(leaves[0], leaves[1], 50_000, 50_000);
    w.run_for(secs(10));
    w.move_host(leaves[0], Place::Behind(routers[0]));
    w.tell_network(leaves[0]);
    w.transfer(leaves[1], leaves[0], 50_000, 50_000);
    w.run_for(secs(30));
    w.move_host(leaves[0], Place::Public);
    w.run_for(secs(60));
    w
}

type Named = (&'static str, fn() -> World);

fn worlds() -> Vec<Named> {
    vec![
        ("calm", || World::busy(1, Faults::none())),
        ("bad", || World::busy(1, Faults::bad())),
        ("hostile", || World::busy(1, Faults::hostile())),
        ("storm 100", || storm(100, 25)),
        ("storm 101", || storm(101, 25)),
        ("storm 102", || storm(102, 25)),
        ("every router", every_router),
        ("hard routers", hard_routers),
        ("roles", roles),
        ("tcp", tcp),
        ("lan", lan),
        ("idle day", idle_day),
        ("bad paths", bad_paths),
        ("crowd", crowd),
        ("small relays", small_relays),
        ("dual stack", dual_stack),
    ]
}

#[test]
fn nodes_do_bit_for_bit_what_they_did() {
    assert!(
        std::env::var_os("HANDFAST_SEED").is_none(),
        "HANDFAST_SEED makes other worlds than those in {FILE}: unset it"
    );
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worlds = worlds();
    let lines = std::sync::Mutex::new(vec![String::new(); worlds.len()]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, core::num::NonZero::get) {
            scope.spawn(|| {
                while let Some((name, run)) = worlds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let w = run();
                    let at = worlds.iter().position(|(other, _)| other == name).expect("one of them");
                    let mut line = String::new();
                    write!(line, "{name}: {} entries, {}", w.trace.len(), w.trace.hash()).expect("a string");
                    lines.lock().expect("no panic")[at] = line;
                }
            });
        }
    });
    let text = lines.into_inner().expect("no panic").join("\n") + "\n";
    if std::env::var("HANDFAST_TRACES").is_ok_and(|what| what == "write") {
        std::fs::write(FILE, text).expect("can be written");
        return;
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    let changed: Vec<&str> = text.lines().filter(|line| !committed.lines().any(|old| old == *line)).collect();
    assert!(
        text == committed,
        "nodes do something else than when {FILE} was written. If that is meant: HANDFAST_TRACES=write \
         cargo test -p handfast-tests --test traces, and say why in the commit. Now:\n{}",
        changed.join("\n")
    );
}
