//! One of each message, from parts that the caller picks.

use arrayvec::ArrayVec;
use handfast_core::wire::address::{Address, Candidate, CandidateKind, Candidates};
use handfast_core::wire::message::{
    ChannelLimits, DigestEntry, InitBody, Load, LoadHint, Message, NeighbourWord, OfferedRelay, RENEWALS_MAX, Refusal,
    RelayLimit, Renewal, ResponseBody, SignedKind, Whereabouts,
};
use handfast_core::wire::nat::PunchState;
use handfast_core::wire::nat::{MappingBehavior, NatProfile, PortAssignment};
use handfast_core::wire::packet::ChannelId;
use handfast_core::wire::places::{Places, Room};
use handfast_core::{PeerId, SecretKey};

/// What messages are made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) peer: PeerId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) token: [u8; 8],
    pub(crate) channel: ChannelId,
    pub(crate) address: Address,
    pub(crate) candidates: Candidates,
    pub(crate) nat: NatProfile,
    pub(crate) load: Load,
    pub(crate) number: u64,
    pub(crate) refusal: Refusal,
    pub(crate) yes: bool,
    pub(crate) entries: Vec<DigestEntry>,
    pub(crate) hints: Vec<LoadHint>,
    pub(crate) contacted: Vec<[u8; 4]>,
}

impl Parts {
    /// Always the same.
    pub(crate) fn fixed() -> Self {
        let load = Load { leaves: 1, introductions: 2, relay: 255 };
        let mut v6 = [0; 16];
        (v6[0], v6[1], v6[15]) = (0x20, 0x01, 9);
        Self {
            peer: SecretKey::from_bytes(&[1; 32]).peer_id(),
            bytes: b"bytes".to_vec(),
            token: *b"token-01",
            channel: ChannelId([0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5]),
            address: Address::V4([192, 0, 2, 1], [0x0F, 0xA0]),
            candidates: [
                Candidate { kind: CandidateKind::Host, address: Address::V4([10, 0, 0, 1], [0, 80]) },
                Candidate { kind: CandidateKind::ServerReflexive, address: Address::V6(v6, [0x12, 0x34]) },
                Candidate { kind: CandidateKind::Mapped, address: Address::V4([192, 0, 2, 2], [1, 0]) },
                Candidate { kind: CandidateKind::PeerReflexive, address: Address::V4([192, 0, 2, 3], [0, 1]) },
            ]
            .into_iter()
            .collect(),
            nat: NatProfile {
                mapping: Some(MappingBehavior::AddressAndPortDependent),
                filtering: None,
                ports: PortAssignment::Sequential { step: -1, newest: 50_112 },
                udp_blocked: false,
            },
            load,
            number: 300,
            refusal: Refusal::Busy,
            yes: true,
            entries: vec![DigestEntry { id_prefix: [1, 2, 3, 4], sequence_low: [5, 6, 7, 8] }; 2],
            hints: vec![LoadHint { id_prefix: [1; 8], sequence: [2; 4], load, suspicion: 3 }],
            contacted: vec![[9, 8, 7, 6]],
        }
    }
}

fn whereabouts_of(parts: &Parts) -> Whereabouts {
    Whereabouts { nat: parts.nat, attempt: 3, candidates: parts.candidates.clone() }
}

/// Each variant, some twice where they hold an option.
pub(crate) fn messages(parts: &Parts) -> Vec<Message<'_>> {
    let Parts { peer, ref bytes, token, channel, address, load, number, refusal, yes, .. } = *parts;
    let whereabouts = whereabouts_of(parts);
    let limits = ChannelLimits { rate_kbps: 2_000, quota_mib: 1_024 };
    let kind = if yes { SignedKind::Advert } else { SignedKind::Record };
    let renewal = Renewal { place: token, hash: number.to_le_bytes() };
    let renewals: ArrayVec<_, RENEWALS_MAX> = [renewal; 2].into_iter().collect();
    let all = vec![
        Message::Confirm,
        Message::Challenge { token, room: bytes },
        Message::ChallengeReply { token, seen: Some(address) },
        Message::ChallengeReply { token, seen: None },
        Message::Candidates(whereabouts.clone()),
        Message::Close,
        Message::Lookup { peer },
        Message::LookupReply { peer, record: Some(bytes) },
        Message::LookupReply { peer, record: None },
        Message::Register { other_home: Some(peer), record: bytes },
        Message::Register { other_home: None, record: &[] },
        Message::RegisterReply { refused: Some(refusal), load },
        Message::RegisterReply { refused: None, load },
        Message::Deregister,
        Message::HomeDown { home: peer },
        Message::Introduce { peer, init: bytes },
        Message::Introduced { channel, limits, init: bytes },
        Message::IntroducedReply { channel, response: Ok(bytes) },
        Message::IntroducedReply { channel, response: Err(refusal) },
        Message::IntroduceReply { peer, response: Ok((channel, limits, bytes)) },
        Message::IntroduceReply { peer, response: Err(refusal) },
        Message::ChannelClosed { channel },
        Message::AdvertsRequest,
        Message::Signed { kind, bytes },
        Message::Digest { kind, pull: yes, entries: parts.entries.iter().copied().collect() },
        Message::Hints(parts.hints.iter().copied().collect()),
        Message::LoadRequest,
        Message::LoadReply { load, time_s: number },
        Message::DialBackRequest { nonce: token, contacted: parts.contacted.iter().copied().collect(), port: 5 },
        Message::DialBackOrder { peer, address, nonce: token },
        Message::DialBack { nonce: token },
        Message::Upgrade(whereabouts.clone()),
        Message::Datagram(bytes),
        Message::DialBackReply { nonce: token, refused: Some(refusal) },
        Message::DialBackReply { nonce: token, refused: None },
        Message::Probe { token, delay_ds: 1_800, alternate: yes, room: bytes },
        Message::ProbeReply { token, seen: address, alternate_port: 40_000 },
        Message::Punch(PunchState { attempt: 2, round: 1, ready: yes, newest: 40_000, vouch: Some((peer, address)) }),
        Message::Punch(PunchState { attempt: 2, round: 0, ready: yes, newest: 0, vouch: None }),
        Message::Vouch { peer },
        Message::Vouched { peer, address },
        Message::ChannelLimited { channel, limit: RelayLimit::Pair, retry_after_s: 86_400 },
        Message::ChannelLimited { channel, limit: RelayLimit::Relay, retry_after_s: 0 },
        Message::RelayOffer {
            round: 1,
            urgent: yes,
            relays: [OfferedRelay { relay: peer, address: Some(address), rtt_ms: 300, load: 7 }; 2]
                .into_iter()
                .collect(),
        },
        Message::RelayPick { round: 1, pick: Some((peer, Some(address), TOKEN)) },
        Message::RelayPick { round: 1, pick: None },
        Message::RelayJoin { token: TOKEN },
        Message::RelayJoined { token: TOKEN, result: Ok((channel, limits)) },
        Message::RelayJoined { token: TOKEN, result: Err(refusal) },
        Message::Places(Places { taken: 1_000, all: 100_000 }),
        Message::Rooms(ArrayVec::from_iter([Room { id_prefix: token, taken: 119, all: 199 }])),
        Message::Partners(ArrayVec::from_iter([(peer, address)])),
        Message::Elsewhere { retry_after_s: 30, supernodes: ArrayVec::from_iter([(peer, address)]) },
        Message::Neighbour(NeighbourWord::Full),
        Message::Neighbour(NeighbourWord::Lonely),
        Message::Neighbour(NeighbourWord::Unreached(parts.address)),
        Message::PingFor { peer },
        Message::Alive { peer },
        Message::Seek { peer, record: true },
        Message::Nearest { peer, supernodes: [(peer, address)].into_iter().collect() },
        Message::Volunteer { on: yes },
        Message::VolunteerReply { refused: Some(refusal) },
        Message::VolunteerReply { refused: None },
        Message::VolunteersRequest,
        Message::Volunteers { named: Ok([peer; 2].into_iter().collect()) },
        Message::Volunteers { named: Err(refusal) },
        Message::Renew(renewals.clone()),
        Message::Wanted(renewals),
        Message::Trial { init: bytes },
        Message::TrialReply { refused: None },
        Message::TrialReply { refused: Some(refusal) },
    ];
    let mut numbers: Vec<u8> = all.iter().map(number_of).collect();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..=LAST), "a variant is missing, or out of order");
    all
}

/// The number of the last variant.
pub(crate) const LAST: u8 = 54;

/// What two ends present to a relay.
const TOKEN: [u8; 16] = *b"sixteen bytes 01";

/// The number that a variant has on the wire. No wildcard: a new variant must be added here, and then above.
pub(crate) fn number_of(message: &Message<'_>) -> u8 {
    match message {
        Message::Confirm => 0,
        Message::Challenge { .. } => 1,
        Message::ChallengeReply { .. } => 2,
        Message::Candidates(_) => 3,
        Message::Close => 4,
        Message::Lookup { .. } => 5,
        Message::LookupReply { .. } => 6,
        Message::Register { .. } => 7,
        Message::RegisterReply { .. } => 8,
        Message::Deregister => 9,
        Message::HomeDown { .. } => 10,
        Message::Introduce { .. } => 11,
        Message::Introduced { .. } => 12,
        Message::IntroducedReply { .. } => 13,
        Message::IntroduceReply { .. } => 14,
        Message::ChannelClosed { .. } => 15,
        Message::AdvertsRequest => 16,
        Message::Signed { .. } => 17,
        Message::Digest { .. } => 18,
        Message::Hints(_) => 19,
        Message::LoadRequest => 20,
        Message::LoadReply { .. } => 21,
        Message::DialBackRequest { .. } => 22,
        Message::DialBackOrder { .. } => 23,
        Message::DialBack { .. } => 24,
        Message::Upgrade(_) => 25,
        Message::Datagram(_) => 26,
        Message::DialBackReply { .. } => 27,
        Message::Probe { .. } => 28,
        Message::ProbeReply { .. } => 29,
        Message::Punch(_) => 30,
        Message::Vouch { .. } => 31,
        Message::Vouched { .. } => 32,
        Message::ChannelLimited { .. } => 33,
        Message::RelayOffer { .. } => 34,
        Message::RelayPick { .. } => 35,
        Message::RelayJoin { .. } => 36,
        Message::RelayJoined { .. } => 37,
        Message::Places(_) => 38,
        Message::Rooms(_) => 39,
        Message::Partners(_) => 40,
        Message::Elsewhere { .. } => 41,
        Message::Neighbour(_) => 42,
        Message::PingFor { .. } => 43,
        Message::Alive { .. } => 44,
        Message::Seek { .. } => 45,
        Message::Nearest { .. } => 46,
        Message::Volunteer { .. } => 47,
        Message::VolunteerReply { .. } => 48,
        Message::VolunteersRequest => 49,
        Message::Volunteers { .. } => 50,
        Message::Renew(_) => 51,
        Message::Wanted(_) => 52,
        Message::Trial { .. } => 53,
        Message::TrialReply { .. } => 54,
    }
}

/// Each variant of an Init's body.
pub(crate) fn init_bodies(parts: &Parts) -> Vec<InitBody<'_>> {
    let mut all = vec![InitBody::Direct { early: None }];
    all.extend(messages(parts).into_iter().map(|message| InitBody::Direct { early: Some(message) }));
    all.push(InitBody::Introduced { whereabouts: whereabouts_of(parts) });
    all.push(InitBody::Leg { whereabouts: whereabouts_of(parts) });
    all
}

/// Each variant of a Response's body.
pub(crate) fn response_bodies(parts: &Parts) -> Vec<ResponseBody<'_>> {
    let seen = parts.address;
    let mut all = vec![ResponseBody::Direct { seen, reply: None }];
    all.extend(messages(parts).into_iter().map(|message| ResponseBody::Direct { seen, reply: Some(message) }));
    all.push(ResponseBody::Introduced { whereabouts: whereabouts_of(parts) });
    all
}
