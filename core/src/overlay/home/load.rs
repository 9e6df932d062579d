//! How loaded this supernode is, as three shares of what it is able to carry.

use crate::wire::message::Load;

/// Introductions per second at which a supernode counts as full: what one core carries with room to spare.
const INTRODUCTIONS_FULL: u64 = 1_000;
/// Relayed bytes per second at which a supernode counts as full: 100 Mbit/s.
const RELAY_FULL: u64 = 12_500_000;

/// What this node does for others at the moment, beside having them registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Carried {
    /// Introductions in the last second.
    pub introductions: u32,
    /// Bytes relayed in the last second.
    pub relay_bytes: u64,
    /// All that was to be relayed in these 30 days has been.
    pub is_exhausted: bool,
}

impl Carried {
    /// The load of a supernode with so many leaves, which relays at most so many bits per second (0 is unlimited).
    pub(crate) fn load(self, leaves: usize, leaves_max: usize, relay_bps_max: u64) -> Load {
        let counts = LoadCounts {
            leaves: leaves as u64,
            leaves_max: leaves_max as u64,
            introductions: self.introductions.into(),
            introductions_max: INTRODUCTIONS_FULL,
            relay_bytes: self.relay_bytes,
            relay_bytes_max: match relay_bps_max / 8 {
                0 => RELAY_FULL,
                capped => capped.min(RELAY_FULL),
            },
        };
        let mut load = counts.load();
        if self.is_exhausted {
            load.relay = u8::MAX;
        }
        load
    }
}

/// What is counted, and what this node is able to carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LoadCounts {
    /// Registered leaves.
    leaves: u64,
    /// Most leaves.
    leaves_max: u64,
    /// Introductions in the last second.
    introductions: u64,
    /// Most introductions a second.
    introductions_max: u64,
    /// Bytes relayed in the last second.
    relay_bytes: u64,
    /// Most bytes a second; 0 is unlimited.
    relay_bytes_max: u64,
}

impl LoadCounts {
    /// The shares: 0 is idle, 255 is full.
    fn load(self) -> Load {
        let relay = if self.relay_bytes_max == 0 { 0 } else { share(self.relay_bytes, self.relay_bytes_max) };
        Load {
            leaves: share(self.leaves, self.leaves_max),
            introductions: share(self.introductions, self.introductions_max),
            relay,
        }
    }
}

/// Rounded up, so that 0 means none; of no capacity at all, everything is in use.
fn share(used: u64, max: u64) -> u8 {
    if used >= max {
        return u8::MAX;
    }
    let share = (u128::from(used) * 255).div_ceil(u128::from(max));
    u8::try_from(share).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_run_from_zero_to_full() {
        let counts = LoadCounts { leaves_max: 1000, introductions_max: 10, ..LoadCounts::default() };
        assert_eq!(counts.load(), Load::default());
        let counts = LoadCounts { leaves: 1, introductions: 5, relay_bytes: u64::MAX, ..counts };
        assert_eq!(counts.load(), Load { leaves: 1, introductions: 128, relay: 0 });
        let counts = LoadCounts { leaves: 2000, relay_bytes_max: 1, ..counts };
        assert_eq!(counts.load(), Load { leaves: 255, introductions: 128, relay: 255 });
        assert_eq!(LoadCounts::default().load().leaves, 255, "who takes no leaf is full");
    }

    #[test]
    fn who_may_relay_no_more_is_full_and_a_cap_is_what_there_is() {
        let carried = Carried { introductions: 1_000, relay_bytes: 1_250_000, is_exhausted: false };
        assert_eq!(carried.load(0, 10, 0), Load { leaves: 0, introductions: 255, relay: 26 });
        assert_eq!(carried.load(0, 10, 10_000_000).relay, 255, "10 Mbit/s of 10");
        assert_eq!(Carried { is_exhausted: true, ..Carried::default() }.load(0, 10, 0).relay, 255);
    }
}
