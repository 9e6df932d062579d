//! Randomness of the operating system: a seed at start, fresh bytes for the core every hour.

use std::io;
use std::time::Duration;

use handfast_core::Instant;

/// How often the core gets fresh entropy, so that a stolen generator state is worth little for long.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);

/// 32 bytes from the operating system.
pub(crate) fn fresh() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("no randomness from the operating system: {error}")))?;
    Ok(bytes)
}

/// Knows when the next fresh bytes are due.
pub(crate) struct Refresh {
    next: Instant,
}

impl Refresh {
    /// The first refresh is an hour from `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now + REFRESH_EVERY }
    }

    /// Fresh bytes, when due. A failure of the operating system postpones them: the seed still holds.
    pub(crate) fn take(&mut self, now: Instant) -> Option<[u8; 32]> {
        if now < self.next {
            return None;
        }
        self.next = now + REFRESH_EVERY;
        fresh().inspect_err(|error| tracing::warn!("{error}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_bytes_come_hourly() {
        let mut refresh = Refresh::new(Instant::ZERO);
        assert!(refresh.take(Instant::ZERO + REFRESH_EVERY - Duration::from_micros(1)).is_none());
        let first = refresh.take(Instant::ZERO + REFRESH_EVERY).expect("due");
        assert!(refresh.take(Instant::ZERO + REFRESH_EVERY).is_none());
        assert_ne!(first, fresh().expect("entropy"));
    }
}
