//! A laboratory of network namespaces: real kernels' routing and NAT between real processes, on one machine.
//!
//! A [`Lab`] is one bridge in a namespace of its own, the *public segment* (198.18.0.0/15, every host in a /24 of its
//! own, since nodes treat a /24 as one owner). On it stand public [`Host`]s and [`Router`]s; behind a router stand
//! hosts with private addresses. Routers translate with nftables: what a LAN sends leaves masqueraded, what comes
//! unasked is dropped. Processes are started inside a namespace by [`Host::spawn`] and [`Host::run`]
//! (see [`process`]); [`handfast`] starts and questions real `handfast` nodes that way.
//!
//! A lab lives as long as its value: dropping it kills what still runs in its namespaces and deletes them. Names carry
//! the process id, so that runs do not meet each other; a run that was killed leaves namespaces behind, which the next
//! lab sweeps. When a test fails, the end of everything its processes said is printed; with `HANDFAST_LAB_KEEP=1` all
//! of it stays on disk, and `RUST_LOG=trace` makes it more.
//!
//! This needs root, Linux, and the tools `ip` (iproute2), `nft` (nftables) and `conntrack`: [`Lab::new`] panics with
//! the reason where one is missing. That is why the tests on top of it stand behind the feature `netns`.

pub mod handfast;
pub mod miniupnpd;
pub mod process;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use self::process::{Finished, Process, show_logs};

/// What all namespaces of all labs are called at first: `hflab<pid>-<number>-<host>`.
const PREFIX: &str = "hflab";

/// How a router translates, in the words of RFC 4787.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nat {
    /// How it picks the outer port.
    pub mapping: Mapping,
    /// How long it keeps a UDP binding that has seen one direction, and one that has seen both. None: Linux's own 30
    /// and 120 s.
    pub udp_timeout: Option<(Duration, Duration)>,
}

/// How a router picks the outer port of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// The inner one where it is free: as good as endpoint-independent for whoever does not share a port.
    PortPreserving,
    /// Another random one for each destination: address- and port-dependent.
    Random,
}

impl Nat {
    /// Port-preserving mapping; filtering is address- and port-dependent as with every Linux router.
    pub const EASY: Self = Self { mapping: Mapping::PortPreserving, udp_timeout: None };
    /// A random port for each destination: no two such routers can be punched through.
    pub const HARD: Self = Self { mapping: Mapping::Random, udp_timeout: None };
}

/// A namespace with one address: a public host, or one behind a router.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    name: String,
    logs: std::path::PathBuf,
    /// Its address: public, or of the LAN.
    pub address: Ipv4Addr,
}

/// A router between the public segment and a LAN of its own.
#[derive(Clone, Debug)]
pub struct Router {
    namespace: String,
    index: u8,
    hosts: u8,
    moves: u8,
    /// Its address on the public segment.
    pub address: Ipv4Addr,
}

/// The public segment and all that hangs on it.
pub struct Lab {
    prefix: String,
    logs: tempfile::TempDir,
    publics: u8,
    routers: u8,
}

impl Lab {
    /// An empty public segment. Panics, and says why, where a laboratory cannot be built.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        check_tools();
        sweep();
        let prefix = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut logs = tempfile::Builder::new().prefix("hflab").tempdir().expect("a directory for logs");
        if std::env::var_os("HANDFAST_LAB_KEEP").is_some() {
            eprintln!("logs stay in {}", logs.path().display());
            logs.disable_cleanup(true);
        }
        let lab = Self { prefix, logs, publics: 0, routers: 0 };
        lab.add_namespace("public");
        let public = lab.namespace("public");
        ip(&["-n", &public, "link", "add", "name", "segment", "type", "bridge"]);
        ip(&["-n", &public, "link", "set", "dev", "segment", "up"]);
        lab
    }

    /// A directory for files of this lab; gone with it.
    pub fn dir(&self) -> &Path {
        self.logs.path()
    }

    /// A host on the public segment.
    pub fn public_host(&mut self, name: &str) -> Host {
        self.publics += 1;
        let address = Ipv4Addr::new(198, 18, self.publics, 1);
        let namespace = self.add_namespace(name);
        plug(&self.namespace("public"), &format!("h{}", self.publics), &namespace, "eth0");
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/15"), "dev", "eth0"]);
        Host { namespace, name: name.to_owned(), logs: self.dir().to_owned(), address }
    }

    /// A router on the public segment, with an empty LAN behind it.
    pub fn router(&mut self, nat: Nat) -> Router {
        self.routers += 1;
        let index = self.routers;
        let namespace = self.add_namespace(&format!("r{index}"));
        plug(&self.namespace("public"), &format!("r{index}"), &namespace, "wan");
        ip(&["-n", &namespace, "link", "add", "name", "lan", "type", "bridge"]);
        ip(&["-n", &namespace, "link", "set", "lan", "up"]);
        let address = Ipv4Addr::new(198, 19, index, 1);
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/15"), "dev", "wan"]);
        ip(&["-n", &namespace, "addr", "add", &format!("192.168.{index}.1/24"), "dev", "lan"]);
        let router = Router { namespace, index, hosts: 0, moves: 0, address };
        router.set_kernel("net/ipv4/ip_forward", "1");
        router.set_nat(nat);
        router
    }

    /// A host in the LAN of `router`.
    pub fn lan_host(&self, router: &mut Router, name: &str) -> Host {
        router.hosts += 1;
        let address = Ipv4Addr::new(192, 168, router.index, 1 + router.hosts);
        let namespace = self.add_namespace(name);
        let port = format!("h{}", router.hosts);
        ip(&[
            "-n",
            &router.namespace,
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &namespace,
        ]);
        ip(&["-n", &router.namespace, "link", "set", "dev", &port, "master", "lan", "up"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        let gateway = format!("192.168.{}.1", router.index);
        ip(&["-n", &namespace, "route", "add", "default", "via", &gateway]);
        Host { namespace, name: name.to_owned(), logs: self.dir().to_owned(), address }
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn add_namespace(&self, name: &str) -> String {
        let namespace = self.namespace(name);
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        namespace
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(self.dir());
        }
        let own = format!("{}-", self.prefix);
        for namespace in namespaces().iter().filter(|n| n.starts_with(&own)) {
            remove_namespace(namespace);
        }
    }
}

impl Host {
    /// What it was called when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Starts a command made by [`Host::command`]. What it says goes to files called after `label`.
    pub fn spawn(&self, label: &str, command: &mut Command) -> Process {
        Process::spawn(&self.logs, &format!("{}.{label}", self.name), command)
    }

    /// Runs a command made by [`Host::command`] to its end; panics when that takes longer than `limit`.
    pub fn run(&self, label: &str, command: &mut Command, limit: Duration) -> Finished {
        self.spawn(label, command).finish(limit)
    }

    /// Unplugs the cable, or plugs it in again.
    pub fn set_cable(&self, plugged: bool) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", if plugged { "up" } else { "down" }]);
    }
}

impl Router {
    /// Translates in this way from now on.
    pub fn set_nat(&self, nat: Nat) {
        let masquerade = match nat.mapping {
            Mapping::PortPreserving => "masquerade",
            Mapping::Random => "masquerade fully-random",
        };
        // Unasked packets are dropped before conntrack commits an entry for them; an entry would take the port that
        // the LAN's own packet to that peer, a moment later, needs to keep.
        let rules = format!(
            "flush ruleset\n\
             table ip nat {{\n\
               chain post {{\n\
                 type nat hook postrouting priority 100\n\
                 oifname \"wan\" {masquerade}\n\
               }}\n\
             }}\n\
             table ip filter {{\n\
               chain input {{ type filter hook input priority 0; policy accept;\n\
                 iifname \"wan\" ct state established,related accept\n\
                 iifname \"wan\" drop\n\
               }}\n\
               chain forward {{ type filter hook forward priority 0; policy drop;\n\
                 iifname \"lan\" accept\n\
                 ct state established,related accept\n\
               }}\n\
             }}\n"
        );
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft starts");
        nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("nft ends").success(), "nft refused:\n{rules}");
        if let Some((one_way, both_ways)) = nat.udp_timeout {
            self.set_kernel("net/netfilter/nf_conntrack_udp_timeout", &one_way.as_secs().to_string());
            self.set_kernel("net/netfilter/nf_conntrack_udp_timeout_stream", &both_ways.as_secs().to_string());
        }
    }

    /// Forgets all bindings, as a router that was switched off and on. Its address stays.
    pub fn reboot(&self) {
        run(Command::new("ip").args(["netns", "exec", &self.namespace, "conntrack", "-F"]));
    }

    /// Comes back with another public address, as after a forced reconnect of the line. Bindings are gone too.
    pub fn renumber(&mut self) -> Ipv4Addr {
        self.moves += 1;
        let new = Ipv4Addr::new(198, 19, self.index + 16 * self.moves, 1);
        ip(&["-n", &self.namespace, "addr", "del", &format!("{}/15", self.address), "dev", "wan"]);
        ip(&["-n", &self.namespace, "addr", "add", &format!("{new}/15"), "dev", "wan"]);
        self.address = new;
        self.reboot();
        new
    }

    /// Unplugs the line, or plugs it in again.
    pub fn set_cable(&self, plugged: bool) {
        ip(&["-n", &self.namespace, "link", "set", "wan", if plugged { "up" } else { "down" }]);
    }

    fn set_kernel(&self, name: &str, value: &str) {
        let script = format!("echo {value} > /proc/sys/{name}");
        run(Command::new("ip").args(["netns", "exec", &self.namespace, "sh", "-c", &script]));
    }
}

/// A cable from the bridge of the public segment to a namespace.
fn plug(public: &str, port: &str, namespace: &str, device: &str) {
    ip(&["-n", public, "link", "add", "name", port, "type", "veth", "peer", "name", device, "netns", namespace]);
    ip(&["-n", public, "link", "set", "dev", port, "master", "segment", "up"]);
    ip(&["-n", namespace, "link", "set", "dev", device, "up"]);
}

fn ip(args: &[&str]) {
    run(Command::new("ip").args(args));
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
}

fn check_tools() {
    let me = std::fs::metadata("/proc/self").expect("Linux with /proc").uid();
    assert!(me == 0, "network-namespace tests need root: run them with sudo, or leave out `--features netns`");
    let mut missing = String::new();
    for (tool, flag, package) in [("ip", "-V", "iproute2"), ("nft", "-v", "nftables"), ("conntrack", "-V", "conntrack")]
    {
        let found = Command::new(tool).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            let _ = write!(missing, " {tool} (Debian package {package})");
        }
    }
    assert!(missing.is_empty(), "network-namespace tests need these tools:{missing}");
}

fn namespaces() -> BTreeSet<String> {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return BTreeSet::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Deletes what earlier, killed runs left behind: namespaces whose process is gone.
fn sweep() {
    for namespace in namespaces() {
        let Some(rest) = namespace.strip_prefix(PREFIX) else { continue };
        let Some((pid, _)) = rest.split_once('-') else { continue };
        if pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists() {
            remove_namespace(&namespace);
        }
    }
}

/// Kills whatever runs inside, then deletes it. Says nothing when another sweep was faster.
fn remove_namespace(namespace: &str) {
    if let Ok(pids) = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).output() {
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            process::signal(pid, "KILL");
        }
    }
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
}
