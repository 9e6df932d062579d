//! What ports that a router maps change in a node, and what they do not.

use handfast_tests::{HostId, NatSpec, World, secs};

use handfast_core::{Mapping, MappingProtocol, Network, SocketId};

fn with_mapping(w: &World, host: HostId) -> Network {
    let external = "203.0.113.99:4000".parse().expect("an address");
    let mapping = Mapping { socket: SocketId(0), external, protocol: MappingProtocol::Pcp };
    Network { mappings: vec![mapping], ..w.host(host).network() }
}

/// A direct pair that has talked.
fn pair() -> (World, HostId, HostId) {
    let (mut w, a, b) = World::pair(41, NatSpec::port_restricted(), NatSpec::port_restricted());
    let t = w.transfer(a, b, 100, 100);
    w.finish("a transfer", secs(5), &[t]);
    w.until("direct", secs(5), |w| w.is_direct(a, b));
    w.run_for(secs(5));
    (w, a, b)
}

#[test]
fn a_mapping_that_comes_or_goes_is_no_change_of_the_network() {
    let (mut w, a, b) = pair();
    let before = w.status(a);
    assert!(!before.observed.is_empty());
    let sent = before.counters.tx_datagrams;
    for network in [with_mapping(&w, a), w.host(a).network()] {
        w.with(a, |node, now| node.handle_network(now, &network));
        let after = w.status(a);
        assert_eq!(after.observed, before.observed, "what supernodes saw is as true as before");
        assert_eq!(after.homes, before.homes);
        assert_eq!(after.counters.tx_datagrams, sent, "no path is put into doubt");
        assert!(w.is_direct(a, b));
    }
}

/// Written when mappings came in: the comparison without them had left the epoch out as well.
#[test]
fn regression_an_epoch_is_a_change_of_the_network_with_or_without_mappings() {
    let (mut w, a, _) = pair();
    for epoch in 1..=2 {
        assert!(!w.status(a).observed.is_empty());
        let network = with_mapping(&w, a);
        w.with(a, |node, now| node.handle_network(now, &Network { epoch, ..network }));
        assert!(w.status(a).observed.is_empty(), "what was seen elsewhere, or before, counts no more");
        w.run_for(secs(10));
    }
}
