//! What programs ask of the loop, and how it gets there.
//!
//! A [`LoopHandle`] puts a [`Command`] into a queue and wakes the loop. Nearly every command carries a [`Reply`] that
//! its sender waits for, so the queue is as long as there are threads asking; the others are sent at most once per
//! stream, listener or endpoint. A loop that has ended, or panicked, drops the queue and the replies in it: whoever
//! waits learns that at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use handfast_core::portmap::UpnpAnswer;
use handfast_core::{
    Access, CommandError, ConnectError, Event, Neighbor, PathInfo, PeerId, ServiceName, Status, StreamKey, Ticket,
};

use crate::endpoint::Pong;
use crate::local::LocalSocket;
use crate::stream::Stream;

/// Where the answer to a command goes. Its channel has room for it, so the loop never waits.
pub(crate) type Reply<T> = SyncSender<T>;

/// Answers. That nobody waits for it any more is no error.
pub(crate) fn answer<T>(reply: &Reply<T>, value: T) {
    let _ = reply.send(value);
}

/// Where the loop puts accepted streams of one service.
pub(crate) type Incoming = SyncSender<(Stream, PeerId)>;

/// One wish.
pub(crate) enum Command {
    Join {
        known: Vec<(PeerId, SocketAddr)>,
        reply: Reply<Result<(), CommandError>>,
    },
    Learn {
        ticket: Ticket,
        reply: Reply<Result<(), CommandError>>,
    },
    Expose {
        service: ServiceName,
        target: SocketAddr,
        access: Access,
        reply: Reply<Result<(), CommandError>>,
    },
    /// Answered with the number of this offer.
    Offer {
        service: ServiceName,
        access: Access,
        incoming: Incoming,
        reply: Reply<Result<u64, CommandError>>,
    },
    /// Withdraws a service; with a number only if that offer still is the one that counts.
    Withdraw {
        service: ServiceName,
        offer: Option<u64>,
    },
    /// Answered with the number of the listener.
    Listen {
        listener: std::net::TcpListener,
        peer: PeerId,
        service: ServiceName,
        reply: Reply<io::Result<usize>>,
    },
    CloseListener {
        listener: usize,
    },
    Open {
        peer: PeerId,
        service: ServiceName,
        reply: Reply<Result<Stream, CommandError>>,
    },
    Connect {
        peer: PeerId,
        patience: Duration,
        reply: Reply<Waited<PathInfo>>,
    },
    Ping {
        peer: PeerId,
        patience: Duration,
        reply: Reply<Waited<Pong>>,
    },
    SendDatagram {
        peer: PeerId,
        data: Vec<u8>,
        reply: Reply<Result<(), CommandError>>,
    },
    PathOf {
        peer: PeerId,
        reply: Reply<Option<(PathInfo, Option<Duration>)>>,
    },
    Status {
        reply: Reply<Status>,
    },
    Ticket {
        service: Option<ServiceName>,
        reply: Reply<Ticket>,
    },
    Subscribe {
        events: SyncSender<Event>,
        reply: Reply<()>,
    },
    /// A program read from, wrote to, finished, reset or dropped this stream.
    Attend {
        stream: StreamKey,
    },
    Splice {
        stream: StreamKey,
        socket: LocalSocket,
        reply: Reply<io::Result<()>>,
    },
    /// UPnP did what port mapping ordered for this address.
    Upnp {
        internal: SocketAddr,
        answer: UpnpAnswer,
    },
    /// A node announced itself on the LAN. Answered when the core knows.
    Neighbor {
        neighbor: Neighbor,
        reply: Reply<()>,
    },
    /// One of them took that back.
    NeighborGone {
        peer: PeerId,
        reply: Reply<()>,
    },
    /// Say goodbye and end.
    Leave,
}

/// The answer to something that the network had a say in.
pub(crate) type Waited<T> = Result<T, WaitError>;

/// Why there is no such answer.
pub(crate) enum WaitError {
    Command(CommandError),
    Connect(ConnectError),
}

/// Reaches the loop from any thread.
#[derive(Clone)]
pub(crate) struct LoopHandle {
    queue: Sender<Command>,
    waker: Arc<mio::Waker>,
}

impl LoopHandle {
    /// A handle, and the queue's other end for the loop.
    pub(crate) fn new(waker: Arc<mio::Waker>) -> (Self, Receiver<Command>) {
        let (queue, commands) = channel();
        (Self { queue, waker }, commands)
    }

    /// Sends a command that has no answer. To a loop that has ended: nothing.
    pub(crate) fn send(&self, command: Command) {
        if self.queue.send(command).is_ok() {
            // Fails only if the loop is gone, or has been woken so often that it is awake.
            let _ = self.waker.wake();
        }
    }

    /// Sends a command and gives the other end of its reply.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Receiver<T> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply));
        answer
    }

    /// Sends a command and waits for its answer; `None` if the loop has ended.
    pub(crate) fn request<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Option<T> {
        self.ask(command).recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> (LoopHandle, Receiver<Command>, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker"));
        let (handle, commands) = LoopHandle::new(waker);
        (handle, commands, poll)
    }

    #[test]
    fn an_answer_reaches_who_asked() {
        let (handle, commands, mut poll) = handle();
        let asking =
            std::thread::spawn(move || handle.request(|reply| Command::Subscribe { events: sync_channel(1).0, reply }));
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, None).expect("woken");
        match commands.recv().expect("a command") {
            Command::Subscribe { reply, .. } => reply.send(()).expect("waiting"),
            _ => panic!("another command"),
        }
        assert_eq!(asking.join().expect("no panic"), Some(()));
    }

    #[test]
    fn a_loop_that_is_gone_leaves_nobody_waiting() {
        let (handle, commands, _poll) = handle();
        let answer = handle.ask(|reply| Command::Ticket { service: None, reply });
        drop(commands);
        assert!(answer.recv().is_err(), "a command that was never answered");
        assert!(handle.request(|reply| Command::Status { reply }).is_none(), "a command that nobody takes");
    }
}
