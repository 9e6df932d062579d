//! A home router in user space: real UDP sockets on the loopback network, so that no root is needed.
//!
//! In the terms of RFC 4787: endpoint-independent mapping (one external socket per internal endpoint), address and
//! port-dependent filtering (what comes in passes only from an address and port that was sent to), a mapping lifetime
//! that outbound packets refresh. That is what most routers at homes do, and what two leaves behind two of them have
//! to punch through from both sides at once.
//!
//! A leaf is put behind its router as behind a SOCKS5 UDP relay: it sends everything to the router's internal address
//! with the far address in front ([`socks`]), and the router sends it on from its own external socket. Only the
//! public network is routed; a leaf's own address leads nowhere from outside, as an RFC 1918 address would.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::socks;

/// RFC 4787 REQ-5 asks for two minutes; many routers give less, and so does this one.
const MAPPING_LIFETIME: Duration = Duration::from_secs(30);
/// Most mappings at a time.
const MAPPINGS_MAX: usize = 64;
/// Most remotes that a mapping lets in at a time.
const PERMITTED_MAX: usize = 1024;
/// How often a thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A router has room for a burst; the kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;
/// Longer than any datagram.
const BUFFER_LEN: usize = 65_536;

/// A running router; it stops when dropped.
pub(super) struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    inside: UdpSocket,
    external: Ipv4Addr,
    routed: fn(IpAddr) -> bool,
    mappings: Mutex<BTreeMap<SocketAddr, Arc<Mapping>>>,
    /// Booting: nothing passes.
    down: AtomicBool,
    stopped: AtomicBool,
    filtered: AtomicU64,
}

/// What one internal endpoint looks like from outside.
struct Mapping {
    internal: SocketAddr,
    outside: UdpSocket,
    /// When each remote was last sent to.
    permitted: Mutex<BTreeMap<SocketAddr, Instant>>,
    /// Expired, or lost in a reboot.
    closed: AtomicBool,
}

impl Router {
    /// A router between a home network, on which it is `internal`, and a public network, on which it is `external`.
    /// `routed` says which addresses are on the public network.
    pub(super) fn start(internal: Ipv4Addr, external: Ipv4Addr, routed: fn(IpAddr) -> bool) -> io::Result<Self> {
        let inside = bind(internal)?;
        let shared = Arc::new(Shared {
            inside,
            external,
            routed,
            mappings: Mutex::default(),
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            filtered: AtomicU64::new(0),
        });
        let router = Self { shared: Arc::clone(&shared) };
        thread::Builder::new().name("router".into()).spawn(move || outbound(&shared))?;
        Ok(router)
    }

    /// Where a leaf sends its datagrams.
    pub(super) fn internal_address(&self) -> io::Result<SocketAddr> {
        self.shared.inside.local_addr()
    }

    /// The external addresses in use, one for each mapping.
    pub(super) fn external_addresses(&self) -> Vec<SocketAddr> {
        self.shared.mappings().values().filter_map(|mapping| mapping.outside.local_addr().ok()).collect()
    }

    /// How many datagrams from outside did not pass.
    pub(super) fn filtered(&self) -> u64 {
        self.shared.filtered.load(Ordering::Relaxed)
    }

    /// Forgets every mapping and passes nothing for `boot`; then new ones get new ports. Returns at once.
    pub(super) fn reboot(&self, boot: Duration) -> io::Result<()> {
        self.shared.down.store(true, Ordering::Relaxed);
        for mapping in std::mem::take(&mut *self.shared.mappings()).into_values() {
            mapping.closed.store(true, Ordering::Relaxed);
        }
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("router boot".into()).spawn(move || {
            thread::sleep(boot);
            shared.down.store(false, Ordering::Relaxed);
        })?;
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn mappings(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<Mapping>>> {
        // Whole after every statement, so a panic elsewhere does not make it wrong.
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// RFC 4787 §4.1: the same mapping for every destination.
    fn mapping(self: &Arc<Self>, internal: SocketAddr) -> io::Result<Arc<Mapping>> {
        let mut mappings = self.mappings();
        if let Some(mapping) = mappings.get(&internal) {
            return Ok(Arc::clone(mapping));
        }
        if mappings.len() >= MAPPINGS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mapping = Arc::new(Mapping {
            internal,
            outside: bind(self.external)?,
            permitted: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let (shared, incoming) = (Arc::clone(self), Arc::clone(&mapping));
        thread::Builder::new().name("router mapping".into()).spawn(move || inbound(&shared, &incoming))?;
        mappings.insert(internal, Arc::clone(&mapping));
        Ok(mapping)
    }
}

impl Mapping {
    fn permitted(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Instant>> {
        self.permitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `remote` in from now on. False: no room for another one.
    fn permit(&self, remote: SocketAddr, now: Instant) -> bool {
        let mut permitted = self.permitted();
        let room = permitted.len() < PERMITTED_MAX || permitted.contains_key(&remote);
        if room {
            permitted.insert(remote, now);
        }
        room
    }

    /// RFC 4787 §5: address and port-dependent filtering.
    fn lets_in(&self, remote: SocketAddr, now: Instant) -> bool {
        self.permitted().get(&remote).is_some_and(|sent| now.duration_since(*sent) < MAPPING_LIFETIME)
    }

    /// Forgets old remotes; whether any is left.
    fn refresh(&self, now: Instant) -> bool {
        let mut permitted = self.permitted();
        permitted.retain(|_, sent| now.duration_since(*sent) < MAPPING_LIFETIME);
        !permitted.is_empty()
    }
}

/// From the home network to the public one.
fn outbound(shared: &Arc<Shared>) {
    let mut buf = vec![0; BUFFER_LEN];
    while !shared.is_stopped() {
        let Some((len, internal)) = receive(&shared.inside, &mut buf) else { continue };
        let Some((remote, payload)) = socks::decode(&buf[..len]) else { continue };
        if shared.is_down() || !(shared.routed)(remote.ip()) {
            continue;
        }
        let Ok(mapping) = shared.mapping(internal) else { continue };
        if mapping.permit(remote, Instant::now()) {
            // A full buffer drops, as a router does.
            let _ = mapping.outside.send_to(payload, remote);
        }
    }
}

/// From the public network to one internal endpoint.
fn inbound(shared: &Shared, mapping: &Arc<Mapping>) {
    // Room for the header in front of what is received.
    let mut buf = vec![0; socks::HEADER_LEN_MAX + BUFFER_LEN];
    while !shared.is_stopped() && !mapping.closed.load(Ordering::Relaxed) {
        let Some((len, remote)) = receive(&mapping.outside, &mut buf[socks::HEADER_LEN_MAX..]) else {
            // Idle. The mapping ends with the last remote that it lets in.
            if !mapping.refresh(Instant::now()) {
                expire(shared, mapping);
            }
            continue;
        };
        // Again: the reboot may have come while this thread waited.
        if mapping.closed.load(Ordering::Relaxed) || shared.is_down() {
            continue;
        }
        if !mapping.lets_in(remote, Instant::now()) {
            shared.filtered.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let mut header = [0; socks::HEADER_LEN_MAX];
        let header_len = socks::encode(remote, &mut header);
        let start = socks::HEADER_LEN_MAX - header_len;
        buf[start..socks::HEADER_LEN_MAX].copy_from_slice(&header[..header_len]);
        let _ = shared.inside.send_to(&buf[start..socks::HEADER_LEN_MAX + len], mapping.internal);
    }
}

/// Takes an idle mapping out of the table, unless it was used meanwhile.
fn expire(shared: &Shared, mapping: &Arc<Mapping>) {
    let mut mappings = shared.mappings();
    // Under the table's lock nobody can be given this mapping; who has it already makes the count larger than ours
    // and the table's.
    if Arc::strong_count(mapping) <= 2 && !mapping.refresh(Instant::now()) {
        mapping.closed.store(true, Ordering::Relaxed);
        mappings.retain(|_, known| !Arc::ptr_eq(known, mapping));
    }
}

fn bind(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    let buffers = SockRef::from(&socket);
    // As much as the kernel allows; less only means that bursts lose more.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, buf: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buf) {
        Ok(received) => Some(received),
        Err(error) => {
            // Not a time-out, then most likely an ICMP error about an earlier send; never worth spinning.
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                thread::yield_now();
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(127, 78, 9, 254);
    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(127, 77, 9, 1);

    fn public(ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [127, 77])
    }

    /// A host on either network.
    struct Host(UdpSocket);

    impl Host {
        fn new(ip: [u8; 4]) -> Self {
            let socket = UdpSocket::bind((Ipv4Addr::from(ip), 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            Self(socket)
        }
        fn address(&self) -> SocketAddr {
            self.0.local_addr().unwrap()
        }
        fn send_through(&self, router: &Router, to: SocketAddr, payload: &[u8]) {
            let mut header = [0; socks::HEADER_LEN_MAX];
            let len = socks::encode(to, &mut header);
            self.0.send_to(&[&header[..len], payload].concat(), router.internal_address().unwrap()).unwrap();
        }
        fn receive(&self) -> (Vec<u8>, SocketAddr) {
            let mut buf = [0; 100];
            let (len, from) = self.0.recv_from(&mut buf).unwrap();
            (buf[..len].to_vec(), from)
        }
        fn receive_behind(&self) -> (Vec<u8>, SocketAddr) {
            let (datagram, _) = self.receive();
            let (from, payload) = socks::decode(&datagram).unwrap();
            (payload.to_vec(), from)
        }
    }

    /// Waits for a counter of the router's threads.
    fn until(mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(10), "never happened");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_mapping_for_all_and_only_those_who_were_sent_to_get_in() {
        let router = Router::start(HOME, EXTERNAL, public).unwrap();
        let leaf = Host::new([127, 78, 9, 2]);
        let [friend, stranger] = [3, 4].map(|n| Host::new([127, 77, 9, n]));
        leaf.send_through(&router, friend.address(), b"hello");
        let (payload, seen) = friend.receive();
        assert_eq!((&payload[..], seen.ip()), (&b"hello"[..], EXTERNAL.into()));
        assert_eq!(router.external_addresses(), [seen]);

        stranger.0.send_to(b"knock", seen).unwrap();
        until(|| router.filtered() == 1);
        friend.0.send_to(b"answer", seen).unwrap();
        assert_eq!(leaf.receive_behind(), (b"answer".to_vec(), friend.address()));

        leaf.send_through(&router, stranger.address(), b"punch");
        assert_eq!(stranger.receive().1, seen, "another mapping for another destination");
        stranger.0.send_to(b"in", seen).unwrap();
        assert_eq!(leaf.receive_behind(), (b"in".to_vec(), stranger.address()));

        // The port counts, not only the address.
        let neighbour = Host::new([127, 77, 9, 3]);
        neighbour.0.send_to(b"knock", seen).unwrap();
        until(|| router.filtered() == 2);
    }

    #[test]
    fn home_networks_are_not_routed() {
        let router = Router::start(HOME, EXTERNAL, public).unwrap();
        let [leaf, other] = [2, 3].map(|n| Host::new([127, 78, 9, n]));
        let witness = Host::new([127, 77, 9, 3]);
        leaf.send_through(&router, other.address(), b"lost");
        leaf.send_through(&router, witness.address(), b"passes");
        assert_eq!(witness.receive().0, b"passes");
        other.0.set_nonblocking(true).unwrap();
        assert_eq!(other.0.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_reboot_forgets_everything() {
        let router = Router::start(HOME, EXTERNAL, public).unwrap();
        let leaf = Host::new([127, 78, 9, 2]);
        let friend = Host::new([127, 77, 9, 3]);
        leaf.send_through(&router, friend.address(), b"1");
        let before = friend.receive().1;
        router.reboot(Duration::ZERO).unwrap();
        until(|| !router.shared.is_down());
        leaf.send_through(&router, friend.address(), b"2");
        assert_ne!(friend.receive().1, before, "the old port survived");
    }

    #[test]
    fn filters_expire() {
        let mapping = Mapping {
            internal: "127.78.9.2:1".parse().unwrap(),
            outside: bind(EXTERNAL).unwrap(),
            permitted: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        let (remote, now) = ("127.77.9.3:1".parse().unwrap(), Instant::now());
        assert!(mapping.permit(remote, now) && mapping.lets_in(remote, now) && mapping.refresh(now));
        let later = now + MAPPING_LIFETIME;
        assert!(!mapping.lets_in(remote, later) && !mapping.refresh(later));
        for port in 0..PERMITTED_MAX as u16 {
            assert!(mapping.permit(SocketAddr::new(EXTERNAL.into(), port), now));
        }
        assert!(!mapping.permit(remote, now));
    }
}
