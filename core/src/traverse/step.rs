//! What an effort wants done next.

use core::net::{IpAddr, SocketAddr};

use crate::net::SocketId;

/// What the node should do for an effort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Tell the peer [`Effort::told`].
    Tell,
    /// See whether the budget allows it towards the peer's address: [`Effort::on_reserved`].
    Reserve(IpAddr),
    /// Open a socket: [`Effort::on_socket`].
    Open,
    /// Ask a home where it sees this socket: [`Effort::on_seen`].
    Probe {
        /// The socket.
        socket: SocketId,
    },
    /// Send a check.
    Send {
        /// From this socket, or from the main one.
        socket: Option<SocketId>,
        /// Where to.
        to: SocketAddr,
    },
    /// Nothing more: it ended in vain.
    Over,
}
