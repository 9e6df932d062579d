//! [`Endpoint`]: the handle by which programs use a running node.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use handfast_core::portmap::Report;
use handfast_core::{Access, CommandError, PeerId, SecretKey, ServiceName, Status, Ticket};

use super::acceptor::Acceptor;
use super::events::Events;
use super::forward::Forward;
use super::peer::Peer;
use crate::api::WaitError;
use crate::driver::{self, Options, Reply, Running, Subscription, Wish};
use crate::host;

/// Accepted streams kept for a program that does not take them; more are refused as unavailable.
const INCOMING_MAX: usize = 256;

/// A running node: a thread with the loop, and this handle to it. Clones share the node; it stops when
/// [`Endpoint::shutdown`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Endpoint {
    /// The loop ends with the last of these.
    running: Arc<Running>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.id())
    }
}

impl Endpoint {
    /// Binds the sockets and starts the loop in a thread of its own.
    ///
    /// # Errors
    ///
    /// They name what stands in the way: an address that is taken, a damaged state file, a configuration that cannot
    /// work.
    pub fn start(options: Options) -> io::Result<Self> {
        Ok(Self { running: Arc::new(driver::start(options)?) })
    }

    /// This node.
    pub fn id(&self) -> PeerId {
        self.running.id()
    }

    /// Addresses the UDP sockets are bound to; the first is the main one.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.running.listen().to_vec()
    }

    /// Waits until the node can be used: a supernode is up, a leaf has a home.
    ///
    /// # Errors
    ///
    /// If it is not within `timeout`, or the endpoint is shut down.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), WaitError> {
        self.running.board().wait_ready(timeout)
    }

    /// Another node, by its key.
    pub fn peer(&self, id: PeerId) -> Peer {
        Peer::new(id, self.running.handle().clone())
    }

    /// Names supernodes to start from.
    ///
    /// # Errors
    ///
    /// If the node leaves. Nothing was changed then.
    pub fn join(&self, known: &[(PeerId, SocketAddr)]) -> Result<(), CommandError> {
        self.command(|reply| Wish::Join { known: known.to_vec(), reply })
    }

    /// Takes the homes of a ticket as known, so that no lookup is needed.
    ///
    /// # Errors
    ///
    /// If the node leaves.
    pub fn learn(&self, ticket: &Ticket) -> Result<(), CommandError> {
        self.command(|reply| Wish::Learn { ticket: ticket.clone(), reply })
    }

    /// Offers a service whose streams are pumped to TCP connections to `target`, opened one per stream.
    ///
    /// # Errors
    ///
    /// If the node leaves, or offers too much.
    pub fn expose(&self, service: ServiceName, target: SocketAddr, access: Access) -> Result<(), CommandError> {
        self.command(|reply| Wish::Expose { service, target, access, reply })
    }

    /// Offers a service whose streams this program takes from the returned acceptor.
    ///
    /// # Errors
    ///
    /// If the node leaves, or offers too much.
    pub fn offer(&self, service: ServiceName, access: Access) -> Result<Acceptor, CommandError> {
        let (incoming, streams) = sync_channel(INCOMING_MAX);
        let offer = self.command(|reply| Wish::Offer { service, access, incoming, reply })?;
        Ok(Acceptor::new(streams, service, offer, self.running.handle().clone()))
    }

    /// Withdraws a service. Streams that are open stay.
    pub fn withdraw(&self, service: &ServiceName) {
        self.running.handle().wish(Wish::Withdraw { service: *service, offer: None });
    }

    /// A local TCP listener, each of whose connections is pumped to a new stream to `peer/service`. It lives as long as
    /// the returned guard; connections that are open then stay.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened at (the error names it), or the endpoint is shut down.
    pub fn forward(&self, listen: SocketAddr, peer: PeerId, service: ServiceName) -> io::Result<Forward> {
        Forward::start(listen, peer, service, self.running.handle().clone())
    }

    /// The next datagram from anyone, waiting at most `timeout`. A few hundred are kept; then the oldest are lost.
    ///
    /// # Errors
    ///
    /// If none came in time, or the endpoint is shut down.
    pub fn recv_datagram(&self, timeout: Duration) -> Result<(PeerId, Vec<u8>), WaitError> {
        self.running.board().pop_datagram(timeout)
    }

    /// What happens from now on. Any number of subscribers, each with a bounded queue.
    pub fn events(&self) -> Events {
        let subscribed = self.running.handle().request(|reply| Wish::Subscribe { reply });
        Events::new(subscribed.unwrap_or_else(Subscription::closed))
    }

    /// What the node knows of itself; `None` when it is shut down.
    pub fn status(&self) -> Option<Status> {
        self.running.handle().request(|reply| Wish::Status { reply })
    }

    /// What asking the router for a port came to; waits until that is decided, at most `timeout`. `None` when port
    /// mapping is off.
    pub fn port_mapping(&self, timeout: Duration) -> Option<Report> {
        self.running.board().wait_port_mapping(timeout)
    }

    /// A ticket for this node: itself, its homes, a service. `None` when it is shut down.
    pub fn ticket(&self, service: Option<ServiceName>) -> Option<Ticket> {
        self.running.handle().request(|reply| Wish::Ticket { service, reply })
    }

    /// Tells peers and homes goodbye and ends the loop; waits for it at most `timeout`.
    pub fn shutdown(&self, timeout: Duration) {
        self.running.handle().leave();
        // It ends by itself, waited for or not.
        let _ = self.running.board().wait_closed(timeout);
    }

    fn command<T>(&self, wish: impl FnOnce(Reply<Result<T, CommandError>>) -> Wish) -> Result<T, CommandError> {
        self.running.handle().request(wish).unwrap_or(Err(CommandError::Leaving))
    }
}

/// A new identity, from the operating system's randomness. Keep it: it is what others know this node by.
///
/// # Errors
///
/// If the operating system has no randomness to give.
pub fn generate_key() -> io::Result<SecretKey> {
    Ok(SecretKey::from_bytes(&host::fresh()?))
}
