//! Streams: QUIC inside a link.
//!
//! The link authenticates, encrypts and numbers every packet; QUIC (quinn-proto) adds what streams need: order,
//! repetition, flow and congestion control. [`Streams`] is one link's share of it. It is handed the plaintext of the
//! link's Stream packets and the application's calls, and gives back plaintexts to seal, events and a deadline. It
//! knows no keys, addresses or paths; of path switches it is told by [`Streams::path_upgraded`] and
//! [`Streams::path_failed_over`].
//!
//! # A connection's life
//!
//! QUIC's client is the initiator of the link's first handshake. It connects when it opens its first stream, and the
//! stream's bytes leave in the first flight (0-RTT is always on, see `crypto.rs`). The server cannot connect: to open the
//! first stream it sends a Call (`packet.rs`), repeated until the client's Initial comes. A connection whose last stream
//! ended stays for [`REST_AFTER`]; then the client asks the server with a Rest, and both drop it, unless the server
//! still has a stream (an application that has not read to the end). A connection weighs some 18 kB and more when it has
//! been used, a [`Streams`] without one next to nothing: [`Streams::is_disposable`]. If an end has lost a connection that
//! the other still uses, it says Gone, and the other's streams end.
//! Each connection of a link has a later epoch than the one before; packets are marked with it, so that stragglers hit
//! nothing.
//!
//! # A stream's life
//!
//! On the wire, the opener's bytes begin with the length of the service's name (one byte) and the name; the acceptor's
//! begin with one byte 0, sent when the application accepts. All further bytes are the application's, and the opener
//! may send them at once. A refusal resets and stops the stream with one of the codes in `one.rs`.
//!
//! The two directions end independently of each other:
//! - *Receiving* ends when `read` has told the end ([`Read::End`]) or the peer's reset ([`StreamError::Ended`], to which
//!   [`StreamsEvent::Readable`] calls; unread bytes are lost), or with [`Streams::stop`].
//! - *Sending* ends when all bytes up to [`Streams::finish`] are acknowledged, with [`Streams::reset`], or when the peer
//!   stops it ([`StreamsEvent::Stopped`]).
//!
//! A stream is forgotten when both have ended. [`StreamsEvent::Ended`] is told only if the application could not know
//! otherwise: the peer refused the stream, or reset it where nothing was left to send and `read` had not told so, or
//! the connection is gone. After it, and after a clean end, calls give [`StreamError::Unknown`].

mod connection;
mod crypto;
mod limits;
mod one;
mod packet;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use quinn_proto::{Dir, Event, StreamEvent, StreamId};

pub(crate) use self::connection::PACKET_LEN_MAX;
pub use self::connection::PACKET_LEN_MIN;
use self::connection::{Conn, Epoch};
use self::crypto::Mark;
use self::limits::STREAMS_MAX;
use self::one::{CODE_STOPPED, Note, Notes, One, refusal_code};
use self::packet::{Inner, Word, cut_padding, is_short, restore_padding};
use crate::api::{Read, StreamEnd, StreamError};
use crate::time::{Instant, earliest};
use crate::wire::ServiceName;

/// How long a connection without streams is kept: so long a next stream needs no new one.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(60);
/// How soon a call of the server is repeated for the first time; each further time it takes twice as long.
const CALL_AGAIN: Duration = Duration::from_millis(400);
/// And at most so long.
const CALL_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Most round-trip time that is believed after an outage: the first samples then measure the outage.
const FAILOVER_RTT_MAX: Duration = Duration::from_millis(500);
/// Least round-trip time to assume of a path that is not measured yet.
const WATCH_RTT_MIN: Duration = Duration::from_millis(150);
/// How soon a failover's probe is repeated for the first time; each further time it takes twice as long.
const PROBE_AGAIN: Duration = Duration::from_millis(60);
/// Most probes of a failover; after them QUIC's own loss timer goes on.
const PROBES_MAX: u32 = 8;
/// Timers that quinn may have armed on an established connection that is set up as ours: loss detection, pacing, delayed
/// acknowledgement, discarding of old keys.
const TIMERS_MAX: u32 = 4;
/// Most words that wait to be sent; further ones are dropped, since all are repeated where they matter.
const WORDS_MAX: usize = 8;
/// How long QUIC waits when its timers do not advance because it may not send.
const STUCK_WAIT: Duration = Duration::from_secs(1);
/// How often one `poll_transmit` asks QUIC: again after an MTU probe that is too long, and after a timer that was due.
const TRIES_MAX: usize = 8;

/// Which end of the link this is to QUIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The initiator of the link's first handshake.
    Client,
    /// The other.
    Server,
}

impl Side {
    const fn quic(self) -> quinn_proto::Side {
        match self {
            Self::Client => quinn_proto::Side::Client,
            Self::Server => quinn_proto::Side::Server,
        }
    }
}

/// A stream of one [`Streams`]. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalStream(pub u64);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum StreamsEvent {
    /// The peer opened a stream. Answer with `accept` or `refuse`.
    Incoming {
        /// The stream.
        stream: LocalStream,
        /// To what.
        service: ServiceName,
    },
    /// The peer accepted a stream of ours.
    Opened(LocalStream),
    /// `read` has something to say.
    Readable(LocalStream),
    /// `write` takes bytes again.
    Writable(LocalStream),
    /// The peer wants no more bytes; receiving goes on.
    Stopped(LocalStream),
    /// The stream is over before its time, and forgotten.
    Ended {
        /// The stream.
        stream: LocalStream,
        /// Why.
        end: StreamEnd,
    },
    /// The QUIC connection broke; `Ended` follows for each of its streams. The next `open` begins another.
    Lost,
}

/// How the connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamsStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets taken for lost.
    pub lost_packets: u64,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// Longest packet that the path is known to carry.
    pub packet_len: u16,
}

/// What a change of path waits for. A failover: before QUIC forgets what it measured on the old path.
///
/// After an outage all that was under way is lost, and the congestion window is full of it. In a full window quinn sends
/// nothing, not even acknowledgements while there is data to send, except the probes of the loss timer (RFC 9002
/// §6.2.4), which has backed off to many seconds. So that timer is made to fire at once, and again until an
/// acknowledgement has come: where both ends send, it is the second probe that acknowledges the peer's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failover {
    None,
    /// More ACK frames than so many.
    Ack {
        seen: u64,
        probe_at: Option<Instant>,
        probes: u32,
    },
    /// What was under way on the old path to be taken for lost. Otherwise it would count against the new path's window.
    Settled {
        at: Instant,
    },
    /// After starting over: to see whether more packets than so many are taken for lost. Those will be of the old path
    /// (packets overtaken on a faster one, probes of its MTU), and will have ended the new path's slow start before it
    /// began. Then once more; but not a third time, since it may be the new path that loses.
    Watched {
        at: Instant,
        lost: u64,
    },
}

/// The streams of one link. See the [module](self).
pub struct Streams {
    origin: StdInstant,
    side: Side,
    seed: [u8; 32],
    /// Last `now` that was passed in.
    now: Instant,
    /// Of the latest connection.
    epoch: Option<Epoch>,
    conn: Option<Box<Conn>>,
    /// The connection is lost and only has its goodbye to send.
    closing: bool,
    /// The client has asked to drop the connection: nothing new may begin on it.
    resting: bool,
    rest_at: Option<Instant>,
    call_at: Option<Instant>,
    calls: u32,
    failover: Failover,
    /// How many timers may still be made to fire to get a probe out.
    probe: u32,
    /// QUIC's timers have fired and still name a moment that has passed; until it may send, they are asked again then.
    stuck_until: Option<Instant>,
    all: BTreeMap<LocalStream, One>,
    by_id: BTreeMap<StreamId, LocalStream>,
    next: u64,
    words: VecDeque<Word>,
    events: VecDeque<StreamsEvent>,
}

impl Streams {
    /// `origin` is std's moment of our `Instant::ZERO`. A client's later `Streams` of the same link must be made at a
    /// later `now`.
    pub fn new(now: Instant, origin: StdInstant, side: Side, seed: [u8; 32]) -> Self {
        Self {
            origin,
            side,
            seed,
            now,
            epoch: None,
            conn: None,
            closing: false,
            resting: false,
            rest_at: None,
            call_at: None,
            calls: 0,
            failover: Failover::None,
            probe: 0,
            stuck_until: None,
            all: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next: 0,
            words: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The plaintext of one Stream packet of the link.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.now = now;
        match Inner::decode(packet) {
            None => {}
            Some(Inner::Word(word)) => self.on_word(word),
            Some(Inner::Quic(packet)) => self.on_quic(packet),
            Some(Inner::Cut(cut)) => self.on_quic(&restore_padding(cut)),
        }
        self.on_change();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        match self.failover {
            Failover::Settled { at } if at <= now => self.start_over(),
            Failover::Watched { at, lost } if at <= now => {
                self.failover = Failover::None;
                if self.stats().is_some_and(|stats| stats.lost_packets > lost) {
                    self.forget_path();
                }
            }
            Failover::Ack { seen, probe_at: Some(at), probes } if at <= now => self.probe(seen, probes),
            Failover::Settled { .. } | Failover::Watched { .. } | Failover::Ack { .. } | Failover::None => {}
        }
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            self.resting = true;
            if let Some(conn) = &self.conn {
                let word = Word::Rest(conn.mark());
                self.say(word);
            }
        }
        if self.call_at.is_some_and(|at| at <= now) {
            self.call_at = None;
        }
        let at = self.std(now);
        if let Some(conn) = &mut self.conn {
            conn.handle_timeout(at);
            // The probe time-out counts from the last packet sent and ends at 2^16 times its base: after so long
            // without a chance to send it would stay in the past for good.
            let is_stuck = conn.poll_timeout().is_some_and(|due| due <= at);
            self.stuck_until = is_stuck.then(|| now + STUCK_WAIT);
        }
        self.on_change();
    }

    /// The next packets to seal, each by itself: `buf.chunks(n)` for the returned `n`, at most `segments_max` of them.
    /// All have that length but the last. None is longer than `packet_len_max`, which is at least [`PACKET_LEN_MIN`]: what
    /// the path could carry at most, not what it is proven to, which QUIC finds out. [`PACKET_LEN_MAX`] does for all paths
    /// over Ethernet. Where a path has less room than the one before had proven, QUIC must start over.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        segments_max: usize,
        packet_len_max: usize,
        buf: &mut Vec<u8>,
    ) -> Option<usize> {
        assert!(segments_max > 0 && packet_len_max >= usize::from(PACKET_LEN_MIN), "no room for a QUIC packet");
        self.now = now;
        buf.clear();
        let len = self
            .transmit_word(buf)
            .or_else(|| self.transmit_quic(segments_max, packet_len_max, buf))
            // The end of a connection may have left something to say.
            .or_else(|| self.transmit_word(buf));
        if len.is_some() {
            self.stuck_until = None;
        }
        len
    }

    fn transmit_word(&mut self, buf: &mut Vec<u8>) -> Option<usize> {
        self.words.pop_front()?.encode(buf);
        Some(buf.len())
    }

    fn transmit_quic(&mut self, segments_max: usize, packet_len_max: usize, buf: &mut Vec<u8>) -> Option<usize> {
        let at = self.std(self.now);
        let conn = self.conn.as_mut()?;
        if usize::from(conn.quic.current_mtu()) > packet_len_max {
            // A path with less room than the one before. Starting over at 1 200 is what fits all.
            conn.quic.path_changed(at);
        }
        for _ in 0..TRIES_MAX {
            let Some(transmit) = conn.quic.poll_transmit(at, segments_max, buf) else {
                if self.probe > 0 && conn.fire_timer(at) {
                    self.probe -= 1;
                    continue;
                }
                // Sending can arm a timer that is due already (a loss that only now has a later packet to show it):
                // done here, so that nothing is due when all has been sent.
                if conn.poll_timeout().is_none_or(|due| due > at) {
                    break;
                }
                conn.handle_timeout(at);
                continue;
            };
            let len = transmit.segment_size.unwrap_or(transmit.size);
            if len <= packet_len_max {
                self.probe = 0;
                if transmit.segment_size.is_some() {
                    return Some(len);
                }
                cut_padding(buf);
                return Some(buf.len());
            }
            // A probe whether the path carries packets that long: it does not.
            buf.clear();
        }
        if self.closing {
            self.drop_connection();
            self.set_call();
        }
        None
    }

    /// How many frames that QUIC wants acknowledged were sent on the present connection. While this stands still, what
    /// leaves needs no answer.
    pub fn asked(&self) -> u64 {
        let Some(conn) = &self.conn else { return 0 };
        let f = conn.quic.stats().frame_tx;
        [
            f.crypto,
            f.data_blocked,
            f.max_data,
            f.max_stream_data,
            f.max_streams_bidi,
            f.ping,
            f.reset_stream,
            f.stop_sending,
            f.stream,
            f.stream_data_blocked,
            f.streams_blocked_bidi,
        ]
        .iter()
        .sum()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let quic = self.conn.as_mut().and_then(|conn| conn.poll_timeout()).map(|at| {
            // Rounded up: a deadline told too early would be asked for again and again.
            let ns = at.saturating_duration_since(self.origin).as_nanos();
            let at = Instant::from_micros(u64::try_from(ns.div_ceil(1000)).unwrap_or(u64::MAX));
            self.stuck_until.map_or(at, |until| at.max(until))
        });
        let failover = match self.failover {
            Failover::Settled { at } | Failover::Watched { at, .. } => Some(at),
            Failover::Ack { probe_at, .. } => probe_at,
            Failover::None => None,
        };
        let own = earliest(earliest(self.rest_at, self.call_at), failover);
        earliest(quic, own).map(|at| at.max(self.now))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<StreamsEvent> {
        loop {
            let event = self.events.pop_front()?;
            match event {
                // Overtaken by the stream's end.
                StreamsEvent::Readable(stream)
                | StreamsEvent::Writable(stream)
                | StreamsEvent::Stopped(stream)
                | StreamsEvent::Opened(stream)
                    if !self.all.contains_key(&stream) => {}
                _ => return Some(event),
            }
        }
    }

    /// Opens a stream to a service of the peer. Bytes may be written at once.
    /// `Err(Blocked)` at [`STREAMS_MAX`] streams of ours; nothing tells when there is room again.
    pub fn open(&mut self, now: Instant, service: &ServiceName) -> Result<LocalStream, StreamError> {
        self.now = now;
        let side = self.side.quic();
        if self.all.values().filter(|one| one.is_ours(side)).count() >= STREAMS_MAX as usize {
            return Err(StreamError::Blocked);
        }
        if self.side == Side::Client && (self.conn.is_none() || self.resting || self.closing) {
            self.connect();
        }
        let stream = self.insert(One::opening(service));
        self.on_change();
        Ok(stream)
    }

    /// Takes an incoming stream.
    pub fn accept(&mut self, now: Instant, stream: LocalStream) -> Result<(), StreamError> {
        let notes = self.with(now, stream, |one, quic| quic.map_or(Err(StreamError::Unknown), |q| one.accept(q)))?;
        self.tell(stream, &notes);
        self.on_change();
        Ok(())
    }

    /// Refuses an incoming stream: `UnknownService`, `NotAllowed`, or anything else for "unavailable". It is forgotten.
    pub fn refuse(&mut self, now: Instant, stream: LocalStream, why: StreamEnd) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| match quic {
            Some(quic) if one.is_unanswered() => {
                one.abort(quic, refusal_code(why));
                Ok(())
            }
            _ => Err(StreamError::Finished),
        })?;
        self.forget(stream);
        self.on_change();
        Ok(())
    }

    /// Takes as many bytes as fit. `Err(Blocked)` when none do; `Writable` follows whenever not all were taken.
    pub fn write(&mut self, now: Instant, stream: LocalStream, data: &[u8]) -> Result<usize, StreamError> {
        self.with(now, stream, |one, quic| one.write(quic, data))
    }

    /// Reads bytes in order. After `Blocked`, and after fewer bytes than `buf` holds, `Readable` tells of the next.
    pub fn read(&mut self, now: Instant, stream: LocalStream, buf: &mut [u8]) -> Result<Read, StreamError> {
        let result = self.with(now, stream, |one, quic| one.read(quic, buf));
        self.forget_if_over(stream);
        self.on_change();
        result
    }

    /// No more bytes will be written; those written still arrive.
    pub fn finish(&mut self, now: Instant, stream: LocalStream) -> Result<(), StreamError> {
        self.with(now, stream, One::finish)
    }

    /// Drops the sending direction: the peer's `read` gives `StreamEnd::Reset(code)`.
    pub fn reset(&mut self, now: Instant, stream: LocalStream, code: u32) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| one.reset(quic, code))?;
        self.forget_if_over(stream);
        self.on_change();
        Ok(())
    }

    /// Wants no more bytes: the peer gets `Stopped`.
    pub fn stop(&mut self, now: Instant, stream: LocalStream, code: u32) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| one.stop(quic, code))?;
        self.forget_if_over(stream);
        self.on_change();
        Ok(())
    }

    /// Packets take another path now, and the old one still works: what was measured on it no longer holds.
    ///
    /// While a failover is being probed that goes on, on the new path: in a window full of lost packets nothing else moves.
    pub fn path_upgraded(&mut self, now: Instant) {
        self.now = now;
        match self.failover {
            Failover::Ack { .. } => self.path_failed_over(now),
            Failover::None | Failover::Settled { .. } | Failover::Watched { .. } => self.start_over(),
        }
    }

    /// Packets take another path now because the old one is dead; or the only path works again after an outage, which QUIC
    /// by itself would take as long again to notice. A probe leaves at once; what was measured is forgotten only when the
    /// path has answered and what was under way is taken for lost: sooner, the packets lost in the outage would fill the
    /// new window.
    pub fn path_failed_over(&mut self, now: Instant) {
        self.now = now;
        if let Some(conn) = &self.conn {
            let seen = conn.quic.stats().frame_rx.acks;
            self.probe(seen, 0);
        }
    }

    /// Ends all streams and the connection; a goodbye is ready for `poll_transmit`.
    pub fn close(&mut self, now: Instant) {
        self.now = now;
        let at = self.std(now);
        if let Some(conn) = &mut self.conn {
            conn.close(at);
            self.closing = true;
        }
        self.all.clear();
        self.by_id.clear();
        self.on_change();
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether a stream is open still: it is forgotten when both its directions ended.
    pub fn contains(&self, stream: LocalStream) -> bool {
        self.all.contains_key(&stream)
    }

    /// Whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether nothing would be lost by dropping this `Streams`: no stream, no connection, nothing to say.
    pub fn is_disposable(&self) -> bool {
        self.all.is_empty() && self.conn.is_none() && self.words.is_empty() && self.events.is_empty()
    }

    /// How the connection is doing, if there is one.
    pub fn stats(&self) -> Option<StreamsStats> {
        let path = self.conn.as_ref()?.quic.stats().path;
        Some(StreamsStats {
            rtt: path.rtt,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            congestion_window: path.cwnd,
            packet_len: path.current_mtu,
        })
    }

    fn std(&self, at: Instant) -> StdInstant {
        self.origin + Duration::from_micros(at.as_micros())
    }

    fn say(&mut self, word: Word) {
        if self.words.len() < WORDS_MAX && !self.words.contains(&word) {
            self.words.push_back(word);
        }
    }

    /// Begins a new connection in place of the present one, if any.
    fn connect(&mut self) {
        self.lose_streams();
        self.drop_connection();
        let epoch = Epoch(self.epoch.map_or(0, |last| last.0 + 1).max(self.now.as_micros()));
        self.epoch = Some(epoch);
        self.conn = Some(Box::new(Conn::connect(self.std(self.now), &self.seed, epoch)));
    }

    /// Ends the streams that wait for the present connection to take them.
    fn lose_waiting(&mut self) {
        for stream in core::mem::take(&mut self.all).into_keys() {
            self.events.push_back(StreamsEvent::Ended { stream, end: StreamEnd::PeerGone });
        }
    }

    fn drop_connection(&mut self) {
        self.conn = None;
        self.closing = false;
        self.resting = false;
        self.rest_at = None;
        self.failover = Failover::None;
        self.probe = 0;
    }

    fn on_word(&mut self, word: Word) {
        let present = self.conn.as_ref().filter(|_| !self.closing).map(|conn| conn.mark());
        match word {
            Word::Call => {
                if self.side == Side::Client && (present.is_none() || self.resting) {
                    self.connect();
                }
            }
            Word::Gone(mark) => {
                if present == Some(mark) {
                    self.on_gone();
                }
            }
            Word::Rest(mark) => {
                if self.side == Side::Server {
                    self.on_rest(mark, present);
                }
            }
            Word::Keep(mark) => {
                if present == Some(mark) {
                    self.resting = false;
                }
            }
        }
    }

    fn on_gone(&mut self) {
        if !self.resting {
            self.events.push_back(StreamsEvent::Lost);
        }
        self.lose_streams();
        self.lose_waiting();
        self.drop_connection();
    }

    fn on_rest(&mut self, mark: Mark, present: Option<Mark>) {
        if present == Some(mark) && !self.all.is_empty() {
            self.say(Word::Keep(mark));
            return;
        }
        if present == Some(mark) {
            self.drop_connection();
        }
        self.say(Word::Gone(mark));
    }

    fn on_quic(&mut self, packet: &[u8]) {
        let at = self.std(self.now);
        let newer = Epoch::of_initial(packet).filter(|epoch| self.epoch.is_none_or(|last| last < *epoch));
        if let (Side::Server, Some(epoch)) = (self.side, newer) {
            if let Some(conn) = Conn::accept(at, &self.seed, epoch, BytesMut::from(packet)) {
                self.lose_streams();
                self.drop_connection();
                self.epoch = Some(epoch);
                self.conn = Some(Box::new(conn));
            }
            return;
        }
        let mark = Mark::of_packet(packet);
        match &mut self.conn {
            Some(conn) if !is_short(packet) || mark == Some(conn.mark()) => conn.handle(at, BytesMut::from(packet)),
            // A short header means that we had this connection: without that, the handshake may still come.
            _ => {
                if let Some(mark) = mark.filter(|_| is_short(packet)) {
                    self.say(Word::Gone(mark));
                }
            }
        }
    }

    /// Hears out QUIC, and sets what depends on there being streams.
    fn on_change(&mut self) {
        while let Some(event) = self.conn.as_mut().and_then(|conn| conn.quic.poll()) {
            self.on_event(event);
        }
        self.attach_waiting();
        self.watch_failover();
        self.set_rest();
        self.set_call();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::ConnectionLost { .. } => {
                if !self.closing {
                    // The peer's goodbye to a connection that neither uses is no news.
                    if !self.by_id.is_empty() {
                        self.events.push_back(StreamsEvent::Lost);
                    }
                    self.closing = true;
                    self.lose_streams();
                    self.lose_waiting();
                }
            }
            Event::Stream(StreamEvent::Opened { .. }) => self.on_opened(),
            Event::Stream(StreamEvent::Readable { id }) => self.on_stream(id, One::on_readable),
            Event::Stream(StreamEvent::Writable { id }) => self.on_stream(id, One::on_writable),
            Event::Stream(StreamEvent::Finished { id }) => self.on_stream(id, |one, _| {
                one.on_finished();
                Notes::new()
            }),
            Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                self.on_stream(id, |one, quic| one.on_stopped(quic, error_code));
            }
            Event::Stream(StreamEvent::Available { .. })
            | Event::HandshakeDataReady
            | Event::Connected
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn on_opened(&mut self) {
        while let Some(id) = self.conn.as_mut().and_then(|conn| conn.quic.streams().accept(Dir::Bi)) {
            self.insert(One::incoming(id));
            // Of the bytes that came with the first packet no event of their own tells.
            self.on_stream(id, One::on_readable);
        }
        if let Some(conn) = &mut self.conn {
            conn.make_room();
        }
    }

    fn on_stream(&mut self, id: StreamId, what: impl FnOnce(&mut One, &mut quinn_proto::Connection) -> Notes) {
        let (Some(conn), Some(&stream)) = (&mut self.conn, self.by_id.get(&id)) else { return };
        let Some(one) = self.all.get_mut(&stream) else { return };
        let notes = what(one, &mut conn.quic);
        self.tell(stream, &notes);
        self.forget_if_over(stream);
    }

    fn tell(&mut self, stream: LocalStream, notes: &[Note]) {
        for note in notes {
            let event = match *note {
                Note::Incoming(service) => StreamsEvent::Incoming { stream, service },
                Note::Opened => StreamsEvent::Opened(stream),
                Note::Readable => StreamsEvent::Readable(stream),
                Note::Writable => StreamsEvent::Writable(stream),
                Note::Stopped => StreamsEvent::Stopped(stream),
                Note::Ended(end) => {
                    self.forget(stream);
                    StreamsEvent::Ended { stream, end }
                }
                Note::Forget => {
                    self.forget(stream);
                    continue;
                }
            };
            self.events.push_back(event);
        }
    }

    fn insert(&mut self, one: One) -> LocalStream {
        let stream = LocalStream(self.next);
        self.next += 1;
        if let Some(id) = one.id {
            self.by_id.insert(id, stream);
        }
        self.all.insert(stream, one);
        stream
    }

    fn forget(&mut self, stream: LocalStream) {
        if let Some(id) = self.all.remove(&stream).and_then(|one| one.id) {
            self.by_id.remove(&id);
        }
    }

    fn forget_if_over(&mut self, stream: LocalStream) {
        let Some(one) = self.all.get(&stream).filter(|one| one.is_over()) else { return };
        if let Some(end) = one.end() {
            self.events.push_back(StreamsEvent::Ended { stream, end });
        }
        self.forget(stream);
    }

    /// Ends the streams of the present connection. Those that wait for one stay.
    fn lose_streams(&mut self) {
        for stream in core::mem::take(&mut self.by_id).into_values() {
            if self.all.remove(&stream).is_some() {
                self.events.push_back(StreamsEvent::Ended { stream, end: StreamEnd::PeerGone });
            }
        }
    }

    /// Runs a call of the application on a stream.
    fn with<T>(
        &mut self,
        now: Instant,
        stream: LocalStream,
        call: impl FnOnce(&mut One, Option<&mut quinn_proto::Connection>) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        self.now = now;
        let one = self.all.get_mut(&stream).ok_or(StreamError::Unknown)?;
        let quic = self.conn.as_mut().filter(|_| one.id.is_some()).map(|conn| &mut conn.quic);
        call(one, quic)
    }

    /// Opens the streams that waited for a connection, or for the peer to allow more of them.
    fn attach_waiting(&mut self) {
        if self.conn.is_none() || self.closing || self.by_id.len() == self.all.len() {
            return;
        }
        let waiting: Vec<_> = self.all.iter().filter(|(_, one)| one.id.is_none()).map(|(s, _)| *s).collect();
        for stream in waiting {
            let (Some(conn), Some(one)) = (&mut self.conn, self.all.get_mut(&stream)) else { return };
            let Some(id) = conn.quic.streams().open(Dir::Bi) else { return };
            let notes = one.attach(&mut conn.quic, id);
            self.by_id.insert(id, stream);
            self.tell(stream, &notes);
            self.forget_if_over(stream);
        }
    }

    /// Makes QUIC forget what it measured, and watches what comes of it.
    fn start_over(&mut self) {
        self.failover = Failover::None;
        if let Some(stats) = self.stats() {
            let at = self.now + stats.rtt.clamp(WATCH_RTT_MIN, FAILOVER_RTT_MAX) * 3 / 2;
            self.failover = Failover::Watched { at, lost: stats.lost_packets };
        }
        self.forget_path();
    }

    fn forget_path(&mut self) {
        let at = self.std(self.now);
        if let Some(conn) = &mut self.conn {
            conn.quic.path_changed(at);
        }
    }

    /// Has one probe leave with the next `poll_transmit`, and the next one after a while.
    fn probe(&mut self, seen: u64, probes: u32) {
        if let Some(conn) = &mut self.conn {
            conn.quic.ping();
            self.probe = TIMERS_MAX;
            let again = self.now + PROBE_AGAIN * (1 << probes);
            self.failover =
                Failover::Ack { seen, probe_at: (probes < PROBES_MAX).then_some(again), probes: probes + 1 };
        }
    }

    fn watch_failover(&mut self) {
        let (Failover::Ack { seen, .. }, Some(conn)) = (self.failover, &self.conn) else { return };
        if conn.quic.stats().frame_rx.acks > seen {
            let rtt = conn.quic.rtt().min(FAILOVER_RTT_MAX);
            self.failover = Failover::Settled { at: self.now + rtt * 3 / 2 };
        }
    }

    fn set_rest(&mut self) {
        if !self.all.is_empty() {
            self.resting = false;
        }
        let idle = self.side == Side::Client && self.conn.is_some() && !self.closing && self.all.is_empty();
        if !idle {
            self.rest_at = None;
        } else if self.rest_at.is_none() {
            self.rest_at = Some(self.now + REST_AFTER);
        }
    }

    fn set_call(&mut self) {
        let wanted = self.side == Side::Server && self.conn.is_none() && !self.all.is_empty();
        if !wanted {
            self.call_at = None;
            self.calls = 0;
        } else if self.call_at.is_none() {
            self.say(Word::Call);
            let wait = CALL_AGAIN.saturating_mul(1 << self.calls.min(8)).min(CALL_AGAIN_MAX);
            self.call_at = Some(self.now + wait);
            self.calls += 1;
        }
    }
}

// Aborted streams carry this code; the application's begin far above it.
const _: () = assert!(CODE_STOPPED < one::CODE_APPLICATION);
