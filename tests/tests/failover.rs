//! What dies, moves or restarts, and how soon the others go on. Names carry the row of the threat table.

use core::time::Duration;

use handfast_core::{Event, Node, PathInfo, StreamEnd};
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

/// A transfer long enough to be under way when something happens, on a wire where a window is in flight.
const LONG: u64 = 4_000_000;

fn direct_pair(seed: u64) -> (World, HostId, HostId) {
    let (mut w, a, b) = World::pair(seed, NatSpec::port_restricted(), NatSpec::port_restricted());
    let t = w.transfer(a, b, 100, 100);
    w.finish("a first transfer", secs(10), &[t]);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    (w, a, b)
}

fn relayed_pair(seed: u64) -> (World, HostId, HostId) {
    let (mut w, a, b) = World::pair(seed, NatSpec::fully_dependent(), NatSpec::fully_dependent());
    let t = w.transfer(a, b, 100, 100);
    w.finish("a first transfer", secs(10), &[t]);
    w.run_for(secs(30));
    assert!(w.is_relayed(a, b));
    (w, a, b)
}

fn via(w: &World, a: HostId, b: HostId) -> HostId {
    match w.path(a, b) {
        Some(PathInfo::Relay { via }) => w.host_of(via),
        path => panic!("not relayed but {path:?}"),
    }
}

/// The host of a leaf's first home.
fn home(w: &World, leaf: HostId, n: usize) -> HostId {
    w.host_of(w.status(leaf).homes[n].0)
}

/// Runs until a byte more has arrived at the server of a transfer, and says how long that took.
fn next_byte(w: &mut World, t: handfast_tests::TransferId, limit: Duration) -> Duration {
    let at = w.server(t).expect("under way").in_pos;
    w.until("the next byte", limit, |w| w.server(t).expect("under way").in_pos > at)
}

/// Starts a long transfer and runs until it is well under way.
fn under_way(w: &mut World, a: HostId, b: HostId) -> handfast_tests::TransferId {
    let t = w.transfer(a, b, LONG, 0);
    w.until("a tenth of the transfer", secs(60), |w| w.server(t).is_some_and(|s| s.in_pos > LONG / 10));
    assert!(!w.is_done(t));
    t
}

#[test]
fn e4_a_home_dies_and_the_leaf_stays_reachable() {
    let mut w = World::new(1);
    w.add_supernodes(5);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    let b = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a, b]);
    let dead = home(&w, b, 0);
    w.crash(dead);
    let t = w.transfer(a, b, 100, 100);
    w.finish("a transfer right after", secs(15), &[t]);
    let dead_peer = w.peer(dead);
    let took = w.until("another home in place of the dead one", secs(120), |w| {
        let homes = w.status(b).homes;
        homes.len() == 2 && homes.iter().all(|(peer, _)| *peer != dead_peer)
    });
    assert!(took < secs(90), "{took:?}");
    let c = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[c]);
    let t = w.transfer(c, b, 100, 100);
    w.finish("a stranger finds it", secs(10), &[t]);
}

#[test]
fn e4_who_dials_when_both_homes_are_dead_is_home_again_within_ten_seconds() {
    let mut w = World::new(44);
    w.add_supernodes(8);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a]);
    let homes = [home(&w, a, 0), home(&w, a, 1)];
    // Somebody who is at home elsewhere.
    let mut b = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[b]);
    while (0..2).any(|n| homes.contains(&home(&w, b, n))) {
        b = w.add_leaf_behind(NatSpec::port_restricted());
        w.settle_homes(&[b]);
    }
    w.run_for(secs(300));
    for home in homes {
        w.crash(home);
    }
    let t = w.transfer(a, b, 100, 100);
    w.until("home again", secs(10), |w| w.has_homes(a, 2));
    w.finish("its call", secs(10), &[t]);
}

#[test]
fn e8_direct_sessions_outlive_all_supernodes() {
    let (mut w, a, b) = direct_pair(2);
    // An idle session would sleep, and takes a home to wake.
    let (peer, service) = (w.peer(b), handfast_tests::XFER.parse().expect("a service name"));
    w.with(a, |node, now| node.open(now, peer, &service)).expect("a stream that stays open");
    w.run_for(secs(1));
    for s in w.supernodes.clone() {
        w.crash(s);
    }
    w.run_for(secs(600));
    assert!(w.is_direct(a, b));
    let t = w.transfer(b, a, 50_000, 50_000);
    w.finish("a transfer without any supernode", secs(20), &[t]);
    assert!(!w.events_since(a, handfast_core::Instant::ZERO).any(|e| matches!(e, Event::PeerGone { .. })));
}

#[test]
fn b4_a_relay_dies_and_the_transfer_goes_on() {
    let (mut w, a, b) = relayed_pair(3);
    let t = under_way(&mut w, a, b);
    let relay = via(&w, a, b);
    w.crash(relay);
    // What has passed the relay still arrives: that is no sign of another path.
    w.run_for(ms(100));
    let gap = next_byte(&mut w, t, secs(30));
    assert!(gap < secs(15), "{gap:?}");
    assert_ne!(via(&w, a, b), relay);
    w.finish("the transfer", secs(120), &[t]);
}

#[test]
fn f1_a_router_reboots_and_the_transfer_goes_on() {
    for renumbered in [false, true] {
        let (mut w, a, b) = direct_pair(4);
        let t = under_way(&mut w, a, b);
        let router = w.router_of(b);
        if renumbered {
            w.renumber(router);
        } else {
            w.reboot_router(router);
        }
        let gap = next_byte(&mut w, t, secs(30));
        assert!(gap <= secs(10), "{gap:?}");
        w.finish("the transfer", secs(60), &[t]);
        w.until("direct again", secs(60), |w| w.is_direct(a, b));
    }
}

#[test]
fn f1_a_router_reboots_in_silence() {
    let (mut w, a, b) = direct_pair(5);
    w.run_for(secs(300));
    let router = w.router_of(b);
    w.renumber(router);
    w.run_for(secs(120));
    let t = w.transfer(a, b, 1000, 1000);
    w.finish("a transfer", secs(15), &[t]);
    w.until("direct again", secs(60), |w| w.is_direct(a, b));
}

/// Bytes flow again by relay within 3 s and directly within 10 s, whichever way they go.
fn roam(told: bool, roamer_sends: bool, seed: u64) {
    let (mut w, a, b) = direct_pair(seed);
    let (from, to) = if roamer_sends { (a, b) } else { (b, a) };
    let t = under_way(&mut w, from, to);
    let router = w.add_router(NatSpec::port_restricted());
    w.move_host(a, Place::Behind(router));
    let since = w.now();
    if told {
        w.tell_network(a);
    }
    // What was on its way still arrives.
    w.run_for(ms(50));
    next_byte(&mut w, t, secs(30));
    let gap = w.now().since(since);
    assert!(gap <= secs(3), "told {told}, roamer sends {roamer_sends}, seed {seed}: {gap:?}");
    w.until("direct again", secs(10).saturating_sub(gap), |w| w.is_direct(a, b));
    w.finish("the transfer", secs(60), &[t]);
    w.until("its homes follow", secs(120), |w| w.has_homes(a, 2));
    assert!(!w.events_since(b, since).any(|e| matches!(e, Event::PeerGone { .. })));
}

#[test]
fn f2_a_leaf_roams_and_is_told() {
    for seed in 60..64 {
        roam(true, true, seed);
        roam(true, false, seed);
    }
}

#[test]
fn f2_a_leaf_roams_and_is_not_told() {
    for seed in 60..64 {
        roam(false, true, seed);
        roam(false, false, seed);
    }
}

#[test]
fn f2_a_leaf_that_slept_is_at_home_again_at_once() {
    let (mut w, a, _) = World::pair(20, NatSpec::port_restricted(), NatSpec::port_restricted());
    // Its homes, and its router, have forgotten it, and it does not know.
    let registered = |w: &World| w.supernodes.iter().map(|s| w.status(*s).leaves).sum::<usize>();
    for (s, _) in w.status(a).homes {
        let s = w.host_of(s);
        w.crash(s);
        w.start(s);
    }
    let router = w.router_of(a);
    w.reboot_router(router);
    assert!(w.has_homes(a, 2), "as far as it knows");
    let before = registered(&w);
    w.hosts[a.0].epoch += 1;
    w.tell_network(a);
    let took = w.until("at home", secs(10), |w| w.is_ready(a) && w.has_homes(a, 2) && registered(w) >= before + 2);
    assert!(took <= secs(1), "{took:?}");
}

#[test]
fn f2_a_homeless_leaf_does_not_wait_when_the_network_is_another_one() {
    let (mut w, a, _) = World::pair(21, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.partition(&[a]);
    w.run_for(secs(1_800));
    assert!(!w.is_ready(a));
    w.calm();
    w.hosts[a.0].epoch += 1;
    w.tell_network(a);
    let took = w.until("at home", secs(400), |w| w.is_ready(a));
    assert!(took <= secs(2), "{took:?}");
}

#[test]
fn f2_both_leaves_roam_at_once() {
    let (mut w, a, b) = direct_pair(7);
    let t = under_way(&mut w, a, b);
    for host in [a, b] {
        let router = w.add_router(NatSpec::port_restricted());
        w.move_host(host, Place::Behind(router));
        w.tell_network(host);
    }
    w.finish("the transfer", secs(90), &[t]);
    w.until("direct again", secs(90), |w| w.is_direct(a, b));
}

#[test]
fn f2_a_leaf_roams_to_a_router_whose_ports_must_be_guessed() {
    let (mut w, a, b) = direct_pair(8);
    let t = under_way(&mut w, a, b);
    let router = w.add_router(NatSpec::fully_dependent());
    w.move_host(a, Place::Behind(router));
    w.tell_network(a);
    w.until("relayed", secs(5), |w| w.is_relayed(a, b));
    w.finish("the transfer", secs(90), &[t]);
    w.until("direct again", secs(60), |w| w.is_direct(a, b));
}

#[test]
fn e2_a_supernode_restarts_with_the_same_key() {
    let (mut w, a, b) = relayed_pair(9);
    for s in w.supernodes.clone() {
        w.crash(s);
        w.run_for(secs(2));
        w.start(s);
        w.run_for(secs(90));
    }
    w.settle_homes(&[a, b]);
    let c = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[c]);
    w.expect_all_talk(&[(c, a), (c, b), (a, b), (b, a)]);
}

#[test]
fn e2_all_supernodes_restart_at_once() {
    let (mut w, a, b) = relayed_pair(10);
    for s in w.supernodes.clone() {
        w.crash(s);
    }
    w.run_for(ms(500));
    for s in w.supernodes.clone() {
        w.start(s);
    }
    w.run_for(secs(300));
    w.settle_homes(&[a, b]);
    w.expect_all_talk(&[(a, b)]);
}

#[test]
fn e2_a_leaf_restarts_with_the_same_key() {
    for server in [false, true] {
        let (mut w, a, b) = direct_pair(11);
        let t = under_way(&mut w, a, b);
        let (restarts, stays) = if server { (b, a) } else { (a, b) };
        w.crash(restarts);
        w.run_for(secs(1));
        let (before, saved) = (w.now(), w.host(restarts).saved.clone());
        w.start(restarts);
        w.until("it is ready", secs(10), |w| w.is_ready(restarts));
        let u = w.transfer(stays, restarts, 100, 100);
        let took = w.finish("the one who stayed reaches it", secs(20), &[u]);
        assert!(took <= secs(12), "{took:?}");
        let u = w.transfer(restarts, stays, 100, 100);
        w.finish("and the other way", secs(10), &[u]);
        w.until("the old stream ends", secs(60), |w| {
            let side = if server { Some(w.client(t)) } else { w.server(t) };
            side.is_some_and(|s| s.ended.is_some())
        });
        let ended = if server { w.client(t).ended } else { w.server(t).and_then(|s| s.ended) };
        let (_, why) = ended.expect("it ended");
        assert!(matches!(why, StreamEnd::PeerRestarted | StreamEnd::PeerGone), "{why:?}");
        assert!(w.host(restarts).saved.clock_mark >= saved.clock_mark, "the clock mark went back");
        assert!(w.host(restarts).saved.sequence >= saved.sequence, "the sequence went back");
        assert!(w.now() > before);
    }
}

#[test]
fn e2_a_leaf_that_restarts_at_once_tells_its_peer_so() {
    let (mut w, a, b) = direct_pair(12);
    let t = under_way(&mut w, a, b);
    w.crash(a);
    w.start(a);
    w.until("ready", secs(10), |w| w.is_ready(a));
    w.transfer(a, b, 1, 1);
    w.until("the old stream ends", secs(10), |w| w.server(t).is_some_and(|s| s.ended.is_some()));
    assert_eq!(w.server(t).and_then(|s| s.ended).map(|(_, why)| why), Some(StreamEnd::PeerRestarted));
}

#[test]
fn e2_a_killed_leaf_comes_back_thirty_times() {
    let (mut w, a, b) = World::pair(13, NatSpec::port_restricted(), NatSpec::port_restricted());
    for n in 0..30u64 {
        w.crash(b);
        w.run_for(ms(n * 37));
        w.start(b);
        let took = w.until("at home again", secs(15), |w| w.is_ready(b));
        assert!(took <= secs(5), "restart {n}: {took:?}");
        let t = w.transfer(b, a, 10, 10);
        w.finish("it talks", secs(10), &[t]);
    }
}

#[test]
fn e7_a_one_way_cut_of_the_direct_path_falls_back_to_the_relay() {
    for reverse in [false, true] {
        let (mut w, a, b) = direct_pair(14);
        let t = under_way(&mut w, a, b);
        let (from, to) = if reverse { (b, a) } else { (a, b) };
        // What the relay sends on has the relay as its origin: only the direct way is cut.
        w.cut_one_way(from, to);
        let gap = next_byte(&mut w, t, secs(30));
        assert!(gap <= secs(10), "{gap:?}");
        w.finish("the transfer over the relay", secs(90), &[t]);
        assert!(w.is_relayed(a, b));
        w.calm();
        w.until("direct again", secs(120), |w| w.is_direct(a, b));
    }
}

#[test]
fn e7_both_halves_work_and_join_after_a_partition() {
    let mut w = World::new(15);
    let supernodes = w.add_supernodes(8);
    let leaves: Vec<HostId> = (0..8).map(|_| w.add_leaf_behind(NatSpec::port_restricted())).collect();
    w.settle_homes(&leaves);
    w.run_for(secs(120));
    let island: Vec<HostId> = [&supernodes[..4], &leaves[..4]].concat();
    w.partition(&island);
    w.run_for(secs(600));
    // Each leaf found homes on its own side.
    w.settle_homes(&leaves);
    let t = [w.transfer(leaves[0], leaves[1], 100, 100), w.transfer(leaves[6], leaves[7], 100, 100)];
    w.finish("within each half", secs(30), &t);
    w.calm();
    w.run_for(secs(60));
    w.expect_all_talk(&[
        (leaves[0], leaves[7]),
        (leaves[6], leaves[1]),
        (leaves[2], leaves[3]),
        (leaves[5], leaves[4]),
    ]);
    w.until("all supernodes know all again", secs(300), |w| {
        supernodes.iter().all(|s| w.status(*s).supernodes.len() >= 7)
    });
}

#[test]
fn e8_an_isolated_leaf_finds_its_way_back() {
    let (mut w, a, b) = World::pair(16, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.partition(&[a]);
    w.run_for(secs(900));
    assert!(!w.is_ready(a), "it should know that it is homeless");
    w.calm();
    let took = w.until("home again", secs(330), |w| w.is_ready(a));
    // The longest back-off is 5 minutes.
    assert!(took <= secs(310), "{took:?}");
    w.expect_all_talk(&[(b, a)]);
}

#[test]
fn e8_an_isolated_leaf_asks_seldom() {
    let (mut w, a, _) = World::pair(17, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.partition(&[a]);
    // It knows after 308 s at most, and then looks for others more and more seldom.
    w.run_for(secs(900));
    let before = w.traffic(a);
    w.run_for(secs(1800));
    let spent = w.traffic(a) - before;
    // Threat table E8: at most a probe per 30 s, of up to three packets.
    assert!(spent.packets_out <= 3 * 60, "{spent:?}");
    assert!(spent.bytes_out / 1800 <= 10, "{spent:?}");
    assert!(spent.packets_out >= 3, "it gave up: {spent:?}");
}

#[test]
fn leaving_tells_peers_and_homes() {
    let (mut w, a, b) = direct_pair(18);
    let t = under_way(&mut w, a, b);
    let (homes, since) = (w.status(a).homes, w.now());
    let leaves_before: usize = w.supernodes.iter().map(|s| w.status(*s).leaves).sum();
    w.with(a, Node::leave);
    let took = w.until("it has left", secs(5), |w| w.events_since(a, since).any(|e| *e == Event::Left));
    assert!(took <= secs(1), "{took:?}");
    w.crash(a);
    let peer = w.peer(a);
    let took = w.until("its peer knows", secs(5), |w| w.events_since(b, since).any(|e| *e == Event::PeerGone { peer }));
    assert!(took <= secs(1), "{took:?}");
    assert_eq!(w.server(t).and_then(|s| s.ended).map(|(_, why)| why), Some(StreamEnd::PeerGone));
    w.run_for(secs(1));
    let leaves_after: usize = w.supernodes.iter().map(|s| w.status(*s).leaves).sum();
    assert_eq!(leaves_after, leaves_before - homes.len());
}

#[test]
fn a_supernode_that_leaves_is_replaced_at_once() {
    let mut w = World::new(19);
    w.add_supernodes(4);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a]);
    let leaving = home(&w, a, 0);
    w.with(leaving, Node::leave);
    w.run_for(secs(1));
    w.crash(leaving);
    let peer = w.peer(leaving);
    let took = w.until("two homes again", secs(60), |w| {
        let homes = w.status(a).homes;
        homes.len() == 2 && homes.iter().all(|(p, _)| *p != peer)
    });
    assert!(took <= secs(10), "{took:?}");
}
