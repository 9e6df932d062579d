//! What the node is told of the world around it: time, chance, the network, mapped ports, LAN nodes.
//!
//! [`Surroundings`] holds the rooms that watch these. Once per turn the loop has it tell the node what is new
//! ([`Surroundings::tell`]); in between it notes hints and answers of other threads.

use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use handfast_core::portmap::Report;
use handfast_core::time::earliest;
use handfast_core::{Instant, Node, SocketId};

use super::command::{News, answer};
use crate::host::{Clock, Lan, LanNews, Refresh, Watch};
use crate::portmap::PortMap;

/// All of it.
pub(super) struct Surroundings {
    clock: Clock,
    entropy: Refresh,
    watch: Watch,
    port_map: PortMap,
    /// Announces the node while it is there.
    _lan: Option<Lan>,
}

impl Surroundings {
    /// Of these rooms, as they were made at start.
    pub(super) fn new(clock: Clock, watch: Watch, port_map: PortMap, lan: Option<Lan>) -> Self {
        let entropy = Refresh::new(clock.now());
        Self { clock, entropy, watch, port_map, _lan: lan }
    }

    /// Now.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// std's moment of our [`Instant::ZERO`].
    pub(super) fn origin(&self) -> StdInstant {
        self.clock.origin()
    }

    /// mio has news of the network.
    pub(super) fn on_notice(&mut self, now: Instant) {
        self.watch.on_notice(now);
    }

    /// mio has news of a socket of port mapping.
    pub(super) fn set_port_map_readable(&mut self) {
        self.port_map.set_readable();
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.port_map.is_readable()
    }

    /// When there is something to do in any case.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(Some(self.watch.next_look()), self.port_map.poll_timeout())
    }

    /// Another thread found something out.
    pub(super) fn on_news(&mut self, node: &mut Node, now: Instant, news: News) {
        match news {
            News::Upnp { internal, answer } => self.port_map.on_upnp(now, internal, answer),
            News::Lan { news, reply } => {
                match news {
                    LanNews::Here(found) => node.handle_lan_node(now, &found),
                    LanNews::Gone(peer) => node.handle_lan_node_gone(now, peer),
                }
                answer(&reply, ());
            }
        }
    }

    /// Tells a new node how things are. `sockets` are those bound at start.
    pub(super) fn introduce(&mut self, node: &mut Node, now: Instant, sockets: &[(SocketId, SocketAddr)]) {
        if let Some(wall) = self.clock.wall(now) {
            node.handle_wall_clock(now, wall);
        }
        if let Some(network) = self.watch.look_if_due(now, sockets) {
            node.handle_network(now, &self.port_map.adopt(now, network));
        }
    }

    /// Tells the node what is new. `sockets` are those bound at start.
    pub(super) fn tell(&mut self, node: &mut Node, now: Instant, sockets: &[(SocketId, SocketAddr)]) {
        if let Some(wall) = self.clock.wall(now) {
            node.handle_wall_clock(now, wall);
        }
        if let Some(fresh) = self.entropy.take(now) {
            node.handle_entropy(&fresh);
        }
        if self.clock.slept(now) {
            tracing::info!("the machine slept; looking whom it can still reach");
            self.watch.on_resume(now);
        }
        if let Some(network) = self.watch.look_if_due(now, sockets) {
            tracing::info!("the network of this host changed");
            node.handle_network(now, &self.port_map.adopt(now, network));
        }
        if let Some(network) = self.port_map.turn(now) {
            node.handle_network(now, &network);
        }
    }

    /// What port mapping has come to, when that is something new.
    pub(super) fn take_port_mapping(&mut self) -> Option<Report> {
        self.port_map.take_report()
    }

    /// The node leaves: what others hold for it is given back.
    pub(super) fn release(&mut self, now: Instant) {
        self.port_map.release(now);
    }

    /// Whether that is done.
    pub(super) fn is_released(&self) -> bool {
        self.port_map.is_released()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use handfast_core::{Config, LanNode, Saved, SecretKey};

    use super::*;
    use crate::driver::tokens::Source;

    #[test]
    fn a_lan_node_comes_and_goes_and_whoever_told_is_answered() {
        let poll = mio::Poll::new().expect("poll");
        let clock = Clock::start();
        let watch = Watch::new(clock.now(), poll.registry(), Source::Network.token());
        let mut around = Surroundings::new(clock, watch, PortMap::off(), None);
        let now = around.now();
        let key = SecretKey::from_bytes(&[1; 32]);
        let config = Config { lan: true, ..Config::leaf() };
        let mut node = Node::new(now, around.origin(), [0; 32], key, config, Saved::default()).expect("a node");
        let at = "192.0.2.1:7".parse().expect("an address");
        around.introduce(&mut node, now, &[(SocketId(0), "0.0.0.0:7".parse().expect("an address"))]);
        let mut tell = |news| {
            let (reply, known) = sync_channel(1);
            around.on_news(&mut node, now, News::Lan { news, reply });
            assert_eq!(known.try_recv(), Ok(()));
            node.status(now).lan_nodes
        };
        let peer = SecretKey::from_bytes(&[2; 32]).peer_id();
        let found = LanNode { peer, addresses: vec![at], is_supernode: false };
        assert_eq!(tell(LanNews::Here(found)), [(peer, at)]);
        assert_eq!(tell(LanNews::Gone(peer)), []);
        // Without port mapping there is nothing to report or to give back, and the network is looked at by itself.
        assert!(around.take_port_mapping().is_none() && around.is_released() && !around.is_busy());
        assert!(around.next_deadline().is_some());
    }
}
