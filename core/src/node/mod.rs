//! The node.

mod api;

use core::net::SocketAddr;
use core::time::Duration;

pub use api::*;

use crate::identity::{PeerId, SecretKey};
use crate::ticket::Ticket;
use crate::time::{Instant, WallTime};
use crate::wire::ServiceName;

/// The one public state machine.
pub struct Node {}

#[allow(unused_variables, missing_docs, clippy::todo, clippy::unused_self, clippy::needless_pass_by_ref_mut)]
impl Node {
    /// `origin` is std's moment of our `Instant::ZERO`; it only translates for quinn-proto.
    pub fn new(
        now: Instant,
        origin: std::time::Instant,
        seed: [u8; 32],
        key: SecretKey,
        config: Config,
        saved: Saved,
    ) -> Result<Self, ConfigError> {
        todo!()
    }

    /// One received buffer: datagrams of `stride` bytes each (the last may be shorter) from one source. Handles the
    /// longest run of datagrams with one verdict and returns its length in bytes; call again with the rest.
    pub fn handle_datagrams(&mut self, now: Instant, path: Path, stride: usize, data: &mut [u8]) -> (usize, Received) {
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }
    pub fn handle_socket(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) {
        todo!()
    }
    pub fn handle_network(&mut self, now: Instant, network: &Network) {
        todo!()
    }
    pub fn handle_wall_clock(&mut self, now: Instant, wall: WallTime) {
        todo!()
    }
    pub fn handle_entropy(&mut self, fresh: &[u8; 32]) {
        todo!()
    }

    /// Supernodes to start from.
    pub fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) -> Result<(), CommandError> {
        todo!()
    }
    /// Takes the homes of a ticket as known, so that no lookup is needed.
    pub fn learn(&mut self, now: Instant, ticket: &Ticket) -> Result<(), CommandError> {
        todo!()
    }
    /// Offers a service, or changes who may use it. Streams that are open stay.
    pub fn offer(&mut self, now: Instant, service: ServiceName, access: Access) -> Result<(), CommandError> {
        todo!()
    }
    /// Withdraws a service. Streams that are open stay.
    pub fn withdraw(&mut self, now: Instant, service: &ServiceName) {
        todo!()
    }
    /// Brings a link up; `Event::PathChanged` or `Event::ConnectFailed` tells.
    pub fn connect(&mut self, now: Instant, peer: PeerId) -> Result<(), CommandError> {
        todo!()
    }
    /// Measures one round trip, connecting first if need be: `Event::Pong`, or `Event::ConnectFailed`; a lost ping has
    /// no answer at all.
    pub fn ping(&mut self, now: Instant, peer: PeerId) -> Result<u64, CommandError> {
        todo!()
    }
    /// Opens a stream to a service, connecting first if need be. Bytes may be written at once.
    pub fn open(&mut self, now: Instant, peer: PeerId, service: &ServiceName) -> Result<StreamKey, CommandError> {
        todo!()
    }
    /// Takes an incoming stream.
    pub fn accept(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        todo!()
    }
    /// Refuses an incoming stream: `UnknownService`, `NotAllowed` or `Unavailable`.
    pub fn refuse(&mut self, now: Instant, stream: StreamKey, why: StreamEnd) -> Result<(), StreamError> {
        todo!()
    }
    /// Takes as many bytes as fit and says how many; `Err(Blocked)` when none do.
    pub fn write(&mut self, now: Instant, stream: StreamKey, data: &[u8]) -> Result<usize, StreamError> {
        todo!()
    }
    pub fn read(&mut self, now: Instant, stream: StreamKey, buf: &mut [u8]) -> Result<Read, StreamError> {
        todo!()
    }
    /// No more bytes will be written; those written still arrive.
    pub fn finish(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        todo!()
    }
    /// Drops the writing side: the peer sees `StreamEnd::Reset(code)`.
    pub fn reset(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        todo!()
    }
    /// Wants no more bytes: the peer sees `Event::StreamStopped`.
    pub fn stop(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        todo!()
    }
    /// Sends one unreliable datagram over a link that is up.
    pub fn send_datagram(&mut self, now: Instant, peer: PeerId, data: &[u8]) -> Result<(), CommandError> {
        todo!()
    }
    /// The next datagram received from `peer`: copies it to `buf` (cut if too short) and returns its length.
    pub fn recv_datagram(&mut self, peer: PeerId, buf: &mut [u8]) -> Option<usize> {
        todo!()
    }
    /// Tells peers and homes goodbye; `Event::Left` follows, within a second.
    pub fn leave(&mut self, now: Instant) {
        todo!()
    }

    /// The next datagram, or train of at most `segments_max` equal ones, to send. `buf` holds at least
    /// `DATAGRAM_LEN_MAX`; a train is as long as `buf` lets it be.
    pub fn poll_transmit(&mut self, now: Instant, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        todo!()
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        todo!()
    }

    /// This node.
    pub fn id(&self) -> PeerId {
        todo!()
    }
    pub fn status(&self, now: Instant) -> Status {
        todo!()
    }
    /// The path in use to `peer`, and its smoothed round trip.
    pub fn path_of(&self, peer: &PeerId) -> Option<(PathInfo, Option<Duration>)> {
        todo!()
    }
    /// A ticket for this node: itself, its homes, a service.
    pub fn ticket(&self, service: Option<ServiceName>) -> Ticket {
        todo!()
    }
}
