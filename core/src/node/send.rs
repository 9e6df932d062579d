//! What leaves: handshakes and messages first, then streams, peer by peer in turn.

use core::num::NonZeroU16;

use super::Node;
use crate::net::{Path, PeerKey, Transmit};
use crate::stream::PACKET_LEN_MAX;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::packet::{DATA_HEADER_LEN, DATA_OVERHEAD, Kind};

impl Node {
    /// The peer's QUIC connection may have packets.
    pub(crate) fn mark_ready(&mut self, key: PeerKey) {
        if self.ready_set.insert(key) {
            self.ready.push_back(key);
        }
    }

    /// The next datagram or GSO batch.
    pub(crate) fn next_transmit(&mut self, now: Instant, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        assert!(buf.len() >= DATAGRAM_LEN_MAX, "poll_transmit needs room for one datagram");
        let (sockets, network) = (&self.sockets, &self.network);
        let is_open = |socket| super::sockets::is_socket_open(network, sockets, socket);
        if let Some((path, len)) = self.peers.poll_transmit(now, buf, is_open) {
            self.reach_sent(now, path.remote);
            return Some(self.transmit(path, len, None));
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

    fn encode_streams(&mut self, now: Instant, key: PeerKey, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        let slot = self.peers.current_slot(key)?;
        let offset = slot.offset();
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
        self.peers.touch(key);
        let len = quic.len();
        let mut total = 0;
        for plain in quic.chunks(segment) {
            let body = total + offset + DATA_HEADER_LEN;
            let Some(space) = buf.get_mut(body..body + plain.len()) else { break };
            space.copy_from_slice(plain);
            let Some(sealed) = self.peers.seal(now, key, Kind::Stream, &slot, plain.len(), awaits, &mut buf[total..])
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
        Some(self.transmit(slot.path, total, size))
    }

    fn transmit(&mut self, path: Path, len: usize, segment: Option<NonZeroU16>) -> Transmit {
        let count = segment.map_or(1, |s| len.div_ceil(usize::from(s.get())));
        self.counters.tx_datagrams += count as u64;
        self.counters.tx_bytes += len as u64;
        Transmit { path, len, segment, ecn: None }
    }
}
