//! Outer packets: the first byte is the kind, the rest stands at fixed places, integers are little-endian.
//!
//! | kind | after the kind byte |
//! | --- | --- |
//! | 1 Init | version u8, sender u32, Noise message 1; outside a channel then mac1 16, mac2 16 |
//! | 2 Response | receiver u32, Noise message 2 (its payload begins with the sender u32) |
//! | 3 Cookie | receiver u32, nonce 24, sealed cookie 32 |
//! | 4 Data | receiver u32, counter u32, sealed messages |
//! | 5 Relay | channel 6, a packet of kind 1, 2, 4, 6, 7 or 8 |
//! | 6 Beat, 8 BeatAsk | receiver u32, counter u32, mac 8 |
//! | 7 Stream | as Data; the plaintext is one QUIC packet |
//! | 9 Loop | token 16 |
//! | 10 Versions | receiver u32, lowest u8, highest u8 |

use super::DecodeError;
use super::dialect::INIT_VERSION;

/// Bytes before the ciphertext of Data and Stream: kind, receiver, counter.
pub const DATA_HEADER_LEN: usize = 1 + 4 + 4;
/// The AEAD tag.
pub const TAG_LEN: usize = 16;
/// What Data and Stream add to their plaintext.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// What Relay adds to the packet inside: kind and channel.
pub const RELAY_HEADER_LEN: usize = 1 + 6;
/// A Beat or BeatAsk.
pub const BEAT_LEN: usize = 1 + 4 + 4 + 8;
/// A Loop.
pub const LOOP_LEN: usize = 1 + 16;
/// A Versions.
pub const VERSIONS_LEN: usize = 1 + 4 + 1 + 1;
/// A Cookie.
pub const COOKIE_LEN: usize = 1 + 4 + 24 + 32;
/// Each of mac1 and mac2.
pub const MAC_LEN: usize = 16;
/// Noise IK message 1 without its payload: ephemeral 32, sealed static 32 + 16, tag of the payload 16.
pub const NOISE_1_OVERHEAD: usize = 32 + 48 + 16;
/// Noise IK message 2 without its payload: ephemeral 32, tag of the payload 16.
pub const NOISE_2_OVERHEAD: usize = 32 + 16;
/// Kind, version, sender.
pub const INIT_HEADER_LEN: usize = 1 + 1 + 4;
/// Kind, receiver.
pub const RESPONSE_HEADER_LEN: usize = 1 + 4;

// QUIC needs datagrams of 1 200 bytes, relayed ones included.
const _: () = assert!(1200 + DATA_OVERHEAD + RELAY_HEADER_LEN <= super::DATAGRAM_LEN_MAX);

/// The kind of a packet: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Opens a link.
    Init = 1,
    /// Answers an Init.
    Response = 2,
    /// Answers an Init under load.
    Cookie = 3,
    /// Inner messages.
    Data = 4,
    /// A packet for the other leg of a channel.
    Relay = 5,
    /// Keep-alive; never answered.
    Beat = 6,
    /// One QUIC packet.
    Stream = 7,
    /// Keep-alive that asks for a Beat.
    BeatAsk = 8,
    /// To ourselves, by way of our own external address: does the router bring it back (RFC 4787 §6)? Never answered.
    Loop = 9,
    /// Answers an Init that is made by rules which the receiver does not know.
    Versions = 10,
}

impl Kind {
    /// The kind that a first byte names.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Init,
            2 => Self::Response,
            3 => Self::Cookie,
            4 => Self::Data,
            5 => Self::Relay,
            6 => Self::Beat,
            7 => Self::Stream,
            8 => Self::BeatAsk,
            9 => Self::Loop,
            10 => Self::Versions,
            _ => return None,
        })
    }

    /// Whether a Relay packet may carry it.
    pub const fn is_relayable(self) -> bool {
        !matches!(self, Self::Relay | Self::Cookie | Self::Loop | Self::Versions)
    }
}

/// A relay's forwarding entry, as its two legs name it: 48 unguessable bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChannelId(pub [u8; 6]);

/// A decoded packet, borrowing its variable part. Nothing in it is authenticated yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Kind 1. `rest` is Noise message 1, and the macs where it has any.
    Init {
        /// The initiator's index for this handshake and the keys that come of it.
        sender: u32,
        /// Noise message 1, then the macs if it came outside a channel.
        rest: &'a [u8],
    },
    /// Kind 1 of another version, of which nothing else is known.
    Foreign {
        /// Which.
        version: u8,
        /// The initiator's index.
        sender: u32,
    },
    /// Kind 2. The responder's index is sealed inside: in clear, anybody on the way could change it unnoticed.
    Response {
        /// The index the Init named.
        receiver: u32,
        /// Noise message 2.
        noise: &'a [u8],
    },
    /// Kind 3.
    Cookie {
        /// The index the Init named.
        receiver: u32,
        /// Nonce of the seal.
        nonce: &'a [u8; 24],
        /// The sealed cookie.
        sealed: &'a [u8; 32],
    },
    /// Kind 4 or 7.
    Sealed {
        /// [`Kind::Data`] or [`Kind::Stream`].
        kind: Kind,
        /// The receiver's index.
        receiver: u32,
        /// Packet number under these keys.
        counter: u32,
    },
    /// Kind 5.
    Relay {
        /// The forwarding entry.
        channel: ChannelId,
        /// The packet inside, whose kind is relayable.
        inner: &'a [u8],
    },
    /// Kind 6 or 8.
    Beat {
        /// [`Kind::Beat`] or [`Kind::BeatAsk`].
        kind: Kind,
        /// The receiver's index.
        receiver: u32,
        /// Packet number under these keys.
        counter: u32,
        /// Truncated keyed hash over all before it.
        mac: &'a [u8; 8],
    },
    /// Kind 9. Whoever does not wait for the token drops it.
    Loop {
        /// What the sender waits for.
        token: &'a [u8; 16],
    },
    /// Kind 10.
    Versions {
        /// The index the Init named.
        receiver: u32,
        /// The lowest version of an Init that the sender reads.
        lowest: u8,
        /// The highest.
        highest: u8,
    },
}

fn split<'a, const N: usize>(bytes: &mut &'a [u8], field: &'static str) -> Result<&'a [u8; N], DecodeError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(DecodeError::Truncated { field })?;
    *bytes = rest;
    Ok(head)
}

fn split_u32(bytes: &mut &[u8], field: &'static str) -> Result<u32, DecodeError> {
    split::<4>(bytes, field).map(|b| u32::from_le_bytes(*b))
}

fn end(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
}

impl<'a> Packet<'a> {
    /// Reads the header of a packet. Does not look inside a Relay further than its kind.
    ///
    /// # Errors
    /// What is too short or too long for its kind, of no known kind, or a Relay of what is not relayed.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let bytes = &mut bytes;
        let [kind] = *split::<1>(bytes, "kind")?;
        let kind = Kind::from_byte(kind).ok_or(DecodeError::UnknownKind)?;
        Ok(match kind {
            Kind::Init => {
                let [version] = *split::<1>(bytes, "version")?;
                let sender = split_u32(bytes, "sender")?;
                if bytes.len() < NOISE_1_OVERHEAD {
                    return Err(DecodeError::Truncated { field: "noise" });
                }
                if version != INIT_VERSION {
                    return Ok(Self::Foreign { version, sender });
                }
                Self::Init { sender, rest: bytes }
            }
            Kind::Response => {
                let receiver = split_u32(bytes, "receiver")?;
                if bytes.len() < NOISE_2_OVERHEAD {
                    return Err(DecodeError::Truncated { field: "noise" });
                }
                Self::Response { receiver, noise: bytes }
            }
            Kind::Cookie => {
                let receiver = split_u32(bytes, "receiver")?;
                let nonce = split::<24>(bytes, "nonce")?;
                let sealed = split::<32>(bytes, "cookie")?;
                end(bytes)?;
                Self::Cookie { receiver, nonce, sealed }
            }
            Kind::Data | Kind::Stream => {
                let receiver = split_u32(bytes, "receiver")?;
                let counter = split_u32(bytes, "counter")?;
                if bytes.len() < TAG_LEN {
                    return Err(DecodeError::Truncated { field: "tag" });
                }
                Self::Sealed { kind, receiver, counter }
            }
            Kind::Relay => {
                let channel = ChannelId(*split::<6>(bytes, "channel")?);
                let first = *bytes.first().ok_or(DecodeError::Truncated { field: "inner" })?;
                if !Kind::from_byte(first).is_some_and(Kind::is_relayable) {
                    return Err(DecodeError::BadValue { field: "inner kind" });
                }
                Self::Relay { channel, inner: bytes }
            }
            Kind::Beat | Kind::BeatAsk => {
                let receiver = split_u32(bytes, "receiver")?;
                let counter = split_u32(bytes, "counter")?;
                let mac = split::<8>(bytes, "mac")?;
                end(bytes)?;
                Self::Beat { kind, receiver, counter, mac }
            }
            Kind::Loop => {
                let token = split::<16>(bytes, "token")?;
                end(bytes)?;
                Self::Loop { token }
            }
            Kind::Versions => {
                let receiver = split_u32(bytes, "receiver")?;
                let [lowest, highest] = *split::<2>(bytes, "versions")?;
                end(bytes)?;
                Self::Versions { receiver, lowest, highest }
            }
        })
    }
}

/// The first six bytes of an Init.
pub fn init_header(sender: u32) -> [u8; INIT_HEADER_LEN] {
    let mut out = [Kind::Init as u8; INIT_HEADER_LEN];
    out[1] = INIT_VERSION;
    out[2..].copy_from_slice(&sender.to_le_bytes());
    out
}

/// A Versions packet of this release.
pub fn versions_packet(receiver: u32) -> [u8; VERSIONS_LEN] {
    let mut out = [Kind::Versions as u8; VERSIONS_LEN];
    out[1..5].copy_from_slice(&receiver.to_le_bytes());
    out[5..].fill(INIT_VERSION);
    out
}

/// The first five bytes of a Response.
pub fn response_header(receiver: u32) -> [u8; RESPONSE_HEADER_LEN] {
    let mut out = [Kind::Response as u8; RESPONSE_HEADER_LEN];
    out[1..].copy_from_slice(&receiver.to_le_bytes());
    out
}

/// The first nine bytes of Data, Stream, Beat and BeatAsk.
pub fn data_header(kind: Kind, receiver: u32, counter: u32) -> [u8; DATA_HEADER_LEN] {
    let mut out = [kind as u8; DATA_HEADER_LEN];
    out[1..5].copy_from_slice(&receiver.to_le_bytes());
    out[5..].copy_from_slice(&counter.to_le_bytes());
    out
}

/// The seven bytes before a relayed packet.
pub fn relay_header(channel: ChannelId) -> [u8; RELAY_HEADER_LEN] {
    let mut out = [Kind::Relay as u8; RELAY_HEADER_LEN];
    out[1..].copy_from_slice(&channel.0);
    out
}

/// A Loop packet.
pub fn loop_packet(token: [u8; 16]) -> [u8; LOOP_LEN] {
    let mut out = [Kind::Loop as u8; LOOP_LEN];
    out[1..].copy_from_slice(&token);
    out
}
