use core::net::SocketAddr;

use super::*;
use crate::identity::SecretKey;
use crate::introduce::{AfterFailure, LinkLeft};
use crate::net::SocketId;

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 7))
}

fn home(n: u8) -> Home {
    (id(n), addr(n))
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// The calls of node 1 to node 2, and an account for them.
fn calls() -> (Calls, Account) {
    (Calls::new(id(1), false), Account::default())
}

fn outputs(calls: &mut Calls) -> Vec<CallOutput> {
    core::iter::from_fn(|| calls.poll_output()).collect()
}

/// Runs the call to node 2 with nobody answering, and says what it wanted, when.
fn run(calls: &mut Calls, known: &Known) -> Vec<(u64, CallOutput)> {
    let mut seen = Vec::new();
    while let Some(now) = calls.poll_timeout() {
        assert_eq!(calls.pop_due(now), Some(id(2)));
        calls.handle_timeout(now, id(2), known);
        assert!(calls.poll_timeout().is_none_or(|next| next > now), "no deadline in the past");
        while let Some(output) = calls.poll_output() {
            if let CallOutput::Build { peer, .. } = output {
                calls.on_init_built(peer, b"an Init".as_slice().into());
            }
            seen.push((now.as_micros() / 1_000, output));
        }
    }
    seen
}

const LOOKUP: fn() -> CallOutput = || CallOutput::Lookup { peer: id(2) };
const FORGET: fn() -> CallOutput = || CallOutput::Forget { peer: id(2) };

fn failed(error: ConnectError) -> CallOutput {
    CallOutput::Failed { peer: id(2), error }
}

fn introduce(n: u8) -> CallOutput {
    CallOutput::Introduce { peer: id(2), home: home(n), init: b"an Init".as_slice().into() }
}

#[test]
fn a_call_that_cannot_be_is_refused_and_one_under_way_goes_on() {
    let (mut calls, mut account) = calls();
    let call = |calls: &mut Calls, account: &mut Account, peer| calls.call(at(0), account, peer, &Known::default());
    assert_eq!(call(&mut calls, &mut account, id(1)), Err(CommandError::OwnId));
    assert_eq!(call(&mut calls, &mut account, id(2)), Ok(()));
    assert_eq!(outputs(&mut calls), [LOOKUP()]);
    assert_eq!(call(&mut calls, &mut account, id(2)), Ok(()));
    assert_eq!(outputs(&mut calls), [], "it is under way");
    calls.finish(&id(2));
    assert!(calls.is_empty() && calls.poll_timeout().is_none());
}

#[test]
fn each_home_is_asked_four_times_and_there_are_two_rounds() {
    let (mut calls, mut account) = calls();
    calls.learn_homes(id(2), vec![home(3), home(4)]);
    calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
    assert_eq!(outputs(&mut calls), [CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(3) }]);
    calls.on_init_built(id(2), b"an Init".as_slice().into());
    assert_eq!(outputs(&mut calls), [introduce(3)]);

    let build = |n| CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(n) };
    let seen = run(&mut calls, &Known::default());
    let first = [
        (500, introduce(3)),
        (1_500, introduce(3)),
        (2_500, introduce(3)),
        (4_000, build(4)),
        (4_000, introduce(4)),
        (4_500, introduce(4)),
        (5_500, introduce(4)),
        (6_500, introduce(4)),
        // Both in vain: another round begins with a lookup, which nobody answers.
        (8_000, FORGET()),
        (9_000, LOOKUP()),
    ];
    assert_eq!(seen[..first.len()], first);
    assert_eq!(seen.last(), Some(&(41_000, failed(ConnectError::Unreachable))));
    assert!(calls.is_empty());
}

#[test]
fn the_second_round_is_the_last() {
    let (mut calls, mut account) = calls();
    calls.learn_homes(id(2), vec![home(3)]);
    calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
    for round in 0..2 {
        assert_eq!(
            outputs(&mut calls).pop(),
            Some(CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(3) })
        );
        calls.on_init_built(id(2), b"an Init".as_slice().into());
        let _ = outputs(&mut calls);
        assert_eq!(calls.on_refused(at(0), id(2), &id(3), Refusal::Busy), Ok(()));
        if round == 0 {
            assert_eq!(outputs(&mut calls), [FORGET()]);
            assert_eq!(calls.pop_due(at(1_000)), Some(id(2)));
            calls.handle_timeout(at(1_000), id(2), &Known::default());
            assert_eq!(outputs(&mut calls), [LOOKUP()]);
            calls.on_located(at(1_000), id(2), vec![home(3)], &Known::default());
        }
    }
    assert_eq!(outputs(&mut calls), [FORGET(), failed(ConnectError::Busy)]);
}

#[test]
fn only_the_home_that_is_asked_can_refuse() {
    let (mut calls, mut account) = calls();
    assert_eq!(calls.on_refused(at(0), id(2), &id(3), Refusal::Busy), Err(DropReason::UnknownReceiver));
    calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
    assert_eq!(calls.on_refused(at(0), id(2), &id(3), Refusal::NotAllowed), Ok(()), "nobody is asked");
    calls.on_located(at(0), id(2), vec![home(3), home(4)], &Known::default());
    let _ = outputs(&mut calls);
    assert_eq!(calls.on_refused(at(0), id(2), &id(4), Refusal::NotAllowed), Ok(()));
    assert_eq!(outputs(&mut calls), [], "it is not its turn");
    assert_eq!(calls.on_refused(at(0), id(2), &id(3), Refusal::NotRegistered), Ok(()));
    assert_eq!(outputs(&mut calls), [CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(4) }]);
    assert_eq!(calls.on_refused(at(0), id(2), &id(4), Refusal::NotAllowed), Ok(()));
    assert_eq!(outputs(&mut calls), [FORGET(), failed(ConnectError::Refused)]);
}

#[test]
fn a_supernode_is_dialled_looked_up_and_dialled_again() {
    let (mut calls, mut account) = calls();
    let known = Known { addresses: vec![addr(5), addr(6)], ..Known::default() };
    calls.call(at(0), &mut account, id(2), &known).expect("taken");
    let dials = [5, 6].map(|n| CallOutput::Dial { peer: id(2), address: addr(n), origin: Origin::Hearsay });
    assert_eq!(outputs(&mut calls), dials);
    // It may be none any more; a lookup in vain leaves what is known.
    let known = Known { addresses: vec![addr(7)], ..Known::default() };
    let seen = run(&mut calls, &known);
    let [a, b] = dials;
    let c = CallOutput::Dial { peer: id(2), address: addr(7), origin: Origin::Hearsay };
    let expected = [
        (4_000, FORGET()),
        (4_000, LOOKUP()),
        (8_000, a.clone()),
        (8_000, b.clone()),
        (8_000, c.clone()),
        (12_000, a),
        (12_000, b),
        (12_000, c),
        (16_000, FORGET()),
        (16_000, failed(ConnectError::Unreachable)),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_ticket_counts_unless_the_peer_is_registered_here() {
    let (mut calls, mut account) = calls();
    calls.learn_homes(id(2), vec![home(3)]);
    let known = Known { is_leaf_here: true, homes: vec![home(1)], ..Known::default() };
    calls.call(at(0), &mut account, id(2), &known).expect("taken");
    assert_eq!(outputs(&mut calls), [CallOutput::UseLink { peer: id(2) }], "this node is its home");
    calls.on_impossible(id(2));
    assert_eq!(outputs(&mut calls), [FORGET(), failed(ConnectError::Unreachable)]);
    calls.call(at(0), &mut account, id(2), &Known { homes: vec![home(4)], ..Known::default() }).expect("taken");
    assert_eq!(
        outputs(&mut calls),
        [CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(4) }],
        "the ticket was of no use"
    );
}

#[test]
fn why_it_failed_depends_on_why_the_lookups_did() {
    let why = |failure, hears_lan| {
        let (mut calls, mut account) = (Calls::new(id(1), hears_lan), Account::default());
        calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
        let (mut now, mut lookups) = (at(0), 0);
        loop {
            match calls.poll_output() {
                Some(CallOutput::Lookup { .. }) => {
                    lookups += 1;
                    calls.on_lookup_failed(now, id(2), failure, &Known::default());
                }
                Some(CallOutput::Failed { error, .. }) => return (lookups, now.as_micros() / 1_000, error),
                Some(_) => {}
                None => {
                    now = calls.poll_timeout().expect("a deadline");
                    assert_eq!(calls.pop_due(now), Some(id(2)));
                    calls.handle_timeout(now, id(2), &Known::default());
                }
            }
        }
    };
    assert_eq!(why(LookupFailure::Lost, false), (1, 0, ConnectError::NoSupernode));
    assert_eq!(why(LookupFailure::Lost, true), (6, 2_500, ConnectError::NoSupernode));
    assert_eq!(why(LookupFailure::Nobody, false), (50, 4_900, ConnectError::NoSupernode));
    assert_eq!(why(LookupFailure::NoAnswer, false), (3, 2_000, ConnectError::NoSupernode));
    assert_eq!(why(LookupFailure::Unknown, false), (3, 2_000, ConnectError::UnknownPeer));
}

#[test]
fn on_the_lan_a_peer_is_tried_three_times_beside_the_search() {
    let (mut calls, mut account) = calls();
    let near = SocketAddr::from(([192, 168, 1, 2], 7));
    let mut tell = |calls: &mut Calls, is_linked| {
        let network = Network { sockets: vec![(SocketId(0), SocketAddr::from(([0; 4], 7)))], ..Network::default() };
        let node = LanNode { peer: id(2), addresses: vec![near], is_supernode: false };
        calls.handle_lan_node(at(0), &mut account, &network, &node, is_linked)
    };
    assert!(tell(&mut calls, false));
    assert_eq!(outputs(&mut calls), [], "nobody wants it");
    let dial = CallOutput::Dial { peer: id(2), address: near, origin: Origin::Own };
    calls.call(at(0), &mut Account::default(), id(2), &Known::default()).expect("taken");
    assert_eq!(outputs(&mut calls), [dial.clone(), LOOKUP()]);
    assert!(tell(&mut calls, true));
    assert_eq!(outputs(&mut calls), [], "its link is up");
    for _ in 0..10 {
        assert!(tell(&mut calls, false));
    }
    assert_eq!(outputs(&mut calls), [dial.clone(), dial.clone()], "three in all");
    // Where nobody can say where it is at home, the LAN is tried to its end.
    calls.on_location(at(0), id(2), Err(LookupFailure::Lost), &Known::default());
    assert_eq!(outputs(&mut calls), [dial]);
    assert_eq!(run(&mut calls, &Known::default()).pop(), Some((16_000, failed(ConnectError::Unreachable))));
    calls.handle_lan_node_gone(&id(2));
    assert_eq!(calls.lan().iter().count(), 0);
}

#[test]
fn a_ticket_is_believed_as_far_as_packets_could_go_there() {
    let (mut calls, mut account) = calls();
    let nowhere = (id(3), SocketAddr::from(([0, 0, 0, 0], 7)));
    let ticket = |homes: &[Home]| Ticket { peer: id(2), homes: homes.iter().copied().collect(), service: None };
    assert_eq!((calls.learn(&ticket(&[nowhere])), calls.sizes().1), (vec![], 0));
    assert_eq!(calls.learn(&ticket(&[nowhere, home(4)])), [home(4)]);
    calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
    assert_eq!(outputs(&mut calls), [CallOutput::Build { peer: id(2), link_use: LinkUse::User, home: home(4) }]);
}

#[test]
fn homes_that_the_peer_itself_is_one_of_are_remembered() {
    let (mut calls, mut account) = calls();
    calls.on_location(at(0), id(2), Ok(vec![home(2)]), &Known::default());
    calls.on_location(at(0), id(3), Ok(vec![home(4)]), &Known::default());
    assert_eq!(calls.sizes().1, 1, "it is a supernode, and not to be looked for again");
    calls.call(at(0), &mut account, id(2), &Known::default()).expect("taken");
    assert_eq!(outputs(&mut calls), [CallOutput::Dial { peer: id(2), address: addr(2), origin: Origin::Hearsay }]);
}

#[test]
fn who_is_told_of_a_failure_depends_on_the_link_that_is_left() {
    use AfterFailure::*;
    assert_eq!(LinkLeft::Working.after_failure(), []);
    assert_eq!(LinkLeft::Stranded.after_failure(), [Drop, Tell]);
    assert_eq!(LinkLeft::None.after_failure(), [Tell, EndWaiting]);
}

#[test]
fn calls_and_known_homes_are_bounded() {
    let (mut calls, mut account) = calls();
    let peer = |n: u16| SecretKey::from_bytes(&core::array::from_fn(|i| n.to_le_bytes()[i % 2])).peer_id();
    let mut taken = 0;
    for n in 0..5_000 {
        calls.learn_homes(peer(n), vec![home(3)]);
        taken += usize::from(calls.call(at(0), &mut account, peer(n), &Known::default()).is_ok());
        calls.poll_output();
    }
    assert_eq!(taken, CALLS_MAX);
    assert_eq!(calls.sizes(), (CALLS_MAX, KNOWN_HOMES_MAX, CALLS_MAX));
    assert_eq!(calls.call(at(0), &mut account, peer(4_999), &Known::default()), Err(CommandError::Limit));
}

#[test]
fn a_call_for_a_leg_fails_quietly_and_becomes_one_for_the_application_when_that_calls() {
    let (mut calls, mut account) = calls();
    calls.learn_homes(id(2), vec![home(3)]);
    calls.call_leg(at(0), &mut account, id(2), &Known::default());
    let build = |link_use| CallOutput::Build { peer: id(2), link_use, home: home(3) };
    assert_eq!(outputs(&mut calls), [build(LinkUse::Leg)]);
    assert!(calls.contains(&id(2)) && !calls.wants_user(&id(2)), "who is called for a leg is not let in");
    calls.on_refused(at(1), id(2), &id(3), Refusal::NotAllowed).expect("called");
    assert_eq!(outputs(&mut calls), [FORGET(), CallOutput::LegFailed { peer: id(2) }]);

    calls.learn_homes(id(2), vec![home(3)]);
    calls.call_leg(at(2), &mut account, id(2), &Known::default());
    calls.call(at(3), &mut account, id(2), &Known::default()).expect("under way");
    assert!(calls.wants_user(&id(2)));
    calls.on_refused(at(4), id(2), &id(3), Refusal::NotAllowed).expect("called");
    assert_eq!(outputs(&mut calls).pop(), Some(failed(ConnectError::Refused)));
}

#[test]
fn a_home_needs_nobody_to_relay_to_its_leaf() {
    let (mut calls, mut account) = calls();
    let known = Known { is_leaf_here: true, homes: vec![home(1)], ..Known::default() };
    calls.call_leg(at(0), &mut account, id(2), &known);
    assert_eq!(outputs(&mut calls), [FORGET(), CallOutput::LegFailed { peer: id(2) }]);
}
