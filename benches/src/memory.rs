//! Nodes joined in memory: one clock, every datagram arrives after the same delay, nothing is lost.
//!
//! Node 0 is the supernode; the others hear nobody else, so that whatever they say to each other is relayed. The time
//! that one of the nodes spends in its own code can be measured: see [`Net::time`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use handfast_core::{
    Config, DATAGRAM_LEN_MAX, Event, Instant, Network, Node, Path, PeerId, Received, Saved, SocketId, WallTime,
};

use crate::{key, seed};

/// How long a datagram travels.
const DELAY: Duration = Duration::from_millis(10);
/// The wall clock at the start. Any moment will do.
const WALL_START_US: u64 = 1_700_000_000_000_000;
/// The one socket that each node has.
pub const SOCKET: SocketId = SocketId(0);
/// Where the supernode is.
pub const SUPERNODE: SocketAddr = address(0);

const fn address(number: u64) -> SocketAddr {
    let [_, _, _, _, _, b, c, d] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), 7441)
}

struct Member {
    node: Node,
    address: SocketAddr,
    events: Vec<Event>,
    relayed: Option<Vec<u8>>,
    spent: Duration,
}

struct Flight {
    source: SocketAddr,
    target: SocketAddr,
    bytes: Vec<u8>,
}

/// The nodes, by number, and what is on its way between them.
pub struct Net {
    now: Instant,
    members: BTreeMap<u64, Member>,
    flights: BTreeMap<(Instant, u64), Flight>,
    sent: u64,
    timed: Option<u64>,
}

impl Net {
    /// A supernode, number 0, that relays without limit.
    pub fn new() -> Self {
        let mut net =
            Self { now: Instant::ZERO, members: BTreeMap::new(), flights: BTreeMap::new(), sent: 0, timed: None };
        let config = Config {
            relay_rate_bps: 0,
            relay_quota_bytes: 0,
            leaves_max: 1_000_000,
            ..Config::supernode(vec![SUPERNODE])
        };
        net.add(0, config);
        net.run(Duration::from_secs(1));
        net
    }

    /// Another leaf, joined to the supernode. Numbers are not used twice.
    pub fn add_leaf(&mut self, number: u64) {
        let mut config = Config::leaf();
        config.services.insert(crate::service(), handfast_core::Access::Any);
        self.add(number, config);
        let now = self.now;
        let supernode = self.id(0);
        self.node(number).join(now, &[(supernode, SUPERNODE)]).expect("a new node takes a supernode");
        self.drain(number);
    }

    fn add(&mut self, number: u64, config: Config) {
        let origin = std::time::Instant::now();
        let node = Node::new(self.now, origin, seed(number), key(number), config, Saved::default());
        let mut node = node.expect("a good configuration");
        node.handle_wall_clock(self.now, self.wall());
        let address = address(number);
        let network =
            Network { sockets: vec![(SOCKET, address)], interfaces: vec![address.ip()], ..Network::default() };
        node.handle_network(self.now, &network);
        let member = Member { node, address, events: Vec::new(), relayed: None, spent: Duration::ZERO };
        assert!(self.members.insert(number, member).is_none(), "number {number} is taken");
        self.drain(number);
    }

    /// Takes a leaf away without a goodbye.
    pub fn remove(&mut self, number: u64) {
        self.members.remove(&number);
    }

    /// The identity of a number.
    pub fn id(&self, number: u64) -> PeerId {
        key(number).peer_id()
    }

    /// Where a number is.
    pub fn address(&self, number: u64) -> SocketAddr {
        address(number)
    }

    /// The clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> WallTime {
        WallTime::from_micros(WALL_START_US + self.now.as_micros())
    }

    /// A node, to be told something. Call [`Net::drain`] afterwards.
    pub fn node(&mut self, number: u64) -> &mut Node {
        &mut self.member(number).node
    }

    fn member(&mut self, number: u64) -> &mut Member {
        self.members.get_mut(&number).expect("a node of this net")
    }

    /// What a node has said since this was last asked.
    pub fn events(&mut self, number: u64) -> Vec<Event> {
        std::mem::take(&mut self.member(number).events)
    }

    /// The last Relay packet that carried a Data or Stream packet of this node.
    pub fn relayed(&mut self, number: u64) -> Option<Vec<u8>> {
        self.member(number).relayed.clone()
    }

    /// From now on measures the time that this node spends; gives back what the one before has spent since.
    pub fn time(&mut self, number: Option<u64>) -> Duration {
        let spent = self.timed.and_then(|before| self.members.get_mut(&before)).map(|member| member.spent);
        self.timed = number;
        if let Some(number) = number {
            self.member(number).spent = Duration::ZERO;
        }
        spent.unwrap_or_default()
    }

    /// Lets a node act and puts what it says on the wire.
    fn act(&mut self, number: u64, call: impl FnOnce(&mut Node, Instant) -> Option<(SocketAddr, Vec<u8>)>) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let begin = std::time::Instant::now();
        let forward = call(&mut member.node, self.now);
        let mut out: Vec<(SocketAddr, Vec<u8>)> = forward.into_iter().collect();
        let mut buf = [0; DATAGRAM_LEN_MAX];
        while let Some(transmit) = member.node.poll_transmit(self.now, 1, &mut buf) {
            let bytes = &buf[..transmit.len];
            if bytes.first() == Some(&5) && matches!(bytes.get(7), Some(4 | 7)) {
                member.relayed = Some(bytes.to_vec());
            }
            out.push((transmit.path.remote, bytes.to_vec()));
        }
        while let Some(event) = member.node.poll_event() {
            member.events.push(event);
        }
        if self.timed == Some(number) {
            member.spent += begin.elapsed();
        }
        let source = member.address;
        for (target, bytes) in out {
            // Leaves hear the supernode alone.
            if source == SUPERNODE || target == SUPERNODE {
                self.sent += 1;
                self.flights.insert((self.now + DELAY, self.sent), Flight { source, target, bytes });
            }
        }
    }

    /// Takes out what a node has to say.
    pub fn drain(&mut self, number: u64) {
        self.act(number, |_, _| None);
    }

    fn deliver(&mut self, flight: Flight) {
        let IpAddr::V4(v4) = flight.target.ip() else { return };
        let [_, b, c, d] = v4.octets();
        let number = u64::from_be_bytes([0, 0, 0, 0, 0, b, c, d]);
        self.act(number, |node, now| {
            let mut bytes = flight.bytes;
            let path = Path { socket: SOCKET, remote: flight.source, local: None };
            let stride = bytes.len();
            match node.handle_datagrams(now, path, stride, &mut bytes) {
                (_, Received::Forward { path, range, .. }) => Some((path.remote, bytes[range].to_vec())),
                (_, Received::Consumed | Received::Dropped(_)) => None,
            }
        });
    }

    /// Goes to the next thing that happens before `end`; false, and the clock at `end`, when there is none.
    fn step(&mut self, end: Instant) -> bool {
        let timeout = self.members.iter_mut().filter_map(|(n, m)| m.node.poll_timeout().map(|at| (at, *n))).min();
        let flight = self.flights.keys().next().copied();
        match (timeout, flight) {
            (timeout, Some(at)) if at.0 <= end && timeout.is_none_or(|(due, _)| at.0 <= due) => {
                self.now = self.now.max(at.0);
                let flight = self.flights.remove(&at).expect("seen just now");
                self.deliver(flight);
                true
            }
            (Some((due, number)), _) if due <= end => {
                self.now = self.now.max(due);
                self.act(number, |node, now| {
                    node.handle_timeout(now);
                    None
                });
                true
            }
            _ => {
                self.now = self.now.max(end);
                false
            }
        }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    /// Lets time pass until `done`, at most a minute.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !done(self) {
            assert!(self.step(end), "not within a minute: {what}");
        }
    }

    /// Lets time pass until a leaf is registered.
    pub fn run_until_ready(&mut self, number: u64) {
        self.run_until("ready", |net| net.events(number).contains(&Event::Ready));
    }

    /// Connects two leaves; they talk through the supernode then, and both have been heard.
    pub fn connect(&mut self, from: u64, to: u64) {
        let target = self.id(to);
        let ticket = self.node(to).ticket(None);
        let now = self.now;
        self.node(from).learn(now, &ticket).expect("a good ticket");
        self.node(from).connect(now, target).expect("two leaves can connect");
        self.drain(from);
        self.run_until("connected", |net| {
            net.events(from).iter().any(|event| matches!(event, Event::PathChanged { peer, .. } if *peer == target))
        });
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}
