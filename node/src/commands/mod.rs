//! One file per command.

mod connect;
mod doctor;
mod expose;
mod id;
mod leaf;
mod ping;
mod pipe;
mod run;
mod status;
mod supernode;
mod ticket;

use std::net::SocketAddr;

use handfast_io::{Access, Options, PeerId};

use crate::cli::{Cli, Command, NodeArgs, ReachArgs, RouterArgs};
use crate::demo;
use crate::exit::{Exit, Failure};
use crate::host::{Host, Plan};
use crate::local_api::server::Server;
use crate::signals::Signals;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target::{self, Exposure};

/// Does what the command line asks.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    // The demo needs neither key nor state: it leaves nothing behind.
    if let Command::Demo(args) = cli.command {
        return demo::run(&args);
    }
    let state = || StateDir::open(cli.common.state_dir.as_deref());
    match cli.command {
        Command::Id => id::run(&state()?),
        Command::Run(args) => run::run(&state()?, args),
        Command::Supernode(args) => supernode::run(&state()?, &args),
        Command::Leaf(args) => leaf::run(&state()?, &args),
        Command::Expose(args) => expose::run(&state()?, &args),
        Command::Ticket(args) => ticket::run(&state()?, &args),
        Command::Connect(args) => connect::run(&state()?, &args),
        Command::Pipe(args) => pipe::run(&state()?, &args),
        Command::Ping(args) => ping::run(&state()?, &args),
        Command::Status(args) => status::run(&state()?, &args),
        Command::Doctor(args) => doctor::run(&state()?, &args),
        Command::Demo(_) => unreachable!("handled above"),
    }
}

/// What `--bootstrap`, `--expose` and `--allow` say, checked before anything is started.
struct Wishes {
    bootstrap: Vec<(PeerId, SocketAddr)>,
    exposures: Vec<Exposure>,
    access: Access,
}

impl Wishes {
    fn read(args: &NodeArgs) -> Result<Self, Failure> {
        let exposures = args.expose.iter().map(|text| text.parse()).collect::<Result<Vec<Exposure>, _>>()?;
        let access = target::access(&args.allow)?;
        Ok(Self { bootstrap: bootstraps(&args.bootstrap)?, exposures, access })
    }

    /// A node in the role of `options` with these wishes: who is allowed may also `ping`, without any service.
    fn plan(&self, options: Options, listen: Vec<SocketAddr>, router: &RouterArgs) -> Plan {
        Plan::new(options.contacts(self.access.clone()), listen, &self.bootstrap, router)
    }

    /// Offers what is to be exposed, as long as the node runs.
    fn offer(&self, server: &Server) -> Result<Vec<crate::local_api::Offer>, Failure> {
        self.exposures
            .iter()
            .map(|exposure| {
                let offer = server.offers().expose(exposure.service, exposure.target, self.access.clone())?;
                talk::note(offered(exposure, &self.access));
                Ok(offer)
            })
            .collect()
    }
}

/// The `--bootstrap` options; what does not resolve is complained about.
fn bootstraps(texts: &[String]) -> Result<Vec<(PeerId, SocketAddr)>, Failure> {
    target::bootstraps(texts, |failure| talk::warn(failure.to_string()))
}

/// Supernodes to start from: `--bootstrap`, and the homes that a ticket names.
fn known(reach: &ReachArgs, target: &target::Target) -> Result<Vec<(PeerId, SocketAddr)>, Failure> {
    let mut known = bootstraps(&reach.bootstrap)?;
    known.extend(target.ticket.homes.iter().copied());
    Ok(known)
}

/// What is offered, to whom, in one line.
fn offered(exposure: &Exposure, access: &Access) -> String {
    let hint = match access {
        Access::Peers(peers) if peers.is_empty() => " (say who may use it with --allow hf1… or --allow any)",
        _ => "",
    };
    format!("offering   {} → {}   access: {}{hint}", exposure.service, exposure.target, target::access_words(access))
}

/// Installs the signal handlers.
fn signals() -> Result<Signals, Failure> {
    Signals::install().map_err(|error| Failure::io("cannot handle signals", &error))
}

/// Prints the line of data that says "ready".
fn announce(text: &str) -> Result<(), Failure> {
    talk::data(text).map_err(|error| Failure::io("cannot write to standard output", &error))
}

/// Runs until a signal, then says goodbye.
fn serve(host: Host, signals: &Signals) -> Exit {
    signals.wait();
    talk::note("stopping   telling peers and homes");
    host.close();
    Exit::Ok
}
