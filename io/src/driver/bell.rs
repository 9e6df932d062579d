//! How a stream's program tells the loop to look at that stream.
//!
//! A queue of its own, beside that of wishes: it says nothing but which stream, so the state that programs and loop
//! share stands below all wishes. Each stream rings at most once until the loop has looked, so the queue is as
//! long as there are streams.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use handfast_core::StreamKey;
use mio::Waker;

/// Rings the loop from any thread.
#[derive(Clone)]
pub(super) struct Bell {
    streams: Sender<StreamKey>,
    waker: Arc<Waker>,
}

impl Bell {
    /// A bell, and the queue's other end for the loop.
    pub(super) fn new(waker: Arc<Waker>) -> (Self, Receiver<StreamKey>) {
        let (streams, rung) = channel();
        (Self { streams, waker }, rung)
    }

    /// Has the loop look at a stream. A loop that has ended hears nothing.
    pub(super) fn ring(&self, stream: StreamKey) {
        if self.streams.send(stream).is_ok() {
            // Fails only if the loop is gone, or has been woken so often that it is awake.
            let _ = self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ringing_wakes_and_names_the_stream() {
        let mut poll = mio::Poll::new().expect("poll");
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).expect("waker"));
        let (bell, rung) = Bell::new(waker);
        bell.ring(StreamKey(7));
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, None).expect("woken");
        assert_eq!(rung.try_iter().collect::<Vec<_>>(), [StreamKey(7)]);
        drop(rung);
        bell.ring(StreamKey(8));
    }
}
