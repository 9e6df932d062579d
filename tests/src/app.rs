//! The application on each host: transfers whose every byte is checked on both sides.
//!
//! A transfer opens a stream to the service [`XFER`], sends a header (its number, bytes up, bytes down) and then as
//! many bytes of a pattern up as it said, while the server sends a pattern down. A byte of the pattern depends on
//! transfer, direction and place, so a lost, doubled, swapped or changed byte shows at once. Each side finishes when
//! all is written; a transfer is done when both sides have read the other's end.
//!
//! Streams to the service [`DOWN`] are refused, as a node refuses when the program behind a service does not answer.
//! Datagrams are kept as they come.

use std::collections::BTreeMap;

use handfast_core::{Event, Instant, Node, PeerId, Read, ServiceName, StreamEnd, StreamError, StreamKey};

use crate::random::Dice;

/// The service of transfers.
pub const XFER: &str = "xfer";
/// A service behind which no program answers.
pub const DOWN: &str = "down";
/// Number, bytes up, bytes down: three u64, little-endian.
const HEADER_LEN: u64 = 24;
/// Most bytes per write or read call.
const CHUNK_MAX: usize = 16 * 1024;

/// A transfer, unique in its world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TransferId(pub u64);

/// One side of one transfer.
#[derive(Clone, Debug)]
pub struct Side {
    /// Which; the server learns it from the header.
    pub id: Option<TransferId>,
    /// Whether this side opened the stream.
    pub client: bool,
    /// The other side.
    pub peer: PeerId,
    /// When the stream was opened, or came in.
    pub since: Instant,
    /// When the peer accepted it.
    pub opened: Option<Instant>,
    /// When the first byte came.
    pub first_byte: Option<Instant>,
    /// When this side had sent all and read the other's end.
    pub done: Option<Instant>,
    /// When and why it ended before that.
    pub ended: Option<(Instant, StreamEnd)>,
    /// Bytes to send, header included.
    pub out_len: u64,
    /// Of these, bytes the node took.
    pub out_pos: u64,
    /// Bytes to receive, header included, once known.
    pub in_len: Option<u64>,
    /// Of these, bytes read.
    pub in_pos: u64,
    /// Whether reading waits: a slow program.
    pub paused: bool,
    header: [u8; HEADER_LEN as usize],
    finished: bool,
    end_seen: bool,
}

impl Side {
    fn new(client: bool, peer: PeerId, now: Instant) -> Self {
        Self {
            id: None,
            client,
            peer,
            since: now,
            opened: None,
            first_byte: None,
            done: None,
            ended: None,
            out_len: 0,
            out_pos: 0,
            in_len: None,
            in_pos: 0,
            paused: false,
            header: [0; HEADER_LEN as usize],
            finished: false,
            end_seen: false,
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.done.is_some() || self.ended.is_some()
    }

    /// Fills `out` with what stands at `pos` of the bytes this transfer sends up or down.
    fn content(&self, up: bool, pos: u64, out: &mut [u8]) {
        let id = self.id.map_or(0, |id| id.0);
        let header = if up { HEADER_LEN } else { 0 };
        let mut word = [0; 8];
        for (n, (byte, at)) in out.iter_mut().zip(pos..).enumerate() {
            if at < header {
                *byte = self.header[at as usize];
                continue;
            }
            let place = at - header;
            if n == 0 || place == 0 || place.is_multiple_of(8) {
                word = pattern(id, up, place / 8);
            }
            *byte = word[(place % 8) as usize];
        }
    }

    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamKey, dice: &mut Dice) {
        if self.is_over() {
            return;
        }
        let wrote = self.write(now, node, stream, dice);
        let read = wrote.and_then(|()| self.read(now, node, stream, dice));
        match read {
            Ok(()) | Err(StreamError::Blocked) => {}
            Err(StreamError::Ended(end)) => self.ended = Some((now, end)),
            Err(error) => panic!("a stream call failed with {error:?}: {self:?}"),
        }
        if self.finished && self.end_seen && self.ended.is_none() {
            self.done = Some(now);
        }
    }

    fn write(&mut self, now: Instant, node: &mut Node, stream: StreamKey, dice: &mut Dice) -> Result<(), StreamError> {
        // A server knows what to send once it has the header.
        if self.finished || self.id.is_none() {
            return Ok(());
        }
        let mut chunk = [0; CHUNK_MAX];
        while self.out_pos < self.out_len {
            let len = (dice.size(CHUNK_MAX as u64 - 1) + 1).min(self.out_len - self.out_pos) as usize;
            self.content(self.client, self.out_pos, &mut chunk[..len]);
            match node.write(now, stream, &chunk[..len]) {
                Ok(n) => {
                    assert!(n > 0 && n <= len, "wrote {n} of {len} bytes");
                    self.out_pos += n as u64;
                }
                Err(StreamError::Blocked) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.finished = true;
        node.finish(now, stream)
    }

    fn read(&mut self, now: Instant, node: &mut Node, stream: StreamKey, dice: &mut Dice) -> Result<(), StreamError> {
        let mut buf = [0; CHUNK_MAX];
        let mut wanted = [0; CHUNK_MAX];
        while !self.end_seen && !self.paused {
            let room = dice.size(CHUNK_MAX as u64 - 1) as usize + 1;
            match node.read(now, stream, &mut buf[..room])? {
                Read::Bytes(n) => {
                    assert!(n > 0 && n <= room, "read {n} bytes into {room}");
                    self.first_byte.get_or_insert(now);
                    self.take(&buf[..n], &mut wanted);
                    if self.finished {
                        continue;
                    }
                    // The header may just have told a server what to send.
                    self.write(now, node, stream, dice)?;
                }
                Read::End => {
                    assert_eq!(Some(self.in_pos), self.in_len, "the stream ended early or late: {self:?}");
                    self.end_seen = true;
                }
                Read::Blocked => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, mut got: &[u8], wanted: &mut [u8]) {
        if !self.client && self.in_pos < HEADER_LEN {
            let n = got.len().min((HEADER_LEN - self.in_pos) as usize);
            let (head, rest) = got.split_at(n);
            self.header[self.in_pos as usize..][..n].copy_from_slice(head);
            self.in_pos += n as u64;
            got = rest;
            if self.in_pos == HEADER_LEN {
                let field = |at: usize| u64::from_le_bytes(self.header[at..at + 8].try_into().expect("8 bytes"));
                let (id, up, down) = (field(0), field(8), field(16));
                self.id = Some(TransferId(id));
                self.in_len = Some(HEADER_LEN + up);
                self.out_len = down;
            }
        }
        let wanted = &mut wanted[..got.len()];
        self.content(!self.client, self.in_pos, wanted);
        assert!(got == wanted, "bytes from {} on are not what was sent: {self:?}", self.in_pos);
        self.in_pos += got.len() as u64;
        assert!(self.in_len.is_none_or(|len| self.in_pos <= len), "more bytes than were sent: {self:?}");
    }
}

/// Eight bytes of one direction of one transfer.
fn pattern(id: u64, up: bool, word: u64) -> [u8; 8] {
    let mut x = (id << 1 | u64::from(up)).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)).to_le_bytes()
}

/// The program on one host.
pub struct App {
    /// Sides of transfers, by the node's incarnation and stream.
    pub sides: BTreeMap<(u64, StreamKey), Side>,
    /// Datagrams that came, with their senders.
    pub datagrams: Vec<(PeerId, Vec<u8>)>,
    /// Streams that came in for a service other than [`XFER`] and [`DOWN`], left unanswered for the test to handle.
    pub incoming: Vec<(StreamKey, PeerId, ServiceName)>,
    /// New incoming transfers are not read until the test says so.
    pub pause_incoming: bool,
    incarnation: u64,
    dice: Dice,
}

impl App {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            sides: BTreeMap::new(),
            datagrams: Vec::new(),
            incoming: Vec::new(),
            pause_incoming: false,
            incarnation: 0,
            dice,
        }
    }

    /// The node was started again; streams of the one before are gone.
    pub(crate) fn on_start(&mut self, now: Instant, incarnation: u64) {
        self.incarnation = incarnation;
        for side in self.sides.values_mut().filter(|side| !side.is_over()) {
            side.ended = Some((now, StreamEnd::PeerRestarted));
        }
    }

    /// Starts a transfer.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        node: &mut Node,
        stream: StreamKey,
        id: TransferId,
        peer: PeerId,
        up: u64,
        down: u64,
    ) {
        let mut side = Side::new(true, peer, now);
        side.id = Some(id);
        side.header[..8].copy_from_slice(&id.0.to_le_bytes());
        side.header[8..16].copy_from_slice(&up.to_le_bytes());
        side.header[16..].copy_from_slice(&down.to_le_bytes());
        side.out_len = HEADER_LEN + up;
        side.in_len = Some(down);
        side.pump(now, node, stream, &mut self.dice);
        let before = self.sides.insert((self.incarnation, stream), side);
        assert!(before.is_none(), "{stream:?} was used before");
    }

    /// Reacts to an event.
    pub(crate) fn on_event(&mut self, now: Instant, node: &mut Node, event: &Event) {
        match *event {
            Event::StreamIncoming { stream, peer, service } => self.on_incoming(now, node, stream, peer, service),
            Event::StreamOpened { stream } => {
                if let Some(side) = self.sides.get_mut(&(self.incarnation, stream)) {
                    assert!(side.client && side.opened.is_none(), "opened twice, or by nobody: {side:?}");
                    side.opened = Some(now);
                }
                self.pump(now, node, stream);
            }
            Event::Readable { stream } | Event::Writable { stream } => self.pump(now, node, stream),
            Event::StreamEnded { stream, end } => {
                if let Some(side) = self.sides.get_mut(&(self.incarnation, stream)) {
                    // A side that was done may still hear that the last acknowledgement never came.
                    if !side.is_over() {
                        side.ended = Some((now, end));
                    }
                }
            }
            Event::Datagram { peer } => {
                let mut buf = [0; 2048];
                while let Some(len) = node.recv_datagram(peer, &mut buf) {
                    self.datagrams.push((peer, buf[..len].to_vec()));
                }
            }
            _ => {}
        }
    }

    fn on_incoming(&mut self, now: Instant, node: &mut Node, stream: StreamKey, peer: PeerId, service: ServiceName) {
        match service.as_str() {
            XFER => {
                match node.accept(now, stream) {
                    Ok(()) => {}
                    // Its link ended within the call that announced it.
                    Err(StreamError::Ended(_)) => return,
                    Err(error) => panic!("a stream just announced can be accepted: {error:?}"),
                }
                let mut side = Side::new(false, peer, now);
                side.paused = self.pause_incoming;
                let before = self.sides.insert((self.incarnation, stream), side);
                assert!(before.is_none(), "{stream:?} was used before");
                self.pump(now, node, stream);
            }
            DOWN => match node.refuse(now, stream, StreamEnd::Unavailable) {
                Ok(()) | Err(StreamError::Ended(_)) => {}
                Err(error) => panic!("a stream just announced can be refused: {error:?}"),
            },
            _ => self.incoming.push((stream, peer, service)),
        }
    }

    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamKey) {
        if let Some(side) = self.sides.get_mut(&(self.incarnation, stream)) {
            side.pump(now, node, stream, &mut self.dice);
        }
    }

    /// Reads on where reading waited.
    pub(crate) fn resume(&mut self, now: Instant, node: &mut Node) {
        self.pause_incoming = false;
        let live: Vec<StreamKey> = self.sides.keys().filter(|(i, _)| *i == self.incarnation).map(|(_, s)| *s).collect();
        for stream in live {
            let side = self.sides.get_mut(&(self.incarnation, stream)).expect("listed");
            side.paused = false;
            side.pump(now, node, stream, &mut self.dice);
        }
    }

    /// This host's side of a transfer; of the client's, where it is with itself.
    pub fn side(&self, id: TransferId) -> Option<&Side> {
        self.sides.values().find(|side| side.id == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        handfast_core::SecretKey::from_bytes(&[1; 32]).peer_id()
    }

    fn side(id: u64) -> Side {
        let mut side = Side::new(true, peer(), Instant::ZERO);
        side.id = Some(TransferId(id));
        side.header = [7; 24];
        side
    }

    #[test]
    fn contents_depend_on_everything() {
        let line = |id, up, from: u64| {
            let mut out = [0; 64];
            side(id).content(up, from, &mut out);
            out
        };
        assert_eq!(line(1, true, 0)[..24], [7; 24]);
        assert_ne!(line(1, true, 24), line(1, false, 0));
        assert_ne!(line(1, true, 24), line(2, true, 24));
        assert_ne!(line(1, true, 24), line(1, true, 25));
        assert_ne!(line(1, true, 24), line(1, true, 32));
    }

    #[test]
    fn contents_do_not_depend_on_where_a_call_begins() {
        let mut whole = [0; 300];
        side(5).content(true, 0, &mut whole);
        for from in 0..200 {
            let mut part = [0; 77];
            side(5).content(true, from as u64, &mut part);
            assert_eq!(part, whole[from..from + 77]);
        }
    }
}
