//! Every kind of network against every other: what the oracle says is possible becomes direct, the rest is relayed,
//! and data flows all the while.
//!
//! Each world has all pairs at once; `HANDFAST_SEEDS=…` runs over so many of them. `docs/traversal.md` holds the
//! results, and what it says of each pair must agree with the run; `HANDFAST_MATRIX=write` writes it anew.

use core::fmt::Write;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use handfast_core::Access;
use handfast_tests::kinds::{self, Kind};
use handfast_tests::oracle::{Side, Verdict, Why, verdict, verdict_behind};
use handfast_tests::survey::{Reached, Survey, median};
use handfast_tests::{Behavior, HairpinSource, HostId, NatSpec, Place, PortAssignment, World, report, secs};

/// Worlds in an ordinary test run.
const WORLDS: u64 = 2;
/// Longest that a transfer of a few hundred bytes may take, whatever the paths are doing.
const TALK_MAX: Duration = secs(3);

/// One pair of kinds and what became of it in each world.
struct Cell {
    row: usize,
    column: usize,
    verdict: Verdict,
    runs: Vec<Reached>,
}

impl Cell {
    fn direct(&self) -> usize {
        self.runs.iter().filter(|r| r.direct.is_some()).count()
    }

    /// What most runs reached.
    fn class(&self) -> &'static str {
        if self.direct() * 2 > self.runs.len() {
            return "direct";
        }
        self.runs.iter().map(Reached::class).find(|class| *class != "direct").unwrap_or("direct")
    }

    /// Whether it is what the oracle says.
    fn is_right(&self) -> bool {
        match self.verdict {
            Verdict::Luck(_) => self.class() != "nothing",
            Verdict::Relay(_) => self.class() == "relay",
            Verdict::Direct | Verdict::DirectByPrediction | Verdict::DirectByBirthday(_) => self.class() == "direct",
        }
    }

    fn letter(&self) -> &'static str {
        match self.verdict {
            Verdict::Direct => "D",
            Verdict::DirectByPrediction => "P",
            Verdict::DirectByBirthday(_) => "B",
            Verdict::Luck(_) => "L",
            Verdict::Relay(_) => "R",
        }
    }
}

fn seeds() -> Vec<u64> {
    let worlds = std::env::var("HANDFAST_SEEDS").ok().map_or(WORLDS, |n| n.parse().expect("a number"));
    handfast_tests::seeds(worlds)
}

/// The whole matrix, run once for all tests of this file.
fn matrix() -> &'static (Vec<Kind>, Vec<Cell>) {
    static MATRIX: OnceLock<(Vec<Kind>, Vec<Cell>)> = OnceLock::new();
    MATRIX.get_or_init(|| {
        let kinds = kinds::all();
        let mut cells: Vec<Cell> = Vec::new();
        for row in 0..kinds.len() {
            for column in row..kinds.len() {
                let verdict = verdict(&kinds[row].side, &kinds[column].side);
                cells.push(Cell { row, column, verdict, runs: Vec::new() });
            }
        }
        for seed in seeds() {
            let mut survey = Survey::new(seed);
            let mut homeless = Vec::new();
            for (n, cell) in cells.iter().enumerate() {
                // Either side may be the one that calls.
                let swap = (n as u64 + seed).is_multiple_of(2);
                let (a, b) = if swap { (cell.column, cell.row) } else { (cell.row, cell.column) };
                let hosts = [a, b].map(|kind| {
                    let side = &kinds[kind].side;
                    let host = survey.world.add_leaf_on(side);
                    homeless.extend(side.routers.iter().any(|r| r.blocks_udp).then_some(host));
                    host
                });
                survey.add(hosts[0], hosts[1]);
            }
            survey.run(&homeless);
            for (cell, reached) in cells.iter_mut().zip(survey.results()) {
                cell.runs.push(reached);
            }
        }
        (kinds, cells)
    })
}

/// Cells of this class that are not as they should be.
fn wrong(class: impl Fn(&Verdict) -> bool) -> (usize, Vec<String>) {
    let (kinds, cells) = matrix();
    let mine: Vec<&Cell> = cells.iter().filter(|c| class(&c.verdict)).collect();
    let show = |c: &&&Cell| {
        let runs: Vec<&str> = c.runs.iter().map(Reached::class).collect();
        format!("{} and {}: {:?} but {runs:?}", kinds[c.row].name, kinds[c.column].name, c.verdict)
    };
    let all_right =
        |c: &&&Cell| c.runs.iter().all(|r| (r.direct.is_some() == c.verdict.is_direct()) && r.class() != "nothing");
    (mine.len(), mine.iter().filter(|c| !all_right(c)).map(|c| show(&c)).collect())
}

#[test]
fn pairs_that_can_be_direct_without_guessing_become_direct() {
    let (count, wrong) = wrong(|v| *v == Verdict::Direct);
    assert!(count > 80, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pairs_that_cannot_be_direct_are_relayed() {
    let (count, wrong) = wrong(|v| v.why().is_some_and(|why| why != Why::UdpBlocked));
    assert!(count > 30, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pairs_that_can_be_foreseen_become_direct() {
    let (count, wrong) = wrong(|v| *v == Verdict::DirectByPrediction);
    assert!(count > 10, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pairs_that_can_be_guessed_become_direct_as_often_as_the_oracle_says() {
    let (kinds, cells) = matrix();
    let (mut runs, mut direct, mut low, mut high, mut variance) = (0, 0, 0.0, 0.0, 0.0);
    let mut missed = Vec::new();
    for cell in cells {
        let Verdict::DirectByBirthday(chance) = cell.verdict else { continue };
        let n = cell.runs.len() as f64;
        runs += cell.runs.len();
        direct += cell.direct();
        low += n * chance.low;
        high += n * chance.high;
        variance += n * chance.low * (1.0 - chance.low);
        if cell.direct() < cell.runs.len() {
            missed.push(format!("{} and {}: {}", kinds[cell.row].name, kinds[cell.column].name, cell.direct()));
        }
    }
    assert!(runs > 50, "{runs}");
    // Four standard deviations below what half of the guesses give; above, there is nothing to fear: retries.
    let least = low - 4.0 * variance.sqrt();
    assert!(direct as f64 >= least, "{direct} of {runs}, expected {low:.1} to {high:.1}:\n{}", missed.join("\n"));
}

#[test]
fn where_no_udp_gets_out_a_pair_is_relayed_all_the_same() {
    let (count, wrong) = wrong(|v| v.why() == Some(Why::UdpBlocked));
    assert!(count > 20, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn traffic_flows_by_the_relay_all_the_while() {
    let (kinds, cells) = matrix();
    let udp = cells.iter().filter(|c| c.verdict.why() != Some(Why::UdpBlocked));
    for cell in udp {
        let shown = format!("{} and {}", kinds[cell.row].name, kinds[cell.column].name);
        for reached in &cell.runs {
            let slowest = reached.slowest.unwrap_or_else(|| panic!("{shown}: a transfer did not end"));
            assert!(slowest <= TALK_MAX, "{shown}: a transfer took {slowest:?}");
        }
    }
}

#[test]
fn two_routers_that_change_with_every_packet_waste_few_probes() {
    let (kinds, cells) = matrix();
    for cell in cells.iter().filter(|c| c.verdict.why() == Some(Why::BothChange)) {
        let probes = median(cell.runs.iter().map(|r| r.probes)).unwrap_or(0);
        let counts =
            |kind: usize| kinds[kind].side.routers.iter().any(|r| matches!(r.ports, PortAssignment::Sequential { .. }));
        // Ten to each of two addresses while the routers are not known yet. Two that count are worth a few tries, even
        // if one of them is too fast.
        let most = if counts(cell.row) && counts(cell.column) { 2_000 } else { 60 };
        assert!(probes <= most, "{} and {}: {probes} probes", kinds[cell.row].name, kinds[cell.column].name);
    }
}

// ---- behind one router ----

struct Shared {
    what: &'static str,
    router: NatSpec,
    before: [Vec<NatSpec>; 2],
}

fn shared() -> Vec<Shared> {
    let home = NatSpec::port_restricted();
    let open = NatSpec::new(Behavior::EndpointIndependent, Behavior::EndpointIndependent);
    let mut shows = home.hairpinning();
    shows.hairpin_source = HairpinSource::Internal;
    let hard = NatSpec::fully_dependent();
    let case = |what, router, a: &[NatSpec], b: &[NatSpec]| Shared { what, router, before: [a.to_vec(), b.to_vec()] };
    vec![
        case("two hosts of one home", home, &[], &[]),
        case("two hosts behind one symmetric router", hard, &[], &[]),
        case("two homes behind one CGN that hairpins", kinds::CGN_EASY.hairpinning(), &[home], &[home]),
        case("two homes behind one CGN that does not", kinds::CGN_EASY, &[home], &[home]),
        case("two homes behind one that shows internal sources", shows, &[home], &[home]),
        case("two open homes behind one that shows internal sources", shows, &[open], &[open]),
        case("a phone and a home behind one CGN", kinds::CGN_EASY, &[], &[home]),
        case("a phone and a symmetric home behind one CGN", kinds::CGN_EASY, &[], &[hard]),
    ]
}

fn run_shared() -> &'static Vec<(Shared, Verdict, Vec<Reached>)> {
    static RUN: OnceLock<Vec<(Shared, Verdict, Vec<Reached>)>> = OnceLock::new();
    RUN.get_or_init(|| {
        let judged = |case: Shared| {
            let verdict = verdict_behind(&case.router, &case.before[0], &case.before[1]);
            (case, verdict, Vec::new())
        };
        let mut all: Vec<(Shared, Verdict, Vec<Reached>)> = shared().into_iter().map(judged).collect();
        for seed in seeds() {
            let mut survey = Survey::new(1_000 + seed);
            for (case, ..) in &all {
                let w = &mut survey.world;
                let outer = w.add_router(case.router);
                let hosts: Vec<HostId> = case
                    .before
                    .iter()
                    .map(|before| {
                        let router = before.iter().fold(outer, |outer, spec| w.add_router_behind(outer, *spec));
                        w.add_leaf(Place::Behind(router))
                    })
                    .collect();
                survey.add(hosts[0], hosts[1]);
            }
            survey.run(&[]);
            for ((.., runs), reached) in all.iter_mut().zip(survey.results()) {
                runs.push(reached);
            }
        }
        all
    })
}

#[test]
fn behind_one_router_through_the_network_they_share_or_a_hairpin() {
    for (case, verdict, runs) in run_shared() {
        for reached in runs {
            let wanted = if verdict.is_direct() { "direct" } else { "relay" };
            assert_eq!(reached.class(), wanted, "{}: {verdict:?}", case.what);
        }
    }
}

// ---- who relays for strangers ----

/// Whether two leaves that can reach nobody like them go on through a volunteer behind this when their relays carry no
/// more: by really relaying there.
fn relays_for_strangers(side: &Side, seed: u64) -> bool {
    let mut w = World::new(seed);
    for _ in 0..3 {
        w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
    }
    let [a, b] = [(); 2].map(|()| w.add_leaf_behind(NatSpec::fully_dependent()));
    let place = w.add_routers(side);
    let volunteer = w.add_leaf_with(place, |c| {
        c.volunteer = true;
        c.services.clear();
        c.contacts = Access::Peers(BTreeSet::new());
    });
    w.until("all are at home", secs(60), |w| [a, b, volunteer].iter().all(|leaf| !w.status(*leaf).homes.is_empty()));
    w.run_for(secs(20));
    let t = w.transfer(a, b, 1_500_000, 0);
    w.until("it is over", secs(150), |w| {
        w.client(t).is_over() && w.server(t).is_none_or(handfast_tests::Side::is_over)
    });
    let carried = w.status(volunteer).counters.forwarded_bytes;
    let is_done = w.server(t).is_some_and(|side| side.done.is_some());
    assert_eq!(is_done, carried > 500_000, "there is nobody else");
    is_done
}

fn volunteers() -> &'static Vec<bool> {
    static RUN: OnceLock<Vec<bool>> = OnceLock::new();
    RUN.get_or_init(|| kinds::all().iter().map(|kind| relays_for_strangers(&kind.side, 7)).collect())
}

#[test]
fn whoever_is_behind_independent_mappings_relays_for_strangers_and_nobody_else() {
    let is_easy = |router: &NatSpec| router.mapping == Behavior::EndpointIndependent && !router.blocks_udp;
    let kinds = kinds::all();
    let relay = kinds.iter().zip(volunteers()).map(|(kind, relays)| (kind.name, *relays));
    let should = kinds.iter().map(|kind| (kind.name, kind.side.routers.iter().all(is_easy)));
    let wrong: Vec<_> = relay.zip(should).filter(|(is, should)| is != should).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

// ---- what is committed ----

#[test]
fn the_committed_tables_agree_with_the_run() {
    let (kinds, cells) = matrix();
    let mut what = String::from("| kind | what | relays for strangers |\n| --- | --- | --- |\n");
    for (kind, relays) in kinds.iter().zip(volunteers()) {
        let relays = if *relays { "yes" } else { "no" };
        writeln!(what, "| {} | {} | {relays} |", kind.name, kind.what).expect("a string");
    }
    let tables =
        [("kinds", what), ("matrix", grid(kinds, cells)), ("pairs", list(kinds, cells)), ("shared", shared_list())];
    for (name, content) in tables {
        if report::is_writing() {
            report::write(name, &content);
            continue;
        }
        let committed = report::read(name);
        match name {
            // Times may move; whether a pair becomes direct may not, unless the table says so.
            "pairs" | "shared" => {
                let classes = |text: &str| -> Vec<[String; 4]> {
                    report::rows(text).into_iter().map(|row| core::array::from_fn(|n| row[n].clone())).collect()
                };
                assert_eq!(classes(&committed), classes(&content), "{name}");
            }
            _ => assert_eq!(committed, content, "{name}"),
        }
    }
}

fn grid(kinds: &[Kind], cells: &[Cell]) -> String {
    let mut text = String::from("| |");
    for n in 1..=kinds.len() {
        write!(text, " {n} |").expect("a string");
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(kinds.len()));
    for row in 0..kinds.len() {
        write!(text, "\n| {} {} |", row + 1, kinds[row].name).expect("a string");
        for column in 0..kinds.len() {
            let (low, high) = (row.min(column), row.max(column));
            let cell = cells.iter().find(|c| (c.row, c.column) == (low, high)).expect("every pair");
            write!(text, " {}{} |", cell.letter(), if cell.is_right() { "" } else { "!" }).expect("a string");
        }
    }
    text.push('\n');
    text
}

fn measured(runs: &[Reached]) -> String {
    let time = median(runs.iter().filter_map(|r| r.direct));
    let time = time.map_or("-".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
    let probes = median(runs.iter().map(|r| r.probes)).unwrap_or(0);
    let direct = runs.iter().filter(|r| r.direct.is_some()).count();
    format!("{direct}/{} | {time} | {probes}", runs.len())
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::DirectByBirthday(chance) => format!("birthday {:.1} %", chance.high * 100.0),
        Verdict::Luck(chance) => format!("luck {:.0} %", chance * 100.0),
        Verdict::Relay(why) => format!("relay: {why:?}"),
        Verdict::Direct | Verdict::DirectByPrediction => verdict.class().to_owned(),
    }
}

fn list(kinds: &[Kind], cells: &[Cell]) -> String {
    let mut text = String::from(
        "| one | other | oracle | reached | direct | time | probes |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for cell in cells {
        let (row, column) = (kinds[cell.row].name, kinds[cell.column].name);
        writeln!(text, "| {row} | {column} | {} | {} | {} |", said(&cell.verdict), cell.class(), measured(&cell.runs))
            .expect("a string");
    }
    text
}

fn shared_list() -> String {
    let mut text = String::from(
        "| who | where they meet | oracle | reached | direct | time | probes |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (case, verdict, runs) in run_shared() {
        let place = if case.before.iter().any(Vec::is_empty) {
            "in their network"
        } else if case.router.hairpinning {
            "at a hairpin"
        } else {
            "nowhere"
        };
        let reached = if runs.iter().all(|r| r.direct.is_some()) { "direct" } else { runs[0].class() };
        writeln!(text, "| {} | {place} | {} | {reached} | {} |", case.what, said(verdict), measured(runs))
            .expect("a string");
    }
    text
}

#[test]
fn the_key_of_every_kind_is_its_name() {
    let kinds = kinds::all();
    for kind in &kinds {
        assert_eq!(kinds.iter().filter(|k| k.name == kind.name).count(), 1, "{}", kind.name);
        assert!(!kind.name.contains('|') && !kind.what.contains('|'));
    }
    assert_eq!(verdict(&kinds::named("public").side, &Side::default()), Verdict::Direct);
}
