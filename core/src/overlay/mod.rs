//! What makes a network of single links: who serves, who is at home where, who knows whom.

pub(crate) mod action;
pub(crate) mod advert;
mod clock;
pub(crate) mod directory;
pub(crate) mod gossip;
pub(crate) mod home;
pub(crate) mod pack;
pub(crate) mod role;

pub(crate) use clock::NetworkClock;
