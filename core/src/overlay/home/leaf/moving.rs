//! A home asks a leaf to go elsewhere: because it does not take it, or because others have more room.
//!
//! Nothing is lost on the way: the leaf registers at the new home first, and says goodbye to the old one when that has
//! taken it; where it does not, the old one stays.

use core::net::IpAddr;
use core::time::Duration;

use super::Homes;
use super::plans::Moving;
use crate::identity::PeerId;
use crate::overlay::home::means::Means;
use crate::overlay::home::prospect::{Link, Prospect};
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::time::Instant;
use crate::wire::address::Address;
use crate::wire::message::{Message, RECORD_HOMES_MAX};

/// A leaf that has moved stays for so long, and as much again at random, whatever its homes say.
const STAY: Duration = Duration::from_secs(600);
/// Who refuses may ask for so much patience, and
const PATIENCE_MAX_S: u16 = 300;
/// at least for so much.
const PATIENCE_MIN_S: u16 = 5;

impl Homes {
    /// A home, or one that was asked to be one, names others in its place.
    pub(crate) fn on_elsewhere(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        retry_after_s: u16,
        supernodes: &[(PeerId, Address)],
        m: &mut Means<'_>,
    ) {
        let Some(prospect) = self.prospects.get_mut(&from) else { return };
        if prospect.is_refusing(now) {
            let patience = retry_after_s.clamp(PATIENCE_MIN_S, PATIENCE_MAX_S);
            if !prospect.is_left {
                prospect.refused_until = Some(now + Duration::from_secs(patience.into()));
            }
            self.learn_by_the_way(ip, supernodes);
            return self.advance(now, m);
        }
        let is_registered = prospect.is_registered;
        let is_at_rest = self.is_settled() && self.moving.now.is_none() && now >= self.moving.after;
        if !is_registered || !is_at_rest {
            return;
        }
        let others: Vec<_> =
            self.chosen.iter().filter(|home| **home != from).filter_map(|home| self.prospects.get(home)).collect();
        let fits = |(peer, address): &&(PeerId, Address)| {
            let there = Box::new(Prospect::new((*address).into(), false));
            let there = self.prospects.get(peer).unwrap_or(&there);
            *peer != self.me
                && !self.chosen.contains(peer)
                && !others.iter().any(|other| other.is_near(there))
                && !there.is_refusing(now)
        };
        let Some(named) = supernodes.iter().find(fits) else { return };
        self.learn_by_the_way(ip, core::slice::from_ref(named));
        let to = named.0;
        let Some(prospect) = self.prospects.get_mut(&to) else { return };
        self.moving =
            Moving { now: Some((from, to)), is_reversed: false, after: now + STAY + m.random.jitter.jitter(STAY) };
        (prospect.is_drawn, prospect.is_tried) = (true, true);
        match prospect.link {
            Link::Up => self.arrive(now, to, m),
            Link::Dialling => {}
            Link::Down => self.dial(now, to, m.out),
        }
    }

    /// A link is up: if it is to whom this leaf moves, that one is asked to be its home.
    pub(super) fn arrive(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        let Some((from, to)) = self.moving.now.filter(|(_, to)| *to == peer) else { return };
        let Some(place) = self.chosen.iter_mut().find(|home| **home == from) else {
            // It is gone. Whoever is linked may take its place.
            self.moving.now = None;
            return;
        };
        *place = to;
        // The one that stays may send this leaf elsewhere, too, next time: it is not to keep all those that it was first for.
        self.moving.is_reversed = self.chosen.len() > 1 && self.chosen.last() == Some(&to);
        if self.moving.is_reversed {
            self.chosen.reverse();
        }
        self.register(now, m);
    }

    /// The new home has taken this leaf.
    pub(super) fn on_arrived(&mut self, peer: PeerId, m: &mut Means<'_>) {
        let Some((from, _)) = self.moving.now.take_if(|(_, to)| *to == peer) else { return };
        let Some(old) = self.prospects.get_mut(&from) else { return };
        if old.link == Link::Up {
            send(m.out, from, &Message::Deregister);
        }
        old.link = Link::Down;
        (old.is_registered, old.is_drawn, old.is_tried, old.was_home) = (false, false, false, false);
        self.drop_question(&from);
        m.out.push_back(Output::Release { peer: from });
    }

    /// A home is lost: if it is not the one that is being left, this is no time to move.
    pub(super) fn call_off(&mut self, lost: &PeerId) {
        let is_home = self.chosen.contains(lost);
        let Some((from, to)) = self.moving.now.take_if(|(from, to)| is_home && from != lost && to != lost) else {
            return;
        };
        if let Some(place) = self.chosen.iter_mut().find(|home| **home == to) {
            *place = from;
        }
    }

    /// The link to a prospect is gone: if this leaf was about to move there, it stays. Says whether that is all there is
    /// to it.
    pub(super) fn stays(&mut self, now: Instant, peer: &PeerId, m: &mut Means<'_>) -> bool {
        let Some((from, to)) = self.moving.now.take_if(|(from, to)| from == peer || to == peer) else { return false };
        let is_there = self.prospects.get(&from).is_some_and(|c| c.link == Link::Up && c.is_registered);
        if let Some(place) = self.chosen.iter_mut().find(|home| **home == to && to == *peer && is_there) {
            *place = from;
            if core::mem::take(&mut self.moving.is_reversed) {
                self.chosen.reverse();
            }
            self.register(now, m);
            return true;
        }
        false
    }

    /// Whether its homes are those of the last run.
    pub(super) fn is_as_it_was(&self) -> bool {
        self.is_settled() && self.chosen.iter().all(|home| self.prospects.get(home).is_some_and(|c| c.was_home))
    }

    /// Whether it has all the homes that it wants.
    pub(super) fn is_settled(&self) -> bool {
        self.registered().count() == RECORD_HOMES_MAX
    }
}
