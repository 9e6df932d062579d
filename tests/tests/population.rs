//! The internet's mix of networks: how many of all pairs become direct, and how many would without guessing ports.
//!
//! [`MIX`] says how many hosts of a hundred are behind what, and where that number comes from. Pairs are drawn from it
//! and run like those of the matrix. The share that becomes direct is compared with what the oracle expects of exactly
//! these pairs, and its interval with what the oracle expects of the whole mix. `HANDFAST_PAIRS=…` draws so many;
//! `HANDFAST_MATRIX=write` writes the result into `docs/traversal.md`.

use core::fmt::Write;

use handfast_tests::kinds::{self, Kind};
use handfast_tests::oracle::{Verdict, Why, verdict};
use handfast_tests::random::Dice;
use handfast_tests::survey::{Reached, Survey, median};
use handfast_tests::{HostId, report};

/// Pairs in an ordinary test run.
const PAIRS: usize = 240;
/// Pairs in one world.
const PAIRS_PER_WORLD: usize = 120;
/// Two-sided 95 %.
const Z: f64 = 1.96;

/// A share of all hosts.
struct Share {
    /// Of a hundred.
    percent: u64,
    /// Behind what.
    kind: &'static str,
    /// Where the number is from.
    source: &'static str,
}

const fn share(percent: u64, kind: &'static str, source: &'static str) -> Share {
    Share { percent, kind, source }
}

/// Who is behind what.
const MIX: &[Share] = &[
    share(2, "public", "assumed: servers and a few homes without a router"),
    share(
        45,
        "EI/APD",
        "homes: 82 % of the routers tested let UDP be punched (Ford, Srisuresh, Kegel 2005), most of them port-restricted",
    ),
    share(5, "EI/APD random", "assumed, of the same"),
    share(4, "EI/AD", "assumed, of the same"),
    share(5, "EI/EI", "assumed, of the same"),
    share(2, "AD/AD", "assumed: address-dependent mapping is rare (Guha, Francis 2005, for TCP)"),
    share(1, "AD/APD", "assumed, likewise"),
    share(
        3,
        "APD +1",
        "homes that change ports: a fifth of routers then (Ford et al.), fewer now; half count: assumed",
    ),
    share(3, "APD random", "likewise, the other half"),
    share(
        8,
        "home, CGN EI",
        "fixed networks behind CGN: a sixth of the ASes observed (Richter et al. 2016); subscribers: assumed",
    ),
    share(2, "home, CGN block", "a minority of these is symmetric (Richter et al.): a fifth assumed"),
    share(
        7,
        "EI/APD pool",
        "cellular: nearly all carriers use CGN (Richter et al.); less than half symmetric there, more assumed here",
    ),
    share(6, "APD block 512", "likewise; ports in blocks (RFC 7422; Richter et al. saw 512 to 16 000): width assumed"),
    share(3, "APD random", "likewise, without blocks: assumed"),
    share(4, "no UDP", "4.4 % of Chrome's users (Langley et al. 2017: blocked, or packets too small)"),
];

/// The mix as kinds and weights.
fn mix() -> Vec<(Kind, u64)> {
    MIX.iter().map(|share| (kinds::named(share.kind), share.percent)).collect()
}

fn draw<'a>(mix: &'a [(Kind, u64)], dice: &mut Dice) -> &'a Kind {
    let mut at = dice.below(mix.iter().map(|(_, weight)| weight).sum());
    for (kind, weight) in mix {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return kind,
        }
    }
    unreachable!("drawn below the sum")
}

/// Wilson's score interval for `hits` of `n`.
fn wilson(hits: usize, n: usize) -> (f64, f64) {
    let (p, n) = (hits as f64 / n as f64, n as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    ((middle - half) / scale, (middle + half) / scale)
}

/// What the oracle expects of a pair drawn from the whole mix: with guessing, and without.
fn expectation(mix: &[(Kind, u64)]) -> (f64, f64) {
    let total: u64 = mix.iter().map(|(_, weight)| weight).sum();
    let (mut with, mut without) = (0.0, 0.0);
    for (a, weight_a) in mix {
        for (b, weight_b) in mix {
            let share = (weight_a * weight_b) as f64 / (total * total) as f64;
            let verdict = verdict(&a.side, &b.side);
            with += share * verdict.expected();
            without += share * without_guessing(&verdict);
        }
    }
    (with, without)
}

fn without_guessing(verdict: &Verdict) -> f64 {
    match verdict {
        Verdict::DirectByBirthday(_) => 0.0,
        Verdict::Direct | Verdict::DirectByPrediction | Verdict::Luck(_) | Verdict::Relay(_) => verdict.expected(),
    }
}

/// Pairs drawn from the mix, and what became of them.
fn run(mix: &[(Kind, u64)]) -> Vec<(Verdict, Reached)> {
    let pairs = std::env::var("HANDFAST_PAIRS").ok().map_or(PAIRS, |n| n.parse().expect("a number"));
    let mut all = Vec::new();
    let mut dice = Dice::new(0, "population");
    for world in 0..pairs.div_ceil(PAIRS_PER_WORLD) {
        let mut survey = Survey::new(100 + world as u64);
        let mut verdicts = Vec::new();
        let mut homeless: Vec<HostId> = Vec::new();
        for _ in 0..PAIRS_PER_WORLD.min(pairs - all.len()) {
            let kinds = [draw(mix, &mut dice), draw(mix, &mut dice)];
            verdicts.push(verdict(&kinds[0].side, &kinds[1].side));
            let hosts = kinds.map(|kind| {
                let host = survey.world.add_leaf_on(&kind.side);
                homeless.extend(kind.side.routers.iter().any(|r| r.blocks_udp).then_some(host));
                host
            });
            survey.add(hosts[0], hosts[1]);
        }
        survey.run(&homeless);
        all.extend(verdicts.into_iter().zip(survey.results()));
    }
    all
}

#[test]
fn the_internets_mix_becomes_direct_as_often_as_the_oracle_expects() {
    let mix = mix();
    let (expected, expected_without) = expectation(&mix);
    let all = run(&mix);
    let n = all.len();
    let is_direct = |r: &Reached| r.direct.is_some();
    let direct = all.iter().filter(|(_, r)| is_direct(r)).count();
    let without = all.iter().filter(|(v, r)| is_direct(r) && without_guessing(v) > 0.0).count();
    let reachable = all.iter().filter(|(v, _)| v.why() != Some(Why::UdpBlocked)).count();

    let text = result(&all, (direct, expected), (without, expected_without), reachable);
    eprintln!("{text}");
    if report::is_writing() {
        report::write("population", &text);
    }

    // Of exactly these pairs: only guesses are left to chance.
    let drawn: f64 = all.iter().map(|(v, _)| v.expected()).sum();
    let variance: f64 = all.iter().map(|(v, _)| v.expected() * (1.0 - v.expected())).sum();
    let off = (direct as f64 - drawn).abs();
    assert!(off <= 4.0 * variance.sqrt() + 2.0, "{direct} of {n} are direct, {drawn:.1} were expected");
    // And of the mix: within the interval.
    for (hits, expected) in [(direct, expected), (without, expected_without)] {
        let (low, high) = wilson(hits, n);
        assert!((low..=high).contains(&expected), "{hits} of {n}: {low:.3} to {high:.3}, expected {expected:.3}");
    }
    assert!(direct > without, "guessing brings nothing");
}

fn result(all: &[(Verdict, Reached)], with: (usize, f64), without: (usize, f64), reachable: usize) -> String {
    let n = all.len();
    let mut text = String::from("| of 100 hosts | are behind | because |\n| --- | --- | --- |\n");
    for Share { percent, kind, source } in MIX {
        writeln!(text, "| {percent} | {kind} | {source} |").expect("a string");
    }
    text.push_str("\nIPv6 and port mapping, which help many, are left out. ");
    writeln!(text, "{n} pairs drawn from this mix, of which {reachable} can use UDP on both sides:\n")
        .expect("a string");
    text.push_str("| | direct | 95 % interval (Wilson) | the oracle expects of the mix |\n| --- | --- | --- | --- |\n");
    for (what, (hits, expected)) in [("as it is", with), ("without guessing ports", without)] {
        let (low, high) = wilson(hits, n);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let line =
            [percent(hits as f64 / n as f64), format!("{} to {}", percent(low), percent(high)), percent(expected)];
        writeln!(text, "| {what} | {} |", line.join(" | ")).expect("a string");
    }
    let times = |class: &str| {
        let runs = all.iter().filter(|(v, _)| v.class() == class);
        let time = median(runs.filter_map(|(_, r)| r.direct));
        time.map_or("-".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()))
    };
    writeln!(
        text,
        "\nMedian virtual time to direct: {} where both endpoints are known, {} where one is foreseen, {} where it is guessed.",
        times("direct"),
        times("prediction"),
        times("birthday")
    )
    .expect("a string");
    text.push_str("\nFor comparison: decentralised hole punching in the libp2p network succeeds in 70 % ± 7 of its attempts (Trautwein et al. 2025), among pairs of other kinds and with other things against them than routers.\n");
    text
}

#[test]
fn the_mix_is_whole() {
    assert_eq!(MIX.iter().map(|share| share.percent).sum::<u64>(), 100);
    let (with, without) = expectation(&mix());
    assert!(with > without && with < 1.0);
}

#[test]
fn wilsons_interval_by_hand() {
    let (low, high) = wilson(50, 100);
    assert!((low - 0.4038).abs() < 1e-3 && (high - 0.5962).abs() < 1e-3, "{low} {high}");
    let (low, high) = wilson(100, 100);
    assert!((low - 0.963).abs() < 1e-3 && (high - 1.0).abs() < 1e-9, "{low} {high}");
}
