//! Which ports are worth asking a router for: those of own addresses that lead out through one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use handfast_core::Network;
use handfast_core::portmap::{PORT, Wish};

use crate::host::Gateways;

/// Own IPv6 addresses for which the firewall is asked: as many as a node names to its peers.
const V6_MAX: usize = 4;

/// Which ports of which own addresses. `own` says which own address leads to a router.
pub(super) fn wishes(
    network: &Network,
    gateways: Gateways,
    own: impl Fn(Option<SocketAddr>) -> Option<Ipv4Addr>,
) -> Vec<Wish> {
    let port = |gateway: Option<SocketAddr>| {
        gateway.map(|mut gateway| {
            gateway.set_port(PORT);
            gateway
        })
    };
    let (v4, v6) = (port(gateways.v4()), port(gateways.v6()));
    let own_v4 = own(v4);
    let mut wishes = Vec::new();
    for &(socket, bound) in &network.sockets {
        let is_bound_to = |ip: IpAddr| bound.ip().is_unspecified() || bound.ip() == ip;
        let mut add = |ip: IpAddr, gateway| {
            if is_bound_to(ip) {
                wishes.push(Wish { socket, internal: SocketAddr::new(ip, bound.port()), gateway });
            }
        };
        if bound.is_ipv4() {
            if let Some(ip) = own_v4 {
                add(ip.into(), v4);
            }
        } else if v6.is_some() {
            let outside =
                |ip: &&IpAddr| matches!(ip, IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local());
            for ip in network.interfaces.iter().filter(outside).take(V6_MAX) {
                add(*ip, v6);
            }
        }
    }
    wishes
}

#[cfg(test)]
mod tests {
    use handfast_core::SocketId;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn wishes_are_what_leads_out() {
        let gateways = Gateways::of(Some(addr("192.168.1.1:0")), Some(addr("[fe80::1]:0")));
        let own = |_: Option<SocketAddr>| Some(Ipv4Addr::new(192, 168, 1, 2));
        let network = |bound: &[&str]| Network {
            sockets: bound.iter().enumerate().map(|(n, text)| (SocketId(n as u32), addr(text))).collect(),
            interfaces: ["127.0.0.1", "192.168.1.2", "::1", "2001:db8::2", "fe80::2", "10.0.0.9"]
                .map(|ip| ip.parse().expect("an address"))
                .to_vec(),
            ..Network::default()
        };
        let told = |bound: &[&str], gateways, own: &dyn Fn(Option<SocketAddr>) -> Option<Ipv4Addr>| {
            let wishes = wishes(&network(bound), gateways, own);
            wishes.iter().map(|wish| (wish.internal.to_string(), wish.gateway.is_some())).collect::<Vec<_>>()
        };
        let one = |text: &str, gateway| (text.to_owned(), gateway);
        let any = ["0.0.0.0:7", "[::]:8"];
        assert_eq!(told(&any, gateways, &own), [one("192.168.1.2:7", true), one("[2001:db8::2]:8", true)]);
        assert_eq!(told(&["192.168.1.2:7"], gateways, &own), [one("192.168.1.2:7", true)]);
        assert_eq!(told(&["127.0.0.1:7", "10.0.0.9:7", "[::1]:7"], gateways, &own), []);
        assert_eq!(told(&any, Gateways::default(), &own), [one("192.168.1.2:7", false)], "UPnP finds it by itself");
        assert_eq!(told(&any, Gateways::default(), &|_| None), [], "a host without a way out");
    }
}
