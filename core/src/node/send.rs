//! What leaves: small intents, and how they become datagrams in `poll_transmit`.

use core::num::NonZeroU16;

use super::Node;
use super::peer::WAITING_MAX;
use crate::net::{Path, PeerKey, Transmit};
use crate::path::Route;
use crate::stream::PACKET_LEN_MAX;
use crate::time::Instant;
use crate::wire::message::{self, Message};
use crate::wire::packet::{BEAT_LEN, ChannelId, DATA_HEADER_LEN, DATA_OVERHEAD, Kind, RELAY_HEADER_LEN, relay_header};
use crate::wire::{DATAGRAM_LEN_MAX, packet};

/// Most intents queued. At the limit new ones are dropped and counted: every one of them is repeated by whoever needs it.
pub(crate) const OUTGOING_MAX: usize = 65_536;
/// Room kept for what waits to be sent when nothing does.
const OUTGOING_KEPT: usize = 64;
/// Above this many intents, answers are no longer queued: who asked asks again.
pub(crate) const ANSWERS_MAX: usize = 4_096;
/// Most plaintext bytes of messages in one Data packet, so that it fits relayed too.
pub(crate) const MESSAGES_LEN_MAX: usize = DATAGRAM_LEN_MAX - DATA_OVERHEAD - RELAY_HEADER_LEN;

/// One thing to send, encoded only when it is polled: what leaves carries the keys and the path of that moment.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A handshake packet, complete.
    Raw {
        path: Path,
        bytes: Box<[u8]>,
    },
    /// A handshake packet through a channel.
    RawRelayed {
        channel: ChannelId,
        via: PeerKey,
        bytes: Box<[u8]>,
    },
    /// Encoded messages; on the path in use where `route` is none.
    Messages {
        peer: PeerKey,
        route: Option<Route>,
        bytes: Box<[u8]>,
        /// An answer is awaited: silence means trouble.
        awaits: bool,
    },
    Beat {
        peer: PeerKey,
        kind: Kind,
        route: Option<Route>,
    },
}

impl Node {
    /// Queues an intent.
    pub(crate) fn push(&mut self, outgoing: Outgoing) {
        if self.outgoing.len() < OUTGOING_MAX {
            self.outgoing.push_back(outgoing);
        }
    }

    /// Queues a message on the path in use; it waits if the link is not up yet.
    pub(crate) fn send(&mut self, key: PeerKey, message: &Message<'_>) {
        self.send_on(key, None, message, false);
    }

    /// Queues a message on a certain path.
    pub(crate) fn send_on(&mut self, key: PeerKey, route: Option<Route>, message: &Message<'_>, awaits: bool) {
        let mut buf = [0; MESSAGES_LEN_MAX];
        let Some(len) = message::encode(message, &mut buf) else {
            debug_assert!(false, "a message of ours is too long");
            return;
        };
        self.send_bytes(key, route, buf[..len].into(), awaits);
    }

    /// Queues encoded messages.
    pub(crate) fn send_bytes(&mut self, key: PeerKey, route: Option<Route>, bytes: Box<[u8]>, awaits: bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let has_path = peer.is_up() && peer.paths.current().is_some();
        if has_path || route.is_some() {
            self.push(Outgoing::Messages { peer: key, route, bytes, awaits });
            return;
        }
        if peer.waiting.len() >= WAITING_MAX {
            peer.waiting.pop_front();
        }
        peer.waiting.push_back(bytes);
    }

    /// The peer's QUIC connection may have packets.
    pub(crate) fn mark_ready(&mut self, key: PeerKey) {
        if self.ready_set.insert(key) {
            self.ready.push_back(key);
        }
    }

    /// The next datagram or train: handshakes and messages first, then streams, peer by peer in turn.
    pub(crate) fn next_transmit(&mut self, now: Instant, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        assert!(buf.len() >= DATAGRAM_LEN_MAX, "poll_transmit needs room for one datagram");
        while let Some(outgoing) = self.outgoing.pop_front() {
            // A socket may have been closed since this was meant for it.
            if let Some(transmit) = self.encode(now, outgoing, buf).filter(|t| self.is_socket_open(t.path.socket)) {
                self.reach_sent(now, transmit.path.remote);
                return Some(transmit);
            }
        }
        if self.outgoing.capacity() > OUTGOING_KEPT {
            // Much was to be sent at once: that room is not needed every day.
            self.outgoing.shrink_to(OUTGOING_KEPT);
        }
        while let Some(key) = self.ready.pop_front() {
            if let Some(transmit) = self.encode_streams(now, key, segments_max, buf) {
                self.reach_sent(now, transmit.path.remote);
                self.ready.push_back(key);
                return Some(transmit);
            }
            self.ready_set.remove(&key);
        }
        None
    }

    /// The direct path and the channel, if any, that a route stands for now.
    pub(crate) fn resolve(&self, key: PeerKey, route: &Route) -> Option<(Path, Option<ChannelId>)> {
        match *route {
            Route::Direct { socket, remote } => {
                let local = self.peers.get(key)?.paths.local_of(route);
                Some((Path { socket, remote, local }, None))
            }
            Route::Relayed { channel, via } => {
                let relay = self.peers.get(via)?;
                let leg = relay.paths.current()?;
                match leg {
                    Route::Direct { socket, remote } => {
                        Some((Path { socket, remote, local: relay.paths.local_of(&leg) }, Some(channel)))
                    }
                    Route::Relayed { .. } => None,
                }
            }
        }
    }

    fn encode(&mut self, now: Instant, outgoing: Outgoing, buf: &mut [u8]) -> Option<Transmit> {
        match outgoing {
            Outgoing::Raw { path, bytes } => {
                buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
                Some(self.transmit(path, bytes.len(), None))
            }
            Outgoing::RawRelayed { channel, via, bytes } => {
                let (path, _) = self.resolve(via, &Route::Relayed { channel, via })?;
                let len = RELAY_HEADER_LEN + bytes.len();
                let out = buf.get_mut(..len)?;
                out[..RELAY_HEADER_LEN].copy_from_slice(&relay_header(channel));
                out[RELAY_HEADER_LEN..].copy_from_slice(&bytes);
                self.note_relay_sent(now, via);
                Some(self.transmit(path, len, None))
            }
            Outgoing::Messages { peer, route, bytes, awaits } => {
                let on_current = route.is_none();
                let route = route.or_else(|| self.peers.get(peer)?.paths.current())?;
                let (path, channel) = self.resolve(peer, &route)?;
                let offset = if channel.is_some() { RELAY_HEADER_LEN } else { 0 };
                let body = offset + DATA_HEADER_LEN;
                buf.get_mut(body..body + bytes.len())?.copy_from_slice(&bytes);
                let mut len = bytes.len();
                // What else is queued for the same place travels along.
                while let Some(Outgoing::Messages { peer: p, route: None, bytes, awaits: false }) =
                    self.outgoing.front()
                    && *p == peer
                    && on_current
                    && len + bytes.len() <= MESSAGES_LEN_MAX
                {
                    buf.get_mut(body + len..body + len + bytes.len())?.copy_from_slice(bytes);
                    len += bytes.len();
                    self.outgoing.pop_front();
                }
                let total = self.seal(now, peer, Kind::Data, channel, &route, len, awaits, buf)?;
                Some(self.transmit(path, total, None))
            }
            Outgoing::Beat { peer, kind, route } => {
                let route = route.or_else(|| self.peers.get(peer)?.paths.current())?;
                let (path, channel) = self.resolve(peer, &route)?;
                let offset = if channel.is_some() { RELAY_HEADER_LEN } else { 0 };
                let state = self.peers.get_mut(peer)?;
                let len = state.epoch.as_mut()?.seal_beat(kind, &mut buf[offset..offset + BEAT_LEN]).ok()?;
                let total = self.finish_packet(now, peer, channel, &route, offset, len, false, buf);
                self.keep_beats_apart(now, peer);
                Some(self.transmit(path, total, None))
            }
        }
    }

    /// Seals `len` bytes of plaintext that lie in `buf` behind the headers.
    fn seal(
        &mut self,
        now: Instant,
        key: PeerKey,
        kind: Kind,
        channel: Option<ChannelId>,
        route: &Route,
        len: usize,
        awaits: bool,
        buf: &mut [u8],
    ) -> Option<usize> {
        let offset = if channel.is_some() { RELAY_HEADER_LEN } else { 0 };
        let state = self.peers.get_mut(key)?;
        // A handshake that we answered but that is not confirmed may be used for connectivity checks only: they open
        // our router half a round trip earlier. Whoever queues one has made sure that the Init was fresh.
        let epoch = match (&mut state.epoch, state.pending.last_mut()) {
            (Some(epoch), _) => &mut **epoch,
            (None, Some(pending)) => &mut pending.epoch,
            (None, None) => return None,
        };
        let sealed = epoch.seal(kind, &mut buf[offset..], len).ok()?;
        Some(self.finish_packet(now, key, channel, route, offset, sealed, awaits, buf))
    }

    /// Seals a message at once, for a link whose keys will be gone when it is polled.
    pub(crate) fn seal_now(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: &Route,
        message: &Message<'_>,
    ) -> Option<(Path, Box<[u8]>)> {
        let (path, channel) = self.resolve(key, route)?;
        let offset = if channel.is_some() { RELAY_HEADER_LEN } else { 0 };
        let mut buf = [0; DATAGRAM_LEN_MAX];
        let len = message::encode(message, &mut buf[offset + DATA_HEADER_LEN..])?;
        let total = self.seal(now, key, Kind::Data, channel, route, len, false, &mut buf)?;
        Some((path, buf[..total].into()))
    }

    /// Puts the relay header on and keeps the accounts.
    fn finish_packet(
        &mut self,
        now: Instant,
        key: PeerKey,
        channel: Option<ChannelId>,
        route: &Route,
        offset: usize,
        len: usize,
        awaits: bool,
        buf: &mut [u8],
    ) -> usize {
        let total = offset + len;
        if let Some(channel) = channel {
            buf[..RELAY_HEADER_LEN].copy_from_slice(&relay_header(channel));
        }
        if let Route::Relayed { via, .. } = route {
            self.note_relay_sent(now, *via);
        }
        if let Some(state) = self.peers.get_mut(key) {
            state.sealed = now;
            state.tx_bytes += total as u64;
            if channel.is_some() {
                state.relayed_bytes += total as u64;
            }
            if state.paths.current() == Some(*route) {
                state.beats.on_sent(now);
                if awaits {
                    state.watch.on_sent(now);
                }
            }
            self.touched.push(key);
        }
        total
    }

    /// A packet that went to a relay keeps our binding there alive as well.
    fn note_relay_sent(&mut self, now: Instant, via: PeerKey) {
        if let Some(relay) = self.peers.get_mut(via) {
            relay.beats.on_sent(now);
            relay.needed = now;
            self.touched.push(via);
        }
    }

    fn encode_streams(&mut self, now: Instant, key: PeerKey, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        let route = self.peers.get(key)?.paths.current()?;
        let (path, channel) = self.resolve(key, &route)?;
        let offset = if channel.is_some() { RELAY_HEADER_LEN } else { 0 };
        let overhead = offset + DATA_OVERHEAD;
        let peer = self.peers.get_mut(key)?;
        peer.epoch.as_ref()?;
        let traffic = peer.traffic.as_mut()?;
        let streams = traffic.streams.as_mut()?;
        // QUIC finds out by itself what the path carries; only the buffer bounds it here.
        let longest = usize::from(PACKET_LEN_MAX).min(buf.len() - overhead);
        let room = buf.len() / (longest + overhead);
        let mut quic = core::mem::take(&mut self.quic_buf);
        let asked = streams.asked();
        let polled = streams.poll_transmit(now, segments_max.min(room).max(1), longest, &mut quic);
        let Some(segment) = polled.filter(|_| !quic.is_empty()) else {
            self.quic_buf = quic;
            return None;
        };
        // Mere acknowledgements await nothing; words of the streams room are few and repeated.
        let awaits = streams.asked() != asked;
        // That the connection rests is nobody's use of the link.
        if !streams.is_idle() {
            traffic.used = now;
        }
        self.touched.push(key);
        let len = quic.len();
        let mut total = 0;
        for plain in quic.chunks(segment) {
            let body = total + offset + DATA_HEADER_LEN;
            let Some(space) = buf.get_mut(body..body + plain.len()) else { break };
            space.copy_from_slice(plain);
            let Some(sealed) =
                self.seal(now, key, Kind::Stream, channel, &route, plain.len(), awaits, &mut buf[total..])
            else {
                break;
            };
            total += sealed;
        }
        let several = len > segment;
        self.quic_buf = quic;
        if total == 0 {
            return None;
        }
        let size = several.then(|| NonZeroU16::new((segment + overhead) as u16)).flatten();
        Some(self.transmit(path, total, size))
    }

    fn transmit(&mut self, path: Path, len: usize, segment: Option<NonZeroU16>) -> Transmit {
        let count = segment.map_or(1, |s| len.div_ceil(usize::from(s.get())));
        self.counters.tx_datagrams += count as u64;
        self.counters.tx_bytes += len as u64;
        Transmit { path, len, segment, ecn: None }
    }

    /// Whether a handshake packet of this length may carry a relay header.
    pub(crate) const fn fits_relayed(len: usize) -> bool {
        len + packet::RELAY_HEADER_LEN <= DATAGRAM_LEN_MAX
    }
}
