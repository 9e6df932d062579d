//! Port mapping as the loop drives it: told of networks, it keeps the router asked and says what is mapped.
//!
//! [`Mapper`] in the core decides everything. [`PortMap`] is told of each network that the node is told of
//! ([`PortMap::adopt`], which puts the mappings into it), looks which router leads out, carries datagrams and orders,
//! and says in [`PortMap::turn`] when the mappings have changed. When the node leaves, everything is given back
//! ([`PortMap::release`]), and the loop waits until it is.

use std::io;
use std::net::SocketAddr;

use handfast_core::portmap::{Event, Mapper, Report, UpnpAnswer, Wish};
use handfast_core::{Instant, Mapping, Network, SecretKey};
use mio::{Registry, Token};

use super::sockets::{Heard, Sockets};
use super::upnp::{TellUpnp, Upnp};
use super::wishes::wishes;
use crate::host::{self, Gateways, own_ipv4};

/// The mapper with its sockets and UPnP's thread, and the network that its mappings belong to.
pub(crate) struct PortMap {
    /// None: it is off.
    work: Option<Work>,
    network: Network,
    report: Option<Report>,
}

struct Work {
    mapper: Mapper,
    wishes: Vec<Wish>,
    sockets: Sockets,
    upnp: Upnp,
}

impl PortMap {
    /// Off.
    pub(crate) fn off() -> Self {
        Self { work: None, network: Network::default(), report: None }
    }

    /// Ready for the first network. News of its sockets comes under `token`; what UPnP answers is told from a thread
    /// of its own.
    pub(crate) fn new(key: &SecretKey, registry: Registry, token: Token, tell: TellUpnp) -> io::Result<Self> {
        let work = Work {
            mapper: Mapper::new(key, host::fresh()?),
            wishes: Vec::new(),
            sockets: Sockets::new(registry, token),
            upnp: Upnp::new(tell),
        };
        Ok(Self { work: Some(work), ..Self::off() })
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
            work.sockets.set_readable();
        }
    }

    /// Whether they still may.
    pub(crate) fn is_readable(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.sockets.is_readable())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.work.as_ref()?.mapper.poll_timeout()
    }

    /// Receives, tells the time, sends. The network with its mappings, if these have changed.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Network> {
        let work = self.work.as_mut()?;
        if work.sockets.is_readable() {
            work.receive(now);
        }
        work.mapper.handle_timeout(now);
        work.flush(now);
        let mappings = work.mapper.mappings();
        if mappings == self.network.mappings {
            return None;
        }
        self.network.mappings = mappings;
        Some(self.network.clone())
    }

    /// What is known so far, when that is something new; at least that it is on.
    pub(crate) fn take_report(&mut self) -> Option<Report> {
        let report = self.work.as_ref()?.mapper.report();
        if self.report.as_ref() == Some(&report) {
            return None;
        }
        self.report = Some(report.clone());
        Some(report)
    }

    /// UPnP did what was ordered for this address.
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
        self.sockets.adapt(&wishes);
        self.wishes = wishes;
        self.mapper.handle_wishes(now, &self.wishes);
        self.flush(now);
    }

    fn receive(&mut self, now: Instant) {
        let mapper = &mut self.mapper;
        self.sockets.receive(|from, heard| match heard {
            Heard::Datagram(data) => mapper.handle_datagram(now, from, data),
            Heard::Unreachable => mapper.handle_unreachable(now, from),
        });
    }

    /// Carries out what the mapper wants.
    fn flush(&mut self, now: Instant) {
        while let Some(transmit) = self.mapper.poll_transmit() {
            if !self.sockets.send(transmit.internal, &transmit.data) {
                self.mapper.handle_unreachable(now, transmit.to);
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
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn switched_off_it_passes_networks_on_and_wants_nothing() {
        let mut map = PortMap::off();
        let network = Network { epoch: 7, ..Network::default() };
        assert_eq!(map.adopt(Instant::ZERO, network.clone()), network);
        assert_eq!((map.poll_timeout(), map.turn(Instant::ZERO), map.take_report()), (None, None, None));
        assert!(map.is_released() && !map.is_readable());
    }

    #[test]
    fn a_report_is_given_once_and_a_network_without_a_way_out_is_left_at_once() {
        let poll = mio::Poll::new().expect("poll");
        let registry = poll.registry().try_clone().expect("registry");
        let key = SecretKey::from_bytes(&[1; 32]);
        let mut map = PortMap::new(&key, registry, Token(1), Arc::new(|_, _| {})).expect("entropy");
        assert!(map.take_report().is_some(), "that it is on");
        assert!(map.take_report().is_none());
        // Bound to loopback alone: nothing is asked of any router.
        let sockets = vec![(handfast_core::SocketId(0), "127.0.0.1:7".parse().expect("an address"))];
        map.adopt(Instant::ZERO, Network { sockets, ..Network::default() });
        assert_eq!(map.turn(Instant::ZERO + Duration::from_secs(1)), None);
        map.release(Instant::ZERO + Duration::from_secs(2));
        assert!(map.is_released());
    }
}
