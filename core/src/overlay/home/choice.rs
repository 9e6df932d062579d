//! Whom a leaf chooses next among its prospects, and the order in which they are preferred.

use super::prospect::{Link, Prospect, Prospects};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::places::{Places, count, level};

/// How many leaves a supernode is taken for being able to take that has no advert here.
const CAPACITY_UNKNOWN: u32 = 100;
/// A step of load, of 255, in which a difference counts.
const DUTY_STEP: u8 = 64;
/// The same for room, in levels of a twelfth of an octave: a fifth.
const LEVELS: u8 = 3;

/// All prospects, and those that are homes or have been asked to be.
pub(super) struct Choice<'a> {
    pub(super) prospects: &'a Prospects,
    pub(super) chosen: &'a [PeerId],
    /// Whom the first of those names for the other one.
    pub(super) partners: &'a [PeerId],
    pub(super) members: &'a MembershipTable,
}

impl Choice<'_> {
    /// Two at random, each as likely as it has room, of which the emptier one is taken; but homes of the last run before
    /// all others, and as long as no adverts are known, who was named or worked.
    pub(super) fn next_drawn(&self, now: Instant, is_listed: bool, choice: &mut ChoiceRng) -> Option<PeerId> {
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
        let equals: Vec<(PeerId, Places)> =
            fitting().filter(|(_, c)| class(c) == first).map(|(peer, c)| (*peer, self.places(now, peer, c))).collect();
        // Who is full may still take one that has no home.
        let weights = equals.iter().map(|(_, places)| u64::from(places.free()) + 1);
        let mut draw = || choice.weighted(weights.clone()).and_then(|n| equals.get(n)).copied();
        let (a, b) = (draw()?, draw()?);
        let worth = |(_, places): &(PeerId, Places)| places.utilisation();
        Some(if worth(&b) < worth(&a) { b.0 } else { a.0 })
    }

    /// The room of a prospect, as it is believed. One that has told nothing of it is taken for half full, and one of
    /// which no advert is known for as large as one that takes few.
    fn places(&self, now: Instant, peer: &PeerId, prospect: &Prospect) -> Places {
        let unknown = || {
            let all = self.members.capacity(now, peer).max(CAPACITY_UNKNOWN);
            let load = prospect.load.map_or(u8::MAX / 2, |load| load.leaves);
            let taken = u64::from(all) * u64::from(load) / 255;
            Places { taken: u32::try_from(taken).unwrap_or(u32::MAX), all }
        };
        let told = || prospect.places.map(|(taken, all)| Places { taken: count(taken), all: count(all) });
        self.members.places(now, peer).or_else(told).unwrap_or_else(unknown)
    }

    /// The best of those linked that is not chosen yet. One in the prefix of the other home only if there is no hope
    /// of another.
    pub(super) fn best(&self, now: Instant, choice: &mut ChoiceRng) -> Option<PeerId> {
        let rank = |peer: &PeerId, c: &Prospect| self.rank(now, peer, c);
        let linked = || {
            let up = self.prospects.iter().filter(|(_, c)| c.link == Link::Up && !c.is_refusing(now));
            up.filter(|(peer, _)| !self.chosen.contains(peer)).map(|(peer, c)| (peer, &**c))
        };
        // Equals are as good as each other: any fixed order would make all leaves choose alike.
        let mut least = |all: Vec<(&PeerId, &Prospect)>| {
            let first = all.iter().map(|(peer, c)| rank(peer, c)).min()?;
            let equals: Vec<PeerId> =
                all.iter().filter(|(peer, c)| rank(peer, c) == first).map(|(peer, _)| **peer).collect();
            equals.get(choice.below(equals.len())).copied()
        };
        let far = least(linked().filter(|(_, c)| !self.is_near_chosen(c)).collect());
        let hope =
            |c: &Prospect| c.link == Link::Dialling || (c.link == Link::Down && !c.is_tried && !c.is_refusing(now));
        let is_hopeful = || self.prospects.values().any(|c| hope(c) && !self.is_near_chosen(c));
        far.or_else(|| if is_hopeful() { None } else { least(linked().collect()) })
    }

    pub(super) fn is_near_chosen(&self, prospect: &Prospect) -> bool {
        prospect.is_near_any(self.chosen, self.prospects)
    }

    /// Order of choice among linked ones, least first: who is not silent, homes of the last run, who has answered,
    /// partners of the first home, those drawn, who does less else, the emptier, the nearer. Small differences of load are
    /// none, and neither are those of less than a factor of two in distance: else all leaves of a region would find the
    /// same one the best.
    fn rank(&self, now: Instant, peer: &PeerId, prospect: &Prospect) -> (bool, bool, bool, bool, bool, u8, u8, u8) {
        let distance = prospect.distance.unwrap_or(u8::MAX);
        let duties = prospect.load.map_or(0, |load| load.introductions.max(load.relay)) / DUTY_STEP;
        let fullness = level(self.places(now, peer, prospect).utilisation()) / LEVELS;
        let is_partner = self.partners.contains(peer);
        (
            prospect.is_silent,
            !prospect.was_home,
            !prospect.is_weighed(),
            !is_partner,
            !prospect.is_drawn,
            duties,
            fullness,
            distance,
        )
    }
}
