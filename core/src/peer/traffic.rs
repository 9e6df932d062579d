//! What a link with user traffic carries beside its keys.

use crate::account::Exposure;
use crate::identity::PeerId;
use crate::path::{Quality, Route};
use crate::time::Instant;
use crate::traverse::{Checks, Effort};
use crate::wire::message::{ChannelLimits, Whereabouts};

/// Whether a peer gets candidates and connectivity checks.
///
/// A service that is open to any accepts everybody: whoever may open a stream learns our addresses with it, so keeping
/// them from those who have not opened one yet would protect nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Standing {
    /// No service lets it in, and we did not call it.
    Refused,
    /// Some service lets it in, or we called it.
    Accepted,
}

/// What a link with user traffic carries beside its keys.
pub(crate) struct Traffic {
    pub(crate) standing: Standing,
    /// Whether a stream is open.
    pub(super) busy: bool,
    pub(crate) checks: Option<Checks>,
    /// What the peer told us of its addresses.
    pub(crate) whereabouts: Whereabouts,
    /// Whether we told it ours on this link.
    pub(crate) told: bool,
    /// When user traffic was last seen.
    pub(crate) used: Instant,
    /// When to try to become direct again, and how often that was tried.
    pub(crate) retry: Option<(Instant, u32)>,
    pub(crate) limits: Option<ChannelLimits>,
    pub(crate) announced: Option<Route>,
    /// Which attempt to become direct this is.
    pub(crate) attempt: u8,
    /// The last one whose effort ended in vain.
    pub(crate) tried: Option<u8>,
    pub(crate) effort: Option<Box<Effort>>,
    /// When to look whether the sockets of efforts are still of use.
    pub(crate) sweep: Option<Instant>,
    /// What the addresses that the peer named have got from us.
    pub(crate) exposure: Exposure,
    /// The supernode that we last asked to tell the peer where we are.
    pub(crate) vouched: Option<(PeerId, Instant)>,
    pub(crate) quality: Quality,
    /// When bulk was last judged, by how many bytes the link had carried; and whether more flows than a relay carries.
    pub(crate) bulk: (Instant, u64, bool),
}

impl Traffic {
    pub(crate) fn new(now: Instant, standing: Standing) -> Self {
        Self {
            standing,
            busy: false,
            checks: None,
            whereabouts: Whereabouts::default(),
            told: false,
            used: now,
            retry: None,
            limits: None,
            announced: None,
            attempt: 0,
            tried: None,
            effort: None,
            sweep: None,
            exposure: Exposure::default(),
            vouched: None,
            quality: Quality::new(now),
            bulk: (now, 0, false),
        }
    }
}
