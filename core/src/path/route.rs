//! [`Route`]: one way of a link's packets, and what can be said of it without knowing more.

use core::net::SocketAddr;

use crate::net::{Path, PeerKey, SocketId};
use crate::wire::packet::ChannelId;

/// Where a link's packets go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Route {
    /// Straight to the peer.
    Direct {
        /// From this socket.
        socket: SocketId,
        /// To this address.
        remote: SocketAddr,
    },
    /// Through a channel of a relay.
    Relayed {
        /// The channel.
        channel: ChannelId,
        /// The link to the relay.
        via: PeerKey,
    },
}

impl Route {
    /// Whether it is direct.
    pub(crate) const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }

    /// The address that it leads straight to.
    pub(crate) const fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct { remote, .. } => Some(*remote),
            Self::Relayed { .. } => None,
        }
    }

    /// As a path, if it is one: the host's routes choose the address to leave from.
    pub(crate) const fn path(&self) -> Option<Path> {
        match *self {
            Self::Direct { socket, remote } => Some(Path { socket, remote, local: None }),
            Self::Relayed { .. } => None,
        }
    }

    /// Whether it is a TCP connection.
    pub(crate) const fn is_tcp(&self) -> bool {
        matches!(self, Self::Direct { socket, .. } if socket.is_tcp())
    }

    /// Least is best: over UDP, over TCP (a lost packet holds up all behind it, and no router remembers a peer's
    /// address by it), through a relay.
    pub(crate) const fn class(&self) -> u8 {
        match self {
            Self::Direct { socket, .. } => socket.is_tcp() as u8,
            Self::Relayed { .. } => 2,
        }
    }
}

impl From<Path> for Route {
    fn from(path: Path) -> Self {
        Self::Direct { socket: path.socket, remote: path.remote }
    }
}
