//! Carries introductions between their three parts and what they are made of: links, handshakes, channels, lookups.

use super::Node;
use crate::api::{CommandError, ConnectError, Event, StreamEnd};
use crate::identity::PeerId;
use crate::introduce::{
    self, AfterFailure, Answered, Asked, CallOutput, HeldInit, HomeOutput, Judgement, Known, LinkLeft, LookupFailure,
    View, answered_index,
};
use crate::net::{DropReason, PeerKey};
use crate::path::Route;
use crate::peer::{AttemptRoute, LinkUse, Origin, Peer};
use crate::relay::{End, Way};
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::message::{ChannelLimits, InitBody, Message, Refusal};
use crate::wire::packet::{ChannelId, Packet};

// ---- the caller ----

impl Node {
    /// Starts to reach a peer, unless that is under way.
    pub(crate) fn call(&mut self, now: Instant, id: PeerId) -> Result<(), CommandError> {
        if self.overlay.is_leaving() {
            return Err(CommandError::Leaving);
        }
        let known = self.known_of(&id);
        self.calls.call(now, &mut self.account, id, &known)?;
        self.carry_calls(now);
        Ok(())
    }

    /// Starts to reach a relay that is at no address, for a leg.
    pub(super) fn call_leg(&mut self, now: Instant, volunteer: PeerId) {
        let known = self.known_of(&volunteer);
        self.calls.call_leg(now, &mut self.account, volunteer, &known);
        self.carry_calls(now);
    }

    /// A lookup has ended, or an advert named the peer's homes.
    pub(super) fn on_location(
        &mut self,
        now: Instant,
        id: PeerId,
        location: Result<Vec<introduce::Home>, LookupFailure>,
    ) {
        let known = self.known_of(&id);
        self.calls.on_location(now, id, location, &known);
        self.carry_calls(now);
    }

    /// The call's deadline came.
    pub(crate) fn on_call_timeout(&mut self, now: Instant, id: PeerId) {
        let known = self.known_of(&id);
        self.calls.handle_timeout(now, id, &known);
        self.carry_calls(now);
    }

    /// A home answered an introduction of ours.
    pub(crate) fn on_introduce_reply(
        &mut self,
        now: Instant,
        home: PeerKey,
        id: PeerId,
        response: Result<(ChannelId, ChannelLimits, &[u8]), Refusal>,
    ) -> Result<(), DropReason> {
        let home_id = self.peers.id_of(home).ok_or(DropReason::WrongPath)?;
        match response {
            Ok((channel, limits, packet)) => {
                let receiver = answered_index(packet)?;
                let key = self.peers.awaits_introduced(receiver, &id, &home_id)?;
                self.relay.add_end(channel, Way { end: key, via: home });
                self.peers.need(now, home);
                self.on_answer(now, key, receiver, Route::Relayed { channel, via: home }, packet)?;
                self.peers.set_limits(key, limits);
            }
            Err(refusal) if self.overlay.on_trial_answer(now, &home_id, &id, refusal) => {}
            Err(refusal) => self.calls.on_refused(now, id, &home_id, refusal)?,
        }
        self.carry_calls(now);
        Ok(())
    }

    fn known_of(&self, id: &PeerId) -> Known {
        Known {
            is_linked: self.peers.up_key(id).is_some(),
            addresses: self.overlay.supernode_addresses(id),
            is_leaf_here: self.overlay.is_registered(id),
            homes: self.overlay.homes_of(id),
            limited: self.relay.limited_for(id),
        }
    }

    /// Carries out what calls want, until they want nothing more.
    pub(crate) fn carry_calls(&mut self, now: Instant) {
        while let Some(output) = self.calls.poll_output() {
            match output {
                CallOutput::Lookup { peer } => {
                    if let Some(location) = self.overlay.start_lookup(now, peer) {
                        self.on_location(now, peer, location);
                    }
                }
                CallOutput::Forget { peer } => self.overlay.forget_record(&peer),
                CallOutput::Dial { peer, address, origin } => drop(self.dial(now, peer, address, origin, None)),
                CallOutput::Build { peer, link_use, home } => match self.introduced_init(now, peer, link_use, home.0) {
                    Some(init) => self.calls.on_init_built(peer, init),
                    None => self.calls.on_impossible(peer),
                },
                CallOutput::Introduce { peer, home: (home, address), init } => {
                    let message = Message::Introduce { peer, init: &init };
                    match self.peers.up_key(&home) {
                        Some(home) => self.peers.ask(now, home, &message),
                        None => drop(self.dial(now, home, address, Origin::Hearsay, Some(message))),
                    }
                }
                CallOutput::UseLink { peer } => match self.peers.up_key(&peer) {
                    Some(key) => self.make_user_link(now, key),
                    None => self.calls.on_impossible(peer),
                },
                CallOutput::Failed { peer, error } => self.on_call_failed(now, peer, error),
                CallOutput::LegFailed { peer } => self.relay.on_unreachable(now, peer),
            }
        }
    }

    /// An Init for a peer, with our candidates sealed inside, for this home to carry.
    fn introduced_init(&mut self, now: Instant, id: PeerId, link_use: LinkUse, home: PeerId) -> Option<Box<[u8]>> {
        let key = self.peers.enter(now, id)?;
        let body = InitBody::introduced(self.whereabouts(0, link_use), link_use == LinkUse::Leg);
        let init = self.attempt(now, key, AttemptRoute::Introduced(home), &body)?;
        self.peers.serve(now, key, link_use);
        self.traversal.on_told(key);
        Some(init)
    }

    fn on_call_failed(&mut self, now: Instant, id: PeerId, error: ConnectError) {
        self.peers.drop_pings(&id);
        let left = match self.peers.by_id(&id).filter(|p| p.is_up()) {
            Some(peer) if peer.current().is_some() => LinkLeft::Working,
            Some(_) => LinkLeft::Stranded,
            None => LinkLeft::None,
        };
        for after in left.after_failure() {
            match after {
                AfterFailure::Drop => {
                    let Some(key) = self.peers.key_of(&id) else { continue };
                    self.drop_peer(now, key, self.relay.end_of(key, StreamEnd::PeerGone));
                }
                AfterFailure::Tell => self.report.tell(Event::ConnectFailed { peer: id, error }),
                AfterFailure::EndWaiting => {
                    self.on_streams(now, |streams| streams.end_waiting(&id, StreamEnd::Connect(error)));
                    self.peers.key_of(&id).into_iter().for_each(|key| self.drop_if_idle(now, key));
                }
            }
        }
    }
}

// ---- the home ----

impl Node {
    /// An introduction as the early message of the caller's own Init, which is held.
    pub(crate) fn on_early_introduce(
        &mut self,
        now: Instant,
        caller: PeerKey,
        held: HeldInit,
        callee: PeerId,
        init: &[u8],
    ) -> Result<(), DropReason> {
        let asked = Asked { caller: (caller, held.accepted.peer), remote: Some(held.path.remote), callee, init };
        let view = self.introduction_view(&asked);
        self.introductions.on_early(now, &mut self.account, asked, view, held.init_len, held);
        self.carry_introductions(now)
    }

    /// An introduction over a link that is up.
    pub(crate) fn on_introduce(&mut self, now: Instant, caller: PeerKey, callee: PeerId, init: &[u8]) {
        let Some(peer) = self.peers.get(caller) else { return };
        let remote = peer.direct_path().map(|path| path.remote);
        let asked = Asked { caller: (caller, peer.id()), remote, callee, init };
        let view = self.introduction_view(&asked);
        self.introductions.on_introduce(now, &mut self.account, asked, view);
        let _ = self.carry_introductions(now);
    }

    /// The callee's answer, to be carried to the caller.
    pub(crate) fn on_introduced_reply(
        &mut self,
        now: Instant,
        from: PeerKey,
        channel: ChannelId,
        response: Result<&[u8], Refusal>,
    ) -> Result<(), DropReason> {
        let caller_is_up = self.introductions.caller_of(channel).is_some_and(|caller| self.peers.is_up(caller));
        self.introductions.on_reply(from, channel, response, caller_is_up)?;
        self.carry_introductions(now)
    }

    /// The caller's link was confirmed: what was parked for it goes out.
    pub(crate) fn release_parked(&mut self, now: Instant, caller: PeerKey) {
        self.introductions.on_link_up(caller);
        let _ = self.carry_introductions(now);
    }

    pub(crate) fn on_introductions_due(&mut self, now: Instant) {
        self.introductions.handle_timeout(now);
        let _ = self.carry_introductions(now);
    }

    /// A peer of a leaf of ours wants us to tell the leaf where we see it.
    pub(crate) fn on_vouch(&mut self, now: Instant, from: PeerKey, id: &PeerId, leaf: PeerId) {
        let remote = self.peers.get(from).and_then(Peer::direct_path).map(|path| path.remote);
        let view = View { is_serving: self.overlay.is_serving(), callee: self.callee(&leaf), ..View::default() };
        self.introductions.on_vouch(now, &mut self.account, (*id, remote), leaf, view);
        let _ = self.carry_introductions(now);
    }

    fn callee(&self, id: &PeerId) -> Option<PeerKey> {
        self.peers.up_key(id).filter(|_| self.overlay.is_registered(id))
    }

    fn introduction_view(&self, asked: &Asked<'_>) -> View {
        let callee = self.callee(&asked.callee);
        let before = self.introductions.channel_of(asked.caller.1, asked.init);
        View {
            is_serving: self.overlay.is_serving(),
            callee,
            is_open: before.is_some_and(|channel| self.relay.contains(channel)),
            is_exhausted: self.relay.is_exhausted(),
            has_room: callee.is_some_and(|callee| self.relay.has_room(asked.caller.0, callee)),
        }
    }

    /// Carries out what introductions want; says whether the Inits that were to be answered could be.
    fn carry_introductions(&mut self, now: Instant) -> Result<(), DropReason> {
        let mut result = Ok(());
        while let Some(output) = self.introductions.poll_output() {
            match output {
                HomeOutput::Open { channel, ends } => {
                    // A leg without a path until its link is confirmed: nothing is relayed to an unproven address.
                    let path = |peer| self.peers.get(peer).filter(|p| p.is_up()).and_then(Peer::direct_path);
                    let ends = ends.map(|(peer, id)| End { peer, id, path: path(peer) });
                    let closed = self.relay.open(now, channel, ends);
                    self.tell_closed(closed);
                }
                HomeOutput::Close { channel } => drop(self.relay.close(now, channel)),
                HomeOutput::Bring { callee, message } if self.peers.is_up(callee) => {
                    self.peers.send_bytes(callee, None, message, false);
                }
                HomeOutput::Bring { .. } => {}
                HomeOutput::Reply { caller, message } => self.peers.send_bytes(caller, None, message, false),
                HomeOutput::Answer { caller, held, reply } => {
                    result = result.and(self.answer_init(now, caller, held, reply.as_deref(), true));
                }
            }
        }
        self.report.set_introductions(self.introductions.costs());
        result
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
        if self.peers.id_of(home).is_some_and(|home| self.overlay.on_brought(&home, init)) {
            // It looks like any call that is not wanted.
            return introduce::reply(channel, Err(DropReason::Unauthentic)).map(|word| self.peers.send(home, &word));
        }
        let is_chosen = self.peers.get(home).is_some_and(Peer::is_wanted);
        let route = Route::Relayed { channel, via: home };
        let answered = self.peers.answered_init(init);
        let answered = answered.map(|(route, response)| Answered { is_direct: route.is_direct(), response });
        if let Judgement::Again(response) = introduce::judge(now, &mut self.account, home, is_chosen, answered)? {
            let response: Box<[u8]> = response.into();
            self.peers.send(home, &introduce::reply(channel, Ok(&response))?);
            // The caller's link to the home was another one meanwhile: so is the channel.
            if let Some(key) = self.peers.answer_by(init, route) {
                self.relay.add_end(channel, Way { end: key, via: home });
                self.peers.set_limits(key, limits);
            }
            return Ok(());
        }
        if let Ok(Packet::Foreign { version, sender }) = Packet::decode(init) {
            let reason = self.peers.on_foreign_init(now, None, version, sender);
            self.peers.send(home, &introduce::reply(channel, Err(reason))?);
            self.carry_peers(now);
            return Err(reason);
        }
        let mut plain = [0; DATAGRAM_LEN_MAX];
        let (accepted, body) = self.open_init(init, false, &mut plain)?;
        let caller = accepted.peer;
        let result = self.on_introduced_init(now, route, accepted, body, init.len());
        self.peers.send(home, &introduce::reply(channel, result.as_deref().map_err(|reason| *reason))?);
        if let Some(key) = self.peers.key_of(&caller).filter(|_| result.is_ok()) {
            self.peers.set_limits(key, limits);
        }
        Ok(())
    }
}
