//! [`Measuring`] with a home, a router and an io that are a model: networks and homes come and go, sockets are opened
//! or refused, answers come or do not, time passes.

use core::time::Duration;
use std::collections::BTreeSet;

use super::measuring::{Home, Measuring, Output, View};
use super::place::Place;
use super::{Duty, Pace};
use crate::net::{PeerKey, SocketId, SocketRequest};
use crate::operations::Bytes;
use crate::random::Seed;
use crate::time::Instant;

/// Sockets that one measurement has at a time.
const AT_ONCE_MAX: usize = 3;

struct World {
    measuring: Measuring,
    now: Instant,
    home: Option<Home>,
    is_serving: bool,
    is_reachable: Option<bool>,
    /// Asked for and not yet answered.
    asked: Vec<SocketRequest>,
    open: BTreeSet<SocketId>,
    probes: Vec<(PeerKey, SocketId, [u8; 8])>,
    pace: Pace,
    next: u32,
}

impl World {
    fn view(&self) -> View {
        let up = self.home.map(|home| home.key);
        View {
            home: self.home,
            is_helper_up: self.measuring.helper().is_some_and(|helper| Some(helper) == up),
            is_serving: self.is_serving,
            is_reachable: self.is_reachable,
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn carry(&mut self, is_granted: bool) {
        let view = self.view();
        while let Some(output) = self.measuring.poll_output(self.now, &view) {
            match output {
                Output::Open(_) => {
                    let request = is_granted.then(|| SocketRequest(self.number()));
                    self.asked.extend(request);
                    self.measuring.on_asked(self.now, request);
                }
                Output::Probe { home, from, token, delay } => {
                    assert!(self.open.contains(&from.socket), "from a socket that is not open");
                    assert_eq!(self.measuring.helper(), Some(home));
                    assert!(delay <= Duration::from_secs(300));
                    self.probes.push((home, from.socket, token));
                }
                Output::Close(socket) => assert!(self.open.remove(&socket), "only what is open is closed"),
                Output::SetPace(pace) => {
                    assert_ne!(pace, self.pace, "nothing new");
                    self.pace = pace;
                }
                Output::Challenge { home, .. } => assert_eq!(view.home.map(|home| home.key), Some(home)),
                Output::Save(_) => assert!(self.measuring.lifetime(Duty::Binding).is_some()),
            }
        }
        assert_eq!(self.measuring.may_be_forgotten(), self.pace != Pace::OPEN);
        assert!(self.open.len() <= AT_ONCE_MAX);
        assert!(self.measuring.helper().is_some() || self.open.is_empty(), "whoever measures nothing needs none");
    }

    fn step(&mut self, op: u8, number: u8) {
        match op % 10 {
            0 => self.measuring.on_network(self.now),
            1 => {
                let place =
                    (!number.is_multiple_of(4)).then_some(Place { network: [number % 3; 8], is_own: number % 8 == 1 });
                let key = PeerKey { index: u32::from(number / 64), generation: 1 };
                self.home = Some(Home { key, socket: SocketId(0), remote: ([198, 51, 100, 1], 4_000).into(), place });
                self.measuring.on_home(self.now);
            }
            2 => {
                let view = self.view();
                self.measuring.on_forgotten(self.now, &view);
            }
            3 if number.is_multiple_of(8) => self.home = None,
            3 => self.is_serving = number % 8 == 1,
            4 => self.is_reachable = [None, Some(false), Some(true)][usize::from(number % 3)],
            5 | 6 => {
                if !self.asked.is_empty() {
                    let request = self.asked.remove(usize::from(number) % self.asked.len());
                    let socket = SocketId(self.number());
                    self.open.insert(socket);
                    self.measuring.on_socket(self.now, request, socket);
                }
            }
            7 | 8 => {
                if !self.probes.is_empty() {
                    let (home, socket, token) = self.probes.remove(usize::from(number) % self.probes.len());
                    let _ = self.measuring.on_reply(self.now, home, socket, token);
                }
            }
            _ => self.pass(Duration::from_millis(u64::from(number) * u64::from(number) * 10)),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let view = self.view();
        self.measuring.handle_timeout(self.now, &view);
        self.carry(true);
        assert!(self.measuring.poll_timeout().is_none_or(|at| at > self.now), "what is due is done");
    }
}

/// Reads operations of two bytes each.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let measuring = Measuring::new(&Seed::new([7; 32]), &[([2; 8], 100_000)]);
    let mut world = World {
        measuring,
        now: Instant::ZERO,
        home: None,
        is_serving: false,
        is_reachable: None,
        asked: Vec::new(),
        open: BTreeSet::new(),
        probes: Vec::new(),
        pace: Pace::UNKNOWN,
        next: 0,
    };
    while !bytes.is_empty() {
        let (op, number) = (bytes.u8(), bytes.u8());
        world.step(op, number);
        world.carry(op < 250);
    }
    // Another network: whatever was under way is over, and with nobody to help nothing begins.
    world.home = None;
    world.measuring.on_network(world.now);
    world.carry(true);
    world.pass(Duration::from_secs(3_600));
    assert!(world.open.is_empty() && world.measuring.poll_timeout().is_none());
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn measurements_come_and_go_and_no_socket_is_left() {
        super::drive(&[]);
        drive_at_random(400, 400, super::drive);
    }
}
