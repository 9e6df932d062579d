//! What [`Transports`](super::Transports) wants done, and what it is told of links.

use core::net::SocketAddr;

use crate::identity::PeerId;
use crate::net::{Path, PeerKey, SocketId, SocketRequest};
use crate::path::Route;
use crate::time::Instant;

/// What is to be done, in the order given. [`Output::GiveUp`] and the last three want to know something first: the
/// answer goes back at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// io is to open a TCP connection.
    Open {
        /// Under this number.
        request: SocketRequest,
        /// To this address.
        remote: SocketAddr,
    },
    /// io is to close this connection.
    Close(SocketId),
    /// The same, since there is no room for it.
    Refuse(SocketId),
    /// An Init with this body, encoded, is to go over a new connection.
    Attempt {
        /// To whom.
        peer: PeerId,
        /// The connection.
        path: Path,
        /// What it asks for.
        body: Box<[u8]>,
    },
    /// The path in use to this peer is to be asked whether it works.
    Probe(PeerKey),
    /// A peer that is linked over TCP is to be asked whether it hears us over UDP.
    ChallengeUdp {
        /// Whom.
        peer: PeerKey,
        /// Where its UDP is.
        udp: SocketAddr,
    },
    /// The link moves to this connection, unless it was heard over UDP since then.
    StandIn {
        /// Whose.
        peer: PeerKey,
        /// The connection.
        route: Route,
        /// When the handshake began.
        since: Instant,
    },
    /// This connection is no path of the peer any more.
    RemovePath {
        /// Whose.
        peer: PeerKey,
        /// The connection.
        route: Route,
    },
    /// Peers are to hear anew where we can be reached, since what works is not what did.
    TellCandidates,
    /// Nothing more is tried by TCP to reach this supernode: if no handshake with it is under way, how does it
    /// [stand](Tried)?
    GiveUp(PeerId),
    /// It cannot be reached.
    Unreachable(PeerKey),
    /// Its link has no way left, and is gone.
    Drop(PeerKey),
    /// [`Survey`], for this.
    Survey(Why),
    /// A connection is due for a look: what [`Use`] is it of to this peer?
    Look {
        /// The connection.
        socket: SocketId,
        /// Whose link last came through it.
        peer: PeerKey,
        /// The path that it is.
        route: Route,
    },
    /// Inits that left on this connection get no Response any more; then, how does its [`Link`] stand?
    Abandon(Lost),
}

/// What all links are looked over for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// UDP was just found not to work. This peer is linked over TCP.
    Blocked(PeerKey),
    /// Inits over UDP have waited long enough for an answer.
    Silent,
    /// A dial by TCP led nowhere.
    Failed,
    /// UDP is asked again, after so many times.
    Retry(usize),
}

/// How the links stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Survey {
    /// Links to supernodes that are in use over UDP.
    pub(crate) over_udp: Vec<PeerKey>,
    /// Supernodes whose links are not up.
    pub(crate) waiting: Vec<Waiting>,
    /// Connections that are the path in use of their peer.
    pub(crate) in_use: Vec<SocketId>,
}

/// A supernode to which an Init over UDP is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    /// Who.
    pub(crate) peer: PeerId,
    /// Where.
    pub(crate) udp: SocketAddr,
    /// What the Init asks for, encoded.
    pub(crate) body: Box<[u8]>,
    /// The sockets of all Inits to it that are under way.
    pub(crate) asking: Vec<SocketId>,
}

/// One link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// Whose.
    pub(crate) key: PeerKey,
    /// Whose.
    pub(crate) peer: PeerId,
    /// Whether it is up.
    pub(crate) is_up: bool,
    /// Its path in use.
    pub(crate) current: Option<Route>,
    /// See [`Waiting::asking`].
    pub(crate) asking: Vec<SocketId>,
    /// Whether the peer is known to be a supernode: nobody else takes connections.
    pub(crate) is_supernode: bool,
}

/// A peer for which nothing more is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tried {
    /// Which.
    pub(crate) key: PeerKey,
    /// Whether its link is up.
    pub(crate) is_up: bool,
    /// Whether it is, without any path.
    pub(crate) is_stranded: bool,
}

/// What a connection is to the link that came through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// The path in use.
    Current,
    /// A path that could be used.
    Spare,
    /// Nothing.
    None,
}

/// A connection of ours that is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    /// Which.
    pub(crate) socket: SocketId,
    /// Whose link came through it.
    pub(crate) peer: Option<PeerKey>,
    /// Where the supernode's UDP is.
    pub(super) udp: SocketAddr,
    /// When it was opened.
    pub(super) since: Instant,
}
