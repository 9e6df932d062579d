//! A partition that heals: who was cut off from a home has lost it without a word, and the home does not know for
//! minutes. Calls work at once all the same.

use core::time::Duration;

use handfast_tests::scale::Args;
use handfast_tests::scale::calls::{Call, Ended};
use handfast_tests::scale::crowd::{Crowd, Doings};

const ACROSS: u8 = 1;
const IN_VAIN: u8 = 2;
/// So long after it has healed, calls may still fail: until supernodes are linked, and leaves that lost all homes have new
/// ones.
const GRACE: Duration = Duration::from_secs(20);

/// Calls between the sides, soon after it has healed: for two minutes a home still had an old link to the caller, whose channel went
/// with it, or still took the callee for its own.
#[test]
fn regression_calls_between_the_sides_of_a_partition_are_answered_soon_after_it_has_healed() {
    for is_one_way in [false, true] {
        let args = Args { supernodes: 8, leaves: 80, ..Args::default() };
        let mut crowd = Crowd::settled(&args, Doings::default(), Vec::new());
        let side = crowd.part(is_one_way);
        crowd.run_for(Duration::from_secs(600));
        crowd.w.calm();
        crowd.run_for(GRACE);
        let began = crowd.w.now();
        for _ in 0..150 {
            for _ in 0..2 {
                crowd.call_somebody(ACROSS, None, |from, to| side[from] != side[to]);
            }
            crowd.run_for(Duration::from_secs(1));
        }
        crowd.run_for(Duration::from_secs(61));
        let calls = crowd.calls.count(|call| call.tag == ACROSS);
        let failed = |call: &&Call| call.tag == ACROSS && !call.result.is_answered() && call.result != Ended::Void;
        let failed: Vec<(f64, &Call)> =
            crowd.calls.done.iter().filter(failed).map(|call| (call.began.since(began).as_secs_f64(), call)).collect();
        assert!(calls.all() >= 250 && failed.is_empty(), "one way: {is_one_way}, {} calls: {failed:?}", calls.all());
    }
}

/// Who called across the partition has sent as many Inits to homes on the other side as anybody may send where others
/// say that somebody is. For ten minutes it could not call those who are at home there.
#[test]
fn regression_who_called_in_vain_is_heard_when_the_partition_has_healed() {
    let (mut all, mut answered) = (0, 0);
    for seed in 1..=4 {
        let args = Args { supernodes: 8, leaves: 80, seed, ..Args::default() };
        let mut crowd = Crowd::settled(&args, Doings::default(), Vec::new());
        let side = crowd.part(false);
        let across = |from: usize, to: usize| from < 4 && side[from] != side[to];
        crowd.run_for(Duration::from_secs(30));
        // Addresses are remembered, and their homes are still named by everybody's records.
        for _ in 0..60 {
            for _ in 0..4 {
                crowd.call_somebody(IN_VAIN, None, across);
            }
            crowd.run_for(Duration::from_secs(1));
        }
        assert!(crowd.calls.count(|call| call.tag == IN_VAIN).answered() == 0);
        crowd.w.calm();
        crowd.run_for(GRACE);
        for _ in 0..60 {
            for _ in 0..4 {
                crowd.call_somebody(ACROSS, None, across);
            }
            crowd.run_for(Duration::from_secs(1));
        }
        crowd.run_for(Duration::from_secs(61));
        let calls = crowd.calls.count(|call| call.tag == ACROSS);
        assert!(calls.all() >= 60, "{}", calls.all());
        (all, answered) = (all + calls.all(), answered + calls.answered());
    }
    // One that asks while its own home has not been to the home of the other again is too early.
    assert!(answered * 100 >= all * 99, "{answered} of {all}");
}
