//! Many leaves at once: after a crash (as on Skype in December 2010), and from nothing (as there in August 2007).

use core::time::Duration;
use std::collections::BTreeMap;

use handfast_core::Instant;

use super::honest;
use crate::HostId;
use crate::ledger::{Kind, Party};
use crate::scale::args::Args;
use crate::scale::calls::quantile;
use crate::scale::crowd::{Crowd, Doings};
use crate::scale::report::{Bound, Outcome};

const NEARLY_ALL_HOME_S: Bound = Bound::AtMost(120.0);
/// Of a hundred supernodes, these crash.
const CRASHED_PERCENT: usize = 30;
/// All leaves start within so long.
const CROWD_WITHIN: Duration = Duration::from_secs(10);
/// What is watched.
const WATCHED: Duration = Duration::from_secs(180);
/// The first byte of a Response.
const RESPONSE: u8 = 2;

pub(super) fn restart(args: &Args, out: &mut Outcome) {
    let doings = Doings { calls: true, ..Doings::default() };
    let mut crowd = Crowd::settled(args, doings, rooms(args));
    crowd.run_for(args.scaled(Duration::from_secs(300)));
    let serving = crowd.serving.clone();
    let dead = crowd.draw(&serving, (serving.len() * CRASHED_PERCENT / 100).max(1));
    let of_theirs = |leaf: &usize| crowd.homes_of(*leaf).iter().any(|home| dead.contains(home));
    let theirs: Vec<usize> = crowd.up().filter(of_theirs).collect();
    for host in &dead {
        crowd.crash_supernode(*host);
    }
    let since = crowd.w.now();
    for leaf in &theirs {
        crowd.stop_leaf(*leaf);
        crowd.start_leaf(*leaf);
    }
    watch(&mut crowd, since, out);
    out.tell("supernodes that crashed", dead.len() as f64, "");
    out.tell("leaves that started anew", theirs.len() as f64, "");
    honest(out, &crowd, since, false);
    out.series.push(crowd.meter.over_time("skype2010"));
}

pub(super) fn flash(args: &Args, out: &mut Outcome) {
    let mut crowd = Crowd::new(args, Doings { calls: true, ..Doings::default() });
    crowd.rooms = rooms(args);
    crowd.found(args.supernodes);
    crowd.run_for(Duration::from_secs(60));
    let since = crowd.w.now();
    crowd.add_leaves(args.leaves, CROWD_WITHIN);
    watch(&mut crowd, since, out);
    honest(out, &crowd, since, false);
    out.series.push(crowd.meter.over_time("flash"));
}

/// Three times what each would have, if all had the same.
fn rooms(args: &Args) -> Vec<usize> {
    vec![(6 * args.leaves).div_ceil(args.supernodes)]
}

/// Second by second: how many handshakes each supernode answers, and who is home.
fn watch(crowd: &mut Crowd, since: Instant, out: &mut Outcome) {
    let mut before: BTreeMap<HostId, u64> = BTreeMap::new();
    let (mut most, mut in_flight) = (0, 0);
    for second in 0..WATCHED.as_secs() {
        crowd.run_for(Duration::from_secs(1));
        in_flight = in_flight.max(crowd.w.wire.in_flight());
        for host in &crowd.serving {
            let ledger = crowd.w.host(*host).ledger.as_deref().expect("a supernode has an account");
            let answered = ledger.get(Party::Leaf, Kind::of(&[RESPONSE])).packets_out;
            let last = before.insert(*host, answered).unwrap_or(answered);
            if second > 0 {
                most = most.max(answered - last);
            }
        }
    }
    let starts = crowd.starts.iter().filter(|start| start.at >= since);
    let mut took: Vec<Duration> = starts.map(|start| start.took.unwrap_or(Duration::MAX)).collect();
    let within = |took: &mut Vec<Duration>, percent| {
        quantile(took, percent).filter(|t| *t < Duration::MAX).map(|t| t.as_secs_f64())
    };
    out.bound("99 % at home after", within(&mut took, 99), "s", NEARLY_ALL_HOME_S);
    out.tell("50 % at home after", within(&mut took, 50), "s");
    // What is admitted is told as registrations; a leaf registers at two homes, and each takes a handshake.
    let room = crowd.w.host(crowd.serving[0]).config.leaves_max as f64;
    let admitted = Bound::AtMost((room / 20.0).max(50.0));
    out.bound("most handshakes that a supernode answered in a second", Some(most as f64), "", admitted);
    out.tell("most datagrams in flight", in_flight as f64, "");
    out.note(
        "That no second supernode falls is not seen here: a simulated machine does not fall. The handshakes that one \
         answers in a second are what it would fall from.",
    );
}
