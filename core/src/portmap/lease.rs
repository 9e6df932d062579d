//! One wish, what each protocol said to it, and what the router promised. See [`super`] for its life.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::collections::VecDeque;

use super::pcp::{self, MapRequest, Nonce};
use super::{
    Event, LIFETIME_S, LOOK_EVERY, LOOK_EVERY_UPNP, Mapping, MappingProtocol, NAT_PMP_AFTER, Outcome, RELEASE_MAX,
    Transmit, UpnpAnswer, UpnpOrder, Wish, natpmp,
};
use crate::random::ChoiceRng;
use crate::time::{Instant, earliest};

/// RFC 6886 §3.1: the first wait; each further one is twice as long.
const NAT_PMP_WAIT: Duration = Duration::from_millis(250);
/// RFC 6886 §3.1 goes on for two minutes. A router on the same wire that has not answered in 3.75 s will not.
const NAT_PMP_TRIES: u8 = 4;
/// RFC 6887 §8.1.1: IRT. Each further wait is twice as long.
const PCP_WAIT: Duration = Duration::from_secs(3);
/// RFC 6887 §8.1.1 has no end; after 9 s this one has.
const PCP_TRIES: u8 = 2;
/// The first wait after everything failed; doubles up to [`RETRY_MAX`]. A router may get its line, or be told to allow
/// it, at any time.
const RETRY_MIN: Duration = Duration::from_secs(120);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// After a renewal without an answer, the next one comes no later than this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// A router that was silent in so many renewals, one after the other, keeps no promise any more.
const SILENCES_MAX: u8 = 3;
/// RFC 6887 §11.2.1: renewals are at least this far apart.
const RENEW_MIN: Duration = Duration::from_secs(4);
/// No promise is believed for longer; RFC 6887 §15 recommends this limit to servers.
const LIFETIME_MAX_S: u32 = 86_400;
/// The release is sent again so long after the first.
const RELEASE_AGAIN: Duration = Duration::from_millis(250);
/// Most of each kind of output kept for a caller that does not drain; then the oldest goes.
const OUTPUTS_MAX: usize = 64;

/// Where a lease puts what it wants done.
pub(super) struct Outputs {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) orders: VecDeque<UpnpOrder>,
    pub(super) events: VecDeque<Event>,
    pub(super) jitter: ChoiceRng,
}

impl Outputs {
    fn push<T>(queue: &mut VecDeque<T>, value: T) {
        if queue.len() >= OUTPUTS_MAX {
            queue.pop_front();
        }
        queue.push_back(value);
    }

    /// RFC 6887 §8.1.1: RAND lies between -0.1 and 0.1.
    fn pcp_wait(&mut self, sent: u8) -> Duration {
        let wait = PCP_WAIT * (1 << sent.saturating_sub(1).min(8));
        wait - wait / 10 + self.jitter.jitter(wait / 5)
    }
}

/// One protocol's part.
#[derive(Clone, Copy, Default, Debug)]
struct Asking {
    outcome: Outcome,
    /// Requests sent, or ordered, and not answered.
    sent: u8,
    /// When to send the next one, or to give up.
    next: Option<Instant>,
}

impl Asking {
    fn is_asking(&self) -> bool {
        self.sent > 0
    }

    fn stop(&mut self) {
        self.sent = 0;
        self.next = None;
    }

    fn end(&mut self, outcome: Outcome) {
        self.stop();
        self.outcome = outcome;
    }
}

/// A promise.
#[derive(Clone, Copy, Debug)]
struct Granted {
    protocol: MappingProtocol,
    external: SocketAddr,
    expires: Option<Instant>,
    /// Renewals without an answer since the last answer.
    silences: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Alive,
    /// The mapping is being given back: the next sending, and the end.
    Releasing {
        again: Option<Instant>,
        until: Instant,
    },
    Released,
}

/// One wish and what came of it: what each protocol was asked and said, and the mapping that is held.
pub(super) struct Lease {
    pub(super) wish: Wish,
    nonce: Nonce,
    phase: Phase,
    sides: [Asking; 3],
    held: Option<Granted>,
    /// When to look after what is held, or to seek again.
    wake: Option<Instant>,
    asked: Instant,
    failures: u32,
    /// Something changed while the answers of before were awaited: when they have failed, it begins anew soon.
    hurry: bool,
    /// Where it was mapped before: asked for again.
    hoped: Option<SocketAddr>,
    /// Of the two answers that make a mapping by NAT-PMP, those that came.
    nat_pmp_address: Option<Ipv4Addr>,
    nat_pmp_port: Option<(u16, u32)>,
}

const PCP: MappingProtocol = MappingProtocol::Pcp;
const NAT_PMP: MappingProtocol = MappingProtocol::NatPmp;
const UPNP: MappingProtocol = MappingProtocol::Upnp;

impl Lease {
    pub(super) fn new(now: Instant, wish: Wish, nonce: Nonce, out: &mut Outputs) -> Self {
        let mut lease = Self {
            wish,
            nonce,
            phase: Phase::Alive,
            sides: [Asking::default(); 3],
            held: None,
            wake: None,
            asked: now,
            failures: 0,
            hurry: false,
            hoped: None,
            nat_pmp_address: None,
            nat_pmp_port: None,
        };
        lease.seek(now, out);
        lease
    }

    fn side(&mut self, protocol: MappingProtocol) -> &mut Asking {
        match protocol {
            MappingProtocol::Pcp => &mut self.sides[0],
            MappingProtocol::NatPmp => &mut self.sides[1],
            MappingProtocol::Upnp => &mut self.sides[2],
        }
    }

    /// PCP, NAT-PMP, UPnP.
    pub(super) fn outcomes(&self) -> [Outcome; 3] {
        self.sides.map(|side| side.outcome)
    }

    pub(super) fn mapping(&self) -> Option<Mapping> {
        let held = self.held.filter(|_| self.phase == Phase::Alive)?;
        Some(Mapping { socket: self.wish.socket, external: held.external, protocol: held.protocol })
    }

    pub(super) fn is_released(&self) -> bool {
        self.phase == Phase::Released
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Alive => {
                let sides = self.sides.iter().filter_map(|side| side.next).min();
                let expires = self.held.and_then(|held| held.expires);
                earliest(earliest(sides, self.wake), expires)
            }
            Phase::Releasing { again, until } => earliest(again, Some(until)),
            Phase::Released => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outputs) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Phase::Releasing { again, until } = self.phase {
            if until <= now {
                self.phase = Phase::Released;
            } else if due(again) {
                self.phase = Phase::Releasing { again: None, until };
                self.send_release(out);
            }
            return;
        }
        for protocol in [PCP, NAT_PMP] {
            if due(self.side(protocol).next) {
                self.send_or_give_up(now, protocol, out);
            }
        }
        if self.held.is_some_and(|held| due(held.expires)) {
            self.lose(now, out);
        } else if due(self.wake) {
            self.wake = None;
            if self.held.is_some() { self.renew(now, out) } else { self.seek(now, out) }
        }
    }

    /// Starts from nothing.
    fn seek(&mut self, now: Instant, out: &mut Outputs) {
        self.sides = [Asking::default(); 3];
        self.wake = None;
        self.nat_pmp_address = None;
        self.nat_pmp_port = None;
        if self.wish.gateway.is_some() {
            self.side(PCP).next = Some(now);
        } else {
            self.side(PCP).outcome = Outcome::None;
            self.side(NAT_PMP).outcome = Outcome::None;
        }
        if self.wish.internal.is_ipv6() {
            self.side(NAT_PMP).outcome = Outcome::None;
            self.side(UPNP).outcome = Outcome::None;
        } else if self.wish.gateway.is_some() {
            self.side(NAT_PMP).next = Some(now + NAT_PMP_AFTER);
        }
        if self.side(PCP).next.is_some() {
            self.send_or_give_up(now, PCP, out);
        }
        self.advance(now, out);
    }

    /// Asks again for what is held.
    fn renew(&mut self, now: Instant, out: &mut Outputs) {
        let Some(held) = self.held else { return };
        self.nat_pmp_address = None;
        self.nat_pmp_port = None;
        self.asked = now;
        self.side(held.protocol).stop();
        match held.protocol {
            MappingProtocol::Upnp => self.order_upnp(now, out),
            MappingProtocol::Pcp | MappingProtocol::NatPmp => self.send_or_give_up(now, held.protocol, out),
        }
    }

    /// Somebody who ought to know says that the router forgot, or that this host is elsewhere: asks soon, or at once.
    pub(super) fn look_soon(&mut self, now: Instant, wait: Duration, out: &mut Outputs) {
        if self.phase != Phase::Alive {
            return;
        }
        if self.sides.iter().any(Asking::is_asking) {
            self.hurry = true;
            return;
        }
        // Announcements are easily forged: they make no more traffic than this.
        let at = (now + wait).max(if self.held.is_some() { self.asked + RENEW_MIN } else { now });
        self.failures = 0;
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        self.handle_timeout(now, out);
    }

    fn send_or_give_up(&mut self, now: Instant, protocol: MappingProtocol, out: &mut Outputs) {
        let tries = if protocol == PCP { PCP_TRIES } else { NAT_PMP_TRIES };
        let sent = self.side(protocol).sent;
        if sent >= tries {
            self.side(protocol).stop();
            self.on_silence(now, protocol, out);
            return;
        }
        self.asked = now;
        self.send(protocol, LIFETIME_S, out);
        let wait = match protocol {
            MappingProtocol::Pcp => out.pcp_wait(sent + 1),
            MappingProtocol::NatPmp | MappingProtocol::Upnp => NAT_PMP_WAIT * (1 << sent.min(8)),
        };
        let side = self.side(protocol);
        side.sent = sent + 1;
        side.next = Some(now + wait);
    }

    fn send(&mut self, protocol: MappingProtocol, lifetime_s: u32, out: &mut Outputs) {
        let Some(to) = self.wish.gateway else { return };
        let internal = self.wish.internal;
        let ending = lifetime_s == 0;
        let mut send = |bytes: &[u8]| {
            let data = bytes.iter().copied().collect();
            Outputs::push(&mut out.transmits, Transmit { internal, to, data });
        };
        match protocol {
            MappingProtocol::Pcp => {
                let anywhere: IpAddr = match internal {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                let external = match self.hoped {
                    // RFC 6887 §15: who ends a mapping wishes for nothing.
                    _ if ending => SocketAddr::new(anywhere, 0),
                    Some(hoped) => hoped,
                    None => SocketAddr::new(anywhere, internal.port()),
                };
                send(&MapRequest { nonce: self.nonce, internal, external, lifetime_s }.encode());
            }
            MappingProtocol::NatPmp => {
                if !ending && self.nat_pmp_address.is_none() {
                    send(&natpmp::address_request());
                }
                if ending || self.nat_pmp_port.is_none() {
                    let hoped = self.hoped.map_or(internal.port(), |hoped| hoped.port());
                    send(&natpmp::map_request(internal.port(), if ending { 0 } else { hoped }, lifetime_s));
                }
            }
            MappingProtocol::Upnp => {}
        }
    }

    fn order_upnp(&mut self, now: Instant, out: &mut Outputs) {
        let SocketAddr::V4(internal) = self.wish.internal else { return };
        self.asked = now;
        self.side(UPNP).sent = 1;
        let external_port = self.hoped.map_or(internal.port(), |hoped| hoped.port());
        Outputs::push(&mut out.orders, UpnpOrder::Map { internal, external_port, lifetime_s: LIFETIME_S });
    }

    /// No answer to any request of a round.
    fn on_silence(&mut self, now: Instant, protocol: MappingProtocol, out: &mut Outputs) {
        match &mut self.held {
            // The promise stands; asked again halfway to its end.
            Some(held) if held.protocol == protocol => {
                held.silences += 1;
                if held.silences >= SILENCES_MAX {
                    return self.lose(now, out);
                }
                let left = held.expires.map_or(LOOK_EVERY, |at| at.since(now));
                self.wake = Some(now + (left / 2).clamp(RENEW_MIN, RENEW_AGAIN));
            }
            Some(_) => {}
            None => {
                self.side(protocol).end(Outcome::None);
                // Both are asked at the same port: when NAT-PMP gives up, PCP has had longer.
                if protocol == NAT_PMP && self.side(PCP).outcome == Outcome::Unknown {
                    self.side(PCP).end(Outcome::None);
                }
                self.advance(now, out);
            }
        }
    }

    /// Nothing is held: what comes next, when a protocol is done?
    fn advance(&mut self, now: Instant, out: &mut Outputs) {
        if self.held.is_some() || self.side(PCP).outcome == Outcome::Unknown {
            return;
        }
        if self.side(NAT_PMP).outcome == Outcome::Unknown {
            if !self.side(NAT_PMP).is_asking() {
                self.send_or_give_up(now, NAT_PMP, out);
            }
            return;
        }
        if self.side(UPNP).outcome == Outcome::Unknown {
            if !self.side(UPNP).is_asking() {
                self.order_upnp(now, out);
            }
            return;
        }
        let wait = if core::mem::take(&mut self.hurry) {
            RENEW_MIN
        } else {
            self.failures = self.failures.saturating_add(1);
            (RETRY_MIN * (1 << (self.failures - 1).min(8))).min(RETRY_MAX)
        };
        self.wake = Some(now + wait + out.jitter.jitter(wait / 8));
    }

    fn on_mapped(
        &mut self,
        now: Instant,
        protocol: MappingProtocol,
        external: SocketAddr,
        lifetime_s: Option<u32>,
        out: &mut Outputs,
    ) {
        let lifetime = lifetime_s.map(|s| Duration::from_secs(s.min(LIFETIME_MAX_S).into()));
        let before = self.mapping();
        for side in &mut self.sides {
            side.stop();
        }
        self.side(protocol).outcome = Outcome::Mapped(external);
        self.held = Some(Granted { protocol, external, expires: lifetime.map(|lifetime| now + lifetime), silences: 0 });
        self.hoped = Some(external);
        self.failures = 0;
        self.hurry = false;
        let look_every = if protocol == UPNP { LOOK_EVERY_UPNP } else { LOOK_EVERY };
        // RFC 6887 §11.2.1: between half and five eighths of the lifetime.
        let renew = lifetime.map_or(look_every, |all| all / 2 + out.jitter.jitter(all / 8));
        self.wake = Some(now + renew.clamp(RENEW_MIN, look_every));
        if let Some(mapping) = self.mapping().filter(|mapping| before != Some(*mapping)) {
            let internal = self.wish.internal;
            Outputs::push(&mut out.events, Event::Mapped { mapping, internal, lifetime });
        }
    }

    fn on_refused(&mut self, now: Instant, protocol: MappingProtocol, code: u16, out: &mut Outputs) {
        self.side(protocol).end(Outcome::Refused(code));
        Outputs::push(&mut out.events, Event::Refused { protocol, code });
        match self.held {
            Some(held) if held.protocol == protocol => self.lose(now, out),
            Some(_) => {}
            None => self.advance(now, out),
        }
    }

    /// The promise is over: seeks another.
    fn lose(&mut self, now: Instant, out: &mut Outputs) {
        if let Some(mapping) = self.mapping() {
            Outputs::push(&mut out.events, Event::Lost { mapping });
        }
        self.held = None;
        self.seek(now, out);
    }

    /// The gateway's host answers that nobody listens at the port.
    pub(super) fn on_unreachable(&mut self, now: Instant, out: &mut Outputs) {
        if self.phase != Phase::Alive {
            return;
        }
        if let Some(held) = self.held {
            if self.side(held.protocol).is_asking() && held.protocol != UPNP {
                self.side(held.protocol).stop();
                self.on_silence(now, held.protocol, out);
            }
            return;
        }
        if self.side(PCP).is_asking() || self.side(NAT_PMP).is_asking() {
            for protocol in [PCP, NAT_PMP] {
                if self.side(protocol).outcome == Outcome::Unknown {
                    self.side(protocol).end(Outcome::None);
                }
            }
            self.advance(now, out);
        }
    }

    pub(super) fn on_nat_pmp(&mut self, now: Instant, answer: &natpmp::Answer, out: &mut Outputs) {
        if self.phase != Phase::Alive {
            // RFC 6886 §3.4: the mapping is gone when the answer says so.
            let gone = matches!(answer.body, natpmp::Body::Mapped { internal, lifetime_s: 0, .. }
                if internal == self.wish.internal.port());
            if gone && self.held.is_none_or(|held| held.protocol == NAT_PMP) {
                self.phase = Phase::Released;
            }
            return;
        }
        if let natpmp::Body::Refused { code: natpmp::UNSUPPORTED_VERSION, .. } = answer.body
            && self.side(PCP).is_asking()
        {
            // RFC 6887 appendix A: so a NAT-PMP server answers PCP.
            if self.held.is_none() {
                self.side(PCP).end(Outcome::None);
                self.advance(now, out);
            } else {
                self.on_refused(now, PCP, natpmp::UNSUPPORTED_VERSION, out);
            }
            return;
        }
        if !self.side(NAT_PMP).is_asking() {
            let moved = matches!((answer.body, self.held), (natpmp::Body::Address(ip), Some(held))
                if held.protocol == NAT_PMP && held.external.ip() != ip);
            if moved {
                self.look_soon(now, Duration::ZERO, out);
            }
            return;
        }
        match answer.body {
            natpmp::Body::Address(ip) if ip.is_unspecified() => {
                return self.on_refused(now, NAT_PMP, natpmp::NETWORK_FAILURE, out);
            }
            natpmp::Body::Address(ip) => self.nat_pmp_address = Some(ip),
            natpmp::Body::Mapped { internal, external, lifetime_s } => {
                if internal != self.wish.internal.port() || external == 0 || lifetime_s == 0 {
                    return;
                }
                self.nat_pmp_port = Some((external, lifetime_s));
            }
            natpmp::Body::Refused { code, .. } => return self.on_refused(now, NAT_PMP, code, out),
        }
        if let (Some(ip), Some((port, lifetime_s))) = (self.nat_pmp_address, self.nat_pmp_port) {
            self.on_mapped(now, NAT_PMP, SocketAddr::new(ip.into(), port), Some(lifetime_s), out);
        }
    }

    pub(super) fn on_pcp(&mut self, now: Instant, answer: &pcp::Answer, out: &mut Outputs) {
        let own = |nonce: Nonce, internal: u16| nonce == self.nonce && internal == self.wish.internal.port();
        if self.phase != Phase::Alive {
            let gone = matches!(answer.body, pcp::Body::Map { nonce, internal, .. }
                if own(nonce, internal) && answer.lifetime_s == 0 && answer.result == 0);
            if gone {
                self.phase = Phase::Released;
            }
            return;
        }
        match answer.body {
            pcp::Body::Announce => {}
            pcp::Body::Bare => {
                // A server of PCP alone answers NAT-PMP so; it would have answered PCP otherwise by now.
                let protocol = match answer.version {
                    pcp::VERSION if !self.side(PCP).is_asking() => NAT_PMP,
                    _ => PCP,
                };
                if self.side(protocol).is_asking() {
                    self.on_refused(now, protocol, answer.result.into(), out);
                }
            }
            pcp::Body::Map { nonce, internal, external } => {
                if !own(nonce, internal) || !self.side(PCP).is_asking() {
                    return;
                }
                if answer.result != 0 {
                    self.on_refused(now, PCP, answer.result.into(), out);
                } else if answer.lifetime_s != 0 && external.port() != 0 && !external.ip().is_unspecified() {
                    self.on_mapped(now, PCP, external, Some(answer.lifetime_s), out);
                }
            }
        }
    }

    pub(super) fn on_upnp(&mut self, now: Instant, answer: UpnpAnswer, out: &mut Outputs) {
        let asking = self.side(UPNP).is_asking();
        self.side(UPNP).stop();
        if self.phase != Phase::Alive {
            match answer {
                // Ordered before the release.
                UpnpAnswer::Mapped { external, .. } => self.unmap_upnp(external.port(), out),
                UpnpAnswer::NoGateway | UpnpAnswer::Refused(_) | UpnpAnswer::Unmapped => self.phase = Phase::Released,
            }
            return;
        }
        if !asking || self.held.is_some_and(|held| held.protocol != UPNP) {
            return;
        }
        match answer {
            UpnpAnswer::Mapped { external, .. } if external.port() == 0 || external.ip().is_unspecified() => {
                self.on_refused(now, UPNP, 0, out);
            }
            UpnpAnswer::Mapped { external, lifetime_s } => {
                self.on_mapped(now, UPNP, external.into(), (lifetime_s != 0).then_some(lifetime_s), out);
            }
            UpnpAnswer::NoGateway => self.on_silence(now, UPNP, out),
            UpnpAnswer::Refused(code) => self.on_refused(now, UPNP, code, out),
            UpnpAnswer::Unmapped => {}
        }
    }

    /// Gives back what is held, and what may have been granted without us knowing yet.
    pub(super) fn release(&mut self, now: Instant, out: &mut Outputs) {
        if self.phase != Phase::Alive {
            return;
        }
        self.send_release(out);
        // Whether something unanswered was granted is not waited for, but in UPnP's case, where it would stay.
        self.phase = if self.held.is_some() || self.side(UPNP).is_asking() {
            Phase::Releasing { again: Some(now + RELEASE_AGAIN), until: now + RELEASE_MAX }
        } else {
            Phase::Released
        };
        if let Some(Granted { protocol: UPNP, external, .. }) = self.held {
            self.unmap_upnp(external.port(), out);
        }
    }

    fn send_release(&mut self, out: &mut Outputs) {
        for protocol in [PCP, NAT_PMP] {
            if self.side(protocol).is_asking() || self.held.is_some_and(|held| held.protocol == protocol) {
                self.send(protocol, 0, out);
            }
        }
    }

    fn unmap_upnp(&mut self, external_port: u16, out: &mut Outputs) {
        if let SocketAddr::V4(internal) = self.wish.internal {
            let internal: SocketAddrV4 = internal;
            Outputs::push(&mut out.orders, UpnpOrder::Unmap { internal, external_port });
        }
    }
}
