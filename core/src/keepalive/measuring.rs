//! When the router's memory is measured, what came out per network, and the pace of beats that follows.
//!
//! A leaf that has a home and is behind something measures through that home: [`Lifetime`] says what to send, this
//! decides when, through whom, and what becomes of the result. It sets the [`Pace`] of all beats and is kept for the
//! network that the leaf is in, so that coming back there costs nothing. It is checked daily, and measured anew when
//! the home is heard to see us elsewhere although our network is the same: then the router had forgotten us.
//!
//! Where supernodes see our own address, or one that is mapped to us, and packets come in that nobody asked for,
//! nothing forgets us and nothing is measured.
//!
//! A life: at rest until a home takes us ([`Measuring::on_home`]) or the network changes; [`SETTLE`] later it looks
//! where the home sees us ([`View`]), and measures, or takes what it knows of this [`Place`]. One measurement runs at a
//! time. When it ends the next one is due much later. [`Measuring::poll_output`] says what is to be done, until it says
//! nothing.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::lifetime::{Do, Lifetime, Measured};
use super::place::Place;
use super::{Duty, PROOF_AGE_MAX, Pace};
use crate::api::{BINDINGS_MAX, Save, keep_of_network};
use crate::net::{Family, Path, PeerKey, SocketId, SocketRequest};
use crate::queue;
use crate::random::{ChoiceRng, KeyRng, Seed};
use crate::time::{Instant, earliest};

/// A home was found: the measurement waits until its link is at rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Where our own address is seen, a dial-back has yet to show whether packets come in: a wait for it, and most of them.
const DIAL_BACK_WAIT: (Duration, u8) = (Duration::from_secs(10), 6);
/// What is known is looked at again after this, and as much again at random.
const CHECK_AFTER: Duration = Duration::from_secs(12 * 3_600);
/// Where no router is to be measured, this is looked at again: mappings come and go.
const OPEN_CHECK_AFTER: Duration = Duration::from_secs(3_600);
/// A measurement failed: the next one waits this long, and doubles it to a day.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// A router that forgets, or is restarted, more often than this is measured no sooner.
const MISS_EVERY: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// io is to open a socket of this family: [`Measuring::on_asked`] wants its number.
    Open(Family),
    /// A probe is to leave, over the link to a home but by this path.
    Probe {
        /// The home.
        home: PeerKey,
        /// From where to where.
        from: Path,
        /// Comes back in the answer.
        token: [u8; 8],
        /// When the home is to answer.
        delay: Duration,
    },
    /// A socket has served.
    Close(SocketId),
    /// Beats leave at this pace from now on.
    SetPace(Pace),
    /// A home is to be asked where it sees us.
    Challenge {
        /// The home.
        home: PeerKey,
        /// From this socket.
        socket: SocketId,
        /// To there.
        remote: SocketAddr,
    },
    /// What is to be kept for the next run.
    Save(Save),
}

/// A home that could help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    /// Whose link.
    pub(crate) key: PeerKey,
    /// The main socket that it goes through.
    pub(crate) socket: SocketId,
    /// Where the home is.
    pub(crate) remote: SocketAddr,
    /// Where it sees us, if that is remembered.
    pub(crate) place: Option<Place>,
}

/// How things stand at the moment of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    /// A home that is linked directly, over a main socket.
    pub(crate) home: Option<Home>,
    /// Whether the link to [`Measuring::helper`] is up.
    pub(crate) is_helper_up: bool,
    /// Whether this node serves others: then it needs no binding.
    pub(crate) is_serving: bool,
    /// Whether packets come in that nobody asked for, if a dial-back has shown that.
    pub(crate) is_reachable: Option<bool>,
}

impl View {
    fn place(&self) -> Option<Place> {
        self.home?.place
    }
}

/// A measurement under way.
#[derive(Debug)]
struct Running {
    home: PeerKey,
    remote: SocketAddr,
    lifetime: Lifetime,
}

/// The measurement under way or due, and how long the routers of networks seen keep a binding.
pub(crate) struct Measuring {
    keys: KeyRng,
    jitter: ChoiceRng,
    pace: Pace,
    known: Option<Duration>,
    running: Option<Box<Running>>,
    /// Something happened to it since it was last asked what to do.
    is_stirred: bool,
    /// It wished for a socket, and waits for the number.
    is_asking: bool,
    due: Option<Instant>,
    waited: u8,
    failed: u8,
    /// When a measurement last began.
    began: Option<Instant>,
    /// By network, in milliseconds, the one used last at the end.
    bindings: Vec<([u8; 8], u32)>,
    is_leaving: bool,
    outputs: VecDeque<Output>,
}

impl Measuring {
    /// With what earlier runs found.
    pub(crate) fn new(seed: &Seed, bindings: &[([u8; 8], u32)]) -> Self {
        Self {
            keys: seed.keys("keepalive"),
            jitter: seed.choices("keepalive"),
            pace: Pace::UNKNOWN,
            known: None,
            running: None,
            is_stirred: false,
            is_asking: false,
            due: None,
            waited: 0,
            failed: 0,
            began: None,
            bindings: bindings[bindings.len().saturating_sub(BINDINGS_MAX)..].to_vec(),
            is_leaving: false,
            outputs: VecDeque::new(),
        }
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    // ---- what is known ----

    /// How long the router keeps a binding, where this node's links need one.
    pub(crate) fn lifetime(&self, own_duty: Duty) -> Option<Duration> {
        self.known.filter(|_| own_duty == Duty::Binding)
    }

    /// After how much silence something leaves at the latest.
    pub(crate) fn interval(&self, own_duty: Duty) -> Duration {
        self.pace.interval().filter(|_| own_duty == Duty::Binding).unwrap_or(PROOF_AGE_MAX)
    }

    /// Whether something between us and the internet may forget us, as far as is known.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        self.pace != Pace::OPEN
    }

    /// The home that a measurement goes through now.
    pub(crate) fn helper(&self) -> Option<PeerKey> {
        self.running.as_ref().map(|running| running.home)
    }

    // ---- what happens ----

    /// Sockets or interfaces changed: this may be another network.
    pub(crate) fn on_network(&mut self, now: Instant) {
        self.stop();
        (self.known, self.began) = (None, None);
        (self.waited, self.failed) = (0, 0);
        self.due = Some(now + SETTLE);
        self.set_pace(Pace::UNKNOWN);
    }

    /// A home took us.
    pub(crate) fn on_home(&mut self, now: Instant) {
        if self.due.is_none() && self.running.is_none() {
            self.due = Some(now + SETTLE);
        }
    }

    /// The router gave us another address, although our network is the same: it had forgotten us.
    pub(crate) fn on_forgotten(&mut self, now: Instant, view: &View) {
        if !self.may_be_forgotten() || self.running.is_some() {
            return;
        }
        self.known = None;
        self.due = Some(self.began.map_or(now, |began| began + MISS_EVERY).max(now + SETTLE));
        self.set_pace(Pace::UNKNOWN);
        if let Some(place) = view.place() {
            self.bindings.retain(|(other, _)| *other != place.network);
        }
    }

    /// This node leaves: no measurement begins any more.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// io was asked for the socket that was wished for, or there is none to be had.
    pub(crate) fn on_asked(&mut self, now: Instant, request: Option<SocketRequest>) {
        self.is_asking = false;
        if let Some(running) = &mut self.running {
            running.lifetime.on_asked(now, request);
        }
    }

    /// io opened a socket for a measurement.
    pub(crate) fn on_socket(&mut self, now: Instant, request: SocketRequest, socket: SocketId) {
        let is_wanted = self.running.as_mut().is_some_and(|r| r.lifetime.on_socket(now, request, socket));
        if !is_wanted {
            self.outputs.push_back(Output::Close(socket));
        }
        self.is_stirred = true;
    }

    /// A home answered a probe; whether it was one of these.
    pub(crate) fn on_reply(&mut self, now: Instant, home: PeerKey, socket: SocketId, token: [u8; 8]) -> bool {
        let running = self.running.as_mut().filter(|r| r.home == home);
        let is_ours = running.is_some_and(|r| r.lifetime.on_reply(now, socket, token));
        self.is_stirred |= is_ours;
        is_ours
    }

    /// What is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, view: &View) {
        if self.due.take_if(|due| *due <= now).is_some() {
            self.begin(now, view);
        }
        if let Some(running) = &mut self.running
            && running.lifetime.poll_timeout().is_some_and(|at| at <= now)
        {
            running.lifetime.handle_timeout(now);
            self.is_stirred = true;
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.due, self.running.as_ref().and_then(|r| r.lifetime.poll_timeout()))
    }

    /// The next thing to be done.
    pub(crate) fn poll_output(&mut self, now: Instant, view: &View) -> Option<Output> {
        loop {
            if let Some(output) = queue::pop(&mut self.outputs, 0) {
                return Some(output);
            }
            if !self.is_stirred || self.is_asking {
                return None;
            }
            let Some(running) = &mut self.running else {
                self.is_stirred = false;
                return None;
            };
            if view.is_serving || !view.is_helper_up {
                // Another home goes on, if there is one.
                self.stop();
                self.due = Some(now + SETTLE);
                continue;
            }
            // Unguessable: an answer made up would lengthen the interval.
            match running.lifetime.poll(now, || self.keys.bytes()) {
                Some(Do::Open) => {
                    self.is_asking = true;
                    return Some(Output::Open(Family::of(&running.remote)));
                }
                Some(Do::Probe { socket, token, delay }) => {
                    let from = Path { socket, remote: running.remote, local: None };
                    return Some(Output::Probe { home: running.home, from, token, delay });
                }
                Some(Do::Close(socket)) => return Some(Output::Close(socket)),
                None => {
                    self.is_stirred = false;
                    self.conclude(now, view);
                }
            }
        }
    }

    // ---- one measurement ----

    /// The time has come to measure, or to check, if there is something to measure and somebody to help.
    fn begin(&mut self, now: Instant, view: &View) {
        if self.is_leaving || self.running.is_some() || view.is_serving {
            return;
        }
        // The next home that takes us begins it otherwise.
        let Some(home) = view.home else { return };
        let Some(place) = home.place else {
            // Others told since, and so many are not remembered. A question tells.
            self.outputs.push_back(Output::Challenge { home: home.key, socket: home.socket, remote: home.remote });
            self.due = Some(now + SETTLE);
            return;
        };
        if place.is_own && view.is_reachable == Some(true) {
            self.known = None;
            self.due = Some(now + OPEN_CHECK_AFTER);
            return self.set_pace(Pace::OPEN);
        }
        if place.is_own && view.is_reachable.is_none() && self.waited < DIAL_BACK_WAIT.1 {
            self.waited += 1;
            self.due = Some(now + DIAL_BACK_WAIT.0);
            return;
        }
        if !self.may_be_forgotten() {
            self.set_pace(Pace::UNKNOWN);
        }
        let kept = self.bindings.iter().find(|(other, _)| *other == place.network);
        let lifetime = match (self.known, kept) {
            (None, Some((_, kept_ms))) => {
                let kept = Duration::from_millis((*kept_ms).into());
                self.known = Some(kept);
                self.set_pace(Pace::for_lifetime(kept));
                return self.check_later(now);
            }
            (Some(known), _) => Lifetime::check(known),
            (None, None) => Lifetime::new(),
        };
        self.began = Some(now);
        self.running = Some(Box::new(Running { home: home.key, remote: home.remote, lifetime }));
        self.is_stirred = true;
    }

    fn check_later(&mut self, now: Instant) {
        self.due = Some(now + CHECK_AFTER + self.jitter.jitter(CHECK_AFTER));
    }

    /// It wants nothing more for now: perhaps it is over.
    fn conclude(&mut self, now: Instant, view: &View) {
        let Some(running) = &self.running else { return };
        match running.lifetime.outcome() {
            None => {
                // While a known value is checked it goes on to hold.
                if self.known.is_none()
                    && let Some(at_least) = running.lifetime.at_least()
                {
                    self.set_pace(Pace::at_least(at_least));
                }
            }
            Some(Measured::Known(lifetime)) => {
                self.running = None;
                (self.known, self.failed) = (Some(lifetime), 0);
                self.set_pace(Pace::for_lifetime(lifetime));
                if let Some(Place { network, .. }) = view.place() {
                    let lifetime_ms = u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX);
                    keep_of_network(&mut self.bindings, network, lifetime_ms);
                    self.outputs.push_back(Output::Save(Save::Binding { network, lifetime_ms }));
                }
                self.check_later(now);
            }
            Some(Measured::Failed) => {
                self.running = None;
                // What was hit is certain, and holds until more is known.
                let wait = RETRY_AFTER * (1 << self.failed.min(7));
                self.failed = self.failed.saturating_add(1);
                self.due = Some(now + wait + self.jitter.jitter(wait / 2));
            }
        }
    }

    fn stop(&mut self) {
        self.is_stirred = false;
        self.is_asking = false;
        if let Some(mut running) = self.running.take() {
            running.lifetime.abort();
            // Nothing is sent any more, so no token is needed.
            while let Some(next) = running.lifetime.poll(Instant::ZERO, || [0; 8]) {
                if let Do::Close(socket) = next {
                    self.outputs.push_back(Output::Close(socket));
                }
            }
        }
    }

    /// All links on which beats leave are looked at anew.
    fn set_pace(&mut self, pace: Pace) {
        if self.pace != pace {
            self.pace = pace;
            self.outputs.push_back(Output::SetPace(pace));
        }
    }
}

#[cfg(test)]
#[path = "measuring_tests.rs"]
mod tests;
