//! Port mapping's hands: sockets towards the router, the thread for UPnP, and the wishes of this host.
//!
//! [`Mapper`] in the core decides everything. [`PortMap`] is told of each network that the node is told of
//! ([`PortMap::adopt`], which puts the mappings into it), looks which router leads out, carries datagrams and orders,
//! and says in [`PortMap::turn`] when the mappings have changed. Each wish has a socket of its own, bound to the own
//! address (PCP insists) and connected to the router, so that the kernel drops what anybody else sends and tells when
//! nobody listens there. One more hears announcements.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use handfast_core::portmap::{ANNOUNCE_PORT, Event, Mapper, PORT, Report, UpnpAnswer, Wish, pcp};
use handfast_core::{Instant, Mapping, Network, SecretKey};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, Socket, Type};

use crate::board::Board;
use crate::command::LoopHandle;
use crate::entropy;
use crate::gateway::{Gateways, own_ipv4};
use crate::run_loop::PORT_MAP;
use crate::upnp::Upnp;

/// Datagrams taken from one socket in one turn; more come with the next.
const RECEIVED_PER_TURN: usize = 32;
/// Own IPv6 addresses for which the firewall is asked: as many as a node names to its peers.
const V6_MAX: usize = 4;

/// See the module.
pub(crate) struct PortMap {
    /// None: it is off.
    work: Option<Work>,
    network: Network,
    report: Option<Report>,
}

struct Work {
    mapper: Mapper,
    registry: Registry,
    wishes: Vec<Wish>,
    /// By the wish's own address: the way to its router.
    sockets: BTreeMap<SocketAddr, Line>,
    announcements: Option<mio::net::UdpSocket>,
    readable: bool,
    upnp: Upnp,
}

/// A connected socket.
struct Line {
    socket: mio::net::UdpSocket,
    gateway: SocketAddr,
}

impl PortMap {
    /// Off, or ready for the first network.
    pub(crate) fn new(on: bool, key: &SecretKey, registry: Registry, handle: LoopHandle) -> io::Result<Self> {
        let work = on
            .then(|| {
                Ok::<_, io::Error>(Work {
                    mapper: Mapper::new(key, entropy::fresh()?),
                    registry,
                    wishes: Vec::new(),
                    sockets: BTreeMap::new(),
                    announcements: None,
                    readable: false,
                    upnp: Upnp::new(handle),
                })
            })
            .transpose()?;
        Ok(Self { work, network: Network::default(), report: None })
    }

    /// Another network, or the first: what is mapped is put into it, and everything is asked for again.
    pub(crate) fn adopt(&mut self, now: Instant, network: Network) -> Network {
        let mappings = self.work.as_ref().map(|work| work.mapper.mappings()).unwrap_or_default();
        self.network = Network { mappings, ..network };
        if let Some(work) = &mut self.work {
            work.mapper.handle_change(now);
            work.flush(now);
        }
        self.look(now);
        self.network.clone()
    }

    /// Which router leads out now?
    fn look(&mut self, now: Instant) {
        let Some(work) = &mut self.work else { return };
        let wishes = wishes(&self.network, Gateways::look(), own_ipv4);
        if wishes != work.wishes {
            work.wish(now, wishes);
        }
    }

    /// The sockets may have something.
    pub(crate) fn set_readable(&mut self) {
        if let Some(work) = &mut self.work {
            work.readable = true;
        }
    }

    /// Whether they still may.
    pub(crate) fn is_readable(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.readable)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.work.as_ref()?.mapper.poll_timeout()
    }

    /// Receives, tells the time, sends. The network with its mappings, if these have changed.
    pub(crate) fn turn(&mut self, now: Instant, board: &Board) -> Option<Network> {
        let work = self.work.as_mut()?;
        if work.readable {
            work.receive(now);
        }
        work.mapper.handle_timeout(now);
        work.flush(now);
        let mappings = work.mapper.mappings();
        self.publish(board);
        if mappings == self.network.mappings {
            return None;
        }
        self.network.mappings = mappings;
        Some(self.network.clone())
    }

    /// Says what is known so far: that it is on, at least.
    pub(crate) fn publish(&mut self, board: &Board) {
        let Some(work) = &self.work else { return };
        let report = work.mapper.report();
        if self.report.as_ref() != Some(&report) {
            board.set_port_mapping(report.clone());
            self.report = Some(report);
        }
    }

    pub(crate) fn on_upnp(&mut self, now: Instant, internal: SocketAddr, answer: UpnpAnswer) {
        if let Some(work) = &mut self.work {
            work.mapper.handle_upnp(now, internal, answer);
            work.flush(now);
        }
    }

    /// The node leaves: gives everything back.
    pub(crate) fn release(&mut self, now: Instant) {
        if let Some(work) = &mut self.work {
            work.mapper.release(now);
            work.flush(now);
        }
    }

    /// Whether that is done.
    pub(crate) fn is_released(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.mapper.is_released())
    }
}

impl Work {
    fn wish(&mut self, now: Instant, wishes: Vec<Wish>) {
        tracing::debug!(?wishes, "port mapping");
        let gone = |internal: &SocketAddr, line: &Line| {
            !wishes.iter().any(|wish| wish.internal == *internal && wish.gateway == Some(line.gateway))
        };
        let old: Vec<SocketAddr> = self
            .sockets
            .iter()
            .filter(|(internal, line)| gone(internal, line))
            .map(|(internal, _)| *internal)
            .collect();
        for internal in old {
            // Closing takes it out of the poll.
            self.sockets.remove(&internal);
        }
        for wish in &wishes {
            let Some(gateway) = wish.gateway.filter(|_| !self.sockets.contains_key(&wish.internal)) else { continue };
            match open(wish.internal.ip(), gateway, &self.registry) {
                Ok(socket) => {
                    self.sockets.insert(wish.internal, Line { socket, gateway });
                }
                // Then it is silent for the mapper.
                Err(error) => tracing::debug!(%error, "no socket for port mapping"),
            }
        }
        if self.announcements.is_none() && wishes.iter().any(|wish| wish.gateway.is_some_and(|at| at.is_ipv4())) {
            self.announcements = hear_announcements(&self.registry)
                .inspect_err(|error| tracing::debug!(%error, "announcements of routers are not heard"))
                .ok();
        }
        self.wishes = wishes;
        self.mapper.handle_wishes(now, &self.wishes);
        self.flush(now);
    }

    fn receive(&mut self, now: Instant) {
        // One more than the longest, so that a longer one is not taken for it.
        let mut buf = [0; pcp::LEN_MAX + 1];
        let mut more = false;
        for line in self.sockets.values() {
            let mut left = RECEIVED_PER_TURN;
            while left > 0 {
                left -= 1;
                match line.socket.recv(&mut buf) {
                    Ok(len) => self.mapper.handle_datagram(now, line.gateway, buf.get(..len).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        if error.kind() == io::ErrorKind::ConnectionRefused {
                            self.mapper.handle_unreachable(now, line.gateway);
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
                    Ok((len, from)) => self.mapper.handle_datagram(now, from, buf.get(..len).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
            more |= left == 0;
        }
        self.readable = more;
    }

    /// Carries out what the mapper wants.
    fn flush(&mut self, now: Instant) {
        while let Some(transmit) = self.mapper.poll_transmit() {
            let Some(line) = self.sockets.get(&transmit.internal) else { continue };
            match line.socket.send(&transmit.data) {
                // An ICMP error about an earlier datagram.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.mapper.handle_unreachable(now, transmit.to);
                }
                // What is lost is sent again.
                Err(error) => tracing::debug!(%error, "a request for a port was not sent"),
                Ok(_) => {}
            }
        }
        while let Some(order) = self.mapper.poll_upnp() {
            self.upnp.order(order);
        }
        while let Some(event) = self.mapper.poll_event() {
            tell(&event);
        }
    }
}

/// One line for each thing that a user may want to know. Addresses are for those who asked to see them.
fn tell(event: &Event) {
    match event {
        Event::Mapped { mapping, internal, lifetime } => {
            tracing::info!(protocol = %mapping.protocol, "the router maps a port");
            tracing::debug!(external = %mapping.external, %internal, ?lifetime, "mapped");
        }
        Event::Lost { mapping: Mapping { protocol, .. } } => {
            tracing::info!(%protocol, "the router maps the port no more");
        }
        Event::Refused { protocol, code } => {
            tracing::info!(%protocol, code, why = protocol.refusal(*code), "the router refuses to map a port");
        }
    }
}

/// Which ports of which own addresses. `own` says which own address leads to a router.
fn wishes(network: &Network, gateways: Gateways, own: impl Fn(Option<SocketAddr>) -> Option<Ipv4Addr>) -> Vec<Wish> {
    let port = |gateway: Option<SocketAddr>| {
        gateway.map(|mut gateway| {
            gateway.set_port(PORT);
            gateway
        })
    };
    let (v4, v6) = (port(gateways.v4), port(gateways.v6));
    let own_v4 = own(v4);
    let mut wishes = Vec::new();
    for &(socket, bound) in &network.sockets {
        let is_bound_to = |ip: IpAddr| bound.ip().is_unspecified() || bound.ip() == ip;
        let mut add = |ip: IpAddr, gateway| {
            if is_bound_to(ip) {
                wishes.push(Wish { socket, internal: SocketAddr::new(ip, bound.port()), gateway });
            }
        };
        if bound.is_ipv4() {
            if let Some(ip) = own_v4 {
                add(ip.into(), v4);
            }
        } else if v6.is_some() {
            let outside =
                |ip: &&IpAddr| matches!(ip, IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local());
            for ip in network.interfaces.iter().filter(outside).take(V6_MAX) {
                add(*ip, v6);
            }
        }
    }
    wishes
}

/// A socket from an own address to a router.
fn open(own: IpAddr, gateway: SocketAddr, registry: &Registry) -> io::Result<mio::net::UdpSocket> {
    let mut socket = mio::net::UdpSocket::bind(SocketAddr::new(own, 0))?;
    socket.connect(gateway)?;
    registry.register(&mut socket, PORT_MAP, Interest::READABLE)?;
    Ok(socket)
}

/// RFC 6886 §3.2.1 and RFC 6887 §14.1: routers that lost their mappings say so to all hosts. Others on this host may
/// listen too.
fn hear_announcements(registry: &Registry) -> io::Result<mio::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCE_PORT)).into())?;
    // All hosts: members from birth, on systems that do not mind being asked to join.
    let _ = socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &Ipv4Addr::UNSPECIFIED);
    let mut socket = mio::net::UdpSocket::from_std(socket.into());
    registry.register(&mut socket, PORT_MAP, Interest::READABLE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use handfast_core::SocketId;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn wishes_are_what_leads_out() {
        let gateways = Gateways { v4: Some(addr("192.168.1.1:0")), v6: Some(addr("[fe80::1]:0")) };
        let own = |_: Option<SocketAddr>| Some(Ipv4Addr::new(192, 168, 1, 2));
        let network = |bound: &[&str]| Network {
            sockets: bound.iter().enumerate().map(|(n, text)| (SocketId(n as u32), addr(text))).collect(),
            interfaces: ["127.0.0.1", "192.168.1.2", "::1", "2001:db8::2", "fe80::2", "10.0.0.9"]
                .map(|ip| ip.parse().expect("an address"))
                .to_vec(),
            ..Network::default()
        };
        let told = |bound: &[&str], gateways, own: &dyn Fn(Option<SocketAddr>) -> Option<Ipv4Addr>| {
            let wishes = wishes(&network(bound), gateways, own);
            wishes.iter().map(|wish| (wish.internal.to_string(), wish.gateway.is_some())).collect::<Vec<_>>()
        };
        let one = |text: &str, gateway| (text.to_owned(), gateway);
        let any = ["0.0.0.0:7", "[::]:8"];
        assert_eq!(told(&any, gateways, &own), [one("192.168.1.2:7", true), one("[2001:db8::2]:8", true)]);
        assert_eq!(told(&["192.168.1.2:7"], gateways, &own), [one("192.168.1.2:7", true)]);
        assert_eq!(told(&["127.0.0.1:7", "10.0.0.9:7", "[::1]:7"], gateways, &own), []);
        assert_eq!(told(&any, Gateways::default(), &own), [one("192.168.1.2:7", false)], "UPnP finds it by itself");
        assert_eq!(told(&any, Gateways::default(), &|_| None), [], "a host without a way out");
    }
}
