//! Relays whose limits are met, and relays that two ends agree on: a link moves to another one and loses nothing, or
//! its streams end with the reason, at both ends and at once.

use core::time::Duration;

use handfast_core::{Event, Instant, PathInfo, RelayLimit, StreamEnd};
use handfast_tests::{Chance, Faults, HostId, NatSpec, Side, TransferId, Way, World, ms, secs};

/// A leaf that no other like it can reach directly.
fn add_leaf(w: &mut World) -> HostId {
    w.add_leaf_behind(NatSpec::fully_dependent())
}

fn via(w: &World, a: HostId, b: HostId) -> Option<HostId> {
    match w.path(a, b)? {
        PathInfo::Relay { via } => Some(w.host_of(via)),
        PathInfo::Direct { .. } => None,
    }
}

/// When a host was first told that a limit is met, and by which relay.
fn limited(w: &World, host: HostId) -> Option<(Instant, HostId, RelayLimit)> {
    w.hosts[host.0].events.iter().find_map(|(at, event)| match event {
        Event::RelayLimited { relay, limit, .. } => Some((*at, w.host_of(*relay), *limit)),
        _ => None,
    })
}

/// When and why both sides of a transfer ended.
fn ends(w: &World, t: TransferId) -> [Option<(Instant, StreamEnd)>; 2] {
    [w.client(t).ended, w.server(t).and_then(|side| side.ended)]
}

#[test]
fn a_pair_whose_bytes_are_used_up_moves_to_another_relay_and_loses_none() {
    for seed in 1..6 {
        let mut w = World::new(seed);
        // The first two, which everybody knows first, have little to give.
        w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
        w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
        w.add_supernode_with(|c| c.relay_quota_bytes = 0);
        w.add_supernode_with(|c| c.relay_quota_bytes = 0);
        let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
        w.settle_homes(&[a, b]);
        let rich: Vec<HostId> = w.supernodes[2..].to_vec();
        let homes: Vec<HostId> =
            [a, b].iter().flat_map(|l| w.status(*l).homes).map(|(home, _)| w.host_of(home)).collect();
        let t = w.transfer(a, b, 1_500_000, 0);
        w.until("over", secs(120), |w| ends(w, t).iter().any(Option::is_some) || w.is_done(t));
        let relays = w.supernodes.clone();
        let carried: Vec<u64> = relays.iter().map(|s| w.status(*s).counters.forwarded_bytes).collect();
        eprintln!("seed {seed}: homes {homes:?}, carried {carried:?}, ends {:?}", ends(&w, t));
        if homes.iter().any(|home| rich.contains(home)) {
            assert!(w.is_done(t), "there was another relay");
            assert!(rich.contains(&via(&w, a, b).expect("relayed")));
        }
    }
}

#[test]
fn a_pair_whose_bytes_are_used_up_ends_with_that_reason_at_both_ends_within_a_second() {
    let mut w = World::new(7);
    w.add_supernode_with(|c| c.relay_quota_bytes = 500_000);
    let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 5_000_000, 0);
    w.until("both ended", secs(60), |w| ends(w, t).iter().all(Option::is_some));
    for host in [a, b] {
        let (_, relay, limit) = limited(&w, host).expect("it was told");
        assert_eq!((relay, limit), (w.supernodes[0], RelayLimit::Pair));
    }
    let met = limited(&w, a).zip(limited(&w, b)).map(|(a, b)| a.0.min(b.0)).expect("told");
    for end in ends(&w, t) {
        let (at, end) = end.expect("ended");
        assert!(matches!(end, StreamEnd::RelayLimited { limit: RelayLimit::Pair, .. }), "{end:?}");
        assert!(at - met <= secs(1), "{:?} after it was met", at - met);
    }
    let carried = w.status(w.supernodes[0]).counters.forwarded_bytes;
    assert!(carried <= 500_000 + 33_000, "{carried} bytes of 500 000");
    let known = w.status(a).limited_relays;
    assert_eq!((known[0].relay, known[0].peer), (w.peer(w.supernodes[0]), Some(w.peer(b))));
    w.run_for(secs(60));
    assert_eq!(w.path(a, b), None);
    // Whoever tries again is told again, and does not wait.
    let before = w.now();
    let t = w.transfer(a, b, 1_000, 0);
    w.until("ended again", secs(10), |w| w.client(t).ended.is_some());
    assert!(w.now() - before < secs(4));
    assert!(matches!(w.client(t).ended, Some((_, StreamEnd::RelayLimited { .. }))), "{:?}", w.client(t).ended);
}

#[test]
fn a_relay_whose_30_days_are_used_up_says_so_to_both_ends() {
    let mut w = World::new(8);
    w.add_supernode_with(|c| c.relay_total_quota_bytes = 500_000);
    let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
    w.settle_homes(&[a, b]);
    let t = w.transfer(b, a, 0, 5_000_000);
    w.until("both ended", secs(60), |w| ends(w, t).iter().all(Option::is_some));
    let met = limited(&w, a).zip(limited(&w, b)).map(|(a, b)| a.0.min(b.0)).expect("told");
    for end in ends(&w, t) {
        let (at, end) = end.expect("ended");
        let StreamEnd::RelayLimited { limit: RelayLimit::Relay, retry_after_s } = end else { panic!("{end:?}") };
        assert!((29 * 86_400..=30 * 86_400 + 1).contains(&retry_after_s), "{retry_after_s} s");
        assert!(at - met <= secs(1), "{:?} after it was met", at - met);
    }
}

#[test]
fn a_direct_link_does_not_care_that_its_relay_is_used_up() {
    let mut w = World::new(9);
    w.add_supernode_with(|c| c.relay_quota_bytes = 20_000);
    let spec = NatSpec::port_restricted();
    let (a, b) = (w.add_leaf_behind(spec), w.add_leaf_behind(spec));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 2_000_000, 2_000_000);
    let took: Duration = w.finish("a direct transfer", secs(60), &[t]);
    assert!(w.is_direct(a, b), "{took:?}");
}

/// Two leaves, each at home at two of these supernodes.
fn at_home(seed: u64, supernodes: usize) -> (World, HostId, HostId) {
    let mut w = World::new(seed);
    w.add_supernodes(supernodes);
    let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
    w.settle_homes(&[a, b]);
    (w, a, b)
}

#[test]
fn a_link_whose_relay_is_far_moves_to_a_near_one_and_loses_nothing() {
    let mut moved = 0;
    for seed in 20..26 {
        let (mut w, a, b) = at_home(seed, 4);
        let far = w.host_of(w.status(b).homes[0].0);
        for leaf in [a, b] {
            w.degrade(leaf, far, Way { loss: Chance::NEVER, delay: ms(150) });
        }
        let t = w.transfer(a, b, 100, 100);
        w.finish("a first transfer", secs(10), &[t]);
        let first = via(&w, a, b).expect("relayed");
        let t = w.transfer(a, b, 6_000_000, 0);
        w.run_for(secs(20));
        let now = via(&w, a, b).expect("relayed");
        w.finish("the transfer", secs(120), &[t]);
        assert_eq!(via(&w, a, b), via(&w, b, a), "both go the same way");
        let rtt = w.node(a).path_of(&w.peer(b)).and_then(|(_, rtt)| rtt);
        eprintln!("seed {seed}: {first:?} to {now:?}, {rtt:?}");
        moved += usize::from(now != first);
    }
    assert!(moved >= 4, "{moved} of 6 moved");
}

#[test]
fn a_link_whose_relay_is_as_near_as_others_stays() {
    let (mut w, a, b) = at_home(27, 4);
    let t = w.transfer(a, b, 100, 100);
    w.finish("a first transfer", secs(10), &[t]);
    assert!(w.is_relayed(a, b));
    let first = via(&w, a, b);
    let forwarded = |w: &World| w.supernodes.iter().filter(|s| w.status(**s).channels > 0).count();
    let before = forwarded(&w);
    let t = w.transfer(a, b, 6_000_000, 0);
    w.finish("the transfer", secs(120), &[t]);
    assert_eq!(via(&w, a, b), first);
    assert_eq!(forwarded(&w), before, "no channel was opened for nothing");
}

/// With seed 47 the goodbye went by the limited relay alone, which did not carry it, and not by the one that did: the
/// other end waited for five minutes.
#[test]
fn whatever_is_lost_a_limited_transfer_comes_to_an_end_at_both_ends() {
    for (seed, rich) in (40..52).zip([0, 1].into_iter().cycle()) {
        let mut w = World::new(seed);
        w.add_supernode_with(|c| c.relay_quota_bytes = 200_000);
        for _ in 0..rich {
            w.add_supernode_with(|c| c.relay_quota_bytes = 0);
        }
        let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
        w.settle_homes(&[a, b]);
        let t = w.transfer(a, b, 0, 1_000_000);
        w.until("it has begun", secs(10), |w| w.client(t).in_pos > 10_000);
        w.wire.faults = Faults::lossy(20);
        let is_over = |w: &World| w.client(t).is_over() && w.server(t).is_none_or(Side::is_over);
        let ended = w.until_or(secs(120), is_over);
        eprintln!("seed {seed}: {:?} done {:?}", ends(&w, t), w.client(t).done);
        assert!(ended, "seed {seed} hangs: {:?}", w.client(t));
        assert!(rich > 0 || w.client(t).ended.is_some(), "more came than the relay may carry");
    }
}

#[test]
fn the_relays_day_over_the_pair_goes_on_through_it() {
    let mut w = World::new(60);
    w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
    let (a, b) = (add_leaf(&mut w), add_leaf(&mut w));
    w.settle_homes(&[a, b]);
    let t = w.transfer(a, b, 5_000_000, 0);
    w.until("ended", secs(60), |w| ends(w, t).iter().all(Option::is_some));
    let Some((_, StreamEnd::RelayLimited { retry_after_s, .. })) = w.client(t).ended else { panic!("limited") };
    w.run_for(secs(u64::from(retry_after_s)));
    let t = w.transfer(a, b, 100_000, 0);
    w.finish("the day after", secs(30), &[t]);
}

fn homes(w: &World, leaf: HostId) -> Vec<HostId> {
    w.status(leaf).homes.iter().map(|(home, _)| w.host_of(*home)).collect()
}

/// Whether two leaves have no home in common.
fn are_strangers(w: &World, a: HostId, b: HostId) -> bool {
    homes(w, a).iter().all(|home| !homes(w, b).contains(home))
}

/// A network, and two leaves in it that have no home in common.
fn strangers() -> (World, HostId, HostId) {
    let mut w = World::new(12);
    w.add_supernodes(12);
    let told_of = |w: &mut World, first: usize| {
        w.first_contact = first;
        add_leaf(w)
    };
    let leaves: Vec<HostId> = (0..8).map(|n| told_of(&mut w, n)).collect();
    w.settle_homes(&leaves);
    let mut pairs = leaves.iter().flat_map(|a| leaves.iter().map(|b| (*a, *b)));
    let (a, b) = pairs.find(|(a, b)| are_strangers(&w, *a, *b)).expect("two without a home in common");
    (w, a, b)
}

/// As after a partition of ten minutes, or a crash: whoever begins a link anew has lost the old one, and the home of the
/// callee does not know that yet. The channel of the call closed when the new link took the old one's place, and what
/// was sent first was lost.
#[test]
fn regression_a_call_outlives_the_old_link_that_the_callees_home_still_has_to_the_caller() {
    let (mut w, a, b) = strangers();
    let call = |w: &mut World| {
        let (since, peer) = (w.now(), w.peer(b));
        w.with(a, |node, now| node.ping(now, peer)).expect("begun");
        let is_pong = |event: &Event| matches!(event, Event::Pong { peer: from, .. } if *from == peer);
        w.until("answered", secs(5), |w| w.events_since(a, since).any(is_pong));
    };
    call(&mut w);
    w.crash(a);
    w.start(a);
    w.settle_homes(&[a]);
    let caller = w.peer(a);
    let stale = |w: &World| homes(w, b).iter().any(|home| w.status(*home).peers.iter().any(|p| p.peer == caller));
    assert!(are_strangers(&w, a, b) && stale(&w), "a home of the callee believes in a link to the caller");
    call(&mut w);
}

/// The link to the callee's home is one that nothing needed for a minute. It ended when the home was just bringing the
/// call to the callee; its channel ended with it, and what was sent first over the next one was lost at the callee.
#[test]
fn regression_a_call_is_not_lost_by_the_end_of_an_idle_link_to_the_callees_home() {
    let (mut w, a, b) = strangers();
    // One of these ends the wait between the question to the home and its answer.
    for wait in [59_880, 59_900, 59_920, 59_940, 59_960] {
        let (since, peer) = (w.now(), w.peer(b));
        w.with(a, |node, now| node.ping(now, peer)).expect("begun");
        w.run_for(secs(5));
        let is_pong = |event: &Event| matches!(event, Event::Pong { peer: from, .. } if *from == peer);
        assert!(w.events_since(a, since).any(is_pong), "lost after {wait} ms");
        w.with(a, |node, now| node.disconnect(now, &peer)).expect("linked");
        w.run_for(ms(wait));
    }
}
