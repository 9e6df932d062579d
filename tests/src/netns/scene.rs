//! What most tests with real nodes need: supernodes on the public segment, a leaf `a`, the one who dials, and a leaf
//! `b`, the one who offers, each where a [`Pair`] says; and a download from `b` to `a` whose hash is checked.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::handfast::Node;
use super::process::{Process, wait_for};
use super::{Host, Lab, Nat, Router};

/// How long anything that ought to take a second or two may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
/// How long a large transfer may take.
pub const TRANSFER: Duration = Duration::from_secs(240);
/// Supernodes that relay as much as the wire carries.
pub const GENEROUS: &[&str] = &["--relay-rate", "0", "--relay-quota", "0"];
/// What `b` offers when it serves files.
pub const WEB: &str = "web=127.0.0.1:8000";

/// Where a leaf is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Site {
    /// On the public segment.
    Public,
    /// Behind a router of its own.
    Home(Nat),
    /// Behind a router of its own, behind a carrier's.
    Carrier {
        /// The router of the home.
        home: Nat,
        /// The carrier's.
        carrier: Nat,
    },
}

/// Where two leaves are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pair {
    /// Each in a place of its own: `a`, then `b`.
    Apart(Site, Site),
    /// In the same LAN.
    OneLan(Nat),
    /// In two LANs of one router, which do not reach each other's addresses.
    TwoLans(Nat),
    /// In two homes of the same carrier.
    OneCarrier {
        /// The routers of both homes.
        home: Nat,
        /// The carrier's.
        carrier: Nat,
    },
}

impl Pair {
    /// Behind a router each.
    pub const fn homes(a: Nat, b: Nat) -> Self {
        Self::Apart(Site::Home(a), Site::Home(b))
    }
}

/// Three supernodes and two leaves. Fields are dropped in this order: nodes before the lab that prints their logs and
/// removes their namespaces.
pub struct Scene {
    /// Who dials.
    pub a: Node,
    /// Who offers.
    pub b: Node,
    /// All three.
    pub supernodes: Vec<Node>,
    /// Those nearest to the leaves, `a`'s first, then a carrier's that both share; a leaf on the public segment has
    /// none.
    pub routers: Vec<Router>,
    /// The laboratory.
    pub lab: Lab,
}

/// Three supernodes on the public segment, each knowing those before it.
pub fn supernodes(lab: &mut Lab, limits: &[&str]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let host = lab.public_host(name);
        let known: Vec<String> = nodes.iter().map(|node| node.ready.clone()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let node = lab.supernode(&host, &known, limits);
        nodes.push(node);
    }
    nodes
}

impl Scene {
    /// `b` offers `service` to `a` alone; `limits` are arguments of the supernodes.
    pub fn new(pair: Pair, service: &str, limits: &[&str]) -> Self {
        let mut lab = Lab::new();
        let supernodes = supernodes(&mut lab, limits);
        let mut routers = Vec::new();
        let hosts = place(&mut lab, &mut routers, pair);
        Self::with_hosts(lab, supernodes, routers, &hosts, service)
    }

    /// The same with hosts that have been prepared: `a`'s, then `b`'s. Each leaf knows another two of the three.
    pub fn with_hosts(lab: Lab, supernodes: Vec<Node>, routers: Vec<Router>, hosts: &[Host; 2], service: &str) -> Self {
        let [s1, s2, s3] = [0, 1, 2].map(|i: usize| supernodes[i].ready.clone());
        let dialer = lab.identity(&hosts[0]);
        let b = lab.leaf(&hosts[1], &[&s2, &s3], &["--expose", service, "--allow", &dialer]);
        let a = lab.leaf(&hosts[0], &[&s1, &s2], &[]);
        Self { a, b, supernodes, routers, lab }
    }

    /// `hf1…/SERVICE` of `b`.
    pub fn target(&self, service: &str) -> String {
        format!("{}/{service}", self.b.id())
    }

    /// Pings until an answer comes directly; that line.
    #[track_caller]
    pub fn wait_direct(&self) -> Value {
        let (lines, code) = self.a.ping(self.b.id(), &["--until-direct"], SOON);
        assert_eq!(code, 0, "{lines:?}");
        let last = lines.last().expect("a line").clone();
        assert_eq!(last["path"], "direct", "{lines:?}");
        last
    }

    /// One ping that is answered, tried again until `limit`.
    #[track_caller]
    pub fn wait_ping(&self, limit: Duration) -> Value {
        let answer = wait_for(limit, || {
            let (lines, code) = self.a.ping(self.b.id(), &["-c", "1"], SOON);
            (code == 0).then(|| lines.last().cloned()).flatten()
        });
        answer.unwrap_or_else(|| panic!("no ping was answered within {limit:?}"))
    }

    /// Serves a directory with a file `data` of so many bytes at `b`, and opens `connect` at `a`.
    pub fn serve(&self, len: usize) -> Download {
        let root = self.lab.dir().join("www");
        fs::create_dir(&root).expect("a directory");
        let mut content = vec![0; len];
        blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut content);
        fs::write(root.join("data"), &content).expect("a file");
        let mut python = self.b.host().command("python3");
        python.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(&root).arg("8000");
        let mut server = self.b.host().spawn("http", &mut python);
        server.wait_line(SOON, |line| line.starts_with("Serving").then_some(()));
        let mut connect = self.a.spawn(&["connect", &self.target("web")]);
        let address = connect.wait_line(SOON, |line| Some(line.trim().to_owned()));
        Download {
            host: self.a.host().clone(),
            url: format!("http://{address}/data"),
            file: self.lab.dir().join("downloaded"),
            len,
            hash: blake3::hash(&content),
            _keep: (server, connect),
        }
    }
}

/// A file at `b` that `a` can fetch through `handfast connect`.
pub struct Download {
    host: Host,
    url: String,
    file: PathBuf,
    len: usize,
    hash: blake3::Hash,
    _keep: (Process, Process),
}

impl Download {
    /// Starts `curl`, at most so many bytes a second, so that something can happen meanwhile.
    pub fn start(&self, rate: &str) -> Process {
        let _ = fs::remove_file(&self.file);
        let mut curl = self.host.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "200", "--limit-rate", rate, "--output"]);
        self.host.spawn("curl", curl.arg(&self.file).arg(&self.url))
    }

    /// Waits until a part of the file is there.
    #[track_caller]
    pub fn wait_part(&self, percent: usize) {
        self.wait_part_within(percent, TRANSFER);
    }

    /// The same, with a limit: where a transfer may stall, but not for long.
    #[track_caller]
    pub fn wait_part_within(&self, percent: usize, limit: Duration) {
        let part = wait_for(limit, || {
            let have = fs::metadata(&self.file).map_or(0, |meta| meta.len());
            (have >= (self.len / 100 * percent) as u64).then_some(())
        });
        assert!(part.is_some(), "the download did not come to {percent} % within {limit:?}");
    }

    #[track_caller]
    /// Waits for its end, and compares what came with what was served.
    pub fn finish(&self, curl: Process) {
        curl.finish(TRANSFER).ok();
        let content = fs::read(&self.file).expect("the downloaded file");
        assert_eq!(content.len(), self.len);
        assert_eq!(blake3::hash(&content), self.hash, "what was downloaded is not what was served");
    }
}

/// Builds what stands between the leaves and the public segment, and their hosts.
pub fn place(lab: &mut Lab, routers: &mut Vec<Router>, pair: Pair) -> [Host; 2] {
    let mut home = |lab: &mut Lab, site: Site, name: &str| match site {
        Site::Public => lab.public_host(name),
        Site::Home(nat) => {
            routers.push(lab.router(nat));
            lab.lan_host(routers.last_mut().expect("just pushed"), name)
        }
        Site::Carrier { home, carrier } => {
            let mut carrier = lab.carrier(carrier);
            routers.push(lab.router_behind(&mut carrier, home));
            lab.lan_host(routers.last_mut().expect("just pushed"), name)
        }
    };
    match pair {
        Pair::Apart(a, b) => [home(lab, a, "a"), home(lab, b, "b")],
        Pair::OneLan(nat) => {
            let mut router = lab.router(nat);
            let hosts = ["a", "b"].map(|name| lab.lan_host(&mut router, name));
            routers.push(router);
            hosts
        }
        Pair::TwoLans(nat) => {
            let mut router = lab.router(nat);
            let hosts = [lab.lan_host(&mut router, "a"), lab.guest_host(&mut router, "b")];
            routers.push(router);
            hosts
        }
        Pair::OneCarrier { home, carrier } => {
            let mut carrier = lab.carrier(carrier);
            let hosts = ["a", "b"].map(|name| {
                routers.push(lab.router_behind(&mut carrier, home));
                lab.lan_host(routers.last_mut().expect("just pushed"), name)
            });
            routers.push(carrier);
            hosts
        }
    }
}
