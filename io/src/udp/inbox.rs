//! The buffers that a batch of trains is received into, shared by all sockets.
//!
//! The table of sockets fills them ([`Inbox::fill`]); the loop then takes the trains out ([`Inbox::arrivals`]) as the
//! core wants them: addresses canonical, the local address only where it may be answered from.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;

use handfast_core::wire::address::canonical;
use handfast_core::{Path, SocketId};
use quinn_udp::RecvMeta;

use super::detour::Detour;

/// Trains received in one system call.
pub(super) const BATCH: usize = quinn_udp::BATCH_SIZE;
/// Room for the longest train: nothing is ever cut, so nothing cut is ever taken for whole.
const TRAIN_ROOM: usize = 64 * 1024;

/// Buffers for one batch of received trains.
pub(crate) struct Inbox {
    storage: Box<[u8]>,
    detour: Option<Detour>,
    meta: [RecvMeta; BATCH],
}

/// One received train.
pub(crate) struct Arrival<'a> {
    path: Path,
    stride: usize,
    data: &'a mut [u8],
}

impl<'a> Arrival<'a> {
    /// Datagrams of `stride` bytes each but the last, and how they came.
    pub(crate) fn new(path: Path, stride: usize, data: &'a mut [u8]) -> Self {
        Self { path, stride, data }
    }

    /// Where from, on which socket, and the local address it was sent to.
    pub(crate) fn path(&self) -> Path {
        self.path
    }

    /// Size of each datagram but the last.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The datagrams.
    pub(crate) fn into_data(self) -> &'a mut [u8] {
        self.data
    }
}

impl Inbox {
    /// Empty buffers. Their pages become resident as they are used.
    pub(crate) fn new(detour: Option<Detour>) -> Self {
        Self { storage: vec![0; BATCH * TRAIN_ROOM].into_boxed_slice(), detour, meta: [RecvMeta::default(); BATCH] }
    }

    /// The first `count` trains, as received from `socket`.
    pub(crate) fn arrivals(&mut self, socket: SocketId, count: usize) -> impl Iterator<Item = Arrival<'_>> {
        let detour = self.detour;
        self.storage.chunks_exact_mut(TRAIN_ROOM).zip(&self.meta).take(count).flat_map(move |(buffer, meta)| {
            let remote = canonical(meta.addr);
            let local = meta.dst_ip.map(|ip| ip.to_canonical()).filter(is_answerable);
            let stride = if meta.stride == 0 { meta.len } else { meta.stride };
            let data = &mut buffer[..meta.len.min(TRAIN_ROOM)];
            // On a detour each datagram has a header of its own, so a train is taken apart.
            let size = if detour.is_some() { stride } else { data.len() };
            data.chunks_mut(size.max(1)).filter_map(move |data| match detour {
                None => Some(Arrival { path: Path { socket, remote, local }, stride, data }),
                Some(detour) => {
                    let (far, data) = detour.unwrap(remote, data)?;
                    let path = Path { socket, remote: canonical(far), local: None };
                    Some(Arrival { path, stride: data.len(), data })
                }
            })
        })
    }

    /// Has `receive` fill the buffers; it says how many it filled.
    pub(super) fn fill(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>; BATCH], &mut [RecvMeta; BATCH]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut rooms = self.storage.chunks_exact_mut(TRAIN_ROOM);
        let mut buffers: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
        receive(&mut buffers, &mut self.meta)
    }
}

/// Whether an answer may be sent from the address that a datagram came to.
fn is_answerable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// An inbox with one train.
    fn inbox(detour: Option<Detour>, from: &str, to: &str, bytes: &[u8], stride: usize) -> Inbox {
        let mut inbox = Inbox::new(detour);
        let filled = inbox.fill(|buffers, meta| {
            buffers[0][..bytes.len()].copy_from_slice(bytes);
            (meta[0].addr, meta[0].len, meta[0].stride) = (addr(from), bytes.len(), stride);
            meta[0].dst_ip = Some(to.parse().expect("an address"));
            Ok(1)
        });
        assert_eq!(filled.expect("filled"), 1);
        inbox
    }

    fn arrivals(mut inbox: Inbox) -> Vec<(Path, usize, Vec<u8>)> {
        inbox.arrivals(SocketId(3), 1).map(|a| (a.path(), a.stride(), a.into_data().to_vec())).collect()
    }

    #[test]
    fn a_train_comes_out_whole_with_addresses_in_their_one_form() {
        let got = arrivals(inbox(None, "[::ffff:192.0.2.1]:7", "::ffff:192.0.2.9", b"aabbc", 2));
        let [(path, 2, data)] = &got[..] else { panic!("{got:?}") };
        assert_eq!(
            (path.socket, path.remote, path.local),
            (SocketId(3), addr("192.0.2.1:7"), Some(addr("192.0.2.9:0").ip()))
        );
        assert_eq!(data, b"aabbc");
    }

    #[test]
    fn nobody_answers_from_a_group_and_a_train_without_a_stride_is_one_datagram() {
        let got = arrivals(inbox(None, "192.0.2.1:7", "224.0.0.1", b"abc", 0));
        assert_eq!((got[0].0.local, got[0].1), (None, 3));
    }

    #[test]
    fn on_a_detour_each_datagram_says_for_itself_where_it_is_from() {
        let by_first_byte = |datagram: &[u8]| Some((SocketAddr::from(([192, 0, 2, *datagram.first()?], 7)), 1));
        let detour = Detour::new(addr("127.0.0.1:1"), |_, _| 0, by_first_byte);
        let got = arrivals(inbox(Some(detour), "127.0.0.1:1", "127.0.0.1", b"\x01a\x02b\x03", 2));
        let told: Vec<_> = got.iter().map(|(path, _, data)| (path.remote.to_string(), data.as_slice())).collect();
        assert_eq!(
            told,
            [("192.0.2.1:7".into(), &b"a"[..]), ("192.0.2.2:7".into(), b"b"), ("192.0.2.3:7".into(), b"")]
        );
        assert!(arrivals(inbox(Some(detour), "127.0.0.1:2", "127.0.0.1", b"\x01a", 2)).is_empty(), "not by the detour");
    }
}
