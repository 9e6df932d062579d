//! Whom supernodes name as those that a leaf of theirs had best have for its other home: they watch each other anyway.
//! In a large network any two supernodes would else share some leaf, and each would have to watch all others.

use core::net::IpAddr;

use super::plans::Partners;
use super::{Homes, SETTLE};
use crate::identity::PeerId;
use crate::overlay::home::means::Means;
use crate::overlay::home::prospect::Link;
use crate::time::Instant;
use crate::wire::address::Address;

/// Most supernodes whose partners are remembered: some more than are compared.
const NAMING_MAX: usize = 8;

impl Homes {
    /// A supernode named those that watch it.
    pub(crate) fn on_partners(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        partners: &[(PeerId, Address)],
        m: &mut Means<'_>,
    ) {
        if self.is_settled() || self.prospects.get(&from).is_none_or(|c| c.link != Link::Up) {
            return;
        }
        self.partners.named.retain(|(by, _)| *by != from);
        if self.partners.named.len() < NAMING_MAX {
            self.partners.named.push((from, partners.iter().map(|(peer, _)| *peer).collect()));
            self.learn_by_the_way(ip, partners);
        }
        self.advance(now, m);
    }

    /// Both homes stand.
    pub(super) fn forget_partners(&mut self) {
        self.partners = Partners::default();
    }

    /// Dials a partner of the only home, unless one is linked or was dialled before; then it is waited for.
    pub(super) fn dial_partner(&mut self, now: Instant, m: &mut Means<'_>) -> bool {
        let [first] = *self.chosen.as_slice() else { return false };
        let named = self.partners.of(Some(&first));
        let is_there = |peer: &PeerId| self.prospects.get(peer).is_some_and(|c| c.link != Link::Down);
        let has_old = self.prospects.iter().any(|(peer, c)| *peer != first && c.was_home && c.link == Link::Up);
        if self.partners.dialled_for == Some(first) || has_old || named.iter().any(is_there) {
            return false;
        }
        let choice = self.choice(m.members);
        let fits = |peer: &&PeerId| {
            self.prospects.get(peer).is_some_and(|c| !c.is_tried && !c.is_refusing(now) && !choice.is_near_chosen(c))
        };
        let fitting: Vec<PeerId> = named.iter().filter(fits).copied().collect();
        // Who named them drew them by their room.
        let Some(peer) = fitting.get(m.random.peer_choice.below(fitting.len())).copied() else { return false };
        let Some(prospect) = self.prospects.get_mut(&peer) else { return false };
        self.partners.dialled_for = Some(first);
        (prospect.is_drawn, prospect.is_tried) = (true, true);
        self.dial(now, peer, m.out);
        self.settle_at = Some(now + SETTLE);
        true
    }
}
