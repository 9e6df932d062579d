//! One peer that is to be reached straight: what it said, what is under way, what was tried.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use arrayvec::ArrayVec;

use super::checks::Checks;
use super::effort::Effort;
use crate::account::{ADDRESSES_PER_ATTEMPT_MAX, Exposure};
use crate::identity::PeerId;
use crate::net::SocketId;
use crate::time::{Instant, earliest};
use crate::wire::message::Whereabouts;

/// How long after the n-th failure a relayed link tries to become direct again.
pub(super) fn retry_wait(tries: u32) -> Duration {
    const WAITS: [u64; 6] = [4, 12, 30, 60, 120, 300];
    Duration::from_secs(WAITS[(tries as usize).min(WAITS.len() - 1)])
}

/// A home's word on where the peer is holds for so long.
const SEEN_AGE_MAX: Duration = Duration::from_secs(600);

/// What the budget holds back, and its place in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(super) turn: u64,
    pub(super) addresses: ArrayVec<SocketAddr, ADDRESSES_PER_ATTEMPT_MAX>,
    /// Not before this, as far as is known.
    pub(super) until: Instant,
}

/// What is known, tried and under way to get a direct path to one peer.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// What the peer told us of its addresses.
    pub(super) whereabouts: Whereabouts,
    /// Whether we told it ours on this link.
    pub(super) told: bool,
    pub(super) checks: Option<Checks>,
    /// The peer told us with an Init whose link has not come up yet.
    pub(super) is_announced: bool,
    /// And that link took the place of another one.
    pub(super) is_renewed: bool,
    /// Addresses that wait until they may be checked.
    pub(super) held: Option<Queued>,
    /// Exactly where a home of ours sees the peer.
    pub(super) seen: Option<(SocketAddr, Instant)>,
    /// When to try to become direct again, and how often that was tried.
    pub(super) retry: Option<(Instant, u32)>,
    /// Which traversal attempt this is.
    pub(super) attempt: u8,
    /// The last one whose effort ended in vain.
    pub(super) tried: Option<u8>,
    pub(super) effort: Option<Effort>,
    /// Open for efforts, present and past.
    pub(super) sockets: BTreeSet<SocketId>,
    /// When to look whether they are still of use.
    pub(super) sweep: Option<Instant>,
    /// What the addresses that the peer named have got from us.
    pub(super) exposure: Exposure,
    /// The supernode that we last asked to tell the peer where we are.
    pub(super) vouched: Option<(PeerId, Instant)>,
}

impl Target {
    /// The link is another one to the same peer: all starts again, but what the peer told of itself holds, since its
    /// Init did; so do the checks that may have begun with that. What its addresses got is not forgotten.
    pub(super) fn renew(&mut self) {
        let Self { whereabouts, is_announced, checks, exposure, seen, sockets, .. } = core::mem::take(self);
        let is_renewed = is_announced;
        *self = Self { whereabouts, checks, is_announced, is_renewed, seen, sockets, exposure, ..Self::default() };
    }

    /// Nothing more is under way: a path is found, or tried for anew from the start.
    pub(super) fn start_over(&mut self) {
        (self.retry, self.attempt, self.tried) = (None, 0, None);
    }

    /// Whether a home of ours sees the peer exactly there.
    pub(super) fn is_seen_at(&self, now: Instant, address: SocketAddr) -> bool {
        self.seen.is_some_and(|(seen, at)| seen == address && now.since(at) < SEEN_AGE_MAX)
    }

    /// When there is something to do, but for what is held.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let at = earliest(self.checks.as_ref().and_then(Checks::poll_timeout), self.retry.map(|(at, _)| at));
        earliest(at, earliest(self.effort.as_ref().and_then(Effort::poll_timeout), self.sweep))
    }
}
