//! A link's costs: sealing and opening packets, and a handshake on both sides, from a known `PeerId` to keys.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use handfast_benches::key;
use handfast_core::DATAGRAM_LEN_MAX;
use handfast_core::internal::KeyRng;
use handfast_core::internal::{
    Accepted, Epoch, Identity, InitFixed, Initiation, Macs, PeerKeys, ResponseFixed, TransportKeys, accept, initiate,
};
use handfast_core::wire::packet::{DATA_HEADER_LEN, DATA_OVERHEAD, Kind};

const INIT: InitFixed = InitFixed { time_us: 1, session: 2 };
const RESPONSE: ResponseFixed = ResponseFixed { early_accepted: true, resumed: false, session: 3 };
/// About what a registration or an introduction puts into an Init.
const BODY: [u8; 160] = [1; 160];

type Buffer = [u8; DATAGRAM_LEN_MAX];

struct Pair {
    alice: Identity,
    bob: Identity,
    to_bob: PeerKeys,
    keys: KeyRng,
}

impl Pair {
    fn new() -> Self {
        let [alice, bob] = [1, 2].map(|number| Identity::new(key(number)));
        let to_bob = PeerKeys::new(bob.id()).expect("a good key");
        Self { alice, bob, to_bob, keys: KeyRng::new([3; 32]) }
    }

    fn initiate(&mut self, out: &mut Buffer) -> (Initiation, usize) {
        initiate(&self.alice, &self.to_bob, &mut self.keys, 17, INIT, &BODY, Macs::Plain, out).expect("it fits")
    }

    fn accept(&self, init: &[u8]) -> Accepted {
        accept(&self.bob, init, true, &mut [0; DATAGRAM_LEN_MAX]).expect("genuine").0
    }

    fn respond(&mut self, accepted: Accepted, out: &mut Buffer) -> (TransportKeys, usize) {
        accepted.respond(&mut self.keys, 23, RESPONSE, &BODY, out).expect("it fits")
    }

    fn epochs(&mut self) -> [Epoch; 2] {
        let (mut init, mut response) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
        let (mut initiation, len) = self.initiate(&mut init);
        let (keys_of_bob, len) = {
            let accepted = self.accept(&init[..len]);
            self.respond(accepted, &mut response)
        };
        let finished = initiation.finish(&response[..len], &mut init).expect("genuine");
        [Epoch::new(finished.0, 17, 23), Epoch::new(keys_of_bob, 23, 17)]
    }
}

fn handshake(c: &mut Criterion) {
    let mut pair = Pair::new();
    let mut group = c.benchmark_group("link_handshake");
    let mut init = [0; DATAGRAM_LEN_MAX];
    group.bench_function("initiator_init", |b| b.iter(|| black_box(pair.initiate(&mut init))));
    let len = pair.initiate(&mut init).1;
    group.bench_function("responder", |b| {
        let mut response = [0; DATAGRAM_LEN_MAX];
        b.iter(|| {
            let accepted = pair.accept(black_box(&init[..len]));
            black_box(pair.respond(accepted, &mut response))
        });
    });
    group.bench_function("initiator_finish", |b| {
        b.iter_batched(
            || {
                let (mut init, mut response) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
                let (initiation, len) = pair.initiate(&mut init);
                let accepted = pair.accept(&init[..len]);
                let (_, len) = pair.respond(accepted, &mut response);
                (initiation, response, len)
            },
            |(mut initiation, response, len)| {
                let mut body = [0; DATAGRAM_LEN_MAX];
                black_box(initiation.finish(&response[..len], &mut body).expect("genuine"))
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("peer_keys", |b| b.iter(|| black_box(PeerKeys::new(pair.bob.id()))));
    group.finish();
}

fn transport(c: &mut Criterion) {
    let mut pair = Pair::new();
    let [mut alice, mut bob] = pair.epochs();
    let mut group = c.benchmark_group("link_transport");
    for len in [64, 1200] {
        group.throughput(Throughput::Bytes(len as u64));
        let mut packet = vec![0; len + DATA_OVERHEAD];
        group.bench_function(BenchmarkId::new("seal", len), |b| {
            b.iter(|| alice.seal(Kind::Stream, black_box(&mut packet), len));
        });
        group.bench_function(BenchmarkId::new("open", len), |b| {
            b.iter_batched_ref(
                || {
                    packet[DATA_HEADER_LEN..].fill(0);
                    let sealed = alice.seal(Kind::Stream, &mut packet, len).expect("far from the last counter");
                    packet[..sealed].to_vec()
                },
                |packet| assert!(bob.open(packet).is_ok_and(|text| text.len() == len)),
                // One after the other: the replay window takes no older packet than 2 048 back.
                BatchSize::NumIterations(1000),
            );
        });
    }
    group.finish();
}

criterion_group!(benches, handshake, transport);
criterion_main!(benches);
