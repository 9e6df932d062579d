//! Which supernodes are to keep a record, where this node cannot know all.
//!
//! The nearest that it knows are asked which are the nearest that they know, [`ASKED_AT_ONCE`] at a time, and then those
//! whom they name, until the nearest of all that were named have answered: everybody knows those around itself. Who
//! does not answer is left out, and so is everybody beyond the second of one prefix, since anybody may name his own.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use crate::identity::PeerId;
use crate::overlay::advert::shelf::distance;
use crate::overlay::output::Output;
use crate::overlay::pack::Packer;
use crate::time::Instant;
use crate::wire::address::{Address, Prefix, is_sendable};
use crate::wire::message::Message;

/// So many are asked at once, and so many of the nearest must have answered in the end.
const ASKED_AT_ONCE: usize = 3;
/// An answer comes within this, or not: a link may have to be opened.
const ANSWER_IN: Duration = Duration::from_millis(600);
/// Most that are remembered; the farthest have no place.
const FOUND_MAX: usize = 24;
/// Most of them that are in one prefix, where prefixes count.
const IN_PREFIX_MAX: usize = 2;

#[derive(Debug)]
struct Found {
    peer: PeerId,
    address: SocketAddr,
    is_asked: bool,
    has_answered: bool,
}

/// The search for those that are nearest to one place.
#[derive(Debug)]
pub(super) struct Search {
    target: PeerId,
    /// Nearest first.
    found: Vec<Found>,
    pub(super) due: Option<Instant>,
}

impl Search {
    /// Begins with those that are known, the node `me` perhaps among them.
    pub(super) fn new(target: PeerId, me: &PeerId, known: Vec<(PeerId, SocketAddr)>) -> Self {
        let found = |(peer, address)| Found { peer, address, is_asked: peer == *me, has_answered: peer == *me };
        let mut found: Vec<Found> = known.into_iter().map(found).collect();
        found.sort_by_key(|f| distance(&target, &f.peer));
        Self { target, found, due: None }
    }

    /// Asks the next ones. When their answers are due at the latest; nothing if the search is at its end.
    pub(super) fn go_on(&mut self, now: Instant, out: &mut VecDeque<Output>) -> Option<Instant> {
        // Who was asked before has had its time.
        self.found.retain(|f| f.has_answered || !f.is_asked);
        let mut is_open = false;
        for found in self.found.iter_mut().take(ASKED_AT_ONCE).filter(|f| !f.is_asked) {
            found.is_asked = true;
            is_open = true;
            let question = Message::Seek { peer: self.target, record: false };
            Packer::dialling(found.peer, found.address, out).push(&question);
        }
        is_open.then(|| now + ANSWER_IN)
    }

    /// Somebody names those that it knows. Whether all who were asked have answered.
    pub(super) fn on_nearest(&mut self, from: &PeerId, me: &PeerId, supernodes: &[(PeerId, Address)]) -> bool {
        let Some(found) = self.found.iter_mut().find(|f| f.peer == *from && f.is_asked && !f.has_answered) else {
            return false;
        };
        found.has_answered = true;
        for (peer, address) in supernodes {
            let address = SocketAddr::from(*address);
            let is_here = |f: &&Found| counted(address).is_some() && counted(f.address) == counted(address);
            let is_known = peer == me || *peer == self.target || self.found.iter().any(|f| f.peer == *peer);
            if is_known || !is_sendable(address) || self.found.iter().filter(is_here).count() >= IN_PREFIX_MAX {
                continue;
            }
            let far = distance(&self.target, peer);
            let place = self.found.partition_point(|f| distance(&self.target, &f.peer) < far);
            self.found.insert(place, Found { peer: *peer, address, is_asked: false, has_answered: false });
            if self.found.len() > FOUND_MAX {
                self.found.pop();
            }
        }
        self.found.iter().all(|f| f.has_answered || !f.is_asked)
    }

    /// The `max` nearest: of each prefix one, and others of these only where there are too few.
    pub(super) fn holders(&self, max: usize) -> Vec<(PeerId, SocketAddr)> {
        let mut prefixes = BTreeSet::new();
        let is_first = |f: &&Found| counted(f.address).is_none_or(|prefix| prefixes.insert(prefix));
        let (firsts, others): (Vec<&Found>, Vec<&Found>) = self.found.iter().partition(is_first);
        firsts.into_iter().chain(others).take(max).map(|f| (f.peer, f.address)).collect()
    }
}

fn counted(address: SocketAddr) -> Option<Prefix> {
    (!Prefix::is_exempt(address.ip())).then(|| Prefix::of(address.ip()))
}
