//! Carries what relays say, and what ends of links agree on, to the [relay's room](crate::relay), and out what it wants.

use super::Node;
use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::path::Route;
use crate::peer::{Origin, Peer};
use crate::relay::{Around, Output, Relay, Supernode, Way};
use crate::time::Instant;
use crate::wire::message::Message;

impl Node {
    /// A message of this room's.
    pub(super) fn on_relay_message(&mut self, now: Instant, key: PeerKey, id: &PeerId, message: Message<'_>) {
        let remote = self.peers.get(key).and_then(Peer::direct_path).map(|path| path.remote);
        let may_ask = matches!(message, Message::RelayJoin { .. } | Message::VolunteersRequest)
            && self.account.take_relay_question(now, *id, remote);
        self.relaying(now, |relay, around| relay.on_message(now, key, message, may_ask, around));
    }

    pub(super) fn on_choices_due(&mut self, now: Instant) {
        if self.relay.is_choice_due(now) {
            self.relaying(now, |relay, around| relay.handle_choices(now, around));
        }
    }

    fn relaying(&mut self, now: Instant, act: impl FnOnce(&mut Relay, &Around<'_>)) {
        let (overlay, homes) = (&self.overlay, self.overlay.own_homes());
        let supernode = |id: &PeerId| Supernode {
            address: overlay.supernode_addresses(id).first().copied(),
            load: overlay.supernode_load(now, id),
        };
        let around = Around {
            me: overlay.id(),
            peers: &self.peers,
            homes: &homes,
            is_serving: overlay.is_serving(),
            is_leaf_here: &|id| overlay.is_registered(id),
            profile: self.around().profile,
            supernode: &supernode,
        };
        act(&mut self.relay, &around);
        self.carry_relay(now);
    }

    /// Carries out what the room wants, until it wants nothing more.
    pub(super) fn carry_relay(&mut self, now: Instant) {
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send { peer, message } => self.peers.send(peer, &message),
                Output::Join { relay, address, token } => {
                    let up = self.peers.up_key(&relay);
                    match up.or_else(|| self.dial(now, relay, address?, Origin::Hearsay, None)) {
                        Some(key) => {
                            self.peers.need(now, key);
                            self.peers.send(key, &Message::RelayJoin { token });
                        }
                        None => self.call_leg(now, relay),
                    }
                }
                Output::Try { peer, via, channel, limits } => {
                    let route = Route::Relayed { channel, via };
                    self.relay.add_end(channel, Way { end: peer, via });
                    self.peers.need(now, via);
                    self.peers.add_path(now, peer, route);
                    self.peers.set_limits(peer, limits);
                    self.challenge(now, peer, Some(route));
                }
                Output::Avoid { peer, via, channel } => {
                    self.peers.avoid(peer, &Route::Relayed { channel, via });
                    self.choose_path(now, peer);
                }
                Output::Leave { peer, via, channel } => {
                    self.remove_paths_of(now, peer, |route| *route == Route::Relayed { channel, via });
                }
                Output::End { peer, end } => {
                    self.peers.say_goodbye_by_all_relays(now, peer);
                    self.drop_peer(now, peer, end);
                }
                Output::Event(event) => self.report.tell(event),
            }
        }
    }
}
