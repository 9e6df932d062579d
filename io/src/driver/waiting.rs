//! Who waits for a link to come up, or for a pong.
//!
//! Answers come as events; a lost ping has none, so everyone who waits has a deadline after which the loop forgets
//! them. The caller measures its own patience; forgetting late harms nobody.

use std::collections::BTreeMap;

use handfast_core::{ConnectError, Instant, PathInfo, PeerId, StreamEnd};

use super::command::Reply;
use crate::api::{OpenError, Pong};

/// The answer to something that the network has a say in.
type Waited<T> = Result<T, OpenError>;

struct Waiter<T> {
    until: Instant,
    reply: Reply<Waited<T>>,
}

impl<T> Waiter<T> {
    fn answer(self, with: Waited<T>) {
        // Whoever gave up meanwhile does not hear it.
        let _ = self.reply.send(with);
    }
}

/// All that wait.
#[derive(Default)]
pub(super) struct Waiting {
    links: BTreeMap<PeerId, Vec<Waiter<PathInfo>>>,
    /// By the number of the ping, which no other has.
    pongs: BTreeMap<(PeerId, u64), Waiter<Pong>>,
}

impl Waiting {
    /// `reply` is to hear when the link to `peer` is up.
    pub(super) fn for_link(&mut self, peer: PeerId, until: Instant, reply: Reply<Waited<PathInfo>>) {
        self.links.entry(peer).or_default().push(Waiter { until, reply });
    }

    /// `reply` is to hear the answer to ping number `sequence`.
    pub(super) fn for_pong(&mut self, peer: PeerId, sequence: u64, until: Instant, reply: Reply<Waited<Pong>>) {
        self.pongs.insert((peer, sequence), Waiter { until, reply });
    }

    /// The link is up.
    pub(super) fn on_link(&mut self, peer: PeerId, path: PathInfo) {
        self.links.remove(&peer).into_iter().flatten().for_each(|waiter| waiter.answer(Ok(path)));
    }

    /// An answer to a ping.
    pub(super) fn on_pong(&mut self, peer: PeerId, sequence: u64, pong: Pong) {
        if let Some(waiter) = self.pongs.remove(&(peer, sequence)) {
            waiter.answer(Ok(pong));
        }
    }

    /// The peer cannot be reached.
    pub(super) fn on_failed(&mut self, peer: PeerId, error: ConnectError) {
        self.end(peer, error.into());
    }

    /// This node has cut the peer off.
    pub(super) fn on_cut(&mut self, peer: PeerId) {
        self.end(peer, OpenError::Ended(StreamEnd::PeerGone));
    }

    /// Forgets those whose patience is over.
    pub(super) fn forget(&mut self, now: Instant) {
        self.links.retain(|_, waiters| {
            waiters.retain(|waiter| waiter.until > now);
            !waiters.is_empty()
        });
        self.pongs.retain(|_, waiter| waiter.until > now);
    }

    fn end(&mut self, peer: PeerId, why: OpenError) {
        self.links.remove(&peer).into_iter().flatten().for_each(|waiter| waiter.answer(Err(why)));
        while let Some((&ping, _)) = self.pongs.range((peer, 0)..=(peer, u64::MAX)).next() {
            self.pongs.remove(&ping).into_iter().for_each(|waiter| waiter.answer(Err(why)));
        }
    }
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
        let (link, link_answer) = sync_channel(1);
        let (patient, patient_answer) = sync_channel(1);
        waiting.for_pong(peer(1), 1, Instant::ZERO + Duration::from_secs(1), reply);
        waiting.for_link(peer(1), Instant::ZERO + Duration::from_secs(1), link);
        waiting.for_link(peer(1), Instant::ZERO + Duration::from_secs(2), patient);
        waiting.forget(Instant::ZERO + Duration::from_secs(1));
        assert!(matches!(answer.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(matches!(link_answer.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(matches!(patient_answer.try_recv(), Err(TryRecvError::Empty)));
        waiting.forget(Instant::ZERO + Duration::from_secs(2));
        assert!(waiting.links.is_empty() && waiting.pongs.is_empty(), "nothing is kept of them");
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
