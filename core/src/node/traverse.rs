//! Carries what concerns the way to peers of user links into [`Traversal`], and what it wants out.

use core::net::SocketAddr;
use core::time::Duration;

use super::Node;
use crate::api::RelayReason;
use crate::identity::PeerId;
use crate::net::{Family, PeerKey, SocketId, SocketKind};
use crate::path::Route;
use crate::peer::{LinkUse, Origin, Peer};
use crate::time::Instant;
use crate::transport::Purpose;
use crate::traverse::{Around, Case, Home, Named, Output, Traversal, View};
use crate::wire::message::{Message, Whereabouts};
use crate::wire::nat::PunchState;

impl Node {
    /// Tells the traversal what is known of a user link and of us, has it act, and carries out what it wants. Nothing
    /// for other peers.
    fn traverse(&mut self, now: Instant, key: PeerKey, act: impl FnOnce(&mut Traversal, &mut Case<'_>)) {
        let around = self.around();
        let Some(peer) = self.peers.get(key).and_then(|peer| View::of(peer, now)) else { return };
        act(
            &mut self.traversal,
            &mut Case { now, key, peer, around, network: self.transports.network(), account: &mut self.account },
        );
        self.peers.touch(key);
        self.carry_out_traversal(now);
    }

    pub(super) fn around(&self) -> Around {
        Around {
            me: self.id(),
            profile: self.examined_profile(),
            is_udp_blocked: self.transports.udp_works() == Some(false),
            reflexive: self.nat.reflexive(self.transports.network()),
            homes: self.overlay.own_homes().into_iter().filter_map(|(id, at)| Home::of(&self.peers, id, at)).collect(),
        }
    }

    fn carry_out_traversal(&mut self, now: Instant) {
        // What one of them causes is carried out before the next.
        let outputs: Vec<Output> = core::iter::from_fn(|| self.traversal.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Send { peer, message } => self.peers.send(peer, &message),
                Output::Check { peer, socket, remote, token } => {
                    let route = Route::Direct { socket, remote };
                    self.peers.send_on(peer, Some(route), &Message::sample(token, Some(remote)), false);
                }
                Output::Probe { home, path, token } => self.send_probe(now, home, path, token, Duration::ZERO, false),
                Output::Open { peer } => {
                    if self.open_socket(Purpose::Punch(peer), SocketKind::Udp(Family::V4)).is_none() {
                        self.traversal.on_socket(peer, None);
                    }
                }
                Output::Close { sockets } => self.close_sockets(now, &sockets),
                Output::Vouch { home, address, peer } => {
                    let up = self.peers.up_key(&home);
                    let home = up.or_else(|| self.dial(now, home, address, Origin::Hearsay, None));
                    if let Some(home) = home {
                        self.peers.need(now, home);
                        self.peers.send(home, &Message::Vouch { peer });
                    }
                }
                Output::Disagreement => self.nat.on_disagreement(now),
            }
        }
    }

    // ---- what is known ----

    /// Where peers may try to reach us, and what that takes, for the given attempt.
    pub(crate) fn whereabouts(&self, attempt: u8, link_use: LinkUse) -> Whereabouts {
        self.traversal.whereabouts(self.now, &self.around(), self.transports.network(), (attempt, link_use))
    }

    /// Why a link is relayed, if it is.
    pub(crate) fn relay_reason(&self, now: Instant, key: PeerKey) -> Option<RelayReason> {
        let view = View::of(self.peers.get(key)?, now).filter(|view| view.link_use == LinkUse::User)?;
        self.traversal.relay_reason(now, key, &view, || self.around())
    }

    // ---- what happened ----

    /// The peer told us where it is.
    pub(crate) fn on_whereabouts(&mut self, now: Instant, key: PeerKey, whereabouts: Whereabouts) {
        self.traverse(now, key, |t, case| t.on_whereabouts(case, whereabouts));
    }

    /// The peer told us where it is and asks the same.
    pub(crate) fn on_upgrade(&mut self, now: Instant, key: PeerKey, whereabouts: Whereabouts) {
        self.traverse(now, key, |t, case| t.on_upgrade(case, whereabouts));
    }

    /// Offers our candidates and asks for the peer's; checks start on both sides.
    pub(crate) fn upgrade(&mut self, now: Instant, key: PeerKey) {
        self.traverse(now, key, Traversal::upgrade);
    }

    /// Starts a check list over the peer's candidates, unless a direct path works.
    pub(crate) fn start_checks(&mut self, now: Instant, key: PeerKey) {
        self.traverse(now, key, Traversal::start_checks);
    }

    /// The link is up.
    pub(crate) fn traverse_up(&mut self, now: Instant, key: PeerKey) {
        self.traverse(now, key, Traversal::on_link_up);
    }

    /// The peer's deadline came.
    pub(crate) fn on_traversal_due(&mut self, now: Instant, key: PeerKey) {
        if self.traversal.is_busy(key) {
            self.traverse(now, key, Traversal::handle_timeout);
            self.traverse(now, key, Traversal::handle_sweep);
            self.traverse(now, key, Traversal::handle_retry);
        }
    }

    /// Those whose checks waited for the budget, and need not any more.
    pub(super) fn take_turns(&mut self, now: Instant) {
        while let Some((key, held)) = self.traversal.poll_turn(now) {
            self.traverse(now, key, |t, case| t.handle_turn(case, &held));
        }
    }

    /// Our addresses changed, as supernodes see us.
    pub(crate) fn on_candidates_changed(&mut self, now: Instant) {
        let peers: Vec<PeerKey> = self.traversal.peers().collect();
        for key in peers {
            self.traverse(now, key, Traversal::on_candidates_changed);
        }
    }

    /// The link is gone, and all that was tried for it.
    pub(crate) fn forget_traversal(&mut self, now: Instant, key: PeerKey) {
        self.traversal.forget(key);
        self.carry_out_traversal(now);
    }

    /// A socket for an effort was opened, or could not be.
    pub(crate) fn on_punch_socket(&mut self, now: Instant, key: PeerKey, socket: Option<SocketId>) {
        let is_wanted = self.traversal.on_socket(key, socket);
        if let Some(socket) = socket.filter(|_| !is_wanted) {
            self.close_socket(now, socket);
        }
        self.traverse(now, key, Traversal::run_effort);
    }

    /// A supernode answered that. Whether this probe was an effort's.
    pub(crate) fn on_punch_seen(&mut self, now: Instant, home: PeerKey, socket: SocketId, seen: SocketAddr) -> bool {
        let Some(Purpose::Punch(key)) = self.transports.purpose(socket) else { return false };
        if self.peers.get(home).is_some_and(Peer::is_wanted) {
            self.traverse(now, key, |t, case| t.on_seen(case, socket, seen));
        }
        true
    }

    /// The peer tells how far it is.
    pub(crate) fn on_punch(&mut self, now: Instant, key: PeerKey, state: &PunchState) {
        let home = state.vouch.map_or(Named::Unknown, |(home, address)| self.named(&home, address.into()));
        self.traverse(now, key, |t, case| t.on_punch(case, state, home));
    }

    fn named(&self, home: &PeerId, address: SocketAddr) -> Named {
        let has_answered = |socket| self.nat.seen_from(home, address, socket).is_some();
        match self.peers.up_key(home) {
            Some(_) => Named::Linked,
            None if self.transports.network().socket_for(address).is_some_and(has_answered) => Named::Answered,
            None => Named::Unknown,
        }
    }

    /// A home of ours tells where it sees a peer that we asked about.
    pub(crate) fn on_vouched(&mut self, now: Instant, home: PeerKey, id: PeerId, address: SocketAddr) {
        // Only the word of a supernode that we chose counts.
        let Some(home) = self.peers.get(home).filter(|peer| peer.is_wanted()).map(Peer::id) else { return };
        if let Some(key) = self.peers.key_of(&id) {
            self.traverse(now, key, |t, case| t.on_vouched(case, &home, address));
        }
    }
}
