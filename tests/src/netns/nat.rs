//! How a router of the laboratory translates, in the words of RFC 4787, and the nftables rules that make it so.
//!
//! Linux by itself maps endpoint-independently only by keeping the port where it is free, and always filters by address
//! and port. The other kinds are built from maps that the packets fill: `inbound` remembers which inner endpoint stands
//! behind an outer port, and `asked` whom that outer port has written to. What comes unasked is sent on (by destination
//! NAT) when the filtering says so, and is dropped otherwise.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many ports a mapping has that counts upwards or hashes.
const PORTS: u16 = 1_024;
/// The first of them.
const PORT_FIRST: u16 = 40_000;
/// Linux's own lifetime of a UDP binding that has seen traffic both ways.
const LIFETIME: Duration = Duration::from_secs(120);

/// What a router does to what passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nat {
    /// How it picks the outer port.
    pub mapping: Mapping,
    /// Whose packets come in.
    pub filtering: Filtering,
    /// How many public addresses it has. With more than one each flow gets any of them ("arbitrary" IP address
    /// pooling), save where the mapping is endpoint-independent with a port of its own choice.
    pub addresses: u8,
    /// Whether its LANs reach its own outer address: the source is then translated as on the way out, and everybody
    /// may come in.
    pub hairpin: bool,
    /// Whether UDP passes.
    pub udp: bool,
    /// Whether its LANs have IPv6 too, untranslated, behind a firewall that lets in only answers.
    pub ipv6: bool,
    /// How long it keeps a UDP binding that has seen one direction, and one that has seen both. None: Linux's own 30
    /// and 120 s.
    pub udp_timeout: Option<(Duration, Duration)>,
}

/// How a router picks the outer port of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// The inner one where it is free: endpoint-independent for whoever does not share a port.
    PortPreserving,
    /// Another one than the inner port, the same for all destinations: endpoint-independent.
    EndpointIndependent,
    /// Another random one for each destination: address- and port-dependent.
    Random,
    /// The same, but within a block of so many ports: what a carrier gives each of its customers.
    RandomIn {
        /// The first port of the block.
        first: u16,
        /// How many ports it has.
        width: u16,
    },
    /// The next one for each destination: address- and port-dependent, and predictable.
    Sequential,
}

/// Whose packets come in at an outer port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filtering {
    /// Everybody's, once a flow has opened the port.
    EndpointIndependent,
    /// Those of addresses that the port has written to.
    AddressDependent,
    /// Those of addresses and ports that the port has written to.
    AddressAndPortDependent,
}

impl Nat {
    /// Port-preserving mapping; filtering is address- and port-dependent as with every Linux router.
    pub const EASY: Self = Self {
        mapping: Mapping::PortPreserving,
        filtering: Filtering::AddressAndPortDependent,
        addresses: 1,
        hairpin: false,
        udp: true,
        ipv6: false,
        udp_timeout: None,
    };
    /// Endpoint-independent mapping to another port.
    pub const MOVED: Self = Self { mapping: Mapping::EndpointIndependent, ..Self::EASY };
    /// Endpoint-independent mapping and filtering.
    pub const OPEN: Self = Self { filtering: Filtering::EndpointIndependent, ..Self::EASY };
    /// Endpoint-independent mapping, address-dependent filtering.
    pub const ADDRESS: Self = Self { filtering: Filtering::AddressDependent, ..Self::EASY };
    /// A random port for each destination: no two such routers can be punched through.
    pub const HARD: Self = Self { mapping: Mapping::Random, ..Self::EASY };
    /// A random port of a block of 512 for each destination.
    pub const BLOCK: Self = Self { mapping: Mapping::RandomIn { first: 20_480, width: 512 }, ..Self::EASY };
    /// The next port for each destination.
    pub const SEQUENTIAL: Self = Self { mapping: Mapping::Sequential, ..Self::EASY };
    /// Four public addresses, any of them for each flow; the port is kept.
    pub const POOLED: Self = Self { addresses: 4, ..Self::EASY };
    /// TCP only.
    pub const NO_UDP: Self = Self { udp: false, ..Self::EASY };

    /// The same with bindings that live so long, whether answered or not.
    #[must_use]
    pub const fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { udp_timeout: Some((lifetime, lifetime)), ..self }
    }

    /// The same, reaching its own outer address from inside.
    #[must_use]
    pub const fn with_hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    /// The same, with IPv6 behind a firewall.
    #[must_use]
    pub const fn with_ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// The nftables script that makes a router translate like this, towards the interface `wan` with these addresses
    /// of its own. It replaces what an earlier one did, with all it has learned.
    pub(super) fn rules(&self, outer: &[Ipv4Addr]) -> String {
        let lifetime = self.udp_timeout.map_or(LIFETIME, |(_, both_ways)| both_ways).as_secs();
        let memory = format!("flags dynamic, timeout; timeout {lifetime}s; size 65535");
        // What leaves, and what turns round in the router: that was sent to the outer address from inside.
        let out = "oifname \"wan\"";
        let round = "iifname != \"wan\" oifname != \"wan\" ct status dnat";
        let mut rules = String::from("add table ip nat\ndelete table ip nat\ntable ip nat {\n");
        let mut add = |line: &str| {
            let _ = writeln!(rules, "  {line}");
        };
        // The kernel's numbers cannot serve as ports directly (they are in host byte order), but as keys of a map.
        let ports: Vec<String> =
            (0..PORTS).map(|i| format!("{i} : {} . {}", outer[usize::from(i) % outer.len()], PORT_FIRST + i)).collect();
        let ports = format!("map {{ {} }}", ports.join(", "));
        add("chain post { type nat hook postrouting priority 100;");
        for (condition, hairpin) in [(out, false), (round, true)] {
            if !hairpin || self.hairpin {
                add(&format!("{condition} meta l4proto udp {}", self.translate(outer, &ports, hairpin)));
            }
        }
        add(&format!("{out} masquerade\n}}"));
        // After translation: the packet's source is the outer one, conntrack still knows the inner one.
        add(&format!(
            "map inbound {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; {memory}; }}\n\
             set asked {{ type ipv4_addr . ipv4_addr . inet_service; {memory}; }}\n\
             chain learn {{ type filter hook postrouting priority 101;\n\
             {out} meta l4proto udp ct direction original \
             update @inbound {{ ip saddr . udp sport : ct original ip saddr . ct original proto-src }}\n\
             {out} meta l4proto udp ct direction reply \
             update @inbound {{ ip saddr . udp sport : ct reply ip saddr . ct reply proto-src }}\n\
             {out} meta l4proto udp update @asked {{ ip daddr . ip saddr . udp sport }}\n}}"
        ));
        add("chain pre { type nat hook prerouting priority -100;");
        let send_on = "dnat ip to ip daddr . udp dport map @inbound";
        match self.filtering {
            Filtering::EndpointIndependent => add(&format!("iifname \"wan\" meta l4proto udp {send_on}")),
            Filtering::AddressDependent => {
                add(&format!("iifname \"wan\" meta l4proto udp ip saddr . ip daddr . udp dport @asked {send_on}"));
            }
            Filtering::AddressAndPortDependent => {}
        }
        if self.hairpin {
            add(&format!("iifname != \"wan\" meta l4proto udp {send_on}"));
        }
        add("}");
        // Unasked packets are dropped before conntrack commits an entry for them; an entry would take the port that
        // the LAN's own packet to that peer, a moment later, needs to keep.
        rules.push_str(
            "}\n\
             add table inet filter\ndelete table inet filter\n\
             table inet filter {\n\
               chain input { type filter hook input priority 0; policy accept;\n\
                 meta l4proto ipv6-icmp accept\n\
                 iifname \"wan\" ct state established,related accept\n\
                 iifname \"wan\" drop\n\
               }\n\
               chain forward { type filter hook forward priority 0; policy drop;\n\
                 ct state established,related accept\n\
                 iifname != \"wan\" oifname \"wan\" accept\n\
                 ct status dnat accept\n\
               }\n\
             }\n",
        );
        rules
    }

    /// What is done to the source of a UDP packet. A packet that turns round leaves towards the LAN, where
    /// "masquerade" would pick the router's inner address.
    fn translate(&self, outer: &[Ipv4Addr], ports: &str, hairpin: bool) -> String {
        let to = if outer.len() > 1 {
            let pool: Vec<String> = outer.iter().enumerate().map(|(i, a)| format!("{i} : {a}")).collect();
            format!("snat to numgen random mod {} map {{ {} }}", pool.len(), pool.join(", "))
        } else if hairpin {
            format!("snat to {}", outer[0])
        } else {
            "masquerade".to_owned()
        };
        match self.mapping {
            Mapping::PortPreserving => to,
            // Two inner endpoints share an outer port with a chance of one in 1 024. The seed is fixed, since rules
            // for leaving and for turning round must agree.
            Mapping::EndpointIndependent => {
                format!("snat ip to jhash ip saddr . udp sport mod {PORTS} seed 0x68616e64 {ports}")
            }
            Mapping::Random => format!("{to} fully-random"),
            Mapping::RandomIn { first, width } => {
                format!("snat to {}:{first}-{} fully-random", outer[0], first + (width - 1))
            }
            Mapping::Sequential => format!("snat ip to numgen inc mod {PORTS} {ports}"),
        }
    }
}
