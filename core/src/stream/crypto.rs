//! A crypto provider for QUIC that seals nothing.
//!
//! The link below authenticates and encrypts every byte, so here a handshake only exchanges transport parameters and
//! keys only tell packets apart: each ends in the four bytes of its connection's [`Mark`] and two that depend on its
//! key phase and number. Without these a straggler of an earlier connection or phase could not be told from a packet of
//! the present one, since connection ids are empty and there is no real key.
//!
//! 0-RTT is always on. The parameters remembered from "last time" are what [`remembered`] says: the least that every
//! end of this version of the protocol must offer.

use core::any::Any;
use core::net::Ipv6Addr;
use std::sync::{Arc, OnceLock};
#[allow(clippy::disallowed_types)] // Named by quinn's traits; nobody reads a clock here.
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use quinn_proto::coding::Codec;
use quinn_proto::crypto::{
    AeadKey, ClientConfig, CryptoError, ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey, HmacKey, KeyPair,
    Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ConnectError, ConnectionId, Side, TimeSource, TokenLog, TokenReuseError, TokenStore, TransportError,
    TransportErrorCode, VarInt,
};

use super::limits::{RECEIVE_WINDOW, STREAM_RECEIVE_WINDOW, STREAMS_EARLY};

/// The address of the peer as QUIC sees it: constant, private (RFC 4193), the same on both ends.
pub(super) const REMOTE_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Most bytes of transport parameters that a peer may send; ours take about 80.
const PARAMETERS_LEN_MAX: usize = 512;

/// The transport parameters (RFC 9000 §18) that a client may count on before it has heard from the server.
///
/// A stream's window must be the one that the peer really has: quinn does not raise it later.
fn remembered() -> Vec<u8> {
    let mut parameters = Vec::with_capacity(24);
    for (id, value) in [
        (0x04, RECEIVE_WINDOW),        // initial_max_data
        (0x05, STREAM_RECEIVE_WINDOW), // initial_max_stream_data_bidi_local
        (0x06, STREAM_RECEIVE_WINDOW), // initial_max_stream_data_bidi_remote
        (0x08, STREAMS_EARLY),         // initial_max_streams_bidi
    ] {
        let mut encoded = Vec::with_capacity(8);
        VarInt::from_u32(value).encode(&mut encoded);
        #[expect(clippy::cast_possible_truncation, reason = "a varint has eight bytes at most")]
        let len = encoded.len() as u8;
        parameters.extend_from_slice(&[id, len]);
        parameters.extend_from_slice(&encoded);
    }
    parameters
}

/// What each packet ends in: a [`Mark`] and a check of key phase and packet number.
pub(super) const TAG_LEN: usize = 6;

/// Which connection of the link a packet belongs to: the low half of the connection's epoch, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(pub(super) [u8; 4]);

impl Mark {
    /// The mark that a packet carries.
    pub(super) fn of_packet(packet: &[u8]) -> Option<Self> {
        let [a, b, c, d, _, _] = *packet.last_chunk::<TAG_LEN>()?;
        Some(Self([a, b, c, d]))
    }

    /// The mark of the connection whose first destination connection id this is. Ids of other lengths are never used
    /// by us; they get a mark that cannot collide on purpose, since nobody sends under it.
    pub(super) fn of_cid(cid: &ConnectionId) -> Self {
        Self(cid.last_chunk::<4>().copied().unwrap_or_default())
    }

    fn keys(self) -> Keys {
        Keys {
            header: KeyPair { local: Box::new(Plain), remote: Box::new(Plain) },
            packet: Key { mark: self, phase: 0, one_way: false }.pair(),
        }
    }
}

/// A key that seals nothing, but opens no more than a true key would: a packet of this connection, under its own packet
/// number, in its own key phase.
///
/// quinn counts on that. Headers carry only the low bits of a packet number, and the number of a very late packet comes
/// out wrong: it must not open, or a number would be acknowledged that was never sent. Nor must a late packet of an
/// earlier phase open under the next key, or it would pass for a key update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    mark: Mark,
    phase: u8,
    /// Opens nothing: the client's early key. quinn takes 0-RTT packets from a server too, if they open, and then
    /// panics over the acknowledgement.
    one_way: bool,
}

impl Key {
    fn tag(self, number: u64) -> [u8; TAG_LEN] {
        // Folded so that numbers with the same low bits, as many as a header carries, differ.
        #[expect(clippy::cast_possible_truncation, reason = "all sixteen-bit parts are folded into the lowest")]
        let folded = (number ^ number >> 16 ^ number >> 32 ^ number >> 48) as u16;
        let check = folded.wrapping_add(u16::from(self.phase).wrapping_mul(0x9e37)).to_be_bytes();
        let mut tag = [0; TAG_LEN];
        let (mark, rest) = tag.split_at_mut(self.mark.0.len());
        mark.copy_from_slice(&self.mark.0);
        rest.copy_from_slice(&check);
        tag
    }

    fn pair(self) -> KeyPair<Box<dyn PacketKey>> {
        KeyPair { local: Box::new(self), remote: Box::new(self) }
    }
}

impl PacketKey for Key {
    fn encrypt(&self, packet: u64, buf: &mut [u8], _header_len: usize) {
        if let Some(tag) = buf.last_chunk_mut() {
            *tag = self.tag(packet);
        }
    }

    fn decrypt(&self, packet: u64, _header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        if self.one_way || payload.last_chunk() != Some(&self.tag(packet)) {
            return Err(CryptoError);
        }
        payload.truncate(payload.len() - TAG_LEN);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    // Nothing is sealed, so nothing wears out.
    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Header protection that does nothing.
struct Plain;

impl HeaderKey for Plain {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn sample_size(&self) -> usize {
        0
    }
}

/// Starts sessions of either side.
pub(super) struct Null;

impl ClientConfig for Null {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(Handshake::new(Side::Client, params)))
    }
}

impl ServerConfig for Null {
    fn initial_keys(&self, _version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(Mark::of_cid(dst_cid).keys())
    }

    // Retry is never used: a client refuses it whatever its tag.
    fn retry_tag(&self, _version: u32, _orig_dst_cid: &ConnectionId, _packet: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(Handshake::new(Side::Server, params))
    }
}

/// What this side has to do next, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flight {
    /// Client: send own parameters (Initial).
    Hello,
    /// Wait for the peer's parameters (Initial).
    AwaitParameters,
    /// Server: send own parameters (Initial) and go on to Handshake keys. Client: only the latter.
    HandshakeKeys,
    /// Server: send the one byte (Handshake) and go on to 1-RTT keys.
    Confirm,
    /// Wait for the peer's one byte (Handshake). QUIC takes a connection as established at a Handshake packet.
    AwaitConfirm,
    /// Client: send the one byte (Handshake) and go on to 1-RTT keys.
    ConfirmBack,
    /// All said.
    Done,
}

/// The one byte that both sides send in the Handshake space.
const CONFIRM: u8 = 1;

/// The handshake: client parameters, server parameters, one byte each way.
struct Handshake {
    side: Side,
    step: Flight,
    // Connection::new asks for the initial keys, with the connection id that names the connection, before anything
    // else; but through `&self`.
    mark: OnceLock<Mark>,
    /// Own parameters, encoded behind their length.
    hello: Vec<u8>,
    /// Bytes of the peer's parameters so far, with their length in front.
    received: Vec<u8>,
    peer: Option<TransportParameters>,
    /// Of the last 1-RTT keys that were made.
    phase: u8,
}

impl Handshake {
    fn new(side: Side, params: &TransportParameters) -> Self {
        let mut hello = vec![0, 0];
        params.write(&mut hello);
        let len = u16::try_from(hello.len() - 2).unwrap_or(u16::MAX).to_be_bytes();
        hello[..2].copy_from_slice(&len);
        let step = match side {
            Side::Client => Flight::Hello,
            Side::Server => Flight::AwaitParameters,
        };
        Self { side, step, mark: OnceLock::new(), hello, received: Vec::new(), peer: None, phase: 0 }
    }

    fn mark(&self) -> Mark {
        self.mark.get().copied().unwrap_or(Mark([0; 4]))
    }

    /// Takes handshake bytes, cut anyhow. Says whether the peer's parameters became known.
    fn read(&mut self, mut bytes: &[u8]) -> Result<bool, TransportError> {
        let mut news = false;
        while let Some((&first, rest)) = bytes.split_first() {
            match self.step {
                Flight::AwaitParameters => {
                    let (len, had) = (self.expected_len(), self.received.len());
                    let (take, rest) = bytes.split_at(bytes.len().min(len - had));
                    self.received.extend_from_slice(take);
                    bytes = rest;
                    if self.received.len() == 2 && self.expected_len() > PARAMETERS_LEN_MAX {
                        return Err(violation("transport parameters too long"));
                    }
                    if self.received.len() > 2 && self.received.len() == self.expected_len() {
                        self.peer = Some(TransportParameters::read(self.side, &mut &self.received[2..])?);
                        self.received = Vec::new();
                        self.step = Flight::HandshakeKeys;
                        news = true;
                    }
                }
                Flight::AwaitConfirm if first == CONFIRM => {
                    self.step = if self.side.is_client() { Flight::ConfirmBack } else { Flight::Done };
                    bytes = rest;
                }
                _ => return Err(violation("handshake bytes that nobody asked for")),
            }
        }
        Ok(news)
    }

    /// How long the peer's parameters are, length included, as far as known.
    fn expected_len(&self) -> usize {
        self.received.first_chunk::<2>().map_or(2, |len| 2 + usize::from(u16::from_be_bytes(*len)).max(1))
    }
}

fn violation(reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::PROTOCOL_VIOLATION, frame: None, reason: reason.into() }
}

impl Session for Handshake {
    fn initial_keys(&self, dst_cid: &ConnectionId, _side: Side) -> Keys {
        self.mark.get_or_init(|| Mark::of_cid(dst_cid)).keys()
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let key = Key { mark: self.mark(), phase: 0, one_way: self.side.is_client() };
        Some((Box::new(Plain), Box::new(key)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        Some(true)
    }

    fn is_handshaking(&self) -> bool {
        self.step != Flight::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.read(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        if self.peer.is_none() && self.side.is_client() {
            // Asked before the server has answered: what we remember of it for 0-RTT.
            return Ok(Some(TransportParameters::read(self.side, &mut &remembered()[..])?));
        }
        Ok(self.peer)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match self.step {
            Flight::Hello => {
                buf.extend_from_slice(&self.hello);
                self.step = Flight::AwaitParameters;
                None
            }
            Flight::HandshakeKeys => {
                if self.side.is_client() {
                    self.step = Flight::AwaitConfirm;
                } else {
                    buf.extend_from_slice(&self.hello);
                    self.step = Flight::Confirm;
                }
                Some(self.mark().keys())
            }
            Flight::Confirm => {
                buf.push(CONFIRM);
                self.step = Flight::AwaitConfirm;
                Some(self.mark().keys())
            }
            Flight::ConfirmBack => {
                buf.push(CONFIRM);
                self.step = Flight::Done;
                Some(self.mark().keys())
            }
            Flight::AwaitParameters | Flight::AwaitConfirm | Flight::Done => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.phase = self.phase.wrapping_add(1);
        Some(Key { mark: self.mark(), phase: self.phase, one_way: false }.pair())
    }

    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    // Nothing may be derived from keys that are none.
    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// Key of the stateless reset tokens that QUIC's parameters must name. No reset is ever sent.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        // blake3's Hash compares in constant time.
        let given: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        if expected == given { Ok(()) } else { Err(CryptoError) }
    }
}

/// The one address validation token there is: kind 1 (validation), the IPv6 address [`REMOTE_IP`],
/// issued at the Unix epoch, nonce 0.
///
/// QUIC lets a server send only three times what it received until the client's address is proven. The link has
/// proven it long ago, and this says so: every client shows the token, every server takes it. All others are refused.
const TOKEN: [u8; 42] = {
    let mut token = [0; 42];
    token[0] = 1;
    token[1] = 1;
    let ip = REMOTE_IP.octets();
    let mut i = 0;
    while i < 16 {
        token[2 + i] = ip[i];
        i += 1;
    }
    token
};

/// Knows [`TOKEN`] and no other, on either side.
pub(super) struct OneToken;

impl HandshakeTokenKey for OneToken {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Self)
    }
}

impl AeadKey for OneToken {
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], _additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        // quinn has cut the nonce off.
        if *data == TOKEN[..TOKEN.len() - 16] { Ok(data) } else { Err(CryptoError) }
    }
}

impl TokenStore for OneToken {
    fn insert(&self, _server_name: &str, _token: Bytes) {}

    fn take(&self, _server_name: &str) -> Option<Bytes> {
        Some(Bytes::from_static(&TOKEN))
    }
}

#[allow(clippy::disallowed_types)]
impl TokenLog for OneToken {
    fn check_and_insert(
        &self,
        _nonce: u128,
        _issued: SystemTime,
        _lifetime: core::time::Duration,
    ) -> Result<(), TokenReuseError> {
        Ok(())
    }
}

/// Wall clock for token lifetimes: always the epoch, at which [`TOKEN`] was issued.
pub(super) struct NoClock;

#[allow(clippy::disallowed_types)]
impl TimeSource for NoClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}
