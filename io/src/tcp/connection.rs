//! One connection: frames in, frames out.
//!
//! Reading keeps nothing but the beginning of one frame; whole packets go into a [`TcpInbox`] that all connections
//! share. Writing keeps what the kernel does not take at once, up to [`OUT_MAX`]; packets beyond that are refused
//! whole, as a full socket drops datagrams. A frame that cannot be one ends the connection: it is out of step for good.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::ops::Range;

use handfast_core::wire::frame::{FRAME_HEADER_LEN, FRAME_LEN_MAX, frame_header, split};
use mio::Registry;

/// Most bytes of packets that wait for a connection to take them. At the limit packets are dropped.
pub(super) const OUT_MAX: usize = 128 * 1024;
/// So much is gathered before the kernel is given it within a turn of the loop; its end gives it all.
const OUT_GATHERED: usize = 32 * 1024;
/// `SO_SNDBUF`: what the kernel may hold of it. Its own choice grows to megabytes, which a slow line takes seconds for.
const SEND_BUFFER: usize = 128 * 1024;
/// Most bytes read from one connection in a turn of the loop, so that none starves another.
const READ_MAX: usize = 64 * 1024;

/// Packets read from one connection.
pub(crate) struct TcpInbox {
    storage: Box<[u8]>,
    packets: Vec<Range<usize>>,
}

impl TcpInbox {
    pub(crate) fn new() -> Self {
        Self { storage: vec![0; FRAME_LEN_MAX + READ_MAX].into_boxed_slice(), packets: Vec::new() }
    }

    /// The packets, one by one.
    pub(crate) fn for_each(&mut self, mut take: impl FnMut(&mut [u8])) {
        for range in self.packets.drain(..) {
            if let Some(packet) = self.storage.get_mut(range) {
                take(packet);
            }
        }
    }
}

/// One connection.
pub(super) struct Connection {
    socket: mio::net::TcpStream,
    remote: SocketAddr,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// Frames for the kernel to take; it has had `taken` bytes of them.
    out: Vec<u8>,
    taken: usize,
    readable: bool,
    writable: bool,
}

impl Connection {
    /// A connection that is open.
    pub(super) fn new(socket: mio::net::TcpStream, remote: SocketAddr) -> Self {
        // A packet must not wait for the next one; and a smaller buffer than asked for is no reason not to run.
        let _ = socket.set_nodelay(true);
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
        Self { socket, remote, partial: Vec::new(), out: Vec::new(), taken: 0, readable: true, writable: true }
    }

    /// The other end.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether it may have something for us.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// There may be something for us.
    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// The kernel takes bytes again; whether that is news.
    pub(super) fn set_writable(&mut self) -> bool {
        !std::mem::replace(&mut self.writable, true)
    }

    /// Whether so much waits that the kernel should be given it at once.
    pub(super) fn is_due(&self) -> bool {
        self.waiting() >= OUT_GATHERED
    }

    /// Bytes that the kernel has not had.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() - self.taken
    }

    /// Takes it out of the poll.
    pub(super) fn deregister(&mut self, registry: &Registry) {
        // Closing deregisters anyway.
        let _ = registry.deregister(&mut self.socket);
    }

    /// Reads once; false when the connection has ended, or is out of step.
    pub(super) fn read(&mut self, inbox: &mut TcpInbox) -> bool {
        inbox.packets.clear();
        let before = self.partial.len();
        let Some(head) = inbox.storage.get_mut(..before) else { return false };
        head.copy_from_slice(&self.partial);
        let read = match self.socket.read(&mut inbox.storage[before..before + READ_MAX]) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => return false,
        };
        let bytes = &inbox.storage[..before + read];
        let packets = &mut inbox.packets;
        let Ok(done) = split(bytes, |range| packets.push(range)) else { return false };
        self.partial.clear();
        self.partial.extend_from_slice(&bytes[done..]);
        true
    }

    /// Adds a frame; false if there is no room.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
        let Some(header) = frame_header(packet.len()) else { return false };
        if self.waiting() + FRAME_HEADER_LEN + packet.len() > OUT_MAX {
            return false;
        }
        self.out.extend_from_slice(&header);
        self.out.extend_from_slice(packet);
        true
    }

    /// Gives the kernel what it takes; false when the connection has ended.
    pub(super) fn flush(&mut self) -> bool {
        while self.writable && self.taken < self.out.len() {
            match self.socket.write(&self.out[self.taken..]) {
                Ok(0) => return false,
                Ok(taken) => self.taken += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.taken == self.out.len() {
            // Most connections rest most of the time.
            self.out = Vec::new();
            self.taken = 0;
        } else if self.taken > OUT_MAX / 2 {
            self.out.drain(..self.taken);
            self.taken = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection over loopback, whose kernel buffers hold what the tests send.
    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let at = listener.local_addr().expect("an address");
        let near = std::net::TcpStream::connect(at).expect("connected");
        near.set_nonblocking(true).expect("set");
        let (far, _) = listener.accept().expect("accepted");
        (Connection::new(mio::net::TcpStream::from_std(near), at), far)
    }

    /// Reads until `count` packets came or the connection ended; the packets, and whether it lives.
    fn packets(connection: &mut Connection, count: usize) -> (Vec<Vec<u8>>, bool) {
        let (mut inbox, mut packets) = (TcpInbox::new(), Vec::new());
        while packets.len() < count {
            connection.set_readable();
            let lives = connection.read(&mut inbox);
            inbox.for_each(|packet| packets.push(packet.to_vec()));
            if !lives {
                return (packets, false);
            }
            std::thread::yield_now();
        }
        (packets, true)
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_one_packet() {
        let (mut near, mut far) = pair();
        far.set_nodelay(true).expect("set");
        for piece in [&[5][..], &[0, b'h', b'e'], b"llo", &[1, 0, b'!']] {
            far.write_all(piece).expect("written");
        }
        assert_eq!(packets(&mut near, 2), (vec![b"hello".to_vec(), b"!".to_vec()], true));
        assert!(near.partial.is_empty());
    }

    #[test]
    fn what_cannot_be_a_frame_ends_the_connection_after_what_came_before() {
        let (mut near, mut far) = pair();
        far.write_all(&[1, 0, b'x', 0xff, 0xff]).expect("written");
        let (got, lives) = packets(&mut near, usize::MAX);
        assert!(!lives);
        assert!(got.is_empty() || got == [b"x".to_vec()]);
    }

    #[test]
    fn packets_beyond_the_limit_are_refused_whole() {
        let (mut near, _far) = pair();
        let mut taken = 0;
        while near.push(&[7; 1_200]) {
            taken += 1;
            assert!(taken < 1_000, "a bound there must be");
        }
        assert_eq!(near.waiting(), taken * (FRAME_HEADER_LEN + 1_200));
        assert!(near.waiting() <= OUT_MAX && near.is_due());
        assert!(!near.push(&[]), "no packet is empty");
    }
}
