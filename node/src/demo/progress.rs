//! What one sees while a download runs: a bar on a terminal, a few plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use handfast_io::{Endpoint, Event, Notice, PathInfo, PeerId};
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::bytes;
use crate::talk;

/// The paths to one peer since the watch began, each with the moment it was taken.
#[derive(Clone)]
pub(super) struct PathWatch {
    seen: Arc<Mutex<Vec<(Instant, PathInfo)>>>,
}

impl PathWatch {
    /// Watches the paths to `peer` for as long as the endpoint lives.
    pub(super) fn start(endpoint: &Endpoint, peer: PeerId) -> io::Result<Self> {
        let watch = Self { seen: Arc::default() };
        let (events, seen) = (endpoint.events(), watch.clone());
        thread::Builder::new().name("path watch".into()).spawn(move || {
            for notice in events {
                if let Notice::Event(Event::PathChanged { peer: of, path }) = notice
                    && of == peer
                {
                    seen.seen().push((Instant::now(), path));
                }
            }
        })?;
        Ok(watch)
    }

    /// The path in use.
    pub(super) fn current(&self) -> Option<PathInfo> {
        self.seen().last().map(|(_, path)| *path)
    }

    /// Whether a relayed path was in use at some time since `since`.
    pub(super) fn was_relayed(&self, since: Instant) -> bool {
        self.seen().iter().any(|(at, path)| *at >= since && !path.is_direct())
    }

    /// How long after `since` the first direct path was taken.
    pub(super) fn direct_after(&self, since: Instant) -> Option<Duration> {
        let seen = self.seen();
        let (at, _) = seen.iter().find(|(at, path)| *at >= since && path.is_direct())?;
        Some(at.duration_since(since))
    }

    fn seen(&self) -> MutexGuard<'_, Vec<(Instant, PathInfo)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a path is called on a bar.
fn word(path: Option<PathInfo>) -> &'static str {
    match path {
        Some(PathInfo::Direct { .. }) => "direct",
        Some(PathInfo::Relay { .. }) => "relay",
        None => "…",
    }
}

/// Shows one download.
pub(super) struct Progress {
    watch: PathWatch,
    name: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    /// What the last plain line said: quarter and path.
    said: (u64, &'static str),
}

impl Progress {
    pub(super) fn new(name: &'static str, total: u64, watch: PathWatch) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            // The template is ours and constant; were it wrong, the default one would do.
            let style = ProgressStyle::with_template(
                "{prefix}  {bar:32} {bytes:>10} / {total_bytes}  {bytes_per_sec:>12}  {msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name);
            bar
        });
        Self { watch, name, total, bar, said: (u64::MAX, "") }
    }

    /// So much has come.
    pub(super) fn at(&mut self, received: u64) {
        let path = word(self.watch.current());
        if let Some(bar) = &self.bar {
            bar.set_position(received);
            bar.set_message(path);
            return;
        }
        let now = (received * 4 / self.total.max(1), path);
        if now != self.said {
            self.said = now;
            talk::note(format!("{}  {} of {}, {path}", self.name, bytes(received), bytes(self.total)));
        }
    }

    /// Something happened beside it.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| talk::note(text)),
            None => talk::note(text),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
