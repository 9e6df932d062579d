//! Channels of which this node is an end: whose packets come through which, and which relay carries it.

use std::collections::{BTreeMap, BTreeSet};

use arrayvec::ArrayVec;

use crate::net::PeerKey;
use crate::wire::packet::ChannelId;

/// Most channels of which this node is an end. At the limit new ones are not noted and their packets dropped.
const ENDS_MAX: usize = 16_384;

/// Most to one peer through one relay, which has two at most that are of use. At the limit another one is forgotten.
const OF_BOTH: usize = 16;

/// One channel, from an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    /// The peer at the other end.
    pub(crate) end: PeerKey,
    /// The relay.
    pub(crate) via: PeerKey,
}

/// The channels of which this node is an end, by their id, their relay and the peer at the other end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    ways: BTreeMap<ChannelId, Way>,
    by_relay: BTreeSet<(PeerKey, ChannelId)>,
    by_end: BTreeSet<(PeerKey, ChannelId)>,
}

impl Ends {
    /// Notes a channel to a peer, or that it leads to another one now.
    pub(super) fn add(&mut self, channel: ChannelId, way: Way) {
        if self.ways.len() >= ENDS_MAX {
            return;
        }
        self.remove(channel);
        // A relay that brings ever new ones fills no place of another's.
        let of_both = of(&self.by_end, way.end).filter(|other| self.ways.get(other).is_some_and(|w| w.via == way.via));
        let of_both: ArrayVec<ChannelId, OF_BOTH> = of_both.take(OF_BOTH).collect();
        if let Some(other) = of_both.first().filter(|_| of_both.is_full()) {
            self.remove(*other);
        }
        self.ways.insert(channel, way);
        self.by_relay.insert((way.via, channel));
        self.by_end.insert((way.end, channel));
    }

    /// Where a channel leads, if this node is an end of it.
    pub(super) fn get(&self, channel: ChannelId) -> Option<Way> {
        self.ways.get(&channel).copied()
    }

    /// The channels through a relay, in order.
    pub(super) fn through(&self, relay: PeerKey) -> impl Iterator<Item = (ChannelId, PeerKey)> + '_ {
        let channels = of(&self.by_relay, relay);
        channels.filter_map(|channel| Some((channel, self.ways.get(&channel)?.end)))
    }

    /// Whether anything of ours goes through this link.
    pub(super) fn is_relay(&self, link: PeerKey) -> bool {
        of(&self.by_relay, link).next().is_some()
    }

    /// A channel is gone.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        if let Some(way) = self.ways.remove(&channel) {
            self.by_relay.remove(&(way.via, channel));
            self.by_end.remove(&(way.end, channel));
        }
    }

    /// A peer is gone: so are the channels to it, and those through it.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        let gone: Vec<ChannelId> = of(&self.by_end, peer).chain(of(&self.by_relay, peer)).collect();
        for channel in gone {
            self.remove(channel);
        }
        if self.ways.is_empty() {
            // An empty tree would keep its root.
            *self = Self::default();
        }
    }
}

/// The channels that a set has of one peer.
fn of(set: &BTreeSet<(PeerKey, ChannelId)>, peer: PeerKey) -> impl Iterator<Item = ChannelId> + '_ {
    set.range((peer, ChannelId([0; 6]))..=(peer, ChannelId([0xff; 6]))).map(|(_, channel)| *channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(index: u32) -> PeerKey {
        PeerKey { index, generation: 1 }
    }

    const fn channel(n: u8) -> ChannelId {
        ChannelId([n; 6])
    }

    #[test]
    fn a_relay_that_brings_ever_new_ones_leaves_others_their_places() {
        let mut ends = Ends::default();
        let [a, bad, good] = [1, 2, 3].map(peer);
        ends.add(channel(0), Way { end: a, via: good });
        for n in 1..200 {
            ends.add(channel(n), Way { end: a, via: bad });
            assert_eq!(ends.get(channel(n)), Some(Way { end: a, via: bad }));
        }
        assert_eq!((ends.through(bad).count(), ends.through(good).count()), (OF_BOTH, 1));
    }

    #[test]
    fn a_channel_is_found_from_all_three_sides_until_one_of_them_goes() {
        let mut ends = Ends::default();
        let [a, b, relay, other] = [1, 2, 3, 4].map(peer);
        ends.add(channel(1), Way { end: a, via: relay });
        ends.add(channel(2), Way { end: b, via: relay });
        ends.add(channel(3), Way { end: a, via: other });
        assert_eq!(ends.get(channel(1)), Some(Way { end: a, via: relay }));
        assert_eq!(ends.through(relay).collect::<Vec<_>>(), [(channel(1), a), (channel(2), b)]);
        assert!(ends.is_relay(other) && !ends.is_relay(a));
        ends.forget(a);
        assert_eq!((ends.get(channel(1)), ends.get(channel(3))), (None, None));
        assert!(ends.is_relay(relay) && !ends.is_relay(other));
        ends.add(channel(2), Way { end: b, via: other });
        assert!(!ends.is_relay(relay), "it leads through another relay now");
        ends.forget(other);
        assert_eq!(ends.get(channel(2)), None);
        assert!(ends.by_relay.is_empty() && ends.by_end.is_empty());
    }

    #[test]
    fn at_the_limit_none_is_noted() {
        let mut ends = Ends::default();
        for n in 0..=ENDS_MAX as u64 {
            let [.., a, b, c] = n.to_be_bytes();
            ends.add(ChannelId([0, 0, 0, a, b, c]), Way { end: peer(n as u32), via: peer(u32::MAX) });
        }
        assert_eq!(ends.ways.len(), ENDS_MAX);
    }
}
