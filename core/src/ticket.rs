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

/// What a ticket says. Exhaustive: its fields are its format, and programs make one of them.
///
/// ```
/// use handfast_core::{SecretKey, Ticket};
///
/// let peer = SecretKey::from_bytes(&[7; 32]).peer_id();
/// let home = SecretKey::from_bytes(&[8; 32]).peer_id();
/// let homes = [(home, "203.0.113.7:7441".parse()?)].into_iter().collect();
/// let ticket = Ticket { peer, homes, service: Some("ssh".parse()?) };
///
/// let text = ticket.to_string();
/// assert!(text.starts_with("hft1"));
/// assert_eq!(text.parse(), Ok(ticket));
/// assert!("hft1nonsense".parse::<Ticket>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
#[non_exhaustive]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;
    use proptest::prelude::*;

    fn peer(seed: u8) -> PeerId {
        SecretKey::from_bytes(&[seed; 32]).peer_id()
    }

    fn full() -> Ticket {
        Ticket {
            peer: peer(1),
            homes: [(peer(2), "192.0.2.1:4000"), (peer(3), "[2001:db8::1]:4001")]
                .map(|(peer, addr)| (peer, addr.parse().expect("an address")))
                .into(),
            service: Some("ssh".parse().expect("a name")),
        }
    }

    fn text_of(bytes: &[u8]) -> String {
        bech32::encode::<Bech32m>(TICKET_HRP, bytes).expect("short enough")
    }

    #[test]
    fn tickets_go_both_ways_in_either_case() {
        let mut ticket = full();
        loop {
            let text = ticket.to_string();
            assert!(text.starts_with("hft1"));
            assert_eq!(text.parse().as_ref(), Ok(&ticket));
            assert_eq!(text.to_uppercase().parse().as_ref(), Ok(&ticket));
            ticket.service = None;
            if ticket.homes.pop().is_none() {
                break;
            }
        }
    }

    #[test]
    fn the_largest_ticket_fits() {
        let mut ticket = full();
        ticket.homes[0].1 = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
        ticket.service = Some("x".repeat(32).parse().expect("a name"));
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }

    #[test]
    fn every_single_typing_mistake_is_caught() {
        let good = full().to_string();
        for at in 4..good.len() {
            let wrong = if &good[at..=at] == "q" { "p" } else { "q" };
            let typo = format!("{}{wrong}{}", &good[..at], &good[at + 1..]);
            assert_eq!(typo.parse::<Ticket>(), Err(TicketError::Checksum), "{typo}");
        }
        for len in 0..good.len() {
            assert!(good[..len].parse::<Ticket>().is_err());
        }
    }

    #[test]
    fn a_peer_is_no_ticket_and_the_other_way_round() {
        assert_eq!(peer(1).to_string().parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!(full().to_string().parse::<PeerId>(), Err(crate::identity::PeerIdError::Prefix));
    }

    #[test]
    fn contents_must_be_whole_and_nothing_more() {
        let (_, bytes) = decode_bech32m(&full().to_string()).expect("ours");
        for len in 0..bytes.len() {
            assert_eq!(text_of(&bytes[..len]).parse::<Ticket>(), Err(TicketError::Contents), "length {len}");
        }
        assert_eq!(text_of(&[&bytes[..], &[0]].concat()).parse::<Ticket>(), Err(TicketError::Contents));
        // More homes than a ticket may have.
        let mut three = peer(1).as_bytes().to_vec();
        three.push(3);
        for seed in 2..5 {
            three.extend(peer(seed).as_bytes());
            three.extend([0, 192, 0, 2, 1, 1, 1]);
        }
        three.push(0);
        assert_eq!(text_of(&three).parse::<Ticket>(), Err(TicketError::Contents));
        // A peer that is none.
        assert_eq!(text_of(&[&[2][..], &[0; 33]].concat()).parse::<Ticket>(), Err(TicketError::Contents));
    }

    proptest! {
        #[test]
        fn no_contents_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = text_of(&bytes).parse::<Ticket>();
            let _ = text_of(&[&peer(1).as_bytes()[..], &bytes].concat()).parse::<Ticket>();
        }
    }
}
