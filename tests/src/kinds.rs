//! The kinds of networks that a leaf can find itself in, by name: what the matrix and the population are made of.
//!
//! A [`Kind`] is a name and a [`Side`]; [`World::add_leaf_on`] builds the routers and puts a leaf behind them.

use crate::host::HostId;
use crate::nat::{Behavior, NatSpec, Pooling, PortAssignment};
use crate::oracle::Side;
use crate::topology::Place;
use crate::world::World;

/// A kind of network.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Short, for tables. `EI`, `AD` and `APD` stand for RFC 4787's three behaviours: mapping, then filtering.
    pub name: &'static str,
    /// What that is.
    pub what: &'static str,
    /// What stands between a host there and the internet.
    pub side: Side,
}

/// What routers forget an idle binding after, in seconds, with the share of a hundred leaves: home routers with a median
/// of 180 s, carrier-grade NATs of 35 to 65 s, and tails of 10 s and of more than ten minutes. An assumption, not a
/// survey. A node that measures its own sends a beat every 51 s in the mean.
pub const BINDINGS: [(u64, f64, &str); 12] = [
    (30, 4.0, "home router"),
    (60, 8.0, "home router"),
    (120, 16.0, "home router"),
    (180, 18.0, "home router"),
    (240, 7.0, "home router"),
    (300, 12.0, "home router"),
    (35, 6.0, "carrier-grade NAT"),
    (45, 7.0, "carrier-grade NAT"),
    (55, 7.0, "carrier-grade NAT"),
    (65, 7.0, "carrier-grade NAT"),
    (10, 2.0, "tail"),
    (900, 6.0, "tail"),
];

const EI: Behavior = Behavior::EndpointIndependent;
const AD: Behavior = Behavior::AddressDependent;
const APD: Behavior = Behavior::AddressAndPortDependent;
const RANDOM: PortAssignment = PortAssignment::Random;

/// A carrier's router that does as RFC 6888 wants: independent mapping, several addresses, paired.
pub const CGN_EASY: NatSpec = NatSpec::new(EI, EI).ports(RANDOM).pool(4, Pooling::Paired);
/// A carrier's router that maps by destination within a block per subscriber.
pub const CGN_BLOCK: NatSpec = NatSpec::dependent(PortAssignment::Block { width: 1_024 }).pool(4, Pooling::Paired);

const fn block(width: u16) -> NatSpec {
    NatSpec::dependent(PortAssignment::Block { width })
}

const fn counting(delta: i16) -> NatSpec {
    NatSpec::dependent(PortAssignment::Sequential { delta })
}

/// All kinds of the matrix.
pub fn all() -> Vec<Kind> {
    let one = |name, what, spec: NatSpec| Kind { name, what, side: Side::behind(&[spec]) };
    let home = NatSpec::port_restricted();
    vec![
        Kind { name: "public", what: "a host without a router", side: Side::default() },
        one("EI/EI", "\"full cone\"", NatSpec::new(EI, EI)),
        one("EI/AD", "\"address-restricted\"", NatSpec::new(EI, AD)),
        one("EI/APD", "\"port-restricted\": the usual home router", home),
        one("EI/APD random", "the same, external ports random", home.ports(RANDOM)),
        one("EI/APD pool", "the same with 4 external addresses, arbitrary", home.pool(4, Pooling::Arbitrary)),
        one("AD/EI", "another endpoint for each address, open", NatSpec::new(AD, EI).ports(RANDOM)),
        one("AD/AD", "another endpoint for each address", NatSpec::new(AD, AD).ports(RANDOM)),
        one("AD/APD", "the same, strictly filtered", NatSpec::new(AD, APD).ports(RANDOM)),
        one("APD/EI", "another endpoint for each endpoint, open", NatSpec::new(APD, EI).ports(RANDOM)),
        one("APD/AD", "the same, filtered by address", NatSpec::new(APD, AD).ports(RANDOM)),
        one("APD random", "\"symmetric\", random ports of all", NatSpec::fully_dependent()),
        one(
            "APD letter",
            "the same, filter by the letter of RFC 4787",
            NatSpec::fully_dependent().filtering_per_endpoint(),
        ),
        one("APD +1", "\"symmetric\", counting up, nobody else", counting(1)),
        one("APD -1", "the same, counting down", counting(-1)),
        one("APD +2 busy", "counting by two, other hosts take 2 a second", counting(2).background(2)),
        one("APD rush", "counting, other hosts take 500 a second", counting(1).background(500)),
        one("APD block 64", "\"symmetric\", random ports of a block of 64", block(64)),
        one("APD block 512", "a block of 512", block(512)),
        one("APD block 2048", "a block of 2048", block(2_048)),
        Kind {
            name: "home, CGN EI",
            what: "a home router behind a carrier's, as RFC 6888 wants that",
            side: Side::behind(&[home, CGN_EASY]),
        },
        Kind {
            name: "home, CGN block",
            what: "a home router behind a carrier's that is APD in blocks of 1024",
            side: Side::behind(&[home, CGN_BLOCK]),
        },
        one(
            "APD pool",
            "\"symmetric\", 4 external addresses, arbitrary",
            NatSpec::fully_dependent().pool(4, Pooling::Arbitrary),
        ),
        Kind {
            name: "APD, IPv6",
            what: "\"symmetric\", and IPv6 behind a firewall",
            side: Side::behind(&[NatSpec::fully_dependent()]).with_ipv6(),
        },
        one("no UDP", "no UDP gets out", NatSpec::udp_blocked()),
    ]
}

/// The kind of this name.
pub fn named(name: &str) -> Kind {
    all().into_iter().find(|kind| kind.name == name).expect("a kind of this name")
}

impl World {
    /// A leaf, started, behind routers of its own like these.
    pub fn add_leaf_on(&mut self, side: &Side) -> HostId {
        let place = self.add_routers(side);
        self.add_leaf(place)
    }

    /// The routers of a side, and the place behind them.
    pub fn add_routers(&mut self, side: &Side) -> Place {
        let outer_first = side.routers.iter().rev();
        let innermost = outer_first.fold(None, |outer, spec| {
            Some(match outer {
                None => self.add_router(*spec),
                Some(outer) => self.add_router_behind(outer, *spec),
            })
        });
        match innermost {
            None => Place::Public,
            Some(router) if side.ipv6 => {
                assert_eq!(side.routers.len(), 1, "IPv6 goes through one firewall");
                Place::DualStack(router)
            }
            Some(router) => Place::Behind(router),
        }
    }
}
