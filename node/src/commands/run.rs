//! `handfast run`: a node that finds its role by itself: a leaf, and a supernode once the internet reaches it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use handfast_io::Options;

use super::{Wishes, leaf, supernode};
use crate::cli::{LeafArgs, RoleChoice, RunArgs, SupernodeArgs};
use crate::exit::{Exit, Failure};
use crate::host::{self, Host};
use crate::state_dir::StateDir;
use crate::{talk, target};

/// Where a node listens unless told: a port that stays the same can be forwarded, and is found again by its peers.
const PORT: u16 = 7441;

pub(super) fn run(state: &StateDir, args: RunArgs) -> Result<Exit, Failure> {
    match args.role {
        RoleChoice::Auto => auto(state, &args),
        RoleChoice::Leaf => {
            leaf::run(state, &LeafArgs { listen: args.listen, volunteer: args.volunteer, node: args.node })
        }
        RoleChoice::Supernode => {
            let RunArgs { listen, advertise, listen_tcp, duty, node, .. } = args;
            if listen.is_empty() {
                return Err(Failure::usage(
                    "--role supernode needs --listen HOST:PORT",
                    "add it, and --advertise HOST:PORT if others reach it elsewhere",
                ));
            }
            supernode::run(state, &SupernodeArgs { listen, listen_tcp, advertise, duty, node })
        }
    }
}

fn auto(state: &StateDir, args: &RunArgs) -> Result<Exit, Failure> {
    if !args.advertise.is_empty() {
        return Err(Failure::usage(
            "--advertise says where a supernode is, and --role auto finds that out by itself",
            "leave it out, or add --role supernode",
        ));
    }
    let wishes = Wishes::read(&args.node)?;
    let mut listen = args.listen.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    if listen.is_empty() {
        listen = usual_port();
    }
    let listen_tcp = args.listen_tcp.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    host::needs_someone(state, &wishes.bootstrap, &args.node.router)?;
    let is_alone = !host::knows_someone(state, &wishes.bootstrap);

    let signals = super::signals()?;
    let options = args.volunteer.apply(args.duty.apply(Options::auto())).listen_tcp(listen_tcp);
    let host = Host::start(state, wishes.plan(options, listen, &args.node.router))?;
    let _offers = wishes.offer(host.server())?;
    if is_alone {
        talk::warn(
            "this node knows no supernode yet: it needs another node on the LAN, a ticket, or --bootstrap \
             hf1…@HOST:PORT. Waiting",
        );
    } else if !leaf::wait_for_home(&host, &signals, &wishes) {
        host.close();
        return Ok(Exit::Ok);
    }
    super::announce(&host.endpoint().id().to_string())?;
    Ok(super::serve(host, &signals))
}

/// The usual port where it is free, else any.
fn usual_port() -> Vec<SocketAddr> {
    let all: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, PORT).into(), (Ipv6Addr::UNSPECIFIED, PORT).into()];
    match UdpSocket::bind(all[0]) {
        // IPv6 only where the host has it, which io finds out when it binds.
        Ok(_) => all.into_iter().filter(|at| at.is_ipv4() || UdpSocket::bind("[::1]:0").is_ok()).collect(),
        Err(_) => Vec::new(),
    }
}
