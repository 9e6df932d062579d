//! Whether the own wall clock is right: what supernodes say of theirs.
//!
//! Statements hold for hours of wall time, so a node whose clock is wrong would find all adverts expired, and every
//! supernode its record. Each linked supernode tells the time with its load; their times are kept as distances from
//! our monotonic clock, so that neither time going by nor a jump of our own wall clock changes them. As long as half
//! of them agree with the own clock, that is used; else the one in the middle. What a node tells is always its own
//! clock, never one that it was told: wrong clocks do not travel.
//!
//! Only the time in and of statements comes from here. Handshakes use the own clock: their mark must never go back,
//! so nobody may push it ahead. A majority of liars among a leaf's supernodes can make its record worthless; they
//! could as well not keep it.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::identity::PeerId;
use crate::time::{Instant, WallTime};

/// Most supernodes whose word is kept; at the limit others are not listened to.
const VOTES_MAX: usize = 64;
/// Clocks that differ by less agree: half of what a statement may be from the future.
const AGREE: Duration = Duration::from_secs(300);
/// A time beyond this, in the year 2200, is no time.
const TIME_MAX_S: u64 = 7_258_118_400;

/// The time that statements are judged by: the clocks of linked supernodes beside the own one.
#[derive(Debug, Default)]
pub(crate) struct NetworkClock {
    /// Wall time at the origin of our monotonic clock, in seconds, as each supernode has it.
    votes: BTreeMap<PeerId, i64>,
}

impl NetworkClock {
    /// A supernode told the time; zero says that it knows none.
    pub(crate) fn on_told(&mut self, now: Instant, from: PeerId, time_s: u64) {
        let is_new = !self.votes.contains_key(&from);
        if time_s == 0 || time_s > TIME_MAX_S || (is_new && self.votes.len() >= VOTES_MAX) {
            return;
        }
        self.votes.insert(from, origin_s(now, time_s));
    }

    /// There is no link to it any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.votes.remove(peer);
    }

    /// The time for statements. A leaf lives by what its supernodes hold for true; among supernodes the own clock is
    /// one among equals, so that of two that differ neither takes the other's.
    pub(crate) fn time(&self, now: Instant, own: Option<WallTime>, is_leaf: bool) -> Option<WallTime> {
        let own_s = own.map(|own| origin_s(now, own.as_secs()));
        let agree = |vote: &&i64| own_s.is_some_and(|own_s| vote.abs_diff(own_s) < AGREE.as_secs());
        let mine = usize::from(!is_leaf && own.is_some());
        let agreeing = self.votes.values().filter(agree).count() + mine;
        if agreeing * 2 >= self.votes.len() + mine {
            return own;
        }
        let mut votes: Vec<i64> = self.votes.values().copied().collect();
        votes.sort_unstable();
        let middle = votes.get((votes.len() - 1) / 2)?;
        let time_s = middle.saturating_add_unsigned(now.as_secs());
        u64::try_from(time_s).ok().map(|s| WallTime::from_micros(s.saturating_mul(1_000_000)))
    }
}

fn origin_s(now: Instant, time_s: u64) -> i64 {
    time_s.cast_signed().saturating_sub_unsigned(now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::home::testnet::key;

    const TRUE_S: u64 = 1_800_000_000;

    fn wall(s: u64) -> Option<WallTime> {
        Some(WallTime::from_micros(s * 1_000_000))
    }

    fn told(times: &[u64]) -> NetworkClock {
        let mut clock = NetworkClock::default();
        for (n, time_s) in times.iter().enumerate() {
            clock.on_told(Instant::ZERO, key(n as u8).peer_id(), *time_s);
        }
        clock
    }

    #[test]
    fn the_own_clock_is_used_while_half_agree() {
        let own = wall(TRUE_S);
        for times in [&[][..], &[TRUE_S], &[TRUE_S + 100, 5], &[TRUE_S, TRUE_S, 5]] {
            assert_eq!(told(times).time(Instant::ZERO, own, true), own, "{times:?}");
        }
        assert_eq!(told(&[0, TIME_MAX_S + 1, u64::MAX]).time(Instant::ZERO, own, true), own, "no times at all");
    }

    #[test]
    fn the_one_in_the_middle_is_used_otherwise() {
        let clock = told(&[TRUE_S, TRUE_S + 20, 7, TRUE_S + 10]);
        let later = Instant::ZERO + Duration::from_secs(60);
        assert_eq!(clock.time(later, wall(5), true), wall(TRUE_S + 60));
        assert_eq!(clock.time(later, None, true), wall(TRUE_S + 60));
    }

    #[test]
    fn of_two_supernodes_that_differ_neither_takes_the_others_time() {
        let own = wall(5);
        assert_eq!(told(&[TRUE_S]).time(Instant::ZERO, own, false), own);
        assert_eq!(told(&[TRUE_S, TRUE_S]).time(Instant::ZERO, own, false), wall(TRUE_S));
        assert_eq!(told(&[TRUE_S]).time(Instant::ZERO, own, true), wall(TRUE_S), "a leaf has nobody else");
    }

    #[test]
    fn who_is_gone_has_no_word() {
        let mut clock = told(&[TRUE_S]);
        clock.forget(&key(0).peer_id());
        assert_eq!(clock.time(Instant::ZERO, wall(5), true), wall(5));
        for n in 0..2 * VOTES_MAX as u8 {
            clock.on_told(Instant::ZERO, key(n).peer_id(), TRUE_S);
        }
        assert_eq!(clock.votes.len(), VOTES_MAX);
    }
}
