//! A peer made by hand: it shakes hands as it should, and then sends Stream packets of its own making.
//!
//! QUIC inside a link seals nothing, so packets can be written byte by byte ([`Forger`]) in the midst of a genuine
//! connection.

use std::net::SocketAddr;

use handfast_core::internal::{
    Epoch, Identity, InitFixed, Initiation, KeyRng, LinkStreams, Macs, PACKET_LEN_MIN, PeerKeys, Side, initiate,
};
use handfast_core::wire::packet::{DATA_HEADER_LEN, Kind};
use handfast_core::{DATAGRAM_LEN_MAX, Instant, SecretKey};

use crate::host::HostId;
use crate::ms;
use crate::world::World;

/// See [the module](self).
pub struct Stranger {
    host: HostId,
    to: SocketAddr,
    own: SocketAddr,
    epoch: Epoch,
    origin: std::time::Instant,
    /// Its end of the connection that it has now.
    pub quic: LinkStreams,
    /// Writes packets of it.
    pub forger: Forger,
    /// Datagrams that it sent and got, with bytes.
    pub sent: (usize, usize),
    /// The same of what it got.
    pub got: (usize, usize),
}

impl Stranger {
    /// Links to the node of `to`, which must answer whoever comes.
    pub fn connect(w: &mut World, to: HostId, seed: u8) -> Self {
        let host = w.add_bystander();
        let (_, address) = w.contact(to);
        let own = SocketAddr::new(w.ip(host), 1_000);
        // A plain link, without an early message.
        let (mut initiation, init) = init(w, to, seed, &[0, 0]);
        w.inject(host, own, address, init);
        w.run_for(ms(500));
        let mut body = [0; DATAGRAM_LEN_MAX];
        let answers = core::mem::take(w.hosts[host.0].capture.as_mut().expect("captured"));
        let (transport, index, _, _) = answers
            .iter()
            .find_map(|seen| initiation.finish(&seen.bytes, &mut body).ok())
            .expect("a node that serves answers everybody");
        let origin = std::time::Instant::now();
        let quic = LinkStreams::new(w.now(), origin, Side::Client, [seed; 32]);
        let epoch = Epoch::new(transport, 1, index);
        let mut this =
            Self { host, to: address, own, epoch, origin, quic, forger: Forger::default(), sent: (0, 0), got: (0, 0) };
        // The link is up with the first packet under its keys.
        this.send(w, &[9]);
        w.run_for(ms(500));
        this
    }

    /// Sends the plaintext of a Stream packet.
    pub fn send(&mut self, w: &mut World, plain: &[u8]) {
        let mut packet = [0; 2 * DATAGRAM_LEN_MAX];
        packet[DATA_HEADER_LEN..][..plain.len()].copy_from_slice(plain);
        let len = self.epoch.seal(Kind::Stream, &mut packet, plain.len()).expect("keys are fresh");
        self.sent = (self.sent.0 + 1, self.sent.1 + len);
        w.inject(self.host, self.own, self.to, packet[..len].to_vec());
    }

    /// Forgets its connection; the next one is another.
    pub fn forget(&mut self, now: Instant) {
        self.quic = LinkStreams::new(now, self.origin, Side::Client, [7; 32]);
        self.forger = Forger::default();
    }

    /// Hands what came to its QUIC, and sends what that has to say.
    pub fn turn(&mut self, w: &mut World) {
        for mut seen in core::mem::take(w.hosts[self.host.0].capture.as_mut().expect("captured")) {
            if seen.outbound {
                continue;
            }
            let is_stream = seen.kind() == Kind::Stream as u8;
            let len = seen.bytes.len();
            if let Ok(plain) = self.epoch.open(&mut seen.bytes)
                && is_stream
            {
                self.got = (self.got.0 + 1, self.got.1 + len);
                self.quic.handle_packet(w.now(), plain);
            }
        }
        if self.quic.poll_timeout().is_some_and(|at| at <= w.now()) {
            self.quic.handle_timeout(w.now());
        }
        let mut buf = Vec::new();
        while let Some(len) = self.quic.poll_transmit(w.now(), 1, usize::from(PACKET_LEN_MIN), &mut buf) {
            for packet in buf.chunks(len) {
                self.forger.saw(packet);
                self.send(w, packet);
            }
        }
        while self.quic.poll_event().is_some() {}
    }
}

/// The Init of somebody with the key `[seed; 32]` to the node of `to`, with this body.
pub fn init(w: &World, to: HostId, seed: u8, body: &[u8]) -> (Initiation, Vec<u8>) {
    let me = Identity::new(SecretKey::from_bytes(&[seed; 32]));
    let peer = PeerKeys::new(w.contact(to).0).expect("a good key");
    let fixed = InitFixed { time_us: w.wall(to).as_micros(), session: 1 };
    let mut init = [0; DATAGRAM_LEN_MAX];
    let keys = &mut KeyRng::new([seed; 32]);
    let (initiation, len) = initiate(&me, &peer, keys, 1, fixed, body, Macs::Plain, &mut init).expect("it fits");
    (initiation, init[..len].to_vec())
}

/// Writes 1-RTT packets of a connection of which it saw the first.
#[derive(Default)]
pub struct Forger {
    mark: Option<[u8; 4]>,
    number: u64,
}

impl Forger {
    /// A genuine packet, as the plaintext of a Stream packet: the first Initial names the connection.
    pub fn saw(&mut self, packet: &[u8]) {
        // Behind first byte, version and length: the first destination connection id, which ends in the mark.
        if packet.len() > 14 && packet[0] & 0xb0 == 0x80 && packet[5] == 8 {
            self.mark = packet[10..14].first_chunk().copied();
            // Far beyond the numbers of genuine ones, and near enough to be told from their low bits.
            self.number = 10_000;
        }
    }

    /// A packet with these frames.
    pub fn packet(&mut self, frames: &[u8]) -> Vec<u8> {
        self.number += 1;
        let n = self.number;
        let mut packet = vec![0x43];
        packet.extend((n as u32).to_be_bytes());
        packet.extend(frames);
        packet.extend(self.mark.expect("an Initial was seen"));
        packet.extend(((n ^ n >> 16 ^ n >> 32 ^ n >> 48) as u16).to_be_bytes());
        packet
    }
}

/// A STREAM frame of the client's n-th stream.
pub fn stream_frame(n: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x0e];
    for value in [n * 4, offset, data.len() as u64] {
        // RFC 9000 §16, always four bytes.
        frame.extend((value as u32 | 0x8000_0000).to_be_bytes());
    }
    frame.extend(data);
    frame
}
