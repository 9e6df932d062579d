//! The streams of one link, by our name and by QUIC's.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use quinn_proto::{Connection, Side, StreamId, VarInt};

use super::event::LocalStream;
use super::frames::{Piece, pieces};
use super::limits::PIECES_MAX;
use super::one::{CODE_MALFORMED, One};
use crate::time::Instant;

/// How long the peer may take to name the service of a stream that it opened. The link itself bears less silence.
pub(super) const NAME_WAIT: Duration = Duration::from_secs(60);

/// The streams of one link, under both names, and those of the peer that have not named a service yet.
#[derive(Default)]
pub(super) struct Set {
    all: BTreeMap<LocalStream, One>,
    /// Those that have their place in the present connection.
    by_id: BTreeMap<StreamId, LocalStream>,
    next: u64,
    /// Streams of the peer that do not say yet to what, in order, and until when they may not.
    unnamed: VecDeque<(Instant, LocalStream)>,
    /// No fewer pieces than QUIC holds of all of them.
    pieces: usize,
    /// Those of the packet that is being handled.
    coming: Vec<Piece>,
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

    /// Whether any is more than a promise of the peer's: ours, or one whose service it has named.
    pub(super) fn has_named(&self) -> bool {
        self.all.values().any(|one| !one.is_unnamed())
    }

    /// The peer opened this one, and has not named its service yet.
    pub(super) fn await_name(&mut self, now: Instant, stream: LocalStream) {
        if self.get(stream).is_some_and(One::is_unnamed) {
            self.unnamed.push_back((now + NAME_WAIT, stream));
        }
    }

    /// Until when the next one that is not named must be.
    pub(super) fn name_due(&self) -> Option<Instant> {
        self.unnamed.front().map(|(at, _)| *at)
    }

    /// Notes which have been named, or ended.
    pub(super) fn note_named(&mut self) {
        while let Some((_, stream)) = self.unnamed.front()
            && self.all.get(stream).is_none_or(|one| !one.is_unnamed())
        {
            self.unnamed.pop_front();
        }
    }

    /// Ends those that were not named in time: their peer only wants us to hold them.
    pub(super) fn refuse_overdue(&mut self, now: Instant, mut quic: Option<&mut Connection>) {
        self.note_named();
        while self.name_due().is_some_and(|at| at <= now)
            && let Some((_, stream)) = self.unnamed.pop_front()
        {
            if let (Some(quic), Some(one)) = (quic.as_deref_mut(), self.get(stream)) {
                one.abort(quic, CODE_MALFORMED);
            }
            self.remove(stream);
            self.note_named();
        }
    }

    /// Whether QUIC may hold the pieces of one more packet. If so, it gets it, and then they are noted.
    pub(super) fn admits(&mut self, packet: &[u8]) -> bool {
        pieces(packet, &mut self.coming);
        let more = self.coming.len();
        if self.pieces + more > PIECES_MAX {
            // Only now, since it looks at all.
            self.pieces = self.all.values().map(|one| one.pieces() as usize).sum();
        }
        if self.pieces + more > PIECES_MAX {
            self.coming.clear();
            return false;
        }
        self.pieces += more;
        true
    }

    /// QUIC has the pieces that were admitted, as far as their streams are still there.
    pub(super) fn note_pieces(&mut self) {
        for piece in self.coming.drain(..) {
            let id = VarInt::from_u64(piece.stream).ok().map(StreamId::from);
            let stream = id.and_then(|id| self.by_id.get(&id));
            if let Some(one) = stream.and_then(|stream| self.all.get_mut(stream)) {
                one.on_piece(piece.end);
            }
        }
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
