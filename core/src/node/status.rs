//! What a node knows of itself, for people and programs that ask.

use super::Node;
use crate::api::{PeerStatus, Status};
use crate::net::PeerKey;
use crate::peer::Peer;
use crate::time::Instant;

impl Node {
    /// The body of `status`.
    pub(super) fn own_status(&self, now: Instant) -> Status {
        let duty = self.peers.own_duty();
        Status {
            id: self.id(),
            role: self.overlay.present_role(),
            auto: self.overlay.is_auto(),
            reachability: self.reachability(now),
            relayed: self.relay.relayed(),
            observed: self.nat.observed(),
            mapping: self.nat.mapping(self.transports.network()),
            udp_works: self.transports.udp_works(),
            reachable: self.overlay.reachable(),
            homes: self.overlay.own_homes(),
            lan_nodes: self.calls.lan().iter().collect(),
            peers: self.peers.iter().filter_map(|(key, peer)| self.status_of(now, key, peer)).collect(),
            supernodes: self.overlay.supernode_status(now),
            limited_relays: self.relay.limited(now),
            load: self.overlay.load(self.carried(now)),
            leaves: self.overlay.leaves(),
            serving: self.overlay.serving(),
            binding_lifetime: self.measuring.lifetime(duty),
            keepalive_interval: self.measuring.interval(duty),
            volunteer: self.relay.volunteer_status(),
            volunteers: self.relay.volunteers(),
            channels: self.relay.len(),
            counters: *self.report.counters(),
        }
    }

    /// What it says of one peer.
    pub(super) fn status_of(&self, now: Instant, key: PeerKey, peer: &Peer) -> Option<PeerStatus> {
        let (rx_bytes, tx_bytes, relayed_bytes) = peer.bytes();
        let current = peer.current().filter(|_| peer.is_up())?;
        Some(PeerStatus {
            peer: peer.id(),
            path: self.peers.path_info(&current)?,
            why: self.relay_reason(now, key),
            transport: self.transport_of(&current),
            rtt: peer.paths().rtt(),
            rx_bytes,
            tx_bytes,
            relayed_bytes,
            control: !peer.is_user(),
        })
    }
}
