//! One peer: the link to it, its paths, how it is kept alive, when it rests and ends.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::attempt::{Attempt, Pending};
use super::traffic::{Standing, Traffic};
use crate::identity::PeerId;
use crate::keepalive::{BEAT_INTERVAL, BEAT_INTERVAL_MAX, Beats, Duty, PROOF_AGE_MAX, Pace};
use crate::link::Epoch;
use crate::net::Path;
use crate::path::{self, Change, FailureDetector, Output, Paths, Route, View};
use crate::time::{Instant, earliest};
use crate::wire::message::ChannelLimits;

/// A link that only listens (the other side keeps it alive) is gone after so much silence: two beats of the peer may be
/// lost even if it beats as seldom as may be.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(750);
const _: () = assert!(SILENCE_MAX.as_secs() > 3 * BEAT_INTERVAL_MAX.as_secs());
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * PROOF_AGE_MAX.as_secs());
/// A user link without streams, pings and datagrams is dormant after this: nothing is sent to keep its paths.
pub(crate) const DORMANT_AFTER: Duration = Duration::from_secs(60);
/// A dormant link is forgotten so long after its last use.
pub(crate) const USER_IDLE_MAX: Duration = Duration::from_secs(600);
/// A link that nothing needs is closed after this.
pub(crate) const UNUSED_MAX: Duration = Duration::from_secs(60);
/// A peer with user traffic is followed to another known path only when the one in use has been silent for this long.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a link are counted over so long.
const BULK_EVERY: Duration = Duration::from_secs(1);
/// What a relay carries where nothing is known of its limits, in kilobits per second.
const RELAY_KBPS: u32 = 2_000;
/// A link silent for so long rests its keys: no packet stays on its way longer.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(5);
/// Links with user data rekey so often while active.
pub(crate) const REKEY_ACTIVE: Duration = Duration::from_secs(600);
/// Idle control links rekey so often.
pub(crate) const REKEY_IDLE: Duration = Duration::from_secs(6 * 3_600);
/// An answered handshake that nobody confirms is forgotten after this.
pub(crate) const UNCONFIRMED_AGE_MAX: Duration = Duration::from_secs(10);
/// Old keys are accepted so long after the new ones were first used.
pub(crate) const OLD_EPOCH_AGE_MAX: Duration = Duration::from_secs(30);

/// One peer. Small, since a supernode keeps one per registered leaf: what only user links need is in [`Traffic`].
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) session: u64,
    /// QUIC's client is the initiator of the link's first handshake; rekeys do not change it.
    pub(crate) quic_client: bool,
    pub(crate) epoch: Option<Box<Epoch>>,
    pub(crate) old_epoch: Option<Box<(Epoch, Instant)>>,
    /// Handshakes that we answered, at most [`PENDING_MAX`]: an Init to our address and one through our home cross on
    /// the way, and the peer goes on with whichever answer comes first.
    pub(crate) pending: Vec<Pending>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) waiting: VecDeque<Box<[u8]>>,
    pub(crate) paths: Paths,
    pub(crate) beats: Beats,
    pub(crate) detector: FailureDetector,
    /// When a packet was last sealed, on any path.
    pub(crate) sealed: Instant,
    pub(crate) newest: u32,
    pub(crate) epoch_since: Instant,
    /// A room of the node (home, gossip, an introduction) needs the link.
    pub(crate) wanted: bool,
    /// The peer said that it is a registered leaf or a supernode keeps us as such: only it keeps the link alive.
    pub(crate) duty: Duty,
    /// When something last needed this link.
    pub(crate) needed: Instant,
    pub(crate) last_init_us: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) relayed_bytes: u64,
    pub(crate) traffic: Option<Box<Traffic>>,
    pub(crate) deadline: Option<Instant>,
}

/// The way that an authentic packet came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) route: Route,
    /// The local address that it came to.
    pub(crate) local: Option<IpAddr>,
    /// It is the newest that came under the present keys, and says where the peer sends.
    pub(crate) newest: bool,
    /// It is a question, which may come although nothing of ours arrives.
    pub(crate) asks: bool,
}

/// What a packet showed of the paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Heard {
    /// The path in use works again after an answer was awaited in vain.
    pub(crate) recovered: bool,
    /// It came on a path that is not proven.
    pub(crate) unproven: bool,
    /// This path is to be asked whether the peer is there.
    pub(crate) challenge: Option<Route>,
}

/// Another path is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    /// Why, where there is one at all.
    pub(crate) change: Option<Change>,
    /// Which.
    pub(crate) new: Option<Route>,
    /// There was none before.
    pub(crate) is_first: bool,
}

// What a peer without streams and handshakes weighs, a million times.
const _: () = assert!(size_of::<Peer>() <= 320);

impl Peer {
    pub(crate) fn new(now: Instant, id: PeerId, duty: Duty) -> Self {
        Self {
            id,
            session: 0,
            quic_client: false,
            epoch: None,
            old_epoch: None,
            pending: Vec::new(),
            attempts: Vec::new(),
            waiting: VecDeque::new(),
            paths: Paths::default(),
            beats: Beats::new(now),
            detector: FailureDetector::default(),
            sealed: now,
            newest: 0,
            epoch_since: now,
            wanted: false,
            duty,
            needed: now,
            last_init_us: 0,
            rx_bytes: 0,
            tx_bytes: 0,
            relayed_bytes: 0,
            traffic: None,
            deadline: None,
        }
    }

    /// Whether the link is up.
    pub(crate) fn is_up(&self) -> bool {
        self.epoch.is_some()
    }

    /// Where its packets go now, if straight.
    pub(crate) fn direct_path(&self) -> Option<Path> {
        let route = self.paths.current()?;
        match route {
            Route::Direct { socket, remote } => Some(Path { socket, remote, local: self.paths.local_of(&route) }),
            Route::Relayed { .. } => None,
        }
    }

    /// We call it, and tell it where we are: its link is for the application.
    pub(crate) fn on_called(&mut self, now: Instant) {
        let traffic = self.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, Standing::Accepted)));
        traffic.standing = Standing::Accepted;
    }

    /// What the relay says that the channel with this peer may carry.
    pub(crate) fn set_limits(&mut self, limits: ChannelLimits) {
        if let Some(traffic) = &mut self.traffic {
            traffic.limits = Some(limits);
        }
    }

    /// A packet of `len` bytes was sealed for `route`; `awaits`: its answer is awaited.
    pub(crate) fn on_sealed(&mut self, now: Instant, route: &Route, len: usize, awaits: bool) {
        self.sealed = now;
        self.tx_bytes += len as u64;
        if !route.is_direct() {
            self.relayed_bytes += len as u64;
        }
        if self.paths.current() == Some(*route) {
            self.beats.on_sent(now);
            if awaits {
                self.detector.on_sent(now);
            }
        }
    }

    /// Something authentic came: it proves life. For what way it came see [`Self::on_arrived`].
    pub(crate) fn on_authentic(&mut self, now: Instant, route: &Route, len: usize) {
        self.rx_bytes += len as u64;
        if !route.is_direct() {
            self.relayed_bytes += len as u64;
        }
        self.beats.on_heard(now);
    }

    /// The way that something authentic came: what it shows of the paths. Nothing where the peer is heard from too many
    /// new addresses.
    pub(crate) fn on_arrived(&mut self, now: Instant, arrived: &Arrived) -> Option<Heard> {
        let route = arrived.route;
        if !self.paths.admits_stranger(now, &route) {
            return None;
        }
        let on_path = self.paths.on_heard(now, route);
        if route.is_direct() {
            self.paths.note_local(&route, arrived.local);
        }
        let is_current = self.paths.current() == Some(route);
        let mut heard = Heard::default();
        // A question may come although nothing of ours arrives.
        if is_current && !arrived.asks {
            heard.recovered = self.detector.is_troubled();
            self.detector.on_heard();
        }
        match on_path {
            path::Heard::Proven => {
                if arrived.newest && is_current {
                    self.traffic.iter_mut().for_each(|t| t.quality.on_peer_here(now));
                } else if arrived.newest {
                    heard.challenge = self.on_peer_elsewhere(now, &route);
                }
            }
            path::Heard::Unproven => {
                heard.unproven = true;
                heard.challenge = self.paths.wants_challenge(now, &route).then_some(route);
            }
        }
        Some(heard)
    }

    /// The peer's newest packet came on a proven path that is not the one in use: it may have moved, or found ours bad.
    /// Returns the path in use if that is to be asked whether it still works.
    fn on_peer_elsewhere(&mut self, now: Instant, route: &Route) -> Option<Route> {
        let current = self.paths.current();
        let patience = if self.traffic.is_some() { FOLLOW_PATIENCE } else { Duration::ZERO };
        if !self.paths.is_worse(route) {
            self.paths.on_peer_moved(now, route, patience);
        } else if self.traffic.as_mut().is_some_and(|t| t.quality.has_taken_back(now)) {
            self.paths.set_worse(route, false);
        }
        if let Some(current) = current.filter(|c| c.is_direct() && !route.is_direct())
            && let Some(at) = self.paths.heard_at(&current)
            && self.traffic.as_mut().is_some_and(|t| t.quality.on_peer_elsewhere(now, at))
        {
            self.paths.set_worse(&current, true);
            // It does not wait on the relay for what it asked on the direct path.
            self.detector.on_heard();
        }
        let asked = current.filter(|c| route.class() > c.class() && self.paths.wants_challenge(now, c))?;
        self.detector.on_peer_elsewhere(now);
        Some(asked)
    }

    /// A challenge of ours was answered on this route; `checked`: it was a check, and that is how long it took. Whether
    /// the path is proven by it.
    pub(crate) fn on_challenge_reply(
        &mut self,
        now: Instant,
        route: &Route,
        token: [u8; 8],
        checked: Option<Duration>,
    ) -> bool {
        if self.paths.on_reply(now, route, token).is_some() {
            return true;
        }
        let measured = || self.traffic.as_mut().and_then(|t| t.quality.on_reply(now, route, token));
        let Some(rtt) = checked.or_else(measured) else { return false };
        self.paths.on_check_answered(now, *route, rtt);
        true
    }

    /// A path was proven: a leaf of ours may have moved there, whose newest address is the one that counts.
    pub(crate) fn on_path_answered(&mut self, now: Instant, route: &Route) {
        if self.duty == Duty::None && self.paths.current().is_some_and(|current| current.is_direct()) {
            let patience = if self.traffic.is_some() { FOLLOW_PATIENCE } else { Duration::ZERO };
            self.paths.on_peer_moved(now, route, patience);
        }
    }

    /// A service took the peer in; whether that is news.
    pub(crate) fn accept(&mut self) -> bool {
        let Some(traffic) = self.traffic.as_mut() else { return false };
        core::mem::replace(&mut traffic.standing, Standing::Accepted) != Standing::Accepted
    }

    /// Chooses the path anew; what came of it, if it is another one.
    pub(crate) fn choose(&mut self, now: Instant) -> Option<Chosen> {
        let old = self.paths.current();
        let change = self.paths.choose();
        let new = self.paths.current();
        if old == new {
            return None;
        }
        self.detector.on_path_changed(now);
        if let (Some(_), Some(traffic)) = (change, self.traffic.as_mut()) {
            traffic.quality.on_path_changed(now);
        }
        Some(Chosen { change, new, is_first: old.is_none() })
    }

    /// The path in use is given up: perhaps the peer, which uses another one, had left it as the worse one.
    pub(crate) fn on_silence(&mut self, now: Instant) {
        if let Some(current) = self.paths.current().filter(Route::is_direct)
            && self.traffic.as_mut().is_some_and(|t| t.quality.has_left(now))
        {
            self.paths.set_worse(&current, true);
        }
        self.paths.on_silence();
    }

    /// Nothing answers on this path, which is not the one that was given up by the failure detector.
    pub(crate) fn on_route_dead(&mut self, route: &Route) {
        self.paths.on_dead(route);
        self.paths.set_worse(route, true);
        self.detector.on_heard();
    }

    /// The peer wanted something on this route; whether that is of interest.
    pub(crate) fn on_lively(&mut self, now: Instant, route: &Route) -> bool {
        if !self.is_up() || self.paths.current() != Some(*route) {
            return false;
        }
        let Some(traffic) = self.traffic.as_mut() else { return false };
        traffic.quality.on_lively(now);
        true
    }

    /// The peer asked on this route whether we are there. A ping is use of the link; a sample is not, or two ends that
    /// measure would keep each other awake.
    pub(crate) fn on_asked(&mut self, now: Instant, route: &Route, is_sample: bool) {
        if self.paths.current() == Some(*route)
            && !is_sample
            && let Some(traffic) = self.traffic.as_mut()
        {
            traffic.used = now;
        }
    }

    /// Notes whether more flows than half of what a relay would carry for this pair.
    pub(crate) fn judge_bulk(&mut self, now: Instant) {
        let carried = self.rx_bytes + self.tx_bytes;
        let Some(traffic) = self.traffic.as_mut() else { return };
        let (since, before, _) = traffic.bulk;
        let time = now.since(since);
        if time < BULK_EVERY {
            return;
        }
        let limit = traffic.limits.map_or(RELAY_KBPS, |limits| limits.rate_kbps);
        let kbps = u128::from(carried.saturating_sub(before)) * 8_000 / time.as_micros().max(1);
        // A limit of 0 is none.
        traffic.bulk = (now, carried, limit > 0 && kbps * 2 > u128::from(limit));
    }

    /// What the measurement of the paths wants next, if anything is due.
    pub(crate) fn poll_quality(&mut self, now: Instant) -> Option<Output> {
        let view = self.quality_view()?;
        let want = self.traffic.as_mut()?.quality.handle_timeout(now, &view)?;
        match want {
            Output::Leave => {
                self.paths.set_worse(&view.using, true);
                self.detector.on_heard();
            }
            Output::TakeBack(route) => self.paths.set_worse(&route, false),
            Output::Dead(route) => self.on_route_dead(&route),
            Output::Nudge => self.detector.on_sent(now),
            Output::Sample(_) | Output::Recheck(_) | Output::WakeRelays => {}
        }
        Some(want)
    }

    /// Whether the link is dormant, and nothing came for so long that routers may have forgotten it.
    pub(crate) fn is_asleep(&self, now: Instant) -> bool {
        self.is_up() && self.is_dormant(now) && now.since(self.beats.heard()) >= BEAT_INTERVAL
    }

    /// Routers may have forgotten its direct paths: none is used until it has answered. Returns them.
    pub(crate) fn doubt_direct(&mut self) -> Vec<Route> {
        let doubtful = self.paths.doubt_direct();
        self.detector.on_heard();
        doubtful
    }

    /// The application uses it after it slept.
    pub(crate) fn on_woken(&mut self, now: Instant) {
        self.beats = Beats::new(now);
        // It may have no path at all now: then the failure detector sees to it that one is found, or the peer given up.
        self.detector.on_sent(now);
    }

    /// Whether a stream is open.
    pub(crate) fn has_streams(&self) -> bool {
        self.traffic.as_ref().is_some_and(|t| t.busy)
    }

    /// It has streams now, or has none any more.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        if let Some(traffic) = &mut self.traffic {
            traffic.busy = busy;
        }
    }

    /// User traffic was seen.
    pub(crate) fn on_used(&mut self, now: Instant) {
        if let Some(traffic) = &mut self.traffic {
            traffic.used = now;
        }
    }

    /// Whether it is on a user link, and some service lets it in or we called it.
    pub(crate) fn is_accepted(&self) -> bool {
        self.traffic.as_ref().is_some_and(|t| t.standing == Standing::Accepted)
    }

    /// The link carries user traffic from now on.
    pub(crate) fn carry_traffic(&mut self, now: Instant, standing: Standing) {
        self.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, standing)));
    }

    /// Whether this is a session that nobody has used for [`DORMANT_AFTER`]: no path is kept for it.
    pub(crate) fn is_dormant(&self, now: Instant) -> bool {
        let used = self.traffic.as_ref().map(|t| t.used.max(self.needed));
        !self.wanted && !self.has_streams() && used.is_some_and(|used| now.since(used) >= DORMANT_AFTER)
    }

    /// What this side has to do now to keep the link.
    pub(crate) fn duty_at(&self, now: Instant, pace: Pace) -> Duty {
        // A relayed path is kept by the beats of the link to the relay.
        let is_relayed = || self.paths.current().is_some_and(|route| !route.is_direct());
        // No router forgets a TCP connection before the next question whether the peer is there (RFC 5382, REQ-5: two
        // hours; four minutes are the least that is known).
        let is_tcp = || self.paths.current().is_some_and(|route| route.is_tcp());
        match self.duty {
            _ if self.is_dormant(now) => Duty::None,
            Duty::Binding if pace == Pace::OPEN || is_relayed() || is_tcp() => Duty::Liveness,
            duty => duty,
        }
    }

    /// When the link's keys should be replaced: the initiator of the link does it, the other side half a minute later
    /// if it has not happened.
    fn rekey_at(&self) -> Option<Instant> {
        let epoch = self.epoch.as_ref()?;
        if !self.attempts.is_empty() {
            return None;
        }
        if epoch.needs_rekey() {
            return Some(self.epoch_since);
        }
        let age = if self.traffic.is_some() { REKEY_ACTIVE } else { REKEY_IDLE };
        let grace = if self.quic_client { Duration::ZERO } else { Duration::from_secs(30) };
        let active = self.traffic.is_none() || self.has_streams();
        active.then_some(self.epoch_since + age + grace)
    }

    /// Whether the keys are due to be replaced.
    pub(crate) fn is_rekey_due(&self, now: Instant) -> bool {
        self.rekey_at().is_some_and(|at| at <= now)
    }

    /// When the keys go to rest.
    fn rest_at(&self) -> Option<Instant> {
        let awake = self.epoch.as_ref().is_some_and(|epoch| epoch.is_awake());
        (awake && !self.has_streams()).then(|| self.sealed.max(self.beats.heard()) + REST_AFTER)
    }

    /// Rests the keys if it is time.
    pub(crate) fn rest_if_due(&mut self, now: Instant) {
        if self.rest_at().is_some_and(|at| at <= now)
            && let Some(epoch) = &mut self.epoch
        {
            epoch.rest();
        }
    }

    /// When the idle rules look at this link next.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        if !self.is_up() {
            return None;
        }
        Some(match (&self.traffic, self.duty) {
            (Some(traffic), _) => {
                if self.has_streams() {
                    return None;
                }
                traffic.used.max(self.needed) + USER_IDLE_MAX
            }
            (None, Duty::None) => self.beats.heard() + SILENCE_MAX,
            (None, _) => {
                if self.wanted {
                    return None;
                }
                self.needed + UNUSED_MAX
            }
        })
    }

    /// What the measurement of a user link goes by.
    pub(crate) fn quality_view(&self) -> Option<View> {
        let traffic = self.traffic.as_ref().filter(|_| self.is_up())?;
        Some(View {
            using: self.paths.current()?,
            other: self.paths.spare(),
            lost: self.paths.lost(),
            used: traffic.used,
            heard: self.beats.heard(),
            bulk: traffic.bulk.2,
        })
    }

    /// The earliest of all that this peer waits for.
    pub(crate) fn next_deadline(&self, now: Instant, pace: Pace) -> Option<Instant> {
        let mut at = self.attempts.iter().map(Attempt::due).min();
        at = earliest(at, self.pending.iter().map(|p| p.at + UNCONFIRMED_AGE_MAX).min());
        at = earliest(at, self.old_epoch.as_ref().map(|old| old.1 + OLD_EPOCH_AGE_MAX));
        if self.epoch.is_some() {
            at = earliest(at, self.beats.poll_timeout(self.duty_at(now, pace), pace));
            at = earliest(at, self.detector.poll_timeout());
            at = earliest(at, self.rekey_at());
            at = earliest(at, self.rest_at());
            at = earliest(at, self.idle_at());
        }
        if let Some(view) = self.quality_view() {
            at = earliest(at, self.traffic.as_ref().and_then(|t| t.quality.poll_timeout(&view)));
        }
        at
    }
}
