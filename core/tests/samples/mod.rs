//! One of each message, from parts that the caller picks.

use handfast_core::wire::address::{Address, Candidate, CandidateKind, Candidates};
use handfast_core::wire::message::{DigestEntry, InitBody, Load, LoadHint, Message, Refusal, ResponseBody, SignedKind};
use handfast_core::wire::packet::ChannelId;
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
    pub(crate) load: Load,
    pub(crate) number: u64,
    pub(crate) refusal: Refusal,
    pub(crate) yes: bool,
    pub(crate) entries: Vec<DigestEntry>,
    pub(crate) hints: Vec<LoadHint>,
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
            load,
            number: 300,
            refusal: Refusal::Busy,
            yes: true,
            entries: vec![DigestEntry { id_prefix: [1, 2, 3, 4], sequence_low: [5, 6, 7, 8] }; 2],
            hints: vec![LoadHint { id_prefix: [1; 8], sequence: [2; 4], load, suspicion: 3 }],
        }
    }
}

/// Each variant, some twice where they hold an option.
pub(crate) fn messages(parts: &Parts) -> Vec<Message<'_>> {
    let Parts { peer, ref bytes, token, channel, address, ref candidates, load, number, refusal, yes, .. } = *parts;
    let kind = if yes { SignedKind::Advert } else { SignedKind::Record };
    let all = vec![
        Message::Confirm,
        Message::Challenge { token },
        Message::ChallengeReply { token, seen: Some(address) },
        Message::ChallengeReply { token, seen: None },
        Message::Candidates(candidates.clone()),
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
        Message::Introduced { channel, init: bytes },
        Message::IntroducedReply { channel, response: Ok(bytes) },
        Message::IntroducedReply { channel, response: Err(refusal) },
        Message::IntroduceReply { peer, response: Ok((channel, bytes)) },
        Message::IntroduceReply { peer, response: Err(refusal) },
        Message::ChannelClosed { channel },
        Message::ChannelLimits { channel, rate_bps: number, quota_bytes: number.rotate_left(32) },
        Message::AdvertsRequest,
        Message::Signed { kind, bytes },
        Message::Digest { kind, pull: yes, entries: parts.entries.iter().copied().collect() },
        Message::Hints(parts.hints.iter().copied().collect()),
        Message::LoadRequest,
        Message::LoadReply { load, time_s: number },
        Message::DialBackRequest { nonce: token },
        Message::DialBackOrder { peer, address, nonce: token },
        Message::DialBack { nonce: token },
        Message::Upgrade(candidates.clone()),
        Message::Datagram(bytes),
    ];
    let mut numbers: Vec<u8> = all.iter().map(number_of).collect();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..=LAST), "a variant is missing, or out of order");
    all
}

/// The number of the last variant.
pub(crate) const LAST: u8 = 27;

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
        Message::ChannelLimits { .. } => 16,
        Message::AdvertsRequest => 17,
        Message::Signed { .. } => 18,
        Message::Digest { .. } => 19,
        Message::Hints(_) => 20,
        Message::LoadRequest => 21,
        Message::LoadReply { .. } => 22,
        Message::DialBackRequest { .. } => 23,
        Message::DialBackOrder { .. } => 24,
        Message::DialBack { .. } => 25,
        Message::Upgrade(_) => 26,
        Message::Datagram(_) => 27,
    }
}

/// Each variant of an Init's body.
pub(crate) fn init_bodies(parts: &Parts) -> Vec<InitBody<'_>> {
    let mut all = vec![InitBody::Direct { early: None }];
    all.extend(messages(parts).into_iter().map(|message| InitBody::Direct { early: Some(message) }));
    all.push(InitBody::Introduced { candidates: parts.candidates.clone() });
    all
}

/// Each variant of a Response's body.
pub(crate) fn response_bodies(parts: &Parts) -> Vec<ResponseBody<'_>> {
    let seen = parts.address;
    let mut all = vec![ResponseBody::Direct { seen, reply: None }];
    all.extend(messages(parts).into_iter().map(|message| ResponseBody::Direct { seen, reply: Some(message) }));
    all.push(ResponseBody::Introduced { candidates: parts.candidates.clone() });
    all
}
