//! Beats of one link: when the next one leaves, and when it asks for an answer.

use core::time::Duration;

use super::{Duty, PROOF_AGE_MAX, Pace};
use crate::time::{Instant, earliest};

/// Waits after each unanswered BeatAsk: repeated after 1, 2 and 4 s, and 4 s later the link is dead.
const ASK_WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// What keep-alive wants sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// A Beat.
    Beat,
    /// A BeatAsk.
    Ask,
    /// All asks stayed unanswered.
    Dead,
}

/// The keep-alive state of one link.
///
/// A Beat leaves after an interval of own silence. When the last proof of life would be older than [`PROOF_AGE_MAX`]
/// before the next one, a BeatAsk takes its place, and is repeated until it is answered or the link is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beats {
    sent: Instant,
    heard: Instant,
    /// How many asks in a row left.
    asks: u8,
    /// When the next one is due, or the link dead.
    ask_at: Instant,
}

impl Beats {
    /// A link that is fresh now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { sent: now, heard: now, asks: 0, ask_at: now + PROOF_AGE_MAX }
    }

    /// Anything left on the path in use.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Anything authentic came.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.asks = 0;
        self.ask_at = now + PROOF_AGE_MAX;
    }

    /// When the link was last heard.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Somebody waited for an answer in vain: the next thing to leave is an ask.
    pub(crate) fn doubt(&mut self, now: Instant) {
        if self.asks == 0 {
            self.ask_at = self.ask_at.min(now);
        }
    }

    /// Whether two answers that were asked for are missing.
    pub(crate) fn is_overdue(&self) -> bool {
        self.asks > 2
    }

    /// A beat of the link to the other home left now, and that link was last heard then, now if it was an ask. Where the
    /// two would march in step, this one's next being more than three quarters of the interval away, it comes sooner this
    /// once: half an interval after the other. Its asks are kept apart, too, so that somebody is asked twice as often:
    /// where both were heard within a quarter of the time between two asks, the next beat asks, if it falls near the
    /// middle.
    pub(crate) fn keep_apart(&mut self, now: Instant, interval: Duration, other_heard: Instant) {
        let mut next = self.sent + interval;
        if next > now + interval * 3 / 4 {
            next = now + interval / 2;
            self.sent = next - interval;
        }
        let beats = PROOF_AGE_MAX.as_micros() / interval.as_micros().max(1);
        let between_asks = interval * u32::try_from(beats).unwrap_or(1);
        let apart = self.heard.max(other_heard) - self.heard.min(other_heard);
        if self.asks == 0 && apart < between_asks / 4 && next >= other_heard + between_asks * 7 / 16 {
            self.ask_at = self.ask_at.min(next);
        }
    }

    /// After how much silence a beat leaves.
    fn interval(duty: Duty, pace: Pace) -> Option<Duration> {
        pace.interval().filter(|_| duty == Duty::Binding)
    }

    /// When [`Self::handle_timeout`] has something to say.
    pub(crate) fn poll_timeout(&self, duty: Duty, pace: Pace) -> Option<Instant> {
        if matches!(duty, Duty::None | Duty::Rest) {
            return None;
        }
        let beat = Self::interval(duty, pace).map(|interval| self.sent + interval);
        earliest(Some(self.ask_at), beat)
    }

    /// What is due now, if anything.
    pub(crate) fn handle_timeout(&mut self, now: Instant, duty: Duty, pace: Pace) -> Option<Due> {
        if self.poll_timeout(duty, pace).is_none_or(|at| now < at) {
            return None;
        }
        // One packet for both: a Beat now and an ask before the next Beat would be one too many.
        let ahead = Self::interval(duty, pace).filter(|_| self.asks == 0).unwrap_or_default();
        let is_ask = now >= self.ask_at || now + ahead > self.ask_at;
        self.sent = now;
        if !is_ask {
            return Some(Due::Beat);
        }
        let Some(wait) = ASK_WAITS.get(usize::from(self.asks)) else {
            self.on_heard(now);
            return Some(Due::Dead);
        };
        self.asks += 1;
        self.ask_at = now + *wait;
        Some(Due::Ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn of_two_minutes() -> Pace {
        Pace::for_lifetime(Duration::from_secs(120))
    }

    /// What is due until then, and when; an ask is answered if `answered`.
    fn run(beats: &mut Beats, duty: Duty, pace: Pace, until: u64, answered: bool) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        while let Some(due) = beats.poll_timeout(duty, pace).filter(|at_due| *at_due < at(until)) {
            let what = beats.handle_timeout(due, duty, pace).expect("a deadline that came is acted upon");
            assert!(beats.poll_timeout(duty, pace).is_none_or(|next| next > due), "no deadline in the past");
            seen.push((due.as_secs(), what));
            if what == Due::Dead {
                break;
            }
            if what == Due::Ask && answered {
                beats.on_heard(due + Duration::from_millis(40));
            }
        }
        seen
    }

    #[test]
    fn beats_at_the_pace_and_an_answer_within_300_seconds() {
        let mut beats = Beats::new(at(0));
        assert_eq!(
            run(&mut beats, Duty::Binding, of_two_minutes(), 600, true),
            [(94, Due::Beat), (188, Due::Beat), (282, Due::Ask), (376, Due::Beat), (470, Due::Beat), (564, Due::Ask)]
        );
        let slow = Pace::for_lifetime(Duration::from_secs(900));
        let mut beats = Beats::new(at(0));
        assert_eq!(run(&mut beats, Duty::Binding, slow, 500, true), [(240, Due::Ask), (480, Due::Ask)]);
    }

    #[test]
    fn an_ask_takes_the_place_of_a_beat() {
        let mut beats = Beats::new(at(0));
        let seen = run(&mut beats, Duty::Binding, Pace::UNKNOWN, 3600, true);
        assert_eq!(seen.len(), 239, "one packet each 15 s");
        assert_eq!(seen.iter().filter(|(_, due)| *due == Due::Ask).count(), 11, "of which every twentieth asks");
    }

    #[test]
    fn unanswered_asks_are_repeated_after_one_two_and_four_seconds_then_the_link_is_dead() {
        let dead = [(300, Due::Ask), (301, Due::Ask), (302, Due::Ask), (304, Due::Ask), (308, Due::Dead)];
        assert_eq!(run(&mut Beats::new(at(0)), Duty::Liveness, of_two_minutes(), 900, false), dead);
        // Where nothing is forgotten there are no beats, whoever's duty they would be.
        assert_eq!(run(&mut Beats::new(at(0)), Duty::Binding, Pace::OPEN, 900, false), dead);
        // An ask that is being repeated is not beaten to it by a beat.
        let behind = run(&mut Beats::new(at(0)), Duty::Binding, of_two_minutes(), 900, false);
        assert_eq!(behind[2..], dead.map(|(s, due)| (s - 18, due)));
    }

    #[test]
    fn nothing_is_sent_while_other_traffic_flows() {
        let mut beats = Beats::new(at(0));
        for s in 0..600 {
            beats.on_sent(at(s));
            beats.on_heard(at(s));
            assert_eq!(beats.handle_timeout(at(s), Duty::Binding, of_two_minutes()), None);
        }
        assert_eq!(Beats::new(at(0)).poll_timeout(Duty::None, of_two_minutes()), None);
    }

    #[test]
    fn two_links_beat_half_an_interval_apart_after_one_early_beat() {
        let pace = of_two_minutes();
        let interval = pace.interval().expect("beats");
        for head_start in 0..94 {
            let mut links = [Beats::new(at(100)), Beats::new(at(100 + head_start))];
            let mut left: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            for _ in 0..40 {
                let due = links.iter().map(|l| l.poll_timeout(Duty::Binding, pace).expect("beats"));
                let now = due.clone().min().expect("two");
                let i = usize::from(due.into_iter().next() != Some(now));
                links[i].handle_timeout(now, Duty::Binding, pace);
                links[i].on_heard(now);
                links[i].on_sent(now);
                let heard = links[i].heard();
                links[1 - i].keep_apart(now, interval, heard);
                left[i].push(now.as_micros());
            }
            let last = left.each_ref().map(|l| *l.last().expect("beats"));
            let gap = last[0].abs_diff(last[1]) / 1_000_000;
            assert!((23..=71).contains(&gap), "{head_start}: {gap} s apart");
            assert!(left[0].windows(2).all(|w| w[1] - w[0] <= 94_000_000), "never later than the interval");
            let early = left.iter().flat_map(|l| l.windows(2)).filter(|w| w[1] - w[0] < 94_000_000).count();
            assert!(early <= 1, "{head_start}: {early} early beats");
        }
    }

    /// When either of two links that began so long after each other asks, each ask being answered.
    fn asks_of_two(head_start: u64, pace: Pace) -> Vec<u64> {
        let mut links = [Beats::new(at(100)), Beats::new(at(100 + head_start))];
        let mut asks = Vec::new();
        let end = at(100 + 7_200);
        loop {
            let [a, b] = links.each_ref().map(|l| l.poll_timeout(Duty::Binding, pace).expect("beats"));
            let (i, now) = if a <= b { (0, a) } else { (1, b) };
            if now > end {
                break;
            }
            if links[i].handle_timeout(now, Duty::Binding, pace) == Some(Due::Ask) {
                asks.push(now.as_secs());
                links[i].on_heard(now);
            }
            let heard = links[i].heard();
            if let Some(interval) = pace.interval() {
                links[1 - i].keep_apart(now, interval, heard);
            }
        }
        asks
    }

    #[test]
    fn regression_one_of_two_homes_is_asked_in_half_the_time_between_two_asks_of_one() {
        for lifetime in [30, 60, 90, 120, 130] {
            let pace = Pace::for_lifetime(Duration::from_secs(lifetime));
            let interval = pace.interval().expect("beats").as_secs();
            let between = 300 / interval * interval;
            for head_start in [0, 1, 7, 20, interval / 2, interval * 3 / 4, interval] {
                let asks = asks_of_two(head_start, pace);
                let (count, late): (usize, Vec<_>) = (asks.len(), asks.iter().filter(|ask| **ask >= 1_000).collect());
                let longest = late.windows(2).map(|w| w[1] - w[0]).max().expect("several");
                assert!(
                    longest <= between * 5 / 8 + interval / 2,
                    "{lifetime}, {head_start}: {longest} of {between} s"
                );
                assert!(count as u64 <= 2 * 7_200 / between + 4, "{lifetime}, {head_start}: {count} asks");
            }
        }
    }
}
