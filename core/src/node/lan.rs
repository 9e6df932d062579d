//! Carries what io tells of the local network to calls, which keep it, and to the overlay, which may begin with it.

use super::Node;
use crate::identity::PeerId;
use crate::net::LanNode;
use crate::time::Instant;

impl Node {
    /// A node announced itself on the local network, or did so again with other addresses.
    pub fn handle_lan_node(&mut self, now: Instant, node: &LanNode) {
        if self.overlay.is_leaving() {
            return;
        }
        let is_linked = self.peers.up_key(&node.peer).is_some();
        if self.calls.handle_lan_node(now, &mut self.account, self.transports.network(), node, is_linked) {
            self.carry_calls(now);
            self.overlay.hear_of(now, &self.calls.lan().supernodes());
            self.settle(now);
        }
    }

    /// A node of the local network has gone, or its announcement has run out. Links to it stay.
    pub fn handle_lan_node_gone(&mut self, now: Instant, peer: PeerId) {
        self.calls.handle_lan_node_gone(&peer);
        self.settle(now);
    }
}
