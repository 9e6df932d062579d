//! What a link is for, and what one with user traffic carries beside its keys.

use crate::path::{Quality, Route};
use crate::time::Instant;
use crate::wire::message::ChannelLimits;

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkUse {
    /// The network's own business: a home, a registered leaf, another supernode.
    Network,
    /// To be a leg of channels between strangers and a volunteer, and nothing else. It becomes direct as a user link
    /// does, and is kept and closed like one of the network's.
    Leg,
    /// The application.
    User,
}

/// What a link with user traffic carries beside its keys.
pub(super) struct Traffic {
    /// Whether a stream is open.
    pub(super) busy: bool,
    /// When user traffic was last seen.
    pub(super) used: Instant,
    pub(super) limits: Option<ChannelLimits>,
    pub(super) announced: Option<Route>,
    pub(super) quality: Quality,
    /// When bulk was last judged, by how many bytes the link had carried; and whether more flows than a relay carries.
    pub(super) bulk: (Instant, u64, bool),
}

impl Traffic {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            busy: false,
            used: now,
            limits: None,
            announced: None,
            quality: Quality::new(now),
            bulk: (now, 0, false),
        }
    }
}
