//! What programs want of the node, carried out; and what the node says to programs, carried to them.
//!
//! [`Programs`] holds the tables in between: streams in use here, local listeners, services on offer, who waits for an
//! answer, who subscribed, and the board that all handles read. It is handed a [`Wish`] or an [`Event`] at a time
//! ([`Programs::on_wish`], [`Programs::on_event`]) and passes on what the core has to decide. Once per turn it visits
//! the streams that can move bytes ([`Programs::visit`]). Dropping it breaks off local connections and ends every
//! stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::portmap::Report;
use handfast_core::time::earliest;
use handfast_core::{Event, Instant, Node, PeerId, ServiceName, StreamEnd, StreamKey};
use mio::Registry;

use super::bell::Bell;
use super::board::Board;
use super::command::{Wish, answer};
use super::connections::{Connections, User};
use super::exchange::exchange;
use super::offers::{Offers, Target};
use super::subscription::Subscribers;
use super::tokens::{self, Source};
use super::waiting::Waiting;
use crate::api::Pong;
use crate::local::{CHUNK_LEN, Carried, Listeners, Local, LocalSocket, Pump};

/// How long connecting to the program behind a service may take.
const TARGET_CONNECT_MAX: Duration = Duration::from_secs(10);

/// All that the loop knows of programs.
pub(super) struct Programs {
    registry: Registry,
    /// Goes into the streams that are handed to programs.
    bell: Bell,
    connections: Connections,
    listeners: Listeners,
    offers: Offers,
    waiting: Waiting,
    subscribers: Subscribers,
    scratch: Box<[u8]>,
    board: Arc<Board>,
}

impl Programs {
    /// Nobody wants anything yet.
    pub(super) fn new(registry: Registry, bell: Bell, board: Arc<Board>) -> Self {
        Self {
            registry,
            bell,
            connections: Connections::default(),
            listeners: Listeners::default(),
            offers: Offers::default(),
            waiting: Waiting::default(),
            subscribers: Subscribers::default(),
            scratch: vec![0; CHUNK_LEN].into_boxed_slice(),
            board,
        }
    }

    /// Carries out what a program asks for.
    pub(super) fn on_wish(&mut self, node: &mut Node, now: Instant, wish: Wish) {
        match wish {
            Wish::Join { known, reply } => answer(&reply, node.join(now, &known)),
            Wish::Learn { ticket, reply } => answer(&reply, node.learn(now, &ticket)),
            Wish::Expose { service, target, access, reply } => {
                let offered = node.offer(now, service, access);
                if offered.is_ok() {
                    self.offers.expose(service, target);
                }
                answer(&reply, offered);
            }
            Wish::Offer { service, access, incoming, reply } => {
                let offered = node.offer(now, service, access);
                answer(&reply, offered.map(|()| self.offers.offer(service, incoming)));
            }
            Wish::Withdraw { service, offer } => {
                if self.offers.withdraw(&service, offer) {
                    node.withdraw(now, &service);
                }
            }
            Wish::Listen { listener, peer, service, reply } => {
                answer(&reply, self.listeners.add(listener, peer, service, &self.registry, tokens::listener));
            }
            Wish::CloseListener { listener } => self.listeners.close(listener, &self.registry),
            Wish::Open { peer, service, reply } => {
                let opened = node.open(now, peer, &service).map(|key| {
                    let (program, end) = exchange(key, peer, false, self.bell.clone());
                    self.connections.add(key, User::Program(end));
                    program
                });
                answer(&reply, opened);
            }
            Wish::Connect { peer, patience, reply } => match node.connect(now, peer) {
                Err(error) => answer(&reply, Err(error.into())),
                Ok(()) => match node.path_of(&peer) {
                    Some((path, _)) => answer(&reply, Ok(path)),
                    None => self.waiting.for_link(peer, now + patience, reply),
                },
            },
            Wish::Ping { peer, patience, reply } => match node.ping(now, peer) {
                Ok(sequence) => self.waiting.for_pong(peer, sequence, now + patience, reply),
                Err(error) => answer(&reply, Err(error.into())),
            },
            Wish::Disconnect { peer, reply } => {
                let cut = node.disconnect(now, &peer);
                self.waiting.on_cut(peer);
                answer(&reply, cut);
            }
            Wish::SendDatagram { peer, data, reply } => answer(&reply, node.send_datagram(now, peer, &data)),
            Wish::PathOf { peer, reply } => answer(&reply, node.path_of(&peer)),
            Wish::StatusOf { peer, reply } => answer(&reply, node.peer_status(now, &peer)),
            Wish::Status { reply } => answer(&reply, node.status(now)),
            Wish::Ticket { service, reply } => answer(&reply, node.ticket(service)),
            Wish::Subscribe { reply } => answer(&reply, self.subscribers.add()),
            Wish::Splice { stream, socket, reply } => answer(&reply, self.splice(node, now, stream, socket)),
        }
    }

    /// Carries on what the node says.
    pub(super) fn on_event(&mut self, node: &mut Node, now: Instant, event: Event) {
        self.subscribers.publish(&event);
        match event {
            Event::Ready => self.board.set_ready(true),
            Event::Homeless => self.board.set_ready(false),
            Event::PathChanged { peer, path } => self.waiting.on_link(peer, path),
            Event::ConnectFailed { peer, error } => self.waiting.on_failed(peer, error),
            Event::Pong { peer, sequence, rtt, path } => self.waiting.on_pong(peer, sequence, Pong::new(rtt, path)),
            Event::StreamIncoming { stream, peer, service } => self.on_incoming(node, now, stream, peer, &service),
            Event::StreamOpened { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(end)) => end.on_opened(),
                Some(User::Pump(_)) | None => {}
            },
            Event::Readable { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(end)) => end.on_readable(),
                Some(User::Pump(pump)) => pump.on_readable(),
                None => {}
            },
            Event::Writable { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(end)) => end.on_writable(),
                Some(User::Pump(pump)) => pump.on_writable(),
                None => {}
            },
            Event::StreamStopped { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(end)) => end.on_stopped(),
                Some(User::Pump(pump)) => pump.on_stopped(),
                None => {}
            },
            Event::StreamEnded { stream, end: why } => match self.connections.remove(stream) {
                Some(User::Program(end)) => end.on_ended(why),
                Some(User::Pump(_)) => tracing::debug!(end = ?why, "a local connection is broken off"),
                None => {}
            },
            Event::Datagram { peer } => self.on_datagram(node, peer),
            // For subscribers, or for the loop's other parts.
            _ => {}
        }
    }

    /// Port mapping has come to something new.
    pub(super) fn set_port_mapping(&self, report: Report) {
        self.board.set_port_mapping(report);
    }

    /// A program rang for this stream.
    pub(super) fn on_rung(&mut self, stream: StreamKey) {
        let _ = self.connections.call_by_key(stream);
    }

    /// mio has news of a local listener.
    pub(super) fn on_listener(&mut self, number: usize) {
        self.listeners.set_ready(number);
    }

    /// mio has news of a local connection; `broken`: it reports an error.
    pub(super) fn on_connection(
        &mut self,
        node: &mut Node,
        now: Instant,
        index: usize,
        readable: bool,
        writable: bool,
        broken: bool,
    ) {
        self.connections.on_socket(index, readable, writable, broken, node, now);
    }

    /// Takes new connections of local listeners.
    pub(super) fn accept(&mut self, node: &mut Node, now: Instant) {
        for (socket, peer, service) in self.listeners.accept(now) {
            self.on_local_connection(node, now, socket, peer, &service);
        }
    }

    /// Visits the streams that may be able to move bytes.
    pub(super) fn visit(&mut self, node: &mut Node, now: Instant) {
        self.connections.visit(node, now, &mut self.scratch);
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.connections.is_busy() || self.listeners.next(now).is_some_and(|at| at <= now)
    }

    /// When there is something to do in any case.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        earliest(self.listeners.next(now), self.connections.next_deadline())
    }

    /// Gives up local connections that did not come up in time.
    pub(super) fn give_up(&mut self, node: &mut Node, now: Instant) {
        self.connections.give_up(node, now);
    }

    /// Done now and then.
    pub(super) fn keep_house(&mut self, now: Instant) {
        self.waiting.forget(now);
    }

    /// A peer opened a stream: to the program, or the address, behind the service.
    fn on_incoming(&mut self, node: &mut Node, now: Instant, key: StreamKey, peer: PeerId, service: &ServiceName) {
        let taken = match self.offers.target(service) {
            Some(Target::Tcp(target)) => {
                let target = *target;
                Local::connect(target).and_then(|socket| {
                    self.add_pump(Pump::connecting(key, socket))?;
                    self.connections.expect_connected(key, now + TARGET_CONNECT_MAX);
                    Ok(())
                })
            }
            Some(Target::Program { incoming, .. }) => {
                let (program, end) = exchange(key, peer, true, self.bell.clone());
                match incoming.try_send(program) {
                    Ok(()) if node.accept(now, key).is_ok() => {
                        self.connections.add(key, User::Program(end));
                        Ok(())
                    }
                    // Gone again; the program will see a stream that ended.
                    Ok(()) => Ok(()),
                    Err(_) => Err(io::Error::other("the program does not take its streams")),
                }
            }
            None => Err(io::Error::other("no program is behind the service")),
        };
        if let Err(error) = taken {
            tracing::debug!(%service, %error, "a stream is refused");
            let _ = node.refuse(now, key, StreamEnd::Unavailable);
        }
    }

    fn on_datagram(&mut self, node: &mut Node, peer: PeerId) {
        while let Some(len) = node.recv_datagram(peer, &mut self.scratch) {
            let data = self.scratch.get(..len).unwrap_or(&self.scratch).to_vec();
            self.board.push_datagram(peer, data);
        }
    }

    /// A connection to a local listener: a new stream for it. Bytes may flow at once; if the peer refuses, the local
    /// program sees a reset.
    fn on_local_connection(
        &mut self,
        node: &mut Node,
        now: Instant,
        socket: mio::net::TcpStream,
        peer: PeerId,
        service: &ServiceName,
    ) {
        let socket = Local::tcp(socket);
        let key = match node.open(now, peer, service) {
            Ok(key) => key,
            Err(error) => {
                tracing::debug!(%error, "a local connection is refused");
                socket.close_hard();
                return;
            }
        };
        if let Err(error) = self.add_pump(Pump::new(key, socket, Carried::default())) {
            tracing::debug!(%error, "a local connection cannot be watched");
            let _ = node.reset(now, key, 0);
            let _ = node.stop(now, key, 0);
        }
    }

    /// Registers a pump's socket and has it visited.
    fn add_pump(&mut self, mut pump: Pump) -> io::Result<()> {
        let token = Source::Connection(self.connections.next_index()).token();
        pump.socket_mut().register(&self.registry, token)?;
        self.connections.add(pump.key(), User::Pump(pump));
        Ok(())
    }

    /// Puts a pump in the place of a program.
    fn splice(&mut self, node: &mut Node, now: Instant, key: StreamKey, socket: LocalSocket) -> io::Result<()> {
        let socket = Local::adopt(socket)?;
        match self.connections.remove(key) {
            Some(User::Program(end)) => {
                let spliced = self.add_pump(Pump::new(key, socket, end.into_carried()));
                if spliced.is_err() {
                    let _ = node.reset(now, key, 0);
                    let _ = node.stop(now, key, 0);
                }
                spliced
            }
            other => {
                if let Some(pump) = other {
                    self.connections.add(key, pump);
                }
                socket.close_hard();
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the stream has ended"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use handfast_core::{Access, CommandError, Config, Saved, SecretKey};
    use mio::{Poll, Waker};

    use super::*;
    use crate::api::{Notice, OpenError};
    use crate::driver::command::Reply;

    const NOW: Instant = Instant::ZERO;

    /// A node that nobody can reach, and what stands between it and programs.
    struct Alone {
        node: Node,
        programs: Programs,
        board: Arc<Board>,
        id: PeerId,
        _poll: Poll,
        _rung: Receiver<StreamKey>,
    }

    impl Alone {
        fn new() -> Self {
            let poll = Poll::new().expect("poll");
            let (bell, rung) = Bell::new(Arc::new(Waker::new(poll.registry(), Source::Waker.token()).expect("waker")));
            let board = Arc::new(Board::default());
            let registry = poll.registry().try_clone().expect("registry");
            let programs = Programs::new(registry, bell, Arc::clone(&board));
            let key = SecretKey::from_bytes(&[1; 32]);
            let id = key.peer_id();
            let origin = std::time::Instant::now();
            let node = Node::new(NOW, origin, [0; 32], key, Config::leaf(), Saved::default()).expect("a node");
            Self { node, programs, board, id, _poll: poll, _rung: rung }
        }

        fn ask<T>(&mut self, wish: impl FnOnce(Reply<T>) -> Wish) -> Receiver<T> {
            let (reply, answer) = sync_channel(1);
            self.programs.on_wish(&mut self.node, NOW, wish(reply));
            answer
        }

        fn hear(&mut self, event: Event) {
            self.programs.on_event(&mut self.node, NOW, event);
        }
    }

    fn peer() -> PeerId {
        SecretKey::from_bytes(&[2; 32]).peer_id()
    }

    fn service() -> ServiceName {
        "echo".parse().expect("a name")
    }

    #[test]
    fn what_the_core_refuses_is_answered_at_once() {
        let mut alone = Alone::new();
        let own = alone.id;
        let opened = alone.ask(|reply| Wish::Open { peer: own, service: service(), reply });
        assert!(matches!(opened.try_recv(), Ok(Err(CommandError::OwnId))));
        let pinged = alone.ask(|reply| Wish::Ping { peer: own, patience: Duration::MAX, reply });
        assert_eq!(pinged.try_recv(), Ok(Err(OpenError::Command(CommandError::OwnId))));
        let cut = alone.ask(|reply| Wish::Disconnect { peer: peer(), reply });
        assert_eq!(cut.try_recv(), Ok(Err(CommandError::NotConnected)));
        assert!(!alone.programs.is_busy(NOW));
    }

    #[test]
    fn a_stream_that_is_opened_is_visited_and_ends_with_the_word_of_the_core() {
        let mut alone = Alone::new();
        let opened = alone.ask(|reply| Wish::Open { peer: peer(), service: service(), reply });
        let program = opened.try_recv().expect("at once").expect("opened");
        assert!(alone.programs.is_busy(NOW), "it is due for a visit");
        // This node knows nobody to ask.
        while let Some(event) = alone.node.poll_event() {
            alone.hear(event);
        }
        assert_eq!(program.ended(), Some(StreamEnd::Connect(handfast_core::ConnectError::NoSupernode)));
        alone.programs.visit(&mut alone.node, NOW);
        assert!(!alone.programs.is_busy(NOW), "nothing is left of it");
        assert_eq!(program.read(&mut [0; 1]).expect_err("ended").kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn who_waits_hears_of_what_it_waits_for_and_subscribers_of_all_of_it() {
        let mut alone = Alone::new();
        let subscription = alone.ask(|reply| Wish::Subscribe { reply }).try_recv().expect("at once");
        let linked = alone.ask(|reply| Wish::Connect { peer: peer(), patience: Duration::MAX, reply });
        let failed = Event::ConnectFailed { peer: peer(), error: handfast_core::ConnectError::NoSupernode };
        alone.hear(failed.clone());
        assert!(matches!(linked.try_recv(), Ok(Err(OpenError::Ended(StreamEnd::Connect(_))))));
        assert_eq!(subscription.next(None), Ok(Notice::Event(failed)));
        alone.hear(Event::Ready);
        assert_eq!(alone.board.wait_ready(Duration::ZERO), Ok(()));
        alone.hear(Event::Homeless);
        assert!(alone.board.wait_ready(Duration::ZERO).is_err());
    }

    #[test]
    fn an_incoming_stream_goes_to_the_program_that_offers_or_to_nobody() {
        let mut alone = Alone::new();
        let (incoming, streams) = sync_channel(1);
        let offered = alone.ask(|reply| Wish::Offer { service: service(), access: Access::Any, incoming, reply });
        assert_eq!(offered.try_recv(), Ok(Ok(1)));
        // The core knows no such stream any more: the program sees one that ended.
        alone.hear(Event::StreamIncoming { stream: StreamKey(9), peer: peer(), service: service() });
        let program = streams.try_recv().expect("a stream");
        assert_eq!((program.key(), program.peer()), (StreamKey(9), peer()));
        assert_eq!(program.read(&mut [0; 1]).expect_err("gone").kind(), io::ErrorKind::ConnectionAborted);
        alone.programs.on_wish(&mut alone.node, NOW, Wish::Withdraw { service: service(), offer: Some(1) });
        alone.hear(Event::StreamIncoming { stream: StreamKey(10), peer: peer(), service: service() });
        assert!(streams.try_recv().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_for_a_stream_that_ended_is_closed() {
        use std::io::Read as _;
        let mut alone = Alone::new();
        let (socket, mut other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let socket = LocalSocket::Unix(socket);
        let spliced = alone.ask(|reply| Wish::Splice { stream: StreamKey(9), socket, reply });
        let error = spliced.try_recv().expect("at once").expect_err("no such stream");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(other.read(&mut [0; 1]).expect("the end"), 0);
    }
}
