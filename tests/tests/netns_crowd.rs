//! A crowd of real processes: 60 supernodes and 200 leaves, of which 20 supernodes are killed and started again. Needs
//! root; see `handfast_tests::netns`.
//!
//! All supernodes run in one namespace and all leaves in another, each node at an address of its own in a /24 of its own:
//! what counts is how many processes talk, and routers have their own tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use handfast_tests::netns::handfast::{Node, PORT, Starting};
use handfast_tests::netns::process::Process;
use handfast_tests::netns::{Host, Lab};
use serde_json::Value;

const SUPERNODES: usize = 60;
const LEAVES: usize = 200;
const KILLED: usize = 20;
/// So many leaves come when the killed are back.
const FRESH: usize = 30;
/// Of each node, and of all of them on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// A supernode that is killed is found dead, and another home taken, within a minute; a leaf that lost both looks for
/// others within 250 s.
const ONE_LOST: Duration = Duration::from_secs(60);
const BOTH_LOST: Duration = Duration::from_secs(250);
/// Commands that run at a time.
const AT_ONCE: usize = 10;
/// What a supernode of this network may weigh, and may have grown by in the end.
const RSS_KIB_MAX: u64 = 64 * 1024;
const GROWN_KIB_MAX: u64 = 16 * 1024;

struct Crowd {
    supernodes: Vec<Node>,
    leaves: Vec<Node>,
    leaf_host: Host,
    lab: Lab,
}

impl Crowd {
    fn new() -> Self {
        let mut lab = Lab::new();
        let (host, leaf_host) = (lab.public_host("supernodes"), lab.public_host("leaves"));
        // The first one is known to all others; three of them to each leaf.
        let first = lab.begin(&host, "s0", supernode(&host, 0, &[])).wait(READY);
        let known = [first.ready.clone()];
        let rest: Vec<Starting> =
            (1..SUPERNODES).map(|n| lab.begin(&host, &format!("s{n}"), supernode(&host, n, &known))).collect();
        let rest = rest.into_iter().map(|starting| starting.wait(READY));
        let supernodes: Vec<Node> = core::iter::once(first).chain(rest).collect();
        let mut crowd = Self { supernodes, leaves: Vec::new(), leaf_host, lab };
        crowd.add_leaves(LEAVES);
        crowd
    }

    fn add_leaves(&mut self, count: usize) {
        let numbers = self.leaves.len()..self.leaves.len() + count;
        let begin = |n: usize| {
            let known = [0, 1, 2].map(|i| self.supernodes[(n * 7 + i * 20) % SUPERNODES].ready.clone());
            self.lab.begin(&self.leaf_host, &format!("l{n}"), leaf(&self.leaf_host, n, &known))
        };
        let begun: Vec<Starting> = numbers.map(begin).collect();
        self.leaves.extend(begun.into_iter().map(|starting| starting.wait(READY)));
    }

    /// The homes of each leaf, as it says.
    fn homes(&self) -> Vec<BTreeSet<String>> {
        self.leaves.iter().map(|leaf| homes(&leaf.status())).collect()
    }

    /// Calls these leaves, each from another one; those that did not answer.
    fn call(&self, leaves: &[usize]) -> Vec<usize> {
        let mut silent = Vec::new();
        for some in leaves.chunks(AT_ONCE) {
            let ping = |n: &usize| {
                // Not the next one: it may not be one that was called a moment ago.
                let caller = &self.leaves[(n + self.leaves.len() / 2) % self.leaves.len()];
                (*n, caller.spawn(&["ping", self.leaves[*n].id(), "--json", "-c", "1"]))
            };
            let pings: Vec<(usize, Process)> = some.iter().map(ping).collect();
            let codes = pings.into_iter().map(|(n, ping)| (n, ping.finish(ONE_LOST).code));
            silent.extend(codes.filter(|(_, code)| *code != 0).map(|(n, _)| n));
        }
        silent
    }

    /// Calls these until each has answered once.
    #[track_caller]
    fn reach(&self, leaves: &[usize], limit: Duration) {
        let began = Instant::now();
        let mut silent = self.call(leaves);
        while !silent.is_empty() {
            assert!(began.elapsed() < limit, "not reached within {limit:?}: leaves {silent:?}");
            std::thread::sleep(Duration::from_secs(1));
            silent = self.call(&silent);
        }
    }

    /// KiB of memory of each supernode that runs.
    fn weights(&mut self) -> BTreeMap<String, u64> {
        self.supernodes.iter_mut().map(|node| (node.ready.clone(), weight(node.process()))).collect()
    }

    fn registered(&self) -> Vec<u64> {
        self.supernodes.iter().map(|node| node.status()["leaves"].as_u64().expect("a number")).collect()
    }
}

/// Gives the host an address of the node's own, at which it listens.
fn listen(host: &Host, n: usize, port: u16) -> String {
    let [a, b, ..] = host.address.octets();
    // Beyond what the laboratory gives to hosts by itself.
    let address = Ipv4Addr::new(a, b + 1, 20 + n as u8, if port == PORT { 1 } else { 2 });
    host.add_address(address);
    format!("{address}:{port}")
}

fn supernode(host: &Host, n: usize, known: &[String]) -> Vec<String> {
    arguments("supernode", &listen(host, n, PORT), known)
}

fn leaf(host: &Host, n: usize, known: &[String]) -> Vec<String> {
    let listen = listen(host, n, PORT + 1);
    let mut arguments = arguments("leaf", &listen, known);
    // Whoever calls is answered.
    arguments.extend(["--expose", "nothing=127.0.0.1:9", "--allow", "any"].map(str::to_owned));
    arguments
}

fn arguments(role: &str, listen: &str, known: &[String]) -> Vec<String> {
    let mut arguments = [role, "--listen", listen, "--port-map", "off"].map(str::to_owned).to_vec();
    for known in known {
        arguments.extend(["--bootstrap".to_owned(), known.clone()]);
    }
    arguments
}

fn homes(status: &Value) -> BTreeSet<String> {
    let all = status["homes"].as_array().expect("a list");
    all.iter().map(|home| home["id"].as_str().expect("a peer").to_owned()).collect()
}

fn weight(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("what it weighs");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_crowd_loses_a_third_of_its_supernodes_and_gets_them_back() {
    let mut crowd = Crowd::new();
    let all: Vec<usize> = (0..LEAVES).collect();
    crowd.reach(&all, ONE_LOST);
    let weights = crowd.weights();

    // A third of them are gone without a word. Nobody knows which leaf is where but the leaves.
    let before = crowd.homes();
    let dead: BTreeSet<String> = crowd.supernodes[..KILLED].iter().map(|node| node.id().to_owned()).collect();
    crowd.supernodes[..KILLED].iter_mut().for_each(Node::kill);
    let (orphans, others): (Vec<usize>, Vec<usize>) = all.iter().partition(|n| before[**n].is_subset(&dead));
    eprintln!("{} leaves lost both homes", orphans.len());
    assert!(others.len() > LEAVES / 2 && before.iter().any(|homes| !homes.is_disjoint(&dead)), "it shows something");
    crowd.reach(&others, ONE_LOST);
    crowd.reach(&orphans, BOTH_LOST);

    // They are back: everybody is reached, and fresh leaves find them.
    crowd.supernodes[..KILLED].iter_mut().for_each(Node::start_again);
    crowd.add_leaves(FRESH);
    let now_all: Vec<usize> = (0..LEAVES + FRESH).collect();
    crowd.reach(&now_all, ONE_LOST);
    let registered = crowd.registered();
    let back: u64 = registered[..KILLED].iter().sum();
    // The bound that is to hold is half of the mean for each within the hour; as yet only who comes anew goes there.
    assert!(back > 0, "nobody is at home at those that are back: {registered:?}");

    let mean = registered.iter().sum::<u64>() / registered.len() as u64;
    eprintln!("at home at those that are back: {:?}, in the mean of all: {mean}", &registered[..KILLED]);
    for (name, weight) in crowd.weights() {
        let grown = weight.saturating_sub(weights[&name]);
        assert!(
            weight <= RSS_KIB_MAX && grown <= GROWN_KIB_MAX,
            "{name} weighs {weight} KiB, {grown} more than before"
        );
    }
}
