//! temporary
use super::*;
use super::peer::PeerKey;
use crate::path::Route;
use crate::wire::message::{Load, Message};
use crate::wire::message;
pub(crate) struct Rooms;
#[allow(unused_variables)]
impl Rooms { pub(crate) fn new(now: Instant, me: &Identity, config: &Config, saved: &Saved, rng: &mut Generators) -> Self { Self } }
#[allow(unused_variables)]
impl Node {
    pub(crate) fn rooms_link_up(&mut self, now: Instant, id: &PeerId) {}
    pub(crate) fn rooms_link_down(&mut self, now: Instant, id: &PeerId) {}
    pub(crate) fn rooms_leave(&mut self, now: Instant) {}
    pub(crate) fn rooms_timeout(&mut self, now: Instant) {}
    pub(crate) fn rooms_poll_timeout(&self) -> Option<Instant> { None }
    pub(crate) fn rooms_settle(&mut self, now: Instant) {}
    pub(crate) fn rooms_network(&mut self, now: Instant) {}
    pub(crate) fn rooms_join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) {}
    pub(crate) fn is_supernode(&self, id: &PeerId) -> bool { false }
    pub(crate) fn supernode_addresses(&self, id: &PeerId) -> Vec<SocketAddr> { vec![] }
    pub(crate) fn known_homes_of(&self, now: Instant, id: &PeerId) -> Vec<(PeerId, SocketAddr)> { self.known_homes.get(id).cloned().unwrap_or_default() }
    pub(crate) fn start_lookup(&mut self, now: Instant, id: PeerId) {}
    pub(crate) fn is_registered(&self, id: &PeerId) -> bool { false }
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> { vec![] }
    pub(crate) fn on_observed(&mut self, now: Instant, key: PeerKey, from: SocketAddr, socket: SocketId, seen: SocketAddr) {}
    pub(crate) fn on_early(&mut self, now: Instant, key: PeerKey, early: Message<'_>) -> Option<Box<[u8]>> { None }
    pub(crate) fn on_room_message(&mut self, now: Instant, key: PeerKey, id: &PeerId, route: Route, m: Message<'_>) {}
    pub(crate) fn observed(&self) -> Vec<(PeerId, SocketAddr)> { vec![] }
    pub(crate) fn mapping(&self) -> Option<crate::reach::MappingBehavior> { None }
    pub(crate) fn reachable(&self) -> Option<bool> { None }
    pub(crate) fn own_homes(&self) -> Vec<(PeerId, SocketAddr)> { vec![] }
    pub(crate) fn supernodes(&self, now: Instant) -> Vec<SupernodeStatus> { vec![] }
    pub(crate) fn own_load(&self, now: Instant) -> Load { Load::default() }
    pub(crate) fn leaves(&self) -> usize { 0 }
}
