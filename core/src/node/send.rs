//! What leaves: handshakes and messages first, then streams, peer by peer in turn.

use core::num::NonZeroU16;

use super::Node;
use crate::net::{Path, PeerKey, Transmit};
use crate::stream::PACKET_LEN_MAX;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::packet::{DATA_HEADER_LEN, DATA_OVERHEAD, Kind};

impl Node {
    /// The next datagram or GSO batch.
    pub(crate) fn next_transmit(&mut self, now: Instant, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        assert!(buf.len() >= DATAGRAM_LEN_MAX, "poll_transmit needs room for one datagram");
        let transports = &self.transports;
        let is_open = |socket| transports.is_open(socket);
        if let Some((path, len)) = self.peers.poll_transmit(now, buf, is_open) {
            self.overlay.on_sent(now, path.remote);
            return Some(self.transmit(path, len, None));
        }
        while let Some(key) = self.streams.next_ready() {
            let transmit = self.encode_streams(now, key, segments_max, buf);
            self.streams.turn(transmit.is_some());
            if let Some(transmit) = transmit {
                self.overlay.on_sent(now, transmit.path.remote);
                return Some(transmit);
            }
        }
        None
    }

    fn encode_streams(&mut self, now: Instant, key: PeerKey, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        let slot = self.peers.current_slot(key)?;
        let offset = slot.offset();
        let overhead = offset + DATA_OVERHEAD;
        if !self.peers.is_up(key) {
            return None;
        }
        // QUIC finds out by itself what the path carries; only the buffer bounds it here.
        let longest = usize::from(PACKET_LEN_MAX).min(buf.len() - overhead);
        let room = buf.len() / (longest + overhead);
        let train = self.streams.poll_transmit(now, key, segments_max.min(room).max(1), longest)?;
        if train.is_use {
            self.peers.on_used(now, key);
        }
        self.peers.touch(key);
        let mut total = 0;
        for plain in train.bytes.chunks(train.segment) {
            let body = total + offset + DATA_HEADER_LEN;
            let Some(space) = buf.get_mut(body..body + plain.len()) else { break };
            space.copy_from_slice(plain);
            let Some(sealed) =
                self.peers.seal(now, key, Kind::Stream, &slot, plain.len(), train.awaits, &mut buf[total..])
            else {
                break;
            };
            total += sealed;
        }
        if total == 0 {
            return None;
        }
        let several = train.bytes.len() > train.segment;
        let size = several.then(|| u16::try_from(train.segment + overhead).ok().and_then(NonZeroU16::new)).flatten();
        Some(self.transmit(slot.path, total, size))
    }

    fn transmit(&mut self, path: Path, len: usize, segment: Option<NonZeroU16>) -> Transmit {
        let count = segment.map_or(1, |s| len.div_ceil(usize::from(s.get())));
        self.report.on_sent(count, len);
        Transmit { path, len, segment, ecn: None }
    }
}
