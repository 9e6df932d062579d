//! Streams as the application sees them: one key per stream, whatever happens to the link below.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Node;
use crate::api::{CommandError, Event, Read, StreamEnd, StreamError, StreamKey};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::peer::{DATAGRAMS_MAX, Standing, Traffic};
use crate::stream::{LinkEvent, LinkStreams, LocalStream, Side};
use crate::time::Instant;
use crate::wire::ServiceName;
use crate::wire::message::Message;

/// Most streams of a node. At the limit `open` is refused, and incoming ones are refused as unavailable.
pub(crate) const STREAMS_MAX: usize = 65_536;
/// Most ended streams whose reason is remembered. At the limit the oldest is forgotten.
const ENDED_MAX: usize = 256;
/// Most bytes that a stream takes before its link is up.
const WAITING_LEN_MAX: usize = 64 * 1024;
/// Longest application datagram: what fits one Data packet with a relay header and the message's own three bytes.
pub const DATAGRAM_DATA_MAX: usize = crate::peer::MESSAGES_LEN_MAX - 3;

/// What a stream of ours holds until its link, and the QUIC connection in it, takes bytes.
#[derive(Clone, Debug)]
struct Waiting {
    service: ServiceName,
    bytes: Vec<u8>,
    finished: bool,
    blocked: bool,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    peer: PeerId,
    /// Where it is in a link's QUIC machine; none before the link is up.
    open: Option<(PeerKey, LocalStream)>,
    waiting: Option<Box<Waiting>>,
    /// All that a stream of ours was given until the peer accepts it: should the peer turn out to have restarted, the
    /// stream begins again on the new link. None from then on, and once it is more than [`WAITING_LEN_MAX`].
    replay: Option<Box<Waiting>>,
    /// It has been taken to another connection.
    again: bool,
}

/// All streams of the node.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    by_key: BTreeMap<StreamKey, Entry>,
    by_local: BTreeMap<(PeerKey, LocalStream), StreamKey>,
    /// Streams that have no link yet.
    unopened: BTreeSet<(PeerId, StreamKey)>,
    /// How many streams each link has.
    counts: BTreeMap<PeerKey, usize>,
    /// Streams that ended lately: a call that crosses the event gets the reason.
    ended: VecDeque<(StreamKey, StreamEnd)>,
    next: u64,
}

impl StreamTable {
    fn add(&mut self, entry: Entry) -> StreamKey {
        let key = StreamKey(self.next);
        self.next += 1;
        let (peer, open) = (entry.peer, entry.open);
        self.by_key.insert(key, entry);
        match open {
            Some(open) => self.link(key, open),
            None => {
                self.unopened.insert((peer, key));
            }
        }
        key
    }

    /// The stream is in a link's QUIC machine now.
    fn link(&mut self, stream: StreamKey, open: (PeerKey, LocalStream)) {
        let Some(entry) = self.by_key.get_mut(&stream) else { return };
        entry.open = Some(open);
        self.unopened.remove(&(entry.peer, stream));
        self.by_local.insert(open, stream);
        *self.counts.entry(open.0).or_insert(0) += 1;
    }

    /// It is in none any more.
    fn unlink(&mut self, stream: StreamKey) {
        let Some(entry) = self.by_key.get_mut(&stream) else { return };
        let Some(open) = entry.open.take() else { return };
        self.unopened.insert((entry.peer, stream));
        self.by_local.remove(&open);
        if let Some(count) = self.counts.get_mut(&open.0) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&open.0);
            }
        }
    }

    /// The stream ended before its time.
    fn end(&mut self, stream: StreamKey, end: StreamEnd) {
        self.remove(stream);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((stream, end));
    }

    /// What a call on a stream that is not there gets.
    fn gone(&self, stream: StreamKey) -> StreamError {
        let ended = self.ended.iter().rev().find(|(key, _)| *key == stream);
        ended.map_or(StreamError::Unknown, |(_, end)| StreamError::Ended(*end))
    }

    fn remove(&mut self, stream: StreamKey) {
        self.unlink(stream);
        if let Some(entry) = self.by_key.remove(&stream) {
            self.unopened.remove(&(entry.peer, stream));
        }
    }

    fn of_peer(&self, peer: PeerKey) -> impl Iterator<Item = (LocalStream, StreamKey)> + '_ {
        let range = (peer, LocalStream(0))..=(peer, LocalStream(u64::MAX));
        self.by_local.range(range).map(|((_, local), key)| (*local, *key))
    }

    /// Streams to this peer that have no link yet.
    fn unopened(&self, id: &PeerId) -> Vec<StreamKey> {
        let range = (*id, StreamKey(0))..=(*id, StreamKey(u64::MAX));
        self.unopened.range(range).map(|(_, stream)| *stream).collect()
    }

    /// Whether a stream to this peer waits for its link.
    pub(crate) fn waits_for(&self, id: &PeerId) -> bool {
        self.unopened.range((*id, StreamKey(0))..=(*id, StreamKey(u64::MAX))).next().is_some()
    }

    fn open(&self, stream: StreamKey) -> Option<(PeerKey, LocalStream)> {
        self.by_key.get(&stream)?.open
    }

    fn waiting(&mut self, stream: StreamKey) -> Option<&mut Waiting> {
        self.by_key.get_mut(&stream)?.waiting.as_deref_mut()
    }
}

impl Node {
    pub(crate) fn open_stream(
        &mut self,
        now: Instant,
        id: PeerId,
        service: &ServiceName,
    ) -> Result<StreamKey, CommandError> {
        if self.streams.by_key.len() >= STREAMS_MAX {
            return Err(CommandError::Limit);
        }
        let waiting = Waiting { service: *service, bytes: Vec::new(), finished: false, blocked: false };
        let waiting = Some(Box::new(waiting));
        let key = self.streams.add(Entry { peer: id, open: None, waiting, replay: None, again: false });
        if let Err(error) = self.reach_peer(now, id) {
            self.streams.remove(key);
            return Err(error);
        }
        self.open_waiting(now, &id);
        Ok(key)
    }

    /// Moves the streams that wait for this peer into its link, as far as there is room.
    pub(crate) fn open_waiting(&mut self, now: Instant, id: &PeerId) {
        let Some(key) = self.peers.up_key(id) else { return };
        let unopened = self.streams.unopened(id);
        if unopened.is_empty() {
            return;
        }
        self.make_user_link(now, key);
        if !self.ensure_streams(now, key) {
            return;
        }
        for stream in unopened {
            let Some(service) = self.streams.waiting(stream).map(|w| w.service) else { continue };
            let Some(streams) = self.streams_of(key) else { return };
            let Ok(local) = streams.open(now, &service) else { break };
            if let Some(entry) = self.streams.by_key.get_mut(&stream) {
                entry.replay = entry.waiting.clone();
            }
            self.streams.link(stream, (key, local));
            self.flush_stream(now, stream);
        }
        self.mark_ready(key);
        self.peers.touch(key);
    }

    /// Hands over what a stream held back, as far as its QUIC connection takes it; true when nothing is held any more.
    fn flush_stream(&mut self, now: Instant, stream: StreamKey) -> bool {
        let Some((key, local)) = self.streams.open(stream) else { return false };
        let Some(entry) = self.streams.by_key.get_mut(&stream) else { return false };
        let Some(waiting) = entry.waiting.as_mut() else { return true };
        let Some(streams) =
            self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()).and_then(|t| t.streams.as_deref_mut())
        else {
            return false;
        };
        if !waiting.bytes.is_empty() {
            match streams.write(now, local, &waiting.bytes) {
                Ok(taken) => drop(waiting.bytes.drain(..taken)),
                Err(StreamError::Blocked) => {}
                // It ended: the event that says so is on its way.
                Err(_) => waiting.bytes.clear(),
            }
        }
        if !waiting.bytes.is_empty() {
            return false;
        }
        if waiting.finished {
            let _ = streams.finish(now, local);
        }
        if waiting.blocked {
            self.events.push_back(Event::Writable { stream });
        }
        entry.waiting = None;
        true
    }

    /// Ends the streams that wait for a peer that cannot be reached.
    pub(crate) fn end_waiting_streams(&mut self, id: &PeerId, end: StreamEnd) {
        for stream in self.streams.unopened(id) {
            self.streams.end(stream, end);
            self.events.push_back(Event::StreamEnded { stream, end });
        }
    }

    /// Ends all streams of a link.
    pub(crate) fn end_streams_of(&mut self, key: PeerKey, end: StreamEnd) {
        let ended: Vec<StreamKey> = self.streams.of_peer(key).map(|(_, stream)| stream).collect();
        for stream in ended {
            if end == StreamEnd::PeerRestarted && self.begin_again(stream) {
                continue;
            }
            self.streams.end(stream, end);
            self.events.push_back(Event::StreamEnded { stream, end });
        }
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.streams = None;
        }
    }

    /// The peer had forgotten the connection: a stream that was only just opened on it goes to the next one, once.
    fn open_again(&mut self, key: PeerKey, local: LocalStream) -> bool {
        let Some(stream) = self.streams.by_local.get(&(key, local)).copied() else { return false };
        let is_first = self.streams.by_key.get_mut(&stream).is_some_and(|e| !core::mem::replace(&mut e.again, true));
        is_first && self.begin_again(stream)
    }

    /// Takes a stream that the peer has not accepted back to where it waits for a link.
    fn begin_again(&mut self, stream: StreamKey) -> bool {
        let Some(entry) = self.streams.by_key.get_mut(&stream) else { return false };
        let Some(replay) = entry.replay.take() else { return false };
        entry.waiting = Some(replay);
        self.streams.unlink(stream);
        true
    }

    /// Makes the link's QUIC machine if there is none; false if the peer may not have one.
    pub(crate) fn ensure_streams(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(key).filter(|p| p.is_up()) else { return false };
        let id = peer.id;
        let standing = self.standing_of(&id);
        let origin = self.origin;
        let keys = &mut self.rng.streams;
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let side = if peer.quic_client { Side::Client } else { Side::Server };
        let traffic = match &mut peer.traffic {
            Some(traffic) => traffic,
            // A refused peer gets its refusal by stream, so that it knows.
            None => peer.traffic.insert(Box::new(Traffic::new(now, standing))),
        };
        // A connection without a stream only rests: that is nobody's use of the link.
        if traffic.streams.as_ref().is_none_or(|streams| !streams.is_idle()) {
            traffic.used = now;
        }
        traffic.streams.get_or_insert_with(|| Box::new(LinkStreams::new(now, origin, side, keys.bytes())));
        true
    }

    /// Hands on what the link's QUIC machine has to say.
    pub(crate) fn drain_streams(&mut self, now: Instant, key: PeerKey) {
        self.mark_ready(key);
        self.peers.touch(key);
        while let Some(event) = self.streams_of(key).and_then(LinkStreams::poll_event) {
            match event {
                LinkEvent::Incoming { stream, service } => self.on_incoming(now, key, stream, service),
                LinkEvent::Opened(local) => {
                    if let Some(stream) = self.streams.by_local.get(&(key, local))
                        && let Some(entry) = self.streams.by_key.get_mut(stream)
                    {
                        entry.replay = None;
                    }
                    self.stream_event(key, local, |stream| Event::StreamOpened { stream });
                }
                LinkEvent::Readable(local) => self.stream_event(key, local, |stream| Event::Readable { stream }),
                LinkEvent::Writable(local) => {
                    let stream = self.streams.by_local.get(&(key, local)).copied();
                    let holds = stream.is_some_and(|s| self.streams.waiting(s).is_some());
                    match stream {
                        Some(stream) if holds => {
                            self.flush_stream(now, stream);
                        }
                        Some(stream) => self.events.push_back(Event::Writable { stream }),
                        None => {}
                    }
                }
                LinkEvent::Stopped(local) => {
                    self.stream_event(key, local, |stream| Event::StreamStopped { stream });
                }
                LinkEvent::Ended { stream: local, end: StreamEnd::PeerGone } if self.open_again(key, local) => {}
                LinkEvent::Ended { stream: local, end } => {
                    self.stream_event(key, local, |stream| Event::StreamEnded { stream, end });
                    if let Some(stream) = self.streams.by_local.get(&(key, local)).copied() {
                        self.streams.end(stream, end);
                    }
                }
                LinkEvent::Lost => {}
            }
        }
        self.forget_finished(key);
        if let Some(id) = self.peers.get(key).map(|p| p.id)
            && self.streams.waits_for(&id)
        {
            self.open_waiting(now, &id);
        }
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut())
            && traffic.streams.as_ref().is_some_and(|s| s.is_disposable())
        {
            traffic.streams = None;
            // Room for a whole train; another connection that still sends makes it anew.
            self.quic_buf = Vec::new();
        }
    }

    fn stream_event(&mut self, key: PeerKey, local: LocalStream, event: impl FnOnce(StreamKey) -> Event) {
        if let Some(&stream) = self.streams.by_local.get(&(key, local)) {
            self.events.push_back(event(stream));
        }
    }

    /// Streams that ended cleanly on both sides are forgotten without an event.
    fn forget_finished(&mut self, key: PeerKey) {
        let Some(streams) = self.peers.get(key).and_then(|p| p.traffic.as_ref()).and_then(|t| t.streams.as_deref())
        else {
            return;
        };
        if self.streams.counts.get(&key).copied().unwrap_or(0) == streams.len() {
            return;
        }
        let over: Vec<StreamKey> =
            self.streams.of_peer(key).filter(|(local, _)| !streams.contains(*local)).map(|(_, s)| s).collect();
        for stream in over {
            self.streams.remove(stream);
        }
    }

    fn on_incoming(&mut self, now: Instant, key: PeerKey, local: LocalStream, service: ServiceName) {
        let Some(id) = self.peers.get(key).map(|p| p.id) else { return };
        let refusal = match self.config.services.get(&service) {
            None => Some(StreamEnd::UnknownService),
            Some(access) if !access.allows(&id) => Some(StreamEnd::NotAllowed),
            Some(_) if self.streams.by_key.len() >= STREAMS_MAX => Some(StreamEnd::Unavailable),
            Some(_) => None,
        };
        if let Some(why) = refusal {
            if let Some(streams) = self.streams_of(key) {
                let _ = streams.refuse(now, local, why);
            }
            return;
        }
        let stream =
            self.streams.add(Entry { peer: id, open: Some((key, local)), waiting: None, replay: None, again: false });
        self.events.push_back(Event::StreamIncoming { stream, peer: id, service });
    }

    /// Runs a call on the QUIC machine that holds the stream.
    fn on_stream<T>(
        &mut self,
        now: Instant,
        stream: StreamKey,
        call: impl FnOnce(&mut LinkStreams, LocalStream) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let (key, local) = self.streams.open(stream).ok_or_else(|| self.streams.gone(stream))?;
        let traffic = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()).ok_or(StreamError::Unknown)?;
        traffic.used = now;
        let streams = traffic.streams.as_deref_mut().ok_or(StreamError::Unknown)?;
        let result = call(streams, local);
        self.drain_streams(now, key);
        result
    }

    pub(crate) fn accept_stream(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        self.on_stream(now, stream, |streams, local| streams.accept(now, local))?;
        // A service took the peer in: from now on it may know our addresses.
        if let Some((key, _)) = self.streams.open(stream) {
            self.accept_peer(now, key);
        }
        Ok(())
    }

    pub(crate) fn refuse_stream(&mut self, now: Instant, stream: StreamKey, why: StreamEnd) -> Result<(), StreamError> {
        let result = self.on_stream(now, stream, |streams, local| streams.refuse(now, local, why));
        self.streams.remove(stream);
        result
    }

    pub(crate) fn write_stream(&mut self, now: Instant, stream: StreamKey, data: &[u8]) -> Result<usize, StreamError> {
        if let Some(waiting) = self.streams.waiting(stream) {
            if waiting.finished {
                return Err(StreamError::Finished);
            }
            let room = WAITING_LEN_MAX - waiting.bytes.len();
            let taken = data.len().min(room);
            waiting.bytes.extend_from_slice(&data[..taken]);
            waiting.blocked |= taken < data.len();
            self.note_replay(stream, &data[..taken], false);
            return if taken == 0 && !data.is_empty() { Err(StreamError::Blocked) } else { Ok(taken) };
        }
        let taken = self.on_stream(now, stream, |streams, local| streams.write(now, local, data))?;
        self.note_replay(stream, &data[..taken], false);
        Ok(taken)
    }

    pub(crate) fn read_stream(&mut self, now: Instant, stream: StreamKey, buf: &mut [u8]) -> Result<Read, StreamError> {
        if self.streams.by_key.get(&stream).is_some_and(|e| e.open.is_none()) {
            return Ok(Read::Blocked);
        }
        self.on_stream(now, stream, |streams, local| streams.read(now, local, buf))
    }

    pub(crate) fn finish_stream(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        if let Some(waiting) = self.streams.waiting(stream) {
            waiting.finished = true;
            self.note_replay(stream, &[], true);
            return Ok(());
        }
        self.on_stream(now, stream, |streams, local| streams.finish(now, local))?;
        self.note_replay(stream, &[], true);
        Ok(())
    }

    fn note_replay(&mut self, stream: StreamKey, data: &[u8], finished: bool) {
        let Some(entry) = self.streams.by_key.get_mut(&stream) else { return };
        let Some(replay) = &mut entry.replay else { return };
        if replay.bytes.len() + data.len() > WAITING_LEN_MAX {
            entry.replay = None;
            return;
        }
        replay.bytes.extend_from_slice(data);
        replay.finished |= finished;
    }

    pub(crate) fn reset_stream(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        if let Some(entry) = self.streams.by_key.get_mut(&stream) {
            entry.waiting = None;
            entry.replay = None;
            if entry.open.is_none() {
                self.streams.remove(stream);
                return Ok(());
            }
        }
        self.on_stream(now, stream, |streams, local| streams.reset(now, local, code))
    }

    pub(crate) fn stop_stream(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        if self.streams.by_key.get(&stream).is_some_and(|e| e.open.is_none()) {
            return Err(StreamError::Blocked);
        }
        self.on_stream(now, stream, |streams, local| streams.stop(now, local, code))
    }

    // ---- datagrams ----

    pub(crate) fn send_app_datagram(&mut self, now: Instant, id: &PeerId, data: &[u8]) -> Result<(), CommandError> {
        if data.len() > DATAGRAM_DATA_MAX {
            return Err(CommandError::Datagram);
        }
        let key = self.peers.up_key(id).ok_or(CommandError::NotConnected)?;
        if self.peers.queued() >= crate::peer::OUTGOING_MAX / 2 {
            return Err(CommandError::Datagram);
        }
        self.make_user_link(now, key);
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.used = now;
        }
        self.peers.send(key, &Message::Datagram(data));
        Ok(())
    }

    pub(crate) fn on_app_datagram(&mut self, now: Instant, key: PeerKey, data: &[u8]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        // Datagrams are for peers that some service lets in, or that we called.
        let Some(traffic) = peer.traffic.as_mut().filter(|t| t.standing != Standing::Refused) else { return };
        traffic.used = now;
        if traffic.datagrams.len() >= DATAGRAMS_MAX {
            traffic.datagrams.pop_front();
        }
        traffic.datagrams.push_back(data.into());
        self.events.push_back(Event::Datagram { peer: id });
    }

    /// How far we trust a peer, by what our services say.
    pub(crate) fn standing_of(&self, id: &PeerId) -> Standing {
        if let Some(traffic) = self.peers.by_id(id).and_then(|p| p.traffic.as_ref())
            && traffic.standing == Standing::Accepted
        {
            return Standing::Accepted;
        }
        if self.calls.contains_key(id) || self.streams.waits_for(id) {
            return Standing::Accepted;
        }
        let mut accesses = self.config.services.values().chain([&self.config.contacts]);
        if accesses.any(|access| access.allows(id)) { Standing::Accepted } else { Standing::Refused }
    }
}
