//! [`Endpoint`]: the handle by which programs use a running node.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use handfast_core::{Access, CommandError, Event, PathInfo, PeerId, ServiceName, Status, StreamEnd, Ticket};

use crate::board::Board;
use crate::command::{Command, LoopHandle, WaitError, Waited};
use crate::run_loop::{Loop, Started};
use crate::stream::Stream;
use crate::{Options, PortMappingReport};

/// Events kept for a subscriber that does not fetch them.
const EVENTS_MAX: usize = 1024;
/// Accepted streams kept for a program that does not take them; more are refused as unavailable.
const INCOMING_MAX: usize = 256;

/// Why a stream could not be opened, or ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => f.write_str(match error {
                CommandError::OwnId => "the peer is this node itself",
                CommandError::WeakKey => "the peer's key is weak",
                CommandError::Limit => "this node has too much open",
                CommandError::NotConnected => "there is no link to the peer",
                CommandError::Datagram => "the datagram is too long, or too many wait",
                CommandError::Leaving => "this node is leaving",
            }),
            Self::Ended(end) => f.write_str(&describe(*end)),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed => f.write_str("the endpoint is shut down"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a stream ended, in words.
pub(crate) fn describe(end: StreamEnd) -> String {
    match end {
        StreamEnd::Connect(error) => error.to_string(),
        StreamEnd::UnknownService => "the peer offers no such service".to_owned(),
        StreamEnd::NotAllowed => "the peer does not let us use this service".to_owned(),
        StreamEnd::Unavailable => "the program behind the service does not answer".to_owned(),
        StreamEnd::Reset(code) => format!("the peer reset the stream (code {code})"),
        StreamEnd::PeerRestarted => "the peer restarted".to_owned(),
        StreamEnd::PeerGone => "the peer is gone".to_owned(),
    }
}

/// One answer to [`Endpoint::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Round trip.
    pub rtt: Duration,
    /// The path it took.
    pub path: PathInfo,
}

/// A running node: a thread with the loop, and this handle to it. Clones share the node; it stops when
/// [`Endpoint::shutdown`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    id: PeerId,
    listen: Vec<SocketAddr>,
    handle: LoopHandle,
    board: Arc<Board>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.handle.send(Command::Leave);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.inner.id)
    }
}

impl Endpoint {
    /// Binds the sockets and starts the loop in a thread of its own.
    ///
    /// Errors name what stands in the way: an address that is taken, a damaged state file, a configuration that cannot
    /// work.
    pub fn start(options: Options) -> io::Result<Self> {
        let id = options.key.peer_id();
        let Started { handle, board, listen } = Loop::start(options)?;
        Ok(Self { inner: Arc::new(Inner { id, listen, handle, board }) })
    }

    /// This node.
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Addresses the UDP sockets are bound to; the first is the main one.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.inner.listen.clone()
    }

    /// What happens from now on, for status lines: every core event but those about single reads, writes and datagrams
    /// and those that are between core and loop. Any number of subscribers, each with a bounded queue; one that does
    /// not fetch its events misses those that come while the queue is full.
    pub fn events(&self) -> Receiver<Event> {
        let (events, receiver) = sync_channel(EVENTS_MAX);
        // Of a loop that has ended the receiver says so by itself.
        let _ = self.inner.handle.request(|reply| Command::Subscribe { events, reply });
        receiver
    }

    /// Waits until the node can be used (supernode up, leaf registered). False: not within `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.inner.board.wait_ready(timeout)
    }

    /// Names supernodes to start from.
    pub fn join(&self, known: &[(PeerId, SocketAddr)]) -> Result<(), CommandError> {
        self.command(|reply| Command::Join { known: known.to_vec(), reply })
    }

    /// Takes the homes of a ticket as known, so that no lookup is needed.
    pub fn learn(&self, ticket: &Ticket) -> Result<(), CommandError> {
        self.command(|reply| Command::Learn { ticket: ticket.clone(), reply })
    }

    /// Offers a service whose streams are pumped to TCP connections to `target`, opened one per stream.
    pub fn expose(&self, service: ServiceName, target: SocketAddr, access: Access) -> Result<(), CommandError> {
        self.command(|reply| Command::Expose { service, target, access, reply })
    }

    /// Offers a service whose streams this program takes from the returned acceptor.
    pub fn offer(&self, service: ServiceName, access: Access) -> Result<Acceptor, CommandError> {
        let (incoming, streams) = sync_channel(INCOMING_MAX);
        let offer = self.command(|reply| Command::Offer { service, access, incoming, reply })?;
        Ok(Acceptor { streams, service, offer, handle: self.inner.handle.clone() })
    }

    /// Withdraws a service. Streams that are open stay.
    pub fn withdraw(&self, service: &ServiceName) {
        self.inner.handle.send(Command::Withdraw { service: *service, offer: None });
    }

    /// A local TCP listener, each of whose connections is pumped to a new stream to `peer/service`. It lives as long as
    /// the returned guard; connections that are open then stay.
    pub fn forward(&self, listen: SocketAddr, peer: PeerId, service: ServiceName) -> io::Result<Forward> {
        let listener = TcpListener::bind(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on TCP {listen}: {error}")))?;
        let address = listener.local_addr()?;
        let added = self.inner.handle.request(|reply| Command::Listen { listener, peer, service, reply });
        let listener = added.unwrap_or_else(|| Err(io::Error::other("the endpoint is shut down")))?;
        Ok(Forward { address, listener, handle: self.inner.handle.clone() })
    }

    /// Opens a stream and waits until the peer has accepted it.
    pub fn open(&self, peer: PeerId, service: &ServiceName, timeout: Duration) -> Result<Stream, OpenError> {
        let service = *service;
        let stream = self
            .inner
            .handle
            .request(|reply| Command::Open { peer, service, reply })
            .ok_or(OpenError::Closed)?
            .map_err(OpenError::Command)?;
        match stream.wait_opened(timeout) {
            Ok(()) => Ok(stream),
            Err(error) => {
                stream.reset(0);
                Err(error)
            }
        }
    }

    /// Brings a link up; Ok when it is.
    pub fn connect(&self, peer: PeerId, timeout: Duration) -> Result<PathInfo, OpenError> {
        let answer = self.inner.handle.ask(|reply| Command::Connect { peer, patience: timeout, reply });
        waited(&answer, timeout)
    }

    /// Measures one round trip, connecting first if need be. Lost pings time out.
    pub fn ping(&self, peer: PeerId, timeout: Duration) -> Result<Pong, OpenError> {
        let answer = self.inner.handle.ask(|reply| Command::Ping { peer, patience: timeout, reply });
        waited(&answer, timeout)
    }

    /// Sends one unreliable datagram over a link that is up.
    pub fn send_datagram(&self, peer: PeerId, data: &[u8]) -> Result<(), CommandError> {
        self.command(|reply| Command::SendDatagram { peer, data: data.to_vec(), reply })
    }

    /// The next datagram from anyone, waiting at most `timeout`. A few hundred are kept; then the oldest are lost.
    pub fn recv_datagram(&self, timeout: Duration) -> Option<(PeerId, Vec<u8>)> {
        self.inner.board.pop_datagram(timeout)
    }

    /// The path in use to `peer`, and its smoothed round trip.
    pub fn path_of(&self, peer: PeerId) -> Option<(PathInfo, Option<Duration>)> {
        self.inner.handle.request(|reply| Command::PathOf { peer, reply }).flatten()
    }

    /// What the node knows of itself; `None` when it is shut down.
    pub fn status(&self) -> Option<Status> {
        self.inner.handle.request(|reply| Command::Status { reply })
    }

    /// What asking the router for a port came to; waits until that is decided, at most `timeout`. `None` when port
    /// mapping is off.
    pub fn port_mapping(&self, timeout: Duration) -> Option<PortMappingReport> {
        self.inner.board.wait_port_mapping(timeout)
    }

    /// A ticket for this node: itself, its homes, a service. `None` when it is shut down.
    pub fn ticket(&self, service: Option<ServiceName>) -> Option<Ticket> {
        self.inner.handle.request(|reply| Command::Ticket { service, reply })
    }

    /// Tells peers and homes goodbye and ends the loop; waits for it at most `timeout`.
    pub fn shutdown(&self, timeout: Duration) {
        self.inner.handle.send(Command::Leave);
        self.inner.board.wait_closed(timeout);
    }

    fn command<T>(
        &self,
        command: impl FnOnce(crate::command::Reply<Result<T, CommandError>>) -> Command,
    ) -> Result<T, CommandError> {
        self.inner.handle.request(command).unwrap_or(Err(CommandError::Leaving))
    }
}

fn waited<T>(answer: &Receiver<Waited<T>>, timeout: Duration) -> Result<T, OpenError> {
    match answer.recv_timeout(timeout) {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(WaitError::Command(error))) => Err(OpenError::Command(error)),
        Ok(Err(WaitError::Connect(error))) => Err(OpenError::Ended(StreamEnd::Connect(error))),
        Err(RecvTimeoutError::Timeout) => Err(OpenError::TimedOut),
        Err(RecvTimeoutError::Disconnected) => Err(OpenError::Closed),
    }
}

/// A local listener whose connections become streams; closed when dropped.
pub struct Forward {
    address: SocketAddr,
    listener: usize,
    handle: LoopHandle,
}

impl Forward {
    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.handle.send(Command::CloseListener { listener: self.listener });
    }
}

/// Takes the streams of one service; the service is withdrawn when it is dropped.
pub struct Acceptor {
    streams: Receiver<(Stream, PeerId)>,
    service: ServiceName,
    offer: u64,
    handle: LoopHandle,
}

impl Acceptor {
    /// The next stream and who opened it; None when the endpoint is shut down or `timeout` passed.
    pub fn accept(&self, timeout: Option<Duration>) -> Option<(Stream, PeerId)> {
        match timeout {
            Some(timeout) => self.streams.recv_timeout(timeout).ok(),
            None => self.streams.recv().ok(),
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.handle.send(Command::Withdraw { service: self.service, offer: Some(self.offer) });
    }
}
