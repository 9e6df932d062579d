//! What is on the wire, pinned byte for byte: one line per packet kind and per variant of each message.
//!
//! `golden/wire.txt` is what an independent implementation is checked against. A change of it is a change of the
//! protocol. Where one is meant, write it anew with
//!
//! ```text
//! HANDFAST_GOLDEN=write cargo test -p handfast-core --test golden
//! ```
//!
//! and look at the difference.

mod samples;

use std::fmt::Write as _;
use std::path::Path;

use handfast_core::internal::KeyRng;
use handfast_core::internal::{
    Admission, Epoch, Gate, Identity, InitFixed, Macs, PeerKeys, ResponseFixed, accept, initiate, open_cookie,
};
use handfast_core::wire::dialect::Dialect;
use handfast_core::wire::packet::{
    ChannelId, DATA_HEADER_LEN, Kind, Packet, loop_packet, relay_header, versions_packet,
};
use handfast_core::{DATAGRAM_LEN_MAX, Instant, SecretKey};
use samples::{Parts, init_bodies, messages, response_bodies};

const FILE: &str = "tests/golden/wire.txt";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The name of a variant: its `Debug` up to the first thing that is no letter.
fn name(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn dump() -> String {
    let mut out = String::from("# What is on the wire, in hexadecimal. See tests/golden.rs.\n");
    let mut line = |name: &str, bytes: &[u8]| writeln!(out, "{name} {}", hex(bytes)).expect("a string");

    for (name, packet) in packets() {
        line(&format!("packet.{name}"), &packet);
    }
    let mut dialect = [0; Dialect::LEN_MAX];
    let len = Dialect::OWN.write(&(), &mut dialect).expect("room");
    line("dialect.own", &dialect[..len]);
    let parts = Parts::fixed();
    for message in messages(&parts) {
        line(&format!("message.{}", name(&message)), &encoded(&message));
    }
    for body in init_bodies(&parts) {
        line(&format!("init_body.{}", name(&body)), &encoded(&body));
    }
    for body in response_bodies(&parts) {
        line(&format!("response_body.{}", name(&body)), &encoded(&body));
    }
    out
}

fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut buf = [0; 2 * DATAGRAM_LEN_MAX];
    postcard::to_slice(value, &mut buf).expect("room").to_vec()
}

/// Each packet kind, from fixed keys and a fixed seed.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let caller = Identity::new(SecretKey::from_bytes(&[1; 32]));
    let callee = Identity::new(SecretKey::from_bytes(&[2; 32]));
    let peer = PeerKeys::new(callee.id()).expect("an honest key");
    let mut keys = KeyRng::new([3; 32]);
    let (mut out, mut body) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
    let mut packets = Vec::new();
    let fixed = InitFixed { time_us: 0x0102_0304_0506_0708, session: 0x1112_1314_1516_1718 };

    let mut init = |macs, keys: &mut KeyRng| {
        let made = initiate(&caller, &peer, keys, 0x2122_2324, fixed, b"init body", macs, &mut out);
        let (initiation, len) = made.expect("an Init");
        (initiation, out[..len].to_vec())
    };
    let (_, inner) = init(Macs::None, &mut keys);
    let (asked, plain) = init(Macs::Plain, &mut keys);

    let mut gate = Gate::new(&mut keys);
    gate.force_load(true);
    let source = "192.0.2.1:4000".parse().expect("an address");
    let Admission::Cookie(cookie) = gate.admit(Instant::ZERO, &callee, source, &plain, &mut keys) else {
        panic!("no cookie under load");
    };
    let Ok(Packet::Cookie { nonce, sealed, .. }) = Packet::decode(&cookie) else { panic!("not a Cookie") };
    let opened = open_cookie(&callee.id(), &asked.mac1().expect("a mac"), nonce, sealed).expect("our cookie");
    let (mut initiation, proven) = init(Macs::Cookie(&opened), &mut keys);
    assert_eq!(gate.admit(Instant::ZERO, &callee, source, &proven, &mut keys), Admission::Pass);

    let (accepted, _) = accept(&callee, &proven, true, &mut body).expect("genuine");
    let fixed = ResponseFixed { early_accepted: true, resumed: true, session: 0x3132_3334_3536_3738 };
    let mut out = [0; DATAGRAM_LEN_MAX];
    let (callee_keys, len) =
        accepted.respond(&mut keys, 0x4142_4344, fixed, b"response body", &mut out).expect("a Response");
    let response = out[..len].to_vec();
    let (caller_keys, remote_index, ..) = initiation.finish(&response, &mut body).expect("genuine");
    let mut caller = Epoch::new(caller_keys, 0x2122_2324, remote_index);
    let mut callee = Epoch::new(callee_keys, 0x4142_4344, 0x2122_2324);

    packets.push(("init.inside_a_link", inner));
    packets.push(("init.plain", plain));
    packets.push(("cookie", cookie.to_vec()));
    packets.push(("init.with_cookie", proven));
    packets.push(("response", response));
    for (name, epoch) in [("initiator", &mut caller), ("responder", &mut callee)] {
        let mut sealed = |kind, text: &[u8]| {
            out[DATA_HEADER_LEN..][..text.len()].copy_from_slice(text);
            let len = epoch.seal(kind, &mut out, text.len()).expect("fresh keys");
            out[..len].to_vec()
        };
        let (data, stream) = (sealed(Kind::Data, b"data"), sealed(Kind::Stream, b""));
        let mut beat = |kind| {
            let len = epoch.seal_beat(kind, &mut out).expect("fresh keys");
            out[..len].to_vec()
        };
        let (ask, answer) = (beat(Kind::BeatAsk), beat(Kind::Beat));
        let relayed = [&relay_header(ChannelId([1, 2, 3, 4, 5, 6]))[..], &answer].concat();
        let names = match name {
            "initiator" => ["data.1", "stream.1", "beat_ask.1", "beat.1", "relay.1"],
            _ => ["data.2", "stream.2", "beat_ask.2", "beat.2", "relay.2"],
        };
        packets.extend(names.into_iter().zip([data, stream, ask, answer, relayed]));
    }
    packets.push(("loop", loop_packet([7; 16]).to_vec()));
    packets.push(("versions", versions_packet(0x2122_2324).to_vec()));
    packets
}

#[test]
fn the_wire_is_as_it_was() {
    if std::env::var_os("HANDFAST_GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE), dump()).expect("the golden file is writable");
    }
    let expected = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)).expect("the golden file");
    let got = dump();
    for (expected, got) in expected.lines().zip(got.lines()) {
        assert_eq!(expected, got);
    }
    assert_eq!(expected, got, "lines were added or are missing");
}

#[test]
fn each_packet_kind_is_pinned() {
    let kinds: std::collections::BTreeSet<u8> = packets().iter().map(|(_, packet)| packet[0]).collect();
    assert_eq!(kinds, (1..=10).collect());
}
