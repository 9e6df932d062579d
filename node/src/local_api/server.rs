//! The node's side of the local socket: a thread per connection, each a short talk in lines.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use handfast_io::{Endpoint, OpenError, PathInfo, PeerId, ServiceName, StreamEnd, WaitError};
use socket2::SockRef;

use super::line::{LINE_LEN_MAX, Line, read_line};
use super::offers::Offers;
use super::socket::{self, SocketFile};
use super::streams::{Slot, Streams};
use super::{
    CONNECTIONS_MAX, DEFAULT_TIMEOUT, HELLO_DEADLINE, IDLE_DEADLINE, LOOK_EVERY, STREAMS_MAX, TIMEOUT_MAX, VERSION,
};
use crate::exit::{Exit, Failure};
use crate::report::{self, RelayLimits, StatusReport, Surroundings};
use crate::target::{self, Target};

/// Longest a client may leave an answer unread.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The local socket of a node; closed and removed when dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    file: SocketFile,
}

struct Shared {
    endpoint: Endpoint,
    relay_limits: RelayLimits,
    offers: Arc<Offers>,
    streams: Arc<Streams>,
    started: Instant,
    connections: AtomicUsize,
    waiting: AtomicUsize,
    stopping: AtomicBool,
}

/// Counts one connection while it lasts.
struct Permit(Arc<Shared>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one `WAIT` while it lasts.
struct Waiting(Arc<Shared>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Binds `path` and answers there from now on.
    pub(crate) fn start(path: &Path, endpoint: Endpoint, relay_limits: RelayLimits) -> io::Result<Self> {
        let (listener, file) = socket::bind(path)?;
        let shared = Arc::new(Shared {
            offers: Offers::new(endpoint.clone()),
            endpoint,
            relay_limits,
            streams: Arc::default(),
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("local api".into()).spawn(move || accept(&accepting, &listener))?;
        Ok(Self { shared, file })
    }

    /// The table of offers, for those from the command line.
    pub(crate) fn offers(&self) -> &Arc<Offers> {
        &self.shared.offers
    }

    /// Whether local programs have connections, or streams other than `own`.
    pub(crate) fn is_used_besides(&self, own: Option<u64>) -> bool {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        count(&self.shared.connections) + count(&self.shared.waiting) > 0 || self.shared.streams.any_besides(own)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then closes the listener.
        let _ = socket::connect(self.file.path());
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let Ok(socket) = socket else {
            // Out of file descriptors, most likely: do not spin.
            thread::sleep(LOOK_EVERY);
            continue;
        };
        let permit = Permit(Arc::clone(shared));
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            let failure = Failure::new(
                Exit::Failure,
                format!("{CONNECTIONS_MAX} local programs are connected already"),
                "end one first",
            );
            let _ = answer(&socket, &Line::error(&failure));
            continue;
        }
        // If no thread can be had, the closed socket tells the client.
        let _ = thread::Builder::new().name("local client".into()).spawn(move || {
            let shared = Arc::clone(&permit.0);
            if let Err(error) = talk(&shared, socket, permit) {
                tracing::debug!(%error, "a local client is gone");
            }
        });
    }
}

/// What follows an answer.
enum Next {
    /// Another request.
    Request,
    /// The socket is a stream from now on.
    Stream(handfast_io::Stream, Slot),
    /// The answer when the stream of this number is over.
    Wait(u64),
    /// Nothing.
    Close,
}

fn talk(shared: &Shared, socket: UnixStream, permit: Permit) -> io::Result<()> {
    socket.set_write_timeout(Some(WRITE_DEADLINE))?;
    let mut deadline = HELLO_DEADLINE;
    let mut greeted = false;
    while let Some(text) = read_line(&socket, LINE_LEN_MAX, Some(deadline))? {
        let next = match text.parse::<Line>() {
            Err(error) => Err(Failure::bare(Exit::Usage, error.to_string())),
            Ok(line) if !greeted => hello(shared, &socket, &line),
            Ok(line) => request(shared, &socket, &line),
        };
        match next {
            Ok(Next::Request) => {}
            Ok(Next::Close) => return Ok(()),
            Ok(Next::Stream(stream, slot)) => {
                drop(permit);
                // A reader may be slow for as long as it likes: that is back-pressure.
                socket.set_write_timeout(None)?;
                slot.carry(stream, socket);
                return Ok(());
            }
            Ok(Next::Wait(number)) => {
                let waiting = Waiting(Arc::clone(&permit.0));
                let others = shared.waiting.fetch_add(1, Ordering::Relaxed);
                drop(permit);
                let line = if others < STREAMS_MAX { wait(shared, &socket, number) } else { too_many_waits() };
                let sent = answer(&socket, &line);
                drop(waiting);
                return sent;
            }
            Err(failure) => {
                answer(&socket, &Line::error(&failure))?;
                if !greeted {
                    return Ok(());
                }
            }
        }
        greeted = true;
        deadline = IDLE_DEADLINE;
    }
    Ok(())
}

fn hello(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    if line.verb != "HELLO" {
        return Err(Failure::new(Exit::Usage, "the first line is not HELLO", format!("say HELLO version={VERSION}")));
    }
    if line.need("version")? != VERSION {
        return Err(Failure::new(
            Exit::Usage,
            format!("this node speaks version {VERSION} of the local protocol only"),
            "use the handfast command that the node was started with, or restart the node",
        ));
    }
    reply(socket, &Line::new("OK").with("version", VERSION).with("id", shared.endpoint.id()))
}

fn request(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    match line.verb.as_str() {
        "STATUS" => status(shared, socket),
        "TICKET" => ticket(shared, socket, line),
        "JOIN" => join(shared, socket, line),
        "PING" => ping(shared, socket, line),
        "DIAL" => dial(shared, socket, line),
        "WAIT" => Ok(Next::Wait(line.need("stream")?.parse().map_err(|_| bad(line, "stream"))?)),
        "FORWARD" => forward(shared, socket, line),
        "EXPOSE" => {
            let target = line.need("target")?.parse().map_err(|_| bad(line, "target"))?;
            let offer = shared.offers.expose(service(line)?, target, access(line)?)?;
            hold(socket, &Line::new("OK"), offer)
        }
        "REGISTER" => {
            let offer = shared.offers.register(service(line)?, access(line)?)?;
            hold(socket, &Line::new("OK"), offer)
        }
        "ACCEPT" => accept_stream(shared, socket, line),
        "EVENTS" => events(shared, socket),
        "HELLO" => Err(Failure::bare(Exit::Usage, "HELLO was said already")),
        verb => Err(Failure::bare(Exit::Usage, format!("{verb} is not understood"))),
    }
}

fn status(shared: &Shared, socket: &UnixStream) -> Result<Next, Failure> {
    let status = shared.endpoint.status().ok_or_else(closing)?;
    let report = StatusReport::new(
        status,
        Surroundings {
            uptime: shared.started.elapsed(),
            listen: shared.endpoint.listen_addresses(),
            relay_limits: shared.relay_limits,
            port_mapping: shared.endpoint.port_mapping(Duration::ZERO),
            services: shared.offers.list(),
        },
    );
    let json = serde_json::to_string(&report).map_err(|error| Failure::bare(Exit::Failure, error.to_string()))?;
    answer(socket, &Line::new("OK").with("length", json.len()))
        .and_then(|()| write_all(socket, format!("{json}\n").as_bytes()))
        .map_err(|error| gone(&error))?;
    Ok(Next::Request)
}

fn ticket(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let service = line.get("service").map(target::service_name).transpose()?;
    let ticket = shared.endpoint.ticket(service).ok_or_else(closing)?;
    if ticket.homes.is_empty() {
        return Err(Failure::new(
            Exit::Unreachable,
            "the node has no home yet, so a ticket would lead nowhere",
            "try again when it is ready, see: handfast status",
        ));
    }
    reply(socket, &Line::new("OK").with("ticket", ticket))
}

fn join(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let known = target::bootstrap(line.need("supernode")?)?;
    match shared.endpoint.join(&known) {
        Ok(()) => reply(socket, &Line::new("OK")),
        Err(error) => Err(Failure::open(&OpenError::Command(error), "the supernode", None)),
    }
}

fn ping(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let peer = peer(shared, line)?;
    let pong = shared.endpoint.peer(peer).ping(timeout(line)?).map_err(|error| open_failure(&error, peer, None))?;
    let line = Line::new("OK").with("rtt_ms", format!("{:.3}", report::millis(pong.rtt)));
    let mut line = with_path(line, Some(pong.path));
    // Asked only where it may matter: a status is not for every round trip.
    let why = (!pong.path.is_direct()).then(|| shared.endpoint.peer(peer).statistics()).flatten().and_then(|p| p.why);
    if let Some(held_ms) = why.and_then(report::held_ms) {
        line = line.with("held_ms", held_ms);
    }
    reply(socket, &line)
}

fn dial(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let (peer, service) = (peer(shared, line)?, service(line)?);
    let slot = shared.streams.reserve()?;
    let stream = shared
        .endpoint
        .peer(peer)
        .open(&service, timeout(line)?)
        .map_err(|error| open_failure(&error, peer, Some(&service)))?;
    into_stream(shared, socket, stream, peer, slot)
}

fn into_stream(
    shared: &Shared,
    socket: &UnixStream,
    stream: handfast_io::Stream,
    peer: PeerId,
    slot: Slot,
) -> Result<Next, Failure> {
    let line = Line::new("OK").with("peer", peer).with("stream", slot.number);
    let path = shared.endpoint.peer(peer).path();
    if let Err(error) = answer(socket, &with_path(line, path)) {
        stream.reset(0);
        return Err(gone(&error));
    }
    Ok(Next::Stream(stream, slot))
}

fn wait(shared: &Shared, socket: &UnixStream, number: u64) -> Line {
    match shared.streams.wait(number, || hung_up(socket)) {
        Some(Ok(())) => Line::new("OK"),
        Some(Err(failure)) => Line::error(&failure),
        None => Line::error(&Failure::bare(Exit::Usage, format!("there is no stream {number}"))),
    }
}

fn too_many_waits() -> Line {
    Line::error(&Failure::bare(Exit::Failure, format!("{STREAMS_MAX} local programs wait already")))
}

fn forward(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let (peer, service) = (peer(shared, line)?, service(line)?);
    let listen: SocketAddr = line.need("listen")?.parse().map_err(|_| bad(line, "listen"))?;
    // Open one stream now: a listener whose every connection would be refused helps nobody.
    let mut warning = None;
    match shared.endpoint.peer(peer).open(&service, timeout(line)?) {
        Ok(stream) => stream.reset(0),
        // The peer let us in; the program behind the service may start later.
        Err(error @ OpenError::Ended(StreamEnd::Unavailable)) => {
            warning = Some(open_failure(&error, peer, Some(&service)).cause);
        }
        Err(error) => return Err(open_failure(&error, peer, Some(&service))),
    }
    let forward = shared.endpoint.forward(listen, peer, service).map_err(|error| {
        // The error names the address.
        Failure::new(Exit::Failure, error.to_string(), "choose another --listen HOST:PORT")
    })?;
    let mut line = Line::new("OK").with("address", forward.local_address());
    if let Some(warning) = warning {
        line = line.with("warning", warning);
    }
    let path = shared.endpoint.peer(peer).path();
    hold(socket, &with_path(line, path), forward)
}

fn accept_stream(shared: &Shared, socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    let service = service(line)?;
    let unregistered = || {
        Failure::new(
            Exit::Failure,
            format!("nobody has registered \"{service}\""),
            format!("say REGISTER service={service} on another connection and keep it open"),
        )
    };
    let acceptor = shared.offers.acceptor(&service).ok_or_else(unregistered)?;
    let slot = shared.streams.reserve()?;
    loop {
        // One waiter at a time holds the acceptor; the others take their turns between its short waits.
        let accepted = acceptor.lock().unwrap_or_else(PoisonError::into_inner).accept(Some(LOOK_EVERY));
        let nothing = match accepted {
            Ok(stream) => {
                let peer = stream.peer();
                return into_stream(shared, socket, stream, peer, slot);
            }
            Err(error) => error,
        };
        if hung_up(socket) {
            return Ok(Next::Close);
        }
        if !shared.offers.acceptor(&service).is_some_and(|current| Arc::ptr_eq(&current, &acceptor)) {
            return Err(unregistered());
        }
        if nothing == WaitError::Closed {
            return Err(closing());
        }
    }
}

fn events(shared: &Shared, socket: &UnixStream) -> Result<Next, Failure> {
    let events = shared.endpoint.events();
    answer(socket, &Line::new("OK")).map_err(|error| gone(&error))?;
    while !hung_up(socket) {
        match events.recv_timeout(LOOK_EVERY) {
            Ok(notice) => {
                if let Some(value) = report::notice(&notice) {
                    write_all(socket, format!("{value}\n").as_bytes()).map_err(|error| gone(&error))?;
                }
            }
            Err(WaitError::TimedOut) => {}
            Err(_) => break,
        }
    }
    Ok(Next::Close)
}

/// Answers, and keeps `what` until the client closes the socket.
fn hold<T>(socket: &UnixStream, line: &Line, what: T) -> Result<Next, Failure> {
    answer(socket, line).map_err(|error| gone(&error))?;
    // Whatever the client says now is not asked for; its silence ends with the connection.
    while let Ok(Some(_)) = read_line(socket, LINE_LEN_MAX, None) {}
    drop(what);
    Ok(Next::Close)
}

/// The peer a line names; the homes of a ticket are learnt on the way.
fn peer(shared: &Shared, line: &Line) -> Result<PeerId, Failure> {
    let target: Target = line.need("peer")?.parse()?;
    if !target.ticket.homes.is_empty() {
        shared.endpoint.learn(&target.ticket).map_err(|error| {
            Failure::open(&OpenError::Command(error), &report::short(&target.peer().to_string()), None)
        })?;
    }
    Ok(target.peer())
}

fn service(line: &Line) -> Result<ServiceName, Failure> {
    target::service_name(line.need("service")?)
}

fn access(line: &Line) -> Result<handfast_io::Access, Failure> {
    let words = line.get("allow").unwrap_or("");
    target::access(&words.split(',').filter(|word| !word.is_empty()).map(Into::into).collect::<Vec<_>>())
}

fn timeout(line: &Line) -> Result<Duration, Failure> {
    match line.get("timeout_ms") {
        None => Ok(DEFAULT_TIMEOUT),
        Some(text) => {
            let ms = text.parse().map_err(|_| bad(line, "timeout_ms"))?;
            Ok(Duration::from_millis(ms).min(TIMEOUT_MAX))
        }
    }
}

fn with_path(line: Line, path: Option<PathInfo>) -> Line {
    match path {
        Some(PathInfo::Direct { remote }) => line.with("path", "direct").with("remote", remote),
        Some(PathInfo::Relay { via }) => line.with("path", "relay").with("via", via),
        None => line,
    }
}

fn open_failure(error: &OpenError, peer: PeerId, service: Option<&ServiceName>) -> Failure {
    Failure::open(error, &report::short(&peer.to_string()), service.map(ServiceName::as_str))
}

fn bad(line: &Line, key: &str) -> Failure {
    Failure::bare(Exit::Usage, format!("{} does not understand {key}={:?}", line.verb, line.get(key).unwrap_or("")))
}

fn closing() -> Failure {
    Failure::bare(Exit::Failure, "the node is shutting down")
}

fn gone(error: &io::Error) -> Failure {
    Failure::io("the local client is gone", error)
}

fn reply(socket: &UnixStream, line: &Line) -> Result<Next, Failure> {
    answer(socket, line).map_err(|error| gone(&error))?;
    Ok(Next::Request)
}

fn answer(socket: &UnixStream, line: &Line) -> io::Result<()> {
    write_all(socket, format!("{line}\n").as_bytes())
}

fn write_all(mut socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes)
}

/// Whether the client closed its side. Looks without taking bytes, which may belong to a stream.
fn hung_up(socket: &UnixStream) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return true;
    }
    let seen = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    let restored = socket.set_nonblocking(false).is_ok();
    match seen {
        Ok(len) => len == 0 || !restored,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock || !restored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_client_is_noticed_without_taking_its_bytes() {
        let (mut a, b) = UnixStream::pair().unwrap();
        assert!(!hung_up(&b));
        a.write_all(b"x\n").unwrap();
        assert!(!hung_up(&b));
        assert_eq!(read_line(&b, 10, None).unwrap().unwrap(), "x");
        drop(a);
        assert!(hung_up(&b));
    }

    #[test]
    fn allow_lists_and_timeouts_parse() {
        let line: Line = "EXPOSE allow=any timeout_ms=250".parse().unwrap();
        assert_eq!(access(&line).unwrap(), handfast_io::Access::Any);
        assert_eq!(timeout(&line).unwrap(), Duration::from_millis(250));
        let line: Line = "EXPOSE allow=\"\" timeout_ms=99999999999".parse().unwrap();
        assert_eq!(target::access_words(&access(&line).unwrap()), "nobody");
        assert_eq!(timeout(&line).unwrap(), TIMEOUT_MAX);
        let line: Line = "EXPOSE allow=hf1junk timeout_ms=soon".parse().unwrap();
        assert_eq!(access(&line).unwrap_err().exit, Exit::Usage);
        assert_eq!(timeout(&line).unwrap_err().exit, Exit::Usage);
    }
}
