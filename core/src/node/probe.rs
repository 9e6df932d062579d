//! Probes: what does a packet from this socket look like outside, now or after a while? Carries them both ways.
//!
//! A leaf sends a [`Message::Probe`] over its link to a supernode, but from any socket and to either of the supernode's
//! ports; the answer says where it came from. Who asks and what is concluded is the business of [`crate::nat`]
//! (mapping, filtering, port assignment) and [`crate::keepalive`] (a binding's lifetime); who is answered, and when,
//! that of [`Nat`](crate::nat::Nat).
//!
//! A probe is authentic like everything on a link, but says nothing about the link's paths, whichever way it came.

use core::net::SocketAddr;
use core::time::Duration;

use super::Node;
use crate::nat::{Alternates, Asked, ReplyOutput};
use crate::net::{DropReason, Path, PeerKey, SocketKind};
use crate::time::Instant;
use crate::transport::Purpose;
use crate::wire::message::{self, Message};

impl Node {
    /// Sends a probe to a peer, over its link but from any socket to any of its addresses.
    pub(crate) fn send_probe(
        &mut self,
        now: Instant,
        key: PeerKey,
        from: Path,
        token: [u8; 8],
        delay: Duration,
        alternate: bool,
    ) {
        let delay_ds = u16::try_from(delay.as_millis() / 100).unwrap_or(u16::MAX);
        self.peers.send_outside(now, key, from, &Message::probe(token, delay_ds, alternate, from.remote));
    }

    /// A Data packet that is a probe or an answer to one.
    pub(crate) fn on_probe_packet(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        path: Option<Path>,
        len: usize,
        plain: &[u8],
    ) -> Result<(), DropReason> {
        // Through a relay it would show the relay's address.
        let path = path.ok_or(DropReason::WrongPath)?;
        let is_proven = self.peers.on_probe(now, key, receiver, path, len)?;
        let mut rest = plain;
        match message::decode_next(&mut rest).map_err(|_| DropReason::BadContents)? {
            Message::Probe { token, delay_ds, alternate, room: _ } => {
                if !self.overlay.is_serving() {
                    return Err(DropReason::WrongPath);
                }
                let delay = Duration::from_millis(100) * u32::from(delay_ds);
                let asked = Asked { peer: key, path, is_proven, len, token, delay, alternate };
                let alternates = self.alternates();
                let result = self.nat.on_probe(now, &mut self.account, &alternates, &asked);
                self.carry_replies(now);
                result
            }
            Message::ProbeReply { token, seen, alternate_port } => {
                self.on_probe_reply(now, key, path, token, seen.into(), alternate_port);
                Ok(())
            }
            _ => Err(DropReason::BadContents),
        }
    }

    /// Late answers that are due.
    pub(crate) fn on_delayed_due(&mut self, now: Instant) {
        if self.nat.poll_timeout().is_some_and(|at| at <= now) {
            let alternates = self.alternates();
            self.nat.handle_replies(now, &alternates);
            self.carry_replies(now);
        }
    }

    fn alternates(&self) -> Alternates {
        Alternates::of(self.transports.of(Purpose::Alternate))
    }

    fn carry_replies(&mut self, now: Instant) {
        while let Some(output) = self.nat.poll_reply() {
            match output {
                ReplyOutput::Answer { peer, path, token, alternate_port } => {
                    let reply = Message::ProbeReply { token, seen: path.remote.into(), alternate_port };
                    self.peers.send_outside(now, peer, path, &reply);
                }
                ReplyOutput::OpenAlternate(family) => {
                    self.open_socket(Purpose::Alternate, SocketKind::Udp(family));
                }
            }
        }
    }

    /// A supernode answered a probe of ours: where it came to, and from. Each room knows its own tokens.
    fn on_probe_reply(
        &mut self,
        now: Instant,
        key: PeerKey,
        path: Path,
        token: [u8; 8],
        seen: SocketAddr,
        alternate_port: u16,
    ) {
        if self.on_lifetime_reply(now, key, path.socket, token) || self.on_punch_seen(now, key, path.socket, seen) {
            return;
        }
        if self.nat.on_reply(now, path.socket, path.remote, token, seen, alternate_port)
            && self.transports.network().sockets.iter().any(|(socket, _)| *socket == path.socket)
        {
            self.on_observed(now, key, path.remote, path.socket, seen);
        }
    }
}
