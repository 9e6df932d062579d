//! Neighbours: nodes that io found on the same local network, by multicast DNS, where no supernode is needed.
//!
//! io tells what was announced ([`Node::handle_neighbor`]) and taken back ([`Node::handle_neighbor_gone`]). What is
//! told is a hint and no more: anybody on the LAN may announce anything, and only a handshake shows who answers. So a
//! neighbour is remembered until it is wanted; then its addresses are dialled, beside the ordinary search for its
//! homes, and whichever answers first is the link. A call to somebody not heard of yet waits a moment for it where
//! [`Config::lan`](crate::api::Config::lan) says that io listens.
//!
//! A leaf without any home also tries neighbours that say that they are supernodes: on a LAN cut off from the world
//! they may be all there is.
//!
//! What is sent to announced addresses is bounded as for other hearsay: by attempts per prefix
//! ([`Account`](crate::account::Account)) and packets per address ([`crate::account`]); and only when the application wants that
//! peer, or a home is missing.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use super::Node;
use crate::identity::PeerId;
use crate::net::Neighbor;
use crate::time::Instant;
use crate::wire::address::{canonical, is_sendable};

/// Most neighbours remembered. At the limit the one told longest ago goes.
pub(crate) const NEIGHBORS_MAX: usize = 64;
/// Most addresses of one neighbour. Further ones are not noted.
pub(crate) const NEIGHBOR_ADDRESSES_MAX: usize = 4;
/// Most neighbours at a time that a homeless leaf is told of as supernodes: more would crowd out those it knows.
const NEIGHBOR_SUPERNODES_MAX: usize = 4;

#[derive(Clone, Debug)]
struct Known {
    addresses: ArrayVec<SocketAddr, NEIGHBOR_ADDRESSES_MAX>,
    is_supernode: bool,
    /// Counts tellings: the smallest was told longest ago.
    told: u64,
}

/// Those that io has told of.
#[derive(Debug, Default)]
pub(crate) struct Neighbors {
    by_id: BTreeMap<PeerId, Known>,
    tellings: u64,
}

impl Neighbors {
    fn insert(&mut self, id: PeerId, addresses: ArrayVec<SocketAddr, NEIGHBOR_ADDRESSES_MAX>, is_supernode: bool) {
        if self.by_id.len() >= NEIGHBORS_MAX && !self.by_id.contains_key(&id) {
            let oldest = self.by_id.iter().min_by_key(|(_, known)| known.told).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.by_id.remove(&oldest);
            }
        }
        self.tellings += 1;
        self.by_id.insert(id, Known { addresses, is_supernode, told: self.tellings });
    }

    /// All, each with the address named first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        self.by_id.iter().filter_map(|(id, known)| Some((*id, *known.addresses.first()?)))
    }
}

impl Node {
    /// A node announced itself on the local network, or did so again with other addresses.
    pub fn handle_neighbor(&mut self, now: Instant, neighbor: &Neighbor) {
        let id = neighbor.peer;
        let usable = |addr: &SocketAddr| is_sendable(*addr) && self.socket_for(*addr).is_some() && !self.is_own(*addr);
        let addresses: ArrayVec<SocketAddr, NEIGHBOR_ADDRESSES_MAX> = neighbor
            .addresses
            .iter()
            .map(|addr| canonical(*addr))
            .filter(usable)
            .take(NEIGHBOR_ADDRESSES_MAX)
            .collect();
        if self.leaving || id == self.me.id() || addresses.is_empty() {
            return;
        }
        self.neighbors.insert(id, addresses, neighbor.is_supernode);
        self.dial_neighbor(now, id);
        self.join_neighbors(now);
        self.settle(now);
    }

    /// A neighbour has gone, or its announcement has run out. Links to it stay.
    pub fn handle_neighbor_gone(&mut self, now: Instant, peer: PeerId) {
        self.neighbors.by_id.remove(&peer);
        self.settle(now);
    }

    /// Where a neighbour says that it is.
    pub(crate) fn neighbor_addresses(&self, id: &PeerId) -> Vec<SocketAddr> {
        self.neighbors.by_id.get(id).map(|known| known.addresses.to_vec()).unwrap_or_default()
    }

    /// For a call: dials the peer at the addresses that it has on the LAN, if it is a neighbour without a link to us.
    pub(crate) fn dial_neighbor(&mut self, now: Instant, id: PeerId) {
        let addresses = self.neighbor_addresses(&id);
        if addresses.is_empty() || self.peers.up_key(&id).is_some() || !self.may_dial_neighbor(&id) {
            return;
        }
        for address in self.account.take_attempts(now, addresses.into_iter()) {
            self.dial(now, id, address, None);
        }
    }

    /// A leaf without a home has nothing to lose by trying what is near.
    pub(crate) fn join_neighbors(&mut self, now: Instant) {
        if self.leaving || !self.own_homes().is_empty() {
            return;
        }
        let supernodes = self.neighbors.by_id.iter().filter(|(_, known)| known.is_supernode);
        let near: Vec<(PeerId, SocketAddr)> = supernodes
            .filter_map(|(id, known)| Some((*id, *known.addresses.first()?)))
            .take(NEIGHBOR_SUPERNODES_MAX)
            .collect();
        if !near.is_empty() {
            self.rooms_hear_of(now, &near);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Config, ConnectError, Event, Saved};
    use crate::identity::SecretKey;
    use crate::net::{Network, SocketId};

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn neighbor(peer: PeerId, addresses: &[&str], is_supernode: bool) -> Neighbor {
        Neighbor { peer, addresses: addresses.iter().map(|text| addr(text)).collect(), is_supernode }
    }

    // An origin that quinn's own moments count from; nothing here depends on it.
    #[allow(clippy::disallowed_methods)]
    fn node(config: Config) -> Node {
        let key = SecretKey::from_bytes(&[1; 32]);
        let origin = std::time::Instant::now();
        let mut node = Node::new(at(0), origin, [7; 32], key, config, Saved::default()).expect("a good configuration");
        let network = Network {
            sockets: vec![(SocketId(0), addr("0.0.0.0:7000"))],
            interfaces: vec!["192.168.1.2".parse().expect("an address")],
            ..Network::default()
        };
        node.handle_network(at(0), &network);
        node
    }

    /// Runs a node that nobody answers, and says where it sends packets, how many each.
    fn run(node: &mut Node, from: u64, until: u64) -> BTreeMap<SocketAddr, usize> {
        let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let mut now = at(from);
        let mut buf = [0; 2_000];
        loop {
            while let Some(transmit) = node.poll_transmit(now, 1, &mut buf) {
                *sent.entry(transmit.path.remote).or_default() += 1;
            }
            match node.poll_timeout() {
                Some(next) if next < at(until) => {
                    now = now.max(next);
                    node.handle_timeout(now);
                }
                _ => return sent,
            }
        }
    }

    fn failures(node: &mut Node) -> Vec<ConnectError> {
        let events = std::iter::from_fn(|| node.poll_event());
        events.filter_map(|e| if let Event::ConnectFailed { error, .. } = e { Some(error) } else { None }).collect()
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let mut node = node(Config::leaf());
        for n in 2..=90 {
            node.handle_neighbor(at(0), &neighbor(id(n), &["192.168.1.9:7"], false));
        }
        assert_eq!(node.neighbors.by_id.len(), NEIGHBORS_MAX);
        assert!(node.neighbor_addresses(&id(2)).is_empty() && !node.neighbor_addresses(&id(90)).is_empty());
        let many = ["192.168.1.3:7", "192.168.1.4:7", "192.168.1.5:7", "192.168.1.6:7", "192.168.1.7:7"];
        node.handle_neighbor(at(0), &neighbor(id(90), &many, false));
        assert_eq!(node.neighbor_addresses(&id(90)).len(), NEIGHBOR_ADDRESSES_MAX);
        node.handle_neighbor_gone(at(0), id(90));
        assert!(node.neighbor_addresses(&id(90)).is_empty());
    }

    #[test]
    fn what_cannot_be_a_neighbor_is_not_noted() {
        let mut node = node(Config::leaf());
        node.handle_neighbor(at(0), &neighbor(id(1), &["192.168.1.9:7"], false));
        let odd = ["224.0.0.251:7", "192.168.1.9:0", "[fd00::1]:7", "192.168.1.2:7000"];
        node.handle_neighbor(at(0), &neighbor(id(2), &odd, true));
        assert_eq!(node.neighbors.by_id.len(), 0, "itself, a group, no port, a family without a socket, our own");
    }

    #[test]
    fn nothing_is_sent_to_a_neighbor_that_nobody_wants() {
        let mut node = node(Config::leaf());
        node.handle_neighbor(at(0), &neighbor(id(2), &["192.168.1.9:7"], false));
        assert!(run(&mut node, 0, 60_000).is_empty());
    }

    #[test]
    fn d1_a_neighbor_that_does_not_answer_gets_few_packets() {
        let mut node = node(Config::leaf());
        let victim = ["192.168.1.9:7", "192.0.2.1:53", "192.0.2.2:53"];
        node.handle_neighbor(at(0), &neighbor(id(2), &victim, false));
        for n in 0..10 {
            node.connect(at(n * 5_000), id(2)).expect("taken");
            node.handle_neighbor(at(n * 5_000), &neighbor(id(2), &victim, false));
            let sent = run(&mut node, n * 5_000, (n + 1) * 5_000);
            assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
        }
        let mut node = self::node(Config::leaf());
        node.handle_neighbor(at(0), &neighbor(id(2), &victim, false));
        node.connect(at(0), id(2)).expect("taken");
        let sent = run(&mut node, 0, 30_000);
        assert_eq!(sent.len(), 3, "all are tried: {sent:?}");
        assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
        assert_eq!(failures(&mut node), [ConnectError::Unreachable]);
    }

    #[test]
    fn who_listens_for_neighbors_waits_for_them_a_moment() {
        let mut deaf = node(Config::leaf());
        deaf.connect(at(0), id(2)).expect("taken");
        assert_eq!(failures(&mut deaf), [ConnectError::NoSupernode], "at once");

        let mut node = node(Config { lan: true, ..Config::leaf() });
        node.connect(at(0), id(2)).expect("taken");
        assert!(run(&mut node, 0, 1_500).is_empty());
        assert!(failures(&mut node).is_empty(), "it may still be heard of");
        node.handle_neighbor(at(1_500), &neighbor(id(2), &["192.168.1.9:7"], false));
        let sent = run(&mut node, 1_500, 60_000);
        assert!(sent.contains_key(&addr("192.168.1.9:7")), "{sent:?}");
        assert_eq!(failures(&mut node), [ConnectError::Unreachable]);
        node.connect(at(60_000), id(3)).expect("taken");
        run(&mut node, 60_000, 70_000);
        assert_eq!(failures(&mut node), [ConnectError::NoSupernode], "never heard of");
    }

    #[test]
    fn a_homeless_leaf_tries_supernodes_of_the_lan() {
        let mut node = node(Config::leaf());
        for n in 2..12 {
            let at_address = format!("192.168.1.{n}0:7");
            node.handle_neighbor(at(0), &neighbor(id(n), &[&at_address], true));
        }
        let sent = run(&mut node, 0, 60_000);
        assert!(!sent.is_empty() && sent.len() <= 2 * NEIGHBOR_SUPERNODES_MAX, "{sent:?}");
    }
}
