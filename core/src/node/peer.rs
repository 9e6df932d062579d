//! One peer: the link to it, its paths, and what user traffic needs. And the tables that find it.

use crate::net::{Path, PeerKey};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use slab::Slab;

use crate::account::Exposure;
use crate::identity::PeerId;
use crate::keepalive::{BEAT_INTERVAL_MAX, Beats, Duty, PROOF_AGE_MAX, Pace};
use crate::link::{Epoch, Initiation};
use crate::path::{Paths, Quality, Route, View, Watch};
use crate::stream::Streams;
use crate::time::{Instant, earliest};
use crate::traverse::{Checks, Effort};
use crate::wire::message::{ChannelLimits, Whereabouts};

/// Most peers that a node keeps. At the limit new ones are refused.
pub(crate) const PEERS_MAX: usize = 1 << 21;
/// Most peers whose handshake we answered but who have not confirmed it. At the limit the oldest goes.
pub(crate) const UNCONFIRMED_MAX: usize = 1_024;
/// Most answered handshakes of one peer. At the limit the oldest goes, unless the new one looks replayed.
pub(crate) const PENDING_MAX: usize = 3;
/// An answered handshake that nobody confirms is forgotten after this.
pub(crate) const UNCONFIRMED_AGE_MAX: Duration = Duration::from_secs(10);
/// Old keys are accepted so long after the new ones were first used.
pub(crate) const OLD_EPOCH_AGE_MAX: Duration = Duration::from_secs(30);
/// Most handshakes of ours under way with one peer.
pub(crate) const ATTEMPTS_MAX: usize = 12;
/// Most messages that wait for a link to come up. At the limit the oldest goes.
pub(crate) const WAITING_MAX: usize = 16;
/// Most datagrams kept for the application. At the limit the oldest goes.
pub(crate) const DATAGRAMS_MAX: usize = 64;
/// A link that only listens (the other side keeps it alive) is gone after so much silence: two beats of the peer may be
/// lost even if it beats as seldom as may be.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(750);
const _: () = assert!(SILENCE_MAX.as_secs() > 3 * BEAT_INTERVAL_MAX.as_secs());
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * PROOF_AGE_MAX.as_secs());
/// A user link without streams, pings and datagrams is dormant after this: nothing is sent to keep its paths.
pub(crate) const DORMANT_AFTER: Duration = Duration::from_secs(60);
/// A dormant link is forgotten so long after its last use.
pub(crate) const USER_IDLE_MAX: Duration = Duration::from_secs(600);
/// A link that nothing needs is closed after this.
pub(crate) const UNUSED_MAX: Duration = Duration::from_secs(60);
/// A link silent for so long rests its keys: no packet stays on its way longer.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(5);
/// Links with user data rekey so often while active.
pub(crate) const REKEY_ACTIVE: Duration = Duration::from_secs(600);
/// Idle control links rekey so often.
pub(crate) const REKEY_IDLE: Duration = Duration::from_secs(6 * 3_600);
/// An Init to an address is sent three times, after 0, 0.5 and 1.5 s, and given up after 3.5.
pub(crate) const ATTEMPT_WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Where one of our Inits went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttemptRoute {
    /// To an address.
    Direct(Path),
    /// Through an existing channel.
    Relayed(Route),
    /// Inside an introduction by this home; the call repeats it.
    Introduced(PeerId),
}

/// One Init of ours that is not answered yet.
pub(crate) struct Attempt {
    pub(crate) initiation: Initiation,
    pub(crate) index: u32,
    pub(crate) route: AttemptRoute,
    pub(crate) packet: Box<[u8]>,
    /// The plaintext body, to build the Init again with a cookie.
    pub(crate) body: Box<[u8]>,
    pub(crate) sent: u8,
    pub(crate) at: Instant,
    pub(crate) first: Instant,
    pub(crate) cookie_used: bool,
}

impl Attempt {
    /// When it is repeated or given up. Introduced ones are the call's business, but end in any case.
    pub(crate) fn due(&self) -> Instant {
        match self.route {
            AttemptRoute::Introduced(_) => self.first + Duration::from_secs(12),
            _ => self.at + ATTEMPT_WAITS[usize::from(self.sent.saturating_sub(1)).min(ATTEMPT_WAITS.len() - 1)],
        }
    }
}

/// A handshake that we answered; it becomes the link when its first Data arrives.
pub(crate) struct Pending {
    pub(crate) epoch: Epoch,
    pub(crate) ephemeral: [u8; 32],
    pub(crate) session: u64,
    pub(crate) time_us: u64,
    pub(crate) at: Instant,
    /// Where the Init came from and the Response went.
    pub(crate) route: Route,
    /// The Init came from where nothing was sent to, as far as is known: nothing but a way in that is open let it in.
    pub(crate) unasked: bool,
    /// The Response, to be sent again when its Init comes again from there.
    pub(crate) response: Box<[u8]>,
    pub(crate) user: bool,
}

/// Whether a peer gets candidates and connectivity checks.
///
/// A service that is open to any accepts everybody: whoever may open a stream learns our addresses with it, so keeping
/// them from those who have not opened one yet would protect nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Standing {
    /// No service lets it in, and we did not call it.
    Refused,
    /// Some service lets it in, or we called it.
    Accepted,
}

/// What a link with user traffic carries beside its keys.
pub(crate) struct Traffic {
    pub(crate) standing: Standing,
    pub(crate) streams: Option<Box<Streams>>,
    pub(crate) checks: Option<Checks>,
    /// What the peer told us of its addresses.
    pub(crate) whereabouts: Whereabouts,
    /// Whether we told it ours on this link.
    pub(crate) told: bool,
    pub(crate) datagrams: VecDeque<Box<[u8]>>,
    /// When user traffic was last seen.
    pub(crate) used: Instant,
    /// When to try to become direct again, and how often that was tried.
    pub(crate) retry: Option<(Instant, u32)>,
    pub(crate) limits: Option<ChannelLimits>,
    pub(crate) announced: Option<Route>,
    /// Which attempt to become direct this is.
    pub(crate) attempt: u8,
    /// The last one whose effort ended in vain.
    pub(crate) tried: Option<u8>,
    pub(crate) effort: Option<Box<Effort>>,
    /// When to look whether the sockets of efforts are still of use.
    pub(crate) sweep: Option<Instant>,
    /// What the addresses that the peer named have got from us.
    pub(crate) exposure: Exposure,
    /// The supernode that we last asked to tell the peer where we are.
    pub(crate) vouched: Option<(PeerId, Instant)>,
    pub(crate) quality: Quality,
    /// When bulk was last judged, by how many bytes the link had carried; and whether more flows than a relay carries.
    pub(crate) bulk: (Instant, u64, bool),
}

impl Traffic {
    pub(crate) fn new(now: Instant, standing: Standing) -> Self {
        Self {
            standing,
            streams: None,
            checks: None,
            whereabouts: Whereabouts::default(),
            told: false,
            datagrams: VecDeque::new(),
            used: now,
            retry: None,
            limits: None,
            announced: None,
            attempt: 0,
            tried: None,
            effort: None,
            sweep: None,
            exposure: Exposure::default(),
            vouched: None,
            quality: Quality::new(now),
            bulk: (now, 0, false),
        }
    }
}

/// One peer. Small, since a supernode keeps one per registered leaf: what only user links need is in [`Traffic`].
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) session: u64,
    /// QUIC's client is the initiator of the link's first handshake; rekeys do not change it.
    pub(crate) quic_client: bool,
    pub(crate) epoch: Option<Box<Epoch>>,
    pub(crate) old_epoch: Option<Box<(Epoch, Instant)>>,
    /// Handshakes that we answered, at most [`PENDING_MAX`]: an Init to our address and one through our home cross on
    /// the way, and the peer goes on with whichever answer comes first.
    pub(crate) pending: Vec<Pending>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) waiting: VecDeque<Box<[u8]>>,
    pub(crate) paths: Paths,
    pub(crate) beats: Beats,
    pub(crate) watch: Watch,
    /// When a packet was last sealed, on any path.
    pub(crate) sealed: Instant,
    pub(crate) newest: u32,
    pub(crate) epoch_since: Instant,
    /// A room of the node (home, gossip, an introduction) needs the link.
    pub(crate) wanted: bool,
    /// The peer said that it is a registered leaf or a supernode keeps us as such: only it keeps the link alive.
    pub(crate) duty: Duty,
    /// When something last needed this link.
    pub(crate) needed: Instant,
    pub(crate) last_init_us: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) relayed_bytes: u64,
    pub(crate) traffic: Option<Box<Traffic>>,
    pub(crate) deadline: Option<Instant>,
}

// What a peer without streams and handshakes weighs, a million times.
const _: () = assert!(size_of::<Peer>() <= 320);

impl Peer {
    pub(crate) fn new(now: Instant, id: PeerId, duty: Duty) -> Self {
        Self {
            id,
            session: 0,
            quic_client: false,
            epoch: None,
            old_epoch: None,
            pending: Vec::new(),
            attempts: Vec::new(),
            waiting: VecDeque::new(),
            paths: Paths::default(),
            beats: Beats::new(now),
            watch: Watch::default(),
            sealed: now,
            newest: 0,
            epoch_since: now,
            wanted: false,
            duty,
            needed: now,
            last_init_us: 0,
            rx_bytes: 0,
            tx_bytes: 0,
            relayed_bytes: 0,
            traffic: None,
            deadline: None,
        }
    }

    /// Whether the link is up.
    pub(crate) fn is_up(&self) -> bool {
        self.epoch.is_some()
    }

    /// Whether a stream is open.
    pub(crate) fn has_streams(&self) -> bool {
        self.traffic.as_ref().is_some_and(|t| t.streams.as_ref().is_some_and(|s| !s.is_idle()))
    }

    /// Whether this is a session that nobody has used for [`DORMANT_AFTER`]: no path is kept for it.
    pub(crate) fn is_dormant(&self, now: Instant) -> bool {
        let used = self.traffic.as_ref().map(|t| t.used.max(self.needed));
        !self.wanted && !self.has_streams() && used.is_some_and(|used| now.since(used) >= DORMANT_AFTER)
    }

    /// What this side has to do now to keep the link.
    pub(crate) fn duty_at(&self, now: Instant, pace: Pace) -> Duty {
        // A relayed path is kept by the beats of the link to the relay.
        let is_relayed = || self.paths.current().is_some_and(|route| !route.is_direct());
        // No router forgets a TCP connection before the next question whether the peer is there (RFC 5382, REQ-5: two
        // hours; four minutes are the least that is known).
        let is_tcp = || self.paths.current().is_some_and(|route| route.is_tcp());
        match self.duty {
            _ if self.is_dormant(now) => Duty::None,
            Duty::Binding if pace == Pace::OPEN || is_relayed() || is_tcp() => Duty::Liveness,
            duty => duty,
        }
    }

    /// When the link's keys should be replaced: the initiator of the link does it, the other side half a minute later
    /// if it has not happened.
    fn rekey_at(&self) -> Option<Instant> {
        let epoch = self.epoch.as_ref()?;
        if !self.attempts.is_empty() {
            return None;
        }
        if epoch.needs_rekey() {
            return Some(self.epoch_since);
        }
        let age = if self.traffic.is_some() { REKEY_ACTIVE } else { REKEY_IDLE };
        let grace = if self.quic_client { Duration::ZERO } else { Duration::from_secs(30) };
        let active = self.traffic.is_none() || self.has_streams();
        active.then_some(self.epoch_since + age + grace)
    }

    /// Whether the keys are due to be replaced.
    pub(crate) fn is_rekey_due(&self, now: Instant) -> bool {
        self.rekey_at().is_some_and(|at| at <= now)
    }

    /// When the keys go to rest.
    fn rest_at(&self) -> Option<Instant> {
        let awake = self.epoch.as_ref().is_some_and(|epoch| epoch.is_awake());
        (awake && !self.has_streams()).then(|| self.sealed.max(self.beats.heard()) + REST_AFTER)
    }

    /// Rests the keys if it is time.
    pub(crate) fn rest_if_due(&mut self, now: Instant) {
        if self.rest_at().is_some_and(|at| at <= now)
            && let Some(epoch) = &mut self.epoch
        {
            epoch.rest();
        }
    }

    /// When the idle rules look at this link next.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        if !self.is_up() {
            return None;
        }
        Some(match (&self.traffic, self.duty) {
            (Some(traffic), _) => {
                if self.has_streams() {
                    return None;
                }
                traffic.used.max(self.needed) + USER_IDLE_MAX
            }
            (None, Duty::None) => self.beats.heard() + SILENCE_MAX,
            (None, _) => {
                if self.wanted {
                    return None;
                }
                self.needed + UNUSED_MAX
            }
        })
    }

    /// What the measurement of a user link goes by.
    pub(crate) fn quality_view(&self) -> Option<View> {
        let traffic = self.traffic.as_ref().filter(|_| self.is_up())?;
        Some(View {
            using: self.paths.current()?,
            other: self.paths.spare(),
            lost: self.paths.lost(),
            used: traffic.used,
            heard: self.beats.heard(),
            bulk: traffic.bulk.2,
        })
    }

    /// The earliest of all that this peer waits for.
    pub(crate) fn next_deadline(&mut self, now: Instant, pace: Pace) -> Option<Instant> {
        let mut at = self.attempts.iter().map(Attempt::due).min();
        at = earliest(at, self.pending.iter().map(|p| p.at + UNCONFIRMED_AGE_MAX).min());
        at = earliest(at, self.old_epoch.as_ref().map(|old| old.1 + OLD_EPOCH_AGE_MAX));
        if self.epoch.is_some() {
            at = earliest(at, self.beats.poll_timeout(self.duty_at(now, pace), pace));
            at = earliest(at, self.watch.poll_timeout());
            at = earliest(at, self.rekey_at());
            at = earliest(at, self.rest_at());
            at = earliest(at, self.idle_at());
        }
        if let Some(view) = self.quality_view() {
            at = earliest(at, self.traffic.as_ref().and_then(|t| t.quality.poll_timeout(&view)));
        }
        if let Some(traffic) = &mut self.traffic {
            at = earliest(at, traffic.checks.as_ref().and_then(Checks::poll_timeout));
            at = earliest(at, traffic.retry.map(|(at, _)| at));
            at = earliest(at, traffic.effort.as_ref().and_then(|e| e.poll_timeout()));
            at = earliest(at, traffic.sweep);
            if let Some(streams) = &mut traffic.streams {
                at = earliest(at, streams.poll_timeout());
            }
        }
        at
    }
}

/// All peers, by key and by id.
#[derive(Default)]
pub(crate) struct Peers {
    /// Boxed: a table that doubles would otherwise hold as many empty places for peers as peers.
    slab: Slab<(u32, Box<Peer>)>,
    generation: u32,
    by_id: BTreeMap<PeerId, PeerKey>,
}

impl Peers {
    pub(crate) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.slab.get(key.index as usize).filter(|(g, _)| *g == key.generation).map(|(_, p)| &**p)
    }

    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slab.get_mut(key.index as usize).filter(|(g, _)| *g == key.generation).map(|(_, p)| &mut **p)
    }

    pub(crate) fn key_of(&self, id: &PeerId) -> Option<PeerKey> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn by_id(&self, id: &PeerId) -> Option<&Peer> {
        self.get(self.key_of(id)?)
    }

    /// Whether the link to a peer is up.
    pub(crate) fn is_up(&self, key: PeerKey) -> bool {
        self.get(key).is_some_and(Peer::is_up)
    }

    /// The peer with this id, if the link to it is up.
    pub(crate) fn up_key(&self, id: &PeerId) -> Option<PeerKey> {
        self.key_of(id).filter(|key| self.is_up(*key))
    }

    pub(crate) fn insert(&mut self, peer: Peer) -> Option<PeerKey> {
        if self.slab.len() >= PEERS_MAX {
            return None;
        }
        debug_assert!(!self.by_id.contains_key(&peer.id), "one entry per peer");
        self.generation = self.generation.wrapping_add(1);
        let id = peer.id;
        let index = self.slab.insert((self.generation, Box::new(peer)));
        let key = PeerKey { index: index as u32, generation: self.generation };
        self.by_id.insert(id, key);
        Some(key)
    }

    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<Box<Peer>> {
        self.get(key)?;
        let (_, peer) = self.slab.remove(key.index as usize);
        self.by_id.remove(&peer.id);
        Some(peer)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slab.iter().map(|(i, (g, p))| (PeerKey { index: i as u32, generation: *g }, &**p))
    }
}

/// Receiver indices of packets: 24 bits of slot, 8 of generation.
#[derive(Default)]
pub(crate) struct Indices {
    slots: Vec<(u8, Option<PeerKey>)>,
    free: VecDeque<u32>,
}

impl Indices {
    const SLOT_BITS: u32 = 24;
    /// Freed slots rest in a queue, so that a generation comes round late.
    const REST: usize = 64;

    pub(crate) fn allocate(&mut self, peer: PeerKey) -> Option<u32> {
        let slot = if self.free.len() > Self::REST {
            self.free.pop_front()?
        } else {
            let slot = self.slots.len() as u32;
            if slot >> Self::SLOT_BITS != 0 {
                return None;
            }
            self.slots.push((0, None));
            slot
        };
        let entry = self.slots.get_mut(slot as usize)?;
        entry.0 = entry.0.wrapping_add(1);
        entry.1 = Some(peer);
        Some(u32::from(entry.0) << Self::SLOT_BITS | slot)
    }

    pub(crate) fn get(&self, index: u32) -> Option<PeerKey> {
        let (generation, peer) = self.slots.get((index & ((1 << Self::SLOT_BITS) - 1)) as usize)?;
        (u32::from(*generation) == index >> Self::SLOT_BITS).then_some(*peer).flatten()
    }

    pub(crate) fn free(&mut self, index: u32) {
        let slot = index & ((1 << Self::SLOT_BITS) - 1);
        if let Some(entry) = self.slots.get_mut(slot as usize)
            && u32::from(entry.0) == index >> Self::SLOT_BITS
            && entry.1.take().is_some()
        {
            self.free.push_back(slot);
        }
    }
}
