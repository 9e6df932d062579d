use core::time::Duration;
use std::collections::VecDeque;

use super::testnet::*;
use super::*;
use crate::account::Source;
use crate::api::Event;
use crate::identity::{PeerId, SecretKey};
use crate::overlay::directory::Record;
use crate::overlay::gossip::Stores;
use crate::overlay::output::Output;
use crate::wire::message::{Load, Message, decode_next};

const SECOND: Duration = Duration::from_secs(1);

/// `count` supernodes, each told of the first, settled.
fn network(seed: u8, count: u8) -> (TestNet, Vec<PeerId>) {
    let mut net = TestNet::new(seed);
    let first = [bootstrap(1)];
    let supernodes = (1..=count).map(|n| net.supernode(n, if n == 1 { &[] } else { &first })).collect();
    net.run_for(SECOND * 10);
    (net, supernodes)
}

fn bootstrap(n: u8) -> (PeerId, core::net::SocketAddr) {
    (key(n).peer_id(), TestNet::address_of(n))
}

fn events(net: &TestNet, id: &PeerId) -> Vec<Event> {
    net.get(id).events.iter().map(|(_, event)| event.clone()).collect()
}

/// Where every supernode believes the leaf to be at home.
fn homes_on_record(net: &TestNet, at: &PeerId, leaf: &PeerId) -> Vec<PeerId> {
    let Some(bytes) = net.get(at).records.get(leaf) else { return Vec::new() };
    Record::verify(bytes).unwrap().homes.iter().map(|(home, _)| *home).collect()
}

#[test]
fn a_leaf_that_knows_one_supernode_gets_two_homes_and_is_on_record_everywhere() {
    let (mut net, supernodes) = network(1, 5);
    let start = net.now;
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 3);
    let homes = net.homes_of(&leaf);
    assert_eq!(homes.len(), 2);
    let (ready_at, event) = &net.get(&leaf).events[0];
    assert_eq!(*event, Event::Ready);
    assert!(*ready_at - start < Duration::from_millis(700), "{:?}", *ready_at - start);
    for supernode in &supernodes {
        let mut on_record = homes_on_record(&net, supernode, &leaf);
        on_record.sort();
        let mut expected = homes.clone();
        expected.sort();
        assert_eq!(on_record, expected);
        let registrations = net.get(supernode).registrations.as_ref().unwrap();
        assert_eq!(registrations.contains(&leaf), homes.contains(supernode));
    }
    net.run_for(SECOND * 30);
    assert_eq!(net.get(&leaf).homes.as_ref().unwrap().linked().count(), 2, "the third link is given back");
    let anchors = &net.get(&leaf).saved.anchors;
    assert!(homes.iter().all(|home| anchors.iter().any(|(anchor, _)| anchor == home)));
}

#[test]
fn a_dead_home_is_replaced_long_before_its_link_times_out() {
    let (mut net, _) = network(2, 5);
    net.notice_after = SECOND * 200;
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 30);
    let [dead, alive] = net.homes_of(&leaf)[..] else { panic!() };
    net.crash(dead);
    net.run_for(SECOND * 30);
    let homes = net.homes_of(&leaf);
    assert!(homes.len() == 2 && homes.contains(&alive) && !homes.contains(&dead), "{homes:?}");
    assert_eq!(events(&net, &leaf), [Event::Ready]);
    let on_record = homes_on_record(&net, &alive, &leaf);
    assert!(!on_record.contains(&dead) && on_record.len() == 2);
}

#[test]
fn regression_who_has_no_home_that_answers_does_not_wait_long_for_one_that_is_linked() {
    let (mut net, _) = network(5, 8);
    net.notice_after = SECOND * 200;
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 5);
    // Both homes, and the third that is still linked.
    let linked: Vec<PeerId> = net.get(&leaf).homes.as_ref().expect("a leaf").linked().collect();
    assert!(linked.len() > 2, "{linked:?}");
    for dead in &linked {
        net.crash(*dead);
    }
    net.with(leaf, |node, now, out| node.homes(now, out, |homes, m| homes.on_silent(now, linked[0], None, m)));
    net.run_for(SECOND * 6);
    assert!(net.homes_of(&leaf).iter().any(|home| !linked.contains(home)));
}

#[test]
fn a_home_that_restarts_has_its_leaves_back_at_once() {
    let (mut net, supernodes) = network(12, 2);
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 30);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    net.crash(supernodes[1]);
    net.run_for(SECOND);
    net.supernode(2, &[]);
    net.run_for(SECOND * 5);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    assert!(net.get(&supernodes[1]).registrations.as_ref().unwrap().contains(&leaf));
    assert_eq!(homes_on_record(&net, &supernodes[1], &leaf).len(), 2);
}

#[test]
fn a_home_that_lies_about_the_other_one_is_not_believed() {
    let (mut net, _) = network(3, 4);
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 5);
    let [liar, other] = net.homes_of(&leaf)[..] else { panic!() };
    let stranger = key(77).peer_id();
    net.with(leaf, |node, now, out| {
        node.homes(now, out, |homes, m| {
            homes.on_silent(now, other, Some(stranger), m);
            assert!(m.out.is_empty(), "a stranger has no say");
            homes.on_silent(now, other, Some(liar), m);
        });
        assert_eq!(out.len(), 1, "the accused is asked");
    });
    net.run_for(SECOND * 5);
    assert_eq!(net.homes_of(&leaf), [liar, other]);
}

#[test]
fn both_homes_die_and_come_back() {
    let (mut net, supernodes) = network(4, 2);
    net.notice_after = SECOND * 20;
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 5);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    for supernode in &supernodes {
        net.crash(*supernode);
    }
    net.run_for(SECOND * 600);
    assert_eq!(events(&net, &leaf), [Event::Ready, Event::Homeless]);
    assert!(net.homes_of(&leaf).is_empty());
    // Back-off: in the last five minutes next to nothing.
    let late = net.dials.iter().filter(|(at, who, _)| *who == leaf && net.now - *at < SECOND * 300).count();
    assert!(late <= 10, "{late} dials in 5 minutes");
    net.supernode(1, &[bootstrap(2)]);
    net.supernode(2, &[bootstrap(1)]);
    net.run_for(SECOND * 310);
    assert_eq!(events(&net, &leaf), [Event::Ready, Event::Homeless, Event::Ready]);
    net.run_for(SECOND * 310);
    assert_eq!(net.homes_of(&leaf).len(), 2);
}

#[test]
fn without_any_supernode_a_leaf_dials_ever_more_seldom() {
    let mut net = TestNet::new(5);
    let known: Vec<_> = (1..=20).map(bootstrap).collect();
    let leaf = net.leaf(100, &known);
    net.run_until(s(3600));
    let before = net.dials.len();
    net.run_until(s(7200));
    let hour = net.dials.len() - before;
    // All supernodes lost: at most one probe in 30 s.
    assert!(hour > 10 && hour <= 120, "{hour} dials in an hour");
    assert!(events(&net, &leaf).is_empty());
}

#[test]
fn a_full_home_is_left_for_another_one() {
    let (mut net, supernodes) = network(6, 3);
    for full in &supernodes[..2] {
        let registrations = Registrations::new(net.now, *full, 0);
        net.nodes.get_mut(full).unwrap().registrations = Some(registrations);
    }
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 20);
    assert_eq!(net.homes_of(&leaf), [supernodes[2]]);
    assert_eq!(homes_on_record(&net, &supernodes[0], &leaf), [supernodes[2]]);
}

#[test]
fn the_less_busy_ones_are_chosen() {
    for seed in 0..8 {
        let (mut net, supernodes) = network(seed, 3);
        let busy = supernodes[usize::from(seed) % 3];
        net.nodes.get_mut(&busy).unwrap().load = Load { introductions: 200, ..Load::default() };
        let leaf = net.leaf(100, &[bootstrap(1), bootstrap(2), bootstrap(3)]);
        net.run_for(SECOND * 5);
        assert!(!net.homes_of(&leaf).contains(&busy));
    }
}

/// Has so many leaves registered there that nobody runs.
fn fill(net: &mut TestNet, at: PeerId, leaves: u16) {
    net.with(at, |node, now, out| {
        let TestNode { registrations, members, records, random, .. } = node;
        let s = &mut Stores { wall: None, random, members, records, out };
        for n in 0..leaves {
            let [a, b] = n.to_le_bytes();
            let leaf = SecretKey::from_bytes(&core::array::from_fn(|i| [a, b, 77][i % 3])).peer_id();
            let _ = registrations.as_mut().unwrap().on_register(
                now,
                (leaf, Source::Peer(leaf)),
                None,
                &[],
                Load::default(),
                s,
            );
        }
    });
}

#[test]
fn the_emptier_ones_are_chosen() {
    for seed in 0..8 {
        let (mut net, supernodes) = network(seed, 3);
        let full = supernodes[usize::from(seed) % 3];
        for id in &supernodes {
            fill(&mut net, *id, if *id == full { 40 } else { 20 });
        }
        let leaf = net.leaf(100, &[bootstrap(1), bootstrap(2), bootstrap(3)]);
        net.run_for(SECOND * 5);
        assert!(!net.homes_of(&leaf).contains(&full), "{seed}");
    }
}

#[test]
fn c6_homes_are_not_in_one_prefix() {
    let mut net = TestNet::new(7);
    let first = bootstrap(1);
    for n in 1..=4 {
        net.supernode(n, &[first]);
    }
    // Three of four live side by side.
    net.run_for(SECOND * 5);
    let leaf = net.leaf(100, &[]);
    let near = |n: u8| (key(n).peer_id(), core::net::SocketAddr::from(([203, 0, 113, n], 4000)));
    for (id, node) in &mut net.nodes {
        if let Some(n) = (1..=3).find(|n| key(*n).peer_id() == *id) {
            node.address = near(n).1;
        }
    }
    net.with(leaf, |node, now, out| {
        node.homes(now, out, |homes, m| homes.join(now, &[near(1), near(2), near(3), bootstrap(4)], m));
    });
    net.run_for(SECOND * 20);
    let homes = net.homes_of(&leaf);
    assert!(homes.len() == 2 && homes.contains(&key(4).peer_id()), "{homes:?}");
}

#[test]
fn c8_after_a_restart_the_saved_supernodes_come_first() {
    let (mut net, _) = network(8, 4);
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 30);
    let sequence = net.get(&leaf).saved.sequence;
    net.crash(leaf);
    net.run_for(SECOND * 90);
    let start = net.now;
    // No bootstrap address this time.
    net.leaf(100, &[]);
    net.run_for(SECOND * 3);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    assert!(net.get(&leaf).events[0].0 - start < SECOND);
    assert!(net.get(&leaf).saved.sequence > sequence);
    // E2: the record of the new run was accepted.
    let homes = net.homes_of(&leaf);
    assert_eq!(homes_on_record(&net, &homes[0], &leaf).len(), 2);
}

#[test]
fn leaving_ends_registration_and_record() {
    let (mut net, supernodes) = network(9, 3);
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 5);
    net.with(leaf, |node, _, out| node.homes.as_mut().unwrap().leave(out));
    net.run_for(SECOND);
    assert!(supernodes.iter().all(|s| !net.get(s).registrations.as_ref().unwrap().contains(&leaf)));
    assert_eq!(net.get(&leaf).homes.as_ref().unwrap().poll_timeout(), None);
}

#[test]
fn registration_is_repeated_under_loss_and_the_record_is_renewed() {
    let (mut net, supernodes) = network(10, 4);
    net.loss_percent = 30;
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 60);
    assert_eq!(net.homes_of(&leaf).len(), 2);
    for _ in 0..4 {
        net.run_for(SECOND * 3600);
        // Of so many questions some are lost three times in a row, and another home is found for one that lives.
        let is_there = |net: &TestNet| {
            net.homes_of(&leaf).iter().filter(|home| homes_on_record(net, home, &leaf).len() == 2).count() == 2
        };
        let mut waits = (0..60).filter(|_| {
            net.run_for(SECOND);
            is_there(&net)
        });
        let is_found = waits.next().is_some();
        let homes: Vec<_> = net.homes_of(&leaf).iter().map(|home| homes_on_record(&net, home, &leaf).len()).collect();
        assert!(is_found, "records name {homes:?} at {:?}", net.now);
        // What is put and lost is put again with each round.
        let on_record = |net: &TestNet| supernodes.iter().filter(|s| homes_on_record(net, s, &leaf).len() == 2).count();
        let mut rounds = (0..3 * 55).map(|_| {
            net.run_for(SECOND * 60);
            on_record(&net)
        });
        assert!(rounds.any(|count| count >= 3), "{} at {:?}", on_record(&net), net.now);
    }
}

/// An answer names no record: the one to an earlier record was taken for one to the last, which had been lost.
#[test]
fn regression_an_answer_that_may_be_for_an_earlier_record_is_asked_for_again() {
    let (mut net, _) = network(12, 2);
    let leaf = net.leaf(100, &[bootstrap(1)]);
    net.run_for(SECOND * 10);
    let home = net.homes_of(&leaf)[0];
    let registers = |out: &VecDeque<Output>| {
        let is_register = |output: &&Output| match output {
            Output::Send { to, messages } => {
                *to == home && matches!(decode_next(&mut &**messages), Ok(Message::Register { .. }))
            }
            _ => false,
        };
        out.iter().filter(is_register).count()
    };
    net.with(leaf, |node, now, out| {
        let answer = |homes: &mut Homes, m: &mut Means<'_>| {
            homes.on_register_reply(now, home, None, Load::default(), m);
        };
        node.homes(now, out, |homes, m| homes.register(now, m));
        node.homes(now, out, |homes, m| homes.register(now, m));
        assert_eq!(registers(out), 2);
        node.homes(now, out, answer);
        assert_eq!(registers(out), 3, "it may have been for the first");
        node.homes(now, out, answer);
        assert_eq!(registers(out), 3);
    });
}

#[test]
fn a_registration_costs_at_most_450_bytes() {
    let (mut net, supernodes) = network(11, 2);
    let mut registrations = net.nodes.remove(&supernodes[0]).unwrap();
    let leaf = key(100);
    let homes = [supernodes[0], supernodes[1]].map(|id| (id, TestNet::address_of(1).into()));
    let record = Record {
        id: leaf.peer_id(),
        sequence: 1_800_000_000,
        issued_s: wall_at(net.now).as_secs(),
        lifetime_s: 3600,
        homes: homes.into_iter().collect(),
    };
    let record = record.sign(&leaf);
    let mut out = VecDeque::new();
    let register = Message::Register { other_home: Some(supernodes[1]), record: &record };
    crate::overlay::pack::send(&mut out, supernodes[0], &register);
    let TestNode { registrations: rooms, members, records, random, .. } = &mut registrations;
    let s =
        &mut crate::overlay::gossip::Stores { wall: Some(wall_at(net.now)), random, members, records, out: &mut out };
    let got = rooms.as_mut().unwrap().on_register(
        net.now,
        (leaf.peer_id(), Source::Unseen),
        Some(supernodes[1]),
        &record,
        Load::default(),
        s,
    );
    assert_eq!(got, Registered { refused: None, is_record_new: true, was_here: false });
    // Again, and it is not new; somebody else's is not kept.
    let again = |rooms: &mut Registrations, who: PeerId, s: &mut crate::overlay::gossip::Stores<'_>| {
        rooms.on_register(net.now, (who, Source::Unseen), None, &record, Load::default(), s).is_record_new
    };
    assert!(!again(rooms.as_mut().unwrap(), leaf.peer_id(), s));
    assert!(!again(rooms.as_mut().unwrap(), key(101).peer_id(), s));
    let bytes: usize = out.iter().take(2).map(size).sum();
    assert!(bytes <= 450, "{bytes}");
}

fn size(output: &Output) -> usize {
    let Output::Send { messages, .. } = output else { return 0 };
    messages.len() + 25 + 28
}

#[test]
fn leaves_are_limited_and_told_so() {
    let me = key(1).peer_id();
    let mut registrations = Registrations::new(s(1), me, 2);
    let mut random = generators(1);
    let mut members = crate::overlay::advert::MembershipTable::new(me, 10);
    let mut records = crate::overlay::directory::RecordStore::new(10);
    for n in 0..5 {
        let mut out = VecDeque::new();
        let mut stores = crate::overlay::gossip::Stores {
            wall: None,
            random: &mut random,
            members: &mut members,
            records: &mut records,
            out: &mut out,
        };
        let leaf = key(100 + n).peer_id();
        let got = registrations.on_register(s(1), (leaf, Source::Peer(leaf)), None, &[], Load::default(), &mut stores);
        assert_eq!(got.refused.is_none(), n < 2);
        let Some(Output::Send { to, messages }) = out.pop_front() else { panic!() };
        assert_eq!(to, leaf);
        let reply = decode_next(&mut &*messages).unwrap();
        assert_eq!(reply, Message::RegisterReply { refused: got.refused, load: Load::default() });
    }
    assert_eq!(registrations.len(), 2);
    let mut out = VecDeque::new();
    assert!(registrations.on_link_down(&key(100).peer_id(), &mut out));
    assert_eq!(registrations.len(), 1);
}
