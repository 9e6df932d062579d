//! What messages say of relays: what they carry, and how well they lie.

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::identity::PeerId;

/// What these two peers may have relayed, on all their channels; told to both ends. Zero is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Kilobits per second, both ways together.
    pub rate_kbps: u32,
    /// Mebibytes per day, both ways together.
    pub quota_mib: u32,
}

/// A limit of a relay that, once met, holds up what goes through it until a later day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RelayLimit {
    /// What these two peers may have relayed in a day.
    Pair,
    /// What the relay carries for all together: in 30 days, or as a volunteer in a day.
    Relay,
}

/// A relay, as one end sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OfferedRelay {
    /// Which.
    pub relay: PeerId,
    /// Where it is, as far as the sender knows: the receiver may never have heard of it.
    pub address: Option<Address>,
    /// The sender's round trip to it; 65 535 if that is not known.
    pub rtt_ms: u16,
    /// How loaded it is, as far as the sender has heard: of 255.
    pub load: u8,
}
