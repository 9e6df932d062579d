//! The sockets of port mapping: one towards the router for each wish, and one that hears routers' announcements.
//!
//! Each wish has a socket of its own, bound to the own address (PCP insists) and connected to the router, so that the
//! kernel drops what anybody else sends and tells when nobody listens there. They come and go with the wishes
//! ([`Sockets::adapt`]); what arrives is passed on as it is, for the mapper to judge.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use handfast_core::portmap::{ANNOUNCE_PORT, Wish, pcp};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams taken from one socket in one turn; more come with the next.
const RECEIVED_PER_TURN: usize = 32;

/// All of them.
pub(super) struct Sockets {
    registry: Registry,
    token: Token,
    /// By the wish's own address: the way to its router.
    lines: BTreeMap<SocketAddr, Line>,
    announcements: Option<UdpSocket>,
    readable: bool,
}

/// A connected socket.
struct Line {
    socket: UdpSocket,
    gateway: SocketAddr,
}

/// What came from a router.
pub(super) enum Heard<'a> {
    /// A datagram.
    Datagram(&'a [u8]),
    /// Word that nobody listens there.
    Unreachable,
}

impl Sockets {
    /// None yet. `token` is what news of any of them comes under.
    pub(super) fn new(registry: Registry, token: Token) -> Self {
        Self { registry, token, lines: BTreeMap::new(), announcements: None, readable: false }
    }

    /// Closes what no wish needs any more, and opens what one needs.
    pub(super) fn adapt(&mut self, wishes: &[Wish]) {
        // Closing takes it out of the poll.
        self.lines.retain(|internal, line| {
            wishes.iter().any(|wish| wish.internal == *internal && wish.gateway == Some(line.gateway))
        });
        for wish in wishes {
            let Some(gateway) = wish.gateway.filter(|_| !self.lines.contains_key(&wish.internal)) else { continue };
            match self.open(wish.internal.ip(), gateway) {
                Ok(socket) => {
                    self.lines.insert(wish.internal, Line { socket, gateway });
                }
                // Then it is silent for the mapper.
                Err(error) => tracing::debug!(%error, "no socket for port mapping"),
            }
        }
        if self.announcements.is_none() && wishes.iter().any(|wish| wish.gateway.is_some_and(|at| at.is_ipv4())) {
            self.announcements = self
                .hear_announcements()
                .inspect_err(|error| tracing::debug!(%error, "announcements of routers are not heard"))
                .ok();
        }
    }

    /// They may have something.
    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Whether they still may.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Takes what came, with whom it came from.
    pub(super) fn receive(&mut self, mut heard: impl FnMut(SocketAddr, Heard<'_>)) {
        // One more than the longest, so that a longer one is not taken for it.
        let mut buf = [0; pcp::LEN_MAX + 1];
        let mut more = false;
        for line in self.lines.values() {
            let mut left = RECEIVED_PER_TURN;
            while left > 0 {
                left -= 1;
                match line.socket.recv(&mut buf) {
                    Ok(len) => heard(line.gateway, Heard::Datagram(buf.get(..len).unwrap_or_default())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => {
                        if error.kind() == ErrorKind::ConnectionRefused {
                            heard(line.gateway, Heard::Unreachable);
                        }
                    }
                }
            }
            more |= left == 0;
        }
        if let Some(socket) = &self.announcements {
            let mut left = RECEIVED_PER_TURN;
            while left > 0 {
                left -= 1;
                match socket.recv_from(&mut buf) {
                    Ok((len, from)) => heard(from, Heard::Datagram(buf.get(..len).unwrap_or_default())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
            more |= left == 0;
        }
        self.readable = more;
    }

    /// Sends a request from an own address to its router. False: nobody listens there.
    pub(super) fn send(&self, internal: SocketAddr, data: &[u8]) -> bool {
        let Some(line) = self.lines.get(&internal) else { return true };
        match line.socket.send(data) {
            // An ICMP error about an earlier datagram.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return false,
            // What is lost is sent again.
            Err(error) => tracing::debug!(%error, "a request for a port was not sent"),
            Ok(_) => {}
        }
        true
    }

    /// A socket from an own address to a router.
    fn open(&self, own: IpAddr, gateway: SocketAddr) -> io::Result<UdpSocket> {
        let mut socket = UdpSocket::bind(SocketAddr::new(own, 0))?;
        socket.connect(gateway)?;
        self.registry.register(&mut socket, self.token, Interest::READABLE)?;
        Ok(socket)
    }

    /// RFC 6886 §3.2.1 and RFC 6887 §14.1: routers that lost their mappings say so to all hosts. Others on this host
    /// may listen too.
    fn hear_announcements(&self) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCE_PORT)).into())?;
        // All hosts: members from birth, on systems that do not mind being asked to join.
        let _ = socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &Ipv4Addr::UNSPECIFIED);
        let mut socket = UdpSocket::from_std(socket.into());
        self.registry.register(&mut socket, self.token, Interest::READABLE)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::SocketId;

    use super::*;

    fn wish(internal: &str, gateway: SocketAddr) -> Wish {
        Wish { socket: SocketId(0), internal: internal.parse().expect("an address"), gateway: Some(gateway) }
    }

    #[test]
    fn lines_come_and_go_with_the_wishes_and_hear_their_router_alone() {
        let poll = mio::Poll::new().expect("poll");
        let mut sockets = Sockets::new(poll.registry().try_clone().expect("registry"), Token(1));
        let router = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let gateway = router.local_addr().expect("an address");
        let wish = wish("127.0.0.1:7", gateway);
        sockets.adapt(&[wish]);
        assert!(sockets.send(wish.internal, b"request"));
        let mut buf = [0; 16];
        let (len, line) = router.recv_from(&mut buf).expect("the request");
        assert_eq!(&buf[..len], b"request");
        other.send_to(b"forged", line).expect("sent");
        router.send_to(b"answer", line).expect("sent");
        let mut heard = Vec::new();
        sockets.set_readable();
        sockets.receive(|from, what| {
            if let Heard::Datagram(data) = what {
                heard.push((from, data.to_vec()));
            }
        });
        assert_eq!(heard, [(gateway, b"answer".to_vec())]);
        assert!(!sockets.is_readable(), "it is empty now");
        sockets.adapt(&[]);
        assert!(sockets.send(wish.internal, b"request"), "a line that is gone is silent");
        assert!(sockets.lines.is_empty());
    }
}
