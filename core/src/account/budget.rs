//! What keeps a peer from aiming this node at a victim (threat D1).
//!
//! [`Exposure`] is the account of one link: what each IP address got that the peer named and that has shown nothing yet.
//! [`Budget`] counts the node's attempts per prefix, whichever peer they are for.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

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

/// What the addresses that one peer named have got from us. See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposure {
    list: ArrayVec<Spent, ADDRESSES_MAX>,
}

impl Exposure {
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

/// How many attempts may still be made towards a prefix.
#[derive(Debug)]
pub(crate) struct Budget {
    attempts: Count,
    predictions: Count,
    birthdays: Count,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            // Threat D1: three attempts a minute.
            attempts: Count::new(Duration::from_secs(60), 3),
            predictions: Count::new(Duration::from_secs(60), 3),
            // Should a home of ours lie together with a peer, three times 20 s an hour is all they get.
            birthdays: Count::new(Duration::from_secs(3_600), 3),
        }
    }
}

impl Budget {
    /// Takes one attempt out of the budget of each prefix that the addresses fall in; returns those that may be tried.
    pub(crate) fn take(&mut self, now: Instant, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let mut granted: BTreeMap<Prefix, bool> = BTreeMap::new();
        addresses
            .take(ADDRESSES_PER_ATTEMPT_MAX)
            .filter(|addr| {
                if Prefix::is_exempt(addr.ip()) {
                    return true;
                }
                let take = || self.attempts.take(now, addr.ip());
                *granted.entry(Prefix::of(addr.ip())).or_insert_with(take)
            })
            .collect()
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

    #[test]
    fn d1_three_attempts_a_minute_per_prefix() {
        let mut budget = Budget::default();
        let victim = [addr("192.0.2.1:1"), addr("192.0.2.77:2")];
        for _ in 0..3 {
            assert_eq!(budget.take(at(0), victim.into_iter()).len(), 2);
        }
        assert!(budget.take(at(59), victim.into_iter()).is_empty());
        assert_eq!(budget.take(at(59), [addr("10.0.0.1:1")].into_iter()).len(), 1, "private ranges are exempt");
        assert_eq!(budget.take(at(60), victim.into_iter()).len(), 2);
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
