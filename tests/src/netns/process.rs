//! Processes of a laboratory: started with their output in files, waited for with a limit, killed when dropped.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of each log a failing test shows, in lines.
const SHOWN_LINES: usize = 80;
/// How often a waiting test looks again.
const LOOK: Duration = Duration::from_millis(10);

/// Looks again and again until `look` has found something; None when `limit` passes before that.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// A running process.
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; 128 + number when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics unless it ended well; gives itself back.
    #[expect(clippy::return_self_not_must_use, reason = "the panic is what it is for")]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "exit code {}, it said: {}", self.code, self.stderr.trim());
        self
    }
}

impl Process {
    /// Starts `command` with its output in fresh files in `logs`, called after `name`.
    pub fn spawn(logs: &Path, name: &str, command: &mut Command) -> Self {
        let (stdout, stderr) = fresh(logs, name);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a log"))
            .stderr(fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&stderr).expect("a log"))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, name: name.to_owned(), stdout, stderr }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        fs::read(&self.stdout).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits for a whole line on standard output that `wanted` takes. Panics when the process ends or `limit` passes
    /// before that.
    #[track_caller]
    pub fn wait_line<T>(&mut self, limit: Duration, wanted: impl Fn(&str) -> Option<T>) -> T {
        let find = |text: &str| {
            let (whole, _) = text.rsplit_once('\n')?;
            whole.lines().find_map(&wanted)
        };
        let found = wait_for(limit, || {
            if let Some(found) = find(&self.stdout()) {
                return Some(Ok(found));
            }
            let ended = self.child.try_wait().expect("a child of ours")?;
            // It may have written the line just before it ended.
            Some(find(&self.stdout()).ok_or(ended))
        });
        match found {
            Some(Ok(found)) => found,
            Some(Err(ended)) => panic!("{} ended ({ended}) before it said what was waited for", self.name),
            None => panic!("{} did not say within {limit:?} what was waited for", self.name),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, ..
    pub fn signal(&self, name: &str) {
        signal(&self.id().to_string(), name);
    }

    /// Ends it at once, without a chance to say goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself. Panics when `limit` passes before that.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let status = wait_for(limit, || self.child.try_wait().expect("a child of ours"));
        let Some(status) = status else { panic!("{} did not end within {limit:?}", self.name) };
        Finished {
            code: code(status),
            stdout: fs::read(&self.stdout).unwrap_or_default(),
            stderr: fs::read_to_string(&self.stderr).unwrap_or_default(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal. A process that is gone already is no error.
pub fn signal(pid: &str, name: &str) {
    // The shell's own `kill`: std has no call for it, and not every host has the program.
    let _ = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// File names for both outputs that are not taken: a process may be started again under its name.
fn fresh(logs: &Path, name: &str) -> (PathBuf, PathBuf) {
    let mut number = 0;
    loop {
        let path = |end: &str| logs.join(format!("{name}.{number}.{end}"));
        if !path("out").exists() {
            return (path("out"), path("log"));
        }
        number += 1;
    }
}

/// Prints the end of every log in `dir`: where a failing test's cause is to be found.
pub fn show_logs(dir: &Path) {
    let mut logs: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|end| end == "out" || end == "log"));
    logs.sort();
    for log in logs {
        let Ok(bytes) = fs::read(&log) else { continue };
        if bytes.is_empty() || bytes.len() > 1 << 20 {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("---- {}", log.file_name().unwrap_or_default().to_string_lossy());
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            eprintln!("{line}");
        }
    }
}
