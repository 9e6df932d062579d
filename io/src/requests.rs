//! Carries out what programs ask for in [`Command`]s. A reply that nobody waits for any more is no error.

use std::io;

use handfast_core::{PeerId, ServiceName, StreamKey};

use crate::command::{Command, Reply, WaitError, Waited};
use crate::endpoint::Pong;
use crate::local::{Local, LocalSocket};
use crate::pump::Pump;
use crate::run_loop::{LEAVE_MAX, Loop, Target, User, listener_token};
use crate::stream::Stream;

impl Loop {
    pub(crate) fn on_command(&mut self, command: Command) {
        let now = self.now;
        match command {
            Command::Join { known, reply } => drop(reply.send(self.node.join(now, &known))),
            Command::Learn { ticket, reply } => drop(reply.send(self.node.learn(now, &ticket))),
            Command::Expose { service, target, access, reply } => {
                let offered = self.node.offer(now, service, access);
                if offered.is_ok() {
                    self.services.insert(service, Target::Tcp(target));
                }
                drop(reply.send(offered));
            }
            Command::Offer { service, access, incoming, reply } => {
                let offered = self.node.offer(now, service, access).map(|()| {
                    self.offers += 1;
                    self.services.insert(service, Target::Program { offer: self.offers, incoming });
                    self.offers
                });
                drop(reply.send(offered));
            }
            Command::Withdraw { service, offer } => self.withdraw(&service, offer),
            Command::Listen { listener, peer, service, reply } => {
                let added = self
                    .registry()
                    .try_clone()
                    .and_then(|registry| self.listeners.add(listener, peer, service, &registry, listener_token));
                drop(reply.send(added));
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
                drop(reply.send(opened));
            }
            Command::Connect { peer, patience, reply } => match self.node.connect(now, peer) {
                Err(error) => drop(reply.send(Err(WaitError::Command(error)))),
                Ok(()) => match self.node.path_of(&peer) {
                    Some((path, _)) => drop(reply.send(Ok(path))),
                    None => self.waiting.for_link(peer, now + patience, reply),
                },
            },
            Command::Ping { peer, patience, reply } => self.ping(peer, patience, reply),
            Command::SendDatagram { peer, data, reply } => {
                drop(reply.send(self.node.send_datagram(now, peer, &data)));
            }
            Command::PathOf { peer, reply } => drop(reply.send(self.node.path_of(&peer))),
            Command::Status { reply } => drop(reply.send(self.node.status(now))),
            Command::Ticket { service, reply } => drop(reply.send(self.node.ticket(service))),
            Command::Subscribe { events, reply } => {
                self.subscribers.push(events);
                drop(reply.send(()));
            }
            Command::Attend { stream } => drop(self.connections.call_by_key(stream).is_some()),
            Command::Splice { stream, socket, reply } => drop(reply.send(self.splice(stream, socket))),
            Command::Leave => {
                if self.leaving.is_none() {
                    self.leaving = Some(now + LEAVE_MAX);
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
            Err(error) => drop(reply.send(Err(WaitError::Command(error)))),
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
