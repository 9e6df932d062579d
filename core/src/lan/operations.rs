//! What io may tell of the LAN, in any order.

use core::net::SocketAddr;

use super::{ADDRESSES_MAX, Lan, NODES_MAX, SUPERNODES_MAX};
use crate::identity::{PeerId, SecretKey};
use crate::net::{LanNode, Network, SocketId};
use crate::operations::Bytes;

/// More than are remembered.
const PEERS: u8 = 80;

/// Reads announcements, and asserts that the table keeps its limits and tells only what was announced.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let ids: Vec<PeerId> = (1..=PEERS).map(|n| SecretKey::from_bytes(&[n; 32]).peer_id()).collect();
    let mut lan = Lan::new(ids[0]);
    let own = SocketAddr::from(([192, 168, 1, 1], 7));
    let network = Network { sockets: vec![(SocketId(0), own)], ..Network::default() };
    while !bytes.is_empty() {
        let (what, peer) = (bytes.u8(), ids[usize::from(bytes.u8() % PEERS)]);
        if what.is_multiple_of(8) {
            lan.handle_node_gone(&peer);
            assert!(lan.addresses(&peer).is_empty());
            continue;
        }
        let count = usize::from(bytes.u8() % 8);
        let named: Vec<SocketAddr> =
            (0..count).map(|_| SocketAddr::from(([192, 168, bytes.u8(), bytes.u8()], bytes.u16()))).collect();
        let before = lan.addresses(&peer);
        let node = LanNode { peer, addresses: named, is_supernode: what.is_multiple_of(2) };
        let noted = lan.handle_node(&network, &node);
        let addresses = lan.addresses(&peer);
        if noted {
            assert!(peer != ids[0] && !addresses.is_empty() && addresses.len() <= ADDRESSES_MAX);
            assert!(addresses.iter().all(|address| node.addresses.contains(address) && *address != own));
        } else {
            assert_eq!(addresses, before, "what is refused changes nothing");
        }
        assert!(lan.iter().count() <= NODES_MAX);
        let told = lan.supernodes();
        assert!(told.len() <= SUPERNODES_MAX && told.iter().all(|near| lan.iter().any(|all| all == *near)));
    }
}

#[test]
fn any_announcements() {
    crate::operations::drive_at_random(100, 2_000, drive);
}
