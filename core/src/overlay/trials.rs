//! Calls made to see whether a leaf can be called: what a supernode does for a leaf of others that asks for it.
//!
//! The leaf gives an Init that only it can read ([`Message::Trial`]). It is looked up, and the homes that are found are
//! asked in turn to bring it, as by any caller ([`HOME_WAITS`]). A leaf that gets it refuses it, and by that refusal the
//! home is known to have brought it. When one did, or none, the leaf is told.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::output::{Location, Output};
use super::pack::{Packer, send};
use super::state::{Acting, Overlay};
use crate::account::{Rate, RateTable, Source};
use crate::identity::PeerId;
use crate::time::{Deadlines, Instant};
use crate::wire::message::{Message, Refusal};

/// Trials made for one prefix, where many may share an address,
const TRIALS_OF_ONE: Rate = Rate { interval: Duration::from_secs(1), burst: 16 };
/// and for all: each costs up to eight questions, and four Inits that are brought.
const TRIALS: Rate = Rate { interval: Duration::from_millis(100), burst: 64 };
/// Most prefixes, and peers where these do not count, whose rate is kept.
const TRIERS_MAX: usize = 1_024;
/// Most at a time; beyond, they are refused.
const TRIALS_MAX: usize = 256;
/// Longest Init that is taken: any that a home brings.
const INIT_MAX: usize = 512;
/// A lookup is over by then.
const LOOKUP_MAX: Duration = Duration::from_secs(8);
/// A home has so long for each of the two times that it is asked.
const HOME_WAITS: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(2_500)];

struct Trial {
    init: Box<[u8]>,
    /// Those that were not asked yet; none as long as they are looked for.
    homes: Option<VecDeque<(PeerId, SocketAddr)>>,
    /// Who is asked, and how often it was.
    asked: Option<(PeerId, SocketAddr, usize)>,
    deadline: Option<Instant>,
}

/// All that are under way, by the leaf that is called.
pub(super) struct Trials {
    by_leaf: BTreeMap<PeerId, Box<Trial>>,
    deadlines: Deadlines<PeerId>,
    taken: RateTable<Source>,
}

impl Trials {
    pub(super) fn new() -> Self {
        Self {
            by_leaf: BTreeMap::new(),
            deadlines: Deadlines::default(),
            taken: RateTable::new(TRIALS_OF_ONE, TRIALS, TRIERS_MAX),
        }
    }

    /// Begins one, unless that would be too much.
    fn begin(&mut self, now: Instant, leaf: PeerId, by: Source, init: &[u8]) -> Result<(), Refusal> {
        let has_room = self.by_leaf.len() < TRIALS_MAX && init.len() <= INIT_MAX;
        if !has_room || !self.taken.take(now, by) {
            return Err(Refusal::Busy);
        }
        let mut trial = Trial { init: init.into(), homes: None, asked: None, deadline: None };
        self.deadlines.set(leaf, &mut trial.deadline, Some(now + LOOKUP_MAX));
        self.by_leaf.insert(leaf, Box::new(trial));
        Ok(())
    }

    /// The leaf is at home there, or nobody knows where.
    fn on_homes(
        &mut self,
        now: Instant,
        leaf: PeerId,
        homes: impl Iterator<Item = (PeerId, SocketAddr)>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(trial) = self.by_leaf.get_mut(&leaf).filter(|trial| trial.homes.is_none()) else { return };
        trial.homes = Some(homes.collect());
        self.ask_next(now, leaf, out);
    }

    fn ask_next(&mut self, now: Instant, leaf: PeerId, out: &mut VecDeque<Output>) {
        let Some(trial) = self.by_leaf.get_mut(&leaf) else { return };
        match trial.homes.as_mut().and_then(VecDeque::pop_front) {
            Some((home, address)) => {
                trial.asked = Some((home, address, 0));
                self.ask(now, leaf, out);
            }
            None => self.end(leaf, Some(Refusal::NotRegistered), out),
        }
    }

    /// Asks the home whose turn it is, or the next one where that has had its time.
    fn ask(&mut self, now: Instant, leaf: PeerId, out: &mut VecDeque<Output>) {
        let Some(trial) = self.by_leaf.get_mut(&leaf) else { return };
        let Some((home, address, times)) = &mut trial.asked else { return self.ask_next(now, leaf, out) };
        let Some(wait) = HOME_WAITS.get(*times) else { return self.ask_next(now, leaf, out) };
        *times += 1;
        Packer::dialling(*home, *address, out).push(&Message::Introduce { peer: leaf, init: &trial.init });
        self.deadlines.set(leaf, &mut trial.deadline, Some(now + *wait));
    }

    /// A home says what the leaf made of it. Whether that is about a trial.
    fn on_answer(
        &mut self,
        now: Instant,
        home: &PeerId,
        leaf: &PeerId,
        refusal: Refusal,
        out: &mut VecDeque<Output>,
    ) -> bool {
        let asked = self.by_leaf.get(leaf).and_then(|trial| trial.asked);
        if !asked.is_some_and(|(asked, ..)| asked == *home) {
            return false;
        }
        match refusal {
            // The leaf's own word.
            Refusal::NotAllowed => self.end(*leaf, None, out),
            _ => self.ask_next(now, *leaf, out),
        }
        true
    }

    fn end(&mut self, leaf: PeerId, refused: Option<Refusal>, out: &mut VecDeque<Output>) {
        let Some(mut trial) = self.by_leaf.remove(&leaf) else { return };
        self.deadlines.set(leaf, &mut trial.deadline, None);
        send(out, leaf, &Message::TrialReply { refused });
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        while let Some(leaf) = self.deadlines.pop_due(now) {
            if let Some(trial) = self.by_leaf.get_mut(&leaf) {
                trial.deadline = None;
            }
            self.ask(now, leaf, out);
        }
        self.taken.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

impl Overlay {
    /// A leaf wants to be called.
    pub(super) fn on_trial(&mut self, now: Instant, (leaf, ip): (PeerId, Option<IpAddr>), init: &[u8]) {
        let Acting::Supernode(s) = &mut self.acting else {
            return send(&mut self.out, leaf, &Message::TrialReply { refused: Some(Refusal::NotASupernode) });
        };
        if s.trials.by_leaf.contains_key(&leaf) {
            return;
        }
        // A home of its own is no stranger, and has nobody to ask.
        let is_home = s.registrations.contains(&leaf);
        let begun = if is_home { Err(Refusal::Busy) } else { s.trials.begin(now, leaf, Source::of(leaf, ip), init) };
        if let Err(refusal) = begun {
            return send(&mut self.out, leaf, &Message::TrialReply { refused: Some(refusal) });
        }
        let homes = self.homes_of(&leaf);
        let location = if homes.is_empty() { self.start_lookup(now, leaf) } else { Some(Ok(homes)) };
        if let Some(location) = location {
            self.on_trial_located(now, leaf, &location);
        }
    }

    /// A lookup of this node's has ended: perhaps it was for a trial.
    pub(crate) fn on_trial_located(&mut self, now: Instant, leaf: PeerId, location: &Location) {
        let Self { acting, out, me, .. } = self;
        let Acting::Supernode(s) = acting else { return };
        let homes = location.iter().flatten().copied().filter(|(home, _)| *home != me.id());
        s.trials.on_homes(now, leaf, homes, out);
    }

    /// A home refused an introduction that this node asked for: whether that was for a trial.
    pub(crate) fn on_trial_answer(&mut self, now: Instant, home: &PeerId, leaf: &PeerId, refusal: Refusal) -> bool {
        let Self { acting, out, .. } = self;
        match acting {
            Acting::Supernode(s) => s.trials.on_answer(now, home, leaf, refusal, out),
            Acting::Leaf(_) => false,
        }
    }

    /// A home brings an Init: whether it is that of this leaf's own trial.
    pub(crate) fn on_brought(&mut self, home: &PeerId, init: &[u8]) -> bool {
        match &mut self.acting {
            Acting::Leaf(homes) => homes.on_brought(home, init),
            Acting::Supernode(_) => false,
        }
    }
}
