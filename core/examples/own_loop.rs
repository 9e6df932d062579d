//! An event loop of one's own around the core: one thread, blocking sockets of the standard library, nothing else.
//!
//! Two nodes over loopback: a supernode that offers `echo`, and a leaf that opens a stream to it, writes a line and
//! reads it back. What every loop does is in [`Runner::turn`]: wait for a datagram or the next deadline, tell the core,
//! and drain transmits, events and the deadline, in this order. `handfast-io` does the same with batches, many sockets,
//! TCP, port mapping and a state file.
#![allow(clippy::disallowed_methods)] // The core may not read a clock; its caller must.
#![allow(clippy::disallowed_types)]

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as StdInstant, SystemTime};

use handfast_core::{
    Access, Config, Event, Instant, Network, Node, Path, PeerId, Read, Received, Saved, SecretKey, ServiceName,
    SocketId, StreamEnd, StreamKey, WallTime,
};

/// The one socket of each node.
const SOCKET: SocketId = SocketId(0);
/// What is written and must come back.
const LINE: &[u8] = b"hello, handfast\n";

fn entropy() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A node, its socket and its clock.
struct Runner {
    node: Node,
    socket: UdpSocket,
    origin: StdInstant,
}

impl Runner {
    fn new(socket: UdpSocket, config: Config) -> Result<Self, Box<dyn Error>> {
        let origin = StdInstant::now();
        let key = SecretKey::from_bytes(&entropy()?);
        let mut node = Node::new(Instant::ZERO, origin, entropy()?, key, config, Saved::default())?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        node.handle_wall_clock(Instant::ZERO, WallTime::from_micros(u64::try_from(since_1970.as_micros())?));
        let bound = socket.local_addr()?;
        node.handle_network(
            Instant::ZERO,
            &Network { sockets: vec![(SOCKET, bound)], interfaces: vec![bound.ip()], ..Network::default() },
        );
        Ok(Self { node, socket, origin })
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// One turn: at most `patience` of waiting, one datagram, and all that follows from it.
    fn turn(&mut self, patience: Duration) -> Result<Vec<Event>, Box<dyn Error>> {
        let mut events = self.drain()?;
        let until = self.node.poll_timeout().map_or(patience, |at| at.since(self.now()).min(patience));
        // No time-out at all would be to wait for ever.
        self.socket.set_read_timeout(Some(until.max(Duration::from_millis(1))))?;
        // One byte more than any datagram of ours, so that a longer one shows.
        let mut buffer = [0; 2_048];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, remote)) => self.receive(remote, &mut buffer[..len])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // ICMP about an old datagram.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
        let now = self.now();
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
        }
        events.extend(self.drain()?);
        Ok(events)
    }

    fn receive(&mut self, remote: SocketAddr, data: &mut [u8]) -> std::io::Result<()> {
        let path = Path { socket: SOCKET, remote, local: None };
        let stride = data.len().max(1);
        let (_, received) = self.node.handle_datagrams(self.now(), path, stride, data);
        if let Received::Forward { path, range, .. } = received {
            // This node relays: the very bytes go on.
            self.socket.send_to(&data[range], path.remote)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> std::io::Result<Vec<Event>> {
        let mut buffer = [0; 2_048];
        // One datagram at a time: this loop has no GSO.
        while let Some(transmit) = self.node.poll_transmit(self.now(), 1, &mut buffer) {
            self.socket.send_to(&buffer[..transmit.len], transmit.path.remote)?;
        }
        let mut events = Vec::new();
        while let Some(event) = self.node.poll_event() {
            if let Event::OpenSocket { request, .. } = event {
                // More sockets only make it find out more about routers.
                self.node.handle_socket(self.now(), request, Err(handfast_core::SocketRefused));
            }
            events.push(event);
        }
        Ok(events)
    }
}

/// The supernode: sends back what comes.
fn serve(mut runner: Runner, done: &std::sync::atomic::AtomicBool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let text = |error: Box<dyn Error>| error.to_string();
    while !done.load(std::sync::atomic::Ordering::Relaxed) {
        for event in runner.turn(Duration::from_millis(50)).map_err(text)? {
            let now = runner.now();
            match event {
                Event::StreamIncoming { stream, .. } => runner.node.accept(now, stream)?,
                Event::Readable { stream } => echo(&mut runner, stream)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn echo(runner: &mut Runner, stream: StreamKey) -> Result<(), handfast_core::StreamError> {
    let now = runner.now();
    let mut buffer = [0; 1_024];
    loop {
        match runner.node.read(now, stream, &mut buffer)? {
            // A line fits: a real program waits for `Writable` where not all is taken.
            Read::Bytes(len) => drop(runner.node.write(now, stream, &buffer[..len])?),
            Read::End => return runner.node.finish(now, stream),
            Read::Blocked => return Ok(()),
        }
    }
}

/// The leaf: opens a stream, writes a line, and returns what comes back.
fn ask(
    mut runner: Runner,
    peer: PeerId,
    address: SocketAddr,
    service: &ServiceName,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let now = runner.now();
    runner.node.join(now, &[(peer, address)])?;
    let stream = runner.node.open(now, peer, service)?;
    runner.node.write(now, stream, LINE)?;
    runner.node.finish(now, stream)?;
    let mut answer = Vec::new();
    loop {
        for event in runner.turn(Duration::from_secs(1))? {
            match event {
                Event::StreamEnded { end, .. } => return Err(ended(end).into()),
                Event::Readable { .. } | Event::StreamOpened { .. } => {}
                _ => continue,
            }
            let mut buffer = [0; 1_024];
            loop {
                match runner.node.read(runner.now(), stream, &mut buffer)? {
                    Read::Bytes(len) => answer.extend_from_slice(&buffer[..len]),
                    Read::Blocked => break,
                    Read::End => {
                        runner.node.leave(runner.now());
                        runner.drain()?;
                        return Ok(answer);
                    }
                }
            }
        }
    }
}

fn ended(end: StreamEnd) -> String {
    format!("the stream ended: {end}")
}

fn main() -> Result<(), Box<dyn Error>> {
    let service: ServiceName = "echo".parse()?;
    let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let address = theirs.local_addr()?;
    let mut config = Config::supernode(vec![address]);
    config.services.insert(service, Access::Any);
    let supernode = Runner::new(theirs, config)?;
    let leaf = Runner::new(ours, Config::leaf())?;
    let peer = supernode.node.id();
    let done = std::sync::atomic::AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(supernode, &done));
        let answer = ask(leaf, peer, address, &service);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let served = server.join().map_err(|_| "the supernode's thread panicked")?;
        served.map_err(|error| error.to_string())?;
        answer
    })?;
    assert_eq!(answer, LINE, "what was written came back");
    print!("{peer} answered: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
