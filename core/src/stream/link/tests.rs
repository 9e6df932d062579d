//! Two ends, one wire: a virtual clock, delay, loss and reordering, and applications that act on events only.

mod hostile;
mod lives;
mod switches;
mod transfers;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::api::Read;
use crate::random::ChoiceRng;
use crate::stream::PACKET_LEN_MAX;
use crate::stream::limits::STREAMS_MAX;
use crate::stream::set::NAME_WAIT;
use crate::stream::words::{CALL_AGAIN_MAX, WORDS_MAX};
use crate::wire::ServiceName;

const CLIENT: usize = 0;
const SERVER: usize = 1;

fn name(text: &str) -> ServiceName {
    text.parse().expect("a service name")
}

/// Bytes that depend on place and seed, so that any mix-up shows.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// What one end's application does and saw.
#[derive(Default)]
struct App {
    /// Services: the answer to each, which is written at once and finished.
    services: BTreeMap<ServiceName, Vec<u8>>,
    /// Bytes to write, how many were, and whether the end follows.
    outgoing: BTreeMap<LocalStream, (Vec<u8>, usize, bool)>,
    received: BTreeMap<LocalStream, Vec<u8>>,
    /// What `read` gave at last, where it was not bytes.
    read_end: BTreeMap<LocalStream, Result<Read, StreamError>>,
    incoming: Vec<(LocalStream, ServiceName)>,
    opened: BTreeSet<LocalStream>,
    stopped: BTreeSet<LocalStream>,
    ended: BTreeMap<LocalStream, StreamEnd>,
    lost: usize,
    /// Readable streams are left alone while this is set.
    lazy: bool,
    readable: BTreeSet<LocalStream>,
}

/// A stream that was opened, by which end, and what is to arrive each way.
struct Transfer {
    from: usize,
    stream: LocalStream,
    there: Vec<u8>,
    back: Vec<u8>,
}

struct Pair {
    now: Instant,
    ends: [LinkStreams; 2],
    apps: [App; 2],
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sequence: u64,
    rng: ChoiceRng,
    delay: Duration,
    jitter: Duration,
    loss_percent: u64,
    /// Bytes per second that each direction carries; 0 is any number. What would wait over 100 ms is dropped.
    rate: u64,
    busy_until: [Instant; 2],
    cut: bool,
    packet_len_max: usize,
    /// The longest that the wire carries, whatever the sender was told.
    wire_len_max: usize,
    longest: usize,
    sent: [(u64, u64); 2],
    trace: blake3::Hasher,
}

impl LinkStreams {
    /// Whether no stream is open.
    fn is_idle(&self) -> bool {
        self.set.is_empty()
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let now = Instant::from_micros(1_000_000);
        let origin = StdInstant::now_for_tests();
        Self {
            now,
            ends: [
                LinkStreams::new(now, origin, Side::Client, [seed as u8; 32]),
                LinkStreams::new(now, origin, Side::Server, [!seed as u8; 32]),
            ],
            apps: Default::default(),
            wire: BTreeMap::new(),
            sequence: 0,
            rng: ChoiceRng::new(blake3::derive_key("handfast test stream wire", &seed.to_le_bytes())),
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
            loss_percent: 0,
            rate: 0,
            busy_until: [now; 2],
            cut: false,
            packet_len_max: PACKET_LEN_MAX as usize,
            wire_len_max: PACKET_LEN_MAX as usize,
            longest: 0,
            sent: [(0, 0); 2],
            trace: blake3::Hasher::new(),
        }
    }

    fn open(&mut self, end: usize, service: &str, data: Vec<u8>) -> LocalStream {
        let stream = self.ends[end].open(self.now, &name(service)).expect("room for a stream");
        self.apps[end].outgoing.insert(stream, (data, 0, true));
        self.write(end, stream);
        stream
    }

    fn write(&mut self, end: usize, stream: LocalStream) {
        let Some((data, at, fin)) = self.apps[end].outgoing.get_mut(&stream) else { return };
        while *at < data.len() {
            match self.ends[end].write(self.now, stream, &data[*at..]) {
                Ok(n) => {
                    assert!(n > 0);
                    *at += n;
                }
                Err(StreamError::Blocked) => return,
                Err(error) => {
                    self.trace.update(format!("write {error:?}").as_bytes());
                    self.apps[end].outgoing.remove(&stream);
                    return;
                }
            }
        }
        if *fin {
            let _ = self.ends[end].finish(self.now, stream);
        }
        self.apps[end].outgoing.remove(&stream);
    }

    fn read(&mut self, end: usize, stream: LocalStream) {
        let mut buf = [0; 10_000];
        loop {
            match self.ends[end].read(self.now, stream, &mut buf) {
                Ok(Read::Bytes(n)) => {
                    assert!(n > 0);
                    self.apps[end].received.entry(stream).or_default().extend_from_slice(&buf[..n]);
                }
                Ok(Read::Blocked) => return,
                other => {
                    self.apps[end].read_end.insert(stream, other);
                    return;
                }
            }
        }
    }

    /// Lets both applications act on what they are told, and packets leave, until nothing happens any more.
    fn drain(&mut self) {
        loop {
            let mut calm = true;
            for end in [CLIENT, SERVER] {
                while let Some(event) = self.ends[end].poll_event() {
                    calm = false;
                    self.trace.update(format!("{end} {:?} {event:?}", self.now).as_bytes());
                    self.on_event(end, event);
                }
                let mut buf = Vec::new();
                while let Some(n) = self.ends[end].poll_transmit(self.now, 10, self.packet_len_max, &mut buf) {
                    calm = false;
                    assert!(!buf.is_empty() && n > 0 && buf.len().div_ceil(n) <= 10);
                    for packet in buf.chunks(n) {
                        self.send(end, packet);
                    }
                }
            }
            if calm {
                return;
            }
        }
    }

    fn on_event(&mut self, end: usize, event: LinkEvent) {
        let app = &mut self.apps[end];
        match event {
            LinkEvent::Incoming { stream, service } => {
                app.incoming.push((stream, service));
                match app.services.get(&service).cloned() {
                    Some(answer) => {
                        app.outgoing.insert(stream, (answer, 0, true));
                        self.ends[end].accept(self.now, stream).expect("an unanswered stream");
                        self.write(end, stream);
                    }
                    None => self.ends[end]
                        .refuse(self.now, stream, StreamEnd::UnknownService)
                        .expect("an unanswered stream"),
                }
            }
            LinkEvent::Opened(stream) => assert!(app.opened.insert(stream)),
            LinkEvent::Readable(stream) => {
                if app.lazy {
                    assert!(app.readable.insert(stream), "told twice");
                } else {
                    self.read(end, stream);
                }
            }
            LinkEvent::Writable(stream) => self.write(end, stream),
            LinkEvent::Stopped(stream) => assert!(app.stopped.insert(stream)),
            LinkEvent::Ended { stream, end } => assert!(app.ended.insert(stream, end).is_none()),
            LinkEvent::Lost => app.lost += 1,
        }
    }

    /// The lazy application wakes up.
    fn wake(&mut self, end: usize) {
        self.apps[end].lazy = false;
        for stream in core::mem::take(&mut self.apps[end].readable) {
            self.read(end, stream);
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        assert!(packet.len() <= self.packet_len_max, "{} bytes", packet.len());
        self.longest = self.longest.max(packet.len());
        self.sent[from].0 += 1;
        self.sent[from].1 += packet.len() as u64;
        self.trace.update(&self.now.as_micros().to_le_bytes()).update(&[from as u8]).update(packet);
        // Each roll is drawn whether it counts or not, so that runs stay comparable.
        let (roll, jitter) = (self.rng.u64() % 100, self.rng.jitter(self.jitter));
        let start = self.busy_until[from].max(self.now);
        if roll < self.loss_percent
            || self.cut
            || packet.len() > self.wire_len_max
            || start - self.now > Duration::from_millis(100)
        {
            return;
        }
        if let Some(us) = (packet.len() as u64 * 1_000_000).checked_div(self.rate) {
            self.busy_until[from] = start + Duration::from_micros(us);
        }
        let at = self.busy_until[from].max(self.now) + self.delay + jitter;
        self.sequence += 1;
        self.wire.insert((at, self.sequence), (1 - from, packet.to_vec()));
    }

    /// One step: to the next arrival or deadline. False if there is none, or only after `end`.
    fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let mut next = self.wire.keys().next().map(|(at, _)| *at);
        for streams in &mut self.ends {
            let timeout = streams.poll_timeout();
            assert!(timeout.is_none_or(|at| at > self.now), "due at {timeout:?} now {:?}", self.now);
            next = earliest(next, timeout);
        }
        let Some(next) = next.filter(|at| *at <= end) else { return false };
        self.now = next;
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
            let (to, packet) = entry.remove();
            self.ends[to].handle_packet(self.now, &packet);
        }
        for streams in &mut self.ends {
            if streams.poll_timeout().is_some_and(|at| at <= next) {
                streams.handle_timeout(next);
            }
        }
        self.drain();
        true
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `time`; gives the time it took.
    fn run_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let (start, end) = (self.now, self.now + time);
        self.drain();
        while !done(self) {
            assert!(self.step(end), "not done after {time:?}");
        }
        self.now - start
    }

    fn all_over(&self) -> bool {
        self.ends.iter().all(LinkStreams::is_idle)
    }

    /// Opens `count` streams from either end, with random amounts of bytes each way, and gives their number by service.
    fn open_many(&mut self, count: usize, len_max: usize) -> Vec<Transfer> {
        (0..count)
            .map(|i| {
                let from = self.rng.below(2);
                let (there, back) = (self.rng.below(len_max), self.rng.below(len_max));
                let (there, back) = (bytes(i as u64, there), bytes(!i as u64, back));
                let service = format!("s{i}");
                self.apps[1 - from].services.insert(name(&service), back.clone());
                let stream = self.open(from, &service, there.clone());
                Transfer { from, stream, there, back }
            })
            .collect()
    }

    /// What `open_many` opened has arrived, both ways, to the end.
    fn check_many(&self, opened: &[Transfer]) {
        for app in &self.apps {
            assert!(app.ended.is_empty() && app.stopped.is_empty() && app.lost == 0, "{} {:?}", app.lost, app.ended);
        }
        for (i, Transfer { from, stream, there, back }) in opened.iter().enumerate() {
            let (near, far) = (&self.apps[*from], &self.apps[1 - from]);
            let (other, _) = far.incoming.iter().find(|(_, s)| *s == name(&format!("s{i}"))).expect("it came in");
            assert!(near.opened.contains(stream));
            assert!(far.received.get(other).map_or(&[][..], Vec::as_slice) == there, "stream {i} there");
            assert!(near.received.get(stream).map_or(&[][..], Vec::as_slice) == back, "stream {i} back");
            assert_eq!(far.read_end.get(other), Some(&Ok(Read::End)));
            assert_eq!(near.read_end.get(stream), Some(&Ok(Read::End)));
        }
    }
}

/// std's `Instant` cannot be built from a number; whichever it is, it only translates.
trait NowForTests {
    fn now_for_tests() -> Self;
}

impl NowForTests for StdInstant {
    #[allow(clippy::disallowed_methods)]
    fn now_for_tests() -> Self {
        Self::now()
    }
}
