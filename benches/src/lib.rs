//! What the benches and the load generator share: nodes joined in memory ([`memory`]), a node on a real socket
//! ([`client`]), and a counting allocator ([`counting`]).

pub mod client;
pub mod counting;
pub mod memory;

use handfast_core::SecretKey;

/// The key of a made-up node: the same number gives the same key.
pub fn key(number: u64) -> SecretKey {
    SecretKey::from_bytes(blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The seed of a made-up node.
pub fn seed(number: u64) -> [u8; 32] {
    *blake3::keyed_hash(&[7; 32], &number.to_le_bytes()).as_bytes()
}

/// The service through which made-up nodes meet.
///
/// # Panics
/// Never: the name is a good one.
pub fn service() -> handfast_core::ServiceName {
    "bench".parse().expect("a good name")
}
