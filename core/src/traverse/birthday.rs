//! Birthday punching: one side holds many sockets open, the other guesses a port.
//!
//! The *holder* is behind a router that gives each new mapping a port that nobody can foresee. It opens many sockets
//! and has each send to the *guesser's* one endpoint, so that as many ports of its router are open towards that
//! endpoint. The guesser sends from its one socket to ports drawn from all that there are. The first packet that gets
//! in is authentic, is challenged like any other from a new address, and the path is there.
//!
//! With h of w ports open, n different guesses miss with (1 − h/w)^n: 256 of 64 512 are hit by 2 000 guesses in 99.96
//! of 100 cases. Within a learned block even a few sockets are found surely, since all ports of it are tried.
//!
//! [`Holder`] and [`Guesser`] are handed the time and say what to send next; each sends a packet every [`PACE`] at
//! most.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use super::step::Step;
use crate::net::SocketId;
use crate::time::Instant;

/// Sockets where ports come from anywhere.
pub(crate) const SOCKETS_FULL: u16 = 256;
/// Most sockets where they come from a block.
pub(crate) const SOCKETS_BLOCK_MAX: u16 = 64;
/// And the fewest.
pub(crate) const SOCKETS_BLOCK_MIN: u16 = 8;
/// The lowest port that is guessed (RFC 6056 §3.2: those below are the system's).
pub(crate) const PORTS: u16 = 1_024;
/// How many there are.
pub(crate) const PORTS_FULL: u16 = 64_512;
/// Most guesses.
pub(crate) const TRIES_MAX: u16 = 2_000;
/// Both sides give up after this.
pub(crate) const BIRTHDAY_MAX: Duration = Duration::from_secs(20);
/// From one packet to the next: 100 a second.
pub(crate) const PACE: Duration = Duration::from_millis(10);
/// A held socket sends again after this, lest its mapping end.
const REFRESH: Duration = Duration::from_secs(5);
/// Most sockets asked for and not there yet, and most that are there and have not sent: io is not flooded.
const OPENING_MAX: usize = 16;

/// The side that holds sockets open.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    to: SocketAddr,
    wanted: u16,
    asked: u16,
    opening: u16,
    fresh: VecDeque<SocketId>,
    /// Those that have sent, the longest silent first.
    open: VecDeque<(SocketId, Instant)>,
    next: Instant,
}

impl Holder {
    /// Holds so many sockets open towards an endpoint.
    pub(crate) fn new(now: Instant, to: SocketAddr, sockets: u16) -> Self {
        Self { to, wanted: sockets, asked: 0, opening: 0, fresh: VecDeque::new(), open: VecDeque::new(), next: now }
    }

    /// A socket is there, or could not be opened; then no more are asked for.
    pub(crate) fn on_socket(&mut self, socket: Option<SocketId>) {
        self.opening = self.opening.saturating_sub(1);
        match socket {
            Some(socket) => self.fresh.push_back(socket),
            None => self.wanted = self.asked,
        }
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        if self.wants_socket() {
            self.asked += 1;
            self.opening += 1;
            return Some(Step::Open);
        }
        if now < self.next {
            return None;
        }
        let refresh = |first: &(SocketId, Instant)| first.1 + REFRESH <= now;
        let socket = match self.fresh.pop_front() {
            Some(socket) => socket,
            None => self.open.front().copied().filter(refresh).and_then(|_| self.open.pop_front())?.0,
        };
        self.open.push_back((socket, now));
        self.next = now + PACE;
        Some(Step::Send { socket: Some(socket), to: self.to })
    }

    fn wants_socket(&self) -> bool {
        self.asked < self.wanted && usize::from(self.opening) + self.fresh.len() < OPENING_MAX
    }

    /// When there is something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = if self.fresh.is_empty() { self.open.front()?.1 + REFRESH } else { self.next };
        Some(due.max(self.next))
    }
}

/// The side that guesses.
#[derive(Clone, Debug)]
pub(crate) struct Guesser {
    ip: IpAddr,
    first: u16,
    width: u32,
    at: u32,
    stride: u32,
    left: u16,
    next: Instant,
}

impl Guesser {
    /// Guesses `tries` times among `width` ports from `first` on; all of them before any comes again.
    ///
    /// A random start and a random stride are as good as random ports: it is the holder's that nobody foresees.
    pub(crate) fn new(now: Instant, ip: IpAddr, first: u16, width: u16, tries: u16, random: u64) -> Self {
        let width = u32::from(width.max(1));
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let (low, high) = (random as u32, (random >> 32) as u32);
        let mut stride = low % width;
        while gcd(stride, width) != 1 {
            stride = (stride + 1) % width.max(2);
        }
        Self { ip, first, width, at: high % width, stride, left: tries, next: now }
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        if now < self.next || self.left == 0 {
            return None;
        }
        self.left -= 1;
        self.next = now + PACE;
        let port = u16::try_from(u32::from(self.first) + self.at).unwrap_or(u16::MAX);
        self.at = (self.at + self.stride) % self.width;
        Some(Step::Send { socket: None, to: SocketAddr::new(self.ip, port) })
    }

    /// When there is something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next)
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const IP: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn guesses(guesser: &mut Guesser, ms: core::ops::Range<u64>) -> Vec<u16> {
        let port = |step| match step {
            Step::Send { socket: None, to } => to.port(),
            other => panic!("{other:?}"),
        };
        ms.filter_map(|ms| guesser.step(at(ms)).map(port)).collect()
    }

    #[test]
    fn guesses_are_different_and_a_hundred_a_second() {
        for random in [0, 1, u64::MAX, 0x1234_5678_9ABC_DEF0] {
            let mut guesser = Guesser::new(at(0), IP, PORTS, PORTS_FULL, TRIES_MAX, random);
            assert_eq!(guesses(&mut guesser, 0..1_000).len(), 100);
            let all = guesses(&mut guesser, 1_000..60_000);
            assert_eq!(all.len(), 1_900);
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1_900);
            assert!(all.iter().all(|port| *port >= PORTS));
            assert_eq!((guesser.step(at(60_000)), guesser.poll_timeout()), (None, None));
        }
    }

    #[test]
    fn all_ports_of_a_block_are_tried_before_any_comes_again() {
        for width in [1, 2, 3, 64, 510, 512] {
            let mut guesser = Guesser::new(at(0), IP, 2_048, width, TRIES_MAX, 0xFEDC_BA98_7654_3210);
            let all = guesses(&mut guesser, 0..30_000);
            assert_eq!(all.len(), usize::from(TRIES_MAX));
            let first: BTreeSet<u16> = all[..usize::from(width)].iter().copied().collect();
            assert!(first.into_iter().eq(2_048..2_048 + width), "{width}");
        }
    }

    #[test]
    fn sockets_are_opened_in_steps_and_refreshed() {
        let to = SocketAddr::new(IP, 9);
        let mut holder = Holder::new(at(0), to, 40);
        let (mut opened, mut outstanding_max) = (0, 0);
        let mut sent: Vec<(u64, SocketId)> = Vec::new();
        for ms in 0..20_000 {
            loop {
                let mut asked = 0;
                while let Some(step) = holder.step(at(ms)) {
                    match step {
                        Step::Open => asked += 1,
                        Step::Send { socket: Some(socket), to: there } => {
                            assert_eq!(there, to);
                            sent.push((ms, socket));
                        }
                        other => panic!("{other:?}"),
                    }
                }
                if asked == 0 {
                    break;
                }
                outstanding_max = outstanding_max.max(asked);
                for _ in 0..asked {
                    opened += 1;
                    holder.on_socket(Some(SocketId(opened)));
                }
            }
            assert!(holder.poll_timeout().is_some_and(|at| at > self::at(ms)));
        }
        assert_eq!((opened, outstanding_max), (40, OPENING_MAX));
        assert_eq!(sent.iter().map(|(_, s)| s).collect::<BTreeSet<_>>().len(), 40);
        assert!(sent.windows(2).all(|w| w[1].0 - w[0].0 >= 10), "a hundred a second");
        let times: Vec<u64> = sent.iter().filter(|(_, s)| *s == SocketId(1)).map(|(ms, _)| *ms).collect();
        assert!((3..=4).contains(&times.len()) && times.windows(2).all(|w| w[1] - w[0] >= 5_000), "{times:?}");
    }

    #[test]
    fn where_no_socket_can_be_opened_no_more_are_asked_for() {
        let mut holder = Holder::new(at(0), SocketAddr::new(IP, 9), 256);
        let asked = core::iter::from_fn(|| holder.step(at(0))).count();
        assert_eq!(asked, OPENING_MAX);
        for n in 0..asked {
            holder.on_socket((n < 3).then_some(SocketId(n as u32)));
        }
        let more: Vec<Step> = (0..1_000).filter_map(|ms| holder.step(at(ms))).collect();
        assert_eq!(more.len(), 3, "{more:?}");
    }
}
