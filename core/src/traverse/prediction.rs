//! Port prediction: a router that counts is looked at an instant before its next mapping is made.
//!
//! The side whose router counts opens a fresh socket and sends from it, one right after the other, a probe to a home of
//! its own and checks to the peer's endpoint. The home says which port the first got, so the others have the next ones.
//! The port is told to the peer, which sends to a window of ports around where the check must have left from: other
//! hosts may have taken some in between.
//!
//! Where both count, every packet to another port leaves from yet another one. Both tell first, then each sends its
//! k-th packet to the other's k-th next port, which leaves from its own k-th next one: the two lists meet, unless some
//! other host takes a port meanwhile.
//!
//! A round that brings no path in [`ROUND`] is followed by another with a fresh socket, [`ROUNDS_MAX`] in all. Where
//! the counter has meanwhile moved far, other hosts rush it on, and there is nothing to foresee.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use arrayvec::ArrayVec;

use super::step::Step;
use crate::net::SocketId;
use crate::time::Instant;

/// A round takes so long.
pub(crate) const ROUND: Duration = Duration::from_secs(2);
/// Most rounds.
pub(crate) const ROUNDS_MAX: u8 = 3;
/// Steps of the counter that are tried, those behind it last: other hosts only ever move it on, but the checks may have
/// overtaken the probe.
const WINDOW: [i32; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, -1, -2];
/// Steps where both count: once one is off by one, so are all that follow.
const WINDOW_BOTH: usize = 2;
/// A counter that moves by more steps in a round is not worth another one.
const RUSH: i32 = 80;
/// A list of ports is sent to at these times, in milliseconds.
const WAVES_MS: [u64; 4] = [0, 150, 500, 1_200];
/// RFC 6056 §3.2: the ports below are the system's; a counter that gets past the last goes on with this one.
const PORT_MIN: i32 = 1_024;

/// The ports that a counter gives out around its newest.
pub(crate) fn window(newest: u16, step: i8) -> impl Iterator<Item = u16> {
    let count = 65_536 - PORT_MIN;
    let from = i32::from(newest) - PORT_MIN;
    WINDOW
        .into_iter()
        .filter_map(move |k| u16::try_from(PORT_MIN + (from + k * i32::from(step)).rem_euclid(count)).ok())
}

/// Packets from one socket to a list of endpoints, in waves.
#[derive(Clone, Debug)]
struct Volley {
    socket: Option<SocketId>,
    targets: ArrayVec<SocketAddr, { WINDOW.len() }>,
    since: Instant,
    wave: usize,
    at: usize,
}

impl Volley {
    fn due(&self) -> Option<Instant> {
        WAVES_MS.get(self.wave).map(|ms| self.since + Duration::from_millis(*ms)).filter(|_| !self.targets.is_empty())
    }

    fn step(&mut self, now: Instant) -> Option<Step> {
        if self.due()? > now {
            return None;
        }
        let to = *self.targets.get(self.at)?;
        self.at += 1;
        if self.at == self.targets.len() {
            (self.at, self.wave) = (0, self.wave + 1);
        }
        Some(Step::Send { socket: self.socket, to })
    }
}

/// One side of a prediction.
#[derive(Clone, Debug)]
pub(crate) struct Predictor {
    own: Option<i8>,
    peer: Option<i8>,
    /// Where the peer is.
    ip: IpAddr,
    /// Its endpoints, where its router does not count.
    endpoints: ArrayVec<SocketAddr, 2>,
    round: u8,
    since: Instant,
    asked: bool,
    socket: Option<SocketId>,
    probed: bool,
    newest: u16,
    /// The newest port of the round before.
    before: u16,
    /// The last round of the peer that was answered with a volley.
    answered: Option<u8>,
    theirs: (u8, u16),
    volley: Option<Volley>,
}

impl Predictor {
    /// The steps of the routers that count, the peer's address, and its endpoints there.
    pub(crate) fn new(
        now: Instant,
        own: Option<i8>,
        peer: Option<i8>,
        ip: IpAddr,
        endpoints: impl Iterator<Item = SocketAddr>,
    ) -> Self {
        Self {
            own,
            peer,
            ip,
            endpoints: endpoints.take(2).collect(),
            round: 0,
            since: now,
            asked: false,
            socket: None,
            probed: false,
            newest: 0,
            before: 0,
            answered: None,
            theirs: (0, 0),
            volley: None,
        }
    }

    /// What the peer is told: the round, and the newest port of our router in it; 0 if it does not count, or is not
    /// known yet.
    pub(crate) const fn told(&self) -> (u8, u16) {
        (self.round, self.newest)
    }

    /// The peer told the same.
    pub(crate) fn on_told(&mut self, now: Instant, round: u8, newest: u16) {
        if round >= ROUNDS_MAX || round < self.theirs.0 {
            return;
        }
        self.theirs = (round, newest);
        if round > self.round && self.own.is_some() {
            self.begin(now, round);
        }
        self.answer(now);
    }

    /// A fresh socket is there; false if it is not wanted.
    pub(crate) fn on_socket(&mut self, socket: SocketId) -> bool {
        let wanted = self.asked && self.socket.is_none();
        if wanted {
            self.socket = Some(socket);
        }
        wanted
    }

    /// Our home saw the fresh socket at this port.
    pub(crate) fn on_seen(&mut self, now: Instant, socket: SocketId, port: u16) {
        if self.socket == Some(socket) && self.newest == 0 {
            self.newest = port;
            self.answer(now);
        }
    }

    /// Whether other hosts move our counter too fast.
    pub(crate) fn rushes(&self) -> bool {
        let step = i32::from(self.own.unwrap_or(1));
        let moved = (i32::from(self.newest) - i32::from(self.before)) * step.signum();
        self.before != 0 && self.newest != 0 && moved.rem_euclid(65_536 - PORT_MIN) > RUSH * step.abs()
    }

    fn begin(&mut self, now: Instant, round: u8) {
        (self.round, self.since, self.before) = (round, now, self.newest);
        (self.asked, self.socket, self.probed, self.newest) = (false, None, false, 0);
        self.volley = None;
    }

    /// Sends to the peer's next ports, once per round of the peer.
    fn answer(&mut self, now: Instant) {
        let Some(step) = self.peer else { return };
        let (round, newest) = self.theirs;
        let both = self.own.is_some();
        if newest == 0 || self.answered == Some(round) || (both && (round != self.round || self.newest == 0)) {
            return;
        }
        self.answered = Some(round);
        let most = if both { WINDOW_BOTH } else { WINDOW.len() };
        let targets = window(newest, step).take(most).map(|port| SocketAddr::new(self.ip, port)).collect();
        self.volley = Some(Volley { socket: self.socket, targets, since: now, wave: 0, at: 0 });
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        if self.rushes() {
            return None;
        }
        if self.own.is_some() {
            if now >= self.since + ROUND && self.round + 1 < ROUNDS_MAX {
                self.begin(now, self.round + 1);
                return Some(Step::Tell);
            }
            if !self.asked {
                self.asked = true;
                return Some(Step::Open);
            }
            if let Some(socket) = self.socket.filter(|_| !self.probed) {
                self.probed = true;
                if self.peer.is_none() {
                    let targets = self.endpoints.iter().copied().collect();
                    self.volley = Some(Volley { socket: Some(socket), targets, since: now, wave: 0, at: 0 });
                }
                return Some(Step::Probe { socket });
            }
        }
        self.volley.as_mut()?.step(now)
    }

    /// When there is something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next_round = (self.own.is_some() && self.round + 1 < ROUNDS_MAX).then_some(self.since + ROUND);
        crate::time::earliest(next_round, self.volley.as_ref().and_then(Volley::due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn ports(steps: &[Step]) -> Vec<u16> {
        let port = |step: &Step| match step {
            Step::Send { to, .. } => Some(to.port()),
            _ => None,
        };
        steps.iter().filter_map(port).collect()
    }

    fn drain(p: &mut Predictor, ms: u64) -> Vec<Step> {
        core::iter::from_fn(|| p.step(at(ms))).collect()
    }

    #[test]
    fn the_window_goes_on_behind_the_last_port() {
        let up: Vec<u16> = window(65_534, 1).collect();
        assert_eq!(up[..4], [65_535, 1_024, 1_025, 1_026]);
        assert_eq!(up[12..], [65_534, 65_533, 65_532]);
        let down: Vec<u16> = window(1_025, -2).collect();
        assert_eq!(down[..3], [65_535, 65_533, 65_531]);
    }

    #[test]
    fn the_probe_is_followed_at_once_by_the_checks() {
        let endpoint = SocketAddr::new(IP, 9);
        let mut p = Predictor::new(at(0), Some(1), None, IP, [endpoint].into_iter());
        assert_eq!(drain(&mut p, 0), [Step::Open]);
        let socket = SocketId(7);
        assert!(p.on_socket(socket) && !p.on_socket(SocketId(8)));
        let check = Step::Send { socket: Some(socket), to: endpoint };
        assert_eq!(drain(&mut p, 0), [Step::Probe { socket }, check]);
        p.on_seen(at(40), SocketId(8), 1);
        assert_eq!(p.told(), (0, 0), "another socket");
        p.on_seen(at(40), socket, 5_000);
        assert_eq!(p.told(), (0, 5_000));
        let all: usize = (1..2_000).map(|ms| drain(&mut p, ms).len()).sum();
        assert_eq!(all, WAVES_MS.len() - 1);
        assert_eq!(drain(&mut p, 2_000), [Step::Tell, Step::Open], "another round");
        assert_eq!(p.told(), (1, 0));
    }

    #[test]
    fn the_other_side_sends_to_a_window_once_per_round() {
        let mut p = Predictor::new(at(0), None, Some(2), IP, core::iter::empty());
        assert_eq!((drain(&mut p, 0), p.poll_timeout()), (vec![], None));
        p.on_told(at(50), 0, 0);
        assert_eq!(drain(&mut p, 50), []);
        p.on_told(at(60), 0, 5_000);
        let first = ports(&drain(&mut p, 60));
        assert_eq!((first[0], first.len()), (5_002, 15));
        p.on_told(at(70), 0, 5_000);
        assert_eq!(drain(&mut p, 70), [], "told again");
        assert_eq!(ports(&drain(&mut p, 60 + 150)), first);
        p.on_told(at(2_100), 1, 6_000);
        assert_eq!(ports(&drain(&mut p, 2_100))[0], 6_002);
        p.on_told(at(2_200), 0, 5_000);
        p.on_told(at(2_200), 9, 5_000);
        assert_eq!(p.theirs, (1, 6_000), "an old round, and one too many");
    }

    #[test]
    fn where_both_count_nothing_is_sent_before_both_have_told() {
        let mut p = Predictor::new(at(0), Some(1), Some(-1), IP, [SocketAddr::new(IP, 9)].into_iter());
        assert_eq!(drain(&mut p, 0), [Step::Open]);
        p.on_socket(SocketId(7));
        assert_eq!(drain(&mut p, 0), [Step::Probe { socket: SocketId(7) }]);
        p.on_told(at(30), 0, 9_000);
        assert_eq!(drain(&mut p, 30), []);
        p.on_seen(at(40), SocketId(7), 5_000);
        let sent = drain(&mut p, 40);
        assert!(sent.iter().all(|s| matches!(s, Step::Send { socket: Some(SocketId(7)), .. })));
        assert_eq!(ports(&sent), [8_999, 8_998]);
        // The peer is a round ahead: we follow with a fresh socket.
        p.on_told(at(1_500), 1, 9_100);
        assert_eq!(drain(&mut p, 1_500), [Step::Open]);
        p.on_socket(SocketId(8));
        assert_eq!(drain(&mut p, 1_500), [Step::Probe { socket: SocketId(8) }]);
        p.on_seen(at(1_540), SocketId(8), 5_100);
        assert_eq!(ports(&drain(&mut p, 1_540)), [], "a hundred ports in a second and a half");
        assert!(p.rushes());
    }

    #[test]
    fn a_counter_that_wraps_or_counts_down_is_not_taken_for_one_that_rushes() {
        for (step, from, to, rushes) in [
            (1, 65_530, 1_030, false),
            (1, 2_000, 2_080, false),
            (1, 2_000, 2_081, true),
            (-2, 1_030, 65_530, false),
            (-2, 5_000, 4_840, false),
            (-2, 5_000, 4_838, true),
            (2, 5_000, 4_998, true),
        ] {
            let mut p = Predictor::new(at(0), Some(step), None, IP, core::iter::empty());
            (p.before, p.newest) = (from, to);
            assert_eq!(p.rushes(), rushes, "{step}: {from} to {to}");
        }
    }
}
