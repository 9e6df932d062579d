//! What the leaf's side works with and does not own.

use std::collections::VecDeque;

use crate::link::Identity;
use crate::overlay::advert::{MembershipTable, Sequence};
use crate::overlay::output::Output;
use crate::random::Generators;
use crate::time::WallTime;

/// Stores and generators of [`Overlay`](crate::overlay::Overlay), lent to the leaf's side for one call.
pub(crate) struct Means<'a> {
    /// The leaf itself, to sign its record.
    pub me: &'a Identity,
    /// The wall clock, if known.
    pub wall: Option<WallTime>,
    /// Chance.
    pub random: &'a mut Generators,
    /// Adverts.
    pub members: &'a mut MembershipTable,
    /// Numbers for records.
    pub sequence: &'a mut Sequence,
    /// What is to be done.
    pub out: &'a mut VecDeque<Output>,
}
