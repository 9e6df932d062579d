//! What keeps a peer from aiming this node at a victim (threat D1).
//!
//! [`Exposure`] is the account of one link: what each IP address got that the peer named and that has shown nothing
//! yet. [`Budget`] counts the node's attempts per prefix, whichever peer they are for.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use crate::time::Instant;
use crate::wire::address::{CANDIDATES_MAX, Prefix};

/// Packets to an IP address, all its ports together, before it has shown that the peer is there.
const PACKETS_MAX: u8 = 10;
/// And bytes of UDP payload.
const BYTES_MAX: u16 = 1_024;
/// Most IP addresses on the account. At the limit the oldest is struck; the prefix's [`Budget`] still holds.
const ADDRESSES_MAX: usize = 32;
/// What an address got longer ago than this is forgotten: the peer may be there now.
const AGE_MAX: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Spent {
    ip: IpAddr,
    since: Instant,
    packets: u8,
    bytes: u16,
    attested: bool,
}

/// What the addresses that one peer named have got from us, and which of them are attested.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposure {
    list: ArrayVec<Spent, ADDRESSES_MAX>,
}

impl Exposure {
    /// Whether [`Self::admit`] would say yes.
    #[must_use]
    pub(crate) fn has_room(&self, now: Instant, ip: IpAddr, packets: u8, bytes: u16) -> bool {
        let mut copy = self.clone();
        copy.admit(now, ip, packets, bytes)
    }

    /// Whether so much may go to an address; if so it is entered.
    #[must_use]
    pub(crate) fn admit(&mut self, now: Instant, ip: IpAddr, packets: u8, bytes: u16) -> bool {
        let spent = self.entry(now, ip);
        if spent.attested {
            return true;
        }
        let (packets, bytes) = (spent.packets.saturating_add(packets), spent.bytes.saturating_add(bytes));
        let fits = packets <= PACKETS_MAX && bytes <= BYTES_MAX;
        if fits {
            (spent.packets, spent.bytes) = (packets, bytes);
        }
        fits
    }

    /// The peer is at this address: it answered from there, or a home of ours says so.
    pub(crate) fn attest(&mut self, now: Instant, ip: IpAddr) {
        let spent = self.entry(now, ip);
        spent.attested = true;
        spent.since = now;
    }

    /// Whether that is known.
    pub(crate) fn is_attested(&self, now: Instant, ip: IpAddr) -> bool {
        self.list.iter().any(|s| s.ip == ip && s.attested && now.since(s.since) < AGE_MAX)
    }

    fn entry(&mut self, now: Instant, ip: IpAddr) -> &mut Spent {
        self.list.retain(|s| now.since(s.since) < AGE_MAX);
        let known = self.list.iter().position(|s| s.ip == ip);
        let at = known.unwrap_or_else(|| {
            if self.list.is_full() {
                self.list.remove(0);
            }
            self.list.push(Spent { ip, since: now, packets: 0, bytes: 0, attested: false });
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

/// Most addresses that one attempt takes in: the candidates that a peer may name, and peer-reflexive ones.
pub(crate) const ADDRESSES_PER_ATTEMPT_MAX: usize = CANDIDATES_MAX + 4;
/// Most prefixes that one count holds. At the limit no new prefix is tried.
const PREFIXES_MAX: usize = 4_096;
/// Attempts are counted over so long.
const ATTEMPTS_EVERY: Duration = Duration::from_secs(60);
/// Attempts at one prefix in that time (threat D1), those not counted that were answered from all their addresses.
const PREFIX_ATTEMPTS_MAX: usize = 3;
/// The same at an IP address that has proven itself. Whoever answers checks there asked for them; others behind the
/// same router get no more than this for it.
const PROVEN_ATTEMPTS_MAX: usize = 30;
/// An IP address counts as proven for so long after it last answered.
const PROVEN_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Most IP addresses that are known as proven. At the limit the one longest silent goes.
const PROVEN_MAX: usize = 4_096;

/// Whom an attempt is charged to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// Everybody whose IP address has this prefix and is not proven.
    Prefix(Prefix),
    /// An IP address that has proven itself.
    Proven(IpAddr),
}

/// What one attempt was charged, once for all of its addresses of a prefix. Given back when all of them have answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Charge {
    scope: Scope,
    number: u64,
}

impl Charge {
    /// Who else would have been charged the same.
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }
}

/// Whether an attempt may be made at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grant {
    /// Yes; and what it was charged, if anything.
    Given(Option<Charge>),
    /// Not before this.
    Held(Instant),
}

/// So many within so long, per prefix.
#[derive(Debug)]
struct Count {
    window: Duration,
    most: u8,
    taken: BTreeMap<Prefix, (Instant, u8)>,
}

impl Count {
    const fn new(window: Duration, most: u8) -> Self {
        Self { window, most, taken: BTreeMap::new() }
    }

    fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.taken.retain(|_, (since, _)| now.since(*since) < self.window);
        let prefix = Prefix::of(ip);
        if self.taken.len() >= PREFIXES_MAX && !self.taken.contains_key(&prefix) {
            return false;
        }
        let (_, n) = self.taken.entry(prefix).or_insert((now, 0));
        let fits = *n < self.most;
        *n += u8::from(fits);
        fits
    }
}

/// The attempts of the last minute that are not given back, the oldest first, and their numbers.
type Taken = VecDeque<(Instant, u64)>;

/// How many attempts may still be made towards a prefix.
///
/// An attempt is charged when its checks begin, and given back when every address of the prefix that it named has
/// answered: not more, or one address that answers would pay for another one that is a victim. An IP address that has
/// answered within a day has a larger budget of its own. That a peer is let in exempts it from nothing.
#[derive(Debug)]
pub(crate) struct Budget {
    attempts: BTreeMap<Scope, Taken>,
    proven: BTreeMap<IpAddr, Instant>,
    charges: u64,
    predictions: Count,
    birthdays: Count,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            attempts: BTreeMap::new(),
            proven: BTreeMap::new(),
            charges: 0,
            predictions: Count::new(Duration::from_secs(60), 3),
            // Should a home of ours lie together with a peer, three times 20 s an hour is all they get.
            birthdays: Count::new(Duration::from_secs(3_600), 3),
        }
    }
}

impl Budget {
    /// Takes one attempt out of the budget of each prefix or proven IP address that the addresses fall in; says of each
    /// whether it may be tried.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Vec<(SocketAddr, Grant)> {
        let mut asked: BTreeMap<Scope, Grant> = BTreeMap::new();
        let mut take = |ip: IpAddr| {
            if Prefix::is_exempt(ip) {
                return Grant::Given(None);
            }
            let scope = self.scope_of(now, ip);
            *asked.entry(scope).or_insert_with(|| self.charge(now, scope))
        };
        addresses.take(ADDRESSES_PER_ATTEMPT_MAX).map(|address| (address, take(address.ip()))).collect()
    }

    /// All addresses that this was charged for have answered, or were sent nothing.
    pub(crate) fn give_back(&mut self, charge: Charge) {
        let Some(taken) = self.attempts.get_mut(&charge.scope) else { return };
        taken.retain(|(_, number)| *number != charge.number);
        if taken.is_empty() {
            self.attempts.remove(&charge.scope);
        }
    }

    /// A peer answered from this IP address, or a home of ours sees it there.
    pub(crate) fn proven(&mut self, now: Instant, ip: IpAddr) {
        if self.proven.len() >= PROVEN_MAX && !self.proven.contains_key(&ip) {
            let oldest = self.proven.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip);
            oldest.and_then(|oldest| self.proven.remove(&oldest));
        }
        self.proven.insert(ip, now);
    }

    fn scope_of(&mut self, now: Instant, ip: IpAddr) -> Scope {
        match self.proven.get(&ip) {
            Some(at) if now.since(*at) < PROVEN_AGE_MAX => Scope::Proven(ip),
            _ => Scope::Prefix(Prefix::of(ip)),
        }
    }

    fn charge(&mut self, now: Instant, scope: Scope) -> Grant {
        self.attempts.retain(|_, taken| {
            while taken.front().is_some_and(|(at, _)| now.since(*at) >= ATTEMPTS_EVERY) {
                taken.pop_front();
            }
            !taken.is_empty()
        });
        let most = match scope {
            Scope::Prefix(_) => PREFIX_ATTEMPTS_MAX,
            Scope::Proven(_) => PROVEN_ATTEMPTS_MAX,
        };
        if self.attempts.len() >= PREFIXES_MAX && !self.attempts.contains_key(&scope) {
            let next = self.attempts.values().filter_map(|taken| taken.front()).map(|(at, _)| *at).min();
            return Grant::Held(next.unwrap_or(now) + ATTEMPTS_EVERY);
        }
        let taken = self.attempts.entry(scope).or_default();
        if let Some((oldest, _)) = taken.front().filter(|_| taken.len() >= most) {
            return Grant::Held(*oldest + ATTEMPTS_EVERY);
        }
        self.charges += 1;
        taken.push_back((now, self.charges));
        Grant::Given(Some(Charge { scope, number: self.charges }))
    }

    /// Whether a prediction may be tried towards an address; if so it is entered.
    #[must_use]
    pub(crate) fn take_prediction(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.predictions.take(now, ip)
    }

    /// Whether ports of an address may be guessed, or many opened for it; if so it is entered.
    #[must_use]
    pub(crate) fn take_birthday(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.birthdays.take(now, ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// How many of the addresses may be tried, and what that was charged.
    fn take(budget: &mut Budget, now: Instant, addresses: &[SocketAddr]) -> (usize, Vec<Charge>) {
        let granted = budget.take(now, addresses.iter().copied());
        let given = granted.iter().filter(|(_, grant)| matches!(grant, Grant::Given(_))).count();
        let mut charges: Vec<Charge> = granted
            .iter()
            .filter_map(|(_, grant)| if let Grant::Given(charge) = grant { *charge } else { None })
            .collect();
        charges.dedup();
        (given, charges)
    }

    #[test]
    fn d1_three_attempts_a_minute_per_prefix() {
        let mut budget = Budget::default();
        let victim = [addr("192.0.2.1:1"), addr("192.0.2.77:2")];
        for _ in 0..3 {
            let (given, charges) = take(&mut budget, at(0), &victim);
            assert_eq!((given, charges.len()), (2, 1), "one attempt for all addresses of a prefix");
        }
        assert_eq!(budget.take(at(59), victim.into_iter()), victim.map(|a| (a, Grant::Held(at(60)))));
        assert_eq!(take(&mut budget, at(59), &[addr("10.0.0.1:1")]), (1, vec![]), "private ranges are exempt");
        assert_eq!(take(&mut budget, at(60), &victim).0, 2);
    }

    #[test]
    fn d1_what_is_given_back_may_be_used_again_and_only_once() {
        let mut budget = Budget::default();
        let victim = [addr("192.0.2.1:1")];
        let charges: Vec<Charge> = (0..3).flat_map(|s| take(&mut budget, at(s), &victim).1).collect();
        assert_eq!(take(&mut budget, at(3), &victim).0, 0);
        budget.give_back(charges[1]);
        budget.give_back(charges[1]);
        assert_eq!((take(&mut budget, at(4), &victim).0, take(&mut budget, at(4), &victim).0), (1, 0));
        // What has run out is not given back a second time.
        assert_eq!(take(&mut budget, at(60), &victim).0, 1);
        budget.give_back(charges[0]);
        assert_eq!(budget.take(at(60), victim.into_iter()), [(victim[0], Grant::Held(at(62)))]);
    }

    #[test]
    fn d1_a_proven_address_has_thirty_attempts_a_minute_and_its_neighbours_have_three() {
        let mut budget = Budget::default();
        let (proven, neighbour) = ([addr("192.0.2.1:1")], [addr("192.0.2.2:1")]);
        budget.proven(at(0), proven[0].ip());
        assert_eq!((0..99).filter(|_| take(&mut budget, at(0), &proven).0 == 1).count(), 30);
        assert_eq!((0..99).filter(|_| take(&mut budget, at(0), &neighbour).0 == 1).count(), 3);
        let day = 24 * 3_600;
        assert_eq!((0..99).filter(|_| take(&mut budget, at(day), &proven).0 == 1).count(), 3, "a day later");
        for n in 0..10_000u32 {
            budget.proven(at(day), IpAddr::from(n.to_be_bytes()));
        }
        assert!(budget.proven.len() <= PROVEN_MAX);
        let others = (0..10_000u32).map(|n| SocketAddr::new(IpAddr::from((n << 8 | 1).to_be_bytes()), 7));
        let given = others.filter(|to| take(&mut budget, at(day), &[*to]).0 == 1).count();
        assert!(given <= PREFIXES_MAX && budget.attempts.len() <= PREFIXES_MAX, "{given}");
    }

    #[test]
    fn d1_three_birthdays_an_hour_per_prefix() {
        let mut budget = Budget::default();
        let victim = addr("192.0.2.1:1").ip();
        assert_eq!((0..9).filter(|_| budget.take_birthday(at(0), victim)).count(), 3);
        assert!(!budget.take_birthday(at(3_599), addr("192.0.2.9:1").ip()), "the same prefix");
        assert!(budget.take_birthday(at(3_600), victim));
        // However many prefixes there are.
        let others = (0..10_000u32).map(|n| IpAddr::from((n << 8).to_be_bytes()));
        assert!(others.filter(|ip| budget.take_birthday(at(3_600), *ip)).count() < PREFIXES_MAX);
    }

    #[test]
    fn d1_an_address_gets_ten_packets_and_one_kibibyte_whatever_ports_are_named() {
        let mut exposure = Exposure::default();
        let victim = addr("192.0.2.1:1").ip();
        assert_eq!((0..100).filter(|_| exposure.admit(at(0), victim, 1, 42)).count(), 10);
        assert!(!exposure.admit(at(599), victim, 1, 42));
        assert!(exposure.admit(at(600), victim, 3, 750), "ten minutes later");
        assert!(!exposure.admit(at(600), victim, 1, 300), "too many bytes");
        assert!(exposure.admit(at(600), victim, 1, 42));
        exposure.attest(at(600), victim);
        assert_eq!((0..100).filter(|_| exposure.admit(at(601), victim, 1, 42)).count(), 100);
        assert!(exposure.is_attested(at(601), victim) && !exposure.is_attested(at(1_200), victim));
        for n in 0..100u8 {
            assert!(exposure.admit(at(601), IpAddr::from([198, 51, 100, n]), 1, 42));
        }
        assert!(exposure.list.len() <= ADDRESSES_MAX);
    }
}
