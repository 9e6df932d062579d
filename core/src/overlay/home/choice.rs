//! Whom a leaf chooses next among its candidates, and by what.

use std::collections::BTreeMap;

use super::candidate::{Candidate, Link, coarse};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::random::ChoiceRng;
use crate::time::Instant;

/// All candidates, and those that are homes or have been asked to be.
pub(super) struct Choice<'a> {
    pub(super) candidates: &'a BTreeMap<PeerId, Candidate>,
    pub(super) chosen: &'a [PeerId],
}

impl Choice<'_> {
    /// Two at random, the less loaded taken; but homes of the last run before all others, and as long as no adverts
    /// are known, who was named or worked.
    pub(super) fn next_drawn(
        &self,
        now: Instant,
        is_listed: bool,
        members: &MembershipTable,
        choice: &mut ChoiceRng,
    ) -> Option<PeerId> {
        let fits = |c: &Candidate| {
            let is_free = if c.link == Link::Down { !c.is_tried } else { !c.is_drawn };
            is_free && !c.is_refusing(now)
        };
        let class = |c: &Candidate| {
            let is_named = is_listed || c.is_joined || c.is_proven;
            (!c.was_home, self.is_near_chosen(c), !is_named)
        };
        let fitting = || self.candidates.iter().filter(|(_, c)| fits(c));
        let first = fitting().map(|(_, c)| class(c)).min()?;
        let equals: Vec<PeerId> = fitting().filter(|(_, c)| class(c) == first).map(|(peer, _)| *peer).collect();
        let mut draw = || equals.get(choice.below(equals.len())).copied();
        let (a, b) = (draw()?, draw()?);
        let load = |peer: &PeerId| coarse(members.load(now, peer));
        Some(if load(&b) < load(&a) { b } else { a })
    }

    /// The best of those linked that is not chosen yet. One in the prefix of the other home only if there is no hope
    /// of another.
    pub(super) fn best(&self, now: Instant, choice: &mut ChoiceRng) -> Option<PeerId> {
        let linked = || {
            let fits = |(peer, c): &(&PeerId, &Candidate)| {
                c.link == Link::Up && !c.is_refusing(now) && !self.chosen.contains(peer)
            };
            self.candidates.iter().filter(fits)
        };
        // Equals are as good as each other: any fixed order would make all leaves choose alike.
        let mut least = |all: Vec<(&PeerId, &Candidate)>| {
            let rank = all.iter().map(|(_, c)| c.rank()).min()?;
            let equals: Vec<PeerId> = all.iter().filter(|(_, c)| c.rank() == rank).map(|(peer, _)| **peer).collect();
            equals.get(choice.below(equals.len())).copied()
        };
        let far = least(linked().filter(|(_, c)| !self.is_near_chosen(c)).collect());
        let hope =
            |c: &Candidate| c.link == Link::Dialling || (c.link == Link::Down && !c.is_tried && !c.is_refusing(now));
        let is_hopeful = || self.candidates.values().any(|c| hope(c) && !self.is_near_chosen(c));
        far.or_else(|| if is_hopeful() { None } else { least(linked().collect()) })
    }

    fn is_near_chosen(&self, candidate: &Candidate) -> bool {
        self.chosen.iter().filter_map(|peer| self.candidates.get(peer)).any(|c| c.is_near(candidate))
    }
}
