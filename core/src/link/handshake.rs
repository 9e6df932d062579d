//! Two messages that turn a `PeerId` into transport keys.
//!
//! ```text
//! initiator                                                     responder
//! initiate ──── Init: header, e, s sealed, payload sealed, macs ───→ accept
//! finish  ←──── Response: header, e, payload sealed ─────────────── respond
//! ```
//!
//! Both payloads begin with a fixed part that this room writes and reads; the body after it is the caller's. The
//! Init's says who calls, by the one bit that the Noise static key lacks of the `PeerId`; the Response's has the
//! responder's index, which would not be safe from change in the header.
//!
//! An [`Initiation`] lives from its Init to the Response that finishes it, and meanwhile bears any number of forged
//! ones. An [`Accepted`] is consumed by its Response, or dropped unanswered.

use core::fmt;
use core::hint::black_box;
use std::sync::Arc;

use arrayvec::ArrayVec;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use super::crypto::{Draw, Resolver};
use super::epoch::TransportKeys;
use super::keys::{Identity, NoiseConstants, PeerKeys, mac, mac1_key, mac2, prologue};
use crate::identity::{PeerId, PeerIdError};
use crate::net::DropReason;
use crate::random::KeyRng;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::dialect::Dialect;
use crate::wire::packet::{
    INIT_HEADER_LEN, MAC_LEN, NOISE_1_OVERHEAD, NOISE_2_OVERHEAD, Packet, RESPONSE_HEADER_LEN, init_header,
    response_header,
};

/// Flags u8, time u64, session u64.
pub(crate) const INIT_FIXED_LEN: usize = 1 + 8 + 8;
/// Index u32, flags u8, session u64.
pub(crate) const RESPONSE_FIXED_LEN: usize = 4 + 1 + 8;

/// Init flag: the sign of the initiator's Edwards point.
const FLAG_SIGN: u8 = 1;
/// Response flag: the early message was taken.
const FLAG_EARLY_ACCEPTED: u8 = 1;
/// Response flag: the session goes on, this is a rekey.
const FLAG_RESUMED: u8 = 2;

/// The part of an Init's payload that every Init has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitFixed {
    /// The initiator's wall clock, in microseconds since the Unix epoch; grows with every Init.
    pub time_us: u64,
    /// The session that this handshake begins or goes on with.
    pub session: u64,
}

/// The part of a Response's payload that every Response has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseFixed {
    /// Whether the early message was taken; if not, it is to be sent again as Data.
    pub early_accepted: bool,
    /// Whether the session of the Init is known and goes on.
    pub resumed: bool,
    /// The responder's session.
    pub session: u64,
}

/// What an Init ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Macs<'a> {
    /// Nothing: it travels inside a link or channel, which vouches for it.
    None,
    /// mac1, and zeroes for mac2.
    Plain,
    /// mac1, and mac2 under this cookie.
    Cookie(&'a [u8; MAC_LEN]),
}

/// Why a handshake did not go on. An [`Initiation`] is as it was before, except after [`HandshakeError::BadContents`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// The packet does not parse.
    Malformed,
    /// The Response names another index.
    WrongReceiver,
    /// Not for us, not from the peer, or changed on the way; or a public key that agrees with all others on zero.
    Unauthentic,
    /// The initiator's key makes no `PeerId`.
    BadIdentity(PeerIdError),
    /// Authentic, but the fixed part makes no sense; the handshake is over.
    BadContents,
    /// The caller's buffer is too short, or its body too long for a datagram.
    BufferTooSmall,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("does not parse"),
            Self::WrongReceiver => f.write_str("answers no handshake of ours"),
            Self::Unauthentic => f.write_str("is not authentic"),
            Self::BadIdentity(error) => write!(f, "comes under a key that {error}"),
            Self::BadContents => f.write_str("makes no sense"),
            Self::BufferTooSmall => f.write_str("does not fit"),
        }
    }
}

impl core::error::Error for HandshakeError {}

impl From<HandshakeError> for DropReason {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Malformed => Self::Malformed,
            HandshakeError::WrongReceiver => Self::UnknownReceiver,
            HandshakeError::Unauthentic | HandshakeError::BadIdentity(_) => Self::Unauthentic,
            HandshakeError::BadContents => Self::BadContents,
            HandshakeError::BufferTooSmall => Self::TooLong,
        }
    }
}

/// snow's state, in one place of the heap, which is overwritten when it is done with.
struct Noise {
    state: Box<HandshakeState>,
    draw: Draw,
    constants: Arc<NoiseConstants>,
}

impl Noise {
    /// An initiator's state if the `peer` is known, a responder's otherwise.
    fn new(me: &Identity, peer: Option<&PeerKeys>, prologue: &[u8]) -> Result<Self, snow::Error> {
        let constants = me.noise.clone();
        let draw = Draw::default();
        let builder = builder(&constants.params, &constants, draw.clone())
            .local_private_key(constants.own.public())?
            .prologue(prologue)?;
        let state = match peer {
            Some(peer) => builder.remote_public_key(&peer.noise_public)?.build_initiator()?,
            None => builder.build_responder()?,
        };
        Ok(Self { state: Box::new(state), draw, constants })
    }

    /// Writes the next message, which has an ephemeral key in it.
    fn write(&mut self, keys: &mut KeyRng, payload: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        self.draw.set(Zeroizing::new(keys.bytes())).map_err(|_| snow::Error::Rng)?;
        self.state.write_message(payload, out)
    }

    /// The keys, once both messages are through.
    fn keys(&mut self) -> TransportKeys {
        let mut split = self.state.dangerously_get_raw_split();
        let keys = TransportKeys::from_split(self.state.is_initiator(), &split);
        split.0.zeroize();
        split.1.zeroize();
        keys
    }
}

impl Drop for Noise {
    /// snow leaves its chaining key, from which the transport keys follow, in freed memory. Assigning a state without
    /// secrets overwrites it.
    fn drop(&mut self) {
        if let Ok(blank) = builder(&self.constants.blank, &self.constants, Draw::default()).build_initiator() {
            *self.state = blank;
            black_box(&mut *self.state);
        }
    }
}

fn builder<'a>(params: &NoiseParams, constants: &NoiseConstants, draw: Draw) -> Builder<'a> {
    Builder::with_resolver(params.clone(), Box::new(Resolver { own: constants.own.clone(), draw }))
}

/// A handshake that waits for its Response.
pub struct Initiation {
    noise: Noise,
    local_index: u32,
    mac1: Option<[u8; MAC_LEN]>,
}

/// Writes an Init for `peer` to the front of `out`; returns what opens the Response, and the Init's length.
///
/// The Response will name `local_index`, and so will all that the peer sends under the keys that come of it.
///
/// # Errors
/// `out` or `body` has not the size for it, or the primitives refuse the peer's key.
#[expect(clippy::too_many_arguments, reason = "what an Init is made of, and nothing that belongs together")]
pub fn initiate(
    me: &Identity,
    peer: &PeerKeys,
    keys: &mut KeyRng,
    local_index: u32,
    fixed: InitFixed,
    body: &[u8],
    macs: Macs<'_>,
    out: &mut [u8],
) -> Result<(Initiation, usize), HandshakeError> {
    let mut payload = Payload::new();
    payload.push(&[if me.id().sign_bit() { FLAG_SIGN } else { 0 }])?;
    payload.push(&fixed.time_us.to_le_bytes())?;
    payload.push(&fixed.session.to_le_bytes())?;
    payload.push(body)?;

    let macs_len = if macs == Macs::None { 0 } else { 2 * MAC_LEN };
    let noise_end = INIT_HEADER_LEN + NOISE_1_OVERHEAD + payload.0.len();
    let len = noise_end + macs_len;
    let out = out.get_mut(..len).filter(|_| len <= DATAGRAM_LEN_MAX).ok_or(HandshakeError::BufferTooSmall)?;

    let mut noise = Noise::new(me, Some(peer), &prologue(&peer.id, local_index)).map_err(unauthentic)?;
    out[..INIT_HEADER_LEN].copy_from_slice(&init_header(local_index));
    noise.write(keys, &payload.0, &mut out[INIT_HEADER_LEN..noise_end]).map_err(unauthentic)?;

    let mac1_end = noise_end + MAC_LEN;
    let mac1 = (macs != Macs::None).then(|| mac(&mac1_key(&peer.id), &out[..noise_end]));
    if let Some(mac1) = mac1 {
        out[noise_end..mac1_end].copy_from_slice(&mac1);
    }
    match macs {
        Macs::None => {}
        Macs::Plain => out[mac1_end..].fill(0),
        Macs::Cookie(cookie) => {
            let mac2 = mac2(cookie, &out[..mac1_end]);
            out[mac1_end..].copy_from_slice(&mac2);
        }
    }
    Ok((Initiation { noise, local_index, mac1 }, len))
}

impl Initiation {
    /// The Init's mac1, with which alone a Cookie packet opens.
    pub fn mac1(&self) -> Option<[u8; MAC_LEN]> {
        self.mac1
    }

    /// Opens a Response: the keys, the responder's index, the fixed part, and how much of `body_out` the body fills.
    ///
    /// `body_out` must hold the fixed part as well for a moment; [`DATAGRAM_LEN_MAX`] is always enough. After a
    /// Response that is not authentic the genuine one is still taken; after one that is, none is.
    ///
    /// # Errors
    /// What is no authentic Response to this Init.
    pub fn finish(
        &mut self,
        packet: &[u8],
        body_out: &mut [u8],
    ) -> Result<(TransportKeys, u32, ResponseFixed, usize), HandshakeError> {
        let Ok(Packet::Response { receiver, noise }) = Packet::decode(packet) else {
            return Err(HandshakeError::Malformed);
        };
        if receiver != self.local_index {
            return Err(HandshakeError::WrongReceiver);
        }
        let payload = room(body_out, noise.len(), NOISE_2_OVERHEAD + RESPONSE_FIXED_LEN, RESPONSE_FIXED_LEN)?;
        self.noise.state.read_message(noise, payload).map_err(unauthentic)?;

        let (fixed, body) = payload.split_first_chunk().ok_or(HandshakeError::BadContents)?;
        let (remote_index, fixed) = decode_response_fixed(fixed)?;
        let body_len = body.len();
        body_out.copy_within(RESPONSE_FIXED_LEN..RESPONSE_FIXED_LEN + body_len, 0);
        Ok((self.noise.keys(), remote_index, fixed, body_len))
    }
}

/// An Init that was opened and waits to be answered.
pub struct Accepted {
    /// Who calls, proven.
    pub peer: PeerId,
    /// The initiator's index.
    pub sender: u32,
    /// The fixed part of the payload.
    pub fixed: InitFixed,
    /// What it speaks: to be set by whoever reads the body, behind which that stands.
    pub dialect: Dialect,
    /// The initiator's ephemeral key: the same in a copy of the Init, and in no other Init.
    pub ephemeral: [u8; 32],
    noise_public: [u8; 32],
    noise: Noise,
}

/// Opens an Init for us; returns it and how much of `body_out` its body fills. `macs` says whether it ends with mac1
/// and mac2, as those do that come outside of links and channels; they are the [`Gate`](super::Gate)'s to check.
///
/// `body_out` must hold the fixed part as well for a moment; [`DATAGRAM_LEN_MAX`] is always enough.
///
/// # Errors
/// What is no authentic Init for us.
pub fn accept(
    me: &Identity,
    packet: &[u8],
    macs: bool,
    body_out: &mut [u8],
) -> Result<(Accepted, usize), HandshakeError> {
    accept_unless(me, packet, macs, |_| false, body_out)
}

/// As [`accept`], without the dearest of its checks, for torsion, where `known` says that it was made of this peer
/// before: by an [`Accepted`] handshake, or by [`PeerKeys::new`].
pub(crate) fn accept_unless(
    me: &Identity,
    packet: &[u8],
    macs: bool,
    known: impl FnOnce(&PeerId) -> bool,
    body_out: &mut [u8],
) -> Result<(Accepted, usize), HandshakeError> {
    let Ok(Packet::Init { sender, rest }) = Packet::decode(packet) else {
        return Err(HandshakeError::Malformed);
    };
    let macs_len = if macs { 2 * MAC_LEN } else { 0 };
    let message = rest.len().checked_sub(macs_len).and_then(|len| rest.get(..len)).ok_or(HandshakeError::Malformed)?;
    let payload = room(body_out, message.len(), NOISE_1_OVERHEAD + INIT_FIXED_LEN, INIT_FIXED_LEN)?;
    let ephemeral = *message.first_chunk().ok_or(HandshakeError::Malformed)?;

    let mut noise = Noise::new(me, None, &prologue(&me.id(), sender)).map_err(unauthentic)?;
    noise.state.read_message(message, payload).map_err(unauthentic)?;

    let (fixed, body) = payload.split_first_chunk().ok_or(HandshakeError::BadContents)?;
    let (sign, fixed) = decode_init_fixed(fixed)?;
    let remote = noise.state.get_remote_static().and_then(|key| key.try_into().ok());
    let noise_public = remote.ok_or(HandshakeError::BadContents)?;
    let peer = PeerId::from_noise_unless(&noise_public, sign, known).map_err(HandshakeError::BadIdentity)?;
    let body_len = body.len();
    body_out.copy_within(INIT_FIXED_LEN..INIT_FIXED_LEN + body_len, 0);
    Ok((Accepted { peer, sender, fixed, dialect: Dialect::FIRST, ephemeral, noise_public, noise }, body_len))
}

impl Accepted {
    /// The initiator's keys, to open links to it later: free here, dear from the `PeerId` alone.
    pub fn peer_keys(&self) -> PeerKeys {
        PeerKeys { id: self.peer, noise_public: self.noise_public }
    }

    /// Writes the Response to the front of `out`; returns the keys and the Response's length. The initiator will name
    /// `local_index` in all that it sends under these keys.
    ///
    /// # Errors
    /// `out` or the body has not the size for it.
    pub fn respond(
        mut self,
        keys: &mut KeyRng,
        local_index: u32,
        fixed: ResponseFixed,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<(TransportKeys, usize), HandshakeError> {
        let mut flags = 0;
        if fixed.early_accepted {
            flags |= FLAG_EARLY_ACCEPTED;
        }
        if fixed.resumed {
            flags |= FLAG_RESUMED;
        }
        let mut payload = Payload::new();
        payload.push(&local_index.to_le_bytes())?;
        payload.push(&[flags])?;
        payload.push(&fixed.session.to_le_bytes())?;
        payload.push(body)?;

        let len = RESPONSE_HEADER_LEN + NOISE_2_OVERHEAD + payload.0.len();
        let out = out.get_mut(..len).filter(|_| len <= DATAGRAM_LEN_MAX).ok_or(HandshakeError::BufferTooSmall)?;
        let (header, message) = out.split_at_mut(RESPONSE_HEADER_LEN);
        header.copy_from_slice(&response_header(self.sender));
        self.noise.write(keys, &payload.0, message).map_err(unauthentic)?;
        Ok((self.noise.keys(), len))
    }
}

/// A fixed part and a body, one after the other, as snow wants them.
struct Payload(ArrayVec<u8, DATAGRAM_LEN_MAX>);

impl Payload {
    const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.0.try_extend_from_slice(bytes).map_err(|_| HandshakeError::BufferTooSmall)
    }
}

/// Where the payload of a message of `len` bytes goes: exactly as much of `out` as it fills. The message has at least
/// `min` bytes, of which `fixed` belong to the payload's fixed part.
fn room(out: &mut [u8], len: usize, min: usize, fixed: usize) -> Result<&mut [u8], HandshakeError> {
    let body = len.checked_sub(min).ok_or(HandshakeError::Malformed)?;
    out.get_mut(..fixed + body).ok_or(HandshakeError::BufferTooSmall)
}

pub(super) fn decode_init_fixed(bytes: &[u8; INIT_FIXED_LEN]) -> Result<(bool, InitFixed), HandshakeError> {
    let [flags, rest @ ..] = bytes;
    if flags & !FLAG_SIGN != 0 {
        return Err(HandshakeError::BadContents);
    }
    let (time_us, rest) = rest.split_first_chunk().ok_or(HandshakeError::BadContents)?;
    let session = rest.first_chunk().ok_or(HandshakeError::BadContents)?;
    let fixed = InitFixed { time_us: u64::from_le_bytes(*time_us), session: u64::from_le_bytes(*session) };
    Ok((flags & FLAG_SIGN != 0, fixed))
}

pub(super) fn decode_response_fixed(bytes: &[u8; RESPONSE_FIXED_LEN]) -> Result<(u32, ResponseFixed), HandshakeError> {
    let (index, rest) = bytes.split_first_chunk().ok_or(HandshakeError::BadContents)?;
    let (&[flags], rest) = rest.split_first_chunk().ok_or(HandshakeError::BadContents)?;
    if flags & !(FLAG_EARLY_ACCEPTED | FLAG_RESUMED) != 0 {
        return Err(HandshakeError::BadContents);
    }
    let session = rest.first_chunk().ok_or(HandshakeError::BadContents)?;
    let fixed = ResponseFixed {
        early_accepted: flags & FLAG_EARLY_ACCEPTED != 0,
        resumed: flags & FLAG_RESUMED != 0,
        session: u64::from_le_bytes(*session),
    };
    Ok((u32::from_le_bytes(*index), fixed))
}

/// snow tells more; to whoever made the packet, and to our counters, it is all the same.
fn unauthentic(_: snow::Error) -> HandshakeError {
    HandshakeError::Unauthentic
}
