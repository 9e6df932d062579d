//! Many storms. A campaign that never reached the states it is about proves nothing, so those are counted too.
//! `HANDFAST_SEED=…` runs one world; `HANDFAST_WORLDS=…` runs so many.

use handfast_tests::FaultCounts;
use handfast_tests::storm::{Reached, Storm};

/// Worlds in an ordinary test run.
const WORLDS: u64 = 8;
const ROUNDS: u32 = 40;

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
