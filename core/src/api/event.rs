//! What happened, for the application and for io.

use core::net::SocketAddr;
use core::time::Duration;

use super::error::ConnectError;
use super::saved::Save;
use super::stream::{StreamEnd, StreamKey};
use crate::identity::PeerId;
use crate::net::{SocketId, SocketKind, SocketRequest};
use crate::wire::ServiceName;
use crate::wire::message::RelayLimit;

/// How a link's packets travel. Exhaustive: they go straight or through somebody, there is no third way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathInfo {
    /// Straight to the peer.
    Direct {
        /// Its address.
        remote: SocketAddr,
    },
    /// Through a supernode, or a volunteer.
    Relay {
        /// Which one.
        via: PeerId,
    },
}

impl PathInfo {
    /// Whether it is direct.
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

/// What happened, for the application and for io.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
#[non_exhaustive]
pub enum Event {
    /// The node can be used: a supernode is up, a leaf has its first home.
    Ready,
    /// A leaf lost its last home; it keeps trying.
    Homeless,
    /// A node in role [`Role::Auto`](super::Role::Auto) began to serve others, or stopped.
    RoleChanged {
        /// Whether it is a supernode now.
        supernode: bool,
        /// The addresses that it advertises, or advertised.
        addresses: Vec<SocketAddr>,
    },
    /// Another supernode says that it has been at an address that this one advertises, in vain: neither it nor, where all
    /// say so, anybody else tells others of this one. Told once in an hour for each address.
    Unreached {
        /// The address.
        address: SocketAddr,
        /// Who says so.
        by: PeerId,
    },
    /// A leaf that is to volunteer began to relay for strangers, or stopped.
    Volunteering {
        /// Whether it does.
        on: bool,
    },
    /// A link to a peer is up, or moved to another path.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// The path in use now.
        path: PathInfo,
    },
    /// The relay of a link carries no more for the two. The link goes on by another path, or ends.
    RelayLimited {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: PeerId,
        /// Which of its limits is met.
        limit: RelayLimit,
        /// It carries again after this.
        retry_after: Duration,
    },
    /// This node and another one read no version of a handshake in common, which is not the version of the protocol
    /// (`PROTOCOL.md`, section 20): one of the two needs an update. Told at most once a minute.
    OtherVersion {
        /// Where the other one is, unless a home brought its call.
        remote: Option<SocketAddr>,
        /// The lowest version of a handshake that it reads, as far as it says.
        lowest: u8,
        /// The highest.
        highest: u8,
    },
    /// A link to a peer is gone.
    PeerGone {
        /// The peer.
        peer: PeerId,
    },
    /// `connect` or `ping` could not reach the peer.
    ConnectFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        error: ConnectError,
    },
    /// Answer to one `ping`.
    Pong {
        /// The peer.
        peer: PeerId,
        /// The number that `ping` gave.
        sequence: u64,
        /// Round trip.
        rtt: Duration,
        /// The path it took.
        path: PathInfo,
    },
    /// A peer that is allowed to opened a stream to a service. Answer with `accept` or `refuse`.
    StreamIncoming {
        /// The stream.
        stream: StreamKey,
        /// Who.
        peer: PeerId,
        /// What.
        service: ServiceName,
    },
    /// The peer accepted a stream of ours.
    StreamOpened {
        /// The stream.
        stream: StreamKey,
    },
    /// `read` has something to say.
    Readable {
        /// The stream.
        stream: StreamKey,
    },
    /// `write` takes bytes again.
    Writable {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer wants no more bytes of this stream (its reader closed); the reading side lives on.
    StreamStopped {
        /// The stream.
        stream: StreamKey,
    },
    /// The stream is over before both sides finished. It is forgotten.
    StreamEnded {
        /// The stream.
        stream: StreamKey,
        /// Why.
        end: StreamEnd,
    },
    /// A datagram waits: `recv_datagram`.
    Datagram {
        /// From whom.
        peer: PeerId,
    },
    /// io should open another socket and answer with `handle_socket`.
    OpenSocket {
        /// To be named in the answer.
        request: SocketRequest,
        /// What kind.
        kind: SocketKind,
    },
    /// io should close a socket that it opened on request.
    CloseSocket(SocketId),
    /// Keep this for the next run.
    Save(Save),
    /// `leave` has said its goodbyes: the caller may stop.
    Left,
}
