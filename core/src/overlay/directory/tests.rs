use std::collections::VecDeque;

use super::*;
use crate::overlay::advert::shelf::Refused;
use crate::overlay::home::testnet::{key, ms, s, wall_at};
use crate::overlay::output::Output;
use crate::time::Instant;
use crate::wire::message::{Message, decode_next};

fn record(n: u8, home: u8, sequence: u64) -> Record {
    let home = (key(home).peer_id(), Address::V4([203, 0, 113, home], [1, 2]));
    Record {
        id: key(n).peer_id(),
        sequence,
        issued_s: wall_at(s(0)).as_secs(),
        lifetime_s: 3600,
        homes: [home].into_iter().collect(),
    }
}

fn signed(n: u8, home: u8, sequence: u64) -> Box<[u8]> {
    record(n, home, sequence).sign(&key(n))
}

fn insert(store: &mut RecordStore, now: Instant, bytes: &[u8], is_home: bool) -> Result<Record, Refused> {
    store.insert(now, &key(250).peer_id(), Some(wall_at(now)), bytes, |_| is_home)
}

#[test]
fn records_are_checked_as_adverts_are() {
    let good = signed(1, 2, 7);
    assert_eq!(Record::verify(&good), Ok(record(1, 2, 7)));
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert!(Record::verify(&bad).is_err(), "byte {i}");
        assert!(Record::verify(&good[..i]).is_err(), "cut at {i}");
    }
    let (none, itself) = (Record { homes: ArrayVec::new(), ..record(1, 2, 7) }, record(1, 1, 7));
    let twice = Record { homes: [record(1, 2, 7).homes[0]; 2].into(), ..record(1, 2, 7) };
    for bad in [none, itself, twice] {
        assert_eq!(Record::verify(&bad.sign(&key(1))), Err(StatementError::BadValue));
    }
    let far = (key(3).peer_id(), Address::V6([0x20; 16], [1, 2]));
    let longest = Record { sequence: u64::MAX, homes: [(key(2).peer_id(), far.1), far].into(), ..record(1, 2, 7) };
    assert!(longest.sign(&key(1)).len() <= Record::LEN_MAX);
    assert_eq!(Record::verify(&longest.sign(&key(1))), Ok(longest));
}

#[test]
fn c3_only_newer_records_replace_and_all_end() {
    let mut store = RecordStore::new(100);
    insert(&mut store, s(1), &signed(1, 2, 7), true).unwrap();
    assert_eq!(insert(&mut store, s(1), &signed(1, 3, 6), true), Err(Refused::Known));
    insert(&mut store, s(1), &signed(1, 3, 8), true).unwrap();
    assert_eq!(store.get(&key(1).peer_id()), Some(&*signed(1, 3, 8)));
    assert_eq!(store.poll_timeout(), Some(s(3600)));
    store.handle_timeout(s(3600));
    assert_eq!((store.len(), store.poll_timeout()), (0, None));
    let peer = key(1).peer_id();
    assert_eq!(store.answer(peer), Message::LookupReply { peer, record: None });
}

#[test]
fn c5_made_up_peers_do_not_fill_the_store() {
    let mut store = RecordStore::new(40);
    // While there is room, anything goes; from half full on, not at homes that nobody knows.
    for n in 0..20 {
        insert(&mut store, s(1), &signed(n, 200, 1), false).unwrap();
    }
    assert_eq!(insert(&mut store, s(1), &signed(20, 200, 1), false), Err(Refused::Crowded));
    // A known home has its share, and no more.
    for n in 20..30 {
        insert(&mut store, s(1), &signed(n, 201, 1), true).unwrap();
    }
    assert_eq!(insert(&mut store, s(1), &signed(30, 201, 1), true), Err(Refused::Crowded));
    insert(&mut store, s(1), &signed(29, 201, 2), true).unwrap();
    // Other homes still find room: 30 of 40 are taken, then the one that ends first goes.
    for n in 30..50 {
        insert(&mut store, s(1 + u64::from(n)), &signed(n, 202 + n % 3, 1), true).unwrap();
        assert!(store.len() <= 40);
    }
    assert_eq!(store.len(), 40);
    store.handle_timeout(s(4000));
    assert_eq!(store.len(), 0);
}

struct Asker {
    lookups: Lookups,
    out: VecDeque<Output>,
}

impl Asker {
    fn new() -> Self {
        Self { lookups: Lookups::default(), out: VecDeque::new() }
    }

    fn start(&mut self, now: Instant, peer: u8, supernodes: &[u8]) -> LookupStart {
        let supernodes: Vec<_> = supernodes.iter().map(|n| key(*n).peer_id()).collect();
        self.lookups.start(now, key(peer).peer_id(), &supernodes, &mut self.out)
    }

    /// Whom the room has asked since.
    fn asked(&mut self) -> Vec<PeerId> {
        let to = |output| {
            let Output::Send { to, messages } = output else { panic!() };
            assert!(matches!(decode_next(&mut &*messages), Ok(Message::Lookup { .. })));
            to
        };
        self.out.drain(..).map(to).collect()
    }

    fn reply(&mut self, now: Instant, from: u8, peer: u8, record: Option<&[u8]>) {
        let from = key(from).peer_id();
        self.lookups.on_reply(now, &from, Some(wall_at(now)), key(peer).peer_id(), record, &mut self.out);
    }

    fn fire(&mut self) -> Option<Instant> {
        let at = self.lookups.poll_timeout()?;
        self.lookups.handle_timeout(at, &mut self.out);
        assert!(self.lookups.poll_timeout().is_none_or(|next| next > at));
        Some(at)
    }
}

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

#[test]
fn the_first_good_answer_ends_a_lookup_and_is_remembered() {
    let mut a = Asker::new();
    assert_eq!(a.start(s(1), 1, &[10, 11, 12]), LookupStart::Pending);
    assert_eq!(a.asked(), [id(10)]);
    a.reply(s(1), 12, 1, Some(&signed(1, 2, 7)));
    assert_eq!(a.lookups.poll_outcome(), None, "it was not asked");
    a.reply(s(1), 10, 1, Some(&signed(1, 2, 7)));
    assert_eq!(a.lookups.poll_outcome(), Some((id(1), LookupOutcome::Found(record(1, 2, 7)))));
    assert_eq!(a.start(s(2), 1, &[10]), LookupStart::Cached(record(1, 2, 7)));
    assert_eq!(a.fire(), Some(s(601)));
    assert_eq!(a.start(s(602), 1, &[]), LookupStart::Nobody);
}

#[test]
fn one_alone_is_not_believed_when_it_knows_nothing() {
    let mut a = Asker::new();
    a.start(s(1), 1, &[10, 11, 12]);
    a.reply(s(1), 10, 1, None);
    assert_eq!(a.asked(), [id(10), id(11)]);
    a.reply(s(1), 10, 1, None);
    assert!(a.asked().is_empty(), "saying no twice is saying it once");
    a.reply(s(1), 11, 1, None);
    assert_eq!(a.lookups.poll_outcome(), Some((id(1), LookupOutcome::Unknown)));
    assert_eq!(a.lookups.poll_timeout(), None);
    // Unless there is nobody else.
    a.start(s(2), 1, &[10]);
    a.reply(s(2), 10, 1, None);
    assert_eq!(a.lookups.poll_outcome(), Some((id(1), LookupOutcome::Unknown)));
}

#[test]
fn d2_a_forged_record_counts_as_none() {
    let mut a = Asker::new();
    a.start(s(1), 1, &[10, 11]);
    let mut forged = signed(1, 2, 7);
    forged[50] ^= 1;
    a.reply(s(1), 10, 1, Some(&forged));
    a.reply(s(1), 11, 1, Some(&signed(3, 2, 7)));
    assert_eq!(a.lookups.poll_outcome(), Some((id(1), LookupOutcome::Unknown)));
}

#[test]
fn silence_moves_on_and_in_the_end_says_so() {
    let mut a = Asker::new();
    a.start(s(0), 1, &[10, 11]);
    let mut fired = Vec::new();
    while let Some(at) = a.fire() {
        fired.push(at);
    }
    assert_eq!(a.asked(), [id(10), id(11), id(10), id(11)]);
    assert_eq!(fired, [1000, 2000, 4000, 6000].map(ms));
    assert_eq!(a.lookups.poll_outcome(), Some((id(1), LookupOutcome::NoAnswer)));
    // A link that ends is not waited for.
    a.start(s(10), 1, &[10, 11]);
    a.lookups.on_link_down(s(10), &id(10), &mut a.out);
    assert_eq!(a.asked(), [id(10), id(11)]);
}

#[test]
fn lookups_and_what_they_found_are_limited() {
    let mut a = Asker::new();
    let peers: Vec<_> = (0..300u16)
        .map(|n| crate::SecretKey::from_bytes(&[n as u8, (n >> 8) as u8, 9].repeat(11)[..32].try_into().unwrap()))
        .collect();
    let home = [id(10)];
    let mut full = 0;
    for peer in &peers {
        let start = a.lookups.start(s(1), peer.peer_id(), &home, &mut a.out);
        full += usize::from(start == LookupStart::Full);
    }
    assert_eq!(full, 300 - 256);
    while a.fire().is_some() {}
    assert!(a.lookups.poll_timeout().is_none());
}
