//! What a traversal is told for one call, and what it wants done.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use crate::account::Account;
use crate::identity::PeerId;
use crate::net::{Network, Path, PeerKey, SocketId};
use crate::path::Paths;
use crate::peer::{LinkUse, Peer, Peers};
use crate::time::Instant;
use crate::wire::message::Message;
use crate::wire::nat::NatProfile;

/// The peer of a link that is to become direct, as it is now. A service lets it in, or we called it, or the link is a
/// leg of a volunteer's channels: it may learn our addresses.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Who.
    pub(crate) id: PeerId,
    /// Its link is up.
    pub(crate) is_up: bool,
    /// What its link is for.
    pub(crate) link_use: LinkUse,
    /// Nobody has used the link lately: no path is looked for.
    pub(crate) is_dormant: bool,
    /// Its paths.
    pub(crate) paths: &'a Paths,
}

impl<'a> View<'a> {
    /// Of a peer; nothing where its link is the network's own.
    pub(crate) fn of(peer: &'a Peer, now: Instant) -> Option<Self> {
        (peer.is_user() || peer.is_leg()).then(|| Self {
            id: peer.id(),
            is_up: peer.is_up(),
            link_use: if peer.is_leg() { LinkUse::Leg } else { LinkUse::User },
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
    /// Its homes that links are up to, the best first.
    pub(crate) homes: Vec<Home>,
}

/// A home of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    /// Who.
    pub(crate) id: PeerId,
    /// Where peers find it.
    pub(crate) address: SocketAddr,
    /// Its link.
    pub(crate) key: PeerKey,
    /// Where that goes, if straight.
    pub(crate) direct: Option<SocketAddr>,
}

impl Home {
    /// A home at this address, if the link to it is up.
    pub(crate) fn of(peers: &Peers, id: PeerId, address: SocketAddr) -> Option<Self> {
        let key = peers.up_key(&id)?;
        let current = peers.get(key).and_then(Peer::current);
        Some(Self { id, address, key, direct: current.and_then(|route| route.remote()) })
    }
}

// Routers are gone through in IPv4 only: a home that peers or sockets would reach otherwise is of no use here.
impl Around {
    /// One that may be asked to vouch for a peer, and where the peer finds it.
    pub(super) fn voucher(&self) -> Option<(PeerId, SocketAddr)> {
        self.homes.iter().find(|home| home.address.is_ipv4()).map(|home| (home.id, home.address))
    }

    /// One that can be asked where it sees a socket, and where to.
    pub(super) fn prober(&self) -> Option<(PeerKey, SocketAddr)> {
        let mut direct = self.homes.iter().filter_map(|home| Some((home.key, home.direct?)));
        direct.find(|(_, at)| at.is_ipv4())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    #[test]
    fn the_best_home_that_is_of_use_is_asked() {
        let home = |n: u8, address: &str, direct: Option<&str>| Home {
            id: SecretKey::from_bytes(&[n; 32]).peer_id(),
            address: address.parse().expect("an address"),
            key: PeerKey { index: n.into(), generation: 1 },
            direct: direct.map(|text| text.parse().expect("an address")),
        };
        let homes = vec![
            home(1, "[2001:db8::1]:7", Some("[2001:db8::1]:7")),
            home(2, "192.0.2.2:7", None),
            home(3, "192.0.2.3:7", Some("192.0.2.33:8")),
        ];
        let (profile, reflexive) = (NatProfile::default(), Vec::new());
        let mut around = Around { me: homes[0].id, profile, is_udp_blocked: false, reflexive, homes: homes.clone() };
        assert_eq!(around.voucher(), Some((homes[1].id, homes[1].address)), "peers reach it, whatever way we do");
        assert_eq!(around.prober(), Some((homes[2].key, "192.0.2.33:8".parse().expect("an address"))));
        around.homes.truncate(1);
        assert_eq!((around.voucher(), around.prober()), (None, None));
    }
}
