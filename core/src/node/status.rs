//! What a node knows of itself, for people and programs that ask.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::Node;
use crate::api::{PathInfo, PeerStatus, Role, Status};
use crate::identity::PeerId;
use crate::ticket::{TICKET_HOMES_MAX, Ticket};
use crate::time::Instant;
use crate::wire::ServiceName;

impl Node {
    /// All that `status` shows.
    pub(crate) fn make_status(&self, now: Instant) -> Status {
        let peers = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_up())
            .filter_map(|(key, p)| {
                let (route, (rx_bytes, tx_bytes, relayed_bytes)) = (p.current()?, p.bytes());
                Some(PeerStatus {
                    peer: p.id(),
                    path: self.peers.path_info(&route)?,
                    why: self.relay_reason(now, key),
                    transport: self.transport_of(&route),
                    rtt: p.paths().rtt(),
                    rx_bytes,
                    tx_bytes,
                    relayed_bytes,
                    control: !p.is_user(),
                })
            })
            .collect();
        Status {
            id: self.me.id(),
            role: self.overlay.present_role(),
            auto: matches!(self.config.role, Role::Auto),
            reachability: self.reachability(now),
            relayed: self.channels.relayed(),
            observed: self.nat.observed(),
            mapping: self.nat.mapping(&self.network),
            udp_works: self.udp_works(),
            reachable: self.reachable(),
            homes: self.own_homes(),
            lan_nodes: self.lan.iter().collect(),
            peers,
            supernodes: self.overlay.supernode_status(now),
            load: self.overlay.load(self.carried(now)),
            leaves: self.overlay.leaves(),
            binding_lifetime: self.binding_lifetime(),
            keepalive_interval: self.keepalive_interval(),
            channels: self.channels.len(),
            counters: self.counters,
        }
    }

    pub(crate) fn make_ticket(&self, service: Option<ServiceName>) -> Ticket {
        let own: Vec<_> = match self.overlay.present_role() {
            Role::Supernode { advertise } => advertise.iter().map(|address| (self.me.id(), *address)).collect(),
            Role::Leaf | Role::Auto => self.own_homes(),
        };
        let homes: ArrayVec<_, TICKET_HOMES_MAX> = own.into_iter().take(TICKET_HOMES_MAX).collect();
        Ticket { peer: self.me.id(), homes, service }
    }

    pub(crate) fn path_and_rtt(&self, id: &PeerId) -> Option<(PathInfo, Option<Duration>)> {
        let peer = self.peers.by_id(id).filter(|p| p.is_up())?;
        Some((self.peers.path_info(&peer.current()?)?, peer.paths().rtt()))
    }
}
