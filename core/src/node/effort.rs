//! Efforts to become direct that take more than checks: what the node does for a [`punch::Effort`].
//!
//! [`Node::start_effort`] begins one when both sides' whereabouts are known, [`Node::run_effort`] carries out its steps,
//! and [`Node::end_effort`] takes back what it took: the node's one place for a birthday, and the sockets, but those that
//! a path goes through. These live as long as their path ([`Node::sweep_punch_sockets`]).
//!
//! The other half of this file is the evidence that a peer is where its packets are to go: a peer that is asked to has a
//! supernode say where it sees it, and only to the leaf that asked.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use super::Node;
use super::sockets::Purpose;
use super::traverse::retry_wait;
use crate::api::RelayReason;
use crate::identity::PeerId;
use crate::net::{Family, Path, PeerKey, SocketId, SocketKind};
use crate::path::Route;
use crate::peer::Standing;
use crate::time::Instant;
use crate::traverse::{self, Effort, Step, Strategy};
use crate::wire::address::Address;
use crate::wire::message::{Message, PunchState};
use crate::wire::nat::{NatProfile, PortAssignment};

/// A socket whose path is not in use and was not heard on for so long is closed.
const SOCKET_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Sockets of ended efforts are looked at so often.
const SWEEP_EVERY: Duration = Duration::from_secs(20);
/// A supernode is asked to vouch for us once in this, for one peer.
const VOUCH_EVERY: Duration = Duration::from_millis(400);
/// Another supernode is dialled on a peer's word once in this.
const DIAL_EVERY: Duration = Duration::from_secs(5);
/// What a dial may cost an address that the peer named: three Inits, each this long at most.
const DIAL_PACKETS: u8 = 3;
const DIAL_BYTES: u16 = 3 * 224;
/// A counter that rushed is looked at again after this.
const RUSH_AGE_MAX: Duration = Duration::from_secs(1_800);

impl Node {
    /// What is known of our router, as peers are told: a counter that others move on too fast is as good as none.
    pub(crate) fn nat_profile(&self) -> NatProfile {
        let mut profile = self.examined_profile();
        let rushed = self.counter_rushed.is_some_and(|at| self.now.since(at) < RUSH_AGE_MAX);
        if rushed && matches!(profile.ports, PortAssignment::Sequential { .. }) {
            profile.ports = PortAssignment::Random;
        }
        profile.udp_blocked = self.udp_works() == Some(false);
        profile
    }

    /// What this attempt with a peer asks for.
    pub(crate) fn strategy_of(&self, key: PeerKey) -> Option<Strategy> {
        let peer = self.peers.get(key)?;
        let traffic = peer.traffic.as_ref()?;
        let controls = self.me.id() < peer.id;
        Some(traverse::choose(&self.nat_profile(), &traffic.whereabouts.nat, traffic.attempt, controls))
    }

    /// Begins what this attempt takes beyond checks, if it takes anything.
    pub(crate) fn start_effort(&mut self, now: Instant, key: PeerKey) {
        let Some(strategy) = self.strategy_of(key) else { return };
        let home = self.own_homes().into_iter().find(|(id, at)| at.is_ipv4() && self.peers.up_key(id).is_some());
        let random = self.rng.traverse_ids.u64();
        let Some(peer) = self.peers.get_mut(key).filter(|p| p.is_up() && !p.paths.has_direct()) else { return };
        let Some(traffic) = peer.traffic.as_mut() else { return };
        let attempt = traffic.attempt;
        let is_plain_first = strategy == Strategy::Plain && attempt == 0;
        let is_tried = traffic.tried.is_some_and(|tried| tried >= attempt && attempt != u8::MAX);
        if traffic.standing != Standing::Accepted
            || traffic.whereabouts.candidates.is_empty()
            || matches!(strategy, Strategy::RelayOnly(_))
            || is_plain_first
            || is_tried
            || traffic.effort.as_ref().is_some_and(|e| e.attempt() >= attempt || e.is_at_work())
        {
            return;
        }
        self.end_effort(now, key);
        let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) else { return };
        let candidates = &traffic.whereabouts.candidates;
        traffic.effort = Some(Box::new(Effort::new(now, strategy, attempt, home, candidates, random)));
        self.run_effort(now, key);
    }

    /// Does what is due.
    pub(crate) fn run_effort(&mut self, now: Instant, key: PeerKey) {
        self.peers.touch(key);
        loop {
            let Some(peer) = self.peers.get_mut(key) else { return };
            let direct = peer.paths.has_direct();
            let Some(traffic) = peer.traffic.as_mut() else { return };
            let Some(effort) = traffic.effort.as_mut() else { return };
            if direct {
                return self.end_effort(now, key);
            }
            let Some(step) = effort.step(now) else { return };
            match step {
                Step::Tell => {
                    let state = effort.told();
                    self.peers.send(key, &Message::Punch(state));
                }
                Step::Reserve(ip) => {
                    let strategy = effort.strategy();
                    let granted = self.reserve(now, key, strategy, ip);
                    if let Some(effort) = self.effort_of(key) {
                        effort.on_reserved(now, granted);
                    }
                }
                Step::Open => {
                    if self.open_socket(Purpose::Punch(key), SocketKind::Udp(Family::V4)).is_none()
                        && let Some(effort) = self.effort_of(key)
                    {
                        effort.on_socket(None);
                    }
                }
                Step::Probe { socket } => self.probe_home(now, socket),
                Step::Send { socket, to } => {
                    let Some(socket) = socket.or_else(|| self.socket_for(to)) else { continue };
                    if !self.is_attested(now, key, to.ip()) {
                        // It was, but is no longer known to be there: what is many goes nowhere else.
                        return self.end_effort(now, key);
                    }
                    let token = self.rng.traverse.bytes();
                    let route = Route::Direct { socket, remote: to };
                    self.peers.send_on(key, Some(route), &Message::sample(token, Some(to)), false);
                }
                Step::Over => {
                    let should_have_worked = effort.is_at_work();
                    traffic.tried = Some(traffic.attempt);
                    traffic.retry = traffic.retry.map(|(_, tries)| (now + retry_wait(tries), tries));
                    if should_have_worked {
                        self.on_disagreement(now);
                    }
                    return self.end_effort(now, key);
                }
            }
        }
    }

    fn effort_of(&mut self, key: PeerKey) -> Option<&mut Effort> {
        self.peers.get_mut(key)?.traffic.as_mut()?.effort.as_deref_mut()
    }

    /// Whether many packets may go to an address now.
    fn reserve(&mut self, now: Instant, key: PeerKey, strategy: Strategy, ip: IpAddr) -> bool {
        match strategy {
            Strategy::Plain | Strategy::RelayOnly(_) => true,
            Strategy::Predict { .. } => self.account.take_prediction(now, ip),
            Strategy::Guess { .. } | Strategy::Hold { .. } => {
                // Behind our own router there is nothing to guess: what a hairpin takes is known.
                let is_own = self.reflexive().iter().any(|own| own.ip() == ip);
                let granted = self.birthday.is_none() && !is_own && self.account.take_birthday(now, ip);
                if granted {
                    self.birthday = Some(key);
                }
                granted
            }
        }
    }

    /// The effort is over, in vain or not: its place is free, and sockets that nothing came through are closed.
    pub(crate) fn end_effort(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(traffic) = peer.traffic.as_mut() else { return };
        if traffic.effort.take().is_none() {
            return;
        }
        traffic.sweep = Some(now + SWEEP_EVERY);
        let used: BTreeSet<SocketId> = peer.paths.routes().filter_map(socket_of).collect();
        self.birthday = self.birthday.filter(|holder| *holder != key);
        self.peers.touch(key);
        let unused = self.punch_sockets(key).filter(|socket| !used.contains(socket)).collect();
        self.close_sockets(now, &unused);
    }

    /// The link is gone, and all that was tried for it.
    pub(crate) fn forget_effort(&mut self, now: Instant, key: PeerKey) {
        self.birthday = self.birthday.filter(|holder| *holder != key);
        let all = self.punch_sockets(key).collect();
        self.close_sockets(now, &all);
    }

    /// The link is another one to the same peer. What was tried for the old one is over, but the new one may go through
    /// a socket of it.
    pub(crate) fn restart_effort(&mut self, now: Instant, key: PeerKey) {
        self.birthday = self.birthday.filter(|holder| *holder != key);
        let has_sockets = self.punch_sockets(key).next().is_some();
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.effort = None;
            traffic.sweep = has_sockets.then_some(now + SWEEP_EVERY);
        }
    }

    fn punch_sockets(&self, key: PeerKey) -> impl Iterator<Item = SocketId> + '_ {
        self.sockets.of(Purpose::Punch(key)).map(|(socket, _)| socket)
    }

    /// Closes the sockets of ended efforts that no living path goes through.
    pub(crate) fn sweep_punch_sockets(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(traffic) = peer.traffic.as_mut().filter(|t| t.sweep.is_some_and(|at| at <= now)) else { return };
        let is_working = traffic.effort.is_some();
        traffic.sweep = None;
        let current = peer.paths.current();
        let lives = |route: &Route| {
            let heard = peer.paths.heard_at(route).is_some_and(|at| now.since(at) < SOCKET_SILENCE_MAX);
            current == Some(*route) || heard
        };
        let used: BTreeSet<SocketId> = peer.paths.routes().filter(lives).filter_map(socket_of).collect();
        let (kept, unused): (BTreeSet<_>, BTreeSet<_>) =
            self.punch_sockets(key).partition(|socket| is_working || used.contains(socket));
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.sweep = (!kept.is_empty()).then_some(now + SWEEP_EVERY);
        }
        self.peers.touch(key);
        self.close_sockets(now, &unused);
    }

    /// A socket for an effort was opened, or could not be.
    pub(crate) fn on_punch_socket(&mut self, now: Instant, key: PeerKey, socket: Option<SocketId>) {
        let wanted = self.effort_of(key).is_some_and(|effort| effort.on_socket(socket));
        if let Some(socket) = socket.filter(|_| !wanted) {
            self.close_socket(now, socket);
        }
        self.run_effort(now, key);
    }

    /// Asks a home where it sees a fresh socket.
    fn probe_home(&mut self, now: Instant, socket: SocketId) {
        let home = self.direct_homes().find(|(.., remote)| remote.is_ipv4());
        if let Some((home, _, remote)) = home {
            let token = self.rng.traverse.bytes();
            self.send_probe(now, home, Path { socket, remote, local: None }, token, Duration::ZERO, false);
        }
    }

    /// A supernode answered that. Whether this probe was an effort's.
    pub(crate) fn on_punch_seen(&mut self, now: Instant, home: PeerKey, socket: SocketId, seen: SocketAddr) -> bool {
        let Some(Purpose::Punch(key)) = self.sockets.purpose(socket) else { return false };
        if self.peers.get(home).is_some_and(|p| p.wanted)
            && let Some(effort) = self.effort_of(key)
        {
            effort.on_seen(now, socket, seen.port());
            if effort.rushes() {
                self.counter_rushed = Some(now);
            }
            self.run_effort(now, key);
        }
        true
    }

    /// The peer tells how far it is.
    pub(crate) fn on_punch(&mut self, now: Instant, key: PeerKey, state: &PunchState) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(traffic) = peer.traffic.as_mut().filter(|t| t.standing == Standing::Accepted) else { return };
        if peer.paths.has_direct() {
            return;
        }
        traffic.attempt = traffic.attempt.max(state.attempt);
        if let Some((home, address)) = state.vouch {
            self.be_vouched_for(now, key, home, address.into());
        }
        self.start_effort(now, key);
        if let Some(effort) = self.effort_of(key) {
            effort.on_told(now, state);
            self.run_effort(now, key);
        }
    }

    // ---- evidence ----

    /// Whether the peer is known to be at this address: it answered from there, or a home of ours said so.
    pub(crate) fn is_attested(&self, now: Instant, key: PeerKey, ip: IpAddr) -> bool {
        let traffic = self.peers.get(key).and_then(|p| p.traffic.as_ref());
        traffic.is_some_and(|t| t.exposure.is_attested(now, ip))
    }

    /// The peer wants a supernode's word on where we are.
    fn be_vouched_for(&mut self, now: Instant, key: PeerKey, home: PeerId, address: SocketAddr) {
        let up = self.peers.up_key(&home);
        // One that we have heard from there is nobody's victim: it may be asked again within the ten minutes.
        let socket = self.socket_for(address);
        let has_answered = socket.is_some_and(|socket| self.seen_from(&home, address, socket).is_some());
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        let Some(traffic) = peer.traffic.as_mut() else { return };
        let last = traffic.vouched;
        let wait = if up.is_some() { VOUCH_EVERY } else { DIAL_EVERY };
        // One that has come up since it was dialled has got what waited for it.
        if last.is_some_and(|(asked, at)| now.since(at) < if asked == home { wait } else { DIAL_EVERY }) {
            return;
        }
        let to = if let Some(home) = up {
            home
        } else {
            // The one account outlives the link, the other one counts more closely.
            if !self.account.take_attempt(now, address)
                || !(has_answered || traffic.exposure.admit(now, address.ip(), DIAL_PACKETS, DIAL_BYTES))
            {
                return;
            }
            let Some(home) = self.dial(now, home, address, None) else { return };
            home
        };
        if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
            traffic.vouched = Some((home, now));
        }
        if let Some(home) = self.peers.get_mut(to) {
            home.needed = now;
        }
        self.peers.send(to, &Message::Vouch { peer: id });
    }

    /// A peer of a leaf of ours wants us to tell the leaf where we see it.
    pub(crate) fn on_vouch(&mut self, now: Instant, from: PeerKey, id: &PeerId, leaf: PeerId) {
        if !self.is_serving() || !self.is_registered(&leaf) {
            return;
        }
        let Some(Route::Direct { remote, .. }) = self.peers.get(from).and_then(|p| p.paths.current()) else { return };
        let Some(to) = self.peers.up_key(&leaf) else { return };
        if self.duties.admit(now, leaf, Some(remote)) {
            self.peers.send(to, &Message::Vouched { peer: *id, address: Address::from(remote) });
        }
    }

    /// A home of ours tells where it sees a peer that we asked about.
    pub(crate) fn on_vouched(&mut self, now: Instant, home: PeerKey, id: PeerId, address: SocketAddr) {
        // Only the word of a supernode that we chose counts.
        let Some(home) = self.peers.get(home).filter(|p| p.wanted).map(|p| p.id) else { return };
        let Some(key) = self.peers.key_of(&id) else { return };
        let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) else { return };
        let Some(effort) = traffic.effort.as_mut().filter(|e| e.asks(&home) && address.is_ipv4()) else { return };
        let ip = address.ip();
        traffic.exposure.attest(now, ip);
        let is_news = effort.on_attested(ip);
        if is_news
            && effort.strategy() == Strategy::Plain
            && self.account.take_attempt(now, address)
            && let Some(checks) = traffic.checks.as_mut()
        {
            let keys = &mut self.rng.traverse;
            checks.restart(now, ip, || keys.bytes());
            self.run_checks(now, key);
        }
        self.run_effort(now, key);
    }

    /// Why a link is relayed, if it is.
    pub(crate) fn relay_reason(&self, key: PeerKey) -> Option<RelayReason> {
        let peer = self.peers.get(key)?;
        let traffic = peer.traffic.as_ref()?;
        if peer.paths.current()?.is_direct() {
            return None;
        }
        if traffic.standing != Standing::Accepted {
            return Some(RelayReason::Refused);
        }
        if traffic.whereabouts.candidates.is_empty() {
            return Some(RelayReason::NotTriedYet);
        }
        match self.strategy_of(key)? {
            Strategy::RelayOnly(why) => Some(why),
            _ if traffic.effort.is_some() || traffic.checks.is_some() => Some(RelayReason::Trying),
            _ => Some(RelayReason::TriedInVain),
        }
    }
}

fn socket_of(route: Route) -> Option<SocketId> {
    match route {
        Route::Direct { socket, .. } => Some(socket),
        Route::Relayed { .. } => None,
    }
}
