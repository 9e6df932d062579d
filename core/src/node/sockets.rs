//! Carries [`ExtraSockets`](crate::transport::ExtraSockets): wishes for sockets to io, io's answers to whoever wished.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::Node;
use crate::api::Event;
use crate::net::{Network, SocketId, SocketKind, SocketRefused, SocketRequest};
use crate::path::Route;
use crate::time::Instant;
use crate::transport::ExtraSockets;
pub(crate) use crate::transport::Purpose;

/// Whether something may leave from a socket: one of the main ones, or one that we had opened.
pub(super) fn is_socket_open(network: &Network, sockets: &ExtraSockets, socket: SocketId) -> bool {
    socket.is_tcp() || network.sockets.iter().any(|(main, _)| *main == socket) || sockets.is_open(socket)
}

impl Node {
    /// Asks io for a socket; nothing when there are too many.
    pub(crate) fn open_socket(&mut self, purpose: Purpose, kind: SocketKind) -> Option<SocketRequest> {
        let request = self.sockets.ask(purpose)?;
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
        let opened = result.ok();
        let socket = opened.map(|(socket, _)| socket);
        match (self.sockets.handle_socket(request, result), socket) {
            (Some(Purpose::Punch(key)), _) => self.on_punch_socket(now, key, socket),
            (Some(Purpose::Connection), _) => self.on_tcp_opened(now, request, socket.ok_or(SocketRefused)),
            (Some(Purpose::Reach), _) => self.on_reach_socket(now, opened),
            (Some(Purpose::Lifetime), Some(socket)) => self.on_lifetime_socket(now, request, socket),
            // Not asked for, or asked for no longer: given back.
            (None, Some(socket)) => self.events.push_back(Event::CloseSocket(socket)),
            // It is there when a probe asks for it; and whoever measures waits only so long.
            (Some(Purpose::Alternate | Purpose::Lifetime), _) | (None, None) => {}
        }
    }

    /// Has a socket closed; links lose their paths through it.
    pub(crate) fn close_socket(&mut self, now: Instant, socket: SocketId) {
        self.close_sockets(now, &BTreeSet::from([socket]));
    }

    /// Has sockets closed; links lose their paths through them.
    pub(crate) fn close_sockets(&mut self, now: Instant, sockets: &BTreeSet<SocketId>) {
        let closed = self.sockets.close(sockets);
        if closed.is_empty() {
            return;
        }
        self.events.extend(closed.into_iter().map(Event::CloseSocket));
        self.remove_paths(now, |route| matches!(route, Route::Direct { socket, .. } if sockets.contains(socket)));
    }
}
