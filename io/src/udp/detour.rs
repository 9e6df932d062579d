//! A way for datagrams that leads through a relay of theirs, each behind a header that names the far address.
//!
//! No network needs it: it puts a node behind a router that exists in one process only, as the demo does. What the
//! headers look like is its business ([`Detour`] is two functions); here they are put on and taken off. Trains are
//! taken apart on the way, so it is slow.

use std::net::SocketAddr;

/// Longest header that a detour may put before a datagram: of RFC 1928 §7, with an IPv6 address.
pub const HEADER_LEN_MAX: usize = 4 + 16 + 2;

/// Where datagrams go instead, and how they say where they should.
#[derive(Clone, Copy, Debug)]
pub struct Detour {
    via: SocketAddr,
    wrap: fn(SocketAddr, &mut [u8; HEADER_LEN_MAX]) -> usize,
    unwrap: fn(&[u8]) -> Option<(SocketAddr, usize)>,
}

impl Detour {
    /// Through `via`. `wrap` writes the header that names an address and gives its length; `unwrap` reads one from the
    /// front of a datagram: the address and the header's length, or nothing if it is none.
    pub fn new(
        via: SocketAddr,
        wrap: fn(SocketAddr, &mut [u8; HEADER_LEN_MAX]) -> usize,
        unwrap: fn(&[u8]) -> Option<(SocketAddr, usize)>,
    ) -> Self {
        Self { via, wrap, unwrap }
    }

    /// Where everything goes.
    pub(super) fn via(&self) -> SocketAddr {
        self.via
    }

    /// Writes the header for `far` and gives its length.
    pub(super) fn wrap(&self, far: SocketAddr, header: &mut [u8; HEADER_LEN_MAX]) -> usize {
        (self.wrap)(far, header).min(HEADER_LEN_MAX)
    }

    /// The far address and what is behind the header of a datagram; none if it came from elsewhere or has no header.
    pub(super) fn unwrap<'a>(&self, from: SocketAddr, datagram: &'a mut [u8]) -> Option<(SocketAddr, &'a mut [u8])> {
        if from != self.via {
            return None;
        }
        let (far, header_len) = (self.unwrap)(datagram)?;
        Some((far, datagram.get_mut(header_len..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_relay_sends_with_a_header_comes_in() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let (via, far) = (at("127.0.0.1:1"), at("192.0.2.1:7"));
        let detour = Detour::new(
            via,
            |_, header| {
                header[0] = 0xaa;
                1
            },
            |datagram| (datagram.first() == Some(&0xaa)).then(|| (SocketAddr::from(([192, 0, 2, 1], 7)), 1)),
        );
        let mut header = [0; HEADER_LEN_MAX];
        assert_eq!((detour.wrap(far, &mut header), header[0]), (1, 0xaa));
        assert_eq!(
            detour.unwrap(via, &mut [0xaa, 5, 6]).map(|(far, data)| (far, data.to_vec())),
            Some((far, vec![5, 6]))
        );
        assert!(detour.unwrap(via, &mut [5, 6]).is_none(), "no header");
        assert!(detour.unwrap(via, &mut []).is_none());
        assert!(detour.unwrap(far, &mut [0xaa, 5]).is_none(), "from somebody else");
    }
}
