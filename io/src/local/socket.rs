//! Connected local sockets, TCP or Unix, as the pump uses them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::{Interest, Registry, Token};

/// A connected local socket, to be handed to [`Stream::splice`](crate::Stream::splice).
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

/// A non-blocking local socket in the loop.
pub(crate) enum Local {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

impl Local {
    /// Takes over a blocking socket.
    pub(crate) fn adopt(socket: LocalSocket) -> io::Result<Self> {
        Ok(match socket {
            LocalSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Self::tcp(mio::net::TcpStream::from_std(socket))
            }
            #[cfg(unix)]
            LocalSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Self::Unix(mio::net::UnixStream::from_std(socket))
            }
        })
    }

    /// A TCP socket; small writes leave at once.
    pub(crate) fn tcp(socket: mio::net::TcpStream) -> Self {
        // Slower interactive sessions are no reason to refuse them.
        let _ = socket.set_nodelay(true);
        Self::Tcp(socket)
    }

    /// Starts connecting to a TCP address.
    pub(crate) fn connect(target: SocketAddr) -> io::Result<Self> {
        mio::net::TcpStream::connect(target).map(Self::tcp)
    }

    /// After the socket was reported writable: whether it is connected, not yet, or never will be.
    pub(crate) fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        let peer = match self {
            Self::Tcp(socket) => socket.peer_addr().map(drop),
            #[cfg(unix)]
            Self::Unix(socket) => socket.peer_addr().map(drop),
        };
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The error that the kernel holds for this socket, if any.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(socket) => socket.take_error(),
            #[cfg(unix)]
            Self::Unix(socket) => socket.take_error(),
        }
    }

    /// Tells the local program that no more bytes come.
    pub(crate) fn shutdown_write(&self) {
        // A socket that is gone already will be noticed by the other direction.
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Makes closing this socket a reset, so that a transfer cut short does not look complete. A Unix socket has no
    /// reset: its program sees the end, and an error when it writes.
    pub(crate) fn close_hard(&self) {
        match self {
            Self::Tcp(socket) => {
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }

    /// Registers for both directions.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(socket) => registry.register(socket, token, interest),
            #[cfg(unix)]
            Self::Unix(socket) => registry.register(socket, token, interest),
        }
    }
}

impl Read for Local {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buf),
            #[cfg(unix)]
            Self::Unix(socket) => socket.read(buf),
        }
    }
}

impl Write for Local {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(buf),
            #[cfg(unix)]
            Self::Unix(socket) => socket.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connected() -> (Local, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (far, _) = listener.accept().expect("accepted");
        (Local::adopt(LocalSocket::Tcp(near)).expect("adopted"), far)
    }

    #[test]
    fn an_adopted_socket_does_not_block_and_ends_one_way_at_a_time() {
        let (mut near, mut far) = connected();
        assert!(near.connected().expect("connected"));
        assert_eq!(near.read(&mut [0; 1]).expect_err("nothing there").kind(), io::ErrorKind::WouldBlock);
        near.shutdown_write();
        assert_eq!(far.read(&mut [0; 1]).expect("the end"), 0);
        far.write_all(b"x").expect("the other way is open");
    }

    #[test]
    fn closed_hard_it_is_a_reset_and_no_end() {
        let (near, mut far) = connected();
        near.close_hard();
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_is_as_good() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut near = Local::adopt(LocalSocket::Unix(near)).expect("adopted");
        assert!(near.connected().expect("connected") && near.take_error().expect("asked").is_none());
        near.write_all(b"hello").expect("written");
        near.shutdown_write();
        let mut text = String::new();
        far.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }
}
