//! Named generators, seeded once and split by label.
//!
//! Separate labels keep runs comparable: one more draw of jitter does not move every id. [`KeyRng`] feeds secrets
//! (ephemeral keys, tokens, channel ids) and forgets its past after each draw; the others are plain ChaCha20.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroize;

/// Fast-key-erasure generator: after each draw the state is replaced and the old one zeroized, so a stolen state
/// tells nothing of earlier draws.
pub struct KeyRng {
    state: [u8; 32],
}

impl KeyRng {
    /// A generator from a seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { state: seed }
    }

    /// Fills `out` with secret bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut stream = ChaCha20Rng::from_seed(self.state);
        self.state.zeroize();
        stream.fill_bytes(&mut self.state);
        stream.fill_bytes(out);
        // ChaCha20Rng holds its key in plain memory; overwriting it is the best that safe code can do.
        stream = ChaCha20Rng::from_seed([0; 32]);
        let _ = &stream;
    }

    /// A secret array.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A secret number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Mixes fresh entropy from outside into the state.
    pub fn mix(&mut self, fresh: &[u8; 32]) {
        let mut key = blake3::derive_key("handfast v1 entropy", &[self.state, *fresh].concat());
        self.state = key;
        key.zeroize();
    }
}

impl Drop for KeyRng {
    fn drop(&mut self) {
        self.state.zeroize();
    }
}

/// A ChaCha20 generator for choices that need not be secret.
#[derive(Clone)]
pub struct ChoiceRng(ChaCha20Rng);

impl ChoiceRng {
    /// A generator from a seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..n`; 0 when `n` is 0. The bias of the plain remainder is below 2^-32 for every `n` we use.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.0.next_u64() % n as u64) as usize }
    }

    /// Full jitter: a duration drawn evenly from zero to `max`.
    pub fn jitter(&mut self, max: core::time::Duration) -> core::time::Duration {
        let us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        core::time::Duration::from_micros(self.0.next_u64() % (us + 1))
    }

    /// An array.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }
}

/// The generators of one node.
pub struct Generators {
    /// Secrets: ephemeral keys, challenge tokens, channel ids, session ids.
    pub keys: KeyRng,
    /// Ids that only have to be unique.
    pub ids: ChoiceRng,
    /// Timer jitter.
    pub jitter: ChoiceRng,
    /// Which peer to ask.
    pub peer_choice: ChoiceRng,
}

impl Generators {
    /// All generators from one seed, each under its own label.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self {
            keys: KeyRng::new(blake3::derive_key("handfast v1 random keys", seed)),
            ids: ChoiceRng::new(blake3::derive_key("handfast v1 random ids", seed)),
            jitter: ChoiceRng::new(blake3::derive_key("handfast v1 random jitter", seed)),
            peer_choice: ChoiceRng::new(blake3::derive_key("handfast v1 random peer choice", seed)),
        }
    }
}
