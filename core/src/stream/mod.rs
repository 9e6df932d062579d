//! Streams: QUIC inside a link.
//!
//! The link authenticates, encrypts and numbers every packet; QUIC (quinn-proto) adds what streams need: order,
//! repetition, flow and congestion control. [`LinkStreams`] is one link's share of it. It is handed the plaintext of the
//! link's Stream packets and the application's calls, and gives back plaintexts to seal, events and a deadline. It
//! knows no keys, addresses or paths; of path switches it is told by [`LinkStreams::path_upgraded`] and
//! [`LinkStreams::path_failed_over`].
//!
//! # A connection's life
//!
//! QUIC's client is the initiator of the link's first handshake. It connects when it opens its first stream, and the
//! stream's bytes leave in the first flight (0-RTT is always on, see `crypto.rs`). The server cannot connect: to open the
//! first stream it sends a Call (`packet.rs`), repeated until the client's Initial comes. A connection whose last stream
//! ended stays for [`REST_AFTER`]; then the client asks the server with a Rest, and both drop it, unless the server
//! still has a stream (an application that has not read to the end). A connection weighs some 18 kB and more when it has
//! been used, a [`LinkStreams`] without one next to nothing: [`LinkStreams::is_disposable`]. If an end has lost a connection that
//! the other still uses, it says Gone, and the other's streams end.
//! Each connection of a link has a later epoch than the one before; packets are marked with it, so that stragglers hit
//! nothing.
//!
//! # A stream's life
//!
//! On the wire, the opener's bytes begin with the length of the service's name (one byte) and the name; the acceptor's
//! begin with one byte 0, sent when the application accepts. All further bytes are the application's, and the opener
//! may send them at once. A refusal resets and stops the stream with one of the codes in `one.rs`.
//!
//! The two directions end independently of each other:
//! - *Receiving* ends when `read` has told the end ([`Read::End`]) or the peer's reset ([`StreamError::Ended`], to which
//!   [`LinkEvent::Readable`] calls; unread bytes are lost), or with [`LinkStreams::stop`].
//! - *Sending* ends when all bytes up to [`LinkStreams::finish`] are acknowledged, with [`LinkStreams::reset`], or when the peer
//!   stops it ([`LinkEvent::Stopped`]).
//!
//! A stream is forgotten when both have ended. [`LinkEvent::Ended`] is told only if the application could not know
//! otherwise: the peer refused the stream, or reset it where nothing was left to send and `read` had not told so, or
//! the connection is gone. After it, and after a clean end, calls give [`StreamError::Unknown`].

mod connection;
mod crypto;
mod event;
mod failover;
mod limits;
mod link;
mod one;
mod packet;
mod set;

pub(crate) use self::connection::PACKET_LEN_MAX;
pub use self::connection::PACKET_LEN_MIN;
pub use self::event::{LinkEvent, LocalStream, Side};
pub use self::link::LinkStreams;
