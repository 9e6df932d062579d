//! Packets on a TCP connection: each behind its length, two bytes, little-endian.
//!
//! A frame's contents are exactly what a datagram would hold. Whoever reads a connection calls [`split`] with what it
//! has so far, and keeps the rest, which is shorter than one frame ([`FRAME_LEN_MAX`]), until more has come. A frame of
//! no bytes, or of more than a datagram may have, is an error that ends the connection: a stream that is out of step
//! never comes back into step by itself.

use core::ops::Range;

use super::DecodeError;

/// Bytes of the length.
pub const FRAME_HEADER_LEN: usize = 2;
/// Longest packet in a frame: the longest datagram that is looked at.
pub const FRAME_PACKET_LEN_MAX: usize = super::RECEIVE_LEN_MAX;
/// Longest frame.
pub const FRAME_LEN_MAX: usize = FRAME_HEADER_LEN + FRAME_PACKET_LEN_MAX;

/// What stands before a packet of `len` bytes; nothing if no packet has that length.
#[expect(clippy::cast_possible_truncation, reason = "no longer than FRAME_PACKET_LEN_MAX, which is a u16's")]
pub const fn frame_header(len: usize) -> Option<[u8; FRAME_HEADER_LEN]> {
    if len == 0 || len > FRAME_PACKET_LEN_MAX { None } else { Some((len as u16).to_le_bytes()) }
}

/// Hands the place of each whole packet in `bytes` to `each`. Returns how many bytes the whole frames take; what is
/// behind them is the beginning of another one, shorter than [`FRAME_LEN_MAX`].
///
/// # Errors
/// A frame of a length that no packet has.
pub fn split(bytes: &[u8], mut each: impl FnMut(Range<usize>)) -> Result<usize, DecodeError> {
    let mut done = 0;
    while let Some((header, rest)) = bytes.get(done..).and_then(<[u8]>::split_first_chunk) {
        let len = usize::from(u16::from_le_bytes(*header));
        if frame_header(len).is_none() {
            return Err(DecodeError::BadValue { field: "frame length" });
        }
        if rest.len() < len {
            break;
        }
        let start = done + FRAME_HEADER_LEN;
        each(start..start + len);
        done = start + len;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(packet: &[u8]) -> Vec<u8> {
        [&frame_header(packet.len()).expect("a possible length"), packet].concat()
    }

    /// The packets in `bytes`, read in pieces of `piece` bytes, as from a socket.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, DecodeError> {
        let (mut buffer, mut packets) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            let done = split(&buffer, |range| packets.push(buffer[range].to_vec()))?;
            buffer.drain(..done);
            assert!(buffer.len() < FRAME_LEN_MAX, "what is kept is bounded");
        }
        Ok(packets)
    }

    #[test]
    fn packets_come_out_as_they_went_in_whatever_the_pieces() {
        let packets: Vec<Vec<u8>> =
            [1, 2, 255, 256, 257, FRAME_PACKET_LEN_MAX].iter().map(|len| vec![*len as u8; *len]).collect();
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
        for piece in [1, 2, 3, 7, 1_000, bytes.len()] {
            assert_eq!(read(&bytes, piece), Ok(packets.clone()), "in pieces of {piece}");
        }
    }

    #[test]
    fn lengths_that_no_packet_has_are_errors() {
        assert_eq!(frame_header(0), None);
        assert_eq!(frame_header(FRAME_PACKET_LEN_MAX + 1), None);
        for len in [0, FRAME_PACKET_LEN_MAX as u16 + 1, u16::MAX] {
            let bytes = [frame(b"well").as_slice(), &len.to_le_bytes(), b"more"].concat();
            assert_eq!(read(&bytes, 3), Err(DecodeError::BadValue { field: "frame length" }));
        }
    }

    #[test]
    fn a_frame_that_has_not_all_come_waits() {
        assert_eq!(split(&[], |_| panic!("no packet")), Ok(0));
        assert_eq!(split(&[9], |_| panic!("no packet")), Ok(0));
        assert_eq!(split(&[2, 0, 1], |_| panic!("no packet")), Ok(0));
    }
}
