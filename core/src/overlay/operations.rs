//! One [`Overlay`], driven by bytes: links that come and go, messages that make sense and that do not, other networks,
//! and everything that makes a node change sides.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::advert::{Advert, Capabilities, LEAF_ADVERTS_MAX};
use super::directory::Record;
use super::home::Carried;
use super::messages::{About, advertiser};
use super::news::LinkUp;
use super::output::Output;
use super::serving::Situation;
use super::state::Overlay;
use crate::api::{Config, Role, Saved};
use crate::identity::{PeerId, SecretKey};
use crate::link::{Identity, InitFixed, Macs, PeerKeys, initiate};
use crate::net::{Mapping, MappingProtocol, Network, SocketId};
use crate::operations::Bytes;
use crate::random::{KeyRng, Seed};
use crate::time::{Instant, WallTime};
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{Load, Message, Refusal, SignedKind, decode_next};

/// Others that there are.
const PEERS: u8 = 8;
/// Most outputs that one call makes.
const OUTPUTS_MAX: usize = 2_000;
/// Wall time at the start, in seconds.
const WALL_S: u64 = 1_800_000_000;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n % PEERS + 1; 32])
}

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, n % PEERS, 1], 4_000))
}

fn own(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n % 3], 5_000))
}

struct World {
    overlay: Overlay,
    now: Instant,
    network: Network,
    seen: Option<SocketAddr>,
    lets_in: Option<Instant>,
    carried: Carried,
    linked: BTreeSet<PeerId>,
    /// Who was dialled, and has not come up nor failed.
    dialled: BTreeSet<u8>,
    /// Of dial-backs asked for.
    nonces: Vec<[u8; 8]>,
    inquired: BTreeSet<IpAddr>,
    /// Any Init that a home may bring.
    init: Box<[u8]>,
    has_left: bool,
}

fn init() -> Box<[u8]> {
    let (me, mut keys) = (Identity::new(SecretKey::from_bytes(&[201; 32])), KeyRng::new([8; 32]));
    let mut out = [0; DATAGRAM_LEN_MAX];
    let fixed = InitFixed { time_us: 1, session: 1 };
    let peer = PeerKeys::new(me.id()).expect("a good key");
    let (_, len) = initiate(&me, &peer, &mut keys, 1, fixed, &[0xff; 40], Macs::None, &mut out).expect("it fits");
    out[..len].into()
}

impl World {
    fn new(role: Role) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        let me = Arc::new(Identity::new(SecretKey::from_bytes(&[200; 32])));
        let config = Config { role, leaves_max: 3, ..Config::leaf() };
        let saved = Saved { anchors: vec![(id(0), address(0))], ..Saved::default() };
        let mut world = Self {
            overlay: Overlay::new(now, &Seed::new([7; 32]), me, &config, &saved),
            now,
            network: Network { sockets: vec![(SocketId(0), own(0))], ..Network::default() },
            seen: Some(own(0)),
            lets_in: None,
            carried: Carried::default(),
            linked: BTreeSet::new(),
            dialled: BTreeSet::new(),
            nonces: Vec::new(),
            inquired: BTreeSet::new(),
            init: init(),
            has_left: false,
        };
        world.timeout();
        world
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Overlay, Instant, &Situation<'_>) -> T) -> T {
        let Self { network, seen, lets_in, carried, .. } = self;
        let situation = Situation { network, seen: *seen, lets_in: *lets_in, carried: *carried };
        call(&mut self.overlay, self.now, &situation)
    }

    fn link_up(&mut self, n: u8, shows_us: bool) {
        self.dialled.remove(&(n % PEERS));
        let is_new = self.linked.insert(id(n));
        self.overlay.on_link_up(self.now, id(n), LinkUp { is_new, shows_us });
    }

    fn link_down(&mut self, n: u8) {
        self.dialled.remove(&(n % PEERS));
        self.linked.remove(&id(n));
        self.overlay.on_link_down(self.now, &id(n));
    }

    fn message(&mut self, n: u8, message: Message<'_>, is_proven: bool) {
        let about = About {
            remote: Some(address(n)).filter(|_| is_proven),
            ip: Some(address(n).ip()),
            is_proven,
            rtt: Some(Duration::from_millis(u64::from(n))),
            is_linked: matches!(&message, Message::DialBackOrder { peer, .. } if self.linked.contains(peer)),
            is_called: advertiser(&message).is_some_and(|peer| peer == id(0)),
            carried: self.carried,
            ..About::default()
        };
        self.overlay.on_heard(self.now, &id(n));
        if let Some(reply) = self.overlay.handle_message(self.now, id(n), message, &about) {
            assert!(matches!(decode_next(&mut &*reply), Ok(Message::LoadReply { .. })));
        }
    }

    fn advert(&self, n: u8, sequence: u64, capabilities: Capabilities) -> Box<[u8]> {
        let addresses = [address(n).into()].into_iter().collect();
        let (issued_s, lifetime_s) = (WALL_S + self.now.as_secs(), 3_600);
        Advert { id: id(n), sequence, issued_s, lifetime_s, capabilities, leaves_max: 9, relay_kbps: 0, addresses }
            .sign(&key(n))
    }

    fn record(&self, n: u8, home: PeerId, sequence: u64) -> Box<[u8]> {
        let homes = [(home, address(n).into())].into_iter().collect();
        let issued_s = WALL_S + self.now.as_secs();
        Record { id: id(n), sequence, issued_s, lifetime_s: 3_600, homes }.sign(&key(n))
    }

    fn timeout(&mut self) {
        for _ in 0..1_000 {
            self.with(Overlay::handle_timeout);
            self.drain();
            if self.overlay.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("a deadline is not disarmed");
    }

    /// Takes what is wanted, and asserts what must always hold.
    fn drain(&mut self) {
        let mut count = 0;
        while let Some(output) = self.overlay.poll_output(self.now) {
            count += 1;
            assert!(count < OUTPUTS_MAX, "it never stops wanting");
            match output {
                Output::Send { messages, .. } | Output::SendAt { messages, .. } => self.check_sent(&messages),
                Output::Dial { peer, .. } => {
                    assert!(!self.has_left, "who leaves dials nobody");
                    assert_ne!(peer, SecretKey::from_bytes(&[200; 32]).peer_id());
                    if self.linked.contains(&peer) {
                        let link = LinkUp { is_new: false, shows_us: true };
                        self.overlay.on_link_up(self.now, peer, link);
                    } else {
                        self.dialled.extend((0..PEERS).find(|n| id(*n) == peer));
                    }
                }
                // Some answer, some cannot be asked now, some are silent.
                Output::Vet { peer, address } => match (0..PEERS).find(|n| id(*n) == peer).map(|n| n % 3) {
                    Some(0) => {
                        self.overlay.on_reached(self.now, peer, address);
                        assert!(!self.overlay.is_serving() || self.overlay.is_at(&peer, address));
                    }
                    Some(1) => self.overlay.on_vet_refused(self.now, &peer),
                    _ => {}
                },
                Output::Attested { ip } => assert!(self.inquired.contains(&ip)),
                Output::DialBack { .. } => assert!(self.overlay.is_serving()),
                Output::Dismiss { .. } => assert!(!self.overlay.is_serving()),
                Output::Serving => assert!(self.overlay.is_serving()),
                Output::Ceased => assert!(!self.overlay.is_serving()),
                Output::Keep { .. }
                | Output::Rest { .. }
                | Output::AskAlive { .. }
                | Output::Release { .. }
                | Output::Review
                | Output::CloseChannels
                | Output::Duty(_)
                | Output::Locate { .. }
                | Output::AtHome
                | Output::Seen
                | Output::Examine(_)
                | Output::Event(_) => {}
            }
        }
        self.check();
    }

    fn check_sent(&mut self, messages: &[u8]) {
        assert!(!messages.is_empty() && messages.len() <= super::pack::PLAINTEXT_MAX);
        let mut rest = messages;
        while !rest.is_empty() {
            let message = decode_next(&mut rest).expect("what we send can be read");
            if let Message::DialBackRequest { nonce, .. } = message {
                self.nonces.push(nonce);
            }
        }
    }

    fn check(&self) {
        let overlay = &self.overlay;
        match overlay.terms.role {
            Role::Auto => {}
            Role::Leaf => assert!(!overlay.is_serving()),
            Role::Supernode { .. } => assert!(overlay.is_serving()),
        }
        assert!(!overlay.is_pressing() && overlay.turn.is_none(), "nothing presses when nothing is wanted");
        let max = if overlay.is_serving() { overlay.terms.table_max } else { LEAF_ADVERTS_MAX };
        assert!(overlay.members.len() <= max && overlay.leaves() <= 3 && overlay.own_homes().len() <= 2);
        assert!(overlay.helpers.len() <= 3);
        assert!(overlay.is_serving() || overlay.leaves() == 0);
        assert!(overlay.own_homes().iter().all(|(home, _)| self.linked.contains(home)), "a home without a link");
        assert!(overlay.linked().iter().all(|peer| self.linked.contains(peer)), "a link that is not there");
        for leaf in (0..PEERS).map(id).filter(|peer| overlay.is_registered(peer)) {
            assert!(self.linked.contains(&leaf), "a leaf without a link");
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let op = bytes.u8();
        let n = bytes.u8();
        match op % 32 {
            0 => self.overlay.join(self.now, &[(id(n), address(n))]),
            1 => self.overlay.hear_of(self.now, &[(id(n), address(n))]),
            2 | 3 => {
                if let Some(n) = self.dialled.first().copied() {
                    self.link_up(n, true);
                }
            }
            4 => self.link_up(n, op & 0x20 == 0),
            5 => self.link_down(self.dialled.first().copied().unwrap_or(n)),
            6..=12 => self.tell(op % 32, n, bytes.u8()),
            13 => {
                let len = usize::from(bytes.u8());
                let mut rest = bytes.take(len);
                if let Ok(message) = decode_next(&mut rest).map_err(drop)
                    && is_ours(&message)
                    && self.linked.contains(&id(n))
                {
                    self.message(n, message, op & 0x20 == 0);
                }
            }
            14 => {
                self.network = Network {
                    sockets: vec![(SocketId(0), own(n))],
                    interfaces: if op & 0x20 == 0 { Vec::new() } else { vec![own(n).ip()] },
                    ..Network::default()
                };
                self.overlay.check_address(self.now, &self.network);
                self.drain();
                self.overlay.handle_network(self.now);
            }
            15 => {
                let external = SocketAddr::new(own(0).ip(), 6_000 + u16::from(n % 2));
                let mapping = Mapping { socket: SocketId(0), external, protocol: MappingProtocol::Pcp };
                self.network.mappings = if op & 0x20 == 0 { vec![mapping] } else { Vec::new() };
                self.overlay.check_address(self.now, &self.network);
                self.drain();
                self.overlay.on_mappings(self.now, &self.network);
            }
            16 if op & 0x20 != 0 => {
                self.inquired.insert(address(n).ip());
                self.overlay.inquire(self.now, id(n), address(n).ip());
            }
            16 => self.overlay.on_sent(self.now, address(n)),
            17 => self.overlay.on_unasked_link(self.now),
            18..=20 => {
                let nonce = self.nonces.last().copied().unwrap_or_default();
                self.with(|overlay, now, situation| {
                    overlay.on_dialled_back(now, &id(n), address(n), nonce, situation);
                });
            }
            21 => self.seen = (op & 0x20 == 0).then(|| own(n)),
            22 => {
                self.lets_in = (op & 0x20 == 0).then_some(self.now);
                self.with(Overlay::consider_serving);
            }
            23 => {
                let came_in = [None, Some(true), Some(false), Some(false)][usize::from(n % 4)];
                self.overlay.on_checked(self.now, self.seen, came_in);
            }
            24 => {
                self.carried.is_exhausted = n.is_multiple_of(4);
                if self.carried.is_exhausted {
                    self.overlay.on_relay_exhausted(self.now);
                }
            }
            25 => {
                let _ = self.overlay.start_lookup(self.now, id(n));
                self.overlay.forget_record(&id(n.wrapping_add(1)));
            }
            26 => {
                if self.overlay.has_helpers() {
                    self.overlay.release_helpers();
                } else {
                    let _ = self.overlay.call_helpers(self.now, 3, &[address(n).ip()], &self.linked);
                }
            }
            27 => {
                let wall_us = (WALL_S + u64::from(n) * 600) * 1_000_000 + self.now.as_micros();
                self.overlay.handle_wall_clock(self.now, WallTime::from_micros(wall_us));
            }
            28 => self.now += Duration::from_secs(u64::from(n) * 60),
            _ => self.now += Duration::from_millis(u64::from(n) * 40),
        }
    }

    /// A message that makes sense, from a peer that there is a link to.
    fn tell(&mut self, kind: u8, n: u8, more: u8) {
        // Of those linked, if that one is not.
        let linked = (n..=n.saturating_add(PEERS)).find(|n| self.linked.contains(&id(*n)));
        let Some(n) = linked else { return };
        let me = self.overlay.me.id();
        let nonce = self.nonces.last().copied().unwrap_or_default();
        match kind {
            6 => {
                let capabilities = if more >= 0xf0 { Capabilities::default() } else { Capabilities::ALL };
                let about = if more & 1 == 0 { n } else { more >> 1 };
                let bytes = self.advert(about, u64::from(more), capabilities);
                self.message(n, Message::Signed { kind: SignedKind::Advert, bytes: &bytes }, true);
            }
            7 => {
                let record = self.record(n, me, u64::from(more));
                let other_home = Some(id(more)).filter(|_| more & 1 == 0);
                self.message(n, Message::Register { other_home, record: &record }, true);
            }
            8 => {
                let refused = Some(Refusal::Busy).filter(|_| more.is_multiple_of(8));
                self.message(n, Message::RegisterReply { refused, load: Load::default() }, true);
            }
            9 => {
                let load = Load { leaves: more, introductions: 0, relay: 0 };
                self.message(n, Message::LoadReply { load, time_s: WALL_S + u64::from(more) }, true);
            }
            10 => match more % 4 {
                0 => self.message(n, Message::Deregister, true),
                1 => self.message(n, Message::HomeDown { home: id(more >> 2) }, true),
                2 => self.message(n, Message::AdvertsRequest, more & 4 == 0),
                _ => self.message(n, Message::Hints(ArrayVec::new()), true),
            },
            11 => match more % 4 {
                0 => self.message(n, Message::Lookup { peer: id(more >> 2) }, true),
                1 => {
                    let record = self.record(more >> 2, id(n), u64::from(more));
                    let reply = Message::LookupReply { peer: id(more >> 2), record: Some(&record) };
                    self.message(n, reply, true);
                }
                2 => self.message(n, Message::LookupReply { peer: id(more >> 2), record: None }, true),
                _ => self.message(n, Message::LoadRequest, true),
            },
            _ => match more % 6 {
                3 => {
                    let init = if more & 0x40 == 0 { &self.init[..] } else { &[] };
                    let init: Box<[u8]> = init.into();
                    self.message(n, Message::Trial { init: &init }, more & 0x20 == 0);
                }
                4 => {
                    let refused = [None, Some(Refusal::Busy), Some(Refusal::NoAnswer), Some(Refusal::NotRegistered)];
                    self.message(n, Message::TrialReply { refused: refused[usize::from(more >> 4) % 4] }, true);
                }
                5 => {
                    let refusal = if more & 0x40 == 0 { Refusal::NotAllowed } else { Refusal::Busy };
                    let _ = self.overlay.on_trial_answer(self.now, &id(n), &id(more >> 2), refusal);
                    let init = self.init.clone();
                    let _ = self.overlay.on_brought(&id(n), &init);
                }
                0 => {
                    let request = Message::DialBackRequest { nonce: [more; 8], contacted: ArrayVec::new(), port: 0 };
                    self.message(n, request, more & 4 == 0);
                }
                1 => {
                    let (peer, address) = (id(more >> 2), address(more).into());
                    self.message(n, Message::DialBackOrder { peer, address, nonce: [more; 8] }, true);
                }
                _ => {
                    let refused = Some(Refusal::Unknown).filter(|_| more & 4 == 0);
                    self.message(n, Message::DialBackReply { nonce, refused }, true);
                }
            },
        }
    }
}

/// Whether the node hands messages of this kind to the overlay.
fn is_ours(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::Lookup { .. }
            | Message::LookupReply { .. }
            | Message::Register { .. }
            | Message::RegisterReply { .. }
            | Message::Deregister
            | Message::HomeDown { .. }
            | Message::AdvertsRequest
            | Message::Signed { .. }
            | Message::Digest { .. }
            | Message::Hints(_)
            | Message::LoadRequest
            | Message::LoadReply { .. }
            | Message::DialBackRequest { .. }
            | Message::DialBackOrder { .. }
            | Message::DialBack { .. }
            | Message::DialBackReply { .. }
            | Message::Trial { .. }
            | Message::TrialReply { .. }
    )
}

/// Reads a role and then one step after the other from bytes, and lets time pass after each.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let role = match bytes.u8() % 4 {
        0 => Role::Leaf,
        1 => Role::Supernode { advertise: vec![own(0)] },
        _ => Role::Auto,
    };
    let mut world = World::new(role);
    while !bytes.is_empty() {
        world.step(&mut bytes);
        world.drain();
        world.timeout();
    }
    // All links end, and it leaves: no leaf is registered, there is no home, and nobody is dialled any more.
    for n in 0..PEERS {
        world.link_down(n);
        world.drain();
    }
    assert!(world.overlay.leaves() == 0 && world.overlay.own_homes().is_empty() && !world.overlay.has_helpers());
    world.overlay.leave(world.now);
    world.has_left = true;
    world.now += Duration::from_secs(3_600);
    world.timeout();
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn whatever_happens_tables_keep_their_limits_and_deadlines_are_disarmed() {
        super::drive(&[]);
        drive_at_random(60, 600, super::drive);
    }
}
