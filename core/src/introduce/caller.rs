//! The caller: [`Calls`], the attempts of this node to reach peers that it has no link to.
//!
//! A call is begun by [`Calls::call`] and goes through these stages. *Locating*: it waits to be told where the peer is
//! at home, by what the node knows ([`Known`]) or by a lookup. *Dialling*, where the peer turns out to be a supernode:
//! it is reached at its own addresses. *Asking*, otherwise: one home after the other is asked for an introduction, with
//! an Init that the node builds ([`CallOutput::Build`], [`Calls::on_init_built`]); the same Init is repeated to the
//! same home. *Pausing*: a lookup that failed, or a round over all homes in vain, is followed by another one. Beside
//! all this, the peer's addresses on the LAN are tried, if it has announced any.
//!
//! The call is over when the link is up ([`Calls::finish`]), when the peer refuses us, or when every stage was tried so
//! often as it may ([`CallOutput::Failed`]). It holds no links, packets or keys: what it wants done it says by
//! [`Calls::poll_output`], and what came of it is told to it.
//!
//! [`Calls`] also remembers homes that a ticket named, so that no lookup is needed, until they prove to be of no use,
//! and who announced itself [on the LAN](Lan).

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::Home;
use super::output::{CallOutput, Known, LookupFailure};
use crate::account::Account;
use crate::api::{CommandError, ConnectError};
use crate::identity::PeerId;
use crate::lan::Lan;
use crate::net::{DropReason, LanNode, Network};
use crate::peer::{LinkUse, Origin};
use crate::queue;
use crate::ticket::Ticket;
use crate::time::{Deadlines, Instant};
use crate::wire::address::is_sendable;
use crate::wire::message::Refusal;
use crate::wire::packet::Packet;

/// How long the caller waits after each introduction by one home, before it repeats it or asks the next home.
const WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(1_000),
    Duration::from_millis(1_500),
];
/// The lookup of a peer's homes ends by itself; this is only in case it does not.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Between two dials of a peer that is a supernode, and how often it is dialled: each dial is three Inits.
const DIAL_AGAIN: Duration = Duration::from_secs(4);
/// See [`DIAL_AGAIN`].
const DIALS: u8 = 3;
/// Rounds over all homes before the call fails, each with a new lookup.
const ROUNDS: u8 = 2;
/// A record that is not found is asked for again after this, a few times: it may be on its way.
const LOOKUP_AGAIN: Duration = Duration::from_secs(1);
/// How often that is done.
const LOOKUP_TRIES: u8 = 3;
/// While no supernode is linked yet, the lookup is tried again after this.
const LINK_AGAIN: Duration = Duration::from_millis(100);
/// How often that is done: for five seconds.
const LINK_TRIES: u8 = 50;
/// A node that knows no supernode but listens on the LAN goes on for so long, in case the peer announces itself there.
const LAN_AGAIN: Duration = Duration::from_millis(500);
/// How often that is done: for three seconds.
const LAN_TRIES: u8 = 6;
/// Times that one call tries the addresses that the peer announces on the LAN: it may announce ever new ones.
const NEAR_DIALS_MAX: u8 = 3;
/// Most calls at a time. At the limit `open` and `connect` are refused.
pub(super) const CALLS_MAX: usize = 4_096;
/// Most peers whose homes are known by ticket or advert. At the limit the smallest id goes.
pub(super) const KNOWN_HOMES_MAX: usize = 4_096;

/// What a call is waiting for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Where the peer is at home.
    Locating,
    /// A lookup failed; the next one at the deadline.
    Pausing,
    /// The answer of this home.
    Asking { home: usize, tries: u8, init: Option<Box<[u8]>> },
    /// The answer of the peer at its own addresses (it is a supernode).
    Dialling { dials: u8 },
}

/// One attempt of this node to reach a peer.
#[derive(Clone, Debug)]
struct Call {
    /// What the link is wanted for.
    link_use: LinkUse,
    stage: Stage,
    homes: Vec<Home>,
    /// It was dialled as a supernode, in vain: it may be one no longer.
    dialled: bool,
    round: u8,
    lookups: u8,
    /// How often it was tried on the LAN.
    near_dials: u8,
    /// The best reason so far, should it fail.
    error: ConnectError,
    deadline: Option<Instant>,
}

/// All calls under way by the peer that is called, and homes that tickets named.
#[derive(Debug)]
pub(crate) struct Calls {
    me: PeerId,
    /// Whether announcements on the LAN are listened for.
    hears_lan: bool,
    by_peer: BTreeMap<PeerId, Call>,
    deadlines: Deadlines<PeerId>,
    known_homes: BTreeMap<PeerId, Vec<Home>>,
    lan: Lan,
    out: VecDeque<CallOutput>,
}

impl Calls {
    /// None yet, of the node `me`.
    pub(crate) fn new(me: PeerId, hears_lan: bool) -> Self {
        Self {
            me,
            hears_lan,
            by_peer: BTreeMap::new(),
            deadlines: Deadlines::default(),
            known_homes: BTreeMap::new(),
            lan: Lan::new(me),
            out: VecDeque::new(),
        }
    }

    // ---- commands ----

    /// Starts to reach a peer, unless that is under way.
    pub(crate) fn call(
        &mut self,
        now: Instant,
        account: &mut Account,
        id: PeerId,
        known: &Known,
    ) -> Result<(), CommandError> {
        self.begin(now, account, (id, LinkUse::User), known)
    }

    /// The same of a volunteer, for a leg.
    pub(crate) fn call_leg(&mut self, now: Instant, account: &mut Account, id: PeerId, known: &Known) {
        if self.begin(now, account, (id, LinkUse::Leg), known).is_err() {
            self.out.push_back(CallOutput::LegFailed { peer: id });
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        account: &mut Account,
        (id, link_use): (PeerId, LinkUse),
        known: &Known,
    ) -> Result<(), CommandError> {
        if id == self.me {
            return Err(CommandError::OwnId);
        }
        if let Some(call) = self.by_peer.get_mut(&id) {
            if link_use == LinkUse::User {
                call.link_use = link_use;
            }
            return Ok(());
        }
        if self.by_peer.len() >= CALLS_MAX {
            return Err(CommandError::Limit);
        }
        id.noise_public().map_err(|_| CommandError::WeakKey)?;
        let call = Call {
            link_use,
            stage: Stage::Locating,
            homes: Vec::new(),
            dialled: false,
            round: 0,
            lookups: 0,
            near_dials: 0,
            error: ConnectError::NoSupernode,
            deadline: None,
        };
        self.by_peer.insert(id, call);
        // On the same LAN it needs nobody's help; if what is known of it there is wrong, only its homes do.
        if link_use == LinkUse::User {
            self.try_near(now, account, id, known.is_linked);
        }
        self.locate(now, id, known);
        Ok(())
    }

    /// Takes the homes of a ticket as known, so that the next call needs no lookup. Returns those that can be.
    pub(crate) fn learn(&mut self, ticket: &Ticket) -> Vec<Home> {
        let homes: Vec<Home> = ticket.homes.iter().copied().filter(|(_, address)| is_sendable(*address)).collect();
        if !homes.is_empty() {
            self.learn_homes(ticket.peer, homes.clone());
        }
        homes
    }

    /// The same, from an advert.
    pub(super) fn learn_homes(&mut self, id: PeerId, homes: Vec<Home>) {
        if self.known_homes.len() >= KNOWN_HOMES_MAX && !self.known_homes.contains_key(&id) {
            self.known_homes.pop_first();
        }
        self.known_homes.insert(id, homes);
    }

    /// Whether a peer is called for the application.
    pub(crate) fn wants_user(&self, id: &PeerId) -> bool {
        self.by_peer.get(id).is_some_and(|call| call.link_use == LinkUse::User)
    }

    /// The peer was reached, or is wanted no more.
    pub(crate) fn finish(&mut self, id: &PeerId) {
        if let Some(mut call) = self.by_peer.remove(id) {
            self.deadlines.set(*id, &mut call.deadline, None);
        }
    }

    // ---- what came of it ----

    /// A node announced itself on the LAN, or did so again: whether it was noted. It is dialled there, if it is called
    /// and has no link to us.
    pub(crate) fn handle_lan_node(
        &mut self,
        now: Instant,
        account: &mut Account,
        network: &Network,
        node: &LanNode,
        is_linked: bool,
    ) -> bool {
        let is_noted = self.lan.handle_node(network, node);
        if is_noted {
            self.try_near(now, account, node.peer, is_linked);
        }
        is_noted
    }

    /// One is there no longer, or its announcement has run out.
    pub(crate) fn handle_lan_node_gone(&mut self, id: &PeerId) {
        self.lan.handle_node_gone(id);
    }

    /// A lookup has ended, or an advert named the peer's homes.
    pub(crate) fn on_location(
        &mut self,
        now: Instant,
        id: PeerId,
        location: Result<Vec<Home>, LookupFailure>,
        known: &Known,
    ) {
        match location {
            Ok(homes) => {
                // By its own advert, for which the membership table may have no room: that is not to be looked for
                // again.
                if homes.iter().any(|(home, _)| *home == id) {
                    self.learn_homes(id, homes.clone());
                }
                self.on_located(now, id, homes, known);
            }
            Err(failure) => self.on_lookup_failed(now, id, failure, known),
        }
    }

    fn on_located(&mut self, now: Instant, id: PeerId, mut homes: Vec<Home>, known: &Known) {
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        if !matches!(call.stage, Stage::Locating | Stage::Pausing) {
            return;
        }
        homes.sort_by_key(|(home, _)| known.limited.contains(home));
        call.homes = homes;
        call.error = ConnectError::Unreachable;
        // The peer is at home at itself: it is a supernode.
        if call.homes.iter().any(|(home, _)| *home == id) {
            let dials = 1 + u8::from(call.dialled);
            self.dial(now, id, dials);
            return;
        }
        self.ask(now, id, 0);
    }

    fn on_lookup_failed(&mut self, now: Instant, id: PeerId, failure: LookupFailure, known: &Known) {
        let near = self.lan.addresses(&id);
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        if call.stage != Stage::Locating {
            return;
        }
        if call.dialled {
            // Nobody knows better where it is.
            // As it was dialled, unless that was by a ticket.
            call.homes.extend(known.addresses.iter().map(|address| (id, *address)));
            self.dial(now, id, 2);
            return;
        }
        let (error, tries_max, pause) = match failure {
            // Those on the LAN need a moment to be heard.
            LookupFailure::Lost if self.hears_lan => (ConnectError::NoSupernode, LAN_TRIES, LAN_AGAIN),
            LookupFailure::Lost => (ConnectError::NoSupernode, 1, LOOKUP_AGAIN),
            LookupFailure::Nobody => (ConnectError::NoSupernode, LINK_TRIES, LINK_AGAIN),
            LookupFailure::NoAnswer => (ConnectError::NoSupernode, LOOKUP_TRIES, LOOKUP_AGAIN),
            LookupFailure::Unknown => (ConnectError::UnknownPeer, LOOKUP_TRIES, LOOKUP_AGAIN),
        };
        if call.error == ConnectError::NoSupernode {
            call.error = error;
        }
        call.lookups += 1;
        if call.lookups < tries_max {
            self.set_stage(now, id, Stage::Pausing, pause);
        } else if near.is_empty() {
            let error = call.error;
            self.fail(id, error);
        } else {
            // Nobody can say where it is at home, but it may be on the LAN: that is tried to its end.
            call.homes = near.into_iter().map(|address| (id, address)).collect();
            self.dial(now, id, 1);
        }
    }

    /// The Init that [`CallOutput::Build`] asked for: the home is asked to carry it.
    pub(crate) fn on_init_built(&mut self, id: PeerId, init: Box<[u8]>) {
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        if let Stage::Asking { home, init: kept, .. } = &mut call.stage
            && let Some(&home) = call.homes.get(*home)
        {
            *kept = Some(init.clone());
            self.out.push_back(CallOutput::Introduce { peer: id, home, init });
        }
    }

    /// What the call asked for cannot be: there is no room for the peer, or no link to it although we are its home.
    pub(crate) fn on_impossible(&mut self, id: PeerId) {
        if self.by_peer.contains_key(&id) {
            self.fail(id, ConnectError::Unreachable);
        }
    }

    /// A home refused to introduce us, or brings the peer's own refusal.
    pub(crate) fn on_refused(
        &mut self,
        now: Instant,
        id: PeerId,
        by: &PeerId,
        refusal: Refusal,
    ) -> Result<(), DropReason> {
        let Some(call) = self.by_peer.get_mut(&id) else { return Err(DropReason::UnknownReceiver) };
        let Stage::Asking { home, .. } = call.stage else { return Ok(()) };
        if call.homes.get(home).is_none_or(|(home, _)| home != by) {
            return Ok(());
        }
        match refusal {
            Refusal::NotAllowed => self.fail(id, ConnectError::Refused),
            Refusal::OtherVersion => self.fail(id, ConnectError::OtherVersion),
            _ => {
                if refusal == Refusal::Busy {
                    call.error = ConnectError::Busy;
                }
                self.ask(now, id, home + 1);
            }
        }
        Ok(())
    }

    // ---- time ----

    /// One peer whose call is due: [`Self::handle_timeout`] does what that means.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        let id = self.deadlines.pop_due(now)?;
        if let Some(call) = self.by_peer.get_mut(&id) {
            call.deadline = None;
        }
        Some(id)
    }

    /// The deadline of this call came.
    pub(crate) fn handle_timeout(&mut self, now: Instant, id: PeerId, known: &Known) {
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        match call.stage.clone() {
            Stage::Locating => self.on_lookup_failed(now, id, LookupFailure::NoAnswer, known),
            Stage::Pausing => self.locate(now, id, known),
            Stage::Dialling { dials: 1 } => {
                call.dialled = true;
                self.forget_homes(id);
                self.look_up(now, id, DIAL_AGAIN);
            }
            Stage::Dialling { dials } if dials < DIALS => self.dial(now, id, dials + 1),
            Stage::Dialling { .. } => self.fail(id, ConnectError::Unreachable),
            Stage::Asking { home, tries, init } => match WAITS.get(usize::from(tries)) {
                Some(wait) => {
                    let Some(&at) = call.homes.get(home) else { return };
                    if let Some(init) = init.clone() {
                        self.out.push_back(CallOutput::Introduce { peer: id, home: at, init });
                    }
                    self.set_stage(now, id, Stage::Asking { home, tries: tries + 1, init }, *wait);
                }
                None => self.ask(now, id, home + 1),
            },
        }
    }

    /// When the next call is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<CallOutput> {
        queue::pop(&mut self.out, 0)
    }

    // ---- getters ----

    /// Whether a peer is being called.
    pub(crate) fn contains(&self, id: &PeerId) -> bool {
        self.by_peer.contains_key(id)
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    /// Who announced itself on the LAN.
    pub(crate) fn lan(&self) -> &Lan {
        &self.lan
    }

    /// How many are, of how many homes are known beside, and how many deadlines are set.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.by_peer.len(), self.known_homes.len(), self.deadlines.len())
    }

    // ---- inside ----

    /// Dials a peer that is called, and has no link to us, where it announced itself on the LAN. Each address counts as
    /// one attempt, which is the account that these have.
    fn try_near(&mut self, now: Instant, account: &mut Account, id: PeerId, is_linked: bool) {
        let near = self.lan.addresses(&id);
        if near.is_empty() || is_linked {
            return;
        }
        let is_near = |call: &&mut Call| call.link_use == LinkUse::User;
        let Some(call) = self.by_peer.get_mut(&id).filter(is_near).filter(|call| call.near_dials < NEAR_DIALS_MAX)
        else {
            return;
        };
        call.near_dials += 1;
        let admitted = account.take_attempts(now, near.into_iter());
        self.out.extend(admitted.into_iter().map(|address| CallOutput::Dial {
            peer: id,
            address,
            origin: Origin::Own,
        }));
    }

    /// Finds out where a peer is: it is a supernode itself, its homes are known, or a lookup tells.
    fn locate(&mut self, now: Instant, id: PeerId, known: &Known) {
        if !known.addresses.is_empty() {
            if let Some(call) = self.by_peer.get_mut(&id) {
                call.homes = known.addresses.iter().map(|address| (id, *address)).collect();
            }
            self.dial(now, id, 1);
            return;
        }
        let homes = self.known_homes.get(&id).filter(|_| !known.is_leaf_here).unwrap_or(&known.homes).clone();
        if homes.is_empty() {
            self.look_up(now, id, LOOKUP_MAX);
        } else {
            self.on_located(now, id, homes, known);
        }
    }

    fn look_up(&mut self, now: Instant, id: PeerId, wait: Duration) {
        self.set_stage(now, id, Stage::Locating, wait);
        self.out.push_back(CallOutput::Lookup { peer: id });
    }

    /// Dials a supernode at all its addresses.
    fn dial(&mut self, now: Instant, id: PeerId, dials: u8) {
        self.set_stage(now, id, Stage::Dialling { dials }, DIAL_AGAIN);
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        call.error = ConnectError::Unreachable;
        let own = call.homes.iter().filter(|(home, _)| *home == id);
        let near = self.lan.addresses(&id);
        self.out.extend(own.map(|(_, address)| {
            let origin = if near.contains(address) { Origin::Own } else { Origin::Hearsay };
            CallOutput::Dial { peer: id, address: *address, origin }
        }));
    }

    /// Asks the n-th home of the peer for an introduction.
    fn ask(&mut self, now: Instant, id: PeerId, index: usize) {
        let Some(call) = self.by_peer.get_mut(&id) else { return };
        let Some(&home) = call.homes.get(index) else {
            call.round += 1;
            if call.round >= ROUNDS || call.error == ConnectError::Refused {
                let error = call.error;
                self.fail(id, error);
                return;
            }
            // Its record may have changed since.
            self.forget_homes(id);
            self.set_stage(now, id, Stage::Pausing, LOOKUP_AGAIN);
            return;
        };
        let link_use = call.link_use;
        self.set_stage(now, id, Stage::Asking { home: index, tries: 1, init: None }, WAITS[0]);
        if home.0 != self.me {
            self.out.push_back(CallOutput::Build { peer: id, link_use, home });
        } else if link_use == LinkUse::User {
            self.out.push_back(CallOutput::UseLink { peer: id });
        } else {
            // Whoever is its home needs nobody to relay.
            self.fail(id, ConnectError::Unreachable);
        }
    }

    fn set_stage(&mut self, now: Instant, id: PeerId, stage: Stage, wait: Duration) {
        if let Some(call) = self.by_peer.get_mut(&id) {
            call.stage = stage;
            self.deadlines.set(id, &mut call.deadline, Some(now + wait));
        }
    }

    /// Homes that were known did not help: the next lookup asks anew.
    fn forget_homes(&mut self, id: PeerId) {
        self.known_homes.remove(&id);
        self.out.push_back(CallOutput::Forget { peer: id });
    }

    fn fail(&mut self, id: PeerId, error: ConnectError) {
        let is_for_user = self.wants_user(&id);
        self.finish(&id);
        self.forget_homes(id);
        self.out.push_back(if is_for_user {
            CallOutput::Failed { peer: id, error }
        } else {
            CallOutput::LegFailed { peer: id }
        });
    }
}

/// Which Init of ours a Response answers that a home brings.
pub(crate) fn answered_index(response: &[u8]) -> Result<u32, DropReason> {
    match Packet::decode(response) {
        Ok(Packet::Response { receiver, .. }) => Ok(receiver),
        _ => Err(DropReason::BadContents),
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
