//! Which pairs must become direct, and how, from RFC terms and arithmetic alone: no router is simulated here, no port
//! is drawn, and nothing of the core is used.
//!
//! [`verdict`] is handed what stands between each of two hosts and the internet and says what the cheapest way is:
//!
//! 1. *Direct*: both send to what they know of each other and to what packets came from ([`paper`]).
//! 2. *By prediction*: a router that counts its ports up can be foreseen, so its new endpoints are known beforehand.
//! 3. *By birthday*: one side's ports can only be guessed, many at a time ([`birthday`]). The guesser's own endpoint
//!    must stay what it is whichever port it sends to, or each guess would change what has to be guessed.
//! 4. *Relay*: the rest.
//!
//! A dependent mapping that preserves ports counts as a random one: the first binding keeps the internal port, and
//! the second, which would be the peer's, cannot have it too. A node that opens a fresh socket for the peer could
//! foresee that one; no strategy here asks that of it.

use crate::nat::{Behavior, FilterScope, NatSpec, PORTS, Pooling, PortAssignment};

pub mod birthday;
mod paper;
#[cfg(test)]
mod tests;

pub use birthday::Chance;
use paper::{Rules, meets};

/// Other hosts' bindings a second up to which a counter can be foreseen: half a second after it was looked at, it is
/// some ten steps further, give or take as many; a guess covers a few dozen.
const BACKGROUND_MAX: u16 = 20;
/// Ports of a block that a host uses otherwise: its links to supernodes.
const PORTS_IN_USE: u32 = 8;

/// The cheapest way that connects a pair.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Hole punching between the endpoints that both know or learn.
    Direct,
    /// The same, with endpoints that can be foreseen.
    DirectByPrediction,
    /// Guessing ports, with this chance.
    DirectByBirthday(Chance),
    /// No direct way.
    Relay(Why),
}

/// Why there is no direct way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// One side's network lets no UDP through.
    UdpBlocked,
    /// Both sides' ports change with every guess, and not both can be foreseen.
    BothChange,
    /// The guesser's one endpoint is not known, and the other's filter asks for it.
    GuesserUnknown,
    /// A binding's address cannot be foreseen.
    AddressesScatter,
    /// Two routers behind one that does not send back what is for its own outside.
    NoHairpin,
    /// One that does, but shows the internal source, which the routers behind it did not send to.
    HairpinShowsInternal,
}

impl Verdict {
    /// Whether the pair is to become direct, surely or by chance.
    pub const fn is_direct(&self) -> bool {
        !matches!(self, Self::Relay(_))
    }

    /// How likely the pair becomes direct if everything is tried.
    pub const fn expected(&self) -> f64 {
        match self {
            Self::Direct | Self::DirectByPrediction => 1.0,
            Self::DirectByBirthday(chance) => chance.high,
            Self::Relay(_) => 0.0,
        }
    }

    /// Why it stays relayed, if it does.
    pub const fn why(&self) -> Option<Why> {
        match self {
            Self::Relay(why) => Some(*why),
            Self::Direct | Self::DirectByPrediction | Self::DirectByBirthday(_) => None,
        }
    }

    /// One word for it.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectByPrediction => "prediction",
            Self::DirectByBirthday(_) => "birthday",
            Self::Relay(_) => "relay",
        }
    }
}

/// What stands between a host and the internet.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Side {
    /// Its IPv4 routers, the nearest first.
    pub routers: Vec<NatSpec>,
    /// Whether it has a global IPv6 address too, behind a stateful firewall.
    pub ipv6: bool,
}

impl Side {
    /// Behind these routers.
    pub fn behind(routers: &[NatSpec]) -> Self {
        Self { routers: routers.to_vec(), ipv6: false }
    }

    /// The same with IPv6.
    pub fn with_ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }
}

/// What two hosts must reach that share no router.
pub fn verdict(a: &Side, b: &Side) -> Verdict {
    let sides = [Outside::of(&a.routers), Outside::of(&b.routers)];
    if sides.iter().any(|side| side.blocks_udp) {
        return Verdict::Relay(Why::UdpBlocked);
    }
    // Both firewalls let in who was sent to, and nobody's address changes on the way.
    if (a.ipv6 && b.ipv6) || meets(sides.map(|side| side.rules(false))) {
        return Verdict::Direct;
    }
    if foresees(&sides) {
        return Verdict::DirectByPrediction;
    }
    match sides.map(|side| !side.changes_within_an_address()) {
        [false, false] => Verdict::Relay(Why::BothChange),
        [a_stays, b_stays] => {
            let ways = [(a_stays, 0), (b_stays, 1)].into_iter().filter(|(stays, _)| *stays);
            let ways = ways.map(|(_, guesser)| guess(&sides[guesser], &sides[1 - guesser]));
            ways.max_by(|x, y| x.expected().total_cmp(&y.expected()).then(x.why().cmp(&y.why()))).expect("one stays")
        }
    }
}

/// What two hosts must reach whose ways out meet in `shared`, each with these routers before it.
pub fn verdict_behind(shared: &NatSpec, a: &[NatSpec], b: &[NatSpec]) -> Verdict {
    // Whoever has no router before the shared one has an address in the network that both are on.
    if a.is_empty() || b.is_empty() {
        return verdict(&Side::behind(a), &Side::behind(b));
    }
    if !shared.hairpinning {
        return Verdict::Relay(Why::NoHairpin);
    }
    let with_shared = |own: &[NatSpec]| Side::behind(&[own, &[*shared]].concat());
    match shared.hairpin_source {
        crate::nat::HairpinSource::External => verdict(&with_shared(a), &with_shared(b)),
        crate::nat::HairpinSource::Internal => {
            let open = |own: &[NatSpec]| own.iter().all(|spec| spec.filtering == Behavior::EndpointIndependent);
            let through = |own: &[NatSpec]| own.iter().all(|spec| spec.mapping == Behavior::EndpointIndependent);
            // Each packet comes from where its receiver did not send to; open filters let it in and are answered.
            if open(a) && open(b) && through(a) && through(b) {
                Verdict::Direct
            } else {
                Verdict::Relay(Why::HairpinShowsInternal)
            }
        }
    }
}

/// What several routers in a row look like from the internet.
#[derive(Clone, Copy, Debug)]
struct Outside {
    mapping: Behavior,
    filtering: Behavior,
    scope: FilterScope,
    ports: PortAssignment,
    addresses: u32,
    scattered: bool,
    background_per_s: u16,
    blocks_udp: bool,
}

impl Outside {
    fn of(routers: &[NatSpec]) -> Self {
        let mut seen = Self {
            mapping: Behavior::EndpointIndependent,
            filtering: Behavior::EndpointIndependent,
            scope: FilterScope::InternalEndpoint,
            ports: PortAssignment::Preserving,
            addresses: 1,
            scattered: false,
            background_per_s: 0,
            blocks_udp: false,
        };
        for router in routers {
            // A new binding of an inner router is a new internal endpoint of the outer one: whatever one of them
            // depends on, the whole does; and a datagram has to pass every filter.
            seen.mapping = seen.mapping.max(router.mapping);
            seen.filtering = seen.filtering.max(router.filtering);
            if router.filter_scope == FilterScope::Binding {
                seen.scope = FilterScope::Binding;
            }
            // The port that is seen is the outermost one's choice, unless that one keeps what it gets.
            if router.ports != PortAssignment::Preserving {
                seen.ports = router.ports;
                seen.background_per_s = router.background_per_s;
            }
            seen.addresses = u32::from(router.addresses);
            seen.scattered = router.pooling == Pooling::Arbitrary && router.addresses > 1;
            seen.blocks_udp |= router.blocks_udp;
        }
        // One binding has one address.
        seen.scattered &= seen.mapping != Behavior::EndpointIndependent;
        seen
    }

    fn rules(&self, foreseen: bool) -> Rules {
        let Self { mapping, filtering, scope, scattered, .. } = *self;
        Rules { mapping, filtering, scope, scattered, foreseen }
    }

    fn can_be_foreseen(&self) -> bool {
        matches!(self.ports, PortAssignment::Sequential { .. })
            && self.background_per_s <= BACKGROUND_MAX
            && !self.scattered
    }

    /// Whether the endpoint is another for each port of one address.
    fn changes_within_an_address(&self) -> bool {
        self.mapping == Behavior::AddressAndPortDependent
    }
}

/// Whether the pair meets once all endpoints that can be foreseen are known.
fn foresees(sides: &[Outside; 2]) -> bool {
    if meets(sides.map(|side| side.rules(side.can_be_foreseen()))) {
        return true;
    }
    // Both count: each side's n-th packet goes to the other's n-th next port, and so leaves from its own n-th next
    // one. They meet if no other host takes a port meanwhile.
    sides.iter().all(|side| side.can_be_foreseen() && side.background_per_s == 0)
}

/// `guesser` sends from its one endpoint to many ports of `holder`, which opened some towards that endpoint.
fn guess(guesser: &Outside, holder: &Outside) -> Verdict {
    let known = guesser.mapping == Behavior::EndpointIndependent || guesser.can_be_foreseen();
    let admitted = match holder.filtering {
        Behavior::EndpointIndependent => true,
        Behavior::AddressDependent => !guesser.scattered,
        Behavior::AddressAndPortDependent => known,
    };
    if !admitted {
        return Verdict::Relay(Why::GuesserUnknown);
    }
    if holder.scattered {
        // A guess is a port at an address, and supernodes saw but some of those.
        return Verdict::Relay(Why::AddressesScatter);
    }
    Verdict::DirectByBirthday(match holder.ports {
        PortAssignment::Block { width } => {
            let width = u32::from(width);
            Chance::of(birthday::SOCKETS_BLOCK.min(width.saturating_sub(PORTS_IN_USE)), width)
        }
        PortAssignment::Preserving | PortAssignment::Random | PortAssignment::Sequential { .. } => {
            Chance::of(birthday::SOCKETS_FULL, PORTS)
        }
    })
}
