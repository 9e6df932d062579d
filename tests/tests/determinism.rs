//! Same seed, same calls, same bytes.

use handfast_tests::{Faults, NatSpec, World, secs};

fn run(seed: u64, faults: Faults) -> (blake3::Hash, u64) {
    let mut w = World::new(seed);
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
