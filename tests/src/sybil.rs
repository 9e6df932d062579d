//! Supernodes that somebody runs to deceive: each has an address, answers handshakes, beats and gossip as an honest one
//! does, so that it is known by everybody, takes every leaf and every record, and gives nothing back, or something
//! false.
//!
//! They are no nodes but a program that speaks the protocol, at hosts that stand by: [`Sybils::serve`] reads what has
//! arrived there and answers it, and whoever runs the world calls that often. What they say of their own accord, they
//! say through [`Sybils::say`].

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use handfast_core::internal::{
    Advert, Capabilities, Epoch, Identity, InitFixed, Initiation, KeyRng, Macs, PeerKeys, Record, ResponseFixed,
    accept, initiate,
};
use handfast_core::wire::address::Address;
use handfast_core::wire::message::{self, DigestEntry, Load, Message, ResponseBody, SignedKind};
use handfast_core::wire::packet::{BEAT_LEN, DATA_HEADER_LEN, Kind, Packet};
use handfast_core::{DATAGRAM_LEN_MAX, Instant, PeerId, SecretKey};

use crate::host::{HostId, Seen};
use crate::wire::ip_overhead;
use crate::world::World;

/// A supernode renews its advert within half an hour.
const RENEWED_EVERY: Duration = Duration::from_secs(20 * 60);
/// The first port of them at a host; each has its own.
const PORTS: u16 = 2_000;

/// What one of them says where it is asked for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Nothing.
    Silent,
    /// That there is none.
    Denying,
    /// One that is somebody else's.
    Forging,
}

struct Link {
    epoch: Epoch,
    remote: SocketAddr,
    session: u64,
}

struct Sybil {
    host: HostId,
    own: SocketAddr,
    key: SecretKey,
    identity: Identity,
    manner: Manner,
    advert: Box<[u8]>,
    /// By the index that packets to it name.
    links: BTreeMap<u32, Link>,
    /// The newest one with whoever is there.
    newest: BTreeMap<SocketAddr, u32>,
    /// Inits under way.
    asked: Vec<(Initiation, SocketAddr, u64)>,
    next_index: u32,
}

/// All of them.
pub struct Sybils {
    all: Vec<Sybil>,
    at: BTreeMap<SocketAddr, usize>,
    hosts: Vec<HostId>,
    keys: KeyRng,
    renew_at: Instant,
    /// A record that is in order, of somebody who never was.
    forged: Box<[u8]>,
    /// Lookups that they were asked for.
    pub lookups: u64,
    /// Bytes that left, with the headers of IP and UDP.
    pub spent: usize,
}

impl Sybils {
    /// One for each of these keys, at so many hosts in turn, which have a prefix each.
    pub fn new(w: &mut World, hosts: usize, keys: Vec<SecretKey>, manner: impl Fn(usize) -> Manner) -> Self {
        let hosts: Vec<HostId> = (0..hosts.min(keys.len()).max(1)).map(|_| w.add_bystander()).collect();
        let mut all = Vec::with_capacity(keys.len());
        for (n, key) in keys.into_iter().enumerate() {
            let host = hosts[n % hosts.len()];
            let own = SocketAddr::new(w.ip(host), PORTS + (n / hosts.len()) as u16);
            all.push(Sybil {
                host,
                own,
                identity: Identity::new(key.clone()),
                manner: manner(n),
                advert: advert(w, &key, own),
                key,
                links: BTreeMap::new(),
                newest: BTreeMap::new(),
                asked: Vec::new(),
                next_index: 1,
            });
        }
        let mut this = Self {
            at: all.iter().enumerate().map(|(n, sybil)| (sybil.own, n)).collect(),
            all,
            hosts,
            keys: KeyRng::new([0x5b; 32]),
            renew_at: w.now() + RENEWED_EVERY,
            forged: Box::default(),
            lookups: 0,
            spent: 0,
        };
        this.forged = this.record(w, 0, &SecretKey::from_bytes(&[0x77; 32]));
        this
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Who they are.
    pub fn ids(&self) -> impl Iterator<Item = PeerId> {
        self.all.iter().map(|sybil| sybil.identity.id())
    }

    /// To how many the n-th is linked.
    pub fn links(&self, n: usize) -> usize {
        self.all[n].newest.len()
    }

    /// A record that this key signs, which names the n-th as home.
    pub fn record(&self, w: &World, n: usize, key: &SecretKey) -> Box<[u8]> {
        let home = &self.all[n];
        let record = Record {
            id: key.peer_id(),
            sequence: w.now().as_micros(),
            issued_s: w.wall(home.host).as_secs(),
            lifetime_s: 43_200,
            homes: [(home.identity.id(), Address::from(home.own))].into_iter().collect(),
        };
        record.sign(key)
    }

    /// The n-th dials a supernode.
    pub fn dial(&mut self, w: &mut World, n: usize, peer: PeerId, to: SocketAddr) {
        let sybil = &mut self.all[n];
        let (index, session) = (sybil.take_index(), u64::from(sybil.next_index));
        let fixed = InitFixed { time_us: w.wall(sybil.host).as_micros(), session };
        let Ok(peer) = PeerKeys::new(peer) else { return };
        let mut init = [0; DATAGRAM_LEN_MAX];
        // A body without an early message.
        let built = initiate(&sybil.identity, &peer, &mut self.keys, index, fixed, &[0, 0], Macs::Plain, &mut init);
        let (initiation, len) = built.expect("it fits");
        sybil.asked.push((initiation, to, session));
        self.spent += send(w, sybil, to, &init[..len]);
    }

    /// The n-th says this to all, or to so many, that it is linked to.
    pub fn say(&mut self, w: &mut World, n: usize, most: usize, message: &Message<'_>) {
        let sybil = &mut self.all[n];
        let indices: Vec<u32> = sybil.newest.values().copied().take(most).collect();
        self.spent += indices.into_iter().map(|index| say(w, sybil, index, message)).sum::<usize>();
    }

    /// Answers what has arrived.
    pub fn serve(&mut self, w: &mut World) {
        for host in self.hosts.clone() {
            let arrived = w.hosts[host.0].capture.as_mut().map(core::mem::take).unwrap_or_default();
            for seen in arrived.into_iter().filter(|seen| !seen.outbound) {
                if let Some(n) = self.at.get(&seen.local).copied() {
                    self.on_packet(w, n, seen);
                }
            }
        }
        if self.renew_at <= w.now() {
            self.renew_at = w.now() + RENEWED_EVERY;
            for n in 0..self.all.len() {
                self.all[n].advert = advert(w, &self.all[n].key, self.all[n].own);
                let bytes = self.all[n].advert.clone();
                self.say(w, n, usize::MAX, &Message::Signed { kind: SignedKind::Advert, bytes: &bytes });
            }
        }
    }

    fn on_packet(&mut self, w: &mut World, n: usize, mut seen: Seen) {
        match Packet::decode(&seen.bytes) {
            Ok(Packet::Init { .. }) => self.on_init(w, n, &seen),
            Ok(Packet::Response { .. }) => self.on_response(w, n, &seen),
            Ok(Packet::Beat { kind: Kind::BeatAsk, receiver, .. }) => {
                let sybil = &mut self.all[n];
                let Some(link) = sybil.links.get_mut(&receiver) else { return };
                if link.epoch.open_beat(&seen.bytes).is_ok() {
                    let mut beat = [0; BEAT_LEN];
                    let len = link.epoch.seal_beat(Kind::Beat, &mut beat).expect("keys are fresh");
                    self.spent += send(w, sybil, seen.remote, &beat[..len]);
                }
            }
            Ok(Packet::Sealed { kind: Kind::Data, receiver, .. }) => {
                let Some(link) = self.all[n].links.get_mut(&receiver) else { return };
                let Ok(plain) = link.epoch.open(&mut seen.bytes) else { return };
                let plain = plain.to_vec();
                let mut rest = &plain[..];
                while let Ok(message) = message::decode_next(&mut rest) {
                    self.on_message(w, n, receiver, &message);
                    if rest.is_empty() {
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    fn on_init(&mut self, w: &mut World, n: usize, seen: &Seen) {
        let sybil = &mut self.all[n];
        let (mut body, mut out) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
        let Ok((accepted, _)) = accept(&sybil.identity, &seen.bytes, true, &mut body) else { return };
        let (sender, session) = (accepted.sender, accepted.fixed.session);
        let before = sybil.newest.get(&seen.remote).and_then(|index| sybil.links.get(index));
        let resumed = before.is_some_and(|link| link.session == session);
        let fixed = ResponseFixed { early_accepted: false, resumed, session };
        let told = ResponseBody::Direct { seen: seen.remote.into(), reply: None };
        let len = postcard::to_slice(&told, &mut body).expect("it fits").len();
        let index = sybil.take_index();
        let (keys, len) = accepted.respond(&mut self.keys, index, fixed, &body[..len], &mut out).expect("it fits");
        sybil.link(index, Link { epoch: Epoch::new(keys, index, sender), remote: seen.remote, session });
        self.spent += send(w, sybil, seen.remote, &out[..len]);
    }

    fn on_response(&mut self, w: &mut World, n: usize, seen: &Seen) {
        let sybil = &mut self.all[n];
        let mut body = [0; DATAGRAM_LEN_MAX];
        let mut asked = core::mem::take(&mut sybil.asked);
        for (initiation, to, session) in &mut asked {
            let Ok((keys, theirs, ..)) = initiation.finish(&seen.bytes, &mut body) else { continue };
            let Ok(Packet::Response { receiver, .. }) = Packet::decode(&seen.bytes) else { continue };
            let epoch = Epoch::new(keys, receiver, theirs);
            sybil.link(receiver, Link { epoch, remote: *to, session: *session });
            let advert = sybil.advert.clone();
            let digest = sybil.digest(true);
            let greeting = [Message::Confirm, Message::Signed { kind: SignedKind::Advert, bytes: &advert }, digest];
            self.spent += greeting.iter().map(|word| say(w, sybil, receiver, word)).sum::<usize>();
        }
        asked.retain(|(_, to, _)| *to != seen.remote);
        sybil.asked = asked;
    }

    fn on_message(&mut self, w: &mut World, n: usize, index: u32, message: &Message<'_>) {
        let time_s = w.wall(self.all[n].host).as_secs();
        let (manner, remote) = (self.all[n].manner, self.all[n].links.get(&index).map(|link| link.remote));
        let answers: Vec<Message<'_>> = match message {
            Message::Challenge { token, .. } => {
                vec![Message::ChallengeReply { token: *token, seen: remote.map(Address::from) }]
            }
            Message::LoadRequest => vec![Message::LoadReply { load: Load::default(), time_s }],
            Message::Digest { pull: true, .. } => vec![self.all[n].digest(false)],
            // Whoever asks for supernodes is told of those of us who are at hand.
            Message::AdvertsRequest => {
                let ours = self.all.iter().take(16);
                let adverts = ours.map(|s| Message::Signed { kind: SignedKind::Advert, bytes: &s.advert });
                adverts.chain([Message::Hints([].into_iter().collect())]).collect()
            }
            Message::Register { .. } => vec![Message::RegisterReply { refused: None, load: Load::default() }],
            Message::Lookup { peer } => {
                self.lookups += 1;
                match manner {
                    Manner::Silent => Vec::new(),
                    Manner::Denying => vec![Message::LookupReply { peer: *peer, record: None }],
                    Manner::Forging => vec![Message::LookupReply { peer: *peer, record: Some(&self.forged) }],
                }
            }
            _ => Vec::new(),
        };
        let packets: Vec<Vec<u8>> = answers.iter().map(encoded).collect();
        for packet in packets {
            self.spent += say_bytes(w, &mut self.all[n], index, &packet);
        }
    }
}

impl Sybil {
    fn take_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    /// A new link takes the place of one with the same peer; the one before that is forgotten.
    fn link(&mut self, index: u32, link: Link) {
        let remote = link.remote;
        let old = self.newest.insert(remote, index);
        self.links.retain(|at, link| link.remote != remote || Some(*at) == old);
        self.links.insert(index, link);
    }

    fn digest(&self, pull: bool) -> Message<'static> {
        let hash = blake3::hash(self.identity.id().as_bytes());
        let id_prefix = *hash.as_bytes().first_chunk().expect("32 bytes");
        let own = DigestEntry { id_prefix, sequence_low: [1, 0, 0, 0] };
        Message::Digest { kind: SignedKind::Advert, pull, entries: [own].into_iter().collect() }
    }
}

fn advert(w: &World, key: &SecretKey, own: SocketAddr) -> Box<[u8]> {
    let advert = Advert {
        id: key.peer_id(),
        sequence: w.now().as_micros(),
        issued_s: w.wall(HostId(0)).as_secs(),
        lifetime_s: 3_600,
        capabilities: Capabilities(3),
        leaves_max: 100_000,
        relay_kbps: 0,
        addresses: [Address::from(own)].into_iter().collect(),
    };
    advert.sign(key)
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut packet = vec![0; DATAGRAM_LEN_MAX];
    let len = message::encode(message, &mut packet[DATA_HEADER_LEN..]).expect("it fits");
    packet.truncate(DATA_HEADER_LEN + len);
    packet
}

fn say(w: &mut World, sybil: &mut Sybil, index: u32, message: &Message<'_>) -> usize {
    say_bytes(w, sybil, index, &encoded(message))
}

fn say_bytes(w: &mut World, sybil: &mut Sybil, index: u32, encoded: &[u8]) -> usize {
    let Some(link) = sybil.links.get_mut(&index) else { return 0 };
    let mut packet = [0; DATAGRAM_LEN_MAX];
    packet[..encoded.len()].copy_from_slice(encoded);
    let sealed = link.epoch.seal(Kind::Data, &mut packet, encoded.len() - DATA_HEADER_LEN);
    let (len, to) = (sealed.expect("keys are fresh"), link.remote);
    send(w, sybil, to, &packet[..len])
}

/// Gives what it costs.
fn send(w: &mut World, sybil: &Sybil, to: SocketAddr, bytes: &[u8]) -> usize {
    w.inject(sybil.host, sybil.own, to, bytes.to_vec());
    bytes.len() + ip_overhead(to)
}
