//! `handfast ping`: round trips to a peer and the path each took, so that one can watch it become direct.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::PingArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Way};
use crate::report::PingReport;
use crate::signals::Outcome;
use crate::state_dir::StateDir;
use crate::target::Target;

const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_UNTIL_DIRECT: Duration = Duration::from_millis(200);
const COUNT: u64 = 4;
/// How long `--until-direct` goes on without `-c`.
const UNTIL_DIRECT_MAX: Duration = Duration::from_secs(30);
/// Until the first answer the link has to be brought up, too.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is to be done, and how it is to be judged.
#[derive(Clone, Copy, Debug)]
struct Plan {
    count: Option<u64>,
    until_direct: bool,
    require_direct: bool,
    json: bool,
}

pub(super) fn run(state: &StateDir, args: &PingArgs) -> Result<Exit, Failure> {
    let target = Target::from_argument(&args.target)?;
    let known = super::known(&args.reach, &target)?;
    let plan = Plan {
        count: args.count.or((!args.until_direct).then_some(COUNT)),
        until_direct: args.until_direct,
        require_direct: args.require_direct,
        json: args.json,
    };

    let signals = super::signals()?;
    let attached = host::attach(state, &known, &args.reach.router)?;
    let way = attached.way(&known).towards(target.ticket.peer);
    match signals.run(move || ping(&way, &target, plan)) {
        Outcome::Done(result) => {
            attached.finish(&signals, None);
            result
        }
        Outcome::Interrupted(_) => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

fn ping(way: &Way, target: &Target, plan: Plan) -> Result<Exit, Failure> {
    let mut client = way.connect()?;
    let peer = target.ticket.to_string();
    let interval = if plan.until_direct { INTERVAL_UNTIL_DIRECT } else { INTERVAL };
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut seq = 0;
    loop {
        seq += 1;
        let sent = Instant::now();
        let timeout = if tally.answered { TIMEOUT } else { FIRST_TIMEOUT };
        let report = match client.ping(&peer, timeout) {
            Ok((rtt, path, held_ms)) => PingReport::answered(seq, rtt, path, held_ms),
            // The node or the address is wrong, and will be the next time.
            Err(failure) if !matches!(failure.exit, Exit::Unreachable | Exit::Refused) => return Err(failure),
            Err(failure) => {
                let report = PingReport::unanswered(seq, &failure.cause);
                tally.refused = failure.exit == Exit::Refused;
                tally.failure = Some(failure);
                report
            }
        };
        tally.count(&report);
        let text = if plan.json { serde_json::to_string(&report).unwrap_or_default() } else { report.to_text() };
        super::announce(&text)?;
        let last = match plan.count {
            Some(count) => seq >= count,
            None => began.elapsed() >= UNTIL_DIRECT_MAX,
        };
        // Asking again does not change the mind of a peer that refused.
        if last || tally.refused || (plan.until_direct && tally.direct) {
            return tally.judge(plan);
        }
        thread::sleep(interval.saturating_sub(sent.elapsed()));
    }
}

/// What the answers so far say.
#[derive(Default)]
struct Tally {
    answered: bool,
    /// The last answer came directly.
    direct: bool,
    refused: bool,
    failure: Option<Failure>,
}

impl Tally {
    fn count(&mut self, report: &PingReport) {
        if let Some(path) = &report.path {
            self.answered = true;
            self.direct = path.is_direct();
        }
    }

    fn judge(self, plan: Plan) -> Result<Exit, Failure> {
        if !self.answered {
            return Err(self.failure.unwrap_or_else(|| Failure::bare(Exit::Unreachable, "no answer")));
        }
        if (plan.until_direct || plan.require_direct) && !self.direct {
            return Err(Failure::new(
                Exit::Degraded,
                "the peer answers, but only through a relay",
                "see at both ends what the routers do (handfast status: mapping), and whether it allows this node",
            ));
        }
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PathReport;

    fn judged(paths: &[&str], until_direct: bool) -> u8 {
        let mut tally = Tally::default();
        for path in paths {
            tally.count(&match *path {
                "lost" => PingReport::unanswered(1, "lost"),
                path => PingReport::answered(1, 1.0, PathReport { path: path.into(), remote: None, via: None }, None),
            });
        }
        let plan = Plan { count: None, until_direct, require_direct: false, json: false };
        tally.judge(plan).map_or_else(|failure| failure.exit.code(), Exit::code)
    }

    #[test]
    fn answers_decide_the_exit_code() {
        assert_eq!(judged(&["relay"], false), 0);
        assert_eq!(judged(&["lost", "direct"], false), 0);
        assert_eq!(judged(&["lost", "lost"], false), 4);
        assert_eq!(judged(&["relay", "direct"], true), 0);
        assert_eq!(judged(&["relay", "lost"], true), 7);
        assert_eq!(judged(&["lost"], true), 4);
    }
}
