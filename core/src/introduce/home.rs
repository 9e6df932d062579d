//! The home: [`Introductions`], what a supernode does and remembers so that callers get through to its leaves.
//!
//! A caller asks with an Init for the callee inside, over its link ([`Introductions::on_introduce`]) or as the early
//! message of its own Init ([`Introductions::on_early`]). Admitted ones get a channel between the two, under an id
//! drawn here, and the Init goes to the callee, again and again ([`REPEATS`]) until that answers
//! ([`Introductions::on_reply`]). The answer goes to the caller. Neither is understood here.
//!
//! One *introduction* is remembered for [`CALL_MEMORY`]: the same Init again, known by its ephemeral key, opens no
//! other channel and gets the answer that is there. When it came early, the caller's own Init is held back for at most
//! [`HOLD_MAX`], so that one Response brings both answers; the machine keeps it as a value of any type `H`, which it
//! only hands back. Where the caller's link is not confirmed when the answer comes, the answer is parked until it is.
//! That an older link of the caller's is still up counts for nothing: an Init that asks early begins a link, and who
//! begins one has none, though this node may not have noticed.
//!
//! It is told who the peers are ([`View`]), and says what it wants done ([`HomeOutput`]). Channels, links and packets
//! are others'.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{encoded, ephemeral_of};
use crate::account::Account;
use crate::identity::PeerId;
use crate::net::{DropReason, PeerKey};
use crate::queue;
use crate::random::{KeyRng, Seed};
use crate::relay::Limits;
use crate::time::{Instant, earliest};
use crate::wire::message::{ChannelLimits, Message, Refusal};
use crate::wire::packet::ChannelId;

/// A home keeps its Response back so long for the callee's answer.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(250);
/// Most Responses kept back at a time. At the limit the Init is answered at once.
pub(super) const HOLDS_MAX: usize = 256;
/// The home repeats an introduction to its leaf after each of these, until it answers.
const REPEATS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_millis(500), Duration::from_millis(800), Duration::from_millis(1_200)];
/// After the last repeat the callee has so long to answer. Then the channel is closed.
const LAST_WAIT: Duration = Duration::from_millis(1_200);
/// An introduction is remembered so long at the home.
pub(super) const CALL_MEMORY: Duration = Duration::from_secs(60);
/// Most introductions remembered. At the limit new ones are refused as busy.
pub(super) const REMEMBERED_MAX: usize = 65_536;

/// Bytes that a message over a link takes beside an Init or a Response in it: header, tag, names.
const OVERHEAD: usize = 40;
/// The same for one to the callee, which names a channel and its limits.
const BRING_OVERHEAD: usize = 45;
/// The same for an answer that is a whole message already.
const ANSWER_OVERHEAD: usize = 25;
/// The same for an answer inside the Response to the caller's own Init.
const RESPONSE_OVERHEAD: usize = 90;

/// An introduction asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The link it came over, or that its Init begins, and whose it is.
    pub(crate) caller: (PeerKey, PeerId),
    /// Where the caller is, unless that is behind a relay.
    pub(crate) remote: Option<SocketAddr>,
    /// Whom it is for.
    pub(crate) callee: PeerId,
    /// What is to be carried there.
    pub(crate) init: &'a [u8],
}

/// What the node knows of those whom an introduction is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// Whether this node serves others.
    pub(crate) is_serving: bool,
    /// The callee's link, if it is registered here and its link is up.
    pub(crate) callee: Option<PeerKey>,
    /// Whether the channel of [`Introductions::channel_of`] is still open.
    pub(crate) is_open: bool,
    /// Whether nothing may be relayed any more for a while.
    pub(crate) is_exhausted: bool,
    /// Whether another channel between the two can be opened.
    pub(crate) has_room: bool,
}

/// What an introduction wants done; `H` is an Init held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HomeOutput<H> {
    /// Open a channel between caller and callee.
    Open {
        /// Its name.
        channel: ChannelId,
        /// The two links, and whose they are.
        ends: [(PeerKey, PeerId); 2],
    },
    /// Close it: the callee refused.
    Close {
        /// Its name.
        channel: ChannelId,
    },
    /// A message for the callee, if its link is still up.
    Bring {
        /// Its link.
        callee: PeerKey,
        /// The message, encoded.
        message: Box<[u8]>,
    },
    /// A message for the caller.
    Reply {
        /// Its link.
        caller: PeerKey,
        /// The message, encoded.
        message: Box<[u8]>,
    },
    /// Answer the caller's own Init.
    Answer {
        /// Its link, to be.
        caller: PeerKey,
        /// What was kept to answer it with.
        held: H,
        /// The message that goes in the answer, encoded.
        reply: Option<Box<[u8]>>,
    },
}

/// The home's memory of one introduction.
#[derive(Debug)]
struct Introduction<H> {
    caller: PeerKey,
    callee: PeerKey,
    callee_id: PeerId,
    call: (PeerId, [u8; 32]),
    at: Instant,
    /// The callee's answer, as it goes to the caller; kept, since it may be asked for again.
    answer: Option<Box<[u8]>>,
    /// What to repeat to the callee until it answers, how often that was done, and when it is due.
    repeat: Option<(Box<[u8]>, usize, Instant)>,
    /// The caller's own Init, and until when it is held back.
    hold: Option<(Box<H>, Instant)>,
}

/// How much a home remembers of each kind.
#[cfg(any(test, feature = "operations"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sizes {
    pub(super) remembered: usize,
    pub(super) by_call: usize,
    pub(super) held: usize,
    pub(super) repeated: usize,
    pub(super) early: usize,
    pub(super) parked: usize,
}

/// A home's introductions of the last minute, by channel and by call, with the Inits held and the answers parked.
pub(crate) struct Introductions<H> {
    keys: KeyRng,
    /// What a pair of peers may have relayed, as it is told.
    limits: ChannelLimits,
    by_channel: BTreeMap<ChannelId, Introduction<H>>,
    by_call: BTreeMap<(PeerId, [u8; 32]), ChannelId>,
    holds: BTreeSet<(Instant, ChannelId)>,
    repeats: BTreeSet<(Instant, ChannelId)>,
    sweep: Option<Instant>,
    /// Those that came with the Init of a link which is not confirmed yet.
    early: BTreeSet<(PeerKey, ChannelId)>,
    /// Those whose answer came before the caller's own link was confirmed: it goes out when it is.
    parked: BTreeSet<(PeerKey, ChannelId)>,
    /// Introductions admitted since the start, and datagrams and bytes of UDP payload that all cost, both ways.
    costs: (u64, u64, u64),
    out: VecDeque<HomeOutput<H>>,
}

impl<H> Introductions<H> {
    /// None yet; a pair of peers may have so many bits per second and bytes a day relayed, zero being unlimited.
    pub(crate) fn new(seed: &Seed, rate_bps: u64, quota_bytes: u64) -> Self {
        Self {
            keys: seed.keys("introduce"),
            limits: Limits { rate_bps, quota_bytes }.told(),
            by_channel: BTreeMap::new(),
            by_call: BTreeMap::new(),
            holds: BTreeSet::new(),
            repeats: BTreeSet::new(),
            sweep: None,
            early: BTreeSet::new(),
            parked: BTreeSet::new(),
            costs: (0, 0, 0),
            out: VecDeque::new(),
        }
    }

    /// Fresh entropy for channel ids.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    // ---- what callers want ----

    /// An introduction as the early message of the caller's own Init, which is `held` with what it takes to answer it,
    /// and was so long.
    pub(crate) fn on_early(
        &mut self,
        now: Instant,
        account: &mut Account,
        asked: Asked<'_>,
        view: View,
        init_len: usize,
        held: H,
    ) {
        self.count(init_len);
        let caller = asked.caller.0;
        let reply = match self.introduce(now, account, asked, view) {
            Ok(channel) => {
                self.early.insert((caller, channel));
                let has_room = self.holds.len() < HOLDS_MAX;
                match self.by_channel.get_mut(&channel) {
                    // The same Init again while the first one is held: the hold answers it.
                    Some(introduction) if introduction.hold.is_some() => return,
                    Some(introduction) if has_room && introduction.answer.is_none() => {
                        let until = now + HOLD_MAX;
                        introduction.hold = Some((Box::new(held), until));
                        self.holds.insert((until, channel));
                        return;
                    }
                    Some(introduction) => introduction.answer.clone(),
                    None => {
                        debug_assert!(false, "an introduction is remembered before its channel is named");
                        return;
                    }
                }
            }
            Err(refusal) => encoded(&Message::IntroduceReply { peer: asked.callee, response: Err(refusal) }),
        };
        self.out.push_back(HomeOutput::Answer { caller, held, reply });
    }

    /// An introduction over a link that is up.
    pub(crate) fn on_introduce(&mut self, now: Instant, account: &mut Account, asked: Asked<'_>, view: View) {
        self.count(asked.init.len() + OVERHEAD);
        let caller = asked.caller.0;
        let reply = match self.introduce(now, account, asked, view) {
            Ok(channel) => self.by_channel.get(&channel).and_then(|introduction| introduction.answer.clone()),
            Err(refusal) => encoded(&Message::IntroduceReply { peer: asked.callee, response: Err(refusal) }),
        };
        self.out.extend(reply.map(|message| HomeOutput::Reply { caller, message }));
    }

    /// A peer of a leaf of ours, which is at `remote` unless that is behind a relay, wants us to tell the leaf so.
    /// `view` is of the leaf.
    pub(crate) fn on_vouch(
        &mut self,
        now: Instant,
        account: &mut Account,
        (peer, remote): (PeerId, Option<SocketAddr>),
        leaf: PeerId,
        view: View,
    ) {
        let Some(callee) = view.callee.filter(|_| view.is_serving) else { return };
        let Some(address) = remote.filter(|_| self.admit(now, account, leaf, remote)) else { return };
        let message = encoded(&Message::Vouched { peer, address: address.into() });
        self.out.extend(message.map(|message| HomeOutput::Bring { callee, message }));
    }

    /// Whether somebody at `caller` may be introduced to a leaf, or told of to it; if so it is entered.
    fn admit(&self, now: Instant, account: &mut Account, callee: PeerId, caller: Option<SocketAddr>) -> bool {
        self.by_channel.len() < REMEMBERED_MAX && account.take_introduction(now, callee, caller)
    }

    /// The caller's link was confirmed: what was parked for it goes out.
    pub(crate) fn on_link_up(&mut self, caller: PeerKey) {
        while let Some(channel) = first_of(&self.early, caller) {
            self.early.remove(&(caller, channel));
        }
        while let Some(channel) = first_of(&self.parked, caller) {
            self.parked.remove(&(caller, channel));
            let answer = self.by_channel.get(&channel).and_then(|introduction| introduction.answer.clone());
            self.out.extend(answer.map(|message| HomeOutput::Reply { caller, message }));
        }
    }

    // ---- what callees say ----

    /// The callee's answer, to be carried to the caller, whose link is up or not.
    pub(crate) fn on_reply(
        &mut self,
        from: PeerKey,
        channel: ChannelId,
        response: Result<&[u8], Refusal>,
        caller_is_up: bool,
    ) -> Result<(), DropReason> {
        let introduction = self.by_channel.get_mut(&channel).ok_or(DropReason::UnknownReceiver)?;
        if introduction.callee != from {
            return Err(DropReason::WrongPath);
        }
        if let Some((_, _, at)) = introduction.repeat.take() {
            self.repeats.remove(&(at, channel));
        }
        let (caller, limits) = (introduction.caller, self.limits);
        let response_told = response.map(|packet| (channel, limits, packet));
        let reply = Message::IntroduceReply { peer: introduction.callee_id, response: response_told };
        let message = encoded(&reply).ok_or(DropReason::BadContents)?;
        if introduction.answer.replace(message.clone()).is_some() {
            // The callee answered twice; the caller has it, or asks again.
            return Ok(());
        }
        let len = message.len();
        self.count(len + ANSWER_OVERHEAD);
        if let Some(held) = self.take_hold(channel) {
            self.count(len + RESPONSE_OVERHEAD);
            self.out.push_back(HomeOutput::Answer { caller, held, reply: Some(message) });
        } else if caller_is_up && !self.early.contains(&(caller, channel)) {
            self.count(len + ANSWER_OVERHEAD);
            self.out.push_back(HomeOutput::Reply { caller, message });
        } else {
            self.parked.insert((caller, channel));
        }
        if response.is_err() {
            self.out.push_back(HomeOutput::Close { channel });
        }
        Ok(())
    }

    // ---- time ----

    /// Repeats what is unanswered, answers what was held long enough, forgets what is old.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, channel)) = self.repeats.first().filter(|(at, _)| *at <= now) {
            self.repeats.remove(&(at, channel));
            self.repeat(now, channel);
        }
        while let Some(&(until, channel)) = self.holds.first().filter(|(until, _)| *until <= now) {
            self.holds.remove(&(until, channel));
            if let Some(introduction) = self.by_channel.get_mut(&channel)
                && let Some((held, _)) = introduction.hold.take()
            {
                let caller = introduction.caller;
                self.out.push_back(HomeOutput::Answer { caller, held: *held, reply: None });
            }
        }
        if self.sweep.is_some_and(|at| at <= now) {
            let old = self.by_channel.iter().filter(|(_, introduction)| now.since(introduction.at) >= CALL_MEMORY);
            let old: Vec<ChannelId> = old.map(|(channel, _)| *channel).collect();
            for channel in old {
                self.forget(channel);
            }
            self.sweep = (!self.by_channel.is_empty()).then(|| now + CALL_MEMORY);
        }
    }

    /// When something is to be repeated, a hold ends, or memory can be freed.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let hold = self.holds.first().map(|(at, _)| *at);
        let repeat = self.repeats.first().map(|(at, _)| *at);
        earliest(earliest(hold, repeat), self.sweep)
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<HomeOutput<H>> {
        queue::pop(&mut self.out, 0)
    }

    // ---- getters ----

    /// The channel that was opened for the introduction of this caller with this Init, if that is remembered.
    pub(crate) fn channel_of(&self, caller: PeerId, init: &[u8]) -> Option<ChannelId> {
        self.by_call.get(&(caller, ephemeral_of(init)?)).copied()
    }

    /// Who called, in the introduction that this channel was opened for.
    pub(crate) fn caller_of(&self, channel: ChannelId) -> Option<PeerKey> {
        self.by_channel.get(&channel).map(|introduction| introduction.caller)
    }

    /// Whether this channel was opened for the link of the caller's that is being confirmed, and not for the one that it
    /// replaces.
    pub(crate) fn is_early(&self, caller: PeerKey, channel: ChannelId) -> bool {
        self.early.contains(&(caller, channel))
    }

    /// Introductions admitted since the start, and the datagrams and bytes of UDP payload that all have cost, both
    /// ways.
    pub(crate) fn costs(&self) -> (u64, u64, u64) {
        self.costs
    }

    /// How much is remembered.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            remembered: self.by_channel.len(),
            by_call: self.by_call.len(),
            held: self.holds.len(),
            repeated: self.repeats.len(),
            early: self.early.len(),
            parked: self.parked.len(),
        }
    }

    // ---- inside ----

    /// Opens the channel and carries the Init to the callee.
    fn introduce(
        &mut self,
        now: Instant,
        account: &mut Account,
        asked: Asked<'_>,
        view: View,
    ) -> Result<ChannelId, Refusal> {
        if !view.is_serving {
            return Err(Refusal::NotASupernode);
        }
        let ephemeral = ephemeral_of(asked.init).ok_or(Refusal::Unknown)?;
        let callee = view.callee.ok_or(Refusal::NotRegistered)?;
        let call = (asked.caller.1, ephemeral);
        if let Some(&channel) = self.by_call.get(&call).filter(|_| view.is_open) {
            // Repeated: the answer is there already, or the callee is being asked.
            return Ok(channel);
        }
        if view.is_exhausted || !self.admit(now, account, asked.callee, asked.remote) || !view.has_room {
            return Err(Refusal::Busy);
        }
        let channel = ChannelId(self.keys.bytes());
        let ends = [asked.caller, (callee, asked.callee)];
        self.out.push_back(HomeOutput::Open { channel, ends });
        let message = encoded(&Message::Introduced { channel, limits: self.limits, init: asked.init });
        let repeat_at = now + REPEATS[0];
        self.by_call.insert(call, channel);
        let introduction = Introduction {
            caller: asked.caller.0,
            callee,
            callee_id: asked.callee,
            call,
            at: now,
            answer: None,
            repeat: message.clone().map(|message| (message, 0, repeat_at)),
            hold: None,
        };
        self.by_channel.insert(channel, introduction);
        self.repeats.insert((repeat_at, channel));
        self.sweep.get_or_insert(now + CALL_MEMORY);
        self.costs.0 += 1;
        self.count(asked.init.len() + BRING_OVERHEAD);
        self.out.extend(message.map(|message| HomeOutput::Bring { callee, message }));
        Ok(channel)
    }

    /// The callee has not answered: its Init again.
    fn repeat(&mut self, now: Instant, channel: ChannelId) {
        let Some(introduction) = self.by_channel.get_mut(&channel) else { return };
        let Some((message, repeats, at)) = &mut introduction.repeat else { return };
        let callee = introduction.callee;
        let message = message.clone();
        *repeats += 1;
        if *repeats > REPEATS.len() {
            // A channel costs its relay a place, which strangers could else fill with what nobody answers.
            self.out.push_back(HomeOutput::Close { channel });
            return self.forget(channel);
        }
        *at = now + REPEATS.get(*repeats).copied().unwrap_or(LAST_WAIT);
        self.repeats.insert((*at, channel));
        self.out.push_back(HomeOutput::Bring { callee, message });
    }

    fn take_hold(&mut self, channel: ChannelId) -> Option<H> {
        let (held, until) = self.by_channel.get_mut(&channel)?.hold.take()?;
        self.holds.remove(&(until, channel));
        Some(*held)
    }

    fn forget(&mut self, channel: ChannelId) {
        let Some(introduction) = self.by_channel.remove(&channel) else { return };
        self.by_call.remove(&introduction.call);
        self.early.remove(&(introduction.caller, channel));
        self.parked.remove(&(introduction.caller, channel));
        if let Some((_, until)) = introduction.hold {
            self.holds.remove(&(until, channel));
        }
        if let Some((_, _, at)) = introduction.repeat {
            self.repeats.remove(&(at, channel));
        }
    }

    fn count(&mut self, bytes: usize) {
        self.costs.1 += 1;
        self.costs.2 += bytes as u64;
    }
}

fn first_of(all: &BTreeSet<(PeerKey, ChannelId)>, caller: PeerKey) -> Option<ChannelId> {
    let (whose, channel) = all.range((caller, ChannelId([0; 6]))..).next()?;
    (*whose == caller).then_some(*channel)
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;
