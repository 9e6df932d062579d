//! The laboratory itself: its routers do what their names say. Needs root; see `handfast_tests::netns`.
//!
//! The scene of most tests: two echoing servers on the public segment, and a host `inside` behind the router under
//! test, which talks from its port 5000. What the servers say tells the mapping; which strangers are heard at the
//! outer port tells the filtering.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use handfast_tests::netns::process::{Process, wait_for};
use handfast_tests::netns::{Host, Lab, Mapping, Meter, Nat, Router};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const INNER: u16 = 5000;

fn tool(host: &Host, words: &[&str]) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_lab-udp"));
    command.args(words);
    command
}

fn echo(host: &Host, address: impl Into<IpAddr>, port: u16) -> Process {
    let mut process = host.spawn("echo", &mut tool(host, &["echo", &at(address, port)]));
    process.wait_line(LIMIT, |line| (line == "ready").then_some(()));
    process
}

/// Starts talking from `port` to all `remotes` for so many seconds.
fn talking(host: &Host, port: u16, seconds: u64, remotes: &[String]) -> Process {
    let (local, seconds) = (format!("[::]:{port}"), seconds.to_string());
    let local = if remotes[0].starts_with('[') { local } else { local.replace("[::]", "0.0.0.0") };
    let mut words = vec!["talk", &local, &seconds];
    words.extend(remotes.iter().map(String::as_str));
    host.spawn("talk", &mut tool(host, &words))
}

/// The lines heard, sorted, each once.
fn heard(process: Process) -> Vec<String> {
    let lines: BTreeSet<String> = process.finish(LIMIT).ok().text().lines().map(str::to_owned).collect();
    lines.into_iter().collect()
}

/// Talks from port 5000 to all `remotes` for a second; the lines heard.
fn talk(host: &Host, remotes: &[String]) -> Vec<String> {
    heard(talking(host, INNER, 1, remotes))
}

/// Talks until there is an answer: after a change it may take the kernels a second or two to find each other again.
fn wait_heard(host: &Host, remotes: &[String]) {
    let heard = wait_for(LIMIT, || (!talk(host, remotes).is_empty()).then_some(()));
    assert!(heard.is_some(), "no answer from {remotes:?}");
}

/// Where the echoes saw the talker, in the order of `remotes`. On a busy machine one of them may not have its turn within
/// the first second.
fn seen(host: &Host, port: u16, remotes: &[String]) -> Vec<SocketAddr> {
    let mut lines = BTreeSet::new();
    let of = |lines: &BTreeSet<String>, remote: &String| -> Vec<String> {
        lines.iter().filter_map(|line| line.strip_prefix(&format!("{remote} "))).map(str::to_owned).collect()
    };
    let all = wait_for(LIMIT, || {
        lines.extend(heard(talking(host, port, 1, remotes)));
        remotes.iter().all(|remote| !of(&lines, remote).is_empty()).then_some(())
    });
    assert!(all.is_some(), "not all of {remotes:?} answered: {lines:?}");
    let said = |remote: &String| {
        let places = of(&lines, remote);
        assert_eq!(places.len(), 1, "{remote} was seen in one place: {lines:?}");
        places[0].parse().expect("an address")
    };
    remotes.iter().map(said).collect()
}

fn at(address: impl Into<IpAddr>, port: u16) -> String {
    SocketAddr::new(address.into(), port).to_string()
}

struct Scene {
    servers: [Host; 2],
    router: Router,
    inside: Host,
    _echoes: Vec<Process>,
    lab: Lab,
}

fn scene(nat: Nat) -> Scene {
    let mut lab = Lab::new();
    let servers = [lab.public_host("s1"), lab.public_host("s2")];
    let mut echoes = Vec::new();
    for server in &servers {
        echoes.push(echo(server, server.address, PORT));
        echoes.push(echo(server, server.address, PORT + 1));
    }
    let mut router = lab.router(nat);
    let inside = lab.lan_host(&mut router, "inside");
    Scene { servers, router, inside, _echoes: echoes, lab }
}

impl Scene {
    /// All four echoes: two ports of each server.
    fn echoes(&self) -> Vec<String> {
        self.servers.iter().flat_map(|s| [at(s.address, PORT), at(s.address, PORT + 1)]).collect()
    }

    fn outer(&self, port: u16) -> String {
        at(self.router.address, port)
    }

    /// Who is heard at `outer`, of two strangers, while the inside talks to the first server's echo only: one of the
    /// same server, from another port, and one of the other server.
    fn strangers_heard(&self, outer: u16) -> [bool; 2] {
        let outer = [self.outer(outer)];
        let strangers = self.servers.each_ref().map(|server| talking(server, 6000, 2, &outer));
        let lines = talk(&self.inside, &self.echoes()[..1]);
        let words = self.servers.each_ref().map(|server| format!("{} hello", at(server.address, 6000)));
        for stranger in strangers {
            stranger.finish(LIMIT).ok();
        }
        words.map(|word| lines.contains(&word))
    }
}

#[test]
fn easy_router_keeps_the_port_towards_everyone() {
    let scene = scene(Nat::EASY);
    for place in seen(&scene.inside, INNER, &scene.echoes()) {
        assert_eq!(place.to_string(), scene.outer(INNER));
    }
    assert_eq!(scene.strangers_heard(INNER), [false, false]);
}

#[test]
fn endpoint_independent_router_takes_another_port_for_everyone() {
    let scene = scene(Nat::MOVED);
    let first = seen(&scene.inside, INNER, &scene.echoes());
    assert!(first.iter().all(|place| *place == first[0]), "{first:?}");
    assert_ne!(first[0].port(), INNER);
    let second = seen(&scene.inside, INNER + 1, &scene.echoes());
    assert!(second.iter().all(|place| *place == second[0]), "{second:?}");
    assert_ne!(first[0].port(), second[0].port(), "another socket, another port");
    assert_eq!(scene.strangers_heard(first[0].port()), [false, false]);
}

#[test]
fn endpoint_independent_filtering_lets_everyone_in() {
    let open = scene(Nat::OPEN);
    assert_eq!(open.strangers_heard(INNER), [true, true]);
    let moved = scene(Nat { filtering: Nat::OPEN.filtering, ..Nat::MOVED });
    let outer = seen(&moved.inside, INNER, &moved.echoes())[0].port();
    assert_eq!(moved.strangers_heard(outer), [true, true]);
    let untouched = [moved.outer(outer + 1)];
    assert_eq!(talk(&moved.servers[1], &untouched), [""; 0], "a port that nothing has opened is closed");
}

#[test]
fn address_dependent_filtering_looks_at_the_address() {
    assert_eq!(scene(Nat::ADDRESS).strangers_heard(INNER), [true, false]);
}

#[test]
fn hard_router_maps_each_destination_to_another_port() {
    let scene = scene(Nat::HARD);
    let ports: BTreeSet<u16> = seen(&scene.inside, INNER, &scene.echoes()).iter().map(SocketAddr::port).collect();
    assert_eq!(ports.len(), 4, "{ports:?}");
    assert!(!ports.contains(&INNER));
}

#[test]
fn carrier_grade_block_bounds_the_random_port() {
    let Mapping::RandomIn { first, width } = Nat::BLOCK.mapping else { panic!("not a block") };
    let scene = scene(Nat::BLOCK);
    let places = seen(&scene.inside, INNER, &scene.echoes());
    let ports: BTreeSet<u16> = places.iter().map(SocketAddr::port).collect();
    assert!(ports.len() >= 3, "{ports:?}");
    assert!(ports.iter().all(|port| (first..first + width).contains(port)), "{ports:?}");
}

#[test]
fn sequential_router_takes_the_next_port() {
    let scene = scene(Nat::SEQUENTIAL);
    let places = seen(&scene.inside, INNER, &scene.echoes());
    for pair in places.windows(2) {
        assert_eq!(pair[1].port(), pair[0].port() + 1, "{places:?}");
    }
    assert_eq!(scene.strangers_heard(places[0].port()), [false, false]);
}

#[test]
fn pooling_router_shows_several_addresses() {
    let scene = scene(Nat::POOLED);
    // Four flows each: that all sixteen get the same of four addresses has a chance of one in 10^9.
    let talkers: Vec<Process> = (0..4).map(|i| talking(&scene.inside, INNER + i, 1, &scene.echoes())).collect();
    let lines: Vec<String> = talkers.into_iter().flat_map(heard).collect();
    let seen: Vec<SocketAddr> =
        lines.iter().map(|line| line.split_once(' ').expect("two words").1.parse().expect("an address")).collect();
    assert_eq!(seen.len(), 16, "{seen:?}");
    let addresses: BTreeSet<IpAddr> = seen.iter().map(SocketAddr::ip).collect();
    assert!((2..=4).contains(&addresses.len()), "{addresses:?}");
    assert!(seen.iter().all(|place| (INNER..INNER + 4).contains(&place.port())), "ports are kept: {seen:?}");
}

/// What a host in one LAN and one in the other hear of each other at the router's outer address.
fn hairpin(nat: Nat) -> [bool; 2] {
    let mut scene = scene(nat);
    let guest = scene.lab.guest_host(&mut scene.router, "guest");
    // Both must be known to the outside, or nothing stands behind their outer ports.
    let echo = &scene.echoes()[..1];
    let ports = [seen(&scene.inside, INNER, echo)[0].port(), seen(&guest, INNER + 1, echo)[0].port()];
    let outer = ports.map(|port| at(scene.router.address, port));
    let inside = talking(&scene.inside, INNER, 2, &outer[1..]);
    let other = talking(&guest, INNER + 1, 2, &outer[..1]);
    let direct = talking(&guest, INNER + 2, 1, &[at(scene.inside.address, INNER)]);
    let result =
        [heard(inside).contains(&format!("{} hello", outer[1])), heard(other).contains(&format!("{} hello", outer[0]))];
    direct.finish(LIMIT).ok();
    let inner = [at(guest.address, 6000)];
    assert_eq!(talk(&scene.inside, &inner), [""; 0], "the two LANs do not reach each other");
    result
}

#[test]
fn hairpin_turns_round_where_it_is_wanted() {
    assert_eq!(hairpin(Nat::EASY.with_hairpin()), [true, true]);
    assert_eq!(hairpin(Nat::MOVED.with_hairpin()), [true, true]);
    assert_eq!(hairpin(Nat::OPEN.with_hairpin()), [true, true]);
    assert_eq!(hairpin(Nat::EASY), [false, false]);
}

#[test]
fn one_lan_is_one_segment() {
    let mut scene = scene(Nat::HARD);
    let other = scene.lab.lan_host(&mut scene.router, "other");
    let _echo = echo(&other, other.address, PORT);
    let place = seen(&scene.inside, INNER, &[at(other.address, PORT)]);
    assert_eq!(place[0].to_string(), at(scene.inside.address, INNER));
}

#[test]
fn lan_without_a_line_still_carries_its_own() {
    let mut lab = Lab::new();
    let server = lab.public_host("s1");
    let _echoes = echo(&server, server.address, PORT);
    let mut router = lab.router_without_line();
    let [a, b] = ["a", "b"].map(|name| lab.lan_host(&mut router, name));
    let _echo = echo(&b, b.address, PORT);
    let remotes = [at(server.address, PORT), at(b.address, PORT)];
    assert_eq!(talk(&a, &remotes), [format!("{} {}", remotes[1], at(a.address, INNER))]);
}

#[test]
fn blocked_udp_leaves_tcp() {
    let scene = scene(Nat::NO_UDP);
    let one = &scene.echoes()[..1];
    assert_eq!(talk(&scene.inside, one), [""; 0]);
    let dialed = scene.inside.run("dial", &mut tool(&scene.inside, &["dial", &one[0]]), LIMIT).ok().text();
    assert!(dialed.starts_with(&scene.router.address.to_string()), "{dialed}");
    scene.router.set_udp(true);
    assert_eq!(talk(&scene.inside, one).len(), 1);
    scene.router.set_udp(false);
    assert_eq!(talk(&scene.inside, one), [""; 0], "also on a binding that exists");
}

#[test]
fn loss_drops_its_share() {
    let scene = scene(Nat::EASY);
    let meter = Meter::new(&scene.inside);
    scene.router.set_loss(30);
    let remotes: Vec<String> = (0..50).map(|i| at(scene.servers[0].address, PORT + i % 2)).collect();
    talking(&scene.inside, INNER, 4, &remotes).finish(LIMIT).ok();
    let traffic = meter.read();
    // About 1 000 packets, of which 49 % are heard of again: five standard deviations are 8 %.
    assert!(traffic.sent.packets >= 500, "{traffic:?}");
    let share = traffic.received.packets as f64 / traffic.sent.packets as f64;
    assert!((0.37..0.61).contains(&share), "{share}: {traffic:?}");
    scene.router.set_loss(0);
    let before = meter.read();
    talk(&scene.inside, &remotes[..1]);
    let traffic = meter.read() - before;
    assert_eq!(traffic.received.packets, traffic.sent.packets);
}

#[test]
fn binding_lives_as_long_as_it_was_told() {
    let scene = scene(Nat::EASY.with_lifetime(Duration::from_secs(4)));
    let remote = &scene.echoes()[0];
    let late = |port: u16, ms: &str| {
        let words = ["late", &format!("0.0.0.0:{port}"), remote, ms];
        scene.inside.spawn("late", &mut tool(&scene.inside, &words))
    };
    let (short, long) = (late(5001, "2500"), late(5002, "5000"));
    assert_eq!(heard(short).len(), 1, "an answer within the lifetime arrives");
    assert_eq!(heard(long), [""; 0], "a later one does not");
}

#[test]
fn open_router_forgets_an_old_port_too() {
    let scene = scene(Nat::OPEN.with_lifetime(Duration::from_secs(2)));
    let late = ["late", &format!("0.0.0.0:{INNER}"), &scene.echoes()[0], "4000"];
    assert_eq!(heard(scene.inside.spawn("late", &mut tool(&scene.inside, &late))), [""; 0]);
}

#[test]
fn ipv6_firewall_lets_in_only_answers() {
    let mut lab = Lab::new();
    let server = lab.public_host("s1");
    let other = lab.public_host("s2");
    let (six, seven) = (server.address6.expect("an address"), other.address6.expect("an address"));
    let _echo = echo(&server, six, PORT);
    let mut router = lab.router(Nat::HARD.with_ipv6());
    let inside = lab.lan_host(&mut router, "inside");
    let own = inside.address6.expect("an address");
    let stranger = talking(&other, 6000, 3, &[at(own, INNER)]);
    let lines = talk(&inside, &[at(six, PORT)]);
    assert_eq!(lines, [format!("{} {}", at(six, PORT), at(own, INNER))], "untranslated, and nobody else's");
    stranger.finish(LIMIT).ok();
    // Once the inside has written to it, the stranger comes in.
    let stranger = talking(&other, 6000, 3, &[at(own, INNER)]);
    assert_eq!(talk(&inside, &[at(seven, 6000)]), [format!("{} hello", at(seven, 6000))]);
    stranger.finish(LIMIT).ok();
}

#[test]
fn carrier_stands_before_the_home() {
    let mut scene = scene(Nat::EASY);
    let mut carrier = scene.lab.carrier(Nat::SEQUENTIAL);
    let mut home = scene.lab.router_behind(&mut carrier, Nat::EASY);
    let inside = scene.lab.lan_host(&mut home, "home");
    assert_eq!(home.address.octets()[..2], [100, 64]);
    let places = seen(&inside, INNER, &scene.echoes());
    assert!(places.iter().all(|place| place.ip() == carrier.address), "{places:?}");
    assert_eq!(places[1].port(), places[0].port() + 1, "{places:?}");
    let old = home.address;
    assert_ne!(home.renumber(), old);
    let places = seen(&inside, INNER, &scene.echoes());
    assert!(places.iter().all(|place| place.ip() == carrier.address), "{places:?}");
}

/// Both sides send to each other's outer address: the first packets are dropped, and later ones pass.
fn punch(left: Nat, right: Nat) -> bool {
    let mut lab = Lab::new();
    let (mut left, mut right) = (lab.router(left), lab.router(right));
    let (a, b) = (lab.lan_host(&mut left, "a"), lab.lan_host(&mut right, "b"));
    let outer = [&left, &right].map(|router| at(router.address, INNER));
    let (from_a, from_b) = (talking(&a, INNER, 2, &outer[1..]), talking(&b, INNER, 2, &outer[..1]));
    let heard = |process, outer| heard(process).contains(&format!("{outer} hello"));
    heard(from_a, &outer[1]) & heard(from_b, &outer[0])
}

#[test]
fn two_easy_routers_can_be_punched_through() {
    assert!(punch(Nat::EASY, Nat::EASY));
}

#[test]
fn two_hard_routers_cannot() {
    assert!(!punch(Nat::HARD, Nat::HARD));
}

#[test]
fn reboot_forgets_bindings_and_renumbering_changes_the_address() {
    for nat in [Nat::HARD, Nat { filtering: Nat::OPEN.filtering, ..Nat::HARD }] {
        let mut scene = scene(nat);
        let one = scene.echoes()[..1].to_vec();
        let before = talk(&scene.inside, &one);
        assert_eq!(talk(&scene.inside, &one), before, "the binding lives on");
        scene.router.reboot();
        let after = talk(&scene.inside, &one);
        assert_ne!(after, before, "a new binding has a new port");
        let old = scene.router.address;
        let new = scene.router.renumber();
        assert_ne!(new, old);
        let heard = talk(&scene.inside, &one);
        assert_eq!(heard.len(), 1);
        assert!(heard[0].contains(&new.to_string()), "{heard:?}");
    }
}

#[test]
fn unplugged_router_carries_nothing() {
    let scene = scene(Nat::EASY);
    let one = &scene.echoes()[..1];
    scene.router.set_cable(false);
    assert_eq!(talk(&scene.inside, one), [""; 0]);
    scene.router.set_cable(true);
    wait_heard(&scene.inside, one);
    scene.inside.set_interface(false);
    assert_eq!(talk(&scene.inside, one), [""; 0]);
    scene.inside.set_interface(true);
    wait_heard(&scene.inside, one);
    scene.inside.set_cable(false);
    assert_eq!(talk(&scene.inside, one), [""; 0]);
    scene.inside.set_cable(true);
    wait_heard(&scene.inside, one);
}

#[test]
fn host_moves_to_another_router_or_leaves_by_another() {
    let mut scene = scene(Nat::EASY);
    let one = scene.echoes()[..1].to_vec();
    let mut other = scene.lab.router(Nat::EASY);
    let place = |host: &Host| {
        wait_heard(host, &one);
        seen(host, INNER, &one)[0].ip()
    };
    assert_eq!(place(&scene.inside), scene.router.address);
    let (first, second) = (scene.inside.uplink(), other.second_uplink(&scene.inside));
    assert_eq!(place(&scene.inside), scene.router.address);
    scene.inside.set_default_route(Some(second));
    assert_eq!(place(&scene.inside), other.address);
    scene.inside.set_default_route(None);
    assert_eq!(talk(&scene.inside, &one), [""; 0]);
    scene.inside.set_default_route(first);
    assert_eq!(place(&scene.inside), scene.router.address);
    let mut mobile = scene.lab.router(Nat::EASY);
    mobile.take(&mut scene.inside);
    assert_eq!(place(&scene.inside), mobile.address);
}

#[test]
fn meter_counts_what_passes_and_a_victim_keeps_quiet() {
    let mut scene = scene(Nat::EASY);
    let victim = scene.lab.public_host("victim");
    let count = Meter::of_silent(&victim);
    let own = Meter::new(&scene.inside);
    let lines = talk(&scene.inside, &[at(victim.address, 9)]);
    assert_eq!(lines, [""; 0]);
    let (sent, received) = (own.read().sent, count.read().received);
    assert_eq!(sent, received);
    assert!((4..=5).contains(&received.packets), "{received:?}");
    assert_eq!(received.payload_bytes, 5 * received.packets);
    assert_eq!(received.ip_bytes, 33 * received.packets);
    assert_eq!(count.read().sent.packets, 0);
}

#[test]
fn dropped_lab_leaves_nothing_behind() {
    let scene = scene(Nat::EASY);
    let dir = scene.lab.dir().to_owned();
    let mut endless = scene.inside.spawn("endless", scene.inside.command("sleep").arg("1000"));
    drop(scene.lab);
    assert!(!dir.exists());
    assert!(!endless.is_running(), "whatever ran inside is killed");
}
