//! What the loop tells every thread that looks: whether the node can be used, whether the loop runs, and the datagrams
//! that came.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handfast_core::PeerId;
use handfast_core::portmap::Report;

use crate::api::WaitError;
use crate::host::Until;

/// Most datagrams kept for a program that does not fetch them; then the oldest goes.
const DATAGRAMS_MAX: usize = 256;

#[derive(Default)]
struct Notes {
    ready: bool,
    closed: bool,
    port_mapping: Option<Report>,
    datagrams: VecDeque<(PeerId, Vec<u8>)>,
}

/// Written by the loop, read by handles.
#[derive(Default)]
pub(crate) struct Board {
    notes: Mutex<Notes>,
    changed: Condvar,
}

impl Board {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.notes());
        self.changed.notify_all();
    }

    /// Waits until `look` has an answer, the loop ended, or time is up.
    fn wait<T>(&self, time: Duration, mut look: impl FnMut(&mut Notes) -> Option<T>) -> Result<T, WaitError> {
        let until = Until::after(time);
        let mut notes = self.notes();
        loop {
            if let Some(found) = look(&mut notes) {
                return Ok(found);
            }
            if notes.closed {
                return Err(WaitError::Closed);
            }
            let left = until.left();
            if left.is_zero() {
                return Err(WaitError::TimedOut);
            }
            notes = self.changed.wait_timeout(notes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The node can be used, or cannot any more.
    pub(super) fn set_ready(&self, ready: bool) {
        self.change(|notes| notes.ready = ready);
    }

    /// Waits until it can.
    pub(crate) fn wait_ready(&self, time: Duration) -> Result<(), WaitError> {
        self.wait(time, |notes| notes.ready.then_some(()))
    }

    /// Waits until the loop has ended.
    pub(crate) fn wait_closed(&self, time: Duration) -> Result<(), WaitError> {
        self.wait(time, |notes| notes.closed.then_some(()))
    }

    /// What port mapping has come to so far.
    pub(super) fn set_port_mapping(&self, report: Report) {
        self.change(|notes| notes.port_mapping = Some(report));
    }

    /// What port mapping came to, once that is decided or `time` is up.
    pub(crate) fn wait_port_mapping(&self, time: Duration) -> Option<Report> {
        let settled = self.wait(time, |notes| match &notes.port_mapping {
            Some(report) if !report.is_settled() => None,
            report => Some(report.clone()),
        });
        settled.unwrap_or_else(|_| self.notes().port_mapping.clone())
    }

    /// A datagram came.
    pub(super) fn push_datagram(&self, peer: PeerId, data: Vec<u8>) {
        self.change(|notes| {
            if notes.datagrams.len() >= DATAGRAMS_MAX {
                notes.datagrams.pop_front();
            }
            notes.datagrams.push_back((peer, data));
        });
    }

    /// Waits for the oldest that nobody has taken.
    pub(crate) fn pop_datagram(&self, time: Duration) -> Result<(PeerId, Vec<u8>), WaitError> {
        self.wait(time, |notes| notes.datagrams.pop_front())
    }
}

/// Held by the loop's thread: however that ends, the board says so.
pub(super) struct CloseOnDrop(Arc<Board>);

impl CloseOnDrop {
    /// Holds it.
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self(board)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.change(|notes| {
            notes.closed = true;
            notes.ready = false;
        });
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::SecretKey;

    use super::*;

    #[test]
    fn readiness_comes_and_goes() {
        let board = Board::default();
        assert_eq!(board.wait_ready(Duration::ZERO), Err(WaitError::TimedOut));
        board.set_ready(true);
        assert_eq!(board.wait_ready(Duration::ZERO), Ok(()));
        board.set_ready(false);
        assert_eq!(board.wait_ready(Duration::ZERO), Err(WaitError::TimedOut));
    }

    #[test]
    fn a_panic_of_the_loop_frees_whoever_waits() {
        let board = Arc::new(Board::default());
        let waiting = std::thread::spawn({
            let board = Arc::clone(&board);
            move || (board.wait_ready(Duration::MAX), board.wait_closed(Duration::MAX))
        });
        let close = CloseOnDrop::new(Arc::clone(&board));
        let panicking = std::thread::spawn(move || {
            let _close = close;
            std::panic::resume_unwind(Box::new("expected"));
        });
        assert!(panicking.join().is_err());
        assert_eq!(waiting.join().expect("no panic"), (Err(WaitError::Closed), Ok(())));
    }

    #[test]
    fn the_oldest_datagram_makes_room() {
        let board = Board::default();
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        for n in 0..=DATAGRAMS_MAX {
            board.push_datagram(peer, n.to_le_bytes().to_vec());
        }
        let first = board.pop_datagram(Duration::ZERO).expect("a datagram");
        assert_eq!(first, (peer, 1_usize.to_le_bytes().to_vec()));
        for _ in 1..DATAGRAMS_MAX {
            assert!(board.pop_datagram(Duration::ZERO).is_ok());
        }
        assert_eq!(board.pop_datagram(Duration::ZERO), Err(WaitError::TimedOut));
    }
}
