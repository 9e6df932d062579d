//! Carries out what the node says in its [`Event`]s.

use std::sync::mpsc::TrySendError;

use handfast_core::{Event, PeerId, ServiceName, SocketKind, SocketRefused, StreamEnd, StreamKey};

use crate::connections::{Target, User};
use crate::endpoint::Pong;
use crate::local::Local;
use crate::pump::{Carried, Pump};
use crate::run_loop::{Loop, TARGET_CONNECT_MAX, connection_token};
use crate::stream::Stream;

impl Loop {
    pub(crate) fn on_event(&mut self, event: Event) {
        self.publish(&event);
        match event {
            Event::Ready => self.board.0.set_ready(true),
            Event::Homeless => self.board.0.set_ready(false),
            Event::PathChanged { peer, path } => self.waiting.on_link(peer, path),
            Event::PeerGone { .. } | Event::RoleChanged { .. } => {}
            Event::ConnectFailed { peer, error } => self.waiting.on_failed(peer, error),
            Event::Pong { peer, sequence, rtt, path } => self.waiting.on_pong(peer, sequence, Pong { rtt, path }),
            Event::StreamIncoming { stream, peer, service } => self.on_incoming(stream, peer, &service),
            Event::StreamOpened { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(attached)) => attached.on_opened(),
                Some(User::Pump(_)) | None => {}
            },
            Event::Readable { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(attached)) => attached.on_readable(),
                Some(User::Pump(pump)) => pump.on_readable(),
                None => {}
            },
            Event::Writable { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(attached)) => attached.on_writable(),
                Some(User::Pump(pump)) => pump.on_writable(),
                None => {}
            },
            Event::StreamStopped { stream } => match self.connections.call_by_key(stream) {
                Some(User::Program(attached)) => attached.on_stopped(),
                Some(User::Pump(pump)) => pump.on_stopped(),
                None => {}
            },
            Event::StreamEnded { stream, end } => match self.connections.remove(stream) {
                Some(User::Program(attached)) => attached.on_ended(end),
                Some(User::Pump(_)) => tracing::debug!(?end, "a local connection is broken off"),
                None => {}
            },
            Event::Datagram { peer } => self.on_datagram(peer),
            Event::OpenSocket { request, kind: SocketKind::Udp(family) } => {
                let opened = self.sockets.open_extra(family).map_err(|error| {
                    tracing::debug!(%error, "an extra UDP socket is refused");
                    SocketRefused
                });
                self.node.handle_socket(self.now, request, opened);
            }
            Event::OpenSocket { request, kind: SocketKind::Tcp { remote } } => {
                if let Err(error) = self.sockets.tcp.connect(self.now, request, remote) {
                    tracing::debug!(%error, "no TCP connection");
                    self.node.handle_socket(self.now, request, Err(SocketRefused));
                }
            }
            Event::CloseSocket(socket) => self.sockets.close(socket),
            Event::Save(item) => self.saver.keep(item),
            Event::Left => self.left = true,
        }
    }

    /// Tells subscribers what is worth a status line.
    fn publish(&mut self, event: &Event) {
        match event {
            Event::Readable { .. }
            | Event::Writable { .. }
            | Event::Datagram { .. }
            | Event::OpenSocket { .. }
            | Event::CloseSocket(_)
            | Event::Save(_) => {}
            Event::Ready
            | Event::Homeless
            | Event::RoleChanged { .. }
            | Event::PathChanged { .. }
            | Event::PeerGone { .. }
            | Event::ConnectFailed { .. }
            | Event::Pong { .. }
            | Event::StreamIncoming { .. }
            | Event::StreamOpened { .. }
            | Event::StreamStopped { .. }
            | Event::StreamEnded { .. }
            | Event::Left => {
                self.subscribers
                    .retain(|events| !matches!(events.try_send(event.clone()), Err(TrySendError::Disconnected(_))));
            }
        }
    }

    /// A peer opened a stream: to the program, or the address, behind the service.
    fn on_incoming(&mut self, key: StreamKey, peer: PeerId, service: &ServiceName) {
        let taken = match self.services.get(service) {
            Some(Target::Tcp(target)) => {
                let target = *target;
                Local::connect(target).and_then(|socket| {
                    self.add_pump(Pump::connecting(key, socket))?;
                    self.connections.expect_connected(key, self.now + TARGET_CONNECT_MAX);
                    Ok(())
                })
            }
            Some(Target::Program { incoming, .. }) => {
                let (stream, attached) = Stream::attach(key, peer, true, self.handle.clone());
                match incoming.try_send((stream, peer)) {
                    Ok(()) if self.node.accept(self.now, key).is_ok() => {
                        self.connections.add(key, User::Program(attached));
                        Ok(())
                    }
                    // Gone again; the program will see a stream that ended.
                    Ok(()) => Ok(()),
                    Err(_) => Err(std::io::Error::other("the program does not take its streams")),
                }
            }
            None => Err(std::io::Error::other("no program is behind the service")),
        };
        if let Err(error) = taken {
            tracing::debug!(%service, %error, "a stream is refused");
            let _ = self.node.refuse(self.now, key, StreamEnd::Unavailable);
        }
    }

    fn on_datagram(&mut self, peer: PeerId) {
        while let Some(len) = self.node.recv_datagram(peer, &mut self.scratch) {
            let data = self.scratch.get(..len).unwrap_or(&self.scratch).to_vec();
            self.board.0.push_datagram(peer, data);
        }
    }

    /// A connection to a local listener: a new stream for it. Bytes may flow at once; if the peer refuses, the local
    /// program sees a reset.
    pub(crate) fn on_local_connection(&mut self, socket: mio::net::TcpStream, peer: PeerId, service: &ServiceName) {
        let socket = Local::tcp(socket);
        let key = match self.node.open(self.now, peer, service) {
            Ok(key) => key,
            Err(error) => {
                tracing::debug!(?error, "a local connection is refused");
                socket.close_hard();
                return;
            }
        };
        if let Err(error) = self.add_pump(Pump::new(key, socket, Carried::default())) {
            tracing::debug!(%error, "a local connection cannot be watched");
            let _ = self.node.reset(self.now, key, 0);
            let _ = self.node.stop(self.now, key, 0);
        }
    }

    /// Registers a pump's socket and has it visited.
    pub(crate) fn add_pump(&mut self, mut pump: Pump) -> std::io::Result<()> {
        let token = connection_token(self.connections.next_index());
        pump.socket_mut().register(self.registry(), token)?;
        self.connections.add(pump.key(), User::Pump(pump));
        Ok(())
    }
}
