use super::*;
use crate::account::Source;
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::advert::{Advert, Capabilities, Found, Suspicion};
use crate::overlay::directory::store::Putter;
use crate::overlay::home::testnet::{generators, key, s, wall_at};
use crate::wire::address::Address;
use crate::wire::message::decode_next;

const ME: u8 = 1;

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, n, 1], 7))
}

/// Supernodes 1 to `n`, this one the first of them.
fn members(n: u8) -> MembershipTable {
    let mut members = MembershipTable::new(id(ME), 1_024);
    for n in 1..=n {
        let advert = Advert {
            id: id(n),
            sequence: 1,
            issued_s: wall_at(s(0)).as_secs(),
            lifetime_s: 3_600,
            capabilities: Capabilities::ALL,
            leaves_max: 9,
            relay_kbps: 0,
            addresses: [Address::from(at(n))].into_iter().collect(),
        };
        let bytes = advert.sign(&key(n));
        if n == ME {
            members.put_own(s(0), advert, &bytes);
        } else {
            members.insert(s(0), Source::Peer(id(n)), Some(wall_at(s(0))), &bytes, Found::Here(at(n))).unwrap();
        }
    }
    members
}

fn record(leaf: u8, homes: &[u8]) -> Box<[u8]> {
    let homes = homes.iter().map(|home| (id(*home), at(*home).into())).collect();
    let issued_s = wall_at(s(0)).as_secs();
    Record { id: id(leaf), sequence: 1, issued_s, lifetime_s: 43_200, homes }.sign(&key(leaf))
}

/// Records of these leaves, who are registered here.
fn records(leaves: &[u8], homes: &[u8]) -> RecordStore {
    let mut records = RecordStore::new(100);
    for leaf in leaves {
        let bytes = record(*leaf, homes);
        records.insert(s(0), Source::Peer(id(*leaf)), Some(wall_at(s(0))), &bytes, Putter::Leaf).unwrap();
    }
    records
}

/// To whom each packet goes, and the leaves whose records are in it.
fn sent(out: &mut VecDeque<Output>) -> Vec<(PeerId, Vec<PeerId>)> {
    let packet = |output| {
        let Output::SendAt { to, messages, .. } = output else { panic!("{output:?}") };
        let (mut rest, mut leaves) = (&*messages, Vec::new());
        while !rest.is_empty() {
            match decode_next(&mut rest).expect("ours") {
                Message::Signed { bytes, .. } => leaves.push(Record::parse(bytes).unwrap().id),
                Message::Renew(renewals) => leaves.extend(renewals.iter().map(|renewal| {
                    let is_its = |leaf: &u8| id_prefix(&id(*leaf)) == renewal.place;
                    id((100..=u8::MAX).find(is_its).expect("a leaf of ours"))
                })),
                other => panic!("{other:?}"),
            }
        }
        (to, leaves)
    };
    out.drain(..).map(packet).collect()
}

/// One whose round does not come.
fn without_round() -> Placing {
    Placing { at: s(1 << 30), ..Placing::new(s(0), id(ME)) }
}

/// Lets time pass.
fn run(
    placing: &mut Placing,
    until: Instant,
    (records, members): (&RecordStore, &MembershipTable),
) -> Vec<(Instant, PeerId, Vec<PeerId>)> {
    let (mut all, mut out) = (Vec::new(), VecDeque::new());
    while placing.poll_timeout() <= until {
        let now = placing.poll_timeout();
        placing.handle_timeout(now, records, members, &mut out);
        assert!(placing.poll_timeout() > now);
        all.extend(sent(&mut out).into_iter().map(|(to, leaves)| (now, to, leaves)));
    }
    all
}

#[test]
fn a_record_goes_to_eight_from_the_first_home_that_lives_and_to_three_from_the_other() {
    let (members, mut random) = (members(20), generators(1));
    let holders: Vec<PeerId> = members.holders(&id(100), HOLDERS_MAX).into_iter().map(|(holder, _)| holder).collect();
    assert_eq!(holders.len(), HOLDERS_MAX);
    let by_other = holders[..OTHER_HOLDERS].to_vec();
    let but_me = |mut ids: Vec<PeerId>| {
        ids.retain(|holder| *holder != id(ME));
        ids.sort_unstable();
        ids
    };
    // At once, and within a quarter of a minute.
    let mut put = |homes: &[u8]| {
        let (mut placing, mut out, records) = (without_round(), VecDeque::new(), records(&[100], homes));
        placing.put(s(0), &record(100, homes), &members, &mut random.jitter, &mut out);
        let later = run(&mut placing, s(15), (&records, &members)).into_iter().map(|(_, to, _)| to);
        [but_me(sent(&mut out).into_iter().map(|(to, _)| to).collect()), but_me(later.collect())]
    };
    let none: Vec<PeerId> = Vec::new();
    assert_eq!(put(&[ME, 2]), [but_me(holders.clone()), none.clone()]);
    assert_eq!(put(&[2, ME]), [none.clone(), but_me(by_other)], "the first one may lie");
    assert_eq!(put(&[77, ME]), [but_me(holders), none], "that one is not there");
}

#[test]
fn the_other_home_names_a_record_twice_and_a_newer_one_goes_out_whole() {
    let (members, mut random) = (members(3), generators(1));
    let homes = [2, ME];
    let records = records(&[100], &homes);
    let (mut placing, mut out) = (without_round(), VecDeque::new());
    placing.put(s(0), &record(100, &homes), &members, &mut random.jitter, &mut out);
    let puts = run(&mut placing, s(700), (&records, &members));
    let times: Vec<u64> = puts.iter().map(|(at, ..)| at.as_micros() / 1_000_000).collect();
    assert!(
        times.iter().any(|at| (10..=15).contains(at)) && times.iter().any(|at| (610..=616).contains(at)),
        "{times:?}"
    );
    // Another record comes before that time, to be put at any later one.
    placing.put(s(700), &record(100, &homes), &members, &mut random.jitter, &mut out);
    run(&mut placing, s(720), (&records, &members));
    placing.put_at(s(2_000), id(100), How::Whole);
    assert_eq!(placing.later.values().copied().collect::<Vec<_>>(), [How::Whole], "it is not lost in what waits");
    assert!(placing.poll_timeout() < s(1_400));
}

#[test]
fn all_are_put_once_in_a_round_those_of_neighbouring_places_together() {
    let leaves: Vec<u8> = (100..=u8::MAX).collect();
    let (members, records) = (members(20), records(&leaves, &[ME, 2]));
    let mut placing = Placing::new(s(0), id(ME));
    let round = run(&mut placing, s(55 * 60 + 60), (&records, &members));
    let mut times = BTreeMap::new();
    for leaf in &leaves {
        let puts: Vec<_> = round.iter().filter(|(_, _, all)| all.contains(&id(*leaf))).map(|(at, ..)| *at).collect();
        let holders = members.holders(&id(*leaf), HOLDERS_MAX);
        assert_eq!(puts.len(), holders.iter().filter(|(holder, _)| *holder != id(ME)).count());
        assert!(puts.iter().all(|at| *at == puts[0]), "to all of them at once");
        times.insert(
            u64::from_be_bytes(id_prefix(&id(*leaf))).wrapping_sub(u64::from_be_bytes(id_prefix(&id(ME)))),
            puts[0],
        );
    }
    assert!(times.values().is_sorted(), "in the order of places, from this supernode's own on");
    let names: usize = round.iter().map(|(.., all)| all.len()).sum();
    assert!(round.len() * 2 < names, "{} packets for {names} names", round.len());
}

/// The pace was that of the fullest stretch: whoever ground ids could make the round as long as it liked.
#[test]
fn regression_many_leaves_at_one_place_do_not_hold_up_the_round() {
    let (members, none) = (members(3), RecordStore::new(100));
    let mut placing = Placing::new(s(0), id(ME));
    let (mut out, mut ticks) = (VecDeque::new(), 0);
    while placing.at <= s(55 * 60) {
        let now = placing.at;
        let begun = placing.turn_last.is_none();
        placing.handle_timeout(now, &none, &members, &mut out);
        // As if each stretch took three goes.
        if begun {
            ticks += 1;
            let first = placing.turn.wrapping_sub(TURN);
            placing.turn_last = Some(placing.turn.wrapping_sub(1));
            placing.turn = first.wrapping_add(TURN / 2);
            placing.at = now + LOOK_EVERY;
        }
    }
    assert_eq!(ticks, 55 * 6, "one each ten seconds");
}

#[test]
fn a_changed_record_is_put_within_ten_minutes() {
    let (members, records) = (members(3), records(&[100], &[ME, 2]));
    let (mut placing, mut random) = (without_round(), generators(1));
    placing.put_later(s(1), id(100), &mut random.jitter);
    let later = run(&mut placing, s(601), (&records, &members));
    assert_eq!(later.len(), 2, "once, to each of two");
    assert!(later.iter().all(|(_, _, leaves)| *leaves == [id(100)]));
}

#[test]
fn who_is_met_gets_what_it_is_to_keep_and_nobody_else_does() {
    let leaves: Vec<u8> = (100..140).collect();
    let (members, records) = (members(20), records(&leaves, &[ME, 2]));
    let mut placing = Placing::new(s(0), id(ME));
    assert_eq!([0, 0, 1, 120].map(|now| placing.on_met(s(now), id(5), at(5))), [true, true, false, true]);
    let puts = run(&mut placing, s(5), (&records, &members));
    let mut got: Vec<PeerId> = puts
        .iter()
        .flat_map(|(_, to, leaves)| {
            assert_eq!(*to, id(5));
            leaves.clone()
        })
        .collect();
    let is_its = |leaf: &PeerId| members.holders(leaf, HOLDERS_MAX).iter().any(|(holder, _)| *holder == id(5));
    let mut its: Vec<PeerId> = leaves.iter().map(|leaf| id(*leaf)).filter(is_its).collect();
    got.sort_unstable();
    its.sort_unstable();
    assert!(!its.is_empty() && its.len() < leaves.len());
    assert_eq!(got, its);
}

#[test]
fn changed_records_go_together_to_five_and_the_other_home_names_them_later() {
    let leaves: Vec<u8> = (100..140).collect();
    let members = members(20);
    let run_with = |homes: &[u8]| {
        let (mut placing, mut random) = (without_round(), generators(1));
        for leaf in &leaves {
            placing.put_later(s(1), id(*leaf), &mut random.jitter);
        }
        run(&mut placing, s(1_210), (&records(&leaves, homes), &members))
    };
    let puts = run_with(&[ME, 2]);
    let copies: usize = puts.iter().map(|(.., leaves)| leaves.len()).sum();
    let expected: usize = leaves
        .iter()
        .map(|leaf| {
            let holders = members.holders(&id(*leaf), CHANGED_HOLDERS);
            holders.iter().filter(|(holder, _)| *holder != id(ME)).count()
        })
        .sum();
    assert_eq!(copies, expected, "each once, to the nearest five");
    let mut times: Vec<Instant> = puts.iter().map(|(at, ..)| *at).collect();
    times.dedup();
    assert!(times.len() <= 10 && times.iter().all(|at| *at <= s(601)), "once a minute: {times:?}");
    let by_other = run_with(&[2, ME]);
    assert!(by_other.iter().all(|(at, ..)| *at > s(600)), "after the first home");
    assert!(by_other.iter().map(|(.., leaves)| leaves.len()).sum::<usize>() <= OTHER_HOLDERS * leaves.len());
    assert!(!by_other.is_empty());
}

#[test]
fn regression_what_the_dead_kept_is_named_to_those_that_come_in_for_them_before_the_round() {
    let leaves: Vec<u8> = (100..140).collect();
    let mut members = members(30);
    let records = records(&leaves, &[ME, 2]);
    let before: Vec<Vec<PeerId>> = leaves.iter().map(|leaf| ids_of(&members, *leaf)).collect();
    let mut placing = without_round();
    for dead in 3..=17 {
        // Who became suspect some minutes before is dead by now.
        let suspicion = if dead % 2 == 0 { Suspicion::Dead } else { Suspicion::Suspect };
        members.set_suspicion(&id(dead), suspicion);
        placing.on_suspicion(s(u64::from(dead)), &members);
    }
    // This one has come back.
    members.set_suspicion(&id(17), Suspicion::Alive);
    let all: Vec<(Instant, PeerId, Vec<PeerId>)> = run(&mut placing, s(50), (&records, &members));
    let mut are_named = 0;
    for (leaf, before) in leaves.iter().zip(before) {
        let now = ids_of(&members, *leaf);
        let newcomers: Vec<PeerId> =
            now.into_iter().filter(|holder| !before.contains(holder) && *holder != id(ME)).collect();
        let named: Vec<PeerId> =
            all.iter().filter(|(.., leaves)| leaves.contains(&id(*leaf))).map(|(_, to, _)| *to).collect();
        let dead = before.iter().filter(|holder| (3..17).any(|dead| id(dead) == **holder)).count();
        if dead < REPAIRED_FROM {
            assert!(named.is_empty(), "the half are not missed: {named:?}");
            continue;
        }
        are_named += 1;
        assert!(newcomers.iter().all(|newcomer| named.contains(newcomer)), "{newcomers:?} of {named:?}");
        assert!(named.len() <= newcomers.len(), "nobody else: {newcomers:?} of {named:?}");
    }
    assert!((1..leaves.len()).contains(&are_named), "{are_named}");
}

fn ids_of(members: &MembershipTable, leaf: u8) -> Vec<PeerId> {
    members.holders(&id(leaf), HOLDERS_MAX).into_iter().map(|(holder, _)| holder).collect()
}
