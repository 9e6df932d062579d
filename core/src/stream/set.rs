//! The streams of one link, by our name and by QUIC's.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use quinn_proto::{Connection, Side, StreamId, VarInt};

use super::event::LocalStream;
use super::frames::{Piece, pieces};
use super::limits::PIECES_MAX;
use super::one::{CODE_MALFORMED, One};
use crate::time::Instant;

/// How long the peer may take to name the service of a stream that it opened. The link itself bears less silence.
pub(super) const NAME_WAIT: Duration = Duration::from_secs(60);

/// The streams of one link, under both names, and those of the peer that have not named a service yet.
pub(super) struct Set {
    side: Side,
    all: BTreeMap<LocalStream, One>,
    /// Those that have their place in the present connection.
    by_id: BTreeMap<StreamId, LocalStream>,
    /// Those that wait for one.
    waiting: BTreeSet<LocalStream>,
    /// How many this end opened.
    ours: usize,
    next: u64,
    /// Streams of the peer that do not say yet to what, in order, and until when they may not.
    unnamed: BTreeMap<LocalStream, Instant>,
    /// No fewer pieces than QUIC holds of all of them.
    pieces: usize,
    /// Those of the packet that is being handled.
    coming: Vec<Piece>,
}

impl Set {
    /// Of this end of the link.
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            all: BTreeMap::new(),
            by_id: BTreeMap::new(),
            waiting: BTreeSet::new(),
            ours: 0,
            next: 0,
            unnamed: BTreeMap::new(),
            pieces: 0,
            coming: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, one: One) -> LocalStream {
        let stream = LocalStream(self.next);
        self.next += 1;
        match one.id {
            Some(id) => drop(self.by_id.insert(id, stream)),
            None => drop(self.waiting.insert(stream)),
        }
        self.ours += usize::from(one.is_ours(self.side));
        self.all.insert(stream, one);
        stream
    }

    /// The stream has its place in a connection now.
    pub(super) fn on_attached(&mut self, stream: LocalStream, id: StreamId) {
        self.waiting.remove(&stream);
        self.by_id.insert(id, stream);
    }

    pub(super) fn remove(&mut self, stream: LocalStream) {
        let Some(one) = self.all.remove(&stream) else { return };
        match one.id {
            Some(id) => drop(self.by_id.remove(&id)),
            None => drop(self.waiting.remove(&stream)),
        }
        self.ours -= usize::from(one.is_ours(self.side));
        self.unnamed.remove(&stream);
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
        self.all.len() > self.unnamed.len()
    }

    /// The peer opened this one, and has not named its service yet.
    pub(super) fn await_name(&mut self, now: Instant, stream: LocalStream) {
        if self.get(stream).is_some_and(One::is_unnamed) {
            self.unnamed.insert(stream, now + NAME_WAIT);
        }
    }

    /// Until when the next one that is not named must be.
    pub(super) fn name_due(&self) -> Option<Instant> {
        self.unnamed.first_key_value().map(|(_, at)| *at)
    }

    /// Something happened on this stream: notes whether that named it.
    pub(super) fn note_named(&mut self, stream: LocalStream) {
        if self.get(stream).is_some_and(|one| !one.is_unnamed()) {
            self.unnamed.remove(&stream);
        }
    }

    /// Ends those that were not named in time: their peer only wants us to hold them.
    pub(super) fn refuse_overdue(&mut self, now: Instant, mut quic: Option<&mut Connection>) {
        while let Some((&stream, _)) = self.unnamed.first_key_value().filter(|(_, at)| **at <= now) {
            if let (Some(quic), Some(one)) = (quic.as_deref_mut(), self.get(stream)) {
                one.abort(quic, CODE_MALFORMED);
            }
            self.remove(stream);
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
    pub(super) fn ours(&self) -> usize {
        self.ours
    }

    /// How many have their place in the present connection.
    pub(super) fn attached(&self) -> usize {
        self.by_id.len()
    }

    /// The first of those that wait for one.
    pub(super) fn first_waiting(&self) -> Option<LocalStream> {
        self.waiting.first().copied()
    }

    /// Takes out those of the present connection, in QUIC's order.
    pub(super) fn take_attached(&mut self) -> Vec<(LocalStream, One)> {
        self.unnamed.clear();
        self.ours = self.waiting.len();
        let attached = core::mem::take(&mut self.by_id).into_values();
        attached.filter_map(|stream| Some((stream, self.all.remove(&stream)?))).collect()
    }

    /// Takes out all, in the order in which they were opened.
    pub(super) fn take_all(&mut self) -> Vec<(LocalStream, One)> {
        self.by_id.clear();
        self.waiting.clear();
        self.unnamed.clear();
        self.ours = 0;
        core::mem::take(&mut self.all).into_iter().collect()
    }

    /// What must hold between calls: all that is kept of the streams is what a look at each of them says.
    #[cfg(any(test, feature = "operations"))]
    pub(super) fn assert_consistent(&self) {
        let those = |which: &dyn Fn(&One) -> bool| -> Vec<LocalStream> {
            self.all.iter().filter(|(_, one)| which(one)).map(|(stream, _)| *stream).collect()
        };
        assert_eq!(self.ours, those(&|one| one.is_ours(self.side)).len());
        assert!(self.waiting.iter().eq(&those(&|one| one.id.is_none())));
        assert!(self.unnamed.keys().eq(&those(&One::is_unnamed)));
        assert_eq!(self.by_id.len() + self.waiting.len(), self.all.len());
        assert!(self.by_id.iter().all(|(id, stream)| self.get(*stream).is_some_and(|one| one.id == Some(*id))));
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::Dir;

    use super::*;
    use crate::random::Seed;

    #[test]
    fn what_is_kept_of_streams_is_what_a_look_at_each_says() {
        let mut choices = Seed::new([9; 32]).choices("test");
        let mut below = |n| choices.below(n) as u64;
        let service = "x".parse().expect("a service name");
        let mut set = Set::new(Side::Client);
        let mut ids = 0;
        let mut id = |side| {
            ids += 1;
            StreamId::new(side, Dir::Bi, ids)
        };
        for round in 0..5_000 {
            let now = Instant::from_micros(round * 1_000_000);
            let stream = LocalStream(set.next.saturating_sub(below(20)));
            match below(16) {
                0..4 => drop(set.insert(One::opening(&service))),
                4..8 => {
                    let stream = set.insert(One::incoming(id(Side::Server)));
                    set.await_name(now, stream);
                }
                8..10 => {
                    if let Some(stream) = set.first_waiting() {
                        let id = id(Side::Client);
                        set.get_mut(stream).expect("it waits").id = Some(id);
                        set.on_attached(stream, id);
                    }
                }
                10..12 => {
                    if let Some(one) = set.get_mut(stream).filter(|one| one.is_unnamed()) {
                        one.stop(None, 0).expect("it has not ended");
                        set.note_named(stream);
                    }
                }
                12..14 => set.remove(stream),
                14 => set.refuse_overdue(now, None),
                _ if below(20) > 0 => {}
                _ if below(2) == 0 => drop(set.take_attached()),
                _ => drop(set.take_all()),
            }
            set.assert_consistent();
            assert_eq!(set.has_named(), set.all.values().any(|one| !one.is_unnamed()));
        }
    }
}
