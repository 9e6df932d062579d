//! One QUIC connection of a link: quinn's endpoint and connection, set up our way, as one thing.
//!
//! quinn routes between many connections and many addresses; a link has one connection at a time and no address that
//! QUIC could see. So each connection gets an endpoint of its own, and both ends see the one address [`REMOTE`].

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use bytes::{Bytes, BytesMut};
use quinn_proto::congestion::CubicConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent, Dir, Endpoint,
    EndpointConfig, MtuDiscoveryConfig, ServerConfig, Side, TransportConfig, ValidationTokenConfig, VarInt,
};

use super::crypto::{Mark, NoClock, Null, OneToken, REMOTE_IP, ResetKey};
use super::limits::{LONG_MAX, RECEIVE_WINDOW, SEND_WINDOW, STREAM_RECEIVE_WINDOW, STREAMS_EARLY, STREAMS_MAX};
use crate::wire::packet::{DATA_OVERHEAD, RELAY_HEADER_LEN};

/// Version number in QUIC's long headers: ours, since with no TLS inside it is no published QUIC. "hf", 1.
pub(super) const VERSION: u32 = 0x6866_0001;
/// QUIC's fixed bit, in the first byte of every packet.
pub(super) const FIXED: u8 = 0x40;
/// Longest QUIC packet before the path has proven more: what QUIC requires of every path, and what fits a relayed
/// packet of `DATAGRAM_LEN_MAX`.
pub const PACKET_LEN_MIN: u16 = 1200;
/// Longest QUIC packet at all: Ethernet's 1 500, less IPv6's 40, UDP's 8, Relay's 7 and the link's own bytes.
///
/// Over IPv4 and without a relay 27 bytes more would fit. But then a link that fails over to its relay would find that
/// all it has under way is too long, and would have to start over before the new path has been heard of.
#[expect(clippy::cast_possible_truncation, reason = "some thirty bytes")]
pub(crate) const PACKET_LEN_MAX: u16 = 1500 - 48 - (DATA_OVERHEAD + RELAY_HEADER_LEN) as u16;
/// RFC 9002 §6.2.2 says 333 ms; but the link's own handshake came through not long ago, and few links are that slow. A
/// guess too low costs a repeated packet, one too high 0.6 s more after the loss of the first flight.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// RFC 9002 §7.2 says 10 packets; 20 leave the handshake room beside [`EARLY_WINDOW`].
const INITIAL_WINDOW: u64 = 24_000;
/// Most written bytes under way until the handshake is confirmed; then [`SEND_WINDOW`].
///
/// Until then the peer drops our packets of data if it has not got our Handshake packet. If that one is lost and the
/// congestion window is full of data, quinn holds its repetition back, and nothing ever moves again. So data may not
/// fill the window; and where losses have made the window too small even so, it is opened again: [`UNSTICK`].
const EARLY_WINDOW: u64 = 8_192;
/// How long a handshake may take before its congestion window starts anew; each further time takes twice as long.
const UNSTICK: Duration = Duration::from_secs(1);
/// [`REMOTE_IP`] with a port, which must not be 0.
const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V6(REMOTE_IP), 1);

/// Which connection of the link: each is newer than the last. Microseconds of the client's clock, on the wire as the
/// client's first destination connection id, which must have 8 bytes at least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Epoch(pub(super) u64);

impl Epoch {
    fn cid(self) -> ConnectionId {
        ConnectionId::new(&self.0.to_be_bytes())
    }

    /// What the packets of the connection end in.
    pub(super) fn mark(self) -> Mark {
        Mark::of_cid(&self.cid())
    }

    /// The epoch that an Initial packet names, if it is one that may open a connection; its padding may be cut out.
    pub(super) fn of_initial(packet: &[u8]) -> Option<Self> {
        let (&first, rest) = packet.split_first()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (&cid_len, rest) = rest.split_first()?;
        if !is_initial(first | FIXED) || u32::from_be_bytes(*version) != VERSION || cid_len != 8 {
            return None;
        }
        rest.first_chunk::<8>().map(|cid| Self(u64::from_be_bytes(*cid)))
    }
}

/// Whether the first byte of a QUIC packet says: long header, Initial.
pub(super) const fn is_initial(first: u8) -> bool {
    first & 0xf0 == 0xc0
}

/// Connection ids of no length: the link already says whose packet it is.
struct NoCid;

impl ConnectionIdGenerator for NoCid {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// One connection.
pub(super) struct Conn {
    pub(super) quic: Connection,
    pub(super) epoch: Epoch,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    /// How many packets with long headers came.
    long: u32,
    /// Until the handshake is confirmed: when to unstick it, and how long to wait the next time.
    unstick: Option<(StdInstant, Duration)>,
}

impl Conn {
    /// Begins a connection as its client. Streams can be opened and written at once.
    pub(super) fn connect(now: StdInstant, seed: &[u8; 32], epoch: Epoch) -> Self {
        let mut client = ClientConfig::new(Arc::new(Null));
        client
            .version(VERSION)
            .transport_config(transport())
            .token_store(Arc::new(OneToken))
            .initial_dst_cid_provider(Arc::new(move || epoch.cid()));
        let mut endpoint = endpoint(seed, epoch, None);
        // Our own version, a valid address, a session that always starts, no connection id that could run out.
        let (handle, quic) =
            endpoint.connect(now, client, REMOTE, "peer").expect("nothing of what connect checks is left to chance");
        Self { quic, epoch, endpoint, handle, long: 0, unstick: Some((now + UNSTICK, UNSTICK * 2)) }
    }

    /// Takes a client's first packet. `None` if it is no valid one.
    pub(super) fn accept(now: StdInstant, seed: &[u8; 32], epoch: Epoch, packet: BytesMut) -> Option<Self> {
        let mut server = ServerConfig::new(Arc::new(Null), Arc::new(OneToken));
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(OneToken));
        server
            .transport_config(transport())
            .validation_token_config(tokens)
            .migration(false)
            .max_incoming(1)
            .incoming_buffer_size(0)
            .time_source(Arc::new(NoClock));
        let mut endpoint = endpoint(seed, epoch, Some(Arc::new(server)));
        let mut refusal = Vec::new();
        let Some(DatagramEvent::NewConnection(incoming)) =
            endpoint.handle(now, REMOTE, None, None, packet, &mut refusal)
        else {
            return None;
        };
        let (handle, quic) = endpoint.accept(incoming, now, &mut refusal, None).ok()?;
        let mut conn = Self { quic, epoch, endpoint, handle, long: 0, unstick: Some((now + UNSTICK, UNSTICK * 2)) };
        conn.settle();
        Some(conn)
    }

    /// A packet with a long header, which may be of an earlier connection.
    pub(super) fn handle_long(&mut self, now: StdInstant, packet: BytesMut) {
        if self.long < LONG_MAX {
            self.long += 1;
            self.handle(now, packet);
        }
    }

    /// A packet of this connection, or of none.
    pub(super) fn handle(&mut self, now: StdInstant, packet: BytesMut) {
        let mut response = Vec::new();
        match self.endpoint.handle(now, REMOTE, None, None, packet, &mut response) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                self.quic.handle_event(event);
                self.settle();
            }
            // One connection is all an endpoint of ours has. Newer ones were sorted out before.
            Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
            // Refusals, version negotiation, resets: none of these is ever sent.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: StdInstant) {
        if let Some((_, wait)) = self.unstick.filter(|(at, _)| *at <= now) {
            self.quic.path_changed(now);
            self.unstick = Some((now + wait, wait * 2));
        }
        self.quic.handle_timeout(now);
        self.settle();
    }

    pub(super) fn poll_timeout(&mut self) -> Option<StdInstant> {
        let unstick = self.unstick.map(|(at, _)| at);
        self.quic.poll_timeout().map_or(unstick, |at| Some(unstick.map_or(at, |unstick| at.min(unstick))))
    }

    /// Makes the earliest timer fire, due or not. False if none is armed.
    ///
    /// This is how a probe leaves after an outage: see [`super::Failover`]. quinn tells only the earliest of its
    /// timers; of the others that may be armed beside the loss timer (pacing, delayed acknowledgement, old keys) each
    /// is harmless when it fires early.
    pub(super) fn fire_timer(&mut self, now: StdInstant) -> bool {
        let Some(due) = self.quic.poll_timeout() else { return false };
        self.handle_timeout(due.max(now));
        true
    }

    /// Allows the peer more streams when most that it may have are open.
    pub(super) fn make_room(&mut self) {
        let (open, may) = (self.quic.streams().remote_open_streams(Dir::Bi), self.quic.max_concurrent_streams(Dir::Bi));
        if open * 4 >= may * 3 && may < u64::from(STREAMS_MAX) {
            let count = (may * 2).min(u64::from(STREAMS_MAX));
            self.quic.set_max_concurrent_streams(Dir::Bi, VarInt::try_from(count).unwrap_or(VarInt::MAX));
        }
    }

    /// What the packets of this connection end in.
    pub(super) fn mark(&self) -> Mark {
        self.epoch.mark()
    }

    /// How many frames that QUIC wants acknowledged were sent.
    pub(super) fn asked(&self) -> u64 {
        let f = self.quic.stats().frame_tx;
        [
            f.crypto,
            f.data_blocked,
            f.max_data,
            f.max_stream_data,
            f.max_streams_bidi,
            f.ping,
            f.reset_stream,
            f.stop_sending,
            f.stream,
            f.stream_data_blocked,
            f.streams_blocked_bidi,
        ]
        .iter()
        .sum()
    }

    /// Whether both ends know that the other has its keys (RFC 9001 §4.1.2).
    fn is_confirmed(&self) -> bool {
        match self.quic.side() {
            Side::Client => self.quic.stats().frame_rx.handshake_done > 0,
            Side::Server => !self.quic.is_handshaking(),
        }
    }

    /// Carries messages between quinn's two halves, and lets data flow once the handshake is over.
    fn settle(&mut self) {
        if self.unstick.is_some() && self.is_confirmed() {
            self.unstick = None;
            self.quic.set_send_window(SEND_WINDOW);
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if event.is_drained() {
                // The connection is past its end; the endpoint goes with it.
                continue;
            }
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
    }

    /// Says goodbye, so that the peer need not find out.
    pub(super) fn close(&mut self, now: StdInstant) {
        self.quic.close(now, VarInt::from_u32(0), Bytes::new());
        self.unstick = None;
        self.settle();
    }
}

fn endpoint(seed: &[u8; 32], epoch: Epoch, server: Option<Arc<ServerConfig>>) -> Endpoint {
    let derive = |label: &str| {
        let mut hasher = blake3::Hasher::new_derive_key(label);
        hasher.update(seed).update(&epoch.0.to_be_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut config = EndpointConfig::new(Arc::new(ResetKey(derive("handfast v1 stream reset"))));
    config
        .supported_versions(vec![VERSION])
        .rng_seed(Some(derive("handfast v1 stream random")))
        // The fixed bit tells QUIC packets from our own.
        .grease_quic_bit(false)
        .cid_generator(|| Box::new(NoCid));
    if config.max_udp_payload_size(PACKET_LEN_MAX).is_err() {
        debug_assert!(false, "PACKET_LEN_MAX is over 1200");
    }
    Endpoint::new(Arc::new(config), server, true, None)
}

fn transport() -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(PACKET_LEN_MAX);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS_EARLY.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        // The link decides when a peer is gone, and keeps the path alive.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        .stream_receive_window(STREAM_RECEIVE_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(EARLY_WINDOW)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(PACKET_LEN_MIN)
        .min_mtu(PACKET_LEN_MIN)
        .mtu_discovery_config(Some(mtu))
        .crypto_buffer_size(1024)
        .allow_spin(false)
        // Never BBR: it draws from a global generator.
        .congestion_controller_factory(Arc::new(cubic));
    Arc::new(config)
}

const _: () = assert!(PACKET_LEN_MAX >= PACKET_LEN_MIN);
