//! What the traffic model draws: waits without memory, and lives that many end young and few grow old.
//!
//! The draws come from generators of this program alone, so nothing in a node or on the wire moves them.

use core::time::Duration;

use crate::random::Dice;

/// A wait of this mean, without memory.
pub(crate) fn exponential(dice: &mut Dice, mean: Duration) -> Duration {
    mean.mul_f64(-dice.unit().ln())
}

/// A life: Weibull with the shape `1 / inverse_shape` and this median. 1 is without memory; 2 has many short lives and
/// few very long ones, as is measured of peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Half of all lives are shorter.
    pub median: Duration,
    /// One over Weibull's shape.
    pub inverse_shape: u32,
}

impl Life {
    fn scale(self) -> f64 {
        self.median.as_secs_f64() / core::f64::consts::LN_2.powi(self.inverse_shape.cast_signed())
    }

    /// A whole life, of somebody who begins now.
    pub(crate) fn whole(self, dice: &mut Dice) -> Duration {
        let drawn = -dice.unit().ln();
        Duration::from_secs_f64(self.scale() * drawn.powi(self.inverse_shape.cast_signed()))
    }

    /// What is left of the life of somebody who is met at some moment. Long lives are met more often: with `x` for a
    /// life in units of the scale, that one's `x^shape` has a gamma distribution of order `1 + 1/shape`, and the moment
    /// is anywhere in it.
    pub(crate) fn rest(self, dice: &mut Dice) -> Duration {
        let gamma: f64 = (0..=self.inverse_shape).map(|_| -dice.unit().ln()).sum();
        let met = self.scale() * gamma.powi(self.inverse_shape.cast_signed());
        Duration::from_secs_f64(met * dice.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(n: u32, mut draw: impl FnMut() -> Duration) -> f64 {
        (0..n).map(|_| draw().as_secs_f64()).sum::<f64>() / f64::from(n)
    }

    #[test]
    fn half_of_all_lives_are_shorter_than_the_median() {
        for inverse_shape in [1, 2, 3] {
            let life = Life { median: Duration::from_secs(7200), inverse_shape };
            let mut dice = Dice::new(1, "test");
            let shorter = (0..20_000).filter(|_| life.whole(&mut dice) < life.median).count();
            assert!((9_700..=10_300).contains(&shorter), "{shorter} of 20 000 with {inverse_shape}");
        }
    }

    #[test]
    fn without_memory_the_rest_is_as_long_as_the_whole() {
        let life = Life { median: Duration::from_secs(100), inverse_shape: 1 };
        let mut dice = Dice::new(2, "test");
        let (whole, rest) = (mean(50_000, || life.whole(&mut dice)), mean(50_000, || life.rest(&mut dice)));
        assert!((whole / rest - 1.0).abs() < 0.05, "{whole} and {rest}");
        let wait = mean(50_000, || exponential(&mut dice, Duration::from_secs(10)));
        assert!((9.7..=10.3).contains(&wait), "{wait}");
    }

    #[test]
    fn who_is_met_is_older_than_most() {
        // With shape 1/2 the mean life is 2 scales, and the mean rest E[X²]/2E[X] = 24/4 = 6 scales.
        let life = Life { median: Duration::from_secs(100), inverse_shape: 2 };
        let mut dice = Dice::new(3, "test");
        let (whole, rest) = (mean(300_000, || life.whole(&mut dice)), mean(300_000, || life.rest(&mut dice)));
        assert!((2.7..=3.3).contains(&(rest / whole)), "{rest} and {whole}");
    }
}
