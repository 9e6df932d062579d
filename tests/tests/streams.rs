//! Streams and datagrams, as an application meets them.

use std::collections::BTreeSet;

use handfast_core::{
    Access, CommandError, Config, ConnectError, Event, PathInfo, PeerId, Read, SecretKey, ServiceName, StreamEnd,
    StreamError,
};
use handfast_tests::{HostId, NatSpec, Place, TransferId, World, XFER, ms, secs};

fn name(text: &str) -> ServiceName {
    text.parse().expect("a service name")
}

fn home_pair(seed: u64) -> (World, HostId, HostId) {
    World::pair(seed, NatSpec::port_restricted(), NatSpec::port_restricted())
}

/// A pair whose second leaf is set up by `configure`.
fn pair_with(seed: u64, configure: impl FnOnce(&mut Config)) -> (World, HostId, HostId) {
    let mut w = World::new(seed);
    w.add_supernodes(2);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    let router = w.add_router(NatSpec::port_restricted());
    let b = w.add_leaf_with(Place::Behind(router), configure);
    w.settle_homes(&[a, b]);
    (w, a, b)
}

/// How a stream to `service` of `peer` ends.
fn ends(w: &mut World, from: HostId, peer: PeerId, service: &str) -> StreamEnd {
    let t = w.try_transfer(from, peer, service, 10, 10).expect("open is not refused");
    w.until("the stream ends", secs(30), |w| w.client(t).ended.is_some());
    w.client(t).ended.expect("just seen").1
}

#[test]
fn every_size_both_ways_relayed_and_direct() {
    let sizes = [0, 1, 23, 24, 25, 1199, 1200, 1201, 16_384, 65_535, 65_537, 300_000];
    for spec in [NatSpec::port_restricted(), NatSpec::fully_dependent()] {
        let (mut w, a, b) = World::pair(1, spec, spec);
        let mut transfers = Vec::new();
        for (n, up) in sizes.into_iter().enumerate() {
            let down = sizes[(n * 5) % sizes.len()];
            transfers.push(w.transfer(a, b, up, down));
            transfers.push(w.transfer(b, a, down, up));
        }
        w.finish("transfers of every size", secs(120), &transfers);
    }
}

#[test]
fn a_hundred_streams_at_once() {
    let (mut w, a, b) = home_pair(2);
    let transfers: Vec<TransferId> = (0..100)
        .map(|n| {
            let (up, down) = (w.dice().size(30_000), w.dice().size(30_000));
            if n % 2 == 0 { w.transfer(a, b, up, down) } else { w.transfer(b, a, up, down) }
        })
        .collect();
    w.finish("a hundred transfers", secs(60), &transfers);
}

#[test]
fn streams_of_random_sizes_survive_path_switches_both_ways() {
    for seed in 0..4 {
        let (mut w, a, b) = home_pair(100 + seed);
        let (mut transfers, mut direct, mut relayed) = (Vec::new(), 0, 0);
        for round in 0..12 {
            for _ in 0..3 {
                let (up, down) = (w.dice().size(400_000), w.dice().size(400_000));
                let (from, to) = if w.dice().below(2) == 0 { (a, b) } else { (b, a) };
                transfers.push(w.transfer(from, to, up, down));
            }
            match round % 4 {
                0 => w.calm(),
                1 => w.cut_one_way(a, b),
                2 => w.calm(),
                _ => w.cut_one_way(b, a),
            }
            let time = w.dice().duration(secs(15));
            w.run_for(time);
            direct += u32::from(w.is_direct(a, b));
            relayed += u32::from(w.is_relayed(a, b));
        }
        w.calm();
        w.finish("all transfers", secs(120), &transfers);
        assert!(direct > 0 && relayed > 0, "paths never switched: {direct} direct, {relayed} relayed");
    }
}

#[test]
fn a_slow_reader_slows_the_writer() {
    let (mut w, a, b) = home_pair(3);
    w.hosts[b.0].app.pause_incoming = true;
    let t = w.transfer(a, b, 50_000_000, 10);
    w.run_for(secs(30));
    let taken = w.client(t).out_pos;
    assert!((10_000..16_000_000).contains(&taken), "the node took {taken} bytes that nobody reads");
    let before = w.traffic(b).packets_in;
    w.run_for(secs(30));
    assert_eq!(w.client(t).out_pos, taken);
    assert!(w.traffic(b).packets_in - before < 100, "a blocked stream keeps sending");
    w.resume(b);
    w.finish("it goes on", secs(120), &[t]);
}

#[test]
fn one_slow_reader_does_not_stop_the_other_streams() {
    let (mut w, a, b) = home_pair(4);
    w.hosts[b.0].app.pause_incoming = true;
    w.transfer(a, b, 10_000_000, 10);
    w.run_for(secs(5));
    w.hosts[b.0].app.pause_incoming = false;
    let t = w.transfer(a, b, 100_000, 100_000);
    w.finish("another stream", secs(20), &[t]);
}

#[test]
fn half_close_keeps_the_other_half_open() {
    let (mut w, a, b) = home_pair(5);
    // The client has finished long before the server has sent its part.
    let t = w.transfer(a, b, 0, 2_000_000);
    w.finish("the download", secs(60), &[t]);
}

#[test]
fn an_unknown_service() {
    let (mut w, a, b) = home_pair(6);
    let peer = w.peer(b);
    assert_eq!(ends(&mut w, a, peer, "nosuch"), StreamEnd::UnknownService);
    let t = w.transfer(a, b, 10, 10);
    w.finish("the link lives on", secs(5), &[t]);
}

#[test]
fn a_service_that_is_not_for_us() {
    let (mut w, a, b) = pair_with(7, |c| {
        c.services.insert(name("private"), Access::Peers(BTreeSet::new()));
    });
    let peer = w.peer(b);
    assert_eq!(ends(&mut w, a, peer, "private"), StreamEnd::NotAllowed);
    assert!(w.host(b).app.incoming.is_empty(), "the program behind the service heard of it");
    let t = w.transfer(a, b, 10, 10);
    w.finish("another service is", secs(5), &[t]);
}

#[test]
fn a_peer_that_lets_nobody_in_sends_one_small_answer() {
    let (mut w, a, b) = pair_with(8, |c| c.services.clear());
    let peer = w.peer(b);
    w.capture(b);
    let end = ends(&mut w, a, peer, XFER);
    assert!(
        matches!(end, StreamEnd::Connect(ConnectError::Refused) | StreamEnd::NotAllowed | StreamEnd::UnknownService),
        "{end:?}"
    );
    w.run_for(secs(10));
    let to_a = w.wire.routers[w.router_of(a).0].nat.external();
    assert!(!w.captured(b).iter().any(|s| s.outbound && s.remote.ip() == to_a), "B's address was shown to A");
}

#[test]
fn one_allowed_peer_gets_in_and_another_does_not() {
    let mut w = World::new(9);
    w.add_supernodes(2);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    let c = w.add_leaf_behind(NatSpec::port_restricted());
    let router = w.add_router(NatSpec::port_restricted());
    let only = Access::Peers(BTreeSet::from([w.peer(a)]));
    let b = w.add_leaf_with(Place::Behind(router), |config| {
        config.services.clear();
        config.services.insert(name(XFER), only);
    });
    w.settle_homes(&[a, b, c]);
    let t = w.transfer(a, b, 100, 100);
    w.finish("the allowed one", secs(10), &[t]);
    let peer = w.peer(b);
    let end = ends(&mut w, c, peer, XFER);
    assert!(matches!(end, StreamEnd::Connect(ConnectError::Refused) | StreamEnd::NotAllowed), "{end:?}");
}

#[test]
fn services_come_and_go() {
    let (mut w, a, b) = home_pair(10);
    let peer = w.peer(b);
    w.with(b, |node, now| node.withdraw(now, &name(XFER)));
    assert_eq!(ends(&mut w, a, peer, XFER), StreamEnd::UnknownService);
    w.with(b, |node, now| node.offer(now, name(XFER), Access::Any)).expect("offer");
    let t = w.transfer(a, b, 10, 10);
    w.finish("offered again", secs(5), &[t]);
    let t = w.transfer(a, b, 3_000_000, 10);
    w.run_for(ms(100));
    w.with(b, |node, now| node.withdraw(now, &name(XFER)));
    w.finish("open streams stay", secs(60), &[t]);
}

#[test]
fn a_program_that_does_not_answer() {
    let (mut w, a, b) = home_pair(11);
    let peer = w.peer(b);
    assert_eq!(ends(&mut w, a, peer, handfast_tests::app::DOWN), StreamEnd::Unavailable);
}

#[test]
fn an_unknown_peer() {
    let (mut w, a, _) = home_pair(12);
    let nobody = SecretKey::from_bytes(&[7; 32]).peer_id();
    let began = w.now();
    assert_eq!(ends(&mut w, a, nobody, XFER), StreamEnd::Connect(ConnectError::UnknownPeer));
    assert!(w.now().since(began) <= secs(10), "{:?}", w.now().since(began));
}

#[test]
fn a_peer_that_is_down() {
    let (mut w, a, b) = home_pair(13);
    w.crash(b);
    let (peer, began) = (w.peer(b), w.now());
    let end = ends(&mut w, a, peer, XFER);
    assert!(matches!(end, StreamEnd::Connect(ConnectError::Unreachable | ConnectError::UnknownPeer)), "{end:?}");
    assert!(w.now().since(began) <= secs(20), "{:?}", w.now().since(began));
}

#[test]
fn nobody_to_ask() {
    let mut w = World::new(14);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    let nobody = SecretKey::from_bytes(&[7; 32]).peer_id();
    assert_eq!(ends(&mut w, a, nobody, XFER), StreamEnd::Connect(ConnectError::NoSupernode));
}

#[test]
fn f5_supernodes_that_do_not_answer() {
    let mut w = World::new(15);
    w.add_supernodes(2);
    let a = w.add_leaf_behind(NatSpec::port_restricted());
    for s in w.supernodes.clone() {
        w.cut_one_way(s, a);
    }
    let (nobody, began) = (SecretKey::from_bytes(&[7; 32]).peer_id(), w.now());
    assert_eq!(ends(&mut w, a, nobody, XFER), StreamEnd::Connect(ConnectError::NoSupernode));
    assert!(w.now().since(began) <= secs(15), "{:?}", w.now().since(began));
}

#[test]
fn oneself_is_refused() {
    let (mut w, a, _) = home_pair(16);
    let own = w.peer(a);
    assert_eq!(w.try_transfer(a, own, XFER, 1, 1), Err(CommandError::OwnId));
    assert_eq!(w.with(a, |node, now| node.connect(now, own)), Err(CommandError::OwnId));
    assert_eq!(w.with(a, |node, now| node.ping(now, own)), Err(CommandError::OwnId));
}

#[test]
fn a_ticket_needs_no_lookup() {
    let (mut w, a, b) = home_pair(17);
    let ticket = w.ticket(b);
    let text = ticket.to_string();
    assert!(text.starts_with("hft1"));
    assert_eq!(text.parse(), Ok(ticket.clone()));
    assert_eq!(ticket.homes.len(), 2);
    // A newcomer that knows nothing but the ticket.
    let router = w.add_router(NatSpec::port_restricted());
    let c = w.add_leaf_down(Place::Behind(router), |_| {});
    w.hosts[c.0].known.clear();
    w.start(c);
    w.with(c, |node, now| node.learn(now, &ticket)).expect("learn");
    let t = w.transfer(c, b, 100, 100);
    w.finish("by the ticket", secs(10), &[t]);
    w.until("it found homes by the ticket's", secs(60), |w| w.has_homes(c, 2));
    w.expect_all_talk(&[(a, c)]);
}

#[test]
fn a_supernode_is_reached_by_its_ticket() {
    let mut w = World::new(24);
    let s = w.add_supernode();
    let (a, b) = (w.add_leaf(Place::Public), w.add_leaf_behind(NatSpec::port_restricted()));
    let ticket = w.ticket(s);
    for leaf in [a, b] {
        w.with(leaf, |node, now| node.learn(now, &ticket)).expect("learn");
    }
    let t = [w.transfer(a, s, 100_000, 200_000), w.transfer(b, s, 3_000_000, 20)];
    w.finish("transfers with a supernode", secs(30), &t);
    assert!(w.is_direct(a, s) && w.is_direct(b, s));
}

/// Opens a stream to B's service `raw` and has B accept it.
fn raw_stream(w: &mut World, a: HostId, b: HostId) -> (handfast_core::StreamKey, handfast_core::StreamKey) {
    let peer = w.peer(b);
    let out = w.with(a, |node, now| node.open(now, peer, &name("raw"))).expect("open");
    w.until("it came in", secs(10), |w| !w.host(b).app.incoming.is_empty());
    let (inward, from, service) = w.hosts[b.0].app.incoming.remove(0);
    assert_eq!((from, service), (w.peer(a), name("raw")));
    w.with(b, |node, now| node.accept(now, inward)).expect("accept");
    w.run_for(secs(1));
    assert!(w.host(a).events.iter().any(|(_, e)| *e == Event::StreamOpened { stream: out }));
    (out, inward)
}

fn raw_pair(seed: u64) -> (World, HostId, HostId) {
    pair_with(seed, |c| {
        c.services.insert(name("raw"), Access::Any);
    })
}

#[test]
fn a_reset_is_carried_through() {
    let (mut w, a, b) = raw_pair(18);
    let (out, inward) = raw_stream(&mut w, a, b);
    w.with(a, |node, now| node.write(now, out, b"some")).expect("write");
    w.with(a, |node, now| node.reset(now, out, 7)).expect("reset");
    w.run_for(secs(1));
    let end = StreamEnd::Reset(7);
    // B may still want to send, so the stream lives: it is told by its reading side alone.
    let read = w.with(b, |node, now| node.read(now, inward, &mut [0; 10]));
    assert_eq!(read, Err(StreamError::Ended(end)));
}

#[test]
fn a_stop_leaves_the_reading_side_alive() {
    let (mut w, a, b) = raw_pair(19);
    let (out, inward) = raw_stream(&mut w, a, b);
    w.with(b, |node, now| node.stop(now, inward, 9)).expect("stop");
    w.run_for(secs(1));
    assert!(w.host(a).events.iter().any(|(_, e)| *e == Event::StreamStopped { stream: out }));
    w.with(b, |node, now| node.write(now, inward, b"still here")).expect("write");
    w.with(b, |node, now| node.finish(now, inward)).expect("finish");
    w.run_for(secs(1));
    let mut buf = [0; 20];
    assert_eq!(w.with(a, |node, now| node.read(now, out, &mut buf)), Ok(Read::Bytes(10)));
    assert_eq!(&buf[..10], b"still here");
    assert_eq!(w.with(a, |node, now| node.read(now, out, &mut buf)), Ok(Read::End));
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let (mut w, a, b) = raw_pair(20);
    let (out, _) = raw_stream(&mut w, a, b);
    w.with(a, |node, now| node.finish(now, out)).expect("finish");
    assert_eq!(w.with(a, |node, now| node.write(now, out, b"more")), Err(StreamError::Finished));
    let never = handfast_core::StreamKey(u64::MAX);
    assert_eq!(w.with(a, |node, now| node.write(now, never, b"x")), Err(StreamError::Unknown));
    assert_eq!(w.with(a, |node, now| node.read(now, never, &mut [0; 4])), Err(StreamError::Unknown));
    assert_eq!(w.with(a, |node, now| node.finish(now, never)), Err(StreamError::Unknown));
}

#[test]
fn datagrams_arrive_whole() {
    let (mut w, a, b) = home_pair(21);
    let t = w.transfer(a, b, 10, 10);
    w.finish("a link", secs(10), &[t]);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    let (pa, pb) = (w.peer(a), w.peer(b));
    for len in [1usize, 100, 1000] {
        w.with(a, |node, now| node.send_datagram(now, pb, &vec![len as u8; len])).expect("send");
        w.with(b, |node, now| node.send_datagram(now, pa, &vec![7; len])).expect("send");
    }
    w.run_for(secs(1));
    let lens = |w: &World, h: HostId| w.host(h).app.datagrams.iter().map(|(_, d)| d.len()).collect::<Vec<_>>();
    assert_eq!(lens(&w, b), [1, 100, 1000]);
    assert_eq!(lens(&w, a), [1, 100, 1000]);
    assert!(
        w.host(b)
            .app
            .datagrams
            .iter()
            .all(|(from, d)| *from == pa && d.iter().all(|x| usize::from(*x) == d.len() % 256))
    );
    assert_eq!(w.with(a, |node, now| node.send_datagram(now, pb, &[0; 5000])), Err(CommandError::Datagram));
    let nobody = SecretKey::from_bytes(&[9; 32]).peer_id();
    assert_eq!(w.with(a, |node, now| node.send_datagram(now, nobody, b"x")), Err(CommandError::NotConnected));
}

#[test]
fn pings_measure_the_path_in_use() {
    let (mut w, a, b) = home_pair(22);
    let (peer, since) = (w.peer(b), w.now());
    let pongs = |w: &World| {
        let found = w.events_since(a, since).filter_map(|e| match e {
            Event::Pong { sequence, rtt, path, .. } => Some((*sequence, *rtt, *path)),
            _ => None,
        });
        found.collect::<Vec<_>>()
    };
    let first = w.with(a, |node, now| node.ping(now, peer)).expect("ping");
    w.until("a pong", secs(10), |w| pongs(w).len() == 1);
    assert_eq!(pongs(&w)[0].0, first);
    w.until("direct", secs(10), |w| w.is_direct(a, b));
    let second = w.with(a, |node, now| node.ping(now, peer)).expect("ping");
    assert_ne!(first, second);
    w.until("a second pong", secs(10), |w| pongs(w).len() == 2);
    let (sequence, rtt, path) = pongs(&w)[1];
    assert_eq!(sequence, second);
    assert!(matches!(path, PathInfo::Direct { .. }), "{path:?}");
    assert!((ms(40)..ms(42)).contains(&rtt), "{rtt:?}");
}

#[test]
fn connect_to_nobody_says_so() {
    let (mut w, a, _) = home_pair(23);
    let peer = SecretKey::from_bytes(&[7; 32]).peer_id();
    w.with(a, |node, now| node.connect(now, peer)).expect("connect");
    let error = ConnectError::UnknownPeer;
    w.until("it fails", secs(10), |w| w.host(a).events.iter().any(|(_, e)| *e == Event::ConnectFailed { peer, error }));
}

#[test]
fn who_is_disconnected_loses_link_and_streams_at_once_and_may_come_back() {
    let (mut w, a, b) = World::pair(77, NatSpec::port_restricted(), NatSpec::port_restricted());
    let t = w.transfer(a, b, 50_000_000, 1_000);
    w.run_for(secs(2));
    assert!(!w.is_done(t));
    let (peer_a, peer_b) = (w.peer(a), w.peer(b));
    w.with(b, |node, now| node.disconnect(now, &peer_a)).expect("there is a link");
    assert!(w.status(b).peers.iter().all(|p| p.peer != peer_a));
    let side = w.server(t).expect("the stream had come in");
    assert_eq!(side.ended.map(|(_, end)| end), Some(StreamEnd::PeerGone));
    w.run_for(secs(1));
    assert_eq!(w.client(t).ended.map(|(_, end)| end), Some(StreamEnd::PeerGone), "the goodbye is heard");
    let again = w.with(b, |node, now| node.disconnect(now, &peer_a));
    assert_eq!(again, Err(CommandError::NotConnected));
    // A call that is under way is given up as well.
    w.with(b, |node, now| node.connect(now, peer_a)).expect("it can be called");
    w.with(b, |node, now| node.disconnect(now, &peer_a)).expect("the call is given up");
    let t = w.transfer(a, b, 1_000, 1_000);
    w.finish("it comes back", secs(10), &[t]);
    assert!(w.path(b, a).is_some() && w.path(a, b).is_some(), "{peer_b:?}");
}
