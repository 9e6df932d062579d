//! Between a host and the rest of the world: what reaches it, and what its calls do elsewhere.
//!
//! Each call is a [`Site`]'s. Its [`Effect`]s are carried out here, each checked and put into the trace; a lean world
//! does neither.

use core::net::{IpAddr, SocketAddr};

use handfast_core::Instant;

use crate::host::HostId;
use crate::site::{Around, Effect, Site};
use crate::tcp::News;
use crate::trace::Entry;
use crate::wire::{Datagram, INTERNET, Port};
use crate::world::World;

impl World {
    /// Makes calls at a host, and carries out what they do.
    pub(crate) fn at<R>(&mut self, id: HostId, call: impl FnOnce(&mut Site<'_>) -> R) -> R {
        let mut effects = core::mem::take(&mut self.effects);
        let around = Around {
            lans: &self.wire.lans,
            tcp: &self.tcp,
            supernodes: &self.supernodes,
            lateness: self.lateness,
            is_lean: self.is_lean,
        };
        let host = &mut self.hosts[id.0];
        let mut site = Site { now: self.now, host, around, effects: &mut effects, buf: &mut self.bufs[0] };
        let result = call(&mut site);
        self.list(id);
        for effect in effects.drain(..) {
            self.carry_out(self.now, id, effect);
        }
        self.effects = effects;
        result
    }

    /// Does elsewhere what a call at a host does.
    pub(crate) fn carry_out(&mut self, at: Instant, id: HostId, effect: Effect) {
        match effect {
            Effect::Sent(entry, lan, datagram) => {
                self.note_probe(at, id, datagram.dst.ip());
                if entry == Entry::Sent && !self.is_lean {
                    let is_router = self.is_router(datagram.dst.ip());
                    self.checks.on_sent(at, id, datagram.dst, &datagram.bytes, is_router);
                }
                self.trace_datagram(entry, id, &datagram);
                self.wire.send(at, lan, datagram);
            }
            Effect::SentTcp(entry, socket, packet) => {
                self.trace_datagram(entry, id, &packet);
                self.tcp.send(at, &self.wire, &self.hosts, socket, packet.bytes);
            }
            Effect::Connect(request, remote) => {
                self.tcp.connect(at, &self.wire, &self.hosts[id.0], request, remote);
            }
            Effect::Close(socket) => self.tcp.close(at, socket),
            Effect::Lost(count) => *count(&mut self.wire.counts) += 1,
            Effect::Said(event) => self.hear(at, id, event),
        }
    }

    /// Counts what goes to anybody but a supernode, where that is wanted.
    fn note_probe(&mut self, at: Instant, id: HostId, to: IpAddr) {
        if self.hosts[id.0].probes.is_none() || self.supernodes.iter().any(|s| self.hosts[s.0].is_at(to)) {
            return;
        }
        self.hosts[id.0].probes.get_or_insert_default().push(at);
    }

    /// Whether ports may be guessed there. A leaf without a router is where its home says it is, as a router is.
    fn is_router(&self, ip: IpAddr) -> bool {
        match self.wire.lans[INTERNET.0].members.get(ip).map(|m| m.port) {
            Some(Port::Router(_)) => true,
            Some(Port::Host(host)) => self.hosts[host.0].node.is_some() && !self.supernodes.contains(&host),
            None => false,
        }
    }

    fn trace_datagram(&mut self, entry: Entry, id: HostId, datagram: &Datagram) {
        if !self.is_lean {
            self.trace.datagram(self.now, entry, id.0, datagram.src, datagram.dst, &datagram.bytes);
        }
    }

    /// A datagram reached a host: hands it to the node, with those right behind it where they make a train.
    pub(crate) fn deliver(&mut self, id: HostId, first: Datagram) {
        let now = self.now;
        let train = Site::train(&mut self.hosts[id.0], first, |train| self.wire.pop_like(now, id, train));
        if !self.is_lean {
            for datagram in &train {
                self.trace_datagram(Entry::Delivered, id, datagram);
            }
            if Site::hears(&self.hosts[id.0], &train[0]) {
                self.checks.on_received(id, train[0].src);
            }
        }
        self.at(id, |site| site.deliver(&train));
    }

    /// Something happened with a host's TCP connections.
    pub(crate) fn on_tcp(&mut self, id: HostId, news: News) {
        if !self.is_lean {
            self.trace.note(self.now, Entry::Event, id.0, &format!("{news:?}"));
        }
        self.at(id, |site| site.on_tcp(news));
    }

    /// Puts a datagram on the internet, whatever its source says.
    pub fn inject(&mut self, origin: HostId, src: SocketAddr, dst: SocketAddr, bytes: Vec<u8>) {
        let datagram = Datagram { src, dst, bytes, ecn: None, origin };
        self.trace_datagram(Entry::Sent, origin, &datagram);
        self.at(origin, |site| site.account(true, &datagram));
        self.wire.send(self.now, INTERNET, datagram);
    }
}
