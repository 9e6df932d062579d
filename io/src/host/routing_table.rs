//! The routes of this host as Linux writes them to `/proc/net`: text, bounded, and none elsewhere.

use std::fs::File;
use std::io::Read as _;

/// Longest routing table that is read; no sane host has a longer one to be read every few seconds. Beyond it, a default
/// route is missed.
const TABLE_LEN_MAX: u64 = 1 << 20;

/// The IPv4 routes; empty where there is no such file.
pub(super) fn ipv4() -> String {
    read("/proc/net/route")
}

/// The IPv6 routes; empty where there is no such file.
pub(super) fn ipv6() -> String {
    read("/proc/net/ipv6_route")
}

fn read(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        // What cannot be read has not changed, and names no gateway.
        let _ = file.take(TABLE_LEN_MAX).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_empty() {
        assert_eq!(read("/no/such/table"), "");
    }
}
