//! Relay duty: channels, what they may carry, and the forward itself; and channels of which this node is an end, which
//! others relay for it (`ends`). [`Relay`] has both.
//!
//! A channel joins two *links*, not two addresses: no packet can name a destination. A Relay packet that comes from
//! exactly the current path of one leg goes, bytes unchanged, to the current path of the other. The quota is decided
//! here ([`Relay::forward`]): a token bucket for the rate and a daily count of bytes per pair, whatever the number of
//! channels the pair opens one after the other. There is no queue: what does not fit is dropped, as a policer does.
//!
//! The relay itself may have caps ([`Relay::new`]): a rate for all pairs together, of which each gets its fair share
//! (`fair`), and bytes in 30 days (`quota`). When those are used up it relays nothing more: introductions are refused,
//! and its channels [close](Relay::close_all). Both ends of a channel are told where bytes are used up, a pair's or the
//! relay's own (`limited`).
//!
//! A leaf relays as well, if it is to volunteer and its router allows it (`volunteering`), with caps of its own; homes
//! know which of their leaves do (`volunteers`) and name some to ends that look for a relay (`known`).
//!
//! A channel lives while both links live, and at most [`CHANNEL_IDLE_MAX`] without a packet.

mod agree;
mod around;
mod caps;
mod channel;
mod choice;
mod ends;
mod fair;
mod forward;
mod joins;
mod known;
mod offers;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod output;
mod quota;
mod score;
mod volunteering;
mod volunteers;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) use self::around::{Around, Supernode};
use self::caps::Caps;
use self::channel::{Channel, Left, Limited, QUOTA_PERIOD, Stop, burst};
pub(crate) use self::channel::{End, Limits};
use self::choice::Choices;

use self::ends::Ends;
pub(crate) use self::ends::Way;
use self::forward::Forwarded;
pub(crate) use self::forward::channel_of;
use self::joins::Joins;
pub(crate) use self::output::Output;
use self::quota::MONTH;
use self::volunteering::Volunteering;
use self::volunteers::Volunteers;
use crate::api::{Config, Event, Relayed, Role, Save, Saved};
use crate::identity::PeerId;
use crate::net::{DropReason, Path, PeerKey, Received};
use crate::random::{KeyRng, Seed};
use crate::report::Report;
use crate::time::{Aged, Deadlines, Instant, WallTime, earliest};
use crate::wire::message::{Message, RelayLimit};
use crate::wire::packet::ChannelId;

/// Most channels of one relay. At the limit an introduction is refused as busy.
pub(crate) const CHANNELS_MAX: usize = 65_536;
/// Most channels with one leg in common. At the limit an introduction is refused as busy.
pub(crate) const CHANNELS_PER_PEER_MAX: usize = 256;
/// A channel without a packet for so long is closed.
pub(crate) const CHANNEL_IDLE_MAX: Duration = Duration::from_secs(600);
/// Most pairs whose daily use is remembered. At the limit the one whose day began first is forgotten.
const PAIRS_MAX: usize = 65_536;
/// The ends of the channels of a relay whose 30 days are used up have so long to find another one, before all close.
const GRACE: Duration = Duration::from_secs(5);
/// How often idle channels are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What a pair used in its present day.
#[derive(Debug, Clone, Copy)]
struct DayUse {
    since: Instant,
    bytes: u64,
}

/// A channel was closed: the leg to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    /// The channel.
    pub channel: ChannelId,
    /// A leg that is still there.
    pub leg: PeerKey,
}

/// All channels of a relay, those of which it is an end, and what it may carry in all.
pub(crate) struct Relay {
    caps: Caps,
    /// A volunteer's, while it serves as a supernode; those of the supernode that it may become, while it does not.
    other_caps: Option<Box<Caps>>,
    volunteering: Option<Box<Volunteering>>,
    ends: Ends,
    map: BTreeMap<ChannelId, Channel>,
    by_leg: BTreeSet<(PeerKey, ChannelId)>,
    /// The bytes that each pair used in its day, which began at the moment of the entry.
    days: Aged<(PeerId, PeerId), u64, PAIRS_MAX>,
    /// When each channel is next looked at.
    looks: Deadlines<ChannelId>,
    sweep: Option<Instant>,
    keys: KeyRng,
    work: Option<Box<Work>>,
    /// Bytes forwarded in the current second, for the load.
    second: (u64, u64),
    last_second_bytes: u64,
}

/// What comes and goes: tokens that were presented, relays that are being chosen, and what is to be done. Apart, since
/// most nodes have nothing of it most of the time.
#[derive(Default)]
struct Work {
    joins: Joins,
    choices: Choices,
    volunteers: Volunteers,
    out: VecDeque<Output>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.joins.is_empty() && self.choices.is_empty() && self.volunteers.is_empty()
    }
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    if a <= b { (a, b) } else { (b, a) }
}

impl Relay {
    /// No channel yet. Each may carry so much, and all together as much as `all` says: bits per second, and bytes in 30
    /// days, of which an earlier run used some. Zero is no cap.
    pub(crate) fn new(now: Instant, seed: &Seed, limits: Limits, all: Limits, relayed: Relayed) -> Self {
        Self {
            caps: Caps::new(now, limits, all, MONTH, relayed),
            other_caps: None,
            volunteering: None,
            ends: Ends::default(),
            map: BTreeMap::new(),
            by_leg: BTreeSet::new(),
            days: Aged::default(),
            looks: Deadlines::default(),
            sweep: None,
            keys: seed.keys("relay"),
            work: None,
            second: (0, 0),
            last_second_bytes: 0,
        }
    }

    /// As a node is set up, and as an earlier run left it.
    pub(crate) fn of(now: Instant, seed: &Seed, config: &Config, saved: &Saved) -> Self {
        let pair = Limits { rate_bps: config.relay_rate_bps, quota_bytes: config.relay_quota_bytes };
        let all = Limits { rate_bps: config.relay_total_rate_bps, quota_bytes: config.relay_total_quota_bytes };
        let mut relay = Self::new(now, seed, pair, all, saved.relayed);
        if config.volunteer && !matches!(config.role, Role::Supernode { .. }) {
            let all = Limits { rate_bps: config.volunteer_rate_bps, quota_bytes: config.volunteer_quota_bytes };
            let caps = Caps::new(now, pair.within(all), all, QUOTA_PERIOD, saved.volunteered);
            relay.other_caps = Some(Box::new(core::mem::replace(&mut relay.caps, caps)));
            relay.volunteering = Some(Box::new(Volunteering::new(now)));
        }
        relay
    }

    /// The wall clock says so: 30 days may be over, or a volunteer's day.
    pub(crate) fn on_wall_clock(&mut self, wall: WallTime) {
        self.caps.on_wall_clock(wall);
        self.other_caps.iter_mut().for_each(|caps| caps.on_wall_clock(wall));
    }

    /// A supernode's, whether this node is one now or not.
    fn serving_caps(&self) -> &Caps {
        self.other_caps.as_deref().filter(|_| self.is_volunteers()).unwrap_or(&self.caps)
    }

    /// Whether all that may be relayed in these 30 days has been.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.serving_caps().is_exhausted()
    }

    /// What was relayed in these 30 days, where that is counted.
    pub(crate) fn relayed(&self) -> Relayed {
        self.serving_caps().relayed()
    }

    /// What is to be kept of what was relayed, if it changed.
    #[inline]
    fn poll_keep(&mut self) -> Option<Save> {
        let kept = self.caps.poll_keep()?;
        Some(if self.is_volunteers() { Save::Volunteered(kept) } else { Save::Relayed(kept) })
    }

    /// Closes all channels; returns both legs of each.
    pub(crate) fn close_all(&mut self, now: Instant) -> Vec<Closed> {
        let ids: Vec<ChannelId> = self.map.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.close(now, id)).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether another channel between these links can be opened.
    pub(crate) fn has_room(&self, a: PeerKey, b: PeerKey) -> bool {
        self.map.len() < CHANNELS_MAX
            && [a, b].iter().all(|&leg| self.of_leg(leg).take(CHANNELS_PER_PEER_MAX).count() < CHANNELS_PER_PEER_MAX)
    }

    /// Opens a channel. `id` is unguessable and new. Of the channels that the two have already, one stays open for what
    /// is under way on it; the others close, and their legs are returned, to be told: the limits are the pair's.
    #[must_use]
    pub(crate) fn open(&mut self, now: Instant, id: ChannelId, [a, b]: [End; 2]) -> Vec<Closed> {
        debug_assert!(!self.map.contains_key(&id), "channel ids are never reused");
        let limits = self.caps.limits;
        let pair = pair(a.id, b.id);
        let closed = self.close_older(now, a.peer, pair);
        let left = self.take_over(now, a.peer, pair, limits);
        let mut channel = Channel::new(now, &[a, b], pair, limits, left);
        self.looks.set(id, &mut channel.look, Some(now + CHANNEL_IDLE_MAX));
        self.map.insert(id, channel);
        self.by_leg.insert((a.peer, id));
        self.by_leg.insert((b.peer, id));
        self.sweep.get_or_insert(now + SWEEP);
        closed
    }

    /// Closes all channels of a pair but the one used last.
    fn close_older(&mut self, now: Instant, leg: PeerKey, pair: (PeerId, PeerId)) -> Vec<Closed> {
        let mut ids: Vec<(Instant, ChannelId)> =
            self.of_leg(leg).filter_map(|id| Some((self.map.get(&id).filter(|c| c.pair == pair)?.last, id))).collect();
        ids.sort_unstable();
        ids.pop();
        ids.into_iter().flat_map(|(_, id)| self.close(now, id)).collect()
    }

    /// What is left of the pair's quota, and of its rate, for a new channel. One that the two have open already keeps a
    /// little, so that what is under way on it still arrives.
    fn take_over(&mut self, now: Instant, leg: PeerKey, pair: (PeerId, PeerId), limits: Limits) -> Left {
        let ids: Vec<ChannelId> = self.of_leg(leg).collect();
        let day = self.day_use(now, pair);
        let (mut since, mut spoken_for, mut tokens) = (day.since, day.bytes, burst(limits));
        for id in ids {
            if let Some(channel) = self.map.get_mut(&id).filter(|c| c.pair == pair) {
                since = since.min(channel.day(now).unwrap_or(since));
                spoken_for = spoken_for.saturating_add(channel.used).saturating_add(channel.retire());
                tokens = tokens.min(channel.tokens);
            }
        }
        Left::new(limits, tokens, since, spoken_for)
    }

    /// Whether `channel` exists.
    pub(crate) fn contains(&self, channel: ChannelId) -> bool {
        self.map.contains_key(&channel)
    }

    /// The same as [`Self::forward`], counted, as the verdict on the datagrams at the start of `data`.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        path: &Path,
        stride: usize,
        (channel, data): (ChannelId, &[u8]),
        report: &mut Report,
    ) -> Option<(usize, Received)> {
        let forwarded = match self.forward(now, channel, path, stride, data)? {
            Ok(forwarded) => forwarded,
            Err(reason) => {
                report.on_dropped(reason);
                return Some((data.len().min(stride), Received::Dropped(reason)));
            }
        };
        let (count, len) = (forwarded.run.count.get(), forwarded.run.len);
        let verdict = match forwarded.to {
            Ok(to) => {
                report.on_forwarded(count, len);
                if let Some(save) = self.poll_keep() {
                    report.tell(Event::Save(save));
                }
                Received::Forward { path: to, range: 0..len, stride }
            }
            Err(reason) => {
                (0..count).for_each(|_| report.on_dropped(reason));
                Received::Dropped(reason)
            }
        };
        Some((len, verdict))
    }

    /// Datagrams of `stride` bytes each came from `from`, the first of them a Relay packet of `channel`: the longest
    /// run that goes the same way, and where to. None if this node is not the relay of that channel.
    ///
    /// One lookup and one accounting step for the whole GSO batch; no allocation, no copy.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        channel: ChannelId,
        from: &Path,
        stride: usize,
        data: &[u8],
    ) -> Option<Result<Forwarded, DropReason>> {
        let ch = self.map.get_mut(&channel)?;
        let Some(run) = forward::run(data, stride) else { return Some(Err(DropReason::TooLong)) };
        let to = match ch.take(now, from, run.len, &mut self.caps.quota, &mut self.caps.fair) {
            Ok(to) => Ok(to),
            Err(Stop::Drop(reason)) => Err(reason),
            Err(Stop::Limit(limit)) => {
                let data = data.get(..run.len).unwrap_or(data);
                self.on_limit(now, channel, from, (data, stride), limit)
            }
        };
        if to.is_ok() {
            self.count_forwarded(now, run.len as u64);
        }
        Some(Ok(Forwarded { run, to }))
    }

    /// These datagrams of a channel exceed a limit that lasts: what becomes of them. Where they are dropped, both ends
    /// are told.
    #[cold]
    #[inline(never)]
    fn on_limit(
        &mut self,
        now: Instant,
        id: ChannelId,
        from: &Path,
        (data, stride): (&[u8], usize),
        limit: RelayLimit,
    ) -> Result<Path, DropReason> {
        let Some(ch) = self.map.get_mut(&id) else { return Err(DropReason::UnknownReceiver) };
        if limit == RelayLimit::Relay {
            self.caps.exhaust(now + GRACE);
        }
        if limit == RelayLimit::Pair && ch.begin_day(now) {
            self.days.insert(now, ch.pair, 0);
            return ch
                .take(now, from, data.len(), &mut self.caps.quota, &mut self.caps.fair)
                .map_err(|_| DropReason::Quota);
        }
        let to = ch.take_reserve(now, from, (data, stride), &mut self.caps.quota, &mut self.caps.fair);
        if to.is_err() && limit == RelayLimit::Pair && ch.is_old() {
            // An end that is still on it has another one, or needs one.
            let closed = self.close(now, id);
            let out = &mut self.work.get_or_insert_default().out;
            out.extend(
                closed
                    .into_iter()
                    .map(|closed| Output::Send { peer: closed.leg, message: Message::ChannelClosed { channel: id } }),
            );
        } else if to.is_err() {
            let relay_over = self.caps.quota.as_ref().map_or(QUOTA_PERIOD, |quota| quota.over_after());
            if let Some(Limited { channel, legs, limit, retry_after_s }) = ch.tell(now, id, limit, relay_over) {
                let message = Message::ChannelLimited { channel, limit, retry_after_s };
                let out = &mut self.work.get_or_insert_default().out;
                out.extend(legs.map(|peer| Output::Send { peer, message: message.clone() }));
            }
        }
        to
    }

    /// Whether the channels of a relay whose 30 days, or whose day, are used up are to close now. Says so once.
    pub(crate) fn is_closing(&mut self, now: Instant) -> bool {
        self.caps.quota.as_mut().is_some_and(|quota| quota.is_closing(now))
    }

    #[inline]
    fn count_forwarded(&mut self, now: Instant, bytes: u64) {
        let second = now.as_secs();
        if self.second.0 != second {
            self.last_second_bytes = if self.second.0 + 1 == second { self.second.1 } else { 0 };
            self.second = (second, 0);
        }
        self.second.1 += bytes;
    }

    /// Bytes forwarded in the last full second.
    pub(crate) fn bytes_per_second(&self, now: Instant) -> u64 {
        match now.as_secs().saturating_sub(self.second.0) {
            0 => self.last_second_bytes,
            1 => self.second.1,
            _ => 0,
        }
    }

    /// The current path of a link changed: its legs move with it.
    pub(crate) fn set_path(&mut self, peer: PeerKey, path: Option<Path>) {
        let range = (peer, ChannelId([0; 6]))..=(peer, ChannelId([0xff; 6]));
        for (_, id) in self.by_leg.range(range) {
            if let Some(channel) = self.map.get_mut(id) {
                for leg in channel.legs.iter_mut().filter(|leg| leg.peer == peer) {
                    leg.move_to(path);
                }
            }
        }
    }

    /// A peer is gone, and its link with it: the same, and what leads to it or through it is no way any more.
    pub(crate) fn forget(&mut self, now: Instant, peer: PeerKey) -> Vec<Closed> {
        self.ends.forget(peer);
        self.volunteering.iter_mut().for_each(|volunteering| volunteering.forget(peer));
        self.close_leg(now, peer, |_| false)
    }

    /// A link is another one: its channels close, but not those opened for it. Returns the other legs, to be told.
    pub(crate) fn close_leg(&mut self, now: Instant, peer: PeerKey, is_new: impl Fn(ChannelId) -> bool) -> Vec<Closed> {
        if let Some(work) = &mut self.work {
            work.choices.forget(peer);
            work.volunteers.remove(peer);
        }
        self.volunteering.iter_mut().for_each(|volunteering| volunteering.on_replaced(now, peer));
        let ids: Vec<ChannelId> = self.of_leg(peer).filter(|id| !is_new(*id)).collect();
        ids.into_iter().flat_map(|id| self.close(now, id)).filter(|closed| closed.leg != peer).collect()
    }

    /// Closes one channel; returns both legs.
    pub(crate) fn close(&mut self, now: Instant, id: ChannelId) -> Vec<Closed> {
        let Some(mut channel) = self.map.remove(&id) else { return Vec::new() };
        self.looks.set(id, &mut channel.look, None);
        if self.caps.limits.quota_bytes != 0 {
            let day = self.day_use(now, channel.pair);
            let since = day.since.min(channel.day(now).unwrap_or(day.since));
            self.days.insert(since, channel.pair, day.bytes.saturating_add(channel.used));
        }
        channel
            .legs
            .iter()
            .map(|leg| {
                self.by_leg.remove(&(leg.peer, id));
                Closed { channel: id, leg: leg.peer }
            })
            .collect()
    }

    /// Closes channels that carried nothing for [`CHANNEL_IDLE_MAX`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Closed> {
        if self.is_closing(now) {
            return self.close_all(now);
        }
        if let Some(work) = &mut self.work {
            work.joins.forget_old(now);
        }
        self.forget_work();
        if self.sweep.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut idle = Vec::new();
        while let Some(id) = self.looks.pop_due(now) {
            let Some(channel) = self.map.get_mut(&id) else { continue };
            channel.look = None;
            let idle_at = channel.last + CHANNEL_IDLE_MAX;
            if idle_at <= now {
                idle.push(id);
            } else {
                self.looks.set(id, &mut channel.look, Some(idle_at));
            }
        }
        idle.sort_unstable();
        let closed = idle.into_iter().flat_map(|id| self.close(now, id)).collect();
        self.days.forget_while(|since| now.since(since) >= QUOTA_PERIOD);
        self.sweep = (!self.map.is_empty()).then(|| now + SWEEP);
        closed
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let close_at = self.caps.quota.as_ref().and_then(|quota| quota.close_at());
        let joins = self.work.as_ref().and_then(|work| work.joins.poll_timeout());
        let choices = self.work.as_ref().and_then(|work| work.choices.poll_timeout());
        let look = self.volunteering.as_ref().map(|volunteering| volunteering.poll_timeout());
        [close_at, joins, choices, look].into_iter().fold(self.sweep, earliest)
    }

    // ---- channels that others relay ----

    /// A channel leads to a peer, through another one.
    pub(crate) fn add_end(&mut self, channel: ChannelId, way: Way) {
        self.ends.add(channel, way);
    }

    /// Where a channel leads of which this node is an end.
    pub(crate) fn end(&self, channel: ChannelId) -> Option<Way> {
        self.ends.get(channel)
    }

    /// The channels through a relay, in order, and the peer at the end of each.
    pub(crate) fn ends_through(&self, relay: PeerKey) -> impl Iterator<Item = (ChannelId, PeerKey)> + '_ {
        self.ends.through(relay)
    }

    /// Whether anything of ours goes through this link.
    pub(crate) fn relays_for_us(&self, link: PeerKey) -> bool {
        self.ends.is_relay(link)
    }

    /// A peer says that a channel is gone: who is at its other end, if that peer was the relay of it.
    #[must_use]
    pub(crate) fn on_closed(&mut self, relay: PeerKey, channel: ChannelId) -> Option<PeerKey> {
        let way = self.ends.get(channel).filter(|way| way.via == relay)?;
        self.ends.remove(channel);
        Some(way.end)
    }

    // ---- inside ----

    pub(super) fn of_leg(&self, peer: PeerKey) -> impl Iterator<Item = ChannelId> + '_ {
        self.by_leg.range((peer, ChannelId([0; 6]))..=(peer, ChannelId([0xff; 6]))).map(|(_, id)| *id)
    }

    /// What the pair used today; a new day begins with nothing.
    fn day_use(&self, now: Instant, pair: (PeerId, PeerId)) -> DayUse {
        match self.days.get(&pair) {
            Some(&(since, bytes)) if now.since(since) < QUOTA_PERIOD => DayUse { since, bytes },
            _ => DayUse { since: now, bytes: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
