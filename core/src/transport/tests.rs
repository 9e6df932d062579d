//! [`Transports`] alone, told what links are like.

use core::net::SocketAddr;
use core::time::Duration;

use super::connections::{BARE_MAX, LOOK_EVERY};
use super::transports::{FALL_BACK_AFTER, PARALLEL_MAX};
use super::*;
use crate::identity::{PeerId, SecretKey};
use crate::net::{Path, PeerKey, SocketId, SocketRefused, SocketRequest};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::InitBody;

const KEY: PeerKey = PeerKey { index: 0, generation: 1 };
const OTHER: PeerKey = PeerKey { index: 1, generation: 1 };
const TCP: SocketId = SocketId(SocketId::TCP_FIRST.0 + 1);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn peer(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn udp(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 4_000))
}

fn over(socket: SocketId) -> Route {
    Route::Direct { socket, remote: udp(1) }
}

fn link(is_up: bool, current: Option<Route>) -> Link {
    Link { key: KEY, peer: peer(1), is_up, current, asking: Vec::new(), is_supernode: true }
}

fn waiting(n: u8) -> Waiting {
    Waiting { peer: peer(n), udp: udp(n), body: [n].into(), asking: vec![SocketId(0)] }
}

#[derive(Default)]
struct Rig {
    transports: Transports,
}

impl Rig {
    fn outputs(&mut self) -> Vec<Output> {
        self.transports.take_outputs()
    }

    /// The addresses and numbers of the connections that are wished for.
    fn opened(&mut self) -> Vec<(SocketRequest, SocketAddr)> {
        let open = |output| match output {
            Output::Open { request, remote } => (request, remote),
            other => panic!("{other:?}"),
        };
        self.outputs().into_iter().map(open).collect()
    }

    fn due(&mut self, now: Instant) -> Vec<Output> {
        while self.transports.handle_timeout(now) {}
        assert!(self.transports.poll_timeout().is_none_or(|at| at > now));
        self.outputs()
    }

    fn survey(&mut self, now: Instant, why: Why, survey: &Survey) {
        self.transports.on_survey(now, why, survey);
    }

    fn answer(&mut self, now: Instant, request: SocketRequest, result: Result<SocketId, SocketRefused>) -> Vec<Output> {
        let _ = self.transports.sockets.handle_socket(request, result.map(|socket| (socket, udp(1))));
        self.transports.on_opened(now, request, result, None);
        self.outputs()
    }

    fn dial_blocked(&mut self, now: Instant, peer: PeerId, udp: SocketAddr) -> bool {
        let body = InitBody::Direct { early: None };
        self.transports.dial_blocked(now, (peer, udp), &[], &body)
    }

    /// A connection of ours over which the link came up, while UDP said nothing.
    fn blocked() -> Self {
        let mut rig = Self::default();
        rig.transports.on_silent(at(0), &link(true, Some(over(SocketId(0)))));
        let opened = rig.opened();
        assert_eq!(opened.iter().map(|(_, remote)| *remote).collect::<Vec<_>>(), [udp(1)]);
        let path = Path { socket: TCP, remote: udp(1), local: None };
        let attempt = rig.answer(at(50), opened[0].0, Ok(TCP));
        assert!(matches!(&attempt[..], [Output::Attempt { path: by, .. }] if *by == path), "{attempt:?}");
        rig.transports.on_answered(at(100), KEY, &over(TCP), at(50), true);
        let stand_in = Output::StandIn { peer: KEY, route: over(TCP), since: at(50) };
        assert_eq!(rig.outputs(), [stand_in, Output::Survey(Why::Blocked(KEY))]);
        assert_eq!(rig.transports.udp_works(), Some(false));
        rig
    }
}

#[test]
fn inits_that_wait_too_long_go_by_tcp_two_at_a_time() {
    let mut rig = Rig::default();
    rig.transports.on_asked(at(0));
    rig.transports.on_asked(at(1_000));
    let due = at(0) + FALL_BACK_AFTER;
    assert_eq!(rig.transports.poll_timeout(), Some(due), "the first one counts");
    assert_eq!(rig.due(due), [Output::Survey(Why::Silent)]);
    let survey = Survey { waiting: (1..=3).map(waiting).collect(), ..Survey::default() };
    rig.survey(due, Why::Silent, &survey);
    let opened = rig.opened();
    assert_eq!(opened.iter().map(|(_, remote)| *remote).collect::<Vec<_>>(), [udp(1), udp(2)]);
    assert_eq!(opened.len(), PARALLEL_MAX);
    // 443 is tried beside, and the third when one of them is given up.
    let ports = rig.due(due + Duration::from_secs(1)).len();
    assert_eq!(ports, 2);
    assert_eq!(rig.answer(due, opened[0].0, Err(SocketRefused)), [], "443 may still answer");
    let beside = SocketRequest(2);
    assert_eq!(rig.answer(due, beside, Err(SocketRefused)), [Output::Survey(Why::Failed), Output::GiveUp(peer(1))]);
    rig.survey(due, Why::Failed, &survey);
    assert_eq!(rig.opened().iter().map(|(_, remote)| *remote).collect::<Vec<_>>(), [udp(3)]);
}

#[test]
fn whoever_is_heard_over_udp_ends_the_falling_back() {
    let mut rig = Rig::default();
    rig.transports.on_asked(at(0));
    rig.transports.on_heard(at(10), KEY, &over(SocketId(0)), false);
    assert!(rig.transports.poll_timeout().is_some(), "the LAN says nothing of the way out");
    rig.transports.on_heard(at(20), KEY, &over(SocketId(0)), true);
    assert_eq!(rig.transports.poll_timeout(), None);
    assert_eq!((rig.transports.udp_works(), rig.outputs()), (Some(true), Vec::new()));
    // Links that there are watch by themselves.
    rig.transports.on_asked(at(30));
    let survey = Survey { over_udp: vec![KEY], waiting: vec![waiting(2)], ..Survey::default() };
    assert_eq!(rig.due(at(2_000)), [Output::Survey(Why::Silent)]);
    rig.survey(at(2_000), Why::Silent, &survey);
    assert_eq!(rig.outputs(), [Output::Probe(KEY)]);
    assert_eq!(rig.transports.poll_timeout(), None);
}

#[test]
fn a_response_by_tcp_alone_shows_that_udp_is_blocked_until_it_is_heard() {
    let mut rig = Rig::blocked();
    let survey = Survey { over_udp: vec![KEY, OTHER], ..Survey::default() };
    rig.survey(at(100), Why::Blocked(KEY), &survey);
    assert_eq!(rig.outputs(), [Output::Probe(OTHER), Output::TellCandidates]);
    assert!(rig.dial_blocked(at(200), peer(2), udp(2)), "by TCP alone");
    assert!(!rig.dial_blocked(at(200), peer(3), ([10, 0, 0, 1], 7).into()), "on the LAN both are tried");
    assert_eq!(rig.opened().len(), 2);
    assert!(!rig.dial_blocked(at(200), peer(4), udp(4)) || rig.opened().len() == 1);
    rig.transports.on_heard(at(300), OTHER, &over(SocketId(0)), true);
    assert_eq!(rig.outputs(), [Output::TellCandidates]);
    assert!(!rig.dial_blocked(at(400), peer(5), udp(5)));
}

#[test]
fn udp_is_asked_ever_more_seldom_while_a_link_is_over_tcp() {
    let mut rig = Rig::blocked();
    let survey = Survey { in_use: vec![TCP], ..Survey::default() };
    let mut asked = Vec::new();
    while asked.len() < 12 {
        let now = rig.transports.poll_timeout().expect("it goes on");
        for output in rig.due(now) {
            match output {
                Output::Survey(why) => {
                    rig.survey(now, why, &survey);
                    assert_eq!(rig.outputs(), [Output::ChallengeUdp { peer: KEY, udp: udp(1) }]);
                    asked.push((now.as_micros() - 100_000) / 1_000_000);
                }
                Output::Look { socket, .. } => rig.transports.on_looked_at(now, socket, Use::Current),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(asked, [10, 11, 40, 41, 100, 101, 220, 221, 520, 521, 820, 821]);
    rig.transports.on_network();
    assert_eq!((rig.transports.udp_works(), rig.outputs()), (None, vec![Output::Survey(Why::Retry(0))]));
    rig.survey(at(900_000), Why::Retry(0), &Survey::default());
    assert_eq!(rig.outputs(), [], "no link is over TCP any more");
}

#[test]
fn a_connection_that_breaks_is_opened_again_only_if_it_was_sound() {
    for (lived_ms, is_sound) in [(4_000, false), (6_000, true)] {
        let mut rig = Rig::blocked();
        let now = at(50 + lived_ms);
        rig.transports.on_closed(TCP);
        let outputs = rig.outputs();
        let [Output::RemovePath { peer: KEY, route }, Output::Abandon(lost)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(*route, over(TCP));
        rig.transports.on_abandoned(now, lost, &link(true, None));
        let outputs = rig.outputs();
        if is_sound {
            assert_eq!(outputs[0], Output::ChallengeUdp { peer: KEY, udp: udp(1) });
            assert!(matches!(outputs[1..], [Output::Open { .. }]));
        } else {
            assert_eq!(outputs, [Output::GiveUp(peer(1))]);
        }
    }
}

#[test]
fn connections_end_that_are_bare_or_twice_not_in_use() {
    let mut rig = Rig::blocked();
    let look = Output::Look { socket: TCP, peer: KEY, route: over(TCP) };
    let mut now = at(50) + BARE_MAX;
    for (used, is_kept) in [(Use::Current, true), (Use::Spare, true), (Use::Spare, false)] {
        assert!(rig.due(now).contains(&look));
        rig.transports.on_looked_at(now, TCP, used);
        let outputs = rig.outputs();
        assert_eq!(outputs.first() != Some(&Output::Close(TCP)), is_kept, "{outputs:?}");
        now += LOOK_EVERY;
    }
    assert_eq!(rig.transports.len(), (0, 0));
    // Nobody's link.
    let mut rig = Rig::default();
    rig.transports.set_serving(true);
    rig.transports.on_accepted(at(0), TCP, udp(9));
    assert_eq!(rig.outputs(), []);
    assert_eq!(rig.due(at(0) + BARE_MAX), [Output::Close(TCP)]);
}

#[test]
fn supernodes_take_connections_and_leaves_open_them() {
    let mut rig = Rig::default();
    rig.transports.on_accepted(at(0), TCP, udp(9));
    assert_eq!(rig.outputs(), [Output::Refuse(TCP)], "we are a leaf");
    rig.transports.set_serving(true);
    rig.transports.on_asked(at(0));
    rig.transports.on_silent(at(0), &link(true, Some(over(SocketId(0)))));
    assert_eq!((rig.transports.poll_timeout(), rig.outputs()), (None, Vec::new()));
    rig.transports.leave();
    rig.transports.on_accepted(at(0), TCP, udp(9));
    assert_eq!(rig.outputs(), [Output::Refuse(TCP)], "we leave");
}

#[test]
fn what_came_back_over_udp_meanwhile_needs_no_connection() {
    let mut rig = Rig::default();
    rig.transports.on_silent(at(0), &link(true, Some(over(SocketId(0)))));
    let request = rig.opened()[0].0;
    assert_eq!(rig.transports.dialled(request), Some(peer(1)));
    assert!(rig.transports.is_opening(&peer(1)));
    rig.transports.on_silent(at(10), &link(true, Some(over(SocketId(0)))));
    assert_eq!(rig.opened(), [], "one at a time");
    rig.transports.on_opened(at(50), request, Ok(TCP), Some(at(20)));
    assert_eq!(rig.outputs(), [Output::Close(TCP)]);
    assert_eq!(rig.transports.len(), (0, 0));
}

#[test]
fn only_supernodes_are_reached_by_tcp() {
    let mut rig = Rig::default();
    let leaf = Link { is_supernode: false, ..link(true, Some(over(SocketId(0)))) };
    rig.transports.on_silent(at(0), &leaf);
    assert_eq!(rig.outputs(), []);
}

#[test]
fn who_was_given_up_goes_unless_a_link_has_another_way() {
    let mut rig = Rig::default();
    let outcomes =
        [(false, false, vec![Output::Unreachable(KEY)]), (true, true, vec![Output::Drop(KEY)]), (true, false, vec![])];
    for (is_up, is_stranded, expected) in outcomes {
        rig.transports.on_given_up(&Tried { key: KEY, is_up, is_stranded });
        assert_eq!(rig.outputs(), expected);
    }
}
