//! Volunteers: leaves behind easy routers that relay for strangers although they have no public address.

use std::collections::BTreeSet;

use handfast_core::{Access, Config, Event, PathInfo, RelayLimit, StreamEnd};
use handfast_tests::{Faults, HostId, NatSpec, Place, Side, TransferId, World, secs};

/// What each supernode relays for a pair in a day: little.
const LITTLE: u64 = 300_000;

/// A leaf that no other like it can reach directly.
fn add_hard(w: &mut World) -> HostId {
    w.add_leaf_behind(NatSpec::fully_dependent())
}

/// A leaf that volunteers, and lets nobody use anything of it.
fn add_volunteer(w: &mut World, spec: NatSpec, configure: impl FnOnce(&mut Config)) -> HostId {
    let router = w.add_router(spec);
    w.add_leaf_with(Place::Behind(router), |config| {
        config.services.clear();
        config.contacts = Access::Peers(BTreeSet::new());
        config.volunteer = true;
        configure(config);
    })
}

/// Three supernodes that relay little, two leaves that can reach nobody like them, and a volunteer behind each of these
/// routers; all are at home and have examined their routers.
fn scene(seed: u64, volunteers: &[NatSpec], configure: impl Fn(&mut Config)) -> (World, [HostId; 2], Vec<HostId>) {
    let mut w = World::new(seed);
    for _ in 0..3 {
        w.add_supernode_with(|c| c.relay_quota_bytes = LITTLE);
    }
    let pair = [add_hard(&mut w), add_hard(&mut w)];
    let volunteers: Vec<HostId> = volunteers.iter().map(|spec| add_volunteer(&mut w, *spec, &configure)).collect();
    let all: Vec<HostId> = pair.iter().chain(&volunteers).copied().collect();
    w.settle_homes(&all);
    w.run_for(secs(20));
    (w, pair, volunteers)
}

fn via(w: &World, a: HostId, b: HostId) -> Option<HostId> {
    match w.path(a, b)? {
        PathInfo::Relay { via } => Some(w.host_of(via)),
        PathInfo::Direct { .. } => None,
    }
}

/// Why both sides of a transfer ended.
fn ends(w: &World, t: TransferId) -> [Option<StreamEnd>; 2] {
    [w.client(t).ended, w.server(t).and_then(|side| side.ended)].map(|ended| ended.map(|(_, end)| end))
}

/// How many volunteers the supernodes know of, all together.
fn known(w: &World) -> usize {
    w.supernodes.iter().map(|s| w.status(*s).volunteers).sum()
}

fn is_volunteering(w: &World, leaf: HostId) -> bool {
    w.status(leaf).volunteer.is_some_and(|volunteer| volunteer.on)
}

#[test]
fn a_pair_whose_relays_carry_no_more_goes_on_through_a_volunteer_and_loses_nothing() {
    for seed in 1..4 {
        let (mut w, [a, b], v) = scene(seed, &[NatSpec::port_restricted()], |_| {});
        assert_eq!(known(&w), 2, "both its homes know of it");
        assert!(is_volunteering(&w, v[0]));
        let t = w.transfer(a, b, 2_500_000, 0);
        let took = w.finish("the transfer", secs(180), &[t]);
        let carried = w.status(v[0]).counters.forwarded_bytes;
        eprintln!("seed {seed}: {took:?}, {carried} bytes by the volunteer");
        assert_eq!((via(&w, a, b), via(&w, b, a)), (Some(v[0]), Some(v[0])));
        assert!(carried > 1_000_000);
        // 1 Mbit/s, and what the first relay carried.
        assert!(took >= secs(14), "a household would notice");
    }
}

#[test]
fn strangers_get_nothing_of_a_volunteer_and_leave_no_trace() {
    let (mut w, [a, b], v) = scene(10, &[NatSpec::port_restricted()], |_| {});
    let t = w.transfer(a, b, 1_000_000, 0);
    w.finish("the transfer", secs(120), &[t]);
    assert_eq!(via(&w, a, b), Some(v[0]));
    let strangers = [a, b].map(|leaf| w.peer(leaf));
    let status = w.status(v[0]);
    assert_eq!(status.volunteer.expect("it volunteers").guests, 2);
    let of_strangers: Vec<_> = status.peers.iter().filter(|peer| strangers.contains(&peer.peer)).collect();
    assert!(of_strangers.len() == 2 && of_strangers.iter().all(|peer| peer.control), "{of_strangers:?}");
    // The application has heard of nobody, at either side.
    let is_of = |event: &Event, whom: &[handfast_core::PeerId]| match event {
        Event::PathChanged { peer, .. } | Event::PeerGone { peer } | Event::ConnectFailed { peer, .. } => {
            whom.contains(peer)
        }
        Event::StreamIncoming { .. } | Event::Datagram { .. } => true,
        _ => false,
    };
    let events =
        |w: &World, host: HostId| w.host(host).events.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>();
    assert!(!events(&w, v[0]).iter().any(|event| is_of(event, &strangers)));
    let volunteer = [w.peer(v[0])];
    let told = events(&w, a).into_iter().filter(|event| !matches!(event, Event::StreamIncoming { .. }));
    assert!(!told.into_iter().any(|event| is_of(&event, &volunteer)));
    // It offers them nothing: a stream that a guest opens is refused.
    let t = w.transfer(a, v[0], 100, 0);
    w.until("refused", secs(30), |w| w.client(t).ended.is_some());
    // The channel is idle for ten minutes, the legs for one more.
    w.run_for(secs(800));
    assert_eq!(w.status(v[0]).volunteer.expect("it volunteers").guests, 0);
    assert_eq!(w.status(v[0]).channels, 0);
}

#[test]
fn whoever_maps_by_destination_or_was_not_asked_does_not_volunteer() {
    let (mut w, [a, b], v) = scene(11, &[NatSpec::fully_dependent()], |_| {});
    w.add_leaf_behind(NatSpec::port_restricted());
    w.run_for(secs(30));
    assert!(!is_volunteering(&w, v[0]) && known(&w) == 0);
    // More than the relays carry and a stream holds: else the sender is through before it ends.
    let t = w.transfer(a, b, 5_000_000, 0);
    w.until("both ended", secs(60), |w| ends(w, t).iter().all(Option::is_some));
    for end in ends(&w, t) {
        assert!(matches!(end, Some(StreamEnd::RelayLimited { limit: RelayLimit::Pair, .. })), "{end:?}");
    }
}

#[test]
fn a_volunteer_whose_day_is_used_up_says_so_and_begins_again_the_day_after() {
    let (mut w, [a, b], v) = scene(12, &[NatSpec::port_restricted()], |c| c.volunteer_quota_bytes = 500_000);
    let t = w.transfer(a, b, 5_000_000, 0);
    w.until("both ended", secs(180), |w| ends(w, t).iter().all(Option::is_some));
    for host in [a, b] {
        let mut limited = w.host(host).events.iter().filter_map(|(_, event)| match event {
            Event::RelayLimited { relay, limit, retry_after, .. } => Some((w.host_of(*relay), *limit, *retry_after)),
            _ => None,
        });
        let (relay, limit, retry_after) = limited.next_back().expect("it was told");
        assert_eq!((relay, limit), (v[0], RelayLimit::Pair));
        assert!(retry_after <= secs(86_400));
    }
    let carried = w.status(v[0]).counters.forwarded_bytes;
    assert!(carried <= 500_000 + 70_000, "{carried} bytes of 500 000");
    w.run_for(secs(60));
    w.run_for(secs(90_000));
    assert!(is_volunteering(&w, v[0]), "another day");
    assert_eq!(known(&w), 2);
}

#[test]
fn where_supernodes_have_room_no_volunteer_is_troubled() {
    let mut w = World::new(13);
    for _ in 0..3 {
        w.add_supernode_with(|c| c.relay_quota_bytes = 0);
    }
    let (a, b) = (add_hard(&mut w), add_hard(&mut w));
    let v: Vec<HostId> = (0..4).map(|_| add_volunteer(&mut w, NatSpec::port_restricted(), |_| {})).collect();
    w.settle_homes(&[a, b]);
    w.run_for(secs(20));
    let t = w.transfer(a, b, 10_000_000, 0);
    w.finish("the transfer", secs(120), &[t]);
    assert!(v.iter().all(|v| w.status(*v).volunteer.is_some_and(|volunteer| volunteer.guests == 0)));
}

#[test]
fn a_volunteer_that_is_gone_is_given_up_and_the_streams_end_with_the_relays_reason() {
    let (mut w, [a, b], v) = scene(23, &[NatSpec::port_restricted()], |_| {});
    w.crash(v[0]);
    let before = w.now();
    let t = w.transfer(a, b, 1_500_000, 0);
    let is_over = |w: &World| w.client(t).is_over() && w.server(t).is_none_or(Side::is_over);
    assert!(w.until_or(secs(90), is_over), "{:?} {:?}", w.client(t), w.server(t));
    let took = w.now().since(before);
    assert!(ends(&w, t).iter().any(|end| matches!(end, Some(StreamEnd::RelayLimited { .. }))), "{:?}", ends(&w, t));
    assert!(took < secs(70), "{took:?}");
}

#[test]
fn regression_relays_that_are_limited_one_after_the_other_do_not_use_up_the_rounds_of_a_link() {
    // Each of the supernodes carries a little, then one volunteer is gone, and the other one carries.
    let (mut w, [a, b], v) = scene(15, &[NatSpec::port_restricted(); 2], |_| {});
    w.crash(v[0]);
    let t = w.transfer(a, b, 1_500_000, 0);
    w.finish("the transfer", secs(180), &[t]);
    assert_eq!(via(&w, a, b), Some(v[1]));
}

#[test]
fn whatever_is_lost_a_transfer_by_a_volunteer_comes_to_an_end_at_both_ends() {
    for seed in 16..20 {
        let (mut w, [a, b], _) = scene(seed, &[NatSpec::port_restricted()], |_| {});
        let t = w.transfer(a, b, 800_000, 0);
        w.until("it has begun", secs(10), |w| w.server(t).is_some_and(|side| side.in_pos > 10_000));
        w.wire.faults = Faults::lossy(10);
        let is_over = |w: &World| w.client(t).is_over() && w.server(t).is_none_or(Side::is_over);
        let ended = w.until_or(secs(300), is_over);
        eprintln!("seed {seed}: {:?} done {:?}", ends(&w, t), w.client(t).done);
        assert!(ended, "seed {seed} hangs: {:?}", w.client(t));
    }
}

#[test]
fn a_volunteer_that_dies_while_it_carries_takes_nobody_along() {
    let (mut w, [a, b], v) = scene(21, &[NatSpec::port_restricted(); 2], |_| {});
    let t = w.transfer(a, b, 3_000_000, 0);
    w.until("a volunteer carries", secs(90), |w| v.iter().any(|v| via(w, a, b) == Some(*v)));
    let carrier = *v.iter().find(|v| via(&w, a, b) == Some(**v)).expect("one does");
    w.run_for(secs(3));
    w.crash(carrier);
    let is_over = |w: &World| w.client(t).is_over() && w.server(t).is_none_or(Side::is_over);
    assert!(w.until_or(secs(240), is_over), "it hangs: {:?}", w.client(t));
    eprintln!("{:?} done {:?}", ends(&w, t), w.client(t).done);
}
