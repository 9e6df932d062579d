//! What a start costs a leaf that was here before.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use handfast_core::wire::nat::{FilteringBehavior, MappingBehavior};
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

/// IPv4 and UDP headers.
const HEADERS: usize = 28;

/// Supernodes, and a leaf that has been behind a router of this kind for an hour, and knows it.
fn settled(seed: u64, spec: NatSpec) -> (World, HostId) {
    let mut w = World::new(seed);
    w.add_supernodes(12);
    w.run_for(secs(60));
    let leaf = w.add_leaf_behind(spec);
    w.settle_homes(&[leaf]);
    w.run_for(secs(3_600));
    (w, leaf)
}

/// Is gone for longer than any router remembers, and starts again.
fn restart(w: &mut World, leaf: HostId) {
    w.crash(leaf);
    w.run_for(secs(600));
    w.hosts[leaf.0].capture = Some(Vec::new());
    w.start(leaf);
    w.settle_homes(&[leaf]);
}

/// Bytes of UDP that the leaf sent and got since it was started last, and packets; of those with its homes, or of all.
fn seen(w: &World, leaf: HostId, of_homes: bool) -> (usize, usize) {
    let homes: BTreeSet<SocketAddr> = w.status(leaf).homes.iter().map(|(_, address)| *address).collect();
    let all = w.host(leaf).capture.iter().flatten();
    let of = all.filter(|seen| !of_homes || homes.contains(&seen.remote));
    of.fold((0, 0), |(bytes, packets), seen| (bytes + seen.bytes.len() + HEADERS, packets + 1))
}

#[test]
fn a_leaf_that_starts_again_costs_its_homes_1500_bytes_and_12_packets() {
    for seed in 1..=5 {
        let (mut w, leaf) = settled(seed, NatSpec::port_restricted());
        let homes = w.status(leaf).homes;
        restart(&mut w, leaf);
        w.run_for(secs(60));
        assert_eq!(w.status(leaf).homes.len(), 2);
        assert!(w.status(leaf).homes.iter().all(|home| homes.contains(home)), "they are those of the last run");
        let (bytes, packets) = seen(&w, leaf, true);
        eprintln!("{bytes} bytes and {packets} packets at both homes; in all {:?}", seen(&w, leaf, false));
        assert!(bytes <= 1_500 && packets <= 12, "{bytes} bytes, {packets} packets");
        // With the third supernode that it had kept.
        assert!(seen(&w, leaf, false).0 <= 2_000);
        let router = w.status(leaf).reachability;
        assert_eq!(router.mapping, Some(MappingBehavior::EndpointIndependent), "it knows its router");
        assert_eq!(router.filtering, Some(FilteringBehavior::AddressAndPortDependent));
        assert_eq!(router.age, None, "from the last run");
    }
}

#[test]
fn a_router_is_examined_again_at_the_eighth_start() {
    let (mut w, leaf) = settled(1, NatSpec::port_restricted());
    for start in 1..=8 {
        restart(&mut w, leaf);
        w.run_for(secs(30));
        let router = w.status(leaf).reachability;
        assert_eq!(router.mapping, Some(MappingBehavior::EndpointIndependent), "start {start}");
        assert_eq!(router.age.is_some(), start == 8, "start {start}");
    }
}

#[test]
fn a_router_that_is_another_one_now_is_found_out() {
    let (mut w, leaf) = settled(1, NatSpec::port_restricted());
    w.crash(leaf);
    let router = w.router_of(leaf);
    w.wire.routers[router.0].nat.spec = NatSpec::fully_dependent();
    w.run_for(secs(600));
    w.start(leaf);
    w.settle_homes(&[leaf]);
    w.run_for(secs(60));
    let router = w.status(leaf).reachability;
    assert_ne!(router.mapping, Some(MappingBehavior::EndpointIndependent), "{router:?}");
}

#[test]
fn in_another_network_the_router_is_examined() {
    let (mut w, leaf) = settled(1, NatSpec::port_restricted());
    w.crash(leaf);
    let elsewhere = w.add_router(NatSpec::port_restricted());
    w.move_host(leaf, Place::Behind(elsewhere));
    w.run_for(secs(600));
    w.start(leaf);
    w.settle_homes(&[leaf]);
    w.run_for(secs(30) + ms(1));
    assert!(w.status(leaf).reachability.age.is_some());
}
