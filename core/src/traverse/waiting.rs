//! Those of a [`Traversal`] whose checks the budget holds back: a queue, served in its order as the budget frees. It
//! frees with time, when a charge is given back, and when an IP address proves itself.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(any(test, feature = "operations"))]
use std::collections::BTreeSet;

use arrayvec::ArrayVec;

use super::target::Queued;
use super::traversal::Traversal;
use crate::account::{Account, Scope};
use crate::net::PeerKey;
use crate::time::Instant;
use crate::wire::address::Prefix;

/// Most peers that wait. At the limit one more is refused: it tries again like one that failed.
const WAITING_MAX: usize = 256;

/// Where to begin to look among keys.
const FIRST: PeerKey = PeerKey { index: 0, generation: 0 };

impl Traversal {
    /// When the budget frees next for somebody who waits.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.queue.first().map(|(until, ..)| *until)
    }

    /// The next one whose turn has come, taken out of the queue: to be followed by [`handle_turn`](Self::handle_turn)
    /// if the peer is still there. To be asked after every call, until there is none.
    pub(crate) fn poll_turn(&mut self, now: Instant) -> Option<(PeerKey, Queued)> {
        // Whoever may ask again stands at the very front, where turns alone decide.
        while let Some(&(until, _, key)) = self.queue.range((Instant::from_micros(1), 0, FIRST)..).next()
            && until <= now
        {
            self.bring_forward(key, Instant::ZERO);
        }
        let &(_, _, key) = self.queue.first().filter(|(until, ..)| *until <= now)?;
        Some((key, self.take_held(key)?))
    }

    /// Whether somebody's turn has come.
    pub(super) fn is_turn_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Has addresses wait until each may be checked.
    pub(super) fn hold(&mut self, key: PeerKey, addresses: &[(SocketAddr, Instant)], turn: Option<u64>) {
        let Some(until) = addresses.iter().map(|(_, until)| *until).min() else { return };
        let is_full = self.queue.len() >= WAITING_MAX;
        let turn = turn.unwrap_or(self.turns);
        let Some(target) = self.targets.get_mut(&key) else { return };
        if target.held.is_none() {
            if is_full {
                return;
            }
            self.turns += 1;
            self.queue.insert((until, turn, key));
        }
        let held = target.held.get_or_insert_with(|| Queued { turn, addresses: ArrayVec::new(), until });
        for (address, _) in addresses {
            if !held.addresses.contains(address) && !held.addresses.is_full() {
                held.addresses.push(*address);
                self.awaited.insert(awaited(*address, key));
            }
        }
        self.bring_forward(key, until);
    }

    /// Nothing of this peer is to be checked any more.
    pub(super) fn stop_waiting(&mut self, key: PeerKey) {
        // Its place is free: whoever is behind it comes sooner, but not before the budget frees.
        let _ = self.take_held(key);
    }

    /// The budget is freer at some IP addresses: whoever waits for them asks again.
    pub(super) fn wake(&mut self, freer: Scope) {
        let (prefix, first) = match freer {
            Scope::Prefix(prefix) => (prefix, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Scope::Proven(ip) => (Prefix::of(ip), ip),
        };
        let is_freer = |(of, ip, _): &&(Prefix, IpAddr, PeerKey)| match freer {
            Scope::Prefix(_) => *of == prefix,
            Scope::Proven(_) => *ip == first,
        };
        let awaiting = self.awaited.range((prefix, first, FIRST)..).take_while(is_freer);
        for key in awaiting.map(|(.., key)| *key).collect::<Vec<_>>() {
            self.bring_forward(key, Instant::ZERO);
        }
    }

    /// The budget frees for this peer by then, if not sooner.
    fn bring_forward(&mut self, key: PeerKey, until: Instant) {
        if let Some(held) = self.targets.get_mut(&key).and_then(|target| target.held.as_mut())
            && until < held.until
        {
            self.queue.remove(&(held.until, held.turn, key));
            held.until = until;
            self.queue.insert((until, held.turn, key));
        }
    }

    /// Gives back what the peer's check list was charged and does not owe; `ends`: nothing more is sent.
    pub(super) fn give_back(&mut self, key: PeerKey, account: &mut Account, ends: bool) {
        let pop = |t: &mut Self| t.existing(key)?.checks.as_mut()?.pop_refund(ends);
        while let Some(charge) = pop(self) {
            account.give_back(charge);
            self.wake(charge.scope());
        }
    }

    /// What must hold between calls.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn assert_consistent(&self) {
        assert!(self.queue.len() <= WAITING_MAX);
        let held = || self.targets.iter().filter_map(|(key, target)| Some((*key, target.held.as_ref()?)));
        let queue: BTreeSet<_> = held().map(|(key, held)| (held.until, held.turn, key)).collect();
        assert_eq!(self.queue, queue, "whoever is held waits");
        let of = |(key, held): (_, &Queued)| held.addresses.iter().map(|to| awaited(*to, key)).collect::<Vec<_>>();
        assert!(held().all(|(_, held)| !held.addresses.is_empty()));
        assert_eq!(self.awaited, held().flat_map(of).collect(), "and for its addresses");
        let holder = self.birthday.and_then(|(key, _)| self.targets.get(&key));
        assert!(self.birthday.is_none() || holder.is_some_and(|target| target.effort.is_some()));
    }

    fn take_held(&mut self, key: PeerKey) -> Option<Queued> {
        let held = self.targets.get_mut(&key)?.held.take()?;
        self.queue.remove(&(held.until, held.turn, key));
        for address in &held.addresses {
            self.awaited.remove(&awaited(*address, key));
        }
        Some(held)
    }
}

/// How it is found who waits for an address.
fn awaited(address: SocketAddr, key: PeerKey) -> (Prefix, IpAddr, PeerKey) {
    (Prefix::of(address.ip()), address.ip(), key)
}
