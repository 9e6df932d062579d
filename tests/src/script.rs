//! What a test does to a [`World`], and what it asks: cuts and calm, transfers and paths, waiting and liveness.

use core::time::Duration;

use handfast_core::{CommandError, Event, Instant, PathInfo, PeerId, ServiceName, StreamKey};

use crate::app::{Side, TransferId, XFER};
use crate::fault::Faults;
use crate::host::{HostId, Seen};
use crate::trace::Entry;
use crate::wire::Way;
use crate::world::World;

impl World {
    // ---- time ----

    /// Runs until `done`, which is asked before the first and after each step.
    ///
    /// # Panics
    /// If it takes longer than `limit`, or nothing is left to happen.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let began = self.now;
        assert!(self.until_or(limit, &mut done), "not within {limit:?}: {what}");
        self.now.since(began)
    }

    /// Runs until `done` or for `limit`, and says whether it is done.
    pub fn until_or(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            match self.next_moment() {
                Some(at) if at <= end => self.step(),
                _ => {
                    self.advance(end);
                    return false;
                }
            }
        }
    }

    /// Runs for so long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_moment().is_some_and(|at| at <= end) {
            self.step();
        }
        self.advance(end);
    }

    /// Begins to capture a host's packets, forgetting earlier ones.
    pub fn capture(&mut self, id: HostId) {
        self.hosts[id.0].capture = Some(Vec::new());
    }

    /// What was captured.
    pub fn captured(&self, id: HostId) -> &[Seen] {
        self.hosts[id.0].capture.as_deref().unwrap_or(&[])
    }

    // ---- faults ----

    /// No datagram gets from one host to the other.
    pub fn cut_one_way(&mut self, from: HostId, to: HostId) {
        self.note(from, "is cut");
        self.wire.cuts.insert((from, to));
    }

    /// The way between two hosts, in both directions, becomes like this; what they send through relays is not harmed.
    pub fn degrade(&mut self, a: HostId, b: HostId, way: Way) {
        self.note(a, "has a bad way");
        self.wire.ways.insert((a, b), way);
        self.wire.ways.insert((b, a), way);
    }

    /// Splits the internet: these hosts reach only each other.
    pub fn partition(&mut self, island: &[HostId]) {
        for host in island {
            self.note(*host, "is on an island");
            self.wire.groups.insert(*host, 1);
        }
    }

    /// Ends all cuts, partitions and faults.
    pub fn calm(&mut self) {
        self.trace.note(self.now, Entry::Script, usize::MAX, "calm");
        self.wire.cuts.clear();
        self.wire.ways.clear();
        self.wire.groups.clear();
        self.wire.passable.clear();
        self.wire.faults = Faults::none();
    }

    // ---- the application's side ----

    /// Starts a transfer of so many bytes each way.
    pub fn transfer(&mut self, from: HostId, to: HostId, up: u64, down: u64) -> TransferId {
        let peer = self.peer(to);
        self.try_transfer(from, peer, XFER, up, down).expect("open is not refused")
    }

    /// The same, to any peer and service.
    pub fn try_transfer(
        &mut self,
        from: HostId,
        peer: PeerId,
        service: &str,
        up: u64,
        down: u64,
    ) -> Result<TransferId, CommandError> {
        let now = self.now;
        let service: ServiceName = service.parse().expect("a service name");
        let host = &mut self.hosts[from.0];
        let node = host.node.as_mut().expect("the node is up");
        let stream: StreamKey = node.open(now, peer, &service)?;
        self.transfers += 1;
        let id = TransferId(self.transfers);
        host.app.start(now, node, stream, id, peer, up, down);
        self.drain(from);
        Ok(id)
    }

    /// Lets a paused application read on.
    pub fn resume(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        host.app.resume(self.now, host.node.as_mut().expect("the node is up"));
        self.drain(id);
    }

    /// The side of a transfer that opened it.
    pub fn client(&self, id: TransferId) -> &Side {
        let mut sides = self.hosts.iter().flat_map(|h| h.app.sides.values());
        sides.find(|side| side.id == Some(id) && side.client).expect("a transfer of this world")
    }

    /// The side of a transfer that was opened, once its header has arrived.
    pub fn server(&self, id: TransferId) -> Option<&Side> {
        self.hosts.iter().flat_map(|h| h.app.sides.values()).find(|side| side.id == Some(id) && !side.client)
    }

    /// Whether both sides of a transfer are done.
    ///
    /// # Panics
    /// If one of them ended before that.
    pub fn is_done(&self, id: TransferId) -> bool {
        let (client, server) = (self.client(id), self.server(id));
        for side in [Some(client), server].into_iter().flatten() {
            assert!(side.ended.is_none(), "a transfer ended early: {side:?}");
        }
        client.done.is_some() && server.is_some_and(|side| side.done.is_some())
    }

    /// Runs until these transfers are done, and says how long that took.
    pub fn finish(&mut self, what: &str, limit: Duration, transfers: &[TransferId]) -> Duration {
        self.until(what, limit, |w| transfers.iter().all(|t| w.is_done(*t)))
    }

    /// The path in use from one host to another.
    pub fn path(&self, from: HostId, to: HostId) -> Option<PathInfo> {
        self.hosts[from.0].node.as_ref()?.path_of(&self.peer(to)).map(|(path, _)| path)
    }

    /// Whether both hosts use a direct path to each other.
    pub fn is_direct(&self, a: HostId, b: HostId) -> bool {
        [(a, b), (b, a)].iter().all(|&(x, y)| self.path(x, y).is_some_and(|p| p.is_direct()))
    }

    /// Whether both hosts use a relayed path to each other.
    pub fn is_relayed(&self, a: HostId, b: HostId) -> bool {
        [(a, b), (b, a)].iter().all(|&(x, y)| matches!(self.path(x, y), Some(PathInfo::Relay { .. })))
    }

    /// Whether a leaf has so many homes.
    pub fn has_homes(&self, leaf: HostId, n: usize) -> bool {
        self.hosts[leaf.0].node.as_ref().is_some_and(|node| node.status(self.now).homes.len() >= n)
    }

    /// Whether a node has said that it can be used since its last start or `Homeless`.
    pub fn is_ready(&self, id: HostId) -> bool {
        let host = &self.hosts[id.0];
        let last = host.events[host.events_before..].iter().rev();
        let mut states = last.filter(|(_, e)| matches!(e, Event::Ready | Event::Homeless));
        self.is_up(id) && matches!(states.next(), Some((_, Event::Ready)))
    }

    /// Events of a host since a moment.
    pub fn events_since(&self, id: HostId, since: Instant) -> impl Iterator<Item = &Event> {
        self.hosts[id.0].events.iter().filter(move |(at, _)| *at >= since).map(|(_, e)| e)
    }

    /// Runs until every leaf is at home twice (once, where there is but one supernode).
    pub fn settle_homes(&mut self, leaves: &[HostId]) {
        let homes = self.supernodes.iter().filter(|s| self.is_up(**s)).count().min(2);
        self.until("every leaf is at home", Duration::from_secs(60), |w| {
            leaves.iter().all(|leaf| w.is_ready(*leaf) && w.has_homes(*leaf, homes))
        });
    }

    /// Liveness: on a calm wire every pair talks within a minute.
    pub fn expect_all_talk(&mut self, pairs: &[(HostId, HostId)]) {
        let transfers: Vec<TransferId> = pairs.iter().map(|&(a, b)| self.transfer(a, b, 1000, 1000)).collect();
        self.finish("every pair talks", Duration::from_secs(60), &transfers);
    }
}
