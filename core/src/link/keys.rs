//! Whom a handshake is between: this node's own keys, and a peer's.

use std::sync::Arc;

use snow::params::NoiseParams;
use zeroize::Zeroizing;

use super::crypto::KeyPair;
use crate::identity::{PeerId, PeerIdError, SecretKey};
use crate::wire::dialect::INIT_VERSION;
use crate::wire::packet::MAC_LEN;

/// What the handshake is called in the Noise framework.
const NOISE_NAME: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// The same primitives without any key: what a finished handshake's memory is overwritten with.
const BLANK_NAME: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";

/// Length of the prologue: `handfast`, version, `PeerId` of the responder, index of the initiator.
const PROLOGUE_LEN: usize = 8 + 1 + 32 + 4;

/// This node's identity with all that derives from it and is wanted for each handshake.
pub struct Identity {
    secret: SecretKey,
    id: PeerId,
    mac1_key: [u8; 32],
    pub(super) noise: Arc<NoiseConstants>,
}

/// What all handshakes of a node share.
pub(super) struct NoiseConstants {
    pub(super) own: Arc<KeyPair>,
    pub(super) params: NoiseParams,
    pub(super) blank: NoiseParams,
}

impl Identity {
    /// Derives once what handshakes need again and again.
    ///
    /// # Panics
    /// Never: any 32 bytes are an X25519 private key.
    pub fn new(secret: SecretKey) -> Self {
        let id = secret.peer_id();
        let private = secret.noise_private();
        let own = KeyPair::from_private(&private.0).expect("any 32 bytes are an X25519 private key");
        let parse = |name: &str| name.parse().expect("a name from the Noise specification");
        let noise = NoiseConstants { own: Arc::new(own), params: parse(NOISE_NAME), blank: parse(BLANK_NAME) };
        Self { secret, id, mac1_key: mac1_key(&id), noise: Arc::new(noise) }
    }

    /// This node's public key.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// This node's secret, to sign with.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// The mac1 that an Init for this node bears after `before`.
    pub(super) fn mac1(&self, before: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.mac1_key, before)
    }
}

/// A peer's keys, as far as a handshake with it needs them. Making them costs a check of the point: keep them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerKeys {
    /// Who.
    pub id: PeerId,
    /// Its X25519 key.
    pub noise_public: [u8; 32],
}

impl PeerKeys {
    /// The keys that follow from `id`.
    ///
    /// # Errors
    /// `id` has a torsion component.
    pub fn new(id: PeerId) -> Result<Self, PeerIdError> {
        Ok(Self { id, noise_public: id.noise_public()? })
    }
}

/// What both sides mix into a handshake before its first message: a handshake for another version or responder, or
/// one whose header was changed on the way, fails.
pub(super) fn prologue(responder: &PeerId, initiator_index: u32) -> [u8; PROLOGUE_LEN] {
    let mut out = [0; PROLOGUE_LEN];
    out[..8].copy_from_slice(b"handfast");
    out[8] = INIT_VERSION;
    out[9..41].copy_from_slice(responder.as_bytes());
    out[41..].copy_from_slice(&initiator_index.to_le_bytes());
    out
}

/// The key of mac1: known to all who know the `PeerId`, so that an Init shows whether its sender does.
pub(super) fn mac1_key(responder: &PeerId) -> [u8; 32] {
    blake3::derive_key("handfast v1 mac1", responder.as_bytes())
}

/// A keyed hash, cut to the length of mac1, mac2 and cookies.
pub(super) fn mac(key: &[u8; 32], bytes: &[u8]) -> [u8; MAC_LEN] {
    let hash = blake3::keyed_hash(key, bytes);
    let mut out = [0; MAC_LEN];
    out.copy_from_slice(&hash.as_bytes()[..MAC_LEN]);
    out
}

/// mac2 of the bytes before it: the cookie, made a key, over them.
pub(super) fn mac2(cookie: &[u8; MAC_LEN], before: &[u8]) -> [u8; MAC_LEN] {
    let key = Zeroizing::new(blake3::derive_key("handfast v1 mac2", cookie));
    mac(&key, before)
}
