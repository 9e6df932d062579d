//! Streams in use here, by whom, and which of them are due for a visit.
//!
//! A stream's user is either a program ([`LoopEnd`]) or a local socket ([`Pump`]). News of a stream or of its socket
//! queues it; the loop visits each of those queued once per turn, so that no stream starves another.

use std::collections::{HashMap, VecDeque};

use handfast_core::{Instant, Node, StreamKey};
use slab::Slab;

use super::exchange::LoopEnd;
use crate::local::{Pump, Visit};

/// Who uses a stream.
pub(super) enum User {
    Program(LoopEnd),
    Pump(Pump),
}

/// A stream in use here.
struct Connection {
    key: StreamKey,
    user: User,
    /// Stands in the queue of those to visit.
    queued: bool,
}

/// All streams in use here.
#[derive(Default)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    by_key: HashMap<StreamKey, usize>,
    /// Those that may be able to move bytes.
    queue: VecDeque<usize>,
    /// Pumps that are connecting, oldest first, with the time by which they must be done.
    connecting: VecDeque<(Instant, StreamKey)>,
}

impl Connections {
    /// Adds a stream; it is visited in this turn.
    pub(super) fn add(&mut self, key: StreamKey, user: User) -> usize {
        let index = self.slab.insert(Connection { key, user, queued: false });
        self.by_key.insert(key, index);
        self.call(index);
        index
    }

    /// Gives the place that a pump will have, to register its socket before it is added.
    pub(super) fn next_index(&self) -> usize {
        self.slab.vacant_key()
    }

    /// The pump of `key` must be connected by `until`.
    pub(super) fn expect_connected(&mut self, key: StreamKey, until: Instant) {
        self.connecting.push_back((until, key));
    }

    /// The user of a stream, and its being visited soon.
    pub(super) fn call_by_key(&mut self, key: StreamKey) -> Option<&mut User> {
        let index = *self.by_key.get(&key)?;
        self.call(index);
        self.slab.get_mut(index).map(|connection| &mut connection.user)
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, key: StreamKey) -> Option<User> {
        let index = self.by_key.remove(&key)?;
        self.slab.try_remove(index).map(|connection| connection.user)
    }

    /// mio has news of a pump's socket. `broken`: it reports an error, which the kernel is asked to confirm.
    pub(super) fn on_socket(
        &mut self,
        index: usize,
        readable: bool,
        writable: bool,
        broken: bool,
        node: &mut Node,
        now: Instant,
    ) {
        let Some(Connection { key, user: User::Pump(pump), .. }) = self.slab.get_mut(index) else { return };
        if broken && pump.is_socket_dead() {
            pump.abort(node, now);
            let key = *key;
            self.remove(key);
        } else {
            pump.on_socket(readable, writable);
            self.call(index);
        }
    }

    /// Whether any stream is due for a visit.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// By when the next pump must be connected.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.connecting.front().map(|(until, _)| *until)
    }

    /// Gives up pumps that did not connect in time.
    pub(super) fn give_up(&mut self, node: &mut Node, now: Instant) {
        while let Some(&(_, key)) = self.connecting.front().filter(|(until, _)| *until <= now) {
            self.connecting.pop_front();
            if let Some(User::Pump(pump)) = self.call_by_key(key)
                && pump.is_connecting()
            {
                pump.abort(node, now);
                self.remove(key);
            }
        }
    }

    /// Visits each of those that are queued now.
    pub(super) fn visit(&mut self, node: &mut Node, now: Instant, scratch: &mut [u8]) {
        for _ in 0..self.queue.len() {
            let Some(index) = self.queue.pop_front() else { return };
            // Ended since it was queued; at worst its place has a new tenant, who is visited once too often.
            let Some(connection) = self.slab.get_mut(index) else { continue };
            connection.queued = false;
            let visit = match &mut connection.user {
                User::Program(end) => end.visit(node, now, scratch),
                User::Pump(pump) => pump.visit(node, now, scratch),
            };
            let key = connection.key;
            match visit {
                Visit::Waiting => {}
                Visit::Again => self.call(index),
                Visit::Over => drop(self.remove(key)),
            }
        }
    }

    fn call(&mut self, index: usize) {
        if let Some(connection) = self.slab.get_mut(index)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.queue.push_back(index);
        }
    }
}
