//! The sockets beside the main ones: what each was opened for, from the wish to the closing.
//!
//! Whoever in the node wants a socket calls [`Node::open_socket`] with its [`Purpose`]; io's answer comes back to it
//! through [`Node::on_socket`]. A socket lives until [`Node::close_socket`]: nobody else closes it, and paths through it
//! go with it.

use crate::net::{Network, PeerKey, SocketId, SocketKind, SocketRefused, SocketRequest};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::api::Event;
use crate::path::Route;
use crate::time::Instant;

/// Most sockets open or being opened: a birthday punch takes 256. At the limit none is opened.
const SOCKETS_MAX: usize = 320;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Purpose {
    /// A supernode's alternate port: answers leave from it that show what a router lets in.
    Alternate,
    /// One of those that open a way to a peer; the one that did so stays as long as the way.
    Punch(PeerKey),
    /// A TCP connection, where UDP does not work. It is the transport's business from the moment that it is open.
    Connection,
    /// An examination's: its packets show how the router maps new sockets.
    Reach,
    /// Measures how long the router keeps a binding.
    Lifetime,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ExtraSockets {
    next: u32,
    asked: BTreeMap<SocketRequest, Purpose>,
    open: BTreeMap<SocketId, (Purpose, SocketAddr)>,
}

impl ExtraSockets {
    /// All that are open.
    pub(crate) fn open(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.open.keys().copied()
    }

    /// Those open for a purpose, and where each is bound.
    pub(crate) fn of(&self, purpose: Purpose) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        self.open.iter().filter(move |(_, (p, _))| *p == purpose).map(|(socket, (_, bound))| (*socket, *bound))
    }

    /// What an open socket is for; nothing for a main one.
    pub(crate) fn purpose(&self, socket: SocketId) -> Option<Purpose> {
        self.open.get(&socket).map(|(purpose, _)| *purpose)
    }
}

/// Whether something may leave from a socket: one of the main ones, or one that we had opened.
pub(super) fn is_socket_open(network: &Network, sockets: &ExtraSockets, socket: SocketId) -> bool {
    socket.is_tcp() || network.sockets.iter().any(|(main, _)| *main == socket) || sockets.open.contains_key(&socket)
}

impl Node {
    /// Asks io for a socket; nothing when there are too many.
    pub(crate) fn open_socket(&mut self, purpose: Purpose, kind: SocketKind) -> Option<SocketRequest> {
        if self.leaving || self.sockets.asked.len() + self.sockets.open.len() >= SOCKETS_MAX {
            return None;
        }
        let request = SocketRequest(self.sockets.next);
        self.sockets.next = self.sockets.next.wrapping_add(1);
        self.sockets.asked.insert(request, purpose);
        self.events.push_back(Event::OpenSocket { request, kind });
        Some(request)
    }

    /// io's answer.
    pub(crate) fn on_socket(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) {
        let purpose = self.sockets.asked.remove(&request);
        if self.sockets.asked.is_empty() {
            self.sockets.asked = BTreeMap::new();
        }
        if let (Some(Purpose::Punch(key)), Err(SocketRefused)) = (purpose, result) {
            self.on_punch_socket(now, key, None);
        }
        if purpose == Some(Purpose::Connection) {
            self.on_tcp_opened(now, request, result.map(|(socket, _)| socket));
            return;
        }
        let (Some(purpose), Ok((socket, bound))) = (purpose, result) else {
            if purpose == Some(Purpose::Reach) {
                self.on_reach_socket(now, None);
            }
            // Not asked for, or asked for no longer: given back.
            if let Ok((socket, _)) = result {
                self.events.push_back(Event::CloseSocket(socket));
            }
            return;
        };
        self.sockets.open.insert(socket, (purpose, bound));
        match purpose {
            // It is there when a probe asks for it.
            Purpose::Alternate => {}
            Purpose::Punch(key) => self.on_punch_socket(now, key, Some(socket)),
            Purpose::Connection => {}
            Purpose::Reach => self.on_reach_socket(now, Some((socket, bound))),
            Purpose::Lifetime => self.on_lifetime_socket(now, request, socket),
        }
    }

    /// Has a socket closed; links lose their paths through it.
    pub(crate) fn close_socket(&mut self, now: Instant, socket: SocketId) {
        self.close_sockets(now, &BTreeSet::from([socket]));
    }

    /// Has sockets closed; links lose their paths through them.
    pub(crate) fn close_sockets(&mut self, now: Instant, sockets: &BTreeSet<SocketId>) {
        let mut closed = false;
        for socket in sockets {
            if self.sockets.open.remove(socket).is_some() {
                self.events.push_back(Event::CloseSocket(*socket));
                closed = true;
            }
        }
        if closed {
            if self.sockets.open.is_empty() {
                // An empty tree would keep its root.
                self.sockets.open = BTreeMap::new();
            }
            self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if sockets.contains(socket)));
        }
    }
}
