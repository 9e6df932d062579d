//! What ends agree on with a relay, and with one another: tokens that are presented, relays that are chosen, volunteers.

use arrayvec::ArrayVec;

use super::around::Around;
use super::joins::Presented;
use super::volunteering::can_relay;
use super::{Closed, End, Output, Relay, Work};
use crate::api::{LimitedRelay, StreamEnd, VolunteerStatus};
use crate::identity::PeerId;
use crate::net::{DropReason, PeerKey};
use crate::queue;
use crate::time::{Instant, earliest};
use crate::wire::message::{Message, Refusal, VOLUNTEERS_NAMED_MAX, Whereabouts};
use crate::wire::packet::ChannelId;

impl Relay {
    /// A message for this room came over a link. `may_ask`: something is done here for whoever sent it.
    pub(crate) fn on_message(
        &mut self,
        now: Instant,
        from: PeerKey,
        message: Message<'_>,
        may_ask: bool,
        around: &Around<'_>,
    ) {
        if let Message::RelayJoin { token } = message {
            return self.on_join(now, token, from, may_ask, around);
        }
        if self.on_volunteers_message(now, from, &message, may_ask, around) {
            return;
        }
        let Self { ends, keys, .. } = self;
        let Work { choices, out, .. } = &mut **self.work.get_or_insert_default();
        match message {
            Message::ChannelLimited { channel, limit, retry_after_s } => {
                if let Some(way) = ends.get(channel).filter(|way| way.via == from) {
                    choices.on_limited(now, (way, channel), limit, retry_after_s, around, out);
                }
            }
            Message::RelayOffer { round, urgent, relays } => {
                choices.on_offer(now, from, (round, urgent, &relays), around, keys, out);
            }
            Message::RelayPick { round, pick } => choices.on_pick(now, from, (round, pick), around, out),
            Message::RelayJoined { token, result } => choices.on_joined(now, from, (token, result), around, out),
            _ => debug_assert!(false, "for another room"),
        }
    }

    /// An end presents a token, so that a channel is opened to whoever else does.
    fn on_join(&mut self, now: Instant, token: [u8; 16], from: PeerKey, may_ask: bool, around: &Around<'_>) {
        let end = |key: PeerKey| {
            let peer = around.peers.get(key).filter(|peer| peer.is_up())?;
            Some(End { peer: key, id: peer.id(), path: Some(peer.direct_path()?) })
        };
        let Some(second) = end(from) else { return };
        let result = if self.caps.is_exhausted() {
            Err(Refusal::Busy)
        } else if !around.is_serving && !self.is_volunteering() {
            Err(Refusal::NotASupernode)
        } else if !may_ask {
            Err(Refusal::Busy)
        } else {
            match self.work.get_or_insert_default().joins.present(now, token, (from, second.id)) {
                Presented::Wait => return,
                Presented::Second((first, _)) => match end(first).filter(|_| self.has_room(first, from)) {
                    Some(first) => {
                        let channel = ChannelId(self.keys.bytes());
                        let closed = self.open(now, channel, [first, second]);
                        let message = |closed: Closed| Message::ChannelClosed { channel: closed.channel };
                        let work = self.work.get_or_insert_default();
                        work.joins.on_joined(now, token, from, channel);
                        work.out.extend(closed.into_iter().map(|c| Output::Send { peer: c.leg, message: message(c) }));
                        self.say_joined(first.peer, token, Ok(channel));
                        Ok(channel)
                    }
                    None => Err(Refusal::Busy),
                },
                Presented::Again(channel) if self.contains(channel) => Ok(channel),
                Presented::Again(_) => Err(Refusal::Busy),
                Presented::Refused(refusal) => Err(refusal),
            }
        };
        self.say_joined(from, token, result);
    }

    fn say_joined(&mut self, peer: PeerKey, token: [u8; 16], result: Result<ChannelId, Refusal>) {
        let told = self.caps.limits.told();
        let message = Message::RelayJoined { token, result: result.map(|channel| (channel, told)) };
        self.work.get_or_insert_default().out.push_back(Output::Send { peer, message });
    }

    /// A link uses another path: whether that is a direct one.
    pub(crate) fn on_path(&mut self, now: Instant, link: PeerKey, is_direct: bool) {
        if !is_direct || self.work.is_some() {
            self.work.get_or_insert_default().choices.on_path(now, link, is_direct);
            self.forget_work();
        }
    }

    /// Whether [`Self::handle_choices`] has something to do.
    pub(crate) fn is_choice_due(&self, now: Instant) -> bool {
        let choices = self.work.as_ref().and_then(|work| work.choices.poll_timeout());
        let look = self.volunteering.as_ref().map(|volunteering| volunteering.poll_timeout());
        earliest(choices, look).is_some_and(|at| at <= now)
    }

    /// What choices of relays are to do now, and whether this node volunteers.
    pub(crate) fn handle_choices(&mut self, now: Instant, around: &Around<'_>) {
        if let Some(work) = self.work.as_deref_mut() {
            work.choices.handle_timeout(now, around, &mut work.out);
        }
        self.look_at_volunteering(now, around);
    }

    pub(super) fn forget_work(&mut self) {
        self.work.take_if(|work| work.out.is_empty() && work.is_empty());
    }

    /// Why a link ends that finds no other way: by the limit of its relay, or otherwise as said.
    pub(crate) fn end_of(&self, link: PeerKey, otherwise: StreamEnd) -> StreamEnd {
        self.work.as_ref().and_then(|work| work.choices.end_of(link)).unwrap_or(otherwise)
    }

    /// Relays that have said that they carry no more for this peer and us.
    pub(crate) fn limited_for(&self, peer: &PeerId) -> Vec<PeerId> {
        self.work.as_ref().map(|work| work.choices.limited_for(peer)).unwrap_or_default()
    }

    /// Relays that carry no more for now.
    pub(crate) fn limited(&self, now: Instant) -> Vec<LimitedRelay> {
        self.work.as_ref().map(|work| work.choices.limited(now)).unwrap_or_default()
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = queue::pop(&mut self.work.as_mut()?.out, 0);
        if output.is_none() {
            self.forget_work();
        }
        output
    }

    /// Fresh entropy for ids and tokens.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    // ---- volunteers ----

    /// A message about volunteers, if it is one.
    fn on_volunteers_message(
        &mut self,
        now: Instant,
        from: PeerKey,
        message: &Message<'_>,
        may_ask: bool,
        around: &Around<'_>,
    ) -> bool {
        let answer = match message {
            Message::Volunteer { on } => {
                let refused = self.on_volunteer(from, *on, around).err();
                Message::VolunteerReply { refused }
            }
            Message::VolunteersRequest => Message::Volunteers { named: self.name_volunteers(from, may_ask, around) },
            Message::VolunteerReply { refused } => {
                self.volunteering.iter_mut().for_each(|volunteering| volunteering.on_reply(now, from, *refused));
                return true;
            }
            Message::Volunteers { named } => {
                if let Some(work) = self.work.as_deref_mut() {
                    work.choices.on_volunteers(now, from, named.as_deref().unwrap_or_default());
                }
                return true;
            }
            _ => return false,
        };
        self.work.get_or_insert_default().out.push_back(Output::Send { peer: from, message: answer });
        true
    }

    /// A leaf of ours relays for strangers, or does no longer.
    fn on_volunteer(&mut self, from: PeerKey, on: bool, around: &Around<'_>) -> Result<(), Refusal> {
        let volunteers = &mut self.work.get_or_insert_default().volunteers;
        if !on {
            volunteers.remove(from);
            return Ok(());
        }
        let leaf = around.leaf(from)?;
        // Who is no leaf over UDP cannot be punched towards.
        let path = leaf.direct_path().filter(|path| !path.socket.is_tcp()).ok_or(Refusal::NotAllowed)?;
        volunteers.add(from, leaf.id(), path.remote.ip())
    }

    /// Whom to name to a leaf of ours that asks for volunteers.
    fn name_volunteers(
        &mut self,
        asker: PeerKey,
        may_ask: bool,
        around: &Around<'_>,
    ) -> Result<ArrayVec<PeerId, VOLUNTEERS_NAMED_MAX>, Refusal> {
        let id = around.leaf(asker)?.id();
        if !may_ask {
            return Err(Refusal::Busy);
        }
        let Self { work, keys, .. } = self;
        let Some(work) = work else { return Ok(ArrayVec::new()) };
        let mut named = work.volunteers.name(&id, || u32::from_le_bytes(keys.bytes()));
        named.retain(|volunteer| (around.is_leaf_here)(volunteer));
        Ok(named)
    }

    fn look_at_volunteering(&mut self, now: Instant, around: &Around<'_>) {
        let is_exhausted = self.caps.is_exhausted();
        let Some(volunteering) = self.volunteering.as_mut().filter(|v| v.poll_timeout() <= now) else { return };
        let can = !around.is_serving && !is_exhausted && can_relay(&around.profile);
        let homes: Vec<PeerKey> = around.homes.iter().filter_map(|(home, _)| around.peers.up_key(home)).collect();
        volunteering.look(now, can, &homes, &mut self.work.get_or_insert_default().out);
    }

    /// A volunteer that was called cannot be reached.
    pub(crate) fn on_unreachable(&mut self, now: Instant, volunteer: PeerId) {
        self.work.get_or_insert_default().choices.known.avoid(now, volunteer);
    }

    /// A stranger wants its link to be a leg of this volunteer's channels.
    pub(crate) fn take_guest(&mut self, link: PeerKey, whereabouts: &Whereabouts) -> Result<(), DropReason> {
        let volunteering = self.volunteering.as_mut().ok_or(DropReason::Unauthentic)?;
        volunteering.take_guest(link, whereabouts)
    }

    /// Whether this node relays for strangers although it is a leaf.
    pub(super) fn is_volunteering(&self) -> bool {
        self.volunteering.as_ref().is_some_and(|volunteering| volunteering.is_on())
    }

    /// Whether the caps in force are those of a volunteer.
    pub(super) fn is_volunteers(&self) -> bool {
        self.volunteering.as_ref().is_some_and(|volunteering| !volunteering.is_serving())
    }

    /// This node serves as a supernode from now on, or does no longer: other caps are in force.
    pub(crate) fn set_serving(&mut self, now: Instant, serving: bool) {
        let Some(volunteering) = self.volunteering.as_mut() else { return };
        if volunteering.set_serving(now, serving)
            && let Some(other) = self.other_caps.as_deref_mut()
        {
            core::mem::swap(&mut self.caps, other);
        }
    }

    /// Whether a link is a leg of a channel, or this node an end of one through it.
    pub(crate) fn needs(&self, link: PeerKey) -> bool {
        self.relays_for_us(link) || self.of_leg(link).next().is_some()
    }

    /// What this node does as a volunteer, if it is to be one.
    pub(crate) fn volunteer_status(&self) -> Option<VolunteerStatus> {
        let volunteering = self.volunteering.as_ref()?;
        let caps = self.other_caps.as_deref().filter(|_| volunteering.is_serving()).unwrap_or(&self.caps);
        Some(VolunteerStatus { on: volunteering.is_on(), guests: volunteering.guests(), relayed: caps.relayed() })
    }

    /// How many leaves here volunteer.
    pub(crate) fn volunteers(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.volunteers.len())
    }
}
