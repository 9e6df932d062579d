//! One bound UDP socket: sending trains, receiving batches, and what the kernel makes of them.
//!
//! A [`Udp`] keeps two flags. `readable` stays set until the kernel said that nothing is left, because mio reports
//! edges; `full` from a send that found no room until mio reports some. Errors never end a socket: they cost the
//! datagrams they hit, which are counted in [`Lost`].

use std::io;
use std::net::SocketAddr;

use handfast_core::{Ecn, Path};
use quinn_udp::{EcnCodepoint, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use super::detour::{Detour, HEADER_LEN_MAX};
use super::inbox::{BATCH, Inbox};

/// Longest UDP payload over IPv4: 65 535 − 20 (IPv4) − 8 (UDP). The kernel takes no longer train.
pub(crate) const TRAIN_LEN_MAX: usize = 65_507;
/// Linux `UDP_MAX_SEGMENTS` and `UDP_GRO_CNT_MAX`: most datagrams in one train.
pub(super) const SEGMENTS_MAX: usize = 64;
/// `SO_RCVBUF` asked for; the kernel gives what `rmem_max` allows. It is the only queue a relay has.
const RECEIVE_BUFFER: usize = 4 << 20;
/// `SO_SNDBUF` asked for: a few trains per socket; more would only hide congestion.
const SEND_BUFFER: usize = 1 << 20;

/// What was lost at the sockets, not in the core.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Lost {
    /// Datagrams or trains that the kernel refused for good.
    pub(super) send_errors: u64,
    /// Trains to forward that found the socket full.
    pub(super) forward_full: u64,
    /// Failed receives.
    pub(super) receive_errors: u64,
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

/// One bound socket.
pub(super) struct Udp {
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
    pub(super) fn bind(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
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

    pub(super) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().clamp(1, SEGMENTS_MAX)
    }

    /// The socket, for mio.
    pub(super) fn source(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.socket
    }

    /// Whether the kernel may have something for us.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// The kernel may have something for us.
    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Whether the last send found no room.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// There is no room, or there is again.
    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Receives one batch; how many trains `inbox` then holds.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, lost: &mut Lost) -> usize {
        let (socket, state) = (&self.socket, &self.state);
        let received =
            inbox.fill(|buffers, meta| socket.try_io(|| state.recv(UdpSockRef::from(socket), buffers, meta)));
        match received {
            Ok(count) => {
                // recvmmsg(2) stops short of a full batch only when nothing is left, and what comes later is a new
                // edge: asking again would cost two system calls for each lone datagram.
                self.readable = count == BATCH || !cfg!(any(target_os = "linux", target_os = "android"));
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                0
            }
            // An ICMP message about something sent earlier, which says nothing about receiving.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) => {
                0
            }
            Err(error) => {
                // Housekeeping tries again: an error that stays must not spin the loop.
                tracing::debug!(%error, "receive failed");
                self.readable = false;
                lost.receive_errors += 1;
                0
            }
        }
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
    pub(super) fn send(&self, path: &Path, bytes: &[u8], segment: usize, ecn: Option<Ecn>, lost: &mut Lost) -> Sent {
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

    /// Sends datagrams one by one on a detour, each behind the header that names its destination.
    pub(super) fn send_by(&self, detour: &Detour, path: &Path, bytes: &[u8], segment: usize, lost: &mut Lost) -> Sent {
        let mut header = [0; HEADER_LEN_MAX];
        let header_len = detour.wrap(path.remote, &mut header);
        let via = Path { socket: path.socket, remote: detour.via(), local: None };
        for (n, datagram) in bytes.chunks(segment).enumerate() {
            let wrapped = [&header[..header_len], datagram].concat();
            if self.send(&via, &wrapped, wrapped.len(), None, lost) != Sent::Done {
                return Sent::Blocked { from: n * segment };
            }
        }
        Sent::Done
    }

    /// quinn-udp gives up segmentation for good after `EINVAL`, which an odd local address causes as well as a network
    /// card that cannot segment. A fresh state finds out which it was.
    pub(super) fn restore_segmentation(&mut self) {
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
