//! Those of a [`Traversal`] whose checks the budget holds back: a queue, served in its order as the budget frees. It
//! frees with time, when a charge is given back, and when an IP address proves itself.

use core::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::target::Queued;
use super::traversal::Traversal;
use crate::account::Account;
use crate::net::PeerKey;
use crate::time::Instant;

/// Most peers that wait. At the limit one more is refused: it tries again like one that failed.
const WAITING_MAX: usize = 256;

impl Traversal {
    /// When the budget frees next for somebody who waits.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.queue.values().filter_map(|key| Some(self.targets.get(key)?.held.as_ref()?.until)).min()
    }

    /// The next one whose turn has come, taken out of the queue: to be followed by [`handle_turn`](Self::handle_turn)
    /// if the peer is still there. To be asked after every call, until there is none.
    pub(crate) fn poll_turn(&mut self, now: Instant) -> Option<(PeerKey, Queued)> {
        let is_due =
            |key: &PeerKey| self.targets.get(key)?.held.as_ref().filter(|held| held.until <= now).map(|_| *key);
        let key = self.queue.values().find_map(is_due)?;
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
            self.queue.insert(turn, key);
        }
        let held = target.held.get_or_insert_with(|| Queued { turn, addresses: ArrayVec::new(), until });
        held.until = held.until.min(until);
        for (address, _) in addresses {
            if !held.addresses.contains(address) && !held.addresses.is_full() {
                held.addresses.push(*address);
            }
        }
    }

    /// Nothing of this peer is to be checked any more.
    pub(super) fn stop_waiting(&mut self, key: PeerKey) {
        // Its place is free: whoever is behind it comes sooner, but not before the budget frees.
        let _ = self.take_held(key);
    }

    /// The budget is freer at some IP addresses: whoever waits for them asks again.
    pub(super) fn wake(&mut self, is_freer: impl Fn(IpAddr) -> bool) {
        for key in self.queue.values() {
            if let Some(held) = self.targets.get_mut(key).and_then(|target| target.held.as_mut())
                && held.addresses.iter().any(|address| is_freer(address.ip()))
            {
                held.until = Instant::ZERO;
            }
        }
    }

    /// Gives back what the peer's check list was charged and does not owe; `ends`: nothing more is sent.
    pub(super) fn give_back(&mut self, key: PeerKey, account: &mut Account, ends: bool) {
        let pop = |t: &mut Self| t.existing(key)?.checks.as_mut()?.pop_refund(ends);
        while let Some(charge) = pop(self) {
            account.give_back(charge);
            self.wake(|ip| charge.concerns(ip));
        }
    }

    /// What must hold between calls.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn assert_consistent(&self) {
        assert!(self.queue.len() <= WAITING_MAX);
        for (turn, key) in &self.queue {
            let held = self.targets.get(key).and_then(|target| target.held.as_ref());
            assert!(held.is_some_and(|held| held.turn == *turn && !held.addresses.is_empty()));
        }
        let held = self.targets.values().filter(|target| target.held.is_some()).count();
        assert_eq!(held, self.queue.len(), "whoever is held waits");
        let holder = self.birthday.and_then(|key| self.targets.get(&key));
        assert!(self.birthday.is_none() || holder.is_some_and(|target| target.effort.is_some()));
    }

    fn take_held(&mut self, key: PeerKey) -> Option<Queued> {
        let held = self.targets.get_mut(&key)?.held.take()?;
        self.queue.remove(&held.turn);
        Some(held)
    }
}
