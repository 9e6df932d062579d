//! The arithmetic of birthday punching: how likely one of many guesses hits one of many open ports.
//!
//! One side opens some sockets towards the other; its router gives each a port that nobody can foresee. The other side
//! sends from its one socket to ports drawn from all that it may be. The first that is open is a way through. That is
//! drawing without putting back: the hypergeometric distribution.

/// Sockets opened where the ports come from a block that was learned.
pub const SOCKETS_BLOCK: u32 = 64;
/// Sockets opened where they come from anywhere.
pub const SOCKETS_FULL: u32 = 256;
/// Packets a second at most.
const PACKETS_PER_S: u32 = 100;
/// For so many seconds.
const SECONDS: u32 = 20;
/// Guesses, if all goes to plan.
pub const GUESSES_MAX: u32 = PACKETS_PER_S * SECONDS;
/// Guesses if half of the budget goes elsewhere: to agreeing, to other addresses, to sending again.
const GUESSES_MIN: u32 = GUESSES_MAX / 2;

/// How likely a pair becomes direct.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chance {
    /// With half of the guesses.
    pub low: f64,
    /// With all of them: what is expected.
    pub high: f64,
}

impl Chance {
    /// That of `sockets` open ports among `ports`, if the guesser can send to no more than `guesses` of them.
    pub fn of(sockets: u32, ports: u32, guesses: u32) -> Self {
        let with = |most: u32| hit(sockets, guesses.min(most), ports);
        Self { low: with(GUESSES_MIN), high: with(GUESSES_MAX) }
    }
}

/// The probability that at least one of `guesses` different ports is among `open` ones of `ports`.
pub fn hit(open: u32, guesses: u32, ports: u32) -> f64 {
    if open == 0 {
        return 0.0;
    }
    let mut miss = 1.0;
    for drawn in 0..guesses.min(ports) {
        let closed = ports.saturating_sub(open + drawn);
        miss *= f64::from(closed) / f64::from(ports - drawn);
    }
    1.0 - miss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Dice;

    /// Draws ports for real: `open` different ones, then `guesses` different ones, and looks whether they meet.
    fn share_of_hits(open: u32, guesses: u32, ports: u32, draws: u32) -> f64 {
        let mut dice = Dice::new(3, "birthday");
        let mut distinct = |n: u32| {
            let mut set = std::collections::BTreeSet::new();
            while set.len() < n as usize {
                set.insert(dice.below(u64::from(ports)));
            }
            set
        };
        let hits = (0..draws).filter(|_| !distinct(open).is_disjoint(&distinct(guesses))).count();
        hits as f64 / f64::from(draws)
    }

    #[test]
    fn the_formula_agrees_with_drawing_ports() {
        for (open, guesses, ports) in [(1, 1, 2), (16, 60, 1_000), (8, 20, 64), (64, 100, 4_096), (64, 300, 16_384)] {
            let (wanted, seen) = (hit(open, guesses, ports), share_of_hits(open, guesses, ports, 4_000));
            // Four standard deviations of a share of 4 000.
            let slack = 4.0 * (wanted * (1.0 - wanted) / 4_000.0).sqrt();
            assert!((wanted - seen).abs() <= slack, "{open} {guesses} {ports}: {wanted} but {seen}");
        }
    }

    #[test]
    fn by_hand() {
        assert!((hit(1, 1, 10) - 0.1).abs() < 1e-12);
        // 1 - C(8,2)/C(10,2) = 1 - 28/45.
        assert!((hit(2, 2, 10) - 17.0 / 45.0).abs() < 1e-12);
        assert!((hit(1, 10, 10) - 1.0).abs() < 1e-12, "all were tried");
        assert!(hit(0, 10, 10) < 1e-12);
        // 256 sockets, 2 000 guesses, all 64 512 dynamic ports: about 1 - exp(-256 * 2 000 / 64 512) and a little more.
        let full = Chance::of(SOCKETS_FULL, 64_512, u32::MAX);
        assert!((0.9996..0.9998).contains(&full.high) && (0.98..0.99).contains(&full.low), "{full:?}");
    }
}
