//! What the application does with a link's streams.

use super::LinkStreams;
use crate::api::{Read, StreamEnd, StreamError};
use crate::stream::event::{LocalStream, Side};
use crate::stream::limits::STREAMS_MAX;
use crate::stream::one::{One, refusal_code};
use crate::time::Instant;
use crate::wire::ServiceName;

impl LinkStreams {
    /// Opens a stream to a service of the peer. Bytes may be written at once.
    ///
    /// # Errors
    /// `Blocked` at [`STREAMS_MAX`] streams of ours; nothing tells when there is room again.
    pub fn open(&mut self, now: Instant, service: &ServiceName) -> Result<LocalStream, StreamError> {
        self.now = now;
        if self.set.ours() >= STREAMS_MAX as usize {
            return Err(StreamError::Blocked);
        }
        if self.side == Side::Client && (self.conn.is_none() || self.resting || self.closing) {
            self.connect();
        }
        let stream = self.set.insert(One::opening(service));
        self.on_change();
        Ok(stream)
    }

    /// Takes an incoming stream.
    ///
    /// # Errors
    /// It is none of the peer's that waits for an answer.
    pub fn accept(&mut self, now: Instant, stream: LocalStream) -> Result<(), StreamError> {
        let notes = self.with(now, stream, |one, quic| quic.map_or(Err(StreamError::Unknown), |q| one.accept(q)))?;
        self.tell(stream, &notes);
        self.on_change();
        Ok(())
    }

    /// Refuses an incoming stream: `UnknownService`, `NotAllowed`, or anything else for "unavailable". It is forgotten.
    ///
    /// # Errors
    /// It is none of the peer's that waits for an answer.
    pub fn refuse(&mut self, now: Instant, stream: LocalStream, why: StreamEnd) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| match quic {
            Some(quic) if one.is_unanswered() => {
                one.abort(quic, refusal_code(why));
                Ok(())
            }
            _ => Err(StreamError::Finished),
        })?;
        self.set.remove(stream);
        self.on_change();
        Ok(())
    }

    /// Takes as many bytes as fit; `Writable` follows whenever not all were taken.
    ///
    /// # Errors
    /// `Blocked` when none fit; any other when none will again.
    pub fn write(&mut self, now: Instant, stream: LocalStream, data: &[u8]) -> Result<usize, StreamError> {
        self.with(now, stream, |one, quic| one.write(quic, data))
    }

    /// Reads bytes in order. After `Blocked`, and after fewer bytes than `buf` holds, `Readable` tells of the next.
    ///
    /// # Errors
    /// It is forgotten, or was reset by the peer.
    pub fn read(&mut self, now: Instant, stream: LocalStream, buf: &mut [u8]) -> Result<Read, StreamError> {
        let result = self.with(now, stream, |one, quic| one.read(quic, buf));
        self.forget_if_over(stream);
        self.on_change();
        result
    }

    /// No more bytes will be written; those written still arrive.
    ///
    /// # Errors
    /// There is no such stream, or its sending direction has ended.
    pub fn finish(&mut self, now: Instant, stream: LocalStream) -> Result<(), StreamError> {
        self.with(now, stream, One::finish)
    }

    /// Drops the sending direction: the peer's `read` gives `StreamEnd::Reset(code)`.
    ///
    /// # Errors
    /// There is no such stream, or its sending direction has ended.
    pub fn reset(&mut self, now: Instant, stream: LocalStream, code: u32) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| one.reset(quic, code))?;
        self.forget_if_over(stream);
        self.on_change();
        Ok(())
    }

    /// Wants no more bytes: the peer gets `Stopped`.
    ///
    /// # Errors
    /// There is no such stream, or its receiving direction has ended.
    pub fn stop(&mut self, now: Instant, stream: LocalStream, code: u32) -> Result<(), StreamError> {
        self.with(now, stream, |one, quic| one.stop(quic, code))?;
        self.forget_if_over(stream);
        self.on_change();
        Ok(())
    }
}
