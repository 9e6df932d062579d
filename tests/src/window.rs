//! Windows: all sites side by side for as long as none can know of another.
//!
//! What leaves a site for the internet reaches nobody sooner than [`LOOKAHEAD`] later. So each can be brought so far by
//! itself, a public host, or a host with the router before it, and threads share them. [`World::window`] does that in
//! a lean world, and puts together what came out in the order of (moment, host), whichever thread was first: how many
//! there are changes nothing.
//!
//! Routers of such a world are on the internet, each with one host behind it, and no [`Way`](crate::Way) is bad. TCP
//! connections are between two sites: a window ends before anything happens on one.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Mutex;

use handfast_core::Instant;
use handfast_core::time::earliest;

use crate::host::{Host, HostId};
use crate::site::{Around, Effect, Site};
use crate::topology::ACCESS;
use crate::wire::{Datagram, INTERNET, InFlight, Lan, Left, Port, Router};
use crate::world::{CALLS_PER_MOMENT_MAX, World};

/// The way from one member of the internet to another takes so long at least.
const LOOKAHEAD: Duration = Duration::from_micros(2 * ACCESS.as_micros() as u64);
const MICROSECOND: Duration = Duration::from_micros(1);
/// Sites that a thread takes at once.
const SITES_AT_ONCE: usize = 8;
/// For fewer no other thread is asked: it takes some 20 µs to begin.
const SITES_FOR_TWO: usize = 32;

/// Who is due, in the order of their numbers, and each hop that ends there.
type Due = Vec<(HostId, Option<(Instant, InFlight)>)>;

/// One site in a window.
struct Job<'a> {
    host: &'a mut Host,
    router: Option<&'a mut Router>,
    arrivals: BTreeMap<(Instant, u64), InFlight>,
    seq: u64,
    calls: u64,
    effects: Vec<(Instant, Effect)>,
}

impl World {
    /// Brings everybody forward until `last`, or less far: as far as a window reaches that begins with what is next.
    pub(crate) fn window(&mut self, last: Instant) {
        let Some(first) = self.next_moment().filter(|at| *at <= last) else { return };
        let last = last.min(first + LOOKAHEAD - MICROSECOND);
        let last = match self.tcp.next() {
            Some(at) if at <= first => return self.step(),
            Some(at) => last.min(at - MICROSECOND),
            None => last,
        };
        assert!(self.is_lean && self.wire.ways.is_empty(), "no world for windows");
        let due = self.gather(last);
        let mut jobs = jobs(&mut self.hosts, &mut self.wire.routers, &self.wire.lans, due);
        let around = Around {
            lans: &self.wire.lans,
            tcp: &self.tcp,
            supernodes: &self.supernodes,
            lateness: self.lateness,
            is_lean: true,
        };
        share(&mut jobs, around, last, &mut self.bufs);
        let mut effects = Vec::new();
        let mut rest = Vec::new();
        let mut ids = Vec::new();
        for job in jobs {
            let id = job.host.id;
            ids.push(id);
            self.steps += job.calls;
            effects.extend(job.effects.into_iter().map(|(at, effect)| (at, id, effect)));
            rest.extend(job.arrivals.into_iter().map(|((at, _), hop)| (at, id, hop)));
        }
        for id in ids {
            self.list(id);
        }
        rest.sort_by_key(|(at, id, _)| (*at, *id));
        for (at, _, hop) in rest {
            self.wire.push_hop(at, hop);
        }
        effects.sort_by_key(|(at, id, _)| (*at, *id));
        for (at, id, effect) in effects {
            self.carry_out(at, id, effect);
        }
        assert!(earliest(self.wire.next(), self.tcp.next()).is_none_or(|at| at > last), "a way shorter than a window");
        self.advance(last);
    }

    /// Takes what is due by `last`: for whom, and what arrives there.
    fn gather(&mut self, last: Instant) -> Due {
        let mut due = Vec::new();
        while let Some((at, hop)) = self.wire.pop_hop(last) {
            let host = match hop.port {
                Port::Host(host) => host,
                Port::Router(router) => {
                    let inner = self.wire.routers[router.0].inner;
                    self.wire.behind(inner).expect("behind a router of a world for windows is one host")
                }
            };
            if self.wire.is_cut(hop.datagram.origin, host) {
                self.wire.counts.cut += 1;
            } else {
                due.push((host, Some((at, hop))));
            }
        }
        while let Some(host) = self.deadlines.pop_due(last) {
            self.hosts[host.0].listed = None;
            due.push((host, None));
        }
        due.sort_by_key(|(host, _)| *host);
        due
    }
}

impl Job<'_> {
    /// Does what is due until `last`; arrivals first, as in [`World::step`].
    fn run(&mut self, around: Around<'_>, last: Instant, buf: &mut [u8]) {
        let (mut moment, mut calls) = (Instant::ZERO, 0);
        loop {
            let arrives = self.arrivals.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = earliest(arrives, self.host.due).filter(|at| *at <= last) else { break };
            calls = if at > moment { 0 } else { calls + 1 };
            moment = at;
            self.calls += 1;
            assert!(calls < CALLS_PER_MOMENT_MAX, "time stands still at {at:?}");
            if arrives == Some(at) {
                self.arrive(at, around, buf);
            } else {
                self.call(at, around, buf, |site| {
                    site.on_deadline();
                });
            }
        }
    }

    fn arrive(&mut self, at: Instant, around: Around<'_>, buf: &mut [u8]) {
        let Some((_, hop)) = self.arrivals.pop_first() else { return };
        let Port::Host(id) = hop.port else {
            let router = self.router.as_mut().expect("it is where the hop ends");
            match router.enter(at, hop.datagram) {
                Some(datagram) => self.send_inside(at, around, datagram),
                None => self.effects.push((at, Effect::Lost(|counts| &mut counts.filtered))),
            }
            return;
        };
        let arrivals = &mut self.arrivals;
        let train = Site::train(self.host, hop.datagram, |train| {
            let next = arrivals.first_entry()?;
            let is_here = next.key().0 <= at && next.get().port == Port::Host(id);
            (is_here && next.get().datagram.follows(train)).then(|| next.remove().datagram)
        });
        self.call(at, around, buf, |site| site.deliver(&train));
    }

    /// Makes a call; what it sends goes through the router, if there is one.
    fn call(&mut self, now: Instant, around: Around<'_>, buf: &mut [u8], call: impl FnOnce(&mut Site<'_>)) {
        let mut effects = Vec::new();
        call(&mut Site { now, host: self.host, around, effects: &mut effects, buf });
        for effect in effects {
            match effect {
                Effect::Sent(entry, lan, datagram) if lan != INTERNET => {
                    let router = self.router.as_mut().expect("the way out");
                    if around.lans[lan.0].members.get(datagram.dst.ip()).is_some() {
                        self.send_inside(now, around, datagram);
                        continue;
                    }
                    match router.leave(now, datagram) {
                        Left::Out(datagram) => self.effects.push((now, Effect::Sent(entry, router.outer, datagram))),
                        Left::Back(datagram) => self.send_inside(now, around, datagram),
                        Left::Lost(count) => self.effects.push((now, Effect::Lost(count))),
                    }
                }
                effect => self.effects.push((now, effect)),
            }
        }
    }

    fn send_inside(&mut self, now: Instant, around: Around<'_>, datagram: Datagram) {
        let inner = self.router.as_ref().expect("there is an inside").inner;
        let lan = &around.lans[inner.0];
        let Some(to) = lan.members.get(datagram.dst.ip()) else {
            return self.effects.push((now, Effect::Lost(|counts| &mut counts.no_route)));
        };
        let Some(delay) = lan.carries(lan.members.get(datagram.src.ip()), to, &datagram) else {
            return self.effects.push((now, Effect::Lost(|counts| &mut counts.too_long)));
        };
        self.seq += 1;
        let hop = InFlight { lan: inner, port: to.port, datagram, worn: false };
        self.arrivals.insert((now + delay, self.seq), hop);
    }
}

/// A job for each host that is due, in their order.
fn jobs<'a>(hosts: &'a mut [Host], routers: &'a mut [Router], lans: &[Lan], due: Due) -> Vec<Job<'a>> {
    let mut ids: Vec<usize> = due.iter().map(|(host, _)| host.0).collect();
    ids.dedup();
    let gateway = |id: usize| hosts[id].attachments.first().and_then(|at| lans[at.lan.0].gateway);
    let before: Vec<Option<usize>> = ids.iter().map(|id| gateway(*id).map(|router| router.0)).collect();
    let mut named: Vec<usize> = before.iter().flatten().copied().collect();
    named.sort_unstable();
    assert!(named.is_sorted_by(|a, b| a < b), "two hosts behind one router are no sites of their own");
    let mut routers: BTreeMap<usize, &mut Router> = named.iter().copied().zip(pick(routers, &named)).collect();
    let mut due = due.into_iter().peekable();
    let job = |(host, router): (&'a mut Host, &Option<usize>)| {
        let mut arrivals = BTreeMap::new();
        let mut seq = 0;
        while let Some((_, arrival)) = due.next_if(|(of, _)| *of == host.id) {
            if let Some((at, hop)) = arrival {
                seq += 1;
                arrivals.insert((at, seq), hop);
            }
        }
        let router = router.and_then(|router| routers.remove(&router));
        Job { host, router, arrivals, seq, calls: 0, effects: Vec::new() }
    };
    pick(hosts, &ids).into_iter().zip(&before).map(job).collect()
}

/// These of them; the numbers go up.
fn pick<'a, T>(all: &'a mut [T], numbers: &[usize]) -> Vec<&'a mut T> {
    let (mut rest, mut at) = (all, 0);
    let mut picked = Vec::with_capacity(numbers.len());
    for number in numbers {
        let (one, behind) = rest[number - at..].split_first_mut().expect("there is that one");
        picked.push(one);
        (rest, at) = (behind, number + 1);
    }
    picked
}

/// Runs the jobs, on as many threads as there are buffers where that is worth it.
fn share(jobs: &mut [Job<'_>], around: Around<'_>, last: Instant, bufs: &mut [Vec<u8>]) {
    let helpers = if jobs.len() < SITES_FOR_TWO { 0 } else { bufs.len() - 1 };
    let some = Mutex::new(jobs.chunks_mut(SITES_AT_ONCE));
    let work = |buf: &mut Vec<u8>| {
        loop {
            let next = some.lock().expect("nobody fails while taking").next();
            let Some(jobs) = next else { break };
            for job in jobs {
                job.run(around, last, buf);
            }
        }
    };
    let (mine, others) = bufs.split_first_mut().expect("there is one");
    std::thread::scope(|scope| {
        for buf in others.iter_mut().take(helpers) {
            scope.spawn(|| work(buf));
        }
        work(mine);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Chance;
    use crate::nat::NatSpec;
    use crate::secs;
    use crate::site::BUF_LEN;

    /// Lets time pass in windows.
    fn run(w: &mut World, secs_more: u64) {
        let end = w.now() + secs(secs_more);
        while w.next_moment().is_some_and(|at| at <= end) {
            w.window(end);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let life = |threads| {
            let mut w = World::lean(3, 100);
            w.bufs.resize(threads, vec![0; BUF_LEN]);
            w.wire.faults.loss = Chance::percent(2);
            w.wire.faults.jitter = Duration::from_millis(30);
            w.add_supernodes(4);
            let leaves: Vec<HostId> =
                (0..2 * SITES_FOR_TWO).map(|_| w.add_leaf_behind(NatSpec::port_restricted())).collect();
            // One whose home is reached by TCP alone.
            let shut_in = w.add_leaf_behind(NatSpec::udp_blocked());
            run(&mut w, 60);
            for (caller, callee) in leaves.iter().zip(&leaves[1..]).step_by(3).chain([(&shut_in, &leaves[0])]) {
                let callee = w.peer(*callee);
                w.with(*caller, |node, now| node.ping(now, callee)).expect("it has a home");
            }
            run(&mut w, 10);
            let (dead, lost) = (w.supernodes[0], leaves[5]);
            w.crash(dead);
            w.wire.groups.insert(lost, 1);
            run(&mut w, 60);
            w.start(dead);
            w.wire.groups.clear();
            run(&mut w, 30);
            let said: Vec<String> = w.news.iter().map(|news| format!("{news:?}")).collect();
            assert!(w.host(shut_in).traffic.packets() > 0, "TCP was used");
            let counts = format!("{:?}", w.wire.counts);
            (w.steps(), counts, said, w.hosts.iter().map(|host| host.traffic).collect::<Vec<_>>())
        };
        let (one, three) = (life(1), life(3));
        let said = |what: &str| one.2.iter().filter(|said| said.contains(what)).count();
        assert!(said("Ready") >= 2 * SITES_FOR_TWO && said("Pong") >= 10, "{} {}", said("Ready"), said("Pong"));
        assert_eq!(one, three);
    }

    #[test]
    fn a_window_ends_where_others_could_know() {
        let mut w = World::lean(4, 8);
        w.add_supernodes(3);
        w.add_leaf_behind(NatSpec::port_restricted());
        let (first, end) = (w.next_moment().expect("they begin"), w.now() + secs(1));
        w.window(end);
        assert!(w.now() < first + LOOKAHEAD, "{:?}", w.now());
        // All that was sent in it arrives behind it.
        assert!(w.wire.in_flight() > 0 && w.next_moment().is_some_and(|next| next > w.now()));
    }

    #[test]
    fn those_are_picked_that_are_named() {
        let mut all = [0, 1, 2, 3, 4];
        for one in pick(&mut all, &[0, 3, 4]) {
            *one += 10;
        }
        assert_eq!(all, [10, 1, 2, 13, 14]);
    }
}
