//! Candidates: this node's own, gathered in the order in which they are named, and a peer's, ranked by what a check
//! costs.

use core::net::{IpAddr, SocketAddr};

use crate::net::Network;
use crate::peer::LinkUse;
use crate::wire::address::{
    CANDIDATES_MAX, CANDIDATES_V6_MAX, Candidate, CandidateKind, Candidates, Prefix, is_sendable,
};

/// This node's candidates: ports that a router maps, then the addresses that supernodes saw, then host addresses of
/// the bound sockets.
///
/// A loopback address is named only when a socket is bound to it: elsewhere it means another host. At most
/// [`CANDIDATES_MAX`], of which [`CANDIDATES_V6_MAX`] IPv6; mapped ones first, since they let everybody in, then
/// server-reflexive ones, which serve more peers than host addresses. A router may claim any address as mapped, so
/// these take at most half of the room.
///
/// A stranger at the other end of a [leg](LinkUse::Leg) is told none that mean something to neighbours only.
pub(crate) fn gather(network: &Network, reflexive: &[SocketAddr], link_use: LinkUse) -> Candidates {
    let mut all = Candidates::new();
    let mut add = |kind, addr: SocketAddr| {
        let v6 = all.iter().filter(|c: &&Candidate| SocketAddr::from(c.address).is_ipv6()).count();
        let known = all.iter().any(|c| SocketAddr::from(c.address) == addr);
        let is_shown = link_use != LinkUse::Leg || !Prefix::is_exempt(addr.ip());
        if is_shown && is_sendable(addr) && !known && !all.is_full() && (addr.is_ipv4() || v6 < CANDIDATES_V6_MAX) {
            all.push(Candidate { kind, address: addr.into() });
        }
    };
    for mapping in network.mappings.iter().take(CANDIDATES_MAX / 2) {
        add(CandidateKind::Mapped, mapping.external);
    }
    for &addr in reflexive.iter().take(CANDIDATES_MAX / 2) {
        add(CandidateKind::ServerReflexive, addr);
    }
    for (_, bound) in &network.sockets {
        if !bound.ip().is_unspecified() {
            add(CandidateKind::Host, *bound);
            continue;
        }
        for ip in network.interfaces.iter().filter(|ip| ip.is_ipv4() == bound.is_ipv4()) {
            let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            if !ip.is_loopback() && !link_local {
                add(CandidateKind::Host, SocketAddr::new(*ip, bound.port()));
            }
        }
    }
    all
}

/// What a candidate costs, cheapest first; the router's strategy concerns those from [`Cost::Reflexive`] on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cost {
    /// An address of its host: on our LAN, if anywhere.
    Host,
    /// No router translates it.
    Ipv6,
    /// Its router lets everybody in there.
    Mapped,
    /// Behind its router.
    Reflexive,
    /// On our own external address.
    Hairpin,
}

impl Cost {
    /// What one of the peer costs us, whose external addresses are `own`.
    pub(super) fn of(kind: CandidateKind, address: SocketAddr, own: &[IpAddr]) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            _ if address.is_ipv6() => Self::Ipv6,
            _ if own.contains(&address.ip()) => Self::Hairpin,
            CandidateKind::Mapped => Self::Mapped,
            CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => Self::Reflexive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Mapping, MappingProtocol, SocketId};

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn candidates_are_bounded_by_count_and_family() {
        let network = Network {
            sockets: vec![(SocketId(0), addr("0.0.0.0:7")), (SocketId(1), addr("[::]:7"))],
            interfaces: (1..=9u8)
                .map(|n| IpAddr::from([10, 0, 0, n]))
                .chain((1..=9u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])))
                .chain([IpAddr::from([127, 0, 0, 1])])
                .collect(),
            ..Network::default()
        };
        let all = gather(&network, &[addr("198.51.100.1:4000")], LinkUse::User);
        assert_eq!(all.len(), CANDIDATES_MAX);
        assert_eq!(SocketAddr::from(all[0].address), addr("198.51.100.1:4000"));
        assert!(all.iter().all(|c| !SocketAddr::from(c.address).ip().is_loopback()));
        let strangers = gather(&network, &[addr("198.51.100.1:4000")], LinkUse::Leg);
        assert_eq!(strangers.as_slice(), &all[..1], "nothing of the network behind the router");
    }

    #[test]
    fn a_mapped_port_is_the_first_candidate_and_leaves_room_for_others() {
        use CandidateKind::{Host, Mapped, ServerReflexive};

        let mapping = |n: u8| Mapping {
            socket: SocketId(0),
            external: SocketAddr::new([198, 51, 100, n].into(), 7),
            protocol: MappingProtocol::Pcp,
        };
        let mut network = Network {
            sockets: vec![(SocketId(0), addr("192.168.1.2:7"))],
            interfaces: Vec::new(),
            mappings: vec![mapping(1)],
            ..Network::default()
        };
        let kinds = |network: &Network, reflexive: &[SocketAddr]| -> Vec<CandidateKind> {
            gather(network, reflexive, LinkUse::User).iter().map(|c| c.kind).collect()
        };
        assert_eq!(kinds(&network, &[addr("198.51.100.1:9")]), [Mapped, ServerReflexive, Host]);
        // Seen where it is mapped: one candidate.
        assert_eq!(kinds(&network, &[addr("198.51.100.1:7")]), [Mapped, Host]);
        network.mappings = (1..=20).map(mapping).collect();
        assert_eq!(kinds(&network, &[addr("203.0.113.1:9")]), [Mapped, Mapped, Mapped, Mapped, ServerReflexive, Host]);
    }
}
