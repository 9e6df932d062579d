//! A node on a real UDP socket, turned by hand: what the load generator needs to get channels through a supernode.
//!
//! It hears the supernode alone, so that its connections stay relayed. It keeps the head of the last Relay packet it
//! sent on: a relay forwards bytes without opening them, so whatever is sent under that head arrives.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use handfast_core::{
    Access, Config, Event, Instant, Network, Node, Path, PathInfo, PeerId, Received, Saved, SocketId, WallTime,
};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::{key, seed};

const SOCKET: SocketId = SocketId(0);
/// Bytes of kind and channel that stand before a relayed packet.
pub const HEAD_LEN: usize = 7;
/// Room for the largest train that the kernel hands over.
pub const BUFFER_LEN: usize = 1 << 16;

/// A socket that sends and receives trains.
pub struct End {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl End {
    /// Binds a free port of the loopback address.
    pub fn bind() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket, state })
    }

    /// Where it is bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for packets in `receive` instead of giving None.
    pub fn set_blocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(false)
    }

    /// How many packets a train may have.
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends packets of `stride` bytes each (the last may be shorter). False: the kernel takes none now.
    pub fn send(&self, to: SocketAddr, contents: &[u8], stride: usize) -> io::Result<bool> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: Some(stride), src_ip: None };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next train: how long, of packets how long, from where.
    pub fn receive(&self, buf: &mut [u8]) -> io::Result<Option<(usize, usize, SocketAddr)>> {
        let mut meta = [RecvMeta::default()];
        match self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(buf)], &mut meta) {
            Ok(_) => Ok(Some((meta[0].len, meta[0].stride, meta[0].addr))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // An ICMP error about something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A leaf and its socket.
pub struct Client {
    /// The socket, for packets that the node is not asked about.
    pub end: End,
    node: Node,
    supernode: SocketAddr,
    origin: std::time::Instant,
    strays: Vec<(Vec<u8>, usize)>,
    head: Option<[u8; HEAD_LEN]>,
    ready: bool,
    failed: bool,
}

impl Client {
    /// Starts a leaf that joins through `supernode`.
    pub fn start(number: u64, supernode: (PeerId, SocketAddr)) -> io::Result<Self> {
        let end = End::bind()?;
        let origin = std::time::Instant::now();
        let mut config = Config::leaf();
        config.services.insert(crate::service(), Access::Any);
        let now = Instant::ZERO;
        let node = Node::new(now, origin, seed(number), key(number), config, Saved::default());
        let mut node = node.map_err(io::Error::other)?;
        let wall = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        node.handle_wall_clock(now, WallTime::from_micros(wall.as_micros() as u64));
        node.handle_network(
            now,
            &Network { sockets: vec![(SOCKET, end.address()?)], interfaces: Vec::new(), ..Network::default() },
        );
        node.join(now, &[supernode]).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut client = Self {
            end,
            node,
            supernode: supernode.1,
            origin,
            strays: Vec::new(),
            head: None,
            ready: false,
            failed: false,
        };
        client.drain()?;
        Ok(client)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.node.id()
    }

    /// Whether it is registered.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The head of its Relay packets, once it has sent one.
    pub fn head(&self) -> Option<[u8; HEAD_LEN]> {
        self.head
    }

    /// Whether an attempt to connect has failed since the last one began.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Begins to connect to another client.
    pub fn connect(&mut self, other: &Self) -> io::Result<()> {
        let now = self.now();
        self.failed = false;
        let told = self.node.learn(now, &other.node.ticket(None)).and_then(|()| self.node.ping(now, other.id()));
        told.map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.drain()
    }

    /// Keeps a train that came while nobody turned the node; it gets it with the next turn.
    pub fn keep(&mut self, bytes: &[u8], stride: usize) {
        self.strays.push((bytes.to_vec(), stride));
    }

    /// Takes in what has come, lets the node do what is due, and sends what it has to say.
    pub fn turn(&mut self, buf: &mut [u8]) -> io::Result<()> {
        for (mut bytes, stride) in std::mem::take(&mut self.strays) {
            self.handle(&mut bytes, stride)?;
        }
        while let Some((len, stride, source)) = self.end.receive(buf)? {
            if source == self.supernode {
                self.handle(&mut buf[..len], stride)?;
            }
        }
        let now = self.now();
        if self.node.poll_timeout().is_some_and(|due| due <= now) {
            self.node.handle_timeout(now);
            self.drain()?;
        }
        Ok(())
    }

    fn handle(&mut self, bytes: &mut [u8], stride: usize) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let path = Path { socket: SOCKET, remote: self.supernode, local: None };
            let now = self.now();
            let (done, received) = self.node.handle_datagrams(now, path, stride, rest);
            assert!(done > 0 && !matches!(received, Received::Forward { .. }), "a leaf takes what it gets");
            rest = &mut rest[done..];
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut buf = [0; 2048];
        let now = self.now();
        while let Some(transmit) = self.node.poll_transmit(now, 1, &mut buf) {
            if transmit.path.remote != self.supernode {
                continue;
            }
            let bytes = &buf[..transmit.len];
            if let (Some(&5), Some(&head)) = (bytes.first(), bytes.first_chunk()) {
                self.head = Some(head);
            }
            // A full socket buffer is loss like any other.
            let _ = self.end.send(self.supernode, bytes, bytes.len())?;
        }
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Ready => self.ready = true,
                Event::ConnectFailed { .. } => self.failed = true,
                Event::PathChanged { path: PathInfo::Direct { remote }, .. } => {
                    debug_assert_eq!(remote, self.supernode, "clients hear the supernode alone");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How long the node can wait, at most `cap`.
    pub fn wait(&mut self, cap: Duration) -> Duration {
        let now = self.now();
        self.node.poll_timeout().map_or(cap, |due| due.since(now).min(cap))
    }
}
