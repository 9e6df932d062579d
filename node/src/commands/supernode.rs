//! `handfast supernode`: a node that helps others to find each other and relays for them.

use std::net::SocketAddr;

use handfast_io::Config;

use super::Wishes;
use crate::cli::SupernodeArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Host, Plan};
use crate::report::RelayLimits;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target;

pub(super) fn run(state: &StateDir, args: &SupernodeArgs) -> Result<Exit, Failure> {
    let wishes = Wishes::read(&args.node)?;
    let asked = target::resolve_one(&args.listen)?;
    let claimed = args.advertise.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    if claimed.is_empty() && asked.ip().is_unspecified() {
        return Err(Failure::usage(
            format!("--listen {asked} does not say at which address others reach this supernode"),
            format!("add --advertise HOST:{}", asked.port()),
        ));
    }
    if let Some(wrong) = claimed.iter().find(|at| at.ip().is_unspecified() || at.ip().is_multicast()) {
        return Err(Failure::usage(
            format!("nobody can send to --advertise {wrong}"),
            "name the address at which the internet reaches this machine",
        ));
    }
    let listen_tcp = args.listen_tcp.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    let listen = host::free_port(asked).map_err(|error| host::cannot_start(&error, &[asked], state))?;
    let advertise = advertised(listen, &claimed);
    // claimed or the listen address: never empty.
    let first = advertise[0];

    let signals = super::signals()?;
    let mut config = wishes.config(Config::supernode(advertise));
    args.duty.apply(&mut config);
    let limits = RelayLimits::of(&config).to_text();
    let host = Host::start(
        state,
        Plan {
            config,
            listen: vec![listen],
            listen_tcp,
            bootstrap: wishes.bootstrap.clone(),
            port_map: args.node.router.port_map(),
        },
    )?;
    let _offers = wishes.offer(host.server())?;
    talk::note(format!("supernode  ON at UDP and TCP {listen}, helping others within: {limits}"));
    super::announce(&format!("{}@{first}", host.endpoint().id()))?;
    Ok(super::serve(host, &signals))
}

/// What the advert says: the addresses claimed, port 0 meaning the bound one, or the listen address itself.
fn advertised(listen: SocketAddr, claimed: &[SocketAddr]) -> Vec<SocketAddr> {
    if claimed.is_empty() {
        return vec![listen];
    }
    let port = |at: &SocketAddr| if at.port() == 0 { listen.port() } else { at.port() };
    claimed.iter().map(|at| SocketAddr::new(at.ip(), port(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_the_bound_port() {
        let listen = host::free_port("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(listen.port(), 0);
        assert_eq!(host::free_port(listen).unwrap(), listen);
        assert_eq!(advertised(listen, &[]), [listen]);
        let claimed: [SocketAddr; 2] = ["192.0.2.1:0".parse().unwrap(), "192.0.2.1:5".parse().unwrap()];
        let expected = SocketAddr::new(claimed[0].ip(), listen.port());
        assert_eq!(advertised(listen, &claimed), [expected, claimed[1]]);
    }
}
