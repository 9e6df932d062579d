//! The steps of a change of sides, and what each of them needs to know.

use core::net::SocketAddr;

use crate::identity::PeerId;
use crate::overlay::home::Carried;
use crate::overlay::role::Way;
use crate::time::Instant;

/// The next step of a change of sides.
pub(super) struct Turn {
    pub(super) at: Instant,
    pub(super) step: Move,
}

pub(super) enum Move {
    /// The homes have been told goodbye: become a supernode.
    Begin { address: SocketAddr, way: Way, carried: Carried, named: Vec<(PeerId, SocketAddr)>, was_ready: bool },
    /// The advert has been taken back: become a leaf.
    Cease { addresses: Vec<SocketAddr>, neighbours: Vec<(PeerId, SocketAddr)>, leaves: Vec<PeerId> },
    /// The leaves are gone: find homes.
    Ceased { addresses: Vec<SocketAddr>, neighbours: Vec<(PeerId, SocketAddr)> },
    /// Another side needs other links.
    Review,
}
