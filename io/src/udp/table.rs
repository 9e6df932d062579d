//! All UDP sockets by [`SocketId`]: those bound at start, and those that the core has opened and closed.
//!
//! mio reports edges, so each socket keeps a `readable` flag until the kernel says that nothing is left. Interest in
//! writing is asked for only while something is blocked, because the kernel reports room for UDP after nearly every
//! datagram that leaves, and each report would cost a turn of the loop.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use handfast_core::{Ecn, Family, Instant, Path, SocketId};
use mio::{Interest, Registry, Token};

use super::detour::Detour;
use super::inbox::Inbox;
use super::socket::{Lost, Sent, Udp};
use crate::host::Seldom;

/// Ports tried, where any would do, until one is free for UDP and TCP.
const PORT_TRIES: u32 = 16;
/// Most sockets that the core may have opened beside the main ones: a birthday punch uses 256.
const EXTRA_SOCKETS_MAX: usize = 512;

/// All UDP sockets.
pub(crate) struct UdpSockets {
    registry: Registry,
    token: fn(SocketId) -> Token,
    by_id: BTreeMap<SocketId, Udp>,
    /// Those bound at start, the main one first.
    main: Vec<(SocketId, SocketAddr)>,
    next: u32,
    /// What everything goes through, if anything.
    detour: Option<Detour>,
    /// What was lost here since it was last said.
    lost: Lost,
    complaint: Seldom,
}

impl UdpSockets {
    /// No sockets yet; `token` gives each the token it is registered under.
    pub(crate) fn new(registry: Registry, token: fn(SocketId) -> Token, detour: Option<Detour>) -> Self {
        Self {
            registry,
            token,
            by_id: BTreeMap::new(),
            main: Vec::new(),
            next: 0,
            detour,
            lost: Lost::default(),
            complaint: Seldom::default(),
        }
    }

    /// Binds the sockets to live with. Without addresses: any port of IPv4, and of IPv6 where the host has it.
    /// `besides` is asked of each port whether it will do, for TCP say: where any port would, another one is tried if
    /// not.
    pub(crate) fn bind_main(
        &mut self,
        addresses: &[SocketAddr],
        mut besides: impl FnMut(SocketAddr) -> io::Result<()>,
    ) -> io::Result<()> {
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        if addresses.is_empty() {
            let v4 = self.bind_one(any_v4, &mut besides);
            let v6 = self.bind_one(any_v6, &mut besides);
            return if self.main.is_empty() { v4.or(v6) } else { Ok(()) };
        }
        addresses.iter().try_for_each(|&address| self.bind_one(address, &mut besides))
    }

    fn bind_one(
        &mut self,
        address: SocketAddr,
        besides: &mut impl FnMut(SocketAddr) -> io::Result<()>,
    ) -> io::Result<()> {
        for tries in 0.. {
            let (id, bound) = self
                .open(address)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on UDP {address}: {error}")))?;
            if let Err(error) = besides(bound) {
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
        self.registry.register(udp.source(), (self.token)(id), Interest::READABLE)?;
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

    /// Closes a socket that [`UdpSockets::open_extra`] opened.
    pub(crate) fn close(&mut self, id: SocketId) {
        if self.main.iter().any(|(main, _)| *main == id) {
            return;
        }
        if let Some(mut udp) = self.by_id.remove(&id) {
            // Closing deregisters anyway.
            let _ = self.registry.deregister(udp.source());
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
            udp.set_readable();
        }
    }

    /// There may be room again.
    pub(crate) fn set_writable(&mut self, id: SocketId) {
        if let Some(udp) = self.by_id.get_mut(&id)
            && udp.is_full()
        {
            udp.set_full(false);
            let _ = self.registry.reregister(udp.source(), (self.token)(id), Interest::READABLE);
        }
    }

    /// Whether the last send found no room, and none was reported since. A socket that is gone is not full.
    pub(crate) fn is_full(&self, id: SocketId) -> bool {
        self.by_id.get(&id).is_some_and(Udp::is_full)
    }

    /// Whether any socket may have something for us.
    pub(crate) fn any_readable(&self) -> bool {
        self.by_id.values().any(Udp::is_readable)
    }

    /// The next socket after `last` that may have something for us.
    pub(crate) fn next_readable(&self, last: Option<SocketId>) -> Option<SocketId> {
        let after = last.map_or(0, |id| id.0 + 1);
        self.by_id.range(SocketId(after)..).find(|(_, udp)| udp.is_readable()).map(|(id, _)| *id)
    }

    /// Receives one batch from one socket. Returns how many trains `inbox` then holds.
    pub(crate) fn receive(&mut self, id: SocketId, inbox: &mut Inbox) -> usize {
        self.by_id.get_mut(&id).map_or(0, |udp| udp.receive(inbox, &mut self.lost))
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter). To a socket that is gone: nothing.
    pub(crate) fn send(&mut self, path: &Path, bytes: &[u8], segment: usize, ecn: Option<Ecn>) -> Sent {
        let Some(udp) = self.by_id.get_mut(&path.socket) else { return Sent::Done };
        let sent = match &self.detour {
            None => udp.send(path, bytes, segment.max(1), ecn, &mut self.lost),
            Some(detour) => udp.send_by(detour, path, bytes, segment.max(1), &mut self.lost),
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
        if !udp.is_full() {
            let asked = self.registry.reregister(udp.source(), (self.token)(id), interest).is_ok();
            udp.set_full(asked);
        }
        udp.is_full()
    }

    /// Sends what a relay forwards: what finds no room is dropped, never kept.
    pub(crate) fn forward(&mut self, path: &Path, bytes: &[u8], stride: usize) {
        if self.is_full(path.socket) || self.send(path, bytes, stride, None) != Sent::Done {
            self.lost.forward_full += 1;
        }
    }

    /// Done now and then: says what was lost, and cures what edges and errors may have left behind.
    pub(crate) fn keep_house(&mut self, now: Instant) {
        self.refresh();
        let lost = std::mem::take(&mut self.lost);
        if lost != Lost::default()
            && let Some(more) = self.complaint.pass(now)
        {
            tracing::info!(
                send_errors = lost.send_errors,
                forward_full = lost.forward_full,
                receive_errors = lost.receive_errors,
                more,
                "datagrams were lost at the UDP sockets in the last seconds"
            );
        }
    }

    /// Every socket is looked at again, and segmentation tried again.
    fn refresh(&mut self) {
        for udp in self.by_id.values_mut() {
            udp.set_readable();
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

    fn sockets(listen: &[&str]) -> (UdpSockets, Poll) {
        let poll = Poll::new().expect("poll");
        let mut sockets = UdpSockets::new(poll.registry().try_clone().expect("registry"), token, None);
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().expect("address")).collect();
        sockets.bind_main(&listen, |_| Ok(())).expect("bound");
        (sockets, poll)
    }

    /// Receives until `count` datagrams came: their bytes, and the paths they came by.
    fn receive(sockets: &mut UdpSockets, poll: &mut Poll, count: usize) -> (Vec<Vec<u8>>, Vec<Path>) {
        let mut inbox = Inbox::new(None);
        let mut events = Events::with_capacity(8);
        let (mut datagrams, mut paths) = (Vec::new(), Vec::new());
        while datagrams.len() < count {
            while let Some(id) = sockets.next_readable(None) {
                let got = sockets.receive(id, &mut inbox);
                for arrival in inbox.arrivals(id, got) {
                    paths.push(arrival.path());
                    let stride = arrival.stride().max(1);
                    datagrams.extend(arrival.into_data().chunks(stride).map(<[u8]>::to_vec));
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
        let mut other = UdpSockets::new(here.registry.try_clone().expect("registry"), token, None);
        let error = other.bind_main(&[taken], |_| Ok(())).expect_err("taken");
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

    #[test]
    fn a_port_that_will_not_do_is_left_for_another_unless_it_was_asked_for() {
        let (mut here, _poll) = sockets(&[]);
        here.main.clear();
        let mut asked = Vec::new();
        let any: SocketAddr = "127.0.0.1:0".parse().expect("address");
        let besides = |bound: SocketAddr| {
            asked.push(bound);
            if asked.len() < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
        };
        here.bind_main(&[any], besides).expect("bound");
        assert_eq!((asked.len(), here.main()[0].1), (3, asked[2]));
        // One that was asked for is kept, whatever others say of it.
        let free = asked[0];
        here.bind_main(&[free], |_| Err(io::ErrorKind::AddrInUse.into())).expect("bound");
        assert_eq!(here.main()[1].1, free);
    }
}
