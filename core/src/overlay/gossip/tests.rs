use core::time::Duration;

use super::*;
use crate::overlay::directory::Record;
use crate::overlay::home::testnet::{TestNet, TestNode, key, wall_at};
use crate::overlay::pack::send;
use crate::wire::message::decode_next;

const SECOND: Duration = Duration::from_secs(1);

fn bootstrap(n: u8) -> (PeerId, SocketAddr) {
    (key(n).peer_id(), TestNet::address_of(n))
}

fn start(net: &mut TestNet, count: u8) -> Vec<PeerId> {
    (1..=count).map(|n| net.supernode(n, &[bootstrap(1)])).collect()
}

fn known(net: &TestNet, id: &PeerId) -> usize {
    net.get(id).members.len()
}

/// Calls into the gossip room of a node.
fn with_gossip<T>(net: &mut TestNet, id: PeerId, call: impl FnOnce(&mut Gossip, Instant, &mut Stores<'_>) -> T) -> T {
    let mut result = None;
    net.with(id, |node, now, out| {
        let TestNode { gossip, members, records, random, .. } = node;
        let mut stores = Stores { wall: Some(wall_at(now)), random, members, records, out };
        result = Some(call(gossip.as_mut().unwrap(), now, &mut stores));
    });
    result.unwrap()
}

#[test]
fn sixty_four_supernodes_that_know_one_soon_know_all() {
    let mut net = TestNet::new(1);
    let all = start(&mut net, 64);
    net.run_for(SECOND * 10);
    for id in &all {
        assert_eq!(known(&net, id), 63);
    }
    // Calm: for each about a kilobit a second, each way, all told.
    net.run_for(SECOND * 120);
    let before: usize = all.iter().map(|id| net.get(id).sent_bytes).sum();
    net.run_for(SECOND * 600);
    let sent = all.iter().map(|id| net.get(id).sent_bytes).sum::<usize>() - before;
    let bits = sent * 8 / 600 / all.len();
    assert!(bits < 1000, "{bits} bit/s each");
}

/// Those that links are up to and that are neighbours.
fn neighbours(net: &TestNet, id: &PeerId) -> Vec<PeerId> {
    net.get(id).gossip.as_ref().unwrap().linked().copied().collect()
}

#[test]
fn up_to_thirty_three_everybody_is_everybodys_neighbour() {
    let mut net = TestNet::new(11);
    let all = start(&mut net, 33);
    net.run_for(SECOND * 60);
    assert!(all.iter().all(|id| neighbours(&net, id).len() == 32));
}

#[test]
fn nobody_becomes_a_hub_and_with_a_small_table_everybody_knows_those_around() {
    let mut net = TestNet::new(12);
    net.table_max = 64;
    let mut all = start(&mut net, 80);
    net.run_for(SECOND * 120);
    for id in &all {
        let count = neighbours(&net, id).len();
        assert!((16..=circle::CIRCLE_MAX).contains(&count), "{count} neighbours");
        assert!(known(&net, id) <= 64);
        // Being neighbours is mutual, but for those that are just being told.
        let one_way = neighbours(&net, id).iter().filter(|other| !neighbours(&net, other).contains(id)).count();
        assert!(one_way <= 1, "{one_way} do not know that they are neighbours");
    }
    net.run_for(SECOND * 500);
    let nearest = |of: &PeerId, all: &[PeerId]| {
        let mut others: Vec<PeerId> = all.iter().filter(|id| *id != of).copied().collect();
        others.sort_by_key(|id| shelf::distance(of, id));
        others.truncate(8);
        others
    };
    let knows = |net: &TestNet, all: &[PeerId], id: &PeerId| {
        nearest(id, all).iter().filter(|near| net.get(id).members.contains(near)).count()
    };
    let missing: usize = all.iter().map(|id| 8 - knows(&net, &all, id)).sum();
    assert!(missing <= all.len() / 20, "of {} nearest {missing} are not known", all.len() * 8);
    // Who comes now is taken, although all tables and many circles are full.
    let newcomer = net.supernode(120, &[bootstrap(1)]);
    all.push(newcomer);
    net.run_for(SECOND * 60);
    let count = neighbours(&net, &newcomer).len();
    assert!(count >= 3, "{count} neighbours");
    net.run_for(SECOND * 470);
    assert_eq!(knows(&net, &all, &newcomer), 8);
    let known_by = nearest(&newcomer, &all).iter().filter(|near| net.get(near).members.contains(&newcomer)).count();
    assert!(known_by >= 7, "known by {known_by} of those around it");
}

#[test]
fn who_lost_all_its_neighbours_finds_back() {
    let mut net = TestNet::new(13);
    let all = start(&mut net, 12);
    net.run_for(SECOND * 60);
    // Those that it knows are gone, but for the one that it was told of, which is started anew.
    for id in &all[1..11] {
        net.crash(*id);
    }
    net.crash(all[0]);
    net.run_for(SECOND * 5000);
    assert!(neighbours(&net, &all[11]).is_empty());
    net.supernode(1, &[]);
    net.supernode(20, &[bootstrap(1)]);
    net.run_for(SECOND * 150);
    assert_eq!(neighbours(&net, &all[11]).len(), 2);
}

#[test]
fn before_somebody_is_suspected_others_try_it() {
    let mut net = TestNet::new(14);
    let all = start(&mut net, 6);
    net.run_for(SECOND * 60);
    let (me, silent) = (all[1], all[2]);
    let asked = |out: &VecDeque<Output>| {
        let is_ping = |output: &&Output| match output {
            Output::Send { messages, .. } => {
                matches!(decode_next(&mut &**messages), Ok(Message::PingFor { peer }) if peer == silent)
            }
            _ => false,
        };
        out.iter().filter(is_ping).count()
    };
    with_gossip(&mut net, me, |gossip, now, s| {
        gossip.doubt(now, silent, s);
        assert_eq!(asked(s.out), 3);
        assert_eq!(s.members.suspicion(&silent), Suspicion::Alive);
        // Somebody hears it, and says so who was not asked, and then one who was.
        let unasked = all.iter().find(|id| **id != me && **id != silent && !gossip.watch.is_helper(id, &silent));
        gossip.on_alive(unasked.expect("one of four"), &silent);
        assert!(gossip.watch.checks.contains_key(&silent));
        let helper = all.iter().find(|id| gossip.watch.is_helper(id, &silent)).expect("one of three");
        gossip.on_alive(helper, &silent);
        assert!(!gossip.watch.checks.contains_key(&silent));
        gossip.watch_due(now + SECOND * 20, s);
        assert_eq!(s.members.suspicion(&silent), Suspicion::Alive);
        // Nobody does; and a stranger is not believed.
        gossip.doubt(now + SECOND * 20, silent, s);
        gossip.on_alive(&key(99).peer_id(), &silent);
        gossip.watch_due(now + SECOND * 60, s);
        assert_eq!(s.members.suspicion(&silent), Suspicion::Suspect);
        gossip.on_heard(now + SECOND * 60, &silent, s);
        assert_eq!(s.members.suspicion(&silent), Suspicion::Alive);
        s.out.clear();
    });
    // The one asked tries, and says so if there is an answer; of strangers it takes no questions.
    with_gossip(&mut net, all[4], |gossip, now, s| {
        gossip.on_ping_for(now, key(99).peer_id(), silent, s);
        assert!(s.out.is_empty());
        gossip.on_ping_for(now, me, silent, s);
        assert_eq!(s.out.drain(..).collect::<Vec<_>>(), [Output::AskAlive { peer: silent }]);
        gossip.on_heard(now, &silent, s);
        let [Output::Send { to, messages }] = s.out.make_contiguous() else { panic!() };
        assert_eq!((*to, decode_next(&mut &**messages).unwrap()), (me, Message::Alive { peer: silent }));
        s.out.clear();
    });
}

#[test]
fn what_was_lost_is_repaired_in_rounds() {
    let mut net = TestNet::new(2);
    net.loss_percent = 30;
    let all = start(&mut net, 12);
    net.run_for(SECOND * 300);
    for id in &all {
        assert_eq!(known(&net, id), 11);
    }
}

#[test]
fn adverts_are_renewed_for_ever() {
    let mut net = TestNet::new(3);
    let all = start(&mut net, 4);
    net.loss_percent = 20;
    for hour in 1..6 {
        net.run_for(SECOND * 3600);
        assert!(all.iter().all(|id| known(&net, id) == 3), "hour {hour}");
    }
}

#[test]
fn a_dead_supernode_is_suspected_then_dead_then_forgotten_and_comes_back() {
    let mut net = TestNet::new(4);
    net.notice_after = SECOND * 10_000;
    let all = start(&mut net, 5);
    net.run_for(SECOND * 60);
    let dead = all[2];
    net.crash(dead);
    net.notice_after = SECOND * 60;
    let suspicion =
        |net: &TestNet| all.iter().filter(|id| **id != dead).map(|id| net.get(id).members.suspicion(&dead)).max();
    net.run_for(SECOND * 240);
    assert_eq!(suspicion(&net), Some(Suspicion::Suspect));
    net.run_for(SECOND * 400);
    assert_eq!(suspicion(&net), Some(Suspicion::Dead));
    // Not offered to those who ask for supernodes.
    with_gossip(&mut net, all[0], |_, _, s| {
        assert_eq!(s.members.listing(64, &mut s.random.peer_choice).count(), 4);
    });
    net.run_for(SECOND * 3600);
    assert_eq!(known(&net, &all[0]), 3);
    // Its anchors lead it back.
    net.supernode(3, &[]);
    net.run_for(SECOND * 20);
    assert!(all.iter().all(|id| known(&net, id) == 4 && net.get(id).members.suspicion(&dead) == Suspicion::Alive));
}

#[test]
fn e7_two_halves_merge() {
    let mut net = TestNet::new(5);
    let left: Vec<_> = (1..=6).map(|n| net.supernode(n, &[bootstrap(1)])).collect();
    let right: Vec<_> = (11..=16).map(|n| net.supernode(n, &[bootstrap(11)])).collect();
    net.run_for(SECOND * 30);
    assert!(left.iter().chain(&right).all(|id| known(&net, id) == 5));
    with_gossip(&mut net, left[3], |gossip, now, s| gossip.join(now, &[bootstrap(14)], s));
    net.run_for(SECOND * 30);
    assert!(left.iter().chain(&right).all(|id| known(&net, id) == 11));
}

#[test]
fn strangers_may_say_who_they_are_and_nothing_else() {
    let mut net = TestNet::new(6);
    let all = start(&mut net, 2);
    net.run_for(SECOND * 5);
    let stranger = key(100).peer_id();
    let record = Record {
        id: key(99).peer_id(),
        sequence: 1,
        issued_s: wall_at(net.now).as_secs(),
        lifetime_s: 3600,
        homes: [(all[1], net.get(&all[1]).address.into())].into_iter().collect(),
    };
    let record = record.sign(&key(99));
    let advert = |n: u8| {
        let own = OwnAdvert::new(Instant::ZERO, &[TestNet::address_of(n)], 1, 0);
        let (mut own, mut random) = (own, Generators::new(&crate::random::Seed::new([1; 32]), "test"));
        own.make(Instant::ZERO, Some(wall_at(Instant::ZERO)), &key(n), 1, &mut random.jitter).1
    };
    with_gossip(&mut net, all[0], |gossip, now, s| {
        assert!(!gossip.on_signed(now, (stranger, None), SignedKind::Record, &record, s));
        assert_eq!(s.records.len(), 0);
        assert!(!gossip.on_signed(now, (stranger, None), SignedKind::Advert, &advert(101), s));
        gossip.on_digest(now, stranger, SignedKind::Advert, true, &[], s);
        assert!(s.out.is_empty());
        assert!(!gossip.on_signed(now, (stranger, None), SignedKind::Advert, &advert(100), s));
        let address = TestNet::address_of(100);
        assert_eq!(s.out.drain(..).collect::<Vec<_>>(), [Output::Vet { peer: stranger, address }]);
        gossip.on_signed(now, (stranger, None), SignedKind::Advert, &advert(100), s);
        gossip.on_reached(now, stranger, TestNet::address_of(101), s);
        assert!(s.out.is_empty() && !s.members.contains(&stranger), "it answered, but not where it says that it is");
        gossip.on_reached(now, stranger, address, s);
        assert!(!s.out.is_empty() && s.members.contains(&stranger), "now it is greeted");
        s.out.clear();
        assert!(gossip.on_signed(now, (stranger, None), SignedKind::Record, &record, s));
        assert_eq!(s.records.len(), 1);
        // A known one may pass on others, but no forgery.
        let mut forged = advert(102);
        forged[60] ^= 1;
        assert!(!gossip.on_signed(now, (stranger, None), SignedKind::Advert, &forged, s));
        assert!(!gossip.on_signed(now, (stranger, None), SignedKind::Advert, &advert(102), s));
        assert!(!s.members.contains(&key(102).peer_id()), "which this node sees for itself first");
    });
}

#[test]
fn answers_to_digests_are_bounded() {
    let mut net = TestNet::new(7);
    let all = start(&mut net, 40);
    net.run_for(SECOND * 120);
    let asker = all[1];
    let mut answers = Vec::new();
    with_gossip(&mut net, all[0], |gossip, now, s| {
        let lacking: Vec<_> =
            s.members.digest(100, 0).into_iter().map(|e| DigestEntry { sequence_low: [0; 4], ..e }).collect();
        for _ in 0..1000 {
            gossip.on_digest(now, asker, SignedKind::Advert, false, &lacking, s);
            gossip.on_adverts_request(now, (asker, None), s);
        }
        answers.extend(s.out.drain(..));
    });
    let mut signed = 0;
    for output in &answers {
        let Output::Send { messages, .. } = output else { panic!() };
        let (mut rest, mut here) = (&**messages, 0);
        while !rest.is_empty() {
            here += usize::from(matches!(decode_next(&mut rest).unwrap(), Message::Signed { .. }));
        }
        assert!(here <= 7 && messages.len() <= 1100);
        signed += here;
    }
    // 16 digests at 12, 3 listings at 40.
    assert_eq!(signed, 16 * 12 + 3 * 40);
}

#[test]
fn the_load_travels() {
    let mut net = TestNet::new(8);
    let all = start(&mut net, 4);
    net.run_for(SECOND * 5);
    let load = Load { leaves: 99, ..Load::default() };
    let node = net.nodes.get_mut(&all[2]).unwrap();
    // What it tells in hints, and what it answers when asked.
    node.gossip.as_mut().unwrap().set_load(load, Places::default());
    node.load = load;
    net.run_for(SECOND * 120);
    for id in all.iter().filter(|id| **id != all[2]) {
        assert_eq!(net.get(id).members.load(net.now, &all[2]), Some(load));
    }
}

#[test]
fn packets_hold_what_fits() {
    let to = key(1).peer_id();
    let mut out = VecDeque::new();
    let bytes = [7; 200];
    {
        let mut packer = Packer::new(to, &mut out);
        for _ in 0..20 {
            packer.push(&Message::Signed { kind: SignedKind::Record, bytes: &bytes });
        }
    }
    assert_eq!(out.len(), 4);
    send(&mut out, to, &Message::Deregister);
    assert_eq!(out.len(), 5);
}
