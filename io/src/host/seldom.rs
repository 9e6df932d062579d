//! Log lines that must not become a flood: one a minute, with how many were held back.

use std::time::Duration;

use handfast_core::Instant;

/// How often the same complaint may be logged.
pub(crate) const SELDOM: Duration = Duration::from_secs(60);

/// Lets one event a minute through and counts the others.
#[derive(Default)]
pub(crate) struct Seldom {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// If a line may be logged now: how many were held back since the last.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < SELDOM) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_with_the_count_of_the_others() {
        let mut seldom = Seldom::default();
        let start = Instant::from_micros(7);
        assert_eq!(seldom.pass(start), Some(0));
        assert_eq!(seldom.pass(start + Duration::from_secs(1)), None);
        assert_eq!(seldom.pass(start + Duration::from_secs(59)), None);
        assert_eq!(seldom.pass(start + SELDOM), Some(2));
    }
}
