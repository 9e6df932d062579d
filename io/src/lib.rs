//! A thin mio loop around [`handfast_core::Node`], and the handle that programs use: [`Endpoint`].
#![forbid(unsafe_code)]
#![allow(unused_variables, missing_docs, clippy::todo, clippy::unused_self)]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

pub use handfast_core::{
    Access, CommandError, Config, ConnectError, Event, PathInfo, PeerId, Role, Save, Saved, SecretKey, ServiceName,
    Status, StreamEnd, Ticket,
};

/// How an [`Endpoint`] starts.
pub struct Options {
    /// This node's identity.
    pub key: SecretKey,
    /// How the core is set up.
    pub config: Config,
    /// UDP addresses to bind. Empty: 0.0.0.0:0 and [::]:0 (IPv6 where the host has it).
    pub listen: Vec<SocketAddr>,
    /// Supernodes to start from.
    pub bootstrap: Vec<(PeerId, SocketAddr)>,
    /// File that keeps what the core asks to save (clock mark, sequence, anchors); none: nothing is kept.
    pub state_file: Option<PathBuf>,
    /// Send all UDP through this relay, each datagram behind an RFC 1928 §7 request header (RSV 0, FRAG 0, ATYP, address,
    /// port); datagrams from anywhere else are dropped. None: send straight.
    pub udp_proxy: Option<SocketAddr>,
}

/// Why a stream could not be opened, or ended early.
#[derive(Debug)]
pub enum OpenError {
    /// The core refused the command.
    Command(CommandError),
    /// The peer or the path there ended it.
    Ended(StreamEnd),
    /// No answer within the time given.
    TimedOut,
    /// The endpoint is shut down.
    Closed,
}

/// A running node: a thread with the loop, and this handle to it. Clones share the node; it stops when
/// [`Endpoint::shutdown`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Endpoint {}

/// One answer to [`Endpoint::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    pub rtt: Duration,
    pub path: PathInfo,
}

impl Endpoint {
    /// Binds the sockets and starts the loop in a thread of its own.
    pub fn start(options: Options) -> io::Result<Self> {
        todo!()
    }
    pub fn id(&self) -> PeerId {
        todo!()
    }
    /// Addresses the UDP sockets are bound to; the first is the main one.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }
    /// Every core event from now on, for status lines; any number of subscribers, each with a bounded queue (a slow
    /// one loses the oldest).
    pub fn events(&self) -> Receiver<Event> {
        todo!()
    }
    /// Waits until the node can be used (supernode up, leaf registered). False: not within `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        todo!()
    }
    pub fn join(&self, known: &[(PeerId, SocketAddr)]) -> Result<(), CommandError> {
        todo!()
    }
    pub fn learn(&self, ticket: &Ticket) -> Result<(), CommandError> {
        todo!()
    }
    /// Offers a service whose streams are pumped to TCP connections to `target`, opened one per stream.
    pub fn expose(&self, service: ServiceName, target: SocketAddr, access: Access) -> Result<(), CommandError> {
        todo!()
    }
    /// Offers a service whose streams this program takes from the returned acceptor.
    pub fn offer(&self, service: ServiceName, access: Access) -> Result<Acceptor, CommandError> {
        todo!()
    }
    pub fn withdraw(&self, service: &ServiceName) {
        todo!()
    }
    /// A local TCP listener, each of whose connections is pumped to a new stream to `peer/service`. Returns its address.
    /// It lives as long as the returned guard.
    pub fn forward(&self, listen: SocketAddr, peer: PeerId, service: ServiceName) -> io::Result<Forward> {
        todo!()
    }
    /// Opens a stream and waits until the peer has accepted it.
    pub fn open(&self, peer: PeerId, service: &ServiceName, timeout: Duration) -> Result<Stream, OpenError> {
        todo!()
    }
    /// Brings a link up; Ok when it is.
    pub fn connect(&self, peer: PeerId, timeout: Duration) -> Result<PathInfo, OpenError> {
        todo!()
    }
    pub fn ping(&self, peer: PeerId, timeout: Duration) -> Result<Pong, OpenError> {
        todo!()
    }
    pub fn send_datagram(&self, peer: PeerId, data: &[u8]) -> Result<(), CommandError> {
        todo!()
    }
    /// The next datagram from anyone, waiting at most `timeout`.
    pub fn recv_datagram(&self, timeout: Duration) -> Option<(PeerId, Vec<u8>)> {
        todo!()
    }
    pub fn path_of(&self, peer: PeerId) -> Option<(PathInfo, Option<Duration>)> {
        todo!()
    }
    pub fn status(&self) -> Option<Status> {
        todo!()
    }
    pub fn ticket(&self, service: Option<ServiceName>) -> Option<Ticket> {
        todo!()
    }
    /// Tells peers and homes goodbye and ends the loop; waits for it at most `timeout`.
    pub fn shutdown(&self, timeout: Duration) {
        todo!()
    }
}

/// A local listener whose connections become streams; closed when dropped.
pub struct Forward {}

impl Forward {
    pub fn local_address(&self) -> SocketAddr {
        todo!()
    }
}

/// Takes the streams of one service; the service is withdrawn when it is dropped.
pub struct Acceptor {}

impl Acceptor {
    /// The next stream and who opened it; None when the endpoint is shut down or `timeout` passed.
    pub fn accept(&self, timeout: Option<Duration>) -> Option<(Stream, PeerId)> {
        todo!()
    }
}

/// A blocking stream. `read` returns 0 at the peer's end; a stream that broke gives `ConnectionReset`.
pub struct Stream {}

impl Stream {
    /// A second handle to the same stream, so that one thread reads while another writes.
    pub fn try_clone(&self) -> io::Result<Self> {
        todo!()
    }
    /// No more bytes will be written.
    pub fn finish(&self) -> io::Result<()> {
        todo!()
    }
    pub fn reset(&self, code: u32) {
        todo!()
    }
    pub fn peer(&self) -> PeerId {
        todo!()
    }
    /// Hands this stream and a connected local socket (TCP or Unix) to the loop, which pumps both ways with
    /// back-pressure, half-close and reset until both sides ended.
    pub fn splice(self, socket: LocalSocket) -> io::Result<()> {
        todo!()
    }
}

/// A connected local socket.
pub enum LocalSocket {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl io::Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

impl io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
