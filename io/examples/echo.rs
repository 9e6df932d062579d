//! Two programs that know nothing of each other but a key: one offers an echo, the other uses it.
//!
//! Everything runs in this one process and on loopback, so that it can be tried anywhere. In real life the three nodes
//! are on three machines, and a program reaches supernodes that others run.

use std::error::Error;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use handfast_io::{Access, Endpoint, Options, ServiceName};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    // A node that others can reach introduces them to each other. Port 0: any.
    let any = "127.0.0.1:0".parse()?;
    let supernode = Endpoint::start(Options::supernode([any]).listen([any]))?;
    let known = [(supernode.id(), supernode.listen_addresses()[0])];

    // One program offers a service under a name. `Access::Peers` names who may use it; here everybody may.
    let service: ServiceName = "echo".parse()?;
    let server = Endpoint::start(Options::leaf().bootstrap(known))?;
    let acceptor = server.offer(service, Access::Any)?;
    thread::spawn(move || {
        while let Ok(mut stream) = acceptor.accept(None) {
            println!("server: a stream from {}", stream.peer());
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() {
                let _ = stream.write_all(text.to_uppercase().as_bytes());
            }
        }
    });
    server.wait_ready(PATIENCE)?;

    // The other program needs the server's public key, a supernode, and nothing else.
    let client = Endpoint::start(Options::leaf().bootstrap(known))?;
    client.wait_ready(PATIENCE)?;
    let mut stream = client.peer(server.id()).open(&service, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello over a link of our own")?;
    stream.finish()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("client: {answer}, by {:?}", client.peer(server.id()).path());

    for endpoint in [client, server, supernode] {
        endpoint.shutdown(PATIENCE);
    }
    if answer != "HELLO OVER A LINK OF OUR OWN" {
        return Err("a wrong answer".into());
    }
    Ok(())
}
