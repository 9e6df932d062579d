//! When what dead supernodes kept is named to those who keep it in their place.
//!
//! A record is put once in [`ROUND`](super::placing), and has eight holders, so that it outlives the deaths of an hour; but
//! where many die at once, all eight of some record may. A home that suspects supernodes looks through its leaves, some at
//! a time, and where most holders of a record are suspect or dead names it to those that have come in for them
//! ([`lost_holders`](crate::overlay::advert::MembershipTable::lost_holders)).

use core::time::Duration;

use crate::time::Instant;

/// After one becomes suspect, so that those who die together are looked after together.
const AFTER: Duration = Duration::from_secs(5);
/// After all leaves were looked through: anybody can be silent again and again.
const REST: Duration = Duration::from_secs(10);

/// How far this node has looked through its leaves, and when it goes on.
#[derive(Default, Debug)]
pub(super) struct Repair {
    /// Somebody became suspect since the look began.
    is_wanted: bool,
    /// The place from which it goes on.
    pub(super) from: u64,
    /// When the next go is due.
    pub(super) at: Option<Instant>,
    /// Before this no look begins.
    rests_until: Instant,
}

impl Repair {
    /// A supernode became suspect.
    pub(super) fn on_suspicion(&mut self, now: Instant) {
        self.is_wanted = true;
        self.at.get_or_insert(self.rests_until.max(now + AFTER));
    }

    /// A go begins.
    pub(super) fn begin(&mut self) {
        if self.from == 0 {
            self.is_wanted = false;
        }
    }

    /// A go is over; from this place on there are more, and the next one is in so long.
    pub(super) fn end(&mut self, now: Instant, rest: Option<u64>, next: Duration) {
        self.from = rest.unwrap_or(0);
        if rest.is_some() {
            self.at = Some(now + next);
            return;
        }
        self.rests_until = now + REST;
        self.at = self.is_wanted.then_some(self.rests_until);
    }
}
