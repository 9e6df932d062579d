//! What one end offers, and what it picks from.
//!
//! The relays of a choice are of two kinds. *Supernodes* are at an address. *Volunteers* are at none that anybody knows:
//! they are leaves, and are called like any leaf. Of each kind two are drawn, and the cheapest of these is picked: by
//! the pair's own measurements, of which it has none of a volunteer that neither ever spoke to. So however many
//! volunteers somebody makes up, they carry no more than honest ones would.

use std::collections::VecDeque;

use super::around::Around;
use super::choice::{Choices, Pick};
use super::output::Output;
use super::score::{Candidate, pick};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::peer::Peer;
use crate::random::KeyRng;
use crate::time::Instant;
use crate::wire::address::Address;
use crate::wire::message::{Message, OFFERED_MAX, OfferedRelay};

impl Choices {
    /// Offers the present relay, if it carries anything, this end's homes, and volunteers that it knows.
    pub(super) fn send_offer(
        &self,
        now: Instant,
        link: PeerKey,
        peer: &Peer,
        around: &Around<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(choice) = self.by_link.get(&link) else { return };
        let urgent = choice.urgent.is_some();
        let present = around.relay_of(peer);
        let others = self.own_relays(now, around).filter(|relay| Some(*relay) != present);
        let others = others.filter(|relay| self.may_be(now, relay, link, around));
        let whole = around.present(peer).and_then(|present| u16::try_from(present.rtt_ms).ok()).unwrap_or(u16::MAX);
        let present = present.filter(|_| !urgent).map(|relay| OfferedRelay { rtt_ms: whole, ..around.offered(relay) });
        let relays = present.into_iter().chain(others.map(|relay| around.offered(relay))).take(OFFERED_MAX).collect();
        let message = Message::RelayOffer { round: choice.round, urgent, relays };
        out.push_back(Output::Send { peer: link, message });
    }

    /// The relays that this end can name: its homes, and volunteers.
    pub(super) fn own_relays<'a>(&'a self, now: Instant, around: &'a Around<'_>) -> impl Iterator<Item = PeerId> + 'a {
        around.homes.iter().map(|(home, _)| *home).chain(self.known.iter(now))
    }

    /// Whether a relay may be chosen for a link: it is neither of the two, and refused nothing lately.
    pub(super) fn may_be(&self, now: Instant, relay: &PeerId, link: PeerKey, around: &Around<'_>) -> bool {
        let peer = around.peers.id_of(link);
        let is_limited = peer.is_some_and(|peer| self.is_limited(now, relay, &peer));
        let has_refused = self.has_refused(link, relay) || self.known.avoids(now, relay);
        *relay != around.me && Some(*relay) != peer && !is_limited && !has_refused
    }

    /// The relays to pick from: what the peer offers and what we can name, without the present one; where nothing presses,
    /// those only that are clearly better than that.
    pub(super) fn candidates(
        &self,
        now: Instant,
        link: PeerKey,
        peer: &Peer,
        urgent: bool,
        offered: &[OfferedRelay],
        around: &Around<'_>,
    ) -> Vec<Candidate> {
        let present = around.relay_of(peer);
        let seen = |relay: PeerId, theirs: Option<&OfferedRelay>| {
            let theirs_ms = theirs.map(|offer| offer.rtt_ms).filter(|ms| *ms != u16::MAX).map(u32::from);
            let load = around.load(&relay).max(theirs.map_or(0, |offer| offer.load));
            Candidate::new(relay, around.rtt_ms(&relay), theirs_ms, load)
        };
        let of_peer = |relay: &PeerId| offered.iter().find(|offer| offer.relay == *relay);
        let mut relays: Vec<PeerId> = offered.iter().map(|offer| offer.relay).collect();
        relays.extend(self.own_relays(now, around).filter(|relay| of_peer(relay).is_none()));
        // Of the present relay the peer says how long the whole way takes.
        let told = present.map(|relay| seen(relay, of_peer(&relay)));
        let told = told.map(|told| match of_peer(&told.relay).filter(|offer| offer.rtt_ms != u16::MAX) {
            Some(offer) => Candidate { rtt_ms: offer.rtt_ms.into(), ..told },
            None => told,
        });
        let present_view = around.present(peer).or(told);
        let others = relays.into_iter().filter(|relay| Some(*relay) != present);
        let others = others.filter(|relay| self.may_be(now, relay, link, around));
        let others = others.map(|relay| seen(relay, of_peer(&relay))).filter(|candidate| candidate.load < u8::MAX);
        let is_better = |c: &Candidate| present_view.is_none_or(|present| c.is_clearly_better(&present));
        others.filter(|candidate| urgent || is_better(candidate)).collect()
    }

    /// Picks one of these, with what both shall present to it.
    pub(super) fn pick(
        candidates: Vec<Candidate>,
        offered: &[OfferedRelay],
        around: &Around<'_>,
        keys: &mut KeyRng,
    ) -> Option<Pick> {
        let address = |relay: &PeerId| -> Option<Address> {
            let named = offered.iter().find(|offer| offer.relay == *relay).and_then(|offer| offer.address);
            around.address_of(relay, named).map(Into::into)
        };
        let (supernodes, volunteers): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|c| address(&c.relay).is_some());
        let mut draw = |of: &[Candidate]| pick(of, |n| usize::try_from(keys.u64() % n as u64).unwrap_or(0));
        let drawn = [draw(&supernodes), draw(&volunteers)];
        // The first of equals.
        let picked = drawn.into_iter().flatten().min_by_key(Candidate::cost)?;
        Some((picked.relay, address(&picked.relay), keys.bytes()))
    }
}
