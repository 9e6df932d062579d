//! A local connection and a stream, pumped into one another.
//!
//! A [`Pump`] is handed a socket and a [`StreamKey`]. Bytes go through a scratch buffer that all pumps share; only what
//! the other side did not take is kept, in one buffer per direction of at most [`CHUNK_LEN`] bytes, and nothing more is
//! read from that direction until it is gone. That is the whole of back-pressure: a slow reader on one side fills its
//! buffers, then ours, then stops the writer on the other side.
//!
//! Each direction ends by itself (half-close): the end of one side is passed on once everything before it was. An error
//! of the socket resets the stream; a stream that broke closes the socket hard. When both directions ended, the pump is
//! finished.
//!
//! A pump for an exposed service starts by connecting to its target; the stream is accepted when that succeeded, so the
//! peer learns whether there is a program behind the service.

use std::io::{ErrorKind, Read as _, Write as _};

use handfast_core::{Instant, Node, Read, StreamEnd, StreamError, StreamKey};

use super::socket::Local;

/// Bytes moved at a time, and the most that a pump keeps per direction.
pub(crate) const CHUNK_LEN: usize = 64 * 1024;
/// Chunks per direction and visit: then it is the turn of others.
const CHUNKS_PER_VISIT: usize = 4;
/// Code of a reset that a local program caused by closing hard.
const CODE_LOCAL_RESET: u32 = 0;

/// What a visit came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Visit {
    /// Nothing can move before the next event.
    Waiting,
    /// There may be more: come again soon.
    Again,
    /// Over: drop the pump.
    Over,
}

/// How far a direction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Open,
    /// The source ended; what is pending goes first.
    Ending,
    Done,
}

/// One direction.
struct Direction {
    flow: Flow,
    /// Bytes read and not yet taken by the other side.
    pending: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
    /// The source may have bytes.
    readable: bool,
    /// The sink may have room.
    writable: bool,
}

/// What one step of a direction came to.
enum Progress {
    Moved,
    Stuck,
    Broken,
}

impl Direction {
    fn new(pending: Vec<u8>, ending: bool) -> Self {
        let flow = if ending { Flow::Ending } else { Flow::Open };
        Self { flow, pending, taken: 0, readable: true, writable: true }
    }

    fn rest(&self) -> &[u8] {
        &self.pending[self.taken..]
    }

    fn keep(&mut self, bytes: &[u8]) {
        debug_assert!(self.rest().is_empty() && bytes.len() <= CHUNK_LEN);
        self.taken = 0;
        self.pending.clear();
        self.pending.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.rest().is_empty() {
            // An idle connection weighs nothing.
            self.pending = Vec::new();
            self.taken = 0;
        }
    }

    fn close(&mut self) {
        self.flow = Flow::Done;
        self.pending = Vec::new();
        self.taken = 0;
    }
}

/// Whether the target of an exposed service answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Pumping,
}

/// One local connection and its stream.
pub(crate) struct Pump {
    key: StreamKey,
    socket: Local,
    stage: Stage,
    /// From the socket to the stream.
    up: Direction,
    /// From the stream to the socket.
    down: Direction,
}

/// What a stream already holds when it is handed over to a pump.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Carried {
    /// Written by the program, not yet taken by the node.
    up: Vec<u8>,
    /// The program finished writing.
    up_ended: bool,
    /// Read from the node, not yet by the program.
    down: Vec<u8>,
    /// The node said that this was all.
    down_ended: bool,
}

impl Carried {
    /// With what was written and not yet taken; `ended`: nothing more will be.
    pub(crate) fn with_up(self, up: Vec<u8>, ended: bool) -> Self {
        Self { up, up_ended: ended, ..self }
    }

    /// With what came and was not yet read; `ended`: that was all.
    pub(crate) fn with_down(self, down: Vec<u8>, ended: bool) -> Self {
        Self { down, down_ended: ended, ..self }
    }
}

impl Pump {
    /// Pumps at once: the stream is ours to use.
    pub(crate) fn new(key: StreamKey, socket: Local, carried: Carried) -> Self {
        Self {
            key,
            socket,
            stage: Stage::Pumping,
            up: Direction::new(carried.up, carried.up_ended),
            down: Direction::new(carried.down, carried.down_ended),
        }
    }

    /// Pumps, and accepts the incoming stream, once the socket is connected.
    pub(crate) fn connecting(key: StreamKey, socket: Local) -> Self {
        let mut pump = Self::new(key, socket, Carried::default());
        pump.stage = Stage::Connecting;
        pump
    }

    /// The stream.
    pub(crate) fn key(&self) -> StreamKey {
        self.key
    }

    /// The socket, to be registered.
    pub(crate) fn socket_mut(&mut self) -> &mut Local {
        &mut self.socket
    }

    /// Whether the target has not answered yet.
    pub(crate) fn is_connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    /// mio has news of the socket.
    pub(crate) fn on_socket(&mut self, readable: bool, writable: bool) {
        self.up.readable |= readable;
        self.down.writable |= writable;
    }

    /// The node has bytes.
    pub(crate) fn on_readable(&mut self) {
        self.down.readable = true;
    }

    /// The node has room.
    pub(crate) fn on_writable(&mut self) {
        self.up.writable = true;
    }

    /// The peer wants no more bytes. TCP cannot say that of one direction alone, so the local program meets
    /// back-pressure until the other direction ends too.
    pub(crate) fn on_stopped(&mut self) {
        self.up.close();
    }

    /// mio reports an error: whether the kernel confirms it. Nothing else would tell while neither direction moves.
    pub(crate) fn is_socket_dead(&self) -> bool {
        !self.is_connecting() && !matches!(self.socket.take_error(), Ok(None))
    }

    /// Moves what can be moved.
    pub(crate) fn visit(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Visit {
        if self.is_connecting() {
            match self.socket.connected() {
                Ok(false) => return Visit::Waiting,
                Ok(true) if node.accept(now, self.key).is_ok() => self.stage = Stage::Pumping,
                // The caller gave up meanwhile.
                Ok(true) => return Visit::Over,
                Err(error) => {
                    tracing::debug!(%error, "the program behind a service does not answer");
                    self.abort(node, now);
                    return Visit::Over;
                }
            }
        }
        let mut again = false;
        for _ in 0..CHUNKS_PER_VISIT {
            let up = self.step_up(node, now, scratch);
            let down = self.step_down(node, now, scratch);
            match (up, down) {
                (Progress::Broken, _) | (_, Progress::Broken) => {
                    self.abort(node, now);
                    return Visit::Over;
                }
                (Progress::Stuck, Progress::Stuck) => {
                    again = false;
                    break;
                }
                (Progress::Moved, _) | (_, Progress::Moved) => again = true,
            }
        }
        if self.is_finished() {
            Visit::Over
        } else if again {
            Visit::Again
        } else {
            Visit::Waiting
        }
    }

    /// Breaks both sides off: a reset for the peer, a hard close for the local program.
    pub(crate) fn abort(&mut self, node: &mut Node, now: Instant) {
        if self.is_connecting() {
            let _ = node.refuse(now, self.key, StreamEnd::Unavailable);
            return;
        }
        // Errors say that the stream is over already.
        let _ = node.reset(now, self.key, CODE_LOCAL_RESET);
        let _ = node.stop(now, self.key, CODE_LOCAL_RESET);
    }

    fn is_finished(&self) -> bool {
        self.up.flow == Flow::Done && self.down.flow == Flow::Done
    }

    fn step_up(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Progress {
        let up = &mut self.up;
        if up.flow == Flow::Done {
            return Progress::Stuck;
        }
        if !up.rest().is_empty() {
            if !up.writable {
                return Progress::Stuck;
            }
            return match offer(node, now, self.key, up.rest()) {
                Ok(0) => {
                    up.writable = false;
                    Progress::Stuck
                }
                Ok(count) => {
                    up.take(count);
                    Progress::Moved
                }
                Err(Refused::Finished) => {
                    up.close();
                    Progress::Moved
                }
                Err(Refused::Over(_)) => Progress::Broken,
            };
        }
        if up.flow == Flow::Ending {
            up.close();
            // Finished already, or over: nothing is left to say.
            let _ = node.finish(now, self.key);
            return Progress::Moved;
        }
        if !up.readable {
            return Progress::Stuck;
        }
        match self.socket.read(scratch) {
            Ok(0) => up.flow = Flow::Ending,
            Ok(count) => {
                let taken = match offer(node, now, self.key, &scratch[..count]) {
                    Ok(taken) => taken,
                    Err(Refused::Finished) => {
                        up.close();
                        return Progress::Moved;
                    }
                    Err(Refused::Over(_)) => return Progress::Broken,
                };
                if taken < count {
                    up.keep(&scratch[taken..count]);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                up.readable = false;
                return Progress::Stuck;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Progress::Broken,
        }
        Progress::Moved
    }

    fn step_down(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Progress {
        let down = &mut self.down;
        if down.flow == Flow::Done {
            return Progress::Stuck;
        }
        if !down.rest().is_empty() {
            if !down.writable {
                return Progress::Stuck;
            }
            match self.socket.write(down.rest()) {
                // A socket that takes nothing without saying why would be asked for ever.
                Ok(0) => return Progress::Broken,
                Ok(count) => down.take(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    down.writable = false;
                    return Progress::Stuck;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Broken,
            }
            return Progress::Moved;
        }
        if down.flow == Flow::Ending {
            down.close();
            self.socket.shutdown_write();
            return Progress::Moved;
        }
        if !down.readable {
            return Progress::Stuck;
        }
        match node.read(now, self.key, scratch) {
            Ok(Read::Bytes(count)) => {
                let taken = match self.socket.write(&scratch[..count]) {
                    Ok(taken) => taken,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                    Err(_) => return Progress::Broken,
                };
                if taken < count {
                    down.keep(&scratch[taken..count]);
                }
                Progress::Moved
            }
            Ok(Read::End) => {
                down.flow = Flow::Ending;
                Progress::Moved
            }
            Ok(Read::Blocked) | Err(StreamError::Blocked) => {
                down.readable = false;
                Progress::Stuck
            }
            Err(_) => Progress::Broken,
        }
    }
}

impl Drop for Pump {
    /// Whatever ends a pump early (a reset, shutdown, a panic) must not look like a transfer that came to its end.
    fn drop(&mut self) {
        if !self.is_finished() {
            self.socket.close_hard();
        }
    }
}

/// Why the node took no bytes and never will.
pub(crate) enum Refused {
    /// The writing side ended; the reading side may live.
    Finished,
    /// The stream is over, if known why.
    Over(Option<StreamEnd>),
}

/// Offers bytes to a stream: how many it took; 0 when it is full for now.
pub(crate) fn offer(node: &mut Node, now: Instant, key: StreamKey, bytes: &[u8]) -> Result<usize, Refused> {
    match node.write(now, key, bytes) {
        Ok(count) => Ok(count),
        Err(StreamError::Blocked) => Ok(0),
        Err(StreamError::Finished) => Err(Refused::Finished),
        Err(StreamError::Ended(end)) => Err(Refused::Over(Some(end))),
        Err(_) => Err(Refused::Over(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_keeps_what_was_not_taken_and_weighs_nothing_when_it_is_gone() {
        let mut direction = Direction::new(b"abc".to_vec(), false);
        direction.take(2);
        assert_eq!((direction.rest(), direction.flow), (&b"c"[..], Flow::Open));
        direction.take(1);
        assert_eq!((direction.rest(), direction.pending.capacity()), (&b""[..], 0));
        direction.keep(b"next");
        assert_eq!(direction.rest(), b"next");
        direction.close();
        assert_eq!((direction.rest(), direction.flow, direction.pending.capacity()), (&b""[..], Flow::Done, 0));
    }

    #[test]
    fn what_a_stream_carries_over_goes_first_and_then_its_end() {
        let carried = Carried::default().with_up(b"up".to_vec(), true).with_down(Vec::new(), false);
        let (up, down) =
            (Direction::new(carried.up, carried.up_ended), Direction::new(carried.down, carried.down_ended));
        assert_eq!((up.flow, up.rest()), (Flow::Ending, &b"up"[..]));
        assert_eq!((down.flow, down.rest()), (Flow::Open, &b""[..]));
    }
}
