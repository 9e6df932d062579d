//! The streams of the application: one key for each, whatever happens to the link below.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::LocalStream;
use crate::api::{StreamEnd, StreamError, StreamKey};
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::wire::ServiceName;

/// Most streams of a node. At the limit `open` is refused, and incoming ones are refused as unavailable.
pub(super) const STREAMS_MAX: usize = 65_536;
/// Most ended streams whose reason is remembered. At the limit the oldest is forgotten.
const ENDED_MAX: usize = 256;
/// Most bytes that a stream takes before its link is up.
const WAITING_LEN_MAX: usize = 64 * 1024;

/// What a stream of ours holds until its link, and the QUIC connection in it, takes bytes.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) service: ServiceName,
    pub(super) bytes: Vec<u8>,
    pub(super) finished: bool,
    pub(super) blocked: bool,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    peer: PeerId,
    /// Where it is in a link's QUIC machine; none before the link is up.
    open: Option<(PeerKey, LocalStream)>,
    waiting: Option<Box<Waiting>>,
    /// All that a stream of ours was given until the peer accepts it: should the peer turn out to have restarted, the
    /// stream begins again on the new link. None from then on, and once it is more than [`WAITING_LEN_MAX`].
    replay: Option<Box<Waiting>>,
    /// It has been taken to another connection.
    again: bool,
}

/// All streams of the node.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_key: BTreeMap<StreamKey, Entry>,
    by_local: BTreeMap<(PeerKey, LocalStream), StreamKey>,
    /// Streams that have no link yet.
    unopened: BTreeSet<(PeerId, StreamKey)>,
    /// How many streams each link has.
    counts: BTreeMap<PeerKey, usize>,
    /// Streams that ended lately: a call that crosses the event gets the reason.
    ended: VecDeque<(StreamKey, StreamEnd)>,
    next: u64,
}

impl Table {
    /// Whether there is no room for another one.
    pub(super) fn is_full(&self) -> bool {
        self.by_key.len() >= STREAMS_MAX
    }

    /// A stream of ours, which waits for its link.
    pub(super) fn add_waiting(&mut self, peer: PeerId, service: ServiceName) -> StreamKey {
        let waiting = Waiting { service, bytes: Vec::new(), finished: false, blocked: false };
        let key = self.add(Entry { peer, open: None, waiting: Some(Box::new(waiting)), replay: None, again: false });
        self.unopened.insert((peer, key));
        key
    }

    /// A stream of the peer's, which is in its link.
    pub(super) fn add_incoming(&mut self, peer: PeerId, open: (PeerKey, LocalStream)) -> StreamKey {
        let key = self.add(Entry { peer, open: None, waiting: None, replay: None, again: false });
        self.link(key, open);
        key
    }

    fn add(&mut self, entry: Entry) -> StreamKey {
        let key = StreamKey(self.next);
        self.next += 1;
        self.by_key.insert(key, entry);
        key
    }

    /// The stream is in a link's QUIC machine now.
    pub(super) fn link(&mut self, stream: StreamKey, open: (PeerKey, LocalStream)) {
        let Some(entry) = self.by_key.get_mut(&stream) else { return };
        entry.open = Some(open);
        entry.replay = entry.waiting.clone();
        self.unopened.remove(&(entry.peer, stream));
        self.by_local.insert(open, stream);
        *self.counts.entry(open.0).or_insert(0) += 1;
    }

    /// It is in none any more.
    fn unlink(&mut self, stream: StreamKey) {
        let Some(entry) = self.by_key.get_mut(&stream) else { return };
        let Some(open) = entry.open.take() else { return };
        self.unopened.insert((entry.peer, stream));
        self.by_local.remove(&open);
        if let Some(count) = self.counts.get_mut(&open.0) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&open.0);
            }
        }
    }

    /// The stream ended before its time.
    pub(super) fn end(&mut self, stream: StreamKey, end: StreamEnd) {
        self.remove(stream);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((stream, end));
    }

    /// What a call on a stream that is not there gets.
    pub(super) fn gone(&self, stream: StreamKey) -> StreamError {
        let ended = self.ended.iter().rev().find(|(key, _)| *key == stream);
        ended.map_or(StreamError::Unknown, |(_, end)| StreamError::Ended(*end))
    }

    pub(super) fn remove(&mut self, stream: StreamKey) {
        self.unlink(stream);
        if let Some(entry) = self.by_key.remove(&stream) {
            self.unopened.remove(&(entry.peer, stream));
        }
    }

    // ---- by link ----

    /// Which stream of the application a link's stream is.
    pub(super) fn of_local(&self, key: PeerKey, local: LocalStream) -> Option<StreamKey> {
        self.by_local.get(&(key, local)).copied()
    }

    /// All that are in a link.
    pub(super) fn of_link(&self, key: PeerKey) -> impl Iterator<Item = (LocalStream, StreamKey)> + '_ {
        let range = (key, LocalStream(0))..=(key, LocalStream(u64::MAX));
        self.by_local.range(range).map(|((_, local), stream)| (*local, *stream))
    }

    /// How many.
    pub(super) fn count_of(&self, key: PeerKey) -> usize {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// The first of the streams to this peer that have no link yet, and the service that it is for.
    pub(super) fn first_unopened(&self, id: &PeerId) -> Option<(StreamKey, ServiceName)> {
        let range = (*id, StreamKey(0))..=(*id, StreamKey(u64::MAX));
        let (_, stream) = self.unopened.range(range).next()?;
        Some((*stream, self.by_key.get(stream)?.waiting.as_ref()?.service))
    }

    /// Whether there is one.
    pub(super) fn waits_for(&self, id: &PeerId) -> bool {
        self.first_unopened(id).is_some()
    }

    // ---- one stream ----

    /// Where it is in a link.
    pub(super) fn open(&self, stream: StreamKey) -> Option<(PeerKey, LocalStream)> {
        self.by_key.get(&stream)?.open
    }

    /// Whether it is there and has no link.
    pub(super) fn is_unopened(&self, stream: StreamKey) -> bool {
        self.by_key.get(&stream).is_some_and(|entry| entry.open.is_none())
    }

    /// What it holds for its link.
    pub(super) fn waiting(&mut self, stream: StreamKey) -> Option<&mut Waiting> {
        self.by_key.get_mut(&stream)?.waiting.as_deref_mut()
    }

    /// Its link has taken all.
    pub(super) fn done_waiting(&mut self, stream: StreamKey) {
        if let Some(entry) = self.by_key.get_mut(&stream) {
            entry.waiting = None;
        }
    }

    /// Holds bytes for its link: how many it takes. Nothing if it does not wait.
    pub(super) fn hold(&mut self, stream: StreamKey, data: &[u8]) -> Option<Result<usize, StreamError>> {
        let waiting = self.waiting(stream)?;
        if waiting.finished {
            return Some(Err(StreamError::Finished));
        }
        let taken = data.len().min(WAITING_LEN_MAX - waiting.bytes.len());
        waiting.bytes.extend_from_slice(&data[..taken]);
        waiting.blocked |= taken < data.len();
        self.note_replay(stream, &data[..taken], false);
        Some(if taken == 0 && !data.is_empty() { Err(StreamError::Blocked) } else { Ok(taken) })
    }

    /// Notes what a stream was given that the peer has not accepted.
    pub(super) fn note_replay(&mut self, stream: StreamKey, data: &[u8], finished: bool) {
        let Some(entry) = self.by_key.get_mut(&stream) else { return };
        let Some(replay) = &mut entry.replay else { return };
        if replay.bytes.len() + data.len() > WAITING_LEN_MAX {
            entry.replay = None;
            return;
        }
        replay.bytes.extend_from_slice(data);
        replay.finished |= finished;
    }

    /// The peer has accepted it, or nobody wants it any more: it will not begin again.
    pub(super) fn drop_replay(&mut self, stream: StreamKey) {
        if let Some(entry) = self.by_key.get_mut(&stream) {
            entry.replay = None;
        }
    }

    /// Takes a stream that the peer has not accepted back to where it waits for a link; false if it cannot.
    pub(super) fn begin_again(&mut self, stream: StreamKey) -> bool {
        let Some(entry) = self.by_key.get_mut(&stream) else { return false };
        let Some(replay) = entry.replay.take() else { return false };
        entry.waiting = Some(replay);
        self.unlink(stream);
        true
    }

    /// The same, but only once.
    pub(super) fn begin_again_once(&mut self, stream: StreamKey) -> bool {
        let is_first = self.by_key.get_mut(&stream).is_some_and(|e| !core::mem::replace(&mut e.again, true));
        is_first && self.begin_again(stream)
    }
}

#[cfg(any(test, feature = "operations"))]
impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// What must hold after every call: each stream is either in a link or waits for one.
    pub(super) fn assert_consistent(&self) {
        assert_eq!(self.by_local.len() + self.unopened.len(), self.by_key.len());
        assert_eq!(self.counts.values().sum::<usize>(), self.by_local.len());
        assert!(self.counts.values().all(|count| *count > 0) && self.ended.len() <= ENDED_MAX);
        for (key, entry) in &self.by_key {
            match entry.open {
                Some(open) => assert_eq!(self.by_local.get(&open), Some(key)),
                None => assert!(self.unopened.contains(&(entry.peer, *key)) && entry.waiting.is_some()),
            }
            for held in [&entry.waiting, &entry.replay].into_iter().flatten() {
                assert!(held.bytes.len() <= WAITING_LEN_MAX);
            }
        }
    }
}
