//! Who this supernode's neighbours are: the few that it keeps links to and gossips with.
//!
//! It looks for [`WANTED`] of them: of the [`NEAREST`] by place those that it can have, and others at random. While
//! there are no more supernodes than that, everybody is everybody's neighbour. Being neighbours is mutual: whoever
//! sends a digest that asks for one wants to be one, and is taken while there are fewer than [`CIRCLE_MAX`]; beyond, it
//! is told that this circle is full, and looks elsewhere. So those who were there first do not become hubs. But somebody
//! who has hardly any neighbours says so and is taken, as is one of the nearest; a random other one is sent away, which
//! finds another: one of the same prefix, or of the one that has most places, where these have more than [`OF_PREFIX`].
//!
//! A neighbour that does not answer is dialled again and again, and keeps its place only while nobody else wants it. A
//! link to a supernode that is no neighbour *rests*: nothing is sent to keep it, and it is there when something is to
//! be asked. Of these the one heard longest ago goes when there are [`RESTING_MAX`](super::RESTING_MAX).

use core::net::SocketAddr;
use std::collections::BTreeMap;

use super::neighbour::{NEIGHBOURS_MAX, Neighbour, State};
use super::{DIAL_SPREAD, GREETING_RTO, Gossip, RECALL_EVERY, RECALL_SPREAD, Stores};
use crate::api::Serving;
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::overlay::output::Output;
use crate::overlay::pack;
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::message::{Message, NeighbourWord};

/// Neighbours that are looked for.
pub(super) const WANTED: usize = 32;
/// Of them, so many of those whose places are nearest.
const NEAREST: usize = 16;
/// Most neighbours that links are up to. At the limit a further one is told so.
pub(crate) const CIRCLE_MAX: usize = 48;
/// Neighbours of one prefix that nobody else has to make room for.
const OF_PREFIX: usize = 4;
/// Who has fewer is taken by whomever it asks.
const LONELY: usize = 3;
/// Most supernodes to start from. At the limit further ones are not dialled.
const STARTS_MAX: usize = 64;
/// Draws for a random neighbour before it is given up until the next round.
const DRAWS: usize = 8;

/// The prefix that a supernode counts for.
fn counted(peer: &PeerId, members: &MembershipTable) -> Option<Prefix> {
    Prefix::counted(members.address(peer)?.ip())
}

impl Gossip {
    /// Remembers where to start from.
    pub(super) fn note_start(&mut self, peer: PeerId, address: SocketAddr) {
        if peer != self.me && (self.starts.len() < STARTS_MAX || self.starts.contains_key(&peer)) {
            self.starts.insert(peer, address);
        }
    }

    /// For the operator.
    pub(crate) fn report(&self, serving: &mut Serving) {
        (serving.neighbours, serving.resting) = (self.up(), self.resting.len());
        serving.unvisited = self.hearsay.len();
        serving.unreached = self.unreached.most(|address| self.own.names(address));
    }

    /// How many neighbours there are that have not failed.
    pub(super) fn held(&self) -> usize {
        self.neighbours.values().filter(|n| n.is_held()).count()
    }

    fn up(&self) -> usize {
        self.linked().count()
    }

    /// Makes a neighbour, to be dialled at `dial_at`.
    pub(super) fn meet(&mut self, now: Instant, peer: PeerId, dial_at: Instant, s: &mut Stores<'_>) {
        if peer == self.me || self.neighbours.contains_key(&peer) {
            return;
        }
        self.enter(now, peer, s);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            self.dials.set(peer, &mut neighbour.due, Some(dial_at));
        }
    }

    /// Enters a neighbour; one that failed most often goes if there are too many.
    fn enter(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            let failed = self.neighbours.iter().filter(|(_, n)| !n.is_held()).max_by_key(|(_, n)| n.failures);
            let Some(failed) = failed.map(|(peer, _)| *peer) else { return };
            self.remove(&failed, s);
        }
        self.resting.remove(&peer);
        self.neighbours.insert(peer, Neighbour::new(now));
    }

    /// Somebody is a neighbour no longer.
    pub(super) fn remove(&mut self, peer: &PeerId, s: &mut Stores<'_>) {
        let Some(mut neighbour) = self.neighbours.remove(peer) else { return };
        self.dials.set(*peer, &mut neighbour.due, None);
        s.out.push_back(Output::Release { peer: *peer });
    }

    /// The same, where there is a link that goes on as one that rests.
    fn let_go(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let Some(mut neighbour) = self.neighbours.remove(&peer) else { return };
        self.dials.set(peer, &mut neighbour.due, None);
        self.refused.insert(now, peer, ());
        self.rest(now, peer, s);
    }

    /// The link to a supernode that is no neighbour is left alone.
    pub(super) fn rest(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if self.resting.get(&peer).is_none()
            && self.resting.is_full()
            && let Some((oldest, ())) = self.resting.pop_oldest_if(|_| true)
        {
            s.out.push_back(Output::Release { peer: oldest });
        }
        self.resting.insert(now, peer, ());
        s.out.push_back(Output::Rest { peer });
    }

    /// A supernode became known.
    pub(super) fn consider(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if self.neighbours.contains_key(&peer) || self.refused.get(&peer).is_some() {
            return;
        }
        let held = self.held();
        if held < WANTED || (held < CIRCLE_MAX && s.members.is_among_nearest(&self.me, &peer, NEAREST)) {
            let soon = now + s.random.jitter.jitter(DIAL_SPREAD);
            self.meet(now, peer, soon, s);
        }
    }

    /// Looks for neighbours where some are missing: the nearest, then any.
    pub(super) fn refill(&mut self, now: Instant, s: &mut Stores<'_>) {
        self.refused.forget_while(|at| now.since(at) >= super::REFUSED_FOR);
        let nearest = s.members.nearest(&self.me, NEAREST);
        // Where there are fewer, those that there are.
        let missing = WANTED.min(s.members.len()).saturating_sub(self.held());
        let drawn = (0..missing * DRAWS).filter_map(|_| s.members.draw(&mut s.random.peer_choice));
        let candidates: Vec<PeerId> = nearest.into_iter().chain(drawn).collect();
        for peer in candidates {
            if self.held() < WANTED && s.members.is_alive(&peer) {
                self.consider(now, peer, s);
            }
        }
        // Nobody is there: whoever was told of, and whoever was known.
        if self.up() == 0 {
            let starts: Vec<PeerId> = self.starts.keys().copied().collect();
            let known = (0..LONELY).filter_map(|_| s.members.draw(&mut s.random.peer_choice));
            let known: Vec<PeerId> = known.collect();
            for peer in starts.into_iter().chain(known) {
                let soon = now + s.random.jitter.jitter(DIAL_SPREAD);
                self.meet(now, peer, soon, s);
            }
        }
    }

    /// Somebody wants to be a neighbour. Whether it is one now; if not, it has been told.
    pub(super) fn take(&mut self, now: Instant, peer: PeerId, is_lonely: bool, s: &mut Stores<'_>) -> bool {
        if !s.members.contains(&peer) {
            return false;
        }
        if self.held() >= CIRCLE_MAX {
            let is_due = is_lonely || s.members.is_among_nearest(&self.me, &peer, NEAREST);
            let gone = if is_due && self.exceptions.take(now, peer) { self.pick_to_go(&peer, s) } else { None };
            let Some(gone) = gone else {
                pack::send(s.out, peer, &Message::Neighbour(NeighbourWord::Full));
                return false;
            };
            pack::send(s.out, gone, &Message::Neighbour(NeighbourWord::Full));
            self.let_go(now, gone, s);
        }
        self.enter(now, peer, s);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return false };
        neighbour.on_up();
        s.out.push_back(Output::Keep { peer });
        self.greet(now, peer, s);
        true
    }

    /// How many neighbours are in each prefix that counts.
    fn by_prefix(&self, members: &MembershipTable) -> BTreeMap<Prefix, usize> {
        let mut counts = BTreeMap::new();
        for prefix in self.linked().filter_map(|peer| counted(peer, members)) {
            *counts.entry(prefix).or_insert(0) += 1;
        }
        counts
    }

    /// Who makes room for `peer`, at random: one of its own prefix if that has its share of the places already, else one of
    /// the prefix that has most, if these are more than its share, else one that is none of the nearest.
    fn pick_to_go(&self, peer: &PeerId, s: &mut Stores<'_>) -> Option<PeerId> {
        let counts = self.by_prefix(s.members);
        let own = counted(peer, s.members).and_then(|prefix| counts.get_key_value(&prefix));
        let own = own.filter(|(_, count)| **count >= OF_PREFIX);
        let most = counts.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > OF_PREFIX);
        let most = own.or(most).map(|(prefix, _)| *prefix);
        let nearest = s.members.nearest(&self.me, NEAREST);
        let may_go = |peer: &&PeerId| match most {
            Some(prefix) => counted(peer, s.members) == Some(prefix),
            None => !nearest.contains(peer),
        };
        let others: Vec<PeerId> = self.linked().filter(may_go).copied().collect();
        others.get(s.random.peer_choice.below(others.len())).copied()
    }

    /// A word about being neighbours.
    pub(crate) fn on_neighbour(&mut self, now: Instant, from: PeerId, word: NeighbourWord, s: &mut Stores<'_>) {
        match word {
            NeighbourWord::Full => {
                let up = self.up();
                let Some(neighbour) = self.neighbours.get_mut(&from).filter(|n| n.state == State::Up) else { return };
                match neighbour.begged_at {
                    None if up <= LONELY => {
                        neighbour.begged_at = Some(now);
                        pack::send(s.out, from, &Message::Neighbour(NeighbourWord::Lonely));
                    }
                    // It says so for each thing that it was sent before it heard that.
                    Some(at) if now.since(at) < GREETING_RTO => {}
                    _ => {
                        self.let_go(now, from, s);
                        self.refill_soon(now, s);
                    }
                }
            }
            NeighbourWord::Unreached(address) => self.on_unreached(now, from, address.into(), s),
            NeighbourWord::Lonely => {
                if self.neighbours.contains_key(&from) {
                    return;
                }
                if !self.take(now, from, true, s) && !s.members.contains(&from) && self.exceptions.take(now, from) {
                    // It says who it is once more, and then has a place.
                    self.lonely.insert(now, from, ());
                }
            }
        }
    }

    pub(super) fn refill_soon(&mut self, now: Instant, s: &mut Stores<'_>) {
        let soon = now + s.random.jitter.jitter(DIAL_SPREAD);
        self.refill_at = self.refill_at.min(soon);
    }

    /// A link is up, whoever opened it. With neighbours, words are exchanged.
    pub(crate) fn on_link_up(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let is_member = s.members.contains(&peer);
        if let Some(address) = s.members.address(&peer)
            && !self.met.contains(&(peer, address))
        {
            self.met.push((peer, address));
        }
        let is_full = self.up() >= CIRCLE_MAX;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            if is_member {
                self.rest(now, peer, s);
            }
            return;
        };
        self.dials.set(peer, &mut neighbour.due, None);
        if neighbour.state != State::Up && is_full {
            return self.let_go(now, peer, s);
        }
        let was_away = neighbour.was_away();
        neighbour.on_up();
        self.on_heard(now, &peer, s);
        self.greet(now, peer, s);
        if was_away && self.recalled_at.is_none_or(|at| now.since(at) >= RECALL_EVERY) {
            self.recalled_at = Some(now);
            self.recall(now, s);
        }
    }

    /// One that was away is back: what kept it away may have kept others.
    fn recall(&mut self, now: Instant, s: &mut Stores<'_>) {
        for (peer, neighbour) in self.neighbours.iter_mut().filter(|(_, n)| n.state == State::Down) {
            let soon = now + s.random.jitter.jitter(RECALL_SPREAD);
            if neighbour.due.is_some_and(|due| due > soon) {
                self.dials.set(*peer, &mut neighbour.due, Some(soon));
            }
        }
        s.members.forgive();
    }

    /// A link ended, or could not be opened.
    pub(crate) fn on_link_down(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        self.reached.remove(&peer);
        self.resting.remove(&peer);
        // Who hears nobody has itself to blame; and who is told at each start of some that are no more dials the others.
        let is_alone = self.up() == 0;
        let is_away = |(id, neighbour): &(&PeerId, &Neighbour)| neighbour.was_away() && s.members.contains(id);
        let away = if is_alone { 1 } else { self.neighbours.iter().filter(is_away).count() };
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let delay = neighbour.on_down(u32::try_from(away).unwrap_or(u32::MAX), &mut s.random.jitter);
        let has_failed = neighbour.failures > 1;
        self.dials.set(peer, &mut neighbour.due, Some(now + delay));
        if has_failed {
            self.doubt(now, peer, s);
        }
        self.refill_soon(now, s);
        if self.listing.as_ref().is_some_and(|l| l.from == peer) {
            self.listing = None;
            self.ask_listing(now, s);
        }
    }
}
