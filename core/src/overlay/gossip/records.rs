//! Records that other supernodes put here, or name as still meant.

use core::net::IpAddr;

use arrayvec::ArrayVec;

use super::{Gossip, Stores};
use crate::account::Source;
use crate::identity::PeerId;
use crate::overlay::advert::statement::subject;
use crate::overlay::directory::{HOLDERS_MAX, Putter};
use crate::overlay::pack;
use crate::time::Instant;
use crate::wire::message::{Message, RENEWALS_MAX, Renewal};

impl Gossip {
    /// Records are named that this supernode is to have. Who named them is told which it has not.
    pub(crate) fn on_renew(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        renewals: &[Renewal],
        s: &mut Stores<'_>,
    ) {
        let is_put = ip.is_some() && s.members.is_partial();
        if !is_put && !self.neighbours.contains_key(&from) && !s.members.contains(&from) {
            return;
        }
        self.on_heard(now, &from, s);
        let missing = renewals.iter().copied().filter(|renewal| !s.records.renew(now, s.wall, *renewal));
        let missing: ArrayVec<Renewal, RENEWALS_MAX> = missing.take(RENEWALS_MAX).collect();
        if !missing.is_empty() {
            pack::send(s.out, from, &Message::Wanted(missing));
        }
    }

    /// A record came, for this supernode to keep.
    pub(super) fn on_record(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        bytes: &[u8],
        s: &mut Stores<'_>,
    ) -> bool {
        let Some(ip) = s.members.speaks_from(&from, ip) else { return false };
        // Views differ: somebody a little further away keeps it as well.
        let is_near = |id| s.members.holders(&id, 2 * HOLDERS_MAX).iter().any(|(holder, _)| *holder == self.me);
        if !subject(bytes).is_some_and(is_near) {
            return false;
        }
        let source = Source::of(from, Some(ip));
        s.records.insert(now, source, s.wall, bytes, Putter::Supernode(source)).is_ok()
    }
}
