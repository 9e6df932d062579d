//! What is done to a crowd, and what has to hold: one entry of [`ALL`] for each.
//!
//! Every scenario builds its own [`Crowd`], does what it is about, and fills an [`Outcome`] with numbers beside their
//! bounds. Honest use is counted in each: registrations, lookups, introductions.

use core::time::Duration;

use handfast_core::Instant;

use super::args::Args;
use super::calls::{Call, Ended, percent};
use super::crowd::Crowd;
use super::report::{Bound, Outcome};

mod attack;
mod crash;
mod load;
mod partition;
mod rush;

/// A start that leads to a home within so long counts as a registration that succeeded.
const AT_HOME_WITHIN: Duration = Duration::from_secs(30);

/// One of the scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// Whether it is run where no scenario is named.
    pub by_default: bool,
    run: fn(&Args, &mut Outcome),
}

const fn scenario(name: &'static str, what: &'static str, run: fn(&Args, &mut Outcome)) -> Scenario {
    Scenario { name, what, by_default: true, run }
}

/// All scenarios.
pub const ALL: [Scenario; 21] = [
    scenario(
        "steady",
        "Leaves come, call and go, supernodes die and are replaced; nothing else happens.",
        load::steady,
    ),
    scenario("growth", "The same number of leaves for each supernode, at sizes a factor of 10 apart.", load::growth),
    scenario("balance", "Supernodes with equal room; leaves come and go.", load::balance),
    scenario("capacities", "A third of the supernodes each has room for 1, 10 and 100 parts.", load::capacities),
    scenario("liars", "Some supernodes claim endless room.", load::liars),
    scenario("churn", "Supernodes die and are replaced; are records found?", load::churn),
    scenario("half-crash", "Half of all supernodes crash at once.", crash::half),
    scenario("return", "The crashed half returns, and newcomers arrive.", crash::homecoming),
    scenario(
        "skype2010",
        "30 % of the supernodes crash, and every leaf that was at home there starts anew at once.",
        rush::restart,
    ),
    scenario("flash", "All leaves start within 10 s.", rush::flash),
    scenario("partition", "Two halves do not reach each other for 10 minutes.", partition::both_ways),
    scenario(
        "partition-one-way",
        "One half does not reach the other for 10 minutes, but is reached.",
        partition::one_way,
    ),
    scenario(
        "sybils",
        "Besides the supernodes, a tenth of their number that answer wrongly, or not at all.",
        attack::sybils,
    ),
    scenario("ground", "20 supernodes that lie sit around one leaf's place, in 4 prefixes.", attack::ground),
    scenario("records", "A supernode puts records of leaves that never were.", attack::records),
    scenario("adverts", "1 100 adverts of supernodes that never were, over one link.", attack::adverts),
    scenario("fakes", "120 peers that say that they are supernodes, of 120 prefixes, at one address.", attack::fakes),
    scenario("clocks", "12 peers tell a time that is 40 days ahead.", attack::clocks),
    scenario(
        "victim",
        "One address that has no part in it is named in 60 adverts to each of 16 supernodes, and in orders of 16 others.",
        attack::victim,
    ),
    scenario(
        "costs",
        "What each thing costs, one at a time: the measurements that extrapolation rests on.",
        super::costs::run,
    ),
    Scenario {
        name: "idle-million",
        what: "Leaves that are at home and do nothing. What they weigh is told on stderr.",
        by_default: false,
        run: load::idle,
    },
];

impl Scenario {
    /// Runs it.
    pub fn run(&self, args: &Args) -> Outcome {
        let mut outcome = Outcome::new(self.name, self.what);
        (self.run)(args, &mut outcome);
        outcome
    }
}

/// What honest use came to since a moment: every scenario tells it, and one with an attack has to keep it up.
fn honest(out: &mut Outcome, crowd: &Crowd, since: Instant, is_bound: bool) {
    let (percent_home, starts) = registrations(crowd, since);
    let calls = crowd.calls.count(|call: &Call| call.began >= since && call.tag == 0);
    let mut tell = |what: &str, measured: Option<f64>| {
        if is_bound {
            out.bound(what, measured, "%", Bound::AtLeast(99.0));
        } else {
            out.tell(what, measured, "%");
        }
    };
    tell("starts that led home within 30 s", percent_home);
    let has_calls = is_bound || calls.all() > 0;
    if has_calls {
        tell("lookups that found", calls.found_percent());
        tell("introductions that linked", calls.introduced_percent());
    }
    out.tell("starts", starts as f64, "");
    out.tell("calls", calls.all() as f64, "");
    if !has_calls {
        return;
    }
    out.tell("calls that count for nothing, since an end stopped", calls.of(Ended::Void) as f64, "");
    out.tell("answers that came over a direct path", percent(calls.of(Ended::Direct), calls.answered()), "%");
    out.tell("answers within, 50 %", calls.within(50).map(|t| t.as_secs_f64()), "s");
    out.tell("answers within, 99 %", calls.within(99).map(|t| t.as_secs_f64()), "s");
}

/// Of a hundred starts since a moment, how many led home in time, and how many count: those that had that time.
fn registrations(crowd: &Crowd, since: Instant) -> (Option<f64>, u64) {
    let now = crowd.w.now();
    let had_time = |leaf: usize, at: Instant| {
        let stopped = crowd.leaves[leaf].up.is_none_or(|up| up > at);
        !stopped && now.since(at) >= AT_HOME_WITHIN
    };
    let counted = crowd.starts.iter().filter(|start| start.at >= since);
    let (mut good, mut all) = (0, 0);
    for start in counted {
        let is_good = start.took.is_some_and(|took| took <= AT_HOME_WITHIN);
        if is_good || had_time(start.leaf, start.at) {
            all += 1;
            good += u64::from(is_good);
        }
    }
    (percent(good, all), all)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
