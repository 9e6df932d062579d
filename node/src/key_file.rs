//! The identity on disk: one line with the secret seed, readable by its owner alone.
//!
//! A key file is created once, complete or not at all, and never overwritten: not by a second start at the same
//! moment, and not because it looks wrong. Whatever is wrong with it stops the start with the file and the reason,
//! since a node that quietly took a new identity would be a stranger to everyone who allowed the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use handfast_io::{PeerId, SecretKey};

use crate::exit::{Exit, Failure};

/// First word of the line, so that a person who finds the file knows what it is, and a later format is told apart.
const HEADER: &str = "handfast-key-v1";
/// Header, space, 64 hexadecimal digits, newline; a check that follows leaves room for nothing else.
const FILE_LEN_MAX: u64 = 256;
/// Bytes of BLAKE3 after the seed, so that a damaged line is found before it becomes another identity.
const CHECK_LEN: usize = 8;

/// The identity in `path`; a new one, if there is no such file. Says whether it is new.
pub(crate) fn load_or_create(path: &Path) -> Result<(SecretKey, bool), Failure> {
    match load(path) {
        Ok(Some(key)) => Ok((key, false)),
        Ok(None) => match create(path) {
            Ok(key) => Ok((key, true)),
            // Another process was faster: its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match load(path)? {
                Some(key) => Ok((key, false)),
                None => Err(wrong(path, "it vanished while being read", "run the command again")),
            },
            Err(error) => Err(Failure::new(
                Exit::Failure,
                format!("cannot save a new key to {}: {error}", path.display()),
                "choose a directory that you may write to: --state-dir DIR",
            )),
        },
        Err(failure) => Err(failure),
    }
}

/// The identity in `path`, or `None` if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<SecretKey>, Failure> {
    // The link itself is looked at, not what it points to: a key reached through a symbolic link may be anywhere.
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_symlink() => {
            return Err(wrong(path, "it is a symbolic link", "put the key file itself there"));
        }
        Ok(found) if !found.is_file() => return Err(wrong(path, "it is not a regular file", "move it away")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    }
    let file = OpenOptions::new().read(true).open(path).map_err(|error| unreadable(path, &error))?;
    // From here on the open file is looked at: the name may mean something else by now.
    let found = file.metadata().map_err(|error| unreadable(path, &error))?;
    if found.mode() & 0o077 != 0 {
        return Err(wrong(
            path,
            format!("others can read it (mode {:04o})", found.mode() & 0o7777),
            format!("if nobody has: chmod 600 {}", path.display()),
        ));
    }
    if found.len() > FILE_LEN_MAX {
        return Err(wrong(path, format!("it is too large ({} bytes)", found.len()), restore(path)));
    }
    let mut text = String::new();
    if let Err(error) = (&file).take(FILE_LEN_MAX).read_to_string(&mut text) {
        return match error.kind() {
            io::ErrorKind::InvalidData => Err(wrong(path, "it is damaged (not text)", restore(path))),
            _ => Err(unreadable(path, &error)),
        };
    }
    match parse(&text) {
        Ok(seed) => Ok(Some(SecretKey::from_bytes(&seed))),
        Err(reason) => Err(wrong(path, format!("it is damaged ({reason})"), restore(path))),
    }
}

/// Writes a new key: complete in a temporary file first, then linked to its name, which fails if the name is taken.
fn create(path: &Path) -> io::Result<SecretKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let key = SecretKey::from_bytes(&seed);
    let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = directory.join(format!(".key-{:016x}", u64::from_le_bytes(nonce)));
    let written = write_new(&temporary, &format(&seed)).and_then(|()| {
        // A hard link and not a rename: a rename would replace a key that another process has just put there.
        fs::hard_link(&temporary, path)
    });
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    File::open(directory)?.sync_all()?;
    Ok(key)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn format(seed: &[u8; 32]) -> String {
    format!("{HEADER} {} {}\n", hex(seed), hex(&check(seed)))
}

fn parse(text: &str) -> Result<[u8; 32], &'static str> {
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        Some(HEADER) => {}
        Some(_) => return Err("it does not start with handfast-key-v1"),
        None => return Err("it is empty"),
    }
    let seed = words.next().and_then(from_hex).ok_or("the key is incomplete")?;
    let claimed: [u8; CHECK_LEN] = words.next().and_then(from_hex).ok_or("the checksum is missing")?;
    if words.next().is_some() {
        return Err("something follows the key");
    }
    if claimed != check(&seed) {
        return Err("the checksum does not fit");
    }
    Ok(seed)
}

/// Depends on the public key only, so that the check tells nothing of the secret that an address does not.
fn check(seed: &[u8; 32]) -> [u8; CHECK_LEN] {
    let id: PeerId = SecretKey::from_bytes(seed).peer_id();
    let mut out = [0; CHECK_LEN];
    out.copy_from_slice(&blake3::derive_key("handfast v1 key file check", id.as_bytes())[..CHECK_LEN]);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

fn wrong(path: &Path, reason: impl std::fmt::Display, next: impl Into<String>) -> Failure {
    Failure::new(Exit::Identity, format!("the key file {} cannot be used: {reason}", path.display()), next)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    wrong(path, error, "make it readable for this user, or choose another --state-dir DIR")
}

fn restore(path: &Path) -> String {
    format!("restore it from a backup, or give this identity up: mv {0} {0}.damaged", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refused(path: &Path) -> Failure {
        let before = fs::read(path).unwrap();
        let failure = load_or_create(path).unwrap_err();
        assert_eq!(failure.exit, Exit::Identity);
        assert!(failure.cause.contains(path.to_str().unwrap()), "{failure}");
        assert_eq!(fs::read(path).unwrap(), before, "a refused key was changed");
        failure
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (first, new) = load_or_create(&path).unwrap();
        assert!(new);
        let (second, new) = load_or_create(&path).unwrap();
        assert!(!new);
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn creating_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "precious").unwrap();
        assert_eq!(create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused(&path).next.unwrap().contains("chmod 600"));
        }
    }

    #[test]
    fn every_flipped_character_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for at in 0..good.trim_end().len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            fs::write(&path, &bytes).unwrap();
            refused(&path);
        }
        for len in 0..good.trim_end().len() {
            fs::write(&path, &good[..len]).unwrap();
            refused(&path);
        }
    }

    #[test]
    fn what_is_no_plain_small_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refused(&link).cause.contains("symbolic link"));
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nowhere"), &dangling).unwrap();
        assert_eq!(load_or_create(&dangling).unwrap_err().exit, Exit::Identity);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.repeat(3)).unwrap();
        assert!(refused(&path).cause.contains("too large"));
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(refused(&path).cause.contains("not text"));
        assert_eq!(load(dir.path()).unwrap_err().exit, Exit::Identity);
    }
}
