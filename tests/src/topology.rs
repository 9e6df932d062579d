//! Who is where: supernodes on the internet, leaves there or behind routers, bystanders.
//!
//! Every public host and router gets an address of its own /24, so that limits per prefix see as many parties as
//! there are. All of this is construction only; what happens then is in [`world`](crate::world).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use handfast_core::{Access, Config, Instant, PeerId, SecretKey, Ticket};

use crate::app::{App, DOWN, XFER};
use crate::host::{Attachment, Host, HostId};
use crate::nat::NatSpec;
use crate::random::{Dice, derive};
use crate::trace::Entry;
use crate::wire::{INTERNET, LanId, Port, RouterId};
use crate::world::World;

/// The port supernodes listen at.
pub const SUPERNODE_PORT: u16 = 4433;
/// One-way delay between a host or router and the middle of the internet: 40 ms there and back between any two.
pub const ACCESS: Duration = Duration::from_millis(10);

/// Where a host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the internet, without a router.
    Public,
    /// Behind a router.
    Behind(RouterId),
    /// Behind a router, with a global IPv6 address behind its firewall beside.
    DualStack(RouterId),
}

impl World {
    /// A world of three supernodes and a leaf behind each of two routers like these, both at home.
    pub fn pair(seed: u64, a: NatSpec, b: NatSpec) -> (Self, HostId, HostId) {
        let mut world = Self::new(seed);
        world.add_supernodes(3);
        let (a, b) = (world.add_leaf_behind(a), world.add_leaf_behind(b));
        world.settle_homes(&[a, b]);
        (world, a, b)
    }

    /// The router that a host is behind.
    pub fn router_of(&self, host: HostId) -> RouterId {
        let lan = self.hosts[host.0].attachments[0].lan;
        self.wire.lans[lan.0].gateway.expect("behind a router")
    }

    /// A supernode on the internet, started, told of the first two supernodes before it.
    pub fn add_supernode(&mut self) -> HostId {
        self.add_supernode_with(|_| {})
    }

    /// The same, with another configuration.
    pub fn add_supernode_with(&mut self, configure: impl FnOnce(&mut Config)) -> HostId {
        let ip = IpAddr::V4(self.next_public(20));
        let known = self.supernodes.iter().take(2).map(|s| self.contact(*s)).collect();
        let configure = |config: &mut Config| {
            allow_all(config);
            configure(config);
        };
        let host = self.add_supernode_down(ip, known, configure);
        self.start(host);
        host
    }

    /// A supernode at this address that will be told of these others; it offers nothing, and is not started yet.
    pub fn add_supernode_down(
        &mut self,
        ip: IpAddr,
        known: Vec<(PeerId, SocketAddr)>,
        configure: impl FnOnce(&mut Config),
    ) -> HostId {
        let mut config = Config::supernode(vec![SocketAddr::new(ip, SUPERNODE_PORT)]);
        configure(&mut config);
        let host = self.add_host(config, SUPERNODE_PORT, known);
        self.place(host, INTERNET, ip);
        self.supernodes.push(host);
        host
    }

    /// So many supernodes.
    pub fn add_supernodes(&mut self, n: usize) -> Vec<HostId> {
        (0..n).map(|_| self.add_supernode()).collect()
    }

    /// A leaf, started, told of the first three supernodes.
    pub fn add_leaf(&mut self, place: Place) -> HostId {
        self.add_leaf_with(place, |_| {})
    }

    /// The same, with another configuration.
    pub fn add_leaf_with(&mut self, place: Place, configure: impl FnOnce(&mut Config)) -> HostId {
        let host = self.add_leaf_down(place, configure);
        self.start(host);
        host
    }

    /// The same, but not started yet.
    pub fn add_leaf_down(&mut self, place: Place, configure: impl FnOnce(&mut Config)) -> HostId {
        let mut config = Config::leaf();
        allow_all(&mut config);
        configure(&mut config);
        let known = self.supernodes.iter().cycle().skip(self.first_contact).take(3.min(self.supernodes.len()));
        let known = known.map(|s| self.contact(*s)).collect();
        // Internal ports differ, as the kernel hands them out.
        let port = 30_000 + (self.hosts.len() % 30_000) as u16;
        let host = self.add_host(config, port, known);
        self.settle(host, place);
        host
    }

    /// A leaf behind a router of its own.
    pub fn add_leaf_behind(&mut self, spec: NatSpec) -> HostId {
        let router = self.add_router(spec);
        self.add_leaf(Place::Behind(router))
    }

    /// A host without a node: a victim, or an attacker. What reaches it is captured.
    pub fn add_bystander(&mut self) -> HostId {
        let ip = IpAddr::V4(self.next_public(90));
        let host = self.add_host(Config::leaf(), 9, Vec::new());
        self.place(host, INTERNET, ip);
        self.hosts[host.0].capture = Some(Vec::new());
        host
    }

    /// A router on the internet.
    pub fn add_router(&mut self, spec: NatSpec) -> RouterId {
        let externals: Vec<IpAddr> = (0..spec.addresses).map(|_| IpAddr::V4(self.next_public(60))).collect();
        let router = self.wire.add_router_with_pool(self.seed, INTERNET, spec, &externals, ACCESS);
        self.wire.routers[router.0].nat.keeps_opened = !self.is_lean;
        router
    }

    /// A router behind another one.
    pub fn add_router_behind(&mut self, outer: RouterId, spec: NatSpec) -> RouterId {
        let lan = self.wire.routers[outer.0].inner;
        let externals: Vec<IpAddr> = (0..spec.addresses).map(|_| self.next_private(lan)).collect();
        self.wire.add_router_with_pool(self.seed, lan, spec, &externals, Duration::ZERO)
    }

    /// Takes a host from where it is to another place. Its node is not told unless [`World::tell_network`] is called.
    pub fn move_host(&mut self, host: HostId, place: Place) {
        self.note(host, "moves");
        for Attachment { lan, ip } in core::mem::take(&mut self.hosts[host.0].attachments) {
            self.wire.detach(lan, ip);
            if ip.is_ipv6() && lan != INTERNET {
                self.wire.detach(INTERNET, ip);
            }
        }
        self.settle(host, place);
    }

    /// A new external address for a router, and all bindings lost.
    pub fn renumber(&mut self, router: RouterId) {
        let external = IpAddr::V4(self.next_public(60));
        self.trace.note(self.now(), Entry::Script, usize::MAX, "router renumbered");
        self.wire.reboot(router, Some(external));
    }

    /// All bindings of a router lost.
    pub fn reboot_router(&mut self, router: RouterId) {
        self.trace.note(self.now(), Entry::Script, usize::MAX, "router rebooted");
        self.wire.reboot(router, None);
    }

    /// How others are told of a supernode.
    pub fn contact(&self, host: HostId) -> (PeerId, SocketAddr) {
        let host = &self.hosts[host.0];
        (host.peer, SocketAddr::new(host.attachments[0].ip, host.port))
    }

    /// A ticket as the node of `host` gives it.
    pub fn ticket(&self, host: HostId) -> Ticket {
        self.node(host).ticket(None)
    }

    /// A host's own address.
    pub fn ip(&self, host: HostId) -> IpAddr {
        self.hosts[host.0].attachments[0].ip
    }

    fn settle(&mut self, host: HostId, place: Place) {
        match place {
            Place::Public => {
                let ip = IpAddr::V4(self.next_public(80));
                self.place(host, INTERNET, ip);
            }
            Place::Behind(router) | Place::DualStack(router) => {
                let inner = self.wire.routers[router.0].inner;
                let ip = self.next_private(inner);
                self.place(host, inner, ip);
                if matches!(place, Place::DualStack(_)) {
                    let ip = IpAddr::V6(self.next_global());
                    self.place(host, inner, ip);
                    self.wire.attach(INTERNET, ip, Port::Router(router), ACCESS);
                }
            }
        }
    }

    fn place(&mut self, host: HostId, lan: LanId, ip: IpAddr) {
        let access = if lan == INTERNET { ACCESS } else { Duration::ZERO };
        self.wire.attach(lan, ip, Port::Host(host), access);
        self.hosts[host.0].attachments.push(Attachment { lan, ip });
    }

    fn add_host(&mut self, config: Config, port: u16, known: Vec<(PeerId, SocketAddr)>) -> HostId {
        let id = HostId(self.hosts.len());
        let key = SecretKey::from_bytes(&derive(self.seed, "identity", id.0 as u64));
        let app = App::new(Dice::new(self.seed, &format!("app {}", id.0)));
        let dice = Dice::new(self.seed, &format!("io {}", id.0));
        let mut host = Host::new(id, key, config, port, app, dice);
        host.known = known;
        host.last_now = Instant::ZERO;
        self.by_peer.insert(host.peer, id);
        self.hosts.push(host);
        id
    }

    /// A fresh public address in a /24 of its own; `first` tells the kinds apart in a trace, as long as 65 536 are
    /// enough. Beyond, it comes from ranges that are nobody's.
    pub(crate) fn next_public(&mut self, first: u8) -> Ipv4Addr {
        self.addresses += 1;
        let [_, beyond, high, low] = self.addresses.to_be_bytes();
        let first = match beyond {
            0 => first,
            1..=26 => 100 + beyond,
            27..=67 => 101 + beyond,
            _ => panic!("{} addresses are enough", self.addresses),
        };
        Ipv4Addr::new(first, high, low, 1)
    }

    fn next_private(&mut self, lan: LanId) -> IpAddr {
        self.addresses += 1;
        Ipv4Addr::new(10, lan.0 as u8, (self.addresses >> 8) as u8, self.addresses as u8).into()
    }

    fn next_global(&mut self) -> Ipv6Addr {
        self.addresses += 1;
        Ipv6Addr::new(0x2001, 0xdb8, self.addresses as u16, 0, 0, 0, 0, 1)
    }
}

fn allow_all(config: &mut Config) {
    for name in [XFER, DOWN] {
        config.services.insert(name.parse().expect("a service name"), Access::Any);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_leaves_behind_routers_have_addresses_of_their_own() {
        let mut world = World::lean(1, 0);
        let mut seen = std::collections::HashSet::new();
        for n in 0..2_000_000 {
            let ip = world.next_public(60);
            assert!(seen.insert(ip), "{ip} comes again");
            assert!(n >= 65_535 || ip.octets()[0] == 60, "{ip} is the {n}th");
            let [first, second, ..] = ip.octets();
            assert!(!ip.is_private() && !ip.is_loopback() && !ip.is_link_local(), "{ip}");
            assert!((first, second & 0xc0) != (100, 64) && first != 198 && first < 224, "{ip} is special (RFC 6890)");
        }
    }
}
