//! Somebody with keys without number, some hosts, and no scruples: what becomes of honest use meanwhile.
//!
//! Of the attackers, [`Liar`]s only have names, and [`Sybils`] also addresses at which they answer, so that they are
//! known as supernodes. After each attack it is seen whether newcomers are [welcome], and honest use is counted beside.

use core::time::Duration;
use std::net::SocketAddr;

use handfast_core::wire::message::{Load, Message, SignedKind};
use handfast_core::{PeerId, SecretKey};

use super::{honest, seconds};
use crate::host::{HostId, Seen};
use crate::liar::{Liar, advert, key};
use crate::ms;
use crate::scale::args::Args;
use crate::scale::calls::{Call, Ended, percent};
use crate::scale::crowd::{Crowd, Doings};
use crate::scale::report::{Bound, Outcome};
use crate::sybil::{Manner, Sybils};

const FOUND_PERCENT: Bound = Bound::AtLeast(99.0);
const GROUND_FOUND_PERCENT: Bound = Bound::AtLeast(95.0);
const VETTED_S: Bound = Bound::AtMost(10.0);
const DRAWN_S: Bound = Bound::AtMost(60.0);
const KNOWN_S: Bound = Bound::AtMost(600.0);
/// Twelve of sixteen.
const LISTED_HONEST_PERCENT: Bound = Bound::AtLeast(75.0);
const HONEST_HOMES_S: Bound = Bound::AtMost(10.0);
const VICTIM_PACKETS: Bound = Bound::AtMost(10.0);
const VICTIM_BYTES: Bound = Bound::AtMost(1024.0);
const VICTIM_OVER_SPENT: Bound = Bound::AtMost(1.0);

/// Of a hundred supernodes, so many are Sybils.
const SYBILS_PERCENT: usize = 10;
/// Those that sit around one key, and in how many prefixes.
const GROUND: usize = 20;
const GROUND_PREFIXES: usize = 4;
/// Attackers read what has arrived so often.
const SERVED_EVERY: Duration = ms(20);
/// Where tables are full, so many around its place are to know a supernode.
const AROUND: usize = 16;
/// Supernodes know Sybils after so long.
const SETTLED: Duration = Duration::from_secs(120);
/// Honest use is watched for so long, while an hour is measured.
const WATCHED: Duration = Duration::from_secs(1800);
/// Calls of a leaf in a day, so that there are enough.
const CALLS_A_DAY: f64 = 400.0;
/// Records that never were, while an hour is measured; and so many a second.
const RECORDS: usize = 100_000;
const RECORDS_A_SECOND: usize = 100;
const ADVERTS: u32 = 1_100;
const FAKES: u32 = 120;
const CLOCKS: u32 = 12;
/// Adverts that name the victim to a supernode, supernodes that they are told to, and those that order dial-backs to it.
const NAMED: u32 = 60;
const NAMED_TO: usize = 16;
const ORDERING: usize = 16;
const ORDERS: usize = 5;
/// Fresh leaves of those that show whether newcomers are drawn: as many a second as it takes to see each listed.
const LISTED: usize = 16;
/// Home and relay.
const ALL: u8 = 3;
/// Liars' clocks are ahead by so much.
const AHEAD_S: u64 = 40 * 86_400;
/// Calls of the one that Sybils sit around, and of all, when the attack is over.
const TO_TARGET: u8 = 1;
const AFTER: u8 = 2;

// ---- supernodes that lie ----

pub(super) fn sybils(args: &Args, out: &mut Outcome) {
    // Who is there longest stays in full tables, so they are there before most.
    let (args, mut crowd) = founded(args, args.supernodes.div_ceil(3));
    let count = (args.supernodes * SYBILS_PERCENT / 100).max(1);
    let keys = (0..count as u32).map(|n| key(1_000 + n)).collect();
    let manners = [Manner::Silent, Manner::Denying, Manner::Forging];
    let mut sybils = Sybils::new(&mut crowd.w, count, keys, |n| manners[n % manners.len()]);
    join(&mut crowd, &mut sybils);
    for _ in crowd.serving.len()..args.supernodes {
        crowd.add_supernode();
        run(&mut crowd, &mut sybils, ms(100));
    }
    run(&mut crowd, &mut sybils, SETTLED);
    tell_known(&crowd, &sybils, out);
    let since = crowd.w.now();
    crowd.add_leaves(args.leaves, args.ramp());
    run(&mut crowd, &mut sybils, args.ramp() + SETTLED + args.scaled(WATCHED));
    let honest_homes = (0..args.leaves).filter(|leaf| has_honest_home(&crowd, *leaf)).count();
    out.tell("leaves with an honest home", percent(honest_homes as u64, args.leaves as u64), "%");
    out.tell("lookups that Sybils were asked for", sybils.lookups as f64, "");
    // The home that is named first puts the record where it is looked for, or does not.
    let lost: Vec<HostId> =
        crowd.calls.done.iter().filter(|call| call.result == Ended::NotFound).map(|call| call.to).collect();
    let at_sybils = lost.iter().filter(|callee| {
        let node = crowd.w.hosts[callee.0].node.as_ref();
        let first = node.and_then(|node| Some(node.status(crowd.w.now()).homes.first()?.0));
        first.is_some_and(|home| !is_honest(&crowd, home))
    });
    let share = percent(at_sybils.count() as u64, lost.len() as u64);
    out.tell("of lookups that found nothing, those of a leaf whose first home is a Sybil", share, "%");
    honest(out, &crowd, since, true);
}

pub(super) fn ground(args: &Args, out: &mut Outcome) {
    let (args, mut crowd) = founded(args, args.supernodes);
    let since = crowd.w.now();
    crowd.add_leaves(args.leaves, args.ramp());
    crowd.run_for(args.ramp() + Duration::from_secs(60));
    let target = 0;
    let keys = grind(crowd.w.peer(crowd.leaves[target].host), args.supernodes);
    let mut sybils = Sybils::new(&mut crowd.w, GROUND_PREFIXES, keys, |n| match n % 2 {
        0 => Manner::Denying,
        _ => Manner::Silent,
    });
    join(&mut crowd, &mut sybils);
    tell_known(&crowd, &sybils, out);
    // Its record is put where it is looked for from now on.
    crowd.stop_leaf(target);
    crowd.start_leaf(target);
    run(&mut crowd, &mut sybils, Duration::from_secs(60));
    let watched = args.scaled(WATCHED).as_secs() / 5;
    for _ in 0..watched {
        crowd.call_somebody(TO_TARGET, None, |_, to| to == target);
        run(&mut crowd, &mut sybils, Duration::from_secs(5));
    }
    run(&mut crowd, &mut sybils, Duration::from_secs(61));
    let calls = crowd.calls.count(|call| call.tag == TO_TARGET);
    out.bound("lookups of the one that they sit around, that found", calls.found_percent(), "%", GROUND_FOUND_PERCENT);
    out.tell("such lookups", calls.all() as f64, "");
    out.tell("lookups that Sybils were asked for", sybils.lookups as f64, "");
    honest(out, &crowd, since, true);
}

pub(super) fn records(args: &Args, out: &mut Outcome) {
    let (args, mut crowd) = settled(args);
    let mut sybils = Sybils::new(&mut crowd.w, 1, vec![key(1)], |_| Manner::Denying);
    join(&mut crowd, &mut sybils);
    tell_known(&crowd, &sybils, out);
    let since = crowd.w.now();
    let count = RECORDS.min(RECORDS * args.measured().as_secs() as usize / 3600);
    for n in 0..count {
        let record = sybils.record(&crowd.w, 0, &key(1_000_000 + n as u32));
        sybils.say(&mut crowd.w, 0, usize::MAX, &Message::Signed { kind: SignedKind::Record, bytes: &record });
        if n % RECORDS_A_SECOND == 0 {
            run(&mut crowd, &mut sybils, Duration::from_secs(1));
        }
    }
    out.tell("records that never were", count as f64, "");
    out.tell("supernodes that got them", sybils.links(0) as f64, "");
    for _ in 0..args.scaled(WATCHED).as_secs() {
        crowd.call_somebody(AFTER, None, |_, _| true);
        run(&mut crowd, &mut sybils, Duration::from_secs(1));
    }
    run(&mut crowd, &mut sybils, Duration::from_secs(61));
    let kept = crowd.calls.count(|call: &Call| call.tag == AFTER);
    out.bound("honest records that are found afterwards", kept.found_percent(), "%", FOUND_PERCENT);
    out.tell("such lookups", kept.all() as f64, "");
    welcome(&mut crowd, Some(&mut sybils), out);
    honest(out, &crowd, since, true);
}

// ---- names without addresses ----

pub(super) fn adverts(args: &Args, out: &mut Outcome) {
    let (args, mut crowd) = settled(args);
    let since = crowd.w.now();
    let (host, target) = (crowd.w.add_bystander(), crowd.serving[0]);
    let mut liar = Liar::connect(&mut crowd.w, host, target, 1);
    for n in 0..ADVERTS {
        // Half of them take back what never was, its own among them.
        let bytes = advert(&crowd.w, 1 + n, anywhere(n), if n % 2 == 0 { ALL } else { 0 });
        liar.tell(&mut crowd.w, &bytes);
        if n % 50 == 0 {
            crowd.run_for(SERVED_EVERY);
        }
    }
    finish(&args, crowd, since, out);
}

pub(super) fn fakes(args: &Args, out: &mut Outcome) {
    let (args, mut crowd) = settled(args);
    let since = crowd.w.now();
    let (host, target) = (crowd.w.add_bystander(), crowd.serving[0]);
    for n in 1..=FAKES {
        let mut liar = Liar::connect(&mut crowd.w, host, target, n);
        let bytes = advert(&crowd.w, n, anywhere(n), ALL);
        liar.tell(&mut crowd.w, &bytes);
    }
    finish(&args, crowd, since, out);
}

pub(super) fn clocks(args: &Args, out: &mut Outcome) {
    let (args, mut crowd) = settled(args);
    let since = crowd.w.now();
    let (host, target) = (crowd.w.add_bystander(), crowd.serving[0]);
    for n in 1..=CLOCKS {
        let mut liar = Liar::connect(&mut crowd.w, host, target, n);
        let own = SocketAddr::new(crowd.w.ip(host), 2_000 + n as u16);
        let bytes = advert(&crowd.w, n, own, ALL);
        liar.tell(&mut crowd.w, &bytes);
        let time_s = crowd.w.wall(target).as_secs() + AHEAD_S;
        liar.say(&mut crowd.w, &Message::LoadReply { load: Load::default(), time_s });
    }
    out.note("Whose clock moved would refuse the adverts of newcomers, and the records of fresh leaves.");
    finish(&args, crowd, since, out);
}

pub(super) fn victim(args: &Args, out: &mut Outcome) {
    let (_, mut crowd) = settled(args);
    let since = crowd.w.now();
    let (host, victim) = (crowd.w.add_bystander(), crowd.w.add_bystander());
    // Not so many in a small network that it is theirs.
    let ordering = ORDERING.min(crowd.serving.len() / 3).max(1);
    let keys = (0..ordering as u32).map(|n| key(1_000 + n)).collect();
    let mut sybils = Sybils::new(&mut crowd.w, ordering, keys, |_| Manner::Denying);
    join(&mut crowd, &mut sybils);
    tell_known(&crowd, &sybils, out);
    let mut spent = 0;
    for (i, target) in crowd.serving.clone().into_iter().take(NAMED_TO).enumerate() {
        for n in 1..=NAMED {
            let n = i as u32 * 100 + n;
            let mut liar = Liar::connect(&mut crowd.w, host, target, n);
            let bytes = advert(&crowd.w, n, SocketAddr::new(crowd.w.ip(victim), 1_000 + n as u16), ALL);
            liar.tell(&mut crowd.w, &bytes);
            spent += liar.spent;
        }
        sybils.serve(&mut crowd.w);
    }
    let before = sybils.spent;
    let mut ordered = 0;
    for n in 0..sybils.count() {
        for order in 0..ORDERS {
            let address = SocketAddr::new(crowd.w.ip(victim), (5_000 + n * ORDERS + order) as u16);
            let peer = key(2_000_000 + (n * ORDERS + order) as u32).peer_id();
            let message = Message::DialBackOrder { peer, address: address.into(), nonce: [n as u8; 8] };
            sybils.say(&mut crowd.w, n, usize::MAX, &message);
            ordered += sybils.links(n);
        }
    }
    spent += sybils.spent - before;
    run(&mut crowd, &mut sybils, Duration::from_secs(120));
    let supernodes: Vec<SocketAddr> = crowd.serving.iter().map(|s| crowd.w.contact(*s).1).collect();
    let got = crowd.w.hosts[victim.0].capture.as_ref().expect("captured");
    let (mut packets, mut bytes, mut all) = (0, 0, 0);
    for supernode in supernodes {
        let from: Vec<usize> = got.iter().filter(|seen| seen.remote == supernode).map(Seen::ip_len).collect();
        packets = packets.max(from.len());
        bytes = bytes.max(from.iter().sum());
        all += from.iter().sum::<usize>();
    }
    out.bound("most packets of one supernode to the victim", Some(packets as f64), "", VICTIM_PACKETS);
    out.bound("most bytes of one supernode to the victim", Some(bytes as f64), "", VICTIM_BYTES);
    out.bound("what the victim got, over what that cost", Some(all as f64 / spent as f64), "", VICTIM_OVER_SPENT);
    out.tell("bytes that the victim got", all as f64, "");
    out.tell("dial-backs ordered", ordered as f64, "");
    welcome(&mut crowd, Some(&mut sybils), out);
    honest(out, &crowd, since, true);
}

// ---- the rest of it ----

fn busy(args: &Args) -> Args {
    Args { calls_a_day: args.calls_a_day.max(CALLS_A_DAY), ..args.clone() }
}

/// So many honest supernodes, and nobody else yet.
fn founded(args: &Args, supernodes: usize) -> (Args, Crowd) {
    let args = busy(args);
    let mut crowd = Crowd::new(&args, Doings { calls: true, ..Doings::default() });
    crowd.found(supernodes);
    crowd.run_for(Duration::from_secs(60));
    (args, crowd)
}

fn settled(args: &Args) -> (Args, Crowd) {
    let args = busy(args);
    let crowd = Crowd::settled(&args, Doings { calls: true, ..Doings::default() }, Vec::new());
    (args, crowd)
}

fn finish(args: &Args, mut crowd: Crowd, since: handfast_core::Instant, out: &mut Outcome) {
    crowd.run_for(Duration::from_secs(5));
    welcome(&mut crowd, None, out);
    crowd.run_for(args.scaled(WATCHED));
    honest(out, &crowd, since, true);
}

/// Runs for so long, and lets Sybils answer.
fn run(crowd: &mut Crowd, sybils: &mut Sybils, time: Duration) {
    let end = crowd.w.now() + time;
    while crowd.w.now() < end {
        crowd.run_for(SERVED_EVERY);
        sybils.serve(&mut crowd.w);
    }
}

/// Sybils become known as newcomers do.
fn join(crowd: &mut Crowd, sybils: &mut Sybils) {
    for n in 0..sybils.count() {
        let serving = crowd.serving.clone();
        for host in crowd.draw(&serving, 3) {
            let (peer, address) = crowd.w.contact(host);
            sybils.dial(&mut crowd.w, n, peer, address);
        }
        run(crowd, sybils, ms(100));
    }
    run(crowd, sybils, SETTLED);
}

/// How many of them honest supernodes know.
fn tell_known(crowd: &Crowd, sybils: &Sybils, out: &mut Outcome) {
    let ids: Vec<PeerId> = sybils.ids().collect();
    let knows = |host: &HostId| {
        let known = crowd.w.node(*host).status(crowd.w.now()).supernodes;
        known.iter().filter(|s| ids.contains(&s.peer)).count() as u64
    };
    let known = crowd.serving.iter().map(knows).sum();
    out.tell("Sybils", ids.len() as f64, "");
    out.tell("of Sybils an honest supernode knows", percent(known, (ids.len() * crowd.serving.len()) as u64), "%");
}

/// So many keys whose places are nearer to that of a peer than any honest one's.
fn grind(peer: PeerId, supernodes: usize) -> Vec<SecretKey> {
    let place =
        |peer: &PeerId| u64::from_be_bytes(*blake3::hash(peer.as_bytes()).as_bytes().first_chunk().expect("32"));
    let target = place(&peer);
    let near = u64::MAX / (2 * supernodes as u64);
    let all = (0..).map(|n| key(3_000_000 + n));
    all.filter(|key| place(&key.peer_id()) ^ target <= near).take(GROUND).collect()
}

fn anywhere(n: u32) -> SocketAddr {
    let [_, _, a, b] = n.to_be_bytes();
    SocketAddr::from(([11, a, b, 1], 4_433))
}

fn has_honest_home(crowd: &Crowd, leaf: usize) -> bool {
    honest_homes(crowd, leaf) > 0
}

fn honest_homes(crowd: &Crowd, leaf: usize) -> usize {
    let Some(node) = crowd.w.hosts[crowd.leaves[leaf].host.0].node.as_ref() else { return 0 };
    let homes = node.status(crowd.w.now()).homes;
    homes.iter().filter(|(home, _)| is_honest(crowd, *home)).count()
}

fn is_honest(crowd: &Crowd, peer: PeerId) -> bool {
    crowd.w.by_peer.contains_key(&peer)
}

/// Who is to know a supernode: all, while one table holds all; else those around its place.
fn wanting(crowd: &Crowd, newcomer: HostId) -> Vec<HostId> {
    let place = |host: HostId| *blake3::hash(crowd.w.peer(host).as_bytes()).as_bytes();
    let own = place(newcomer);
    let far = |host: HostId| own.iter().zip(place(host)).map(|(a, b)| a ^ b).collect::<Vec<u8>>();
    let mut others: Vec<HostId> = crowd.serving.iter().copied().filter(|host| *host != newcomer).collect();
    if others.len() * 4 > crowd.args.table_max * 3 {
        others.sort_by_key(|host| far(*host));
        others.truncate(AROUND);
    }
    others
}

/// A newcomer among supernodes, and fresh leaves: are they known, drawn, at home, and told of honest ones?
fn welcome(crowd: &mut Crowd, mut sybils: Option<&mut Sybils>, out: &mut Outcome) {
    let has_sybils = sybils.is_some();
    let mut go_on = |crowd: &mut Crowd, time| match &mut sybils {
        Some(sybils) => run(crowd, sybils, time),
        None => crowd.run_for(time),
    };
    let began = crowd.w.now();
    let newcomer = crowd.add_supernode();
    let peer = crowd.w.peer(newcomer);
    let told: Vec<HostId> = crowd.w.hosts[newcomer.0].known.iter().map(|(peer, _)| crowd.w.host_of(*peer)).collect();
    let knows = |crowd: &Crowd, host: HostId| {
        crowd.w.node(host).status(crowd.w.now()).supernodes.iter().any(|s| s.peer == peer)
    };
    let (mut vetted, mut drawn, mut known) = (None, None, None);
    let (first, mut waiting, mut homes_took) = (crowd.leaves.len(), Vec::new(), Vec::new());
    let mut worst = 100.0_f64;
    loop {
        let second = crowd.w.now().since(began).as_secs();
        if second >= 660 || second >= 60 && known.is_some() {
            break;
        }
        if second < 60 {
            let before = crowd.leaves.len();
            crowd.add_leaves(crowd.serving.len().div_ceil(LISTED), ms(1));
            waiting.extend((before..crowd.leaves.len()).map(|leaf| (leaf, crowd.w.now())));
        }
        go_on(crowd, Duration::from_secs(1));
        let took = |crowd: &Crowd| Some(crowd.w.now().since(began));
        if vetted.is_none() && told.iter().all(|host| knows(crowd, *host)) {
            vetted = took(crowd);
        }
        if drawn.is_none() && (first..crowd.leaves.len()).any(|leaf| knows(crowd, crowd.leaves[leaf].host)) {
            drawn = took(crowd);
        }
        waiting.retain(|(leaf, since)| {
            let is_home = honest_homes(crowd, *leaf) == 2;
            if is_home {
                homes_took.push(crowd.w.now().since(*since));
                let status = crowd.w.node(crowd.leaves[*leaf].host).status(crowd.w.now());
                let listed = status.supernodes.iter().filter(|s| is_honest(crowd, s.peer)).count();
                worst = worst.min(percent(listed as u64, status.supernodes.len() as u64).unwrap_or(worst));
            }
            !is_home
        });
        // Everybody looks into a book that is large, but not every second.
        let looks = known.is_none() && second.is_multiple_of(5);
        if looks && wanting(crowd, newcomer).into_iter().all(|host| knows(crowd, host)) {
            known = took(crowd);
        }
    }
    let of_all = if waiting.is_empty() { homes_took.iter().max().copied() } else { None };
    out.bound("an honest newcomer is known by those it was told of", vetted.map(seconds), "s", VETTED_S);
    out.bound("and by a fresh leaf", drawn.map(seconds), "s", DRAWN_S);
    out.bound("and by all supernodes that are to know it", known.map(seconds), "s", KNOWN_S);
    let listed = "of supernodes that a fresh leaf was told of, honest ones, at least";
    let homes = "all fresh leaves have two honest homes after";
    if has_sybils {
        // Who has an address, and answers there, is a supernode like any other until it is found out.
        out.tell(listed, worst, "%");
        out.tell(homes, of_all.map(seconds), "s");
    } else {
        out.bound(listed, Some(worst), "%", LISTED_HONEST_PERCENT);
        out.bound(homes, of_all.map(seconds), "s", HONEST_HOMES_S);
    }
    out.tell("fresh leaves", (crowd.leaves.len() - first) as f64, "");
}
