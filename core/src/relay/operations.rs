//! A relay's channels in any order: opened, used from right and wrong places, moved, closed, idle, exhausted.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::{Closed, End, Limits, Output, Relay};
use crate::api::Relayed;
use crate::identity::{PeerId, SecretKey};
use crate::net::{Path, PeerKey, SocketId};
use crate::operations::Bytes;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::message::Message;
use crate::wire::packet::{ChannelId, Kind};

const PEERS: usize = 6;
/// Bytes of a pair in a day, and of all pairs, where there is a quota.
const PAIR_QUOTA: u64 = 40_000;
const ALL_QUOTA: u64 = 200_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A peer as it stands: its id, where it is, and where it was before.
struct Peer {
    id: PeerId,
    path: Option<Path>,
    before: Option<Path>,
}

/// What a channel is known to be.
struct Known {
    ends: [usize; 2],
    since: Instant,
    /// Bytes of packets with stream data.
    carried: u64,
    /// The pair has had a newer one.
    is_old: bool,
}

fn number(peer: usize) -> u8 {
    u8::try_from(peer).expect("there are few")
}

fn key(peer: usize) -> PeerKey {
    PeerKey { index: number(peer).into(), generation: 1 }
}

fn path(place: u8) -> Path {
    Path { socket: SocketId(0), remote: SocketAddr::from(([203, 0, 113, place], 7)), local: None }
}

fn channel(number: u8) -> ChannelId {
    ChannelId([number; 6])
}

/// Reads operations, and asserts that only what comes from a leg goes on, only to the other one, and within the limits.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let kind = bytes.u8();
    let or_none = |bit: u8, limit: u64| if kind & bit == 0 { 0 } else { limit };
    let pair = Limits { rate_bps: or_none(1, 80_000), quota_bytes: or_none(2, PAIR_QUOTA) };
    let all = Limits { rate_bps: or_none(4, 400_000), quota_bytes: or_none(8, ALL_QUOTA) };
    let mut now = Instant::ZERO;
    let mut relay = Relay::new(now, &Seed::new([7; 32]), pair, all, Relayed::default());
    let mut peers: Vec<Peer> = (0..number(PEERS))
        .map(|n| Peer { id: SecretKey::from_bytes(&[n; 32]).peer_id(), path: Some(path(n)), before: None })
        .collect();
    let mut open: BTreeMap<ChannelId, Known> = BTreeMap::new();
    let (mut next, mut total) = (0, 0);
    let mut told = BTreeMap::new();
    while !bytes.is_empty() {
        let (op, at) = (bytes.u8(), usize::from(bytes.u8()) % PEERS);
        let some = channel(bytes.u8() % next.max(1));
        match op % 16 {
            0..4 if next < u8::MAX => {
                let ends = [at, (at + 1 + usize::from(op >> 4) % (PEERS - 1)) % PEERS];
                let of = |n: usize| End { peer: key(n), id: peers[n].id, path: peers[n].path };
                if relay.has_room(key(ends[0]), key(ends[1])) {
                    let closed = relay.open(now, channel(next), ends.map(of));
                    forget(&mut open, &closed, |known| known.ends.iter().all(|end| ends.contains(end)));
                    let is_of_pair = |known: &&mut Known| known.ends.iter().all(|end| ends.contains(end));
                    open.values_mut().filter(is_of_pair).for_each(|known| known.is_old = true);
                    open.insert(channel(next), Known { ends, since: now, carried: 0, is_old: false });
                    next += 1;
                }
            }
            0..10 => {
                let place = if op & 0x80 == 0 { peers[at].path.unwrap_or(path(number(at))) } else { path(op) };
                let count = 1 + usize::from(bytes.u8() % 4);
                let stride = 8 + usize::from(bytes.u8()) * 4;
                let inner = if op & 0x40 == 0 { Kind::Stream } else { Kind::Data };
                forward(&mut relay, now, (some, place), (inner, count, stride), &peers, &mut open, &mut total);
                assert!(all.quota_bytes == 0 || total <= ALL_QUOTA, "{total} bytes");
                let is_within = |known: &Known| known.carried <= PAIR_QUOTA || now.since(known.since) > DAY;
                assert!(pair.quota_bytes == 0 || open.values().all(is_within));
                check_told(&mut relay, now, &mut open, &mut told);
            }
            10 => {
                let to = (op & 0x80 == 0).then(|| path(bytes.u8()));
                let peer = &mut peers[at];
                if to != peer.path {
                    (peer.before, peer.path) = (peer.path, to);
                }
                relay.set_path(key(at), to);
            }
            11 => {
                let closed = relay.close(now, some);
                assert_eq!(closed.is_empty(), !open.contains_key(&some));
                open.remove(&some);
            }
            12 => {
                let closed = relay.forget(now, key(at));
                assert!(closed.iter().all(|closed| closed.leg != key(at)), "who is gone is not told");
                forget(&mut open, &closed, |known| known.ends.contains(&at));
                assert!(open.values().all(|known| !known.ends.contains(&at)));
            }
            13 if op & 0x80 != 0 => {
                forget(&mut open, &relay.close_all(now), |_| true);
                assert!(open.is_empty());
            }
            _ => {
                now += Duration::from_millis(u64::from(bytes.u16()) * if op & 0x80 == 0 { 1 } else { 100 });
                if relay.is_closing(now) {
                    assert!(relay.is_exhausted());
                    forget(&mut open, &relay.close_all(now), |_| true);
                }
                forget(&mut open, &relay.handle_timeout(now), |_| true);
                assert!(relay.poll_timeout().is_none_or(|at| at > now), "a timer does not advance");
            }
        }
        assert_eq!(relay.len(), open.len());
        assert!(open.keys().all(|channel| relay.contains(*channel)));
    }
}

/// Both ends of a channel are told that it is limited, and not again for three seconds; or that it is closed, where they
/// have a newer one.
fn check_told(
    relay: &mut Relay,
    now: Instant,
    open: &mut BTreeMap<ChannelId, Known>,
    told: &mut BTreeMap<(PeerKey, ChannelId), Instant>,
) {
    let mut closed: BTreeMap<ChannelId, Vec<PeerKey>> = BTreeMap::new();
    while let Some(output) = relay.poll_output() {
        match output {
            Output::Send { peer, message: Message::ChannelLimited { channel, .. } } => {
                assert!(open[&channel].ends.iter().any(|end| key(*end) == peer), "{peer:?} is no leg of {channel:?}");
                let before = told.insert((peer, channel), now);
                assert!(before.is_none_or(|at| now.since(at) >= Duration::from_secs(3)), "told again too soon");
            }
            Output::Send { peer, message: Message::ChannelClosed { channel } } => {
                closed.entry(channel).or_default().push(peer);
            }
            other => panic!("{other:?} is wanted of nobody"),
        }
    }
    for (channel, mut legs) in closed {
        let known = open.remove(&channel).expect("it was open");
        let mut ends = known.ends.map(key);
        legs.sort_unstable();
        ends.sort_unstable();
        assert!(known.is_old && legs == ends, "{channel:?} was closed, and {legs:?} are told");
    }
}

/// These were closed, and had to be such.
fn forget(open: &mut BTreeMap<ChannelId, Known>, closed: &[Closed], may_be: impl Fn(&Known) -> bool) {
    for Closed { channel, .. } in closed {
        // Both legs are told.
        assert!(open.remove(channel).is_none_or(|known| may_be(&known)), "{channel:?} was closed");
    }
}

/// So many datagrams come from a place.
fn forward(
    relay: &mut Relay,
    now: Instant,
    (channel, from): (ChannelId, Path),
    (inner, count, stride): (Kind, usize, usize),
    peers: &[Peer],
    open: &mut BTreeMap<ChannelId, Known>,
    total: &mut u64,
) {
    let mut packet = vec![Kind::Relay as u8];
    packet.extend(channel.0);
    packet.push(inner as u8);
    packet.resize(stride, 0);
    let forwarded = relay.forward(now, channel, &from, stride, &packet.repeat(count));
    let Some(known) = open.get_mut(&channel) else { return assert!(forwarded.is_none(), "there is no such channel") };
    let forwarded = forwarded.expect("it is there").expect("it is short enough");
    assert_eq!((forwarded.run.count.get(), forwarded.run.len), (count, count * stride));
    if let Ok(to) = forwarded.to {
        let [a, b] = known.ends.map(|end| &peers[end]);
        let is_at = |peer: &Peer| peer.path == Some(from) || peer.before == Some(from);
        assert!((is_at(a) && b.path == Some(to)) || (is_at(b) && a.path == Some(to)), "from {from:?} to {to:?}");
        if inner == Kind::Stream {
            known.carried += forwarded.run.len as u64;
            *total += forwarded.run.len as u64;
        }
    }
}

#[test]
fn whatever_is_relayed() {
    crate::operations::drive_at_random(200, 2_000, drive);
}
