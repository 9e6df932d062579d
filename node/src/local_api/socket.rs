//! The socket file: binding it so that nobody else can ever open it, finding who is behind it, removing it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path that fits into `sockaddr_un` everywhere (macOS has 104 bytes, one of them the terminator).
const PATH_LEN_MAX: usize = 103;

/// Connects to the node behind `path`. `NotFound` and `ConnectionRefused` both mean that there is none.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_path(path, |path| UnixStream::connect(path))
}

/// Binds `path` with mode 0600 in place of a socket that nobody listens on.
///
/// `AddrInUse` if somebody does. The socket is made in a directory of its own that only we can enter and then moved:
/// at no moment could another user have opened it, whatever the mask and the directory's mode are.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // Something else under this name (a plain file gives ConnectionRefused too) is not ours to replace.
            if !is_socket(path)? {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket has its name"));
            }
        }
        Err(error) => return Err(error),
    }
    let directory = path.with_file_name(format!(".socket-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    DirBuilder::new().mode(0o700).create(&directory)?;
    let bound = bind_in(&directory, path);
    let _ = fs::remove_dir_all(&directory);
    bound
}

fn bind_in(directory: &Path, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let temporary = directory.join("s");
    let listener = with_short_path(&temporary, |path| UnixListener::bind(path))?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    let found = fs::symlink_metadata(&temporary)?;
    fs::rename(&temporary, path)?;
    Ok((listener, SocketFile { path: path.into(), identity: (found.dev(), found.ino()) }))
}

/// The name of a bound socket; removed when dropped, unless it means another socket by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_socket(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    Ok(fs::symlink_metadata(path)?.file_type().is_socket())
}

/// Calls `with` with `path`, or with a short name for it where it is too long for a socket address: Linux lets the
/// directory be named by an open file of ours.
fn with_short_path<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= PATH_LEN_MAX || !cfg!(target_os = "linux") {
        return with(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    with(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_can_open_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (_listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left");
        connect(&path).unwrap();
        drop(file);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (_listener, _file) = bind(&path).unwrap();
        drop(file);
        connect(&path).expect("the old owner took the new socket away");
        fs::write(dir.path().join("file"), "x").unwrap();
        bind(&dir.path().join("file")).unwrap_err();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"x");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_directory_name_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let (_listener, _file) = bind(&deep.join("socket")).unwrap();
        connect(&deep.join("socket")).unwrap();
    }
}
