//! Who is at which address of a LAN.
//!
//! [`Members`] is asked several times for each datagram, by exact address, and there may be a million. So it is a hash
//! map, which must never be gone through: nothing may depend on its order.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;

use crate::host::HostId;
use crate::wire::RouterId;

/// Who sits at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// A host.
    Host(HostId),
    /// The outside of a router.
    Router(RouterId),
}

/// One attachment to a LAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub port: Port,
    /// One-way delay between the member and the middle of the LAN.
    pub access: Duration,
    /// Longest IP packet that the attachment carries; longer ones vanish without a word.
    pub mtu: usize,
}

/// The members of one LAN, by address.
#[derive(Clone, Debug, Default)]
pub struct Members(HashMap<IpAddr, Member>);

impl Members {
    /// Who is there.
    pub fn get(&self, ip: IpAddr) -> Option<Member> {
        self.0.get(&ip).copied()
    }

    /// Who is there alone, if it is only one.
    pub fn only(&self) -> Option<Member> {
        self.0.values().next().copied().filter(|_| self.0.len() == 1)
    }

    /// Puts somebody there, and gives who was there before.
    pub fn insert(&mut self, ip: IpAddr, member: Member) -> Option<Member> {
        self.0.insert(ip, member)
    }

    /// Takes an address away.
    pub fn remove(&mut self, ip: IpAddr) -> Option<Member> {
        self.0.remove(&ip)
    }

    /// From now on no attachment carries longer IP packets than this.
    pub fn narrow(&mut self, mtu: usize) {
        // The same for each, so the order is nothing.
        for member in self.0.values_mut() {
            member.mtu = mtu;
        }
    }
}
