//! Datagrams between two nodes, and what one node can say of the other.
//!
//! Datagrams are unreliable: each is sent once, and may be lost or come late. Here a program asks again until it is
//! answered, as programs that use them do. It all runs in one process, on loopback.

use std::error::Error;
use std::thread;
use std::time::Duration;

use handfast_io::{Access, Endpoint, Event, Notice, Options, WaitError, generate_key};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take before the question is asked again.
const ANSWER_MAX: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    let any = "127.0.0.1:0".parse()?;
    let supernode = Endpoint::start(Options::supernode([any]).listen([any]))?;
    let known = [(supernode.id(), supernode.listen_addresses()[0])];

    // This one lets a single peer in, by its key: enough for datagrams, without any service.
    let key = generate_key()?;
    let friend = Access::Peers([key.peer_id()].into());
    let server = Endpoint::start(Options::leaf().contacts(friend).bootstrap(known))?;
    let client = Endpoint::start(Options::leaf().key(key).bootstrap(known))?;
    for endpoint in [&server, &client] {
        endpoint.wait_ready(PATIENCE)?;
    }

    // The server answers whoever it hears, until it is shut down.
    let answering = server.clone();
    let answers = thread::spawn(move || {
        loop {
            match answering.recv_datagram(PATIENCE) {
                Ok((from, question)) => {
                    let _ = answering.peer(from).send_datagram(&[b"you said: ", question.as_slice()].concat());
                }
                Err(WaitError::TimedOut) => {}
                Err(_) => return,
            }
        }
    });

    let events = client.events();
    let peer = client.peer(server.id());
    println!("client: linked by {:?}", peer.connect(PATIENCE)?);
    let answer = (0..50).find_map(|_| {
        peer.send_datagram(b"anybody there?").ok()?;
        client.recv_datagram(ANSWER_MAX).ok()
    });
    let (from, answer) = answer.ok_or("no answer came")?;
    println!("client: {} says {:?}", from, String::from_utf8_lossy(&answer));
    println!("client: a round trip takes {:?}", peer.ping(PATIENCE)?.rtt);
    if let Some(link) = peer.statistics() {
        println!("client: {} bytes sent, {} received", link.tx_bytes, link.rx_bytes);
    }

    server.shutdown(PATIENCE);
    answers.join().map_err(|_| "the server panicked")?;
    // Everybody who was linked with it hears of that.
    let gone = Notice::Event(Event::PeerGone { peer: server.id() });
    while events.recv_timeout(PATIENCE)? != gone {}
    println!("client: the server is gone");
    for endpoint in [client, supernode] {
        endpoint.shutdown(PATIENCE);
    }
    Ok(())
}
