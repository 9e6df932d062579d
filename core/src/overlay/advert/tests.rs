use core::time::Duration;
use std::collections::VecDeque;

use super::shelf::Refused;
use super::statement::{LIFETIME_MAX, SKEW_MAX};
use super::*;
use crate::account::Source;
use crate::api::{Event, Save};
use crate::overlay::home::testnet::{generators, key, s, wall_at};
use crate::overlay::output::Output;
use crate::time::{Instant, WallTime};
use crate::wire::message::{Load, LoadHint};

fn advert(n: u8, sequence: u64, at: Instant) -> Advert {
    Advert {
        id: key(n).peer_id(),
        sequence,
        issued_s: wall_at(at).as_secs(),
        lifetime_s: 3600,
        capabilities: Capabilities::ALL,
        leaves_max: 1000,
        relay_kbps: 0,
        addresses: [Address::V4([203, 0, n, 1], [1, 2])].into_iter().collect(),
    }
}

fn signed(n: u8, sequence: u64, at: Instant) -> Box<[u8]> {
    advert(n, sequence, at).sign(&key(n))
}

fn members() -> MembershipTable {
    MembershipTable::new(key(0).peer_id(), 1_024)
}

/// Passed on by others.
const TOLD: Found = Found::Told(None);

/// Inserts as if from one neighbour.
fn insert(members: &mut MembershipTable, now: Instant, bytes: &[u8]) -> Result<(), Refused> {
    members.insert(now, Source::Peer(key(200).peer_id()), Some(wall_at(now)), bytes, TOLD).map(|_| ())
}

#[test]
fn the_bytes_are_pinned() {
    let bytes = signed(1, 7, s(0));
    let mut expected = vec![1];
    expected.extend_from_slice(key(1).peer_id().as_bytes());
    expected.push(7);
    expected.extend_from_slice(&[0x80, 0xa4, 0xa7, 0xda, 0x06]); // 1 800 000 000, as a varint
    expected.extend_from_slice(&[0x90, 0x1c]); // 3600
    expected.extend_from_slice(&[3, 0xe8, 0x07, 0]); // capabilities, 1000 leaves, no relay limit
    expected.extend_from_slice(&[1, 0, 203, 0, 1, 1, 1, 2]); // one address
    assert_eq!(bytes[..bytes.len() - 64], expected);
    assert_eq!(Advert::verify(&bytes), Ok(advert(1, 7, s(0))));
}

#[test]
fn the_longest_advert_fits_its_limit() {
    let longest = Advert {
        sequence: u64::MAX,
        leaves_max: u32::MAX,
        relay_kbps: u32::MAX,
        addresses: [Address::V6([0x20; 16], [1, 2]); 4].into(),
        ..advert(1, 1, s(0))
    };
    let bytes = longest.sign(&key(1));
    assert!(bytes.len() <= Advert::LEN_MAX, "{}", bytes.len());
    assert_eq!(Advert::verify(&bytes), Ok(longest));
}

#[test]
fn c1_forged_adverts_are_refused() {
    let good = signed(1, 7, s(0));
    for i in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bad = good.clone();
            bad[i] ^= bit;
            assert!(Advert::verify(&bad).is_err(), "byte {i}");
        }
        assert!(Advert::verify(&good[..i]).is_err(), "cut at {i}");
    }
    // Signed by another key than that of the id inside.
    let mut body = good[..good.len() - 64].to_vec();
    body.extend(key(2).sign(SignatureKind::Advert, &body.clone()));
    assert_eq!(Advert::verify(&body), Err(StatementError::Signature));
    // Signed for another purpose.
    let mut body = good[..good.len() - 64].to_vec();
    body.extend(key(1).sign(SignatureKind::Record, &body.clone()));
    assert_eq!(Advert::verify(&body), Err(StatementError::Signature));
    // Properly signed, with a byte too many.
    let mut body = [&good[..good.len() - 64], &[0]].concat();
    body.extend(key(1).sign(SignatureKind::Advert, &body.clone()));
    assert_eq!(Advert::verify(&body), Err(StatementError::Malformed));
}

#[test]
fn of_whom_a_leaf_never_heard_nothing_is_checked_until_another_advert_comes() {
    let mut members = members();
    let named = |members: &mut MembershipTable, bytes: &[u8]| {
        let from = Source::Peer(key(200).peer_id());
        members.insert(s(1), from, Some(wall_at(s(1))), bytes, Found::Rumoured(None)).map(|_| ())
    };
    let elsewhere = |sequence| {
        let addresses = [Address::V4([198, 51, 100, 1], [1, 2])].into_iter().collect();
        let mut bytes = Advert { addresses, ..advert(1, sequence, s(0)) }.sign(&key(1));
        bytes.iter_mut().rev().take(64).for_each(|byte| *byte = 0);
        bytes
    };
    let at = |members: &MembershipTable| members.address(&key(1).peer_id()).expect("it is here");
    assert_eq!(named(&mut members, &elsewhere(u64::MAX)), Ok(()), "not signed by the one it speaks of");
    assert_eq!(at(&members), ([198, 51, 100, 1], 0x0102).into());
    assert!(!members.is_signed(&key(1).peer_id()), "it is no supernode for that");
    assert_eq!(insert(&mut members, s(1), &elsewhere(8)), Err(Refused::Bad(StatementError::Signature)), "nor is this");
    assert_eq!(members.len(), 0, "what was there is gone");
    assert_eq!(named(&mut members, &elsewhere(u64::MAX)), Ok(()));
    assert_eq!(named(&mut members, &signed(1, 7, s(0))), Ok(()), "in place of one that is not signed");
    assert_eq!(at(&members), ([203, 0, 1, 1], 0x0102).into());
    assert_eq!(named(&mut members, &elsewhere(8)), Err(Refused::Bad(StatementError::Signature)));
    assert_eq!(named(&mut members, &signed(1, 8, s(0))), Ok(()));
    assert!(members.is_signed(&key(1).peer_id()));
    assert_eq!(at(&members), ([203, 0, 1, 1], 0x0102).into());
}

#[test]
fn impossible_values_are_refused() {
    let bad = [
        Advert { addresses: ArrayVec::new(), ..advert(1, 1, s(0)) },
        Advert { addresses: [Address::V4([0; 4], [1, 2])].into_iter().collect(), ..advert(1, 1, s(0)) },
        Advert { addresses: [Address::V4([224, 0, 0, 1], [1, 2])].into_iter().collect(), ..advert(1, 1, s(0)) },
        Advert { lifetime_s: 3601, ..advert(1, 1, s(0)) },
        Advert { lifetime_s: 0, ..advert(1, 1, s(0)) },
    ];
    for bad in bad {
        assert_eq!(Advert::verify(&bad.sign(&key(1))), Err(StatementError::BadValue));
    }
}

#[test]
fn c3_replayed_and_stale_adverts_are_refused() {
    let (mut members, old, new) = (members(), signed(1, 7, s(0)), signed(1, 8, s(10)));
    insert(&mut members, s(10), &new).unwrap();
    assert_eq!(insert(&mut members, s(11), &old), Err(Refused::Known));
    assert_eq!(insert(&mut members, s(11), &new), Err(Refused::Known));
    // Gone when its hour is over, and not taken again.
    members.handle_timeout(s(3609));
    assert!(members.contains(&key(1).peer_id()));
    assert_eq!(members.poll_timeout(), Some(s(3610)));
    members.handle_timeout(s(3610));
    assert_eq!((members.len(), members.poll_timeout()), (0, None));
    assert_eq!(insert(&mut members, s(3610), &new), Err(Refused::Bad(StatementError::Expired)));
}

#[test]
fn c3_a_copy_passed_on_late_ends_with_the_first_one() {
    let mut members = members();
    insert(&mut members, s(3000), &signed(1, 7, s(0))).unwrap();
    members.handle_timeout(s(3600));
    assert_eq!(members.len(), 0);
}

#[test]
fn c4_adverts_from_the_future_are_refused() {
    let mut members = members();
    let skew = SKEW_MAX.as_secs();
    assert_eq!(
        insert(&mut members, s(0), &signed(1, u64::MAX, s(skew + 1))),
        Err(Refused::Bad(StatementError::Future))
    );
    insert(&mut members, s(0), &signed(1, u64::MAX, s(skew))).unwrap();
    // The receiver's own clock ends it.
    members.handle_timeout(s(0) + LIFETIME_MAX);
    assert_eq!(members.len(), 0);
    // Without a wall clock the lifetime still counts.
    members.insert(s(0), Source::Peer(key(200).peer_id()), None, &signed(1, 1, s(0)), TOLD).unwrap();
    assert_eq!(members.poll_timeout(), Some(s(3600)));
}

#[test]
fn c2_a_neighbour_that_floods_junk_is_cut_short() {
    let mut members = members();
    let mut junk = signed(1, 7, s(0));
    let last = junk.len() - 1;
    junk[last] ^= 1;
    let flood = |members: &mut MembershipTable, from: u8, now: Instant| {
        let results = (0..3000).map(|_| members.insert(now, Source::Peer(key(from).peer_id()), None, &junk, TOLD));
        results.filter(|r| matches!(r, Err(Refused::Bad(StatementError::Signature)))).count()
    };
    // One neighbour, then several: what is verified at once is bounded by each and by all together.
    assert_eq!(flood(&mut members, 201, s(1)), 500);
    assert_eq!(
        members.insert(s(1), Source::Peer(key(201).peer_id()), None, &signed(2, 1, s(0)), TOLD),
        Err(Refused::Budget)
    );
    assert!(
        members.insert(s(1), Source::Peer(key(202).peer_id()), None, &signed(2, 1, s(0)), TOLD).is_ok(),
        "others are not held back"
    );
    let rest: usize = (203..210).map(|from| flood(&mut members, from, s(1))).sum();
    assert_eq!(500 + 1 + rest, 1250);
    // A second later as much as a second allows.
    let again: usize = (201..210).map(|from| flood(&mut members, from, s(2))).sum();
    assert_eq!(again, 1250);
}

#[test]
fn what_is_known_costs_no_budget() {
    let (mut members, bytes) = (members(), signed(1, 7, s(0)));
    insert(&mut members, s(1), &bytes).unwrap();
    for _ in 0..5000 {
        assert_eq!(insert(&mut members, s(1), &bytes), Err(Refused::Known));
    }
    insert(&mut members, s(1), &signed(2, 7, s(0))).unwrap();
}

#[test]
fn c6_one_prefix_does_not_fill_the_book() {
    let mut members = MembershipTable::new(key(0).peer_id(), 64);
    let at = |n: u8, ip: [u8; 4], sequence| {
        let addresses = [Address::V4(ip, [1, 2])].into_iter().collect();
        Advert { addresses, ..advert(n, sequence, s(0)) }.sign(&key(n))
    };
    // While it is not half full, diversity is no more than a preference.
    for n in 1..=10 {
        insert(&mut members, s(1), &at(n, [203, 0, 113, n], 1)).unwrap();
    }
    insert(&mut members, s(1), &at(12, [203, 0, 113, 12], 1)).unwrap();
    insert(&mut members, s(1), &at(12, [203, 0, 115, 12], 2)).unwrap();
    for n in 100..122 {
        insert(&mut members, s(1), &at(n, [203, 1, n, n], 1)).unwrap();
    }
    assert_eq!(insert(&mut members, s(1), &at(11, [203, 0, 113, 11], 1)), Err(Refused::Crowded));
    // Renewal is no newcomer, moving in is one, and who moves out makes room.
    insert(&mut members, s(1), &at(1, [203, 0, 113, 99], 2)).unwrap();
    insert(&mut members, s(1), &at(11, [203, 0, 114, 11], 1)).unwrap();
    assert_eq!(insert(&mut members, s(1), &at(11, [203, 0, 113, 11], 2)), Err(Refused::Crowded));
    let mut out = 0;
    while insert(&mut members, s(1), &at(11, [203, 0, 113, 11], 2)).is_err() {
        out += 1;
        insert(&mut members, s(1), &at(out, [203, 0, 120 + out, 1], 3)).unwrap();
    }
    assert!((1..10).contains(&out), "not before one is out, and at the latest when its bucket has less than two");
    // Private ranges have no such limit.
    for n in 20..40 {
        let told = members.insert(s(1), Source::Peer(key(200).peer_id()), None, &at(n, [127, 0, 0, 1], 1), TOLD);
        assert_eq!(told.map(|_| ()), Err(Refused::Bad(StatementError::BadValue)), "it means us to us");
        let here = Found::Told(Some([127, 0, 0, 1].into()));
        members.insert(s(1), Source::Peer(key(200).peer_id()), None, &at(n, [127, 0, 0, 1], 1), here).unwrap();
    }
}

#[test]
fn of_one_prefix_two_have_places_in_a_bucket() {
    let mut members = MembershipTable::new(key(0).peer_id(), 64);
    for n in 1..=33 {
        let addresses = [Address::V4([203, 1, n, 1], [1, 2])].into_iter().collect();
        insert(&mut members, s(1), &Advert { addresses, ..advert(n, 1, s(0)) }.sign(&key(n))).unwrap();
    }
    let bucket = |n: u8| {
        let [mine, its] = [0, n].map(|n| u32::from_be_bytes(shelf::id_prefix(&key(n).peer_id())));
        (mine ^ its).leading_zeros()
    };
    let mut taken = std::collections::BTreeMap::<u32, usize>::new();
    for n in 100..130 {
        let addresses = [Address::V4([203, 0, 113, n], [1, 2])].into_iter().collect();
        let bytes = Advert { addresses, ..advert(n, 1, s(0)) }.sign(&key(n));
        let count = taken.entry(bucket(n)).or_default();
        let is_full = *count == 2;
        match insert(&mut members, s(1), &bytes) {
            Ok(()) => *count += 1,
            Err(refused) => assert_eq!((refused, is_full), (Refused::Crowded, true)),
        }
    }
    assert!(taken.values().all(|count| *count <= 2) && taken.values().filter(|count| **count == 2).count() >= 2);
}

#[test]
fn who_was_found_somewhere_stays_while_its_adverts_name_that_place() {
    let mut members = members();
    let (from, wall) = (key(200).peer_id(), Some(wall_at(s(1))));
    let at = |a: u8, sequence, capabilities| {
        let addresses = [Address::V4([203, 0, a, 1], [1, 2])].into_iter().collect();
        Advert { capabilities, addresses, ..advert(1, sequence, s(0)) }.sign(&key(1))
    };
    let found = SocketAddr::from(([203, 0, 7, 1], 0x0102));
    assert_eq!(members.renew(s(1), Source::Peer(from), wall, &at(7, 1, Capabilities::ALL)), Err(Refused::Unproven));
    // A withdrawal of nothing leaves nothing.
    let withdrawn =
        members.insert(s(1), Source::Peer(from), wall, &at(7, 1, Capabilities::default()), Found::Here(found));
    assert_eq!((withdrawn, members.len()), (Err(Refused::Known), 0));
    members.insert(s(1), Source::Peer(from), wall, &at(7, 1, Capabilities::ALL), Found::Here(found)).unwrap();
    members.renew(s(1), Source::Peer(from), wall, &at(7, 2, Capabilities::ALL)).unwrap();
    assert_eq!(members.renew(s(1), Source::Peer(from), wall, &at(8, 3, Capabilities::ALL)), Err(Refused::Unproven));
    assert_eq!(members.address(&key(1).peer_id()), Some(found));
    // Nor does one that sends others to somebody else first.
    let mut victim_first = advert(1, 3, s(0));
    victim_first.addresses = [8, 7].map(|a| Address::V4([203, 0, a, 1], [1, 2])).into_iter().collect();
    let bytes = victim_first.sign(&key(1));
    assert_eq!(members.renew(s(1), Source::Peer(from), wall, &bytes), Err(Refused::Unproven));
    victim_first.addresses.reverse();
    members.renew(s(1), Source::Peer(from), wall, &victim_first.sign(&key(1))).unwrap();
    members.renew(s(1), Source::Peer(from), wall, &at(8, 4, Capabilities::default())).unwrap();
    assert_eq!((members.contains(&key(1).peer_id()), members.address(&key(1).peer_id())), (false, None));
}

#[test]
fn a_full_book_keeps_whom_it_knows_but_not_the_dead() {
    let mut members = MembershipTable::new(key(0).peer_id(), 3);
    for n in 1..=3 {
        insert(&mut members, s(1), &signed(n, 1, s(0))).unwrap();
    }
    assert_eq!(insert(&mut members, s(1), &signed(4, 1, s(0))), Err(Refused::Full));
    insert(&mut members, s(1), &signed(3, 2, s(0))).unwrap();
    members.set_suspicion(&key(2).peer_id(), Suspicion::Dead);
    insert(&mut members, s(1), &signed(4, 1, s(0))).unwrap();
    assert_eq!(members.len(), 3);
    assert!(!members.contains(&key(2).peer_id()));
    assert_eq!(insert(&mut members, s(1), &signed(2, 1, s(0))), Err(Refused::Full));
}

#[test]
fn nobody_speaks_for_this_node() {
    let mut members = members();
    assert_eq!(insert(&mut members, s(1), &signed(0, 9, s(0))), Err(Refused::Own));
}

#[test]
fn b5_first_hand_load_outranks_hints() {
    let mut members = members();
    let id = key(1).peer_id();
    insert(&mut members, s(1), &signed(1, 1, s(0))).unwrap();
    let load = |leaves| Load { leaves, ..Load::default() };
    let hint = |sequence: u32, leaves| LoadHint {
        id_prefix: shelf::id_prefix(&id),
        sequence: sequence.to_le_bytes(),
        load: load(leaves),
        suspicion: 0,
    };
    let other = key(2).peer_id();
    members.on_hints(s(1), &other, &[hint(5, 50)]);
    assert_eq!(members.load(s(1), &id), Some(load(50)));
    members.on_hints(s(2), &other, &[hint(4, 40)]);
    assert_eq!(members.load(s(2), &id), Some(load(50)), "older");
    members.on_load(s(3), &id, load(90));
    members.on_hints(s(4), &other, &[hint(6, 0)]);
    assert_eq!(members.load(s(4), &id), Some(load(90)), "hearsay");
    members.on_hints(s(4), &id, &[hint(6, 80)]);
    assert_eq!(members.load(s(4), &id), Some(load(80)), "its own word");
    assert_eq!(members.hints(s(5)).len(), 1);
    assert_eq!(members.load(s(400), &id), None, "long ago");
    assert!(members.hints(s(400)).is_empty());
}

#[test]
fn e2_sequence_numbers_never_go_back() {
    let mut saved = 0;
    let mut last = 0;
    // Restarts, with a clock that jumps ten years ahead, back, and is lost.
    for wall in [Some(1_800_000_000), Some(2_100_000_000), Some(1_700_000_000), None] {
        let mut sequence = Sequence::new(saved);
        for i in 0..10_000 {
            let mut out = VecDeque::new();
            let next = sequence.next(wall.map(|w: u64| WallTime::from_micros((w + i / 100) * 1_000_000)), &mut out);
            assert!(next > last);
            last = next;
            for output in out {
                let Output::Event(Event::Save(Save::Sequence(ahead))) = output else { panic!() };
                saved = ahead;
            }
            assert!(next <= saved, "used before it was saved");
        }
    }
}

#[test]
fn the_own_advert_is_renewed_in_time() {
    let addresses = [SocketAddr::from(([203, 0, 1, 1], 1))];
    let mut own = OwnAdvert::new(s(5), &addresses, 10, 0);
    assert_eq!(own.renew_at(), s(5));
    let mut jitter = generators(1).jitter;
    let (advert, bytes) = own.make(s(5), Some(wall_at(s(5))), &key(1), 3, &mut jitter);
    assert_eq!(Advert::verify(&bytes), Ok(advert));
    let after = own.renew_at() - s(5);
    assert!(after >= Duration::from_secs(1200) && after <= Duration::from_secs(1800));
}

#[test]
fn a_digest_lists_everything_in_time() {
    let mut members = members();
    for n in 1..=120 {
        insert(&mut members, s(1), &signed(n, u64::from(n), s(0))).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let digest = members.digest(10, 20);
        assert!(digest.len() <= 30);
        seen.extend(digest.iter().map(|e| e.id_prefix));
    }
    assert_eq!(seen.len(), 120);
}

#[test]
fn comparing_finds_both_directions() {
    let (mut ours, mut theirs) = (members(), members());
    let ids = [1, 2, 3, 4];
    for n in ids {
        insert(&mut ours, s(1), &signed(n, 5, s(0))).unwrap();
    }
    insert(&mut theirs, s(1), &signed(2, 6, s(0))).unwrap();
    insert(&mut theirs, s(1), &signed(3, 4, s(0))).unwrap();
    insert(&mut theirs, s(1), &signed(4, 5, s(0))).unwrap();
    insert(&mut theirs, s(1), &signed(5, 1, s(0))).unwrap();
    let mut sent = Vec::new();
    let lacking = ours.compare(&theirs.digest(100, 0), |bytes| sent.push(Advert::parse(bytes).unwrap().id));
    assert_eq!(sent, [key(3).peer_id()], "ours is newer");
    let mut answered = Vec::new();
    let rest = theirs.compare(&lacking, |bytes| answered.push(Advert::parse(bytes).unwrap().id));
    answered.sort();
    let mut expected = [key(2).peer_id(), key(5).peer_id()];
    expected.sort();
    assert_eq!(answered, expected);
    assert!(rest.is_empty(), "the talk ends");
}
