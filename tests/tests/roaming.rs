//! What moves, restarts or degrades under a pair that is direct, and how soon it is well again: traffic within 3 s by
//! the relay, a direct path within 10 s, and no flapping between the two.
//!
//! The traffic is a ping every 100 ms, each on the path in use at that moment; a gap is the time between two answers.
//! Where bytes matter, a transfer runs instead, and every byte of it is checked.

use core::time::Duration;

use handfast_core::{Event, Instant, Node};
use handfast_tests::{Chance, HostId, NatSpec, Place, TransferId, Way, World, ms, secs};

/// Traffic is back within this after anything that leaves the relay standing.
const BACK: Duration = secs(3);
/// And direct again within this.
const DIRECT_AGAIN: Duration = secs(10);
const PING_EVERY: Duration = ms(100);

/// A pair that pings.
struct Pinging {
    w: World,
    a: HostId,
    b: HostId,
    /// When answers came to `a`, whether directly, and how long they took.
    pongs: Vec<(Instant, bool, Duration)>,
    seen: usize,
}

impl Pinging {
    /// Two leaves behind usual home routers, direct.
    fn new(seed: u64) -> Self {
        Self::between(seed, NatSpec::port_restricted(), NatSpec::port_restricted())
    }

    fn between(seed: u64, a: NatSpec, b: NatSpec) -> Self {
        let (mut w, a, b) = World::pair(seed, a, b);
        let t = w.transfer(a, b, 100, 100);
        w.finish("a first transfer", secs(10), &[t]);
        w.until("direct", secs(10), |w| w.is_direct(a, b));
        let mut pinging = Self { w, a, b, pongs: Vec::new(), seen: 0 };
        pinging.run(secs(20));
        assert!(pinging.gap_since(Instant::ZERO) < ms(300));
        pinging
    }

    fn run(&mut self, time: Duration) {
        let end = self.w.now() + time;
        while self.w.now() < end {
            let peer = self.w.peer(self.b);
            self.w.with(self.a, |node, now| node.ping(now, peer)).expect("a ping is taken");
            self.w.run_for(PING_EVERY.min(end.since(self.w.now())));
            self.collect();
        }
    }

    fn collect(&mut self) {
        let events = &self.w.hosts[self.a.0].events;
        for (at, event) in &events[self.seen..] {
            if let Event::Pong { path, rtt, .. } = event {
                self.pongs.push((*at, path.is_direct(), *rtt));
            }
        }
        self.seen = events.len();
    }

    /// The longest time without an answer, from the last one before `since` on.
    fn gap_since(&self, since: Instant) -> Duration {
        let mut last = self.pongs.iter().map(|p| p.0).rfind(|at| *at <= since);
        let mut longest = Duration::ZERO;
        let end = self.w.now();
        for at in self.pongs.iter().map(|p| p.0).filter(|at| *at > since).chain([end]) {
            longest = longest.max(last.map_or(Duration::ZERO, |last| at.since(last)));
            last = Some(at);
        }
        longest
    }

    /// How long after `since` both were direct, to stay so until now.
    fn direct_again(&self, since: Instant) -> Option<Duration> {
        self.w.is_direct(self.a, self.b).then(|| {
            let changes =
                |from: HostId| self.changes(from, since).last().map_or(Duration::ZERO, |(at, _)| at.since(since));
            changes(self.a).max(changes(self.b))
        })
    }

    /// Changes between direct and relayed at one end, and when.
    fn changes(&self, from: HostId, since: Instant) -> Vec<(Instant, bool)> {
        let mut kind = None;
        let mut all = Vec::new();
        for (at, event) in &self.w.hosts[from.0].events {
            if let Event::PathChanged { path, .. } = event {
                if kind != Some(path.is_direct()) && kind.is_some() && *at > since {
                    all.push((*at, path.is_direct()));
                }
                kind = Some(path.is_direct());
            }
        }
        all
    }

    /// At neither end do more than `most` changes fall within ten seconds.
    fn assert_no_flapping(&self, since: Instant, most: usize) {
        for host in [self.a, self.b] {
            let changes = self.changes(host, since);
            for (at, _) in &changes {
                let within = changes.iter().filter(|(other, _)| *other >= *at && other.since(*at) < secs(10)).count();
                assert!(within <= most, "{host:?} flaps: {changes:?} since {since:?}");
            }
        }
    }

    fn assert_back(&self, what: &str, since: Instant) {
        let gap = self.gap_since(since);
        // The last answer before came up to one ping and a round trip earlier.
        assert!(gap <= BACK + ms(150), "{what}: silent for {gap:?}");
        let again = self.direct_again(since);
        assert!(again.is_some_and(|t| t <= DIRECT_AGAIN), "{what}: direct again after {again:?}");
    }
}

#[test]
fn a_host_that_roams_is_back_by_relay_and_direct_again() {
    for (who, told) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut p = Pinging::new(1 + who);
        let host = [p.a, p.b][who as usize];
        let since = p.w.now();
        let router = p.w.add_router(NatSpec::port_restricted());
        p.w.move_host(host, Place::Behind(router));
        if told {
            p.w.tell_network(host);
        }
        p.run(secs(30));
        p.assert_back(&format!("roamer {who}, told {told}"), since);
    }
}

#[test]
fn both_hosts_roam_at_once() {
    let mut p = Pinging::new(3);
    let since = p.w.now();
    for host in [p.a, p.b] {
        let router = p.w.add_router(NatSpec::port_restricted());
        p.w.move_host(host, Place::Behind(router));
        p.w.tell_network(host);
    }
    p.run(secs(30));
    p.assert_back("both roam", since);
}

#[test]
fn a_router_that_restarts_with_its_address_or_another() {
    for renumbered in [false, true] {
        for who in [0, 1] {
            let mut p = Pinging::new(5 + who);
            let router = p.w.router_of([p.a, p.b][who as usize]);
            let since = p.w.now();
            if renumbered {
                p.w.renumber(router);
            } else {
                p.w.reboot_router(router);
            }
            p.run(secs(30));
            p.assert_back(&format!("router of {who}, renumbered {renumbered}"), since);
        }
    }
}

#[test]
fn a_transfer_survives_roaming_and_restarts_with_every_byte() {
    let mut p = Pinging::new(8);
    let (a, b) = (p.a, p.b);
    let t: TransferId = p.w.transfer(a, b, 8_000_000, 0);
    let more = |w: &mut World| {
        let at = w.server(t).map_or(0, |s| s.in_pos);
        w.until("some more bytes", secs(30), |w| w.server(t).is_some_and(|s| s.in_pos > at + 100_000));
        assert!(!w.is_done(t));
    };
    more(&mut p.w);
    let router = p.w.add_router(NatSpec::port_restricted());
    p.w.move_host(b, Place::Behind(router));
    p.w.tell_network(b);
    more(&mut p.w);
    p.w.renumber(router);
    more(&mut p.w);
    let router = p.w.router_of(a);
    p.w.reboot_router(router);
    p.w.finish("the transfer, every byte of which is checked", secs(120), &[t]);
}

#[test]
fn a_route_that_flaps_for_two_seconds_is_ridden_out() {
    for one_way in [false, true] {
        let mut p = Pinging::new(9);
        let since = p.w.now();
        for _ in 0..6 {
            p.w.cut_one_way(p.a, p.b);
            if !one_way {
                p.w.cut_one_way(p.b, p.a);
            }
            p.run(secs(2));
            p.w.calm();
            p.run(secs(18));
            assert!(p.w.is_direct(p.a, p.b), "well for 18 s, one way {one_way}");
        }
        assert!(p.gap_since(since) <= BACK, "{:?}", p.gap_since(since));
        p.assert_no_flapping(since, 1);
    }
}

#[test]
fn a_route_that_is_cut_for_longer_falls_back_and_returns() {
    for one_way in [None, Some((0, 1)), Some((1, 0))] {
        let mut p = Pinging::new(10);
        let hosts = [p.a, p.b];
        let since = p.w.now();
        for (from, to) in one_way.map_or(vec![(0, 1), (1, 0)], |cut| vec![cut]) {
            p.w.cut_one_way(hosts[from], hosts[to]);
        }
        p.run(secs(30));
        assert!(p.gap_since(since) <= BACK + ms(150), "{one_way:?}: {:?}", p.gap_since(since));
        assert!(p.w.is_relayed(p.a, p.b), "{one_way:?}");
        p.assert_no_flapping(since, 1);
        let healed = p.w.now();
        p.w.calm();
        p.run(secs(60));
        let again = p.direct_again(healed);
        assert!(again.is_some_and(|t| t <= DIRECT_AGAIN), "{one_way:?}: direct again after {again:?}");
        assert!(p.gap_since(healed) <= ms(400), "{one_way:?}: {:?}", p.gap_since(healed));
        p.assert_no_flapping(healed, 1);
    }
}

#[test]
fn a_path_that_loses_a_third_is_left_and_taken_back_when_it_is_well() {
    let mut p = Pinging::new(11);
    let since = p.w.now();
    p.w.degrade(p.a, p.b, Way { loss: Chance::percent(30), delay: Duration::ZERO });
    p.run(secs(60));
    assert!(p.w.is_relayed(p.a, p.b), "it still uses the bad path");
    let left = p.changes(p.a, since)[0].0;
    assert!(left.since(since) <= secs(15), "left after {:?}", left.since(since));
    assert!(p.gap_since(left + ms(200)) <= ms(300), "nothing is lost by the relay");
    p.assert_no_flapping(since, 1);
    let healed = p.w.now();
    p.w.calm();
    p.run(secs(120));
    assert!(p.w.is_direct(p.a, p.b), "it is not taken back");
    assert_eq!(p.changes(p.a, healed).len(), 1, "taken back once");
    p.assert_no_flapping(since, 1);
}

#[test]
fn a_path_longer_than_the_relays_is_left_and_taken_back_when_it_is_short() {
    let mut p = Pinging::new(12);
    let since = p.w.now();
    // Round trips: 40 ms directly, 80 by the relay; now 240 directly.
    p.w.degrade(p.a, p.b, Way { loss: Chance::NEVER, delay: ms(100) });
    p.run(secs(60));
    assert!(p.w.is_relayed(p.a, p.b), "it still uses the long path");
    p.assert_no_flapping(since, 1);
    let (_, _, rtt) = p.pongs.last().expect("answers");
    assert!(*rtt < ms(100), "{rtt:?}");
    let healed = p.w.now();
    p.w.calm();
    p.run(secs(120));
    assert!(p.w.is_direct(p.a, p.b), "it is not taken back");
    p.assert_no_flapping(healed, 1);
}

#[test]
fn a_path_that_is_bad_every_other_minute_is_not_taken_back_each_time() {
    let mut p = Pinging::new(13);
    let since = p.w.now();
    for _ in 0..8 {
        p.w.degrade(p.a, p.b, Way { loss: Chance::percent(40), delay: ms(60) });
        p.run(secs(30));
        p.w.calm();
        p.run(secs(30));
    }
    p.assert_no_flapping(since, 1);
    let changes = p.changes(p.a, since).len();
    assert!(changes <= 10, "{changes} changes in eight minutes");
    p.run(secs(400));
    assert!(p.w.is_direct(p.a, p.b), "well for minutes, and not taken back");
}

#[test]
fn where_both_ways_lose_alike_the_direct_one_is_kept() {
    let mut p = Pinging::new(14);
    let since = p.w.now();
    p.w.wire.faults.loss = Chance::percent(10);
    p.run(secs(120));
    let relayed = p.changes(p.a, since).iter().filter(|(_, direct)| !direct).count();
    assert!(relayed <= 2, "{:?}", p.changes(p.a, since));
    p.assert_no_flapping(since, 2);
}

#[test]
fn a_bad_path_is_better_than_none() {
    let mut p = Pinging::new(15);
    p.w.degrade(p.a, p.b, Way { loss: Chance::percent(30), delay: Duration::ZERO });
    p.run(secs(30));
    assert!(p.w.is_relayed(p.a, p.b));
    for s in p.w.supernodes.clone() {
        p.w.crash(s);
    }
    let since = p.w.now();
    p.run(secs(40));
    assert!(p.w.is_direct(p.a, p.b), "no relay is left");
    assert!(p.gap_since(since) <= secs(12), "{:?}", p.gap_since(since));
}

#[test]
fn an_idle_pair_measures_nothing() {
    let mut p = Pinging::new(16);
    p.w.run_for(secs(60));
    for host in [p.a, p.b] {
        p.w.capture(host);
    }
    p.w.run_for(secs(120));
    let peers = [p.a, p.b].map(|host| {
        let supernodes: Vec<_> = p.w.supernodes.iter().map(|s| p.w.ip(*s)).collect();
        p.w.captured(host).iter().filter(|seen| seen.outbound && !supernodes.contains(&seen.remote.ip())).count()
    });
    // Beats each 15 s at most, and answers to the rare question whether the other is there.
    assert!(peers.iter().all(|n| *n <= 14), "{peers:?} packets in two silent minutes");
    p.w.with(p.a, Node::leave);
}
