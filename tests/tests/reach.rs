//! What nodes find out about the routers that they are behind, and what they make of it: each behaviour is told right,
//! whoever is wrong is outvoted, a node that the internet can reach begins to serve and ceases when it cannot.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use handfast_core::api::Reachability;
use handfast_core::wire::nat::{FilteringBehavior, MappingBehavior, PortAssignment as Ports};
use handfast_core::{Config, Event, Role, Save};
use handfast_tests::topology::{ACCESS, SUPERNODE_PORT};
use handfast_tests::wire::{INTERNET, Port};
use handfast_tests::{Behavior, HostId, NatSpec, Place, Pooling, PortAssignment, World, kinds, secs};

/// Homes, a dial-back of two tries, and an examination.
const EXAMINED: Duration = secs(40);
/// Three dial-backs of a round trip each, after the links; but some are wasted on supernodes that are dialled
/// meanwhile, and one supernode orders two at once and then one in ten seconds.
const PROMOTED: Duration = secs(30);

fn reachability(w: &World, host: HostId) -> Reachability {
    w.status(host).reachability
}

fn is_serving(w: &World, host: HostId) -> bool {
    matches!(w.status(host).role, Role::Supernode { .. })
}

fn auto(config: &mut Config) {
    config.role = Role::Auto;
}

fn mapping(spec: &NatSpec) -> MappingBehavior {
    match spec.mapping {
        Behavior::EndpointIndependent => MappingBehavior::EndpointIndependent,
        Behavior::AddressDependent => MappingBehavior::AddressDependent,
        Behavior::AddressAndPortDependent => MappingBehavior::AddressAndPortDependent,
    }
}

fn filtering(spec: &NatSpec) -> FilteringBehavior {
    match spec.filtering {
        Behavior::EndpointIndependent => FilteringBehavior::EndpointIndependent,
        Behavior::AddressDependent => FilteringBehavior::AddressDependent,
        Behavior::AddressAndPortDependent => FilteringBehavior::AddressAndPortDependent,
    }
}

/// What the examination must say of ports that are assigned like this, by one address.
fn fits(ports: Ports, spec: &NatSpec) -> bool {
    match (spec.ports, ports) {
        (PortAssignment::Preserving, Ports::Preserving) => true,
        // Only the first mapping of a socket keeps the port where there are many, and two more show nothing.
        (PortAssignment::Preserving, Ports::Random) => spec.mapping == Behavior::AddressAndPortDependent,
        (PortAssignment::Preserving, Ports::Unknown) => spec.mapping == Behavior::AddressDependent,
        (PortAssignment::Random, Ports::Random) => true,
        // Three mappings of random ports do not show that they are random.
        (PortAssignment::Random, Ports::Unknown) => spec.mapping == Behavior::AddressDependent,
        (PortAssignment::Sequential { delta }, Ports::Sequential { step, .. }) => i16::from(step) == delta,
        (PortAssignment::Block { width }, Ports::Block { width: found, .. }) => {
            found >= width / 2 && found <= 4 * width
        }
        _ => false,
    }
}

#[test]
fn every_behaviour_is_told_right() {
    let mut w = World::new(41);
    w.add_supernodes(9);
    let both = |m| Behavior::ALL.map(|f| NatSpec::new(m, f));
    let mut specs: Vec<NatSpec> = Behavior::ALL.into_iter().flat_map(both).collect();
    specs.extend(specs.clone().into_iter().map(|spec| spec.ports(PortAssignment::Random)));
    let of_kind = kinds::all().into_iter().filter(|kind| kind.side.routers.len() == 1 && !kind.side.ipv6);
    specs.extend(of_kind.map(|kind| kind.side.routers[0]).filter(|spec| !spec.blocks_udp));
    let mut leaves: Vec<(NatSpec, HostId)> = Vec::new();
    for spec in specs {
        leaves.push((spec, w.add_leaf_behind(spec)));
        // Supernodes dial so many a second for others, not more.
        w.run_for(secs(2));
    }
    w.run_for(secs(20) + EXAMINED);
    for (spec, leaf) in leaves {
        let found = reachability(&w, leaf);
        assert_eq!(found.translated, Some(true), "{spec:?}");
        assert_eq!(found.mapping, Some(mapping(&spec)), "{spec:?}: {found:?}");
        assert_eq!(found.filtering, Some(filtering(&spec)), "{spec:?}: {found:?}");
        assert!(fits(found.ports, &spec), "{spec:?}: {found:?}");
        assert_eq!(found.udp, Some(true));
        let reachable = Some(spec.filtering == Behavior::EndpointIndependent);
        assert_eq!(found.reachable, reachable, "{spec:?} {:?}", w.status(leaf).observed);
        assert!(found.witnesses >= 3, "{found:?}");
        match (spec.addresses, spec.pooling, spec.mapping) {
            (1, ..) | (_, Pooling::Paired, _) => assert_eq!(found.pooled, Some(false), "{spec:?}"),
            (_, Pooling::Arbitrary, Behavior::EndpointIndependent) => assert!(found.pooled.is_some()),
            (_, Pooling::Arbitrary, _) => assert_eq!(found.pooled, Some(true), "{spec:?}"),
        }
    }
}

#[test]
fn two_routers_in_a_row_are_told_as_what_they_make_together() {
    let mut w = World::new(42);
    w.add_supernodes(6);
    let leaves: Vec<(&str, HostId)> = ["home, CGN EI", "home, CGN block"]
        .into_iter()
        .map(|name| (name, w.add_leaf_on(&kinds::named(name).side)))
        .collect();
    w.run_for(secs(20) + EXAMINED);
    let found = reachability(&w, leaves[0].1);
    assert_eq!(found.mapping, Some(MappingBehavior::EndpointIndependent));
    assert_eq!(found.filtering, Some(FilteringBehavior::AddressAndPortDependent));
    let found = reachability(&w, leaves[1].1);
    assert_eq!(found.mapping, Some(MappingBehavior::AddressAndPortDependent));
    assert!(matches!(found.ports, Ports::Block { .. }), "{found:?}");
}

#[test]
fn hairpinning_is_told_right() {
    let mut w = World::new(43);
    w.add_supernodes(6);
    let spec = NatSpec::port_restricted();
    let (with, without) = (w.add_leaf_behind(spec.hairpinning()), w.add_leaf_behind(spec));
    w.run_for(secs(20) + EXAMINED);
    assert_eq!(reachability(&w, with).hairpinning, Some(true));
    assert_eq!(reachability(&w, without).hairpinning, Some(false));
}

/// Whether anybody gets in is shown by a supernode that nothing was sent to, so there must be one that is known: the
/// supernodes know each other when the leaf comes. In a network that begins with it, that takes up to a minute and a
/// half.
#[test]
fn a_host_without_a_router_is_told_so_and_its_filter_is_looked_at() {
    for seed in 0..10 {
        let mut w = World::new(seed);
        w.add_supernodes(9);
        w.run_for(secs(60));
        let leaf = w.add_leaf(Place::Public);
        w.run_for(secs(20) + EXAMINED);
        let found = reachability(&w, leaf);
        assert_eq!(found.translated, Some(false), "seed {seed}: {found:?}");
        assert_eq!(found.mapping, Some(MappingBehavior::EndpointIndependent), "seed {seed}");
        assert_eq!(found.filtering, Some(FilteringBehavior::EndpointIndependent), "seed {seed}: {found:?}");
        assert_eq!(found.ports, Ports::Preserving, "seed {seed}");
        assert_eq!(w.status(leaf).role, Role::Leaf, "a leaf never serves");
    }
}

/// A leaf that begins together with its network knows no supernode but those that it sent to. It does not take that for
/// an answer: when it hears of another one, it asks.
#[test]
fn the_filter_is_looked_at_when_there_is_somebody_to_ask() {
    let mut late = 0;
    for seed in 0..30 {
        let mut w = World::new(seed);
        w.add_supernodes(9);
        let leaf = w.add_leaf(Place::Public);
        let is_told = |w: &World| reachability(w, leaf).filtering == Some(FilteringBehavior::EndpointIndependent);
        late += usize::from(!w.until_or(secs(20), is_told));
        assert_ne!(reachability(&w, leaf).reachable, Some(false), "seed {seed}: nobody was asked");
        w.until("the filter is known", secs(100), is_told);
    }
    assert!(late > 0, "all knew somebody at once: the test proves nothing");
}

#[test]
fn a_router_that_lets_no_udp_through_is_told_within_five_seconds() {
    let mut w = World::new(45);
    w.add_supernodes(3);
    let leaf = w.add_leaf_behind(NatSpec::udp_blocked());
    w.run_for(secs(5));
    assert_eq!(reachability(&w, leaf).udp, Some(false));
}

/// In the same LAN as the leaf, it sees an address that no other does.
#[test]
fn a_supernode_that_sees_something_else_is_outvoted() {
    let mut w = World::new(46);
    w.add_supernodes(6);
    let router = w.add_router(NatSpec::port_restricted());
    let odd = w.add_leaf_down(Place::Behind(router), |_| {});
    let at = SocketAddr::new(w.ip(odd), w.hosts[odd.0].port);
    w.hosts[odd.0].config.role = Role::Supernode { advertise: vec![at] };
    w.start(odd);
    let leaf = w.add_leaf_down(Place::Behind(router), |_| {});
    let contact = w.contact(odd);
    w.hosts[leaf.0].known.insert(0, contact);
    w.hosts[leaf.0].known.truncate(3);
    w.start(leaf);
    w.run_for(secs(20) + EXAMINED);
    let found = reachability(&w, leaf);
    assert!(w.status(leaf).observed.iter().any(|(by, _)| *by == w.peer(odd)), "it was asked");
    assert_eq!(found.mapping, Some(MappingBehavior::EndpointIndependent), "{found:?}");
    assert_eq!(found.filtering, Some(FilteringBehavior::AddressAndPortDependent), "{found:?}");
    assert_eq!(found.ports, Ports::Preserving);
}

#[test]
fn an_examination_costs_at_most_40_packets_and_does_not_come_again_for_a_day() {
    let mut w = World::new(47);
    w.add_supernodes(6);
    let leaf = w.add_leaf_behind(NatSpec::fully_dependent());
    w.settle_homes(&[leaf]);
    w.run_for(secs(2));
    w.capture(leaf);
    w.run_for(secs(60));
    // Probes are Data of 58 bytes; dial-back requests, registrations and such are others.
    let probes = w.captured(leaf).iter().filter(|s| s.outbound && s.kind() == 4 && s.bytes.len() <= 90).count();
    assert!((10..=40).contains(&probes), "{probes}");
    assert!(reachability(&w, leaf).age.is_some());
    w.run_for(secs(3_600));
    let first = reachability(&w, leaf).age.expect("examined");
    assert!(first > secs(3_500), "{first:?}");
    w.run_for(secs(86_400));
    let next = reachability(&w, leaf).age.expect("examined");
    assert!(next < secs(2 * 3_600), "looked at again after a day: {next:?}");
}

#[test]
fn another_network_is_examined_anew() {
    let mut w = World::new(48);
    w.add_supernodes(6);
    let leaf = w.add_leaf_behind(NatSpec::port_restricted());
    w.run_for(secs(20) + EXAMINED);
    assert_eq!(reachability(&w, leaf).mapping, Some(MappingBehavior::EndpointIndependent));
    let router = w.add_router(NatSpec::fully_dependent());
    w.move_host(leaf, Place::Behind(router));
    w.tell_network(leaf);
    w.run_for(secs(20) + EXAMINED);
    let found = reachability(&w, leaf);
    assert_eq!(found.mapping, Some(MappingBehavior::AddressAndPortDependent), "{found:?}");
    assert_eq!(found.ports, Ports::Random);
}

/// A supernode with an address of each family.
fn add_dual_supernode(w: &mut World, n: u16) -> HostId {
    let host = w.add_leaf_down(Place::Public, |_| {});
    w.hosts[host.0].port = SUPERNODE_PORT;
    let v4 = w.ip(host);
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xaaaa, n, 0, 0, 0, 1));
    w.wire.attach(INTERNET, v6, Port::Host(host), ACCESS);
    w.hosts[host.0].attachments.push(handfast_tests::host::Attachment { lan: INTERNET, ip: v6 });
    let advertise = [v4, v6].map(|ip| SocketAddr::new(ip, SUPERNODE_PORT)).to_vec();
    w.hosts[host.0].config.role = Role::Supernode { advertise };
    w.supernodes.push(host);
    w.start(host);
    host
}

#[test]
fn the_firewall_of_ipv6_is_looked_at() {
    let mut w = World::new(49);
    for n in 0..5 {
        add_dual_supernode(&mut w, n);
    }
    w.run_for(secs(60));
    let router = w.add_router(NatSpec::fully_dependent());
    let (leaf, alone) = (w.add_leaf(Place::DualStack(router)), w.add_leaf_behind(NatSpec::port_restricted()));
    w.run_for(secs(20) + EXAMINED);
    let v6 = reachability(&w, leaf).v6.expect("IPv6 works");
    assert_eq!(v6.filtering, Some(FilteringBehavior::AddressAndPortDependent));
    assert!(w.host(leaf).attachments.iter().any(|a| a.ip == v6.address.ip()), "{v6:?}");
    assert_eq!(reachability(&w, alone).v6, None);
}

// ---- roles ----

/// A world of so many supernodes that know each other, and an auto node on the internet that serves.
fn serving(seed: u64) -> (World, HostId) {
    let mut w = World::new(seed);
    w.add_supernodes(6);
    w.run_for(secs(60));
    let node = w.add_leaf_with(Place::Public, auto);
    w.until("it serves", PROMOTED, |w| is_serving(w, node));
    (w, node)
}

/// Leaves, until one of them is at home there.
fn add_leaves_until_home(w: &mut World, home: HostId) -> Vec<HostId> {
    let mut leaves = Vec::new();
    while !leaves.iter().any(|leaf| is_home_of(w, home, *leaf)) {
        assert!(leaves.len() < 20, "nobody chooses it");
        leaves.push(w.add_leaf_behind(NatSpec::port_restricted()));
        w.settle_homes(&leaves);
    }
    leaves
}

fn is_home_of(w: &World, home: HostId, leaf: HostId) -> bool {
    w.status(leaf).homes.iter().any(|(peer, _)| *peer == w.peer(home))
}

#[test]
fn a_public_node_serves_within_half_a_minute_and_leaves_register_there() {
    let (mut w, node) = serving(50);
    let own = SocketAddr::new(w.ip(node), w.hosts[node.0].port);
    let told = Event::RoleChanged { supernode: true, addresses: vec![own] };
    assert!(w.host(node).events.iter().any(|(_, event)| *event == told));
    assert!(w.status(node).auto);
    w.run_for(secs(5));
    // All others know it, and it them.
    assert_eq!(w.status(node).supernodes.len(), 6);
    for supernode in w.supernodes.clone() {
        assert!(w.status(supernode).supernodes.iter().any(|s| s.peer == w.peer(node)), "{supernode:?}");
        assert_eq!(w.status(supernode).leaves, 0, "it is no leaf any more");
    }
    let leaves = add_leaves_until_home(&mut w, node);
    let leaf = *leaves.last().expect("one at least");
    // It introduces and relays.
    let caller = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[caller]);
    let t = w.transfer(caller, leaf, 1_000, 1_000);
    w.finish("a transfer", secs(10), &[t]);
    w.run_for(secs(3_600));
    assert!(is_serving(&w, node), "and stays");
}

#[test]
fn streams_live_through_both_changes() {
    let mut w = World::new(51);
    w.add_supernodes(6);
    w.run_for(secs(60));
    let node = w.add_leaf_with(Place::Public, auto);
    let peer = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[peer]);
    // Paused, so that it is under way all the time.
    w.hosts[peer.0].app.pause_incoming = true;
    w.until("a home", secs(5), |w| w.has_homes(node, 1) || is_serving(w, node));
    let t = w.transfer(node, peer, 3_000_000, 1_000);
    w.until("it serves", PROMOTED, |w| is_serving(w, node));
    w.run_for(secs(5));
    assert!(!w.is_done(t));
    w.move_host(node, Place::Public);
    w.tell_network(node);
    assert!(!is_serving(&w, node), "it has lost its address");
    w.run_for(secs(5));
    w.resume(peer);
    w.finish("the transfer", secs(60), &[t]);
}

/// Dial-backs may be there before the first home is.
#[test]
fn regression_who_serves_before_it_has_a_home_is_ready() {
    let mut all = 0;
    for seed in 60..70 {
        let (w, node) = serving(seed);
        let told: Vec<&Event> = w.host(node).events.iter().map(|(_, event)| event).collect();
        let ready = told.iter().filter(|e| matches!(e, Event::Ready)).count();
        let homeless = told.iter().filter(|e| matches!(e, Event::Homeless)).count();
        assert_eq!(ready, homeless + 1, "{told:?}");
        all += ready;
    }
    assert!(all >= 10);
}

/// It cannot tell its leaves through their routers, so they notice by themselves: a proof of life is asked for when the
/// last one is 300 s old, and 8 s later the home is given up (PROTOCOL.md, section 10).
#[test]
fn a_node_that_loses_its_address_ceases_and_its_leaves_find_another_home() {
    for seed in 52..58 {
        let (mut w, node) = serving(seed);
        let leaves = add_leaves_until_home(&mut w, node);
        let since = w.now();
        w.move_host(node, Place::Public);
        w.tell_network(node);
        assert!(!is_serving(&w, node));
        let told = w.events_since(node, since).any(|e| matches!(e, Event::RoleChanged { supernode: false, .. }));
        assert!(told);
        w.until("all leaves are at home elsewhere", secs(310), |w| {
            leaves.iter().all(|leaf| w.has_homes(*leaf, 2) && !is_home_of(w, node, *leaf))
        });
        w.until("it is at home itself", secs(60), |w| w.has_homes(node, 2) || is_serving(w, node));
        // It has another address, which is as good: it serves again, but not at once.
        assert!(!is_serving(&w, node) || w.now().since(since) >= secs(120));
        w.until("others have forgotten it", secs(120), |w| {
            w.supernodes.iter().all(|s| {
                let status = w.status(*s);
                is_serving(w, node) || status.supernodes.iter().all(|known| known.peer != w.peer(node))
            })
        });
    }
}

#[test]
fn a_node_that_unasked_packets_reach_no_longer_ceases_within_minutes() {
    let mut w = World::new(53);
    w.add_supernodes(6);
    w.run_for(secs(60));
    let open = NatSpec::new(Behavior::EndpointIndependent, Behavior::EndpointIndependent);
    let router = w.add_router(open);
    let node = w.add_leaf_with(Place::Behind(router), auto);
    w.until("it serves", PROMOTED, |w| is_serving(w, node));
    w.run_for(secs(1_800));
    assert!(is_serving(&w, node), "nothing changed");
    w.wire.routers[router.0].nat.spec.filtering = Behavior::AddressAndPortDependent;
    w.until("it ceases", secs(400), |w| !is_serving(w, node));
    w.run_for(secs(3 * 3_600));
    assert!(!is_serving(&w, node));
    w.wire.routers[router.0].nat.spec.filtering = Behavior::EndpointIndependent;
    w.until("it serves again", secs(2 * 3_600), |w| is_serving(w, node));
}

#[test]
fn no_router_that_filters_is_taken_for_the_internet() {
    let mut w = World::new(54);
    w.add_supernodes(8);
    w.run_for(secs(60));
    let filters = [Behavior::AddressDependent, Behavior::AddressAndPortDependent];
    let both = |m| filters.map(|f| NatSpec::new(m, f));
    let specs: Vec<NatSpec> = Behavior::ALL.into_iter().flat_map(both).collect();
    let nodes: Vec<HostId> = specs
        .into_iter()
        .map(|spec| {
            let router = w.add_router(spec);
            w.add_leaf_with(Place::Behind(router), auto)
        })
        .collect();
    w.settle_homes(&nodes);
    w.run_for(secs(3 * 3_600));
    for node in nodes {
        assert!(!is_serving(&w, node));
        let ever = w.host(node).events.iter().any(|(_, e)| matches!(e, Event::RoleChanged { .. }));
        assert!(!ever);
        assert_eq!(reachability(&w, node).reachable, Some(false));
    }
}

/// By its id alone, as somebody does who called it while it was a leaf.
#[test]
fn who_serves_is_found_by_whoever_calls_it() {
    let (mut w, node) = serving(57);
    let caller = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[caller]);
    let t = w.transfer(caller, node, 1_000, 1_000);
    w.finish("a transfer to a supernode", secs(5), &[t]);
    w.move_host(node, Place::Public);
    w.tell_network(node);
    w.until("at home again", secs(60), |w| w.has_homes(node, 2));
    let another = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[another]);
    let t = w.transfer(another, node, 1_000, 1_000);
    w.finish("a transfer to a leaf", secs(20), &[t]);
}

#[test]
fn in_a_small_network_as_many_witnesses_as_there_are_will_do_but_none_will_not() {
    for (supernodes, serves) in [(2, false), (3, true), (4, true)] {
        let mut w = World::new(55);
        w.add_supernodes(supernodes);
        w.run_for(secs(60));
        let node = w.add_leaf_with(Place::Public, auto);
        assert_eq!(w.until_or(PROMOTED, |w| is_serving(w, node)), serves, "{supernodes}");
    }
}

// ---- caps ----

#[test]
fn a_relay_that_has_used_up_its_month_says_so_to_both_ends_and_looks_full() {
    let mut w = World::new(56);
    for _ in 0..2 {
        w.add_supernode_with(|config| {
            config.relay_total_quota_bytes = 400_000;
            config.relay_rate_bps = 0;
        });
    }
    let spec = NatSpec::fully_dependent();
    let (a, b) = (w.add_leaf_behind(spec), w.add_leaf_behind(spec));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 100_000, 0);
    w.finish("within the quota", secs(30), &[t]);
    assert!(w.is_relayed(a, b));
    let relay = w.supernodes.iter().copied().find(|s| w.status(*s).relayed.bytes > 100_000).expect("one relays");
    let _ = w.transfer(a, b, 2_000_000, 0);
    w.run_for(secs(20));
    for s in w.supernodes.clone() {
        let status = w.status(s);
        // And 32 KiB in which the ends may agree on another relay.
        assert!(status.relayed.bytes <= 400_000 + 32 * 1024, "{:?}", status.relayed);
        if s == relay {
            assert_eq!((status.channels, status.load.relay), (0, 255));
        }
    }
    let kept = w.host(relay).events.iter().any(|(_, e)| matches!(e, Event::Save(Save::Relayed(_))));
    assert!(kept);
    let used = w.status(relay).relayed;
    w.crash(relay);
    w.start(relay);
    let after = w.status(relay).relayed;
    assert!(after.since_s == used.since_s && after.bytes >= used.bytes, "{used:?} {after:?}");
}
