//! The clock of Inits: what time ours carry, and whether one that came is new or a replay.
//!
//! An Init carries a time, and a responder takes none that is not later than the last one of that peer. So our own
//! times never go back, in this run or a later one, whatever the wall clock does: they run ahead of a mark that is
//! saved ([`Freshness::poll_mark`]) before it is reached. Of peers the last time is remembered as long as their link,
//! by the caller, and beyond that here ([`Freshness::remember`]); with nothing remembered the wall clock decides.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::identity::PeerId;
use crate::time::{Instant, WallTime};

/// With nothing remembered of a peer, its Init is fresh within this of our wall clock.
const FRESH_WINDOW: Duration = Duration::from_secs(600);
/// The mark is saved so far ahead.
const CLOCK_AHEAD_US: u64 = 600 * 1_000_000;
/// Most peers whose last Init time is remembered after their link ended. At the limit the smallest id goes.
const INIT_TIMES_MAX: usize = 4_096;

/// The times of Inits: of our last one, the mark that is saved, and of the last ones of peers without a link.
#[derive(Debug)]
pub(crate) struct Freshness {
    wall: Option<(Instant, WallTime)>,
    /// What the last Init of ours carried.
    last_us: u64,
    /// What none may carry before it is saved.
    mark_us: u64,
    is_mark_new: bool,
    /// What the last Inits of peers carried that have no link any more.
    times: BTreeMap<PeerId, u64>,
}

impl Freshness {
    /// With the mark of an earlier run, or 0.
    pub(crate) fn new(mark_us: u64) -> Self {
        Self { wall: None, last_us: mark_us, mark_us, is_mark_new: false, times: BTreeMap::new() }
    }

    /// The wall clock is set.
    pub(crate) fn handle_wall_clock(&mut self, now: Instant, wall: WallTime) {
        self.wall = Some((now, wall));
    }

    /// The wall clock now.
    fn wall(&self, now: Instant) -> Option<WallTime> {
        self.wall.map(|(at, wall)| wall + now.since(at))
    }

    /// A time for an Init of ours, in microseconds: later than any before, in this run or an earlier one.
    pub(crate) fn next_time(&mut self, now: Instant) -> u64 {
        let wall_us = self.wall(now).map_or(0, WallTime::as_micros);
        self.last_us = wall_us.max(self.last_us.saturating_add(1));
        if self.last_us >= self.mark_us {
            self.mark_us = self.last_us.saturating_add(CLOCK_AHEAD_US);
            self.is_mark_new = true;
        }
        self.last_us
    }

    /// The mark, if it has moved and is to be saved.
    pub(crate) fn poll_mark(&mut self) -> Option<u64> {
        core::mem::take(&mut self.is_mark_new).then_some(self.mark_us)
    }

    /// Whether an Init that carries this time is new and not a replay, as far as can be told; `known_us` is what the
    /// last one on the peer's present link carried, or 0.
    pub(crate) fn is_fresh(&self, now: Instant, peer: &PeerId, known_us: u64, time_us: u64) -> bool {
        let last = known_us.max(self.times.get(peer).copied().unwrap_or(0));
        if last > 0 {
            return time_us > last;
        }
        let window = u64::try_from(FRESH_WINDOW.as_micros()).unwrap_or(u64::MAX);
        self.wall(now).is_some_and(|wall| wall.as_micros().abs_diff(time_us) <= window)
    }

    /// A peer is forgotten, whose last Init carried this time, or 0.
    pub(crate) fn remember(&mut self, peer: PeerId, time_us: u64) {
        if time_us == 0 {
            return;
        }
        if self.times.len() >= INIT_TIMES_MAX && !self.times.contains_key(&peer) {
            self.times.pop_first();
        }
        self.times.insert(peer, time_us);
    }

    /// A peer is entered again: what its last Init carried, or 0. From here on the caller remembers.
    pub(crate) fn recall(&mut self, peer: &PeerId) -> u64 {
        self.times.remove(peer).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn wall(s: u64) -> WallTime {
        WallTime::from_micros(s * 1_000_000)
    }

    #[test]
    fn our_times_never_go_back_and_the_mark_is_ahead_of_them() {
        let mut clock = Freshness::new(0);
        clock.handle_wall_clock(at(0), wall(1_000_000));
        let first = clock.next_time(at(1));
        assert_eq!(first, 1_000_001 * 1_000_000);
        let mark = clock.poll_mark().expect("it is new");
        assert_eq!((mark, clock.poll_mark()), (first + CLOCK_AHEAD_US, None));
        clock.handle_wall_clock(at(2), wall(5));
        assert_eq!(clock.next_time(at(2)), first + 1, "the wall clock went back");
        assert_eq!(clock.poll_mark(), None);
        // A later run without a clock.
        let mut later = Freshness::new(mark);
        assert_eq!(later.next_time(at(0)), mark + 1);
        assert!(later.poll_mark().is_some_and(|next| next > mark + 1));
    }

    #[test]
    fn what_is_not_later_than_the_last_is_a_replay() {
        let mut clock = Freshness::new(0);
        let id = peer(1);
        assert!(!clock.is_fresh(at(0), &id, 0, 7), "nothing is known, not even the time");
        clock.handle_wall_clock(at(0), wall(10_000));
        let us = |s: u64| s * 1_000_000;
        assert!(clock.is_fresh(at(0), &id, 0, us(10_600)) && clock.is_fresh(at(0), &id, 0, us(9_400)));
        assert!(!clock.is_fresh(at(0), &id, 0, us(10_601)) && !clock.is_fresh(at(0), &id, 0, us(9_399)));
        assert!(clock.is_fresh(at(0), &id, 5, 6) && !clock.is_fresh(at(0), &id, 5, 5), "by its link");
        clock.remember(id, 8);
        assert!(clock.is_fresh(at(0), &id, 5, 9) && !clock.is_fresh(at(0), &id, 5, 8), "by an earlier one");
        assert_eq!((clock.recall(&id), clock.recall(&id)), (8, 0));
    }

    #[test]
    fn so_many_peers_are_remembered() {
        let mut clock = Freshness::new(0);
        let id = |n: usize| {
            let mut bytes = *peer(1).as_bytes();
            bytes[..2].copy_from_slice(&(n as u16).to_be_bytes());
            PeerId::from_bytes(&bytes)
        };
        let ids: Vec<PeerId> = (0..=u16::MAX as usize).filter_map(|n| id(n).ok()).take(INIT_TIMES_MAX + 1).collect();
        for id in &ids {
            clock.remember(*id, 1);
            clock.remember(*id, 0);
        }
        assert_eq!(ids.iter().filter(|id| clock.recall(id) == 1).count(), INIT_TIMES_MAX);
    }
}
