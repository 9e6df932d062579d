//! Whom a leaf chooses next among its prospects, and the order in which they are preferred.

use std::collections::BTreeMap;

use super::prospect::{Link, Prospect};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::message::Load;

/// Load assumed of a supernode that has not told its own.
const LOAD_UNKNOWN: u8 = 128;

/// All prospects, and those that are homes or have been asked to be.
pub(super) struct Choice<'a> {
    pub(super) prospects: &'a BTreeMap<PeerId, Prospect>,
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
        let fits = |c: &Prospect| {
            let is_free = if c.link == Link::Down { !c.is_tried } else { !c.is_drawn };
            is_free && !c.is_refusing(now)
        };
        let class = |c: &Prospect| {
            let is_named = is_listed || c.is_joined || c.is_proven;
            (!c.was_home, self.is_near_chosen(c), !is_named)
        };
        let fitting = || self.prospects.iter().filter(|(_, c)| fits(c));
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
            let fits = |(peer, c): &(&PeerId, &Prospect)| {
                c.link == Link::Up && !c.is_refusing(now) && !self.chosen.contains(peer)
            };
            self.prospects.iter().filter(fits)
        };
        // Equals are as good as each other: any fixed order would make all leaves choose alike.
        let mut least = |all: Vec<(&PeerId, &Prospect)>| {
            let first = all.iter().map(|(_, c)| rank(c)).min()?;
            let equals: Vec<PeerId> = all.iter().filter(|(_, c)| rank(c) == first).map(|(peer, _)| **peer).collect();
            equals.get(choice.below(equals.len())).copied()
        };
        let far = least(linked().filter(|(_, c)| !self.is_near_chosen(c)).collect());
        let hope =
            |c: &Prospect| c.link == Link::Dialling || (c.link == Link::Down && !c.is_tried && !c.is_refusing(now));
        let is_hopeful = || self.prospects.values().any(|c| hope(c) && !self.is_near_chosen(c));
        far.or_else(|| if is_hopeful() { None } else { least(linked().collect()) })
    }

    fn is_near_chosen(&self, prospect: &Prospect) -> bool {
        self.chosen.iter().filter_map(|peer| self.prospects.get(peer)).any(|c| c.is_near(prospect))
    }
}

/// Order of choice among linked ones, least first: homes of the last run, those drawn, the less loaded, the nearer. Small
/// differences of load are none, and neither are those of less than a factor of two in distance: else all leaves of a
/// region would find the same one the best.
fn rank(prospect: &Prospect) -> (bool, bool, u8, u32) {
    let distance = prospect.rtt.map_or(u32::MAX, |rtt| rtt.as_micros().checked_ilog2().unwrap_or(0));
    (!prospect.was_home, !prospect.is_drawn, coarse(prospect.load), distance)
}

/// A load in steps in which differences count.
fn coarse(load: Option<Load>) -> u8 {
    load.map_or(LOAD_UNKNOWN, Load::worst) / 16
}
