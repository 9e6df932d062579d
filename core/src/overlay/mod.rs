//! What makes a network of single links: who serves, who is at home where, who knows whom.
//!
//! [`Overlay`] is one machine with two sides. A leaf finds homes among the supernodes and keeps them ([`home`]); a
//! supernode gossips with the others ([`gossip`]), keeps adverts ([`advert`]) and records ([`directory`]), and has
//! leaves registered. Both ask and answer whether unasked packets come in, and a node that may change sides does so by
//! that ([`role`]). The machine owns what these parts work on: the membership table of adverts, the records, lookups,
//! chance, the key that signs, and the clock that statements are judged by.
//!
//! It is handed links that come and go, the messages that are for it, another network, the wall clock and time; beside
//! them what others know and it does not ([`About`], [`LinkUp`], [`Situation`]). What it wants it says as [`Output`]s,
//! in order. What it wants of a message's link goes back with the call, since it goes out before anything that waits.
//!
//! Life: made as a leaf or a supernode; a leaf rests until it is told of a supernode ([`Overlay::join`], or by anchors
//! of an earlier run at the first [`Overlay::handle_network`]). In role `auto` it changes sides as often as
//! [`role::RoleWatch`] lets it. [`Overlay::leave`] ends it: homes are told, nobody is dialled any more.
//!
//! It knows peers by their ids, and of links only that they are up: how they come about, what paths they have and when
//! they are closed is others' business, and so is what kind of router this node is behind.

pub(crate) mod advert;
mod clock;
pub(crate) mod directory;
mod gossip;
mod home;
mod inquiry;
mod messages;
mod news;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod output;
mod pack;
mod role;
mod serving;
mod state;
#[cfg(test)]
mod tests;
mod trial;
mod turn;
mod way_in;

pub(crate) use home::Carried;
pub(crate) use messages::{About, advertiser};
pub(crate) use news::LinkUp;
pub(crate) use output::{Output, When, dismissal};
pub(crate) use serving::Situation;
pub(crate) use state::Overlay;
