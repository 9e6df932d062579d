//! Trial calls, by which a leaf learns whether it can be called: what a supernode makes of one
//! ([`Trials`](super::home::Trials)), and what a leaf makes of the Init that its homes bring.

use core::net::IpAddr;

use super::messages::holders;
use super::output::Location;
use super::pack::send;
use super::state::{Acting, Overlay};
use crate::account::Source;
use crate::identity::PeerId;
use crate::introduce::LookupFailure;
use crate::overlay::directory::{LookupStart, Whom};
use crate::time::Instant;
use crate::wire::message::{Message, Refusal};

impl Overlay {
    /// A leaf wants to be called.
    pub(super) fn on_trial(&mut self, now: Instant, (leaf, ip): (PeerId, Option<IpAddr>), init: &[u8]) {
        let Acting::Supernode(s) = &mut self.acting else {
            return send(&mut self.out, leaf, &Message::TrialReply { refused: Some(Refusal::NotASupernode) });
        };
        if s.trials.contains(&leaf) {
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
    pub(super) fn on_trial_located(&mut self, now: Instant, leaf: PeerId, location: &Location) {
        let Self { acting, out, me, .. } = self;
        let Acting::Supernode(s) = acting else { return };
        match location {
            Ok(homes) => {
                let others = homes.iter().copied().filter(|(home, _)| *home != me.id());
                s.trials.on_homes(now, leaf, others, out);
            }
            Err(LookupFailure::Unknown) => s.trials.on_homes(now, leaf, core::iter::empty(), out),
            Err(_) => s.trials.on_no_answer(leaf, out),
        }
        self.look_again(now);
    }

    /// A home refused an introduction that this node asked for: whether that was for a trial.
    pub(crate) fn on_trial_answer(&mut self, now: Instant, home: &PeerId, leaf: &PeerId, refusal: Refusal) -> bool {
        let Self { acting, out, .. } = self;
        let is_trial = match acting {
            Acting::Supernode(s) => s.trials.on_answer(now, home, leaf, refusal, out),
            Acting::Leaf(_) => false,
        };
        self.look_again(now);
        is_trial
    }

    /// Looks for the newest record of those whose record did not help.
    pub(super) fn look_again(&mut self, now: Instant) {
        while let Acting::Supernode(s) = &mut self.acting
            && let Some(leaf) = s.trials.poll_again()
        {
            let whom = Whom::AllHolders(holders(&self.members, self.me.id(), &leaf));
            self.lookups.is_seeking = self.members.is_partial();
            match self.lookups.start_newest(now, leaf, &whom, &mut self.out) {
                LookupStart::Pending => {}
                _ => s.trials.on_no_answer(leaf, &mut self.out),
            }
        }
    }

    /// The stranger says what came of our trial.
    pub(super) fn on_trial_reply(&mut self, now: Instant, from: &PeerId, refused: Option<Refusal>) {
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_trial_reply(now, from, refused, &mut m);
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
