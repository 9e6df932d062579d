//! What the world sees of us: at which addresses, through what kind of router, and whether unasked packets arrive.
//!
//! Supernodes tell in each Response where a packet came from; [`Observations`] keeps that and concludes. Whether a
//! packet arrives that nobody asked for is tried out by [`DialBack`]: one supernode orders another, one that we have
//! never sent anything to, to open a link to the address it sees us at. [`DialBackDuty`] is the other side of that.
//! [`Examiner`] decides when to look at the router, [`Examination`] does so, `classify` says what it saw in the terms of
//! RFC 4787, and [`RoleWatch`] when a node that decides for itself may serve others.
//! [`NetworkClock`] is the other way round: what we see of others' clocks, and whether ours is wrong.

mod classify;
mod clock;
mod dial_back;
mod duty;
mod examine;
mod examiner;
mod observed;
mod role;

pub(crate) use clock::NetworkClock;
pub(crate) use dial_back::DialBack;
pub(crate) use duty::{DialBackDuty, OrderTo};
pub(crate) use examine::{Ask, Examination, Outcome, Subject};
pub(crate) use examiner::{Examiner, second_nat};
pub(crate) use observed::Observations;
pub(crate) use role::{RoleWatch, Way};

pub use examiner::{Ipv6, Reachability};

pub use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};

#[cfg(test)]
mod tests;
