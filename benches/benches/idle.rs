//! A supernode with many idle links: asking for the next deadline, and being woken for nothing, must not depend on how
//! many there are. Prints what one link weighs, by the counting allocator.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use handfast_benches::counting::{Counting, counts};
use handfast_benches::memory::Net;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many leaves come at once. The more, the less virtual time passes until all have come; it must be less than what
/// the supernode waits for a sign of life.
const AT_ONCE: u64 = 250;

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
            let fresh = leaves + 1..=links.min(leaves + AT_ONCE);
            fresh.clone().for_each(|number| net.add_leaf(number));
            fresh.clone().for_each(|number| net.run_until_ready(number));
            // The leaves are gone; the supernode does not know.
            leaves = *fresh.end();
            fresh.for_each(|number| net.remove(number));
        }
        let (_, after) = counts();
        let now = net.now();
        eprintln!("all of them came within {:?}", now.since(handfast_core::Instant::ZERO));
        let supernode = net.node(0);
        supernode.handle_timeout(now);
        assert_eq!(supernode.status(now).leaves as u64, links);
        eprintln!("{links} links: {} bytes each", after.saturating_sub(before) / fresh);
        group.bench_function(BenchmarkId::new("poll_timeout", links), |b| {
            b.iter(|| black_box(supernode.poll_timeout()));
        });
        group.bench_function(BenchmarkId::new("handle_timeout", links), |b| {
            b.iter(|| supernode.handle_timeout(black_box(now)));
        });
    }
    group.finish();
}

criterion_group!(benches, idle);
criterion_main!(benches);
