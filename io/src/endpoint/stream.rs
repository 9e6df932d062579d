//! [`Stream`]: a blocking stream to or from a peer.
//!
//! It is the program's end of what is shared with the loop (`driver/exchange.rs`), in the shape of `std::net`: `Read`
//! and `Write`, time-outs, a second handle for a second thread.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use handfast_core::{PeerId, StreamEnd};

use crate::api::{OpenError, WaitError};
use crate::driver::{LoopHandle, ProgramEnd, Wish};
use crate::local::LocalSocket;

/// A blocking stream. `read` returns 0 at the peer's end; a stream that broke gives `ConnectionReset`.
///
/// When the last handle is dropped, what was written still arrives, and the peer is told that nothing more will be
/// read.
pub struct Stream {
    end: ProgramEnd,
    handle: LoopHandle,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?} with {:?})", self.end.key(), self.end.peer())
    }
}

impl Stream {
    /// This program's end, and the way to the loop.
    pub(super) fn new(end: ProgramEnd, handle: LoopHandle) -> Self {
        Self { end, handle }
    }

    /// A second handle to the same stream, so that one thread reads while another writes.
    ///
    /// # Errors
    ///
    /// None at present; it is as std's streams have it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { end: self.end.clone(), handle: self.handle.clone() })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.end.peer()
    }

    /// How long a read may wait; `None`, as at first: as long as it takes. A read that waited in vain gives
    /// [`ErrorKind::TimedOut`], and the stream goes on. Holds for all handles to the stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a time of zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end.set_read_timeout(checked(timeout)?);
        Ok(())
    }

    /// See [`Stream::set_read_timeout`].
    pub fn read_timeout(&self) -> Option<Duration> {
        self.end.read_timeout()
    }

    /// How long a write may wait for room; `None`, as at first: as long as it takes. A write that waited in vain wrote
    /// nothing and gives [`ErrorKind::TimedOut`]; the stream goes on. Holds for all handles to the stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a time of zero, as in std.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end.set_write_timeout(checked(timeout)?);
        Ok(())
    }

    /// See [`Stream::set_write_timeout`].
    pub fn write_timeout(&self) -> Option<Duration> {
        self.end.write_timeout()
    }

    /// No more bytes will be written; those written still arrive.
    ///
    /// # Errors
    ///
    /// As writing has them, for a stream that is over.
    pub fn finish(&self) -> io::Result<()> {
        self.end.finish()
    }

    /// Breaks the stream off in both directions: the peer's program sees an error, not the end.
    pub fn reset(&self, code: u32) {
        self.end.reset(code);
    }

    /// Why the stream broke, if it did.
    pub fn ended(&self) -> Option<StreamEnd> {
        self.end.ended()
    }

    /// Hands this stream and a connected local socket (TCP or Unix) to the loop, which pumps both ways with
    /// back-pressure, half-close and reset until both sides ended. Bytes already received or written come first; other
    /// handles to the stream are of no more use.
    ///
    /// # Errors
    ///
    /// If the stream is over, or the system does not let the socket be watched. Both are broken off then.
    pub fn splice(self, socket: LocalSocket) -> io::Result<()> {
        let stream = self.end.key();
        let spliced = self.handle.request(|reply| Wish::Splice { stream, socket, reply });
        spliced.unwrap_or_else(|| Err(io::Error::new(ErrorKind::ConnectionAborted, WaitError::Closed)))
    }

    /// Waits until the peer accepted the stream, or breaks it off.
    pub(super) fn wait_opened(self, timeout: Duration) -> Result<Self, OpenError> {
        match self.end.wait_opened(timeout) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.reset(0);
                Err(error)
            }
        }
    }
}

fn checked(timeout: Option<Duration>) -> io::Result<Option<Duration>> {
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a time-out of zero would wait for nothing"));
    }
    Ok(timeout)
}

impl io::Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.end.read(buf)
    }
}

impl io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.end.write(buf)
    }

    /// Nothing waits to be flushed: what was written is on its way already.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_zero_is_refused_as_in_std() {
        assert_eq!(checked(Some(Duration::ZERO)).expect_err("zero").kind(), ErrorKind::InvalidInput);
        assert_eq!(checked(None).expect("none"), None);
        let second = Some(Duration::from_secs(1));
        assert_eq!(checked(second).expect("a second"), second);
    }
}
