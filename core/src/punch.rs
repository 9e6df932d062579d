//! Hole punching: which addresses to try for a peer, when, and how often.
//!
//! Both peers know each other's candidates from the introduction and send connectivity checks to all of them at the
//! same time, over the main sockets. A check is a Data packet with a challenge, sealed under the new link's keys, so
//! what arrives is authentic; its source may be an address nobody named (a peer-reflexive candidate, RFC 8445
//! §7.3.1.3), which is then checked too. The first check that is answered proves a direct path; [`crate::path`] does
//! the rest.
//!
//! [`gather`] lists this node's own candidates. [`Checks`] is the check list for one peer (RFC 8445 §6.1.2.5) from its
//! start to its end; [`Budget`] is what keeps a peer from aiming this node at a victim.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use crate::node::Network;
use crate::time::Instant;
use crate::wire::address::{
    CANDIDATES_MAX, CANDIDATES_V6_MAX, Candidate, CandidateKind, Candidates, Prefix, is_sendable,
};

/// When the checks to one address leave, in milliseconds after the list's start: dense while both sides open their
/// routers, then sparse. Ten packets at most to an address (threat D1).
const SCHEDULE_MS: [u64; 10] = [0, 80, 200, 400, 800, 1_400, 2_200, 3_500, 5_500, 8_500];
/// Most addresses checked in one attempt: the candidates that the peer named, and peer-reflexive ones.
const CHECKS_MAX: usize = CANDIDATES_MAX + 4;
/// A check list ends so long after its start.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Attempts per prefix and minute; threat D1.
const ATTEMPTS_PER_MINUTE: u8 = 3;
/// Most prefixes whose attempts are counted. At the limit no new prefix is tried.
const PREFIXES_MAX: usize = 4_096;
/// The window of the budget.
const WINDOW: Duration = Duration::from_secs(60);

/// This node's candidates: ports that a router maps, then the addresses that supernodes saw, then host addresses of
/// the bound sockets.
///
/// A loopback address is named only when a socket is bound to it: elsewhere it means another host. At most
/// [`CANDIDATES_MAX`], of which [`CANDIDATES_V6_MAX`] IPv6; mapped ones first, since they let everybody in, then
/// server-reflexive ones, which serve more peers than host addresses. A router may claim any address as mapped, so these
/// take at most half of the room.
pub fn gather(network: &Network, reflexive: &[SocketAddr]) -> Candidates {
    let mut all = Candidates::new();
    let mut add = |kind, addr: SocketAddr| {
        let v6 = all.iter().filter(|c: &&Candidate| SocketAddr::from(c.address).is_ipv6()).count();
        let known = all.iter().any(|c| SocketAddr::from(c.address) == addr);
        if is_sendable(addr) && !known && !all.is_full() && (addr.is_ipv4() || v6 < CANDIDATES_V6_MAX) {
            all.push(Candidate { kind, address: addr.into() });
        }
    };
    for mapping in network.mappings.iter().take(CANDIDATES_MAX / 2) {
        add(CandidateKind::Mapped, mapping.external);
    }
    for &addr in reflexive.iter().take(CANDIDATES_MAX / 2) {
        add(CandidateKind::ServerReflexive, addr);
    }
    for (_, bound) in &network.sockets {
        if !bound.ip().is_unspecified() {
            add(CandidateKind::Host, *bound);
            continue;
        }
        for ip in network.interfaces.iter().filter(|ip| ip.is_ipv4() == bound.is_ipv4()) {
            let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            if !ip.is_loopback() && !link_local {
                add(CandidateKind::Host, SocketAddr::new(*ip, bound.port()));
            }
        }
    }
    all
}

/// One address under check.
#[derive(Clone, Debug)]
struct Check {
    remote: SocketAddr,
    /// Seven random bytes; the eighth of a token is the number of the packet, so that an answer tells which one it
    /// answers and the round trip is exact.
    token: [u8; 7],
    sent: ArrayVec<Instant, { SCHEDULE_MS.len() }>,
    /// When the first check to it was due.
    start: Instant,
}

impl Check {
    fn due(&self) -> Option<Instant> {
        SCHEDULE_MS.get(self.sent.len()).map(|ms| self.start + Duration::from_millis(*ms))
    }
}

/// The check list for one peer: one attempt.
#[derive(Clone, Debug)]
pub struct Checks {
    started: Instant,
    list: ArrayVec<Check, CHECKS_MAX>,
}

impl Checks {
    /// An empty list that starts now.
    pub fn new(now: Instant) -> Self {
        Self { started: now, list: ArrayVec::new() }
    }

    /// Adds an address; false if it is there already or the list is full.
    pub fn add(&mut self, now: Instant, remote: SocketAddr, token: [u8; 7]) -> bool {
        if !is_sendable(remote) || self.contains(remote) {
            return false;
        }
        self.list.try_push(Check { remote, token, sent: ArrayVec::new(), start: now }).is_ok()
    }

    /// Whether an address is on the list.
    pub fn contains(&self, remote: SocketAddr) -> bool {
        self.list.iter().any(|c| c.remote == remote)
    }

    /// Whether the attempt still runs: further addresses join it rather than begin another one.
    pub fn is_young(&self, now: Instant) -> bool {
        now.since(self.started) < ATTEMPT_MAX
    }

    /// Whether the attempt is over.
    pub fn is_over(&self, now: Instant) -> bool {
        now.since(self.started) >= ATTEMPT_MAX
    }

    /// The next check that is due: where to, and its token.
    pub fn pop_due(&mut self, now: Instant) -> Option<(SocketAddr, [u8; 8])> {
        let check = self.list.iter_mut().find(|c| c.due().is_some_and(|at| at <= now))?;
        let [a, b, c, d, e, f, g] = check.token;
        let number = check.sent.len() as u8;
        check.sent.push(now);
        Some((check.remote, [a, b, c, d, e, f, g, number]))
    }

    /// When the next check is due, or the attempt ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let end = self.started + ATTEMPT_MAX;
        Some(self.next_due().map_or(end, |at| at.min(end)))
    }

    fn next_due(&self) -> Option<Instant> {
        self.list.iter().filter_map(Check::due).min()
    }

    /// The answer to `token` came from `remote`: the round trip, if it answers a check to that address.
    pub fn on_reply(&mut self, now: Instant, remote: SocketAddr, token: [u8; 8]) -> Option<Duration> {
        let check = self.list.iter().find(|c| c.remote == remote && token.starts_with(&c.token))?;
        let sent = check.sent.get(usize::from(token[7]))?;
        Some(now.since(*sent))
    }
}

/// How many attempts may still be made towards a prefix.
#[derive(Debug, Default)]
pub struct Budget {
    attempts: BTreeMap<Prefix, (Instant, u8)>,
}

impl Budget {
    /// Takes one attempt out of the budget of each prefix that the addresses fall in; returns those that may be tried.
    pub fn take(&mut self, now: Instant, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        self.attempts.retain(|_, (since, _)| now.since(*since) < WINDOW);
        let mut granted: BTreeMap<Prefix, bool> = BTreeMap::new();
        addresses
            .take(CHECKS_MAX)
            .filter(|addr| {
                if Prefix::is_exempt(addr.ip()) {
                    return true;
                }
                let prefix = Prefix::of(addr.ip());
                if let Some(answer) = granted.get(&prefix) {
                    return *answer;
                }
                let room = self.attempts.len() < PREFIXES_MAX || self.attempts.contains_key(&prefix);
                let answer = room && {
                    let entry = self.attempts.entry(prefix).or_insert((now, 0));
                    entry.1 += u8::from(entry.1 < ATTEMPTS_PER_MINUTE + 1);
                    entry.1 <= ATTEMPTS_PER_MINUTE
                };
                granted.insert(prefix, answer);
                answer
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Mapping, MappingProtocol, SocketId};

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn d1_at_most_ten_checks_per_address_and_attempt() {
        let mut checks = Checks::new(at(0));
        assert!(checks.add(at(0), addr("192.0.2.1:9"), [1; 7]));
        assert!(!checks.add(at(0), addr("192.0.2.1:9"), [2; 7]), "known already");
        let mut sent = 0;
        for ms in 0..60_000 {
            while checks.pop_due(at(ms)).is_some() {
                sent += 1;
            }
        }
        assert_eq!(sent, 10);
        assert!(!checks.is_over(at(9_999)) && checks.is_over(at(10_000)));
        assert_eq!(checks.poll_timeout(), Some(at(10_000)), "its end");
    }

    #[test]
    fn one_late_call_catches_up() {
        let mut checks = Checks::new(at(0));
        checks.add(at(0), addr("192.0.2.1:9"), [1; 7]);
        let mut sent = 0;
        while checks.pop_due(at(900)).is_some() {
            sent += 1;
        }
        assert_eq!(sent, 5);
        assert!(checks.poll_timeout().expect("more is due") > at(900));
    }

    #[test]
    fn an_answer_counts_only_from_the_address_that_was_asked() {
        let mut checks = Checks::new(at(0));
        checks.add(at(0), addr("192.0.2.1:9"), [1; 7]);
        let (remote, token) = checks.pop_due(at(0)).expect("due at once");
        assert_eq!(checks.on_reply(at(30), addr("192.0.2.2:9"), token), None);
        assert_eq!(checks.on_reply(at(30), remote, [9; 8]), None);
        assert_eq!(checks.on_reply(at(30), remote, token), Some(Duration::from_millis(30)));
    }

    #[test]
    fn d1_three_attempts_a_minute_per_prefix() {
        let mut budget = Budget::default();
        let victim = [addr("192.0.2.1:1"), addr("192.0.2.77:2")];
        for _ in 0..3 {
            assert_eq!(budget.take(at(0), victim.into_iter()).len(), 2);
        }
        assert!(budget.take(at(59_000), victim.into_iter()).is_empty());
        assert_eq!(budget.take(at(59_000), [addr("10.0.0.1:1")].into_iter()).len(), 1, "private ranges are exempt");
        assert_eq!(budget.take(at(60_000), victim.into_iter()).len(), 2);
    }

    #[test]
    fn candidates_are_bounded_by_count_and_family() {
        let network = Network {
            sockets: vec![(SocketId(0), addr("0.0.0.0:7")), (SocketId(1), addr("[::]:7"))],
            interfaces: (1..=9u8)
                .map(|n| IpAddr::from([10, 0, 0, n]))
                .chain((1..=9u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])))
                .chain([IpAddr::from([127, 0, 0, 1])])
                .collect(),
            ..Network::default()
        };
        let all = gather(&network, &[addr("198.51.100.1:4000")]);
        assert_eq!(all.len(), CANDIDATES_MAX);
        assert_eq!(SocketAddr::from(all[0].address), addr("198.51.100.1:4000"));
        assert!(all.iter().all(|c| !SocketAddr::from(c.address).ip().is_loopback()));
    }

    #[test]
    fn a_mapped_port_is_the_first_candidate_and_leaves_room_for_others() {
        let mapping = |n: u8| Mapping {
            socket: SocketId(0),
            external: SocketAddr::new([198, 51, 100, n].into(), 7),
            protocol: MappingProtocol::Pcp,
        };
        let mut network = Network {
            sockets: vec![(SocketId(0), addr("192.168.1.2:7"))],
            interfaces: Vec::new(),
            mappings: vec![mapping(1)],
            ..Network::default()
        };
        let kinds = |network: &Network, reflexive: &[SocketAddr]| -> Vec<CandidateKind> {
            gather(network, reflexive).iter().map(|c| c.kind).collect()
        };
        use CandidateKind::{Host, Mapped, ServerReflexive};
        assert_eq!(kinds(&network, &[addr("198.51.100.1:9")]), [Mapped, ServerReflexive, Host]);
        // Seen where it is mapped: one candidate.
        assert_eq!(kinds(&network, &[addr("198.51.100.1:7")]), [Mapped, Host]);
        network.mappings = (1..=20).map(mapping).collect();
        assert_eq!(kinds(&network, &[addr("203.0.113.1:9")]), [Mapped, Mapped, Mapped, Mapped, ServerReflexive, Host]);
    }
}
