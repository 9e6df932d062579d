//! Carries out what programs ask for in [`Command`]s.

use std::io;

use handfast_core::{PeerId, ServiceName, StreamKey};

use crate::command::{Command, Reply, WaitError, Waited, answer};
use crate::connections::{Target, User};
use crate::endpoint::Pong;
use crate::local::{Local, LocalSocket};
use crate::pump::Pump;
use crate::run_loop::{LEAVE_MAX, Loop, listener_token};
use crate::stream::Stream;

impl Loop {
    pub(crate) fn on_command(&mut self, command: Command) {
        let now = self.now;
        match command {
            Command::Neighbor { neighbor, reply } => {
                self.node.handle_neighbor(now, &neighbor);
                answer(&reply, ());
            }
            Command::NeighborGone { peer, reply } => {
                self.node.handle_neighbor_gone(now, peer);
                answer(&reply, ());
            }
            Command::Join { known, reply } => answer(&reply, self.node.join(now, &known)),
            Command::Learn { ticket, reply } => answer(&reply, self.node.learn(now, &ticket)),
            Command::Expose { service, target, access, reply } => {
                let offered = self.node.offer(now, service, access);
                if offered.is_ok() {
                    self.services.insert(service, Target::Tcp(target));
                }
                answer(&reply, offered);
            }
            Command::Offer { service, access, incoming, reply } => {
                let offered = self.node.offer(now, service, access).map(|()| {
                    self.offers += 1;
                    self.services.insert(service, Target::Program { offer: self.offers, incoming });
                    self.offers
                });
                answer(&reply, offered);
            }
            Command::Withdraw { service, offer } => self.withdraw(&service, offer),
            Command::Listen { listener, peer, service, reply } => {
                let added = self
                    .registry()
                    .try_clone()
                    .and_then(|registry| self.listeners.add(listener, peer, service, &registry, listener_token));
                answer(&reply, added);
            }
            Command::CloseListener { listener } => {
                if let Ok(registry) = self.registry().try_clone() {
                    self.listeners.close(listener, &registry);
                }
            }
            Command::Open { peer, service, reply } => {
                let opened = self.node.open(now, peer, &service).map(|key| {
                    let (stream, attached) = Stream::attach(key, peer, false, self.handle.clone());
                    self.connections.add(key, User::Program(attached));
                    stream
                });
                answer(&reply, opened);
            }
            Command::Connect { peer, patience, reply } => match self.node.connect(now, peer) {
                Err(error) => answer(&reply, Err(WaitError::Command(error))),
                Ok(()) => match self.node.path_of(&peer) {
                    Some((path, _)) => answer(&reply, Ok(path)),
                    None => self.waiting.for_link(peer, now + patience, reply),
                },
            },
            Command::Ping { peer, patience, reply } => self.ping(peer, patience, reply),
            Command::SendDatagram { peer, data, reply } => {
                answer(&reply, self.node.send_datagram(now, peer, &data));
            }
            Command::PathOf { peer, reply } => answer(&reply, self.node.path_of(&peer)),
            Command::Status { reply } => answer(&reply, self.node.status(now)),
            Command::Ticket { service, reply } => answer(&reply, self.node.ticket(service)),
            Command::Subscribe { events, reply } => {
                self.subscribers.push(events);
                answer(&reply, ());
            }
            Command::Attend { stream } => {
                let _ = self.connections.call_by_key(stream);
            }
            Command::Splice { stream, socket, reply } => answer(&reply, self.splice(stream, socket)),
            Command::Upnp { internal, answer } => self.port_map.on_upnp(now, internal, answer),
            Command::Leave => {
                if self.leaving.is_none() {
                    self.leaving = Some(now + LEAVE_MAX);
                    self.port_map.release(now);
                    self.node.leave(now);
                }
            }
        }
    }

    fn withdraw(&mut self, service: &ServiceName, offer: Option<u64>) {
        let counts = match (self.services.get(service), offer) {
            (_, None) => true,
            (Some(Target::Program { offer: current, .. }), Some(offer)) => *current == offer,
            (Some(Target::Tcp(_)) | None, Some(_)) => false,
        };
        if counts {
            self.services.remove(service);
            self.node.withdraw(self.now, service);
        }
    }

    fn ping(&mut self, peer: PeerId, patience: std::time::Duration, reply: Reply<Waited<Pong>>) {
        match self.node.ping(self.now, peer) {
            Ok(sequence) => self.waiting.for_pong(peer, sequence, self.now + patience, reply),
            Err(error) => answer(&reply, Err(WaitError::Command(error))),
        }
    }

    /// Puts a pump in the place of a program.
    fn splice(&mut self, key: StreamKey, socket: LocalSocket) -> io::Result<()> {
        let socket = Local::adopt(socket)?;
        match self.connections.remove(key) {
            Some(User::Program(attached)) => {
                let spliced = self.add_pump(Pump::new(key, socket, attached.into_carried()));
                if spliced.is_err() {
                    let _ = self.node.reset(self.now, key, 0);
                    let _ = self.node.stop(self.now, key, 0);
                }
                spliced
            }
            other => {
                if let Some(pump) = other {
                    self.connections.add(key, pump);
                }
                socket.close_hard();
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the stream has ended"))
            }
        }
    }
}
