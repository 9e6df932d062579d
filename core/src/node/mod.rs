//! The node: the one public state machine, composed of the rooms around it.
//!
//! # Life
//!
//! [`Node::new`] makes it from a seed, a key, a [`Config`] and what an earlier run saved. The caller tells it its bound
//! sockets ([`Node::handle_network`]) and the wall clock ([`Node::handle_wall_clock`]), gives it supernodes to start
//! from ([`Node::join`]), and then goes round: what the world did goes in through `handle_*`, what the application
//! wants through the commands, and after every one of these calls the caller drains [`Node::poll_transmit`],
//! [`Node::poll_event`] and [`Node::poll_timeout`], in this order. [`Node::leave`] ends it.
//!
//! # Contract
//!
//! 1. Outputs are ready when the call that caused them returns. No extra tick brings them out.
//! 2. A deadline fires at `now >= deadline`. After [`Node::handle_timeout`] and a drain, [`Node::poll_timeout`] is
//!    `None` or later than `now`. It never names a moment before the last `now`.
//! 3. [`Node::handle_timeout`] early, late or twice is harmless; one late call does all that is due. A timer is
//!    disarmed before its action runs.
//! 4. Not draining costs delay, never correctness. What leaves is encoded in [`Node::poll_transmit`].
//! 5. Everything has a limit with a name, which says what happens at it.
//! 6. No datagram panics the node or returns an error. A rejected datagram changes only counters and rate limits.
//! 7. An empty datagram, or any other value that the wire can carry, is never a control signal.
//! 8. Unproven sources get no more bytes than they sent; [`crate::account`] keeps it.
//!
//! `tests/tests/contract.rs` tests these by number.
//!
//! # Inside
//!
//! `receive.rs` takes datagrams to authentic packets, `handshake.rs` brings links up, `messages.rs` hands messages to
//! their rooms, `links.rs` knows what hangs on a link and carries out what the [peers](crate::peer) want, `send.rs`
//! takes turns among what is to be sent. The other files carry one room each: they make the view that its machine
//! needs, call it, and carry out what it says, in order.

mod handshake;
mod introduce;
mod keepalive;
mod links;
mod messages;
mod nat;
mod overlay;
mod probe;
mod receive;
mod relay;
mod send;
mod status;
mod streams;
mod transport;
mod traverse;

use crate::api::{
    Access, CommandError, Config, ConfigError, Counters, Event, PathInfo, PeerStatus, Read, Role, Saved, Status,
    StreamEnd, StreamError, StreamKey,
};
use crate::net::{LanNode, Network, Path, Received, SocketId, SocketRefused, SocketRequest, Transmit};
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

pub use crate::stream::DATAGRAM_DATA_MAX;

use crate::account::Account;
use crate::identity::{PeerId, SecretKey};
use crate::introduce::{Calls, HeldInit, Introductions};
use crate::keepalive::{Duty, Measuring};
use crate::link::Identity;
use crate::nat::Nat;
use crate::overlay::Overlay;
use crate::peer::Peers;
use crate::random::Seed;
use crate::relay::Relay;
use crate::report::Report;
use crate::stream::{Services, Streams};
use crate::ticket::{TICKET_HOMES_MAX, Ticket};
use crate::time::{Instant, WallTime, earliest};
use crate::transport::Transports;
use crate::traverse::Traversal;
use crate::wire::ServiceName;
use crate::wire::address::is_sendable;

/// Timers that fire within one call before the node takes it for a mistake of its own and goes on a millisecond later.
const TIMEOUT_STEPS_MAX: usize = 1 << 22;

/// The one public state machine: the rooms, and the latest moment that it was told.
pub struct Node {
    /// The latest moment that any call named.
    now: Instant,
    report: Report,
    account: Account,
    peers: Peers,
    measuring: Measuring,
    relay: Relay,
    nat: Nat,
    traversal: Traversal,
    streams: Streams,
    transports: Transports,
    calls: Calls,
    introductions: Introductions<HeldInit>,
    overlay: Overlay,
}

impl Node {
    /// Makes a node. `origin` is std's moment of our [`Instant::ZERO`] and only translates for quinn-proto; `saved` is
    /// what an earlier run asked to keep. The seed must be fresh entropy: keys come from it.
    ///
    /// # Errors
    /// [`ConfigError::Advertise`]: a supernode without an address to advertise, or with one that nothing can be sent to.
    pub fn new(
        now: Instant,
        origin: std::time::Instant,
        seed: [u8; 32],
        key: SecretKey,
        mut config: Config,
        saved: Saved,
    ) -> Result<Self, ConfigError> {
        let own_duty = match &config.role {
            Role::Leaf | Role::Auto => Duty::Binding,
            Role::Supernode { advertise } => {
                if advertise.is_empty() || advertise.iter().any(|a| !is_sendable(*a)) {
                    return Err(ConfigError::Advertise);
                }
                Duty::Liveness
            }
        };
        let seed = Seed::new(seed);
        let me = Arc::new(Identity::new(key));
        let services = Services::new(core::mem::take(&mut config.services), &config.contacts);
        Ok(Self {
            now,
            report: Report::default(),
            account: Account::default(),
            peers: Peers::new(Arc::clone(&me), &seed, own_duty, saved.clock_mark),
            measuring: Measuring::new(&seed, &saved.bindings),
            relay: Relay::of(now, &seed, &config, &saved),
            nat: Nat::new(&seed, &saved.routers),
            traversal: Traversal::new(&seed),
            streams: Streams::new(&seed, origin, services),
            transports: Transports::default(),
            calls: Calls::new(me.id(), config.lan),
            introductions: Introductions::new(&seed, config.relay_rate_bps, config.relay_quota_bytes),
            overlay: Overlay::new(now, &seed, me, &config, &saved),
        })
    }

    // ---- what the world did ----

    /// One received buffer: datagrams of `stride` bytes each (the last may be shorter) from one source. Handles a run
    /// of them with one verdict and returns its length in bytes; call again with the rest.
    pub fn handle_datagrams(&mut self, now: Instant, path: Path, stride: usize, data: &mut [u8]) -> (usize, Received) {
        let result = self.receive(now, path, stride, data);
        if !matches!(result.1, Received::Forward { .. }) {
            self.settle(now);
        }
        result
    }

    /// Time passed. Harmless when early, late or repeated.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.account.handle_timeout(now);
        for _ in 0..TIMEOUT_STEPS_MAX {
            if let Some(key) = self.peers.pop_due(now) {
                self.on_peer_timeout(now, key);
            } else if let Some(id) = self.calls.pop_due(now) {
                self.on_call_timeout(now, id);
            } else {
                self.rooms_timeout(now);
                if self.relay.is_closing(now) {
                    self.on_relay_exhausted(now);
                }
                let closed = self.relay.handle_timeout(now);
                self.tell_closed(closed);
                self.on_choices_due(now);
                self.on_introductions_due(now);
                self.on_delayed_due(now);
                self.on_transports_due(now);
                self.keepalive_timeout(now);
                self.peers.handle_timeout(now);
                self.settle(now);
                if self.next_timeout().is_none_or(|at| at > now) {
                    return;
                }
            }
            if self.peers.touched() > 64 {
                self.settle(now);
            }
        }
        debug_assert!(false, "a timer does not advance at {now:?}: {:?}", self.next_timeout());
    }

    /// io opened a socket that [`Event::OpenSocket`] asked for, or could not.
    pub fn handle_socket(
        &mut self,
        now: Instant,
        request: SocketRequest,
        result: Result<(SocketId, SocketAddr), SocketRefused>,
    ) {
        self.on_socket(now, request, result);
        self.settle(now);
    }

    /// A TCP connection came in and has this number, at least [`SocketId::TCP_FIRST`] and never used before.
    pub fn handle_connection(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        self.on_tcp_accepted(now, socket, remote);
        self.settle(now);
    }

    /// A TCP connection ended, or broke the format: its number means nothing any more. Not called for those that
    /// [`Event::CloseSocket`] named.
    pub fn handle_socket_closed(&mut self, now: Instant, socket: SocketId) {
        self.on_tcp_closed(now, socket);
        self.settle(now);
    }

    /// The bound sockets, interface addresses and mapped ports, at the start and whenever they change.
    pub fn handle_network(&mut self, now: Instant, network: &Network) {
        let change = self.transports.handle_network(network);
        if change.mappings && !change.place {
            // Another way in, no other place: nothing that is known of this network is less true.
            self.on_candidates_changed(now);
        }
        if change.mappings {
            self.reach_mappings(now);
        }
        if change.place && !network.sockets.is_empty() {
            if self.overlay.is_serving() {
                self.report.on_ready();
            }
            self.on_network_changed(now);
            self.rooms_network(now);
            self.keepalive_on_network(now);
        }
        self.settle(now);
    }

    /// A node announced itself on the local network, or did so again with other addresses.
    pub fn handle_lan_node(&mut self, now: Instant, node: &LanNode) {
        if self.overlay.is_leaving() {
            return;
        }
        let is_linked = self.peers.up_key(&node.peer).is_some();
        if self.calls.handle_lan_node(now, &mut self.account, self.transports.network(), node, is_linked) {
            self.carry_calls(now);
            self.overlay.hear_of(now, &self.calls.lan().supernodes());
            self.settle(now);
        }
    }

    /// A node of the local network has gone, or its announcement has run out. Links to it stay.
    pub fn handle_lan_node_gone(&mut self, now: Instant, peer: PeerId) {
        self.calls.handle_lan_node_gone(&peer);
        self.settle(now);
    }

    /// The wall clock: at the start, hourly, and when it jumps.
    pub fn handle_wall_clock(&mut self, now: Instant, wall: WallTime) {
        self.peers.handle_wall_clock(now, wall);
        self.overlay.handle_wall_clock(now, wall);
        self.relay.on_wall_clock(wall);
        self.settle(now);
    }

    /// Fresh entropy from the operating system; io feeds some hourly, tests do not.
    pub fn handle_entropy(&mut self, fresh: &[u8; 32]) {
        self.peers.mix(fresh);
        self.measuring.mix(fresh);
        self.relay.mix(fresh);
        self.introductions.mix(fresh);
        self.streams.mix(fresh);
        self.overlay.mix(fresh);
        self.nat.mix(fresh);
        self.traversal.mix(fresh);
    }

    // ---- what the application wants ----

    /// Supernodes to start from.
    ///
    /// # Errors
    /// [`CommandError::Leaving`] after [`Node::leave`].
    pub fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)]) -> Result<(), CommandError> {
        if self.overlay.is_leaving() {
            return Err(CommandError::Leaving);
        }
        self.overlay.join(now, known);
        self.settle(now);
        Ok(())
    }

    /// Takes the homes of a ticket as known, so that no lookup is needed; where no supernode is known at all they
    /// also serve to start from.
    ///
    /// # Errors
    /// [`CommandError::Leaving`] after [`Node::leave`].
    pub fn learn(&mut self, now: Instant, ticket: &Ticket) -> Result<(), CommandError> {
        if self.overlay.is_leaving() {
            return Err(CommandError::Leaving);
        }
        let homes = self.calls.learn(ticket);
        self.overlay.start_from(now, &homes);
        self.settle(now);
        Ok(())
    }

    /// Offers a service, or changes who may use it. Open streams stay.
    ///
    /// # Errors
    /// [`CommandError::Limit`] where too many services are offered already.
    pub fn offer(&mut self, now: Instant, service: ServiceName, access: Access) -> Result<(), CommandError> {
        self.streams.offer(service, access)?;
        self.settle(now);
        Ok(())
    }

    /// Withdraws a service. Open streams stay.
    pub fn withdraw(&mut self, now: Instant, service: &ServiceName) {
        self.streams.withdraw(service);
        self.settle(now);
    }

    /// Brings a link up; [`Event::PathChanged`] or [`Event::ConnectFailed`] tells.
    ///
    /// # Errors
    /// [`CommandError::OwnId`], [`CommandError::WeakKey`], [`CommandError::Leaving`]; [`CommandError::Limit`] where too
    /// many calls are under way or too many peers known.
    pub fn connect(&mut self, now: Instant, peer: PeerId) -> Result<(), CommandError> {
        self.peers.announce_again(&peer);
        self.reach_peer(now, peer)?;
        self.settle(now);
        Ok(())
    }

    /// Measures one round trip, connecting first if need be: [`Event::Pong`], or [`Event::ConnectFailed`]. A lost ping
    /// has no answer at all. Returns the number that the answer will carry.
    ///
    /// # Errors
    /// Those of [`Node::connect`].
    pub fn ping(&mut self, now: Instant, peer: PeerId) -> Result<u64, CommandError> {
        self.reach_peer(now, peer)?;
        let sequence = self.peers.ping(now, peer, self.calls.contains(&peer));
        self.settle(now);
        Ok(sequence)
    }

    /// Opens a stream to a service, connecting first if need be. Bytes may be written at once.
    ///
    /// # Errors
    /// Those of [`Node::connect`]; [`CommandError::Limit`] also where too many streams are open.
    pub fn open(&mut self, now: Instant, peer: PeerId, service: &ServiceName) -> Result<StreamKey, CommandError> {
        let result = self.open_stream(now, peer, service);
        self.settle(now);
        result
    }

    /// Takes an incoming stream.
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or its state does not allow it.
    pub fn accept(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        self.use_streams(now, |streams| streams.accept(now, stream))
    }

    /// Refuses an incoming stream: `UnknownService`, `NotAllowed` or `Unavailable`.
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or its state does not allow it.
    pub fn refuse(&mut self, now: Instant, stream: StreamKey, why: StreamEnd) -> Result<(), StreamError> {
        self.use_streams(now, |streams| streams.refuse(now, stream, why))
    }

    /// Takes as many bytes as fit and says how many; `Err(Blocked)` when none do. [`Event::Writable`] follows whenever
    /// not all were taken.
    ///
    /// # Errors
    /// [`StreamError::Blocked`] where no byte fits; others where there is no such stream, or it is over.
    pub fn write(&mut self, now: Instant, stream: StreamKey, data: &[u8]) -> Result<usize, StreamError> {
        self.use_streams(now, |streams| streams.write(now, stream, data))
    }

    /// Reads bytes in order. [`Event::Readable`] follows whenever fewer came than asked for.
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or it ended otherwise than by its last byte.
    pub fn read(&mut self, now: Instant, stream: StreamKey, buf: &mut [u8]) -> Result<Read, StreamError> {
        self.use_streams(now, |streams| streams.read(now, stream, buf))
    }

    /// No more bytes will be written; those written still arrive.
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or its writing side is over.
    pub fn finish(&mut self, now: Instant, stream: StreamKey) -> Result<(), StreamError> {
        self.use_streams(now, |streams| streams.finish(now, stream))
    }

    /// Drops the writing side: the peer's `read` gives [`StreamEnd::Reset`] with the code.
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or its writing side is over.
    pub fn reset(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        self.use_streams(now, |streams| streams.reset(now, stream, code))
    }

    /// Wants no more bytes: the peer gets [`Event::StreamStopped`].
    ///
    /// # Errors
    /// [`StreamError`]: there is no such stream, or its reading side is over.
    pub fn stop(&mut self, now: Instant, stream: StreamKey, code: u32) -> Result<(), StreamError> {
        self.use_streams(now, |streams| streams.stop(now, stream, code))
    }

    /// Sends one unreliable datagram of at most [`DATAGRAM_DATA_MAX`] bytes over a link that is up.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`]; [`CommandError::Datagram`] where it is too long or too many wait.
    pub fn send_datagram(&mut self, now: Instant, peer: PeerId, data: &[u8]) -> Result<(), CommandError> {
        let result = self.send_app_datagram(now, &peer, data);
        self.settle(now);
        result
    }

    /// The next datagram received from `peer`: copies it to `buf` (cut if too short) and returns its length.
    pub fn recv_datagram(&mut self, peer: PeerId, buf: &mut [u8]) -> Option<usize> {
        self.streams.recv_datagram(self.peers.key_of(&peer)?, buf)
    }

    /// Cuts a peer off: its link is closed with a goodbye, its streams end with [`StreamEnd::PeerGone`] here, a call to
    /// it that is under way is given up. It may come back like any other, so whoever revokes a permission withdraws
    /// that first.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`] where there was nothing to cut.
    pub fn disconnect(&mut self, now: Instant, peer: &PeerId) -> Result<(), CommandError> {
        let called = self.calls.contains(peer);
        self.calls.finish(peer);
        self.peers.drop_pings(peer);
        self.on_streams(now, |streams| streams.end_waiting(peer, StreamEnd::PeerGone));
        let key = self.peers.key_of(peer);
        if let Some(key) = key {
            self.close_link(now, key);
        }
        self.settle(now);
        if called || key.is_some() { Ok(()) } else { Err(CommandError::NotConnected) }
    }

    /// Tells peers and homes goodbye; [`Event::Left`] follows.
    pub fn leave(&mut self, now: Instant) {
        self.transports.leave();
        self.measuring.leave();
        self.leave_all(now);
        self.settle(now);
    }

    // ---- what to do next ----

    /// The next datagram, or train of at most `segments_max` equal ones, to send. `buf` holds at least
    /// [`DATAGRAM_LEN_MAX`](crate::wire::DATAGRAM_LEN_MAX) bytes (else it panics: a bug of the caller); a train is as
    /// long as it lets it be.
    pub fn poll_transmit(&mut self, now: Instant, segments_max: usize, buf: &mut [u8]) -> Option<Transmit> {
        let transmit = self.next_transmit(now, segments_max, buf);
        if transmit.is_none() {
            self.settle(now);
        }
        transmit
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.report.poll_event()
    }

    /// When to call [`Node::handle_timeout`].
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        // QUIC may name a moment that has passed since it was last asked.
        self.next_timeout().map(|at| at.max(self.now))
    }

    // ---- getters ----

    /// This node.
    pub fn id(&self) -> PeerId {
        self.overlay.id()
    }

    /// Counters since start.
    pub fn counters(&self) -> &Counters {
        self.report.counters()
    }

    /// What the node knows of itself and of those around it.
    pub fn status(&self, now: Instant) -> Status {
        self.own_status(now)
    }

    /// The path in use to `peer`, and its smoothed round trip.
    pub fn path_of(&self, peer: &PeerId) -> Option<(PathInfo, Option<Duration>)> {
        let peer = self.peers.by_id(peer).filter(|p| p.is_up())?;
        Some((self.peers.path_info(&peer.current()?)?, peer.paths().rtt()))
    }

    /// What [`Node::status`] says of `peer`, if its link is up.
    pub fn peer_status(&self, now: Instant, peer: &PeerId) -> Option<PeerStatus> {
        let key = self.peers.key_of(peer)?;
        self.status_of(now, key, self.peers.get(key)?)
    }

    /// A ticket for this node: itself, its homes, a service.
    pub fn ticket(&self, service: Option<ServiceName>) -> Ticket {
        let homes = self.overlay.contacts().into_iter().take(TICKET_HOMES_MAX).collect();
        Ticket { peer: self.id(), homes, service }
    }

    /// Carries out what the rooms want, and moves the deadlines of the peers that were touched.
    fn settle(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.rooms_settle(now);
        self.take_turns(now);
        self.peers.settle(now, |key| earliest(self.streams.poll_timeout_of(key), self.traversal.poll_timeout_of(key)));
    }

    fn next_timeout(&self) -> Option<Instant> {
        let mut at = earliest(self.peers.poll_timeout(), self.calls.poll_timeout());
        at = earliest(at, self.traversal.poll_timeout());
        at = earliest(at, self.relay.poll_timeout());
        at = earliest(at, self.introductions.poll_timeout());
        at = earliest(at, self.transports.poll_timeout());
        at = earliest(at, self.measuring.poll_timeout());
        at = earliest(at, self.overlay.poll_timeout());
        earliest(at, self.nat.poll_timeout())
    }
}
