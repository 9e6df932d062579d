//! Whether those who are known live: SWIM, with one timer for all.
//!
//! Every [`TICK`] one supernode is asked, in turn a neighbour and one of all that are known, unless it was heard lately
//! or there is no link to it. Who does not answer twice over its link is asked with an Init, which also reaches one that
//! was started anew. Who does not answer that is asked about: some neighbours try it for us
//! ([`Message::PingFor`]), and if one of them hears it ([`Message::Alive`]) it is our way that is bad, and not the other
//! one. Only then it is suspect; later it is asked once more, and is dead.
//!
//! Local health, as in Lifeguard: whoever misses many answers has reason to doubt itself, and waits longer before it
//! doubts others. Nobody tells others whom it suspects: each sees for itself, so that nobody can be talked dead.

use core::time::Duration;
use std::collections::BTreeSet;

use arrayvec::ArrayVec;

use super::checks::{HEALTH_MAX, HELPERS, Stage, TICK};
use super::neighbour::State;
use super::{Gossip, Stores};
use crate::identity::PeerId;
use crate::overlay::advert::Suspicion;
use crate::overlay::output::Output;
use crate::overlay::pack;
use crate::time::Instant;
use crate::wire::message::Message;

/// Who was heard within this is not asked.
const LATELY: Duration = Duration::from_secs(60);
/// An answer over a link comes within this.
const ANSWER_IN: Duration = Duration::from_secs(2);
/// An answer to an Init comes within this.
const VISIT_TAKES: Duration = Duration::from_secs(4);
/// What others find out comes within this.
const HELP_TAKES: Duration = Duration::from_secs(8);
/// A suspect that stays silent so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(300);
/// Most questions of others that are open, of one of them [`PINGS_OF_ONE_MAX`]. At the limit further ones are not heard.
const PINGS_MAX: usize = 64;
/// See [`PINGS_MAX`].
const PINGS_OF_ONE_MAX: usize = 4;

impl Gossip {
    /// Anything authentic came from `peer`: it lives.
    pub(crate) fn on_heard(&mut self, now: Instant, peer: &PeerId, s: &mut Stores<'_>) {
        if let Some(neighbour) = self.neighbours.get_mut(peer) {
            neighbour.heard_at = now;
        } else if self.resting.get(peer).is_some_and(|(at, ())| now.since(*at) >= ANSWER_IN) {
            self.resting.insert(now, *peer, ());
        }
        if let Some(Stage::Asked | Stage::AskedAgain) = self.watch.drop_check(peer) {
            self.watch.health = self.watch.health.saturating_sub(1);
        }
        s.members.set_suspicion(peer, Suspicion::Alive);
        if let Some((_, askers)) = self.watch.pings.remove(peer) {
            for asker in askers {
                pack::send(s.out, asker, &Message::Alive { peer: *peer });
            }
        }
    }

    /// Another home does not answer over its link: it may have started anew, and not know that link.
    pub(crate) fn look_for(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if s.members.is_alive(&peer) && !self.watch.checks.contains_key(&peer) {
            visit(peer, s);
            self.watch.set(peer, Stage::Visited, now + VISIT_TAKES);
        }
    }

    /// A neighbour could not be dialled.
    pub(super) fn doubt(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if s.members.is_alive(&peer) && !self.watch.checks.contains_key(&peer) {
            self.ask_about(now, peer, s);
        }
    }

    /// Asks and judges what is due.
    pub(super) fn watch_due(&mut self, now: Instant, s: &mut Stores<'_>) {
        while let Some(peer) = self.watch.deadlines.pop_due(now) {
            if let Some(check) = self.watch.checks.get_mut(&peer) {
                check.due = None;
                let stage = check.stage;
                self.go_on(now, peer, stage, s);
            }
        }
        if self.watch.tick_at <= now {
            self.watch.tick_at = now + TICK;
            self.watch.pings.retain(|_, (until, _)| *until > now);
            self.ask_next(now, s);
        }
    }

    /// Asks whoever's turn it is.
    fn ask_next(&mut self, now: Instant, s: &mut Stores<'_>) {
        let watch = &mut self.watch;
        watch.is_neighbours_turn = !watch.is_neighbours_turn;
        let peer = if watch.is_neighbours_turn {
            let after = watch.neighbour.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
            watch.neighbour = self.neighbours.range((after, core::ops::Bound::Unbounded)).next().map(|(peer, _)| *peer);
            watch.neighbour
        } else {
            watch.member = s.members.next_after(watch.member.as_ref());
            watch.member
        };
        let Some(peer) = peer.filter(|peer| s.members.contains(peer) && !self.watch.checks.contains_key(peer)) else {
            return;
        };
        if !s.members.is_alive(&peer) {
            // It may be back.
            return visit(peer, s);
        }
        let heard = match self.neighbours.get(&peer) {
            Some(neighbour) if neighbour.state == State::Up => Some(neighbour.heard_at),
            Some(_) => None,
            None => self.resting.get(&peer).map(|(at, ())| *at),
        };
        match heard {
            // As good as an answer.
            Some(at) if now.since(at) < LATELY => self.watch.health = self.watch.health.saturating_sub(1),
            Some(_) => {
                s.out.push_back(Output::AskAlive { peer });
                self.watch.set(peer, Stage::Asked, now + ANSWER_IN);
            }
            // Others took the place in which it was to be looked at once more.
            None if s.members.suspicion(&peer) == Suspicion::Suspect => {
                visit(peer, s);
                self.watch.set(peer, Stage::VisitedLast, now + VISIT_TAKES);
            }
            None => {}
        }
    }

    /// No answer came in time.
    fn go_on(&mut self, now: Instant, peer: PeerId, stage: Stage, s: &mut Stores<'_>) {
        if !s.members.contains(&peer) {
            self.watch.drop_check(&peer);
            return;
        }
        match stage {
            Stage::Asked => {
                s.out.push_back(Output::AskAlive { peer });
                self.watch.set(peer, Stage::AskedAgain, now + ANSWER_IN);
            }
            Stage::AskedAgain => {
                self.watch.health = (self.watch.health + 1).min(HEALTH_MAX);
                visit(peer, s);
                self.watch.set(peer, Stage::Visited, now + VISIT_TAKES);
            }
            Stage::Visited => self.ask_about(now, peer, s),
            Stage::AskedAbout => {
                s.members.set_suspicion(&peer, Suspicion::Suspect);
                self.has_suspicion = true;
                if self.neighbours.get(&peer).is_some_and(|n| n.state == State::Up) {
                    // The link is asked once more, and ends.
                    s.out.push_back(Output::Release { peer });
                }
                let at = now + self.watch.patience(DEAD_AFTER);
                self.watch.set(peer, Stage::Suspected, at);
            }
            Stage::Suspected => {
                visit(peer, s);
                self.watch.set(peer, Stage::VisitedLast, now + VISIT_TAKES);
            }
            Stage::VisitedLast => {
                self.watch.drop_check(&peer);
                s.members.set_suspicion(&peer, Suspicion::Dead);
            }
        }
    }

    /// Has others try somebody.
    fn ask_about(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let mut others: Vec<PeerId> = self.linked().filter(|other| **other != peer).copied().collect();
        let mut helpers = ArrayVec::new();
        for _ in 0..HELPERS.min(others.len()) {
            let helper = others.swap_remove(s.random.peer_choice.below(others.len()));
            pack::send(s.out, helper, &Message::PingFor { peer });
            helpers.push(helper);
        }
        let at = now + self.watch.patience(HELP_TAKES);
        self.watch.set(peer, Stage::AskedAbout, at);
        if let Some(check) = self.watch.checks.get_mut(&peer) {
            check.helpers = helpers;
        }
    }

    /// A neighbour does not hear somebody: whether this node does. It is tried, unless it was heard a moment ago.
    pub(crate) fn on_ping_for(&mut self, now: Instant, from: PeerId, peer: PeerId, s: &mut Stores<'_>) {
        if !self.neighbours.contains_key(&from) || from == peer || !s.members.contains(&peer) {
            return;
        }
        let pings = &mut self.watch.pings;
        let (is_new, is_full) = (!pings.contains_key(&peer), pings.len() >= PINGS_MAX);
        let of_one = pings.values().filter(|(_, askers)| askers.contains(&from)).count();
        if (is_new && is_full) || of_one >= PINGS_OF_ONE_MAX {
            return;
        }
        let until = now + HELP_TAKES;
        let (_, askers) = pings.entry(peer).or_insert((until, BTreeSet::new()));
        if !askers.insert(from) || !is_new {
            return;
        }
        let is_linked = self.neighbours.get(&peer).is_some_and(|n| n.state == State::Up);
        if is_linked || self.resting.get(&peer).is_some() {
            s.out.push_back(Output::AskAlive { peer });
        } else {
            visit(peer, s);
        }
    }

    /// Somebody else, who was asked, hears whom this node does not hear.
    pub(crate) fn on_alive(&mut self, from: &PeerId, peer: &PeerId) {
        if self.watch.is_helper(from, peer) {
            self.watch.drop_check(peer);
            self.watch.health = (self.watch.health + 1).min(HEALTH_MAX);
        }
    }
}

/// Asks somebody with one Init.
fn visit(peer: PeerId, s: &mut Stores<'_>) {
    if let Some(address) = s.members.address(&peer) {
        s.out.push_back(Output::Vet { peer, address });
    }
}
