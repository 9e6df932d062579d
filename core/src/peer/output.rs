//! What the room wants done by others, or not before something else is done.

use core::net::IpAddr;

use crate::api::{Event, Save};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Route;

/// What is wanted of others. To be carried out in their order, and what one of them causes before the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// A question on a route, on the path in use where there is none: [`Peers::challenge`](super::Peers::challenge),
    /// which is to be told what is known of the address.
    Challenge { peer: PeerKey, route: Option<Route> },
    /// The path is to be chosen anew: [`Peers::choose`](super::Peers::choose).
    Choose { peer: PeerKey },
    /// This link is silent. Its relays and our homes are to know where we are:
    /// [`Peers::wake_relays`](super::Peers::wake_relays), which is to be told the homes.
    WakeRelays { peer: PeerKey },
    /// New handshakes on every path: [`Peers::revive`](super::Peers::revive).
    Revive { peer: PeerKey },
    /// An introduction to a peer whose link may be dead.
    Call { peer: PeerId },
    /// A direct path is to be looked for.
    Upgrade { peer: PeerKey },
    /// A direct path is gone: another one is to be looked for soon.
    Retry { peer: PeerKey },
    /// Nothing answers over UDP: a connection may do.
    StandIn { peer: PeerKey },
    /// Nothing may be sent now to an address where others say that the peer is.
    Withheld { peer: PeerId, ip: IpAddr },
    /// The peer is gone.
    Gone { peer: PeerKey },
    /// Nothing needs the link: it is to be closed with a goodbye.
    Close { peer: PeerKey },
    /// For the application.
    Event(Event),
    /// To be kept for a later run.
    Save(Save),
}
