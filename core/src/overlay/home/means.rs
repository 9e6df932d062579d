//! What the leaf's side works with and does not own.

use std::collections::VecDeque;

use crate::identity::SecretKey;
use crate::overlay::advert::{MembershipTable, Sequence};
use crate::overlay::output::Output;
use crate::random::Generators;
use crate::time::WallTime;

/// Stores and generators of [`Overlay`](crate::overlay::Overlay), lent to the leaf's side for one call.
pub(crate) struct Means<'a> {
    /// The leaf's key, to sign its record.
    pub key: &'a SecretKey,
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
