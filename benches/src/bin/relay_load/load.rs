//! The pump: keeps so many packets on their way, counts what arrives, and now and then asks for one back.
//!
//! Units (a train or a single packet) go out in turn over all pairs and are awaited in that order, so only the oldest
//! one's socket is looked at. It is a closed loop: more is sent when half of the window has arrived. Each packet says
//! its unit's number after the head and the first bytes of a Stream packet:
//! `head 7, kind 1, mark 4, number 8`.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use handfast_benches::client::{BUFFER_LEN, HEAD_LEN};

use super::subject::{Pair, Subject};

/// The kind byte of a Stream packet.
const STREAM: u8 = 7;
/// Stands where a Stream packet has its receiver: no node gives this index away.
const MARK: [u8; 4] = [0xff; 4];
/// Bytes on their way at once, at most: half of what Linux lets a socket hold by default, since it counts the room a
/// packet takes and not its bytes.
const WINDOW_BYTES_MAX: usize = 100_000;
/// After so long a unit is lost.
const PATIENCE: Duration = Duration::from_millis(50);
/// One of so many units is answered.
const ECHO_EVERY: u64 = 32;
/// Bytes that a packet of the load has at least.
const LEN_MIN: usize = HEAD_LEN + 1 + 4 + 8 + 12;

/// One measurement to make.
pub(crate) struct Plan {
    pub(crate) size: usize,
    pub(crate) train: usize,
    pub(crate) window: usize,
    pub(crate) duration: Duration,
}

/// What came of it.
pub(crate) struct Measured {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    took: Duration,
    cpu: f64,
    round_trips: Vec<Duration>,
}

impl Measured {
    pub(crate) fn packets_per_second(&self) -> f64 {
        self.delivered as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn loss(&self) -> f64 {
        1.0 - self.delivered as f64 / self.sent.max(1) as f64
    }

    /// CPU seconds of the relaying process for each delivered packet.
    pub(crate) fn cpu_per_packet(&self) -> f64 {
        self.cpu / self.delivered.max(1) as f64
    }

    /// The round trip that this share of all stays below.
    pub(crate) fn round_trip(&self, share: f64) -> Duration {
        #[expect(clippy::cast_sign_loss, reason = "neither a length nor a share is negative")]
        let index = (self.round_trips.len() as f64 * share) as usize;
        self.round_trips.get(index).copied().unwrap_or_default()
    }
}

struct Flight {
    pair: usize,
    number: u64,
    sent: Instant,
    left: usize,
}

struct Pump<'a> {
    subject: &'a mut Subject,
    plan: &'a Plan,
    buf: Vec<u8>,
    unit: Vec<u8>,
    number: u64,
    flights: VecDeque<Flight>,
    echoes: VecDeque<Flight>,
    measured: Measured,
}

/// Makes one measurement.
pub(crate) fn run(subject: &mut Subject, plan: &Plan) -> io::Result<Measured> {
    let segments_max = subject.pairs.first().map_or(1, |pair| pair.sides[0].end().segments_max());
    if plan.size < LEN_MIN || plan.train > segments_max {
        let text = format!("packets have at least {LEN_MIN} bytes, trains at most {segments_max} packets here");
        return Err(io::Error::other(text));
    }
    let measured = Measured { sent: 0, delivered: 0, took: Duration::ZERO, cpu: 0.0, round_trips: Vec::new() };
    let mut pump = Pump {
        plan,
        buf: vec![0; BUFFER_LEN],
        unit: vec![0; plan.size * plan.train],
        number: 0,
        flights: VecDeque::new(),
        echoes: VecDeque::new(),
        measured,
        subject,
    };
    let cpu = pump.subject.cpu()?;
    let begin = Instant::now();
    pump.pump(begin + plan.duration)?;
    let mut measured = pump.measured;
    measured.took = begin.elapsed();
    measured.cpu = subject.cpu()? - cpu;
    measured.round_trips.sort_unstable();
    Ok(measured)
}

impl Pump<'_> {
    fn pump(&mut self, end: Instant) -> io::Result<()> {
        let window = self.plan.window.min(WINDOW_BYTES_MAX / self.plan.size);
        let units_max = (window / self.plan.train).max(2);
        loop {
            let now = Instant::now();
            if now < end && self.flights.len() <= units_max / 2 {
                while self.flights.len() < units_max && self.send(now)? {}
            }
            let heard = self.collect(now)? | self.collect_echo(now)?;
            if now >= end && self.flights.is_empty() && self.echoes.is_empty() {
                return Ok(());
            }
            if !heard {
                std::thread::yield_now();
            }
        }
    }

    /// Sends the next unit over the next pair.
    fn send(&mut self, now: Instant) -> io::Result<bool> {
        let index = (self.number % self.subject.pairs.len() as u64) as usize;
        let pair = &self.subject.pairs[index];
        for packet in self.unit.chunks_mut(self.plan.size) {
            write_head(packet, pair, 0, self.number);
        }
        if !pair.sides[0].end().send(self.subject.address, &self.unit, self.plan.size)? {
            return Ok(false);
        }
        self.flights.push_back(Flight { pair: index, number: self.number, sent: now, left: self.plan.train });
        self.measured.sent += self.plan.train as u64;
        self.number += 1;
        Ok(true)
    }

    /// Looks whether the oldest unit has come. True: something has.
    fn collect(&mut self, now: Instant) -> io::Result<bool> {
        let Some(front) = self.flights.front() else { return Ok(false) };
        let index = front.pair;
        let Some((len, stride, _)) = self.subject.pairs[index].sides[1].end().receive(&mut self.buf)? else {
            if now - front.sent > PATIENCE {
                self.flights.pop_front();
            }
            return Ok(false);
        };
        let Some(number) = number(&self.buf[..len]) else {
            self.subject.pairs[index].sides[1].keep(&self.buf[..len], stride);
            return Ok(true);
        };
        let count = len.div_ceil(stride);
        self.measured.delivered += count as u64;
        if let Some(at) = self.flights.iter().position(|flight| flight.number == number) {
            let flight = &mut self.flights[at];
            flight.left = flight.left.saturating_sub(count);
            if flight.left == 0 {
                let sent = flight.sent;
                self.flights.remove(at);
                if number % ECHO_EVERY == 0 {
                    self.echo(index, number, sent)?;
                }
            }
        }
        Ok(true)
    }

    /// Sends one packet of a unit back. It belongs to the load as well.
    fn echo(&mut self, index: usize, number: u64, sent: Instant) -> io::Result<()> {
        let pair = &self.subject.pairs[index];
        let packet = &mut self.unit[..self.plan.size];
        write_head(packet, pair, 1, number);
        if pair.sides[1].end().send(self.subject.address, packet, packet.len())? {
            self.measured.sent += 1;
            self.echoes.push_back(Flight { pair: index, number, sent, left: 1 });
        }
        Ok(())
    }

    fn collect_echo(&mut self, now: Instant) -> io::Result<bool> {
        let Some(front) = self.echoes.front() else { return Ok(false) };
        let (index, sent) = (front.pair, front.sent);
        let Some((len, stride, _)) = self.subject.pairs[index].sides[0].end().receive(&mut self.buf)? else {
            if now - sent > 2 * PATIENCE {
                self.echoes.pop_front();
            }
            return Ok(false);
        };
        let Some(number) = number(&self.buf[..len]) else {
            self.subject.pairs[index].sides[0].keep(&self.buf[..len], stride);
            return Ok(true);
        };
        self.measured.delivered += len.div_ceil(stride) as u64;
        if let Some(at) = self.echoes.iter().position(|flight| flight.number == number) {
            self.echoes.remove(at);
            self.measured.round_trips.push(now - sent);
        }
        Ok(true)
    }
}

fn write_head(packet: &mut [u8], pair: &Pair, side: usize, number: u64) {
    let (head, rest) = packet.split_at_mut(HEAD_LEN);
    head.copy_from_slice(&pair.heads[side]);
    rest[0] = STREAM;
    rest[1..5].copy_from_slice(&MARK);
    rest[5..13].copy_from_slice(&number.to_le_bytes());
}

/// The unit that a train's first packet belongs to; None when it is not part of the load.
fn number(train: &[u8]) -> Option<u64> {
    let rest = train.get(HEAD_LEN..)?.strip_prefix(&[STREAM])?.strip_prefix(&MARK)?;
    rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
