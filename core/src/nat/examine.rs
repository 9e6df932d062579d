//! One examination: which packets are sent, and what comes back of them.
//!
//! Begun with up to three supernodes that links are up to, at most [`PACKETS_MAX`] packets (each of less than 90 bytes,
//! IPv6 and UDP headers included 138), a few seconds, and then [`Examined`]. In order:
//!
//! 1. *Filter*: each is asked, from the main socket and at its usual port, to answer from its alternate port, where the
//!    main socket never sends anything (RFC 5780 §4.4). Up to three times, since the port is opened on first demand.
//! 2. *Mapping*: a second socket sends to each one's usual and alternate port (RFC 5780 §4.3), all within a moment, so
//!    that the external ports come in the router's order.
//! 3. *Fresh*: where that made a single mapping with another port than the internal one, three more sockets make one
//!    each.
//! 4. *Loop*: where each socket has one mapping, the two send to each other's external address (RFC 4787 §6).
//!
//! Without a router in between (the address seen is one's own), and where only filtering was asked for, it ends after
//! the first. The examination is handed answers and time, and says what it wants in [`Ask`]s; it neither chooses the
//! supernodes nor concludes: that is the business of [`Examiner`](super::Examiner) and of
//! [`classify`](super::classify).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use arrayvec::ArrayVec;

use super::classify::{Evidence, Report, Sample, TARGETS_MAX};
use crate::identity::PeerId;
use crate::net::{Family, SocketId};
use crate::random::KeyRng;
use crate::time::Instant;
use crate::wire::address::{canonical, is_sendable};

/// Most packets of one examination. At the limit no more are sent, and it ends with what it has.
pub(crate) const PACKETS_MAX: u8 = 40;
/// What is not answered by then is asked again: a long round trip.
const ROUND: Duration = Duration::from_secs(1);
/// How often for each step.
const FILTER_ROUNDS: u8 = 3;
const MAPPING_ROUNDS: u8 = 2;
const LOOP_ROUNDS: u8 = 2;
/// A router is next door, or the carrier's.
const LOOP_ROUND: Duration = Duration::from_millis(500);
/// More sockets that make one mapping each.
const FRESH_MAX: usize = 3;

/// What the examination wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// A probe over the link to this supernode, from and to these.
    Probe { to: PeerId, from: SocketId, remote: SocketAddr, token: [u8; 8], alternate: bool },
    /// A Loop packet.
    Loop { from: SocketId, remote: SocketAddr, token: [u8; 16] },
    /// Another socket; [`Examination::on_socket`] follows.
    Open(Family),
    /// The end of one.
    Close(SocketId),
}

/// What is to be examined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Subject {
    /// The main socket.
    pub socket: SocketId,
    /// The port that it is bound to.
    pub port: u16,
    /// Addresses that this host has.
    pub own: Vec<IpAddr>,
    /// Whether filtering is all that is asked for.
    pub filter_only: bool,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    pub(super) evidence: Evidence,
    /// Whether something changes our address on the way; none if nobody saw it.
    pub(super) translated: Option<bool>,
    pub(super) hairpinning: Option<bool>,
    /// Where more than half of those who told, and at least one, saw the main socket.
    pub(super) seen: Option<SocketAddr>,
    #[cfg(test)]
    pub(super) packets: u8,
}

impl Examined {
    /// Where more than half of those who told, and at least two, saw the main socket.
    pub(crate) fn seen_by_two(&self) -> Option<SocketAddr> {
        let count = self.evidence.reports.iter().filter(|r| r.main.is_some() && r.main == self.seen).count();
        self.seen.filter(|_| count >= 2)
    }

    /// Whether a packet came in from a port that nothing was sent to; none if nobody could tell.
    pub(crate) fn came_in(&self) -> Option<bool> {
        let came = |wanted| self.evidence.reports.iter().any(|r| r.alternate_came == Some(wanted));
        if came(true) { Some(true) } else { came(false).then_some(false) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Filter(u8),
    Opening,
    Mapping(u8),
    Fresh,
    Loop(u8),
    Done,
}

/// What a probe was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// From the main socket to the usual port, answer from there.
    Plain,
    /// The same, answer from the alternate port.
    Alternate,
    /// From a further socket.
    Mapping { socket: u8, to_alternate: bool, order: u8 },
}

struct Sent {
    token: [u8; 8],
    target: usize,
    purpose: Purpose,
    is_answered: bool,
}

struct Target {
    id: PeerId,
    remote: SocketAddr,
    /// Its alternate port, once it told; 0 if it has none.
    alternate: Option<u16>,
}

/// One examination under way: whom it asks, over which sockets, what it has sent, and the evidence so far.
pub(crate) struct Examination {
    subject: Subject,
    family: Family,
    targets: ArrayVec<Target, TARGETS_MAX>,
    evidence: Evidence,
    /// Number in the order of sending, of each sample.
    orders: ArrayVec<u8, { super::classify::SAMPLES_MAX }>,
    sent: Vec<Sent>,
    sockets: ArrayVec<(SocketId, u16), { FRESH_MAX + 1 }>,
    loops: [[u8; 16]; 2],
    looped: bool,
    phase: Phase,
    due: Instant,
    packets: u8,
}

impl Examination {
    /// Begins with these supernodes, whose links are up and whose addresses are of one family.
    pub(crate) fn new(
        now: Instant,
        subject: Subject,
        supernodes: &[(PeerId, SocketAddr)],
        keys: &mut KeyRng,
        out: &mut Vec<Ask>,
    ) -> Self {
        let targets: ArrayVec<Target, TARGETS_MAX> = supernodes
            .iter()
            .take(TARGETS_MAX)
            .map(|(id, remote)| Target { id: *id, remote: *remote, alternate: None })
            .collect();
        let family = targets.first().map_or(Family::V4, |t| Family::of(&t.remote));
        let reports = targets.iter().map(|t| Report::new(t.remote.ip())).collect();
        let evidence = Evidence { reports, main_port: subject.port, ..Evidence::default() };
        let mut new = Self {
            subject,
            family,
            targets,
            evidence,
            orders: ArrayVec::new(),
            sent: Vec::new(),
            sockets: ArrayVec::new(),
            loops: [keys.bytes(), keys.bytes()],
            looped: false,
            phase: Phase::Filter(0),
            due: now,
            packets: 0,
        };
        new.filter(now, 0, keys, out);
        new
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// An answer to a probe came to socket `at` from `from`. Says whether it was one of these.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        at: SocketId,
        from: SocketAddr,
        token: [u8; 8],
        seen: SocketAddr,
        alternate_port: u16,
    ) -> bool {
        let Some(sent) = self.sent.iter_mut().find(|s| s.token == token) else { return false };
        let (target, purpose) = (sent.target, sent.purpose);
        let Some(t) = self.targets.get_mut(target) else { return true };
        let Some(report) = self.evidence.reports.get_mut(target) else { return true };
        let seen = canonical(seen);
        if !is_sendable(seen) || Family::of(&seen) != self.family || from.ip() != t.remote.ip() {
            return true;
        }
        let first = !core::mem::replace(&mut sent.is_answered, true);
        match purpose {
            Purpose::Plain | Purpose::Alternate if at == self.subject.socket => {
                report.main = Some(seen);
                t.alternate = Some(alternate_port).filter(|port| *port != 0).or(t.alternate).or(Some(0));
                if purpose == Purpose::Alternate && from.port() != t.remote.port() {
                    report.alternate_came = Some(true);
                }
            }
            Purpose::Mapping { socket, to_alternate, order } => {
                let Some(&(id, local)) = self.sockets.get(usize::from(socket)) else { return true };
                if id != at {
                    return true;
                }
                match (socket, to_alternate) {
                    (0, false) => report.second = Some(seen),
                    (0, true) => report.second_alternate = Some(seen),
                    _ => {}
                }
                if first && !self.evidence.samples.is_full() {
                    let place = self.orders.iter().position(|o| *o > order).unwrap_or(self.orders.len());
                    self.orders.insert(place, order);
                    self.evidence.samples.insert(place, Sample { reporter: target, local, seen });
                }
            }
            Purpose::Plain | Purpose::Alternate => {}
        }
        if self.is_answered() {
            self.due = now;
        }
        true
    }

    /// A Loop packet came in. Says whether it was one of these.
    pub(crate) fn on_loop(&mut self, now: Instant, token: &[u8; 16]) -> bool {
        if !matches!(self.phase, Phase::Loop(_)) || !self.loops.contains(token) {
            return false;
        }
        self.looped = true;
        self.due = now;
        true
    }

    /// The socket asked for is there, or could not be opened.
    pub(crate) fn on_socket(
        &mut self,
        now: Instant,
        opened: Option<(SocketId, SocketAddr)>,
        keys: &mut KeyRng,
        out: &mut Vec<Ask>,
    ) {
        match (opened, self.phase) {
            (Some((socket, bound)), Phase::Opening) if !self.sockets.is_full() => {
                self.sockets.push((socket, bound.port()));
                self.map(now, 0, keys, out);
            }
            (Some((socket, bound)), Phase::Fresh) if !self.sockets.is_full() => {
                let number = self.sockets.len();
                self.sockets.push((socket, bound.port()));
                let target = (number - 1) % self.targets.len().max(1);
                self.probe(target, number, false, keys, out);
                if number < FRESH_MAX {
                    out.push(Ask::Open(self.family));
                }
            }
            (Some((socket, _)), _) => out.push(Ask::Close(socket)),
            (None, Phase::Opening | Phase::Fresh) => self.due = now,
            (None, _) => {}
        }
    }

    /// Time passed; the outcome, when it is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, keys: &mut KeyRng, out: &mut Vec<Ask>) -> Option<Examined> {
        while now >= self.due {
            match self.phase {
                Phase::Filter(round) if round + 1 < FILTER_ROUNDS && !self.is_answered() => {
                    self.filter(now, round + 1, keys, out);
                }
                Phase::Filter(_) => {
                    self.conclude_filter();
                    if self.subject.filter_only || self.translated() != Some(true) {
                        self.phase = Phase::Done;
                    } else {
                        self.phase = Phase::Opening;
                        self.due = now + ROUND;
                        out.push(Ask::Open(self.family));
                    }
                }
                Phase::Mapping(round) if round + 1 < MAPPING_ROUNDS && !self.is_answered() => {
                    self.map(now, round + 1, keys, out);
                }
                Phase::Mapping(_) if self.wants_fresh() => {
                    self.phase = Phase::Fresh;
                    self.due = now + ROUND;
                    out.push(Ask::Open(self.family));
                }
                Phase::Mapping(_) | Phase::Fresh => self.begin_loop(now, 0, out),
                Phase::Loop(round) if round + 1 < LOOP_ROUNDS && !self.looped => self.begin_loop(now, round + 1, out),
                Phase::Opening | Phase::Loop(_) => self.phase = Phase::Done,
                Phase::Done => return Some(self.end(out)),
            }
        }
        None
    }

    /// Gives everything back.
    pub(crate) fn end(&mut self, out: &mut Vec<Ask>) -> Examined {
        let hairpinning = match self.phase {
            _ if self.looped => Some(true),
            Phase::Done if self.loop_ends().is_some() => Some(false),
            _ => None,
        };
        out.extend(self.sockets.drain(..).map(|(socket, _)| Ask::Close(socket)));
        let mut evidence = self.evidence.clone();
        if self.translated() == Some(true) {
            // A supernode on this side of the router shows nothing of what the router lets in.
            let is_near = |r: &&mut Report| r.main.is_some_and(|seen| self.subject.own.contains(&seen.ip()));
            evidence.reports.iter_mut().filter(is_near).for_each(|r| r.alternate_came = None);
        }
        Examined {
            evidence,
            translated: self.translated(),
            hairpinning,
            seen: self.agreed(1, |r| r.main),
            #[cfg(test)]
            packets: self.packets,
        }
    }

    fn filter(&mut self, now: Instant, round: u8, keys: &mut KeyRng, out: &mut Vec<Ask>) {
        self.phase = Phase::Filter(round);
        self.due = now + ROUND;
        for target in 0..self.targets.len() {
            if self.evidence.reports.get(target).is_none_or(|r| r.alternate_came.is_some()) {
                continue;
            }
            // Whether it has an alternate port at all, and whether it answers.
            if round > 0 && self.targets.get(target).is_some_and(|t| t.alternate.is_none_or(|port| port == 0)) {
                self.send(target, self.subject.socket, Purpose::Plain, keys, out);
            }
            self.send(target, self.subject.socket, Purpose::Alternate, keys, out);
        }
    }

    /// From those that have an alternate port and answer, three times nothing came from there.
    fn conclude_filter(&mut self) {
        for (target, report) in self.targets.iter().zip(&mut self.evidence.reports) {
            if report.alternate_came.is_none() && target.alternate.is_some_and(|port| port != 0) {
                report.alternate_came = Some(false);
            }
        }
    }

    /// The second socket sends everywhere, or once more to where it got no answer from.
    fn map(&mut self, now: Instant, round: u8, keys: &mut KeyRng, out: &mut Vec<Ask>) {
        self.phase = Phase::Mapping(round);
        self.due = now + ROUND;
        for target in 0..self.targets.len() {
            for to_alternate in [false, true] {
                let report = self.evidence.reports.get(target);
                let answer = report.and_then(|r| if to_alternate { r.second_alternate } else { r.second });
                if answer.is_none() {
                    self.probe(target, 0, to_alternate, keys, out);
                }
            }
        }
    }

    /// A probe from one of the further sockets.
    fn probe(&mut self, target: usize, socket: usize, to_alternate: bool, keys: &mut KeyRng, out: &mut Vec<Ask>) {
        let Some(&(from, _)) = self.sockets.get(socket) else { return };
        if to_alternate && self.targets.get(target).is_none_or(|t| t.alternate.is_none_or(|port| port == 0)) {
            return;
        }
        let socket = u8::try_from(socket).unwrap_or(u8::MAX);
        // A repetition goes through the mapping of the first.
        let again = |s: &&Sent| matches!(s.purpose, Purpose::Mapping { socket: n, to_alternate: a, .. } if n == socket && a == to_alternate);
        let before = self.sent.iter().filter(|s| s.target == target).find(again).map(|s| s.purpose);
        let order = u8::try_from(self.sent.len()).unwrap_or(u8::MAX);
        let purpose = before.unwrap_or(Purpose::Mapping { socket, to_alternate, order });
        self.send(target, from, purpose, keys, out);
    }

    fn send(&mut self, target: usize, from: SocketId, purpose: Purpose, keys: &mut KeyRng, out: &mut Vec<Ask>) {
        let Some(t) = self.targets.get(target).filter(|_| self.packets < PACKETS_MAX) else { return };
        self.packets += 1;
        let token = keys.bytes();
        let remote = match (purpose, t.alternate) {
            (Purpose::Mapping { to_alternate: true, .. }, Some(port)) => SocketAddr::new(t.remote.ip(), port),
            _ => t.remote,
        };
        self.sent.push(Sent { token, target, purpose, is_answered: false });
        out.push(Ask::Probe { to: t.id, from, remote, token, alternate: purpose == Purpose::Alternate });
    }

    /// Whether nothing more is awaited in this phase.
    fn is_answered(&self) -> bool {
        match self.phase {
            Phase::Filter(_) => self.evidence.reports.iter().all(|r| r.alternate_came.is_some()),
            Phase::Mapping(_) => self.targets.iter().zip(&self.evidence.reports).all(|(t, r)| {
                r.second.is_some() && (r.second_alternate.is_some() || t.alternate.is_none_or(|port| port == 0))
            }),
            Phase::Fresh => {
                let of_fresh = |s: &&Sent| matches!(s.purpose, Purpose::Mapping { socket, .. } if socket > 0);
                let mut fresh = self.sent.iter().filter(of_fresh);
                self.sockets.len() > FRESH_MAX && fresh.all(|s| s.is_answered)
            }
            Phase::Opening | Phase::Loop(_) | Phase::Done => false,
        }
    }

    /// What more than half of those who told saw alike, if so many did.
    fn agreed(&self, min: usize, pick: fn(&Report) -> Option<SocketAddr>) -> Option<SocketAddr> {
        let told: ArrayVec<SocketAddr, TARGETS_MAX> = self.evidence.reports.iter().filter_map(pick).collect();
        let count = |seen: &SocketAddr| told.iter().filter(|other| *other == seen).count();
        told.iter().copied().find(|seen| count(seen) >= min && count(seen) * 2 > told.len())
    }

    fn translated(&self) -> Option<bool> {
        if self.evidence.reports.iter().all(|r| r.main.is_none()) {
            return None;
        }
        let seen = self.agreed(1, |r| r.main);
        Some(seen.is_none_or(|seen| seen.port() != self.subject.port || !self.subject.own.contains(&seen.ip())))
    }

    /// One mapping, and not with the internal port: what further sockets get shows how ports are assigned.
    fn wants_fresh(&self) -> bool {
        let local = self.sockets.first().map(|(_, port)| *port);
        self.agreed(1, |r| r.second).is_some_and(|seen| Some(seen.port()) != local)
    }

    /// Where the two sockets are outside, by the word of at least two: a packet to there goes to nobody else.
    fn loop_ends(&self) -> Option<[(SocketId, SocketAddr); 2]> {
        let &(second, _) = self.sockets.first()?;
        Some([(second, self.agreed(2, |r| r.main)?), (self.subject.socket, self.agreed(2, |r| r.second)?)])
    }

    fn begin_loop(&mut self, now: Instant, round: u8, out: &mut Vec<Ask>) {
        self.phase = Phase::Loop(round);
        let Some(ends) = self.loop_ends() else {
            self.phase = Phase::Done;
            return;
        };
        self.due = now + LOOP_ROUND;
        for ((from, remote), token) in ends.into_iter().zip(self.loops) {
            if self.packets < PACKETS_MAX {
                self.packets += 1;
                out.push(Ask::Loop { from, remote, token });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::classify;
    use super::*;
    use crate::identity::SecretKey;
    use crate::wire::nat::{FilteringBehavior, MappingBehavior};

    const MAIN: SocketId = SocketId(0);

    /// A router and three supernodes, as far as an examination can tell.
    #[derive(Clone, Copy)]
    struct Outside {
        mapping: MappingBehavior,
        lets_alternate_in: bool,
        hairpins: bool,
        is_silent: bool,
    }

    fn supernodes() -> Vec<(PeerId, SocketAddr)> {
        let id = |n| SecretKey::from_bytes(&[n; 32]).peer_id();
        (1..=3).map(|n| (id(n), SocketAddr::from(([203, 0, 113, n], 4_433)))).collect()
    }

    /// Runs one to its end; the packets sent, and how long it took.
    fn run(outside: Outside, own: bool) -> (Examined, usize, Duration) {
        let (mut keys, mut asks, mut now) = (KeyRng::new([7; 32]), Vec::new(), Instant::ZERO);
        let ip = IpAddr::from([198, 51, 100, 7]);
        let subject =
            Subject { socket: MAIN, port: 30_000, own: if own { vec![ip] } else { Vec::new() }, filter_only: false };
        let mut room = Examination::new(now, subject, &supernodes(), &mut keys, &mut asks);
        let (mut sockets, mut sent, mut mapped) = (0, 0, std::collections::BTreeMap::new());
        loop {
            for ask in core::mem::take(&mut asks) {
                match ask {
                    Ask::Probe { from, remote, token, alternate, .. } => {
                        sent += 1;
                        let key = match outside.mapping {
                            MappingBehavior::EndpointIndependent => None,
                            MappingBehavior::AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
                            MappingBehavior::AddressAndPortDependent => Some(remote),
                        };
                        let next = 50_000 + 997 * mapped.len() as u16;
                        let port = if own { 30_000 } else { *mapped.entry((from, key)).or_insert(next) };
                        if outside.is_silent || (alternate && !outside.lets_alternate_in) {
                            continue;
                        }
                        let answer = if alternate { SocketAddr::new(remote.ip(), 9) } else { remote };
                        assert!(room.on_reply(now, from, answer, token, SocketAddr::new(ip, port), 9));
                    }
                    Ask::Loop { token, remote, .. } => {
                        sent += 1;
                        assert_eq!(remote.ip(), ip);
                        assert!(!outside.hairpins || room.on_loop(now, &token));
                    }
                    Ask::Open(_) => {
                        sockets += 1;
                        let at = SocketAddr::from(([0, 0, 0, 0], 40_000 + sockets));
                        room.on_socket(now, Some((SocketId(sockets.into()), at)), &mut keys, &mut asks);
                    }
                    Ask::Close(_) => sockets -= 1,
                }
            }
            if !asks.is_empty() {
                continue;
            }
            now = now.max(room.poll_timeout());
            if let Some(outcome) = room.handle_timeout(now, &mut keys, &mut asks) {
                let closed = asks.iter().filter(|ask| matches!(ask, Ask::Close(_))).count();
                assert_eq!(closed, usize::from(sockets), "all sockets are given back");
                return (outcome, sent, now - Instant::ZERO);
            }
        }
    }

    #[test]
    fn the_worst_case_is_within_the_limit_of_packets() {
        let mut most = 0;
        for mapping in [
            MappingBehavior::EndpointIndependent,
            MappingBehavior::AddressDependent,
            MappingBehavior::AddressAndPortDependent,
        ] {
            for (lets_alternate_in, hairpins) in [(false, false), (false, true), (true, false), (true, true)] {
                let (outcome, sent, took) =
                    run(Outside { mapping, lets_alternate_in, hairpins, is_silent: false }, false);
                assert_eq!(sent, usize::from(outcome.packets));
                assert!(took <= Duration::from_secs(10), "{took:?}");
                let found = classify(&outcome.evidence);
                assert_eq!(found.mapping, Some(mapping));
                let filtering = if lets_alternate_in {
                    FilteringBehavior::AddressDependent
                } else {
                    FilteringBehavior::AddressAndPortDependent
                };
                assert_eq!(found.filtering, Some(filtering));
                let can_tell = mapping == MappingBehavior::EndpointIndependent;
                assert_eq!(outcome.hairpinning, can_tell.then_some(hairpins));
                assert_eq!(outcome.translated, Some(true));
                most = most.max(sent);
            }
        }
        assert!(most <= usize::from(PACKETS_MAX), "{most}");
    }

    #[test]
    fn without_a_router_it_ends_after_the_filter() {
        let mapping = MappingBehavior::EndpointIndependent;
        let outside = Outside { mapping, lets_alternate_in: true, hairpins: false, is_silent: false };
        let (outcome, sent, _) = run(outside, true);
        assert_eq!((outcome.translated, sent), (Some(false), 3));
    }

    #[test]
    fn silence_shows_nothing_and_ends() {
        let mapping = MappingBehavior::EndpointIndependent;
        let outside = Outside { mapping, lets_alternate_in: false, hairpins: false, is_silent: true };
        let (outcome, sent, took) = run(outside, false);
        assert_eq!((outcome.translated, outcome.seen), (None, None));
        assert_eq!(classify(&outcome.evidence).filtering, None);
        assert!(sent <= 15 && took <= Duration::from_secs(4), "{sent} {took:?}");
    }

    #[test]
    fn answers_from_elsewhere_and_strange_tokens_change_nothing() {
        let (mut keys, mut asks) = (KeyRng::new([7; 32]), Vec::new());
        let subject = Subject { socket: MAIN, port: 30_000, own: Vec::new(), filter_only: true };
        let mut room = Examination::new(Instant::ZERO, subject, &supernodes(), &mut keys, &mut asks);
        let seen = SocketAddr::from(([198, 51, 100, 7], 1));
        let Some(Ask::Probe { remote, token, .. }) = asks.pop() else { panic!() };
        assert!(!room.on_reply(Instant::ZERO, MAIN, remote, [0; 8], seen, 9));
        let other = SocketAddr::from(([203, 0, 113, 99], 9));
        assert!(room.on_reply(Instant::ZERO, MAIN, other, token, seen, 9), "known, and not believed");
        assert!(room.evidence.reports.iter().all(|r| r.main.is_none() && r.alternate_came.is_none()));
        assert!(!room.on_loop(Instant::ZERO, &[1; 16]));
    }
}
