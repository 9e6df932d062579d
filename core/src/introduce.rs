//! Introductions: the handshake duty. How two peers that know only each other's keys get a link.
//!
//! Three parts play. The **caller** ([`Call`]) finds out where the peer is at home, wraps its Init for the peer (with its
//! candidates inside, sealed) in an introduction, and repeats it, home by home, until an answer comes. The **home**
//! ([`Duties`]) opens a channel for the two, carries the Init to its leaf and the Response back, and sees neither. When
//! the introduction came as the early message of the caller's own Init, the home keeps its Response back for at most
//! [`HOLD_MAX`], so that one round trip brings both answers. The **callee** decides by the caller's identity: an
//! accepted peer gets its candidates, a refused one a reason.
//!
//! Everything may be lost, so everything may come twice: the ephemeral key of the inner Init names a call, at the home
//! and at the callee, and the same call gets the same answer.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::api::{CommandError, ConnectError, Event, StreamEnd};
use crate::identity::PeerId;
use crate::link::Accepted;
use crate::net::{DropReason, Path, PeerKey};
use crate::node::Node;
use crate::path::Route;
use crate::peer::{AttemptRoute, Traffic};
use crate::relay::{End, Limits};
use crate::time::{Instant, earliest};
use crate::wire::address::Prefix;
use crate::wire::message::{ChannelLimits, InitBody, Message, Refusal};
use crate::wire::packet::{ChannelId, Packet};

/// A home keeps its Response back so long for the callee's answer.
pub(crate) const HOLD_MAX: Duration = Duration::from_millis(250);
/// Most Responses kept back at a time. At the limit the Init is answered at once.
pub(crate) const HOLDS_MAX: usize = 256;
/// The home repeats an introduction to its leaf after each of these, until it answers.
const REPEATS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_millis(500), Duration::from_millis(800), Duration::from_millis(1_200)];
/// A call is remembered so long at the home.
pub(crate) const CALL_MEMORY: Duration = Duration::from_secs(60);
/// Most calls remembered. At the limit new ones are refused as busy.
pub(crate) const DUTIES_MAX: usize = 65_536;
/// Introductions per second and callee, and per second and caller prefix.
pub(crate) const RATE_MAX: u32 = 20;

/// How long the caller waits after each introduction by one home, before it repeats it or asks the next home.
const WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(1_000),
    Duration::from_millis(1_500),
];
/// Between two dials of a peer that is a supernode, and how often it is dialled: each dial is three Inits.
const DIAL_AGAIN: Duration = Duration::from_secs(4);
/// See [`DIAL_AGAIN`].
const DIALS: u8 = 3;
/// Rounds over all homes before the call fails, each with a new lookup.
const ROUNDS: u8 = 2;
/// A record that is not found is asked for again after this, a few times: it may be on its way.
const LOOKUP_AGAIN: Duration = Duration::from_secs(1);
/// So often.
const LOOKUP_TRIES: u8 = 3;
/// While no supernode is linked yet, the lookup is tried again after this.
const LINK_AGAIN: Duration = Duration::from_millis(100);
/// So often: five seconds.
const LINK_TRIES: u8 = 50;
/// A node that knows no supernode but listens for neighbours goes on for so long, in case one is the peer.
const LAN_AGAIN: Duration = Duration::from_millis(500);
/// So often: three seconds.
const LAN_TRIES: u8 = 6;
/// Times that one call tries the addresses that a neighbour announces: it may announce ever new ones.
const NEAR_DIALS_MAX: u8 = 3;
/// Most calls at a time. At the limit `open` and `connect` are refused.
pub(crate) const CALLS_MAX: usize = 4_096;

/// Why a lookup gave no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookupFailure {
    /// This node knows no supernode at all.
    Lost,
    /// No supernode is linked (yet).
    Nobody,
    /// None that was asked answered.
    NoAnswer,
    /// Supernodes agree that there is no record.
    Unknown,
}

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
pub(crate) struct Call {
    stage: Stage,
    homes: Vec<(PeerId, SocketAddr)>,
    /// It was dialled as a supernode, in vain: it may be one no longer.
    dialled: bool,
    round: u8,
    lookups: u8,
    /// How often it was tried as a neighbour.
    near_dials: u8,
    /// The best reason so far, should it fail.
    error: ConnectError,
    pub(crate) deadline: Option<Instant>,
}

/// The home's memory of one introduction.
#[derive(Debug)]
struct Duty {
    caller: PeerKey,
    callee: PeerKey,
    callee_id: PeerId,
    call: (PeerId, [u8; 32]),
    at: Instant,
    /// The callee's answer, as it goes to the caller; kept, since it may be asked for again.
    answer: Option<Box<[u8]>>,
    /// The caller's own link was not confirmed when the answer came: it goes out when it is.
    parked: bool,
    /// What to repeat to the callee until it answers, how often that was done, and when it is due.
    repeat: Option<(Box<[u8]>, usize, Instant)>,
    hold: Option<Box<Hold>>,
}

/// A Response kept back.
struct Hold {
    accepted: Accepted,
    path: Path,
    init_len: usize,
    until: Instant,
}

impl core::fmt::Debug for Hold {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hold").field("until", &self.until).finish_non_exhaustive()
    }
}

/// A home's introductions of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    by_channel: BTreeMap<ChannelId, Duty>,
    by_call: BTreeMap<(PeerId, [u8; 32]), ChannelId>,
    holds: BTreeSet<(Instant, ChannelId)>,
    repeats: BTreeSet<(Instant, ChannelId)>,
    /// Introductions in the current second, by callee and by caller prefix.
    second: u64,
    by_callee: BTreeMap<PeerId, u32>,
    by_prefix: BTreeMap<Prefix, u32>,
    sweep: Option<Instant>,
    in_second: u32,
    in_last_second: u32,
    /// How many answers are parked.
    parked: usize,
}

impl Duties {
    /// Introductions in the last full second, for the load.
    pub(crate) fn per_second(&self, now: Instant) -> u32 {
        match (now.as_micros() / 1_000_000).saturating_sub(self.second) {
            0 => self.in_last_second,
            1 => self.in_second,
            _ => 0,
        }
    }

    pub(crate) fn admit(&mut self, now: Instant, callee: PeerId, caller: Option<SocketAddr>) -> bool {
        let second = now.as_micros() / 1_000_000;
        if second != self.second {
            self.in_last_second = if self.second + 1 == second { self.in_second } else { 0 };
            self.in_second = 0;
            self.second = second;
            self.by_callee.clear();
            self.by_prefix.clear();
        }
        if self.by_channel.len() >= DUTIES_MAX {
            return false;
        }
        let callee = self.by_callee.entry(callee).or_insert(0);
        *callee += 1;
        let mut fits = *callee <= RATE_MAX;
        if let Some(addr) = caller.filter(|addr| !Prefix::is_exempt(addr.ip())) {
            let prefix = self.by_prefix.entry(Prefix::of(addr.ip())).or_insert(0);
            *prefix += 1;
            fits &= *prefix <= RATE_MAX;
        }
        self.in_second += u32::from(fits);
        fits
    }

    fn forget(&mut self, channel: ChannelId) -> Option<Duty> {
        let duty = self.by_channel.remove(&channel)?;
        self.by_call.remove(&duty.call);
        self.parked -= usize::from(duty.parked);
        if let Some(hold) = &duty.hold {
            self.holds.remove(&(hold.until, channel));
        }
        if let Some((_, _, at)) = &duty.repeat {
            self.repeats.remove(&(*at, channel));
        }
        Some(duty)
    }

    fn take_hold(&mut self, channel: ChannelId) -> Option<Box<Hold>> {
        let hold = self.by_channel.get_mut(&channel)?.hold.take()?;
        self.holds.remove(&(hold.until, channel));
        Some(hold)
    }

    /// When a hold ends or memory can be freed.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let hold = self.holds.first().map(|(at, _)| *at);
        let repeat = self.repeats.first().map(|(at, _)| *at);
        earliest(earliest(hold, repeat), self.sweep)
    }
}

/// The ephemeral key in a Noise message 1, which names a call.
fn ephemeral_of(init: &[u8]) -> Option<[u8; 32]> {
    match Packet::decode(init) {
        Ok(Packet::Init { rest, .. }) => rest.first_chunk::<32>().copied(),
        _ => None,
    }
}

// ---- the caller ----

impl Node {
    /// Starts to reach a peer, unless that is under way.
    pub(crate) fn call(&mut self, now: Instant, id: PeerId) -> Result<(), CommandError> {
        if id == self.me.id() {
            return Err(CommandError::OwnId);
        }
        if self.leaving {
            return Err(CommandError::Leaving);
        }
        if self.calls.contains_key(&id) {
            return Ok(());
        }
        if self.calls.len() >= CALLS_MAX {
            return Err(CommandError::Limit);
        }
        id.noise_public().map_err(|_| CommandError::WeakKey)?;
        let call = Call {
            stage: Stage::Locating,
            homes: Vec::new(),
            dialled: false,
            round: 0,
            lookups: 0,
            near_dials: 0,
            error: ConnectError::NoSupernode,
            deadline: None,
        };
        self.calls.insert(id, call);
        // On the same LAN it needs nobody's help; if what is known of it there is wrong, only its homes do.
        self.dial_neighbor(now, id);
        self.locate(now, id);
        Ok(())
    }

    /// Finds out where a peer is: it is a supernode itself, its homes are known, or a lookup tells.
    fn locate(&mut self, now: Instant, id: PeerId) {
        let own = self.supernode_addresses(&id);
        if !own.is_empty() {
            if let Some(call) = self.calls.get_mut(&id) {
                call.homes = own.into_iter().map(|address| (id, address)).collect();
            }
            self.dial_peer(now, id, 1);
            return;
        }
        let homes = self.known_homes_of(&id);
        if !homes.is_empty() {
            self.on_located(now, id, homes);
            return;
        }
        self.set_stage(now, id, Stage::Locating, Some(Duration::from_secs(10)));
        self.start_lookup(now, id);
    }

    /// A lookup found the peer's homes, or a ticket named them.
    pub(crate) fn on_located(&mut self, now: Instant, id: PeerId, homes: Vec<(PeerId, SocketAddr)>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !matches!(call.stage, Stage::Locating | Stage::Pausing) {
            return;
        }
        call.homes = homes;
        call.error = ConnectError::Unreachable;
        // The peer is at home at itself: it is a supernode.
        if call.homes.iter().any(|(home, _)| *home == id) {
            let dials = 1 + u8::from(call.dialled);
            self.dial_peer(now, id, dials);
            return;
        }
        self.ask_home(now, id, 0);
    }

    /// Dials a supernode at all its addresses.
    fn dial_peer(&mut self, now: Instant, id: PeerId, dials: u8) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.error = ConnectError::Unreachable;
        let own: Vec<SocketAddr> = call.homes.iter().filter(|(home, _)| *home == id).map(|(_, a)| *a).collect();
        self.set_stage(now, id, Stage::Dialling { dials }, Some(DIAL_AGAIN));
        for address in own {
            self.dial(now, id, address, None);
        }
    }

    /// A lookup ended without a record.
    pub(crate) fn on_lookup_failed(&mut self, now: Instant, id: PeerId, failure: LookupFailure) {
        let own = self.supernode_addresses(&id).into_iter().map(|address| (id, address));
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.stage != Stage::Locating {
            return;
        }
        if call.dialled {
            // Nobody knows better where it is.
            // As it was dialled, unless that was by a ticket.
            call.homes.extend(own);
            self.dial_peer(now, id, 2);
            return;
        }
        let (error, tries_max, pause) = match failure {
            // Neighbours need a moment to be heard.
            LookupFailure::Lost if self.config.lan => (ConnectError::NoSupernode, LAN_TRIES, LAN_AGAIN),
            LookupFailure::Lost => (ConnectError::NoSupernode, 1, LOOKUP_AGAIN),
            LookupFailure::Nobody => (ConnectError::NoSupernode, LINK_TRIES, LINK_AGAIN),
            LookupFailure::NoAnswer => (ConnectError::NoSupernode, LOOKUP_TRIES, LOOKUP_AGAIN),
            LookupFailure::Unknown => (ConnectError::UnknownPeer, LOOKUP_TRIES, LOOKUP_AGAIN),
        };
        if call.error == ConnectError::NoSupernode {
            call.error = error;
        }
        call.lookups += 1;
        if call.lookups >= tries_max {
            let error = call.error;
            if self.call_neighbor(now, id) {
                return;
            }
            self.fail_call(now, id, error);
            return;
        }
        self.set_stage(now, id, Stage::Pausing, Some(pause));
    }

    /// Nobody can say where the peer is at home, but it may be on the LAN: that is tried to its end.
    fn call_neighbor(&mut self, now: Instant, id: PeerId) -> bool {
        let near = self.neighbor_addresses(&id);
        let Some(call) = self.calls.get_mut(&id).filter(|_| !near.is_empty()) else { return false };
        call.homes = near.into_iter().map(|address| (id, address)).collect();
        self.dial_peer(now, id, 1);
        true
    }

    /// Counts an attempt to reach a peer on the LAN, if another one may be made in this call.
    pub(crate) fn may_dial_neighbor(&mut self, id: &PeerId) -> bool {
        let Some(call) = self.calls.get_mut(id) else { return false };
        call.near_dials += u8::from(call.near_dials <= NEAR_DIALS_MAX);
        call.near_dials <= NEAR_DIALS_MAX
    }

    fn set_stage(&mut self, now: Instant, id: PeerId, stage: Stage, wait: Option<Duration>) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.stage = stage;
            let deadline = wait.map(|w| now + w);
            self.call_deadlines.set(id, &mut call.deadline, deadline);
        }
    }

    /// Asks the n-th home of the peer for an introduction.
    fn ask_home(&mut self, now: Instant, id: PeerId, index: usize) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(&(home, address)) = call.homes.get(index) else {
            call.round += 1;
            if call.round >= ROUNDS || call.error == ConnectError::Refused {
                let error = call.error;
                self.fail_call(now, id, error);
                return;
            }
            // Its record may have changed since.
            self.forget_homes(&id);
            self.set_stage(now, id, Stage::Pausing, Some(LOOKUP_AGAIN));
            return;
        };
        self.set_stage(now, id, Stage::Asking { home: index, tries: 1, init: None }, Some(WAITS[0]));
        if home == self.me.id() {
            // We are the peer's home: introduce ourselves.
            self.introduce_self(now, id);
            return;
        }
        let Some(key) = self.ensure_peer(now, id) else {
            self.fail_call(now, id, ConnectError::Unreachable);
            return;
        };
        let body = InitBody::Introduced { whereabouts: self.whereabouts(0) };
        let Some(init) = self.attempt(now, key, AttemptRoute::Introduced(home), &body) else {
            self.fail_call(now, id, ConnectError::Unreachable);
            return;
        };
        if let Some(peer) = self.peers.get_mut(key) {
            let traffic =
                peer.traffic.get_or_insert_with(|| Box::new(Traffic::new(now, crate::peer::Standing::Accepted)));
            traffic.standing = crate::peer::Standing::Accepted;
            traffic.told = true;
        }
        let message = Message::Introduce { peer: id, init: &init };
        match self.peers.up_key(&home) {
            Some(home) => self.peers.send(home, &message),
            None => {
                self.dial(now, home, address, Some(message));
            }
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.stage = Stage::Asking { home: index, tries: 1, init: Some(init) };
        }
    }

    /// The call's deadline came.
    pub(crate) fn on_call_timeout(&mut self, now: Instant, id: PeerId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.deadline = None;
        match call.stage.clone() {
            Stage::Locating => self.on_lookup_failed(now, id, LookupFailure::NoAnswer),
            Stage::Pausing => self.locate(now, id),
            Stage::Dialling { dials: 1 } => {
                call.dialled = true;
                self.forget_homes(&id);
                self.set_stage(now, id, Stage::Locating, Some(DIAL_AGAIN));
                self.start_lookup(now, id);
            }
            Stage::Dialling { dials } if dials < DIALS => self.dial_peer(now, id, dials + 1),
            Stage::Dialling { .. } => {
                let error = ConnectError::Unreachable;
                self.fail_call(now, id, error);
            }
            Stage::Asking { home, tries, init } if usize::from(tries) < WAITS.len() => {
                let Some(&(home_id, address)) = call.homes.get(home) else { return };
                if let Some(init) = &init {
                    let message = Message::Introduce { peer: id, init };
                    match self.peers.up_key(&home_id) {
                        Some(key) => self.peers.send(key, &message),
                        None => {
                            self.dial(now, home_id, address, Some(message));
                        }
                    }
                }
                let wait = WAITS[usize::from(tries).min(WAITS.len() - 1)];
                self.set_stage(now, id, Stage::Asking { home, tries: tries + 1, init }, Some(wait));
            }
            Stage::Asking { home, .. } => self.ask_home(now, id, home + 1),
        }
    }

    /// A home answered an introduction of ours.
    pub(crate) fn on_introduce_reply(
        &mut self,
        now: Instant,
        home: PeerKey,
        id: PeerId,
        response: Result<(ChannelId, ChannelLimits, &[u8]), Refusal>,
    ) -> Result<(), DropReason> {
        let home_id = self.peers.get(home).map(|p| p.id).ok_or(DropReason::WrongPath)?;
        match response {
            Ok((channel, limits, packet)) => {
                let Ok(Packet::Response { receiver, .. }) = Packet::decode(packet) else {
                    return Err(DropReason::BadContents);
                };
                let key = self.peers.awaits_introduced(receiver, &id, &home_id)?;
                self.add_channel_end(key, channel, home);
                if let Some(home) = self.peers.get_mut(home) {
                    home.needed = now;
                }
                self.on_answer(now, key, receiver, Route::Relayed { channel, via: home }, packet)?;
                if let Some(traffic) = self.peers.get_mut(key).and_then(|p| p.traffic.as_mut()) {
                    traffic.limits = Some(limits);
                }
                Ok(())
            }
            Err(refusal) => {
                let Some(call) = self.calls.get_mut(&id) else { return Err(DropReason::UnknownReceiver) };
                let Stage::Asking { home: index, .. } = call.stage else { return Ok(()) };
                if call.homes.get(index).is_none_or(|(h, _)| *h != home_id) {
                    return Ok(());
                }
                if refusal == Refusal::NotAllowed {
                    self.fail_call(now, id, ConnectError::Refused);
                } else {
                    self.ask_home(now, id, index + 1);
                }
                Ok(())
            }
        }
    }

    /// The peer was reached.
    pub(crate) fn finish_call(&mut self, id: &PeerId) {
        if let Some(mut call) = self.calls.remove(id) {
            self.call_deadlines.set(*id, &mut call.deadline, None);
        }
    }

    /// The peer could not be reached: whoever waits is told.
    pub(crate) fn fail_call(&mut self, now: Instant, id: PeerId, error: ConnectError) {
        self.finish_call(&id);
        self.forget_homes(&id);
        self.pings.take_waiting(&id);
        if let Some(key) = self.peers.key_of(&id)
            && let Some(peer) = self.peers.get(key).filter(|p| p.is_up())
        {
            // Another way to a peer whose link still stands was looked for in vain. Its watch decides, unless no way
            // is left at all.
            if peer.paths.current().is_none() {
                self.drop_peer(now, key, StreamEnd::PeerGone);
                // Somebody may have woken the link and be waiting.
                self.events.push_back(Event::ConnectFailed { peer: id, error });
            }
            return;
        }
        self.events.push_back(Event::ConnectFailed { peer: id, error });
        self.end_waiting_streams(&id, StreamEnd::Connect(error));
        if let Some(key) = self.peers.key_of(&id) {
            self.drop_if_idle(now, key);
        }
    }
}

// ---- the home ----

impl Node {
    /// An introduction as the early message of the caller's own Init.
    pub(crate) fn on_early_introduce(
        &mut self,
        now: Instant,
        caller: PeerKey,
        path: Path,
        accepted: Accepted,
        callee: PeerId,
        init: &[u8],
        init_len: usize,
    ) -> Result<(), DropReason> {
        self.count_introduction(init_len);
        match self.introduce(now, caller, Some(path.remote), callee, init) {
            Ok(channel) => {
                let room = self.duties.holds.len() < HOLDS_MAX;
                match self.duties.by_channel.get_mut(&channel) {
                    // The same Init again while the first one is held: the hold answers it.
                    Some(duty) if duty.hold.is_some() => Ok(()),
                    Some(duty) if room && duty.answer.is_none() => {
                        let until = now + HOLD_MAX;
                        duty.hold = Some(Box::new(Hold { accepted, path, init_len, until }));
                        self.duties.holds.insert((until, channel));
                        Ok(())
                    }
                    Some(duty) => {
                        let answer = duty.answer.clone();
                        self.answer_init(now, caller, path, accepted, answer, init_len, true)
                    }
                    None => Err(DropReason::Limited),
                }
            }
            Err(refusal) => {
                let reply = encoded(&Message::IntroduceReply { peer: callee, response: Err(refusal) });
                self.answer_init(now, caller, path, accepted, reply, init_len, true)
            }
        }
    }

    /// An introduction over a link that is up.
    pub(crate) fn on_introduce(&mut self, now: Instant, caller: PeerKey, callee: PeerId, init: &[u8]) {
        let remote = match self.peers.get(caller).and_then(|p| p.paths.current()) {
            Some(Route::Direct { remote, .. }) => Some(remote),
            _ => None,
        };
        self.count_introduction(init.len() + 40);
        match self.introduce(now, caller, remote, callee, init) {
            Ok(channel) => {
                let answer = self.duties.by_channel.get(&channel).and_then(|duty| duty.answer.clone());
                if let Some(answer) = answer {
                    self.peers.send_bytes(caller, None, answer, false);
                }
            }
            Err(refusal) => {
                self.peers.send(caller, &Message::IntroduceReply { peer: callee, response: Err(refusal) });
            }
        }
    }

    /// Opens the channel and carries the Init to the callee.
    fn introduce(
        &mut self,
        now: Instant,
        caller: PeerKey,
        remote: Option<SocketAddr>,
        callee: PeerId,
        init: &[u8],
    ) -> Result<ChannelId, Refusal> {
        if !self.is_serving() {
            return Err(Refusal::NotASupernode);
        }
        let ephemeral = ephemeral_of(init).ok_or(Refusal::Unknown)?;
        let caller_id = self.peers.get(caller).map(|p| p.id).ok_or(Refusal::Busy)?;
        let callee_key = self
            .peers
            .key_of(&callee)
            .filter(|k| self.is_registered(&callee) && self.peers.is_up(*k))
            .ok_or(Refusal::NotRegistered)?;
        let limits = self.channel_limits();
        if let Some(&channel) = self.duties.by_call.get(&(caller_id, ephemeral))
            && self.channels.contains(channel)
        {
            // Repeated: the answer is there already, or the callee is being asked.
            return Ok(channel);
        }
        if self.channels.is_exhausted()
            || !self.duties.admit(now, callee, remote)
            || !self.channels.has_room(caller, callee_key)
        {
            return Err(Refusal::Busy);
        }
        let channel = ChannelId(self.rng.introduce.bytes());
        let ends = [caller, callee_key].map(|key| {
            let peer = self.peers.get(key);
            // A leg without a path until its link is confirmed: nothing is relayed to an unproven address.
            let path = peer.filter(|p| p.is_up()).and_then(|p| match p.paths.current()? {
                route @ Route::Direct { socket, remote } => {
                    Some(Path { socket, remote, local: p.paths.local_of(&route) })
                }
                Route::Relayed { .. } => None,
            });
            End { peer: key, id: peer.map_or(callee, |p| p.id), path }
        });
        let [a, b] = ends;
        let rate = Limits { rate_bps: self.config.relay_rate_bps, quota_bytes: self.config.relay_quota_bytes };
        let closed = self.channels.open(now, channel, a, b, rate);
        self.tell_closed(closed);
        self.duties.by_call.insert((caller_id, ephemeral), channel);
        self.duties.by_channel.insert(
            channel,
            Duty {
                caller,
                callee: callee_key,
                callee_id: callee,
                call: (caller_id, ephemeral),
                at: now,
                answer: None,
                parked: false,
                repeat: encoded(&Message::Introduced { channel, limits, init }).map(|b| (b, 0, now + REPEATS[0])),
                hold: None,
            },
        );
        self.duties.repeats.insert((now + REPEATS[0], channel));
        self.duties.sweep.get_or_insert(now + CALL_MEMORY);
        self.counters.introductions += 1;
        self.count_introduction(init.len() + 45);
        self.peers.send(callee_key, &Message::Introduced { channel, limits, init });
        Ok(channel)
    }

    /// The callee's answer, to be carried to the caller.
    pub(crate) fn on_introduced_reply(
        &mut self,
        now: Instant,
        from: PeerKey,
        channel: ChannelId,
        response: Result<&[u8], Refusal>,
    ) -> Result<(), DropReason> {
        let limits = self.channel_limits();
        let duty = self.duties.by_channel.get_mut(&channel).ok_or(DropReason::UnknownReceiver)?;
        if duty.callee != from {
            return Err(DropReason::WrongPath);
        }
        if let Some((_, _, at)) = duty.repeat.take() {
            self.duties.repeats.remove(&(at, channel));
        }
        let Some(duty) = self.duties.by_channel.get_mut(&channel) else { return Ok(()) };
        let (caller, callee) = (duty.caller, duty.callee_id);
        let reply = Message::IntroduceReply { peer: callee, response: response.map(|r| (channel, limits, r)) };
        let bytes = encoded(&reply).ok_or(DropReason::BadContents)?;
        if duty.answer.replace(bytes.clone()).is_some() {
            // The callee answered twice; the caller has it, or asks again.
            return Ok(());
        }
        self.count_introduction(bytes.len() + 25);
        if let Some(hold) = self.duties.take_hold(channel) {
            let hold = *hold;
            let len = bytes.len() + 90;
            self.answer_init(now, caller, hold.path, hold.accepted, Some(bytes), hold.init_len, true)?;
            self.count_introduction(len);
        } else if self.peers.is_up(caller) {
            self.count_introduction(bytes.len() + 25);
            self.peers.send_bytes(caller, None, bytes, false);
        } else if let Some(duty) = self.duties.by_channel.get_mut(&channel) {
            duty.parked = true;
            self.duties.parked += 1;
        }
        if response.is_err() {
            self.channels.close(now, channel);
        }
        Ok(())
    }

    /// The caller's link was confirmed: what was parked for it goes out.
    pub(crate) fn release_parked(&mut self, caller: PeerKey) {
        if self.duties.parked == 0 {
            return;
        }
        let mut parked = Vec::new();
        for duty in self.duties.by_channel.values_mut().filter(|duty| duty.caller == caller && duty.parked) {
            duty.parked = false;
            self.duties.parked -= 1;
            parked.extend(duty.answer.clone());
        }
        for bytes in parked {
            self.peers.send_bytes(caller, None, bytes, false);
        }
    }

    /// Holds that ended, memory that can be freed.
    pub(crate) fn on_duties_timeout(&mut self, now: Instant) {
        while let Some(&(at, channel)) = self.duties.repeats.first().filter(|(at, _)| *at <= now) {
            self.duties.repeats.remove(&(at, channel));
            self.repeat_introduced(now, channel);
        }
        while let Some(&(until, channel)) = self.duties.holds.first().filter(|(until, _)| *until <= now) {
            let Some(duty) = self.duties.by_channel.get(&channel) else {
                self.duties.holds.remove(&(until, channel));
                continue;
            };
            let caller = duty.caller;
            if let Some(hold) = self.duties.take_hold(channel) {
                let hold = *hold;
                let _ = self.answer_init(now, caller, hold.path, hold.accepted, None, hold.init_len, true);
            }
        }
        if self.duties.sweep.is_some_and(|at| at <= now) {
            let old: Vec<ChannelId> = self
                .duties
                .by_channel
                .iter()
                .filter(|(_, duty)| now.since(duty.at) >= CALL_MEMORY)
                .map(|(channel, _)| *channel)
                .collect();
            for channel in old {
                self.duties.forget(channel);
            }
            self.duties.sweep = (!self.duties.by_channel.is_empty()).then(|| now + CALL_MEMORY);
        }
    }

    /// The callee has not answered: its Init again.
    fn repeat_introduced(&mut self, now: Instant, channel: ChannelId) {
        let Some(duty) = self.duties.by_channel.get_mut(&channel) else { return };
        let callee = duty.callee;
        let Some((bytes, repeats, at)) = &mut duty.repeat else { return };
        let copy = bytes.clone();
        *repeats += 1;
        match REPEATS.get(*repeats) {
            Some(wait) => {
                *at = now + *wait;
                self.duties.repeats.insert((*at, channel));
            }
            None => duty.repeat = None,
        }
        if self.peers.is_up(callee) {
            self.peers.send_bytes(callee, None, copy, false);
        }
    }

    /// A home wants to reach its own leaf: the link is there already.
    fn introduce_self(&mut self, now: Instant, id: PeerId) {
        let up = self.peers.up_key(&id).is_some();
        if up {
            let key = self.peers.key_of(&id);
            if let Some(key) = key {
                self.make_user_link(now, key);
            }
        } else {
            self.fail_call(now, id, ConnectError::Unreachable);
        }
    }

    /// What a new channel may carry, as it is told.
    fn channel_limits(&self) -> ChannelLimits {
        ChannelLimits {
            rate_kbps: u32::try_from(self.config.relay_rate_bps.div_ceil(1_000)).unwrap_or(u32::MAX),
            quota_mib: u32::try_from(self.config.relay_quota_bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX),
        }
    }

    fn count_introduction(&mut self, bytes: usize) {
        self.counters.introduction_datagrams += 1;
        self.counters.introduction_bytes += bytes as u64;
    }
}

// ---- the callee ----

impl Node {
    /// A home of ours brings an introduction.
    pub(crate) fn on_introduced(
        &mut self,
        now: Instant,
        home: PeerKey,
        channel: ChannelId,
        limits: ChannelLimits,
        init: &[u8],
    ) -> Result<(), DropReason> {
        // Only a home that we chose may bring callers, or anybody linked could make us work.
        if !self.peers.get(home).is_some_and(|p| p.wanted) {
            return Err(DropReason::WrongPath);
        }
        if let Some(pending) = self.peers.answered_init(init) {
            if pending.route.is_direct() {
                return Err(DropReason::Replayed);
            }
            let response = pending.response.clone();
            self.peers.send(home, &Message::IntroducedReply { channel, response: Ok(&response) });
            return Ok(());
        }
        if !self.account.take_inner_init(now, home) {
            return Err(DropReason::Limited);
        }
        let mut plain = [0; crate::wire::DATAGRAM_LEN_MAX];
        let (accepted, len) =
            crate::link::accept(&self.me, init, false, &mut plain).map_err(|_| DropReason::Unauthentic)?;
        let caller = accepted.peer;
        let body: InitBody<'_> = postcard::from_bytes(&plain[..len]).map_err(|_| DropReason::BadContents)?;
        let route = Route::Relayed { channel, via: home };
        match self.on_introduced_init(now, route, accepted, body, init.len()) {
            Ok(response) => {
                self.peers.send(home, &Message::IntroducedReply { channel, response: Ok(&response) });
                if let Some(traffic) =
                    self.peers.key_of(&caller).and_then(|k| self.peers.get_mut(k)).and_then(|p| p.traffic.as_mut())
                {
                    traffic.limits = Some(limits);
                }
                Ok(())
            }
            Err(DropReason::Unauthentic) => {
                self.peers.send(home, &Message::IntroducedReply { channel, response: Err(Refusal::NotAllowed) });
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }
}

fn encoded(message: &Message<'_>) -> Option<Box<[u8]>> {
    let mut buf = [0; crate::peer::MESSAGES_LEN_MAX];
    crate::wire::message::encode(message, &mut buf).map(|len| buf[..len].into())
}
