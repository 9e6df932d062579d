//! Nodes of the same local network, which io found there by multicast DNS and where no supernode is needed.
//!
//! [`Lan`] is told what was announced ([`Lan::handle_node`]) and taken back ([`Lan::handle_node_gone`]). What is told is a
//! hint and no more: anybody on the LAN may announce anything, and only a handshake shows who answers. So a node is
//! remembered until it is wanted; then its addresses are dialled, beside the ordinary search for its homes, and whichever
//! answers first is the link. A call to somebody not heard of yet waits a moment for it where
//! [`Config::lan`](crate::api::Config::lan) says that io listens.
//!
//! A leaf without any home also tries those that say that they are supernodes ([`Lan::supernodes`]): on a LAN cut off
//! from the world they may be all there is.
//!
//! It is a table and wants nothing by itself: there is no deadline and no output. Calls and homes take from it what they
//! need, and bound what is sent to announced addresses as for other hearsay: by attempts per prefix and packets per
//! address ([`crate::account`]).

#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;

use core::net::SocketAddr;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::wire::address::is_sendable;

/// Most nodes remembered. At the limit the one told longest ago goes.
pub(crate) const NODES_MAX: usize = 64;
/// Most addresses of one node. Further ones are not noted.
pub(crate) const ADDRESSES_MAX: usize = 4;
/// Most nodes at a time that a homeless leaf is told of as supernodes: more would crowd out those it knows.
pub(crate) const SUPERNODES_MAX: usize = 4;

#[derive(Clone, Debug)]
struct Announced {
    addresses: ArrayVec<SocketAddr, ADDRESSES_MAX>,
    is_supernode: bool,
    /// Counts tellings: the smallest was told longest ago.
    told: u64,
}

/// The LAN nodes that io has told of, with the addresses that they announced.
#[derive(Debug)]
pub(crate) struct Lan {
    me: PeerId,
    by_id: BTreeMap<PeerId, Announced>,
    tellings: u64,
}

impl Lan {
    /// Nobody yet, around the node `me`.
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, by_id: BTreeMap::new(), tellings: 0 }
    }

    /// A node announced itself, or did so again: whether it was noted. `usable` are those of its addresses, in order, that
    /// this node has a socket for and that are not its own.
    pub(crate) fn handle_node(&mut self, id: PeerId, usable: &[SocketAddr], is_supernode: bool) -> bool {
        let sendable = usable.iter().copied().filter(|addr| is_sendable(*addr));
        let addresses: ArrayVec<SocketAddr, ADDRESSES_MAX> = sendable.take(ADDRESSES_MAX).collect();
        if id == self.me || addresses.is_empty() {
            return false;
        }
        if self.by_id.len() >= NODES_MAX && !self.by_id.contains_key(&id) {
            let oldest = self.by_id.iter().min_by_key(|(_, node)| node.told).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.by_id.remove(&oldest);
            }
        }
        self.tellings += 1;
        self.by_id.insert(id, Announced { addresses, is_supernode, told: self.tellings });
        true
    }

    /// A node has gone, or its announcement has run out.
    pub(crate) fn handle_node_gone(&mut self, id: &PeerId) {
        self.by_id.remove(id);
    }

    /// Where a node says that it is.
    pub(crate) fn addresses(&self, id: &PeerId) -> Vec<SocketAddr> {
        self.by_id.get(id).map(|node| node.addresses.to_vec()).unwrap_or_default()
    }

    /// A few of those that say that they are supernodes, each with the address named first.
    pub(crate) fn supernodes(&self) -> Vec<(PeerId, SocketAddr)> {
        let supernodes = self.by_id.iter().filter(|(_, node)| node.is_supernode);
        supernodes.filter_map(|(id, node)| Some((*id, *node.addresses.first()?))).take(SUPERNODES_MAX).collect()
    }

    /// All, each with the address named first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        self.by_id.iter().filter_map(|(id, node)| Some((*id, *node.addresses.first()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_one_told_longest_ago_goes() {
        let mut lan = Lan::new(id(1));
        for n in 2..=65 {
            assert!(lan.handle_node(id(n), &[addr("192.168.1.9:7")], false));
        }
        assert!(lan.handle_node(id(2), &[addr("192.168.1.8:7")], false), "again, at the limit");
        assert_eq!(lan.iter().count(), NODES_MAX);
        assert!(lan.handle_node(id(66), &[addr("192.168.1.9:7")], false));
        assert_eq!(lan.iter().count(), NODES_MAX);
        assert!(lan.addresses(&id(3)).is_empty(), "that was the oldest");
        assert_eq!(lan.addresses(&id(2)), [addr("192.168.1.8:7")]);
    }

    #[test]
    fn what_cannot_be_a_node_is_not_noted() {
        let mut lan = Lan::new(id(1));
        assert!(!lan.handle_node(id(1), &[addr("192.168.1.9:7")], false), "itself");
        assert!(!lan.handle_node(id(2), &[], false), "nowhere");
        assert!(!lan.handle_node(id(2), &[addr("224.0.0.251:7"), addr("192.168.1.9:0")], false), "a group, no port");
        assert_eq!(lan.iter().count(), 0);
    }

    #[test]
    fn a_few_supernodes_are_told() {
        let mut lan = Lan::new(id(1));
        for n in 2..20 {
            let own = SocketAddr::from(([192, 168, 1, n], 7));
            assert!(lan.handle_node(id(n), &[own, addr("10.0.0.1:7")], n % 2 == 0));
        }
        let told = lan.supernodes();
        assert_eq!(told.len(), SUPERNODES_MAX);
        let first = |n: u8| (id(n), SocketAddr::from(([192, 168, 1, n], 7)));
        assert!(told.iter().all(|near| (2..20).step_by(2).any(|n| first(n) == *near)));
        for n in 2..20 {
            lan.handle_node_gone(&id(n));
        }
        assert!(lan.supernodes().is_empty() && lan.addresses(&id(2)).is_empty());
    }
}
