//! How many leaves are registered here from each prefix: who has many keys has few of these.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;

use crate::account::Source;
use crate::wire::address::Prefix;

/// Leaves by where they come from.
#[derive(Default)]
pub(super) struct Shares {
    leaves: BTreeMap<Prefix, u32>,
}

/// What a leaf counts for: nothing, if it stands for itself alone. Those that are not seen count for a prefix where
/// nobody is.
fn prefix(source: Source) -> Option<Prefix> {
    match source {
        Source::Prefix(prefix) => Some(prefix),
        Source::Unseen => Some(Prefix::of(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        Source::Peer(_) => None,
    }
}

impl Shares {
    /// How many leaves come from there.
    pub(super) fn of(&self, source: Source) -> usize {
        prefix(source).and_then(|prefix| self.leaves.get(&prefix)).map_or(0, |leaves| *leaves as usize)
    }

    /// One more does. What it gives is to be kept beside the leaf.
    pub(super) fn enter(&mut self, source: Source) -> Option<Prefix> {
        let prefix = prefix(source)?;
        *self.leaves.entry(prefix).or_default() += 1;
        Some(prefix)
    }

    /// One less does.
    pub(super) fn leave(&mut self, prefix: Option<Prefix>) {
        let Some(prefix) = prefix else { return };
        let Some(leaves) = self.leaves.get_mut(&prefix) else { return };
        *leaves -= 1;
        if *leaves == 0 {
            self.leaves.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn as_many_are_counted_as_there_are_and_nothing_is_left_when_they_have_gone() {
        let mut choices = Seed::new([7; 32]).choices("test");
        let (mut shares, mut here) = (Shares::default(), Vec::new());
        let source = |n: usize| match u8::try_from(n).expect("small") {
            0 => Source::Unseen,
            n => Source::Prefix(Prefix::of(IpAddr::from([198, 51, n, 1]))),
        };
        for _ in 0..5_000 {
            if choices.below(2) == 0 && !here.is_empty() {
                let (_, prefix) = here.swap_remove(choices.below(here.len()));
                shares.leave(prefix);
            } else {
                let n = choices.below(20);
                here.push((n, shares.enter(source(n))));
            }
            let n = choices.below(20);
            assert_eq!(shares.of(source(n)), here.iter().filter(|(other, _)| *other == n).count());
        }
        for (_, prefix) in here {
            shares.leave(prefix);
        }
        assert!(shares.leaves.is_empty());
    }
}
