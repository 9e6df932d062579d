//! [`Report`]: what the caller is told of all that happens: events, in order, and counters.
//!
//! Whoever carries out what machines want says here what became of it. Events wait until they are polled, since each
//! tells of something once; how many there can be is bounded where they come from (links, streams, datagrams), not
//! here. Counters only grow.

use std::collections::VecDeque;

use crate::api::{Counters, Event};
use crate::net::DropReason;

/// Events that wait to be polled, counters, and whether it was told that the node is ready.
#[derive(Debug, Default)]
pub(crate) struct Report {
    events: VecDeque<Event>,
    counters: Counters,
    was_ready: bool,
}

impl Report {
    // ---- events ----

    /// Something for the caller.
    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The same, several times.
    pub(crate) fn tell_all(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
    }

    /// The node is of use from now on without any home: the first time this is told.
    pub(crate) fn on_ready(&mut self) {
        if !core::mem::replace(&mut self.was_ready, true) {
            self.tell(Event::Ready);
        }
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- counters ----

    /// Since the start.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A datagram of so many bytes came.
    pub(crate) fn on_received(&mut self, len: usize) {
        self.counters.rx_datagrams += 1;
        self.counters.rx_bytes += len as u64;
    }

    /// One was dropped.
    pub(crate) fn on_dropped(&mut self, reason: DropReason) {
        if let Some(counter) = self.counters.dropped.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// So many go on to another leg, with so many bytes together.
    #[inline]
    pub(crate) fn on_forwarded(&mut self, count: usize, len: usize) {
        self.counters.forwarded_datagrams += count as u64;
        self.counters.forwarded_bytes += len as u64;
    }

    /// So many leave, with so many bytes together.
    pub(crate) fn on_sent(&mut self, count: usize, len: usize) {
        self.counters.tx_datagrams += count as u64;
        self.counters.tx_bytes += len as u64;
    }

    /// A TCP connection was turned away.
    pub(crate) fn on_connection_refused(&mut self) {
        self.counters.refused_connections += 1;
    }

    /// What introductions have cost since the start: how many there were, in how many datagrams and bytes.
    pub(crate) fn set_introductions(&mut self, (introductions, datagrams, bytes): (u64, u64, u64)) {
        self.counters.introductions = introductions;
        self.counters.introduction_datagrams = datagrams;
        self.counters.introduction_bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_ready_comes_once() {
        let mut report = Report::default();
        report.on_ready();
        report.tell(Event::Homeless);
        report.on_ready();
        report.tell_all([Event::Left]);
        let told: Vec<Event> = core::iter::from_fn(|| report.poll_event()).collect();
        assert_eq!(told, [Event::Ready, Event::Homeless, Event::Left]);
    }

    #[test]
    fn everything_is_counted_under_its_name() {
        let mut report = Report::default();
        report.on_received(10);
        report.on_received(20);
        report.on_dropped(DropReason::Truncated);
        report.on_dropped(DropReason::BadContents);
        report.on_forwarded(3, 300);
        report.on_sent(2, 50);
        report.on_connection_refused();
        report.set_introductions((1, 4, 900));
        let dropped = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let expected = Counters {
            rx_datagrams: 2,
            rx_bytes: 30,
            tx_datagrams: 2,
            tx_bytes: 50,
            forwarded_datagrams: 3,
            forwarded_bytes: 300,
            dropped,
            refused_connections: 1,
            introductions: 1,
            introduction_datagrams: 4,
            introduction_bytes: 900,
        };
        assert_eq!(*report.counters(), expected);
    }
}
