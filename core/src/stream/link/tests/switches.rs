//! Path switches in the middle of transfers.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A transfer each way under way, at 20 Mbit/s.
fn under_way(seed: u64) -> (Pair, Vec<Transfer>) {
    let mut pair = Pair::new(seed);
    pair.rate = 2_500_000;
    pair.apps[SERVER].services.insert(name("s0"), bytes(2, 10_000_000));
    let stream = pair.open(CLIENT, "s0", bytes(1, 10_000_000));
    pair.run_for(Duration::from_secs(2));
    let opened = vec![Transfer { from: CLIENT, stream, there: bytes(1, 10_000_000), back: bytes(2, 10_000_000) }];
    (pair, opened)
}

fn received(pair: &Pair) -> [usize; 2] {
    [CLIENT, SERVER].map(|end| pair.apps[end].received.values().map(Vec::len).sum())
}

#[test]
fn an_upgrade_loses_nothing() {
    for (delay_before, delay_after) in [(80, 10), (10, 80)] {
        let (mut pair, opened) = under_way(1);
        pair.delay = Duration::from_millis(delay_before);
        pair.packet_len_max = PACKET_LEN_MIN as usize;
        pair.run_for(Duration::from_secs(1));
        pair.delay = Duration::from_millis(delay_after);
        pair.packet_len_max = PACKET_LEN_MAX as usize;
        for end in &mut pair.ends {
            end.path_upgraded(pair.now);
        }
        let took = pair.run_until(MINUTE, Pair::all_over);
        println!("upgrade {delay_before} to {delay_after} ms: rest took {took:?}");
        pair.check_many(&opened);
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
}

#[test]
fn a_failover_resumes_at_once() {
    for outage in [500, 3000, 10_000] {
        for narrow in [false, true] {
            let (mut pair, opened) = under_way(2);
            pair.cut = true;
            pair.wire.clear();
            pair.run_for(Duration::from_millis(outage));
            let before = received(&pair);
            pair.cut = false;
            pair.delay = Duration::from_millis(40);
            if narrow {
                pair.packet_len_max = PACKET_LEN_MIN as usize;
            }
            for end in &mut pair.ends {
                end.path_failed_over(pair.now);
            }
            let resumed = pair.run_until(MINUTE, |pair| {
                let after = received(pair);
                after[0] > before[0] && after[1] > before[1]
            });
            let rest = pair.run_until(MINUTE, Pair::all_over);
            println!("outage {outage} ms, narrow {narrow}: resumed after {resumed:?}, rest took {rest:?}");
            pair.check_many(&opened);
            assert!(resumed < Duration::from_millis(400), "outage {outage} narrow {narrow}: {resumed:?}");
            // Where the new path has less room than the old one had proven, the window starts over with less grace.
            let limit = if narrow { 12 } else { 4 };
            assert!(rest < Duration::from_secs(limit), "outage {outage} narrow {narrow}: {rest:?}");
        }
    }
}

#[test]
fn switches_at_random_times_lose_nothing() {
    for seed in 0..12 {
        let mut pair = Pair::new(seed);
        pair.rate = 1_000_000;
        let opened = pair.open_many(10, 300_000);
        for _ in 0..8 {
            let time = pair.rng.jitter(Duration::from_millis(300));
            pair.run_for(time);
            let delay = 1 + pair.rng.below(100) as u64;
            pair.delay = Duration::from_millis(delay);
            pair.packet_len_max = 1200 + pair.rng.below(240);
            let dead = pair.rng.below(2) == 0;
            if dead {
                pair.wire.clear();
                pair.cut = true;
                pair.run_for(Duration::from_millis(1500));
                pair.cut = false;
            }
            for end in &mut pair.ends {
                if dead {
                    end.path_failed_over(pair.now);
                } else {
                    end.path_upgraded(pair.now);
                }
            }
        }
        pair.run_until(MINUTE, Pair::all_over);
        pair.check_many(&opened);
    }
}

#[test]
fn a_failover_of_an_idle_connection_is_nothing_much() {
    let mut pair = Pair::new(3);
    pair.apps[SERVER].services.insert(name("x"), Vec::new());
    pair.open(CLIENT, "x", Vec::new());
    pair.run_for(Duration::from_secs(10));
    for end in &mut pair.ends {
        end.path_failed_over(pair.now);
    }
    let before = pair.sent;
    pair.run_for(Duration::from_secs(10));
    assert!(pair.sent[CLIENT].0 - before[CLIENT].0 < 12, "{before:?} {:?}", pair.sent);
    // Without a connection it is nothing at all.
    pair.run_for(2 * MINUTE);
    let before = pair.sent;
    for end in &mut pair.ends {
        assert!(end.is_disposable());
        end.path_failed_over(pair.now);
        end.path_upgraded(pair.now);
    }
    pair.run_for(MINUTE);
    assert_eq!(pair.sent, before);
}
