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

/// A clock that counts sleep and is so far ahead of the one that does not: the machine slept. Shorter, and routers
/// still know us.
const SLEPT_MIN: Duration = Duration::from_secs(5);

/// The loop's clock.
pub(crate) struct Clock {
    origin: StdInstant,
    wall: WallWatch,
    sleep: SleepWatch,
}

impl Clock {
    /// A clock whose zero is now.
    pub(crate) fn start() -> Self {
        Self { origin: StdInstant::now(), wall: WallWatch::default(), sleep: SleepWatch::default() }
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

    /// Whether the machine slept since this was last asked.
    pub(crate) fn slept(&mut self, now: Instant) -> bool {
        self.sleep.look_due(now) && self.sleep.look(now, sleepless())
    }
}

/// Time on a clock that goes on while the machine sleeps. std's [`StdInstant`] stands still on Linux and macOS.
#[cfg(target_os = "linux")]
fn sleepless() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where there is no such clock the wall clock serves. One that is set by hand looks like sleep, which does no harm.
#[cfg(not(target_os = "linux"))]
fn sleepless() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
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

/// Compares two clocks, of which one goes on during sleep.
#[derive(Default)]
struct SleepWatch {
    looked: Option<(Instant, Duration)>,
}

impl SleepWatch {
    fn look_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|(looked, _)| now - looked >= LOOK_EVERY)
    }

    fn look(&mut self, now: Instant, sleepless: Duration) -> bool {
        let before = self.looked.replace((now, sleepless));
        before.is_some_and(|(at, then)| sleepless.saturating_sub(then) >= (now - at) + SLEPT_MIN)
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
    fn sleep_shows_as_time_that_only_one_clock_counted() {
        let mut watch = SleepWatch::default();
        let secs = Duration::from_secs;
        assert!(watch.look_due(at(0)));
        assert!(!watch.look(at(0), secs(500)));
        assert!(!watch.look(at(10), secs(510)));
        assert!(!watch.look_due(at(10)));
        assert!(!watch.look(at(12), secs(514)), "a nap");
        assert!(watch.look(at(13), secs(4_000)), "a night");
        assert!(!watch.look(at(14), secs(4_001)));
        assert!(!watch.look(at(15), secs(100)), "a wall clock set back");
    }

    #[test]
    fn the_wall_clock_is_not_read_every_turn() {
        let mut watch = WallWatch::default();
        watch.look(at(5), wall(5));
        assert!(!watch.look_due(at(5) + Duration::from_millis(999)));
        assert!(watch.look_due(at(6)));
    }
}
