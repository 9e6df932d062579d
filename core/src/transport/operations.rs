//! [`Transports`] with four supernodes that are a model: links come up, fall silent and end, io opens
//! connections, refuses them and loses them, others connect, the network changes, time passes.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::connections::ACCEPTED_MAX;
use super::output::{Link, Lost, Output, Survey, Tried, Use, Waiting, Why};
use super::sockets::SOCKETS_MAX;
use super::transports::{DIALS_MAX, Transports};
use crate::identity::{PeerId, SecretKey};
use crate::net::{Network, PeerKey, SocketId, SocketRefused, SocketRequest};
use crate::operations::Bytes;
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::InitBody;

const UDP: SocketId = SocketId(0);
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4_000);

/// A supernode.
struct Supernode {
    id: PeerId,
    udp: SocketAddr,
    is_up: bool,
    current: Option<Route>,
    asking: Vec<SocketId>,
}

struct World {
    transports: Transports,
    now: Instant,
    supernodes: Vec<Supernode>,
    /// What io was asked for and has not answered.
    asked: BTreeMap<SocketRequest, SocketAddr>,
    /// Connections that io has, and where they lead.
    open: BTreeMap<SocketId, SocketAddr>,
    next: u32,
}

fn key(n: usize) -> PeerKey {
    PeerKey { index: u32::try_from(n).expect("one of a few"), generation: 1 }
}

impl World {
    fn new() -> Self {
        let supernodes = (0..4_u8).map(|n| Supernode {
            id: SecretKey::from_bytes(&[n + 1; 32]).peer_id(),
            // The last one is on the LAN.
            udp: SocketAddr::from((if n < 3 { [198, 51, 100, n] } else { [10, 0, 0, n] }, 4_000)),
            is_up: false,
            current: None,
            asking: Vec::new(),
        });
        Self {
            transports: Transports::default(),
            now: Instant::ZERO,
            supernodes: supernodes.collect(),
            asked: BTreeMap::new(),
            open: BTreeMap::new(),
            next: SocketId::TCP_FIRST.0,
        }
    }

    fn link(&self, n: usize) -> Link {
        let s = &self.supernodes[n];
        Link {
            key: key(n),
            peer: s.id,
            is_up: s.is_up,
            current: s.current,
            asking: s.asking.clone(),
            is_supernode: true,
        }
    }

    fn is_over_udp(&self, n: usize) -> bool {
        self.supernodes[n].is_up && self.supernodes[n].current.is_some_and(|route| !route.is_tcp())
    }

    fn carry(&mut self) {
        for output in self.transports.take_outputs() {
            match output {
                Output::Open { request, remote } => {
                    assert!(self.asked.insert(request, remote).is_none(), "a number is used once");
                    assert!(self.supernodes.iter().any(|s| s.udp.ip() == remote.ip()), "nobody is there");
                }
                Output::Close(socket) | Output::Refuse(socket) => {
                    assert!(self.open.remove(&socket).is_some(), "only what is open is closed");
                }
                Output::Attempt { peer, path, .. } => {
                    assert_eq!(self.open.get(&path.socket), Some(&path.remote));
                    let supernode = self.supernodes.iter_mut().find(|s| s.id == peer).expect("one of them");
                    supernode.asking.push(path.socket);
                }
                Output::Probe(peer) => assert!(self.is_over_udp(peer.index as usize), "UDP is in question"),
                // Mostly its own: who passes on what another sends makes its connection that one's.
                Output::ChallengeUdp { udp, .. } => {
                    assert!(self.supernodes.iter().any(|s| s.udp == udp), "nobody is there");
                }
                Output::StandIn { peer, route, .. } => {
                    self.supernodes[peer.index as usize].current = Some(route);
                }
                Output::RemovePath { peer, route } => {
                    self.supernodes[peer.index as usize].current.take_if(|current| *current == route);
                }
                Output::TellCandidates | Output::Unreachable(_) => {}
                Output::GiveUp(peer) => {
                    let n = self.supernodes.iter().position(|s| s.id == peer).expect("one of them");
                    let s = &self.supernodes[n];
                    let tried = Tried { key: key(n), is_up: s.is_up, is_stranded: s.is_up && s.current.is_none() };
                    if s.asking.is_empty() {
                        self.transports.on_given_up(&tried);
                        self.carry();
                    }
                }
                Output::Drop(peer) => {
                    let s = &mut self.supernodes[peer.index as usize];
                    assert!(s.is_up && s.current.is_none(), "it has a way left");
                    s.is_up = false;
                }
                Output::Survey(why) => self.survey(why),
                Output::Look { socket, peer, route } => {
                    let is_current = self.supernodes[peer.index as usize].current == Some(route);
                    let used = if is_current { Use::Current } else { Use::Spare };
                    self.transports.on_looked_at(self.now, socket, used);
                    self.carry();
                }
                Output::Abandon(lost) => self.abandon(&lost),
            }
        }
    }

    fn survey(&mut self, why: Why) {
        let numbers = || 0..self.supernodes.len();
        let waiting = self.supernodes.iter().filter(|s| !s.is_up && s.asking.contains(&UDP)).map(|s| Waiting {
            peer: s.id,
            udp: s.udp,
            body: [0].into(),
            asking: s.asking.clone(),
        });
        let in_links = self.transports.in_links();
        let in_use = in_links.filter(|(_, peer, route)| self.supernodes[peer.index as usize].current == Some(*route));
        let survey = Survey {
            over_udp: numbers().filter(|n| self.is_over_udp(*n)).map(key).collect(),
            waiting: waiting.collect(),
            in_use: in_use.map(|(socket, ..)| socket).collect(),
        };
        self.transports.on_survey(self.now, why, &survey);
        self.carry();
    }

    fn abandon(&mut self, lost: &Lost) {
        let opener = self.supernodes.iter().position(|s| s.asking.contains(&lost.socket));
        if let Some(n) = opener {
            self.supernodes[n].asking.retain(|socket| *socket != lost.socket);
        }
        if let Some(n) = lost.peer.map(|peer| peer.index as usize).or(opener) {
            let link = self.link(n);
            self.transports.on_abandoned(self.now, lost, &link);
            self.carry();
        }
    }

    /// Something comes from a supernode by the nth connection, or by UDP.
    fn hear(&mut self, n: usize, nth: usize) {
        let (socket, remote) = self.open.iter().nth(nth).map_or((UDP, self.supernodes[n].udp), |(s, r)| (*s, *r));
        let route = Route::Direct { socket, remote };
        let s = &mut self.supernodes[n];
        if s.asking.contains(&socket) {
            s.asking.clear();
            (s.is_up, s.current) = (true, Some(s.current.filter(|_| s.is_up).unwrap_or(route)));
            let since = self.now - Duration::from_millis(700);
            self.transports.on_answered(self.now, key(n), &route, since, true);
        } else if s.is_up {
            self.transports.on_heard(self.now, key(n), &route, true);
        }
    }

    /// io answers the nth request, or turns it down.
    fn answer(&mut self, nth: usize, is_granted: bool) {
        let Some((request, remote)) = self.asked.iter().nth(nth).map(|(request, remote)| (*request, *remote)) else {
            return;
        };
        self.asked.remove(&request);
        let socket = self.number();
        let result = if is_granted { Ok((socket, remote)) } else { Err(SocketRefused) };
        let peer = self.transports.dialled(request).expect("it waits for that");
        let n = self.supernodes.iter().position(|s| s.id == peer).expect("one of them");
        let heard = self.is_over_udp(n).then_some(self.now);
        assert!(self.transports.sockets.handle_socket(request, result).is_some(), "it was asked for");
        if is_granted {
            self.open.insert(socket, remote);
        }
        let result = result.map(|(socket, _)| socket);
        self.transports.on_opened(self.now, request, result, heard);
    }

    fn number(&mut self) -> SocketId {
        self.next += 1;
        SocketId(self.next)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.transports.handle_timeout(self.now) {
            self.carry();
        }
        assert!(self.transports.poll_timeout().is_none_or(|at| at > self.now), "what is due is done");
    }

    /// io says that the host is elsewhere, or was so all the time.
    fn move_to(&mut self, number: u8) {
        let network = Network { epoch: u32::from(number / 64), sockets: vec![(UDP, LOCAL)], ..Network::default() };
        let is_same = *self.transports.network() == network;
        let change = self.transports.handle_network(&network);
        assert_eq!((change.place, change.mappings), (!is_same, false));
        assert!(self.transports.is_open(UDP) && self.transports.udp_sockets().eq([UDP]));
    }

    fn step(&mut self, op: u8, n: usize, number: u8) {
        let nth = usize::from(number % 8);
        match op % 12 {
            0 => {
                let body = InitBody::Direct { early: None };
                let s = &mut self.supernodes[n];
                let (target, asking) = ((s.id, s.udp), s.asking.clone());
                if !self.transports.dial_blocked(self.now, target, &asking, &body) && !s.is_up {
                    s.asking.push(UDP);
                    self.transports.on_asked(self.now);
                }
            }
            1 | 2 => self.hear(n, nth),
            3 => self.hear(n, usize::MAX),
            4 => self.answer(nth, true),
            5 => self.answer(nth, false),
            6 => {
                let socket = self.number();
                let remote = SocketAddr::from(([203, 0, number, 1], 9));
                self.open.insert(socket, remote);
                self.transports.on_accepted(self.now, socket, remote);
            }
            7 => {
                if let Some(socket) = self.open.keys().nth(nth).copied() {
                    self.open.remove(&socket);
                    self.transports.on_closed(socket);
                }
            }
            8 => {
                let link = self.link(n);
                self.transports.on_silent(self.now, &link);
            }
            9 if number.is_multiple_of(4) => self.transports.set_serving(number & 16 != 0),
            9 if number % 4 == 1 => self.move_to(number),
            9 => self.transports.on_network(),
            10 => (self.supernodes[n].is_up, self.supernodes[n].current) = (false, None),
            _ => self.pass(Duration::from_millis(u64::from(number) * 100)),
        }
    }

    fn check(&self) {
        let (connections, dials) = self.transports.len();
        assert_eq!((connections, dials), (self.open.len(), self.asked.len()), "io and we agree");
        assert_eq!(self.transports.sockets.len(), dials, "a connection that is open is not kept twice");
        assert!(dials <= DIALS_MAX && self.transports.sockets.len() <= SOCKETS_MAX);
        assert!(connections <= ACCEPTED_MAX + self.supernodes.len() * 256);
    }

    /// Nothing is left when all is over.
    fn end(mut self) {
        self.transports.leave();
        while !self.asked.is_empty() {
            self.answer(0, false);
            self.carry();
        }
        for s in &mut self.supernodes {
            (s.is_up, s.current) = (false, None);
            s.asking.clear();
        }
        for socket in self.open.keys().copied().collect::<BTreeSet<_>>() {
            if self.open.remove(&socket).is_some() {
                self.transports.on_closed(socket);
                self.carry();
            }
        }
        self.check();
        self.pass(Duration::from_secs(3_600));
        assert_eq!((self.transports.len(), self.transports.poll_timeout()), ((0, 0), None));
    }
}

/// Reads operations of three bytes each.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut world = World::new();
    while !bytes.is_empty() {
        let (op, n, number) = (bytes.u8(), usize::from(bytes.u8() % 4), bytes.u8());
        world.step(op, n, number);
        world.carry();
        world.check();
    }
    world.end();
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn connections_come_and_go_and_nothing_is_left() {
        super::drive(&[]);
        drive_at_random(400, 600, super::drive);
    }

    /// Two supernodes are linked by TCP, and the second passes on what the first sends. The first one's own connection
    /// breaks, then the other: that is asked over UDP where the second is.
    #[test]
    fn regression_a_supernode_may_be_heard_on_the_connection_to_another() {
        super::drive(
            &[
                [0, 0, 0],   // An Init to the first,
                [0, 3, 0],   // and to the one on the LAN;
                [11, 0, 15], // no answer: both by TCP,
                [4, 0, 0],
                [4, 0, 0],
                [1, 0, 0], // and the first answers.
                [1, 0, 1], // It is heard on the other one's, too.
                [11, 0, 60],
                [7, 0, 0],
                [7, 0, 0],
            ]
            .concat(),
        );
    }
}
