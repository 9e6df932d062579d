//! Which packet numbers were seen: a window that moves with the highest one.
//!
//! Each direction of an epoch has one. A number is asked about before its packet is opened, which is cheap, and marked
//! only after the packet proved authentic, so that no forgery moves the window. Numbers above the window are new,
//! numbers below it are refused, for nothing is remembered of them.

/// How far a packet may lag behind the newest one and still be taken.
pub(crate) const WINDOW: u32 = 2048;

/// A ring of bits, one per number, of which the last `8 * (BYTES - 1)` numbers are remembered: the byte that the
/// newest number falls into is only partly in use, so one byte more than the window is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Replay<const BYTES: usize = { WINDOW as usize / 8 + 1 }> {
    /// One above the highest number seen; 0 before the first.
    next: u32,
    seen: [u8; BYTES],
}

/// Why a number is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Seen before.
    Duplicate,
    /// Below the window.
    TooOld,
}

impl<const BYTES: usize> Replay<BYTES> {
    #[expect(clippy::cast_possible_truncation, reason = "the width of a window: hundreds of bytes at most")]
    const LEN: u32 = BYTES as u32;
    const WINDOW: u32 = 8 * (Self::LEN - 1);

    /// Nothing seen.
    pub(super) const fn new() -> Self {
        Self { next: 0, seen: [0; BYTES] }
    }

    /// Whether any number was marked.
    pub(super) const fn any(&self) -> bool {
        self.next != 0
    }

    const fn place(number: u32) -> (usize, u8) {
        ((number / 8) as usize % BYTES, 1 << (number % 8))
    }

    /// Whether `number` is new. Changes nothing.
    pub(super) fn check(&self, number: u32) -> Result<(), Refused> {
        if number >= self.next {
            return Ok(());
        }
        if self.next - number > Self::WINDOW {
            return Err(Refused::TooOld);
        }
        let (byte, bit) = Self::place(number);
        if self.seen[byte] & bit == 0 { Ok(()) } else { Err(Refused::Duplicate) }
    }

    /// Remembers `number`, which passed [`Replay::check`] just now and is below `u32::MAX`.
    pub(super) fn mark(&mut self, number: u32) {
        if number >= self.next {
            // The bytes that the window enters hold numbers of a whole round ago. The byte of the last number seen is
            // not among them.
            let entered = if self.next == 0 { 0 } else { (self.next - 1) / 8 + 1 };
            let last = number / 8;
            for byte in entered.max((last + 1).saturating_sub(Self::LEN))..=last {
                self.seen[byte as usize % BYTES] = 0;
            }
            self.next = number + 1;
        }
        let (byte, bit) = Self::place(number);
        self.seen[byte] |= bit;
    }

    /// The same in a window of another width. Numbers that one of the two does not remember count as seen.
    pub(super) fn resized<const OTHER: usize>(&self) -> Replay<OTHER> {
        let mut out = Replay { next: self.next, seen: [u8::MAX; OTHER] };
        // The newest byte is in use only up to the newest number.
        let rest_of_byte = self.next..self.next.next_multiple_of(8);
        let known = self.next.saturating_sub(Self::WINDOW.min(Replay::<OTHER>::WINDOW))..self.next;
        for number in known.filter(|n| self.check(*n).is_ok()).chain(rest_of_byte) {
            let (byte, bit) = Replay::<OTHER>::place(number);
            out.seen[byte] &= !bit;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What the window should do, in the plainest words: remember everything.
    #[derive(Default, Clone)]
    struct Model {
        seen: BTreeSet<u32>,
    }

    impl Model {
        fn check(&self, number: u32, window: u32) -> Result<(), Refused> {
            match self.seen.last() {
                Some(&highest) if u64::from(number) + u64::from(window) <= u64::from(highest) => Err(Refused::TooOld),
                _ if self.seen.contains(&number) => Err(Refused::Duplicate),
                _ => Ok(()),
            }
        }
    }

    fn step<const BYTES: usize>(replay: &mut Replay<BYTES>, model: &mut Model, number: u32) {
        let expected = model.check(number, Replay::<BYTES>::WINDOW);
        assert_eq!(replay.check(number), expected, "number {number} after {:?}", model.seen);
        if expected.is_ok() {
            replay.mark(number);
            model.seen.insert(number);
        }
    }

    #[test]
    fn the_window_is_as_wide_as_promised() {
        assert_eq!(Replay::<{ WINDOW as usize / 8 + 1 }>::WINDOW, WINDOW);
        let mut replay: Replay = Replay::new();
        replay.mark(5000);
        assert_eq!(replay.check(5000 - 2047), Ok(()));
        assert_eq!(replay.check(5000 - 2048), Err(Refused::TooOld));
    }

    /// Threat D3: every order of arrival of up to six numbers, on a window of eight.
    #[test]
    fn d3_exhaustive_on_a_window_of_eight() {
        fn explore(replay: &Replay<2>, model: &Model, depth: u32) {
            if depth == 0 {
                return;
            }
            for number in [0, 1, 2, 7, 8, 9, 10, 15, 16, 17, 23, 24, 40] {
                let (mut replay, mut model) = (replay.clone(), model.clone());
                step(&mut replay, &mut model, number);
                explore(&replay, &model, depth - 1);
            }
        }
        explore(&Replay::new(), &Model::default(), 5);
    }

    #[test]
    fn the_highest_numbers_are_taken_once() {
        let (mut replay, mut model) = (Replay::<3>::new(), Model::default());
        for number in [u32::MAX - 1, u32::MAX - 17, u32::MAX - 16, u32::MAX - 1, u32::MAX - 2, 0] {
            step(&mut replay, &mut model, number);
        }
    }

    proptest! {
        /// Threat D3: nothing is taken twice across a change of width, and what both windows cover is still taken.
        #[test]
        fn d3_a_resized_window_forgets_only_what_does_not_fit(
            base in 0_u32..5000,
            before in prop::collection::vec(0_u32..100, 0..60),
            after in prop::collection::vec(0_u32..200, 1..60),
        ) {
            let (mut wide, mut model): (Replay, _) = (Replay::new(), Model::default());
            for number in before {
                step(&mut wide, &mut model, base + number);
            }
            let mut narrow: Replay<9> = wide.resized();
            let mut again: Replay = narrow.resized();
            let floor = narrow.next.saturating_sub(64);
            for number in after {
                let number = base + number;
                if number < floor {
                    prop_assert!(narrow.check(number).is_err() && again.check(number).is_err());
                    continue;
                }
                let expected = model.check(number, WINDOW);
                prop_assert_eq!(again.check(number), expected);
                if narrow.next - number.min(narrow.next) <= 64 {
                    prop_assert_eq!(narrow.check(number), expected);
                }
                if expected.is_ok() {
                    if narrow.check(number).is_ok() {
                        narrow.mark(number);
                    }
                    again.mark(number);
                    model.seen.insert(number);
                }
            }
        }

        /// Threat D3: the window against a set, numbers near each other with some jumps.
        #[test]
        fn d3_agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0_u32..6000), 1..200)) {
            let (mut wide, mut wide_model): (Replay, _) = (Replay::new(), Model::default());
            let (mut narrow, mut narrow_model) = (Replay::<3>::new(), Model::default());
            let mut base = 0;
            for (back, distance) in steps {
                let number = if back { base - distance.min(base) } else { base + distance % 70 };
                base = base.max(number) + u32::from(distance % 97 == 0) * 3000;
                step(&mut wide, &mut wide_model, number);
                step(&mut narrow, &mut narrow_model, number);
            }
        }
    }
}
