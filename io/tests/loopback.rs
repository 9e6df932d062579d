//! The endpoint over real sockets: a supernode and two leaves on 127.0.0.1.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use handfast_io::{
    Access, CommandError, ConnectError, Endpoint, Event, LocalSocket, Notice, OpenError, Options, PeerId, ServiceName,
    Stream, StreamEnd, WaitError,
};

/// No test passes or fails by being slow or fast; this only ends one that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn service(name: &str) -> ServiceName {
    name.parse().expect("a name")
}

/// A supernode and two leaves that know it.
struct Net {
    supernode: Endpoint,
    a: Endpoint,
    b: Endpoint,
}

impl Net {
    fn start() -> Self {
        let supernode = start(Options::supernode([loopback()]), &[]);
        let bootstrap = [(supernode.id(), supernode.listen_addresses()[0])];
        let a = start(Options::leaf(), &bootstrap);
        let b = start(Options::leaf(), &bootstrap);
        for endpoint in [&supernode, &a, &b] {
            endpoint.wait_ready(PATIENCE).expect("ready");
        }
        Self { supernode, a, b }
    }

    /// `b` takes links and datagrams only from peers that some service of its lets in.
    fn let_in(&self, peer: PeerId) {
        self.b.expose(service("some"), loopback(), Access::Peers([peer].into())).expect("exposed");
    }

    /// A stream from `a` to a service of `b`, both ends of it.
    fn stream(&self) -> (Stream, Stream) {
        let acceptor = self.b.offer(service("pair"), Access::Any).expect("offered");
        let near = self.a.peer(self.b.id()).open(&service("pair"), PATIENCE).expect("opened");
        let far = acceptor.accept(Some(PATIENCE)).expect("accepted");
        assert_eq!(far.peer(), self.a.id());
        assert_eq!(near.peer(), self.b.id());
        (near, far)
    }
}

fn start(options: Options, bootstrap: &[(PeerId, SocketAddr)]) -> Endpoint {
    Endpoint::start(options.listen([loopback()]).bootstrap(bootstrap.iter().copied())).expect("started")
}

/// Bytes that are not all alike, and that a wrong offset does not reproduce.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A TCP server that hands each connection to `serve`.
fn tcp_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(connection));
        }
    });
    address
}

/// Waits until `count` has not moved for a while: whoever moves it has met back-pressure.
fn settled(count: &AtomicU64) -> u64 {
    let mut last = count.load(Ordering::SeqCst);
    let mut quiet = 0;
    while quiet < 10 {
        thread::sleep(Duration::from_millis(100));
        let now = count.load(Ordering::SeqCst);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn a_stream_carries_bytes_both_ways() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    near.write_all(b"ping").expect("written");
    let mut buf = [0; 4];
    far.read_exact(&mut buf).expect("read");
    assert_eq!(&buf, b"ping");
    far.write_all(b"pong").expect("written");
    near.read_exact(&mut buf).expect("read");
    assert_eq!(&buf, b"pong");
}

#[test]
fn each_direction_ends_by_itself() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    near.write_all(b"question").expect("written");
    near.finish().expect("finished");
    assert_eq!(near.write(b"more").expect_err("finished").kind(), ErrorKind::BrokenPipe);
    let mut text = String::new();
    far.read_to_string(&mut text).expect("read to the end");
    assert_eq!(text, "question");
    far.write_all(b"answer after the end of the question").expect("written");
    drop(far);
    let mut text = String::new();
    near.read_to_string(&mut text).expect("read to the end");
    assert_eq!(text, "answer after the end of the question");
}

#[test]
fn a_reset_is_an_error_and_not_an_end() {
    let net = Net::start();
    let (near, mut far) = net.stream();
    near.reset(7);
    assert_eq!(far.read(&mut [0; 16]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.ended(), Some(StreamEnd::Reset(7)));
    assert!(far.write(b"x").is_err());
}

#[test]
fn many_streams_at_once_do_not_mix() {
    const STREAMS: usize = 100;
    let net = Net::start();
    let acceptor = net.b.offer(service("echo"), Access::Any).expect("offered");
    thread::spawn(move || {
        while let Ok(mut stream) = acceptor.accept(Some(PATIENCE)) {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).expect("read");
                stream.write_all(&bytes).expect("written");
            });
        }
    });
    let clients: Vec<_> = (0..STREAMS)
        .map(|n| {
            let (a, b) = (net.a.clone(), net.b.id());
            thread::spawn(move || {
                let mut stream = a.peer(b).open(&service("echo"), PATIENCE).expect("opened");
                let sent = pattern(n * 997)[..]
                    .iter()
                    .map(|byte| byte ^ u8::try_from(n & 0xff).expect("a byte"))
                    .collect::<Vec<_>>();
                stream.write_all(&sent).expect("written");
                stream.finish().expect("finished");
                let mut received = Vec::new();
                stream.read_to_end(&mut received).expect("read");
                assert_eq!(received.len(), sent.len());
                assert!(received == sent);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client");
    }
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_loses_nothing() {
    const LEN: usize = 64 << 20;
    let net = Net::start();
    let (near, mut far) = net.stream();
    let sent = Arc::new(pattern(LEN));
    let written = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (sent, written, mut near) = (Arc::clone(&sent), Arc::clone(&written), near.try_clone().expect("clone"));
        move || {
            for chunk in sent.chunks(16 * 1024) {
                near.write_all(chunk).expect("written");
                written.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            }
            near.finish().expect("finished");
        }
    });
    let held = settled(&written);
    assert!(held > 0);
    assert!(held < LEN as u64 / 2, "{held} bytes are on their way to nobody");
    let mut received = Vec::with_capacity(LEN);
    far.read_to_end(&mut received).expect("read");
    writer.join().expect("the writer");
    assert!(received == *sent);
}

#[test]
fn datagrams_arrive_from_whom_they_say() {
    let net = Net::start();
    net.let_in(net.a.id());
    net.a.peer(net.b.id()).connect(PATIENCE).expect("connected");
    // Unreliable by nature: one of many is enough.
    let (peer, data) = (0..300)
        .find_map(|_| {
            let _ = net.a.peer(net.b.id()).send_datagram(b"a datagram");
            net.b.recv_datagram(Duration::from_millis(100)).ok()
        })
        .expect("a datagram");
    assert_eq!((peer, data.as_slice()), (net.a.id(), &b"a datagram"[..]));
    assert!(net.a.peer(net.b.id()).send_datagram(&vec![0; 60_000]).is_err(), "no datagram is that long");
}

#[test]
fn a_ping_is_answered_and_the_path_is_known() {
    let net = Net::start();
    assert_eq!(
        net.a.peer(net.b.id()).ping(PATIENCE).expect_err("refused"),
        OpenError::Ended(StreamEnd::Connect(ConnectError::Refused))
    );
    net.let_in(net.a.id());
    let pong = (0..10).find_map(|_| net.a.peer(net.b.id()).ping(PATIENCE).ok()).expect("a pong");
    assert!(pong.rtt < PATIENCE);
    assert!(net.a.peer(net.b.id()).path().is_some());
    let status = net.a.status().expect("a status");
    assert_eq!(status.id, net.a.id());
    assert!(status.peers.iter().any(|peer| peer.peer == net.b.id()));
    let ticket = net.b.ticket(Some(service("web"))).expect("a ticket");
    assert_eq!(ticket.peer, net.b.id());
}

#[test]
fn a_peer_that_is_cut_off_takes_its_streams_along_and_may_come_back() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    near.write_all(b"x").expect("written");
    far.read_exact(&mut [0; 1]).expect("read");
    let a = net.b.peer(net.a.id());
    let statistics = a.statistics().expect("a link");
    assert_eq!((statistics.peer, Some(statistics.path)), (net.a.id(), a.path()));
    assert!(statistics.rx_bytes > 0 && statistics.tx_bytes > 0);
    a.close().expect("cut off");
    assert_eq!(far.read(&mut [0; 1]).expect_err("cut off").kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.ended(), Some(StreamEnd::PeerGone));
    assert_eq!(near.read(&mut [0; 1]).expect_err("cut off").kind(), ErrorKind::ConnectionReset);
    assert_eq!((a.path(), a.round_trip(), a.statistics()), (None, None, None));
    assert_eq!(a.close(), Err(CommandError::NotConnected));
    let (mut near, mut far) = net.stream();
    near.write_all(b"again").expect("written");
    far.read_exact(&mut [0; 5]).expect("read");
}

#[test]
fn reads_and_writes_end_in_time_and_the_stream_goes_on() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    let soon = Some(Duration::from_millis(20));
    assert_eq!(near.read_timeout(), None);
    near.set_read_timeout(soon).expect("set");
    near.set_write_timeout(soon).expect("set");
    assert_eq!(near.set_read_timeout(Some(Duration::ZERO)).expect_err("zero").kind(), ErrorKind::InvalidInput);
    assert_eq!((near.read_timeout(), near.write_timeout()), (soon, soon));
    assert_eq!(near.read(&mut [0; 1]).expect_err("nothing came").kind(), ErrorKind::TimedOut);
    // Nobody reads: all buffers on the way fill, and then there is no room in time.
    let chunk = pattern(64 * 1024);
    let mut sent = Vec::new();
    let error = loop {
        match near.write(&chunk) {
            Ok(count) => sent.extend_from_slice(&chunk[..count]),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    near.finish().expect("finished");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("read");
    assert!(received == sent, "not a byte was lost, or sent twice");
    far.write_all(b"late").expect("written");
    near.set_read_timeout(Some(PATIENCE)).expect("set");
    near.read_exact(&mut [0; 4]).expect("read");
}

#[test]
fn a_ticket_is_enough_to_connect() {
    let net = Net::start();
    let ticket = net.b.ticket(None).expect("a ticket");
    let stranger = start(Options::leaf(), &[]);
    net.let_in(stranger.id());
    stranger.learn(&ticket).expect("learned");
    stranger.peer(net.b.id()).connect(PATIENCE).expect("connected");
}

#[test]
fn refusals_say_why() {
    let net = Net::start();
    let open = |name: &str| match net.a.peer(net.b.id()).open(&service(name), PATIENCE) {
        Ok(_) => panic!("{name} was opened"),
        Err(OpenError::Ended(end)) => end,
        Err(error) => panic!("{name}: {error}"),
    };
    let nobody = Access::Peers([net.supernode.id()].into());
    let closed_port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    net.b.expose(service("closed"), closed_port, Access::Any).expect("exposed");
    net.b.expose(service("private"), closed_port, nobody).expect("exposed");
    assert_eq!(open("closed"), StreamEnd::Unavailable);
    assert_eq!(open("private"), StreamEnd::NotAllowed);
    assert_eq!(open("missing"), StreamEnd::UnknownService);
    net.b.withdraw(&service("closed"));
    assert_eq!(open("closed"), StreamEnd::UnknownService);
    assert!(matches!(net.a.peer(net.a.id()).open(&service("own"), PATIENCE), Err(OpenError::Command(_))));
}

#[test]
fn a_dropped_acceptor_withdraws_its_service_but_not_its_successor() {
    let net = Net::start();
    let first = net.b.offer(service("next"), Access::Any).expect("offered");
    let second = net.b.offer(service("next"), Access::Any).expect("offered");
    drop(first);
    net.a.peer(net.b.id()).open(&service("next"), PATIENCE).expect("opened");
    assert!(second.accept(Some(PATIENCE)).is_ok());
    drop(second);
    let error = net.a.peer(net.b.id()).open(&service("next"), PATIENCE).expect_err("withdrawn");
    assert_eq!(error, OpenError::Ended(StreamEnd::UnknownService));
}

#[test]
fn tcp_to_tcp_carries_a_large_transfer_and_half_close() {
    const LEN: usize = 64 << 20;
    let net = Net::start();
    let body = Arc::new(pattern(LEN));
    let target = tcp_server({
        let body = Arc::clone(&body);
        move |mut connection| {
            let mut request = String::new();
            connection.read_to_string(&mut request).expect("the request, up to its end");
            assert_eq!(request, "GET");
            connection.write_all(&body).expect("written");
        }
    });
    net.b.expose(service("web"), target, Access::Any).expect("exposed");
    let forward = net.a.forward(loopback(), net.b.id(), service("web")).expect("listening");
    let mut client = TcpStream::connect(forward.local_address()).expect("connected");
    client.write_all(b"GET").expect("written");
    client.shutdown(Shutdown::Write).expect("half-closed");
    let began = std::time::Instant::now();
    let mut received = Vec::with_capacity(LEN);
    client.read_to_end(&mut received).expect("read");
    eprintln!("{:.2} Gbit/s", LEN as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e9);
    assert!(received == *body);
    let address = forward.local_address();
    drop(forward);
    assert!(net.a.status().is_some(), "the loop has seen to it");
    assert!(TcpStream::connect(address).is_err(), "the listener is gone with its guard");
}

#[test]
fn a_slow_tcp_reader_stops_the_tcp_writer() {
    const LEN: u64 = 256 << 20;
    let net = Net::start();
    let written = Arc::new(AtomicU64::new(0));
    let target = tcp_server({
        let written = Arc::clone(&written);
        move |mut connection| {
            let chunk = [5; 16 * 1024];
            while written.load(Ordering::SeqCst) < LEN && connection.write_all(&chunk).is_ok() {
                written.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            }
        }
    });
    net.b.expose(service("flood"), target, Access::Any).expect("exposed");
    let forward = net.a.forward(loopback(), net.b.id(), service("flood")).expect("listening");
    let mut client = TcpStream::connect(forward.local_address()).expect("connected");
    client.read_exact(&mut [0; 1]).expect("the first byte");
    let held = settled(&written);
    assert!(held < LEN / 2, "{held} bytes are on their way to nobody");
    let mut received = 1;
    let mut buf = vec![0; 1 << 20];
    loop {
        match client.read(&mut buf).expect("read") {
            0 => break,
            count => received += count as u64,
        }
    }
    assert_eq!(received, LEN);
}

#[test]
fn a_hard_close_on_one_side_is_one_on_the_other() {
    let net = Net::start();
    let target = tcp_server(|connection| {
        let socket = socket2::Socket::from(connection);
        socket.set_linger(Some(Duration::ZERO)).expect("set");
    });
    net.b.expose(service("crash"), target, Access::Any).expect("exposed");
    let forward = net.a.forward(loopback(), net.b.id(), service("crash")).expect("listening");
    let mut client = TcpStream::connect(forward.local_address()).expect("connected");
    let error = client.read(&mut [0; 16]).expect_err("not a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // What the peer refuses is no clean end either.
    let nothing = net.a.forward(loopback(), net.b.id(), service("missing")).expect("listening");
    let mut client = TcpStream::connect(nothing.local_address()).expect("connected");
    assert_eq!(client.read(&mut [0; 16]).expect_err("refused").kind(), ErrorKind::ConnectionReset);
}

#[cfg(unix)]
#[test]
fn a_spliced_stream_goes_on_where_the_program_stopped() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    near.write_all(b"first ").expect("written");
    far.write_all(b"early ").expect("written");
    let (mut local, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    near.splice(LocalSocket::Unix(other)).expect("spliced");
    local.write_all(b"second").expect("written");
    local.shutdown(Shutdown::Write).expect("half-closed");
    let mut text = String::new();
    far.read_to_string(&mut text).expect("read");
    assert_eq!(text, "first second");
    far.write_all(b"late").expect("written");
    far.finish().expect("finished");
    let mut text = String::new();
    local.read_to_string(&mut text).expect("read");
    assert_eq!(text, "early late");
}

#[test]
fn shutdown_is_told_to_peers_and_frees_whoever_waits() {
    let net = Net::start();
    let (mut near, mut far) = net.stream();
    let events = net.b.events();
    let acceptor = net.a.offer(service("never"), Access::Any).expect("offered");
    let reading = thread::spawn(move || near.read(&mut [0; 1]).expect_err("shut down").kind());
    let accepting = thread::spawn(move || acceptor.accept(None).expect_err("shut down"));
    net.a.shutdown(PATIENCE);
    let kind = reading.join().expect("no panic");
    assert!(matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset), "{kind:?}");
    assert_eq!(accepting.join().expect("no panic"), WaitError::Closed);
    assert_eq!(far.read(&mut [0; 1]).expect_err("gone").kind(), ErrorKind::ConnectionReset);
    let gone = Notice::Event(Event::PeerGone { peer: net.a.id() });
    assert!(std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok()).any(|event| event == gone));
    assert!(net.a.status().is_none());
    assert_eq!(net.a.wait_ready(Duration::ZERO), Err(WaitError::Closed));
    assert_eq!(net.a.peer(net.b.id()).ping(PATIENCE).expect_err("shut down"), OpenError::Closed);
    assert_eq!(net.a.events().next(), None);
}

#[test]
fn the_last_clone_takes_the_node_along() {
    let net = Net::start();
    let events = net.a.events();
    let clone = net.a.clone();
    let stopped = Arc::new(AtomicBool::new(false));
    let watching = thread::spawn({
        let stopped = Arc::clone(&stopped);
        move || {
            events.for_each(drop);
            assert!(stopped.load(Ordering::SeqCst), "it ended while a clone was left");
        }
    });
    drop(net);
    assert!(clone.status().is_some());
    stopped.store(true, Ordering::SeqCst);
    drop(clone);
    watching.join().expect("the loop ends");
}

#[test]
fn start_says_what_is_in_the_way() {
    let first = start(Options::leaf(), &[]);
    let taken = first.listen_addresses();
    let error = Endpoint::start(Options::leaf().listen([taken[0]])).expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken[0].to_string()), "{error}");

    let dir = tempfile::tempdir().expect("a directory");
    let state_file = dir.path().join("state");
    std::fs::write(&state_file, "garbage").expect("written");
    let options = Options::leaf().listen([loopback()]).state_file(&state_file);
    let error = Endpoint::start(options).expect_err("damaged");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(std::fs::read_to_string(&state_file).expect("there"), "garbage");
}

#[test]
fn what_the_core_wants_kept_is_there_after_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let state_file = dir.path().join("state");
    let options = || Options::supernode([loopback()]).listen([loopback()]).state_file(&state_file);
    let node = Endpoint::start(options()).expect("started");
    node.wait_ready(PATIENCE).expect("ready");
    node.shutdown(PATIENCE);
    let text = std::fs::read_to_string(&state_file).expect("kept");
    assert!(text.starts_with("handfast-state 2\nclock-mark "), "{text}");
    let again = Endpoint::start(options()).expect("a second run");
    again.shutdown(PATIENCE);
}
