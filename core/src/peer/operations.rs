//! Two [`Peers`], each with the other as its one peer, driven by bytes: handshakes begin, cross, are lost, doubled and
//! late, keys are replaced, links are used, sleep, fall silent and are forgotten, and what is sealed by one opens at
//! the other.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::initiate::ATTEMPTS_MAX;
use super::respond::{PENDING_MAX, UNCONFIRMED_MAX};
use super::{Arrival, Arrived, AttemptRoute, Ended, LinkUse, Outgoing, Output, Peers, Request};
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
use crate::wire::message::{self, InitBody, Message};
use crate::wire::packet::{Kind, Packet};

/// More than may be due one after the other, when time has passed unnoticed: each remedy against silence, each
/// repetition.
const TURNS_MAX: usize = 32;

/// One of the two.
pub(super) struct Side {
    pub(super) peers: Peers,
    pub(super) account: Account,
    pub(super) key: PeerKey,
    /// Where the other one is.
    path: Path,
    /// What it sent and the other has not got.
    wire: VecDeque<Vec<u8>>,
    opened: u64,
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 4_000))
}

impl Side {
    pub(super) fn new(n: u8) -> Self {
        let me = Arc::new(Identity::new(SecretKey::from_bytes(&[n; 32])));
        let mut peers = Peers::new(me, &Seed::new([n; 32]), Duty::Liveness, 0);
        let id: PeerId = SecretKey::from_bytes(&[3 - n; 32]).peer_id();
        let key = peers.enter(Instant::ZERO, id).expect("room");
        let path = Path { socket: SocketId(0), remote: address(3 - n), local: None };
        Self { peers, account: Account::default(), key, path, wire: VecDeque::new(), opened: 0 }
    }

    pub(super) fn route(&self) -> Route {
        self.path.into()
    }

    pub(super) fn attempt(&mut self, now: Instant) {
        let body = InitBody::Direct { early: None };
        let route = AttemptRoute::Direct(self.path);
        let begun = self.peers.attempt(now, &mut self.account, self.key, route, &body);
        assert!(begun.is_some(), "an index and a packet can be had");
    }

    /// No handshake is under way.
    fn is_quiet(&self) -> bool {
        self.peers.get(self.key).is_none_or(|peer| peer.attempts.is_empty() && peer.pending.is_empty())
    }

    /// The application or this host's network does something.
    fn use_link(&mut self, now: Instant, op: u8) {
        let id = self.peers.get(self.key).expect("nobody forgets it").id();
        match op & 3 {
            0 => drop(self.peers.ping(now, id, true)),
            1 => self.peers.make_user_link(now, self.key),
            2 => self.peers.on_moved(now, self.key, op & 8 == 0),
            _ => self.peers.set_wanted(self.key, op & 8 == 0),
        }
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
                    self.peers.on_replaced(now, key);
                }
                self.peers.install_finished(now, key, route, finished);
                self.choose(now);
                self.peers.send(key, &Message::Confirm);
                assert!(self.peers.is_up(key));
            }
            Ok(Packet::Sealed { receiver, counter, .. }) => self.on_sealed(now, receiver, counter, packet),
            Ok(Packet::Beat { kind, receiver, counter, .. }) => {
                let Some(key) = self.peers.owner(receiver) else { return };
                let Ok(newest) = self.peers.open_beat(key, receiver, counter, packet) else { return };
                let asks = kind == Kind::BeatAsk;
                self.on_authentic(now, key, receiver, Arrived { route, local: None, newest, asks });
                if asks {
                    self.peers.push(Outgoing::Beat { peer: key, kind: Kind::Beat, route: Some(route) });
                }
            }
            _ => {}
        }
        self.carry(now);
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
        let request = Request {
            init_len: packet.len(),
            fresh: true,
            link_use: LinkUse::Network,
            route: arrival.route(),
            unasked: false,
        };
        let _ = self.peers.respond_direct(now, &mut self.account, self.key, self.path, accepted, None, request);
    }

    fn on_sealed(&mut self, now: Instant, receiver: u32, counter: u32, packet: &mut [u8]) {
        let route = self.route();
        let Some(key) = self.peers.owner(receiver) else { return };
        let Ok((plain, newest)) = self.peers.open_sealed(key, receiver, counter, packet) else { return };
        self.opened += 1;
        let newest = newest && !message::is_about_path(plain);
        let asks = message::is_question(plain);
        self.on_authentic(now, key, receiver, Arrived { route, local: None, newest, asks });
        let mut rest = &*plain;
        while !rest.is_empty() {
            match message::decode_next(&mut rest).expect("the other side's own words") {
                Message::Challenge { token, room } => {
                    self.peers.on_challenge(now, &mut self.account, key, route, token, room);
                }
                Message::ChallengeReply { token, .. } => {
                    self.peers.on_challenge_reply(now, &mut self.account, key, &route, token, None);
                    self.peers.on_pong(now, key, token, &route);
                }
                Message::Close => return self.forget(now),
                _ => {}
            }
        }
        self.choose(now);
    }

    fn on_authentic(&mut self, now: Instant, key: PeerKey, receiver: u32, arrived: Arrived) {
        self.peers.wake_by_peer(now, key, &arrived.route);
        if let Some(confirmed) = self.peers.take_confirmed(key, receiver, &arrived.route) {
            if confirmed.was_up && !confirmed.same {
                self.peers.on_replaced(now, key);
            }
            self.peers.install_confirmed(now, key, confirmed);
            self.choose(now);
        }
        self.peers.on_authentic(now, key, &arrived.route, 1).expect("its owner is there");
        let from = Some((self.path.remote, 1));
        let heard = self.peers.on_arrived(now, &mut self.account, key, &arrived, from);
        if let Some(route) = heard.and_then(|heard| heard.challenge) {
            self.peers.challenge(now, &mut self.account, key, Some(route), |_| false);
        }
        self.choose(now);
    }

    fn choose(&mut self, now: Instant) {
        self.peers.choose(now, &mut self.account, self.key);
        self.peers.flush_waiting(self.key);
        self.account.proven(now, self.path.remote);
    }

    /// Nothing is left of the other side but its name, and how late its last Init was.
    fn forget(&mut self, now: Instant) {
        let gone = self.peers.forget(self.key).expect("it is there");
        self.key = self.peers.enter(now, gone.id).expect("room");
    }

    fn carry(&mut self, now: Instant) {
        while let Some(output) = self.peers.poll_output() {
            match output {
                Output::Challenge { peer, route } => {
                    self.peers.challenge(now, &mut self.account, peer, route, |_| false);
                }
                Output::Choose { .. } => self.choose(now),
                Output::WakeRelays { peer } => self.peers.wake_relays(peer, core::iter::empty()),
                Output::Revive { peer } => self.peers.revive(now, &mut self.account, peer),
                Output::Close { peer } => {
                    self.peers.say_goodbye(now, peer);
                    self.forget(now);
                }
                Output::Gone { .. } => self.forget(now),
                // Of others; and there is no way but the one.
                Output::Call { .. } | Output::Upgrade { .. } | Output::Retry { .. } | Output::StandIn { .. } => {}
                Output::Withheld { .. } | Output::Event(_) | Output::Save(_) => {}
            }
        }
    }

    /// What is due, and everything that is to be sent.
    pub(super) fn drain(&mut self, now: Instant) {
        self.carry(now);
        let mut turns = 0;
        while let Some(key) = self.peers.pop_due(now) {
            self.on_due(now, key);
            self.peers.touch(self.key);
            self.peers.settle(now, |_| None);
            turns += 1;
            assert!(turns < TURNS_MAX, "a deadline is not disarmed");
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
        assert!(self.peers.wanted().map(|(key, _)| key).eq(peer.is_wanted().then_some(self.key)));
    }

    /// Each part that may be due, unless an earlier one was the end.
    fn on_due(&mut self, now: Instant, key: PeerKey) {
        if self.peers.on_handshakes_due(now, &mut self.account, key) != Ended::Nothing && self.peers.is_idle(key) {
            self.forget(now);
        }
        self.peers.on_beats_due(now, key);
        self.carry(now);
        self.peers.on_silence_due(now, key);
        self.carry(now);
        while self.peers.on_quality_due(now, key) {
            self.carry(now);
        }
        self.peers.on_keys_due(now, &mut self.account, key);
        self.peers.on_idle_due(now, key, false);
        self.carry(now);
    }
}

/// Reads operations from `bytes`, carries them out on two peers, and has them end in one link.
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
            88..=99 => {
                let key = sides[at].key;
                sides[at].peers.send(key, &Message::LoadRequest);
            }
            100..=111 => sides[at].use_link(now, op),
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
    // In silence all that was begun ends. The account remembers for a minute what was sent unasked, so that which was
    // sent last is forgotten too before the next handshake.
    let mut rounds = 0;
    loop {
        for side in &mut sides {
            side.drain(now);
            side.wire.clear();
        }
        now += Duration::from_secs(70);
        if sides.iter().all(Side::is_quiet) {
            break;
        }
        rounds += 1;
        assert!(rounds < TURNS_MAX, "what was begun never ends");
    }
    // Whoever takes its old link for dead forgets a new one with it that is not confirmed yet: then the next one holds.
    for _ in 0..3 {
        now += Duration::from_secs(5);
        for side in &mut sides {
            // A link that nothing needs would be closed as soon as it is up.
            side.peers.need(now, side.key);
        }
        sides[0].attempt(now);
        for _ in 0..20 {
            for (at, other) in [(0, 1), (1, 0)] {
                sides[at].drain(now);
                while let Some(mut packet) = sides[at].wire.pop_front() {
                    sides[other].receive(now, &mut packet);
                }
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

/// Two with a link between them, and nothing under way.
#[cfg(test)]
pub(super) fn linked(now: Instant) -> [Side; 2] {
    let mut sides = [Side::new(1), Side::new(2)];
    sides[0].attempt(now);
    for _ in 0..4 {
        for (at, other) in [(0, 1), (1, 0)] {
            sides[at].drain(now);
            while let Some(mut packet) = sides[at].wire.pop_front() {
                sides[other].receive(now, &mut packet);
            }
        }
    }
    sides
}

/// For tests of what stands above: two nodes with a link to one another, for the application, and a peer beside it that
/// relays: that channel is the link's only path.
#[cfg(test)]
pub(crate) fn relayed(
    now: Instant,
    channel: crate::wire::packet::ChannelId,
    relay: PeerId,
) -> [(Peers, PeerKey, PeerKey); 2] {
    linked(now).map(|mut side| {
        let via = side.peers.enter(now, relay).expect("there is room");
        let peer = side.peers.get_mut(side.key).expect("it is linked");
        peer.carry_traffic(now);
        peer.paths.remove(|_| true);
        peer.paths.on_handshake(now, Route::Relayed { channel, via });
        assert!(peer.choose(now).is_some());
        (side.peers, side.key, via)
    })
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn regression_many_attempts_at_once_use_up_what_may_go_there_unasked() {
        // Thirty Inits, of which three arrive; the repetitions of the others then fill the account of the address.
        let mut bytes = [0; 41];
        bytes[35..].copy_from_slice(&[16, 144, 16, 144, 88, 16]);
        super::drive(&bytes);
    }

    #[test]
    fn handshakes_that_cross_and_are_lost_end_in_one_link() {
        super::drive(&[]);
        drive_at_random(150, 120, super::drive);
    }
}
