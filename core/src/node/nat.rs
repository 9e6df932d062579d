//! Carries what supernodes see, sockets and time to the [router's examination](crate::nat), and out what it wants.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use super::Node;
use crate::api::{Event, Reachability};
use crate::identity::PeerId;
use crate::nat::{Around, Ask, NatProfile, Output, Reporter, WayIn};
use crate::net::{Path, PeerKey, SocketId, SocketKind};
use crate::path::Route;
use crate::peer::Outgoing;
use crate::time::Instant;
use crate::transport::Purpose;
use crate::wire::packet::loop_packet;

// ---- what it is told ----

impl Node {
    /// Somebody told where it sees us.
    pub(crate) fn on_observed(
        &mut self,
        now: Instant,
        key: PeerKey,
        address: SocketAddr,
        socket: SocketId,
        seen: SocketAddr,
    ) {
        let Some(id) = self.peers.id_of(key) else { return };
        let reporter = Reporter { id, address, is_supernode: self.overlay.is_supernode(&id) };
        self.nat.on_observed(now, &reporter, socket, seen);
        self.carry_nat(now);
    }

    pub(super) fn on_reach_socket(&mut self, now: Instant, opened: Option<(SocketId, SocketAddr)>) {
        self.nat.on_socket(now, opened);
        self.carry_nat(now);
    }

    fn tell_around(&mut self, now: Instant) {
        let supernodes: Vec<_> = self.overlay.askable().into_iter().filter_map(|id| self.addresses_of(id)).collect();
        let around = Around {
            network: self.transports.network(),
            supernodes: &supernodes,
            stand: self.overlay.stand(),
            has_helpers: self.overlay.has_helpers(),
            is_open: self.overlay.is_open(),
        };
        self.nat.on_around(now, &around);
    }

    /// The addresses of a supernode that a link is up to, the one in use first.
    fn addresses_of(&self, id: PeerId) -> Option<(PeerId, Vec<SocketAddr>)> {
        let current = self.peers.by_id(&id).filter(|p| p.is_up())?.current();
        let in_use = current.and_then(|route| route.remote());
        Some((id, in_use.into_iter().chain(self.overlay.supernode_addresses(&id)).collect()))
    }

    // ---- what it wants ----

    pub(super) fn carry_nat(&mut self, now: Instant) {
        while let Some(output) = self.nat.poll_output() {
            match output {
                Output::Ask(ask) => self.carry_ask(now, ask),
                Output::Around => self.tell_around(now),
                Output::Help { missing, except } => {
                    let is_up = |id: &&PeerId| self.peers.up_key(id).is_some();
                    let linked: BTreeSet<PeerId> = self.overlay.supernodes().filter(is_up).copied().collect();
                    if !self.overlay.call_helpers(now, missing, &except, &linked) {
                        self.nat.on_no_help();
                    }
                }
                Output::ReleaseHelp => self.overlay.release_helpers(),
                Output::Checked { seen, came_in } => {
                    self.overlay.on_checked(now, seen, came_in);
                    self.settle_if_pressing(now);
                }
                Output::Known => self.consider_serving(now),
                // Only a home is sent enough to be remembered for. Another supernode, asked again after an hour, sees
                // another port of a router that maps by destination, and that says nothing.
                Output::Forgotten { by } => drop(self.overlay.is_home(&by).then(|| self.keepalive_on_forgotten(now))),
                Output::Candidates => self.on_candidates_changed(now),
                Output::Save(save) => self.report.tell(Event::Save(save)),
            }
        }
    }

    fn carry_ask(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Probe { to, from, remote, token, alternate } => {
                if let Some(key) = self.peers.up_key(&to) {
                    let from = Path { socket: from, remote, local: None };
                    self.send_probe(now, key, from, token, Duration::ZERO, alternate);
                }
            }
            Ask::Loop { from, remote, token } => {
                if self.account.unasked(now, remote) {
                    let path = Path { socket: from, remote, local: None };
                    self.peers.push(Outgoing::Raw { path, bytes: loop_packet(token).into() });
                }
            }
            Ask::Open(family) => {
                if self.open_socket(Purpose::Reach, SocketKind::Udp(family)).is_none() {
                    self.nat.on_socket(now, None);
                }
            }
            Ask::Close(socket) => self.close_socket(now, socket),
        }
    }
}

// ---- what others ask ----

impl Node {
    pub(super) fn examined_profile(&self) -> NatProfile {
        self.nat.profile(self.transports.network(), self.overlay.is_open())
    }

    pub(super) fn reachability(&self, now: Instant) -> Reachability {
        let way_in = WayIn {
            network: self.transports.network(),
            profile: self.traversal.profile(self.now, &self.around()),
            reachable: self.overlay.reachable(),
            udp: self.transports.udp_works(),
        };
        self.nat.reachability(now, &way_in)
    }

    /// Homes that are linked directly now: which, from what socket, to where.
    pub(super) fn direct_homes(&self) -> impl Iterator<Item = (PeerKey, SocketId, SocketAddr)> + '_ {
        self.overlay.own_homes().into_iter().filter_map(|(home, _)| {
            let key = self.peers.up_key(&home)?;
            match self.peers.get(key)?.current()? {
                Route::Direct { socket, remote } => Some((key, socket, remote)),
                Route::Relayed { .. } => None,
            }
        })
    }
}
