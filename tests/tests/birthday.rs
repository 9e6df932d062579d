//! Pairs that become direct only by foreseeing or guessing ports, what that takes, and what it may cost others.
//!
//! Which pairs of routers do so is the matrix's business; here it is how: how fast, with how many packets and sockets,
//! and that a victim whom a peer names gets no more of it than of anything else.

use core::time::Duration;

use handfast_core::RelayReason;
use handfast_tests::{HostId, NatSpec, PortAssignment, World, secs};

/// Two leaves whose nodes have had time to find out what router they are behind and how long it keeps a binding, and
/// count what they send to each other.
fn pair(seed: u64, a: NatSpec, b: NatSpec) -> (World, HostId, HostId) {
    let (mut w, a, b) = World::pair(seed, a, b);
    w.run_for(secs(1_200));
    for leaf in [a, b] {
        w.hosts[leaf.0].probes = Some(Vec::new());
    }
    (w, a, b)
}

fn home() -> NatSpec {
    NatSpec::port_restricted()
}

fn mobile(ports: PortAssignment) -> NatSpec {
    NatSpec::dependent(ports)
}

fn probes(w: &World, leaf: HostId) -> usize {
    w.hosts[leaf.0].probes.as_ref().map_or(0, Vec::len)
}

fn why(w: &World, a: HostId, b: HostId) -> Option<RelayReason> {
    w.status(a).peers.into_iter().find(|p| p.peer == w.peer(b)).and_then(|p| p.why)
}

/// Sockets that a host has beside its main ones.
fn extra_sockets(w: &World, leaf: HostId) -> usize {
    w.hosts[leaf.0].sockets.keys().filter(|id| id.0 >= 2).count()
}

/// How long the pair takes to become direct, if it does in time.
fn time_to_direct(w: &mut World, a: HostId, b: HostId, most: Duration) -> Option<Duration> {
    let since = w.now();
    w.transfer(a, b, 100, 100);
    while w.now().since(since) < most {
        w.run_for(Duration::from_millis(20));
        if w.is_direct(a, b) {
            return Some(w.now().since(since));
        }
    }
    None
}

#[test]
fn a_counting_router_is_foreseen_within_a_second() {
    for (seed, delta) in [(0, 1), (1, -1), (2, 2), (3, 7)] {
        let (mut w, a, b) = pair(seed, home(), mobile(PortAssignment::Sequential { delta }));
        let (caller, callee) = if seed % 2 == 0 { (a, b) } else { (b, a) };
        let took = time_to_direct(&mut w, caller, callee, secs(20)).expect("direct");
        assert!(took < secs(1), "{delta}: {took:?}");
        let sent = probes(&w, a) + probes(&w, b);
        assert!(sent <= 80, "{delta}: {sent} packets");
    }
}

#[test]
fn two_counting_routers_meet() {
    let counts = |delta| mobile(PortAssignment::Sequential { delta });
    for (seed, one, other) in [(0, 1, 1), (1, 1, -1), (2, -3, 2)] {
        let (mut w, a, b) = pair(seed, counts(one), counts(other));
        let took = time_to_direct(&mut w, a, b, secs(20)).expect("direct");
        assert!(took < secs(3), "{one} and {other}: {took:?}");
    }
}

#[test]
fn a_home_and_a_random_router_become_direct_by_guessing() {
    let (mut direct, mut runs) = (0, 0);
    for seed in 0..10 {
        let random = mobile(PortAssignment::Random);
        let (one, other) = if seed % 2 == 0 { (home(), random) } else { (random, home()) };
        let (mut w, a, b) = pair(seed, one, other);
        runs += 1;
        if time_to_direct(&mut w, a, b, secs(22)).is_some() {
            direct += 1;
            // The guesser's 100 a second and the holder's, and the checks before.
            assert!(probes(&w, a).max(probes(&w, b)) <= 2_100);
        }
    }
    // Each of them misses in 7 of 10 000 cases.
    assert!(direct >= runs - 1, "{direct} of {runs}");
}

#[test]
fn a_learned_block_is_tried_whole_in_a_few_seconds() {
    for (seed, width) in [(0, 512), (1, 1_024), (2, 512), (3, 256)] {
        let (mut w, a, b) = pair(seed, home(), mobile(PortAssignment::Block { width }));
        let took = time_to_direct(&mut w, b, a, secs(20)).expect("direct");
        assert!(took < secs(8), "a block of {width}: {took:?}");
        assert!(probes(&w, b) < 256, "fewer sockets than for the full range");
    }
}

#[test]
fn two_random_routers_are_relayed_at_once_and_say_why() {
    for seed in 0..12 {
        let random = mobile(PortAssignment::Random);
        let (mut w, a, b) = pair(seed, random, random);
        let t = w.transfer(a, b, 1_000, 1_000);
        w.finish("a transfer", secs(5), &[t]);
        assert_eq!((why(&w, a, b), why(&w, b, a)), (Some(RelayReason::BothRandom), Some(RelayReason::BothRandom)));
        w.run_for(secs(120));
        assert!(w.is_relayed(a, b), "seed {seed}");
        assert_eq!(extra_sockets(&w, a) + extra_sockets(&w, b), 0, "seed {seed}");
        // To the one private address that each names: it might be in the same LAN.
        assert!(probes(&w, a) <= 10 && probes(&w, b) <= 10, "{} and {}", probes(&w, a), probes(&w, b));
    }
}

#[test]
fn sockets_are_closed_but_the_one_that_found_the_way_which_lives_as_long() {
    let mut held = 0;
    for seed in 0..12 {
        let (mut w, a, b) = pair(seed, home(), mobile(PortAssignment::Random));
        time_to_direct(&mut w, a, b, secs(22)).expect("direct");
        // The effort ends when its next packet is due, 10 ms at most after the way is proven.
        w.run_for(Duration::from_millis(10));
        assert_eq!(extra_sockets(&w, a), 0, "the guesser needs none");
        // One more hit may be under way when the first is proven; and one that guesses may hit what the main socket,
        // which is checked as well, has opened.
        assert!(extra_sockets(&w, b) <= 3, "seed {seed}: {}", extra_sockets(&w, b));
        let (peer, service) = (w.peer(b), handfast_tests::XFER.parse().expect("a service name"));
        w.with(a, |node, now| node.open(now, peer, &service)).expect("a stream that stays open");
        w.run_for(secs(400));
        assert!(w.is_direct(a, b), "a silent path through such a socket is kept while a stream is open");
        assert!(extra_sockets(&w, b) <= 1, "seed {seed}: {}", extra_sockets(&w, b));
        held += extra_sockets(&w, b);
        let t = w.transfer(b, a, 100_000, 100_000);
        w.finish("a transfer", secs(20), &[t]);
        assert!(w.is_direct(a, b));
        // The router forgets everything: the way is gone, another one is found.
        let router = w.router_of(b);
        w.wire.reboot(router, None);
        let t = w.transfer(a, b, 1_000, 1_000);
        w.finish("a transfer over the relay", secs(10), &[t]);
        w.until("direct again", secs(90), |w| w.is_direct(a, b));
        // What the router forgot is measured again meanwhile, with sockets for that.
        w.until("one socket is left", secs(1_200), |w| extra_sockets(w, b) <= 1);
        w.crash(a);
        w.until("the link is gone, and no socket is left", secs(1_200), |w| extra_sockets(w, b) == 0);
    }
    assert!(held >= 10, "only {held} of 12 ways go through a socket of their own");
}

/// Each side is vouched for at a home of the other's, which it may have to dial, a second time within ten minutes.
#[test]
fn regression_a_guessed_way_that_is_lost_soon_is_found_again() {
    let mut dialled = 0;
    for seed in 0..12 {
        let (mut w, a, b) = pair(seed, home(), mobile(PortAssignment::Random));
        time_to_direct(&mut w, a, b, secs(22)).expect("direct");
        let (peer, service) = (w.peer(b), handfast_tests::XFER.parse().expect("a service name"));
        w.with(a, |node, now| node.open(now, peer, &service)).expect("a stream that stays open");
        w.run_for(secs(400));
        let homes = |leaf| w.status(leaf).homes.into_iter().map(|(peer, _)| peer).collect::<Vec<_>>();
        dialled += [(a, b), (b, a)].iter().filter(|(x, y)| !homes(*y).contains(&homes(*x)[0])).count();
        let t = w.transfer(b, a, 100_000, 100_000);
        w.finish("a transfer", secs(20), &[t]);
        let router = w.router_of(b);
        w.wire.reboot(router, None);
        let t = w.transfer(a, b, 1_000, 1_000);
        w.finish("a transfer over the relay", secs(10), &[t]);
        w.until("direct again", secs(30), |w| w.is_direct(a, b));
    }
    assert!(dialled > 0, "all have one home: the test proves nothing");
}

#[test]
fn guesses_in_vain_leave_no_socket_and_disturb_nobody() {
    let (mut w, a, b) = pair(4, home(), mobile(PortAssignment::Random));
    w.wire.cuts.extend([(a, b), (b, a)]);
    let t = w.transfer(a, b, 100, 100);
    w.finish("a transfer", secs(5), &[t]);
    w.run_for(secs(5));
    assert!(extra_sockets(&w, b) > 100, "{}", extra_sockets(&w, b));
    assert_eq!(why(&w, a, b), Some(RelayReason::Trying));
    let t = w.transfer(a, b, 500_000, 500_000);
    w.finish("a transfer by the relay meanwhile", secs(60), &[t]);
    // Three times 20 s an hour, not more.
    w.run_for(secs(400));
    let sent = probes(&w, a);
    assert!((6_000..=6_400).contains(&sent), "{sent}");
    assert_eq!(why(&w, a, b), Some(RelayReason::TriedInVain));
    // Those that measure the router are closed, too, when that has ended.
    w.until("no socket is left", secs(900), |w| extra_sockets(w, a) + extra_sockets(w, b) == 0);
    w.run_for(secs(600));
    assert!(probes(&w, a) - sent <= 200, "{}", probes(&w, a) - sent);
}

#[test]
fn d1_a_victim_named_beside_a_random_router_gets_ten_packets_in_all() {
    // The liar is the one whose ports are guessed, and the one whose guesses others hold sockets for.
    for (seed, liar, other) in
        [(5, mobile(PortAssignment::Random), home()), (6, home(), mobile(PortAssignment::Random))]
    {
        let mut w = World::new(seed);
        w.add_supernodes(5);
        let victim = w.add_bystander();
        let honest = w.add_leaf_behind(other);
        let router = w.add_router(liar);
        let liar = w.add_leaf_down(handfast_tests::Place::Behind(router), |_| {});
        w.hosts[liar.0].pretended = Some(vec![w.ip(victim)]);
        w.start(liar);
        w.settle_homes(&[honest, liar]);
        w.run_for(secs(30));
        w.hosts[honest.0].probes = Some(Vec::new());
        w.wire.cuts.insert((honest, liar));
        w.capture(victim);
        w.transfer(liar, honest, 100, 100);
        w.run_for(secs(300));
        assert!(probes(&w, honest) > 500, "no birthday was tried: the test proves nothing");
        let got = w.captured(victim);
        let bytes: usize = got.iter().map(handfast_tests::host::Seen::ip_len).sum();
        assert!(!got.is_empty() && got.len() <= 10 && bytes <= 1_024, "{} packets, {bytes} bytes", got.len());
    }
}
