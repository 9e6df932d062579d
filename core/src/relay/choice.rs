//! An end's part in choosing a relay: [`Choices`].
//!
//! The first relay of a link is the callee's home, since it was there. Once the link is up, its two ends can agree on
//! another one, inside the link. That is done where it is worth it: when the relay says that it carries no more
//! ([`Choices::on_limited`]), and when a link has been relayed for a while and this end knows a relay that is clearly
//! better. One side *offers* what it knows: its homes, its round trips to them, their load. The other adds its own
//! homes, picks (`score`), and draws a token. Both then present the token to that relay, over links of their own; it
//! opens a channel for the two (`joins`), and when the peer has answered on it that is one more path of the link. What
//! moves traffic there is the link's choice among its paths: the new one is quicker, or the old one is
//! [to be avoided](Output::Avoid).
//!
//! One link's choice *rests*, has *offered*, *joins* a relay, or *proves* a channel; each of these ends by its deadline.
//! Where both offer at the same time, the offer of the lesser id counts. A peer of an earlier release never answers.
//!
//! A link whose relay is limited ends with that reason when the two know no other relay. If the peer does not answer,
//! the limited channel is [given up](Output::Leave), so that the link is looked for by a new introduction, once.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use super::around::Around;
use super::ends::Way;
use super::known::{ASK_WAIT, Known};
use super::output::Output;
use super::score::Candidate;
use crate::api::{Event, LimitedRelay, StreamEnd};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Route;
use crate::peer::Peer;
use crate::random::KeyRng;
use crate::time::{Aged, Deadlines, Instant};
use crate::wire::address::Address;
use crate::wire::message::{ChannelLimits, Message, OfferedRelay, Refusal, RelayLimit};
use crate::wire::packet::ChannelId;

/// Most links whose relay is being chosen, or looked at. At the limit others stay with the relay that they have.
pub(super) const CHOICES_MAX: usize = 4_096;
/// Most relays whose limits are remembered. At the limit the one that is over first is forgotten.
const LIMITED_MAX: usize = 256;
/// A relayed link is looked at so long after it became that, and again each time after [`LOOK_EVERY`].
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// See [`LOOK_AFTER`].
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A choice that came to nothing, or to something, is not made again sooner.
const AGAIN: Duration = Duration::from_secs(600);
/// What is due because of a call is due after it.
const TICK: Duration = Duration::from_micros(1);
/// An offer is repeated after each of these; after the last it counts as unanswered.
const OFFER_WAITS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(300), Duration::from_millis(350)];
/// So much longer is waited where nothing presses: a relay that is left may be a slow one.
const UNHURRIED: u32 = 4;
/// A token is presented again after each of these; after the last the relay has not joined the two.
const JOIN_WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(1_500),
    Duration::from_millis(2_000),
];
/// A token is presented to a volunteer again and again: the way there has to be found first.
const VOLUNTEER_WAIT: Duration = Duration::from_secs(2);
/// How often: two ends one after the other, with as long as a birthday takes for each.
const VOLUNTEER_JOINS: usize = 24;
/// A link whose relay is limited ends after so long where a volunteer is on its way.
const VOLUNTEER_MAX: Duration = Duration::from_secs(60);
/// A new channel is tried again after each of these.
const PROVE_WAITS: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];
/// Whoever has picked none answers for so long before its own link ends.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// A link whose relay is limited ends after so long whatever is under way.
const URGENT_MAX: Duration = Duration::from_secs(10);
/// Offers because of one limit.
const ROUNDS_MAX: u8 = 3;
/// A peer is answered so many offers in [`AGAIN`].
const PICKS_MAX: u8 = 6;
/// Relays remembered that did not join the two.
const REFUSED_MAX: usize = 4;

/// A relay that both go to, where that is, and what both present there.
pub(super) type Pick = (PeerId, Option<Address>, [u8; 16]);

/// How long to wait after a token was presented so often before, to a relay that is at this address or a volunteer.
fn join_wait(address: Option<SocketAddr>, tries: usize) -> Option<Duration> {
    match address {
        Some(_) => JOIN_WAITS.get(tries).copied(),
        None => (tries < VOLUNTEER_JOINS).then_some(VOLUNTEER_WAIT),
    }
}

/// A relay, and where it is, if it has an address.
type Named = (PeerId, Option<SocketAddr>);

/// How far a choice is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing is under way.
    Resting,
    /// The peer is to answer an offer.
    Offered { tries: usize },
    /// A relay is to join the two.
    Joining { relay: PeerId, address: Option<SocketAddr>, token: [u8; 16], tries: usize },
    /// The peer is to answer on a new channel.
    Proving { relay: Named, via: PeerKey, channel: ChannelId, limits: ChannelLimits, tries: usize },
    /// The peer has been told that there is none: the link ends.
    Ending,
}

/// A limit that was met on a link's relay, for which another one is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgent {
    via: PeerKey,
    channel: ChannelId,
    end: StreamEnd,
    /// Offers made because of it.
    rounds: u8,
    /// When it was met.
    met: Instant,
    until: Instant,
}

/// The choice for one link.
#[derive(Debug)]
pub(super) struct Choice {
    stage: Stage,
    pub(super) round: u8,
    /// The round of the peer's that was answered last, with what, and how often any was.
    picked: Option<(u8, Option<Pick>)>,
    /// The round of the peer's that was heard last, answered or not.
    heard: Option<u8>,
    picks: u8,
    picks_since: Instant,
    /// The peer knows how to choose.
    speaks: bool,
    pub(super) urgent: Option<Urgent>,
    /// When a new introduction was last asked for.
    called: Option<Instant>,
    refused: ArrayVec<PeerId, REFUSED_MAX>,
    deadline: Option<Instant>,
}

/// The choices of all relayed links of this node.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    pub(super) by_link: BTreeMap<PeerKey, Choice>,
    by_token: BTreeMap<[u8; 16], PeerKey>,
    deadlines: Deadlines<PeerKey>,
    /// Which relay carries no more, for whom (for anybody), until when.
    limited: Aged<(PeerId, Option<PeerId>), (), LIMITED_MAX>,
    /// Volunteers.
    pub(super) known: Known,
}

impl Choices {
    // ---- what happens ----

    /// A link uses another path.
    pub(super) fn on_path(&mut self, now: Instant, link: PeerKey, is_direct: bool) {
        if is_direct {
            self.forget(link);
        } else if !self.by_link.contains_key(&link) && self.by_link.len() < CHOICES_MAX {
            self.set(now, link, Stage::Resting, LOOK_AFTER);
        }
    }

    /// The link is gone, or is another one.
    pub(super) fn forget(&mut self, link: PeerKey) {
        if let Some(mut choice) = self.by_link.remove(&link) {
            self.deadlines.set(link, &mut choice.deadline, None);
            if let Stage::Joining { token, .. } = choice.stage {
                self.by_token.remove(&token);
            }
        }
    }

    /// Whether nothing is known and nothing under way.
    pub(super) fn is_empty(&self) -> bool {
        self.by_link.is_empty() && self.limited.oldest().is_none()
    }

    /// The relay of a channel says that it carries no more on it.
    pub(super) fn on_limited(
        &mut self,
        now: Instant,
        (way, channel): (Way, ChannelId),
        limit: RelayLimit,
        retry_after_s: u32,
        around: &Around<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let (link, via) = (way.end, way.via);
        let (Some(peer), Some(relay)) = (around.peers.get(link), around.peers.id_of(via)) else { return };
        let (peer, is_in_use) = (peer.id(), peer.current() == Some(Route::Relayed { channel, via }));
        let until = now + Duration::from_secs(retry_after_s.into());
        self.limited.insert(until, (relay, (limit == RelayLimit::Pair).then_some(peer)), ());
        let is_known = self.by_link.get(&link).is_some_and(|c| c.urgent.is_some_and(|u| u.channel == channel));
        if is_known {
            return;
        }
        out.push_back(Output::Avoid { peer: link, via, channel });
        if !is_in_use {
            return;
        }
        let retry_after = Duration::from_secs(retry_after_s.into());
        out.push_back(Output::Event(Event::RelayLimited { peer, relay, limit, retry_after }));
        let end = StreamEnd::RelayLimited { limit, retry_after_s };
        if self.by_link.len() >= CHOICES_MAX && !self.by_link.contains_key(&link) {
            out.push_back(Output::End { peer: link, end });
            return;
        }
        let is_moving = |c: &Choice| matches!(c.stage, Stage::Joining { .. } | Stage::Proving { .. });
        if !self.by_link.get(&link).is_some_and(is_moving) {
            self.set(now, link, Stage::Resting, TICK);
        }
        if let Some(choice) = self.by_link.get_mut(&link) {
            let is_under_way = matches!(choice.stage, Stage::Joining { address: None, .. });
            let most = if is_under_way { VOLUNTEER_MAX } else { URGENT_MAX };
            choice.urgent = Some(Urgent { via, channel, end, rounds: 0, met: now, until: now + most });
        }
    }

    /// The peer offers relays.
    pub(super) fn on_offer(
        &mut self,
        now: Instant,
        link: PeerKey,
        (round, urgent, relays): (u8, bool, &[OfferedRelay]),
        around: &Around<'_>,
        keys: &mut KeyRng,
        out: &mut VecDeque<Output>,
    ) {
        let Some(peer) = around.peers.get(link).filter(|peer| peer.is_user() && peer.is_up()) else { return };
        if peer.current().is_some_and(|route| route.is_direct()) {
            // The peer will be heard there, too, in a moment.
            return;
        }
        if !self.by_link.contains_key(&link) {
            if self.by_link.len() >= CHOICES_MAX {
                return;
            }
            self.set(now, link, Stage::Resting, LOOK_EVERY);
        }
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        choice.speaks = true;
        let is_heard = choice.heard.replace(round) == Some(round);
        if matches!(choice.stage, Stage::Offered { .. }) && around.me < peer.id() {
            // The offer of the lesser one counts.
            return;
        }
        if let Some((_, pick)) = choice.picked.filter(|(picked, _)| *picked == round) {
            out.push_back(Output::Send { peer: link, message: Message::RelayPick { round, pick } });
            return;
        }
        match choice.stage {
            // It crossed ours, which counted.
            Stage::Joining { .. } if is_heard => return,
            // The peer has given that one up.
            Stage::Joining { relay, address: None, .. } => self.on_failed(now, link, (relay, None)),
            _ => {}
        }
        let candidates = self.candidates(now, link, peer, urgent, relays, around);
        if urgent && candidates.is_empty() && self.known.is_asking(now) {
            // The offer will be repeated; by then our homes will have answered.
            return;
        }
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        if now.since(choice.picks_since) >= AGAIN {
            (choice.picks, choice.picks_since) = (0, now);
        }
        choice.picks = choice.picks.saturating_add(1);
        if choice.picks > PICKS_MAX {
            return;
        }
        let pick = Self::pick(candidates, relays, around, keys);
        out.push_back(Output::Send { peer: link, message: Message::RelayPick { round, pick } });
        if let Some(choice) = self.by_link.get_mut(&link) {
            choice.picked = Some((round, pick));
            let is_urgent = choice.urgent.is_some();
            match pick {
                Some(pick) => self.join(now, link, pick, around, out),
                None if is_urgent => self.set(now, link, Stage::Ending, LAST_WORDS),
                None => {}
            }
        }
    }

    /// The peer has picked.
    pub(super) fn on_pick(
        &mut self,
        now: Instant,
        link: PeerKey,
        (round, pick): (u8, Option<Pick>),
        around: &Around<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        if !matches!(choice.stage, Stage::Offered { .. }) || choice.round != round {
            return;
        }
        choice.speaks = true;
        match (pick, choice.urgent) {
            (Some(pick), _) => {
                if self.may_be(now, &pick.0, link, around) {
                    self.join(now, link, pick, around, out);
                } else {
                    self.on_failed(now, link, (pick.0, around.address_of(&pick.0, pick.1)));
                }
            }
            (None, Some(_)) => self.set(now, link, Stage::Ending, TICK),
            (None, None) => self.set(now, link, Stage::Resting, AGAIN),
        }
    }

    /// A relay has joined the two, or has not.
    pub(super) fn on_joined(
        &mut self,
        now: Instant,
        from: PeerKey,
        (token, result): ([u8; 16], Result<(ChannelId, ChannelLimits), Refusal>),
        around: &Around<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(&link) = self.by_token.get(&token) else { return };
        let Some(choice) = self.by_link.get(&link) else { return };
        let Stage::Joining { relay, address, token: meant, .. } = choice.stage else { return };
        if token != meant || around.peers.id_of(from) != Some(relay) {
            return;
        }
        self.by_token.remove(&token);
        match result {
            Ok((channel, limits)) => {
                out.push_back(Output::Try { peer: link, via: from, channel, limits });
                let relay = (relay, address);
                self.set(now, link, Stage::Proving { relay, via: from, channel, limits, tries: 0 }, PROVE_WAITS[0]);
            }
            Err(_) => self.on_failed(now, link, (relay, address)),
        }
    }

    /// A home names volunteers, if it does: links that waited for that are looked at.
    pub(super) fn on_volunteers(&mut self, now: Instant, from: PeerKey, named: &[PeerId]) {
        for link in self.known.on_named(now, from, named) {
            if self.by_link.get(&link).is_some_and(|choice| choice.stage == Stage::Resting) {
                self.set(now, link, Stage::Resting, TICK);
            }
        }
    }

    // ---- time ----

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, around: &Around<'_>, out: &mut VecDeque<Output>) {
        while let Some(link) = self.deadlines.pop_due(now) {
            let Some(choice) = self.by_link.get_mut(&link) else { continue };
            choice.deadline = None;
            let peer = around.peers.get(link).filter(|peer| peer.is_up() && peer.is_user());
            match peer {
                Some(peer) if !peer.current().is_some_and(|route| route.is_direct()) => {
                    self.on_due(now, link, peer, around, out);
                }
                _ => self.forget(link),
            }
        }
    }

    fn on_due(&mut self, now: Instant, link: PeerKey, peer: &Peer, around: &Around<'_>, out: &mut VecDeque<Output>) {
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        if let Some(urgent) = choice.urgent {
            let limited = Route::Relayed { channel: urgent.channel, via: urgent.via };
            if peer.current().is_some_and(|route| route != limited) {
                // It goes on elsewhere. What may come to be known of that path is said by its own relay.
                choice.urgent = None;
                choice.refused.clear();
                self.set(now, link, Stage::Resting, AGAIN);
                return;
            }
            if now >= urgent.until || choice.stage == Stage::Ending {
                out.push_back(Output::End { peer: link, end: urgent.end });
                self.set(now, link, Stage::Ending, LOOK_EVERY);
                return;
            }
        }
        match choice.stage {
            Stage::Resting => self.look(now, link, peer, around, out),
            Stage::Offered { tries } => match OFFER_WAITS.get(tries + 1) {
                Some(wait) => {
                    let wait = *wait * if choice.urgent.is_some() { 1 } else { UNHURRIED };
                    self.send_offer(now, link, peer, around, out);
                    self.set(now, link, Stage::Offered { tries: tries + 1 }, wait);
                }
                None => self.on_unanswered(now, link, out),
            },
            Stage::Joining { relay, address, .. } if self.known.avoids(now, &relay) => {
                self.on_failed(now, link, (relay, address));
            }
            Stage::Joining { relay, address, token, tries } => match join_wait(address, tries + 1) {
                Some(wait) => {
                    out.push_back(Output::Join { relay, address, token });
                    self.set(now, link, Stage::Joining { relay, address, token, tries: tries + 1 }, wait);
                }
                None => self.on_failed(now, link, (relay, address)),
            },
            Stage::Proving { relay, via, channel, limits, tries } => {
                let is_proven = peer.paths().is_proven(&Route::Relayed { channel, via });
                match PROVE_WAITS.get(tries + 1).filter(|_| !is_proven) {
                    Some(wait) => {
                        out.push_back(Output::Try { peer: link, via, channel, limits });
                        self.set(now, link, Stage::Proving { relay, via, channel, limits, tries: tries + 1 }, *wait);
                    }
                    None if is_proven => self.set(now, link, Stage::Resting, AGAIN),
                    // It said that it had joined us, and carries nothing.
                    None => self.on_failed(now, link, relay),
                }
            }
            Stage::Ending => self.set(now, link, Stage::Resting, AGAIN),
        }
    }

    /// Whether another relay is worth an offer; if so it is made.
    fn look(&mut self, now: Instant, link: PeerKey, peer: &Peer, around: &Around<'_>, out: &mut VecDeque<Output>) {
        let is_urgent = self.by_link.get(&link).is_some_and(|choice| choice.urgent.is_some());
        if !is_urgent && !peer.has_streams() {
            // A link at rest is not woken for this.
            return self.set(now, link, Stage::Resting, AGAIN);
        }
        let is_better_unmeasured =
            |present: &Candidate| Candidate::unmeasured(present.relay).is_clearly_better(present);
        let would_volunteer_do = is_urgent || around.present(peer).as_ref().is_some_and(is_better_unmeasured);
        let has_home = around.homes.iter().any(|(home, _)| self.may_be(now, home, link, around));
        let is_asking = would_volunteer_do && self.known.ask(now, link, around, out);
        if is_asking && !(is_urgent && has_home) {
            return self.set(now, link, Stage::Resting, ASK_WAIT);
        }
        let is_worth = |present: Candidate| {
            let others = self.own_relays(now, around).filter(|relay| *relay != present.relay);
            let mut others = others.filter_map(|relay| around.own_view(relay, &present));
            others.any(|other| other.is_clearly_better(&present))
        };
        let knows_volunteer = self.known.iter(now).any(|relay| self.may_be(now, &relay, link, around));
        let is_worth_it =
            is_urgent || would_volunteer_do && knows_volunteer || around.present(peer).is_some_and(is_worth);
        if !is_worth_it {
            return self.set(now, link, Stage::Resting, LOOK_EVERY);
        }
        if let Some(choice) = self.by_link.get_mut(&link) {
            choice.round = choice.round.wrapping_add(1);
            choice.urgent.iter_mut().for_each(|urgent| urgent.rounds += 1);
        }
        let wait = OFFER_WAITS[0] * if is_urgent { 1 } else { UNHURRIED };
        self.send_offer(now, link, peer, around, out);
        self.set(now, link, Stage::Offered { tries: 0 }, wait);
    }

    // ---- inside ----

    fn set(&mut self, now: Instant, link: PeerKey, stage: Stage, wait: Duration) {
        let choice = self.by_link.entry(link).or_insert_with(|| Choice {
            stage,
            round: 0,
            picked: None,
            heard: None,
            picks: 0,
            picks_since: now,
            speaks: false,
            urgent: None,
            called: None,
            refused: ArrayVec::new(),
            deadline: None,
        });
        if let Stage::Joining { token, .. } = choice.stage
            && !matches!(stage, Stage::Joining { token: new, .. } if new == token)
        {
            self.by_token.remove(&token);
        }
        choice.stage = stage;
        let until = choice.urgent.filter(|_| stage != Stage::Ending).map_or(now + wait, |u| u.until.min(now + wait));
        self.deadlines.set(link, &mut choice.deadline, Some(until.max(now + TICK)));
    }

    fn join(
        &mut self,
        now: Instant,
        link: PeerKey,
        (relay, named, token): Pick,
        around: &Around<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let address = around.address_of(&relay, named);
        out.push_back(Output::Join { relay, address, token });
        if let Some(urgent) = self.by_link.get_mut(&link).and_then(|choice| choice.urgent.as_mut())
            && address.is_none()
        {
            // What there is to wait for is worth it.
            urgent.until = urgent.met + VOLUNTEER_MAX;
        }
        self.set(now, link, Stage::Joining { relay, address, token, tries: 0 }, JOIN_WAITS[0]);
        self.by_token.insert(token, link);
    }

    /// Nothing came of a relay. Where it presses, there is another round, which whoever notices first begins.
    fn on_failed(&mut self, now: Instant, link: PeerKey, (relay, address): Named) {
        if address.is_none() {
            self.known.avoid(now, relay);
        }
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        if choice.refused.is_full() {
            choice.refused.remove(0);
        }
        choice.refused.push(relay);
        match choice.urgent {
            Some(urgent) if urgent.rounds < ROUNDS_MAX => self.set(now, link, Stage::Resting, TICK),
            Some(_) => self.set(now, link, Stage::Ending, LAST_WORDS),
            None => self.set(now, link, Stage::Resting, AGAIN),
        }
    }

    /// The peer does not answer: perhaps it does not know how, or nothing of ours gets through.
    fn on_unanswered(&mut self, now: Instant, link: PeerKey, out: &mut VecDeque<Output>) {
        let Some(choice) = self.by_link.get_mut(&link) else { return };
        let has_called = choice.called.is_some_and(|at| now.since(at) < AGAIN);
        match choice.urgent {
            Some(urgent) if !has_called && !choice.speaks => {
                choice.called = Some(now);
                out.push_back(Output::Leave { peer: link, via: urgent.via, channel: urgent.channel });
                self.set(now, link, Stage::Resting, URGENT_MAX);
            }
            Some(_) => self.set(now, link, Stage::Ending, TICK),
            None => self.set(now, link, Stage::Resting, AGAIN),
        }
    }

    /// Whether a relay did not join the two, or the peer would not have it.
    pub(super) fn has_refused(&self, link: PeerKey, relay: &PeerId) -> bool {
        self.by_link.get(&link).is_some_and(|choice| choice.refused.contains(relay))
    }

    /// Why a link ends that finds no other way, if its relay is limited.
    pub(super) fn end_of(&self, link: PeerKey) -> Option<StreamEnd> {
        self.by_link.get(&link)?.urgent.map(|urgent| urgent.end)
    }

    /// The relays that are known to carry no more for this peer.
    pub(super) fn limited_for(&self, peer: &PeerId) -> Vec<PeerId> {
        let of = self.limited.keys().filter(|(_, of)| of.is_none_or(|of| of == *peer));
        of.map(|(relay, _)| *relay).collect()
    }

    /// All that carry no more for now.
    pub(super) fn limited(&self, now: Instant) -> Vec<LimitedRelay> {
        let status = |&(relay, peer): &(PeerId, Option<PeerId>)| {
            let (until, ()) = self.limited.get(&(relay, peer))?;
            (*until > now).then(|| LimitedRelay::new(relay, peer, until.since(now)))
        };
        self.limited.keys().filter_map(status).collect()
    }

    /// Whether a relay is known to carry no more for this peer.
    pub(super) fn is_limited(&self, now: Instant, relay: &PeerId, peer: &PeerId) -> bool {
        [None, Some(*peer)].iter().any(|of| self.limited.get(&(*relay, *of)).is_some_and(|(until, ())| *until > now))
    }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
