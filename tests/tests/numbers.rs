//! The numbers that this project holds itself to, counted at IP level (IPv4: payload and 28 bytes) in virtual time.

use core::net::IpAddr;

use handfast_core::PeerId;
use handfast_tests::host::Seen;
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

/// Introduction, at the home, 8 candidates of which 4 IPv6.
const INTRODUCTION_BYTES_MAX: usize = 1300;
const INTRODUCTION_PACKETS: usize = 4;
/// Registration, both ways.
const REGISTRATION_BYTES_MAX: usize = 450;
/// A–home–B and back: four legs of 20 ms.
const ROUND_TRIP_MS: u64 = 80;
/// An idle leaf, at each home, where the router keeps a binding for 120 s.
const IDLE_BYTES_PER_S_MAX: f64 = 0.75;
const DAY_S: u64 = 86_400;
/// LAN hops and rounding.
const SLACK_MS: u64 = 2;

/// A leaf with more addresses than it may name: with the observed one at least 8, of which more than 4 IPv6.
fn many_addresses(w: &mut World) -> HostId {
    let router = w.add_router(NatSpec::port_restricted());
    let leaf = w.add_leaf_down(Place::DualStack(router), |_| {});
    let own = w.host(leaf).attachments.iter().map(|a| a.ip);
    let more_v4 = (0..4u8).map(|n| IpAddr::from([172, 16, leaf.0 as u8, n + 1]));
    let more_v6 = (0..5u16).map(|n| IpAddr::from([0x2001, 0xdb8, 0xff00, leaf.0 as u16, 0, 0, 0, n + 1]));
    let pretended = own.chain(more_v4).chain(more_v6).collect();
    w.hosts[leaf.0].pretended = Some(pretended);
    w.start(leaf);
    leaf
}

fn homes(w: &World, leaf: HostId) -> Vec<PeerId> {
    w.status(leaf).homes.iter().map(|h| h.0).collect()
}

/// A quiet world in which A and B have no home in common, and A has B's ticket.
fn strangers(simple: bool) -> (World, HostId, HostId) {
    let mut w = World::new(1);
    w.add_supernodes(6);
    w.run_for(secs(120));
    let add = |w: &mut World| if simple { w.add_leaf_behind(NatSpec::port_restricted()) } else { many_addresses(w) };
    let a = add(&mut w);
    w.settle_homes(&[a]);
    // Homes are drawn from all supernodes that the first contact tells of, so B is the first that shares none.
    let share = |w: &World, b| homes(w, b).iter().any(|h| homes(w, a).contains(h));
    let mut b = add(&mut w);
    w.settle_homes(&[b]);
    while share(&w, b) {
        assert!(w.hosts.len() < 60, "all leaves choose the same homes");
        b = add(&mut w);
        w.settle_homes(&[b]);
    }
    w.run_for(secs(100));
    let ticket = w.ticket(b);
    w.with(a, |node, now| node.learn(now, &ticket)).expect("learn");
    w.run_for(secs(10));
    (w, a, b)
}

fn external(w: &World, leaf: HostId) -> IpAddr {
    w.wire.routers[w.router_of(leaf).0].nat.external()
}

/// What B's homes saw of A and B, beats and relayed packets left out.
fn at_homes(w: &World, a: HostId, b: HostId) -> Vec<Seen> {
    let ends = [external(w, a), external(w, b)];
    let mine = |s: &&Seen| ends.contains(&s.remote.ip()) && !matches!(s.kind(), 5 | 6 | 8);
    homes(w, b)
        .iter()
        .flat_map(|h| w.captured(w.host_of(*h)).iter().filter(mine).cloned().collect::<Vec<_>>())
        .collect()
}

#[test]
fn an_introduction_costs_the_home_1300_bytes_in_4_packets_and_a_confirmation() {
    let (mut w, a, b) = strangers(false);
    for home in homes(&w, b) {
        let home = w.host_of(home);
        w.capture(home);
    }
    let t = w.transfer(a, b, 100, 100);
    w.run_for(secs(3));
    assert!(w.is_done(t));
    let seen = at_homes(&w, a, b);
    let shown: Vec<_> = seen.iter().map(|s| (s.outbound, s.kind(), s.ip_len())).collect();
    let bytes: usize = seen.iter().map(Seen::ip_len).sum();
    eprintln!("introduction: {bytes} bytes in {} packets: {shown:?}", seen.len());
    assert!(seen.len() <= INTRODUCTION_PACKETS + 1, "{} packets: {shown:?}", seen.len());
    assert!(bytes <= INTRODUCTION_BYTES_MAX, "{bytes} bytes: {shown:?}");
}

#[test]
fn the_supernode_counts_its_introductions_itself() {
    let (mut w, a, b) = strangers(true);
    let count = |w: &World| {
        let all = homes(w, b).into_iter().map(|h| w.status(w.host_of(h)).counters);
        all.fold((0, 0, 0), |t, c| (t.0 + c.introductions, t.1 + c.introduction_datagrams, t.2 + c.introduction_bytes))
    };
    let before = count(&w);
    w.transfer(a, b, 100, 100);
    w.run_for(secs(3));
    let after = count(&w);
    assert_eq!(after.0 - before.0, 1);
    let (packets, bytes) = (after.1 - before.1, after.2 - before.2);
    assert!((4..=5).contains(&packets), "{packets} packets");
    assert!((300..=INTRODUCTION_BYTES_MAX as u64).contains(&(bytes + 28 * packets)), "{bytes} bytes of payload");
}

#[test]
fn a_registration_costs_450_bytes_both_ways() {
    let mut w = World::new(1);
    let home = w.add_supernode();
    w.run_for(secs(60));
    w.capture(home);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.until("ready", secs(10), |w| w.is_ready(a));
    w.run_for(ms(30));
    let from = external(&w, a);
    let seen: Vec<&Seen> = w.captured(home).iter().filter(|s| s.remote.ip() == from).collect();
    let shown: Vec<_> = seen.iter().map(|s| (s.outbound, s.kind(), s.ip_len())).collect();
    let all: usize = seen.iter().map(|s| s.ip_len()).sum();
    // What is bounded is the question and its answer. Before them the link is opened (284 bytes, once for whatever it
    // is used for), and load and adverts are asked for, without which there is no choice of homes.
    let [.., question, answer] = &seen[..] else { panic!("{shown:?}") };
    assert!(!question.outbound && answer.outbound && question.kind() == 4 && answer.kind() == 4, "{shown:?}");
    let bytes = question.ip_len() + answer.ip_len();
    assert!(question.ip_len() >= 200, "a record is longer: {shown:?}");
    eprintln!("registration: {bytes} bytes, {all} in {} packets from the first Init: {shown:?}", seen.len());
    assert!(bytes <= REGISTRATION_BYTES_MAX, "{bytes} bytes: {shown:?}");
    assert!(all <= 2 * REGISTRATION_BYTES_MAX, "{all} bytes: {shown:?}");
}

#[test]
fn the_first_byte_arrives_after_one_and_a_half_round_trips_and_the_path_is_direct_after_as_many_more() {
    let (mut w, a, b) = strangers(true);
    let began = w.now();
    let t = w.transfer(a, b, 100, 100);
    w.until("the first byte", secs(5), |w| w.server(t).is_some_and(|s| s.first_byte.is_some()));
    let first = w.now().since(began);
    assert!(first <= ms(ROUND_TRIP_MS * 3 / 2 + SLACK_MS), "the first byte took {first:?}");
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    let direct = w.now().since(began);
    eprintln!("first byte {first:?}, direct {direct:?}");
    assert!(direct <= ms(ROUND_TRIP_MS * 3 + SLACK_MS), "direct took {direct:?}");
}

#[test]
fn without_a_ticket_the_lookup_costs_one_round_trip_more() {
    let mut w = World::new(2);
    w.add_supernodes(6);
    w.run_for(secs(120));
    let (a, b) = (w.add_leaf_behind(NatSpec::port_restricted()), w.add_leaf_behind(NatSpec::port_restricted()));
    w.settle_homes(&[a, b]);
    w.run_for(secs(100));
    let began = w.now();
    let t = w.transfer(a, b, 100, 100);
    w.until("the first byte", secs(5), |w| w.server(t).is_some_and(|s| s.first_byte.is_some()));
    let first = w.now().since(began);
    assert!(first <= ms(ROUND_TRIP_MS * 3 / 2 + 40 + SLACK_MS), "the first byte took {first:?}");
}

#[test]
fn an_idle_leaf_costs_each_home_four_bytes_a_second_with_the_measurement() {
    let mut w = World::new(3);
    w.add_supernodes(2);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a]);
    w.run_for(secs(60));
    let before = w.traffic(a);
    w.run_for(secs(1200));
    let bytes = (w.traffic(a) - before).bytes();
    // At most a beat of 45 B every 15 s and an answer to every twentieth, 3.2 B/s at each of two homes, and 2 kB.
    assert!(bytes <= 2 * 4 * 1200, "{bytes} bytes in twenty minutes at two homes");
}

/// Everything that an idle leaf sends and receives, over a day: beats and their answers, the daily check of the router,
/// renewed records, rekeys, adverts, dial-backs.
#[test]
fn an_idle_leaf_behind_a_router_of_two_minutes_costs_each_home_three_quarters_of_a_byte_a_second() {
    let mut w = World::new(3);
    w.add_supernodes(4);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    w.settle_homes(&[a]);
    w.until("the router is measured", secs(900), |w| w.status(a).binding_lifetime.is_some());
    let before = w.traffic(a);
    w.run_for(secs(DAY_S));
    let all = w.traffic(a) - before;
    let each = all.bytes() as f64 / 2.0 / DAY_S as f64;
    eprintln!("idle leaf: {each:.3} B/s at each of two homes, {} packets a day", all.packets());
    assert!(each <= IDLE_BYTES_PER_S_MAX, "{each:.3} B/s");
    assert!(each >= 0.5, "{each:.3} B/s keep no binding of two minutes at two homes");
}
