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
        // ChaCha20Rng holds its key in plain memory; overwriting it, where the compiler may not skip it, is the best
        // that safe code can do.
        stream = ChaCha20Rng::from_seed([0; 32]);
        core::hint::black_box(&mut stream);
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
        let mut hasher = blake3::Hasher::new_derive_key("handfast v1 entropy");
        hasher.update(&self.state).update(fresh);
        self.state = *hasher.finalize().as_bytes();
        hasher.zeroize();
    }
}

impl Drop for KeyRng {
    fn drop(&mut self) {
        self.state.zeroize();
    }
}

/// A ChaCha20 generator for choices that need not be secret. It keeps its seed and how far it is, and makes the stream
/// anew for each draw: choices are seldom, and every room has some, while a stream holds 256 bytes ready.
#[derive(Clone)]
pub(crate) struct ChoiceRng {
    seed: [u8; 32],
    /// In words of the stream.
    at: u64,
}

impl ChoiceRng {
    /// A generator from a seed.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, at: 0 }
    }

    fn draw<T>(&mut self, draw: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        let mut stream = ChaCha20Rng::from_seed(self.seed);
        stream.set_word_pos(self.at.into());
        let drawn = draw(&mut stream);
        #[expect(clippy::cast_possible_truncation, reason = "2^64 words are never drawn")]
        let at = stream.get_word_pos() as u64;
        self.at = at;
        drawn
    }

    /// A number.
    pub(crate) fn u64(&mut self) -> u64 {
        self.draw(ChaCha20Rng::next_u64)
    }

    /// Which of these, each as likely as its weight says; none where all weigh nothing.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> Option<usize> {
        let total = weights.clone().fold(0_u64, u64::saturating_add);
        let mut at = self.u64().checked_rem(total)?;
        for (n, weight) in weights.enumerate() {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return Some(n),
            }
        }
        None
    }

    /// A number in `0..n`; 0 when `n` is 0. The bias of the plain remainder is below 2^-32 for every `n` we use.
    #[expect(clippy::cast_possible_truncation, reason = "below `n`, which is a usize")]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.u64() % n as u64) as usize }
    }

    /// Full jitter: a duration drawn evenly from zero to `max`.
    pub(crate) fn jitter(&mut self, max: core::time::Duration) -> core::time::Duration {
        let us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX).min(u64::MAX - 1);
        core::time::Duration::from_micros(self.u64() % (us + 1))
    }

    /// An array.
    #[cfg(test)]
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.draw(|stream| stream.fill_bytes(&mut out));
        out
    }
}

/// From which the rooms of a node get their generators, each under a label of its own: what one room draws moves
/// nothing that another one draws.
pub(crate) struct Seed([u8; 32]);

impl Seed {
    /// The seed of a node.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// A generator of secrets.
    pub(crate) fn keys(&self, label: &str) -> KeyRng {
        KeyRng::new(self.derive(label, "keys"))
    }

    /// A generator of choices that need not be secret.
    pub(crate) fn choices(&self, label: &str) -> ChoiceRng {
        ChoiceRng::new(self.derive(label, "choices"))
    }

    fn derive(&self, label: &str, kind: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("handfast v1 random");
        hasher.update(&self.0).update(label.as_bytes()).update(&[0]).update(kind.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The generators of a room that needs all kinds.
pub(crate) struct Generators {
    /// Secrets: tokens, nonces.
    pub(crate) keys: KeyRng,
    /// Timer jitter.
    pub(crate) jitter: ChoiceRng,
    /// Which peer to ask.
    pub(crate) peer_choice: ChoiceRng,
}

impl Generators {
    /// All of them under one label.
    pub(crate) fn new(seed: &Seed, label: &str) -> Self {
        Self {
            keys: seed.keys(label),
            jitter: seed.choices(&format!("{label} jitter")),
            peer_choice: seed.choices(&format!("{label} peers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn same_seed_same_draws_and_no_draw_repeats() {
        let draws = |seed| {
            let mut rng = KeyRng::new(seed);
            (0..100).map(|_| rng.bytes::<16>()).collect::<Vec<_>>()
        };
        let first = draws([1; 32]);
        assert_eq!(first, draws([1; 32]));
        assert_ne!(first, draws([2; 32]));
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len());
    }

    /// What the state becomes is not among what was given out, and differs from what it was.
    #[test]
    fn the_state_is_replaced_by_each_draw() {
        let mut rng = KeyRng::new([7; 32]);
        let before = rng.state;
        let drawn: [u8; 64] = rng.bytes();
        assert_ne!(rng.state, before);
        assert!(!drawn.windows(32).any(|w| w == rng.state || w == before));
    }

    #[test]
    fn entropy_changes_what_comes_and_depends_on_what_was() {
        let mixed = |seed, fresh: u8| {
            let mut rng = KeyRng::new([seed; 32]);
            rng.mix(&[fresh; 32]);
            rng.u64()
        };
        let plain = KeyRng::new([1; 32]).u64();
        let draws = [plain, mixed(1, 0), mixed(1, 1), mixed(2, 0)];
        let distinct: std::collections::BTreeSet<_> = draws.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(mixed(1, 0), mixed(1, 0));
    }

    #[test]
    fn labels_do_not_move_each_other() {
        let others = |jitter_draws| {
            let mut all = Generators::new(&Seed::new([3; 32]), "room");
            for _ in 0..jitter_draws {
                all.jitter.u64();
            }
            (all.peer_choice.u64(), all.keys.u64())
        };
        assert_eq!(others(0), others(5));
        let draws = ["a room", "another"].map(|room| {
            let mut all = Generators::new(&Seed::new([3; 32]), room);
            [all.keys.u64(), all.jitter.u64(), all.peer_choice.u64()]
        });
        let distinct: std::collections::BTreeSet<_> = draws.iter().flatten().collect();
        assert_eq!(distinct.len(), 6, "two labels share a stream");
    }

    proptest! {
        #[test]
        fn draws_stay_in_range(seed: [u8; 32], n in 0_usize..1000, max_us: u64) {
            let mut rng = ChoiceRng::new(seed);
            prop_assert!(rng.below(n) < n.max(1));
            let max = core::time::Duration::from_micros(max_us);
            prop_assert!(rng.jitter(max) <= max);
        }
    }

    #[test]
    fn choices_are_those_of_one_stream() {
        let mut stream = ChaCha20Rng::from_seed([5; 32]);
        let mut choices = ChoiceRng::new([5; 32]);
        assert!((0..1_000).all(|_| choices.u64() == stream.next_u64()));
        assert!(size_of::<ChoiceRng>() <= 40);
    }

    #[test]
    fn jitter_takes_the_longest_of_durations() {
        let mut rng = ChoiceRng::new([0; 32]);
        let _ = rng.jitter(core::time::Duration::MAX);
        let _ = rng.jitter(core::time::Duration::from_micros(u64::MAX));
        assert_eq!(rng.jitter(core::time::Duration::ZERO), core::time::Duration::ZERO);
    }
}
