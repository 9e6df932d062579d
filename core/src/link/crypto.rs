//! The primitives that snow asks for: X25519 and ChaCha20-Poly1305 from aws-lc-rs, BLAKE2s from `blake2`, and
//! randomness that is one draw of the node's own generator.
//!
//! A [`Resolver`] is made for one handshake and handed over to snow's builder. It knows this node's static key pair and
//! names it to snow by its *public* half: the private half never leaves the context that aws-lc keeps, and the public
//! half is not computed again for each handshake, which would be one multiplication more. The ephemeral private key is
//! put into the resolver's [`Draw`] by the caller before snow needs it, so that a handshake is a function of the state
//! of the caller's generator.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::wire::packet::TAG_LEN;

/// Length of an X25519 key, private or public, and of what two of them agree on.
pub(super) const KEY_LEN: usize = 32;

/// An X25519 key pair. aws-lc clears the private half when it is freed.
pub(super) struct KeyPair {
    private: PrivateKey,
    public: [u8; KEY_LEN],
}

impl KeyPair {
    /// The pair of a private key. Costs a multiplication.
    pub(super) fn from_private(private: &[u8; KEY_LEN]) -> Result<Self, snow::Error> {
        let private = PrivateKey::from_private_key(&X25519, private).map_err(|_| snow::Error::Dh)?;
        let computed = private.compute_public_key().map_err(|_| snow::Error::Dh)?;
        let public = computed.as_ref().try_into().map_err(|_| snow::Error::Dh)?;
        Ok(Self { private, public })
    }

    /// The public half.
    pub(super) fn public(&self) -> &[u8; KEY_LEN] {
        &self.public
    }

    /// A pair that claims another public key, as an attacker may.
    #[cfg(test)]
    pub(super) fn claiming(self, public: [u8; KEY_LEN]) -> Self {
        Self { public, ..self }
    }

    /// What this and the holder of `public` agree on; an error if that is all zero, as every point of small order
    /// would have it.
    pub(super) fn agree(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        agree(&self.private, UnparsedPublicKey::new(&X25519, public), snow::Error::Dh, |secret| {
            // aws-lc refuses it as well; a handshake must not rest on that alone.
            let zero = secret.iter().fold(0, |seen, byte| seen | byte) == 0;
            let out = out.get_mut(..secret.len()).filter(|_| !zero).ok_or(snow::Error::Dh)?;
            out.copy_from_slice(secret);
            Ok(())
        })
    }
}

/// A context that seals and opens under one key.
pub(super) fn aead(key: &[u8; 32]) -> LessSafeKey {
    // The only failures are a wrong length, which the type rules out, and no memory, which aborts elsewhere too.
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a ChaCha20 key"))
}

/// The nonce of a counter: four zero bytes, then the counter, little-endian (Noise §12.3).
pub(super) fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Where the ephemeral private key of one handshake is put, once.
pub(super) type Draw = Arc<OnceLock<Zeroizing<[u8; KEY_LEN]>>>;

/// What snow asks for its primitives, for one handshake.
pub(super) struct Resolver {
    /// The static key pair.
    pub(super) own: Arc<KeyPair>,
    /// The ephemeral private key, empty until it is drawn.
    pub(super) draw: Draw,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(self.draw.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519)
            .then(|| Box::new(Agreement { own: self.own.clone(), pair: None }) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly { key: [0; 32] }) as Box<dyn Cipher>)
    }
}

/// Gives the one draw, to the one that snow ever asks for.
struct OneDraw(Draw);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.get().filter(|bytes| bytes.len() == dest.len()).ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(&bytes[..]);
        Ok(())
    }
}

/// The static key once it is named, or an ephemeral one once it is generated.
struct Agreement {
    own: Arc<KeyPair>,
    pair: Option<Arc<KeyPair>>,
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    /// Takes the static key pair, by the name that we gave the builder.
    fn set(&mut self, name: &[u8]) {
        self.pair = (name == self.own.public).then(|| self.own.clone());
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; KEY_LEN]);
        rng.try_fill_bytes(&mut *private)?;
        self.pair = Some(Arc::new(KeyPair::from_private(&private)?));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; KEY_LEN], |pair| &pair.public)
    }

    /// Nobody is given it; snow asks only when it is to make a key pair for its caller.
    fn privkey(&self) -> &[u8] {
        &[0; KEY_LEN]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow's buffers are longer than our keys.
        let public = public.get(..KEY_LEN).ok_or(snow::Error::Dh)?;
        self.pair.as_ref().ok_or(snow::Error::Dh)?.agree(public, out)
    }
}

/// Keeps the bare key: most of the keys that a handshake passes through seal nothing.
#[derive(Zeroize, ZeroizeOnDrop)]
struct ChaChaPoly {
    key: [u8; 32],
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = *key;
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = aead(&self.key)
            .seal_in_place_separate_tag(nonce(counter), Aad::from(authtext), text)
            .expect("a datagram is far below the cipher's limit");
        rest[..TAG_LEN].copy_from_slice(tag.as_ref());
        plaintext.len() + TAG_LEN
    }

    fn decrypt(&self, counter: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let len = ciphertext.len().checked_sub(TAG_LEN).ok_or(snow::Error::Decrypt)?;
        let (text, tag) = ciphertext.split_at(len);
        let out = out.get_mut(..len).ok_or(snow::Error::Decrypt)?;
        aead(&self.key)
            .open_separate_gather(nonce(counter), Aad::from(authtext), text, tag, out)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(len)
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&core::mem::take(&mut self.0).finalize());
    }
}
