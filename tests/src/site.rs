//! One host at one moment: what goes into its node, what comes out, and nothing of any other host.
//!
//! A [`Site`] makes the calls. What a node sends becomes a datagram per segment; what arrives is handed over in trains,
//! as a kernel does, and where a relay says so sent on. Whatever that is to do to the rest of the world becomes an
//! [`Effect`], in order: the [`World`](crate::world::World) carries it out at once, or when a
//! [window](crate::window) ends.

use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;
use core::time::Duration;

use handfast_core::{Event, Family, Instant, Node, Path, Received, SocketId, SocketKind, SocketRequest, Transmit};

use crate::fault::FaultCounts;
use crate::host::{Host, HostId};
use crate::invariant;
use crate::ledger::Party;
use crate::tcp::{News, Tcp};
use crate::trace::Entry;
use crate::wire::{Datagram, INTERNET, Lan, LanId, Port};

/// io's send buffer: 64 segments of the longest datagram.
pub(crate) const BUF_LEN: usize = 64 * 1472;
/// io tells the wall time so often.
pub(crate) const WALL_EVERY: Duration = Duration::from_secs(3600);

/// What a call at a host does to the rest of the world.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A datagram goes into a LAN.
    Sent(Entry, LanId, Datagram),
    /// A packet goes into a connection.
    SentTcp(Entry, SocketId, Datagram),
    /// It wants a connection.
    Connect(SocketRequest, SocketAddr),
    /// It closes one.
    Close(SocketId),
    /// A datagram ends here.
    Lost(fn(&mut FaultCounts) -> &mut u64),
    /// The node says something.
    Said(Event),
}

/// What of the world a host sees, and cannot change but by what it sends.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) lans: &'a [Lan],
    pub(crate) tcp: &'a Tcp,
    /// In the order of their numbers.
    pub(crate) supernodes: &'a [HostId],
    pub(crate) lateness: Duration,
    pub(crate) is_lean: bool,
}

impl Around<'_> {
    /// Who is at a public address.
    fn party_at(&self, ip: IpAddr) -> Party {
        match self.lans[INTERNET.0].members.get(ip).map(|m| m.port) {
            Some(Port::Host(host)) if self.supernodes.binary_search(&host).is_ok() => Party::Supernode,
            _ => Party::Leaf,
        }
    }
}

/// See [the module](self).
pub(crate) struct Site<'a> {
    pub(crate) now: Instant,
    pub(crate) host: &'a mut Host,
    pub(crate) around: Around<'a>,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// A send buffer of [`BUF_LEN`].
    pub(crate) buf: &'a mut [u8],
}

impl Site<'_> {
    // ---- calls ----

    /// Makes a call to the node, which is up, and drains what it caused.
    pub(crate) fn with<R>(&mut self, call: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let result = call(self.host.node.as_mut().expect("the node is up"), self.now);
        self.drain(false);
        result
    }

    /// A deadline has come: the node's, or that of the wall clock.
    pub(crate) fn on_deadline(&mut self) {
        let wall = self.host.wall(self.now);
        self.host.due = None;
        let Some(node) = &mut self.host.node else { return };
        if self.host.wall_due.is_some_and(|due| due <= self.now) {
            self.host.wall_due = Some(self.now + WALL_EVERY);
            node.handle_wall_clock(self.now, wall);
        }
        node.handle_timeout(self.now);
        self.drain(true);
    }

    /// A datagram that reached a host, and those behind it that the node gets in the same buffer: `next` gives them while
    /// there are some. Half of the time there are none, so that both forms are exercised.
    pub(crate) fn train(
        host: &mut Host,
        first: Datagram,
        mut next: impl FnMut(&[Datagram]) -> Option<Datagram>,
    ) -> Vec<Datagram> {
        // GRO: equal lengths, the last may be shorter.
        let mut open = Self::hears(host, &first) && !first.bytes.is_empty() && host.dice.below(2) == 0;
        let mut train = vec![first];
        while open {
            let Some(datagram) = next(&train) else { break };
            open = datagram.bytes.len() == train[0].bytes.len();
            train.push(datagram);
        }
        train
    }

    /// Whether there is a node, with a socket for it.
    pub(crate) fn hears(host: &Host, datagram: &Datagram) -> bool {
        host.node.is_some() && host.socket_of(datagram.dst).is_some()
    }

    /// Datagrams reached the host, one behind the other: hands them to the node in one buffer.
    pub(crate) fn deliver(&mut self, train: &[Datagram]) {
        for datagram in train {
            self.account(false, datagram);
        }
        let first = &train[0];
        let Some(socket) = self.host.socket_of(first.dst).filter(|_| self.host.node.is_some()) else {
            self.effects.push(Effect::Lost(|counts| &mut counts.nobody_home));
            return;
        };
        let path = Path { socket, remote: first.src, local: Some(first.dst.ip()) };
        let mut data: Vec<u8> = train.iter().flat_map(|datagram| &datagram.bytes).copied().collect();
        self.feed(path, first.bytes.len(), &mut data);
        self.drain(false);
    }

    /// Something happened with the host's TCP connections.
    pub(crate) fn on_tcp(&mut self, news: News) {
        let now = self.now;
        let node = self.host.node.as_mut().expect("only who is up has news");
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
                let packet = Datagram { src, dst: src, bytes: bytes.clone(), ecn: None, origin: self.host.id };
                self.account(false, &packet);
                let path = Path { socket, remote, local: None };
                let stride = bytes.len();
                self.feed(path, stride, &mut bytes);
            }
            News::Closed { socket } => node.handle_socket_closed(now, socket),
        }
        self.drain(false);
    }

    /// Calls `handle_datagrams` until the buffer is used up, and sends on what a relay says.
    fn feed(&mut self, path: Path, stride: usize, data: &mut [u8]) {
        let (now, is_lean) = (self.now, self.around.is_lean);
        let node = self.host.node.as_mut().expect("checked");
        if data.is_empty() {
            let (used, verdict) = node.handle_datagrams(now, path, 1, data);
            assert!(used == 0 && matches!(verdict, Received::Dropped(_)), "an empty datagram was {verdict:?}");
            return;
        }
        let mut at = 0;
        while at < data.len() {
            let rest = &mut data[at..];
            let before = if is_lean { Vec::new() } else { rest.to_vec() };
            let node = self.host.node.as_mut().expect("checked");
            let (used, verdict) = node.handle_datagrams(now, path, stride, rest);
            invariant::check_consumed(used, stride, rest.len());
            if let Received::Forward { path: to, range, stride } = verdict {
                if !is_lean {
                    invariant::check_forward(path.remote, to.remote, &range, stride, used, &before, rest);
                }
                let len = range.end - range.start;
                let segment = NonZeroU16::new(stride as u16).filter(|s| usize::from(s.get()) < len);
                self.transmit(&Transmit { path: to, len, segment, ecn: None }, &rest[range], Entry::Forwarded);
            }
            at += used;
        }
    }

    // ---- what comes out ----

    /// Takes from the node what it has, and notes when it wants to be called next.
    pub(crate) fn drain(&mut self, after_timeout: bool) {
        let now = self.now;
        let Some(mut node) = self.host.node.take() else { return };
        assert!(now >= self.host.last_now);
        self.host.last_now = now;
        let draining = self.host.draining;
        if draining {
            self.drain_outputs(&mut node);
        }
        let mut deadline = node.poll_timeout();
        let mut late = self.host.dice.duration(self.around.lateness);
        if draining {
            invariant::check_deadline(now, deadline, after_timeout);
        } else {
            // A caller that does not drain may well be told the same deadline again; it must not spin on it.
            late = late.max(Duration::from_millis(1));
            deadline = deadline.map(|at| at.max(now));
        }
        self.host.due = handfast_core::time::earliest(deadline.map(|at| at + late), self.host.wall_due);
        self.host.node = Some(node);
    }

    fn drain_outputs(&mut self, node: &mut Node) {
        let (now, id) = (self.now, self.host.id);
        let mut outputs = 0;
        loop {
            let mut idle = true;
            loop {
                let segments_max = [1, 2, 16, 64][self.host.dice.below(4) as usize];
                let Some(transmit) = node.poll_transmit(now, segments_max, self.buf) else { break };
                idle = false;
                let segment = transmit.segment.map(|s| usize::from(s.get()));
                invariant::check_train(transmit.len, segment, segments_max, self.buf.len());
                outputs += transmit.len.div_ceil(segment.unwrap_or(transmit.len));
                let buf = core::mem::take(&mut self.buf);
                self.transmit(&transmit, &buf[..transmit.len], Entry::Sent);
                self.buf = buf;
                assert!(outputs < invariant::OUTPUTS_MAX, "{id:?} never stops sending");
            }
            while let Some(event) = node.poll_event() {
                idle = false;
                outputs += 1;
                assert!(outputs < invariant::OUTPUTS_MAX, "{id:?} never stops telling");
                self.on_event(node, event);
            }
            if idle {
                break;
            }
        }
    }

    fn on_event(&mut self, node: &mut Node, event: Event) {
        let (now, host) = (self.now, &mut *self.host);
        match &event {
            Event::Save(item) => host.save(item.clone()),
            Event::OpenSocket { request, kind: SocketKind::Udp(family) } => {
                // A number is never used twice.
                host.sockets_made += 1;
                let socket = SocketId(1 + host.sockets_made);
                let port = 45_000 + (socket.0 % 10_000) as u16;
                let bound = match family {
                    Family::V4 => SocketAddr::from(([0, 0, 0, 0], port)),
                    Family::V6 => SocketAddr::from(([0u16; 8], port)),
                };
                host.sockets.insert(socket, bound);
                node.handle_socket(now, *request, Ok((socket, bound)));
            }
            Event::OpenSocket { request, kind: SocketKind::Tcp { remote } } => {
                self.effects.push(Effect::Connect(*request, *remote));
            }
            Event::CloseSocket(socket) if socket.is_tcp() => self.effects.push(Effect::Close(*socket)),
            Event::CloseSocket(socket) => {
                assert!(host.sockets.remove(socket).is_some(), "{socket:?} is not open");
            }
            _ => host.app.on_event(now, node, &event),
        }
        self.effects.push(Effect::Said(event));
    }

    /// Sends what a node wants sent, as io would: one datagram per segment.
    fn transmit(&mut self, transmit: &Transmit, bytes: &[u8], entry: Entry) {
        let (id, remote) = (self.host.id, transmit.path.remote);
        let segments = bytes.chunks(transmit.segment.map_or(bytes.len(), |s| usize::from(s.get())));
        if transmit.path.socket.is_tcp() {
            // One that is gone takes nothing.
            let Some((src, dst)) = self.around.tcp.ends(transmit.path.socket) else { return };
            assert_eq!(dst, remote, "{id:?} sends to another one than the connection leads to");
            for segment in segments {
                let packet = Datagram { src, dst, bytes: segment.to_vec(), ecn: None, origin: id };
                self.account(true, &packet);
                self.effects.push(Effect::SentTcp(entry, transmit.path.socket, packet));
            }
            return;
        }
        let Some(bound) = self.host.sockets.get(&transmit.path.socket).copied() else {
            panic!("{id:?} sends from {:?}, which is not open", transmit.path.socket)
        };
        assert_eq!(bound.is_ipv4(), remote.is_ipv4(), "{id:?} sends from {bound} to {remote}");
        let lans = self.around.lans;
        let on_link = |lan: LanId| lan != INTERNET && lans[lan.0].members.get(remote.ip()).is_some();
        let Some(from) = self.host.route(remote, transmit.path.local, on_link) else {
            self.effects.push(Effect::Lost(|counts| &mut counts.no_route));
            return;
        };
        let src = SocketAddr::new(from.ip, bound.port());
        for segment in segments {
            let datagram = Datagram { src, dst: remote, bytes: segment.to_vec(), ecn: transmit.ecn, origin: id };
            self.account(true, &datagram);
            self.effects.push(Effect::Sent(entry, from.lan, datagram));
        }
    }

    /// Counts a packet.
    pub(crate) fn account(&mut self, outbound: bool, datagram: &Datagram) {
        // What reaches a machine whose node is down burdens nobody. While it is called, its node is out.
        let is_carried = outbound || self.host.node.is_some();
        if let Some(ledger) = self.host.ledger.as_mut().filter(|_| is_carried) {
            let other = if outbound { datagram.dst } else { datagram.src };
            ledger.add(self.around.party_at(other.ip()), outbound, &datagram.bytes, datagram.ip_len());
        }
        self.host.account(self.now, outbound, datagram);
    }
}
