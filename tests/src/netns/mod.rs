//! A laboratory of network namespaces: real kernels' routing and NAT between real processes, on one machine.
//!
//! A [`Lab`] is one bridge in a namespace of its own, the *public segment* (198.18.0.0/15 and 2001:db8::/32, every host
//! in a /24 and a /48 of its own, since nodes treat those as one owner). On it stand public [`Host`]s and
//! [`router::Router`]s; behind a router stand hosts with private addresses, or, behind a carrier's (100.64.0.0/10),
//! home routers. How a router translates and whom it lets in is a [`nat::Nat`]: every behaviour that RFC 4787 has a
//! word for, made of nftables rules that are written here and nowhere else. A router can be rebooted, renumbered, cut
//! off or made to drop packets, and a host can be unplugged or moved, while processes run. A [`meter::Meter`] counts
//! what a host sends and receives.
//!
//! Processes are started inside a namespace by [`Host::spawn`] and [`Host::run`] (see [`process`]); [`handfast`] starts
//! and questions real `handfast` nodes that way, [`scene`] puts two of them and their supernodes together, and
//! [`matrix`] does that for a table of pairs.
//!
//! A lab lives as long as its value: dropping it kills what still runs in its namespaces and deletes them. Names carry
//! the process id, so that runs do not meet each other; a run that was killed leaves namespaces behind, which the next
//! lab sweeps. When a test fails, the end of everything its processes said is printed; with `HANDFAST_LAB_KEEP=1` all
//! of it stays on disk, and `RUST_LOG=trace` makes it more.
//!
//! This needs root, Linux, and the tools `ip` (iproute2), `nft` (nftables) and `conntrack`: [`Lab::new`] panics with
//! the reason where one is missing. That is why the tests on top of it stand behind the feature `netns`.

pub mod handfast;
pub mod matrix;
pub mod meter;
pub mod miniupnpd;
pub mod nat;
pub mod process;
pub mod router;
pub mod scene;

mod tools;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use self::meter::Meter;
pub use self::nat::{Filtering, Mapping, Nat};
pub use self::router::{Router, Uplink};

use self::process::{Finished, Process, show_logs};
use self::tools::{PREFIX, add_bridge, check_tools, ip, ip_in, namespaces, remove_namespace, set_kernel, sweep};

/// A namespace with one address: a public host, or one behind a router.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    name: String,
    logs: std::path::PathBuf,
    cable: Cable,
    uplink: Option<Uplink>,
    gateway6: Option<Ipv6Addr>,
    /// Its address: public, or of the LAN.
    pub address: Ipv4Addr,
    /// Its IPv6 address, if it has one.
    pub address6: Option<Ipv6Addr>,
}

/// What leads to an interface: the far end, at a bridge.
#[derive(Clone, Default, Debug)]
struct Cable {
    namespace: String,
    port: String,
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
        add_bridge(&lab.namespace("public"), "segment");
        lab
    }

    /// A directory for files of this lab; gone with it.
    pub fn dir(&self) -> &Path {
        self.logs.path()
    }

    /// A host on the public segment.
    pub fn public_host(&mut self, name: &str) -> Host {
        self.publics += 1;
        let mut host = self.host(name);
        host.cable = self.segment_cable(&format!("h{}", self.publics), &host.namespace, "eth0");
        host.address = Ipv4Addr::new(198, 18, self.publics, 1);
        let v6 = public_v6(u16::from(self.publics), 1);
        host.address6 = Some(v6);
        ip_in(&host.namespace, &format!("addr add {}/15 dev eth0", host.address));
        ip_in(&host.namespace, &format!("addr add {v6}/32 dev eth0 nodad"));
        host
    }

    /// A router on the public segment, with empty LANs behind it.
    pub fn router(&mut self, nat: Nat) -> Router {
        self.segment_router(nat, false)
    }

    /// A carrier's router on the public segment: behind it stand home routers.
    pub fn carrier(&mut self, nat: Nat) -> Router {
        self.segment_router(nat, true)
    }

    /// A home router behind a carrier's.
    pub fn router_behind(&mut self, carrier: &mut Router, nat: Nat) -> Router {
        self.routers += 1;
        let namespace = self.add_namespace(&format!("r{}", self.routers));
        Router::behind(namespace, self.routers, carrier, nat)
    }

    /// A router whose line is dead: a LAN without internet.
    pub fn router_without_line(&mut self) -> Router {
        let router = self.router(Nat::EASY);
        router.set_cable(false);
        router
    }

    /// A host in the LAN of `router`.
    pub fn lan_host(&self, router: &mut Router, name: &str) -> Host {
        let mut host = self.host(name);
        router.connect(&mut host, "lan");
        host
    }

    /// A host in the second LAN of `router`, whose hosts and those of the first cannot reach each other's addresses.
    pub fn guest_host(&self, router: &mut Router, name: &str) -> Host {
        let mut host = self.host(name);
        router.connect(&mut host, "guest");
        host
    }

    fn segment_router(&mut self, nat: Nat, carrier: bool) -> Router {
        self.routers += 1;
        let name = format!("r{}", self.routers);
        let namespace = self.add_namespace(&name);
        let cable = self.segment_cable(&name, &namespace, "wan");
        Router::on_segment(namespace, cable, self.routers, carrier, nat)
    }

    fn segment_cable(&self, port: &str, namespace: &str, device: &str) -> Cable {
        let cable = Cable { namespace: self.namespace("public"), port: port.to_owned() };
        cable.lay("segment", namespace, device);
        cable
    }

    /// A host that is plugged in nowhere yet.
    fn host(&self, name: &str) -> Host {
        Host {
            namespace: self.add_namespace(name),
            name: name.to_owned(),
            logs: self.dir().to_owned(),
            cable: Cable::default(),
            uplink: None,
            gateway6: None,
            address: Ipv4Addr::UNSPECIFIED,
            address6: None,
        }
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn add_namespace(&self, name: &str) -> String {
        let namespace = self.namespace(name);
        ip(&["netns", "add", &namespace]);
        ip_in(&namespace, "link set lo up");
        // Whether an address is taken is known here; asking would keep IPv6 silent for a second or two.
        let no_detection = [("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0")];
        set_kernel(&namespace, &no_detection);
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

    /// Unplugs the cable, or plugs it in again: addresses and routes stay, nothing passes.
    pub fn set_cable(&self, plugged: bool) {
        self.cable.set(plugged);
    }

    /// Takes its interface down, with all routes, or up again.
    pub fn set_interface(&self, up: bool) {
        ip_in(&self.namespace, &format!("link set eth0 {}", if up { "up" } else { "down" }));
        if !up {
            return;
        }
        // The kernel has forgotten these; a real host's network manager would bring them back, too.
        if let Some(v6) = self.address6 {
            ip_in(&self.namespace, &format!("addr replace {v6}/{} dev eth0 nodad", self.prefix_v6()));
        }
        self.restore_routes();
    }

    /// Gives it one more address, which nobody routes to it.
    pub fn add_address(&self, address: Ipv4Addr) {
        ip_in(&self.namespace, &format!("addr add {address}/32 dev eth0"));
    }

    /// Leaves by another way from now on: by a [`Router::second_uplink`], or, with None, by none at all.
    pub fn set_default_route(&mut self, uplink: Option<Uplink>) {
        if self.uplink.is_some() {
            ip_in(&self.namespace, "route del default");
        }
        self.uplink = uplink;
        self.restore_routes();
    }

    /// Its first way out.
    pub fn uplink(&self) -> Option<Uplink> {
        self.uplink
    }

    fn prefix_v6(&self) -> u8 {
        if self.gateway6.is_some() { 64 } else { 32 }
    }

    fn restore_routes(&self) {
        if let Some(Uplink { device, gateway, .. }) = self.uplink {
            ip_in(&self.namespace, &format!("route replace default via {gateway} dev {device}"));
        }
        if let Some(gateway) = self.gateway6 {
            ip_in(&self.namespace, &format!("-6 route replace default via {gateway} dev eth0"));
        }
    }
}

impl Cable {
    /// Lays it from a bridge to a new interface of another namespace.
    fn lay(&self, bridge: &str, namespace: &str, device: &str) {
        let Self { namespace: from, port } = self;
        ip_in(from, &format!("link add name {port} type veth peer name {device} netns {namespace}"));
        ip_in(from, &format!("link set dev {port} master {bridge} up"));
        ip_in(namespace, &format!("link set dev {device} up"));
    }

    fn set(&self, plugged: bool) {
        ip_in(&self.namespace, &format!("link set dev {} {}", self.port, if plugged { "up" } else { "down" }));
    }
}

/// Host `host` in the /48 of number `net` of the public segment.
fn public_v6(net: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host)
}
