//! What a relay may carry: for a pair, and for all pairs together.

use core::time::Duration;

use super::channel::Limits;
use super::fair::FairShare;
use super::quota::Quota;
use crate::api::Relayed;
use crate::time::{Instant, WallTime};

/// What a relay may carry.
pub(super) struct Caps {
    /// What a channel that is opened may carry.
    pub(super) limits: Limits,
    /// What all pairs may have together, where that is capped.
    pub(super) fair: Option<Box<FairShare>>,
    pub(super) quota: Option<Box<Quota>>,
}

impl Caps {
    /// So much for each pair, and for all together as much as `all` says: bits per second, and bytes in a `period`, of
    /// which an earlier run used some. Zero is no cap.
    pub(super) fn new(now: Instant, pair: Limits, all: Limits, period: Duration, used: Relayed) -> Self {
        Self {
            limits: pair,
            fair: (all.rate_bps != 0).then(|| Box::new(FairShare::new(now, all.rate_bps))),
            quota: (all.quota_bytes != 0).then(|| Box::new(Quota::new(all.quota_bytes, period, used))),
        }
    }

    /// The wall clock says so: the period may be over.
    pub(super) fn on_wall_clock(&mut self, wall: WallTime) {
        if let Some(quota) = &mut self.quota {
            quota.on_wall_clock(wall);
        }
    }

    /// Whether all that may be relayed in this period has been.
    pub(super) fn is_exhausted(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.is_exhausted())
    }

    /// What was relayed in this period, where that is counted.
    pub(super) fn relayed(&self) -> Relayed {
        self.quota.as_ref().map(|quota| quota.used()).unwrap_or_default()
    }

    /// What is to be kept of that for the next run, if it changed.
    #[inline]
    pub(super) fn poll_keep(&mut self) -> Option<Relayed> {
        self.quota.as_mut()?.poll_keep()
    }

    /// A packet did not fit into what all may have together.
    pub(super) fn exhaust(&mut self, close_at: Instant) {
        if let Some(quota) = &mut self.quota {
            quota.exhaust(close_at);
        }
    }
}
