//! What goes wrong on the wire, how often, and how often it did.
//!
//! Every roll is drawn for every datagram, whether its fault is on or not: masking one fault keeps the schedule of all
//! others, so a failure can be narrowed down by switching faults off.

use core::time::Duration;

use crate::random::Dice;

/// A probability in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many in a hundred.
    pub const fn percent(n: u32) -> Self {
        Self(n * 10_000)
    }

    /// Rolls the dice for it.
    pub fn comes_true(self, dice: &mut Dice) -> bool {
        dice.below(1_000_000) < u64::from(self.0)
    }
}

/// What goes wrong on the internet (LANs are clean).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// The datagram is gone.
    pub loss: Chance,
    /// It arrives twice.
    pub duplicate: Chance,
    /// It is held back by up to [`Faults::hold_max`], so that later ones overtake it.
    pub reorder: Chance,
    /// One of its bytes is another.
    pub corrupt: Chance,
    /// It is cut short.
    pub truncate: Chance,
    /// An attacker who saw it sends it again within [`Faults::replay_within`].
    pub replay: Chance,
    /// An attacker sends a copy with one byte changed.
    pub corrupt_copy: Chance,
    /// An attacker sends a copy cut short.
    pub truncate_copy: Chance,
    /// An attacker sends it back to its sender, as if the receiver had sent it.
    pub reflect: Chance,
    /// Each datagram takes up to this longer.
    pub jitter: Duration,
    /// Longest hold of a reordered one.
    pub hold_max: Duration,
    /// Longest wait before a replay or another attacker's copy.
    pub replay_within: Duration,
}

impl Faults {
    /// A clean wire.
    pub const fn none() -> Self {
        Self {
            loss: Chance::NEVER,
            duplicate: Chance::NEVER,
            reorder: Chance::NEVER,
            corrupt: Chance::NEVER,
            truncate: Chance::NEVER,
            replay: Chance::NEVER,
            corrupt_copy: Chance::NEVER,
            truncate_copy: Chance::NEVER,
            reflect: Chance::NEVER,
            jitter: Duration::ZERO,
            hold_max: Duration::from_millis(100),
            replay_within: Duration::from_secs(5),
        }
    }

    /// Only loss.
    pub const fn lossy(percent: u32) -> Self {
        let mut faults = Self::none();
        faults.loss = Chance::percent(percent);
        faults
    }

    /// The bad link of the threat table, row F3: loss 30 %, duplicates 10 %, reordering 25 %, corruption 1 %, jitter
    /// 200 ms.
    pub const fn bad() -> Self {
        let mut faults = Self::lossy(30);
        faults.duplicate = Chance::percent(10);
        faults.reorder = Chance::percent(25);
        faults.corrupt = Chance::percent(1);
        faults.jitter = Duration::from_millis(200);
        faults
    }

    /// An attacker who sees everything and sends every datagram again: as it was, changed, cut short, and back.
    pub const fn hostile() -> Self {
        let mut faults = Self::none();
        faults.replay = Chance::ALWAYS;
        faults.corrupt_copy = Chance::ALWAYS;
        faults.truncate_copy = Chance::ALWAYS;
        faults.reflect = Chance::ALWAYS;
        faults
    }
}

/// How often each fault fired.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FaultCounts {
    /// Lost.
    pub lost: u64,
    /// Duplicated.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// A byte changed.
    pub corrupted: u64,
    /// Cut short.
    pub truncated: u64,
    /// Replayed by the attacker.
    pub replayed: u64,
    /// Changed copies sent by the attacker.
    pub corrupted_copies: u64,
    /// Short copies sent by the attacker.
    pub truncated_copies: u64,
    /// Sent back to the sender by the attacker.
    pub reflected: u64,
    /// Stopped by a one-way cut or a partition.
    pub cut: u64,
    /// To an address where nobody is, or that no route leads to.
    pub no_route: u64,
    /// Longer than a link on the way carries.
    pub too_long: u64,
    /// Stopped by a router: no binding, or filtered.
    pub filtered: u64,
    /// Reached a host that is down or has no such socket.
    pub nobody_home: u64,
}

/// What happens to one datagram: all rolls, drawn in one go.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Copies that travel on: the datagram itself (unless lost), its duplicate, the attacker's.
    pub copies: Vec<Copy>,
}

/// One copy of a datagram.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Longer on its way by this.
    pub delay: Duration,
    /// What it looks like.
    pub bytes: Vec<u8>,
    /// Whether it goes back to the sender.
    pub reflected: bool,
}

impl Fate {
    /// Rolls the dice for one datagram.
    pub fn draw(faults: &Faults, dice: &mut Dice, counts: &mut FaultCounts, bytes: Vec<u8>) -> Self {
        let mut roll = |chance: Chance| chance.comes_true(dice);
        let lost = roll(faults.loss);
        let duplicated = roll(faults.duplicate);
        let reordered = roll(faults.reorder);
        let corrupted = roll(faults.corrupt);
        let truncated = roll(faults.truncate);
        let replayed = roll(faults.replay);
        let corrupted_copy = roll(faults.corrupt_copy);
        let truncated_copy = roll(faults.truncate_copy);
        let reflected = roll(faults.reflect);
        let jitter = dice.duration(faults.jitter);
        let second_jitter = dice.duration(faults.jitter);
        let hold = dice.duration(faults.hold_max);
        let later: [Duration; 4] = core::array::from_fn(|_| dice.duration(faults.replay_within));
        let (flip_at, flip_by) = (dice.u64(), (dice.below(255) + 1) as u8);
        let cut_at = dice.u64();

        let flip = |bytes: &[u8]| {
            let mut out = bytes.to_vec();
            if !out.is_empty() {
                let at = (flip_at % out.len() as u64) as usize;
                out[at] ^= flip_by;
            }
            out
        };
        let cut = |bytes: &[u8]| bytes[..(cut_at % (bytes.len() as u64).max(1)) as usize].to_vec();

        let mut copies = Vec::new();
        let mut attack = |count: &mut u64, delay: Duration, bytes: Vec<u8>, reflected: bool| {
            *count += 1;
            copies.push(Copy { delay, bytes, reflected });
        };
        // Built only where wanted: most runs have no attacker.
        if replayed {
            attack(&mut counts.replayed, later[0], bytes.clone(), false);
        }
        if corrupted_copy {
            attack(&mut counts.corrupted_copies, later[1], flip(&bytes), false);
        }
        if truncated_copy {
            attack(&mut counts.truncated_copies, later[2], cut(&bytes), false);
        }
        if reflected {
            attack(&mut counts.reflected, later[3], bytes.clone(), true);
        }
        if duplicated {
            attack(&mut counts.duplicated, second_jitter, bytes.clone(), false);
        }
        counts.lost += u64::from(lost);
        if !lost {
            counts.reordered += u64::from(reordered);
            counts.corrupted += u64::from(corrupted);
            counts.truncated += u64::from(truncated);
            let bytes = if corrupted { flip(&bytes) } else { bytes };
            let bytes = if truncated { cut(&bytes) } else { bytes };
            let delay = jitter + if reordered { hold } else { Duration::ZERO };
            copies.push(Copy { delay, bytes, reflected: false });
        }
        Self { copies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(faults: &Faults, n: u64) -> (FaultCounts, Dice) {
        let mut dice = Dice::new(7, "fault test");
        let mut counts = FaultCounts::default();
        for _ in 0..n {
            let _ = Fate::draw(faults, &mut dice, &mut counts, vec![1, 2, 3]);
        }
        (counts, dice)
    }

    #[test]
    fn switching_a_fault_off_moves_no_other() {
        let mut faults = Faults::hostile();
        faults.duplicate = Chance::percent(10);
        let (all, mut after_all) = run(&faults, 1000);
        faults.replay = Chance::NEVER;
        faults.reflect = Chance::NEVER;
        let (fewer, mut after_fewer) = run(&faults, 1000);
        assert_eq!(all.duplicated, fewer.duplicated);
        assert_eq!(all.corrupted_copies, fewer.corrupted_copies);
        assert_eq!((fewer.replayed, fewer.reflected), (0, 0));
        assert_eq!(after_all.u64(), after_fewer.u64(), "as many draws");
    }

    #[test]
    fn chances_come_true() {
        let (counts, _) = run(&Faults::lossy(30), 10_000);
        assert!((2_800..3_200).contains(&counts.lost), "{counts:?}");
        let (counts, _) = run(&Faults::none(), 1000);
        assert_eq!(counts, FaultCounts::default());
    }

    #[test]
    fn a_changed_copy_differs_and_a_cut_one_is_shorter() {
        let mut dice = Dice::new(8, "fault test");
        let mut counts = FaultCounts::default();
        for _ in 0..1000 {
            let whole = vec![9; 40];
            let fate = Fate::draw(&Faults::hostile(), &mut dice, &mut counts, whole.clone());
            assert_eq!(fate.copies.len(), 5);
            assert_eq!(fate.copies[0].bytes, whole);
            assert_ne!(fate.copies[1].bytes, whole);
            assert!(fate.copies[2].bytes.len() < 40);
            assert!(fate.copies[3].reflected);
            assert_eq!(fate.copies[4].bytes, whole, "the datagram itself is unharmed");
        }
    }

    #[test]
    fn an_empty_datagram_can_have_every_fate() {
        let mut faults = Faults::hostile();
        faults.corrupt = Chance::ALWAYS;
        faults.truncate = Chance::ALWAYS;
        let mut dice = Dice::new(9, "fault test");
        let fate = Fate::draw(&faults, &mut dice, &mut FaultCounts::default(), Vec::new());
        assert!(fate.copies.iter().all(|copy| copy.bytes.is_empty()));
    }
}
