//! What two routers and the number of the attempt ask for: a pure function that both sides compute alike.
//!
//! [`choose`] lists the ways that may connect the pair, cheapest first, and the n-th attempt takes the n-th of them, in
//! turn: a retry changes strategy. What is not known of a router speaks for the cheaper way; where both ports surely
//! change with every packet and nothing can be foreseen or guessed, the list is empty and the pair is relayed at once.

use crate::api::RelayReason;
use arrayvec::ArrayVec;

use super::birthday::{PORTS, PORTS_FULL, SOCKETS_BLOCK_MAX, SOCKETS_BLOCK_MIN, SOCKETS_FULL, TRIES_MAX};
use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};

use FilteringBehavior as Filter;
use MappingBehavior as Map;

/// What one side does in an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strategy {
    /// Checks to all candidates.
    Plain,
    /// A router counts its ports: the step of ours, and the peer's, where it does.
    Predict {
        /// Ours counts.
        own: Option<i8>,
        /// The peer's does.
        peer: Option<i8>,
    },
    /// Sends from the main socket to so many ports of the peer, out of `width` from `first` on.
    Guess {
        /// The lowest.
        first: u16,
        /// How many there are.
        width: u16,
        /// Most packets.
        tries: u16,
    },
    /// Opens sockets that each send to the peer's one endpoint.
    Hold {
        /// How many.
        sockets: u16,
    },
    /// Nothing.
    RelayOnly(RelayReason),
}

impl Strategy {
    /// Whether server-reflexive addresses are worth a check. Beside guesses they are, since a profile may be wrong;
    /// where both ports surely change, they are not.
    pub(crate) const fn checks_reflexive(&self) -> bool {
        !matches!(self, Self::RelayOnly(_) | Self::Predict { own: Some(_), peer: Some(_) })
    }
}

/// A way to connect the pair; of its first router or its second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Plain,
    Predict,
    /// Whether the first guesses and the second holds.
    Birthday(bool),
}

/// What this side does in the n-th attempt. `controlling` is true on one side and false on the other: the smaller
/// `PeerId` controls.
pub(crate) fn choose(own: &NatProfile, peer: &NatProfile, attempt: u8, controlling: bool) -> Strategy {
    if own.udp_blocked || peer.udp_blocked {
        return Strategy::RelayOnly(RelayReason::UdpBlocked);
    }
    let ways = if controlling { ways(own, peer) } else { ways(peer, own) };
    let Some(way) = usize::from(attempt).checked_rem(ways.len()).and_then(|n| ways.get(n)) else {
        return Strategy::RelayOnly(RelayReason::BothRandom);
    };
    match way {
        Way::Plain => Strategy::Plain,
        Way::Predict => Strategy::Predict { own: step(own), peer: step(peer) },
        Way::Birthday(first_guesses) if *first_guesses == controlling => guess(own, peer),
        Way::Birthday(_) => Strategy::Hold { sockets: sockets(own) },
    }
}

/// The ways for these two, cheapest first.
fn ways(first: &NatProfile, second: &NatProfile) -> ArrayVec<Way, 4> {
    let mut ways = ArrayVec::new();
    if plain_may_do(first, second) {
        ways.push(Way::Plain);
    }
    if can_be_foreseen(first, second) {
        ways.push(Way::Predict);
    }
    let mut guessers: ArrayVec<(bool, &NatProfile), 2> = ArrayVec::new();
    if may_guess(first, second) {
        guessers.push((true, first));
    }
    if may_guess(second, first) {
        guessers.push((false, second));
    }
    // Whose endpoint is surely one for all is guessed from first; then whose may be. The sort is stable.
    guessers.sort_by_key(|(_, guesser)| match guesser.mapping {
        Some(Map::EndpointIndependent) => 0,
        None => 1,
        Some(Map::AddressDependent) => 2,
        Some(Map::AddressAndPortDependent) => 3,
    });
    ways.extend(guessers.into_iter().map(|(is_first, _)| Way::Birthday(is_first)));
    ways
}

/// Whether both may meet by sending to the endpoints that they know of each other or learn from what arrives.
fn plain_may_do(a: &NatProfile, b: &NatProfile) -> bool {
    let (Some(map_a), Some(map_b)) = (a.mapping, b.mapping) else { return true };
    let strict = |p: &NatProfile| p.filtering == Some(Filter::AddressAndPortDependent);
    match (map_a, map_b) {
        (Map::EndpointIndependent, Map::EndpointIndependent) => true,
        // The dependent side sends first, from an endpoint that only the independent one's filter must let in.
        (Map::EndpointIndependent, _) => !strict(a),
        (_, Map::EndpointIndependent) => !strict(b),
        // Each answer comes from yet another endpoint.
        (Map::AddressAndPortDependent, Map::AddressAndPortDependent) => false,
        // One lets anybody in at the endpoint that supernodes see, and the other's endpoint stays once it has sent
        // there.
        _ => !strict(a) && !strict(b) && [a, b].iter().any(|p| is_open(p)),
    }
}

/// Whether a stranger's packet comes in, or may.
fn is_open(p: &NatProfile) -> bool {
    matches!(p.filtering, None | Some(Filter::EndpointIndependent))
}

/// The step of a router whose next mapping can be foreseen.
fn step(p: &NatProfile) -> Option<i8> {
    match p.ports {
        PortAssignment::Sequential { step, .. } if step != 0 && p.mapping != Some(Map::EndpointIndependent) => {
            Some(step)
        }
        _ => None,
    }
}

/// Whether the pair meets once the next ports of the routers that count are known.
fn can_be_foreseen(a: &NatProfile, b: &NatProfile) -> bool {
    let is_known = |p: &NatProfile| matches!(p.mapping, None | Some(Map::EndpointIndependent)) || step(p).is_some();
    (step(a).is_some() || step(b).is_some()) && is_known(a) && is_known(b)
}

/// Whether `guesser` may find a port of `holder`, and what is found then works.
fn may_guess(guesser: &NatProfile, holder: &NatProfile) -> bool {
    // With one mapping for all, there is no port to guess.
    if holder.mapping == Some(Map::EndpointIndependent) {
        return false;
    }
    let Some(dependent) = guesser.mapping.filter(|m| *m != Map::EndpointIndependent) else { return true };
    // The holder cannot open its ports for the endpoint that the guess comes from: its filter must not ask for that.
    let admitted = matches!(holder.filtering, Some(Filter::EndpointIndependent | Filter::AddressDependent));
    // The answer leaves from the port that was hit, unless the holder's mapping changes with the guesser's port; then
    // the guesser's filter must let it in, and its next packet must come from where the last one did.
    let answered = match holder.mapping {
        Some(Map::AddressAndPortDependent) => {
            matches!(guesser.filtering, Some(Filter::EndpointIndependent | Filter::AddressDependent))
                && dependent == Map::AddressDependent
        }
        _ => true,
    };
    admitted && answered
}

/// How many sockets our router is given to hold.
fn sockets(own: &NatProfile) -> u16 {
    match own.ports {
        // Subscribers share a carrier's router, each has one block: an eighth of it is enough, since all of it is
        // tried.
        PortAssignment::Block { width, .. } => (width / 8).clamp(SOCKETS_BLOCK_MIN, SOCKETS_BLOCK_MAX),
        _ => SOCKETS_FULL,
    }
}

fn guess(own: &NatProfile, peer: &NatProfile) -> Strategy {
    let (first, width) = match peer.ports {
        PortAssignment::Block { first, width } if width > 0 && u16::MAX - first >= width - 1 => (first, width),
        _ => (PORTS, PORTS_FULL),
    };
    // Where every guess takes another port of ours, half of our own block is left for all else.
    let tries = match (own.mapping, own.ports) {
        (Some(Map::AddressAndPortDependent), PortAssignment::Block { width, .. }) => TRIES_MAX.min(width / 2),
        _ => TRIES_MAX,
    };
    Strategy::Guess { first, width, tries }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPINGS: [Option<Map>; 4] =
        [None, Some(Map::EndpointIndependent), Some(Map::AddressDependent), Some(Map::AddressAndPortDependent)];
    const FILTERINGS: [Option<Filter>; 4] = [
        None,
        Some(Filter::EndpointIndependent),
        Some(Filter::AddressDependent),
        Some(Filter::AddressAndPortDependent),
    ];
    const ASSIGNMENTS: [PortAssignment; 7] = [
        PortAssignment::Unknown,
        PortAssignment::Preserving,
        PortAssignment::Sequential { step: 1, newest: 7 },
        PortAssignment::Sequential { step: 0, newest: 7 },
        PortAssignment::Block { first: 1_024, width: 512 },
        PortAssignment::Block { first: 65_535, width: 65_535 },
        PortAssignment::Random,
    ];

    fn all() -> Vec<NatProfile> {
        let ports =
            |mapping, filtering| ASSIGNMENTS.map(|ports| NatProfile { mapping, filtering, ports, udp_blocked: false });
        let filters = |mapping| FILTERINGS.into_iter().flat_map(move |filtering| ports(mapping, filtering));
        MAPPINGS.into_iter().flat_map(filters).collect()
    }

    fn profile(mapping: Map, filtering: Filter, ports: PortAssignment) -> NatProfile {
        NatProfile { mapping: Some(mapping), filtering: Some(filtering), ports, udp_blocked: false }
    }

    fn home() -> NatProfile {
        profile(Map::EndpointIndependent, Filter::AddressAndPortDependent, PortAssignment::Preserving)
    }

    fn mobile(ports: PortAssignment) -> NatProfile {
        profile(Map::AddressAndPortDependent, Filter::AddressAndPortDependent, ports)
    }

    /// What both sides of a pair do, attempt by attempt.
    fn both(a: &NatProfile, b: &NatProfile, attempt: u8) -> (Strategy, Strategy) {
        (choose(a, b, attempt, true), choose(b, a, attempt, false))
    }

    #[test]
    fn the_two_sides_of_every_pair_match_in_every_attempt() {
        let mut seen = std::collections::BTreeSet::new();
        for a in &all() {
            for b in &all() {
                for attempt in (0..9).chain([u8::MAX]) {
                    let (one, other) = both(a, b, attempt);
                    let fits = match (one, other) {
                        (Strategy::Plain, Strategy::Plain) => true,
                        (Strategy::RelayOnly(a), Strategy::RelayOnly(b)) => a == b,
                        (Strategy::Predict { own, peer }, Strategy::Predict { own: theirs, peer: ours }) => {
                            (own, peer) == (ours, theirs) && (own.is_some() || peer.is_some())
                        }
                        (Strategy::Guess { first, width, tries }, Strategy::Hold { sockets })
                        | (Strategy::Hold { sockets }, Strategy::Guess { first, width, tries }) => {
                            let last = u32::from(first) + u32::from(width) - 1;
                            width > 0 && last <= 65_535 && tries <= TRIES_MAX && (1..=SOCKETS_FULL).contains(&sockets)
                        }
                        _ => false,
                    };
                    assert!(fits, "{a:?} and {b:?}, attempt {attempt}: {one:?} and {other:?}");
                    seen.insert(format!("{one:?}").split([' ', '(']).next().map(str::to_owned));
                }
            }
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }

    #[test]
    fn a_retry_changes_strategy_where_there_is_another() {
        for a in &all() {
            for b in &all() {
                let ways = ways(a, b);
                for n in 0..ways.len() {
                    assert!(!ways[..n].contains(&ways[n]), "{a:?} and {b:?}: {ways:?}");
                }
                let cost = |way: &Way| match way {
                    Way::Plain => 0,
                    Way::Predict => 1,
                    Way::Birthday(_) => 2,
                };
                assert!(ways.is_sorted_by_key(cost), "{a:?} and {b:?}: {ways:?}");
            }
        }
        // Nothing known: plain, then guesses of either side.
        let unknown = NatProfile::default();
        assert_eq!(ways(&unknown, &unknown).as_slice(), [Way::Plain, Way::Birthday(true), Way::Birthday(false)]);
    }

    #[test]
    fn the_usual_pairs() {
        let guess = |first, width| Strategy::Guess { first, width, tries: 2_000 };
        assert_eq!(both(&home(), &home(), 0), (Strategy::Plain, Strategy::Plain));
        let random = mobile(PortAssignment::Random);
        assert_eq!(both(&home(), &random, 0), (guess(1_024, 64_512), Strategy::Hold { sockets: 256 }));
        assert_eq!(both(&random, &home(), 0), (Strategy::Hold { sockets: 256 }, guess(1_024, 64_512)));
        let block = mobile(PortAssignment::Block { first: 2_048, width: 512 });
        assert_eq!(both(&home(), &block, 0), (guess(2_048, 512), Strategy::Hold { sockets: 64 }));
        let counts = mobile(PortAssignment::Sequential { step: -2, newest: 9 });
        let predict =
            (Strategy::Predict { own: None, peer: Some(-2) }, Strategy::Predict { own: Some(-2), peer: None });
        assert_eq!(both(&home(), &counts, 0), predict);
        assert_eq!(both(&home(), &counts, 1).1, Strategy::Hold { sockets: 256 }, "should the counter rush");
        assert_eq!(choose(&counts, &counts, 0, true), Strategy::Predict { own: Some(-2), peer: Some(-2) });
        assert_eq!(choose(&random, &random, 0, true), Strategy::RelayOnly(RelayReason::BothRandom));
        assert_eq!(choose(&random, &block, 7, false), Strategy::RelayOnly(RelayReason::BothRandom));
        let blocked = NatProfile { udp_blocked: true, ..home() };
        for (own, peer) in [(&blocked, &home()), (&home(), &blocked), (&blocked, &random)] {
            assert_eq!(choose(own, peer, 1, true), Strategy::RelayOnly(RelayReason::UdpBlocked));
        }
        let lax = profile(Map::EndpointIndependent, Filter::AddressDependent, PortAssignment::Preserving);
        assert_eq!(both(&lax, &random, 0), (Strategy::Plain, Strategy::Plain));
    }

    #[test]
    fn a_guesser_whose_ports_change_spares_its_own_block() {
        let block = PortAssignment::Block { first: 1_024, width: 64 };
        let guesser = profile(Map::AddressAndPortDependent, Filter::AddressAndPortDependent, block);
        let holder = profile(Map::AddressDependent, Filter::AddressDependent, PortAssignment::Random);
        assert_eq!(choose(&guesser, &holder, 0, true), Strategy::Guess { first: 1_024, width: 64_512, tries: 32 });
    }
}
