//! What each scenario of `scale` keeps at a small size, whatever the size of the tables.

use core::time::Duration;

use handfast_tests::scale::chance::Life;
use handfast_tests::scale::report::Outcome;
use handfast_tests::scale::{self, Args};

/// The rows as tests at this size.
macro_rules! tests_at {
    ($base:expr) => {
        $crate::rows::tests_at!($base; steady growth balance capacities liars churn half_crash homecoming skype2010 flash partition sybils ground records adverts fakes clocks victim);
    };
    ($base:expr; $($row:ident)*) => {
        $(
            #[test]
            fn $row() {
                crate::rows::$row(&$base);
            }
        )*
    };
}
pub(crate) use tests_at;

/// `base` in this scenario.
pub(crate) fn of(base: &Args, scenario: &str) -> Args {
    Args { scenario: Some(scenario.to_owned()), ..base.clone() }
}

/// Whether every supernode knows all others; else it knows most of those that were there first.
fn all_know_all(base: &Args) -> bool {
    base.supernodes * 4 < base.table_max * 3
}

/// What a scenario finds, with the numbers that are true of any.
pub(crate) fn outcome(args: &Args) -> Outcome {
    let report = scale::run(args).expect("there is such a scenario");
    eprintln!("{}", report.text());
    let outcome = report.of(args.scenario.as_deref().unwrap_or_default()).clone();
    for row in &outcome.rows {
        let measured = row.measured.unwrap_or(0.0);
        assert!(measured.is_finite() && measured >= 0.0 || row.unit == "%", "{row:?}");
        assert!(row.unit != "%" || measured <= 100.0 || row.what.starts_with("more for"), "{row:?}");
    }
    outcome
}

pub(crate) fn get(outcome: &Outcome, what: &str) -> f64 {
    outcome.get(what).unwrap_or_else(|| panic!("never: {what}"))
}

/// Lives in which a short run sees some end.
pub(crate) fn short_lives() -> Life {
    Life { median: Duration::from_secs(900), inverse_shape: 2 }
}

pub(crate) fn steady(base: &Args) {
    let out = outcome(&of(base, "steady"));
    assert!(get(&out, "each supernode, in + out") > 0.5);
    let registered = get(&out, "registrations at each supernode");
    let all = 2.0 * base.leaves as f64 / base.supernodes as f64;
    assert!((all * 5.0 / 6.0..=all).contains(&registered), "{registered} of {all}: two homes for each leaf");
}

pub(crate) fn growth(base: &Args) {
    let more = base.supernodes.max(30);
    let out = outcome(&Args { supernodes: more, leaves: 60, hours: 0.02, ..of(base, "growth") });
    assert_eq!(out.tables[0].lines.len(), 2, "a tenth of it, and all");
    get(&out, &format!("more for each supernode, of {more} and not {}, per factor of 10", more / 10));
}

pub(crate) fn balance(base: &Args) {
    let out = outcome(&of(base, "balance"));
    let (most, least) = (get(&out, "registrations, most over mean"), get(&out, "registrations, least over mean"));
    // With full tables there are four registrations at each.
    let limit = if all_know_all(base) { 2.0 } else { 2.5 };
    assert!(least <= 1.0 && (1.0..=limit).contains(&most), "{least} to {most}");
}

pub(crate) fn capacities(base: &Args) {
    let out = outcome(&of(base, "capacities"));
    assert_eq!(out.tables[0].lines.len(), 3);
    let mean = get(&out, "utilisation in the mean");
    let least = if all_know_all(base) { 25.0 } else { 5.0 };
    assert!((least..=60.0).contains(&mean), "{mean} % of all room is used");
}

pub(crate) fn liars(base: &Args) {
    let out = outcome(&Args { liars: 20.0, ..of(base, "liars") });
    assert!(get(&out, "liars") > 0.0);
    assert!(get(&out, "starts that led home within 30 s") >= 99.0);
}

pub(crate) fn churn(base: &Args) {
    let out = outcome(&Args { life: short_lives(), ..of(base, "churn") });
    assert!(get(&out, "calls") >= 250.0);
    assert!(get(&out, "lookups that found their peer") >= 99.0);
    assert!(get(&out, "supernodes that died") >= 1.0);
}

pub(crate) fn half_crash(base: &Args) {
    let out = outcome(&of(base, "half-crash"));
    assert!(get(&out, "leaves left with one home") > 0.0 && get(&out, "leaves left with none") > 0.0);
    assert!(get(&out, "two homes again, who had one left, 99 %") <= 60.0);
    assert!(get(&out, "two homes again, who had none left, 99 %") <= 250.0);
    assert!(get(&out, "direct sessions held") > 0.0);
    assert!(get(&out, "direct sessions lost") == 0.0);
}

pub(crate) fn homecoming(base: &Args) {
    let out = outcome(&of(base, "return"));
    assert!(get(&out, "leaves that lost both homes meanwhile") == 0.0);
}

pub(crate) fn skype2010(base: &Args) {
    let out = outcome(&of(base, "skype2010"));
    assert!(get(&out, "leaves that started anew") > 0.0);
    assert!(get(&out, "99 % at home after") <= 120.0);
}

pub(crate) fn flash(base: &Args) {
    let out = outcome(&Args { leaves: 120, ..of(base, "flash") });
    assert!(get(&out, "99 % at home after") <= 120.0);
    assert!(get(&out, "starts") >= 120.0);
}

pub(crate) fn partition(base: &Args) {
    let args = of(base, "partition");
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

/// An attack by supernodes that are none.
fn made_up(base: &Args, scenario: &str) {
    let out = attack(&of(base, scenario));
    welcome(&out);
    undeceived(&out);
}

/// They are known, or it shows nothing. Full tables keep a place for few who come last.
fn known(base: &Args, out: &Outcome, in_full_tables: f64) {
    let known = get(out, "of Sybils an honest supernode knows");
    assert!(known >= if all_know_all(base) { 90.0 } else { in_full_tables }, "{known} %");
}

pub(crate) fn sybils(base: &Args) {
    let out = attack(&Args { supernodes: base.supernodes.max(10), ..of(base, "sybils") });
    known(base, &out, 50.0);
    assert!(get(&out, "lookups that Sybils were asked for") > 0.0);
}

pub(crate) fn ground(base: &Args) {
    let out = attack(&Args { supernodes: base.supernodes.max(10), ..of(base, "ground") });
    known(base, &out, 1.0);
    assert!(get(&out, "lookups that Sybils were asked for") > 0.0 || !all_know_all(base));
    assert!(get(&out, "lookups of the one that they sit around, that found") >= 95.0);
}

pub(crate) fn records(base: &Args) {
    let out = attack(&of(base, "records"));
    assert!(get(&out, "supernodes that got them") >= if all_know_all(base) { 6.0 } else { 3.0 });
    assert!(get(&out, "honest records that are found afterwards") >= 99.0);
    welcome(&out);
}

pub(crate) fn adverts(base: &Args) {
    made_up(base, "adverts");
}

pub(crate) fn fakes(base: &Args) {
    made_up(base, "fakes");
}

pub(crate) fn clocks(base: &Args) {
    made_up(base, "clocks");
}

pub(crate) fn victim(base: &Args) {
    let out = attack(&of(base, "victim"));
    assert!(get(&out, "bytes that the victim got") > 0.0, "some went to see");
    assert!(get(&out, "most packets of one supernode to the victim") <= 10.0);
    assert!(get(&out, "most bytes of one supernode to the victim") <= 1024.0);
    assert!(get(&out, "what the victim got, over what that cost") <= 1.0);
    welcome(&out);
}
