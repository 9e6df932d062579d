//! The LAN: nodes on it that io has told of each other, with and without an internet beside it.

use core::net::SocketAddr;

use handfast_core::{Access, ConnectError, Event, LanNode, Node, StreamEnd};
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

/// Two leaves behind one router, neither of which knows any supernode.
fn island(seed: u64) -> (World, HostId, HostId) {
    let mut w = World::new(seed);
    let router = w.add_router(NatSpec::port_restricted());
    let (a, b) = (w.add_leaf(Place::Behind(router)), w.add_leaf(Place::Behind(router)));
    (w, a, b)
}

/// What `host` announces.
fn announcement(w: &World, host: HostId) -> LanNode {
    let (peer, address) = w.contact(host);
    LanNode { peer, addresses: vec![address], is_supernode: w.supernodes.contains(&host) }
}

/// Tells `to` that `of` is on its LAN.
fn tell(w: &mut World, to: HostId, of: HostId) {
    let announced = announcement(w, of);
    w.with(to, |node, now| node.handle_lan_node(now, &announced));
}

fn failures(w: &World, host: HostId) -> Vec<ConnectError> {
    let events = w.host(host).events.iter();
    events.filter_map(|(_, e)| if let Event::ConnectFailed { error, .. } = e { Some(*error) } else { None }).collect()
}

#[test]
fn two_nodes_on_a_lan_need_no_supernode() {
    let (mut w, a, b) = island(1);
    tell(&mut w, a, b);
    // Only the one who dials has to know.
    let t = w.transfer(a, b, 100_000, 100_000);
    w.finish("a transfer without any supernode", secs(5), &[t]);
    assert!(w.is_direct(a, b));
    // The link serves both.
    let t = w.transfer(b, a, 1_000, 1_000);
    w.finish("and back", secs(5), &[t]);
    assert!(failures(&w, a).is_empty() && failures(&w, b).is_empty());
}

#[test]
fn a_lan_node_may_be_heard_of_while_it_is_called() {
    let mut w = World::new(2);
    let router = w.add_router(NatSpec::port_restricted());
    let [a, b] = [(); 2].map(|()| w.add_leaf_with(Place::Behind(router), |config| config.lan = true));
    let t = w.transfer(a, b, 1_000, 1_000);
    w.run_for(ms(1_200));
    assert!(w.server(t).is_none());
    tell(&mut w, a, b);
    w.finish("a transfer", secs(2), &[t]);
}

#[test]
fn two_that_call_each_other_at_once_get_one_link() {
    let (mut w, a, b) = island(3);
    tell(&mut w, a, b);
    tell(&mut w, b, a);
    let t = [w.transfer(a, b, 10_000, 10_000), w.transfer(b, a, 10_000, 10_000)];
    w.finish("both transfers", secs(5), &t);
    assert!(w.is_direct(a, b));
}

#[test]
fn a_lan_node_lets_in_only_whom_its_services_do() {
    let mut w = World::new(4);
    let router = w.add_router(NatSpec::port_restricted());
    let a = w.add_leaf(Place::Behind(router));
    let b = w.add_leaf_with(Place::Behind(router), |config| config.services.clear());
    tell(&mut w, a, b);
    let t = w.transfer(a, b, 10, 10);
    w.until("it is refused in silence", secs(30), |w| w.client(t).ended.is_some());
    assert_eq!(w.client(t).ended.map(|(_, why)| why), Some(StreamEnd::Connect(ConnectError::Unreachable)));
    assert!(w.status(b).peers.is_empty(), "no link");
    // A contact may ping, though nothing is offered.
    let mut w = World::new(5);
    let router = w.add_router(NatSpec::port_restricted());
    let a = w.add_leaf(Place::Behind(router));
    let friend = w.peer(a);
    let b = w.add_leaf_with(Place::Behind(router), |config| {
        config.services.clear();
        config.contacts = Access::Peers([friend].into());
    });
    tell(&mut w, a, b);
    let peer = w.peer(b);
    w.with(a, |node, now| node.ping(now, peer)).expect("taken");
    w.until("a pong", secs(5), |w| w.host(a).events.iter().any(|(_, e)| matches!(e, Event::Pong { .. })));
}

#[test]
fn with_homes_known_both_ways_are_tried_and_the_lan_wins() {
    let mut w = World::new(6);
    w.add_supernodes(3);
    let router = w.add_router(NatSpec::fully_dependent());
    let (a, b) = (w.add_leaf(Place::Behind(router)), w.add_leaf(Place::Behind(router)));
    w.settle_homes(&[a, b]);
    tell(&mut w, a, b);
    let t = w.transfer(a, b, 100, 100);
    let took = w.finish("a transfer", secs(5), &[t]);
    assert!(took < ms(40), "less than one round trip to a home: {took:?}");
    assert!(w.is_direct(a, b));
}

#[test]
fn d1_a_false_announcement_costs_its_victim_a_few_packets_and_the_call_nothing() {
    let mut w = World::new(7);
    w.add_supernodes(3);
    let (a, b) = (w.add_leaf_behind(NatSpec::port_restricted()), w.add_leaf_behind(NatSpec::port_restricted()));
    let victim = w.add_bystander();
    w.settle_homes(&[a, b]);
    let peer = w.peer(b);
    let address = SocketAddr::new(w.ip(victim), 53);
    let lie = LanNode { peer, addresses: vec![address], is_supernode: true };
    w.with(a, |node, now| node.handle_lan_node(now, &lie));
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("the transfer, by its homes", secs(5), &[t]);
    for _ in 0..20 {
        w.with(a, |node, now| node.handle_lan_node(now, &lie));
        w.run_for(secs(1));
    }
    let packets = w.captured(victim).len();
    assert!((1..=10).contains(&packets), "{packets} packets");
}

#[test]
fn a_homeless_leaf_finds_a_home_on_its_lan() {
    let mut w = World::new(8);
    let a = w.add_leaf(Place::Public);
    let s = w.add_supernode();
    w.run_for(secs(10));
    assert!(!w.is_ready(a), "it knows nobody");
    tell(&mut w, a, s);
    w.until("at home", secs(10), |w| w.is_ready(a));
    assert_eq!(w.status(a).lan_nodes, [w.contact(s)]);
    let id = w.peer(s);
    w.with(a, |node: &mut Node, now| node.handle_lan_node_gone(now, id));
    assert!(w.status(a).lan_nodes.is_empty());
    w.run_for(secs(60));
    assert!(w.is_ready(a), "what was found stays");
}
