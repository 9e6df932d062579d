//! What the world sees of us: at which addresses, through what kind of router, and whether unasked packets arrive.
//!
//! Supernodes tell in each Response where a packet came from; [`Observations`] keeps that and concludes. Whether a
//! packet arrives that nobody asked for is tried out by [`DialBack`]: one supernode orders another, one that we have
//! never sent anything to, to open a link to the address it sees us at. [`DialBackDuty`] is the other side of that.
//! [`NetworkClock`] is the other way round: what we see of others' clocks, and whether ours is wrong.

mod clock;
mod dial_back;
mod duty;
mod observed;

pub(crate) use clock::NetworkClock;
pub(crate) use dial_back::DialBack;
pub(crate) use duty::{DialBackDuty, OrderTo};
pub(crate) use observed::Observations;

pub use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};

#[cfg(test)]
mod tests;
