//! The table that finds peers, by key and by id.

use std::collections::BTreeMap;

use slab::Slab;

use super::state::Peer;
use crate::identity::PeerId;
use crate::net::PeerKey;

/// Most peers that a node keeps. At the limit new ones are refused.
pub(crate) const PEERS_MAX: usize = 1 << 21;

/// All peers, by key and by id.
#[derive(Default)]
pub(super) struct Table {
    /// Boxed: a table that doubles would otherwise hold as many empty places for peers as peers.
    slab: Slab<(u32, Box<Peer>)>,
    generation: u32,
    by_id: BTreeMap<PeerId, PeerKey>,
}

impl Table {
    pub(super) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.slab.get(key.index as usize).filter(|(g, _)| *g == key.generation).map(|(_, p)| &**p)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slab.get_mut(key.index as usize).filter(|(g, _)| *g == key.generation).map(|(_, p)| &mut **p)
    }

    pub(super) fn key_of(&self, id: &PeerId) -> Option<PeerKey> {
        self.by_id.get(id).copied()
    }

    pub(super) fn by_id(&self, id: &PeerId) -> Option<&Peer> {
        self.get(self.key_of(id)?)
    }

    pub(super) fn insert(&mut self, peer: Peer) -> Option<PeerKey> {
        if self.slab.len() >= PEERS_MAX {
            return None;
        }
        debug_assert!(!self.by_id.contains_key(&peer.id), "one entry per peer");
        self.generation = self.generation.wrapping_add(1);
        let id = peer.id;
        let index = self.slab.insert((self.generation, Box::new(peer)));
        let key = PeerKey { index: number(index), generation: self.generation };
        self.by_id.insert(id, key);
        Some(key)
    }

    pub(super) fn remove(&mut self, key: PeerKey) -> Option<Box<Peer>> {
        self.get(key)?;
        let (_, peer) = self.slab.remove(key.index as usize);
        self.by_id.remove(&peer.id);
        Some(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slab.iter().map(|(i, (g, p))| (PeerKey { index: number(i), generation: *g }, &**p))
    }
}

/// The number of a place in the slab.
#[expect(clippy::cast_possible_truncation, reason = "there are at most PEERS_MAX of them")]
const fn number(place: usize) -> u32 {
    place as u32
}
