//! Keep-alive: how long the router remembers us, when a packet leaves only to be remembered, and what silence means.
//!
//! A router forgets a UDP binding that nobody uses (RFC 4787 §4.3), and after that nobody reaches us through it. How
//! long that takes differs by a factor of a hundred, and nobody tells. So a node behind a router measures it with
//! packets from sockets of its own (`lifetime.rs`; when, and what becomes of the result: [`Measuring`]), and then sends
//! as seldom as that router allows ([`Pace`]): a Beat after so much of its own silence, none while other packets leave.
//! Until the measurement has shown better, [`BEAT_INTERVAL`] is assumed.
//!
//! Beats are not answered; [`Beats`] says when one of them asks for an answer instead, and when silence means that the
//! other side is gone. A packet that awaits an answer (data, a request) is watched more closely: see
//! [`FailureDetector`](crate::path::FailureDetector).
//!
//! All of it is told the time and what happened, and says what is due; sending is others' business
//! (`peer/due.rs`, `node/keepalive.rs`).

use core::time::Duration;

mod beats;
mod lifetime;
mod measuring;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod place;

pub(crate) use beats::{Beats, Due};
pub(crate) use measuring::{Home, Measuring, Output, View};
pub(crate) use place::Place;

/// Silence after which a beat leaves while the binding's lifetime is unknown: under every router's time-out that RFC
/// 4787 §4.3 (REQ-5: two minutes, some keep 30 s) and practice know, but for a few.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_secs(15);
/// The longest silence, however long the router remembers: a router that was restarted is found out by then.
pub(crate) const BEAT_INTERVAL_MAX: Duration = Duration::from_secs(240);
/// The shortest: a router that forgets within seconds has more trouble than a keep-alive can cure.
pub(crate) const BEAT_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// An answer is asked for when the last proof of life would be so old. Homes of one leaf watch each other and tell the
/// leaf within seconds, so this is only for when there is nobody to tell. With 200 s, every second beat of a binding of
/// two minutes would ask, and the answers alone would be a third of all bytes.
pub(crate) const PROOF_AGE_MAX: Duration = Duration::from_secs(300);

// A peer that beats as seldom as it may still proves its life in time.
const _: () = assert!(BEAT_INTERVAL_MAX.as_secs() < PROOF_AGE_MAX.as_secs());

/// Whether and how a link is kept alive from this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Duty {
    /// Nothing is sent: the other side does.
    None,
    /// Nothing is sent and nothing awaited: a link between two that anybody can reach, for when it is used again.
    Rest,
    /// Only answers are asked for: nothing between the two forgets the link.
    Liveness,
    /// Beats against a router's forgetting, and answers asked for.
    Binding,
}

/// How often beats leave on links whose duty is [`Duty::Binding`]; one for the whole node, since all its links go
/// through the same router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    interval: Option<Duration>,
}

impl Pace {
    /// Nothing between us and the internet forgets: the public address is our own, or mapped for good.
    pub(crate) const OPEN: Self = Self { interval: None };
    /// Nothing is known of the router.
    pub(crate) const UNKNOWN: Self = Self { interval: Some(BEAT_INTERVAL) };

    /// For a router that keeps a binding for this long: a fifth of it is left for clocks and delays, and two seconds
    /// for a packet that takes them.
    pub(crate) fn for_lifetime(lifetime: Duration) -> Self {
        let interval = (lifetime * 4 / 5).saturating_sub(Duration::from_secs(2));
        Self { interval: Some(interval.clamp(BEAT_INTERVAL_MIN, BEAT_INTERVAL_MAX)) }
    }

    /// While the measurement runs: the router keeps a binding at least this long. What has not been ruled out is not
    /// assumed, so it never becomes quicker than [`Self::UNKNOWN`].
    pub(crate) fn at_least(lifetime: Duration) -> Self {
        let known = Self::for_lifetime(lifetime);
        if known.interval > Self::UNKNOWN.interval { known } else { Self::UNKNOWN }
    }

    /// Silence after which a beat leaves; none where no beat is needed.
    pub(crate) const fn interval(self) -> Option<Duration> {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_four_fifths_of_the_lifetime_less_two_seconds() {
        let interval = |s| Pace::for_lifetime(Duration::from_secs(s)).interval().map(|d| d.as_millis());
        assert_eq!(interval(120), Some(94_000));
        assert_eq!(interval(180), Some(142_000));
        assert_eq!(interval(10), Some(6_000), "quicker than before it was measured");
        assert_eq!((interval(3), interval(1_000)), (Some(2_000), Some(240_000)));
        let rising = |s| Pace::at_least(Duration::from_secs(s));
        assert_eq!(rising(10), Pace::UNKNOWN);
        assert_eq!(rising(58), Pace::for_lifetime(Duration::from_secs(58)));
    }
}
