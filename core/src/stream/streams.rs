//! [`Streams`]: all streams and datagrams of the application, and each link's QUIC.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant as StdInstant;

use super::authorization::Services;
use super::event::{LinkEvent, LocalStream, Side};
use super::link::LinkStreams;
use super::ready::Ready;
use super::refusals::Refusals;
use super::table::Table;
use crate::api::{Access, CommandError, Event, Read, StreamEnd, StreamError, StreamKey};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Change;
use crate::queue;
use crate::random::{KeyRng, Seed};
use crate::time::Instant;
use crate::wire::ServiceName;

/// Room kept for outputs when there are none.
const OUTPUTS_KEPT: usize = 4;
/// Most datagrams kept for the application, of each peer. At the limit the oldest goes.
pub(super) const DATAGRAMS_MAX: usize = 64;

/// A link that is up, as it is shown here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) key: PeerKey,
    pub(crate) id: PeerId,
    /// Which end of it we are to QUIC.
    pub(crate) side: Side,
    /// Something is open to the peer, or we called it.
    pub(crate) is_accepted: bool,
}

/// What is wanted of others, to be carried out in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// For the application.
    Event(Event),
    /// The link's deadline may have moved.
    Touched(PeerKey),
    /// The application or the peer uses the link.
    Used(PeerKey),
    /// The link has streams now, or has none any more.
    Busy {
        /// Which.
        link: PeerKey,
        /// Whether it has any.
        busy: bool,
    },
    /// Streams wait for this peer although its link may be up: [`Streams::open_waiting`].
    Waits(PeerId),
}

/// Packets that a link is to seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Train<'a> {
    /// One after the other.
    pub(crate) bytes: &'a [u8],
    /// The length of each; the last may be shorter.
    pub(crate) segment: usize,
    /// QUIC awaits an answer. Mere acknowledgements await nothing; words of this room are few and repeated.
    pub(crate) awaits: bool,
    /// Somebody uses the link: that its connection rests is nobody's use.
    pub(crate) is_use: bool,
}

/// What a link carries for the application.
struct Link {
    id: PeerId,
    quic: Option<Box<LinkStreams>>,
    /// As last told.
    busy: bool,
    /// Received, and not asked for yet.
    datagrams: VecDeque<Box<[u8]>>,
}

impl Link {
    fn new(id: PeerId) -> Self {
        Self { id, quic: None, busy: false, datagrams: VecDeque::new() }
    }
}

/// All streams and datagrams of the application, each link's QUIC, and whose turn it is to send.
pub(crate) struct Streams {
    services: Services,
    table: Table,
    links: BTreeMap<PeerKey, Link>,
    ready: Ready,
    refusals: Refusals,
    /// What is to be sent of one link, for all of them in turn.
    buf: Vec<u8>,
    /// Seeds of QUIC's own generators.
    keys: KeyRng,
    origin: StdInstant,
    outputs: VecDeque<Output>,
}

impl Streams {
    /// `origin` is std's moment of our [`Instant::ZERO`], for QUIC.
    pub(crate) fn new(seed: &Seed, origin: StdInstant, services: Services) -> Self {
        Self {
            services,
            table: Table::default(),
            links: BTreeMap::new(),
            ready: Ready::default(),
            refusals: Refusals::default(),
            buf: Vec::new(),
            keys: seed.keys("stream"),
            origin,
            outputs: VecDeque::new(),
        }
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    /// The next thing wanted of others.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        queue::pop(&mut self.outputs, OUTPUTS_KEPT)
    }

    // ---- who may use what ----

    /// Whom the services let in.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Offers a service, or changes who may use it.
    pub(crate) fn offer(&mut self, service: ServiceName, access: Access) -> Result<(), CommandError> {
        self.services.offer(service, access)
    }

    /// Withdraws one.
    pub(crate) fn withdraw(&mut self, service: &ServiceName) {
        self.services.withdraw(service);
    }

    // ---- the application's streams ----

    /// A new stream to a service of a peer; it waits for [`Streams::open_waiting`]. Bytes may be written at once.
    pub(crate) fn open(&mut self, id: PeerId, service: &ServiceName) -> Result<StreamKey, CommandError> {
        if self.table.is_full() {
            return Err(CommandError::Limit);
        }
        Ok(self.table.add_waiting(id, *service))
    }

    /// Takes back an [`Streams::open`], without a word.
    pub(crate) fn forget(&mut self, stream: StreamKey) {
        self.table.remove(stream);
    }

    /// Takes an incoming stream.
    pub(crate) fn accept(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        self.with(now, stream, |quic, local| quic.accept(now, local))
    }

    /// Refuses one.
    pub(crate) fn refuse(&mut self, now: Instant, stream: StreamKey, why: StreamEnd) -> Result<(), StreamError> {
        let result = self.with(now, stream, |quic, local| quic.refuse(now, local, why));
        self.table.remove(stream);
        result
    }

    /// Takes as many bytes as fit.
    pub(crate) fn write(&mut self, now: Instant, stream: StreamKey, data: &[u8]) -> Result<usize, StreamError> {
        if let Some(held) = self.table.hold(stream, data) {
            return held;
        }
        let taken = self.with(now, stream, |quic, local| quic.write(now, local, data))?;
        self.table.note_replay(stream, &data[..taken], false);
        Ok(taken)
    }

    /// Reads bytes in order.
    pub(crate) fn read(&mut self, now: Instant, stream: StreamKey, buf: &mut [u8]) -> Result<Read, StreamError> {
        if self.table.is_unopened(stream) {
            return Ok(Read::Blocked);
        }
        self.with(now, stream, |quic, local| quic.read(now, local, buf))
    }

    /// No more bytes will be written.
    pub(crate) fn finish(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        match self.table.waiting(stream) {
            Some(waiting) => waiting.finished = true,
            None => self.with(now, stream, |quic, local| quic.finish(now, local))?,
        }
        self.table.note_replay(stream, &[], true);
        Ok(())
    }

    /// Drops the writing side.
    pub(crate) fn reset(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        self.table.done_waiting(stream);
        self.table.drop_replay(stream);
        if self.table.is_unopened(stream) {
            self.table.remove(stream);
            return Ok(());
        }
        self.with(now, stream, |quic, local| quic.reset(now, local, code))
    }

    /// Wants no more bytes.
    pub(crate) fn stop(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        if self.table.is_unopened(stream) {
            return Err(StreamError::Blocked);
        }
        self.with(now, stream, |quic, local| quic.stop(now, local, code))
    }

    /// Runs a call on the QUIC machine that holds the stream.
    fn with<T>(
        &mut self,
        now: Instant,
        stream: StreamKey,
        call: impl FnOnce(&mut LinkStreams, LocalStream) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let (key, local) = self.table.open(stream).ok_or_else(|| self.table.gone(stream))?;
        self.outputs.push_back(Output::Used(key));
        let result = call(self.quic(key).ok_or(StreamError::Unknown)?, local);
        self.drain(now, key);
        result
    }

    // ---- streams without a link ----

    /// Whether a stream to this peer waits for its link.
    pub(crate) fn waits_for(&self, id: &PeerId) -> bool {
        self.table.waits_for(id)
    }

    /// Moves the streams that wait for this peer into its link, as far as there is room.
    pub(crate) fn open_waiting(&mut self, now: Instant, view: &View) {
        if !self.waits_for(&view.id) {
            return;
        }
        self.ensure(now, view);
        // One at a time: a link has room for few, and there may be many.
        while let Some((stream, service)) = self.table.first_unopened(&view.id) {
            let Some(quic) = self.quic(view.key) else { return };
            let Ok(local) = quic.open(now, &service) else { break };
            self.table.link(stream, (view.key, local));
            self.flush(now, stream);
        }
        self.note_change(view.key);
        self.dispose(view.key);
    }

    /// Ends the streams that wait for a peer that cannot be reached.
    pub(crate) fn end_waiting(&mut self, id: &PeerId, end: StreamEnd) {
        while let Some((stream, _)) = self.table.first_unopened(id) {
            self.table.end(stream, end);
            self.outputs.push_back(Output::Event(Event::StreamEnded { stream, end }));
        }
    }

    /// Hands over what a stream held back, as far as its QUIC connection takes it.
    fn flush(&mut self, now: Instant, stream: StreamKey) {
        let Some((key, local)) = self.table.open(stream) else { return };
        let Some(waiting) = self.table.waiting(stream) else { return };
        let Some(quic) = self.links.get_mut(&key).and_then(|link| link.quic.as_deref_mut()) else { return };
        if !waiting.bytes.is_empty() {
            match quic.write(now, local, &waiting.bytes) {
                Ok(taken) => drop(waiting.bytes.drain(..taken)),
                Err(StreamError::Blocked) => {}
                // It ended: the event that says so is on its way.
                Err(_) => waiting.bytes.clear(),
            }
        }
        if !waiting.bytes.is_empty() {
            return;
        }
        if waiting.finished {
            let _ = quic.finish(now, local);
        }
        if waiting.blocked {
            self.outputs.push_back(Output::Event(Event::Writable { stream }));
        }
        self.table.done_waiting(stream);
    }

    // ---- links ----

    /// The plaintext of one Stream packet of a link. A peer that nothing is open to gets no more than a word for it;
    /// what already runs on its link stays.
    pub(crate) fn handle_packet(&mut self, now: Instant, view: &View, plain: &[u8]) {
        if !view.is_accepted && self.quic(view.key).is_none() {
            if self.refusals.on_packet(now, view.key, plain) {
                self.ready.mark(view.key);
            }
            return;
        }
        self.ensure(now, view).handle_packet(now, plain);
        self.drain(now, view.key);
    }

    /// When a link's QUIC waits for something.
    pub(crate) fn poll_timeout_of(&mut self, key: PeerKey) -> Option<Instant> {
        self.quic(key)?.poll_timeout()
    }

    /// Does what is due on a link.
    pub(crate) fn handle_timeout_of(&mut self, now: Instant, key: PeerKey) {
        if self.poll_timeout_of(key).is_some_and(|at| at <= now)
            && let Some(quic) = self.quic(key)
        {
            quic.handle_timeout(now);
            self.drain(now, key);
        }
    }

    /// The link's packets take another path now.
    pub(crate) fn on_path(&mut self, now: Instant, key: PeerKey, change: Change) {
        if let Some(quic) = self.quic(key) {
            match change {
                Change::Upgrade => quic.path_upgraded(now),
                Change::First | Change::Failover => quic.path_failed_over(now),
            }
        }
    }

    /// The link's path works again after an outage: QUIC should not sit out its own back-off.
    pub(crate) fn on_recovered(&mut self, now: Instant, key: PeerKey) {
        if let Some(quic) = self.quic(key) {
            quic.path_failed_over(now);
            self.ready.mark(key);
        }
    }

    /// The link is gone, or another one has its place: its streams end, but for those that may begin again there.
    pub(crate) fn on_link_gone(&mut self, key: PeerKey, end: StreamEnd) {
        let ended: Vec<StreamKey> = self.table.of_link(key).map(|(_, stream)| stream).collect();
        for stream in ended {
            if end == StreamEnd::PeerRestarted && self.table.begin_again(stream) {
                continue;
            }
            self.table.end(stream, end);
            self.outputs.push_back(Output::Event(Event::StreamEnded { stream, end }));
        }
        self.refusals.forget(key);
        if self.links.remove(&key).is_some_and(|link| link.busy) {
            self.outputs.push_back(Output::Busy { link: key, busy: false });
        }
    }

    /// Ends what runs on a link with a goodbye: this node leaves.
    pub(crate) fn close(&mut self, now: Instant, key: PeerKey) {
        if let Some(quic) = self.quic(key) {
            quic.close(now);
            self.forget_finished(key);
            self.note_busy(key);
        }
    }

    // ---- what leaves ----

    /// The link may have packets.
    pub(crate) fn mark_ready(&mut self, key: PeerKey) {
        self.ready.mark(key);
    }

    /// Whose turn it is to send. [`Streams::turn`] ends the turn.
    pub(crate) fn next_ready(&self) -> Option<PeerKey> {
        self.ready.first()
    }

    /// The turn is over; who has sent may have more.
    pub(crate) fn turn(&mut self, has_sent: bool) {
        self.ready.turn(has_sent);
    }

    /// What a link has to send: at most `segments_max` packets of at most `packet_len_max` bytes.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        key: PeerKey,
        segments_max: usize,
        packet_len_max: usize,
    ) -> Option<Train<'_>> {
        if let Some(word) = self.refusals.take(key) {
            self.buf.clear();
            word.encode(&mut self.buf);
            return Some(Train { bytes: &self.buf, segment: word.len(), awaits: false, is_use: false });
        }
        let quic = self.links.get_mut(&key)?.quic.as_deref_mut()?;
        let asked = quic.asked();
        let segment = quic.poll_transmit(now, segments_max, packet_len_max, &mut self.buf)?;
        if self.buf.is_empty() {
            return None;
        }
        let (awaits, is_use) = (quic.asked() != asked, quic.is_in_use());
        Some(Train { bytes: &self.buf, segment, awaits, is_use })
    }

    // ---- datagrams ----

    /// An application's datagram came from a peer that may send some.
    pub(crate) fn handle_datagram(&mut self, key: PeerKey, id: PeerId, data: &[u8]) {
        let link = self.links.entry(key).or_insert_with(|| Link::new(id));
        if link.datagrams.len() >= DATAGRAMS_MAX {
            link.datagrams.pop_front();
        }
        link.datagrams.push_back(data.into());
        self.outputs.push_back(Output::Used(key));
        self.outputs.push_back(Output::Event(Event::Datagram { peer: id }));
    }

    /// The next one: copied to `buf` (cut if too short), and its length.
    pub(crate) fn recv_datagram(&mut self, key: PeerKey, buf: &mut [u8]) -> Option<usize> {
        let datagram = self.links.get_mut(&key)?.datagrams.pop_front()?;
        let len = datagram.len().min(buf.len());
        buf.get_mut(..len)?.copy_from_slice(&datagram[..len]);
        Some(len)
    }

    // ---- one link's QUIC ----

    fn quic(&mut self, key: PeerKey) -> Option<&mut LinkStreams> {
        self.links.get_mut(&key)?.quic.as_deref_mut()
    }

    /// The link's QUIC machine, made if there is none.
    fn ensure(&mut self, now: Instant, view: &View) -> &mut LinkStreams {
        self.refusals.forget(view.key);
        let link = self.links.entry(view.key).or_insert_with(|| Link::new(view.id));
        // A connection without a stream only rests: that is nobody's use of the link.
        if link.quic.as_ref().is_none_or(|quic| quic.is_in_use()) {
            self.outputs.push_back(Output::Used(view.key));
        }
        let (origin, keys) = (self.origin, &mut self.keys);
        link.quic.get_or_insert_with(|| Box::new(LinkStreams::new(now, origin, view.side, keys.bytes())))
    }

    /// Hands on what the link's QUIC machine has to say.
    fn drain(&mut self, now: Instant, key: PeerKey) {
        self.note_change(key);
        while let Some(event) = self.quic(key).and_then(LinkStreams::poll_event) {
            self.on_event(now, key, event);
        }
        self.forget_finished(key);
        self.note_busy(key);
        match self.links.get(&key).map(|link| link.id) {
            Some(id) if self.table.waits_for(&id) => self.outputs.push_back(Output::Waits(id)),
            _ => self.dispose(key),
        }
    }

    fn note_change(&mut self, key: PeerKey) {
        self.ready.mark(key);
        self.outputs.push_back(Output::Touched(key));
        self.note_busy(key);
    }

    fn note_busy(&mut self, key: PeerKey) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let busy = link.quic.as_ref().is_some_and(|quic| quic.is_in_use());
        if core::mem::replace(&mut link.busy, busy) != busy {
            self.outputs.push_back(Output::Busy { link: key, busy });
        }
    }

    /// Drops a QUIC machine that has nothing to lose, and what is known of a link on which nothing is left.
    fn dispose(&mut self, key: PeerKey) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if link.quic.as_ref().is_some_and(|quic| quic.is_disposable()) {
            link.quic = None;
            // Room for a whole train; another connection that still sends makes it anew.
            self.buf = Vec::new();
        }
        if link.quic.is_none() && !link.busy && link.datagrams.is_empty() {
            self.links.remove(&key);
        }
        if self.links.is_empty() {
            // An empty tree would keep its root.
            self.links = BTreeMap::new();
        }
    }

    fn on_event(&mut self, now: Instant, key: PeerKey, event: LinkEvent) {
        let tell = |streams: &mut Self, local, event: fn(StreamKey) -> Event| {
            if let Some(stream) = streams.table.of_local(key, local) {
                streams.outputs.push_back(Output::Event(event(stream)));
            }
        };
        match event {
            LinkEvent::Incoming { stream, service } => self.on_incoming(now, key, stream, service),
            LinkEvent::Opened(local) => {
                if let Some(stream) = self.table.of_local(key, local) {
                    self.table.drop_replay(stream);
                }
                tell(self, local, |stream| Event::StreamOpened { stream });
            }
            LinkEvent::Readable(local) => tell(self, local, |stream| Event::Readable { stream }),
            LinkEvent::Writable(local) => match self.table.of_local(key, local) {
                Some(stream) if self.table.waiting(stream).is_some() => self.flush(now, stream),
                _ => tell(self, local, |stream| Event::Writable { stream }),
            },
            LinkEvent::Stopped(local) => tell(self, local, |stream| Event::StreamStopped { stream }),
            LinkEvent::Ended { stream: local, end } => self.on_ended(key, local, end),
            LinkEvent::Lost => {}
        }
    }

    fn on_ended(&mut self, key: PeerKey, local: LocalStream, end: StreamEnd) {
        let Some(stream) = self.table.of_local(key, local) else { return };
        // The peer had forgotten the connection: a stream that was only just opened on it goes to the next one, once.
        if end == StreamEnd::PeerGone && self.table.begin_again_once(stream) {
            return;
        }
        self.outputs.push_back(Output::Event(Event::StreamEnded { stream, end }));
        self.table.end(stream, end);
    }

    fn on_incoming(&mut self, now: Instant, key: PeerKey, local: LocalStream, service: ServiceName) {
        let Some(id) = self.links.get(&key).map(|link| link.id) else { return };
        let full = self.table.is_full().then_some(StreamEnd::Unavailable);
        if let Some(why) = self.services.refusal(&service, &id).or(full) {
            if let Some(quic) = self.quic(key) {
                let _ = quic.refuse(now, local, why);
            }
            return;
        }
        let stream = self.table.add_incoming(id, (key, local));
        self.outputs.push_back(Output::Event(Event::StreamIncoming { stream, peer: id, service }));
    }

    /// Streams that ended cleanly on both sides are forgotten without an event.
    fn forget_finished(&mut self, key: PeerKey) {
        let Some(quic) = self.links.get(&key).and_then(|link| link.quic.as_deref()) else { return };
        if self.table.count_of(key) == quic.len() {
            return;
        }
        let over = self.table.of_link(key).filter(|(local, _)| !quic.contains(*local)).map(|(_, stream)| stream);
        for stream in over.collect::<Vec<_>>() {
            self.table.remove(stream);
        }
    }
}

#[cfg(any(test, feature = "operations"))]
impl Streams {
    /// What must hold after every call.
    pub(super) fn assert_consistent(&self) {
        self.table.assert_consistent();
        for (key, link) in &self.links {
            let streams = link.quic.as_ref().map_or(0, |quic| quic.len());
            let in_use = link.quic.as_ref().is_some_and(|quic| quic.is_in_use());
            assert_eq!(link.busy, in_use, "it was told whether the link has streams");
            assert!(self.table.count_of(*key) <= streams, "the application knows of no stream that is not there");
            assert!(link.datagrams.len() <= DATAGRAMS_MAX);
            if let Some(quic) = &link.quic {
                quic.assert_consistent();
            }
        }
    }

    /// What must hold when all links are gone.
    pub(super) fn assert_empty(&self) {
        assert!(self.links.is_empty() && self.refusals.is_empty() && self.outputs.is_empty());
        assert_eq!(self.table.len(), 0);
    }

    /// Whether a link has a QUIC machine.
    #[cfg(test)]
    pub(super) fn has_quic(&self, key: PeerKey) -> bool {
        self.links.get(&key).is_some_and(|link| link.quic.is_some())
    }
}
