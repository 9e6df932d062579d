//! What a node in role `auto` is to others: when it may begin to serve, and when it must stop.
//!
//! It begins as a leaf. When enough dial-backs have [confirmed](super::DialBack::confirmed) the address that it would
//! advertise, it serves. It stops when that address is gone (with an interface, or a router's mapping), when supernodes
//! see it at another one, when unasked packets come in no longer, or when it has relayed all that it was to. Each time
//! it waits longer before it serves again: others have chosen it as a home, and a home that comes and goes is worse
//! than none.

use core::net::SocketAddr;
use core::time::Duration;

use crate::time::Instant;

/// The first wait after having had to stop; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(120);
/// See [`WAIT_MIN`].
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Who has served so long without having to stop is steady: the next wait is the first again.
const STEADY_AFTER: Duration = Duration::from_secs(6 * 3_600);
/// Self-checks in a row that fail before this node stops serving.
const FAILURES_MAX: u8 = 3;
/// What dial-backs confirmed so lately is confirmed again by less: in a small network, a supernode has sent something
/// to everybody and finds no witness any more.
const REMEMBER_FOR: Duration = Duration::from_secs(86_400);

/// Why others reach the advertised address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// It is this host's own.
    Own,
    /// A router maps it, and said so.
    Mapped,
    /// A router lets everybody in to where this host is seen.
    Open,
}

/// Whether a node in role auto may serve: since when it does, how often it had to stop, and how long it waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoleWatch {
    not_before: Option<Instant>,
    stops: u32,
    since: Option<Instant>,
    failures: u8,
    confirmed: Option<(SocketAddr, Instant)>,
}

impl RoleWatch {
    /// When it may serve again, if that is yet to come.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.not_before
    }

    /// The wait is over. Says whether there was one.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.not_before.take_if(|at| *at <= now).is_some()
    }

    /// Whether it may begin to serve.
    pub(crate) fn may_serve(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether dial-backs confirmed this very address not long ago.
    pub(crate) fn was_confirmed(&self, now: Instant, address: SocketAddr) -> bool {
        self.confirmed.is_some_and(|(a, at)| a == address && now - at < REMEMBER_FOR)
    }

    /// It begins to serve at this address.
    pub(crate) fn on_began(&mut self, now: Instant, address: SocketAddr) {
        self.not_before = None;
        self.since = Some(now);
        self.failures = 0;
        self.confirmed = Some((address, now));
    }

    /// It stopped.
    pub(crate) fn on_stopped(&mut self, now: Instant) {
        if self.since.take().is_some_and(|since| now - since >= STEADY_AFTER) {
            self.stops = 0;
        }
        let wait = WAIT_MAX.min(WAIT_MIN * (1 << self.stops.min(8)));
        self.stops += 1;
        self.not_before = Some(now + wait);
    }

    /// Whether unasked packets came in when that was checked. Says whether it must stop.
    pub(crate) fn on_check(&mut self, passed: bool) -> bool {
        self.failures = if passed { 0 } else { self.failures + 1 };
        self.failures >= FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn who_must_stop_waits_longer_each_time_up_to_an_hour_and_a_steady_one_begins_anew() {
        let mut watch = RoleWatch::default();
        let here = SocketAddr::from(([192, 0, 2, 1], 7));
        assert!(watch.may_serve(at(0)));
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            watch.on_began(now, here);
            watch.on_stopped(now + Duration::from_secs(60));
            let until = watch.poll_timeout().expect("a wait");
            waits.push((until - now).as_secs() - 60);
            assert!(!watch.may_serve(until - Duration::from_micros(1)) && watch.may_serve(until));
            now = until;
        }
        assert_eq!(waits, [120, 240, 480, 960, 1_920, 3_600, 3_600]);
        watch.on_began(now, here);
        let stopped = now + Duration::from_secs(7 * 3_600);
        watch.on_stopped(stopped);
        assert_eq!(watch.poll_timeout(), Some(stopped + Duration::from_secs(120)));
    }

    #[test]
    fn three_failures_in_a_row_are_enough_and_two_are_not() {
        let mut watch = RoleWatch::default();
        assert!(!watch.on_check(false) && !watch.on_check(false) && !watch.on_check(true));
        assert!(!watch.on_check(false) && !watch.on_check(false) && watch.on_check(false));
    }
}
