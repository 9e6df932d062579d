//! What a link with user traffic carries beside its keys.

use crate::path::{Quality, Route};
use crate::time::Instant;
use crate::wire::message::ChannelLimits;

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
    /// When user traffic was last seen.
    pub(crate) used: Instant,
    pub(crate) limits: Option<ChannelLimits>,
    pub(crate) announced: Option<Route>,
    pub(crate) quality: Quality,
    /// When bulk was last judged, by how many bytes the link had carried; and whether more flows than a relay carries.
    pub(crate) bulk: (Instant, u64, bool),
}

impl Traffic {
    pub(crate) fn new(now: Instant, standing: Standing) -> Self {
        Self {
            standing,
            busy: false,
            used: now,
            limits: None,
            announced: None,
            quality: Quality::new(now),
            bulk: (now, 0, false),
        }
    }
}
