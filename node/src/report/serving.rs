//! What a node does for others: as a supernode, and as a leaf that relays for strangers.

use std::net::SocketAddr;

use handfast_core::{Serving, VolunteerStatus};
use serde::{Deserialize, Serialize};

use super::bytes;

/// A leaf that is to relay for strangers.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VolunteerReport {
    /// Whether it does now.
    pub(crate) on: bool,
    /// Strangers with a link to it for that.
    pub(crate) guests: usize,
    /// Bytes relayed today.
    pub(crate) relayed_bytes: u64,
}

impl From<VolunteerStatus> for VolunteerReport {
    fn from(status: VolunteerStatus) -> Self {
        Self { on: status.on, guests: status.guests, relayed_bytes: status.relayed.bytes }
    }
}

impl VolunteerReport {
    pub(crate) fn to_text(self) -> String {
        let Self { on, guests, relayed_bytes } = self;
        let is_on =
            if on { "on" } else { "off: it is a supernode, or the router or the day's bytes do not allow it now" };
        format!("{is_on} · {guests} strangers linked · {} relayed today", bytes(relayed_bytes))
    }
}

/// What a supernode does as a home and as one among others.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(crate) struct ServingReport {
    /// Leaves that it takes, at most.
    pub(crate) places: u32,
    /// How full all supernodes are together of which that is known: of 1.
    pub(crate) mean_utilisation: f64,
    /// Leaves refused since the start.
    pub(crate) refused: u64,
    /// Leaves asked to go to another home since the start.
    pub(crate) sent_elsewhere: u64,
    /// Supernodes that it gossips with.
    pub(crate) neighbours: usize,
    /// Other supernodes that it is linked to.
    pub(crate) resting: usize,
    /// Records kept, of its own leaves and of others'.
    pub(crate) records: usize,
    /// Adverts that it was told of and withholds, since it has not been where they say.
    pub(crate) unvisited: usize,
    /// An address of its own at which others have been in vain within the last hour, as they say.
    pub(crate) unreached: Option<UnreachedReport>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(crate) struct UnreachedReport {
    pub(crate) address: SocketAddr,
    /// In how many networks those are that say so.
    pub(crate) networks: usize,
}

impl From<Serving> for ServingReport {
    fn from(serving: Serving) -> Self {
        Self {
            places: serving.places,
            mean_utilisation: f64::from(serving.mean_utilisation_ppm) / 1e6,
            refused: serving.refused,
            sent_elsewhere: serving.sent_elsewhere,
            neighbours: serving.neighbours,
            resting: serving.resting,
            records: serving.records,
            unvisited: serving.unvisited,
            unreached: serving.unreached.map(|(address, networks)| UnreachedReport { address, networks }),
        }
    }
}

impl ServingReport {
    pub(super) fn to_text(self, leaves: usize) -> Vec<String> {
        let free = (self.places as usize).saturating_sub(leaves);
        let all = format!("{:.2} %", self.mean_utilisation * 100.0);
        let mut lines = vec![
            format!(
                "places     {leaves} taken, {free} free · all supernodes together {all} · {} leaves refused, {} sent elsewhere",
                self.refused, self.sent_elsewhere
            ),
            format!(
                "among      {} neighbours, {} links that rest · {} records kept · {} adverts withheld until visited",
                self.neighbours, self.resting, self.records, self.unvisited
            ),
        ];
        if let Some(UnreachedReport { address, networks }) = self.unreached {
            lines.push(format!(
                "unreached  {address}: supernodes of {networks} networks have been there in vain, and tell nobody of it · is \
                 UDP let in there, and --advertise right?"
            ));
        }
        lines
    }
}
