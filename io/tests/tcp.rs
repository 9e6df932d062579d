//! Links over TCP with real sockets: leaves whose UDP nobody answers, and what a supernode does with strangers'
//! connections. A *front* stands before the supernode: its TCP port leads there, its UDP port leads nowhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use handfast_io::{Access, Endpoint, Options, PeerId, ServiceName};

/// No test passes or fails by being slow or fast; this only ends one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(options: Options, listen: SocketAddr, bootstrap: Option<(PeerId, SocketAddr)>) -> Endpoint {
    Endpoint::start(options.listen([listen]).bootstrap(bootstrap).port_mapping(false)).expect("started")
}

/// See the file's head.
struct Front {
    at: SocketAddr,
    /// Bound, so that nobody refuses, and never read.
    _black_hole: UdpSocket,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Front {
    fn new(ip: IpAddr) -> Self {
        let (black_hole, listener) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind((ip, 0)).expect("bound");
                let tcp = TcpListener::bind(udp.local_addr().expect("an address")).ok()?;
                Some((udp, tcp))
            })
            .expect("a port that is free for both");
        let at = listener.local_addr().expect("an address");
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let to: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (kept, behind) = (Arc::clone(&connections), Arc::clone(&to));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Some(to) = *behind.lock().expect("whole") else { continue };
                let far = TcpStream::connect(to).expect("the supernode takes connections");
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().expect("cloned"), to.try_clone().expect("cloned"));
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().expect("whole").push(near);
            }
        });
        Self { at, _black_hole: black_hole, connections, to }
    }

    /// Breaks all connections that go through it; how many there were.
    fn break_all(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().expect("whole"));
        for connection in &*connections {
            drop(connection.shutdown(Shutdown::Both));
        }
        connections.len()
    }
}

/// A supernode behind a front, a leaf that knows the front only, and one with UDP.
struct Net {
    supernode: Endpoint,
    front: Front,
    blocked: Endpoint,
    normal: Endpoint,
}

impl Net {
    fn start(ip: IpAddr) -> Self {
        let front = Front::new(ip);
        let any = SocketAddr::new(ip, 0);
        let supernode = start(Options::supernode([front.at]), any, None);
        let behind = supernode.listen_addresses()[0];
        *front.to.lock().expect("whole") = Some(behind);
        let blocked = start(Options::leaf(), any, Some((supernode.id(), front.at)));
        let normal = start(Options::leaf(), any, Some((supernode.id(), behind)));
        for endpoint in [&supernode, &blocked, &normal] {
            endpoint.wait_ready(PATIENCE).expect("ready");
        }
        Self { supernode, front, blocked, normal }
    }
}

fn service() -> ServiceName {
    "pair".parse().expect("a name")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * n / 7 + n) & 0xff).expect("a byte")).collect()
}

#[test]
fn a_leaf_without_udp_is_at_home_over_tcp_and_bytes_flow_both_ways() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let net = Net::start(ip);
        assert_eq!(net.blocked.status().expect("status").udp_works, Some(false), "over {ip}");
        assert_eq!(net.normal.status().expect("status").udp_works, Some(true));
        let acceptor = net.blocked.offer(service(), Access::Any).expect("offered");
        let mut near = net.normal.peer(net.blocked.id()).open(&service(), PATIENCE).expect("opened");
        let mut far = acceptor.accept(Some(PATIENCE)).expect("accepted");
        let sent = pattern(200_000);
        let wanted = sent.clone();
        let echo = thread::spawn(move || {
            let mut got = vec![0; wanted.len()];
            far.read_exact(&mut got).expect("all of it");
            assert_eq!(got, wanted);
            far.write_all(&got).expect("back");
            far
        });
        near.write_all(&sent).expect("written");
        let mut back = vec![0; sent.len()];
        near.read_exact(&mut back).expect("all of it");
        assert_eq!(back, sent);
        drop(echo.join().expect("echoed"));
    }
}

#[test]
fn a_connection_that_breaks_is_opened_again() {
    let net = Net::start(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let acceptor = net.blocked.offer(service(), Access::Any).expect("offered");
    for _ in 0..3 {
        assert!(net.front.break_all() > 0);
        let began = Instant::now();
        while net.front.connections.lock().expect("whole").is_empty() {
            assert!(began.elapsed() < PATIENCE, "no other connection comes");
            thread::sleep(Duration::from_millis(20));
        }
        // Who knows nothing but the supernode finds the leaf by the new connection.
        let behind = net.supernode.listen_addresses()[0];
        let any = SocketAddr::new(behind.ip(), 0);
        let stranger = start(Options::leaf(), any, Some((net.supernode.id(), behind)));
        let mut near = stranger.peer(net.blocked.id()).open(&service(), PATIENCE).expect("opened");
        let mut far = acceptor.accept(Some(PATIENCE)).expect("accepted");
        near.write_all(b"hello").expect("written");
        let mut got = [0; 5];
        far.read_exact(&mut got).expect("it comes");
        assert_eq!(&got, b"hello");
    }
}

/// Whether the other end closes a connection on which this was said.
fn closes(to: SocketAddr, said: &[u8]) -> bool {
    let mut stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(said).expect("said");
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("neither closed nor answered: {error}"),
    }
}

#[test]
fn malformed_frames_end_the_connection_and_silence_does_too() {
    let supernode = start(Options::supernode([]), ([127, 0, 0, 1], 0).into(), None);
    let at = supernode.listen_addresses()[0];
    assert!(closes(at, &[0, 0]), "a frame of nothing");
    assert!(closes(at, &[0xff, 0xff]), "a frame longer than any packet");
    assert!(closes(at, &[3, 0, 1, 2, 3, 0, 0]), "also behind a good one");
    assert!(closes(at, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "a browser");
    // Junk in a frame is not answered, half a frame keeps nobody alive: these end after a while.
    thread::scope(|scope| {
        for said in [&[2, 0, 4, 4][..], &[200], &[]] {
            scope.spawn(move || assert!(closes(at, said), "{said:?}"));
        }
    });
    assert!(supernode.status().expect("status").counters.rx_datagrams >= 1);
}

#[test]
fn a_supernode_takes_links_at_another_tcp_port_too() {
    let ip = Ipv4Addr::LOCALHOST;
    let free = TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()).expect("a free port");
    let options = || Options::supernode([]).listen([(ip, 0).into()]).listen_tcp([free]).port_mapping(false);
    let supernode = Endpoint::start(options()).expect("started");
    assert!(closes(free, &[0, 0]), "it listens there");
    // The port is taken now: a second one says so.
    let error = Endpoint::start(options()).expect_err("taken");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    drop(supernode);
}
