//! Adverts: what a supernode says of itself, signed, and the membership table in which nodes keep what supernodes said.
//!
//! An [`Advert`] names the addresses at which the internet reaches a supernode and what it is able to do. It says
//! nothing that moves by the minute: load travels beside it, unsigned (see
//! [`LoadHint`](crate::wire::message::LoadHint)). [`OwnAdvert`] makes and renews the own one; [`MembershipTable`] keeps
//! those of others and forgets them when they expire; where there are too many, a [`view`] says whose it keeps; [`Hearsay`] holds what a supernode is told of those that it has
//! not been to.
//!
//! The envelope, in [`statement`], is shared with the records of the [`directory`](crate::overlay::directory), and so
//! is the [`shelf`] that stores either: both are signed by the one they speak of, and for both a valid signature gives
//! no right to storage.

mod hearsay;
mod membership;
mod own;
pub(crate) mod shelf;
pub(crate) mod statement;
mod view;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

pub(crate) use hearsay::{Ask, Hearsay, Need, Teller};
pub(crate) use membership::{Found, LEAF_ADVERTS_MAX, Market, MembershipTable, Suspicion, TABLE_MIN};
pub(crate) use own::{OwnAdvert, Sequence};
pub(crate) use statement::StatementError;

use self::statement::{LIFETIME_MAX, Statement};
use crate::identity::{PeerId, SecretKey, SignatureKind};
use crate::wire::address::{Address, Range, is_sendable};
use crate::wire::message::ADVERT_ADDRESSES_MAX;

/// What a supernode is able to do: a set of bits. Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Capabilities(pub u8);

impl Capabilities {
    /// Takes registrations and introduces.
    pub const HOME: Self = Self(1);
    /// Relays.
    pub const RELAY: Self = Self(2);
    /// Both.
    pub const ALL: Self = Self(3);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A supernode's statement about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Advert {
    /// Whose, and by whose key it is signed. First, so that it stands at a fixed place.
    pub id: PeerId,
    /// Grows with every advert of this supernode.
    pub sequence: u64,
    /// Seconds of wall time at which it was made.
    pub issued_s: u64,
    /// Seconds for which it holds.
    pub lifetime_s: u16,
    /// What it is able to do.
    pub capabilities: Capabilities,
    /// How many leaves it takes.
    pub leaves_max: u32,
    /// How much it relays, kbit/s; 0 is unlimited.
    pub relay_kbps: u32,
    /// Where the internet reaches it, the preferred address first.
    pub addresses: ArrayVec<Address, ADVERT_ADDRESSES_MAX>,
}

impl Advert {
    /// The bytes that travel: body and signature.
    pub fn sign(&self, key: &SecretKey) -> Box<[u8]> {
        statement::sign(self, key)
    }

    /// Reads an advert and checks everything that needs neither its signature nor a clock.
    ///
    /// # Errors
    /// What it is found to be instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        statement::parse(bytes)
    }

    /// Whether the signature at the end of `bytes` is that of the supernode it speaks of.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse), and a signature that is not.
    pub fn verify(bytes: &[u8]) -> Result<Self, StatementError> {
        let advert = Self::parse(bytes)?;
        statement::verify(&advert, bytes)?;
        Ok(advert)
    }

    /// Its addresses, preferred first, as far as they mean something to whoever heard it from `over`.
    pub(crate) fn usable(&self, over: Option<IpAddr>) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().map(|a| SocketAddr::from(*a)).filter(move |a| Range::is_heard_right(a.ip(), over))
    }

    /// Where to go to see whether it is there, for whoever heard it from `over`: its preferred address of that family,
    /// over which others there are told of it too.
    pub(crate) fn way(&self, over: Option<IpAddr>) -> Option<SocketAddr> {
        let same = |a: &SocketAddr| over.is_none_or(|over| over.is_ipv4() == a.is_ipv4());
        self.usable(over).find(same).or_else(|| self.usable(over).next())
    }

    /// Whether this is the address of its family that it prefers: an advert that names a visited address second could
    /// send others elsewhere first.
    pub(crate) fn prefers(&self, address: SocketAddr) -> bool {
        let mut usable = self.usable(Some(address.ip()));
        usable.find(|a| a.is_ipv4() == address.is_ipv4()) == Some(address)
    }

    /// Whether it takes back those before it and offers nothing.
    pub(crate) fn is_withdrawn(&self) -> bool {
        !self.capabilities.has(Capabilities::HOME)
    }
}

impl Statement for Advert {
    const KIND: SignatureKind = SignatureKind::Advert;
    /// Version 1, id 32, sequence 10, issued 5, lifetime 3, capabilities 1, leaves 5, relay 5, addresses 77,
    /// signature 64 make 203; usual ones with one IPv4 address have 130.
    const LEN_MAX: usize = 208;
    const LIFETIME_MAX: Duration = LIFETIME_MAX;

    fn id(&self) -> PeerId {
        self.id
    }
    fn sequence(&self) -> u64 {
        self.sequence
    }
    fn issued_s(&self) -> u64 {
        self.issued_s
    }
    fn lifetime_s(&self) -> u16 {
        self.lifetime_s
    }
    fn is_sane(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.iter().all(|a| is_sendable((*a).into()))
    }
}

#[cfg(test)]
mod tests;
