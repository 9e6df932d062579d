use super::*;
use crate::identity::SecretKey;
use crate::net::DropReason;
use crate::wire::dialect::INIT_VERSION;
use crate::wire::message::decode_next;
use crate::wire::packet::{INIT_HEADER_LEN, Kind, NOISE_1_OVERHEAD};

const CALLER: PeerKey = PeerKey { index: 1, generation: 1 };
const CALLEE: PeerKey = PeerKey { index: 2, generation: 1 };

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// The n-th Init of the caller.
fn init(n: u8) -> Vec<u8> {
    let mut init = vec![0; INIT_HEADER_LEN + NOISE_1_OVERHEAD];
    (init[0], init[1], init[INIT_HEADER_LEN]) = (Kind::Init as u8, INIT_VERSION, n);
    init
}

fn asked(init: &[u8]) -> Asked<'_> {
    Asked { caller: (CALLER, id(1)), remote: None, callee: id(2), init }
}

/// Nothing is in the way.
const FREE: View = View { is_serving: true, callee: Some(CALLEE), is_open: false, is_exhausted: false, has_room: true };
/// The channel of an earlier introduction is open.
const OPEN: View = View { is_open: true, ..FREE };

/// A home, whose held Inits are numbers.
struct Rig {
    home: Introductions<u32>,
    account: Account,
}

impl Rig {
    fn new() -> Self {
        Self { home: Introductions::new(&Seed::new([1; 32]), 2_000_500, 3 << 20), account: Account::default() }
    }

    fn early(&mut self, ms: u64, n: u8, view: View, held: u32) -> Vec<HomeOutput<u32>> {
        let init = init(n);
        self.home.on_early(at(ms), &mut self.account, asked(&init), view, init.len(), held);
        self.outputs()
    }

    fn over_link(&mut self, ms: u64, n: u8, view: View) -> Vec<HomeOutput<u32>> {
        self.home.on_introduce(at(ms), &mut self.account, asked(&init(n)), view);
        self.outputs()
    }

    fn reply(&mut self, channel: ChannelId, response: Result<&[u8], Refusal>, is_up: bool) -> Vec<HomeOutput<u32>> {
        assert_eq!(self.home.on_reply(CALLEE, channel, response, is_up), Ok(()));
        self.outputs()
    }

    fn wait(&mut self, ms: u64) -> Vec<HomeOutput<u32>> {
        self.home.handle_timeout(at(ms));
        assert!(self.home.poll_timeout().is_none_or(|next| next > at(ms)));
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<HomeOutput<u32>> {
        core::iter::from_fn(|| self.home.poll_output()).collect()
    }
}

/// The channel of an introduction that was admitted.
fn opened(outputs: &[HomeOutput<u32>]) -> ChannelId {
    match outputs {
        [HomeOutput::Open { channel, ends }, HomeOutput::Bring { callee, message }] => {
            assert_eq!((*ends, *callee), ([(CALLER, id(1)), (CALLEE, id(2))], CALLEE));
            let message = decode_next(&mut &**message);
            assert!(matches!(message, Ok(Message::Introduced { channel: named, .. }) if named == *channel));
            *channel
        }
        other => panic!("not admitted: {other:?}"),
    }
}

fn answer(channel: ChannelId, response: Result<&[u8], Refusal>) -> Box<[u8]> {
    let limits = ChannelLimits { rate_kbps: 2_001, quota_mib: 3 };
    let response = response.map(|packet| (channel, limits, packet));
    encoded(&Message::IntroduceReply { peer: id(2), response }).expect("short")
}

#[test]
fn an_early_introduction_is_answered_with_the_init_that_brought_it() {
    let mut rig = Rig::new();
    let channel = opened(&rig.early(0, 1, FREE, 7));
    assert_eq!(rig.home.channel_of(id(1), &init(1)), Some(channel));
    assert_eq!(rig.early(10, 1, OPEN, 8), [], "the same again, while the first is held");
    let reply = Some(answer(channel, Ok(b"yes")));
    assert_eq!(rig.reply(channel, Ok(b"yes"), false), [HomeOutput::Answer { caller: CALLER, held: 7, reply }]);
    let reply = Some(answer(channel, Ok(b"yes")));
    let again = rig.early(20, 1, OPEN, 9);
    assert_eq!(again, [HomeOutput::Answer { caller: CALLER, held: 9, reply }], "the answer was lost");
    assert_eq!(rig.reply(channel, Ok(b"yes"), true), [], "and so was ours to the callee");
}

#[test]
fn an_older_link_of_the_caller_gets_nothing_of_what_an_init_asked_for() {
    let mut rig = Rig::new();
    let channel = opened(&rig.early(0, 1, FREE, 7));
    assert!(rig.home.is_early(CALLER, channel) && !rig.home.is_early(CALLEE, channel));
    assert_eq!(rig.wait(250), [HomeOutput::Answer { caller: CALLER, held: 7, reply: None }]);
    assert_eq!(rig.reply(channel, Ok(b"yes"), true), [], "the link that is up is the one before");
    rig.home.on_link_up(CALLER);
    assert!(!rig.home.is_early(CALLER, channel));
    assert_eq!(rig.outputs(), [HomeOutput::Reply { caller: CALLER, message: answer(channel, Ok(b"yes")) }]);
    let other = opened(&rig.over_link(300, 2, FREE));
    assert!(!rig.home.is_early(CALLER, other), "it came over the link");
}

#[test]
fn an_init_is_held_so_long_and_the_answer_follows_over_the_link() {
    let mut rig = Rig::new();
    let channel = opened(&rig.early(0, 1, FREE, 7));
    assert_eq!(rig.home.poll_timeout(), Some(at(250)));
    assert_eq!(rig.wait(249), []);
    assert_eq!(rig.wait(250), [HomeOutput::Answer { caller: CALLER, held: 7, reply: None }]);
    assert_eq!(rig.reply(channel, Ok(b"yes"), false), [], "its link is not confirmed");
    rig.home.on_link_up(CALLEE);
    assert_eq!(rig.outputs(), [], "another link");
    rig.home.on_link_up(CALLER);
    assert_eq!(rig.outputs(), [HomeOutput::Reply { caller: CALLER, message: answer(channel, Ok(b"yes")) }]);
    rig.home.on_link_up(CALLER);
    assert_eq!(rig.outputs(), []);
}

#[test]
fn over_a_link_the_answer_comes_alone_and_again_when_asked_again() {
    let mut rig = Rig::new();
    let channel = opened(&rig.over_link(0, 1, FREE));
    assert_eq!(rig.over_link(10, 1, OPEN), [], "the callee is being asked");
    let yes = [HomeOutput::Reply { caller: CALLER, message: answer(channel, Ok(b"yes")) }];
    assert_eq!(rig.reply(channel, Ok(b"yes"), true), yes);
    assert_eq!(rig.over_link(20, 1, OPEN), yes);
    assert_ne!(opened(&rig.over_link(30, 1, FREE)), channel, "the channel was closed meanwhile: a new one");
}

#[test]
fn a_refusal_closes_the_channel() {
    let mut rig = Rig::new();
    let channel = opened(&rig.over_link(0, 1, FREE));
    let told = HomeOutput::Reply { caller: CALLER, message: answer(channel, Err(Refusal::NotAllowed)) };
    assert_eq!(rig.reply(channel, Err(Refusal::NotAllowed), true), [told, HomeOutput::Close { channel }]);
}

#[test]
fn only_the_callee_answers() {
    let mut rig = Rig::new();
    let channel = opened(&rig.over_link(0, 1, FREE));
    assert_eq!(rig.home.on_reply(CALLER, channel, Ok(b"yes"), true), Err(DropReason::WrongPath));
    let other = ChannelId([0; 6]);
    assert_eq!(rig.home.on_reply(CALLEE, other, Ok(b"yes"), true), Err(DropReason::UnknownReceiver));
    assert_eq!(rig.home.on_reply(CALLEE, channel, Ok(&[0; 2_000]), true), Err(DropReason::BadContents));
    assert_eq!((rig.outputs(), rig.home.caller_of(channel)), (vec![], Some(CALLER)));
}

#[test]
fn the_init_is_repeated_until_it_is_answered() {
    let mut rig = Rig::new();
    let channel = opened(&rig.over_link(0, 1, FREE));
    let mut times = Vec::new();
    while let Some(next) = rig.home.poll_timeout().filter(|next| *next < at(60_000)) {
        times.push(next.as_micros() / 1_000);
        match &rig.wait(next.as_micros() / 1_000)[..] {
            [HomeOutput::Bring { callee: CALLEE, .. }] => {}
            [HomeOutput::Close { channel: closed }] => assert_eq!(*closed, channel),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(times, [300, 800, 1_600, 2_800, 4_000]);
    let late = rig.home.on_reply(CALLEE, channel, Ok(b"yes"), true);
    assert_eq!(late, Err(DropReason::UnknownReceiver), "that was too late");

    let channel = opened(&rig.over_link(3_000, 2, FREE));
    let _ = rig.reply(channel, Ok(b"yes"), true);
    assert_eq!(rig.wait(50_000), [], "it was answered");
}

#[test]
fn who_cannot_be_introduced_hears_why() {
    let refused = |init: &[u8], view| {
        let mut rig = Rig::new();
        rig.home.on_introduce(at(0), &mut rig.account, asked(init), view);
        match &rig.outputs()[..] {
            [HomeOutput::Reply { message, .. }] => match decode_next(&mut &**message) {
                Ok(Message::IntroduceReply { response: Err(refusal), .. }) => refusal,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&init(1), View::default()), Refusal::NotASupernode);
    assert_eq!(refused(b"no Init", FREE), Refusal::Unknown);
    assert_eq!(refused(&init(1), View { callee: None, ..FREE }), Refusal::NotRegistered);
    assert_eq!(refused(&init(1), View { is_exhausted: true, ..FREE }), Refusal::Busy);
    assert_eq!(refused(&init(1), View { has_room: false, ..FREE }), Refusal::Busy);
    // As the early message of an Init, that gets the answer.
    let mut rig = Rig::new();
    let early = rig.early(0, 1, View::default(), 7);
    assert!(matches!(early[..], [HomeOutput::Answer { held: 7, reply: Some(_), .. }]));
}

#[test]
fn a_callee_gets_only_so_many_callers() {
    let mut rig = Rig::new();
    let admitted = |rig: &mut Rig, ms| (0..100).filter(|n| rig.over_link(ms, *n, FREE).len() == 2).count();
    assert_eq!(admitted(&mut rig, 0), 20);
    assert!(!rig.home.admit(at(0), &mut rig.account, id(2), None), "nor is it told of any");
    assert_eq!(admitted(&mut rig, 1_000), 20);
}

#[test]
fn all_is_forgotten_and_holds_are_bounded() {
    let mut rig = Rig::new();
    for n in 0..400_u32 {
        let mut init = init(0);
        init[INIT_HEADER_LEN..][..4].copy_from_slice(&n.to_le_bytes());
        let asked = Asked { callee: id((n / 20 + 2) as u8), ..asked(&init) };
        rig.home.on_early(at(0), &mut rig.account, asked, FREE, init.len(), n);
    }
    assert_eq!((rig.home.sizes().held, rig.home.sizes().remembered), (HOLDS_MAX, 400));
    let answered = rig.outputs().into_iter().filter(|output| matches!(output, HomeOutput::Answer { .. }));
    assert_eq!(answered.count(), 400 - HOLDS_MAX, "above the limit at once");
    let answered = rig.wait(250).into_iter().filter(|output| matches!(output, HomeOutput::Answer { .. }));
    assert_eq!(answered.count(), HOLDS_MAX);
    let _ = rig.wait(60_000);
    assert_eq!((rig.home.sizes(), rig.home.poll_timeout()), (Sizes::default(), None));
}

#[test]
fn what_it_costs_is_counted() {
    let mut rig = Rig::new();
    let channel = opened(&rig.over_link(0, 1, FREE));
    let _ = rig.reply(channel, Ok(b"yes"), true);
    // Asked and brought, answered and replied.
    let (asked, replied) = (init(1).len() as u64, answer(channel, Ok(b"yes")).len() as u64);
    assert_eq!(rig.home.costs(), (1, 4, 2 * asked + 40 + 45 + 2 * (replied + 25)));
}

#[test]
fn a_leaf_is_told_where_a_peer_of_it_is_seen() {
    let mut rig = Rig::new();
    let seen = SocketAddr::from(([192, 0, 2, 1], 7));
    let mut vouch = |remote, view| {
        rig.home.on_vouch(at(0), &mut rig.account, (id(1), remote), id(2), view);
        rig.home.poll_output()
    };
    assert_eq!(vouch(Some(seen), View { callee: None, ..FREE }), None, "it is no leaf of ours");
    assert_eq!(vouch(Some(seen), View { is_serving: false, ..FREE }), None, "we have none");
    assert_eq!(vouch(None, FREE), None, "where it is shows its relay only");
    let message = encoded(&Message::Vouched { peer: id(1), address: seen.into() }).expect("it fits");
    assert_eq!(vouch(Some(seen), FREE), Some(HomeOutput::Bring { callee: CALLEE, message }));
    assert_eq!((0..100).filter(|_| vouch(Some(seen), FREE).is_some()).count(), 9, "as many as it is introduced to");
}

#[test]
fn a_link_that_comes_up_gets_its_own_parked_answers_and_no_others() {
    let mut rig = Rig::new();
    let mut choices = Seed::new([5; 32]).choices("test");
    let mut below = |n| choices.below(n) as u32;
    // As a plain list has it: who called, and in which channel.
    let mut parked: Vec<(PeerKey, ChannelId)> = Vec::new();
    let (mut ms, mut released) = (0, 0);
    for n in 0..3_000_u32 {
        let caller = PeerKey { index: below(8), generation: 1 };
        if below(4) > 0 {
            // Not so often that the callee's limit refuses any.
            ms += 60;
            let mut init = init(0);
            init[INIT_HEADER_LEN..][..4].copy_from_slice(&n.to_le_bytes());
            let asked = Asked { caller: (caller, id(1)), ..asked(&init) };
            rig.home.on_introduce(at(ms), &mut rig.account, asked, FREE);
            let channel = rig.home.channel_of(id(1), &init).expect("admitted");
            let _ = rig.outputs();
            assert_eq!(rig.reply(channel, Ok(b"yes"), false), []);
            parked.push((caller, channel));
        } else if below(20) == 0 {
            ms += 120_000;
            let _ = rig.wait(ms);
            parked.clear();
        } else {
            rig.home.on_link_up(caller);
            let mut due: Vec<ChannelId> = parked.extract_if(.., |one| one.0 == caller).map(|one| one.1).collect();
            due.sort_unstable();
            released += due.len();
            let due = due.into_iter().map(|channel| HomeOutput::Reply { caller, message: answer(channel, Ok(b"yes")) });
            assert_eq!(rig.outputs(), due.collect::<Vec<_>>());
        }
        assert_eq!(rig.home.sizes().parked, parked.len());
    }
    assert!(released > 500, "{released} answers");
}
