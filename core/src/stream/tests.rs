//! The machine of the room with nothing around it: two of them, driven as nodes would.

use core::time::Duration;

use super::operations::{Ends, id, name};
use crate::api::{Access, Event, Read, StreamEnd, StreamError};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: usize = 0;
const SERVER: usize = 1;

fn incoming(ends: &Ends, end: usize) -> usize {
    ends.both[end].events.iter().filter(|event| matches!(event, Event::StreamIncoming { .. })).count()
}

#[test]
fn a_stream_goes_both_ways_and_leaves_nothing() {
    let mut ends = Ends::new();
    ends.both[SERVER].streams.offer(name("x"), Access::Any).expect("room");
    // Whoever opens it: a server has its client called.
    for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        ends.both[to].streams.offer(name("x"), Access::Any).expect("room");
        let here = ends.open(from, 0, "x");
        let now = ends.now;
        assert_eq!(ends.both[from].streams.write(now, here, b"hello"), Ok(5));
        ends.both[from].streams.finish(now, here).expect("once");
        ends.run(SECOND);
        let there = ends.both[to].open.pop().expect("it came in");
        let (now, other) = (ends.now, &mut ends.both[to].streams);
        other.accept(now, there).expect("unanswered");
        let mut buf = [0; 10];
        assert_eq!(other.read(now, there, &mut buf), Ok(Read::Bytes(5)));
        assert_eq!(other.read(now, there, &mut buf), Ok(Read::End));
        other.finish(now, there).expect("once");
        ends.run(SECOND);
        let now = ends.now;
        assert_eq!(ends.both[from].streams.read(now, here, &mut buf), Ok(Read::End));
        ends.run(SECOND);
        assert_eq!(ends.both[from].streams.read(ends.now, here, &mut buf), Err(StreamError::Unknown));
        ends.both[from].open.clear();
    }
    ends.run(200 * SECOND);
    for end in &mut ends.both {
        let key = end.key(0);
        assert_eq!(end.streams.poll_timeout_of(key), None, "a connection without streams goes");
    }
}

#[test]
fn nothing_is_open_to_a_peer_one_word() {
    // Whichever end of the link is refused.
    for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        let mut ends = Ends::new();
        let streams = [0, 0, 1].map(|link| ends.open(from, link, "x"));
        ends.run(SECOND);
        for stream in streams {
            let end = StreamEnd::NotAllowed;
            assert!(ends.both[from].events.contains(&Event::StreamEnded { stream, end }), "{from}");
        }
        let refuser = &ends.both[to];
        assert!(refuser.events.is_empty() && (0..2).all(|link| !refuser.streams.has_quic(refuser.key(link))));
        assert!(ends.sent[to].0 <= 4 && ends.sent[to].1 <= ends.sent[from].1, "{:?}", ends.sent);
        let before = ends.sent;
        ends.run(600 * SECOND);
        assert_eq!(ends.sent, before, "nothing waits half alive");
        assert!(ends.both.iter().all(|end| !end.streams.has_quic(end.key(0))));
        // As soon as something is open, it is.
        ends.both[to].streams.offer(name("x"), Access::Peers([id(0)].into())).expect("room");
        ends.open(from, 0, "x");
        ends.open(from, 1, "x");
        ends.run(SECOND);
        assert_eq!(incoming(&ends, to), 1);
        assert!(!ends.both[to].streams.has_quic(ends.both[to].key(1)));
    }
}

#[test]
fn what_runs_stays_when_a_service_is_withdrawn() {
    let mut ends = Ends::new();
    ends.both[SERVER].streams.offer(name("x"), Access::Any).expect("room");
    let here = ends.open(CLIENT, 0, "x");
    ends.run(SECOND);
    ends.both[SERVER].streams.withdraw(&name("x"));
    let there = ends.both[SERVER].open.pop().expect("it came in");
    ends.both[SERVER].streams.accept(ends.now, there).expect("unanswered");
    ends.run(SECOND);
    assert!(ends.both[CLIENT].events.contains(&Event::StreamOpened { stream: here }));
    assert_eq!(ends.both[CLIENT].streams.write(ends.now, here, b"hello"), Ok(5));
    ends.run(SECOND);
    assert_eq!(ends.both[SERVER].streams.read(ends.now, there, &mut [0; 10]), Ok(Read::Bytes(5)));
}
