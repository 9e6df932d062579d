//! What a traversal is told for one call, and what it wants done.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use crate::account::Account;
use crate::identity::PeerId;
use crate::net::{Network, Path, PeerKey, SocketId};
use crate::path::Paths;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::message::Message;
use crate::wire::nat::NatProfile;

/// The peer of a user link, as it is now. A service lets it in, or we called it: it may learn our addresses.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Who.
    pub(crate) id: PeerId,
    /// Its link is up.
    pub(crate) is_up: bool,
    /// Nobody has used the link lately: no path is looked for.
    pub(crate) is_dormant: bool,
    /// Its paths.
    pub(crate) paths: &'a Paths,
}

impl<'a> View<'a> {
    /// Of a peer; nothing where its link is not for the application.
    pub(crate) fn of(peer: &'a Peer, now: Instant) -> Option<Self> {
        peer.is_user().then(|| Self {
            id: peer.id(),
            is_up: peer.is_up(),
            is_dormant: peer.is_dormant(now),
            paths: peer.paths(),
        })
    }
}

/// What this node knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    /// Who it is.
    pub(crate) me: PeerId,
    /// What examinations found out about its router.
    pub(crate) profile: NatProfile,
    /// Its network lets no UDP out.
    pub(crate) is_udp_blocked: bool,
    /// Where supernodes see its main sockets.
    pub(crate) reflexive: Vec<SocketAddr>,
    /// A home that may be asked to vouch for a peer, and where peers find it.
    pub(crate) home: Option<(PeerId, SocketAddr)>,
    /// A home that is linked directly, and says where it sees a socket.
    pub(crate) prober: Option<(PeerKey, SocketAddr)>,
}

/// All that a traversal is told for one call.
pub(crate) struct Case<'a> {
    /// The time.
    pub(crate) now: Instant,
    /// Which peer it is about.
    pub(crate) key: PeerKey,
    /// What is known of that.
    pub(crate) peer: View<'a>,
    /// What is known of us.
    pub(crate) around: Around,
    /// Our sockets and addresses.
    pub(crate) network: &'a Network,
    /// What strangers may still cost.
    pub(crate) account: &'a mut Account,
}

/// What a traversal wants done, in this order.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Tell the peer, on the path in use.
    Send {
        /// Which peer.
        peer: PeerKey,
        /// What.
        message: Message<'static>,
    },
    /// Ask the peer for an answer, from this socket to this address.
    Check {
        /// Which peer.
        peer: PeerKey,
        /// From here.
        socket: SocketId,
        /// To there.
        remote: SocketAddr,
        /// What the answer will carry.
        token: [u8; 8],
    },
    /// Ask a home where it sees a socket.
    Probe {
        /// Which home.
        home: PeerKey,
        /// From the socket to where the home is.
        path: Path,
        /// What the answer will carry.
        token: [u8; 8],
    },
    /// Open a socket for this peer; [`Traversal::on_socket`](super::Traversal::on_socket) is told.
    Open {
        /// Which peer.
        peer: PeerKey,
    },
    /// Close sockets that were opened for peers.
    Close {
        /// Which.
        sockets: BTreeSet<SocketId>,
    },
    /// Say to this supernode, which is dialled if need be, that it may tell the peer where it sees us.
    Vouch {
        /// The supernode.
        home: PeerId,
        /// Where the peer says that it is.
        address: SocketAddr,
        /// The peer.
        peer: PeerId,
    },
    /// What is known of the two routers said that this would work, and it did not.
    Disagreement,
}
