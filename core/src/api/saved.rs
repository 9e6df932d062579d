//! What a node asks to keep for its next run.

use core::net::SocketAddr;

use crate::identity::PeerId;

/// One thing to keep for the next run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Save {
    /// The clock mark: no Init of an earlier run carried a later time. Microseconds of wall time.
    ClockMark(u64),
    /// The sequence number of the own advert and record.
    Sequence(u64),
    /// Supernodes worth trying first after a restart.
    Anchors(Vec<(PeerId, SocketAddr)>),
    /// What was relayed in the present 30 days; counted ahead, so that a crash forgets nothing.
    Relayed(Relayed),
    /// How long the router of a network keeps an idle UDP binding: the newest word on this network.
    Binding {
        /// The network, by a hash.
        network: [u8; 8],
        /// Milliseconds.
        lifetime_ms: u32,
    },
}

/// What a node relayed in a period of 30 days.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Relayed {
    /// When the period began: seconds since the Unix epoch.
    pub since_s: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What an earlier run asked to keep. `Saved::default()` on the first run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    /// See [`Save::ClockMark`].
    pub clock_mark: u64,
    /// See [`Save::Sequence`].
    pub sequence: u64,
    /// See [`Save::Anchors`].
    pub anchors: Vec<(PeerId, SocketAddr)>,
    /// See [`Save::Relayed`].
    pub relayed: Relayed,
    /// See [`Save::Binding`]: network and milliseconds, the newest last. [`Saved::keep_binding`] adds one.
    pub bindings: Vec<([u8; 8], u32)>,
}

/// Most networks in [`Saved::bindings`]. At the limit the oldest goes.
pub const BINDINGS_MAX: usize = 16;

impl Saved {
    /// Takes in a [`Save::Binding`].
    pub fn keep_binding(&mut self, network: [u8; 8], lifetime_ms: u32) {
        keep_binding(&mut self.bindings, network, lifetime_ms);
    }
}

/// Adds what is known of a network to a list of networks.
pub(crate) fn keep_binding(bindings: &mut Vec<([u8; 8], u32)>, network: [u8; 8], lifetime_ms: u32) {
    bindings.retain(|(other, _)| *other != network);
    if bindings.len() >= BINDINGS_MAX {
        bindings.remove(0);
    }
    bindings.push((network, lifetime_ms));
}
