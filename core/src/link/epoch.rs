//! One set of transport keys: sealing, opening, beats, and the one counter and replay window that they share.
//!
//! An [`Epoch`] begins with the [`TransportKeys`] of a finished handshake and the two indices that its packets carry.
//! Its counter only grows: at [`REKEY_AT`] it asks for a new handshake, at [`SEAL_LIMIT`] it refuses to go on. What it
//! opens it opens once. A packet that is not authentic changes nothing at all.
//!
//! A key context of the cipher weighs about 600 bytes per direction, outside what Rust's allocator sees, and the replay
//! window 260. An epoch has both only while it is awake: from the first packet of data until [`Epoch::rest`]. At rest
//! it is its two raw keys and a narrow window, which is all that beats need: a supernode keeps one for each of a
//! million leaves, and nearly all of them rest.

use aws_lc_rs::aead::{Aad, LessSafeKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::crypto::{aead, nonce};
use super::replay::{Refused, Replay};
use crate::net::DropReason;
use crate::wire::packet::{BEAT_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, Kind, Packet, TAG_LEN, data_header};

/// From this packet number on, [`Epoch::needs_rekey`].
pub(crate) const REKEY_AT: u32 = 1 << 31;
/// No packet bears this number or a higher one. What is left below 2^32 is a safety margin, so that no arithmetic on
/// counters comes near its end.
pub(crate) const SEAL_LIMIT: u32 = u32::MAX - (1 << 20) + 1;

const BEAT_MAC_LEN: usize = 8;

/// The keys of one epoch, as one side sees them. Zeroized when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TransportKeys {
    pub(super) send: [u8; 32],
    pub(super) recv: [u8; 32],
    initiator: bool,
}

impl TransportKeys {
    /// From the two keys that the handshake splits into: the first is for what the initiator sends.
    pub(super) fn from_split(initiator: bool, split: &([u8; 32], [u8; 32])) -> Self {
        let (from_initiator, from_responder) = split;
        if initiator {
            Self { send: *from_initiator, recv: *from_responder, initiator }
        } else {
            Self { send: *from_responder, recv: *from_initiator, initiator }
        }
    }

    fn beat_send(&self) -> Zeroizing<[u8; 32]> {
        beat_key(self.initiator, &self.send)
    }

    fn beat_recv(&self) -> Zeroizing<[u8; 32]> {
        beat_key(!self.initiator, &self.recv)
    }
}

/// The key of the beats that one side sends. Made anew for each beat: that takes less than a microsecond, and keeping
/// the two would make a link at rest half as heavy again.
fn beat_key(of_initiator: bool, key: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let context = if of_initiator { "handfast v1 beat initiator" } else { "handfast v1 beat responder" };
    Zeroizing::new(blake3::derive_key(context, key))
}

/// The counter has reached [`SEAL_LIMIT`]: nothing was sealed. Only a new handshake helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// Why a packet was not opened. The epoch is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// Not a packet of the kinds that this method opens.
    Malformed,
    /// It names another index than this epoch's.
    WrongReceiver,
    /// Opened before.
    Duplicate,
    /// Too far behind the newest packet to tell whether it was opened before.
    TooOld,
    /// A number that no honest peer uses.
    BadCounter,
    /// Its tag or mac is wrong.
    Unauthentic,
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed => Self::Malformed,
            OpenError::WrongReceiver => Self::UnknownReceiver,
            OpenError::Duplicate | OpenError::TooOld => Self::Replayed,
            OpenError::BadCounter | OpenError::Unauthentic => Self::Unauthentic,
        }
    }
}

impl From<Refused> for OpenError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Duplicate => Self::Duplicate,
            Refused::TooOld => Self::TooOld,
        }
    }
}

/// One set of transport keys and their counters.
pub struct Epoch {
    keys: TransportKeys,
    awake: Option<Box<Awake>>,
    local_index: u32,
    remote_index: u32,
    pub(super) next: u32,
    /// The window of an epoch at rest, of no meaning while it is awake.
    narrow: Replay<NARROW_BYTES>,
}

/// The window at rest has this many bytes, for 64 numbers.
const NARROW_BYTES: usize = 9;

// What a resting link weighs, a million times.
const _: () = assert!(size_of::<Epoch>() <= 104);

/// What an epoch has more while data flows.
struct Awake {
    sealing: LessSafeKey,
    opening: LessSafeKey,
    window: Replay,
}

impl Epoch {
    /// A fresh epoch. Packets to us name `local_index`, packets to the peer `remote_index`.
    pub fn new(keys: TransportKeys, local_index: u32, remote_index: u32) -> Self {
        Self { keys, awake: None, local_index, remote_index, next: 0, narrow: Replay::new() }
    }

    /// The index that packets to us name.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index that packets to the peer name.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Whether an authentic packet has come: proof that the peer has these keys too.
    pub fn has_received(&self) -> bool {
        self.awake.as_ref().map_or(self.narrow.any(), |awake| awake.window.any())
    }

    /// Whether so much was sent that new keys are due.
    pub fn needs_rekey(&self) -> bool {
        self.next >= REKEY_AT
    }

    /// Whether it holds the cipher's contexts and the wide window.
    pub fn is_awake(&self) -> bool {
        self.awake.is_some()
    }

    /// Drops the cipher's contexts and all but the newest end of the window: numbers further back count as seen, so
    /// rest only when no packet can be on its way any more. The next packet of data wakes it.
    pub fn rest(&mut self) {
        if let Some(awake) = self.awake.take() {
            self.narrow = awake.window.resized();
        }
    }

    fn woken(&self) -> Box<Awake> {
        Box::new(Awake {
            sealing: aead(&self.keys.send),
            opening: aead(&self.keys.recv),
            window: self.narrow.resized(),
        })
    }

    fn take_number(&mut self) -> Result<u32, Exhausted> {
        if self.next >= SEAL_LIMIT {
            return Err(Exhausted);
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// Seals what lies at `buf[DATA_HEADER_LEN..][..plaintext_len]` as a Data or Stream packet that begins at
    /// `buf[0]`; returns its length.
    ///
    /// # Errors
    /// All numbers of the epoch are used up.
    ///
    /// # Panics
    /// If `buf` has no room for the tag or `kind` is another: both are bugs of the caller.
    pub fn seal(&mut self, kind: Kind, buf: &mut [u8], plaintext_len: usize) -> Result<usize, Exhausted> {
        assert!(matches!(kind, Kind::Data | Kind::Stream), "{kind:?} is not sealed");
        let buf = &mut buf[..plaintext_len + DATA_OVERHEAD];
        let number = self.take_number()?;
        let header = data_header(kind, self.remote_index, number);
        let (front, rest) = buf.split_at_mut(DATA_HEADER_LEN);
        let (text, tag_out) = rest.split_at_mut(plaintext_len);
        front.copy_from_slice(&header);
        let awake = self.awake.take().unwrap_or_else(|| self.woken());
        let tag = awake
            .sealing
            .seal_in_place_separate_tag(nonce(number.into()), Aad::from(header), text)
            .expect("a datagram is far below the cipher's limit");
        tag_out.copy_from_slice(tag.as_ref());
        self.awake = Some(awake);
        Ok(buf.len())
    }

    /// Opens a Data or Stream packet in place and gives its plaintext. After an error of authentication the packet's
    /// bytes are spoilt.
    ///
    /// # Errors
    /// A packet that is for another epoch, that was seen before or may have been, or that is not authentic.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let Ok(Packet::Sealed { receiver, counter, .. }) = Packet::decode(packet) else {
            return Err(OpenError::Malformed);
        };
        self.check(receiver, counter)?;
        let (header, rest) = packet.split_first_chunk_mut::<DATA_HEADER_LEN>().ok_or(OpenError::Malformed)?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::Malformed)?;
        let was_awake = self.awake.is_some();
        let mut awake = self.awake.take().unwrap_or_else(|| self.woken());
        let opened = awake.opening.open_in_place_separate_tag(nonce(counter.into()), Aad::from(header), &*tag, text);
        let is_authentic = opened.is_ok();
        if is_authentic {
            awake.window.mark(counter);
        }
        // A forged packet does not even wake us.
        if is_authentic || was_awake {
            self.awake = Some(awake);
        }
        if is_authentic { Ok(text) } else { Err(OpenError::Unauthentic) }
    }

    /// Writes a Beat or BeatAsk to the front of `out`; returns its length.
    ///
    /// # Errors
    /// All numbers of the epoch are used up.
    ///
    /// # Panics
    /// If `out` is too short or `kind` is another: both are bugs of the caller.
    pub fn seal_beat(&mut self, kind: Kind, out: &mut [u8]) -> Result<usize, Exhausted> {
        assert!(matches!(kind, Kind::Beat | Kind::BeatAsk), "{kind:?} is no beat");
        let out = &mut out[..BEAT_LEN];
        let number = self.take_number()?;
        let header = data_header(kind, self.remote_index, number);
        let (front, mac) = out.split_at_mut(DATA_HEADER_LEN);
        front.copy_from_slice(&header);
        mac.copy_from_slice(&beat_mac(&self.keys.beat_send(), &header));
        Ok(BEAT_LEN)
    }

    /// Checks a Beat or BeatAsk and says which it is.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_beat(&mut self, packet: &[u8]) -> Result<Kind, OpenError> {
        let Ok(Packet::Beat { kind, receiver, counter, mac }) = Packet::decode(packet) else {
            return Err(OpenError::Malformed);
        };
        self.check(receiver, counter)?;
        let header = data_header(kind, receiver, counter);
        if !super::equal(mac, &beat_mac(&self.keys.beat_recv(), &header)) {
            return Err(OpenError::Unauthentic);
        }
        match &mut self.awake {
            Some(awake) => awake.window.mark(counter),
            None => self.narrow.mark(counter),
        }
        Ok(kind)
    }

    /// What can be refused before any cryptography.
    fn check(&self, receiver: u32, counter: u32) -> Result<(), OpenError> {
        if receiver != self.local_index {
            return Err(OpenError::WrongReceiver);
        }
        if counter >= SEAL_LIMIT {
            return Err(OpenError::BadCounter);
        }
        match &self.awake {
            Some(awake) => awake.window.check(counter)?,
            None => self.narrow.check(counter)?,
        }
        Ok(())
    }

    /// All that a packet may change, to be compared.
    #[cfg(test)]
    pub(super) fn state(&self) -> (u32, bool, Replay) {
        let window = self.awake.as_ref().map_or_else(|| self.narrow.resized(), |awake| awake.window.clone());
        (self.next, self.is_awake(), window)
    }
}

fn beat_mac(key: &[u8; 32], header: &[u8; DATA_HEADER_LEN]) -> [u8; BEAT_MAC_LEN] {
    let hash = blake3::keyed_hash(key, header);
    let mut mac = [0; BEAT_MAC_LEN];
    mac.copy_from_slice(&hash.as_bytes()[..BEAT_MAC_LEN]);
    mac
}
