//! The one account of what unproven addresses get from us.
//!
//! Nobody gets an answer larger, in bytes or packets, than what came from the address since it was last proven; and
//! what we send unasked (our Inits, connectivity checks, dial-backs) is counted per address too. A proven address is
//! struck from the account. Every answer to an unproven address goes through [`Ledger::answer`], which is where the
//! rule is asserted.

use core::net::SocketAddr;
use core::time::Duration;

use crate::time::{Aged, Instant};

/// Most addresses on the account. At the limit the oldest is struck, which only ever makes us say less: an address
/// without an entry has received nothing and so gets nothing.
const ADDRESSES_MAX: usize = 4_096;
/// An entry is forgotten after this.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Unasked packets to one address within [`AGE_MAX`]: one attempt of ten checks, or three dials (threat D1).
const UNASKED_MAX: u32 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    received: u64,
    received_packets: u32,
    answered: u64,
    answered_packets: u32,
    unasked: u32,
}

/// What came from each unproven address, and what went there in answer or unasked.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Each with the moment of the first thing entered.
    entries: Aged<SocketAddr, Entry, ADDRESSES_MAX>,
}

impl Ledger {
    /// A request of `bytes` came from an address: an Init whose mac1 is right, or an authentic packet.
    pub(crate) fn received(&mut self, now: Instant, from: SocketAddr, bytes: usize) {
        let entry = self.entry(now, from);
        entry.received += bytes as u64;
        entry.received_packets += 1;
    }

    /// Whether an answer of `bytes` may go there; if so it is entered.
    #[must_use]
    pub(crate) fn answer(&mut self, now: Instant, to: SocketAddr, bytes: usize) -> bool {
        let entry = self.entry(now, to);
        let fits = entry.answered + bytes as u64 <= entry.received && entry.answered_packets < entry.received_packets;
        if fits {
            entry.answered += bytes as u64;
            entry.answered_packets += 1;
        }
        debug_assert!(entry.answered <= entry.received, "amplification");
        fits
    }

    /// Whether something unasked may go there; if so it is entered.
    #[must_use]
    pub(crate) fn unasked(&mut self, now: Instant, to: SocketAddr) -> bool {
        let entry = self.entry(now, to);
        let fits = entry.unasked < UNASKED_MAX;
        entry.unasked += u32::from(fits);
        fits
    }

    /// The address proved itself.
    pub(crate) fn proven(&mut self, address: SocketAddr) {
        self.entries.remove(&address);
    }

    /// Forgets old entries.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.entries.forget_while(|since| now.since(since) > AGE_MAX);
    }

    fn entry(&mut self, now: Instant, address: SocketAddr) -> &mut Entry {
        self.forget_old(now);
        self.entries.get_or_insert(now, address, Entry::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_an_unproven_address_never_gets_more_than_it_sent() {
        let mut ledger = Ledger::default();
        let now = Instant::ZERO;
        let a = SocketAddr::from(([192, 0, 2, 1], 7));
        assert!(!ledger.answer(now, a, 1), "nothing came from there");
        ledger.received(now, a, 100);
        assert!(!ledger.answer(now, a, 101));
        assert!(ledger.answer(now, a, 60));
        assert!(!ledger.answer(now, a, 30), "one packet for one packet");
        ledger.received(now, a, 10);
        assert!(ledger.answer(now, a, 50));
    }

    #[test]
    fn what_is_sent_unasked_is_bounded_and_the_table_too() {
        let mut ledger = Ledger::default();
        let a = SocketAddr::from(([192, 0, 2, 1], 7));
        assert_eq!((0..1_000).filter(|_| ledger.unasked(Instant::ZERO, a)).count(), 10);
        assert!(ledger.unasked(Instant::from_micros(60_000_001), a), "a minute later");
        for n in 0..10_000u32 {
            ledger.received(Instant::from_micros(n.into()), SocketAddr::from((n.to_be_bytes(), 7)), 1);
        }
    }

    #[test]
    fn the_oldest_is_struck_although_more_came_from_it_since() {
        let mut ledger = Ledger::default();
        let max = u32::try_from(ADDRESSES_MAX).expect("small");
        let moment = |us: u32| Instant::from_micros(us.into());
        let address = |n: u32| SocketAddr::from((n.to_be_bytes(), 7));
        // The lower the number, the later it came; then all come again.
        (0..max).for_each(|us| ledger.received(moment(us), address(max - 1 - us), 1));
        (0..max).for_each(|n| ledger.received(moment(max), address(n), 1));
        for n in 0..100 {
            let (oldest, next) = (address(max - 1 - n), address(max - 2 - n));
            assert!(ledger.entries.get(&oldest).is_some());
            ledger.received(moment(max), address(max + n), 1);
            assert!(ledger.entries.get(&oldest).is_none() && ledger.answer(moment(max), next, 1));
        }
        ledger.forget_old(moment(max - 2) + AGE_MAX);
        assert_eq!(ledger.entries.oldest(), Some(moment(max - 2)));
    }
}
