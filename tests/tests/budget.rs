//! Attempts at addresses: those who answer are not held up by a limit that is there for those who do not ask.

use handfast_core::RelayReason;
use handfast_tests::host::Seen;
use handfast_tests::{HostId, NatSpec, Place, World, ms, secs};

fn why(w: &World, a: HostId, b: HostId) -> Option<RelayReason> {
    w.status(a).peers.iter().find(|p| p.peer == w.peer(b)).and_then(|p| p.why)
}

/// Payloads that reached a host since the last capture began, and their bytes.
fn inbound(w: &World, host: HostId) -> (usize, usize) {
    let got: Vec<&Seen> = w.captured(host).iter().filter(|s| !s.outbound).collect();
    (got.len(), got.iter().map(|s| s.bytes.len()).sum())
}

/// One after the other, as a shell script calls a program: each a new node of the same key on a new port.
#[test]
fn regression_thirty_short_commands_within_a_minute_all_become_direct() {
    for seed in [1, 2, 3] {
        let mut w = World::new(seed);
        w.add_supernodes(3);
        let b = w.add_leaf_behind(NatSpec::port_restricted());
        let router = w.add_router(NatSpec::port_restricted());
        let caller = w.add_leaf_down(Place::Behind(router), |_| {});
        w.settle_homes(&[b]);
        w.run_for(secs(10));
        let began = w.now();
        for n in 0..30u16 {
            w.hosts[caller.0].port = 40_000 + n;
            w.start(caller);
            w.until("a node can be used", secs(2), |w| w.is_ready(caller));
            let t = w.transfer(caller, b, 5_000, 5_000);
            w.until(&format!("command {n} is direct, seed {seed}"), secs(2), |w| w.is_direct(caller, b));
            w.finish("the command's bytes", secs(2), &[t]);
            // Some are cut off, others say goodbye.
            if n % 2 == 0 {
                w.with(caller, handfast_core::Node::leave);
                w.run_for(ms(100));
            }
            w.crash(caller);
        }
        let took = w.now().since(began);
        assert!(took <= secs(60), "thirty commands are to come within a minute, not {took:?}");
    }
}

/// All at the same time: those whom the budget holds have their turn as soon as others have answered.
#[test]
fn regression_twelve_hosts_of_one_office_called_by_one_all_become_direct() {
    for seed in [4, 5] {
        let mut w = World::new(seed);
        w.add_supernodes(3);
        let caller = w.add_leaf_behind(NatSpec::port_restricted());
        let office = w.add_router(NatSpec::port_restricted());
        let hosts: Vec<HostId> = (0..12).map(|_| w.add_leaf(Place::Behind(office))).collect();
        w.settle_homes(&hosts);
        w.settle_homes(&[caller]);
        for host in &hosts {
            w.transfer(caller, *host, 1_000, 1_000);
        }
        let took = w.until(&format!("all are direct, seed {seed}"), secs(60), |w| {
            hosts.iter().all(|host| w.is_direct(caller, *host))
        });
        assert!(took <= secs(60));
    }
}

/// The same when the office calls: twelve callers of one address.
#[test]
fn twelve_hosts_of_one_office_that_call_one_all_become_direct() {
    let mut w = World::new(6);
    w.add_supernodes(3);
    let callee = w.add_leaf_behind(NatSpec::port_restricted());
    let office = w.add_router(NatSpec::port_restricted());
    let hosts: Vec<HostId> = (0..12).map(|_| w.add_leaf(Place::Behind(office))).collect();
    w.settle_homes(&hosts);
    w.settle_homes(&[callee]);
    for host in &hosts {
        w.transfer(*host, callee, 1_000, 1_000);
    }
    w.until("all are direct", secs(60), |w| hosts.iter().all(|host| w.is_direct(*host, callee)));
}

/// A service that is open to any accepts everybody, also those who aim. Each answers at an address of its own, which
/// pays for nobody else's.
#[test]
fn d1_ten_liars_let_in_by_any_who_answer_elsewhere_cost_a_victim_what_one_may() {
    for seed in [7, 8] {
        let mut w = World::new(seed);
        w.add_supernodes(3);
        let victim = w.add_bystander();
        let b = w.add_leaf_behind(NatSpec::port_restricted());
        let liars: Vec<HostId> = (0..10)
            .map(|n| {
                // Half of them become direct, the others never do.
                let spec = if n % 2 == 0 { NatSpec::port_restricted() } else { NatSpec::fully_dependent() };
                let router = w.add_router(spec);
                let liar = w.add_leaf_down(Place::Behind(router), |_| {});
                w.hosts[liar.0].pretended = Some(vec![w.ip(victim)]);
                w.start(liar);
                liar
            })
            .collect();
        w.settle_homes(&liars);
        w.settle_homes(&[b]);
        let mut seen = 0;
        let mut was_held = false;
        for minute in 0..3u16 {
            w.capture(victim);
            for round in 0..12u16 {
                for liar in &liars {
                    if w.is_up(*liar) {
                        w.crash(*liar);
                    }
                    w.hosts[liar.0].port = 40_000 + 100 * minute + round;
                    w.start(*liar);
                }
                w.run_for(ms(1_500));
                for liar in &liars {
                    if w.is_ready(*liar) {
                        w.transfer(*liar, b, 10, 10);
                    }
                }
                w.run_for(ms(3_500));
                let held = liars.iter().filter_map(|liar| why(&w, b, *liar)).find_map(|why| match why {
                    RelayReason::BudgetHeld { wait } => Some(wait),
                    _ => None,
                });
                was_held |= held.is_some();
                assert!(held.is_none_or(|wait| wait <= secs(60)), "{held:?}");
            }
            let (packets, bytes) = inbound(&w, victim);
            seen += packets;
            assert!(packets <= 30 && bytes <= 3 * 1024, "{packets} packets, {bytes} bytes in minute {minute}");
        }
        assert!(seen > 0, "the lies had no effect: the test proves nothing");
        assert!(was_held, "the budget never held anybody: the test proves nothing");
    }
}
