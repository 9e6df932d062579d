//! The scenarios of `scale` at a small size: that the instrument counts right, that a seed gives one report, and what
//! the overlay of today keeps.
//!
//! Bounds that are not kept yet are the program's to tell (`NOT MET`); here stands what must not get worse. The full
//! sizes take `cargo run --release -p handfast-tests --bin scale`; `docs/scale.md` has what that gave.

use core::time::Duration;

use handfast_tests::ledger::{Kind, Ledger, Party};
use handfast_tests::scale::calls::{Call, Ended};
use handfast_tests::scale::crowd::{Crowd, Doings};
use handfast_tests::scale::report::{Outcome, Report};
use handfast_tests::scale::{self, Args};

fn args(scenario: &str) -> Args {
    Args { supernodes: 6, leaves: 36, hours: 0.05, scenario: Some(scenario.to_owned()), ..Args::default() }
}

fn run(args: &Args) -> Report {
    scale::run(args).expect("there is such a scenario")
}

/// What a scenario finds, with the numbers that are true of any.
fn outcome(args: &Args) -> Outcome {
    let report = run(args);
    eprintln!("{}", report.text());
    let outcome = report.of(args.scenario.as_deref().unwrap_or_default()).clone();
    for row in &outcome.rows {
        let measured = row.measured.unwrap_or(0.0);
        assert!(measured.is_finite() && measured >= 0.0 || row.unit == "%", "{row:?}");
        assert!(row.unit != "%" || measured <= 100.0 || row.what.starts_with("more for"), "{row:?}");
    }
    outcome
}

fn get(outcome: &Outcome, what: &str) -> f64 {
    outcome.get(what).unwrap_or_else(|| panic!("never: {what}"))
}

#[test]
fn a_seed_gives_one_report_byte_for_byte() {
    let args = Args { leaves: 20, life: short_lives(), session: Duration::from_secs(300), ..args("steady") };
    let (first, second) = (run(&args), run(&args));
    assert_eq!(first.text(), second.text());
    assert_eq!(first.json(), second.json());
    assert!(get(first.of("steady"), "supernodes that died") > 0.0, "nobody died: this shows little");
    let other = run(&Args { seed: 2, ..args });
    assert_ne!(first.json(), other.json());
}

/// Lives in which a short run sees some end.
fn short_lives() -> scale::chance::Life {
    scale::chance::Life { median: Duration::from_secs(900), inverse_shape: 2 }
}

#[test]
fn what_is_counted_by_duty_is_all_that_is_counted() {
    let args = args("steady");
    let mut crowd = Crowd::settled(&args, Doings { sessions: true, calls: true, lives: false }, Vec::new());
    for _ in 0..40 {
        crowd.call_somebody(1, None, |_, _| true);
        crowd.run_for(Duration::from_secs(5));
    }
    let mut between = [0; 2];
    for host in &crowd.serving {
        let host = crowd.w.host(*host);
        let ledger: &Ledger = host.ledger.as_deref().expect("a supernode has an account");
        let sum = |party| {
            Kind::all().map(|kind| ledger.get(party, kind)).fold((0, 0), |(i, o), t| {
                between[0] += if party == Party::Supernode { t.packets_in } else { 0 };
                between[1] += if party == Party::Supernode { t.packets_out } else { 0 };
                (i + t.bytes_in, o + t.bytes_out)
            })
        };
        let [a, b] = Party::ALL.map(sum);
        assert_eq!((a.0 + b.0, a.1 + b.1), (host.traffic.bytes_in, host.traffic.bytes_out));
        assert_eq!(ledger.duty(), host.traffic, "there were no streams");
    }
    // What one supernode sends, another gets, but for what is under way.
    assert!(between[1] - between[0] <= crowd.w.wire.in_flight() as u64, "{between:?}");
    let calls = crowd.calls.count(|call| call.tag == 1);
    assert!(calls.all() >= 30, "{calls:?}");
    assert_eq!(calls.answered(), calls.all(), "a calm network carries every call: {calls:?}");
    // That they went over the network, the supernodes say, too.
    let carried: u64 = crowd.serving.iter().map(|host| crowd.w.node(*host).counters().introductions).sum();
    let answered = crowd.calls.count(|call: &Call| call.result.is_answered()).all();
    assert!(carried >= answered, "{carried} introductions for {answered} answers");
}

#[test]
fn a_call_that_cannot_succeed_does_not() {
    let args = args("steady");
    let mut crowd = Crowd::settled(&args, Doings::default(), Vec::new());
    for host in crowd.serving.clone() {
        crowd.crash_supernode(host);
    }
    for _ in 0..10 {
        crowd.call_somebody(1, None, |_, _| true);
    }
    crowd.run_for(Duration::from_secs(61));
    let calls = crowd.calls.count(|call| call.tag == 1);
    assert_eq!((calls.all(), calls.answered()), (10, 0), "there is nobody to introduce");
    assert_eq!(calls.of(Ended::NotFound) + calls.of(Ended::NotReached), 10);
}

#[test]
fn steady() {
    let out = outcome(&args("steady"));
    assert!(get(&out, "each supernode, in + out") > 0.5);
    let registered = get(&out, "registrations at each supernode");
    assert!((10.0..=12.0).contains(&registered), "{registered}: two homes for each of 36 leaves at 6");
}

#[test]
fn growth() {
    let out = outcome(&Args { supernodes: 30, leaves: 60, hours: 0.02, ..args("growth") });
    assert_eq!(out.tables[0].lines.len(), 2, "3 and 30");
    get(&out, "more for each supernode, of 30 and not 3, per factor of 10");
}

#[test]
fn balance() {
    let out = outcome(&args("balance"));
    let (most, least) = (get(&out, "registrations, most over mean"), get(&out, "registrations, least over mean"));
    assert!(least <= 1.0 && (1.0..=2.0).contains(&most), "{least} to {most}");
}

#[test]
fn capacities() {
    let out = outcome(&args("capacities"));
    assert_eq!(out.tables[0].lines.len(), 3);
    let mean = get(&out, "utilisation in the mean");
    assert!((25.0..=60.0).contains(&mean), "{mean} % of all room is used");
}

#[test]
fn liars() {
    let out = outcome(&Args { liars: 20.0, ..args("liars") });
    assert!(get(&out, "liars") > 0.0);
    assert!(get(&out, "starts that led home within 30 s") >= 99.0);
}

#[test]
fn churn() {
    let out = outcome(&Args { life: short_lives(), ..args("churn") });
    assert!(get(&out, "calls") >= 250.0);
    assert!(get(&out, "lookups that found their peer") >= 99.0);
    assert!(get(&out, "supernodes that died") >= 1.0);
}

#[test]
fn half_crash() {
    let out = outcome(&args("half-crash"));
    assert!(get(&out, "leaves left with one home") > 0.0 && get(&out, "leaves left with none") > 0.0);
    assert!(get(&out, "two homes again, who had one left, 99 %") <= 60.0);
    assert!(get(&out, "two homes again, who had none left, 99 %") <= 250.0);
    assert!(get(&out, "direct sessions held") > 0.0);
    assert!(get(&out, "direct sessions lost") == 0.0);
}

#[test]
fn homecoming() {
    let out = outcome(&args("return"));
    assert!(get(&out, "leaves that lost both homes meanwhile") == 0.0);
}

#[test]
fn skype2010() {
    let out = outcome(&args("skype2010"));
    assert!(get(&out, "leaves that started anew") > 0.0);
    assert!(get(&out, "99 % at home after") <= 120.0);
}

#[test]
fn flash() {
    let out = outcome(&Args { leaves: 120, ..args("flash") });
    assert!(get(&out, "99 % at home after") <= 120.0);
    assert!(get(&out, "starts") >= 120.0);
}

#[test]
fn partition() {
    let args = args("partition");
    let [both, one_way] = ["partition", "partition-one-way"]
        .map(|name| outcome(&Args { scenario: Some(name.to_owned()), ..args.clone() }));
    for out in [&both, &one_way] {
        assert!(get(out, "calls within a side that were answered, in the second half of it") >= 50.0);
        assert!(get(out, "all calls between the sides are answered, after it has ended") <= 30.0);
    }
    assert_ne!(both.rows, one_way.rows);
}

/// An attack at its small size: honest use goes on, and newcomers are welcome.
fn attack(args: &Args) -> Outcome {
    let out = outcome(args);
    for what in ["starts that led home within 30 s", "lookups that found", "introductions that linked"] {
        assert!(get(&out, what) >= 90.0, "{what}: {:?}", out.rows);
    }
    out
}

fn welcome(out: &Outcome) {
    assert!(get(out, "an honest newcomer is known by those it was told of") <= 10.0);
    assert!(get(out, "and by a fresh leaf") <= 60.0);
    assert!(get(out, "and by all supernodes that are to know it") <= 600.0);
}

fn undeceived(out: &Outcome) {
    assert!(get(out, "of supernodes that a fresh leaf was told of, honest ones, at least") >= 75.0);
    assert!(get(out, "all fresh leaves have two honest homes after") <= 10.0);
}

#[test]
fn sybils() {
    let out = attack(&Args { supernodes: 10, ..args("sybils") });
    assert!(get(&out, "of Sybils an honest supernode knows") >= 90.0, "they are known, or it shows nothing");
    assert!(get(&out, "lookups that Sybils were asked for") > 0.0);
}

#[test]
fn ground() {
    let out = attack(&Args { supernodes: 10, ..args("ground") });
    assert!(get(&out, "of Sybils an honest supernode knows") >= 90.0);
    assert!(get(&out, "lookups that Sybils were asked for") > 0.0);
    assert!(get(&out, "lookups of the one that they sit around, that found") >= 95.0);
}

#[test]
fn records() {
    let out = attack(&args("records"));
    assert!(get(&out, "supernodes that got them") >= 6.0);
    assert!(get(&out, "honest records that are found afterwards") >= 99.0);
    welcome(&out);
}

#[test]
fn adverts() {
    let out = attack(&args("adverts"));
    welcome(&out);
    undeceived(&out);
}

#[test]
fn fakes() {
    let out = attack(&args("fakes"));
    welcome(&out);
    undeceived(&out);
}

#[test]
fn clocks() {
    let out = attack(&args("clocks"));
    welcome(&out);
    undeceived(&out);
}

#[test]
fn victim() {
    let out = attack(&args("victim"));
    assert!(get(&out, "bytes that the victim got") > 0.0, "some went to see");
    assert!(get(&out, "most packets of one supernode to the victim") <= 10.0);
    assert!(get(&out, "most bytes of one supernode to the victim") <= 1024.0);
    assert!(get(&out, "what the victim got, over what that cost") <= 1.0);
    welcome(&out);
}

#[test]
fn costs_and_what_they_come_to() {
    let out = outcome(&Args { extrapolate: vec![1e8, 1e9], ..args("costs") });
    // Two beats of 45 bytes in each 92 s, some of them answered, renewals and rekeys.
    let rest = get(&out, "a leaf at rest, in an hour");
    assert!((3_500.0..=9_000.0).contains(&rest), "{rest}: docs/keepalive.md has about 5 000");
    assert!(get(&out, "a leaf's first start") >= get(&out, "a leaf's start with what it saved"));
    assert!(get(&out, "a call") >= 500.0);
    assert_eq!(out.tables[0].lines.len(), 2 * 5);
}

#[test]
fn idle_leaves() {
    let out = outcome(&Args { leaves: 100, hours: 0.02, ..args("idle-million") });
    assert!(get(&out, "leaves with two homes at the end") >= 99.9);
}

#[test]
fn a_scenario_that_is_none_is_refused() {
    let error = scale::run(&args("nothing")).expect_err("there is none");
    assert!(error.contains("half-crash"), "{error}");
}
