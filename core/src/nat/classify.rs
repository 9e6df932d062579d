//! What the answers to an examination mean: RFC 4787's behaviours from what supernodes saw.
//!
//! Handed [`Evidence`], gives [`Findings`]; no state, no time. Supernodes may be wrong, or lie. What only an arriving
//! packet can show (filtering) is believed of one, since nobody can make a packet arrive that the router drops; what a
//! supernode merely claims (where it saw us) is believed of more than half of them. Two that agree are enough for an
//! answer, three outvote one.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use arrayvec::ArrayVec;

use crate::wire::nat::{FilteringBehavior, MappingBehavior, PortAssignment};

/// Most supernodes asked in one examination.
pub(super) const TARGETS_MAX: usize = 3;
/// Most new mappings made in one examination.
pub(super) const SAMPLES_MAX: usize = 2 * TARGETS_MAX + 3;
/// Ports that follow each other within this are taken for a counter's. Six of a block do so once in 360 times.
const COUNTER_SPAN: i32 = 512;
/// With fewer samples than [`COUNTER_SAMPLES_MIN`], they must be closer.
const COUNTER_SPAN_FEW: i32 = 16;
/// The largest step from one of our mappings to the next that is told to peers; what is larger is other hosts' doing.
const STEP_MAX: i32 = 64;
/// Samples of a counter that may have run on a little, and at least so many when one supernode's are left out as lies.
const COUNTER_SAMPLES_MIN: usize = 4;
/// Samples of a block, at least.
const BLOCK_SAMPLES_MIN: usize = 5;
/// Ports that all lie within so many belong to a block: of six random ones, one in a thousand million.
const BLOCK_SPAN_MAX: u32 = 4_096;
/// The smallest block that is claimed: of fewer ports no subscriber could live.
const BLOCK_WIDTH_MIN: u32 = 64;
/// RFC 6335 §6: the ports below are the system's, and no router maps to them.
const PORT_MIN: u32 = 1_024;

/// What one supernode saw, and what of its packets came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Report {
    /// The supernode's address.
    pub ip: IpAddr,
    /// Where it saw the main socket.
    pub main: Option<SocketAddr>,
    /// Where it saw the second socket, which sent to its usual port.
    pub second: Option<SocketAddr>,
    /// Where it saw the second socket, which sent to its alternate port.
    pub second_alternate: Option<SocketAddr>,
    /// Whether an answer from its alternate port came to the main socket, which never sent there; none if it has no
    /// alternate port, or did not answer at all.
    pub alternate_came: Option<bool>,
}

impl Report {
    /// Nothing yet.
    pub(super) const fn new(ip: IpAddr) -> Self {
        Self { ip, main: None, second: None, second_alternate: None, alternate_came: None }
    }
}

/// A mapping made for the examination, in the order in which they were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    /// Number of the report that it comes from.
    pub reporter: usize,
    /// The internal port.
    pub local: u16,
    /// The external address.
    pub seen: SocketAddr,
}

/// All that an examination saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// By supernode.
    pub reports: ArrayVec<Report, TARGETS_MAX>,
    /// Of fresh sockets, in the order of sending.
    pub samples: ArrayVec<Sample, SAMPLES_MAX>,
    /// The internal port of the main socket.
    pub main_port: u16,
    /// Whether a packet came in from somebody whom nothing was ever sent to.
    pub unasked_came: bool,
}

/// What it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    pub mapping: Option<MappingBehavior>,
    pub filtering: Option<FilteringBehavior>,
    pub ports: PortAssignment,
    pub pooled: Option<bool>,
}

/// RFC 4787 §4 and §5, as far as the evidence goes.
pub(super) fn classify(evidence: &Evidence) -> Findings {
    let mapping = mapping(&evidence.reports);
    Findings {
        mapping,
        filtering: filtering(evidence),
        ports: ports(evidence, mapping),
        pooled: pooled(&evidence.reports),
    }
}

/// The reports that count where destinations are compared: those of different IP addresses, if there are such. A router
/// that maps per destination *address* shows all supernodes behind one address the same.
fn independent(reports: &[Report]) -> Vec<&Report> {
    let mut seen = BTreeSet::new();
    let by_ip: Vec<&Report> = reports.iter().filter(|r| seen.insert(r.ip)).collect();
    if by_ip.len() >= 2 { by_ip } else { reports.iter().collect() }
}

/// How many of those say the same, and how many say anything.
fn agreement(votes: &[SocketAddr]) -> (usize, usize) {
    let most = votes.iter().map(|vote| votes.iter().filter(|other| *other == vote).count()).max();
    (most.unwrap_or(0), votes.len())
}

/// RFC 4787 §4.1, found as in RFC 5780 §4.3.
fn mapping(reports: &[Report]) -> Option<MappingBehavior> {
    let independent = independent(reports);
    let is_same = |pick: fn(&Report) -> Option<SocketAddr>| {
        let votes: Vec<SocketAddr> = independent.iter().filter_map(|r| pick(r)).collect();
        let (most, all) = agreement(&votes);
        (all >= 2).then_some(most * 2 > all)
    };
    let changes = |r: &Report| Some(r.second? != r.second_alternate?);
    let port_votes: Vec<bool> = reports.iter().filter_map(changes).collect();
    let by_port = port_votes.iter().filter(|changed| **changed).count();
    match (is_same(|r| r.main), is_same(|r| r.second)) {
        (None, None) if reports.len() == 1 && by_port == 1 => Some(MappingBehavior::AddressAndPortDependent),
        (None, None) => None,
        (Some(true) | None, Some(true) | None) => Some(MappingBehavior::EndpointIndependent),
        // Most of those who could tell saw one port for both of their own.
        _ if by_port * 2 < port_votes.len() => Some(MappingBehavior::AddressDependent),
        _ => Some(MappingBehavior::AddressAndPortDependent),
    }
}

/// RFC 4787 §5, found as in RFC 5780 §4.4. A packet that came cannot be a lie; that none came may be the fault of one.
fn filtering(evidence: &Evidence) -> Option<FilteringBehavior> {
    if evidence.unasked_came {
        return Some(FilteringBehavior::EndpointIndependent);
    }
    let came = |wanted| evidence.reports.iter().filter(|r| r.alternate_came == Some(wanted)).count();
    if came(true) > 0 {
        return Some(FilteringBehavior::AddressDependent);
    }
    let enough = evidence.reports.len().clamp(1, 2);
    (came(false) >= enough).then_some(FilteringBehavior::AddressAndPortDependent)
}

/// RFC 4787 §4.1, IP address pooling: whether more than one external address is in use, by the word of two.
fn pooled(reports: &[Report]) -> Option<bool> {
    let seen = |r: &Report| [r.main, r.second, r.second_alternate].into_iter().flatten().map(|a| a.ip());
    let told = reports.iter().filter(|r| seen(r).next().is_some()).count();
    let all: Vec<IpAddr> = reports.iter().flat_map(seen).collect();
    let usual = all.iter().max_by_key(|ip| (all.iter().filter(|other| other == ip).count(), **ip))?;
    let differ = reports.iter().filter(|r| seen(r).any(|ip| ip != *usual)).count();
    match (told, differ) {
        (0 | 1, _) => None,
        (_, 0) => Some(false),
        // One of two may lie; one of three is outvoted.
        (2, 1) => None,
        (_, 1) => Some(false),
        _ => Some(true),
    }
}

/// RFC 4787 §4.2.
fn ports(evidence: &Evidence, mapping: Option<MappingBehavior>) -> PortAssignment {
    let mut made: Vec<Sample> = Vec::new();
    for sample in &evidence.samples {
        // One mapping, seen by several, is one sample.
        if !made.iter().any(|other| other.seen == sample.seen && other.local == sample.local) {
            made.push(*sample);
        }
    }
    let kept: Vec<bool> = evidence.reports.iter().filter_map(|r| Some(r.main?.port() == evidence.main_port)).collect();
    let kept = kept.into_iter().chain(evidence.samples.iter().map(|s| s.seen.port() == s.local));
    let (preserved, all) = kept.fold((0, 0), |(yes, all), is_kept| (yes + usize::from(is_kept), all + 1));
    if all > 0 && preserved * 2 > all {
        return PortAssignment::Preserving;
    }
    // The first of several mappings of a socket may keep the port; what the others get is the question.
    made.retain(|s| s.seen.port() != s.local);
    let counter = without_a_liar(&made, evidence.reports.len(), counter);
    if let Some((step, newest)) = counter {
        return PortAssignment::Sequential { step, newest };
    }
    let mains = evidence
        .reports
        .iter()
        .enumerate()
        .filter_map(|(reporter, r)| r.main.map(|seen| Sample { reporter, local: evidence.main_port, seen }));
    let mut all_made = made.clone();
    all_made.extend(mains.filter(|main| made.iter().all(|s| s.seen != main.seen)));
    if let Some((first, width)) = without_a_liar(&all_made, evidence.reports.len(), block) {
        return PortAssignment::Block { first, width };
    }
    match mapping {
        // With one mapping for all there may be too few to tell.
        Some(_) if made.len() >= COUNTER_SAMPLES_MIN => PortAssignment::Random,
        _ => PortAssignment::Unknown,
    }
}

/// Asks `judge` of all samples, then of all but one supernode's. That one must be far off: where all are near each
/// other, leaving some out would make order out of chance.
fn without_a_liar<T>(
    samples: &[Sample],
    reporters: usize,
    judge: impl Fn(&[(i32, u16)], bool) -> Option<T>,
) -> Option<T> {
    let numbered = |is_in: &dyn Fn(&Sample) -> bool| -> Vec<(i32, u16)> {
        let of = samples.iter().enumerate().filter(|(_, s)| is_in(s));
        of.map(|(at, s)| (i32::try_from(at).unwrap_or(0), s.seen.port())).collect()
    };
    if let Some(found) = judge(&numbered(&|_| true), true) {
        return Some(found);
    }
    if reporters < TARGETS_MAX {
        return None;
    }
    (0..reporters).find_map(|liar| {
        let honest = numbered(&|s| s.reporter != liar);
        let near = |port: u16| honest.iter().any(|(_, p)| u32::from(p.abs_diff(port)) < BLOCK_SPAN_MAX);
        let is_far = samples.iter().any(|s| s.reporter == liar && !near(s.seen.port()));
        judge(&honest, false).filter(|_| is_far)
    })
}

/// The step of a counter and its newest port, if these are a counter's: (number in the order of making, port).
///
/// Other hosts take ports from the same counter, so what lies between two of ours is a multiple of the step.
fn counter(samples: &[(i32, u16)], is_complete: bool) -> Option<(i8, u16)> {
    let min = if is_complete { 3 } else { COUNTER_SAMPLES_MIN };
    let span_max = if samples.len() < COUNTER_SAMPLES_MIN { COUNTER_SPAN_FEW } else { COUNTER_SPAN };
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < min || (i32::from(last.1) - i32::from(first.1)).abs() > span_max {
        return None;
    }
    let up = last.1 > first.1;
    let mut step = 0;
    for pair in samples.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let by = i32::from(b.1) - i32::from(a.1);
        // In between, as many of our own as are left out.
        if by == 0 || (by > 0) != up || by.abs() < b.0 - a.0 {
            return None;
        }
        step = gcd(step, by.abs());
    }
    let step = step.min(STEP_MAX);
    let step = i8::try_from(if up { step } else { -step }).ok()?;
    Some((step, last.1))
}

fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The block that these ports are drawn from, if they are from one: rather too wide than too narrow, since a port
/// outside can never be guessed.
fn block(samples: &[(i32, u16)], _: bool) -> Option<(u16, u16)> {
    let ports: BTreeSet<u32> = samples.iter().map(|(_, port)| u32::from(*port)).collect();
    let (low, high) = (*ports.first()?, *ports.last()?);
    let (count, span) = (u32::try_from(ports.len()).ok()?, high - low + 1);
    if ports.len() < BLOCK_SAMPLES_MIN || span > BLOCK_SPAN_MAX {
        return None;
    }
    // Of `count` draws, the lowest and the highest are on average (count - 1) / (count + 1) of the width apart.
    let width = (span * (count + 1)).div_ceil(count - 1).max(BLOCK_WIDTH_MIN).next_power_of_two();
    // RFC 7422 §2: carriers give out equal blocks, one after the other, from the first port that is not the system's.
    let aligned = PORT_MIN + (low.saturating_sub(PORT_MIN) / width) * width;
    let first = if high < aligned + width { aligned } else { low.saturating_sub((width - span) / 2).max(PORT_MIN) };
    let width = width.min(65_536 - first);
    Some((u16::try_from(first).ok()?, u16::try_from(width).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([198, 51, 100, 7], port)))
    }

    fn report(n: u8, main: u16, second: u16, second_alternate: u16) -> Report {
        let ip = IpAddr::from([203, 0, 113, n]);
        Report { ip, main: at(main), second: at(second), second_alternate: at(second_alternate), alternate_came: None }
    }

    fn evidence(reports: &[Report]) -> Evidence {
        let mut evidence = Evidence { reports: reports.iter().copied().collect(), ..Evidence::default() };
        (evidence.main_port, evidence.unasked_came) = (1, false);
        for (reporter, r) in reports.iter().enumerate() {
            for seen in [r.second, r.second_alternate].into_iter().flatten() {
                evidence.samples.push(Sample { reporter, local: 2, seen });
            }
        }
        evidence
    }

    use FilteringBehavior as F;
    use MappingBehavior as M;

    #[test]
    fn mapping_is_told_by_who_sees_what() {
        let mapping = |reports: &[Report]| classify(&evidence(reports)).mapping;
        assert_eq!(mapping(&[]), None);
        assert_eq!(mapping(&[report(1, 10, 20, 20)]), None, "one cannot tell EI from AD");
        assert_eq!(mapping(&[report(1, 10, 20, 21)]), Some(M::AddressAndPortDependent));
        let two = [report(1, 10, 20, 20), report(2, 10, 20, 20)];
        assert_eq!(mapping(&two), Some(M::EndpointIndependent));
        let two = [report(1, 10, 20, 20), report(2, 11, 21, 21)];
        assert_eq!(mapping(&two), Some(M::AddressDependent));
        let two = [report(1, 10, 20, 21), report(2, 11, 22, 23)];
        assert_eq!(mapping(&two), Some(M::AddressAndPortDependent));
    }

    #[test]
    fn one_liar_of_three_is_outvoted() {
        for liar in [report(3, 66, 67, 68), report(3, 10, 66, 66), report(3, 66, 20, 20)] {
            let easy = [report(1, 10, 20, 20), liar, report(2, 10, 20, 20)];
            assert_eq!(classify(&evidence(&easy)).mapping, Some(M::EndpointIndependent), "{liar:?}");
        }
        let hard = [report(1, 10, 20, 21), report(3, 12, 24, 24), report(2, 11, 22, 23)];
        assert_eq!(classify(&evidence(&hard)).mapping, Some(M::AddressAndPortDependent), "it denies the dependence");
        let half = [report(1, 10, 20, 20), report(3, 12, 24, 25), report(2, 11, 22, 22)];
        assert_eq!(classify(&evidence(&half)).mapping, Some(M::AddressDependent), "it claims too much of it");
        let elsewhere = Report { main: Some(([192, 0, 2, 1], 10).into()), ..report(3, 10, 20, 20) };
        let easy = [report(1, 10, 20, 20), elsewhere, report(2, 10, 20, 20)];
        assert_eq!(classify(&evidence(&easy)).pooled, Some(false));
    }

    #[test]
    fn supernodes_behind_one_address_have_one_vote() {
        let mut reports = [report(1, 10, 20, 20), report(1, 10, 20, 20), report(2, 11, 21, 21)];
        assert_eq!(classify(&evidence(&reports)).mapping, Some(M::AddressDependent));
        // Where all are on one host, as in a test network, ports tell them apart.
        reports[2].ip = reports[0].ip;
        assert_eq!(classify(&evidence(&reports[..2])).mapping, Some(M::EndpointIndependent));
    }

    #[test]
    fn filtering_is_told_by_what_comes_in() {
        let filtering = |came: &[Option<bool>], unasked_came| {
            let with =
                |(n, came): (usize, &Option<bool>)| Report { alternate_came: *came, ..report(n as u8 + 1, 10, 20, 20) };
            let reports: Vec<Report> = came.iter().enumerate().map(with).collect();
            classify(&Evidence { unasked_came, ..evidence(&reports) }).filtering
        };
        assert_eq!(filtering(&[None, None, None], false), None);
        assert_eq!(filtering(&[Some(false), None, None], false), None, "one silence of three says nothing");
        assert_eq!(filtering(&[Some(false)], false), Some(F::AddressAndPortDependent));
        assert_eq!(filtering(&[Some(false), Some(false), None], false), Some(F::AddressAndPortDependent));
        assert_eq!(filtering(&[Some(false), Some(true), Some(false)], false), Some(F::AddressDependent));
        assert_eq!(filtering(&[Some(false), Some(false), Some(false)], true), Some(F::EndpointIndependent));
    }

    fn dependent(ports: [u16; 6]) -> PortAssignment {
        let [a, b, c, d, e, f] = ports;
        classify(&evidence(&[report(1, 9_000, a, b), report(2, 30_000, c, d), report(3, 50_000, e, f)])).ports
    }

    #[test]
    fn a_counter_is_seen_through_other_hosts_and_through_a_liar() {
        let counter = |step, newest| PortAssignment::Sequential { step, newest };
        assert_eq!(dependent([100, 101, 102, 103, 104, 105]), counter(1, 105));
        assert_eq!(dependent([105, 104, 103, 102, 101, 100]), counter(-1, 100));
        assert_eq!(dependent([100, 102, 104, 106, 108, 110]), counter(2, 110));
        assert_eq!(dependent([100, 104, 106, 114, 116, 118]), counter(2, 118), "other hosts took some");
        assert_eq!(dependent([100, 101, 7, 60_000, 104, 105]), counter(1, 105), "the second lies");
        assert_eq!(dependent([7, 60_000, 102, 103, 104, 105]), counter(1, 105), "the first lies");
        assert_eq!(dependent([100, 101, 102, 103, 60_000, 7]), counter(1, 103), "the third lies");
        let in_block = [report(1, 1_900, 1_783, 1_740), report(2, 1_600, 1_750, 1_760), report(3, 2_000, 1_770, 1_780)];
        let chance = classify(&evidence(&in_block)).ports;
        assert!(matches!(chance, PortAssignment::Block { .. }), "order by chance, in a block: {chance:?}");
    }

    #[test]
    fn ports_without_order_are_random_or_of_a_block() {
        assert_eq!(dependent([100, 30_000, 2_000, 60_000, 41, 8_080]), PortAssignment::Random);
        // 2048..3072 is a block of 1024 from 1024 on.
        let reports = [report(1, 2_100, 2_500, 2_060), report(2, 2_800, 3_000, 2_222), report(3, 2_700, 2_300, 2_900)];
        let PortAssignment::Block { first, width } = classify(&evidence(&reports)).ports else { panic!() };
        assert!(first <= 2_048 && u32::from(first) + u32::from(width) >= 3_072 && width <= 2_048, "{first} {width}");
        let lies = [reports[0], report(2, 60_000, 50_000, 40_000), reports[2]];
        assert!(matches!(classify(&evidence(&lies)).ports, PortAssignment::Block { .. }), "one liar");
    }

    #[test]
    fn preserved_ports_are_seen() {
        let reports = [report(1, 1, 2, 2), report(2, 1, 2, 2), report(3, 66, 67, 68)];
        assert_eq!(classify(&evidence(&reports)).ports, PortAssignment::Preserving);
        let first_only = [report(1, 1, 2, 30_001), report(2, 700, 45_000, 9_000), report(3, 30_000, 8_000, 51_111)];
        assert_eq!(classify(&evidence(&first_only)).ports, PortAssignment::Random);
    }

    #[test]
    fn several_addresses_are_believed_of_two() {
        let other = |n: u8| Report { second: Some(([198, 51, 100, 8], 20).into()), ..report(n, 10, 20, 20) };
        let pooled = |reports: &[Report]| classify(&evidence(reports)).pooled;
        assert_eq!(pooled(&[report(1, 10, 20, 20)]), None);
        assert_eq!(pooled(&[report(1, 10, 20, 20), report(2, 10, 20, 20)]), Some(false));
        assert_eq!(pooled(&[report(1, 10, 20, 20), other(2)]), None, "one of two may lie");
        assert_eq!(pooled(&[report(1, 10, 20, 20), other(2), report(3, 10, 20, 20)]), Some(false));
        assert_eq!(pooled(&[other(1), other(2), report(3, 10, 20, 20)]), Some(true));
    }
}
