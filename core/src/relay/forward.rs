//! What of a received buffer is for one channel: the longest run of its datagrams, as one GSO batch.

use core::num::NonZeroUsize;

use crate::net::Path;
use crate::wire::RECEIVE_LEN_MAX;
use crate::wire::packet::{ChannelId, Kind, RELAY_HEADER_LEN};

/// Most datagrams forwarded as one batch: the kernel's limit for GSO.
const SEGMENTS_MAX: usize = 64;

/// The datagrams at the start of a buffer that go the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// How many.
    pub(crate) count: NonZeroUsize,
    /// How many bytes they are together.
    pub(crate) len: usize,
}

/// A run that was forwarded, or why it was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forwarded {
    /// Which datagrams.
    pub(crate) run: Run,
    /// Where they go on to.
    pub(crate) to: Result<Path, crate::net::DropReason>,
}

/// The channel that a packet names, if it is a Relay packet that may be forwarded.
#[inline]
pub(crate) fn channel_of(packet: &[u8]) -> Option<ChannelId> {
    let (header, rest) = packet.split_first_chunk::<RELAY_HEADER_LEN>()?;
    let [kind, channel @ ..] = *header;
    (kind == Kind::Relay as u8 && is_relayable(rest)).then_some(ChannelId(channel))
}

/// Whether such a packet may be inside of a Relay packet.
#[inline]
fn is_relayable(packet: &[u8]) -> bool {
    packet.first().and_then(|kind| Kind::from_byte(*kind)).is_some_and(Kind::is_relayable)
}

/// The run at the start of `data`, which are datagrams of `stride` bytes each, the first of them a Relay packet; none
/// where that one is too long.
#[inline]
pub(super) fn run(data: &[u8], stride: usize) -> Option<Run> {
    let first = data.len().min(stride);
    if first > RECEIVE_LEN_MAX {
        return None;
    }
    if first == data.len() {
        // Most are alone.
        return Some(Run { count: NonZeroUsize::MIN, len: first });
    }
    let header = data.first_chunk::<RELAY_HEADER_LEN>()?;
    let goes_along =
        |packet: &&[u8]| packet.split_first_chunk().is_some_and(|(other, rest)| other == header && is_relayable(rest));
    let count = 1 + data.chunks(stride).take(SEGMENTS_MAX).skip(1).take_while(goes_along).count();
    Some(Run { count: NonZeroUsize::new(count)?, len: data.len().min(count.saturating_mul(stride)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(channel: u8, inner: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![Kind::Relay as u8];
        bytes.extend([channel; 6]);
        bytes.push(inner);
        bytes.resize(len, 0);
        bytes
    }

    #[test]
    fn a_run_ends_where_another_channel_or_what_may_not_be_relayed_begins() {
        let same = || packet(1, Kind::Data as u8, 20);
        let run_of = |packets: &[Vec<u8>]| run(&packets.concat(), 20).map(|run| (run.count.get(), run.len));
        assert_eq!(run_of(&[same(), same(), same()]), Some((3, 60)));
        assert_eq!(run_of(&[same(), packet(1, Kind::Data as u8, 9)]), Some((2, 29)), "the last may be shorter");
        assert_eq!(run_of(&[same(), packet(2, Kind::Data as u8, 20)]), Some((1, 20)));
        assert_eq!(run_of(&[same(), packet(1, Kind::Cookie as u8, 20)]), Some((1, 20)));
        assert_eq!(run_of(&vec![same(); 100]), Some((SEGMENTS_MAX, SEGMENTS_MAX * 20)));
        let long = packet(1, Kind::Data as u8, RECEIVE_LEN_MAX + 1);
        assert_eq!(run(&long, long.len()), None);
    }

    #[test]
    fn only_a_whole_relay_packet_names_a_channel() {
        let whole = packet(7, Kind::Stream as u8, 8);
        assert_eq!(channel_of(&whole), Some(ChannelId([7; 6])));
        for len in 0..whole.len() {
            assert_eq!(channel_of(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(channel_of(&packet(7, Kind::Relay as u8, 8)), None, "no Relay in Relay");
    }
}
