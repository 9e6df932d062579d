//! What nodes weigh: bytes on the heap, counted by the allocator.
//!
//! A node is weighed by dropping it and seeing how many bytes come free on this thread. What C code behind the
//! cryptography allocates for itself is not seen here.
//!
//! The counting allocator is the one place of the workspace with `unsafe`: `GlobalAlloc` cannot be implemented
//! without. It only counts and hands every call on to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use handfast_core::internal::{LinkEvent, LinkStreams, PACKET_LEN_MIN, Side};
use handfast_core::{Access, Instant, Path, Received, SocketId};
use handfast_tests::stranger::{Forger, Stranger, stream_frame};
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // After a thread's locals are gone nobody counts any more.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
    if bytes > 0 {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    }
}

// SAFETY: every call goes to `System` unchanged; the counters are plain thread-local cells that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> isize {
    LIVE.with(Cell::get)
}

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// Bytes that a host's node holds, itself included: the world has it in a box.
fn weigh(w: &mut World, host: HostId) -> usize {
    let before = live();
    w.hosts[host.0].node = None;
    usize::try_from(before - live()).expect("dropping frees")
}

#[test]
fn an_idle_leaf_weighs_16_kib() {
    let (mut w, a, _) = World::pair(1, NatSpec::port_restricted(), NatSpec::port_restricted());
    w.run_for(secs(600));
    assert!(w.has_homes(a, 2));
    let weight = weigh(&mut w, a);
    eprintln!("idle leaf: {weight} bytes");
    assert!(weight <= 16 * 1024, "{weight} bytes");
}

#[test]
fn a_leaf_gives_back_what_its_streams_took() {
    let (mut w, a, b) = World::pair(2, NatSpec::port_restricted(), NatSpec::port_restricted());
    let transfers: Vec<_> = (0..20).map(|_| w.transfer(a, b, 100_000, 100_000)).collect();
    w.finish("transfers", secs(60), &transfers);
    // An idle QUIC connection is dropped after a minute; the link itself may stay.
    w.run_for(secs(900));
    let weight = weigh(&mut w, a);
    eprintln!("leaf after 20 streams: {weight} bytes");
    assert!(weight <= 32 * 1024, "{weight} bytes");
}

#[test]
fn a_registered_leaf_costs_its_supernode_1_kib() {
    let weight = |leaves: usize| {
        let mut w = World::new(3);
        let s = w.add_supernode();
        let all: Vec<HostId> = (0..leaves).map(|_| w.add_leaf(Place::Public)).collect();
        w.settle_homes(&all);
        // Old key epochs, handshake state and the leaves' measurements of their routers are gone after that.
        w.run_for(secs(900));
        assert_eq!(w.status(s).leaves, leaves);
        weigh(&mut w, s)
    };
    let (few, many) = (weight(64), weight(320));
    let each = (many - few) / 256;
    eprintln!("registered leaf: {each} bytes");
    assert!(each <= 1023, "{each} bytes");
}

#[test]
fn forwarding_allocates_nothing() {
    let mut w = World::new(4);
    let s = w.add_supernode_with(|c| {
        c.relay_rate_bps = 0;
        c.relay_quota_bytes = 0;
    });
    let (a, b) = (w.add_leaf_behind(NatSpec::fully_dependent()), w.add_leaf_behind(NatSpec::fully_dependent()));
    w.settle_homes(&[a, b]);
    w.capture(s);
    let t = w.transfer(a, b, 20_000, 0);
    w.finish("a relayed transfer", secs(20), &[t]);
    let packet = w.captured(s).iter().rfind(|p| !p.outbound && p.kind() == 5).cloned().expect("relayed");
    let stride = packet.bytes.len();
    let mut train = packet.bytes.repeat(16);
    let now = w.now();
    let path = Path { socket: SocketId(0), remote: packet.remote, local: Some(w.ip(s)) };
    let node = w.hosts[s.0].node.as_mut().expect("up");
    let mut forwarded = 0;
    let before = calls();
    for _ in 0..100 {
        let (used, verdict) = node.handle_datagrams(now, path, stride, &mut train);
        if let Received::Forward { range, .. } = verdict {
            forwarded += usize::from(range.len() == train.len() && used == train.len());
        }
    }
    let allocated = calls() - before;
    assert_eq!(forwarded, 100, "whole trains, each in one verdict");
    assert_eq!(allocated, 0);
}

#[test]
fn a5_packets_of_strangers_allocate_nothing() {
    let mut w = World::new(5);
    let s = w.add_supernode();
    w.run_for(secs(10));
    let now = w.now();
    let node = w.hosts[s.0].node.as_mut().expect("up");
    let mut buf = [0u8; 1300];
    let before = calls();
    let mut dropped = 0;
    for n in 0..20_000usize {
        let len = n % 1300 + 1;
        let packet = &mut buf[..len];
        for (at, byte) in packet.iter_mut().enumerate() {
            *byte = (n * 31 + at * 7) as u8;
        }
        packet[0] = (n % 10) as u8;
        if len > 1 && packet[0] == 1 {
            packet[1] = 1;
        }
        let remote = ([91, (n >> 8) as u8, n as u8, 1], 1000).into();
        let path = Path { socket: SocketId(0), remote, local: None };
        let (_, verdict) = node.handle_datagrams(now, path, len, packet);
        dropped += usize::from(matches!(verdict, Received::Dropped(_)));
    }
    let allocated = calls() - before;
    assert_eq!(dropped, 20_000);
    assert_eq!(allocated, 0, "allocations for packets from unproven sources");
}

/// What strangers do who are refused: everything that once made a node hold something for them.
fn pester(w: &mut World, stranger: &mut Stranger) {
    // Another connection, since QUIC does not bear to hear of the packets that were forged in the last one.
    stranger.forget(w.now());
    let service = "x".parse().expect("a service name");
    for _ in 0..4 {
        if let Ok(stream) = stranger.quic.open(w.now(), &service) {
            let _ = stranger.quic.write(w.now(), stream, &[1; 5_000]);
        }
    }
    for _ in 0..4 {
        stranger.turn(w);
        w.run_for(ms(100));
    }
    // Streams whose first byte never comes, beside those that its QUIC has opened.
    for n in 0..60 {
        let frame = stream_frame(12 + n % 20, 1 + n / 20 * 1_000, &[7; 1_000]);
        let packet = stranger.forger.packet(&frame);
        stranger.send(w, &packet);
    }
    // A Call, a Rest, a Refused, junk.
    for plain in [&[0][..], &[2, 1, 2, 3, 4], &[4, 1, 2, 3, 4], &[0x41; 40], &[0xc0; 200], &[9, 9]] {
        stranger.send(w, plain);
    }
}

#[test]
fn h9_a_refused_peer_costs_a_node_that_offers_nothing_4_kib() {
    let weight = |strangers: u8| {
        let mut w = World::new(9);
        let s = w.add_supernode_with(|c| {
            c.services.clear();
            c.contacts = Access::Peers([].into());
        });
        w.run_for(secs(10));
        let mut all: Vec<Stranger> = (0..strangers).map(|n| Stranger::connect(&mut w, s, n + 1)).collect();
        for _ in 0..60 {
            for stranger in &mut all {
                pester(&mut w, stranger);
            }
            w.run_for(secs(20));
        }
        for stranger in &all {
            let (sent, got) = (stranger.sent, stranger.got);
            assert!(got.0 > 60, "a refused peer is told so: {got:?}");
            assert!(got.0 <= sent.0 && got.1 <= sent.1, "{got:?} for {sent:?}");
        }
        assert_eq!(w.status(s).peers.len(), usize::from(strangers), "links live on while they are used");
        weigh(&mut w, s)
    };
    let (few, many) = (weight(2), weight(10));
    let each = many.saturating_sub(few) / 8;
    eprintln!("refused peer: {each} bytes");
    assert!(each <= 4096, "{each} bytes");
}

/// A client and a server of one link, and who writes packets of the client's connection.
struct Ends {
    now: Instant,
    links: [LinkStreams; 2],
    forger: Forger,
}

impl Ends {
    fn new() -> Self {
        let (now, origin) = (Instant::from_micros(1), std::time::Instant::now());
        let links = [Side::Client, Side::Server].map(|side| LinkStreams::new(now, origin, side, [1; 32]));
        let mut this = Self { now, links, forger: Forger::default() };
        let stream = this.links[0].open(now, &"x".parse().expect("a service name")).expect("room");
        this.run(secs(1));
        assert!(this.links[0].stop(this.now, stream, 0).is_err(), "it was refused, so both ends have a connection");
        this
    }

    /// Packets go to and fro; what is incoming is refused.
    fn run(&mut self, time: core::time::Duration) {
        let until = self.now + time;
        while self.now < until {
            for n in 0..2 {
                if self.links[n].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.links[n].handle_timeout(self.now);
                }
                let mut buf = Vec::new();
                while let Some(len) = self.links[n].poll_transmit(self.now, 1, usize::from(PACKET_LEN_MIN), &mut buf) {
                    for packet in buf.chunks(len) {
                        if n == 0 {
                            self.forger.saw(packet);
                        }
                        self.links[1 - n].handle_packet(self.now, packet);
                    }
                }
                while let Some(event) = self.links[n].poll_event() {
                    if let LinkEvent::Incoming { stream, .. } = event {
                        let _ = self.links[n].refuse(self.now, stream, handfast_core::StreamEnd::NotAllowed);
                    }
                }
            }
            self.now += ms(50);
        }
    }

    /// A forged packet comes to the server.
    fn forge(&mut self, frames: &[u8]) {
        let packet = self.forger.packet(frames);
        self.links[1].handle_packet(self.now, &packet);
    }
}

#[test]
fn h9_an_accepted_peer_holds_no_more_than_the_window_and_not_for_long() {
    let mut ends = Ends::new();
    let before = live();
    // All that flow control allows, on streams whose first byte never comes.
    for n in 0..31u64 {
        for at in 0..300 {
            ends.forge(&stream_frame(n + 1, 1 + at * 860, &[7; 860]));
        }
    }
    let held = live() - before;
    eprintln!("whole frames: {held} bytes");
    assert!((1_000_000..10_500_000).contains(&held), "{held} bytes");
    assert!(!ends.links[1].is_in_use(), "a link is not in use for such streams");
    ends.run(secs(70));
    let held = live() - before;
    eprintln!("after a minute: {held} bytes");
    assert!(held <= 200_000, "{held} bytes");
}

#[test]
fn h9_fragments_do_not_multiply_what_an_accepted_peer_holds() {
    // Single bytes with gaps between them, many in a packet and one in a packet.
    for (in_packet, packets) in [(80, 10), (1, 600)] {
        let mut ends = Ends::new();
        let before = live();
        let mut most = 0;
        for n in 0..200u64 {
            for packet in 0..packets {
                let frames: Vec<u8> =
                    (0..in_packet).flat_map(|i| stream_frame(n + 1, 1 + 2 * (packet * in_packet + i), &[7])).collect();
                ends.forge(&frames);
                most = most.max(live() - before);
            }
        }
        eprintln!("fragments, {in_packet} in a packet: {most} bytes");
        assert!((100_000..4_000_000).contains(&most), "{most} bytes");
    }
}
