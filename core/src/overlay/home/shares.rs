//! How many leaves are registered here from each prefix: who has many keys has few of these.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use crate::account::Source;

/// Leaves by where they come from. What a leaf keeps is a number, since there may be a million of them.
#[derive(Default)]
pub(super) struct Shares {
    numbers: BTreeMap<Source, NonZeroU32>,
    held: BTreeMap<NonZeroU32, (Source, u32)>,
    last: u32,
}

impl Shares {
    /// How many leaves come from there.
    pub(super) fn of(&self, source: &Source) -> usize {
        let held = self.numbers.get(source).and_then(|number| self.held.get(number));
        held.map_or(0, |(_, leaves)| *leaves as usize)
    }

    /// One more does. A peer that stands for itself alone needs no count.
    pub(super) fn enter(&mut self, source: Source) -> Option<NonZeroU32> {
        if matches!(source, Source::Peer(_)) {
            return None;
        }
        let number = self.numbers.get(&source).copied().unwrap_or_else(|| self.unused());
        self.numbers.insert(source, number);
        self.held.entry(number).or_insert((source, 0)).1 += 1;
        Some(number)
    }

    fn unused(&mut self) -> NonZeroU32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if let Some(number) = NonZeroU32::new(self.last).filter(|number| !self.held.contains_key(number)) {
                return number;
            }
        }
    }

    /// One less does.
    pub(super) fn leave(&mut self, number: Option<NonZeroU32>) {
        let Some(number) = number else { return };
        let Some((source, leaves)) = self.held.get_mut(&number) else { return };
        *leaves -= 1;
        if *leaves == 0 {
            self.numbers.remove(source);
            self.held.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;
    use crate::wire::address::Prefix;

    #[test]
    fn as_many_are_counted_as_there_are_and_nothing_is_left_when_they_have_gone() {
        let mut choices = Seed::new([7; 32]).choices("test");
        let (mut shares, mut here) = (Shares::default(), Vec::new());
        let source = |n: usize| Source::Prefix(Prefix::of(std::net::IpAddr::from([198, 51, n as u8, 1])));
        for _ in 0..5_000 {
            if choices.below(2) == 0 && !here.is_empty() {
                let (_, number) = here.swap_remove(choices.below(here.len()));
                shares.leave(number);
            } else {
                let n = choices.below(20);
                here.push((n, shares.enter(source(n))));
            }
            let n = choices.below(20);
            assert_eq!(shares.of(&source(n)), here.iter().filter(|(other, _)| *other == n).count());
        }
        for (_, number) in here {
            shares.leave(number);
        }
        assert!(shares.numbers.is_empty() && shares.held.is_empty());
    }
}
