//! The sockets beside the main ones: what each was opened for, from the request to the closing.
//!
//! A life: [`ExtraSockets::ask`] gives the request for a socket a number, under which io is asked; io's answer comes to
//! [`ExtraSockets::handle_socket`], which says whose it is; [`ExtraSockets::close`] ends it. Nobody else closes one,
//! and paths through it go with it, which is the caller's business. A TCP connection is here only until it is open:
//! after that it is the business of [`Transports`](super::Transports), which has all of this as one of its parts.
//!
//! Nothing is queued: each call answers at once what io is to be told.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::net::{PeerKey, SocketId, SocketRefused, SocketRequest};

/// Most sockets open or being opened: a birthday punch takes 256. At the limit none is opened.
pub(super) const SOCKETS_MAX: usize = 320;

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

/// Sockets beside the main ones that are asked for or open, each with what it is for.
#[derive(Debug, Default)]
pub(super) struct ExtraSockets {
    next: u32,
    asked: BTreeMap<SocketRequest, Purpose>,
    open: BTreeMap<SocketId, (Purpose, SocketAddr)>,
    is_leaving: bool,
}

impl ExtraSockets {
    /// No more are opened.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Somebody wants a socket: the number to ask io with; nothing when there are too many, or the node leaves.
    #[must_use]
    pub(super) fn ask(&mut self, purpose: Purpose) -> Option<SocketRequest> {
        if self.is_leaving || self.asked.len() + self.open.len() >= SOCKETS_MAX {
            return None;
        }
        let request = SocketRequest(self.next);
        self.next = self.next.wrapping_add(1);
        self.asked.insert(request, purpose);
        Some(request)
    }

    /// io's answer: what the socket is for. Nothing where nobody asked for it: if there is one, it is given back.
    #[must_use]
    pub(super) fn handle_socket(
        &mut self,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) -> Option<Purpose> {
        let purpose = self.asked.remove(&request)?;
        if self.asked.is_empty() {
            // An empty tree would keep its root.
            self.asked = BTreeMap::new();
        }
        if let Ok((socket, bound)) = result
            && purpose != Purpose::Connection
        {
            self.open.insert(socket, (purpose, bound));
        }
        Some(purpose)
    }

    /// Sockets have served: those of them that were open, which io is to close.
    #[must_use]
    pub(super) fn close(&mut self, sockets: &BTreeSet<SocketId>) -> Vec<SocketId> {
        let closed = sockets.iter().copied().filter(|socket| self.open.remove(socket).is_some()).collect();
        if self.open.is_empty() {
            // See above.
            self.open = BTreeMap::new();
        }
        closed
    }

    /// All that are open.
    pub(super) fn open(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.open.keys().copied()
    }

    /// Whether this one is.
    pub(super) fn is_open(&self, socket: SocketId) -> bool {
        self.open.contains_key(&socket)
    }

    /// Those open for a purpose, and where each is bound.
    pub(super) fn of(&self, purpose: Purpose) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        self.open.iter().filter(move |(_, (p, _))| *p == purpose).map(|(socket, (_, bound))| (*socket, *bound))
    }

    /// What an open socket is for; nothing for a main one.
    pub(super) fn purpose(&self, socket: SocketId) -> Option<Purpose> {
        self.open.get(&socket).map(|(purpose, _)| *purpose)
    }

    /// How many are open or being opened.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn len(&self) -> usize {
        self.asked.len() + self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(n: u32) -> (SocketId, SocketAddr) {
        (SocketId(n), SocketAddr::from(([0, 0, 0, 0], 7)))
    }

    #[test]
    fn a_socket_is_there_from_the_answer_to_the_closing() {
        let mut sockets = ExtraSockets::default();
        let request = sockets.ask(Purpose::Reach).expect("room");
        assert_eq!(sockets.open().count(), 0);
        assert_eq!(sockets.handle_socket(request, Ok(bound(5))), Some(Purpose::Reach));
        assert!(sockets.is_open(SocketId(5)));
        assert_eq!(sockets.purpose(SocketId(5)), Some(Purpose::Reach));
        assert_eq!(sockets.of(Purpose::Reach).collect::<Vec<_>>(), [bound(5)]);
        assert_eq!(sockets.of(Purpose::Alternate).count(), 0);
        let both = BTreeSet::from([SocketId(5), SocketId(6)]);
        assert_eq!(sockets.close(&both), [SocketId(5)], "the other one was never open");
        assert_eq!(sockets.close(&both), []);
        assert_eq!(sockets.len(), 0);
    }

    #[test]
    fn what_was_not_asked_for_or_is_a_connection_is_not_kept() {
        let mut sockets = ExtraSockets::default();
        assert_eq!(sockets.handle_socket(SocketRequest(9), Ok(bound(5))), None);
        let request = sockets.ask(Purpose::Connection).expect("room");
        assert_eq!(sockets.handle_socket(request, Ok(bound(SocketId::TCP_FIRST.0))), Some(Purpose::Connection));
        assert_eq!(sockets.handle_socket(request, Ok(bound(5))), None, "answered twice");
        let request = sockets.ask(Purpose::Lifetime).expect("room");
        assert_eq!(sockets.handle_socket(request, Err(SocketRefused)), Some(Purpose::Lifetime));
        assert_eq!((sockets.open().count(), sockets.len()), (0, 0));
    }

    #[test]
    fn there_are_so_many_and_none_when_leaving() {
        let mut sockets = ExtraSockets::default();
        let requests: Vec<_> = (0..SOCKETS_MAX).map(|_| sockets.ask(Purpose::Reach).expect("room")).collect();
        assert_eq!(sockets.ask(Purpose::Alternate), None);
        let _ = sockets.handle_socket(requests[0], Ok(bound(1)));
        assert_eq!(sockets.ask(Purpose::Alternate), None, "open ones count as well");
        let _ = sockets.handle_socket(requests[1], Err(SocketRefused));
        assert!(sockets.ask(Purpose::Alternate).is_some());
        let _ = sockets.close(&BTreeSet::from([SocketId(1)]));
        sockets.leave();
        assert_eq!(sockets.ask(Purpose::Alternate), None);
    }
}
