//! Whether this node may serve others, and how it finds out.
//!
//! Whether a packet arrives that nobody asked for is tried out by [`DialBack`]: one supernode orders another, one that
//! we have never sent anything to, to open a link to the address it sees us at. [`DialBackOrders`] is the other side of
//! that. [`RoleWatch`] says when a node that decides for itself may serve others.

mod dial_back;
mod dial_back_orders;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use dial_back::DialBack;
pub(crate) use dial_back_orders::{DialBackOrders, OrderTo};
pub(crate) use watch::{RoleWatch, Way};
