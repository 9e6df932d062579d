//! What carries the link to a peer, UDP or TCP, as far as whoever decides between the two has to know.

use core::net::SocketAddr;

use super::attempt::AttemptRoute;
use super::peers::Peers;
use super::state::Peer;
use crate::keepalive::Duty;
use crate::net::{PeerKey, SocketId};
use crate::path::Route;
use crate::time::Instant;

impl Peer {
    /// Whether it is heard by the way out: others may be on the LAN.
    pub(crate) fn is_outside(&self) -> bool {
        self.wanted || self.traffic.is_none()
    }

    /// Whether a question on `route` shows that a home which holds a binding of ours did not know us there.
    pub(super) fn was_moved(&self, now: Instant, route: &Route) -> bool {
        let is_home = self.wanted && self.traffic.is_none() && self.duty == Duty::Binding;
        is_home && self.paths.current() == Some(*route) && self.paths.wants_challenge(now, route)
    }

    /// The path in use, if that is straight and over UDP.
    fn over_udp(&self) -> Option<Route> {
        self.paths.current().filter(|route| route.is_direct() && !route.is_tcp())
    }

    /// Whether a link that this node keeps up is in use over UDP.
    pub(crate) fn is_kept_over_udp(&self) -> bool {
        self.is_up() && self.wanted && self.over_udp().is_some()
    }

    /// When a link that is up was last heard over UDP, if it is in use over that.
    pub(crate) fn heard_over_udp(&self) -> Option<Instant> {
        self.over_udp().filter(|_| self.is_up()).and_then(|route| self.paths.heard_at(&route))
    }

    /// Where an Init over UDP is on its way to, and its body, while there is no link.
    pub(crate) fn asking_over_udp(&self) -> Option<(SocketAddr, &[u8])> {
        self.attempts.iter().filter(|_| !self.is_up()).find_map(|attempt| match attempt.route {
            AttemptRoute::Direct(path) if !path.socket.is_tcp() => Some((path.remote, &*attempt.body)),
            _ => None,
        })
    }

    /// The sockets that Inits to addresses left by and that are not answered.
    pub(crate) fn asking_sockets(&self) -> Vec<SocketId> {
        let sockets = self.attempts.iter().filter_map(|attempt| match attempt.route {
            AttemptRoute::Direct(path) => Some(path.socket),
            AttemptRoute::Relayed(_) | AttemptRoute::Introduced(_) => None,
        });
        sockets.collect()
    }

    /// Whether no handshake with it is under way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.attempts.is_empty() && self.pending.is_empty()
    }

    /// A link without a way to its peer, which nobody's call will find another one for.
    pub(crate) fn is_stranded(&self) -> bool {
        self.paths.current().is_none() && self.traffic.is_none()
    }
}

impl Peers {
    /// Gives up the Inits that left by this socket; whose they were.
    pub(crate) fn drop_attempts_by(&mut self, socket: SocketId) -> Option<PeerKey> {
        let key = self.iter().find(|(_, p)| p.asking_sockets().contains(&socket)).map(|(key, _)| key)?;
        self.drop_attempts(key, |a| matches!(a.route, AttemptRoute::Direct(path) if path.socket == socket));
        Some(key)
    }
}
