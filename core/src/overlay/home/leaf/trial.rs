//! Whether this leaf can be called: it has itself called by a supernode that is none of its homes.
//!
//! A home that takes a leaf and brings nobody to it, or does not put its record where that is looked for, looks like
//! any other to the leaf. So a leaf draws a stranger: a supernode that no home named, in another prefix, and gives it an
//! Init that nobody but the leaf can read ([`Message::Trial`]). The stranger looks the leaf up and asks the homes that
//! it finds to bring it. To a home it is a call like others. A home that brings it is [good](Verdict::has_brought);
//! one that does not until the stranger says that it did what it could has missed one. The word of one stranger is not
//! enough, since it may lie, too: a home that has missed [`MISSES_MAX`] by the word of several is left, and
//! not asked again for a while. Silence of the stranger says nothing.
//!
//! As long as one home is good the leaf is found, so that the next trial has time; it costs supernodes some 2 kB.

use core::net::SocketAddr;
use core::time::Duration;

use arrayvec::ArrayVec;

use super::plans::{Running, Teller, Trials, Verdict};
use super::{Homes, SURPLUS_HOLD};
use crate::identity::PeerId;
use crate::introduce::ephemeral_of;
use crate::link::{InitFixed, Macs, PeerKeys, initiate};
use crate::overlay::home::means::Means;
use crate::overlay::home::prospect::{Link, Prospect};
use crate::overlay::pack::send;
use crate::random::ChoiceRng;
use crate::time::{Instant, WallTime};
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{Message, RECORD_HOMES_MAX, Refusal};

/// After both homes stand, the record gets so long to where it is looked for, and as much again at random. The third
/// supernode that was drawn is still linked then.
const FIRST_AFTER: Duration = Duration::from_secs(5);
const _: () = assert!(FIRST_AFTER.as_secs() * 2 < SURPLUS_HOLD.as_secs());
/// The same later, when none of the homes is one that was good: by then the record is where it is looked for, which
/// takes up to ten minutes where one of two homes has changed.
const NEXT_AFTER: Duration = Duration::from_secs(720);
/// After a trial in vain the next one, by another stranger, comes after this, and as much again at random.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The same while a home is good.
const GOOD_FOR: Duration = Duration::from_secs(4 * 3600);
/// A stranger has answered by then, or will not: two lookups, and four seconds for the homes that each finds.
const OVER_AFTER: Duration = Duration::from_secs(30);
/// What a trial that a home did not bring counts,
const MISSED: u8 = 2;
/// and one that it was too busy for: anybody may have seen to that.
const BUSY: u8 = 1;
/// A home with so much against it, each by the word of somebody else than the one before, is left,
const MISSES_MAX: u8 = 2 * MISSED;
/// one that has brought some with more,
const MISSES_OF_GOOD_MAX: u8 = 3 * MISSED;
/// and for so long not asked to be one.
const LEFT_FOR: Duration = Duration::from_secs(1800);
/// Bytes where a caller says where it is: nobody reads them, but they are as many as usual.
const BODY_LEN: usize = 40;
/// One that no body begins with: whoever sends this Init elsewhere has none that is taken.
const NO_BODY: u8 = 0xff;

impl Verdict {
    fn is_useless(&self) -> bool {
        self.missed >= if self.has_brought { MISSES_OF_GOOD_MAX } else { MISSES_MAX }
    }
}

impl Homes {
    /// Both homes stand: when they are to be tried.
    pub(super) fn plan_trial(&mut self, now: Instant, jitter: &mut ChoiceRng) {
        let Trials { at, running, verdicts, .. } = &mut self.trials;
        let before = verdicts.len();
        verdicts.retain(|verdict| self.chosen.contains(&verdict.home));
        let stayed = verdicts.len();
        let is_same = stayed == before && stayed == self.chosen.len();
        if is_same && (at.is_some() || running.is_some()) {
            return;
        }
        for home in &self.chosen {
            if !verdicts.iter().any(|verdict| verdict.home == *home) {
                verdicts.push(Verdict { home: *home, has_brought: false, missed: 0, missed_by: None });
            }
        }
        // Those of the last run were tried then.
        let wait = if verdicts.iter().any(|verdict| verdict.has_brought) {
            GOOD_FOR
        } else if before == 0 && !self.is_as_it_was() && self.trials.records == 1 {
            // No other record was put that may be found.
            FIRST_AFTER
        } else if before == 0 || stayed > 0 || self.trials.in_vain == 0 {
            NEXT_AFTER
        } else {
            // Trials showed that the last ones were useless.
            self.again_after()
        };
        self.put_trial(now, wait, jitter);
    }

    /// The wait after a trial that was in vain: ever longer.
    fn again_after(&self) -> Duration {
        (AGAIN_AFTER * (1 << self.trials.in_vain.saturating_sub(1).min(10))).min(GOOD_FOR)
    }

    fn put_trial(&mut self, now: Instant, wait: Duration, jitter: &mut ChoiceRng) {
        self.trials.at = Some(now + wait + jitter.jitter(wait));
    }

    pub(super) fn on_trial_due(&mut self, now: Instant, m: &mut Means<'_>) {
        let due = |at: Instant| at <= now;
        if self.trials.running.as_ref().is_some_and(|running| due(running.until)) {
            self.end_trial(now, 0, m);
        }
        if !self.trials.at.is_some_and(due) {
            return;
        }
        self.trials.at = None;
        if !self.is_settled() || self.trials.running.is_some() {
            // Planned anew when they stand, or when that one is over.
            return;
        }
        let Some((by, _)) = self.stranger(now, self.is_sparing(), &mut m.random.peer_choice) else {
            return self.put_trial(now, NEXT_AFTER, &mut m.random.jitter);
        };
        let homes = self.chosen.clone();
        let running = Running { by, call: None, until: now + OVER_AFTER, homes, brought: ArrayVec::new() };
        self.trials.running = Some(Box::new(running));
        let Some(prospect) = self.prospects.get_mut(&by) else { return };
        self.trials.last = Some(Teller::of(&by, prospect.address));
        match prospect.link {
            Link::Up => self.send_trial(now, by, m),
            Link::Dialling => {}
            Link::Down => self.dial(now, by, m.out),
        }
    }

    /// A stranger that this leaf has talked to, and is not linked to now.
    pub(crate) fn known_stranger(&self, now: Instant, choice: &mut ChoiceRng) -> Option<(PeerId, SocketAddr)> {
        let is_down = |(peer, _): &(PeerId, SocketAddr)| self.prospects.get(peer).is_some_and(|c| c.link == Link::Down);
        self.stranger(now, true, choice).filter(is_down)
    }

    /// Somebody whom no home named, in no home's prefix, and not the one of last time; one that is linked, if there is
    /// one. Whether it is to be one that this leaf has talked to.
    fn stranger(&self, now: Instant, is_proven: bool, choice: &mut ChoiceRng) -> Option<(PeerId, SocketAddr)> {
        let is_last = |peer: &PeerId, c: &Prospect| self.trials.last == Some(Teller::of(peer, c.address));
        let fits = |(peer, c): &(&PeerId, &Prospect)| {
            let is_stranger =
                !self.chosen.contains(peer) && !c.is_named && !c.is_near_any(&self.chosen, &self.prospects);
            is_stranger && !c.is_refusing(now) && (c.is_proven || !is_proven)
        };
        let all = || self.prospects.iter().map(|(peer, c)| (peer, &**c)).filter(fits);
        // Anybody may open a link; it is of use here where this leaf wanted it.
        let worth = |(peer, c): &(&PeerId, &Prospect)| (is_last(peer, c), c.link != Link::Up || !c.is_drawn);
        let best = all().map(|one| worth(&one)).min()?;
        let equals: Vec<(PeerId, SocketAddr)> =
            all().filter(|one| worth(one) == best).map(|(peer, c)| (*peer, c.address)).collect();
        equals.get(choice.below(equals.len())).copied()
    }

    /// The stranger is linked.
    pub(super) fn send_trial(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        let Some(running) = self.trials.running.as_mut().filter(|running| running.by == peer) else { return };
        if running.call.is_some() {
            return;
        }
        let mut init = [0; DATAGRAM_LEN_MAX];
        let Some(len) = trial_init(m, &mut init) else { return };
        running.call = ephemeral_of(&init[..len]);
        running.until = now + OVER_AFTER;
        send(m.out, peer, &Message::Trial { init: &init[..len] });
    }

    /// A home brings an Init: whether it is that of our own trial.
    pub(crate) fn on_brought(&mut self, home: &PeerId, init: &[u8]) -> bool {
        let Some(running) = self.trials.running.as_mut() else { return false };
        if running.call.is_none() || running.call != ephemeral_of(init) {
            return false;
        }
        if self.chosen.contains(home) && !running.brought.contains(home) {
            let _ = running.brought.try_push(*home);
        }
        true
    }

    /// The stranger says what came of it.
    pub(crate) fn on_trial_reply(&mut self, now: Instant, from: &PeerId, refused: Option<Refusal>, m: &mut Means<'_>) {
        let is_sent = self.trials.running.as_ref().is_some_and(|running| running.by == *from && running.call.is_some());
        if is_sent {
            let against = match refused {
                Some(Refusal::Busy | Refusal::NotASupernode) => 0,
                Some(Refusal::NoAnswer) => BUSY,
                _ => MISSED,
            };
            self.end_trial(now, against, m);
            self.advance(now, m);
        }
    }

    /// The link to a supernode is gone: if it was to make a trial, it will not.
    pub(super) fn trial_is_lost(&mut self, now: Instant, peer: &PeerId, m: &mut Means<'_>) {
        if self.trials.is_by(peer) {
            self.end_trial(now, 0, m);
        }
    }

    /// A trial is over. How much it says against homes that did not bring it.
    fn end_trial(&mut self, now: Instant, against: u8, m: &mut Means<'_>) {
        let Some(running) = self.trials.running.take() else { return };
        // Of homes that have changed meanwhile, an older record may have been found.
        let are_same =
            running.homes.len() == self.chosen.len() && running.homes.iter().all(|home| self.chosen.contains(home));
        let is_told = against > 0 && are_same;
        let mut is_good = false;
        let teller = self.prospects.get(&running.by).map(|c| Teller::of(&running.by, c.address));
        for verdict in &mut self.trials.verdicts {
            if running.brought.contains(&verdict.home) {
                (verdict.has_brought, verdict.missed, verdict.missed_by) = (true, 0, None);
                is_good = true;
            } else if is_told && verdict.missed_by != teller {
                // Somebody else than last time says so.
                (verdict.missed, verdict.missed_by) = (verdict.missed.saturating_add(against), teller);
            }
        }
        self.trials.in_vain = if is_good { 0 } else { self.trials.in_vain + 1 };
        let are_sound = self.trials.verdicts.iter().all(|verdict| verdict.missed == 0);
        let wait = if is_good && are_sound { GOOD_FOR } else { self.again_after() };
        if are_same || self.trials.at.is_none() {
            self.put_trial(now, wait, &mut m.random.jitter);
        }
        if self.surplus_at.is_none() {
            self.surplus_at = Some(now + FIRST_AFTER);
        }
        let useless = self.trials.verdicts.iter().filter(|verdict| verdict.is_useless());
        let useless: ArrayVec<PeerId, RECORD_HOMES_MAX> = useless.map(|verdict| verdict.home).collect();
        for home in useless {
            self.leave_useless(now, home, m);
        }
    }

    fn leave_useless(&mut self, now: Instant, home: PeerId, m: &mut Means<'_>) {
        if let Some(prospect) = self.prospects.get_mut(&home) {
            (prospect.is_left, prospect.refused_until) = (true, Some(now + LEFT_FOR));
        }
        send(m.out, home, &Message::Deregister);
        self.give_up(now, home, m);
    }
}

/// An Init by which this leaf calls itself, as its homes bring it.
fn trial_init(m: &mut Means<'_>, out: &mut [u8]) -> Option<usize> {
    let keys = &mut m.random.keys;
    let own = PeerKeys::new(m.me.id()).ok()?;
    let fixed = InitFixed { time_us: m.wall.map_or(0, WallTime::as_micros), session: keys.u64() };
    let index = u32::from_le_bytes(keys.bytes());
    let (_, len) = initiate(m.me, &own, keys, index, fixed, &[NO_BODY; BODY_LEN], Macs::None, out).ok()?;
    Some(len)
}
