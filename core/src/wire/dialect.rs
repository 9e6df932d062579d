//! What two nodes speak: the version of the protocol, and features beyond it.
//!
//! Each says it at the end of its part of the handshake, behind a body whose end both know; a node of version 1 says
//! nothing there and reads nothing. The two go on with the lower version, and use a feature only if both have it. Bits
//! that a node does not know mean nothing to it.
//!
//! The version in the header of an Init is another thing: by which rules that Init is to be read. This release reads and
//! writes the first ones only.

use serde::Serialize;

/// The version of the protocol in this crate.
pub const VERSION: u8 = 2;
/// The first one that says what it speaks.
const SECOND: u8 = 2;
/// In one byte beside the features: the version is not the first one.
const MORE: u8 = 0x80;
// The bit between them is the link's own.
const _: () = assert!(Dialect::OWN.features < MORE as u32 / 2 && VERSION == SECOND);
/// By which rules the Inits of this release are made: those of version 1.
pub const INIT_VERSION: u8 = 1;

/// What a node speaks. On the wire the features, and behind them the version, unless that is 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dialect {
    /// The highest version.
    pub version: u8,
    /// A bit for each feature.
    pub features: u32,
}

impl Dialect {
    /// Of a node that says nothing of it.
    pub const FIRST: Self = Self { version: 1, features: 0 };
    /// Of this one.
    pub const OWN: Self = Self { version: VERSION, features: Self::HOMES | Self::RELAYS | Self::VIEWS | Self::LEGS };

    /// Knows the messages that tell of room: 38 to 41.
    pub const HOMES: u32 = 1;
    /// Chooses relays, and says that they are limited: messages 33 to 37.
    pub const RELAYS: u32 = 2;
    /// Knows what supernodes say of neighbours and of who is nearest: messages 42 to 46.
    pub const VIEWS: u32 = 4;
    /// Knows volunteers: messages 47 to 50, and links that are legs.
    pub const LEGS: u32 = 8;

    /// Most bytes that it takes.
    pub const LEN_MAX: usize = 6;

    /// What is behind a body.
    pub fn read(rest: &[u8]) -> Self {
        let Ok((features, rest)) = postcard::take_from_bytes(rest) else { return Self::FIRST };
        let version = rest.first().copied().unwrap_or(SECOND);
        if version < SECOND { Self::FIRST } else { Self { version, features } }
    }

    /// Puts a body, and this behind it, at the front of `out`; returns how long they are, or nothing if they do not fit.
    pub fn write<T: Serialize>(self, body: &T, out: &mut [u8]) -> Option<usize> {
        let mut len = postcard::to_slice(body, out).ok()?.len();
        len += postcard::to_slice(&self.features, out.get_mut(len..)?).ok()?.len();
        if self.version != SECOND {
            *out.get_mut(len)? = self.version;
            len += 1;
        }
        Some(len)
    }

    /// What two nodes of this release remember of a link: one byte.
    pub(crate) fn packed(self) -> u8 {
        let known = self.with(Self::OWN);
        if known.version < SECOND { 0 } else { MORE | u8::try_from(known.features).unwrap_or(0) }
    }

    /// The same, back.
    pub(crate) fn unpacked(byte: u8) -> Self {
        let features = u32::from(byte & !MORE);
        if byte == 0 { Self::FIRST } else { Self { version: VERSION, features } }
    }

    /// What two nodes have in common.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { version: self.version.min(other.version), features: self.features & other.features }
    }

    /// Whether it has a feature.
    pub const fn has(self, feature: u32) -> bool {
        self.features & feature == feature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_or_nonsense_speaks_the_first_one() {
        for rest in [&[][..], &[15, 1], &[3, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert_eq!(Dialect::read(rest), Dialect::FIRST, "{rest:?}");
        }
        assert_eq!(Dialect::read(&[15]), Dialect::OWN);
    }

    #[test]
    fn two_have_in_common_what_both_have() {
        // Of a later release, which says more behind it.
        let later = Dialect::read(&[0x86, 0x01, 9, 77]);
        assert_eq!(later, Dialect { version: 9, features: 0x86 });
        assert_eq!(Dialect::OWN.with(later), Dialect { version: 2, features: Dialect::RELAYS | Dialect::VIEWS });
        assert_eq!(Dialect::OWN.with(Dialect::FIRST), Dialect::FIRST);
        assert!(Dialect::OWN.has(Dialect::HOMES) && !Dialect::FIRST.has(Dialect::HOMES));
    }

    #[test]
    fn it_stands_behind_a_body_and_takes_no_more_than_it_may() {
        let mut out = [0; 16];
        let longest = Dialect { version: u8::MAX, features: u32::MAX };
        assert_eq!(longest.write(&7u8, &mut out), Some(1 + Dialect::LEN_MAX));
        let (body, rest) = postcard::take_from_bytes::<u8>(&out).expect("a body");
        assert_eq!((body, Dialect::read(rest)), (7, longest));
        assert_eq!(longest.write(&7u8, &mut out[..4]), None);
        assert_eq!(longest.write(&7u8, &mut out[..6]), None);
        assert_eq!(Dialect::OWN.write(&7u8, &mut out), Some(2), "a byte, in every handshake");
    }

    #[test]
    fn a_link_remembers_it_in_a_byte() {
        for dialect in [Dialect::FIRST, Dialect::OWN, Dialect { version: 2, features: 0 }] {
            assert_eq!(Dialect::unpacked(dialect.packed()), dialect);
        }
        assert_eq!(Dialect::unpacked(Dialect { version: 7, features: 0xff01 }.packed()).features, 1);
    }
}
