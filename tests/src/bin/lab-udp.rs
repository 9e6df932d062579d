//! A few words for tests of the laboratory itself.
//!
//! - `lab-udp echo ADDRESS` tells everyone the address it is seen at. Who says `after MS` is told so long after. TCP
//!   connections to the same port are told the same.
//! - `lab-udp talk LOCAL SECONDS REMOTE..` sends to all remotes five times a second and prints what comes back, as
//!   `SOURCE TEXT`.
//! - `lab-udp late LOCAL REMOTE MS` asks an echo for an answer after so long, sends nothing more, and prints it if it
//!   comes.
//! - `lab-udp dial REMOTE` prints what an echo says by TCP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long an answer may take on top of the delay that was asked for, on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", address] => echo(address.parse()?)?,
        ["talk", local, seconds, ref remotes @ ..] => {
            let remotes = remotes.iter().map(|remote| remote.parse()).collect::<Result<Vec<_>, _>>()?;
            talk(local.parse()?, Duration::from_secs(seconds.parse()?), &remotes)?;
        }
        ["late", local, remote, ms] => late(local.parse()?, remote.parse()?, ms.parse()?)?,
        ["dial", remote] => dial(remote.parse()?)?,
        _ => {
            return Err(
                "usage: lab-udp echo ADDRESS | talk LOCAL SECONDS REMOTE.. | late LOCAL REMOTE MS | dial REMOTE".into(),
            );
        }
    }
    Ok(())
}

fn echo(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let source = stream.peer_addr().map(|source| source.to_string()).unwrap_or_default();
            let _ = stream.write_all(source.as_bytes());
        }
    });
    let socket = UdpSocket::bind(address)?;
    println!("ready");
    let mut buf = [0; 64];
    loop {
        let (len, source) = socket.recv_from(&mut buf)?;
        let words = String::from_utf8_lossy(&buf[..len]).into_owned();
        let delay = words.strip_prefix("after ").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        let Some(delay) = delay else {
            socket.send_to(source.to_string().as_bytes(), source)?;
            continue;
        };
        let socket = socket.try_clone()?;
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            let _ = socket.send_to(source.to_string().as_bytes(), source);
        });
    }
}

fn talk(local: SocketAddr, duration: Duration, remotes: &[SocketAddr]) -> std::io::Result<()> {
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let end = Instant::now() + duration;
    let mut buf = [0; 64];
    while Instant::now() < end {
        for remote in remotes {
            // An ICMP error about an earlier packet may surface here; the next round sends again.
            let _ = socket.send_to(b"hello", remote);
        }
        let round = Instant::now() + Duration::from_millis(200);
        while Instant::now() < round {
            if let Ok((len, source)) = socket.recv_from(&mut buf) {
                println!("{source} {}", String::from_utf8_lossy(&buf[..len]));
            }
        }
    }
    Ok(())
}

fn late(local: SocketAddr, remote: SocketAddr, ms: u64) -> std::io::Result<()> {
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(Duration::from_millis(ms) + SLACK))?;
    socket.send_to(format!("after {ms}").as_bytes(), remote)?;
    let mut buf = [0; 64];
    if let Ok((len, source)) = socket.recv_from(&mut buf) {
        println!("{source} {}", String::from_utf8_lossy(&buf[..len]));
    }
    Ok(())
}

fn dial(remote: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&remote, SLACK)?;
    let mut text = String::new();
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_string(&mut text)?;
    println!("{text}");
    Ok(())
}
