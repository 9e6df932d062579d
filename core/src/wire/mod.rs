//! Bytes, and nothing but bytes: what is on the wire.
//!
//! [`packet`] has the outer headers, at fixed places; [`message`] the inner messages, in postcard; [`address`] socket
//! addresses and candidates, [`nat`] what is said of a router, [`frame`] how packets stand in a TCP connection.
//! Decoding borrows from the packet, allocates nothing and never panics; encoding writes to a slice and says how much.

pub mod address;
pub mod dialect;
pub mod frame;
pub mod message;
pub mod nat;
pub mod packet;
pub mod places;
mod relaying;
mod views;

use core::fmt;
use core::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest UDP payload until a path has proven more: IPv6's minimum MTU of 1 280, less 40 (IPv6) and 8 (UDP).
pub const DATAGRAM_LEN_MAX: usize = 1280 - 40 - 8;
/// Longest datagram that is looked at: what QUIC's path MTU discovery may reach on Ethernet.
pub const RECEIVE_LEN_MAX: usize = 1_472;

/// Longest [`ServiceName`], in bytes.
pub const SERVICE_NAME_LEN_MAX: usize = 32;

/// Why bytes are not what they should be. Cheap on purpose: an error on junk must not cost more than the junk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// Bytes are left after the last field.
    TrailingBytes,
    /// The first byte is no packet kind of ours.
    UnknownKind,
    /// A message that does not parse.
    BadMessage,
    /// A field has a value it may not have.
    BadValue {
        /// Which field.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { field } => write!(f, "ends inside {field}"),
            Self::TrailingBytes => f.write_str("has bytes after its end"),
            Self::UnknownKind => f.write_str("is of no known kind"),
            Self::BadMessage => f.write_str("holds a message that does not parse"),
            Self::BadValue { field } => write!(f, "has an impossible {field}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A name under which a node offers something: 1 to 32 bytes of `a-z 0-9 - _ . /`, starting with a letter or digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(ArrayString<SERVICE_NAME_LEN_MAX>);

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a service name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceNameError;

impl fmt::Display for ServiceNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a service name has 1 to 32 of a-z 0-9 - _ . / and starts with a letter or digit")
    }
}

impl core::error::Error for ServiceNameError {}

impl FromStr for ServiceName {
    type Err = ServiceNameError;
    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = *text.as_bytes().first().ok_or(ServiceNameError)?;
        if !plain(first) || !text.bytes().all(|b| plain(b) || b"-_./".contains(&b)) {
            return Err(ServiceNameError);
        }
        ArrayString::from(text).map(Self).map_err(|_| ServiceNameError)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.as_str().serialize(s)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
