//! How good a relay is for two ends, and which of several is taken.

use crate::identity::PeerId;

/// What a round trip counts that is not known.
const UNKNOWN_MS: u32 = 150;
/// What every way costs beside its round trips.
const BASE_MS: u32 = 20;
/// A relay that costs so much less is worth a handshake and a channel. What jitter adds is no reason.
const NOTICED_MS: u64 = 50;

/// A relay, as both ends of a link see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    /// Which.
    pub(super) relay: PeerId,
    /// The round trips of both ends to it, together.
    pub(super) rtt_ms: u32,
    /// How loaded it is, of 255: by what either has heard.
    pub(super) load: u8,
}

impl Candidate {
    /// From what the two know.
    pub(super) fn new(relay: PeerId, ours_ms: Option<u32>, theirs_ms: Option<u32>, load: u8) -> Self {
        Self { relay, rtt_ms: ours_ms.unwrap_or(UNKNOWN_MS) + theirs_ms.unwrap_or(UNKNOWN_MS), load }
    }

    /// One that neither knows anything of.
    pub(super) fn unmeasured(relay: PeerId) -> Self {
        Self::new(relay, None, None, 0)
    }

    /// Least is best: the round trips, as much longer as the room is scarce.
    pub(super) fn cost(&self) -> u64 {
        u64::from(self.rtt_ms + BASE_MS) * 256 / (256 - u64::from(self.load))
    }

    /// Whether it is so much better that it is worth to move there: by a fifth, and by what is noticed at all.
    pub(super) fn is_clearly_better(&self, than: &Self) -> bool {
        self.cost() * 5 < than.cost() * 4 && self.cost() + NOTICED_MS < than.cost()
    }
}

/// The better of two that are drawn by `below`, which gives a number below another one.
///
/// All ends know nearly the same, and late. If all took the best, it would be full before anybody heard of it.
pub(super) fn pick(candidates: &[Candidate], mut below: impl FnMut(usize) -> usize) -> Option<Candidate> {
    let n = candidates.len();
    let first = candidates.get(if n > 1 { below(n) } else { 0 })?;
    if n < 2 {
        return Some(*first);
    }
    let others: Vec<&Candidate> = candidates.iter().filter(|other| other.relay != first.relay).collect();
    let second = others.get(below(others.len().max(1))).copied().unwrap_or(first);
    Some(if second.cost() < first.cost() { *second } else { *first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    fn candidate(n: u8, rtt_ms: u32, load: u8) -> Candidate {
        Candidate { relay: SecretKey::from_bytes(&[n; 32]).peer_id(), rtt_ms, load }
    }

    #[test]
    fn near_and_idle_is_better_than_far_or_full() {
        let (near, far) = (candidate(1, 40, 0), candidate(2, 120, 0));
        assert!(near.is_clearly_better(&far) && !far.is_clearly_better(&near));
        assert!(!near.is_clearly_better(&candidate(2, 80, 0)), "nobody notices");
        let full = candidate(3, 40, 200);
        assert!(far.cost() < full.cost(), "{} {}", far.cost(), full.cost());
        assert!(!candidate(4, 36, 0).is_clearly_better(&near), "not worth it");
        let unknown = Candidate::new(near.relay, Some(20), None, 0);
        assert!(near.cost() < unknown.cost());
    }

    #[test]
    fn the_better_of_two_is_picked_and_the_worst_of_many_never() {
        let all: Vec<Candidate> = (0..5).map(|n| candidate(n, 50 + u32::from(n) * 20, 0)).collect();
        assert_eq!(pick(&[], |_| 0), None);
        assert_eq!(pick(&all[3..4], |_| 0), Some(all[3]));
        let mut picked = [0; 5];
        for first in 0..5 {
            for second in 0..4 {
                let mut draws = [first, second].into_iter();
                let one = pick(&all, |_| draws.next().expect("two draws")).expect("there are some");
                picked[all.iter().position(|c| *c == one).expect("one of them")] += 1;
            }
        }
        assert_eq!(picked, [8, 6, 4, 2, 0]);
    }
}
