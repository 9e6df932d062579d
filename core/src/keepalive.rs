//! Keep-alive: when a link sends a beat, when it asks for an answer, and when silence means that the peer is gone.
//!
//! A router forgets a UDP binding that nobody uses, so a node behind one sends a Beat (17 bytes) after
//! [`BEAT_INTERVAL`] of its own silence; any other packet serves as well, so none is sent while other traffic flows.
//! Beats are not answered. When the last proof of life would be older than [`PROOF_AGE_MAX`] before the next Beat, a
//! BeatAsk takes the Beat's place; unanswered it is repeated after 1, 2 and 4 s, then the link is dead.
//!
//! A packet that awaits an answer (data, a request) is watched more closely: see [`Watch`].

use core::time::Duration;

use crate::time::{Instant, earliest};

/// Silence after which a beat leaves, while the binding's lifetime is unknown: under every router's time-out that RFC
/// 4787 §4.3 (REQ-5: two minutes, some keep 30 s) and practice know.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(15);
/// An answer is asked for when the last proof of life is so old.
pub const PROOF_AGE_MAX: Duration = Duration::from_secs(60);
/// Waits after each unanswered BeatAsk.
const ASK_WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// An answer overdue by this: the path is probed.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);
/// An answer overdue by this: the other paths are used, so that bytes flow again within 3 s.
pub const FAILOVER_AFTER: Duration = Duration::from_millis(2_500);
/// An answer overdue by this: new handshakes go out on all paths.
pub const REVIVE_AFTER: Duration = Duration::from_secs(5);
/// Between two rounds of handshakes and introductions while a peer stays silent.
pub const REVIVE_INTERVAL: Duration = Duration::from_secs(8);
/// A peer silent for so long, although asked on every path, is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(45);

/// Whether and how a link is kept alive from this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duty {
    /// Nothing is sent: the other side does.
    None,
    /// Only answers are asked for: nothing between the two forgets the link.
    Liveness,
    /// Beats against a router's forgetting, and answers asked for.
    Binding,
}

/// What keep-alive wants sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// A Beat.
    Beat,
    /// A BeatAsk.
    Ask,
    /// All asks stayed unanswered.
    Dead,
}

/// The keep-alive state of one link.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    sent: Instant,
    heard: Instant,
    asks: u8,
    asked: Instant,
}

impl Beats {
    /// A link that is fresh now.
    pub const fn new(now: Instant) -> Self {
        Self { sent: now, heard: now, asks: 0, asked: now }
    }

    /// Anything left on the path in use.
    pub fn on_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Anything authentic came.
    pub fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.asks = 0;
    }

    /// When the link was last heard.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether two answers that were asked for are missing.
    pub fn is_overdue(&self) -> bool {
        self.asks > 2
    }

    /// When [`Self::handle_timeout`] has something to say.
    pub fn poll_timeout(&self, duty: Duty) -> Option<Instant> {
        if duty == Duty::None {
            return None;
        }
        let ask = match usize::from(self.asks).checked_sub(1) {
            None => self.heard + PROOF_AGE_MAX,
            Some(i) => self.asked + ASK_WAITS[i.min(ASK_WAITS.len() - 1)],
        };
        let beat = (duty == Duty::Binding).then(|| self.sent + BEAT_INTERVAL);
        earliest(Some(ask), beat)
    }

    /// What is due now, if anything.
    pub fn handle_timeout(&mut self, now: Instant, duty: Duty) -> Option<Due> {
        if self.poll_timeout(duty).is_none_or(|at| now < at) {
            return None;
        }
        // One packet for both: a Beat now and an ask before the next Beat would be one too many.
        let ahead = if duty == Duty::Binding { BEAT_INTERVAL } else { Duration::ZERO };
        let ask_due = match usize::from(self.asks).checked_sub(1) {
            None => now >= self.heard + PROOF_AGE_MAX || now + ahead > self.heard + PROOF_AGE_MAX,
            Some(i) => now >= self.asked + ASK_WAITS[i.min(ASK_WAITS.len() - 1)],
        };
        self.sent = now;
        if !ask_due {
            return Some(Due::Beat);
        }
        self.asked = now;
        if usize::from(self.asks) >= ASK_WAITS.len() {
            self.asks = 0;
            self.heard = now;
            return Some(Due::Dead);
        }
        self.asks += 1;
        Some(Due::Ask)
    }
}

/// What to do about an answer that does not come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
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
pub struct Watch {
    since: Option<Instant>,
    /// The step taken last, and when.
    last: Option<(Step, Instant)>,
    /// When the trouble began: outlives a failover, since a new path has to prove itself too.
    trouble: Option<Instant>,
}

impl Watch {
    /// A packet that awaits an answer left on the path in use.
    pub fn on_sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Something authentic came on the path in use.
    pub fn on_heard(&mut self) {
        *self = Self::default();
    }

    /// The peer's newest packets come on another path: the one in use may be dead in our direction only, which packets
    /// that still come on it would hide. It was challenged now and has one second to answer.
    pub fn on_peer_elsewhere(&mut self, now: Instant) {
        if self.last.is_none() {
            self.since = Some(now - (FAILOVER_AFTER - PROBE_AFTER));
            self.last = Some((Step::Probe, now));
        }
    }

    /// Another path is in use now: it gets its own three seconds.
    pub fn on_path_changed(&mut self, now: Instant) {
        if self.since.is_some() {
            self.since = Some(now);
            self.last = self.last.map(|(_, at)| (Step::Failover, at));
        }
    }

    /// Since when an answer is awaited.
    pub fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// When the next step is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let since = self.since?;
        let started = self.trouble.unwrap_or(since);
        Some(match self.last {
            None => since + PROBE_AFTER,
            Some((Step::Probe, _)) => since + FAILOVER_AFTER,
            Some((Step::Failover, at)) => (started + REVIVE_AFTER).max(at + PROBE_AFTER),
            Some((Step::Revive | Step::Gone, at)) => (at + REVIVE_INTERVAL).min(started + GONE_AFTER),
        })
    }

    /// The step that is due now, if any.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        let started = *self.trouble.get_or_insert(self.since.unwrap_or(now));
        let step = match self.last {
            None => Step::Probe,
            Some((Step::Probe, _)) => Step::Failover,
            Some(_) if now.since(started) >= GONE_AFTER => Step::Gone,
            Some(_) => Step::Revive,
        };
        self.last = Some((step, now));
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn run(beats: &mut Beats, duty: Duty, until: Instant) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        while let Some(due) = beats.poll_timeout(duty).filter(|at| *at < until) {
            let what = beats.handle_timeout(due, duty).expect("a deadline that came is acted upon");
            assert!(beats.poll_timeout(duty).is_none_or(|next| next > due), "no deadline in the past");
            seen.push((due.as_micros() / 1_000_000, what));
            if what == Due::Dead {
                break;
            }
        }
        seen
    }

    #[test]
    fn beats_every_fifteen_seconds_and_an_answer_within_sixty() {
        let mut beats = Beats::new(at(0));
        assert_eq!(
            run(&mut beats, Duty::Binding, at(61)),
            [(15, Due::Beat), (30, Due::Beat), (45, Due::Beat), (60, Due::Ask)]
        );
    }

    #[test]
    fn an_ask_takes_the_place_of_a_beat() {
        let mut beats = Beats::new(at(0));
        let mut seen = Vec::new();
        while let Some(due) = beats.poll_timeout(Duty::Binding).filter(|due| *due < at(3600)) {
            let what = beats.handle_timeout(due, Duty::Binding).expect("due");
            seen.push(what);
            if what == Due::Ask {
                beats.on_heard(due + Duration::from_millis(40));
            }
        }
        assert_eq!(seen.len(), 239, "one packet each 15 s");
        assert_eq!(seen.iter().filter(|due| **due == Due::Ask).count(), 59, "of which every fourth asks");
    }

    #[test]
    fn unanswered_asks_are_repeated_after_one_two_and_four_seconds_then_the_link_is_dead() {
        let mut beats = Beats::new(at(0));
        assert_eq!(
            run(&mut beats, Duty::Liveness, at(600)),
            [(60, Due::Ask), (61, Due::Ask), (62, Due::Ask), (64, Due::Ask), (68, Due::Dead)]
        );
    }

    #[test]
    fn nothing_is_sent_while_other_traffic_flows() {
        let mut beats = Beats::new(at(0));
        for s in 0..600 {
            beats.on_sent(at(s));
            beats.on_heard(at(s));
            assert_eq!(beats.handle_timeout(at(s), Duty::Binding), None);
        }
        assert_eq!(Beats::new(at(0)).poll_timeout(Duty::None), None);
    }

    #[test]
    fn an_answer_overdue_is_probed_then_failed_over_then_revived_then_given_up() {
        let mut watch = Watch::default();
        watch.on_sent(at(0));
        let mut steps = Vec::new();
        while let Some(due) = watch.poll_timeout() {
            let step = watch.handle_timeout(due).expect("due");
            steps.push((due.as_micros() / 1_000, step));
            if step == Step::Gone {
                break;
            }
        }
        assert_eq!(
            steps,
            [
                (1_000, Step::Probe),
                (2_500, Step::Failover),
                (5_000, Step::Revive),
                (13_000, Step::Revive),
                (21_000, Step::Revive),
                (29_000, Step::Revive),
                (37_000, Step::Revive),
                (45_000, Step::Gone)
            ]
        );
        watch.on_heard();
        assert_eq!(watch.poll_timeout(), None);
    }
}
