//! The LAN: nodes on it that io has told of each other, with and without an internet beside it.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use handfast_core::{
    Access, Config, ConnectError, Event, Instant, LanNode, Network, Node, PeerId, Saved, SecretKey, SocketId, StreamEnd,
};
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

// ---- one node, whom nobody answers ----

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn announced(peer: PeerId, addresses: &[&str], is_supernode: bool) -> LanNode {
    LanNode { peer, addresses: addresses.iter().map(|text| addr(text)).collect(), is_supernode }
}

fn alone(config: Config) -> Node {
    let (key, origin) = (SecretKey::from_bytes(&[1; 32]), std::time::Instant::now());
    let mut node = Node::new(at(0), origin, [7; 32], key, config, Saved::default()).expect("a good configuration");
    let network = Network {
        sockets: vec![(SocketId(0), addr("0.0.0.0:7000"))],
        interfaces: vec![addr("192.168.1.2:0").ip()],
        ..Network::default()
    };
    node.handle_network(at(0), &network);
    node
}

/// Runs a node that nobody answers, and says where it sends packets, how many each.
fn run(node: &mut Node, from: u64, until: u64) -> BTreeMap<SocketAddr, usize> {
    let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut now = at(from);
    let mut buf = [0; 2_000];
    loop {
        while let Some(transmit) = node.poll_transmit(now, 1, &mut buf) {
            *sent.entry(transmit.path.remote).or_default() += 1;
        }
        match node.poll_timeout() {
            Some(next) if next < at(until) => {
                now = now.max(next);
                node.handle_timeout(now);
            }
            _ => return sent,
        }
    }
}

fn errors(node: &mut Node) -> Vec<ConnectError> {
    let events = std::iter::from_fn(|| node.poll_event());
    events.filter_map(|e| if let Event::ConnectFailed { error, .. } = e { Some(error) } else { None }).collect()
}

#[test]
fn nothing_is_sent_to_a_lan_node_that_nobody_wants() {
    let mut node = alone(Config::leaf());
    node.handle_lan_node(at(0), &announced(id(2), &["192.168.1.9:7"], false));
    assert!(run(&mut node, 0, 60_000).is_empty());
}

#[test]
fn d1_a_lan_node_that_does_not_answer_gets_few_packets() {
    let mut node = alone(Config::leaf());
    let victim = ["192.168.1.9:7", "192.0.2.1:53", "192.0.2.2:53"];
    node.handle_lan_node(at(0), &announced(id(2), &victim, false));
    for n in 0..10 {
        node.connect(at(n * 5_000), id(2)).expect("taken");
        node.handle_lan_node(at(n * 5_000), &announced(id(2), &victim, false));
        let sent = run(&mut node, n * 5_000, (n + 1) * 5_000);
        assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
    }
    let mut node = alone(Config::leaf());
    node.handle_lan_node(at(0), &announced(id(2), &victim, false));
    node.connect(at(0), id(2)).expect("taken");
    let sent = run(&mut node, 0, 30_000);
    assert_eq!(sent.len(), 3, "all are tried: {sent:?}");
    assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
    assert_eq!(errors(&mut node), [ConnectError::Unreachable]);
}

#[test]
fn who_listens_on_the_lan_waits_for_them_a_moment() {
    let mut deaf = alone(Config::leaf());
    deaf.connect(at(0), id(2)).expect("taken");
    assert_eq!(errors(&mut deaf), [ConnectError::NoSupernode], "at once");

    let mut node = alone(Config { lan: true, ..Config::leaf() });
    node.connect(at(0), id(2)).expect("taken");
    assert!(run(&mut node, 0, 1_500).is_empty());
    assert!(errors(&mut node).is_empty(), "it may still be heard of");
    node.handle_lan_node(at(1_500), &announced(id(2), &["192.168.1.9:7"], false));
    let sent = run(&mut node, 1_500, 60_000);
    assert!(sent.contains_key(&addr("192.168.1.9:7")), "{sent:?}");
    assert_eq!(errors(&mut node), [ConnectError::Unreachable]);
    node.connect(at(60_000), id(3)).expect("taken");
    run(&mut node, 60_000, 70_000);
    assert_eq!(errors(&mut node), [ConnectError::NoSupernode], "never heard of");
}

#[test]
fn a_homeless_leaf_tries_a_few_supernodes_of_the_lan() {
    let mut node = alone(Config::leaf());
    for n in 2..12 {
        node.handle_lan_node(at(0), &announced(id(n), &[&format!("192.168.1.{n}0:7")], true));
    }
    let sent = run(&mut node, 0, 60_000);
    assert!((1..=8).contains(&sent.len()), "{sent:?}");
}
