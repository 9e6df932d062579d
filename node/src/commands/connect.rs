//! `handfast connect`: a local TCP address that leads to a peer's service.

use std::net::SocketAddr;
use std::time::Duration;

use handfast_io::ServiceName;

use crate::cli::ConnectArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Way};
use crate::local_api::client;
use crate::local_api::line::Line;
use crate::report::short;
use crate::signals::Outcome;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target::{self, Target};

pub(super) fn run(state: &StateDir, args: &ConnectArgs) -> Result<Exit, Failure> {
    let target = Target::from_argument(&args.target)?;
    let service = target.service()?;
    let listen = target::resolve_one(&args.listen)?;
    if !listen.ip().is_loopback() {
        talk::warn(format!("everyone who reaches {listen} can use the service as you"));
    }
    let known = super::known(&args.reach, &target)?;
    let timeout = Duration::from_secs(args.wait.timeout);

    let signals = super::signals()?;
    let attached = host::attach(state, &known, &args.reach.router)?;
    let way = attached.way(&known).towards(target.ticket.peer);
    match signals.run(move || listen_for(&way, &target, service, listen, timeout)) {
        Outcome::Done(result) => {
            attached.abandon();
            result
        }
        Outcome::Interrupted(_) => {
            attached.abandon();
            Ok(Exit::Interrupted)
        }
    }
}

/// Listens until the node is gone.
fn listen_for(
    way: &Way,
    target: &Target,
    service: ServiceName,
    listen: SocketAddr,
    timeout: Duration,
) -> Result<Exit, Failure> {
    let mut client = way.connect()?;
    let line = Line::new("FORWARD").with("peer", &target.ticket).with("service", service).with("listen", listen);
    let answer = client.ask_peer(line, timeout)?;
    let address = answer.need("address")?;
    let peer = short(&target.peer().to_string());
    if let Some(warning) = answer.get("warning") {
        talk::warn(warning);
    }
    talk::note(format!("connected  {peer}/{service}, {} so far", client::path(&answer).to_text()));
    talk::note(format!("listening  on {address} → {peer}/{service}"));
    super::announce(address)?;
    client.wait_closed();
    Err(Failure::new(Exit::Failure, "the node has stopped, and the listener with it", "run the command again"))
}
