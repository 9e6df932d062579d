//! One stream: its header, its two directions, and what each call on it means to QUIC.

use arrayvec::ArrayVec;
use quinn_proto::{Connection, ReadError, ReadableError, Side, StreamId, VarInt, WriteError};

use super::pieces::Pieces;
use crate::api::{Read, StreamEnd, StreamError};
use crate::wire::{SERVICE_NAME_LEN_MAX, ServiceName};

/// What the acceptor's bytes begin with.
const ACCEPTED: u8 = 0;
/// A length, a name.
const HEADER_LEN_MAX: usize = 1 + SERVICE_NAME_LEN_MAX;

/// Codes of QUIC's RESET_STREAM and STOP_SENDING below this are ours; at and above it are the application's, less this.
const CODE_APPLICATION: u32 = 0x100;
/// Refused: no such service.
pub(super) const CODE_UNKNOWN_SERVICE: u32 = 1;
/// Refused: not for this peer.
pub(super) const CODE_NOT_ALLOWED: u32 = 2;
/// Refused: the program behind the service does not answer.
pub(super) const CODE_UNAVAILABLE: u32 = 3;
/// The stream's first bytes are no header, or its answer no answer.
pub(super) const CODE_MALFORMED: u32 = 4;
/// The answer to a stop or an abort of the peer.
const CODE_STOPPED: u32 = 5;
// Aborted streams carry this code; the application's begin far above it.
const _: () = assert!(CODE_STOPPED < CODE_APPLICATION);

fn refusal(code: VarInt) -> Option<StreamEnd> {
    match u32::try_from(code.into_inner()).ok()? {
        CODE_UNKNOWN_SERVICE => Some(StreamEnd::UnknownService),
        CODE_NOT_ALLOWED => Some(StreamEnd::NotAllowed),
        CODE_UNAVAILABLE | CODE_MALFORMED => Some(StreamEnd::Unavailable),
        _ => None,
    }
}

/// The code of a refusal that `why` names.
pub(super) const fn refusal_code(why: StreamEnd) -> u32 {
    match why {
        StreamEnd::UnknownService => CODE_UNKNOWN_SERVICE,
        StreamEnd::NotAllowed => CODE_NOT_ALLOWED,
        StreamEnd::Unavailable
        | StreamEnd::Connect(_)
        | StreamEnd::Reset(_)
        | StreamEnd::PeerRestarted
        | StreamEnd::PeerGone
        | StreamEnd::RelayLimited { .. } => CODE_UNAVAILABLE,
    }
}

/// An application's code, on the wire.
fn wire_code(code: u32) -> VarInt {
    // Below 2^33, where a VarInt goes to 2^62.
    VarInt::try_from(u64::from(code) + u64::from(CODE_APPLICATION)).unwrap_or(VarInt::MAX)
}

/// A code off the wire, for the application. Codes of ours, which a peer of ours never sends on an open stream, and
/// impossible ones become 0 and the largest.
fn application_code(code: VarInt) -> u32 {
    u32::try_from(code.into_inner().saturating_sub(u64::from(CODE_APPLICATION))).unwrap_or(u32::MAX)
}

/// The direction from the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Receiving {
    /// Acceptor: the name of the service is coming.
    Header(ArrayVec<u8, HEADER_LEN_MAX>),
    /// Acceptor: the application was asked and has not answered.
    Unanswered,
    /// Opener: the peer has not answered.
    Unaccepted,
    /// Bytes flow.
    Open,
    /// The peer's end was seen behind bytes that were read; the next `read` tells.
    Ended,
    /// The peer reset it; the next `read` tells.
    Reset(u32),
    /// Read to the end, or stopped, or its reset was told.
    Done(Option<StreamEnd>),
}

/// The direction to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    Open,
    /// `finish` was called; not all is acknowledged.
    Finishing,
    /// Acknowledged to the end, or reset by us, or stopped by the peer (with its code).
    Done(Option<u32>),
}

/// What happened to a stream, for [`Streams`](super::Streams) to tell or do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Note {
    Incoming(ServiceName),
    Opened,
    Readable,
    Writable,
    Stopped,
    /// Over for both directions, before its time.
    Ended(StreamEnd),
    /// Over before the application heard of it.
    Forget,
}

/// At most three notes come of one event.
pub(super) type Notes = ArrayVec<Note, 3>;

/// One stream.
pub(super) struct One {
    /// `None` while there is no connection to open it on (server only).
    pub(super) id: Option<StreamId>,
    receiving: Receiving,
    sending: Sending,
    /// Own bytes that go before the application's: the header, or [`ACCEPTED`].
    prefix: ArrayVec<u8, HEADER_LEN_MAX>,
    /// What came and was not read.
    pieces: Pieces,
    /// Calls made before there was a connection, or behind a prefix that flow control holds back.
    finish_later: bool,
    reset_later: Option<u32>,
    stop_later: Option<u32>,
    /// `Readable` was told and the application has not read all since.
    readable_told: bool,
    /// The application wrote more than was taken.
    writable_wanted: bool,
}

impl One {
    fn new(id: Option<StreamId>, receiving: Receiving) -> Self {
        Self {
            id,
            receiving,
            sending: Sending::Open,
            prefix: ArrayVec::new(),
            pieces: Pieces::default(),
            finish_later: false,
            reset_later: None,
            stop_later: None,
            readable_told: false,
            writable_wanted: false,
        }
    }

    /// A stream of ours, to be attached to a connection.
    pub(super) fn opening(service: &ServiceName) -> Self {
        let mut one = Self::new(None, Receiving::Unaccepted);
        let name = service.as_str().as_bytes();
        one.prefix.push(u8::try_from(name.len()).expect("SERVICE_NAME_LEN_MAX is below 256"));
        one.prefix.extend(name.iter().copied());
        one
    }

    /// A stream of the peer's.
    pub(super) fn incoming(id: StreamId) -> Self {
        Self::new(Some(id), Receiving::Header(ArrayVec::new()))
    }

    /// Gives an [`opening`](Self::opening) stream its place in a connection.
    pub(super) fn attach(&mut self, quic: &mut Connection, id: StreamId) -> Notes {
        let mut notes = Notes::new();
        self.id = Some(id);
        self.flush(quic);
        if let Some(code) = self.reset_later.take() {
            let _ = quic.send_stream(id).reset(wire_code(code));
        }
        if let Some(code) = self.stop_later.take() {
            let _ = quic.recv_stream(id).stop(wire_code(code));
        }
        self.note_writable(&mut notes);
        notes
    }

    /// How many pieces QUIC holds of it for the application.
    pub(super) const fn pieces(&self) -> u32 {
        self.pieces.count()
    }

    /// A piece of it came that ends here.
    pub(super) fn on_piece(&mut self, end: u64) {
        // Of a stream that was stopped or reset nothing is held.
        if !matches!(self.receiving, Receiving::Done(_) | Receiving::Reset(_)) {
            self.pieces.on_piece(end);
        }
    }

    /// Whether this end opened it.
    pub(super) fn is_ours(&self, side: Side) -> bool {
        self.id.is_none_or(|id| id.initiator() == side)
    }

    /// Whether it is the peer's and does not say yet to what service.
    pub(super) fn is_unnamed(&self) -> bool {
        matches!(self.receiving, Receiving::Header(_))
    }

    /// Whether it is ours and the peer has not accepted it.
    pub(super) fn is_unaccepted(&self) -> bool {
        self.receiving == Receiving::Unaccepted
    }

    /// Whether both directions are done and nothing is left to tell by `read`.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.receiving, Receiving::Done(_) | Receiving::Reset(_)) && matches!(self.sending, Sending::Done(_))
    }

    /// What to tell of a stream that is over; nothing if all was told, or ended well.
    pub(super) fn end(&self) -> Option<StreamEnd> {
        match self.receiving {
            Receiving::Reset(code) => Some(StreamEnd::Reset(code)),
            _ => None,
        }
    }

    /// Ends both directions with a code of ours.
    pub(super) fn abort(&self, quic: &mut Connection, code: u32) {
        // An error says that the direction has ended already.
        if let Some(id) = self.id {
            let _ = quic.send_stream(id).reset(VarInt::from_u32(code));
            let _ = quic.recv_stream(id).stop(VarInt::from_u32(code));
        }
    }

    /// Answers an incoming stream with yes.
    pub(super) fn accept(&mut self, quic: &mut Connection) -> Result<Notes, StreamError> {
        if self.receiving != Receiving::Unanswered {
            return Err(StreamError::Finished);
        }
        self.receiving = Receiving::Open;
        self.prefix.push(ACCEPTED);
        self.flush(quic);
        // Bytes may have come behind the header.
        let mut notes = Notes::new();
        self.note_readable(&mut notes);
        Ok(notes)
    }

    /// Whether the application has yet to answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.receiving == Receiving::Unanswered
    }

    pub(super) fn write(&mut self, quic: Option<&mut Connection>, data: &[u8]) -> Result<usize, StreamError> {
        match self.sending {
            Sending::Open => {}
            Sending::Finishing | Sending::Done(None) => return Err(StreamError::Finished),
            Sending::Done(Some(code)) => return Err(StreamError::Ended(StreamEnd::Reset(code))),
        }
        let mut taken = 0;
        // An acceptor's bytes must not come before its answer.
        let answered = !matches!(self.receiving, Receiving::Header(_) | Receiving::Unanswered);
        if let (Some(quic), Some(id), true) = (quic, self.id, answered) {
            self.flush(quic);
            // To the point of `Blocked`, without which QUIC does not tell when it takes bytes again.
            while self.prefix.is_empty() && taken < data.len() {
                match quic.send_stream(id).write(&data[taken..]) {
                    Ok(n) => taken += n,
                    Err(WriteError::Blocked) => break,
                    // The event that says so is on its way.
                    Err(WriteError::Stopped(code)) => {
                        return Err(StreamError::Ended(StreamEnd::Reset(application_code(code))));
                    }
                    Err(WriteError::ClosedStream) => return Err(StreamError::Finished),
                }
            }
        }
        self.writable_wanted = taken < data.len();
        if taken == 0 && !data.is_empty() { Err(StreamError::Blocked) } else { Ok(taken) }
    }

    pub(super) fn read(&mut self, quic: Option<&mut Connection>, buf: &mut [u8]) -> Result<Read, StreamError> {
        match self.receiving {
            Receiving::Header(_) | Receiving::Unanswered | Receiving::Unaccepted => return Ok(Read::Blocked),
            Receiving::Open => {}
            Receiving::Ended => {
                self.receiving = Receiving::Done(None);
                return Ok(Read::End);
            }
            Receiving::Reset(code) => {
                let end = StreamEnd::Reset(code);
                self.receiving = Receiving::Done(Some(end));
                return Err(StreamError::Ended(end));
            }
            Receiving::Done(None) => return Err(StreamError::Finished),
            Receiving::Done(Some(end)) => return Err(StreamError::Ended(end)),
        }
        let (Some(quic), Some(id)) = (quic, self.id) else { return Ok(Read::Blocked) };
        if buf.is_empty() {
            return Ok(Read::Bytes(0));
        }
        match read_into(quic, id, buf, &mut self.pieces) {
            (n, Chunk::Full) => return Ok(Read::Bytes(n)),
            (n, Chunk::Blocked) => {
                self.readable_told = false;
                return Ok(if n == 0 { Read::Blocked } else { Read::Bytes(n) });
            }
            (n, Chunk::End) => {
                self.receiving = Receiving::Ended;
                if n > 0 {
                    return Ok(Read::Bytes(n));
                }
            }
            (n, Chunk::Reset(code)) => {
                self.receiving = Receiving::Reset(application_code(code));
                if n > 0 {
                    return Ok(Read::Bytes(n));
                }
            }
        }
        self.read(None, buf)
    }

    pub(super) fn finish(&mut self, quic: Option<&mut Connection>) -> Result<(), StreamError> {
        match self.sending {
            Sending::Open if !self.is_unanswered() => {}
            Sending::Done(Some(code)) => return Err(StreamError::Ended(StreamEnd::Reset(code))),
            _ => return Err(StreamError::Finished),
        }
        self.sending = Sending::Finishing;
        self.writable_wanted = false;
        self.finish_later = true;
        if let Some(quic) = quic {
            self.flush(quic);
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, quic: Option<&mut Connection>, code: u32) -> Result<(), StreamError> {
        match self.sending {
            Sending::Open | Sending::Finishing => {}
            Sending::Done(Some(code)) => return Err(StreamError::Ended(StreamEnd::Reset(code))),
            Sending::Done(None) => return Err(StreamError::Finished),
        }
        self.sending = Sending::Done(None);
        self.finish_later = false;
        self.writable_wanted = false;
        match (quic, self.id) {
            (Some(quic), Some(id)) => drop(quic.send_stream(id).reset(wire_code(code))),
            _ => self.reset_later = Some(code),
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, quic: Option<&mut Connection>, code: u32) -> Result<(), StreamError> {
        if let Receiving::Done(end) = self.receiving {
            return Err(end.map_or(StreamError::Finished, StreamError::Ended));
        }
        self.receiving = Receiving::Done(None);
        self.pieces = Pieces::default();
        match (quic, self.id) {
            (Some(quic), Some(id)) => drop(quic.recv_stream(id).stop(wire_code(code))),
            _ => self.stop_later = Some(code),
        }
        Ok(())
    }

    /// QUIC has bytes, an end or a reset for this stream.
    pub(super) fn on_readable(&mut self, quic: &mut Connection) -> Notes {
        let mut notes = Notes::new();
        let Some(id) = self.id else { return notes };
        match &mut self.receiving {
            Receiving::Header(header) => match read_header(quic, id, header, &mut self.pieces) {
                Ok(None) => {}
                Ok(Some(service)) => {
                    self.receiving = Receiving::Unanswered;
                    notes.push(Note::Incoming(service));
                }
                Err(code) => {
                    self.abort(quic, code);
                    notes.push(Note::Forget);
                }
            },
            Receiving::Unanswered => {
                if let Ok(Some(code)) = quic.recv_stream(id).received_reset() {
                    self.abort(quic, CODE_STOPPED);
                    notes.push(Note::Ended(StreamEnd::Reset(application_code(code))));
                }
            }
            Receiving::Unaccepted => {
                let mut answer = [0];
                let end = match read_into(quic, id, &mut answer, &mut self.pieces) {
                    (0, Chunk::Blocked) => return notes,
                    (1, _) if answer == [ACCEPTED] => {
                        self.receiving = Receiving::Open;
                        notes.push(Note::Opened);
                        self.note_readable(&mut notes);
                        return notes;
                    }
                    (_, Chunk::Reset(code)) => refusal(code).unwrap_or(StreamEnd::Reset(application_code(code))),
                    _ => StreamEnd::Unavailable,
                };
                self.abort(quic, CODE_MALFORMED);
                notes.push(Note::Ended(end));
            }
            Receiving::Open => {
                if let Ok(Some(code)) = quic.recv_stream(id).received_reset() {
                    self.receiving = Receiving::Reset(application_code(code));
                }
                self.note_readable(&mut notes);
            }
            Receiving::Ended | Receiving::Reset(_) | Receiving::Done(_) => {}
        }
        notes
    }

    /// QUIC takes bytes again.
    pub(super) fn on_writable(&mut self, quic: &mut Connection) -> Notes {
        let mut notes = Notes::new();
        self.flush(quic);
        if self.prefix.is_empty() {
            self.note_writable(&mut notes);
        }
        notes
    }

    /// All that was written has been acknowledged, the end too.
    pub(super) fn on_finished(&mut self) {
        if self.sending == Sending::Finishing {
            self.sending = Sending::Done(None);
        }
    }

    /// The peer wants no more bytes.
    pub(super) fn on_stopped(&mut self, quic: &mut Connection, code: VarInt) -> Notes {
        let mut notes = Notes::new();
        if let Some(id) = self.id {
            // RFC 9000 §3.5: who is asked to stop sending answers with a reset.
            let _ = quic.send_stream(id).reset(VarInt::from_u32(CODE_STOPPED));
        }
        if let (Receiving::Unaccepted, Some(end)) = (&self.receiving, refusal(code)) {
            self.abort(quic, CODE_STOPPED);
            notes.push(Note::Ended(end));
            return notes;
        }
        if !matches!(self.sending, Sending::Done(_)) {
            self.sending = Sending::Done(Some(application_code(code)));
            self.prefix.clear();
            self.finish_later = false;
            self.writable_wanted = false;
            if !matches!(self.receiving, Receiving::Header(_)) {
                notes.push(Note::Stopped);
            }
        }
        notes
    }

    /// Sends what was put off, as far as flow control lets it.
    fn flush(&mut self, quic: &mut Connection) {
        let Some(id) = self.id else { return };
        while !self.prefix.is_empty() {
            match quic.send_stream(id).write(&self.prefix) {
                Ok(n) => drop(self.prefix.drain(..n)),
                Err(WriteError::Blocked) => return,
                // Stopped by the peer, of which an event tells: there is nobody to send it to.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => self.prefix.clear(),
            }
        }
        if self.finish_later {
            self.finish_later = false;
            // It fails only if the peer has stopped it, of which an event tells.
            let _ = quic.send_stream(id).finish();
        }
    }

    fn note_readable(&mut self, notes: &mut Notes) {
        if !self.readable_told {
            self.readable_told = true;
            notes.push(Note::Readable);
        }
    }

    fn note_writable(&mut self, notes: &mut Notes) {
        if core::mem::take(&mut self.writable_wanted) {
            notes.push(Note::Writable);
        }
    }
}

/// Why a read of QUIC's bytes stopped.
enum Chunk {
    /// The buffer is full.
    Full,
    Blocked,
    End,
    Reset(VarInt),
}

/// Reads bytes in order until `buf` is full or there are none.
fn read_into(quic: &mut Connection, id: StreamId, buf: &mut [u8], held: &mut Pieces) -> (usize, Chunk) {
    let mut stream = quic.recv_stream(id);
    let mut chunks = match stream.read(true) {
        Ok(chunks) => chunks,
        // Neither happens: who stops a stream or has read its end does not come here, and all reads are in order.
        Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return (0, Chunk::End),
    };
    let (mut n, mut pieces) = (0, 0);
    let why = loop {
        let Some(room) = buf.get_mut(n..).filter(|room| !room.is_empty()) else { break Chunk::Full };
        match chunks.next(room.len()) {
            Ok(Some(chunk)) => {
                // At most as long as it was asked to be.
                room[..chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                n += chunk.bytes.len();
                // Whether one that fills the room goes on is not told.
                pieces += u32::from(chunk.bytes.len() < room.len());
            }
            Ok(None) => break Chunk::End,
            Err(ReadError::Blocked) => break Chunk::Blocked,
            Err(ReadError::Reset(code)) => break Chunk::Reset(code),
        }
    };
    // Whether credit goes to the peer: `poll_transmit` follows every call anyway.
    let _ = chunks.finalize();
    held.on_read(n, pieces);
    (n, why)
}

/// Reads on in a header. The error is the code to end the stream with.
fn read_header(
    quic: &mut Connection,
    id: StreamId,
    header: &mut ArrayVec<u8, HEADER_LEN_MAX>,
    held: &mut Pieces,
) -> Result<Option<ServiceName>, u32> {
    loop {
        let expected = match header.first() {
            None => 1,
            Some(&len) if (1..=SERVICE_NAME_LEN_MAX).contains(&usize::from(len)) => 1 + usize::from(len),
            Some(_) => return Err(CODE_MALFORMED),
        };
        if header.len() == expected && expected > 1 {
            let name = core::str::from_utf8(&header[1..]).map_err(|_| CODE_MALFORMED)?;
            return name.parse().map(Some).map_err(|_| CODE_MALFORMED);
        }
        let mut piece = [0; HEADER_LEN_MAX];
        let missing = expected - header.len();
        let (n, why) = read_into(quic, id, &mut piece[..missing], held);
        header.extend(piece[..n].iter().copied());
        match why {
            Chunk::Full => {}
            Chunk::Blocked => return Ok(None),
            Chunk::End => return Err(CODE_MALFORMED),
            Chunk::Reset(_) => return Err(CODE_STOPPED),
        }
    }
}
