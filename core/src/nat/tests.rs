use core::net::SocketAddr;

use super::observed::Observations;
use super::*;
use crate::identity::{PeerId, SecretKey};
use crate::net::{Family, Network, SocketId};
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::nat::MappingBehavior;

const SOCKET: SocketId = SocketId(0);

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn reporter(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 4000))
}

fn from(n: u8) -> Reporter {
    Reporter { id: id(n), address: reporter(n), is_supernode: true }
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

// ---- the whole machine ----

const PEERS: u8 = 3;

fn bound() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 5000))
}

fn home() -> Network {
    Network { sockets: vec![(SOCKET, bound())], interfaces: vec![bound().ip()], ..Network::default() }
}

fn linked(count: u8) -> Vec<(PeerId, Vec<SocketAddr>)> {
    (1..=count).map(|n| (id(n), vec![reporter(n)])).collect()
}

fn drain(nat: &mut Nat) -> Vec<Output> {
    core::iter::from_fn(|| nat.poll_output()).collect()
}

fn s(s: u64) -> Instant {
    Instant::from_micros(s * 1_000_000)
}

/// A machine whose first examination is due: it wants to know what is around.
fn due() -> Nat {
    let mut nat = Nat::new(&Seed::new([1; 32]), &[]);
    nat.on_supernode(s(1));
    nat.handle_timeout(s(3));
    assert_eq!(drain(&mut nat), [], "connecting comes first");
    nat.handle_timeout(s(4));
    assert_eq!(drain(&mut nat), [Output::Around]);
    nat
}

/// Probes asked for, with where they go.
fn probes(outputs: &[Output]) -> Vec<(SocketAddr, [u8; 8])> {
    let probe = |output: &Output| match output {
        Output::Ask(Ask::Probe { remote, token, .. }) => Some((*remote, *token)),
        _ => None,
    };
    outputs.iter().filter_map(probe).collect()
}

#[test]
fn a_leaf_that_no_router_translates_is_examined_in_one_step() {
    let (mut nat, network, supernodes) = (due(), home(), linked(PEERS));
    let around =
        Around { network: &network, supernodes: &supernodes, stand: Stand::Leaf, has_helpers: false, is_open: false };
    nat.on_around(s(4), &around);
    let sent = probes(&drain(&mut nat));
    assert_eq!(sent.len(), 3);
    for (remote, token) in sent {
        // From the alternate port, and to our own address: nothing is in between.
        let from = SocketAddr::new(remote.ip(), 4001);
        assert!(nat.on_reply(s(4), SOCKET, from, token, bound(), 4001));
        assert!(!nat.on_reply(s(4), SOCKET, from, [0; 8], bound(), 4001), "not ours");
    }
    nat.handle_timeout(s(4));
    assert_eq!(drain(&mut nat), [Output::Around], "it is over");
    nat.on_around(s(4), &around);
    assert_eq!(drain(&mut nat), [Output::ReleaseHelp, Output::Known]);
    assert_eq!(nat.lets_in(), Some(s(4)));
    assert_eq!(nat.profile(&network, false).mapping, Some(MappingBehavior::EndpointIndependent));
    assert!(nat.poll_timeout().is_some_and(|at| at >= s(86_400)), "and again tomorrow");
    // Another network, and nothing is known.
    nat.handle_network(s(5));
    assert_eq!((nat.lets_in(), nat.poll_timeout()), (None, Some(s(8))));
}

#[test]
fn what_this_node_is_to_others_decides_whether_it_is_examined() {
    let (network, supernodes) = (home(), linked(PEERS));
    let begin = |stand| {
        let mut nat = due();
        let around = Around { network: &network, supernodes: &supernodes, stand, has_helpers: false, is_open: false };
        nat.on_around(s(4), &around);
        (!probes(&drain(&mut nat)).is_empty(), nat.poll_timeout())
    };
    assert!(begin(Stand::Leaf).0 && begin(Stand::Volunteer).0 && begin(Stand::Willing { is_asking: false }).0);
    assert_eq!(begin(Stand::Willing { is_asking: true }), (false, Some(s(6))), "witnesses come first");
    assert_eq!(begin(Stand::Appointed), (false, None));
    assert_eq!(begin(Stand::Leaving), (false, None));
}

#[test]
fn two_are_too_few_as_long_as_there_may_be_help() {
    let (network, supernodes) = (home(), linked(2));
    let around =
        Around { network: &network, supernodes: &supernodes, stand: Stand::Leaf, has_helpers: false, is_open: false };
    let mut nat = due();
    nat.on_around(s(4), &around);
    let except = vec![reporter(1).ip(), reporter(2).ip()];
    assert_eq!(drain(&mut nat), [Output::Help { missing: 1, except }]);
    assert_eq!(nat.poll_timeout(), Some(s(6)), "links take a moment");
    nat.on_no_help();
    assert_eq!(drain(&mut nat), [Output::Around]);
    nat.on_around(s(4), &around);
    assert_eq!(probes(&drain(&mut nat)).len(), 2, "then two must do");
}

#[test]
fn sockets_that_come_too_late_are_closed_and_an_examination_that_is_given_up_closes_its_own() {
    let (mut nat, network, supernodes) = (due(), home(), linked(PEERS));
    nat.on_socket(s(4), Some((SocketId(7), bound())));
    assert_eq!(drain(&mut nat), [Output::Ask(Ask::Close(SocketId(7)))], "nobody asked for it");
    let around =
        Around { network: &network, supernodes: &supernodes, stand: Stand::Leaf, has_helpers: true, is_open: false };
    nat.on_around(s(4), &around);
    for (remote, token) in probes(&drain(&mut nat)) {
        nat.on_reply(s(4), SOCKET, SocketAddr::new(remote.ip(), 4001), token, at(10), 4001);
    }
    nat.handle_timeout(s(4));
    assert_eq!(drain(&mut nat), [Output::Ask(Ask::Open(Family::V4))], "there is a router");
    nat.on_socket(s(4), Some((SocketId(8), bound())));
    assert_eq!(probes(&drain(&mut nat)).len(), 6, "to two ports each");
    nat.on_ceased(s(4));
    assert_eq!(drain(&mut nat), [Output::Ask(Ask::Close(SocketId(8)))]);
}

#[test]
fn news_of_where_we_are_seen_is_told_once() {
    let (mut nat, network) = (Nat::new(&Seed::new([2; 32]), &[]), home());
    nat.on_observed(s(1), &from(1), SOCKET, at(10));
    assert_eq!(drain(&mut nat), [Output::Candidates, Output::Known]);
    nat.on_observed(s(1), &from(2), SOCKET, at(10));
    assert_eq!(drain(&mut nat), [Output::Known]);
    assert_eq!((nat.agreed(&network), nat.reflexive(&network)), (Some(at(10)), vec![at(10)]));
    assert_eq!(nat.seen_from(&id(1), reporter(1), SOCKET), Some(at(10)));
    nat.on_observed(s(2), &from(2), SOCKET, at(11));
    assert_eq!(
        drain(&mut nat),
        [Output::Forgotten { by: id(2) }, Output::Candidates, Output::Known],
        "it had seen us elsewhere"
    );
    assert_eq!(nat.agreed(&network), None);
    nat.on_observed(s(3), &Reporter { is_supernode: false, ..from(3) }, SOCKET, at(10));
    nat.on_observed(s(3), &from(3), SocketId::TCP_FIRST, at(10));
    assert_eq!(drain(&mut nat), [], "anybody's word, and what is no place to send to");
}
