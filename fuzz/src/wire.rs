//! Targets for everything that `wire` and tickets decode.

use handfast_core::wire::dialect::INIT_VERSION;
use handfast_core::wire::frame::{FRAME_LEN_MAX, FRAME_PACKET_LEN_MAX, frame_header, split};
use handfast_core::wire::message::{InitBody, Message, ResponseBody, decode_next, encode};
use handfast_core::wire::packet::{
    DATA_HEADER_LEN, INIT_HEADER_LEN, Kind, Packet, RELAY_HEADER_LEN, RESPONSE_HEADER_LEN, data_header, init_header,
    loop_packet, relay_header, versions_packet,
};
use handfast_core::{DATAGRAM_LEN_MAX, PeerId, ServiceName, Ticket};

/// Outer headers: what decodes has the bytes that encoding its parts gives.
pub fn packet(data: &[u8]) {
    let Ok(packet) = Packet::decode(data) else { return };
    match packet {
        Packet::Init { sender, rest } => {
            assert_eq!(data[..INIT_HEADER_LEN], init_header(sender));
            assert_eq!(data[INIT_HEADER_LEN..], *rest);
        }
        Packet::Response { noise, .. } => {
            assert!(data.ends_with(noise) && data.len() - noise.len() <= RESPONSE_HEADER_LEN)
        }
        Packet::Cookie { .. } => assert_eq!(data[0], Kind::Cookie as u8),
        Packet::Sealed { kind, receiver, counter } | Packet::Beat { kind, receiver, counter, .. } => {
            assert_eq!(data[..DATA_HEADER_LEN], data_header(kind, receiver, counter));
        }
        Packet::Relay { channel, inner } => {
            assert_eq!(data[..RELAY_HEADER_LEN], relay_header(channel));
            assert_eq!(data[RELAY_HEADER_LEN..], *inner);
            let _ = Packet::decode(inner);
        }
        Packet::Loop { token } => assert_eq!(data, loop_packet(*token)),
        Packet::Foreign { version, sender } => {
            assert_eq!((data[1], &data[2..INIT_HEADER_LEN]), (version, &sender.to_le_bytes()[..]));
        }
        Packet::Versions { receiver, lowest, highest } => {
            assert_eq!(data[1..], [&receiver.to_le_bytes()[..], &[lowest, highest]].concat());
        }
    }
}

/// Packets in a TCP connection: read in pieces as in one go, and what is kept in between is shorter than a frame. The
/// first byte says how long the pieces are.
pub fn frames(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut whole = Vec::new();
    let result = split(stream, |range| whole.push(stream[range].to_vec()));
    let (mut buffer, mut pieces, mut failed) = (Vec::new(), Vec::new(), None);
    for piece in stream.chunks(usize::from(*piece) + 1) {
        buffer.extend_from_slice(piece);
        match split(&buffer, |range| pieces.push(buffer[range].to_vec())) {
            Ok(done) => drop(buffer.drain(..done)),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        assert!(buffer.len() < FRAME_LEN_MAX);
    }
    assert_eq!(pieces, whole);
    assert_eq!(failed, result.err());
    for packet in &whole {
        assert!((1..=FRAME_PACKET_LEN_MAX).contains(&packet.len()));
    }
    if let Ok(done) = result {
        let again: Vec<u8> =
            whole.iter().flat_map(|p| frame_header(p.len()).into_iter().flatten().chain(p.clone())).collect();
        assert_eq!(again, stream[..done]);
        assert_eq!(buffer, stream[done..]);
    }
}

/// Messages, one after the other: each takes at least a byte, and comes back from its own encoding.
pub fn message(mut data: &[u8]) {
    while !data.is_empty() {
        let before = data.len();
        let Ok(message) = decode_next(&mut data) else { return };
        assert!(data.len() < before, "a message of no bytes would be read forever");
        again(&message);
    }
}

fn again(message: &Message<'_>) {
    let mut buf = [0; 2 * DATAGRAM_LEN_MAX];
    let Some(len) = encode(message, &mut buf) else { return };
    let mut rest = &buf[..len];
    assert_eq!(decode_next(&mut rest).as_ref(), Ok(message));
    assert!(rest.is_empty());
}

/// What decodes is written in no more bytes than it was read from, and reads as the same again.
macro_rules! body {
    ($data:expr, $type:ty) => {
        if let Ok((body, rest)) = postcard::take_from_bytes::<$type>($data) {
            let mut buf = [0; 2 * DATAGRAM_LEN_MAX];
            if let Ok(written) = postcard::to_slice(&body, &mut buf) {
                assert!(written.len() <= $data.len() - rest.len());
                let (again, rest) = postcard::take_from_bytes::<$type>(written).expect("written just now");
                assert_eq!(again, body);
                assert!(rest.is_empty());
            }
        }
    };
}

/// What an Init carries.
pub fn init_body(data: &[u8]) {
    body!(data, InitBody<'_>);
}

/// What a Response carries.
pub fn response_body(data: &[u8]) {
    body!(data, ResponseBody<'_>);
}

/// Text forms: tickets, peers, services. What parses is written the same way again.
pub fn ticket(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text.to_lowercase());
    }
    if let Ok(name) = text.parse::<ServiceName>() {
        assert_eq!(name.as_str(), text);
    }
}

/// Headers from numbers: what encoding wrote, decoding reads.
pub fn roundtrip(data: &[u8]) {
    let mut bytes = crate::bytes::Bytes(data);
    let (first, second) = (bytes.u64() as u32, bytes.u64() as u32);
    let tail = [bytes.0, &[0; 128]].concat();

    let init = [&init_header(first)[..], &tail].concat();
    assert_eq!(Packet::decode(&init), Ok(Packet::Init { sender: first, rest: &tail }));
    for kind in [Kind::Data, Kind::Stream] {
        let sealed = [&data_header(kind, first, second)[..], &tail].concat();
        assert_eq!(Packet::decode(&sealed), Ok(Packet::Sealed { kind, receiver: first, counter: second }));
    }
    for kind in [Kind::Beat, Kind::BeatAsk] {
        let beat = [&data_header(kind, first, second)[..], &tail[..8]].concat();
        let mac = tail.first_chunk().expect("longer");
        assert_eq!(Packet::decode(&beat), Ok(Packet::Beat { kind, receiver: first, counter: second, mac }));
    }
    let token = tail.first_chunk().expect("longer");
    assert_eq!(Packet::decode(&loop_packet(*token)), Ok(Packet::Loop { token }));
    let versions = Packet::Versions { receiver: first, lowest: INIT_VERSION, highest: INIT_VERSION };
    assert_eq!(Packet::decode(&versions_packet(first)), Ok(versions));
    // What the messages before decode to, the peer decodes to as well.
    message(bytes.0);
}
