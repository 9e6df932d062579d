//! What a node asks to keep for its next run.

use core::net::SocketAddr;

use crate::identity::PeerId;

/// One thing to keep for the next run.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Save {
    /// The clock mark: no Init of an earlier run carried a later time. Microseconds of wall time.
    ClockMark(u64),
    /// The sequence number of the own advert and record.
    Sequence(u64),
    /// Supernodes worth trying first after a restart.
    Anchors(Vec<(PeerId, SocketAddr)>),
    /// What was relayed in the present 30 days; counted ahead, so that a crash forgets nothing.
    Relayed(Relayed),
    /// The same of a volunteer's present day.
    Volunteered(Relayed),
    /// How long the router of a network keeps an idle UDP binding: the newest word on this network.
    Binding {
        /// The network, by a hash.
        network: [u8; 8],
        /// Milliseconds.
        lifetime_ms: u32,
    },
    /// What was found out about the router of a network: the newest word on this network.
    Router {
        /// The network, by a hash.
        network: [u8; 8],
        /// What, as bits that mean something to the node alone.
        found: u32,
    },
}

/// What a node relayed in a period: 30 days, or a volunteer's day. Exhaustive, since whoever reads it back from disk makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Relayed {
    /// When the period began: seconds since the Unix epoch.
    pub since_s: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What an earlier run asked to keep. `Saved::default()` on the first run; [`Saved::keep`] takes in what the node asks
/// to keep.
///
/// ```
/// use handfast_core::{Save, Saved};
///
/// let mut saved = Saved::default();
/// saved.keep(Save::Sequence(3));
/// saved.keep(Save::Sequence(4));
/// assert_eq!(saved.sequence, 4);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Saved {
    /// See [`Save::ClockMark`].
    pub clock_mark: u64,
    /// See [`Save::Sequence`].
    pub sequence: u64,
    /// See [`Save::Anchors`].
    pub anchors: Vec<(PeerId, SocketAddr)>,
    /// See [`Save::Relayed`].
    pub relayed: Relayed,
    /// See [`Save::Volunteered`].
    pub volunteered: Relayed,
    /// See [`Save::Binding`]: network and milliseconds, the newest last. [`Saved::keep_binding`] adds one.
    pub bindings: Vec<([u8; 8], u32)>,
    /// See [`Save::Router`]: network and what was found, the newest last. [`Saved::keep`] adds one.
    pub routers: Vec<([u8; 8], u32)>,
}

/// Most networks in [`Saved::bindings`] and in [`Saved::routers`]. At the limit the oldest goes.
pub const BINDINGS_MAX: usize = 16;

impl Saved {
    /// Takes in what a node asks to keep, in the place of what it asked before.
    pub fn keep(&mut self, item: Save) {
        match item {
            Save::ClockMark(mark) => self.clock_mark = mark,
            Save::Sequence(sequence) => self.sequence = sequence,
            Save::Anchors(anchors) => self.anchors = anchors,
            Save::Relayed(relayed) => self.relayed = relayed,
            Save::Volunteered(relayed) => self.volunteered = relayed,
            Save::Binding { network, lifetime_ms } => self.keep_binding(network, lifetime_ms),
            Save::Router { network, found } => keep_of_network(&mut self.routers, network, found),
        }
    }

    /// Takes in a [`Save::Binding`].
    pub fn keep_binding(&mut self, network: [u8; 8], lifetime_ms: u32) {
        keep_of_network(&mut self.bindings, network, lifetime_ms);
    }
}

/// Adds what is known of a network to a list of networks.
pub(crate) fn keep_of_network(networks: &mut Vec<([u8; 8], u32)>, network: [u8; 8], what: u32) {
    networks.retain(|(other, _)| *other != network);
    if networks.len() >= BINDINGS_MAX {
        networks.remove(0);
    }
    networks.push((network, what));
}
