//! `handfast pipe`: standard input and output become a stream to a peer's service, as ssh's ProxyCommand wants it.
//!
//! Half-close works both ways: the end of standard input is the end of what we send and no more than that. When the
//! peer has finished, what is still coming on standard input is sent as long as it keeps coming; a standard input that
//! is merely open (a terminal, an idle ssh) does not keep the command alive, since whoever reads our output learns of
//! its end only when we end.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use handfast_io::ServiceName;

use crate::cli::PipeArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Way};
use crate::local_api::client;
use crate::local_api::line::Line;
use crate::local_api::{CopyError, copy};
use crate::report::short;
use crate::signals::{Outcome, Wish};
use crate::state_dir::StateDir;
use crate::talk;
use crate::target::Target;

/// After the peer has finished, standard input may pause this long before it counts as idle.
const IDLE_INPUT: Duration = Duration::from_millis(500);

pub(super) fn run(state: &StateDir, args: &PipeArgs) -> Result<Exit, Failure> {
    let target = Target::from_argument(&args.target)?;
    let service = target.service()?;
    let known = super::known(&args.reach, &target)?;
    let timeout = Duration::from_secs(args.wait.timeout);

    let signals = super::signals()?;
    let attached = host::attach(state, &known, &args.reach.router)?;
    let (way, mine) = (attached.way(&known).towards(target.ticket.peer), Mine::default());
    let outcome = signals.run({
        let mine = mine.clone();
        move || carry(&way, &target, service, timeout, &mine)
    });
    match outcome {
        Outcome::Done(result) => {
            // Others may have found the node that we started: they are not cut off because we are done.
            attached.finish(&signals, None);
            result.map(|()| Exit::Ok)
        }
        Outcome::Interrupted(Wish::HangUp) => {
            attached.finish(&signals, mine.close());
            Ok(Exit::Interrupted)
        }
        Outcome::Interrupted(Wish::Stop) => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

/// The stream of this command and the question how it ended, for the thread that hears of a hang-up.
#[derive(Clone, Default)]
struct Mine(Arc<Mutex<Option<Open>>>);

struct Open {
    sockets: [UnixStream; 2],
    number: u64,
}

impl Mine {
    fn set(&self, sockets: [UnixStream; 2], number: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { sockets, number });
    }

    /// Closes both and says which stream it was.
    fn close(&self) -> Option<u64> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        for socket in &open.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        Some(open.number)
    }
}

fn carry(way: &Way, target: &Target, service: ServiceName, timeout: Duration, mine: &Mine) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("cannot carry the stream", &error);
    let mut client = way.connect()?;
    let line = Line::new("DIAL").with("peer", &target.ticket).with("service", service);
    let answer = client.ask_peer(line, timeout)?;
    let number = answer.need("stream")?.to_owned();
    tracing::info!(peer = %short(&target.peer().to_string()), path = %client::path(&answer).path, "connected");
    let socket = client.into_stream();
    // The socket cannot say whether the stream ended or broke; the node can. Asked now, because afterwards the node
    // may be gone: that of another command ends when nobody uses it any more.
    let mut ending = way.connect_again()?;
    ending.send(&Line::new("WAIT").with("stream", &number))?;
    let sockets = [socket.try_clone().map_err(failed)?, ending.try_clone_socket().map_err(failed)?];
    mine.set(sockets, number.parse().unwrap_or(0));
    let output_closed = copy_both_ways(&socket)?;
    // Not only dropped: the thread that reads standard input has the socket as well, and may wait for ever.
    let _ = socket.shutdown(Shutdown::Both);
    if !output_closed {
        ending.answer(client::ANSWER_DEADLINE)?;
    }
    Ok(())
}

/// Carries until the peer has finished and so has standard input; true if nobody reads our output any more.
fn copy_both_ways(socket: &UnixStream) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::io("cannot carry the stream", &error);
    let to_peer = socket.try_clone().map_err(failed)?;
    let seen = Arc::new(Seen::default());
    let up = thread::Builder::new()
        .name("stdin".into())
        .spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut input = Watched { input: io::stdin().lock(), seen };
                if let Err(CopyError::Read(error)) = copy(&mut input, &mut &to_peer) {
                    talk::warn(format!("cannot read standard input: {error}"));
                }
                // Also after an error: the peer is owed the end of what will not come.
                let _ = to_peer.shutdown(Shutdown::Write);
            }
        })
        .map_err(failed)?;
    match copy(&mut &*socket, &mut io::stdout().lock()) {
        Ok(()) => {}
        // The closed socket tells the node, which tells the peer.
        Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
        Err(CopyError::Write(error)) => return Err(Failure::io("cannot write to standard output", &error)),
        Err(CopyError::Read(error)) => return Err(Failure::io("the stream broke", &error)),
    }
    while !up.is_finished() {
        let before = seen.state();
        thread::sleep(IDLE_INPUT);
        if before.waiting() && before == seen.state() {
            break;
        }
    }
    Ok(false)
}

/// What the thread that reads standard input is doing: even while it waits for input, odd while it passes it on.
#[derive(Default)]
struct Seen(AtomicU64);

#[derive(Clone, Copy, PartialEq, Eq)]
struct SeenState(u64);

impl SeenState {
    fn waiting(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

impl Seen {
    fn state(&self) -> SeenState {
        SeenState(self.0.load(Ordering::Relaxed))
    }
}

struct Watched<R> {
    input: R,
    seen: Arc<Seen>,
}

impl<R: io::Read> io::Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // Odd from the last read on: now the waiting begins again.
        if !self.seen.state().waiting() {
            self.seen.0.fetch_add(1, Ordering::Relaxed);
        }
        let read = self.input.read(buf);
        self.seen.0.fetch_add(1, Ordering::Relaxed);
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn input_that_waits_is_told_from_input_that_is_passed_on() {
        let seen = Arc::new(Seen::default());
        let mut input = Watched { input: &b"abc"[..], seen: Arc::clone(&seen) };
        assert!(seen.state().waiting());
        let mut byte = [0];
        let before = seen.state();
        input.read_exact(&mut byte).unwrap();
        assert!(!seen.state().waiting(), "being passed on");
        input.read_exact(&mut byte).unwrap();
        assert!(!seen.state().waiting() && before != seen.state());
    }
}
