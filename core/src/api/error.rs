//! Why a command was refused, and why a peer could not be reached.

use core::fmt;

/// Why a peer could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// This node knows no supernode: it needs a ticket, or to be told of one.
    NoSupernode,
    /// No supernode asked knows the peer.
    UnknownPeer,
    /// The peer is known, but does not answer.
    Unreachable,
    /// The peer refuses us.
    Refused,
    /// The peer's homes introduce nobody for now: they are too busy, or have used up what they relay.
    Busy,
    /// The peer reads no version of a handshake that this node sends.
    OtherVersion,
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// The peer is this node itself.
    OwnId,
    /// A weak key.
    WeakKey,
    /// A table is full.
    Limit,
    /// No such link.
    NotConnected,
    /// The datagram is too long, or its queue full.
    Datagram,
    /// The node is leaving.
    Leaving,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSupernode => "no supernode is known or answers",
            Self::UnknownPeer => "no supernode has a record of the peer",
            Self::Unreachable => "the peer does not answer",
            Self::Refused => "the peer refuses us",
            Self::OtherVersion => "the peer speaks another version of the protocol: one of the two needs an update",
            Self::Busy => "the peer's homes are too busy, or have used up what they relay",
        })
    }
}
impl core::error::Error for ConnectError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnId => "the peer is this node itself",
            Self::WeakKey => "the peer's key is weak",
            Self::Limit => "this node has too much open",
            Self::NotConnected => "there is no link to the peer",
            Self::Datagram => "the datagram is too long, or too many wait",
            Self::Leaving => "this node is leaving",
        })
    }
}
impl core::error::Error for CommandError {}
