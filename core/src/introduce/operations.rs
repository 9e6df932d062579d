//! Calls and introductions, each driven alone by bytes as operations.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use super::caller::{CALLS_MAX, KNOWN_HOMES_MAX};
use super::home::{HOLDS_MAX, REMEMBERED_MAX};
use super::{Asked, CallOutput, Calls, Home, HomeOutput, Introductions, Known, LookupFailure, View, encoded};
use crate::account::Account;
use crate::identity::{PeerId, SecretKey};
use crate::net::{LanNode, Network, PeerKey, SocketId};
use crate::operations::Bytes;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::dialect::INIT_VERSION;
use crate::wire::message::{Message, Refusal, decode_next};
use crate::wire::packet::{ChannelId, INIT_HEADER_LEN, Kind, NOISE_1_OVERHEAD};

const PEERS: u8 = 8;
/// A call that nobody answers ends within this.
const CALL_MAX: Duration = Duration::from_secs(300);
/// An introduction is forgotten within this.
const MEMORY_MAX: Duration = Duration::from_secs(180);

fn ids() -> Vec<PeerId> {
    (0..PEERS).map(|n| SecretKey::from_bytes(&[n + 1; 32]).peer_id()).collect()
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 7_000))
}

/// There is a socket for what is announced on the LAN.
fn network() -> Network {
    Network { sockets: vec![(SocketId(0), SocketAddr::from(([0, 0, 0, 0], 7_000)))], ..Network::default() }
}

const REFUSALS: [Refusal; 4] = [Refusal::Busy, Refusal::NotRegistered, Refusal::NotAllowed, Refusal::NoAnswer];

/// One node's calls, with nobody there but bytes.
struct Caller {
    ids: Vec<PeerId>,
    now: Instant,
    account: Account,
    calls: Calls,
}

impl Caller {
    fn homes(&self, bytes: &mut Bytes<'_>) -> Vec<Home> {
        let count = bytes.u8() % 4;
        (0..count).map(|_| (self.peer(bytes.u8()), address(bytes.u8()))).collect()
    }

    fn peer(&self, n: u8) -> PeerId {
        self.ids[usize::from(n % PEERS)]
    }

    fn known(&self, bytes: &mut Bytes<'_>) -> Known {
        let flags = bytes.u8();
        let some = |bit: u8, bytes: &mut Bytes<'_>| {
            if flags & bit == 0 { Vec::new() } else { vec![address(bytes.u8()), address(bytes.u8())] }
        };
        Known {
            is_linked: flags & 1 != 0,
            addresses: some(2, bytes),
            is_leaf_here: flags & 4 != 0,
            homes: if flags & 8 == 0 { Vec::new() } else { self.homes(bytes) },
            limited: if flags & 16 == 0 { Vec::new() } else { vec![self.peer(bytes.u8())] },
        }
    }

    fn operate(&mut self, bytes: &mut Bytes<'_>) {
        let (what, id) = (bytes.u8(), self.peer(bytes.u8()));
        let now = self.now;
        match what % 9 {
            0 | 1 => {
                let known = self.known(bytes);
                if known.limited.is_empty() {
                    let result = self.calls.call(now, &mut self.account, id, &known);
                    assert_eq!(result.is_err(), id == self.ids[0], "only itself is not called");
                } else {
                    self.calls.call_leg(now, &mut self.account, id, &known);
                }
            }
            2 => {
                let homes = self.homes(bytes);
                self.calls.learn_homes(id, homes);
            }
            3 => {
                let location = Ok(self.homes(bytes));
                self.calls.on_location(now, id, location, &Known::default());
            }
            4 => {
                let failures =
                    [LookupFailure::Lost, LookupFailure::Nobody, LookupFailure::NoAnswer, LookupFailure::Unknown];
                let known = self.known(bytes);
                self.calls.on_location(now, id, Err(failures[usize::from(bytes.u8() % 4)]), &known);
            }
            5 => {
                let (by, refusal) = (self.peer(bytes.u8()), REFUSALS[usize::from(bytes.u8() % 4)]);
                let was_called = self.calls.contains(&id);
                assert_eq!(self.calls.on_refused(now, id, &by, refusal).is_ok(), was_called);
            }
            6 => {
                let flags = bytes.u8();
                let node = LanNode {
                    peer: id,
                    addresses: vec![address(bytes.u8()), address(bytes.u8())],
                    is_supernode: false,
                };
                if flags & 6 == 6 {
                    self.calls.handle_lan_node_gone(&id);
                } else {
                    self.calls.handle_lan_node(now, &mut self.account, &network(), &node, flags & 1 == 1);
                }
            }
            7 => {
                self.calls.finish(&id);
                assert!(!self.calls.contains(&id));
            }
            _ => {
                let wait = Duration::from_millis(bytes.u16().into());
                let is_late = bytes.u8().is_multiple_of(4);
                self.wait_until(now + wait, is_late, bytes);
            }
        }
        self.drain(bytes);
    }

    /// Lets time pass, one call at each of its deadlines, or all of them late.
    fn wait_until(&mut self, until: Instant, is_late: bool, bytes: &mut Bytes<'_>) {
        while let Some(at) = self.calls.poll_timeout().filter(|at| *at <= until) {
            self.now = if is_late { until } else { at };
            while let Some(id) = self.calls.pop_due(self.now) {
                self.calls.handle_timeout(self.now, id, &Known::default());
                self.drain(bytes);
            }
            assert!(self.calls.poll_timeout().is_none_or(|at| at > self.now), "a timer does not advance");
        }
        self.now = until;
    }

    fn drain(&mut self, bytes: &mut Bytes<'_>) {
        let me = self.ids[0];
        while let Some(output) = self.calls.poll_output() {
            match output {
                CallOutput::Lookup { peer } => {
                    assert!(self.calls.contains(&peer));
                    if bytes.u8() % 4 == 1 {
                        self.calls.on_location(self.now, peer, Err(LookupFailure::Nobody), &Known::default());
                    }
                }
                CallOutput::Dial { peer, .. } => assert_ne!(peer, me),
                CallOutput::Build { peer, home, .. } => {
                    assert!(self.calls.contains(&peer) && home.0 != me);
                    match bytes.u8() % 4 {
                        0 => self.calls.on_impossible(peer),
                        _ => self.calls.on_init_built(peer, [7; 9].into()),
                    }
                }
                CallOutput::Introduce { peer, home, init } => {
                    assert!(self.calls.contains(&peer) && home.0 != me && *init == [7; 9]);
                }
                CallOutput::UseLink { peer } => {
                    assert!(self.calls.contains(&peer));
                    if bytes.u8().is_multiple_of(2) {
                        self.calls.on_impossible(peer);
                    }
                }
                CallOutput::Failed { peer, .. } => {
                    assert_ne!(peer, me);
                    assert!(!self.calls.contains(&peer));
                }
                CallOutput::LegFailed { peer } => assert!(!self.calls.contains(&peer)),
                CallOutput::Forget { .. } => {}
            }
        }
        let (calls, homes, deadlines) = self.calls.sizes();
        assert!(calls <= CALLS_MAX && homes <= KNOWN_HOMES_MAX);
        assert_eq!(calls, deadlines, "a call without a deadline never ends");
    }
}

/// Drives [`Calls`]: whatever is told of them and whenever, each has a deadline, and ends when nobody answers.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive_calls(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let ids = ids();
    let calls = Calls::new(ids[0], bytes.u8() % 2 == 1);
    let mut caller = Caller { ids, now: Instant::ZERO, account: Account::default(), calls };
    while !bytes.is_empty() {
        caller.operate(&mut bytes);
    }
    caller.wait_until(caller.now + CALL_MAX, false, &mut bytes);
    assert!(caller.calls.is_empty(), "nobody answered, and still there are calls");
}

/// One home's introductions; the channels that are open because of them, and the Inits that it keeps.
struct Server {
    ids: Vec<PeerId>,
    now: Instant,
    account: Account,
    introductions: Introductions<u32>,
    open: BTreeSet<ChannelId>,
    named: Vec<ChannelId>,
    held: BTreeSet<u32>,
    inits: u32,
}

/// The link of the n-th peer.
fn key(n: u8) -> PeerKey {
    PeerKey { index: u32::from(n % PEERS), generation: 1 }
}

fn init(n: u8) -> Vec<u8> {
    let mut init = vec![0; INIT_HEADER_LEN + NOISE_1_OVERHEAD];
    (init[0], init[1]) = (Kind::Init as u8, INIT_VERSION);
    init[INIT_HEADER_LEN] = n % 16;
    init
}

impl Server {
    fn operate(&mut self, bytes: &mut Bytes<'_>) {
        let what = bytes.u8();
        let (caller, callee) = (bytes.u8() % PEERS, bytes.u8() % PEERS);
        match what % 9 {
            0..=3 => self.ask(what.is_multiple_of(2), caller, callee, bytes),
            4 => {
                let at = usize::from(bytes.u8());
                let channel = self.named.get(at % self.named.len().max(1)).copied().unwrap_or(ChannelId([0; 6]));
                let response =
                    if bytes.u8().is_multiple_of(4) { Err(Refusal::NotAllowed) } else { Ok(&b"a response"[..]) };
                let result = self.introductions.on_reply(key(callee), channel, response, bytes.u8().is_multiple_of(2));
                assert!(result.is_err() || self.introductions.caller_of(channel).is_some());
            }
            5 => self.introductions.on_link_up(key(caller)),
            6 => {
                // It idled out, or a link that it had is gone.
                self.open.pop_first();
            }
            7 => {
                let flags = bytes.u8();
                let remote = (flags & 1 == 0).then(|| address(caller));
                let callee_link = (flags & 2 == 0).then(|| key(callee));
                let view = View { is_serving: flags & 4 == 0, callee: callee_link, ..View::default() };
                let (peer, leaf) = (self.ids[usize::from(caller)], self.ids[usize::from(callee)]);
                self.introductions.on_vouch(self.now, &mut self.account, (peer, remote), leaf, view);
            }
            _ => {
                let wait = Duration::from_millis(bytes.u16().into());
                self.wait_until(self.now + wait, bytes.u8().is_multiple_of(4));
            }
        }
        self.drain();
    }

    fn ask(&mut self, is_early: bool, caller: u8, callee: u8, bytes: &mut Bytes<'_>) {
        let (flags, init) = (bytes.u8(), init(bytes.u8()));
        let init = if flags & 0x80 == 0 { init } else { bytes.take(9).to_vec() };
        let asked = Asked {
            caller: (key(caller), self.ids[usize::from(caller)]),
            remote: (flags & 1 == 0).then(|| address(caller)),
            callee: self.ids[usize::from(callee)],
            init: &init,
        };
        let before = self.introductions.channel_of(asked.caller.1, &init);
        let view = View {
            is_serving: flags & 6 != 6,
            callee: (flags & 0x18 != 0x18).then(|| key(callee)),
            is_open: before.is_some_and(|channel| self.open.contains(&channel)),
            is_exhausted: flags & 0x60 == 0x60,
            has_room: flags & 0x61 != 0x61,
        };
        if is_early {
            self.inits += 1;
            self.held.insert(self.inits);
            let len = init.len();
            self.introductions.on_early(self.now, &mut self.account, asked, view, len, self.inits);
        } else {
            self.introductions.on_introduce(self.now, &mut self.account, asked, view);
        }
    }

    fn wait_until(&mut self, until: Instant, is_late: bool) {
        while let Some(at) = self.introductions.poll_timeout().filter(|at| *at <= until) {
            self.now = if is_late { until } else { at };
            self.introductions.handle_timeout(self.now);
            assert!(self.introductions.poll_timeout().is_none_or(|at| at > self.now), "a timer does not advance");
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        while let Some(output) = self.introductions.poll_output() {
            match output {
                HomeOutput::Open { channel, ends } => {
                    assert!(!self.named.contains(&channel), "channel ids are never reused");
                    assert!(ends.iter().all(|(peer, id)| self.ids[peer.index as usize] == *id));
                    self.named.push(channel);
                    self.open.insert(channel);
                }
                HomeOutput::Close { channel } => {
                    assert!(self.named.contains(&channel));
                    self.open.remove(&channel);
                }
                HomeOutput::Bring { message, .. } => {
                    assert!(matches!(whole(&message), Message::Introduced { .. } | Message::Vouched { .. }));
                }
                HomeOutput::Reply { message, .. } => assert!(matches!(whole(&message), Message::IntroduceReply { .. })),
                HomeOutput::Answer { held, reply, .. } => {
                    assert!(self.held.remove(&held), "an Init is answered once");
                    assert!(reply.is_none_or(|reply| matches!(whole(&reply), Message::IntroduceReply { .. })));
                }
            }
        }
        let sizes = self.introductions.sizes();
        assert!(sizes.remembered <= REMEMBERED_MAX && sizes.by_call <= sizes.remembered);
        assert!(sizes.held <= HOLDS_MAX && sizes.held <= self.held.len());
        assert!([sizes.repeated, sizes.early, sizes.parked].iter().all(|n| *n <= sizes.remembered));
    }
}

/// The one message that these bytes are.
fn whole(mut bytes: &[u8]) -> Message<'_> {
    let message = decode_next(&mut bytes).expect("what leaves is a message");
    assert!(bytes.is_empty() && encoded(&message).is_some());
    message
}

/// Drives [`Introductions`]: no Init is answered twice, no channel is named twice, and all is forgotten in time.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive_introductions(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut server = Server {
        ids: ids(),
        now: Instant::ZERO,
        account: Account::default(),
        introductions: Introductions::new(&Seed::new([bytes.u8(); 32]), 2_000_000, 0),
        open: BTreeSet::new(),
        named: Vec::new(),
        held: BTreeSet::new(),
        inits: 0,
    };
    while !bytes.is_empty() {
        server.operate(&mut bytes);
    }
    server.wait_until(server.now + MEMORY_MAX, false);
    assert_eq!(server.introductions.sizes(), super::home::Sizes::default(), "something is never forgotten");
    assert_eq!(server.introductions.poll_timeout(), None);
}

#[test]
fn any_calls() {
    crate::operations::drive_at_random(400, 600, drive_calls);
}

#[test]
fn any_introductions() {
    crate::operations::drive_at_random(400, 600, drive_introductions);
}
