//! Whom a leaf makes its homes: prospects are drawn and dialled, and the best of those linked are chosen.

use std::collections::VecDeque;

use super::{DIAL_SLOW, DRAWN_MAX, FEW, Homes, SETTLE, SLOW_TIMES};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::overlay::home::choice::Choice;
use crate::overlay::home::means::Means;
use crate::overlay::home::prospect::{Link, Prospect, Question};
use crate::overlay::output::Output;
use crate::time::Instant;
use crate::wire::message::RECORD_HOMES_MAX;

impl Homes {
    fn count(&self, link: Link) -> usize {
        self.prospects.values().filter(|c| c.link == link).count()
    }

    /// Makes homes of those linked, once there was time to compare.
    pub(super) fn choose(&mut self, now: Instant, m: &mut Means<'_>) {
        if self.chosen.len() >= RECORD_HOMES_MAX {
            return;
        }
        let old_there = self.prospects.values().filter(|c| c.was_home && c.link == Link::Up);
        let are_old_there = old_there.count() >= RECORD_HOMES_MAX;
        let is_compared = self.is_listed
            && self.count(Link::Dialling) == 0
            && self.prospects.values().all(|c| c.link != Link::Up || c.is_weighed());
        if !is_compared && !are_old_there && self.settle_at.is_some_and(|at| at > now) {
            return;
        }
        if !self.is_listed && !are_old_there && self.settle_at.is_some() {
            // The end of the listing was lost, or there is none.
            m.members.weigh_claims();
            self.begin_draw(now);
            self.draw(now, m);
            if self.count(Link::Dialling) > 0 {
                return;
            }
        }
        while self.chosen.len() < RECORD_HOMES_MAX {
            if self.dial_partner(now, m) {
                return;
            }
            let Some(best) = self.choice(m.members).best(now, &mut m.random.peer_choice) else { break };
            self.drop_question(&best);
            if let Some(prospect) = self.prospects.get_mut(&best) {
                prospect.is_drawn = true;
            }
            // Who answers is named first.
            let is_slow = |home: &PeerId| self.prospects.get(home).is_some_and(|c| c.is_slow());
            let at = if self.chosen.iter().all(is_slow) { 0 } else { self.chosen.len() };
            self.chosen.insert(at, best);
        }
        let is_told = |c: &Prospect| c.is_registered || c.question.is_some_and(|(q, _)| q == Question::Register);
        if !self.chosen.iter().filter_map(|peer| self.prospects.get(peer)).all(|c| is_told(c)) {
            self.settle_at = None;
            self.register(now, m);
        }
    }

    /// Whom to choose among.
    pub(super) fn choice<'a>(&'a self, members: &'a MembershipTable) -> Choice<'a> {
        let partners = self.partners.of(self.chosen.first());
        Choice { prospects: &self.prospects, chosen: &self.chosen, partners, members }
    }

    /// Where there are few, those linked must do: the others are to be witnesses.
    pub(super) fn is_sparing(&self) -> bool {
        self.drawn_max < DRAWN_MAX && self.prospects.len() <= FEW
    }

    /// Adverts are known, or will not come: whoever was linked to hear them is drawn again only by chance.
    pub(super) fn begin_draw(&mut self, now: Instant) {
        self.is_listed = true;
        if self.chosen.len() < RECORD_HOMES_MAX && !self.is_sparing() {
            self.settle_at = Some(now + SETTLE);
            for (peer, prospect) in &mut self.prospects {
                prospect.is_drawn &= self.chosen.contains(peer) || prospect.was_home;
            }
        }
    }

    /// Draws prospects, and dials them, until enough are linked or about to be; when all have been tried, waits for
    /// the next sweep.
    pub(super) fn draw(&mut self, now: Instant, m: &mut Means<'_>) {
        // Beside one that takes its time another one is drawn, but where this leaf has homes, or has to be sparing.
        let is_patient = self.is_settled() || self.is_sparing();
        let counts = |c: &Prospect| is_patient || !c.is_slow();
        let homes = |homes: &Self| {
            let all = homes.chosen.iter().filter_map(|home| homes.prospects.get(home));
            all.filter(|c| counts(c)).count()
        };
        let draws = |homes: &Self| {
            let drawn = || homes.prospects.values().filter(|c| c.is_drawn && c.link != Link::Down);
            let (usual, max) = (drawn().filter(|c| counts(c)).count(), homes.drawn_max);
            usual < max && drawn().count() < SLOW_TIMES * max
        };
        while homes(self) < RECORD_HOMES_MAX && draws(self) {
            let choice = self.choice(m.members);
            let Some(peer) = choice.next_drawn(now, self.is_listed, &mut m.random.peer_choice) else { break };
            let Some(prospect) = self.prospects.get_mut(&peer) else { break };
            prospect.is_drawn = true;
            prospect.is_tried = true;
            if prospect.link == Link::Down {
                self.dial(now, peer, m.out);
            }
        }
        let is_waiting = self.chosen.len() < RECORD_HOMES_MAX && self.count(Link::Dialling) == 0;
        let has_more = self.prospects.values().any(|c| c.link == Link::Down);
        if is_waiting && has_more {
            self.sweep.wait(now, &mut m.random.jitter);
        } else {
            self.sweep.stop();
        }
    }

    /// Dials somebody that there is no link to.
    pub(super) fn dial(&mut self, now: Instant, peer: PeerId, out: &mut VecDeque<Output>) {
        let Some(prospect) = self.prospects.get_mut(&peer) else { return };
        (prospect.link, prospect.is_silent) = (Link::Dialling, false);
        self.deadlines.set(peer, &mut prospect.deadline, Some(now + DIAL_SLOW));
        out.push_back(Output::Dial { peer, address: prospect.address });
    }

    pub(super) fn begin_sweep(&mut self, now: Instant, m: &mut Means<'_>) {
        if self.registered().next().is_none() {
            // Those that were left are better than none.
            for left in self.prospects.values_mut().filter(|c| c.is_left) {
                (left.is_left, left.refused_until) = (false, None);
            }
        }
        let idle = self.prospects.iter().filter(|(_, c)| c.link == Link::Down && !c.is_refusing(now));
        let idle: Vec<PeerId> = idle.map(|(peer, _)| *peer).collect();
        if idle.is_empty() {
            // All have refused, and said when to come again: nobody has failed.
            return;
        }
        for peer in self.sweep.begin(idle, &mut m.random.peer_choice) {
            if let Some(prospect) = self.prospects.get_mut(&peer) {
                prospect.is_tried = false;
            }
        }
    }

    pub(super) fn release_surplus(&mut self, out: &mut VecDeque<Output>) {
        let up = self.prospects.iter().filter(|(_, c)| c.link == Link::Up).map(|(peer, _)| *peer);
        let is_surplus =
            |peer: &PeerId| !self.chosen.contains(peer) && !self.moving.is_of(peer) && !self.trials.is_by(peer);
        let surplus: Vec<PeerId> = up.filter(is_surplus).collect();
        for peer in surplus {
            self.drop_question(&peer);
            if let Some(prospect) = self.prospects.get_mut(&peer) {
                // A cold spare.
                prospect.link = Link::Down;
                (prospect.is_tried, prospect.is_drawn) = (false, false);
                out.push_back(Output::Release { peer });
            }
        }
    }
}
