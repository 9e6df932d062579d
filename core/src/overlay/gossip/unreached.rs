//! What others say of the addresses that this supernode advertises: that they have been to one in vain.
//!
//! Whoever sets a supernode up behind a router or a firewall learns from nobody else that an address is wrong: the
//! supernode itself reaches everybody. What is said proves nothing, and moves nothing but what the operator is told.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::account::Source;
use crate::time::{Aged, Instant};
use crate::wire::message::ADVERT_ADDRESSES_MAX;

/// Most that are remembered; at the limit the oldest is struck.
const SAID_MAX: usize = 64;
/// So long it holds, and the operator is not told again.
const HOLDS: Duration = Duration::from_secs(3_600);

/// See [the module](self).
#[derive(Default)]
pub(super) struct Unreached {
    said: Aged<Source, SocketAddr, SAID_MAX>,
    told: Aged<SocketAddr, (), ADVERT_ADDRESSES_MAX>,
}

impl Unreached {
    /// Somebody has been at this address of ours in vain. Says whether the operator is to be told.
    pub(super) fn on_said(&mut self, now: Instant, by: Source, address: SocketAddr) -> bool {
        self.said.insert(now, by, address);
        let is_news = self.told.get(&address).is_none();
        if is_news {
            self.told.insert(now, address, ());
        }
        is_news
    }

    /// Those behind this source have us among their neighbours, for which they have been here.
    pub(super) fn on_reached(&mut self, by: &Source) {
        self.said.remove(by);
    }

    /// Forgets what is old.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.said.forget_while(|at| now.since(at) >= HOLDS);
        self.told.forget_while(|at| now.since(at) >= HOLDS);
    }

    /// The address of which most say so, and how many do.
    pub(super) fn most(&self, is_ours: impl Fn(SocketAddr) -> bool) -> Option<(SocketAddr, usize)> {
        let mut counts = BTreeMap::new();
        for (_, address) in self.said.keys().filter_map(|by| self.said.get(by)).filter(|(_, address)| is_ours(*address))
        {
            *counts.entry(*address).or_insert(0) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::home::testnet::{key, s};

    #[test]
    fn who_says_so_counts_once_and_until_it_has_been_here_or_an_hour_is_over() {
        let mut unreached = Unreached::default();
        let (a, b) = (SocketAddr::from(([203, 0, 113, 1], 1)), SocketAddr::from(([203, 0, 113, 1], 2)));
        let by = |n: u8| Source::Peer(key(n).peer_id());
        assert_eq!(unreached.most(|_| true), None);
        assert!(unreached.on_said(s(1), by(1), a) && !unreached.on_said(s(2), by(1), a));
        assert!(unreached.on_said(s(2), by(2), b) && !unreached.on_said(s(3), by(3), b));
        assert_eq!(unreached.most(|_| true), Some((b, 2)));
        unreached.on_reached(&by(2));
        unreached.on_reached(&by(3));
        assert_eq!(unreached.most(|_| true), Some((a, 1)));
        unreached.on_said(s(3_000), by(4), a);
        unreached.handle_timeout(s(3_602));
        assert_eq!(unreached.most(|_| true), Some((a, 1)));
        unreached.on_reached(&by(4));
        assert_eq!(unreached.most(|_| true), None);
        assert!(unreached.on_said(s(3_602), by(1), a), "it is still so");
    }
}
