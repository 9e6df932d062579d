//! LAN discovery: announces this node by multicast DNS, and tells the loop which others are announced.
//!
//! mdns-sd speaks the protocol (RFC 6762, RFC 6763) in a thread of its own. [`Lan::start`] has it announce an instance
//! of [`SERVICE`], named by the node's `hf1…`, with the port of the main socket and these TXT records:
//!
//! | key | value |
//! | --- | --- |
//! | `v` | 1 |
//! | `id` | the node's `hf1…` |
//! | `role` | `leaf` or `supernode` |
//! | `p6` | the port for IPv6, which has a socket of its own |
//!
//! and browses for the same. A second thread reads what was found ([`read`]) and tells it by a function that
//! [`Lan::start`] is handed, one [`LanNews`] at a time.
//! What anybody announces is hearsay: here it is only bounded and put into form, and an address that lies on no
//! network of this host is left out, since no LAN node is there. Dropping [`Lan`] takes the announcement back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use handfast_core::{LanNode, PeerId};
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

/// What is announced and looked for (RFC 6763 §4.1.2).
const SERVICE: &str = "_handfast._udp.local.";
/// The `v` of what is written here.
const VERSION: &str = "1";
/// Most announcements whose names are remembered, to know who it is when one is taken back. At the limit one is
/// forgotten, and its node stays known until others push it out.
const NAMES_MAX: usize = 256;
/// Most addresses looked at in one announcement.
const ADDRESSES_MAX: usize = 16;
/// mdns-sd ends a search whose events are not taken fast enough: so long until the next one.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);
/// How long the end of the loop waits for the announcement to be taken back.
const GOODBYE_MAX: Duration = Duration::from_millis(200);

/// What is new on the LAN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LanNews {
    /// A node announced itself.
    Here(LanNode),
    /// One of them took that back.
    Gone(PeerId),
}

/// A running announcement and search.
pub(crate) struct Lan {
    daemon: ServiceDaemon,
    name: String,
}

impl Lan {
    /// Announces the node bound to `bound` and begins to `tell` of others, until that says that nobody listens any more
    /// (false). Nothing, if it is bound to loopback alone: then no LAN node could reach it, nor it one.
    pub(crate) fn start(
        id: PeerId,
        is_supernode: bool,
        bound: &[SocketAddr],
        tell: impl Fn(LanNews) -> bool + Send + 'static,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let Some(service) = announcement(id, is_supernode, bound)? else { return Ok(None) };
        let lan = Self { daemon: ServiceDaemon::new()?, name: service.get_fullname().to_owned() };
        lan.daemon.register(service)?;
        let daemon = lan.daemon.clone();
        thread::Builder::new().name("handfast-lan".into()).spawn(move || listen(&daemon, &tell))?;
        Ok(Some(lan))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            // Others also notice when the announcement runs out.
            let _ = done.recv_timeout(GOODBYE_MAX);
        }
        let _ = self.daemon.shutdown();
    }
}

/// What is said of this node; nothing if no socket of it can be reached from the LAN.
fn announcement(id: PeerId, is_supernode: bool, bound: &[SocketAddr]) -> mdns_sd::Result<Option<ServiceInfo>> {
    let reachable: Vec<&SocketAddr> = bound.iter().filter(|at| !at.ip().is_loopback()).collect();
    let v6 = reachable.iter().find(|at| at.is_ipv6()).map(|at| at.port());
    let v4 = reachable.iter().find(|at| at.is_ipv4()).map(|at| at.port());
    let Some(port) = v4.or(v6) else { return Ok(None) };
    let name = id.to_string();
    let mut txt = vec![
        ("v", VERSION.to_owned()),
        ("id", name.clone()),
        ("role", if is_supernode { "supernode" } else { "leaf" }.to_owned()),
    ];
    txt.extend(v6.map(|port| ("p6", port.to_string())));
    let is_any = reachable.iter().any(|at| at.ip().is_unspecified());
    let own: Vec<IpAddr> = reachable.iter().map(|at| at.ip()).filter(|ip| !ip.is_unspecified()).collect();
    let host = format!("{name}.local.");
    let mut service = ServiceInfo::new(SERVICE, &name, &host, own.as_slice(), port, txt.as_slice())?;
    if is_any {
        service = service.enable_addr_auto();
    }
    match (v4, v6) {
        (Some(_), None) => service.set_interfaces(vec![IfKind::IPv4]),
        (None, Some(_)) => service.set_interfaces(vec![IfKind::IPv6]),
        _ => {}
    }
    Ok(Some(service))
}

/// Tells what is announced, until nobody listens or the daemon has ended.
fn listen(daemon: &ServiceDaemon, tell: &impl Fn(LanNews) -> bool) {
    let mut names: BTreeMap<String, PeerId> = BTreeMap::new();
    while let Ok(events) = daemon.browse(SERVICE) {
        while let Ok(event) = events.recv() {
            let news = match event {
                ServiceEvent::ServiceResolved(service) => {
                    let Some(found_node) = read(&service, &networks()) else { continue };
                    if names.len() >= NAMES_MAX && !names.contains_key(&service.fullname) {
                        names.pop_first();
                    }
                    names.insert(service.fullname.clone(), found_node.peer);
                    LanNews::Here(found_node)
                }
                ServiceEvent::ServiceRemoved(_, name) => {
                    let Some(peer) = names.remove(&name) else { continue };
                    LanNews::Gone(peer)
                }
                _ => continue,
            };
            if !tell(news) {
                return;
            }
        }
        if daemon.status().is_err() {
            return;
        }
        thread::sleep(SEARCH_AGAIN);
    }
}

/// The networks that this host is on: an address and the length of its prefix.
fn networks() -> Vec<(IpAddr, u8)> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let prefix = |interface: &if_addrs::Interface| match &interface.addr {
        if_addrs::IfAddr::V4(v4) => (v4.ip.into(), v4.prefixlen),
        if_addrs::IfAddr::V6(v6) => (v6.ip.into(), v6.prefixlen),
    };
    interfaces.iter().filter(|interface| interface.is_oper_up()).map(prefix).collect()
}

/// Whether an address lies on one of the networks.
fn is_near(ip: IpAddr, networks: &[(IpAddr, u8)]) -> bool {
    let same = |a: u128, b: u128, bits: u32, len: u8| {
        (a ^ b).checked_shr(bits - u32::from(len).min(bits)).is_none_or(|rest| rest == 0)
    };
    networks.iter().any(|(own, len)| match (ip, own) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32, *len),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, *len),
        _ => false,
    })
}

/// What an announcement says, if it is one of ours and names an address near enough.
fn read(service: &ResolvedService, networks: &[(IpAddr, u8)]) -> Option<LanNode> {
    let text = |key: &str| service.get_property_val_str(key);
    if text("v") != Some(VERSION) {
        return None;
    }
    let peer: PeerId = text("id")?.parse().ok()?;
    let port_v6: Option<u16> = text("p6").and_then(|port| port.parse().ok());
    // Link-local IPv6 is of no use without a scope, which addresses of the core do not carry.
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let found = service.addresses.iter().take(ADDRESSES_MAX).map(mdns_sd::ScopedIp::to_ip_addr);
    let mut addresses: Vec<SocketAddr> = found
        .filter(|ip| usable(ip) && is_near(*ip, networks))
        .filter_map(|ip| Some(SocketAddr::new(ip, if ip.is_ipv4() { service.port } else { port_v6? })))
        .collect();
    // They come in no order.
    addresses.sort_unstable();
    let is_supernode = text("role") == Some("supernode");
    (!addresses.is_empty()).then_some(LanNode { peer, addresses, is_supernode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PeerId {
        handfast_core::SecretKey::from_bytes(&[3; 32]).peer_id()
    }

    fn bound(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn announced(texts: &[&str]) -> Option<ServiceInfo> {
        announcement(id(), false, &bound(texts)).expect("a good announcement")
    }

    /// What others find of it.
    fn found(service: ServiceInfo) -> ResolvedService {
        service.as_resolved_service()
    }

    fn here() -> Vec<(IpAddr, u8)> {
        vec![("192.168.7.9".parse().expect("an address"), 24), ("fd00::9".parse().expect("an address"), 64)]
    }

    #[test]
    fn what_is_announced_is_read_again() {
        assert!(id().to_string().len() <= 63, "a DNS label has room for an id");
        let service = announced(&["192.168.7.2:7000", "[fd00::2]:7001"]).expect("an announcement");
        assert!(!service.is_addr_auto());
        let found_node = read(&found(service), &here()).expect("a LAN node");
        assert_eq!(found_node.peer, id());
        assert!(!found_node.is_supernode);
        assert_eq!(found_node.addresses, bound(&["192.168.7.2:7000", "[fd00::2]:7001"]));
    }

    #[test]
    fn any_address_means_those_of_all_interfaces_and_loopback_none() {
        let service = announced(&["0.0.0.0:7000", "[::]:7001"]).expect("an announcement");
        assert!(service.is_addr_auto() && service.get_addresses().is_empty());
        assert_eq!((service.get_port(), service.get_property_val_str("p6")), (7000, Some("7001")));
        assert_eq!(announced(&["[::]:7001"]).map(|service| service.get_port()), Some(7001));
        assert!(announced(&["127.0.0.1:7000", "[::1]:7000"]).is_none());
    }

    #[test]
    fn what_is_not_ours_or_not_near_is_left_out() {
        let make = |txt: &[(&str, &str)], ips: &str| {
            let service = ServiceInfo::new(SERVICE, "name", "host.local.", ips, 7000, txt).expect("an announcement");
            read(&found(service), &here())
        };
        let name = id().to_string();
        let good = [("v", "1"), ("id", name.as_str()), ("role", "supernode")];
        assert!(make(&good, "192.168.7.2").is_some_and(|found_node| found_node.is_supernode));
        // The host lies about where it is, or cannot be reached without a scope, or names no port for IPv6.
        for ips in ["192.0.2.1", "127.0.0.1", "fe80::2", "fd00::2", "192.168.8.2"] {
            assert!(make(&good, ips).is_none(), "{ips}");
        }
        assert!(make(&[("v", "2"), ("id", &name)], "192.168.7.2").is_none());
        assert!(make(&[("v", "1")], "192.168.7.2").is_none());
        assert!(make(&[("v", "1"), ("id", "hf1nobody")], "192.168.7.2").is_none());
    }

    #[test]
    fn nearness_goes_by_the_prefix() {
        let net = |text: &str, len| vec![(text.parse().expect("an address"), len)];
        let ip = |text: &str| text.parse().expect("an address");
        assert!(is_near(ip("10.1.2.3"), &net("10.200.0.1", 8)) && !is_near(ip("10.1.2.3"), &net("10.200.0.1", 16)));
        assert!(is_near(ip("10.1.2.3"), &net("10.1.2.3", 32)) && !is_near(ip("10.1.2.4"), &net("10.1.2.3", 32)));
        assert!(is_near(ip("192.0.2.1"), &net("10.0.0.1", 0)), "a host that says so");
        assert!(is_near(ip("fd00::1"), &net("fd00::2", 64)) && !is_near(ip("fd00:0:0:1::1"), &net("fd00::2", 64)));
        assert!(!is_near(ip("fd00::1"), &net("10.0.0.1", 0)));
    }
}
