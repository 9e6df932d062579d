//! The streams of one link, by our name and by QUIC's.

use std::collections::BTreeMap;

use quinn_proto::{Side, StreamId};

use super::event::LocalStream;
use super::one::One;

/// See [the file](self).
#[derive(Default)]
pub(super) struct Set {
    all: BTreeMap<LocalStream, One>,
    /// Those that have their place in the present connection.
    by_id: BTreeMap<StreamId, LocalStream>,
    next: u64,
}

impl Set {
    pub(super) fn insert(&mut self, one: One) -> LocalStream {
        let stream = LocalStream(self.next);
        self.next += 1;
        if let Some(id) = one.id {
            self.by_id.insert(id, stream);
        }
        self.all.insert(stream, one);
        stream
    }

    /// The stream has its place in a connection now.
    pub(super) fn on_attached(&mut self, stream: LocalStream, id: StreamId) {
        self.by_id.insert(id, stream);
    }

    pub(super) fn remove(&mut self, stream: LocalStream) {
        if let Some(id) = self.all.remove(&stream).and_then(|one| one.id) {
            self.by_id.remove(&id);
        }
    }

    pub(super) fn get(&self, stream: LocalStream) -> Option<&One> {
        self.all.get(&stream)
    }

    pub(super) fn get_mut(&mut self, stream: LocalStream) -> Option<&mut One> {
        self.all.get_mut(&stream)
    }

    pub(super) fn contains(&self, stream: LocalStream) -> bool {
        self.all.contains_key(&stream)
    }

    pub(super) fn by_id(&self, id: StreamId) -> Option<LocalStream> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many this end opened.
    pub(super) fn ours(&self, side: Side) -> usize {
        self.all.values().filter(|one| one.is_ours(side)).count()
    }

    /// How many have their place in the present connection.
    pub(super) fn attached(&self) -> usize {
        self.by_id.len()
    }

    /// Those that wait for one.
    pub(super) fn waiting(&self) -> Vec<LocalStream> {
        if self.by_id.len() == self.all.len() {
            return Vec::new();
        }
        self.all.iter().filter(|(_, one)| one.id.is_none()).map(|(stream, _)| *stream).collect()
    }

    /// Takes out those of the present connection, in QUIC's order.
    pub(super) fn take_attached(&mut self) -> Vec<(LocalStream, One)> {
        let attached = core::mem::take(&mut self.by_id).into_values();
        attached.filter_map(|stream| Some((stream, self.all.remove(&stream)?))).collect()
    }

    /// Takes out all, in the order in which they were opened.
    pub(super) fn take_all(&mut self) -> Vec<(LocalStream, One)> {
        self.by_id.clear();
        core::mem::take(&mut self.all).into_iter().collect()
    }
}
