//! What the demo measured, and which of its claims held.

use std::time::Duration;

use handfast_io::{Endpoint, PeerId};

use crate::report::bytes;

/// The result.
#[derive(Default)]
pub(super) struct Findings {
    /// From opening the connection to its first byte.
    pub(super) first_byte: Option<Duration>,
    /// From opening the connection to the first direct path.
    pub(super) direct_after: Option<Duration>,
    /// From the reboot to the next direct path.
    pub(super) direct_again_after: Option<Duration>,
    /// What it cost the supernodes.
    pub(super) introduction: Introduction,
    /// Size, time, and how it travelled.
    pub(super) downloads: Vec<(u64, Duration, Carried)>,
    /// All of it.
    pub(super) took: Duration,
    held: Vec<&'static str>,
    broken: Vec<&'static str>,
}

/// Bytes of one link, by the way they took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carried {
    /// Through a relay.
    pub(super) relayed: u64,
    /// Straight.
    pub(super) direct: u64,
}

impl Carried {
    /// What `endpoint` exchanged with `peer` so far.
    pub(super) fn of(endpoint: &Endpoint, peer: PeerId) -> Self {
        let Some(found) = endpoint.peer(peer).statistics() else { return Self::default() };
        let all = found.rx_bytes + found.tx_bytes;
        Self { relayed: found.relayed_bytes, direct: all.saturating_sub(found.relayed_bytes) }
    }

    /// What came after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            relayed: self.relayed.saturating_sub(earlier.relayed),
            direct: self.direct.saturating_sub(earlier.direct),
        }
    }
}

/// What introductions cost the supernodes together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Introduction {
    pub(super) count: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
}

impl Introduction {
    pub(super) fn sum(supernodes: &[Endpoint]) -> Self {
        supernodes.iter().filter_map(Endpoint::status).fold(Self::default(), |sum, status| Self {
            count: sum.count + status.counters.introductions,
            datagrams: sum.datagrams + status.counters.introduction_datagrams,
            bytes: sum.bytes + status.counters.introduction_bytes,
        })
    }
}

impl Findings {
    /// Notes whether something is as we say it is.
    pub(super) fn claim(&mut self, what: &'static str, holds: bool) {
        if holds { &mut self.held } else { &mut self.broken }.push(what);
    }

    /// The claims that did not hold.
    pub(super) fn broken(&self) -> &[&'static str] {
        &self.broken
    }

    /// The table at the end.
    pub(super) fn to_text(&self) -> String {
        let time = |time: Option<Duration>| time.map_or_else(|| "never".into(), millis);
        let Introduction { count, datagrams, bytes: cost } = self.introduction;
        let mut rows = vec![
            ("time to first byte", time(self.first_byte)),
            ("time to direct", time(self.direct_after)),
            (
                "introduction at supernode",
                format!("{datagrams} packets, {cost} B of UDP payload ({count} introductions)"),
            ),
        ];
        for (n, (len, took, carried)) in self.downloads.iter().enumerate() {
            let name = if n == 0 { "download 1" } else { "download 2, router rebooted" };
            let rate = *len as f64 * 8e-6 / took.as_secs_f64().max(1e-6);
            rows.push((name, format!("{} MiB in {}, {rate:.0} Mbit/s", len >> 20, millis(*took))));
            rows.push(("  over relay / direct", format!("{} / {}", bytes(carried.relayed), bytes(carried.direct))));
        }
        rows.push(("direct again after reboot", time(self.direct_again_after)));
        rows.push(("all of it", millis(self.took)));
        let mut out: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<28} {value}")).collect();
        out.extend(self.held.iter().map(|claim| format!("held       {claim}")));
        out.extend(self.broken.iter().map(|claim| format!("NOT HELD   {claim}")));
        out.join("\n")
    }
}

fn millis(time: Duration) -> String {
    match time.as_millis() {
        0..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_claim_is_seen() {
        let mut findings = Findings::default();
        findings.claim("this", true);
        assert!(findings.broken().is_empty());
        findings.claim("that", false);
        assert_eq!(findings.broken(), ["that"]);
        let text = findings.to_text();
        assert!(text.contains("held       this") && text.contains("NOT HELD   that"), "{text}");
    }

    #[test]
    fn the_table_has_what_was_measured() {
        let mut findings = Findings {
            first_byte: Some(Duration::from_micros(12_340)),
            introduction: Introduction { count: 1, datagrams: 5, bytes: 900 },
            ..Findings::default()
        };
        let carried = Carried { relayed: 1500, direct: 67_000_000 };
        findings.downloads.push((64 << 20, Duration::from_secs(1), carried));
        let text = findings.to_text();
        for part in ["12.3 ms", "never", "5 packets, 900 B", "64 MiB in 1000.0 ms, 537 Mbit/s", "1.5 kB / 67 MB"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(carried.since(Carried { relayed: 500, direct: 0 }).relayed, 1000);
    }
}
