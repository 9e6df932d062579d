//! TCP connections, those that came in and our own: who may have one, and when each ends.
//!
//! A connection costs its other end nothing but an address, and us a descriptor and some memory, so there are few, and
//! each has to show soon what it is for. It is *bare* until something authentic came on it; then it is the one of that
//! peer's link. [`Connections::accept`] makes room for a new one by ending the oldest bare one, or turns it away.
//! [`Connections::pop_due`] names connections that are due for a look, and [`Transports`](super::Transports), which is
//! told of the links, says with [`Connections::look_again`] or [`Connections::remove`] what came of it: a connection
//! ends that is still bare after [`BARE_MAX`], or that twice in a row, [`LOOK_EVERY`] apart, was not the path in use of
//! its peer.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::net::{PeerKey, SocketId};
use crate::path::Route;
use crate::time::{Deadlines, Instant};
use crate::wire::address::Prefix;

/// Most connections that others have opened: half of the 1 024 descriptors that a process has by default. At the limit
/// the oldest bare one ends; if there is none, the new one.
pub(super) const ACCEPTED_MAX: usize = 512;
/// Most of them from one prefix that is not exempt, once more than half of all places are taken. At the limit likewise,
/// within the prefix.
pub(super) const ACCEPTED_PER_PREFIX_MAX: usize = 32;
/// A connection ends on which no handshake succeeded for so long.
pub(super) const BARE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a connection that belongs to a link.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    /// When it was opened.
    pub(super) since: Instant,
    /// Whose link last came through it.
    pub(super) peer: Option<PeerKey>,
    /// Where the supernode's UDP is, if we opened it.
    pub(super) udp: Option<SocketAddr>,
    /// At the last look it was not in use.
    pub(super) was_idle: bool,
    look_at: Option<Instant>,
}

impl Connection {
    /// The path that it is.
    pub(super) const fn route(&self, socket: SocketId) -> Route {
        Route::Direct { socket, remote: self.remote }
    }
}

/// The TCP connections of this node, and when each is looked at.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_socket: BTreeMap<SocketId, Connection>,
    looks: Deadlines<SocketId>,
}

impl Connections {
    /// One came in. Returns the one that has to end for it, which may be itself.
    #[must_use]
    pub(super) fn accept(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) -> Option<SocketId> {
        let accepted = || self.by_socket.iter().filter(|(_, c)| c.udp.is_none());
        let prefix = Prefix::of(remote.ip());
        let of_prefix = |c: &Connection| Prefix::of(c.remote.ip()) == prefix;
        let count = accepted().count();
        let is_crowded = count > ACCEPTED_MAX / 2
            && !Prefix::is_exempt(remote.ip())
            && accepted().filter(|(_, c)| of_prefix(c)).count() >= ACCEPTED_PER_PREFIX_MAX;
        let gone = if is_crowded || count >= ACCEPTED_MAX {
            let bare = accepted().filter(|(_, c)| c.peer.is_none() && (!is_crowded || of_prefix(c)));
            let oldest = bare.min_by_key(|(_, c)| c.since).map(|(socket, _)| *socket);
            if oldest.is_none() {
                return Some(socket);
            }
            oldest
        } else {
            None
        };
        self.insert(now, socket, remote, None);
        gone
    }

    /// One of our own to a supernode whose UDP is at `udp`.
    pub(super) fn add_dialled(&mut self, now: Instant, socket: SocketId, remote: SocketAddr, udp: SocketAddr) {
        self.insert(now, socket, remote, Some(udp));
    }

    fn insert(&mut self, now: Instant, socket: SocketId, remote: SocketAddr, udp: Option<SocketAddr>) {
        let mut connection = Connection { remote, since: now, peer: None, udp, was_idle: false, look_at: None };
        self.looks.set(socket, &mut connection.look_at, Some(now + BARE_MAX));
        let before = self.by_socket.insert(socket, connection);
        debug_assert!(before.is_none(), "a number is never used twice");
    }

    pub(super) fn get(&self, socket: SocketId) -> Option<&Connection> {
        self.by_socket.get(&socket)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Connection)> {
        self.by_socket.iter().map(|(socket, connection)| (*socket, connection))
    }

    /// Something authentic of a peer came on it.
    pub(super) fn on_heard(&mut self, socket: SocketId, peer: PeerKey) {
        if let Some(connection) = self.by_socket.get_mut(&socket) {
            connection.peer = Some(peer);
        }
    }

    /// The next one that is due for a look.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketId> {
        let socket = self.looks.pop_due(now)?;
        if let Some(connection) = self.by_socket.get_mut(&socket) {
            connection.look_at = None;
        }
        Some(socket)
    }

    /// It lives on; whether it was in use.
    pub(super) fn look_again(&mut self, now: Instant, socket: SocketId, in_use: bool) {
        if let Some(connection) = self.by_socket.get_mut(&socket) {
            connection.was_idle = !in_use;
            self.looks.set(socket, &mut connection.look_at, Some(now + LOOK_EVERY));
        }
    }

    pub(super) fn remove(&mut self, socket: SocketId) -> Option<Connection> {
        let mut connection = self.by_socket.remove(&socket)?;
        self.looks.set(socket, &mut connection.look_at, None);
        Some(connection)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.looks.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(n: u32) -> SocketId {
        SocketId(SocketId::TCP_FIRST.0 + n)
    }

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    /// An address of the n-th prefix.
    fn from(n: u32) -> SocketAddr {
        SocketAddr::from(([20, (n >> 8) as u8, n as u8, 1], 7))
    }

    const PEER: PeerKey = PeerKey { index: 0, generation: 1 };

    #[test]
    fn at_the_limit_the_oldest_bare_one_makes_room_and_links_are_left_alone() {
        let mut connections = Connections::default();
        for n in 0..ACCEPTED_MAX as u32 {
            assert_eq!(connections.accept(at(n.into()), socket(n), from(n)), None);
        }
        connections.on_heard(socket(0), PEER);
        let n = ACCEPTED_MAX as u32;
        assert_eq!(connections.accept(at(9_999), socket(n), from(n)), Some(socket(1)));
        assert!(connections.remove(socket(1)).is_some() && connections.get(socket(n)).is_some());
        for n in 0..=n {
            connections.on_heard(socket(n), PEER);
        }
        assert_eq!(connections.accept(at(9_999), socket(n + 1), from(9)), Some(socket(n + 1)), "all are in use");
        assert!(connections.get(socket(n + 1)).is_none());
        assert_eq!(connections.iter().count(), ACCEPTED_MAX);
    }

    #[test]
    fn a_prefix_has_its_share_once_places_are_scarce() {
        let mut connections = Connections::default();
        let mut n = 0;
        let mut next = || {
            n += 1;
            socket(n)
        };
        for _ in 0..=ACCEPTED_MAX / 2 {
            assert_eq!(connections.accept(at(0), next(), from(1)), None, "there is room for everybody");
        }
        let gone = connections.accept(at(1), next(), from(1)).expect("one of the same prefix");
        assert_eq!(connections.get(gone).map(|c| Prefix::of(c.remote.ip())), Some(Prefix::of(from(1).ip())));
        assert_eq!(connections.accept(at(1), next(), from(2)), None, "others are not its business");
        for _ in 0..=ACCEPTED_PER_PREFIX_MAX {
            assert_eq!(connections.accept(at(1), next(), ([10, 0, 0, 1], 7).into()), None, "exempt");
        }
    }

    #[test]
    fn each_is_looked_at_after_ten_seconds_and_then_again() {
        let mut connections = Connections::default();
        let _ = connections.accept(at(0), socket(0), from(0));
        assert_eq!(connections.pop_due(at(9)), None);
        assert_eq!(connections.poll_timeout(), Some(at(10)));
        assert_eq!(connections.pop_due(at(10)), Some(socket(0)));
        connections.look_again(at(10), socket(0), false);
        assert!(connections.get(socket(0)).is_some_and(|c| c.was_idle));
        assert_eq!(connections.poll_timeout(), Some(at(40)));
        connections.remove(socket(0));
        assert_eq!(connections.poll_timeout(), None);
    }
}
