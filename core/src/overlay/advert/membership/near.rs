//! Who is near a place: the supernodes that keep what is said of the one whose place it is.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::{MembershipTable, Suspicion};
use crate::identity::PeerId;
use crate::wire::address::Prefix;

impl MembershipTable {
    /// The `max` supernodes that are to keep what is said of `id`, this one perhaps among them: nearest to it first, of
    /// each prefix one, and others of these only where there are too few. Who seems dead keeps nothing, and who is
    /// suspect only where there are too few: suspects have died as a rule, and what they keep is to be found meanwhile,
    /// too.
    pub(crate) fn holders(&self, id: &PeerId, max: usize) -> Vec<(PeerId, SocketAddr)> {
        self.holders_if(id, max, |suspicion| suspicion == Suspicion::Dead, |suspicion| suspicion == Suspicion::Suspect)
    }

    /// How many of the `max` that were holders lately are suspect or dead, and those that have come in for them. Who is
    /// dead is known for an hour at most.
    pub(crate) fn lost_holders(&self, id: &PeerId, max: usize) -> (usize, Vec<(PeerId, SocketAddr)>) {
        let before = self.holders_if(id, max, |_| false, |_| false);
        let lost = before.iter().filter(|(holder, _)| self.suspicion(holder) != Suspicion::Alive).count();
        let mut newcomers = self.holders(id, max);
        newcomers.retain(|holder| !before.contains(holder));
        (lost, newcomers)
    }

    fn holders_if(
        &self,
        id: &PeerId,
        max: usize,
        is_out: impl Fn(Suspicion) -> bool,
        is_doubtful: impl Fn(Suspicion) -> bool,
    ) -> Vec<(PeerId, SocketAddr)> {
        let (mut holders, mut others, mut suspects, mut prefixes) =
            (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        self.shelf.nearest_until(id, |known, _| {
            if !known.advert.is_withdrawn() && !is_out(known.suspicion) && known.advert.id != *id {
                let holder = (known.advert.id, known.address());
                let ip = known.address().ip();
                let list = if is_doubtful(known.suspicion) {
                    &mut suspects
                } else if Prefix::counted(ip).is_none_or(|prefix| prefixes.insert(prefix)) {
                    &mut holders
                } else {
                    &mut others
                };
                if list.len() < max {
                    list.push(holder);
                }
            }
            holders.len() >= max
        });
        let missing = max.saturating_sub(holders.len());
        holders.extend(others.into_iter().chain(suspects).take(missing));
        holders
    }

    /// The `max` supernodes whose places are nearest to that of `id`, nearest first.
    pub(crate) fn nearest(&self, id: &PeerId, max: usize) -> Vec<PeerId> {
        let mut nearest = Vec::new();
        self.shelf.nearest_until(id, |known, _| {
            if self.is_other(known) && known.advert.id != *id {
                nearest.push(known.advert.id);
            }
            nearest.len() >= max
        });
        nearest
    }

    /// Whether `peer` is one of them.
    pub(crate) fn is_among_nearest(&self, id: &PeerId, peer: &PeerId, max: usize) -> bool {
        self.nearest(id, max).contains(peer)
    }
}
