//! Who is told what happens, and that something was lost.
//!
//! Each subscriber has a bounded queue that the loop puts events into ([`Subscribers::publish`]) and the program takes
//! them out of ([`Subscription::next`]). What comes while the queue is full is counted, and the count stands in the
//! queue where those events would have been: whoever reads on knows that something is missing, and where. Dropping the
//! program's end ends the subscription; when the loop ends, the program gets what is left and then hears that.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use handfast_core::Event;

use crate::api::{Notice, WaitError};
use crate::host::Until;

/// Events kept for a subscriber that does not fetch them. At the limit the newest are lost, and counted.
const EVENTS_MAX: usize = 1024;

#[derive(Default)]
struct Queue {
    notices: VecDeque<Notice>,
    /// Lost since the last one in `notices`.
    lost: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The program's end.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
}

impl Subscription {
    /// One to a loop that has ended.
    pub(crate) fn closed() -> Self {
        let shared = Shared::default();
        shared.queue().closed = true;
        Self { shared: Arc::new(shared) }
    }

    /// The next notice; without `until` it waits as long as the loop runs.
    pub(crate) fn next(&self, until: Option<Until>) -> Result<Notice, WaitError> {
        let mut queue = self.shared.queue();
        loop {
            if let Some(notice) = queue.notices.pop_front() {
                return Ok(notice);
            }
            match std::mem::take(&mut queue.lost) {
                0 => {}
                lost => return Ok(Notice::Lost(lost)),
            }
            if queue.closed {
                return Err(WaitError::Closed);
            }
            queue = match until {
                None => self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.left();
                    if left.is_zero() {
                        return Err(WaitError::TimedOut);
                    }
                    self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The loop's end of one.
struct Subscriber {
    shared: Weak<Shared>,
}

impl Subscriber {
    /// Puts an event into the queue, or counts it; false if nobody listens any more.
    fn tell(&self, event: &Event) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let mut queue = shared.queue();
        // A mark that something was lost takes a place as well.
        let places = if queue.lost == 0 { 1 } else { 2 };
        if queue.notices.len() + places > EVENTS_MAX {
            queue.lost += 1;
        } else {
            if queue.lost > 0 {
                let lost = std::mem::take(&mut queue.lost);
                queue.notices.push_back(Notice::Lost(lost));
            }
            queue.notices.push_back(Notice::Event(event.clone()));
        }
        drop(queue);
        shared.changed.notify_all();
        true
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.queue().closed = true;
            shared.changed.notify_all();
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Subscribers {
    all: Vec<Subscriber>,
}

impl Subscribers {
    /// One more, who hears what happens from now on.
    pub(super) fn add(&mut self) -> Subscription {
        let shared = Arc::new(Shared::default());
        self.all.push(Subscriber { shared: Arc::downgrade(&shared) });
        Subscription { shared }
    }

    /// Tells them what is worth a status line.
    pub(super) fn publish(&mut self, event: &Event) {
        match event {
            // Of single reads, writes and datagrams, or between core and loop.
            Event::Readable { .. }
            | Event::Writable { .. }
            | Event::Datagram { .. }
            | Event::OpenSocket { .. }
            | Event::CloseSocket(_)
            | Event::Save(_) => {}
            _ => self.all.retain(|subscriber| subscriber.tell(event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handfast_core::{StreamEnd, StreamKey};

    use super::*;

    fn event(n: u64) -> Event {
        Event::StreamEnded { stream: StreamKey(n), end: StreamEnd::PeerGone }
    }

    fn at_once(subscription: &Subscription) -> Result<Notice, WaitError> {
        subscription.next(Some(Until::after(Duration::ZERO)))
    }

    #[test]
    fn events_come_in_order_and_what_is_no_status_line_does_not() {
        let mut all = Subscribers::default();
        let (first, second) = (all.add(), all.add());
        all.publish(&event(1));
        all.publish(&Event::Readable { stream: StreamKey(1) });
        all.publish(&event(2));
        for subscription in [first, second] {
            assert_eq!(at_once(&subscription), Ok(Notice::Event(event(1))));
            assert_eq!(at_once(&subscription), Ok(Notice::Event(event(2))));
            assert_eq!(at_once(&subscription), Err(WaitError::TimedOut));
        }
    }

    #[test]
    fn what_is_lost_leaves_a_mark_where_it_was_lost() {
        let mut all = Subscribers::default();
        let subscription = all.add();
        let max = EVENTS_MAX as u64;
        (0..max + 5).for_each(|n| all.publish(&event(n)));
        // One place is not enough for the mark and the next event.
        assert_eq!(at_once(&subscription), Ok(Notice::Event(event(0))));
        all.publish(&event(max + 5));
        assert_eq!(at_once(&subscription), Ok(Notice::Event(event(1))));
        all.publish(&event(max + 6));
        for n in 2..max {
            assert_eq!(at_once(&subscription), Ok(Notice::Event(event(n))));
        }
        assert_eq!(at_once(&subscription), Ok(Notice::Lost(6)));
        assert_eq!(at_once(&subscription), Ok(Notice::Event(event(max + 6))));
        assert_eq!(at_once(&subscription), Err(WaitError::TimedOut));
    }

    #[test]
    fn a_loss_is_told_although_nothing_follows() {
        let mut all = Subscribers::default();
        let subscription = all.add();
        (0..=EVENTS_MAX as u64).for_each(|n| all.publish(&event(n)));
        (0..EVENTS_MAX).for_each(|_| drop(at_once(&subscription)));
        assert_eq!(at_once(&subscription), Ok(Notice::Lost(1)));
    }

    #[test]
    fn either_end_may_go_first() {
        let mut all = Subscribers::default();
        let (left, kept) = (all.add(), all.add());
        drop(left);
        all.publish(&event(1));
        assert_eq!(all.all.len(), 1, "who left is forgotten");
        drop(all);
        assert_eq!(kept.next(None), Ok(Notice::Event(event(1))), "what was told before the end");
        assert_eq!(kept.next(None), Err(WaitError::Closed));
        assert_eq!(Subscription::closed().next(None), Err(WaitError::Closed));
    }
}
