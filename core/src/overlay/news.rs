//! What happens to this node, and what time it is: links, supernodes that others name, another network.

use core::net::SocketAddr;

use super::output::Output;
use super::serving::Situation;
use super::state::{Acting, Overlay};
use crate::identity::PeerId;
use crate::introduce::LookupFailure;
use crate::overlay::directory::LookupOutcome;
use crate::queue;
use crate::time::{Instant, earliest};

/// A link that is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkUp {
    /// It was not up before: not one that was asked for and is there already.
    pub is_new: bool,
    /// This node opened it, and it does not go by TCP: the peer sees where our datagrams come from.
    pub shows_us: bool,
}

impl Overlay {
    // ---- whom to begin with ----

    /// Supernodes to start from.
    pub(crate) fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) {
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.join(now, known, &mut m);
        }
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.join(now, known, &mut stores);
        }
    }

    /// Supernodes that a ticket names: where none is known at all, they too serve to start from.
    pub(crate) fn start_from(&mut self, now: Instant, named: &[(PeerId, SocketAddr)]) {
        if !named.is_empty() && self.is_lost() {
            self.hear_of(now, named);
        }
    }

    /// Supernodes that somebody on the LAN claims to be: of use to a leaf without any home.
    pub(crate) fn hear_of(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) {
        if let Some((homes, mut m)) = self.leaf(now)
            && homes.registered().next().is_none()
        {
            homes.hear_of(now, known, &mut m);
        }
    }

    /// The host's network is another one. Whether the address that is advertised still holds has been
    /// [checked](Self::check_address).
    pub(crate) fn handle_network(&mut self, now: Instant) {
        self.begin_dial_backs(now);
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_network(now, &mut m);
        }
        let anchors = core::mem::take(&mut self.anchors);
        if anchors.is_empty() {
            return;
        }
        if !self.is_serving() {
            self.dial_back.put_off(now);
        }
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.rejoin(now, &anchors, &mut m);
        }
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.join(now, &anchors, &mut stores);
        }
    }

    // ---- links ----

    /// There is a link.
    pub(crate) fn on_link_up(&mut self, now: Instant, id: PeerId, link: LinkUp) {
        if link.is_new
            && let Some((s, _)) = self.supernode(now)
        {
            s.registrations.on_link_up(now, &id);
        }
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_link_up(now, id, &mut m);
        }
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_link_up(now, id, &mut stores);
            s.hand_over(now, &mut stores);
        }
        if link.shows_us && self.is_supernode(&id) {
            self.on_shown(now, id);
        }
        self.keep(id);
    }

    /// An Init of ours was answered there.
    pub(crate) fn on_reached(&mut self, now: Instant, id: PeerId, address: SocketAddr) {
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_reached(now, id, address, &mut stores);
            s.hand_over(now, &mut stores);
        }
    }

    /// Nothing may be sent now to where a supernode is said to be.
    pub(crate) fn on_vet_refused(&mut self, now: Instant, id: &PeerId) {
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_vet_refused(now, id, &mut stores);
        }
    }

    /// There is none any more, or it could not be opened.
    pub(crate) fn on_link_down(&mut self, now: Instant, id: &PeerId) {
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_link_down(now, *id, &mut m);
        }
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_link_down(now, *id, &mut stores);
            if s.registrations.on_link_down(id, stores.out) {
                stores.records.let_go(now, id);
            }
        }
        self.lookups.on_link_down(now, id, &mut self.out);
        self.dial_back.on_link_down(id);
        self.helpers.retain(|helper| helper != id);
    }

    /// Something authentic came from this peer.
    pub(crate) fn on_heard(&mut self, now: Instant, id: &PeerId) {
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_heard(now, id, &mut stores);
            s.registrations.on_heard(now, id);
        }
    }

    /// Has the link to a peer kept, if something here needs it.
    pub(super) fn keep(&mut self, peer: PeerId) {
        if self.needs(&peer) {
            self.out.push_back(Output::Keep { peer });
        }
    }

    /// Tells the homes goodbye, and dials nobody any more.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.is_leaving = true;
        if let Some((homes, m)) = self.leaf(now) {
            homes.leave(m.out);
        }
    }

    // ---- time ----

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, situation: &Situation<'_>) {
        let load = self.load(situation.carried);
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.handle_timeout(now, &mut m);
        }
        if let Some((s, mut stores, key, sequence)) = self.signing(now) {
            s.gossip.set_load(load, s.registrations.places());
            s.gossip.handle_timeout(now, key, sequence, &mut stores);
            s.registrations.handle_timeout(now, &mut stores);
            for home in s.registrations.take_found_dead() {
                s.gossip.look_for(now, home, &mut stores);
            }
            if s.gossip.take_suspicion() {
                s.placing.on_suspicion(now, stores.members);
            }
            s.placing.handle_timeout(now, stores.records, stores.members, stores.out);
            s.lookups_taken.handle_timeout(now);
            s.seeks_taken.handle_timeout(now);
            s.dial_backs.handle_timeout(now);
            s.trials.handle_timeout(now, stores.out);
        }
        self.look_again(now);
        self.members.handle_timeout(now);
        self.records.handle_timeout(now);
        self.lookups.handle_timeout(now, &mut self.out);
        for home in self.lookups.take_silent() {
            if let Some((homes, mut m)) = self.leaf(now) {
                homes.on_silent(now, home, None, &mut m);
            }
        }
        self.on_dial_backs_due(now, situation);
        self.on_role_due(now, situation);
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let acting = match &self.acting {
            Acting::Leaf(homes) => homes.poll_timeout(),
            Acting::Supernode(s) => {
                let own = earliest(s.gossip.poll_timeout(), s.registrations.poll_timeout());
                let own = earliest(own, s.trials.poll_timeout());
                earliest(own, Some(s.placing.poll_timeout()).filter(|_| s.registrations.len() > 0))
            }
        };
        let others = [
            self.members.poll_timeout(),
            self.records.poll_timeout(),
            self.lookups.poll_timeout(),
            self.dial_back.poll_timeout(),
            self.role.poll_timeout(),
        ];
        others.into_iter().fold(acting, earliest)
    }

    // ---- what is wanted ----

    /// What is wanted next. Where this node changes sides, that goes on when there is nothing else.
    pub(crate) fn poll_output(&mut self, now: Instant) -> Option<Output> {
        loop {
            match queue::pop(&mut self.out, 0) {
                Some(Output::Dial { .. }) if self.is_leaving => continue,
                None => {}
                output => return output,
            }
            if let Some((peer, outcome)) = self.lookups.poll_outcome() {
                let location = match outcome {
                    LookupOutcome::Found(record) => Ok(record.addresses()),
                    LookupOutcome::Unknown => Err(LookupFailure::Unknown),
                    LookupOutcome::NoAnswer => Err(LookupFailure::NoAnswer),
                };
                self.on_located(now, peer, &location);
                return Some(Output::Locate { peer, location });
            }
            self.is_pressing = false;
            let turn = self.turn.take()?;
            self.go_on(turn);
        }
    }

    /// Whether what is wanted is to be done before anything else is: what comes next rests on it.
    pub(crate) fn is_pressing(&self) -> bool {
        self.is_pressing
    }
}
