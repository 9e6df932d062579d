//! Blocking streams for programs.
//!
//! A [`Stream`] and the loop share a [`Shared`] state: one bounded buffer each way, under one lock. The program reads
//! from and writes to the buffers and waits on a condition variable when it cannot; the loop's side, [`Attached`],
//! moves bytes between the buffers and the node whenever the node or the program has news. A full buffer is what
//! carries back-pressure: the loop stops reading from the node when the program does not read.
//!
//! The stream ends when both sides finished, when it is reset, or when it broke; dropping the last handle finishes the
//! writing side (what was written still arrives) and tells the peer that nothing more will be read.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handfast_core::{Instant, Node, PeerId, Read, StreamEnd, StreamError, StreamKey};

use crate::clock::Until;
use crate::command::{Command, LoopHandle};
use crate::endpoint::{OpenError, describe};
use crate::local::LocalSocket;
use crate::pump::{CHUNK_LEN, Carried, Refused, Visit, offer};

/// Bytes kept each way between a program and the loop.
const BUFFER_LEN: usize = 4 * CHUNK_LEN;

/// Why nothing moves any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// The stream broke.
    Ended(StreamEnd),
    /// Reset by this program.
    Reset,
    /// Handed to a socket.
    Spliced,
    /// The endpoint is shut down.
    Closed,
}

#[derive(Default)]
struct State {
    inbound: VecDeque<u8>,
    /// The peer finished: `inbound` is the rest.
    inbound_ended: bool,
    outbound: VecDeque<u8>,
    /// Nothing more will be written.
    finish: bool,
    /// The peer wants no more.
    stopped: bool,
    /// Whether the peer accepted the stream.
    opened: bool,
    /// Asked for by the program, not yet done by the loop.
    reset: Option<u32>,
    /// No handle is left.
    abandoned: bool,
    over: Option<Over>,
    /// A command to look here is on its way.
    called: bool,
    /// The loop stopped reading from the node because `inbound` was full.
    starved: bool,
}

/// Shared between the handles and the loop.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, over: Over) {
        self.state().over.get_or_insert(over);
        self.changed.notify_all();
    }
}

/// What all handles of one stream have in common; the last one lets go.
struct Held {
    key: StreamKey,
    peer: PeerId,
    shared: Arc<Shared>,
    handle: LoopHandle,
}

impl Held {
    /// Has the loop look at the stream, if it was not called already.
    fn call(&self, state: &mut State) {
        if state.over.is_none() && !std::mem::replace(&mut state.called, true) {
            self.handle.send(Command::Attend { stream: self.key });
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.finish = true;
        state.abandoned = true;
        self.call(&mut state);
    }
}

/// A blocking stream. `read` returns 0 at the peer's end; a stream that broke gives `ConnectionReset`.
pub struct Stream {
    held: Arc<Held>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?} with {:?})", self.held.key, self.held.peer)
    }
}

impl Stream {
    /// A stream of the node, and the loop's side of it.
    pub(crate) fn attach(key: StreamKey, peer: PeerId, opened: bool, handle: LoopHandle) -> (Self, Attached) {
        let state = State { opened, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let attached = Attached { key, shared: Arc::clone(&shared), readable: true, writable: true, finished: false };
        (Self { held: Arc::new(Held { key, peer, shared, handle }) }, attached)
    }

    /// A second handle to the same stream, so that one thread reads while another writes.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { held: Arc::clone(&self.held) })
    }

    /// No more bytes will be written; those written still arrive.
    pub fn finish(&self) -> io::Result<()> {
        let mut state = self.held.shared.state();
        if let Some(over) = state.over {
            return Err(error(over));
        }
        state.finish = true;
        self.held.call(&mut state);
        self.held.shared.changed.notify_all();
        Ok(())
    }

    /// Breaks the stream off in both directions: the peer's program sees an error, not the end.
    pub fn reset(&self, code: u32) {
        let mut state = self.held.shared.state();
        state.reset.get_or_insert(code);
        self.held.call(&mut state);
        state.over.get_or_insert(Over::Reset);
        self.held.shared.changed.notify_all();
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.held.peer
    }

    /// Why the stream broke, if it did.
    pub fn ended(&self) -> Option<StreamEnd> {
        match self.held.shared.state().over {
            Some(Over::Ended(end)) => Some(end),
            Some(Over::Reset | Over::Spliced | Over::Closed) | None => None,
        }
    }

    /// Hands this stream and a connected local socket (TCP or Unix) to the loop, which pumps both ways with
    /// back-pressure, half-close and reset until both sides ended. Bytes already received or written come first; other
    /// handles to the stream are of no more use.
    pub fn splice(self, socket: LocalSocket) -> io::Result<()> {
        let stream = self.held.key;
        let spliced = self.held.handle.request(|reply| Command::Splice { stream, socket, reply });
        spliced.unwrap_or_else(|| Err(error(Over::Closed)))
    }

    /// Waits until the peer accepted the stream.
    pub(crate) fn wait_opened(&self, time: Duration) -> Result<(), OpenError> {
        let until = Until::after(time);
        let mut state = self.held.shared.state();
        loop {
            match state.over {
                Some(Over::Ended(end)) => return Err(OpenError::Ended(end)),
                Some(Over::Reset | Over::Spliced | Over::Closed) => return Err(OpenError::Closed),
                None if state.opened => return Ok(()),
                None => {}
            }
            let left = until.left();
            if left.is_zero() {
                return Err(OpenError::TimedOut);
            }
            state = self.held.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.held.shared.state();
        loop {
            if !state.inbound.is_empty() {
                let count = state.inbound.read(buf)?;
                if state.starved && state.inbound.len() <= BUFFER_LEN / 2 {
                    state.starved = false;
                    self.held.call(&mut state);
                }
                return Ok(count);
            }
            if state.inbound_ended {
                return Ok(0);
            }
            if let Some(over) = state.over {
                return Err(error(over));
            }
            state = self.held.wait(state);
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.held.shared.state();
        loop {
            if let Some(over) = state.over {
                return Err(error(over));
            }
            if state.finish {
                return Err(io::Error::new(ErrorKind::BrokenPipe, "written after finish"));
            }
            if state.stopped {
                return Err(io::Error::new(ErrorKind::BrokenPipe, "the peer wants no more bytes"));
            }
            let room = BUFFER_LEN - state.outbound.len();
            if room > 0 {
                let count = room.min(buf.len());
                state.outbound.extend(&buf[..count]);
                self.held.call(&mut state);
                return Ok(count);
            }
            state = self.held.wait(state);
        }
    }

    /// Nothing waits to be flushed: what was written is on its way already.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn error(over: Over) -> io::Error {
    match over {
        Over::Ended(end) => io::Error::new(ErrorKind::ConnectionReset, describe(end)),
        Over::Reset => io::Error::new(ErrorKind::ConnectionReset, "reset by this program"),
        Over::Spliced => io::Error::new(ErrorKind::NotConnected, "handed to a socket"),
        Over::Closed => io::Error::new(ErrorKind::ConnectionAborted, "the endpoint is shut down"),
    }
}

/// The loop's side of a [`Stream`].
pub(crate) struct Attached {
    key: StreamKey,
    shared: Arc<Shared>,
    /// The node may have bytes.
    readable: bool,
    /// The node may have room.
    writable: bool,
    /// The node was told that nothing more will be written.
    finished: bool,
}

impl Attached {
    pub(crate) fn on_readable(&mut self) {
        self.readable = true;
    }

    pub(crate) fn on_writable(&mut self) {
        self.writable = true;
    }

    pub(crate) fn on_opened(&self) {
        self.shared.state().opened = true;
        self.shared.changed.notify_all();
    }

    /// The peer wants no more bytes.
    pub(crate) fn on_stopped(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        state.outbound = VecDeque::new();
        self.finished = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The stream broke.
    pub(crate) fn on_ended(&self, end: StreamEnd) {
        self.shared.end(Over::Ended(end));
    }

    /// Moves what can be moved.
    pub(crate) fn visit(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Visit {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        state.called = false;
        if let Some(code) = state.reset {
            // Errors say that the stream is over already.
            let _ = node.reset(now, self.key, code);
            let _ = node.stop(now, self.key, code);
            return Visit::Over;
        }
        let moved = self.write(&mut state, node, now).and_then(|()| self.read(&mut state, node, now, scratch));
        let visit = match moved {
            Err(end) => {
                state.over.get_or_insert(Over::Ended(end));
                Visit::Over
            }
            Ok(()) if state.abandoned && self.finished => Visit::Over,
            Ok(()) => Visit::Waiting,
        };
        drop(state);
        shared.changed.notify_all();
        visit
    }

    /// From the program to the node.
    fn write(&mut self, state: &mut State, node: &mut Node, now: Instant) -> Result<(), StreamEnd> {
        while self.writable && !self.finished && !state.outbound.is_empty() {
            match offer(node, now, self.key, state.outbound.as_slices().0) {
                Ok(0) => self.writable = false,
                Ok(count) => drop(state.outbound.drain(..count)),
                Err(Refused::Finished) => {
                    self.finished = true;
                    state.stopped = true;
                }
                Err(Refused::Over(end)) => return Err(end.unwrap_or(StreamEnd::PeerGone)),
            }
        }
        if state.finish && state.outbound.is_empty() && !self.finished {
            self.finished = true;
            // Over already: nothing is left to say.
            let _ = node.finish(now, self.key);
        }
        Ok(())
    }

    /// From the node to the program.
    fn read(&mut self, state: &mut State, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Result<(), StreamEnd> {
        if state.inbound_ended {
            return Ok(());
        }
        if state.abandoned {
            let _ = node.stop(now, self.key, 0);
            state.inbound_ended = true;
            return Ok(());
        }
        while self.readable {
            let room = (BUFFER_LEN - state.inbound.len()).min(scratch.len());
            if room == 0 {
                state.starved = true;
                break;
            }
            match node.read(now, self.key, &mut scratch[..room]) {
                Ok(Read::Bytes(count)) => state.inbound.extend(&scratch[..count]),
                Ok(Read::End) => {
                    state.inbound_ended = true;
                    break;
                }
                Ok(Read::Blocked) | Err(StreamError::Blocked) => self.readable = false,
                Err(StreamError::Ended(end)) => return Err(end),
                Err(StreamError::Unknown | StreamError::Finished) => return Err(StreamEnd::PeerGone),
            }
        }
        Ok(())
    }

    /// Gives up the program's side: what it holds goes on to a pump.
    pub(crate) fn into_carried(self) -> Carried {
        let mut state = self.shared.state();
        state.over.get_or_insert(Over::Spliced);
        Carried {
            up: std::mem::take(&mut state.outbound).into(),
            up_ended: state.finish || state.stopped,
            down: std::mem::take(&mut state.inbound).into(),
            down_ended: state.inbound_ended,
        }
    }
}

impl Drop for Attached {
    /// The loop lets go of a stream that is over, or ended itself.
    fn drop(&mut self) {
        self.shared.end(Over::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::Receiver;

    use handfast_core::SecretKey;

    use super::*;

    fn stream() -> (Stream, Attached, Receiver<Command>, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker"));
        let (handle, commands) = LoopHandle::new(waker);
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        let (stream, attached) = Stream::attach(StreamKey(5), peer, false, handle);
        (stream, attached, commands, poll)
    }

    fn calls(commands: &Receiver<Command>) -> usize {
        commands.try_iter().filter(|command| matches!(command, Command::Attend { stream: StreamKey(5) })).count()
    }

    #[test]
    fn what_a_program_writes_is_bounded_and_calls_the_loop_once() {
        let (mut stream, attached, commands, _poll) = stream();
        let big = vec![1; BUFFER_LEN + 10];
        assert_eq!(stream.write(&big).expect("room"), BUFFER_LEN);
        assert_eq!(calls(&commands), 1);
        let mut other = stream.try_clone().expect("clone");
        let writing = std::thread::spawn(move || other.write(&[2; 3]));
        attached.shared.state().outbound.drain(..1);
        attached.shared.changed.notify_all();
        assert_eq!(writing.join().expect("no panic").expect("room"), 1, "only what fits");
        assert_eq!(calls(&commands), 0, "the loop was called already");
    }

    #[test]
    fn a_reader_that_makes_room_calls_a_starved_loop() {
        let (mut stream, attached, commands, _poll) = stream();
        {
            let mut state = attached.shared.state();
            state.inbound.extend(vec![3; BUFFER_LEN]);
            state.starved = true;
        }
        let mut buf = vec![0; BUFFER_LEN / 2];
        stream.read_exact(&mut buf[..100]).expect("bytes");
        assert_eq!(calls(&commands), 0, "not for a few bytes");
        stream.read_exact(&mut buf).expect("bytes");
        assert_eq!(calls(&commands), 1);
    }

    #[test]
    fn bytes_that_arrived_are_read_before_the_end_or_the_error() {
        let (mut stream, attached, _commands, _poll) = stream();
        attached.shared.state().inbound.extend(b"last words");
        attached.on_ended(StreamEnd::Reset(7));
        let mut buf = [0; 10];
        stream.read_exact(&mut buf).expect("bytes");
        assert_eq!(&buf, b"last words");
        assert_eq!(stream.read(&mut buf).expect_err("broken").kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.write(b"x").expect_err("broken").kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.ended(), Some(StreamEnd::Reset(7)));
    }

    #[test]
    fn a_loop_that_ends_frees_reader_and_opener() {
        let (stream, attached, _commands, _poll) = stream();
        let mut other = stream.try_clone().expect("clone");
        let reading = std::thread::spawn(move || other.read(&mut [0; 1]));
        let opening = std::thread::spawn(move || stream.wait_opened(Duration::MAX));
        drop(attached);
        assert_eq!(reading.join().expect("no panic").expect_err("closed").kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(opening.join().expect("no panic"), Err(OpenError::Closed)));
    }

    #[test]
    fn finish_and_the_last_drop_are_told() {
        let (mut stream, attached, commands, _poll) = stream();
        stream.finish().expect("open");
        assert_eq!(calls(&commands), 1);
        assert_eq!(stream.write(b"x").expect_err("finished").kind(), ErrorKind::BrokenPipe);
        attached.shared.state().called = false;
        let clone = stream.try_clone().expect("clone");
        drop(stream);
        assert_eq!(calls(&commands), 0, "a handle is left");
        drop(clone);
        assert_eq!(calls(&commands), 1);
        assert!(attached.shared.state().abandoned);
    }

    #[test]
    fn splicing_carries_what_both_sides_hold() {
        let (mut stream, attached, _commands, _poll) = stream();
        stream.write_all(b"up").expect("room");
        attached.shared.state().inbound.extend(b"down");
        stream.finish().expect("open");
        let carried = attached.into_carried();
        assert_eq!((carried.up.as_slice(), carried.up_ended), (&b"up"[..], true));
        assert_eq!((carried.down.as_slice(), carried.down_ended), (&b"down"[..], false));
        assert_eq!(stream.read(&mut [0; 4]).expect_err("spliced").kind(), ErrorKind::NotConnected);
    }
}
