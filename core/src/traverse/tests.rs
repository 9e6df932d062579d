//! [`Traversal`] with nothing around it: who gets checks, in which order, and what is said of it.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::attestation::Named;
use super::operations::Alone;
use super::traversal::Traversal;
use crate::account::Scope;
use crate::api::RelayReason;
use crate::identity::SecretKey;
use crate::net::PeerKey;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::nat::NatProfile;
use crate::wire::nat::PunchState;

fn office(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// So many peers behind one address that have told where they are.
fn told(peers: u32) -> Alone {
    let mut alone = Alone::new(peers);
    for nth in 0..peers as usize {
        alone.tell(nth, &[office(1_000 + nth as u16)], 0, NatProfile::default());
    }
    alone
}

/// Which peers got a check.
fn checked(alone: &Alone) -> Vec<usize> {
    (0..alone.peers.len()).filter(|nth| !alone.peers[*nth].checks.is_empty()).collect()
}

fn reason(alone: &Alone, nth: usize) -> Option<RelayReason> {
    let one = &alone.peers[nth];
    alone.machine.relay_reason(alone.now, one.key, &Alone::view(one), || alone.around())
}

#[test]
fn what_the_budget_refuses_waits_its_turn() {
    let mut alone = told(6);
    assert_eq!(checked(&alone), [0, 1, 2], "three attempts a minute at a prefix");
    let minute = Duration::from_secs(60);
    assert_eq!(reason(&alone, 2), Some(RelayReason::Trying));
    assert_eq!(reason(&alone, 3), Some(RelayReason::BudgetHeld { wait: minute }));
    assert_eq!(alone.machine.poll_timeout(), Some(alone.now + minute));
    alone.run_for(minute / 2);
    assert_eq!(checked(&alone), [0, 1, 2]);
    assert_eq!(reason(&alone, 5), Some(RelayReason::BudgetHeld { wait: minute / 2 }));
    // One who comes late does not pass those who wait.
    alone.now += minute / 2;
    alone.tell(3, &[office(1_003), office(2_003)], 0, NatProfile::default());
    alone.settle();
    assert_eq!(checked(&alone), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_next_one_begins_as_soon_as_an_attempt_is_answered() {
    let mut alone = told(9);
    for nth in 0..3 {
        alone.machine.forget_exposure(alone.peers[nth].key);
    }
    assert_eq!(checked(&alone), [0, 1, 2]);
    assert!(alone.answer(1));
    alone.settle();
    assert_eq!(
        checked(&alone).len(),
        8,
        "the address is proven and has thirty attempts of its own: all but the one who answered"
    );
    assert_eq!(reason(&alone, 8), Some(RelayReason::Trying));
}

#[test]
fn one_turn_frees_one_place_at_other_addresses_of_the_prefix() {
    let near = |n: u8| SocketAddr::from(([192, 0, 2, n], 1_000));
    let mut alone = Alone::new(6);
    for nth in 0..6u8 {
        alone.tell(usize::from(nth), &[near(nth + 1)], 0, NatProfile::default());
    }
    assert_eq!(checked(&alone), [0, 1, 2]);
    assert!(alone.answer(2));
    alone.settle();
    assert_eq!(checked(&alone), [0, 1, 3], "the first of those who wait");
    alone.machine.forget(alone.peers[4].key);
    assert!(alone.answer(3));
    alone.settle();
    assert_eq!(checked(&alone), [0, 1, 5], "who is gone does not wait");
}

#[test]
fn a_home_that_sees_the_peer_exempts_exactly_that_address() {
    let mut alone = told(4);
    let key = alone.peers[3].key;
    assert!(alone.machine.effort_of(key).is_some(), "evidence is asked for where the budget holds");
    let home = alone.home;
    alone.call(3, |t, case| t.on_vouched(case, &home, office(1_003)));
    alone.settle();
    assert_eq!(checked(&alone), [0, 1, 2, 3]);
    let left = |alone: &mut Alone| (0..99).filter(|_| alone.account.take_attempt(alone.now, office(7))).count();
    assert_eq!(left(&mut alone), 30, "it was charged to nobody");
    // Elsewhere behind the same address the peer is one of those who share its thirty attempts.
    alone.tell(3, &[office(1_003), office(2_003)], 0, NatProfile::default());
    assert!(matches!(reason(&alone, 3), Some(RelayReason::BudgetHeld { .. })));
}

#[test]
fn a_relayed_link_tries_again_less_and_less_often() {
    let mut alone = told(1);
    let key = alone.peers[0].key;
    alone.machine.on_path_changed(alone.now, key, false);
    let began = alone.now;
    let mut offers = Vec::new();
    for second in 1..=600u64 {
        let before = alone.offers;
        alone.run_for(Duration::from_secs(1));
        if alone.offers > before {
            offers.push(second);
        }
        assert_eq!(alone.now, began + Duration::from_secs(second));
    }
    assert!(offers[0] == 4 && offers.len() < 10, "{offers:?}");
    let waits: Vec<u64> = offers.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted(), "{offers:?}");
}

#[test]
fn regression_a_dial_that_the_exposure_refuses_costs_nobody_an_attempt() {
    let mut alone = told(1);
    let (supernode, at) = (SecretKey::from_bytes(&[103; 32]).peer_id(), SocketAddr::from(([203, 0, 113, 7], 7)));
    let name = |alone: &mut Alone| {
        let state = PunchState { attempt: 0, round: 0, ready: false, newest: 0, vouch: Some((supernode, at.into())) };
        alone.call(0, |t, case| t.on_punch(case, &state, Named::Unknown));
        alone.run_for(Duration::from_secs(5));
    };
    // One dial is all that the peer's own share of the address allows; it asks for three.
    for _ in 0..3 {
        name(&mut alone);
    }
    let left = (0..9).filter(|_| alone.account.take_attempt(alone.now, at)).count();
    assert_eq!(left, 2, "others may still be looked for there");
}

/// Who waits as a plain list would have it: the key, the turn, the addresses, and until when.
#[derive(Default)]
struct Naive(Vec<(PeerKey, u64, Vec<IpAddr>, Instant)>);

impl Naive {
    fn poll_turn(&mut self, now: Instant) -> Option<(PeerKey, u64)> {
        let due = self.0.iter().filter(|one| one.3 <= now).min_by_key(|one| one.1).map(|one| one.0)?;
        let at = self.0.iter().position(|one| one.0 == due)?;
        let (key, turn, ..) = self.0.remove(at);
        Some((key, turn))
    }

    fn wake(&mut self, is_freer: impl Fn(IpAddr) -> bool) {
        for (.., until) in self.0.iter_mut().filter(|one| one.2.iter().any(|ip| is_freer(*ip))) {
            *until = Instant::ZERO;
        }
    }
}

#[test]
fn turns_are_those_of_a_plain_list() {
    let mut choices = Seed::new([3; 32]).choices("test");
    let mut below = |n| choices.below(n) as u8;
    let mut machine = Traversal::new(&Seed::new([1; 32]));
    let mut naive = Naive::default();
    let (mut now, mut served) = (Instant::ZERO, 0);
    let address = |n: u8| SocketAddr::from(([192, 0, n % 3, n % 2], 7));
    for _ in 0..5_000 {
        let key = PeerKey { index: u32::from(below(12)), generation: 0 };
        let to = address(below(6));
        match below(8) {
            0..4 => {
                let until = now + Duration::from_secs(below(9).into());
                let _ = machine.target(key);
                match naive.0.iter_mut().find(|one| one.0 == key) {
                    Some((.., addresses, before)) => {
                        addresses.push(to.ip());
                        *before = until.min(*before);
                    }
                    None => naive.0.push((key, machine.turns, vec![to.ip()], until)),
                }
                machine.hold(key, &[(to, until)], None);
            }
            4 => {
                machine.stop_waiting(key);
                naive.0.retain(|one| one.0 != key);
            }
            5 => {
                machine.wake(Scope::Proven(to.ip()));
                naive.wake(|ip| ip == to.ip());
            }
            6 => {
                machine.wake(Scope::Prefix(Prefix::of(to.ip())));
                naive.wake(|ip| Prefix::of(ip) == Prefix::of(to.ip()));
            }
            _ => now += Duration::from_secs(below(4).into()),
        }
        machine.assert_consistent();
        if below(4) == 0 {
            // All or some of those whose turn has come.
            for _ in 0..below(6) {
                let turn = machine.poll_turn(now).map(|(key, held)| (key, held.turn));
                assert_eq!(turn, naive.poll_turn(now));
                served += usize::from(turn.is_some());
            }
        }
        let is_due = naive.0.iter().any(|one| one.3 <= now);
        assert_eq!(machine.is_turn_due(now), is_due);
        if !is_due {
            assert_eq!(machine.poll_timeout(), naive.0.iter().map(|one| one.3).min());
        }
    }
    assert!(served > 500, "{served} turns");
}
