//! Nodes of the same local network, which io found there by multicast DNS and where no supernode is needed.
//!
//! [`Lan`] is told what was announced ([`Lan::handle_node`]) and taken back ([`Lan::handle_node_gone`]). What is told
//! is a hint and no more: anybody on the LAN may announce anything, and only a handshake shows who answers. So a node
//! is remembered until it is wanted; then its addresses are dialled, beside the ordinary search for its homes, and
//! whichever answers first is the link. A call to somebody not heard of yet waits a moment for it where
//! [`Config::lan`](crate::api::Config::lan) says that io listens.
//!
//! A leaf without any home also tries those that say that they are supernodes ([`Lan::supernodes`]): on a LAN cut off
//! from the world they may be all there is.
//!
//! It is a table and wants nothing by itself: there is no deadline and no output. Calls and homes take from it what
//! they need, and bound what is sent to announced addresses as for other hearsay: by attempts per prefix and packets
//! per address ([`crate::account`]).

#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;

use core::net::SocketAddr;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::net::{LanNode, Network};
use crate::wire::address::{canonical, is_sendable};

/// Most nodes remembered. At the limit the one told longest ago goes.
const NODES_MAX: usize = 64;
/// Most addresses of one node. Further ones are not noted.
const ADDRESSES_MAX: usize = 4;
/// Most nodes at a time that a homeless leaf is told of as supernodes: more would crowd out those it knows.
const SUPERNODES_MAX: usize = 4;

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

    /// A node announced itself, or did so again: whether it was noted. Of its addresses those are that this node has a
    /// socket for and that are not its own.
    #[must_use]
    pub(crate) fn handle_node(&mut self, network: &Network, node: &LanNode) -> bool {
        let id = node.peer;
        let is_usable =
            |addr: &SocketAddr| is_sendable(*addr) && network.socket_for(*addr).is_some() && !network.is_own(*addr);
        let usable = node.addresses.iter().map(|addr| canonical(*addr)).filter(is_usable);
        let addresses: ArrayVec<SocketAddr, ADDRESSES_MAX> = usable.take(ADDRESSES_MAX).collect();
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
        self.by_id.insert(id, Announced { addresses, is_supernode: node.is_supernode, told: self.tellings });
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
    use crate::net::SocketId;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn network() -> Network {
        Network {
            sockets: vec![(SocketId(0), addr("0.0.0.0:7000"))],
            interfaces: vec![addr("192.168.1.2:0").ip()],
            ..Network::default()
        }
    }

    /// One announces these addresses; whether it was noted.
    fn tell(lan: &mut Lan, n: u8, addresses: &[&str], is_supernode: bool) -> bool {
        let addresses = addresses.iter().map(|text| addr(text)).collect();
        lan.handle_node(&network(), &LanNode { peer: id(n), addresses, is_supernode })
    }

    #[test]
    fn the_one_told_longest_ago_goes() {
        let mut lan = Lan::new(id(1));
        for n in 2..=65 {
            assert!(tell(&mut lan, n, &["192.168.1.9:7"], false));
        }
        assert!(tell(&mut lan, 2, &["192.168.1.8:7"], false), "again, at the limit");
        assert_eq!(lan.iter().count(), NODES_MAX);
        assert!(tell(&mut lan, 66, &["192.168.1.9:7"], false));
        assert_eq!(lan.iter().count(), NODES_MAX);
        assert!(lan.addresses(&id(3)).is_empty(), "that was the oldest");
        assert_eq!(lan.addresses(&id(2)), [addr("192.168.1.8:7")]);
        let many = ["192.168.1.3:7", "192.168.1.4:7", "192.168.1.5:7", "192.168.1.6:7", "192.168.1.7:7"];
        assert!(tell(&mut lan, 2, &many, false));
        assert_eq!(lan.addresses(&id(2)).len(), ADDRESSES_MAX);
    }

    #[test]
    fn what_cannot_be_a_node_is_not_noted() {
        let mut lan = Lan::new(id(1));
        assert!(!tell(&mut lan, 1, &["192.168.1.9:7"], false), "itself");
        assert!(!tell(&mut lan, 2, &[], false), "nowhere");
        let odd = ["224.0.0.251:7", "192.168.1.9:0", "[fd00::1]:7", "192.168.1.2:7000", "[::ffff:192.168.1.2]:7000"];
        assert!(!tell(&mut lan, 2, &odd, true), "a group, no port, a family without a socket, our own in two forms");
        assert_eq!(lan.iter().count(), 0);
        assert!(tell(&mut lan, 2, &["192.168.1.2:7000", "[::ffff:192.168.1.9]:7"], true));
        assert_eq!(lan.addresses(&id(2)), [addr("192.168.1.9:7")], "in its one form");
    }

    #[test]
    fn a_few_supernodes_are_told() {
        let mut lan = Lan::new(id(1));
        for n in 2..20 {
            assert!(tell(&mut lan, n, &[&format!("192.168.1.{n}:7"), "10.0.0.1:7"], n % 2 == 0));
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
