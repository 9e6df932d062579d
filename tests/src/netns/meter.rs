//! What a host sends and receives by UDP, counted by the kernel where the packets pass.
//!
//! The counters stand in the host's own namespace, before anything there could drop a packet it received and after it
//! has sent one. Batches that the kernel carries as one (GSO, GRO) count as one packet: measure what is idle or small
//! with this, not a download.

use std::ops::Sub;
use std::process::Command;

use serde_json::Value;

use super::Host;
use super::tools::{nft_table, run};

/// Bytes of the IPv4 and UDP headers of a packet.
const HEADER_V4: u64 = 20 + 8;
/// Bytes of the IPv6 and UDP headers of a packet.
const HEADER_V6: u64 = 40 + 8;

/// Counts the UDP packets of one host from the moment it was made.
#[derive(Debug)]
pub struct Meter {
    namespace: String,
}

/// So many packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// How many.
    pub packets: u64,
    /// Bytes with IP and UDP headers: what the line carries.
    pub ip_bytes: u64,
    /// Bytes without them.
    pub payload_bytes: u64,
}

/// What a host has sent and received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// What it sent.
    pub sent: Count,
    /// What reached it.
    pub received: Count,
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            ip_bytes: self.ip_bytes - earlier.ip_bytes,
            payload_bytes: self.payload_bytes - earlier.payload_bytes,
        }
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { sent: self.sent - earlier.sent, received: self.received - earlier.received }
    }
}

impl Traffic {
    /// Bytes with headers, both ways.
    pub fn ip_bytes(&self) -> u64 {
        self.sent.ip_bytes + self.received.ip_bytes
    }
}

impl Meter {
    /// Begins to count at `host`.
    pub fn new(host: &Host) -> Self {
        Self::with_rules(host, "", "", "")
    }

    /// Begins to count at `host` what its router carries: not what it asks the router itself for, or its LAN.
    pub fn of_its_line(host: &Host) -> Self {
        let lan = "192.168.0.0/16";
        let sent = format!("ip daddr != {{ {lan}, 224.0.0.0/4 }}");
        Self::with_rules(host, &sent, &format!("ip saddr != {lan}"), "")
    }

    /// Begins to count at `host`, which answers nothing, not even with an ICMP error.
    pub fn of_silent(host: &Host) -> Self {
        Self::with_rules(host, "", "", "chain silence { type filter hook input priority 0; meta l4proto udp drop; }")
    }

    /// `sent4` and `received4` say what is counted of IPv4, and `more` stands after the chains that count.
    fn with_rules(host: &Host, sent4: &str, received4: &str, more: &str) -> Self {
        let count = |direction: &str, device: &str, v4: &str| {
            format!(
                "meta nfproto ipv4 {device} != \"lo\" {v4} meta l4proto udp counter name {direction}4\n\
                 meta nfproto ipv6 {device} != \"lo\" meta l4proto udp counter name {direction}6\n"
            )
        };
        let rules = format!(
            "counter sent4 {{}}\ncounter sent6 {{}}\ncounter received4 {{}}\ncounter received6 {{}}\n\
             chain leaving {{ type filter hook postrouting priority 300;\n{}}}\n\
             chain arriving {{ type filter hook prerouting priority -300;\n{}}}\n{more}",
            count("sent", "oifname", sent4),
            count("received", "iifname", received4),
        );
        nft_table(&host.namespace, "tally", &rules);
        Self { namespace: host.namespace.clone() }
    }

    /// What has passed so far.
    #[track_caller]
    pub fn read(&self) -> Traffic {
        let list = ["netns", "exec", &self.namespace, "nft", "-j", "list", "counters", "table", "inet", "tally"];
        let json: Value = serde_json::from_slice(&run(Command::new("ip").args(list))).expect("nft -j writes JSON");
        let counter = |name: &str, header: u64| {
            let all = json["nftables"].as_array().expect("a list");
            let found = all.iter().map(|entry| &entry["counter"]).find(|counter| counter["name"] == name);
            let found = found.unwrap_or_else(|| panic!("no counter {name}: {json}"));
            let number = |key: &str| found[key].as_u64().expect("a number");
            let (packets, ip_bytes) = (number("packets"), number("bytes"));
            Count { packets, ip_bytes, payload_bytes: ip_bytes.saturating_sub(packets * header) }
        };
        let both = |direction: &str| {
            let v4 = counter(&format!("{direction}4"), HEADER_V4);
            let v6 = counter(&format!("{direction}6"), HEADER_V6);
            Count {
                packets: v4.packets + v6.packets,
                ip_bytes: v4.ip_bytes + v6.ip_bytes,
                payload_bytes: v4.payload_bytes + v6.payload_bytes,
            }
        };
        Traffic { sent: both("sent"), received: both("received") }
    }
}
