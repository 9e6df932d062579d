//! What a program and the loop share of a stream.
//!
//! One [`Shared`] state: a bounded buffer each way, under one lock. The program's end, [`ProgramEnd`], reads from and
//! writes to the buffers and waits on a condition variable when it cannot; the loop's end, [`LoopEnd`], moves bytes
//! between the buffers and the node whenever the node or the program has news. A full buffer is what carries
//! back-pressure: the loop stops reading from the node when the program does not read.
//!
//! It ends when both sides finished, when the stream is reset, or when it broke; dropping the last of the program's
//! ends finishes the writing side (what was written still arrives) and tells the peer that nothing more will be read.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handfast_core::{Instant, Node, PeerId, Read, StreamEnd, StreamError, StreamKey};

use super::bell::Bell;
use crate::api::OpenError;
use crate::host::Until;
use crate::local::{CHUNK_LEN, Carried, Refused, Visit, offer};

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
    /// The bell was rung and the loop has not looked yet.
    called: bool,
    /// The loop stopped reading from the node because `inbound` was full.
    starved: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
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

/// What all of the program's ends of one stream have in common; the last one lets go.
struct Common {
    key: StreamKey,
    peer: PeerId,
    shared: Arc<Shared>,
    bell: Bell,
}

impl Common {
    /// Has the loop look at the stream, if it was not called already.
    fn call(&self, state: &mut State) {
        if state.over.is_none() && !std::mem::replace(&mut state.called, true) {
            self.bell.ring(self.key);
        }
    }

    /// Waits for a change, at most `until`.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Until>) -> io::Result<MutexGuard<'a, State>> {
        let changed = &self.shared.changed;
        let Some(until) = until else { return Ok(changed.wait(state).unwrap_or_else(PoisonError::into_inner)) };
        let left = until.left();
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "nothing moved in time"));
        }
        Ok(changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.finish = true;
        state.abandoned = true;
        self.call(&mut state);
    }
}

/// The program's end of a stream. Clones are the same end.
#[derive(Clone)]
pub(crate) struct ProgramEnd {
    held: Arc<Common>,
}

/// Both ends of a stream of the node. `opened`: the peer has accepted it already.
pub(super) fn exchange(key: StreamKey, peer: PeerId, opened: bool, bell: Bell) -> (ProgramEnd, LoopEnd) {
    let state = State { opened, ..State::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    let looped = LoopEnd { key, shared: Arc::clone(&shared), readable: true, writable: true, finished: false };
    (ProgramEnd { held: Arc::new(Common { key, peer, shared, bell }) }, looped)
}

impl ProgramEnd {
    /// The stream.
    pub(crate) fn key(&self) -> StreamKey {
        self.held.key
    }

    /// Who is at the other end of it.
    pub(crate) fn peer(&self) -> PeerId {
        self.held.peer
    }

    /// How long a read may wait; none: as long as it takes.
    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.held.shared.state().read_timeout
    }

    /// Sets that, for all clones.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.held.shared.state().read_timeout = timeout;
    }

    /// How long a write may wait; none: as long as it takes.
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.held.shared.state().write_timeout
    }

    /// Sets that, for all clones.
    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.held.shared.state().write_timeout = timeout;
    }

    /// Waits for bytes and takes what there is; 0 at the peer's end.
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.held.shared.state();
        let until = state.read_timeout.map(Until::after);
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
            state = self.held.wait(state, until)?;
        }
    }

    /// Waits for room and fills it.
    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.held.shared.state();
        let until = state.write_timeout.map(Until::after);
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
            state = self.held.wait(state, until)?;
        }
    }

    /// No more bytes will be written.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut state = self.held.shared.state();
        if let Some(over) = state.over {
            return Err(error(over));
        }
        state.finish = true;
        self.held.call(&mut state);
        self.held.shared.changed.notify_all();
        Ok(())
    }

    /// Breaks the stream off.
    pub(crate) fn reset(&self, code: u32) {
        let mut state = self.held.shared.state();
        state.reset.get_or_insert(code);
        self.held.call(&mut state);
        state.over.get_or_insert(Over::Reset);
        self.held.shared.changed.notify_all();
    }

    /// Why the stream broke, if it did.
    pub(crate) fn ended(&self) -> Option<StreamEnd> {
        match self.held.shared.state().over {
            Some(Over::Ended(end)) => Some(end),
            Some(Over::Reset | Over::Spliced | Over::Closed) | None => None,
        }
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
            state = self.held.wait(state, Some(until)).map_err(|_| OpenError::TimedOut)?;
        }
    }
}

fn error(over: Over) -> io::Error {
    match over {
        Over::Ended(end) => io::Error::new(ErrorKind::ConnectionReset, end),
        Over::Reset => io::Error::new(ErrorKind::ConnectionReset, "reset by this program"),
        Over::Spliced => io::Error::new(ErrorKind::NotConnected, "handed to a socket"),
        Over::Closed => io::Error::new(ErrorKind::ConnectionAborted, "the endpoint is shut down"),
    }
}

/// The loop's end of a stream.
pub(super) struct LoopEnd {
    key: StreamKey,
    shared: Arc<Shared>,
    /// The node may have bytes.
    readable: bool,
    /// The node may have room.
    writable: bool,
    /// The node was told that nothing more will be written.
    finished: bool,
}

impl LoopEnd {
    /// The node has bytes.
    pub(super) fn on_readable(&mut self) {
        self.readable = true;
    }

    /// The node has room.
    pub(super) fn on_writable(&mut self) {
        self.writable = true;
    }

    /// The peer accepted the stream.
    pub(super) fn on_opened(&self) {
        self.shared.state().opened = true;
        self.shared.changed.notify_all();
    }

    /// The peer wants no more bytes.
    pub(super) fn on_stopped(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        state.outbound = VecDeque::new();
        self.finished = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The stream broke.
    pub(super) fn on_ended(&self, end: StreamEnd) {
        self.shared.end(Over::Ended(end));
    }

    /// Moves what can be moved.
    pub(super) fn visit(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) -> Visit {
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
                Err(_) => return Err(StreamEnd::PeerGone),
            }
        }
        Ok(())
    }

    /// Gives up the program's side: what it holds goes on to a pump.
    pub(super) fn into_carried(self) -> Carried {
        let mut state = self.shared.state();
        state.over.get_or_insert(Over::Spliced);
        Carried::default()
            .with_up(std::mem::take(&mut state.outbound).into(), state.finish || state.stopped)
            .with_down(std::mem::take(&mut state.inbound).into(), state.inbound_ended)
    }
}

impl Drop for LoopEnd {
    /// The loop lets go of a stream that is over, or ended itself.
    fn drop(&mut self) {
        self.shared.end(Over::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use handfast_core::SecretKey;

    use super::*;

    fn stream() -> (ProgramEnd, LoopEnd, Receiver<StreamKey>, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker"));
        let (bell, rung) = Bell::new(waker);
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        let (program, looped) = exchange(StreamKey(5), peer, false, bell);
        (program, looped, rung, poll)
    }

    fn calls(rung: &Receiver<StreamKey>) -> usize {
        rung.try_iter().filter(|stream| *stream == StreamKey(5)).count()
    }

    fn read_exact(stream: &ProgramEnd, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let count = stream.read(buf).expect("bytes");
            assert!(count > 0, "the end came early");
            buf = &mut buf[count..];
        }
    }

    #[test]
    fn what_a_program_writes_is_bounded_and_calls_the_loop_once() {
        let (stream, looped, rung, _poll) = stream();
        let big = vec![1; BUFFER_LEN + 10];
        assert_eq!(stream.write(&big).expect("room"), BUFFER_LEN);
        assert_eq!(calls(&rung), 1);
        let other = stream.clone();
        let writing = std::thread::spawn(move || other.write(&[2; 3]));
        looped.shared.state().outbound.drain(..1);
        looped.shared.changed.notify_all();
        assert_eq!(writing.join().expect("no panic").expect("room"), 1, "only what fits");
        assert_eq!(calls(&rung), 0, "the loop was called already");
    }

    #[test]
    fn a_reader_that_makes_room_calls_a_starved_loop() {
        let (stream, looped, rung, _poll) = stream();
        {
            let mut state = looped.shared.state();
            state.inbound.extend(vec![3; BUFFER_LEN]);
            state.starved = true;
        }
        let mut buf = vec![0; BUFFER_LEN / 2];
        read_exact(&stream, &mut buf[..100]);
        assert_eq!(calls(&rung), 0, "not for a few bytes");
        read_exact(&stream, &mut buf);
        assert_eq!(calls(&rung), 1);
    }

    #[test]
    fn bytes_that_arrived_are_read_before_the_end_or_the_error() {
        let (stream, looped, _rung, _poll) = stream();
        looped.shared.state().inbound.extend(b"last words");
        looped.on_ended(StreamEnd::Reset(7));
        let mut buf = [0; 10];
        read_exact(&stream, &mut buf);
        assert_eq!(&buf, b"last words");
        assert_eq!(stream.read(&mut buf).expect_err("broken").kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.write(b"x").expect_err("broken").kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.ended(), Some(StreamEnd::Reset(7)));
    }

    #[test]
    fn a_loop_that_ends_frees_reader_and_opener() {
        let (stream, looped, _rung, _poll) = stream();
        let other = stream.clone();
        let reading = std::thread::spawn(move || other.read(&mut [0; 1]));
        let opening = std::thread::spawn(move || stream.wait_opened(Duration::MAX));
        drop(looped);
        assert_eq!(reading.join().expect("no panic").expect_err("closed").kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(opening.join().expect("no panic"), Err(OpenError::Closed)));
    }

    #[test]
    fn finish_and_the_last_drop_are_told() {
        let (stream, looped, rung, _poll) = stream();
        stream.finish().expect("open");
        assert_eq!(calls(&rung), 1);
        assert_eq!(stream.write(b"x").expect_err("finished").kind(), ErrorKind::BrokenPipe);
        looped.shared.state().called = false;
        let clone = stream.clone();
        drop(stream);
        assert_eq!(calls(&rung), 0, "a handle is left");
        drop(clone);
        assert_eq!(calls(&rung), 1);
        assert!(looped.shared.state().abandoned);
    }

    #[test]
    fn splicing_carries_what_both_sides_hold() {
        let (stream, looped, _rung, _poll) = stream();
        assert_eq!(stream.write(b"up").expect("room"), 2);
        looped.shared.state().inbound.extend(b"down");
        stream.finish().expect("open");
        let carried = looped.into_carried();
        assert_eq!(carried, Carried::default().with_up(b"up".to_vec(), true).with_down(b"down".to_vec(), false));
        assert_eq!(stream.read(&mut [0; 4]).expect_err("spliced").kind(), ErrorKind::NotConnected);
    }

    #[test]
    fn waiting_ends_in_time_and_costs_nothing() {
        let (stream, looped, rung, _poll) = stream();
        let soon = Some(Duration::from_millis(1));
        stream.set_read_timeout(soon);
        stream.set_write_timeout(soon);
        assert_eq!((stream.clone().read_timeout(), stream.clone().write_timeout()), (soon, soon));
        assert_eq!(stream.read(&mut [0; 1]).expect_err("nothing came").kind(), ErrorKind::TimedOut);
        assert_eq!(stream.write(&vec![1; BUFFER_LEN]).expect("room"), BUFFER_LEN);
        assert_eq!(stream.write(b"x").expect_err("no room came").kind(), ErrorKind::TimedOut);
        assert_eq!(calls(&rung), 1);
        // Nothing was lost by that, and nothing is over.
        looped.shared.state().outbound.clear();
        looped.shared.state().inbound.extend(b"late");
        let mut buf = [0; 4];
        read_exact(&stream, &mut buf);
        assert_eq!(&buf, b"late");
        assert_eq!(stream.write(b"x").expect("room"), 1);
        stream.set_read_timeout(None);
        looped.on_ended(StreamEnd::PeerGone);
        assert_eq!(stream.read(&mut buf).expect_err("broken").kind(), ErrorKind::ConnectionReset);
    }
}
