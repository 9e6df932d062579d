//! Packets in and out: from the sockets to the node, from the node to the sockets, and what a relay forwards between.
//!
//! In each turn [`Traffic::receive`] takes one batch from each socket that has something, so that no socket starves
//! another, and hands it to the node train by train. What the node wants forwarded leaves at once, from the buffer that
//! it came in, or gathered with its neighbours within the batch. [`Traffic::send`] asks the node for what it has to
//! send, as fast as the sockets take it.

use std::net::SocketAddr;

use handfast_core::{Event, Instant, Node, Received, SocketId};

use super::carriers::Carriers;
use super::outbox::Outbox;
use super::tokens::Source;
use crate::tcp::TcpInbox;
use crate::udp::{Arrival, Detour, Inbox, RelayBatch};

/// Sockets and the buffers between them and the node.
pub(super) struct Traffic {
    carriers: Carriers,
    inbox: Inbox,
    tcp_inbox: TcpInbox,
    batch: RelayBatch,
    outbox: Outbox,
}

impl Traffic {
    /// Over these carriers, which have their main sockets already.
    pub(super) fn new(carriers: Carriers, detour: Option<Detour>) -> Self {
        Self {
            carriers,
            inbox: Inbox::new(detour),
            tcp_inbox: TcpInbox::new(),
            batch: RelayBatch::new(),
            outbox: Outbox::new(),
        }
    }

    /// The UDP sockets bound at start, the main one first.
    pub(super) fn main(&self) -> &[(SocketId, SocketAddr)] {
        self.carriers.main()
    }

    /// mio has news of one of them.
    pub(super) fn on_hint(&mut self, source: Source, readable: bool, writable: bool) {
        match source {
            Source::Udp(id) => {
                if readable {
                    self.carriers.udp().set_readable(id);
                }
                if writable {
                    self.carriers.udp().set_writable(id);
                }
            }
            Source::Tcp(id) => self.carriers.tcp().on_hint(id, readable, writable),
            Source::TcpListener(number) => self.carriers.tcp().on_listener_hint(number),
            Source::Waker | Source::PortMap | Source::Network | Source::Listener(_) | Source::Connection(_) => {}
        }
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.carriers.is_busy()
    }

    /// When there is something to do in any case.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.carriers.next_deadline()
    }

    /// Takes what came, and tells the node of connections that opened, came in, ended.
    pub(super) fn receive(&mut self, node: &mut Node, now: Instant) {
        self.receive_udp(node, now);
        self.receive_tcp(node, now);
    }

    fn receive_udp(&mut self, node: &mut Node, now: Instant) {
        let Self { carriers, inbox, batch, .. } = self;
        let mut last = None;
        while let Some(id) = carriers.udp().next_readable(last) {
            last = Some(id);
            let count = carriers.udp().receive(id, inbox);
            for arrival in inbox.arrivals(id, count) {
                take_train(node, carriers, batch, now, arrival);
            }
            batch.flush(|path, bytes, stride| carriers.forward(path, bytes, stride));
        }
    }

    fn receive_tcp(&mut self, node: &mut Node, now: Instant) {
        let Self { carriers, tcp_inbox, batch, .. } = self;
        for (request, result) in carriers.tcp().opened(now) {
            node.handle_socket(now, request, result);
        }
        for (id, remote) in carriers.tcp().accept(now) {
            node.handle_connection(now, id, remote);
        }
        let mut last = None;
        while let Some(id) = carriers.tcp().next_readable(last) {
            last = Some(id);
            let Some(path) = carriers.tcp().receive(id, tcp_inbox) else { continue };
            tcp_inbox.for_each(|data| take_train(node, carriers, batch, now, Arrival::new(path, data.len(), data)));
            batch.flush(|path, bytes, stride| carriers.forward(path, bytes, stride));
        }
        for id in carriers.tcp().take_ended() {
            node.handle_socket_closed(now, id);
        }
    }

    /// Carries out what the node says of sockets: whether it did.
    pub(super) fn on_event(&mut self, node: &mut Node, now: Instant, event: &Event) -> bool {
        match event {
            Event::OpenSocket { request, kind } => {
                if let Some(opened) = self.carriers.open(now, *request, *kind) {
                    node.handle_socket(now, *request, opened);
                }
                true
            }
            Event::CloseSocket(socket) => {
                self.carriers.close(*socket);
                true
            }
            _ => false,
        }
    }

    /// Sends all that the node has, or as much as the sockets take.
    pub(super) fn send(&mut self, node: &mut Node, now: Instant) {
        self.outbox.send(node, &mut self.carriers, now);
    }

    /// Gives the kernel what was gathered for it.
    pub(super) fn flush(&mut self) {
        self.carriers.tcp().flush();
    }

    /// Done now and then.
    pub(super) fn keep_house(&mut self, now: Instant) {
        self.carriers.keep_house(now);
    }
}

/// Hands a received train to the node, and sends on what a relay forwards.
fn take_train(node: &mut Node, carriers: &mut Carriers, batch: &mut RelayBatch, now: Instant, arrival: Arrival<'_>) {
    let (path, arrived_stride) = (arrival.path(), arrival.stride());
    let mut rest = arrival.into_data();
    while !rest.is_empty() {
        let (used, verdict) = node.handle_datagrams(now, path, arrived_stride, rest);
        debug_assert!(used > 0, "a verdict is about at least one datagram");
        match verdict {
            Received::Consumed => {}
            Received::Forward { path, range, stride } => {
                let bytes = rest.get(range).unwrap_or_default();
                batch.push(path, bytes, stride, |path, bytes, stride| carriers.forward(path, bytes, stride));
            }
            Received::Dropped(reason) => tracing::trace!(?reason, "datagrams dropped"),
        }
        let used = if used == 0 { rest.len() } else { used.min(rest.len()) };
        rest = rest.split_at_mut(used).1;
    }
}
