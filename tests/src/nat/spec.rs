//! How a router behaves, as data: [`NatSpec`] in the terms of RFC 4787.

use core::net::SocketAddr;
use core::time::Duration;

/// What a mapping or a filter depends on (RFC 4787 §4.1 and §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Behavior {
    /// On the internal endpoint alone.
    EndpointIndependent,
    /// Also on the remote address.
    AddressDependent,
    /// Also on the remote address and port.
    AddressAndPortDependent,
}

impl Behavior {
    /// All three.
    pub const ALL: [Self; 3] = [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];

    /// What of a remote address counts.
    pub(super) fn key(self, remote: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::EndpointIndependent => None,
            Self::AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
            Self::AddressAndPortDependent => Some(remote),
        }
    }
}

/// Whose outbound datagrams open a filter. The two differ only where the mapping is dependent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterScope {
    /// Those of the binding. So it is where a translator keeps one table for both (Linux, most CGNs), and it is the
    /// stricter of the two.
    Binding,
    /// Those of the internal endpoint, whichever binding they took: the letter of RFC 4787 §5.
    InternalEndpoint,
}

/// How external ports are chosen (RFC 4787 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortAssignment {
    /// The internal port where it is free, else a random one.
    Preserving,
    /// Always a random one of all dynamic ports.
    Random,
    /// The last one, of whichever host, and so many on (RFC 5128 §3.3.2 predicts these).
    Sequential {
        /// The step; never 0.
        delta: i16,
    },
    /// A random one of the subscriber's block (RFC 6888, RFC 7422): each internal address has one of so many ports.
    Block {
        /// Ports of a subscriber.
        width: u16,
    },
}

/// Which of several external addresses a host gets (RFC 4787 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// The same for all bindings of one internal address (REQ-2).
    Paired,
    /// Any for each binding.
    Arbitrary,
}

/// Whether and how internal hosts reach each other through external addresses (RFC 4787 §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HairpinSource {
    /// The receiver sees the sender's external endpoint (REQ-9a).
    External,
    /// The receiver sees the sender's internal one.
    Internal,
}

/// How a router behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatSpec {
    /// What a mapping depends on.
    pub mapping: Behavior,
    /// What may come in.
    pub filtering: Behavior,
    /// Whose datagrams open the filter.
    pub filter_scope: FilterScope,
    /// How external ports are chosen.
    pub ports: PortAssignment,
    /// How many external addresses it has.
    pub addresses: u8,
    /// Which of them a binding gets.
    pub pooling: Pooling,
    /// Bindings a second that hosts which are not simulated make: they move a sequential counter.
    pub background_per_s: u16,
    /// Whether internal hosts reach each other through external addresses (RFC 4787 §6).
    pub hairpinning: bool,
    /// What the receiver then sees.
    pub hairpin_source: HairpinSource,
    /// A binding ends so long after its last refresh (RFC 4787 §4.3: not less than 2 minutes; real ones take 30 s).
    pub binding_timeout: Duration,
    /// Whether an inbound datagram refreshes a binding too; an outbound one always does (RFC 4787 §4.3).
    pub inbound_refresh: bool,
    /// False for a firewall: addresses stay as they are.
    pub translates: bool,
    /// Whether no UDP gets through at all.
    pub blocks_udp: bool,
}

impl NatSpec {
    /// A router with these behaviours, otherwise like most homes: ports preserved, no hairpinning, 120 s.
    pub const fn new(mapping: Behavior, filtering: Behavior) -> Self {
        Self {
            mapping,
            filtering,
            filter_scope: FilterScope::Binding,
            ports: PortAssignment::Preserving,
            addresses: 1,
            pooling: Pooling::Paired,
            background_per_s: 0,
            hairpinning: false,
            hairpin_source: HairpinSource::External,
            binding_timeout: Duration::from_secs(120),
            inbound_refresh: true,
            translates: true,
            blocks_udp: false,
        }
    }

    /// The usual home router: one mapping for all, and only who was sent to may answer.
    pub const fn port_restricted() -> Self {
        Self::new(Behavior::EndpointIndependent, Behavior::AddressAndPortDependent)
    }

    /// A router with another port for each remote endpoint, assigned like this.
    pub const fn dependent(ports: PortAssignment) -> Self {
        Self::new(Behavior::AddressAndPortDependent, Behavior::AddressAndPortDependent).ports(ports)
    }

    /// A router with another random port for each remote endpoint: nothing to punch without guessing many.
    pub const fn fully_dependent() -> Self {
        Self::dependent(PortAssignment::Random)
    }

    /// A stateful firewall.
    pub const fn firewall() -> Self {
        let mut spec = Self::port_restricted();
        spec.translates = false;
        spec
    }

    /// A home router on a network that lets no UDP through.
    pub const fn udp_blocked() -> Self {
        let mut spec = Self::port_restricted();
        spec.blocks_udp = true;
        spec
    }

    /// The same with another port assignment.
    #[must_use]
    pub const fn ports(mut self, ports: PortAssignment) -> Self {
        self.ports = ports;
        self
    }

    /// The same with so many external addresses.
    #[must_use]
    pub const fn pool(mut self, addresses: u8, pooling: Pooling) -> Self {
        self.addresses = addresses;
        self.pooling = pooling;
        self
    }

    /// The same with other hosts' traffic.
    #[must_use]
    pub const fn background(mut self, bindings_per_s: u16) -> Self {
        self.background_per_s = bindings_per_s;
        self
    }

    /// The same with filtering by the letter of RFC 4787 §5.
    #[must_use]
    pub const fn filtering_per_endpoint(mut self) -> Self {
        self.filter_scope = FilterScope::InternalEndpoint;
        self
    }

    /// The same with hairpinning.
    #[must_use]
    pub const fn hairpinning(mut self) -> Self {
        self.hairpinning = true;
        self
    }

    /// The same with another binding time-out.
    #[must_use]
    pub const fn binding_timeout(mut self, timeout: Duration) -> Self {
        self.binding_timeout = timeout;
        self
    }
}
