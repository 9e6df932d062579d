//! The paths of one peer's link, beside which its quality and its failure detector are: which a packet, an answer or
//! silence speaks for.

use core::net::IpAddr;
use core::time::Duration;

use super::state::Peer;
use crate::keepalive::Duty;
use crate::net::Path;
use crate::path::{self, Change, Output, Route, View};
use crate::time::Instant;

/// A peer with user traffic is followed to another known path only when the one in use has been silent for this long.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a link are counted over so long.
const BULK_EVERY: Duration = Duration::from_secs(1);
/// What a relay carries where nothing is known of its limits, in kilobits per second.
const RELAY_KBPS: u32 = 2_000;

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

impl Peer {
    /// Where its packets go now, if straight.
    pub(crate) fn direct_path(&self) -> Option<Path> {
        let route = self.paths.current()?;
        match route {
            Route::Direct { socket, remote } => Some(Path { socket, remote, local: self.paths.local_of(&route) }),
            Route::Relayed { .. } => None,
        }
    }

    /// The way that something authentic came: what it shows of the paths. Nothing where the peer is heard from too many
    /// new addresses.
    pub(super) fn on_arrived(&mut self, now: Instant, arrived: &Arrived) -> Option<Heard> {
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
    pub(super) fn on_challenge_reply(
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
    pub(super) fn on_path_answered(&mut self, now: Instant, route: &Route) {
        if self.duty == Duty::None && self.paths.current().is_some_and(|current| current.is_direct()) {
            let patience = if self.traffic.is_some() { FOLLOW_PATIENCE } else { Duration::ZERO };
            self.paths.on_peer_moved(now, route, patience);
        }
    }

    /// Chooses the path anew; what came of it, if it is another one.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Chosen> {
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
    pub(super) fn on_silence(&mut self, now: Instant) {
        if let Some(current) = self.paths.current().filter(Route::is_direct)
            && self.traffic.as_mut().is_some_and(|t| t.quality.has_left(now))
        {
            self.paths.set_worse(&current, true);
        }
        self.paths.on_silence();
    }

    /// Nothing answers on this path, which is not the one that was given up by the failure detector.
    pub(super) fn on_route_dead(&mut self, route: &Route) {
        self.paths.on_dead(route);
        self.paths.set_worse(route, true);
        self.detector.on_heard();
    }

    /// The peer wanted something on this route; whether that is of interest.
    pub(super) fn on_lively(&mut self, now: Instant, route: &Route) -> bool {
        if !self.is_up() || self.paths.current() != Some(*route) {
            return false;
        }
        let Some(traffic) = self.traffic.as_mut() else { return false };
        traffic.quality.on_lively(now);
        true
    }

    /// The peer asked on this route whether we are there. A ping is use of the link; a sample is not, or two ends that
    /// measure would keep each other awake.
    pub(super) fn on_asked(&mut self, now: Instant, route: &Route, is_sample: bool) {
        if self.paths.current() == Some(*route)
            && !is_sample
            && let Some(traffic) = self.traffic.as_mut()
        {
            traffic.used = now;
        }
    }

    /// Notes whether more flows than half of what a relay would carry for this pair.
    pub(super) fn judge_bulk(&mut self, now: Instant) {
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
    pub(super) fn poll_quality(&mut self, now: Instant) -> Option<Output> {
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

    /// What the measurement of a user link goes by.
    pub(super) fn quality_view(&self) -> Option<View> {
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

    /// Routers may have forgotten its direct paths: none is used until it has answered. Returns them.
    pub(super) fn doubt_direct(&mut self) -> Vec<Route> {
        let doubtful = self.paths.doubt_direct();
        self.detector.on_heard();
        doubtful
    }
}
