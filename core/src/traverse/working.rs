//! The efforts of a [`Traversal`]: how they begin, what each of their steps takes, and what is taken back at the end:
//! the node's one place for a birthday, and the sockets, but those that a path goes through. These live as long as
//! their path.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use super::case::{Case, Output};
use super::effort::Effort;
use super::step::Step;
use super::strategy::Strategy;
use super::target::{Target, retry_wait};
use super::traversal::Traversal;
use crate::net::{Path, PeerKey, SocketId};
use crate::path::Route;
use crate::peer::LinkUse;
use crate::time::Instant;
use crate::wire::message::Message;

/// A socket whose path is not in use and was not heard on for so long is closed.
const SOCKET_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at the sockets of ended efforts.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

impl Target {
    /// Sockets that are still open are looked at later.
    pub(super) fn sweep_later(&mut self, now: Instant) {
        self.sweep = (!self.sockets.is_empty()).then_some(now + SWEEP_EVERY);
    }

    /// Whether an effort with this strategy is worth beginning.
    fn wants_effort(&self, strategy: Strategy) -> bool {
        let attempt = self.attempt;
        // Evidence helps where the budget holds.
        let is_plain_first = strategy == Strategy::Plain && attempt == 0 && self.held.is_none();
        let is_tried = self.tried.is_some_and(|tried| tried >= attempt && attempt != u8::MAX);
        !self.whereabouts.candidates.is_empty()
            && !matches!(strategy, Strategy::RelayOnly(_))
            && !is_plain_first
            && !is_tried
            && !self.effort.as_ref().is_some_and(|effort| effort.attempt() >= attempt || effort.is_at_work())
    }
}

impl Traversal {
    /// Begins what this attempt takes beyond checks, if it takes anything.
    pub(super) fn start_effort(&mut self, case: &mut Case<'_>) {
        let strategy = self.strategy(case.key, case.now, &case.peer, &case.around);
        let random = self.choices.u64();
        if !case.peer.is_up || case.peer.paths.has_direct() {
            return;
        }
        if !self.existing(case.key).is_some_and(|target| target.wants_effort(strategy)) {
            return;
        }
        self.end_effort(case);
        let Some(target) = self.existing(case.key) else { return };
        let (attempt, candidates) = (target.attempt, &target.whereabouts.candidates);
        target.effort = Some(Effort::new(case.now, strategy, attempt, case.around.voucher(), candidates, random));
        self.run_effort(case);
    }

    /// Does what is due.
    pub(crate) fn run_effort(&mut self, case: &mut Case<'_>) {
        loop {
            let Some(effort) = self.effort_of(case.key) else { return };
            if case.peer.paths.has_direct() {
                return self.end_effort(case);
            }
            let Some(step) = effort.step(case.now) else { return };
            if !self.take_step(case, step) {
                return self.end_effort(case);
            }
        }
    }

    /// Takes one step; false if the effort is over with it.
    fn take_step(&mut self, case: &mut Case<'_>, step: Step) -> bool {
        let (now, peer) = (case.now, case.key);
        let Some(target) = self.existing(peer) else { return false };
        let Some(effort) = target.effort.as_mut() else { return false };
        match step {
            Step::Tell => {
                let message = Message::Punch(effort.told());
                self.outputs.push_back(Output::Send { peer, message });
            }
            Step::Reserve(ip) => {
                let strategy = effort.strategy();
                let granted = self.reserve(case, strategy, ip);
                if let Some(effort) = self.effort_of(peer) {
                    effort.on_reserved(now, granted);
                }
            }
            Step::Open => self.outputs.push_back(Output::Open { peer }),
            Step::Probe { socket } => {
                if let Some((home, remote)) = case.around.prober() {
                    let path = Path { socket, remote, local: None };
                    let token = self.keys.bytes();
                    self.outputs.push_back(Output::Probe { home, path, token });
                }
            }
            Step::Send { socket, to } => {
                let Some(socket) = socket.or_else(|| case.network.socket_for(to)) else { return true };
                if !target.exposure.is_attested(now, to.ip()) {
                    // It was, but is no longer known to be there: what is many goes nowhere else.
                    return false;
                }
                let token = self.keys.bytes();
                self.outputs.push_back(Output::Check { peer, socket, remote: to, token });
            }
            Step::Over => {
                let should_have_worked = effort.is_at_work();
                target.tried = Some(target.attempt);
                target.retry = target.retry.map(|(_, tries)| (now + retry_wait(tries), tries));
                if should_have_worked {
                    self.outputs.push_back(Output::Disagreement);
                }
                return false;
            }
        }
        true
    }

    /// Whether many packets may go to an address now.
    fn reserve(&mut self, case: &mut Case<'_>, strategy: Strategy, ip: IpAddr) -> bool {
        match strategy {
            Strategy::Plain | Strategy::RelayOnly(_) => true,
            Strategy::Predict { .. } => case.account.take_prediction(case.now, ip),
            Strategy::Guess { .. } | Strategy::Hold { .. } => {
                // Behind our own router there is nothing to guess: what a hairpin takes is known.
                let is_own = case.around.reflexive.iter().any(|own| own.ip() == ip);
                // The application goes before strangers.
                let guest = self
                    .birthday
                    .filter(|(_, held_for)| *held_for == LinkUse::Leg && case.peer.link_use == LinkUse::User);
                let is_free = self.birthday.is_none() || guest.is_some();
                let granted = is_free && !is_own && case.account.take_birthday(case.now, ip);
                if granted {
                    guest.and_then(|(guest, _)| self.effort_of(guest)).into_iter().for_each(|e| e.give_up(case.now));
                    self.birthday = Some((case.key, case.peer.link_use));
                }
                granted
            }
        }
    }

    /// The effort is over, in vain or not: its place is free, and sockets that nothing came through are closed.
    fn end_effort(&mut self, case: &Case<'_>) {
        let Some(target) = self.existing(case.key).filter(|target| target.effort.is_some()) else { return };
        target.effort = None;
        target.sweep = Some(case.now + SWEEP_EVERY);
        let used: BTreeSet<SocketId> = case.peer.paths.routes().filter_map(socket_of).collect();
        let unused = keep(&mut target.sockets, |socket| used.contains(socket));
        self.end_birthday(case.key);
        self.close(unused);
    }

    /// Closes the sockets of ended efforts that no living path goes through.
    pub(crate) fn handle_sweep(&mut self, case: &mut Case<'_>) {
        let now = case.now;
        let paths = case.peer.paths;
        let Some(target) = self.existing(case.key).filter(|t| t.sweep.is_some_and(|at| at <= now)) else { return };
        let is_working = target.effort.is_some();
        let current = paths.current();
        let lives = |route: &Route| {
            let heard = paths.heard_at(route).is_some_and(|at| now.since(at) < SOCKET_SILENCE_MAX);
            current == Some(*route) || heard
        };
        let used: BTreeSet<SocketId> = paths.routes().filter(lives).filter_map(socket_of).collect();
        let unused = keep(&mut target.sockets, |socket| is_working || used.contains(socket));
        target.sweep_later(now);
        self.close(unused);
    }

    /// A socket for an effort was opened, or could not be; false if it is not wanted any more. To be followed by
    /// [`Self::run_effort`].
    pub(crate) fn on_socket(&mut self, key: PeerKey, socket: Option<SocketId>) -> bool {
        let Some(target) = self.existing(key) else { return false };
        let is_wanted = target.effort.as_mut().is_some_and(|effort| effort.on_socket(socket));
        target.sockets.extend(socket.filter(|_| is_wanted));
        is_wanted
    }

    /// A home of ours sees a socket of an effort there.
    pub(crate) fn on_seen(&mut self, case: &mut Case<'_>, socket: SocketId, seen: SocketAddr) {
        let now = case.now;
        let Some(effort) = self.effort_of(case.key) else { return };
        effort.on_seen(now, socket, seen.port());
        if effort.rushes() {
            self.counter_rushed = Some(now);
        }
        self.run_effort(case);
    }

    pub(super) fn effort_of(&mut self, key: PeerKey) -> Option<&mut Effort> {
        self.existing(key)?.effort.as_mut()
    }
}

/// Takes those out that are not to be kept.
fn keep(sockets: &mut BTreeSet<SocketId>, is_kept: impl Fn(&SocketId) -> bool) -> BTreeSet<SocketId> {
    let (kept, others) = core::mem::take(sockets).into_iter().partition(is_kept);
    *sockets = kept;
    others
}

fn socket_of(route: Route) -> Option<SocketId> {
    match route {
        Route::Direct { socket, .. } => Some(socket),
        Route::Relayed { .. } => None,
    }
}
