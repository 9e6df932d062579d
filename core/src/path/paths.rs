//! The paths of one link: which there are, which are proven, which one is used.
//!
//! A link's packets can travel several ways ([`Route`]): straight to one of the peer's addresses, or through a relay.
//! [`Paths`] is handed what happened on each of them (an authentic packet came, a challenge was answered, an awaited
//! answer did not come) and says which one to use and when that changes. It sends nothing itself.
//!
//! A path is born unproven, from an authentic packet or a connectivity check. It becomes proven when the peer answers
//! an unguessable token on it (RFC 9000 §8.2 has the same idea), or when a handshake completed over it. Only proven
//! paths are used. A path on which an awaited answer did not come has failed: it is kept for a while, since it may come
//! back, but is used only when nothing else is left. It comes back when it answers a challenge.
//!
//! Choice: a direct path over UDP, then one over TCP, then a relayed one, unless [`crate::quality`] found the direct
//! one worse; between two paths of a kind the quicker one, with hysteresis so that two alike do not alternate; a path
//! that the peer moved to (it roamed) at once.

use core::net::IpAddr;
use core::time::Duration;

use super::route::Route;
use super::rtt::smoothed;
use crate::time::Instant;

/// Most paths that a link keeps. At the limit an unproven one that was heard longest ago goes first.
pub(crate) const PATHS_MAX: usize = 8;

/// Most new addresses of a peer that are looked at in each [`STRANGERS_EVERY`]. Others are not noted, nor asked.
pub(crate) const STRANGERS_MAX: u8 = 12;
/// See [`STRANGERS_MAX`].
const STRANGERS_EVERY: Duration = Duration::from_secs(10);
/// A challenge unanswered for so long is forgotten.
const CHALLENGE_AGE_MAX: Duration = Duration::from_secs(5);

/// Another path of a kind must beat the one in use by this much before it takes over: a fifth of its RTT and 2 ms; of
/// two relays, whose round trips are measured seldom, a fifth and 50 ms.
fn is_clearly_quicker(rtt_us: u32, than_us: u32, is_direct: bool) -> bool {
    let (rtt_us, than_us) = (u64::from(rtt_us), u64::from(than_us));
    if is_direct { rtt_us * 5 + 10_000 < than_us * 4 } else { rtt_us * 5 < than_us * 4 && rtt_us + 50_000 < than_us }
}

#[derive(Clone, Debug)]
struct PathState {
    route: Route,
    proven: bool,
    /// An awaited answer did not come; cleared by the next challenge that is answered on it.
    failed: bool,
    /// It works, but [`crate::quality`] found another one better.
    worse: bool,
    /// Smoothed, in microseconds (RFC 6298 §2: one eighth of each new sample).
    rtt_us: Option<u32>,
    heard: Instant,
    /// The local address that its packets came to.
    local: Option<IpAddr>,
    /// The last challenge sent on it.
    challenge: Option<([u8; 8], Instant)>,
}

impl PathState {
    /// An awaited answer did not come. Perhaps this host now leaves by another interface, on which the old source
    /// address leads nowhere: from here on the host's routes choose it, until something arrives.
    fn fail(&mut self) {
        self.failed = true;
        self.local = None;
    }
}

// A supernode keeps one for each of a million leaves.
const _: () = assert!(size_of::<PathState>() <= 96);

/// Why the path in use changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// The link has a path for the first time.
    First,
    /// A better path took over; the old one still works.
    Upgrade,
    /// The old path is dead.
    Failover,
}

/// What hearing an authentic packet means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// On a proven path.
    Proven,
    /// On a path that is not known, not proven, or failed: challenge it.
    Unproven,
}

/// The paths of one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    list: Vec<PathState>,
    /// Where in the list the path in use is.
    current: Option<u8>,
    /// All direct paths were in doubt, and none has shown itself since: nothing is risked on one that failed.
    is_waiting: bool,
    /// Addresses that the peer was heard from for the first time in this stretch of [`STRANGERS_EVERY`].
    strangers: u8,
    /// Which stretch that is.
    strangers_in: u32,
}

impl Paths {
    /// The path in use.
    pub(crate) fn current(&self) -> Option<Route> {
        self.list.get(usize::from(self.current?)).map(|p| p.route)
    }

    fn set_current(&mut self, route: Option<Route>) {
        let at = route.and_then(|route| self.list.iter().position(|p| p.route == route));
        self.current = at.and_then(|at| u8::try_from(at).ok());
    }

    /// Smoothed round-trip time of the path in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let current = self.current()?;
        self.rtt_of(&current)
    }

    /// Smoothed round-trip time of one path.
    pub(crate) fn rtt_of(&self, route: &Route) -> Option<Duration> {
        self.find(route)?.rtt_us.map(|us| Duration::from_micros(us.into()))
    }

    /// Whether `route` is known and proven.
    pub(crate) fn is_proven(&self, route: &Route) -> bool {
        self.find(route).is_some_and(|p| p.proven)
    }

    /// Whether a direct path is proven and has not failed.
    pub(crate) fn has_direct(&self) -> bool {
        self.list.iter().any(|p| p.route.is_direct() && p.proven && !p.failed)
    }

    /// All proven paths, the one in use included.
    pub(crate) fn proven(&self) -> impl Iterator<Item = Route> + '_ {
        self.list.iter().filter(|p| p.proven).map(|p| p.route)
    }

    /// All paths.
    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.list.iter().map(|p| p.route)
    }

    /// When anything authentic last came on `route`.
    pub(crate) fn heard_at(&self, route: &Route) -> Option<Instant> {
        self.find(route).map(|p| p.heard)
    }

    /// An authentic packet came on `route`.
    pub(crate) fn on_heard(&mut self, now: Instant, route: Route) -> Heard {
        if let Some(path) = self.find_mut(&route) {
            path.heard = now;
            // A failed path must answer a challenge first: packets that come may hide that ours do not arrive.
            return if path.proven && !path.failed { Heard::Proven } else { Heard::Unproven };
        }
        self.insert(now, route);
        Heard::Unproven
    }

    /// The local address that packets on `route` come to, and leave from.
    pub(crate) fn local_of(&self, route: &Route) -> Option<IpAddr> {
        self.find(route)?.local
    }

    /// Packets on `route` come to this local address.
    pub(crate) fn note_local(&mut self, route: &Route, local: Option<IpAddr>) {
        if let Some(path) = self.find_mut(route) {
            path.local = local;
        }
    }

    /// A handshake completed over `route`, which proves it.
    pub(crate) fn on_handshake(&mut self, now: Instant, route: Route) {
        if self.find(&route).is_none() {
            self.insert(now, route);
        }
        if let Some(path) = self.find_mut(&route) {
            path.proven = true;
            path.failed = false;
            path.heard = now;
        }
    }

    /// Whether an address that the peer was not heard from before may be asked whether it is the peer's. Two routers
    /// that give each destination another address can make a new one of every question, without end.
    pub(crate) fn admits_stranger(&mut self, now: Instant, route: &Route) -> bool {
        if self.find(route).is_some() {
            return true;
        }
        #[expect(clippy::cast_possible_truncation, reason = "told from the next one by its low bits")]
        let stretch = (now.as_secs() / STRANGERS_EVERY.as_secs()) as u32;
        if self.strangers_in != stretch {
            (self.strangers, self.strangers_in) = (0, stretch);
        }
        self.strangers = self.strangers.saturating_add(1);
        self.strangers <= STRANGERS_MAX
    }

    /// Whether an unproven or doubtful path should be challenged now: none is under way.
    pub(crate) fn wants_challenge(&self, now: Instant, route: &Route) -> bool {
        self.find(route).is_some_and(|p| p.challenge.is_none_or(|(_, at)| now.since(at) >= Duration::from_millis(500)))
    }

    /// A challenge with `token` leaves on `route`.
    pub(crate) fn on_challenge_sent(&mut self, now: Instant, route: &Route, token: [u8; 8]) {
        if let Some(path) = self.find_mut(route) {
            path.challenge = Some((token, now));
        }
    }

    /// The peer answered `token` on `route`: the round trip, if that token was ours and went out there.
    pub(crate) fn on_reply(&mut self, now: Instant, route: &Route, token: [u8; 8]) -> Option<Duration> {
        let path = self.find_mut(route)?;
        let (sent, at) = path.challenge?;
        if sent != token || now.since(at) > CHALLENGE_AGE_MAX {
            return None;
        }
        path.challenge = None;
        let rtt = now.since(at);
        Self::prove(path, now, rtt);
        Some(rtt)
    }

    /// A connectivity check that was accounted for elsewhere was answered on `route` after `rtt`.
    pub(crate) fn on_check_answered(&mut self, now: Instant, route: Route, rtt: Duration) {
        if self.find(&route).is_none() {
            self.insert(now, route);
        }
        if let Some(path) = self.find_mut(&route) {
            Self::prove(path, now, rtt);
        }
    }

    fn prove(path: &mut PathState, now: Instant, rtt: Duration) {
        path.proven = true;
        path.failed = false;
        path.heard = now;
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        path.rtt_us = Some(match path.rtt_us {
            None => sample,
            Some(old) => smoothed(old, sample, 8),
        });
    }

    /// An answer awaited on the path in use did not come.
    pub(crate) fn on_silence(&mut self) {
        if let Some(current) = self.current()
            && let Some(path) = self.find_mut(&current)
        {
            path.fail();
        }
    }

    /// No answer comes on this path any more.
    pub(crate) fn on_dead(&mut self, route: &Route) {
        if let Some(path) = self.find_mut(route) {
            path.fail();
        }
    }

    /// A handshake began at `since` over `route`, a TCP connection, and has succeeded: whoever makes one has found the
    /// path in use silent. If that was not heard since then either, it has failed.
    pub(crate) fn on_stand_in(&mut self, route: &Route, since: Instant) {
        if let Some(current) = self.current()
            && current != *route
            && let Some(path) = self.find_mut(&current)
            && path.heard < since
        {
            path.failed = true;
        }
    }

    /// Routers may have forgotten the direct paths while nobody used them. They are failed until they answer; nothing
    /// is sent on them meanwhile, not even where there is no other path. Says which they are. Call [`Self::choose`]
    /// after it.
    pub(crate) fn doubt_direct(&mut self) -> Vec<Route> {
        let direct = |p: &&mut PathState| p.route.is_direct() && p.proven;
        for path in self.list.iter_mut().filter(direct) {
            path.failed = true;
        }
        if self.current().is_some_and(|route| route.is_direct()) {
            self.set_current(None);
        }
        self.is_waiting = true;
        self.proven().filter(Route::is_direct).collect()
    }

    /// Whether there is a better path than this one although it works.
    pub(crate) fn set_worse(&mut self, route: &Route, worse: bool) {
        if let Some(path) = self.find_mut(route) {
            path.worse = worse;
        }
    }

    /// Whether it is a direct path that works and was left for a better one.
    pub(crate) fn is_worse(&self, route: &Route) -> bool {
        route.is_direct() && self.find(route).is_some_and(|p| p.proven && !p.failed && p.worse)
    }

    /// The path to compare the one in use with: a relayed one for a direct one, a direct one for a relayed one.
    pub(crate) fn spare(&self) -> Option<Route> {
        let using = self.current()?;
        let others = self.list.iter().filter(|p| p.proven && !p.failed && p.route.is_direct() != using.is_direct());
        others.min_by_key(|p| p.rtt_us.unwrap_or(u32::MAX)).map(|p| p.route)
    }

    /// The direct path that was heard last, if it has failed and there is no other.
    pub(crate) fn lost(&self) -> Option<Route> {
        let direct = || self.list.iter().filter(|p| p.proven && p.route.is_direct());
        let works = direct().any(|p| !p.failed);
        direct().max_by_key(|p| p.heard).filter(|_| !works).map(|p| p.route)
    }

    /// Notes a path that nothing has been heard on, so that it can be challenged.
    pub(crate) fn add(&mut self, now: Instant, route: Route) {
        if self.find(&route).is_none() {
            self.insert(now, route);
        }
    }

    /// The peer's newest packet came on `route`, proven, while the path in use has been silent for `patience`: it
    /// moved. Takes effect at the next [`Self::choose`]. Patience keeps two ends that prefer different paths from
    /// following each other for ever.
    ///
    /// To a path of a lesser [class](Route::class) nobody is followed like this: the better one is asked first.
    pub(crate) fn on_peer_moved(&mut self, now: Instant, route: &Route, patience: Duration) {
        let Some(current) = self.current() else { return };
        if !self.is_proven(route) || current == *route || route.class() > current.class() {
            return;
        }
        if let Some(path) = self.find_mut(&current)
            && now.since(path.heard) >= patience
        {
            path.failed = true;
        }
    }

    /// Chooses the path to use; says what changed, if anything did.
    pub(crate) fn choose(&mut self) -> Option<Change> {
        let old = self.current();
        let best =
            self.list.iter().filter(|p| p.proven && !(p.failed && self.is_waiting)).min_by_key(|p| {
                (p.failed, p.worse, p.route.class(), Some(p.route) != old, p.rtt_us.unwrap_or(u32::MAX))
            })?;
        let mut choice = best.route;
        let is_comparable = choice.is_direct() || best.rtt_us.is_some();
        if is_comparable && !best.failed && !best.worse {
            // Hysteresis: the one in use sorts first among its equals; another one must be clearly quicker.
            let mut rtt = best.rtt_us.unwrap_or(u32::MAX);
            let alike = |p: &&PathState| p.proven && !p.failed && !p.worse && p.route.class() == best.route.class();
            for p in self.list.iter().filter(alike) {
                let Some(other) = p.rtt_us else { continue };
                if is_clearly_quicker(other, rtt, choice.is_direct()) {
                    choice = p.route;
                    rtt = other;
                }
            }
        }
        if old == Some(choice) {
            return None;
        }
        self.set_current(Some(choice));
        self.is_waiting = false;
        Some(match old {
            None => Change::First,
            Some(old) if self.find(&old).is_some_and(|p| !p.failed) => Change::Upgrade,
            Some(_) => Change::Failover,
        })
    }

    /// Removes every path that `gone` names; the path in use too. Call [`Self::choose`] after it.
    pub(crate) fn remove(&mut self, gone: impl Fn(&Route) -> bool) {
        let current = self.current();
        self.list.retain(|p| !gone(&p.route));
        self.set_current(current);
    }

    fn find(&self, route: &Route) -> Option<&PathState> {
        self.list.iter().find(|p| p.route == *route)
    }

    fn find_mut(&mut self, route: &Route) -> Option<&mut PathState> {
        self.list.iter_mut().find(|p| p.route == *route)
    }

    fn insert(&mut self, now: Instant, route: Route) {
        if self.list.len() >= PATHS_MAX {
            let current = self.current();
            let victim = self
                .list
                .iter()
                .enumerate()
                .filter(|(_, p)| Some(p.route) != current)
                .min_by_key(|(_, p)| (p.proven && !p.failed, p.heard))
                .map(|(i, _)| i);
            if let Some(i) = victim {
                self.list.remove(i);
                self.set_current(current);
            }
        }
        // Most links have one path for ever; the next power of two would be three in vain.
        self.list.reserve_exact(1);
        self.list.push(PathState {
            route,
            proven: false,
            failed: false,
            worse: false,
            rtt_us: None,
            heard: now,
            local: None,
            challenge: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;
    use crate::net::{PeerKey, SocketId};
    use crate::wire::packet::ChannelId;

    fn direct(port: u16) -> Route {
        Route::Direct { socket: SocketId(0), remote: SocketAddr::from(([192, 0, 2, 1], port)) }
    }

    fn relayed() -> Route {
        Route::Relayed { channel: ChannelId([1; 6]), via: PeerKey { index: 1, generation: 1 } }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn an_unproven_path_is_never_used() {
        let mut paths = Paths::default();
        assert_eq!(paths.on_heard(at(0), direct(1)), Heard::Unproven);
        assert_eq!(paths.choose(), None);
        assert_eq!(paths.current(), None);
    }

    #[test]
    fn regression_a_silent_path_is_not_tied_to_an_old_address() {
        // The host's default route moved to another interface while the old one stayed up.
        let local = Some(IpAddr::from([192, 168, 1, 2]));
        let mut paths = Paths::default();
        paths.on_handshake(at(0), direct(1));
        assert_eq!(paths.choose(), Some(Change::First));
        paths.note_local(&direct(1), local);
        assert_eq!(paths.local_of(&direct(1)), local);
        paths.on_silence();
        assert_eq!(paths.local_of(&direct(1)), None);
        paths.note_local(&direct(1), local);
        paths.on_dead(&direct(1));
        assert_eq!(paths.local_of(&direct(1)), None);
    }

    #[test]
    fn direct_takes_over_from_the_relay_and_the_relay_stays_as_a_spare() {
        let mut paths = Paths::default();
        paths.on_handshake(at(0), relayed());
        assert_eq!(paths.choose(), Some(Change::First));
        paths.on_heard(at(1), direct(1));
        paths.on_challenge_sent(at(1), &direct(1), [7; 8]);
        assert_eq!(paths.on_reply(at(21), &direct(1), [8; 8]), None, "a wrong token proves nothing");
        assert_eq!(paths.on_reply(at(21), &direct(1), [7; 8]), Some(Duration::from_millis(20)));
        assert_eq!(paths.choose(), Some(Change::Upgrade));
        assert_eq!(paths.current(), Some(direct(1)));
        paths.on_silence();
        assert_eq!(paths.choose(), Some(Change::Failover));
        assert_eq!(paths.current(), Some(relayed()));
        assert_eq!(paths.on_heard(at(40), direct(1)), Heard::Unproven);
        assert_eq!(paths.choose(), None, "it may be dead in our direction only");
        paths.on_challenge_sent(at(41), &direct(1), [9; 8]);
        paths.on_reply(at(61), &direct(1), [9; 8]);
        assert_eq!(paths.choose(), Some(Change::Upgrade), "an answer brings a failed path back");
    }

    #[test]
    fn two_direct_paths_alike_do_not_alternate() {
        let mut paths = Paths::default();
        paths.on_check_answered(at(0), direct(1), Duration::from_millis(20));
        paths.choose();
        paths.on_check_answered(at(1), direct(2), Duration::from_millis(18));
        assert_eq!(paths.choose(), None);
        paths.on_check_answered(at(2), direct(3), Duration::from_millis(2));
        assert_eq!(paths.choose(), Some(Change::Upgrade));
        assert_eq!(paths.current(), Some(direct(3)));
    }

    #[test]
    fn of_two_relays_the_clearly_quicker_one_is_used_and_a_limited_one_only_where_there_is_no_other() {
        let other = Route::Relayed { channel: ChannelId([2; 6]), via: PeerKey { index: 2, generation: 1 } };
        let mut paths = Paths::default();
        paths.on_handshake(at(0), relayed());
        assert_eq!(paths.choose(), Some(Change::First));
        paths.on_check_answered(at(1), other, Duration::from_millis(20));
        assert_eq!(paths.choose(), None, "nobody knows how quick the present one is");
        paths.on_check_answered(at(2), relayed(), Duration::from_millis(24));
        assert_eq!(paths.choose(), None, "alike");
        paths.on_check_answered(at(3), relayed(), Duration::from_millis(400));
        assert_eq!((paths.choose(), paths.current()), (Some(Change::Upgrade), Some(other)));
        paths.set_worse(&other, true);
        assert_eq!((paths.choose(), paths.current()), (Some(Change::Upgrade), Some(relayed())));
        paths.remove(|route| *route == relayed());
        assert_eq!((paths.choose(), paths.current()), (Some(Change::First), Some(other)));
    }

    #[test]
    fn a_peer_that_moved_is_followed_once_the_new_address_is_proven() {
        let mut paths = Paths::default();
        paths.on_check_answered(at(0), direct(1), Duration::from_millis(2));
        paths.choose();
        paths.on_heard(at(10), direct(2));
        paths.on_peer_moved(at(2_000), &direct(2), Duration::from_secs(1));
        assert_eq!(paths.choose(), None, "not before it is proven");
        paths.on_check_answered(at(50), direct(2), Duration::from_millis(40));
        paths.on_peer_moved(at(60), &direct(2), Duration::from_secs(1));
        assert_eq!(paths.choose(), None, "the old path was heard a moment ago");
        paths.on_peer_moved(at(1_060), &direct(2), Duration::from_secs(1));
        assert_eq!(paths.choose(), Some(Change::Failover));
        assert_eq!(paths.current(), Some(direct(2)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_path_in_use() {
        let mut paths = Paths::default();
        paths.on_handshake(at(0), direct(1));
        paths.choose();
        for port in 2..100 {
            paths.on_heard(at(u64::from(port)), direct(port));
        }
        assert_eq!(paths.routes().count(), PATHS_MAX);
        assert_eq!(paths.current(), Some(direct(1)));
        assert!(paths.is_proven(&direct(1)));
    }

    #[test]
    fn regression_a_peer_with_ever_new_addresses_is_not_asked_without_end() {
        let mut paths = Paths::default();
        paths.on_handshake(at(0), relayed());
        let asked = (0..1_000).filter(|n| {
            let admitted = paths.admits_stranger(at(u64::from(*n)), &direct(*n + 1));
            if admitted {
                paths.on_heard(at(u64::from(*n)), direct(*n + 1));
            }
            admitted
        });
        assert_eq!(asked.count(), usize::from(STRANGERS_MAX));
        assert!(paths.admits_stranger(at(1_000), &relayed()), "known paths are no strangers");
        assert!(paths.admits_stranger(at(10_000), &direct(5_000)), "another stretch of time");
    }

    #[test]
    fn direct_paths_in_doubt_wait_for_an_answer_unless_there_is_a_relay() {
        let mut paths = Paths::default();
        paths.on_check_answered(at(0), direct(1), Duration::from_millis(20));
        paths.choose();
        assert_eq!(paths.doubt_direct(), [direct(1)]);
        assert_eq!((paths.choose(), paths.current()), (None, None));
        let mut relayed_too = paths.clone();
        relayed_too.on_handshake(at(1), relayed());
        assert_eq!(relayed_too.choose(), Some(Change::First));
        assert_eq!(relayed_too.current(), Some(relayed()));
        paths.on_challenge_sent(at(1), &direct(1), [7; 8]);
        assert!(paths.on_reply(at(21), &direct(1), [7; 8]).is_some());
        assert_eq!(paths.choose(), Some(Change::First));
        // From now on a failed path is again better than none.
        paths.on_silence();
        assert_eq!((paths.choose(), paths.current()), (None, Some(direct(1))));
    }

    #[test]
    fn removing_the_path_in_use_leaves_the_next_best() {
        let mut paths = Paths::default();
        paths.on_handshake(at(0), relayed());
        paths.on_check_answered(at(0), direct(1), Duration::from_millis(2));
        paths.choose();
        paths.remove(Route::is_direct);
        assert_eq!(paths.choose(), Some(Change::First));
        assert_eq!(paths.current(), Some(relayed()));
    }
}
