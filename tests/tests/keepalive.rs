//! Keep-alive behind routers of all kinds: measured, kept per network, as seldom as the router allows, and not at all
//! for sessions that nobody uses.
//!
//! `docs/keepalive.md` holds the comparison; what it says must agree with the run, and `HANDFAST_MATRIX=write` writes
//! it anew.

use core::fmt::Write;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use handfast_core::{Event, PeerId, SocketId};
use handfast_tests::host::Seen;
use handfast_tests::kinds::BINDINGS;
use handfast_tests::{Chance, HostId, NatSpec, Place, PortAssignment, World, ms, report, secs};

/// A–home–B and back: four legs of 20 ms.
const ROUND_TRIP: Duration = ms(80);
/// LAN hops and rounding.
const SLACK: Duration = ms(2);
const HOUR: u64 = 3_600;

/// A STUN Binding request and its response (RFC 8489 §5, §14.2: 20 and 32 bytes), with IPv4 and UDP headers.
const STUN_BYTES: f64 = 20.0 + 32.0 + 2.0 * 28.0;
/// The same every 15 s, in an hour.
const STUN_15: f64 = STUN_BYTES * 240.0;
/// The same every 25 s.
const STUN_25: f64 = STUN_BYTES * 144.0;

fn behind(timeout_s: u64) -> NatSpec {
    NatSpec::port_restricted().binding_timeout(secs(timeout_s))
}

fn is_measured(w: &World, leaf: HostId) -> bool {
    w.status(leaf).binding_lifetime.is_some()
}

fn measured(w: &mut World, leaf: HostId) -> Duration {
    w.until("the router is measured", secs(HOUR), |w| is_measured(w, leaf));
    w.status(leaf).binding_lifetime.expect("measured")
}

/// The leaf's main socket on its LAN.
fn main_socket(w: &World, leaf: HostId) -> SocketAddr {
    SocketAddr::new(w.ip(leaf), w.host(leaf).sockets[&SocketId(0)].port())
}

/// How often the way from each home to the leaf's main socket had to be opened anew.
fn openings(w: &World, leaf: HostId) -> Vec<u64> {
    let (main, nat) = (main_socket(w, leaf), &w.wire.routers[w.router_of(leaf).0].nat);
    let homes = w.status(leaf).homes;
    assert_eq!(homes.len(), 2);
    let by_id: BTreeMap<PeerId, SocketAddr> = homes.into_iter().collect();
    by_id.values().map(|home| nat.opened.get(&(main, *home)).copied().unwrap_or(0)).collect()
}

/// A world of so many supernodes and leaves behind routers like these, all at home.
fn world(seed: u64, supernodes: usize, specs: &[NatSpec]) -> (World, Vec<HostId>) {
    let mut w = World::new(seed);
    w.add_supernodes(supernodes);
    w.run_for(secs(60));
    let leaves: Vec<HostId> = specs.iter().map(|spec| w.add_leaf_behind(*spec)).collect();
    w.settle_homes(&leaves);
    (w, leaves)
}

fn per_cent_fewer(bytes: f64, than: f64) -> f64 {
    (1.0 - bytes / than) * 100.0
}

// ---- bytes ----

#[derive(Clone, Copy, Default)]
struct Cost {
    /// Both homes, bytes an hour.
    steady: f64,
    /// From the first packet on, in the first hour: links, registrations, adverts, the measurement.
    first_hour: f64,
}

#[test]
fn bytes_of_the_population_against_fixed_intervals() {
    let mut w = World::new(1);
    w.add_supernodes(4);
    w.run_for(secs(60));
    let leaves: Vec<HostId> = BINDINGS.iter().map(|(timeout, _, _)| w.add_leaf_behind(behind(*timeout))).collect();
    w.settle_homes(&leaves);
    w.run_for(secs(HOUR));
    let first: Vec<f64> = leaves.iter().map(|leaf| w.traffic(*leaf).bytes() as f64).collect();
    assert!(leaves.iter().all(|leaf| is_measured(&w, *leaf)));
    let before: Vec<_> =
        leaves.iter().map(|leaf| (w.traffic(*leaf), openings(&w, *leaf), w.status(*leaf).homes)).collect();
    // A whole day: with the daily check, renewed records, rekeys, adverts and dial-backs.
    w.run_for(secs(24 * HOUR));

    let mut table = String::from(
        "| router | forgets after | leaves in 100 | measured | a beat every | bytes/h, one home | bytes/h, two homes | first hour, two homes | fewer than STUN every 15 s: one home, two | fewer than every 25 s: one home, two |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut mix = Cost::default();
    for (at, (timeout, share, kind)) in BINDINGS.iter().enumerate() {
        let (leaf, status) = (leaves[at], w.status(leaves[at]));
        // They take turns at being named first.
        let ids = |homes: &[(PeerId, SocketAddr)]| homes.iter().map(|(id, _)| *id).collect::<BTreeSet<PeerId>>();
        assert_eq!(ids(&status.homes), ids(&before[at].2), "a quiet network");
        assert_eq!(openings(&w, leaf), before[at].1, "{timeout} s: the way in was lost");
        let lifetime = status.binding_lifetime.expect("measured").as_secs_f64();
        let truth = (*timeout as f64).min(300.0);
        assert!(lifetime <= truth && lifetime >= truth * 0.9, "{timeout} s was measured as {lifetime} s");
        let cost = Cost { steady: (w.traffic(leaf) - before[at].0).bytes() as f64 / 24.0, first_hour: first[at] };
        mix.steady += cost.steady * share / 100.0;
        mix.first_hour += cost.first_hour * share / 100.0;
        let interval = status.keepalive_interval.as_secs_f64();
        row(&mut table, &format!("{kind} | {timeout} s | {share} | {lifetime} s | {interval:.1} s"), cost);
        if *timeout == 180 {
            assert!(cost.steady / 2.0 <= STUN_15 / 10.0, "{} bytes an hour for each binding", cost.steady / 2.0);
        }
    }
    row(&mut table, "**all** | | 100 | |", mix);
    eprintln!("{table}");
    assert!(per_cent_fewer(mix.steady / 2.0, STUN_15) >= 70.0);
    assert!(per_cent_fewer(mix.steady / 2.0, STUN_25) >= 50.0);
    // Even both homes together cost less than one fixed binding.
    assert!(per_cent_fewer(mix.steady, STUN_15) >= 65.0);
    assert!(per_cent_fewer(mix.steady, STUN_25) >= 40.0);
    if report::is_writing() {
        report::write_in("keepalive.md", "population", &table);
    }
    agrees(&report::read_in("keepalive.md", "population"), &table);
}

fn row(table: &mut String, name: &str, cost: Cost) {
    let fewer = |than| (per_cent_fewer(cost.steady / 2.0, than), per_cent_fewer(cost.steady, than));
    let ((a, b), (c, d)) = (fewer(STUN_15), fewer(STUN_25));
    let Cost { steady, first_hour } = cost;
    writeln!(
        table,
        "| {name} | {:.0} | {steady:.0} | {first_hour:.0} | {a:.0} %, {b:.0} % | {c:.0} %, {d:.0} % |",
        steady / 2.0
    )
    .expect("a string takes it");
}

/// The committed table has the same rows, and its bytes differ by less than a tenth.
fn agrees(committed: &str, table: &str) {
    let (old, new) = (report::rows(committed), report::rows(table));
    assert_eq!(old.len(), new.len(), "docs/keepalive.md is of another time");
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(old[..5], new[..5], "docs/keepalive.md is of another time");
        for (a, b) in old[5..8].iter().zip(&new[5..8]) {
            let (a, b): (f64, f64) = (a.parse().expect("bytes"), b.parse().expect("bytes"));
            assert!((a - b).abs() <= b / 10.0, "docs/keepalive.md says {a}, it is {b}: {new:?}");
        }
    }
}

// ---- measuring ----

#[test]
fn a_measurement_holds_under_loss_and_no_binding_is_lost() {
    let specs: Vec<NatSpec> = [10, 30, 60, 120].into_iter().map(behind).collect();
    let (mut w, leaves) = world(2, 3, &specs);
    w.wire.faults.loss = Chance::percent(1);
    w.run_for(secs(2 * HOUR));
    for (leaf, truth) in leaves.iter().zip([10.0, 30.0, 60.0, 120.0]) {
        let lifetime = w.status(*leaf).binding_lifetime.expect("measured").as_secs_f64();
        assert!(lifetime <= truth && lifetime >= truth * 0.8, "{truth} s was measured as {lifetime} s");
    }
    w.calm();
    w.run_for(secs(400));
    let before: Vec<_> = leaves.iter().map(|leaf| openings(&w, *leaf)).collect();
    w.run_for(secs(2 * HOUR));
    for (leaf, before) in leaves.iter().zip(before) {
        assert_eq!(openings(&w, *leaf), before);
    }
}

#[test]
fn what_was_measured_is_known_after_a_restart_and_back_in_the_same_network() {
    let (mut w, leaves) = world(3, 3, &[behind(60)]);
    let (leaf, home) = (leaves[0], w.router_of(leaves[0]));
    let lifetime = measured(&mut w, leaf);
    w.run_for(secs(30));
    w.crash(leaf);
    w.run_for(secs(5));
    w.start(leaf);
    w.settle_homes(&[leaf]);
    w.run_for(secs(5));
    assert_eq!(w.status(leaf).binding_lifetime, Some(lifetime), "kept over a restart");
    assert_eq!(w.host(leaf).sockets.len(), 1, "nothing is measured");

    let elsewhere = w.add_router(behind(30));
    w.move_host(leaf, Place::Behind(elsewhere));
    w.tell_network(leaf);
    w.run_for(secs(1));
    assert_eq!(w.status(leaf).binding_lifetime, None, "another network");
    let there = measured(&mut w, leaf);
    assert!(there <= secs(30) && there >= secs(27), "{there:?}");
    w.move_host(leaf, Place::Behind(home));
    w.tell_network(leaf);
    w.run_for(secs(15));
    assert_eq!(w.status(leaf).binding_lifetime, Some(lifetime), "known from before");
    assert_eq!(w.host(leaf).saved.bindings.len(), 2);
}

#[test]
fn a_router_that_forgets_sooner_than_it_did_is_found_out_and_measured_anew() {
    let spec = behind(120).ports(PortAssignment::Random);
    let (mut w, leaves) = world(4, 3, &[spec]);
    let (leaf, router) = (leaves[0], w.router_of(leaves[0]));
    assert!(measured(&mut w, leaf) >= secs(109));
    w.wire.routers[router.0].nat.spec.binding_timeout = secs(30);
    let noticed = w.until("the miss is noticed", secs(300), |w| !is_measured(w, leaf));
    assert!(noticed <= secs(120), "the next beat shows it: {noticed:?}");
    assert_eq!(w.status(leaf).keepalive_interval, secs(15));
    let lifetime = measured(&mut w, leaf);
    assert!(lifetime <= secs(30) && lifetime >= secs(27), "{lifetime:?}");
    let before = openings(&w, leaf);
    w.run_for(secs(HOUR));
    assert_eq!(openings(&w, leaf), before, "none lost any more");
}

#[test]
fn a_restarted_router_costs_one_measurement_and_no_home() {
    let (mut w, leaves) = world(5, 3, &[behind(60).ports(PortAssignment::Random)]);
    let leaf = leaves[0];
    measured(&mut w, leaf);
    let homes = w.status(leaf).homes;
    w.reboot_router(w.router_of(leaf));
    w.run_for(secs(1_800));
    assert_eq!(w.status(leaf).homes, homes);
    assert!(is_measured(&w, leaf));
    assert_eq!(w.host(leaf).saved.bindings.len(), 1);
}

#[test]
fn a_leaf_that_the_internet_reaches_measures_nothing_and_only_asks_for_life() {
    let mut w = World::new(6);
    w.add_supernodes(5);
    w.run_for(secs(60));
    let leaf = w.add_leaf(Place::Public);
    w.settle_homes(&[leaf]);
    w.run_for(secs(60));
    assert_eq!(w.status(leaf).reachable, Some(true));
    w.capture(leaf);
    w.run_for(secs(2 * HOUR));
    let status = w.status(leaf);
    assert_eq!((status.binding_lifetime, status.keepalive_interval), (None, secs(300)));
    assert_eq!(status.homes.len(), 2);
    let kinds = |kind| w.captured(leaf).iter().filter(|s| s.outbound && s.kind() == kind).count();
    assert_eq!(kinds(6), 0, "no beats");
    assert!((40..=50).contains(&kinds(8)), "{} asks of two homes in two hours", kinds(8));
    assert_eq!(w.host(leaf).sockets_opened(), 0, "no sockets of the measurement");
}

#[test]
fn a_home_that_dies_in_the_middle_of_a_measurement_does_not_stop_it() {
    let (mut w, leaves) = world(7, 4, &[behind(60)]);
    let leaf = leaves[0];
    w.run_for(secs(20));
    assert!(w.host(leaf).sockets.len() > 1, "it is measuring");
    let homes: Vec<HostId> = w.status(leaf).homes.iter().map(|(home, _)| w.host_of(*home)).collect();
    w.crash(homes[0]);
    let lifetime = measured(&mut w, leaf);
    assert!(lifetime <= secs(60) && lifetime >= secs(54), "{lifetime:?}");
    w.run_for(secs(60));
    assert_eq!(w.host(leaf).sockets.len(), 1, "all of its sockets are closed");
}

#[test]
fn beats_of_two_homes_are_half_an_interval_apart() {
    let (mut w, leaves) = world(8, 3, &[behind(120)]);
    let leaf = leaves[0];
    measured(&mut w, leaf);
    w.run_for(secs(400));
    w.capture(leaf);
    w.run_for(secs(HOUR));
    let interval = w.status(leaf).keepalive_interval;
    let homes: Vec<SocketAddr> = w.status(leaf).homes.iter().map(|h| h.1).collect();
    let beats = |home: SocketAddr| {
        let mine = move |s: &&Seen| s.outbound && s.remote == home && matches!(s.kind(), 6 | 8);
        w.captured(leaf).iter().filter(mine).map(|s| s.at).collect::<Vec<_>>()
    };
    let (one, other) = (beats(homes[0]), beats(homes[1]));
    let mut close = 0;
    for at in &one {
        let nearest = other.iter().map(|o| o.as_micros().abs_diff(at.as_micros())).min().expect("some");
        close += usize::from(Duration::from_micros(nearest) < interval / 5);
    }
    // Other traffic brings them out of step, until the next beat.
    assert!(one.len() >= 30 && close <= 2, "{close} of {} together", one.len());
}

// ---- sessions ----

/// Two leaves that have talked, directly, and rest.
fn talked(seed: u64, spec: NatSpec) -> (World, HostId, HostId) {
    let (mut w, a, b) = World::pair(seed, spec, spec);
    w.run_for(secs(100));
    let t = w.transfer(a, b, 100, 100);
    w.finish("a first transfer", secs(10), &[t]);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    (w, a, b)
}

fn external(w: &World, leaf: HostId) -> core::net::IpAddr {
    w.wire.routers[w.router_of(leaf).0].nat.external()
}

#[test]
fn an_idle_session_sends_nothing_and_neither_side_takes_the_other_for_gone() {
    let (mut w, a, b) = talked(10, behind(120));
    w.run_for(secs(65));
    for host in [a, b] {
        w.capture(host);
    }
    let since = w.now();
    w.run_for(secs(480));
    for (host, other) in [(a, b), (b, a)] {
        let to = external(&w, other);
        assert_eq!(w.captured(host).iter().filter(|s| s.remote.ip() == to).count(), 0, "packets for an idle session");
        assert!(!w.events_since(host, since).any(|e| matches!(e, Event::PeerGone { .. })));
    }
    // Beyond ten minutes the link is forgotten, on both sides, without a word between them.
    w.run_for(secs(200));
    for (host, other) in [(a, b), (b, a)] {
        let peer = w.peer(other);
        assert!(w.status(host).peers.iter().all(|p| p.peer != peer), "still kept");
    }
}

#[test]
fn the_next_byte_of_a_dormant_session_takes_a_round_trip_and_a_half_and_is_direct_after_as_many_more() {
    // While the channel of the relay stands; when only the keys are left; when nothing is left but where the homes are.
    for idle_s in [70, 90, 200, 500, 590, 700, 3_000] {
        for from_caller in [true, false] {
            let (mut w, a, b) = talked(11, behind(60));
            w.run_for(secs(idle_s));
            let (from, to) = if from_caller { (a, b) } else { (b, a) };
            let ticket = w.ticket(to);
            w.with(from, |node, now| node.learn(now, &ticket)).expect("learn");
            let began = w.now();
            let t = w.transfer(from, to, 100, 100);
            w.until("the first byte", secs(10), |w| w.server(t).is_some_and(|s| s.first_byte.is_some()));
            let first = w.now().since(began);
            assert!(first <= ROUND_TRIP * 3 / 2 + SLACK, "{idle_s} s, {from_caller}: the first byte took {first:?}");
            w.finish("the answer", secs(10), &[t]);
            let done = w.now().since(began);
            assert!(done <= ROUND_TRIP * 3 + SLACK, "{idle_s} s, {from_caller}: all took {done:?}");
            w.until("direct", secs(10), |w| w.is_direct(a, b));
            let direct = w.now().since(began);
            assert!(direct <= ROUND_TRIP * 4 + SLACK, "{idle_s} s, {from_caller}: direct took {direct:?}");
        }
    }
}

#[test]
fn both_sides_of_a_dormant_session_wake_it_at_once() {
    for idle_s in [100, 400] {
        let (mut w, a, b) = talked(12, behind(60));
        w.run_for(secs(idle_s));
        let all = [w.transfer(a, b, 1000, 1000), w.transfer(b, a, 1000, 1000)];
        let took = w.finish("both", secs(10), &all);
        assert!(took <= secs(2), "{took:?}");
        w.until("direct", secs(10), |w| w.is_direct(a, b));
    }
}

#[test]
fn a_ping_and_a_datagram_wake_a_dormant_session_and_are_not_lost() {
    let (mut w, a, b) = talked(13, behind(60));
    w.run_for(secs(400));
    let (since, peer) = (w.now(), w.peer(b));
    w.with(a, |node, now| node.ping(now, peer)).expect("ping");
    w.run_for(secs(1));
    assert_eq!(w.events_since(a, since).filter(|e| matches!(e, Event::Pong { .. })).count(), 1);
    w.run_for(secs(400));
    let since = w.now();
    w.with(a, |node, now| node.send_datagram(now, peer, b"hello")).expect("the link is kept");
    w.run_for(secs(1));
    let from = w.peer(a);
    assert_eq!(w.events_since(b, since).filter(|e| **e == Event::Datagram { peer: from }).count(), 1);
}

#[test]
fn waking_a_session_with_a_peer_that_is_gone_fails_in_seconds() {
    let (mut w, a, b) = talked(14, behind(60));
    w.run_for(secs(300));
    w.crash(b);
    w.run_for(secs(100));
    let (since, peer) = (w.now(), w.peer(b));
    w.with(a, |node, now| node.connect(now, peer)).expect("connect");
    let is_told = |e: &Event| matches!(e, Event::ConnectFailed { .. } | Event::PeerGone { .. });
    w.until("it is told", secs(50), |w| w.events_since(a, since).any(is_told));
}

#[test]
fn a_session_with_an_open_stream_stays_direct_for_hours() {
    let (mut w, a, b) = talked(15, behind(60));
    let (peer, service) = (w.peer(b), handfast_tests::XFER.parse().expect("a service name"));
    w.with(a, |node, now| node.open(now, peer, &service)).expect("a stream that stays open");
    w.run_for(secs(600));
    let since = w.now();
    let (from, nat) = (main_socket(&w, a), w.router_of(a).0);
    let to = SocketAddr::new(external(&w, b), main_socket(&w, b).port());
    let before = w.wire.routers[nat].nat.opened.get(&(from, to)).copied();
    w.run_for(secs(2 * HOUR));
    assert!(w.is_direct(a, b));
    assert_eq!(w.wire.routers[nat].nat.opened.get(&(from, to)).copied(), before, "the way in was lost");
    for host in [a, b] {
        assert!(!w.events_since(host, since).any(|e| matches!(e, Event::PathChanged { .. } | Event::PeerGone { .. })));
    }
}

#[test]
fn regression_a_node_in_role_auto_measures_its_router_as_a_leaf_does() {
    let mut w = World::new(16);
    w.add_supernodes(4);
    w.run_for(secs(60));
    let router = w.add_router(behind(60));
    let leaf = w.add_leaf_with(Place::Behind(router), |config| config.role = handfast_core::Role::Auto);
    w.settle_homes(&[leaf]);
    let lifetime = measured(&mut w, leaf);
    assert!(lifetime <= secs(60) && lifetime >= secs(54), "{lifetime:?}");
    w.run_for(secs(60));
    assert_eq!(w.status(leaf).keepalive_interval + secs(2), lifetime.mul_f64(0.8));
}

/// A call goes through the callee's home. Where that is one that the caller has sent nothing for twenty minutes, a
/// router that maps by destination has forgotten it, as it should, and shows it another port.
#[test]
fn regression_a_supernode_that_is_no_home_says_nothing_of_what_a_router_remembers() {
    let mut elsewhere = 0;
    for seed in 0..12 {
        let random = NatSpec::fully_dependent();
        let (mut w, a, b) = World::pair(seed, random, random);
        let lifetime = measured(&mut w, a);
        w.run_for(secs(1_200));
        let (since, before) = (w.now(), w.status(a));
        let t = w.transfer(a, b, 1_000, 1_000);
        w.finish("a transfer", secs(5), &[t]);
        w.run_for(secs(5));
        let is_home = |peer| before.homes.iter().any(|(home, _)| *home == peer);
        let news = w.status(a).observed.into_iter().filter(|seen| !before.observed.contains(seen));
        elsewhere += news.filter(|(by, _)| !is_home(*by)).count();
        assert_eq!(w.status(a).binding_lifetime, Some(lifetime), "seed {seed}");
        assert!(!w.events_since(a, since).any(|e| matches!(e, Event::OpenSocket { .. })), "seed {seed}: measured anew");
    }
    assert!(elsewhere > 0, "no supernode saw anything else: the test proves nothing");
}
