//! Networks that let no UDP out: links go over TCP to supernodes, and come back. Names carry the row of the threat
//! table.

use core::time::Duration;

use handfast_core::{Event, Instant, PathInfo, SocketId, Transport};
use handfast_tests::{HostId, NatSpec, Place, RouterId, World, ms, secs};

fn blocked() -> NatSpec {
    NatSpec::udp_blocked()
}

/// Lets UDP through a router, or stops it.
fn set_blocked(w: &mut World, router: RouterId, blocked: bool) {
    let router = &mut w.wire.routers[router.0];
    router.nat.spec.blocks_udp = blocked;
    router.firewall.spec.blocks_udp = blocked;
}

/// Three supernodes, a leaf behind a router that stops UDP, and one behind a usual one, both at home.
fn blocked_and_normal(seed: u64) -> (World, HostId, HostId) {
    World::pair(seed, blocked(), NatSpec::port_restricted())
}

fn transports(w: &World, leaf: HostId) -> Vec<Transport> {
    w.status(leaf).peers.iter().filter(|p| p.control).map(|p| p.transport).collect()
}

fn is_all(w: &World, leaf: HostId, transport: Transport) -> bool {
    let all = transports(w, leaf);
    !all.is_empty() && all.iter().all(|t| *t == transport)
}

fn syns(w: &World, host: HostId) -> u64 {
    w.tcp.syns.get(&host).copied().unwrap_or(0)
}

#[test]
fn f5_a_leaf_falls_back_by_itself_within_five_seconds() {
    for seed in 0..10 {
        let mut w = World::new(seed);
        w.add_supernodes(5);
        let router = w.add_router(blocked());
        w.run_for(secs(2));
        let leaf = w.add_leaf(Place::Behind(router));
        let took = w.until("ready", secs(5), |w| w.is_ready(leaf));
        eprintln!("seed {seed}: ready after {took:?}");
        w.until("two homes", secs(5), |w| w.has_homes(leaf, 2));
        assert_eq!(w.status(leaf).udp_works, Some(false));
        assert!(is_all(&w, leaf, Transport::Tcp));
        assert!(w.status(leaf).observed.is_empty(), "the source of a connection is no candidate");
    }
}

#[test]
fn where_udp_works_nobody_dials_tcp() {
    let (mut w, a, b) = World::pair(1, NatSpec::port_restricted(), NatSpec::fully_dependent());
    let t = w.transfer(a, b, 100_000, 100_000);
    w.finish("a transfer", secs(30), &[t]);
    w.run_for(secs(600));
    assert_eq!((syns(&w, a), syns(&w, b)), (0, 0));
    assert_eq!(w.status(a).udp_works, Some(true));
}

#[test]
fn a_blocked_leaf_and_a_normal_one_talk_through_a_relay() {
    let (mut w, a, b) = blocked_and_normal(2);
    let up = w.transfer(a, b, 300_000, 100);
    w.finish("towards the normal one", secs(30), &[up]);
    let down = w.transfer(a, b, 100, 300_000);
    w.finish("and back", secs(30), &[down]);
    assert!(w.is_relayed(a, b));
    let called = w.transfer(b, a, 1_000, 1_000);
    w.finish("called by it", secs(10), &[called]);
}

#[test]
fn two_blocked_leaves_talk_and_a_stranger_is_reached_by_ticket() {
    let (mut w, a, b) = World::pair(3, blocked(), blocked());
    let t = w.transfer(a, b, 100_000, 100_000);
    w.finish("a transfer", secs(30), &[t]);
    assert!(w.is_relayed(a, b));

    // A new leaf that knows no supernode but those in the ticket.
    let router = w.add_router(blocked());
    let c = w.add_leaf_down(Place::Behind(router), |_| {});
    w.hosts[c.0].known.clear();
    w.start(c);
    let ticket = w.ticket(a);
    w.with(c, |node, now| node.learn(now, &ticket)).expect("learnt");
    let t = w.transfer(c, a, 1_000, 1_000);
    w.finish("a transfer to a peer by ticket", secs(8), &[t]);
}

#[test]
fn a_blocked_leaf_sends_no_checks_beyond_its_lan() {
    let (mut w, a, b) = blocked_and_normal(4);
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("a transfer", secs(10), &[t]);
    w.run_for(secs(2));
    let victim = w.ip(b);
    let outside = w.wire.routers[w.router_of(b).0].nat.external();
    w.capture(a);
    let t = w.transfer(b, a, 1_000, 1_000);
    w.finish("another", secs(10), &[t]);
    w.run_for(secs(60));
    let sent = w.captured(a).iter().filter(|s| s.outbound && (s.remote.ip() == outside)).count();
    assert_eq!(sent, 0, "no check has a chance");
    let why = |w: &World, x: HostId, y: HostId| {
        let other = w.peer(y);
        w.status(x).peers.iter().find(|p| p.peer == other).expect("linked").why
    };
    assert_eq!(why(&w, a, b), Some(handfast_core::RelayReason::UdpBlocked));
    assert_eq!(why(&w, b, a), Some(handfast_core::RelayReason::UdpBlocked), "told by its peer");
    let lan = w.captured(a).iter().filter(|s| s.outbound && s.remote.ip() == victim).count();
    assert!(lan <= 10 * 4, "{lan} checks to an address that might be on the same LAN");
}

#[test]
fn two_blocked_leaves_on_one_lan_are_direct() {
    let mut w = World::new(5);
    w.add_supernodes(3);
    let router = w.add_router(blocked());
    let (a, b) = (w.add_leaf(Place::Behind(router)), w.add_leaf(Place::Behind(router)));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("a transfer", secs(10), &[t]);
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    assert_eq!(w.status(a).udp_works, Some(false), "a neighbour says nothing of the way out");
}

#[test]
fn udp_that_works_again_is_returned_to() {
    let (mut w, a, b) = blocked_and_normal(6);
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("a transfer", secs(10), &[t]);
    let router = w.router_of(a);
    set_blocked(&mut w, router, false);
    let took = w.until("homes over UDP", secs(61), |w| is_all(w, a, Transport::Udp));
    eprintln!("back on UDP after {took:?}");
    assert_eq!(w.status(a).udp_works, Some(true));
    assert_eq!(w.status(a).homes.len(), 2, "the homes are the same links");
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    w.until("connections have ended", secs(100), |w| w.tcp.sockets_of(a).is_empty());
    assert!(w.is_ready(a) && w.has_homes(a, 2));
    assert!(!w.events_since(a, Instant::ZERO).any(|e| matches!(e, Event::Homeless | Event::PeerGone { .. })));
}

#[test]
fn another_network_is_tried_at_once() {
    let (mut w, a, _) = blocked_and_normal(7);
    w.run_for(secs(300));
    let router = w.add_router(NatSpec::port_restricted());
    w.move_host(a, Place::Behind(router));
    w.tell_network(a);
    let took = w.until("homes over UDP", secs(5), |w| is_all(w, a, Transport::Udp));
    assert!(took < secs(1), "{took:?}");
}

#[test]
fn from_one_blocked_network_to_another() {
    let (mut w, a, b) = blocked_and_normal(8);
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("a transfer", secs(10), &[t]);
    let router = w.add_router(blocked());
    w.move_host(a, Place::Behind(router));
    w.tell_network(a);
    let t = w.transfer(b, a, 1_000, 1_000);
    let took = w.finish("a transfer", secs(15), &[t]);
    eprintln!("called in another blocked network after {took:?}");
}

#[test]
fn f5_udp_that_stops_during_a_transfer() {
    for seed in 0..5 {
        let (mut w, a, b) = World::pair(seed, NatSpec::port_restricted(), NatSpec::port_restricted());
        let t = w.transfer(a, b, 3_000_000, 0);
        w.until("under way and direct", secs(30), |w| {
            w.is_direct(a, b) && w.server(t).is_some_and(|s| s.in_pos > 300_000)
        });
        assert!(!w.is_done(t));
        let router = w.router_of(a);
        set_blocked(&mut w, router, true);
        w.run_for(ms(200));
        let at = w.server(t).expect("under way").in_pos;
        let took = w.until("the next byte", secs(20), |w| w.server(t).expect("under way").in_pos > at);
        eprintln!("seed {seed}: the next byte after {took:?}");
        assert!(took < secs(8), "{took:?}");
        assert!(w.is_relayed(a, b));
        w.until("all homes over TCP", secs(10), |w| is_all(w, a, Transport::Tcp));
        w.finish("the transfer", secs(120), &[t]);
    }
}

#[test]
fn udp_that_stops_while_idle_costs_no_home() {
    let mut w = World::new(9);
    w.add_supernodes(3);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a]);
    w.run_for(secs(60));
    let router = w.router_of(a);
    let homes = w.status(a).homes;
    set_blocked(&mut w, router, true);
    // It is noticed when a home is asked for a proof of life, at the latest.
    let took = w.until("all homes over TCP", secs(310), |w| is_all(w, a, Transport::Tcp));
    eprintln!("on TCP after {took:?}");
    assert_eq!(w.status(a).homes, homes);
    let b = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[b]);
    let t = w.transfer(b, a, 1_000, 1_000);
    w.finish("a call", secs(5), &[t]);
}

#[test]
fn on_tcp_an_idle_leaf_sends_next_to_nothing() {
    let (mut w, a, _) = blocked_and_normal(10);
    w.run_for(secs(900));
    let before = w.tcp.packets[&a];
    w.run_for(secs(600));
    let packets = w.tcp.packets[&a] - before;
    // Two homes, each asked once a minute whether it is there; a Challenge over UDP in five minutes is not TCP's.
    assert!(packets <= 2 * 11 + 8, "{packets} packets in ten minutes");
    assert_eq!(w.tcp.sockets_of(a).len(), 2, "one connection for each home");
    assert!(w.has_homes(a, 2));
}

#[test]
fn a_connection_that_breaks_is_opened_again() {
    let (mut w, a, b) = blocked_and_normal(11);
    let t = w.transfer(a, b, 1_500_000, 0);
    w.until("under way", secs(30), |w| w.server(t).is_some_and(|s| s.in_pos > 200_000));
    w.run_for(secs(5));
    let now = w.now();
    w.tcp.break_all(now, a);
    w.run_for(ms(100));
    let at = w.server(t).expect("under way").in_pos;
    let took = w.until("the next byte", secs(20), |w| w.server(t).expect("under way").in_pos > at);
    eprintln!("the next byte after {took:?}");
    assert!(took < secs(3), "{took:?}");
    w.finish("the transfer", secs(120), &[t]);
    assert!(!w.events_since(a, now).any(|e| matches!(e, Event::Homeless | Event::PeerGone { .. })));
}

#[test]
fn a_router_that_gets_another_address_breaks_connections_and_they_come_back() {
    let (mut w, a, b) = blocked_and_normal(12);
    w.run_for(secs(20));
    let router = w.router_of(a);
    w.renumber(router);
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("a transfer", secs(8), &[t]);
    w.until("two homes", secs(70), |w| w.has_homes(a, 2));
}

#[test]
fn b4_a_home_that_dies_is_replaced_over_tcp() {
    let mut w = World::new(13);
    w.add_supernodes(5);
    let a = w.add_leaf_behind(blocked());
    w.settle_homes(&[a]);
    let dead = w.host_of(w.status(a).homes[0].0);
    w.crash(dead);
    let gone = w.peer(dead);
    let took = w.until("another home", secs(30), |w| {
        let homes = w.status(a).homes;
        homes.len() == 2 && homes.iter().all(|(peer, _)| *peer != gone)
    });
    eprintln!("another home after {took:?}");
    assert!(is_all(&w, a, Transport::Tcp));
}

#[test]
fn a_supernode_that_restarts_is_found_again() {
    let mut w = World::new(14);
    w.add_supernodes(1);
    let a = w.add_leaf_behind(blocked());
    w.settle_homes(&[a]);
    w.run_for(secs(20));
    let only = w.supernodes[0];
    w.crash(only);
    w.run_for(secs(3));
    w.start(only);
    w.until("at home again", secs(30), |w| w.is_ready(a) && w.has_homes(a, 1));
    assert!(is_all(&w, a, Transport::Tcp));
}

#[test]
fn port_443_where_nothing_else_gets_out() {
    for seed in 0..5 {
        let mut w = World::new(seed);
        let supernodes = w.add_supernodes(3);
        w.tcp.at_443.extend(supernodes);
        let router = w.add_router(blocked());
        w.tcp.only_443.insert(router);
        w.run_for(secs(2));
        let leaf = w.add_leaf(Place::Behind(router));
        let took = w.until("ready", secs(5), |w| w.is_ready(leaf));
        eprintln!("seed {seed}: ready after {took:?}");
        w.until("two homes", secs(10), |w| w.has_homes(leaf, 2));
    }
}

#[test]
fn supernodes_that_take_no_tcp_are_passed_over() {
    let mut w = World::new(15);
    let supernodes = w.add_supernodes(4);
    w.tcp.refusing.extend(supernodes[..3].iter().copied());
    let router = w.add_router(blocked());
    let leaf = w.add_leaf_down(Place::Behind(router), |_| {});
    w.hosts[leaf.0].known = supernodes.iter().map(|s| w.contact(*s)).collect();
    w.start(leaf);
    let took = w.until("ready", secs(30), |w| w.is_ready(leaf));
    eprintln!("ready after {took:?}");
    assert_eq!(w.host_of(w.status(leaf).homes[0].0), supernodes[3]);
}

#[test]
fn with_nobody_to_talk_to_a_leaf_dials_ever_more_seldom() {
    let mut w = World::new(16);
    let supernodes = w.add_supernodes(3);
    let leaf = w.add_leaf_behind(blocked());
    w.settle_homes(&[leaf]);
    for s in supernodes {
        w.crash(s);
    }
    w.run_for(secs(1_800));
    let before = syns(&w, leaf);
    w.run_for(secs(3_600));
    let dials = syns(&w, leaf) - before;
    // Sweeps of two supernodes about every 150 s, at two ports each.
    assert!(dials <= 3_600 / 75 * 4, "{dials} dials in an hour");
}

// ---- the accepting side ----

/// A connection to a supernode that a stranger opened, by its number.
fn strange(w: &mut World, to: HostId, n: u32, from: [u8; 4]) -> SocketId {
    let socket = SocketId(SocketId::TCP_FIRST.0 + 1_000_000 + n);
    w.with(to, |node, now| node.handle_connection(now, socket, (from, 4_000).into()));
    socket
}

fn closed(w: &World, host: HostId, socket: SocketId) -> bool {
    w.events_since(host, Instant::ZERO).any(|e| *e == Event::CloseSocket(socket))
}

#[test]
fn a6_a_connection_without_a_handshake_ends_after_ten_seconds() {
    let mut w = World::new(17);
    let s = w.add_supernode();
    let socket = strange(&mut w, s, 0, [90, 0, 0, 1]);
    // Junk in whole frames keeps nobody alive.
    for _ in 0..90 {
        w.with(s, |node, now| {
            let path = handfast_core::Path { socket, remote: ([90, 0, 0, 1], 4_000).into(), local: None };
            let _ = node.handle_datagrams(now, path, 40, &mut [4; 40]);
        });
        w.run_for(ms(100));
    }
    assert!(!closed(&w, s, socket));
    w.run_for(secs(2));
    assert!(closed(&w, s, socket));
}

#[test]
fn a6_a_flood_of_connections_does_not_cost_a_leaf_its_own() {
    let mut w = World::new(18);
    let s = w.add_supernodes(3)[0];
    let leaf = w.add_leaf_behind(blocked());
    w.settle_homes(&[leaf]);
    for n in 0..5_000u32 {
        strange(&mut w, s, n, [91, (n >> 8) as u8, n as u8, 1]);
        if n % 100 == 0 {
            w.run_for(ms(50));
        }
    }
    w.run_for(secs(60));
    assert!(w.has_homes(leaf, 2));
    assert!(is_all(&w, leaf, Transport::Tcp));
    let refused = w.status(s).counters.refused_connections;
    assert!(refused >= 5_000 - 512, "{refused}");
    let open = (0..5_000).filter(|n| {
        let socket = SocketId(SocketId::TCP_FIRST.0 + 1_000_000 + n);
        !closed(&w, s, socket)
    });
    assert_eq!(open.count(), 0, "all have ended");
}

#[test]
fn a_leaf_takes_no_connections() {
    let mut w = World::new(19);
    w.add_supernodes(1);
    let leaf = w.add_leaf(Place::Public);
    let socket = strange(&mut w, leaf, 0, [90, 0, 0, 1]);
    assert!(closed(&w, leaf, socket));
}

#[test]
fn d5_a_copy_over_tcp_moves_nobody_off_udp() {
    let mut w = World::new(20);
    w.add_supernodes(1);
    let s = w.supernodes[0];
    let leaf = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[leaf]);
    w.capture(s);
    w.cut_one_way(leaf, s);
    w.capture(leaf);
    // The newest packet of the leaf reaches the supernode over somebody else's connection only.
    let peer = w.peer(s);
    let _ = w.with(leaf, |node, now| node.ping(now, peer));
    let newest = w.captured(leaf).iter().rev().find(|p| p.outbound).expect("it sends").bytes.clone();
    let socket = strange(&mut w, s, 0, [90, 0, 0, 1]);
    w.with(s, |node, now| {
        let path = handfast_core::Path { socket, remote: ([90, 0, 0, 1], 4_000).into(), local: None };
        let mut bytes = newest;
        let len = bytes.len();
        let _ = node.handle_datagrams(now, path, len, &mut bytes);
    });
    let id = w.peer(leaf);
    let status = w.status(s).peers.into_iter().find(|p| p.peer == id).expect("linked");
    assert_eq!(status.transport, Transport::Udp);
    assert!(matches!(status.path, PathInfo::Direct { .. }));
    w.calm();
    w.run_for(secs(12));
    assert!(closed(&w, s, socket), "it proved nothing");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let (mut w, a, b) = blocked_and_normal(seed);
        let t = w.transfer(a, b, 100_000, 100_000);
        w.finish("a transfer", secs(30), &[t]);
        let router = w.router_of(a);
        set_blocked(&mut w, router, false);
        w.run_for(Duration::from_secs(60));
        w.trace.hash()
    };
    assert_eq!(run(21), run(21));
}
