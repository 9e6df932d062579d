//! The envelope of what is signed and kept: version ‖ body in postcard ‖ Ed25519 signature over all before it.
//!
//! A statement speaks of the one who signed it and of nobody else, so the key to check it with is the id inside.
//! Time: [`time_left`] turns the maker's wall clock into a span that the receiver counts on its own monotonic clock.
//! Where the two wall clocks agree, every copy ends at the same moment however often it was passed on; where they do
//! not, a copy lives at most its lifetime from the moment it was received.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{PeerId, SecretKey, SignatureKind};
use crate::time::WallTime;

/// The version of the envelope and of both bodies.
pub(crate) const STATEMENT_VERSION: u8 = 1;
/// Longest that an advert may say it holds.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// How far ahead of our wall clock a statement may have been made: clocks differ.
pub(crate) const SKEW_MAX: Duration = Duration::from_secs(600);
/// An Ed25519 signature.
const SIGNATURE_LEN: usize = 64;
/// Room for any body; [`Statement::LEN_MAX`] is less.
const BUFFER_LEN: usize = 256;

/// Why bytes are not a statement worth keeping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StatementError {
    /// Too long, too short, of another version, or with bytes left over.
    Malformed,
    /// A field has a value it may not have.
    BadValue,
    /// Not signed by the one it speaks of.
    Signature,
    /// Made further in the future than clocks differ.
    Future,
    /// Its time is over.
    Expired,
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "does not parse",
            Self::BadValue => "has an impossible field",
            Self::Signature => "is not signed by the one it speaks of",
            Self::Future => "is from the future",
            Self::Expired => "has expired",
        })
    }
}

impl core::error::Error for StatementError {}

/// What adverts and records have in common.
pub(crate) trait Statement: Serialize + for<'de> Deserialize<'de> {
    /// What the signature says it is for.
    const KIND: SignatureKind;
    /// Longest, signature included.
    const LEN_MAX: usize;
    /// Longest that it may say it holds.
    const LIFETIME_MAX: Duration;
    /// Of whom it speaks, and who signs.
    fn id(&self) -> PeerId;
    /// Grows with every statement of this peer.
    fn sequence(&self) -> u64;
    /// Seconds of wall time at which it was made.
    fn issued_s(&self) -> u64;
    /// Seconds for which it holds.
    fn lifetime_s(&self) -> u16;
    /// Whether the remaining fields have values that they may have.
    fn is_sane(&self) -> bool;
}

/// The bytes that travel.
pub(crate) fn sign<S: Statement>(statement: &S, key: &SecretKey) -> Box<[u8]> {
    const { assert!(S::LEN_MAX <= BUFFER_LEN) };
    debug_assert_eq!(statement.id(), key.peer_id());
    let mut buffer = [0; BUFFER_LEN];
    // A body is bounded by its type and LEN_MAX was counted from it, so it always fits; were that ever wrong, the
    // result would be bytes that nobody accepts, not a panic.
    let body = postcard::to_slice(&(STATEMENT_VERSION, statement), &mut buffer).map_or(&[][..], |used| &*used);
    let signature = key.sign(S::KIND, body);
    [body, &signature].concat().into()
}

/// Reads a statement and checks all that needs neither its signature nor a clock.
pub(crate) fn parse<S: Statement>(bytes: &[u8]) -> Result<S, StatementError> {
    if bytes.len() > S::LEN_MAX {
        return Err(StatementError::Malformed);
    }
    let (body, _) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(StatementError::Malformed)?;
    let (&version, body) = body.split_first().ok_or(StatementError::Malformed)?;
    if version != STATEMENT_VERSION {
        return Err(StatementError::Malformed);
    }
    let (statement, rest) = postcard::take_from_bytes::<S>(body).map_err(|_| StatementError::Malformed)?;
    if !rest.is_empty() {
        return Err(StatementError::Malformed);
    }
    let lifetime = Duration::from_secs(statement.lifetime_s().into());
    if !statement.is_sane() || lifetime > S::LIFETIME_MAX || lifetime.is_zero() {
        return Err(StatementError::BadValue);
    }
    Ok(statement)
}

/// Checks the signature of a statement that was parsed from these bytes.
pub(crate) fn verify<S: Statement>(statement: &S, bytes: &[u8]) -> Result<(), StatementError> {
    let (body, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(StatementError::Malformed)?;
    if statement.id().verify(S::KIND, body, signature) { Ok(()) } else { Err(StatementError::Signature) }
}

/// Whether `bytes` claim to speak of `id`. Costs a comparison: the id stands behind the version.
pub(crate) fn speaks_of(bytes: &[u8], id: &PeerId) -> bool {
    bytes.get(1..33).is_some_and(|b| b == id.as_bytes())
}

/// Of whom `bytes` claim to speak. That this is a key is not checked, which costs a thousand times as much: it is to be
/// compared with what is known.
pub(crate) fn subject(bytes: &[u8]) -> Option<PeerId> {
    bytes.get(1..33)?.first_chunk().copied().map(PeerId::of_checked)
}

/// How much longer a statement holds, from now on the receiver's monotonic clock. Without a wall clock, its lifetime.
pub(crate) fn time_left<S: Statement>(statement: &S, wall: Option<WallTime>) -> Result<Duration, StatementError> {
    let lifetime = Duration::from_secs(statement.lifetime_s().into()).min(S::LIFETIME_MAX);
    left_of(statement.issued_s(), lifetime, wall)
}

/// What every statement begins with, behind the version.
#[derive(Deserialize)]
struct Head {
    _id: [u8; 32],
    _sequence: u64,
    issued_s: u64,
    lifetime_s: u16,
}

/// The same of one that was parsed before: its ids are not checked again.
pub(crate) fn time_left_of<S: Statement>(bytes: &[u8], wall: Option<WallTime>) -> Result<Duration, StatementError> {
    let head = bytes.get(1..).and_then(|body| postcard::take_from_bytes::<Head>(body).ok());
    let (head, _) = head.ok_or(StatementError::Malformed)?;
    left_of(head.issued_s, Duration::from_secs(head.lifetime_s.into()).min(S::LIFETIME_MAX), wall)
}

fn left_of(issued_s: u64, lifetime: Duration, wall: Option<WallTime>) -> Result<Duration, StatementError> {
    let Some(wall) = wall else { return Ok(lifetime) };
    let age_s = wall.as_secs().saturating_sub(issued_s);
    if issued_s.saturating_sub(wall.as_secs()) > SKEW_MAX.as_secs() {
        return Err(StatementError::Future);
    }
    lifetime.checked_sub(Duration::from_secs(age_s)).filter(|left| !left.is_zero()).ok_or(StatementError::Expired)
}
