//! Targets for handshakes and for the gate before them.

use std::net::SocketAddr;
use std::time::Duration;

use handfast_core::internal::KeyRng;
use handfast_core::internal::{
    Admission, Epoch, Gate, Identity, InitFixed, Macs, PeerKeys, ResponseFixed, accept, initiate, open_cookie,
};
use handfast_core::wire::packet::{COOKIE_LEN, Kind, MAC_LEN, Packet};
use handfast_core::{DATAGRAM_LEN_MAX, Instant, SecretKey};

use crate::bytes::Bytes;

const ROOM: usize = 2 * DATAGRAM_LEN_MAX;

fn identity(number: u8) -> Identity {
    Identity::new(SecretKey::from_bytes(&[number; 32]))
}

/// A handshake between two honest sides, through a wire that may change anything. Unchanged packets work, changed
/// ones are refused, and a refused one does not spoil the genuine one that comes after it.
pub fn handshake(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (alice, bob) = (identity(1), identity(2));
    let (mut keys_a, mut keys_b) = (KeyRng::new([3; 32]), KeyRng::new([4; 32]));
    let to_bob = PeerKeys::new(bob.id()).expect("a good key");
    let choice = bytes.u8();
    let macs = if choice & 1 == 0 { Macs::None } else { Macs::Plain };
    let has_macs = macs != Macs::None;
    let fixed = InitFixed { time_us: bytes.u64(), session: bytes.u64() };
    let (mut init, mut body, mut response) = ([0; ROOM], [0; ROOM], [0; ROOM]);

    // What nobody honest wrote.
    if choice & 2 != 0 {
        assert!(accept(&bob, bytes.0, has_macs, &mut body).is_err(), "an Init out of nothing");
    }

    let said = bytes.slice(600);
    let Ok((mut initiation, len)) = initiate(&alice, &to_bob, &mut keys_a, 17, fixed, said, macs, &mut init) else {
        panic!("an Init of {} bytes fits", said.len());
    };
    let init = &mut init[..len];
    let noise_end = if has_macs { len - 2 * MAC_LEN } else { len };
    if choice & 4 != 0 {
        let changed = change(&mut bytes, init);
        if changed.as_slice() != &*init {
            let same = changed.len() == len && changed[..noise_end] == init[..noise_end];
            // The macs are the gate's to check.
            assert_eq!(accept(&bob, &changed, has_macs, &mut body).is_ok(), same);
        }
    }
    let Ok((accepted, len)) = accept(&bob, init, has_macs, &mut body) else { panic!("a genuine Init is refused") };
    assert_eq!((accepted.peer, accepted.sender, accepted.fixed), (alice.id(), 17, fixed));
    assert_eq!(&body[..len], said);

    let fixed = ResponseFixed { early_accepted: choice & 8 != 0, resumed: choice & 16 != 0, session: bytes.u64() };
    let said = bytes.slice(600);
    let Ok((keys, len)) = accepted.respond(&mut keys_b, 23, fixed, said, &mut response) else {
        panic!("a Response of {} bytes fits", said.len());
    };
    let response = &mut response[..len];
    if choice & 32 != 0 {
        let changed = change(&mut bytes, response);
        if changed.as_slice() != &*response {
            assert!(initiation.finish(&changed, &mut body).is_err(), "a changed Response is taken");
        }
    }
    let Ok((keys_of_a, index, told, len)) = initiation.finish(response, &mut body) else {
        panic!("a genuine Response is refused");
    };
    assert_eq!((index, told), (23, fixed));
    assert_eq!(&body[..len], said);
    transport(&mut bytes, &mut Epoch::new(keys_of_a, 17, 23), &mut Epoch::new(keys, 23, 17));
}

/// Data between the two: what is opened is what was sealed, once.
fn transport(bytes: &mut Bytes<'_>, alice: &mut Epoch, bob: &mut Epoch) {
    for _ in 0..8 {
        if bytes.is_empty() {
            return;
        }
        let text = bytes.slice(200);
        let mut packet = [0; 300];
        packet[9..9 + text.len()].copy_from_slice(text);
        let len = alice.seal(Kind::Data, &mut packet, text.len()).expect("far from the last counter");
        let sealed = packet[..len].to_vec();
        let mut changed = change(bytes, &sealed);
        if changed != sealed {
            assert!(bob.open(&mut changed).is_err(), "a changed packet is taken");
        }
        assert!(bob.open(&mut sealed.clone()).is_ok_and(|opened| opened == text));
        assert!(bob.open(&mut sealed.clone()).is_err(), "a packet is taken twice");
    }
}

/// A copy with a byte changed, or cut, or longer.
fn change(bytes: &mut Bytes<'_>, packet: &[u8]) -> Vec<u8> {
    let mut changed = packet.to_vec();
    match bytes.u8() % 4 {
        0 => changed.truncate(bytes.below(packet.len() + 1)),
        1 => changed.extend_from_slice(bytes.slice(32)),
        _ => {
            let at = bytes.below(packet.len());
            changed[at] ^= bytes.u8();
        }
    }
    changed
}

/// Inits before the gate, at any time and from anywhere: it never answers with more than it got, and lets nothing
/// pass that does not name our key.
pub fn cookie(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut keys = KeyRng::new([5; 32]);
    let (alice, bob) = (identity(1), identity(2));
    let to_bob = PeerKeys::new(bob.id()).expect("a good key");
    let mut gate = Gate::new(&mut keys);
    let mut now = Instant::ZERO;
    let mut genuine = [0; ROOM];
    let fixed = InitFixed { time_us: 1, session: 1 };
    let (initiation, len) = initiate(&alice, &to_bob, &mut keys, 1, fixed, b"", Macs::Plain, &mut genuine)
        .unwrap_or_else(|error| panic!("{error}"));
    let genuine = &genuine[..len];
    for _ in 0..64 {
        if bytes.is_empty() {
            return;
        }
        let choice = bytes.u8();
        gate.force_load(choice & 1 != 0);
        now += Duration::from_micros(u64::from(bytes.u16()) << (choice >> 4));
        let source = SocketAddr::from(([10, 0, bytes.u8() % 4, 1], 1 + u16::from(bytes.u8())));
        let raw;
        let packet = match choice >> 1 & 3 {
            0 => genuine,
            1 => {
                raw = change(&mut bytes, genuine);
                &raw[..]
            }
            _ => bytes.slice(DATAGRAM_LEN_MAX + 1),
        };
        match gate.admit(now, &bob, source, packet, &mut keys) {
            Admission::Pass => {
                let until_mac1 = genuine.len() - MAC_LEN;
                assert!(
                    packet.len() == genuine.len() && packet[..until_mac1] == genuine[..until_mac1],
                    "what does not name our key passes"
                );
            }
            Admission::Cookie(answer) => {
                assert!(COOKIE_LEN <= packet.len(), "an answer longer than the question");
                let Ok(Packet::Cookie { nonce, sealed, .. }) = Packet::decode(&answer) else { panic!("no Cookie") };
                let mac1 = initiation.mac1().expect("it has macs");
                let opened = open_cookie(&bob.id(), &mac1, nonce, sealed);
                assert_eq!(opened.is_some(), packet[..packet.len() - MAC_LEN].ends_with(&mac1));
            }
            Admission::Drop(_) => {}
        }
    }
}
