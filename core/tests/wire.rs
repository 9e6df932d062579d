//! Decoding takes any bytes and gives back what encoding was given.

mod samples;

use handfast_core::wire::address::{Address, CANDIDATES_MAX, Candidate, CandidateKind, Candidates};
use handfast_core::wire::dialect::INIT_VERSION;
use handfast_core::wire::message::{
    DIGEST_MAX, DigestEntry, ELSEWHERE_MAX, HINTS_MAX, InitBody, Load, LoadHint, Message, PARTNERS_MAX, ROOMS_MAX,
    Refusal, ResponseBody, decode_next, encode,
};
use handfast_core::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};
use handfast_core::wire::packet::{
    ChannelId, Kind, Packet, data_header, init_header, loop_packet, relay_header, response_header, versions_packet,
};
use handfast_core::wire::{DecodeError, SERVICE_NAME_LEN_MAX};
use handfast_core::{DATAGRAM_LEN_MAX, SecretKey, ServiceName};
use proptest::prelude::*;
use samples::{LAST, Parts, init_bodies, messages, number_of, response_bodies};

/// Room for the largest message of the tests, which may well be longer than a datagram.
const ROOM: usize = 8 * DATAGRAM_LEN_MAX;

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut buf = [0; ROOM];
    let len = encode(message, &mut buf).expect("room");
    buf[..len].to_vec()
}

/// Decodes all of `bytes`.
fn decode_all(mut bytes: &[u8]) -> Result<Vec<Message<'_>>, DecodeError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let before = bytes.len();
        all.push(decode_next(&mut bytes)?);
        assert!(bytes.len() < before, "a message of no bytes would be decoded for ever");
    }
    Ok(all)
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 2]>()).prop_map(|(ip, port)| Address::V4(ip, port)),
        (any::<[u8; 16]>(), any::<[u8; 2]>()).prop_map(|(ip, port)| Address::V6(ip, port)),
    ]
}

fn nat() -> impl Strategy<Value = NatProfile> {
    let mapping = prop::sample::select(vec![
        None,
        Some(MappingBehavior::EndpointIndependent),
        Some(MappingBehavior::AddressDependent),
        Some(MappingBehavior::AddressAndPortDependent),
    ]);
    let filtering = prop::sample::select(vec![
        None,
        Some(FilteringBehavior::EndpointIndependent),
        Some(FilteringBehavior::AddressDependent),
        Some(FilteringBehavior::AddressAndPortDependent),
    ]);
    let ports = prop_oneof![
        Just(PortAssignment::Unknown),
        Just(PortAssignment::Preserving),
        Just(PortAssignment::Random),
        any::<(i8, u16)>().prop_map(|(step, newest)| PortAssignment::Sequential { step, newest }),
        any::<(u16, u16)>().prop_map(|(first, width)| PortAssignment::Block { first, width }),
    ];
    (mapping, filtering, ports, any::<bool>()).prop_map(|(mapping, filtering, ports, udp_blocked)| NatProfile {
        mapping,
        filtering,
        ports,
        udp_blocked,
    })
}

fn candidates() -> impl Strategy<Value = Candidates> {
    use CandidateKind::*;
    let kind = prop::sample::select(vec![Host, ServerReflexive, Mapped, PeerReflexive]);
    prop::collection::vec((kind, address()), 0..=CANDIDATES_MAX)
        .prop_map(|all| all.into_iter().map(|(kind, address)| Candidate { kind, address }).collect())
}

fn load() -> impl Strategy<Value = Load> {
    any::<[u8; 3]>().prop_map(|[leaves, introductions, relay]| Load { leaves, introductions, relay })
}

fn parts() -> impl Strategy<Value = Parts> {
    use Refusal::*;
    let refusal = prop::sample::select(vec![NotASupernode, NotRegistered, NoAnswer, Busy, NotAllowed, Unknown]);
    let entries = prop::collection::vec(any::<([u8; 4], [u8; 4])>(), 0..=DIGEST_MAX);
    let hints = prop::collection::vec((any::<([u8; 8], [u8; 4], u8)>(), load()), 0..=HINTS_MAX);
    let fixed = (any::<[u8; 32]>(), any::<[u8; 8]>(), any::<[u8; 6]>(), any::<u64>(), any::<bool>());
    let bytes = prop::collection::vec(any::<u8>(), 0..DATAGRAM_LEN_MAX);
    (fixed, bytes, address(), (candidates(), nat()), load(), refusal, entries, hints).prop_map(
        |((seed, token, channel, number, yes), bytes, address, (candidates, nat), load, refusal, entries, hints)| {
            Parts {
                peer: SecretKey::from_bytes(&seed).peer_id(),
                bytes,
                token,
                channel: ChannelId(channel),
                address,
                candidates,
                nat,
                load,
                number,
                refusal,
                yes,
                entries: entries
                    .into_iter()
                    .map(|(id_prefix, sequence_low)| DigestEntry { id_prefix, sequence_low })
                    .collect(),
                contacted: (0..seed[0] % 65).map(|n| [n, 1, 2, 3]).collect(),
                hints: hints
                    .into_iter()
                    .map(|((id_prefix, sequence, suspicion), load)| LoadHint { id_prefix, sequence, load, suspicion })
                    .collect(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_back_as_they_went(parts in parts()) {
        let all = messages(&parts);
        for message in &all {
            let bytes = encoded(message);
            prop_assert_eq!(bytes[0], number_of(message));
            let mut rest = &bytes[..];
            let decoded = decode_next(&mut rest);
            prop_assert_eq!(decoded.as_ref(), Ok(message));
            prop_assert!(rest.is_empty());
        }
        // One after the other, as a Data packet holds them.
        let bytes: Vec<u8> = all.iter().flat_map(encoded).collect();
        prop_assert_eq!(decode_all(&bytes), Ok(all));
    }

    #[test]
    fn bodies_come_back_as_they_went(parts in parts()) {
        let mut buf = [0; ROOM];
        for body in init_bodies(&parts) {
            let bytes = &*postcard::to_slice(&body, &mut buf).expect("room");
            prop_assert_eq!(postcard::take_from_bytes::<InitBody<'_>>(bytes), Ok((body, &[][..])));
        }
        for body in response_bodies(&parts) {
            let bytes = &*postcard::to_slice(&body, &mut buf).expect("room");
            prop_assert_eq!(postcard::take_from_bytes::<ResponseBody<'_>>(bytes), Ok((body, &[][..])));
        }
    }

    /// Whatever decodes is worth the same after encoding again.
    #[test]
    fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..1500), number in 0..=LAST + 1) {
        let _ = Packet::decode(&bytes);
        let _ = decode_all(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = number;
        }
        let _ = Packet::decode(&bytes);
        let _ = postcard::take_from_bytes::<InitBody<'_>>(&bytes);
        let _ = postcard::take_from_bytes::<ResponseBody<'_>>(&bytes);
        if let Ok(message) = decode_next(&mut &bytes[..]) {
            let again = encoded(&message);
            prop_assert_eq!(decode_next(&mut &again[..]), Ok(message));
        }
    }

    #[test]
    fn damaged_messages_never_panic(parts in parts(), at in any::<prop::sample::Index>(), with: u8) {
        for message in messages(&parts) {
            let mut bytes = encoded(&message);
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let _ = decode_all(&bytes);
        }
    }
}

/// Threat A7: each kind at each length.
#[test]
fn a7_every_length_of_every_kind() {
    for fill in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
        let mut bytes = vec![fill; 65_535];
        for len in (1..=1500).chain([65_535]) {
            for first in (0..=LAST + 1).chain([0x7F, 0x80, 0xFF]) {
                bytes[0] = first;
                let packet = Packet::decode(&bytes[..len]);
                if Kind::from_byte(first).is_none() {
                    assert_eq!(packet, Err(DecodeError::UnknownKind));
                }
                let _ = decode_next(&mut &bytes[..len]);
            }
        }
    }
    assert_eq!(Packet::decode(&[]), Err(DecodeError::Truncated { field: "kind" }));
    assert_eq!(decode_next(&mut &[][..]), Err(DecodeError::BadMessage));
}

/// Threat A8: a packet full of the shortest messages ends.
#[test]
fn a8_every_message_consumes_something() {
    for byte in 0..=LAST {
        let _ = decode_all(&[byte; DATAGRAM_LEN_MAX]);
    }
    assert_eq!(decode_all(&[0; DATAGRAM_LEN_MAX]).map(|all| all.len()), Ok(DATAGRAM_LEN_MAX));
}

/// The sizes of each packet, restated: one byte less is truncated, and where the length is fixed one more is too much.
#[test]
fn packets_begin_and_end_where_they_should() {
    let ends = [
        (&init_header(1)[..], 6 + 96, false),
        (&response_header(1), 5 + 48, false),
        (&[3], 61, true),
        (&data_header(Kind::Data, 1, 2), 9 + 16, false),
        (&data_header(Kind::Stream, 1, 2), 9 + 16, false),
        (&data_header(Kind::Beat, 1, 2), 17, true),
        (&data_header(Kind::BeatAsk, 1, 2), 17, true),
        (&[9], 17, true),
    ];
    for (header, min, fixed) in ends {
        let mut bytes = header.to_vec();
        bytes.resize(min + 1, 0x55);
        for len in 0..min {
            assert!(matches!(Packet::decode(&bytes[..len]), Err(DecodeError::Truncated { .. })), "{header:?} {len}");
        }
        assert!(Packet::decode(&bytes[..min]).is_ok(), "{header:?}");
        let longer = Packet::decode(&bytes);
        assert_eq!(longer.is_ok(), !fixed, "{header:?}");
        if fixed {
            assert_eq!(longer, Err(DecodeError::TrailingBytes));
        }
    }
}

#[test]
fn fields_lie_where_they_should() {
    let packet = [&init_header(0x0403_0201)[..], &[9; 96]].concat();
    assert_eq!(packet[..6], [1, INIT_VERSION, 1, 2, 3, 4]);
    assert_eq!(Packet::decode(&packet), Ok(Packet::Init { sender: 0x0403_0201, rest: &[9; 96] }));

    let packet = [&response_header(0x0403_0201)[..], &[9; 48]].concat();
    assert_eq!(packet[..5], [2, 1, 2, 3, 4]);
    assert_eq!(Packet::decode(&packet), Ok(Packet::Response { receiver: 0x0403_0201, noise: &[9; 48] }));

    let packet = [&[3, 1, 2, 3, 4][..], &[5; 24], &[6; 32]].concat();
    let expected = Packet::Cookie { receiver: 0x0403_0201, nonce: &[5; 24], sealed: &[6; 32] };
    assert_eq!(Packet::decode(&packet), Ok(expected));

    for kind in [Kind::Data, Kind::Stream] {
        let packet = [&data_header(kind, 0x0403_0201, 0x0807_0605)[..], &[0; 16]].concat();
        assert_eq!(packet[..9], [kind as u8, 1, 2, 3, 4, 5, 6, 7, 8]);
        let expected = Packet::Sealed { kind, receiver: 0x0403_0201, counter: 0x0807_0605 };
        assert_eq!(Packet::decode(&packet), Ok(expected));
    }
    for kind in [Kind::Beat, Kind::BeatAsk] {
        let packet = [&data_header(kind, 0x0403_0201, 0x0807_0605)[..], &[7; 8]].concat();
        let expected = Packet::Beat { kind, receiver: 0x0403_0201, counter: 0x0807_0605, mac: &[7; 8] };
        assert_eq!(Packet::decode(&packet), Ok(expected));
    }
    let packet = loop_packet([7; 16]);
    assert_eq!(packet[..2], [9, 7]);
    assert_eq!(Packet::decode(&packet), Ok(Packet::Loop { token: &[7; 16] }));
    let packet = [&relay_header(ChannelId([1, 2, 3, 4, 5, 6]))[..], &[4, 9, 9]].concat();
    assert_eq!(packet[..7], [5, 1, 2, 3, 4, 5, 6]);
    let expected = Packet::Relay { channel: ChannelId([1, 2, 3, 4, 5, 6]), inner: &[4, 9, 9] };
    assert_eq!(Packet::decode(&packet), Ok(expected));
}

#[test]
fn another_version_is_told_apart() {
    for version in (0..=255).filter(|version| *version != INIT_VERSION) {
        let mut packet = [&init_header(1)[..], &[0; 96]].concat();
        packet[1] = version;
        assert_eq!(Packet::decode(&packet), Ok(Packet::Foreign { version, sender: 1 }));
        assert!(Packet::decode(&packet[..101]).is_err(), "too short to be answered");
    }
    let packet = versions_packet(0x0403_0201);
    assert_eq!(packet, [10, 1, 2, 3, 4, 1, 1]);
    let versions = Packet::Versions { receiver: 0x0403_0201, lowest: 1, highest: 1 };
    assert_eq!(Packet::decode(&packet), Ok(versions));
}

/// No Relay in Relay, no Cookie (it would answer an Init that needs none) and no Loop.
#[test]
fn relay_carries_what_it_may() {
    for kind in 0..=255 {
        let packet = [&relay_header(ChannelId([0; 6]))[..], &[kind]].concat();
        let allowed = [1, 2, 4, 6, 7, 8].contains(&kind);
        assert_eq!(Packet::decode(&packet).is_ok(), allowed, "kind {kind}");
    }
    assert!(Packet::decode(&relay_header(ChannelId([0; 6]))).is_err());
}

#[test]
fn kinds_go_both_ways() {
    for byte in 0..=255 {
        match Kind::from_byte(byte) {
            Some(kind) => assert_eq!(kind as u8, byte),
            None => assert!(!(1..=9).contains(&byte)),
        }
    }
}

#[test]
fn a_message_cut_short_is_none() {
    let parts = Parts::fixed();
    for message in messages(&parts) {
        let bytes = encoded(&message);
        for len in 0..bytes.len() {
            assert_eq!(decode_next(&mut &bytes[..len]), Err(DecodeError::BadMessage), "{message:?} at {len}");
        }
        let mut short = vec![0; bytes.len() - 1];
        assert_eq!(encode(&message, &mut short), None, "{message:?} in a short buffer");
    }
}

/// Threat A9: lengths that promise more than there is, or more than may be.
#[test]
fn a9_lengths_that_lie_are_refused() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let parts = Parts::fixed();
    let mut tried = 0;
    for message in messages(&parts) {
        let at = match message {
            Message::Candidates(_) | Message::Upgrade(_) | Message::Hints(_) | Message::Datagram(_) => 1,
            Message::Rooms(_) | Message::Partners(_) => 1,
            Message::Signed { .. } => 2,
            Message::Digest { .. } => 3,
            Message::Introduce { .. } => 1 + 32,
            Message::Introduced { .. } => 1 + 6,
            _ => continue,
        };
        let bytes = encoded(&message);
        for length in [&huge[..], &[0xFF, 0x7F], &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]] {
            let lie = [&bytes[..at], length, &bytes[at + 1..]].concat();
            assert_eq!(decode_next(&mut &lie[..]), Err(DecodeError::BadMessage), "{message:?}");
        }
        tried += 1;
    }
    assert_eq!(tried, 10);
}

/// One element more than a collection may have, all of them really there.
#[test]
fn a9_collections_have_a_cap() {
    let with = |number: u8, head: &[u8], count: usize, element: &[u8]| {
        let count = u8::try_from(count).expect("below 128, where a length is one byte");
        let mut bytes = [&[number], head, &[count]].concat();
        bytes.extend(element.repeat(count.into()));
        decode_next(&mut &bytes[..]).is_ok()
    };
    let candidate = [0, 0, 192, 0, 2, 1, 0, 80];
    let named = [&Parts::fixed().peer.as_bytes()[..], &candidate[1..]].concat();
    for (number, head, cap, element) in [
        // The profile of a router in two bytes, and the attempt.
        (3, &[0, 0, 0][..], CANDIDATES_MAX, &candidate[..]),
        (25, &[0, 0, 0], CANDIDATES_MAX, &candidate),
        (18, &[0, 0], DIGEST_MAX, &[0; 8]),
        (19, &[], HINTS_MAX, &[0; 16]),
        (39, &[], ROOMS_MAX, &[0; 10]),
        (40, &[], PARTNERS_MAX, &named),
        (41, &[30], ELSEWHERE_MAX, &named),
    ] {
        assert!(with(number, head, cap, element), "variant {number} at its cap");
        assert!(!with(number, head, cap + 1, element), "variant {number} above its cap");
    }
}

#[test]
fn values_that_may_not_be_are_refused() {
    for bytes in [
        &[LAST + 1][..],
        // A peer that is no point; one of small order.
        &[&[5, 2][..], &[0; 31]].concat(),
        &[&[5, 1][..], &[0; 31]].concat(),
        // An option, a bool and a refusal that are neither.
        &[&[2][..], &[0; 8], &[2]].concat(),
        &[18, 0, 2, 0],
        &[8, 1, 7, 0, 0, 0],
    ] {
        assert_eq!(decode_next(&mut &bytes[..]), Err(DecodeError::BadMessage), "{bytes:?}");
    }
}

#[test]
fn service_names() {
    for good in ["a", "ssh", "web", "0", "a-b_c.d/e", &"x".repeat(SERVICE_NAME_LEN_MAX)] {
        let name: ServiceName = good.parse().expect(good);
        assert_eq!(name.as_str(), good);
        let mut buf = [0; 64];
        let bytes = &*postcard::to_slice(&name, &mut buf).expect("room");
        assert_eq!(postcard::from_bytes::<ServiceName>(bytes), Ok(name));
    }
    for bad in ["", "-a", "_", ".", "/", "SSH", "a b", "a\0", "é", &"x".repeat(SERVICE_NAME_LEN_MAX + 1)] {
        assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        let mut buf = [0; 64];
        let bytes = &*postcard::to_slice(bad, &mut buf).expect("room");
        assert!(postcard::from_bytes::<ServiceName>(bytes).is_err(), "{bad:?}");
    }
    assert!(postcard::from_bytes::<ServiceName>(&[2, 0xFF, 0xFE]).is_err(), "not even text");
}
