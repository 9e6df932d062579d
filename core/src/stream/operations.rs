//! Two [`Streams`] at the ends of a few links, driven by bytes: their applications act, packets are lost, late, doubled
//! and invented, links go and come, services are offered and withdrawn.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::PACKET_LEN_MIN;
use super::authorization::Services;
use super::event::Side;
use super::streams::{DATAGRAMS_MAX, Output, Streams, View};
use crate::api::{Access, Event, StreamEnd, StreamKey};
use crate::identity::{PeerId, SecretKey};
use crate::net::PeerKey;
use crate::operations::Bytes;
use crate::path::Change;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::ServiceName;

/// Links between the two: as if each were several peers.
const LINKS: usize = 2;
/// Most packets on one link's wire; more are lost.
const WIRE_MAX: usize = 128;
/// Most packets that one end may have to say at once.
const SAY_MAX: usize = 10_000;
/// Most operations of one story.
const STEPS_MAX: usize = 300;

/// One of the two.
pub(super) struct End {
    pub(super) streams: Streams,
    side: Side,
    generation: [u32; LINKS],
    /// What is known of each link: whether it is up, has streams, was taken in.
    up: [bool; LINKS],
    busy: [bool; LINKS],
    accepted: [bool; LINKS],
    /// Streams of each link that the application knows.
    pub(super) open: Vec<StreamKey>,
    pub(super) events: Vec<Event>,
}

/// Both, and the wires between them.
pub(super) struct Ends {
    pub(super) now: Instant,
    pub(super) both: [End; 2],
    /// To which end, of which link.
    wire: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    /// Packets and bytes that each end has sent.
    pub(super) sent: [(usize, usize); 2],
}

/// Who is at the other end of a link.
pub(super) fn id(link: usize) -> PeerId {
    SecretKey::from_bytes(&[u8::try_from(link + 1).expect("one of a few"); 32]).peer_id()
}

pub(super) fn name(text: &str) -> ServiceName {
    text.parse().expect("a service name")
}

impl End {
    fn new(n: u8, side: Side) -> Self {
        #[allow(clippy::disallowed_methods)] // Only translates, as QUIC insists on it.
        let origin = std::time::Instant::now();
        let services = Services::new(BTreeMap::new(), &Access::Peers([].into()));
        Self {
            streams: Streams::new(&Seed::new([n; 32]), origin, services),
            side,
            generation: [0; LINKS],
            up: [true; LINKS],
            busy: [false; LINKS],
            accepted: [false; LINKS],
            open: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn key(&self, link: usize) -> PeerKey {
        PeerKey { index: u32::try_from(link).expect("one of a few"), generation: self.generation[link] }
    }

    /// The link as the node would show it.
    pub(super) fn view(&mut self, link: usize) -> View {
        let id = id(link);
        self.accepted[link] |= self.streams.waits_for(&id) || self.streams.services().let_in(&id);
        View { key: self.key(link), id, side: self.side, is_accepted: self.accepted[link] }
    }

    fn link_of(&self, key: PeerKey) -> Option<usize> {
        (0..LINKS).find(|link| self.key(*link) == key)
    }

    /// Carries outputs out as a node does.
    fn carry(&mut self, now: Instant) {
        while let Some(output) = self.streams.poll_output() {
            match output {
                Output::Event(event) => {
                    match event {
                        Event::StreamIncoming { stream, .. } => self.open.push(stream),
                        Event::StreamEnded { stream, .. } => self.open.retain(|other| *other != stream),
                        _ => {}
                    }
                    self.events.push(event);
                }
                Output::Busy { link, busy } => {
                    if let Some(link) = self.link_of(link) {
                        assert_ne!(self.busy[link], busy, "told twice");
                        self.busy[link] = busy;
                    }
                }
                Output::Waits(peer) => {
                    let link = (0..LINKS).find(|link| id(*link) == peer).expect("one of the links");
                    self.open_waiting(now, link);
                }
                Output::Touched(key) | Output::Used(key) => {
                    assert!(self.link_of(key).is_some(), "a link that is gone is of no interest");
                }
            }
        }
    }

    fn open_waiting(&mut self, now: Instant, link: usize) {
        if self.up[link] {
            let view = self.view(link);
            self.streams.open_waiting(now, &view);
        }
    }

    /// Nothing of the old link holds; the next one has another key.
    fn replace(&mut self, now: Instant, link: usize, end: StreamEnd) {
        self.streams.on_link_gone(self.key(link), end);
        self.carry(now);
        assert!(!self.busy[link], "a link that is gone has no streams");
        self.generation[link] += 1;
        self.accepted[link] = false;
    }
}

impl Ends {
    pub(super) fn new() -> Self {
        let both = [End::new(1, Side::Client), End::new(2, Side::Server)];
        Self { now: Instant::from_micros(1), both, wire: BTreeMap::new(), sent: [(0, 0); 2] }
    }

    /// An application opens a stream.
    pub(super) fn open(&mut self, end: usize, link: usize, service: &str) -> StreamKey {
        let this = &mut self.both[end];
        let stream = this.streams.open(id(link), &name(service)).expect("room for a stream");
        this.open.push(stream);
        this.open_waiting(self.now, link);
        this.carry(self.now);
        stream
    }

    /// A packet comes to an end.
    fn receive(&mut self, end: usize, link: usize, packet: &[u8]) {
        let this = &mut self.both[end];
        if this.up[link] {
            let view = this.view(link);
            this.streams.handle_packet(self.now, &view, packet);
        }
    }

    /// The oldest packet on the wire comes to an end; false if there is none.
    fn deliver(&mut self, end: usize, link: usize) -> bool {
        let Some(packet) = self.wire.get_mut(&(end, link)).and_then(VecDeque::pop_front) else { return false };
        self.receive(end, link, &packet);
        true
    }

    /// What is due is done, what is wanted carried out, what is said goes on the wire.
    pub(super) fn settle(&mut self) {
        for n in 0..2 {
            let end = &mut self.both[n];
            for link in 0..LINKS {
                end.streams.handle_timeout_of(self.now, end.key(link));
            }
            end.carry(self.now);
            let mut said = 0;
            while let Some(key) = end.streams.next_ready() {
                said += 1;
                assert!(said < SAY_MAX, "an end never stops talking");
                let train = end.streams.poll_transmit(self.now, key, 4, usize::from(PACKET_LEN_MIN));
                let packets: Vec<Vec<u8>> =
                    train.iter().flat_map(|t| t.bytes.chunks(t.segment)).map(<[u8]>::to_vec).collect();
                end.streams.turn(!packets.is_empty());
                let Some(link) = end.link_of(key) else { continue };
                self.sent[n].0 += packets.len();
                self.sent[n].1 += packets.iter().map(Vec::len).sum::<usize>();
                let wire = self.wire.entry((1 - n, link)).or_default();
                wire.extend(packets);
                wire.truncate(WIRE_MAX);
            }
            for link in 0..LINKS {
                // QUIC may name a moment that has passed since it was last asked; then it is due, once.
                let due = end.streams.poll_timeout_of(end.key(link));
                assert!(due.is_none_or(|at| at >= self.now), "{due:?} is before {:?}", self.now);
            }
            end.streams.assert_consistent();
        }
    }

    /// Packets go to and fro, and time passes, for so long.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let mut moved = false;
            for (end, link) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                moved |= self.deliver(end, link);
            }
            if moved {
                continue;
            }
            let keys = (0..2).flat_map(|end| (0..LINKS).map(move |link| (end, link)));
            let due = keys.filter_map(|(end, link)| {
                let key = self.both[end].key(link);
                self.both[end].streams.poll_timeout_of(key)
            });
            let Some(at) = due.min().map(|at| at.max(self.now + Duration::from_micros(1))) else { break };
            if at > until {
                break;
            }
            self.now = at;
        }
        self.now = until;
        self.settle();
    }

    /// One call of an application on one of its streams.
    fn act(&mut self, n: usize, choice: u8, bytes: &mut Bytes<'_>) {
        let end = &mut self.both[n];
        let Some(&stream) = end.open.get(usize::from(choice >> 5)) else { return };
        let (now, streams) = (self.now, &mut end.streams);
        let _ = match bytes.u8() % 8 {
            0 | 1 => streams.accept(now, stream),
            2 => streams.refuse(now, stream, StreamEnd::Unavailable),
            3 => {
                let len = usize::from(bytes.u16()) % 5_000;
                streams.write(now, stream, &vec![choice; len]).map(drop)
            }
            4 => streams.read(now, stream, &mut [0; 3_000]).map(drop),
            5 => streams.finish(now, stream),
            6 => streams.reset(now, stream, 7),
            _ => streams.stop(now, stream, 7),
        };
    }

    /// One call of the node, of what is not packets.
    fn happen(&mut self, n: usize, choice: u8, bytes: &mut Bytes<'_>) {
        let link = usize::from(choice >> 5) % LINKS;
        let (now, end) = (self.now, &mut self.both[n]);
        let key = end.key(link);
        match bytes.u8() % 9 {
            0 => drop(end.streams.offer(name("x"), Access::Any)),
            1 => drop(end.streams.offer(name("x"), Access::Peers([id(0)].into()))),
            2 => end.streams.withdraw(&name("x")),
            3 => end.streams.on_path(now, key, Change::Upgrade),
            4 => end.streams.on_recovered(now, key),
            5 => {
                end.up[link] = !end.up[link];
                if !end.up[link] {
                    end.replace(now, link, StreamEnd::PeerGone);
                }
                end.open_waiting(now, link);
            }
            6 => {
                end.replace(now, link, StreamEnd::PeerRestarted);
                end.open_waiting(now, link);
            }
            7 => {
                end.streams.end_waiting(&id(link), StreamEnd::PeerGone);
                end.streams.close(now, key);
            }
            _ => {
                for _ in 0..=choice {
                    end.streams.handle_datagram(key, id(link), &[choice; 10]);
                }
                let kept = core::iter::from_fn(|| end.streams.recv_datagram(key, &mut [0; 8])).count();
                assert!(kept <= DATAGRAMS_MAX);
            }
        }
    }

    /// All links go, and the applications give up.
    fn end_all(&mut self) {
        for end in &mut self.both {
            for link in 0..LINKS {
                end.replace(self.now, link, StreamEnd::PeerGone);
                end.streams.end_waiting(&id(link), StreamEnd::PeerGone);
            }
            end.carry(self.now);
            while end.streams.next_ready().is_some() {
                end.streams.turn(false);
            }
            end.streams.assert_empty();
        }
    }
}

/// Reads operations from the bytes and carries them out.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut ends = Ends::new();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let choice = bytes.u8();
        let (end, link) = (usize::from(choice & 1), usize::from(choice >> 4 & 1));
        match choice >> 1 & 7 {
            0 | 1 => drop(ends.deliver(end, link)),
            2 => {
                let wire = ends.wire.entry((end, link)).or_default();
                match bytes.u8() % 3 {
                    0 => drop(wire.pop_front()),
                    1 => wire.extend(wire.front().cloned()),
                    _ => {
                        let len = usize::from(bytes.u8());
                        let packet = bytes.take(len).to_vec();
                        ends.receive(end, link, &packet);
                    }
                }
            }
            3 => ends.now += Duration::from_micros(u64::from(bytes.u16()) << (bytes.u8() % 14)),
            4 if ends.both[end].open.len() < 8 => drop(ends.open(end, link, "x")),
            4 | 5 => ends.act(end, choice, &mut bytes),
            6 => ends.happen(end, choice, &mut bytes),
            _ => ends.run(Duration::from_millis(u64::from(bytes.u8()))),
        }
        ends.settle();
    }
    ends.end_all();
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_is_done() {
        crate::operations::drive_at_random(400, 400, super::drive);
    }
}
