//! Which path real nodes come to, for pairs that need no more than both sides sending at the same time: at least one
//! side is reached where the other saw it. Needs root; see `handfast_tests::netns`. Pairs that need prediction,
//! guessing or another transport are in `netns_traversal`.

use handfast_tests::netns::matrix::{self, Expected, Row};
use handfast_tests::netns::scene::{Pair, Site};
use handfast_tests::netns::{Filtering, Nat};

/// Endpoint-independent mapping to another port, address-dependent filtering.
const MOVED_ADDRESS: Nat = Nat { filtering: Filtering::AddressDependent, ..Nat::MOVED };
const CARRIER: Site = Site::Carrier { home: Nat::EASY, carrier: Nat::MOVED };

const ROWS: &[Row] = &[
    Row::new("public, hard", Pair::Apart(Site::Public, Site::Home(Nat::HARD)), Expected::Direct),
    Row::new("hard, public", Pair::Apart(Site::Home(Nat::HARD), Site::Public), Expected::Direct),
    Row::new("open, open", Pair::homes(Nat::OPEN, Nat::OPEN), Expected::Direct),
    Row::new("open, address-dependent", Pair::homes(Nat::OPEN, Nat::ADDRESS), Expected::Direct),
    Row::new("open, easy", Pair::homes(Nat::OPEN, Nat::EASY), Expected::Direct),
    Row::new("open, sequential", Pair::homes(Nat::OPEN, Nat::SEQUENTIAL), Expected::Direct),
    Row::new("open, hard", Pair::homes(Nat::OPEN, Nat::HARD), Expected::Direct),
    Row::new("address-dependent, address-dependent", Pair::homes(MOVED_ADDRESS, Nat::ADDRESS), Expected::Direct),
    Row::new("address-dependent, easy", Pair::homes(MOVED_ADDRESS, Nat::EASY), Expected::Direct),
    Row::new("address-dependent, sequential", Pair::homes(Nat::ADDRESS, Nat::SEQUENTIAL), Expected::Direct),
    Row::new("address-dependent, hard", Pair::homes(MOVED_ADDRESS, Nat::HARD), Expected::Direct),
    Row::new("easy, easy", Pair::homes(Nat::EASY, Nat::EASY), Expected::Direct),
    Row::new("easy, easy with other ports", Pair::homes(Nat::EASY, Nat::MOVED), Expected::Direct),
    Row::new("open, several addresses", Pair::homes(Nat::OPEN, Nat::POOLED), Expected::Direct),
    Row::new("easy, several addresses", Pair::homes(Nat::EASY, Nat::POOLED), Expected::Works),
    Row::new("hard, hard", Pair::homes(Nat::HARD, Nat::HARD), Expected::Relay),
    Row::new("carrier over home, easy", Pair::Apart(CARRIER, Site::Home(Nat::EASY)), Expected::Direct),
    Row::new("easy, carrier over home", Pair::Apart(Site::Home(Nat::EASY), CARRIER), Expected::Direct),
    Row::new("carrier over home, another one", Pair::Apart(CARRIER, CARRIER), Expected::Direct),
    Row::new("one LAN", Pair::OneLan(Nat::HARD), Expected::DirectInLan),
    Row::new("two LANs of one router", Pair::TwoLans(Nat::EASY), Expected::Relay),
    Row::new("two LANs of one router, hairpin", Pair::TwoLans(Nat::EASY.with_hairpin()), Expected::DirectByHairpin),
    Row::new("hard with IPv6, hard with IPv6", Pair::homes(HARD6, HARD6), Expected::DirectByIpv6),
];
const HARD6: Nat = Nat::HARD.with_ipv6();

#[test]
fn pairs_come_to_their_paths() {
    matrix::run(ROWS);
}
