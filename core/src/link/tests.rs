//! The room as a whole: handshakes, what may go wrong with them, and epochs that come of them.

use super::epoch::{Exhausted, OpenError, SEAL_LIMIT};
use super::handshake::HandshakeError;
use super::replay::WINDOW;
use std::sync::Arc;

use super::*;
use crate::identity::{PeerId, PeerIdError, SecretKey};
use crate::random::KeyRng;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::packet::{
    BEAT_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, INIT_HEADER_LEN, Kind, MAC_LEN, NOISE_1_OVERHEAD, NOISE_2_OVERHEAD,
    Packet, RESPONSE_HEADER_LEN,
};

type Buffer = [u8; DATAGRAM_LEN_MAX];
const EMPTY: Buffer = [0; DATAGRAM_LEN_MAX];

const CALLER_INDEX: u32 = 0x1122_3344;
const CALLEE_INDEX: u32 = 0xAABB_CCDD;
const INIT: InitFixed = InitFixed { time_us: 1_700_000_000_000_000, session: 0x0102_0304_0506_0708 };
const RESPONSE: ResponseFixed = ResponseFixed { early_accepted: true, resumed: false, session: 77 };

fn identity(seed: u8) -> Identity {
    Identity::new(SecretKey::from_bytes(&[seed; 32]))
}

fn peer_keys(me: &Identity) -> PeerKeys {
    PeerKeys::new(me.id()).expect("an honest key")
}

fn rng(seed: u8) -> KeyRng {
    KeyRng::new([seed; 32])
}

/// A caller, a callee, and an Init between them.
struct Call {
    caller: Identity,
    callee: Identity,
    keys: KeyRng,
    initiation: Initiation,
    init: Vec<u8>,
}

fn call(body: &[u8], macs: Macs<'_>) -> Call {
    let (caller, callee, mut keys) = (identity(1), identity(2), rng(3));
    let mut out = EMPTY;
    let (initiation, len) =
        initiate(&caller, &peer_keys(&callee), &mut keys, CALLER_INDEX, INIT, body, macs, &mut out).expect("an Init");
    Call { caller, callee, keys, initiation, init: out[..len].to_vec() }
}

impl Call {
    fn accept(&self, packet: &[u8], macs: bool) -> Result<(Accepted, Vec<u8>), HandshakeError> {
        let mut body = EMPTY;
        let (accepted, len) = accept(&self.callee, packet, macs, &mut body)?;
        Ok((accepted, body[..len].to_vec()))
    }

    /// The genuine Response and the callee's epoch.
    fn respond(&mut self, body: &[u8]) -> (Vec<u8>, Epoch) {
        let macs = self.initiation.mac1().is_some();
        let (accepted, _) = self.accept(&self.init, macs).expect("genuine");
        let sender = accepted.sender;
        let mut out = EMPTY;
        let (keys, len) = accepted.respond(&mut self.keys, CALLEE_INDEX, RESPONSE, body, &mut out).expect("a Response");
        (out[..len].to_vec(), Epoch::new(keys, CALLEE_INDEX, sender))
    }

    fn finish(&mut self, packet: &[u8]) -> Result<(Epoch, ResponseFixed, Vec<u8>), HandshakeError> {
        let mut body = EMPTY;
        let (keys, remote, fixed, len) = self.initiation.finish(packet, &mut body)?;
        Ok((Epoch::new(keys, CALLER_INDEX, remote), fixed, body[..len].to_vec()))
    }
}

/// Both epochs of a handshake.
fn epochs() -> (Epoch, Epoch) {
    let mut call = call(b"", Macs::None);
    let (response, callee) = call.respond(b"");
    let (caller, ..) = call.finish(&response).expect("genuine");
    (caller, callee)
}

fn seal(epoch: &mut Epoch, kind: Kind, text: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; text.len() + DATA_OVERHEAD];
    buf[DATA_HEADER_LEN..][..text.len()].copy_from_slice(text);
    let len = epoch.seal(kind, &mut buf, text.len()).expect("not exhausted");
    assert_eq!(len, buf.len());
    buf
}

fn beat(epoch: &mut Epoch, kind: Kind) -> Vec<u8> {
    let mut buf = vec![0; BEAT_LEN];
    assert_eq!(epoch.seal_beat(kind, &mut buf), Ok(BEAT_LEN));
    buf
}

/// Opens a copy, so that the packet can be used again.
fn open(epoch: &mut Epoch, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    epoch.open(&mut packet.to_vec()).map(|text| text.to_vec())
}

/// Each way to damage a packet once: every bit flipped, every shorter length, a byte more.
fn damaged(packet: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flips = (0..packet.len() * 8).map(|bit| {
        let mut copy = packet.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    });
    let cuts = (0..packet.len()).map(|len| packet[..len].to_vec());
    let longer = [packet, &[0]].concat();
    flips.chain(cuts).chain([longer])
}

#[test]
fn both_sides_get_the_same_keys_and_each_others_words() {
    for macs in [Macs::None, Macs::Plain, Macs::Cookie(&[9; 16])] {
        let mut call = call(b"hello", macs);
        let (accepted, body) = call.accept(&call.init, macs != Macs::None).expect("genuine");
        assert_eq!(accepted.peer, call.caller.id());
        assert_eq!(accepted.peer_keys(), peer_keys(&call.caller));
        assert_eq!(accepted.sender, CALLER_INDEX);
        assert_eq!(accepted.fixed, INIT);
        assert_eq!(accepted.ephemeral[..], call.init[INIT_HEADER_LEN..][..32]);
        assert_eq!(body, b"hello");

        let (response, mut callee) = call.respond(b"welcome");
        let (mut caller, fixed, body) = call.finish(&response).expect("genuine");
        assert_eq!(fixed, RESPONSE);
        assert_eq!(body, b"welcome");
        assert_eq!((caller.local_index(), caller.remote_index()), (CALLER_INDEX, CALLEE_INDEX));

        for (kind, text) in [(Kind::Data, &b"one"[..]), (Kind::Stream, b""), (Kind::Data, &[5; 1200])] {
            let there = seal(&mut caller, kind, text);
            assert_eq!(open(&mut callee, &there).as_deref(), Ok(text));
            let back = seal(&mut callee, kind, text);
            assert_eq!(open(&mut caller, &back).as_deref(), Ok(text));
        }
    }
}

/// Each side's key may have either sign; all four pairs work.
#[test]
fn the_sign_bit_tells_who_calls() {
    let mut signs = std::collections::BTreeSet::new();
    for (a, b) in (0..4).flat_map(|a| (4..8).map(move |b| (a, b))) {
        let (caller, callee) = (identity(a), identity(b));
        signs.insert((caller.id().sign_bit(), callee.id().sign_bit()));
        let (mut out, mut body) = (EMPTY, EMPTY);
        let (_, len) =
            initiate(&caller, &peer_keys(&callee), &mut rng(0), 1, INIT, b"", Macs::None, &mut out).expect("an Init");
        let (accepted, _) = accept(&callee, &out[..len], false, &mut body).expect("genuine");
        assert_eq!(accepted.peer, caller.id());
    }
    assert_eq!(signs.len(), 4, "the seeds no longer cover all pairs of signs");
}

#[test]
fn packets_have_the_sizes_the_design_counts_on() {
    // Restated, not imported: header, ephemeral, sealed static, payload and tag, macs.
    let plain = call(&[0; 100], Macs::Plain).init.len();
    assert_eq!(plain, 6 + 32 + 48 + (17 + 100) + 16 + 32);
    let mut call = call(&[0; 100], Macs::None);
    assert_eq!(call.init.len(), plain - 32);
    let (response, mut epoch) = call.respond(&[0; 100]);
    assert_eq!(response.len(), 5 + 32 + (13 + 100) + 16);
    assert_eq!(seal(&mut epoch, Kind::Data, &[0; 100]).len(), 125);
    assert_eq!(beat(&mut epoch, Kind::Beat).len(), 17);
}

#[test]
fn same_seed_same_bytes() {
    let run = || {
        let mut call = call(b"body", Macs::Plain);
        let (response, mut callee) = call.respond(b"reply");
        (call.init.clone(), response, seal(&mut callee, Kind::Data, b"text"), beat(&mut callee, Kind::BeatAsk))
    };
    assert_eq!(run(), run());
    let first = call(b"body", Macs::Plain).init;
    let (caller, callee) = (identity(1), identity(2));
    let mut out = EMPTY;
    let (_, len) =
        initiate(&caller, &peer_keys(&callee), &mut rng(4), CALLER_INDEX, INIT, b"body", Macs::Plain, &mut out)
            .expect("an Init");
    assert_ne!(first, out[..len], "another seed must give another ephemeral key");
}

#[test]
fn two_inits_from_one_generator_differ() {
    let (caller, callee, mut keys) = (identity(1), identity(2), rng(3));
    let mut inits = [EMPTY; 2];
    for out in &mut inits {
        initiate(&caller, &peer_keys(&callee), &mut keys, 7, INIT, b"", Macs::None, out).expect("an Init");
    }
    assert_ne!(inits[0][INIT_HEADER_LEN..][..32], inits[1][INIT_HEADER_LEN..][..32]);
}

/// Threat D8: neither public key is on the wire in clear.
#[test]
fn d8_no_key_is_in_clear() {
    let mut call = call(b"body", Macs::Plain);
    let (response, _) = call.respond(b"reply");
    let ids = [call.caller.id(), call.callee.id()];
    for packet in [&call.init, &response] {
        for id in ids {
            let noise = id.noise_public().expect("an honest key");
            assert!(!packet.windows(8).any(|w| id.as_bytes().windows(8).any(|k| k == w)));
            assert!(!packet.windows(8).any(|w| noise.windows(8).any(|k| k == w)));
        }
    }
}

/// Threat D2: another than the one who was called can neither read nor answer.
#[test]
fn d2_another_responder_cannot_answer() {
    let mut call = call(b"secret", Macs::None);
    let other = identity(9);
    let mut body = EMPTY;
    assert_eq!(accept(&other, &call.init, false, &mut body).err(), Some(HandshakeError::Unauthentic));

    // A Response that another made, to an Init that did go to it, with the index right.
    let (caller, mut keys, mut out) = (identity(1), rng(5), EMPTY);
    let (_, len) = initiate(&caller, &peer_keys(&other), &mut keys, CALLER_INDEX, INIT, b"", Macs::None, &mut out)
        .expect("an Init");
    let (accepted, _) = accept(&other, &out[..len], false, &mut body).expect("genuine");
    let (_, len) = accepted.respond(&mut keys, 1, RESPONSE, b"", &mut out).expect("a Response");
    assert_eq!(call.finish(&out[..len]).err(), Some(HandshakeError::Unauthentic));
}

#[test]
fn a_damaged_init_is_refused_and_the_genuine_one_taken() {
    for macs in [false, true] {
        let call = call(b"body", if macs { Macs::Plain } else { Macs::None });
        let noise_end = call.init.len() - if macs { 2 * MAC_LEN } else { 0 };
        let mut admitted = 0;
        for packet in damaged(&call.init) {
            // The macs are the gate's to check, which does so before the handshake sees the packet.
            if packet.len() == call.init.len() && packet[..noise_end] == call.init[..noise_end] {
                admitted += 1;
                continue;
            }
            let error = call.accept(&packet, macs).err().expect("damaged");
            assert!(matches!(error, HandshakeError::Malformed | HandshakeError::Unauthentic), "{error:?}");
        }
        assert_eq!(admitted, if macs { 256 } else { 0 });
        assert!(call.accept(&call.init, macs).is_ok());
    }
}

/// The half-open handshake survives any number of forged Responses: the genuine one is taken after them.
#[test]
fn a_damaged_response_leaves_the_handshake_open() {
    let mut call = call(b"body", Macs::Plain);
    let (response, mut callee) = call.respond(b"reply");
    for packet in damaged(&response) {
        let error = call.finish(&packet).err().expect("damaged");
        assert!(
            matches!(error, HandshakeError::Malformed | HandshakeError::WrongReceiver | HandshakeError::Unauthentic),
            "{error:?}"
        );
    }
    let (mut caller, ..) = call.finish(&response).expect("genuine");
    let packet = seal(&mut caller, Kind::Data, b"still here");
    assert_eq!(open(&mut callee, &packet).as_deref(), Ok(&b"still here"[..]));
    assert!(call.finish(&response).is_err(), "a Response is taken once");
}

/// Threat D4: after every forgery the epoch is, bit for bit, as it was; then the genuine packet opens, once.
#[test]
fn d4_a_damaged_packet_changes_nothing() {
    let (mut caller, mut callee) = epochs();
    let first = seal(&mut caller, Kind::Data, b"first");
    assert!(open(&mut callee, &first).is_ok());
    let state = Epoch::state;
    let before = state(&callee);

    let packet = seal(&mut caller, Kind::Stream, b"some text");
    for forged in damaged(&packet) {
        assert!(open(&mut callee, &forged).is_err());
        assert_eq!(state(&callee), before);
    }
    let ask = beat(&mut caller, Kind::BeatAsk);
    for forged in damaged(&ask) {
        assert!(callee.open_beat(&forged).is_err());
        assert_eq!(state(&callee), before);
    }
    assert_eq!(open(&mut callee, &packet).as_deref(), Ok(&b"some text"[..]));
    assert_eq!(callee.open_beat(&ask), Ok(Kind::BeatAsk));
    assert_eq!(open(&mut callee, &packet), Err(OpenError::Duplicate));
    assert_eq!(callee.open_beat(&ask), Err(OpenError::Duplicate));
}

/// A packet of one direction, another epoch or another kind of opening is worth nothing.
#[test]
fn packets_open_only_where_they_belong() {
    let (mut caller, mut callee) = epochs();
    let packet = seal(&mut caller, Kind::Data, b"text");
    assert_eq!(open(&mut caller, &packet), Err(OpenError::WrongReceiver));
    let ask = beat(&mut caller, Kind::BeatAsk);
    assert_eq!(callee.open(&mut ask.clone()).err(), Some(OpenError::Malformed));
    assert_eq!(callee.open_beat(&packet), Err(OpenError::Malformed));

    // Reflected, with the index made right: the keys of the directions differ.
    let mut reflected = packet.clone();
    reflected[1..5].copy_from_slice(&CALLER_INDEX.to_le_bytes());
    assert_eq!(open(&mut caller, &reflected), Err(OpenError::Unauthentic));
    let mut reflected = ask;
    reflected[1..5].copy_from_slice(&CALLER_INDEX.to_le_bytes());
    assert_eq!(caller.open_beat(&reflected), Err(OpenError::Unauthentic));
}

/// Data, Stream and beats count together, and what arrives late within the window is still taken once.
#[test]
fn one_counter_and_one_window_for_all_kinds() {
    let (mut caller, mut callee) = epochs();
    let data = seal(&mut caller, Kind::Data, b"a");
    let ask = beat(&mut caller, Kind::Beat);
    let stream = seal(&mut caller, Kind::Stream, b"b");
    let counters = [&data, &ask, &stream].map(|p| match Packet::decode(p).expect("ours") {
        Packet::Sealed { counter, .. } | Packet::Beat { counter, .. } => counter,
        other => panic!("{other:?}"),
    });
    assert_eq!(counters, [0, 1, 2]);
    assert!(!callee.has_received());
    assert!(open(&mut callee, &stream).is_ok());
    assert!(callee.has_received());
    assert!(open(&mut callee, &data).is_ok());
    assert_eq!(callee.open_beat(&ask), Ok(Kind::Beat));
    for _ in 0..WINDOW {
        let _ = beat(&mut caller, Kind::Beat);
    }
    let newest = beat(&mut caller, Kind::Beat);
    assert_eq!(callee.open_beat(&newest), Ok(Kind::Beat));
    assert_eq!(open(&mut callee, &data), Err(OpenError::TooOld));
}

#[test]
fn the_counter_never_wraps() {
    let (mut caller, mut callee) = epochs();
    // Restated: 2^31, and 2^32 less 2^20.
    caller.next = 0x7FFF_FFFF;
    assert!(!caller.needs_rekey());
    let packet = seal(&mut caller, Kind::Data, b"x");
    assert!(caller.needs_rekey());
    assert!(open(&mut callee, &packet).is_ok());

    caller.next = 0xFFEF_FFFF;
    let last = seal(&mut caller, Kind::Data, b"last");
    assert_eq!(caller.seal(Kind::Data, &mut [0; 100], 10), Err(Exhausted));
    assert_eq!(caller.seal_beat(Kind::Beat, &mut [0; 100]), Err(Exhausted));
    assert!(open(&mut callee, &last).is_ok());

    // An authentic packet beyond the limit, which only a peer that breaks the rules can make.
    let mut beyond = vec![Kind::Beat as u8];
    beyond.extend(CALLEE_INDEX.to_le_bytes());
    beyond.extend(SEAL_LIMIT.to_le_bytes());
    beyond.extend([0; 8]);
    assert_eq!(callee.open_beat(&beyond), Err(OpenError::BadCounter));
}

#[test]
fn an_epoch_rests_in_little_memory_and_wakes() {
    assert!(size_of::<Epoch>() <= 480, "an epoch at rest weighs {} bytes", size_of::<Epoch>());
    let (mut caller, mut callee) = epochs();
    for _ in 0..3 {
        let packet = seal(&mut caller, Kind::Data, b"text");
        assert_eq!(open(&mut callee, &packet).as_deref(), Ok(&b"text"[..]));
        caller.rest();
        callee.rest();
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (caller, callee) = (identity(1), identity(2));
    let peer = peer_keys(&callee);
    let room = DATAGRAM_LEN_MAX - INIT_HEADER_LEN - NOISE_1_OVERHEAD - INIT_FIXED_LEN - 2 * MAC_LEN;
    let body = vec![7; room + 1];
    let init = |body: &[u8], out: &mut [u8]| {
        initiate(&caller, &peer, &mut rng(1), 1, INIT, body, Macs::Plain, out).map(|(_, len)| len)
    };
    assert_eq!(init(&body, &mut [0; 2000]), Err(HandshakeError::BufferTooSmall));
    assert_eq!(init(&body[1..], &mut [0; 2000]), Ok(DATAGRAM_LEN_MAX));
    assert_eq!(init(&body[1..], &mut [0; DATAGRAM_LEN_MAX - 1]), Err(HandshakeError::BufferTooSmall));
    assert_eq!(init(b"", &mut []), Err(HandshakeError::BufferTooSmall));

    let mut call = call(b"body", Macs::None);
    let mut short = [0; INIT_FIXED_LEN + 3];
    assert_eq!(accept(&call.callee, &call.init, false, &mut short).err(), Some(HandshakeError::BufferTooSmall));
    let (response, _) = call.respond(b"reply");
    let mut short = [0; RESPONSE_FIXED_LEN + 4];
    assert_eq!(call.initiation.finish(&response, &mut short).err(), Some(HandshakeError::BufferTooSmall));
    assert!(call.finish(&response).is_ok(), "a short buffer is no reason to lose the handshake");

    let (accepted, _) = call.accept(&call.init, false).expect("genuine");
    let room = DATAGRAM_LEN_MAX - RESPONSE_HEADER_LEN - NOISE_2_OVERHEAD - RESPONSE_FIXED_LEN;
    let result = accepted.respond(&mut rng(1), 1, RESPONSE, &vec![0; room + 1], &mut [0; 2000]);
    assert_eq!(result.err(), Some(HandshakeError::BufferTooSmall));
}

/// The eight points of small order of X25519, and encodings of them above the field's size (RFC 7748 §6.1, §7).
fn low_order_points() -> Vec<[u8; 32]> {
    let hex = |text: &str| {
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal");
        }
        out
    };
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    .map(hex)
    .to_vec()
}

#[test]
fn an_agreement_on_zero_is_an_error() {
    let pair = crypto::KeyPair::from_private(&[7; 32]).expect("a key");
    let mut out = [0; 56];
    for point in low_order_points() {
        assert_eq!(pair.agree(&point, &mut out), Err(snow::Error::Dh), "{point:02x?}");
    }
    assert_eq!(pair.agree(&[9; 32], &mut out), Ok(()));
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    let mut call = call(b"body", Macs::None);
    for point in low_order_points() {
        let mut forged = call.init.clone();
        forged[INIT_HEADER_LEN..][..32].copy_from_slice(&point);
        assert_eq!(call.accept(&forged, false).err(), Some(HandshakeError::Unauthentic));
    }
    let (response, _) = call.respond(b"");
    for point in low_order_points() {
        let mut forged = response.clone();
        forged[RESPONSE_HEADER_LEN..][..32].copy_from_slice(&point);
        assert_eq!(call.finish(&forged).err(), Some(HandshakeError::Unauthentic));
    }
    assert!(call.finish(&response).is_ok());
}

/// Agrees with RFC 7748 §6.1: otherwise only we could speak to ourselves.
#[test]
fn agreement_matches_the_rfc() {
    let alice = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
        0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
    ];
    let bob_public = [
        0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37, 0x3f, 0x83,
        0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
    ];
    let shared = [
        0x4a, 0x5d, 0x9d, 0x5b, 0xa4, 0xce, 0x2d, 0xe1, 0x72, 0x8e, 0x3b, 0xf4, 0x80, 0x35, 0x0f, 0x25, 0xe0, 0x7e,
        0x21, 0xc9, 0x47, 0xd1, 0x9e, 0x33, 0x76, 0xf0, 0x9b, 0x3c, 0x1e, 0x16, 0x17, 0x42,
    ];
    let mut out = [0; 32];
    crypto::KeyPair::from_private(&alice).expect("a key").agree(&bob_public, &mut out).expect("not zero");
    assert_eq!(out, shared);
}

/// The key that aws-lc derives from the secret is the one that others derive from the `PeerId`.
#[test]
fn own_key_is_the_one_others_derive() {
    for seed in 0..32 {
        let me = identity(seed);
        assert_eq!(me.noise.own.public(), &peer_keys(&me).noise_public);
    }
}

/// X25519 does not see a torsion component, so an attacker can prove that it has the private half of seven more keys
/// than its own. None of them is a `PeerId`.
#[test]
fn a_static_key_with_torsion_is_refused() {
    let callee = identity(2);
    let secret = SecretKey::from_bytes(&[1; 32]);
    let private = secret.noise_private();
    let compressed = curve25519_dalek::edwards::CompressedEdwardsY(*secret.peer_id().as_bytes());
    let honest = compressed.decompress().expect("an honest key");
    for (i, torsion) in curve25519_dalek::constants::EIGHT_TORSION.iter().enumerate() {
        let claimed = (honest + torsion).to_montgomery().to_bytes();
        let mut me = Identity::new(secret.clone());
        let pair = crypto::KeyPair::from_private(&private.0).expect("a key").claiming(claimed);
        me.noise = Arc::new(keys::NoiseConstants {
            own: Arc::new(pair),
            params: me.noise.params.clone(),
            blank: me.noise.blank.clone(),
        });
        let (mut out, mut body) = (EMPTY, EMPTY);
        let (_, len) =
            initiate(&me, &peer_keys(&callee), &mut rng(1), 1, INIT, b"", Macs::None, &mut out).expect("an Init");
        let result = accept(&callee, &out[..len], false, &mut body).map(|(accepted, _)| accepted.peer);
        let expected =
            if i == 0 { Ok(secret.peer_id()) } else { Err(HandshakeError::BadIdentity(PeerIdError::Torsion)) };
        assert_eq!(result, expected, "torsion {i}");
    }
}

#[test]
fn unknown_flags_are_refused() {
    let error = Some(HandshakeError::BadContents);
    let mut init = [0; INIT_FIXED_LEN];
    init[0] = 2;
    assert_eq!(handshake::decode_init_fixed(&init).err(), error);
    let mut response = [0; RESPONSE_FIXED_LEN];
    response[4] = 4;
    assert_eq!(handshake::decode_response_fixed(&response).err(), error);
}

/// The check for torsion is left out only where the caller says that it was made.
#[test]
fn a_known_peer_is_not_checked_again() {
    let call = call(b"body", Macs::None);
    let mut asked = None;
    let known = |peer: &PeerId| {
        asked = Some(*peer);
        true
    };
    let (accepted, _) = accept_unless(&call.callee, &call.init, false, known, &mut [0; 100]).expect("genuine");
    assert_eq!(accepted.peer, call.caller.id());
    assert_eq!(asked, Some(call.caller.id()));
}
