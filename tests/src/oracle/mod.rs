//! Which pairs must become direct, and how, from RFC terms and arithmetic alone: no router is simulated here, no port
//! is drawn, and nothing of the core is used.
//!
//! [`verdict`] is handed what stands between each of two hosts and the internet and says what the cheapest way is:
//!
//! 1. *Direct*: both send to what they know of each other and to what packets came from (`paper.rs`).
//! 2. *By prediction*: a router that counts its ports up can be foreseen, so its new endpoints are known beforehand.
//! 3. *By birthday*: one side holds many ports open, which the other can only guess, many at a time ([`birthday`]).
//!    What the guess comes from must pass the holder's filter, and the answer must come from where the guess went.
//! 4. *By luck*: a single try in which two counters must not be disturbed, or one guess among few must be right.
//! 5. *Relay*: the rest.
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
/// Seconds from the look at a counter to the packet that relies on it: a few round trips.
const LOOK_AGE_S: f64 = 0.2;
/// Ports of a block that a host uses otherwise: its links to supernodes.
const PORTS_IN_USE: u32 = 8;
/// Less luck than this is none.
const LUCK_MIN: f64 = 0.05;

/// The cheapest way that connects a pair.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Hole punching between the endpoints that both know or learn.
    Direct,
    /// The same, with endpoints that can be foreseen.
    DirectByPrediction,
    /// Guessing ports, with this chance.
    DirectByBirthday(Chance),
    /// One try that succeeds as often as this: whether it is made, and how often again, is left open.
    Luck(f64),
    /// No direct way.
    Relay(Why),
}

/// Why there is no direct way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// One side's network lets no UDP through.
    UdpBlocked,
    /// Whichever side guesses, the other does not know from where, and its filter asks for that; or each answer would
    /// come from yet another port.
    BothChange,
    /// Two routers behind one that does not send back what is for its own outside.
    NoHairpin,
    /// One that does, but shows the internal source, which the routers behind it did not send to.
    HairpinShowsInternal,
}

impl Verdict {
    /// Whether the pair is to become direct, surely or very likely.
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct | Self::DirectByPrediction | Self::DirectByBirthday(_))
    }

    /// How likely the pair becomes direct if everything is tried.
    pub const fn expected(&self) -> f64 {
        match self {
            Self::Direct | Self::DirectByPrediction => 1.0,
            Self::DirectByBirthday(chance) => chance.high,
            Self::Luck(chance) => *chance,
            Self::Relay(_) => 0.0,
        }
    }

    /// Why it stays relayed, if it does.
    pub const fn why(&self) -> Option<Why> {
        match self {
            Self::Relay(why) => Some(*why),
            Self::Direct | Self::DirectByPrediction | Self::DirectByBirthday(_) | Self::Luck(_) => None,
        }
    }

    /// One word for it.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectByPrediction => "prediction",
            Self::DirectByBirthday(_) => "birthday",
            Self::Luck(_) => "luck",
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
    #[must_use]
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
    let [a, b] = &sides;
    let guessed = [guess(a, b), guess(b, a)].into_iter().flatten();
    if let Some(best) = guessed.max_by(|x, y| x.high.total_cmp(&y.high)) {
        return Verdict::DirectByBirthday(best);
    }
    let luck = luck(a, b).max(luck(b, a));
    if luck >= LUCK_MIN { Verdict::Luck(luck) } else { Verdict::Relay(Why::BothChange) }
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

    /// How many ports it holds open for guesses at one of its addresses, and among how many.
    fn held(&self) -> (u32, u32) {
        let addresses = if self.scattered { self.addresses } else { 1 };
        match self.ports {
            PortAssignment::Block { width } => (birthday::SOCKETS_BLOCK.min(self.room()) / addresses, u32::from(width)),
            PortAssignment::Preserving | PortAssignment::Random | PortAssignment::Sequential { .. } => {
                (birthday::SOCKETS_FULL / addresses, PORTS)
            }
        }
    }

    /// How many ports the host can have at a time.
    fn room(&self) -> u32 {
        match self.ports {
            PortAssignment::Block { width } => u32::from(width).saturating_sub(PORTS_IN_USE),
            PortAssignment::Preserving | PortAssignment::Random | PortAssignment::Sequential { .. } => PORTS,
        }
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

/// `guesser` sends from one socket to many ports of `holder`, which opened some towards the guesser.
fn guess(guesser: &Outside, holder: &Outside) -> Option<Chance> {
    use Behavior::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    // One endpoint for all guesses, which the holder knows and opens its ports for: the answer leaves from the port
    // that was hit, and to it the guesser has sent.
    let known = match guesser.mapping {
        EndpointIndependent => true,
        AddressDependent => guesser.can_be_foreseen(),
        AddressAndPortDependent => false,
    };
    // Otherwise the holder opens its ports for some other endpoint of the guesser's address.
    let admitted = known || holder.filtering != AddressAndPortDependent;
    let answered = known
        || match holder.mapping {
            // It has one port for all of that address.
            EndpointIndependent | AddressDependent => true,
            // A fresh port, which the guesser's filter must let in and which then is the one to talk to.
            AddressAndPortDependent => {
                guesser.filtering != AddressAndPortDependent && guesser.mapping != AddressAndPortDependent
            }
        };
    if !admitted || !answered {
        return None;
    }
    // Where each guess takes a port of the guesser too, it can run out of them, and where it takes another address,
    // few come from the one that the holder sent to.
    let guesses = if guesser.mapping == AddressAndPortDependent { guesser.room() } else { u32::MAX };
    let guesses =
        if known || !guesser.scattered { guesses } else { birthday::GUESSES_MAX.min(guesses) / guesser.addresses };
    // A guess is a port at one of the holder's addresses.
    let (sockets, ports) = holder.held();
    Some(Chance::of(sockets, ports, guesses))
}

/// How often one try succeeds that rests on a counter of the guesser, whose every packet moves it.
fn luck(guesser: &Outside, holder: &Outside) -> f64 {
    if !guesser.can_be_foreseen() {
        return 0.0;
    }
    // The counter must stand where it was seen.
    let still = |side: &Outside| (-LOOK_AGE_S * f64::from(side.background_per_s)).exp();
    if holder.can_be_foreseen() {
        return still(guesser) * still(holder);
    }
    // All of the holder's ports are open towards the endpoint of the guesser's first packet.
    let (sockets, ports) = holder.held();
    still(guesser) * f64::from(sockets) / f64::from(ports)
}
