//! The internet in two halves for ten minutes, both ways or one way, and what happens when it is whole again.

use core::time::Duration;

use handfast_core::Instant;

use super::{honest, seconds};
use crate::scale::args::Args;
use crate::scale::calls::Ended;
use crate::scale::crowd::{Crowd, Doings};
use crate::scale::report::{Bound, Outcome};

const HALVES_WORK_PERCENT: Bound = Bound::AtLeast(99.0);
const CONVERGED_S: Bound = Bound::AtMost(30.0);
/// Twice was wanted. Nearly every leaf has another home after ten minutes, and each record is to be at four to eight others
/// again, once: that is as much as before, but what it is compared with has become half as much.
const GOSSIP_OVER_NORMAL: Bound = Bound::AtMost(3.0);

/// How long the partition lasts.
const LASTS: Duration = Duration::from_secs(600);
/// For so long it is watched whether all is well again.
const WATCHED: Duration = Duration::from_secs(300);
/// What is normal is measured for so long, and what is spent after.
const MEASURED: Duration = Duration::from_secs(600);
/// Calls within a half in the first and in the second part of the partition, and between the halves after it.
const EARLY: u8 = 1;
const LATE: u8 = 2;
const ACROSS: u8 = 3;
/// In each second, where there are leaves enough.
const CALLS: usize = 3;
/// So many leaves for each of them.
const LEAVES_FOR_A_CALL: usize = 100;

pub(super) fn both_ways(args: &Args, out: &mut Outcome) {
    run(args, false, out);
}

pub(super) fn one_way(args: &Args, out: &mut Outcome) {
    run(args, true, out);
}

fn run(args: &Args, is_one_way: bool, out: &mut Outcome) {
    let calls = (args.leaves / LEAVES_FOR_A_CALL).clamp(1, CALLS);
    let (crowd, healed, _) = parted(args, is_one_way, calls);
    // What all these calls cost is not what healing does.
    let (_, _, [normal, after]) = parted(args, is_one_way, 0);
    for (tag, what, bound) in
        [(EARLY, "in the first half of it", None), (LATE, "in the second half of it", Some(HALVES_WORK_PERCENT))]
    {
        let calls = crowd.calls.count(|call| call.tag == tag);
        let what = format!("calls within a side that were answered, {what}");
        match bound {
            Some(bound) => out.bound(what, calls.answered_percent(), "%", bound),
            None => out.tell(what, calls.answered_percent(), "%"),
        }
    }
    out.bound(
        "all calls between the sides are answered, after it has ended",
        converged(&crowd, healed),
        "s",
        CONVERGED_S,
    );
    out.tell("between each supernode and others before", normal, "kbit/s");
    out.bound("bytes between supernodes then, over normal", Some(after / normal), "", GOSSIP_OVER_NORMAL);
    honest(out, &crowd, healed, false);
    out.series.push(crowd.meter.over_time(if is_one_way { "partition-one-way" } else { "partition" }));
}

/// Goes through it, with so many calls a second beside what leaves do: when it had healed, and what a supernode and others
/// sent each other before and after, in kbit/s.
fn parted(args: &Args, is_one_way: bool, calls: usize) -> (Crowd, Instant, [f64; 2]) {
    let mut crowd = Crowd::settled(args, Doings { calls: true, ..Doings::default() }, Vec::new());
    crowd.run_for(args.scaled(MEASURED));
    crowd.meter.mark(&crowd.w);
    crowd.run_for(args.scaled(MEASURED));
    let normal = crowd.meter.window(&crowd.w).between_supernodes_kbps();
    let side = crowd.part(is_one_way);
    let lasts = args.scaled(LASTS).max(Duration::from_secs(300));
    for second in 0..lasts.as_secs() {
        let tag = if second < lasts.as_secs() / 2 { EARLY } else { LATE };
        for _ in 0..calls {
            crowd.call_somebody(tag, None, |from, to| side[from] == side[to]);
        }
        crowd.run_for(Duration::from_secs(1));
    }
    crowd.w.calm();
    let healed = crowd.w.now();
    crowd.meter.mark(&crowd.w);
    for _ in 0..WATCHED.as_secs() {
        for _ in 0..calls {
            crowd.call_somebody(ACROSS, None, |from, to| side[from] != side[to]);
        }
        crowd.run_for(Duration::from_secs(1));
    }
    crowd.run_for(args.scaled(MEASURED).saturating_sub(WATCHED).max(Duration::from_secs(61)));
    let after = crowd.meter.window(&crowd.w).between_supernodes_kbps();
    (crowd, healed, [normal, after])
}

/// How long after the healing the last call began that was not answered; none if that went on to the end.
fn converged(crowd: &Crowd, healed: Instant) -> Option<f64> {
    let across = || crowd.calls.done.iter().filter(|call| call.tag == ACROSS && call.result != Ended::Void);
    let failed = across().filter(|call| !call.result.is_answered()).map(|call| call.began).max();
    let last = across().map(|call| call.began).max()?;
    match failed {
        None => Some(0.0),
        Some(failed) if failed < last => Some(seconds(failed.since(healed))),
        Some(_) => None,
    }
}
