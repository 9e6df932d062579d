//! The check list for one peer (RFC 8445 §6.1.2.5), from its start to its end.

use core::net::SocketAddr;
use core::time::Duration;

use arrayvec::ArrayVec;

use crate::account::{ADDRESSES_PER_ATTEMPT_MAX, Charge, Exposure};
use crate::time::Instant;
use crate::wire::address::is_sendable;
use crate::wire::packet::DATA_OVERHEAD;

/// When the checks to one address leave, in milliseconds after its start: dense while both sides open their routers,
/// then sparse. Ten packets at most to an address (threat D1).
const SCHEDULE_MS: [u64; 10] = [0, 80, 200, 400, 800, 1_400, 2_200, 3_500, 5_500, 8_500];
/// A check list ends so long after its start.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// What a check to an address takes, UDP payload.
#[expect(clippy::cast_possible_truncation, reason = "the overhead is some twenty bytes")]
pub(super) const fn check_len(to: &SocketAddr) -> u16 {
    DATA_OVERHEAD as u16 + if to.is_ipv4() { 17 } else { 29 }
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
    /// What the attempt was charged for this address and perhaps others, unless that was given back.
    charge: Option<Charge>,
    answered: bool,
    /// Something was sent to it.
    is_used: bool,
}

impl Check {
    fn due(&self) -> Option<Instant> {
        SCHEDULE_MS.get(self.sent.len()).map(|ms| self.start + Duration::from_millis(*ms))
    }
}

/// The check list for one peer: one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    started: Instant,
    list: ArrayVec<Check, ADDRESSES_PER_ATTEMPT_MAX>,
}

impl Checks {
    /// An empty list that starts now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, list: ArrayVec::new() }
    }

    /// Adds an address whose checks start at `start`, and what it was charged; false if it is there already or the list
    /// is full.
    pub(crate) fn add(&mut self, start: Instant, remote: SocketAddr, token: [u8; 7], charge: Option<Charge>) -> bool {
        if !is_sendable(remote) || self.contains(remote) {
            return false;
        }
        self.list
            .try_push(Check { remote, token, sent: ArrayVec::new(), start, charge, answered: false, is_used: false })
            .is_ok()
    }

    /// Whether an address is on the list.
    pub(crate) fn contains(&self, remote: SocketAddr) -> bool {
        self.list.iter().any(|c| c.remote == remote)
    }

    /// Whether the attempt still runs: further addresses join it rather than begin another one.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        now.since(self.started) < ATTEMPT_MAX
    }

    /// Whether the attempt is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.since(self.started) >= ATTEMPT_MAX
    }

    /// The next check that is due and that the address may still get: where to, and its token.
    pub(crate) fn pop_due(&mut self, now: Instant, exposure: &mut Exposure) -> Option<(SocketAddr, [u8; 8])> {
        loop {
            let check = self.list.iter_mut().find(|c| c.due().is_some_and(|at| at <= now))?;
            let [a, b, c, d, e, f, g] = check.token;
            let number = u8::try_from(check.sent.len()).unwrap_or(u8::MAX);
            check.sent.push(now);
            if exposure.admit(now, check.remote.ip(), 1, check_len(&check.remote)) {
                check.is_used = true;
                return Some((check.remote, [a, b, c, d, e, f, g, number]));
            }
        }
    }

    /// The peer is known to be at some addresses: the checks to them begin anew.
    pub(crate) fn restart(
        &mut self,
        now: Instant,
        is_there: impl Fn(SocketAddr) -> bool,
        mut token: impl FnMut() -> [u8; 7],
    ) {
        for check in self.list.iter_mut().filter(|c| is_there(c.remote)) {
            (check.start, check.token, check.answered) = (now, token(), false);
            check.sent.clear();
        }
        self.started = now;
    }

    /// The addresses on the list.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.list.iter().map(|check| check.remote)
    }

    /// When the next check is due, or the attempt ends.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let end = self.started + ATTEMPT_MAX;
        Some(self.next_due().map_or(end, |at| at.min(end)))
    }

    fn next_due(&self) -> Option<Instant> {
        self.list.iter().filter_map(Check::due).min()
    }

    /// The answer to `token` came from `remote`: the round trip, if it answers a check to that address.
    pub(crate) fn on_reply(&mut self, now: Instant, remote: SocketAddr, token: [u8; 8]) -> Option<Duration> {
        let check = self.list.iter_mut().find(|c| c.remote == remote && token.starts_with(&c.token))?;
        let sent = check.sent.get(usize::from(token[7]))?;
        check.answered = true;
        Some(now.since(*sent))
    }

    /// One of the charges to be given back: all addresses that it was for have answered, or, where `ends` says that
    /// nothing more is sent, got nothing. Each comes once.
    pub(crate) fn pop_refund(&mut self, ends: bool) -> Option<Charge> {
        let is_due = |check: &Check| check.answered || (ends && !check.is_used);
        let of = |charge| move |check: &&Check| check.charge == Some(charge);
        let charge = self
            .list
            .iter()
            .filter_map(|c| c.charge)
            .find(|charge| self.list.iter().filter(of(*charge)).all(is_due))?;
        self.list.iter_mut().filter(|c| c.charge == Some(charge)).for_each(|c| c.charge = None);
        Some(charge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, Grant};

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn sent_until(checks: &mut Checks, exposure: &mut Exposure, ms: u64) -> usize {
        (0..ms).map(|ms| core::iter::from_fn(|| checks.pop_due(at(ms), exposure)).count()).sum()
    }

    #[test]
    fn d1_at_most_ten_checks_per_address_and_attempt() {
        let (mut checks, mut exposure) = (Checks::new(at(0)), Exposure::default());
        assert!(checks.add(at(0), addr("192.0.2.1:9"), [1; 7], None));
        assert!(!checks.add(at(0), addr("192.0.2.1:9"), [2; 7], None), "known already");
        assert_eq!(sent_until(&mut checks, &mut exposure, 60_000), 10);
        assert!(!checks.is_over(at(9_999)) && checks.is_over(at(10_000)));
        assert_eq!(checks.poll_timeout(), Some(at(10_000)), "its end");
    }

    #[test]
    fn d1_many_ports_of_one_address_share_its_ten_packets() {
        let mut exposure = Exposure::default();
        for _attempt in 0..3 {
            let mut checks = Checks::new(at(0));
            for port in 1..=8 {
                checks.add(at(0), SocketAddr::new([192, 0, 2, 1].into(), port), [1; 7], None);
            }
            sent_until(&mut checks, &mut exposure, 10_000);
        }
        assert!(!exposure.admit(at(0), [192, 0, 2, 1].into(), 1, 42), "it has had its ten");
        // The next attempt in vain is heard nowhere, until the peer is known to be there.
        let mut checks = Checks::new(at(0));
        checks.add(at(0), addr("192.0.2.1:9"), [1; 7], None);
        checks.add(at(0), addr("192.0.2.2:9"), [1; 7], None);
        assert_eq!(sent_until(&mut checks, &mut exposure, 10_000), 10, "to the other one");
        exposure.attest(at(0), [192, 0, 2, 1].into());
        checks.restart(at(10_000), |to| to == addr("192.0.2.1:9"), || [2; 7]);
        assert_eq!(sent_until(&mut checks, &mut exposure, 30_000), 10);
    }

    #[test]
    fn d1_a_charge_is_given_back_when_all_that_it_was_for_has_answered() {
        let mut budget = Account::default();
        let mut begin = |addresses: &[&str]| {
            let mut checks = Checks::new(at(0));
            let granted = budget.charge_attempts(at(0), addresses.iter().map(|a| addr(a)));
            for (n, (remote, grant)) in granted.into_iter().enumerate() {
                let Grant::Given(charge) = grant else { panic!("{remote} is held") };
                checks.add(at(n as u64 * 100), remote, [n as u8; 7], charge);
            }
            checks
        };
        let answer = |checks: &mut Checks, remote: &str, token: u8| {
            let [a, b, c, d, e, f, g] = [token; 7];
            assert!(checks.on_reply(at(50), addr(remote), [a, b, c, d, e, f, g, 0]).is_some());
        };
        let mut exposure = Exposure::default();
        // One that answers does not pay for another one that does not.
        let mut checks = begin(&["192.0.2.1:9", "192.0.2.2:9", "198.51.100.1:9"]);
        sent_until(&mut checks, &mut exposure, 10_000);
        answer(&mut checks, "192.0.2.1:9", 0);
        assert_eq!(checks.pop_refund(false), None);
        answer(&mut checks, "198.51.100.1:9", 2);
        assert!(checks.pop_refund(false).is_some() && checks.pop_refund(true).is_none());
        answer(&mut checks, "192.0.2.2:9", 1);
        assert!(checks.pop_refund(false).is_some() && checks.pop_refund(true).is_none());
        // Where the list ends before anything was sent to an address, that owes nothing.
        let (mut checks, mut exposure) = (begin(&["192.0.2.1:9", "192.0.2.2:9"]), Exposure::default());
        sent_until(&mut checks, &mut exposure, 50);
        answer(&mut checks, "192.0.2.1:9", 0);
        checks.restart(at(50), |_| true, || [7; 7]);
        assert_eq!(checks.pop_refund(true), None, "it begins anew, and may answer yet");
        sent_until(&mut checks, &mut exposure, 51);
        let [a, b, c, d, e, f, g] = [7; 7];
        assert!(checks.on_reply(at(60), addr("192.0.2.1:9"), [a, b, c, d, e, f, g, 0]).is_some());
        assert!(checks.on_reply(at(60), addr("192.0.2.2:9"), [a, b, c, d, e, f, g, 0]).is_some());
        assert!(checks.pop_refund(false).is_some());
        let mut checks = begin(&["203.0.113.1:9", "203.0.113.2:9"]);
        sent_until(&mut checks, &mut exposure, 50);
        answer(&mut checks, "203.0.113.1:9", 0);
        assert!(checks.pop_refund(false).is_none() && checks.pop_refund(true).is_some());
    }

    #[test]
    fn one_late_call_catches_up() {
        let (mut checks, mut exposure) = (Checks::new(at(0)), Exposure::default());
        checks.add(at(0), addr("192.0.2.1:9"), [1; 7], None);
        let sent = core::iter::from_fn(|| checks.pop_due(at(900), &mut exposure)).count();
        assert_eq!(sent, 5);
        assert!(checks.poll_timeout().expect("more is due") > at(900));
    }

    #[test]
    fn an_answer_counts_only_from_the_address_that_was_asked() {
        let (mut checks, mut exposure) = (Checks::new(at(0)), Exposure::default());
        checks.add(at(0), addr("192.0.2.1:9"), [1; 7], None);
        let (remote, token) = checks.pop_due(at(0), &mut exposure).expect("due at once");
        assert_eq!(checks.on_reply(at(30), addr("192.0.2.2:9"), token), None);
        assert_eq!(checks.on_reply(at(30), remote, [9; 8]), None);
        assert_eq!(checks.on_reply(at(30), remote, token), Some(Duration::from_millis(30)));
    }
}
