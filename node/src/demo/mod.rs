//! `handfast demo`: the whole idea on one machine in a few seconds, without root and without a network.
//!
//! ```text
//!  TCP service ── leaf B ── router B ──┐                ┌── router A ── leaf A ── forward ── download
//!                                      ├─ 127.77.0.0/16 ┤
//!                                      └─ 3 supernodes ─┘
//! ```
//!
//! Five nodes, each a real [`Endpoint`] with a loop and sockets of its own, on loopback addresses that play a public
//! network and two homes. The two [`router`]s let nothing in that was not asked for. A downloads from B's service
//! while the path goes from relayed to direct; then B's router is rebooted during a second download. The exit code is
//! 0 only if every claim of the [`Findings`] held.

mod blob;
mod findings;
mod progress;
mod router;
mod socks;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use handfast_io::internal::Detour;
use handfast_io::{Access, Endpoint, OpenError, Options, PeerId, ServiceName};

use self::blob::Download;
use self::findings::{Carried, Findings, Introduction};
use self::progress::{PathWatch, Progress};
use self::router::Router;
use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::host;
use crate::report::short;
use crate::talk;

const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a direct path may take beyond the download that waits for it.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the router is away.
const REBOOT: Duration = Duration::from_millis(300);
/// The second download is shorter: it only has to be under way when the router goes.
const SECOND_LEN_MAX: u64 = 32 << 20;
const POLL: Duration = Duration::from_millis(5);

/// The public network. Everything else is somebody's home and not routed.
fn is_public(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [127, 77])
}

/// Runs it.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let network = Network::start().map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => Failure::new(
            Exit::Failure,
            "the demo needs the loopback addresses 127.77.x.y and 127.78.x.y",
            "Linux has them; elsewhere add them to the loopback interface",
        ),
        _ => Failure::io("cannot start the demo's nodes", &error),
    })?;
    let mut findings = network.meet(args.size << 20)?;
    network.stop();
    findings.took = began.elapsed();
    talk::data(findings.to_text()).map_err(|error| Failure::io("cannot write to standard output", &error))?;
    match findings.broken() {
        [] => Ok(Exit::Ok),
        broken => Err(Failure::bare(Exit::Failure, format!("did not hold: {}", broken.join("; ")))),
    }
}

struct Network {
    supernodes: Vec<Endpoint>,
    routers: [Router; 2],
    leaf_a: Endpoint,
    leaf_b: Endpoint,
}

impl Network {
    fn start() -> io::Result<Self> {
        let mut supernodes: Vec<Endpoint> = Vec::new();
        let mut known: Vec<(PeerId, SocketAddr)> = Vec::new();
        for n in 1..=3 {
            let at = host::free_port(SocketAddr::from(([127, 77, 0, n], 0)))?;
            let node = start_node(Options::supernode([at]), at, &known)?;
            talk::note(format!("supernode {n}  {}@{at}", short(&node.id().to_string())));
            known.push((node.id(), at));
            supernodes.push(node);
        }
        let leaf = |home: u8, known: &[(PeerId, SocketAddr)]| -> io::Result<(Router, Endpoint)> {
            let (inside, outside) = (Ipv4Addr::new(127, 78, home, 254), Ipv4Addr::new(127, 77, home, 1));
            let router = Router::start(inside, outside, is_public)?;
            let at = SocketAddr::from(([127, 78, home, 2], 0));
            let detour = Detour::new(router.internal_address()?, socks::encode, socks::unwrap);
            let leaf = start_node(Options::leaf().detour(detour), at, known)?;
            Ok((router, leaf))
        };
        // Each leaf knows one supernode, and not the same one.
        let (router_a, leaf_a) = leaf(1, &known[..1])?;
        let (router_b, leaf_b) = leaf(2, &known[1..2])?;
        Ok(Self { supernodes, routers: [router_a, router_b], leaf_a, leaf_b })
    }

    fn stop(self) {
        // At once: each goodbye may take a moment.
        thread::scope(|scope| {
            for node in self.supernodes.iter().chain([&self.leaf_a, &self.leaf_b]) {
                scope.spawn(|| node.shutdown(SHUTDOWN_TIMEOUT));
            }
        });
    }

    /// Everything that is to be shown.
    fn meet(&self, len: u64) -> Result<Findings, Failure> {
        let mut findings = Findings::default();
        let (a, b) = (&self.leaf_a, &self.leaf_b);
        let [router_a, router_b] = &self.routers;
        for (name, leaf) in [("A", a), ("B", b)] {
            if leaf.wait_ready(READY_TIMEOUT).is_err() {
                return Err(Failure::bare(Exit::Unreachable, format!("leaf {name} found no home")));
            }
        }
        for (name, leaf, router) in [("A", a, router_a), ("B", b, router_b)] {
            let seen = router.external_addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            talk::note(format!("leaf {name}       {}  behind {seen}", short(&leaf.id().to_string())));
        }
        findings.claim("an unpunched packet does not pass the routers", self.strangers_stay_outside());

        let service: ServiceName = target_service();
        let behind = blob::serve().map_err(|error| Failure::io("cannot start the service", &error))?;
        b.expose(service, behind, Access::Peers(BTreeSet::from([a.id()])))
            .map_err(|error| Failure::open(&OpenError::Command(error), "leaf B", Some(service.as_str())))?;
        let watch = PathWatch::start(a, b.id()).map_err(|error| Failure::io("cannot watch the path", &error))?;
        let forward = a
            .forward(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), b.id(), service)
            .map_err(|error| Failure::io("cannot listen", &error))?;
        let through = forward.local_address();

        let opened = Instant::now();
        let mut progress = Progress::new("download 1", len, watch.clone());
        let first = download(through, 1, len, |received| progress.at(received))?;
        progress.finish();
        wait_until(DIRECT_TIMEOUT, || watch.current().is_some_and(|path| path.is_direct()));
        let carried = Carried::of(a, b.id());
        findings.first_byte = Some(first.first_byte);
        findings.direct_after = watch.direct_after(opened);
        findings.introduction = Introduction::sum(&self.supernodes);
        findings.downloads.push((len, first.took, carried));
        findings.claim("the path began at a relay", watch.was_relayed(opened) || carried.relayed > 0);
        findings.claim("the path became direct", findings.direct_after.is_some());
        findings.claim("most of download 1 came straight", carried.direct > carried.relayed);
        findings.claim("download 1 has the right hash", first.intact);

        let second_len = len.min(SECOND_LEN_MAX);
        let before = router_b.external_addresses();
        let mut progress = Progress::new("download 2", second_len, watch.clone());
        let mut rebooted: Option<(Instant, io::Result<()>)> = None;
        let second = download(through, 2, second_len, |received| {
            if rebooted.is_none() && received * 8 >= second_len {
                progress.note("reboot      router B forgets all its mappings");
                rebooted = Some((Instant::now(), router_b.reboot(REBOOT)));
            }
            progress.at(received);
        })?;
        progress.finish();
        let at = match rebooted {
            Some((at, Ok(()))) => at,
            Some((_, Err(error))) => return Err(Failure::io("cannot reboot the router", &error)),
            None => return Err(Failure::bare(Exit::Failure, "download 2 ended before the router was rebooted")),
        };
        wait_until(DIRECT_TIMEOUT, || watch.direct_after(at).is_some());
        findings.direct_again_after = watch.direct_after(at);
        findings.downloads.push((second_len, second.took, Carried::of(a, b.id()).since(carried)));
        let after = router_b.external_addresses();
        findings.claim("the router came back with other ports", after.iter().all(|port| !before.contains(port)));
        findings.claim("download 2 survived the reboot with the right hash", second.intact);
        Ok(findings)
    }

    /// Somebody to whom nobody sent anything knocks at every mapping of both routers; every knock must be dropped.
    fn strangers_stay_outside(&self) -> bool {
        let Ok(stranger) = UdpSocket::bind((Ipv4Addr::new(127, 77, 200, 1), 0)) else { return false };
        self.routers.iter().all(|router| {
            let mappings = router.external_addresses();
            let before = router.filtered();
            let knocked = mappings.iter().filter(|at| stranger.send_to(b"knock", at).is_ok()).count() as u64;
            knocked > 0 && wait_until(READY_TIMEOUT, || router.filtered() >= before + knocked)
        })
    }
}

fn target_service() -> ServiceName {
    // A constant of ours; the parser's own tests cover its form.
    "blob".parse().unwrap_or_else(|_| unreachable!("a valid name"))
}

fn start_node(options: Options, listen: SocketAddr, bootstrap: &[(PeerId, SocketAddr)]) -> io::Result<Endpoint> {
    Endpoint::start(options.listen([listen]).bootstrap(bootstrap.iter().copied()).port_mapping(false))
}

fn download(from: SocketAddr, label: u64, len: u64, progress: impl FnMut(u64)) -> Result<Download, Failure> {
    blob::download(from, label, len, progress).map_err(|error| Failure::io(format!("download {label} failed"), &error))
}

fn wait_until(timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > timeout {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}
