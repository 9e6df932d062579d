//! What strangers have used, and may still use: the one room that every other asks before it does something for, or
//! sends something to, somebody who has proven nothing.
//!
//! [`Account`] is the node's: what unproven addresses got in answer or unasked ([`anti_amplification`]), what those got
//! that others named ([`hearsay`]), how many attempts were made towards a prefix ([`budget`]), how many Inits a relay
//! or home brought, and how many introductions were done for whom. [`Exposure`] is the part of it that belongs to one link: what the addresses that its peer named
//! have got. [`Rate`] and [`RateTable`] limit by identity or prefix whoever asks often. A signature gives no standing
//! here: who has many keys has one address.

mod anti_amplification;
mod budget;
mod hearsay;
mod inner_inits;
mod introductions;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod rate;
mod source;

use core::net::{IpAddr, SocketAddr};

pub(crate) use budget::{ADDRESSES_PER_ATTEMPT_MAX, Charge, Exposure, Grant, Scope};
pub(crate) use rate::{Rate, RateTable};
pub(crate) use source::Source;

use self::anti_amplification::Ledger;
use self::budget::Budget;
use self::hearsay::Hearsay;
use self::inner_inits::InnerInits;
use self::introductions::IntroductionRates;
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::time::Instant;

/// An Init by itself that asks for nothing.
pub(crate) const BARE_INIT_LEN: usize = 154;

/// All that one node keeps of what strangers have used.
#[derive(Debug, Default)]
pub(crate) struct Account {
    ledger: Ledger,
    budget: Budget,
    hearsay: Hearsay,
    inner_inits: InnerInits,
    introductions: IntroductionRates,
}

impl Account {
    /// A request of `bytes` came from an address: an Init whose mac1 is right, or an authentic packet.
    pub(crate) fn received(&mut self, now: Instant, from: SocketAddr, bytes: usize) {
        self.ledger.received(now, from, bytes);
    }

    /// Whether an answer of `bytes` may go to an unproven address; if so it is entered.
    #[must_use]
    pub(crate) fn answer(&mut self, now: Instant, to: SocketAddr, bytes: usize) -> bool {
        self.ledger.answer(now, to, bytes)
    }

    /// Whether something unasked may go to an unproven address; if so it is entered.
    #[must_use]
    pub(crate) fn unasked(&mut self, now: Instant, to: SocketAddr) -> bool {
        self.ledger.unasked(now, to)
    }

    /// The address proved itself.
    pub(crate) fn proven(&mut self, now: Instant, address: SocketAddr) {
        self.ledger.proven(address);
        self.hearsay.on_answer(now, address.ip());
    }

    /// Whether so many bytes may go unasked to an address that somebody else named; if so they are entered.
    #[must_use]
    pub(crate) fn take_hearsay(&mut self, now: Instant, to: SocketAddr, bytes: usize) -> bool {
        self.hearsay.has_room(now, to.ip(), bytes)
            && self.ledger.unasked(now, to)
            && self.hearsay.take(now, to.ip(), bytes)
    }

    /// Whether there is room for a packet there, but for what this very address was sent in the last minute.
    #[must_use]
    pub(crate) fn has_room_for_hearsay(&mut self, now: Instant, ip: IpAddr, bytes: usize) -> bool {
        self.hearsay.has_room(now, ip, bytes)
    }

    /// A home of this node has been there: what it was sent is forgotten.
    pub(crate) fn on_attested(&mut self, ip: IpAddr) {
        self.hearsay.forgive(ip);
    }

    /// Takes one attempt out of the budget of each prefix or proven IP address that the addresses fall in; says of each
    /// whether it may be tried.
    pub(crate) fn charge_attempts(
        &mut self,
        now: Instant,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Vec<(SocketAddr, Grant)> {
        self.budget.take(now, addresses)
    }

    /// The same for what is not given back; returns those that may be tried.
    pub(crate) fn take_attempts(
        &mut self,
        now: Instant,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Vec<SocketAddr> {
        let granted = self.budget.take(now, addresses).into_iter();
        granted.filter(|(_, grant)| matches!(grant, Grant::Given(_))).map(|(address, _)| address).collect()
    }

    /// Whether an attempt may be made at this one address; if so it is entered.
    #[must_use]
    pub(crate) fn take_attempt(&mut self, now: Instant, address: SocketAddr) -> bool {
        !self.take_attempts(now, core::iter::once(address)).is_empty()
    }

    /// All addresses that an attempt was charged for have answered, or were sent nothing.
    pub(crate) fn give_back(&mut self, charge: Charge) {
        self.budget.give_back(charge);
    }

    /// A peer answered from this IP address, or a home of ours sees it there: more attempts at it may be made for a
    /// day.
    pub(crate) fn peer_seen(&mut self, now: Instant, ip: IpAddr) {
        self.budget.proven(now, ip);
    }

    /// Whether a prediction may be tried towards an address; if so it is entered.
    #[must_use]
    pub(crate) fn take_prediction(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.budget.take_prediction(now, ip)
    }

    /// Whether ports of an address may be guessed, or many opened for it; if so it is entered.
    #[must_use]
    pub(crate) fn take_birthday(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.budget.take_birthday(now, ip)
    }

    /// Whether an Init that this relay or home brings may cost a handshake; if so it is entered.
    #[must_use]
    pub(crate) fn take_inner_init(&mut self, now: Instant, via: PeerKey) -> bool {
        self.inner_inits.take(now, via)
    }

    /// Whether an introduction may be done for this callee and whoever asks from there; if so it is entered.
    #[must_use]
    pub(crate) fn take_introduction(&mut self, now: Instant, callee: PeerId, caller: Option<SocketAddr>) -> bool {
        self.introductions.take(now, callee, caller)
    }

    /// The same for a question to a relay.
    pub(crate) fn take_relay_question(&mut self, now: Instant, asker: PeerId, from: Option<SocketAddr>) -> bool {
        self.introductions.take_question(now, asker, from)
    }

    /// Introductions done in the last full second.
    pub(crate) fn introductions_per_second(&self, now: Instant) -> u32 {
        self.introductions.per_second(now)
    }

    /// Forgets what is old.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.ledger.forget_old(now);
        self.hearsay.forget_old(now);
    }
}
