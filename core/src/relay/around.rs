//! What is known around a choice of a relay: links, homes, and what is heard of supernodes.

use core::net::SocketAddr;

use super::score::Candidate;
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Route;
use crate::peer::{Peer, Peers};
use crate::wire::address::Address;
use crate::wire::message::{Load, OfferedRelay, Refusal};
use crate::wire::nat::NatProfile;

/// What is known around a choice.
pub(crate) struct Around<'a> {
    /// This node.
    pub(crate) me: PeerId,
    /// All links.
    pub(crate) peers: &'a Peers,
    /// The relays that this node offers: its homes.
    pub(crate) homes: &'a [(PeerId, SocketAddr)],
    /// Whether this node serves as a supernode.
    pub(crate) is_serving: bool,
    /// Whether a leaf is registered here.
    pub(crate) is_leaf_here: &'a dyn Fn(&PeerId) -> bool,
    /// What is known of this node's router.
    pub(crate) profile: NatProfile,
    /// What it knows of a supernode.
    pub(crate) supernode: &'a dyn Fn(&PeerId) -> Supernode,
}

/// What is known of a supernode without asking anybody.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Supernode {
    /// Where it is.
    pub(crate) address: Option<SocketAddr>,
    /// How loaded it is.
    pub(crate) load: Option<Load>,
}

impl<'a> Around<'a> {
    /// A leaf that is registered here, or why it is none.
    pub(super) fn leaf(&self, key: PeerKey) -> Result<&'a Peer, Refusal> {
        if !self.is_serving {
            return Err(Refusal::NotASupernode);
        }
        self.peers.get(key).filter(|peer| (self.is_leaf_here)(&peer.id())).ok_or(Refusal::NotRegistered)
    }

    pub(super) fn address(&self, relay: &PeerId) -> Option<SocketAddr> {
        let home = self.homes.iter().find(|(home, _)| home == relay).map(|(_, address)| *address);
        home.or_else(|| (self.supernode)(relay).address)
    }

    /// Where a relay is that somebody else names: by what this node knows, if it knows anything.
    pub(super) fn address_of(&self, relay: &PeerId, named: Option<Address>) -> Option<SocketAddr> {
        self.address(relay).or(named.map(Into::into))
    }

    pub(super) fn rtt_ms(&self, relay: &PeerId) -> Option<u32> {
        let rtt = self.peers.by_id(relay).filter(|peer| peer.is_up() && peer.direct_path().is_some())?.paths().rtt()?;
        u32::try_from(rtt.as_millis()).ok()
    }

    pub(super) fn load(&self, relay: &PeerId) -> u8 {
        (self.supernode)(relay).load.map_or(0, Load::worst)
    }

    pub(super) fn offered(&self, relay: PeerId) -> OfferedRelay {
        let rtt_ms = self.rtt_ms(&relay).and_then(|ms| u16::try_from(ms).ok()).unwrap_or(u16::MAX);
        OfferedRelay { relay, address: self.address(&relay).map(Into::into), rtt_ms, load: self.load(&relay) }
    }

    /// The relay of a link that is relayed.
    pub(super) fn relay_of(&self, peer: &Peer) -> Option<PeerId> {
        match peer.current()? {
            Route::Relayed { via, .. } => self.peers.id_of(via),
            Route::Direct { .. } => None,
        }
    }

    /// That relay, where the round trip through it is known.
    pub(super) fn present(&self, peer: &Peer) -> Option<Candidate> {
        let relay = self.relay_of(peer)?;
        let rtt_ms = u32::try_from(peer.paths().rtt()?.as_millis()).ok()?;
        Some(Candidate { relay, rtt_ms, load: self.load(&relay) })
    }

    /// A relay by what this end alone knows, as if the other end's part of the way there were what it is now.
    pub(super) fn own_view(&self, relay: PeerId, present: &Candidate) -> Option<Candidate> {
        let load = self.load(&relay);
        (load < u8::MAX).then_some(Candidate { relay, rtt_ms: self.rtt_ms(&relay)? + present.rtt_ms / 2, load })
    }
}
