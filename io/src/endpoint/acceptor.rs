//! [`Acceptor`]: takes the streams of one service.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use handfast_core::ServiceName;

use super::stream::Stream;
use crate::api::WaitError;
use crate::driver::{LoopHandle, ProgramEnd, Wish};

/// Takes the streams of one service; the service is withdrawn when it is dropped. Streams that were taken live on.
pub struct Acceptor {
    streams: Receiver<ProgramEnd>,
    service: ServiceName,
    offer: u64,
    handle: LoopHandle,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({})", self.service)
    }
}

impl Acceptor {
    /// Of the offer with this number.
    pub(super) fn new(streams: Receiver<ProgramEnd>, service: ServiceName, offer: u64, handle: LoopHandle) -> Self {
        Self { streams, service, offer, handle }
    }

    /// The next stream; [`Stream::peer`] says whose. Without a `timeout` it waits as long as the service is offered
    /// here.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] if none came in time, [`WaitError::Closed`] if none will ever come: the endpoint is shut
    /// down, or something else is offered under this name now.
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Stream, WaitError> {
        let end = match timeout {
            Some(timeout) => self.streams.recv_timeout(timeout).map_err(|error| match error {
                RecvTimeoutError::Timeout => WaitError::TimedOut,
                RecvTimeoutError::Disconnected => WaitError::Closed,
            })?,
            None => self.streams.recv().map_err(|_| WaitError::Closed)?,
        };
        Ok(Stream::new(end, self.handle.clone()))
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.handle.wish(Wish::Withdraw { service: self.service, offer: Some(self.offer) });
    }
}
