//! Who a node is: an Ed25519 key pair, and the text and key forms that follow from it.
//!
//! A [`PeerId`] is all that is needed to open a link: the X25519 key of the handshake derives from it. A `PeerId`
//! value that exists is canonical and not of small order; that it is also free of torsion is checked once per new
//! peer, by [`PeerId::noise_public`].

use core::fmt;
use core::str::FromStr;

use bech32::{Bech32m, Hrp};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

/// Human-readable part of a [`PeerId`] in text: `hf1…`.
const PEER_HRP: Hrp = Hrp::parse_unchecked("hf");

/// What a signature is for. Every signature covers `handfast v1 <kind>\0` before the bytes, so that one made for one
/// purpose never passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureKind {
    /// A supernode's advert.
    Advert,
    /// A peer's record.
    Record,
}

impl SignatureKind {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Advert => b"handfast v1 advert\0",
            Self::Record => b"handfast v1 record\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.label(), bytes].concat()
    }
}

/// Why bytes or text are not a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerIdError {
    /// The text is not bech32m, or its checksum is wrong: a typing mistake.
    Checksum,
    /// Bech32m, but its prefix is not `hf`.
    Prefix,
    /// Not 32 bytes.
    Length,
    /// Not the canonical encoding of a point on the curve.
    NotAPoint,
    /// A point of small order: one signature would fit many messages.
    Weak,
    /// A point with a torsion component.
    Torsion,
}

impl fmt::Display for PeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checksum => "has a typing mistake (checksum)",
            Self::Prefix => "does not start with hf1",
            Self::Length => "has the wrong length",
            Self::NotAPoint => "is not a public key",
            Self::Weak | Self::Torsion => "is a weak public key",
        })
    }
}

impl core::error::Error for PeerIdError {}

/// A node's public key: 32 bytes, canonical, not weak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Checks that the bytes are a canonical point that is not of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PeerIdError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| PeerIdError::NotAPoint)?;
        // Decompression accepts non-canonical encodings of some points; compressing again does not.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(PeerIdError::NotAPoint);
        }
        if key.is_weak() {
            return Err(PeerIdError::Weak);
        }
        Ok(Self(*bytes))
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The X25519 public key of this peer's handshakes. Costs a decompression and a torsion check: cache it.
    pub fn noise_public(&self) -> Result<[u8; 32], PeerIdError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| PeerIdError::NotAPoint)?;
        if !key.to_edwards().is_torsion_free() {
            return Err(PeerIdError::Torsion);
        }
        Ok(key.to_montgomery().to_bytes())
    }

    /// The sign bit of the Edwards point: with the X25519 key it gives the `PeerId` back.
    pub const fn sign_bit(&self) -> bool {
        self.0[31] & 0x80 != 0
    }

    /// The peer whose X25519 key and sign bit these are. A key on the twist, a weak one and one with torsion are
    /// refused.
    pub fn from_noise(public: &[u8; 32], sign: bool) -> Result<Self, PeerIdError> {
        let edwards = MontgomeryPoint(*public).to_edwards(u8::from(sign)).ok_or(PeerIdError::NotAPoint)?;
        if edwards.is_small_order() {
            return Err(PeerIdError::Weak);
        }
        if !edwards.is_torsion_free() {
            return Err(PeerIdError::Torsion);
        }
        let id = Self::from_bytes(&edwards.compress().to_bytes())?;
        // to_edwards reduces a non-canonical u; going back must give the same bytes.
        if edwards.to_montgomery().as_bytes() != public {
            return Err(PeerIdError::NotAPoint);
        }
        Ok(id)
    }

    /// Whether `signature` is this peer's over `bytes`, for this `kind`.
    #[must_use]
    pub fn verify(&self, kind: SignatureKind, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        key.verify_strict(&kind.message(bytes), &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PEER_HRP, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;
    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let (hrp, bytes) = decode_bech32m(text).ok_or(PeerIdError::Checksum)?;
        if hrp.to_lowercase() != PEER_HRP.to_lowercase() {
            return Err(PeerIdError::Prefix);
        }
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| PeerIdError::Length)?;
        Self::from_bytes(&bytes)
    }
}

/// Decodes bech32m only: the plain `bech32::decode` would take the older checksum as well.
pub(crate) fn decode_bech32m(text: &str) -> Option<(Hrp, Vec<u8>)> {
    let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text).ok()?;
    Some((checked.hrp(), checked.byte_iter().collect()))
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = <[u8; 32]>::deserialize(d)?;
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// A node's secret: the 32-byte Ed25519 seed. Zeroized when dropped; never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The identity of a seed.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, to be saved.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` for one `kind` of purpose.
    pub fn sign(&self, kind: SignatureKind, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(&kind.message(bytes)).to_bytes()
    }

    /// The X25519 private key of this node's handshakes. The caller zeroizes it.
    pub fn noise_private(&self) -> NoisePrivate {
        NoisePrivate(self.0.to_scalar_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.peer_id())
    }
}

/// An X25519 private key; zeroized when dropped.
#[derive(Clone)]
pub struct NoisePrivate(pub(crate) [u8; 32]);

impl Drop for NoisePrivate {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
