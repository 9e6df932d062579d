//! Who a node is: an Ed25519 key pair, and the text and key forms that follow from it.
//!
//! A [`PeerId`] is all that is needed to open a link: the X25519 key of the handshake derives from it. A `PeerId`
//! value that exists is canonical and not of small order; that it is also free of torsion is checked once per new
//! peer, by [`PeerId::noise_public`].

use core::fmt;
use core::str::FromStr;

use bech32::{Bech32m, Hrp};
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
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
#[non_exhaustive]
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

/// A node's public key: 32 bytes, canonical, not weak. As text it is `hf1…`, with a checksum.
///
/// ```
/// use handfast_core::{PeerId, SecretKey};
///
/// let id = SecretKey::from_bytes(&[7; 32]).peer_id();
/// let text = id.to_string();
/// assert!(text.starts_with("hf1"));
/// assert_eq!(text.parse::<PeerId>(), Ok(id));
///
/// let typo = text.replace(&text[10..11], if &text[10..11] == "q" { "p" } else { "q" });
/// assert!(typo.parse::<PeerId>().is_err());
/// assert!(PeerId::from_bytes(&[0; 32]).is_err(), "zeros are a weak key");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Checks that the bytes are a canonical point that is not of small order.
    ///
    /// # Errors
    /// Other bytes: `NotAPoint` or `Weak`.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PeerIdError> {
        // Decompression takes two more encodings of some points: a y above the field's size, and an x of zero with a
        // sign. The latter are of small order.
        if !is_field_element(bytes) {
            return Err(PeerIdError::NotAPoint);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| PeerIdError::NotAPoint)?;
        if key.is_weak() {
            return Err(PeerIdError::Weak);
        }
        Ok(Self(*bytes))
    }

    /// Not checked at all: of bytes that were, or that are only compared with ids that were.
    pub(crate) const fn of_checked(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The X25519 public key of this peer's handshakes. Costs a decompression and a torsion check: cache it.
    ///
    /// # Errors
    /// The key has a torsion component.
    pub fn noise_public(&self) -> Result<[u8; 32], PeerIdError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| PeerIdError::NotAPoint)?;
        if !is_torsion_free(&key.to_edwards()) {
            return Err(PeerIdError::Torsion);
        }
        Ok(key.to_montgomery().to_bytes())
    }

    /// The sign bit of the Edwards point: with the X25519 key it gives the `PeerId` back.
    pub(crate) const fn sign_bit(&self) -> bool {
        self.0[31] & 0x80 != 0
    }

    /// The peer whose X25519 key and sign bit these are.
    ///
    /// # Errors
    /// A key on the twist, a weak one, and one with torsion.
    pub fn from_noise(public: &[u8; 32], sign: bool) -> Result<Self, PeerIdError> {
        Self::from_noise_unless(public, sign, |_| false)
    }

    /// As [`PeerId::from_noise`], without the check for torsion where `known` says that the peer has passed it before.
    ///
    /// # Errors
    /// As of [`from_noise`](Self::from_noise).
    pub(crate) fn from_noise_unless(
        public: &[u8; 32],
        sign: bool,
        known: impl FnOnce(&Self) -> bool,
    ) -> Result<Self, PeerIdError> {
        // X25519 ignores the top bit and reduces the rest: without this, one key would have several forms.
        if public[31] & 0x80 != 0 || !is_field_element(public) {
            return Err(PeerIdError::NotAPoint);
        }
        let edwards = MontgomeryPoint(*public).to_edwards(u8::from(sign)).ok_or(PeerIdError::NotAPoint)?;
        if edwards.is_small_order() {
            return Err(PeerIdError::Weak);
        }
        let id = Self(edwards.compress().to_bytes());
        if !known(&id) && !is_torsion_free(&edwards) {
            return Err(PeerIdError::Torsion);
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

/// Whether the low 255 bits, little-endian, are below 2^255 − 19.
fn is_field_element(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *low < 0xED || middle.iter().any(|byte| *byte != 0xFF) || high & 0x7F != 0x7F
}

/// Whether the point is in the subgroup of prime order L. dalek's own test multiplies by L in constant time; of a
/// public key nothing need be hidden, and (L − 1)·P = −P says the same in three quarters of the time.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO) == -point
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
///
/// ```
/// use handfast_core::SecretKey;
///
/// // A real seed comes from the system's generator, and is kept.
/// let key = SecretKey::from_bytes(&[7; 32]);
/// let again = SecretKey::from_bytes(&key.to_bytes());
/// assert_eq!(again.peer_id(), key.peer_id());
/// assert_eq!(format!("{key:?}"), format!("SecretKey(of {:?})", key.peer_id()));
/// ```
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
    pub(crate) fn noise_private(&self) -> NoisePrivate {
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
pub(crate) struct NoisePrivate(pub(crate) [u8; 32]);

impl Drop for NoisePrivate {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes(&[seed; 32])
    }

    fn text(hrp: &str, bytes: &[u8]) -> String {
        bech32::encode::<Bech32m>(Hrp::parse(hrp).expect("a prefix"), bytes).expect("short enough")
    }

    /// RFC 8032 §7.1, test 1: the same secret gives the same identity everywhere, and the same text.
    #[test]
    fn a_known_secret_has_a_known_name() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let id = SecretKey::from_bytes(&seed).peer_id();
        assert_eq!(id.as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(id.to_string(), "hf16adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqr7vwxs");
        assert_eq!(SecretKey::from_bytes(&seed).to_bytes(), seed);
    }

    #[test]
    fn text_goes_both_ways_in_either_case() {
        for seed in 0..50 {
            let id = key(seed).peer_id();
            let text = id.to_string();
            assert_eq!(text.len(), 3 + 52 + 6);
            assert!(text.starts_with("hf1"));
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
        }
        let mixed = key(1).peer_id().to_string().replacen('h', "H", 1);
        assert_eq!(mixed.parse::<PeerId>(), Err(PeerIdError::Checksum));
    }

    #[test]
    fn every_single_typing_mistake_is_caught() {
        let good = key(1).peer_id().to_string();
        for at in 3..good.len() {
            for wrong in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bio -".chars() {
                if !good[at..].starts_with(wrong) {
                    let typo = format!("{}{wrong}{}", &good[..at], &good[at + 1..]);
                    assert_eq!(typo.parse::<PeerId>(), Err(PeerIdError::Checksum), "{typo}");
                }
            }
        }
        for len in 0..good.len() {
            assert!(good[..len].parse::<PeerId>().is_err());
        }
        for at in 3..good.len() - 1 {
            let mut swapped: Vec<char> = good.chars().collect();
            if swapped[at] != swapped[at + 1] {
                swapped.swap(at, at + 1);
                let swapped: String = swapped.iter().collect();
                assert_eq!(swapped.parse::<PeerId>(), Err(PeerIdError::Checksum), "{swapped}");
            }
        }
    }

    #[test]
    fn other_texts_are_told_apart() {
        let id = key(1).peer_id();
        assert_eq!(text("hft", id.as_bytes()).parse::<PeerId>(), Err(PeerIdError::Prefix));
        assert_eq!(text("hf", &id.as_bytes()[..31]).parse::<PeerId>(), Err(PeerIdError::Length));
        assert_eq!(text("hf", &[id.as_bytes(), &[0][..]].concat()).parse::<PeerId>(), Err(PeerIdError::Length));
        let old = bech32::encode::<bech32::Bech32>(PEER_HRP, id.as_bytes()).expect("short enough");
        assert_eq!(old.parse::<PeerId>(), Err(PeerIdError::Checksum));
        for junk in ["", "hf1", "hf", "1", "127.0.0.1:80", "hf1\u{e9}", &"q".repeat(2000)] {
            assert!(junk.parse::<PeerId>().is_err(), "{junk:?}");
        }
    }

    #[test]
    fn encodings_of_no_point_are_refused() {
        // y = 2 is on no point.
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PeerId::from_bytes(&bytes), Err(PeerIdError::NotAPoint));
    }

    /// Every y from 2^255 − 19 to 2^255 − 1 has a second, canonical form; only that one counts.
    #[test]
    fn encodings_above_the_field_are_refused() {
        for low in 0xED..=0xFF_u8 {
            for high in [0x7F, 0xFF] {
                let mut bytes = [0xFF; 32];
                (bytes[0], bytes[31]) = (low, high);
                assert_eq!(PeerId::from_bytes(&bytes), Err(PeerIdError::NotAPoint));
                assert_eq!(PeerId::from_noise(&bytes, false), Err(PeerIdError::NotAPoint));
            }
        }
        // Just below, the usual rules apply: a point compresses to the bytes that it came from.
        for low in 0..0xED_u8 {
            let mut bytes = [0xFF; 32];
            (bytes[0], bytes[31]) = (low, 0x7F);
            if let Ok(id) = PeerId::from_bytes(&bytes) {
                let point = VerifyingKey::from_bytes(id.as_bytes()).expect("checked").to_edwards();
                assert_eq!(point.compress().as_bytes(), &bytes);
            }
        }
    }

    #[test]
    fn points_of_small_order_are_refused() {
        for point in EIGHT_TORSION {
            let bytes = point.compress().to_bytes();
            assert_eq!(PeerId::from_bytes(&bytes), Err(PeerIdError::Weak));
            let mut other_sign = bytes;
            other_sign[31] ^= 0x80;
            assert!(PeerId::from_bytes(&other_sign).is_err(), "also an x of zero with a sign");
            for sign in [false, true] {
                assert!(PeerId::from_noise(&point.to_montgomery().to_bytes(), sign).is_err());
            }
        }
    }

    /// A torsion component is not seen when a `PeerId` is parsed, but before it is used.
    #[test]
    fn points_with_torsion_are_refused_when_used() {
        let honest = VerifyingKey::from_bytes(key(1).peer_id().as_bytes()).expect("honest").to_edwards();
        for torsion in &EIGHT_TORSION[1..] {
            let point = honest + torsion;
            let id = PeerId::from_bytes(&point.compress().to_bytes()).expect("a point like others");
            assert_eq!(id.noise_public(), Err(PeerIdError::Torsion));
            assert_eq!(PeerId::from_noise(&point.to_montgomery().to_bytes(), id.sign_bit()), Err(PeerIdError::Torsion));
        }
    }

    /// About half of all X25519 keys are on the twist.
    #[test]
    fn keys_on_the_twist_are_refused() {
        let mut refused = 0;
        for low in 2..=201_u8 {
            let mut u = [0; 32];
            u[0] = low;
            refused += u32::from(PeerId::from_noise(&u, false) == Err(PeerIdError::NotAPoint));
        }
        assert!((70..130).contains(&refused), "{refused} of 200");
    }

    #[test]
    fn a_key_has_one_form_on_the_wire_of_the_handshake() {
        let mut public = key(1).peer_id().noise_public().expect("honest");
        public[31] |= 0x80;
        assert_eq!(PeerId::from_noise(&public, false), Err(PeerIdError::NotAPoint));
    }

    /// Both tests for torsion agree, ours and dalek's.
    #[test]
    fn the_quick_test_for_torsion_is_right() {
        for seed in 0..20 {
            let point = VerifyingKey::from_bytes(key(seed).peer_id().as_bytes()).expect("honest").to_edwards();
            for torsion in EIGHT_TORSION {
                let point = point + torsion;
                assert_eq!(is_torsion_free(&point), point.is_torsion_free());
            }
        }
    }

    #[test]
    fn signatures_hold_for_one_key_one_purpose_and_the_very_bytes() {
        let (signer, other) = (key(1), key(2));
        let signature = signer.sign(SignatureKind::Advert, b"bytes");
        let id = signer.peer_id();
        assert!(id.verify(SignatureKind::Advert, b"bytes", &signature));
        assert!(!id.verify(SignatureKind::Record, b"bytes", &signature));
        assert!(!id.verify(SignatureKind::Advert, b"bytez", &signature));
        assert!(!other.peer_id().verify(SignatureKind::Advert, b"bytes", &signature));
        for bit in 0..512 {
            let mut forged = signature;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!id.verify(SignatureKind::Advert, b"bytes", &forged), "bit {bit}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", key(0x5A));
        assert!(!text.contains("5a5a") && !text.contains("90, 90"), "{text}");
    }

    proptest! {
        #[test]
        fn the_noise_key_and_the_sign_give_the_peer_back(seed: [u8; 32]) {
            let secret = SecretKey::from_bytes(&seed);
            let id = secret.peer_id();
            let public = id.noise_public().expect("honest");
            prop_assert_eq!(PeerId::from_noise(&public, id.sign_bit()), Ok(id));
            // The other sign is the mirrored point: a valid peer, but another one.
            let mirrored = PeerId::from_noise(&public, !id.sign_bit()).expect("a point too");
            prop_assert_ne!(mirrored, id);
            prop_assert_eq!(mirrored.noise_public(), Ok(public));
        }

        #[test]
        fn no_bytes_panic_and_what_parses_is_canonical(bytes: [u8; 32], sign: bool) {
            if let Ok(id) = PeerId::from_bytes(&bytes) {
                let point = VerifyingKey::from_bytes(&bytes).expect("parsed").to_edwards();
                prop_assert_eq!(point.compress().to_bytes(), bytes);
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
            if let Ok(id) = PeerId::from_noise(&bytes, sign) {
                prop_assert_eq!(id.noise_public(), Ok(bytes));
                prop_assert_eq!(id.sign_bit(), sign);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,100}") {
            let _ = text.parse::<PeerId>();
            let _ = format!("hf1{text}").parse::<PeerId>();
        }
    }
}
