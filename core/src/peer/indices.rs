//! Receiver indices: the numbers by which packets find the peer whose keys they are under.

use std::collections::VecDeque;

use crate::net::PeerKey;

/// 24 bits of slot, 8 of generation.
#[derive(Default)]
pub(crate) struct Indices {
    slots: Vec<(u8, Option<PeerKey>)>,
    free: VecDeque<u32>,
}

impl Indices {
    const SLOT_BITS: u32 = 24;
    /// Freed slots rest in a queue, so that a generation comes round late.
    const REST: usize = 64;

    pub(crate) fn allocate(&mut self, peer: PeerKey) -> Option<u32> {
        let slot = if self.free.len() > Self::REST {
            self.free.pop_front()?
        } else {
            let slot = u32::try_from(self.slots.len()).ok()?;
            if slot >> Self::SLOT_BITS != 0 {
                return None;
            }
            self.slots.push((0, None));
            slot
        };
        let entry = self.slots.get_mut(slot as usize)?;
        entry.0 = entry.0.wrapping_add(1);
        entry.1 = Some(peer);
        Some(u32::from(entry.0) << Self::SLOT_BITS | slot)
    }

    pub(crate) fn get(&self, index: u32) -> Option<PeerKey> {
        let (generation, peer) = self.slots.get((index & ((1 << Self::SLOT_BITS) - 1)) as usize)?;
        (u32::from(*generation) == index >> Self::SLOT_BITS).then_some(*peer).flatten()
    }

    pub(crate) fn free(&mut self, index: u32) {
        let slot = index & ((1 << Self::SLOT_BITS) - 1);
        if let Some(entry) = self.slots.get_mut(slot as usize)
            && u32::from(entry.0) == index >> Self::SLOT_BITS
            && entry.1.take().is_some()
        {
            self.free.push_back(slot);
        }
    }
}
