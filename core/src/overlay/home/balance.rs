//! Whether a supernode takes one more leaf, whom it names to a leaf that looks for another one, and whom it sends there,
//! so that all are about equally full.
//!
//! What is full is judged by the [`Market`]: what this node believes of the others' room, looked at every few seconds.
//! A supernode that is fuller than most gives leaves away, slowly, and only those that have another home that they are
//! found at first. One that has become empty fills up so, too.

use core::net::SocketAddr;
use core::time::Duration;

use arrayvec::ArrayVec;

use crate::account::{Rate, RateTable, Source};
use crate::api::Serving;
use crate::identity::PeerId;
use crate::overlay::advert::{Market, MembershipTable};
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::address::Address;
use crate::wire::message::{ELSEWHERE_MAX, PARTNERS_MAX};
use crate::wire::places::{Places, taken_at};

/// Time between two looks at how full others are.
const REVIEW_EVERY: Duration = Duration::from_secs(10);
/// Time between two goes at sending leaves elsewhere.
const SHED_EVERY: Duration = Duration::from_secs(2);
/// Of those that have their second home here, so many in a thousand are sent elsewhere in one go: 3 % a minute.
const SHED_PERMILLE: u64 = 1;
/// And where there are few, one in two minutes: this part of one in one go, in thousandths.
const SHED_LEAST: u64 = 17;
/// Above so much of the mean utilisation leaves are sent elsewhere. What comes back so after half of all supernodes
/// were away ends as far below the mean as this is above it.
const TOO_FULL_PERCENT: u32 = 110;
/// Above so much of the median utilisation, a supernode that is half full takes nobody more who has a home.
const CROWDED_PERCENT: u32 = 125;
/// A difference of fewer leaves is none,
const SLACK: u32 = 4;
/// and where there are few places, of fewer than this part of them, or of one.
const SLACK_SHARE: u32 = 16;
/// Supernodes that watch this one, and are watched by it, by preference.
const PARTNERS: usize = 16;
/// Most supernodes kept at hand to be named.
const ROOMY_MAX: usize = 32;
/// From half full on, leaves of one prefix have at most this part of all places,
const PREFIX_SHARE: u32 = 16;
/// and at least so many.
const PREFIX_LEAVES_MIN: u32 = 4;
/// Registrations taken in a second, at least.
const ADMITTED_MIN: u32 = 50;
/// Of these, those of one [`Source`] take at most this part,
const ADMITTED_SHARE: u32 = 4;
/// but so many at once all the same: thirty short commands in a row are nothing unusual.
const ADMITTED_AT_ONCE: u32 = 32;
/// Most sources of which it is remembered how often newcomers came from there lately.
const NEWCOMERS_MAX: usize = 65_536;
/// Who is refused is not to ask again before this, and up to
const RETRY_MIN_S: u16 = 5;
/// this.
const RETRY_MAX_S: u16 = 60;

/// A supernode, where it is, and how many leaves it may still take, or is to.
type Roomy = (PeerId, SocketAddr, u32);

/// Supernodes that a leaf is told of.
pub(super) type Named<const N: usize> = ArrayVec<(PeerId, Address), N>;

/// A leaf that wants to be taken.
pub(super) struct Applicant {
    pub source: Source,
    /// How many are here that come from there.
    pub from_there: usize,
    pub has_other_home: bool,
}

/// What this supernode knows of the room of others, and what it does about it.
pub(super) struct Balance {
    me: PeerId,
    all: u32,
    market: Market,
    /// The nearest ones; none where all are near.
    partners: Vec<Roomy>,
    /// Those that are emptier than most, partners first.
    roomy: Vec<Roomy>,
    review_at: Instant,
    shed_at: Option<Instant>,
    /// How many leaves are to be sent elsewhere, in thousandths.
    owed: u64,
    admitted: RateTable<Source>,
    /// Since the start, as is the next.
    refused: u64,
    sent_elsewhere: u64,
}

/// Whether it is more than so many percent of another.
fn is_above(utilisation: u32, percent: u32, other: u32) -> bool {
    u64::from(utilisation) * 100 > u64::from(other) * u64::from(percent)
}

impl Balance {
    pub(super) fn new(now: Instant, me: PeerId, all: u32) -> Self {
        let burst = ADMITTED_MIN.max(all / 20);
        let of_all = Rate { interval: Duration::from_secs(1) / burst, burst };
        // Who comes and goes takes nobody's turn, under however many names.
        let of_one =
            Rate { interval: of_all.interval * ADMITTED_SHARE, burst: ADMITTED_AT_ONCE.max(burst / ADMITTED_SHARE) };
        Self {
            me,
            all,
            market: Market::default(),
            partners: Vec::new(),
            roomy: Vec::new(),
            review_at: now,
            shed_at: None,
            owed: 0,
            admitted: RateTable::new(of_one, of_all, NEWCOMERS_MAX),
            refused: 0,
            sent_elsewhere: 0,
        }
    }

    /// For the operator.
    pub(super) fn report(&self, serving: &mut Serving) {
        serving.places = self.all;
        let mean = (u64::from(self.market.mean) * 1_000_000) >> 16;
        serving.mean_utilisation_ppm = u32::try_from(mean).unwrap_or(u32::MAX);
        (serving.refused, serving.sent_elsewhere) = (self.refused, self.sent_elsewhere);
    }

    /// This supernode's room.
    pub(super) fn places(&self, taken: usize) -> Places {
        Places { taken: u32::try_from(taken).unwrap_or(u32::MAX), all: self.all }
    }

    /// Whether one more is taken beside those that are. If so it counts.
    pub(super) fn admits(&mut self, now: Instant, taken: usize, applicant: &Applicant) -> bool {
        let is_admitted = self.has_room_for(taken, applicant) && self.admitted.take(now, applicant.source);
        self.refused += u64::from(!is_admitted);
        is_admitted
    }

    fn has_room_for(&self, taken: usize, applicant: &Applicant) -> bool {
        let own = self.places(taken);
        let is_half_full = own.free() < own.taken;
        let is_crowded = self.market.known > 1 && is_above(own.utilisation(), CROWDED_PERCENT, self.market.median);
        let share = (own.all / PREFIX_SHARE).max(PREFIX_LEAVES_MIN) as usize;
        let has_share = applicant.from_there >= share;
        own.free() > 0 && !(is_half_full && (has_share || (is_crowded && applicant.has_other_home)))
    }

    /// When who is refused may ask again.
    pub(super) fn retry_after_s(jitter: &mut ChoiceRng) -> u16 {
        let spread = jitter.below(usize::from(RETRY_MAX_S - RETRY_MIN_S) + 1);
        RETRY_MIN_S + u16::try_from(spread).unwrap_or(0)
    }

    /// One leaf was sent elsewhere that was at home here.
    pub(super) fn on_sent(&mut self) {
        self.sent_elsewhere += 1;
    }

    /// Who has fewer leaves than is fair.
    pub(super) fn elsewhere(&self, choice: &mut ChoiceRng) -> Named<ELSEWHERE_MAX> {
        draw(&self.roomy, choice)
    }

    /// Who had best be the other home of a leaf whose first home this is.
    pub(super) fn partners(&self, choice: &mut ChoiceRng) -> Named<PARTNERS_MAX> {
        draw(&self.partners, choice)
    }

    /// Looks at the others, of which this node shares so many leaves with each.
    fn review<'a>(
        &mut self,
        now: Instant,
        taken: usize,
        shared: impl Iterator<Item = (&'a PeerId, u32)> + Clone,
        members: &mut MembershipTable,
        choice: &mut ChoiceRng,
    ) {
        self.market = members.review(now, self.places(taken), shared);
        let with_room = |(id, address): (PeerId, SocketAddr)| {
            // Who says nothing of its room is taken for half full.
            let free = members.places(now, &id).map_or(members.capacity(now, &id) / 2, Places::free);
            (id, address, free)
        };
        self.partners.clear();
        if members.len() > PARTNERS {
            let near = members.holders(&self.me, PARTNERS + 1).into_iter().filter(|(id, _)| *id != self.me);
            self.partners.extend(near.take(PARTNERS).map(with_room));
        }
        // By how much they are below the mean, and not by their room: it is what they are to be given.
        let mean = self.market.mean;
        let with_lack = |(id, address): (PeerId, SocketAddr)| {
            let places = members.places(now, &id).filter(|_| members.is_alive(&id))?;
            let lack = taken_at(mean, places.all).saturating_sub(places.taken);
            (places.utilisation() < mean).then_some((id, address, lack.max(1)))
        };
        let near = self.partners.iter().map(|(id, address, _)| (*id, *address));
        let mut roomy: Vec<Roomy> = near.filter_map(with_lack).collect();
        if roomy.is_empty() {
            roomy.extend(members.addresses().map(|(id, address)| (*id, address)).filter_map(with_lack));
        }
        while roomy.len() > ROOMY_MAX {
            roomy.swap_remove(choice.below(roomy.len()));
        }
        // Who says that it is empty lacks no more than twice what the middle one does: that costs nothing to say.
        let mut lacks: Vec<u32> = roomy.iter().map(|(.., lack)| *lack).collect();
        lacks.sort_unstable();
        let most = lacks.get(lacks.len().saturating_sub(1) / 2).map_or(0, |middle| middle.saturating_mul(2));
        for (.., lack) in &mut roomy {
            *lack = (*lack).min(most);
        }
        self.roomy = roomy;
    }

    /// Does what is due: looks at the others, and says how many leaves are to be sent elsewhere now, of those that have
    /// their second home here.
    pub(super) fn handle_timeout<'a>(
        &mut self,
        now: Instant,
        (taken, seconds): (usize, usize),
        shared: impl Iterator<Item = (&'a PeerId, u32)> + Clone,
        members: &mut MembershipTable,
        choice: &mut ChoiceRng,
    ) -> usize {
        self.admitted.handle_timeout(now);
        if self.review_at <= now {
            self.review(now, taken, shared, members, choice);
            self.review_at = now + REVIEW_EVERY;
        }
        if !self.is_too_full(taken) || self.roomy.is_empty() {
            (self.shed_at, self.owed) = (None, 0);
            return 0;
        }
        if self.shed_at.is_some_and(|at| at > now) {
            return 0;
        }
        self.shed_at = Some(now + SHED_EVERY);
        self.owed += (SHED_PERMILLE * seconds as u64).max(SHED_LEAST);
        let due = self.owed / 1_000;
        self.owed %= 1_000;
        usize::try_from(due).unwrap_or(usize::MAX)
    }

    fn is_too_full(&self, taken: usize) -> bool {
        let own = self.places(taken);
        let fair = taken_at(self.market.mean, own.all);
        let slack = SLACK.min((own.all / SLACK_SHARE).max(1));
        is_above(own.utilisation(), TOO_FULL_PERCENT, self.market.mean) && own.taken > fair.saturating_add(slack)
    }

    /// When something is next to be done.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.shed_at.map_or(self.review_at, |at| at.min(self.review_at))
    }
}

/// Some of these, none twice, each as likely as it has room or lacks leaves.
fn draw<const N: usize>(from: &[Roomy], choice: &mut ChoiceRng) -> Named<N> {
    let mut left: Vec<Roomy> = from.to_vec();
    let mut drawn = Named::new();
    while !drawn.is_full() {
        let Some(at) = choice.weighted(left.iter().map(|(.., free)| u64::from(*free))) else { break };
        let (id, address, _) = left.swap_remove(at);
        drawn.push((id, address.into()));
    }
    drawn
}
