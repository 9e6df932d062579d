use core::net::{IpAddr, SocketAddr};

use super::*;
use crate::overlay::advert::{Capabilities, MembershipTable};
use crate::overlay::home::testnet::{generators, key, s, wall_at};
use crate::random::Generators;
use crate::wire::address::Address;

const URGENT: Need = Need { is_urgent: true, tellers: 9 };
const PATIENT: Need = Need { is_urgent: false, tellers: 9 };

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

fn ip(a: u8, b: u8) -> IpAddr {
    IpAddr::from([198, 18, a, b])
}

fn advert_at(n: u8, ip: IpAddr) -> Box<[u8]> {
    let advert = Advert {
        id: id(n),
        sequence: 1,
        issued_s: wall_at(s(0)).as_secs(),
        lifetime_s: 3600,
        capabilities: Capabilities::ALL,
        leaves_max: 1000,
        relay_kbps: 0,
        addresses: [Address::from(SocketAddr::new(ip, 7))].into_iter().collect(),
    };
    advert.sign(&key(n))
}

fn member(n: u8) -> Teller {
    Teller { id: id(n), ip: Some(ip(n, 1)), is_member: true }
}

struct Room {
    hearsay: Hearsay,
    random: Generators,
}

impl Room {
    fn new() -> Self {
        Self { hearsay: Hearsay::new(id(0)), random: generators(1) }
    }

    fn hear(&mut self, at: u64, teller: Teller, bytes: &[u8], need: Need) -> Result<PeerId, Refused> {
        self.hearsay.hear(s(at), &teller, Some(wall_at(s(at))), bytes, need, |_| true, &mut self.random.jitter)
    }

    /// Who is asked up to then, and when.
    fn asked(&mut self, until: u64) -> Vec<(PeerId, Instant)> {
        let mut asked = Vec::new();
        while let Some(at) = self.hearsay.poll_timeout().filter(|at| *at <= s(until)) {
            self.hearsay.handle_timeout(at);
            while let Some(ask) = self.hearsay.poll_ask(at) {
                let Ask::There(peer, _) = ask else { continue };
                asked.push((peer, at));
            }
        }
        asked
    }
}

#[test]
fn who_tells_of_itself_is_asked_at_once_once_more_if_inits_may_have_crossed_and_forgotten_if_it_is_silent() {
    let mut room = Room::new();
    let stranger = Teller { id: id(1), ip: Some(ip(9, 9)), is_member: false };
    let bytes = advert_at(1, ip(1, 1));
    room.hear(1, stranger, &bytes, PATIENT).unwrap();
    room.hear(1, stranger, &bytes, PATIENT).unwrap();
    assert_eq!(room.asked(1), [(id(1), s(1))]);
    room.hear(1, stranger, &bytes, PATIENT).unwrap();
    room.hear(1, stranger, &bytes, PATIENT).unwrap();
    room.hear(2, member(3), &bytes, URGENT).unwrap();
    assert_eq!(room.asked(2), [(id(1), s(2))], "it said so again right after it was asked");
    assert_eq!(room.asked(2), []);
    room.hear(3, stranger, &bytes, PATIENT).unwrap();
    assert_eq!(room.asked(100), [(id(1), s(3))], "it says so again");
    assert_eq!((room.hearsay.len(), room.hearsay.own), (0, 0));
    assert!(room.hearsay.sources.is_empty() && room.hearsay.prefixes.is_empty());
    assert_eq!(room.hearsay.on_reached(&id(1), SocketAddr::new(ip(1, 1), 7)), None, "it may say so again");
    room.hear(200, stranger, &bytes, PATIENT).unwrap();
    assert_eq!(room.hearsay.on_reached(&id(1), SocketAddr::new(ip(1, 1), 8)), None, "another port");
    assert_eq!(room.hearsay.on_reached(&id(1), SocketAddr::new(ip(1, 1), 7)), Some(bytes));
    assert_eq!((room.hearsay.len(), room.hearsay.poll_timeout()), (0, None));
}

#[test]
fn of_whom_others_tell_is_asked_when_two_prefixes_say_so_and_some_time_then() {
    let mut room = Room::new();
    let bytes = advert_at(1, ip(1, 1));
    room.hear(1, member(2), &bytes, PATIENT).unwrap();
    let neighbour = Teller { id: id(3), ..member(2) };
    room.hear(1, neighbour, &bytes, PATIENT).unwrap();
    let stranger = Teller { is_member: false, ..member(4) };
    room.hear(1, stranger, &bytes, PATIENT).unwrap();
    assert_eq!(room.asked(900), []);
    room.hear(1_000, member(5), &bytes, PATIENT).unwrap();
    let asked = room.asked(1_700);
    assert!(asked.len() == 1 && (s(1_000)..=s(1_600)).contains(&asked[0].1), "{asked:?}");
    // Where all that there are say so, that is enough.
    room.hear(2_000, member(2), &advert_at(6, ip(6, 1)), Need { tellers: 1, ..PATIENT }).unwrap();
    assert_eq!(room.asked(2_700).len(), 1);
    // And where few are known, one word.
    room.hear(3_000, member(2), &advert_at(7, ip(7, 1)), URGENT).unwrap();
    assert_eq!(room.asked(3_002).len(), 1);
}

#[test]
fn h2_nobody_fills_it_and_nobody_keeps_newcomers_out() {
    let mut room = Room::new();
    // One teller has so many places.
    let told = (10..100).filter(|n| room.hear(1, member(1), &advert_at(*n, ip(*n, 1)), PATIENT).is_ok()).count();
    assert_eq!(told, HEARD_OF_SOURCE_MAX);
    // Its neighbours draw on the same.
    let neighbour = Teller { id: id(2), ..member(1) };
    assert_eq!(room.hear(1, neighbour, &advert_at(200, ip(200, 1)), PATIENT), Err(Refused::Crowded));
    // One prefix is named so often.
    let mut room = Room::new();
    let named = (10..100).filter(|n| room.hear(1, member(*n), &advert_at(*n + 100, ip(1, *n)), PATIENT).is_ok());
    assert_eq!(named.count(), HEARD_IN_PREFIX_MAX);
    // All places taken by the word of others: who comes by itself has its own.
    let mut room = Room::new();
    let teller = |n: u8| Teller { id: id(n), ip: Some(ip(n / 10, 1)), is_member: true };
    let taken = (0..=255).filter(|n| room.hear(1, teller(*n), &advert_at(*n, ip(*n, 1)), PATIENT).is_ok()).count();
    assert_eq!((taken, room.hearsay.own), (255, 255), "all but this node's, each told of by itself");
    assert_eq!(room.asked(2).len(), 255);
}

#[test]
fn what_may_not_be_sent_now_is_tried_again() {
    let mut room = Room::new();
    let bytes = advert_at(1, ip(1, 1));
    room.hear(1, member(2), &bytes, URGENT).unwrap();
    for n in 1..=REFUSALS_MAX {
        let at = room.hearsay.poll_timeout().unwrap();
        assert!(matches!(room.hearsay.poll_ask(at), Some(Ask::There(peer, _)) if peer == id(1)));
        room.hearsay.on_refused(at, &id(1), &mut room.random.jitter);
        let wait = room.hearsay.poll_timeout().map(|next| next - at);
        assert!(if n == REFUSALS_MAX { wait.is_none() } else { wait >= Some(REFUSED_FOR) }, "{wait:?}");
    }
    // Who tells of itself has no place to wait in.
    let own = Teller { id: id(1), ..member(2) };
    room.hear(100, own, &bytes, PATIENT).unwrap();
    assert!(room.hearsay.poll_ask(s(100)).is_some());
    room.hearsay.on_refused(s(100), &id(1), &mut room.random.jitter);
    assert_eq!(room.hearsay.len(), 0);
    room.hear(3_599, member(2), &bytes, PATIENT).unwrap();
    room.hearsay.handle_timeout(s(3_600));
    assert_eq!((room.hearsay.len(), room.hearsay.poll_timeout()), (0, None), "it has expired");
}

#[test]
fn private_addresses_are_heard_where_they_mean_something() {
    let mut room = Room::new();
    let lan = IpAddr::from([192, 168, 3, 4]);
    assert!(room.hear(1, member(2), &advert_at(1, lan), URGENT).is_err(), "over the internet");
    let near = Teller { ip: Some([192, 168, 9, 9].into()), ..member(2) };
    room.hear(1, near, &advert_at(1, lan), URGENT).unwrap();
    let other = Teller { ip: Some([10, 0, 0, 1].into()), ..member(2) };
    assert!(room.hear(1, other, &advert_at(3, lan), URGENT).is_err(), "another range");
    assert!(room.hear(1, Teller { ip: None, ..near }, &advert_at(3, lan), URGENT).is_err(), "through others");
    let members = MembershipTable::new(id(0), 64);
    assert_eq!(members.spread(), 0);
}
