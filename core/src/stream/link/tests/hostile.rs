//! A peer that does not play by the rules. The link has authenticated it, and nothing else: what it sends may be
//! anything. It may break its own streams; it may not make us panic, spin, or hold more than the limits say.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A pair in one of several states, with packets that were really sent to either end.
fn in_state(state: u8) -> (Pair, Vec<Vec<u8>>) {
    let mut pair = Pair::new(u64::from(state));
    pair.packet_len_max = PACKET_LEN_MIN as usize;
    for app in &mut pair.apps {
        app.services.insert(name("x"), bytes(3, 20_000));
    }
    let mut seen = Vec::new();
    if state > 0 {
        pair.open(if state.is_multiple_of(2) { CLIENT } else { SERVER }, "x", bytes(4, 30_000));
        pair.apps[SERVER].lazy = state > 6;
        for _ in 0..u32::from(state) * 4 {
            pair.step(pair.now + SECOND);
            seen.extend(pair.wire.values().map(|(_, packet)| packet.clone()));
        }
    }
    if seen.is_empty() {
        seen.push(vec![0]);
    }
    (pair, seen)
}

/// One thing that a hostile peer does.
#[derive(Clone, Debug)]
enum Act {
    /// Any bytes.
    Junk(Vec<u8>),
    /// Frames, as one would write them, in a packet of the present connection.
    Frames { kind: u8, number: u8, frames: Vec<u8> },
    /// Something that was really sent, with some bytes changed, perhaps with the mark of the present connection.
    Bent { which: usize, changes: Vec<(usize, u8)>, mark: bool },
    /// Time passes.
    Wait(u16),
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    // Frame types that there are, with small fields, so that many make sense.
    let field = prop_oneof![0u8..8, Just(0x40), Just(0x7f), any::<u8>()];
    (0u8..0x32, prop::collection::vec(field, 0..24)).prop_map(|(kind, mut fields)| {
        fields.insert(0, kind);
        fields
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1400).prop_map(Act::Junk),
        (0u8..4, any::<u8>(), prop::collection::vec(frame(), 1..6)).prop_map(|(kind, number, frames)| Act::Frames {
            kind,
            number,
            frames: frames.concat()
        }),
        (any::<usize>(), prop::collection::vec((any::<usize>(), any::<u8>()), 0..6), any::<bool>())
            .prop_map(|(which, changes, mark)| Act::Bent { which, changes, mark }),
        (0u16..5000).prop_map(Act::Wait),
    ]
}

/// The packet that an act makes for `end`.
fn packet(pair: &Pair, seen: &[Vec<u8>], end: usize, act: &Act) -> Vec<u8> {
    let epoch = pair.ends[end].conn.as_ref().map_or(0, |conn| conn.epoch.0);
    let mark = &epoch.to_be_bytes()[4..];
    match act {
        Act::Junk(junk) => junk.clone(),
        Act::Wait(_) => vec![0],
        Act::Bent { which, changes, mark: marked } => {
            let mut packet = seen[which % seen.len()].clone();
            for (at, to) in changes {
                let at = at % packet.len();
                packet[at] = *to;
            }
            if let Some(tail) = packet.last_chunk_mut::<6>().filter(|_| *marked) {
                tail[..4].copy_from_slice(mark);
            }
            packet
        }
        Act::Frames { kind: 3, number, frames } => {
            [&[0x40, *number][..], frames, &[0; 4], mark, &u16::from(*number).to_be_bytes()].concat()
        }
        Act::Frames { kind, number, frames } => {
            // Long headers: Initial, 0-RTT, Handshake, with connection ids as client or server would name them.
            let mut packet = vec![0xc0 | kind << 4];
            packet.extend(0x6866_0001u32.to_be_bytes());
            if end == SERVER && *kind < 2 {
                packet.push(8);
                packet.extend((epoch + u64::from(number & 1)).to_be_bytes());
            } else {
                packet.push(0);
            }
            packet.push(0);
            if *kind == 0 {
                packet.push(0);
            }
            let len = 1 + frames.len() + 4 + 6;
            packet.extend((0x4000 | len as u16).to_be_bytes());
            packet.push(*number);
            packet.extend_from_slice(frames);
            packet.extend_from_slice(&[0; 4]);
            packet.extend_from_slice(mark);
            packet.extend(u16::from(*number).to_be_bytes());
            if *kind == 0 && packet.len() < 1200 {
                packet.resize(1200, 0);
            }
            packet
        }
    }
}

/// All is drained; nothing is due any more.
fn check(pair: &mut Pair, end: usize) {
    let streams = &mut pair.ends[end];
    let mut buf = Vec::new();
    for _ in 0..1000 {
        while let Some(event) = streams.poll_event() {
            if let LinkEvent::Incoming { stream, .. } = event {
                let _ = streams.accept(pair.now, stream);
                let _ = streams.write(pair.now, stream, b"what");
            }
        }
        if streams.poll_transmit(pair.now, 10, 1300, &mut buf).is_none() {
            break;
        }
    }
    assert!(streams.poll_transmit(pair.now, 10, 1300, &mut buf).is_none(), "it never ends");
    assert!(streams.set.len() <= 2 * STREAMS_MAX as usize && streams.set.attached() <= streams.set.len());
    assert!(streams.words.len() <= WORDS_MAX);
    for _ in 0..20 {
        if streams.poll_timeout().is_none_or(|at| at > pair.now) {
            return;
        }
        streams.handle_timeout(pair.now);
        while streams.poll_transmit(pair.now, 10, 1300, &mut buf).is_some() {}
    }
    panic!("a deadline that does not go away");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_comes_in_does_harm(state in 0u8..12, end in 0usize..2, acts in prop::collection::vec(act(), 1..40)) {
        let (mut pair, seen) = in_state(state);
        for act in &acts {
            if let Act::Wait(ms) = act {
                pair.now += Duration::from_millis(u64::from(*ms));
                pair.ends[end].handle_timeout(pair.now);
            } else {
                let packet = packet(&pair, &seen, end, act);
                pair.ends[end].handle_packet(pair.now, &packet);
            }
            check(&mut pair, end);
        }
        // Whatever broke, the node can go on with a new connection.
        let service = name("after");
        let opened = pair.ends[end].open(pair.now, &service);
        prop_assert!(opened.is_ok() || opened == Err(StreamError::Blocked));
        check(&mut pair, end);
    }
}

/// Packets as a peer's own quinn makes them, but with a header that is none.
fn raw_stream(first_bytes: &[u8]) -> Pair {
    let mut pair = Pair::new(1);
    let (now, client) = (pair.now, &mut pair.ends[CLIENT]);
    let stream = client.open(now, &name("x")).expect("room");
    // Beneath the API, on a stream of QUIC's own.
    let quic = &mut client.conn.as_mut().expect("a client connects at once").quic;
    let id = quic.streams().open(Dir::Bi).expect("room");
    assert_eq!(quic.send_stream(id).write(first_bytes), Ok(first_bytes.len()));
    client.stop(now, stream, 0).expect("open");
    client.reset(now, stream, 0).expect("open");
    pair.run_for(Duration::from_secs(5));
    pair
}

#[test]
fn a_header_that_is_none_ends_the_stream_unheard() {
    for header in [&[0][..], &[33], &[255, 1, 2], &[3, b'A', b'B', b'C'], &[2, 0xff, 0xff], &[1, b'-']] {
        let pair = raw_stream(header);
        assert!(pair.apps[SERVER].incoming.is_empty(), "{header:?}");
        assert!(pair.ends[SERVER].is_idle(), "{header:?}");
        assert_eq!(pair.apps[CLIENT].lost + pair.apps[SERVER].lost, 0);
    }
    // Half of one waits, and not for ever; the link is not in use for it.
    let mut pair = raw_stream(&[5, b's', b's']);
    assert!(pair.apps[SERVER].incoming.is_empty() && !pair.ends[SERVER].is_idle());
    assert!(!pair.ends[SERVER].is_in_use());
    pair.run_for(NAME_WAIT - Duration::from_secs(10));
    assert!(!pair.ends[SERVER].is_idle());
    pair.run_for(Duration::from_secs(10));
    assert!(pair.ends[SERVER].is_idle() && pair.apps[SERVER].incoming.is_empty());
}

#[test]
fn an_answer_that_is_none_ends_the_stream() {
    let mut pair = Pair::new(2);
    let stream = pair.open(CLIENT, "x", Vec::new());
    pair.drain();
    let mut buf = Vec::new();
    while let Some(((at, _), (to, packet))) = pair.wire.pop_first() {
        pair.now = at;
        pair.ends[to].handle_packet(at, &packet);
    }
    let quic = &mut pair.ends[SERVER].conn.as_mut().expect("it came").quic;
    let id = StreamId::new(quinn_proto::Side::Client, Dir::Bi, 0);
    assert_eq!(quic.send_stream(id).write(&[7, 7, 7]), Ok(3));
    while pair.ends[SERVER].poll_transmit(pair.now, 1, 1200, &mut buf).is_some() {
        pair.ends[CLIENT].handle_packet(pair.now, &buf);
    }
    pair.drain();
    assert_eq!(pair.apps[CLIENT].ended[&stream], StreamEnd::Unavailable);
    assert!(pair.apps[CLIENT].opened.is_empty());
}

#[test]
fn a_connection_that_the_peer_breaks_ends_its_streams_and_no_more() {
    let mut pair = Pair::new(3);
    pair.apps[SERVER].services.insert(name("x"), bytes(1, 100));
    pair.apps[CLIENT].lazy = true;
    let stream = pair.open(CLIENT, "x", Vec::new());
    pair.run_for(SECOND);
    // A frame that there is not, in an otherwise good packet.
    let mark = pair.ends[CLIENT].conn.as_ref().expect("open").mark();
    let packet = [&[0x40, 0x70, 0x3f, 0, 0, 0][..], &mark.0, &[0, 0x70]].concat();
    pair.ends[CLIENT].handle_packet(pair.now, &packet);
    pair.run_for(SECOND);
    assert_eq!(pair.apps[CLIENT].lost, 1);
    assert_eq!(pair.apps[CLIENT].ended[&stream], StreamEnd::PeerGone);
    assert!(pair.ends.iter().all(LinkStreams::is_disposable), "the goodbye reached the server");
    pair.apps[CLIENT].lazy = false;
    let stream = pair.open(CLIENT, "x", Vec::new());
    pair.run_for(SECOND);
    assert_eq!(pair.apps[CLIENT].received[&stream].len(), 100);
}

#[test]
fn floods_of_initials_and_streams_are_bounded() {
    let mut pair = Pair::new(4);
    pair.apps[SERVER].lazy = true;
    for i in 0..STREAMS_MAX {
        pair.apps[SERVER].services.insert(name(&format!("s{i}")), vec![1]);
        pair.open(CLIENT, &format!("s{i}"), vec![2]);
    }
    // Each Initial with a later epoch takes the place of the one before.
    let mut first_flight = None;
    pair.drain();
    for (_, packet) in pair.wire.values() {
        first_flight = first_flight.or(Some(packet.clone()));
    }
    let first_flight = first_flight.expect("an Initial");
    for epoch in 0..1000u64 {
        let mut packet = first_flight.clone();
        packet[6..14].copy_from_slice(&(2_000_000 + epoch).to_be_bytes());
        pair.ends[SERVER].handle_packet(pair.now, &packet);
        check(&mut pair, SERVER);
        assert!(pair.ends[SERVER].set.len() <= STREAMS_MAX as usize);
    }
}
