//! Target for the QUIC streams inside a link: two ends, a wire that loses, repeats, changes and invents packets.
//!
//! On a real link every packet is authentic, so only the peer itself can invent; it must not harm us all the same.

use std::collections::VecDeque;
use std::time::Duration;

use handfast_core::internal::{LinkEvent, LinkStreams, LocalStream, PACKET_LEN_MIN, Side};
use handfast_core::{Instant, StreamEnd};

use crate::bytes::{Bytes, ignore};

/// Most packets on the wire; more are lost.
const WIRE_MAX: usize = 256;
/// Most packets that one end may have to say at once.
const SAY_MAX: usize = 10_000;

struct Ends {
    now: Instant,
    ends: [LinkStreams; 2],
    wire: [VecDeque<Vec<u8>>; 2],
    open: [Vec<LocalStream>; 2],
}

/// Two ends of one link, driven by the bytes.
pub fn stream(data: &[u8]) {
    let mut bytes = Bytes(data);
    let origin = std::time::Instant::now();
    let now = Instant::from_micros(1);
    let end = |side, seed| LinkStreams::new(now, origin, side, [seed; 32]);
    let mut ends = Ends {
        now,
        ends: [end(Side::Client, 1), end(Side::Server, 2)],
        wire: Default::default(),
        open: Default::default(),
    };
    let service = "fuzz".parse().expect("a good name");
    for _ in 0..400 {
        if bytes.is_empty() {
            return;
        }
        let choice = bytes.u8();
        let side = usize::from(choice & 1);
        match choice >> 1 & 15 {
            0 | 1 => ends.deliver(side, |_| {}),
            2 => {
                let (at, with) = (bytes.below(1200), bytes.u8());
                ends.deliver(side, |packet| {
                    if let Some(byte) = packet.get_mut(at) {
                        *byte ^= with;
                    }
                });
            }
            3 => drop(ends.wire[side].pop_front()),
            4 => {
                if let Some(packet) = ends.wire[side].front().cloned() {
                    ends.wire[side].push_back(packet);
                }
            }
            5 | 6 => {
                let packet = bytes.slice(1200);
                ends.ends[side].handle_packet(ends.now, packet);
            }
            7 => ends.now += Duration::from_micros(u64::from(bytes.u16()) << (bytes.u8() % 16)),
            8 => {
                if let Ok(stream) = ends.ends[side].open(ends.now, &service) {
                    ends.open[side].push(stream);
                }
            }
            9 | 10 => {
                let text = bytes.slice(4000);
                ends.with(side, choice, |end, now, stream| ignore(end.write(now, stream, text)));
            }
            11 => ends.with(side, choice, |end, now, stream| {
                let mut buf = [0; 3000];
                let _ = end.read(now, stream, &mut buf);
            }),
            12 => ends.with(side, choice, |end, now, stream| ignore(end.finish(now, stream))),
            13 => ends.with(side, choice, |end, now, stream| ignore(end.reset(now, stream, 7))),
            14 => ends.ends[side].path_failed_over(ends.now),
            _ => ends.ends[side].path_upgraded(ends.now),
        }
        ends.settle();
    }
}

impl Ends {
    fn with(&mut self, side: usize, choice: u8, act: impl FnOnce(&mut LinkStreams, Instant, LocalStream)) {
        let open = &self.open[side];
        if open.is_empty() {
            return;
        }
        let stream = open[usize::from(choice >> 5) % open.len()];
        act(&mut self.ends[side], self.now, stream);
    }

    /// Hands the oldest packet to `side`.
    fn deliver(&mut self, side: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(mut packet) = self.wire[side].pop_front() else { return };
        change(&mut packet);
        self.ends[side].handle_packet(self.now, &packet);
    }

    /// What is due is done, what is said goes on the wire.
    fn settle(&mut self) {
        for side in 0..2 {
            let end = &mut self.ends[side];
            if end.poll_timeout().is_some_and(|due| due <= self.now) {
                end.handle_timeout(self.now);
            }
            let mut buf = Vec::new();
            let mut said = 0;
            while let Some(len) = end.poll_transmit(self.now, 4, usize::from(PACKET_LEN_MIN), &mut buf) {
                said += 1;
                assert!(said < SAY_MAX, "an end never stops talking");
                assert!(len > 0 && !buf.is_empty());
                for packet in buf.chunks(len) {
                    if self.wire[1 - side].len() < WIRE_MAX {
                        self.wire[1 - side].push_back(packet.to_vec());
                    }
                }
            }
            while let Some(event) = end.poll_event() {
                match event {
                    LinkEvent::Incoming { stream, .. } => {
                        if stream.0 % 4 == 3 {
                            let _ = end.refuse(self.now, stream, StreamEnd::NotAllowed);
                        } else if end.accept(self.now, stream).is_ok() {
                            self.open[side].push(stream);
                        }
                    }
                    LinkEvent::Ended { stream, .. } => self.open[side].retain(|other| *other != stream),
                    _ => {}
                }
            }
        }
    }
}
