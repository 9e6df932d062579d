//! UDP sockets: received in batches with GRO, sent as trains with GSO, never fatal.
//!
//! [`Sockets`] holds the sockets by [`SocketId`]; [`Inbox`] the buffers that a batch is received into, shared by all
//! sockets. A received buffer holds a train: datagrams of one size from one source, which stays one unit through the
//! core and out again. What the kernel cannot take at once is the caller's to keep ([`Sent::Blocked`]) or to drop; any
//! other error costs the datagrams it hit, is counted, and ends nothing.
//!
//! mio reports edges: a socket's `readable` flag stays set until the kernel said that nothing is left. Interest in
//! writing is asked for only while something is blocked, because the kernel reports room for UDP after nearly every
//! datagram that leaves, and each report would cost a turn of the loop.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use handfast_core::wire::address::canonical;
use handfast_core::{Ecn, Family, Path, SocketId};
use mio::{Interest, Registry, Token};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::socks;
use crate::tcp::Tcp;

/// Longest UDP payload over IPv4: 65 535 − 20 (IPv4) − 8 (UDP). The kernel takes no longer train.
pub(crate) const TRAIN_LEN_MAX: usize = 65_507;
/// Linux `UDP_MAX_SEGMENTS` and `UDP_GRO_CNT_MAX`: most datagrams in one train.
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Trains received in one system call.
const BATCH: usize = quinn_udp::BATCH_SIZE;
/// Room for the longest train: nothing is ever cut, so nothing cut is ever taken for whole.
const TRAIN_ROOM: usize = 64 * 1024;
/// `SO_RCVBUF` asked for; the kernel gives what `rmem_max` allows. It is the only queue a relay has.
const RECEIVE_BUFFER: usize = 4 << 20;
/// `SO_SNDBUF` asked for: a few trains per socket; more would only hide congestion.
const SEND_BUFFER: usize = 1 << 20;
/// Ports tried, where any would do, until one is free for UDP and TCP.
const PORT_TRIES: u32 = 16;
/// Most sockets that the core may have opened beside the main ones: a birthday punch uses 256.
const EXTRA_SOCKETS_MAX: usize = 512;

/// What was lost at the sockets, not in the core.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lost {
    /// Datagrams or trains that the kernel refused for good.
    pub(crate) send_errors: u64,
    /// Trains to forward that found the socket full.
    pub(crate) forward_full: u64,
    /// Failed receives.
    pub(crate) receive_errors: u64,
}

/// How far a send came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// Everything left, or was refused for good and counted.
    Done,
    /// The socket is full; bytes from here on are unsent.
    Blocked {
        /// Offset of the first unsent byte.
        from: usize,
    },
}

/// Buffers for one batch of received trains.
pub(crate) struct Inbox {
    storage: Box<[u8]>,
    proxy: Option<SocketAddr>,
    meta: [RecvMeta; BATCH],
}

/// One received train.
pub(crate) struct Arrival<'a> {
    /// Where from, on which socket, and the local address it was sent to.
    pub(crate) path: Path,
    /// Size of each datagram but the last.
    pub(crate) stride: usize,
    /// The datagrams.
    pub(crate) data: &'a mut [u8],
}

impl Inbox {
    /// Empty buffers. Their pages become resident as they are used.
    pub(crate) fn new(proxy: Option<SocketAddr>) -> Self {
        Self { storage: vec![0; BATCH * TRAIN_ROOM].into_boxed_slice(), proxy, meta: [RecvMeta::default(); BATCH] }
    }

    /// The first `count` trains, as received from `socket`.
    pub(crate) fn arrivals(&mut self, socket: SocketId, count: usize) -> impl Iterator<Item = Arrival<'_>> {
        let proxy = self.proxy;
        self.storage.chunks_exact_mut(TRAIN_ROOM).zip(&self.meta).take(count).flat_map(move |(buffer, meta)| {
            let remote = canonical(meta.addr);
            let local = meta.dst_ip.map(|ip| ip.to_canonical()).filter(is_answerable);
            let stride = if meta.stride == 0 { meta.len } else { meta.stride };
            let data = &mut buffer[..meta.len.min(TRAIN_ROOM)];
            // Behind a proxy each datagram has a header of its own, so a train is taken apart.
            let size = if proxy.is_some() { stride } else { data.len() };
            data.chunks_mut(size.max(1)).filter_map(move |data| match proxy {
                None => Some(Arrival { path: Path { socket, remote, local }, stride, data }),
                Some(proxy) => through_proxy(proxy, socket, remote, data),
            })
        })
    }
}

/// A datagram that came through the proxy, without its header; none if it came from elsewhere.
fn through_proxy(proxy: SocketAddr, socket: SocketId, from: SocketAddr, data: &mut [u8]) -> Option<Arrival<'_>> {
    if from != proxy {
        return None;
    }
    let (far, payload) = socks::decode(data)?;
    let header = data.len() - payload.len();
    let data = data.get_mut(header..)?;
    Some(Arrival { path: Path { socket, remote: canonical(far), local: None }, stride: data.len(), data })
}

/// Whether an answer may be sent from the address that a datagram came to.
fn is_answerable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    }
}

/// One bound socket.
struct Udp {
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    /// Segments that the kernel took when the socket was made; quinn-udp lowers its own number for good after an error.
    segments_at_start: usize,
    /// The kernel may have something for us.
    readable: bool,
    /// The last send found no room.
    full: bool,
}

impl Udp {
    fn bind(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own, so that no address ever comes in two forms.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Smaller buffers than asked for are no reason not to run.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), RECEIVE_BUFFER);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SEND_BUFFER);
        let socket = mio::net::UdpSocket::from_std(socket.into());
        let bound = socket.local_addr()?;
        let segments_at_start = state.max_gso_segments();
        Ok((Self { socket, state, segments_at_start, readable: true, full: false }, bound))
    }

    fn segments_max(&self) -> usize {
        self.state.max_gso_segments().clamp(1, SEGMENTS_MAX)
    }

    fn try_send(&self, path: &Path, contents: &[u8], segment: usize, ecn: Option<Ecn>) -> io::Result<()> {
        let mut transmit = quinn_udp::Transmit {
            destination: path.remote,
            ecn: ecn.map(codepoint),
            contents,
            segment_size: (contents.len() > segment).then_some(segment),
            src_ip: path.local,
        };
        let send = |transmit: &quinn_udp::Transmit<'_>| {
            self.socket.try_io(|| self.state.try_send(UdpSockRef::from(&self.socket), transmit))
        };
        match send(&transmit) {
            // The local address to answer from may be gone (another Wi-Fi): the kernel then picks one.
            Err(error) if transmit.src_ip.is_some() && is_about_source(error.kind()) => {
                transmit.src_ip = None;
                send(&transmit)
            }
            result => result,
        }
    }

    /// Sends datagrams of `segment` bytes each, in as few trains as the socket takes.
    fn send(&self, path: &Path, bytes: &[u8], segment: usize, ecn: Option<Ecn>, lost: &mut Lost) -> Sent {
        let mut from = 0;
        while from < bytes.len() {
            let segments = self.segments_max().min(TRAIN_LEN_MAX / segment).max(1);
            let end = bytes.len().min(from + segments * segment);
            match self.try_send(path, &bytes[from..end], segment, ecn) {
                Ok(()) => from = end,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked { from },
                // Segmentation just turned out to be impossible here: the same bytes again, one by one.
                Err(_) if segments > 1 && end - from > segment && self.segments_max() == 1 => {}
                Err(error) => {
                    tracing::debug!(to = %path.remote, %error, "send failed");
                    lost.send_errors += 1;
                    from = end;
                }
            }
        }
        Sent::Done
    }

    /// Sends datagrams one by one through a UDP relay, each behind the header that names its destination.
    fn send_through(&self, proxy: SocketAddr, path: &Path, bytes: &[u8], segment: usize, lost: &mut Lost) -> Sent {
        let mut header = [0; socks::HEADER_LEN_MAX];
        let header_len = socks::encode(path.remote, &mut header);
        let to_proxy = Path { socket: path.socket, remote: proxy, local: None };
        for (n, datagram) in bytes.chunks(segment).enumerate() {
            let wrapped = [&header[..header_len], datagram].concat();
            if self.send(&to_proxy, &wrapped, wrapped.len(), None, lost) != Sent::Done {
                return Sent::Blocked { from: n * segment };
            }
        }
        Sent::Done
    }

    /// quinn-udp gives up segmentation for good after `EINVAL`, which an odd local address causes as well as a network
    /// card that cannot segment. A fresh state finds out which it was.
    fn restore_segmentation(&mut self) {
        if self.state.max_gso_segments() < self.segments_at_start
            && let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.socket))
        {
            self.state = state;
        }
    }
}

/// What the kernel says of a source address that is not its own (Linux: `ENETUNREACH`, of some kinds `EINVAL`).
fn is_about_source(error: io::ErrorKind) -> bool {
    use io::ErrorKind::{AddrNotAvailable, InvalidInput, NetworkUnreachable};
    matches!(error, AddrNotAvailable | InvalidInput | NetworkUnreachable)
}

fn codepoint(ecn: Ecn) -> EcnCodepoint {
    match ecn {
        Ecn::Ect0 => EcnCodepoint::Ect0,
        Ecn::Ect1 => EcnCodepoint::Ect1,
        Ecn::Ce => EcnCodepoint::Ce,
    }
}

/// All UDP sockets.
pub(crate) struct Sockets {
    registry: Registry,
    token: fn(SocketId) -> Token,
    by_id: BTreeMap<SocketId, Udp>,
    /// Those bound at start, the main one first.
    main: Vec<(SocketId, SocketAddr)>,
    next: u32,
    /// A UDP relay that everything goes through, if any.
    proxy: Option<SocketAddr>,
    /// What was lost here.
    pub(crate) lost: Lost,
    /// What goes over TCP instead.
    pub(crate) tcp: Tcp,
    /// Whether TCP connections are taken too, at the ports of the sockets to live with.
    pub(crate) takes_tcp: bool,
}

impl Sockets {
    /// No sockets yet; `token` gives each the token it is registered under.
    pub(crate) fn new(
        registry: Registry,
        tcp_registry: Registry,
        token: fn(SocketId) -> Token,
        proxy: Option<SocketAddr>,
    ) -> Self {
        let tcp = Tcp::new(tcp_registry);
        let (by_id, main, lost) = (BTreeMap::new(), Vec::new(), Lost::default());
        Self { registry, token, by_id, main, next: 0, proxy, lost, tcp, takes_tcp: false }
    }

    /// Binds the sockets to live with. Without addresses: any port of IPv4, and of IPv6 where the host has it.
    pub(crate) fn bind_main(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        if addresses.is_empty() {
            let v4 = self.bind_one(any_v4);
            let v6 = self.bind_one(any_v6);
            return if self.main.is_empty() { v4.or(v6) } else { Ok(()) };
        }
        addresses.iter().try_for_each(|&address| self.bind_one(address))
    }

    fn bind_one(&mut self, address: SocketAddr) -> io::Result<()> {
        for tries in 0.. {
            let (id, bound) = self
                .open(address)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on UDP {address}: {error}")))?;
            if self.takes_tcp
                && let Err(error) = self.tcp.listen(bound)
            {
                if address.port() == 0 && tries < PORT_TRIES {
                    // Any port would do, and this one is somebody's for TCP.
                    self.close(id);
                    continue;
                }
                tracing::warn!("no links over TCP at {bound}: {error}");
            }
            self.main.push((id, bound));
            break;
        }
        Ok(())
    }

    fn open(&mut self, address: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        let (mut udp, bound) = Udp::bind(address)?;
        let id = SocketId(self.next);
        self.registry.register(&mut udp.socket, (self.token)(id), Interest::READABLE)?;
        self.next += 1;
        self.by_id.insert(id, udp);
        Ok((id, bound))
    }

    /// Opens one more socket, on the interface of the family's main one, at a port of the system's choice.
    pub(crate) fn open_extra(&mut self, family: Family) -> io::Result<(SocketId, SocketAddr)> {
        if self.by_id.len() >= self.main.len() + EXTRA_SOCKETS_MAX {
            return Err(io::Error::other("too many UDP sockets"));
        }
        let main = self.main.iter().find(|(_, address)| Family::of(address) == family);
        let (_, address) = main.ok_or_else(|| io::Error::other("no main socket of this family"))?;
        self.open(SocketAddr::new(address.ip(), 0))
    }

    /// Closes a socket that [`Sockets::open_extra`] opened, or a connection.
    pub(crate) fn close(&mut self, id: SocketId) {
        if id.is_tcp() {
            self.tcp.close(id);
            return;
        }
        if self.main.iter().any(|(main, _)| *main == id) {
            return;
        }
        if let Some(mut udp) = self.by_id.remove(&id) {
            // Closing deregisters anyway.
            let _ = self.registry.deregister(&mut udp.socket);
        }
    }

    /// The sockets bound at start, the main one first.
    pub(crate) fn main(&self) -> &[(SocketId, SocketAddr)] {
        &self.main
    }

    /// Longest train, in datagrams, worth asking the core for.
    pub(crate) fn segments_max(&self) -> usize {
        self.main.first().and_then(|(id, _)| self.by_id.get(id)).map_or(1, Udp::segments_max)
    }

    /// Something may have arrived.
    pub(crate) fn set_readable(&mut self, id: SocketId) {
        if let Some(udp) = self.by_id.get_mut(&id) {
            udp.readable = true;
        }
    }

    /// There may be room again.
    pub(crate) fn set_writable(&mut self, id: SocketId) {
        if let Some(udp) = self.by_id.get_mut(&id)
            && udp.full
        {
            udp.full = false;
            let _ = self.registry.reregister(&mut udp.socket, (self.token)(id), Interest::READABLE);
        }
    }

    /// Whether the last send found no room, and none was reported since. A socket that is gone is not full.
    pub(crate) fn is_full(&self, id: SocketId) -> bool {
        self.by_id.get(&id).is_some_and(|udp| udp.full)
    }

    /// Whether any socket may have something for us.
    pub(crate) fn any_readable(&self) -> bool {
        self.by_id.values().any(|udp| udp.readable)
    }

    /// The next socket after `last` that may have something for us.
    pub(crate) fn next_readable(&self, last: Option<SocketId>) -> Option<SocketId> {
        let after = last.map_or(0, |id| id.0 + 1);
        self.by_id.range(SocketId(after)..).find(|(_, udp)| udp.readable).map(|(id, _)| *id)
    }

    /// Receives one batch from one socket. Returns how many trains `inbox` then holds.
    pub(crate) fn receive(&mut self, id: SocketId, inbox: &mut Inbox) -> usize {
        let Some(udp) = self.by_id.get_mut(&id) else { return 0 };
        let mut rooms = inbox.storage.chunks_exact_mut(TRAIN_ROOM);
        let mut buffers: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
        let received =
            udp.socket.try_io(|| udp.state.recv(UdpSockRef::from(&udp.socket), &mut buffers, &mut inbox.meta));
        match received {
            Ok(count) => {
                // recvmmsg(2) stops short of a full batch only when nothing is left, and what comes later is a new edge:
                // asking again would cost two system calls for each lone datagram.
                udp.readable = count == BATCH || !cfg!(any(target_os = "linux", target_os = "android"));
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                udp.readable = false;
                0
            }
            // An ICMP message about something sent earlier, which says nothing about receiving.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) => {
                0
            }
            Err(error) => {
                // Housekeeping tries again: an error that stays must not spin the loop.
                tracing::debug!(%error, "receive failed");
                udp.readable = false;
                self.lost.receive_errors += 1;
                0
            }
        }
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter). To a socket that is gone: nothing.
    pub(crate) fn send(&mut self, path: &Path, bytes: &[u8], segment: usize, ecn: Option<Ecn>) -> Sent {
        if path.socket.is_tcp() {
            self.tcp.send(path.socket, bytes, segment);
            return Sent::Done;
        }
        let Some(udp) = self.by_id.get_mut(&path.socket) else { return Sent::Done };
        let sent = match self.proxy {
            None => udp.send(path, bytes, segment.max(1), ecn, &mut self.lost),
            Some(proxy) => udp.send_through(proxy, path, bytes, segment.max(1), &mut self.lost),
        };
        if sent != Sent::Done && !self.await_room(path.socket) {
            // Nothing would ever wake us: better to lose a datagram.
            self.lost.send_errors += 1;
            return Sent::Done;
        }
        sent
    }

    /// Has mio report when there is room again; false if it cannot.
    fn await_room(&mut self, id: SocketId) -> bool {
        let Some(udp) = self.by_id.get_mut(&id) else { return false };
        let interest = Interest::READABLE | Interest::WRITABLE;
        udp.full = udp.full || self.registry.reregister(&mut udp.socket, (self.token)(id), interest).is_ok();
        udp.full
    }

    /// Sends what a relay forwards: what finds no room is dropped, never kept.
    pub(crate) fn forward(&mut self, path: &Path, bytes: &[u8], stride: usize) {
        if self.is_full(path.socket) || self.send(path, bytes, stride, None) != Sent::Done {
            self.lost.forward_full += 1;
        }
    }

    /// Cures what edges and errors may have left behind: every socket is looked at again, and segmentation tried again.
    pub(crate) fn refresh(&mut self) {
        for udp in self.by_id.values_mut() {
            udp.readable = true;
            udp.restore_segmentation();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    fn token(id: SocketId) -> Token {
        Token(id.0 as usize)
    }

    fn sockets(listen: &[&str]) -> (Sockets, Poll) {
        let poll = Poll::new().expect("poll");
        let registry = || poll.registry().try_clone().expect("registry");
        let mut sockets = Sockets::new(registry(), registry(), token, None);
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().expect("address")).collect();
        sockets.bind_main(&listen).expect("bound");
        (sockets, poll)
    }

    /// Receives until `count` datagrams came: their bytes, and the paths they came by.
    fn receive(sockets: &mut Sockets, poll: &mut Poll, count: usize) -> (Vec<Vec<u8>>, Vec<Path>) {
        let mut inbox = Inbox::new(None);
        let mut events = Events::with_capacity(8);
        let (mut datagrams, mut paths) = (Vec::new(), Vec::new());
        while datagrams.len() < count {
            while let Some(id) = sockets.next_readable(None) {
                let got = sockets.receive(id, &mut inbox);
                for arrival in inbox.arrivals(id, got) {
                    datagrams.extend(arrival.data.chunks(arrival.stride.max(1)).map(<[u8]>::to_vec));
                    paths.push(arrival.path);
                }
            }
            if datagrams.len() < count {
                poll.poll(&mut events, Some(Duration::from_secs(10))).expect("polled");
                assert!(!events.is_empty(), "only {} of {count} datagrams came", datagrams.len());
                events.iter().for_each(|event| sockets.set_readable(SocketId(event.token().0 as u32)));
            }
        }
        (datagrams, paths)
    }

    fn datagrams(lengths: &[usize]) -> Vec<Vec<u8>> {
        lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect()
    }

    #[test]
    fn a_train_arrives_as_the_datagrams_that_were_sent() {
        let (mut here, _poll) = sockets(&["127.0.0.1:0"]);
        let (mut there, mut poll) = sockets(&["127.0.0.1:0"]);
        let path = Path { socket: here.main()[0].0, remote: there.main()[0].1, local: None };
        let sent = datagrams(&[1232; 30].iter().copied().chain([70]).collect::<Vec<_>>());
        assert_eq!(here.send(&path, &sent.concat(), 1232, None), Sent::Done);
        let (received, paths) = receive(&mut there, &mut poll, sent.len());
        assert_eq!(received, sent);
        assert_eq!(paths[0].remote, here.main()[0].1);
        assert_eq!(paths[0].local, Some(there.main()[0].1.ip()), "the address to answer from");
    }

    #[test]
    fn a_train_longer_than_the_kernel_takes_is_split() {
        let (mut here, _poll) = sockets(&["127.0.0.1:0"]);
        let (mut there, mut poll) = sockets(&["127.0.0.1:0"]);
        let path = Path { socket: here.main()[0].0, remote: there.main()[0].1, local: None };
        let sent = datagrams(&[20; 150]);
        assert_eq!(here.send(&path, &sent.concat(), 20, None), Sent::Done);
        assert_eq!(receive(&mut there, &mut poll, 150).0, sent);
        assert_eq!(here.lost.send_errors, 0);
    }

    #[test]
    fn without_segmentation_a_train_leaves_one_by_one() {
        let (mut here, _poll) = sockets(&["127.0.0.1:0"]);
        let (mut there, mut poll) = sockets(&["127.0.0.1:0"]);
        let path = Path { socket: here.main()[0].0, remote: there.main()[0].1, local: None };
        let before = here.segments_max();
        let from = |local: &str| Path { local: Some(local.parse().expect("address")), ..path };
        assert_eq!(here.send(&from("203.0.113.9"), b"from an address that is gone", 64, None), Sent::Done);
        // No source at all: quinn-udp gives segmentation up, as for a card that cannot.
        assert_eq!(here.send(&from("224.0.0.9"), b"from a group", 64, None), Sent::Done);
        assert!(cfg!(not(target_os = "linux")) || here.segments_max() == 1);
        let sent = datagrams(&[500, 500, 500, 9]);
        assert_eq!(here.send(&path, &sent.concat(), 500, None), Sent::Done);
        let (received, _) = receive(&mut there, &mut poll, 6);
        assert_eq!(received[0], b"from an address that is gone", "sent from another one");
        assert_eq!(received[1], b"from a group", "likewise");
        assert_eq!(received[2..], sent);
        here.refresh();
        assert_eq!(here.segments_max(), before, "housekeeping finds that segmentation works");
    }

    #[test]
    fn room_in_a_full_socket_is_reported_once() {
        let (mut here, mut poll) = sockets(&["127.0.0.1:0"]);
        let id = here.main()[0].0;
        assert!(here.await_room(id));
        assert!(here.is_full(id));
        let path = Path { socket: id, remote: here.main()[0].1, local: None };
        here.forward(&path, b"no room", 7);
        assert_eq!(here.lost.forward_full, 1, "what is forwarded does not wait");
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("polled");
        assert!(events.iter().any(mio::event::Event::is_writable));
        here.set_writable(id);
        assert!(!here.is_full(id));
        assert_eq!(here.send(&path, b"room", 4, None), Sent::Done);
        assert_eq!(receive(&mut here, &mut poll, 1).0, [b"room"]);
        poll.poll(&mut events, Some(Duration::ZERO)).expect("polled");
        assert!(!events.iter().any(mio::event::Event::is_writable), "nobody asked");
    }

    #[test]
    fn a_socket_that_refuses_costs_the_datagram_and_nothing_else() {
        let (mut here, _poll) = sockets(&["127.0.0.1:0"]);
        let unreachable = Path { socket: here.main()[0].0, remote: "[::1]:9".parse().expect("address"), local: None };
        assert_eq!(here.send(&unreachable, b"wrong family", 12, None), Sent::Done);
        assert_eq!(here.lost.send_errors, 1);
        let gone = Path { socket: SocketId(77), ..unreachable };
        assert_eq!(here.send(&gone, b"no such socket", 14, None), Sent::Done);
    }

    #[test]
    fn extra_sockets_come_and_go_and_the_main_one_stays() {
        let (mut here, _poll) = sockets(&["127.0.0.1:0"]);
        let (extra, address) = here.open_extra(Family::V4).expect("opened");
        assert!(address.ip().is_loopback(), "on the interface of the main one");
        here.close(extra);
        assert!(!here.by_id.contains_key(&extra));
        let main = here.main()[0].0;
        here.close(main);
        assert!(here.by_id.contains_key(&main));
        let (next, _) = here.open_extra(Family::V4).expect("opened");
        assert_ne!(next, extra, "a number is never used twice");
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let (here, _poll) = sockets(&["127.0.0.1:0"]);
        let taken = here.main()[0].1;
        let registry = || here.registry.try_clone().expect("registry");
        let mut other = Sockets::new(registry(), registry(), token, None);
        let error = other.bind_main(&[taken]).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[test]
    fn without_addresses_both_families_are_bound_where_the_host_has_them() {
        let (here, _poll) = sockets(&[]);
        assert!(here.main()[0].1.is_ipv4());
        assert!(here.main().len() <= 2);
        assert!(here.main().iter().all(|(_, address)| address.port() != 0));
    }
}
