//! How much of what supernodes say of their room is believed.

use super::heard::Market;
use super::*;
use crate::overlay::advert::{Advert, Capabilities};
use crate::overlay::home::testnet::{key, s, wall_at};
use crate::wire::address::Address;
use crate::wire::places::{Places, Room, level};

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

/// A table of supernodes that claim so many places each, the first of which is number 1.
fn members(claims: &[u32]) -> MembershipTable {
    let mut members = MembershipTable::new(id(0), 1_024);
    for (n, leaves_max) in (1..).zip(claims) {
        let advert = Advert {
            id: id(n),
            sequence: 1,
            issued_s: wall_at(s(0)).as_secs(),
            lifetime_s: 3600,
            capabilities: Capabilities::ALL,
            leaves_max: *leaves_max,
            relay_kbps: 0,
            addresses: [Address::V4([203, 0, n, 1], [1, 2])].into_iter().collect(),
        };
        let bytes = advert.sign(&key(n));
        members.insert(s(1), Source::Peer(id(200)), Some(wall_at(s(1))), &bytes, Found::Told(None)).expect("room");
    }
    members
}

fn told(members: &mut MembershipTable, n: u8, taken: u32, all: u32) {
    members.on_places(s(1), &id(n), Places { taken, all });
}

#[test]
fn a_claim_counts_as_the_median_until_more_is_seen() {
    let mut members = members(&[100, 100, 100, 1_000_000, 10]);
    for (n, taken, all) in [(1, 40, 100), (2, 40, 100), (3, 40, 100), (4, 40, 1_000_000), (5, 4, 10)] {
        told(&mut members, n, taken, all);
    }
    let own = Places { taken: 40, all: 100 };
    let at = |members: &MembershipTable, n: u8| members.places(s(2), &id(n)).expect("it told");
    assert_eq!(at(&members, 4).all, 1_000_000, "nothing was looked at yet");
    let nobody: [(&PeerId, u32); 0] = [];
    let market = members.review(s(2), own, nobody.into_iter());
    assert_eq!([1, 4, 5].map(|n| at(&members, n).all), [100, 100, 10], "the median, and less where less is claimed");
    assert_eq!(
        market,
        Market { known: 6, mean: (214 << 16) / 510, median: (40 << 16) / 100 },
        "half, where all is new"
    );
    assert_eq!(at(&members, 4).taken, 39, "then as full as the middle one, rounded down");
    // Number 4 has twenty times what the others have, as far as one sees, and claims more than it shows.
    let ids = [1, 2, 3, 4].map(id);
    let shared = [20, 20, 20, 400];
    told(&mut members, 4, 800, 1_000_000);
    members.review(s(2), own, ids.iter().zip(shared));
    let seen = at(&members, 4);
    assert_eq!(seen, Places { taken: 760, all: 2_280 }, "the root of its leaves less, and three times that");
    assert_eq!(at(&members, 1).all, 100);
    // What it is not seen with any more is forgotten.
    told(&mut members, 4, 800, 1_000_000);
    assert_eq!(members.places(s(305), &id(4)), None);
}

#[test]
fn a_large_supernode_looks_as_full_among_small_ones_as_it_says() {
    let mut members = members(&[10, 10, 10, 1_000, 1_000]);
    for (n, taken, all) in [(1, 4, 10), (2, 4, 10), (3, 4, 10), (4, 600, 1_000), (5, 50, 1_000)] {
        told(&mut members, n, taken, all);
    }
    let nobody: [(&PeerId, u32); 0] = [];
    members.review(s(2), Places { taken: 4, all: 10 }, nobody.into_iter());
    let market = members.review(s(2), Places { taken: 4, all: 10 }, nobody.into_iter());
    let places = [4, 5].map(|n| members.places(s(2), &id(n)));
    let expected = [Places { taken: 6, all: 10 }, Places { taken: 3, all: 10 }];
    assert_eq!(places, expected.map(Some), "and the empty one no emptier than the middle one, rounded down");
    assert_eq!(market.mean, (25 << 16) / 60);
}

#[test]
fn one_lie_moves_nothing_that_is_seen() {
    let mut members = members(&[1_000; 5]);
    for n in 1..=4 {
        told(&mut members, n, 400, 1_000);
    }
    told(&mut members, 5, u32::MAX, 1_000);
    let ids = [1, 2, 3, 4, 5].map(id);
    members.review(s(2), Places { taken: 400, all: 1_000 }, ids.iter().zip([100, 100, 100, 100, 1]));
    for n in 1..=4 {
        assert_eq!(members.places(s(2), &id(n)), Some(Places { taken: 400, all: 1_000 }));
    }
    // What was seen is forgotten with the rest.
    members.on_places(s(400), &id(1), Places { taken: 3, all: 1_000 });
    assert_eq!(members.places(s(400), &id(1)), Some(Places { taken: 3, all: 1_000 }));
}

#[test]
fn who_tells_of_fewer_leaves_than_it_has_is_seen_through() {
    let mut members = members(&[1_000; 4]);
    for n in 1..=3 {
        told(&mut members, n, 400, 1_000);
    }
    told(&mut members, 4, 0, 1_000);
    let ids = [1, 2, 3, 4].map(id);
    members.review(s(2), Places { taken: 400, all: 1_000 }, ids.iter().zip([100; 4]));
    let liar = members.places(s(2), &id(4)).expect("it told");
    assert!((200..=400).contains(&liar.taken), "{liar:?}");
}

#[test]
fn one_that_says_that_it_is_more_than_full_does_not_make_the_others_look_empty() {
    let mut members = members(&[100; 3]);
    for n in 1..=2 {
        told(&mut members, n, 50, 100);
    }
    told(&mut members, 3, u32::MAX, 100);
    let nobody: [(&PeerId, u32); 0] = [];
    let market = members.review(s(2), Places { taken: 50, all: 100 }, nobody.into_iter());
    assert_eq!(market.mean, (250 << 16) / 400);
}

#[test]
fn a_leaf_believes_who_listed() {
    let mut members = members(&[100, 100, 1_000_000]);
    let room = |n: u8, taken, all| Room { id_prefix: crate::overlay::advert::shelf::id_prefix(&id(n)), taken, all };
    members.on_rooms(s(1), &[room(1, level(50), level(100)), room(3, level(5_000), level(20_000)), room(9, 1, 1)]);
    members.weigh_claims();
    let at = |n: u8| members.places(s(2), &id(n));
    assert_eq!(at(1), Some(Places { taken: 49, all: 100 }));
    assert!(at(3).is_some_and(|p| (4_600..=5_000).contains(&p.taken) && (18_000..=20_000).contains(&p.all)));
    assert_eq!(at(2), None);
    // It says itself that it is empty: at least what the other one saw is taken.
    members.on_places(s(3), &id(3), Places { taken: 0, all: 1_000_000 });
    let at = members.places(s(3), &id(3)).expect("it told");
    assert!(at.taken >= 4_600 && at.all <= 20_000, "{at:?}");
}

#[test]
fn of_an_earlier_release_the_share_is_known() {
    let mut members = members(&[1_000]);
    members.on_load(s(1), &id(1), Load { leaves: 51, ..Load::default() });
    assert_eq!(members.places(s(2), &id(1)), Some(Places { taken: 200, all: 1_000 }));
}

/// By default a supernode has room for 100 000: the first step of its share is 392 leaves, and most have fewer.
#[test]
fn regression_who_is_known_by_a_coarse_share_alone_makes_nobody_look_empty_or_full() {
    let mut members = members(&[100_000; 6]);
    for n in 1..=2 {
        told(&mut members, n, 40, 100_000);
    }
    for (n, leaves) in [(3, 1), (4, 1), (5, 0), (6, 0)] {
        members.on_load(s(1), &id(n), Load { leaves, ..Load::default() });
    }
    let own = Places { taken: 40, all: 100_000 };
    let nobody: [(&PeerId, u32); 0] = [];
    for _ in 0..2 {
        let market = members.review(s(2), own, nobody.into_iter());
        assert_eq!((market.known, market.mean), (3, (40 << 16) / 100_000), "those who told");
    }
    let taken = |n| members.places(s(2), &id(n)).map(|places| places.taken);
    assert_eq!([taken(3), taken(5)], [Some(39), Some(0)], "as full as the middle one, within what was said");
}
