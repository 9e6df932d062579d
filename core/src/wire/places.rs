//! How much room supernodes have for leaves: exactly, as each says of itself, and in steps, as others pass it on.

use serde::{Deserialize, Serialize};

/// How many leaves are registered at a supernode, and how many may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Places {
    /// Registered leaves.
    pub taken: u32,
    /// Registered leaves, at most.
    pub all: u32,
}

impl Places {
    /// Leaves that may still register.
    pub const fn free(self) -> u32 {
        self.all.saturating_sub(self.taken)
    }

    /// Taken of all, in 65 536ths; more than that where more are taken than there are. Of none, all are.
    pub fn utilisation(self) -> u32 {
        let share = u64::from(self.taken) << 16;
        share.checked_div(self.all.into()).map_or(1 << 16, |share| u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// How many are taken if there are no more places than these, and it is as full as it says.
    pub(crate) fn taken_of(self, all: u32) -> u32 {
        if all >= self.all {
            return self.taken;
        }
        let taken = (u64::from(self.taken) * u64::from(all)).div_ceil(self.all.into());
        u32::try_from(taken).unwrap_or(u32::MAX)
    }
}

/// How many of so many places are taken at this utilisation, in 65 536ths.
pub(crate) fn taken_at(utilisation: u32, all: u32) -> u32 {
    u32::try_from((u64::from(utilisation) * u64::from(all)) >> 16).unwrap_or(u32::MAX)
}

/// Unsigned, travels with gossip: how much room the sender takes a supernode to have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Room {
    /// First bytes of the BLAKE3 hash of the `PeerId`.
    pub id_prefix: [u8; 8],
    /// Its registered leaves, as a [`level`].
    pub taken: u8,
    /// How many it is believed to be able to take, as a [`level`].
    pub all: u8,
}

impl Room {
    /// What it says, without the steps.
    pub fn places(self) -> Places {
        Places { taken: count(self.taken), all: count(self.all) }
    }
}

/// 2^(n / 12), in 65 536ths.
const TWELFTHS: [u64; 12] =
    [65_536, 69_433, 73_562, 77_936, 82_570, 87_480, 92_682, 98_193, 104_032, 110_218, 116_772, 123_715];

/// A number of leaves in steps of a twelfth of an octave, rounded down: level n is 2^(n / 12) - 1 leaves, which
/// [`count`](fn@count) gives back. The last one, 255, is two and a half million.
pub fn level(leaves: u32) -> u8 {
    let (mut low, mut high) = (0, u8::MAX);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if count(middle) <= leaves {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// How many leaves a [`level`] means.
pub fn count(level: u8) -> u32 {
    let scaled = TWELFTHS[usize::from(level % 12)] << (level / 12);
    u32::try_from(scaled >> 16).unwrap_or(u32::MAX) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_a_seventeenth_apart_at_most_and_run_from_none_to_millions() {
        assert_eq!((level(0), count(0), count(11), count(12)), (11, 0, 0, 1));
        assert_eq!((level(u32::MAX), count(255)), (255, 2_493_951));
        for leaves in (0..3_000).chain([10_000, 99_999, 100_000, 1_234_567]) {
            let told = count(level(leaves));
            assert!(told <= leaves && u64::from(leaves - told) * 16 <= u64::from(leaves) + 16, "{leaves}: {told}");
        }
        for n in 0..=255 {
            assert_eq!(count(level(count(n))), count(n), "the highest of those that mean the same");
        }
    }

    #[test]
    fn of_no_place_all_are_taken() {
        assert_eq!(Places::default().utilisation(), 1 << 16);
        assert_eq!(Places { taken: 1, all: 4 }.utilisation(), 1 << 14);
        assert_eq!(Places { taken: u32::MAX, all: 1 }.utilisation(), u32::MAX);
    }
}
