//! What stands between this node and the internet: through what kind of router it is seen, and at which addresses.
//!
//! [`Nat`] is one machine. Supernodes tell in each Response where a packet came from; [`Observations`](observed) keeps
//! that and concludes. The [`Examiner`](examiner) decides when to look at the router, an [`Examination`](examine) does
//! so (NAT behaviour discovery, RFC 5780), and [`classify`] says what it saw in the terms of RFC 4787. As a supernode
//! it answers the [probes](probe_replies) by which others look at theirs.
//!
//! It is handed where supernodes see us, answers to probes, Loop packets, sockets that were opened, and time. What it
//! wants ([`Output`]) is packets and sockets, and now and then to be told [what is around](Around): whom it may ask,
//! and what this node is to others. What it finds out is there to be asked for: what peers are told of the router, the
//! addresses that they can try, what `status` shows.
//!
//! Life: it rests until a link to a supernode is up, examines a little later, and then daily or when something does not
//! agree. What a leaf found in a network [it knows again](kept) when it comes there again. Another network makes it
//! forget everything ([`Nat::handle_network`]).
//!
//! Whether to serve others is not decided here, and neither is whether packets that nobody asked for come in
//! ([`overlay`](crate::overlay) has that tried out); supernodes that are dialled for an examination alone are chosen
//! there too, since whoever is sent something can be no witness of that.

mod classify;
mod examine;
mod examiner;
mod kept;
mod observed;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
pub(crate) mod probe_replies;
mod router;
#[cfg(test)]
mod tests;

pub(crate) use crate::wire::nat::NatProfile;
pub(crate) use examine::Ask;
pub(crate) use probe_replies::{Alternates, Asked, ReplyOutput};
pub(crate) use router::{Around, Nat, Output, Reporter, Stand, WayIn};
