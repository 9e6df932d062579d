//! Volunteers as an end knows them: named by its homes, or found to be of no use.
//!
//! An end asks its homes when a link of its needs a relay and a volunteer may be the one, once for all its links. What
//! they name is hearsay: it is good for being called, like any leaf, and what it is worth shows then.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use super::around::Around;
use super::output::Output;
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::time::{Aged, Instant};
use crate::wire::message::Message;

/// Most volunteers known. At the limit the one named longest ago goes.
const KNOWN_MAX: usize = 16;
/// Most that are avoided because they were of no use. At the limit the first goes.
const AVOIDED_MAX: usize = 64;
/// What a home names is good for so long, and what was of no use is avoided for so long.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Homes are asked no more often than this.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Whoever needs a relay waits so long for the answers.
pub(super) const ASK_WAIT: Duration = Duration::from_millis(400);

/// The volunteers that this end knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    named: Aged<PeerId, (), KNOWN_MAX>,
    avoided: Aged<PeerId, (), AVOIDED_MAX>,
    asked: Option<Instant>,
    /// Homes whose answer is awaited, and the links that wait for it.
    awaited: Vec<PeerKey>,
    waiting: BTreeSet<PeerKey>,
}

impl Known {
    /// Those named lately, in order.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        let is_new = move |id: &&PeerId| self.named.get(id).is_some_and(|(at, ())| now.since(*at) < AGE_MAX);
        self.named.keys().filter(is_new).copied()
    }

    /// Asks this end's homes for a link, unless it knows some or has asked lately. Whether an answer may come.
    pub(super) fn ask(&mut self, now: Instant, link: PeerKey, around: &Around<'_>, out: &mut VecDeque<Output>) -> bool {
        self.forget_old(now);
        if self.iter(now).next().is_some() {
            return false;
        }
        if self.asked.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            self.asked = Some(now);
            self.awaited = around.homes.iter().filter_map(|(home, _)| around.peers.up_key(home)).collect();
            let ask = |home: &PeerKey| Output::Send { peer: *home, message: Message::VolunteersRequest };
            out.extend(self.awaited.iter().map(ask));
        }
        let is_asking = self.is_asking(now);
        if is_asking {
            self.waiting.insert(link);
        }
        is_asking
    }

    /// Whether an answer may come.
    pub(super) fn is_asking(&self, now: Instant) -> bool {
        !self.awaited.is_empty() && self.asked.is_some_and(|at| now.since(at) < ASK_WAIT)
    }

    /// A home has answered. The links that need not wait any longer.
    pub(super) fn on_named(&mut self, now: Instant, home: PeerKey, named: &[PeerId]) -> BTreeSet<PeerKey> {
        // Nobody names anything unasked.
        let Some(at) = self.awaited.iter().position(|awaited| *awaited == home) else { return BTreeSet::new() };
        self.awaited.remove(at);
        for id in named {
            if !self.avoids(now, id) {
                self.named.insert(now, *id, ());
            }
        }
        if named.is_empty() && !self.awaited.is_empty() { BTreeSet::new() } else { core::mem::take(&mut self.waiting) }
    }

    /// It could not be reached, or did not join the two.
    pub(super) fn avoid(&mut self, now: Instant, id: PeerId) {
        self.named.remove(&id);
        self.avoided.insert(now, id, ());
    }

    /// Whether it was of no use lately.
    pub(super) fn avoids(&self, now: Instant, id: &PeerId) -> bool {
        self.avoided.get(id).is_some_and(|(at, ())| now.since(*at) < AGE_MAX)
    }

    fn forget_old(&mut self, now: Instant) {
        self.named.forget_while(|at| now.since(at) >= AGE_MAX);
        self.avoided.forget_while(|at| now.since(at) >= AGE_MAX);
        if self.asked.is_some_and(|at| now.since(at) >= ASK_WAIT) {
            (self.awaited, self.waiting) = (Vec::new(), BTreeSet::new());
        }
    }
}
