//! Same seed, same calls, same bytes.

use handfast_tests::{Faults, NatSpec, World, secs};

fn run(seed: u64, faults: Faults) -> (blake3::Hash, u64) {
    let w = World::busy(seed, faults);
    (w.trace.hash(), w.trace.len())
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    for faults in [Faults::none(), Faults::bad(), Faults::hostile()] {
        let (first, second) = (run(1, faults), run(1, faults));
        assert_eq!(first, second);
        assert!(first.1 > 500, "only {} entries", first.1);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    // HANDFAST_SEED would make them the same on purpose.
    if std::env::var_os("HANDFAST_SEED").is_none() {
        assert_ne!(run(1, Faults::bad()).0, run(2, Faults::bad()).0);
    }
}

#[test]
fn two_worlds_in_two_threads_do_not_touch_each_other() {
    let alone = run(3, Faults::bad());
    let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(|| run(3, Faults::bad()))).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("runs"), alone);
    }
}

#[test]
fn a_lean_world_does_the_same_and_keeps_less() {
    let run = |mut w: World| {
        w.add_supernodes(4);
        let leaves = [(); 3].map(|()| w.add_leaf_behind(NatSpec::port_restricted()));
        w.run_for(secs(60));
        w.transfer(leaves[0], leaves[1], 50_000, 50_000);
        w.run_for(secs(20));
        let first = w.supernodes[0];
        w.crash(first);
        w.run_for(secs(120));
        w.start(first);
        w.run_for(secs(120));
        w
    };
    let full = World::new(5);
    let lean = World::lean(full.seed, 8);
    let (full, lean) = (run(full), run(lean));
    let carried = |w: &World| w.hosts.iter().map(|host| host.traffic).collect::<Vec<_>>();
    assert_eq!(carried(&full), carried(&lean));
    assert!(carried(&full).iter().all(|traffic| traffic.packets() > 50));
    let (said, kept): (usize, usize) = (lean.news.len(), full.hosts.iter().map(|host| host.events.len()).sum());
    assert!(said >= kept && kept > 20, "{said} handed over, {kept} kept");
    assert!(lean.trace.is_empty() && lean.hosts.iter().all(|host| host.events.is_empty()));
}
