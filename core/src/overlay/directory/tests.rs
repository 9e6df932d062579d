use core::net::SocketAddr;
use std::collections::VecDeque;

use super::*;
use crate::account::Source;
use crate::overlay::advert::shelf::Refused;
use crate::overlay::home::testnet::{key, ms, s, wall_at};
use crate::overlay::output::Output;
use crate::time::Instant;
use crate::wire::address::Prefix;
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

/// As if a supernode of this prefix had put it.
fn prefix(n: u8) -> Putter {
    Putter::Supernode(Source::Prefix(Prefix::V4([203, 0, n])))
}

fn insert(store: &mut RecordStore, now: Instant, bytes: &[u8], putter: Putter) -> Result<PeerId, Refused> {
    store.insert(now, Source::Peer(key(250).peer_id()), Some(wall_at(now)), bytes, putter)
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
    insert(&mut store, s(1), &signed(1, 2, 7), Putter::Leaf).unwrap();
    assert_eq!(insert(&mut store, s(1), &signed(1, 3, 6), Putter::Leaf), Err(Refused::Known));
    insert(&mut store, s(1), &signed(1, 3, 8), Putter::Leaf).unwrap();
    assert_eq!(store.get(&key(1).peer_id()), Some(&*signed(1, 3, 8)));
    assert_eq!(store.poll_timeout(), Some(s(3600)));
    store.handle_timeout(s(3600));
    assert_eq!((store.len(), store.poll_timeout()), (0, None));
    let peer = key(1).peer_id();
    assert_eq!(store.answer(peer), Message::LookupReply { peer, record: None });
}

#[test]
fn what_is_not_put_again_is_forgotten() {
    let mut store = RecordStore::new(100);
    let long = |sequence| Record { lifetime_s: 43_200, ..record(1, 2, sequence) }.sign(&key(1));
    insert(&mut store, s(1), &long(1), prefix(1)).unwrap();
    assert_eq!(store.poll_timeout(), Some(s(7_201)));
    assert_eq!(insert(&mut store, s(5_000), &long(1), prefix(2)), Err(Refused::Known), "which is as good");
    assert_eq!(store.poll_timeout(), Some(s(12_200)));
    // At its home it stays, and a newer one that somebody else brings changes nothing about that.
    insert(&mut store, s(5_000), &long(2), Putter::Leaf).unwrap();
    insert(&mut store, s(5_000), &long(3), prefix(2)).unwrap();
    assert_eq!(store.sizes(), (0, 0, 0));
    store.handle_timeout(s(43_199));
    assert_eq!(store.len(), 1);
    let late = Record { issued_s: wall_at(s(42_000)).as_secs(), ..record(2, 3, 1) }.sign(&key(2));
    insert(&mut store, s(42_000), &late, prefix(1)).unwrap();
    assert_eq!(store.sizes(), (1, 1, 1));
    store.handle_timeout(s(45_600));
    assert_eq!((store.len(), store.sizes()), (0, (0, 0, 0)));
}

#[test]
fn what_a_leaf_leaves_behind_is_charged_for_and_ends_and_is_its_own_again_when_it_is_back() {
    let mut store = RecordStore::new(80);
    let long = |n| Record { lifetime_s: 43_200, ..record(n, 200, 1) }.sign(&key(n));
    insert(&mut store, s(1), &long(1), Putter::Leaf).unwrap();
    store.let_go(s(10), &key(1).peer_id());
    store.let_go(s(10), &key(9).peer_id());
    assert_eq!((store.sizes(), store.poll_timeout()), ((1, 1, 1), Some(s(7_210))));
    insert(&mut store, s(20), &long(1), Putter::Leaf).expect("as good as new");
    assert_eq!((store.sizes(), store.poll_timeout()), ((0, 0, 0), Some(s(43_200))));
    // One that others had put becomes a leaf's, too.
    insert(&mut store, s(20), &long(2), prefix(1)).unwrap();
    insert(&mut store, s(20), &long(2), Putter::Leaf).unwrap();
    assert_eq!(store.sizes(), (0, 0, 0));
    assert_eq!(insert(&mut store, s(20), &long(2), Putter::Leaf), Err(Refused::Known));
    for n in 1..40 {
        let _ = insert(&mut store, s(30), &long(n), Putter::Leaf);
        store.let_go(s(30), &key(n).peer_id());
    }
    assert_eq!((store.sizes(), store.len()), ((10, 1, 1), 10), "an eighth");
    store.handle_timeout(s(7_230));
    assert_eq!((store.sizes(), store.len()), ((0, 0, 0), 0));
}

#[test]
fn c5_h1_made_up_records_do_not_fill_the_store() {
    let mut store = RecordStore::new(80);
    // While there is room, anything goes; from half full on, nobody has more than an eighth.
    for n in 0..40 {
        insert(&mut store, s(1), &signed(n, 200, 1), prefix(1)).unwrap();
    }
    assert_eq!(insert(&mut store, s(1), &signed(40, 200, 1), prefix(1)), Err(Refused::Crowded));
    insert(&mut store, s(1), &signed(39, 201, 2), prefix(1)).unwrap();
    // Leaves that are registered here always have a place.
    for n in 200..210 {
        insert(&mut store, s(1), &signed(n, 0, 1), Putter::Leaf).unwrap();
    }
    // Others have theirs, at the cost of whoever has most.
    for n in 40..120 {
        let _ = insert(&mut store, s(1), &signed(n, 202, 1), prefix(2 + n % 8));
        assert!(store.sizes().0 <= 80);
    }
    assert_eq!((store.sizes().0, store.len()), (80, 90));
    let left = (0..40).filter(|n| store.get(&key(*n).peer_id()).is_some()).count();
    let honest = (40..120).filter(|n| store.get(&key(*n).peer_id()).is_some()).count();
    assert!(left <= 10 && honest >= 70, "{left} and {honest}");
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
        let homes = Whom::Homes(supernodes.iter().map(|n| (id(*n), None)).collect());
        self.lookups.start(now, id(peer), &homes, &mut self.out)
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
    let home = Whom::Homes(vec![(id(10), None)]);
    let mut full = 0;
    for peer in &peers {
        let start = a.lookups.start(s(1), peer.peer_id(), &home, &mut a.out);
        full += usize::from(start == LookupStart::Full);
    }
    assert_eq!(full, 300 - 256);
    while a.fire().is_some() {}
    assert!(a.lookups.poll_timeout().is_none());
}

#[test]
fn a_home_asks_all_that_keep_a_record_before_it_says_that_there_is_none() {
    let mut a = Asker::new();
    let at = |n: u8| SocketAddr::from(([203, 0, n, 1], 7));
    let holders = Whom::Holders((10..18).map(|n| (id(n), at(n))).collect());
    let asked = |a: &mut Asker| {
        let to = |output| match output {
            Output::SendAt { to, address, .. } => (to, address),
            other => panic!("{other:?}"),
        };
        a.out.drain(..).map(to).collect::<Vec<_>>()
    };
    // Two ask for one peer, one of them twice: it is looked for once.
    for asker in [50, 51, 50] {
        a.lookups.start_for(s(1), id(asker), id(1), &holders, None, &mut a.out);
    }
    for n in 10..17 {
        assert_eq!(asked(&mut a), [(id(n), at(n))]);
        a.reply(s(1), n, 1, None);
    }
    assert_eq!(asked(&mut a), [(id(17), at(17))]);
    a.reply(s(1), 17, 1, Some(&signed(1, 2, 7)));
    let answers = |a: &mut Asker| {
        let answer = |output| {
            let Output::Send { to, messages } = output else { panic!() };
            let Ok(Message::LookupReply { record, .. }) = decode_next(&mut &*messages) else { panic!() };
            (to, record.map(Vec::from))
        };
        a.out.drain(..).map(answer).collect::<Vec<_>>()
    };
    let found = Some(signed(1, 2, 7).to_vec());
    assert_eq!(answers(&mut a), [(id(50), found.clone()), (id(51), found.clone())]);
    assert_eq!(a.lookups.poll_outcome(), None, "this node did not ask");
    a.lookups.start_for(s(2), id(52), id(1), &holders, None, &mut a.out);
    assert_eq!(answers(&mut a), [(id(52), found)]);
    // Where all say no, that is so for ten seconds.
    a.lookups.start_for(s(3), id(50), id(3), &holders, None, &mut a.out);
    for n in 10..18 {
        a.reply(s(3), n, 3, None);
    }
    a.out.drain(..8);
    assert_eq!(answers(&mut a), [(id(50), None)]);
    a.lookups.start_for(s(12), id(51), id(3), &holders, None, &mut a.out);
    assert_eq!(answers(&mut a), [(id(51), None)]);
    a.lookups.start_for(s(14), id(51), id(3), &holders, None, &mut a.out);
    assert_eq!(asked(&mut a).len(), 1);
    // Who was not helped gets the newest there is: what is at hand counts, too.
    let all = Whom::AllHolders((10..18).map(|n| (id(n), at(n))).collect());
    for (peer, theirs, newest) in [(4, 5, 7), (5, 9, 9)] {
        a.out.clear();
        let own = signed(peer, 2, 7);
        a.lookups.start_for(s(15), id(50), id(peer), &all, Some((None, &own)), &mut a.out);
        assert_eq!(asked(&mut a).len(), 8);
        for n in 10..18 {
            a.reply(s(15), n, peer, Some(&signed(peer, 3, theirs)));
        }
        let home = if newest == theirs { 3 } else { 2 };
        assert_eq!(answers(&mut a), [(id(50), Some(signed(peer, home, newest).to_vec()))]);
    }
    a.lookups.start_for(s(16), id(51), id(3), &holders, None, &mut a.out);
    a.out.clear();
    // Where nobody answers, nothing is said: its leaf asks its other home.
    while a.fire().is_some() {}
    assert!(asked(&mut a).len() == 15);
}

/// Who asked a network's only supernode twice within a minute was told that nobody has the record.
#[test]
fn regression_who_asks_again_is_told_what_is_here_where_nobody_else_is() {
    let (mut lookups, mut out) = (Lookups::default(), VecDeque::new());
    let own = signed(1, 2, 7);
    lookups.start_for(s(1), id(50), id(1), &Whom::AllHolders(Vec::new()), Some((None, &own)), &mut out);
    let Some(Output::Send { to, messages }) = out.pop_front() else { panic!("no answer") };
    assert_eq!(to, id(50));
    let Ok(Message::LookupReply { record, .. }) = decode_next(&mut &*messages) else { panic!("{messages:?}") };
    assert_eq!(record, Some(&*own));
}

#[test]
fn those_whom_others_name_are_asked_where_not_all_are_known() {
    let (mut lookups, mut out) = (Lookups::default(), VecDeque::new());
    let (me, peer) = (key(250).peer_id(), key(1).peer_id());
    let at = |n: u8| SocketAddr::from(([203, 0, n, 1], 4_000));
    let known: Vec<_> = (10..13).map(|n| (key(n).peer_id(), at(n))).collect();
    lookups.is_seeking = true;
    assert_eq!(lookups.start(s(1), peer, &Whom::Holders(known.clone()), &mut out), LookupStart::Pending);
    let asked = |out: &mut VecDeque<Output>| match out.pop_front() {
        Some(Output::SendAt { to, messages, .. }) => {
            assert_eq!(decode_next(&mut &*messages), Ok(Message::Seek { peer, record: true }));
            Some(to)
        }
        None => None,
        other => panic!("{other:?}"),
    };
    let first = asked(&mut out).expect("the nearest");
    // A stranger names nobody.
    lookups.on_nearest(s(1), (&key(99).peer_id(), None), &me, peer, &[(key(98).peer_id(), at(98).into())], &mut out);
    assert_eq!(asked(&mut out), None);
    let nearer = (20..200).map(|n| (key(n).peer_id(), at(n)));
    let distance = |id: &PeerId| crate::overlay::advert::shelf::distance(&peer, id);
    let (nearest, address) = nearer.min_by_key(|(id, _)| distance(id)).expect("some");
    let named = [(me, at(250).into()), (peer, at(1).into()), (nearest, address.into())];
    lookups.on_nearest(s(1), (&first, None), &me, peer, &named, &mut out);
    assert_eq!(asked(&mut out), Some(nearest), "not this node, and not the one looked for");
    lookups.on_reply(s(1), &nearest, None, peer, Some(&signed(1, 2, 7)), &mut out);
    assert_eq!(lookups.poll_outcome(), Some((peer, LookupOutcome::Found(record(1, 2, 7)))));
    // Where nobody has it, all who answer have to say so.
    let peer = key(3).peer_id();
    lookups.start(s(2), peer, &Whom::Holders(known), &mut out);
    while let Some(Output::SendAt { to, .. }) = out.pop_front() {
        lookups.on_nearest(s(2), (&to, None), &me, peer, &[], &mut out);
    }
    assert_eq!(lookups.poll_outcome(), Some((peer, LookupOutcome::Unknown)));
    assert_eq!(lookups.poll_timeout().map(|at| at > s(60)), Some(true), "only what is remembered ends");
}
