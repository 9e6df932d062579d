//! What this host's network looks like: bound addresses and the addresses of its interfaces.
//!
//! There is no portable notice of changes, so [`Watch::look`] asks the operating system with each housekeeping of the
//! loop and speaks up only when the answer differs from the last one.

use std::net::{IpAddr, SocketAddr};

use handfast_core::{Network, SocketId};

/// Remembers the last answer.
#[derive(Default)]
pub(crate) struct Watch {
    last: Option<Network>,
}

impl Watch {
    /// The network as it is now, if it changed. `sockets` are those bound at start; the first is the main one.
    pub(crate) fn look(&mut self, sockets: &[(SocketId, SocketAddr)]) -> Option<Network> {
        self.compare(Network { sockets: sockets.to_vec(), interfaces: interfaces(), mappings: Vec::new() })
    }

    fn compare(&mut self, network: Network) -> Option<Network> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let mut watch = Watch::default();
        let sockets = [(SocketId(0), "127.0.0.1:4000".parse().expect("address"))];
        let first = watch.look(&sockets).expect("the first look is a change");
        assert!(first.interfaces.iter().any(IpAddr::is_loopback), "every host has a loopback interface");
        assert_eq!(watch.compare(first.clone()), None);
        let moved = Network { interfaces: vec!["192.0.2.1".parse().expect("address")], ..first };
        assert_eq!(watch.compare(moved.clone()), Some(moved));
    }
}
