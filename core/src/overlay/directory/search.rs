//! Which supernodes are to keep a record, where this node cannot know all.
//!
//! The nearest that it knows are asked which are the nearest that they know, [`ASKED_AT_ONCE`] at a time, and then those
//! whom they name, until the nearest of all that were named have answered: everybody knows those around itself. Who
//! does not answer is left out, and so is everybody beyond the second of one prefix, since anybody may name his own.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use crate::identity::PeerId;
use crate::overlay::advert::shelf::distance;
use crate::overlay::output::Output;
use crate::overlay::pack::Packer;
use crate::time::Instant;
use crate::wire::address::{Address, Prefix, Range, is_sendable};
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
    /// How many name it, this node among them.
    names: u8,
}

/// Somebody of whom only one says that it is there may be made up.
const NAMES_ENOUGH: u8 = 2;

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
        let found = |(peer, address)| {
            let is_me = peer == *me;
            Found { peer, address, is_asked: is_me, has_answered: is_me, names: NAMES_ENOUGH }
        };
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
    pub(super) fn on_nearest(
        &mut self,
        (from, ip): (&PeerId, Option<IpAddr>),
        me: &PeerId,
        supernodes: &[(PeerId, Address)],
    ) -> bool {
        let Some(found) = self.found.iter_mut().find(|f| f.peer == *from && f.is_asked && !f.has_answered) else {
            return false;
        };
        found.has_answered = true;
        for (nth, (peer, address)) in supernodes.iter().enumerate() {
            if supernodes.iter().take(nth).any(|(other, _)| other == peer) {
                // Once is enough.
                continue;
            }
            let address = SocketAddr::from(*address);
            let is_here = |f: &&Found| {
                Prefix::counted(address.ip()).is_some()
                    && Prefix::counted(f.address.ip()) == Prefix::counted(address.ip())
            };
            if let Some(known) = self.found.iter_mut().find(|f| f.peer == *peer) {
                known.names = known.names.saturating_add(1);
                continue;
            }
            let is_right = is_sendable(address) && Range::is_heard_right(address.ip(), ip);
            if peer == me
                || *peer == self.target
                || !is_right
                || self.found.iter().filter(is_here).count() >= IN_PREFIX_MAX
            {
                continue;
            }
            let far = distance(&self.target, peer);
            let place = self.found.partition_point(|f| distance(&self.target, &f.peer) < far);
            self.found.insert(place, Found { peer: *peer, address, is_asked: false, has_answered: false, names: 1 });
            if self.found.len() > FOUND_MAX {
                self.found.pop();
            }
        }
        self.found.iter().all(|f| f.has_answered || !f.is_asked)
    }

    /// The `max` nearest of those that answered or that more than one names: of each prefix one, and others of these only
    /// where there are too few.
    pub(super) fn holders(&self, max: usize) -> Vec<(PeerId, SocketAddr)> {
        let mut prefixes = BTreeSet::new();
        let is_first = |f: &&Found| Prefix::counted(f.address.ip()).is_none_or(|prefix| prefixes.insert(prefix));
        let there = self.found.iter().filter(|f| f.has_answered || f.names >= NAMES_ENOUGH);
        let (firsts, others): (Vec<&Found>, Vec<&Found>) = there.partition(is_first);
        firsts.into_iter().chain(others).take(max).map(|f| (f.peer, f.address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::overlay::home::testnet::{generators, key, s};
    use crate::wire::message::decode_next;

    type All = BTreeMap<PeerId, SocketAddr>;

    fn network() -> All {
        let at = |n: u8| SocketAddr::from(([203, 0, n, 1], 4_000));
        (1..=240).map(|n| (key(n).peer_id(), at(n))).collect()
    }

    /// The nearest to `target`, of these.
    fn nearest(target: &PeerId, of: impl Iterator<Item = PeerId>, max: usize) -> Vec<PeerId> {
        let mut all: Vec<PeerId> = of.collect();
        all.sort_by_key(|peer| distance(target, peer));
        all.truncate(max);
        all
    }

    /// Everybody knows the 16 around itself, and 24 others.
    fn views(all: &All) -> BTreeMap<PeerId, BTreeSet<PeerId>> {
        let mut random = generators(3);
        let ids: Vec<PeerId> = all.keys().copied().collect();
        let mut view = |of: &PeerId| {
            let near = nearest(of, ids.iter().copied(), 17).into_iter();
            let others: Vec<PeerId> = (0..24).map(|_| ids[random.peer_choice.below(ids.len())]).collect();
            near.chain(others).filter(|peer| peer != of).collect()
        };
        all.keys().map(|peer| (*peer, view(peer))).collect()
    }

    /// Runs a search to its end, and says how many were asked. `answers`: whether somebody does.
    fn run(search: &mut Search, me: &PeerId, all: &All, answers: impl Fn(&PeerId) -> bool) -> usize {
        let (views, mut asked, mut out) = (views(all), 0, VecDeque::new());
        while search.go_on(s(1), &mut out).is_some() {
            for output in core::mem::take(&mut out) {
                let Output::SendAt { to, messages, .. } = output else { panic!() };
                let Ok(Message::Seek { peer, record: false }) = decode_next(&mut &*messages) else { panic!() };
                asked += 1;
                let named: Vec<(PeerId, Address)> =
                    nearest(&peer, views[&to].iter().copied(), 8).into_iter().map(|p| (p, all[&p].into())).collect();
                if answers(&to) {
                    search.on_nearest((&to, None), me, &named);
                }
            }
        }
        asked
    }

    #[test]
    fn the_nearest_of_all_are_found_by_those_who_know_some() {
        let (all, me) = (network(), key(1).peer_id());
        let known = views(&all)[&me].clone();
        let mut all_asked = 0;
        for leaf in 241..=254 {
            let leaf = key(leaf).peer_id();
            let begin = nearest(&leaf, known.iter().copied(), 8).into_iter().map(|peer| (peer, all[&peer])).collect();
            let mut search = Search::new(leaf, &me, begin);
            all_asked += run(&mut search, &me, &all, |_| true);
            let found: Vec<PeerId> = search.holders(8).into_iter().map(|(peer, _)| peer).collect();
            let mut right = nearest(&leaf, all.keys().copied(), 9);
            right.retain(|peer| *peer != me);
            let hits = found.iter().filter(|peer| right.contains(peer)).count();
            assert!(hits >= 7, "{hits} of the nearest 8");
        }
        assert!(all_asked <= 14 * 8, "{all_asked} questions for 14 searches");
    }

    #[test]
    fn who_is_silent_is_left_out_and_of_one_prefix_two_are_listened_to() {
        let (mut all, me) = (network(), key(1).peer_id());
        let leaf = key(250).peer_id();
        let dead = nearest(&leaf, all.keys().copied(), 1)[0];
        let begin: Vec<_> = nearest(&leaf, all.keys().copied(), 8).into_iter().map(|peer| (peer, all[&peer])).collect();
        let mut search = Search::new(leaf, &me, begin.clone());
        run(&mut search, &me, &all, |peer| *peer != dead);
        assert!(search.holders(8).iter().all(|(peer, _)| *peer != dead));
        // Everybody else who is near is in one prefix.
        for peer in nearest(&leaf, all.keys().copied(), 60).into_iter().skip(8) {
            all.insert(peer, SocketAddr::from(([198, 51, 100, 1], 4_000)));
        }
        let mut search = Search::new(leaf, &me, begin);
        run(&mut search, &me, &all, |_| true);
        assert!(search.found.len() <= FOUND_MAX);
        let there =
            search.found.iter().filter(|f| f.address.ip() == core::net::IpAddr::from([198, 51, 100, 1])).count();
        assert!(there <= IN_PREFIX_MAX);
    }

    #[test]
    fn whom_only_one_names_holds_nothing_however_often_it_is_named() {
        let (me, target) = (key(1).peer_id(), key(250).peer_id());
        let at = |n: u8| SocketAddr::from(([203, 0, n, 1], 4_000));
        let known = (2..5).map(|n| (key(n).peer_id(), at(n))).collect();
        let mut search = Search::new(target, &me, known);
        let mut out = VecDeque::new();
        assert!(search.go_on(s(1), &mut out).is_some());
        let by_one: Vec<(PeerId, Address)> = vec![(key(9).peer_id(), at(9).into()); 4];
        let by_two = (key(10).peer_id(), at(10).into());
        search.on_nearest((&key(2).peer_id(), None), &me, &[by_one.as_slice(), &[by_two]].concat());
        search.on_nearest((&key(3).peer_id(), None), &me, &[by_two]);
        let mut holders: Vec<PeerId> = search.holders(8).into_iter().map(|(peer, _)| peer).collect();
        holders.sort_unstable();
        let mut right: Vec<PeerId> = [2, 3, 4, 10].into_iter().map(|n| key(n).peer_id()).collect();
        right.sort_unstable();
        assert_eq!(holders, right);
        // Nor does who is said to be in a private network.
        let private = (key(11).peer_id(), SocketAddr::from(([10, 0, 0, 1], 1)).into());
        search.on_nearest((&key(4).peer_id(), None), &me, &[private]);
        assert!(search.found.iter().all(|f| f.peer != private.0));
    }
}
