use core::net::SocketAddr;

use super::observed::Observations;
use crate::identity::{PeerId, SecretKey};
use crate::net::SocketId;
use crate::wire::nat::MappingBehavior;

const SOCKET: SocketId = SocketId(0);

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn reporter(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 4000))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn observed(seen: &[(u8, u16)]) -> Observations {
    let mut observations = Observations::default();
    for (n, port) in seen {
        observations.on_observed(id(*n), reporter(*n), SOCKET, at(*port));
    }
    observations
}

#[test]
fn mapping_needs_two_reporters_and_outvotes_one_of_three() {
    use MappingBehavior::*;
    let mapping = |seen: &[(u8, u16)]| observed(seen).mapping(SOCKET);
    assert_eq!(mapping(&[]), None);
    assert_eq!(mapping(&[(1, 10)]), None);
    assert_eq!(mapping(&[(1, 10), (1, 11)]), None, "one reporter, twice");
    assert_eq!(mapping(&[(1, 10), (2, 10)]), Some(EndpointIndependent));
    assert_eq!(mapping(&[(1, 10), (2, 11)]), Some(AddressAndPortDependent));
    assert_eq!(mapping(&[(1, 10), (2, 66), (3, 10)]), Some(EndpointIndependent));
    assert_eq!(mapping(&[(1, 10), (2, 11), (3, 12)]), Some(AddressAndPortDependent));
    assert_eq!(observed(&[(1, 10), (2, 10)]).mapping(SocketId(1)), None, "another socket");
}

#[test]
fn reporters_behind_one_address_have_one_vote() {
    let mut observations = observed(&[(1, 10), (2, 11)]);
    // A second supernode on the first one's host: a router that maps per address shows both the same.
    observations.on_observed(id(3), SocketAddr::from(([203, 0, 113, 1], 5000)), SOCKET, at(10));
    assert_eq!(observations.mapping(SOCKET), Some(MappingBehavior::AddressAndPortDependent));
    // Where all are on one host, as in a test network, ports tell them apart.
    let mut local = Observations::default();
    for n in 1..=2 {
        local.on_observed(id(n), SocketAddr::from(([127, 0, 0, 1], n.into())), SOCKET, at(10));
    }
    assert_eq!(local.mapping(SOCKET), Some(MappingBehavior::EndpointIndependent));
}

#[test]
fn candidates_are_distinct_and_agreed_ones_first() {
    let observations = observed(&[(1, 10), (2, 11), (3, 10), (4, 12)]);
    assert_eq!(observations.candidates(SOCKET)[..], [at(10), at(12), at(11)]);
    assert!(observations.candidates(SocketId(1)).is_empty());
}

#[test]
fn observations_are_limited_and_nonsense_is_ignored() {
    let mut observations = Observations::default();
    for n in 1..=20 {
        assert!(!observations.on_observed(id(n), reporter(n), SOCKET, at(n.into())));
        assert!(observations.on_observed(id(n), reporter(n), SOCKET, at(99)), "it saw something else before");
        observations.on_observed(id(n), reporter(n), SOCKET, at(n.into()));
    }
    assert_eq!(observations.list().count(), 8);
    assert_eq!(observations.list().last(), Some((id(20), at(20))));
    assert!(!observations.on_observed(id(30), reporter(30), SOCKET, SocketAddr::from(([0, 0, 0, 0], 1))));
    observations.clear();
    assert_eq!(observations.list().count(), 0);
}
