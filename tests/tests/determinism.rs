//! Same seed, same calls, same bytes.

use handfast_tests::{Faults, World};

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
