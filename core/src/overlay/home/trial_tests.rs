use core::time::Duration;

use super::testnet::*;
use crate::api::Event;
use crate::identity::PeerId;
use crate::wire::message::Refusal;

const SECOND: Duration = Duration::from_secs(1);

/// Eight supernodes, which answer trials so, and a leaf that has two homes.
fn network(seed: u8, answer: Option<Refusal>) -> (TestNet, PeerId, Vec<PeerId>) {
    network_of(8, seed, answer)
}

/// The same with so many.
fn network_of(count: u8, seed: u8, answer: Option<Refusal>) -> (TestNet, PeerId, Vec<PeerId>) {
    let mut net = TestNet::new(seed);
    let first = [(key(1).peer_id(), TestNet::address_of(1))];
    let supernodes: Vec<PeerId> = (1..=count).map(|n| net.supernode(n, if n == 1 { &[] } else { &first })).collect();
    net.run_for(SECOND * 10);
    for supernode in &supernodes {
        net.get_mut(supernode).trial = answer;
    }
    let leaf = net.leaf(100, &first);
    net.run_for(SECOND * 3);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    (net, leaf, supernodes)
}

/// Who was asked for trials, in order.
fn strangers(net: &TestNet, supernodes: &[PeerId]) -> Vec<PeerId> {
    supernodes.iter().flat_map(|id| net.get(id).trials.iter().map(|_| *id)).collect()
}

/// All asked for a trial since the last call.
fn taken(net: &mut TestNet, supernodes: &[PeerId]) -> Vec<(PeerId, Box<[u8]>)> {
    let mut all = Vec::new();
    for id in supernodes {
        let trials = core::mem::take(&mut net.get_mut(id).trials);
        all.extend(trials.into_iter().map(|(_, init)| (*id, init)));
    }
    all
}

#[test]
fn homes_that_two_strangers_found_useless_are_left() {
    let (mut net, leaf, supernodes) = network(1, Some(Refusal::NotRegistered));
    let before = net.homes_of(&leaf);
    net.run_for(SECOND * 12);
    assert_eq!(strangers(&net, &supernodes).len(), 1);
    assert_eq!(net.homes_of(&leaf), before, "one stranger may lie");
    net.run_for(SECOND * 65);
    let asked = strangers(&net, &supernodes);
    assert!(asked.len() >= 2 && asked[0] != asked[1], "another one is asked the second time");
    assert!(asked.iter().all(|by| !before.contains(by)), "no home is");
    let after = net.homes_of(&leaf);
    assert!(after.len() == 2 && after.iter().all(|home| !before.contains(home)), "{before:?} {after:?}");
    let events: Vec<Event> = net.get(&leaf).events.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events, [Event::Ready, Event::Homeless, Event::Ready], "it says so");
}

#[test]
fn who_cannot_tell_has_said_nothing_of_the_homes() {
    for answer in [Refusal::Busy, Refusal::NotASupernode] {
        let (mut net, leaf, supernodes) = network(2, Some(answer));
        let before = net.homes_of(&leaf);
        net.run_for(SECOND * 600);
        assert_eq!(net.homes_of(&leaf), before);
        let asked = strangers(&net, &supernodes).len();
        assert!((3..=6).contains(&asked), "{asked} trials: the wait grows");
    }
}

#[test]
fn homes_that_are_too_busy_for_every_call_are_left_in_the_end() {
    let (mut net, leaf, supernodes) = network(8, Some(Refusal::NoAnswer));
    let before = net.homes_of(&leaf);
    net.run_for(SECOND * 80);
    assert!(strangers(&net, &supernodes).len() >= 2);
    assert_eq!(net.homes_of(&leaf), before, "anybody may have made them busy for a while");
    net.run_for(SECOND * 900);
    let after = net.homes_of(&leaf);
    assert!(after.len() == 2 && after.iter().all(|home| !before.contains(home)), "{before:?} {after:?}");
}

#[test]
fn a_home_that_brought_the_call_is_good_for_hours() {
    let (mut net, leaf, supernodes) = network(3, None);
    let homes = net.homes_of(&leaf);
    let mut brought = 0;
    // The stranger's answer is 20 ms away, so that the home is quicker only where it comes at once.
    for _ in 0..8 * 3600 * 100 {
        net.run_for(Duration::from_millis(10));
        for (_, init) in taken(&mut net, &supernodes) {
            let homes_of = net.get_mut(&leaf).homes.as_mut().unwrap();
            assert!(!homes_of.on_brought(&supernodes[7], &[0; 200]), "it is not ours");
            assert!(homes.iter().all(|home| homes_of.on_brought(home, &init)));
            brought += 1;
        }
        if brought > 0 && net.now.since(crate::time::Instant::ZERO) > SECOND * 15_000 {
            break;
        }
    }
    assert!((1..=2).contains(&brought), "{brought} trials in more than four hours");
    assert!(net.homes_of(&leaf).iter().all(|home| homes.contains(home)));
}

#[test]
fn a_first_home_that_the_call_went_by_is_left_and_the_other_one_stays() {
    let (mut net, leaf, supernodes) = network(4, None);
    let homes = net.homes_of(&leaf);
    for _ in 0..12_000 {
        net.run_for(Duration::from_millis(10));
        for (_, init) in taken(&mut net, &supernodes) {
            assert!(net.get_mut(&leaf).homes.as_mut().unwrap().on_brought(&homes[1], &init));
        }
    }
    let after = net.homes_of(&leaf);
    assert!(after.len() == 2 && after.contains(&homes[1]) && !after.contains(&homes[0]), "{homes:?} {after:?}");
    assert!(!net.get(&leaf).events.iter().any(|(_, event)| *event == Event::Homeless));
}

#[test]
fn the_word_of_one_stranger_counts_once_however_often_it_comes() {
    let (mut net, leaf, supernodes) = network_of(3, 7, Some(Refusal::NotRegistered));
    let homes = net.homes_of(&leaf);
    net.run_for(SECOND * 3_600);
    assert!(strangers(&net, &supernodes).len() > 3);
    assert_eq!(net.homes_of(&leaf), homes);
}

#[test]
fn a_home_that_was_left_is_none_again_for_half_an_hour_whatever_it_says() {
    let (mut net, leaf, supernodes) = network(1, Some(Refusal::NotRegistered));
    let before = net.homes_of(&leaf);
    net.run_for(SECOND * 80);
    for supernode in &supernodes {
        net.get_mut(supernode).trial = Some(Refusal::Busy);
    }
    let after = net.homes_of(&leaf);
    assert!(after.iter().all(|home| !before.contains(home)));
    net.with(leaf, |node, now, out| {
        node.homes(now, out, |homes, m| homes.on_elsewhere(now, (before[0], None), 5, &[], m));
    });
    for home in after {
        net.crash(home);
    }
    net.run_for(SECOND * 400);
    let homes = net.homes_of(&leaf);
    assert!(homes.len() == 2 && homes.iter().all(|home| !before.contains(home)), "{before:?} {homes:?}");
}

#[test]
fn where_there_is_no_stranger_nobody_is_asked() {
    let (mut net, leaf, supernodes) = network_of(2, 6, Some(Refusal::Busy));
    net.run_for(SECOND * 600);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    assert!(strangers(&net, &supernodes).is_empty());
}
