//! What Data packets carry: each message to the room that it is for.

use core::net::SocketAddr;

use super::Node;
use crate::api::StreamEnd;
use crate::net::{DropReason, PeerKey};
use crate::path::Route;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::message::{self, Message};

impl Node {
    /// All messages of one Data packet. Those before a bad one have taken effect: the packet is authentic, so a bad
    /// message is the peer's own mistake.
    pub(crate) fn on_messages(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: Route,
        plain: &[u8],
    ) -> Result<(), DropReason> {
        let mut rest = plain;
        while !rest.is_empty() {
            let message = message::decode_next(&mut rest).map_err(|_| DropReason::BadContents)?;
            self.on_message(now, key, route, message)?;
        }
        Ok(())
    }

    pub(crate) fn on_message(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: Route,
        message: Message<'_>,
    ) -> Result<(), DropReason> {
        // A message before may have ended the link.
        let id = self.peers.id_of(key).ok_or(DropReason::UnknownReceiver)?;
        match message {
            Message::Confirm => {}
            Message::Challenge { token, room } => {
                let was_moved = self.peers.on_challenge(now, &mut self.account, key, route, token, room);
                // A home asks whether we are where a packet of ours came from: that was not where it knew us. A
                // question of our own tells where that is.
                if was_moved && self.measuring.may_be_forgotten() {
                    self.challenge(now, key, Some(route));
                }
            }
            Message::ChallengeReply { token, seen } => {
                self.on_challenge_reply(now, key, route, token, seen.map(Into::into));
            }
            Message::Candidates(whereabouts) => self.on_whereabouts(now, key, whereabouts),
            Message::Upgrade(whereabouts) => self.on_upgrade(now, key, whereabouts),
            Message::Punch(state) => self.on_punch(now, key, &state),
            Message::Vouch { peer } => self.on_vouch(now, key, &id, peer),
            Message::Vouched { peer, address } => self.on_vouched(now, key, peer, address.into()),
            Message::Close => self.drop_peer(now, key, self.relay.end_of(key, StreamEnd::PeerGone)),
            Message::Datagram(data) => {
                self.on_app_datagram(now, key, data);
                self.peers.on_lively(now, key, &route);
            }

            Message::Introduce { peer, init } => self.on_introduce(now, key, peer, init),
            Message::Introduced { channel, limits, init } => {
                return self.on_introduced(now, key, channel, limits, init);
            }
            Message::IntroducedReply { channel, response } => {
                return self.on_introduced_reply(now, key, channel, response);
            }
            Message::IntroduceReply { peer, response } => return self.on_introduce_reply(now, key, peer, response),
            Message::ChannelClosed { channel } => self.on_channel_closed(now, key, channel),
            relaying if relaying.is_about_relays() => self.on_relay_message(now, key, &id, relaying),

            // A probe is alone in its packet, and has been taken there.
            Message::Probe { .. } | Message::ProbeReply { .. } => return Err(DropReason::BadContents),

            other => self.on_room_message(now, key, &id, route, other),
        }
        Ok(())
    }

    /// A challenge of ours was answered on `route`.
    fn on_challenge_reply(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: Route,
        token: [u8; 8],
        seen: Option<SocketAddr>,
    ) {
        let checked =
            route.remote().and_then(|remote| self.traversal.on_check_reply(now, key, remote, token, &mut self.account));
        if self.peers.on_challenge_reply(now, &mut self.account, key, &route, token, checked) {
            if let Route::Direct { remote, socket } = route {
                if self.peers.get(key).is_some_and(Peer::is_user) {
                    self.traversal.attest(now, key, remote.ip(), &mut self.account);
                }
                if let Some(seen) = seen {
                    self.on_observed(now, key, remote, socket, seen);
                }
            }
            self.choose_path(now, key);
        }
        self.peers.on_pong(now, key, token, &route);
        self.carry_peers(now);
    }
}
