//! The streams of one link.

mod calls;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use quinn_proto::{Dir, Event, StreamEvent, StreamId};

use super::connection::{Conn, Epoch, PACKET_LEN_MIN};
use super::crypto::Mark;
use super::event::{LinkEvent, LocalStream, Side};
use super::failover::Failover;
use super::one::{Note, Notes, One};
use super::packet::{Inner, Word, cut_padding, is_short, restore_padding};
use super::set::Set;
use super::words::Words;
use crate::api::{StreamEnd, StreamError};
use crate::time::{Instant, earliest};

/// How long a connection without streams is kept: so long a next stream needs no new one.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(60);
/// How long QUIC waits when its timers do not advance because it may not send.
const STUCK_WAIT: Duration = Duration::from_secs(1);
/// How often one `poll_transmit` asks QUIC: again after an MTU probe that is too long, and after a timer that was due.
const TRIES_MAX: usize = 8;

/// The streams of one link: its QUIC connection while there is one, and the streams that outlive it.
pub struct LinkStreams {
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
    failover: Failover,
    /// QUIC's timers have fired and still name a moment that has passed; until it may send, they are asked again then.
    stuck_until: Option<Instant>,
    set: Set,
    words: Words,
    events: VecDeque<LinkEvent>,
}

impl LinkStreams {
    /// `origin` is std's moment of our `Instant::ZERO`. A client's later `LinkStreams` of the same link must be made at
    /// a later `now`.
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
            failover: Failover::default(),
            stuck_until: None,
            set: Set::new(side.quic()),
            words: Words::default(),
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
        self.set.note_pieces();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let at = self.std(now);
        self.failover.handle_timeout(now, at, self.conn.as_deref_mut());
        self.set.refuse_overdue(now, self.conn.as_mut().map(|conn| &mut conn.quic));
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            self.resting = true;
            if let Some(conn) = &self.conn {
                self.words.say(Word::Rest(conn.mark()));
            }
        }
        self.words.handle_timeout(now);
        if let Some(conn) = &mut self.conn {
            conn.handle_timeout(at);
            self.stuck_until = None;
        }
        self.note_stuck();
        self.on_change();
    }

    /// The next packets to seal, each by itself: `buf.chunks(n)` for the returned `n`, at most `segments_max` of them.
    /// All have that length but the last. None is longer than `packet_len_max`, which is at least [`PACKET_LEN_MIN`]:
    /// what the path could carry at most, not what it is proven to, which QUIC finds out. [`PACKET_LEN_MAX`] does for
    /// all paths over Ethernet. Where a path has less room than the one before had proven, QUIC must start over.
    ///
    /// # Panics
    /// If `segments_max` is 0 or `packet_len_max` below [`PACKET_LEN_MIN`]: bugs of the caller.
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
        } else {
            self.note_stuck();
        }
        len
    }

    /// The probe time-out counts from the last packet sent and ends at 2^16 times its base: after so long without a chance
    /// to send it would stay in the past for good. So would one that nothing that is due puts off.
    fn note_stuck(&mut self) {
        let at = self.std(self.now);
        let is_due = |conn: &mut Box<Conn>| conn.poll_timeout().is_some_and(|due| due <= at);
        if self.stuck_until.is_none() && self.conn.as_mut().is_some_and(is_due) {
            self.stuck_until = Some(self.now + STUCK_WAIT);
        }
    }

    fn transmit_word(&mut self, buf: &mut Vec<u8>) -> Option<usize> {
        self.words.pop()?.encode(buf);
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
                if self.failover.wants_fire() && conn.fire_timer(at) {
                    self.failover.on_fired();
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
                self.failover.on_sent();
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
        self.conn.as_ref().map_or(0, |conn| conn.asked())
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let quic = self.conn.as_mut().and_then(|conn| conn.poll_timeout()).map(|at| {
            // Rounded up: a deadline told too early would be asked for again and again.
            let ns = at.saturating_duration_since(self.origin).as_nanos();
            let at = Instant::from_micros(u64::try_from(ns.div_ceil(1000)).unwrap_or(u64::MAX));
            self.stuck_until.map_or(at, |until| at.max(until))
        });
        let own = earliest(earliest(self.rest_at, self.words.poll_timeout()), self.failover.poll_timeout());
        let own = earliest(own, self.set.name_due());
        earliest(quic, own).map(|at| at.max(self.now))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        loop {
            let event = self.events.pop_front()?;
            match event {
                // Overtaken by the stream's end.
                LinkEvent::Readable(stream)
                | LinkEvent::Writable(stream)
                | LinkEvent::Stopped(stream)
                | LinkEvent::Opened(stream)
                    if !self.set.contains(stream) => {}
                _ => return Some(event),
            }
        }
    }

    /// Packets take another path now, and the old one still works: what was measured on it no longer holds.
    ///
    /// While a failover is being probed that goes on, on the new path: in a window full of lost packets nothing else
    /// moves.
    pub fn path_upgraded(&mut self, now: Instant) {
        self.now = now;
        let at = self.std(now);
        self.failover.on_upgrade(now, at, self.conn.as_deref_mut());
    }

    /// Packets take another path now because the old one is dead; or the only path works again after an outage, which
    /// QUIC by itself would take as long again to notice. A probe leaves at once; what was measured is forgotten only
    /// when the path has answered and what was under way is taken for lost: sooner, the packets lost in the outage
    /// would fill the new window.
    pub fn path_failed_over(&mut self, now: Instant) {
        self.now = now;
        self.failover.on_failover(now, self.conn.as_deref_mut());
    }

    /// Ends all streams and the connection; a goodbye is ready for `poll_transmit`.
    pub fn close(&mut self, now: Instant) {
        self.now = now;
        let at = self.std(now);
        if let Some(conn) = &mut self.conn {
            conn.close(at);
            self.closing = true;
        }
        self.set.take_all();
        self.on_change();
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether a stream is open still: it is forgotten when both its directions ended.
    pub fn contains(&self, stream: LocalStream) -> bool {
        self.set.contains(stream)
    }

    /// Whether any stream is in use: one that the peer opened is not before it says to what.
    pub fn is_in_use(&self) -> bool {
        self.set.has_named()
    }

    /// Whether nothing would be lost by dropping this `LinkStreams`: no stream, no connection, nothing to say.
    pub fn is_disposable(&self) -> bool {
        self.set.is_empty() && self.conn.is_none() && self.words.len() == 0 && self.events.is_empty()
    }

    /// What must hold between calls.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn assert_consistent(&self) {
        self.set.assert_consistent();
    }

    fn std(&self, at: Instant) -> StdInstant {
        self.origin + Duration::from_micros(at.as_micros())
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
        for (stream, _) in self.set.take_all() {
            self.events.push_back(LinkEvent::Ended { stream, end: StreamEnd::PeerGone });
        }
    }

    fn drop_connection(&mut self) {
        self.conn = None;
        self.closing = false;
        self.resting = false;
        self.rest_at = None;
        self.failover = Failover::default();
    }

    fn on_word(&mut self, word: Word) {
        let present = self.conn.as_ref().filter(|_| !self.closing).map(|conn| conn.mark());
        match word {
            Word::Call => {
                if self.side == Side::Client && (present.is_none() || self.resting) {
                    self.connect();
                }
            }
            Word::Gone(mark) if present == Some(mark) => self.on_gone(),
            Word::Rest(mark) => {
                if self.side == Side::Server {
                    self.on_rest(mark, present);
                }
            }
            Word::Keep(mark) if present == Some(mark) => self.resting = false,
            Word::Refused(mark) if present == mark => self.on_refused(),
            Word::Gone(_) | Word::Keep(_) | Word::Refused(_) => {}
        }
    }

    fn on_gone(&mut self) {
        if !self.resting {
            self.events.push_back(LinkEvent::Lost);
        }
        self.lose_streams();
        self.lose_waiting();
        self.drop_connection();
    }

    /// The peer has nothing open to us, and no connection: of this one no stream will be accepted any more.
    fn on_refused(&mut self) {
        for (stream, one) in self.set.take_all() {
            let end = if one.is_unaccepted() { StreamEnd::NotAllowed } else { StreamEnd::PeerGone };
            self.events.push_back(LinkEvent::Ended { stream, end });
        }
        self.drop_connection();
    }

    fn on_rest(&mut self, mark: Mark, present: Option<Mark>) {
        if present == Some(mark) && !self.set.is_empty() {
            self.words.say(Word::Keep(mark));
            return;
        }
        if present == Some(mark) {
            self.drop_connection();
        }
        self.words.say(Word::Gone(mark));
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
            Some(conn) if !is_short(packet) => conn.handle_long(at, BytesMut::from(packet)),
            Some(conn) if mark == Some(conn.mark()) => {
                if self.set.admits(packet) {
                    conn.handle(at, BytesMut::from(packet));
                }
            }
            // A short header means that we had this connection: without that, the handshake may still come.
            _ => {
                if let Some(mark) = mark.filter(|_| is_short(packet)) {
                    self.words.say(Word::Gone(mark));
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
        self.failover.on_change(self.now, self.conn.as_deref());
        self.set_rest();
        self.set_call();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::ConnectionLost { .. } => {
                if !self.closing {
                    // The peer's goodbye to a connection that neither uses is no news.
                    if self.set.attached() > 0 {
                        self.events.push_back(LinkEvent::Lost);
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
            let stream = self.set.insert(One::incoming(id));
            // Of the bytes that came with the first packet no event of their own tells.
            self.on_stream(id, One::on_readable);
            self.set.await_name(self.now, stream);
        }
        if let Some(conn) = &mut self.conn {
            conn.make_room();
        }
    }

    fn on_stream(&mut self, id: StreamId, what: impl FnOnce(&mut One, &mut quinn_proto::Connection) -> Notes) {
        let (Some(conn), Some(stream)) = (&mut self.conn, self.set.by_id(id)) else { return };
        let Some(one) = self.set.get_mut(stream) else { return };
        let notes = what(one, &mut conn.quic);
        self.set.note_named(stream);
        self.tell(stream, &notes);
        self.forget_if_over(stream);
    }

    fn tell(&mut self, stream: LocalStream, notes: &[Note]) {
        for note in notes {
            let event = match *note {
                Note::Incoming(service) => LinkEvent::Incoming { stream, service },
                Note::Opened => LinkEvent::Opened(stream),
                Note::Readable => LinkEvent::Readable(stream),
                Note::Writable => LinkEvent::Writable(stream),
                Note::Stopped => LinkEvent::Stopped(stream),
                Note::Ended(end) => {
                    self.set.remove(stream);
                    LinkEvent::Ended { stream, end }
                }
                Note::Forget => {
                    self.set.remove(stream);
                    continue;
                }
            };
            self.events.push_back(event);
        }
    }

    fn forget_if_over(&mut self, stream: LocalStream) {
        let Some(one) = self.set.get(stream).filter(|one| one.is_over()) else { return };
        if let Some(end) = one.end() {
            self.events.push_back(LinkEvent::Ended { stream, end });
        }
        self.set.remove(stream);
    }

    /// Ends the streams of the present connection. Those that wait for one stay.
    fn lose_streams(&mut self) {
        for (stream, _) in self.set.take_attached() {
            self.events.push_back(LinkEvent::Ended { stream, end: StreamEnd::PeerGone });
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
        let one = self.set.get_mut(stream).ok_or(StreamError::Unknown)?;
        let quic = self.conn.as_mut().filter(|_| one.id.is_some()).map(|conn| &mut conn.quic);
        let result = call(one, quic);
        self.set.note_named(stream);
        result
    }

    /// Opens the streams that waited for a connection, or for the peer to allow more of them.
    fn attach_waiting(&mut self) {
        if self.conn.is_none() || self.closing {
            return;
        }
        while let Some(stream) = self.set.first_waiting() {
            let (Some(conn), Some(one)) = (&mut self.conn, self.set.get_mut(stream)) else { return };
            let Some(id) = conn.quic.streams().open(Dir::Bi) else { return };
            let notes = one.attach(&mut conn.quic, id);
            self.set.on_attached(stream, id);
            self.tell(stream, &notes);
            self.forget_if_over(stream);
        }
    }

    fn set_rest(&mut self) {
        if !self.set.is_empty() {
            self.resting = false;
        }
        let idle = self.side == Side::Client && self.conn.is_some() && !self.closing && self.set.is_empty();
        if !idle {
            self.rest_at = None;
        } else if self.rest_at.is_none() {
            self.rest_at = Some(self.now + REST_AFTER);
        }
    }

    fn set_call(&mut self) {
        let wanted = self.side == Side::Server && self.conn.is_none() && !self.set.is_empty();
        self.words.set_call(self.now, wanted);
    }
}
