//! The leaf's side: finding two homes and keeping them.
//!
//! Prospects come from the user, from an earlier run and from adverts. A few are linked, asked for their load, and
//! the best two become homes: each gets a [`Message::Register`] with the record that names both. The life of a
//! prospect is in [`prospect`](super::prospect); the room's own is one question, asked after everything that
//! happens ([`Homes::advance`]): are there two homes, and if not, what is the next step? Steps are: choose among those
//! linked, draw others, and, when all have failed, wait, ever longer, and begin another sweep.
//!
//! Two random choices: of all prospects a few are drawn, and of those that answer the less loaded are taken, so that
//! leaves do not all run to the one that was idle a minute ago, nor all to the few that everybody is told of. Whom
//! the user named is therefore asked for adverts first, and only when these have come ([`Homes::on_listed`]) are
//! those drawn among whom homes are chosen; where that takes longer than [`SETTLE`], the first best must do. Homes of
//! an earlier run are taken again without a draw.

mod drawing;
mod moving;
mod partners;
mod plans;
mod questions;
mod trial;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use arrayvec::ArrayVec;

use self::plans::{Moving, Partners, Trials};

use super::anchors::{ANCHORS_MAX, Anchors};
use super::listing::Listing;
use super::means::Means;
use super::prospect::{Link, Prospect, Prospects, Question};
use super::sweep::Sweep;
use crate::account::Source;
use crate::api::Event;
use crate::identity::PeerId;
use crate::overlay::advert::Found;
use crate::overlay::advert::statement::subject;
use crate::overlay::directory::{RECORD_LIFETIME_MAX, Record};
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::time::{Deadlines, Instant, WallTime, earliest};
use crate::wire::address::{Address, Range};
use crate::wire::message::{Load, Message, RECORD_HOMES_MAX, Refusal};
use crate::wire::places::{Places, Room, level};

/// Most prospects remembered; at the limit one that never worked and that nobody told us to join makes room.
const PROSPECTS_MAX: usize = 64;
/// Prospects drawn while homes are being chosen: two to become homes and one to compare with, and to be seen by.
pub(crate) const DRAWN_MAX: usize = 3;
/// The same for a node that may serve others, where those that nothing was sent to are to be its witnesses.
pub(crate) const DRAWN_AUTO_MAX: usize = 2;
/// Who is dialled and has not answered by then is slow, dead perhaps, and another one is dialled beside it: where half of
/// all are dead, three that are dialled together are so every eighth time.
const DIAL_SLOW: Duration = Duration::from_secs(1);
/// With those that are slow, so many times as many may be drawn. Where all take their time, all are busy, and more dials
/// would not make it better.
const SLOW_TIMES: usize = 3;
/// So many supernodes in all are few: whoever draws sparingly draws none of them twice.
const FEW: usize = DRAWN_AUTO_MAX + 3;
/// How long the first to answer waits for adverts, and then those that answer for the others that were drawn: a round
/// trip for a link and one for a question over it, halfway round the world.
const SETTLE: Duration = Duration::from_millis(500);
/// The third link lives on so long after both homes stand: dial-back and mapping tests need it.
const SURPLUS_HOLD: Duration = Duration::from_secs(15);
/// A supernode that refused is asked again after this, and as much again at random.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Who is asked whether it lives when it is sent a new record has so long for that.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// A record is made anew after this, and half as much again at random.
const RENEW_AFTER: Duration = Duration::from_secs(4 * 3600);
// Two renewals may fail.
const _: () = assert!(RENEW_AFTER.as_secs() * 3 <= RECORD_LIFETIME_MAX.as_secs());

/// A leaf's homes: the prospects, those chosen of them, and the signed record that names these.
pub(crate) struct Homes {
    me: PeerId,
    drawn_max: usize,
    prospects: Prospects,
    deadlines: Deadlines<PeerId>,
    /// Those that are homes or have been asked to be, best first.
    chosen: ArrayVec<PeerId, RECORD_HOMES_MAX>,
    /// The signed record that names the chosen ones.
    record: Box<[u8]>,
    renew_at: Option<Instant>,
    settle_at: Option<Instant>,
    surplus_at: Option<Instant>,
    sweep: Sweep,
    listing: Listing,
    /// Adverts have come, or were waited for in vain: homes may be drawn among all.
    is_listed: bool,
    anchors: Anchors,
    partners: Partners,
    moving: Moving,
    trials: Trials,
    is_ready: bool,
    is_leaving: bool,
}

impl Homes {
    /// The room of the leaf `me`, which draws so many prospects ([`DRAWN_MAX`]). Nothing happens before
    /// [`join`](Self::join).
    pub(crate) fn new(me: PeerId, drawn_max: usize) -> Self {
        Self {
            me,
            drawn_max,
            prospects: Prospects::new(),
            deadlines: Deadlines::default(),
            chosen: ArrayVec::new(),
            record: Box::default(),
            renew_at: None,
            settle_at: None,
            surplus_at: None,
            sweep: Sweep::default(),
            listing: Listing::default(),
            is_listed: false,
            anchors: Anchors::default(),
            partners: Partners::default(),
            moving: Moving::default(),
            trials: Trials::default(),
            is_ready: false,
            is_leaving: false,
        }
    }

    /// What an earlier run kept: its homes first, then others that it knew to work.
    pub(crate) fn rejoin(&mut self, now: Instant, anchors: &[(PeerId, SocketAddr)], m: &mut Means<'_>) {
        for (i, (peer, address)) in anchors.iter().enumerate() {
            self.learn(*peer, *address, true);
            if let Some(prospect) = self.prospects.get_mut(peer) {
                prospect.was_home |= i < RECORD_HOMES_MAX;
            }
        }
        self.advance(now, m);
    }

    /// Supernodes that the user named.
    pub(crate) fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)], m: &mut Means<'_>) {
        for (peer, address) in known {
            self.learn(*peer, *address, true);
        }
        self.advance(now, m);
    }

    /// Supernodes that others name: tried when nothing better is known, forgotten first.
    pub(crate) fn hear_of(&mut self, now: Instant, known: &[(PeerId, SocketAddr)], m: &mut Means<'_>) {
        for (peer, address) in known {
            self.learn(*peer, *address, false);
        }
        self.advance(now, m);
    }

    /// The host's network is another one: who did not answer before may do so now, and there is no reason to wait.
    pub(crate) fn on_network(&mut self, now: Instant, m: &mut Means<'_>) {
        self.sweep = Sweep::default();
        for prospect in self.prospects.values_mut().filter(|c| c.link == Link::Down) {
            prospect.is_tried = false;
        }
        self.advance(now, m);
    }

    /// Supernodes that another one names in passing: whoever is known stays where it is known to be, and private
    /// addresses mean something only where they are said.
    fn learn_by_the_way(&mut self, ip: Option<IpAddr>, named: &[(PeerId, Address)]) {
        for (peer, address) in named {
            let address = SocketAddr::from(*address);
            if !self.prospects.contains_key(peer) && Range::is_heard_right(address.ip(), ip) {
                self.learn(*peer, address, false);
                if let Some(prospect) = self.prospects.get_mut(peer) {
                    prospect.is_named = true;
                }
            }
        }
    }

    fn learn(&mut self, peer: PeerId, address: SocketAddr, is_joined: bool) {
        if peer == self.me {
            return;
        }
        if let Some(prospect) = self.prospects.get_mut(&peer) {
            if prospect.address != address && prospect.link == Link::Down {
                prospect.address = address;
                prospect.is_tried = false;
            }
            prospect.is_joined |= is_joined;
            prospect.is_named &= !is_joined;
            return;
        }
        if self.prospects.len() >= PROSPECTS_MAX {
            let useless = |c: &Prospect| c.link == Link::Down && !c.is_joined && !c.is_proven;
            let Some(useless) = self.prospects.iter().find(|(_, c)| useless(c)).map(|(peer, _)| *peer) else { return };
            // It has no deadline: questions are asked of linked ones only.
            self.prospects.remove(&useless);
        }
        self.prospects.insert(peer, Box::new(Prospect::new(address, is_joined)));
    }

    /// The homes at which this leaf is registered now, best first.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        let registered =
            |peer: &PeerId| self.prospects.get(peer).filter(|c| c.is_registered).map(|c| (*peer, c.address));
        self.chosen.iter().filter_map(registered)
    }

    /// Linked supernodes: homes first, then others; whom to ask for a record.
    pub(crate) fn linked(&self) -> impl Iterator<Item = PeerId> {
        let rest = self.prospects.iter().filter(|(peer, c)| c.link == Link::Up && !self.chosen.contains(peer));
        self.registered().map(|(peer, _)| peer).chain(rest.map(|(peer, _)| *peer))
    }

    /// All supernodes known, and whether the user or an earlier run named them.
    pub(crate) fn known(&self) -> impl Iterator<Item = (PeerId, SocketAddr, bool)> {
        self.prospects.iter().map(|(peer, c)| (*peer, c.address, c.is_joined))
    }

    /// Whether a listing of adverts has come.
    pub(crate) fn had_listing(&self) -> bool {
        self.listing.was_given() && self.is_listed
    }

    /// Whether any supernode is known at all.
    pub(crate) fn is_lost(&self) -> bool {
        self.prospects.is_empty()
    }

    /// Whether a prospect is at this address, as the user says or as this leaf found in this run.
    pub(crate) fn is_at(&self, peer: &PeerId, address: SocketAddr) -> bool {
        self.prospects.get(peer).is_some_and(|c| c.address == address && (c.is_joined || c.is_proven))
    }

    /// Whether the link to `peer` is wanted here.
    pub(crate) fn needs(&self, peer: &PeerId) -> bool {
        !self.is_leaving && self.prospects.get(peer).is_some_and(|c| c.link != Link::Down)
    }

    /// A link is up. If it is to a prospect, it is asked for its load.
    pub(crate) fn on_link_up(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        let Some(prospect) = self.prospects.get_mut(&peer) else { return };
        // A link that was opened for something else is used while it is useful.
        prospect.link = Link::Up;
        prospect.is_proven = true;
        (prospect.is_tried, prospect.is_silent) = (true, false);
        let was_home = prospect.was_home;
        // With both homes at hand there is nothing to choose: the link is somebody else's.
        if !self.chosen.contains(&peer) && self.chosen.len() < RECORD_HOMES_MAX {
            self.ask(now, peer, Question::Load, m.out);
            if self.settle_at.is_none() {
                self.settle_at = Some(now + SETTLE);
            }
        }
        if self.listing.is_unasked() {
            let is_expected = |c: &Prospect| c.was_home && c.link == Link::Dialling;
            if was_home && self.prospects.values().any(|c| is_expected(c)) {
                self.listing.wait(now);
            } else {
                self.listing.ask(now, peer, m.out);
            }
        }
        self.send_trial(now, peer, m);
        self.arrive(now, peer, m);
        self.advance(now, m);
    }

    /// A link ended, or could not be opened.
    pub(crate) fn on_link_down(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        let Some(prospect) = self.prospects.get_mut(&peer) else { return };
        if prospect.link == Link::Down {
            return;
        }
        prospect.link = Link::Down;
        prospect.is_tried = true;
        (prospect.is_drawn, prospect.was_home) = (false, false);
        self.drop_question(&peer);
        self.trial_is_lost(now, &peer, m);
        if self.stays(now, &peer, m) {
            return;
        }
        self.unchoose(now, &peer, m);
        self.advance(now, m);
    }

    /// This node gives up on a prospect whose link may still stand.
    fn give_up(&mut self, now: Instant, peer: PeerId, m: &mut Means<'_>) {
        m.out.push_back(Output::Release { peer });
        self.on_link_down(now, peer, m);
    }

    /// Takes a home off the list; the one that remains is told by a new record.
    fn unchoose(&mut self, now: Instant, peer: &PeerId, m: &mut Means<'_>) {
        if let Some(prospect) = self.prospects.get_mut(peer) {
            prospect.is_registered = false;
        }
        self.call_off(peer);
        let before = self.chosen.len();
        self.chosen.retain(|chosen| chosen != peer);
        if self.chosen.len() == before {
            return;
        }
        self.listing.on_home_lost(now, m.members.len());
        if self.is_ready && self.registered().next().is_none() {
            self.is_ready = false;
            m.out.push_back(Output::Event(Event::Homeless));
        }
        self.register(now, m);
        // Its partners come first, and it names them with its load.
        if let [only] = *self.chosen.as_slice()
            && self.prospects.get(&only).is_some_and(|c| c.is_registered)
        {
            send(m.out, only, &Message::LoadRequest);
        }
    }

    /// A supernode told its load. `rtt` is what the node measured on that link, if it has; how much room there is follows
    /// where it `tells_room`.
    pub(crate) fn on_load_reply(
        &mut self,
        now: Instant,
        from: PeerId,
        load: Load,
        (rtt, tells_room): (Option<Duration>, bool),
        m: &mut Means<'_>,
    ) {
        m.members.on_load(now, &from, load);
        let Some(prospect) = self.prospects.get_mut(&from) else { return };
        (prospect.load, prospect.is_silent) = (Some(load), false);
        let distance = rtt.map(|rtt| u8::try_from(rtt.as_micros().checked_ilog2().unwrap_or(0)).unwrap_or(u8::MAX));
        prospect.distance = distance.or(prospect.distance);
        match prospect.question {
            Some((Question::Load, _)) if tells_room => self.ask(now, from, Question::Room, m.out),
            Some((Question::Load | Question::Alive, _)) => self.drop_question(&from),
            // It lives: it has time for the record.
            Some((Question::Register, _)) if core::mem::take(&mut prospect.owes_life) => {
                prospect.question = Some((Question::Register, 1));
                self.deadlines.set(from, &mut prospect.deadline, Some(now + Question::Register.rto()));
            }
            _ => {}
        }
        self.advance(now, m);
    }

    /// A supernode told how much room it has.
    pub(crate) fn on_places(&mut self, now: Instant, from: PeerId, places: Places, m: &mut Means<'_>) {
        m.members.on_places(now, &from, places);
        let Some(prospect) = self.prospects.get_mut(&from) else { return };
        prospect.places = Some((level(places.taken), level(places.all)));
        if prospect.question.is_some_and(|(q, _)| q == Question::Room) {
            self.drop_question(&from);
            self.advance(now, m);
        }
    }

    /// The supernode that listed them says how much room those have that it listed.
    pub(crate) fn on_rooms(&mut self, now: Instant, from: &PeerId, rooms: &[Room], m: &mut Means<'_>) {
        if self.listing.is_by(from) {
            m.members.on_rooms(now, rooms);
        }
    }

    /// A home took us, or did not.
    pub(crate) fn on_register_reply(
        &mut self,
        now: Instant,
        from: PeerId,
        refused: Option<Refusal>,
        load: Load,
        m: &mut Means<'_>,
    ) {
        m.members.on_load(now, &from, load);
        let Some(prospect) = self.prospects.get_mut(&from) else { return };
        (prospect.load, prospect.is_silent) = (Some(load), false);
        if !self.chosen.contains(&from) {
            return;
        }
        if refused.is_some() {
            prospect.refused_until = Some(now + REFUSED_FOR + m.random.jitter.jitter(REFUSED_FOR));
            prospect.is_left = false;
            self.give_up(now, from, m);
            return;
        }
        let is_new = !core::mem::replace(&mut prospect.is_registered, true);
        let is_overtaken = core::mem::take(&mut prospect.is_overtaken);
        self.drop_question(&from);
        if is_overtaken {
            self.ask(now, from, Question::Register, m.out);
        }
        if is_new {
            self.on_arrived(from, m);
            self.sweep.on_success();
            if !core::mem::replace(&mut self.is_ready, true) {
                m.out.push_back(Output::Event(Event::Ready));
            }
            self.save_anchors(m.out);
        }
        self.advance(now, m);
    }

    /// A home did not answer what it was asked, or the other one, `teller`, says that it is dead: a reason to look, no
    /// more. Whoever dials needs to know sooner than beats tell whether homes live, both of them.
    pub(crate) fn on_silent(&mut self, now: Instant, home: PeerId, teller: Option<PeerId>, m: &mut Means<'_>) {
        let is_home = |peer: PeerId| self.chosen.contains(&peer);
        if !is_home(home) || teller == Some(home) || !teller.is_none_or(is_home) {
            return;
        }
        for peer in self.chosen.clone() {
            let is_asked = self.prospects.get(&peer).is_none_or(|c| c.question.is_some());
            if teller != Some(peer) && !is_asked {
                self.ask(now, peer, Question::Alive, m.out);
            }
        }
    }

    /// Signed bytes of an advert came. Only those that we have links to for this are listened to.
    pub(crate) fn on_advert(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        bytes: &[u8],
        m: &mut Means<'_>,
    ) {
        if self.prospects.get(&from).is_none_or(|c| c.link != Link::Up) {
            return;
        }
        self.listing.on_part(now, from, m.members.len(), &mut m.random.jitter);
        let is_by_home = self.chosen.contains(&from);
        if let Some(named) = subject(bytes).and_then(|id| self.prospects.get_mut(&id)) {
            named.is_named &= is_by_home;
        }
        // Nobody but itself moves a supernode elsewhere that this leaf knows.
        let is_known = subject(bytes).is_some_and(|id| self.prospects.contains_key(&id));
        let found = if is_known { Found::Told(ip) } else { Found::Rumoured(ip) };
        let Ok(advert) = m.members.insert(now, Source::of(from, ip), m.wall, bytes, found) else { return };
        if let Some(address) = m.members.address(&advert.id) {
            let is_new = !self.prospects.contains_key(&advert.id);
            self.learn(advert.id, address, false);
            if let Some(prospect) = self.prospects.get_mut(&advert.id) {
                prospect.is_named |= is_by_home && is_new;
            }
        }
        self.advance(now, m);
    }

    /// Hints of load came, with which a listing ends: homes may be drawn among all that it named.
    pub(crate) fn on_listed(&mut self, now: Instant, from: PeerId, m: &mut Means<'_>) {
        if self.prospects.get(&from).is_none_or(|c| c.link != Link::Up) {
            return;
        }
        self.listing.on_part(now, from, m.members.len(), &mut m.random.jitter);
        if !self.is_listed {
            m.members.weigh_claims();
            self.begin_draw(now);
            self.advance(now, m);
        }
    }

    /// Whether there is a home, and whoever waits for one has been told.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Says goodbye to the homes and does nothing any more.
    pub(crate) fn leave(&mut self, out: &mut VecDeque<Output>) {
        for (peer, prospect) in &mut self.prospects {
            if prospect.is_registered || self.chosen.contains(peer) {
                send(out, *peer, &Message::Deregister);
            }
            prospect.is_registered = false;
            self.deadlines.set(*peer, &mut prospect.deadline, None);
        }
        self.chosen.clear();
        self.is_leaving = true;
        (self.renew_at, self.settle_at, self.surplus_at) = (None, None, None);
        self.sweep.stop();
        self.listing.stop();
        self.trials = Trials::default();
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, m: &mut Means<'_>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        while let Some(peer) = self.deadlines.pop_due(now) {
            self.on_silence(now, peer, m);
        }
        if due(self.renew_at) {
            // A supernode can only send those elsewhere that are found at another one first: each has its turn.
            if self.is_settled() && m.random.peer_choice.below(2) == 0 {
                self.chosen.reverse();
            }
            self.register(now, m);
        }
        if self.listing.handle_timeout(now) && !(self.is_as_it_was() && self.listing.put_off(now, &mut m.random.jitter))
        {
            let from = self.listing.asked().or_else(|| {
                let linked: Vec<PeerId> = self.linked().collect();
                linked.get(m.random.peer_choice.below(linked.len())).copied()
            });
            if let Some(from) = from {
                self.listing.ask(now, from, m.out);
            }
        }
        if due(self.surplus_at) {
            self.surplus_at = None;
            self.release_surplus(m.out);
        }
        if self.sweep.handle_timeout(now) {
            self.begin_sweep(now, m);
        }
        self.on_trial_due(now, m);
        self.advance(now, m);
        if due(self.settle_at) {
            self.settle_at = None;
        }
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers =
            [self.renew_at, self.settle_at, self.surplus_at, self.sweep.poll_timeout(), self.listing.poll_timeout()];
        timers.into_iter().fold(earliest(self.deadlines.next(), self.trials.poll_timeout()), earliest)
    }

    /// The next step towards two homes.
    fn advance(&mut self, now: Instant, m: &mut Means<'_>) {
        if self.is_leaving {
            return;
        }
        self.choose(now, m);
        self.draw(now, m);
        let is_done = self.is_settled();
        if is_done {
            self.forget_partners();
            self.plan_trial(now, &mut m.random.jitter);
        }
        if is_done && self.linked().count() > RECORD_HOMES_MAX && self.surplus_at.is_none() {
            self.surplus_at = Some(now + SURPLUS_HOLD);
        }
    }

    /// Signs a record that names the chosen ones and brings it to each of them.
    pub(super) fn register(&mut self, now: Instant, m: &mut Means<'_>) {
        if self.chosen.is_empty() {
            self.renew_at = None;
            return;
        }
        let home = |peer: &PeerId| self.prospects.get(peer).map(|c| (*peer, c.address.into()));
        let record = Record {
            id: self.me,
            sequence: m.sequence.next(m.wall, m.out),
            issued_s: m.wall.map_or(0, WallTime::as_secs),
            lifetime_s: u16::try_from(RECORD_LIFETIME_MAX.as_secs()).unwrap_or(u16::MAX),
            homes: self.chosen.iter().filter_map(home).collect(),
        };
        self.record = record.sign(m.me.secret());
        self.trials.records = self.trials.records.saturating_add(1);
        self.renew_at = Some(now + RENEW_AFTER + m.random.jitter.jitter(RENEW_AFTER / 2));
        for peer in self.chosen.clone() {
            let Some(prospect) = self.prospects.get_mut(&peer) else { continue };
            if let Some((pending @ (Question::Register | Question::Alive), tries)) = prospect.question {
                // It is waited for already, and with a new record hardly longer.
                prospect.is_overtaken = pending == Question::Register;
                prospect.question = Some((Question::Register, tries));
                if pending == Question::Alive {
                    prospect.owes_life = true;
                    self.deadlines.set(peer, &mut prospect.deadline, Some(now + LAST_WAIT));
                }
                self.say(peer, Question::Register, m.out);
            } else {
                (prospect.is_overtaken, prospect.owes_life) = (false, false);
                self.drop_question(&peer);
                self.ask(now, peer, Question::Register, m.out);
            }
        }
    }

    /// Keeps homes and spares for the next run.
    fn save_anchors(&mut self, out: &mut VecDeque<Output>) {
        let spares = self.prospects.iter().filter(|(peer, c)| c.is_proven && !self.chosen.contains(peer));
        let spares = spares.map(|(peer, c)| (*peer, c.address));
        let anchors = self.registered().chain(spares).take(ANCHORS_MAX).collect();
        self.anchors.keep(anchors, out);
    }
}
