//! [`Forward`]: a local TCP listener whose connections become streams.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use handfast_core::{PeerId, ServiceName};

use crate::api::WaitError;
use crate::driver::{LoopHandle, Wish};

/// A local listener whose connections become streams; closed when dropped. Connections that are open then stay.
pub struct Forward {
    address: SocketAddr,
    listener: usize,
    handle: LoopHandle,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward({})", self.address)
    }
}

impl Forward {
    /// Listens at `listen`, for streams to `peer/service`.
    pub(super) fn start(
        listen: SocketAddr,
        peer: PeerId,
        service: ServiceName,
        handle: LoopHandle,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on TCP {listen}: {error}")))?;
        let address = listener.local_addr()?;
        let added = handle.request(|reply| Wish::Listen { listener, peer, service, reply });
        let listener = added.unwrap_or_else(|| Err(io::Error::other(WaitError::Closed)))?;
        Ok(Self { address, listener, handle })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.handle.wish(Wish::CloseListener { listener: self.listener });
    }
}
