//! How datagrams get from a node to the wire, and from the wire to a node, and what is looked at on the way.
//!
//! What a node wants sent becomes a datagram per segment; what arrives is handed over in trains, as a kernel does, and
//! where a relay says so sent on. Each is checked, put into the trace and counted; a lean world only counts.

use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;

use handfast_core::{Path, Received, Role, Transmit};

use crate::host::HostId;
use crate::invariant;
use crate::ledger::Party;
use crate::tcp::News;
use crate::trace::Entry;
use crate::wire::{Datagram, INTERNET, Port};
use crate::world::{BUF_LEN, World};

impl World {
    /// Sends what a node wants sent, as io would: one datagram per segment.
    pub(crate) fn transmit(&mut self, id: HostId, transmit: &Transmit, bytes: &[u8], entry: Entry) {
        let now = self.now;
        let remote = transmit.path.remote;
        if transmit.path.socket.is_tcp() {
            return self.transmit_tcp(id, transmit, bytes, entry);
        }
        let host = &mut self.hosts[id.0];
        let Some(bound) = host.sockets.get(&transmit.path.socket).copied() else {
            panic!("{id:?} sends from {:?}, which is not open", transmit.path.socket)
        };
        assert_eq!(bound.is_ipv4(), remote.is_ipv4(), "{id:?} sends from {bound} to {remote}");
        let lans = &self.wire.lans;
        let on_link = |lan: crate::wire::LanId| lan != INTERNET && lans[lan.0].members.get(remote.ip()).is_some();
        let Some(from) = host.route(remote, transmit.path.local, on_link) else {
            self.wire.counts.no_route += 1;
            return;
        };
        let src = SocketAddr::new(from.ip, bound.port());
        let segment_len = transmit.segment.map_or(bytes.len(), |s| usize::from(s.get()));
        self.note_probes(id, remote, bytes.len().div_ceil(segment_len.max(1)));
        let is_router = !self.is_lean && self.is_router(remote.ip());
        for segment in bytes.chunks(segment_len) {
            if entry == Entry::Sent && !self.is_lean {
                self.checks.on_sent(now, id, remote, segment, is_router);
            }
            let datagram = Datagram { src, dst: remote, bytes: segment.to_vec(), ecn: transmit.ecn, origin: id };
            self.trace_datagram(entry, id, &datagram);
            self.account(id, true, &datagram);
            self.wire.send(now, from.lan, datagram);
        }
    }

    /// Counts what goes to anybody but a supernode, where that is wanted.
    fn note_probes(&mut self, id: HostId, remote: SocketAddr, count: usize) {
        if self.hosts[id.0].probes.is_none() || self.supernodes.iter().any(|s| self.hosts[s.0].is_at(remote.ip())) {
            return;
        }
        let now = self.now;
        self.hosts[id.0].probes.get_or_insert_default().extend(std::iter::repeat_n(now, count));
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

    /// Counts a packet at a host.
    fn account(&mut self, id: HostId, outbound: bool, datagram: &Datagram) {
        // What reaches a machine whose node is down burdens nobody.
        let is_carried = outbound || self.hosts[id.0].node.is_some();
        if is_carried && self.hosts[id.0].ledger.is_some() {
            let other = if outbound { datagram.dst } else { datagram.src };
            let party = self.party_at(other.ip());
            if let Some(ledger) = &mut self.hosts[id.0].ledger {
                ledger.add(party, outbound, &datagram.bytes, datagram.ip_len());
            }
        }
        self.hosts[id.0].account(self.now, outbound, datagram);
    }

    /// Who is at a public address.
    fn party_at(&self, ip: IpAddr) -> Party {
        match self.wire.lans[INTERNET.0].members.get(ip).map(|m| m.port) {
            Some(Port::Host(host)) if matches!(self.hosts[host.0].config.role, Role::Supernode { .. }) => {
                Party::Supernode
            }
            _ => Party::Leaf,
        }
    }

    /// The same over a connection; one that is gone takes nothing.
    fn transmit_tcp(&mut self, id: HostId, transmit: &Transmit, bytes: &[u8], entry: Entry) {
        let now = self.now;
        let Some((src, dst)) = self.tcp.ends(transmit.path.socket) else { return };
        assert_eq!(dst, transmit.path.remote, "{id:?} sends to another one than the connection leads to");
        for segment in bytes.chunks(transmit.segment.map_or(bytes.len(), |s| usize::from(s.get()))) {
            let packet = Datagram { src, dst, bytes: segment.to_vec(), ecn: None, origin: id };
            self.trace_datagram(entry, id, &packet);
            self.account(id, true, &packet);
            self.tcp.send(now, &self.wire, &self.hosts, transmit.path.socket, packet.bytes);
        }
    }

    /// Something happened with a host's TCP connections.
    pub(crate) fn on_tcp(&mut self, id: HostId, news: News) {
        let now = self.now;
        if !self.is_lean {
            self.trace.note(now, Entry::Event, id.0, &format!("{news:?}"));
        }
        let node = self.hosts[id.0].node.as_mut().expect("only who is up has news");
        match news {
            News::Answer { request, socket } => {
                // Nothing depends on the address.
                let local = SocketAddr::from(([0, 0, 0, 0], 0));
                let result = socket.map(|socket| (socket, local)).ok_or(handfast_core::SocketRefused);
                node.handle_socket(now, request, result);
            }
            News::Accepted { socket, remote } => node.handle_connection(now, socket, remote),
            News::Packet { socket, remote, mut bytes } => {
                let src = remote;
                let packet = Datagram { src, dst: src, bytes: bytes.clone(), ecn: None, origin: id };
                self.account(id, false, &packet);
                let path = Path { socket, remote, local: None };
                let stride = bytes.len();
                self.feed(id, path, stride, &mut bytes);
            }
            News::Closed { socket } => node.handle_socket_closed(now, socket),
        }
        self.drain(id, false);
    }

    /// A datagram reached a host: hands it to the node, with those right behind it where they make a train.
    pub(crate) fn deliver(&mut self, id: HostId, mut first: Datagram) {
        let now = self.now;
        self.received(id, &first);
        let host = &self.hosts[id.0];
        let Some(socket) = host.socket_of(first.dst).filter(|_| host.node.is_some()) else {
            self.wire.counts.nobody_home += 1;
            return;
        };
        let stride = first.bytes.len();
        let mut data = core::mem::take(&mut first.bytes);
        // GRO: equal lengths, the last may be shorter. Half of the time, so that both forms are exercised.
        let coalesce = self.io_dice.below(2) == 0 && stride > 0;
        let mut open = coalesce;
        while open && data.len() + stride <= BUF_LEN {
            let Some(next) = self.wire.pop_like(now, id, &first, |len| len > 0 && len <= stride) else { break };
            open = next.bytes.len() == stride;
            self.received(id, &next);
            data.extend_from_slice(&next.bytes);
        }
        let path = Path { socket, remote: first.src, local: Some(first.dst.ip()) };
        if !self.is_lean {
            self.checks.on_received(id, first.src);
        }
        self.feed(id, path, stride, &mut data);
        self.drain(id, false);
    }

    fn received(&mut self, id: HostId, datagram: &Datagram) {
        self.trace_datagram(Entry::Delivered, id, datagram);
        self.account(id, false, datagram);
    }

    /// Calls `handle_datagrams` until the buffer is used up, and sends on what a relay says.
    fn feed(&mut self, id: HostId, path: Path, stride: usize, data: &mut [u8]) {
        let now = self.now;
        if data.is_empty() {
            let node = self.hosts[id.0].node.as_mut().expect("checked");
            let (used, verdict) = node.handle_datagrams(now, path, 1, data);
            assert!(used == 0 && matches!(verdict, Received::Dropped(_)), "an empty datagram was {verdict:?}");
            return;
        }
        let mut at = 0;
        while at < data.len() {
            let rest = &mut data[at..];
            let before = if self.is_lean { Vec::new() } else { rest.to_vec() };
            let node = self.hosts[id.0].node.as_mut().expect("checked");
            let (used, verdict) = node.handle_datagrams(now, path, stride, rest);
            invariant::check_consumed(used, stride, rest.len());
            if let Received::Forward { path: to, range, stride } = verdict {
                if !self.is_lean {
                    invariant::check_forward(path.remote, to.remote, &range, stride, used, &before, rest);
                }
                let len = range.end - range.start;
                let segment = NonZeroU16::new(stride as u16).filter(|s| usize::from(s.get()) < len);
                self.transmit(id, &Transmit { path: to, len, segment, ecn: None }, &rest[range], Entry::Forwarded);
            }
            at += used;
        }
    }

    /// Puts a datagram on the internet, whatever its source says.
    pub fn inject(&mut self, origin: HostId, src: SocketAddr, dst: SocketAddr, bytes: Vec<u8>) {
        let now = self.now;
        let datagram = Datagram { src, dst, bytes, ecn: None, origin };
        self.trace_datagram(Entry::Sent, origin, &datagram);
        self.account(origin, true, &datagram);
        self.wire.send(now, INTERNET, datagram);
    }
}
