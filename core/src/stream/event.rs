//! Words of one link's streams: which end it is, how its streams are named, what happened on them.

use crate::api::StreamEnd;
use crate::wire::ServiceName;

/// Which end of the link this is to QUIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The initiator of the link's first handshake.
    Client,
    /// The other.
    Server,
}

impl Side {
    pub(super) const fn quic(self) -> quinn_proto::Side {
        match self {
            Self::Client => quinn_proto::Side::Client,
            Self::Server => quinn_proto::Side::Server,
        }
    }
}

/// A stream of one [`LinkStreams`](super::LinkStreams). Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalStream(pub u64);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum LinkEvent {
    /// The peer opened a stream. Answer with `accept` or `refuse`.
    Incoming {
        /// The stream.
        stream: LocalStream,
        /// To what.
        service: ServiceName,
    },
    /// The peer accepted a stream of ours.
    Opened(LocalStream),
    /// `read` has something to say.
    Readable(LocalStream),
    /// `write` takes bytes again.
    Writable(LocalStream),
    /// The peer wants no more bytes; receiving goes on.
    Stopped(LocalStream),
    /// The stream is over before its time, and forgotten.
    Ended {
        /// The stream.
        stream: LocalStream,
        /// Why.
        end: StreamEnd,
    },
    /// The QUIC connection broke; `Ended` follows for each of its streams. The next `open` begins another.
    Lost,
}
