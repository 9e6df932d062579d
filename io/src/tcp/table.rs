//! All TCP connections by number, those being opened, and the listeners.
//!
//! [`Tcp`] is told of hints ([`Tcp::on_hint`]) and asked in each turn what is new: opened ([`Tcp::opened`]), come in
//! ([`Tcp::accept`]), ended ([`Tcp::take_ended`]). Packets that a connection does not take are dropped and counted.
//! When the process has no file descriptors left, accepting rests for [`PAUSE`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use handfast_core::wire::address::canonical;
use handfast_core::{Instant, Path, SocketId, SocketRefused, SocketRequest};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connection, TcpInbox};
use crate::host::Seldom;

/// Connecting is given up after this.
const CONNECT_MAX: Duration = Duration::from_secs(4);
/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 128;
/// Connections taken per listener and turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long accepting rests after an error that will not go away by itself: no file descriptors, above all.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection being opened.
struct Connecting {
    socket: mio::net::TcpStream,
    remote: SocketAddr,
    request: SocketRequest,
    until: Instant,
    has_news: bool,
}

/// What became of a request for a connection: its number and our end's address.
type Opened = Result<(SocketId, SocketAddr), SocketRefused>;

struct Listener {
    socket: mio::net::TcpListener,
    ready: bool,
}

/// All of it.
pub(crate) struct Tcp {
    registry: Registry,
    token: fn(SocketId) -> Token,
    listener_token: fn(usize) -> Token,
    listeners: Vec<Listener>,
    connections: BTreeMap<SocketId, Connection>,
    connecting: BTreeMap<SocketId, Connecting>,
    /// Those that may have something for us.
    readable: BTreeSet<SocketId>,
    /// Those with frames that the kernel has not been given.
    unflushed: BTreeSet<SocketId>,
    /// Those that ended, for the core to hear of.
    ended: Vec<SocketId>,
    next: u32,
    paused_until: Option<Instant>,
    complaint: Seldom,
    /// Packets dropped since a connection did not take them.
    full: u64,
}

impl Tcp {
    /// None yet; the functions give connections and listeners the tokens they are registered under.
    pub(crate) fn new(registry: Registry, token: fn(SocketId) -> Token, listener_token: fn(usize) -> Token) -> Self {
        Self {
            registry,
            token,
            listener_token,
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            connecting: BTreeMap::new(),
            readable: BTreeSet::new(),
            unflushed: BTreeSet::new(),
            ended: Vec::new(),
            next: SocketId::TCP_FIRST.0,
            paused_until: None,
            complaint: Seldom::default(),
            full: 0,
        }
    }

    fn number(&mut self) -> io::Result<SocketId> {
        let id = SocketId(self.next);
        self.next = self.next.checked_add(1).ok_or_else(|| io::Error::other("all numbers of connections are used"))?;
        Ok(id)
    }

    /// Takes connections at an address.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // As std does: connections of the last run must not keep the port from this one.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let mut socket = mio::net::TcpListener::from_std(socket.into());
        self.registry.register(&mut socket, (self.listener_token)(self.listeners.len()), Interest::READABLE)?;
        self.listeners.push(Listener { socket, ready: true });
        Ok(())
    }

    /// Begins to open a connection; [`Tcp::opened`] tells what came of it.
    pub(crate) fn connect(&mut self, now: Instant, request: SocketRequest, remote: SocketAddr) -> io::Result<()> {
        let id = self.number()?;
        let mut socket = mio::net::TcpStream::connect(remote)?;
        self.registry.register(&mut socket, (self.token)(id), Interest::READABLE | Interest::WRITABLE)?;
        let until = now + CONNECT_MAX;
        self.connecting.insert(id, Connecting { socket, remote, request, until, has_news: false });
        Ok(())
    }

    /// mio has news of a connection.
    pub(crate) fn on_hint(&mut self, id: SocketId, readable: bool, writable: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if readable {
                connection.set_readable();
                self.readable.insert(id);
            }
            if writable && connection.set_writable() {
                self.unflushed.insert(id);
            }
        } else if let Some(connecting) = self.connecting.get_mut(&id) {
            connecting.has_news = true;
        }
    }

    /// mio has news of a listener.
    pub(crate) fn on_listener_hint(&mut self, number: usize) {
        if let Some(listener) = self.listeners.get_mut(number) {
            listener.ready = true;
        }
    }

    /// Whether there is something to do at once.
    pub(crate) fn is_busy(&self) -> bool {
        !self.readable.is_empty()
            || !self.ended.is_empty()
            || (self.paused_until.is_none() && self.listeners.iter().any(|listener| listener.ready))
    }

    /// When there is something to do in any case.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.connecting.values().map(|connecting| connecting.until).chain(self.paused_until).min()
    }

    /// Connections that have been opened, or not, since the last call.
    pub(crate) fn opened(&mut self, now: Instant) -> Vec<(SocketRequest, Opened)> {
        let mut results = Vec::new();
        let due = |c: &Connecting| c.has_news || c.until <= now;
        let ids: Vec<SocketId> = self.connecting.iter().filter(|(_, c)| due(c)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(mut connecting) = self.connecting.remove(&id) else { continue };
            connecting.has_news = false;
            // connect(2): it has failed if there is an error, and is there if there is a peer.
            let error = connecting.socket.take_error().ok().flatten();
            let there = connecting.socket.peer_addr().is_ok();
            if error.is_none() && !there && connecting.until > now {
                self.connecting.insert(id, connecting);
                continue;
            }
            let Connecting { socket, remote, request, .. } = connecting;
            match (error, there, socket.local_addr()) {
                (None, true, Ok(local)) => {
                    self.add(id, socket, remote);
                    results.push((request, Ok((id, local))));
                }
                (error, ..) => {
                    tracing::debug!(%remote, ?error, "no TCP connection");
                    results.push((request, Err(SocketRefused)));
                }
            }
        }
        results
    }

    /// Connections that came in since the last call, and where from.
    pub(crate) fn accept(&mut self, now: Instant) -> Vec<(SocketId, SocketAddr)> {
        let mut accepted = Vec::new();
        if self.paused_until.is_some_and(|until| now < until) {
            return accepted;
        }
        self.paused_until = None;
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let listener = &mut self.listeners[number];
                if !listener.ready {
                    break;
                }
                match listener.socket.accept() {
                    Ok((mut socket, remote)) => {
                        let Ok(id) = self.number() else { return accepted };
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        if self.registry.register(&mut socket, (self.token)(id), interest).is_ok() {
                            let remote = canonical(remote);
                            self.add(id, socket, remote);
                            accepted.push((id, remote));
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => listener.ready = false,
                    // accept(2): errors of the one connection, which is gone; the next may be well.
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    Err(error) => {
                        self.paused_until = Some(now + PAUSE);
                        if let Some(more) = self.complaint.pass(now) {
                            tracing::warn!(more, "cannot accept TCP connections, pausing: {error}");
                        }
                        return accepted;
                    }
                }
            }
        }
        accepted
    }

    /// The next connection after `last` that may have something for us.
    pub(crate) fn next_readable(&self, last: Option<SocketId>) -> Option<SocketId> {
        let after = last.map_or(0, |id| id.0.saturating_add(1));
        self.readable.range(SocketId(after)..).next().copied()
    }

    /// Reads once from a connection: the path that what `inbox` then holds came on.
    pub(crate) fn receive(&mut self, id: SocketId, inbox: &mut TcpInbox) -> Option<Path> {
        let connection = self.connections.get_mut(&id)?;
        let path = Path { socket: id, remote: connection.remote(), local: None };
        if !connection.read(inbox) {
            self.end(id);
        } else if !connection.is_readable() {
            self.readable.remove(&id);
        }
        Some(path)
    }

    /// Sends packets of `segment` bytes each (the last may be shorter). Over a connection that is gone: nothing.
    pub(crate) fn send(&mut self, id: SocketId, bytes: &[u8], segment: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for packet in bytes.chunks(segment.max(1)) {
            self.full += u64::from(!connection.push(packet));
        }
        if !connection.is_due() {
            self.unflushed.insert(id);
        } else if !connection.flush() {
            self.end(id);
        }
    }

    /// Gives the kernel all that was gathered.
    pub(crate) fn flush(&mut self) {
        for id in std::mem::take(&mut self.unflushed) {
            if self.connections.get_mut(&id).is_some_and(|connection| !connection.flush()) {
                self.end(id);
            }
        }
    }

    /// Says, now and then, what was lost here.
    pub(crate) fn keep_house(&mut self) {
        let full = std::mem::take(&mut self.full);
        if full > 0 {
            tracing::debug!(
                tcp_full = full,
                "packets were dropped in the last seconds: TCP connections did not take them"
            );
        }
    }

    /// A connection that is open.
    fn add(&mut self, id: SocketId, socket: mio::net::TcpStream, remote: SocketAddr) {
        self.connections.insert(id, Connection::new(socket, remote));
        // What came before it was asked about has no hint of its own.
        self.readable.insert(id);
    }

    fn end(&mut self, id: SocketId) {
        self.close(id);
        self.ended.push(id);
    }

    /// Those that ended by themselves since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.ended)
    }

    /// Closes a connection, after one more try to get rid of what waits in it.
    pub(crate) fn close(&mut self, id: SocketId) {
        self.readable.remove(&id);
        if let Some(mut connection) = self.connections.remove(&id) {
            let _ = connection.flush();
            connection.deregister(&self.registry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll};

    use super::super::connection::OUT_MAX;
    use super::*;

    const NOW: Instant = Instant::ZERO;

    /// A side, and the packets that came to it.
    struct Side {
        poll: Poll,
        tcp: Tcp,
        inbox: TcpInbox,
        packets: Vec<Vec<u8>>,
        sockets: Vec<SocketId>,
        refused: usize,
        ended: usize,
    }

    impl Side {
        fn new() -> Self {
            let poll = Poll::new().expect("poll");
            let tcp = Tcp::new(poll.registry().try_clone().expect("registry"), |id| Token(id.0 as usize), Token);
            let (packets, sockets) = (Vec::new(), Vec::new());
            Self { poll, tcp, inbox: TcpInbox::new(), packets, sockets, refused: 0, ended: 0 }
        }

        /// One turn of a loop. Events are hints, so it does no harm to give more of them.
        fn turn(&mut self) {
            let mut events = Events::with_capacity(64);
            self.poll.poll(&mut events, Some(Duration::from_millis(20))).expect("polled");
            let all: Vec<SocketId> = self.tcp.connections.keys().chain(self.tcp.connecting.keys()).copied().collect();
            for id in &all {
                self.tcp.on_hint(*id, true, true);
            }
            self.tcp.on_listener_hint(0);
            self.sockets.extend(self.tcp.accept(NOW).iter().map(|(id, _)| *id));
            for (_, result) in self.tcp.opened(NOW) {
                match result {
                    Ok((id, _)) => self.sockets.push(id),
                    Err(SocketRefused) => self.refused += 1,
                }
            }
            let mut last = None;
            while let Some(id) = self.tcp.next_readable(last) {
                last = Some(id);
                self.tcp.receive(id, &mut self.inbox);
                self.inbox.for_each(|packet| self.packets.push(packet.to_vec()));
            }
            self.tcp.flush();
            let readable = self.tcp.connections.iter().filter(|(_, connection)| connection.is_readable());
            assert!(self.tcp.readable.iter().eq(readable.map(|(id, _)| id)));
            self.ended += self.tcp.take_ended().len();
        }
    }

    /// Turns both until `done`.
    fn until(a: &mut Side, b: &mut Side, what: &str, mut done: impl FnMut(&Side, &Side) -> bool) {
        for _ in 0..2_000 {
            if done(a, b) {
                return;
            }
            a.turn();
            b.turn();
        }
        panic!("not in 2000 turns: {what}");
    }

    fn pair() -> (Side, Side) {
        let (mut a, mut b) = (Side::new(), Side::new());
        b.tcp.listen(([127, 0, 0, 1], 0).into()).expect("listening");
        let at = b.tcp.listeners[0].socket.local_addr().expect("an address");
        a.tcp.connect(NOW, SocketRequest(1), at).expect("connecting");
        until(&mut a, &mut b, "connected", |a, b| a.sockets.len() == 1 && b.sockets.len() == 1);
        (a, b)
    }

    #[test]
    fn packets_and_trains_arrive_as_they_were_sent() {
        let (mut a, mut b) = pair();
        let sent: Vec<Vec<u8>> = (1..=30u8).map(|n| vec![n; usize::from(n) * 40]).collect();
        for packet in &sent {
            a.tcp.send(a.sockets[0], packet, packet.len());
        }
        let train = [vec![7; 1_200], vec![8; 1_200], vec![9; 5]].concat();
        a.tcp.send(a.sockets[0], &train, 1_200);
        b.tcp.send(b.sockets[0], b"back", 4);
        a.tcp.flush();
        b.tcp.flush();
        until(&mut a, &mut b, "all", |a, b| b.packets.len() == 33 && a.packets.len() == 1);
        assert_eq!(b.packets[..30], sent);
        assert_eq!(b.packets[30..].concat(), train);
        assert_eq!(a.packets[0], b"back");
    }

    #[test]
    fn what_a_connection_does_not_take_is_dropped_whole_and_counted() {
        let (mut a, mut b) = pair();
        let id = a.sockets[0];
        // Nobody reads: the kernel's buffers fill, then ours.
        let mut sent = 0u32;
        while a.tcp.full < 100 {
            let packet = [sent.to_le_bytes().as_slice(), &[0; 1_196]].concat();
            a.tcp.send(id, &packet, packet.len());
            sent += 1;
            assert!(sent < 100_000, "a bound there must be");
        }
        assert!(a.tcp.connections[&id].waiting() <= OUT_MAX);
        let kept = sent as usize - 100;
        until(&mut a, &mut b, "what was kept", |_, b| b.packets.len() >= kept);
        let numbers: Vec<u32> =
            b.packets.iter().map(|p| u32::from_le_bytes(p[..4].try_into().expect("4 bytes"))).collect();
        assert!(numbers.is_sorted() && b.packets.iter().all(|p| p.len() == 1_200));
        a.tcp.send(id, b"goes on", 7);
        until(&mut a, &mut b, "the next", |_, b| b.packets.last().is_some_and(|p| p == b"goes on"));
    }

    #[test]
    fn the_end_is_told_to_the_other_side_and_not_to_who_closed() {
        let (mut a, mut b) = pair();
        a.tcp.close(a.sockets[0]);
        until(&mut a, &mut b, "its end", |_, b| b.ended == 1);
        assert_eq!(a.ended, 0);
        b.tcp.send(b.sockets[0], b"nobody", 6);
        assert!(b.tcp.connections.is_empty());
    }

    #[test]
    fn a_refusal_is_told() {
        let (mut a, mut b) = (Side::new(), Side::new());
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        // Some systems refuse at once.
        if a.tcp.connect(NOW, SocketRequest(1), free).is_ok() {
            until(&mut a, &mut b, "refused", |a, _| a.refused == 1);
        }
        assert!(a.tcp.connections.is_empty() && a.tcp.connecting.is_empty());
    }

    #[test]
    fn connecting_is_given_up() {
        let mut a = Side::new();
        // A port where the kernel has all the connections it keeps says nothing more.
        let crowded = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        crowded.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        crowded.listen(0).expect("listening");
        let at = crowded.local_addr().expect("an address").as_socket().expect("of IP");
        for n in 0..4 {
            a.tcp.connect(NOW, SocketRequest(n), at).expect("connecting");
        }
        (0..10).for_each(|_| a.turn());
        let left = a.tcp.connecting.len();
        assert!(left > 0 || !cfg!(target_os = "linux"));
        assert_eq!(a.tcp.next_deadline(), (left > 0).then(|| NOW + CONNECT_MAX));
        let given_up = a.tcp.opened(NOW + CONNECT_MAX);
        assert_eq!(given_up.len(), left);
        assert!(given_up.iter().all(|(_, result)| result.is_err()));
        assert_eq!(a.tcp.next_deadline(), None);
    }
}
