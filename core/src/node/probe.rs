//! Probes: what does a packet from this socket look like outside, now or after a while?
//!
//! A leaf sends a [`Message::Probe`] over its link to a supernode, but from any socket and to either of the supernode's
//! ports; the answer says where it came from. Who asks and what is concluded is the business of [`crate::reach`]
//! (mapping, filtering, port assignment) and [`crate::keepalive`] (a binding's lifetime); this file carries it.
//!
//! A probe is authentic like everything on a link, but says nothing about the link's paths, whichever way it came.
//! The supernode answers only where the probe came from, never with more bytes, one packet for one; answers that are
//! to come late are counted per leaf and in all.

use core::time::Duration;
use std::collections::BTreeMap;

use super::Node;
use super::sockets::Purpose;
use crate::net::{DropReason, Family, Path, PeerKey, SocketKind};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::{self, Message};
use crate::wire::packet::DATA_OVERHEAD;

/// Most late answers that one leaf may wait for. At the limit its probes are dropped.
const DELAYED_PER_PEER_MAX: u8 = 8;
/// Most late answers in all: 100 000 leaves measuring once a day for 4 minutes each come to 280 at a time.
const DELAYED_MAX: usize = 16_384;
/// Longest wait: beyond the longest interval between beats there is nothing to learn.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// Late answers, by when they are due.
#[derive(Debug, Default)]
pub(crate) struct DelayedReplies {
    due: BTreeMap<(Instant, u64), (PeerKey, Path, [u8; 8])>,
    per_peer: BTreeMap<PeerKey, u8>,
    next: u64,
}

impl DelayedReplies {
    fn add(&mut self, at: Instant, peer: PeerKey, path: Path, token: [u8; 8]) -> bool {
        let count = self.per_peer.get(&peer).copied().unwrap_or(0);
        if count >= DELAYED_PER_PEER_MAX || self.due.len() >= DELAYED_MAX {
            return false;
        }
        self.per_peer.insert(peer, count + 1);
        self.due.insert((at, self.next), (peer, path, token));
        self.next += 1;
        true
    }

    /// A link is gone, and nothing waits for it.
    pub(crate) fn forget(&mut self, peer: PeerKey) {
        if self.per_peer.remove(&peer).is_some() {
            self.due.retain(|_, (other, ..)| *other != peer);
        }
    }

    fn pop_due(&mut self, now: Instant) -> Option<(PeerKey, Path, [u8; 8])> {
        let first = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (peer, path, token) = first.remove();
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
        Some((peer, path, token))
    }

    /// When the next one is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Node {
    /// Sends a probe to a peer, over its link but from any socket to any of its addresses.
    pub(crate) fn send_probe(
        &mut self,
        now: Instant,
        key: PeerKey,
        from: Path,
        token: [u8; 8],
        delay: Duration,
        alternate: bool,
    ) {
        let delay_ds = u16::try_from(delay.as_millis() / 100).unwrap_or(u16::MAX);
        self.peers.send_outside(now, key, from, &Message::probe(token, delay_ds, alternate, from.remote));
    }

    /// A Data packet that is a probe or an answer to one. Its keys are in use, so nothing is to be confirmed.
    pub(crate) fn on_probe_packet(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        path: Option<Path>,
        len: usize,
        plain: &[u8],
    ) -> Result<(), DropReason> {
        // Through a relay it would show the relay's address.
        let path = path.ok_or(DropReason::WrongPath)?;
        let peer = self.peers.get_mut(key).filter(|p| p.is_up()).ok_or(DropReason::UnknownReceiver)?;
        if peer.pending.iter().any(|p| p.epoch.local_index() == receiver) {
            return Err(DropReason::WrongPath);
        }
        peer.rx_bytes += len as u64;
        peer.beats.on_heard(now);
        self.peers.touch(key);
        let mut rest = plain;
        match message::decode_next(&mut rest).map_err(|_| DropReason::BadContents)? {
            Message::Probe { token, delay_ds, alternate, room: _ } => {
                self.on_probe(now, key, path, len, token, Duration::from_millis(100) * u32::from(delay_ds), alternate)
            }
            Message::ProbeReply { token, seen, alternate_port } => {
                self.on_probe_reply(now, key, path, token, seen.into(), alternate_port);
                Ok(())
            }
            _ => Err(DropReason::BadContents),
        }
    }

    /// A leaf asks.
    fn on_probe(
        &mut self,
        now: Instant,
        key: PeerKey,
        path: Path,
        len: usize,
        token: [u8; 8],
        delay: Duration,
        alternate: bool,
    ) -> Result<(), DropReason> {
        // A TCP connection shows nothing of how UDP is mapped.
        if !self.is_serving() || path.socket.is_tcp() {
            return Err(DropReason::WrongPath);
        }
        let route = Route::Direct { socket: path.socket, remote: path.remote };
        if !self.peers.get(key).is_some_and(|p| p.paths.is_proven(&route)) {
            // Entered when the probe comes, although the answer may leave later: what came pays for it.
            self.account.received(now, path.remote, len);
            let answer_len = DATA_OVERHEAD + if path.remote.is_ipv4() { 19 } else { 31 };
            if !self.account.answer(now, path.remote, answer_len) {
                return Err(DropReason::Limited);
            }
        }
        if delay.is_zero() {
            self.answer_probe(now, key, path, token, alternate);
            return Ok(());
        }
        let fits = self.delayed.add(now + delay.min(DELAY_MAX), key, path, token);
        if fits { Ok(()) } else { Err(DropReason::Limited) }
    }

    /// Late answers that are due.
    pub(crate) fn on_delayed_due(&mut self, now: Instant) {
        while let Some((key, path, token)) = self.delayed.pop_due(now) {
            self.answer_probe(now, key, path, token, false);
        }
    }

    fn answer_probe(&mut self, now: Instant, key: PeerKey, path: Path, token: [u8; 8], alternate: bool) {
        let family = Family::of(&path.remote);
        let other = self.sockets.of(Purpose::Alternate).find(|(_, bound)| Family::of(bound) == family);
        let from = match (alternate, other) {
            (true, Some((socket, _))) => Path { socket, ..path },
            (true, None) => {
                // The asker tries again, and finds it open.
                self.open_socket(Purpose::Alternate, SocketKind::Udp(family));
                return;
            }
            (false, _) => path,
        };
        let alternate_port = other.map_or(0, |(_, bound)| bound.port());
        self.peers.send_outside(
            now,
            key,
            from,
            &Message::ProbeReply { token, seen: path.remote.into(), alternate_port },
        );
    }

    /// A supernode answered a probe of ours: where it came to, and from. Each room knows its own tokens.
    fn on_probe_reply(
        &mut self,
        now: Instant,
        key: PeerKey,
        path: Path,
        token: [u8; 8],
        seen: core::net::SocketAddr,
        alternate_port: u16,
    ) {
        // Each room knows its own tokens.
        if self.on_lifetime_reply(now, key, path.socket, token) || self.on_punch_seen(now, key, path.socket, seen) {
            return;
        }
        if self.nat.on_reply(now, path.socket, path.remote, token, seen, alternate_port)
            && self.network.sockets.iter().any(|(socket, _)| *socket == path.socket)
        {
            self.on_observed(now, key, path.remote, path.socket, seen);
        }
    }
}
