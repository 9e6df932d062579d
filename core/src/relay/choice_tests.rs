//! One end's choice, with a link that goes through a relay, and nothing around it.

use super::*;
use crate::identity::SecretKey;
use crate::peer::Peers;
use crate::peer::operations::relayed;
use crate::relay::around::Supernode;

const CHANNEL: ChannelId = ChannelId([1; 6]);
const OTHER: ChannelId = ChannelId([2; 6]);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

/// The present relay, and two others.
const RELAY: u8 = 20;
const HOME: u8 = 21;
const ELSEWHERE: u8 = 22;

struct End {
    me: PeerId,
    peers: Peers,
    link: PeerKey,
    via: PeerKey,
    choices: Choices,
    keys: KeyRng,
    homes: Vec<(PeerId, SocketAddr)>,
    out: VecDeque<Output>,
}

/// Both ends of one link, the one with the lesser id first.
fn ends() -> [End; 2] {
    let sides = relayed(at(0), CHANNEL, id(RELAY));
    let ids = [0, 1].map(|n: usize| sides[1 - n].0.id_of(sides[1 - n].1).expect("linked"));
    let mut n = 0;
    let mut ends = sides.map(|(peers, link, via)| {
        n += 1;
        End {
            me: ids[n - 1],
            peers,
            link,
            via,
            choices: Choices::default(),
            keys: KeyRng::new([9; 32]),
            homes: Vec::new(),
            out: VecDeque::new(),
        }
    });
    ends.sort_by_key(|end| end.me);
    ends
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 4_000))
}

impl End {
    fn act(&mut self, act: impl FnOnce(&mut Choices, &Around<'_>, &mut KeyRng, &mut VecDeque<Output>)) -> Vec<Output> {
        let supernode = |_: &PeerId| Supernode::default();
        let around = Around {
            me: self.me,
            peers: &self.peers,
            homes: &self.homes,
            is_serving: false,
            is_leaf_here: &|_| false,
            profile: crate::wire::nat::NatProfile::default(),
            supernode: &supernode,
        };
        act(&mut self.choices, &around, &mut self.keys, &mut self.out);
        self.out.drain(..).collect()
    }

    fn limited(&mut self, ms: u64, channel: ChannelId) -> Vec<Output> {
        let way = Way { end: self.link, via: self.via };
        self.act(|c, around, _, out| c.on_limited(at(ms), (way, channel), RelayLimit::Pair, 600, around, out))
    }

    fn time(&mut self, ms: u64) -> Vec<Output> {
        self.act(|c, around, _, out| c.handle_timeout(at(ms), around, out))
    }

    fn offer(&mut self, ms: u64, round: u8, relays: &[u8]) -> Vec<Output> {
        let one = |n: &u8| OfferedRelay { relay: id(*n), address: Some(address(*n).into()), rtt_ms: 30, load: 0 };
        let relays: Vec<OfferedRelay> = relays.iter().map(one).collect();
        let link = self.link;
        self.act(|c, around, keys, out| c.on_offer(at(ms), link, (round, true, &relays), around, keys, out))
    }
}

fn is_offer(output: &Output) -> bool {
    matches!(output, Output::Send { message: Message::RelayOffer { urgent: true, .. }, .. })
}

const END: StreamEnd = StreamEnd::RelayLimited { limit: RelayLimit::Pair, retry_after_s: 600 };

#[test]
fn a_peer_that_knows_no_offers_is_looked_for_anew_once_and_then_the_link_ends() {
    let [mut end, _] = ends();
    let told = end.limited(0, CHANNEL);
    assert!(matches!(told[..], [Output::Avoid { .. }, Output::Event(Event::RelayLimited { .. })]), "{told:?}");
    assert_eq!(end.limited(500, CHANNEL), [], "it is known");
    for ms in [1, 300, 700] {
        let offers = end.time(ms);
        assert!(matches!(&offers[..], [offer] if is_offer(offer)), "{offers:?}");
    }
    let leave = Output::Leave { peer: end.link, via: end.via, channel: CHANNEL };
    assert_eq!(end.time(1_100), [leave]);
    // The introduction brought another channel of the same relay, which is limited as well.
    let (link, via) = (end.link, end.via);
    assert_eq!(end.choices.limited_for(&end.peers.id_of(link).expect("linked")), [id(RELAY)]);
    assert!(end.time(9_900).is_empty(), "what was begun may take so long");
    assert_eq!(end.time(10_100), [Output::End { peer: link, end: END }]);
    let way = Way { end: link, via };
    let again = end.act(|c, around, _, out| c.on_limited(at(20_000), (way, OTHER), RelayLimit::Pair, 600, around, out));
    assert!(matches!(again[..], [Output::Avoid { .. }]), "that one is not in use: {again:?}");
}

#[test]
fn two_that_know_no_other_relay_end_at_once() {
    let [mut lesser, mut greater] = ends();
    for end in [&mut lesser, &mut greater] {
        end.limited(0, CHANNEL);
        let offers = end.time(1);
        assert!(matches!(&offers[..], [offer] if is_offer(offer)), "{offers:?}");
    }
    assert_eq!(lesser.offer(40, 1, &[]), [], "the offer of the lesser one counts");
    let picked = greater.offer(40, 1, &[]);
    assert!(matches!(picked[..], [Output::Send { message: Message::RelayPick { round: 1, pick: None }, .. }]));
    assert_eq!(greater.offer(140, 1, &[]), picked, "it may have been lost");
    assert_eq!(greater.time(241), [Output::End { peer: greater.link, end: END }]);
    let link = lesser.link;
    lesser.act(|c, around, _, out| c.on_pick(at(80), link, (1, None), around, out));
    assert_eq!(lesser.time(81), [Output::End { peer: link, end: END }]);
}

#[test]
fn both_present_the_token_and_prove_the_channel() {
    let [mut lesser, mut greater] = ends();
    lesser.homes = vec![(id(HOME), address(HOME))];
    lesser.limited(0, CHANNEL);
    assert!(lesser.time(1).iter().all(is_offer));
    let picked = greater.offer(40, 1, &[HOME]);
    let [
        Output::Send { message: Message::RelayPick { round: 1, pick: Some(pick) }, .. },
        Output::Join { relay, token, .. },
    ] = &picked[..]
    else {
        panic!("{picked:?}")
    };
    assert_eq!((*relay, *token), (id(HOME), pick.2));
    let (link, pick) = (lesser.link, *pick);
    let joined = lesser.act(|c, around, _, out| c.on_pick(at(80), link, (1, Some(pick)), around, out));
    assert_eq!(joined, [Output::Join { relay: id(HOME), address: Some(address(HOME)), token: pick.2 }]);
    assert_eq!(lesser.time(581), joined, "presented again");
    let limits = ChannelLimits { rate_kbps: 1, quota_mib: 2 };
    let from = lesser.peers.enter(at(600), id(HOME)).expect("room");
    let via = lesser.via;
    let answer = (pick.2, Ok((OTHER, limits)));
    assert_eq!(lesser.act(|c, around, _, out| c.on_joined(at(600), via, answer, around, out)), [], "of another relay");
    let tried = lesser.act(|c, around, _, out| c.on_joined(at(600), from, answer, around, out));
    assert_eq!(tried, [Output::Try { peer: link, via: from, channel: OTHER, limits }]);
    assert_eq!(lesser.act(|c, around, _, out| c.on_joined(at(601), from, answer, around, out)), [], "once");
    assert_eq!(lesser.time(901), tried);
}

#[test]
fn a_relay_that_does_not_join_them_is_not_offered_again() {
    let [mut end, _] = ends();
    end.homes = vec![(id(HOME), address(HOME))];
    end.limited(0, CHANNEL);
    end.time(1);
    let link = end.link;
    let pick = (id(ELSEWHERE), Some(address(ELSEWHERE).into()), [5; 16]);
    end.act(|c, around, _, out| c.on_pick(at(50), link, (1, Some(pick)), around, out));
    let from = end.peers.enter(at(60), id(ELSEWHERE)).expect("room");
    end.act(|c, around, _, out| c.on_joined(at(60), from, ([5; 16], Err(Refusal::Busy)), around, out));
    assert!(matches!(&end.time(61)[..], [offer] if is_offer(offer)), "another round");
    let again = end.act(|c, around, _, out| c.on_pick(at(90), link, (2, Some(pick)), around, out));
    assert_eq!(again, [], "it has refused");
}

#[test]
fn a_peer_that_offers_without_end_is_not_answered_and_dials_nobody() {
    let [_, mut end] = ends();
    let answered = (0..100).filter(|round| !end.offer(u64::from(*round), *round, &[ELSEWHERE]).is_empty());
    assert_eq!(answered.count(), usize::from(PICKS_MAX));
    assert!(!end.offer(AGAIN.as_millis() as u64 + 1, 200, &[ELSEWHERE]).is_empty());
}

#[test]
fn the_present_relay_oneself_and_the_peer_are_never_picked() {
    let [_, mut end] = ends();
    let me = end.me;
    let peer = end.peers.id_of(end.link).expect("linked");
    let relays =
        [id(RELAY), me, peer].map(|relay| OfferedRelay { relay, address: Some(address(1).into()), rtt_ms: 1, load: 0 });
    let link = end.link;
    let out = end.act(|c, around, keys, out| c.on_offer(at(0), link, (1, true, &relays), around, keys, out));
    assert!(matches!(out[..], [Output::Send { message: Message::RelayPick { pick: None, .. }, .. }]), "{out:?}");
}

#[test]
fn a_volunteer_is_asked_for_where_no_home_will_do_and_waited_for() {
    let [mut a, _] = ends();
    let (volunteer, token, link) = (id(30), [7; 16], a.link);
    // Its only home is the peer, which is no relay for the two.
    a.homes = vec![(a.peers.id_of(link).expect("linked"), address(HOME))];
    a.limited(0, CHANNEL);
    assert_eq!(a.time(1), [Output::Send { peer: link, message: Message::VolunteersRequest }]);
    assert_eq!(a.act(|c, _, _, _| c.on_volunteers(at(40), PeerKey { index: 99, generation: 1 }, &[id(31)])), []);
    assert_eq!(a.time(45), [], "nobody names anything unasked");
    a.act(|c, _, _, _| c.on_volunteers(at(50), link, &[volunteer]));
    let offered = a.time(51);
    let [Output::Send { message: Message::RelayOffer { round, urgent: true, relays }, .. }] = &offered[..] else {
        panic!("{offered:?}")
    };
    assert_eq!(relays.iter().map(|offer| (offer.relay, offer.address)).collect::<Vec<_>>(), [(volunteer, None)]);
    let join = Output::Join { relay: volunteer, address: None, token };
    let pick = (*round, Some((volunteer, None, token)));
    assert_eq!(a.act(|c, around, _, out| c.on_pick(at(90), link, pick, around, out)), core::slice::from_ref(&join));
    // As long as a birthday may take for each of the two.
    let mut joins = 0;
    for ms in (91..46_000).step_by(100) {
        for output in a.time(ms) {
            assert_eq!(output, join, "{ms}");
            joins += 1;
        }
    }
    assert!(joins >= 20, "{joins}");
    let ended = (46_000..62_000).step_by(10).find(|ms| a.time(*ms).iter().any(|o| matches!(o, Output::End { .. })));
    assert!(ended.is_some_and(|ms| ms <= 60_010), "{ended:?}");
}

#[test]
fn a_volunteer_that_cannot_be_reached_is_given_up_and_avoided() {
    let [mut a, _] = ends();
    let (volunteer, link) = (id(30), a.link);
    a.homes = vec![(a.peers.id_of(link).expect("linked"), address(HOME))];
    a.limited(0, CHANNEL);
    a.time(1);
    a.act(|c, _, _, _| c.on_volunteers(at(50), link, &[volunteer]));
    a.time(51);
    a.act(|c, around, _, out| c.on_pick(at(90), link, (1, Some((volunteer, None, [7; 16]))), around, out));
    a.act(|c, _, _, _| c.known.avoid(at(200), volunteer));
    let ended = (200..62_000).step_by(10).find(|ms| a.time(*ms).iter().any(|o| matches!(o, Output::End { .. })));
    assert!(ended.is_some_and(|ms| ms <= 10_010), "{ended:?}");
    a.act(|c, _, _, _| c.on_volunteers(at(20_000), link, &[volunteer]));
    assert_eq!(a.choices.known.iter(at(20_000)).next(), None);
}

#[test]
fn made_up_volunteers_win_nothing_from_a_supernode_that_is_near() {
    let [a, _] = ends();
    let supernode = |_: &PeerId| Supernode::default();
    let homes = vec![(id(HOME), address(HOME))];
    let around = Around {
        me: a.me,
        peers: &a.peers,
        homes: &homes,
        is_serving: false,
        is_leaf_here: &|_| false,
        profile: crate::wire::nat::NatProfile::default(),
        supernode: &supernode,
    };
    let near = Candidate { relay: id(HOME), rtt_ms: 80, load: 100 };
    let mut keys = KeyRng::new([5; 32]);
    for n in 1..60u8 {
        let mut candidates: Vec<Candidate> = (0..n).map(|n| Candidate::unmeasured(id(100 + n))).collect();
        candidates.push(near);
        let picked = Choices::pick(candidates, &[], &around, &mut keys).expect("there are some");
        assert_eq!((picked.0, picked.1), (id(HOME), Some(address(HOME).into())), "{n} of them");
    }
    // Where the supernode is full, one of them is taken, and it is at no address.
    let full = Candidate { load: 250, ..near };
    let picked = Choices::pick(vec![full, Candidate::unmeasured(id(100))], &[], &around, &mut keys).expect("some");
    assert_eq!((picked.0, picked.1), (id(100), None));
}
