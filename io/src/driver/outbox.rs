//! What the node sends: polled from it only as fast as the sockets take it.
//!
//! A socket that is full keeps the one train at hand in the [`Outbox`], and the node is asked for no more until there is
//! room: it writes packets as late as that, so what leaves is current.

use handfast_core::{Ecn, Instant, Node, Path};

use super::carriers::Carriers;
use crate::udp::{Sent, TRAIN_LEN_MAX};

/// The send buffer, and what is left in it of a train that found its socket full.
pub(super) struct Outbox {
    buffer: Box<[u8]>,
    held: Option<Held>,
}

struct Held {
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
                node.poll_transmit(now, carriers.segments_max(), &mut self.buffer).map(|transmit| Held {
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
                Sent::Blocked { from } => self.held = Some(Held { from: train.from + from, ..train }),
            }
        }
    }
}
