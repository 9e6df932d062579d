//! The state file: what the core asks to keep for the next run.
//!
//! [`load`] reads it at start. A file that is damaged, oversized or of a newer version is an error that names it, and
//! is left as it is. [`Saver`] has a thread of its own, because syncing to disk may take longer than a relay can wait:
//! it is handed items with [`Saver::keep`], writes the newest state (temporary file, sync, rename, sync of the
//! directory: a kill at any moment leaves the old file or the new one), and when the disk refuses, complains once a
//! minute, tries again, and the node runs on.
//!
//! The file is a few lines of text:
//!
//! ```text
//! handfast-state 2
//! clock-mark 1767225600000000
//! sequence 12
//! relayed 1767225600 5000000
//! anchor hf1… 203.0.113.7:7441
//! binding 8f14e45fceea167a 118000
//! router 8f14e45fceea167a 52496
//! end
//! ```
//!
//! A binding is how many milliseconds the router of a network keeps one, and a router is what the core found out about
//! it; the network is named by a hash. Version 1 had
//! no bindings, and is read.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use handfast_core::api::BINDINGS_MAX;
use handfast_core::{Relayed, Save, Saved};

use crate::host::{SELDOM, Until};

/// A state file larger than this is not ours.
const FILE_LEN_MAX: u64 = 64 * 1024;
/// Most anchors that are written or read: with the longest addresses they stay well below [`FILE_LEN_MAX`].
const ANCHORS_MAX: usize = 256;
/// First line; the number grows when an older program could not read the file.
const HEADER: &str = "handfast-state 2";
/// First lines of files that are read as well.
const OLDER_HEADERS: [&str; 1] = ["handfast-state 1"];
/// Last line: without it the file was cut short.
const FOOTER: &str = "end";

/// Reads the state file. A missing one is the first run.
pub(crate) fn load(path: &Path) -> io::Result<Saved> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(refusal(path, error.kind(), &error.to_string())),
    };
    // Asked before opening: opening a pipe would wait for ever.
    if !meta.is_file() {
        return Err(refusal(path, io::ErrorKind::InvalidData, "is not a regular file"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| refusal(path, error.kind(), &error.to_string()))?;
    match file.take(FILE_LEN_MAX + 1).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(refusal(path, io::ErrorKind::InvalidData, "is damaged: it is not text"));
        }
        Err(error) => return Err(refusal(path, error.kind(), &error.to_string())),
    }
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(refusal(path, io::ErrorKind::InvalidData, "is larger than 64 KiB"));
    }
    parse(&text).map_err(|what| refusal(path, io::ErrorKind::InvalidData, &what))
}

fn refusal(path: &Path, kind: io::ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, format!("state file {}: {what}; move it away to start afresh", path.display()))
}

fn parse(text: &str) -> Result<Saved, String> {
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, line)) if line == HEADER || OLDER_HEADERS.contains(&line) => {}
        Some((_, line)) if line.starts_with("handfast-state ") => {
            return Err("was written by a newer version of handfast".to_owned());
        }
        _ => return Err("is damaged: line 1 is not a state file's".to_owned()),
    }
    let mut saved = Saved::default();
    for (index, line) in lines {
        if line == FOOTER {
            return Ok(saved);
        }
        parse_line(line, &mut saved).ok_or_else(|| format!("is damaged: line {}", index + 1))?;
    }
    Err("is damaged: it has been cut short".to_owned())
}

fn parse_line(line: &str, saved: &mut Saved) -> Option<()> {
    let mut words = line.split(' ');
    match words.next()? {
        "clock-mark" => saved.clock_mark = words.next()?.parse().ok()?,
        "sequence" => saved.sequence = words.next()?.parse().ok()?,
        "relayed" => {
            saved.relayed = Relayed { since_s: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()? };
        }
        "volunteered" => {
            saved.volunteered = Relayed { since_s: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()? };
        }
        "anchor" if saved.anchors.len() < ANCHORS_MAX => {
            saved.anchors.push((words.next()?.parse().ok()?, words.next()?.parse().ok()?));
        }
        "binding" if saved.bindings.len() < BINDINGS_MAX => {
            saved.keep_binding(network(words.next()?)?, words.next()?.parse().ok()?);
        }
        "router" if saved.routers.len() < BINDINGS_MAX => {
            saved.keep(Save::Router { network: network(words.next()?)?, found: words.next()?.parse().ok()? });
        }
        _ => return None,
    }
    words.next().is_none().then_some(())
}

/// A network by its name.
fn network(word: &str) -> Option<[u8; 8]> {
    let is_whole = word.len() == 16;
    Some(u64::from_str_radix(word, 16).ok().filter(|_| is_whole)?.to_be_bytes())
}

fn print(saved: &Saved) -> String {
    let mut text = format!("{HEADER}\nclock-mark {}\nsequence {}\n", saved.clock_mark, saved.sequence);
    if saved.relayed != Relayed::default() {
        let _ = writeln!(text, "relayed {} {}", saved.relayed.since_s, saved.relayed.bytes);
    }
    if saved.volunteered != Relayed::default() {
        let _ = writeln!(text, "volunteered {} {}", saved.volunteered.since_s, saved.volunteered.bytes);
    }
    for (peer, address) in saved.anchors.iter().take(ANCHORS_MAX) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "anchor {peer} {address}");
    }
    for (network, lifetime_ms) in saved.bindings.iter().take(BINDINGS_MAX) {
        let _ = writeln!(text, "binding {:016x} {lifetime_ms}", u64::from_be_bytes(*network));
    }
    for (network, found) in saved.routers.iter().take(BINDINGS_MAX) {
        let _ = writeln!(text, "router {:016x} {found}", u64::from_be_bytes(*network));
    }
    text.push_str(FOOTER);
    text.push('\n');
    text
}

/// Replaces the state file in one step.
fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    // What a killed run left behind; `create_new` then follows no link.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let written = file.write_all(print(saved).as_bytes()).and_then(|()| file.sync_all());
    drop(file);
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        // A full disk needs the room more than we need half a file.
        let _ = fs::remove_file(&temporary);
        return replaced;
    }
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Keeps the state and its file. Dropping it writes what is still unwritten.
pub(crate) struct Saver {
    saved: Saved,
    writer: Option<(Sender<Saved>, JoinHandle<()>)>,
}

impl Saver {
    /// A saver that goes on from `saved`; without a path it forgets.
    pub(crate) fn start(path: Option<PathBuf>, saved: Saved) -> io::Result<Self> {
        let writer = path
            .map(|path| {
                let (sender, receiver) = channel();
                let thread = std::thread::Builder::new()
                    .name("handfast-save".to_owned())
                    .spawn(move || write_all(&path, &receiver))?;
                Ok::<_, io::Error>((sender, thread))
            })
            .transpose()?;
        Ok(Self { saved, writer })
    }

    /// Takes one item to keep.
    pub(crate) fn keep(&mut self, item: Save) {
        self.saved.keep(item);
        if let Some((writer, _)) = &self.writer {
            // A writer that panicked keeps nothing; the node does not need it to run.
            let _ = writer.send(self.saved.clone());
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// The writer's thread: the newest state, each time there is one; after a failure again in a minute.
fn write_all(path: &Path, receiver: &Receiver<Saved>) {
    let mut unwritten: Option<(Saved, Until)> = None;
    loop {
        let next = match &unwritten {
            Some((_, again)) => receiver.recv_timeout(again.left()),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let ending = matches!(next, Err(RecvTimeoutError::Disconnected));
        let saved = match (next, unwritten.take()) {
            // While the disk refuses, new items wait for the next try: one complaint a minute.
            (Ok(newer), Some((_, again))) => {
                unwritten = Some((newer, again));
                continue;
            }
            (Ok(newer), None) => receiver.try_iter().last().unwrap_or(newer),
            (Err(_), Some((saved, _))) => saved,
            (Err(_), None) => return,
        };
        if let Err(error) = write(path, &saved) {
            tracing::warn!("cannot write the state file {}: {error}; running on from memory", path.display());
            unwritten = Some((saved, Until::after(SELDOM)));
        }
        if ending {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::SecretKey;

    use super::*;

    fn example() -> Saved {
        let peer = |n| SecretKey::from_bytes(&[n; 32]).peer_id();
        let mut saved = Saved::default();
        saved.clock_mark = 1_767_225_600_000_000;
        saved.sequence = 12;
        saved.relayed = Relayed { since_s: 1_767_225_600, bytes: 5_000_000 };
        saved.volunteered = Relayed { since_s: 1_767_225_601, bytes: 7 };
        saved.anchors = vec![
            (peer(1), "203.0.113.7:7441".parse().expect("address")),
            (peer(2), "[2001:db8::7]:7441".parse().expect("address")),
        ];
        saved.bindings = vec![([0, 1, 2, 3, 4, 5, 6, 0xff], 118_000), ([9; 8], 9_900)];
        saved.routers = vec![([9; 8], u32::MAX), ([0xff; 8], 0)];
        saved
    }

    /// A clock mark, a sequence number, and nothing else.
    fn numbers(clock_mark: u64, sequence: u64) -> Saved {
        let mut saved = Saved::default();
        (saved.clock_mark, saved.sequence) = (clock_mark, sequence);
        saved
    }

    #[test]
    fn state_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        assert_eq!(load(&path).expect("a first run"), Saved::default());
        write(&path, &example()).expect("written");
        assert_eq!(load(&path).expect("loaded"), example());
        write(&path, &Saved::default()).expect("replaced");
        assert_eq!(load(&path).expect("loaded"), Saved::default());
        assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 1, "no temporary file stays behind");
    }

    #[test]
    fn every_cut_and_every_bad_line_is_refused_and_the_file_untouched() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        let text = print(&example());
        // The last line's newline may be missing; anything shorter is damage.
        for len in 0..text.len() - 1 {
            fs::write(&path, &text[..len]).expect("written");
            let error = load(&path).expect_err("cut short");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("state"), "{error}");
            assert_eq!(fs::read(&path).expect("still there"), &text.as_bytes()[..len]);
        }
        let crowd: Vec<String> = (0..=BINDINGS_MAX).map(|n| format!("binding {n:016x} 1\n")).collect();
        let crowd = crowd.concat();
        for bad in [
            crowd.trim_end(),
            "binding 0 1",
            "binding 00000000000000000 1",
            "binding 000000000000000g 1",
            "binding 0000000000000001 -1",
            "sequence x",
            "sequence 1 2",
            "anchor hf1qq 1.2.3.4:5",
            "relayed 1",
            "surprise",
        ] {
            assert!(parse(&format!("{HEADER}\n{bad}\n{FOOTER}\n")).is_err(), "{bad}");
        }
        assert!(parse("handfast-state 3\nend\n").expect_err("newer").contains("newer"));
    }

    #[test]
    fn a_file_of_the_version_before_is_read() {
        let saved = parse("handfast-state 1\nclock-mark 7\nsequence 9\nend\n").expect("read");
        assert_eq!(saved, numbers(7, 9));
        assert_eq!(parse(&print(&saved)), Ok(saved), "and written as the newest");
    }

    #[test]
    fn the_newest_word_on_a_network_counts_and_the_oldest_networks_go() {
        let mut saver = Saver::start(None, Saved::default()).expect("started");
        for n in 0..40u8 {
            saver.keep(Save::Binding { network: [n; 8], lifetime_ms: 1_000 });
        }
        saver.keep(Save::Binding { network: [30; 8], lifetime_ms: 2_000 });
        assert_eq!(saver.saved.bindings.len(), BINDINGS_MAX);
        assert_eq!(saver.saved.bindings.first(), Some(&([24; 8], 1_000)));
        assert_eq!(saver.saved.bindings.last(), Some(&([30; 8], 2_000)));
    }

    #[test]
    fn oversized_and_odd_files_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        fs::write(&path, vec![b'x'; 64 * 1024 + 1]).expect("written");
        assert!(load(&path).expect_err("oversized").to_string().contains("64 KiB"));
        fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(load(&path).is_err());
        assert!(load(dir.path()).expect_err("a directory").to_string().contains("regular"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_a_leftover_link_is_not_followed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "precious").expect("written");
        symlink(&elsewhere, dir.path().join("state.new")).expect("linked");
        write(&path, &example()).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&elsewhere).expect("there"), "precious");
    }

    #[test]
    fn the_saver_writes_the_newest_state_before_it_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        let mut saver = Saver::start(Some(path.clone()), Saved::default()).expect("started");
        for sequence in 1..=100 {
            saver.keep(Save::Sequence(sequence));
        }
        saver.keep(Save::ClockMark(7));
        drop(saver);
        assert_eq!(load(&path).expect("loaded"), numbers(7, 100));
    }

    #[test]
    fn a_disk_that_refuses_stops_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("missing").join("state");
        let mut saver = Saver::start(Some(path.clone()), Saved::default()).expect("started");
        saver.keep(Save::Sequence(1));
        fs::create_dir(dir.path().join("missing")).expect("created");
        drop(saver);
        assert_eq!(load(&path).expect("loaded").sequence, 1, "what was refused is tried again at the end");
    }
}
