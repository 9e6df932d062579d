//! [`Peers`]: all of them, their deadlines, and the handshakes that wait to be confirmed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::indices::Indices;
use super::outgoing::Outgoing;
use super::output::Output;
use super::pings::Pings;
use super::state::Peer;
use super::table::Table;
use super::traffic::LinkUse;
use crate::identity::PeerId;
use crate::keepalive::{Duty, Pace};
use crate::link::{Epoch, Freshness, Gate, Identity};
use crate::net::{DropReason, PeerKey};
use crate::queue;
use crate::random::{KeyRng, Seed};
use crate::time::{Deadlines, Instant, WallTime};
use crate::wire::message::{ChannelLimits, Message};

/// All peers of this node, what finds them, and what is to be sent to them.
pub(crate) struct Peers {
    pub(super) me: Arc<Identity>,
    /// Tokens, ephemeral keys, sessions.
    pub(super) keys: KeyRng,
    pub(super) table: Table,
    pub(super) indices: Indices,
    pub(super) gate: Gate,
    /// Handshakes that we answered, in order, and by the ephemeral key of their Init.
    pub(super) unconfirmed: VecDeque<(Instant, PeerKey)>,
    pub(super) by_ephemeral: BTreeMap<[u8; 32], PeerKey>,
    /// What waits to be polled, at most [`OUTGOING_MAX`](super::OUTGOING_MAX).
    pub(super) outgoing: VecDeque<Outgoing>,
    /// How often beats leave: one for all links, since all go through the same router.
    pub(super) pace: Pace,
    /// How links that this node needs are kept alive from its side.
    own_duty: Duty,
    /// Those whose link a room needs, in order: few, also where there are leaves by the thousand.
    wanted: Vec<PeerKey>,
    deadlines: Deadlines<PeerKey>,
    touched: Vec<PeerKey>,
    /// The clock of Inits, ours and others'.
    pub(super) freshness: Freshness,
    pub(super) pings: Pings,
    /// An Init that cannot be read is not answered before,
    pub(super) foreign_answered: Instant,
    /// and the user not told of one.
    pub(super) foreign_told: Instant,
    outputs: VecDeque<Output>,
}

impl Peers {
    /// With the mark of the clock of Inits that an earlier run saved, or 0.
    pub(crate) fn new(me: Arc<Identity>, seed: &Seed, own_duty: Duty, clock_mark: u64) -> Self {
        let mut keys = seed.keys("links");
        let gate = Gate::new(&mut keys);
        Self {
            me,
            keys,
            table: Table::default(),
            indices: Indices::default(),
            gate,
            unconfirmed: VecDeque::new(),
            by_ephemeral: BTreeMap::new(),
            outgoing: VecDeque::new(),
            pace: Pace::UNKNOWN,
            own_duty,
            wanted: Vec::new(),
            deadlines: Deadlines::default(),
            touched: Vec::new(),
            freshness: Freshness::new(clock_mark),
            pings: Pings::default(),
            foreign_answered: Instant::ZERO,
            foreign_told: Instant::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// The wall clock is set.
    pub(crate) fn handle_wall_clock(&mut self, now: Instant, wall: WallTime) {
        self.freshness.handle_wall_clock(now, wall);
    }

    /// What is wanted next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        queue::pop(&mut self.outputs, 0)
    }

    pub(super) fn want(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    /// An unguessable token.
    pub(super) fn token(&mut self) -> [u8; 8] {
        self.keys.bytes()
    }

    // ---- the table ----

    pub(crate) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.table.get(key)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.table.get_mut(key)
    }

    pub(crate) fn key_of(&self, id: &PeerId) -> Option<PeerKey> {
        self.table.key_of(id)
    }

    /// Who it is.
    pub(crate) fn id_of(&self, key: PeerKey) -> Option<PeerId> {
        self.get(key).map(Peer::id)
    }

    pub(crate) fn by_id(&self, id: &PeerId) -> Option<&Peer> {
        self.table.by_id(id)
    }

    /// Whether the link to a peer is up.
    pub(crate) fn is_up(&self, key: PeerKey) -> bool {
        self.get(key).is_some_and(Peer::is_up)
    }

    /// The peer with this id, if the link to it is up.
    pub(crate) fn up_key(&self, id: &PeerId) -> Option<PeerKey> {
        self.key_of(id).filter(|key| self.is_up(*key))
    }

    /// Something needs the link to a peer now.
    pub(crate) fn need(&mut self, now: Instant, key: PeerKey) {
        if let Some(peer) = self.get_mut(key) {
            peer.needed = now;
        }
    }

    /// Sends what is answered over the same link, which is needed for that.
    pub(crate) fn ask(&mut self, now: Instant, key: PeerKey, message: &Message<'_>) {
        self.need(now, key);
        self.send(key, message);
    }

    /// The link carries user traffic from now on: we called the peer, or a service lets it in.
    pub(crate) fn carry_traffic(&mut self, now: Instant, key: PeerKey) {
        self.get_mut(key).into_iter().for_each(|peer| peer.carry_traffic(now));
    }

    /// The link is for this from now on, too.
    pub(crate) fn serve(&mut self, now: Instant, key: PeerKey, link_use: LinkUse) {
        self.get_mut(key).into_iter().for_each(|peer| peer.serve(now, link_use));
    }

    /// User traffic was seen.
    pub(crate) fn on_used(&mut self, now: Instant, key: PeerKey) {
        self.get_mut(key).into_iter().for_each(|peer| peer.on_used(now));
    }

    /// A link has streams now, or has none any more.
    pub(crate) fn set_busy(&mut self, key: PeerKey, busy: bool) {
        self.get_mut(key).into_iter().for_each(|peer| peer.set_busy(busy));
    }

    /// What the relay says that the channel with a peer may carry.
    pub(crate) fn set_limits(&mut self, key: PeerKey, limits: ChannelLimits) {
        self.get_mut(key).into_iter().for_each(|peer| peer.set_limits(limits));
    }

    /// Enters a peer; nothing when there are too many.
    pub(super) fn insert(&mut self, peer: Peer) -> Option<PeerKey> {
        self.table.insert(peer)
    }

    /// Forgets a peer with its keys, handshakes and deadline.
    pub(super) fn remove(&mut self, key: PeerKey) -> Option<Box<Peer>> {
        let mut peer = self.table.remove(key)?;
        if let Ok(at) = self.wanted.binary_search(&key) {
            self.wanted.remove(at);
        }
        self.deadlines.set(key, &mut peer.deadline, None);
        let attempts = peer.attempts.iter().map(|attempt| attempt.index);
        let old = peer.old_epoch.as_ref().map(|old| old.0.local_index());
        let epoch = peer.epoch.as_ref().map(|epoch| epoch.local_index());
        for index in attempts.chain(old).chain(epoch) {
            self.indices.free(index);
        }
        Some(peer)
    }

    /// Those whose link a room needs.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.wanted.iter().filter_map(|key| Some((*key, self.get(*key)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.table.iter()
    }

    /// Whose keys a packet with this receiver index is under.
    pub(crate) fn owner(&self, receiver: u32) -> Option<PeerKey> {
        self.indices.get(receiver)
    }

    // ---- deadlines ----

    /// Something about this peer may have moved its deadline: [`Self::settle`] looks.
    pub(crate) fn touch(&mut self, key: PeerKey) {
        self.touched.push(key);
    }

    /// How many were touched since the last settling.
    pub(crate) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Moves the deadlines of those that were touched; `other` is what other machines wait for on behalf of the peer.
    pub(crate) fn settle(&mut self, now: Instant, mut other: impl FnMut(PeerKey) -> Option<Instant>) {
        // One call may mention a peer many times.
        self.touched.sort_unstable();
        self.touched.dedup();
        for key in self.touched.drain(..) {
            let Some(peer) = self.table.get_mut(key) else { continue };
            let next = crate::time::earliest(peer.next_deadline(now, self.pace), other(key));
            self.deadlines.set(key, &mut peer.deadline, next);
        }
    }

    /// One peer whose deadline has come. It is disarmed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<PeerKey> {
        let key = self.deadlines.pop_due(now)?;
        if let Some(peer) = self.table.get_mut(key) {
            peer.deadline = None;
        }
        Some(key)
    }

    /// The earliest deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many handshakes that we answered wait to be confirmed.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// What is due of no peer's own.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.gate.handle_timeout(now);
    }

    // ---- keeping links alive ----

    /// Beats leave so often from now on: all links on which they do are looked at anew.
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        if self.pace != pace {
            self.pace = pace;
            let beating = self.table.iter().filter(|(_, p)| p.duty == Duty::Binding).map(|(key, _)| key);
            self.touched.extend(beating);
        }
    }

    /// How links that this node needs are kept alive from its side.
    pub(crate) fn own_duty(&self) -> Duty {
        self.own_duty
    }

    /// That changes, on all links that it keeps: it is a matter of what is between us and the internet.
    pub(crate) fn set_own_duty(&mut self, duty: Duty) {
        self.own_duty = duty;
        let kept = self.table.iter().filter(|(_, p)| !matches!(p.duty, Duty::None | Duty::Rest)).map(|(key, _)| key);
        let kept: Vec<PeerKey> = kept.collect();
        for key in kept {
            if let Some(peer) = self.table.get_mut(key) {
                peer.duty = duty;
            }
            self.touch(key);
        }
    }

    /// A room needs the link to this peer from now on, or none does.
    pub(crate) fn set_wanted(&mut self, key: PeerKey, wanted: bool) {
        let own_duty = self.own_duty;
        if let Some(peer) = self.table.get_mut(key) {
            peer.wanted = wanted;
            match self.wanted.binary_search(&key) {
                Err(at) if wanted => self.wanted.insert(at, key),
                Ok(at) if !wanted => {
                    self.wanted.remove(at);
                }
                _ => {}
            }
            if wanted && matches!(peer.duty, Duty::None | Duty::Rest) {
                peer.duty = own_duty;
            }
        }
        self.touch(key);
    }

    /// The same for one that a room goes on to need, if there is a link to it or about to be.
    pub(crate) fn keep(&mut self, id: &PeerId) {
        if let Some(key) = self.key_of(id) {
            self.set_wanted(key, true);
        }
    }

    /// The same for one of all, where this node needs other links than before.
    pub(crate) fn review(&mut self, now: Instant, key: PeerKey, wanted: bool) {
        if self.get(key).is_some_and(|p| p.wanted != wanted) {
            self.set_wanted(key, wanted);
            if let Some(peer) = self.table.get_mut(key) {
                peer.needed = now;
            }
        }
    }

    /// The link to this peer rests from now on, unless it is for the application.
    pub(crate) fn rest(&mut self, id: &PeerId) {
        let Some(key) = self.key_of(id) else { return };
        self.set_wanted(key, false);
        if let Some(peer) = self.table.get_mut(key).filter(|peer| peer.traffic.is_none()) {
            peer.duty = Duty::Rest;
        }
    }

    /// A room needs the link no longer; it stays while another room does.
    pub(crate) fn release(&mut self, now: Instant, id: &PeerId, wanted: bool, is_leaf_here: bool) {
        let Some(key) = self.key_of(id) else { return };
        let own_duty = self.own_duty;
        self.set_wanted(key, wanted);
        if let Some(peer) = self.table.get_mut(key) {
            peer.needed = now;
            if peer.duty == Duty::Rest {
                peer.duty = own_duty;
            }
            // Perhaps because it did not answer: a dead link must not be taken for one when the peer is dialled again.
            peer.beats.doubt(now);
            if !wanted && is_leaf_here && peer.traffic.is_none() {
                // It was a supernode, and is a leaf of ours now: it keeps the link alive.
                peer.duty = Duty::None;
            }
        }
    }

    // ---- what arrives under a link's keys ----

    /// Opens a sealed packet with whichever of the peer's keys it names; whether it is the newest yet. Changes nothing
    /// unless it is authentic.
    pub(crate) fn open_sealed<'a>(
        &mut self,
        key: PeerKey,
        receiver: u32,
        counter: u32,
        packet: &'a mut [u8],
    ) -> Result<(&'a mut [u8], bool), DropReason> {
        let peer = self.table.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let (epoch, is_current) = epoch_of(peer, receiver).ok_or(DropReason::UnknownReceiver)?;
        let plain = epoch.open(packet).map_err(DropReason::from)?;
        Ok((plain, note_newest(peer, is_current, counter)))
    }

    /// The same for a beat, which has nothing inside.
    pub(crate) fn open_beat(
        &mut self,
        key: PeerKey,
        receiver: u32,
        counter: u32,
        packet: &[u8],
    ) -> Result<bool, DropReason> {
        let peer = self.table.get_mut(key).ok_or(DropReason::UnknownReceiver)?;
        let (epoch, is_current) = epoch_of(peer, receiver).ok_or(DropReason::UnknownReceiver)?;
        epoch.open_beat(packet).map_err(DropReason::from)?;
        Ok(note_newest(peer, is_current, counter))
    }
}

/// Whether a packet is the newest yet under the present keys; if so it is noted.
fn note_newest(peer: &mut Peer, is_current: bool, counter: u32) -> bool {
    let is_newest = is_current && counter >= peer.newest;
    if is_newest {
        peer.newest = counter;
    }
    is_newest
}

/// The keys that a receiver index names, and whether they are the present ones.
fn epoch_of(peer: &mut Peer, receiver: u32) -> Option<(&mut Epoch, bool)> {
    if peer.epoch.as_ref().is_some_and(|e| e.local_index() == receiver) {
        return peer.epoch.as_deref_mut().map(|e| (e, true));
    }
    if let Some(at) = peer.pending.iter().position(|p| p.epoch.local_index() == receiver) {
        return peer.pending.get_mut(at).map(|p| (&mut p.epoch, false));
    }
    if peer.old_epoch.as_ref().is_some_and(|old| old.0.local_index() == receiver) {
        return peer.old_epoch.as_deref_mut().map(|old| (&mut old.0, false));
    }
    None
}
