//! What arrives: from a datagram to an authentic packet of a known peer, and what that shows of its paths.

use super::Node;
use crate::api::{Event, Save};
use crate::net::{DropReason, Path, PeerKey, Received};
use crate::path::Route;
use crate::peer::{Arrived, Outgoing};
use crate::relay;
use crate::time::Instant;
use crate::wire::RECEIVE_LEN_MAX;
use crate::wire::address::canonical;
use crate::wire::message::{self, Message};
use crate::wire::packet::{ChannelId, Kind, Packet, RELAY_HEADER_LEN};

impl Node {
    /// The body of `handle_datagrams`: a run of datagrams with one verdict.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        mut path: Path,
        stride: usize,
        data: &mut [u8],
    ) -> (usize, Received) {
        path.remote = canonical(path.remote);
        if data.is_empty() || stride == 0 {
            self.report.on_dropped(DropReason::Truncated);
            return (data.len(), Received::Dropped(DropReason::Truncated));
        }
        let mut done = 0;
        while done < data.len() {
            let end = data.len().min(done + stride);
            if let Some(channel) = relay::channel_of(&data[done..end]) {
                if done > 0 {
                    // The next run may be forwarded.
                    break;
                }
                if let Some(verdict) = self.forward(now, path, stride, channel, data) {
                    return verdict;
                }
            }
            self.report.on_received(end - done);
            let result = self.on_datagram(now, path, &mut data[done..end]);
            if let Err(reason) = result {
                self.report.on_dropped(reason);
                if done == 0 {
                    return (end, Received::Dropped(reason));
                }
            }
            done = end;
        }
        (done, Received::Consumed)
    }

    /// Forwards the longest run of datagrams of one channel at the start of `data`, if we are its relay.
    fn forward(
        &mut self,
        now: Instant,
        path: Path,
        stride: usize,
        channel: ChannelId,
        data: &[u8],
    ) -> Option<(usize, Received)> {
        let forwarded = match self.relay.forward(now, channel, &path, stride, data)? {
            Ok(forwarded) => forwarded,
            Err(reason) => {
                self.report.on_dropped(reason);
                return Some((data.len().min(stride), Received::Dropped(reason)));
            }
        };
        let (count, len) = (forwarded.run.count.get(), forwarded.run.len);
        let verdict = match forwarded.to {
            Ok(to) => {
                self.report.on_forwarded(count, len);
                if let Some(relayed) = self.relay.poll_keep() {
                    self.report.tell(Event::Save(Save::Relayed(relayed)));
                }
                Received::Forward { path: to, range: 0..len, stride }
            }
            Err(reason) => {
                for _ in 0..count {
                    self.report.on_dropped(reason);
                }
                if self.relay.is_exhausted() {
                    self.on_relay_exhausted(now);
                }
                Received::Dropped(reason)
            }
        };
        Some((len, verdict))
    }

    fn on_datagram(&mut self, now: Instant, path: Path, packet: &mut [u8]) -> Result<(), DropReason> {
        if packet.len() > RECEIVE_LEN_MAX {
            return Err(DropReason::TooLong);
        }
        let route = Route::Direct { socket: path.socket, remote: path.remote };
        match Packet::decode(packet).map_err(|_| DropReason::Malformed)? {
            Packet::Init { .. } => self.on_init(now, path, packet),
            Packet::Cookie { receiver, nonce, sealed } => {
                let (nonce, sealed) = (*nonce, *sealed);
                self.on_cookie(now, path, receiver, &nonce, &sealed)
            }
            Packet::Relay { channel, .. } => {
                let via = self.relay.end(channel).ok_or(DropReason::UnknownReceiver)?.via;
                let relay = self.peers.get(via).ok_or(DropReason::UnknownReceiver)?;
                if !relay.paths.is_proven(&route) {
                    return Err(DropReason::WrongPath);
                }
                self.on_inner(now, channel, via, &mut packet[RELAY_HEADER_LEN..])
            }
            Packet::Loop { token } => self.nat.on_loop(now, token),
            Packet::Response { receiver, .. } => self.on_response(now, route, receiver, packet),
            Packet::Sealed { kind, receiver, counter } => {
                self.on_sealed(now, route, Some(path), kind, receiver, counter, packet)
            }
            Packet::Beat { kind, receiver, counter, .. } => {
                self.on_beat(now, route, Some(path), kind, receiver, counter, packet)
            }
        }
    }

    /// A packet that came through a channel of which we are an end.
    fn on_inner(
        &mut self,
        now: Instant,
        channel: ChannelId,
        via: PeerKey,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let route = Route::Relayed { channel, via };
        match Packet::decode(packet).map_err(|_| DropReason::Malformed)? {
            Packet::Init { .. } => self.on_relayed_init(now, route, packet),
            Packet::Response { receiver, .. } => self.on_response(now, route, receiver, packet),
            Packet::Sealed { kind, receiver, counter } => {
                self.on_sealed(now, route, None, kind, receiver, counter, packet)
            }
            Packet::Beat { kind, receiver, counter, .. } => {
                self.on_beat(now, route, None, kind, receiver, counter, packet)
            }
            Packet::Relay { .. } | Packet::Cookie { .. } | Packet::Loop { .. } => Err(DropReason::Malformed),
        }
    }

    fn on_sealed(
        &mut self,
        now: Instant,
        route: Route,
        path: Option<Path>,
        kind: Kind,
        receiver: u32,
        counter: u32,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let len = packet.len();
        let key = self.peers.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let (plain, newest) = self.peers.open_sealed(key, receiver, counter, packet)?;
        if kind == Kind::Data && message::is_probe(plain) {
            return self.on_probe_packet(now, key, receiver, path, len, plain);
        }
        let newest = newest && !(kind == Kind::Data && message::is_about_path(plain));
        let asks = kind == Kind::Data && message::is_question(plain);
        let local = path.and_then(|path| path.local);
        self.on_authentic(now, key, receiver, path, len, Arrived { route, local, newest, asks });
        match kind {
            Kind::Stream => {
                self.on_lively(now, key, &route);
                self.on_stream_packet(now, key, plain)
            }
            _ => self.on_messages(now, key, route, plain),
        }
    }

    fn on_beat(
        &mut self,
        now: Instant,
        route: Route,
        path: Option<Path>,
        kind: Kind,
        receiver: u32,
        counter: u32,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let key = self.peers.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let newest = self.peers.open_beat(key, receiver, counter, packet)?;
        let asks = kind == Kind::BeatAsk;
        let local = path.and_then(|path| path.local);
        self.on_authentic(now, key, receiver, path, packet.len(), Arrived { route, local, newest, asks });
        if asks && self.peers.get(key).is_some_and(|peer| peer.paths.is_proven(&route)) {
            self.peers.push(Outgoing::Beat { peer: key, kind: Kind::Beat, route: Some(route) });
        }
        Ok(())
    }

    /// Something authentic came: confirms a handshake, proves life, and may show that the peer moved.
    fn on_authentic(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        path: Option<Path>,
        len: usize,
        arrived: Arrived,
    ) {
        let route = arrived.route;
        self.peers.touch(key);
        self.wake_by_peer(now, key, &route);
        if self.peers.is_unconfirmed(key, receiver) {
            self.confirm(now, key, receiver, route);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.on_authentic(now, &route, len);
        if peer.wanted {
            let id = peer.id;
            self.overlay.on_heard(now, &id);
        }
        self.transport_heard(now, key, &route);
        if let Route::Relayed { via, .. } = route
            && let Some(relay) = self.peers.get_mut(via)
        {
            relay.needed = now;
        }
        let Some(heard) = self.peers.get_mut(key).and_then(|peer| peer.on_arrived(now, &arrived)) else { return };
        if heard.recovered {
            self.streams.on_recovered(now, key);
        }
        if let Some(path) = path.filter(|_| heard.unproven) {
            self.account.received(now, path.remote, len);
        }
        if let Some(asked) = heard.challenge {
            self.challenge(now, key, asked);
        }
        if !heard.unproven {
            self.choose_path(now, key);
        }
    }

    /// Sends a challenge on a path, to prove it or to see whether it still works.
    pub(crate) fn challenge(&mut self, now: Instant, key: PeerKey, route: Route) -> [u8; 8] {
        let token = self.peers.token();
        let Some(peer) = self.peers.get_mut(key) else { return token };
        let proven = peer.paths.is_proven(&route);
        let on_current = peer.paths.current() == Some(route);
        peer.paths.on_challenge_sent(now, &route, token);
        let remote = route.remote();
        // What a TCP connection leads to has proven its address in opening it.
        let may = |node: &mut Self, to: core::net::SocketAddr| {
            node.traversal.is_attested(now, key, to.ip()) || node.account.unasked(now, to)
        };
        if proven || route.is_tcp() || remote.is_none_or(|to| may(self, to)) {
            // Where else we ask says nothing of where we send.
            let message = if on_current { Message::challenge(token, remote) } else { Message::sample(token, remote) };
            self.peers.send_on(key, Some(route), &message, on_current);
        }
        token
    }

    /// Chooses the link's path anew, and tells everybody whom a change concerns.
    pub(crate) fn choose_path(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(chosen) = peer.choose(now) else { return };
        let leg = peer.direct_path();
        if let (Some(change), true) = (chosen.change, peer.traffic.is_some()) {
            self.streams.on_path(now, key, change);
            self.traversal.on_path_changed(now, key, chosen.new.is_some_and(|route| route.is_direct()));
        }
        self.peers.touch(key);
        if let Some(Route::Direct { remote, .. }) = chosen.new {
            self.account.proven(remote);
        }
        self.relay.set_path(key, leg);
        self.announce_path(key);
        self.streams.mark_ready(key);
        if chosen.is_first {
            self.on_path_found(now, key);
        }
    }

    /// Tells the application which path a user link uses now.
    pub(crate) fn announce_path(&mut self, key: PeerKey) {
        let Some(route) = self.peers.get(key).filter(|p| p.is_up()).and_then(|p| p.paths.current()) else { return };
        let Some(info) = self.path_info(&route) else { return };
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        if let Some(traffic) = &mut peer.traffic
            && traffic.announced != Some(route)
        {
            traffic.announced = Some(route);
            self.report.tell(Event::PathChanged { peer: id, path: info });
        }
    }
}
