//! Where a node keeps what outlives it: its key, what the core asked to save, the lock, and usually the local socket.
//!
//! One node per state directory: two with one identity would take each other's links away in turns. The lock is the
//! kernel's, so that a crash frees it; the pid inside only tells a person whom to look for.

use std::env;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// A state directory that exists.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    socket: PathBuf,
}

/// Holds the state directory for one node; freed when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "the open file is the lock")] File);

/// Why the lock was not had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// A node holds it; its pid, if it has written it already.
    Held(Option<u32>),
    /// Something else.
    Failed(Failure),
}

impl StateDir {
    /// The directory the user named, or the usual one; created (mode 0700) if it is missing.
    pub(crate) fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let state = Self::locate(named, |name| env::var_os(name).map(PathBuf::from))?;
        create_private(&state.path)?;
        Ok(state)
    }

    /// Where things are, without touching the disk.
    fn locate(named: Option<&Path>, var: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Failure> {
        // The XDG base directory specification: a relative path in these variables is to be ignored.
        let absolute = |name| var(name).filter(|path| path.is_absolute());
        if let Some(path) = named {
            if path.as_os_str().is_empty() {
                return Err(Failure::usage("the state directory has an empty name", "name one: --state-dir DIR"));
            }
            // Made absolute, so that what is printed can be used from anywhere.
            let path = std::path::absolute(path).map_err(|error| Failure::io(path.display(), &error))?;
            return Ok(Self { socket: path.join("socket"), path });
        }
        let path = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("handfast"))
            .ok_or_else(|| {
                Failure::usage("there is no home directory to keep the key in", "name one: --state-dir DIR")
            })?;
        let socket = match absolute("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join("handfast").join("socket"),
            None => path.join("socket"),
        };
        Ok(Self { path, socket })
    }

    /// The secret key.
    pub(crate) fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    /// What the core asked to save.
    pub(crate) fn saved(&self) -> PathBuf {
        self.path.join("saved")
    }

    /// That the owner was asked what is asked once.
    pub(crate) fn asked(&self) -> PathBuf {
        self.path.join("asked")
    }

    /// The local socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes the directory of the local socket, if that is another one.
    pub(crate) fn create_socket_directory(&self) -> Result<(), Failure> {
        self.socket.parent().map_or(Ok(()), create_private)
    }

    /// Takes the directory for one node.
    pub(crate) fn lock(&self) -> Result<Lock, LockError> {
        let path = self.path.join("lock");
        let failed = |error: &io::Error| LockError::Failed(unwritable(&self.path, error));
        // Not truncated: the pid inside belongs to whoever holds the lock.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(|error| failed(&error))?;
                writeln!(file, "{}", std::process::id()).map_err(|error| failed(&error))?;
                Ok(Lock(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                Err(LockError::Held(text.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    /// The failure of a second node.
    pub(crate) fn taken(&self, pid: Option<u32>) -> Failure {
        let who = pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
        Failure::new(
            Exit::Failure,
            format!("a node is running already with {} ({who})", self.path.display()),
            "stop it, or give this one its own: --state-dir DIR",
        )
    }
}

fn create_private(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("cannot write to the state directory {}: {error}", path.display()),
        "choose one that you may write to: --state-dir DIR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(named: Option<&str>, vars: &[(&str, &str)]) -> Result<StateDir, Failure> {
        StateDir::locate(named.map(Path::new), |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn a_named_directory_holds_the_socket() {
        let state = locate(Some("/x"), &[("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/h")]).unwrap();
        assert_eq!(state.key(), Path::new("/x/key"));
        assert_eq!(state.socket(), Path::new("/x/socket"));
    }

    #[test]
    fn the_usual_places_follow_xdg() {
        let state = locate(None, &[("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/h")]).unwrap();
        assert_eq!(state.key(), Path::new("/h/.local/state/handfast/key"));
        assert_eq!(state.socket(), Path::new("/run/user/1/handfast/socket"));
        let state = locate(None, &[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).unwrap();
        assert_eq!(state.key(), Path::new("/s/handfast/key"));
        assert_eq!(state.socket(), Path::new("/s/handfast/socket"));
        let state = locate(None, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]).unwrap();
        assert_eq!(state.key(), Path::new("/h/.local/state/handfast/key"));
        assert_eq!(locate(None, &[]).unwrap_err().exit, Exit::Usage);
        assert_eq!(locate(Some(""), &[]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn one_node_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path())).unwrap();
        let lock = state.lock().unwrap();
        match state.lock() {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("locked twice: {other:?}"),
        }
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn a_directory_below_a_file_is_refused_in_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = StateDir::open(Some(&file.path().join("state"))).unwrap_err();
        assert_eq!(failure.exit, Exit::Failure);
        assert!(failure.to_string().contains("--state-dir"), "{failure}");
    }
}
