//! What strangers may use, asked for in any order: by a few addresses, two of which share a prefix.

use core::net::SocketAddr;
use core::time::Duration;

use super::{Account, Charge, Exposure, Grant};
use crate::operations::Bytes;
use crate::time::Instant;
use crate::wire::address::Prefix;

const ADDRESSES: u8 = 6;
/// What an unproven address may get unasked from one node while it is remembered (threat D1).
const UNASKED: u64 = 10;
/// The same of what a peer names, from one link.
const PACKETS: u64 = 10;
const BYTES: u64 = 1_024;
/// Attempts at a prefix, or at a proven address, within [`MINUTE`].
const ATTEMPTS: usize = 3;
const PROVEN_ATTEMPTS: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What one address was given.
#[derive(Default)]
struct Given {
    received: (u64, u64),
    answered: (u64, u64),
    /// Since when unasked packets are counted, and how many went.
    unasked: (Instant, u64),
    /// By one link, to an address that no home attests.
    exposed: (Instant, u64, u64),
    attempts: Vec<(Instant, Charge)>,
    peer_seen: Option<Instant>,
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, if n < 2 { 0 } else { n }, n + 1], 7))
}

/// Reads operations, and asserts that no address gets more than it may, whatever is proven, given back and forgotten.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (mut account, mut exposure) = (Account::default(), Exposure::default());
    let mut all: Vec<Given> = (0..ADDRESSES).map(|_| Given::default()).collect();
    let mut now = Instant::ZERO;
    while !bytes.is_empty() {
        let (op, n) = (bytes.u8(), bytes.u8() % ADDRESSES);
        let to = address(n);
        let given = &mut all[usize::from(n)];
        match op % 16 {
            0 | 1 => {
                let len = bytes.u16();
                account.received(now, to, usize::from(len));
                given.received = (given.received.0 + 1, given.received.1 + u64::from(len));
            }
            2 | 3 => {
                let len = bytes.u16();
                if account.answer(now, to, usize::from(len)) {
                    given.answered = (given.answered.0 + 1, given.answered.1 + u64::from(len));
                }
                assert!(given.answered.0 <= given.received.0 && given.answered.1 <= given.received.1);
            }
            4..7 if account.unasked(now, to) => {
                if now.since(given.unasked.0) > MINUTE {
                    given.unasked = (now, 0);
                }
                given.unasked.1 += 1;
                // The minute of the account began with anything that was entered, so two of its minutes meet in ours.
                assert!(given.unasked.1 <= 2 * UNASKED);
            }
            7 => {
                // From then on it gets what it likes; what it got is forgotten.
                account.proven(now, to);
                (given.received, given.answered, given.unasked) = ((0, 0), (0, 0), (now, 0));
            }
            8..10 => {
                let (packets, len) = (bytes.u8() % 12, bytes.u16() % 1_200);
                let has_room = exposure.has_room(now, to.ip(), packets, len);
                assert_eq!(exposure.admit(now, to.ip(), packets, len), has_room);
                if has_room && !exposure.is_attested(now, to.ip()) {
                    if now.since(given.exposed.0) >= 10 * MINUTE {
                        given.exposed = (now, 0, 0);
                    }
                    given.exposed.1 += u64::from(packets);
                    given.exposed.2 += u64::from(len);
                    assert!(given.exposed.1 <= 2 * PACKETS && given.exposed.2 <= 2 * BYTES);
                }
            }
            10 if op & 0x80 == 0 => exposure.attest(now, to.ip()),
            10 => {
                account.peer_seen(now, to.ip());
                given.peer_seen = Some(now);
            }
            11..14 => attempt(&mut account, now, n, &mut all),
            14 => {
                if let Some((_, charge)) = given.attempts.pop() {
                    account.give_back(charge);
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(bytes.u16()) * if op & 0x80 == 0 { 1 } else { 1_000 });
                account.handle_timeout(now);
            }
        }
    }
}

/// An attempt at one address: charged to it where it has proven itself, else to all of its prefix.
fn attempt(account: &mut Account, now: Instant, n: u8, all: &mut [Given]) {
    let is_proven = |given: &Given| given.peer_seen.is_some_and(|at| now.since(at) < DAY);
    let to = address(n);
    for given in &mut *all {
        given.attempts.retain(|(at, _)| now.since(*at) < MINUTE);
    }
    let granted = account.charge_attempts(now, core::iter::once(to));
    assert_eq!(granted.len(), 1);
    match granted[0].1 {
        Grant::Given(Some(charge)) => all[usize::from(n)].attempts.push((now, charge)),
        Grant::Given(None) => unreachable!("a public address is charged for"),
        Grant::Held(until) => assert!(until > now, "it could be tried at once"),
    }
    let (scope, most) = if is_proven(&all[usize::from(n)]) {
        (super::Scope::Proven(to.ip()), PROVEN_ATTEMPTS)
    } else {
        (super::Scope::Prefix(Prefix::of(to.ip())), ATTEMPTS)
    };
    let charged = all.iter().flat_map(|given| &given.attempts).filter(|(_, charge)| charge.scope() == scope);
    assert!(charged.count() <= most, "attempts at {scope:?}");
}

#[test]
fn whatever_strangers_ask_for() {
    crate::operations::drive_at_random(300, 2_000, drive);
}
