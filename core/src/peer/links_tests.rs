//! All peers of a node, with one link that is up, and nothing around them.

use core::net::SocketAddr;
use core::time::Duration;

use super::operations::{Side, linked};
use super::outbox::ANSWERS_MAX;
use super::state::{DORMANT_AFTER, SILENCE_MAX, UNUSED_MAX, USER_IDLE_MAX};
use super::{Ended, Outgoing, Output, Peers};
use crate::account::Account;
use crate::api::{Event, PathInfo, Save};
use crate::keepalive::Duty;
use crate::net::{PeerKey, SocketId};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::packet::ChannelId;

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn outputs(peers: &mut Peers) -> Vec<Output> {
    core::iter::from_fn(|| peers.poll_output()).collect()
}

/// The one that began, with its link up since 1 s.
fn up() -> Side {
    let [mut side, _] = linked(at(1_000));
    assert!(side.peers.is_up(side.key));
    outputs(&mut side.peers);
    side
}

fn elsewhere(n: u8) -> Route {
    Route::Direct { socket: SocketId(0), remote: SocketAddr::from(([203, 0, 113, n], 4_000)) }
}

fn queued(peers: &mut Peers) -> usize {
    core::mem::take(&mut peers.outgoing).len()
}

#[test]
fn silence_is_met_with_more_and_more() {
    let mut side = up();
    let (peer, route) = (side.key, Some(side.route()));
    side.peers.get_mut(peer).expect("it is there").detector.on_sent(at(2_000));
    let (all, wake) = (Output::Challenge { peer, route }, Output::WakeRelays { peer });
    let (upgrade, stand_in) = (Output::Upgrade { peer }, Output::StandIn { peer });
    // Milliseconds after the packet that awaits an answer, and what is wanted then.
    let table = [
        (900, vec![]),
        (1_000, vec![Output::Challenge { peer, route: None }, wake.clone(), stand_in.clone()]),
        (2_500, vec![all.clone(), wake.clone(), Output::Choose { peer }, upgrade.clone()]),
        (5_000, vec![all, wake, Output::Revive { peer }, upgrade, stand_in]),
        (60_000, vec![Output::Gone { peer }]),
    ];
    for (after, expected) in table {
        side.peers.on_silence_due(at(2_000 + after), peer);
        assert_eq!(outputs(&mut side.peers), expected, "after {after} ms");
    }
}

type Expected = fn(PeerKey) -> Vec<Output>;

#[test]
fn a_link_that_nothing_needs_ends_in_its_way() {
    let (user, silent, unused) = (USER_IDLE_MAX, SILENCE_MAX, UNUSED_MAX);
    let close = |peer| vec![Output::Close { peer }];
    let gone = |peer| vec![Output::Gone { peer }];
    // Whether it is for the application, how it is kept, whether it is a relay of ours; after how long it ends, and
    // how.
    let table: [(bool, Duty, bool, Duration, Expected); 5] = [
        (true, Duty::Binding, false, user, gone),
        (false, Duty::Binding, false, unused, close),
        (false, Duty::Liveness, false, unused, close),
        (false, Duty::None, false, silent, gone),
        (false, Duty::Binding, true, unused, |_| Vec::new()),
    ];
    for (is_user, duty, is_relay, after, expected) in table {
        let mut side = up();
        let key = side.key;
        let peer = side.peers.get_mut(key).expect("it is there");
        peer.duty = duty;
        if is_user {
            peer.carry_traffic(at(1_000));
        }
        let soon = peer.idle_at().expect("it may be idle") - Duration::from_millis(1);
        assert!(soon + Duration::from_secs(2) > at(1_000) + after, "{duty:?}");
        for (now, expected) in [(soon, Vec::new()), (soon + Duration::from_millis(1), expected(key))] {
            side.peers.on_idle_due(now, key, is_relay);
            assert_eq!(outputs(&mut side.peers), expected, "{duty:?}, user {is_user}, relay {is_relay}");
        }
    }
}

#[test]
fn a_link_that_slept_is_asked_everywhere_before_it_is_used() {
    for (slept, wakes) in [(Duration::from_secs(1), false), (DORMANT_AFTER + SILENCE_MAX, true)] {
        let mut side = up();
        let (peer, route) = (side.key, side.route());
        side.peers.make_user_link(at(1_000), peer);
        assert_eq!(outputs(&mut side.peers), [], "it is awake");
        side.peers.make_user_link(at(1_000) + slept, peer);
        let id = side.peers.get(peer).expect("it is there").id();
        let expected = [
            Output::Choose { peer },
            Output::Challenge { peer, route: Some(route) },
            Output::Challenge { peer, route: None },
            Output::Call { peer: id },
        ];
        let found = outputs(&mut side.peers);
        assert!(if wakes { found == expected } else { found.is_empty() }, "{found:?}");
    }
}

#[test]
fn a_ping_waits_for_a_path_and_is_told_when_it_is_answered() {
    let mut side = Side::new(1);
    let id = side.peers.get(side.key).expect("it is there").id();
    assert_eq!(side.peers.ping(at(0), id, false), 0);
    assert!(!side.peers.has_pings_for(&id), "nobody looks for a path");
    assert_eq!(side.peers.ping(at(0), id, true), 1);
    assert!(side.peers.has_pings_for(&id));

    let mut side = up();
    let (key, route) = (side.key, side.route());
    side.peers.make_user_link(at(1_000), key);
    let id = side.peers.get(key).expect("it is there").id();
    side.peers.outgoing.clear();
    side.peers.ping(at(1_000), id, false);
    assert_eq!(queued(&mut side.peers), 1);
    side.peers.on_pong(at(1_020), key, [0; 8], &route);
    assert_eq!(outputs(&mut side.peers), [], "another token");
    side.peers.drop_pings(&id);
    assert!(!side.peers.has_pings_for(&id));
}

#[test]
fn the_application_is_told_of_a_path_once() {
    let mut side = up();
    let (key, route) = (side.key, side.route());
    side.peers.announce(key);
    assert_eq!(outputs(&mut side.peers), [], "the link is not for it");
    side.peers.make_user_link(at(1_000), key);
    let peer = side.peers.get(key).expect("it is there").id();
    let path = PathInfo::Direct { remote: route.remote().expect("it is direct") };
    for again in [true, false, true] {
        if again {
            side.peers.announce_again(&peer);
        }
        side.peers.announce(key);
        let told = if again { vec![Output::Event(Event::PathChanged { peer, path })] } else { vec![] };
        assert_eq!(outputs(&mut side.peers), told);
    }
}

#[test]
fn what_is_not_proven_is_asked_at_somebodys_cost() {
    let proven = up().route();
    let tcp = Route::Direct { socket: SocketId::TCP_FIRST, remote: elsewhere(1).remote().expect("it is direct") };
    // The route, whether an address is attested, whether the account is exhausted, and whether a question leaves.
    let table = [
        ("proven", Some(proven), false, true, true),
        ("the one in use", None, false, true, true),
        ("a connection", Some(tcp), false, true, true),
        ("attested", Some(elsewhere(1)), true, true, true),
        ("at the account's cost", Some(elsewhere(1)), false, false, true),
        ("at nobody's", Some(elsewhere(1)), false, true, false),
    ];
    for (what, route, is_attested, is_exhausted, leaves) in table {
        let mut side = up();
        let mut account = Account::default();
        let victim = elsewhere(1).remote().expect("it is direct");
        while is_exhausted && account.unasked(at(1_000), victim) {}
        side.peers.outgoing.clear();
        side.peers.challenge(at(1_000), &mut account, side.key, route, |_| is_attested);
        assert_eq!(queued(&mut side.peers), usize::from(leaves), "{what}");
    }
}

#[test]
fn a_question_is_answered_as_far_as_its_room_and_the_account_allow() {
    let proven = up().route();
    // The route, the room, the bytes that came from there, intents that wait already, and whether an answer is queued.
    let table = [
        ("proven", proven, 0, 0, 0, true),
        ("of an address that sent enough", elsewhere(1), 7, 1_000, 0, true),
        ("without room for its address", elsewhere(1), 6, 1_000, 0, false),
        ("of an address that sent nothing", elsewhere(1), 7, 0, 0, false),
        ("while much waits", proven, 0, 0, ANSWERS_MAX, false),
    ];
    for (what, route, room, came, waiting, answers) in table {
        let mut side = up();
        let mut account = Account::default();
        let (key, remote) = (side.key, route.remote().expect("it is direct"));
        if came > 0 {
            account.received(at(1_000), remote, came);
        }
        side.peers.outgoing.clear();
        for _ in 0..waiting {
            side.peers.push(Outgoing::Raw { path: route.path().expect("it is direct"), bytes: Box::default() });
        }
        let moved = side.peers.on_challenge(at(1_000), &mut account, key, route, [1; 8], &vec![0; room]);
        assert_eq!((moved, queued(&mut side.peers)), (false, waiting + usize::from(answers)), "{what}");
    }
}

#[test]
fn those_are_asked_first_that_relay_for_others_and_say_goodbye_last() {
    let mut side = up();
    let control = side.key;
    assert_eq!(side.peers.in_use(at(1_000)), [control]);
    assert_eq!(side.peers.in_use(at(1_000) + USER_IDLE_MAX), [control], "only user links sleep");
    for (is_leaf, is_wanted, revives) in [(true, true, true), (true, false, false), (false, true, false)] {
        side.peers.set_wanted(control, is_wanted);
        side.peers.on_moved(at(1_000), control, is_leaf);
        let is_revive = |output: &Output| matches!(output, Output::Revive { .. });
        assert_eq!(outputs(&mut side.peers).iter().any(is_revive), revives, "{is_leaf} {is_wanted}");
    }
    side.peers.set_wanted(control, false);
    side.peers.make_user_link(at(1_000), control);
    assert!(side.peers.in_use(at(1_000) + DORMANT_AFTER).is_empty());
    let other = Side::new(3).peers.me.id();
    let other = side.peers.enter(at(1_000), other).expect("room");
    assert_eq!(side.peers.in_order_of_leaving(), [control, other]);
}

#[test]
fn the_relays_of_a_silent_link_are_asked_but_not_those_that_are_silent_too() {
    let mut side = up();
    let key = side.key;
    let id = side.peers.get(key).expect("it is there").id();
    let asked = [Output::Challenge { peer: key, route: None }];
    side.peers.wake_relays(key, [id, id].into_iter());
    assert_eq!(outputs(&mut side.peers), asked, "once");
    let channel = Route::Relayed { channel: ChannelId([1; 6]), via: key };
    assert!(side.peers.add_path(at(1_000), key, channel));
    side.peers.wake_relays(key, core::iter::empty());
    assert_eq!(outputs(&mut side.peers), asked, "the link's own");
    let detector = &mut side.peers.get_mut(key).expect("it is there").detector;
    detector.on_sent(at(1_000));
    assert!(detector.handle_timeout(at(2_000)).is_some());
    side.peers.wake_relays(key, core::iter::empty());
    assert_eq!(outputs(&mut side.peers), []);
}

#[test]
fn who_is_forgotten_is_remembered_by_its_last_init() {
    let [_, mut side] = linked(at(1_000));
    let key = side.key;
    side.peers.get_mut(key).expect("it is there").last_init_us = 7;
    assert!(!side.peers.is_idle(key), "its link is up");
    let gone = side.peers.forget(key).expect("it was there");
    assert!(gone.was_up && !gone.was_user && !gone.was_wanted);
    assert_eq!(side.peers.forget(key), None);
    let again = side.peers.enter(at(2_000), gone.id).expect("room");
    assert_eq!(side.peers.get(again).map(|peer| peer.last_init_us), Some(7));
    assert!(side.peers.is_idle(again));
}

#[test]
fn nothing_of_a_replaced_link_holds() {
    let mut side = up();
    let key = side.key;
    side.peers.make_user_link(at(1_000), key);
    side.peers.on_replaced(at(1_000), key);
    let peer = side.peers.get(key).expect("it is there");
    assert!(!peer.is_up() && peer.is_user() && peer.paths().routes().next().is_none());
}

#[test]
fn inits_without_an_answer_end_and_the_first_one_has_the_clock_saved() {
    let mut side = Side::new(1);
    side.attempt(at(0));
    let first = outputs(&mut side.peers);
    assert!(matches!(first[..], [Output::Save(Save::ClockMark(_))]), "{first:?}");
    assert!(side.peers.is_asking(side.key, side.route().path().expect("it is direct")));
    let ends = [0, 500, 1_500, 3_500].map(|ms| side.peers.on_handshakes_due(at(ms), &mut side.account, side.key));
    assert_eq!(ends, [Ended::Nothing, Ended::Nothing, Ended::Nothing, Ended::Unanswered]);
    side.attempt(at(4_000));
    assert_eq!(outputs(&mut side.peers), [], "the mark is ahead");
}
