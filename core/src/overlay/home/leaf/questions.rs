//! What a leaf asks prospects, how often, and what their silence means.

use std::collections::VecDeque;

use super::Homes;
use crate::identity::PeerId;
use crate::overlay::home::means::Means;
use crate::overlay::home::prospect::{Link, Prospect, Question};
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::time::Instant;
use crate::wire::message::Message;

/// Without a home that answers, nobody is asked anything more often than this as long as there are others.
const HOMELESS_TRIES_MAX: u8 = 2;

impl Homes {
    pub(super) fn ask(&mut self, now: Instant, peer: PeerId, question: Question, out: &mut VecDeque<Output>) {
        let Some(prospect) = self.prospects.get_mut(&peer) else { return };
        let tries = prospect.question.filter(|(q, _)| *q == question).map_or(1, |(_, tries)| tries + 1);
        prospect.question = Some((question, tries));
        let deadline = now + question.rto() * (1 << (tries - 1).min(8));
        self.deadlines.set(peer, &mut prospect.deadline, Some(deadline));
        self.say(peer, question, out);
    }

    pub(super) fn say(&self, peer: PeerId, question: Question, out: &mut VecDeque<Output>) {
        match question {
            Question::Load | Question::Alive => send(out, peer, &Message::LoadRequest),
            Question::Room => {}
            Question::Register => {
                let other_home = self.chosen.iter().find(|chosen| **chosen != peer).copied();
                send(out, peer, &Message::Register { other_home, record: &self.record });
            }
        }
    }

    pub(super) fn drop_question(&mut self, peer: &PeerId) {
        if let Some(prospect) = self.prospects.get_mut(peer) {
            prospect.question = None;
            self.deadlines.set(*peer, &mut prospect.deadline, None);
        }
    }

    /// A question was not answered in time.
    pub(super) fn on_silence(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        let Some(prospect) = self.prospects.get_mut(&peer) else { return };
        prospect.deadline = None;
        let Some((question, tries)) = prospect.question else {
            // It was dialled.
            prospect.is_silent = prospect.link == Link::Dialling;
            return;
        };
        // Who has another home can wait longer, and so must who knows nobody else.
        let answers = |c: &Prospect| c.is_registered && c.question.is_none();
        let has_home = self.chosen.iter().filter_map(|home| self.prospects.get(home)).any(|c| answers(c));
        let is_other = |id: &PeerId, c: &Prospect| !self.chosen.contains(id) && (c.link != Link::Down || !c.is_tried);
        let is_urgent = !has_home && self.prospects.iter().any(|(id, c)| is_other(id, c));
        let tries_max = if is_urgent { question.tries_max().min(HOMELESS_TRIES_MAX) } else { question.tries_max() };
        if tries < tries_max {
            self.ask(now, peer, question, m.out);
            return;
        }
        if let Some(prospect) = self.prospects.get_mut(&peer) {
            (prospect.question, prospect.is_silent) = (None, question != Question::Room);
        }
        match question {
            // It has a link; it may be slow. It ranks behind those that answered.
            Question::Load | Question::Room => {}
            Question::Register | Question::Alive => self.give_up(now, peer, m),
        }
    }
}
