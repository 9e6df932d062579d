//! Who is measured: a process that relays, and pairs of clients with a channel through it each.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use handfast_benches::client::{BUFFER_LEN, Client, End, HEAD_LEN};
use handfast_core::PeerId;

use super::yardstick::NAME;

/// The kind byte of a Relay packet.
const RELAY: u8 = 5;
/// How many pairs are set up at once: few enough for any limit on new connections.
const AT_ONCE: usize = 16;
/// How long the set-up of a pair may take.
const SET_UP: Duration = Duration::from_secs(60);
/// Linux tells a process's CPU time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// One side of a pair.
pub(crate) enum Side {
    /// A node of its own.
    Node(Box<Client>),
    /// A socket, enough for the yardstick.
    Bare(End),
}

impl Side {
    pub(crate) fn end(&self) -> &End {
        match self {
            Self::Node(client) => &client.end,
            Self::Bare(end) => end,
        }
    }

    /// Hands on a train that is not part of the load.
    pub(crate) fn keep(&mut self, bytes: &[u8], stride: usize) {
        if let Self::Node(client) = self {
            client.keep(bytes, stride);
        }
    }
}

/// Two clients, and the head of the packets from each to the other.
pub(crate) struct Pair {
    pub(crate) sides: [Side; 2],
    pub(crate) heads: [[u8; HEAD_LEN]; 2],
}

/// The relaying process and its pairs.
pub(crate) struct Subject {
    pub(crate) address: SocketAddr,
    pub(crate) pairs: Vec<Pair>,
    process: Child,
    _state: Option<tempfile::TempDir>,
}

impl Subject {
    /// A supernode with limits off, and pairs that have met through it.
    pub(crate) fn handfast(program: &Path, pairs: usize) -> io::Result<Self> {
        let state = tempfile::tempdir()?;
        let mut command = Command::new(program);
        command.args(["supernode", "--listen", "127.0.0.1:0", "--relay-rate", "0", "--relay-quota", "0"]);
        command.arg("--state-dir").arg(state.path());
        let (process, line) = start(&mut command)?;
        let parsed = line.split_once('@').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
        let (id, address): (PeerId, SocketAddr) =
            parsed.ok_or_else(|| io::Error::other(format!("the supernode said {line:?}")))?;
        let mut subject = Self { address, pairs: Vec::new(), process, _state: Some(state) };
        while subject.pairs.len() < pairs {
            let count = AT_ONCE.min(pairs - subject.pairs.len());
            subject.add_pairs((id, address), count)?;
        }
        Ok(subject)
    }

    /// The bare forwarder, and pairs that it knows.
    pub(crate) fn yardstick(pairs: usize) -> io::Result<Self> {
        let (process, line) = start(Command::new(std::env::current_exe()?).arg("--yardstick"))?;
        let address = line.parse().map_err(io::Error::other)?;
        let mut subject = Self { address, pairs: Vec::new(), process, _state: None };
        for number in 0..pairs as u64 {
            let mut head = [RELAY; HEAD_LEN];
            head[1..].copy_from_slice(&number.to_le_bytes()[..HEAD_LEN - 1]);
            let mut name = head;
            name[0] = NAME;
            let sides = [End::bind()?, End::bind()?];
            for side in &sides {
                name_channel(side, address, name)?;
            }
            subject.pairs.push(Pair { sides: sides.map(Side::Bare), heads: [head; 2] });
        }
        Ok(subject)
    }

    fn add_pairs(&mut self, supernode: (PeerId, SocketAddr), count: usize) -> io::Result<()> {
        let first = 2 * self.pairs.len() as u64 + 1;
        let mut fresh: Vec<[Client; 2]> = Vec::new();
        for number in 0..count as u64 {
            let number = first + 2 * number;
            fresh.push([Client::start(number, supernode)?, Client::start(number + 1, supernode)?]);
        }
        self.turn_until(&mut fresh, "registered", |[a, b]| Ok(a.is_ready() && b.is_ready()))?;
        for [a, b] in &mut fresh {
            a.connect(b)?;
        }
        self.turn_until(&mut fresh, "connected", |[a, b]| {
            if a.has_failed() {
                a.connect(b)?;
            }
            Ok(a.head().is_some() && b.head().is_some())
        })?;
        for [a, b] in fresh {
            if let (Some(from_a), Some(from_b)) = (a.head(), b.head()) {
                let sides = [a, b].map(|client| Side::Node(Box::new(client)));
                self.pairs.push(Pair { sides, heads: [from_a, from_b] });
            }
        }
        Ok(())
    }

    /// Turns all nodes, old and fresh, until all fresh ones are where they should be.
    fn turn_until(
        &mut self,
        fresh: &mut [[Client; 2]],
        what: &str,
        mut done: impl FnMut(&mut [Client; 2]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let end = Instant::now() + SET_UP;
        let mut buf = vec![0; BUFFER_LEN];
        loop {
            let mut all = true;
            for pair in fresh.iter_mut() {
                for client in pair.iter_mut() {
                    client.turn(&mut buf)?;
                }
                all &= done(pair)?;
            }
            self.turn(&mut buf)?;
            if all {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!("clients are not {what} within {SET_UP:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn turn(&mut self, buf: &mut [u8]) -> io::Result<()> {
        for side in self.pairs.iter_mut().flat_map(|pair| &mut pair.sides) {
            if let Side::Node(client) = side {
                client.turn(buf)?;
            }
        }
        Ok(())
    }

    /// Between measurements: lets the nodes say what they could not say during one.
    pub(crate) fn tend(&mut self) -> io::Result<()> {
        let mut buf = vec![0; BUFFER_LEN];
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            self.turn(&mut buf)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU time that the process has used, its own and the kernel's for it.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name, in brackets, may hold anything; the fields after it are numbers. utime and stime are 14 and 15.
        let ticks = stat.rsplit_once(')').map(|(_, rest)| {
            let fields = rest.split_whitespace().skip(11).take(2);
            fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
        });
        ticks.map(|ticks| ticks / TICKS_PER_SECOND).ok_or_else(|| io::Error::other("/proc/PID/stat is unreadable"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a process and waits for its first line.
fn start(command: &mut Command) -> io::Result<(Child, String)> {
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok((process, line.trim().to_owned()))
}

fn name_channel(end: &End, forwarder: SocketAddr, name: [u8; HEAD_LEN]) -> io::Result<()> {
    let mut buf = vec![0; BUFFER_LEN];
    for _ in 0..1000 {
        end.send(forwarder, &name, name.len())?;
        for _ in 0..10 {
            if end.receive(&mut buf)?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Err(io::Error::other("the yardstick does not answer"))
}
