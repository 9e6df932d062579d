//! A supernode with many idle links: asking for the next deadline, and being woken for nothing, must not depend on how
//! many there are. Prints what one link weighs, by the counting allocator.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use handfast_benches::counting::{Counting, counts};
use handfast_benches::memory::Net;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Virtual time from one leaf to the next: all of them come within what the supernode waits for a sign of life.
const PAUSE: Duration = Duration::from_micros(200);

fn idle(c: &mut Criterion) {
    let quick = std::env::args().any(|argument| argument == "--test");
    let mut net = Net::new();
    let mut leaves = 0;
    let mut group = c.benchmark_group("idle");
    for links in [10, 1_000, 100_000] {
        if quick && links > 1_000 {
            continue;
        }
        let (_, before) = counts();
        let fresh = links - leaves;
        while leaves < links {
            leaves += 1;
            net.add_leaf(leaves);
            net.run_until_ready(leaves);
            // The leaf itself is gone; the supernode does not know.
            net.remove(leaves);
            net.run(PAUSE);
        }
        let (_, after) = counts();
        let now = net.now();
        let supernode = net.node(0);
        supernode.handle_timeout(now);
        assert_eq!(supernode.status(now).leaves as u64, links);
        eprintln!("{links} links: {} bytes each", after.saturating_sub(before) / fresh);
        group.bench_function(BenchmarkId::new("poll_timeout", links), |b| {
            b.iter(|| black_box(supernode.poll_timeout()))
        });
        group.bench_function(BenchmarkId::new("handle_timeout", links), |b| {
            b.iter(|| supernode.handle_timeout(black_box(now)));
        });
    }
    group.finish();
}

criterion_group!(benches, idle);
criterion_main!(benches);
