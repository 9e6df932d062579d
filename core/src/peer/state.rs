//! One peer: the link to it, its paths, how it is kept alive, when it rests and ends.

use core::time::Duration;
use std::collections::VecDeque;

use super::attempt::{Attempt, Pending};
use super::traffic::{LinkUse, Traffic};
use crate::identity::PeerId;
use crate::keepalive::{BEAT_INTERVAL, BEAT_INTERVAL_MAX, Beats, Duty, PROOF_AGE_MAX, Pace};
use crate::link::Epoch;
use crate::path::{FailureDetector, Paths, Route};
use crate::time::{Instant, earliest};
use crate::wire::dialect::Dialect;
use crate::wire::message::ChannelLimits;

/// A link that only listens (the other side keeps it alive) is gone after so much silence: two beats of the peer may be
/// lost even if it beats as seldom as may be.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(750);
const _: () = assert!(SILENCE_MAX.as_secs() > 3 * BEAT_INTERVAL_MAX.as_secs());
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * PROOF_AGE_MAX.as_secs());
/// A user link without streams, pings and datagrams is dormant after this: nothing is sent to keep its paths.
pub(super) const DORMANT_AFTER: Duration = Duration::from_secs(60);
/// A dormant link is forgotten so long after its last use.
pub(super) const USER_IDLE_MAX: Duration = Duration::from_secs(600);
/// A link that nothing needs is closed after this.
pub(super) const UNUSED_MAX: Duration = Duration::from_secs(60);
/// A link silent for so long rests its keys: no packet stays on its way longer.
pub(super) const REST_AFTER: Duration = Duration::from_secs(5);
/// Links with user data rekey so often while active.
pub(super) const REKEY_ACTIVE: Duration = Duration::from_secs(600);
/// Idle control links rekey so often.
pub(super) const REKEY_IDLE: Duration = Duration::from_secs(6 * 3_600);
/// An answered handshake that nobody confirms is forgotten after this.
pub(super) const UNCONFIRMED_AGE_MAX: Duration = Duration::from_secs(10);
/// Old keys are accepted so long after the new ones were first used.
pub(super) const OLD_EPOCH_AGE_MAX: Duration = Duration::from_secs(30);

/// In [`Peer::marks`]: see [`LinkUse::Leg`]. No feature has this bit there.
const LEG: u8 = 0x40;

/// One peer. Small, since a supernode keeps one per registered leaf: what only user links need is in [`Traffic`].
pub(crate) struct Peer {
    pub(super) id: PeerId,
    pub(super) session: u64,
    /// What both sides of the link speak, [packed](Dialect::packed), and [`LEG`].
    marks: u8,
    /// QUIC's client is the initiator of the link's first handshake; rekeys do not change it.
    pub(super) quic_client: bool,
    pub(super) epoch: Option<Box<Epoch>>,
    pub(super) old_epoch: Option<Box<(Epoch, Instant)>>,
    /// Handshakes that we answered, at most [`PENDING_MAX`]: an Init to our address and one through our home cross on
    /// the way, and the peer goes on with whichever answer comes first.
    pub(super) pending: Vec<Pending>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) waiting: VecDeque<Box<[u8]>>,
    pub(super) paths: Paths,
    pub(super) beats: Beats,
    pub(super) detector: FailureDetector,
    /// When a packet was last sealed, on any path.
    pub(super) sealed: Instant,
    pub(super) newest: u32,
    pub(super) epoch_since: Instant,
    /// A room of the node (home, gossip, an introduction) needs the link.
    pub(super) wanted: bool,
    /// How this side keeps the link alive, if it does.
    pub(super) duty: Duty,
    /// When something last needed this link.
    pub(super) needed: Instant,
    pub(super) last_init_us: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) relayed_bytes: u64,
    pub(super) traffic: Option<Box<Traffic>>,
    pub(super) deadline: Option<Instant>,
}

// What a peer without streams and handshakes weighs, a million times.
const _: () = assert!(size_of::<Peer>() <= 320);

impl Peer {
    pub(super) fn new(now: Instant, id: PeerId, duty: Duty) -> Self {
        Self {
            id,
            session: 0,
            marks: Dialect::FIRST.packed(),
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

    // ---- what others may know of it ----

    /// Who it is.
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// What both sides of the link speak.
    pub(crate) fn dialect(&self) -> Dialect {
        Dialect::unpacked(self.marks & !LEG)
    }

    /// The newest handshake says so.
    pub(super) fn set_dialect(&mut self, dialect: Dialect) {
        self.marks = (self.marks & LEG) | dialect.packed();
    }

    /// Its paths.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The path in use.
    pub(crate) fn current(&self) -> Option<Route> {
        self.paths.current()
    }

    /// Whether a room of the node hears of what comes on it.
    pub(super) fn is_watched(&self) -> bool {
        self.wanted || self.duty == Duty::Rest
    }

    /// Whether a room of the node needs the link.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether its link is for the application.
    pub(crate) fn is_user(&self) -> bool {
        self.traffic.is_some()
    }

    /// Whether it is a leg of a volunteer's channels, or is to be one, and nothing else.
    pub(crate) fn is_leg(&self) -> bool {
        self.marks & LEG != 0 && !self.is_user()
    }

    /// Whether this side began the link: it is QUIC's client.
    pub(crate) fn is_client(&self) -> bool {
        self.quic_client
    }

    /// Bytes that came, that left, and how many of both by relays.
    pub(crate) fn bytes(&self) -> (u64, u64, u64) {
        (self.rx_bytes, self.tx_bytes, self.relayed_bytes)
    }

    /// Whether the link is up.
    pub(crate) fn is_up(&self) -> bool {
        self.epoch.is_some()
    }

    // ---- user traffic ----

    /// The link carries user traffic from now on: we called the peer, or a service lets it in.
    pub(super) fn carry_traffic(&mut self, now: Instant) {
        self.traffic.get_or_insert_with(|| Box::new(Traffic::new(now)));
    }

    /// The link is for this from now on. What it has been for before, it is for as well.
    pub(super) fn serve(&mut self, now: Instant, link_use: LinkUse) {
        match link_use {
            LinkUse::Network => {}
            LinkUse::Leg => self.marks |= LEG,
            LinkUse::User => self.carry_traffic(now),
        }
    }

    /// What the relay says that the channel with this peer may carry.
    pub(super) fn set_limits(&mut self, limits: ChannelLimits) {
        if let Some(traffic) = &mut self.traffic {
            traffic.limits = Some(limits);
        }
    }

    /// A packet of `len` bytes was sealed for `route`; `awaits`: its answer is awaited.
    pub(super) fn on_sealed(&mut self, now: Instant, route: &Route, len: usize, awaits: bool) {
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
    pub(super) fn on_authentic(&mut self, now: Instant, route: &Route, len: usize) {
        self.rx_bytes += len as u64;
        if !route.is_direct() {
            self.relayed_bytes += len as u64;
        }
        self.beats.on_heard(now);
    }

    /// Whether the link is dormant, and nothing came for so long that routers may have forgotten it.
    pub(super) fn is_asleep(&self, now: Instant) -> bool {
        self.is_up() && self.is_dormant(now) && now.since(self.beats.heard()) >= BEAT_INTERVAL
    }

    /// The application uses it after it slept.
    pub(super) fn on_woken(&mut self, now: Instant) {
        self.beats = Beats::new(now);
        // It may have no path at all now: then the failure detector sees to it that one is found, or the peer given up.
        self.detector.on_sent(now);
    }

    /// Whether a stream is open.
    pub(crate) fn has_streams(&self) -> bool {
        self.traffic.as_ref().is_some_and(|t| t.busy)
    }

    /// It has streams now, or has none any more.
    pub(super) fn set_busy(&mut self, busy: bool) {
        if let Some(traffic) = &mut self.traffic {
            traffic.busy = busy;
        }
    }

    /// User traffic was seen.
    pub(super) fn on_used(&mut self, now: Instant) {
        if let Some(traffic) = &mut self.traffic {
            traffic.used = now;
        }
    }

    /// Whether this is a session that nobody has used for [`DORMANT_AFTER`]: no path is kept for it.
    pub(crate) fn is_dormant(&self, now: Instant) -> bool {
        let used = self.traffic.as_ref().map(|t| t.used.max(self.needed));
        !self.wanted && !self.has_streams() && used.is_some_and(|used| now.since(used) >= DORMANT_AFTER)
    }

    /// What this side has to do now to keep the link.
    pub(super) fn duty_at(&self, now: Instant, pace: Pace) -> Duty {
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
        if self.duty == Duty::Rest {
            return None;
        }
        let age = if self.traffic.is_some() { REKEY_ACTIVE } else { REKEY_IDLE };
        let grace = if self.quic_client { Duration::ZERO } else { Duration::from_secs(30) };
        let active = self.traffic.is_none() || self.has_streams();
        active.then_some(self.epoch_since + age + grace)
    }

    /// Whether the keys are due to be replaced.
    pub(super) fn is_rekey_due(&self, now: Instant) -> bool {
        self.rekey_at().is_some_and(|at| at <= now)
    }

    /// When the keys go to rest.
    fn rest_at(&self) -> Option<Instant> {
        let awake = self.epoch.as_ref().is_some_and(|epoch| epoch.is_awake());
        (awake && !self.has_streams()).then(|| self.sealed.max(self.beats.heard()) + REST_AFTER)
    }

    /// Rests the keys if it is time.
    pub(super) fn rest_if_due(&mut self, now: Instant) {
        if self.rest_at().is_some_and(|at| at <= now)
            && let Some(epoch) = &mut self.epoch
        {
            epoch.rest();
        }
    }

    /// When the idle rules look at this link next.
    pub(super) fn idle_at(&self) -> Option<Instant> {
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
            (None, Duty::Rest) => return None,
            (None, _) => {
                if self.wanted {
                    return None;
                }
                self.needed + UNUSED_MAX
            }
        })
    }

    /// The earliest of all that this peer waits for.
    pub(super) fn next_deadline(&self, now: Instant, pace: Pace) -> Option<Instant> {
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
