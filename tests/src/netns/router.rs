//! A router of the laboratory: between the public segment, or the LAN of another router, and LANs of its own.
//!
//! Made by [`Lab::router`](super::Lab::router) and its like. How it translates is a [`Nat`]; what can happen to it
//! while processes run behind it are its methods: it reboots, gets another address, loses its line, begins to drop
//! UDP or a share of all packets.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use super::nat::Nat;
use super::tools::{add_bridge, ip, ip_in, nft_table, run, set_kernel};
use super::{Cable, Host, public_v6};

/// Linux's own lifetimes of a UDP binding: after traffic one way, and both ways.
const LINUX_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(120));
/// How many routers a lab may have on the public segment: their addresses, through all renumberings, share an octet.
pub(super) const ROUTERS_MAX: u8 = 16;
/// How many routers may stand behind a carrier's.
const CUSTOMERS_MAX: u8 = 16;

/// A router between an outer network and LANs of its own.
#[derive(Clone, Debug)]
pub struct Router {
    pub(super) namespace: String,
    nat: Nat,
    index: u8,
    /// The first three octets of its LAN.
    lan: [u8; 3],
    /// The outer network: on the public segment, or a customer of a carrier.
    outer: Outer,
    cable: Cable,
    hosts: u8,
    moves: u8,
    /// Its outer address.
    pub address: Ipv4Addr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outer {
    Segment,
    Carrier { lan: [u8; 3], customer: u8 },
}

/// A way out of a host: see [`Router::second_uplink`].
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    pub(super) device: &'static str,
    pub(super) gateway: Ipv4Addr,
    /// The host's address there.
    pub address: Ipv4Addr,
}

impl Router {
    /// Sets up a router on the public segment; `cable` ends at its interface `wan`.
    pub(super) fn on_segment(namespace: String, cable: Cable, index: u8, carrier: bool, nat: Nat) -> Self {
        assert!(index < ROUTERS_MAX, "more routers than a lab has addresses for");
        let lan = if carrier { [100, 64, index] } else { [192, 168, index] };
        Self::build(namespace, cable, index, lan, Outer::Segment, nat)
    }

    /// Sets up a home router in the LAN of a carrier's.
    pub(super) fn behind(namespace: String, index: u8, carrier: &mut Self, nat: Nat) -> Self {
        assert!(nat.addresses == 1 && !nat.ipv6, "a customer has one address, and IPv4 only");
        assert!(carrier.hosts < CUSTOMERS_MAX, "more customers than a carrier has addresses for");
        let cable = carrier.plug(&namespace, "lan", "wan");
        let outer = Outer::Carrier { lan: carrier.lan, customer: carrier.hosts };
        Self::build(namespace, cable, index, [192, 168, index], outer, nat)
    }

    fn build(namespace: String, cable: Cable, index: u8, lan: [u8; 3], outer: Outer, nat: Nat) -> Self {
        let address = Ipv4Addr::UNSPECIFIED;
        let mut router = Self { namespace, nat, index, lan, outer, cable, hosts: 0, moves: 0, address };
        for (bridge, lan) in [("lan", router.lan), ("guest", router.guest_lan())] {
            add_bridge(&router.namespace, bridge);
            let [a, b, c] = lan;
            ip_in(&router.namespace, &format!("addr add {a}.{b}.{c}.1/24 dev {bridge}"));
        }
        set_kernel(&router.namespace, &[("net/ipv4/ip_forward", "1")]);
        router.take_addresses();
        if nat.ipv6 {
            let parameters = [
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv6/conf/wan/proxy_ndp", "1"),
                // Else an answer for a host behind waits up to 0.8 s.
                ("net/ipv6/neigh/wan/proxy_delay", "0"),
            ];
            set_kernel(&router.namespace, &parameters);
            let wan = public_v6(0x1000 + u16::from(index), 1);
            ip_in(&router.namespace, &format!("addr add {wan}/32 dev wan nodad"));
            ip_in(&router.namespace, &format!("addr add {}/64 dev lan nodad", router.lan_v6(1)));
        }
        router.set_nat(nat);
        router
    }

    /// Translates in this way from now on. Bindings that exist live on, as far as they fit.
    pub fn set_nat(&mut self, nat: Nat) {
        assert!(nat.ipv6 == self.nat.ipv6 && nat.addresses == self.nat.addresses, "addresses are given once");
        self.nat = nat;
        self.load_rules();
        self.set_udp(nat.udp);
        let (one_way, both_ways) = nat.udp_timeout.unwrap_or(LINUX_TIMEOUTS);
        let (one_way, both_ways) = (one_way.as_secs().to_string(), both_ways.as_secs().to_string());
        let timeouts = [
            ("net/netfilter/nf_conntrack_udp_timeout", one_way.as_str()),
            ("net/netfilter/nf_conntrack_udp_timeout_stream", both_ways.as_str()),
        ];
        set_kernel(&self.namespace, &timeouts);
    }

    /// Lets UDP pass, or drops it all; TCP passes either way.
    pub fn set_udp(&self, passes: bool) {
        let drop = "chain forward { type filter hook forward priority -20; meta l4proto udp drop; }";
        nft_table(&self.namespace, "block", if passes { "" } else { drop });
    }

    /// Drops so many of a hundred packets, either way, at random.
    pub fn set_loss(&self, percent: u8) {
        let drop = format!(
            "chain forward {{ type filter hook forward priority -10; numgen random mod 100 < {percent} drop; }}"
        );
        nft_table(&self.namespace, "loss", if percent == 0 { "" } else { &drop });
    }

    /// Forgets all bindings, as a router that was switched off and on. Its address stays.
    pub fn reboot(&self) {
        self.load_rules();
        run(Command::new("ip").args(["netns", "exec", &self.namespace, "conntrack", "-F"]));
    }

    /// Comes back with another outer address, as after a forced reconnect of the line. Bindings are gone too.
    pub fn renumber(&mut self) -> Ipv4Addr {
        self.moves += 1;
        ip_in(&self.namespace, "-4 addr flush dev wan");
        self.take_addresses();
        self.reboot();
        self.address
    }

    /// Unplugs the line, or plugs it in again.
    pub fn set_cable(&self, plugged: bool) {
        self.cable.set(plugged);
    }

    /// Moves `host` here from wherever it was: its address and its way out are new.
    pub fn take(&mut self, host: &mut Host) {
        ip_in(&host.namespace, "link del eth0");
        self.connect(host, "lan");
    }

    /// Gives `host` a second interface, in this router's LAN. Nothing leaves by it until
    /// [`Host::set_default_route`].
    pub fn second_uplink(&mut self, host: &Host) -> Uplink {
        self.plug(&host.namespace, "lan", "eth1");
        let (gateway, address) = (at(self.lan, 1), self.host_address(self.lan));
        ip_in(&host.namespace, &format!("addr add {address}/24 dev eth1"));
        Uplink { device: "eth1", gateway, address }
    }

    /// Plugs `host`, which has no interface yet, into the LAN behind `bridge`.
    pub(super) fn connect(&mut self, host: &mut Host, bridge: &'static str) {
        let lan = if bridge == "guest" { self.guest_lan() } else { self.lan };
        host.cable = self.plug(&host.namespace, bridge, "eth0");
        host.address = self.host_address(lan);
        ip_in(&host.namespace, &format!("addr add {}/24 dev eth0", host.address));
        host.uplink = Some(Uplink { device: "eth0", gateway: at(lan, 1), address: host.address });
        host.address6 = (self.nat.ipv6 && bridge == "lan").then(|| self.lan_v6(1 + u16::from(self.hosts)));
        if let Some(v6) = host.address6 {
            // The segment finds it here, without a route.
            ip_in(&self.namespace, &format!("-6 neigh add proxy {v6} dev wan"));
            ip_in(&host.namespace, &format!("addr add {v6}/64 dev eth0 nodad"));
            host.gateway6 = Some(self.lan_v6(1));
        } else {
            host.gateway6 = None;
        }
        host.restore_routes();
    }

    /// A cable from one of its LANs to a new interface of a namespace.
    fn plug(&mut self, namespace: &str, bridge: &str, device: &str) -> Cable {
        self.hosts += 1;
        let cable = Cable { namespace: self.namespace.clone(), port: format!("h{}", self.hosts) };
        cable.lay(bridge, namespace, device);
        cable
    }

    /// The address of the host that was plugged in last.
    fn host_address(&self, lan: [u8; 3]) -> Ipv4Addr {
        at(lan, 1 + self.hosts)
    }

    fn guest_lan(&self) -> [u8; 3] {
        [192, 168, 100 + self.index]
    }

    fn lan_v6(&self, host: u16) -> Ipv6Addr {
        public_v6(0x2000 + u16::from(self.index), host)
    }

    /// Its outer addresses now; the first is the one it tells.
    fn outer_addresses(&self) -> Vec<Ipv4Addr> {
        match self.outer {
            Outer::Segment => {
                let net = [198, 19, self.index + ROUTERS_MAX * self.moves];
                (1..=self.nat.addresses).map(|host| at(net, host)).collect()
            }
            Outer::Carrier { lan, customer } => vec![at(lan, 1 + customer + CUSTOMERS_MAX * self.moves)],
        }
    }

    /// Takes its outer addresses and, behind a carrier, its way out.
    fn take_addresses(&mut self) {
        let addresses = self.outer_addresses();
        self.address = addresses[0];
        let prefix = if self.outer == Outer::Segment { 15 } else { 24 };
        for address in addresses {
            ip_in(&self.namespace, &format!("addr add {address}/{prefix} dev wan"));
        }
        if let Outer::Carrier { lan, .. } = self.outer {
            ip(&["-n", &self.namespace, "route", "replace", "default", "via", &at(lan, 1).to_string()]);
        }
    }

    fn load_rules(&self) {
        super::tools::nft(&self.namespace, &self.nat.rules(&self.outer_addresses()));
    }
}

fn at([a, b, c]: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, host)
}
