//! Registers many leaves at one supernode, in memory, and says what each of them costs it.
//!
//! `cargo run --release -p handfast-tests --example million -- 1000000`
//!
//! Every leaf is a real node that lives only until it is registered. Most keys rest at the end, as they would on a
//! supernode that runs for long.
//! The figure is the growth of the process's resident memory: what C code allocates, and what the allocator itself
//! needs, is in it, unlike in `tests/memory.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use handfast_core::{Config, Instant, Network, Node, Path, Saved, SecretKey, SocketId, WallTime};

/// Virtual time in which all register. A supernode drops a leaf that is silent for 100 s, as these are.
const ALL_WITHIN: Duration = Duration::from_secs(60);
/// Some moment in 2026.
const WALL: WallTime = WallTime::from_micros(1_790_000_000_000_000);

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn seed(n: u32) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    seed
}

fn start(now: Instant, origin: std::time::Instant, n: u32, at: SocketAddr, config: Config) -> Node {
    let key = SecretKey::from_bytes(&seed(n));
    let mut node = Node::new(now, origin, seed(!n), key, config, Saved::default()).expect("a sound configuration");
    node.handle_wall_clock(now, WALL + now.since(Instant::ZERO));
    node.handle_network(
        now,
        &Network { sockets: vec![(SocketId(0), at)], interfaces: vec![at.ip()], ..Network::default() },
    );
    node
}

/// Hands over all that `from` has to send.
fn carry(now: Instant, from: &mut Node, source: SocketAddr, to: &mut Node, dest: SocketAddr) -> bool {
    let mut buf = [0; 1500];
    let mut any = false;
    while let Some(transmit) = from.poll_transmit(now, 1, &mut buf) {
        if transmit.path.remote == dest {
            let path = Path { socket: SocketId(0), remote: source, local: None };
            let _ = to.handle_datagrams(now, path, transmit.len, &mut buf[..transmit.len]);
            any = true;
        }
    }
    while from.poll_event().is_some() {}
    any
}

fn main() {
    let leaves: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let origin = std::time::Instant::now();
    let mut now = Instant::ZERO + Duration::from_secs(1);
    let home: SocketAddr = "10.255.0.1:4242".parse().expect("an address");
    let config = Config { leaves_max: leaves as usize, ..Config::supernode(vec![home]) };
    let mut supernode = start(now, origin, 0, home, config);
    let before = resident_kib();
    for n in 1..=leaves {
        now += ALL_WITHIN / leaves;
        let [_, b, c, d] = n.to_be_bytes();
        let at = SocketAddr::from(([10, b, c, d], 4242));
        let mut leaf = start(now, origin, n, at, Config::leaf());
        leaf.join(now, &[(supernode.id(), home)]).expect("it is not leaving");
        for _ in 0..32 {
            let out = carry(now, &mut leaf, at, &mut supernode, home);
            let back = carry(now, &mut supernode, home, &mut leaf, at);
            if !out && !back {
                break;
            }
        }
        if supernode.poll_timeout().is_some_and(|due| due <= now) {
            supernode.handle_timeout(now);
        }
        if n % 10_000 == 0 || n == leaves {
            let grown = (resident_kib() - before) * 1024;
            let registered = supernode.status(now).leaves;
            println!("{registered} of {n} registered, {} bytes each, {:?}", grown / u64::from(n), origin.elapsed());
        }
    }
    // Old keys are dropped after 30 s and all rest after 5.
    for _ in 0..31 {
        now += Duration::from_secs(1);
        supernode.handle_timeout(now);
    }
    let registered = supernode.status(now).leaves;
    println!("{registered} at rest, {} MiB resident", resident_kib() / 1024);
}
