//! Somebody who has keys, one host, and no scruples: links to nodes as it should, and says over the links what it likes.
//!
//! It answers nothing that it is asked, least of all Inits at addresses that are not its own: what it claims to be, it
//! is not.

use std::net::SocketAddr;

use handfast_core::internal::{Advert, Epoch, Identity, InitFixed, KeyRng, Macs, PeerKeys, initiate};
use handfast_core::wire::address::Address;
use handfast_core::wire::message::{self, Message, SignedKind};
use handfast_core::wire::packet::{DATA_HEADER_LEN, Kind};
use handfast_core::{DATAGRAM_LEN_MAX, PeerId, SecretKey};

use crate::host::HostId;
use crate::ms;
use crate::world::World;

/// One link of one made-up identity.
pub struct Liar {
    host: HostId,
    own: SocketAddr,
    to: SocketAddr,
    key: SecretKey,
    epoch: Epoch,
    /// Bytes that left, with the headers of IP and UDP.
    pub spent: usize,
}

/// The n-th made-up identity.
pub fn key(n: u32) -> SecretKey {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    SecretKey::from_bytes(&seed)
}

/// An advert of the n-th made-up identity, as new as can be, that names this address and these capabilities.
pub fn advert(w: &World, n: u32, address: SocketAddr, capabilities: u8) -> Box<[u8]> {
    let key = key(n);
    let mut advert = Advert {
        id: key.peer_id(),
        sequence: w.now().as_micros(),
        issued_s: w.wall(HostId(0)).as_secs(),
        lifetime_s: 3_600,
        capabilities: Default::default(),
        leaves_max: u32::MAX,
        relay_kbps: 0,
        addresses: [Address::from(address)].into_iter().collect(),
    };
    advert.capabilities.0 = capabilities;
    advert.sign(&key)
}

impl Liar {
    /// The n-th made-up identity links to the node of `to`, from a port of its own of this bystander.
    pub fn connect(w: &mut World, host: HostId, to: HostId, n: u32) -> Self {
        let own = SocketAddr::new(w.ip(host), 2_000 + (n % 60_000) as u16);
        let (peer, address) = w.contact(to);
        let key = key(n);
        let fixed = InitFixed { time_us: w.wall(to).as_micros(), session: u64::from(n) };
        let mut init = [0; DATAGRAM_LEN_MAX];
        let (me, peer) = (Identity::new(key.clone()), PeerKeys::new(peer).expect("a good key"));
        let rng = &mut KeyRng::new([n as u8; 32]);
        let built = initiate(&me, &peer, rng, n, fixed, &[0, 0], Macs::Plain, &mut init);
        let (mut initiation, len) = built.expect("it fits");
        w.hosts[host.0].capture = Some(Vec::new());
        w.inject(host, own, address, init[..len].to_vec());
        w.run_for(ms(100));
        let mut body = [0; DATAGRAM_LEN_MAX];
        let answers = core::mem::take(w.hosts[host.0].capture.as_mut().expect("captured"));
        let (transport, index, _, _) = answers
            .iter()
            .find_map(|seen| initiation.finish(&seen.bytes, &mut body).ok())
            .expect("a node that serves answers everybody");
        let epoch = Epoch::new(transport, n, index);
        let mut this = Self { host, own, to: address, key, epoch, spent: len + 28 };
        this.say(w, &Message::Confirm);
        this
    }

    /// Who it claims to be.
    pub fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Sends a message.
    pub fn say(&mut self, w: &mut World, message: &Message<'_>) {
        let mut packet = [0; DATAGRAM_LEN_MAX];
        let len = message::encode(message, &mut packet[DATA_HEADER_LEN..]).expect("it fits");
        let len = self.epoch.seal(Kind::Data, &mut packet, len).expect("keys are fresh");
        self.spent += len + 28;
        w.inject(self.host, self.own, self.to, packet[..len].to_vec());
    }

    /// Sends an advert.
    pub fn tell(&mut self, w: &mut World, advert: &[u8]) {
        self.say(w, &Message::Signed { kind: SignedKind::Advert, bytes: advert });
    }
}
