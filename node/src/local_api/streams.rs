//! Streams that the node carries for local programs: two threads each, and a memory of how they ended.
//!
//! The pump keeps half-close in both directions, and its two blocking copies are the back-pressure: a slow reader on
//! one side stops the writer on the other. How a stream ended is kept for a while after it, since a Unix socket cannot
//! carry a reset and its user may ask ([`Streams::wait`]).

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use handfast_io::Stream;

use super::{LOOK_EVERY, STREAMS_MAX};
use crate::exit::{Exit, Failure};

/// How many ended streams are remembered; the oldest are forgotten first.
const ENDED_MAX: usize = 256;
/// Size of a copy: several of QUIC's packets at once, and small enough for many streams.
pub(crate) const COPY_LEN: usize = 64 * 1024;

/// How a stream ended.
pub(crate) type Ending = Result<(), Failure>;

/// The streams of one node's local programs.
#[derive(Default)]
pub(crate) struct Streams {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    live: BTreeSet<u64>,
    ended: VecDeque<(u64, Ending)>,
}

/// Room for one stream, and its number. Dropped without a stream, it is free again.
pub(crate) struct Slot {
    streams: Arc<Streams>,
    /// Names the stream in `WAIT`.
    pub(crate) number: u64,
    ending: Ending,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        state.live.remove(&self.number);
        if state.ended.len() == ENDED_MAX {
            state.ended.pop_front();
        }
        state.ended.push_back((self.number, self.ending.clone()));
        self.streams.changed.notify_all();
    }
}

impl Streams {
    /// Room for another stream.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Slot, Failure> {
        let mut state = self.state();
        if state.live.len() >= STREAMS_MAX {
            return Err(Failure::new(
                Exit::Failure,
                format!("{STREAMS_MAX} streams of local programs are open already"),
                "end one first",
            ));
        }
        state.last += 1;
        let number = state.last;
        state.live.insert(number);
        Ok(Slot { streams: Arc::clone(self), number, ending: Ok(()) })
    }

    /// Whether any is open but `own`.
    pub(crate) fn any_besides(&self, own: Option<u64>) -> bool {
        self.state().live.iter().any(|number| Some(*number) != own)
    }

    /// Waits until a stream is over and says how it ended; `None` if there is none of that number, or when `given_up`
    /// says that nobody waits for the answer any more.
    pub(crate) fn wait(&self, number: u64, given_up: impl Fn() -> bool) -> Option<Ending> {
        let mut state = self.state();
        while state.live.contains(&number) {
            if given_up() {
                return None;
            }
            (state, _) = self.changed.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner);
        }
        state.ended.iter().rev().find(|(ended, _)| *ended == number).map(|(_, ending)| ending.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere does not make it wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Carries bytes both ways until both sides ended. Blocks.
    pub(crate) fn carry(mut self, stream: Stream, socket: UnixStream) {
        self.ending = carry(stream, socket);
    }
}

fn carry(stream: Stream, socket: UnixStream) -> Ending {
    let failed = |error: &io::Error| Failure::io("the node cannot carry the stream", error);
    let mut writer = stream.try_clone().map_err(|error| failed(&error))?;
    let local = socket.try_clone().map_err(|error| failed(&error))?;
    let up = thread::Builder::new()
        .name("stream up".into())
        .spawn(move || match copy(&mut &local, &mut writer) {
            Ok(()) => {
                // All was written. That the peer has no use for an end any more is no loss.
                let _ = writer.finish();
                Ok(())
            }
            Err(CopyError::Read(error)) => {
                writer.reset(0);
                Err(error)
            }
            Err(CopyError::Write(error)) => {
                // The peer takes no more: the local program must not go on writing into nothing.
                let _ = local.shutdown(Shutdown::Read);
                Err(error)
            }
        })
        .map_err(|error| failed(&error))?;
    let mut reader = stream;
    let down = match copy(&mut reader, &mut &socket) {
        Ok(()) => {
            let _ = socket.shutdown(Shutdown::Write);
            Ok(())
        }
        Err(CopyError::Read(error)) => {
            // Broken: nothing more will come either way, and the thread that reads the socket must end.
            let _ = socket.shutdown(Shutdown::Both);
            Err(Failure::new(Exit::Failure, format!("the stream broke: {error}"), "run the command again"))
        }
        Err(CopyError::Write(_)) => {
            // The local program is gone, which is its right; the peer learns it.
            reader.reset(0);
            let _ = socket.shutdown(Shutdown::Both);
            Ok(())
        }
    };
    let up = up.join().unwrap_or_else(|_| Err(io::Error::other("the copying thread panicked")));
    match (down, up) {
        (Err(failure), _) => Err(failure),
        // The peer closed for good before everything was sent, as a server does that has heard enough.
        (Ok(()), Err(error)) => Err(Failure::bare(Exit::Failure, format!("the peer took no more bytes: {error}"))),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the end of `from`, flushing after each read so that an interactive user sees every byte at once.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut buf = vec![0; COPY_LEN];
    loop {
        let len = match from.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        to.write_all(&buf[..len]).and_then(|()| to.flush()).map_err(CopyError::Write)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_and_endings_remembered() {
        let streams = Arc::new(Streams::default());
        let mut slots: Vec<_> = (0..STREAMS_MAX).map(|_| streams.reserve().unwrap()).collect();
        assert!(streams.reserve().is_err());
        let mut broken = slots.pop().unwrap();
        let number = broken.number;
        broken.ending = Err(Failure::bare(Exit::Failure, "broke"));
        drop(broken);
        assert_eq!(streams.state().live.len(), STREAMS_MAX - 1);
        assert_eq!(streams.wait(number, || false).unwrap().unwrap_err().cause, "broke");
        assert_eq!(streams.wait(9999, || false), None);
        let own = slots.pop().unwrap();
        assert!(streams.any_besides(Some(own.number)));
        drop(slots);
        assert!(streams.any_besides(None) && !streams.any_besides(Some(own.number)));
        drop(own);
        for _ in 0..2 * ENDED_MAX {
            drop(streams.reserve().unwrap());
        }
        assert_eq!(streams.state().ended.len(), ENDED_MAX);
        assert_eq!(streams.wait(number, || false), None, "forgotten");
    }

    #[test]
    fn a_waiter_wakes_when_the_stream_ends() {
        let streams = Arc::new(Streams::default());
        let slot = streams.reserve().unwrap();
        let number = slot.number;
        let waiter = thread::spawn({
            let streams = Arc::clone(&streams);
            move || streams.wait(number, || false)
        });
        assert_eq!(streams.wait(number, || true), None, "nobody waits");
        drop(slot);
        assert_eq!(waiter.join().unwrap(), Some(Ok(())));
    }
}
