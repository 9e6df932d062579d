//! Which external endpoint a new binding gets: the router's choice of address and port.
//!
//! [`Allocator`] is handed the internal endpoint and a look at what is taken, and gives an endpoint, or nothing when
//! there is none left: a subscriber's block can be full (RFC 7422 §2.1 has it dropped).

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use handfast_core::Instant;

use super::spec::{NatSpec, Pooling, PortAssignment};
use crate::random::Dice;

/// Lowest port handed out (RFC 6056 §3.2: the range for dynamic use is 1024 to 65535).
pub const PORT_FIRST: u16 = 1024;
/// How many there are.
pub const PORTS: u32 = 65_536 - PORT_FIRST as u32;
/// Above this, the number of other hosts' bindings is taken as its mean.
const POISSON_MAX: f64 = 50.0;

/// A router's pool of addresses and ports.
#[derive(Clone, Debug)]
pub(super) struct Allocator {
    externals: Vec<IpAddr>,
    dice: Dice,
    /// Which external address each internal one has, where they are paired.
    pairs: BTreeMap<IpAddr, IpAddr>,
    /// The first port of each subscriber's block, by internal and external address.
    blocks: BTreeMap<(IpAddr, IpAddr), u16>,
    /// The port assigned last, counted from [`PORT_FIRST`], and when.
    last: Option<(u32, Instant)>,
}

impl Allocator {
    pub(super) fn new(externals: Vec<IpAddr>, dice: Dice) -> Self {
        assert!(!externals.is_empty(), "a router has an external address");
        Self { externals, dice, pairs: BTreeMap::new(), blocks: BTreeMap::new(), last: None }
    }

    pub(super) fn externals(&self) -> &[IpAddr] {
        &self.externals
    }

    /// Power off and on; the first external address may be another.
    pub(super) fn reboot(&mut self, first: Option<IpAddr>) {
        self.pairs.clear();
        self.blocks.clear();
        self.last = None;
        if let Some(first) = first {
            self.externals[0] = first;
        }
    }

    /// An endpoint that is not `taken`.
    pub(super) fn assign(
        &mut self,
        now: Instant,
        spec: &NatSpec,
        src: SocketAddr,
        taken: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        if !spec.translates {
            return Some(src);
        }
        let ip = self.address_for(spec.pooling, src.ip());
        let free = |port: u16| !taken(SocketAddr::new(ip, port));
        let port = match spec.ports {
            PortAssignment::Preserving if free(src.port()) => Some(src.port()),
            PortAssignment::Preserving | PortAssignment::Random => self.random(PORT_FIRST, PORTS, free),
            PortAssignment::Sequential { delta } => self.next(now, i32::from(delta), spec.background_per_s, free),
            PortAssignment::Block { width } => {
                let first = self.block_for(src.ip(), ip, width);
                self.random(first, u32::from(width), free)
            }
        };
        port.map(|port| SocketAddr::new(ip, port))
    }

    fn address_for(&mut self, pooling: Pooling, internal: IpAddr) -> IpAddr {
        let drawn = self.dice.pick(&self.externals);
        match pooling {
            // With one address there is nothing to keep in mind.
            _ if self.externals.len() == 1 => drawn,
            Pooling::Paired => *self.pairs.entry(internal).or_insert(drawn),
            Pooling::Arbitrary => drawn,
        }
    }

    fn random(&mut self, first: u16, count: u32, free: impl Fn(u16) -> bool) -> Option<u16> {
        let drawn = self.dice.below(u64::from(count)) as u32;
        // From a random place on: as good as random for whoever guesses, and it ends.
        (0..count).map(|n| first + ((drawn + n) % count) as u16).find(|port| free(*port))
    }

    /// RFC 5128 §3.3.2: "many NATs allocate ports in a predictable way", one after the other for all hosts.
    fn next(&mut self, now: Instant, delta: i32, background_per_s: u16, free: impl Fn(u16) -> bool) -> Option<u16> {
        assert_ne!(delta, 0, "a counter that stands still");
        let drawn = self.dice.below(u64::from(PORTS)) as u32;
        let (mut at, since) = self.last.unwrap_or((drawn, now));
        let others = self.poisson(f64::from(background_per_s) * now.since(since).as_secs_f64());
        let step = |at: u32| (i64::from(at) + i64::from(delta)).rem_euclid(i64::from(PORTS)) as u32;
        for _ in 0..others {
            at = step(at);
        }
        for _ in 0..PORTS {
            at = step(at);
            let port = PORT_FIRST + at as u16;
            if free(port) {
                self.last = Some((at, now));
                return Some(port);
            }
        }
        None
    }

    /// Blocks are aligned to their width and no two overlap.
    fn block_for(&mut self, internal: IpAddr, external: IpAddr, width: u16) -> u16 {
        assert!(width > 0);
        let count = PORTS / u32::from(width);
        let drawn = self.dice.below(u64::from(count)) as u32;
        if let Some(first) = self.blocks.get(&(internal, external)) {
            return *first;
        }
        let used = |first: u16| self.blocks.iter().any(|((_, at), taken)| *at == external && *taken == first);
        let first = |n: u32| PORT_FIRST + ((drawn + n) % count * u32::from(width)) as u16;
        // More subscribers than blocks share: an address shared too widely, which happens.
        let first = (0..count).map(first).find(|at| !used(*at)).unwrap_or(first(0));
        self.blocks.insert((internal, external), first);
        first
    }

    /// How many events of this mean happened (Knuth's method).
    fn poisson(&mut self, mean: f64) -> u32 {
        if mean > POISSON_MAX {
            #[expect(clippy::cast_sign_loss, reason = "it is above POISSON_MAX")]
            return mean.round() as u32;
        }
        let (limit, mut product, mut n) = ((-mean).exp(), 1.0, 0);
        loop {
            product *= self.dice.unit();
            if product <= limit {
                return n;
            }
            n += 1;
        }
    }
}
