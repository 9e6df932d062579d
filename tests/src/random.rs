//! The world's own generators, apart from those of the nodes: one label per use, so that a draw more in one place
//! moves nothing elsewhere.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// 32 bytes for one use of a seed.
pub fn derive(seed: u64, label: &str, index: u64) -> [u8; 32] {
    let mut material = [0; 16];
    material[..8].copy_from_slice(&seed.to_le_bytes());
    material[8..].copy_from_slice(&index.to_le_bytes());
    blake3::derive_key(&format!("handfast tests {label}"), &material)
}

/// A generator for the world's choices. It takes 40 bytes until it is drawn from: a world of many has some for each
/// host and router, and most are never asked.
#[derive(Clone, Debug)]
pub struct Dice(State);

#[derive(Clone, Debug)]
enum State {
    Seed([u8; 32]),
    Drawn(Box<ChaCha8Rng>),
}

impl Dice {
    /// The generator of one label.
    pub fn new(seed: u64, label: &str) -> Self {
        Self(State::Seed(derive(seed, label, 0)))
    }

    /// A number.
    pub fn u64(&mut self) -> u64 {
        if let State::Seed(seed) = self.0 {
            self.0 = State::Drawn(Box::new(ChaCha8Rng::from_seed(seed)));
        }
        match &mut self.0 {
            State::Drawn(rng) => rng.next_u64(),
            State::Seed(_) => unreachable!("it was just replaced"),
        }
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.u64() % n.max(1)
    }

    /// A number above 0 and up to 1.
    pub fn unit(&mut self) -> f64 {
        ((self.u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A size up to `max` that is as likely to be short as long: the exponent is drawn first.
    pub fn size(&mut self, max: u64) -> u64 {
        let bits = 64 - max.leading_zeros();
        let bound = 1u64 << self.below(u64::from(bits) + 1);
        self.below(bound.min(max) + 1)
    }

    /// A duration up to `max`.
    pub fn duration(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.below(max.as_micros() as u64 + 1))
    }
}
