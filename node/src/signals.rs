//! Signals as messages: the first one asks for a clean end, the second means now.
//!
//! SIGINT, SIGTERM and SIGHUP (the terminal or the parent went away) all end the command. Its main thread waits here,
//! either for the signal alone ([`Signals::wait`]) or for work in another thread ([`Signals::run`]), and then closes
//! the node in peace.

use std::io;
use std::process;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator;

use crate::exit::Exit;

/// Which wish a signal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Stop.
    Stop,
    /// Whoever started us is gone; ssh says so to its ProxyCommand when the session is over.
    HangUp,
}

/// What wakes the main thread.
enum Wake {
    Signal(Wish),
    WorkEnded,
}

/// The signals of this process, from now on.
pub(crate) struct Signals {
    sender: Sender<Wake>,
    receiver: Receiver<Wake>,
}

/// How work under [`Signals::run`] ended.
pub(crate) enum Outcome<T> {
    /// It was done.
    Done(T),
    /// A signal came first; the work goes on in its thread until the process ends.
    Interrupted(Wish),
}

impl Signals {
    /// Takes the signals over.
    pub(crate) fn install() -> io::Result<Self> {
        let mut incoming = iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let (sender, receiver) = mpsc::channel();
        let out = sender.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut asked = false;
            for signal in incoming.forever() {
                let wish = if signal == SIGHUP { Wish::HangUp } else { Wish::Stop };
                if asked || out.send(Wake::Signal(wish)).is_err() {
                    process::exit(Exit::Interrupted.code().into());
                }
                asked = true;
            }
        })?;
        Ok(Self { sender, receiver })
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) {
        // We hold a sender ourselves, so the channel cannot be closed.
        while let Ok(Wake::WorkEnded) = self.receiver.recv() {}
    }

    /// Waits for a signal at most so long; whether one came.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            match self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Wake::Signal(_)) => return true,
                // Work that a signal has overtaken may end later.
                Ok(Wake::WorkEnded) => {}
                Err(_) => return false,
            }
        }
    }

    /// Does `work` in a thread of its own, until it is done or a signal comes.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let wake = WakeOnDrop(self.sender.clone());
        let worker = thread::spawn(move || {
            // Sent when the work returns or panics: either way the main thread wakes.
            let _wake = wake;
            work()
        });
        match self.receiver.recv() {
            Ok(Wake::Signal(wish)) => Outcome::Interrupted(wish),
            Ok(Wake::WorkEnded) | Err(_) => match worker.join() {
                Ok(value) => Outcome::Done(value),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

struct WakeOnDrop(Sender<Wake>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Wake::WorkEnded);
    }
}
