//! When a leaf asks for a listing of adverts, and whom: among those listed it chooses homes.
//!
//! The first to be linked is asked at once, again while it is silent, and then another. When something of the listing
//! came, the next one is asked for after a while: soon if the first was short, else seldom, but at once when a home is
//! lost. A leaf that finds its homes of the last run asks for none before the hour: when many start again at once, a
//! listing each would be the dearest thing that they ask for.

use core::time::Duration;
use std::collections::VecDeque;

use crate::identity::PeerId;
use crate::overlay::gossip::LISTING_LEAF_MAX;
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::message::Message;

/// First retransmission time-out of the request for adverts; doubles.
const LISTING_RTO: Duration = Duration::from_secs(1);
/// How often it is sent.
const LISTING_TRIES: u8 = 3;
/// Adverts are asked for again after this, and as much again at random, if the first listing was short: the supernode
/// may have been started a moment ago as well.
const LISTING_SOON: Duration = Duration::from_secs(45);
/// Later they are asked for after this, and half as much again at random: a listing is the dearest thing that an idle
/// leaf asks of its homes, and what it is for is choosing others.
const LISTING_EVERY: Duration = Duration::from_secs(12 * 3600);
/// A home is lost, and the last listing is older than this: the other home is asked for a new one at once. The first one
/// may be put off by as long, and as much again at random.
const LISTING_STALE: Duration = Duration::from_secs(40 * 60);
/// The same where a listing is a long one, and homes name partners besides, from which another one is chosen: it is for
/// the day on which both are lost, and some of those that it names should live then.
const LONG_LISTING_STALE: Duration = Duration::from_secs(3 * 3600);

struct Asked {
    from: PeerId,
    tries: u8,
}

/// The listing that a leaf asks supernodes for: who is asked now, and when next.
#[derive(Default)]
pub(super) struct Listing {
    asked: Option<Asked>,
    /// When it is asked for, again or anew.
    at: Option<Instant>,
    /// When something of the last one came; none has at [`Instant::ZERO`].
    given_at: Instant,
    was_given: bool,
    /// Who gave it, or is about to.
    by: Option<PeerId>,
    was_put_off: bool,
}

impl Listing {
    /// Whether any has come.
    pub(super) fn was_given(&self) -> bool {
        self.was_given
    }

    /// Whether this is who was asked last.
    pub(super) fn is_by(&self, peer: &PeerId) -> bool {
        self.by.as_ref() == Some(peer)
    }

    /// Whether none was asked for yet, nor is about to be.
    pub(super) fn is_unasked(&self) -> bool {
        self.asked.is_none() && self.at.is_none()
    }

    /// Who was asked and has not answered.
    pub(super) fn asked(&self) -> Option<PeerId> {
        self.asked.as_ref().map(|asked| asked.from)
    }

    /// The first one to be linked was a home: if the others are there, too, none is needed for now.
    pub(super) fn wait(&mut self, now: Instant) {
        self.at = Some(now + LISTING_RTO);
    }

    /// All is as it was when the last run ended: whether the first listing is put off.
    pub(super) fn put_off(&mut self, now: Instant, jitter: &mut ChoiceRng) -> bool {
        if self.was_given || self.was_put_off || self.asked.is_some() {
            return false;
        }
        self.was_put_off = true;
        self.at = Some(now + LISTING_STALE + jitter.jitter(LISTING_STALE));
        true
    }

    /// Asks, or asks once more.
    pub(super) fn ask(&mut self, now: Instant, from: PeerId, out: &mut VecDeque<Output>) {
        let tries = self.asked.as_ref().filter(|a| a.from == from).map_or(1, |a| a.tries + 1);
        self.asked = Some(Asked { from, tries });
        self.by = Some(from);
        self.at = Some(now + LISTING_RTO * (1 << (tries - 1)));
        send(out, from, &Message::AdvertsRequest);
    }

    /// Something of it came; now so many adverts are known.
    pub(super) fn on_part(&mut self, now: Instant, from: PeerId, known: usize, jitter: &mut ChoiceRng) {
        if self.asked.take_if(|a| a.from == from).is_none() {
            return;
        }
        let is_first = !core::mem::replace(&mut self.was_given, true);
        let after = if is_first && known < LISTING_LEAF_MAX {
            LISTING_SOON + jitter.jitter(LISTING_SOON)
        } else {
            LISTING_EVERY + jitter.jitter(LISTING_EVERY / 2)
        };
        self.at = Some(now + after);
        (self.given_at, self.was_put_off) = (now, false);
    }

    /// A home is lost: another one is chosen among those that live now. So many supernodes are known.
    pub(super) fn on_home_lost(&mut self, now: Instant, known: usize) {
        let stale = if known < LISTING_LEAF_MAX { LISTING_STALE } else { LONG_LISTING_STALE };
        if self.asked.is_none() && (self.was_put_off || now.since(self.given_at) >= stale) {
            self.at = self.at.map(|at| at.min(now));
        }
    }

    /// No more is asked for.
    pub(super) fn stop(&mut self) {
        self.at = None;
    }

    /// Whether it is to be asked for: of the one that [was asked](Self::asked), or if nobody is, of anybody.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.asked.take_if(|a| a.tries >= LISTING_TRIES);
        }
        is_due
    }

    /// When that is.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::home::testnet::{generators, key, s};

    fn after(listing: &Listing, since: Instant) -> u64 {
        (listing.poll_timeout().expect("asked for again") - since).as_secs()
    }

    #[test]
    fn who_is_silent_is_asked_three_times_and_then_nobody() {
        let (mut listing, mut out) = (Listing::default(), VecDeque::new());
        let id = key(1).peer_id();
        assert!(listing.is_unasked() && !listing.handle_timeout(s(1)));
        let mut now = s(1);
        for wait in [1, 2, 4] {
            listing.ask(now, id, &mut out);
            assert_eq!(after(&listing, now), wait);
            assert!(!listing.handle_timeout(now));
            now += Duration::from_secs(wait);
            assert!(listing.handle_timeout(now) && listing.poll_timeout().is_none());
        }
        assert_eq!((listing.asked(), out.len()), (None, 3));
    }

    #[test]
    fn the_first_one_is_put_off_once_and_comes_at_once_when_a_home_is_lost() {
        let (mut listing, mut random) = (Listing::default(), generators(2));
        listing.wait(s(1));
        assert!(!listing.is_unasked() && listing.handle_timeout(s(2)));
        assert!(listing.put_off(s(2), &mut random.jitter) && !listing.put_off(s(2), &mut random.jitter));
        assert!((40 * 60..=80 * 60).contains(&after(&listing, s(2))));
        listing.on_home_lost(s(3), 1);
        assert!(listing.handle_timeout(s(3)));
    }

    #[test]
    fn the_next_one_comes_sooner_after_a_short_first_one_and_at_once_for_a_lost_home() {
        let (mut listing, mut out, mut random) = (Listing::default(), VecDeque::new(), generators(1));
        let (id, other) = (key(1).peer_id(), key(2).peer_id());
        listing.ask(s(1), id, &mut out);
        listing.on_part(s(2), other, 1, &mut random.jitter);
        assert!(!listing.was_given(), "that one was not asked");
        listing.on_part(s(2), id, LISTING_LEAF_MAX - 1, &mut random.jitter);
        assert!(listing.was_given() && (45..=90).contains(&after(&listing, s(2))));
        listing.on_home_lost(s(3), 1);
        assert!(after(&listing, s(3)) > 40, "it is too new");
        listing.ask(s(100), id, &mut out);
        listing.on_part(s(101), id, 1, &mut random.jitter);
        assert!((12 * 3600..=18 * 3600).contains(&after(&listing, s(101))), "short again");
        listing.on_home_lost(s(101 + 40 * 60), LISTING_LEAF_MAX);
        assert!(!listing.handle_timeout(s(101 + 40 * 60)), "partners will do");
        listing.on_home_lost(s(101 + 40 * 60), LISTING_LEAF_MAX - 1);
        assert!(listing.handle_timeout(s(101 + 40 * 60)));
        listing.stop();
        assert!(listing.poll_timeout().is_none());
    }
}
