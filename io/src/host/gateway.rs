//! Where the way out of this host's network is: the gateway of the default route, and the own address towards it.
//!
//! There is no portable question for it, and no crate without a runtime that asks well. On Linux the kernel writes its
//! routes to `/proc/net`, which [`ipv4_default`] and [`ipv6_default`] read from text; elsewhere no gateway is known,
//! and only UPnP, which finds routers by itself, is of use. The own address is asked of the kernel everywhere, by
//! connecting a UDP socket, which sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use super::routing_table;

/// An address far away, for the question which own address leads to the internet. Nothing is sent there.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The gateways, with no port (0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gateways {
    v4: Option<SocketAddr>,
    /// Mostly link-local, with its scope.
    v6: Option<SocketAddr>,
}

impl Gateways {
    /// The IPv4 one.
    pub(crate) fn v4(self) -> Option<SocketAddr> {
        self.v4
    }

    /// The IPv6 one: mostly link-local, with its scope.
    pub(crate) fn v6(self) -> Option<SocketAddr> {
        self.v6
    }

    /// These and no others.
    #[cfg(test)]
    pub(crate) fn of(v4: Option<SocketAddr>, v6: Option<SocketAddr>) -> Self {
        Self { v4, v6 }
    }

    /// As they are now.
    pub(crate) fn look() -> Self {
        let v4 = ipv4_default(&routing_table::ipv4()).map(|ip| SocketAddr::new(ip.into(), 0));
        let v6 = ipv6_default(&routing_table::ipv6()).and_then(|(gateway, interface)| {
            let scope = if gateway.is_unicast_link_local() { scope(&interface)? } else { 0 };
            Some(SocketAddrV6::new(gateway, 0, 0, scope).into())
        });
        Self { v4, v6 }
    }
}

/// The own IPv4 address from which packets go to `remote`, or to the internet.
pub(crate) fn own_ipv4(remote: Option<SocketAddr>) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A port of 0 is refused by some systems.
    socket.connect((remote.map_or(FAR, |remote| remote.ip()), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() && !ip.is_loopback() => Some(ip),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The number of an interface.
fn scope(interface: &str) -> Option<u32> {
    if_addrs::get_if_addrs().ok()?.into_iter().find(|found| found.name == interface)?.index
}

/// Routes that are up (1) and lead through a gateway (2); `include/uapi/linux/route.h`.
const UP_GATEWAY: u32 = 3;
/// A route that refuses.
const REJECT: u32 = 0x200;

/// The gateway of the default route with the smallest metric, from `/proc/net/route`: a line of names, then lines of
/// interface, destination, gateway, flags, two counters, metric, mask, ..; addresses are the bytes of the machine's
/// memory, as a number.
fn ipv4_default(text: &str) -> Option<Ipv4Addr> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, destination, gateway, flags, _, _, metric, mask, ..] = words.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        let is_default = destination == "00000000" && mask == "00000000";
        let usable = flags & UP_GATEWAY == UP_GATEWAY && flags & REJECT == 0 && gateway != 0;
        (is_default && usable).then_some(())?;
        Some((metric.parse::<u32>().ok()?, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min().map(|(_, gateway)| gateway)
}

/// The gateway of the default route with the smallest metric, and its interface, from `/proc/net/ipv6_route`: lines of
/// destination, its prefix length, source, its prefix length, next hop, metric, two counters, flags, interface.
fn ipv6_default(text: &str) -> Option<(Ipv6Addr, String)> {
    let routes = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[destination, length, _, _, gateway, metric, _, _, flags, interface] = words.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let is_default = length == "00" && destination.bytes().all(|byte| byte == b'0');
        let usable = flags & UP_GATEWAY == UP_GATEWAY && flags & REJECT == 0 && !gateway.is_unspecified();
        (is_default && usable).then_some(())?;
        Some((u32::from_str_radix(metric, 16).ok()?, gateway, interface.to_owned()))
    });
    routes.min().map(|(_, gateway, interface)| (gateway, interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth0\t0000000A\t0901A8C0\t0003\t0\t0\t1\t000000FF\t0\t0\t0
";

    const ROUTES_V6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000064 00000001 00000000 00450003    wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_ipv4_default_route_with_the_smallest_metric_counts() {
        assert_eq!(ipv4_default(ROUTES), Some(Ipv4Addr::new(192, 168, 1, 1)));
        let without: String = ROUTES.split_inclusive('\n').filter(|line| !line.contains("\t100\t")).collect();
        assert_eq!(ipv4_default(&without), Some(Ipv4Addr::new(192, 168, 0, 1)));
    }

    #[test]
    fn the_ipv6_default_route_with_the_smallest_metric_counts() {
        assert_eq!(ipv6_default(ROUTES_V6), Some(("fe80::2".parse().expect("an address"), "wlan0".to_owned())));
    }

    #[test]
    fn tables_that_make_no_sense_give_nothing() {
        for text in ["", "\n\n", "a b c", "Iface\neth0 00000000", "Iface\nx 00000000 zz 3 0 0 0 00000000"] {
            assert_eq!(ipv4_default(text), None, "{text:?}");
            assert_eq!(ipv6_default(text), None, "{text:?}");
        }
        // Every cut of a good table is read without a panic.
        for cut in 0..ROUTES.len() {
            let _ = ipv4_default(&ROUTES[..cut]);
        }
        for cut in 0..ROUTES_V6.len() {
            let _ = ipv6_default(&ROUTES_V6[..cut]);
        }
    }

    #[test]
    fn looking_never_fails() {
        let gateways = Gateways::look();
        if let Some(gateway) = gateways.v4 {
            let own = own_ipv4(Some(gateway)).expect("an address towards the own gateway");
            assert!(!own.is_loopback());
        }
    }
}
