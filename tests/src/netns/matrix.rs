//! A table of pairs of leaves with the path that each must come to, and a runner that tries all of them.
//!
//! Every row is a [`Scene`] of its own with real nodes. Rows wait more than they compute, so several run at once. All
//! are tried even when some fail; the table of what was found is printed, and the logs of those that failed.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::scene::{Pair, SOON, Scene};

/// How many rows run at the same time.
const AT_ONCE: usize = 5;
/// How long a pair that must stay on the relay is watched.
const WATCHED_PINGS: &str = "40";

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is called in the report.
    pub name: &'static str,
    /// Where the two leaves are.
    pub pair: Pair,
    /// The path that `a` must come to.
    pub expected: Expected,
    /// Within which time.
    pub limit: Duration,
}

/// The path a pair must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Direct, wherever to.
    Direct,
    /// Direct to the peer's own address in the LAN.
    DirectInLan,
    /// Direct to an address of the router that both are behind.
    DirectByHairpin,
    /// Direct by IPv6.
    DirectByIpv6,
    /// Through a relay, and it stays so.
    Relay,
    /// Through a relay, and the status of the node says why.
    RelayWithReason,
    /// Both reach each other; how is a matter of luck.
    Works,
}

impl Row {
    /// A row whose path must be found soon.
    pub const fn new(name: &'static str, pair: Pair, expected: Expected) -> Self {
        Self { name, pair, expected, limit: Duration::from_secs(30) }
    }

    /// A row whose path takes patience: guessing ports may take several attempts.
    pub const fn patient(name: &'static str, pair: Pair, expected: Expected, seconds: u64) -> Self {
        Self { name, pair, expected, limit: Duration::from_secs(seconds) }
    }

    /// Builds the scene, and waits for the path. Gives back the last answered ping.
    fn run(&self) -> Value {
        let scene = Scene::new(self.pair, "ssh=127.0.0.1:22", &[]);
        let first = scene.wait_ping(SOON);
        let last = match self.expected {
            Expected::Works => first,
            Expected::Relay | Expected::RelayWithReason => watch_relay(&scene),
            _ => self.wait_direct(&scene),
        };
        let remote: Option<SocketAddr> = last["remote"].as_str().map(|remote| remote.parse().expect("an address"));
        let remote = remote.map(|remote| remote.ip());
        match self.expected {
            Expected::DirectInLan => assert_eq!(remote, Some(IpAddr::V4(scene.b.host().address))),
            Expected::DirectByHairpin => assert_eq!(remote, Some(IpAddr::V4(scene.routers[0].address))),
            Expected::DirectByIpv6 => assert_eq!(remote, scene.b.host().address6.map(IpAddr::V6)),
            Expected::RelayWithReason => {
                let why = &peer(&scene)["why"];
                assert!(why.as_str().is_some_and(|why| !why.is_empty()), "status says no \"why\" of a relayed peer");
            }
            Expected::Direct | Expected::Relay | Expected::Works => {}
        }
        last
    }

    fn wait_direct(&self, scene: &Scene) -> Value {
        let end = Instant::now() + self.limit;
        loop {
            let (lines, code) = scene.a.ping(scene.b.id(), &["--until-direct"], SOON);
            let last = lines.last().cloned().unwrap_or_default();
            if code == 0 {
                return last;
            }
            assert!(Instant::now() < end, "not direct within {:?}: {last}", self.limit);
        }
    }
}

/// Both leaves answer each other, always through a supernode.
fn watch_relay(scene: &Scene) -> Value {
    let (lines, code) = scene.a.ping(scene.b.id(), &["--until-direct", "-c", WATCHED_PINGS], SOON);
    assert_eq!(code, 7, "relayed to the end: {lines:?}");
    let last = lines.last().expect("a line").clone();
    let via = last["via"].as_str().expect("via");
    assert!(scene.supernodes.iter().any(|node| node.id() == via), "{via}");
    last
}

/// What `a`'s status says of `b`.
fn peer(scene: &Scene) -> Value {
    let status = scene.a.status();
    let peers = status["peers"].as_array().expect("a list");
    peers.iter().find(|peer| peer["id"] == scene.b.id()).expect("the peer").clone()
}

/// Tries all rows. Panics if any came to another path than it must.
pub fn run(rows: &[Row]) {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, String, bool)>> = Mutex::default();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(row) = rows.get(index) else { break };
            let began = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| row.run()));
            let seconds = began.elapsed().as_secs_f64();
            let text = match &result {
                Ok(last) => format!("{} ({seconds:.1} s)", describe(last)),
                Err(cause) => format!("FAILED: {}", words(cause.as_ref())),
            };
            results.lock().expect("no panic with the lock").push((index, text, result.is_ok()));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(rows.len()) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().expect("no panic with the lock");
    results.sort_by_key(|(index, ..)| *index);
    println!("{:44}  {:18}  came to", "pair", "must come to");
    for (index, text, _) in &results {
        println!("{:44}  {:18}  {text}", rows[*index].name, format!("{:?}", rows[*index].expected));
    }
    let failed: Vec<&str> = results.iter().filter(|(.., well)| !well).map(|(index, ..)| rows[*index].name).collect();
    assert_eq!(results.len(), rows.len(), "every row was tried");
    assert!(failed.is_empty(), "{} of {} pairs failed: {}", failed.len(), rows.len(), failed.join(", "));
}

fn describe(ping: &Value) -> String {
    let place = ping["remote"].as_str().or(ping["via"].as_str()).unwrap_or("nowhere");
    format!("{} {}", ping["path"].as_str().unwrap_or("nothing"), &place[..place.len().min(40)])
}

fn words(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").lines().next().unwrap_or_default()
}
