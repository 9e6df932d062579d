//! What supernodes carry: bytes at IP level, both ways, by duty, over time and over supernodes.
//!
//! [`Meter::sample`] is called every [`EVERY`] and reads the accounts that the [`ledger`](crate::ledger) keeps at each
//! supernode's network card. A supernode is counted while it is up; one that replaces another is one more.

use core::time::Duration;
use std::collections::BTreeMap;

use handfast_core::Instant;

use super::report::{Series, Table, number};
use crate::host::{HostId, Traffic};
use crate::ledger::{Kind, Ledger, Party};
use crate::world::World;

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(10);

/// One supernode's samples.
#[derive(Clone, Debug)]
struct Track {
    /// The sample in which it came.
    first: usize,
    last: u64,
    /// Bytes of duty, in and out, in each interval since; none where it was down at the end of it.
    bytes: Vec<Option<u32>>,
}

/// All supernodes' samples.
#[derive(Default)]
pub struct Meter {
    tracks: BTreeMap<HostId, Track>,
    moments: Vec<Instant>,
    marks: BTreeMap<HostId, Ledger>,
    marked_at: usize,
}

impl Meter {
    /// A supernode is up from now on.
    pub(crate) fn watch(&mut self, host: HostId) {
        let first = self.moments.len();
        self.tracks.entry(host).or_insert(Track { first, last: 0, bytes: Vec::new() });
    }

    /// Reads all accounts.
    pub fn sample(&mut self, w: &World) {
        for (host, track) in &mut self.tracks {
            let total = ledger(w, *host).duty().bytes();
            track.bytes.push(w.is_up(*host).then_some((total - track.last) as u32));
            track.last = total;
        }
        self.moments.push(w.now());
    }

    /// From here on counts what [`Meter::window`] gives.
    pub(crate) fn mark(&mut self, w: &World) {
        self.marks = self.tracks.keys().map(|host| (*host, *ledger(w, *host))).collect();
        self.marked_at = self.moments.len();
    }

    /// What was carried since the mark, and by how many supernodes.
    pub fn window(&self, w: &World) -> Window {
        let mut total = Ledger::default();
        for host in self.tracks.keys() {
            let before = self.marks.get(host).copied().unwrap_or_default();
            total.merge(&ledger(w, *host).since(&before));
        }
        let intervals = self.moments.len() - self.marked_at;
        let up: usize = self.tracks.values().map(|track| self.since_mark(track).flatten().count()).sum();
        let mut means: Vec<f64> = self.tracks.values().filter_map(|track| self.mean_kbps(track)).collect();
        means.sort_by(f64::total_cmp);
        Window { total, supernode_seconds: up as f64 * EVERY.as_secs_f64(), seconds: seconds(intervals), means }
    }

    fn since_mark<'a>(&self, track: &'a Track) -> impl Iterator<Item = Option<u32>> + use<'a> {
        track.bytes.iter().copied().skip(self.marked_at.saturating_sub(track.first))
    }

    fn mean_kbps(&self, track: &Track) -> Option<f64> {
        let up: Vec<u64> = self.since_mark(track).flatten().map(u64::from).collect();
        (up.len() >= 6).then(|| kbps(up.iter().sum(), up.len()))
    }

    /// The mean of each of these supernodes over some time before now, in bytes in an interval.
    pub(crate) fn means(&self, of: &[HostId], over: Duration) -> BTreeMap<HostId, f64> {
        let n = (over.as_secs() / EVERY.as_secs()) as usize;
        let mean = |host: &HostId| {
            let bytes = &self.tracks.get(host)?.bytes;
            let last: Vec<u32> = bytes[bytes.len().saturating_sub(n)..].iter().copied().flatten().collect();
            Some((*host, last.iter().map(|b| f64::from(*b)).sum::<f64>() / last.len().max(1) as f64))
        };
        of.iter().filter_map(mean).collect()
    }

    /// The most that any of these supernodes carried in any minute since the mark, as a multiple of its own mean.
    pub(crate) fn worst_minute(&self, means: &BTreeMap<HostId, f64>) -> Option<f64> {
        let worst = |(host, mean): (&HostId, &f64)| {
            let bytes: Vec<u32> = self.since_mark(self.tracks.get(host)?).flatten().collect();
            let minute = bytes.windows(6).map(|six| six.iter().map(|b| f64::from(*b)).sum::<f64>() / 6.0);
            minute.max_by(f64::total_cmp).filter(|_| *mean > 0.0).map(|most| most / mean)
        };
        means.iter().filter_map(worst).max_by(f64::total_cmp)
    }

    /// The mean and the largest load of a supernode over time.
    pub(crate) fn over_time(&self, name: &str) -> Series {
        let (mut mean, mut most) = (Vec::new(), Vec::new());
        let began = self.moments.first().copied().unwrap_or_default();
        for (n, at) in self.moments.iter().enumerate() {
            let now = self.tracks.values().filter_map(|t| *t.bytes.get(n.checked_sub(t.first)?)?);
            let now: Vec<f64> = now.map(|b| kbps(u64::from(b), 1)).collect();
            let minutes = at.since(began).as_secs_f64() / 60.0;
            if !now.is_empty() {
                mean.push((minutes, now.iter().sum::<f64>() / now.len() as f64));
                most.push((minutes, now.iter().copied().fold(0.0, f64::max)));
            }
        }
        let curves = vec![("mean of all supernodes".to_owned(), mean), ("the most loaded one".to_owned(), most)];
        Series { name: format!("{name}: load over time"), x: "virtual minutes", y: "kbit/s in + out", curves }
    }
}

fn ledger(w: &World, host: HostId) -> &Ledger {
    w.hosts[host.0].ledger.as_deref().expect("a supernode has an account")
}

fn seconds(intervals: usize) -> f64 {
    intervals as f64 * EVERY.as_secs_f64()
}

fn kbps(bytes: u64, intervals: usize) -> f64 {
    bytes as f64 * 8.0 / 1000.0 / seconds(intervals)
}

/// What was carried in some time.
pub struct Window {
    /// By all supernodes.
    pub total: Ledger,
    /// The sum of the times that each was up.
    pub supernode_seconds: f64,
    /// How long it was.
    pub seconds: f64,
    /// What each carried while it was up, in kbit/s; the least first.
    pub means: Vec<f64>,
}

impl Window {
    /// Bytes of a supernode's duty, as kbit/s in and out together.
    pub fn kbps(&self) -> f64 {
        self.per_supernode(self.total.duty())
    }

    fn per_supernode(&self, traffic: Traffic) -> f64 {
        traffic.bytes() as f64 * 8.0 / 1000.0 / self.supernode_seconds.max(1.0)
    }

    /// How much of it goes between supernodes.
    pub fn between_supernodes_kbps(&self) -> f64 {
        let kinds = Kind::all().map(|kind| self.total.get(Party::Supernode, kind));
        kinds.map(|traffic| self.per_supernode(traffic)).sum()
    }

    /// What a supernode carries, by what a network card can see of duties.
    pub fn by_duty(&self) -> Table {
        let head = ["with", "packets of kind", "kbit/s in", "kbit/s out", "packets/s", "bytes each"];
        let mut table = Table::new("Each supernode in the mean, at IP level:", &head);
        for party in [Party::Leaf, Party::Supernode] {
            for kind in Kind::all() {
                let t = self.total.get(party, kind);
                if t.packets() == 0 {
                    continue;
                }
                let one_way = |bytes: u64| number(bytes as f64 * 8.0 / 1000.0 / self.supernode_seconds.max(1.0));
                let with = if party == Party::Leaf { "leaves" } else { "supernodes" };
                table.lines.push(vec![
                    with.to_owned(),
                    kind.name(),
                    one_way(t.bytes_in),
                    one_way(t.bytes_out),
                    number(t.packets() as f64 / self.supernode_seconds.max(1.0)),
                    number(t.bytes() as f64 / t.packets() as f64),
                ]);
            }
        }
        table
    }

    /// The supernodes in the order of their loads.
    pub(crate) fn over_supernodes(&self, name: &str) -> Series {
        let count = self.means.len().max(1) as f64;
        let points = self.means.iter().enumerate().map(|(n, load)| ((n + 1) as f64 * 100.0 / count, *load));
        let curves = vec![("mean of each while it was up".to_owned(), points.collect())];
        let name = format!("{name}: load over supernodes");
        Series { name, x: "supernodes, the least loaded first, %", y: "kbit/s in + out", curves }
    }
}
