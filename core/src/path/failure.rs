//! An answer that does not come: when to look, when to use another path, when to give up.
//!
//! [`FailureDetector`] is told of every packet that awaits an answer, and of every answer. While an answer is overdue
//! its deadline names the next [`Remedy`]: challenge the path in use, use another, shake hands anew, give up.

use core::time::Duration;

use crate::time::Instant;

/// An answer overdue by this: the path is probed.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(1);
/// An answer overdue by this: the other paths are used, so that bytes flow again within 3 s.
pub(crate) const FAILOVER_AFTER: Duration = Duration::from_millis(2_500);
/// An answer overdue by this: new handshakes go out on all paths.
pub(crate) const REVIVE_AFTER: Duration = Duration::from_secs(5);
/// Between two rounds of handshakes and introductions while a peer stays silent.
pub(crate) const REVIVE_INTERVAL: Duration = Duration::from_secs(8);
/// A peer silent for so long, although asked on every path, is gone.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(45);

/// What to do about an answer that does not come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Remedy {
    /// Challenge the path in use.
    Probe,
    /// Use another path.
    Failover,
    /// New handshakes on all paths, new introductions.
    Revive,
    /// Give up.
    Gone,
}

/// Watches for the answer to the oldest packet that awaits one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FailureDetector {
    since: Option<Instant>,
    /// The remedy taken last, and when.
    last: Option<(Remedy, Instant)>,
    /// When the trouble began: outlives a failover, since a new path has to prove itself too.
    trouble: Option<Instant>,
}

impl FailureDetector {
    /// A packet that awaits an answer left on the path in use.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Something authentic came on the path in use.
    pub(crate) fn on_heard(&mut self) {
        *self = Self::default();
    }

    /// The peer's newest packets come on another path: the one in use may be dead in our direction only, which packets
    /// that still come on it would hide. It was challenged now and has one second to answer.
    pub(crate) fn on_peer_elsewhere(&mut self, now: Instant) {
        if self.last.is_none() {
            self.since = Some(now - (FAILOVER_AFTER - PROBE_AFTER));
            self.last = Some((Remedy::Probe, now));
        }
    }

    /// Another path is in use now: it gets its own three seconds.
    pub(crate) fn on_path_changed(&mut self, now: Instant) {
        if self.since.is_some() {
            self.since = Some(now);
            self.last = self.last.map(|(_, at)| (Remedy::Failover, at));
        }
    }

    /// Since when an answer is awaited.
    pub(crate) fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// When the next remedy is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let since = self.since?;
        let started = self.trouble.unwrap_or(since);
        Some(match self.last {
            None => since + PROBE_AFTER,
            Some((Remedy::Probe, _)) => since + FAILOVER_AFTER,
            Some((Remedy::Failover, at)) => (started + REVIVE_AFTER).max(at + PROBE_AFTER),
            Some((Remedy::Revive | Remedy::Gone, at)) => (at + REVIVE_INTERVAL).min(started + GONE_AFTER),
        })
    }

    /// The remedy that is due now, if any.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Remedy> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        let started = *self.trouble.get_or_insert(self.since.unwrap_or(now));
        let remedy = match self.last {
            None => Remedy::Probe,
            Some((Remedy::Probe, _)) => Remedy::Failover,
            Some(_) if now.since(started) >= GONE_AFTER => Remedy::Gone,
            Some(_) => Remedy::Revive,
        };
        self.last = Some((remedy, now));
        Some(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn an_answer_overdue_is_probed_then_failed_over_then_revived_then_given_up() {
        let mut detector = FailureDetector::default();
        detector.on_sent(at(0));
        let mut remedies = Vec::new();
        while let Some(due) = detector.poll_timeout() {
            let remedy = detector.handle_timeout(due).expect("due");
            remedies.push((due.as_micros() / 1_000, remedy));
            if remedy == Remedy::Gone {
                break;
            }
        }
        assert_eq!(
            remedies,
            [
                (1_000, Remedy::Probe),
                (2_500, Remedy::Failover),
                (5_000, Remedy::Revive),
                (13_000, Remedy::Revive),
                (21_000, Remedy::Revive),
                (29_000, Remedy::Revive),
                (37_000, Remedy::Revive),
                (45_000, Remedy::Gone)
            ]
        );
        detector.on_heard();
        assert_eq!(detector.poll_timeout(), None);
    }
}
