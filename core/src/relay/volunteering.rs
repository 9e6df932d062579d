//! A leaf's part of volunteering: it relays for strangers although it has no public address.
//!
//! A router that maps endpoint-independently can be punched from inside towards anybody whom it would be punched towards
//! for a call; behind any other one a leaf does not volunteer. The leaf tells each of its homes that it does, again
//! until the home has answered, and that it does no longer. The strangers that come through its homes are *guests*:
//! their links are legs of channels and nothing else, few in all and fewer of a prefix, and end when they are the legs
//! of none for a minute.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use super::output::Output;
use crate::api::Event;
use crate::net::{DropReason, PeerKey};
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::message::{Message, RECORD_HOMES_MAX, Refusal, Whereabouts};
use crate::wire::nat::{MappingBehavior, NatProfile};

/// Most guests at a time. At the limit further ones are refused as busy.
const GUESTS_MAX: usize = 32;
/// Most that say they are of one prefix. At the limit further ones are refused as busy.
const GUESTS_OF_PREFIX_MAX: usize = 4;
/// What a home has not answered is said again after this, doubling.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// How often it is said to a home that does not answer: one of an earlier release does not know the word.
const SAYS_MAX: u8 = 4;
/// A home that refused is told again after this.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// How often a leaf looks whether it can relay, and whether its homes know.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The same while it cannot: its router may not have been examined yet.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// What a home was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    home: PeerKey,
    on: bool,
    says: u8,
    /// When it is told again; never, once it has answered.
    again: Option<Instant>,
}

/// The guests of a leaf that volunteers, and what its homes know of it.
#[derive(Debug)]
pub(super) struct Volunteering {
    is_on: bool,
    is_serving: bool,
    told: ArrayVec<Told, RECORD_HOMES_MAX>,
    guests: BTreeMap<PeerKey, Option<Prefix>>,
    look_at: Instant,
}

/// Whether a leaf behind such a router can relay for strangers.
pub(super) fn can_relay(profile: &NatProfile) -> bool {
    profile.mapping == Some(MappingBehavior::EndpointIndependent) && !profile.udp_blocked
}

impl Volunteering {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_on: false,
            is_serving: false,
            told: ArrayVec::new(),
            guests: BTreeMap::new(),
            look_at: now + LOOK_SOON,
        }
    }

    /// Whether this leaf relays for strangers now.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether this node serves as a supernode, so that it need not volunteer.
    pub(super) fn is_serving(&self) -> bool {
        self.is_serving
    }

    /// It serves from now on, or does no longer: whether that is a change.
    pub(super) fn set_serving(&mut self, now: Instant, serving: bool) -> bool {
        self.look_at = now + LOOK_SOON;
        core::mem::replace(&mut self.is_serving, serving) != serving
    }

    /// How many guests there are.
    pub(super) fn guests(&self) -> usize {
        self.guests.len()
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.look_at
    }

    /// Looks whether it can relay, now that it knows itself so well, and tells these homes.
    pub(super) fn look(&mut self, now: Instant, can: bool, homes: &[PeerKey], out: &mut VecDeque<Output>) {
        if core::mem::replace(&mut self.is_on, can) != can {
            out.push_back(Output::Event(Event::Volunteering { on: can }));
        }
        self.told.retain(|told| homes.contains(&told.home));
        for home in homes {
            if !self.told.is_full() && !self.told.iter().any(|told| told.home == *home) {
                // That it does not relay need not be said to one that was never told otherwise.
                self.told.push(Told { home: *home, on: false, says: 0, again: None });
            }
        }
        for told in &mut self.told {
            if told.on != can {
                (told.on, told.says, told.again) = (can, 0, Some(now));
            }
            if told.again.is_some_and(|at| at <= now) {
                told.says += 1;
                told.again = (told.says < SAYS_MAX).then(|| now + SAY_AGAIN * (1 << told.says));
                out.push_back(Output::Send { peer: told.home, message: Message::Volunteer { on: can } });
            }
        }
        let next = now + if can { LOOK_EVERY } else { LOOK_SOON };
        self.look_at = self.told.iter().filter_map(|told| told.again).fold(next, Instant::min);
    }

    /// A home has answered.
    pub(super) fn on_reply(&mut self, now: Instant, home: PeerKey, refused: Option<Refusal>) {
        if let Some(told) = self.told.iter_mut().find(|told| told.home == home) {
            (told.says, told.again) = (0, refused.map(|_| now + REFUSED_FOR));
        }
    }

    /// The link to a home is another one: it may have forgotten.
    pub(super) fn on_replaced(&mut self, now: Instant, home: PeerKey) {
        let before = self.told.len();
        self.told.retain(|told| told.home != home);
        if self.told.len() < before {
            self.look_at = now + SAY_AGAIN;
        }
    }

    /// A stranger wants its link to be a leg. Where it says that it is decides whose place it takes: it can have no
    /// channel from elsewhere.
    pub(super) fn take_guest(&mut self, link: PeerKey, whereabouts: &Whereabouts) -> Result<(), DropReason> {
        if !self.is_on {
            return Err(DropReason::Unauthentic);
        }
        if self.guests.contains_key(&link) {
            return Ok(());
        }
        let prefix = whereabouts.candidates.first().map(|candidate| {
            let at: core::net::SocketAddr = candidate.address.into();
            Prefix::of(at.ip())
        });
        let of_prefix = self.guests.values().filter(|other| **other == prefix).count();
        if self.guests.len() >= GUESTS_MAX || of_prefix >= GUESTS_OF_PREFIX_MAX {
            return Err(DropReason::Quota);
        }
        self.guests.insert(link, prefix);
        Ok(())
    }

    /// A guest's link is gone.
    pub(super) fn forget(&mut self, link: PeerKey) {
        self.guests.remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::{Candidate, CandidateKind};

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn key(n: u32) -> PeerKey {
        PeerKey { index: n, generation: 1 }
    }

    /// What is said at a look: to whom, and whether it volunteers.
    fn said(v: &mut Volunteering, s: u64, can: bool, homes: &[PeerKey]) -> Vec<(PeerKey, bool)> {
        let mut out = VecDeque::new();
        v.look(at(s), can, homes, &mut out);
        assert!(v.poll_timeout() > at(s), "a timer does not advance");
        let said = out.into_iter().filter_map(|output| match output {
            Output::Send { peer, message: Message::Volunteer { on } } => Some((peer, on)),
            _ => None,
        });
        said.collect()
    }

    #[test]
    fn homes_are_told_until_they_answer_and_again_when_it_changes() {
        let (mut v, homes) = (Volunteering::new(at(0)), [key(1), key(2)]);
        assert_eq!(said(&mut v, 5, false, &homes), [], "it never said that it would");
        assert_eq!(said(&mut v, 10, true, &homes), [(key(1), true), (key(2), true)]);
        v.on_reply(at(10), key(1), None);
        assert_eq!(v.poll_timeout(), at(12));
        assert_eq!(said(&mut v, 12, true, &homes), [(key(2), true)]);
        assert_eq!(said(&mut v, 16, true, &homes), [(key(2), true)]);
        assert_eq!(said(&mut v, 24, true, &homes), [(key(2), true)]);
        assert_eq!(said(&mut v, 60, true, &homes), [], "it does not know the word");
        v.on_replaced(at(70), key(1));
        assert_eq!(said(&mut v, 71, true, &homes), [(key(1), true)], "it may have forgotten");
        v.on_reply(at(71), key(1), Some(Refusal::Busy));
        assert_eq!(said(&mut v, 100, true, &homes), []);
        assert_eq!(said(&mut v, 671, true, &homes), [(key(1), true)]);
        assert_eq!(said(&mut v, 700, false, &homes), [(key(2), false), (key(1), false)]);
        assert_eq!(said(&mut v, 700, false, &[key(3)]), []);
    }

    fn from(a: u8, b: u8) -> Whereabouts {
        let address = core::net::SocketAddr::from(([198, a, b, 1], 7)).into();
        let candidates = [Candidate { kind: CandidateKind::ServerReflexive, address }].into_iter().collect();
        Whereabouts { candidates, ..Whereabouts::default() }
    }

    #[test]
    fn guests_are_few_and_fewer_of_a_prefix_and_none_where_it_does_not_volunteer() {
        let mut v = Volunteering::new(at(0));
        assert_eq!(v.take_guest(key(1), &from(0, 1)), Err(DropReason::Unauthentic));
        said(&mut v, 5, true, &[]);
        for n in 0..10 {
            let taken = v.take_guest(key(n), &from(0, 1));
            assert_eq!(taken.is_ok(), (n as usize) < GUESTS_OF_PREFIX_MAX, "{n}");
        }
        assert_eq!(v.take_guest(key(0), &from(0, 1)), Ok(()), "it is one already");
        for n in 10..100 {
            let taken = v.take_guest(key(n), &from(1, n as u8));
            assert_eq!(taken, if n < 38 { Ok(()) } else { Err(DropReason::Quota) }, "{n}");
        }
        assert_eq!(v.guests(), GUESTS_MAX);
        v.forget(key(0));
        assert_eq!(v.take_guest(key(200), &from(0, 1)), Ok(()));
        assert_eq!(v.take_guest(key(201), &Whereabouts::default()), Err(DropReason::Quota));
    }

    #[test]
    fn whose_mapping_depends_on_the_destination_or_is_not_known_cannot_relay() {
        let profile = |mapping, udp_blocked| NatProfile { mapping, udp_blocked, ..NatProfile::default() };
        let independent = Some(MappingBehavior::EndpointIndependent);
        assert!(can_relay(&profile(independent, false)) && !can_relay(&profile(independent, true)));
        for mapping in [None, Some(MappingBehavior::AddressDependent), Some(MappingBehavior::AddressAndPortDependent)] {
            assert!(!can_relay(&profile(mapping, false)));
        }
    }
}
