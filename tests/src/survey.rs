//! Surveys: many pairs in one world, each of which talks and may become direct, and what each reached.
//!
//! [`Survey::pair`] puts a pair of leaves in the world, [`Survey::run`] lets all of them call and keep talking for
//! [`WATCHED`], and [`Survey::results`] says what became of each: when it was direct, how many probes that took, and
//! how long the longest of its transfers did. Traffic has to flow all the while, by the relay until there is better.

use core::time::Duration;

use handfast_core::{Event, Instant};

use crate::app::TransferId;
use crate::host::HostId;
use crate::oracle::Side;
use crate::world::World;

/// How long a pair is watched after its call: a first attempt, and retries that may each guess for 20 s.
pub const WATCHED: Duration = Duration::from_secs(75);
/// A transfer is begun so often.
const TALKS_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a transfer, each way.
const TALK: u64 = 500;

/// What one pair reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    /// How long after the call both sides used a direct path, if they still do at the end.
    pub direct: Option<Duration>,
    /// Whether both sides use a relayed path at the end.
    pub relayed: bool,
    /// Packets that the two sent to anybody but supernodes until then.
    pub probes: usize,
    /// How long the slowest of its transfers took; none if one did not end.
    pub slowest: Option<Duration>,
}

impl Reached {
    /// One word for it.
    pub const fn class(&self) -> &'static str {
        match (self.direct, self.relayed) {
            (Some(_), _) => "direct",
            (None, true) => "relay",
            (None, false) => "nothing",
        }
    }
}

struct Pair {
    caller: HostId,
    callee: HostId,
    called: Instant,
    talks: Vec<TransferId>,
}

/// Pairs in one world.
pub struct Survey {
    /// The world.
    pub world: World,
    pairs: Vec<Pair>,
}

impl Survey {
    /// A world with supernodes and no pairs.
    pub fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.add_supernodes(5);
        Self { world, pairs: Vec::new() }
    }

    /// A leaf on each of two sides, of which the first calls.
    pub fn pair(&mut self, caller: &Side, callee: &Side) {
        let (caller, callee) = (self.world.add_leaf_on(caller), self.world.add_leaf_on(callee));
        self.add(caller, callee);
    }

    /// Two leaves of the world.
    pub fn add(&mut self, caller: HostId, callee: HostId) {
        for host in [caller, callee] {
            self.world.hosts[host.0].probes = Some(Vec::new());
        }
        self.pairs.push(Pair { caller, callee, called: Instant::ZERO, talks: Vec::new() });
    }

    /// Waits until every leaf is at home (but those in `homeless`, which cannot be), then lets all pairs call and
    /// watches them.
    pub fn run(&mut self, homeless: &[HostId]) {
        let leaves = self.pairs.iter().flat_map(|p| [p.caller, p.callee]).filter(|leaf| !homeless.contains(leaf));
        let leaves: Vec<HostId> = leaves.collect();
        self.world.settle_homes(&leaves);
        // Let the nodes find out what router they are behind.
        self.world.run_for(Duration::from_secs(20));
        let end = self.world.now() + WATCHED;
        for n in 0..self.pairs.len() {
            self.pairs[n].called = self.world.now();
            self.talk(n);
            // Homes take so many introductions a second.
            self.world.run_for(Duration::from_millis(20));
        }
        while self.world.now() < end {
            self.world.run_for(TALKS_EVERY);
            for n in 0..self.pairs.len() {
                if self.world.now() + TALKS_EVERY < end {
                    self.talk(n);
                }
            }
        }
    }

    fn talk(&mut self, n: usize) {
        let Pair { caller, callee, .. } = self.pairs[n];
        // One that cannot reach the other is left with what it has begun.
        let last = self.pairs[n].talks.last();
        if last.is_some_and(|t| self.world.client(*t).done.is_none()) {
            return;
        }
        let talk = self.world.transfer(caller, callee, TALK, TALK);
        self.pairs[n].talks.push(talk);
    }

    /// What each pair reached, in the order in which they were added.
    pub fn results(&self) -> Vec<Reached> {
        self.pairs.iter().map(|pair| self.result(pair)).collect()
    }

    fn result(&self, pair: &Pair) -> Reached {
        let w = &self.world;
        let Pair { caller, callee, called, .. } = *pair;
        let since = w.is_direct(caller, callee).then(|| {
            let last = |a, b| self.direct_since(a, b);
            last(caller, callee).max(last(callee, caller)).max(called)
        });
        let until = since.unwrap_or(w.now());
        let probes = |host: HostId| {
            let all = w.hosts[host.0].probes.as_ref().expect("counted");
            all.iter().filter(|at| **at >= called && **at <= until).count()
        };
        let took = |t: &TransferId| {
            let client = w.client(*t);
            client.done.map(|at| at.since(client.since))
        };
        let slowest = pair.talks.iter().map(took).reduce(|a, b| Some(a?.max(b?))).flatten();
        Reached {
            direct: since.map(|at| at.since(called)),
            relayed: w.is_relayed(caller, callee),
            probes: probes(caller) + probes(callee),
            slowest,
        }
    }

    /// Since when one of a pair, which is direct now, has been.
    fn direct_since(&self, from: HostId, to: HostId) -> Instant {
        let wanted = self.world.peer(to);
        let mut since = None;
        for (at, event) in &self.world.hosts[from.0].events {
            if let Event::PathChanged { peer, path } = event
                && *peer == wanted
            {
                since = if path.is_direct() { since.or(Some(*at)) } else { None };
            }
        }
        since.expect("a path in use was announced")
    }
}

/// The middle one, the lower of two; none of nothing.
pub fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut all: Vec<T> = values.collect();
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) / 2).copied()
}
