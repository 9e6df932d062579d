//! How the command ends: an exit code with a meaning, and for every failure its cause and the next step.
//!
//! The codes are a promise to scripts; the local API uses the same numbers in its `ERR code=…` lines, so that what a
//! node refuses reaches the shell unchanged.

use std::fmt;
use std::io;

use handfast_core::RelayLimit;
use handfast_io::{CommandError, ConnectError, OpenError, StreamEnd};

/// What the process tells its caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// It did not work, for a reason that has no code of its own.
    Failure = 1,
    /// The command line or an address in it is wrong.
    Usage = 2,
    /// The command needs a running node and there is none.
    NotRunning = 3,
    /// The peer cannot be reached, or did not answer in time.
    Unreachable = 4,
    /// The peer refused: unknown service, or not allowed.
    Refused = 5,
    /// The key file cannot be used.
    Identity = 6,
    /// It works, but worse than asked for: a relayed path where a direct one was demanded.
    Degraded = 7,
    /// Stopped by a signal before it was done.
    Interrupted = 130,
}

impl Exit {
    /// Every code, for turning a number of the local API back into a meaning.
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::NotRunning,
        Self::Unreachable,
        Self::Refused,
        Self::Identity,
        Self::Degraded,
        Self::Interrupted,
    ];

    /// The number the shell sees.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number; a number of a newer version is a plain failure.
    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Failure)
    }
}

/// Why a command failed, in words for a person: one line with the cause and what to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong.
    pub(crate) cause: String,
    /// What to do about it; a command, where there is one.
    pub(crate) next: Option<String>,
}

impl Failure {
    /// A failure with a next step.
    pub(crate) fn new(exit: Exit, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, cause: cause.into(), next: Some(next.into()) }
    }

    /// A failure about which nothing can be advised.
    pub(crate) fn bare(exit: Exit, cause: impl Into<String>) -> Self {
        Self { exit, cause: cause.into(), next: None }
    }

    /// A wrong command line.
    pub(crate) fn usage(cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Usage, cause, next)
    }

    /// Something failed that should not have; the error says what.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::bare(Exit::Failure, format!("{what}: {error}"))
    }

    /// Why a peer or its service could not be had. `peer` and `service` are how the user named them.
    pub(crate) fn open(error: &OpenError, peer: &str, service: Option<&str>) -> Self {
        let name = service.unwrap_or("the service");
        match error {
            OpenError::TimedOut => Self::new(
                Exit::Unreachable,
                format!("{peer} did not answer in time"),
                "see whether it is running and has a home: handfast status, over there",
            ),
            OpenError::Closed => Self::bare(Exit::Failure, "the node is shutting down"),
            OpenError::Command(CommandError::OwnId) => Self::usage(
                "that is this node's own address",
                "name another peer; its owner gets the address from: handfast id",
            ),
            OpenError::Command(CommandError::WeakKey) => {
                Self::usage(format!("{peer} is a weak key and no peer"), "ask its owner for: handfast id")
            }
            OpenError::Command(CommandError::Limit) => {
                Self::new(Exit::Failure, "the node has no room for another connection", "try again later")
            }
            OpenError::Command(CommandError::NotConnected) => {
                Self::bare(Exit::Unreachable, format!("{peer} is not connected"))
            }
            OpenError::Command(CommandError::Datagram) => Self::bare(Exit::Failure, "the datagram is too long"),
            OpenError::Command(CommandError::Leaving) => Self::bare(Exit::Failure, "the node is shutting down"),
            OpenError::Ended(StreamEnd::Connect(error)) => Self::connect(*error, peer),
            OpenError::Ended(StreamEnd::UnknownService) => Self::new(
                Exit::Refused,
                format!("{peer} offers no service \"{name}\""),
                format!("its owner offers it with: handfast expose {name}=HOST:PORT --allow any"),
            ),
            OpenError::Ended(StreamEnd::NotAllowed) => Self::new(
                Exit::Refused,
                format!("{peer} refused: you are not allowed \"{name}\""),
                format!("ask its owner to add you: --allow and the address that `handfast id` prints, for {name}"),
            ),
            OpenError::Ended(StreamEnd::Unavailable) => Self::new(
                Exit::Unreachable,
                format!("{peer} offers \"{name}\", but the program behind it does not answer"),
                "ask its owner to start it",
            ),
            OpenError::Ended(StreamEnd::Reset(code)) => {
                Self::bare(Exit::Failure, format!("{peer} reset the stream (code {code})"))
            }
            OpenError::Ended(StreamEnd::PeerRestarted) => {
                Self::new(Exit::Failure, format!("{peer} restarted"), "run the command again")
            }
            OpenError::Ended(StreamEnd::PeerGone) => {
                Self::new(Exit::Unreachable, format!("{peer} left or vanished"), "try again when it is back")
            }
            OpenError::Ended(StreamEnd::RelayLimited { limit, retry_after_s }) => Self::new(
                Exit::Unreachable,
                format!("no direct path to {peer}, and {}", limit_words(*limit)),
                format!("try again in {}, or run a supernode of your own: handfast supernode", hours(*retry_after_s)),
            ),
            error => Self::bare(Exit::Failure, error.to_string()),
        }
    }

    /// Why no link to a peer could be brought up.
    pub(crate) fn connect(error: ConnectError, peer: &str) -> Self {
        match error {
            ConnectError::NoSupernode => Self::new(
                Exit::Unreachable,
                "no supernode is known or answers",
                "name one with --bootstrap hf1…@HOST:PORT, or use a ticket (its owner gets it from: handfast ticket)",
            ),
            ConnectError::UnknownPeer => Self::new(
                Exit::Unreachable,
                format!("{peer} is unknown: no supernode has a record of it"),
                "see that it is running and bootstraps from the same network",
            ),
            ConnectError::Unreachable => Self::new(
                Exit::Unreachable,
                format!("{peer} is known, but does not answer"),
                "see whether it is still running: handfast status, over there",
            ),
            ConnectError::Refused => Self::new(
                Exit::Refused,
                format!("{peer} refuses this node: it offers nothing that this node may use"),
                "ask its owner to add the address that `handfast id` prints with --allow",
            ),
            ConnectError::Busy => Self::new(
                Exit::Unreachable,
                format!("the homes of {peer} are too busy, or have used up what they relay"),
                "try again later, or run a supernode of your own: handfast supernode",
            ),
            error => Self::bare(Exit::Unreachable, error.to_string()),
        }
    }
}

/// Which limit of a relay is met, for a person.
pub(crate) fn limit_words(limit: RelayLimit) -> &'static str {
    match limit {
        RelayLimit::Pair => "the relay's bytes of the day for the two of you are used up",
        RelayLimit::Relay => "all that the relay carries for now is used up",
    }
}

/// A time until which one does not wait at the keyboard.
fn hours(seconds: u32) -> String {
    match seconds.div_ceil(60) {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes @ 120..2_880 => format!("{} h", minutes.div_ceil(60)),
        minutes => format!("{} days", minutes.div_ceil(1_440)),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        match &self.next {
            Some(next) => write!(f, "; {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_local_api() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
        assert_eq!(Exit::from_code(99), Exit::Failure);
    }

    #[test]
    fn refusals_and_silence_have_their_own_codes() {
        let code = |error: OpenError| Failure::open(&error, "hf1x", Some("ssh")).exit;
        assert_eq!(code(OpenError::TimedOut), Exit::Unreachable);
        assert_eq!(code(OpenError::Ended(StreamEnd::Connect(ConnectError::UnknownPeer))), Exit::Unreachable);
        assert_eq!(code(OpenError::Ended(StreamEnd::UnknownService)), Exit::Refused);
        assert_eq!(code(OpenError::Ended(StreamEnd::NotAllowed)), Exit::Refused);
        assert_eq!(code(OpenError::Command(CommandError::OwnId)), Exit::Usage);
    }

    #[test]
    fn a_relay_that_carries_no_more_is_named_with_a_time_and_a_way_out() {
        let end = |limit, retry_after_s| OpenError::Ended(StreamEnd::RelayLimited { limit, retry_after_s });
        let text = Failure::open(&end(RelayLimit::Pair, 40_000), "hf1x", None).to_string();
        assert!(text.contains("bytes of the day") && text.contains("in 12 h") && text.contains("supernode"), "{text}");
        let failure = Failure::open(&end(RelayLimit::Relay, 20 * 86_400), "hf1x", None);
        assert!(failure.to_string().contains("in 20 days") && failure.exit == Exit::Unreachable, "{failure}");
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::open(&OpenError::Ended(StreamEnd::NotAllowed), "hf1x", Some("web"));
        let text = failure.to_string();
        assert!(!text.contains('\n') && text.contains("\"web\"") && text.contains("; "), "{text}");
    }
}
