//! One peer, with nothing around it.

use core::net::SocketAddr;
use core::time::Duration;

use super::state::{DORMANT_AFTER, Peer, USER_IDLE_MAX};
use super::traffic::Traffic;
use super::ways::{Arrived, Heard};
use crate::identity::SecretKey;
use crate::keepalive::{BEAT_INTERVAL, Duty, Pace};
use crate::net::{PeerKey, SocketId};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::packet::ChannelId;

const RELAY: PeerKey = PeerKey { index: 9, generation: 1 };

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn direct(n: u8) -> Route {
    Route::Direct { socket: SocketId(0), remote: SocketAddr::from(([198, 51, 100, n], 4_000)) }
}

const RELAYED: Route = Route::Relayed { channel: ChannelId([1; 6]), via: RELAY };

fn peer(duty: Duty) -> Peer {
    Peer::new(at(0), SecretKey::from_bytes(&[1; 32]).peer_id(), duty)
}

/// A peer with these proven paths, of which it uses the best; with user traffic.
fn user(routes: &[Route]) -> Peer {
    let mut peer = peer(Duty::Binding);
    peer.traffic = Some(Box::new(Traffic::new(at(0))));
    for route in routes {
        peer.paths.on_handshake(at(0), *route);
    }
    peer.choose(at(0));
    peer
}

fn arrived(route: Route) -> Arrived {
    Arrived { route, local: None, newest: true, asks: false }
}

#[test]
fn what_a_packet_shows_depends_on_the_way_that_it_came() {
    let calm = Heard::default();
    let stranger = Heard { unproven: true, challenge: Some(direct(2)), ..calm };
    // Paths that are proven, where the packet comes from, and what is to be done.
    let table: [(&str, &[Route], Arrived, Heard); 5] = [
        ("on the path in use", &[direct(1)], arrived(direct(1)), calm),
        ("from a new address, which is asked", &[direct(1)], arrived(direct(2)), stranger),
        (
            "from the relay, while a direct path is in use: does that still work?",
            &[direct(1), RELAYED],
            arrived(RELAYED),
            Heard { challenge: Some(direct(1)), ..calm },
        ),
        ("directly, while only the relay is proven", &[RELAYED], arrived(direct(2)), stranger),
        (
            "an older one from the relay says nothing",
            &[direct(1), RELAYED],
            Arrived { newest: false, ..arrived(RELAYED) },
            calm,
        ),
    ];
    for (what, proven, packet, expected) in table {
        let mut peer = user(proven);
        assert_eq!(peer.on_arrived(at(2_000), &packet), Some(expected), "{what}");
    }
}

#[test]
fn an_answer_after_trouble_is_told_and_a_question_is_none() {
    for asks in [false, true] {
        let mut peer = user(&[direct(1)]);
        peer.detector.on_sent(at(0));
        assert!(peer.detector.handle_timeout(at(1_000)).is_some(), "the path is probed");
        let heard = peer.on_arrived(at(1_500), &Arrived { asks, ..arrived(direct(1)) });
        assert_eq!(heard.map(|h| h.recovered), Some(!asks), "a question may come although nothing of ours arrives");
        assert_eq!(peer.detector.is_troubled(), asks);
    }
}

#[test]
fn one_that_is_heard_from_ever_new_addresses_is_looked_at_a_few_times() {
    let mut peer = user(&[direct(1)]);
    let looked_at = (10..100).filter(|n| peer.on_arrived(at(100), &arrived(direct(*n))).is_some()).count();
    assert!((1..=20).contains(&looked_at), "{looked_at}");
    assert_eq!(peer.paths.current(), Some(direct(1)));
}

#[test]
fn choosing_says_what_changed_and_only_then() {
    let mut peer = user(&[RELAYED]);
    assert_eq!(peer.choose(at(1)), None);
    peer.paths.on_handshake(at(2), direct(1));
    let chosen = peer.choose(at(2)).expect("a direct path is better");
    assert_eq!((chosen.new, chosen.is_first), (Some(direct(1)), false));
    assert_eq!(peer.direct_path().map(|path| path.remote), direct(1).remote());
    peer.on_silence(at(3));
    assert_eq!(peer.choose(at(3)).and_then(|chosen| chosen.new), Some(RELAYED));
    assert_eq!(peer.direct_path(), None);
}

#[test]
fn routers_are_kept_open_only_where_one_may_forget_us() {
    let table = [
        ("behind a router", Pace::UNKNOWN, direct(1), Duty::Binding),
        ("in public", Pace::OPEN, direct(1), Duty::Liveness),
        ("through a relay, whose link has beats of its own", Pace::UNKNOWN, RELAYED, Duty::Liveness),
    ];
    for (what, pace, route, expected) in table {
        let peer = user(&[route]);
        assert_eq!(peer.duty_at(at(1), pace), expected, "{what}");
        assert_eq!(peer.duty_at(at(0) + DORMANT_AFTER, pace), Duty::None, "a session that nobody uses: {what}");
    }
}

#[test]
fn a_session_that_nobody_uses_sleeps_and_wakes_with_its_direct_paths_in_doubt() {
    let mut peer = user(&[direct(1), RELAYED]);
    assert!(!peer.is_dormant(at(0)) && peer.is_dormant(at(0) + DORMANT_AFTER));
    assert!(!peer.is_asleep(at(0) + DORMANT_AFTER), "it has no keys");
    assert_eq!(peer.doubt_direct(), [direct(1)]);
    assert_eq!(peer.choose(at(1)).and_then(|chosen| chosen.new), Some(RELAYED), "until it has answered");
    assert!(USER_IDLE_MAX > DORMANT_AFTER + BEAT_INTERVAL);
}

#[test]
fn bytes_are_counted_by_the_way_that_they_take() {
    let mut peer = user(&[direct(1), RELAYED]);
    peer.on_sealed(at(1), &direct(1), 100, true);
    peer.on_sealed(at(1), &RELAYED, 10, false);
    peer.on_authentic(at(1), &RELAYED, 1);
    assert_eq!((peer.tx_bytes, peer.rx_bytes, peer.relayed_bytes), (110, 1, 11));
    assert!(peer.detector.poll_timeout().is_some(), "an answer is awaited on the path in use");
    let mut peer = user(&[direct(1), RELAYED]);
    peer.on_sealed(at(1), &RELAYED, 10, true);
    assert_eq!(peer.detector.poll_timeout(), None, "and on no other");
}

#[test]
fn more_than_half_of_what_a_relay_carries_is_bulk() {
    let one_second = Duration::from_secs(1);
    for (bytes, expected) in [(100_000, false), (200_000, true)] {
        let mut peer = user(&[direct(1)]);
        peer.on_sealed(at(1), &direct(1), bytes, false);
        peer.judge_bulk(at(0) + one_second);
        assert_eq!(peer.traffic.as_ref().map(|t| t.bulk.2), Some(expected), "{bytes} bytes in a second");
    }
}
