//! What dead supernodes kept is named to those who keep it in their place.
//!
//! A record is put once in [`ROUND`](super::placing), and has eight holders, so that it outlives the deaths of an hour; but
//! where many die at once, all eight of some record may. A home that suspects supernodes looks through its leaves, some at
//! a time, and names their records to the holders that have come in for those.

use core::time::Duration;

use crate::identity::PeerId;
use crate::overlay::advert::shelf::distance;
use crate::overlay::advert::{MembershipTable, Suspicion};
use crate::time::Instant;

/// After the first becomes suspect, so that those who die together are looked after together. One that is started again
/// is seldom suspect as soon.
const AFTER: Duration = Duration::from_secs(5);
/// Most that are looked after at one time. The records of others come with the round.
const GONE_MAX: usize = 32;

/// Who is gone, and how far this node has looked through its leaves for them.
#[derive(Default, Debug)]
pub(super) struct Repair {
    /// They wait for the next look.
    gone: Vec<PeerId>,
    /// They are being looked after.
    replaced: Vec<PeerId>,
    /// The last leaf looked at.
    pub(super) after: Option<PeerId>,
    /// When the next go is due.
    pub(super) at: Option<Instant>,
}

impl Repair {
    /// A supernode is suspect.
    pub(super) fn on_gone(&mut self, now: Instant, peer: PeerId) {
        if self.gone.len() < GONE_MAX && !self.gone.contains(&peer) {
            self.gone.push(peer);
        }
        self.at.get_or_insert(now + AFTER);
    }

    /// A go begins.
    pub(super) fn begin(&mut self) {
        if self.replaced.is_empty() {
            self.replaced = core::mem::take(&mut self.gone);
        }
    }

    /// A go is over, after these leaves; the next one is in so long, if there are more.
    pub(super) fn end(&mut self, now: Instant, last: Option<PeerId>, next: Duration) {
        self.after = last;
        self.at = if last.is_some() {
            Some(now + next)
        } else {
            self.replaced.clear();
            (!self.gone.is_empty()).then_some(now + AFTER)
        };
    }

    /// Those of these holders of a leaf's record, which are all that there are to be and nearest first, that have come in
    /// for some that are gone: who would not be among so many if these were there.
    pub(super) fn newcomers<T>(
        &self,
        leaf: &PeerId,
        holders: Vec<(PeerId, T)>,
        members: &MembershipTable,
    ) -> impl Iterator<Item = (PeerId, T)> {
        // One that was started again meanwhile has been given what it is to keep.
        let gone = self.replaced.iter().filter(|gone| members.suspicion(gone) != Suspicion::Alive);
        let gone: Vec<u128> = gone.map(|gone| distance(gone, leaf)).collect();
        let (count, leaf) = (holders.len(), *leaf);
        holders.into_iter().enumerate().filter_map(move |(rank, holder)| {
            let reach = distance(&holder.0, &leaf);
            let before = rank + gone.iter().filter(|gone| **gone < reach).count();
            (before >= count).then_some(holder)
        })
    }
}
