//! Half of the supernodes crash at once; and what becomes of the half that comes back.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::{honest, seconds};
use crate::HostId;
use crate::scale::args::Args;
use crate::scale::calls::quantile;
use crate::scale::crowd::{Crowd, Doings};
use crate::scale::report::{Bound, Outcome};

const TWO_HOMES_AGAIN_S: Bound = Bound::AtMost(60.0);
const ORPHANS_AT_HOME_S: Bound = Bound::AtMost(250.0);
const DIALLING_ORPHANS_S: Bound = Bound::AtMost(10.0);
const NEVER_UNREACHABLE_PERCENT: Bound = Bound::AtLeast(100.0);
const REGISTRATIONS: Bound = Bound::AtMost(2.5);
const BYTES_OVER_MEAN: Bound = Bound::AtMost(10.0);
const SESSIONS_LOST: Bound = Bound::AtMost(0.0);
const SHARE_AFTER_AN_HOUR: Bound = Bound::AtLeast(0.5);
const SHARE_AFTER_THREE: Bound = Bound::AtLeast(0.7);
const LOST_BOTH: Bound = Bound::AtMost(0.0);

/// What is watched after the crash.
const WATCHED: Duration = Duration::from_secs(300);
/// Before it, what supernodes carry is their mean.
const BEFORE: Duration = Duration::from_secs(300);
/// Sessions that are held through the crash.
const SESSIONS: usize = 20;
/// Leaves without a home that call somebody.
const DIALLING: usize = 50;
/// Calls in a second, where there are leaves enough.
const CALLS: usize = 5;
const LEAVES_FOR_A_CALL: usize = 40;
/// Calls of leaves that still have a home.
const REACHABLE: u8 = 1;
/// Calls of leaves that have none.
const ORPHANS: u8 = 2;

/// The leaves by how many living homes the crash left them.
struct Left {
    one: Vec<usize>,
    none: Vec<usize>,
    /// Of those with a home.
    reachable: BTreeSet<usize>,
}

pub(super) fn half(args: &Args, out: &mut Outcome) {
    let (mut crowd, pairs) = at_rest(args);
    let held: Vec<(usize, usize)> = pairs.into_iter().filter(|pair| crowd.is_held(*pair)).collect();
    let before = crowd.registered();
    let left = crash(&mut crowd);
    let since = crowd.w.now();
    watch(&mut crowd, &left, out);
    registrations(&crowd, &before, out);
    bytes(args, out);
    let lost = held.iter().filter(|pair| !crowd.is_held(**pair)).count().max(crowd.broken.len());
    out.bound("direct sessions lost", Some(lost as f64), "", SESSIONS_LOST);
    out.tell("direct sessions held", held.len() as f64, "");
    out.tell("leaves left with one home", left.one.len() as f64, "");
    out.tell("leaves left with none", left.none.len() as f64, "");
    honest(out, &crowd, since, false);
    out.series.push(crowd.meter.over_time("half-crash"));
}

/// Supernodes and leaves that have been there for a while, and pairs of leaves that were to hold sessions.
fn at_rest(args: &Args) -> (Crowd, Vec<(usize, usize)>) {
    let mut crowd = Crowd::new(args, Doings { calls: true, ..Doings::default() });
    crowd.found(args.supernodes);
    crowd.run_for(Duration::from_secs(60));
    crowd.add_leaves(args.leaves, args.ramp());
    let pairs = crowd.keepers(SESSIONS);
    crowd.run_for(args.ramp() + Duration::from_secs(120));
    for pair in &pairs {
        crowd.hold(*pair);
    }
    crowd.run_for(args.scaled(BEFORE).max(Duration::from_secs(180)));
    (crowd, pairs)
}

/// The same once more, but without the calls by which it is watched who can be reached: those are many times as many as
/// leaves make.
fn bytes(args: &Args, out: &mut Outcome) {
    let (mut crowd, _) = at_rest(args);
    crash(&mut crowd);
    let rest = crowd.serving.clone();
    let means = crowd.meter.means(&rest, BEFORE);
    crowd.meter.mark(&crowd.w);
    crowd.run_for(WATCHED);
    let what = "most bytes of a living one in a minute, over its mean";
    out.bound(what, crowd.meter.worst_minute(&means), "", BYTES_OVER_MEAN);
}

/// Half of the supernodes, drawn, are gone.
fn crash(crowd: &mut Crowd) -> Left {
    let serving = crowd.serving.clone();
    let half = crowd.draw(&serving, serving.len() / 2);
    let dead: BTreeSet<HostId> = half.iter().copied().collect();
    let (mut one, mut none, mut reachable) = (Vec::new(), Vec::new(), BTreeSet::new());
    for leaf in crowd.up().collect::<Vec<_>>() {
        let homes = crowd.homes_of(leaf);
        let living = homes.iter().filter(|home| !dead.contains(home)).count();
        if living > 0 {
            reachable.insert(leaf);
        }
        match living {
            0 => none.push(leaf),
            n if n < homes.len() => one.push(leaf),
            _ => {}
        }
    }
    for host in half {
        crowd.crash_supernode(host);
    }
    Left { one, none, reachable }
}

/// Homes of a leaf that are up.
fn living(crowd: &Crowd, leaf: usize) -> usize {
    crowd.homes_of(leaf).iter().filter(|home| crowd.w.is_up(**home)).count()
}

/// Second by second: who has two homes again, who is reached.
fn watch(crowd: &mut Crowd, left: &Left, out: &mut Outcome) {
    let began = crowd.w.now();
    let step = Duration::from_secs(1);
    let mut waiting: BTreeMap<usize, bool> = left.one.iter().map(|leaf| (*leaf, true)).collect();
    waiting.extend(left.none.iter().map(|leaf| (*leaf, false)));
    let (mut two_again, mut orphans_again) = (Vec::new(), Vec::new());
    let (mut dialling, mut dialled, mut asked_at) = (BTreeSet::new(), Vec::new(), None);
    while crowd.w.now().since(began) < WATCHED {
        crowd.run_for(step);
        let now = crowd.w.now();
        if asked_at.is_none() {
            asked_at = Some(now);
            let orphans = left.none.iter().take(DIALLING).copied();
            dialling = orphans
                .filter(|l| crowd.call_somebody(ORPHANS, Some(*l), |_, to| left.reachable.contains(&to)))
                .collect();
        }
        for _ in 0..(crowd.leaves.len() / LEAVES_FOR_A_CALL).clamp(1, CALLS) {
            let is_meant = |from, to| left.reachable.contains(&from) && left.reachable.contains(&to);
            crowd.call_somebody(REACHABLE, None, is_meant);
        }
        waiting.retain(|leaf, had_one| {
            let homes = living(crowd, *leaf);
            if homes >= 1 && dialling.remove(leaf) {
                dialled.extend(asked_at.map(|at| now.since(at)));
            }
            if homes >= 2 {
                if *had_one { &mut two_again } else { &mut orphans_again }.push(now.since(began));
            }
            homes < 2
        });
    }
    // Who never came home counts as the longest there is.
    let all = |mut times: Vec<Duration>, of: usize| {
        times.resize(of, Duration::MAX);
        quantile(&mut times, 99).filter(|t| *t < Duration::MAX).map(seconds)
    };
    out.bound("two homes again, who had one left, 99 %", all(two_again, left.one.len()), "s", TWO_HOMES_AGAIN_S);
    out.bound("two homes again, who had none left, 99 %", all(orphans_again, left.none.len()), "s", ORPHANS_AT_HOME_S);
    let asked = dialled.len() + dialling.len();
    out.bound("a home again, who had none and dialled, 99 %", all(dialled, asked), "s", DIALLING_ORPHANS_S);
    let calls = crowd.calls.count(|call| call.tag == REACHABLE);
    let what = "calls between leaves with a living home that were answered";
    out.bound(what, calls.answered_percent(), "%", NEVER_UNREACHABLE_PERCENT);
    out.tell("such calls", calls.all() as f64, "");
}

/// How many registrations a living supernode has, over what one had in the mean.
fn registrations(crowd: &Crowd, before: &[(HostId, usize)], out: &mut Outcome) {
    let mean = before.iter().map(|(_, n)| *n as f64).sum::<f64>() / before.len().max(1) as f64;
    let most = crowd.registered().iter().map(|(_, n)| *n as f64).fold(0.0, f64::max);
    out.bound("most registrations at a living one, over the mean before", Some(most / mean), "", REGISTRATIONS);
}

pub(super) fn homecoming(args: &Args, out: &mut Outcome) {
    let doings = Doings { sessions: true, calls: true, lives: false };
    let mut crowd = Crowd::settled(args, doings, Vec::new());
    crash(&mut crowd);
    crowd.run_for(args.scaled(Duration::from_secs(600)).max(WATCHED));
    let since = crowd.w.now();
    let lost_before: u32 = crowd.leaves.iter().map(|leaf| leaf.lost).sum();
    let down: Vec<HostId> = crowd.w.supernodes.iter().copied().filter(|h| !crowd.w.is_up(*h)).collect();
    for host in &down {
        crowd.start_supernode(*host);
    }
    let newcomers = crowd.found((args.supernodes / 8).max(1));
    let hour = args.scaled(Duration::from_secs(3600));
    for (hours, bound) in [(1, SHARE_AFTER_AN_HOUR), (3, SHARE_AFTER_THREE)] {
        crowd.run_for((hour * hours).saturating_sub(crowd.w.now().since(since)));
        for (who, hosts) in [("returned", &down), ("new", &newcomers)] {
            let (least, middle) = shares(&crowd, hosts);
            out.bound(format!("least leaves of one that is {who} after {hours} h, over the mean"), least, "", bound);
            out.tell(format!("mean leaves of those that are {who} after {hours} h, over the mean of all"), middle, "");
        }
    }
    let lost: u32 = crowd.leaves.iter().map(|leaf| leaf.lost).sum::<u32>() - lost_before;
    out.bound("leaves that lost both homes meanwhile", Some(f64::from(lost)), "", LOST_BOTH);
    if hour < Duration::from_secs(3600) {
        out.note(format!("An hour is {} s here.", hour.as_secs()));
    }
    honest(out, &crowd, since, false);
}

/// The least and the mean registrations of these, over the mean of all.
fn shares(crowd: &Crowd, of: &[HostId]) -> (Option<f64>, Option<f64>) {
    let registered: BTreeMap<HostId, usize> = crowd.registered().into_iter().collect();
    let mean = registered.values().sum::<usize>() as f64 / registered.len().max(1) as f64;
    let theirs: Vec<usize> = of.iter().filter_map(|host| registered.get(host)).copied().collect();
    let middle = theirs.iter().sum::<usize>() as f64 / theirs.len().max(1) as f64 / mean;
    (theirs.iter().min().map(|least| *least as f64 / mean), (!theirs.is_empty()).then_some(middle))
}
