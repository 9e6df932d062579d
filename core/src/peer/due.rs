//! What is due of one peer. The node asks for each part in turn, and carries out what it wants before it asks for the
//! next: a question that is asked late may find another path in use.
//!
//! The parts are: handshakes, beats, silence, quality, keys, idleness.

use super::attempt::AttemptRoute;
use super::outgoing::Outgoing;
use super::output::Output;
use super::peers::Peers;
use crate::account::Account;
use crate::keepalive::{Due, Duty};
use crate::net::PeerKey;
use crate::path::{self, Remedy};
use crate::time::Instant;
use crate::wire::message::{InitBody, Message};
use crate::wire::packet::Kind;

/// How handshakes with a peer ended that were due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// None did, or another one may still succeed.
    Nothing,
    /// All our Inits to a peer without a link stayed unanswered.
    Unanswered,
    /// One that we answered was not confirmed.
    Unconfirmed,
}

impl Peers {
    /// Handshakes: repeats our Inits, and gives up what has waited for too long.
    pub(crate) fn on_handshakes_due(&mut self, now: Instant, account: &mut Account, key: PeerKey) -> Ended {
        self.touch(key);
        let is_unanswered = self.on_attempts_due(now, account, key);
        let is_unconfirmed = self.drop_pending_if_due(now, key);
        self.drop_old_epoch_if_due(now, key);
        if let Some(peer) = self.get_mut(key) {
            peer.rest_if_due(now);
        }
        match (is_unanswered, is_unconfirmed) {
            (true, _) => Ended::Unanswered,
            (false, true) => Ended::Unconfirmed,
            (false, false) => Ended::Nothing,
        }
    }

    /// Beats, and what a peer that answers none is taken for.
    pub(crate) fn on_beats_due(&mut self, now: Instant, key: PeerKey) {
        let pace = self.pace;
        let Some(peer) = self.get_mut(key).filter(|peer| peer.is_up()) else { return };
        let (duty, is_user) = (peer.duty_at(now, pace), peer.is_user());
        let due = peer.beats.handle_timeout(now, duty, pace);
        let is_overdue = peer.beats.is_overdue();
        match due {
            Some(Due::Beat) => self.push(Outgoing::Beat { peer: key, kind: Kind::Beat, route: None }),
            // A user link has other paths to go to: its failure detector decides what silence means.
            Some(Due::Ask | Due::Dead) if is_user => self.want(Output::Challenge { peer: key, route: None }),
            Some(Due::Ask) => {
                self.push(Outgoing::Beat { peer: key, kind: Kind::BeatAsk, route: None });
                if is_overdue {
                    self.want(Output::StandIn { peer: key });
                }
            }
            Some(Due::Dead) => self.want(Output::Gone { peer: key }),
            None => {}
        }
    }

    /// Silence: the next remedy against it.
    pub(crate) fn on_silence_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.get_mut(key).filter(|peer| peer.is_up()) else { return };
        let Some(remedy) = peer.detector.handle_timeout(now) else { return };
        match remedy {
            Remedy::Probe => {
                self.want(Output::Challenge { peer: key, route: None });
                // If it was we who moved, they have to know by the time they are needed.
                self.want(Output::WakeRelays { peer: key });
                self.want(Output::StandIn { peer: key });
            }
            Remedy::Failover => {
                peer.on_silence(now);
                self.challenge_all(key);
                self.want(Output::WakeRelays { peer: key });
                self.want(Output::Choose { peer: key });
                self.want(Output::Upgrade { peer: key });
            }
            Remedy::Revive => {
                self.challenge_all(key);
                self.want(Output::WakeRelays { peer: key });
                self.want(Output::Revive { peer: key });
                self.want(Output::Upgrade { peer: key });
                self.want(Output::StandIn { peer: key });
            }
            Remedy::Gone => self.want(Output::Gone { peer: key }),
        }
    }

    /// Quality: one thing that the measurement of a user link wants done. Whether there was any: there may be another.
    pub(crate) fn on_quality_due(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.get_mut(key).filter(|peer| peer.is_up()) else { return false };
        peer.judge_bulk(now);
        let Some(due) = peer.poll_quality(now) else { return false };
        let has_direct = peer.paths.has_direct();
        match due {
            path::Output::Sample(route) => {
                let token = self.token();
                if let Some(traffic) = self.get_mut(key).and_then(|peer| peer.traffic.as_mut()) {
                    traffic.quality.on_sample_sent(now, route, token);
                    self.send_on(key, Some(route), &Message::sample(token, route.remote()), false);
                }
            }
            path::Output::Leave | path::Output::TakeBack(_) => self.want(Output::Choose { peer: key }),
            path::Output::Recheck(route) => self.want(Output::Challenge { peer: key, route: Some(route) }),
            path::Output::Dead(_) => {
                if !has_direct {
                    self.want(Output::Retry { peer: key });
                }
                self.want(Output::Choose { peer: key });
            }
            path::Output::Nudge => self.push(Outgoing::Beat { peer: key, kind: Kind::BeatAsk, route: None }),
            path::Output::WakeRelays => self.want(Output::WakeRelays { peer: key }),
        }
        true
    }

    /// Keys: they are replaced when they are old.
    pub(crate) fn on_keys_due(&mut self, now: Instant, account: &mut Account, key: PeerKey) {
        let Some(peer) = self.get(key).filter(|peer| peer.is_rekey_due(now)) else { return };
        let begun = peer.paths.current().and_then(|route| {
            self.attempt(now, account, key, AttemptRoute::along(route), &InitBody::Direct { early: None })
        });
        if begun.is_none()
            && let Some(peer) = self.get_mut(key)
        {
            peer.epoch_since = now;
        }
    }

    /// Idleness: a link that nothing needs any more. `is_relay`: it is a relay of ours, which is need enough.
    pub(crate) fn on_idle_due(&mut self, now: Instant, key: PeerKey, is_relay: bool) {
        let Some(peer) = self.get_mut(key) else { return };
        if peer.idle_at().is_none_or(|at| at > now) {
            return;
        }
        if is_relay && peer.duty != Duty::None {
            peer.needed = now;
            return;
        }
        // Where nobody used a session, its paths are not what they were, and the other side does the same.
        let is_closed = !peer.is_dormant(now) && (peer.duty != Duty::None || peer.is_user());
        self.want(if is_closed { Output::Close { peer: key } } else { Output::Gone { peer: key } });
    }
}
