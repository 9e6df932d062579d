//! Sweeps: when all prospects have failed, they are tried again after a while, ever later and in the end ever fewer.

use core::time::Duration;

use crate::identity::PeerId;
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::message::RECORD_HOMES_MAX;

/// Pause after the first sweep in which all failed; doubles to [`SWEEP_MAX`], with full jitter.
const SWEEP_MIN: Duration = Duration::from_secs(1);
/// See [`SWEEP_MIN`].
const SWEEP_MAX: Duration = Duration::from_secs(300);
/// After so many sweeps in vain, a sweep is no longer over all prospects but over [`RECORD_HOMES_MAX`] drawn ones:
/// with all supernodes gone, a leaf sends them next to nothing.
const FULL_SWEEPS: u8 = 3;

/// When all prospects are tried again, and how many such sweeps found nothing.
#[derive(Default)]
pub(super) struct Sweep {
    at: Option<Instant>,
    /// Sweeps since a home was found.
    failed: u8,
}

impl Sweep {
    /// All have failed: the next one comes after a while, if that is not settled yet.
    pub(super) fn wait(&mut self, now: Instant, jitter: &mut ChoiceRng) {
        if self.at.is_none() {
            let max = SWEEP_MAX.min(SWEEP_MIN * (1 << self.failed.min(9)));
            self.at = Some(now + Duration::from_millis(1) + jitter.jitter(max));
        }
    }

    /// There is no need.
    pub(super) fn stop(&mut self) {
        self.at = None;
    }

    /// A home was found.
    pub(super) fn on_success(&mut self) {
        self.failed = 0;
    }

    /// Whether one is to begin.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// When.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.at
    }

    /// It begins: who of these is tried.
    pub(super) fn begin(&mut self, mut idle: Vec<PeerId>, choice: &mut ChoiceRng) -> Vec<PeerId> {
        if self.failed >= FULL_SWEEPS {
            while idle.len() > RECORD_HOMES_MAX {
                idle.swap_remove(choice.below(idle.len()));
            }
        }
        self.failed = self.failed.saturating_add(1);
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::home::testnet::{generators, key, s};

    #[test]
    fn after_three_full_sweeps_only_two_are_tried_until_a_home_is_found() {
        let (mut sweep, mut random) = (Sweep::default(), generators(1));
        let all: Vec<PeerId> = (1..=5).map(|n| key(n).peer_id()).collect();
        let mut tried = || sweep.begin(all.clone(), &mut random.peer_choice).len();
        assert_eq!([tried(), tried(), tried(), tried(), tried()], [5, 5, 5, 2, 2]);
        sweep.on_success();
        assert_eq!(sweep.begin(all.clone(), &mut random.peer_choice), all);
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes_and_is_drawn_once() {
        let (mut sweep, mut random) = (Sweep::default(), generators(2));
        let longest = (0..300_u16).map(|_| {
            sweep.wait(s(1), &mut random.jitter);
            let at = sweep.poll_timeout();
            sweep.wait(s(1), &mut random.jitter);
            assert_eq!(sweep.poll_timeout(), at, "it is settled");
            assert!(!sweep.handle_timeout(s(1)) && at.is_some_and(|at| sweep.handle_timeout(at)));
            sweep.begin(Vec::new(), &mut random.peer_choice);
            at.map_or(Duration::ZERO, |at| at - s(1))
        });
        let longest: Vec<Duration> = longest.collect();
        assert!(longest[0] <= Duration::from_millis(1_001) && longest[1] <= Duration::from_millis(2_001));
        let max = longest.into_iter().max().expect("some");
        assert!(max > Duration::from_secs(250) && max <= Duration::from_millis(300_001), "{max:?}");
    }
}
