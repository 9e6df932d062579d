//! Which mio token stands for what.
//!
//! A token is a kind in its lowest bits and a number above them. Sockets that are made in other rooms get theirs by a
//! function of this one, so that no two rooms can ever choose the same.

use handfast_core::SocketId;
use mio::Token;

const KIND_BITS: u32 = 3;
/// The waker, and what few sockets have a token each of their own.
const KIND_SINGLE: usize = 0;
const KIND_UDP: usize = 1;
const KIND_LISTENER: usize = 2;
const KIND_CONNECTION: usize = 3;
const KIND_TCP: usize = 4;
const KIND_TCP_LISTENER: usize = 5;

const SINGLE_WAKER: usize = 0;
const SINGLE_PORT_MAP: usize = 1;
const SINGLE_NETWORK: usize = 2;

/// What mio has news of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Somebody woke the loop.
    Waker,
    /// Any socket of port mapping.
    PortMap,
    /// The notices of network changes.
    Network,
    /// A UDP socket.
    Udp(SocketId),
    /// A TCP connection that carries packets.
    Tcp(SocketId),
    /// A listener for those.
    TcpListener(usize),
    /// A listener for local programs.
    Listener(usize),
    /// A local program's connection.
    Connection(usize),
}

impl Source {
    /// Its token.
    pub(super) fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Waker => (KIND_SINGLE, SINGLE_WAKER),
            Self::PortMap => (KIND_SINGLE, SINGLE_PORT_MAP),
            Self::Network => (KIND_SINGLE, SINGLE_NETWORK),
            Self::Udp(id) => (KIND_UDP, id.0 as usize),
            Self::Tcp(id) => (KIND_TCP, (id.0 - SocketId::TCP_FIRST.0) as usize),
            Self::TcpListener(number) => (KIND_TCP_LISTENER, number),
            Self::Listener(number) => (KIND_LISTENER, number),
            Self::Connection(index) => (KIND_CONNECTION, index),
        };
        Token(number << KIND_BITS | kind)
    }

    /// What a token stands for; nothing for one that was never given.
    pub(super) fn of(Token(token): Token) -> Option<Self> {
        let number = token >> KIND_BITS;
        let id = u32::try_from(number).ok();
        match token & ((1 << KIND_BITS) - 1) {
            KIND_SINGLE => match number {
                SINGLE_WAKER => Some(Self::Waker),
                SINGLE_PORT_MAP => Some(Self::PortMap),
                SINGLE_NETWORK => Some(Self::Network),
                _ => None,
            },
            KIND_UDP => id.map(|id| Self::Udp(SocketId(id))),
            KIND_TCP => id.and_then(|id| SocketId::TCP_FIRST.0.checked_add(id)).map(|id| Self::Tcp(SocketId(id))),
            KIND_TCP_LISTENER => Some(Self::TcpListener(number)),
            KIND_LISTENER => Some(Self::Listener(number)),
            KIND_CONNECTION => Some(Self::Connection(number)),
            _ => None,
        }
    }
}

/// Of a UDP socket.
pub(super) fn udp(id: SocketId) -> Token {
    Source::Udp(id).token()
}

/// Of a TCP connection that carries packets.
pub(super) fn tcp(id: SocketId) -> Token {
    Source::Tcp(id).token()
}

/// Of a listener for those.
pub(super) fn tcp_listener(number: usize) -> Token {
    Source::TcpListener(number).token()
}

/// Of a listener for local programs.
pub(super) fn listener(number: usize) -> Token {
    Source::Listener(number).token()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_comes_back_from_its_token_and_no_two_share_one() {
        let numbers = [0, 1, 2, 77];
        let mut sources = vec![Source::Waker, Source::PortMap, Source::Network];
        for number in numbers {
            let id = SocketId(number as u32);
            sources.extend([
                Source::Udp(id),
                Source::Tcp(SocketId(SocketId::TCP_FIRST.0 + id.0)),
                Source::TcpListener(number),
                Source::Listener(number),
                Source::Connection(number),
            ]);
        }
        for (n, source) in sources.iter().enumerate() {
            assert_eq!(Source::of(source.token()), Some(*source));
            assert!(sources[..n].iter().all(|other| other.token() != source.token()), "{source:?}");
        }
    }

    #[test]
    fn a_token_that_was_never_given_stands_for_nothing() {
        assert_eq!(Source::of(Token(9 << KIND_BITS)), None);
        assert_eq!(Source::of(Token(7)), None);
    }
}
