//! One [`Nat`], driven by bytes: supernodes that answer, lie or are silent, sockets that can be had or not, and a node
//! that is now this to others and now that.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use super::examine::{Ask, PACKETS_MAX};
use super::router::{Around, Nat, Output, Reporter, Stand};
use crate::identity::{PeerId, SecretKey};
use crate::net::{Family, Network, SocketId};
use crate::operations::Bytes;
use crate::random::Seed;
use crate::time::Instant;

/// Supernodes that there are.
const PEERS: u8 = 4;
/// Sockets that an examination has at a time.
const SOCKETS_MAX: usize = 4;
const MAIN: SocketId = SocketId(0);

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n % PEERS + 1; 32]).peer_id()
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n % PEERS], 4_000))
}

/// One in eight is no supernode, and not believed.
fn reporter(n: u8) -> Reporter {
    Reporter { id: id(n), address: address(n), is_supernode: n % 8 != 7 }
}

fn seen(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n / 64], 5_000 + u16::from(n % 4)))
}

struct World {
    nat: Nat,
    now: Instant,
    network: Network,
    supernodes: Vec<(PeerId, Vec<SocketAddr>)>,
    stand: Stand,
    has_helpers: bool,
    is_open: bool,
    /// Probes that may be answered: from, to, token.
    probes: Vec<(SocketId, SocketAddr, [u8; 8])>,
    loops: Vec<[u8; 16]>,
    /// Sockets asked for.
    opening: usize,
    open: BTreeSet<SocketId>,
    next_socket: u32,
    /// Packets since the last examination could have begun.
    packets: usize,
}

impl World {
    fn new() -> Self {
        Self {
            nat: Nat::new(&Seed::new([9; 32]), &[]),
            now: Instant::ZERO + Duration::from_secs(1),
            network: Network {
                sockets: vec![(MAIN, SocketAddr::from(([10, 0, 0, 1], 5_000)))],
                interfaces: vec![IpAddr::from([10, 0, 0, 1])],
                ..Network::default()
            },
            supernodes: Vec::new(),
            stand: Stand::Leaf,
            has_helpers: false,
            is_open: false,
            probes: Vec::new(),
            loops: Vec::new(),
            opening: 0,
            open: BTreeSet::new(),
            next_socket: 1,
            packets: 0,
        }
    }

    /// Takes what is wanted, and asserts what must always hold.
    fn drain(&mut self, is_helped: bool) {
        let mut count = 0;
        while let Some(output) = self.nat.poll_output() {
            count += 1;
            assert!(count < 1_000, "it never stops wanting");
            match output {
                Output::Ask(ask) => self.on_ask(ask),
                Output::Around => self.tell(),
                Output::Help { missing, except } => {
                    assert!((1..=3).contains(&missing) && except.len() + missing == 3);
                    assert!(!self.has_helpers);
                    self.has_helpers = is_helped;
                    if !is_helped {
                        self.nat.on_no_help();
                    }
                }
                Output::ReleaseHelp => self.has_helpers = false,
                Output::Checked { .. } => assert_eq!(self.stand, Stand::Volunteer),
                Output::Known | Output::Forgotten { .. } | Output::Candidates | Output::Save(_) => {}
            }
        }
        assert!(self.open.len() <= SOCKETS_MAX + self.opening);
        assert!(self.nat.observed().len() <= 8);
        let profile = self.nat.profile(&self.network, self.is_open);
        assert!(!profile.udp_blocked, "that is others' business");
    }

    /// It asked what is around: an examination begins, or one is over and another may begin.
    fn tell(&mut self) {
        self.packets = 0;
        let Self { network, supernodes, stand, has_helpers, is_open, .. } = self;
        let around = Around { network, supernodes, stand: *stand, has_helpers: *has_helpers, is_open: *is_open };
        self.nat.on_around(self.now, &around);
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Probe { to, from, remote, token, alternate: _ } => {
                self.packets += 1;
                assert!(self.packets <= usize::from(PACKETS_MAX), "too many packets");
                assert!(from == MAIN || self.open.contains(&from), "a socket that is not there");
                assert!(self.supernodes.iter().any(|(id, _)| *id == to) || from != MAIN || !self.probes.is_empty());
                self.probes.push((from, remote, token));
            }
            Ask::Loop { from, token, .. } => {
                assert!(from == MAIN || self.open.contains(&from), "a socket that is not there");
                self.loops.push(token);
            }
            Ask::Open(family) => {
                assert_eq!(family, Family::V4);
                self.opening += 1;
            }
            Ask::Close(socket) => assert!(self.open.remove(&socket), "it was not open"),
        }
    }

    fn timeout(&mut self, is_helped: bool) {
        for _ in 0..100 {
            self.nat.handle_timeout(self.now);
            self.drain(is_helped);
            if self.nat.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("a deadline is not disarmed");
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let (op, n) = (bytes.u8(), bytes.u8());
        match op % 16 {
            0 => self.nat.on_observed(self.now, &reporter(n), MAIN, seen(n)),
            1 => {
                let addresses = vec![address(n)];
                self.supernodes.retain(|(other, _)| *other != id(n));
                self.supernodes.push((id(n), addresses));
                self.nat.on_supernode(self.now);
            }
            2 => self.supernodes.retain(|(other, _)| *other != id(n)),
            3..=6 => {
                if self.probes.is_empty() {
                    return;
                }
                let (socket, from, token) = self.probes[usize::from(n) % self.probes.len()];
                let port = if op & 0x10 == 0 { 4_000 } else { 4_001 };
                let at = if op & 0x80 == 0 { socket } else { MAIN };
                let from = SocketAddr::new(from.ip(), port);
                let _ = self.nat.on_reply(self.now, at, from, token, seen(bytes.u8()), 4_001);
            }
            7 => {
                if let Some(token) = self.loops.last() {
                    let _ = self.nat.on_loop(self.now, token);
                }
            }
            8 | 9 => {
                let opened = (n & 3 != 0).then(|| {
                    let socket = SocketId(self.next_socket);
                    self.next_socket += 1;
                    self.open.insert(socket);
                    (socket, SocketAddr::from(([10, 0, 0, 1], 6_000 + u16::from(n))))
                });
                if self.opening > 0 {
                    self.opening -= 1;
                    self.nat.on_socket(self.now, opened);
                } else if let Some((socket, _)) = opened {
                    self.open.remove(&socket);
                }
            }
            10 => self.nat.on_disagreement(self.now),
            11 => {
                let before = self.stand;
                self.stand = match n % 6 {
                    0 => Stand::Leaf,
                    1 => Stand::Willing { is_asking: false },
                    2 => Stand::Willing { is_asking: true },
                    3 | 4 => Stand::Volunteer,
                    _ => Stand::Leaving,
                };
                match (before, self.stand) {
                    (Stand::Volunteer, Stand::Volunteer) => {}
                    (Stand::Volunteer, _) => self.nat.on_ceased(self.now),
                    (_, Stand::Volunteer) => self.nat.on_serving(self.now),
                    _ => {}
                }
            }
            12 if n.is_multiple_of(8) => self.nat.handle_network(self.now),
            12 => self.nat.on_unasked(self.now),
            13 if n.is_multiple_of(8) => self.nat.examine_now(self.now),
            13 => self.is_open = n & 1 == 0,
            14 => self.now += Duration::from_secs(u64::from(n) * 60),
            _ => self.now += Duration::from_millis(u64::from(n) * 20),
        }
    }
}

/// Reads one step after the other from bytes, and lets time pass after each.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut world = World::new();
    while !bytes.is_empty() {
        let is_helped = bytes.u8() & 1 == 0;
        world.step(&mut bytes);
        world.drain(is_helped);
        world.timeout(is_helped);
    }
    // On another network all begins anew, and no socket is left open.
    world.nat.handle_network(world.now);
    world.drain(false);
    for _ in 0..world.opening {
        let socket = SocketId(world.next_socket);
        world.next_socket += 1;
        world.open.insert(socket);
        world.nat.on_socket(world.now, Some((socket, address(0))));
        world.drain(false);
    }
    assert!(world.open.is_empty(), "sockets are left open: {:?}", world.open);
    assert!(world.nat.observed().is_empty() && world.nat.lets_in().is_none());
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn whatever_is_answered_examinations_end_and_sockets_are_closed() {
        super::drive(&[]);
        drive_at_random(500, 400, super::drive);
    }
}
