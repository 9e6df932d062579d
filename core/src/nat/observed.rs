//! Addresses that supernodes saw us at.

use core::cmp::Reverse;
use core::net::SocketAddr;
use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::net::SocketId;
use crate::wire::address::{Address, CANDIDATES_MAX, canonical, is_sendable};
use crate::wire::nat::MappingBehavior;

/// Most observations kept, one per reporter and socket; at the limit the oldest goes.
const OBSERVED_MAX: usize = 8;

/// Who saw us where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Observation {
    reporter: PeerId,
    reporter_address: Address,
    socket: SocketId,
    seen: Address,
}

impl Observation {
    fn is_ipv4(&self) -> bool {
        matches!(self.seen, Address::V4(..))
    }
}

/// What reporters saw, newest last. A reporter may lie: nothing is concluded from one alone, and of three or more one
/// is outvoted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    newest_last: ArrayVec<Observation, OBSERVED_MAX>,
}

impl Observations {
    /// `reporter`, to whom we sent from `socket` at `reporter_address`, saw `seen`. Says whether it saw something else
    /// before.
    pub(crate) fn on_observed(
        &mut self,
        reporter: PeerId,
        reporter_address: SocketAddr,
        socket: SocketId,
        seen: SocketAddr,
    ) -> bool {
        if !is_sendable(seen) {
            return false;
        }
        let has_changed =
            self.seen_from(&reporter, reporter_address, socket).is_some_and(|before| before != canonical(seen));
        let (reporter_address, seen) = (Address::from(reporter_address), Address::from(seen));
        let observation = Observation { reporter, reporter_address, socket, seen };
        self.newest_last.retain(|o| o.reporter != reporter || o.socket != socket);
        if self.newest_last.is_full() {
            self.newest_last.remove(0);
        }
        self.newest_last.push(observation);
        has_changed
    }

    /// Where a reporter at this address saw a socket.
    pub(crate) fn seen_from(&self, reporter: &PeerId, at: SocketAddr, socket: SocketId) -> Option<SocketAddr> {
        let at = Address::from(at);
        let same = |o: &&Observation| o.reporter == *reporter && o.reporter_address == at && o.socket == socket;
        self.newest_last.iter().find(same).map(|o| o.seen.into())
    }

    /// The host's network changed: what was seen before says nothing any more.
    pub(crate) fn clear(&mut self) {
        self.newest_last.clear();
    }

    /// Who saw what, newest last.
    pub(crate) fn list(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        self.newest_last.iter().map(|o| (o.reporter, o.seen.into()))
    }

    /// The address that more than half of those who saw `socket`, and at least two, agree on.
    pub(crate) fn agreed(&self, socket: SocketId) -> Option<SocketAddr> {
        let all = self.newest_last.iter().filter(|o| o.socket == socket).count();
        let (seen, count) = self.counted(socket).into_iter().next()?;
        (count >= 2 && count * 2 > all).then_some(seen)
    }

    /// How the router maps `socket`; nothing if fewer than two reporters at different addresses gave evidence.
    ///
    /// Endpoint-independent if more than half of the reporters saw one and the same address. Only reporters at
    /// different IP addresses count, if there are such: a router that maps per destination *address* gives one
    /// mapping to all reporters behind one address.
    pub(crate) fn mapping(&self, socket: SocketId) -> Option<MappingBehavior> {
        let of_socket = || self.newest_last.iter().filter(|o| o.socket == socket);
        // IPv4 and IPv6 are mapped apart (if at all); the family with more evidence speaks.
        let v4 = of_socket().filter(|o| o.is_ipv4()).count();
        let is_v4 = v4 * 2 >= of_socket().count();
        let in_family = || of_socket().filter(|o| o.is_ipv4() == is_v4);
        let by_ip: BTreeMap<_, _> = in_family().map(|o| (SocketAddr::from(o.reporter_address).ip(), o.seen)).collect();
        let by_address: BTreeMap<_, _> = in_family().map(|o| (o.reporter_address, o.seen)).collect();
        let votes: Vec<Address> =
            if by_ip.len() >= 2 { by_ip.into_values().collect() } else { by_address.into_values().collect() };
        if votes.len() < 2 {
            return None;
        }
        let most = votes.iter().map(|seen| votes.iter().filter(|other| *other == seen).count()).max()?;
        Some(if most * 2 > votes.len() {
            MappingBehavior::EndpointIndependent
        } else {
            MappingBehavior::AddressAndPortDependent
        })
    }

    /// Server-reflexive candidates (RFC 8445 §5.1.1) of `socket`: the addresses seen, first those that most reporters
    /// agree on, then the newest.
    pub(crate) fn candidates(&self, socket: SocketId) -> ArrayVec<SocketAddr, CANDIDATES_MAX> {
        self.counted(socket).into_iter().map(|(seen, _)| seen).take(CANDIDATES_MAX).collect()
    }

    /// The addresses that `socket` was seen at, and by how many: most first, then the newest.
    pub(crate) fn counted(&self, socket: SocketId) -> Vec<(SocketAddr, usize)> {
        let mut distinct: Vec<(SocketAddr, usize)> = Vec::new();
        for observation in self.newest_last.iter().rev().filter(|o| o.socket == socket) {
            match distinct.iter_mut().find(|(seen, _)| *seen == observation.seen.into()) {
                Some((_, count)) => *count += 1,
                None => distinct.push((observation.seen.into(), 1)),
            }
        }
        // Stable, so among equals the newest stays first.
        distinct.sort_by_key(|(_, count)| Reverse(*count));
        distinct
    }
}
