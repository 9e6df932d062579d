//! The service that the demo downloads from: a plain TCP program that knows nothing of handfast.
//!
//! A client says a label and a length; the server answers with so many pseudo-random bytes of that label, which both
//! can make but nobody can compress or guess.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CONTEXT: &str = "handfast demo blob v1";
const COPY_LEN: usize = 64 * 1024;
/// A download that stands still for so long is lost.
const STALLED: Duration = Duration::from_secs(20);

/// Starts the service on a port of its own, for as long as the process lives.
pub(super) fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("blob service".into()).spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that hangs up early is no concern of the service.
            let _ = thread::Builder::new().name("blob".into()).spawn(move || answer(client));
        }
    })?;
    Ok(address)
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut request = [0; 16];
    client.read_exact(&mut request)?;
    let [label, len] = [0, 8].map(|at| request[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    for_each_part(label, len, |part| client.write_all(part))?;
    client.shutdown(Shutdown::Write)
}

/// What a download gave.
#[derive(Debug)]
pub(super) struct Download {
    /// From opening the connection to the first byte.
    pub(super) first_byte: Duration,
    /// From opening the connection to the last byte.
    pub(super) took: Duration,
    /// Whether every byte is right.
    pub(super) intact: bool,
}

/// Downloads from the service, or from whatever leads to it. `progress` is told how much has come.
pub(super) fn download(from: SocketAddr, label: u64, len: u64, mut progress: impl FnMut(u64)) -> io::Result<Download> {
    let began = Instant::now();
    let mut server = TcpStream::connect(from)?;
    server.set_read_timeout(Some(STALLED))?;
    server.write_all(&[label.to_be_bytes(), len.to_be_bytes()].concat())?;
    server.shutdown(Shutdown::Write)?;
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; COPY_LEN];
    let (mut received, mut first_byte) = (0, None);
    loop {
        let part = match server.read(&mut buf) {
            Ok(part) => part,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if part == 0 {
            break;
        }
        first_byte.get_or_insert_with(|| began.elapsed());
        hasher.update(&buf[..part]);
        received += part as u64;
        progress(received);
    }
    let took = began.elapsed();
    let first_byte = first_byte.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Download { first_byte, took, intact: received == len && hasher.finalize() == hash(label, len) })
}

fn hash(label: u64, len: u64) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let hashed: Result<(), std::convert::Infallible> = for_each_part(label, len, |part| {
        hasher.update(part);
        Ok(())
    });
    let Ok(()) = hashed;
    hasher.finalize()
}

fn for_each_part<E>(label: u64, len: u64, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut source = blake3::Hasher::new_derive_key(CONTEXT).update(&label.to_be_bytes()).finalize_xof();
    let mut buf = vec![0; COPY_LEN];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_LEN);
        source.fill(&mut buf[..part]);
        take(&buf[..part])?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_checked() {
        let service = serve().unwrap();
        let len = 3 * COPY_LEN as u64 + 1;
        let mut last = 0;
        assert!(download(service, 1, len, |received| last = received).unwrap().intact);
        assert_eq!(last, len);
        assert_ne!(hash(1, len), hash(2, len));
        assert_ne!(hash(1, len), hash(1, len - 1));
    }
}
