//! How much a link's streams may hold.

/// Most streams that each side may have open on a link.
pub(crate) const STREAMS_MAX: u32 = 256;
/// How many of them at first: quinn keeps a place for each that there may be, some 50 bytes.
pub(super) const STREAMS_EARLY: u32 = 32;
/// Most unread bytes of one stream that are held for the application: 100 Mbit/s at 100 ms.
pub(crate) const STREAM_RECEIVE_WINDOW: u32 = 1_250_000;
/// Most unread bytes that all streams of a link hold together.
pub(crate) const RECEIVE_WINDOW: u32 = 8_000_000;
/// Most pieces of streams that QUIC holds unread on a link. At the limit packets that bring more are dropped, as if they
/// were lost. What a window holds in whole packets is 6 000.
pub(super) const PIECES_MAX: usize = 16_384;
/// Most packets with long headers of one connection that are taken: a handshake needs three, and repeats them more and
/// more seldom.
pub(super) const LONG_MAX: u32 = 256;
/// Most written bytes that a link holds until the peer has acknowledged them.
pub(crate) const SEND_WINDOW: u64 = 4_000_000;
