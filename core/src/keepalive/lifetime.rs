//! How long does the router keep a binding that nobody uses?
//!
//! Asked from sockets of its own, so that the links in use disturb nothing and are not disturbed. One *trial* opens a
//! socket, exchanges a packet with the home at once and another [`WARM`] later (Linux gives a flow its long time-out
//! only when it has gone both ways for more than 2 s), of which the second asks for its answer after a delay. Comes the
//! answer, the router keeps a binding at least that long: a *hit*, which is certain. Comes it not, that is a *miss*, or
//! a packet was lost: a miss counts when there are two, at the same delay or at two close by. After a hit the same
//! socket can go on with a longer delay at once; after a miss the next trial takes a fresh one.
//!
//! [`Lifetime`] climbs the [`LADDER`], a few rungs at a time, until one is missed, then divides what lies between the
//! longest hit and the shortest miss. It ends when two misses lie within a tenth of the longest hit, which is the
//! result: never more than the truth, and at most a tenth less. It is a function of what it is told: [`Lifetime::poll`]
//! says what to do next, the node does it and brings back sockets, answers and time.
//!
//! A check of a known lifetime ([`Lifetime::check`]) is one trial that should hit and one that should miss; what it
//! finds different is measured like the first time.
//!
//! # Cost
//!
//! A probe takes 74 bytes at IP level (IPv4) and its answer 72. A trial that hits on a fresh socket takes 292 of both,
//! on a warm one 146, one that is missed 220 and 74. A measurement of a router that keeps bindings for 30 to 300 s
//! takes 1.3 to 2.2 kB and 3 to 11 minutes; a check 512 bytes. [`PROBES_MAX`] bounds what loss can add.

use core::time::Duration;

use arrayvec::ArrayVec;

use crate::net::{SocketId, SocketRequest};
use crate::time::{Instant, earliest};

/// A time in tenths of a second: what a probe can ask for.
type Tenths = u16;

/// The rungs of the ladder: between the time-outs that routers have, 30, 60, 120 and 240 s, and a little below each;
/// the last is the longest delay that a home grants, and enough for the longest interval between beats.
const LADDER: [Tenths; 5] = [280, 580, 1_180, 2_380, LONGEST];
/// See [`LADDER`].
const LONGEST: Tenths = 3_000;
/// No router that lets anything through keeps a binding for less.
const SHORTEST: Tenths = 50;
/// Rungs that are tried at once in the beginning.
const FIRST_RUNGS: usize = 3;
/// Rungs that are awaited at once, later, while none has been missed.
const AHEAD: usize = 2;
/// Sockets at a time.
const LANES_MAX: usize = 3;
/// How close to the result the second miss must be, in tenths: it is wrong by less.
const CLOSE: (u32, u32) = (11, 10);
/// Between a hit and a miss this far apart there is nothing to learn, in twentieths.
const FINE: (u32, u32) = (21, 20);
/// Between the longest hit and a rung that is being awaited, a further trial is worth it when they are so far apart, in
/// hundredths: first while no rung has been missed, then when one has.
const WORTH: [(u32, u32); 2] = [(130, 100), (109, 100)];
/// After the first packet of a trial its second, which Linux then counts to a stream (`nf_conntrack_udp_timeout_stream`
/// applies 2 s after a flow began).
const WARM: Duration = Duration::from_millis(2_500);
/// Waits for the first answer of a trial, which tells that the home is there at all.
const WARM_WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2)];
/// An answer is missed when it comes so much later than asked for, and two round trips.
const MARGIN: Duration = Duration::from_secs(1);
/// io has a socket open at once or never.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// Most probes of one measurement. At the limit it has failed: nothing is known but what was hit.
pub(super) const PROBES_MAX: u8 = 48;
/// Most misses remembered. At the limit the longest goes, which says the least.
const MISSES_MAX: usize = 8;

/// What the measurement wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Do {
    /// Ask io for a socket, and say so with [`Lifetime::on_asked`].
    Open,
    /// Send a probe from this socket.
    Probe {
        /// The socket.
        socket: SocketId,
        /// Comes back in the answer.
        token: [u8; 8],
        /// When to answer.
        delay: Duration,
    },
    /// The socket has served.
    Close(SocketId),
}

/// How a measurement ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Measured {
    /// The router keeps a binding this long, or up to a tenth longer; or longer than can be measured.
    Known(Duration),
    /// Answers did not come, or no sense came of them.
    Failed,
}

/// Where a trial is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// A socket is to be asked for.
    New,
    /// io is asked.
    Asked { request: SocketRequest, until: Instant },
    /// Packets go both ways. `sent` counts the first ones, of which the last left when it `began`; `next` is when
    /// another is due.
    Warming { socket: SocketId, token: [u8; 8], began: Instant, sent: u8, next: Instant, is_answered: bool },
    /// The delayed answer is awaited.
    Waiting { socket: SocketId, token: [u8; 8] },
    /// The answer came a moment ago: the socket can go on.
    Warm { socket: SocketId },
}

impl Stage {
    fn socket(&self) -> Option<SocketId> {
        match *self {
            Self::New | Self::Asked { .. } => None,
            Self::Warming { socket, .. } | Self::Waiting { socket, .. } | Self::Warm { socket } => Some(socket),
        }
    }
}

/// A socket and the trial that runs on it.
#[derive(Clone, Copy, Debug)]
struct Lane {
    delay: Tenths,
    /// When its trial will be over: an estimate until the delayed answer has been asked for.
    due: Instant,
    stage: Stage,
}

/// One measurement: the trials that run, each on a socket, and hit and misses so far.
#[derive(Clone, Debug)]
pub(crate) struct Lifetime {
    lanes: ArrayVec<Lane, LANES_MAX>,
    /// Tried before anything else, shortest first.
    seeds: ArrayVec<Tenths, FIRST_RUNGS>,
    /// The longest hit.
    hit: Tenths,
    /// Misses above it, shortest first.
    misses: ArrayVec<Tenths, MISSES_MAX>,
    /// What an earlier measurement found: missed once, it is tried again at once.
    known: Option<Tenths>,
    closing: ArrayVec<SocketId, LANES_MAX>,
    rtt: Duration,
    probes: u8,
    outcome: Option<Measured>,
}

/// Whether `a` is more than `ratio` times `b`.
fn exceeds(a: Tenths, b: Tenths, ratio: (u32, u32)) -> bool {
    u32::from(a) * ratio.1 > u32::from(b) * ratio.0
}

/// Half way between, as lifetimes go: the geometric mean.
fn between(a: Tenths, b: Tenths) -> Tenths {
    Tenths::try_from((u32::from(a) * u32::from(b)).isqrt()).unwrap_or(Tenths::MAX)
}

fn span(tenths: Tenths) -> Duration {
    Duration::from_millis(100) * u32::from(tenths)
}

impl Lifetime {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            lanes: ArrayVec::new(),
            seeds: LADDER.into_iter().take(FIRST_RUNGS).collect(),
            hit: 0,
            misses: ArrayVec::new(),
            known: None,
            closing: ArrayVec::new(),
            rtt: Duration::ZERO,
            probes: 0,
            outcome: None,
        }
    }

    /// An earlier measurement found this: is it still so?
    pub(crate) fn check(known: Duration) -> Self {
        let known = Tenths::try_from(known.as_millis() / 100).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
        let mut check = Self::new();
        check.seeds.clear();
        check.seeds.push(known);
        if known < LONGEST {
            let above = Tenths::try_from(u32::from(known) * CLOSE.0 / CLOSE.1).unwrap_or(Tenths::MAX);
            check.seeds.push(above.saturating_sub(2).min(LONGEST));
            // It was missed then; one miss more confirms that.
            check.misses.push(above);
        }
        check.known = Some(known);
        check
    }

    /// The longest that a binding was seen to live so far.
    pub(crate) fn at_least(&self) -> Option<Duration> {
        (self.hit > 0).then(|| span(self.hit))
    }

    /// How it ended, if it has. Sockets may still have to be closed.
    pub(crate) fn outcome(&self) -> Option<Measured> {
        self.outcome
    }

    /// Ends it without a result.
    pub(crate) fn abort(&mut self) {
        self.end(Measured::Failed);
    }

    /// What to do next; nothing until the next event or [`Self::poll_timeout`].
    pub(crate) fn poll(&mut self, now: Instant, mut token: impl FnMut() -> [u8; 8]) -> Option<Do> {
        if let Some(socket) = self.closing.pop() {
            return Some(Do::Close(socket));
        }
        self.look_for_end();
        if self.outcome.is_some() {
            return self.closing.pop().map(Do::Close);
        }
        for at in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(at).copied() else { break };
            match lane.stage {
                Stage::Warm { socket } => {
                    // What its own trial has shown is in `hit`.
                    return match self.next_delay(now, Duration::ZERO) {
                        Some(delay) => self.ask(now, at, socket, delay, token()),
                        None => self.drop_lane(at),
                    };
                }
                Stage::Warming { socket, next, is_answered, sent, .. } if next <= now => {
                    if is_answered {
                        return self.ask(now, at, socket, lane.delay, token());
                    }
                    let Some(wait) = WARM_WAITS.get(usize::from(sent)) else {
                        // The home does not answer, or no new flow gets out.
                        self.end(Measured::Failed);
                        return self.closing.pop().map(Do::Close);
                    };
                    let (token, next) = (token(), now + *wait);
                    let stage = Stage::Warming { socket, token, began: now, sent: sent + 1, next, is_answered };
                    self.set_stage(at, stage);
                    return self.probe(socket, token, Duration::ZERO);
                }
                _ => {}
            }
        }
        if self.lanes.iter().any(|l| l.stage == Stage::New) {
            return Some(Do::Open);
        }
        let delay = self.next_delay(now, WARM)?;
        self.lanes.try_push(Lane { delay, due: now + self.trial(WARM, delay), stage: Stage::New }).ok()?;
        Some(Do::Open)
    }

    /// io was asked for a socket, or there is none to be had.
    pub(crate) fn on_asked(&mut self, now: Instant, request: Option<SocketRequest>) {
        let Some(request) = request else { return self.end(Measured::Failed) };
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.stage == Stage::New) {
            lane.stage = Stage::Asked { request, until: now + OPEN_WAIT };
        }
    }

    /// io opened the socket; false if nobody here wants it.
    pub(crate) fn on_socket(&mut self, now: Instant, opened: SocketRequest, socket: SocketId) -> bool {
        let asked = |l: &&mut Lane| matches!(l.stage, Stage::Asked { request, .. } if request == opened);
        let Some(lane) = self.lanes.iter_mut().find(asked) else { return false };
        lane.stage = Stage::Warming { socket, token: [0; 8], began: now, sent: 0, next: now, is_answered: false };
        true
    }

    /// The home answered a probe; false if it was not one of these.
    pub(crate) fn on_reply(&mut self, now: Instant, socket: SocketId, answered: [u8; 8]) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|l| l.stage.socket() == Some(socket)) else { return false };
        match &mut lane.stage {
            Stage::Warming { token, began, sent: 1.., next, is_answered, .. } if *token == answered => {
                if !*is_answered {
                    *is_answered = true;
                    self.rtt = now.since(*began);
                    *next = (*began + WARM).max(now);
                }
                true
            }
            Stage::Waiting { token, .. } if *token == answered => {
                let delay = lane.delay;
                lane.stage = Stage::Warm { socket };
                self.on_hit(delay);
                true
            }
            _ => false,
        }
    }

    /// What is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.lanes.iter().any(|l| matches!(l.stage, Stage::Asked { until, .. } if until <= now)) {
            return self.end(Measured::Failed);
        }
        let missed = |l: &Lane| matches!(l.stage, Stage::Waiting { .. }) && l.due <= now;
        while let Some(at) = self.lanes.iter().position(missed) {
            let Some(delay) = self.lanes.get(at).map(|l| l.delay) else { return };
            self.close_lane(at);
            self.on_miss(delay);
        }
    }

    /// When [`Self::handle_timeout`] and [`Self::poll`] have something to say.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        let due = |lane: &Lane| match lane.stage {
            Stage::Asked { until, .. } => Some(until),
            Stage::Warming { next, .. } => Some(next),
            Stage::Waiting { .. } => Some(lane.due),
            Stage::New | Stage::Warm { .. } => None,
        };
        self.lanes.iter().map(due).fold(None, earliest)
    }

    // ---- what was learned ----

    fn on_hit(&mut self, delay: Tenths) {
        self.hit = self.hit.max(delay);
        let hit = self.hit;
        // What was missed below was lost.
        self.misses.retain(|miss| *miss > hit);
        self.drop_useless();
    }

    fn on_miss(&mut self, delay: Tenths) {
        if delay <= self.hit {
            return;
        }
        if self.misses.is_full() {
            self.misses.pop();
        }
        let at = self.misses.partition_point(|miss| *miss <= delay);
        self.misses.insert(at, delay);
        if self.known.take_if(|known| *known == delay).is_some() {
            self.seeds.clear();
            self.seeds.push(delay);
        }
        self.drop_useless();
    }

    /// Trials whose end would say nothing new.
    fn drop_useless(&mut self) {
        let (hit, bound) = (self.hit, self.misses.first().copied());
        let is_useless = |l: &Lane| {
            let is_above = match (bound, l.stage) {
                (None, _) => false,
                // One that is asked for may come to be the second miss.
                (Some(bound), Stage::Waiting { .. }) => exceeds(l.delay, bound, CLOSE),
                (Some(bound), _) => l.delay > bound,
            };
            !matches!(l.stage, Stage::Warm { .. }) && (l.delay <= hit || is_above)
        };
        while let Some(at) = self.lanes.iter().position(is_useless) {
            self.close_lane(at);
        }
    }

    fn look_for_end(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let is_bounded = self.misses.get(1).is_some_and(|second| !exceeds(*second, self.hit, CLOSE));
        if self.hit > 0 && (self.hit >= LONGEST || is_bounded) {
            self.end(Measured::Known(span(self.hit)));
        } else if self.probes >= PROBES_MAX || self.misses.first().is_some_and(|m| !exceeds(*m, SHORTEST, FINE)) {
            self.end(Measured::Failed);
        }
    }

    fn end(&mut self, outcome: Measured) {
        self.outcome.get_or_insert(outcome);
        while !self.lanes.is_empty() {
            self.close_lane(0);
        }
    }

    // ---- what to try next ----

    /// The delay of a trial worth beginning now, on a socket that needs so long to become warm.
    fn next_delay(&mut self, now: Instant, warm: Duration) -> Option<Tenths> {
        while let Some(seed) = self.seeds.first().copied() {
            self.seeds.remove(0);
            if seed > self.hit && self.misses.first().is_none_or(|bound| seed <= *bound) {
                return Some(seed);
            }
        }
        if self.hit == 0 && self.known.is_some() {
            // What was found then most likely still holds.
            return None;
        }
        let bound = self.misses.first().copied();
        let awaited = || self.lanes.iter().filter(|l| l.delay > self.hit && bound.is_none_or(|b| l.delay <= b));
        let low = self.hit.max(SHORTEST);
        if bound.is_none() {
            let top = awaited().map(|l| l.delay).max().unwrap_or(0).max(self.hit);
            let rung = LADDER.into_iter().find(|rung| *rung > top);
            let is_worth = |rung: &Tenths| awaited().count() < if *rung < LONGEST { AHEAD } else { 1 };
            if let Some(rung) = rung.filter(is_worth) {
                return Some(rung);
            }
        }
        if let Some(lowest) = awaited().min_by_key(|l| l.delay) {
            // Only what is over before the one awaited.
            let delay = between(low, lowest.delay);
            let [unbounded, bounded] = WORTH;
            let is_worth = exceeds(lowest.delay, low, if bound.is_none() { unbounded } else { bounded });
            return (is_worth && now + self.trial(warm, delay) < lowest.due).then_some(delay);
        }
        let bound = bound?;
        if exceeds(bound, low, FINE) {
            return Some(between(low, bound));
        }
        // The shortest miss once more, unless another one that will do is on its way.
        let is_coming = self.lanes.iter().any(|l| l.delay > bound && !exceeds(l.delay, low, CLOSE));
        (!is_coming).then_some(bound)
    }

    /// How long a trial takes.
    fn trial(&self, warm: Duration, delay: Tenths) -> Duration {
        warm + span(delay) + MARGIN + self.rtt * 2
    }

    // ---- lanes ----

    /// Sends the probe whose answer is to come late.
    fn ask(&mut self, now: Instant, at: usize, socket: SocketId, delay: Tenths, token: [u8; 8]) -> Option<Do> {
        let due = now + self.trial(Duration::ZERO, delay);
        let lane = self.lanes.get_mut(at)?;
        *lane = Lane { delay, due, stage: Stage::Waiting { socket, token } };
        self.probe(socket, token, span(delay))
    }

    fn probe(&mut self, socket: SocketId, token: [u8; 8], delay: Duration) -> Option<Do> {
        self.probes = self.probes.saturating_add(1);
        Some(Do::Probe { socket, token, delay })
    }

    fn set_stage(&mut self, at: usize, stage: Stage) {
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.stage = stage;
        }
    }

    fn drop_lane(&mut self, at: usize) -> Option<Do> {
        self.close_lane(at);
        self.closing.pop().map(Do::Close)
    }

    fn close_lane(&mut self, at: usize) {
        if let Some(socket) = self.lanes.remove(at).stage.socket() {
            self.closing.push(socket);
        }
    }
}

impl Default for Lifetime {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "lifetime_tests.rs"]
mod tests;
