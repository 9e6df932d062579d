//! Two programs that know nothing of each other but a key: one offers an echo, the other uses it.
//!
//! Everything runs in this one process and on loopback, so that it can be tried anywhere. In real life the three nodes
//! are on three machines, and a program reaches supernodes that others run.

use std::error::Error;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use handfast_io::{Access, Config, Endpoint, OpenError, Options, ServiceName, generate_key};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    // A node that others can reach introduces them to each other. Port 0: any.
    let address = vec!["127.0.0.1:0".parse()?];
    let supernode = Endpoint::start(Options {
        listen: address.clone(),
        ..Options::new(generate_key()?, Config::supernode(address))
    })?;
    let bootstrap = vec![(supernode.id(), supernode.listen_addresses()[0])];

    // One program offers a service under a name. `Access::Peers` names who may use it; here everybody may.
    let service: ServiceName = "echo".parse()?;
    let server =
        Endpoint::start(Options { bootstrap: bootstrap.clone(), ..Options::new(generate_key()?, Config::leaf()) })?;
    let acceptor = server.offer(service, Access::Any).map_err(OpenError::Command)?;
    thread::spawn(move || {
        while let Some((mut stream, peer)) = acceptor.accept(None) {
            println!("server: a stream from {peer}");
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() {
                let _ = stream.write_all(text.to_uppercase().as_bytes());
            }
        }
    });
    if !server.wait_ready(PATIENCE) {
        return Err("no supernode took the server in".into());
    }

    // The other program needs the server's key, a supernode, and nothing else.
    let client = Endpoint::start(Options { bootstrap, ..Options::new(generate_key()?, Config::leaf()) })?;
    if !client.wait_ready(PATIENCE) {
        return Err("no supernode took the client in".into());
    }
    let mut stream = client.open(server.id(), &service, PATIENCE)?;
    stream.write_all(b"hello over a link of our own")?;
    stream.finish()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("client: {answer}");
    println!("client: the path is {:?}", client.path_of(server.id()).map(|(path, _)| path));

    for endpoint in [client, server, supernode] {
        endpoint.shutdown(PATIENCE);
    }
    if answer != "HELLO OVER A LINK OF OUR OWN" {
        return Err("a wrong answer".into());
    }
    Ok(())
}
