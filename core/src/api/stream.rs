//! Streams as the caller names and reads them, and how they end.

use core::fmt;

use super::error::ConnectError;
use crate::wire::message::RelayLimit;

/// A stream of this node. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey(pub u64);

/// What a read gave. Exhaustive: who reads has to go on in one of these ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// The peer finished: no more bytes will come.
    End,
    /// Nothing now; `Event::Readable` will tell.
    Blocked,
}

/// Why a stream call failed. The stream is unchanged unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamError {
    /// No such stream, or forgotten already.
    Unknown,
    /// The call does not fit: writing after `finish`, say.
    Finished,
    /// The stream has ended; the reason came as [`Event::StreamEnded`](super::Event::StreamEnded) or is this.
    Ended(StreamEnd),
    /// Nothing can be taken now; `Event::Writable` will tell.
    Blocked,
}

/// Why a stream ended before both sides finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The peer could not be reached.
    Connect(ConnectError),
    /// The peer offers no such service.
    UnknownService,
    /// The peer offers the service, but not to us.
    NotAllowed,
    /// The peer could not reach the program behind the service.
    Unavailable,
    /// The peer reset the stream (its program closed hard) with this code.
    Reset(u32),
    /// The peer restarted: its streams are gone.
    PeerRestarted,
    /// The peer left or vanished.
    PeerGone,
    /// The two have no direct path, their relay carries no more for them ([`Event::RelayLimited`] names it), and there
    /// is no other.
    ///
    /// [`Event::RelayLimited`]: super::Event::RelayLimited
    RelayLimited {
        /// Which limit is met.
        limit: RelayLimit,
        /// The relay carries again after so many seconds.
        retry_after_s: u32,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such stream"),
            Self::Finished => f.write_str("the stream is finished in this direction"),
            Self::Ended(end) => end.fmt(f),
            Self::Blocked => f.write_str("nothing can be taken now"),
        }
    }
}
impl core::error::Error for StreamError {}

impl From<ConnectError> for StreamEnd {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::UnknownService => f.write_str("the peer offers no such service"),
            Self::NotAllowed => f.write_str("the peer does not let us use this service"),
            Self::Unavailable => f.write_str("the program behind the service does not answer"),
            Self::Reset(code) => write!(f, "the peer reset the stream (code {code})"),
            Self::PeerRestarted => f.write_str("the peer restarted"),
            Self::PeerGone => f.write_str("the peer is gone"),
            Self::RelayLimited { limit: RelayLimit::Pair, .. } => {
                f.write_str("the relay's bytes a day for the two nodes are used up, and there is no other way")
            }
            Self::RelayLimited { limit: RelayLimit::Relay, .. } => {
                f.write_str("all that the relay carries for now is used up, and there is no other way")
            }
        }
    }
}
impl core::error::Error for StreamEnd {}
