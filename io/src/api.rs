//! The words in which programs and the loop talk: why something did not come, what a ping said, what a subscriber
//! hears.
//!
//! Everything here is plain data without a life of its own, so it stands below all rooms: the driver gives these
//! answers, and the endpoint hands them on as they are. The core's words ([`Event`], [`CommandError`], ..) are used
//! where they fit.

use std::fmt;
use std::time::Duration;

use handfast_core::{CommandError, ConnectError, Event, PathInfo, StreamEnd};

/// Why a peer or its service could not be had. Nothing is left behind: what was begun is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The node refused the command.
    Command(CommandError),
    /// The peer or the path there ended it.
    Ended(StreamEnd),
    /// No answer within the time given.
    TimedOut,
    /// The endpoint is shut down.
    Closed,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => error.fmt(f),
            Self::Ended(end) => end.fmt(f),
            Self::TimedOut => WaitError::TimedOut.fmt(f),
            Self::Closed => WaitError::Closed.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<CommandError> for OpenError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<StreamEnd> for OpenError {
    fn from(end: StreamEnd) -> Self {
        Self::Ended(end)
    }
}

impl From<ConnectError> for OpenError {
    fn from(error: ConnectError) -> Self {
        Self::Ended(StreamEnd::Connect(error))
    }
}

impl From<WaitError> for OpenError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::TimedOut,
            WaitError::Closed => Self::Closed,
        }
    }
}

/// Why nothing came of waiting. What was waited for may still come, unless the endpoint is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// Not within the time given.
    TimedOut,
    /// Never: the endpoint is shut down.
    Closed,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no answer in time",
            Self::Closed => "the endpoint is shut down",
        })
    }
}

impl std::error::Error for WaitError {}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pong {
    /// Round trip.
    pub rtt: Duration,
    /// The path it took.
    pub path: PathInfo,
}

impl Pong {
    /// An answer by `path` after `rtt`.
    pub(crate) fn new(rtt: Duration, path: PathInfo) -> Self {
        Self { rtt, path }
    }
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// This happened.
    Event(Event),
    /// So many events came here while the subscriber's queue was full, and are lost. What it believes from earlier ones
    /// may be wrong now: [`Endpoint::status`](crate::Endpoint::status) has the truth.
    Lost(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_below_becomes_one_of_opening() {
        let open = |error: OpenError| error;
        assert_eq!(open(CommandError::Limit.into()), OpenError::Command(CommandError::Limit));
        assert_eq!(open(StreamEnd::NotAllowed.into()), OpenError::Ended(StreamEnd::NotAllowed));
        assert_eq!(
            open(ConnectError::Refused.into()),
            OpenError::Ended(StreamEnd::Connect(ConnectError::Refused)),
            "a link that does not come up ends the stream that needs it"
        );
        assert_eq!(open(WaitError::TimedOut.into()), OpenError::TimedOut);
        assert_eq!(open(WaitError::Closed.into()), OpenError::Closed);
    }

    #[test]
    fn errors_say_in_words_what_they_wrap() {
        for (error, inner) in [
            (OpenError::from(CommandError::OwnId), CommandError::OwnId.to_string()),
            (OpenError::from(StreamEnd::Reset(7)), StreamEnd::Reset(7).to_string()),
            (OpenError::from(ConnectError::Unreachable), ConnectError::Unreachable.to_string()),
            (OpenError::from(WaitError::Closed), WaitError::Closed.to_string()),
        ] {
            assert_eq!(error.to_string(), inner);
            assert!(!inner.contains("--"), "no command line here: {inner}");
        }
    }
}
