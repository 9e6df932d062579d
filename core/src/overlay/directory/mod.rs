//! Records: where a peer is at home. What they say, where they are kept, and how one is found.
//!
//! A leaf signs a [`Record`] that names its homes, and never its own addresses: those are told, encrypted, only to
//! peers that it accepts. The home that it names first puts the record ([`Placing`]) into the [`RecordStore`] of the
//! supernodes whose places are nearest to the leaf's. Who wants to reach the leaf asks its own home, and that asks
//! them ([`Lookups`]).

mod lookup;
mod placing;
mod repair;
mod search;
mod store;

use core::net::SocketAddr;
use core::time::Duration;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

pub(crate) use lookup::{LEAF_ASKED_MAX, LookupOutcome, LookupStart, Lookups, Whom};
pub(crate) use placing::{HOLDERS_MAX, Placing};
pub(crate) use store::{Putter, RECORDS_MAX, RecordStore};

use crate::identity::{PeerId, SecretKey, SignatureKind};
use crate::overlay::advert::StatementError;
use crate::overlay::advert::statement::{self, Statement};
use crate::wire::address::{Address, is_sendable};
use crate::wire::message::RECORD_HOMES_MAX;

/// Longest that a record may say it holds. Much longer than an advert, since the leaf pays for each renewal with bytes
/// to each home, while the supernodes keep their copies alike by gossip; a leaf that leaves has its record taken back.
pub(crate) const RECORD_LIFETIME_MAX: Duration = Duration::from_secs(12 * 3600);

/// A peer's statement about where it is at home.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Whose, and by whose key it is signed.
    pub id: PeerId,
    /// Grows with every record of this peer.
    pub sequence: u64,
    /// Seconds of wall time at which it was made.
    pub issued_s: u64,
    /// Seconds for which it holds.
    pub lifetime_s: u16,
    /// Where it is at home, the preferred home first. Never empty.
    pub homes: ArrayVec<(PeerId, Address), RECORD_HOMES_MAX>,
}

impl Record {
    /// The bytes that travel: body and signature.
    pub fn sign(&self, key: &SecretKey) -> Box<[u8]> {
        statement::sign(self, key)
    }

    /// Reads a record and checks everything that needs neither its signature nor a clock.
    ///
    /// # Errors
    /// What it is found to be instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        statement::parse(bytes)
    }

    /// Reads a record without a check of anything, above all not of its ids, which costs more than all the rest: one that
    /// is kept was checked when it came, and of any other the ids are only to be compared.
    pub(crate) fn read_unchecked(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Kept {
            _version: u8,
            id: [u8; 32],
            sequence: u64,
            issued_s: u64,
            lifetime_s: u16,
            homes: ArrayVec<([u8; 32], Address), RECORD_HOMES_MAX>,
        }
        let (kept, _) = postcard::take_from_bytes::<Kept>(bytes).ok()?;
        let home = |(id, address)| (PeerId::of_checked(id), address);
        Some(Self {
            id: PeerId::of_checked(kept.id),
            sequence: kept.sequence,
            issued_s: kept.issued_s,
            lifetime_s: kept.lifetime_s,
            homes: kept.homes.into_iter().map(home).collect(),
        })
    }

    /// Whether the signature at the end of `bytes` is that of the peer it speaks of.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse), and a signature that is not.
    pub fn verify(bytes: &[u8]) -> Result<Self, StatementError> {
        let record = Self::parse(bytes)?;
        statement::verify(&record, bytes)?;
        Ok(record)
    }

    /// The homes, and where each of them is.
    pub(crate) fn addresses(&self) -> Vec<(PeerId, SocketAddr)> {
        self.homes.iter().map(|(home, address)| (*home, (*address).into())).collect()
    }

    /// Whether it names `home`.
    pub fn names(&self, home: &PeerId) -> bool {
        self.homes.iter().any(|(id, _)| id == home)
    }
}

impl Statement for Record {
    const KIND: SignatureKind = SignatureKind::Record;
    /// Version 1, id 32, sequence 10, issued 5, lifetime 3, homes 1 + 2 × (32 + 19), signature 64 make 218.
    const LEN_MAX: usize = 220;
    const LIFETIME_MAX: Duration = RECORD_LIFETIME_MAX;

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
        let distinct = |(i, (home, _)): (usize, &(PeerId, Address))| {
            *home != self.id && self.homes.iter().skip(i + 1).all(|(other, _)| other != home)
        };
        !self.homes.is_empty()
            && self.homes.iter().all(|(_, a)| is_sendable((*a).into()))
            && self.homes.iter().enumerate().all(distinct)
    }
}

#[cfg(test)]
mod tests;
