//! The own advert, and the sequence number that never goes back.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::statement::LIFETIME_MAX;
use super::{Advert, Capabilities};
use crate::api::{Event, Save};
use crate::identity::SecretKey;
use crate::overlay::output::Output;
use crate::random::ChoiceRng;
use crate::time::{Instant, WallTime};
use crate::wire::address::Address;
use crate::wire::message::ADVERT_ADDRESSES_MAX;

/// An advert is renewed between this and [`RENEW_AFTER`] + [`RENEW_JITTER`], so within its hour a renewal may be lost
/// once.
const RENEW_AFTER: Duration = Duration::from_secs(20 * 60);
/// See [`RENEW_AFTER`].
const RENEW_JITTER: Duration = Duration::from_secs(10 * 60);
/// How far ahead of use sequence numbers are saved. About the seconds of an hour: one save an hour.
const SAVE_AHEAD: u64 = 4096;

/// Numbers for the adverts and records of this node, each greater than all before, over restarts too.
///
/// They follow the seconds of the wall clock where that is ahead, so that even a node that lost its saved state goes
/// on above what others remember of it.
#[derive(Debug)]
pub(crate) struct Sequence {
    last: u64,
    saved: u64,
}

impl Sequence {
    /// `saved` is what the last [`Save::Sequence`] said; 0 on the first run.
    pub(crate) fn new(saved: u64) -> Self {
        Self { last: saved, saved }
    }

    /// The next number. Where it passes what was saved, the caller is told to save a later one.
    pub(crate) fn next(&mut self, wall: Option<WallTime>, out: &mut VecDeque<Output>) -> u64 {
        self.last = self.last.saturating_add(1).max(wall.map_or(0, WallTime::as_secs));
        if self.last > self.saved {
            self.saved = self.last.saturating_add(SAVE_AHEAD);
            out.push_back(Output::Event(Event::Save(Save::Sequence(self.saved))));
        }
        self.last
    }
}

/// When an own advert that is made now is to be made again.
fn own_renewal(now: Instant, jitter: &mut ChoiceRng) -> Instant {
    now + RENEW_AFTER + jitter.jitter(RENEW_JITTER)
}

/// What this supernode says of itself, renewed every 20 to 30 minutes and when it changes.
#[derive(Debug)]
pub(crate) struct OwnAdvert {
    addresses: ArrayVec<Address, ADVERT_ADDRESSES_MAX>,
    leaves_max: u32,
    relay_kbps: u32,
    renew_at: Instant,
}

impl OwnAdvert {
    /// Due at once. Addresses beyond [`ADVERT_ADDRESSES_MAX`] are not advertised.
    pub(crate) fn new(now: Instant, addresses: &[SocketAddr], leaves_max: u32, relay_kbps: u32) -> Self {
        Self { addresses: to_wire(addresses), leaves_max, relay_kbps, renew_at: now }
    }

    /// Whether this is among the addresses.
    pub(crate) fn names(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address.into())
    }

    /// When the next one is to be made.
    pub(crate) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// A fresh advert, and its bytes.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        wall: Option<WallTime>,
        key: &SecretKey,
        sequence: u64,
        jitter: &mut ChoiceRng,
    ) -> (Advert, Box<[u8]>) {
        self.renew_at = own_renewal(now, jitter);
        let advert = self.advert(wall, key, sequence, Capabilities::ALL);
        let bytes = advert.sign(key);
        (advert, bytes)
    }

    /// The bytes of an advert that takes back those before it: it offers nothing, and lives as long as any, so that
    /// none of those comes back from somebody who missed it.
    pub(crate) fn withdrawal(&self, wall: Option<WallTime>, key: &SecretKey, sequence: u64) -> Box<[u8]> {
        self.advert(wall, key, sequence, Capabilities::default()).sign(key)
    }

    fn advert(&self, wall: Option<WallTime>, key: &SecretKey, sequence: u64, capabilities: Capabilities) -> Advert {
        Advert {
            id: key.peer_id(),
            sequence,
            issued_s: wall.map_or(0, WallTime::as_secs),
            lifetime_s: u16::try_from(LIFETIME_MAX.as_secs()).unwrap_or(u16::MAX),
            capabilities,
            leaves_max: self.leaves_max,
            relay_kbps: self.relay_kbps,
            addresses: self.addresses.clone(),
        }
    }
}

fn to_wire(addresses: &[SocketAddr]) -> ArrayVec<Address, ADVERT_ADDRESSES_MAX> {
    addresses.iter().take(ADVERT_ADDRESSES_MAX).map(|a| Address::from(*a)).collect()
}
