//! Tokens that ends present to have a channel opened between them.
//!
//! Two ends of a link agree on a relay and on a token, inside the link, and each presents the token to the relay over a
//! link of its own. Who knows it is known to the other: so both consent, and neither names an address or an identity.
//! The relay joins the first two that present one within [`JOIN_WAIT`], and remembers for as long whom it has joined,
//! since its answer may be lost. A third one is refused, and a token that one alone presents is forgotten.

use core::time::Duration;

use crate::identity::PeerId;
use crate::net::PeerKey;
use crate::time::{Aged, Instant};
use crate::wire::message::Refusal;
use crate::wire::packet::ChannelId;

/// Most tokens remembered. At the limit further ones are refused as busy.
pub(super) const JOINS_MAX: usize = 4_096;
/// Two links that present one token within this are joined.
pub(super) const JOIN_WAIT: Duration = Duration::from_secs(10);

/// Who presented a token: a link, and whose it is.
pub(super) type Presenter = (PeerKey, PeerId);

/// Who presented a token, and which channel joins them.
#[derive(Debug)]
struct Join {
    first: Presenter,
    joined: Option<(PeerKey, ChannelId)>,
}

/// What becomes of a token that is presented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presented {
    /// Its presenter waits for another one.
    Wait,
    /// It is the second one: the first is this.
    Second(Presenter),
    /// The two were joined by this channel, and the answer was lost.
    Again(ChannelId),
    /// There is no more to it than that.
    Refused(Refusal),
}

/// The tokens of the last [`JOIN_WAIT`].
#[derive(Debug, Default)]
pub(super) struct Joins {
    by_token: Aged<[u8; 16], Join, JOINS_MAX>,
}

impl Joins {
    /// Somebody presents a token.
    pub(super) fn present(&mut self, now: Instant, token: [u8; 16], presenter: Presenter) -> Presented {
        self.forget_old(now);
        if let Some((_, join)) = self.by_token.get(&token) {
            return match (join.first, join.joined) {
                (first, None) if first == presenter => Presented::Wait,
                (first, None) if first.1 == presenter.1 => Presented::Refused(Refusal::NotAllowed),
                (first, None) => Presented::Second(first),
                (first, Some((second, channel))) if [first.0, second].contains(&presenter.0) => {
                    Presented::Again(channel)
                }
                _ => Presented::Refused(Refusal::NotAllowed),
            };
        }
        if self.by_token.is_full() {
            return Presented::Refused(Refusal::Busy);
        }
        self.by_token.insert(now, token, Join { first: presenter, joined: None });
        Presented::Wait
    }

    /// The two that presented a token are joined.
    pub(super) fn on_joined(&mut self, now: Instant, token: [u8; 16], second: PeerKey, channel: ChannelId) {
        if let Some(join) = self.by_token.remove(&token) {
            self.by_token.insert(now, token, Join { joined: Some((second, channel)), ..join });
        }
    }

    /// Whether none is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.by_token.oldest().is_none()
    }

    /// When the oldest is forgotten.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_token.oldest().map(|at| at + JOIN_WAIT)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_token.forget_while(|at| now.since(at) >= JOIN_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;

    const TOKEN: [u8; 16] = [7; 16];
    const CHANNEL: ChannelId = ChannelId([1; 6]);

    fn who(n: u8) -> Presenter {
        (PeerKey { index: n.into(), generation: 1 }, SecretKey::from_bytes(&[n; 32]).peer_id())
    }

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn the_first_two_are_joined_and_a_third_is_refused() {
        let mut joins = Joins::default();
        assert_eq!(joins.present(at(0), TOKEN, who(1)), Presented::Wait);
        assert_eq!(joins.present(at(1), TOKEN, who(1)), Presented::Wait, "it says so again");
        let other_link = (who(5).0, who(1).1);
        assert_eq!(joins.present(at(1), TOKEN, other_link), Presented::Refused(Refusal::NotAllowed));
        assert_eq!(joins.present(at(9), TOKEN, who(2)), Presented::Second(who(1)));
        joins.on_joined(at(9), TOKEN, who(2).0, CHANNEL);
        for n in [1, 2] {
            assert_eq!(joins.present(at(10), TOKEN, who(n)), Presented::Again(CHANNEL));
        }
        assert_eq!(joins.present(at(10), TOKEN, who(3)), Presented::Refused(Refusal::NotAllowed));
        assert_eq!(joins.present(at(10), [8; 16], who(3)), Presented::Wait, "another token");
    }

    #[test]
    fn a_token_presented_by_one_alone_is_forgotten() {
        let mut joins = Joins::default();
        assert_eq!(joins.present(at(0), TOKEN, who(1)), Presented::Wait);
        assert_eq!(joins.poll_timeout(), Some(at(10)));
        assert_eq!(joins.present(at(10), TOKEN, who(2)), Presented::Wait, "the first came too long ago");
        joins.forget_old(at(20));
        assert!(joins.is_empty());
    }

    #[test]
    fn at_the_limit_further_tokens_are_refused_and_none_is_struck() {
        let mut joins = Joins::default();
        let token = |n: usize| (n as u128).to_be_bytes();
        for n in 0..JOINS_MAX {
            assert_eq!(joins.present(at(0), token(n), who(1)), Presented::Wait);
        }
        assert_eq!(joins.present(at(9), token(JOINS_MAX), who(2)), Presented::Refused(Refusal::Busy));
        assert_eq!(joins.present(at(9), token(0), who(2)), Presented::Second(who(1)));
        assert_eq!(joins.present(at(10), token(JOINS_MAX), who(2)), Presented::Wait);
    }
}
