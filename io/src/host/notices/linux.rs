//! A netlink socket that is told of links, addresses and routes.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Messages taken at once; a host where routes come and go without end has others waiting.
const READS_MAX: usize = 256;

/// An open socket.
pub(crate) struct Notices {
    socket: OwnedFd,
}

impl Notices {
    /// Subscribes to notices, which come under `token`.
    pub(crate) fn open(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { socket })
    }

    /// Empties the socket; whether anything was there.
    pub(crate) fn drain(&self) -> bool {
        // What does not fit is cut off by the kernel.
        let mut some = [0; 64];
        let mut any = false;
        for _ in 0..READS_MAX {
            match rustix::net::recv(&self.socket, &mut some, RecvFlags::DONTWAIT) {
                // NOBUFS: there were so many that some are lost.
                Ok(_) | Err(Errno::NOBUFS) => any = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_socket_is_silent_while_nothing_changes() {
        let poll = mio::Poll::new().expect("poll");
        let notices = Notices::open(poll.registry(), Token(3)).expect("the kernel lets everybody subscribe");
        // Other processes may change something now; the socket is empty after that all the same.
        notices.drain();
        assert!(rustix::net::getsockname(&notices.socket).is_ok());
    }
}
