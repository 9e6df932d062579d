//! The wire: LANs, the routers between them, and what is in flight.
//!
//! A [`Lan`] is a set of addresses that reach each other; [`INTERNET`] is one, and behind each [`Router`] lies
//! another. A datagram travels from LAN to LAN, each hop an entry in one queue ordered by `(deliver_at, seq)`, and
//! [`Wire::pop`] gives the next one that reached a host. Faults strike on the internet only.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use handfast_core::{Ecn, Instant};

use crate::fault::{Chance, Fate, FaultCounts, Faults};
use crate::host::HostId;
pub use crate::members::{Member, Members, Port};
use crate::nat::{HairpinSource, Nat, NatSpec};
use crate::random::Dice;
use crate::site::BUF_LEN;

/// One of the [`Wire`]'s LANs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LanId(pub usize);

/// The LAN that everything public is on.
pub const INTERNET: LanId = LanId(0);

/// One of the [`Wire`]'s routers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RouterId(pub usize);

/// Addresses that reach each other.
#[derive(Clone, Debug, Default)]
pub struct Lan {
    /// Who is where.
    pub members: Members,
    /// The way out.
    pub gateway: Option<RouterId>,
    /// One-way delay of each hop, beside both ends' access.
    pub delay: Duration,
}

impl Lan {
    /// How long a datagram takes from one member to another, if it is not too long. Where its source is no member
    /// (spoofed), it costs no access delay.
    pub(crate) fn carries(&self, from: Option<Member>, to: Member, datagram: &Datagram) -> Option<Duration> {
        let mtu = from.map_or(to.mtu, |m| m.mtu.min(to.mtu));
        let access = from.map_or(Duration::ZERO, |m| m.access);
        (datagram.ip_len() <= mtu).then(|| self.delay + to.access + access)
    }
}

/// A box between two LANs: translation for IPv4, a firewall for IPv6.
#[derive(Clone, Debug)]
pub struct Router {
    /// Its outer side.
    pub outer: LanId,
    /// Its inner side.
    pub inner: LanId,
    /// IPv4.
    pub nat: Nat,
    /// IPv6.
    pub firewall: Nat,
}

/// Where a datagram goes that leaves through a router.
pub(crate) enum Left {
    /// Out, translated.
    Out(Datagram),
    /// In again: it was for the router's own outside.
    Back(Datagram),
    /// Nowhere.
    Lost(fn(&mut FaultCounts) -> &mut u64),
}

impl Router {
    /// A datagram leaves.
    pub(crate) fn leave(&mut self, now: Instant, mut datagram: Datagram) -> Left {
        let sender = datagram.src;
        let table = if datagram.dst.is_ipv6() { &mut self.firewall } else { &mut self.nat };
        let Some(external) = table.outbound(now, sender, datagram.dst) else {
            return Left::Lost(|counts| &mut counts.filtered);
        };
        if datagram.dst.is_ipv6() || !self.nat.externals().contains(&datagram.dst.ip()) {
            datagram.src = external;
            return Left::Out(datagram);
        }
        // RFC 4787 §6: an inner host sends to its own router's outside.
        if !self.nat.spec.hairpinning {
            return Left::Lost(|counts| &mut counts.no_route);
        }
        let Some(internal) = self.nat.inbound(now, external, datagram.dst) else {
            return Left::Lost(|counts| &mut counts.filtered);
        };
        datagram.dst = internal;
        datagram.src = match self.nat.spec.hairpin_source {
            HairpinSource::External => external,
            HairpinSource::Internal => sender,
        };
        Left::Back(datagram)
    }

    /// A datagram arrives from outside; it comes back as it is inside, if it gets in.
    pub(crate) fn enter(&mut self, now: Instant, mut datagram: Datagram) -> Option<Datagram> {
        let table = if datagram.dst.is_ipv4() { &mut self.nat } else { &mut self.firewall };
        datagram.dst = table.inbound(now, datagram.src, datagram.dst)?;
        Some(datagram)
    }
}

/// A bad way from one host to another.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Way {
    /// Loses so many.
    pub loss: Chance,
    /// Takes so much longer.
    pub delay: Duration,
}

/// A UDP datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// As the IP header says; an attacker may lie.
    pub src: SocketAddr,
    /// Where to.
    pub dst: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
    /// ECN bits.
    pub ecn: Option<Ecn>,
    /// Which host really sent it: no node sees this, cuts and partitions do.
    pub origin: HostId,
}

impl Datagram {
    /// Bytes at IP level: the payload, UDP's 8, and 20 or 40.
    pub fn ip_len(&self) -> usize {
        self.bytes.len() + ip_overhead(self.dst)
    }

    /// Whether a kernel hands it over in one buffer with those before it (GRO): for the same socket, from the same
    /// source, of the first one's length or shorter.
    pub(crate) fn follows(&self, train: &[Self]) -> bool {
        let first = &train[0];
        let stride = first.bytes.len();
        (self.src, self.dst, self.ecn, self.origin) == (first.src, first.dst, first.ecn, first.origin)
            && (1..=stride).contains(&self.bytes.len())
            && (train.len() + 1) * stride <= BUF_LEN
    }
}

/// What IP and UDP add to a payload.
pub const fn ip_overhead(addr: SocketAddr) -> usize {
    if addr.is_ipv4() { 28 } else { 48 }
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) lan: LanId,
    pub(crate) port: Port,
    pub(crate) datagram: Datagram,
    /// It has had what [`Wire::ways`] does.
    pub(crate) worn: bool,
}

/// Everything between the hosts.
pub struct Wire {
    /// The LANs; the first is [`INTERNET`].
    pub lans: Vec<Lan>,
    /// The routers.
    pub routers: Vec<Router>,
    /// What goes wrong.
    pub faults: Faults,
    /// What went wrong.
    pub counts: FaultCounts,
    /// One-way cuts: from, to.
    pub cuts: BTreeSet<(HostId, HostId)>,
    /// What is bad about the way from one host to another, relays' ways apart.
    pub ways: BTreeMap<(HostId, HostId), Way>,
    /// Partition: hosts in different groups do not reach each other. A host not named is in group 0.
    pub groups: BTreeMap<HostId, u8>,
    /// From which group to which datagrams get all the same: a partition one way.
    pub passable: BTreeSet<(u8, u8)>,
    queue: BTreeMap<(Instant, u64), InFlight>,
    seq: u64,
    dice: Dice,
}

impl Wire {
    /// An empty internet.
    pub fn new(seed: u64) -> Self {
        Self {
            lans: vec![Lan::default()],
            routers: Vec::new(),
            faults: Faults::none(),
            counts: FaultCounts::default(),
            cuts: BTreeSet::new(),
            ways: BTreeMap::new(),
            groups: BTreeMap::new(),
            passable: BTreeSet::new(),
            queue: BTreeMap::new(),
            seq: 0,
            dice: Dice::new(seed, "wire"),
        }
    }

    /// Adds a router whose outer side is `outer`, and the LAN behind it.
    pub fn add_router(
        &mut self,
        seed: u64,
        outer: LanId,
        spec: NatSpec,
        external: IpAddr,
        access: Duration,
    ) -> RouterId {
        self.add_router_with_pool(seed, outer, spec, &[external], access)
    }

    /// The same with several external addresses.
    pub fn add_router_with_pool(
        &mut self,
        seed: u64,
        outer: LanId,
        spec: NatSpec,
        externals: &[IpAddr],
        access: Duration,
    ) -> RouterId {
        let id = RouterId(self.routers.len());
        let inner = LanId(self.lans.len());
        self.lans.push(Lan { gateway: Some(id), delay: Duration::from_micros(100), ..Lan::default() });
        for external in externals {
            self.attach(outer, *external, Port::Router(id), access);
        }
        let mut firewall = NatSpec::firewall();
        firewall.blocks_udp = spec.blocks_udp;
        self.routers.push(Router {
            outer,
            inner,
            nat: Nat::with_pool(spec, externals.to_vec(), Dice::new(seed, &format!("nat {}", id.0))),
            firewall: Nat::new(firewall, externals[0], Dice::new(seed, &format!("firewall {}", id.0))),
        });
        id
    }

    /// Puts somebody at an address.
    pub fn attach(&mut self, lan: LanId, ip: IpAddr, port: Port, access: Duration) {
        let before = self.lans[lan.0].members.insert(ip, Member { port, access, mtu: 1500 });
        assert!(before.is_none(), "{ip} is taken");
    }

    /// Takes an address away.
    pub fn detach(&mut self, lan: LanId, ip: IpAddr) {
        self.lans[lan.0].members.remove(ip);
    }

    /// Restarts a router: all bindings lost, and perhaps another external address.
    pub fn reboot(&mut self, id: RouterId, external: Option<IpAddr>) {
        let router = &mut self.routers[id.0];
        if let Some(new) = external {
            let members = &mut self.lans[router.outer.0].members;
            let member = members.remove(router.nat.external()).expect("a router is attached");
            assert!(members.insert(new, member).is_none(), "{new} is taken");
        }
        router.nat.reboot(external);
        router.firewall.reboot(None);
    }

    /// Sends a datagram into a LAN.
    pub fn send(&mut self, now: Instant, lan: LanId, datagram: Datagram) {
        let here = &self.lans[lan.0];
        if let Some(to) = here.members.get(datagram.dst.ip()) {
            return self.hop(now, lan, to, datagram);
        }
        let Some(id) = here.gateway else {
            self.counts.no_route += 1;
            return;
        };
        self.leave(now, id, datagram);
    }

    /// A datagram leaves through a router.
    fn leave(&mut self, now: Instant, id: RouterId, datagram: Datagram) {
        let router = &mut self.routers[id.0];
        let (inner, outer) = (router.inner, router.outer);
        match router.leave(now, datagram) {
            Left::Out(datagram) => self.send(now, outer, datagram),
            Left::Back(datagram) => self.send_inside(now, inner, datagram),
            Left::Lost(count) => *count(&mut self.counts) += 1,
        }
    }

    /// The last hop to an inner host, which has to be there: never out again.
    fn send_inside(&mut self, now: Instant, lan: LanId, datagram: Datagram) {
        match self.lans[lan.0].members.get(datagram.dst.ip()) {
            Some(to) => self.hop(now, lan, to, datagram),
            None => self.counts.no_route += 1,
        }
    }

    fn hop(&mut self, now: Instant, lan: LanId, to: Member, datagram: Datagram) {
        let from = self.lans[lan.0].members.get(datagram.src.ip());
        let Some(delay) = self.lans[lan.0].carries(from, to, &datagram) else {
            self.counts.too_long += 1;
            return;
        };
        if lan != INTERNET {
            return self.push(now + delay, lan, to.port, datagram);
        }
        let Datagram { src, dst, bytes, ecn, origin } = datagram;
        let sender = from.map(|m| m.port);
        let fate = Fate::draw(&self.faults, &mut self.dice, &mut self.counts, bytes);
        for copy in fate.copies {
            let at = now + delay + copy.delay;
            let bytes = copy.bytes;
            if !copy.reflected {
                self.push(at, lan, to.port, Datagram { src, dst, bytes, ecn, origin });
            } else if let Some(port) = sender {
                self.push(at, lan, port, Datagram { src: dst, dst: src, bytes, ecn, origin });
            }
        }
    }

    fn push(&mut self, at: Instant, lan: LanId, port: Port, datagram: Datagram) {
        self.push_hop(at, InFlight { lan, port, datagram, worn: false });
    }

    /// When the next hop ends.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many datagrams are in flight.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Takes the next hop that ends by `last`, whoever is there.
    pub(crate) fn pop_hop(&mut self, last: Instant) -> Option<(Instant, InFlight)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= last)?;
        let ((at, _), hop) = entry.remove_entry();
        Some((at, hop))
    }

    /// Puts a hop into the queue.
    pub(crate) fn push_hop(&mut self, at: Instant, hop: InFlight) {
        self.seq += 1;
        self.queue.insert((at, self.seq), hop);
    }

    /// Takes the next datagram that reaches a host by `now`; hops that end at a router are carried on.
    pub fn pop(&mut self, now: Instant) -> Option<(HostId, Datagram)> {
        while let Some((at, InFlight { lan, port, datagram, worn })) = self.pop_hop(now) {
            match port {
                Port::Host(host) => {
                    if self.is_cut(datagram.origin, host) {
                        self.counts.cut += 1;
                        continue;
                    }
                    let way = self.ways.get(&(datagram.origin, host)).copied().filter(|_| !worn);
                    if let Some(Way { loss, delay }) = way {
                        if loss.comes_true(&mut self.dice) {
                            self.counts.lost += 1;
                            continue;
                        }
                        self.push_hop(at + delay, InFlight { lan, port, datagram, worn: true });
                        continue;
                    }
                    return Some((host, datagram));
                }
                Port::Router(id) => {
                    let inner = self.routers[id.0].inner;
                    if self.behind(inner).is_some_and(|host| self.is_cut(datagram.origin, host)) {
                        self.counts.cut += 1;
                        continue;
                    }
                    let router = &mut self.routers[id.0];
                    debug_assert_eq!(router.outer, lan);
                    match router.enter(at, datagram) {
                        Some(datagram) => self.send_inside(at, inner, datagram),
                        None => self.counts.filtered += 1,
                    }
                }
            }
        }
        None
    }

    /// Takes the next datagram too if it can be received in one buffer behind those of this train.
    pub(crate) fn pop_like(&mut self, now: Instant, host: HostId, train: &[Datagram]) -> Option<Datagram> {
        let (&(at, _), next) = self.queue.first_key_value()?;
        let is_worn = next.worn || !self.ways.contains_key(&(next.datagram.origin, host));
        let fits = at <= now && next.port == Port::Host(host) && is_worn && next.datagram.follows(train);
        fits.then(|| self.queue.pop_first().expect("looked").1.datagram)
    }

    /// The host behind a router, where it is only one: what is cut from it does not reach the router.
    pub(crate) fn behind(&self, inner: LanId) -> Option<HostId> {
        match self.lans[inner.0].members.only()?.port {
            Port::Host(host) => Some(host),
            Port::Router(_) => None,
        }
    }

    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        let group = |host| self.groups.get(&host).copied().unwrap_or(0);
        let (a, b) = (group(from), group(to));
        self.cuts.contains(&(from, to)) || (a != b && !self.passable.contains(&(a, b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn datagram(src: &str, dst: &str, bytes: &[u8]) -> Datagram {
        Datagram { src: addr(src), dst: addr(dst), bytes: bytes.to_vec(), ecn: None, origin: A }
    }

    /// A public host at 20.0.0.1, 10 ms away, and one at 192.168.0.2 behind a port-restricted router at 60.0.0.1.
    fn wire() -> Wire {
        let mut wire = Wire::new(1);
        let ms10 = Duration::from_millis(10);
        wire.attach(INTERNET, "20.0.0.1".parse().unwrap(), Port::Host(B), ms10);
        let external = "60.0.0.1".parse().unwrap();
        let router = wire.add_router(1, INTERNET, NatSpec::port_restricted(), external, ms10);
        let inner = wire.routers[router.0].inner;
        wire.attach(inner, "192.168.0.2".parse().unwrap(), Port::Host(A), Duration::ZERO);
        wire
    }

    const INNER: LanId = LanId(1);

    fn drain(wire: &mut Wire) -> Vec<(Instant, HostId, Datagram)> {
        let mut out = Vec::new();
        while let Some(at) = wire.next() {
            if let Some((host, datagram)) = wire.pop(at) {
                out.push((at, host, datagram));
            }
        }
        out
    }

    #[test]
    fn out_through_the_router_and_back() {
        let mut wire = wire();
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", b"hi"));
        let got = drain(&mut wire);
        let (at, host, d) = &got[0];
        assert_eq!((at.as_micros(), *host, d.src), (20_000, B, addr("60.0.0.1:7")));
        wire.send(*at, INTERNET, datagram("20.0.0.1:1", "60.0.0.1:7", b"yo"));
        let got = drain(&mut wire);
        assert_eq!((got[0].0.as_micros(), got[0].1, got[0].2.dst), (40_100, A, addr("192.168.0.2:7")));
    }

    #[test]
    fn the_router_stops_strangers() {
        let mut wire = wire();
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", b"hi"));
        drain(&mut wire);
        wire.send(Instant::ZERO, INTERNET, datagram("20.0.0.1:2", "60.0.0.1:7", b"yo"));
        assert!(drain(&mut wire).is_empty());
        assert_eq!(wire.counts.filtered, 1);
    }

    #[test]
    fn order_is_time_then_sequence() {
        let mut wire = wire();
        for n in 0..20u8 {
            wire.send(Instant::ZERO, INTERNET, datagram("60.0.0.1:7", "20.0.0.1:1", &[n]));
        }
        let seen: Vec<u8> = drain(&mut wire).iter().map(|(_, _, d)| d.bytes[0]).collect();
        assert_eq!(seen, (0..20).collect::<Vec<u8>>());
        wire.faults.reorder = Chance::percent(50);
        for n in 0..20u8 {
            wire.send(Instant::ZERO, INTERNET, datagram("60.0.0.1:7", "20.0.0.1:1", &[n]));
        }
        let got = drain(&mut wire);
        assert!(got.windows(2).all(|w| w[0].0 <= w[1].0));
        assert_ne!(got.iter().map(|(_, _, d)| d.bytes[0]).collect::<Vec<_>>(), seen);
    }

    #[test]
    fn cuts_are_one_way_and_partitions_both() {
        let mut wire = wire();
        wire.cuts.insert((A, B));
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", b"hi"));
        assert!(drain(&mut wire).is_empty());
        let mut back = datagram("20.0.0.1:1", "60.0.0.1:7", b"yo");
        back.origin = B;
        wire.send(Instant::ZERO, INTERNET, back.clone());
        assert_eq!(drain(&mut wire).len(), 1);
        wire.groups.insert(B, 1);
        wire.send(Instant::ZERO, INTERNET, back.clone());
        assert!(drain(&mut wire).is_empty());
        assert_eq!(wire.counts.cut, 2);
        wire.passable.insert((1, 0));
        wire.send(Instant::ZERO, INTERNET, back);
        assert_eq!(drain(&mut wire).len(), 1, "a partition may be one way");
    }

    #[test]
    fn a_bad_way_loses_and_delays_what_one_host_sends_another() {
        let mut wire = wire();
        wire.ways.insert((A, B), Way { loss: Chance::percent(30), delay: Duration::from_millis(100) });
        for n in 0..100u8 {
            wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", &[n]));
        }
        let got = drain(&mut wire);
        assert!((50..90).contains(&got.len()), "{}", got.len());
        assert!(got.iter().all(|(at, ..)| at.as_micros() == 120_000));
        let mut back = datagram("20.0.0.1:1", "60.0.0.1:7", b"yo");
        back.origin = B;
        wire.send(Instant::ZERO, INTERNET, back);
        assert_eq!(drain(&mut wire)[0].0.as_micros(), 20_100, "the way back is another");
    }

    #[test]
    fn hairpinning_needs_a_router_that_does_it() {
        for hairpinning in [false, true] {
            let mut wire = wire();
            wire.routers[0].nat.spec.hairpinning = hairpinning;
            wire.routers[0].nat.spec.filtering = crate::nat::Behavior::EndpointIndependent;
            wire.attach(INNER, "192.168.0.3".parse().unwrap(), Port::Host(B), Duration::ZERO);
            wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.9:1", b"make a binding"));
            wire.send(Instant::ZERO, INNER, datagram("192.168.0.3:8", "60.0.0.1:7", b"hi"));
            let got = drain(&mut wire);
            assert_eq!(got.len(), usize::from(hairpinning));
            if hairpinning {
                // RFC 4787 §6 REQ-9: the source is the external one.
                assert_eq!((got[0].1, got[0].2.src), (A, addr("60.0.0.1:8")));
            }
        }
    }

    #[test]
    fn a_hairpin_can_show_the_internal_source() {
        let mut wire = wire();
        wire.routers[0].nat.spec = NatSpec::port_restricted().hairpinning();
        wire.routers[0].nat.spec.hairpin_source = HairpinSource::Internal;
        wire.attach(INNER, "192.168.0.3".parse().unwrap(), Port::Host(B), Duration::ZERO);
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "60.0.0.1:8", b"opens the filter"));
        assert!(drain(&mut wire).is_empty());
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.3:8", "60.0.0.1:7", b"hi"));
        assert_eq!(drain(&mut wire)[0].2.src, addr("192.168.0.3:8"));
    }

    #[test]
    fn each_address_of_a_pool_leads_to_its_router() {
        let mut wire = wire();
        let pool: Vec<IpAddr> = (1..=3).map(|n| IpAddr::from([61, 0, 0, n])).collect();
        let spec = NatSpec::fully_dependent().pool(3, crate::nat::Pooling::Arbitrary);
        let router = wire.add_router_with_pool(1, INTERNET, spec, &pool, Duration::ZERO);
        let inner = wire.routers[router.0].inner;
        wire.attach(inner, "10.0.0.2".parse().unwrap(), Port::Host(HostId(2)), Duration::ZERO);
        let mut seen = BTreeSet::new();
        for port in 1..=20 {
            wire.send(Instant::ZERO, inner, datagram("10.0.0.2:5", &format!("20.0.0.1:{port}"), b"hi"));
            let src = drain(&mut wire)[0].2.src;
            seen.insert(src.ip());
            wire.send(Instant::ZERO, INTERNET, datagram(&format!("20.0.0.1:{port}"), &src.to_string(), b"yo"));
            assert_eq!(drain(&mut wire)[0].2.dst, addr("10.0.0.2:5"));
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn a_router_that_blocks_udp_lets_neither_family_out() {
        let mut wire = wire();
        let spec = NatSpec::udp_blocked();
        let router = wire.add_router(1, INTERNET, spec, "61.0.0.1".parse().unwrap(), Duration::ZERO);
        let inner = wire.routers[router.0].inner;
        wire.attach(INTERNET, "2001:db8::1".parse().unwrap(), Port::Host(B), Duration::ZERO);
        wire.send(Instant::ZERO, inner, datagram("10.0.0.2:5", "20.0.0.1:1", b"hi"));
        wire.send(Instant::ZERO, inner, datagram("[2001:db8:1::1]:5", "[2001:db8::1]:1", b"hi"));
        assert!(drain(&mut wire).is_empty());
        assert_eq!(wire.counts.filtered, 2);
    }

    #[test]
    fn a_long_datagram_vanishes_in_a_narrow_link() {
        let mut wire = wire();
        wire.lans[0].members.narrow(1280);
        for (len, arrives) in [(1280 - 28, 1), (1280 - 27, 0)] {
            wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", &vec![0; len]));
            assert_eq!(drain(&mut wire).len(), arrives);
        }
        assert_eq!(wire.counts.too_long, 1);
    }

    #[test]
    fn two_routers_in_a_row() {
        let mut wire = wire();
        let second =
            wire.add_router(1, INNER, NatSpec::port_restricted(), "192.168.0.9".parse().unwrap(), Duration::ZERO);
        let deep = wire.routers[second.0].inner;
        wire.attach(deep, "10.0.0.2".parse().unwrap(), Port::Host(HostId(2)), Duration::ZERO);
        wire.send(Instant::ZERO, deep, datagram("10.0.0.2:5", "20.0.0.1:1", b"hi"));
        assert_eq!(drain(&mut wire)[0].2.src, addr("60.0.0.1:5"));
        wire.send(Instant::ZERO, INTERNET, datagram("20.0.0.1:1", "60.0.0.1:5", b"yo"));
        let got = drain(&mut wire);
        assert_eq!((got[0].1, got[0].2.dst), (HostId(2), addr("10.0.0.2:5")));
    }

    #[test]
    fn a_reflected_copy_goes_through_the_senders_router() {
        let mut wire = wire();
        wire.faults.reflect = Chance::ALWAYS;
        wire.send(Instant::ZERO, INNER, datagram("192.168.0.2:7", "20.0.0.1:1", b"hi"));
        let got = drain(&mut wire);
        let back = got.iter().find(|(_, host, _)| *host == A).expect("reflected");
        assert_eq!((back.2.src, back.2.dst), (addr("20.0.0.1:1"), addr("192.168.0.2:7")));
    }
}
