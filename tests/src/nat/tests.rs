//! Each behaviour, in the words of the RFC.

use super::*;

const ROUTER: &str = "60.0.0.1";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn out(nat: &mut Nat, now: Instant, src: SocketAddr, dst: SocketAddr) -> SocketAddr {
    nat.outbound(now, src, dst).expect("it gets out")
}

fn nat(spec: NatSpec) -> Nat {
    Nat::new(spec, ROUTER.parse().unwrap(), Dice::new(1, "nat test"))
}

const IN: &str = "192.168.1.2:7000";
const X1: &str = "20.0.0.1:1";
const X2: &str = "20.0.0.1:2";
const Y1: &str = "20.0.0.2:1";

#[test]
fn mapping_depends_on_what_it_says() {
    for (mapping, same_address, other_address) in [
        (Behavior::EndpointIndependent, true, true),
        (Behavior::AddressDependent, true, false),
        (Behavior::AddressAndPortDependent, false, false),
    ] {
        let mut nat = nat(NatSpec::new(mapping, Behavior::EndpointIndependent));
        let first = out(&mut nat, at(0), addr(IN), addr(X1));
        assert_eq!(first, addr("60.0.0.1:7000"), "the port is preserved");
        assert_eq!(out(&mut nat, at(0), addr(IN), addr(X2)) == first, same_address, "{mapping:?}");
        assert_eq!(out(&mut nat, at(0), addr(IN), addr(Y1)) == first, other_address, "{mapping:?}");
        assert_eq!(out(&mut nat, at(0), addr(IN), addr(X1)), first);
    }
}

#[test]
fn filtering_depends_on_what_it_says() {
    for (filtering, other_port, other_address) in [
        (Behavior::EndpointIndependent, true, true),
        (Behavior::AddressDependent, true, false),
        (Behavior::AddressAndPortDependent, false, false),
    ] {
        let mut nat = nat(NatSpec::new(Behavior::EndpointIndependent, filtering));
        let external = out(&mut nat, at(0), addr(IN), addr(X1));
        assert_eq!(nat.inbound(at(0), addr(X1), external), Some(addr(IN)));
        assert_eq!(nat.inbound(at(0), addr(X2), external).is_some(), other_port, "{filtering:?}");
        assert_eq!(nat.inbound(at(0), addr(Y1), external).is_some(), other_address, "{filtering:?}");
    }
}

#[test]
fn two_hosts_do_not_share_a_port() {
    let mut nat = nat(NatSpec::port_restricted());
    let a = out(&mut nat, at(0), addr("192.168.1.2:7000"), addr(X1));
    let b = out(&mut nat, at(0), addr("192.168.1.3:7000"), addr(X1));
    assert_ne!(a, b);
    assert_eq!(nat.inbound(at(0), addr(X1), b), Some(addr("192.168.1.3:7000")));
}

#[test]
fn a_binding_ends_after_its_timeout_unless_refreshed() {
    let spec = NatSpec::port_restricted().binding_timeout(Duration::from_secs(30));
    let mut nat = nat(spec);
    let external = out(&mut nat, at(0), addr(IN), addr(X1));
    assert!(nat.inbound(at(29), addr(X1), external).is_some(), "and this refreshes it");
    assert!(nat.inbound(at(58), addr(X1), external).is_some());
    assert!(nat.inbound(at(88), addr(X1), external).is_none());
    assert_eq!((nat.bindings(at(88)), nat.expired, nat.refused), (0, 1, 1));
}

#[test]
fn inbound_refresh_can_be_off() {
    let mut spec = NatSpec::port_restricted().binding_timeout(Duration::from_secs(30));
    spec.inbound_refresh = false;
    let mut nat = nat(spec);
    let external = out(&mut nat, at(0), addr(IN), addr(X1));
    assert!(nat.inbound(at(29), addr(X1), external).is_some());
    assert!(nat.inbound(at(30), addr(X1), external).is_none());
    assert_eq!(out(&mut nat, at(31), addr(IN), addr(X1)), external, "a new binding, the preserved port again");
    assert!(nat.inbound(at(60), addr(X1), external).is_some());
}

#[test]
fn a_permission_ages_by_itself() {
    let mut nat = nat(NatSpec::port_restricted().binding_timeout(Duration::from_secs(30)));
    let external = out(&mut nat, at(0), addr(IN), addr(X1));
    out(&mut nat, at(20), addr(IN), addr(Y1));
    assert!(nat.inbound(at(40), addr(Y1), external).is_some());
    assert!(nat.inbound(at(40), addr(X1), external).is_none(), "X1 was sent to 40 s ago");
}

#[test]
fn a_reboot_forgets_everything() {
    let mut nat = nat(NatSpec::port_restricted());
    let external = out(&mut nat, at(0), addr(IN), addr(X1));
    nat.reboot(Some("60.0.0.9".parse().unwrap()));
    assert!(nat.inbound(at(1), addr(X1), external).is_none());
    assert_eq!(out(&mut nat, at(1), addr(IN), addr(X1)), addr("60.0.0.9:7000"));
}

#[test]
fn a_firewall_translates_nothing() {
    let mut nat = nat(NatSpec::firewall());
    let inside = addr("[2001:db8::1]:7000");
    let outside = addr("[2001:db8:1::1]:1");
    assert_eq!(nat.inbound(at(0), outside, inside), None);
    assert_eq!(out(&mut nat, at(0), inside, outside), inside);
    assert_eq!(nat.inbound(at(0), outside, inside), Some(inside));
}

/// One external endpoint for each of `n` remote endpoints of different addresses.
fn spread(nat: &mut Nat, now: Instant, src: &str, n: u8) -> Vec<SocketAddr> {
    (1..=n).map(|host| out(nat, now, addr(src), SocketAddr::from(([20, 0, 1, host], 9)))).collect()
}

#[test]
fn rfc_4787_5_the_letter_speaks_of_the_internal_endpoint() {
    // X1 and Y1 were sent to through two bindings. By the letter, Y1 may then answer to either.
    for (spec, passes) in
        [(NatSpec::fully_dependent(), false), (NatSpec::fully_dependent().filtering_per_endpoint(), true)]
    {
        let mut nat = nat(spec);
        let first = out(&mut nat, at(0), addr(IN), addr(X1));
        let second = out(&mut nat, at(0), addr(IN), addr(Y1));
        assert_ne!(first, second);
        assert_eq!(nat.inbound(at(0), addr(Y1), first).is_some(), passes);
        assert_eq!(nat.inbound(at(0), addr(X2), first), None, "nobody sent to X2");
    }
}

#[test]
fn the_two_forms_of_filtering_are_one_where_mapping_is_independent() {
    let mut nats = [NatSpec::port_restricted(), NatSpec::port_restricted().filtering_per_endpoint()].map(nat);
    let answers = nats.each_mut().map(|nat| {
        let external = out(nat, at(0), addr(IN), addr(X1));
        out(nat, at(0), addr(IN), addr(Y1));
        [X1, X2, Y1].map(|from| nat.inbound(at(0), addr(from), external).is_some())
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn sequential_ports_are_a_step_apart_whichever_host_asks() {
    for delta in [1, 2, -1, 10] {
        let mut nat = nat(NatSpec::dependent(PortAssignment::Sequential { delta }));
        let mut ports = spread(&mut nat, at(0), IN, 5);
        ports.extend(spread(&mut nat, at(1), "192.168.1.3:7000", 5));
        for pair in ports.windows(2) {
            let step = i32::from(pair[1].port()) - i32::from(pair[0].port());
            assert!(step == i32::from(delta) || step.abs() > 60_000, "{ports:?}");
        }
    }
}

#[test]
fn a_counter_goes_round_within_the_dynamic_ports() {
    let mut nat = nat(NatSpec::dependent(PortAssignment::Sequential { delta: 32_000 }));
    let ports = spread(&mut nat, at(0), IN, 100);
    assert!(ports.iter().all(|p| p.port() >= PORT_FIRST));
    assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
}

#[test]
fn other_hosts_move_the_counter_at_their_rate() {
    let mut nat = nat(NatSpec::dependent(PortAssignment::Sequential { delta: 1 }).background(20));
    let ports: Vec<u16> = (0..100)
        .map(|n| out(&mut nat, at(n), addr(IN), SocketAddr::from(([20, 1, 0, n as u8], 9))))
        .map(|e| e.port())
        .collect();
    let moved: u32 =
        ports.windows(2).map(|w| u32::from(w[1].wrapping_sub(w[0])) % PORTS).filter(|step| *step < 1_000).sum();
    // 99 steps of its own and about 1 980 of others, give or take five standard deviations.
    assert!((99 + 1_760..99 + 2_200).contains(&moved), "{moved}");
}

#[test]
fn random_ports_are_anywhere_and_in_no_order() {
    let mut nat = nat(NatSpec::fully_dependent());
    let ports: Vec<u16> = spread(&mut nat, at(0), IN, 200).iter().map(SocketAddr::port).collect();
    assert!(ports.iter().any(|p| *p < 20_000) && ports.iter().any(|p| *p > 50_000));
    let ups = ports.windows(2).filter(|w| w[1] > w[0]).count();
    assert!((60..140).contains(&ups), "{ups} of 199");
}

#[test]
fn a_subscriber_has_one_block_and_no_other_has_it() {
    for width in [64, 256, 1_024, 2_048] {
        let mut nat = nat(NatSpec::dependent(PortAssignment::Block { width }));
        let blocks: Vec<u16> = (2..12)
            .map(|host| {
                let ports = spread(&mut nat, at(0), &format!("100.64.0.{host}:7000"), 50);
                let block = |e: &SocketAddr| (e.port() - PORT_FIRST) / width;
                assert!(ports.iter().all(|e| block(e) == block(&ports[0])), "{ports:?}");
                block(&ports[0])
            })
            .collect();
        assert_eq!(blocks.iter().collect::<std::collections::BTreeSet<_>>().len(), 10, "{blocks:?}");
    }
}

#[test]
fn a_full_block_lets_nothing_new_out_until_a_binding_ends() {
    let spec = NatSpec::dependent(PortAssignment::Block { width: 64 }).binding_timeout(Duration::from_secs(30));
    let mut nat = nat(spec);
    assert_eq!(spread(&mut nat, at(0), IN, 64).len(), 64);
    assert_eq!(nat.outbound(at(1), addr(IN), addr(X1)), None);
    assert!(nat.outbound(at(1), addr("192.168.1.3:7000"), addr(X1)).is_some(), "another subscriber, another block");
    assert_eq!(nat.exhausted, 1);
    assert!(nat.outbound(at(30), addr(IN), addr(X1)).is_some());
}

#[test]
fn rfc_4787_req_2_paired_pooling_gives_a_host_one_address_and_arbitrary_does_not() {
    let pool: Vec<IpAddr> = (1..=4).map(|n| IpAddr::from([60, 0, 0, n])).collect();
    for (pooling, one) in [(Pooling::Paired, true), (Pooling::Arbitrary, false)] {
        let spec = NatSpec::fully_dependent().pool(4, pooling);
        let mut nat = Nat::with_pool(spec, pool.clone(), Dice::new(1, "nat test"));
        let addresses =
            |ends: Vec<SocketAddr>| ends.iter().map(SocketAddr::ip).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(addresses(spread(&mut nat, at(0), IN, 50)).len() == 1, one);
        let hosts: Vec<SocketAddr> =
            (1..=50).map(|n| out(&mut nat, at(0), SocketAddr::from(([192, 168, 2, n], 7)), addr(X1))).collect();
        assert_eq!(addresses(hosts).len(), 4, "hosts are spread over all");
    }
}

#[test]
fn an_independent_mapping_has_one_address_however_they_are_pooled() {
    let pool: Vec<IpAddr> = (1..=4).map(|n| IpAddr::from([60, 0, 0, n])).collect();
    let spec = NatSpec::port_restricted().pool(4, Pooling::Arbitrary);
    let mut nat = Nat::with_pool(spec, pool, Dice::new(1, "nat test"));
    let ends = spread(&mut nat, at(0), IN, 50);
    assert!(ends.iter().all(|e| *e == ends[0]));
}

#[test]
fn where_udp_is_blocked_nothing_leaves_or_comes() {
    let mut nat = nat(NatSpec::udp_blocked());
    assert_eq!(nat.outbound(at(0), addr(IN), addr(X1)), None);
    assert_eq!(nat.inbound(at(0), addr(X1), addr("60.0.0.1:7000")), None);
    assert_eq!((nat.refused, nat.bindings(at(0))), (2, 0));
}

#[test]
fn a_reboot_forgets_blocks_and_counters_too() {
    for ports in [PortAssignment::Block { width: 64 }, PortAssignment::Sequential { delta: 1 }] {
        let mut nat = nat(NatSpec::dependent(ports));
        let before = spread(&mut nat, at(0), IN, 1)[0];
        nat.reboot(None);
        let after = spread(&mut nat, at(0), IN, 1)[0];
        assert!(after.port().abs_diff(before.port()) > 1, "{before} {after}");
        assert_eq!(after.ip(), before.ip());
    }
}

#[test]
fn a_port_whose_binding_ran_out_is_free_at_that_moment() {
    let mut nat = nat(NatSpec::port_restricted().binding_timeout(Duration::from_millis(1_500)));
    let external = out(&mut nat, at(0), addr(IN), addr(X1));
    let other = addr("192.168.1.3:7000");
    let later = at(1) + Duration::from_millis(500);
    out(&mut nat, at(1), addr("192.168.1.9:1"), addr(X1));
    assert_eq!(out(&mut nat, later, other, addr(X1)), external, "its sweep is not due, its time-out is");
    assert_eq!(nat.inbound(later, addr(X1), external), Some(other));
}
