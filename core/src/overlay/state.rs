//! [`Overlay`]: as what it acts, a leaf or a supernode, what both work on, and what is known without asking anybody.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::clock::{NetworkClock, Standing};
use super::turn::Turn;
use crate::account::{Rate, RateTable, Source};
use crate::api::{Config, Role, Saved, Serving, SupernodeStatus};
use crate::identity::{PeerId, SecretKey};
use crate::introduce::LookupFailure;
use crate::link::Identity;
use crate::nat::Stand;
use crate::overlay::advert::{LEAF_ADVERTS_MAX, MembershipTable, OwnAdvert, Sequence, TABLE_MIN};
use crate::overlay::directory::{Lookups, Placing, RECORDS_MAX, Record, RecordStore};
use crate::overlay::gossip::{Gossip, Stores};
use crate::overlay::home::{Carried, DRAWN_AUTO_MAX, DRAWN_MAX, Homes, Means, Registrations, Trials};
use crate::overlay::output::Output;
use crate::overlay::role::{DialBack, DialBackOrders, RoleWatch, Way};
use crate::random::{Generators, Seed};
use crate::time::{Aged, Instant, WallTime};
use crate::wire::message::Load;

/// Lookups that a supernode does for one prefix, where many may share an address: each may cost it eight questions.
const LOOKUPS_OF_ONE: Rate = Rate { interval: Duration::from_millis(100), burst: 40 };
/// And for all together.
const LOOKUPS: Rate = Rate { interval: Duration::from_millis(2), burst: 500 };
/// Of the peers that one asked for, so many are remembered.
const ASKED_LATELY_MAX: usize = 4;
/// Answers to those who look for the nearest, to one prefix: a supernode there may be home to thousands of leaves.
const SEEKS_OF_ONE: Rate = Rate { interval: Duration::from_millis(10), burst: 256 };
/// And to all together.
const SEEKS: Rate = Rate { interval: Duration::from_millis(1), burst: 2_000 };
/// Most prefixes, and peers where these do not count, whose rate is kept.
const LOOKERS_MAX: usize = 4_096;

/// As what this node acts now, with all that goes with it.
pub(super) enum Acting {
    Leaf(Box<Homes>),
    Supernode(Box<Supernode>),
}

pub(super) struct Supernode {
    pub(super) advertise: Vec<SocketAddr>,
    /// Where this node decided to serve: why it can.
    pub(super) way: Way,
    pub(super) gossip: Gossip,
    pub(super) registrations: Registrations,
    pub(super) placing: Placing,
    /// Whom each peer asked for, the last one first.
    pub(super) asked_lately: Aged<PeerId, ArrayVec<PeerId, ASKED_LATELY_MAX>, LOOKERS_MAX>,
    /// Lookups done for others.
    pub(super) lookups_taken: RateTable<Source>,
    pub(super) seeks_taken: RateTable<Source>,
    pub(super) dial_backs: DialBackOrders,
    pub(super) trials: Trials,
}

impl Supernode {
    /// Those who were met are given what they are to keep.
    pub(super) fn hand_over(&mut self, now: Instant, s: &mut Stores<'_>) {
        for (peer, address) in self.gossip.take_met() {
            if self.placing.on_met(now, peer, address) {
                self.placing.hand_over(peer, address, s.records, s.members, s.out);
            }
        }
    }
}

/// Supernodes asked about at a time; at the limit the first one is forgotten.
const INQUIRIES_MAX: usize = 32;

/// Peers of which homes have no record, as remembered; at the limit the first one is forgotten.
const DENIED_MAX: usize = 32;

/// What was decided when the node was set up.
pub(super) struct Terms {
    pub(super) role: Role,
    leaves_max: usize,
    pub(super) table_max: usize,
    /// How much a pair may have relayed, as the advert says.
    relay_kbps: u32,
    /// Most bits per second relayed for all together; 0 is unlimited.
    relay_bps_max: u64,
}

impl Terms {
    /// Whether this node decides for itself when it serves.
    pub(super) fn is_auto(&self) -> bool {
        matches!(self.role, Role::Auto)
    }

    /// Acts as a leaf.
    pub(super) fn leaf(&self, me: PeerId) -> Acting {
        // One that may serve leaves a supernode more alone: those that nothing was sent to are its witnesses.
        let drawn = if self.is_auto() { DRAWN_AUTO_MAX } else { DRAWN_MAX };
        Acting::Leaf(Box::new(Homes::new(me, drawn)))
    }

    /// Acts as a supernode.
    pub(super) fn supernode(
        &self,
        now: Instant,
        me: PeerId,
        advertise: &[SocketAddr],
        way: Way,
        random: &mut Generators,
    ) -> Acting {
        let leaves = u32::try_from(self.leaves_max).unwrap_or(u32::MAX);
        let own = OwnAdvert::new(now, advertise, leaves, self.relay_kbps);
        Acting::Supernode(Box::new(Supernode {
            advertise: advertise.to_vec(),
            way,
            gossip: Gossip::new(now, me, own, random),
            registrations: Registrations::new(now, me, self.leaves_max),
            placing: Placing::new(now, me),
            asked_lately: Aged::default(),
            lookups_taken: RateTable::new(LOOKUPS_OF_ONE, LOOKUPS, LOOKERS_MAX),
            seeks_taken: RateTable::new(SEEKS_OF_ONE, SEEKS, LOOKERS_MAX),
            dial_backs: DialBackOrders::new(),
            trials: Trials::new(),
        }))
    }
}

/// This node as a part of the network: the leaf or the supernode that it acts as, and the stores that both work on.
pub(crate) struct Overlay {
    pub(super) me: Arc<Identity>,
    pub(super) terms: Terms,
    pub(super) random: Generators,
    /// The own wall clock, as it was told.
    wall: Option<(Instant, WallTime)>,
    pub(super) clock: NetworkClock,
    pub(super) acting: Acting,
    pub(super) sequence: Sequence,
    pub(super) members: MembershipTable,
    pub(super) records: RecordStore,
    pub(super) lookups: Lookups,
    pub(super) dial_back: DialBack,
    pub(super) role: RoleWatch,
    /// Supernodes that were dialled to have the router looked at, and for nothing else.
    pub(super) helpers: Vec<PeerId>,
    /// Supernodes that a leaf has asked its homes about, and at which address, unless that was answered.
    pub(super) inquiries: Aged<PeerId, Option<IpAddr>, INQUIRIES_MAX>,
    /// Peers of which the homes of a leaf had no record, or said nothing.
    pub(super) denied: Aged<PeerId, LookupFailure, DENIED_MAX>,
    /// What an earlier run kept, until there is a network to use it in.
    pub(super) anchors: Vec<(PeerId, SocketAddr)>,
    pub(super) out: VecDeque<Output>,
    /// What is to be done when all that waits has been carried out.
    pub(super) turn: Option<Turn>,
    pub(super) is_pressing: bool,
    pub(super) is_leaving: bool,
}

impl Overlay {
    /// The room of the node `me`. A supernode's first advert is due at once; a leaf does nothing before it is told of a
    /// supernode.
    pub(crate) fn new(now: Instant, seed: &Seed, me: Arc<Identity>, config: &Config, saved: &Saved) -> Self {
        let mut random = Generators::new(seed, "overlay");
        let id = me.id();
        let terms = Terms {
            role: config.role.clone(),
            leaves_max: config.leaves_max,
            table_max: config.table_max.max(TABLE_MIN),
            relay_kbps: u32::try_from(config.relay_rate_bps.div_ceil(1_000)).unwrap_or(u32::MAX),
            relay_bps_max: config.relay_total_rate_bps,
        };
        let (acting, adverts_max, records_max) = match &terms.role {
            Role::Leaf | Role::Auto => (terms.leaf(id), LEAF_ADVERTS_MAX, 0),
            Role::Supernode { advertise } => {
                (terms.supernode(now, id, advertise, Way::Own, &mut random), terms.table_max, RECORDS_MAX)
            }
        };
        Self {
            dial_back: DialBack::new(terms.is_auto()),
            me,
            terms,
            random,
            wall: None,
            clock: NetworkClock::default(),
            acting,
            sequence: Sequence::new(saved.sequence),
            members: MembershipTable::new(id, adverts_max),
            records: RecordStore::new(records_max),
            lookups: Lookups::default(),
            role: RoleWatch::default(),
            helpers: Vec::new(),
            inquiries: Aged::default(),
            denied: Aged::default(),
            anchors: saved.anchors.clone(),
            out: VecDeque::new(),
            turn: None,
            is_pressing: false,
            is_leaving: false,
        }
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.random.keys.mix(fresh);
    }

    /// The own wall clock, at the start and when it jumps.
    pub(crate) fn handle_wall_clock(&mut self, now: Instant, wall: WallTime) {
        self.wall = Some((now, wall));
    }

    // ---- what both work on ----

    /// The leaf with its means, if this node is one.
    pub(super) fn leaf(&mut self, now: Instant) -> Option<(&mut Homes, Means<'_>)> {
        let wall = self.wall_time(now);
        let Self { me, random, members, sequence, out, acting, .. } = self;
        match acting {
            Acting::Leaf(homes) => Some((homes, Means { me, wall, random, members, sequence, out })),
            Acting::Supernode(_) => None,
        }
    }

    /// The supernode with what it fills, if this node is one.
    pub(super) fn supernode(&mut self, now: Instant) -> Option<(&mut Supernode, Stores<'_>)> {
        let (supernode, stores, ..) = self.signing(now)?;
        Some((supernode, stores))
    }

    /// The same, and with what it takes to sign an advert.
    pub(super) fn signing(&mut self, now: Instant) -> Option<(&mut Supernode, Stores<'_>, &SecretKey, &mut Sequence)> {
        let wall = self.wall_time(now);
        let Self { me, random, members, records, sequence, out, acting, .. } = self;
        match acting {
            Acting::Leaf(_) => None,
            Acting::Supernode(s) => Some((s, Stores { wall, random, members, records, out }, me.secret(), sequence)),
        }
    }

    /// The own wall clock now.
    pub(super) fn own_wall(&self, now: Instant) -> Option<WallTime> {
        self.wall.map(|(at, wall)| wall + now.since(at))
    }

    /// The time for statements: by the own wall clock, unless that is wrong.
    pub(super) fn wall_time(&self, now: Instant) -> Option<WallTime> {
        self.clock.time(now, self.standing(now))
    }

    /// What others' clocks stand against.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        Standing { own: self.own_wall(now), is_leaf: !self.is_serving(), voters: self.members.spread().max(1) }
    }

    // ---- what is known ----

    /// This node.
    pub(crate) fn id(&self) -> PeerId {
        self.me.id()
    }

    /// Whether it leaves.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Whether it decides for itself when it serves.
    pub(crate) fn is_auto(&self) -> bool {
        self.terms.is_auto()
    }

    /// What it is to others, as those see it who look at its router.
    pub(crate) fn stand(&self) -> Stand {
        match (self.is_auto(), self.is_serving()) {
            _ if self.is_leaving => Stand::Leaving,
            (true, true) => Stand::Volunteer,
            (false, true) => Stand::Appointed,
            (true, false) => Stand::Willing { is_asking: self.is_asking() },
            (false, false) => Stand::Leaf,
        }
    }

    /// Where peers are to ask for it: at itself, if it serves, or at its homes, the best first.
    pub(crate) fn contacts(&self) -> Vec<(PeerId, SocketAddr)> {
        match &self.acting {
            Acting::Leaf(homes) => homes.registered().collect(),
            Acting::Supernode(s) => s.advertise.iter().map(|address| (self.me.id(), *address)).collect(),
        }
    }

    /// Whether this leaf is registered there.
    pub(crate) fn is_home(&self, id: &PeerId) -> bool {
        matches!(&self.acting, Acting::Leaf(homes) if homes.registered().any(|(home, _)| home == *id))
    }

    /// Whether this node serves others now.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.acting, Acting::Supernode(_))
    }

    /// What this node is to others now.
    pub(crate) fn present_role(&self) -> Role {
        match &self.acting {
            Acting::Leaf(_) => Role::Leaf,
            Acting::Supernode(s) => Role::Supernode { advertise: s.advertise.clone() },
        }
    }

    /// Whether this leaf knows no supernode at all.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(&self.acting, Acting::Leaf(homes) if homes.is_lost())
    }

    /// Whether the link to this peer is needed here.
    pub(crate) fn needs(&self, id: &PeerId) -> bool {
        if self.helpers.contains(id) {
            return true;
        }
        match &self.acting {
            Acting::Leaf(homes) => homes.needs(id),
            Acting::Supernode(s) => s.gossip.needs(id) || (s.registrations.needs(id) && !s.registrations.contains(id)),
        }
    }

    /// Whether nothing here needs the link to this peer, and none of our leaves is behind it.
    pub(crate) fn may_rest(&self, id: &PeerId) -> bool {
        !self.needs(id) && !self.is_registered(id)
    }

    /// Whether this peer is known to be a supernode: by its advert, or because the user or an earlier run says so.
    pub(crate) fn is_supernode(&self, id: &PeerId) -> bool {
        (self.members.contains(id) && self.members.is_signed(id)) || self.needs(id)
    }

    /// Where a supernode is, and where else it says that it is.
    pub(crate) fn supernode_addresses(&self, id: &PeerId) -> Vec<SocketAddr> {
        let advert = self.members.get(id).filter(|_| self.members.is_signed(id));
        let (Some(at), Some(advert)) = (self.members.address(id), advert) else { return Vec::new() };
        let others = advert.usable(Some(at.ip())).filter(|other| *other != at);
        core::iter::once(at).chain(others).collect()
    }

    /// Whether a supernode is at this address, as the user says or as this node found.
    pub(crate) fn is_at(&self, id: &PeerId, address: SocketAddr) -> bool {
        match &self.acting {
            Acting::Leaf(homes) => homes.is_at(id, address),
            Acting::Supernode(s) => s.gossip.is_at(id, address, &self.members),
        }
    }

    /// How loaded a supernode is, as last heard.
    pub(crate) fn supernode_load(&self, now: Instant, id: &PeerId) -> Option<Load> {
        self.members.load(now, id)
    }

    /// Supernodes that links are up to, as far as this room asked for them: whom to ask, the best first.
    pub(crate) fn linked(&self) -> Vec<PeerId> {
        match &self.acting {
            Acting::Leaf(homes) => homes.linked().collect(),
            Acting::Supernode(s) => s.gossip.linked().copied().collect(),
        }
    }

    /// All supernodes known by their adverts.
    pub(crate) fn supernodes(&self) -> impl Iterator<Item = &PeerId> {
        self.members.iter().map(|(id, _)| id)
    }

    /// The same, for whoever asks what this node knows.
    pub(crate) fn supernode_status(&self, now: Instant) -> Vec<SupernodeStatus> {
        let status = |(id, address): (&PeerId, SocketAddr)| SupernodeStatus {
            peer: *id,
            address,
            load: self.members.load(now, id),
        };
        self.members.addresses().map(status).collect()
    }

    /// The homes at which this leaf is registered now, the best first.
    pub(crate) fn own_homes(&self) -> Vec<(PeerId, SocketAddr)> {
        match &self.acting {
            Acting::Leaf(homes) => homes.registered().collect(),
            Acting::Supernode(_) => Vec::new(),
        }
    }

    /// Whether a leaf is registered here.
    pub(crate) fn is_registered(&self, id: &PeerId) -> bool {
        matches!(&self.acting, Acting::Supernode(s) if s.registrations.contains(id))
    }

    /// What else this node does as a supernode.
    pub(crate) fn serving(&self) -> Option<Serving> {
        let Acting::Supernode(s) = &self.acting else { return None };
        let mut serving = Serving { records: self.records.len(), ..Serving::default() };
        s.registrations.report(&mut serving);
        s.gossip.report(&mut serving);
        Some(serving)
    }

    /// How many leaves are.
    pub(crate) fn leaves(&self) -> usize {
        match &self.acting {
            Acting::Leaf(_) => 0,
            Acting::Supernode(s) => s.registrations.len(),
        }
    }

    /// Where a peer is at home, as far as this node knows without asking: here, or by its record.
    pub(crate) fn homes_of(&self, id: &PeerId) -> Vec<(PeerId, SocketAddr)> {
        if let Acting::Supernode(s) = &self.acting
            && s.registrations.contains(id)
        {
            return s.advertise.first().map(|address| (self.me.id(), *address)).into_iter().collect();
        }
        let record = self.records.get(id).and_then(Record::read_unchecked);
        record.map(|record| record.addresses()).unwrap_or_default()
    }

    /// How loaded this node is; a leaf is not.
    pub(crate) fn load(&self, carried: Carried) -> Load {
        match &self.acting {
            Acting::Leaf(_) => Load::default(),
            Acting::Supernode(s) => {
                carried.load(s.registrations.len(), self.terms.leaves_max, self.terms.relay_bps_max)
            }
        }
    }
}
