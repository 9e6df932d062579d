//! What supernodes carry when nothing is wrong but that they come and go, and how it is spread over them.

use core::time::Duration;

use super::{honest, seconds};
use crate::scale::args::{Args, Bindings};
use crate::scale::calls::percent;
use crate::scale::crowd::{Crowd, Doings, resident_mib};
use crate::scale::report::{Bound, Outcome, Series, Table, number};

/// In + out, for each supernode with 1 000 leaves; with the mix of bindings.
const DUTY_KBPS: Bound = Bound::AtMost(30.0);
const DUTY_KBPS_MIX: Bound = Bound::AtMost(38.0);
/// More bytes for each supernode, where there are ten times as many.
const GROWTH_PERCENT: Bound = Bound::AtMost(15.0);
const MAX_OVER_MEAN: Bound = Bound::AtMost(1.3);
const UTILISATION_MOST: Bound = Bound::AtMost(1.3);
const UTILISATION_LEAST: Bound = Bound::AtLeast(0.7);
const LIARS_SHARE: Bound = Bound::AtMost(1.5);
const FOUND_PERCENT: Bound = Bound::AtLeast(99.9);
const IDLE_AT_HOME_PERCENT: Bound = Bound::AtLeast(99.9);

/// Before anything is measured in the steady state, so long: routers are being measured until then.
const WARM: Duration = Duration::from_secs(15 * 60);
/// Fewer lookups than this do not show one in a thousand that fails.
const LOOKUPS_WANTED: f64 = 5_000.0;
/// Room that a liar claims.
const ENDLESS: usize = 100_000_000;

const ALL_DOINGS: Doings = Doings { sessions: true, calls: true, lives: true };

pub(super) fn steady(args: &Args, out: &mut Outcome) {
    let mut crowd = Crowd::settled(args, ALL_DOINGS, Vec::new());
    measure(args, &mut crowd);
    let window = crowd.meter.window(&crowd.w);
    let bound = if args.bindings == Bindings::Mix { DUTY_KBPS_MIX } else { DUTY_KBPS };
    out.bound("each supernode, in + out", Some(window.kbps()), "kbit/s", bound);
    out.tell("of it between supernodes", window.between_supernodes_kbps(), "kbit/s");
    out.tell("the least loaded supernode", window.means.first().copied(), "kbit/s");
    out.tell("the most loaded supernode", window.means.last().copied(), "kbit/s");
    out.tell("leaves for each supernode", args.leaves as f64 / args.supernodes as f64, "");
    out.tell("registrations at each supernode", mean_registered(&crowd), "");
    out.tell("supernodes that died", crowd.deaths as f64, "");
    honest_since_mark(args, &crowd, out);
    out.tables.push(window.by_duty());
    out.series.push(crowd.meter.over_time("steady"));
    out.series.push(window.over_supernodes("steady"));
    if args.leaves != 1_000 * args.supernodes {
        out.note("The bound is meant for 1 000 leaves for each supernode.");
    }
}

/// Warms up, marks, and runs for as long as is measured.
fn measure(args: &Args, crowd: &mut Crowd) {
    crowd.run_for(args.scaled(WARM));
    crowd.meter.mark(&crowd.w);
    crowd.run_for(args.measured());
}

fn honest_since_mark(args: &Args, crowd: &Crowd, out: &mut Outcome) {
    honest(out, crowd, crowd.w.now() - args.measured(), false);
}

fn mean_registered(crowd: &Crowd) -> f64 {
    let all: usize = crowd.registered().iter().map(|(_, leaves)| leaves).sum();
    all as f64 / crowd.serving.len().max(1) as f64
}

pub(super) fn growth(args: &Args, out: &mut Outcome) {
    let mut sizes: Vec<usize> =
        [100, 10, 1].map(|part| args.supernodes / part).into_iter().filter(|s| *s >= 3).collect();
    sizes.dedup();
    let largest = args.supernodes;
    let mut table = Table::new("By size:", &["supernodes", "leaves", "kbit/s each", "between supernodes"]);
    let mut loads: Vec<(usize, f64)> = Vec::new();
    for supernodes in sizes {
        let leaves = args.leaves * supernodes / args.supernodes;
        let args = Args { supernodes, leaves, ..args.clone() };
        let mut crowd = Crowd::settled(&args, Doings { lives: false, ..ALL_DOINGS }, Vec::new());
        measure(&args, &mut crowd);
        let window = crowd.meter.window(&crowd.w);
        table.lines.push(vec![
            supernodes.to_string(),
            leaves.to_string(),
            number(window.kbps()),
            number(window.between_supernodes_kbps()),
        ]);
        if let Some((fewer, before)) = loads.last() {
            let tens = (supernodes as f64 / *fewer as f64).log10();
            let more = ((window.kbps() / before).powf(1.0 / tens) - 1.0) * 100.0;
            out.bound(
                format!("more for each supernode, of {supernodes} and not {fewer}, per factor of 10"),
                Some(more),
                "%",
                GROWTH_PERCENT,
            );
        }
        loads.push((supernodes, window.kbps()));
        // The smaller sizes show nothing that the largest does not.
        if supernodes == largest {
            honest_since_mark(&args, &crowd, out);
        }
    }
    if loads.len() < 2 {
        out.note("There are too few supernodes for two sizes: 30 would do.");
    }
    out.tables.push(table);
}

pub(super) fn balance(args: &Args, out: &mut Outcome) {
    let doings = Doings { sessions: true, ..Doings::default() };
    let mut crowd = Crowd::settled(args, doings, Vec::new());
    let since = crowd.w.now();
    crowd.run_for(args.scaled(Duration::from_secs(1800)));
    let mut loads: Vec<f64> = crowd.registered().iter().map(|(_, leaves)| *leaves as f64).collect();
    loads.sort_by(f64::total_cmp);
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    let most = loads.last().map(|most| most / mean);
    out.bound("registrations, most over mean", most, "", MAX_OVER_MEAN);
    out.tell("registrations, least over mean", loads.first().map(|least| least / mean), "");
    honest(out, &crowd, since, false);
    out.series.push(over_supernodes("balance: registrations over supernodes", "registered leaves", &loads));
}

fn over_supernodes(name: &str, y: &'static str, sorted: &[f64]) -> Series {
    let points = sorted.iter().enumerate().map(|(n, y)| ((n + 1) as f64, *y)).collect();
    Series { name: name.to_owned(), x: "supernodes, the least first", y, curves: vec![("each".to_owned(), points)] }
}

pub(super) fn capacities(args: &Args, out: &mut Outcome) {
    // Half of all room is wanted: two homes for each leaf.
    let part = (12 * args.leaves).div_ceil(111 * args.supernodes).max(1);
    let doings = Doings { sessions: true, ..Doings::default() };
    let mut crowd = Crowd::settled(args, doings, vec![part, 10 * part, 100 * part]);
    let since = crowd.w.now();
    crowd.run_for(args.scaled(Duration::from_secs(1800)));
    let registered = crowd.registered();
    let room = |host: crate::HostId| crowd.w.host(host).config.leaves_max as f64;
    let (all, rooms) = registered.iter().fold((0.0, 0.0), |(a, r), (h, n)| (a + *n as f64, r + room(*h)));
    let mean = all / rooms;
    let mut table = Table::new("By room:", &["room", "supernodes", "least used", "mean", "most used"]);
    let (mut least, mut most) = (f64::MAX, 0.0_f64);
    for times in [1, 10, 100] {
        let of = registered.iter().filter(|(host, _)| crowd.w.host(*host).config.leaves_max == times * part);
        let used: Vec<f64> = of.map(|(host, n)| *n as f64 / room(*host) / mean).collect();
        let low = used.iter().copied().fold(f64::MAX, f64::min);
        let high = used.iter().copied().fold(0.0, f64::max);
        // Where there are few places, one leaf is more than the bound leaves.
        let leaf = 1.0 / (times * part) as f64 / mean;
        (least, most) = (least.min(low + leaf), most.max(high - leaf));
        let middle = used.iter().sum::<f64>() / used.len().max(1) as f64;
        let cells = [(times * part) as f64, used.len() as f64, low, middle, high];
        table.lines.push(cells.map(number).to_vec());
    }
    out.bound("utilisation, most over mean, one leaf aside", Some(most), "", UTILISATION_MOST);
    out.bound("utilisation, least over mean, one leaf aside", Some(least), "", UTILISATION_LEAST);
    out.tell("utilisation in the mean", mean * 100.0, "%");
    honest(out, &crowd, since, false);
    out.tables.push(table);
}

pub(super) fn liars(args: &Args, out: &mut Outcome) {
    let wanted = args.supernodes as f64 * args.liars / 100.0;
    let count = (1..=args.supernodes).filter(|n| *n as f64 <= wanted).count().max(1);
    let honest_room = (8 * args.leaves / args.supernodes).max(8);
    let is_liar = |n: usize| (n + 1) * count / args.supernodes > n * count / args.supernodes;
    let rooms = (0..args.supernodes).map(|n| if is_liar(n) { ENDLESS } else { honest_room }).collect();
    let mut crowd = Crowd::new(args, Doings { calls: true, ..Doings::default() });
    crowd.rooms = rooms;
    crowd.found(args.supernodes);
    crowd.run_for(Duration::from_secs(60));
    let since = crowd.w.now();
    crowd.add_leaves(args.leaves, args.ramp());
    crowd.run_for(args.ramp() + Duration::from_secs(60));
    let share = |crowd: &Crowd| {
        let registered = crowd.registered();
        let all: usize = registered.iter().map(|(_, n)| n).sum();
        let at_liars = registered.iter().filter(|(h, _)| crowd.w.host(*h).config.leaves_max == ENDLESS);
        let at_liars: usize = at_liars.map(|(_, n)| n).sum();
        at_liars as f64 / all.max(1) as f64 / (count as f64 / args.supernodes as f64)
    };
    out.bound("liars' leaves over their share, a minute after the last start", Some(share(&crowd)), "", LIARS_SHARE);
    crowd.run_for(args.scaled(Duration::from_secs(1800)));
    out.tell("the same later", share(&crowd), "");
    out.tell("liars", count as f64, "");
    honest(out, &crowd, since, true);
}

pub(super) fn churn(args: &Args, out: &mut Outcome) {
    let wanted = LOOKUPS_WANTED.min(args.leaves as f64 * 10.0) * 24.0 / (args.leaves as f64 * args.hours.max(0.01));
    let args = Args { calls_a_day: args.calls_a_day.max(wanted), ..args.clone() };
    let mut crowd = Crowd::settled(&args, ALL_DOINGS, Vec::new());
    measure(&args, &mut crowd);
    let since = crowd.w.now() - args.measured();
    let calls = crowd.calls.count(|call| call.began >= since);
    out.bound("lookups that found their peer", calls.found_percent(), "%", FOUND_PERCENT);
    out.tell("supernodes that died", crowd.deaths as f64, "");
    out.tell("calls of a leaf in a day, for this", args.calls_a_day, "");
    honest_since_mark(&args, &crowd, out);
}

pub(super) fn idle(args: &Args, out: &mut Outcome) {
    let before = resident_mib();
    let mut crowd = Crowd::settled(args, Doings::default(), Vec::new());
    measure(args, &mut crowd);
    let window = crowd.meter.window(&crowd.w);
    let at_home = (0..args.leaves).filter(|leaf| crowd.homes(*leaf) >= 2).count();
    let at_home = percent(at_home as u64, args.leaves as u64);
    out.bound("leaves with two homes at the end", at_home, "%", IDLE_AT_HOME_PERCENT);
    let bytes = window.total.duty().bytes() as f64 / args.leaves.max(1) as f64 / (window.seconds / 3600.0);
    out.tell("supernodes' bytes for each leaf in an hour, all together", bytes, "");
    out.tell("each supernode, in + out", window.kbps(), "kbit/s");
    out.tell("hours measured", seconds(args.measured()) / 3600.0, "");
    out.tables.push(window.by_duty());
    if args.progress {
        let grown = (resident_mib() - before) as f64 * 1024.0 / args.leaves.max(1) as f64;
        eprintln!("{grown:.1} KiB resident for each leaf, supernodes' part and the simulator's included");
    }
}
