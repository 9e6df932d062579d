//! A few UDP words for tests of the laboratory itself: `lab-udp echo ADDRESS` tells everyone the address it is seen
//! at; `lab-udp talk LOCAL SECONDS REMOTE..` sends to all remotes five times a second and prints what comes back, as
//! `SOURCE TEXT`.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", address] => echo(address.parse()?)?,
        ["talk", local, seconds, ref remotes @ ..] => {
            let remotes = remotes.iter().map(|remote| remote.parse()).collect::<Result<Vec<_>, _>>()?;
            talk(local.parse()?, Duration::from_secs(seconds.parse()?), &remotes)?;
        }
        _ => return Err("usage: lab-udp echo ADDRESS | lab-udp talk LOCAL SECONDS REMOTE..".into()),
    }
    Ok(())
}

fn echo(address: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("ready");
    let mut buf = [0; 64];
    loop {
        let (_, source) = socket.recv_from(&mut buf)?;
        socket.send_to(source.to_string().as_bytes(), source)?;
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
