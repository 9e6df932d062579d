//! Somebody who has keys, one host, and no scruples: links to nodes as it should, and says over the links what it likes.
//!
//! It answers nothing that it is asked, unless it is told to answer Inits at its own address ([`answer_inits`]), which
//! makes it somebody who has an address and many names.

use std::net::SocketAddr;

use handfast_core::internal::{
    Advert, Capabilities, Epoch, Identity, InitFixed, KeyRng, Macs, PeerKeys, ResponseFixed, accept, initiate,
};
use handfast_core::wire::address::Address;
use handfast_core::wire::message::{self, Message, ResponseBody, SignedKind};
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
    index: u32,
    /// Bytes that left, with the headers of IP and UDP.
    pub spent: usize,
}

/// Those of them to whom an Init has come at this host answer it, as honest nodes do. Says how many did.
pub fn answer_inits(w: &mut World, host: HostId, liars: &mut [Liar]) -> usize {
    let arrived = core::mem::take(w.hosts[host.0].capture.as_mut().expect("captured"));
    let inits = arrived.iter().filter(|seen| !seen.outbound && seen.kind() == Kind::Init as u8);
    let mut count = 0;
    for seen in inits {
        let Some(liar) = liars.iter_mut().find(|liar| liar.own == seen.local) else { continue };
        count += usize::from(liar.answer(w, seen.remote, &seen.bytes));
    }
    count
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
    let advert = Advert {
        id: key.peer_id(),
        sequence: w.now().as_micros(),
        issued_s: w.wall(HostId(0)).as_secs(),
        lifetime_s: 3_600,
        capabilities: Capabilities(capabilities),
        leaves_max: u32::MAX,
        relay_kbps: 0,
        addresses: [Address::from(address)].into_iter().collect(),
    };
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
        let mut this = Self { host, own, to: address, key, epoch, index: n, spent: len + 28 };
        this.say(w, &Message::Confirm);
        this
    }

    fn answer(&mut self, w: &mut World, from: SocketAddr, init: &[u8]) -> bool {
        let (mut body, mut out) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
        let Ok((accepted, _)) = accept(&Identity::new(self.key.clone()), init, true, &mut body) else { return false };
        let (sender, session) = (accepted.sender, accepted.fixed.session);
        let fixed = ResponseFixed { early_accepted: false, resumed: from == self.to, session };
        let seen = ResponseBody::Direct { seen: from.into(), reply: None };
        let len = postcard::to_slice(&seen, &mut body).expect("it fits").len();
        self.index += 1;
        let rng = &mut KeyRng::new([self.index as u8; 32]);
        let responded = accepted.respond(rng, self.index, fixed, &body[..len], &mut out);
        let (keys, len) = responded.expect("it fits");
        if from == self.to {
            self.epoch = Epoch::new(keys, self.index, sender);
        }
        self.spent += len + 28;
        w.inject(self.host, self.own, from, out[..len].to_vec());
        true
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
