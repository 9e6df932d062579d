//! Everything that carries packets, by [`SocketId`]: UDP sockets, and TCP connections in their place.
//!
//! Whoever sends names a path and need not know what it is made of; the number of the socket tells. A UDP socket may be
//! full, and keeps the sender waiting; a TCP connection has a queue of its own and never does.

use std::io;
use std::net::SocketAddr;

use handfast_core::{Ecn, Instant, Path, SocketId, SocketKind, SocketRefused, SocketRequest};
use mio::Registry;

use super::tokens;
use crate::tcp::Tcp;
use crate::udp::{Detour, Sent, UdpSockets};

/// What became of a request for a socket: its number and our end's address.
pub(super) type Opened = Result<(SocketId, SocketAddr), SocketRefused>;

/// All of them.
pub(super) struct Carriers {
    udp: UdpSockets,
    tcp: Tcp,
}

impl Carriers {
    /// None yet.
    pub(super) fn new(registry: &Registry, detour: Option<Detour>) -> io::Result<Self> {
        Ok(Self {
            udp: UdpSockets::new(registry.try_clone()?, tokens::udp, detour),
            tcp: Tcp::new(registry.try_clone()?, tokens::tcp, tokens::tcp_listener),
        })
    }

    /// Binds the sockets to live with: UDP at `listen`, TCP at the same ports if `takes_tcp`, and at `listen_tcp`.
    pub(super) fn bind(&mut self, listen: &[SocketAddr], takes_tcp: bool, listen_tcp: &[SocketAddr]) -> io::Result<()> {
        let Self { udp, tcp } = self;
        udp.bind_main(listen, |bound| if takes_tcp { tcp.listen(bound) } else { Ok(()) })?;
        for address in listen_tcp {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on TCP {address}: {error}"));
            tcp.listen(*address).map_err(named)?;
        }
        Ok(())
    }

    /// The UDP sockets.
    pub(super) fn udp(&mut self) -> &mut UdpSockets {
        &mut self.udp
    }

    /// The TCP connections.
    pub(super) fn tcp(&mut self) -> &mut Tcp {
        &mut self.tcp
    }

    /// The UDP sockets bound at start, the main one first.
    pub(super) fn main(&self) -> &[(SocketId, SocketAddr)] {
        self.udp.main()
    }

    /// Opens what the core asks for. A TCP connection takes a while; of it nothing is told yet, unless it fails at
    /// once.
    pub(super) fn open(&mut self, now: Instant, request: SocketRequest, kind: SocketKind) -> Option<Opened> {
        match kind {
            SocketKind::Udp(family) => Some(self.udp.open_extra(family).map_err(|error| {
                tracing::debug!(%error, "an extra UDP socket is refused");
                SocketRefused
            })),
            SocketKind::Tcp { remote } => self.tcp.connect(now, request, remote).err().map(|error| {
                tracing::debug!(%error, "no TCP connection");
                Err(SocketRefused)
            }),
            _ => Some(Err(SocketRefused)),
        }
    }

    /// Closes what the core had opened, or a connection that came in.
    pub(super) fn close(&mut self, id: SocketId) {
        if id.is_tcp() { self.tcp.close(id) } else { self.udp.close(id) }
    }

    /// Longest train, in datagrams, worth asking the core for.
    pub(super) fn segments_max(&self) -> usize {
        self.udp.segments_max()
    }

    /// Whether the last send found no room, and none was reported since.
    pub(super) fn is_full(&self, id: SocketId) -> bool {
        !id.is_tcp() && self.udp.is_full(id)
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter).
    pub(super) fn send(&mut self, path: &Path, bytes: &[u8], segment: usize, ecn: Option<Ecn>) -> Sent {
        if path.socket.is_tcp() {
            self.tcp.send(path.socket, bytes, segment);
            return Sent::Done;
        }
        self.udp.send(path, bytes, segment, ecn)
    }

    /// Sends what a relay forwards: what finds no room is dropped, never kept.
    pub(super) fn forward(&mut self, path: &Path, bytes: &[u8], stride: usize) {
        if path.socket.is_tcp() {
            self.tcp.send(path.socket, bytes, stride);
        } else {
            self.udp.forward(path, bytes, stride);
        }
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.udp.any_readable() || self.tcp.is_busy()
    }

    /// When there is something to do in any case.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.tcp.next_deadline()
    }

    /// Done now and then: see both rooms.
    pub(super) fn keep_house(&mut self, now: Instant) {
        self.udp.keep_house(now);
        self.tcp.keep_house();
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::Family;

    use super::*;

    #[test]
    fn a_number_tells_which_kind_is_meant() {
        let poll = mio::Poll::new().expect("poll");
        let mut carriers = Carriers::new(poll.registry(), None).expect("registry");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        carriers.bind(&[loopback], true, &[]).expect("bound");
        let main = carriers.main()[0];
        // TCP listens at the same port.
        assert!(std::net::TcpStream::connect(main.1).is_ok());

        let opened = carriers.open(Instant::ZERO, SocketRequest(1), SocketKind::Udp(Family::V4));
        let (extra, _) = opened.expect("at once").expect("opened");
        assert!(!extra.is_tcp() && extra != main.0);
        carriers.close(extra);
        let tcp = carriers.open(Instant::ZERO, SocketRequest(2), SocketKind::Tcp { remote: main.1 });
        assert_eq!(tcp, None, "that takes a while");
        assert!(carriers.next_deadline().is_some());

        // To a connection that is gone: nothing, and nobody waits.
        let gone = Path { socket: SocketId::TCP_FIRST, remote: main.1, local: None };
        assert_eq!(carriers.send(&gone, b"x", 1, None), Sent::Done);
        assert!(!carriers.is_full(gone.socket));
    }

    #[test]
    fn a_tcp_address_that_is_taken_is_named() {
        let poll = mio::Poll::new().expect("poll");
        let mut carriers = Carriers::new(poll.registry(), None).expect("registry");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let busy = std::net::TcpListener::bind(taken.expect("an address")).expect("bound again");
        let at = busy.local_addr().expect("an address");
        let error = carriers.bind(&[([127, 0, 0, 1], 0).into()], false, &[at]).expect_err("taken");
        assert!(error.to_string().contains(&at.to_string()), "{error}");
    }
}
