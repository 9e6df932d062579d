//! The laboratory itself: its routers do what their names say. Needs root; see `handfast_tests::netns`.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use handfast_tests::netns::process::Process;
use handfast_tests::netns::{Host, Lab, Nat, Router};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

fn tool(host: &Host, words: &[&str]) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_lab-udp"));
    command.args(words);
    command
}

fn echo(host: &Host) -> Process {
    let mut process = host.spawn("echo", &mut tool(host, &["echo", &format!("{}:{PORT}", host.address)]));
    process.wait_line(LIMIT, |line| (line == "ready").then_some(()));
    process
}

/// Talks from `host`'s port 5000 to all `remotes` for a second; the lines heard, sorted, each once.
fn talk(host: &Host, remotes: &[String]) -> Vec<String> {
    let mut words = vec!["talk", "0.0.0.0:5000", "1"];
    words.extend(remotes.iter().map(String::as_str));
    let mut heard: Vec<String> =
        host.run("talk", &mut tool(host, &words), LIMIT).ok().text().lines().map(str::to_owned).collect();
    heard.sort();
    heard.dedup();
    heard
}

fn at(address: Ipv4Addr, port: u16) -> String {
    format!("{address}:{port}")
}

struct Scene {
    servers: [Host; 2],
    router: Router,
    inside: Host,
    _echoes: [Process; 2],
    lab: Lab,
}

fn scene(nat: Nat) -> Scene {
    let mut lab = Lab::new();
    let servers = [lab.public_host("s1"), lab.public_host("s2")];
    let echoes = [echo(&servers[0]), echo(&servers[1])];
    let mut router = lab.router(nat);
    let inside = lab.lan_host(&mut router, "inside");
    Scene { servers, router, inside, _echoes: echoes, lab }
}

#[test]
fn easy_router_keeps_the_port_towards_everyone() {
    let scene = scene(Nat::EASY);
    let [one, two] = [at(scene.servers[0].address, PORT), at(scene.servers[1].address, PORT)];
    let seen = at(scene.router.address, 5000);
    assert_eq!(talk(&scene.inside, &[one.clone(), two.clone()]), [format!("{one} {seen}"), format!("{two} {seen}")]);
}

#[test]
fn hard_router_maps_each_destination_to_another_port() {
    let scene = scene(Nat::HARD);
    let remotes = [at(scene.servers[0].address, PORT), at(scene.servers[1].address, PORT)];
    let heard = talk(&scene.inside, &remotes);
    assert_eq!(heard.len(), 2, "{heard:?}");
    let ports: Vec<&str> = heard.iter().map(|line| line.rsplit(':').next().expect("a port")).collect();
    assert_ne!(ports[0], ports[1]);
    assert!(!ports.contains(&"5000"));
}

#[test]
fn router_drops_what_it_was_not_asked_for() {
    let scene = scene(Nat::EASY);
    // The inside talks to the first server only; the second sends to the same outer port all the while.
    let words = ["talk", "0.0.0.0:6000", "3", &at(scene.router.address, 5000)];
    let stranger = scene.servers[1].spawn("stranger", &mut tool(&scene.servers[1], &words));
    let one = at(scene.servers[0].address, PORT);
    let heard = talk(&scene.inside, std::slice::from_ref(&one));
    assert_eq!(heard, [format!("{one} {}", at(scene.router.address, 5000))]);
    assert_eq!(stranger.finish(LIMIT).ok().text(), "");
}

/// Both sides send to each other's outer address: the first packets are dropped, and later ones pass.
fn punch(left: Nat, right: Nat) -> bool {
    let mut lab = Lab::new();
    let (mut left, mut right) = (lab.router(left), lab.router(right));
    let (a, b) = (lab.lan_host(&mut left, "a"), lab.lan_host(&mut right, "b"));
    let from_a = a.spawn("talk", &mut tool(&a, &["talk", "0.0.0.0:5000", "2", &at(right.address, 5000)]));
    let from_b = b.spawn("talk", &mut tool(&b, &["talk", "0.0.0.0:5000", "2", &at(left.address, 5000)]));
    let (heard_a, heard_b) = (from_a.finish(LIMIT).ok().text(), from_b.finish(LIMIT).ok().text());
    heard_a.contains(&at(right.address, 5000)) && heard_b.contains(&at(left.address, 5000))
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
    let mut scene = scene(Nat::HARD);
    let one = at(scene.servers[0].address, PORT);
    let before = talk(&scene.inside, std::slice::from_ref(&one));
    assert_eq!(talk(&scene.inside, std::slice::from_ref(&one)), before, "the binding lives on");
    scene.router.reboot();
    let after = talk(&scene.inside, std::slice::from_ref(&one));
    assert_ne!(after, before, "a new binding has a new port");
    let old = scene.router.address;
    let new = scene.router.renumber();
    assert_ne!(new, old);
    let heard = talk(&scene.inside, std::slice::from_ref(&one));
    assert_eq!(heard.len(), 1);
    assert!(heard[0].contains(&new.to_string()), "{heard:?}");
}

#[test]
fn unplugged_router_carries_nothing() {
    let scene = scene(Nat::EASY);
    let one = at(scene.servers[0].address, PORT);
    scene.router.set_cable(false);
    assert_eq!(talk(&scene.inside, std::slice::from_ref(&one)), [""; 0]);
    scene.router.set_cable(true);
    assert_eq!(talk(&scene.inside, &[one]).len(), 1);
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
