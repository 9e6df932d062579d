//! Which bytes of which streams a QUIC packet carries: read before QUIC gets it, as nothing in it is sealed.
//!
//! Only packets with short headers are read (RFC 9000 §17.3, without connection id and header protection); how many
//! others there may be is counted by the connection.

use super::crypto::TAG_LEN;

/// A piece of a stream: which stream, and where the piece ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) stream: u64,
    pub(super) end: u64,
}

/// Appends the pieces that a packet with a short header carries, up to the first frame that cannot be read: QUIC does
/// not read on there either.
pub(super) fn pieces(packet: &[u8], out: &mut Vec<Piece>) {
    let Some((&first, rest)) = packet.split_first() else { return };
    let number_len = usize::from(first & 3) + 1;
    let Some(frames) = rest.len().checked_sub(TAG_LEN).and_then(|end| rest.get(number_len..end)) else { return };
    let mut reader = Reader(frames);
    while !reader.0.is_empty() && reader.frame(out).is_some() {}
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// RFC 9000 §16.
    fn varint(&mut self) -> Option<u64> {
        let (&first, _) = self.0.split_first()?;
        let (bytes, rest) = self.0.split_at_checked(1 << (first >> 6))?;
        self.0 = rest;
        Some(bytes.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
    }

    fn varints(&mut self, count: u64) -> Option<()> {
        (0..count).try_for_each(|_| self.varint().map(drop))
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(len).ok()?..)?;
        Some(())
    }

    /// Reads one frame (RFC 9000 §19), and appends what it carries; nothing if it cannot be read.
    fn frame(&mut self, out: &mut Vec<Piece>) -> Option<()> {
        let kind = self.varint()?;
        match kind {
            // PADDING, PING, IMMEDIATE_ACK, HANDSHAKE_DONE
            0x00 | 0x01 | 0x1e | 0x1f => {}
            // ACK, with or without ECN counts: largest, delay, count of ranges, first range; two for each range.
            0x02 | 0x03 => {
                self.varints(2)?;
                let ranges = self.varint()?;
                self.varints(1 + 2 * ranges.min(self.0.len() as u64))?;
                self.varints(if kind == 0x03 { 3 } else { 0 })?;
            }
            // RESET_STREAM
            0x04 => self.varints(3)?,
            // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x05 | 0x11 | 0x15 => self.varints(2)?,
            // CRYPTO
            0x06 => {
                self.varint()?;
                self.bytes()?;
            }
            // NEW_TOKEN
            0x07 => self.bytes()?,
            0x08..=0x0f => out.push(self.stream(kind)?),
            // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
            0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => self.varints(1)?,
            // NEW_CONNECTION_ID: a number, a number, an id, a token
            0x18 => {
                self.varints(2)?;
                let (&len, rest) = self.0.split_first()?;
                self.0 = rest;
                self.skip(u64::from(len) + 16)?;
            }
            // PATH_CHALLENGE, PATH_RESPONSE
            0x1a | 0x1b => self.skip(8)?,
            // CONNECTION_CLOSE ends all.
            0x1c | 0x1d => return None,
            // ACK_FREQUENCY
            0xaf => self.varints(4)?,
            _ => return None,
        }
        Some(())
    }

    fn bytes(&mut self) -> Option<()> {
        let len = self.varint()?;
        self.skip(len)
    }

    /// STREAM: bit 4 says that there is an offset, bit 2 that there is a length.
    fn stream(&mut self, kind: u64) -> Option<Piece> {
        let stream = self.varint()?;
        let offset = if kind & 4 == 0 { 0 } else { self.varint()? };
        let len = if kind & 2 == 0 { self.0.len() as u64 } else { self.varint()? };
        self.skip(len)?;
        Some(Piece { stream, end: offset + len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(frames: &[u8]) -> Vec<(u64, u64)> {
        let mut packet = vec![0x41, 0, 9];
        packet.extend(frames);
        packet.extend([0; TAG_LEN]);
        let mut out = Vec::new();
        pieces(&packet, &mut out);
        out.iter().map(|piece| (piece.stream, piece.end)).collect()
    }

    #[test]
    fn pieces_are_found_behind_every_frame() {
        // A piece of 2 bytes of stream 4 from 0x101 on.
        let piece = [0x0e, 4, 0x41, 1, 2, 7, 7];
        let others: [&[u8]; 17] = [
            &[],
            &[0, 0, 0, 1],
            &[2, 9, 0, 1, 0, 1, 1],
            &[3, 9, 0, 0, 0, 1, 1, 1],
            &[4, 4, 0, 9],
            &[5, 4, 0],
            &[6, 0, 2, 1, 1],
            &[7, 1, 1],
            &[0x08, 8],
            &[0x10, 9, 0x12, 9, 0x14, 9, 0x16, 9, 0x19, 0],
            &[0x11, 4, 9, 0x15, 4, 9],
            &[0x18, 1, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x1a, 0, 0, 0, 0, 0, 0, 0, 0, 0x1b, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x1e, 0x1f],
            &[0x40, 0xaf, 1, 1, 1, 1],
            &[0x0a, 8, 1, 1],
            &[0x0b, 8, 0],
        ];
        for other in others {
            let mut frames = other.to_vec();
            frames.extend(piece);
            let expected = match other.first() {
                // Without a length it goes to the end of the packet.
                Some(0x08) => vec![(8, piece.len() as u64)],
                Some(0x0a) => vec![(8, 1), (4, 0x103)],
                Some(0x0b) => vec![(8, 0), (4, 0x103)],
                _ => vec![(4, 0x103)],
            };
            assert_eq!(read(&frames), expected, "{other:?}");
        }
        for broken in [&[0x1c, 0, 0, 0][..], &[0x0e, 4], &[0x0e, 4, 0, 9, 1], &[0x20], &[0xc0, 0]] {
            let mut frames = piece.to_vec();
            frames.extend(broken);
            assert_eq!(read(&frames), [(4, 0x103)], "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_not(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            pieces(&packet, &mut out);
            prop_assert!(out.len() <= packet.len());
        }
    }
}
