//! Carries what the streams room wants to the links, and the links' news to it.

use super::Node;
use crate::api::{CommandError, StreamKey};
use crate::identity::PeerId;
use crate::net::{DropReason, PeerKey};
use crate::peer::Peer;
use crate::stream::{Output, Side, Streams, View, takes_datagram};
use crate::time::Instant;
use crate::wire::ServiceName;
use crate::wire::message::Message;

impl Node {
    /// Carries out what the streams room wants.
    fn carry_streams(&mut self, now: Instant) {
        while let Some(output) = self.streams.poll_output() {
            match output {
                Output::Event(event) => self.report.tell(event),
                Output::Touched(key) => self.peers.touch(key),
                Output::Used(key) => self.peers.on_used(now, key),
                Output::Busy { link, busy } => self.peers.set_busy(link, busy),
                Output::Waits(id) => self.open_waiting(now, &id),
            }
        }
    }

    /// One call on the room, and what comes of it.
    pub(crate) fn on_streams<T>(&mut self, now: Instant, call: impl FnOnce(&mut Streams) -> T) -> T {
        let result = call(&mut self.streams);
        self.carry_streams(now);
        result
    }

    /// One that the application makes.
    pub(super) fn use_streams<T>(&mut self, now: Instant, call: impl FnOnce(&mut Streams) -> T) -> T {
        let result = self.on_streams(now, call);
        self.settle(now);
        result
    }

    pub(crate) fn open_stream(
        &mut self,
        now: Instant,
        id: PeerId,
        service: &ServiceName,
    ) -> Result<StreamKey, CommandError> {
        let stream = self.streams.open(id, service)?;
        if let Err(error) = self.reach_peer(now, id) {
            self.streams.forget(stream);
            return Err(error);
        }
        self.open_waiting(now, &id);
        Ok(stream)
    }

    /// The peer's link may be up: streams that wait for it move in.
    pub(crate) fn open_waiting(&mut self, now: Instant, id: &PeerId) {
        let Some(key) = self.peers.up_key(id).filter(|_| self.streams.waits_for(id)) else { return };
        self.make_user_link(now, key);
        if let Some(view) = self.stream_view(now, key) {
            self.on_streams(now, |streams| streams.open_waiting(now, &view));
        }
    }

    pub(crate) fn on_stream_packet(&mut self, now: Instant, key: PeerKey, plain: &[u8]) -> Result<(), DropReason> {
        let view = self.stream_view(now, key).ok_or(DropReason::WrongPath)?;
        self.on_streams(now, |streams| streams.handle_packet(now, &view, plain));
        Ok(())
    }

    /// The link as the room sees it, if it is up. It carries user traffic from now on, unless the peer is refused.
    fn stream_view(&mut self, now: Instant, key: PeerKey) -> Option<View> {
        let peer = self.peers.get(key).filter(|p| p.is_up())?;
        let (id, is_client) = (peer.id(), peer.is_client());
        let is_accepted = self.is_let_in(&id);
        if is_accepted {
            self.peers.carry_traffic(now, key);
        }
        let side = if is_client { Side::Client } else { Side::Server };
        Some(View { key, id, side, is_accepted })
    }

    pub(crate) fn send_app_datagram(&mut self, now: Instant, id: &PeerId, data: &[u8]) -> Result<(), CommandError> {
        let key = self.peers.up_key(id);
        // One that is too long is so whoever it is for.
        if !takes_datagram(data.len(), key.map_or(0, |_| self.peers.queued())) {
            return Err(CommandError::Datagram);
        }
        let key = key.ok_or(CommandError::NotConnected)?;
        self.make_user_link(now, key);
        self.peers.send(key, &Message::Datagram(data));
        Ok(())
    }

    /// Datagrams are for peers that some service lets in, or that we called.
    pub(crate) fn on_app_datagram(&mut self, now: Instant, key: PeerKey, data: &[u8]) {
        let Some(id) = self.peers.get(key).filter(|peer| peer.is_user()).map(Peer::id) else { return };
        self.on_streams(now, |streams| streams.handle_datagram(key, id, data));
    }

    /// Whether a peer gets user links, candidates and checks: whom a service lets in, and with whom we have begun
    /// something, from then on.
    ///
    /// A service that is open to any lets everybody in: whoever may open a stream learns our addresses with it, so
    /// keeping them from those who have not opened one yet would protect nothing.
    pub(crate) fn is_let_in(&self, id: &PeerId) -> bool {
        self.peers.by_id(id).is_some_and(Peer::is_user)
            || self.calls.wants_user(id)
            || self.streams.waits_for(id)
            || self.streams.services().let_in(id)
    }
}
