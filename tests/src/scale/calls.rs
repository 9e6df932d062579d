//! Calls between leaves, and what came of them.
//!
//! A call is a `ping` of a peer that the caller has no link to: its node has to look the peer up, be introduced and get
//! a link, and the answer has gone over the network both ways. Whatever is answered from a link that was there before
//! is no call.

use core::time::Duration;
use std::collections::BTreeMap;

use handfast_core::{ConnectError, Instant, PeerId};

use crate::host::HostId;

/// A caller that heard nothing for so long gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ended {
    /// The peer answered, over a direct path.
    Direct,
    /// The peer answered, through a relay.
    Relayed,
    /// Nobody knew the peer, or nobody was there to be asked: the lookup failed.
    NotFound,
    /// The peer was found and not reached, or nothing was heard for a minute: the introduction failed.
    NotReached,
    /// Caller or callee ended meanwhile: it counts for nothing.
    Void,
}

impl Ended {
    /// Whether the peer answered.
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Direct | Self::Relayed)
    }
}

/// A call that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Who called.
    pub from: HostId,
    /// Whom.
    pub to: HostId,
    /// When.
    pub began: Instant,
    /// Why, for whoever counts.
    pub tag: u8,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub result: Ended,
}

/// All calls.
#[derive(Default)]
pub struct Calls {
    open: BTreeMap<(HostId, PeerId), Call>,
    /// Those that are over, in that order.
    pub done: Vec<Call>,
}

impl Calls {
    /// One begins; whether it may: one at a time from a host to a peer.
    pub(crate) fn begin(&mut self, now: Instant, from: HostId, to: HostId, peer: PeerId, tag: u8) -> bool {
        if self.open.contains_key(&(from, peer)) {
            return false;
        }
        let call = Call { from, to, began: now, tag, took: Duration::ZERO, result: Ended::Void };
        self.open.insert((from, peer), call);
        true
    }

    /// Something came of one, if it is still open.
    pub(crate) fn end(&mut self, now: Instant, from: HostId, peer: PeerId, result: Ended) -> Option<Call> {
        let call = self.open.remove(&(from, peer))?;
        let call = Call { took: now.since(call.began), result, ..call };
        self.done.push(call);
        Some(call)
    }

    /// A caller gives up the call that it began then.
    pub(crate) fn give_up(&mut self, now: Instant, from: HostId, peer: PeerId, began: Instant) {
        if self.open.get(&(from, peer)).is_some_and(|call| call.began == began) {
            self.end(now, from, peer, Ended::NotReached);
        }
    }

    /// A host ended, and its calls with it.
    pub(crate) fn on_end(&mut self, now: Instant, host: HostId) {
        let of = |(from, _): &(HostId, PeerId), call: &Call| *from == host || call.to == host;
        let over: Vec<_> = self.open.iter().filter(|(key, call)| of(key, call)).map(|(key, _)| *key).collect();
        for (from, peer) in over {
            self.end(now, from, peer, Ended::Void);
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// What came of those that are meant.
    pub fn count(&self, meant: impl Fn(&Call) -> bool) -> Counted {
        let mut counted = Counted::default();
        for call in self.done.iter().filter(|call| meant(call)) {
            counted.add(call);
        }
        counted
    }
}

/// What came of a number of calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// By result.
    pub results: BTreeMap<Ended, u64>,
    took: Vec<Duration>,
}

impl Counted {
    fn add(&mut self, call: &Call) {
        *self.results.entry(call.result).or_default() += 1;
        if call.result.is_answered() {
            self.took.push(call.took);
        }
    }

    /// How many had this result.
    pub fn of(&self, result: Ended) -> u64 {
        self.results.get(&result).copied().unwrap_or(0)
    }

    /// How many count.
    pub fn all(&self) -> u64 {
        self.results.iter().filter(|(result, _)| **result != Ended::Void).map(|(_, n)| n).sum()
    }

    /// How many were answered.
    pub fn answered(&self) -> u64 {
        self.of(Ended::Direct) + self.of(Ended::Relayed)
    }

    /// Of a hundred, how many found the peer; none if there was no call.
    pub fn found_percent(&self) -> Option<f64> {
        percent(self.all() - self.of(Ended::NotFound), self.all())
    }

    /// Of a hundred that found the peer, how many were answered.
    pub fn introduced_percent(&self) -> Option<f64> {
        percent(self.answered(), self.all() - self.of(Ended::NotFound))
    }

    /// Of a hundred, how many were answered.
    pub fn answered_percent(&self) -> Option<f64> {
        percent(self.answered(), self.all())
    }

    /// Within how long so many of a hundred of the answers came.
    pub fn within(&self, percent: usize) -> Option<Duration> {
        quantile(&mut self.took.clone(), percent)
    }
}

/// How many of a hundred; none of nothing.
pub fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// The smallest value that is not exceeded by so many of a hundred.
pub fn quantile<T: Ord + Copy>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable();
    let nth = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(nth).copied()
}

/// What an error of the node means here.
pub(crate) fn result_of(error: ConnectError) -> Ended {
    match error {
        ConnectError::NoSupernode | ConnectError::UnknownPeer => Ended::NotFound,
        // Others may come: whatever it is, the peer was not reached.
        _ => Ended::NotReached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_once_and_only_its_own_patience_ends_it() {
        let peer = handfast_core::SecretKey::from_bytes(&[1; 32]).peer_id();
        let (a, b, at) = (HostId(1), HostId(2), Instant::from_micros);
        let mut calls = Calls::default();
        assert!(calls.begin(at(5), a, b, peer, 0));
        assert!(!calls.begin(at(6), a, b, peer, 0), "it has begun");
        calls.end(at(9), a, peer, Ended::Direct);
        calls.end(at(9), a, peer, Ended::NotFound);
        assert!(calls.begin(at(10), a, b, peer, 1));
        calls.give_up(at(60), a, peer, at(5));
        assert_eq!(calls.open(), 1);
        calls.on_end(at(70), b);
        let counted = calls.count(|_| true);
        assert_eq!((counted.all(), counted.answered(), counted.of(Ended::Void)), (1, 1, 1));
        assert_eq!(counted.within(99), Some(Duration::from_micros(4)));
        assert_eq!(calls.count(|call| call.tag == 1).answered_percent(), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!([1, 50, 99, 100].map(|p| quantile(&mut values, p)), [Some(2), Some(100), Some(198), Some(200)]);
        assert_eq!(quantile::<u32>(&mut [], 50), None);
    }
}
