//! Volunteers: leaves behind easy routers that relay for strangers although they have no public address.

use std::collections::BTreeSet;

use handfast_core::{Access, Config, Event, PathInfo, StreamEnd};
use handfast_tests::{Behavior, HostId, NatSpec, PortAssignment, TransferId, World, secs};

/// Nobody is let in here.
fn keep_to_itself(config: &mut Config) {
    config.services.clear();
    config.contacts = Access::Peers(BTreeSet::new());
}

/// A leaf that nobody may use anything of, and that volunteers.
fn volunteer(config: &mut Config) {
    keep_to_itself(config);
    config.volunteer = true;
}

fn add_volunteer(w: &mut World, spec: NatSpec) -> HostId {
    let router = w.add_router(spec);
    w.add_leaf_with(handfast_tests::Place::Behind(router), volunteer)
}

/// A leaf that no other like it can reach directly.
fn add_hard(w: &mut World) -> HostId {
    w.add_leaf_behind(NatSpec::fully_dependent())
}

fn via(w: &World, a: HostId, b: HostId) -> Option<HostId> {
    match w.path(a, b)? {
        PathInfo::Relay { via } => Some(w.host_of(via)),
        PathInfo::Direct { .. } => None,
    }
}

/// When and why both sides of a transfer ended.
fn ends(w: &World, t: TransferId) -> [Option<StreamEnd>; 2] {
    let end = |ended: Option<(_, StreamEnd)>| ended.map(|(_, end)| end);
    [end(w.client(t).ended), w.server(t).and_then(|side| end(side.ended))]
}

fn volunteers_at(w: &World, home: HostId) -> usize {
    w.status(home).volunteers
}

/// One supernode that relays little, two hard leaves, and these volunteers, of which it knows.
fn scene(seed: u64, volunteers: &[NatSpec]) -> (World, HostId, HostId, Vec<HostId>) {
    let mut w = World::new(seed);
    w.add_supernodes(2);
    w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
    // All are at home at the last one: the others are there to examine routers with.
    let (a, b) = (add_hard(&mut w), add_hard(&mut w));
    let volunteers: Vec<HostId> = volunteers.iter().map(|spec| add_volunteer(&mut w, *spec)).collect();
    let all: Vec<HostId> = [a, b].into_iter().chain(volunteers.iter().copied()).collect();
    w.settle_homes(&all);
    w.run_for(secs(20));
    (w, a, b, volunteers)
}

/// All supernodes relay little.
fn poor_scene(seed: u64, volunteers: &[NatSpec]) -> (World, HostId, HostId, Vec<HostId>) {
    poor_scene_with(seed, volunteers, |_| {})
}

fn poor_scene_with(
    seed: u64,
    specs: &[NatSpec],
    configure: impl Fn(&mut Config),
) -> (World, HostId, HostId, Vec<HostId>) {
    let mut w = World::new(seed);
    for _ in 0..3 {
        w.add_supernode_with(|c| c.relay_quota_bytes = 300_000);
    }
    let (a, b) = (add_hard(&mut w), add_hard(&mut w));
    let mut volunteers = Vec::new();
    for spec in specs {
        let router = w.add_router(*spec);
        let place = handfast_tests::Place::Behind(router);
        volunteers.push(w.add_leaf_with(place, |c| {
            volunteer(c);
            configure(c);
        }));
    }
    let all: Vec<HostId> = [a, b].into_iter().chain(volunteers.iter().copied()).collect();
    w.settle_homes(&all);
    w.run_for(secs(20));
    (w, a, b, volunteers)
}

#[test]
fn a_pair_whose_relays_carry_no_more_goes_on_through_a_volunteer_and_loses_nothing() {
    for seed in 1..4 {
        let (mut w, a, b, v) = poor_scene(seed, &[NatSpec::port_restricted()]);
        let known: usize = w.supernodes.iter().map(|s| volunteers_at(&w, *s)).sum();
        assert_eq!(known, 2, "both its homes know of it");
        assert!(w.status(v[0]).volunteer.expect("it volunteers").on);
        let t = w.transfer(a, b, 2_500_000, 0);
        let took = w.finish("the transfer", secs(180), &[t]);
        let carried = w.status(v[0]).counters.forwarded_bytes;
        eprintln!("seed {seed}: {took:?}, {carried} bytes by the volunteer");
        assert_eq!((via(&w, a, b), via(&w, b, a)), (Some(v[0]), Some(v[0])));
        assert!(carried > 1_000_000);
    }
}
