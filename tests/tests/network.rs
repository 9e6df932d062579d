//! The network of supernodes, the leaves at home there, and what it all costs when nothing happens.

use core::time::Duration;
use std::collections::BTreeSet;

use handfast_core::PeerId;
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

/// Supernodes that a node knows, itself not counted.
fn knows(w: &World, host: HostId) -> BTreeSet<PeerId> {
    let own = w.peer(host);
    w.status(host).supernodes.iter().map(|s| s.peer).filter(|p| *p != own).collect()
}

#[test]
fn sixty_four_supernodes_know_all() {
    let mut w = World::new(1);
    let all = w.add_supernodes(64);
    let took = w.until("everybody knows everybody", secs(600), |w| all.iter().all(|s| knows(w, *s).len() == 63));
    assert!(took <= secs(300), "{took:?}");
    let late = w.add_supernode();
    let peer = w.peer(late);
    let took = w.until("everybody knows the newcomer", secs(600), |w| all.iter().all(|s| knows(w, *s).contains(&peer)));
    assert!(took <= secs(300), "{took:?}");
    w.until("and it knows everybody", secs(60), |w| knows(w, late).len() == 64);
    let leaf = w.add_leaf_behind(NatSpec::port_restricted());
    let other = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[leaf, other]);
    w.expect_all_talk(&[(leaf, other)]);
}

#[test]
fn gossip_of_sixty_four_costs_little() {
    let mut w = World::new(2);
    let all = w.add_supernodes(64);
    w.run_for(secs(600));
    let before: Vec<_> = all.iter().map(|s| w.traffic(*s)).collect();
    w.run_for(secs(600));
    let spent: Vec<u64> = all.iter().zip(before).map(|(s, b)| (w.traffic(*s) - b).bytes_out).collect();
    let mean_bps = spent.iter().sum::<u64>() * 8 / 64 / 600;
    assert!(mean_bps <= 3_000, "{mean_bps} bit/s sent by each");
    assert!(spent.iter().all(|s| *s > 0), "somebody says nothing at all");
}

#[test]
fn a_dead_supernode_is_forgotten() {
    let mut w = World::new(3);
    let all = w.add_supernodes(6);
    w.until("all known", secs(300), |w| all.iter().all(|s| knows(w, *s).len() == 5));
    let (dead, rest) = (all[5], &all[..5]);
    let peer = w.peer(dead);
    w.crash(dead);
    // An advert lives one hour; nothing may serve it longer.
    w.run_for(secs(3600 + 600));
    for s in rest {
        assert!(!knows(&w, *s).contains(&peer), "{s:?} still names the dead one");
    }
    assert!(rest.iter().all(|s| knows(&w, *s).len() == 4), "adverts of the living were not renewed");
}

#[test]
fn a_leaf_has_two_homes_and_learns_of_more() {
    let mut w = World::new(4);
    w.add_supernodes(10);
    w.run_for(secs(120));
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    let took = w.until("two homes", secs(60), |w| w.has_homes(a, 2));
    assert!(took <= secs(10), "{took:?}");
    let homes = w.status(a).homes;
    assert_ne!(homes[0].0, homes[1].0);
    w.until("it learns of all", secs(120), |w| knows(w, a).len() >= 8);
    let leaves: usize = w.supernodes.iter().map(|s| w.status(*s).leaves).sum();
    assert_eq!(leaves, 2);
    let external = w.wire.routers[w.router_of(a).0].nat.external();
    let observed = w.status(a).observed;
    assert!(observed.len() >= 2 && observed.iter().all(|(_, addr)| addr.ip() == external), "{observed:?}");
}

#[test]
fn mapping_behaviour_is_recognised() {
    use handfast_core::wire::nat::MappingBehavior;
    for (spec, wanted) in [
        (NatSpec::port_restricted(), MappingBehavior::EndpointIndependent),
        (NatSpec::fully_dependent(), MappingBehavior::AddressAndPortDependent),
    ] {
        let (mut w, a, _) = World::pair(5, spec, spec);
        w.run_for(secs(30));
        assert_eq!(w.status(a).mapping, Some(wanted));
    }
}

#[test]
fn dial_back_tells_who_is_reachable() {
    let mut w = World::new(6);
    w.add_supernodes(5);
    w.run_for(secs(120));
    let public = w.add_leaf(Place::Public);
    let hidden = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[public, hidden]);
    w.run_for(secs(120));
    assert_eq!(w.status(public).reachable, Some(true));
    assert_ne!(w.status(hidden).reachable, Some(true));
}

#[test]
fn e6_two_hundred_leaves_start_within_ten_seconds() {
    let mut w = World::new(7);
    let supernodes = w.add_supernodes(8);
    w.run_for(secs(120));
    let mut leaves = Vec::new();
    for _ in 0..200 {
        leaves.push(w.add_leaf(Place::Public));
        w.run_for(ms(50));
    }
    let took = w.until("99 % are ready", secs(120), |w| leaves.iter().filter(|l| w.is_ready(**l)).count() >= 198);
    w.settle_homes(&leaves);
    let counts: Vec<usize> = supernodes.iter().map(|s| w.status(*s).leaves).collect();
    // Two random choices: no herd. 400 registrations over 8 are 50 each.
    assert!(counts.iter().all(|n| *n <= 125), "{counts:?} after {took:?}");
    assert!(counts.iter().filter(|n| **n > 0).count() >= 6, "{counts:?}");
}

#[test]
fn e5_a_third_of_the_supernodes_dies_and_nobody_storms() {
    let mut w = World::new(8);
    let supernodes = w.add_supernodes(6);
    w.run_for(secs(120));
    let leaves: Vec<HostId> = (0..60).map(|_| w.add_leaf(Place::Public)).collect();
    w.settle_homes(&leaves);
    w.run_for(secs(60));
    for s in &supernodes[..2] {
        w.crash(*s);
    }
    let alive = &supernodes[2..];
    w.run_for(secs(300));
    let dead: BTreeSet<PeerId> = supernodes[..2].iter().map(|s| w.peer(*s)).collect();
    for leaf in &leaves {
        let homes = w.status(*leaf).homes;
        assert!(homes.len() == 2 && homes.iter().all(|(p, _)| !dead.contains(p)), "{leaf:?} is at {homes:?}");
    }
    assert!(alive.iter().all(|s| w.is_up(*s)));
    w.expect_all_talk(&[(leaves[0], leaves[59]), (leaves[20], leaves[40])]);
}

#[test]
fn beats_go_at_the_pace_of_the_router_and_an_answer_is_asked_for_every_300_seconds() {
    let (mut w, a, _) = World::pair(9, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.until("the router is measured", secs(600), |w| w.status(a).binding_lifetime.is_some());
    let interval = w.status(a).keepalive_interval;
    assert!((secs(85)..=secs(94)).contains(&interval), "{interval:?} where a binding lives 120 s");
    w.capture(a);
    let began = w.now();
    w.run_for(secs(3600));
    let homes = w.status(a).homes;
    assert_eq!(homes.len(), 2);
    for (_, address) in &homes {
        let mine: Vec<_> = w.captured(a).iter().filter(|s| s.remote == *address).collect();
        let sent: Vec<_> = mine.iter().filter(|s| s.outbound).collect();
        let mut last = began;
        for s in &sent {
            assert!(s.at.since(last) <= interval + secs(1), "silent for {:?}", s.at.since(last));
            last = s.at;
        }
        let heard: Vec<_> = mine.iter().filter(|s| !s.outbound).collect();
        let mut last = began;
        for s in &heard {
            assert!(s.at.since(last) <= secs(301), "heard nothing for {:?}", s.at.since(last));
            last = s.at;
        }
        assert!(!heard.is_empty());
        let beats = sent.iter().filter(|s| matches!(s.kind(), 6 | 8)).count();
        assert!((36..=44).contains(&beats), "{beats} beats in an hour");
        assert!(sent.iter().filter(|s| s.kind() == 8).count() >= 10);
        assert!(sent.iter().filter(|s| matches!(s.kind(), 6 | 8)).all(|s| s.bytes.len() == 17));
    }
}

#[test]
fn no_beat_goes_while_other_traffic_flows() {
    let (mut w, a, b) = World::pair(10, NatSpec::port_restricted(), NatSpec::port_restricted());
    let t = w.transfer(a, b, 100, 100);
    w.finish("a link", secs(10), &[t]);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    let direct = match w.path(a, b) {
        Some(handfast_core::PathInfo::Direct { remote }) => remote,
        other => panic!("{other:?}"),
    };
    w.run_for(secs(30));
    w.capture(a);
    for _ in 0..120 {
        let t = w.transfer(a, b, 100, 100);
        w.run_for(secs(1));
        assert!(w.is_done(t));
    }
    let beats = w.captured(a).iter().filter(|s| s.outbound && s.remote == direct && matches!(s.kind(), 6 | 8)).count();
    assert_eq!(beats, 0);
    // A session without a stream sleeps; with one it is kept.
    let silent = w.now();
    w.run_for(secs(400));
    let sent_since = |w: &World, since| {
        let all = w.captured(a).iter().filter(|s| s.outbound && s.at > since && s.remote == direct);
        all.map(|s| (s.kind(), s.at.since(since))).collect::<Vec<_>>()
    };
    let last = sent_since(&w, silent).last().map(|(_, at)| *at);
    assert!(last.is_none_or(|at| at <= secs(62)), "still sends after {last:?}");
    let (peer, service) = (w.peer(b), handfast_tests::XFER.parse().expect("a service name"));
    w.with(a, |node, now| node.open(now, peer, &service)).expect("a stream that stays open");
    w.run_for(secs(20));
    let open = w.now();
    w.run_for(secs(600));
    let beats = sent_since(&w, open).iter().filter(|(kind, _)| matches!(kind, 6 | 8)).count();
    assert!((5..=12).contains(&beats), "{beats} beats in ten minutes");
}

#[test]
fn an_idle_leaf_costs_a_home_little() {
    let (mut w, a, _) = World::pair(11, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.run_for(secs(600));
    w.capture(a);
    w.run_for(secs(3600));
    for (_, address) in w.status(a).homes {
        let bytes: usize =
            w.captured(a).iter().filter(|s| s.remote == address).map(handfast_tests::host::Seen::ip_len).sum();
        // A beat of 45 B every 92 s, and every third of them answered.
        assert!(bytes <= 2700, "{bytes} bytes in an hour");
    }
}

#[test]
fn e1_a_wall_clock_that_jumps_ends_nothing() {
    const YEAR_US: i64 = 365 * 24 * 3600 * 1_000_000;
    for years in [10, -10] {
        let (mut w, a, b) = World::pair(12, NatSpec::port_restricted(), NatSpec::port_restricted());
        let t = w.transfer(a, b, 100, 100);
        w.finish("a link", secs(10), &[t]);
        w.until("direct", secs(10), |w| w.is_direct(a, b));
        w.jump_wall(a, years * YEAR_US);
        let supernode = w.supernodes[0];
        w.jump_wall(supernode, -years * YEAR_US);
        // A link without streams is closed after ten minutes, whatever the clock says; so it is used now and then.
        // All statements have been renewed when it is over.
        for _ in 0..16 {
            w.run_for(secs(300));
            assert!(w.is_direct(a, b));
            let t = w.transfer(a, b, 100, 100);
            w.finish("the old link works", secs(5), &[t]);
        }
        assert!(w.has_homes(a, 2) && w.has_homes(b, 2));
        let c = w.add_leaf_behind(NatSpec::port_restricted());
        w.settle_homes(&[c]);
        w.expect_all_talk(&[(c, a), (a, c)]);
    }
}

#[test]
fn a_clock_that_is_wrong_from_the_start_does_not_keep_a_leaf_out() {
    let mut w = World::new(13);
    w.add_supernodes(3);
    let b = w.add_leaf_behind(NatSpec::port_restricted());
    let router = w.add_router(NatSpec::port_restricted());
    let a = w.add_leaf_down(Place::Behind(router), |_| {});
    w.hosts[a.0].wall_skew = -50 * 365 * 24 * 3600 * 1_000_000;
    w.start(a);
    w.settle_homes(&[a, b]);
    w.expect_all_talk(&[(a, b), (b, a)]);
}

#[test]
fn links_are_rekeyed_and_streams_live_on() {
    let (mut w, a, b) = World::pair(14, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.hosts[b.0].app.pause_incoming = true;
    let long = w.transfer(a, b, 3_000_000, 10);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    w.capture(a);
    // Threat table D7: a rekey every 10 minutes while active.
    let mut transfers = Vec::new();
    w.hosts[b.0].app.pause_incoming = false;
    for _ in 0..140 {
        transfers.push(w.transfer(a, b, 50, 50));
        w.run_for(secs(10));
    }
    w.finish("all transfers", secs(10), &transfers);
    let remote = match w.path(a, b) {
        Some(handfast_core::PathInfo::Direct { remote }) => remote,
        other => panic!("{other:?}"),
    };
    let inits = w.captured(a).iter().filter(|s| s.kind() == 1 && s.remote == remote).count();
    assert!((2..=6).contains(&inits), "{inits} Inits in 23 minutes");
    w.resume(b);
    w.finish("a stream older than two rekeys", secs(60), &[long]);
}

#[test]
fn a_relay_keeps_strangers_to_their_rate() {
    let (mut w, a, b) = World::pair(15, NatSpec::fully_dependent(), NatSpec::fully_dependent());
    let t = w.transfer(a, b, 2_500_000, 0);
    let took = w.finish("20 Mbit", secs(300), &[t]);
    // 2 Mbit/s for strangers: ten seconds at best, less what the first bucket lets through.
    assert!(took >= secs(8), "{took:?}");
    assert!(took <= secs(60), "{took:?}");
}

#[test]
fn a_relay_without_limits_does_not_slow() {
    let mut w = World::new(16);
    for _ in 0..2 {
        w.add_supernode_with(|c| {
            c.relay_rate_bps = 0;
            c.relay_quota_bytes = 0;
        });
    }
    let a = w.add_leaf_behind(NatSpec::fully_dependent());
    let b = w.add_leaf_behind(NatSpec::fully_dependent());
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 5_000_000, 0);
    let took = w.finish("40 Mbit", secs(60), &[t]);
    assert!(took <= secs(6), "{took:?}");
    let forwarded: u64 = w.supernodes.iter().map(|s| w.status(*s).counters.forwarded_bytes).sum();
    assert!(forwarded > 5_000_000);
}

#[test]
fn a_quota_ends_and_says_so() {
    let mut w = World::new(17);
    for _ in 0..2 {
        w.add_supernode_with(|c| c.relay_quota_bytes = 500_000);
    }
    let a = w.add_leaf_behind(NatSpec::fully_dependent());
    let b = w.add_leaf_behind(NatSpec::fully_dependent());
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 5_000_000, 0);
    w.run_for(secs(120));
    let forwarded: u64 = w.supernodes.iter().map(|s| w.status(*s).counters.forwarded_bytes).sum();
    assert!(forwarded <= 2 * 500_000 + 200_000, "{forwarded} bytes through a quota of 500 000 at each of two relays");
    assert!(!w.client(t).is_over() || w.client(t).ended.is_some());
}

#[test]
fn a_busy_machine_that_serves_deadlines_late_still_works() {
    let mut w = World::new(18);
    w.lateness = ms(300);
    w.add_supernodes(3);
    let (a, b) = (w.add_leaf_behind(NatSpec::port_restricted()), w.add_leaf_behind(NatSpec::port_restricted()));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 100_000, 100_000);
    w.finish("a transfer", secs(60), &[t]);
    w.until("direct", secs(20), |w| w.is_direct(a, b));
    w.run_for(Duration::from_secs(300));
    assert!(w.has_homes(a, 2) && w.has_homes(b, 2));
}

#[test]
fn a_leaf_that_finds_a_port_taken_or_an_address_gone_goes_on() {
    let (mut w, a, b) = World::pair(19, NatSpec::port_restricted(), NatSpec::port_restricted());
    // Told the same network many times: nothing changes.
    let before = w.traffic(a);
    for _ in 0..50 {
        w.tell_network(a);
    }
    assert!((w.traffic(a) - before).packets_out <= 10, "{:?}", w.traffic(a) - before);
    w.expect_all_talk(&[(a, b)]);
}
