//! What one host sends and receives, by kind of packet and by who is at the other end.
//!
//! A network card sees the first byte of a packet, and within a channel of a relay that of the packet inside; no more
//! is asked for, so nothing here depends on keys or on what messages there are. Bytes are counted at IP level.

use crate::host::Traffic;

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Party {
    /// A supernode.
    Supernode,
    /// Anybody else.
    Leaf,
}

impl Party {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Supernode, Self::Leaf];
}

/// First bytes that name a kind; others count as 0.
const KINDS: usize = 10;
const RELAY: u8 = 5;
/// Where the packet inside begins.
const RELAY_INNER: usize = 7;
const NAMES: [&str; KINDS] =
    ["other", "Init", "Response", "Cookie", "Data", "Relay", "Beat", "Stream", "BeatAsk", "Loop"];

/// A kind of packet; of what is inside, where it is relayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kind {
    byte: u8,
    relayed: bool,
}

impl Kind {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let known = |byte: Option<&u8>| byte.copied().filter(|b| usize::from(*b) < KINDS).unwrap_or(0);
        match known(bytes.first()) {
            RELAY => Self { byte: known(bytes.get(RELAY_INNER)), relayed: true },
            byte => Self { byte, relayed: false },
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|relayed| (0..KINDS as u8).map(move |byte| Self { byte, relayed }))
    }

    /// Its name in `PROTOCOL.md`.
    pub fn name(self) -> String {
        let name = NAMES[usize::from(self.byte)];
        if self.relayed { format!("relayed {name}") } else { name.to_owned() }
    }

    /// Whether it carries what programs say to one another: no duty of the network's, a relay's alone.
    pub const fn is_payload(self) -> bool {
        self.byte == 7
    }

    fn index(self) -> usize {
        usize::from(self.byte) + if self.relayed { KINDS } else { 0 }
    }
}

/// The account of one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger([[Traffic; 2 * KINDS]; 2]);

impl Ledger {
    /// Counts one packet.
    pub fn add(&mut self, party: Party, outbound: bool, bytes: &[u8], ip_len: usize) {
        self.0[party as usize][Kind::of(bytes).index()].add(outbound, ip_len);
    }

    /// What was counted of a kind.
    pub fn get(&self, party: Party, kind: Kind) -> Traffic {
        self.0[party as usize][kind.index()]
    }

    /// Everything that is not [`Kind::is_payload`].
    pub fn duty(&self) -> Traffic {
        let mut sum = Traffic::default();
        for party in Party::ALL {
            for kind in Kind::all().filter(|kind| !kind.is_payload()) {
                sum += self.get(party, kind);
            }
        }
        sum
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *into += *from;
        }
    }

    /// What was counted since an earlier state of the same account.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut out = *self;
        for (now, before) in out.0.iter_mut().flatten().zip(earlier.0.iter().flatten()) {
            *now = *now - *before;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_counts_as_what_it_is_and_a_relayed_one_as_what_is_inside() {
        let mut ledger = Ledger::default();
        ledger.add(Party::Leaf, true, &[6, 0, 0], 45);
        ledger.add(Party::Leaf, false, &[5, 0, 0, 0, 0, 0, 0, 4], 100);
        ledger.add(Party::Supernode, false, &[200], 29);
        ledger.add(Party::Supernode, true, &[], 28);
        ledger.add(Party::Leaf, true, &[7], 1000);
        let of = |party, bytes: &[u8]| ledger.get(party, Kind::of(bytes));
        assert_eq!(of(Party::Leaf, &[6]).bytes_out, 45);
        assert_eq!(of(Party::Leaf, &[5, 0, 0, 0, 0, 0, 0, 4]).bytes_in, 100);
        assert_eq!(of(Party::Supernode, &[0]).bytes(), 57);
        assert_eq!(ledger.duty().bytes(), 45 + 100 + 57, "a stream is no duty");
        assert_eq!(Kind::of(&[5, 0, 0, 0, 0, 0, 0, 2]).name(), "relayed Response");
        assert_eq!(ledger.since(&ledger), Ledger::default());
    }
}
