//! Tickets: a peer, up to two of its homes, and a service, as text (`hft1…`). Who has one connects without a lookup.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

use arrayvec::ArrayVec;
use bech32::{Bech32m, Hrp};
use serde::{Deserialize, Serialize};

use crate::identity::{PeerId, decode_bech32m};
use crate::wire::ServiceName;
use crate::wire::address::Address;

/// Human-readable part of a ticket in text.
const TICKET_HRP: Hrp = Hrp::parse_unchecked("hft");
/// Most homes in a ticket.
pub const TICKET_HOMES_MAX: usize = 2;
/// Room for the largest ticket in postcard.
const TICKET_LEN_MAX: usize = 256;

/// What a ticket says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Whom it leads to.
    pub peer: PeerId,
    /// Where that peer is at home, best first; a supernode names itself.
    pub homes: ArrayVec<(PeerId, SocketAddr), TICKET_HOMES_MAX>,
    /// What to open there.
    pub service: Option<ServiceName>,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    peer: PeerId,
    homes: ArrayVec<(PeerId, Address), TICKET_HOMES_MAX>,
    service: Option<ServiceName>,
}

/// Why text is not a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TicketError {
    /// Not bech32m, or the checksum is wrong.
    Checksum,
    /// Bech32m, but not `hft1…`.
    Prefix,
    /// The bytes inside are not a ticket.
    Contents,
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checksum => "has a typing mistake (checksum)",
            Self::Prefix => "does not start with hft1",
            Self::Contents => "is damaged or of a newer version",
        })
    }
}

impl core::error::Error for TicketError {}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = Encoded {
            peer: self.peer,
            homes: self.homes.iter().map(|&(peer, addr)| (peer, addr.into())).collect(),
            service: self.service,
        };
        let mut buf = [0; TICKET_LEN_MAX];
        let bytes = postcard::to_slice(&encoded, &mut buf).map_err(|_| fmt::Error)?;
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, TICKET_HRP, bytes).map_err(|_| fmt::Error)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let (hrp, bytes) = decode_bech32m(text).ok_or(TicketError::Checksum)?;
        if hrp.to_lowercase() != TICKET_HRP.to_lowercase() {
            return Err(TicketError::Prefix);
        }
        let (encoded, rest) = postcard::take_from_bytes::<Encoded>(&bytes).map_err(|_| TicketError::Contents)?;
        if !rest.is_empty() {
            return Err(TicketError::Contents);
        }
        Ok(Self {
            peer: encoded.peer,
            homes: encoded.homes.into_iter().map(|(peer, addr)| (peer, addr.into())).collect(),
            service: encoded.service,
        })
    }
}
