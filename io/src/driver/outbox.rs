//! What the node sends: polled from it only as fast as the sockets take it.
//!
//! A socket that is full keeps the one train at hand in the [`Outbox`], and the node is asked for no more until there
//! is room: it writes packets as late as that, so what leaves is current.

use handfast_core::{Ecn, Instant, Node, Path};

use super::carriers::Carriers;
use crate::udp::{Sent, TRAIN_LEN_MAX};

/// The send buffer, and what is left in it of a train that found its socket full.
pub(super) struct Outbox {
    buffer: Box<[u8]>,
    held: Option<Rest>,
}

struct Rest {
    path: Path,
    /// First and one after the last unsent byte.
    from: usize,
    end: usize,
    segment: usize,
    ecn: Option<Ecn>,
}

impl Outbox {
    /// Nothing held.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; TRAIN_LEN_MAX].into_boxed_slice(), held: None }
    }

    /// Sends all that the node has, or as much as the sockets take.
    pub(super) fn send(&mut self, node: &mut Node, carriers: &mut Carriers, now: Instant) {
        loop {
            let next = self.held.take().or_else(|| {
                node.poll_transmit(now, carriers.segments_max(), &mut self.buffer).map(|transmit| Rest {
                    path: transmit.path,
                    from: 0,
                    end: transmit.len,
                    segment: transmit.segment.map_or(transmit.len, |segment| usize::from(segment.get())),
                    ecn: transmit.ecn,
                })
            });
            let Some(train) = next else { return };
            if carriers.is_full(train.path.socket) {
                self.held = Some(train);
                return;
            }
            match carriers.send(&train.path, &self.buffer[train.from..train.end], train.segment, train.ecn) {
                Sent::Done => {}
                Sent::Blocked { from } => self.held = Some(Rest { from: train.from + from, ..train }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::{Config, Saved, SecretKey};

    use super::*;

    #[test]
    fn a_train_that_found_no_room_is_kept_and_goes_first() {
        let poll = mio::Poll::new().expect("poll");
        let mut carriers = Carriers::new(poll.registry(), None).expect("registry");
        carriers.bind(&[([127, 0, 0, 1], 0).into()], false, &[]).expect("bound");
        let (socket, at) = carriers.main()[0];
        let far = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let path = Path { socket, remote: far.local_addr().expect("an address"), local: None };
        let key = SecretKey::from_bytes(&[1; 32]);
        let mut node =
            Node::new(Instant::ZERO, std::time::Instant::now(), [0; 32], key, Config::leaf(), Saved::default())
                .expect("a node");
        let mut outbox = Outbox::new();
        outbox.buffer[..6].copy_from_slice(b"oldnew");
        // Half of it left before the socket was full.
        outbox.held = Some(Rest { path, from: 3, end: 6, segment: 3, ecn: None });
        outbox.send(&mut node, &mut carriers, Instant::ZERO);
        assert!(outbox.held.is_none());
        let mut buf = [0; 16];
        let (len, from) = far.recv_from(&mut buf).expect("the rest of it");
        assert_eq!((&buf[..len], from), (&b"new"[..], at));
    }
}
