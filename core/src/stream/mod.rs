//! Streams: QUIC inside a link.
//!
//! [`Streams`] is the machine of the room: it has the application's streams, one key for each whatever happens to the
//! link below, and its datagrams; each link's QUIC; whose turn it is to send; and who may use what ([`Services`]). It
//! is handed the application's calls, the plaintexts of the links' Stream packets and datagrams, and what becomes of
//! the links; it gives back plaintexts to seal ([`Streams::poll_transmit`]), a deadline for each link, and [`Output`]s.
//! It brings no link up, and knows no keys, addresses or paths.
//!
//! A stream of ours waits in the table until its peer's link is up, and is moved into the link's QUIC then
//! ([`Streams::open_waiting`]). Should it turn out that the peer has restarted before it accepted, the stream begins
//! again. One of the peer's is in the table from the moment that its header names a service that takes it. Streams end
//! with their link at the latest ([`Streams::on_link_gone`]).
//!
//! A peer that nothing is open to gets a word for its packets and nothing else (`refusals.rs`). What one that is let in
//! may have us hold is bounded for all its streams together: in bytes by QUIC's window for the connection, in pieces by
//! a count of them (`frames.rs`, `pieces.rs`), in time where it does not even say to what its streams are (`set.rs`).
//!
//! # QUIC
//!
//! The link authenticates, encrypts and numbers every packet; QUIC (quinn-proto) adds what streams need: order,
//! repetition, flow and congestion control. [`LinkStreams`] is one link's share of it. It is handed the plaintext of
//! the link's Stream packets and calls for its streams, and gives back plaintexts to seal, events and a deadline; of
//! path switches it is told by [`LinkStreams::path_upgraded`] and [`LinkStreams::path_failed_over`].
//!
//! # A connection's life
//!
//! QUIC's client is the initiator of the link's first handshake. It connects when it opens its first stream, and the
//! stream's bytes leave in the first flight (0-RTT is always on, see `crypto.rs`). The server cannot connect: to open
//! the first stream it sends a Call (`packet.rs`), repeated until the client's Initial comes. A connection whose last
//! stream ended stays for [`REST_AFTER`](link::REST_AFTER); then the client asks the server with a Rest, and both drop
//! it, unless the server still has a stream (an application that has not read to the end). A connection weighs some 18
//! kB and more when it has been used, a [`LinkStreams`] without one next to nothing: [`LinkStreams::is_disposable`]. If
//! an end has lost a connection that the other still uses, it says Gone, and the other's streams end. Each connection
//! of a link has a later epoch than the one before; packets are marked with it, so that stragglers hit nothing.
//!
//! # A stream's life
//!
//! On the wire, the opener's bytes begin with the length of the service's name (one byte) and the name; the acceptor's
//! begin with one byte 0, sent when the application accepts. All further bytes are the application's, and the opener
//! may send them at once. A refusal resets and stops the stream with one of the codes in `one.rs`.
//!
//! The two directions end independently of each other:
//! - *Receiving* ends when `read` has told the end ([`Read::End`](crate::api::Read::End)) or the peer's reset
//!   ([`StreamError::Ended`](crate::api::StreamError::Ended), to which [`LinkEvent::Readable`] calls; unread bytes are
//!   lost), or with [`LinkStreams::stop`].
//! - *Sending* ends when all bytes up to [`LinkStreams::finish`] are acknowledged, with [`LinkStreams::reset`], or when
//!   the peer stops it ([`LinkEvent::Stopped`]).
//!
//! A stream is forgotten when both have ended. [`LinkEvent::Ended`] is told only if the application could not know
//! otherwise: the peer refused the stream, or reset it where nothing was left to send and `read` had not told so, or
//! the connection is gone. After it, and after a clean end, calls give
//! [`StreamError::Unknown`](crate::api::StreamError::Unknown).

mod authorization;
mod connection;
mod crypto;
mod event;
mod failover;
mod frames;
mod limits;
mod link;
mod one;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod packet;
mod pieces;
mod ready;
mod refusals;
mod set;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use self::authorization::Services;
pub(crate) use self::connection::PACKET_LEN_MAX;
pub use self::connection::PACKET_LEN_MIN;
pub use self::event::{LinkEvent, LocalStream, Side};
pub use self::limits::DATAGRAM_DATA_MAX;
pub(crate) use self::limits::takes_datagram;
pub use self::link::LinkStreams;
pub(crate) use self::streams::{Output, Streams, View};
