//! When this node examines what stands between it and the internet, and what it knows of that.
//!
//! A leaf examines a little after it has found supernodes, never before: connecting comes first. Then daily, when the
//! host's network changed, and when reality disagrees ([`Examiner::on_disagreement`]): supernodes see it elsewhere, or
//! what should have worked did not. The IPv4 path is examined in full, the IPv6 path for its firewall. A node that
//! serves others by its own decision looks every few minutes whether unasked packets still come in, unless they do
//! anyway.
//!
//! [`Known`] is what the last examination said.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::classify::{Findings, classify};
use super::examine::{Ask, Examination, Examined};
use crate::api::Ipv6;
use crate::net::{Family, SocketId};
use crate::random::KeyRng;
use crate::time::Instant;
use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};

/// After the first link to a supernode: homes are chosen by then, and a third link still stands.
const BEGIN_AFTER: Duration = Duration::from_secs(3);
/// Routers are replaced, firmware is updated.
const AGAIN_AFTER: Duration = Duration::from_secs(86_400);
/// After an examination that nobody answered; also the least time between two that were asked for by disagreement.
const AGAIN_SOON: Duration = Duration::from_secs(600);
/// From a disagreement to the examination: let what caused it come to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// A node that decided to serve makes sure so often that it still can.
const SELF_CHECK_EVERY: Duration = Duration::from_secs(300);
/// After one that failed.
const SELF_CHECK_AGAIN: Duration = Duration::from_secs(10);

/// What the examinations of this network said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub(super) findings: Findings,
    pub(super) translated: Option<bool>,
    pub(super) hairpinning: Option<bool>,
    /// Where most saw the main socket.
    pub(super) seen: Option<SocketAddr>,
    pub(super) v6: Option<Ipv6>,
    /// How many supernodes answered.
    pub(super) witnesses: usize,
    /// When that was; none if it was in an earlier run.
    pub(super) at: Option<Instant>,
}

/// When the next examination is due, the one under way, and what the last one found.
#[derive(Default)]
pub(super) struct Examiner {
    due: Option<Instant>,
    current: Option<Box<Examination>>,
    family: Option<Family>,
    known: Option<Box<Known>>,
    /// Help was asked for since the last examination began: if none comes, the next one goes without.
    was_helped: bool,
    last: Option<Instant>,
    unasked: Option<Instant>,
}

impl Examiner {
    /// What is known.
    pub(super) fn known(&self) -> Option<&Known> {
        self.known.as_deref()
    }

    /// When something is next to be done.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // What is due while one is under way waits for its end.
        self.current.as_ref().map_or(self.due, |current| Some(current.poll_timeout()))
    }

    /// Whether an examination should begin now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.current.is_none() && self.due.is_some_and(|due| due <= now)
    }

    /// Not now.
    pub(super) fn postpone(&mut self, now: Instant, by: Duration) {
        self.due = Some(now + by);
    }

    /// Nothing is to be examined, until something happens.
    pub(super) fn rest(&mut self) {
        self.due = None;
    }

    /// A link to a supernode is up.
    pub(super) fn on_supernode(&mut self, now: Instant) {
        if self.due.is_none() && self.current.is_none() {
            self.due = Some(now + BEGIN_AFTER);
        }
    }

    /// The host's network changed: nothing that is known holds.
    pub(super) fn reset(&mut self, now: Instant) {
        *self = Self { due: Some(now + BEGIN_AFTER), ..Self::default() };
    }

    /// Something is not as the last examination said.
    pub(super) fn on_disagreement(&mut self, now: Instant) {
        if self.current.is_some() || self.known.is_none() {
            return;
        }
        let soonest = self.last.map_or(now, |last| last + AGAIN_SOON).max(now + SETTLE);
        self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// Something unasked came in.
    pub(super) fn on_unasked(&mut self, now: Instant) {
        self.unasked = Some(now);
    }

    /// Whether something unasked came in lately.
    pub(super) fn had_unasked(&self, now: Instant) -> bool {
        self.unasked.is_some_and(|at| now - at < SELF_CHECK_EVERY)
    }

    /// This node begins to serve. If it has not examined anything yet, it does so all the same.
    pub(super) fn on_serving(&mut self, now: Instant) {
        if self.current.is_none() {
            self.postpone(now, if self.known.is_some() { SELF_CHECK_EVERY } else { BEGIN_AFTER });
        }
    }

    /// The next self-check of a node that serves: `soon` after one that failed.
    pub(super) fn check_again(&mut self, now: Instant, soon: bool) {
        self.postpone(now, if soon { SELF_CHECK_AGAIN } else { SELF_CHECK_EVERY });
    }

    /// More supernodes than are linked would do it good. Says whether that was said before.
    pub(super) fn wants_help(&mut self) -> bool {
        core::mem::replace(&mut self.was_helped, true)
    }

    /// The one under way, with what it was answered.
    pub(super) fn current(&mut self) -> Option<&mut Examination> {
        self.current.as_deref_mut()
    }

    /// What is due of the one under way; the outcome, when it is over.
    pub(super) fn run(&mut self, now: Instant, keys: &mut KeyRng, out: &mut Vec<Ask>) -> Option<Examined> {
        let outcome = self.current()?.handle_timeout(now, keys, out)?;
        self.current = None;
        Some(outcome)
    }

    /// A socket asked for is there, or could not be opened.
    pub(super) fn on_socket(
        &mut self,
        now: Instant,
        opened: Option<(SocketId, SocketAddr)>,
        keys: &mut KeyRng,
        out: &mut Vec<Ask>,
    ) {
        match (self.current(), opened) {
            (Some(current), _) => current.on_socket(now, opened, keys, out),
            (None, Some((socket, _))) => out.push(Ask::Close(socket)),
            (None, None) => {}
        }
    }

    /// Gives up the one under way.
    pub(super) fn end(&mut self, out: &mut Vec<Ask>) {
        if let Some(mut current) = self.current.take() {
            let _ = current.end(out);
        }
    }

    /// An examination begins.
    pub(super) fn begin(&mut self, family: Family, examination: Examination) {
        self.was_helped = false;
        self.family = Some(family);
        self.current = Some(Box::new(examination));
    }

    /// What an earlier run found out. It was not long ago.
    pub(super) fn recall(&mut self, now: Instant, known: Known) {
        self.known = Some(Box::new(known));
        self.due = Some(now + AGAIN_AFTER / 2);
    }

    /// One is over. Says which family it was of.
    pub(super) fn on_over(&mut self, now: Instant, outcome: &Examined, unasked_came: bool) -> Option<Family> {
        let family = self.family.take()?;
        let told = outcome.evidence.reports.iter().filter(|r| r.main.is_some()).count();
        match family {
            Family::V4 => {
                self.last = Some(now);
                self.due = Some(now + if told == 0 { AGAIN_SOON } else { AGAIN_AFTER });
                if told > 0 || self.known.is_none() {
                    let mut evidence = outcome.evidence.clone();
                    evidence.unasked_came = unasked_came;
                    let mut findings = classify(&evidence);
                    if outcome.translated == Some(false) {
                        // Nothing maps.
                        findings.mapping = Some(MappingBehavior::EndpointIndependent);
                        findings.ports = PortAssignment::Preserving;
                    }
                    let v6 = self.known.as_ref().and_then(|k| k.v6);
                    let Examined { translated, hairpinning, seen, .. } = *outcome;
                    let known = Known { findings, translated, hairpinning, seen, v6, witnesses: told, at: Some(now) };
                    self.known = Some(Box::new(known));
                }
            }
            Family::V6 => {
                let findings = classify(&outcome.evidence);
                let v6 = outcome.seen.map(|address| Ipv6 { address, filtering: findings.filtering });
                if let Some(known) = &mut self.known {
                    known.v6 = v6;
                } else {
                    // There is nothing but IPv6.
                    self.last = Some(now);
                    self.due = Some(now + if told == 0 { AGAIN_SOON } else { AGAIN_AFTER });
                    let Examined { translated, hairpinning, seen, .. } = *outcome;
                    self.known = Some(Box::new(Known {
                        findings,
                        translated,
                        hairpinning,
                        seen,
                        v6,
                        witnesses: told,
                        at: Some(now),
                    }));
                }
            }
        }
        Some(family)
    }

    /// What peers are told of the router, given the mapping that is known without an examination.
    pub(super) fn profile(&self, mapping: Option<MappingBehavior>, unasked_comes: bool) -> NatProfile {
        let findings = self.known.as_ref().map(|k| k.findings).unwrap_or_default();
        let open = unasked_comes.then_some(FilteringBehavior::EndpointIndependent);
        NatProfile {
            mapping: findings.mapping.or(mapping),
            filtering: open.or(findings.filtering),
            ports: findings.ports,
            udp_blocked: false,
        }
    }
}

/// Whether the router that claims this external address is itself behind another: then we are seen elsewhere. Neither
/// address need be of any special range.
pub(super) fn second_nat(claimed: Option<IpAddr>, seen: Option<SocketAddr>) -> Option<bool> {
    let (claimed, seen) = (claimed?, seen?);
    (claimed.is_ipv4() == seen.is_ipv4()).then_some(claimed != seen.ip())
}
