//! [`Events`]: what happens to a node, for status lines.

use std::fmt;
use std::time::Duration;

use crate::api::{Notice, WaitError};
use crate::driver::Subscription;
use crate::host::Until;

/// What happens from the moment of subscribing on: every core event but those about single reads, writes and datagrams
/// and those that are between core and loop.
///
/// Up to a thousand notices wait to be fetched. What comes while that many wait is lost, and [`Notice::Lost`] stands in
/// its place. As an iterator it ends when the endpoint is shut down.
pub struct Events {
    subscription: Subscription,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Of this subscription.
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription }
    }

    /// The next notice, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] if none came in time, [`WaitError::Closed`] once all are fetched of an endpoint that is
    /// shut down.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Notice, WaitError> {
        self.subscription.next(Some(Until::after(timeout)))
    }
}

impl Iterator for Events {
    type Item = Notice;

    fn next(&mut self) -> Option<Notice> {
        self.subscription.next(None).ok()
    }
}
