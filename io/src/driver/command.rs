//! What the loop is asked and told from other threads, and how it gets there.
//!
//! A [`LoopHandle`] puts a [`Command`] into a queue and wakes the loop. There are three kinds: a [`Wish`] of a program,
//! [`News`] of a thread that looks after something outside, and the word to leave. Nearly every wish carries a
//! [`Reply`] that its sender waits for, so the queue is as long as there are threads asking; the others are sent at
//! most once per listener, offer or endpoint. A loop that has ended, or panicked, drops the queue and the replies in
//! it: whoever waits learns that at once.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use handfast_core::portmap::UpnpAnswer;
use handfast_core::{Access, CommandError, PathInfo, PeerId, PeerStatus, ServiceName, Status, StreamKey, Ticket};

use super::exchange::ProgramEnd;
use super::subscription::Subscription;
use crate::api::{OpenError, Pong};
use crate::host::LanNews;
use crate::local::LocalSocket;

/// Where the answer to a wish goes. Its channel has room for it, so the loop never waits.
pub(crate) type Reply<T> = SyncSender<T>;

/// Answers. That nobody waits for it any more is no error.
pub(super) fn answer<T>(reply: &Reply<T>, value: T) {
    let _ = reply.send(value);
}

/// Where the loop puts accepted streams of one service.
pub(crate) type Incoming = SyncSender<ProgramEnd>;

/// What a program wants.
pub(crate) enum Wish {
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
        listener: TcpListener,
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
        reply: Reply<Result<ProgramEnd, CommandError>>,
    },
    Connect {
        peer: PeerId,
        patience: Duration,
        reply: Reply<Result<PathInfo, OpenError>>,
    },
    Ping {
        peer: PeerId,
        patience: Duration,
        reply: Reply<Result<Pong, OpenError>>,
    },
    Disconnect {
        peer: PeerId,
        reply: Reply<Result<(), CommandError>>,
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
    StatusOf {
        peer: PeerId,
        reply: Reply<Option<PeerStatus>>,
    },
    Status {
        reply: Reply<Status>,
    },
    Ticket {
        service: Option<ServiceName>,
        reply: Reply<Ticket>,
    },
    Subscribe {
        reply: Reply<Subscription>,
    },
    Splice {
        stream: StreamKey,
        socket: LocalSocket,
        reply: Reply<io::Result<()>>,
    },
}

/// What other threads of io found out.
pub(super) enum News {
    /// UPnP did what port mapping ordered for this address.
    Upnp { internal: SocketAddr, answer: UpnpAnswer },
    /// About the LAN. Answered when the core knows, so that a crowded LAN meets back-pressure.
    Lan { news: LanNews, reply: Reply<()> },
}

/// One thing for the loop to do.
pub(super) enum Command {
    Wish(Wish),
    News(News),
    /// Say goodbye and end.
    Leave,
}

/// Reaches the loop from any thread.
#[derive(Clone)]
pub(crate) struct LoopHandle {
    queue: Sender<Command>,
    waker: Arc<mio::Waker>,
}

impl LoopHandle {
    /// A handle, and the queue's other end for the loop.
    pub(super) fn new(waker: Arc<mio::Waker>) -> (Self, Receiver<Command>) {
        let (queue, commands) = channel();
        (Self { queue, waker }, commands)
    }

    /// Asks for something that has no answer.
    pub(crate) fn wish(&self, wish: Wish) {
        self.send(Command::Wish(wish));
    }

    /// Asks for something, and gives the other end of its reply.
    pub(crate) fn ask<T>(&self, wish: impl FnOnce(Reply<T>) -> Wish) -> Receiver<T> {
        let (reply, answer) = sync_channel(1);
        self.wish(wish(reply));
        answer
    }

    /// Asks for something and waits for the answer; `None` if the loop has ended.
    pub(crate) fn request<T>(&self, wish: impl FnOnce(Reply<T>) -> Wish) -> Option<T> {
        self.ask(wish).recv().ok()
    }

    /// Has the node say goodbye and the loop end.
    pub(crate) fn leave(&self) {
        self.send(Command::Leave);
    }

    /// Tells what UPnP answered.
    pub(super) fn on_upnp(&self, internal: SocketAddr, answer: UpnpAnswer) {
        self.send(Command::News(News::Upnp { internal, answer }));
    }

    /// Tells what is new on the LAN, and waits until the core knows; false if the loop has ended.
    pub(super) fn on_lan(&self, news: LanNews) -> bool {
        let (reply, known) = sync_channel(1);
        self.send(Command::News(News::Lan { news, reply }));
        known.recv().is_ok()
    }

    /// To a loop that has ended: nothing.
    fn send(&self, command: Command) {
        if self.queue.send(command).is_ok() {
            // Fails only if the loop is gone, or has been woken so often that it is awake.
            let _ = self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        handfast_core::SecretKey::from_bytes(&[1; 32]).peer_id()
    }

    fn handle() -> (LoopHandle, Receiver<Command>, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker"));
        let (handle, commands) = LoopHandle::new(waker);
        (handle, commands, poll)
    }

    #[test]
    fn an_answer_reaches_who_asked() {
        let (handle, commands, mut poll) = handle();
        let asking = std::thread::spawn(move || handle.request(|reply| Wish::PathOf { peer: peer(), reply }));
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, None).expect("woken");
        match commands.recv().expect("a command") {
            Command::Wish(Wish::PathOf { reply, .. }) => reply.send(None).expect("waiting"),
            _ => panic!("another command"),
        }
        assert_eq!(asking.join().expect("no panic"), Some(None));
    }

    #[test]
    fn a_loop_that_is_gone_leaves_nobody_waiting() {
        let (handle, commands, _poll) = handle();
        let answer = handle.ask(|reply| Wish::Ticket { service: None, reply });
        drop(commands);
        assert!(answer.recv().is_err(), "a command that was never answered");
        assert!(handle.request(|reply| Wish::Status { reply }).is_none(), "a command that nobody takes");
    }

    #[test]
    fn news_of_the_lan_wait_until_they_are_known() {
        let (handle, commands, _poll) = handle();
        let telling = std::thread::spawn({
            let handle = handle.clone();
            move || handle.on_lan(LanNews::Gone(peer()))
        });
        match commands.recv().expect("a command") {
            Command::News(News::Lan { news: LanNews::Gone(_), reply }) => answer(&reply, ()),
            _ => panic!("another command"),
        }
        assert!(telling.join().expect("no panic"));
        drop(commands);
        assert!(!handle.on_lan(LanNews::Gone(peer())), "nobody listens any more");
    }
}
