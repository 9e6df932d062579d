//! The machine itself: leases by wish, whom to believe, and the epochs by which reboots show.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::lease::{Lease, Outputs};
use super::{Event, Mapping, Outcome, Report, Transmit, UpnpAnswer, UpnpOrder, WISHES_MAX, Wish, natpmp, pcp};
use crate::identity::SecretKey;
use crate::random::ChoiceRng;
use crate::time::Instant;

/// RFC 6887 §14.1.3: after an announcement, everybody waits up to this long, so that a household does not ask at once.
const ANNOUNCED_WAIT: Duration = Duration::from_secs(5);

/// See the [module](super).
pub struct Mapper {
    nonce_key: [u8; 32],
    leases: Vec<Lease>,
    /// By gateway and version: the last epoch heard, and when.
    epochs: BTreeMap<(SocketAddr, u8), (Instant, u32)>,
    out: Outputs,
    releasing: bool,
}

impl Mapper {
    /// A mapper without wishes. Nonces come from `key`, so that a node that crashed is known to the router as the owner
    /// of what it had (RFC 6887 §11.2 refuses another nonce); `seed` is for timing alone.
    pub fn new(key: &SecretKey, seed: [u8; 32]) -> Self {
        Self {
            nonce_key: blake3::derive_key("handfast v1 pcp nonce", &key.to_bytes()),
            leases: Vec::new(),
            epochs: BTreeMap::new(),
            out: Outputs {
                transmits: VecDeque::new(),
                orders: VecDeque::new(),
                events: VecDeque::new(),
                jitter: ChoiceRng::new(seed),
            },
            releasing: false,
        }
    }

    // ---- what the world did ----

    /// What shall be mapped from now on; the first [`WISHES_MAX`] count. New wishes are begun, others go on. Those that
    /// are gone are forgotten: the way to their router is gone too, and what it promised ends by itself.
    pub fn handle_wishes(&mut self, now: Instant, wishes: &[Wish]) {
        if self.releasing {
            return;
        }
        let wishes = wishes.get(..WISHES_MAX).unwrap_or(wishes);
        self.leases.retain(|lease| {
            let stays = wishes.contains(&lease.wish);
            if !stays && let Some(mapping) = lease.mapping() {
                self.out.events.push_back(Event::Lost { mapping });
            }
            stays
        });
        for wish in wishes {
            if !self.leases.iter().any(|lease| lease.wish == *wish) {
                let nonce = self.nonce(wish);
                self.leases.push(Lease::new(now, *wish, nonce, &mut self.out));
            }
        }
        let gateways: Vec<_> = self.leases.iter().filter_map(|lease| lease.wish.gateway).collect();
        self.epochs.retain(|(gateway, _), _| gateways.contains(gateway));
    }

    fn nonce(&self, wish: &Wish) -> pcp::Nonce {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonce_key);
        hasher.update(wish.internal.to_string().as_bytes());
        hasher.update(b" ");
        hasher.update(wish.gateway.map(|gateway| gateway.to_string()).unwrap_or_default().as_bytes());
        let mut nonce = [0; 12];
        hasher.finalize_xof().fill(&mut nonce);
        nonce
    }

    /// This host may be elsewhere, or was asleep: asks for everything again, or tries again.
    pub fn handle_change(&mut self, now: Instant) {
        for lease in &mut self.leases {
            lease.look_soon(now, Duration::ZERO, &mut self.out);
        }
    }

    /// A datagram that came to a socket for port mapping. What is not from a gateway and its port is ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        if !self.leases.iter().any(|lease| lease.wish.gateway == Some(from)) {
            return;
        }
        // Version and epoch, and whether it may be an announcement: those are sent by routers that lost their mappings,
        // and not always in the version that we speak with them.
        let epoch = match data.first() {
            None => return,
            Some(&natpmp::VERSION) => {
                let Some(answer) = natpmp::Answer::decode(data) else { return };
                for lease in self.leases.iter_mut().filter(|lease| lease.wish.gateway == Some(from)) {
                    lease.on_nat_pmp(now, &answer, &mut self.out);
                }
                match answer.body {
                    natpmp::Body::Address(_) => Some((natpmp::VERSION, answer.epoch_s, true)),
                    natpmp::Body::Mapped { .. } => Some((natpmp::VERSION, answer.epoch_s, false)),
                    natpmp::Body::Refused { .. } => None,
                }
            }
            Some(_) => {
                let Some(answer) = pcp::Answer::decode(data) else { return };
                for lease in self.leases.iter_mut().filter(|lease| lease.wish.gateway == Some(from)) {
                    lease.on_pcp(now, &answer, &mut self.out);
                }
                match answer.body {
                    pcp::Body::Announce => Some((pcp::VERSION, answer.epoch_s, true)),
                    pcp::Body::Map { .. } => Some((pcp::VERSION, answer.epoch_s, false)),
                    pcp::Body::Bare => None,
                }
            }
        };
        let Some((version, epoch_s, unasked)) = epoch else { return };
        let restarted = match self.epochs.insert((from, version), (now, epoch_s)) {
            Some((then, last_s)) => has_restarted(now.since(then), last_s, epoch_s),
            None => unasked,
        };
        if restarted {
            for lease in self.leases.iter_mut().filter(|lease| lease.wish.gateway == Some(from)) {
                let wait = self.out.jitter.jitter(ANNOUNCED_WAIT);
                lease.look_soon(now, wait, &mut self.out);
            }
        }
    }

    /// The gateway's host says that nobody listens at its port (an ICMP error).
    pub fn handle_unreachable(&mut self, now: Instant, gateway: SocketAddr) {
        for lease in self.leases.iter_mut().filter(|lease| lease.wish.gateway == Some(gateway)) {
            lease.on_unreachable(now, &mut self.out);
        }
    }

    /// The answer to an order about this internal address.
    pub fn handle_upnp(&mut self, now: Instant, internal: SocketAddr, answer: UpnpAnswer) {
        for lease in self.leases.iter_mut().filter(|lease| lease.wish.internal == internal) {
            lease.on_upnp(now, answer, &mut self.out);
        }
    }

    /// Time has come, or just passes.
    pub fn handle_timeout(&mut self, now: Instant) {
        for lease in &mut self.leases {
            // What is due may make something else due: a promise that ends while a request waits.
            while lease.poll_timeout().is_some_and(|at| at <= now) {
                lease.handle_timeout(now, &mut self.out);
            }
        }
    }

    /// Gives everything back. Poll on until [`Mapper::is_released`], at most [`super::RELEASE_MAX`] later.
    pub fn release(&mut self, now: Instant) {
        self.releasing = true;
        for lease in &mut self.leases {
            lease.release(now, &mut self.out);
        }
    }

    // ---- what to do next ----

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next order for UPnP.
    pub fn poll_upnp(&mut self) -> Option<UpnpOrder> {
        self.out.orders.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// When [`Mapper::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.leases.iter().filter_map(Lease::poll_timeout).min()
    }

    // ---- what is ----

    /// The mappings that stand, in the order of the wishes they fulfil.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.leases.iter().filter_map(Lease::mapping).collect()
    }

    /// Whether everything is given back after [`Mapper::release`].
    pub fn is_released(&self) -> bool {
        self.releasing && self.leases.iter().all(Lease::is_released)
    }

    /// What each protocol said. Of several IPv4 wishes, about the first.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        if let Some(lease) = self.leases.iter().find(|lease| lease.wish.internal.is_ipv4()) {
            report.gateway = lease.wish.gateway.map(|gateway| gateway.ip());
            [report.pcp, report.nat_pmp, report.upnp] = lease.outcomes();
        } else {
            // Nothing to ask and nobody to ask it.
            [report.pcp, report.nat_pmp, report.upnp] = [Outcome::None; 3];
        }
        let v6 = self.leases.iter().filter(|lease| lease.wish.internal.is_ipv6());
        report.pinholes = v6.map(|lease| (lease.wish.internal, lease.outcomes()[0])).collect();
        report
    }
}

/// RFC 6887 §8.5: whether a server's clock, which said `last_s` when `elapsed` had not yet passed and says `now_s` now,
/// has started anew in between. (RFC 6886 §3.6 asks the same, less exactly.)
fn has_restarted(elapsed: Duration, last_s: u32, now_s: u32) -> bool {
    let (last, now, client) = (u64::from(last_s), u64::from(now_s), elapsed.as_secs());
    // One second back is the order of two answers.
    let Some(server) = (now + 1).checked_sub(last) else { return true };
    let server = server.saturating_sub(1);
    client.saturating_add(2) < server - server / 16 || server + 2 < client - client / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_on_has_not_restarted() {
        let s = Duration::from_secs;
        for (elapsed, last, now) in [(0, 5, 5), (0, 5, 4), (0, 0, 0), (100, 5, 105), (100, 5, 97), (100, 5, 111)] {
            assert!(!has_restarted(s(elapsed), last, now), "{elapsed} s: {last} to {now}");
        }
        for (elapsed, last, now) in [(0, 5, 3), (100, 500, 10), (100, 5, 50), (3_600, 5, 5), (10, 5, 400)] {
            assert!(has_restarted(s(elapsed), last, now), "{elapsed} s: {last} to {now}");
        }
        assert!(!has_restarted(s(1), u32::MAX, u32::MAX));
        assert!(has_restarted(Duration::MAX, u32::MAX, u32::MAX));
    }
}
