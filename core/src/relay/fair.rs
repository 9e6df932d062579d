//! The fair share of each channel where a relay's total rate is capped.
//!
//! Max-min fairness by policing, in steps of [`INTERVAL`]: what each channel wanted to send in the last one, dropped
//! bytes included, says how high the water stands in this one. Who wants less than the level gets all of it; the others
//! get the level each. Wants are counted in a histogram of [`BUCKETS`] sizes, so that a step costs the same for one
//! channel as for sixty thousand, and a packet a few additions; nothing is queued, allocated or searched.

use core::time::Duration;

use crate::time::Instant;

/// Least that a bucket holds: two initial windows of QUIC, both ways, and some.
pub(super) const BURST_MIN: u64 = 96 * 1024;
/// Time between two findings of the water level.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_US: u64 = INTERVAL.as_secs() * 1_000_000 + INTERVAL.subsec_micros() as u64;
/// The bucket of the whole holds what the rate gives in so many intervals.
const BURST_INTERVALS: u64 = 3;
/// Four to each power of two, from 1 byte to 4 GiB.
const BUCKETS: usize = 4 * 32;

/// What one channel has of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    interval: u64,
    wanted: u64,
    tokens: u64,
}

/// A relay's whole rate and how it is shared: this interval's level, and what channels want in it.
#[derive(Clone, Debug)]
pub(super) struct FairShare {
    per_interval: u64,
    interval: u64,
    /// What a channel may send in an interval; none while there is enough for all.
    level: Option<u64>,
    /// How many channels wanted how much in the present interval.
    wants: Box<[(u32, u64); BUCKETS]>,
    tokens: u64,
    refilled: Instant,
}

impl FairShare {
    /// A relay's whole rate.
    pub(super) fn new(now: Instant, rate_bps: u64) -> Self {
        let per_interval = (rate_bps / 8).saturating_mul(INTERVAL_US / 1_000) / 1_000;
        let mut new = Self {
            per_interval: per_interval.max(1),
            interval: 0,
            level: None,
            wants: Box::new([(0, 0); BUCKETS]),
            tokens: 0,
            refilled: now,
        };
        new.tokens = new.burst();
        new
    }

    fn burst(&self) -> u64 {
        self.per_interval.saturating_mul(BURST_INTERVALS).max(2 * BURST_MIN)
    }

    /// Whether so many bytes of this channel may pass; if so they are entered.
    pub(super) fn admit(&mut self, now: Instant, share: &mut Share, bytes: u64) -> bool {
        let interval = now.as_micros() / INTERVAL_US;
        if interval != self.interval {
            // Wants of longer ago say nothing.
            self.level = if interval == self.interval + 1 { self.find_level() } else { None };
            self.wants.fill((0, 0));
            self.interval = interval;
        }
        if share.interval != interval {
            let most = self.level.map_or(self.burst(), |level| level.max(BURST_MIN));
            let earned = self.level.map_or(most, |level| level.saturating_mul(interval - share.interval));
            *share = Share { interval, wanted: 0, tokens: share.tokens.saturating_add(earned).min(most) };
        }
        self.want(share, bytes);
        let earned = now.as_micros().saturating_sub(self.refilled.as_micros());
        let earned = self.per_interval.saturating_mul(earned) / INTERVAL_US;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.burst());
            self.refilled = now;
        }
        if share.tokens < bytes || self.tokens < bytes {
            return false;
        }
        share.tokens -= bytes;
        self.tokens -= bytes;
        true
    }

    fn want(&mut self, share: &mut Share, bytes: u64) {
        if share.wanted > 0
            && let Some((count, sum)) = self.wants.get_mut(bucket(share.wanted))
        {
            *count -= 1;
            *sum -= share.wanted;
        }
        share.wanted = share.wanted.saturating_add(bytes);
        if let Some((count, sum)) = self.wants.get_mut(bucket(share.wanted)) {
            *count += 1;
            *sum = sum.saturating_add(share.wanted);
        }
    }

    /// From the smallest wants up: those below the mean of what is left are met in full.
    fn find_level(&self) -> Option<u64> {
        let mut left = self.per_interval;
        let mut channels: u64 = self.wants.iter().map(|(count, _)| u64::from(*count)).sum();
        for (count, sum) in self.wants.iter().filter(|(count, _)| *count > 0) {
            let mean = left / channels;
            // Where some of a size fit and some do not, all get the mean: a size is narrow.
            if sum / u64::from(*count) > mean {
                return Some(mean);
            }
            left = left.saturating_sub(*sum);
            channels -= u64::from(*count);
            if channels == 0 {
                return None;
            }
        }
        None
    }
}

/// Which of the sizes this is: the power of two, and the two bits below the top one.
fn bucket(bytes: u64) -> usize {
    let log = bytes.max(1).ilog2().min(31);
    let below = if log >= 2 { bytes >> (log - 2) & 3 } else { 0 };
    usize::try_from(4 * u64::from(log) + below).unwrap_or(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these wants so many bytes in each tenth of a second, in packets of 500; what each got in ten seconds.
    fn run(rate_bps: u64, wants: &[u64]) -> Vec<u64> {
        let mut fair = FairShare::new(Instant::ZERO, rate_bps);
        let mut shares = vec![Share::default(); wants.len()];
        let mut got = vec![0; wants.len()];
        for step in 10..20_000u64 {
            let now = Instant::from_micros(step * 1_000);
            for (i, want) in wants.iter().enumerate() {
                // Spread over the tenth of a second.
                let packets = |at: u64| want * at / 100 / 500;
                let now_due = packets(step % 100 + 1) - packets(step % 100);
                for _ in 0..now_due {
                    let passed = fair.admit(now, &mut shares[i], 500);
                    // The first ten seconds settle.
                    got[i] += if passed && step >= 10_000 { 500 } else { 0 };
                }
            }
        }
        got
    }

    fn jain(got: &[u64]) -> f64 {
        let (sum, squares) = got.iter().fold((0.0, 0.0), |(s, q), g| (s + *g as f64, q + (*g as f64).powi(2)));
        sum * sum / (got.len() as f64 * squares)
    }

    #[test]
    fn b3_a_hog_leaves_99_polite_ones_what_they_want_and_gets_the_rest() {
        let mut wants = vec![500; 99];
        wants.push(200_000);
        let got = run(8_000_000, &wants);
        assert!(got[..99].iter().all(|polite| *polite == 50_000), "{got:?}");
        let rest = 10_000_000 - 99 * 50_000;
        assert!((rest * 9 / 10..=rest).contains(&got[99]), "{} of {rest}", got[99]);
    }

    #[test]
    fn b3_hogs_share_alike_whatever_they_want() {
        let wants: Vec<u64> = (0..20).map(|n| 20_000 * (1 + n % 4)).collect();
        let got = run(8_000_000, &wants);
        assert!(jain(&got) >= 0.95, "{got:?}");
        let all: u64 = got.iter().sum();
        assert!((9_000_000..=10_100_000).contains(&all), "{all}");
    }

    #[test]
    fn one_alone_may_have_it_all() {
        let got = run(8_000_000, &[200_000]);
        assert!((9_500_000..=10_100_000).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn sizes_are_in_order() {
        let mut last = 0;
        for bytes in 1..100_000u64 {
            assert!(bucket(bytes) >= last);
            last = bucket(bytes);
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }
}
