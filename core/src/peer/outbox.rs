//! What leaves: small intents, and how they become datagrams when they are polled.

use super::outgoing::{OUTGOING_MAX, Outgoing};
use super::peers::Peers;
use super::state::Peer;
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::net::{Path, PeerKey, SocketId};
use crate::path::Route;
use crate::queue;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{self, Message};
use crate::wire::packet::{BEAT_LEN, ChannelId, DATA_HEADER_LEN, DATA_OVERHEAD, Kind, RELAY_HEADER_LEN, relay_header};

/// Room kept for what waits to be sent when nothing does.
const OUTGOING_KEPT: usize = 64;
/// Above this many intents, answers are no longer queued: who asked asks again.
pub(super) const ANSWERS_MAX: usize = 4_096;
/// Most plaintext bytes of messages in one Data packet, so that it fits relayed too.
pub(crate) const MESSAGES_LEN_MAX: usize = DATAGRAM_LEN_MAX - DATA_OVERHEAD - RELAY_HEADER_LEN;
/// Most messages that wait for a link to come up. At the limit the oldest goes.
const WAITING_MAX: usize = 16;

/// A packet about to be sealed: where it goes and where its plaintext stands in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// From which socket, to which address.
    pub(crate) path: Path,
    /// The way that the link knows this as.
    pub(crate) route: Route,
    /// The channel, where it goes through a relay.
    channel: Option<ChannelId>,
}

impl Slot {
    /// Bytes before the packet's own header.
    pub(crate) const fn offset(&self) -> usize {
        if self.channel.is_some() { RELAY_HEADER_LEN } else { 0 }
    }
}

impl Peers {
    // ---- intents ----

    /// Queues an intent.
    pub(crate) fn push(&mut self, outgoing: Outgoing) {
        if self.outgoing.len() < OUTGOING_MAX {
            self.outgoing.push_back(outgoing);
        }
    }

    /// Queues encoded messages for a peer whose link is up.
    pub(crate) fn send_to(&mut self, id: &PeerId, bytes: Box<[u8]>) {
        if let Some(peer) = self.up_key(id) {
            self.push(Outgoing::Messages { peer, route: None, bytes, awaits: false });
        }
    }

    /// Asks a peer whose link is up whether it lives.
    pub(crate) fn ask_alive(&mut self, id: &PeerId) {
        if let Some(peer) = self.up_key(id) {
            self.push(Outgoing::Beat { peer, kind: Kind::BeatAsk, route: None });
        }
    }

    /// How many intents wait.
    pub(crate) fn queued(&self) -> usize {
        self.outgoing.len()
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
        let Some(peer) = self.get_mut(key) else { return };
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

    /// The link has a path now: what waited for it is queued.
    pub(crate) fn flush_waiting(&mut self, key: PeerKey) {
        let Some(peer) = self.get_mut(key) else { return };
        for bytes in core::mem::take(&mut peer.waiting) {
            self.send_bytes(key, None, bytes, false);
        }
    }

    // ---- datagrams ----

    /// The next datagram of those queued, for a socket that is open: where to, and how long.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        is_open: impl Fn(SocketId) -> bool,
    ) -> Option<(Path, usize)> {
        while let Some(outgoing) = queue::pop(&mut self.outgoing, OUTGOING_KEPT) {
            // A socket may have been closed since this was meant for it.
            if let Some(found) = self.encode(now, outgoing, buf).filter(|(path, _)| is_open(path.socket)) {
                return Some(found);
            }
        }
        None
    }

    /// Where a packet on this route goes now.
    pub(crate) fn slot(&self, key: PeerKey, route: Route) -> Option<Slot> {
        match route {
            Route::Direct { socket, remote } => {
                let local = self.get(key)?.paths.local_of(&route);
                Some(Slot { path: Path { socket, remote, local }, route, channel: None })
            }
            Route::Relayed { channel, via } => {
                let path = self.get(via)?.direct_path()?;
                Some(Slot { path, route, channel: Some(channel) })
            }
        }
    }

    /// Where a packet on the path in use goes now.
    pub(crate) fn current_slot(&self, key: PeerKey) -> Option<Slot> {
        self.slot(key, self.get(key)?.paths.current()?)
    }

    fn encode(&mut self, now: Instant, outgoing: Outgoing, buf: &mut [u8]) -> Option<(Path, usize)> {
        match outgoing {
            Outgoing::Raw { path, bytes } => {
                buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
                Some((path, bytes.len()))
            }
            Outgoing::RawRelayed { channel, via, bytes } => {
                let slot = self.slot(via, Route::Relayed { channel, via })?;
                let len = RELAY_HEADER_LEN + bytes.len();
                let out = buf.get_mut(..len)?;
                out[..RELAY_HEADER_LEN].copy_from_slice(&relay_header(channel));
                out[RELAY_HEADER_LEN..].copy_from_slice(&bytes);
                self.note_relay_sent(now, via);
                Some((slot.path, len))
            }
            Outgoing::Messages { peer, route, bytes, awaits } => {
                let slot = self.slot_or_current(peer, route)?;
                let len = self.join_messages(peer, route.is_none(), &bytes, buf, slot.offset() + DATA_HEADER_LEN)?;
                let total = self.seal(now, peer, Kind::Data, &slot, len, awaits, buf)?;
                Some((slot.path, total))
            }
            Outgoing::Beat { peer, kind, route } => {
                let slot = self.slot_or_current(peer, route)?;
                let at = slot.offset();
                let epoch = self.get_mut(peer)?.epoch.as_mut()?;
                let len = epoch.seal_beat(kind, &mut buf[at..at + BEAT_LEN]).ok()?;
                let total = self.finish_packet(now, peer, &slot, len, false, buf);
                self.keep_beats_apart(now, peer, kind);
                Some((slot.path, total))
            }
        }
    }

    fn slot_or_current(&self, key: PeerKey, route: Option<Route>) -> Option<Slot> {
        match route {
            Some(route) => self.slot(key, route),
            None => self.current_slot(key),
        }
    }

    /// Copies messages to `buf` at `body`, and behind them what else is queued for the same place. Returns their
    /// length.
    fn join_messages(
        &mut self,
        peer: PeerKey,
        on_current: bool,
        bytes: &[u8],
        buf: &mut [u8],
        body: usize,
    ) -> Option<usize> {
        buf.get_mut(body..body + bytes.len())?.copy_from_slice(bytes);
        let mut len = bytes.len();
        let mut is_last = message::is_last(bytes);
        while let Some(Outgoing::Messages { peer: p, route: None, bytes, awaits: false }) = self.outgoing.front()
            && *p == peer
            && on_current
            && !is_last
            && len + bytes.len() <= MESSAGES_LEN_MAX
        {
            buf.get_mut(body + len..body + len + bytes.len())?.copy_from_slice(bytes);
            len += bytes.len();
            is_last = message::is_last(bytes);
            self.outgoing.pop_front();
        }
        Some(len)
    }

    /// Seals `len` bytes of plaintext that lie in `buf` behind the headers. Returns the packet's length.
    #[expect(clippy::too_many_arguments, reason = "one packet's, from two callers that have them apart")]
    pub(crate) fn seal(
        &mut self,
        now: Instant,
        key: PeerKey,
        kind: Kind,
        slot: &Slot,
        len: usize,
        awaits: bool,
        buf: &mut [u8],
    ) -> Option<usize> {
        let peer = self.get_mut(key)?;
        // A handshake that we answered but that is not confirmed may be used for connectivity checks only: they open
        // our router half a round trip earlier. Whoever queues one has made sure that the Init was fresh.
        let epoch = match (&mut peer.epoch, peer.pending.last_mut()) {
            (Some(epoch), _) => &mut **epoch,
            (None, Some(pending)) => &mut pending.epoch,
            (None, None) => return None,
        };
        let sealed = epoch.seal(kind, &mut buf[slot.offset()..], len).ok()?;
        Some(self.finish_packet(now, key, slot, sealed, awaits, buf))
    }

    /// Seals a message at once and queues it: for a link whose keys will be gone when it is polled, or for a path that
    /// the link need not know.
    pub(crate) fn send_sealed(&mut self, now: Instant, key: PeerKey, route: Route, message: &Message<'_>) {
        let Some(slot) = self.slot(key, route) else { return };
        self.seal_to(now, key, &slot, message);
    }

    /// The same, from this very path.
    pub(crate) fn send_outside(&mut self, now: Instant, key: PeerKey, path: Path, message: &Message<'_>) {
        self.seal_to(now, key, &Slot { path, route: path.into(), channel: None }, message);
    }

    fn seal_to(&mut self, now: Instant, key: PeerKey, slot: &Slot, message: &Message<'_>) {
        let mut buf = [0; DATAGRAM_LEN_MAX];
        let Some(len) = message::encode(message, &mut buf[slot.offset() + DATA_HEADER_LEN..]) else { return };
        if let Some(total) = self.seal(now, key, Kind::Data, slot, len, false, &mut buf) {
            self.push(Outgoing::Raw { path: slot.path, bytes: buf[..total].into() });
        }
    }

    /// Puts the relay header on and keeps the accounts.
    fn finish_packet(
        &mut self,
        now: Instant,
        key: PeerKey,
        slot: &Slot,
        len: usize,
        awaits: bool,
        buf: &mut [u8],
    ) -> usize {
        let total = slot.offset() + len;
        if let Some(channel) = slot.channel {
            buf[..RELAY_HEADER_LEN].copy_from_slice(&relay_header(channel));
        }
        if let Route::Relayed { via, .. } = slot.route {
            self.note_relay_sent(now, via);
        }
        if let Some(peer) = self.get_mut(key) {
            peer.on_sealed(now, &slot.route, total, awaits);
            self.touch(key);
        }
        total
    }

    /// A packet that went to a relay keeps our binding there alive as well.
    fn note_relay_sent(&mut self, now: Instant, via: PeerKey) {
        if let Some(relay) = self.get_mut(via) {
            relay.beats.on_sent(now);
            relay.needed = now;
            self.touch(via);
        }
    }

    /// A beat to this peer left: the next one of another home is to be half an interval away, and its asks are to be
    /// apart, too.
    fn keep_beats_apart(&mut self, now: Instant, key: PeerKey, kind: Kind) {
        let pace = self.pace;
        let Some(interval) = pace.interval() else { return };
        let is_home = |p: &Peer| p.is_up() && p.wanted && p.duty_at(now, pace) == Duty::Binding;
        let Some(heard) = self.get(key).filter(|p| is_home(p)).map(|p| p.beats.heard()) else { return };
        let other = self.wanted().find(|(other, p)| *other != key && is_home(p)).map(|(other, _)| other);
        if let Some(other) = other
            && let Some(peer) = self.get_mut(other)
        {
            peer.beats.keep_apart(now, interval, if kind == Kind::BeatAsk { now } else { heard });
            self.touch(other);
        }
    }
}

/// Whether a handshake packet of this length may carry a relay header.
pub(super) const fn fits_relayed(len: usize) -> bool {
    len + RELAY_HEADER_LEN <= DATAGRAM_LEN_MAX
}
