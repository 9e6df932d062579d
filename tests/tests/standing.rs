//! A signature gives no standing: what made-up supernodes can do to honest ones. Names carry the row of the list of
//! threats.

use std::net::SocketAddr;

use handfast_core::wire::message::{Load, Message};
use handfast_core::{Event, Role};
use handfast_tests::host::HostId;
use handfast_tests::liar::{Liar, advert, answer_inits};
use handfast_tests::topology::Place;
use handfast_tests::world::World;
use handfast_tests::{ms, secs};

/// Home and relay.
const ALL: u8 = 3;

fn network(seed: u64, supernodes: usize) -> World {
    let mut w = World::new(seed);
    w.add_supernodes(supernodes);
    w.run_for(secs(20));
    w
}

/// Whom a node knows that is no host of this world.
fn made_up(w: &World, host: HostId) -> usize {
    let honest = |peer| w.supernodes.iter().any(|s| w.peer(*s) == peer);
    w.status(host).supernodes.iter().filter(|s| !honest(s.peer)).count()
}

/// An honest newcomer is known by those it was told of, and a fresh leaf finds two homes.
fn newcomers_are_welcome(w: &mut World) {
    let newcomer = w.add_supernode();
    let peer = w.peer(newcomer);
    let neighbours = [w.supernodes[0], w.supernodes[1]];
    let knows = |w: &World, host: HostId| w.status(host).supernodes.iter().any(|s| s.peer == peer);
    w.until("its neighbours know it", secs(10), |w| neighbours.iter().all(|host| knows(w, *host)));
    let leaf = w.add_leaf(Place::Public);
    w.until("a fresh leaf has two honest homes", secs(10), |w| {
        let homes = w.status(leaf).homes;
        homes.len() == 2 && homes.iter().all(|(home, _)| w.supernodes.iter().any(|s| w.peer(*s) == *home))
    });
    assert_eq!(made_up(w, leaf), 0, "it was told of honest ones only");
}

fn anywhere(n: u32) -> SocketAddr {
    let [_, _, a, b] = n.to_be_bytes();
    SocketAddr::from(([11, a, b, 1], 4_433))
}

/// With the wrong port after `--advertise`, say: it reaches everybody, and nobody it.
#[test]
fn a_supernode_that_advertises_where_nobody_reaches_it_is_told_so() {
    let mut w = network(80, 4);
    let host = w.add_leaf_down(Place::Public, |_| {});
    w.hosts[host.0].port = 4_433;
    let [right, wrong] = [4_433, 4_434].map(|port| SocketAddr::new(w.ip(host), port));
    let knows_it = |w: &World| {
        let peer = w.peer(host);
        w.supernodes.iter().filter(|s| w.status(**s).supernodes.iter().any(|known| known.peer == peer)).count()
    };
    let unreached = |w: &World| w.status(host).serving.expect("it serves").unreached;
    w.hosts[host.0].config.role = Role::Supernode { advertise: vec![wrong] };
    w.start(host);
    let since = w.now();
    w.run_for(secs(60));
    let (address, networks) = unreached(&w).expect("it is told");
    assert!(address == wrong && networks > 0);
    let told =
        w.events_since(host, since).filter(|e| matches!(e, Event::Unreached { address, .. } if *address == wrong));
    assert_eq!(told.count(), 1, "and its operator once");
    assert_eq!(knows_it(&w), 0);
    w.crash(host);
    w.hosts[host.0].config.role = Role::Supernode { advertise: vec![right] };
    w.start(host);
    w.run_for(secs(60));
    assert_eq!((unreached(&w), knows_it(&w)), (None, 4));
}

#[test]
fn h2_a_thousand_bare_adverts_over_one_link_keep_nobody_out() {
    let mut w = network(81, 6);
    let host = w.add_bystander();
    let target = w.supernodes[0];
    let mut liar = Liar::connect(&mut w, host, target, 1);
    for n in 0..1_100 {
        // Half of them take back what never was, its own among them.
        let bytes = advert(&w, 1 + n, anywhere(n), if n % 2 == 0 { ALL } else { 0 });
        liar.tell(&mut w, &bytes);
        if n % 50 == 0 {
            w.run_for(ms(20));
        }
    }
    w.run_for(secs(5));
    assert_eq!(made_up(&w, target), 0);
    newcomers_are_welcome(&mut w);
}

#[test]
fn h3_a_hundred_fakes_of_a_hundred_prefixes_are_listed_nowhere() {
    let mut w = network(82, 6);
    let host = w.add_bystander();
    let target = w.supernodes[0];
    for n in 1..=120 {
        let mut liar = Liar::connect(&mut w, host, target, n);
        let bytes = advert(&w, n, anywhere(n), ALL);
        liar.tell(&mut w, &bytes);
    }
    w.run_for(secs(5));
    for supernode in w.supernodes.clone() {
        assert_eq!(made_up(&w, supernode), 0);
    }
    newcomers_are_welcome(&mut w);
}

#[test]
fn h4_a_victim_that_many_adverts_name_gets_a_kibibyte_of_each_and_less_than_they_cost() {
    let mut w = network(83, 4);
    let host = w.add_bystander();
    let victim = w.add_bystander();
    let mut spent = 0;
    for (i, target) in w.supernodes.clone().into_iter().enumerate() {
        for n in 1..=60 {
            let n = i as u32 * 100 + n;
            let mut liar = Liar::connect(&mut w, host, target, n);
            let bytes = advert(&w, n, SocketAddr::new(w.ip(victim), 1_000 + n as u16), ALL);
            liar.tell(&mut w, &bytes);
            spent += liar.spent;
        }
    }
    w.run_for(secs(60));
    let supernodes: Vec<_> = w.supernodes.iter().map(|s| w.contact(*s).1).collect();
    let got = w.hosts[victim.0].capture.as_ref().expect("captured");
    let mut all = 0;
    for supernode in supernodes {
        let from = || got.iter().filter(|seen| !seen.outbound && seen.remote == supernode);
        let bytes: usize = from().map(|seen| seen.bytes.len() + 28).sum();
        assert!(from().count() <= 10 && bytes <= 1_024, "{} packets, {bytes} bytes", from().count());
        all += bytes;
    }
    assert!(all > 0, "some went to see");
    assert!(all <= spent, "{all} bytes for {spent}");
    newcomers_are_welcome(&mut w);
}

#[test]
fn h11_liars_from_one_address_move_nobodys_clock() {
    let mut w = network(84, 3);
    let host = w.add_bystander();
    let target = w.supernodes[0];
    for n in 1..=12 {
        let mut liar = Liar::connect(&mut w, host, target, n);
        let bytes = advert(&w, n, SocketAddr::new(w.ip(host), 2_000 + n as u16), ALL);
        liar.tell(&mut w, &bytes);
        let time_s = w.wall(target).as_secs() + 40 * 86_400;
        liar.say(&mut w, &Message::LoadReply { load: Load::default(), time_s });
    }
    w.run_for(secs(30));
    newcomers_are_welcome(&mut w);
}

#[test]
fn h3_forty_names_at_one_address_are_one_among_many() {
    let mut w = network(85, 18);
    let host = w.add_bystander();
    let target = w.supernodes[0];
    let mut liars = Vec::new();
    for n in 1..=40 {
        let mut liar = Liar::connect(&mut w, host, target, n);
        let own = SocketAddr::new(w.ip(host), 2_000 + n as u16);
        let bytes = advert(&w, n, own, ALL);
        liar.tell(&mut w, &bytes);
        liars.push(liar);
        for _ in 0..10 {
            w.run_for(ms(20));
            answer_inits(&mut w, host, &mut liars);
        }
    }
    assert!(made_up(&w, target) >= 30, "{}: they have an address, and are known by it", made_up(&w, target));
    // They tell a time of their own, and put records of leaves that never were.
    let time_s = w.wall(target).as_secs() + 40 * 86_400;
    for liar in &mut liars {
        liar.say(&mut w, &Message::LoadReply { load: Load::default(), time_s });
    }
    w.run_for(secs(5));
    // A fresh leaf is told of all prefixes before it is told of one twice.
    let leaf = w.add_leaf(Place::Public);
    w.until("two homes", secs(10), |w| w.has_homes(leaf, 2));
    w.run_for(secs(2));
    let (made_up, all) = (made_up(&w, leaf), w.status(leaf).supernodes.len());
    assert!(made_up * 4 <= all, "{made_up} of {all} are made up");
    let newcomer = w.add_supernode();
    let peer = w.peer(newcomer);
    w.until("the newcomer is known", secs(10), |w| w.status(target).supernodes.iter().any(|s| s.peer == peer));
}
