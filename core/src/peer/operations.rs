//! Two [`Peers`], each with the other as its one peer, driven by bytes: handshakes begin, cross, are lost, doubled and
//! late, keys are replaced, and what is sealed by one opens at the other.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::handshake::{ATTEMPTS_MAX, PENDING_MAX, Request, UNCONFIRMED_MAX};
use super::{Arrival, Arrived, AttemptRoute, Peer, Peers};
use crate::account::Account;
use crate::identity::{PeerId, SecretKey};
use crate::keepalive::Duty;
use crate::link::Identity;
use crate::net::{Path, PeerKey, SocketId};
use crate::operations::Bytes;
use crate::path::Route;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{InitBody, Message, ResponseBody};
use crate::wire::packet::Packet;

/// One of the two.
struct Side {
    peers: Peers,
    account: Account,
    key: PeerKey,
    /// Where the other one is.
    path: Path,
    /// What it sent and the other has not got.
    wire: VecDeque<Vec<u8>>,
    time_us: u64,
    opened: u64,
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 4_000))
}

impl Side {
    fn new(n: u8) -> Self {
        let me = Arc::new(Identity::new(SecretKey::from_bytes(&[n; 32])));
        let mut peers = Peers::new(me, &Seed::new([n; 32]), Duty::Liveness);
        let id: PeerId = SecretKey::from_bytes(&[3 - n; 32]).peer_id();
        let key = peers.insert(Peer::new(Instant::ZERO, id, Duty::Liveness)).expect("room");
        let path = Path { socket: SocketId(0), remote: address(3 - n), local: None };
        Self { peers, account: Account::default(), key, path, wire: VecDeque::new(), time_us: 0, opened: 0 }
    }

    fn route(&self) -> Route {
        Route::Direct { socket: self.path.socket, remote: self.path.remote }
    }

    fn attempt(&mut self, now: Instant) {
        self.time_us += 1;
        let body = InitBody::Direct { early: None };
        let route = AttemptRoute::Direct(self.path);
        let begun = self.peers.attempt(now, &mut self.account, self.time_us, self.key, route, &body);
        assert!(begun.is_some(), "an index and a packet can be had");
    }

    /// A packet came from the other side.
    fn receive(&mut self, now: Instant, packet: &mut [u8]) {
        let route = self.route();
        match Packet::decode(packet) {
            Ok(Packet::Init { .. }) => self.on_init(now, packet),
            Ok(Packet::Response { receiver, .. }) => {
                let Ok(key) = self.peers.awaits_response(receiver, &route) else { return };
                let mut plain = [0; DATAGRAM_LEN_MAX];
                let Ok(finished) = self.peers.finish(now, key, receiver, packet, &mut plain) else { return };
                if !finished.same && self.peers.is_up(key) {
                    self.peers.drop_epochs(key);
                }
                self.peers.install_finished(now, key, route, finished);
                self.choose(now);
                self.peers.send(key, &Message::Confirm);
                assert!(self.peers.is_up(key));
            }
            Ok(Packet::Sealed { receiver, counter, .. }) => self.on_sealed(now, receiver, counter, packet),
            Ok(Packet::Beat { receiver, counter, .. }) => {
                if let Some(key) = self.peers.owner(receiver) {
                    let _ = self.peers.open_beat(key, receiver, counter, packet);
                }
            }
            _ => {}
        }
    }

    fn on_init(&mut self, now: Instant, packet: &[u8]) {
        let arrival = Arrival::Direct(self.path);
        if !matches!(self.peers.admit(now, &mut self.account, self.path, packet), Ok(true))
            || self.peers.answer_again(now, &mut self.account, arrival, packet)
        {
            return;
        }
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let Ok((accepted, _)) = self.peers.accept(packet, true, &mut plain) else { return };
        if self.peers.is_crossing(now, &accepted.peer) {
            return;
        }
        let request =
            Request { init_len: packet.len(), fresh: true, user: false, route: arrival.route(), unasked: false };
        let body = ResponseBody::Direct { seen: self.path.remote.into(), reply: None };
        if let Ok(response) = self.peers.respond(now, self.key, accepted, &body, request) {
            assert!(response.len() <= packet.len(), "an answer larger than its question");
            self.peers.answer(now, &mut self.account, arrival, response);
        }
    }

    fn on_sealed(&mut self, now: Instant, receiver: u32, counter: u32, packet: &mut [u8]) {
        let route = self.route();
        let Some(key) = self.peers.owner(receiver) else { return };
        let Ok((_, newest)) = self.peers.open_sealed(key, receiver, counter, packet) else { return };
        self.opened += 1;
        if let Some(confirmed) = self.peers.take_confirmed(key, receiver, &route) {
            if confirmed.was_up && !confirmed.same {
                self.peers.drop_epochs(key);
            }
            self.peers.install_confirmed(now, key, confirmed);
            self.choose(now);
        }
        let peer = self.peers.get_mut(key).expect("its owner is there");
        peer.on_authentic(now, &route, 1);
        peer.on_arrived(now, &Arrived { route, local: None, newest, asks: false });
        self.choose(now);
    }

    fn choose(&mut self, now: Instant) {
        let key = self.key;
        if self.peers.get_mut(key).and_then(|peer| peer.choose(now)).is_some() {
            self.peers.flush_waiting(key);
        }
        self.account.proven(self.path.remote);
    }

    /// What is due, and everything that is to be sent.
    fn drain(&mut self, now: Instant) {
        while let Some(key) = self.peers.pop_due(now) {
            self.peers.on_attempts_due(now, &mut self.account, key);
            self.peers.drop_pending_if_due(now, key);
            self.peers.drop_old_epoch_if_due(now, key);
            let pace = self.peers.pace();
            let peer = self.peers.get_mut(key).expect("its deadline was set");
            peer.rest_if_due(now);
            let duty = peer.duty_at(now, pace);
            let _ = peer.beats.handle_timeout(now, duty, pace);
            let _ = peer.detector.handle_timeout(now);
            peer.needed = now;
            if peer.is_rekey_due(now) {
                self.attempt(now);
            }
            self.peers.touch(key);
            self.peers.settle(now, |_| None);
            assert!(self.peers.poll_timeout().is_none_or(|at| at > now), "a deadline is not disarmed");
        }
        let mut buf = [0; DATAGRAM_LEN_MAX];
        while let Some((path, len)) = self.peers.poll_transmit(now, &mut buf, |_| true) {
            assert_eq!(path.remote, self.path.remote);
            self.wire.push_back(buf[..len].to_vec());
        }
        self.peers.touch(self.key);
        self.peers.settle(now, |_| None);
        let peer = self.peers.get(self.key).expect("nobody forgets it");
        assert!(peer.pending.len() <= PENDING_MAX && peer.attempts.len() <= ATTEMPTS_MAX);
        assert!(self.peers.unconfirmed() <= UNCONFIRMED_MAX);
    }
}

/// Reads operations from bytes. See the module.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut sides = [Side::new(1), Side::new(2)];
    let mut now = Instant::ZERO + Duration::from_secs(1);
    while !bytes.is_empty() {
        let op = bytes.u8();
        let (at, other) = if op & 0x80 == 0 { (0, 1) } else { (1, 0) };
        match op & 0x7f {
            0..=15 => sides[at].attempt(now),
            16..=63 => {
                // From the front, or out of order.
                let nth = usize::from(op & 3).min(sides[at].wire.len().saturating_sub(1));
                if let Some(mut packet) = sides[at].wire.remove(nth) {
                    sides[other].receive(now, &mut packet);
                }
            }
            64..=71 => drop(sides[at].wire.pop_front()),
            72..=79 => {
                if let Some(mut copy) = sides[at].wire.front().cloned() {
                    sides[other].receive(now, &mut copy);
                }
            }
            80..=87 => {
                if let Some(mut broken) = sides[at].wire.front().cloned() {
                    let n = usize::from(bytes.u8()) % broken.len();
                    broken[n] ^= 1 << (op & 7);
                    sides[other].receive(now, &mut broken);
                }
            }
            88..=111 => {
                let key = sides[at].key;
                sides[at].peers.send(key, &Message::LoadRequest);
            }
            _ => now += Duration::from_millis(u64::from(bytes.u16())),
        }
        for side in &mut sides {
            side.drain(now);
        }
    }
    settle_down(sides, now);
}

/// With nothing lost any more, a handshake succeeds, and what one side seals the other opens.
fn settle_down(mut sides: [Side; 2], mut now: Instant) {
    for side in &mut sides {
        side.wire.clear();
    }
    // Beyond what the account remembers of what was sent unasked.
    now += Duration::from_secs(70);
    for side in &mut sides {
        side.drain(now);
        side.wire.clear();
    }
    now += Duration::from_secs(5);
    sides[0].attempt(now);
    for _ in 0..20 {
        for (at, other) in [(0, 1), (1, 0)] {
            sides[at].drain(now);
            while let Some(mut packet) = sides[at].wire.pop_front() {
                sides[other].receive(now, &mut packet);
            }
        }
    }
    for (at, other) in [(0, 1), (1, 0)] {
        let before = sides[other].opened;
        let key = sides[at].key;
        assert!(sides[at].peers.is_up(key), "a handshake succeeds");
        sides[at].peers.send(key, &Message::LoadRequest);
        sides[at].drain(now);
        while let Some(mut packet) = sides[at].wire.pop_front() {
            sides[other].receive(now, &mut packet);
        }
        assert!(sides[other].opened > before, "what one seals the other opens");
    }
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn handshakes_that_cross_and_are_lost_end_in_one_link() {
        super::drive(&[]);
        drive_at_random(150, 120, super::drive);
    }
}
