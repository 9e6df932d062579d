//! Machines of the core, each driven alone: bytes are operations. The bodies are in the core, beside the machines, since
//! these are nobody else's business.

use handfast_core::internal::operations;

/// The applications' streams and datagrams at the two ends of a few links.
pub fn application(bytes: &[u8]) {
    operations::application(bytes);
}

/// Two sides' peers: handshakes that cross, are lost, doubled and late.
pub fn peers(bytes: &[u8]) {
    operations::peers(bytes);
}
