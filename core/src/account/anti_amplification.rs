//! The one account of what unproven addresses get from us.
//!
//! Nobody gets an answer larger, in bytes or packets, than what came from the address since it was last proven; and
//! what we send unasked (our Inits, connectivity checks, dial-backs) is counted per address too. A proven address is
//! struck from the entry. Every answer to an unproven address goes through [`Ledger::answer`], which is where the
//! rule is asserted.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Instant;

/// Most addresses on the entry. At the limit the oldest is struck, which only ever makes us say less: an address
/// without an entry has received nothing and so gets nothing.
const ADDRESSES_MAX: usize = 4_096;
/// An entry is forgotten after this.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Unasked packets to one address within [`AGE_MAX`]: one attempt of ten checks, or three dials (threat D1).
const UNASKED_MAX: u32 = 10;

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Instant,
    received: u64,
    received_packets: u32,
    answered: u64,
    answered_packets: u32,
    unasked: u32,
}

/// What came from each unproven address, and what went there in answer or unasked.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<SocketAddr, Entry>,
    swept: Option<Instant>,
}

impl Ledger {
    /// An authentic request of `bytes` came from an address.
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

    /// Forgets old entries, if that was not done lately.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|at| now.since(at) > AGE_MAX) {
            self.swept = Some(now);
            self.entries.retain(|_, a| now.since(a.since) <= AGE_MAX);
            if self.entries.is_empty() {
                // An empty tree would keep its root.
                self.entries = BTreeMap::new();
            }
        }
    }

    fn entry(&mut self, now: Instant, address: SocketAddr) -> &mut Entry {
        if self.entries.len() >= ADDRESSES_MAX && !self.entries.contains_key(&address) {
            let oldest = self.entries.iter().min_by_key(|(_, a)| a.since).map(|(address, _)| *address);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        let fresh =
            Entry { since: now, received: 0, received_packets: 0, answered: 0, answered_packets: 0, unasked: 0 };
        let entry = self.entries.entry(address).or_insert(fresh);
        if now.since(entry.since) > AGE_MAX {
            *entry = fresh;
        }
        entry
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
        assert!(ledger.entries.len() <= ADDRESSES_MAX);
    }
}
