//! What keeps a peer from aiming this node at a victim (threat D1).
//!
//! [`Exposure`] is the account of one link: what each IP address got that the peer named and that has shown nothing
//! yet. [`Budget`] counts the node's attempts per prefix, whichever peer they are for.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use crate::time::{Aged, Instant};
use crate::wire::address::{CANDIDATES_MAX, Prefix};

/// Packets to an IP address, all its ports together, before it has shown that the peer is there.
const PACKETS_MAX: u8 = 10;
/// And bytes of UDP payload.
const BYTES_MAX: u16 = 1_024;
/// Most IP addresses on the account. At the limit the oldest entry or attestation is struck; the prefix's [`Budget`]
/// still holds.
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
                let oldest = (0..self.list.len()).min_by_key(|at| self.list[*at].since);
                self.list.remove(oldest.unwrap_or(0));
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
    /// Each with the moment from which it counts.
    taken: Aged<Prefix, u8, PREFIXES_MAX>,
}

impl Count {
    fn new(window: Duration, most: u8) -> Self {
        Self { window, most, taken: Aged::default() }
    }

    fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.taken.forget_while(|since| now.since(since) >= self.window);
        let prefix = Prefix::of(ip);
        if self.taken.is_full() && self.taken.get(&prefix).is_none() {
            return false;
        }
        let n = self.taken.get_or_insert(now, prefix, 0);
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
    /// Each with the moment of its oldest.
    attempts: Aged<Scope, Taken, PREFIXES_MAX>,
    /// Each with the moment when it last answered.
    proven: Aged<IpAddr, (), PROVEN_MAX>,
    charges: u64,
    predictions: Count,
    birthdays: Count,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            attempts: Aged::default(),
            proven: Aged::default(),
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
        let Some(mut taken) = self.attempts.remove(&charge.scope) else { return };
        taken.retain(|(_, number)| *number != charge.number);
        self.put_back(charge.scope, taken);
    }

    /// Enters again what is left of a scope's attempts, if anything is.
    fn put_back(&mut self, scope: Scope, taken: Taken) {
        if let Some((oldest, _)) = taken.front() {
            self.attempts.insert(*oldest, scope, taken);
        }
    }

    /// A peer answered from this IP address, or a home of ours sees it there.
    pub(crate) fn proven(&mut self, now: Instant, ip: IpAddr) {
        self.proven.insert(now, ip, ());
    }

    fn scope_of(&mut self, now: Instant, ip: IpAddr) -> Scope {
        match self.proven.get(&ip) {
            Some((at, ())) if now.since(*at) < PROVEN_AGE_MAX => Scope::Proven(ip),
            _ => Scope::Prefix(Prefix::of(ip)),
        }
    }

    fn charge(&mut self, now: Instant, scope: Scope) -> Grant {
        let has_run_out = |at: Instant| now.since(at) >= ATTEMPTS_EVERY;
        while let Some((scope, mut taken)) = self.attempts.pop_oldest_if(has_run_out) {
            taken.retain(|(at, _)| !has_run_out(*at));
            self.put_back(scope, taken);
        }
        let most = match scope {
            Scope::Prefix(_) => PREFIX_ATTEMPTS_MAX,
            Scope::Proven(_) => PROVEN_ATTEMPTS_MAX,
        };
        if self.attempts.is_full() && self.attempts.get(&scope).is_none() {
            return Grant::Held(self.attempts.oldest().unwrap_or(now) + ATTEMPTS_EVERY);
        }
        let taken = self.attempts.get_or_insert(now, scope, Taken::new());
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
        let others = (0..10_000u32).map(|n| SocketAddr::new(IpAddr::from((n << 8 | 1).to_be_bytes()), 7));
        let given = others.filter(|to| take(&mut budget, at(day), &[*to]).0 == 1).count();
        assert!(given <= PREFIXES_MAX, "{given}");
    }

    #[test]
    fn of_the_proven_the_one_longest_silent_goes() {
        let mut budget = Budget::default();
        let ip = |n: u32| IpAddr::from((0x2000_0000 + n).to_be_bytes());
        let max = u32::try_from(PROVEN_MAX).expect("small");
        (0..max).for_each(|n| budget.proven(at(0), ip(n)));
        // All answer again, in the opposite order.
        (0..max).rev().for_each(|n| budget.proven(Instant::from_micros((max - n).into()), ip(n)));
        for n in 0..100 {
            assert!(budget.proven.get(&ip(max - 1 - n)).is_some());
            budget.proven(at(1), ip(max + n));
            assert!(budget.proven.get(&ip(max - 1 - n)).is_none());
        }
    }

    #[test]
    fn attempts_and_predictions_are_those_that_a_search_through_all_would_allow() {
        let mut chance = crate::random::ChoiceRng::new([5; 32]);
        let mut budget = Budget::default();
        // Attempts by prefix, with their charges, and since when how many predictions were taken.
        let mut attempts: Vec<(u8, Instant, Charge)> = Vec::new();
        let mut predictions: BTreeMap<u8, (Instant, u8)> = BTreeMap::new();
        let mut now = at(0);
        for _ in 0..5_000 {
            now += Duration::from_secs(chance.below(3) as u64);
            let n = u8::try_from(chance.below(40)).expect("small");
            let to = SocketAddr::from(([192, 0, n, 1], 7));
            attempts.retain(|(_, at, _)| now - *at < ATTEMPTS_EVERY);
            predictions.retain(|_, (since, _)| now - *since < Duration::from_secs(60));
            if chance.below(4) == 0 && !attempts.is_empty() {
                let (_, _, charge) = attempts.remove(chance.below(attempts.len()));
                budget.give_back(charge);
            }
            let theirs = || attempts.iter().filter(|(other, ..)| *other == n);
            let held =
                (theirs().count() >= PREFIX_ATTEMPTS_MAX).then(|| theirs().map(|(_, at, _)| *at).min()).flatten();
            match (budget.take(now, core::iter::once(to))[0].1, held) {
                (Grant::Given(Some(charge)), None) => attempts.push((n, now, charge)),
                (grant, held) => assert_eq!(Some(grant), held.map(|at| Grant::Held(at + ATTEMPTS_EVERY))),
            }
            assert_eq!(budget.attempts.oldest(), attempts.iter().map(|(_, at, _)| *at).min());
            let (_, count) = predictions.entry(n).or_insert((now, 0));
            assert_eq!(budget.take_prediction(now, to.ip()), *count < 3);
            *count += 1;
        }
    }

    #[test]
    fn at_the_limit_no_new_prefix_is_tried_before_the_oldest_has_run_out() {
        let mut budget = Budget::default();
        let to = |n: u32| SocketAddr::new(IpAddr::from((0x2000_0000 + (n << 8)).to_be_bytes()), 7);
        let max = u32::try_from(PREFIXES_MAX).expect("small");
        let moment = |n: u32| Instant::from_micros((max - n).into());
        let charges: Vec<Charge> = (0..max).rev().flat_map(|n| take(&mut budget, moment(n), &[to(n)]).1).collect();
        let held = |budget: &mut Budget| budget.take(at(1), core::iter::once(to(max)))[0].1;
        assert_eq!(held(&mut budget), Grant::Held(moment(max - 1) + ATTEMPTS_EVERY));
        assert_eq!(take(&mut budget, at(1), &[to(max - 1)]).0, 1, "one that is known");
        budget.give_back(charges[1]);
        assert!(matches!(held(&mut budget), Grant::Given(_)), "there is room for one");
        assert_eq!(
            budget.take(at(1), core::iter::once(to(max - 2)))[0].1,
            Grant::Held(moment(max - 1) + ATTEMPTS_EVERY)
        );
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
    }

    #[test]
    fn the_oldest_on_the_account_goes_and_not_who_was_just_attested() {
        let mut exposure = Exposure::default();
        let ip = |n: u8| IpAddr::from([198, 51, 100, n]);
        for n in 0..32 {
            assert!(exposure.admit(at(n.into()), ip(n), 10, 10));
        }
        exposure.attest(at(40), ip(0));
        assert!(exposure.admit(at(41), ip(32), 1, 10));
        assert!(exposure.is_attested(at(41), ip(0)));
        assert!(!exposure.has_room(at(41), ip(2), 1, 10), "it is still on the account");
        assert!(exposure.has_room(at(41), ip(1), 10, 10), "it was the oldest");
    }
}
