//! `handfast pipe`: standard input and output become a stream to a peer's service, as ssh's ProxyCommand wants it.
//!
//! Half-close works both ways: the end of standard input is the end of what we send and no more than that. When the
//! peer has finished, what is still coming on standard input is sent as long as it keeps coming; a standard input that
//! is merely open (a terminal, an idle ssh) does not keep the command alive, since whoever reads our output learns of
//! its end only when we end.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::signals::Outcome;
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
    let attached = host::attach(state, &known)?;
    let way = attached.way(&known);
    match signals.run(move || carry(&way, &target, service, timeout)) {
        Outcome::Done(result) => {
            // Others may have found the node that we started: they are not cut off because we are done.
            attached.finish(&signals);
            result.map(|()| Exit::Ok)
        }
        Outcome::Interrupted => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

fn carry(way: &Way, target: &Target, service: ServiceName, timeout: Duration) -> Result<(), Failure> {
    let mut client = way.connect()?;
    let line = Line::new("DIAL").with("peer", &target.ticket).with("service", service);
    let answer = client.ask_peer(line, timeout)?;
    let number = answer.need("stream")?.to_owned();
    tracing::info!(peer = %short(&target.peer().to_string()), path = %client::path(&answer).path, "connected");
    let socket = client.into_stream();
    copy_both_ways(&socket)?;
    drop(socket);
    // The socket cannot say whether the stream ended or broke; the node can.
    way.connect_again()?.wait(&number)
}

fn copy_both_ways(socket: &UnixStream) -> Result<(), Failure> {
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
        // Nobody reads any more. The closed socket tells the node, which tells the peer.
        Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
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
    Ok(())
}

/// What the thread that reads standard input is doing: even while it waits for input, odd while it passes it on.
#[derive(Default)]
struct Seen(AtomicU64);

#[derive(Clone, Copy, PartialEq, Eq)]
struct SeenState(u64);

impl SeenState {
    fn waiting(self) -> bool {
        self.0 % 2 == 0
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
