//! Records by name: what a supernode that has one need not be sent again.

use serde::{Deserialize, Serialize};

/// Most records that are named in one [`Message::Renew`](super::message::Message::Renew) or
/// [`Message::Wanted`](super::message::Message::Wanted).
pub const RENEWALS_MAX: usize = 64;

/// One very record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Renewal {
    /// First bytes of the place of its peer.
    pub place: [u8; 8],
    /// First bytes of the BLAKE3 hash of the record as it travels.
    pub hash: [u8; 8],
}
