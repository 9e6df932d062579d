//! How streams and connections end.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A pair with one accepted stream from the client, on which nothing was written: the stream at either end.
fn open_pair(seed: u64) -> (Pair, LocalStream, LocalStream) {
    let mut pair = Pair::new(seed);
    // Both write by hand.
    let near = pair.ends[CLIENT].open(pair.now, &name("x")).expect("room");
    let mut far = None;
    for _ in 0..20 {
        let mut buf = Vec::new();
        for end in [CLIENT, SERVER] {
            while let Some(n) = pair.ends[end].poll_transmit(pair.now, 1, 1200, &mut buf) {
                assert_eq!(n, buf.len());
                pair.send(end, &buf);
            }
        }
        if let Some(event) = pair.ends[SERVER].poll_event() {
            let LinkEvent::Incoming { stream, service } = event else { panic!("{event:?}") };
            assert_eq!(service, name("x"));
            far = Some(stream);
            break;
        }
        let Some(((at, _), (to, packet))) = pair.wire.pop_first() else { break };
        pair.now = at;
        pair.ends[to].handle_packet(at, &packet);
    }
    let far = far.expect("the stream came in");
    pair.ends[SERVER].accept(pair.now, far).expect("unanswered");
    pair.run_until(MINUTE, |pair| pair.apps[CLIENT].opened.contains(&near));
    // Until the handshake is confirmed, only some bytes are taken.
    pair.run_for(Duration::from_secs(1));
    (pair, near, far)
}

fn write(pair: &mut Pair, end: usize, stream: LocalStream, data: &[u8]) {
    assert_eq!(pair.ends[end].write(pair.now, stream, data), Ok(data.len()));
}

#[test]
fn half_close_leaves_the_other_half() {
    for finisher in [CLIENT, SERVER] {
        let (mut pair, near, far) = open_pair(1);
        let (early, late) = if finisher == CLIENT { (near, far) } else { (far, near) };
        let other = 1 - finisher;
        write(&mut pair, finisher, early, b"question");
        pair.ends[finisher].finish(pair.now, early).expect("open");
        pair.run_for(MINUTE * 3);
        assert_eq!(pair.apps[other].received[&late], b"question");
        assert_eq!(pair.apps[other].read_end[&late], Ok(Read::End));
        assert_eq!(pair.ends[finisher].write(pair.now, early, b"x"), Err(StreamError::Finished));
        assert_eq!(pair.ends[finisher].finish(pair.now, early), Err(StreamError::Finished));
        // Long after the end of one half, the other still carries.
        write(&mut pair, other, late, b"answer");
        pair.run_for(MINUTE);
        assert_eq!(pair.apps[finisher].received[&early], b"answer");
        pair.ends[other].finish(pair.now, late).expect("open");
        pair.run_until(MINUTE, Pair::all_over);
        assert_eq!(pair.apps[finisher].read_end[&early], Ok(Read::End));
        assert!(pair.apps.iter().all(|app| app.ended.is_empty() && app.stopped.is_empty()));
        assert_eq!(pair.ends[other].read(pair.now, late, &mut [0]), Err(StreamError::Unknown));
    }
}

#[test]
fn a_reset_ends_one_direction_only() {
    for resetter in [CLIENT, SERVER] {
        let (mut pair, near, far) = open_pair(2);
        let (mine, theirs) = if resetter == CLIENT { (near, far) } else { (far, near) };
        let other = 1 - resetter;
        write(&mut pair, resetter, mine, b"some");
        pair.ends[resetter].reset(pair.now, mine, 7).expect("open");
        assert_eq!(pair.ends[resetter].reset(pair.now, mine, 7), Err(StreamError::Finished));
        pair.run_for(MINUTE);
        let reset = StreamError::Ended(StreamEnd::Reset(7));
        assert_eq!(pair.apps[other].read_end[&theirs], Err(reset));
        assert_eq!(pair.ends[other].read(pair.now, theirs, &mut [0]), Err(reset), "asked again");
        write(&mut pair, other, theirs, b"still here");
        pair.ends[other].finish(pair.now, theirs).expect("open");
        pair.run_until(MINUTE, Pair::all_over);
        assert_eq!(pair.apps[resetter].received[&mine], b"still here");
        assert_eq!(pair.apps[resetter].read_end[&mine], Ok(Read::End));
        assert!(pair.apps.iter().all(|app| app.ended.is_empty()));
    }
}

#[test]
fn a_reset_that_nobody_reads_is_told_at_the_end() {
    let (mut pair, near, far) = open_pair(3);
    pair.apps[SERVER].lazy = true;
    pair.ends[SERVER].finish(pair.now, far).expect("open");
    pair.run_for(MINUTE);
    pair.ends[CLIENT].reset(pair.now, near, u32::MAX).expect("open");
    pair.run_until(MINUTE, Pair::all_over);
    assert_eq!(pair.apps[SERVER].ended[&far], StreamEnd::Reset(u32::MAX));
    assert!(pair.apps[CLIENT].ended.is_empty());
}

#[test]
fn a_stop_ends_one_direction_only() {
    for stopper in [CLIENT, SERVER] {
        let (mut pair, near, far) = open_pair(4);
        let (mine, theirs) = if stopper == CLIENT { (near, far) } else { (far, near) };
        let other = 1 - stopper;
        write(&mut pair, other, theirs, &bytes(1, 100_000));
        pair.ends[stopper].stop(pair.now, mine, 9).expect("open");
        assert_eq!(pair.ends[stopper].read(pair.now, mine, &mut [0]), Err(StreamError::Finished));
        pair.run_for(MINUTE);
        assert!(pair.apps[other].stopped.contains(&theirs));
        let stopped = Err(StreamError::Ended(StreamEnd::Reset(9)));
        assert_eq!(pair.ends[other].write(pair.now, theirs, b"x"), stopped);
        write(&mut pair, stopper, mine, b"you will hear me");
        pair.ends[stopper].finish(pair.now, mine).expect("open");
        pair.run_until(MINUTE, Pair::all_over);
        assert_eq!(pair.apps[other].received[&theirs], b"you will hear me");
        assert!(pair.apps.iter().all(|app| app.ended.is_empty()));
    }
}

#[test]
fn a_hard_close_is_a_reset_and_a_stop() {
    let (mut pair, near, far) = open_pair(5);
    pair.ends[CLIENT].reset(pair.now, near, 1).expect("open");
    pair.ends[CLIENT].stop(pair.now, near, 1).expect("open");
    assert!(pair.ends[CLIENT].is_idle());
    pair.run_until(MINUTE, Pair::all_over);
    assert!(pair.apps[SERVER].stopped.contains(&far) || pair.apps[SERVER].ended.contains_key(&far));
    assert!(pair.apps[SERVER].read_end.contains_key(&far) || pair.apps[SERVER].ended.contains_key(&far));
}

#[test]
fn a_refusal_says_why() {
    for why in [StreamEnd::UnknownService, StreamEnd::NotAllowed, StreamEnd::Unavailable] {
        for opener in [CLIENT, SERVER] {
            for loss in [0, 30] {
                let mut pair = Pair::new(6);
                pair.loss_percent = loss;
                let stream = pair.ends[opener].open(pair.now, &name("secret")).expect("room");
                let _ = pair.ends[opener].write(pair.now, stream, b"let me in");
                let other = 1 - opener;
                // Answered by hand: the harness would say "unknown service".
                let mut answered = false;
                for _ in 0..1000 {
                    let mut buf = Vec::new();
                    while let Some(event) = pair.ends[other].poll_event() {
                        let LinkEvent::Incoming { stream, .. } = event else { panic!("{event:?}") };
                        pair.ends[other].refuse(pair.now, stream, why).expect("unanswered");
                        assert_eq!(pair.ends[other].accept(pair.now, stream), Err(StreamError::Unknown));
                        answered = true;
                    }
                    if answered {
                        break;
                    }
                    for end in [CLIENT, SERVER] {
                        while pair.ends[end].poll_transmit(pair.now, 1, 1200, &mut buf).is_some() {
                            pair.send(end, &buf);
                        }
                    }
                    let mut next = pair.wire.keys().next().map(|(at, _)| *at);
                    for streams in &mut pair.ends {
                        next = earliest(next, streams.poll_timeout());
                    }
                    pair.now = next.expect("something to do");
                    while let Some(entry) = pair.wire.first_entry().filter(|entry| entry.key().0 <= pair.now) {
                        let (to, packet) = entry.remove();
                        pair.ends[to].handle_packet(pair.now, &packet);
                    }
                    for streams in &mut pair.ends {
                        streams.handle_timeout(pair.now);
                    }
                }
                assert!(answered && pair.ends[other].is_idle());
                pair.run_until(MINUTE, Pair::all_over);
                assert_eq!(pair.apps[opener].ended.get(&stream), Some(&why));
                assert!(pair.apps[opener].opened.is_empty());
                assert!(pair.apps[other].ended.is_empty());
            }
        }
    }
}

#[test]
fn calls_before_the_server_has_a_connection_are_kept() {
    let mut pair = Pair::new(7);
    pair.apps[CLIENT].services.insert(name("a"), b"1".to_vec());
    pair.apps[CLIENT].services.insert(name("b"), b"2".to_vec());
    pair.apps[CLIENT].services.insert(name("c"), b"3".to_vec());
    let now = pair.now;
    let server = &mut pair.ends[SERVER];
    let a = server.open(now, &name("a")).expect("room");
    assert_eq!(server.write(now, a, b"x"), Err(StreamError::Blocked));
    assert_eq!(server.read(now, a, &mut [0]), Ok(Read::Blocked));
    server.finish(now, a).expect("open");
    let b = server.open(now, &name("b")).expect("room");
    server.reset(now, b, 3).expect("open");
    server.stop(now, b, 3).expect("open");
    let c = server.open(now, &name("c")).expect("room");
    server.stop(now, c, 4).expect("open");
    server.finish(now, c).expect("open");
    pair.run_until(MINUTE, Pair::all_over);
    assert_eq!(pair.apps[SERVER].received[&a], b"1");
    assert_eq!(pair.apps[CLIENT].incoming.len(), 2, "b was over before it began");
    assert_eq!(pair.apps[CLIENT].stopped.len(), 1);
}

#[test]
fn an_idle_connection_is_dropped_and_the_next_stream_makes_another() {
    for opener in [CLIENT, SERVER, CLIENT] {
        let mut pair = Pair::new(8);
        for round in 0..3 {
            let service = format!("s{round}");
            pair.apps[1 - opener].services.insert(name(&service), b"back".to_vec());
            let stream = pair.open(opener, &service, b"there".to_vec());
            pair.run_until(MINUTE, Pair::all_over);
            assert_eq!(pair.apps[opener].received[&stream], b"back");
            pair.run_for(Duration::from_secs(55));
            assert!(pair.ends.iter().all(|end| end.conn.is_some()));
            let before = pair.sent;
            pair.run_for(Duration::from_secs(10));
            assert!(pair.ends.iter_mut().all(|end| end.is_disposable() && end.poll_timeout().is_none()));
            assert_eq!(pair.sent[CLIENT].0 + pair.sent[SERVER].0, before[CLIENT].0 + before[SERVER].0 + 2);
        }
        assert!(pair.apps.iter().all(|app| app.lost == 0 && app.ended.is_empty()));
    }
}

#[test]
fn an_idle_client_does_not_take_a_slow_readers_connection() {
    let mut pair = Pair::new(9);
    pair.apps[SERVER].services.insert(name("log"), Vec::new());
    pair.apps[SERVER].lazy = true;
    pair.open(CLIENT, "log", bytes(9, 10_000));
    pair.run_for(10 * MINUTE);
    assert!(pair.ends[CLIENT].is_idle() && !pair.ends[SERVER].is_idle());
    // The client opens another while the reader is still asleep.
    pair.apps[SERVER].services.insert(name("log2"), Vec::new());
    pair.open(CLIENT, "log2", bytes(9, 10_000));
    pair.run_for(MINUTE);
    pair.wake(SERVER);
    pair.run_until(MINUTE, Pair::all_over);
    assert_eq!(pair.apps[SERVER].received.values().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000]);
    assert!(pair.apps.iter().all(|app| app.lost == 0 && app.ended.is_empty()));
}

#[test]
fn lost_words_do_not_lose_streams() {
    // Whatever of the parting is lost, the next stream works.
    for opener in [CLIENT, SERVER] {
        for cut_from in [0, 59, 60] {
            let mut pair = Pair::new(10);
            for other in &mut pair.apps {
                other.services.insert(name("x"), b"back".to_vec());
            }
            pair.open(CLIENT, "x", Vec::new());
            pair.run_until(MINUTE, Pair::all_over);
            pair.run_for(Duration::from_secs(cut_from));
            pair.cut = true;
            pair.run_for(Duration::from_secs(2));
            pair.cut = false;
            let stream = pair.open(opener, "x", b"y".to_vec());
            pair.run_until(MINUTE, Pair::all_over);
            assert_eq!(pair.apps[opener].received[&stream], b"back", "{opener} {cut_from}");
            pair.run_for(3 * MINUTE);
            assert!(pair.ends.iter().all(LinkStreams::is_disposable), "{opener} {cut_from}");
            assert!(pair.apps.iter().all(|app| app.lost == 0 && app.ended.is_empty()));
        }
    }
}

#[test]
fn a_connection_that_one_end_lost_is_given_up_by_the_other() {
    for loser in [CLIENT, SERVER] {
        let (mut pair, near, far) = open_pair(11);
        let side = if loser == CLIENT { Side::Client } else { Side::Server };
        pair.ends[loser] = LinkStreams::new(pair.now, pair.ends[loser].origin, side, [77; 32]);
        let (end, stream) = if loser == CLIENT { (SERVER, far) } else { (CLIENT, near) };
        write(&mut pair, end, stream, b"are you there");
        pair.run_until(MINUTE, Pair::all_over);
        assert_eq!(pair.apps[end].ended[&stream], StreamEnd::PeerGone);
        assert_eq!(pair.apps[end].lost, 1);
        pair.apps[loser].services.insert(name("again"), b"yes".to_vec());
        let stream = pair.open(end, "again", Vec::new());
        pair.run_until(MINUTE, Pair::all_over);
        assert_eq!(pair.apps[end].received[&stream], b"yes");
    }
}

#[test]
fn close_ends_the_peers_streams() {
    for closer in [CLIENT, SERVER] {
        let (mut pair, near, far) = open_pair(12);
        pair.ends[closer].close(pair.now);
        pair.run_for(Duration::from_secs(1));
        let (other, stream) = if closer == CLIENT { (SERVER, far) } else { (CLIENT, near) };
        assert_eq!(pair.apps[other].ended[&stream], StreamEnd::PeerGone);
        assert!(pair.ends.iter().all(LinkStreams::is_disposable));
    }
}

#[test]
fn stragglers_of_an_earlier_connection_hit_nothing() {
    let mut pair = Pair::new(13);
    let mut old = Vec::new();
    for round in 0..3u64 {
        let service = format!("s{round}");
        pair.apps[SERVER].services.insert(name(&service), bytes(round, 5000));
        let stream = pair.open(CLIENT, &service, bytes(round + 100, 5000));
        pair.drain();
        // All that was ever sent comes again, in the middle of the new transfer.
        for (to, packet) in &old {
            let (to, packet): (&usize, &Vec<u8>) = (to, packet);
            pair.ends[*to].handle_packet(pair.now, packet);
        }
        while pair.step(pair.now + Duration::from_secs(1)) {
            old.extend(pair.wire.values().cloned());
        }
        assert_eq!(pair.apps[CLIENT].received[&stream], bytes(round, 5000));
        pair.run_for(3 * MINUTE);
    }
    assert!(old.len() > 50);
    assert!(pair.apps.iter().all(|app| app.lost == 0 && app.ended.is_empty()));
    assert_eq!(pair.apps[SERVER].incoming.len(), 3);
}

/// quinn's probe time-out stops growing, so on a link that could not send for a day it stayed in the past for good.
#[test]
fn regression_a_timer_that_does_not_advance() {
    let mut pair = Pair::new(5);
    pair.open_many(1, 100_000_000);
    pair.run_for(Duration::from_millis(300));
    let end = &mut pair.ends[CLIENT];
    let mut now = pair.now;
    for _ in 0..100 {
        now += Duration::from_secs(24 * 3600);
        end.handle_timeout(now);
        assert!(end.poll_timeout().is_none_or(|at| at > now));
    }
}
