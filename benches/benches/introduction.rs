//! What an introduction costs the home, in CPU time of its node alone: everything from the caller's request until
//! both sides talk through the channel. The caller's link to the home exists already, as in a leaf's life.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use handfast_benches::memory::Net;

/// The callee. Callers are counted up from it.
const CALLEE: u64 = 1;
/// Time between two callers, so that the home's limit for each callee never answers.
const PAUSE: Duration = Duration::from_millis(200);

fn introduction(c: &mut Criterion) {
    let mut net = Net::new();
    net.add_leaf(CALLEE);
    net.run_until_ready(CALLEE);
    let mut caller = CALLEE;
    let mut group = c.benchmark_group("introduction");
    group.sample_size(20);
    group.bench_function("at_the_home", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                caller += 1;
                net.add_leaf(caller);
                net.run_until_ready(caller);
                net.run(PAUSE);
                net.time(Some(0));
                net.connect(caller, CALLEE);
                spent += net.time(None);
                let now = net.now();
                net.node(caller).leave(now);
                net.drain(caller);
                net.run(PAUSE);
                net.remove(caller);
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, introduction);
criterion_main!(benches);
