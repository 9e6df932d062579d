//! The oracle against pairs worked out by hand.

use super::*;
use Behavior::*;

const SEQ: PortAssignment = PortAssignment::Sequential { delta: 1 };
const BLOCK: PortAssignment = PortAssignment::Block { width: 512 };

fn one(spec: NatSpec) -> Side {
    Side::behind(&[spec])
}

fn between(a: NatSpec, b: NatSpec) -> Verdict {
    verdict(&one(a), &one(b))
}

fn all_specs() -> Vec<NatSpec> {
    let mut all = Vec::new();
    for mapping in Behavior::ALL {
        for filtering in Behavior::ALL {
            for ports in [PortAssignment::Preserving, PortAssignment::Random, SEQ, BLOCK] {
                for spec in
                    [NatSpec::new(mapping, filtering), NatSpec::new(mapping, filtering).filtering_per_endpoint()]
                {
                    all.push(spec.ports(ports));
                    all.push(spec.ports(ports).pool(2, Pooling::Arbitrary));
                }
            }
        }
    }
    all
}

#[test]
fn it_is_symmetric() {
    let all = all_specs();
    for a in &all {
        for b in &all {
            assert_eq!(between(*a, *b), between(*b, *a), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_stricter_filter_never_helps() {
    let all = all_specs();
    for a in all.iter().filter(|a| a.filtering == AddressAndPortDependent) {
        for b in &all {
            let mut milder = *a;
            milder.filtering = AddressDependent;
            assert!(between(milder, *b).expected() >= between(*a, *b).expected(), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_host_without_a_router_reaches_everybody() {
    for spec in all_specs() {
        assert_eq!(verdict(&Side::default(), &one(spec)), Verdict::Direct, "{spec:?}");
    }
}

#[test]
fn rfc_5128_3_3_independent_mapping_on_both_sides_suffices() {
    for fa in Behavior::ALL {
        for fb in Behavior::ALL {
            assert_eq!(
                between(NatSpec::new(EndpointIndependent, fa), NatSpec::new(EndpointIndependent, fb)),
                Verdict::Direct
            );
        }
    }
}

#[test]
fn the_gap_that_everybody_has() {
    let home = NatSpec::port_restricted();
    let Verdict::DirectByBirthday(chance) = between(home, NatSpec::fully_dependent()) else { panic!() };
    assert!(chance.high > 0.999 && chance.low > 0.98);
    assert_eq!(between(home, NatSpec::dependent(SEQ)), Verdict::DirectByPrediction);
    let Verdict::DirectByBirthday(chance) = between(home, NatSpec::dependent(BLOCK)) else { panic!() };
    assert!(chance.low > 0.999_999, "the whole block is tried: {chance:?}");
}

#[test]
fn a_filter_by_address_lets_the_unforeseen_port_in() {
    let open = NatSpec::new(EndpointIndependent, AddressDependent);
    assert_eq!(between(open, NatSpec::fully_dependent()), Verdict::Direct);
    // Unless the address is not foreseen either: then guesses meet only what is at the address they are made for.
    let scattered = NatSpec::fully_dependent().pool(4, Pooling::Arbitrary);
    let Verdict::DirectByBirthday(chance) = between(open, scattered) else { panic!() };
    assert!((0.86..0.88).contains(&chance.high), "1 - (1 - 2 000 / 64 512)^64: {chance:?}");
    assert_eq!(between(NatSpec::new(EndpointIndependent, EndpointIndependent), scattered), Verdict::Direct);
}

#[test]
fn two_that_change_with_every_packet_are_relayed() {
    let random = NatSpec::fully_dependent();
    for other in [random, NatSpec::dependent(PortAssignment::Block { width: 64 }), NatSpec::dependent(SEQ)] {
        assert_eq!(between(random, other), Verdict::Relay(Why::BothChange));
    }
    // Even wide open: each answer leaves from another endpoint than the one that was asked.
    let open = NatSpec::new(AddressAndPortDependent, EndpointIndependent).ports(PortAssignment::Random);
    assert_eq!(between(open, open), Verdict::Relay(Why::BothChange));
}

#[test]
fn two_counters_meet_if_nobody_else_counts() {
    let (quiet, busy) = (NatSpec::dependent(SEQ), NatSpec::dependent(SEQ).background(2));
    assert_eq!(between(quiet, quiet), Verdict::DirectByPrediction);
    let Verdict::Luck(chance) = between(quiet, busy) else { panic!() };
    assert!((0.6..0.7).contains(&chance), "exp(-2 a second for 0.2 s)");
    assert_eq!(between(NatSpec::port_restricted(), busy), Verdict::DirectByPrediction);
    // 56 of 64 ports are open towards the next port of the counter, whose first guess is as good as that.
    assert_eq!(between(quiet, NatSpec::dependent(PortAssignment::Block { width: 64 })), Verdict::Luck(56.0 / 64.0));
    let rush = NatSpec::dependent(SEQ).background(500);
    assert_eq!(between(NatSpec::port_restricted(), rush).class(), "birthday");
}

#[test]
fn address_dependent_mapping_by_hand() {
    let spec = |filtering| NatSpec::new(AddressDependent, filtering);
    // A's one endpoint towards B gets in at the endpoint of B that everybody knows; B's answer from its one endpoint
    // towards A passes A's filter by address; then both know both.
    assert_eq!(between(spec(EndpointIndependent), spec(AddressDependent)), Verdict::Direct);
    // B's port towards A can only be guessed, and B's filter does not know from where; so A holds ports open, each
    // one for all of B's address, and B guesses.
    assert_eq!(between(spec(EndpointIndependent), spec(AddressAndPortDependent)).class(), "birthday");
    // No packet gets in anywhere. Each has one endpoint towards the other, though: one guesses, and a filter by
    // address does not ask from which port.
    assert_eq!(between(spec(AddressDependent), spec(AddressDependent)).class(), "birthday");
    // Even if each guess comes from another port.
    assert_eq!(between(spec(AddressDependent), NatSpec::fully_dependent()).class(), "birthday");
    assert_eq!(between(spec(AddressAndPortDependent), spec(AddressAndPortDependent)), Verdict::Relay(Why::BothChange));
    // B sends to the endpoint of A that it foresees, and gets in if A's filter does not ask from which port.
    let seq = |filtering| spec(filtering).ports(SEQ);
    assert_eq!(between(seq(AddressDependent), spec(AddressAndPortDependent)), Verdict::DirectByPrediction);
    assert_eq!(between(seq(AddressDependent), NatSpec::fully_dependent()), Verdict::DirectByPrediction);
    // If it asks, B holds many open towards that endpoint, and A guesses.
    assert_eq!(between(seq(AddressAndPortDependent), spec(AddressAndPortDependent)).class(), "birthday");
    assert_eq!(between(seq(AddressAndPortDependent), NatSpec::fully_dependent()).class(), "birthday");
}

#[test]
fn routers_in_a_row_are_as_strict_as_the_strictest() {
    let home = NatSpec::port_restricted();
    let row = |inner, outer| Side::behind(&[inner, outer]);
    let cgn = NatSpec::new(EndpointIndependent, EndpointIndependent).ports(PortAssignment::Random);
    assert_eq!(verdict(&row(home, cgn), &row(home, cgn)), Verdict::Direct);
    let hard = NatSpec::dependent(BLOCK);
    assert_eq!(verdict(&row(home, hard), &one(home)).class(), "birthday");
    assert_eq!(verdict(&row(home, hard), &row(home, hard)), Verdict::Relay(Why::BothChange));
    // A home router's counter is hidden by a carrier's choice, and shows through one that keeps ports.
    let counting = NatSpec::dependent(SEQ);
    assert_eq!(verdict(&row(counting, cgn), &one(home)).class(), "birthday");
    assert_eq!(verdict(&row(counting, NatSpec::port_restricted()), &one(home)), Verdict::DirectByPrediction);
}

#[test]
fn behind_one_router() {
    let home = NatSpec::port_restricted();
    let shared = NatSpec::port_restricted();
    assert_eq!(verdict_behind(&shared, &[], &[]), Verdict::Direct, "one network");
    assert_eq!(verdict_behind(&shared, &[home], &[]), Verdict::Direct);
    assert_eq!(verdict_behind(&shared, &[home], &[home]), Verdict::Relay(Why::NoHairpin));
    assert_eq!(verdict_behind(&shared.hairpinning(), &[home], &[home]), Verdict::Direct);
    let mut shows = shared.hairpinning();
    shows.hairpin_source = crate::nat::HairpinSource::Internal;
    assert_eq!(verdict_behind(&shows, &[home], &[home]), Verdict::Relay(Why::HairpinShowsInternal));
    let open = NatSpec::new(EndpointIndependent, EndpointIndependent);
    assert_eq!(verdict_behind(&shows, &[open], &[open]), Verdict::Direct);
}

#[test]
fn blocked_udp_and_ipv6() {
    let home = one(NatSpec::port_restricted());
    let hard = one(NatSpec::fully_dependent());
    assert_eq!(verdict(&one(NatSpec::udp_blocked()), &Side::default()), Verdict::Relay(Why::UdpBlocked));
    assert_eq!(verdict(&hard.clone().with_ipv6(), &hard.clone().with_ipv6()), Verdict::Direct);
    assert_eq!(verdict(&hard.clone().with_ipv6(), &home).class(), "birthday", "only one of them has it");
}
