//! What must hold at every step, whatever the wire does.
//!
//! Each check panics with what it saw; the world's panic note adds seed and step. The checks see what a network card
//! sees, bytes and addresses, and what a caller sees; never the inside of a node.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use handfast_core::{DATAGRAM_LEN_MAX, Instant};

use crate::host::HostId;

/// Most outputs that one call may cause: a queue that refills itself never ends.
pub const OUTPUTS_MAX: usize = 100_000;
/// Most UDP payload on an Ethernet path: 1 500 less 28 (IPv4) or 48 (IPv6).
const PAYLOAD_MAX_V4: usize = 1472;
const PAYLOAD_MAX_V6: usize = 1452;
/// Segments of one train.
const SEGMENTS_MAX: usize = 64;

/// Connectivity checks: 10 packets and 1 KiB per address and attempt; Inits: 3; attempts: 3 a minute.
const UNHEARD_WINDOW: Duration = Duration::from_secs(60);
const UNHEARD_PACKETS_MAX: usize = 3 * (10 + 3);
const UNHEARD_BYTES_MAX: usize = 3 * (1024 + 3 * 400);
/// Where a router stands, ports may be guessed: 100 a second, for 20 s and three times an hour, beside the checks.
const GUESSES_MAX: usize = 60 * 100 + 400;

/// What a node sent to an address that never sent it anything.
#[derive(Default)]
struct Toward {
    heard: bool,
    recent: VecDeque<(Instant, usize)>,
    bytes: usize,
}

/// State of the checks that need some.
#[derive(Default)]
pub struct Invariants {
    toward: BTreeMap<HostId, BTreeMap<SocketAddr, Toward>>,
    /// Where routers stand or stood: who guesses does not see that one has got another address.
    routers: BTreeSet<IpAddr>,
}

impl Invariants {
    /// A node was started: it has heard from nobody.
    pub fn on_start(&mut self, host: HostId) {
        self.toward.remove(&host);
    }

    /// A datagram reached a node.
    pub fn on_received(&mut self, host: HostId, remote: SocketAddr) {
        self.toward.entry(host).or_default().entry(remote).or_default().heard = true;
    }

    /// A node sends a datagram of its own. Its size fits the path, and an address that never spoke is not flooded. A
    /// router may have many ports guessed, all of which count together.
    pub fn on_sent(&mut self, now: Instant, host: HostId, remote: SocketAddr, bytes: &[u8], is_router: bool) {
        check_size(remote, bytes);
        if is_router {
            self.routers.insert(remote.ip());
        }
        let is_router = self.routers.contains(&remote.ip());
        let toward = self.toward.entry(host).or_default();
        if toward.get(&remote).is_some_and(|t| t.heard) {
            return;
        }
        let key = if is_router { SocketAddr::new(remote.ip(), 0) } else { remote };
        let toward = toward.entry(key).or_default();
        toward.recent.push_back((now, bytes.len()));
        toward.bytes += bytes.len();
        while let Some(&(at, len)) = toward.recent.front() {
            if now.since(at) < UNHEARD_WINDOW {
                break;
            }
            toward.recent.pop_front();
            toward.bytes -= len;
        }
        let (packets, bytes) = (toward.recent.len(), toward.bytes);
        let (packets_max, bytes_max) =
            if is_router { (GUESSES_MAX, 100 * GUESSES_MAX) } else { (UNHEARD_PACKETS_MAX, UNHEARD_BYTES_MAX) };
        assert!(
            packets <= packets_max && bytes <= bytes_max,
            "{host:?} sent {packets} packets, {bytes} bytes within a minute to {remote}, which never said a word"
        );
    }
}

fn check_size(remote: SocketAddr, bytes: &[u8]) {
    let len = bytes.len();
    assert!(len > 0, "an empty datagram to {remote}");
    // Only QUIC packets probe for a longer path; every other kind keeps to the minimum.
    let is_stream = bytes[0] == 7 || (bytes[0] == 5 && bytes.get(7) == Some(&7));
    let max = match (is_stream, remote.is_ipv4()) {
        (false, _) => DATAGRAM_LEN_MAX,
        (true, true) => PAYLOAD_MAX_V4,
        (true, false) => PAYLOAD_MAX_V6,
    };
    assert!(len <= max, "a datagram of kind {} has {len} bytes", bytes[0]);
}

/// A train: its segments fit the buffer, and there are not too many.
pub fn check_train(len: usize, segment: Option<usize>, segments_max: usize, buf_len: usize) {
    assert!(len > 0 && len <= buf_len, "a transmit of {len} bytes in a buffer of {buf_len}");
    if let Some(segment) = segment {
        let count = len.div_ceil(segment);
        assert!(count <= segments_max, "{count} segments where {segments_max} were asked for");
    }
}

/// The verdict on a buffer covers at least one whole datagram and ends between two.
pub fn check_consumed(used: usize, stride: usize, len: usize) {
    assert!(used > 0 && used <= len, "{used} of {len} bytes handled");
    assert!(used == len || used.is_multiple_of(stride), "{used} bytes handled, inside a datagram of {stride}");
}

/// What a relay sends on is what it received, bit for bit, and goes back to nobody.
pub fn check_forward(
    source: SocketAddr,
    target: SocketAddr,
    range: &Range<usize>,
    stride: usize,
    used: usize,
    before: &[u8],
    after: &[u8],
) {
    assert!(range.start < range.end && range.end <= used, "forwards {range:?} of {used} handled bytes");
    assert!(stride > 0 && (range.end - range.start).div_ceil(stride) <= SEGMENTS_MAX, "a batch too long");
    assert_eq!(before[range.clone()], after[range.clone()], "a relay changed what it forwards");
    assert_ne!(source, target, "forwards to where it came from");
    assert_eq!(after[range.start], 5, "forwards what is no Relay packet");
}

/// A deadline is never in the past, and after `handle_timeout` it is in the future.
pub fn check_deadline(now: Instant, deadline: Option<Instant>, after_timeout: bool) {
    let Some(at) = deadline else { return };
    assert!(at >= now, "the deadline {at:?} is in the past of {now:?}");
    assert!(!after_timeout || at > now, "the deadline {at:?} was not cleared by handle_timeout");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "never said a word")]
    fn a_flood_at_a_silent_address_is_caught() {
        let mut checks = Invariants::default();
        for n in 0..100 {
            checks.on_sent(Instant::from_micros(n), HostId(0), "1.1.1.1:1".parse().unwrap(), &[4; 20], false);
        }
    }

    #[test]
    fn an_address_that_answered_may_get_more() {
        let mut checks = Invariants::default();
        let remote = "1.1.1.1:1".parse().unwrap();
        checks.on_received(HostId(0), remote);
        for n in 0..1000 {
            checks.on_sent(Instant::from_micros(n), HostId(0), remote, &[4; 1200], false);
        }
    }

    #[test]
    fn a_slow_search_is_not_a_flood() {
        let mut checks = Invariants::default();
        for n in 0..1000 {
            checks.on_sent(
                Instant::from_micros(n * 2_000_000),
                HostId(0),
                "1.1.1.1:1".parse().unwrap(),
                &[1; 200],
                false,
            );
        }
    }

    #[test]
    #[should_panic(expected = "in the past")]
    fn a_deadline_in_the_past_is_caught() {
        check_deadline(Instant::from_micros(2), Some(Instant::from_micros(1)), false);
    }

    #[test]
    #[should_panic(expected = "not cleared")]
    fn a_deadline_that_stays_is_caught() {
        check_deadline(Instant::from_micros(2), Some(Instant::from_micros(2)), true);
    }

    #[test]
    #[should_panic(expected = "changed what it forwards")]
    fn a_relay_that_writes_is_caught() {
        let (a, b) = ("1.1.1.1:1".parse().unwrap(), "2.2.2.2:2".parse().unwrap());
        check_forward(a, b, &(0..2), 2, 2, &[5, 1], &[5, 2]);
    }
}
