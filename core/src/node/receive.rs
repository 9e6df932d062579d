//! What arrives: from a datagram to an authentic packet of a known peer, and what that shows of its paths.

use super::Node;
use crate::net::{DropReason, Path, PeerKey, Received};
use crate::path::Route;
use crate::peer::{Arrived, Outgoing};
use crate::relay;
use crate::time::Instant;
use crate::wire::RECEIVE_LEN_MAX;
use crate::wire::address::canonical;
use crate::wire::message;
use crate::wire::packet::{ChannelId, Kind, Packet, RELAY_HEADER_LEN};

/// The outer header of a packet under a link's keys.
struct Outer {
    kind: Kind,
    receiver: u32,
    counter: u32,
}

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
                if let Some(verdict) = self.relay.receive(now, &path, stride, (channel, data), &mut self.report) {
                    if matches!(verdict.1, Received::Dropped(_)) {
                        self.carry_relay(now);
                    }
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

    fn on_datagram(&mut self, now: Instant, path: Path, packet: &mut [u8]) -> Result<(), DropReason> {
        if packet.len() > RECEIVE_LEN_MAX {
            return Err(DropReason::TooLong);
        }
        let route = Route::from(path);
        match Packet::decode(packet).map_err(|_| DropReason::Malformed)? {
            Packet::Init { .. } => self.on_init(now, path, packet),
            Packet::Foreign { version, sender } => {
                let reason = self.peers.on_foreign_init(now, Some(path), version, sender);
                self.carry_peers(now);
                Err(reason)
            }
            Packet::Versions { receiver, lowest, highest } => {
                let reason = self.peers.on_versions(now, path, receiver, (lowest, highest));
                self.carry_peers(now);
                Err(reason)
            }
            Packet::Cookie { receiver, nonce, sealed } => {
                let result = self.peers.on_cookie(now, &mut self.account, path, receiver, nonce, sealed);
                self.carry_peers(now);
                result
            }
            Packet::Relay { channel, .. } => {
                let via = self.relay.end(channel).ok_or(DropReason::UnknownReceiver)?.via;
                let relay = self.peers.get(via).ok_or(DropReason::UnknownReceiver)?;
                if !relay.paths().is_proven(&route) {
                    return Err(DropReason::WrongPath);
                }
                self.on_inner(now, channel, via, &mut packet[RELAY_HEADER_LEN..])
            }
            Packet::Loop { token } => self.nat.on_loop(now, token),
            Packet::Response { receiver, .. } => self.on_response(now, route, receiver, packet),
            Packet::Sealed { kind, receiver, counter } => {
                self.on_sealed(now, route, Some(path), Outer { kind, receiver, counter }, packet)
            }
            Packet::Beat { kind, receiver, counter, .. } => {
                self.on_beat(now, route, Some(path), Outer { kind, receiver, counter }, packet)
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
                self.on_sealed(now, route, None, Outer { kind, receiver, counter }, packet)
            }
            Packet::Beat { kind, receiver, counter, .. } => {
                self.on_beat(now, route, None, Outer { kind, receiver, counter }, packet)
            }
            _ => Err(DropReason::Malformed),
        }
    }

    fn on_sealed(
        &mut self,
        now: Instant,
        route: Route,
        path: Option<Path>,
        Outer { kind, receiver, counter }: Outer,
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
                self.peers.on_lively(now, key, &route);
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
        Outer { kind, receiver, counter }: Outer,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let key = self.peers.owner(receiver).ok_or(DropReason::UnknownReceiver)?;
        let newest = self.peers.open_beat(key, receiver, counter, packet)?;
        let asks = kind == Kind::BeatAsk;
        let local = path.and_then(|path| path.local);
        self.on_authentic(now, key, receiver, path, packet.len(), Arrived { route, local, newest, asks });
        if asks && self.peers.get(key).is_some_and(|peer| peer.paths().is_proven(&route)) {
            self.peers.push(Outgoing::Beat { peer: key, kind: Kind::Beat, route: Some(route) });
        }
        Ok(())
    }

    /// A Response came from an address or through a channel.
    fn on_response(&mut self, now: Instant, route: Route, receiver: u32, packet: &[u8]) -> Result<(), DropReason> {
        let key = self.peers.awaits_response(receiver, &route)?;
        self.on_answer(now, key, receiver, route, packet)
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
        self.peers.wake_by_peer(now, key, &route);
        self.carry_peers(now);
        self.confirm(now, key, receiver, route);
        let Some((id, is_wanted)) = self.peers.on_authentic(now, key, &route, len) else { return };
        if is_wanted {
            self.overlay.on_heard(now, &id);
        }
        self.transport_heard(now, key, &route);
        let from = path.map(|path| (path.remote, len));
        let Some(heard) = self.peers.on_arrived(now, &mut self.account, key, &arrived, from) else { return };
        if heard.recovered {
            self.streams.on_recovered(now, key);
        }
        if let Some(asked) = heard.challenge {
            self.challenge(now, key, Some(asked));
        }
        if !heard.unproven {
            self.choose_path(now, key);
        }
    }
}
