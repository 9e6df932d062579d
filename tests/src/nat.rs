//! Routers that translate addresses, in the terms of RFC 4787.
//!
//! A [`Nat`] is handed one datagram's addresses at a time: [`Nat::outbound`] gives the external source for a datagram
//! that leaves, [`Nat::inbound`] the internal destination for one that arrives, or nothing when it is filtered. A
//! binding lives until [`NatSpec::binding_timeout`] after its last refresh; [`Nat::reboot`] forgets all of them.
//!
//! Filtering is kept per binding and not per internal endpoint: RFC 4787 §5 speaks of the endpoint, but routers with
//! dependent mapping filter per binding, and that is the stricter of the two.
//! A plain firewall (the usual guard of IPv6) is a `Nat` that translates nothing.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use handfast_core::Instant;

use crate::random::Dice;

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
    fn key(self, remote: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::EndpointIndependent => None,
            Self::AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
            Self::AddressAndPortDependent => Some(remote),
        }
    }
}

/// How external ports are chosen (RFC 4787 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortAssignment {
    /// The internal port where it is free, else a random one.
    Preserving,
    /// Always a random one.
    Random,
}

/// How a router behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatSpec {
    /// What a mapping depends on.
    pub mapping: Behavior,
    /// What may come in.
    pub filtering: Behavior,
    /// How external ports are chosen.
    pub ports: PortAssignment,
    /// Whether internal hosts reach each other through external addresses (RFC 4787 §6).
    pub hairpinning: bool,
    /// A binding ends so long after its last refresh (RFC 4787 §4.3: not less than 2 minutes; real ones take 30 s).
    pub binding_timeout: Duration,
    /// Whether an inbound datagram refreshes a binding too; an outbound one always does (RFC 4787 §4.3).
    pub inbound_refresh: bool,
    /// False for a firewall: addresses stay as they are.
    pub translates: bool,
}

impl NatSpec {
    /// A router with these behaviours, otherwise like most homes: ports preserved, no hairpinning, 120 s.
    pub const fn new(mapping: Behavior, filtering: Behavior) -> Self {
        Self {
            mapping,
            filtering,
            ports: PortAssignment::Preserving,
            hairpinning: false,
            binding_timeout: Duration::from_secs(120),
            inbound_refresh: true,
            translates: true,
        }
    }

    /// The usual home router: one mapping for all, and only who was sent to may answer.
    pub const fn port_restricted() -> Self {
        Self::new(Behavior::EndpointIndependent, Behavior::AddressAndPortDependent)
    }

    /// A router with another random port for each remote endpoint: nothing to punch without prediction.
    pub const fn fully_dependent() -> Self {
        let mut spec = Self::new(Behavior::AddressAndPortDependent, Behavior::AddressAndPortDependent);
        spec.ports = PortAssignment::Random;
        spec
    }

    /// A stateful firewall.
    pub const fn firewall() -> Self {
        let mut spec = Self::port_restricted();
        spec.translates = false;
        spec
    }

    /// The same with hairpinning.
    pub const fn hairpinning(mut self) -> Self {
        self.hairpinning = true;
        self
    }

    /// The same with another binding time-out.
    pub const fn binding_timeout(mut self, timeout: Duration) -> Self {
        self.binding_timeout = timeout;
        self
    }
}

#[derive(Clone, Debug)]
struct Binding {
    external: SocketAddr,
    refreshed: Instant,
    /// Remote endpoints sent to, and when last.
    contacts: BTreeMap<SocketAddr, Instant>,
}

/// Internal endpoint, and what of the remote one the mapping depends on.
type BindingKey = (SocketAddr, Option<SocketAddr>);

/// Lowest external port handed out: the dynamic range.
const PORT_FIRST: u16 = 20_000;

/// One router's table.
#[derive(Clone, Debug)]
pub struct Nat {
    /// How it behaves.
    pub spec: NatSpec,
    external: IpAddr,
    bindings: BTreeMap<BindingKey, Binding>,
    by_external: BTreeMap<SocketAddr, BindingKey>,
    dice: Dice,
    /// Datagrams that came for no binding, or were filtered.
    pub refused: u64,
    /// Bindings that ran out.
    pub expired: u64,
}

impl Nat {
    /// A router with this external address. A firewall does not use it.
    pub fn new(spec: NatSpec, external: IpAddr, dice: Dice) -> Self {
        Self { spec, external, bindings: BTreeMap::new(), by_external: BTreeMap::new(), dice, refused: 0, expired: 0 }
    }

    /// The external address.
    pub fn external(&self) -> IpAddr {
        self.external
    }

    /// How many bindings are live.
    pub fn bindings(&self, now: Instant) -> usize {
        self.bindings.values().filter(|b| now.since(b.refreshed) < self.spec.binding_timeout).count()
    }

    /// A datagram leaves from `src` to `dst`: the source it has outside. Makes or refreshes a binding.
    pub fn outbound(&mut self, now: Instant, src: SocketAddr, dst: SocketAddr) -> SocketAddr {
        self.expire(now);
        let key = (src, self.spec.mapping.key(dst));
        if !self.bindings.contains_key(&key) {
            let external = self.assign(src);
            self.by_external.insert(external, key);
            self.bindings.insert(key, Binding { external, refreshed: now, contacts: BTreeMap::new() });
        }
        let binding = self.bindings.get_mut(&key).expect("just made");
        binding.refreshed = now;
        binding.contacts.insert(dst, now);
        binding.external
    }

    /// A datagram arrives from `src` for the external `dst`: the internal destination, or nothing if it is filtered.
    pub fn inbound(&mut self, now: Instant, src: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        self.expire(now);
        let spec = self.spec;
        let found = self.by_external.get(&dst).copied().and_then(|key| {
            let binding = self.bindings.get_mut(&key)?;
            let wanted = spec.filtering.key(src);
            let fresh = |at: &Instant| now.since(*at) < spec.binding_timeout;
            let contact = binding.contacts.iter().find(|(to, at)| spec.filtering.key(**to) == wanted && fresh(at));
            let contact = *contact?.0;
            if spec.inbound_refresh {
                binding.refreshed = now;
                binding.contacts.insert(contact, now);
            }
            Some(key.0)
        });
        self.refused += u64::from(found.is_none());
        found
    }

    /// Power off and on: all bindings lost, and perhaps another external address.
    pub fn reboot(&mut self, external: Option<IpAddr>) {
        self.bindings.clear();
        self.by_external.clear();
        self.external = external.unwrap_or(self.external);
    }

    fn assign(&mut self, src: SocketAddr) -> SocketAddr {
        if !self.spec.translates {
            return src;
        }
        let preserved = SocketAddr::new(self.external, src.port());
        if self.spec.ports == PortAssignment::Preserving && !self.by_external.contains_key(&preserved) {
            return preserved;
        }
        loop {
            let port = PORT_FIRST + self.dice.below(u64::from(u16::MAX - PORT_FIRST) + 1) as u16;
            let external = SocketAddr::new(self.external, port);
            if !self.by_external.contains_key(&external) {
                return external;
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let timeout = self.spec.binding_timeout;
        let by_external = &mut self.by_external;
        let before = self.bindings.len();
        self.bindings.retain(|_, binding| {
            let live = now.since(binding.refreshed) < timeout;
            if !live {
                by_external.remove(&binding.external);
            }
            live
        });
        self.expired += (before - self.bindings.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: &str = "60.0.0.1";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn nat(spec: NatSpec) -> Nat {
        Nat::new(spec, ROUTER.parse().unwrap(), Dice::new(1, "nat test"))
    }

    const IN: &str = "192.168.1.2:7000";
    const X1: &str = "20.0.0.1:1";
    const X2: &str = "20.0.0.1:2";
    const Y1: &str = "20.0.0.2:1";

    #[test]
    fn mapping_depends_on_what_it_says() {
        for (mapping, same_address, other_address) in [
            (Behavior::EndpointIndependent, true, true),
            (Behavior::AddressDependent, true, false),
            (Behavior::AddressAndPortDependent, false, false),
        ] {
            let mut nat = nat(NatSpec::new(mapping, Behavior::EndpointIndependent));
            let first = nat.outbound(at(0), addr(IN), addr(X1));
            assert_eq!(first, addr("60.0.0.1:7000"), "the port is preserved");
            assert_eq!(nat.outbound(at(0), addr(IN), addr(X2)) == first, same_address, "{mapping:?}");
            assert_eq!(nat.outbound(at(0), addr(IN), addr(Y1)) == first, other_address, "{mapping:?}");
            assert_eq!(nat.outbound(at(0), addr(IN), addr(X1)), first);
        }
    }

    #[test]
    fn filtering_depends_on_what_it_says() {
        for (filtering, other_port, other_address) in [
            (Behavior::EndpointIndependent, true, true),
            (Behavior::AddressDependent, true, false),
            (Behavior::AddressAndPortDependent, false, false),
        ] {
            let mut nat = nat(NatSpec::new(Behavior::EndpointIndependent, filtering));
            let external = nat.outbound(at(0), addr(IN), addr(X1));
            assert_eq!(nat.inbound(at(0), addr(X1), external), Some(addr(IN)));
            assert_eq!(nat.inbound(at(0), addr(X2), external).is_some(), other_port, "{filtering:?}");
            assert_eq!(nat.inbound(at(0), addr(Y1), external).is_some(), other_address, "{filtering:?}");
        }
    }

    #[test]
    fn two_hosts_do_not_share_a_port() {
        let mut nat = nat(NatSpec::port_restricted());
        let a = nat.outbound(at(0), addr("192.168.1.2:7000"), addr(X1));
        let b = nat.outbound(at(0), addr("192.168.1.3:7000"), addr(X1));
        assert_ne!(a, b);
        assert_eq!(nat.inbound(at(0), addr(X1), b), Some(addr("192.168.1.3:7000")));
    }

    #[test]
    fn a_binding_ends_after_its_timeout_unless_refreshed() {
        let spec = NatSpec::port_restricted().binding_timeout(Duration::from_secs(30));
        let mut nat = nat(spec);
        let external = nat.outbound(at(0), addr(IN), addr(X1));
        assert!(nat.inbound(at(29), addr(X1), external).is_some(), "and this refreshes it");
        assert!(nat.inbound(at(58), addr(X1), external).is_some());
        assert!(nat.inbound(at(88), addr(X1), external).is_none());
        assert_eq!((nat.bindings(at(88)), nat.expired, nat.refused), (0, 1, 1));
    }

    #[test]
    fn inbound_refresh_can_be_off() {
        let mut spec = NatSpec::port_restricted().binding_timeout(Duration::from_secs(30));
        spec.inbound_refresh = false;
        let mut nat = nat(spec);
        let external = nat.outbound(at(0), addr(IN), addr(X1));
        assert!(nat.inbound(at(29), addr(X1), external).is_some());
        assert!(nat.inbound(at(30), addr(X1), external).is_none());
        assert_eq!(nat.outbound(at(31), addr(IN), addr(X1)), external, "a new binding, the preserved port again");
        assert!(nat.inbound(at(60), addr(X1), external).is_some());
    }

    #[test]
    fn a_permission_ages_by_itself() {
        let mut nat = nat(NatSpec::port_restricted().binding_timeout(Duration::from_secs(30)));
        let external = nat.outbound(at(0), addr(IN), addr(X1));
        nat.outbound(at(20), addr(IN), addr(Y1));
        assert!(nat.inbound(at(40), addr(Y1), external).is_some());
        assert!(nat.inbound(at(40), addr(X1), external).is_none(), "X1 was sent to 40 s ago");
    }

    #[test]
    fn a_reboot_forgets_everything() {
        let mut nat = nat(NatSpec::port_restricted());
        let external = nat.outbound(at(0), addr(IN), addr(X1));
        nat.reboot(Some("60.0.0.9".parse().unwrap()));
        assert!(nat.inbound(at(1), addr(X1), external).is_none());
        assert_eq!(nat.outbound(at(1), addr(IN), addr(X1)), addr("60.0.0.9:7000"));
    }

    #[test]
    fn a_firewall_translates_nothing() {
        let mut nat = nat(NatSpec::firewall());
        let inside = addr("[2001:db8::1]:7000");
        let outside = addr("[2001:db8:1::1]:1");
        assert_eq!(nat.inbound(at(0), outside, inside), None);
        assert_eq!(nat.outbound(at(0), inside, outside), inside);
        assert_eq!(nat.inbound(at(0), outside, inside), Some(inside));
    }
}
