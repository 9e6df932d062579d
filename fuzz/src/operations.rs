//! Machines of the core, each driven alone: bytes are operations. The bodies are in the core, beside the machines,
//! since these are nobody else's business.

use handfast_core::internal::operations;

/// What strangers may use of a node, from a few addresses.
pub fn account(bytes: &[u8]) {
    operations::account(bytes);
}

/// The applications' streams and datagrams at the two ends of a few links.
pub fn application(bytes: &[u8]) {
    operations::application(bytes);
}

/// A node's calls: nothing that it is told keeps one from ending.
pub fn calls(bytes: &[u8]) {
    operations::calls(bytes);
}

/// A home's introductions: asked for, answered and repeated in any order.
pub fn introductions(bytes: &[u8]) {
    operations::introductions(bytes);
}

/// Announcements on the LAN.
pub fn lan(bytes: &[u8]) {
    operations::lan(bytes);
}

/// The measurement of a router's memory, with a home and a router that are a model.
pub fn measuring(bytes: &[u8]) {
    operations::measuring(bytes);
}

/// What stands between a node and the internet: whatever is answered, examinations end.
pub fn nat(bytes: &[u8]) {
    operations::nat(bytes);
}

/// Leaf, supernode, and the one that becomes the other.
pub fn overlay(bytes: &[u8]) {
    operations::overlay(bytes);
}

/// Two sides' peers: handshakes that cross, are lost, doubled and late.
pub fn peers(bytes: &[u8]) {
    operations::peers(bytes);
}

/// A relay's channels: only what comes from a leg goes on, only to the other one, and within the limits.
pub fn relay(bytes: &[u8]) {
    operations::relay(bytes);
}

/// Answers to the probes of a few leaves, at once and late.
pub fn probe_replies(bytes: &[u8]) {
    operations::probe_replies(bytes);
}

/// TCP in the place of UDP, with four supernodes that are a model.
pub fn transport(bytes: &[u8]) {
    operations::transport(bytes);
}

/// A traversal with a few peers, some of which name a victim's address.
pub fn traverse(bytes: &[u8]) {
    operations::traverse(bytes);
}
