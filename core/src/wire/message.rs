//! Inner messages: what Data packets carry, and what the payloads of Init and Response carry.
//!
//! One enum in postcard; a Data packet holds one or more messages, one after the other. The number of a variant is
//! part of the wire format: new ones go at the end.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::address::{Address, Candidates};
use super::nat::{NatProfile, PunchState};
use super::packet::ChannelId;
use super::places::{Places, Room};
pub use super::relaying::{ChannelLimits, OfferedRelay, RelayLimit};
pub use super::views::{NeighbourWord, RENEWALS_MAX, Renewal};
use crate::identity::PeerId;

/// Most gossip digest entries in one message.
pub const DIGEST_MAX: usize = 100;
/// Most homes that a record names.
pub const RECORD_HOMES_MAX: usize = 2;
/// Most addresses that an advert names.
pub const ADVERT_ADDRESSES_MAX: usize = 4;
/// Most load hints in one message.
pub const HINTS_MAX: usize = 32;
/// Most supernodes that a dial-back request excludes.
pub const CONTACTED_MAX: usize = 64;
/// Most supernodes in one answer to [`Message::Seek`].
pub const NEAREST_MAX: usize = 8;
/// Most relays in one offer.
pub const OFFERED_MAX: usize = 8;
/// Most supernodes of which one message tells how much room they have.
pub const ROOMS_MAX: usize = 32;
/// Most partners that a supernode names to a leaf.
pub const PARTNERS_MAX: usize = 4;
/// Most supernodes that a leaf is sent to instead.
pub const ELSEWHERE_MAX: usize = 3;
/// Most volunteers in one answer.
pub const VOLUNTEERS_NAMED_MAX: usize = 4;

/// How loaded a supernode says it is: shares of its capacity, 255 is full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Registered leaves.
    pub leaves: u8,
    /// Introductions per second.
    pub introductions: u8,
    /// Relayed bytes per second.
    pub relay: u8,
}

impl Load {
    /// What one says that takes nobody.
    pub const FULL: Self = Self { leaves: u8::MAX, introductions: u8::MAX, relay: u8::MAX };

    /// The fullest of the three: what a choice compares.
    pub fn worst(self) -> u8 {
        self.leaves.max(self.introductions).max(self.relay)
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// This node is no supernode.
    NotASupernode,
    /// The target is not registered here.
    NotRegistered,
    /// The target did not answer in time.
    NoAnswer,
    /// Too many requests: try later, or elsewhere.
    Busy,
    /// The peer does not let us use anything it offers.
    NotAllowed,
    /// No record is known of the peer.
    Unknown,
    /// The peer cannot read an Init of this version.
    OtherVersion,
}

/// One entry of a gossip digest: whose advert or record, and how new.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DigestEntry {
    /// First bytes of the BLAKE3 hash of the `PeerId`.
    pub id_prefix: [u8; 4],
    /// Low bytes of the sequence number, little-endian.
    pub sequence_low: [u8; 4],
}

/// Unsigned, travels with gossip: how loaded a supernode last said it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LoadHint {
    /// First bytes of the BLAKE3 hash of the `PeerId`.
    pub id_prefix: [u8; 8],
    /// Which of two hints is newer.
    pub sequence: [u8; 4],
    /// The load.
    pub load: Load,
    /// How sure the sender is that it is gone: 0 alive, 255 dead.
    pub suspicion: u8,
}

/// What is signed and kept: adverts of supernodes, records of peers. Signed bytes travel unparsed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum SignedKind {
    /// A supernode's advert.
    Advert,
    /// A peer's record.
    Record,
}

/// What Data packets carry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message<'a> {
    /// Nothing but proof that the keys work: the initiator's first packet when it has nothing else to say.
    Confirm,
    /// Path validation and ping: answer with the token, on the same path.
    Challenge {
        /// Unguessable.
        token: [u8; 8],
        /// Zeros that make the challenge as long as its answer, which names an address.
        room: &'a [u8],
    },
    /// Answer to a challenge.
    ChallengeReply {
        /// The token of the challenge.
        token: [u8; 8],
        /// Where the challenge came from, when it came on a direct path.
        seen: Option<Address>,
    },
    /// Where the sender may be reached: told only to accepted peers.
    Candidates(Whereabouts),
    /// The sender is leaving: forget this link, expect no answer.
    Close,

    /// Asks a supernode where a peer is at home.
    Lookup {
        /// The peer.
        peer: PeerId,
    },
    /// Answers a lookup.
    LookupReply {
        /// The peer asked for.
        peer: PeerId,
        /// Its signed record, or nothing when none is known.
        #[serde(borrow)]
        record: Option<&'a [u8]>,
    },
    /// Asks a supernode to be a home of the sender. Takes effect when the link is confirmed.
    Register {
        /// The leaf's other home, so that the two can watch each other.
        other_home: Option<PeerId>,
        /// The leaf's signed record naming this home; may be empty until both homes are known.
        record: &'a [u8],
    },
    /// Answers a registration.
    RegisterReply {
        /// Whether it was refused, and why.
        refused: Option<Refusal>,
        /// The home's load.
        load: Load,
    },
    /// The sender no longer is at home here.
    Deregister,
    /// A home tells its leaf that the leaf's other home is dead.
    HomeDown {
        /// The dead one.
        home: PeerId,
    },

    /// Asks a home to introduce the sender to a peer registered there.
    Introduce {
        /// The peer.
        peer: PeerId,
        /// The sender's Init for that peer.
        init: &'a [u8],
    },
    /// A home brings its leaf an introduction.
    Introduced {
        /// The channel opened for the two.
        channel: ChannelId,
        /// What the channel may carry.
        limits: ChannelLimits,
        /// The caller's Init.
        init: &'a [u8],
    },
    /// The leaf's answer, to its home.
    IntroducedReply {
        /// The channel that the introduction named.
        channel: ChannelId,
        /// The Response, or why there is none.
        response: Result<&'a [u8], Refusal>,
    },
    /// A home answers the caller.
    IntroduceReply {
        /// Who was asked for.
        peer: PeerId,
        /// The channel, what it may carry, and the peer's Response; or why there is none.
        response: Result<(ChannelId, ChannelLimits, &'a [u8]), Refusal>,
    },
    /// A relay tells a leg that a channel is gone.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
    },
    /// A newcomer asks for all the adverts that a supernode knows.
    AdvertsRequest,
    /// Signed adverts or records, as their makers wrote them.
    Signed {
        /// Which.
        kind: SignedKind,
        /// The signed bytes.
        bytes: &'a [u8],
    },
    /// Push-pull gossip: what the sender has.
    Digest {
        /// Adverts or records.
        kind: SignedKind,
        /// Whether the receiver should answer with its own digest.
        pull: bool,
        /// The newest changes.
        entries: ArrayVec<DigestEntry, DIGEST_MAX>,
    },
    /// Load hints.
    Hints(ArrayVec<LoadHint, HINTS_MAX>),
    /// Asks a supernode for its load.
    LoadRequest,
    /// Its load, and the time.
    LoadReply {
        /// The load.
        load: Load,
        /// Seconds since the Unix epoch by the sender's own wall clock; 0 if it has none.
        time_s: u64,
    },

    /// Asks a supernode to have another one dial the address it sees the sender at.
    DialBackRequest {
        /// Comes back in [`Message::DialBack`].
        nonce: [u8; 8],
        /// First bytes of the BLAKE3 hashes of supernodes that the sender has sent to: a dial from one of those would
        /// prove nothing.
        contacted: ArrayVec<[u8; 4], CONTACTED_MAX>,
        /// Another port of the address that the sender is seen at, which its router maps to it; 0 for the one that it
        /// is seen at.
        port: u16,
    },
    /// One supernode asks another to dial a node at the address it sees it at.
    DialBackOrder {
        /// Whom to dial.
        peer: PeerId,
        /// Where the sender of this message sees it.
        address: Address,
        /// The node's nonce.
        nonce: [u8; 8],
    },
    /// The early message of the Init that a dial-back is.
    DialBack {
        /// The nonce of the request.
        nonce: [u8; 8],
    },

    /// Asks a link's peer for candidates and offers the sender's own: an unknown peer became an accepted one.
    Upgrade(Whereabouts),
    /// An unreliable datagram between applications.
    Datagram(&'a [u8]),
    /// Answers a [`Message::DialBackRequest`].
    DialBackReply {
        /// The nonce of the request.
        nonce: [u8; 8],
        /// Why nobody was ordered to dial, if nobody was.
        refused: Option<Refusal>,
    },

    /// Asks a supernode where this very packet came from, perhaps after a while: it may come from any socket of the
    /// sender and never looks like roaming.
    Probe {
        /// Comes back in [`Message::ProbeReply`].
        token: [u8; 8],
        /// Answer after so many tenths of a second: is the binding still there then?
        delay_ds: u16,
        /// Answer from the supernode's alternate port (RFC 5780 §4.4, with the port alone changed).
        alternate: bool,
        /// Zeros that make the probe as long as its answer.
        room: &'a [u8],
    },
    /// Answers a [`Message::Probe`], to where it came from.
    ProbeReply {
        /// The token of the probe.
        token: [u8; 8],
        /// Where the probe came from.
        seen: Address,
        /// The supernode's alternate port; 0 if it has none.
        alternate_port: u16,
    },

    /// How far the sender is with an attempt that both sides must make at the same time.
    Punch(PunchState),
    /// To a supernode: tell this leaf of yours where you see me.
    Vouch {
        /// The leaf.
        peer: PeerId,
    },
    /// From a supernode to its leaf: a peer that asked me to say so is seen there.
    Vouched {
        /// Who.
        peer: PeerId,
        /// Where.
        address: Address,
    },

    /// A relay tells both legs of a channel that it carries no more on it for now.
    ChannelLimited {
        /// The channel.
        channel: ChannelId,
        /// Which limit is met.
        limit: RelayLimit,
        /// It carries again after so many seconds.
        retry_after_s: u32,
    },
    /// Over a user link that is relayed: relays that could carry it instead.
    RelayOffer {
        /// Which offer of the sender's this is.
        round: u8,
        /// Whether the present relay carries no more.
        urgent: bool,
        /// The present relay first, unless that carries no more; then others.
        relays: ArrayVec<OfferedRelay, OFFERED_MAX>,
    },
    /// Answers a [`Message::RelayOffer`].
    RelayPick {
        /// Its round.
        round: u8,
        /// The relay that both shall go to, where that is, and what both shall present there; none if no other is better.
        pick: Option<(PeerId, Option<Address>, [u8; 16])>,
    },
    /// To a relay: a channel to whoever else presents this token.
    RelayJoin {
        /// Unguessable.
        token: [u8; 16],
    },
    /// The relay's answer, when another one has presented it.
    RelayJoined {
        /// The token.
        token: [u8; 16],
        /// The channel and what it may carry, or why there is none.
        result: Result<(ChannelId, ChannelLimits), Refusal>,
    },

    /// Behind a [`Message::LoadReply`] or [`Message::RegisterReply`]: the sender's own room.
    Places(Places),
    /// Before the [`Message::Hints`] that end a listing: the room of those listed.
    Rooms(ArrayVec<Room, ROOMS_MAX>),
    /// To a leaf: supernodes that watch the sender and are watched by it. Who makes the sender its first home had best
    /// have one of them for its other one.
    Partners(ArrayVec<(PeerId, Address), PARTNERS_MAX>),
    /// To a leaf that is refused, or that had better have another home: who has room.
    Elsewhere {
        /// The sender is not to be asked again before.
        retry_after_s: u16,
        /// Supernodes with room.
        supernodes: ArrayVec<(PeerId, Address), ELSEWHERE_MAX>,
    },
    /// Between supernodes: about being neighbours.
    Neighbour(NeighbourWord),
    /// To a neighbour: this supernode does not answer me, does it answer you?
    PingFor {
        /// Which.
        peer: PeerId,
    },
    /// The answer, if it does.
    Alive {
        /// Which.
        peer: PeerId,
    },
    /// To a supernode: which are nearest to the place of this peer? Answered with [`Message::Nearest`], or with
    /// [`Message::LookupReply`] if its record is wanted and is there.
    Seek {
        /// Whose place.
        peer: PeerId,
        /// Its record would do.
        record: bool,
    },
    /// Answers [`Message::Seek`].
    Nearest {
        /// To whose place.
        peer: PeerId,
        /// Supernodes that the sender has been to, and where; nearest first.
        supernodes: ArrayVec<(PeerId, Address), NEAREST_MAX>,
    },
    /// A leaf tells a home whether it relays for strangers.
    Volunteer {
        /// Whether it does.
        on: bool,
    },
    /// Answers a [`Message::Volunteer`].
    VolunteerReply {
        /// Why the home will not name it, if it will not.
        refused: Option<Refusal>,
    },
    /// A leaf asks a home for volunteers.
    VolunteersRequest,
    /// Some of them, or why there are none.
    Volunteers {
        /// Leaves that relay for strangers. Each is reached as any leaf is.
        named: Result<ArrayVec<PeerId, VOLUNTEERS_NAMED_MAX>, Refusal>,
    },
    /// To a supernode that keeps these records: they still hold. In place of the records themselves, as long as it has
    /// them.
    Renew(ArrayVec<Renewal, RENEWALS_MAX>),
    /// Answers [`Message::Renew`]: of those, these are not here.
    Wanted(ArrayVec<Renewal, RENEWALS_MAX>),
    /// A leaf to a supernode that is no home of its own: look me up, and have this brought to me by the homes that you
    /// find, as if a stranger called.
    Trial {
        /// An Init as homes bring it, which only the sender can read.
        init: &'a [u8],
    },
    /// Answers a [`Message::Trial`], when it is over.
    TrialReply {
        /// Why no home brought it, if none did. `Busy` says nothing of the homes.
        refused: Option<Refusal>,
    },
}

/// Where a peer may be reached, and what that takes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Whereabouts {
    /// What is known of its router.
    pub nat: NatProfile,
    /// Which attempt this is, so that both sides try the same: a retry changes strategy.
    pub attempt: u8,
    /// Its addresses.
    pub candidates: Candidates,
}

/// Zeros for [`Message::Challenge`]: an IPv4 address in the answer takes 7 bytes, and the length byte of the room is
/// there anyway.
const ROOM: [u8; 19] = [0; 19];
/// Zeros for [`Message::Probe`]: what its answer takes at most beyond it.
const PROBE_ROOM: [u8; 20] = [0; 20];

impl Message<'static> {
    /// A challenge that is no shorter than its answer, for a path over IPv4 or IPv6 or through a relay.
    pub fn challenge(token: [u8; 8], remote: Option<core::net::SocketAddr>) -> Self {
        let room = match remote {
            None => 0,
            Some(core::net::SocketAddr::V4(_)) => 7,
            Some(core::net::SocketAddr::V6(_)) => 19,
        };
        Self::Challenge { token, room: &ROOM[..room] }
    }
}

/// The room of a sample begins with 1: its sender measures this path, and may use another.
const SAMPLE_ROOM: [u8; 19] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Message<'static> {
    /// A challenge that measures a path; through a relay too it has room, to be told from others.
    pub fn sample(token: [u8; 8], remote: Option<core::net::SocketAddr>) -> Self {
        let room = match remote {
            None => 1,
            Some(core::net::SocketAddr::V4(_)) => 7,
            Some(core::net::SocketAddr::V6(_)) => 19,
        };
        Self::Challenge { token, room: &SAMPLE_ROOM[..room] }
    }
}

/// Whether a challenge with this room is a sample.
pub fn is_sample(room: &[u8]) -> bool {
    room.first() == SAMPLE_ROOM.first()
}

/// Whether a Data packet's plaintext only asks: no sign that anything of ours has arrived.
pub fn is_question(plain: &[u8]) -> bool {
    matches!(plain.first(), Some(1))
}

/// Whether a Data packet's plaintext goes where its first message has to, rather than where its sender prefers: a
/// sample goes where it measures, and an answer where it was asked. Both are first in their packet, and alone.
pub fn is_about_path(plain: &[u8]) -> bool {
    match plain {
        [1, _, _, _, _, _, _, _, _, room_len, room, ..] => *room_len > 0 && *room == 1,
        [2, ..] => true,
        _ => false,
    }
}

impl Message<'static> {
    /// A probe that is no shorter than its answer.
    pub fn probe(token: [u8; 8], delay_ds: u16, alternate: bool, remote: core::net::SocketAddr) -> Self {
        let room = if remote.is_ipv4() { 8 } else { 20 };
        Self::Probe { token, delay_ds, alternate, room: &PROBE_ROOM[..room] }
    }
}

/// Whether a Data packet's plaintext is a probe or its answer: they say nothing about the link's paths. The two are
/// alone in their packet.
pub fn is_probe(plain: &[u8]) -> bool {
    matches!(plain.first(), Some(28 | 29))
}

impl Message<'_> {
    /// Whether it is about who relays for whom.
    pub fn is_about_relays(&self) -> bool {
        matches!(
            self,
            Self::ChannelLimited { .. }
                | Self::RelayOffer { .. }
                | Self::RelayPick { .. }
                | Self::RelayJoin { .. }
                | Self::RelayJoined { .. }
                | Self::Volunteer { .. }
                | Self::VolunteerReply { .. }
                | Self::VolunteersRequest
                | Self::Volunteers { .. }
        )
    }
}

/// The first message that a node of an earlier release does not know: it drops what follows it in a packet.
const LATE_FIRST: u8 = 33;

/// Whether nothing may follow this encoded message in its packet.
pub fn is_last(encoded: &[u8]) -> bool {
    encoded.first().is_some_and(|number| *number >= LATE_FIRST)
}

/// Encodes one message into `out`; `None` if it does not fit.
pub fn encode(message: &Message<'_>, out: &mut [u8]) -> Option<usize> {
    postcard::to_slice(message, out).ok().map(|used| used.len())
}

/// Decodes the first message of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// They begin with no message that is known here.
pub fn decode_next<'a>(bytes: &mut &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| DecodeError::BadMessage)?;
    *bytes = rest;
    Ok(message)
}

/// The payload of an Init after its fixed part: what the initiator wants at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum InitBody<'a> {
    /// A link to a supernode, or to a peer at a known address, with an early message if any.
    Direct {
        /// A message that is answered in the Response.
        #[serde(borrow)]
        early: Option<Message<'a>>,
    },
    /// A link to a peer through its home: where the initiator may be reached.
    Introduced {
        /// Where the initiator may be reached.
        whereabouts: Whereabouts,
    },
    /// The same to a volunteer, for a link that is a leg of channels and nothing else.
    Leg {
        /// Where the initiator may be reached.
        whereabouts: Whereabouts,
    },
}

impl InitBody<'_> {
    /// Of an Init that a home brings: for the application, or for a leg.
    pub const fn introduced(whereabouts: Whereabouts, is_leg: bool) -> Self {
        if is_leg { Self::Leg { whereabouts } } else { Self::Introduced { whereabouts } }
    }
}

/// The payload of a Response after its fixed part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ResponseBody<'a> {
    /// Answers [`InitBody::Direct`].
    Direct {
        /// Where the Init came from.
        seen: Address,
        /// The answer to the early message.
        #[serde(borrow)]
        reply: Option<Message<'a>>,
    },
    /// Answers [`InitBody::Introduced`] and [`InitBody::Leg`]: the responder's whereabouts, without candidates if the initiator is not
    /// accepted (yet).
    Introduced {
        /// Where the responder may be reached.
        whereabouts: Whereabouts,
    },
}
