//! Pings of the application: each measures one round trip on the path that is in use when it leaves.
//!
//! [`Pings`] numbers them and knows which are under way; `pinging.rs` sends them.
//!
//! A ping has a number from the start ([`Pings::next_number`]). Where there is no path yet it waits for one
//! ([`Pings::wait`], [`Pings::take_waiting`]); then it leaves as a challenge with a token ([`Pings::on_sent`]), and the
//! answer to that ends it ([`Pings::on_reply`]). One whose answer is lost has no answer at all.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::time::Instant;

/// Most pings under way, and most that wait for one peer. At the limit the oldest goes unanswered, and the newest.
const PINGS_MAX: usize = 256;

/// A ping under way.
#[derive(Debug)]
struct Ping {
    peer: PeerKey,
    number: u64,
    token: [u8; 8],
    at: Instant,
}

/// Pings that are under way, those that wait for a link, and the number of the next.
#[derive(Debug, Default)]
pub(super) struct Pings {
    next: u64,
    under_way: VecDeque<Ping>,
    waiting: BTreeMap<PeerId, Vec<u64>>,
}

impl Pings {
    /// The number of a new one.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// There is no path to its peer yet.
    pub(super) fn wait(&mut self, peer: PeerId, number: u64) {
        let waiting = self.waiting.entry(peer).or_default();
        if waiting.len() < PINGS_MAX {
            waiting.push(number);
        }
    }

    /// Whether any wait for this peer.
    pub(super) fn waits_for(&self, peer: &PeerId) -> bool {
        self.waiting.contains_key(peer)
    }

    /// Those that waited for this peer, which are sent or given up.
    pub(super) fn take_waiting(&mut self, peer: &PeerId) -> Vec<u64> {
        self.waiting.remove(peer).unwrap_or_default()
    }

    /// One leaves now, with this token.
    pub(super) fn on_sent(&mut self, now: Instant, peer: PeerKey, number: u64, token: [u8; 8]) {
        while self.under_way.len() >= PINGS_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back(Ping { peer, number, token, at: now });
    }

    /// A challenge was answered: the number and the round trip, if it was one of these.
    pub(super) fn on_reply(&mut self, now: Instant, peer: PeerKey, token: [u8; 8]) -> Option<(u64, Duration)> {
        let at = self.under_way.iter().position(|p| p.peer == peer && p.token == token)?;
        let ping = self.under_way.remove(at)?;
        Some((ping.number, now.since(ping.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    const PEER: PeerKey = PeerKey { index: 0, generation: 1 };

    #[test]
    fn each_is_answered_once_by_its_peer() {
        let mut pings = Pings::default();
        let (now, later) = (Instant::ZERO, Instant::from_micros(9));
        assert_eq!([pings.next_number(), pings.next_number()], [0, 1]);
        pings.on_sent(now, PEER, 0, [1; 8]);
        pings.on_sent(now, PEER, 1, [2; 8]);
        assert_eq!(pings.on_reply(later, PeerKey { generation: 2, ..PEER }, [1; 8]), None);
        assert_eq!(pings.on_reply(later, PEER, [2; 8]), Some((1, Duration::from_micros(9))));
        assert_eq!(pings.on_reply(later, PEER, [2; 8]), None);
        assert_eq!(pings.on_reply(later, PEER, [1; 8]), Some((0, Duration::from_micros(9))));
    }

    #[test]
    fn at_the_limit_the_oldest_under_way_and_the_newest_waiting_are_lost() {
        let mut pings = Pings::default();
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        for number in 0..=PINGS_MAX as u64 {
            pings.wait(peer, number);
        }
        assert!(pings.waits_for(&peer));
        let waiting = pings.take_waiting(&peer);
        assert_eq!((waiting.len(), waiting.last().copied()), (PINGS_MAX, Some(PINGS_MAX as u64 - 1)));
        assert!(!pings.waits_for(&peer) && pings.take_waiting(&peer).is_empty());
        for number in 0..=PINGS_MAX as u64 {
            pings.on_sent(Instant::ZERO, PEER, number, number.to_be_bytes());
        }
        assert_eq!(pings.on_reply(Instant::ZERO, PEER, 0_u64.to_be_bytes()), None);
        assert!(pings.on_reply(Instant::ZERO, PEER, 1_u64.to_be_bytes()).is_some());
    }
}
