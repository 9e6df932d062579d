//! Real `handfast` processes on one segment: found by multicast DNS, silent when told to be, and quick to notice that
//! the network of their host changed. Needs root; see `handfast_tests::netns`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use handfast_tests::netns::handfast::{Node, program};
use handfast_tests::netns::process::wait_for;
use handfast_tests::netns::{Host, Lab};
use serde_json::Value;

/// How long anything that ought to take a second or two may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const WEB: &str = "web=127.0.0.1:8000";
/// What the log says when the host's network is another one.
const CHANGED: &str = "the network of this host changed";

fn ip(host: &Host, words: &[&str]) {
    host.run("ip", host.command("ip").args(words), SOON).ok();
}

/// Counts what a host sends by multicast DNS from now on; [`announcements`] reads it.
fn count_announcements(host: &Host) {
    let rules = "add table inet watch; add chain inet watch out { type filter hook output priority 0; }; \
                 add rule inet watch out udp dport 5353 counter";
    host.run("nft", host.command("nft").arg(rules), SOON).ok();
}

fn announcements(host: &Host) -> u64 {
    let listing =
        host.run("nft", host.command("nft").args(["list", "chain", "inet", "watch", "out"]), SOON).ok().text();
    let count = listing.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no counter in {listing}"))
}

/// A command of its own node, as somebody types it who runs none.
fn alone(host: &Host, lab: &Lab, words: &[&str]) -> Command {
    let mut command = host.command(program());
    command.args(words).arg("--state-dir").arg(lab.dir().join(host.name()));
    command
}

/// A leaf that lets `friend` in and knows no supernode.
fn island(lab: &Lab, host: &Host, friend: &str) -> Node {
    lab.leaf(host, &[], &["--lan", "on", "--expose", WEB, "--allow", friend])
}

#[test]
fn two_nodes_without_internet_find_each_other_by_key() {
    let mut lab = Lab::new();
    let (host_a, host_b) = (lab.public_host("a"), lab.public_host("b"));
    count_announcements(&host_b);
    let b = island(&lab, &host_b, &lab.identity(&host_a));
    assert_eq!(b.status()["homes"].as_array().map(Vec::len), Some(0), "it knows nobody");

    // One who has just come and runs no node of its own.
    let words = ["ping", b.id(), "--json", "-c", "3", "--require-direct", "--lan", "on"];
    let pings = host_a.run("ping", &mut alone(&host_a, &lab, &words), SOON).ok();
    let lines: Vec<Value> = pings.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let remote = line["remote"].as_str().unwrap_or_default();
        assert!(remote.starts_with(&host_b.address.to_string()), "{line}");
    }
    assert!(announcements(&host_b) > 0, "the counter counts");

    // A running one knows its LAN nodes, and forgets those that say goodbye.
    let mut a = lab.leaf(&host_a, &[], &["--lan", "on"]);
    let neighbor = |node: &Node, id: &str| {
        node.status()["neighbors"].as_array().expect("a list").iter().any(|near| near["id"] == id)
    };
    wait_for(SOON, || neighbor(&b, a.id()).then_some(())).expect("b sees a");
    let (_, code) = a.ping(b.id(), &["-c", "1", "--require-direct"], SOON);
    assert_eq!(code, 0);
    a.process().signal("TERM");
    wait_for(SOON, || (!neighbor(&b, a.id())).then_some(())).expect("a is gone");
}

#[test]
fn with_lan_off_nobody_is_found_and_nothing_is_said() {
    let mut lab = Lab::new();
    let (host_a, host_b, host_c) = (lab.public_host("a"), lab.public_host("b"), lab.public_host("c"));
    count_announcements(&host_a);
    count_announcements(&host_b);
    let friend = lab.identity(&host_a);
    let b = lab.supernode(&host_b, &[], &["--lan", "off", "--allow", &friend]);
    // Nobody is at that address.
    let nobody = format!("{}@198.18.250.1:7441", lab.identity(&host_c));
    let words = ["ping", b.id(), "-c", "1", "--lan", "off", "--bootstrap", &nobody];
    let ping = host_a.run("ping", &mut alone(&host_a, &lab, &words), SOON);
    assert_eq!(ping.code, 4, "{}", ping.stderr);
    // Without any supernode to ask there is nothing to try.
    let ping = host_a.run("ping", &mut alone(&host_a, &lab, &["ping", b.id(), "--lan", "off"]), SOON);
    assert_eq!(ping.code, 2, "{}", ping.stderr);
    assert_eq!((announcements(&host_a), announcements(&host_b)), (0, 0));
}

/// How often a leaf has said that the network of its host is another one.
fn changes(lab: &Lab, leaf: &Node) -> usize {
    let log = lab.dir().join(format!("{}.leaf.0.log", leaf.host().name()));
    fs::read_to_string(log).expect("its log").matches(CHANGED).count()
}

#[test]
fn a_change_of_address_or_route_is_noticed_and_a_transfer_goes_on() {
    let mut lab = Lab::new();
    let supernode = lab.public_host("s");
    let s = lab.supernode(&supernode, &[], &[]);
    let (host_a, host_b) = (lab.public_host("a"), lab.public_host("b"));
    // IPv6 would carry on as if nothing had happened.
    ip(&host_a, &["-6", "addr", "flush", "dev", "eth0"]);
    let friend = lab.identity(&host_a);
    let b = lab.leaf(&host_b, &[&s.ready], &["--expose", WEB, "--allow", &friend]);
    let a = lab.leaf(&host_a, &[&s.ready], &[]);

    // A download through it, slow enough to be under way all the while.
    let root = lab.dir().join("www");
    fs::create_dir(&root).expect("a directory");
    let mut content = vec![0; 40 << 20];
    blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut content);
    fs::write(root.join("data"), &content).expect("a file");
    let mut python = host_b.command("python3");
    python.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(&root).arg("8000");
    let mut server = host_b.spawn("http", &mut python);
    server.wait_line(SOON, |line| line.starts_with("Serving").then_some(()));
    let mut connect = a.spawn(&["connect", &format!("{}/web", b.id())]);
    let address = connect.wait_line(SOON, |line| Some(line.trim().to_owned()));
    let file = lab.dir().join("downloaded");
    let mut curl = host_a.command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "200", "--limit-rate", "6M", "--output"]);
    let curl = host_a.spawn("curl", curl.arg(&file).arg(format!("http://{address}/data")));
    let have = || fs::metadata(&file).map_or(0, |meta| meta.len());
    wait_for(SOON, || (have() > 4 << 20).then_some(())).expect("a part of it");

    let before = changes(&lab, &a);
    let new = "198.18.200.1";
    ip(&host_a, &["addr", "del", &format!("{}/15", host_a.address), "dev", "eth0"]);
    ip(&host_a, &["addr", "add", &format!("{new}/15"), "dev", "eth0"]);
    // Long before any beat of the leaf would show it.
    let noticed = wait_for(Duration::from_secs(5), || (changes(&lab, &a) > before).then_some(()));
    assert!(noticed.is_some(), "a new address is noticed");
    let at_new = |status: &Value, id: &str| {
        let peers = status["peers"].as_array().expect("a list");
        let remote = peers.iter().find(|peer| peer["id"] == id).and_then(|peer| peer["remote"].as_str());
        remote.is_some_and(|remote| remote.starts_with(new)).then_some(())
    };
    s.wait_status("its home sees it at its new address", Duration::from_secs(10), |status| at_new(status, a.id()));
    b.wait_status("its peer sees it at its new address", SOON, |status| at_new(status, a.id()));
    curl.finish(SOON).ok();
    let downloaded = fs::read(&file).expect("the file");
    assert_eq!(blake3::hash(&downloaded), blake3::hash(&content));

    // The same addresses, another way out; and none again.
    for words in [["route", "add", "default", "via", "198.18.0.9"], ["route", "del", "default", "via", "198.18.0.9"]] {
        let before = changes(&lab, &a);
        ip(&host_a, &words);
        let noticed = wait_for(Duration::from_secs(5), || (changes(&lab, &a) > before).then_some(()));
        assert!(noticed.is_some(), "{words:?} is noticed");
    }
    // An interface that comes up beside the others.
    let before = changes(&lab, &a);
    ip(&host_a, &["link", "add", "one", "type", "veth", "peer", "name", "other"]);
    ip(&host_a, &["addr", "add", "10.77.0.1/24", "dev", "one"]);
    ip(&host_a, &["link", "set", "one", "up"]);
    ip(&host_a, &["link", "set", "other", "up"]);
    let noticed = wait_for(Duration::from_secs(5), || (changes(&lab, &a) > before).then_some(()));
    assert!(noticed.is_some(), "a new interface is noticed");
    let (_, code) = a.ping(b.id(), &["-c", "1", "--require-direct"], SOON);
    assert_eq!(code, 0, "and all that harmed nothing");
}
