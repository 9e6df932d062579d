//! What this host's network looks like, and when it is worth looking again.
//!
//! [`Watch`] is asked by the loop when to look ([`Watch::next_look`]) and looks ([`Watch::look_if_due`]): bound
//! addresses, interfaces and default routes, compared with the last time. On Linux the kernel gives notice of changes
//! ([`Notices`]), and a look follows [`SETTLE`] later, so that what changes together is seen together; notices say no
//! more than "look again". Where there are none (other systems, containers that refuse the socket) the watch looks
//! every [`POLL_EVERY`]. After the machine slept ([`Watch::on_resume`]) the network counts as another one although
//! everything may look the same: routers have forgotten us meanwhile.
//!
//! The core learns a [`Network`]. What it cannot see in addresses (sleep, a default route that moved between
//! interfaces) shows in the epoch. Sockets are never bound anew: those bound to no address in particular go on by
//! themselves, and one that the user bound to an address works again when that address comes back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use handfast_core::{Instant, Network, SocketId};
use mio::{Registry, Token};

use super::notices::Notices;
use super::routing_table;

/// From a notice to the look: an interface that comes up gets its addresses and routes one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// How often to look where no notices come.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// How often to look where they do: a notice may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Remembers what it saw last.
pub(crate) struct Watch {
    notices: Option<Notices>,
    next: Instant,
    last: Option<Network>,
    routes: Vec<String>,
    epoch: u32,
}

impl Watch {
    /// A watch whose first look is due at once. `token` is what notices come under.
    pub(crate) fn new(now: Instant, registry: &Registry, token: Token) -> Self {
        let notices = Notices::open(registry, token)
            .inspect_err(|error| tracing::debug!(%error, "no notices of network changes; looking instead"))
            .ok();
        Self { notices, next: now, last: None, routes: Vec::new(), epoch: 0 }
    }

    /// The kernel says that something changed.
    pub(crate) fn on_notice(&mut self, now: Instant) {
        if self.notices.as_ref().is_some_and(Notices::drain) {
            self.next = self.next.min(now + SETTLE);
        }
    }

    /// The machine slept.
    pub(crate) fn on_resume(&mut self, now: Instant) {
        self.epoch = self.epoch.wrapping_add(1);
        self.next = now;
    }

    /// When the next look is due.
    pub(crate) fn next_look(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time: the network as it is now, if it changed. `sockets` are those bound at start; the first is
    /// the main one.
    pub(crate) fn look_if_due(&mut self, now: Instant, sockets: &[(SocketId, SocketAddr)]) -> Option<Network> {
        if now < self.next {
            return None;
        }
        // Notices that came meanwhile are answered by this look.
        if let Some(notices) = &self.notices {
            notices.drain();
        }
        self.next = now + if self.notices.is_some() { LOOK_EVERY } else { POLL_EVERY };
        self.compare(sockets, interfaces(), default_routes())
    }

    fn compare(
        &mut self,
        sockets: &[(SocketId, SocketAddr)],
        interfaces: Vec<IpAddr>,
        routes: Vec<String>,
    ) -> Option<Network> {
        if self.routes != routes {
            self.routes = routes;
            self.epoch = self.epoch.wrapping_add(1);
        }
        let network = Network { sockets: sockets.to_vec(), interfaces, epoch: self.epoch, ..Network::default() };
        if self.last.as_ref() == Some(&network) {
            return None;
        }
        self.last = Some(network.clone());
        Some(network)
    }
}

/// Addresses of interfaces that are up, sorted so that two looks compare.
fn interfaces() -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!("cannot list network interfaces: {error}");
        Vec::new()
    });
    let mut addresses: Vec<IpAddr> =
        found.iter().filter(|interface| interface.is_oper_up()).map(if_addrs::Interface::ip).filter(usable).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A link-local IPv6 address is no use without its scope, which an address alone does not carry.
fn usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

/// The default routes in words that change when they do; none where the system does not write them down.
fn default_routes() -> Vec<String> {
    let mut routes = of_ipv4(&routing_table::ipv4());
    routes.extend(of_ipv6(&routing_table::ipv6()));
    routes.sort_unstable();
    routes
}

/// From `/proc/net/route`: interface, destination, gateway, flags, two counters, metric, mask, and more.
fn of_ipv4(table: &str) -> Vec<String> {
    let route = |line: &str| match *line.split_whitespace().collect::<Vec<_>>() {
        [interface, "00000000", gateway, _, _, _, metric, "00000000", ..] => {
            Some(format!("{interface} {gateway} {metric}"))
        }
        _ => None,
    };
    table.lines().filter_map(route).collect()
}

/// From `/proc/net/ipv6_route`: destination and its length, source and its length, next hop, metric, two counters,
/// flags, interface.
fn of_ipv6(table: &str) -> Vec<String> {
    let route = |line: &str| match *line.split_whitespace().collect::<Vec<_>>() {
        ["00000000000000000000000000000000", "00", _, _, gateway, metric, _, _, _, interface] => {
            Some(format!("{interface} {gateway} {metric}"))
        }
        _ => None,
    };
    table.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn watch() -> (Watch, mio::Poll) {
        let poll = mio::Poll::new().expect("poll");
        let watch = Watch::new(at(0), poll.registry(), Token(9));
        (watch, poll)
    }

    fn sockets() -> [(SocketId, SocketAddr); 1] {
        [(SocketId(0), "127.0.0.1:4000".parse().expect("address"))]
    }

    #[test]
    fn only_changes_are_told() {
        let (mut watch, _poll) = watch();
        let first = watch.look_if_due(at(0), &sockets()).expect("the first look is a change");
        assert!(first.interfaces.iter().any(IpAddr::is_loopback), "every host has a loopback interface");
        let (interfaces, routes) = (first.interfaces.clone(), watch.routes.clone());
        assert_eq!(watch.compare(&sockets(), interfaces.clone(), routes.clone()), None);
        let other = vec!["192.0.2.1".parse().expect("address")];
        let moved = watch.compare(&sockets(), other.clone(), routes.clone()).expect("another address");
        assert_eq!((moved.interfaces, moved.epoch), (other.clone(), first.epoch));
        let rerouted = watch.compare(&sockets(), other.clone(), vec!["wlan0 01".into()]).expect("another way out");
        assert_ne!(rerouted.epoch, first.epoch);
        assert_eq!(watch.compare(&sockets(), other, vec!["wlan0 01".into()]), None);
    }

    #[test]
    fn sleep_makes_another_network_of_the_same_addresses() {
        let (mut watch, _poll) = watch();
        let before = watch.look_if_due(at(0), &sockets()).expect("the first look");
        assert!(watch.look_if_due(at(100), &sockets()).is_none(), "not due");
        watch.on_resume(at(200));
        assert_eq!(watch.next_look(), at(200));
        let after = watch.look_if_due(at(200), &sockets()).expect("a change");
        assert_ne!(after.epoch, before.epoch);
    }

    #[test]
    fn without_notices_it_looks_every_two_seconds() {
        let (mut watch, _poll) = watch();
        watch.notices = None;
        watch.look_if_due(at(0), &sockets());
        assert_eq!(watch.next_look(), at(2_000));
        watch.on_notice(at(10));
        assert_eq!(watch.next_look(), at(2_000), "nothing can have come");
    }

    #[test]
    fn default_routes_are_told_apart_by_what_matters() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  wlan0\t00000000\t0100A8C0\t0003\t0\t7\t600\t00000000\t0\t0\t0\n\
                  tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n\
                  eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(of_ipv4(v4), ["wlan0 0100A8C0 600", "tun0 00000000 50"]);
        assert_eq!(of_ipv4(&v4.replace("\t7\t", "\t8\t")), of_ipv4(v4), "counters count for nothing");
        let zero = "0".repeat(32);
        let line = |to: &str, len: &str| {
            format!("{to} {len} {zero} 00 fe800000000000000000000000000001 00000400 1 0 00450003 eth0\n")
        };
        let v6 = line(&zero, "00") + &line("20010db8000000000000000000000000", "40");
        assert_eq!(of_ipv6(&v6), ["eth0 fe800000000000000000000000000001 00000400"]);
        assert!(of_ipv4("").is_empty() && of_ipv6("a b\n\n").is_empty());
    }
}
