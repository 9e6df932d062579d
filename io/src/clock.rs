//! The only place where io reads the clock.
//!
//! [`Clock`] is read once per turn of the loop, by [`Clock::now`]; every call to the core in that turn gets the same
//! moment. The wall clock is another matter: [`Clock::wall`] gives it to be passed on at start, hourly, and when it
//! jumped (set by hand, or the machine slept: the monotonic clock may stand still meanwhile). Threads that wait for the
//! loop measure their patience with [`Until`].

use std::time::{Duration, Instant as StdInstant, SystemTime};

use handfast_core::{Instant, WallTime};

/// How often the core hears the wall time when nothing jumps.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// How often the wall clock is compared with the monotonic one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A wall clock this far from where it should be has jumped; a clock being slewed stays well below.
const JUMP_MIN: Duration = Duration::from_secs(2);

/// The loop's clock.
pub(crate) struct Clock {
    origin: StdInstant,
    wall: WallWatch,
}

impl Clock {
    /// A clock whose zero is now.
    pub(crate) fn start() -> Self {
        Self { origin: StdInstant::now(), wall: WallWatch::default() }
    }

    /// std's moment of our [`Instant::ZERO`].
    pub(crate) fn origin(&self) -> StdInstant {
        self.origin
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The wall time, when the core should hear it.
    pub(crate) fn wall(&mut self, now: Instant) -> Option<WallTime> {
        if !self.wall.look_due(now) {
            return None;
        }
        // Before 1970 is as good as 1970: an unset clock.
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = WallTime::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX));
        self.wall.look(now, wall).then_some(wall)
    }
}

/// A moment up to which a thread outside the loop waits.
#[derive(Clone, Copy)]
pub(crate) struct Until(Option<StdInstant>);

impl Until {
    /// `time` from now; a time too long for the clock is for ever.
    pub(crate) fn after(time: Duration) -> Self {
        Self(StdInstant::now().checked_add(time))
    }

    /// How much of it is left.
    pub(crate) fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| at.saturating_duration_since(StdInstant::now()))
    }
}

/// Decides when the wall time is worth telling.
#[derive(Default)]
struct WallWatch {
    looked: Option<Instant>,
    told: Option<(Instant, WallTime)>,
}

impl WallWatch {
    fn look_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY)
    }

    fn look(&mut self, now: Instant, wall: WallTime) -> bool {
        self.looked = Some(now);
        let tell = self.told.is_none_or(|(at, told)| {
            let expected = told + (now - at);
            now - at >= TELL_EVERY || wall.distance(expected) >= JUMP_MIN
        });
        if tell {
            self.told = Some((now, wall));
        }
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn wall(secs: u64) -> WallTime {
        WallTime::from_micros((1_700_000_000 + secs) * 1_000_000)
    }

    #[test]
    fn wall_time_is_told_at_start_hourly_and_on_jumps() {
        let mut watch = WallWatch::default();
        assert!(watch.look_due(at(0)));
        assert!(watch.look(at(0), wall(0)));
        assert!(!watch.look(at(10), wall(10)), "a steady clock is not worth telling");
        assert!(!watch.look(at(20), wall(21)), "one being slewed neither");
        assert!(watch.look(at(30), wall(3000)), "a forward jump is");
        assert!(!watch.look(at(31), wall(3001)));
        assert!(watch.look(at(40), wall(40)), "a backward jump is");
        assert!(watch.look(at(40 + 3600), wall(40 + 3600)), "an hour is");
    }

    #[test]
    fn the_wall_clock_is_not_read_every_turn() {
        let mut watch = WallWatch::default();
        watch.look(at(5), wall(5));
        assert!(!watch.look_due(at(5) + Duration::from_millis(999)));
        assert!(watch.look_due(at(6)));
    }
}
