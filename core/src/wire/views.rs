//! What supernodes say to one another: whose neighbour is whose, and records by name, which who has one need not be sent
//! again.

use serde::{Deserialize, Serialize};

use super::address::Address;

/// Most records that are named in one [`Message::Renew`](super::message::Message::Renew) or
/// [`Message::Wanted`](super::message::Message::Wanted).
pub const RENEWALS_MAX: usize = 64;

/// One very record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Renewal {
    /// First bytes of the place of its peer.
    pub place: [u8; 8],
    /// First bytes of the BLAKE3 hash of the record as it travels; [`ANY`](Self::ANY): any of that peer's will do.
    pub hash: [u8; 8],
}

impl Renewal {
    /// In place of a hash.
    pub const ANY: [u8; 8] = [0; 8];
}

/// What one supernode says to another about being neighbours, and about being found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum NeighbourWord {
    /// You are none of mine: there are enough.
    Full,
    /// Have me nevertheless: I have hardly any.
    Lonely,
    /// I have been at this address of your advert in vain, and tell nobody of you.
    Unreached(Address),
}
