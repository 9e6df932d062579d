//! Local TCP listeners, each of whose connections becomes a stream.
//!
//! When the process has no file descriptors left, accepting pauses for [`PAUSE`] and what is connected lives on: the
//! connection stays in the kernel's queue, and trying again at once would only spin.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::time::Duration;

use handfast_core::{Instant, PeerId, ServiceName};
use mio::{Interest, Registry, Token};

use crate::host::Seldom;

/// How long accepting rests after an error that will not go away by itself.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections taken per listener and turn.
const ACCEPTS_PER_TURN: usize = 32;

struct Listener {
    socket: mio::net::TcpListener,
    peer: PeerId,
    service: ServiceName,
}

/// All of them, by a number that is never used again.
#[derive(Default)]
pub(crate) struct Listeners {
    by_number: BTreeMap<usize, Listener>,
    /// Those for which the kernel may have connections.
    ready: BTreeSet<usize>,
    next: usize,
    paused_until: Option<Instant>,
    complaint: Seldom,
}

impl Listeners {
    /// Takes a bound listener, and the peer's service that its connections go to.
    pub(crate) fn add(
        &mut self,
        listener: std::net::TcpListener,
        peer: PeerId,
        service: ServiceName,
        registry: &Registry,
        token: fn(usize) -> Token,
    ) -> io::Result<usize> {
        listener.set_nonblocking(true)?;
        let mut socket = mio::net::TcpListener::from_std(listener);
        let number = self.next;
        registry.register(&mut socket, token(number), Interest::READABLE)?;
        self.next += 1;
        self.by_number.insert(number, Listener { socket, peer, service });
        self.ready.insert(number);
        Ok(number)
    }

    /// Closes a listener; its connections live on.
    pub(crate) fn close(&mut self, number: usize, registry: &Registry) {
        self.ready.remove(&number);
        if let Some(mut listener) = self.by_number.remove(&number) {
            // Closing deregisters anyway.
            let _ = registry.deregister(&mut listener.socket);
        }
    }

    /// mio has news of a listener.
    pub(crate) fn set_ready(&mut self, number: usize) {
        if self.by_number.contains_key(&number) {
            self.ready.insert(number);
        }
    }

    /// When there is something to do: `now` if at once, later while paused.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        (!self.ready.is_empty()).then_some(self.paused_until.unwrap_or(now))
    }

    /// Connections that came, each with where it goes.
    pub(crate) fn accept(&mut self, now: Instant) -> Vec<(mio::net::TcpStream, PeerId, ServiceName)> {
        let mut accepted = Vec::new();
        if self.paused_until.is_some_and(|until| now < until) {
            return accepted;
        }
        self.paused_until = None;
        for number in self.ready.clone() {
            let Some(listener) = self.by_number.get(&number) else { continue };
            for _ in 0..ACCEPTS_PER_TURN {
                match listener.socket.accept() {
                    Ok((socket, _)) => accepted.push((socket, listener.peer, listener.service)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.ready.remove(&number);
                        break;
                    }
                    // accept(2): errors of the one connection, which is gone; the next may be well.
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    Err(error) => {
                        self.paused_until = Some(now + PAUSE);
                        if let Some(more) = self.complaint.pass(now) {
                            tracing::warn!(more, "cannot accept local connections, pausing: {error}");
                        }
                        break;
                    }
                }
            }
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use handfast_core::SecretKey;

    use super::*;

    #[test]
    fn connections_come_out_with_their_destination_and_a_closed_listener_has_none() {
        let poll = mio::Poll::new().expect("poll");
        let bound = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = bound.local_addr().expect("address");
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        let service: ServiceName = "web".parse().expect("name");
        let mut listeners = Listeners::default();
        assert_eq!(listeners.next(Instant::ZERO), None);
        let number = listeners.add(bound, peer, service, poll.registry(), Token).expect("added");
        let _client = TcpStream::connect(address).expect("connected");
        let accepted = listeners.accept(Instant::ZERO);
        assert_eq!(accepted.len(), 1);
        assert_eq!((accepted[0].1, accepted[0].2), (peer, service));
        assert_eq!(listeners.next(Instant::ZERO), None, "nothing to do before mio says so");
        listeners.close(number, poll.registry());
        listeners.set_ready(number);
        assert_eq!(listeners.next(Instant::ZERO), None);
        assert!(TcpStream::connect(address).is_err());
    }
}
