//! What [`Calls`](super::Calls) are told of a peer, and what they want done.

use core::net::SocketAddr;

use super::Home;
use crate::api::ConnectError;
use crate::identity::PeerId;
use crate::peer::{LinkUse, Origin};

/// Why a lookup gave no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookupFailure {
    /// This node knows no supernode at all.
    Lost,
    /// No supernode is linked (yet).
    Nobody,
    /// None that was asked answered.
    NoAnswer,
    /// Supernodes agree that there is no record.
    Unknown,
}

/// What the node knows of a peer at this moment, without asking anybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Whether its link is up.
    pub(crate) is_linked: bool,
    /// Its own addresses, if it is a supernode.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether it is registered here; then [`Self::homes`] has only this node, and nothing that a ticket says counts.
    pub(crate) is_leaf_here: bool,
    /// Where it is at home, by what this node keeps as a supernode.
    pub(crate) homes: Vec<Home>,
    /// Relays that carry no more for it and us: such homes are asked last.
    pub(crate) limited: Vec<PeerId>,
}

/// The link that there is to a peer whom a call did not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkLeft {
    /// None.
    None,
    /// It is up, but has no way left.
    Stranded,
    /// It is up and in use: another way was looked for.
    Working,
}

impl LinkLeft {
    /// What follows from a call that failed, in this order.
    pub(crate) const fn after_failure(self) -> &'static [AfterFailure] {
        match self {
            // Its failure detector decides.
            Self::Working => &[],
            // Somebody may have woken it and be waiting.
            Self::Stranded => &[AfterFailure::Drop, AfterFailure::Tell],
            Self::None => &[AfterFailure::Tell, AfterFailure::EndWaiting],
        }
    }
}

/// One thing that follows from a call that [failed](CallOutput::Failed).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AfterFailure {
    /// Give the peer's link up.
    Drop,
    /// Tell the caller that it could not be reached.
    Tell,
    /// There is no link, and nothing need wait for one any more.
    EndWaiting,
}

/// What a call wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CallOutput {
    /// Ask supernodes where the peer is at home: [`Calls::on_location`](super::Calls::on_location) tells.
    Lookup {
        /// The peer.
        peer: PeerId,
    },
    /// What an earlier lookup of this peer found is of no use: the next one shall ask anew.
    Forget {
        /// The peer.
        peer: PeerId,
    },
    /// Open a link to the peer at this address.
    Dial {
        /// The peer.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
        /// Whose word that is.
        origin: Origin,
    },
    /// Build an Init for the peer, for this home to carry: [`Calls::on_init_built`](super::Calls::on_init_built) takes
    /// it, and [`Calls::on_impossible`](super::Calls::on_impossible) that there can be none.
    Build {
        /// The peer.
        peer: PeerId,
        /// What the link is for.
        link_use: LinkUse,
        /// The home, and where it is.
        home: Home,
    },
    /// Ask a home to introduce us, over its link or with the Init that opens one.
    Introduce {
        /// The peer.
        peer: PeerId,
        /// The home, and where it is.
        home: Home,
        /// Our Init for the peer.
        init: Box<[u8]>,
    },
    /// We are the peer's home: its link is there already, and is for the application too from now on. If it is not
    /// there, [`Calls::on_impossible`](super::Calls::on_impossible) wants to know.
    UseLink {
        /// The peer.
        peer: PeerId,
    },
    /// The peer could not be reached: [`LinkLeft::after_failure`] says what follows.
    Failed {
        /// The peer.
        peer: PeerId,
        /// The best reason that was found.
        error: ConnectError,
    },
    /// The same of a volunteer that was called for a [leg](LinkUse::Leg).
    LegFailed {
        /// The volunteer.
        peer: PeerId,
    },
}
