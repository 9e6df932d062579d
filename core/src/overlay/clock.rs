//! Whether the own wall clock is right: what supernodes say of theirs.
//!
//! Statements hold for hours of wall time, so a node whose clock is wrong would find all adverts expired, and every
//! supernode its record. Each linked supernode tells the time with its load; their times are kept as distances from
//! our monotonic clock, so that neither time going by nor a jump of our own wall clock changes them. There is one vote
//! for each prefix, since many keys cost nothing. As long as half of the votes agree with the own clock, or too few
//! with one another, that is used; else the one in the middle. A newcomer does not move it: what is far from what most
//! hold does not count. What a node tells is always its own clock, never one that it was told: wrong clocks do not
//! travel.
//!
//! Only the time in and of statements comes from here. Handshakes use the own clock: their mark must never go back,
//! so nobody may push it ahead. A majority of liars among a leaf's supernodes can make its record worthless; they
//! could as well not keep it.

use core::net::IpAddr;
use core::time::Duration;

use crate::identity::PeerId;
use crate::time::{Instant, WallTime};
use crate::wire::address::Prefix;

/// Most supernodes whose word is kept; at the limit others are not listened to.
const VOTES_MAX: usize = 64;
/// A word counts for so long: clocks do not drift further than they may differ in that time, and a leaf is linked to two
/// at most of those that told it the time.
const VOTE_HOLDS: Duration = Duration::from_secs(24 * 3_600);
/// Clocks that differ by less agree: half of what a statement may be from the future.
const AGREE: Duration = Duration::from_secs(300);
/// Supernodes of different prefixes, or more than half of all that there are, that must agree against the own clock.
const OVERRULE: usize = 3;
/// A vote that is further from what most votes hold does not count.
const MOVE_MAX: Duration = Duration::from_secs(600);
/// A time beyond this, in the year 2200, is no time.
const TIME_MAX_S: u64 = 7_258_118_400;

/// A supernode's word for what time it is.
#[derive(Clone, Copy, Debug)]
struct Vote {
    from: PeerId,
    /// Where it is, if that counts: there is one vote for each.
    prefix: Option<Prefix>,
    /// Wall time at the origin of our monotonic clock, in seconds.
    origin_s: i64,
    /// When it was told last.
    at: Instant,
}

/// The time that statements are judged by: the clocks of linked supernodes beside the own one.
#[derive(Debug, Default)]
pub(crate) struct NetworkClock {
    votes: Vec<Vote>,
}

/// What a vote stands against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The own wall clock, if there is one.
    pub own: Option<WallTime>,
    /// This node is a leaf: it lives by what its supernodes hold for true. Among supernodes the own clock is one among
    /// equals, so that of two that differ neither takes the other's.
    pub is_leaf: bool,
    /// In how many prefixes those are that could vote.
    pub voters: usize,
}

impl NetworkClock {
    /// A supernode told the time, from this address; zero says that it knows none.
    pub(crate) fn on_told(&mut self, now: Instant, from: PeerId, ip: Option<IpAddr>, time_s: u64, by: Standing) {
        let prefix = ip.and_then(Prefix::counted);
        if time_s == 0 || time_s > TIME_MAX_S {
            return;
        }
        self.votes.retain(|vote| now.since(vote.at) < VOTE_HOLDS);
        let is_new = self.votes.iter().all(|vote| vote.from != from);
        let is_taken = || prefix.is_some() && self.votes.iter().any(|vote| vote.prefix == prefix);
        if is_new && (self.votes.len() >= VOTES_MAX || is_taken()) {
            return;
        }
        let vote = Vote { from, prefix, origin_s: origin_s(now, time_s), at: now };
        // Who agrees with the own clock is heard in any case: the first to be met may have been liars.
        let is_mine = by.own.is_some_and(|own| vote.origin_s.abs_diff(origin_s(now, own.as_secs())) < AGREE.as_secs());
        let is_far =
            !is_mine && self.is_held(now, by).is_some_and(|held| vote.origin_s.abs_diff(held) > MOVE_MAX.as_secs());
        self.votes.retain(|vote| vote.from != from);
        if !is_far {
            self.votes.push(vote);
        }
    }

    /// The time in use, if most votes are for it.
    fn is_held(&self, now: Instant, by: Standing) -> Option<i64> {
        let held = origin_s(now, self.time(now, by)?.as_secs());
        (self.agreeing(held) * 2 > self.votes.len()).then_some(held)
    }

    fn agreeing(&self, with_s: i64) -> usize {
        self.votes.iter().filter(|vote| vote.origin_s.abs_diff(with_s) < AGREE.as_secs()).count()
    }

    /// The time for statements.
    pub(crate) fn time(&self, now: Instant, by: Standing) -> Option<WallTime> {
        let own_s = by.own.map(|own| origin_s(now, own.as_secs()));
        let mine = usize::from(!by.is_leaf && by.own.is_some());
        let agreeing = own_s.map_or(0, |own_s| self.agreeing(own_s)) + mine;
        if agreeing * 2 >= self.votes.len() + mine {
            return by.own;
        }
        let mut votes: Vec<i64> = self.votes.iter().map(|vote| vote.origin_s).collect();
        votes.sort_unstable();
        let middle = *votes.get((votes.len() - 1) / 2)?;
        if by.own.is_some() && self.agreeing(middle) < OVERRULE.min(by.voters / 2 + 1) {
            return by.own;
        }
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

    fn by(own: Option<WallTime>, is_leaf: bool) -> Standing {
        Standing { own, is_leaf, voters: 9 }
    }

    fn tell(clock: &mut NetworkClock, n: u8, time_s: u64) {
        clock.on_told(Instant::ZERO, key(n).peer_id(), Some([198, 18, n, 1].into()), time_s, by(wall(TRUE_S), true));
    }

    fn told(times: &[u64]) -> NetworkClock {
        let mut clock = NetworkClock::default();
        for (n, time_s) in times.iter().enumerate() {
            tell(&mut clock, n as u8, *time_s);
        }
        clock
    }

    #[test]
    fn the_own_clock_is_used_while_half_agree() {
        let own = wall(TRUE_S);
        for times in [&[][..], &[TRUE_S], &[TRUE_S + 100, 5], &[TRUE_S, TRUE_S, 5]] {
            assert_eq!(told(times).time(Instant::ZERO, by(own, true)), own, "{times:?}");
        }
        assert_eq!(told(&[0, TIME_MAX_S + 1, u64::MAX]).time(Instant::ZERO, by(own, true)), own, "no times at all");
    }

    #[test]
    fn the_one_in_the_middle_is_used_otherwise() {
        let clock = told(&[TRUE_S, TRUE_S + 20, TRUE_S + 10]);
        let later = Instant::ZERO + Duration::from_secs(60);
        assert_eq!(clock.time(later, by(wall(5), true)), wall(TRUE_S + 70));
        assert_eq!(clock.time(later, by(None, true)), wall(TRUE_S + 70));
    }

    #[test]
    fn fewer_than_three_overrule_nobody_unless_there_are_no_more() {
        let own = wall(5);
        let clock = told(&[TRUE_S, TRUE_S]);
        assert_eq!(clock.time(Instant::ZERO, by(own, true)), own);
        let few = |voters| Standing { voters, ..by(own, true) };
        assert_eq!([2, 3].map(|voters| clock.time(Instant::ZERO, few(voters))), [wall(TRUE_S); 2]);
        assert_eq!(told(&[TRUE_S, TRUE_S, 77]).time(Instant::ZERO, by(own, true)), own);
    }

    #[test]
    fn of_two_supernodes_that_differ_neither_takes_the_others_time() {
        let (own, two) = (wall(5), |own, is_leaf| Standing { voters: 1, ..by(own, is_leaf) });
        assert_eq!(told(&[TRUE_S]).time(Instant::ZERO, two(own, false)), own);
        assert_eq!(told(&[TRUE_S]).time(Instant::ZERO, two(own, true)), wall(TRUE_S), "a leaf has nobody else");
        assert_eq!(told(&[TRUE_S; 3]).time(Instant::ZERO, by(own, false)), wall(TRUE_S));
    }

    #[test]
    fn h11_liars_move_nobodys_clock() {
        const DAYS_40: u64 = 40 * 86_400;
        // Twelve that share an address have one vote.
        let mut clock = NetworkClock::default();
        for n in 0..12 {
            let ip = Some([198, 18, 0, n].into());
            clock.on_told(Instant::ZERO, key(n).peer_id(), ip, TRUE_S + DAYS_40, by(wall(TRUE_S), true));
        }
        assert_eq!((clock.votes.len(), clock.time(Instant::ZERO, by(wall(TRUE_S), true))), (1, wall(TRUE_S)));
        // From twelve prefixes, after two honest ones, they have none; a wrong own clock changes nothing about that.
        for own in [wall(TRUE_S), None] {
            let mut clock = told(&[TRUE_S, TRUE_S + 9]);
            for n in 20..32 {
                let ip = Some([198, 18, n, 1].into());
                clock.on_told(Instant::ZERO, key(n).peer_id(), ip, TRUE_S + DAYS_40, by(own, true));
            }
            assert_eq!(clock.votes.len(), 2);
            let time = clock.time(Instant::ZERO, by(own, true)).expect("known");
            assert!(time.as_secs().abs_diff(TRUE_S) < 10);
        }
        // Liars that were met first have their day until as many honest ones have come.
        let mut clock = told(&[TRUE_S + DAYS_40; 3]);
        assert_eq!(clock.time(Instant::ZERO, by(wall(TRUE_S), true)), wall(TRUE_S + DAYS_40));
        (3..6).for_each(|n| tell(&mut clock, n, TRUE_S));
        assert_eq!(clock.time(Instant::ZERO, by(wall(TRUE_S), true)), wall(TRUE_S));
        // Who told the truth and then lies has no vote any more.
        let mut clock = told(&[TRUE_S; 5]);
        tell(&mut clock, 0, TRUE_S + DAYS_40);
        assert_eq!(clock.votes.len(), 4);
    }

    #[test]
    fn a_word_counts_for_a_day_and_there_are_so_many() {
        let mut clock = told(&[TRUE_S; 3]);
        let later = Instant::ZERO + VOTE_HOLDS;
        let time = clock.time(later, by(wall(5), true));
        assert_eq!(time, wall(TRUE_S + VOTE_HOLDS.as_secs()));
        clock.on_told(later, key(9).peer_id(), None, 77, by(wall(5), true));
        assert_eq!((clock.votes.len(), clock.time(later, by(wall(5), true))), (1, wall(5)));
        let mut clock = NetworkClock::default();
        for n in 0..2 * VOTES_MAX as u8 {
            tell(&mut clock, n, TRUE_S);
        }
        assert_eq!(clock.votes.len(), VOTES_MAX);
        // In private ranges prefixes do not count.
        let mut clock = NetworkClock::default();
        for n in 0..3 {
            let ip = Some([192, 168, 0, n].into());
            clock.on_told(Instant::ZERO, key(n).peer_id(), ip, TRUE_S, by(wall(5), true));
        }
        assert_eq!(clock.votes.len(), 3);
    }
}
