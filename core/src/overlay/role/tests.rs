use core::net::SocketAddr;
use std::collections::VecDeque;

use super::*;
use crate::account::Source;
use crate::identity::PeerId;
use crate::overlay::advert::{Found, MembershipTable, OwnAdvert};
use crate::overlay::home::testnet::{generators, key, ms, s, wall_at};
use crate::overlay::output::Output;
use crate::wire::message::{Message, Refusal, decode_next};

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

fn reporter(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 4000))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

/// Whom the room asked last, and with what nonce.
fn request(out: &mut VecDeque<Output>) -> Option<(PeerId, [u8; 8], Vec<[u8; 4]>)> {
    let Output::Send { to, messages } = out.pop_front()? else { panic!() };
    let Ok(Message::DialBackRequest { nonce, contacted, port: 0 }) = decode_next(&mut &*messages) else { panic!() };
    assert!(out.is_empty());
    Some((to, nonce, contacted.to_vec()))
}

#[test]
fn a_dial_back_from_a_stranger_shows_that_we_are_reachable() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(1), VecDeque::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    assert!(out.is_empty() && room.poll_timeout().is_none(), "one is too few");
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    let (asked, nonce, contacted) = request(&mut out).unwrap();
    assert_eq!(contacted.len(), 2);
    room.on_reply(s(1), &asked, nonce, None, &mut random, &mut out);
    room.on_dial_back(s(2), &id(3), reporter(3), [0; 8], &mut random, &mut out);
    assert_eq!(room.reachable(), None, "wrong nonce");
    room.on_dial_back(s(2), &id(1), reporter(3), nonce, &mut random, &mut out);
    assert_eq!(room.reachable(), None, "we have sent to that one");
    let (_, nonce, _) = request(&mut out).expect("another is asked at once");
    room.on_sent(s(2), reporter(4).ip());
    room.on_dial_back(s(2), &id(3), reporter(4), nonce, &mut random, &mut out);
    assert_eq!(room.reachable(), None, "we have sent to that address");
    let (_, nonce, _) = request(&mut out).unwrap();
    room.on_dial_back(s(2), &id(3), reporter(3), nonce, &mut random, &mut out);
    assert_eq!(room.reachable(), Some(true));
    assert!(room.poll_timeout().is_some_and(|at| at > s(1000)));
}

#[test]
fn two_tries_without_a_dial_show_that_we_are_not() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(2), VecDeque::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    let (first, nonce, _) = request(&mut out).unwrap();
    room.on_reply(s(1), &first, nonce, None, &mut random, &mut out);
    room.handle_timeout(ms(5999), &mut random, &mut out);
    assert!(out.is_empty());
    room.handle_timeout(s(6), &mut random, &mut out);
    let (second, nonce, _) = request(&mut out).unwrap();
    assert_ne!(first, second, "another one is asked");
    room.on_reply(s(6), &second, nonce, None, &mut random, &mut out);
    assert_eq!(room.reachable(), None);
    room.handle_timeout(s(11), &mut random, &mut out);
    assert_eq!(room.reachable(), Some(false));
    // A packet that comes unasked says otherwise.
    room.on_unasked_link(s(12));
    assert_eq!(room.reachable(), Some(true));
}

#[test]
fn where_nobody_can_try_nothing_is_concluded() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(3), VecDeque::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    let mut requests = 0;
    while let Some((asked, nonce, _)) = request(&mut out) {
        requests += 1;
        room.on_reply(s(1), &asked, nonce, Some(Refusal::Unknown), &mut random, &mut out);
    }
    assert_eq!((requests, room.reachable()), (4, None));
    assert_eq!(room.poll_timeout(), Some(s(301)));
}

#[test]
fn an_order_goes_to_one_that_was_not_contacted_and_seldom() {
    let (mut orders, mut random) = (DialBackOrders::new(), generators(4));
    let linked = [id(1), id(2), id(3)];
    let contacted = [1, 2].map(|n| crate::overlay::advert::shelf::id_prefix(&id(n)));
    let mut ask = |now, contacted: &[[u8; 4]]| {
        let mut out = VecDeque::new();
        let to = OrderTo { linked: &linked, choice: &mut random.peer_choice };
        orders.on_request(now, id(9), at(10), [7; 8], contacted, 0, to, &mut out);
        out
    };
    let reply = |output: &Output| {
        let Output::Send { to, messages } = output else { panic!() };
        (*to, messages.clone())
    };
    let out = ask(s(1), &contacted);
    let (to, messages) = reply(&out[0]);
    let order = Message::DialBackOrder { peer: id(9), address: at(10).into(), nonce: [7; 8] };
    assert_eq!((to, decode_next(&mut &*messages)), (id(3), Ok(order)));
    let refused = |out: &VecDeque<Output>| {
        let (to, messages) = reply(out.back().unwrap());
        assert_eq!(to, id(9));
        let Ok(Message::DialBackReply { refused, .. }) = decode_next(&mut &*messages) else { panic!() };
        refused
    };
    assert_eq!(refused(&out), None);
    let all = [1, 2, 3].map(|n| crate::overlay::advert::shelf::id_prefix(&id(n)));
    assert_eq!(refused(&ask(s(2), &all)), Some(Refusal::Unknown));
    let out = ask(s(3), &contacted);
    assert_eq!((out.len(), refused(&out)), (1, Some(Refusal::Busy)), "no order beyond the rate");
    assert_eq!(refused(&ask(s(30), &contacted)), None);
}

#[test]
fn orders_are_taken_from_supernodes_only_and_seldom() {
    let mut orders = DialBackOrders::new();
    let mut members = MembershipTable::new(id(0), 10);
    let mut own = OwnAdvert::new(s(0), &[reporter(1)], 1, 0);
    let (_, bytes) = own.make(s(0), Some(wall_at(s(0))), &key(1), 1, &mut generators(1).jitter);
    members.insert(s(0), Source::Peer(id(1)), Some(wall_at(s(0))), &bytes, Found::Told(None)).unwrap();
    let mut order = |now, from: u8, peer: u8, address, has_link| {
        let mut out = VecDeque::new();
        orders.on_order(now, &id(from), id(peer), address, [7; 8], has_link, &members, &mut out);
        out.pop_front()
    };
    assert_eq!(order(s(1), 2, 9, at(10), false), None, "no supernode");
    assert_eq!(order(s(1), 1, 9, at(10), true), None, "we have a link");
    assert_eq!(order(s(1), 1, 9, SocketAddr::from(([255, 255, 255, 255], 1)), false), None);
    let dial = Output::DialBack { peer: id(9), address: at(10), nonce: [7; 8] };
    assert_eq!(order(s(1), 1, 9, at(10), false), Some(dial));
    assert!(order(s(1), 1, 9, at(10), false).is_some());
    assert_eq!(order(s(1), 1, 9, at(10), false), None, "a peer is dialled seldom");
    // Made-up peers at one victim: its address had the two above.
    assert!((10..100).all(|peer| order(s(1), 1, peer, at(10), false).is_none()));
    let later = (10..100).filter(|peer| order(s(62), 1, *peer, at(10), false).is_some()).count();
    assert!(later <= 2, "{later}");
    // And at its ports, or its neighbours'.
    let flood = (100..200).filter(|n| order(s(63), 1, *n, at(1_000 + u16::from(*n)), false).is_some()).count();
    assert!((10..=22).contains(&flood), "{flood}");
}

/// Answers what was asked last by a dial from supernode `n`.
fn dial(
    room: &mut DialBack,
    random: &mut crate::random::Generators,
    out: &mut VecDeque<Output>,
    n: u8,
    from: SocketAddr,
) {
    let (asked, nonce, _) = request(out).unwrap();
    room.on_reply(s(2), &asked, nonce, None, random, out);
    room.on_dial_back(s(2), &id(n), from, nonce, random, out);
}

#[test]
fn who_would_serve_wants_three_witnesses_of_different_prefixes() {
    let elsewhere = |n: u8| SocketAddr::from(([198, 18, n, 1], 4000));
    let (mut room, mut random, mut out) = (DialBack::new(true), generators(5), VecDeque::new());
    room.set_fresh(s(1), 9, true, Vec::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    dial(&mut room, &mut random, &mut out, 3, elsewhere(3));
    assert_eq!((room.reachable(), room.confirmed()), (Some(true), false), "one is not enough to serve");
    dial(&mut room, &mut random, &mut out, 4, SocketAddr::from(([198, 18, 3, 2], 4000)));
    assert!(!room.confirmed(), "a neighbour of the first");
    dial(&mut room, &mut random, &mut out, 5, elsewhere(5));
    assert!(!room.confirmed());
    dial(&mut room, &mut random, &mut out, 6, elsewhere(6));
    assert!(room.confirmed());
    assert!(out.is_empty(), "enough is enough");
    // Another network: nothing is known.
    room.reset(s(3), &mut random, &mut out);
    assert!(!room.confirmed() && room.reachable().is_none());
}

#[test]
fn where_there_are_fewer_witnesses_all_of_them_will_do() {
    let (mut room, mut random, mut out) = (DialBack::new(true), generators(6), VecDeque::new());
    room.set_fresh(s(1), 2, true, Vec::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    dial(&mut room, &mut random, &mut out, 3, SocketAddr::from(([198, 18, 3, 1], 4000)));
    assert!(!room.confirmed());
    dial(&mut room, &mut random, &mut out, 4, SocketAddr::from(([198, 18, 4, 1], 4000)));
    assert!(room.confirmed());
}

#[test]
fn witnesses_that_are_there_and_do_not_come_through_are_missed() {
    let (mut room, mut random, mut out) = (DialBack::new(true), generators(7), VecDeque::new());
    room.set_fresh(s(1), 9, true, Vec::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    dial(&mut room, &mut random, &mut out, 3, SocketAddr::from(([198, 18, 3, 1], 4000)));
    for at in [s(2), s(7)] {
        let (asked, nonce, _) = request(&mut out).unwrap();
        room.on_reply(at, &asked, nonce, None, &mut random, &mut out);
        room.handle_timeout(at + core::time::Duration::from_secs(5), &mut random, &mut out);
    }
    assert!(!room.confirmed());
    assert!(room.poll_timeout().is_some_and(|at| at <= s(12 + 300)), "tried again soon");
}

#[test]
fn where_no_witness_is_left_nobody_is_asked_until_there_is_one() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(11), VecDeque::new());
    room.set_fresh(s(1), 0, true, Vec::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    let mut at = s(1);
    for _ in 0..6 {
        let next = room.poll_timeout().unwrap();
        assert!(next > at && next - at <= core::time::Duration::from_secs(16 * 3_600));
        at = next;
        room.handle_timeout(at, &mut random, &mut out);
    }
    assert!(out.is_empty());
    room.set_fresh(at, 1, true, Vec::new());
    assert_eq!(room.poll_timeout(), Some(at));
    room.handle_timeout(at, &mut random, &mut out);
    assert!(request(&mut out).is_some());
}

#[test]
fn what_was_sent_to_an_hour_ago_is_forgotten_and_a_crowd_blinds() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(8), VecDeque::new());
    let ip = reporter(3).ip();
    room.on_sent(s(10), ip);
    assert!(!room.is_fresh(s(3_600), &id(3), core::iter::once(ip)));
    assert!(room.is_fresh(s(3_611), &id(3), core::iter::once(ip)));
    for n in 0..2_000u32 {
        room.on_sent(s(4_000), core::net::Ipv4Addr::from(0x0a00_0000 + n).into());
    }
    room.on_link_up(s(4_000), id(1), &mut random, &mut out);
    room.on_link_up(s(4_000), id(2), &mut random, &mut out);
    let (_, nonce, _) = request(&mut out).unwrap();
    room.on_dial_back(s(4_001), &id(3), reporter(3), nonce, &mut random, &mut out);
    assert_eq!(room.reachable(), None, "it may have been among those that had no place");
}

#[test]
fn a_mapped_port_is_asked_for_and_nothing_of_another_port_holds() {
    let (mut room, mut random, mut out) = (DialBack::default(), generators(9), VecDeque::new());
    room.on_link_up(s(1), id(1), &mut random, &mut out);
    room.on_link_up(s(1), id(2), &mut random, &mut out);
    let (_, nonce, _) = request(&mut out).unwrap();
    room.on_dial_back(s(2), &id(3), reporter(3), nonce, &mut random, &mut out);
    assert_eq!(room.reachable(), Some(true));
    room.set_port(s(3), Some(7_000), &mut random, &mut out);
    assert_eq!((room.reachable(), room.port()), (None, Some(7_000)));
    let Some(Output::Send { messages, .. }) = out.pop_front() else { panic!() };
    let Ok(Message::DialBackRequest { port, .. }) = decode_next(&mut &*messages) else { panic!() };
    assert_eq!(port, 7_000);
}

#[test]
fn an_order_has_the_address_that_is_seen_and_only_the_port_may_be_named() {
    let (mut orders, mut random, mut out) = (DialBackOrders::new(), generators(10), VecDeque::new());
    let to = OrderTo { linked: &[id(3)], choice: &mut random.peer_choice };
    orders.on_request(s(1), id(9), at(10), [7; 8], &[], 7_000, to, &mut out);
    let Some(Output::Send { messages, .. }) = out.pop_front() else { panic!() };
    let order = Message::DialBackOrder { peer: id(9), address: at(7_000).into(), nonce: [7; 8] };
    assert_eq!(decode_next(&mut &*messages), Ok(order));
}
