//! Leaves are spread by room, and come back to who has it.

use core::time::Duration;

use super::testnet::*;
use super::*;
use crate::account::Source;
use crate::api::Event;
use crate::identity::{PeerId, SecretKey};
use crate::overlay::gossip::Stores;
use crate::overlay::output::Output;
use crate::wire::message::{Load, Message, Refusal, decode_next};

const SECOND: Duration = Duration::from_secs(1);

fn bootstrap(n: u8) -> (PeerId, core::net::SocketAddr) {
    (key(n).peer_id(), TestNet::address_of(n))
}

/// So many supernodes that know each other, and leaves, the numbers of which begin at 100.
fn network(seed: u8, supernodes: u8, leaves: u8) -> (TestNet, Vec<PeerId>, Vec<PeerId>) {
    let mut net = TestNet::new(seed);
    let supernodes: Vec<PeerId> = (1..=supernodes).map(|n| net.supernode(n, &[bootstrap(1)])).collect();
    net.run_for(SECOND * 90);
    let mut all = Vec::new();
    for n in 0..leaves {
        all.push(net.leaf(100 + n, &[bootstrap(1)]));
        net.run_for(Duration::from_millis(200));
    }
    net.run_for(SECOND * 30);
    (net, supernodes, all)
}

fn registered(net: &TestNet, at: &PeerId) -> usize {
    net.get(at).registrations.as_ref().map_or(0, Registrations::len)
}

/// What a stranger that asks to be taken hears: the refusal, if it is one, how long to wait, and how many others are named.
fn ask(net: &mut TestNet, at: PeerId, n: u16, other: Option<PeerId>) -> Option<(Refusal, u16, usize)> {
    let mut told = (None, 0, 0);
    net.with(at, |node, now, out| {
        let TestNode { registrations, members, records, random, .. } = node;
        let mut own = std::collections::VecDeque::new();
        let s = &mut Stores { wall: None, random, members, records, out: &mut own };
        let [a, b] = n.to_le_bytes();
        let leaf = SecretKey::from_bytes(&core::array::from_fn(|i| [a, b, 77][i % 3])).peer_id();
        let _ = registrations.as_mut().expect("one").on_register(
            now,
            (leaf, Source::Peer(leaf)),
            other,
            &[],
            Load::default(),
            s,
        );
        for output in own {
            let Output::Send { messages, .. } = &output else { continue };
            match decode_next(&mut &**messages).expect("ours") {
                Message::RegisterReply { refused, .. } => told.0 = refused,
                Message::Elsewhere { retry_after_s, supernodes } => {
                    (told.1, told.2) = (retry_after_s, supernodes.len());
                }
                _ => {}
            }
            out.push_back(output);
        }
    });
    told.0.map(|refusal| (refusal, told.1, told.2))
}

#[test]
fn leaves_come_back_to_who_was_away_and_lose_no_home_on_the_way() {
    let (mut net, supernodes, leaves) = network(1, 4, 60);
    let mean = 30;
    assert!(supernodes.iter().all(|id| (20..=40).contains(&registered(&net, id))), "they were spread");
    net.crash(supernodes[3]);
    net.run_for(SECOND * 300);
    assert_eq!(supernodes[..3].iter().map(|id| registered(&net, id)).sum::<usize>(), 120);
    net.supernode(4, &[bootstrap(1)]);
    let before: Vec<usize> = leaves.iter().map(|leaf| net.get(leaf).events.len()).collect();
    for _ in 0..120 {
        net.run_for(SECOND * 30);
        assert!(leaves.iter().all(|leaf| !net.homes_of(leaf).is_empty()));
    }
    assert!(registered(&net, &supernodes[3]) * 10 >= mean * 6, "{}", registered(&net, &supernodes[3]));
    for (leaf, before) in leaves.iter().zip(before) {
        let node = net.get(leaf);
        assert!(node.events[before..].iter().all(|(_, event)| *event != Event::Homeless));
        let homes = net.homes_of(leaf);
        assert!(
            homes.len() == 2
                && homes.iter().all(|home| { net.get(home).registrations.as_ref().is_some_and(|r| r.contains(leaf)) })
        );
    }
    let all: usize = supernodes.iter().map(|id| registered(&net, id)).sum();
    assert_eq!(all, 120, "who was left was told goodbye");
}

#[test]
fn who_is_fuller_than_others_refuses_those_that_have_a_home_and_says_who_has_room() {
    let (mut net, supernodes, _) = network(2, 3, 2);
    for n in 0..490 {
        assert_eq!(ask(&mut net, supernodes[0], n, Some(supernodes[1])), None, "it is not half full");
        net.run_for(SECOND / 20);
    }
    for n in 490..510 {
        let _ = ask(&mut net, supernodes[0], n, None);
    }
    net.run_for(SECOND * 60);
    let refused = ask(&mut net, supernodes[0], 1_000, Some(supernodes[1]));
    let Some((Refusal::Busy, 5..=60, 1..)) = refused else { panic!("{refused:?}") };
    assert_eq!(ask(&mut net, supernodes[0], 1_001, None), None, "it has no home");
    assert_eq!(ask(&mut net, supernodes[1], 1_002, Some(supernodes[0])), None);
}

#[test]
fn a_second_takes_fifty_newcomers_at_least() {
    let (mut net, supernodes, _) = network(3, 2, 0);
    let taken = |net: &mut TestNet, from: u16| {
        (from..from + 90).filter(|n| ask(net, supernodes[0], *n, None).is_none()).count()
    };
    assert_eq!(taken(&mut net, 0), 50);
    net.run_for(SECOND);
    assert_eq!(taken(&mut net, 100), 50);
}

#[test]
fn in_a_large_network_homes_watch_each_other_anyway() {
    let (net, _, leaves) = network(4, 30, 40);
    let are_partners = |homes: &[PeerId]| {
        let [first, second] = homes else { return false };
        let near = net.get(first).members.holders(first, 17);
        near.iter().any(|(id, _)| id == second)
    };
    let number = leaves.iter().filter(|leaf| are_partners(&net.homes_of(leaf))).count();
    assert!(number >= 36, "{number} of 40");
}

#[test]
fn where_the_new_home_does_not_answer_the_old_one_stays() {
    let (mut net, supernodes, leaves) = network(5, 3, 1);
    let homes = net.homes_of(&leaves[0]);
    let other = supernodes.iter().find(|id| !homes.contains(id)).copied().expect("one of three");
    let number = 1 + u8::try_from(supernodes.iter().position(|id| *id == other).expect("one")).expect("few");
    net.crash(other);
    let elsewhere = [(other, TestNet::address_of(number).into())];
    net.with(leaves[0], |node, now, out| {
        node.homes(now, out, |room, m| room.on_elsewhere(now, (homes[1], None), 0, &elsewhere, m));
    });
    for _ in 0..20 {
        net.run_for(SECOND);
        assert_eq!(net.homes_of(&leaves[0]), homes);
    }
    assert!(homes.iter().all(|home| net.get(home).registrations.as_ref().is_some_and(|r| r.contains(&leaves[0]))));
}

/// The old home was chosen beside the new one that it had named, and was left for good when that one took the leaf.
#[test]
fn regression_a_home_that_dies_in_the_middle_of_a_move_is_replaced() {
    for wait in [0, 30, 50, 70, 200] {
        let (mut net, supernodes, leaves) = network(7, 4, 1);
        let leaf = leaves[0];
        let homes = net.homes_of(&leaf);
        let (to, address) = (1..=4).map(bootstrap).find(|(id, _)| !homes.contains(id)).expect("two of four");
        net.with(leaf, |node, now, out| {
            node.homes(now, out, |room, m| room.on_elsewhere(now, (homes[1], None), 0, &[(to, address.into())], m));
        });
        net.run_for(Duration::from_millis(wait));
        net.notice_after = Duration::from_millis(1);
        net.crash(homes[0]);
        net.run_for(SECOND * 60);
        let found = net.homes_of(&leaf);
        assert_eq!(found.len(), 2, "after {wait} ms");
        let is_there = |home: &PeerId| net.get(home).registrations.as_ref().is_some_and(|r| r.contains(&leaf));
        assert!(found.iter().all(is_there), "after {wait} ms");
        assert!(supernodes.iter().filter(|id| **id != homes[0]).count() == 3);
    }
}

#[test]
fn who_is_named_in_passing_stays_where_it_is_known_to_be() {
    let (mut net, _, leaves) = network(8, 3, 1);
    let homes = net.homes_of(&leaves[0]);
    let (third, address) = (1..=3).map(bootstrap).find(|(id, _)| !homes.contains(id)).expect("one of three");
    let victim = core::net::SocketAddr::from(([198, 51, 100, 99], 9));
    net.with(leaves[0], |node, now, out| {
        node.homes(now, out, |room, m| room.on_elsewhere(now, (homes[1], None), 0, &[(third, victim.into())], m));
        assert!(out.iter().all(|output| !matches!(output, Output::Dial { address, .. } if *address == victim)));
    });
    net.run_for(SECOND * 5);
    let known = net.get(&leaves[0]).homes.as_ref().expect("a leaf").known().find(|(id, ..)| *id == third);
    assert_eq!(known.map(|(_, at, _)| at), Some(address));
}

#[test]
fn only_a_home_sends_elsewhere_and_nobody_is_sent_in_circles() {
    let (mut net, supernodes, leaves) = network(6, 3, 1);
    let leaf = leaves[0];
    let homes = net.homes_of(&leaf);
    let other = supernodes.iter().find(|id| !homes.contains(id)).copied().expect("one of three");
    let address = |id: &PeerId| {
        let n = supernodes.iter().position(|other| other == id).expect("one");
        TestNet::address_of(1 + u8::try_from(n).expect("few"))
    };
    let send = |net: &mut TestNet, from: PeerId, to: PeerId| {
        let elsewhere = [(to, address(&to).into())];
        net.with(leaf, |node, now, out| {
            node.homes(now, out, |room, m| room.on_elsewhere(now, (from, None), 0, &elsewhere, m));
        });
        net.run_for(SECOND * 5);
    };
    send(&mut net, other, other);
    assert_eq!(net.homes_of(&leaf), homes);
    send(&mut net, homes[1], other);
    assert_eq!(net.homes_of(&leaf), [other, homes[0]], "the one that stayed is second now");
    assert!(!net.get(&homes[1]).registrations.as_ref().is_some_and(|r| r.contains(&leaf)));
    send(&mut net, other, homes[1]);
    assert_eq!(net.homes_of(&leaf), [other, homes[0]], "it has just moved");
    net.run_for(SECOND * 1_300);
    send(&mut net, other, homes[1]);
    assert_eq!(net.homes_of(&leaf), [homes[1], homes[0]]);
}

/// A supernode with so many places takes in turn whom it is asked to: how many of those of one prefix, in ten minutes.
fn taken_of_one_prefix(places: usize, honest: u8) -> (usize, usize) {
    let mut net = TestNet::new(1);
    let at = net.supernode(1, &[]);
    let (mut of_one, mut others) = (0, 0);
    net.with(at, |node, now, _| {
        let TestNode { members, records, random, .. } = node;
        let mut registrations = Registrations::new(now, at, places);
        let mut ask = |now, key: SecretKey, ip: [u8; 4]| {
            let mut own = std::collections::VecDeque::new();
            let s = &mut Stores { wall: None, random, members, records, out: &mut own };
            let from = (key.peer_id(), Source::of(key.peer_id(), Some(ip.into())));
            registrations.handle_timeout(now, s);
            registrations.on_register(now, from, None, &[], Load::default(), s).refused.is_none()
        };
        for second in 0..600_u16 {
            let now = now + Duration::from_secs(u64::from(second));
            for n in 0..100 {
                let [a, b] = (second * 100 + n).to_le_bytes();
                let key = SecretKey::from_bytes(&core::array::from_fn(|i| [a, b, 78][i % 3]));
                of_one += usize::from(ask(now, key, [203, 0, 113, a]));
            }
            // The others come when it is worst.
            if let Some(n) = second.checked_sub(300).and_then(|n| u8::try_from(n).ok()).filter(|n| *n < honest) {
                others += usize::from(ask(now, key(n + 2), [198, 51, n, 1]));
            }
        }
    });
    (of_one, others)
}

#[test]
fn who_has_many_keys_and_one_prefix_fills_no_home_and_takes_nobodys_turn() {
    assert_eq!(taken_of_one_prefix(1_000, 200), (501, 200));
    // A share is a share of what there is, and never less than a household.
    assert_eq!(taken_of_one_prefix(6, 2), (4, 2));
}
