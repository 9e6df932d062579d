//! Who has room for leaves: what supernodes say of themselves, and how much of that is believed.
//!
//! A claim costs nothing, so a claim of many places counts for no more than the median of all claims until more is
//! *earned*: until this node sees that many leaves are at home there. What it sees are the leaves that it shares with
//! others; each of these stands for as many as all those with whom it shares any have in the mean. The same shows who
//! tells of fewer leaves than it has. Of a claim that is cut the leaves are cut, too, in proportion; and who claims more
//! than the median and has not earned even that looks at least as full as the middle one: else an endless claim would be
//! an empty supernode. A leaf sees nothing of the kind, and believes the supernode that it asked for a listing, with the
//! adverts in which it must believe that one anyway.

use arrayvec::ArrayVec;

use super::heard::{HeardRoom, LOAD_HOLDS, Market};
use super::{Known, MembershipTable, Suspicion};
use crate::identity::PeerId;
use crate::overlay::advert::shelf::id_prefix;
use crate::time::Instant;
use crate::wire::places::{Places, Room, level, taken_at};

/// Who carries so many times what it is seen to carry is believed to be able to.
const HEADROOM: u32 = 3;

impl Known {
    fn said(&self, now: Instant) -> Option<Places> {
        self.room.as_ref()?.said(now)
    }

    /// By the share of its places that is said to be taken: at least so many, and at most so many.
    fn shared_out(&self, now: Instant) -> Option<(u32, u32)> {
        let heard = self.load.filter(|heard| now.since(heard.at) < LOAD_HOLDS)?;
        let all = u64::from(self.advert.leaves_max);
        let share = |of_255: u8| u32::try_from(all * u64::from(of_255) / 255).unwrap_or(u32::MAX);
        let most = share(heard.load.leaves);
        let least = heard.load.leaves.checked_sub(1).map_or(0, |less| share(less).saturating_add(1));
        Some((least.min(most), most))
    }

    /// Whether it is known how full this one is: it said so, or its share says it to a tenth.
    fn tells(&self, now: Instant) -> bool {
        // None taken is said by whom nothing is known of, too.
        let is_close = |(least, most): (u32, u32)| most > 0 && most - least <= most / 10;
        self.said(now).is_some() || self.shared_out(now).is_some_and(is_close)
    }

    fn seen(&self, now: Instant) -> Places {
        self.room.as_ref().map_or(Places::default(), |room| room.seen(now))
    }
}

impl MembershipTable {
    /// A supernode told how much room it has.
    pub(crate) fn on_places(&mut self, now: Instant, from: &PeerId, places: Places) {
        if let Some(known) = self.shelf.value_mut(from) {
            known.room.get_or_insert_default().said = Some((places, now));
        }
    }

    /// At a leaf: the supernode that was asked for a listing says how much room others have.
    pub(crate) fn on_rooms(&mut self, now: Instant, rooms: &[Room]) {
        for room in rooms {
            let me = self.me;
            let Some(known) = self.shelf.by_prefix_mut(room.id_prefix).filter(|known| known.advert.id != me) else {
                continue;
            };
            let seen = room.places();
            let room = known.room.get_or_insert_default();
            let said = room.said(now).map_or(Some((seen, now)), |_| room.said);
            **room = HeardRoom { said, seen: Some((seen, now)) };
        }
    }

    /// How much room a supernode is believed to have; none where nothing is known of that, or what is known is old.
    pub(crate) fn places(&self, now: Instant, id: &PeerId) -> Option<Places> {
        self.believed(now, self.shelf.value(id)?)
    }

    /// Of how many leaves a supernode is believed to be able to take care.
    pub(crate) fn capacity(&self, now: Instant, id: &PeerId) -> u32 {
        self.shelf.value(id).map_or(0, |known| self.credible(now, known, known.advert.leaves_max))
    }

    fn believed(&self, now: Instant, known: &Known) -> Option<Places> {
        // Of those that this node does not talk to only a share is known, rounded up to a 255th: within that they are
        // taken for as full as the middle one.
        let by_share = || {
            let (least, most) = known.shared_out(now)?;
            let all = known.advert.leaves_max;
            Some(Places { taken: taken_at(self.utilisation_median, all).clamp(least, most), all })
        };
        let said = known.said(now).or_else(by_share)?;
        let (claim, seen) = (said.all.min(known.advert.leaves_max), known.seen(now));
        let all = self.credible(now, known, claim);
        let taken = said.taken_of(all).max(seen.taken);
        // With an endless claim all look empty: where it is not earned, no emptier than the middle one.
        let is_earned = all == claim || all == seen.all;
        let middle = if is_earned { 0 } else { taken_at(self.utilisation_median, all) };
        Some(Places { taken: taken.max(middle), all })
    }

    fn credible(&self, now: Instant, known: &Known, claim: u32) -> u32 {
        self.claim_median.map_or(claim, |median| claim.min(median.max(known.seen(now).all)))
    }

    /// What to tell a leaf of the room of these.
    pub(crate) fn rooms<const N: usize>(&self, now: Instant, of: &[PeerId]) -> ArrayVec<Room, N> {
        let room = |id: &PeerId| {
            let places = self.places(now, id)?;
            Some(Room { id_prefix: id_prefix(id), taken: level(places.taken), all: level(places.all) })
        };
        of.iter().filter_map(room).take(N).collect()
    }

    /// Looks at what the adverts claim.
    pub(crate) fn weigh_claims(&mut self) {
        let mut claims: Vec<u32> = self.iter().map(|(_, advert)| advert.leaves_max).collect();
        claims.sort_unstable();
        self.claim_median = claims.get(claims.len().saturating_sub(1) / 2).copied();
    }

    /// At a supernode, every now and then: what claims are worth, by the leaves that are shared with whom, and how full
    /// all are together, this one with its own places among them.
    pub(crate) fn review<'a>(
        &mut self,
        now: Instant,
        own: Places,
        shared: impl Iterator<Item = (&'a PeerId, u32)> + Clone,
    ) -> Market {
        self.weigh_claims();
        // What one shared leaf stands for, in 65 536ths: of what those say with whom any are shared the middle one, each
        // with as much weight as leaves, so that one that shares few moves nothing, whatever it says.
        let says = |id: &PeerId| self.shelf.value(id)?.said(now).map(|places| u64::from(places.taken) << 16);
        let stands_for =
            shared.clone().filter_map(|(id, leaves)| Some((says(id)?.checked_div(leaves.into())?, leaves)));
        let mut stands_for: Vec<(u64, u32)> = stands_for.collect();
        stands_for.sort_unstable();
        let mut half = stands_for.iter().map(|(_, leaves)| u64::from(*leaves)).sum::<u64>() / 2;
        let middle = stands_for.iter().find(|(_, leaves)| {
            let is_it = half < u64::from(*leaves);
            half = half.saturating_sub(u64::from(*leaves));
            is_it
        });
        let ratio = middle.map_or(0, |(ratio, _)| *ratio);
        for (id, leaves) in shared {
            let Some(known) = self.shelf.value_mut(id) else { continue };
            // Chance alone moves a count by its root.
            let least = u64::from(leaves - leaves.isqrt());
            let taken = u32::try_from(least.saturating_mul(ratio) >> 16).unwrap_or(u32::MAX);
            known.room.get_or_insert_default().seen =
                Some((Places { taken, all: taken.saturating_mul(HEADROOM) }, now));
        }
        let living = self.shelf.iter().map(|(known, _)| known).filter(|known| {
            known.advert.id != self.me && !known.advert.is_withdrawn() && known.suspicion == Suspicion::Alive
        });
        // Those who tell are a sample of all; the others count where nobody tells.
        let (tell, others): (Vec<&Known>, Vec<&Known>) = living.partition(|known| known.tells(now));
        let counted = if tell.is_empty() { others } else { tell };
        let mut all: Vec<Places> = counted.into_iter().filter_map(|known| self.believed(now, known)).collect();
        all.push(own);
        let sum = |of: fn(&Places) -> u32| all.iter().map(|places| u64::from(of(places))).sum::<u64>();
        // More than full nobody is, whatever it says: one alone would make all others look empty.
        let (taken, places) = (sum(|p| p.taken.min(p.all)), sum(|p| p.all));
        let mean = (taken << 16).checked_div(places).map_or(0, |mean| u32::try_from(mean).unwrap_or(u32::MAX));
        all.sort_unstable_by_key(|places| places.utilisation());
        let median = all.get(all.len() / 2).map_or(0, |places| places.utilisation());
        // The lower one: of those that are taken for this full there is then none too many.
        let lower = all.get((all.len() - 1) / 2).map_or(0, |places| places.utilisation());
        self.utilisation_median = lower;
        Market { known: all.len(), mean, median }
    }
}
