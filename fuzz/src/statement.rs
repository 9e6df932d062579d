//! Targets for signed statements: adverts and records.

use handfast_core::internal::Advert;
use handfast_core::internal::Record;
use handfast_core::{PeerId, SecretKey};

/// Adverts: arbitrary bytes, and genuine ones with bits changed.
pub fn advert(data: &[u8]) {
    let Ok(parsed) = Advert::parse(data) else { return };
    let _ = Advert::verify(data);
    let (key, id) = someone();
    let own = Advert { id, ..parsed };
    // Signing need not give something that may be told: a forger's numbers may be out of range.
    let signed = own.sign(&key);
    if let Ok(again) = Advert::verify(&signed) {
        assert_eq!(again, own);
        for bit in [0, signed.len() * 4, signed.len() * 8 - 1] {
            let mut changed = signed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Advert::verify(&changed).is_err(), "a changed advert is still believed");
        }
    }
}

/// Records, likewise.
pub fn record(data: &[u8]) {
    let Ok(parsed) = Record::parse(data) else { return };
    let _ = Record::verify(data);
    let (key, id) = someone();
    let own = Record { id, ..parsed };
    let signed = own.sign(&key);
    if let Ok(again) = Record::verify(&signed) {
        assert_eq!(again, own);
        for bit in [0, signed.len() * 4, signed.len() * 8 - 1] {
            let mut changed = signed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::verify(&changed).is_err(), "a changed record is still believed");
        }
    }
}

fn someone() -> (SecretKey, PeerId) {
    let key = SecretKey::from_bytes(&[9; 32]);
    let id = key.peer_id();
    (key, id)
}
