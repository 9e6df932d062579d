//! Homes: the supernodes at which a leaf is registered, so that it can be reached at any time.
//!
//! [`Homes`] is the leaf's side: it finds supernodes, picks two, registers, keeps its record fresh and moves on when a
//! home dies. [`Registrations`] is the supernode's side: who is registered here, and whether the other homes of those
//! leaves live. [`Carried`] says how much of that a supernode bears.

mod anchors;
mod balance;
mod choice;
mod leaf;
mod listing;
mod load;
mod means;
mod prospect;
mod registrations;
mod shares;
mod sweep;
mod trials;

pub(crate) use leaf::{DRAWN_AUTO_MAX, DRAWN_MAX, Homes};
pub(crate) use load::Carried;
pub(crate) use means::Means;
#[cfg(test)]
pub(crate) use registrations::Registered;
pub(crate) use registrations::Registrations;
pub(crate) use trials::Trials;

#[cfg(test)]
mod balance_tests;
#[cfg(test)]
pub(crate) mod testnet;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial_tests;
