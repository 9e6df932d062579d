//! One channel of a relay: its two legs, and what it may carry.
//!
//! What exceeds a rate is dropped, and the ends' congestion control finds its way. Bytes that are used up are another
//! matter: an end that is not told waits for ever. So both ends are told ([`Limited`]): when the first packet is
//! dropped, and again while they go on sending, every [`TELL_EVERY`] at most. For what they have to say to one another
//! then, a little is kept back ([`RESERVE`]) of which only packets without stream data take: with it they agree on
//! another relay, or become direct.

use core::time::Duration;

use super::fair::{BURST_MIN, FairShare, Share};
use super::quota::Quota;
use crate::identity::PeerId;
use crate::net::{DropReason, Path, PeerKey};
use crate::time::Instant;
use crate::wire::message::{ChannelLimits, RelayLimit};
use crate::wire::packet::{ChannelId, Kind, RELAY_HEADER_LEN};

/// Quotas count per day.
pub(super) const QUOTA_PERIOD: Duration = Duration::from_secs(86_400);
/// The bucket holds what the rate gives in so long, but never less than [`BURST_MIN`].
const BURST: Duration = Duration::from_millis(250);
/// What an older channel of a pair may still carry when the pair opens a newer one.
pub(super) const REST_OF_OLD: u64 = 64 * 1024;
/// What a pair may have relayed beyond its bytes of the day, and a channel beyond the relay's of 30 days, of packets
/// without stream data.
const RESERVE: u32 = 32 * 1024;
/// The ends of a channel that has met a limit are told no more often.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// What a pair of peers may have relayed, on all its channels. Zero is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Bits per second, both ways together.
    pub rate_bps: u64,
    /// Bytes per day, both ways together.
    pub quota_bytes: u64,
}

impl Limits {
    /// The stricter of both.
    pub(super) fn within(self, all: Self) -> Self {
        let least = |a: u64, b: u64| if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
        Self { rate_bps: least(self.rate_bps, all.rate_bps), quota_bytes: least(self.quota_bytes, all.quota_bytes) }
    }

    /// As they are told to both ends.
    pub(crate) fn told(self) -> ChannelLimits {
        let told = |value: u64, unit: u64| u32::try_from(value.div_ceil(unit)).unwrap_or(u32::MAX);
        ChannelLimits { rate_kbps: told(self.rate_bps, 1_000), quota_mib: told(self.quota_bytes, 1 << 20) }
    }
}

/// The two ends of a new channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The link.
    pub peer: PeerKey,
    /// Its peer.
    pub id: PeerId,
    /// Its current direct path.
    pub path: Option<Path>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) peer: PeerKey,
    /// The current path of the leg's link; none while it has no direct one.
    path: Option<Path>,
    /// The one before: what the peer sent on it before it moved may still be on its way.
    before: Option<Path>,
}

impl Leg {
    fn new(end: &End) -> Self {
        Self { peer: end.peer, path: end.path, before: None }
    }

    #[inline]
    fn is_at(&self, path: &Path) -> bool {
        self.path.as_ref() == Some(path) || self.before.as_ref() == Some(path)
    }

    pub(super) fn move_to(&mut self, path: Option<Path>) {
        if self.path != path {
            self.before = self.path;
            self.path = path;
        }
    }
}

/// Why a run of datagrams does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// It is dropped.
    Drop(DropReason),
    /// A limit is met that lasts.
    Limit(RelayLimit),
}

/// A channel has met a limit: what to tell both its legs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limited {
    /// The channel.
    pub(super) channel: ChannelId,
    /// Its legs.
    pub(super) legs: [PeerKey; 2],
    /// The limit.
    pub(super) limit: RelayLimit,
    /// It is over after so many seconds.
    pub(super) retry_after_s: u32,
}

/// What a pair has left where it opens a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Bytes that may pass at once.
    pub(super) tokens: u64,
    /// Bytes of the day.
    pub(super) quota: Option<u64>,
    /// When the day began.
    pub(super) day: Instant,
    /// See [`RESERVE`].
    pub(super) reserve: u32,
}

impl Left {
    /// Of a pair that has used so much of its day.
    pub(super) fn new(limits: Limits, tokens: u64, day: Instant, used: u64) -> Self {
        let quota = (limits.quota_bytes != 0).then(|| limits.quota_bytes.saturating_sub(used));
        let beyond = quota.map_or(0, |_| used.saturating_sub(limits.quota_bytes));
        let reserve = RESERVE.saturating_sub(u32::try_from(beyond).unwrap_or(u32::MAX));
        Self { tokens, quota, day, reserve }
    }
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) legs: [Leg; 2],
    pub(super) pair: (PeerId, PeerId),
    limits: Limits,
    /// Bytes that may pass now.
    pub(super) tokens: u64,
    refilled: Instant,
    /// Bytes left of the day's quota, taken from what the pair has at opening and settled at closing. An older channel
    /// of a pair has some left even where the day has no limit: the rate is the pair's, not the channel's.
    quota_left: Option<u64>,
    pub(super) used: u64,
    /// When the pair's day began.
    day: Instant,
    /// What may pass although a limit is met, of packets without stream data.
    reserve: u32,
    /// When the ends were last told that one is.
    told: Option<Instant>,
    /// The pair has a newer one.
    is_old: bool,
    share: Share,
    pub(super) last: Instant,
    /// When to look whether it is idle: not after the moment when it is, and no packet moves this.
    pub(super) look: Option<Instant>,
}

impl Channel {
    pub(super) fn new(now: Instant, ends: &[End; 2], pair: (PeerId, PeerId), limits: Limits, left: Left) -> Self {
        Self {
            legs: [Leg::new(&ends[0]), Leg::new(&ends[1])],
            pair,
            limits,
            tokens: left.tokens,
            refilled: now,
            quota_left: left.quota,
            used: 0,
            day: left.day,
            reserve: left.reserve,
            told: None,
            is_old: false,
            share: Share::default(),
            last: now,
            look: None,
        }
    }

    /// The pair has a newer channel: how many bytes this one may still carry.
    pub(super) fn retire(&mut self) -> u64 {
        let rest = self.quota_left.map_or(REST_OF_OLD, |left| left.min(REST_OF_OLD));
        self.quota_left = Some(rest);
        self.is_old = true;
        rest
    }

    /// Whether the pair has a newer one.
    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }

    /// When the pair's day began, unless it is over.
    pub(super) fn day(&self, now: Instant) -> Option<Instant> {
        (now.since(self.day) < QUOTA_PERIOD).then_some(self.day)
    }

    /// What the pair may have relayed in a day is there again when the day is over, on a channel that lives on too.
    pub(super) fn begin_day(&mut self, now: Instant) -> bool {
        let begins = !self.is_old && self.limits.quota_bytes != 0 && self.day(now).is_none();
        if begins {
            (self.day, self.used, self.reserve) = (now, 0, RESERVE);
            self.quota_left = Some(self.limits.quota_bytes);
        }
        begins
    }

    /// Takes so many bytes out of the channel's limits, and out of the relay's own; where they go on to.
    #[inline]
    pub(super) fn take(
        &mut self,
        now: Instant,
        from: &Path,
        bytes: usize,
        relay_quota: &mut Option<Box<Quota>>,
        fair: &mut Option<Box<FairShare>>,
    ) -> Result<Path, Stop> {
        let to = self.other(from).map_err(Stop::Drop)?;
        let bytes = bytes as u64;
        if self.quota_left.is_some_and(|left| left < bytes) {
            return Err(Stop::Limit(RelayLimit::Pair));
        }
        if relay_quota.as_ref().is_some_and(|quota| !quota.has(bytes)) {
            return Err(Stop::Limit(RelayLimit::Relay));
        }
        self.pass(now, bytes, fair).map_err(Stop::Drop)?;
        if let Some(left) = &mut self.quota_left {
            *left -= bytes;
        }
        if let Some(quota) = relay_quota {
            quota.take(bytes);
        }
        Ok(to)
    }

    /// The same where that met a limit: out of the reserve.
    pub(super) fn take_reserve(
        &mut self,
        now: Instant,
        from: &Path,
        (data, stride): (&[u8], usize),
        relay_quota: &mut Option<Box<Quota>>,
        fair: &mut Option<Box<FairShare>>,
    ) -> Result<Path, DropReason> {
        let to = self.other(from)?;
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if !is_control(data, stride) || self.reserve < bytes {
            return Err(DropReason::Quota);
        }
        self.pass(now, bytes.into(), fair)?;
        self.reserve -= bytes;
        if let Some(quota) = relay_quota {
            quota.take(bytes.into());
        }
        Ok(to)
    }

    /// It has met a limit: what both its ends are to be told, if that is to be done now. The relay's own is over after
    /// `relay_over`.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        channel: ChannelId,
        limit: RelayLimit,
        relay_over: Duration,
    ) -> Option<Limited> {
        // What is said on an older channel of a pair concerns no end any more.
        if self.is_old || self.told.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        let over = match limit {
            RelayLimit::Pair => QUOTA_PERIOD.saturating_sub(now.since(self.day)),
            RelayLimit::Relay => relay_over,
        };
        let retry_after_s = u32::try_from(over.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
        Some(Limited { channel, legs: self.legs.map(|leg| leg.peer), limit, retry_after_s })
    }

    /// Where the other leg is, if one of them is here.
    #[inline]
    fn other(&self, from: &Path) -> Result<Path, DropReason> {
        let to = match &self.legs {
            [a, b] if a.is_at(from) => b.path,
            [a, b] if b.is_at(from) => a.path,
            _ => return Err(DropReason::WrongPath),
        };
        to.ok_or(DropReason::WrongPath)
    }

    /// Takes so many bytes out of the rates.
    #[inline]
    fn pass(&mut self, now: Instant, bytes: u64, fair: &mut Option<Box<FairShare>>) -> Result<(), DropReason> {
        if self.limits.rate_bps != 0 {
            let us = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
            let earned = self.limits.rate_bps.saturating_mul(us) / 8_000_000;
            if earned > 0 {
                self.tokens = self.tokens.saturating_add(earned).min(burst(self.limits));
                self.refilled = now;
            }
            if self.tokens < bytes {
                return Err(DropReason::Quota);
            }
        }
        if let Some(fair) = fair
            && !fair.admit(now, &mut self.share, bytes)
        {
            return Err(DropReason::Quota);
        }
        if self.limits.rate_bps != 0 {
            self.tokens -= bytes;
        }
        self.used += bytes;
        self.last = now;
        Ok(())
    }
}

/// What may pass at once.
pub(super) fn burst(limits: Limits) -> u64 {
    let in_burst = limits.rate_bps.saturating_mul(u64::try_from(BURST.as_millis()).unwrap_or(0)) / 8_000;
    in_burst.max(BURST_MIN)
}

/// Whether none of these datagrams, all Relay packets, carries stream data.
fn is_control(data: &[u8], stride: usize) -> bool {
    data.chunks(stride.max(1)).all(|packet| packet.get(RELAY_HEADER_LEN) != Some(&(Kind::Stream as u8)))
}
