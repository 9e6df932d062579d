//! [`Transports`], as far as it is about this host: its main sockets with the addresses around them, and those beside.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::sockets::Purpose;
use super::transports::Transports;
use crate::net::{Network, SocketId, SocketRefused, SocketRequest};

/// What of a [`Network`] is another than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NetworkChange {
    /// What the router maps.
    pub(crate) mappings: bool,
    /// Anything else: this may be another place.
    pub(crate) place: bool,
}

impl Transports {
    // ---- the main sockets ----

    /// The main sockets, and what io says of the host around them.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// io says how they stand.
    pub(crate) fn handle_network(&mut self, network: &Network) -> NetworkChange {
        let before = core::mem::replace(&mut self.network, network.clone());
        let mappings = before.mappings != network.mappings;
        let place = Network { mappings: network.mappings.clone(), ..before } != *network;
        NetworkChange { mappings, place }
    }

    // ---- those beside them ----

    /// Somebody wants a socket: the number to ask io with; nothing when there are too many, or the node leaves.
    #[must_use]
    pub(crate) fn ask(&mut self, purpose: Purpose) -> Option<SocketRequest> {
        self.sockets.ask(purpose)
    }

    /// io's answer: what the socket is for. Nothing where nobody asked for it: if there is one, it is given back.
    #[must_use]
    pub(crate) fn handle_socket(
        &mut self,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) -> Option<Purpose> {
        self.sockets.handle_socket(request, result)
    }

    /// Sockets have served: those of them that were open, which io is to close.
    #[must_use]
    pub(crate) fn close(&mut self, sockets: &BTreeSet<SocketId>) -> Vec<SocketId> {
        self.sockets.close(sockets)
    }

    /// Those open for a purpose, and where each is bound.
    pub(crate) fn of(&self, purpose: Purpose) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        self.sockets.of(purpose)
    }

    /// What an open socket is for; nothing for a main one.
    pub(crate) fn purpose(&self, socket: SocketId) -> Option<Purpose> {
        self.sockets.purpose(socket)
    }

    // ---- both ----

    /// All that are open but TCP connections, which end by themselves.
    pub(crate) fn udp_sockets(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.network.sockets.iter().map(|(main, _)| *main).chain(self.sockets.open())
    }

    /// Whether something may leave from a socket: one of the main ones, or one that we had opened.
    pub(crate) fn is_open(&self, socket: SocketId) -> bool {
        socket.is_tcp() || self.network.sockets.iter().any(|(main, _)| *main == socket) || self.sockets.is_open(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Mapping, MappingProtocol};

    const MAIN: SocketId = SocketId(0);

    fn network(port: u16) -> Network {
        Network { sockets: vec![(MAIN, SocketAddr::from(([10, 0, 0, 1], port)))], ..Network::default() }
    }

    #[test]
    fn a_mapping_is_another_way_in_and_no_other_place() {
        let mut transports = Transports::default();
        let change = |mappings, place| NetworkChange { mappings, place };
        assert_eq!(transports.handle_network(&network(7)), change(false, true));
        let external = SocketAddr::from(([198, 51, 100, 1], 9));
        let mapping = Mapping { socket: MAIN, external, protocol: MappingProtocol::Pcp };
        let mapped = Network { mappings: vec![mapping], ..network(7) };
        assert_eq!(transports.handle_network(&mapped), change(true, false));
        assert_eq!(transports.handle_network(&mapped), change(false, false));
        assert_eq!(transports.handle_network(&Network { epoch: 1, ..mapped.clone() }), change(false, true));
        assert_eq!(transports.handle_network(&network(8)), change(true, true));
        assert_eq!(*transports.network(), network(8));
    }

    #[test]
    fn main_sockets_and_those_beside_are_open_until_they_are_closed() {
        let mut transports = Transports::default();
        let _ = transports.handle_network(&network(7));
        let request = transports.ask(Purpose::Reach).expect("room");
        let beside = (SocketId(5), SocketAddr::from(([10, 0, 0, 1], 8)));
        assert!(transports.is_open(MAIN) && !transports.is_open(beside.0));
        assert_eq!(transports.handle_socket(request, Ok(beside)), Some(Purpose::Reach));
        assert_eq!(transports.udp_sockets().collect::<Vec<_>>(), [MAIN, beside.0]);
        assert!(transports.is_open(beside.0) && transports.is_open(SocketId::TCP_FIRST));
        assert_eq!((transports.purpose(beside.0), transports.purpose(MAIN)), (Some(Purpose::Reach), None));
        let closed = transports.close(&[MAIN, beside.0].into());
        assert_eq!(closed, [beside.0], "a main one is io's");
        assert!(!transports.is_open(beside.0));
        transports.leave();
        assert_eq!(transports.ask(Purpose::Alternate), None);
    }
}
