//! Carries [`Measuring`](crate::keepalive::Measuring): which home could help it, sockets and probes for it, and its
//! pace to the peers.

use super::Node;
use crate::api::Event;
use crate::keepalive::{Home, Output, Place, View};
use crate::net::{PeerKey, SocketId, SocketKind, SocketRequest};
use crate::path::Route;
use crate::time::Instant;
use crate::transport::Purpose;

impl Node {
    /// Sockets or interfaces changed: this may be another network.
    pub(crate) fn keepalive_on_network(&mut self, now: Instant) {
        self.measuring.on_network(now);
        self.carry_measuring(now);
    }

    /// The router gave us another address, although our network is the same: it had forgotten us.
    pub(crate) fn keepalive_on_forgotten(&mut self, now: Instant) {
        let view = self.measuring_view();
        self.measuring.on_forgotten(now, &view);
        self.carry_measuring(now);
    }

    /// io opened a socket for the measurement.
    pub(crate) fn on_lifetime_socket(&mut self, now: Instant, request: SocketRequest, socket: SocketId) {
        self.measuring.on_socket(now, request, socket);
        self.carry_measuring(now);
    }

    /// A probe was answered, perhaps one of these.
    pub(crate) fn on_lifetime_reply(&mut self, now: Instant, key: PeerKey, socket: SocketId, token: [u8; 8]) -> bool {
        let is_ours = self.measuring.on_reply(now, key, socket, token);
        if is_ours {
            self.carry_measuring(now);
        }
        is_ours
    }

    pub(crate) fn keepalive_timeout(&mut self, now: Instant) {
        if self.measuring.poll_timeout().is_some_and(|at| at <= now) {
            let view = self.measuring_view();
            self.measuring.handle_timeout(now, &view);
            self.carry_measuring(now);
        }
    }

    fn carry_measuring(&mut self, now: Instant) {
        let view = self.measuring_view();
        while let Some(output) = self.measuring.poll_output(now, &view) {
            match output {
                Output::Open(family) => {
                    let request = self.open_socket(Purpose::Lifetime, SocketKind::Udp(family));
                    self.measuring.on_asked(now, request);
                }
                Output::Probe { home, from, token, delay } => self.send_probe(now, home, from, token, delay, false),
                Output::Close(socket) => self.close_socket(now, socket),
                Output::SetPace(pace) => self.peers.set_pace(pace),
                Output::Challenge { home, socket, remote } => {
                    self.challenge(now, home, Some(Route::Direct { socket, remote }));
                }
                Output::Save(save) => self.report.tell(Event::Save(save)),
            }
        }
    }

    fn measuring_view(&self) -> View {
        let is_main = |socket| self.transports.network().sockets.iter().any(|(main, _)| *main == socket);
        let home = self.direct_homes().find(|(_, socket, _)| is_main(*socket));
        let home = home.map(|(key, socket, remote)| {
            let seen = self.peers.get(key).and_then(|p| self.nat.seen_from(&p.id(), remote, socket));
            Home { key, socket, remote, place: seen.map(|seen| Place::new(self.transports.network(), socket, seen)) }
        });
        View {
            home,
            is_helper_up: self.measuring.helper().is_some_and(|key| self.peers.is_up(key)),
            is_serving: self.overlay.is_serving(),
            is_reachable: self.overlay.reachable(),
        }
    }
}
