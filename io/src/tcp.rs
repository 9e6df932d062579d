//! TCP connections that carry packets where UDP does not get through: listening, connecting, and frames both ways.
//!
//! A connection is a socket to the core, with a number from [`SocketId::TCP_FIRST`] on; what arrives on it is handed
//! over packet by packet, as datagrams are. Reading keeps nothing but the beginning of one frame. Writing keeps what
//! the kernel does not take at once, up to [`OUT_MAX`]; packets beyond that are dropped and counted, as a full socket
//! drops datagrams. Which connections may live, and how long, the core decides: all of them are announced to it, and
//! [`Tcp::close`] carries out its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use handfast_core::wire::address::canonical;
use handfast_core::wire::frame::{FRAME_HEADER_LEN, FRAME_LEN_MAX, frame_header, split};
use handfast_core::{Instant, Path, SocketId, SocketRefused, SocketRequest};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, Socket, Type};

use crate::run_loop::{tcp_listener_token, tcp_token};
use crate::seldom::Seldom;

/// Connecting is given up after this.
const CONNECT_MAX: Duration = Duration::from_secs(4);
/// Most bytes of packets that wait for a connection to take them. At the limit packets are dropped.
const OUT_MAX: usize = 128 * 1024;
/// So much is gathered before the kernel is given it within a turn of the loop; its end gives it all.
const OUT_GATHERED: usize = 32 * 1024;
/// `SO_SNDBUF`: what the kernel may hold of it. Its own choice grows to megabytes, which a slow line takes seconds for.
const SEND_BUFFER: usize = 128 * 1024;
/// Most bytes read from one connection in a turn of the loop, so that none starves another.
const READ_MAX: usize = 64 * 1024;
/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 128;
/// Connections taken per listener and turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long accepting rests after an error that will not go away by itself: no file descriptors, above all.
const PAUSE: Duration = Duration::from_secs(1);

/// Packets read from one connection.
pub(crate) struct TcpInbox {
    storage: Box<[u8]>,
    packets: Vec<Range<usize>>,
}

impl TcpInbox {
    pub(crate) fn new() -> Self {
        Self { storage: vec![0; FRAME_LEN_MAX + READ_MAX].into_boxed_slice(), packets: Vec::new() }
    }

    /// The packets, one by one.
    pub(crate) fn for_each(&mut self, mut take: impl FnMut(&mut [u8])) {
        for range in self.packets.drain(..) {
            if let Some(packet) = self.storage.get_mut(range) {
                take(packet);
            }
        }
    }
}

struct Connection {
    socket: mio::net::TcpStream,
    remote: SocketAddr,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// Frames for the kernel to take; it has had `taken` bytes of them.
    out: Vec<u8>,
    taken: usize,
    readable: bool,
    writable: bool,
}

impl Connection {
    fn new(socket: mio::net::TcpStream, remote: SocketAddr) -> Self {
        // A packet must not wait for the next one; and a smaller buffer than asked for is no reason not to run.
        let _ = socket.set_nodelay(true);
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
        Self { socket, remote, partial: Vec::new(), out: Vec::new(), taken: 0, readable: true, writable: true }
    }

    /// Reads once; false when the connection has ended, or is out of step.
    fn read(&mut self, inbox: &mut TcpInbox) -> bool {
        let before = self.partial.len();
        let Some(head) = inbox.storage.get_mut(..before) else { return false };
        head.copy_from_slice(&self.partial);
        let read = match self.socket.read(&mut inbox.storage[before..before + READ_MAX]) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => return false,
        };
        let bytes = &inbox.storage[..before + read];
        let packets = &mut inbox.packets;
        let Ok(done) = split(bytes, |range| packets.push(range)) else { return false };
        self.partial.clear();
        self.partial.extend_from_slice(&bytes[done..]);
        true
    }

    /// Adds a frame; false if there is no room.
    fn push(&mut self, packet: &[u8]) -> bool {
        let Some(header) = frame_header(packet.len()) else { return false };
        if self.out.len() - self.taken + FRAME_HEADER_LEN + packet.len() > OUT_MAX {
            return false;
        }
        self.out.extend_from_slice(&header);
        self.out.extend_from_slice(packet);
        true
    }

    /// Gives the kernel what it takes; false when the connection has ended.
    fn flush(&mut self) -> bool {
        while self.writable && self.taken < self.out.len() {
            match self.socket.write(&self.out[self.taken..]) {
                Ok(0) => return false,
                Ok(taken) => self.taken += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.taken == self.out.len() {
            // Most connections rest most of the time.
            self.out = Vec::new();
            self.taken = 0;
        } else if self.taken > OUT_MAX / 2 {
            self.out.drain(..self.taken);
            self.taken = 0;
        }
        true
    }
}

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
    listeners: Vec<Listener>,
    connections: BTreeMap<SocketId, Connection>,
    connecting: BTreeMap<SocketId, Connecting>,
    /// Those with frames that the kernel has not been given.
    unflushed: BTreeSet<SocketId>,
    /// Those that ended, for the core to hear of.
    ended: Vec<SocketId>,
    next: u32,
    paused_until: Option<Instant>,
    complaint: Seldom,
    /// Packets dropped since a connection did not take them.
    pub(crate) full: u64,
}

impl Tcp {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            connecting: BTreeMap::new(),
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
        self.registry.register(&mut socket, tcp_listener_token(self.listeners.len()), Interest::READABLE)?;
        self.listeners.push(Listener { socket, ready: true });
        Ok(())
    }

    /// Begins to open a connection; [`Tcp::opened`] tells what came of it.
    pub(crate) fn connect(&mut self, now: Instant, request: SocketRequest, remote: SocketAddr) -> io::Result<()> {
        let id = self.number()?;
        let mut socket = mio::net::TcpStream::connect(remote)?;
        self.registry.register(&mut socket, tcp_token(id), Interest::READABLE | Interest::WRITABLE)?;
        let until = now + CONNECT_MAX;
        self.connecting.insert(id, Connecting { socket, remote, request, until, has_news: false });
        Ok(())
    }

    /// mio has news of a connection.
    pub(crate) fn on_hint(&mut self, id: SocketId, readable: bool, writable: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.readable |= readable;
            if writable && !connection.writable {
                connection.writable = true;
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
        self.connections.values().any(|connection| connection.readable)
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
                    self.connections.insert(id, Connection::new(socket, remote));
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
                        if self.registry.register(&mut socket, tcp_token(id), interest).is_ok() {
                            let remote = canonical(remote);
                            self.connections.insert(id, Connection::new(socket, remote));
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
        self.connections.range(SocketId(after)..).find(|(_, c)| c.readable).map(|(id, _)| *id)
    }

    /// Reads once from a connection: the path that what `inbox` then holds came on.
    pub(crate) fn receive(&mut self, id: SocketId, inbox: &mut TcpInbox) -> Option<Path> {
        inbox.packets.clear();
        let connection = self.connections.get_mut(&id)?;
        let path = Path { socket: id, remote: connection.remote, local: None };
        if !connection.read(inbox) {
            self.end(id);
        }
        Some(path)
    }

    /// Sends packets of `segment` bytes each (the last may be shorter). Over a connection that is gone: nothing.
    pub(crate) fn send(&mut self, id: SocketId, bytes: &[u8], segment: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for packet in bytes.chunks(segment.max(1)) {
            self.full += u64::from(!connection.push(packet));
        }
        if connection.out.len() - connection.taken < OUT_GATHERED {
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
        if let Some(mut connection) = self.connections.remove(&id) {
            let _ = connection.flush();
            // Closing deregisters anyway.
            let _ = self.registry.deregister(&mut connection.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll};

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
            let tcp = Tcp::new(poll.registry().try_clone().expect("registry"));
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
        let connection = &a.tcp.connections[&id];
        assert!(connection.out.len() - connection.taken <= OUT_MAX);
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
