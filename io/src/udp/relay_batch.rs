//! What a relay forwards, on its way from the receive buffer to the socket.
//!
//! Walking the kernel's stack once per datagram is what relaying costs, so as many datagrams as possible leave in one
//! GSO send. A train goes out at once, straight from the buffer it was received into. Single datagrams are gathered in
//! a small [`RelayBatch`] as long as the next one goes the same way and fits the same train; the loop flushes it after
//! each received batch, so nothing waits. There is no queue: what the socket does not take is dropped.

use handfast_core::Path;

use super::socket::{SEGMENTS_MAX, TRAIN_LEN_MAX};

/// Neighbouring single datagrams to one destination, about to become one train.
pub(crate) struct RelayBatch {
    path: Option<Path>,
    stride: usize,
    bytes: Vec<u8>,
}

impl RelayBatch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Self { path: None, stride: 0, bytes: Vec::with_capacity(TRAIN_LEN_MAX) }
    }

    /// Takes datagrams of `stride` bytes each (the last may be shorter), to go to `path`. `send` is called with what
    /// is to leave now.
    pub(crate) fn push(&mut self, path: Path, bytes: &[u8], stride: usize, mut send: impl FnMut(&Path, &[u8], usize)) {
        if bytes.len() > stride {
            self.flush(&mut send);
            send(&path, bytes, stride);
        } else if self.fits(&path, bytes.len()) {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.flush(&mut send);
            self.path = Some(path);
            self.stride = bytes.len();
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(&Path, &[u8], usize)) {
        if let Some(path) = self.path.take() {
            send(&path, &self.bytes, self.stride);
            self.bytes.clear();
        }
    }

    /// Whether a datagram of `len` bytes may follow: only the last of a train may be shorter than the others.
    fn fits(&self, path: &Path, len: usize) -> bool {
        self.path.is_some_and(|own| own == *path && own.local == path.local)
            && (1..=self.stride).contains(&len)
            && self.bytes.len().is_multiple_of(self.stride)
            && self.bytes.len() / self.stride < SEGMENTS_MAX
            && self.bytes.len() + len <= TRAIN_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::SocketId;

    use super::*;

    fn path(port: u16) -> Path {
        Path { socket: SocketId(0), remote: ([127, 0, 0, 1], port).into(), local: None }
    }

    /// What left: port, lengths of the datagrams.
    fn run(inputs: &[(u16, usize, usize)]) -> Vec<(u16, Vec<usize>)> {
        let mut left = Vec::new();
        let mut batch = RelayBatch::new();
        let mut send = |path: &Path, bytes: &[u8], stride: usize| {
            left.push((path.remote.port(), bytes.chunks(stride).map(<[u8]>::len).collect()));
        };
        for &(port, len, stride) in inputs {
            batch.push(path(port), &vec![7; len], stride, &mut send);
        }
        batch.flush(&mut send);
        batch.flush(&mut send);
        left
    }

    #[test]
    fn neighbours_to_one_destination_become_one_train() {
        assert_eq!(run(&[(1, 100, 100), (1, 100, 100), (1, 60, 60)]), [(1, vec![100, 100, 60])]);
    }

    #[test]
    fn a_short_datagram_ends_a_train_and_a_longer_one_starts_another() {
        assert_eq!(
            run(&[(1, 100, 100), (1, 60, 60), (1, 60, 60), (1, 61, 61)]),
            [(1, vec![100, 60]), (1, vec![60]), (1, vec![61])]
        );
    }

    #[test]
    fn order_is_kept_across_destinations_and_trains() {
        assert_eq!(
            run(&[(1, 50, 50), (2, 50, 50), (2, 130, 50), (1, 50, 50)]),
            [(1, vec![50]), (2, vec![50]), (2, vec![50, 50, 30]), (1, vec![50])]
        );
    }

    #[test]
    fn a_train_has_at_most_64_datagrams_and_the_bytes_that_udp_can_carry() {
        let small = run(&[(1, 10, 10); 65]);
        assert_eq!(small.iter().map(|(_, lens)| lens.len()).collect::<Vec<_>>(), [64, 1]);
        let large = run(&[(1, 1400, 1400); 64]);
        assert!(large.iter().all(|(_, lens)| lens.iter().sum::<usize>() <= 65_507));
        assert_eq!(large.iter().map(|(_, lens)| lens.len()).sum::<usize>(), 64);
    }
}
