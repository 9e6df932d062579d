//! Targets for a whole node: what outsiders can do to it, and what a peer with keys can.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use handfast_core::internal::KeyRng;
use handfast_core::internal::{Epoch, Identity, InitFixed, Macs, PeerKeys, initiate};
use handfast_core::wire::packet::{DATA_HEADER_LEN, Kind};
use handfast_core::{
    Access, Config, DATAGRAM_LEN_MAX, Event, Instant, Network, Node, Path, Received, Saved, SecretKey, ServiceName,
    SocketId, WallTime,
};

use crate::bytes::{Bytes, ignore};

const SOCKET: SocketId = SocketId(0);
const WALL_US: u64 = 1_700_000_000_000_000;
/// Most datagrams on the wire; more are lost.
const WIRE_MAX: usize = 256;
/// Most datagrams that a node may have to say at once.
const SAY_MAX: usize = 10_000;
/// Most steps of one story.
const STEPS_MAX: usize = 200;

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, number as u8, 1], 7441))
}

fn service() -> ServiceName {
    "fuzz".parse().expect("a good name")
}

/// A supernode, number 0, and a leaf that knows it, number 1.
struct Duo {
    now: Instant,
    nodes: [Node; 2],
    wire: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    streams: [Vec<handfast_core::StreamKey>; 2],
}

impl Duo {
    fn new() -> Self {
        let origin = std::time::Instant::now();
        let now = Instant::ZERO;
        let supernode = SecretKey::from_bytes(&[10; 32]).peer_id();
        let nodes = [0, 1].map(|number| {
            let mut config = if number == 0 { Config::supernode(vec![address(0)]) } else { Config::leaf() };
            config.services.insert(service(), Access::Any);
            let key = SecretKey::from_bytes(&[10 + number as u8; 32]);
            let node = Node::new(now, origin, [20 + number as u8; 32], key, config, Saved::default());
            let mut node = node.expect("a good configuration");
            node.handle_wall_clock(now, WallTime::from_micros(WALL_US));
            let own = address(number);
            node.handle_network(
                now,
                &Network { sockets: vec![(SOCKET, own)], interfaces: vec![own.ip()], ..Network::default() },
            );
            if number == 1 {
                node.join(now, &[(supernode, address(0))]).expect("a new node takes a supernode");
            }
            node
        });
        let mut duo = Self { now, nodes, wire: VecDeque::new(), streams: Default::default() };
        duo.settle();
        duo
    }

    fn handle(&mut self, number: usize, source: SocketAddr, stride: usize, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let path = Path { socket: SOCKET, remote: source, local: None };
            let (done, received) = self.nodes[number].handle_datagrams(self.now, path, stride, rest);
            assert!(done > 0 && done <= rest.len(), "a node takes at least a datagram, and no more than there is");
            if let Received::Forward { range, stride, .. } = received {
                assert!(range.end <= done && stride > 0);
            }
            rest = &mut rest[done..];
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in &mut self.nodes {
            node.handle_timeout(self.now);
        }
    }

    /// Goes to the next deadline.
    fn pass_to_deadline(&mut self) {
        let due = self.nodes.iter_mut().filter_map(Node::poll_timeout).min();
        self.pass(due.map_or(Duration::ZERO, |due| due.since(self.now)));
    }

    /// Takes out what both have to say, and holds them to the contract.
    fn settle(&mut self) {
        for number in 0..2 {
            let node = &mut self.nodes[number];
            let mut buf = [0; 4 * DATAGRAM_LEN_MAX];
            let mut said = 0;
            while let Some(transmit) = node.poll_transmit(self.now, 4, &mut buf) {
                said += 1;
                assert!(said < SAY_MAX, "a node never stops talking");
                assert!(transmit.len > 0 && transmit.len <= buf.len());
                let stride = transmit.segment.map_or(transmit.len, |segment| usize::from(segment.get()));
                for datagram in buf[..transmit.len].chunks(stride) {
                    if self.wire.len() < WIRE_MAX {
                        self.wire.push_back((address(number), transmit.path.remote, datagram.to_vec()));
                    }
                }
            }
            while let Some(event) = node.poll_event() {
                match event {
                    Event::StreamIncoming { stream, .. } => {
                        self.streams[number].extend(node.accept(self.now, stream).map(|()| stream));
                    }
                    Event::StreamEnded { stream, .. } => self.streams[number].retain(|other| *other != stream),
                    _ => {}
                }
            }
            // "It never names a moment before the last `now`."
            assert!(node.poll_timeout().is_none_or(|due| due >= self.now));
        }
    }

    /// Hands on the oldest genuine datagram.
    fn deliver(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let Some((source, target, mut datagram)) = self.wire.pop_front() else { return };
        let Some(number) = (0..2).find(|&number| address(number) == target) else { return };
        change(&mut datagram);
        let stride = datagram.len().max(1);
        self.handle(number, source, stride, &mut datagram);
    }
}

/// A supernode and its leaf on a wire that loses, repeats, cuts, changes and invents datagrams, while time passes and
/// their applications act.
pub fn datagram(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut duo = Duo::new();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            return;
        }
        let choice = bytes.u8();
        let number = usize::from(choice & 1);
        match choice >> 1 & 15 {
            0..=2 => duo.deliver(|_| {}),
            3 => {
                let (at, with) = (bytes.below(DATAGRAM_LEN_MAX), bytes.u8());
                duo.deliver(|datagram| {
                    if let Some(byte) = datagram.get_mut(at) {
                        *byte ^= with;
                    }
                });
            }
            4 => {
                let len = bytes.below(DATAGRAM_LEN_MAX);
                duo.deliver(|datagram| datagram.truncate(len));
            }
            5 => drop(duo.wire.pop_front()),
            6 => {
                if let Some(copy) = duo.wire.front().cloned() {
                    duo.wire.push_back(copy);
                }
            }
            7 => {
                // From another place: a replay, a reflection, a router that changed its mind.
                if let Some((_, _, mut copy)) = duo.wire.front().cloned() {
                    let stride = copy.len().max(1);
                    duo.handle(number, address(bytes.below(4)), stride, &mut copy);
                }
            }
            8 | 9 => {
                let source = address(bytes.below(4));
                let stride = 1 + bytes.below(DATAGRAM_LEN_MAX + 100);
                let mut raw = bytes.slice(4 * DATAGRAM_LEN_MAX).to_vec();
                duo.handle(number, source, stride, &mut raw);
            }
            10 => duo.pass_to_deadline(),
            11 => duo.pass(Duration::from_micros(u64::from(bytes.u16()) << (choice >> 5) << (bytes.u8() % 12))),
            12 => act(&mut duo, &mut bytes, number),
            13 => duo.nodes[number].handle_wall_clock(duo.now, WallTime::from_micros(bytes.u64())),
            14 => duo.nodes[number].handle_entropy(&[bytes.u8(); 32]),
            _ => {
                let own = address(bytes.below(4));
                let network =
                    Network { sockets: vec![(SOCKET, own)], interfaces: vec![own.ip()], ..Network::default() };
                duo.nodes[number].handle_network(duo.now, &network);
            }
        }
        duo.settle();
    }
}

/// One command of an application.
fn act(duo: &mut Duo, bytes: &mut Bytes<'_>, number: usize) {
    let now = duo.now;
    let other = duo.nodes[1 - number].id();
    let stream = duo.streams[number].get(bytes.below(4)).copied();
    let node = &mut duo.nodes[number];
    match (bytes.u8() % 12, stream) {
        (0, _) => ignore(node.ping(now, other)),
        (1, _) => ignore(node.connect(now, other)),
        (2, _) => ignore(node.send_datagram(now, other, bytes.slice(1300))),
        (3 | 4, None) => {
            if let Ok(stream) = node.open(now, other, &service()) {
                duo.streams[number].push(stream);
            }
        }
        (3 | 4, Some(stream)) => ignore(node.write(now, stream, bytes.slice(5000))),
        (5, Some(stream)) => ignore(node.read(now, stream, &mut [0; 2000])),
        (6, Some(stream)) => ignore(node.finish(now, stream)),
        (7, Some(stream)) => ignore(node.reset(now, stream, 1)),
        (8, Some(stream)) => ignore(node.stop(now, stream, 1)),
        (9, _) => ignore(node.offer(now, service(), Access::Peers([other].into()))),
        (10, _) => node.withdraw(now, &service()),
        (11, _) => node.leave(now),
        _ => {
            let _ = (node.status(now), node.peer_status(now, &other));
            let _ = (node.ticket(None).to_string(), node.path_of(&other));
        }
    }
}

/// A peer that shook hands as it should and then says whatever it likes to a supernode with a leaf.
pub fn peer(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut duo = Duo::new();
    for _ in 0..8 {
        duo.deliver(|_| {});
        duo.settle();
    }
    let me = Identity::new(SecretKey::from_bytes(&[30; 32]));
    let mut keys = KeyRng::new([31; 32]);
    let to_supernode = PeerKeys::new(duo.nodes[0].id()).expect("a good key");
    let fixed = InitFixed { time_us: WALL_US, session: 1 };
    // Usually a plain link; else with an early message of its choice.
    let body = if bytes.u8() & 1 == 0 { &[0, 0] } else { bytes.slice(500) };
    let mut init = [0; DATAGRAM_LEN_MAX];
    let made = initiate(&me, &to_supernode, &mut keys, 1, fixed, body, Macs::Plain, &mut init);
    let Ok((mut initiation, len)) = made else { return };
    duo.handle(0, address(2), len, &mut init[..len]);
    duo.settle();
    let mut body = [0; 2 * DATAGRAM_LEN_MAX];
    let finished = duo
        .wire
        .iter()
        .filter(|(_, target, _)| *target == address(2))
        .find_map(|(_, _, datagram)| initiation.finish(datagram, &mut body).ok());
    let Some((transport, index, _, _)) = finished else { return };
    let mut epoch = Epoch::new(transport, 1, index);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            return;
        }
        let choice = bytes.u8();
        match choice & 7 {
            0..=4 => {
                let text = bytes.slice(DATAGRAM_LEN_MAX - 100);
                let kind = if choice & 8 == 0 { Kind::Data } else { Kind::Stream };
                let mut packet = [0; DATAGRAM_LEN_MAX];
                packet[DATA_HEADER_LEN..][..text.len()].copy_from_slice(text);
                let Ok(len) = epoch.seal(kind, &mut packet, text.len()) else { return };
                duo.handle(0, address(2 + usize::from(choice >> 7)), len, &mut packet[..len]);
            }
            5 => {
                let mut packet = [0; 32];
                let kind = if choice & 8 == 0 { Kind::Beat } else { Kind::BeatAsk };
                let Ok(len) = epoch.seal_beat(kind, &mut packet) else { return };
                duo.handle(0, address(2), len, &mut packet[..len]);
            }
            6 => duo.pass_to_deadline(),
            _ => {
                for _ in 0..4 {
                    duo.deliver(|_| {});
                }
            }
        }
        duo.settle();
    }
}
