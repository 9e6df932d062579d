//! What addresses get from this node at which, as others say, a peer is to be found.
//!
//! Adverts, records, tickets and orders name addresses, and anybody can sign them. So all that leaves unasked for such
//! an address is entered here, whoever named it and for whatever purpose, all ports together: once per IP address, and
//! once for all of its prefix. An IP address that answers is off the account, and what was spent on it is given back
//! to the prefix; each that has answered gives its prefix room for one more that has not, since a hundred honest
//! neighbours must not be taken for one victim. Where there is no place left nothing new is sent anywhere: who fills
//! the table makes this node say less, and who comes by himself needs no place in it.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::{Aged, Instant};
use crate::wire::address::Prefix;

/// Packets to an IP address, or to all of a prefix.
const PACKETS_MAX: u32 = 10;
/// And bytes, with the headers of IP and UDP.
const BYTES_MAX: u32 = 1_024;
/// Most IP addresses on the account. At the limit no new one is sent anything.
const HEARSAY_MAX: usize = 4_096;
/// What an address was sent counts for so long from its first packet.
const HEARSAY_AGE: Duration = Duration::from_secs(600);
/// Who answered is off the account for so long, and up to twice as long.
const ANSWER_AGE: Duration = Duration::from_secs(300);
/// Most IP addresses known to have answered in that time; at the limit they age at once.
const ANSWERED_MAX: usize = 2_048;
/// So many neighbours that have answered make room for one more that has not, each; further ones make none.
const SHARES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    packets: u32,
    bytes: u32,
}

impl Spent {
    fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn without(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_sub(other.packets), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn is_within(self, shares: u32) -> bool {
        self.packets <= PACKETS_MAX * shares && self.bytes <= BYTES_MAX * shares
    }
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    spent: Aged<IpAddr, Spent, HEARSAY_MAX>,
    /// The sums of that over the addresses of each prefix.
    prefixes: BTreeMap<Prefix, Spent>,
    answered: Answered,
}

/// Who answered lately, in order of the addresses. Two lists, of which the younger becomes the older one in time: no
/// entry needs a moment. A leaf has two or three, for which a tree would be a waste.
#[derive(Debug, Default)]
struct Answered {
    since: Instant,
    young: Vec<IpAddr>,
    old: Vec<IpAddr>,
}

impl Answered {
    fn insert(&mut self, now: Instant, ip: IpAddr) {
        self.age(now);
        if self.young.len() >= ANSWERED_MAX {
            self.turn(now);
        }
        if let Err(place) = self.young.binary_search(&ip) {
            self.young.insert(place, ip);
        }
    }

    fn contains(&self, ip: &IpAddr) -> bool {
        self.young.binary_search(ip).is_ok() || self.old.binary_search(ip).is_ok()
    }

    /// How many of a prefix have, up to [`SHARES_MAX`].
    fn of(&self, prefix: Prefix) -> u32 {
        let of = |list: &Vec<IpAddr>| {
            let from = list.partition_point(|ip| *ip < prefix.first());
            list.iter().skip(from).take_while(|ip| **ip <= prefix.last()).take(SHARES_MAX).count()
        };
        // Who answered in both halves counts twice, which is no harm up to the limit.
        u32::try_from((of(&self.young) + of(&self.old)).min(SHARES_MAX)).unwrap_or(u32::MAX)
    }

    fn age(&mut self, now: Instant) {
        let age = now.since(self.since);
        if age >= 2 * ANSWER_AGE {
            self.young = Vec::new();
        }
        if age >= ANSWER_AGE {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Instant) {
        self.old = core::mem::take(&mut self.young);
        self.since = now;
    }
}

impl Hearsay {
    /// Whether [`Self::take`] would say yes.
    pub(super) fn has_room(&mut self, now: Instant, ip: IpAddr, bytes: usize) -> bool {
        self.forget_old(now);
        self.answered.contains(&ip) || self.fits(ip, packet(ip, bytes))
    }

    /// Whether a packet with so many bytes of UDP payload may go there; if so it is entered.
    pub(super) fn take(&mut self, now: Instant, ip: IpAddr, bytes: usize) -> bool {
        self.forget_old(now);
        if self.answered.contains(&ip) {
            return true;
        }
        let packet = packet(ip, bytes);
        if !self.fits(ip, packet) {
            return false;
        }
        let spent = self.spent.get_or_insert(now, ip, Spent::default());
        *spent = spent.and(packet);
        let of_prefix = self.prefixes.entry(Prefix::of(ip)).or_default();
        *of_prefix = of_prefix.and(packet);
        true
    }

    fn fits(&self, ip: IpAddr, packet: Spent) -> bool {
        let spent = match self.spent.get(&ip) {
            Some((_, spent)) => *spent,
            None if self.spent.is_full() => return false,
            None => Spent::default(),
        };
        let prefix = Prefix::of(ip);
        let of_prefix = self.prefixes.get(&prefix).copied().unwrap_or_default();
        spent.and(packet).is_within(1)
            && (Prefix::is_exempt(ip) || of_prefix.and(packet).is_within(1 + self.answered.of(prefix)))
    }

    /// Somebody at this address answered: a handshake of ours was completed there, or a path proved to work.
    pub(super) fn on_answer(&mut self, now: Instant, ip: IpAddr) {
        self.forgive(ip);
        self.answered.insert(now, ip);
    }

    /// What this address was sent is forgotten.
    pub(super) fn forgive(&mut self, ip: IpAddr) {
        if let Some(spent) = self.spent.remove(&ip) {
            self.give_back(ip, spent);
        }
    }

    fn give_back(&mut self, ip: IpAddr, spent: Spent) {
        let prefix = Prefix::of(ip);
        let Some(sum) = self.prefixes.get_mut(&prefix) else { return };
        *sum = sum.without(spent);
        if sum.packets == 0 {
            self.prefixes.remove(&prefix);
            if self.prefixes.is_empty() {
                // An empty tree would keep its root.
                self.prefixes = BTreeMap::new();
            }
        }
    }

    /// Forgets what was too long ago to count.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((ip, spent)) = self.spent.pop_oldest_if(|since| now.since(since) >= HEARSAY_AGE) {
            self.give_back(ip, spent);
        }
        self.answered.age(now);
    }
}

/// One packet, with the headers of IP and UDP.
fn packet(ip: IpAddr, bytes: usize) -> Spent {
    let headers = if ip.is_ipv4() { 28 } else { 48 };
    Spent { packets: 1, bytes: u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(headers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Init by itself.
    const INIT: usize = 162;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn ip(a: u8, b: u8) -> IpAddr {
        IpAddr::from([198, 18, a, b])
    }

    #[test]
    fn h4_an_address_gets_ten_packets_and_a_kibibyte_in_ten_minutes() {
        let mut hearsay = Hearsay::default();
        let packets =
            |hearsay: &mut Hearsay, now, bytes| (0..99).filter(|_| hearsay.take(now, ip(1, 1), bytes)).count();
        assert_eq!(packets(&mut hearsay, at(0), INIT), 5, "190 bytes each, at IP level");
        assert!(!hearsay.has_room(at(599), ip(1, 1), INIT));
        assert_eq!(packets(&mut hearsay, at(600), 1), 10);
        assert!(hearsay.take(at(600), IpAddr::from([0x20; 16]), 1_024 - 48));
        assert!(!hearsay.take(at(600), IpAddr::from([0x20; 16]), 1), "IPv6 has longer headers");
    }

    #[test]
    fn neighbours_of_a_victim_get_no_more_than_the_victim() {
        let mut hearsay = Hearsay::default();
        assert_eq!((0..=255).filter(|n| hearsay.take(at(0), ip(1, *n), INIT)).count(), 5);
        assert!(hearsay.take(at(0), ip(2, 1), INIT), "another prefix");
        // In private ranges a whole network may live: there each address counts by itself.
        assert!((0..=255).all(|n| hearsay.take(at(0), IpAddr::from([192, 168, 1, n]), INIT)));
    }

    #[test]
    fn who_answers_is_off_the_account_and_makes_room_for_a_neighbour() {
        let mut hearsay = Hearsay::default();
        for n in 0..200 {
            assert!(hearsay.take(at(0), ip(1, n), INIT), "{n}: all before it have answered");
            hearsay.on_answer(at(1), ip(1, n));
        }
        assert!((0..99).all(|_| hearsay.take(at(599), ip(1, 7), INIT)));
        // What is not spent on those is left for others: one share, and one for each of so many that answered.
        let silent = |hearsay: &mut Hearsay, now, few: u8| {
            let each = |hearsay: &mut Hearsay, n| (0..6).filter(|_| hearsay.take(now, ip(1, n), INIT)).count();
            (few..=255).map(|n| each(hearsay, n)).sum::<usize>()
        };
        assert_eq!(silent(&mut hearsay, at(600), 200), 56 * 5);
        hearsay.forget_old(at(1_199));
        assert!(hearsay.prefixes.len() == 1 && hearsay.answered.young.is_empty() && hearsay.answered.old.is_empty());
        hearsay.forget_old(at(1_200));
        assert!(hearsay.prefixes.is_empty());
        assert_eq!(silent(&mut hearsay, at(1_200), 0), 5, "that they answered was long ago");
    }

    #[test]
    fn where_no_place_is_left_nothing_is_sent_and_nothing_is_struck_before_its_time() {
        let mut hearsay = Hearsay::default();
        let max = u32::try_from(HEARSAY_MAX).expect("small");
        let address = |n: u32| IpAddr::from((0x1400_0000 + n * 256).to_be_bytes());
        assert!((0..max).all(|n| hearsay.take(at(0), address(n), INIT)));
        assert!(!hearsay.take(at(1), address(max), INIT));
        assert_eq!((0..99).filter(|_| hearsay.take(at(2), address(0), INIT)).count(), 4, "it is still counted");
        hearsay.on_answer(at(3), address(1));
        assert!(hearsay.take(at(3), address(max), INIT), "one place is free");
        assert!(!hearsay.take(at(4), ip(1, 1), INIT));
        assert!(hearsay.take(at(600), ip(1, 1), INIT));
        for n in 0..2 * max {
            hearsay.on_answer(at(700), address(n));
            assert!(hearsay.answered.contains(&address(n)));
        }
        assert!(hearsay.answered.young.len() + hearsay.answered.old.len() <= 2 * ANSWERED_MAX);
    }
}
