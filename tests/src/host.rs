//! A host: addresses, sockets, one node (or none: it is down, or a bystander), one application, and accounts.

use core::net::{IpAddr, SocketAddr};
use core::ops::{AddAssign, Sub};
use std::collections::BTreeMap;

use handfast_core::{Config, Event, Instant, Network, Node, PeerId, Save, Saved, SecretKey, SocketId, WallTime};

use crate::app::App;
use crate::ledger::Ledger;
use crate::random::Dice;
use crate::wire::{Datagram, LanId, ip_overhead};

/// Wall time at [`Instant::ZERO`]: a day in 2026.
const WALL_START_US: u64 = 1_780_000_000_000_000;

/// One of the world's hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostId(pub usize);

/// Packets and bytes at IP level: payload, UDP header and IP header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Packets received.
    pub packets_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl Traffic {
    /// Packets both ways.
    pub const fn packets(&self) -> u64 {
        self.packets_in + self.packets_out
    }

    /// Bytes both ways.
    pub const fn bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }

    /// Counts one packet.
    pub const fn add(&mut self, outbound: bool, ip_len: usize) {
        if outbound {
            self.packets_out += 1;
            self.bytes_out += ip_len as u64;
        } else {
            self.packets_in += 1;
            self.bytes_in += ip_len as u64;
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.packets_in += more.packets_in;
        self.bytes_in += more.bytes_in;
        self.packets_out += more.packets_out;
        self.bytes_out += more.bytes_out;
    }
}

impl Sub for Traffic {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            packets_in: self.packets_in - earlier.packets_in,
            bytes_in: self.bytes_in - earlier.bytes_in,
            packets_out: self.packets_out - earlier.packets_out,
            bytes_out: self.bytes_out - earlier.bytes_out,
        }
    }
}

/// A packet as a host's network card saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Whether the host sent it.
    pub outbound: bool,
    /// The host's own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

impl Seen {
    /// The kind byte.
    pub fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    /// Bytes at IP level.
    pub fn ip_len(&self) -> usize {
        self.bytes.len() + ip_overhead(self.remote)
    }
}

/// Where a host is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The LAN.
    pub lan: LanId,
    /// The host's address there.
    pub ip: IpAddr,
}

/// One host.
pub struct Host {
    /// Which.
    pub id: HostId,
    /// Its node's identity.
    pub key: SecretKey,
    /// The public half.
    pub peer: PeerId,
    /// How its node is set up at each start.
    pub config: Config,
    /// The node, while it runs. Boxed, since each call takes it out and puts it back.
    pub node: Option<Box<Node>>,
    /// What the node asked to keep.
    pub saved: Saved,
    /// How often the node has been started.
    pub incarnation: u64,
    /// Supernodes that the node is told at each start.
    pub known: Vec<(PeerId, SocketAddr)>,
    /// Where the host is attached.
    pub attachments: Vec<Attachment>,
    /// The port of the main socket.
    pub port: u16,
    /// Open sockets and the addresses they are bound to.
    pub sockets: BTreeMap<SocketId, SocketAddr>,
    /// How many sockets the node has had opened.
    pub(crate) sockets_made: u32,
    /// Addresses that the node is told in place of the real ones: a liar's, or those of a host with many cards.
    pub pretended: Option<Vec<IpAddr>>,
    /// Goes up when the host slept: see `Network::epoch`.
    pub epoch: u32,
    /// The application.
    pub app: App,
    /// Events since the world began, but for `Readable` and `Writable`.
    pub events: Vec<(Instant, Event)>,
    /// All packets since the world began.
    pub traffic: Traffic,
    /// The same by kind and by who is at the other end, where that is being counted.
    pub ledger: Option<Box<Ledger>>,
    /// Packets, while they are being captured.
    pub capture: Option<Vec<Seen>>,
    /// When it sent a packet to anybody but a supernode, while that is being counted.
    pub probes: Option<Vec<Instant>>,
    /// Microseconds that the wall clock is off.
    pub wall_skew: i64,
    /// Whether outputs are drained after each call; when not, a test does it.
    pub draining: bool,
    /// How many events there were when the node was last started.
    pub(crate) events_before: usize,
    /// For what io decides by chance.
    pub(crate) dice: Dice,
    /// When its node is to be called next, and what the world's list says of it.
    pub(crate) due: Option<Instant>,
    pub(crate) listed: Option<Instant>,
    pub(crate) last_now: Instant,
    pub(crate) wall_due: Option<Instant>,
}

impl Host {
    pub(crate) fn new(id: HostId, key: SecretKey, config: Config, port: u16, app: App, dice: Dice) -> Self {
        Self {
            id,
            peer: key.peer_id(),
            key,
            config,
            node: None,
            saved: Saved::default(),
            incarnation: 0,
            known: Vec::new(),
            attachments: Vec::new(),
            port,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            pretended: None,
            epoch: 0,
            app,
            events: Vec::new(),
            traffic: Traffic::default(),
            ledger: None,
            capture: None,
            probes: None,
            wall_skew: 0,
            draining: true,
            events_before: 0,
            dice,
            due: None,
            listed: None,
            last_now: Instant::ZERO,
            wall_due: None,
        }
    }

    /// The wall clock.
    pub(crate) fn wall(&self, now: Instant) -> WallTime {
        WallTime::from_micros((WALL_START_US + now.as_micros()).saturating_add_signed(self.wall_skew))
    }

    /// What io would tell the node about this host.
    pub fn network(&self) -> Network {
        let mut interfaces: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1])];
        match &self.pretended {
            Some(ips) => interfaces.extend(ips),
            None => interfaces.extend(self.attachments.iter().map(|a| a.ip)),
        }
        // The main ones: those that the node had opened are its own business.
        let sockets = self.sockets.iter().filter(|(id, _)| id.0 < 2).map(|(id, addr)| (*id, *addr)).collect();
        Network { sockets, interfaces, epoch: self.epoch, ..Network::default() }
    }

    /// How many sockets the node has had opened in all its runs.
    pub fn sockets_opened(&self) -> u32 {
        self.sockets_made
    }

    /// Binds the main sockets, as io does at start: one per address family that the host has.
    pub(crate) fn bind(&mut self) {
        self.sockets.clear();
        let v6 = self.attachments.iter().any(|a| a.ip.is_ipv6());
        self.sockets.insert(SocketId(0), SocketAddr::from(([0, 0, 0, 0], self.port)));
        if v6 {
            self.sockets.insert(SocketId(1), SocketAddr::from(([0u16; 8], self.port)));
        }
    }

    /// Whether an address is this host's own.
    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        self.attachments.iter().any(|a| a.ip == ip)
    }

    /// The socket that a datagram for `dst` arrives on.
    pub(crate) fn socket_of(&self, dst: SocketAddr) -> Option<SocketId> {
        let fits = |bound: &SocketAddr| bound.port() == dst.port() && bound.is_ipv4() == dst.is_ipv4();
        self.sockets.iter().find(|(_, bound)| fits(bound)).map(|(id, _)| *id)
    }

    /// From which attachment a datagram to `remote` leaves, as the routing table decides.
    pub(crate) fn route(
        &self,
        remote: SocketAddr,
        wanted: Option<IpAddr>,
        on_link: impl Fn(LanId) -> bool,
    ) -> Option<Attachment> {
        let family = |a: &&Attachment| a.ip.is_ipv4() == remote.is_ipv4();
        let mine = || self.attachments.iter().filter(family);
        let pick = mine().find(|a| Some(a.ip) == wanted).or_else(|| mine().find(|a| on_link(a.lan)));
        pick.or_else(|| mine().next()).copied()
    }

    /// Counts, and captures, one packet.
    pub(crate) fn account(&mut self, now: Instant, outbound: bool, datagram: &Datagram) {
        self.traffic.add(outbound, datagram.ip_len());
        if let Some(capture) = &mut self.capture {
            let (src, dst) = (datagram.src, datagram.dst);
            let (local, remote) = if outbound { (src, dst) } else { (dst, src) };
            capture.push(Seen { at: now, outbound, local, remote, bytes: datagram.bytes.clone() });
        }
    }

    /// Keeps what the node asks to keep, as io's state file does.
    pub(crate) fn save(&mut self, item: Save) {
        self.saved.keep(item);
    }
}
