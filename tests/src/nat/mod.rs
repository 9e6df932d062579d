//! Routers that translate addresses, in the terms of RFC 4787.
//!
//! A [`Nat`] is handed one datagram's addresses at a time: [`Nat::outbound`] gives the external source for a datagram
//! that leaves, [`Nat::inbound`] the internal destination for one that arrives, or nothing when it is dropped. How it
//! behaves is its [`NatSpec`]: mapping, filtering, port assignment, pooling of several external addresses. A binding
//! lives until [`NatSpec::binding_timeout`] after its last refresh; [`Nat::reboot`] forgets all of them.
//!
//! A plain firewall (the usual guard of IPv6) is a `Nat` that translates nothing. Hairpinning and what happens with
//! several routers in a row are the [`wire`](crate::wire)'s part: it hands a datagram from one to the next.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use handfast_core::Instant;

use crate::random::Dice;

mod few;
mod ports;
mod spec;
#[cfg(test)]
mod tests;

pub use few::Few;
use ports::Allocator;
pub use ports::{PORT_FIRST, PORTS};
pub use spec::{Behavior, FilterScope, HairpinSource, NatSpec, Pooling, PortAssignment};

/// Bindings that ran out are swept up so often; until then they are only not used.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Binding {
    external: SocketAddr,
    refreshed: Instant,
}

/// Internal endpoint, and what of the remote one the mapping depends on.
type BindingKey = (SocketAddr, Option<SocketAddr>);

/// Who may answer, by what the filter looks at, and when it was last sent to.
type Contacts = Few<Option<SocketAddr>, Instant>;

/// One router's table.
#[derive(Clone, Debug)]
pub struct Nat {
    /// How it behaves.
    pub spec: NatSpec,
    pool: Allocator,
    bindings: Few<BindingKey, Binding>,
    by_external: Few<SocketAddr, BindingKey>,
    /// By binding, or by internal endpoint alone: see [`FilterScope`].
    contacts: Few<BindingKey, Contacts>,
    swept: Instant,
    /// How often an internal endpoint had to open the way to a remote one: more than once, where it was forgotten
    /// between.
    pub opened: Few<(SocketAddr, SocketAddr), u64>,
    /// Whether that is kept; it grows for ever.
    pub keeps_opened: bool,
    /// Datagrams that came for no binding, or were filtered.
    pub refused: u64,
    /// Bindings that ran out.
    pub expired: u64,
    /// Datagrams that no external port was left for.
    pub exhausted: u64,
}

impl Nat {
    /// A router with this external address. A firewall does not use it.
    pub fn new(spec: NatSpec, external: IpAddr, dice: Dice) -> Self {
        Self::with_pool(spec, vec![external], dice)
    }

    /// A router with several external addresses.
    pub fn with_pool(spec: NatSpec, externals: Vec<IpAddr>, dice: Dice) -> Self {
        Self {
            spec,
            pool: Allocator::new(externals, dice),
            bindings: Few::default(),
            by_external: Few::default(),
            contacts: Few::default(),
            swept: Instant::ZERO,
            opened: Few::default(),
            keeps_opened: true,
            refused: 0,
            expired: 0,
            exhausted: 0,
        }
    }

    /// The external address; the first, where there are several.
    pub fn external(&self) -> IpAddr {
        self.pool.externals()[0]
    }

    /// All external addresses.
    pub fn externals(&self) -> &[IpAddr] {
        self.pool.externals()
    }

    /// How many bindings are live.
    pub fn bindings(&self, now: Instant) -> usize {
        self.bindings.iter().filter(|(_, b)| self.is_fresh(now, b.refreshed)).count()
    }

    /// A datagram leaves from `src` to `dst`: the source it has outside, or nothing if it does not get out. Makes or
    /// refreshes a binding.
    pub fn outbound(&mut self, now: Instant, src: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        if self.spec.blocks_udp {
            self.refused += 1;
            return None;
        }
        self.sweep(now);
        let key = (src, self.spec.mapping.key(dst));
        if self.keeps_opened && !self.is_open(now, key, dst) {
            *self.opened.get_or_default((src, dst)) += 1;
        }
        let external = match self.bindings.get(&key) {
            Some(binding) if self.is_fresh(now, binding.refreshed) => binding.external,
            _ => self.bind(now, key)?,
        };
        self.bindings.insert(key, Binding { external, refreshed: now });
        self.contacts.get_or_default(self.filter_of(key)).insert(self.spec.filtering.key(dst), now);
        Some(external)
    }

    /// A datagram arrives from `src` for the external `dst`: the internal destination, or nothing if it is filtered.
    pub fn inbound(&mut self, now: Instant, src: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        self.sweep(now);
        let internal = self.admit(now, src, dst);
        self.refused += u64::from(internal.is_none());
        internal
    }

    /// Power off and on: all bindings lost, and perhaps another external address.
    pub fn reboot(&mut self, external: Option<IpAddr>) {
        self.bindings.clear();
        self.by_external.clear();
        self.contacts.clear();
        self.pool.reboot(external);
    }

    fn is_fresh(&self, now: Instant, refreshed: Instant) -> bool {
        now.since(refreshed) < self.spec.binding_timeout
    }

    /// Whether a datagram from `dst` would get in through this binding.
    fn is_open(&self, now: Instant, key: BindingKey, dst: SocketAddr) -> bool {
        let contacts = self.contacts.get(&self.filter_of(key));
        let contact = contacts.and_then(|contacts| contacts.get(&self.spec.filtering.key(dst)));
        let binding = self.bindings.get(&key);
        contact.is_some_and(|at| self.is_fresh(now, *at)) && binding.is_some_and(|b| self.is_fresh(now, b.refreshed))
    }

    /// Whose contacts count for a binding.
    fn filter_of(&self, key: BindingKey) -> BindingKey {
        match self.spec.filter_scope {
            FilterScope::Binding => key,
            FilterScope::InternalEndpoint => (key.0, None),
        }
    }

    fn admit(&mut self, now: Instant, src: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        if self.spec.blocks_udp {
            return None;
        }
        let key = *self.by_external.get(&dst)?;
        let binding = *self.bindings.get(&key)?;
        let (filter, wanted) = (self.filter_of(key), self.spec.filtering.key(src));
        let contact = *self.contacts.get(&filter)?.get(&wanted)?;
        if !self.is_fresh(now, binding.refreshed) || !self.is_fresh(now, contact) {
            return None;
        }
        if self.spec.inbound_refresh {
            self.bindings.insert(key, Binding { refreshed: now, ..binding });
            self.contacts.get_or_default(filter).insert(wanted, now);
        }
        Some(key.0)
    }

    /// A new binding, in place of one that ran out if there was one.
    fn bind(&mut self, now: Instant, key: BindingKey) -> Option<SocketAddr> {
        self.forget(key);
        let (by_external, bindings, timeout) = (&self.by_external, &self.bindings, self.spec.binding_timeout);
        let taken = |external: SocketAddr| {
            let holder = by_external.get(&external).and_then(|key| bindings.get(key));
            holder.is_some_and(|b| now.since(b.refreshed) < timeout)
        };
        let Some(external) = self.pool.assign(now, &self.spec, key.0, taken) else {
            self.exhausted += 1;
            return None;
        };
        if let Some(stale) = self.by_external.get(&external).copied() {
            self.forget(stale);
        }
        self.by_external.insert(external, key);
        Some(external)
    }

    fn forget(&mut self, key: BindingKey) {
        let Some(binding) = self.bindings.remove(&key) else { return };
        self.by_external.remove(&binding.external);
        if self.spec.filter_scope == FilterScope::Binding {
            self.contacts.remove(&key);
        }
        self.expired += 1;
    }

    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let timeout = self.spec.binding_timeout;
        let stale = |at: Instant| now.since(at) >= timeout;
        let gone: Vec<BindingKey> =
            self.bindings.iter().filter(|(_, b)| stale(b.refreshed)).map(|(key, _)| *key).collect();
        for key in gone {
            self.forget(key);
        }
        self.contacts.retain(|contacts| {
            contacts.retain(|at| !stale(*at));
            !contacts.is_empty()
        });
    }
}
