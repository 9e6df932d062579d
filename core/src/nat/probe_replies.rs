//! Answers to probes: what does a packet from this socket look like here, now or after a while?
//!
//! A leaf sends a [`Message::Probe`](crate::wire::message::Message::Probe) over its link to a supernode, but from any
//! socket and to either of the supernode's ports; the answer says where it came from. This is the supernode's side. It
//! answers only where the probe came from, never with more bytes, one packet for one; answers that are to come late are
//! counted per leaf and in all.
//!
//! A life: [`ProbeReplies::on_probe`] takes a probe, and [`ProbeReplies::poll_output`] has its answer, at once or when
//! [`ProbeReplies::handle_timeout`] finds it due. What waits goes when its link does ([`ProbeReplies::forget`]).
//! Opening the alternate port and sending are others' business; who asks, and what is concluded, the leaf's.

#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::account::Account;
use crate::net::{DropReason, Family, Path, PeerKey, SocketId};
use crate::queue;
use crate::time::Instant;
use crate::wire::packet::DATA_OVERHEAD;

/// Most late answers that one leaf may wait for. At the limit its probes are dropped.
const DELAYED_PER_PEER_MAX: usize = 8;
/// Most late answers in all: 100 000 leaves measuring once a day for 4 minutes each come to 280 at a time. At the limit
/// likewise.
const DELAYED_MAX: usize = 16_384;
/// Longest wait: beyond the longest interval between beats there is nothing to learn.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// A probe that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// Over whose link.
    pub(crate) peer: PeerKey,
    /// From where, to which socket.
    pub(crate) path: Path,
    /// Whether that is a proven path of the link.
    pub(crate) is_proven: bool,
    /// Its length, of the whole datagram.
    pub(crate) len: usize,
    /// Comes back in the answer.
    pub(crate) token: [u8; 8],
    /// When to answer.
    pub(crate) delay: Duration,
    /// The answer is to come from the alternate port.
    pub(crate) alternate: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplyOutput {
    /// An answer leaves, over the peer's link but by this path; it says where the probe came from.
    Answer {
        /// Over whose link.
        peer: PeerKey,
        /// From where to where.
        path: Path,
        /// The probe's.
        token: [u8; 8],
        /// The alternate port of this family, or 0.
        alternate_port: u16,
    },
    /// A socket is opened that is the alternate port.
    OpenAlternate(Family),
}

/// The alternate ports that are open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Alternates {
    v4: Option<(SocketId, u16)>,
    v6: Option<(SocketId, u16)>,
}

impl Alternates {
    /// The first of each family among these sockets.
    pub(crate) fn of(sockets: impl Iterator<Item = (SocketId, SocketAddr)>) -> Self {
        let mut alternates = Self::default();
        for (socket, bound) in sockets {
            let slot = match Family::of(&bound) {
                Family::V4 => &mut alternates.v4,
                Family::V6 => &mut alternates.v6,
            };
            slot.get_or_insert((socket, bound.port()));
        }
        alternates
    }

    fn get(&self, family: Family) -> Option<(SocketId, u16)> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Where a late answer stands: when it is due, and its number.
type Place = (Instant, u64);

/// Answers to probes that wait for their moment, or to be sent.
#[derive(Debug, Default)]
pub(crate) struct ProbeReplies {
    /// Late answers, by when they are due.
    due: BTreeMap<Place, (PeerKey, Path, [u8; 8])>,
    /// The same by who waits.
    by_peer: BTreeSet<(PeerKey, Place)>,
    next: u64,
    outputs: VecDeque<ReplyOutput>,
}

impl ProbeReplies {
    /// A leaf asks. The caller serves others; a leaf answers no probes.
    pub(crate) fn on_probe(
        &mut self,
        now: Instant,
        account: &mut Account,
        alternates: &Alternates,
        asked: &Asked,
    ) -> Result<(), DropReason> {
        // A TCP connection shows nothing of how UDP is mapped.
        if asked.path.socket.is_tcp() {
            return Err(DropReason::WrongPath);
        }
        if !asked.is_proven {
            // Entered when the probe comes, although the answer may leave later: what came pays for it.
            let remote = asked.path.remote;
            account.received(now, remote, asked.len);
            let answer_len = DATA_OVERHEAD + if remote.is_ipv4() { 19 } else { 31 };
            if !account.answer(now, remote, answer_len) {
                return Err(DropReason::Limited);
            }
        }
        if asked.delay.is_zero() {
            self.answer(alternates, asked.peer, asked.path, asked.token, asked.alternate);
            return Ok(());
        }
        self.add(now + asked.delay.min(DELAY_MAX), asked)
    }

    fn add(&mut self, at: Instant, asked: &Asked) -> Result<(), DropReason> {
        if self.places_of(asked.peer).count() >= DELAYED_PER_PEER_MAX || self.due.len() >= DELAYED_MAX {
            return Err(DropReason::Limited);
        }
        let place = (at, self.next);
        self.by_peer.insert((asked.peer, place));
        self.due.insert(place, (asked.peer, asked.path, asked.token));
        self.next += 1;
        Ok(())
    }

    /// A link is gone, and nothing waits for it.
    pub(crate) fn forget(&mut self, peer: PeerKey) {
        let places: Vec<Place> = self.places_of(peer).collect();
        for place in places {
            self.by_peer.remove(&(peer, place));
            self.due.remove(&place);
        }
    }

    fn places_of(&self, peer: PeerKey) -> impl Iterator<Item = Place> + '_ {
        let from = (peer, (Instant::ZERO, 0));
        self.by_peer.range(from..).map_while(move |(other, place)| (*other == peer).then_some(*place))
    }

    /// Answers that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, alternates: &Alternates) {
        while let Some(first) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let (place, (peer, path, token)) = first.remove_entry();
            self.by_peer.remove(&(peer, place));
            self.answer(alternates, peer, path, token, false);
        }
    }

    /// When the next one is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing to be done.
    pub(crate) fn poll_output(&mut self) -> Option<ReplyOutput> {
        queue::pop(&mut self.outputs, 0)
    }

    fn answer(&mut self, alternates: &Alternates, peer: PeerKey, path: Path, token: [u8; 8], alternate: bool) {
        let family = Family::of(&path.remote);
        let other = alternates.get(family);
        let path = match (alternate, other) {
            (true, Some((socket, _))) => Path { socket, ..path },
            // The asker tries again, and finds it open.
            (true, None) => return self.outputs.push_back(ReplyOutput::OpenAlternate(family)),
            (false, _) => path,
        };
        let alternate_port = other.map_or(0, |(_, port)| port);
        self.outputs.push_back(ReplyOutput::Answer { peer, path, token, alternate_port });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerKey = PeerKey { index: 0, generation: 1 };

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn asked(delay_s: u64, alternate: bool) -> Asked {
        let remote = SocketAddr::from(([198, 51, 100, 1], 4_000));
        let path = Path { socket: SocketId(0), remote, local: None };
        let delay = Duration::from_secs(delay_s);
        Asked { peer: PEER, path, is_proven: true, len: 74, token: [delay_s as u8; 8], delay, alternate }
    }

    /// What is answered: from which socket, with which token and port.
    fn answers(replies: &mut ProbeReplies) -> Vec<(u32, u8, u16)> {
        core::iter::from_fn(|| replies.poll_output())
            .map(|output| match output {
                ReplyOutput::Answer { path, token, alternate_port, .. } => (path.socket.0, token[0], alternate_port),
                ReplyOutput::OpenAlternate(_) => (u32::MAX, 0, 0),
            })
            .collect()
    }

    #[test]
    fn answers_come_at_once_or_when_asked_for_but_never_after_five_minutes() {
        let (mut replies, mut account) = (ProbeReplies::default(), Account::default());
        let alternates = Alternates::default();
        for delay in [0, 250, 10, 200_000] {
            assert_eq!(replies.on_probe(at(0), &mut account, &alternates, &asked(delay, false)), Ok(()));
        }
        assert_eq!(answers(&mut replies), [(0, 0, 0)]);
        assert_eq!(replies.poll_timeout(), Some(at(10)));
        replies.handle_timeout(at(10), &alternates);
        assert_eq!(answers(&mut replies), [(0, 10, 0)]);
        replies.handle_timeout(at(300), &alternates);
        assert_eq!(answers(&mut replies), [(0, 250, 0), (0, 200_000_u64 as u8, 0)]);
        assert_eq!(replies.poll_timeout(), None);
    }

    #[test]
    fn the_alternate_port_is_opened_when_it_is_asked_for() {
        let (mut replies, mut account) = (ProbeReplies::default(), Account::default());
        let other_family = ("[::]:9".parse().expect("an address"), SocketAddr::from(([0, 0, 0, 0], 8)));
        let v6 = Alternates::of([(SocketId(6), other_family.0)].into_iter());
        assert_eq!(replies.on_probe(at(0), &mut account, &v6, &asked(0, true)), Ok(()));
        assert_eq!(replies.poll_output(), Some(ReplyOutput::OpenAlternate(Family::V4)));
        let both = Alternates::of([(SocketId(6), other_family.0), (SocketId(7), other_family.1)].into_iter());
        assert_eq!(replies.on_probe(at(0), &mut account, &both, &asked(0, true)), Ok(()));
        assert_eq!(replies.on_probe(at(0), &mut account, &both, &asked(0, false)), Ok(()));
        assert_eq!(answers(&mut replies), [(7, 0, 8), (0, 0, 8)]);
    }

    #[test]
    fn one_leaf_waits_for_so_many_and_a_stranger_pays() {
        let (mut replies, mut account) = (ProbeReplies::default(), Account::default());
        let alternates = Alternates::default();
        for _ in 0..DELAYED_PER_PEER_MAX {
            assert_eq!(replies.on_probe(at(0), &mut account, &alternates, &asked(9, false)), Ok(()));
        }
        let result = replies.on_probe(at(0), &mut account, &alternates, &asked(9, false));
        assert_eq!(result, Err(DropReason::Limited));
        replies.forget(PEER);
        assert_eq!(replies.poll_timeout(), None);
        let short = Asked { is_proven: false, len: 10, ..asked(0, false) };
        assert_eq!(replies.on_probe(at(0), &mut account, &alternates, &short), Err(DropReason::Limited));
        let long = Asked { len: 74, ..short };
        assert_eq!(replies.on_probe(at(0), &mut account, &alternates, &long), Ok(()));
        let tcp = Asked { path: Path { socket: SocketId::TCP_FIRST, ..long.path }, ..long };
        assert_eq!(replies.on_probe(at(0), &mut account, &alternates, &tcp), Err(DropReason::WrongPath));
        assert_eq!(answers(&mut replies), [(0, 0, 0)]);
    }

    #[test]
    fn of_many_that_wait_only_who_is_gone_is_forgotten() {
        let (mut replies, mut account) = (ProbeReplies::default(), Account::default());
        let peer = |index: u32| PeerKey { index, generation: 1 };
        let per_peer = u32::try_from(DELAYED_PER_PEER_MAX).expect("small");
        let most = u32::try_from(DELAYED_MAX).expect("small");
        for n in 0..most {
            let asked = Asked { peer: peer(n % (most / per_peer)), ..asked(1 + u64::from(n % 200), false) };
            assert_eq!(replies.on_probe(at(0), &mut account, &Alternates::default(), &asked), Ok(()));
        }
        let another = Asked { peer: peer(most), ..asked(1, false) };
        let result = replies.on_probe(at(0), &mut account, &Alternates::default(), &another);
        assert_eq!(result, Err(DropReason::Limited));
        (0..most / per_peer).filter(|index| index % 3 > 0).for_each(|index| replies.forget(peer(index)));
        assert_eq!((replies.due.len(), replies.by_peer.len()), (683 * 8, 683 * 8));
        assert!(replies.due.values().all(|(peer, ..)| peer.index % 3 == 0));
        replies.handle_timeout(at(200), &Alternates::default());
        assert!(replies.due.is_empty() && replies.by_peer.is_empty());
    }

    #[test]
    fn the_machine_is_driven_at_random() {
        crate::operations::drive_at_random(300, 300, operations::drive);
    }
}
