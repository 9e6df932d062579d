//! What may be inside a Stream packet of the link: a QUIC packet, an Initial without its padding, or a word of our own.
//!
//! QUIC sets the second bit of the first byte always. Where it is clear:
//!
//! | first two bits | rest |
//! | --- | --- |
//! | `10` | an Initial datagram of 1 200 bytes from which a run of zeros before its last six bytes was cut |
//! | `00` | a [`Word`]: one byte of kind, for all but Call (and Refused in answer to it) four bytes of mark |

use super::connection::{FIXED, PACKET_LEN_MIN, is_initial};
use super::crypto::{Mark, TAG_LEN};

/// QUIC's bit of long headers.
const LONG: u8 = 0x80;
/// Length of an Initial datagram, padded.
const INITIAL_LEN: usize = PACKET_LEN_MIN as usize;

/// What the two ends of a link tell each other about QUIC connections, from outside of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Server to client: open a connection, I have streams for you.
    Call,
    /// I have no such connection (any more).
    Gone(Mark),
    /// Client to server: this connection has had no stream for a while. Answered by Gone or Keep.
    Rest(Mark),
    /// Server to client: it still has streams here.
    Keep(Mark),
    /// Nothing is open to you: this connection will not be, or in answer to a Call, none.
    Refused(Option<Mark>),
}

impl Word {
    pub(super) fn encode(self, buf: &mut Vec<u8>) {
        let (kind, mark) = match self {
            Self::Call => (0, None),
            Self::Gone(mark) => (1, Some(mark)),
            Self::Rest(mark) => (2, Some(mark)),
            Self::Keep(mark) => (3, Some(mark)),
            Self::Refused(mark) => (4, mark),
        };
        buf.push(kind);
        buf.extend(mark.iter().flat_map(|mark| mark.0));
    }

    /// Bytes that it takes.
    pub(super) const fn len(self) -> usize {
        if matches!(self, Self::Call | Self::Refused(None)) { 1 } else { 5 }
    }

    fn decode(packet: &[u8]) -> Option<Self> {
        let (&kind, rest) = packet.split_first()?;
        match (kind, rest.is_empty()) {
            (0, _) => return rest.is_empty().then_some(Self::Call),
            (4, true) => return Some(Self::Refused(None)),
            _ => {}
        }
        let mark = Mark(rest.try_into().ok()?);
        match kind {
            1 => Some(Self::Gone(mark)),
            2 => Some(Self::Rest(mark)),
            3 => Some(Self::Keep(mark)),
            4 => Some(Self::Refused(Some(mark))),
            _ => None,
        }
    }
}

/// A decoded packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inner<'a> {
    Word(Word),
    /// A QUIC packet as it is.
    Quic(&'a [u8]),
    /// An Initial to be padded again.
    Cut(&'a [u8]),
}

impl<'a> Inner<'a> {
    pub(super) fn decode(packet: &'a [u8]) -> Option<Self> {
        let first = *packet.first()?;
        if first & FIXED != 0 {
            Some(Self::Quic(packet))
        } else if first & LONG != 0 {
            (is_initial(first | FIXED) && (TAG_LEN + 1..INITIAL_LEN).contains(&packet.len()))
                .then_some(Self::Cut(packet))
        } else {
            Word::decode(packet).map(Self::Word)
        }
    }
}

/// Whether a QUIC packet has a short header: only sent when the peer is known to have, or have had, the connection.
pub(super) fn is_short(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & LONG == 0)
}

/// Cuts the padding out of an Initial datagram. A first flight is some 150 bytes, which QUIC makes 1 200 to show that
/// the path can carry them; the link knows that, and a relay need not carry zeros.
pub(super) fn cut_padding(packet: &mut Vec<u8>) {
    if packet.len() != INITIAL_LEN || !packet.first().is_some_and(|first| is_initial(*first)) {
        return;
    }
    let tail = INITIAL_LEN - TAG_LEN;
    let zeros = packet[1..tail].iter().rev().take_while(|byte| **byte == 0).count();
    if zeros > 0 {
        packet.drain(tail - zeros..tail);
        packet[0] &= !FIXED;
    }
}

/// Puts the padding back: the inverse of [`cut_padding`].
pub(super) fn restore_padding(cut: &[u8]) -> Vec<u8> {
    let (head, tag) = cut.split_at(cut.len().saturating_sub(TAG_LEN));
    let mut packet = Vec::with_capacity(INITIAL_LEN);
    packet.extend_from_slice(head);
    packet.resize(INITIAL_LEN - TAG_LEN, 0);
    packet.extend_from_slice(tag);
    if let Some(first) = packet.first_mut() {
        *first |= FIXED;
    }
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn padding_comes_back(head in prop::collection::vec(any::<u8>(), 1..1194), tag: [u8; 6], nibble in 0u8..16) {
            let mut packet = head;
            packet[0] = 0xc0 | nibble;
            packet.resize(INITIAL_LEN - TAG_LEN, 0);
            packet.extend_from_slice(&tag);
            let whole = packet.clone();
            cut_padding(&mut packet);
            match Inner::decode(&packet) {
                Some(Inner::Quic(packet)) => prop_assert_eq!(packet, &whole[..]),
                Some(Inner::Cut(cut)) => {
                    prop_assert!(cut.len() < INITIAL_LEN);
                    prop_assert_eq!(restore_padding(cut), whole);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn anything_decodes_or_not(packet in prop::collection::vec(any::<u8>(), 0..1300)) {
            match Inner::decode(&packet) {
                Some(Inner::Cut(cut)) => prop_assert_eq!(restore_padding(cut).len(), INITIAL_LEN),
                Some(Inner::Word(word)) => {
                    let mut again = Vec::new();
                    word.encode(&mut again);
                    prop_assert_eq!(again, packet);
                }
                Some(Inner::Quic(_)) | None => {}
            }
        }
    }

    #[test]
    fn words_are_these_bytes() {
        for (word, bytes) in [
            (Word::Call, &[0][..]),
            (Word::Gone(Mark([1, 2, 3, 4])), &[1, 1, 2, 3, 4]),
            (Word::Rest(Mark([1, 2, 3, 4])), &[2, 1, 2, 3, 4]),
            (Word::Keep(Mark([1, 2, 3, 4])), &[3, 1, 2, 3, 4]),
            (Word::Refused(None), &[4]),
            (Word::Refused(Some(Mark([1, 2, 3, 4]))), &[4, 1, 2, 3, 4]),
        ] {
            let mut buf = Vec::new();
            word.encode(&mut buf);
            assert_eq!(buf, bytes);
            assert_eq!(Inner::decode(bytes), Some(Inner::Word(word)));
        }
        for bytes in [&[][..], &[0, 0], &[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6], &[4, 1], &[5, 1, 2, 3, 4]] {
            assert_eq!(Inner::decode(bytes), None);
        }
    }
}
