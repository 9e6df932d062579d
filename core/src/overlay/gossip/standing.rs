//! Who becomes known here: those that this node has been to.
//!
//! An advert of one that is in the membership table renews it. Any other is [hearsay](crate::overlay::advert::Hearsay)
//! until its supernode answers an Init of ours at an address that the advert names, and that one counts although it was
//! answered before the advert came.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

use super::{FEW, Gossip, Stores};
use crate::account::Source;
use crate::api::Event;
use crate::identity::PeerId;
use crate::overlay::advert::shelf::Refused;
use crate::overlay::advert::statement::speaks_of;
use crate::overlay::advert::{Advert, Ask, Found, MembershipTable, Need, Teller};
use crate::overlay::output::Output;
use crate::overlay::pack;
use crate::time::Instant;
use crate::wire::message::{Message, NeighbourWord};

impl Gossip {
    /// Adverts that this node was told of when it was a leaf: it goes to see.
    pub(crate) fn hear_again(&mut self, now: Instant, adverts: &[(Box<[u8]>, SocketAddr)], s: &mut Stores<'_>) {
        let need = Need { is_urgent: true, tellers: 0 };
        for (bytes, at) in adverts {
            let me = Teller { id: self.me, ip: Some(at.ip()), is_member: false };
            // What has no place is heard of again.
            let wants = |id: &PeerId| s.members.admits(id);
            let _ = self.hearsay.hear(now, &me, s.wall, bytes, need, wants, &mut s.random.jitter);
        }
    }

    /// An Init of ours was answered there.
    pub(crate) fn on_reached(&mut self, now: Instant, peer: PeerId, address: SocketAddr, s: &mut Stores<'_>) {
        self.reached.insert(now, peer, address);
        self.on_heard(now, &peer, s);
        self.vouch_for(now, peer, address, s);
    }

    /// Those that links have come up to since this was asked last, and where they are.
    pub(crate) fn take_met(&mut self) -> Vec<(PeerId, SocketAddr)> {
        core::mem::take(&mut self.met)
    }

    /// Whether somebody became suspect since this was asked last.
    pub(crate) fn take_suspicion(&mut self) -> bool {
        core::mem::take(&mut self.has_suspicion)
    }

    /// Nothing may be sent now to where a supernode is said to be.
    pub(crate) fn on_vet_refused(&mut self, now: Instant, peer: &PeerId, s: &mut Stores<'_>) {
        self.hearsay.on_refused(now, peer, &mut s.random.jitter);
    }

    /// This node has been at an address of this peer: if its advert waits for that, it is known from now on.
    fn vouch_for(&mut self, now: Instant, peer: PeerId, address: SocketAddr, s: &mut Stores<'_>) {
        let Some(bytes) = self.hearsay.on_reached(&peer, address) else { return };
        if self.lonely.get(&peer).is_some() {
            s.members.make_room();
        }
        let source = Source::of(peer, Some(address.ip()));
        if let Ok(advert) = s.members.insert(now, source, s.wall, &bytes, Found::Here(address)) {
            self.on_member(now, peer, &advert, s);
            if !self.neighbours.contains_key(&peer) {
                // A visit leaves a link.
                self.rest(now, peer, s);
            }
        }
    }

    /// Whether this node has been to a supernode that is here, or was told by its user that it is there.
    pub(crate) fn is_at(&self, peer: &PeerId, address: SocketAddr, members: &MembershipTable) -> bool {
        members.address(peer) == Some(address) || self.starts.get(peer) == Some(&address)
    }

    /// An advert came over the link to `from`, straight from the address `ip` if there is one. Returns whether it was new
    /// to the membership table.
    pub(super) fn on_advert(
        &mut self,
        now: Instant,
        from: PeerId,
        ip: Option<IpAddr>,
        bytes: &[u8],
        s: &mut Stores<'_>,
    ) -> bool {
        let source = Source::of(from, s.members.speaks_from(&from, ip));
        match s.members.renew(now, source, s.wall, bytes) {
            Ok(advert) => {
                self.on_member(now, from, &advert, s);
                true
            }
            Err(Refused::Unproven) => {
                self.hear(now, from, ip, bytes, s);
                false
            }
            Err(_) => false,
        }
    }

    /// The advert of a supernode that this node has not been to.
    fn hear(&mut self, now: Instant, from: PeerId, ip: Option<IpAddr>, bytes: &[u8], s: &mut Stores<'_>) {
        let ip = s.members.speaks_from(&from, ip);
        let teller = Teller { id: from, ip, is_member: s.members.contains(&from) };
        let is_urgent = s.members.len() < FEW && !s.members.is_partial();
        let need = Need { is_urgent, tellers: s.members.spread() };
        let wants = |id: &PeerId| self.lonely.get(id).is_some() || s.members.admits(id);
        let heard = self.hearsay.hear(now, &teller, s.wall, bytes, need, wants, &mut s.random.jitter);
        let peer = match heard {
            Ok(peer) => peer,
            // It is told so, and says whether it needs one.
            Err(Refused::Full) if speaks_of(bytes, &from) && self.digests_taken.take(now, from) => {
                return pack::send(s.out, from, &Message::Neighbour(NeighbourWord::Full));
            }
            Err(_) => return,
        };
        if let Some((_, address)) = self.reached.get(&peer).copied() {
            self.vouch_for(now, peer, address, s);
        }
        self.ask_heard(now, s.out);
    }

    /// Asks those that are due.
    pub(super) fn ask_heard(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        while let Some(ask) = self.hearsay.poll_ask(now) {
            match ask {
                Ask::There(peer, address) => out.push_back(Output::Vet { peer, address }),
                Ask::InVain(peer, address) => {
                    pack::send(out, peer, &Message::Neighbour(NeighbourWord::Unreached(address.into())));
                }
            }
        }
    }

    /// Another supernode has been at an address of ours in vain.
    pub(super) fn on_unreached(&mut self, now: Instant, from: PeerId, address: SocketAddr, s: &mut Stores<'_>) {
        let by = Source::of(from, s.members.speaks_from(&from, None));
        if s.members.contains(&from) && self.own.names(address) && self.unreached.on_said(now, by, address) {
            s.out.push_back(Output::Event(Event::Unreached { address, by: from }));
        }
    }

    /// An advert came to the membership table.
    fn on_member(&mut self, now: Instant, from: PeerId, advert: &Advert, s: &mut Stores<'_>) {
        self.count_fresh(now, true, s);
        if advert.is_withdrawn() {
            return;
        }
        let (peer, is_new) = (advert.id, !self.neighbours.contains_key(&advert.id));
        if self.lonely.remove(&peer).is_some() && self.take(now, peer, true, s) {
            return;
        }
        self.consider(now, peer, s);
        let is_wanted = self.neighbours.contains_key(&peer);
        if peer == from && is_new && is_wanted {
            self.on_link_up(now, from, s);
        }
    }
}
