//! How good a user link's ways are: measures the path in use and the one it could use instead, while user data flows.
//!
//! [`crate::path`] knows which paths work; this says which of two that work is the better one. [`Quality`] is handed
//! the time, the two routes ([`View`]) and the answers to its samples, and says what it wants ([`Output`]): a sample
//! sent on a route, the path in use left, the direct one taken back. It sends and chooses nothing itself.
//!
//! A sample is a Challenge; one that is not answered within [`SAMPLE_AGE_MAX`] is lost. The path in use gets one each
//! [`EVERY`], the other one only so many that its round trip is known; when something looks worse than it should, both
//! get one each [`EVERY_DOUBTFUL`] until it is clear. A direct path is left for the relay when it loses what the relay
//! does not, or takes longer than the relay; not over a single outage, which [`super::FailureDetector`] judges. It is
//! taken back when it is as good again and has been left for [`HOLD`], which doubles each time that it disappoints.
//!
//! Both ends measure round trips and so see the same, but one may be the first to act, or the only one that has
//! anything to send. The other follows it ([`Quality::on_peer_elsewhere`]): a peer that keeps sending through the relay
//! has left the direct path, even if that still answers, and one that comes back to it has taken it back.
//!
//! A direct path that failed is asked now and then whether it works again, by both ends, since both routers must have
//! seen something leave: cheaper and sooner than the next whole round of connectivity checks.
//!
//! A link without user data is not measured at all. There is one exception, the *nudge*: who has just heard from its
//! peer and then hears nothing for [`NUDGE_AFTER`] asks once whether it is still there. Its own router may have
//! restarted, and then all that the peer sends is stopped there until something goes out.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::rtt::smoothed;
use crate::path::Route;
use crate::time::{Instant, earliest};

/// What is due because data flows again is due after the call that it came by, not in it.
const TICK: Duration = Duration::from_micros(1);
/// Links are measured for so long after the last user data.
const ACTIVE: Duration = Duration::from_secs(3);
/// Between samples on the path in use.
const EVERY: Duration = Duration::from_secs(1);
/// Between samples while something looks wrong.
const EVERY_DOUBTFUL: Duration = Duration::from_millis(250);
/// Between samples on a path that may be taken back.
const EVERY_DUE: Duration = Duration::from_millis(500);
/// Between samples on a path that is not in use.
const EVERY_SPARE: Duration = Duration::from_secs(15);
/// The first sample of a link comes so long after its beginning: most have settled for a path by then.
const FIRST: Duration = Duration::from_secs(2);
/// An answer that takes longer is none.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(1);
/// Most samples under way on a path. At the limit the oldest counts as lost.
const UNDER_WAY_MAX: usize = 6;
/// Samples that are remembered.
const WINDOW: u8 = 16;
/// Fewest samples on the path in use that anything is concluded from.
const SAMPLES_MIN: u8 = 8;
/// Fewest on the other one.
const SAMPLES_SPARE_MIN: u8 = 6;
/// A path that loses so many of [`WINDOW`], in more than one stretch, is bad: a way that loses 15 % of packets.
const LOST_BAD: u32 = 5;
/// A path whose samples are lost for so long, while the other one answers, is dead in our direction at least.
const DEAD_AFTER: Duration = Duration::from_millis(2_500);
/// A path that was left is not taken back sooner.
const HOLD: Duration = Duration::from_secs(10);
/// [`HOLD`] doubles up to so many times, to more than five minutes.
const HOLD_DOUBLINGS_MAX: u8 = 5;
/// A path that was good for so long after it was taken back begins with [`HOLD`] again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// A path left for later is looked at closely so long before its time.
const LOOK_AHEAD: Duration = Duration::from_secs(12);
/// A peer that sends elsewhere for so long has left the path.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(1);
/// A peer is given so long to follow us before we follow it.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);
/// Between questions to a direct path that failed.
const RECHECK_EVERY: Duration = Duration::from_secs(4);
/// Most such questions: after a minute the address may well be another's.
const RECHECKS_MAX: u8 = 15;
/// Silence after which the peer is asked whether it is there; longer than [`EVERY`], whose samples break it.
const NUDGE_AFTER: Duration = Duration::from_millis(1_200);
/// Silence after which relays are told where we are.
const WAKE_AFTER: Duration = Duration::from_millis(1_600);

/// The two routes as they are now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The one in use.
    pub using: Route,
    /// The best of the other kind that works: the relay for a direct one, a direct one for the relay.
    pub other: Option<Route>,
    /// A direct path that works no more, while none does.
    pub lost: Option<Route>,
    /// When user data last went either way.
    pub used: Instant,
    /// When anything authentic last came.
    pub heard: Instant,
    /// More than the relay would carry flows: its shorter round trip would not be for long.
    pub bulk: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// A Challenge on this route, reported by [`Quality::on_sample_sent`].
    Sample(Route),
    /// The path in use is bad: use the other one.
    Leave,
    /// The direct path that was left is good again.
    TakeBack(Route),
    /// No sample on this path is answered.
    Dead(Route),
    /// A Challenge on a direct path that failed.
    Recheck(Route),
    /// A BeatAsk on the path in use.
    Nudge,
    /// A Challenge to the relays.
    WakeRelays,
}

/// What is known of one route.
#[derive(Clone, Debug, Default)]
struct Meter {
    route: Option<Route>,
    under_way: ArrayVec<([u8; 8], Instant), UNDER_WAY_MAX>,
    /// One bit per sample, the newest lowest; set if it was lost.
    lost: u16,
    count: u8,
    rtt_us: Option<u32>,
    /// When the first of the latest stretch of lost samples was sent.
    lost_since: Option<Instant>,
    answered: Option<Instant>,
    sampled: Option<Instant>,
}

impl Meter {
    fn record(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u16::from(lost);
        self.count = (self.count + 1).min(WINDOW);
    }

    fn lost(&self) -> u32 {
        self.lost.count_ones()
    }

    /// How many stretches of lost samples there were.
    fn stretches(&self) -> u32 {
        (self.lost & !(self.lost << 1)).count_ones()
    }

    /// Counts samples as lost whose answer is overdue.
    fn expire(&mut self, now: Instant) {
        while self.under_way.first().is_some_and(|(_, at)| now >= *at + SAMPLE_AGE_MAX) {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        let (_, at) = self.under_way.remove(0);
        self.lost_since.get_or_insert(at);
        self.record(true);
    }

    fn on_answer(&mut self, now: Instant, token: [u8; 8]) -> Option<Duration> {
        let at = self.under_way.iter().position(|(t, _)| *t == token)?;
        let (_, sent) = self.under_way.remove(at);
        let rtt = now.since(sent);
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        // Quicker to follow than RFC 6298: what is asked is whether the way has changed.
        self.rtt_us = Some(self.rtt_us.map_or(sample, |old| smoothed(old, sample, 4)));
        self.lost_since = None;
        self.answered = Some(now);
        self.record(false);
        Some(rtt)
    }

    fn is_dead(&self, now: Instant, other: &Self) -> bool {
        self.lost_since.is_some_and(|since| {
            now.since(since) >= DEAD_AFTER && other.answered.is_some_and(|at| at > since + SAMPLE_AGE_MAX)
        })
    }
}

/// The measurement of one user link.
#[derive(Clone, Debug)]
pub(crate) struct Quality {
    using: Meter,
    other: Meter,
    began: Instant,
    /// When the direct path was left, if it is.
    left: Option<Instant>,
    taken_back: Option<Instant>,
    doublings: u8,
    /// When the peer last preferred the path in use, since we use it.
    here: Option<Instant>,
    /// When the path in use last changed.
    changed: Instant,
    /// Since when the peer's packets come by the relay although a direct path is in use.
    elsewhere: Option<Instant>,
    /// When the peer was last heard to want something, and how far we have asked since.
    lively: Option<Instant>,
    nudged: u8,
    /// The path that failed, when it was last asked, and how often.
    rechecked: Option<(Route, Instant, u8)>,
}

impl Quality {
    /// Of a link that begins now.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            using: Meter::default(),
            other: Meter::default(),
            began: now,
            left: None,
            taken_back: None,
            doublings: 0,
            here: None,
            changed: now,
            elsewhere: None,
            lively: None,
            nudged: 0,
            rechecked: None,
        }
    }

    /// User data or a question of the peer came.
    pub(crate) fn on_lively(&mut self, now: Instant) {
        self.lively = Some(now);
        self.nudged = 0;
    }

    /// The peer's newest packet came on the path in use.
    pub(crate) fn on_peer_here(&mut self, now: Instant) {
        self.elsewhere = None;
        self.here = Some(now);
    }

    /// The peer's newest packet came on a direct path that was left, and the relay is in use: whether the peer has
    /// taken it back. It is then as if we had: if it disappoints, both wait longer.
    pub(crate) fn has_taken_back(&mut self, now: Instant) -> bool {
        let is_followed =
            now.since(self.changed) >= FOLLOWED_WITHIN && self.here.is_none_or(|at| now.since(at) >= ELSEWHERE_AFTER);
        if is_followed {
            self.taken_back = Some(now);
        }
        is_followed
    }

    /// The path in use is another.
    pub(crate) fn on_path_changed(&mut self, now: Instant) {
        self.changed = now;
        self.here = None;
        self.rechecked = None;
        self.start_over();
        self.elsewhere = None;
    }

    /// The peer's newest packet came by the relay, and a direct path is in use that was last heard then: whether the
    /// peer has left it although it works. One that is silent is the failure detector's business.
    pub(crate) fn on_peer_elsewhere(&mut self, now: Instant, heard: Instant) -> bool {
        if self.here.is_none() {
            // It has not come to this path yet: perhaps it has not been able to prove it.
            return false;
        }
        let since = *self.elsewhere.get_or_insert(now);
        let patient = now.since(self.changed) >= FOLLOWED_WITHIN && now.since(since) >= ELSEWHERE_AFTER;
        patient && heard > since && self.has_left(now)
    }

    /// Whether the peer had left the direct path before us, now that it is given up.
    pub(crate) fn has_left(&mut self, now: Instant) -> bool {
        let left = self.elsewhere.is_some();
        if left {
            self.leave(now);
        }
        left
    }

    /// A sample left.
    pub(crate) fn on_sample_sent(&mut self, now: Instant, route: Route, token: [u8; 8]) {
        let Some(meter) = self.meter(&route) else { return };
        if meter.under_way.is_full() {
            meter.give_up_oldest();
        }
        meter.under_way.push((token, now));
        meter.sampled = Some(now);
    }

    /// A challenge was answered on `route`: the round trip, if it was a sample.
    pub(crate) fn on_reply(&mut self, now: Instant, route: &Route, token: [u8; 8]) -> Option<Duration> {
        self.meter(route)?.on_answer(now, token)
    }

    fn meter(&mut self, route: &Route) -> Option<&mut Meter> {
        [&mut self.using, &mut self.other].into_iter().find(|meter| meter.route == Some(*route))
    }

    /// When [`Self::handle_timeout`] has something to want.
    pub(crate) fn poll_timeout(&self, view: &View) -> Option<Instant> {
        earliest(earliest(self.nudge_due(view), self.recheck_due(view)), self.measure_due(view))
    }

    /// What is wanted now; to be asked again until it is nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant, view: &View) -> Option<Output> {
        if self.nudge_due(view).is_some_and(|at| at <= now) {
            self.nudged += 1;
            return Some(if self.nudged == 1 { Output::Nudge } else { Output::WakeRelays });
        }
        if let Some(route) = view.lost.filter(|_| self.recheck_due(view).is_some_and(|at| at <= now)) {
            let asked = self.rechecked.filter(|(asked, ..)| *asked == route).map_or(0, |(.., n)| n);
            self.rechecked = Some((route, now, asked + 1));
            return Some(Output::Recheck(route));
        }
        if self.measure_due(view).is_none_or(|at| at > now) {
            return None;
        }
        self.follow(view);
        self.using.expire(now);
        self.other.expire(now);
        if let Some(verdict) = self.judge(now, view) {
            return Some(verdict);
        }
        for (meter, every) in [(&self.using, self.every_using(view)), (&self.other, self.every_other(view))] {
            if let Some(route) = meter.route
                && self.sample_due(meter, every) <= now
            {
                return Some(Output::Sample(route));
            }
        }
        None
    }

    fn nudge_due(&self, view: &View) -> Option<Instant> {
        let lively = self.lively?;
        match self.nudged {
            0 => Some(lively + NUDGE_AFTER),
            1 if view.heard < lively + NUDGE_AFTER => Some(lively + WAKE_AFTER),
            _ => None,
        }
    }

    fn recheck_due(&self, view: &View) -> Option<Instant> {
        let lost = view.lost?;
        let last_data = self.lively.map_or(view.used, |at| at.max(view.used));
        let due = match self.rechecked.filter(|(route, ..)| *route == lost) {
            None => self.changed + RECHECK_EVERY,
            Some((_, _, RECHECKS_MAX..)) => return None,
            Some((_, at, _)) => at + RECHECK_EVERY,
        };
        Some(due.max(last_data + TICK)).filter(|at| *at < last_data + ACTIVE)
    }

    fn measure_due(&self, view: &View) -> Option<Instant> {
        view.other?;
        let mut at = None;
        for (meter, every) in [(&self.using, self.every_using(view)), (&self.other, self.every_other(view))] {
            at = earliest(at, Some(self.sample_due(meter, every)));
            at = earliest(at, meter.under_way.first().map(|(_, sent)| *sent + SAMPLE_AGE_MAX));
        }
        at.map(|at| at.max(view.used + TICK)).filter(|at| *at < view.used + ACTIVE)
    }

    fn sample_due(&self, meter: &Meter, every: Duration) -> Instant {
        meter.sampled.map_or(self.began + FIRST, |at| at + every)
    }

    /// The routes may have changed, or changed places.
    fn follow(&mut self, view: &View) {
        if self.using.route == view.other && self.other.route == Some(view.using) {
            core::mem::swap(&mut self.using, &mut self.other);
        }
        for (meter, route) in [(&mut self.using, Some(view.using)), (&mut self.other, view.other)] {
            if meter.route != route {
                *meter = Meter { route, ..Meter::default() };
            }
        }
        if view.using.is_direct() {
            self.left = None;
        }
    }

    /// Whether the path in use looks worse than it should.
    fn is_doubtful(&self, view: &View) -> bool {
        view.using.is_direct()
            && ((self.using.lost & 0xff) != 0 || (!view.bulk && is_longer(self.using.rtt_us, self.other.rtt_us)))
    }

    fn every_using(&self, view: &View) -> Duration {
        if self.is_doubtful(view) { EVERY_DOUBTFUL } else { EVERY }
    }

    fn every_other(&self, view: &View) -> Duration {
        if self.is_doubtful(view) {
            return EVERY_DOUBTFUL;
        }
        match self.hold_end().filter(|_| !view.using.is_direct()) {
            Some(end) if view.used >= end => EVERY_DUE,
            Some(end) if view.used + LOOK_AHEAD >= end => EVERY,
            Some(_) | None => EVERY_SPARE,
        }
    }

    fn hold_end(&self) -> Option<Instant> {
        self.left.map(|at| at + HOLD * (1 << self.doublings))
    }

    fn judge(&mut self, now: Instant, view: &View) -> Option<Output> {
        let (using, other) = (&self.using, &self.other);
        if view.using.is_direct() && using.is_dead(now, other) {
            // One that answers again in a moment is still no good path.
            self.leave(now);
            return Some(Output::Dead(view.using));
        }
        if !view.using.is_direct() {
            if other.is_dead(now, using) {
                self.other = Meter { route: self.other.route, ..Meter::default() };
                return view.other.map(Output::Dead);
            }
            let well = other.count >= WINDOW && other.lost() * 2 <= using.lost();
            let short = view.bulk || other.rtt_us.zip(using.rtt_us).is_some_and(|(direct, relayed)| direct <= relayed);
            let time = self.hold_end().is_none_or(|end| now >= end);
            if well && short && time {
                self.taken_back = Some(now);
                self.start_over();
                return view.other.map(Output::TakeBack);
            }
            return None;
        }
        let known = using.count >= SAMPLES_MIN && other.count >= SAMPLES_SPARE_MIN;
        let lossy = using.lost() >= LOST_BAD && using.stretches() >= 2 && other.lost() * 3 <= using.lost();
        let long = !view.bulk && other.lost() <= 1 && is_longer(using.rtt_us, other.rtt_us);
        if known && (lossy || long) {
            self.leave(now);
            return Some(Output::Leave);
        }
        None
    }

    fn leave(&mut self, now: Instant) {
        let disappoints = self.taken_back.is_some_and(|at| now.since(at) < FORGIVEN_AFTER);
        self.doublings = if disappoints { (self.doublings + 1).min(HOLD_DOUBLINGS_MAX) } else { 0 };
        self.left = Some(now);
        self.start_over();
    }

    /// What comes next is judged by itself.
    fn start_over(&mut self) {
        for meter in [&mut self.using, &mut self.other] {
            *meter = Meter { route: meter.route, sampled: meter.sampled, ..Meter::default() };
        }
    }
}

/// Clearly: by a fifth and 5 ms.
fn is_longer(rtt_us: Option<u32>, than_us: Option<u32>) -> bool {
    rtt_us.zip(than_us).is_some_and(|(rtt, than)| u64::from(rtt) * 5 > u64::from(than) * 6 + 25_000)
}
