//! What stands between this node and the internet: through what kind of router it is seen, and at which addresses.
//!
//! Supernodes tell in each Response where a packet came from; [`Observations`] keeps that and concludes. [`Examiner`]
//! decides when to look at the router, [`Examination`] does so (NAT behaviour discovery, RFC 5780), and `classify` says
//! what it saw in the terms of RFC 4787.

mod classify;
mod examine;
mod examiner;
mod observed;
pub(crate) mod probe_replies;
#[cfg(test)]
mod tests;

pub(crate) use examine::{Ask, Examination, Outcome, Subject};
pub(crate) use examiner::{Examiner, second_nat};
pub(crate) use observed::Observations;
pub(crate) use probe_replies::{Alternates, Asked, ProbeReplies, ReplyWish};

pub(crate) use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};
