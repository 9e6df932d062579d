//! How loaded this supernode is, as three shares of what it is able to carry.

use crate::wire::message::Load;

/// What the node counts, and what it is able to carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LoadCounts {
    /// Registered leaves.
    pub leaves: u64,
    /// Most leaves.
    pub leaves_max: u64,
    /// Introductions in the last second.
    pub introductions: u64,
    /// Most introductions a second.
    pub introductions_max: u64,
    /// Bytes relayed in the last second.
    pub relay_bytes: u64,
    /// Most bytes a second; 0 is unlimited.
    pub relay_bytes_max: u64,
}

impl LoadCounts {
    /// The shares: 0 is idle, 255 is full.
    pub(crate) fn load(self) -> Load {
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
}
