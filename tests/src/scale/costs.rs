//! What each thing costs, measured one at a time; and what that comes to for millions of nodes.
//!
//! [`Costs::measure`] lets a crowd do one thing after the other (nothing, start, rest, start again, call) and takes
//! from each what the same crowd costs at rest. [`table`] multiplies. What was measured and what is assumed stands in
//! each line, for the arithmetic is the easy part.

use core::time::Duration;

use super::args::Args;
use super::crowd::{Crowd, Doings};
use super::report::{Outcome, Table, number};
use crate::ledger::{Kind, Party};

/// A start and all that follows from it, as the measurement of the router, is over after this.
const AFTERMATH: Duration = Duration::from_secs(900);
/// A call and all that follows from it is over after this.
const CALL_OVER: Duration = Duration::from_secs(300);
/// Of these leaves each starts again, and each calls, in the measurement.
const SAMPLE: usize = 4;
const MONTH_S: f64 = 30.0 * 24.0 * 3600.0;
const TB: f64 = 1e12;
/// Supernodes of a hundred nodes.
const SHARES: [f64; 4] = [0.1, 0.5, 1.0, 5.0];

/// Bytes at IP level, in and out together, at all supernodes together.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Costs {
    /// A leaf at rest, in an hour, with its homes.
    pub rest_hour: f64,
    /// The first start of a leaf, with whomever it talks to.
    pub first_start: f64,
    /// Another start, with what it saved.
    pub start: f64,
    /// A call, without what the two then say to one another.
    pub call: f64,
    /// A supernode at rest, in an hour, with other supernodes.
    pub between_hour: f64,
    /// What supernodes tell one another of a start.
    pub between_start: f64,
    /// And of a call.
    pub between_call: f64,
}

/// What was carried in a part of the measurement.
#[derive(Clone, Copy)]
struct Part {
    with_leaves: f64,
    between: f64,
    hours: f64,
}

impl Part {
    fn of(crowd: &Crowd) -> Self {
        let window = crowd.meter.window(&crowd.w);
        let sum = |party| Kind::all().map(|kind| window.total.get(party, kind).bytes() as f64).sum();
        Self { with_leaves: sum(Party::Leaf), between: sum(Party::Supernode), hours: window.seconds / 3600.0 }
    }
}

impl Costs {
    /// Measures them. The supernodes stay, and nobody does what is not being measured.
    pub fn measure(args: &Args) -> Self {
        let mut crowd = Crowd::new(args, Doings::default());
        crowd.found(args.supernodes);
        crowd.run_for(Duration::from_secs(120));
        let part = |crowd: &mut Crowd, time: Duration| {
            crowd.meter.mark(&crowd.w);
            crowd.run_for(time);
            Part::of(crowd)
        };
        crowd.add_leaves(args.leaves, args.ramp());
        let starts = part(&mut crowd, args.ramp() + AFTERMATH);
        let rest = part(&mut crowd, args.scaled(Duration::from_secs(3600)).max(AFTERMATH));
        let sample = (args.leaves / SAMPLE).max(1);
        for leaf in 0..sample {
            crowd.stop_leaf(leaf);
            crowd.start_leaf(leaf);
        }
        let restarts = part(&mut crowd, AFTERMATH);
        for leaf in 0..sample {
            crowd.call_somebody(0, Some(leaf), |_, _| true);
        }
        let calls = part(&mut crowd, CALL_OVER);
        let answered = crowd.calls.count(|_| true).answered().max(1) as f64;

        let leaves = args.leaves.max(1) as f64;
        let with_leaves = |part: Part| part.with_leaves - rest.with_leaves / rest.hours * part.hours;
        let between = |part: Part| part.between - rest.between / rest.hours * part.hours;
        // While leaves still start, fewer of them rest.
        let not_yet = args.ramp().as_secs_f64() / 2.0 / 3600.0 * rest.with_leaves / rest.hours;
        Self {
            rest_hour: rest.with_leaves / rest.hours / leaves,
            first_start: (with_leaves(starts) + not_yet).max(0.0) / leaves,
            start: with_leaves(restarts).max(0.0) / sample as f64,
            call: with_leaves(calls).max(0.0) / answered,
            between_hour: rest.between / rest.hours / args.supernodes as f64,
            between_start: between(restarts).max(0.0) / sample as f64,
            between_call: between(calls).max(0.0) / answered,
        }
    }

    /// What one leaf costs all its supernodes together in a second, and what these then tell one another.
    fn a_second(&self, args: &Args) -> (f64, f64) {
        let starts_an_hour = if args.session.is_zero() { 0.0 } else { 3600.0 / args.session.as_secs_f64() };
        let calls_an_hour = args.calls_a_day / 24.0;
        let with = self.rest_hour + starts_an_hour * self.start + calls_an_hour * self.call;
        let between = starts_an_hour * self.between_start + calls_an_hour * self.between_call;
        (with / 3600.0, between / 3600.0)
    }
}

/// The scenario: the measurement alone, with the extrapolation where it is asked for.
pub(super) fn run(args: &Args, out: &mut Outcome) {
    let costs = Costs::measure(args);
    out.tell("a leaf at rest, in an hour", costs.rest_hour, "bytes");
    out.tell("a leaf's first start", costs.first_start, "bytes");
    out.tell("a leaf's start with what it saved", costs.start, "bytes");
    out.tell("a call", costs.call, "bytes");
    out.tell("a supernode at rest with other supernodes, in an hour", costs.between_hour, "bytes");
    out.tell("what supernodes tell one another of a start", costs.between_start, "bytes");
    out.tell("what supernodes tell one another of a call", costs.between_call, "bytes");
    out.note("All at IP level, in and out, at all supernodes together.");
    if !args.extrapolate.is_empty() {
        out.tables.push(table(args, &costs));
        for line in assumptions(args) {
            out.note(line);
        }
    }
}

fn assumptions(args: &Args) -> Vec<String> {
    vec![
        format!(
            "Measured, with {} supernodes and {} leaves: each of the costs above, by difference from the same crowd at \
             rest.",
            args.supernodes, args.leaves
        ),
        format!(
            "Assumed of leaves: all of them are online all the time but for starting anew every {} h, they call {} times \
             a day, and their routers are those of this run.",
            number(args.session.as_secs_f64() / 3600.0),
            number(args.calls_a_day)
        ),
        "Assumed of a central server: it does all that supernodes do for leaves, alone, so each leaf has one \
         registration and not two: half of what rest and starts cost, all of what calls cost."
            .to_owned(),
        "Assumed of supernodes: that one at rest tells others no more where there are more of them, and a start or a \
         call costs no more between them. Whether it is so is what the scenario `growth` measures."
            .to_owned(),
        "Not in it: what is relayed for pairs that cannot be direct, and supernodes that die.".to_owned(),
    ]
}

/// What so many nodes cost, in each arrangement.
pub fn table(args: &Args, costs: &Costs) -> Table {
    let head = ["nodes", "arrangement", "TB a month in all", "kbit/s each, in + out", "from"];
    let mut table = Table::new("Extrapolated:", &head);
    let (with, between) = costs.a_second(args);
    let calls = args.calls_a_day / 24.0 / 3600.0 * costs.call;
    for nodes in &args.extrapolate {
        let mut add = |what: String, all: f64, each: f64, from: &str| {
            let cells = [format!("{nodes:e}"), what, number(all * MONTH_S / TB), number(each * 8.0 / 1000.0)];
            table.lines.push(cells.into_iter().chain([from.to_owned()]).collect());
        };
        let central = nodes * ((with - calls) / 2.0 + calls);
        add("a central server".to_owned(), central, central, "measured: rest, start, call; assumed: one registration");
        for share in SHARES {
            let supernodes = nodes * share / 100.0;
            let leaves = nodes - supernodes;
            // Between supernodes each byte is counted at both ends, as it is with leaves at one.
            let all = leaves * (with + between) + supernodes * costs.between_hour / 3600.0;
            let what = format!("{} % are supernodes", number(share));
            let from = "measured: rest, start, call, between supernodes; assumed: no growth with their number";
            add(what, all, all / supernodes, from);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extrapolation_multiplies() {
        let args =
            Args { extrapolate: vec![1e6], session: Duration::from_secs(3600), calls_a_day: 24.0, ..Args::default() };
        let costs = Costs { rest_hour: 1800.0, start: 1080.0, call: 720.0, between_hour: 3600.0, ..Costs::default() };
        let table = table(&args, &costs);
        // A leaf: 3 600 bytes an hour, of which a call is 720; a central server has (2880 / 2 + 720) / 3600 = 0.6 B/s.
        assert_eq!(table.lines[0][3], "4800");
        // At 1 %: 99 leaves with 1 B/s for each supernode, and 1 B/s between supernodes.
        assert_eq!(table.lines[3][1..4], ["1 % are supernodes", "2.59", "0.8000"]);
    }
}
