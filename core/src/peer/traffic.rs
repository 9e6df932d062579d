//! What a link with user traffic carries beside its keys.

use std::collections::VecDeque;

use crate::path::{Quality, Route};
use crate::stream::Streams;
use crate::time::Instant;
use crate::wire::message::ChannelLimits;

/// Most datagrams kept for the application. At the limit the oldest goes.
pub(crate) const DATAGRAMS_MAX: usize = 64;

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
    pub(crate) streams: Option<Box<Streams>>,
    pub(crate) datagrams: VecDeque<Box<[u8]>>,
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
            streams: None,
            datagrams: VecDeque::new(),
            used: now,
            limits: None,
            announced: None,
            quality: Quality::new(now),
            bulk: (now, 0, false),
        }
    }
}
