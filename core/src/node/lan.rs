//! Carries what io tells of the local network to the machine that keeps it, and what that is good for to calls and homes.

use core::net::SocketAddr;

use super::Node;
use crate::identity::PeerId;
use crate::introduce::Known;
use crate::net::LanNode;
use crate::time::Instant;
use crate::wire::address::canonical;

impl Node {
    /// A node announced itself on the local network, or did so again with other addresses.
    pub fn handle_lan_node(&mut self, now: Instant, node: &LanNode) {
        let id = node.peer;
        let here = |addr: &SocketAddr| self.socket_for(*addr).is_some() && !self.is_own(*addr);
        let usable: Vec<SocketAddr> = node.addresses.iter().map(|addr| canonical(*addr)).filter(here).collect();
        if self.leaving || !self.lan.handle_node(id, &usable, node.is_supernode) {
            return;
        }
        let known =
            Known { is_linked: self.peers.up_key(&id).is_some(), near: self.lan.addresses(&id), ..Known::default() };
        self.calls.on_near(now, &mut self.account, id, &known);
        self.carry_calls(now);
        if self.own_homes().is_empty() {
            let near = self.lan.supernodes();
            self.rooms_hear_of(now, &near);
        }
        self.settle(now);
    }

    /// A node of the local network has gone, or its announcement has run out. Links to it stay.
    pub fn handle_lan_node_gone(&mut self, now: Instant, peer: PeerId) {
        self.lan.handle_node_gone(&peer);
        self.settle(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Config, ConnectError, Event, Saved};
    use crate::identity::SecretKey;
    use crate::lan::{ADDRESSES_MAX, NODES_MAX, SUPERNODES_MAX};
    use crate::net::{Network, SocketId};
    use std::collections::BTreeMap;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn announced(peer: PeerId, addresses: &[&str], is_supernode: bool) -> LanNode {
        LanNode { peer, addresses: addresses.iter().map(|text| addr(text)).collect(), is_supernode }
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
            node.handle_lan_node(at(0), &announced(id(n), &["192.168.1.9:7"], false));
        }
        assert_eq!(node.lan.iter().count(), NODES_MAX);
        assert!(node.lan.addresses(&id(2)).is_empty() && !node.lan.addresses(&id(90)).is_empty());
        let many = ["192.168.1.3:7", "192.168.1.4:7", "192.168.1.5:7", "192.168.1.6:7", "192.168.1.7:7"];
        node.handle_lan_node(at(0), &announced(id(90), &many, false));
        assert_eq!(node.lan.addresses(&id(90)).len(), ADDRESSES_MAX);
        node.handle_lan_node_gone(at(0), id(90));
        assert!(node.lan.addresses(&id(90)).is_empty());
    }

    #[test]
    fn what_cannot_be_a_lan_node_is_not_noted() {
        let mut node = node(Config::leaf());
        node.handle_lan_node(at(0), &announced(id(1), &["192.168.1.9:7"], false));
        let odd = ["224.0.0.251:7", "192.168.1.9:0", "[fd00::1]:7", "192.168.1.2:7000"];
        node.handle_lan_node(at(0), &announced(id(2), &odd, true));
        assert_eq!(node.lan.iter().count(), 0, "itself, a group, no port, a family without a socket, our own");
    }

    #[test]
    fn nothing_is_sent_to_a_lan_node_that_nobody_wants() {
        let mut node = node(Config::leaf());
        node.handle_lan_node(at(0), &announced(id(2), &["192.168.1.9:7"], false));
        assert!(run(&mut node, 0, 60_000).is_empty());
    }

    #[test]
    fn d1_a_lan_node_that_does_not_answer_gets_few_packets() {
        let mut node = node(Config::leaf());
        let victim = ["192.168.1.9:7", "192.0.2.1:53", "192.0.2.2:53"];
        node.handle_lan_node(at(0), &announced(id(2), &victim, false));
        for n in 0..10 {
            node.connect(at(n * 5_000), id(2)).expect("taken");
            node.handle_lan_node(at(n * 5_000), &announced(id(2), &victim, false));
            let sent = run(&mut node, n * 5_000, (n + 1) * 5_000);
            assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
        }
        let mut node = self::node(Config::leaf());
        node.handle_lan_node(at(0), &announced(id(2), &victim, false));
        node.connect(at(0), id(2)).expect("taken");
        let sent = run(&mut node, 0, 30_000);
        assert_eq!(sent.len(), 3, "all are tried: {sent:?}");
        assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
        assert_eq!(failures(&mut node), [ConnectError::Unreachable]);
    }

    #[test]
    fn who_listens_on_the_lan_waits_for_them_a_moment() {
        let mut deaf = node(Config::leaf());
        deaf.connect(at(0), id(2)).expect("taken");
        assert_eq!(failures(&mut deaf), [ConnectError::NoSupernode], "at once");

        let mut node = node(Config { lan: true, ..Config::leaf() });
        node.connect(at(0), id(2)).expect("taken");
        assert!(run(&mut node, 0, 1_500).is_empty());
        assert!(failures(&mut node).is_empty(), "it may still be heard of");
        node.handle_lan_node(at(1_500), &announced(id(2), &["192.168.1.9:7"], false));
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
            node.handle_lan_node(at(0), &announced(id(n), &[&at_address], true));
        }
        let sent = run(&mut node, 0, 60_000);
        assert!(!sent.is_empty() && sent.len() <= 2 * SUPERNODES_MAX, "{sent:?}");
    }
}
