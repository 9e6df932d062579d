//! [`Peer`]: one other node, as seen from here.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use handfast_core::{CommandError, PathInfo, PeerId, PeerStatus, ServiceName};

use super::stream::Stream;
use crate::api::{OpenError, Pong};
use crate::driver::{LoopHandle, Reply, Wish};

/// One other node: streams and datagrams to it, and how it is linked. Made by [`Endpoint::peer`](crate::Endpoint::peer)
/// for any key, whether there is a link or not; it costs nothing and keeps nothing alive.
#[derive(Clone)]
pub struct Peer {
    id: PeerId,
    handle: LoopHandle,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?})", self.id)
    }
}

impl Peer {
    /// The peer of this key.
    pub(super) fn new(id: PeerId, handle: LoopHandle) -> Self {
        Self { id, handle }
    }

    /// Its key.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Opens a stream, connecting first if need be, and waits until the peer has accepted it.
    ///
    /// # Errors
    ///
    /// If the peer cannot be reached, refuses, or does not answer within `timeout`.
    pub fn open(&self, service: &ServiceName, timeout: Duration) -> Result<Stream, OpenError> {
        let (peer, service) = (self.id, *service);
        let opened = self.handle.request(|reply| Wish::Open { peer, service, reply });
        let end = opened.ok_or(OpenError::Closed)??;
        Stream::new(end, self.handle.clone()).wait_opened(timeout)
    }

    /// Brings a link up, and gives its path once it is.
    ///
    /// # Errors
    ///
    /// If the peer cannot be reached, refuses, or does not answer within `timeout`.
    pub fn connect(&self, timeout: Duration) -> Result<PathInfo, OpenError> {
        self.wait(timeout, |peer, reply| Wish::Connect { peer, patience: timeout, reply })
    }

    /// Measures one round trip, connecting first if need be.
    ///
    /// # Errors
    ///
    /// As [`Peer::connect`]. A ping that was lost times out.
    pub fn ping(&self, timeout: Duration) -> Result<Pong, OpenError> {
        self.wait(timeout, |peer, reply| Wish::Ping { peer, patience: timeout, reply })
    }

    /// Sends one unreliable datagram over a link that is up.
    ///
    /// # Errors
    ///
    /// If there is no link, or the datagram is too long.
    pub fn send_datagram(&self, data: &[u8]) -> Result<(), CommandError> {
        let peer = self.id;
        let sent = self.handle.request(|reply| Wish::SendDatagram { peer, data: data.to_vec(), reply });
        sent.unwrap_or(Err(CommandError::Leaving))
    }

    /// The path in use; none without a link.
    pub fn path(&self) -> Option<PathInfo> {
        self.path_of().map(|(path, _)| path)
    }

    /// The smoothed round trip of the path in use, when it has been measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.path_of()?.1
    }

    /// Path, round trip, and bytes carried since the link is up; none without a link.
    pub fn statistics(&self) -> Option<PeerStatus> {
        let peer = self.id;
        self.handle.request(|reply| Wish::StatusOf { peer, reply }).flatten()
    }

    /// Cuts the peer off: its link is closed with a goodbye, and all streams with it end with
    /// [`StreamEnd::PeerGone`](handfast_core::StreamEnd::PeerGone) here. It may come back like any other; whoever takes
    /// a permission back does that first.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotConnected`] if there was nothing to cut.
    pub fn close(&self) -> Result<(), CommandError> {
        let peer = self.id;
        self.handle.request(|reply| Wish::Disconnect { peer, reply }).unwrap_or(Err(CommandError::Leaving))
    }

    fn path_of(&self) -> Option<(PathInfo, Option<Duration>)> {
        let peer = self.id;
        self.handle.request(|reply| Wish::PathOf { peer, reply }).flatten()
    }

    /// Asks for something that the network has a say in.
    fn wait<T>(
        &self,
        timeout: Duration,
        wish: impl FnOnce(PeerId, Reply<Result<T, OpenError>>) -> Wish,
    ) -> Result<T, OpenError> {
        let answer: Receiver<Result<T, OpenError>> = self.handle.ask(|reply| wish(self.id, reply));
        answer.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => OpenError::TimedOut,
            RecvTimeoutError::Disconnected => OpenError::Closed,
        })?
    }
}
