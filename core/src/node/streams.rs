//! Streams as the application sees them: one key per stream, whatever happens to the link below.

use std::collections::BTreeMap;

use super::peer::{DATAGRAMS_MAX, PeerKey, Standing, Traffic};
use super::{Access, CommandError, Event, Node, Read, StreamEnd, StreamError, StreamKey};
use crate::identity::PeerId;
use crate::stream::{LocalStream, Side, Streams, StreamsEvent};
use crate::time::Instant;
use crate::wire::ServiceName;
use crate::wire::message::Message;

/// Most streams of a node. At the limit `open` is refused, and incoming ones are refused as unavailable.
pub(crate) const STREAMS_MAX: usize = 65_536;
/// Most bytes that a stream takes before its link is up.
const WAITING_LEN_MAX: usize = 64 * 1024;
/// Longest application datagram: what fits one Data packet with a relay header and the message's own three bytes.
pub const DATAGRAM_DATA_MAX: usize = super::send::MESSAGES_LEN_MAX - 3;

/// What a stream of ours waits with until its link is up.
#[derive(Debug)]
pub(crate) struct Waiting {
    service: ServiceName,
    bytes: Vec<u8>,
    finished: bool,
    blocked: bool,
}

/// Where a stream is.
#[derive(Debug)]
enum Place {
    /// Its link is not up yet.
    Waiting(Waiting),
    /// In a link's QUIC connection.
    Open(PeerKey, LocalStream),
}

/// All streams of the node.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    by_key: BTreeMap<StreamKey, (PeerId, Place)>,
    by_local: BTreeMap<(PeerKey, LocalStream), StreamKey>,
    next: u64,
}

impl StreamTable {
    fn add(&mut self, peer: PeerId, place: Place) -> StreamKey {
        let key = StreamKey(self.next);
        self.next += 1;
        if let Place::Open(peer, local) = place {
            self.by_local.insert((peer, local), key);
        }
        self.by_key.insert(key, (peer, place));
        key
    }

    fn remove(&mut self, key: StreamKey) {
        if let Some((_, Place::Open(peer, local))) = self.by_key.remove(&key) {
            self.by_local.remove(&(peer, local));
        }
    }

    fn of_peer(&self, peer: PeerKey) -> impl Iterator<Item = (LocalStream, StreamKey)> + '_ {
        let range = (peer, LocalStream(0))..=(peer, LocalStream(u64::MAX));
        self.by_local.range(range).map(|((_, local), key)| (*local, *key))
    }

    /// Whether a stream to this peer waits for its link.
    pub(crate) fn waits_for(&self, id: &PeerId) -> bool {
        self.by_key.values().any(|(peer, place)| peer == id && matches!(place, Place::Waiting(_)))
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
        self.reach_peer(now, id)?;
        let waiting = Waiting { service: *service, bytes: Vec::new(), finished: false, blocked: false };
        let key = self.streams.add(id, Place::Waiting(waiting));
        self.open_waiting(now, &id);
        Ok(key)
    }

    /// Moves the streams that wait for this peer into its link, as far as there is room.
    pub(crate) fn open_waiting(&mut self, now: Instant, id: &PeerId) {
        let Some(key) = self.peers.key_of(id).filter(|k| self.peers.get(*k).is_some_and(|p| p.is_up())) else { return };
        let waiting: Vec<StreamKey> = self
            .streams
            .by_key
            .iter()
            .filter(|(_, (peer, place))| peer == id && matches!(place, Place::Waiting(_)))
            .map(|(stream, _)| *stream)
            .collect();
        if waiting.is_empty() {
            return;
        }
        self.make_user_link(now, key);
        if !self.ensure_streams(now, key) {
            return;
        }
        for stream in waiting {
            let Some((_, place)) = self.streams.by_key.get_mut(&stream) else { continue };
            let Place::Waiting(waiting) = place else { continue };
            let Some(streams) =
                self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()).and_then(|t| t.streams.as_deref_mut())
            else {
                return;
            };
            let Ok(local) = streams.open(now, &waiting.service) else { break };
            let taken = if waiting.bytes.is_empty() { 0 } else { streams.write(now, local, &waiting.bytes).unwrap_or(0) };
            debug_assert_eq!(taken, waiting.bytes.len(), "the send window holds what waits");
            if waiting.finished {
                let _ = streams.finish(now, local);
            }
            let blocked = waiting.blocked;
            *place = Place::Open(key, local);
            self.streams.by_local.insert((key, local), stream);
            if blocked {
                self.events.push_back(Event::Writable { stream });
            }
        }
        self.mark_ready(key);
        self.touched.push(key);
    }

    /// Ends the streams that wait for a peer that cannot be reached.
    pub(crate) fn end_waiting_streams(&mut self, id: &PeerId, end: StreamEnd) {
        let ended: Vec<StreamKey> = self
            .streams
            .by_key
            .iter()
            .filter(|(_, (peer, place))| peer == id && matches!(place, Place::Waiting(_)))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in ended {
            self.streams.remove(stream);
            self.events.push_back(Event::StreamEnded { stream, end });
        }
    }

    /// Ends all streams of a link.
    pub(crate) fn end_streams_of(&mut self, key: PeerKey, end: StreamEnd) {
        let ended: Vec<StreamKey> = self.streams.of_peer(key).map(|(_, stream)| stream).collect();
        for stream in ended {
            self.streams.remove(stream);
            self.events.push_back(Event::StreamEnded { stream, end });
        }
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.streams = None;
        }
    }

    /// Makes the link's QUIC machine if there is none; false if the peer may not have one.
    pub(crate) fn ensure_streams(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(key).filter(|p| p.is_up()) else { return false };
        let id = peer.id;
        let standing = self.standing_of(&id);
        let origin = self.origin;
        let mut seed = [0; 32];
        self.rng.keys.fill(&mut seed);
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let side = if peer.quic_client { Side::Client } else { Side::Server };
        let traffic = match &mut peer.traffic {
            Some(traffic) => traffic,
            None if standing == Standing::Refused => return false,
            None => peer.traffic.insert(Box::new(Traffic::new(now, standing))),
        };
        traffic.used = now;
        traffic.streams.get_or_insert_with(|| Box::new(Streams::new(now, origin, side, seed)));
        true
    }

    /// Hands on what the link's QUIC machine has to say.
    pub(crate) fn drain_streams(&mut self, now: Instant, key: PeerKey) {
        self.mark_ready(key);
        self.touched.push(key);
        while let Some(event) = self.streams_of(key).and_then(Streams::poll_event) {
            match event {
                StreamsEvent::Incoming { stream, service } => self.on_incoming(now, key, stream, service),
                StreamsEvent::Opened(local) => {
                    self.stream_event(key, local, |stream| Event::StreamOpened { stream });
                }
                StreamsEvent::Readable(local) => self.stream_event(key, local, |stream| Event::Readable { stream }),
                StreamsEvent::Writable(local) => self.stream_event(key, local, |stream| Event::Writable { stream }),
                StreamsEvent::Stopped(local) => {
                    self.stream_event(key, local, |stream| Event::StreamStopped { stream });
                }
                StreamsEvent::Ended { stream: local, end } => {
                    self.stream_event(key, local, |stream| Event::StreamEnded { stream, end });
                    if let Some(stream) = self.streams.by_local.get(&(key, local)).copied() {
                        self.streams.remove(stream);
                    }
                }
                StreamsEvent::Lost => {}
            }
        }
        self.forget_finished(key);
        if let Some(id) = self.peers.get(key).map(|p| p.id)
            && self.streams.waits_for(&id)
        {
            self.open_waiting(now, &id);
        }
    }

    fn stream_event(&mut self, key: PeerKey, local: LocalStream, event: impl FnOnce(StreamKey) -> Event) {
        if let Some(&stream) = self.streams.by_local.get(&(key, local)) {
            self.events.push_back(event(stream));
        }
    }

    /// Streams that ended cleanly on both sides are forgotten without an event.
    fn forget_finished(&mut self, key: PeerKey) {
        let Some(streams) =
            self.peers.get(key).and_then(|p| p.traffic.as_ref()).and_then(|t| t.streams.as_deref())
        else {
            return;
        };
        if self.streams.of_peer(key).count() == streams.len() {
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
        let stream = self.streams.add(id, Place::Open(key, local));
        self.events.push_back(Event::StreamIncoming { stream, peer: id, service });
    }

    /// Runs a call on the QUIC machine that holds the stream.
    fn on_stream<T>(
        &mut self,
        now: Instant,
        stream: StreamKey,
        call: impl FnOnce(&mut Streams, LocalStream) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let Some((_, Place::Open(key, local))) = self.streams.by_key.get(&stream) else {
            return Err(StreamError::Unknown);
        };
        let (key, local) = (*key, *local);
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
        if let Some((_, Place::Open(key, _))) = self.streams.by_key.get(&stream) {
            let key = *key;
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
        if let Some((_, Place::Waiting(waiting))) = self.streams.by_key.get_mut(&stream) {
            if waiting.finished {
                return Err(StreamError::Finished);
            }
            let room = WAITING_LEN_MAX - waiting.bytes.len();
            let taken = data.len().min(room);
            waiting.bytes.extend_from_slice(&data[..taken]);
            waiting.blocked |= taken < data.len();
            return if taken == 0 && !data.is_empty() { Err(StreamError::Blocked) } else { Ok(taken) };
        }
        self.on_stream(now, stream, |streams, local| streams.write(now, local, data))
    }

    pub(crate) fn read_stream(&mut self, now: Instant, stream: StreamKey, buf: &mut [u8]) -> Result<Read, StreamError> {
        if let Some((_, Place::Waiting(_))) = self.streams.by_key.get(&stream) {
            return Ok(Read::Blocked);
        }
        self.on_stream(now, stream, |streams, local| streams.read(now, local, buf))
    }

    pub(crate) fn finish_stream(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        if let Some((_, Place::Waiting(waiting))) = self.streams.by_key.get_mut(&stream) {
            waiting.finished = true;
            return Ok(());
        }
        self.on_stream(now, stream, |streams, local| streams.finish(now, local))
    }

    pub(crate) fn reset_stream(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        if let Some((_, Place::Waiting(_))) = self.streams.by_key.get(&stream) {
            self.streams.remove(stream);
            return Ok(());
        }
        self.on_stream(now, stream, |streams, local| streams.reset(now, local, code))
    }

    pub(crate) fn stop_stream(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        if let Some((_, Place::Waiting(_))) = self.streams.by_key.get(&stream) {
            return Err(StreamError::Blocked);
        }
        self.on_stream(now, stream, |streams, local| streams.stop(now, local, code))
    }

    // ---- datagrams ----

    pub(crate) fn send_app_datagram(&mut self, now: Instant, id: &PeerId, data: &[u8]) -> Result<(), CommandError> {
        if data.len() > DATAGRAM_DATA_MAX {
            return Err(CommandError::Datagram);
        }
        let key = self
            .peers
            .key_of(id)
            .filter(|k| self.peers.get(*k).is_some_and(|p| p.is_up()))
            .ok_or(CommandError::NotConnected)?;
        if self.outgoing.len() >= super::send::OUTGOING_MAX / 2 {
            return Err(CommandError::Datagram);
        }
        self.make_user_link(now, key);
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.used = now;
        }
        self.send(key, &Message::Datagram(data));
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
        let mut standing = Standing::Refused;
        for access in self.config.services.values() {
            match access {
                Access::Any => standing = standing.max(Standing::Unknown),
                Access::Peers(peers) if peers.contains(id) => return Standing::Accepted,
                Access::Peers(_) => {}
            }
        }
        standing
    }
}
