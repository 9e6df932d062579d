//! Networks of more supernodes than their tables have places for.

use core::time::Duration;

use handfast_tests::HostId;
use handfast_tests::scale::Args;
use handfast_tests::scale::crowd::{Crowd, Doings};

const TABLE: usize = 64;

/// How many supernodes each of these knows.
fn known(crowd: &Crowd, hosts: &[HostId]) -> Vec<usize> {
    let status = |host: &HostId| crowd.w.node(*host).status(crowd.w.now());
    hosts.iter().map(|host| status(host).supernodes.len()).collect()
}

/// The share of calls that found their peer over the network.
fn found_percent(crowd: &mut Crowd, tag: u8) -> f64 {
    for _ in 0..30 {
        crowd.call_somebody(tag, None, |_, _| true);
        crowd.run_for(Duration::from_secs(4));
    }
    let calls = crowd.calls.count(|call| call.tag == tag);
    assert!(calls.all() >= 25, "{} calls show little", calls.all());
    calls.found_percent().expect("some")
}

#[test]
fn beyond_its_table_a_network_works_as_before_and_so_it_does_when_it_is_smaller_again() {
    let args = Args { supernodes: 90, leaves: 40, table_max: TABLE, seed: 5, ..Args::default() };
    let mut crowd = Crowd::settled(&args, Doings::default(), Vec::new());
    crowd.run_for(Duration::from_secs(600));
    let serving = crowd.serving.clone();
    let tables = known(&crowd, &serving);
    assert!(tables.iter().all(|count| *count <= TABLE), "{tables:?}");
    assert!(tables.iter().filter(|count| **count >= TABLE / 2).count() >= 80, "{tables:?}");
    assert!(found_percent(&mut crowd, 1) >= 96.0);
    // Two in three crash: those that are left all fit into a table, and come to know one another.
    for host in &serving[30..] {
        crowd.crash_supernode(*host);
    }
    crowd.run_for(Duration::from_secs(4_500));
    let tables = known(&crowd, &serving[..30]);
    assert!(tables.iter().all(|count| *count == 29), "{tables:?}");
    assert!(found_percent(&mut crowd, 2) >= 96.0);
}
