//! Whose turn it is to send: links that may have packets, one after the other.

use std::collections::{BTreeSet, VecDeque};

use crate::net::PeerKey;

/// Links that may have packets, in the order of their turns; each has one place at most.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: VecDeque<PeerKey>,
    set: BTreeSet<PeerKey>,
}

impl Ready {
    /// The link may have packets.
    pub(super) fn mark(&mut self, key: PeerKey) {
        if self.set.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<PeerKey> {
        self.queue.front().copied()
    }

    /// The first has had its turn: it goes to the end if it may have more.
    pub(super) fn turn(&mut self, has_more: bool) {
        let Some(key) = self.queue.pop_front() else { return };
        if has_more {
            self.queue.push_back(key);
        } else {
            self.set.remove(&key);
        }
    }
}
