//! The loop: one thread that owns the node, the sockets and the clock.
//!
//! One [`Loop::turn`]: wait until the next deadline, at most [`WAIT_MAX`]; read the clock once; note what mio says;
//! do what programs ask; receive one batch per socket that has something; tell the node the time if a deadline came;
//! hear its events; visit connections that can move bytes; drain the node. Nothing is decided here: what the node says is carried out
//! (see `events.rs`), what programs ask is passed on (see `requests.rs`).
//!
//! It starts in [`Loop::start`], runs until the node has left, and ends early only if the operating system takes away
//! its poll. However it ends, dropping it closes the board, breaks off local connections and ends every stream.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use handfast_core::time::earliest;
use handfast_core::{Event, Instant, Node, Received, Role, ServiceName, SocketId};
use mio::{Events, Poll, Token, Waker};

use crate::Options;
use crate::board::{Board, CloseOnDrop};
use crate::clock::Clock;
use crate::command::{Command, LoopHandle};
use crate::connections::{Connections, Target};
use crate::forward::Batch;
use crate::lan::Lan;
use crate::listeners::Listeners;
use crate::network::Watch;
use crate::portmap::PortMap;
use crate::pump::CHUNK_LEN;
use crate::seldom::Seldom;
use crate::tcp::TcpInbox;
use crate::transmit::Outbox;
use crate::udp::{Arrival, Inbox, Sockets};
use crate::waiting::Waiting;
use crate::{entropy, save};

/// The loop wakes at least this often, to look after what sends no notice: sleep of the machine, the wall clock. Cheap
/// enough to be no load, often enough to be back soon after it was woken.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// A deadline nearer than this waits so long all the same: the operating system's waiting is no finer.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How long connecting to the program behind a service may take.
pub(crate) const TARGET_CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the node may take to say goodbye before the loop ends without.
pub(crate) const LEAVE_MAX: Duration = Duration::from_secs(2);
/// mio events taken per turn; more come with the next.
const EVENTS_PER_TURN: usize = 512;

const KIND_BITS: u32 = 3;
/// The waker, and what few sockets have a token each of their own.
const KIND_WAKER: usize = 0;
const KIND_UDP: usize = 1;
const KIND_LISTENER: usize = 2;
const KIND_CONNECTION: usize = 3;
const KIND_TCP: usize = 4;
const KIND_TCP_LISTENER: usize = 5;

/// Of all sockets for port mapping.
pub(crate) const PORT_MAP: Token = Token(1 << KIND_BITS | KIND_WAKER);
/// Of the notices of network changes.
const NETWORK: Token = Token(2 << KIND_BITS | KIND_WAKER);

fn udp_token(id: SocketId) -> Token {
    Token((id.0 as usize) << KIND_BITS | KIND_UDP)
}

/// Of a TCP connection that carries packets.
pub(crate) fn tcp_token(id: SocketId) -> Token {
    Token(((id.0 - SocketId::TCP_FIRST.0) as usize) << KIND_BITS | KIND_TCP)
}

pub(crate) fn tcp_listener_token(number: usize) -> Token {
    Token(number << KIND_BITS | KIND_TCP_LISTENER)
}

pub(crate) fn listener_token(number: usize) -> Token {
    Token(number << KIND_BITS | KIND_LISTENER)
}

pub(crate) fn connection_token(index: usize) -> Token {
    Token(index << KIND_BITS | KIND_CONNECTION)
}

/// Only io knows which port the system gave: it goes where the configuration left it open.
fn fill_in_ports(role: &mut Role, bound: &[SocketAddr]) {
    let Role::Supernode { advertise } = role else { return };
    if advertise.is_empty() {
        advertise.extend(bound.iter().filter(|address| !address.ip().is_unspecified()));
    }
    for address in advertise.iter_mut().filter(|address| address.port() == 0) {
        if let Some(same_family) = bound.iter().find(|bound| bound.is_ipv4() == address.is_ipv4()) {
            address.set_port(same_family.port());
        }
    }
}

/// Everything the thread owns.
pub(crate) struct Loop {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    clock: Clock,
    poll: Poll,
    mio_events: Events,
    commands: Receiver<Command>,
    /// Goes into the streams that are handed to programs.
    pub(crate) handle: LoopHandle,
    pub(crate) sockets: Sockets,
    inbox: Inbox,
    tcp_inbox: TcpInbox,
    batch: Batch,
    outbox: Outbox,
    pub(crate) listeners: Listeners,
    pub(crate) connections: Connections,
    pub(crate) services: BTreeMap<ServiceName, Target>,
    pub(crate) offers: u64,
    pub(crate) waiting: Waiting,
    pub(crate) subscribers: Vec<SyncSender<Event>>,
    pub(crate) scratch: Box<[u8]>,
    pub(crate) saver: save::Saver,
    entropy: entropy::Refresh,
    watch: Watch,
    pub(crate) port_map: PortMap,
    /// Announces the node while it is there.
    _lan: Option<Lan>,
    housekeeping: Instant,
    complaint: Seldom,
    /// The node is leaving; by this time the loop ends anyway.
    pub(crate) leaving: Option<Instant>,
    /// The node has left.
    pub(crate) left: bool,
    /// Dropped last of all.
    pub(crate) board: CloseOnDrop,
}

/// What a handle needs to know of a loop that started.
pub(crate) struct Started {
    pub(crate) handle: LoopHandle,
    pub(crate) board: Arc<Board>,
    pub(crate) listen: Vec<SocketAddr>,
}

impl Loop {
    /// Reads the state, binds the sockets, makes the node and starts the thread.
    pub(crate) fn start(mut options: Options) -> io::Result<Started> {
        let saved = options.state_file.as_deref().map(save::load).transpose()?.unwrap_or_default();
        let mut clock = Clock::start();
        let now = clock.now();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(KIND_WAKER))?);
        let (handle, commands) = LoopHandle::new(waker);
        let registry = || poll.registry().try_clone();
        let mut sockets = Sockets::new(registry()?, registry()?, udp_token, options.udp_proxy);
        sockets.takes_tcp = !matches!(options.config.role, Role::Leaf);
        sockets.bind_main(&options.listen)?;
        for address in &options.listen_tcp {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on TCP {address}: {error}"));
            sockets.tcp.listen(*address).map_err(named)?;
        }
        let listen: Vec<SocketAddr> = sockets.main().iter().map(|(_, address)| *address).collect();
        fill_in_ports(&mut options.config.role, &listen);

        let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let seed = entropy::fresh()?;
        let port_map = options.port_map && options.udp_proxy.is_none();
        let mut port_map = PortMap::new(port_map, &options.key, poll.registry().try_clone()?, handle.clone())?;
        let is_supernode = matches!(options.config.role, Role::Supernode { .. });
        let lan = if options.config.lan && options.udp_proxy.is_none() {
            Lan::start(options.key.peer_id(), is_supernode, &listen, handle.clone()).unwrap_or_else(|error| {
                tracing::info!(%error, "no LAN discovery");
                None
            })
        } else {
            None
        };
        let mut node =
            Node::new(now, clock.origin(), seed, options.key, options.config, saved.clone()).map_err(refused)?;
        if let Some(wall) = clock.wall(now) {
            node.handle_wall_clock(now, wall);
        }
        let mut watch = Watch::new(now, poll.registry(), NETWORK);
        if let Some(network) = watch.look_if_due(now, sockets.main()) {
            node.handle_network(now, &port_map.adopt(now, network));
        }
        if !options.bootstrap.is_empty() {
            node.join(now, &options.bootstrap)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("bootstrap: {error:?}")))?;
        }

        let board = Arc::new(Board::default());
        port_map.publish(&board);
        let started = Started { handle: handle.clone(), board: Arc::clone(&board), listen };
        let this = Self {
            node,
            now,
            clock,
            poll,
            mio_events: Events::with_capacity(EVENTS_PER_TURN),
            commands,
            handle,
            sockets,
            inbox: Inbox::new(options.udp_proxy),
            tcp_inbox: TcpInbox::new(),
            batch: Batch::new(),
            outbox: Outbox::new(),
            listeners: Listeners::default(),
            connections: Connections::default(),
            services: BTreeMap::new(),
            offers: 0,
            waiting: Waiting::default(),
            subscribers: Vec::new(),
            scratch: vec![0; CHUNK_LEN].into_boxed_slice(),
            saver: save::Saver::start(options.state_file, saved)?,
            entropy: entropy::Refresh::new(now),
            watch,
            port_map,
            _lan: lan,
            housekeeping: now + WAIT_MAX,
            complaint: Seldom::default(),
            leaving: None,
            left: false,
            board: CloseOnDrop(board),
        };
        std::thread::Builder::new().name("handfast".to_owned()).spawn(move || this.run())?;
        Ok(started)
    }

    fn run(mut self) {
        self.drain();
        while !self.is_over() {
            if let Err(error) = self.turn() {
                tracing::error!("the event loop ends: {error}");
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        (self.left && self.port_map.is_released()) || self.leaving.is_some_and(|until| self.now >= until)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.now = self.clock.now();
        self.take_hints();
        self.take_commands();
        self.receive();
        self.receive_tcp();
        self.tell_time();
        // Before the visits, so that they find what these datagrams brought, and know why a stream is gone.
        self.take_events();
        self.take_connections();
        self.connections.visit(&mut self.node, self.now, &mut self.scratch);
        self.drain();
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let listeners = self.listeners.next(self.now);
        let busy = self.connections.is_busy()
            || self.sockets.any_readable()
            || self.sockets.tcp.is_busy()
            || self.port_map.is_readable()
            || listeners.is_some_and(|at| at <= self.now);
        let timeout = if busy {
            Duration::ZERO
        } else {
            let mut next = earliest(self.node.poll_timeout(), listeners);
            next = earliest(next, self.leaving);
            next = earliest(next, self.connections.next_deadline());
            next = earliest(next, self.sockets.tcp.next_deadline());
            next = earliest(next, Some(self.watch.next_look()));
            next = earliest(next, self.port_map.poll_timeout());
            let until = earliest(next, Some(self.housekeeping)).unwrap_or(self.housekeeping);
            (until - self.now).clamp(WAIT_MIN, WAIT_MAX)
        };
        match self.poll.poll(&mut self.mio_events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Notes what mio says. Events are hints: acting on one too many harms nothing.
    fn take_hints(&mut self) {
        for event in &self.mio_events {
            let Token(token) = event.token();
            let number = token >> KIND_BITS;
            let broken = event.is_error();
            let readable = event.is_readable() || event.is_read_closed() || broken;
            let writable = event.is_writable() || event.is_write_closed() || broken;
            match token & ((1 << KIND_BITS) - 1) {
                KIND_UDP => {
                    let id = SocketId(number as u32);
                    if readable {
                        self.sockets.set_readable(id);
                    }
                    if writable {
                        self.sockets.set_writable(id);
                    }
                }
                KIND_TCP => {
                    let id = SocketId(SocketId::TCP_FIRST.0 + number as u32);
                    self.sockets.tcp.on_hint(id, readable, writable);
                }
                KIND_TCP_LISTENER => self.sockets.tcp.on_listener_hint(number),
                KIND_LISTENER => self.listeners.set_ready(number),
                KIND_CONNECTION => {
                    self.connections.on_socket(number, readable, writable, broken, &mut self.node, self.now);
                }
                _ if event.token() == PORT_MAP => self.port_map.set_readable(),
                _ if event.token() == NETWORK => self.watch.on_notice(self.now),
                // The waker: commands are looked at in every turn.
                _ => {}
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.on_command(command);
        }
    }

    /// One batch from each socket that has something, so that no socket starves another.
    fn receive(&mut self) {
        let mut last = None;
        while let Some(id) = self.sockets.next_readable(last) {
            last = Some(id);
            let count = self.sockets.receive(id, &mut self.inbox);
            for arrival in self.inbox.arrivals(id, count) {
                take_train(&mut self.node, &mut self.sockets, &mut self.batch, self.now, arrival);
            }
            let sockets = &mut self.sockets;
            self.batch.flush(|path, bytes, stride| sockets.forward(path, bytes, stride));
        }
    }

    /// What is new with TCP connections: opened, come in, one read from each that has something, ended.
    fn receive_tcp(&mut self) {
        for (request, result) in self.sockets.tcp.opened(self.now) {
            self.node.handle_socket(self.now, request, result);
        }
        for (id, remote) in self.sockets.tcp.accept(self.now) {
            self.node.handle_connection(self.now, id, remote);
        }
        let mut last = None;
        while let Some(id) = self.sockets.tcp.next_readable(last) {
            last = Some(id);
            let Some(path) = self.sockets.tcp.receive(id, &mut self.tcp_inbox) else { continue };
            let (node, sockets, batch, now) = (&mut self.node, &mut self.sockets, &mut self.batch, self.now);
            self.tcp_inbox.for_each(|data| {
                take_train(node, sockets, batch, now, Arrival { path, stride: data.len(), data });
            });
            let sockets = &mut self.sockets;
            self.batch.flush(|path, bytes, stride| sockets.forward(path, bytes, stride));
        }
        for id in self.sockets.tcp.take_ended() {
            self.node.handle_socket_closed(self.now, id);
        }
    }

    /// Deadlines: the node's and our own.
    fn tell_time(&mut self) {
        if let Some(wall) = self.clock.wall(self.now) {
            self.node.handle_wall_clock(self.now, wall);
        }
        if let Some(fresh) = self.entropy.take(self.now) {
            self.node.handle_entropy(&fresh);
        }
        if self.clock.slept(self.now) {
            tracing::info!("the machine slept; looking whom it can still reach");
            self.watch.on_resume(self.now);
        }
        if let Some(network) = self.watch.look_if_due(self.now, self.sockets.main()) {
            tracing::info!("the network of this host changed");
            self.node.handle_network(self.now, &self.port_map.adopt(self.now, network));
        }
        if self.now >= self.housekeeping {
            self.housekeeping = self.now + WAIT_MAX;
            self.keep_house();
        }
        if let Some(network) = self.port_map.turn(self.now, &self.board.0) {
            self.node.handle_network(self.now, &network);
        }
        self.connections.give_up(&mut self.node, self.now);
        if self.node.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.node.handle_timeout(self.now);
        }
    }

    /// What sends no notice is looked at now and then.
    fn keep_house(&mut self) {
        self.sockets.refresh();
        self.waiting.forget(self.now);
        let tcp_full = std::mem::take(&mut self.sockets.tcp.full);
        if tcp_full > 0 {
            tracing::debug!(tcp_full, "packets were dropped in the last seconds: TCP connections did not take them");
        }
        let lost = std::mem::take(&mut self.sockets.lost);
        if lost.send_errors + lost.forward_full + lost.receive_errors > 0
            && let Some(more) = self.complaint.pass(self.now)
        {
            tracing::info!(
                send_errors = lost.send_errors,
                forward_full = lost.forward_full,
                receive_errors = lost.receive_errors,
                more,
                "datagrams were lost at the UDP sockets in the last seconds"
            );
        }
    }

    /// New connections of local listeners.
    fn take_connections(&mut self) {
        for (socket, peer, service) in self.listeners.accept(self.now) {
            self.on_local_connection(socket, peer, &service);
        }
    }

    /// Carries out what the node wants, until it wants nothing more.
    fn drain(&mut self) {
        loop {
            self.outbox.send(&mut self.node, &mut self.sockets, self.now);
            if !self.take_events() {
                break;
            }
        }
        self.sockets.tcp.flush();
    }

    /// Carries out what the node says; whether it said anything.
    fn take_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.node.poll_event() {
            self.on_event(event);
            any = true;
        }
        any
    }

    /// mio's registry.
    pub(crate) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }
}

/// Hands a received train to the node, and sends on what a relay forwards.
fn take_train(node: &mut Node, sockets: &mut Sockets, batch: &mut Batch, now: Instant, arrival: Arrival<'_>) {
    let mut rest = arrival.data;
    while !rest.is_empty() {
        let (used, verdict) = node.handle_datagrams(now, arrival.path, arrival.stride, rest);
        debug_assert!(used > 0, "a verdict is about at least one datagram");
        match verdict {
            Received::Consumed => {}
            Received::Forward { path, range, stride } => {
                let bytes = rest.get(range).unwrap_or_default();
                batch.push(path, bytes, stride, |path, bytes, stride| sockets.forward(path, bytes, stride));
            }
            Received::Dropped(reason) => tracing::trace!(?reason, "datagrams dropped"),
        }
        let used = if used == 0 { rest.len() } else { used.min(rest.len()) };
        rest = rest.split_at_mut(used).1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_in_the_advertised_address_becomes_the_bound_one() {
        let bound = ["192.0.2.1:4000", "0.0.0.0:5000", "[2001:db8::1]:6000"].map(|text| text.parse().expect("address"));
        let filled = |advertise: &[&str]| {
            let advertise = advertise.iter().map(|text| text.parse().expect("address")).collect();
            let mut role = Role::Supernode { advertise };
            fill_in_ports(&mut role, &bound);
            match role {
                Role::Supernode { advertise } => advertise.iter().map(ToString::to_string).collect::<Vec<_>>(),
                Role::Leaf | Role::Auto => panic!("another role"),
            }
        };
        assert_eq!(filled(&[]), ["192.0.2.1:4000", "[2001:db8::1]:6000"]);
        assert_eq!(filled(&["203.0.113.5:0", "203.0.113.5:9"]), ["203.0.113.5:4000", "203.0.113.5:9"]);
        assert_eq!(filled(&["[2001:db8::2]:0"]), ["[2001:db8::2]:6000"]);
    }
}
