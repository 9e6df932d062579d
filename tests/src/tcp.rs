//! TCP connections between hosts, as far as nodes see them: packets in order, none lost, or a connection that ends.
//!
//! [`Tcp::connect`] finds the way a SYN takes, out through routers and never in through one, and [`Tcp::pop`] gives
//! what happens next at a host. A packet waits where the way is cut, and the connection breaks when it has waited for
//! [`BREAK_AFTER`]. A connection through a router that got another address is answered with a reset; one whose host
//! has moved away is heard no more.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use handfast_core::{Instant, SocketId, SocketRequest};

use crate::host::{Host, HostId};
use crate::wire::{INTERNET, Port, RouterId, Wire};

/// io gives up connecting after this.
const CONNECT_MAX: Duration = Duration::from_secs(4);
/// Between two tries to get a packet through a cut.
const AGAIN: Duration = Duration::from_millis(200);
/// A connection whose packets do not get through for so long breaks.
pub const BREAK_AFTER: Duration = Duration::from_secs(15);

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
struct End {
    host: HostId,
    incarnation: u64,
    socket: SocketId,
    /// As the other end sees it.
    address: SocketAddr,
    open: bool,
}

/// A connection; its first end opened it.
#[derive(Debug)]
struct Pipe {
    ends: [End; 2],
    latency: Duration,
    /// The opener's address on its own LAN, and the routers that it came through, with their addresses then.
    local: IpAddr,
    via: Vec<(RouterId, IpAddr)>,
    /// Packets to either end.
    queued: [VecDeque<Vec<u8>>; 2],
    stuck: [Option<Instant>; 2],
}

/// The way from a host to an address.
struct Way {
    to: HostId,
    local: IpAddr,
    /// The source address as the other end sees it.
    outside: IpAddr,
    via: Vec<(RouterId, IpAddr)>,
    latency: Duration,
}

#[derive(Debug)]
enum Due {
    Syn { host: HostId, incarnation: u64, request: SocketRequest, remote: SocketAddr },
    Answer { host: HostId, incarnation: u64, request: SocketRequest, socket: Option<SocketId> },
    Accepted { pipe: usize },
    Packet { pipe: usize, to: usize },
    Closed { pipe: usize, to: usize },
}

/// What happened at a host.
#[derive(Debug)]
pub enum News {
    /// A connection that it asked for is there, or is not.
    Answer {
        /// Its number for the wish.
        request: SocketRequest,
        /// The connection.
        socket: Option<SocketId>,
    },
    /// A connection came in.
    Accepted {
        /// The connection.
        socket: SocketId,
        /// Where from.
        remote: SocketAddr,
    },
    /// A packet came.
    Packet {
        /// On this connection.
        socket: SocketId,
        /// The other end.
        remote: SocketAddr,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A connection ended.
    Closed {
        /// Which.
        socket: SocketId,
    },
}

/// All connections.
#[derive(Default)]
pub struct Tcp {
    pipes: Vec<Pipe>,
    queue: BTreeMap<(Instant, u64), Due>,
    seq: u64,
    unanswered: BTreeSet<(HostId, u64, SocketRequest)>,
    made: u32,
    /// Supernodes that take no TCP.
    pub refusing: BTreeSet<HostId>,
    /// Supernodes that also listen at port 443.
    pub at_443: BTreeSet<HostId>,
    /// Routers that let nothing out but TCP to port 443.
    pub only_443: BTreeSet<RouterId>,
    /// SYNs that left, by who sent them.
    pub syns: BTreeMap<HostId, u64>,
    /// Packets that left, likewise.
    pub packets: BTreeMap<HostId, u64>,
}

impl Tcp {
    fn push(&mut self, at: Instant, due: Due) {
        self.seq += 1;
        self.queue.insert((at, self.seq), due);
    }

    fn number(&mut self) -> SocketId {
        self.made += 1;
        SocketId(SocketId::TCP_FIRST.0 + self.made)
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// A host wants a connection.
    pub fn connect(&mut self, now: Instant, wire: &Wire, host: &Host, request: SocketRequest, remote: SocketAddr) {
        let (id, incarnation) = (host.id, host.incarnation);
        *self.syns.entry(id).or_default() += 1;
        self.unanswered.insert((id, incarnation, request));
        if let Some(way) = self.way(wire, host, remote) {
            self.push(now + way.latency, Due::Syn { host: id, incarnation, request, remote });
        }
        self.push(now + CONNECT_MAX, Due::Answer { host: id, incarnation, request, socket: None });
    }

    fn way(&self, wire: &Wire, host: &Host, remote: SocketAddr) -> Option<Way> {
        let attachment =
            host.route(remote, None, |lan| lan != INTERNET && wire.lans[lan.0].members.get(remote.ip()).is_some())?;
        let (mut lan, mut outside, mut via) = (attachment.lan, attachment.ip, Vec::new());
        let mut latency = Duration::ZERO;
        loop {
            let here = &wire.lans[lan.0];
            latency += here.delay + here.members.get(outside).map_or(Duration::ZERO, |m| m.access);
            if let Some(member) = here.members.get(remote.ip()) {
                let Port::Host(to) = member.port else { return None };
                return Some(Way { to, local: attachment.ip, outside, via, latency: latency + member.access });
            }
            let id = here.gateway?;
            if self.only_443.contains(&id) && remote.port() != 443 {
                return None;
            }
            let router = &wire.routers[id.0];
            if remote.is_ipv4() {
                outside = router.nat.external();
                via.push((id, outside));
            }
            lan = router.outer;
        }
    }

    /// A node sends a packet.
    pub fn send(&mut self, now: Instant, wire: &Wire, hosts: &[Host], socket: SocketId, bytes: Vec<u8>) {
        let Some((pipe, from)) = self.find(socket) else { return };
        *self.packets.entry(self.pipes[pipe].ends[from].host).or_default() += 1;
        let p = &self.pipes[pipe];
        if from == 0 && p.via.iter().any(|(router, external)| wire.routers[router.0].nat.external() != *external) {
            let at = now + p.latency;
            self.push(at, Due::Closed { pipe, to: 0 });
            return;
        }
        let opener = &hosts[p.ends[0].host.0];
        if opener.attachments.iter().any(|a| a.ip == p.local) {
            let (at, to) = (now + p.latency, 1 - from);
            self.pipes[pipe].queued[to].push_back(bytes);
            self.push(at, Due::Packet { pipe, to });
        }
    }

    /// Both ends of the connection with this number.
    pub fn ends(&self, socket: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        let (pipe, end) = self.find(socket)?;
        Some((self.pipes[pipe].ends[end].address, self.pipes[pipe].ends[1 - end].address))
    }

    /// A node closed a connection.
    pub fn close(&mut self, now: Instant, socket: SocketId) {
        let Some((pipe, end)) = self.find(socket) else { return };
        let at = now + self.pipes[pipe].latency;
        self.pipes[pipe].ends[end].open = false;
        self.push(at, Due::Closed { pipe, to: 1 - end });
    }

    /// Ends all connections of a host, as a router between does that has had enough; both ends notice.
    pub fn break_all(&mut self, now: Instant, host: HostId) {
        for pipe in 0..self.pipes.len() {
            if self.pipes[pipe].ends.iter().any(|end| end.host == host) {
                let at = now + self.pipes[pipe].latency;
                self.push(at, Due::Closed { pipe, to: 0 });
                self.push(at, Due::Closed { pipe, to: 1 });
            }
        }
    }

    /// A host's process is gone; its kernel closes for it.
    pub fn on_crash(&mut self, now: Instant, host: HostId) {
        let sockets: Vec<SocketId> = self.sockets_of(host);
        for socket in sockets {
            self.close(now, socket);
        }
    }

    /// Open connections of a host.
    pub fn sockets_of(&self, host: HostId) -> Vec<SocketId> {
        let ends = self.pipes.iter().flat_map(|p| p.ends);
        ends.filter(|end| end.open && end.host == host).map(|end| end.socket).collect()
    }

    fn find(&self, socket: SocketId) -> Option<(usize, usize)> {
        // Numbers are given out in pairs, one pair for each connection.
        let nth = socket.0.checked_sub(SocketId::TCP_FIRST.0 + 1)? as usize;
        let (pipe, end) = (nth / 2, nth % 2);
        let it = self.pipes.get(pipe)?.ends[end];
        debug_assert_eq!(it.socket, socket);
        it.open.then_some((pipe, end))
    }

    /// What happens next at a host by `now`, if anything that one notices.
    pub fn pop(&mut self, now: Instant, wire: &Wire, hosts: &[Host]) -> Option<(HostId, News)> {
        while self.next().is_some_and(|at| at <= now) {
            let ((at, _), due) = self.queue.pop_first().expect("looked");
            let news = self.happen(at, due, wire, hosts);
            if news.is_some() {
                return news;
            }
        }
        None
    }

    fn happen(&mut self, at: Instant, due: Due, wire: &Wire, hosts: &[Host]) -> Option<(HostId, News)> {
        match due {
            Due::Syn { host, incarnation, request, remote } => {
                let way = self.way(wire, &hosts[host.0], remote)?;
                if wire.is_cut(host, way.to) || wire.is_cut(way.to, host) {
                    return None;
                }
                let to = &hosts[way.to.0];
                let is_port = remote.port() == to.port || (remote.port() == 443 && self.at_443.contains(&way.to));
                let listens = matches!(to.config.role, handfast_core::Role::Supernode { .. })
                    && to.node.is_some()
                    && is_port
                    && !self.refusing.contains(&way.to);
                if !listens {
                    self.push(at + way.latency, Due::Answer { host, incarnation, request, socket: None });
                    return None;
                }
                let sockets = [self.number(), self.number()];
                let outside = SocketAddr::new(way.outside, 40_000 + (self.made % 20_000) as u16);
                let end = |host: &Host, socket, address| End {
                    host: host.id,
                    incarnation: host.incarnation,
                    socket,
                    address,
                    open: true,
                };
                let pipe = self.pipes.len();
                self.pipes.push(Pipe {
                    ends: [end(&hosts[host.0], sockets[0], outside), end(to, sockets[1], remote)],
                    latency: way.latency,
                    local: way.local,
                    via: way.via,
                    queued: Default::default(),
                    stuck: [None; 2],
                });
                self.push(at + way.latency, Due::Answer { host, incarnation, request, socket: Some(sockets[0]) });
                self.push(at + way.latency * 2, Due::Accepted { pipe });
                None
            }
            Due::Answer { host, incarnation, request, socket } => {
                let is_awaited = self.unanswered.remove(&(host, incarnation, request));
                let is_there = hosts[host.0].node.is_some() && hosts[host.0].incarnation == incarnation;
                (is_awaited && is_there).then_some((host, News::Answer { request, socket }))
            }
            Due::Accepted { pipe } => {
                let [from, end] = self.pipes[pipe].ends;
                is_live(hosts, end).then_some((end.host, News::Accepted { socket: end.socket, remote: from.address }))
            }
            Due::Packet { pipe, to } => {
                let p = &mut self.pipes[pipe];
                let (from, end) = (p.ends[1 - to], p.ends[to]);
                if wire.is_cut(from.host, end.host) {
                    let since = *p.stuck[to].get_or_insert(at);
                    if at.since(since) < BREAK_AFTER {
                        self.push(at + AGAIN, Due::Packet { pipe, to });
                    } else {
                        self.push(at, Due::Closed { pipe, to: 0 });
                        self.push(at, Due::Closed { pipe, to: 1 });
                    }
                    return None;
                }
                p.stuck[to] = None;
                let bytes = p.queued[to].pop_front()?;
                let (socket, remote) = (end.socket, from.address);
                is_live(hosts, end).then_some((end.host, News::Packet { socket, remote, bytes }))
            }
            Due::Closed { pipe, to } => {
                let end = self.pipes[pipe].ends[to];
                self.pipes[pipe].ends[to].open = false;
                is_live(hosts, end).then_some((end.host, News::Closed { socket: end.socket }))
            }
        }
    }
}

fn is_live(hosts: &[Host], end: End) -> bool {
    let host = &hosts[end.host.0];
    end.open && host.node.is_some() && host.incarnation == end.incarnation
}
