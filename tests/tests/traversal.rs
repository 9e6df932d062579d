//! Which pairs become direct, through which routers: against the oracle, which knows RFC terms only.

use handfast_tests::oracle::{Side, Verdict, verdict};
use handfast_tests::{Behavior, HostId, NatSpec, Place, PortAssignment, World, ms, secs};

/// All nine combinations of mapping and filtering.
fn specs() -> Vec<NatSpec> {
    let both = |m| Behavior::ALL.map(|f| NatSpec::new(m, f));
    Behavior::ALL.into_iter().flat_map(both).collect()
}

#[test]
fn endpoint_independent_routers_become_direct_whatever_they_filter() {
    for fa in Behavior::ALL {
        for fb in Behavior::ALL {
            let spec = |f| NatSpec::new(Behavior::EndpointIndependent, f);
            let (mut w, a, b) = World::pair(1, spec(fa), spec(fb));
            let t = w.transfer(a, b, 100, 100);
            w.finish("a transfer", secs(5), &[t]);
            w.until(&format!("direct through {fa:?} and {fb:?}"), secs(5), |w| w.is_direct(a, b));
        }
    }
}

#[test]
fn every_pair_of_behaviours_does_what_the_oracle_says() {
    let specs = specs();
    let mut w = World::new(2);
    w.add_supernodes(4);
    let mut pairs: Vec<(NatSpec, NatSpec, HostId, HostId)> = Vec::new();
    for (i, sa) in specs.iter().enumerate() {
        for sb in &specs[..=i] {
            // Either side may be the one that calls.
            let (sa, sb) = if pairs.len().is_multiple_of(2) { (*sa, *sb) } else { (*sb, *sa) };
            let (a, b) = (w.add_leaf_behind(sa), w.add_leaf_behind(sb));
            pairs.push((sa, sb, a, b));
        }
    }
    let leaves: Vec<HostId> = pairs.iter().flat_map(|p| [p.2, p.3]).collect();
    w.settle_homes(&leaves);
    let transfers: Vec<_> = pairs.iter().map(|p| w.transfer(p.2, p.3, 1000, 1000)).collect();
    w.finish("every pair talks, direct or not", secs(10), &transfers);
    w.run_for(secs(30));
    let (mut direct, mut relayed) = (0, 0);
    for (sa, sb, a, b) in pairs {
        let shown = format!("{:?}/{:?} and {:?}/{:?}", sa.mapping, sa.filtering, sb.mapping, sb.filtering);
        match verdict(&Side::behind(&[sa]), &Side::behind(&[sb])) {
            Verdict::Direct => assert!(w.is_direct(a, b), "{shown} is not direct"),
            Verdict::Relay(why) => assert!(w.is_relayed(a, b), "{shown} is not relayed, although {why:?}"),
            // What takes guessing, and for how long, is the matrix's business.
            Verdict::DirectByPrediction | Verdict::DirectByBirthday(_) | Verdict::Luck(_) => {
                assert!(w.path(a, b).is_some() && w.path(b, a).is_some(), "{shown} has no path");
            }
        }
        direct += u32::from(w.is_direct(a, b));
        relayed += u32::from(w.is_relayed(a, b));
    }
    assert!(direct >= 20 && relayed >= 5, "{direct} direct, {relayed} relayed");
}

#[test]
fn a_pair_that_cannot_stays_relayed_and_works() {
    let (mut w, a, b) = World::pair(3, NatSpec::fully_dependent(), NatSpec::fully_dependent());
    let t = w.transfer(a, b, 200_000, 100_000);
    w.finish("a relayed transfer", secs(30), &[t]);
    w.run_for(secs(120));
    assert!(w.is_relayed(a, b));
    let t = w.transfer(b, a, 10_000, 0);
    w.finish("and another", secs(10), &[t]);
}

#[test]
fn random_external_ports_do_not_hinder_independent_mapping() {
    let mut spec = NatSpec::port_restricted();
    spec.ports = PortAssignment::Random;
    let (mut w, a, b) = World::pair(4, spec, spec);
    w.transfer(a, b, 10, 10);
    w.until("direct", secs(5), |w| w.is_direct(a, b));
}

#[test]
fn hosts_without_a_router_become_direct() {
    let mut w = World::new(5);
    w.add_supernodes(2);
    let a = w.add_leaf(Place::Public);
    let b = w.add_leaf_behind(NatSpec::port_restricted());
    let c = w.add_leaf_behind(NatSpec::fully_dependent());
    w.settle_homes(&[a, b, c]);
    for (from, to) in [(a, b), (b, a), (a, c), (c, a)] {
        w.transfer(from, to, 10, 10);
    }
    w.until("direct", secs(5), |w| w.is_direct(a, b) && w.is_direct(a, c));
}

#[test]
fn two_leaves_behind_one_router_meet_in_their_lan() {
    for hairpinning in [false, true] {
        let mut w = World::new(6);
        w.add_supernodes(2);
        let mut spec = NatSpec::port_restricted();
        spec.hairpinning = hairpinning;
        let router = w.add_router(spec);
        let (a, b) = (w.add_leaf(Place::Behind(router)), w.add_leaf(Place::Behind(router)));
        w.settle_homes(&[a, b]);
        w.transfer(a, b, 1000, 1000);
        w.until("direct", secs(5), |w| w.is_direct(a, b));
        // The direct way through the LAN is a hundred times shorter than the hairpin could be at best equal to.
        w.run_for(secs(10));
        assert!(w.is_direct(a, b));
    }
}

#[test]
fn two_routers_in_a_row_and_a_hairpin_at_the_outer_one() {
    let mut w = World::new(7);
    w.add_supernodes(2);
    let outer = w.add_router(NatSpec::port_restricted().hairpinning());
    let leaves: Vec<HostId> = (0..2)
        .map(|_| {
            let inner = w.add_router_behind(outer, NatSpec::port_restricted());
            w.add_leaf(Place::Behind(inner))
        })
        .collect();
    w.settle_homes(&leaves);
    let (a, b) = (leaves[0], leaves[1]);
    let t = w.transfer(a, b, 1000, 1000);
    w.finish("a transfer", secs(10), &[t]);
    w.until("direct through the hairpin", secs(10), |w| w.is_direct(a, b));
}

#[test]
fn without_a_hairpin_two_routers_in_a_row_are_relayed() {
    let mut w = World::new(8);
    w.add_supernodes(2);
    let outer = w.add_router(NatSpec::port_restricted());
    let leaves: Vec<HostId> = (0..2)
        .map(|_| {
            let inner = w.add_router_behind(outer, NatSpec::port_restricted());
            w.add_leaf(Place::Behind(inner))
        })
        .collect();
    w.settle_homes(&leaves);
    let t = w.transfer(leaves[0], leaves[1], 1000, 1000);
    w.finish("a transfer", secs(10), &[t]);
    w.run_for(secs(30));
    assert!(w.is_relayed(leaves[0], leaves[1]));
}

#[test]
fn ipv6_behind_firewalls_is_direct_where_ipv4_cannot_be() {
    let mut w = World::new(9);
    w.add_supernodes(2);
    let leaves: Vec<HostId> = (0..2)
        .map(|_| {
            let router = w.add_router(NatSpec::fully_dependent());
            w.add_leaf(Place::DualStack(router))
        })
        .collect();
    w.settle_homes(&leaves);
    let (a, b) = (leaves[0], leaves[1]);
    w.transfer(a, b, 1000, 1000);
    w.until("direct by IPv6", secs(10), |w| w.is_direct(a, b));
}

#[test]
fn a_silent_direct_path_keeps_its_bindings() {
    let spec = NatSpec::port_restricted().binding_timeout(secs(30));
    let (mut w, a, b) = World::pair(10, spec, spec);
    w.transfer(a, b, 1000, 1000);
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    w.run_for(secs(600));
    let t = w.transfer(b, a, 1000, 1000);
    let took = w.finish("a transfer after ten minutes of silence", secs(10), &[t]);
    assert!(took < secs(5), "{took:?}");
}

#[test]
fn a_leaf_is_reachable_after_hours_behind_a_router_that_forgets_in_30_seconds() {
    let spec = NatSpec::port_restricted().binding_timeout(secs(30));
    let (mut w, a, b) = World::pair(11, spec, spec);
    w.run_for(secs(2 * 3600));
    let t = w.transfer(a, b, 1000, 1000);
    let took = w.finish("a transfer after two hours", secs(10), &[t]);
    assert!(took < secs(1), "{took:?}");
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    assert!(w.now() > handfast_core::Instant::ZERO + ms(1));
}
