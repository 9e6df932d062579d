//! Who waits for a link to come up, or for a pong.
//!
//! Answers come as events; a lost ping has none, so everyone who waits has a deadline after which the loop forgets
//! them. The caller measures its own patience; forgetting late harms nobody.

use handfast_core::{ConnectError, Instant, PathInfo, PeerId, StreamEnd};

use super::command::Reply;
use crate::api::{OpenError, Pong};

/// The answer to something that the network has a say in.
type Waited<T> = Result<T, OpenError>;

struct Waiter<T> {
    peer: PeerId,
    /// Of a ping: its number.
    sequence: u64,
    until: Instant,
    reply: Reply<Waited<T>>,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Waiting {
    links: Vec<Waiter<PathInfo>>,
    pongs: Vec<Waiter<Pong>>,
}

impl Waiting {
    /// `reply` is to hear when the link to `peer` is up.
    pub(super) fn for_link(&mut self, peer: PeerId, until: Instant, reply: Reply<Waited<PathInfo>>) {
        self.links.push(Waiter { peer, sequence: 0, until, reply });
    }

    /// `reply` is to hear the answer to ping number `sequence`.
    pub(super) fn for_pong(&mut self, peer: PeerId, sequence: u64, until: Instant, reply: Reply<Waited<Pong>>) {
        self.pongs.push(Waiter { peer, sequence, until, reply });
    }

    /// The link is up.
    pub(super) fn on_link(&mut self, peer: PeerId, path: PathInfo) {
        answer(&mut self.links, |waiter| waiter.peer == peer, || Ok(path));
    }

    /// An answer to a ping.
    pub(super) fn on_pong(&mut self, peer: PeerId, sequence: u64, pong: Pong) {
        answer(&mut self.pongs, |waiter| waiter.peer == peer && waiter.sequence == sequence, || Ok(pong));
    }

    /// The peer cannot be reached.
    pub(super) fn on_failed(&mut self, peer: PeerId, error: ConnectError) {
        answer(&mut self.links, |waiter| waiter.peer == peer, || Err(error.into()));
        answer(&mut self.pongs, |waiter| waiter.peer == peer, || Err(error.into()));
    }

    /// This node has cut the peer off.
    pub(super) fn on_cut(&mut self, peer: PeerId) {
        let gone = OpenError::Ended(StreamEnd::PeerGone);
        answer(&mut self.links, |waiter| waiter.peer == peer, || Err(gone));
        answer(&mut self.pongs, |waiter| waiter.peer == peer, || Err(gone));
    }

    /// Forgets those whose patience is over.
    pub(super) fn forget(&mut self, now: Instant) {
        self.links.retain(|waiter| waiter.until > now);
        self.pongs.retain(|waiter| waiter.until > now);
    }
}

fn answer<T>(waiters: &mut Vec<Waiter<T>>, wanted: impl Fn(&Waiter<T>) -> bool, with: impl Fn() -> Waited<T>) {
    waiters.retain(|waiter| {
        let found = wanted(waiter);
        if found {
            // Whoever gave up meanwhile does not hear it.
            let _ = waiter.reply.send(with());
        }
        !found
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, sync_channel};
    use std::time::Duration;

    use handfast_core::SecretKey;

    use super::*;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    #[test]
    fn each_hears_its_own_answer() {
        let mut waiting = Waiting::default();
        let path = PathInfo::Relay { via: peer(9) };
        let later = Instant::ZERO + Duration::from_secs(9);
        let (link, link_answer) = sync_channel(1);
        let (pong, pong_answer) = sync_channel(1);
        let (other, other_answer) = sync_channel(1);
        waiting.for_link(peer(1), later, link);
        waiting.for_pong(peer(1), 4, later, pong);
        waiting.for_pong(peer(1), 5, later, other);
        waiting.on_link(peer(2), path);
        assert!(matches!(link_answer.try_recv(), Err(TryRecvError::Empty)));
        waiting.on_link(peer(1), path);
        assert!(matches!(link_answer.try_recv(), Ok(Ok(found)) if found == path));
        waiting.on_pong(peer(1), 4, Pong::new(Duration::from_millis(3), path));
        assert!(matches!(pong_answer.try_recv(), Ok(Ok(_))));
        waiting.on_failed(peer(1), ConnectError::Unreachable);
        assert_eq!(other_answer.try_recv(), Ok(Err(ConnectError::Unreachable.into())));
    }

    #[test]
    fn patience_ends() {
        let mut waiting = Waiting::default();
        let (reply, answer) = sync_channel(1);
        waiting.for_pong(peer(1), 1, Instant::ZERO + Duration::from_secs(1), reply);
        waiting.forget(Instant::ZERO + Duration::from_secs(1));
        assert!(matches!(answer.try_recv(), Err(TryRecvError::Disconnected)));
    }

    #[test]
    fn who_waits_for_a_peer_that_is_cut_off_hears_it() {
        let mut waiting = Waiting::default();
        let later = Instant::ZERO + Duration::from_secs(9);
        let (link, link_answer) = sync_channel(1);
        let (pong, pong_answer) = sync_channel(1);
        let (other, other_answer) = sync_channel(1);
        waiting.for_link(peer(1), later, link);
        waiting.for_pong(peer(1), 4, later, pong);
        waiting.for_link(peer(2), later, other);
        waiting.on_cut(peer(1));
        assert_eq!(link_answer.try_recv(), Ok(Err(StreamEnd::PeerGone.into())));
        assert_eq!(pong_answer.try_recv(), Ok(Err(StreamEnd::PeerGone.into())));
        assert_eq!(other_answer.try_recv(), Err(TryRecvError::Empty));
    }
}
