//! Which network this is, and whether anything stands between it and the internet, as a home that sees us shows.

use core::net::{IpAddr, SocketAddr};

use crate::net::{Network, SocketId};
use crate::wire::address::Prefix;

/// Where we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The network: a hash of the prefix that a home sees us in, and of those of our interfaces; a hash, since the list
    /// of networks that somebody was in is nobody's business.
    pub(crate) network: [u8; 8],
    /// The address that the home sees is our own, or one that our router maps to us.
    pub(super) is_own: bool,
}

impl Place {
    /// Where a home sees this socket at `seen`.
    pub(crate) fn new(network: &Network, socket: SocketId, seen: SocketAddr) -> Self {
        Self { network: hash(&network.interfaces, seen.ip()), is_own: is_own(network, socket, seen) }
    }
}

fn is_own(network: &Network, socket: SocketId, seen: SocketAddr) -> bool {
    let is_port = |bound: &SocketAddr| bound.port() == seen.port();
    let is_bound = network.sockets.iter().any(|(s, bound)| *s == socket && is_port(bound));
    (is_bound && network.interfaces.contains(&seen.ip()))
        || network.mappings.iter().any(|m| m.socket == socket && m.external == seen)
}

fn hash(interfaces: &[IpAddr], seen: IpAddr) -> [u8; 8] {
    let of_family = |ip: &&IpAddr| !ip.is_loopback() && ip.is_ipv4() == seen.is_ipv4();
    let mut inside: Vec<Prefix> = interfaces.iter().filter(of_family).map(|ip| Prefix::of(*ip)).collect();
    inside.sort_unstable();
    inside.dedup();
    let mut hash = blake3::Hasher::new_derive_key("handfast v1 network");
    for prefix in [Prefix::of(seen)].iter().chain(&inside) {
        match prefix {
            Prefix::V4(bytes) => hash.update(&[4]).update(bytes),
            Prefix::V6(bytes) => hash.update(&[6]).update(bytes),
        };
    }
    let mut id = [0; 8];
    id.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Mapping, MappingProtocol};

    const MAIN: SocketId = SocketId(0);

    fn network(interfaces: &[[u8; 4]]) -> Network {
        let mut network = Network::default();
        network.sockets.push((MAIN, SocketAddr::from(([0, 0, 0, 0], 7_000))));
        network.interfaces.extend(interfaces.iter().map(|ip| IpAddr::from(*ip)));
        network
    }

    fn at(network: &Network, ip: [u8; 4], port: u16) -> Place {
        Place::new(network, MAIN, SocketAddr::from((ip, port)))
    }

    #[test]
    fn a_network_is_named_by_prefixes_alone() {
        let home = network(&[[192, 168, 1, 5], [127, 0, 0, 1]]);
        let same = network(&[[192, 168, 1, 99]]);
        let id = at(&home, [203, 0, 113, 1], 1).network;
        assert_eq!(at(&same, [203, 0, 113, 200], 2).network, id);
        assert_ne!(at(&same, [203, 0, 114, 1], 1).network, id, "another provider");
        assert_ne!(at(&network(&[[192, 168, 2, 5]]), [203, 0, 113, 1], 1).network, id, "another LAN");
        let v6 = Place::new(&home, MAIN, "[2001:db8::1]:1".parse().expect("an address"));
        assert_ne!(v6.network, id);
    }

    #[test]
    fn an_address_is_our_own_with_its_port_or_by_a_mapping() {
        let mut open = network(&[[203, 0, 113, 1]]);
        assert!(at(&open, [203, 0, 113, 1], 7_000).is_own);
        assert!(!at(&open, [203, 0, 113, 1], 7_001).is_own);
        assert!(!at(&open, [203, 0, 113, 2], 7_000).is_own);
        let external = SocketAddr::from(([203, 0, 113, 2], 9));
        open.mappings.push(Mapping { socket: MAIN, external, protocol: MappingProtocol::Pcp });
        assert!(at(&open, [203, 0, 113, 2], 9).is_own);
    }
}
