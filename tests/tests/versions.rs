//! Nodes that speak other versions: who has none in common with us is told so, and so is our user.

use core::net::SocketAddr;

use handfast_core::{Event, SecretKey};
use handfast_tests::stranger::init;
use handfast_tests::{HostId, Place, World, ms, secs};

/// Payloads that reached a host.
fn inbound(w: &World, host: HostId) -> Vec<Vec<u8>> {
    w.captured(host).iter().filter(|seen| !seen.outbound).map(|seen| seen.bytes.clone()).collect()
}

/// Of which versions a node told its user.
fn told(w: &World, host: HostId) -> Vec<(Option<SocketAddr>, u8, u8)> {
    let versions = |event: &Event| match event {
        Event::OtherVersion { remote, lowest, highest } => Some((*remote, *lowest, *highest)),
        _ => None,
    };
    w.events_since(host, handfast_core::Instant::ZERO).filter_map(versions).collect()
}

#[test]
fn an_init_of_another_version_is_answered_briefly_and_told_once_a_minute() {
    let mut w = World::new(1);
    let s = w.add_supernode();
    w.run_for(secs(10));
    let other = w.add_bystander();
    w.capture(other);
    let (from, to) = (SocketAddr::new(w.ip(other), 7_000), w.contact(s).1);
    let (_, mut packet) = init(&w, s, 9, &[0, 0]);
    packet[1] = 7;
    for _ in 0..100 {
        w.inject(other, from, to, packet.clone());
        w.run_for(ms(10));
    }
    w.run_for(secs(1));
    let answers = inbound(&w, other);
    assert!((9..=11).contains(&answers.len()), "{} answers in a second", answers.len());
    let expected = [&[10][..], &packet[2..6], &[1, 1]].concat();
    assert!(answers.iter().all(|answer| *answer == expected));
    assert_eq!(told(&w, s), [(Some(from), 7, 7)]);
    w.run_for(secs(60));
    w.inject(other, from, to, packet);
    w.run_for(secs(1));
    assert_eq!(told(&w, s).len(), 2);
}

#[test]
fn who_is_told_that_its_init_is_of_another_version_says_so_and_goes_on() {
    let mut w = World::new(2);
    let (leaf, later) = (w.add_leaf(Place::Public), w.add_bystander());
    w.capture(later);
    let address = SocketAddr::new(w.ip(later), 7_000);
    let peer = SecretKey::from_bytes(&[5; 32]).peer_id();
    w.with(leaf, |node, now| node.join(now, &[(peer, address)])).expect("room");
    w.run_for(ms(100));
    let init = inbound(&w, later).pop().expect("it dials");
    let to = w.captured(later).first().expect("it dials").remote;
    let versions = |index: &[u8], lowest, highest| [&[10][..], index, &[lowest, highest]].concat();
    // Of another Init, of versions that this one is among, and nonsense.
    for packet in [versions(&[9; 4], 3, 4), versions(&init[2..6], 1, 4), versions(&init[2..6], 4, 3)] {
        w.inject(later, address, to, packet);
        w.run_for(ms(10));
    }
    assert_eq!(told(&w, leaf), []);
    for _ in 0..3 {
        w.inject(later, address, to, versions(&init[2..6], 3, 4));
        w.run_for(ms(10));
    }
    assert_eq!(told(&w, leaf), [(Some(address), 3, 4)]);
    w.run_for(secs(3));
    assert_eq!(inbound(&w, later).len(), 3, "anybody could have said it");
}
