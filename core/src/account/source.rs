//! Whom something is charged to that anybody with a key may ask for.

use core::net::IpAddr;

use crate::identity::PeerId;
use crate::wire::address::Prefix;

/// Everybody in a prefix, since who has many keys has few of these; or a peer where prefixes do not count; or all those
/// together that are not seen where they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    Prefix(Prefix),
    Peer(PeerId),
    Unseen,
}

impl Source {
    /// Of what `peer` says over a proven path from there, if it comes straight.
    pub(crate) fn of(peer: PeerId, ip: Option<IpAddr>) -> Self {
        let Some(ip) = ip else { return Self::Unseen };
        Prefix::counted(ip).map_or(Self::Peer(peer), Self::Prefix)
    }
}
