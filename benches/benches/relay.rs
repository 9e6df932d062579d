//! Forwarding in the core: one train through a channel, as io would hand it in. Prints what the allocator counted:
//! the goal is none.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use handfast_benches::counting::{Counting, counts};
use handfast_benches::memory::{Net, SOCKET};
use handfast_core::{Path, Received};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A head of Relay and Stream, as far as a relay looks.
const HEAD_LEN: usize = 7;

fn forward(c: &mut Criterion) {
    let mut net = Net::new();
    for number in [1, 2] {
        net.add_leaf(number);
        net.run_until_ready(number);
    }
    net.connect(1, 2);
    net.run_until("something was relayed", |net| net.relayed(1).is_some());
    let head = net.relayed(1).expect("waited for")[..HEAD_LEN].to_vec();
    let path = Path { socket: SOCKET, remote: net.address(1), local: None };
    let target = net.address(2);
    let now = net.now() + Duration::from_millis(1);
    let relay = net.node(0);

    let mut group = c.benchmark_group("relay_forward");
    for (packets, size) in [(1, 64), (1, 1200), (16, 64), (16, 1200), (64, 64)] {
        let mut train = vec![0; packets * size];
        for packet in train.chunks_mut(size) {
            packet[..HEAD_LEN].copy_from_slice(&head);
            packet[HEAD_LEN] = 7;
        }
        let mut call = || {
            let (done, received) = relay.handle_datagrams(now, path, size, black_box(&mut train));
            match received {
                Received::Forward { path, range, stride } => {
                    assert_eq!((done, range.len(), stride), (packets * size, packets * size, size));
                    assert_eq!(path.remote, target);
                }
                other => panic!("not forwarded: {other:?}"),
            }
        };
        call();
        let (before, _) = counts();
        for _ in 0..1000 {
            call();
        }
        let (after, _) = counts();
        eprintln!("{packets} x {size} B: {} allocations in {} packets", after - before, 1000 * packets);
        assert_eq!(after, before, "forwarding allocates");
        group.throughput(Throughput::Elements(packets as u64));
        group.bench_function(BenchmarkId::new(format!("train_of_{packets}"), size), |b| b.iter(&mut call));
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
