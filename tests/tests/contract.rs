//! The contract of [`Node`], rule by rule, as its documentation numbers them. Numbers of RFCs and of PROTOCOL.md are
//! restated here, not imported.

use core::time::Duration;

use handfast_core::{
    CommandError, Config, ConfigError, DropReason, Event, Instant, Network, Node, Path, Received, Saved, SecretKey,
    ServiceName, SocketId, StreamError, WallTime,
};
use handfast_tests::{Faults, HostId, NatSpec, Place, World, XFER, ms, secs};

/// RFC 8200 §5: 1 280, less 40 (IPv6) and 8 (UDP).
const DATAGRAM_LEN_MAX: usize = 1232;

fn home_pair(seed: u64) -> (World, HostId, HostId) {
    World::pair(seed, NatSpec::port_restricted(), NatSpec::port_restricted())
}

fn direct_pair(seed: u64) -> (World, HostId, HostId) {
    let (mut w, a, b) = home_pair(seed);
    let t = w.transfer(a, b, 100, 100);
    w.finish("a transfer", secs(10), &[t]);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    w.run_for(secs(5));
    (w, a, b)
}

/// A node by itself, and the time its world began.
fn lone(config: Config) -> (Node, Instant) {
    let now = Instant::from_micros(5_000_000);
    let key = SecretKey::from_bytes(&[1; 32]);
    let mut node = Node::new(now, std::time::Instant::now(), [2; 32], key, config, Saved::default()).expect("starts");
    node.handle_wall_clock(now, WallTime::from_micros(1_780_000_000_000_000));
    let sockets = vec![(SocketId(0), "0.0.0.0:7000".parse().unwrap())];
    node.handle_network(now, &Network { sockets, interfaces: vec!["10.0.0.2".parse().unwrap()], ..Network::default() });
    (node, now)
}

fn supernode() -> Config {
    Config::supernode(vec!["20.0.0.1:7000".parse().unwrap()])
}

fn path(n: u16) -> Path {
    Path { socket: SocketId(0), remote: ([80, 1, 1, 1], n).into(), local: None }
}

/// Everything a node wants to send now.
fn transmits(node: &mut Node, now: Instant) -> Vec<(Path, Vec<u8>)> {
    let mut buf = [0; DATAGRAM_LEN_MAX];
    let mut out = Vec::new();
    while let Some(t) = node.poll_transmit(now, 1, &mut buf) {
        out.push((t.path, buf[..t.len].to_vec()));
    }
    out
}

fn drain(node: &mut Node, now: Instant) -> usize {
    let mut n = transmits(node, now).len();
    while node.poll_event().is_some() {
        n += 1;
    }
    n
}

fn known() -> Vec<(handfast_core::PeerId, core::net::SocketAddr)> {
    vec![(SecretKey::from_bytes(&[9; 32]).peer_id(), "20.0.0.9:4433".parse().unwrap())]
}

// ---- 1. Outputs are ready when the call that caused them returns. ----

#[test]
fn c1_join_sends_at_once() {
    let (mut node, now) = lone(Config::leaf());
    assert!(transmits(&mut node, now).is_empty(), "nobody to talk to");
    node.join(now, &known()).expect("join");
    let out = transmits(&mut node, now);
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0.remote, out[0].1[0]), (known()[0].1, 1), "an Init to the one who is known");
}

#[test]
fn c1_a_supernode_is_ready_without_a_tick() {
    let (mut node, _) = lone(supernode());
    assert!(core::iter::from_fn(|| node.poll_event()).any(|e| e == Event::Ready));
}

#[test]
fn c1_writing_on_an_idle_link_sends_at_once() {
    let (mut w, a, b) = direct_pair(1);
    let (before, peer) = (w.traffic(a).packets_out, w.peer(b));
    w.try_transfer(a, peer, XFER, 10, 10).expect("open");
    assert!(w.traffic(a).packets_out > before, "a tick was needed");
    let before = w.traffic(a).packets_out;
    w.with(a, |node, now| node.send_datagram(now, peer, b"x")).expect("send");
    assert_eq!(w.traffic(a).packets_out, before + 1);
    let before = w.traffic(a).packets_out;
    w.with(a, |node, now| node.ping(now, peer)).expect("ping");
    assert_eq!(w.traffic(a).packets_out, before + 1);
}

#[test]
fn c1_leave_says_goodbye_at_once() {
    let (mut w, a, _) = direct_pair(2);
    let before = w.traffic(a).packets_out;
    w.with(a, Node::leave);
    // Two homes and a peer.
    assert!(w.traffic(a).packets_out >= before + 3);
}

// ---- 2. A deadline fires at `now >= deadline`, and is never in the past. ----

#[test]
fn c2_after_handle_timeout_the_deadline_is_in_the_future() {
    // The world checks this at every step; here a node alone, served exactly on time for an hour.
    for config in [Config::leaf(), supernode()] {
        let (mut node, mut now) = lone(config);
        node.join(now, &known()).expect("join");
        drain(&mut node, now);
        let (end, mut calls) = (now + secs(3600), 0);
        while let Some(at) = node.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= now, "{at:?} is before {now:?}");
            now = at;
            node.handle_timeout(now);
            drain(&mut node, now);
            assert!(node.poll_timeout().is_none_or(|next| next > now), "a deadline at {now:?} did not clear");
            calls += 1;
            assert!(calls < 20_000, "a node alone is busy");
        }
        assert!(calls > 5, "a node with nobody there gave up after {calls} deadlines");
    }
}

#[test]
fn c2_asking_for_the_deadline_changes_nothing() {
    let (mut w, a, _) = direct_pair(3);
    let node = w.hosts[a.0].node.as_mut().unwrap();
    let first = node.poll_timeout();
    assert!(first.is_some());
    for _ in 0..10 {
        assert_eq!(node.poll_timeout(), first);
    }
}

// ---- 3. `handle_timeout` early, late or twice is harmless. ----

#[test]
fn c3_early_or_twice_does_nothing() {
    let (mut w, a, _) = direct_pair(4);
    let now = w.now();
    let node = w.hosts[a.0].node.as_mut().unwrap();
    let deadline = node.poll_timeout();
    for _ in 0..100 {
        node.handle_timeout(now);
        assert_eq!(drain(node, now), 0);
    }
    assert_eq!(node.poll_timeout(), deadline);
    let due = deadline.expect("a linked node has deadlines");
    node.handle_timeout(due);
    drain(node, due);
    let next = node.poll_timeout();
    node.handle_timeout(due);
    assert_eq!((drain(node, due), node.poll_timeout()), (0, next));
}

#[test]
fn c3_one_late_call_does_all_that_is_due() {
    let (mut w, a, _) = direct_pair(5);
    let late = w.now() + secs(40);
    let node = w.hosts[a.0].node.as_mut().unwrap();
    // Two homes and a peer: at least a beat to each has come due in 40 seconds.
    node.handle_timeout(late);
    let out = transmits(node, late);
    let mut remotes: Vec<_> = out.iter().map(|(p, _)| p.remote).collect();
    remotes.sort_unstable();
    remotes.dedup();
    assert!(remotes.len() >= 3, "only {remotes:?}");
    while node.poll_event().is_some() {}
    assert!(node.poll_timeout().is_none_or(|next| next > late));
}

#[test]
fn c3_a_world_served_late_is_the_same_world() {
    let (mut w, a, b) = home_pair(6);
    w.lateness = Duration::from_millis(500);
    let t = w.transfer(a, b, 50_000, 50_000);
    w.finish("a transfer", secs(60), &[t]);
    w.run_for(secs(600));
    assert!(w.has_homes(a, 2) && w.has_homes(b, 2));
}

// ---- 4. Not draining costs delay, never correctness. ----

#[test]
fn c4_a_node_drained_seldom_still_delivers() {
    let (mut w, a, b) = direct_pair(7);
    w.hosts[b.0].draining = false;
    let t = w.transfer(a, b, 20_000, 20_000);
    for _ in 0..3000 {
        w.run_for(ms(100));
        w.drain_now(b);
        if w.server(t).is_some_and(|s| s.done.is_some()) && w.client(t).done.is_some() {
            break;
        }
    }
    assert!(w.is_done(t));
}

#[test]
fn c4_undrained_outputs_do_not_pile_up() {
    let (mut w, a, b) = direct_pair(8);
    w.hosts[b.0].draining = false;
    let peer = w.peer(b);
    // Each asks for an answer that nobody fetches.
    for _ in 0..20_000 {
        let _ = w.with(a, |node, now| node.ping(now, peer));
        w.run_for(ms(1));
    }
    let now = w.now();
    let node = w.hosts[b.0].node.as_mut().unwrap();
    let count = transmits(node, now).len();
    assert!(count <= 5_000, "{count} datagrams were kept");
    w.hosts[b.0].draining = true;
    w.drain_now(b);
    w.run_for(secs(30));
    w.expect_all_talk(&[(a, b), (b, a)]);
}

#[test]
fn c4_what_leaves_is_current() {
    // A path that goes while a reply waits: the reply takes the path that is in use when it is fetched.
    let (mut w, a, b) = direct_pair(9);
    w.hosts[a.0].draining = false;
    let router = w.add_router(NatSpec::port_restricted());
    w.move_host(a, Place::Behind(router));
    w.run_for(secs(3));
    w.hosts[a.0].draining = true;
    w.tell_network(a);
    w.run_for(secs(30));
    w.expect_all_talk(&[(a, b), (b, a)]);
}

// ---- 5. Everything has a limit, and says what happens at it. ----

#[test]
fn c5_open_streams_are_limited() {
    let (mut w, a, b) = direct_pair(10);
    let (peer, service): (_, ServiceName) = (w.peer(b), "nosuch".parse().unwrap());
    w.hosts[a.0].draining = false;
    let mut refused = None;
    for n in 0..200_000 {
        if let Err(error) = w.with(a, |node, now| node.open(now, peer, &service)) {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.expect("a limit");
    assert!(n >= 100, "only {n} streams");
    assert_eq!(error, CommandError::Limit);
}

#[test]
fn c5_connects_are_limited() {
    let (mut node, now) = lone(Config::leaf());
    let mut refused = None;
    for n in 0..100_000u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        if let Err(error) = node.connect(now, SecretKey::from_bytes(&seed).peer_id()) {
            refused = Some((n, error));
            break;
        }
        // Nothing is known here, so each may fail at once; a limit is needed only for those that wait.
        if n == 3000 {
            break;
        }
    }
    if let Some((n, error)) = refused {
        assert!(n >= 16, "only {n} at once");
        assert_eq!(error, CommandError::Limit);
    }
    drain(&mut node, now);
}

#[test]
fn c5_a_write_that_nobody_reads_blocks() {
    let (mut w, a, b) = direct_pair(11);
    let (peer, service): (_, ServiceName) = (w.peer(b), XFER.parse().unwrap());
    w.hosts[a.0].draining = false;
    let stream = w.with(a, |node, now| node.open(now, peer, &service)).expect("open");
    let mut taken = 0;
    let end = loop {
        match w.with(a, |node, now| node.write(now, stream, &[0; 8192])) {
            Ok(n) => taken += n,
            Err(error) => break error,
        }
        assert!(taken < 64 << 20, "no limit");
    };
    assert_eq!(end, StreamError::Blocked);
    assert!(taken >= 1200);
}

#[test]
fn c5_datagrams_that_nobody_fetches_are_limited() {
    let (mut w, a, b) = direct_pair(12);
    let peer = w.peer(b);
    w.hosts[a.0].draining = false;
    let refused = (0..100_000).find_map(|_| w.with(a, |node, now| node.send_datagram(now, peer, &[1; 1000])).err());
    assert_eq!(refused, Some(CommandError::Datagram));
}

#[test]
fn c5_leaves_are_limited_by_configuration() {
    let mut w = World::new(13);
    let s = w.add_supernode_with(|c| c.leaves_max = 5);
    let leaves: Vec<HostId> = (0..8).map(|_| w.add_leaf(Place::Public)).collect();
    w.run_for(secs(30));
    assert_eq!(w.status(s).leaves, 5);
    assert_eq!(leaves.iter().filter(|l| w.is_ready(**l)).count(), 5);
}

// ---- 6. No datagram panics the node or returns an error; a rejected one changes only counters. ----

#[test]
fn c6_every_length_of_every_kind() {
    for config in [Config::leaf(), supernode()] {
        let (mut node, now) = lone(config);
        node.join(now, &known()).expect("join");
        drain(&mut node, now);
        let (deadline, status) = (node.poll_timeout(), node.status(now));
        let mut buf = vec![0u8; 65_536];
        for len in (0..=3000).chain((3001..=65_535).step_by(251)).chain([65_535]) {
            for kind in [0u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255] {
                let data = &mut buf[..len];
                for (at, byte) in data.iter_mut().enumerate().take(64) {
                    *byte = (at * 37 + len) as u8;
                }
                if let Some(first) = data.first_mut() {
                    *first = kind;
                }
                if kind == 1 && len > 1 {
                    data[1] = 1;
                }
                let (used, verdict) = node.handle_datagrams(now, path(len as u16), len.max(1), data);
                assert_eq!(used, len);
                assert!(matches!(verdict, Received::Dropped(_)), "kind {kind}, {len} bytes: {verdict:?}");
            }
        }
        assert_eq!(drain(&mut node, now), 0, "junk was answered");
        assert_eq!(node.poll_timeout(), deadline, "junk moved a deadline");
        let mut after = node.status(now);
        assert!(after.counters.dropped.iter().sum::<u64>() > 10_000);
        after.counters = status.counters;
        assert_eq!(after, status);
    }
}

#[test]
fn c6_too_long_is_a_reason_of_its_own() {
    let (mut node, now) = lone(supernode());
    let mut data = vec![4u8; 1473];
    let (_, verdict) = node.handle_datagrams(now, path(1), 1473, &mut data);
    assert_eq!(verdict, Received::Dropped(DropReason::TooLong));
}

#[test]
fn c6_trains_are_used_up_to_the_last_byte() {
    let (mut node, now) = lone(supernode());
    for (len, stride) in [(1000, 100), (1001, 100), (1000, 1000), (1000, 999), (7, 3), (5, 1), (64 * 1232, 1232)] {
        let mut data = vec![4u8; len];
        let mut at = 0;
        while at < len {
            let (used, verdict) = node.handle_datagrams(now, path(1), stride, &mut data[at..]);
            assert!(used > 0 && (at + used == len || used % stride == 0), "{used} of {len} by {stride}");
            assert!(matches!(verdict, Received::Dropped(_)));
            at += used;
        }
    }
}

#[test]
fn c6_flipped_bits_of_real_packets_change_only_counters() {
    let (mut w, a, b) = home_pair(14);
    w.capture(b);
    let t = w.transfer(a, b, 2000, 2000);
    w.finish("a transfer", secs(10), &[t]);
    w.run_for(secs(100));
    let seen: Vec<_> = w.captured(b).iter().filter(|s| !s.outbound).cloned().collect();
    let now = w.now();
    let node = w.hosts[b.0].node.as_mut().unwrap();
    let (deadline, status) = (node.poll_timeout(), node.status(now));
    for packet in seen {
        for at in 0..packet.bytes.len() {
            let mut bytes = packet.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let len = bytes.len();
            let path = Path { socket: SocketId(0), remote: packet.remote, local: None };
            let (used, verdict) = node.handle_datagrams(now, path, len, &mut bytes);
            assert_eq!(used, len);
            assert!(
                matches!(verdict, Received::Dropped(_)),
                "kind {} with byte {at} changed: {verdict:?}",
                packet.kind()
            );
        }
    }
    assert_eq!(drain(node, now), 0);
    assert_eq!(node.poll_timeout(), deadline);
    let mut after = node.status(now);
    after.counters = status.counters;
    after.peers.clone_from(&status.peers);
    assert_eq!(after, status);
}

// ---- 7. Nothing that the wire can carry is a control signal. ----

#[test]
fn c7_an_empty_datagram_is_dropped() {
    let (mut node, now) = lone(supernode());
    drain(&mut node, now);
    let deadline = node.poll_timeout();
    let (used, verdict) = node.handle_datagrams(now, path(1), 1, &mut []);
    assert_eq!((used, verdict), (0, Received::Dropped(DropReason::Truncated)));
    assert_eq!((drain(&mut node, now), node.poll_timeout()), (0, deadline));
}

#[test]
fn c7_an_empty_application_datagram_is_a_datagram() {
    let (mut w, a, b) = direct_pair(15);
    let peer = w.peer(b);
    w.with(a, |node, now| node.send_datagram(now, peer, b"")).expect("send");
    w.run_for(secs(1));
    assert_eq!(w.host(b).app.datagrams, [(w.peer(a), Vec::new())]);
}

#[test]
fn c7_an_empty_write_ends_nothing() {
    let (mut w, a, b) = direct_pair(16);
    let t = w.transfer(a, b, 100_000, 100_000);
    let stream = w.host(a).app.sides.iter().find(|(_, s)| s.id == Some(t)).map(|((_, k), _)| *k).expect("open");
    let written = w.with(a, |node, now| node.write(now, stream, b""));
    assert!(matches!(written, Ok(0) | Err(StreamError::Blocked | StreamError::Finished)), "{written:?}");
    w.finish("the transfer", secs(20), &[t]);
}

// ---- 8. Unproven sources get no more bytes than they sent. ----

#[test]
fn c8_an_init_from_anywhere_is_answered_once_and_shorter() {
    let (mut leaf, now) = lone(Config::leaf());
    let key = SecretKey::from_bytes(&[9; 32]);
    let saved = Saved::default();
    let config = Config::supernode(vec![known()[0].1]);
    let mut node = Node::new(now, std::time::Instant::now(), [3; 32], key, config, saved).expect("starts");
    node.handle_wall_clock(now, WallTime::from_micros(1_780_000_000_000_000));
    let sockets = vec![(SocketId(0), "0.0.0.0:4433".parse().unwrap())];
    node.handle_network(now, &Network { sockets, interfaces: vec![known()[0].1.ip()], ..Network::default() });
    drain(&mut node, now);
    leaf.join(now, &known()).expect("join");
    let init = transmits(&mut leaf, now).swap_remove(0).1;

    let (mut sent, mut got, mut packets) = (0, 0, 0);
    let mut time = now;
    for n in 0..200u16 {
        let mut copy = init.clone();
        sent += copy.len();
        let _ = node.handle_datagrams(time, path(1000 + n), init.len(), &mut copy);
        for _ in 0..40 {
            for (to, bytes) in transmits(&mut node, time) {
                assert_eq!(to.remote, path(1000 + n).remote);
                assert!(bytes.len() <= init.len());
                got += bytes.len();
                packets += 1;
            }
            time += ms(500);
            node.handle_timeout(time);
        }
    }
    assert!(packets > 0, "no Init was answered");
    assert!(got <= sent && packets <= 200, "{got} of {sent} bytes in {packets} packets");
}

#[test]
fn c8_holds_on_a_hostile_wire_too() {
    // The ledger of the invariants watches every address at every step.
    let mut w = World::new(17);
    w.wire.faults = Faults::hostile();
    w.add_supernodes(2);
    let (a, b) = (w.add_leaf(Place::Public), w.add_leaf(Place::Public));
    w.settle_homes(&[a, b]);
    w.expect_all_talk(&[(a, b)]);
}

// ---- Start-up and determinism. ----

#[test]
fn a_supernode_needs_an_address() {
    let key = SecretKey::from_bytes(&[1; 32]);
    for advertise in [vec![], vec!["0.0.0.0:1".parse().unwrap()], vec!["1.2.3.4:0".parse().unwrap()]] {
        let config = Config::supernode(advertise);
        let made = Node::new(Instant::ZERO, std::time::Instant::now(), [0; 32], key.clone(), config, Saved::default());
        assert_eq!(made.err(), Some(ConfigError::Advertise));
    }
}

#[test]
fn same_seed_same_calls_same_bytes() {
    let run = |seed: [u8; 32]| {
        let now = Instant::from_micros(1);
        let key = SecretKey::from_bytes(&[1; 32]);
        let mut node =
            Node::new(now, std::time::Instant::now(), seed, key, Config::leaf(), Saved::default()).expect("starts");
        node.handle_wall_clock(now, WallTime::from_micros(1_780_000_000_000_000));
        let sockets = vec![(SocketId(0), "0.0.0.0:7000".parse().unwrap())];
        node.handle_network(
            now,
            &Network { sockets, interfaces: vec!["10.0.0.2".parse().unwrap()], ..Network::default() },
        );
        node.join(now, &known()).expect("join");
        let mut out = transmits(&mut node, now);
        for n in 1..100u64 {
            let at = now + ms(n * 700);
            node.handle_timeout(at);
            out.extend(transmits(&mut node, at));
        }
        out
    };
    let first = run([1; 32]);
    assert!(first.len() >= 3);
    assert_eq!(first, run([1; 32]));
    assert_ne!(first, run([2; 32]));
}

#[test]
fn commands_of_a_node_that_leaves_are_refused() {
    let (mut w, a, b) = direct_pair(18);
    let peer = w.peer(b);
    w.with(a, Node::leave);
    assert_eq!(w.with(a, |node, now| node.connect(now, peer)), Err(CommandError::Leaving));
    assert_eq!(w.try_transfer(a, peer, XFER, 1, 1), Err(CommandError::Leaving));
}

#[test]
fn a_weak_key_is_no_peer() {
    // The identity point: order 1. No PeerId can be made of it, so no call can name it.
    let mut identity = [0; 32];
    identity[0] = 1;
    assert!(handfast_core::PeerId::from_bytes(&identity).is_err());
}
