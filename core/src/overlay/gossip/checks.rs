//! What is being looked at by the [watch](super::watch), and whose turn it is.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use arrayvec::ArrayVec;

use crate::identity::PeerId;
use crate::time::{Deadlines, Instant};

/// Between two questions.
pub(super) const TICK: Duration = Duration::from_secs(2);
/// Neighbours that are asked whether they hear somebody.
pub(super) const HELPERS: usize = 3;
/// Most that are being looked at. At the limit a suspect is left alone, or nobody else is asked.
const CHECKS_MAX: usize = 64;
/// The worst that local health can be: waits are so many times as long, and once more.
pub(super) const HEALTH_MAX: u32 = 3;

/// How far a doubt has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Asked,
    AskedAgain,
    Visited,
    AskedAbout,
    Suspected,
    VisitedLast,
}

pub(super) struct Check {
    pub(super) stage: Stage,
    pub(super) due: Option<Instant>,
    /// Those whose word is asked for.
    pub(super) helpers: ArrayVec<PeerId, HELPERS>,
}

/// See [the module](self).
pub(super) struct Watch {
    pub(super) tick_at: Instant,
    pub(super) is_neighbours_turn: bool,
    pub(super) neighbour: Option<PeerId>,
    pub(super) member: Option<PeerId>,
    pub(super) checks: BTreeMap<PeerId, Check>,
    pub(super) deadlines: Deadlines<PeerId>,
    /// Whom others want to know of, who, and until when that is of use.
    pub(super) pings: BTreeMap<PeerId, (Instant, BTreeSet<PeerId>)>,
    /// Answers missed lately, less those that came.
    pub(super) health: u32,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tick_at: now + TICK,
            is_neighbours_turn: true,
            neighbour: None,
            member: None,
            checks: BTreeMap::new(),
            deadlines: Deadlines::default(),
            pings: BTreeMap::new(),
            health: 0,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.deadlines.next().map_or(self.tick_at, |at| at.min(self.tick_at))
    }

    pub(super) fn set(&mut self, peer: PeerId, stage: Stage, at: Instant) {
        if self.checks.len() >= CHECKS_MAX && !self.checks.contains_key(&peer) {
            // A suspect waits for long, and has its turn again.
            let is_suspect = |(_, check): &(&PeerId, &Check)| check.stage == Stage::Suspected;
            let Some(suspect) = self.checks.iter().find(is_suspect).map(|(suspect, _)| *suspect) else { return };
            self.drop_check(&suspect);
        }
        let check = self.checks.entry(peer).or_insert(Check { stage, due: None, helpers: ArrayVec::new() });
        check.stage = stage;
        self.deadlines.set(peer, &mut check.due, Some(at));
    }

    pub(super) fn drop_check(&mut self, peer: &PeerId) -> Option<Stage> {
        let mut check = self.checks.remove(peer)?;
        self.deadlines.set(*peer, &mut check.due, None);
        Some(check.stage)
    }

    /// Whether this one's word about a peer is waited for.
    pub(super) fn is_helper(&self, helper: &PeerId, peer: &PeerId) -> bool {
        let is_asked = |check: &Check| check.stage == Stage::AskedAbout && check.helpers.contains(helper);
        self.checks.get(peer).is_some_and(is_asked)
    }

    /// What is waited for takes so long here.
    pub(super) fn patience(&self, time: Duration) -> Duration {
        time * (1 + self.health)
    }
}
