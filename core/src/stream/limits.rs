//! How much a link's streams may hold, and what a datagram may be.

use crate::peer::{MESSAGES_LEN_MAX, OUTGOING_MAX};

/// Most streams that each side may have open on a link.
pub(crate) const STREAMS_MAX: u32 = 256;
/// How many of them at first: quinn keeps a place for each that there may be, some 50 bytes.
pub(super) const STREAMS_EARLY: u32 = 32;
/// Most unread bytes of one stream that are held for the application: 100 Mbit/s at 100 ms.
pub(crate) const STREAM_RECEIVE_WINDOW: u32 = 1_250_000;
/// Most unread bytes that all streams of a link hold together.
pub(crate) const RECEIVE_WINDOW: u32 = 8_000_000;
/// Most pieces of streams that QUIC holds unread on a link. At the limit packets that bring more are dropped, as if
/// they were lost. What a window holds in whole packets is 6 000.
pub(super) const PIECES_MAX: usize = 16_384;
/// Most packets with long headers of one connection that are taken: a handshake needs three, and repeats them more and
/// more seldom.
pub(super) const LONG_MAX: u32 = 256;
/// Most written bytes that a link holds until the peer has acknowledged them.
pub(crate) const SEND_WINDOW: u64 = 4_000_000;
/// Longest application datagram: what fits one Data packet with a relay header and the message's own three bytes.
pub const DATAGRAM_DATA_MAX: usize = MESSAGES_LEN_MAX - 3;

/// Whether an application's datagram of this length is taken while so much waits to leave: half of the room is for what
/// the node itself has to say.
pub(crate) fn takes_datagram(len: usize, queued: usize) -> bool {
    len <= DATAGRAM_DATA_MAX && queued < OUTGOING_MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_taken_that_fits_a_packet_and_leaves_room() {
        assert!(takes_datagram(DATAGRAM_DATA_MAX, OUTGOING_MAX / 2 - 1));
        assert!(!takes_datagram(DATAGRAM_DATA_MAX + 1, 0));
        assert!(!takes_datagram(0, OUTGOING_MAX / 2));
    }
}
